/* A node is an executed operation. It always says which op ran where on which values (by id);
 * while a tape needs it, it also holds the values that the gradient rule reads. A node outside
 * every tape, or where the gradient is cut, is light: no values, no options, no sizes. */
#ifndef LT_TAPE_NODE_H
#define LT_TAPE_NODE_H

#include "ops/op.h"

/* Why a node is not on a tape. */
typedef enum lt_reason {
  LT_RECORDED,
  LT_NO_TAPE,     /* no tape was open */
  LT_IN_NO_GRAD,  /* inside lt.no_grad */
  LT_TAPE_PAUSED, /* tapes were open, none was listening */
  LT_UNCONNECTED, /* a tape listened, but watched none of the inputs */
  LT_IN_GRADIENT, /* part of a gradient that no tape recorded */
  LT_READ,        /* a number that left the tensors and came back */
  LT_CUT,         /* stop_gradient, detach */
  LT_NO_GRADIENT  /* the op has none, or the result is not a float */
} lt_reason;

/* One input or output of a node. */
typedef struct lt_edge {
  uint64_t id;
  lt_tensor *saved; /* NULL unless the gradient rule reads it */
  uint32_t version; /* of the saved tensor's block then */
  uint32_t dtype : 3, ndim : 4;
  uint32_t variable : 1;
  uint32_t none : 1; /* an input to which the gradient rule gave nothing */
  uint32_t at : 23;  /* where its sizes begin in the node's list */
} lt_edge;

enum { LT_MAX_EDGES = 1 << 20 };

/* A gradient rule given by the host language, instead of the op's own. */
typedef struct lt_closure {
  lt_status (*vjp)(void *userdata, struct lt_vjp *v);
  void (*release)(void *userdata);
  void *userdata;
  bool repeatable; /* may be called again for the same gradient: nobody would notice */
} lt_closure;

typedef struct lt_node {
  const lt_op *op;
  const lt_op *called; /* what the user called: op, or one that is made of it */
  uint64_t tapes;      /* slots of the tapes that recorded it */
  lt_site site;
  int32_t refs;    /* the history's and the tapes' */
  int32_t holders; /* tapes that still need the values */
  int32_t inputs, outputs, sizes, words;
  uint8_t reason; /* an lt_reason */
  bool on_way;    /* scratch of lt_explain: reads what depends on the source */
  lt_closure closure;
  lt_edge edge[]; /* inputs, outputs; then `sizes` int64, `words` words, behind the edges */
} lt_node;

static inline lt_edge *lt_node_in(lt_node *n, int i) { return &n->edge[i]; }
static inline lt_edge *lt_node_out(lt_node *n, int i) { return &n->edge[n->inputs + i]; }
/* Input i, if it is saved and the gradient rule reads it. */
lt_tensor *lt_node_read(lt_node *n, int i);
lt_spec lt_edge_spec(const lt_node *n, const lt_edge *e);
void lt_node_attrs(const lt_node *n, lt_attrs *attrs);

static inline lt_node *lt_node_retain(lt_node *n) {
  n->refs++;
  return n;
}
void lt_node_release(lt_context *ctx, lt_node *n);

/* One tape needs the values no more; with the last, they go. */
void lt_node_let_go(lt_node *n);

/* Will a tape record this call? */
bool lt_is_recorded(const lt_call *c);

/* Notes an executed call: gives the outputs their ids, puts a node into the history and on every
 * tape that listens and watches an input. Takes the closure over, also when it fails. */
lt_status lt_record(lt_call *c, const lt_closure *closure);

/* Notes a value that no op made (a tensor built by the host): a light node, whose only input
 * is, if lt_record_reading has just noted them, the numbers. `op` only lends its name. */
lt_status lt_record_source(const lt_op *op, lt_tensor *t, bool was_read);

/* Notes that tensor t holds numbers that were read from the values `from`. */
lt_status lt_record_reading(const lt_op *op, int count, const uint64_t *from, lt_site read_at,
                            lt_tensor *t);

/* How many of the last nodes are kept; 0 keeps none. */
void lt_history_limit(lt_context *ctx, int64_t limit);

/* The node that made value `id`, if the history still has it. */
lt_node *lt_history_find(const lt_context *ctx, uint64_t id);
/* Node number k of those kept, oldest first. */
lt_node *lt_history_at(const lt_context *ctx, int64_t k);
void lt_history_clear(lt_context *ctx);

#endif
