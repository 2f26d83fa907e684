/* What a gradient rule sees, and the ops it is written with. Rules are made of the engine's own
 * ops, so that a recorded walk can be differentiated again, to any order. */
#ifndef LT_TAPE_VJP_H
#define LT_TAPE_VJP_H

#include "tape/node.h"

/* Owns every tensor made in a rule until the rule ends. After a failure its functions return
 * NULL and do nothing, so rules need no checks; NULL operands give NULL. */
typedef struct lt_scope {
  lt_context *ctx;
  lt_status status;
  int count, capacity;
  lt_tensor **made;
  lt_tensor *few[16];
} lt_scope;

void lt_scope_open(lt_scope *s, lt_context *ctx);
void lt_scope_close(lt_scope *s);
/* Hands a tensor over to the scope; returns it. */
lt_tensor *lt_keep(lt_scope *s, lt_tensor *t);

typedef struct lt_vjp {
  lt_context *ctx;
  lt_scope *s;
  const lt_op *op;
  const lt_attrs *attrs;
  lt_node *node;
  int inputs, outputs;
  lt_tensor **in;  /* saved inputs; NULL for those that `saves` does not name */
  lt_tensor **out; /* saved outputs */
  lt_tensor **dy;  /* gradient of each output; NULL: none arrived */
  bool *need;      /* is the gradient of this input asked for? */
  lt_tensor **dx;  /* results: references owned by the walk */
  bool whole;      /* gradients stay in the output's shape (forward mode) */
} lt_vjp;

/* Gives the gradient of input i: summed over broadcast dimensions and converted to the input's
 * type. NULL gives nothing. Calling twice adds. */
void lt_give(lt_vjp *v, int i, lt_tensor *gradient);

/* Sparse gradients (core/rows.h) live from the rule that makes them to their source: there they are
 * joined, and every rule that would pass one on gets it dense. */
lt_tensor *lt_dense(lt_scope *s, lt_tensor *gradient);
/* a + b; sparse if both are. */
lt_tensor *lt_accumulate(lt_scope *s, lt_tensor *a, lt_tensor *b);

/* Shape and type of an input or output, saved or not. */
lt_spec lt_input_spec(const lt_vjp *v, int i);
lt_spec lt_output_spec(const lt_vjp *v, int i);

/* ---- Ops, for rules. Results belong to the scope. -------------------------------------- */

/* Any op with one result; attrs NULL means defaults. */
lt_tensor *lt_do(lt_scope *s, const lt_op *op, const lt_attrs *attrs, int inputs,
                 lt_tensor *const *in);
lt_tensor *lt_do1(lt_scope *s, const lt_op *op, const lt_attrs *attrs, lt_tensor *a);
lt_tensor *lt_do2(lt_scope *s, const lt_op *op, const lt_attrs *attrs, lt_tensor *a, lt_tensor *b);
lt_tensor *lt_do3(lt_scope *s, const lt_op *op, const lt_attrs *attrs, lt_tensor *a, lt_tensor *b,
                  lt_tensor *c);

/* Any op with several results, into out; those belong to the scope. Returns how many; 0 after a
 * failure, with NULLs in out. */
int lt_do_all(lt_scope *s, const lt_op *op, const lt_attrs *attrs, int inputs, lt_tensor *const *in,
              lt_tensor *out[LT_MAX_OUTPUTS]);

lt_tensor *lt_number(lt_scope *s, double value); /* a weak 0-d tensor */
lt_tensor *lt_add(lt_scope *s, lt_tensor *a, lt_tensor *b);
lt_tensor *lt_sub(lt_scope *s, lt_tensor *a, lt_tensor *b);
lt_tensor *lt_mul(lt_scope *s, lt_tensor *a, lt_tensor *b);
lt_tensor *lt_div(lt_scope *s, lt_tensor *a, lt_tensor *b);
lt_tensor *lt_neg(lt_scope *s, lt_tensor *a);
lt_tensor *lt_scale(lt_scope *s, lt_tensor *a, double factor); /* a * factor */
lt_tensor *lt_shift(lt_scope *s, lt_tensor *a, double term);   /* a + term */
lt_tensor *lt_reshape_to(lt_scope *s, lt_tensor *a, const lt_shape *shape);
lt_tensor *lt_expand_to(lt_scope *s, lt_tensor *a, const lt_shape *shape);
/* Sums out the dimensions that broadcasting made: a becomes `shape`. */
lt_tensor *lt_sum_to(lt_scope *s, lt_tensor *a, const lt_shape *shape);
lt_tensor *lt_sum_over(lt_scope *s, lt_tensor *a, int n, const int64_t *dims, bool keepdim);
lt_tensor *lt_to_dtype(lt_scope *s, lt_tensor *a, lt_dtype dtype);
lt_tensor *lt_full_like(lt_scope *s, const lt_spec *like, double value);

#endif
