/* One walk over a strided tensor, left at the first element found. */
#include "kernels/find.h"
#include "kernels/loop.h"

bool lt_holds_int(const lt_tensor *t, int64_t low, int64_t high) {
  lt_loop loop;
  int64_t offset[LT_LOOP_OPERANDS];
  lt_loop_build(&loop, &t->shape, 1, (const int64_t *const[]){t->strides});
  for (int64_t row = 0; t->numel > 0 && row < loop.rows; row++) {
    lt_loop_row(&loop, row, offset);
    for (int64_t i = 0; i < loop.length; i++) {
      int64_t value = lt_tensor_read_int(t, offset[0] + i * loop.step[0]);
      if (low <= value && value <= high) return true;
    }
  }
  return false;
}
