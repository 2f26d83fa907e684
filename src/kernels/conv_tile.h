/* The inner products of convolutions. Both read packed columns where a table says: row p of the
 * matrix begins at columns + at[p], so taps may share what they read. Elements may be read up to
 * LT_CONV_SLACK bytes behind the last one that is asked for. */
#ifndef LT_KERNELS_CONV_TILE_H
#define LT_KERNELS_CONV_TILE_H

#include "core/cpu.h"
#include <stdbool.h>
#include <stdint.h>

enum { LT_CONV_SLACK = 64 };

/* y (m x n) = [y +] weights (m x taps) * columns (taps x n). Weights stand in lt_conv_blocks blocks
 * of rows; a block holds, for each of `depth` taps, its rows side by side, and the product takes
 * `taps` of them from `first` on. */
typedef struct lt_conv_rows {
  int64_t m, n, taps;
  const void *weights;
  int64_t depth, first;
  const int64_t *at;
  const void *columns;
  void *y;
  int64_t y_row; /* from row to row; elements of a row are neighbours */
  bool add;
} lt_conv_rows;

/* sums (taps x m) = [sums +] columns (taps x n) * dy^T, where dy is m x n. Rows of sums are
 * lt_conv_width elements, what is behind the m-th is undefined. `room` has space for
 * LT_CONV_DEPTH rows of sums. */
typedef struct lt_conv_sums {
  int64_t m, n, taps;
  const void *dy;
  int64_t dy_row;
  const int64_t *at;
  const void *columns;
  void *sums, *room;
  bool add;
} lt_conv_sums;

enum { LT_CONV_DEPTH = 128 };

/* How many blocks the m rows fall into, the first ones a row larger where they differ. */
int64_t lt_conv_blocks(lt_simd simd, int64_t m);

/* m rounded up to whole vectors. */
int64_t lt_conv_width(lt_simd simd, bool is_double, int64_t m);

void lt_conv_rows_run(const lt_conv_rows *r, lt_simd simd, bool is_double);
void lt_conv_sums_run(const lt_conv_sums *s, lt_simd simd, bool is_double);

/* Copies `rows` rows of `bytes` each; the strides of rows are in bytes. */
void lt_conv_copy(lt_simd simd, int64_t rows, int64_t bytes, char *to, int64_t to_row,
                  const char *from, int64_t from_row);

#endif
