/* Grouping by the radix sort, and tasks that are balanced by rows rather than by groups: a few
 * words make up most of a text. */
#include "kernels/rows.h"
#include "core/context.h"
#include "kernels/parallel.h"
#include "kernels/sort.h"

#include <stdlib.h>
#include <string.h>

/* ---- Grouping -------------------------------------------------------------------------------- */

/* Sorted items to groups. `order` is written behind where items are read. */
static void collect(lt_groups *g, int64_t n, const int64_t *number, const int64_t *skip,
                    const lt_item *items) {
  int64_t used = 0;
  for (int64_t i = 0; i < n; i++) {
    int64_t place = items[i].place, at = number[place];
    if (skip && at == *skip) continue;
    if (g->count == 0 || g->number[g->count - 1] != at) {
      g->number[g->count] = at;
      g->start[g->count++] = used;
    }
    g->order[used++] = place;
  }
  g->start[g->count] = used;
}

lt_status lt_groups_find(lt_context *ctx, int64_t n, const int64_t *number, const int64_t *skip,
                         lt_groups *g) {
  *g = (lt_groups){0};
  size_t room = (size_t)n, items = 2 * room * sizeof(lt_item);
  g->number = malloc((3 * room + 1) * sizeof *g->number);
  lt_item *item = malloc(items ? items : 1);
  if (!g->number || !item) {
    free(item);
    return lt_fail_memory(ctx, (long long)((3 * room + 1) * sizeof *g->number + items));
  }
  g->start = g->number + n;
  g->order = g->start + n + 1;
  lt_sort_items(LT_INT64, n, number, false, item);
  lt_sort(LT_INT64, n, item, item + n);
  collect(g, n, number, skip, item);
  free(item);
  return LT_OK;
}

void lt_groups_free(lt_groups *g) { free(g->number); }

/* ---- Sums ------------------------------------------------------------------------------------ */

enum { TILE = 256, TASKS = 256 };

typedef struct sums {
  const lt_groups *g;
  int64_t width, tasks;
  const char *x;
  char *y;
  bool packed, mean;
} sums;

/* y = sum of the m rows of x that `order` names, divided by `divisor`. */
#define SUM_ROWS(NAME, T)                                                                          \
  static void NAME(int64_t m, const int64_t *order, int64_t width, double divisor,                 \
                   const char *from, char *to) {                                                   \
    const T *x = (const T *)(const void *)from;                                                    \
    T *y = (T *)(void *)to;                                                                        \
    double sum[TILE];                                                                              \
    for (int64_t at = 0; at < width; at += TILE) {                                                 \
      int64_t n = width - at < TILE ? width - at : TILE;                                           \
      for (int64_t i = 0; i < n; i++) sum[i] = 0;                                                  \
      for (int64_t j = 0; j < m; j++) {                                                            \
        const T *row = x + order[j] * width + at;                                                  \
        for (int64_t i = 0; i < n; i++) sum[i] += (double)row[i];                                  \
      }                                                                                            \
      for (int64_t i = 0; i < n; i++) y[at + i] = (T)(sum[i] / divisor);                           \
    }                                                                                              \
  }
SUM_ROWS(sum_f32, float)
SUM_ROWS(sum_f64, double)

/* The first group that begins at or behind place `at` of the order. */
static int64_t group_at(const lt_groups *g, int64_t at) {
  int64_t low = 0, high = g->count;
  while (low < high) {
    int64_t middle = (low + high) / 2;
    if (g->start[middle] < at)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

static void sum_groups(const sums *s, int64_t first, int64_t last, bool single) {
  const lt_groups *g = s->g;
  int64_t bytes = s->width * (int64_t)(single ? sizeof(float) : sizeof(double));
  int64_t rows = g->start[g->count];
  int64_t end = group_at(g, rows * last / s->tasks);
  for (int64_t i = group_at(g, rows * first / s->tasks); i < end; i++) {
    const int64_t *order = g->order + g->start[i];
    int64_t m = g->start[i + 1] - g->start[i];
    char *y = s->y + (s->packed ? i : g->number[i] - 1) * bytes;
    if (m == 1)
      memcpy(y, s->x + order[0] * bytes, (size_t)bytes);
    else
      (single ? sum_f32 : sum_f64)(m, order, s->width, s->mean ? (double)m : 1, s->x, y);
  }
}

static void sum_task_f32(void *argument, int64_t first, int64_t last) {
  sum_groups(argument, first, last, true);
}
static void sum_task_f64(void *argument, int64_t first, int64_t last) {
  sum_groups(argument, first, last, false);
}

lt_status lt_groups_sum(lt_context *ctx, const lt_groups *g, lt_dtype dtype, int64_t width,
                        const void *x, void *y, bool packed, bool mean) {
  sums s = {.g = g, .width = width, .x = x, .y = y, .packed = packed, .mean = mean};
  if (width == 0) return LT_OK;
  s.tasks = g->count < TASKS ? g->count : TASKS;
  return lt_parallel(ctx, s.tasks, g->start[g->count] * width * 2,
                     dtype == LT_FLOAT32 ? sum_task_f32 : sum_task_f64, &s);
}

/* ---- Zeros ----------------------------------------------------------------------------------- */

enum { PIECE = 1 << 16 };

typedef struct zeros {
  char *y;
  int64_t n;
} zeros;

static void zero_task(void *argument, int64_t first, int64_t last) {
  const zeros *z = argument;
  int64_t from = first * PIECE, to = last * PIECE < z->n ? last * PIECE : z->n;
  memset(z->y + from, 0, (size_t)(to - from));
}

lt_status lt_zero(lt_context *ctx, void *y, int64_t n) {
  return lt_parallel(ctx, (n + PIECE - 1) / PIECE, n / 8, zero_task, &(zeros){y, n});
}
