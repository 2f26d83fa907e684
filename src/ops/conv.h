/* The geometry of convolutions, as their blocks hand it to each other. The three inner ops say all
 * of it in options: stride, padding in front, dilation, groups, and the sizes that their inputs do
 * not show (`size`); so each is the gradient of the others, whatever is left over at the end. */
#ifndef LT_OPS_CONV_H
#define LT_OPS_CONV_H

#include "kernels/conv.h"
#include "ops/op.h"
#include "tape/vjp.h"

/* Options of the inner ops, in this order. */
enum { LT_CONV_STRIDE, LT_CONV_PADDING, LT_CONV_DILATION, LT_CONV_GROUPS, LT_CONV_SIZE };

/* A call of conv1d..3d or conv_transpose1d..3d, checked. */
typedef struct lt_conv_call {
  int dims;     /* spatial ones */
  bool batched; /* x has a batch in front */
  int64_t stride[LT_CONV_DIMS], padding[LT_CONV_DIMS], dilation[LT_CONV_DIMS], groups;
  int64_t size[LT_CONV_DIMS]; /* of the result */
} lt_conv_call;

/* The numbers of an option, one for each dimension (one number stands for all), from `least` to
 * 2^31 - 1; `fallback` where it is not given. */
lt_status lt_conv_numbers(const lt_call *c, int option, int dims, int64_t fallback, int64_t least,
                          int64_t result[LT_CONV_DIMS]);

/* Checks types, ranks, groups, channels and bias. Weights are out x in/groups, or in x out/groups
 * where the convolution is transposed. */
lt_status lt_conv_check(const lt_call *c, int dims, int groups_option, bool transposed,
                        lt_conv_call *result);

/* What a kernel of `size` elements spans. */
lt_status lt_conv_span(const lt_call *c, int64_t size, int64_t dilation, int64_t *span);

/* One of the inner ops on x (given a batch of 1 where it has none) and w. */
lt_tensor *lt_conv_do(lt_scope *s, const lt_op *op, const lt_conv_call *o, lt_tensor *x,
                      lt_tensor *w, lt_tensor *bias);

#endif
