/* The three passes. Forward and input gradient are one correlation: weights in rows, times columns
 * packed from what is read. For the input gradient of a strided convolution the results fall into
 * phases, by their place modulo the stride: each is a correlation of stride 1 with its own taps.
 * The weight gradient multiplies the same columns with the result's gradient. */
#include "kernels/conv.h"
#include "core/block.h"
#include "core/context.h"
#include "kernels/conv_columns.h"
#include "kernels/conv_tile.h"
#include "kernels/copy.h"
#include "kernels/parallel.h"

#include <stdatomic.h>
#include <string.h>

enum { DEPTH, HEIGHT, WIDTH };

enum {
  PACKED = 512 * 1024, /* bytes of columns in work at once, so that they stay in the cache */
  SUMMED = 512 * 1024, /* bytes of weight gradient in work at once */
  ADDED = 768,         /* taps that are added up before they join earlier ones: float32 rounds */
  SPLIT = 16           /* tasks that a weight gradient should have at least */
};

static int64_t quotient_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }
static int64_t product(const int64_t *size) { return size[DEPTH] * size[HEIGHT] * size[WIDTH]; }
static int64_t share(int64_t total, int64_t parts, int64_t index) {
  return total / parts + (index < total % parts);
}

/* ---- Work ------------------------------------------------------------------------------------ */

/* Memory for each thread that works at the same time; who works takes a place that is free. */
typedef struct places {
  lt_block *block;
  int64_t each;
  atomic_flag *busy;
} places;

static lt_status open_places(lt_context *ctx, places *p, int64_t tasks, int64_t each) {
  int64_t count = least(most(tasks, 1), most(ctx->threads, 1));
  p->each = aligned(each);
  LT_TRY(lt_block_new(ctx, count * (p->each + (int64_t)sizeof *p->busy), &p->block));
  p->busy = (atomic_flag *)(void *)((char *)p->block->data + count * p->each);
  for (int64_t i = 0; i < count; i++) atomic_flag_clear(&p->busy[i]);
  return LT_OK;
}

static int64_t take_place(const places *p) {
  for (int64_t i = 0;; i++) {
    if (!atomic_flag_test_and_set(&p->busy[i])) return i;
  }
}

static char *place_memory(const places *p, int64_t place) {
  return (char *)p->block->data + place * p->each;
}

typedef struct work {
  const lt_conv *c;
  lt_simd simd;
  bool is_double;
  lt_columns p;
  int64_t block;       /* lines in work at once */
  int64_t packed, ats; /* bytes of a place for columns, and for where taps begin in them */
  places places;
  /* forward and input gradient */
  int64_t rows;        /* results' channels in a group */
  int64_t lines, taps; /* with those of ones, for the bias */
  const char *weights; /* group, block of rows, tap, row */
  const lt_conv_tensor *to;
  /* weight gradient */
  const lt_conv_tensor *dy;
  int64_t blocks, chunks, width;
  char *sums; /* chunk, group, tap, channel */
} work;

static void open_work(lt_context *ctx, work *w) {
  w->simd = w->p.simd = ctx->simd;
  w->is_double = w->c->dtype == LT_FLOAT64;
  w->p.size = lt_dtype_size(w->c->dtype);
  w->p.images = w->c->images;
  lt_columns_plan(&w->p);
}

/* The work of all tiles for `channels` results in each group, in the unit of lt_threads_for, some
 * 16 floating point operations; less where rounds between two looks at the interrupt flag would
 * have too few of the tasks to share. */
static int64_t operations(const work *w, int64_t channels, int64_t tasks) {
  const lt_columns *p = &w->p;
  double all = (double)lt_columns_taps(p, p->lines) * (double)channels / 8;
  all *= (double)w->c->groups * (double)p->images;
  for (int d = 0; d < LT_CONV_DIMS; d++) all *= (double)p->axis[d].out;
  double shared = (double)(tasks / 8 + 1) * (double)(1 << 24);
  return (int64_t)(all < shared ? all : shared);
}

/* Bytes for a tile's results of `channels` that do not lie behind each other where they belong. */
static int64_t aside_of(const work *w, int64_t channels) {
  const lt_columns *p = &w->p;
  bool apart = p->planes > 1;
  for (int d = 0; d < LT_CONV_DIMS; d++) apart = apart || p->axis[d].spread > 1;
  return apart ? channels * p->planes * p->rows * p->cols * p->size : 0;
}

/* Room for w->block lines. */
static void size_places(work *w) {
  w->packed = aligned(w->block * w->p.pitch * w->p.size + LT_CONV_SLACK);
  w->ats = aligned(w->block * w->p.turns * (int64_t)sizeof(int64_t));
}

/* ---- Correlation ----------------------------------------------------------------------------- */

/* A line of ones, which the bias weighs. */
static void put_ones(const work *w, int64_t n, char *to) {
  for (int64_t i = 0; i < n; i++) {
    if (w->is_double)
      ((double *)(void *)to)[i] = 1;
    else
      ((float *)(void *)to)[i] = 1;
  }
}

static void correlate(const work *w, int64_t number, char *columns) {
  const lt_columns *p = &w->p;
  int64_t group = number % w->c->groups;
  lt_conv_tile tile = lt_columns_tile(p, number / w->c->groups);
  int64_t *at = (int64_t *)(void *)(columns + w->packed);
  char *aside = columns + w->packed + w->ats;
  int64_t offset = lt_columns_direct(p, &tile, w->to);
  lt_conv_rows r = {.m = w->rows,
                    .n = tile.places,
                    .weights = w->weights + group * w->rows * w->taps * p->size,
                    .depth = w->taps,
                    .at = at,
                    .columns = columns,
                    .y = aside,
                    .y_row = tile.places};
  if (offset >= 0) {
    r.y = w->to->data + (offset + group * w->rows * w->to->channel) * p->size;
    r.y_row = w->to->channel;
  }
  for (int64_t first = 0; first < w->lines; first += w->block) {
    int64_t last = least(first + w->block, w->lines), packed = least(last, p->lines);
    lt_columns_pack(p, &tile, group, first, packed, columns);
    lt_columns_at(p, &tile, first, packed, at);
    r.first = lt_columns_taps(p, first);
    r.taps = lt_columns_taps(p, packed) - r.first;
    if (last > packed) {
      at[r.taps++] = (packed - first) * p->pitch;
      put_ones(w, tile.places, columns + (packed - first) * p->pitch * p->size);
    }
    r.add = first > 0;
    lt_conv_rows_run(&r, w->simd, w->is_double);
  }
  if (offset < 0) lt_columns_results(p, &tile, w->to, group * w->rows, w->rows, aside, true);
}

static void correlate_task(void *argument, int64_t first, int64_t last) {
  const work *w = argument;
  int64_t place = take_place(&w->places);
  for (int64_t i = first; i < last; i++) correlate(w, i, place_memory(&w->places, place));
  atomic_flag_clear(&w->places.busy[place]);
}

typedef struct weights {
  const work *w;
  char *to;
  const lt_conv_tensor *from;
  int64_t row, channel, group; /* strides of the results' channels, of those read, of groups */
  const char *bias;
  int64_t bias_step, blocks;
} weights;

/* n elements, `stride` apart, as neighbours. */
static void line_up(int64_t n, char *to, const char *from, int64_t stride, int64_t size) {
  if (size == 4) {
    for (int64_t i = 0; i < n; i++) memcpy(to + i * 4, from + i * stride * 4, 4);
  } else {
    for (int64_t i = 0; i < n; i++) memcpy(to + i * 8, from + i * stride * 8, 8);
  }
}

/* Blocks first..last-1 of all groups' weights. */
static void weights_task(void *argument, int64_t first, int64_t last) {
  const weights *a = argument;
  const work *w = a->w;
  const lt_columns *p = &w->p;
  for (int64_t i = first; i < last; i++) {
    int64_t group = i / a->blocks, block = i % a->blocks;
    int64_t rows = share(w->rows, a->blocks, block);
    int64_t row = block * (w->rows / a->blocks) + least(block, w->rows % a->blocks);
    char *to = a->to + (group * w->rows + row) * w->taps * p->size;
    const char *from = a->from->data + (row * a->row + group * a->group) * p->size;
    int64_t apart = p->classes * p->axis[HEIGHT].kernel_step * a->from->space[HEIGHT];
    lt_conv_line line = lt_columns_line(p, 0);
    for (int64_t l = 0; l < p->lines; l++) {
      int64_t turns = lt_columns_turns(p, &line), at = line.channel * a->channel;
      for (int d = 0; d < LT_CONV_DIMS; d++) {
        at += (p->axis[d].kernel + line.tap[d] * p->axis[d].kernel_step) * a->from->space[d];
      }
      for (int64_t turn = 0; turn < turns; turn++, at += apart, to += rows * p->size) {
        line_up(rows, to, from + at * p->size, a->row, p->size);
      }
      lt_columns_next(p, &line);
    }
    if (a->bias) {
      line_up(rows, to, a->bias + (group * w->rows + row) * a->bias_step * p->size, a->bias_step,
              p->size);
    }
  }
}

/* Runs a correlation: w holds c, p, rows and to, `a` what there is to know of the weights. */
static lt_status run_correlation(lt_context *ctx, work *w, weights *a) {
  lt_columns *p = &w->p;
  open_work(ctx, w);
  w->lines = p->lines + (a->bias != NULL);
  w->taps = lt_columns_taps(p, p->lines) + (a->bias != NULL);
  w->block = most(1, least(PACKED / (p->pitch * p->size), ADDED / p->turns));
  w->block = quotient_up(w->lines, quotient_up(w->lines, w->block));
  size_places(w);
  a->w = w;
  a->blocks = lt_conv_blocks(w->simd, w->rows);
  int64_t elements = w->c->groups * w->rows * w->taps;
  int64_t tasks = lt_columns_tiles(p) * w->c->groups;
  lt_block *packed;
  LT_TRY(lt_block_new(ctx, elements * p->size, &packed));
  w->weights = a->to = packed->data;
  int64_t each = w->packed + w->ats + aside_of(w, w->rows);
  lt_status status = open_places(ctx, &w->places, tasks, each);
  if (status == LT_OK) {
    status = lt_parallel(ctx, w->c->groups * a->blocks, elements, weights_task, a);
    if (status == LT_OK) {
      status = lt_parallel(ctx, tasks, operations(w, w->rows, tasks), correlate_task, w);
    }
    lt_block_release(w->places.block);
  }
  lt_block_release(packed);
  return status;
}

/* ---- Forward --------------------------------------------------------------------------------- */

static lt_conv_axis forward_axis(const lt_conv *c, int d) {
  return (lt_conv_axis){.in = c->x[d],
                        .out = c->y[d],
                        .step = c->stride[d],
                        .taps = c->kernel[d],
                        .first = -c->padding[d],
                        .apart = c->dilation[d],
                        .kernel_step = 1,
                        .spread = 1};
}

lt_status lt_conv_forward(lt_context *ctx, const lt_conv *c, const lt_conv_tensor *x,
                          const lt_conv_tensor *w, const void *bias, int64_t bias_step,
                          const lt_conv_tensor *y) {
  if (c->images * c->groups * c->out * product(c->y) == 0) return LT_OK;
  if (c->in == 0) { /* empty sums */
    lt_shape shape = {3, {c->images, c->groups * c->out, product(c->y)}};
    int64_t strides[LT_MAX_RANK];
    lt_shape_strides(&shape, strides);
    lt_copy(&shape, c->dtype, y->data, strides, c->dtype, bias ? bias : &(double){0},
            (int64_t[]){0, bias ? bias_step : 0, 0});
    return LT_OK;
  }
  work run = {.c = c, .rows = c->out, .to = y, .p = {.from = *x, .channels = c->in}};
  weights a = {.from = w,
               .row = w->image,
               .channel = w->channel,
               .group = c->out * w->image,
               .bias = bias,
               .bias_step = bias_step};
  for (int d = 0; d < LT_CONV_DIMS; d++) run.p.axis[d] = forward_axis(c, d);
  return run_correlation(ctx, &run, &a);
}

/* ---- Input gradient -------------------------------------------------------------------------- */

static int64_t divisor(int64_t a, int64_t b) {
  while (b != 0) {
    int64_t rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

/* How many phases of the input any tap reaches: taps `period` apart reach the same one. */
static int64_t phases(const lt_conv *c, int d) {
  return least(c->stride[d] / divisor(c->stride[d], c->dilation[d]), c->kernel[d]);
}

/* The results that tap `tap`, and those a multiple of `period` behind it, reach. */
static lt_conv_axis phase_axis(const lt_conv *c, int d, int64_t tap) {
  int64_t s = c->stride[d], common = divisor(s, c->dilation[d]), period = s / common;
  int64_t taps = (c->kernel[d] - tap - 1) / period + 1;
  int64_t from = tap * c->dilation[d] - c->padding[d], place = (from % s + s) % s;
  int64_t apart = c->dilation[d] / common;
  return (lt_conv_axis){.in = c->y[d],
                        .out = place < c->x[d] ? (c->x[d] - place - 1) / s + 1 : 0,
                        .step = 1,
                        .taps = taps,
                        .first = (place - from) / s - (taps - 1) * apart,
                        .apart = apart,
                        .kernel = tap + (taps - 1) * period,
                        .kernel_step = -period,
                        .place = place,
                        .spread = s};
}

lt_status lt_conv_input(lt_context *ctx, const lt_conv *c, const lt_conv_tensor *dy,
                        const lt_conv_tensor *w, const lt_conv_tensor *dx) {
  int64_t count[LT_CONV_DIMS], elements = c->images * c->groups * c->in * product(c->x);
  bool all = c->out > 0;
  for (int d = 0; d < LT_CONV_DIMS; d++) {
    count[d] = phases(c, d);
    all = all && count[d] == c->stride[d];
  }
  if (elements == 0) return LT_OK;
  if (!all) memset(dx->data, 0, (size_t)(elements * lt_dtype_size(c->dtype)));
  if (c->out == 0) return LT_OK;
  for (int64_t i = 0; i < product(count); i++) {
    work run = {.c = c, .rows = c->in, .to = dx, .p = {.from = *dy, .channels = c->out}};
    weights a = {.from = w, .row = w->channel, .channel = w->image, .group = c->out * w->image};
    int64_t tap[LT_CONV_DIMS] = {i / (count[HEIGHT] * count[WIDTH]),
                                 i / count[WIDTH] % count[HEIGHT], i % count[WIDTH]};
    bool some = true;
    for (int d = 0; d < LT_CONV_DIMS; d++) {
      run.p.axis[d] = phase_axis(c, d, tap[d]);
      some = some && run.p.axis[d].out > 0;
    }
    if (some) LT_TRY(run_correlation(ctx, &run, &a));
  }
  return LT_OK;
}

/* ---- Weight gradient ------------------------------------------------------------------------- */

/* What one tile adds to the sums of the lines from `first` on. */
static void add_tile(const work *w, int64_t group, int64_t first, int64_t number, bool add,
                     char *sums, char *columns) {
  const lt_columns *p = &w->p;
  int64_t last = least(first + w->block, p->lines);
  lt_conv_tile tile = lt_columns_tile(p, number);
  int64_t *at = (int64_t *)(void *)(columns + w->packed);
  char *room = columns + w->packed + w->ats, *aside = room + LT_CONV_DEPTH * w->width * p->size;
  lt_conv_sums s = {.m = w->c->out,
                    .n = tile.places,
                    .dy = aside,
                    .dy_row = tile.places,
                    .at = at,
                    .columns = columns,
                    .sums = sums,
                    .room = room,
                    .add = add};
  int64_t offset = lt_columns_direct(p, &tile, w->dy);
  if (offset >= 0) {
    s.dy = w->dy->data + (offset + group * s.m * w->dy->channel) * p->size;
    s.dy_row = w->dy->channel;
  } else {
    lt_columns_results(p, &tile, w->dy, group * s.m, s.m, aside, false);
  }
  lt_columns_pack(p, &tile, group, first, last, columns);
  lt_columns_at(p, &tile, first, last, at);
  s.taps = lt_columns_taps(p, last) - lt_columns_taps(p, first);
  lt_conv_sums_run(&s, w->simd, w->is_double);
}

static void weight_task(void *argument, int64_t first, int64_t last) {
  const work *w = argument;
  const lt_columns *p = &w->p;
  int64_t place = take_place(&w->places), tiles = lt_columns_tiles(p);
  int64_t taps = lt_columns_taps(p, p->lines);
  for (int64_t i = first; i < last; i++) {
    int64_t chunk = i % w->chunks, line = i / w->chunks % w->blocks * w->block;
    int64_t group = i / w->chunks / w->blocks, from = tiles * chunk / w->chunks;
    int64_t at = (chunk * w->c->groups + group) * taps + lt_columns_taps(p, line);
    for (int64_t t = from; t < tiles * (chunk + 1) / w->chunks; t++) {
      add_tile(w, group, line, t, t > from, w->sums + at * w->width * p->size,
               place_memory(&w->places, place));
    }
  }
  atomic_flag_clear(&w->places.busy[place]);
}

typedef struct total {
  const work *w;
  const lt_conv_tensor *dw;
  int64_t blocks; /* of ACROSS output channels in a group */
} total;

enum { ACROSS = 16 };

/* The sums of all chunks, of n channels `apart` elements from chunk to chunk. */
#define TOTAL(TYPE)                                                                                \
  {                                                                                                \
    const TYPE *x = (const TYPE *)(const void *)w->sums + from;                                    \
    TYPE *y = (TYPE *)(void *)a->dw->data + to;                                                    \
    for (int64_t c = 0; c < n; c++) {                                                              \
      TYPE sum = x[c];                                                                             \
      for (int64_t k = 1; k < w->chunks; k++) sum += x[c + k * chunk];                             \
      y[c * a->dw->image] = sum;                                                                   \
    }                                                                                              \
  }

/* Blocks first..last-1 of all groups, to their places in the weight. */
static void total_task(void *argument, int64_t first, int64_t last) {
  const total *a = argument;
  const work *w = a->w;
  const lt_columns *p = &w->p;
  int64_t taps = lt_columns_taps(p, p->lines), chunk = w->c->groups * taps * w->width;
  int64_t apart = p->classes * a->dw->space[HEIGHT];
  for (int64_t i = first; i < last; i++) {
    int64_t group = i / a->blocks, channel = i % a->blocks * ACROSS;
    int64_t n = least(ACROSS, w->c->out - channel), from = group * taps * w->width + channel;
    lt_conv_line line = lt_columns_line(p, 0);
    for (int64_t l = 0; l < p->lines; l++) {
      int64_t turns = lt_columns_turns(p, &line);
      int64_t to = line.channel * a->dw->channel + (group * w->c->out + channel) * a->dw->image;
      for (int d = 0; d < LT_CONV_DIMS; d++) to += line.tap[d] * a->dw->space[d];
      for (int64_t turn = 0; turn < turns; turn++, to += apart, from += w->width) {
        if (w->is_double)
          TOTAL(double)
        else
          TOTAL(float)
      }
      lt_columns_next(p, &line);
    }
  }
}

lt_status lt_conv_weight(lt_context *ctx, const lt_conv *c, const lt_conv_tensor *x,
                         const lt_conv_tensor *dy, const lt_conv_tensor *dw) {
  int64_t elements = c->groups * c->out * c->in * product(c->kernel);
  if (elements == 0) return LT_OK;
  if (c->images * product(c->y) == 0) {
    memset(dw->data, 0, (size_t)(elements * lt_dtype_size(c->dtype)));
    return LT_OK;
  }
  work run = {.c = c, .dy = dy, .p = {.from = *x, .channels = c->in}};
  lt_columns *p = &run.p;
  for (int d = 0; d < LT_CONV_DIMS; d++) p->axis[d] = forward_axis(c, d);
  open_work(ctx, &run);
  run.width = lt_conv_width(run.simd, run.is_double, c->out);
  run.block = least(PACKED / (p->pitch * p->size), SUMMED / (run.width * p->turns * p->size));
  run.block = most(1, least(p->lines, run.block));
  run.blocks = quotient_up(p->lines, run.block);
  run.chunks = least(quotient_up(SPLIT, c->groups * run.blocks), lt_columns_tiles(p));
  size_places(&run);
  int64_t sums = c->groups * lt_columns_taps(p, p->lines) * run.width * p->size;
  int64_t each = run.packed + run.ats + LT_CONV_DEPTH * run.width * p->size;
  each += aside_of(&run, c->out);
  int64_t tasks = c->groups * run.blocks * run.chunks;
  lt_block *block;
  LT_TRY(lt_block_new(ctx, run.chunks * sums, &block));
  run.sums = block->data;
  lt_status status = open_places(ctx, &run.places, tasks, each);
  if (status == LT_OK) {
    status = lt_parallel(ctx, tasks, operations(&run, c->out, tasks), weight_task, &run);
    lt_block_release(run.places.block);
  }
  total a = {&run, dw, quotient_up(c->out, ACROSS)};
  if (status == LT_OK) {
    status = lt_parallel(ctx, c->groups * a.blocks, elements * run.chunks, total_task, &a);
  }
  lt_block_release(block);
  return status;
}
