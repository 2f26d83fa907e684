/* Cutting results into tiles, and packing what they read. Everything is copied by size alone, so
 * one code serves both float types. */
#include "kernels/conv_columns.h"
#include "kernels/conv_tile.h"

#include <string.h>

enum { DEPTH, HEIGHT, WIDTH };

enum {
  PLACES = 640,     /* results of a tile: many enough for the product, few enough for the cache */
  MOST = 4096,      /* ... at most, */
  TOGETHER = 16384, /* ... where lines hold no more than this together */
  FEW = 100         /* planes of fewer results share a tile */
};

static int64_t quotient_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static int64_t divisor(int64_t a, int64_t b) {
  while (b != 0) {
    int64_t rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

/* The extent of parts of at most `most`, as equal as can be. */
static int64_t parts_of(int64_t whole, int64_t most) {
  return whole <= most ? whole : quotient_up(whole, quotient_up(whole, most));
}

void lt_columns_plan(lt_columns *p) {
  const lt_conv_axis *d = &p->axis[DEPTH], *h = &p->axis[HEIGHT], *w = &p->axis[WIDTH];
  int64_t planes = p->images * d->out, places = TOGETHER / (p->channels * d->taps * w->taps);
  places = places < PLACES ? PLACES : least(places, MOST);
  p->cols = parts_of(w->out, places);
  p->rows = p->cols < w->out ? 1 : parts_of(h->out, places / p->cols);
  p->planes = 1;
  int64_t common = divisor(h->step, h->apart);
  p->classes = least(h->step / common, h->taps);
  p->shift = h->apart / common;
  if (p->rows * p->cols <= FEW && p->rows == h->out && planes > 1) {
    p->planes = parts_of(planes, PLACES / (p->rows * p->cols));
  }
  /* Rows that lie far apart are not read twice. */
  if (p->planes > 1 || p->shift >= p->rows) p->classes = h->taps;
  p->turns = quotient_up(h->taps, p->classes);
  p->lines = p->classes * p->channels * d->taps * w->taps;
  p->slab = p->rows + p->shift * (p->turns - 1);
  p->pitch = p->planes * p->slab * p->cols;
  p->plane_tiles = quotient_up(planes, p->planes);
  p->row_tiles = quotient_up(h->out, p->rows);
  p->col_tiles = quotient_up(w->out, p->cols);
}

int64_t lt_columns_tiles(const lt_columns *p) {
  return p->plane_tiles * p->row_tiles * p->col_tiles;
}

lt_conv_tile lt_columns_tile(const lt_columns *p, int64_t number) {
  lt_conv_tile t;
  int64_t planes = p->images * p->axis[DEPTH].out;
  t.col = number % p->col_tiles * p->cols;
  number /= p->col_tiles;
  t.row = number % p->row_tiles * p->rows;
  t.plane = number / p->row_tiles * p->planes;
  t.cols = least(p->cols, p->axis[WIDTH].out - t.col);
  t.rows = least(p->rows, p->axis[HEIGHT].out - t.row);
  t.planes = least(p->planes, planes - t.plane);
  t.places = t.planes * t.rows * t.cols;
  return t;
}

int64_t lt_columns_taps(const lt_columns *p, int64_t lines) {
  int64_t full = (p->axis[HEIGHT].taps - 1) % p->classes + 1; /* classes that have all turns */
  full *= p->lines / p->classes;
  return lines * p->turns - (lines > full ? lines - full : 0);
}

void lt_columns_at(const lt_columns *p, const lt_conv_tile *tile, int64_t first, int64_t last,
                   int64_t *at) {
  int64_t full = lt_columns_taps(p, p->lines) - p->lines * (p->turns - 1); /* lines of all turns */
  for (int64_t line = first; line < last; line++) {
    int64_t turns = p->turns - (line >= full), start = (line - first) * p->pitch;
    for (int64_t turn = 0; turn < turns; turn++) *at++ = start + turn * p->shift * tile->cols;
  }
}

lt_conv_line lt_columns_line(const lt_columns *p, int64_t line) {
  lt_conv_line l;
  l.tap[WIDTH] = line % p->axis[WIDTH].taps;
  line /= p->axis[WIDTH].taps;
  l.tap[DEPTH] = line % p->axis[DEPTH].taps;
  line /= p->axis[DEPTH].taps;
  l.channel = line % p->channels;
  l.tap[HEIGHT] = line / p->channels;
  return l;
}

void lt_columns_next(const lt_columns *p, lt_conv_line *line) {
  if (++line->tap[WIDTH] < p->axis[WIDTH].taps) return;
  line->tap[WIDTH] = 0;
  if (++line->tap[DEPTH] < p->axis[DEPTH].taps) return;
  line->tap[DEPTH] = 0;
  if (++line->channel < p->channels) return;
  line->channel = 0;
  line->tap[HEIGHT]++;
}

int64_t lt_columns_turns(const lt_columns *p, const lt_conv_line *line) {
  return p->turns - (line->tap[HEIGHT] > (p->axis[HEIGHT].taps - 1) % p->classes);
}

/* ---- Packing ------------------------------------------------------------------------------ */

/* n places of the input from `first` on, `step` apart: those before `low` and from `high` on lie
 * beyond its ends. */
typedef struct run {
  int64_t n, first, step, low, high;
} run;

static run run_of(int64_t n, int64_t first, int64_t step, int64_t limit) {
  run r = {.n = n, .first = first, .step = step, .high = 0};
  r.low = first >= 0 ? 0 : step == 1 ? -first : quotient_up(-first, step);
  if (limit > first) r.high = step == 1 ? limit - first : (limit - first - 1) / step + 1;
  r.high = least(r.high, n);
  r.low = least(r.low, r.high);
  return r;
}

typedef uint32_t word __attribute__((may_alias, aligned(1)));
typedef uint64_t long_word __attribute__((may_alias, aligned(1)));

/* n elements from one stride to another. Strides of 1 and 2 are loops of their own, as vectors. */
#define MOVE(TYPE)                                                                                 \
  {                                                                                                \
    TYPE *restrict y = (TYPE *)(void *)to;                                                         \
    const TYPE *x = (const TYPE *)(const void *)from;                                              \
    if (to_stride == 1 && stride == 2) {                                                           \
      for (int64_t i = 0; i < n; i++) y[i] = x[2 * i];                                             \
    } else if (to_stride == 2 && stride == 1) {                                                    \
      for (int64_t i = 0; i < n; i++) y[2 * i] = x[i];                                             \
    } else {                                                                                       \
      for (int64_t i = 0; i < n; i++) y[i * to_stride] = x[i * stride];                            \
    }                                                                                              \
  }

static void move(int64_t n, char *to, int64_t to_stride, const char *from, int64_t stride,
                 int64_t size) {
  if (to_stride == 1 && stride == 1)
    memcpy(to, from, (size_t)(n * size));
  else if (size == sizeof(word))
    MOVE(word)
  else
    MOVE(long_word)
}

/* A slab: the rows of `down`, in each the places of `along`. */
static void pack_slab(const lt_columns *p, const run *down, const run *along, const char *from,
                      char *to) {
  int64_t size = p->size, row = p->from.space[HEIGHT], col = p->from.space[WIDTH];
  int64_t rows = down->high - down->low, cols = along->high - along->low, length = along->n;
  if (rows * cols < down->n * length) memset(to, 0, (size_t)(down->n * length * size));
  if (rows * cols == 0) return;
  from += ((down->first + down->low * down->step) * row +
           (along->first + along->low * along->step) * col) *
          size;
  to += (down->low * length + along->low) * size;
  row *= down->step;
  col *= along->step;
  if (length == 1) /* a column is a row */
    cols = rows, col = row, rows = 1;
  else if (cols == length && row == cols * col) /* rows behind each other */
    cols *= rows, rows = 1;
  if (col == 1 || cols == 1) {
    lt_conv_copy(p->simd, rows, cols * size, to, length * size, from, row * size);
  } else {
    for (int64_t r = 0; r < rows; r++) {
      move(cols, to + r * length * size, 1, from + r * row * size, col, size);
    }
  }
}

void lt_columns_pack(const lt_columns *p, const lt_conv_tile *tile, int64_t group, int64_t first,
                     int64_t last, char *to) {
  const lt_conv_axis *d = &p->axis[DEPTH], *h = &p->axis[HEIGHT], *w = &p->axis[WIDTH];
  int64_t rows = tile->rows + p->shift * (p->turns - 1);
  int64_t bytes = rows * tile->cols * p->size;
  int64_t first_image = tile->plane / d->out, first_depth = tile->plane % d->out;
  lt_conv_line l = lt_columns_line(p, first);
  for (int64_t line = first; line < last; line++, to += p->pitch * p->size) {
    run down =
        run_of(rows, tile->row * h->step + h->first + l.tap[HEIGHT] * h->apart, h->step, h->in);
    run along = run_of(tile->cols, tile->col * w->step + w->first + l.tap[WIDTH] * w->apart,
                       w->step, w->in);
    int64_t channel = (group * p->channels + l.channel) * p->from.channel;
    int64_t image = first_image, depth = first_depth;
    for (int64_t i = 0; i < tile->planes; i++) {
      int64_t place = depth * d->step + d->first + l.tap[DEPTH] * d->apart;
      int64_t offset = channel + image * p->from.image + place * p->from.space[DEPTH];
      if (place >= 0 && place < d->in)
        pack_slab(p, &down, &along, p->from.data + offset * p->size, to + i * bytes);
      else
        memset(to + i * bytes, 0, (size_t)bytes);
      if (++depth == d->out) depth = 0, image++;
    }
    lt_columns_next(p, &l);
  }
}

/* ---- Results ------------------------------------------------------------------------------ */

static int64_t result_offset(const lt_columns *p, int64_t plane, int64_t row, int64_t col,
                             const lt_conv_tensor *t) {
  const lt_conv_axis *a = p->axis;
  int64_t depth = plane % a[DEPTH].out;
  return plane / a[DEPTH].out * t->image +
         (a[DEPTH].place + depth * a[DEPTH].spread) * t->space[DEPTH] +
         (a[HEIGHT].place + row * a[HEIGHT].spread) * t->space[HEIGHT] +
         (a[WIDTH].place + col * a[WIDTH].spread) * t->space[WIDTH];
}

void lt_columns_results(const lt_columns *p, const lt_conv_tile *tile, const lt_conv_tensor *t,
                        int64_t channel, int64_t channels, char *rows, bool from_rows) {
  int64_t stride = p->axis[WIDTH].spread * t->space[WIDTH], size = p->size;
  bool whole = stride == 1 && tile->cols == p->axis[WIDTH].out && p->axis[HEIGHT].spread == 1 &&
               t->space[HEIGHT] == tile->cols;
  int64_t runs = whole ? 1 : tile->rows, n = whole ? tile->rows * tile->cols : tile->cols;
  for (int64_t c = 0; c < channels; c++) {
    for (int64_t i = 0; i < tile->planes; i++) {
      for (int64_t r = 0; r < runs; r++, rows += n * size) {
        char *there = t->data + (channel + c) * t->channel * size +
                      result_offset(p, tile->plane + i, tile->row + r, tile->col, t) * size;
        if (from_rows)
          move(n, there, stride, rows, 1, size);
        else
          move(n, rows, 1, there, stride, size);
      }
    }
  }
}

int64_t lt_columns_direct(const lt_columns *p, const lt_conv_tile *tile, const lt_conv_tensor *t) {
  const lt_conv_axis *h = &p->axis[HEIGHT], *w = &p->axis[WIDTH];
  bool row = w->spread == 1 || tile->cols == 1;
  bool rows = tile->rows == 1 || (h->spread == 1 && w->spread == 1 && tile->cols == w->out &&
                                  t->space[HEIGHT] == w->out);
  if (tile->planes > 1 || !row || !rows) return -1;
  return result_offset(p, tile->plane, tile->row, tile->col, t);
}
