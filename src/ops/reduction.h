/* What the files of reductions share: reading dim and keepdim, the result's shape, and giving a
 * gradient its reduced dimensions back. */
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

#endif
