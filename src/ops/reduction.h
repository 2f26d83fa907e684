/* What the files of reductions share: reading dim and keepdim, the result's shape, giving a
 * gradient its reduced dimensions back, and the internal ops that their gradients are made of. */
#ifndef LT_OPS_REDUCTION_H
#define LT_OPS_REDUCTION_H

#include "ops/op.h"
#include "tape/vjp.h"

/* Which dimensions of `shape` the option `dim` (DIM or DIMS) names; all, when it is not given. */
lt_status lt_reduced_dims(lt_context *ctx, const lt_op *op, const lt_attrs *attrs, int ndim,
                          bool out[LT_MAX_RANK]);

/* Result i: the shape of input 0 without the reduced dimensions; with them, at size 1, when the
 * option keepdim is set. */
lt_status lt_infer_reduced(lt_call *c, int i, lt_dtype dtype);
/* The same for every reduction that takes an element: fails where there is none to take. */
lt_status lt_infer_taken(lt_call *c, int i, lt_dtype dtype);
/* One result of the input's type. */
lt_status lt_infer_reduction(lt_call *c);

struct lt_fold;
/* Runs a fold over input 0 into the call's results. */
lt_status lt_forward_fold(lt_call *c, const struct lt_fold *fold, const double *k);

/* Elements that go into one. */
int64_t lt_reduced_count(const lt_vjp *v);
/* t, a result of the op or its gradient, with the reduced dimensions back at size 1. */
lt_tensor *lt_restore_dims(lt_vjp *v, lt_tensor *t);
/* Another reduction with dim and keepdim, over the same dimensions; they stay at size 1. */
lt_tensor *lt_reduce_alike(lt_vjp *v, const lt_op *op, lt_tensor *t);

/* The option dim of an op on lines, as 0..ndim-1; 0 for a 0-d tensor. */
lt_status lt_dim_of(const lt_call *c, int *dim);

/* Infer and gradient rule of ops that, with dim, return the elements taken and their places. */
lt_status lt_infer_placed(lt_call *c);
void lt_placed_vjp(lt_vjp *v);
/* Gives the input dy spread evenly over its elements equal to the result; with nans, NaN equals
 * NaN. */
void lt_give_evenly(lt_vjp *v, bool nans);

/* ---- Internal ops ------------------------------------------------------------------------ */

/* exp(x - other); with `equal`, 1 where the two are equal, infinities too. */
lt_tensor *lt_exp_difference(lt_scope *s, lt_tensor *x, lt_tensor *other, bool equal);
/* x / other, and 0 where other is 0. */
lt_tensor *lt_div_or_zero(lt_scope *s, lt_tensor *x, lt_tensor *other);
/* Zeros like input 0 of v's op, to which dy is added at `places`, which count from 1 along dim. */
lt_tensor *lt_put_along(lt_vjp *v, lt_tensor *dy, lt_tensor *places, int64_t dim);

#endif
