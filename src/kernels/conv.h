/* Convolution, its gradient for the input and its gradient for the weight, over one to three
 * spatial dimensions. The three are one trilinear map seen from three sides, so they share one
 * geometry: y[o] += w[k] x[i] wherever i = o * stride - padding + k * dilation in each dimension.
 */
#ifndef LT_KERNELS_CONV_H
#define LT_KERNELS_CONV_H

#include "core/cpu.h"
#include "core/dtype.h"
#include "core/status.h"
#include <stdint.h>

enum { LT_CONV_DIMS = 3 }; /* depth, height, width; height alone for one dimension */

typedef struct lt_conv {
  lt_dtype dtype;
  int64_t images, groups;
  int64_t in, out;                                                /* channels of one group */
  int64_t x[LT_CONV_DIMS], kernel[LT_CONV_DIMS], y[LT_CONV_DIMS]; /* sizes; 1 where not used */
  int64_t stride[LT_CONV_DIMS], padding[LT_CONV_DIMS], dilation[LT_CONV_DIMS];
} lt_conv;

/* A tensor of images x channels x space, or a weight of out x in x space. Strides in elements. */
typedef struct lt_conv_tensor {
  char *data;
  int64_t image, channel; /* of a weight: output channel, input channel of the group */
  int64_t space[LT_CONV_DIMS];
} lt_conv_tensor;

/* y = x * w + bias; bias (NULL for none) has an element for each output channel, `bias_step` apart.
 * Tensors that are read may have any strides; those that are written must be contiguous. Memory of
 * some 500 KB for each thread is taken from the pool while they run. */
lt_status lt_conv_forward(lt_context *ctx, const lt_conv *c, const lt_conv_tensor *x,
                          const lt_conv_tensor *w, const void *bias, int64_t bias_step,
                          const lt_conv_tensor *y);

/* dx from dy and w: the transposed convolution. */
lt_status lt_conv_input(lt_context *ctx, const lt_conv *c, const lt_conv_tensor *dy,
                        const lt_conv_tensor *w, const lt_conv_tensor *dx);

/* dw from x and dy (contiguous). The sum over images and places runs in an order that follows from
 * the sizes alone. */
lt_status lt_conv_weight(lt_context *ctx, const lt_conv *c, const lt_conv_tensor *x,
                         const lt_conv_tensor *dy, const lt_conv_tensor *dw);

#endif
