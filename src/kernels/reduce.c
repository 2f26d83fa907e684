/* The driver of reductions. Dimensions are sorted by stride and merged; then either the reduced
 * elements lie in contiguous rows, or the results' neighbours do (columns, whole rows are added
 * up), or elements are gathered into short rows. */
#include "kernels/reduce.h"
#include "core/context.h"
#include "kernels/copy.h"
#include "kernels/parallel.h"

#include <string.h>

enum {
  TILE = 1024, /* elements gathered at a time */
  WIDTH = 512, /* results that one task takes on */
  SHORT = 16,  /* contiguous runs below this are gathered */
  TURNED = 32  /* rows below this are turned into columns */
};

/* Elements that one task reduces; longer reductions are cut. */
static const int64_t BLOCK = 1 << 16;

typedef struct axis {
  int64_t size;
  int64_t step; /* in x, elements */
  int64_t to;   /* in the results */
} axis;

typedef struct work {
  const lt_fold *fold;
  lt_fold_row *row;
  lt_fold_columns *columns; /* NULL: by rows */
  bool turned;              /* columns are made of short rows */
  const double *k;
  const char *x;
  lt_dtype type;
  int kept, reduced; /* dimensions */
  axis keep[LT_MAX_RANK], reduce[LT_MAX_RANK];
  int64_t count;         /* elements, or rows of columns, reduced to one */
  int64_t block, blocks; /* how `count` is cut */
  int64_t width, chunks; /* how the last dimension kept is cut */
  int64_t groups;        /* chunks in all */
  lt_cell *partial;      /* states of all blocks; NULL when there is one block */
  int outputs;
  lt_tensor *const *results;
} work;

/* ---- Geometry --------------------------------------------------------------------------- */

static int64_t magnitude(int64_t step) { return step < 0 ? -step : step; }

/* Large strides first, so that neighbours in memory come last; equal ones keep their order. */
static void sort_axes(axis *a, int n) {
  for (int i = 1; i < n; i++) {
    axis moved = a[i];
    int j = i;
    for (; j > 0 && magnitude(a[j - 1].step) < magnitude(moved.step); j--) a[j] = a[j - 1];
    a[j] = moved;
  }
}

static int merge_axes(axis *a, int n) {
  int m = 0;
  for (int i = 0; i < n; i++) {
    if (a[i].size == 1) continue;
    if (m > 0 && a[m - 1].step == a[i].step * a[i].size && a[m - 1].to == a[i].to * a[i].size) {
      a[m - 1] = (axis){a[m - 1].size * a[i].size, a[i].step, a[i].to};
    } else {
      a[m++] = a[i];
    }
  }
  return m;
}

/* Adds up the offsets of number `i` among n dimensions. */
static void locate(const axis *a, int n, int64_t i, int64_t *from, int64_t *to) {
  for (int d = n - 1; d >= 0; d--) {
    int64_t place = d > 0 ? i % a[d].size : i;
    if (d > 0) i /= a[d].size;
    *from += place * a[d].step;
    *to += place * a[d].to;
  }
}

static void find_axes(work *w, const lt_tensor *x, const bool out[LT_MAX_RANK]) {
  int64_t to[LT_MAX_RANK];
  w->count = w->groups = 1;
  for (int d = x->shape.ndim - 1; d >= 0; d--) {
    to[d] = out[d] ? 0 : w->groups;
    *(out[d] ? &w->count : &w->groups) *= x->shape.size[d];
  }
  for (int d = 0; d < x->shape.ndim; d++) {
    axis a = {x->shape.size[d], x->strides[d], to[d]};
    if (out[d])
      w->reduce[w->reduced++] = a;
    else
      w->keep[w->kept++] = a;
  }
  sort_axes(w->keep, w->kept);
  if (!w->fold->ordered) sort_axes(w->reduce, w->reduced);
  w->kept = merge_axes(w->keep, w->kept);
  w->reduced = merge_axes(w->reduce, w->reduced);
  if (w->reduced == 0) w->reduce[w->reduced++] = (axis){1, 0, 0};
  if (w->kept == 0) w->keep[w->kept++] = (axis){1, 0, 0};
}

/* By columns where the results' neighbours lie side by side and the reduced elements do not. A task
 * takes on neighbouring results along the last dimension that is kept. */
static void choose(work *w, lt_simd simd) {
  const axis *last = &w->keep[w->kept - 1];
  bool columns = last->step == 1 && w->reduce[w->reduced - 1].step != 1;
  w->turned = !columns && w->count > 0 && w->count < TURNED && last->size >= SHORT;
  if (columns || w->turned) {
    w->columns = w->fold->columns[simd][w->type];
    w->width = w->turned && TILE / w->count < WIDTH ? TILE / w->count : WIDTH;
  } else {
    w->width = BLOCK / (w->count < 128 ? 128 : w->count);
  }
  if (w->width < 1) w->width = 1;
  if (w->width > last->size) w->width = last->size;
  w->chunks = (last->size + w->width - 1) / w->width;
  w->groups = w->groups / last->size * w->chunks;
  w->block = w->columns ? BLOCK / w->width : BLOCK;
  w->blocks = w->count > w->block ? (w->count + w->block - 1) / w->block : 1;
}

/* ---- One task ---------------------------------------------------------------------------- */

static void start(const work *w, int64_t n, lt_cell *state) {
  const lt_cell *first = lt_dtype_is_float(w->type) ? w->fold->start_float : w->fold->start_int;
  for (int p = 0; p < w->fold->planes; p++) {
    for (int64_t j = 0; j < n; j++) state[p * n + j] = first[p];
  }
}

/* Reduced places first..last-1 of the result at `base`, by rows. */
static void fold_rows(const work *w, int64_t base, int64_t first, int64_t last, lt_cell *state) {
  _Alignas(64) char buffer[TILE * sizeof(double)];
  const axis *inner = &w->reduce[w->reduced - 1];
  int64_t bytes = lt_dtype_size(w->type), filled = 0, ignored = 0;
  bool direct = inner->step == 1 && (inner->size >= SHORT || w->reduced == 1);
  for (int64_t at = first; at < last;) {
    int64_t from = base, i = at % inner->size;
    int64_t n = inner->size - i < last - at ? inner->size - i : last - at;
    locate(w->reduce, w->reduced - 1, at / inner->size, &from, &ignored);
    const char *x = w->x + (from + i * inner->step) * bytes;
    if (direct) {
      w->row(n, x, at, state, w->k);
      at += n;
      continue;
    }
    if (n > TILE - filled) n = TILE - filled;
    lt_convert(n, w->type, buffer + filled * bytes, 1, w->type, x, inner->step);
    filled += n;
    at += n;
    if (filled == TILE || at == last) {
      w->row(filled, buffer, at - filled, state, w->k);
      filled = 0;
    }
  }
}

/* Rows first..last-1 of the n columns at `base`. */
static void fold_columns(const work *w, int64_t n, int64_t base, int64_t first, int64_t last,
                         lt_cell *state) {
  const axis *inner = &w->reduce[w->reduced - 1];
  int64_t bytes = lt_dtype_size(w->type), ignored = 0;
  for (int64_t at = first; at < last;) {
    int64_t from = base, i = at % inner->size;
    int64_t rows = inner->size - i < last - at ? inner->size - i : last - at;
    locate(w->reduce, w->reduced - 1, at / inner->size, &from, &ignored);
    w->columns(n, rows, w->x + (from + i * inner->step) * bytes, inner->step, at, state, w->k);
    at += rows;
  }
}

/* All rows of n results at `base`, each row side by side with its neighbours. */
static void fold_turned(const work *w, int64_t n, int64_t base, lt_cell *state) {
  _Alignas(64) char buffer[TILE * sizeof(double)];
  int64_t bytes = lt_dtype_size(w->type), ignored = 0;
  for (int64_t at = 0; at < w->count; at++) {
    int64_t from = base;
    locate(w->reduce, w->reduced, at, &from, &ignored);
    lt_convert(n, w->type, buffer + at * n * bytes, 1, w->type, w->x + from * bytes,
               w->keep[w->kept - 1].step);
  }
  w->columns(n, w->count, buffer, n, 0, state, w->k);
}

/* The group's first element in x and in the results, and how many results it has. */
static int64_t find_group(const work *w, int64_t group, int64_t *from, int64_t *to) {
  const axis *last = &w->keep[w->kept - 1];
  int64_t first = group % w->chunks * w->width;
  *from = first * last->step;
  *to = first * last->to;
  locate(w->keep, w->kept - 1, group / w->chunks, from, to);
  return last->size - first < w->width ? last->size - first : w->width;
}

static void store(const work *w, int64_t n, int64_t to, lt_cell *state) {
  if (w->fold->finish) w->fold->finish(n, state, w->count, w->k);
  for (int i = 0; i < w->outputs; i++) {
    lt_dtype type = (lt_dtype)w->results[i]->dtype;
    lt_convert(n, type, w->results[i]->data + to * lt_dtype_size(type), w->keep[w->kept - 1].to,
               lt_dtype_is_float(type) ? LT_FLOAT64 : LT_INT64, state + i * n, 1);
  }
}

static void fold_task(void *argument, int64_t first, int64_t last) {
  const work *w = argument;
  lt_cell own[LT_FOLD_PLANES * WIDTH];
  int planes = w->fold->planes;
  for (int64_t t = first; t < last; t++) {
    int64_t begin = t % w->blocks * w->block, end = begin + w->block, from, to;
    int64_t n = find_group(w, t / w->blocks, &from, &to);
    lt_cell *state = w->partial ? w->partial + t * planes * w->width : own;
    if (end > w->count) end = w->count;
    if (w->columns) {
      start(w, n, state);
      if (w->turned)
        fold_turned(w, n, from, state);
      else
        fold_columns(w, n, from, begin, end, state);
    }
    for (int64_t j = 0; j < n && !w->columns; j++) {
      lt_cell one[LT_FOLD_PLANES];
      start(w, 1, one);
      fold_rows(w, from + j * w->keep[w->kept - 1].step, begin, end, one);
      for (int p = 0; p < planes; p++) state[p * n + j] = one[p];
    }
    if (!w->partial) store(w, n, to, state);
  }
}

static void merge_task(void *argument, int64_t first, int64_t last) {
  const work *w = argument;
  lt_fold_merge *merge = lt_dtype_is_float(w->type) ? w->fold->merge_float : w->fold->merge_int;
  int64_t cells = w->fold->planes * w->width;
  for (int64_t group = first; group < last; group++) {
    int64_t from, to, n = find_group(w, group, &from, &to);
    lt_cell *state = w->partial + group * w->blocks * cells;
    for (int64_t b = 1; b < w->blocks; b++) merge(n, state, state + b * cells);
    store(w, n, to, state);
  }
}

lt_status lt_reduce(const lt_fold *fold, const double *k, const lt_tensor *x,
                    const bool out[LT_MAX_RANK], int outputs, lt_tensor *const *results) {
  lt_context *ctx = x->ctx;
  work w = {.fold = fold,
            .k = k,
            .x = x->data,
            .type = (lt_dtype)x->dtype,
            .outputs = outputs,
            .results = results};
  find_axes(&w, x, out);
  if (w.groups == 0) return LT_OK;
  choose(&w, ctx->simd);
  w.row = fold->row[ctx->simd][w.type];
  int64_t tasks = w.groups * w.blocks, operations = x->numel + w.groups * w.width;
  if (w.blocks == 1) return lt_parallel(ctx, tasks, operations, fold_task, &w);
  lt_block *partial;
  int64_t cells = w.width * fold->planes;
  LT_TRY(lt_block_new(ctx, tasks * cells * (int64_t)sizeof(lt_cell), &partial));
  w.partial = partial->data;
  lt_status status = lt_parallel(ctx, tasks, operations, fold_task, &w);
  if (status == LT_OK) {
    status = lt_parallel(ctx, w.groups, tasks * cells, merge_task, &w);
  }
  lt_block_release(partial);
  return status;
}
