/* Factors of small matrices, stored by columns: what LAPACK, which cuts every matrix into blocks,
 * takes microseconds for. The same methods and results as its routines of these names have. */
#ifndef LT_KERNELS_FACTOR_H
#define LT_KERNELS_FACTOR_H

#include "core/dtype.h"
#include <stdbool.h>
#include <stdint.h>

/* Up to this size, and this many right sides, they are faster. */
enum { LT_SMALL_MATRIX = 16, LT_SMALL_SIDES = 64 };

/* As lt_potrf, lt_getrf, lt_getrs and lt_trsm (kernels/lapack.h). */
int64_t lt_small_potrf(lt_dtype type, bool upper, int64_t n, void *a);
int64_t lt_small_getrf(lt_dtype type, int64_t n, void *a, int32_t *pivots);
void lt_small_getrs(lt_dtype type, bool transposed, int64_t n, int64_t columns, const void *lu,
                    const int32_t *pivots, void *b);
void lt_small_trsm(lt_dtype type, bool right, bool upper, bool unit, int64_t m, int64_t n,
                   const void *a, void *b);

#endif
