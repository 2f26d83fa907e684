/* What the normalisations share: calling their fused backward ops, and the gradient of those, which
 * is made of differentiable ops. */
#ifndef LT_OPS_NORM_H
#define LT_OPS_NORM_H

#include "kernels/norm.h"
#include "ops/op.h"
#include "tape/vjp.h"

/* Inputs and results of a backward op, and its first option: a bit for each result that is wanted;
 * the others stay empty. */
enum { LT_NORM_DY, LT_NORM_X, LT_NORM_WEIGHT, LT_NORM_MEAN, LT_NORM_RSTD };
enum { LT_NORM_DX, LT_NORM_DWEIGHT, LT_NORM_DBIAS };
enum { LT_NORM_WANTED };

/* Gradients of a normalisation with inputs x (0), weight and bias (-1: it has none), from the
 * statistics that it kept. */
void lt_norm_vjp(lt_vjp *v, const lt_op *backward, lt_attrs *attrs, int weight, int bias,
                 lt_tensor *mean, lt_tensor *rstd);

/* The results of a backward op: dx like x, dweight and dbias of the shape `weight`. */
lt_status lt_norm_backward_infer(lt_call *c, const lt_shape *weight);

/* How a backward op's tensors are seen by its own gradient. */
typedef struct lt_norm_view {
  lt_shape x, weight, stats; /* broadcast with each other; stats is 1 along `dims` */
  int ndims;
  int64_t dims[LT_MAX_RANK]; /* averaged over */
  bool centred;              /* the mean is taken off */
  bool fixed;                /* the statistics do not depend on x */
  double eps;
} lt_norm_view;
void lt_norm_backward_vjp(lt_vjp *v, const lt_norm_view *view);

/* One element of a contiguous float tensor; NULL data is 1 everywhere (no weight). */
static inline double lt_norm_load(const lt_tensor *t, int64_t i) {
  return t ? lt_tensor_read(t, i) : 1;
}
/* The value as the dtype holds it. */
static inline double lt_norm_rounded(double value, uint8_t dtype) {
  return dtype == LT_FLOAT32 ? (double)(float)value : value;
}

/* A number near the mean of n elements, about which squares lose little: the mean of the first ones
 * of a row, as they pull the variance up by their share where they lie far off, or of all. */
static inline double lt_norm_centre(const lt_norm_kernels *k, int64_t n, const void *x,
                                    uint8_t dtype) {
  int64_t sample = n > 64 && n <= 4096 ? 64 : n;
  return lt_norm_rounded(k->sum(sample, x) / (double)sample, dtype);
}

/* Fails unless input number `input` (absent is fine) has this shape and x's dtype. */
lt_status lt_norm_check(const lt_call *c, int input, const lt_shape *shape);

/* Contiguous versions of inputs for a forward pass, held until released together. */
enum { LT_NORM_HELD = 5 };
lt_status lt_norm_hold(const lt_call *c, lt_tensor *held[LT_NORM_HELD]);
void lt_norm_release(lt_tensor *held[LT_NORM_HELD]);

#endif
