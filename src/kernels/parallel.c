/* OpenMP, shared with BLIS, so that a process has one pool of threads. */
#include "kernels/parallel.h"
#include "core/context.h"

/* Between two looks at the interrupt flag lies about this much work (some milliseconds). */
static const int64_t OPERATIONS_PER_POLL = 1 << 24;

lt_status lt_parallel(lt_context *ctx, int64_t count, int64_t operations, lt_task *task,
                      void *argument) {
  if (count <= 0) return LT_OK;
  int64_t rounds = operations / OPERATIONS_PER_POLL + 1;
  if (rounds > count) rounds = count;
  int threads = lt_threads_for(ctx, operations);
  if ((int64_t)threads > count) threads = (int)count;
  for (int64_t r = 0; r < rounds; r++) {
    int64_t first = count * r / rounds, last = count * (r + 1) / rounds;
    if (r > 0) LT_TRY(lt_check_interrupt(ctx));
#ifdef _OPENMP
    if (threads > 1) {
#  pragma omp parallel for schedule(static) num_threads(threads)
      for (int part = 0; part < threads; part++) {
        task(argument, first + (last - first) * part / threads,
             first + (last - first) * (part + 1) / threads);
      }
      continue;
    }
#endif
    task(argument, first, last);
  }
  return LT_OK;
}
