/* The one door to threads: a loop over tasks whose results do not depend on who runs them. */
#ifndef LT_KERNELS_PARALLEL_H
#define LT_KERNELS_PARALLEL_H

#include "core/status.h"
#include <stdint.h>

/* Tasks first..last-1. */
typedef void lt_task(void *argument, int64_t first, int64_t last);

/* Runs tasks 0..count-1, on several threads when `operations` elementary steps are worth it.
 * Polls for interrupts between groups of tasks. */
lt_status lt_parallel(lt_context *ctx, int64_t count, int64_t operations, lt_task *task,
                      void *argument);

#endif
