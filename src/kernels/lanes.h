/* Lanes: the lines of a tensor along one dimension, from each of which an index of its own chooses
 * elements. What is chosen is taken, or put, added, multiplied into place. No two threads share a
 * lane when it is written, so that what meets in one place does so in the order of index. */
#ifndef LT_KERNELS_LANES_H
#define LT_KERNELS_LANES_H

#include "core/tensor.h"

typedef enum lt_lane_work {
  LT_TAKE,
  LT_PUT,
  LT_ADD,
  LT_MULTIPLY,
  LT_LARGER,
  LT_SMALLER
} lt_lane_work;

/* For every element i of `shape`, with `far` the tensor that is chosen from: takes near[i] = far at
 * place index[i] along dim, or works the other way, far = near, far + near ... The tensors
 * broadcast to the shape, of which `far` may be larger, and has its own size along dim. index is
 * int64, counts from 1 and is known to be in bounds. The types are equal, but that float32 may be
 * worked into float64. */
lt_status lt_lanes(lt_lane_work work, int dim, const lt_shape *shape, lt_tensor *far,
                   const lt_tensor *index, lt_tensor *near);

#endif
