/* Blocks of images as columns (im2col), and columns added up to images again. */
#ifndef LT_KERNELS_UNFOLD_H
#define LT_KERNELS_UNFOLD_H

#include "kernels/pool.h"

/* x: planes of axis[1].in rows and axis[2].in columns; y: for each of them kernel x kernel rows,
 * of one element for each window. What is padded is 0. Sizes in bytes: 4 or 8. */
lt_status lt_unfold(lt_context *ctx, int64_t planes, const lt_window axis[LT_POOL_AXES],
                    int64_t size, const void *x, void *y);
/* x = the sum of the elements of y that were made of it. */
lt_status lt_fold(lt_context *ctx, int64_t planes, const lt_window axis[LT_POOL_AXES],
                  lt_dtype dtype, const void *y, void *x);

#endif
