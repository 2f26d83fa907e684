/* Looking for an integer before it does harm: a divisor of 0, an index out of range. */
#ifndef LT_KERNELS_FIND_H
#define LT_KERNELS_FIND_H

#include "core/tensor.h"

/* Does t, of integers or bool, hold an element from `low` to `high`? */
bool lt_holds_int(const lt_tensor *t, int64_t low, int64_t high);

#endif
