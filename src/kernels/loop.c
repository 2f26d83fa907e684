/* Merging dimensions, and finding a row. */
#include "kernels/loop.h"

void lt_loop_build(lt_loop *loop, const lt_shape *shape, int operands,
                   const int64_t *const strides[]) {
  int64_t size[LT_MAX_RANK], stride[LT_MAX_RANK][LT_LOOP_OPERANDS];
  int n = 0;
  for (int d = 0; d < shape->ndim; d++) {
    if (shape->size[d] == 1) continue;
    bool merge = n > 0;
    for (int k = 0; merge && k < operands; k++) {
      merge = stride[n - 1][k] == strides[k][d] * shape->size[d];
    }
    if (!merge) size[n++] = 1;
    size[n - 1] *= shape->size[d];
    for (int k = 0; k < operands; k++) stride[n - 1][k] = strides[k][d];
  }
  loop->operands = operands;
  loop->ndim = n > 0 ? n - 1 : 0;
  loop->length = n > 0 ? size[n - 1] : 1;
  loop->rows = 1;
  for (int k = 0; k < operands; k++) loop->step[k] = n > 0 ? stride[n - 1][k] : 1;
  for (int d = 0; d < loop->ndim; d++) {
    loop->size[d] = size[d];
    loop->rows *= size[d];
    for (int k = 0; k < operands; k++) loop->stride[d][k] = stride[d][k];
  }
}

void lt_loop_row(const lt_loop *loop, int64_t row, int64_t offset[LT_LOOP_OPERANDS]) {
  if (loop->ndim <= 1) { /* most are: no division */
    for (int k = 0; k < loop->operands; k++) {
      offset[k] = loop->ndim == 1 ? row * loop->stride[0][k] : 0;
    }
    return;
  }
  for (int k = 0; k < loop->operands; k++) offset[k] = 0;
  for (int d = loop->ndim - 1; d >= 0; d--) {
    int64_t i = row % loop->size[d];
    row /= loop->size[d];
    for (int k = 0; k < loop->operands; k++) offset[k] += i * loop->stride[d][k];
  }
}

void lt_walk_start(lt_walk *w, const lt_loop *loop, int64_t row) {
  lt_loop_row(loop, row, w->offset);
  for (int d = loop->ndim - 1; d >= 0; d--) {
    w->at[d] = row % loop->size[d];
    row /= loop->size[d];
  }
}

void lt_loop_lengthen(lt_loop *loop) {
  enum { SHORT = 16 };
  int last = loop->ndim - 1;
  if (last < 0 || loop->length >= SHORT || loop->size[last] <= loop->length) return;
  loop->rows = loop->rows / loop->size[last] * loop->length;
  int64_t length = loop->length;
  loop->length = loop->size[last];
  loop->size[last] = length;
  for (int k = 0; k < loop->operands; k++) {
    int64_t step = loop->step[k];
    loop->step[k] = loop->stride[last][k];
    loop->stride[last][k] = step;
  }
}
