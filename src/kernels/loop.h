/* Walking several strided operands of one shape at once. Dimensions that lie behind each other
 * in every operand are merged, so most work is a single long row. */
#ifndef LT_KERNELS_LOOP_H
#define LT_KERNELS_LOOP_H

#include "core/shape.h"

enum { LT_LOOP_OPERANDS = 8 };

typedef struct lt_loop {
  int ndim; /* merged outer dimensions, without the row */
  int operands;
  int64_t size[LT_MAX_RANK];
  int64_t stride[LT_MAX_RANK][LT_LOOP_OPERANDS]; /* in elements */
  int64_t rows;                                  /* the product of `size` */
  int64_t length;                                /* elements in a row */
  int64_t step[LT_LOOP_OPERANDS];                /* from one element of a row to the next */
} lt_loop;

/* strides[k] has shape->ndim entries. */
void lt_loop_build(lt_loop *loop, const lt_shape *shape, int operands,
                   const int64_t *const strides[]);

/* Offsets, in elements, of row number `row` in each operand. */
void lt_loop_row(const lt_loop *loop, int64_t row, int64_t offset[LT_LOOP_OPERANDS]);

/* Row after row, without the divisions of lt_loop_row. */
typedef struct lt_walk {
  int64_t at[LT_MAX_RANK];
  int64_t offset[LT_LOOP_OPERANDS]; /* of the row, as lt_loop_row says */
} lt_walk;

void lt_walk_start(lt_walk *w, const lt_loop *loop, int64_t row);

static inline void lt_walk_next(lt_walk *w, const lt_loop *loop) {
  for (int d = loop->ndim - 1; d >= 0; d--) {
    for (int k = 0; k < loop->operands; k++) w->offset[k] += loop->stride[d][k];
    if (++w->at[d] < loop->size[d]) return;
    for (int k = 0; k < loop->operands; k++) w->offset[k] -= loop->size[d] * loop->stride[d][k];
    w->at[d] = 0;
  }
}

/* Rows of a few elements cost more than the elements. Where the order does not matter they change
 * places with the dimension in front of them, if that is longer. */
void lt_loop_lengthen(lt_loop *loop);

#endif
