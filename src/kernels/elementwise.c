/* The driver of elementwise kernels: finds tiles, brings strided, broadcast or foreign-typed
 * operands into contiguous buffers, and splits the work among threads by fixed chunks. */
#include "kernels/elementwise.h"
#include "core/context.h"
#include "kernels/copy.h"
#include "kernels/loop.h"
#include "kernels/parallel.h"

/* Elements in a gathered tile: operands and result of a tile fit the first-level cache. */
enum { TILE = 512, OPERANDS = 1 + LT_TILE_INPUTS };

/* Elements of a row that one task computes; a multiple of every vector's length. */
static const int64_t CHUNK = 1 << 14;

typedef struct work {
  lt_loop loop;
  lt_tile *tile;
  int operands;            /* the result included */
  char *base[OPERANDS];    /* first elements */
  lt_dtype type[OPERANDS]; /* as stored */
  bool direct[OPERANDS];   /* rows can be used as they lie */
  lt_dtype as[OPERANDS];   /* as the tile takes them */
  int64_t chunks;          /* tasks per row */
  const double *k;
} work;

/* Elements first..first+n-1 of the row whose operands begin at offset[]. */
static void compute(const work *w, const int64_t *offset, int64_t first, int64_t n) {
  _Alignas(64) char buffer[LT_TILE_INPUTS][TILE * sizeof(double)];
  void *p[OPERANDS];
  bool gathers = false;
  for (int j = 1; j < w->operands; j++) gathers = gathers || !w->direct[j];
  int64_t most = gathers ? TILE : n;
  bool filled[OPERANDS] = {false};
  for (int64_t at = first; at < first + n; at += most) {
    int64_t count = first + n - at < most ? first + n - at : most;
    for (int j = 0; j < w->operands; j++) {
      int64_t size = lt_dtype_size(w->type[j]);
      char *from = w->base[j] + (offset[j] + at * w->loop.step[j]) * size;
      if (w->direct[j]) {
        p[j] = from;
        continue;
      }
      p[j] = buffer[j - 1];
      if (filled[j]) continue; /* one element, broadcast along the row */
      lt_convert(count, w->as[j], p[j], 1, w->type[j], from, w->loop.step[j]);
      filled[j] = w->loop.step[j] == 0;
    }
    w->tile(count, p, w->k);
  }
}

static void task(void *argument, int64_t first, int64_t last) {
  const work *w = argument;
  int64_t offset[LT_LOOP_OPERANDS];
  for (int64_t t = first; t < last; t++) {
    int64_t row = t / w->chunks, at = t % w->chunks * CHUNK;
    int64_t n = w->loop.length - at < CHUNK ? w->loop.length - at : CHUNK;
    lt_loop_row(&w->loop, row, offset);
    compute(w, offset, at, n);
  }
}

static bool stored_as(lt_dtype stored, lt_dtype as) {
  return stored == as || (stored == LT_BOOL && as == LT_UINT8);
}

/* Most calls are small: one tile when every operand lies row by row in the result's shape, or is
 * a single number beside a short result. False: not so, nothing was done. */
static bool one_tile(lt_tile *tile, const lt_tensor *y, int inputs, lt_tensor *const *in,
                     const lt_dtype *as, const double *k) {
  enum { SHORT = 64 };
  _Alignas(64) char number[LT_TILE_INPUTS][SHORT * sizeof(double)];
  void *p[OPERANDS] = {y->data};
  if (y->numel > CHUNK) return false;
  for (int i = 0; i < inputs; i++) {
    const lt_tensor *x = in[i];
    if (x->contiguous && lt_shape_equal(&x->shape, &y->shape) && stored_as(x->dtype, as[i])) {
      p[i + 1] = x->data;
    } else if (x->numel == 1 && y->numel <= SHORT) {
      p[i + 1] = number[i];
      lt_convert(y->numel, as[i], number[i], 1, (lt_dtype)x->dtype, x->data, 0);
    } else {
      return false;
    }
  }
  tile(y->numel, p, k);
  return true;
}

lt_status lt_tiles(lt_tile *tile, const lt_tensor *y, int inputs, lt_tensor *const *in,
                   const lt_dtype *as, const double *k) {
  if (one_tile(tile, y, inputs, in, as, k)) return LT_OK;
  work w = {.operands = 1, .tile = tile, .k = k};
  int64_t strides[OPERANDS][LT_MAX_RANK];
  const int64_t *lists[OPERANDS];
  w.base[0] = y->data;
  w.type[0] = (lt_dtype)y->dtype;
  w.direct[0] = true;
  lists[0] = y->strides;
  for (int i = 0; i < inputs; i++) {
    int j = w.operands++;
    lt_broadcast_strides(&in[i]->shape, in[i]->strides, &y->shape, strides[j]);
    w.base[j] = in[i]->data;
    w.type[j] = (lt_dtype)in[i]->dtype;
    w.as[j] = as[i];
    lists[j] = strides[j];
  }
  lt_loop_build(&w.loop, &y->shape, w.operands, lists);
  for (int j = 1; j < w.operands; j++) {
    bool one = w.loop.length == 1 || w.loop.step[j] == 1;
    w.direct[j] = one && stored_as(w.type[j], w.as[j]);
  }
  if (y->numel == 0) return LT_OK;
  w.chunks = (w.loop.length + CHUNK - 1) / CHUNK;
  return lt_parallel(y->ctx, w.loop.rows * w.chunks, y->numel * 4, task, &w);
}
