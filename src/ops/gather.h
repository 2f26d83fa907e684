/* What the ops share that choose elements along a dimension by an index of its own. */
#ifndef LT_OPS_GATHER_H
#define LT_OPS_GATHER_H

#include "kernels/lanes.h"
#include "ops/op.h"
#include "tape/vjp.h"

/* Input 0 of those ops is x, input 1 index, option 0 dim. The dim; index has the dimensions of x,
 * is no larger but along dim, and in bounds. */
lt_status lt_check_lanes(const lt_call *c, int *dim);

/* lt_lanes in the shape of index, of any index type. */
lt_status lt_on_lanes(lt_lane_work work, int dim, lt_tensor *far, lt_tensor *index,
                      lt_tensor *near);
/* far += near at index; in double, where many meet in one place. */
lt_status lt_add_on_lanes(int dim, lt_tensor *far, lt_tensor *index, lt_tensor *near);

/* For rules: x at index along dim, and the way back, into zeros of shape x. */
lt_tensor *lt_gather(lt_scope *s, lt_tensor *x, int64_t dim, lt_tensor *index);
lt_tensor *lt_gather_backward(lt_scope *s, lt_tensor *dy, int64_t dim, lt_tensor *index,
                              const lt_shape *x);

#endif
