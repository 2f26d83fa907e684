/* Reducing: a fold takes elements, one after the other, into a small state; the driver finds
 * contiguous rows or columns of elements for it, in any layout of memory. Long reductions are cut
 * into fixed blocks whose states merge in a fixed order, so threads never change a bit. */
#ifndef LT_KERNELS_REDUCE_H
#define LT_KERNELS_REDUCE_H

#include "core/cpu.h"
#include "core/tensor.h"

/* Floats of both sizes are folded in double, integers in int64. */
typedef union lt_cell {
  double f;
  int64_t i;
} lt_cell;

enum { LT_FOLD_PLANES = 3 };

/* Takes n contiguous elements into one state. `at` is the place of the first among all that are
 * reduced; k are the fold's own numbers. A state has one cell per plane. */
typedef void lt_fold_row(int64_t n, const void *x, int64_t at, lt_cell *state, const double *k);

/* Takes `rows` rows of n contiguous elements, `stride` elements apart, into n states: plane p of
 * state j is state[p * n + j]. Row r has place at + r. */
typedef void lt_fold_columns(int64_t n, int64_t rows, const void *x, int64_t stride, int64_t at,
                             lt_cell *state, const double *k);

/* Takes the states `b` of later elements into `a`; n of them, laid out as above. */
typedef void lt_fold_merge(int64_t n, lt_cell *a, const lt_cell *b);

/* Turns states over `count` elements into results, in place: plane i becomes output i. */
typedef void lt_fold_finish(int64_t n, lt_cell *state, int64_t count, const double *k);

typedef struct lt_fold {
  int planes;
  bool ordered;                        /* the place of an element matters */
  lt_cell start_float[LT_FOLD_PLANES]; /* the state of no elements, for float inputs */
  lt_cell start_int[LT_FOLD_PLANES];   /* and for integers and bool */
  lt_fold_row *row[LT_SIMD_COUNT][LT_DTYPE_COUNT];
  lt_fold_columns *columns[LT_SIMD_COUNT][LT_DTYPE_COUNT];
  lt_fold_merge *merge_float, *merge_int;
  lt_fold_finish *finish; /* NULL: the states are the results */
} lt_fold;

/* Sum of x; of x divided by the number of elements; product. */
extern const lt_fold lt_fold_sum, lt_fold_mean, lt_fold_prod;
/* Number of elements other than 0; whether there is one; whether all are. */
extern const lt_fold lt_fold_count, lt_fold_any, lt_fold_all;
/* Extremes: NaN wins. The arg forms give the first place, counted from 1; the pairs value and
 * place. */
extern const lt_fold lt_fold_amax, lt_fold_amin, lt_fold_argmax, lt_fold_argmin;
extern const lt_fold lt_fold_max, lt_fold_min;
/* Mean squared deviation from the mean, over count - k[0] instead of count; and its root. */
extern const lt_fold lt_fold_var, lt_fold_std;
/* sum |x|^k[0], to the power 1/k[0]; the cases 2, 1 and 0 (a count); the extremes of |x|. */
extern const lt_fold lt_fold_norm, lt_fold_norm2, lt_fold_norm1, lt_fold_norm0;
extern const lt_fold lt_fold_abs_max, lt_fold_abs_min;
/* log sum exp x. */
extern const lt_fold lt_fold_logsumexp;

/* Reduces the dimensions d of x with out[d] set. `results` are contiguous tensors that hold one
 * element for each combination of the other dimensions, in row-major order. */
lt_status lt_reduce(const lt_fold *fold, const double *k, const lt_tensor *x,
                    const bool out[LT_MAX_RANK], int outputs, lt_tensor *const *results);

#endif
