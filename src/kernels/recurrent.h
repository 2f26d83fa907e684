/* Recurrent cells, one time step of a batch: what follows the matrix products, in one pass over the
 * gates. Rows are samples; gates lie side by side in a row, each as wide as the hidden state. */
#ifndef LT_KERNELS_RECURRENT_H
#define LT_KERNELS_RECURRENT_H

#include "core/cpu.h"
#include "core/dtype.h"
#include "kernels/parallel.h"

typedef enum lt_recurrent {
  LT_RNN_TANH, /* h = tanh(z) */
  LT_RNN_RELU, /* h = max(z, 0) */
  LT_GRU,  /* r, z, n; h = (1 - z) n + z h' (Cho et al. 2014, with the reset after the product) */
  LT_LSTM, /* i, f, g, o; c = f c' + i g, h = o tanh(c) (Hochreiter & Schmidhuber 1997) */
  LT_RECURRENT_COUNT
} lt_recurrent;

/* A matrix: row r begins `step` elements behind row r - 1. */
typedef struct lt_rows {
  char *data;
  int64_t step;
} lt_rows;

/* One time step; x' is what the step before left. Cells leave alone what they have no use for. */
typedef struct lt_recurrent_step {
  int64_t hidden;
  lt_rows gates;       /* in: sums of the products; out: their activations. In plain cells: h */
  lt_rows h;           /* result */
  lt_rows memory;      /* result: lstm's c; of gru the hidden half of n, before the reset */
  lt_rows last_h;      /* gru: h' */
  lt_rows last_memory; /* lstm: c' */
  lt_rows product;     /* gru: w_hh h', which the others have in the gates */
  const void *bias, *hidden_bias; /* b_ih and b_hh */
  lt_rows dy, dh;        /* backward: gradients of h, from above and from the step after; dh
                            becomes what h' gets beside the product */
  lt_rows dc;            /* lstm: gradient of c, becomes that of c' */
  lt_rows dinput, dlast; /* results: gradients of the input's and of the hidden sums, one matrix but
                            in gru */
} lt_recurrent_step;

/* Tasks are rows, the argument is the step. For float32 and float64. */
lt_task *lt_recurrent_forward(lt_recurrent cell, lt_simd simd, lt_dtype dtype);
lt_task *lt_recurrent_backward(lt_recurrent cell, lt_simd simd, lt_dtype dtype);

#endif
