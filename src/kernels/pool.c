/* The rows of pooling (pool_body.h) for each float type and level of SIMD, and the geometry of
 * windows that they share. Sums run in double; a task writes whole rows, so that the order in
 * which an element's parts meet does not depend on threads. */
#include "kernels/pool.h"
#include "core/block.h"
#include "core/context.h"
#include "kernels/elementwise.h"
#include "kernels/parallel.h"

#include <math.h>
#include <string.h>

enum {
  TILE = 256,   /* outputs of a row that are computed together */
  NARROW = 16,  /* columns of a window that get a pass of their own */
  FEW_ROWS = 8, /* rows of a pair whose sum float32 holds well */
  SPAN = 1024,  /* columns that are added up together */
  LANES = 16,   /* sums and maxima that run beside each other */
  TAPS = LT_NO_TAP
};

/* Into rows of any level of SIMD: a call between them costs more than the work. */
#define GEOMETRY static inline __attribute__((always_inline))

#define LARGER(a, b) ((a) > (b) ? (a) : (b))
#define SMALLER(a, b) ((a) < (b) ? (a) : (b))

typedef struct work {
  lt_window axis[LT_POOL_AXES];
  bool count_include_pad;
  double divisor;
  lt_dtype place_dtype;
  void *place;
  const void *from;
  void *to;
  int64_t inputs, outputs; /* elements of all planes */
  bool pairs, narrow;
  int64_t tile;                      /* outputs that lie within SPAN columns; 0: not even one */
  bool even;                         /* all windows are equally wide; then share is not looked at */
  double common;                     /* the divisor of all windows; 0: they differ */
  int64_t low[NARROW], high[NARROW]; /* the outputs whose column j of the window is inside */
  int64_t offset[TAPS]; /* in the plane, from the window's first element; for few taps only */
  const double *share;  /* for each column of the output 1 / its window's columns */
} work;

/* ---- Geometry ----------------------------------------------------------------------------- */

/* b > 0. Most numbers are short, and long division takes four times as long. */
GEOMETRY int64_t floored(int64_t a, int64_t b) {
  if (((a | b) & ~(int64_t)UINT32_MAX) == 0) return (uint32_t)a / (uint32_t)b;
  return a / b - (a % b < 0);
}
GEOMETRY int64_t ceiling(int64_t a, int64_t b) { return floored(a + b - 1, b); }

/* Places of one axis. */
typedef struct range {
  int64_t first, count, step;
  int64_t tap; /* number, in the window, of the first */
} range;

/* What output o sees of the input. */
GEOMETRY range range_of(const lt_window *w, int64_t o) {
  if (w->kernel == 0) {
    int64_t first = floored(o * w->in, w->out);
    return (range){first, ceiling((o + 1) * w->in, w->out) - first, 1, 0};
  }
  int64_t start = o * w->stride - w->padding;
  if (start >= 0 && start + (w->kernel - 1) * w->dilation < w->in) {
    return (range){start, w->kernel, w->dilation, 0};
  }
  int64_t tap = start < 0 ? ceiling(-start, w->dilation) : 0;
  int64_t first = start + tap * w->dilation;
  int64_t count = first < w->in ? ceiling(w->in - first, w->dilation) : 0;
  count = SMALLER(count, w->kernel - tap);
  return (range){first, LARGER(count, 0), w->dilation, tap};
}

/* The outputs that see input i, where windows have no gaps. */
GEOMETRY range outputs_above(const lt_window *w, int64_t i) {
  int64_t first, last;
  if (w->kernel == 0) {
    first = floored(i * w->out, w->in);
    last = ceiling((i + 1) * w->out, w->in) - 1;
  } else {
    first = LARGER(ceiling(i + w->padding - w->kernel + 1, w->stride), 0);
    last = SMALLER(floored(i + w->padding, w->stride), w->out - 1);
  }
  return (range){first, LARGER(last - first + 1, 0), 1, 0};
}

/* Elements that the mean of output o counts along an axis. */
GEOMETRY int64_t counted(const lt_window *w, int64_t o, bool include_pad) {
  if (w->kernel == 0 || !include_pad) return range_of(w, o).count;
  int64_t start = o * w->stride - w->padding;
  return SMALLER(start + w->kernel, w->in + w->padding) - start;
}

/* Does the one window of an axis hold all of it? */
static bool is_whole(const lt_window *w) {
  return w->out == 1 &&
         (w->kernel == 0 || (w->kernel == w->in && w->padding == 0 && w->dilation == 1));
}

/* Windows two columns wide, side by side, all inside. */
static bool is_pairs(const lt_window *w) {
  return w->kernel == 2 && w->stride == 2 && w->padding == 0 && w->dilation == 1 &&
         2 * w->out <= w->in;
}

/* Do the windows of an axis lie side by side, none cut off? */
static bool is_tiled(const lt_window *w) {
  return w->kernel > 0 && w->kernel == w->stride && w->padding == 0 && w->dilation == 1 &&
         w->kernel * w->out <= w->in;
}

/* Does the mean of each window of an axis count as many elements? */
static bool is_even(const lt_window *w, bool include_pad) {
  return w->kernel > 0 && (include_pad || w->padding == 0) &&
         (w->out - 1) * w->stride + w->kernel <= w->in + 2 * w->padding;
}

/* The elements of a window, or `most` if there are more or it adapts. */
static int64_t volume_of(const lt_window axis[LT_POOL_AXES], int64_t most) {
  int64_t volume = 1;
  for (int d = 0; d < LT_POOL_AXES; d++) {
    if (axis[d].kernel == 0 || axis[d].kernel >= most) return most;
    volume = SMALLER(volume * axis[d].kernel, most);
  }
  return volume;
}

lt_dtype lt_pool_place_dtype(const lt_window axis[LT_POOL_AXES]) {
  return volume_of(axis, TAPS + 1) <= TAPS ? LT_UINT8 : LT_INT64;
}

/* Where an output row lies, and the input rows it sees. */
typedef struct lines {
  int64_t plane, od, oh;
  range d, h;
  int64_t count;
  int64_t last; /* number, in the plane, of the last */
} lines;

GEOMETRY void find_lines(const work *w, lines *l) {
  l->d = range_of(&w->axis[0], l->od);
  l->h = range_of(&w->axis[1], l->oh);
  l->count = l->d.count * l->h.count;
  int64_t d = l->d.first + (l->d.count - 1) * l->d.step;
  l->last = d * w->axis[1].in + l->h.first + (l->h.count - 1) * l->h.step;
}

GEOMETRY lines lines_of(const work *w, int64_t row) {
  const lt_window *a = w->axis;
  lines l = {row / a[1].out / a[0].out, row / a[1].out % a[0].out, row % a[1].out};
  find_lines(w, &l);
  return l;
}

/* Those of the next output row: without a division, which takes longer than a short row. */
GEOMETRY void next_lines(const work *w, lines *l) {
  if (++l->oh == w->axis[1].out) {
    l->oh = 0;
    if (++l->od == w->axis[0].out) l->od = 0, l->plane++;
  }
  find_lines(w, l);
}

/* Where an input row lies, and in which place of which window where those lie side by side. */
typedef struct below {
  int64_t plane, d, h;
  int64_t od, oh, kd, kh;
} below;

GEOMETRY below below_of(const work *w, int64_t row) {
  const lt_window *a = w->axis;
  below b = {row / a[1].in / a[0].in, row / a[1].in % a[0].in, row % a[1].in};
  if (a[0].kernel > 0) b.od = b.d / a[0].kernel, b.kd = b.d % a[0].kernel;
  if (a[1].kernel > 0) b.oh = b.h / a[1].kernel, b.kh = b.h % a[1].kernel;
  return b;
}

GEOMETRY void next_below(const work *w, below *b) {
  if (++b->kh == w->axis[1].kernel) b->kh = 0, b->oh++;
  if (++b->h < w->axis[1].in) return;
  b->h = b->oh = b->kh = 0;
  if (++b->kd == w->axis[0].kernel) b->kd = 0, b->od++;
  if (++b->d < w->axis[0].in) return;
  b->d = b->od = b->kd = 0;
  b->plane++;
}

/* Number, in the plane, of the k-th input row. */
GEOMETRY int64_t input_row(const work *w, const lines *l, int64_t k) {
  int64_t d = l->d.count == 1 ? 0 : k / l->h.count, h = k - d * l->h.count;
  return (l->d.first + d * l->d.step) * w->axis[1].in + l->h.first + h * l->h.step;
}
/* Its number in the window. */
GEOMETRY int64_t first_tap(const work *w, const lines *l, int64_t k) {
  int64_t d = l->d.count == 1 ? 0 : k / l->h.count, h = k - d * l->h.count;
  return (l->d.tap + d) * w->axis[1].kernel + l->h.tap + h;
}

GEOMETRY int64_t plane_of(const work *w, bool input) {
  const lt_window *a = w->axis;
  return input ? a[0].in * a[1].in * a[2].in : a[0].out * a[1].out * a[2].out;
}

/* n rounded up to whole lanes, if as many steps from element `at` on are among `all`: short rows
 * are computed together with the beginning of the next, into a tile. */
GEOMETRY int64_t whole_lanes(int64_t n, int64_t at, int64_t step, int64_t all) {
  int64_t m = (n + LANES - 1) / LANES * LANES;
  return at + m * step <= all ? m : n;
}

/* The place in the plane of the first element of a window, were there no borders. */
GEOMETRY int64_t corner(const work *w, const lines *l, int64_t o) {
  const lt_window *a = w->axis;
  int64_t d = l->od * a[0].stride - a[0].padding, h = l->oh * a[1].stride - a[1].padding;
  return (d * a[1].in + h) * a[2].in + o * a[2].stride - a[2].padding;
}

static int64_t offset_of_tap(const work *w, int64_t tap) {
  const lt_window *a = w->axis;
  int64_t j = tap % a[2].kernel, h = tap / a[2].kernel % a[1].kernel,
          d = tap / a[2].kernel / a[1].kernel;
  return (d * a[0].dilation * a[1].in + h * a[1].dilation) * a[2].in + j * a[2].dilation;
}

GEOMETRY int64_t place_of_tap(const work *w, const lines *l, int64_t o, int64_t tap) {
  if (tap < 0) return -1;
  return corner(w, l, o) + (tap < TAPS ? w->offset[tap] : offset_of_tap(w, tap));
}

/* Writes element `at` of the places, for a place in the plane or -1. */
static void put_place(const work *w, const lines *l, int64_t at, int64_t o, int64_t place) {
  const lt_window *a = w->axis;
  if (w->place_dtype == LT_INT64) {
    ((int64_t *)w->place)[at] = place + 1;
    return;
  }
  int64_t tap = LT_NO_TAP;
  if (place >= 0) {
    int64_t j = (place % a[2].in - o * a[2].stride + a[2].padding) / a[2].dilation;
    int64_t h = (place / a[2].in % a[1].in - l->oh * a[1].stride + a[1].padding) / a[1].dilation;
    int64_t d = (place / a[2].in / a[1].in - l->od * a[0].stride + a[0].padding) / a[0].dilation;
    tap = (d * a[1].kernel + h) * a[2].kernel + j;
  }
  ((uint8_t *)w->place)[at] = (uint8_t)tap;
}

GEOMETRY double divisor_of(const work *w, const lines *l, int64_t o) {
  if (w->common != 0) return w->common;
  bool pad = w->count_include_pad;
  return (double)counted(&w->axis[0], l->od, pad) * (double)counted(&w->axis[1], l->oh, pad) *
         (double)counted(&w->axis[2], o, pad);
}

/* The part of a share that an output row decides; all of it where windows are equally wide. */
GEOMETRY double row_share(const work *w, int64_t od, int64_t oh) {
  if (w->common != 0) return 1 / w->common;
  bool pad = w->count_include_pad;
  double rows = (double)counted(&w->axis[0], od, pad) * (double)counted(&w->axis[1], oh, pad);
  return 1 / (w->even ? rows * (double)counted(&w->axis[2], 0, pad) : rows);
}

/* ---- Rows --------------------------------------------------------------------------------- */

#define BODY "kernels/pool_body.h"
#include "kernels/each_float.h"

typedef lt_task *const tasks[LT_SIMD_COUNT][2];
static tasks max_rows = LT_EACH_FLOAT(max_rows);
static tasks scatter_pairs = LT_EACH_FLOAT(scatter_pairs);
static tasks avg_rows = LT_EACH_FLOAT(avg_rows);
static tasks spread_rows = LT_EACH_FLOAT(spread_rows);
static tasks spread_pairs = LT_EACH_FLOAT(spread_pairs);

/* Calls of VISIT for the place of each output, which is element `at` of all. */
#define EACH_OUTPUT(VISIT)                                                                         \
  lines l = lines_of(w, plane * rows);                                                             \
  for (int64_t row = 0; row < rows; row++, next_lines(w, &l)) {                                    \
    for (int64_t o = 0; o < columns; o++) {                                                        \
      int64_t at = (plane * rows + row) * columns + o, place;                                      \
      if (taps)                                                                                    \
        place = taps[at] == LT_NO_TAP ? -1 : place_of_tap(w, &l, o, taps[at]);                     \
      else                                                                                         \
        place = places[at] - 1;                                                                    \
      VISIT;                                                                                       \
    }                                                                                              \
  }
#define AT_PLACES(TYPE, KIND)                                                                      \
  static void scatter_##KIND(void *argument, int64_t first, int64_t last) {                        \
    const work *w = argument;                                                                      \
    const uint8_t *taps = w->place_dtype == LT_UINT8 ? w->place : NULL;                            \
    const int64_t *places = w->place;                                                              \
    int64_t rows = w->axis[0].out * w->axis[1].out, columns = w->axis[2].out;                      \
    const TYPE *y = w->from;                                                                       \
    for (int64_t plane = first; plane < last; plane++) {                                           \
      TYPE *x = (TYPE *)w->to + plane * plane_of(w, true);                                         \
      memset(x, 0, (size_t)plane_of(w, true) * sizeof *x);                                         \
      EACH_OUTPUT(if (place >= 0) x[place] += y[at])                                               \
    }                                                                                              \
  }                                                                                                \
  static void gather_##KIND(void *argument, int64_t first, int64_t last) {                         \
    const work *w = argument;                                                                      \
    const uint8_t *taps = w->place_dtype == LT_UINT8 ? w->place : NULL;                            \
    const int64_t *places = w->place;                                                              \
    int64_t rows = w->axis[0].out * w->axis[1].out, columns = w->axis[2].out;                      \
    TYPE *y = w->to;                                                                               \
    for (int64_t plane = first; plane < last; plane++) {                                           \
      const TYPE *x = (const TYPE *)w->from + plane * plane_of(w, true);                           \
      EACH_OUTPUT(y[at] = place >= 0 ? x[place] : 0)                                               \
    }                                                                                              \
  }
AT_PLACES(float, f32)
AT_PLACES(double, f64)
#define ALL_LEVELS(f)                                                                              \
  {                                                                                                \
    {f##_f32, f##_f64}, {f##_f32, f##_f64}, { f##_f32, f##_f64 }                                   \
  }
static tasks scatter = ALL_LEVELS(scatter);
static tasks gather = ALL_LEVELS(gather);

/* ---- Running ------------------------------------------------------------------------------ */

/* Axes that one window holds as a whole become one. */
static void merge_axes(lt_window *axis) {
  for (int d = 0; d < LT_POOL_AXES; d++) {
    if (!is_whole(&axis[d])) continue;
    axis[d].kernel = axis[d].in;
    axis[d].stride = axis[d].dilation = 1;
    axis[d].padding = 0;
  }
  for (int d = LT_POOL_AXES - 2; d >= 0; d--) {
    if (!is_whole(&axis[d]) || !is_whole(&axis[LT_POOL_AXES - 1])) return;
    axis[LT_POOL_AXES - 1].in = axis[LT_POOL_AXES - 1].kernel *= axis[d].in;
    axis[d].in = axis[d].kernel = 1;
  }
}

static void prepare(work *w, const lt_pooling *p, const void *from, void *to) {
  *w = (work){.count_include_pad = p->count_include_pad,
              .divisor = p->divisor,
              .place_dtype = p->place_dtype,
              .place = p->place,
              .from = from,
              .to = to};
  memcpy(w->axis, p->axis, sizeof w->axis);
  merge_axes(w->axis);
  const lt_window *c = &w->axis[2];
  w->inputs = p->planes * plane_of(w, true);
  w->outputs = p->planes * plane_of(w, false);
  bool countable = volume_of(w->axis, 1 << 20) < 1 << 20; /* taps fit 32 bits */
  w->pairs = countable && is_pairs(c);
  w->narrow = countable && c->kernel <= NARROW && c->kernel <= 2 * c->out;
  for (int64_t j = 0; w->narrow && j < c->kernel; j++) {
    int64_t first = c->padding - j * c->dilation; /* o * stride >= first is not left of x */
    w->low[j] = LARGER(ceiling(first, c->stride), 0);
    w->high[j] = SMALLER(ceiling(c->in + first, c->stride), c->out);
  }
  for (int64_t k = volume_of(w->axis, TAPS + 1); k <= TAPS && k > 0; k--) {
    w->offset[k - 1] = offset_of_tap(w, k - 1);
  }
  bool pad = w->count_include_pad;
  w->even = w->divisor != 0 || is_even(c, pad);
  w->common = w->divisor;
  if (w->even && w->divisor == 0 && is_even(&w->axis[0], pad) && is_even(&w->axis[1], pad)) {
    w->common = 1;
    for (int d = 0; d < LT_POOL_AXES; d++) w->common *= (double)w->axis[d].kernel;
  }
  if (c->in <= SPAN)
    w->tile = TILE;
  else if (w->narrow)
    w->tile = (SPAN - c->kernel) / c->stride + 1;
  else if (c->kernel == 0)
    w->tile = (SPAN - 2) * c->out / c->in;
  w->tile = SMALLER(w->tile, TILE);
}

/* `rows` tasks, for each of them `columns` times the elements of a window. */
static lt_status run(lt_context *ctx, const lt_pooling *p, work *w, int64_t rows, int64_t columns,
                     tasks table) {
  int64_t volume = 1;
  for (int d = 0; d < LT_POOL_AXES; d++) {
    const lt_window *a = &w->axis[d];
    volume *= a->kernel ? SMALLER(a->kernel, a->in) : a->in / a->out + 1;
  }
  double operations = (double)rows * (double)columns * (double)volume;
  return lt_parallel(ctx, rows, operations < 0x1p62 ? (int64_t)operations : INT64_MAX / 4,
                     table[ctx->simd][p->dtype == LT_FLOAT64], w);
}

lt_status lt_max_pool(lt_context *ctx, const lt_pooling *p, const void *x, void *y) {
  work w;
  prepare(&w, p, x, y);
  int64_t rows = w.axis[0].out * w.axis[1].out;
  return run(ctx, p, &w, p->planes * rows, w.axis[2].out, max_rows);
}

lt_status lt_max_pool_scatter(lt_context *ctx, const lt_pooling *p, const void *y, void *x) {
  work w;
  prepare(&w, p, y, x);
  if (w.pairs && is_tiled(&w.axis[0]) && is_tiled(&w.axis[1]) && w.place_dtype == LT_UINT8) {
    int64_t rows = w.axis[0].in * w.axis[1].in;
    return run(ctx, p, &w, p->planes * rows, w.axis[2].out, scatter_pairs);
  }
  return run(ctx, p, &w, p->planes, plane_of(&w, false), scatter);
}

lt_status lt_max_pool_gather(lt_context *ctx, const lt_pooling *p, const void *x, void *y) {
  work w;
  prepare(&w, p, x, y);
  return run(ctx, p, &w, p->planes, plane_of(&w, false), gather);
}

lt_status lt_avg_pool(lt_context *ctx, const lt_pooling *p, const void *x, void *y) {
  work w;
  prepare(&w, p, x, y);
  int64_t rows = w.axis[0].out * w.axis[1].out;
  return run(ctx, p, &w, p->planes * rows, w.axis[2].out, avg_rows);
}

lt_status lt_avg_pool_adjoint(lt_context *ctx, const lt_pooling *p, const void *y, void *x) {
  work w;
  prepare(&w, p, y, x);
  int64_t rows = p->planes * w.axis[0].in * w.axis[1].in;
  if (w.pairs && is_tiled(&w.axis[0]) && is_tiled(&w.axis[1])) {
    return run(ctx, p, &w, rows, w.axis[2].out, spread_pairs);
  }
  lt_block *block;
  LT_TRY(lt_block_new(ctx, w.axis[2].out * (int64_t)sizeof(double), &block));
  double *share = block->data;
  for (int64_t o = 0; o < w.axis[2].out; o++) {
    share[o] = 1 / (double)counted(&w.axis[2], o, w.count_include_pad);
  }
  w.share = share;
  lt_status status = run(ctx, p, &w, rows, w.axis[2].in, spread_rows);
  lt_block_release(block);
  return status;
}
