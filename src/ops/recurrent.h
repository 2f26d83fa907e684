/* A recurrent network over a whole sequence: what its ops, its passes and its rules share. Sizes
 * are PyTorch's: x is steps x batch x inputs, h0 cells x batch x hidden, where a cell is a layer in
 * one direction; its weights are w_ih, w_hh and, with bias, b_ih and b_hh. */
#ifndef LT_OPS_RECURRENT_H
#define LT_OPS_RECURRENT_H

#include "kernels/recurrent.h"
#include "ops/op.h"

enum { LT_NETWORK_OWN = 24 };
enum { LT_W_IH, LT_W_HH, LT_B_IH, LT_B_HH };

typedef struct lt_network {
  lt_context *ctx;
  const char *name; /* of the op */
  lt_recurrent cell;
  lt_dtype dtype;
  int64_t layers, directions, steps, batch, inputs, hidden;
  int64_t gates;    /* width of all gates */
  int64_t memory;   /* and of what a cell keeps beside them */
  int64_t per_cell; /* weights: 4, or 2 without bias */
  int64_t slots;    /* cells that have gates and memory of their own: all, or one that is shared */
  bool batched, batch_first;
  double dropout;
  uint64_t seed, counter;
  lt_tensor *const *weight;
  lt_tensor *own[LT_NETWORK_OWN]; /* released at the end of a pass */
  int owned;
} lt_network;

static inline int64_t lt_network_cells(const lt_network *n) { return n->layers * n->directions; }
/* Of a layer's output. */
static inline int64_t lt_network_width(const lt_network *n) { return n->directions * n->hidden; }
static inline int64_t lt_network_inputs(const lt_network *n, int64_t layer) {
  return layer == 0 ? n->inputs : lt_network_width(n);
}
/* Width of what the way back reads, see lt_network_forward. */
static inline int64_t lt_network_kept(const lt_network *n) {
  int64_t outputs = (n->batch_first ? n->layers : n->layers - 1) * lt_network_width(n);
  return (n->memory ? n->slots * (n->gates + n->memory) : 0) + outputs;
}
static inline int lt_network_states(const lt_network *n) { return n->cell == LT_LSTM ? 2 : 1; }

/* The steps of a cell in the order of its direction: first, first + by, ... */
typedef struct lt_order {
  int64_t first, by;
} lt_order;
static inline lt_order lt_network_order(const lt_network *n, int64_t cell) {
  if (cell % n->directions == 1) return (lt_order){n->steps - 1, -1};
  return (lt_order){0, 1};
}

/* Weight i as the user gives them, and where it begins among the elements of all. */
lt_shape lt_network_weight_shape(const lt_network *n, int64_t i);
int64_t lt_network_weight_place(const lt_network *n, int64_t i);
/* The counter from which the dropout mask behind a layer is drawn. */
uint64_t lt_network_counter(const lt_network *n, int64_t layer);

/* Inputs and results of the ops, and of the op of their gradient. */
enum { LT_RNN_X, LT_RNN_H0, LT_RNN_C0 };
enum {
  LT_RNN_DY,
  LT_RNN_DH_N,
  LT_RNN_DC_N,
  LT_RNN_OF_X,
  LT_RNN_OF_H0,
  LT_RNN_OF_C0,
  LT_RNN_OF_Y,
  LT_RNN_OF_KEPT,
  LT_RNN_OF_WEIGHTS
};
/* All gradients of weights stand one behind the other, as the weights do. */
enum { LT_RNN_DX, LT_RNN_DH0, LT_RNN_DWEIGHTS, LT_RNN_DC0 };

/* Fills y and the last states. What the way back reads goes into the result behind them, steps x
 * batch x kept, if it is recorded: for each cell its gates and memory, then the outputs of those
 * layers whose output is not y. */
lt_status lt_network_forward(lt_network *n, lt_call *c);
/* Fills dh0 and dc0, and dx and the gradients of the weights where they are wanted. */
lt_status lt_network_backward(lt_network *n, lt_call *c, bool wants_x, bool wants_weights);

#endif
