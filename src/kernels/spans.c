/* Blocks of spans, one after the other; threads share the rows of a block when copying, and the
 * leading dimensions, in which all spans are whole, when adding. */
#include "kernels/spans.h"
#include "core/context.h"
#include "kernels/copy.h"
#include "kernels/loop.h"
#include "kernels/parallel.h"

#include <string.h>

void lt_spans_add(lt_spans *r, int d, lt_span span) {
  if (span.length > 0) r->span[d][r->count[d]++] = span;
}

/* A block: where it begins in both tensors, its sizes and strides there. */
typedef struct block {
  lt_shape shape;
  int64_t at[2], stride[2][LT_MAX_RANK];
  bool filled;
} block;

/* Which span of each dimension; the last dimension changes fastest. */
static bool next_block(const lt_spans *r, int ndim, int chosen[LT_MAX_RANK]) {
  for (int d = ndim - 1; d >= 0; d--) {
    if (++chosen[d] < r->count[d]) return true;
    chosen[d] = 0;
  }
  return false;
}

static block block_of(const lt_spans *r, const int chosen[LT_MAX_RANK], const lt_tensor *y,
                      const lt_tensor *x) {
  block b = {.shape.ndim = y->shape.ndim};
  for (int d = 0; d < y->shape.ndim; d++) {
    const lt_span *span = &r->span[d][chosen[d]];
    b.shape.size[d] = span->length;
    b.stride[0][d] = y->strides[d];
    b.stride[1][d] = x->strides[d] * span->step;
    b.at[0] += span->to * y->strides[d];
    b.at[1] += span->from * x->strides[d];
    b.filled = b.filled || span->filled;
  }
  return b;
}

static bool no_blocks(const lt_spans *r, int ndim) {
  for (int d = 0; d < ndim; d++) {
    if (r->count[d] == 0) return true;
  }
  return false;
}

/* ---- Copying -------------------------------------------------------------------------------- */

typedef struct copying {
  lt_loop loop;
  char *y;
  const char *x;
  int64_t size, pieces; /* of a row */
  lt_dtype as;
} copying;

static const int64_t PIECE = 1 << 14;

static void copy_task(void *argument, int64_t first, int64_t last) {
  const copying *w = argument;
  const lt_loop *loop = &w->loop;
  lt_walk walk;
  lt_walk_start(&walk, loop, first / w->pieces);
  for (int64_t t = first; t < last; t++) {
    int64_t at = t % w->pieces * PIECE;
    int64_t n = loop->length - at < PIECE ? loop->length - at : PIECE;
    lt_convert(n, w->as, w->y + (walk.offset[0] + at * loop->step[0]) * w->size, loop->step[0],
               w->as, w->x + (walk.offset[1] + at * loop->step[1]) * w->size, loop->step[1]);
    if (at + n == loop->length) lt_walk_next(&walk, loop);
  }
}

lt_status lt_spans_copy(const lt_spans *r, lt_tensor *y, const lt_tensor *x, const void *fill) {
  int chosen[LT_MAX_RANK] = {0}, ndim = y->shape.ndim;
  if (no_blocks(r, ndim)) return LT_OK;
  copying w = {.size = lt_dtype_size((lt_dtype)y->dtype)};
  w.as = w.size == 8 ? LT_INT64 : w.size == 4 ? LT_INT32 : LT_UINT8;
  do {
    block b = block_of(r, chosen, y, x);
    w.y = y->data + b.at[0] * w.size;
    w.x = b.filled ? fill : x->data + b.at[1] * w.size;
    if (b.filled) memset(b.stride[1], 0, sizeof b.stride[1]);
    lt_loop_build(&w.loop, &b.shape, 2, (const int64_t *const[]){b.stride[0], b.stride[1]});
    lt_loop_lengthen(&w.loop);
    w.pieces = (w.loop.length + PIECE - 1) / PIECE;
    LT_TRY(lt_parallel(y->ctx, w.loop.rows * w.pieces, lt_shape_numel(&b.shape), copy_task, &w));
  } while (next_block(r, ndim, chosen));
  return LT_OK;
}

/* ---- Adding --------------------------------------------------------------------------------- */

/* Where several meet in one place they are summed in double. */
#define ADD_ROW(NAME, T)                                                                           \
  static void NAME(int64_t n, void *x_bytes, int64_t xs, const void *y_bytes, int64_t ys) {        \
    T *x = x_bytes;                                                                                \
    const T *y = y_bytes;                                                                          \
    double sum = 0;                                                                                \
    if (xs == 0) {                                                                                 \
      for (int64_t i = 0; i < n; i++) sum += (double)y[i * ys];                                    \
      x[0] += (T)sum;                                                                              \
    } else if (xs == 1 && ys == 1) {                                                               \
      for (int64_t i = 0; i < n; i++) x[i] += y[i];                                                \
    } else {                                                                                       \
      for (int64_t i = 0; i < n; i++) x[i * xs] += y[i * ys];                                      \
    }                                                                                              \
  }
ADD_ROW(add_f32, float)
ADD_ROW(add_f64, double)

typedef struct adding {
  const lt_spans *r;
  int leading;   /* dimensions */
  lt_loop outer; /* over them */
  lt_tensor *dx;
  const lt_tensor *dy;
} adding;

static void add_block(const adding *w, const block *b, const int64_t base[2]) {
  int64_t size = lt_dtype_size((lt_dtype)w->dx->dtype);
  lt_loop loop;
  lt_walk walk;
  lt_loop_build(&loop, &b->shape, 2, (const int64_t *const[]){b->stride[0], b->stride[1]});
  lt_loop_lengthen(&loop);
  lt_walk_start(&walk, &loop, 0);
  for (int64_t row = 0; row < loop.rows; row++, lt_walk_next(&walk, &loop)) {
    const char *y = w->dy->data + (base[0] + b->at[0] + walk.offset[0]) * size;
    char *x = w->dx->data + (base[1] + b->at[1] + walk.offset[1]) * size;
    if (size == 4)
      add_f32(loop.length, x, loop.step[1], y, loop.step[0]);
    else
      add_f64(loop.length, x, loop.step[1], y, loop.step[0]);
  }
}

static void add_task(void *argument, int64_t first, int64_t last) {
  const adding *w = argument;
  int64_t offset[LT_LOOP_OPERANDS];
  for (int64_t t = first; t < last; t++) {
    int64_t i = t % w->outer.length;
    lt_loop_row(&w->outer, t / w->outer.length, offset);
    int64_t base[2] = {offset[0] + i * w->outer.step[0], offset[1] + i * w->outer.step[1]};
    int chosen[LT_MAX_RANK] = {0};
    do {
      block b = block_of(w->r, chosen, w->dy, w->dx);
      for (int d = 0; d < w->leading; d++) b.shape.size[d] = 1;
      if (!b.filled) add_block(w, &b, base);
    } while (next_block(w->r, w->dy->shape.ndim, chosen));
  }
}

lt_status lt_spans_return(const lt_spans *r, lt_tensor *dx, const lt_tensor *dy) {
  int ndim = dy->shape.ndim;
  memset(dx->data, 0, (size_t)(dx->numel * lt_dtype_size((lt_dtype)dx->dtype)));
  if (no_blocks(r, ndim)) return LT_OK;
  adding w = {.r = r, .dx = dx, .dy = dy};
  lt_shape outer = {.ndim = ndim};
  for (int d = 0; d < ndim; d++) {
    const lt_span *span = &r->span[d][0];
    bool whole = span->step == 1 && span->length == dx->shape.size[d] && r->count[d] == 1;
    if (w.leading == d && whole) w.leading++;
    outer.size[d] = w.leading > d ? span->length : 1;
  }
  lt_loop_build(&w.outer, &outer, 2, (const int64_t *const[]){dy->strides, dx->strides});
  return lt_parallel(dx->ctx, w.outer.rows * w.outer.length, dy->numel * 2, add_task, &w);
}
