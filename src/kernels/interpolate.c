/* The tables of resampling, one for each axis, and its rows (interpolate_body.h) for each float
 * type and level of SIMD. */
#include "kernels/interpolate.h"
#include "core/block.h"
#include "core/context.h"
#include "kernels/elementwise.h"
#include "kernels/parallel.h"

#include <math.h>
#include <string.h>

enum { TILE = 512 /* outputs computed together */, SPAN = 1024 /* columns they lie within */ };

#define LARGER(a, b) ((a) > (b) ? (a) : (b))
#define SMALLER(a, b) ((a) < (b) ? (a) : (b))

/* Output o is the sum of weight[k] times element index[k], k from begin[o] to before
 * begin[o + 1]. Indices rise with k. */
typedef struct table {
  int64_t in, out;
  int64_t taps; /* of each output; 0: they differ */
  int64_t *begin;
  double *weight;
  int32_t *index;
  lt_block *block;
} table;

typedef struct work {
  table axis[LT_RESAMPLE_AXES];
  bool picks; /* each output is one element, by weight 1 */
  const void *from;
  void *to;
} work;

/* ---- Tables ------------------------------------------------------------------------------- */

static lt_status open_table(lt_context *ctx, table *t, int64_t in, int64_t out, int64_t entries) {
  *t = (table){.in = in, .out = out};
  int64_t doubles = entries * (int64_t)sizeof(double);
  int64_t begins = (out + 1) * (int64_t)sizeof(int64_t);
  LT_TRY(lt_block_new(ctx, doubles + begins + entries * (int64_t)sizeof(int32_t), &t->block));
  char *data = t->block->data;
  t->weight = (double *)(void *)data;
  t->begin = (int64_t *)(void *)(data + doubles);
  t->index = (int32_t *)(void *)(data + doubles + begins);
  return LT_OK;
}

static void close_table(table *t) {
  if (t->block) lt_block_release(t->block);
}

/* Which element is nearest, in whole numbers where sizes decide. */
static int64_t nearest(const lt_resampling *r, int axis, int64_t o) {
  int64_t in = r->in[axis], out = r->out[axis], i;
  bool exact = r->mode == LT_NEAREST_EXACT;
  if (r->scale[axis] != 0)
    i = (int64_t)floor(((double)o + (exact ? 0.5 : 0)) / r->scale[axis]);
  else
    i = exact ? (2 * o + 1) * in / (2 * out) : o * in / out;
  return SMALLER(i, in - 1);
}

/* Where output o lies between the elements of x. */
static double position(const lt_resampling *r, int axis, int64_t o) {
  double in = (double)r->in[axis], out = (double)r->out[axis];
  if (r->align_corners) return out > 1 ? (double)o * ((in - 1) / (out - 1)) : 0;
  double step = r->scale[axis] != 0 ? 1 / r->scale[axis] : in / out;
  return ((double)o + 0.5) * step - 0.5;
}

/* Keys's weights of the elements -1, 0, 1 and 2 from the one in front of a point, t behind it. */
static void cubic_weights(double t, double *weight) {
  const double a = -0.75;
  double u = 1 - t, far = t + 1, other = u + 1;
  weight[0] = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a;
  weight[1] = ((a + 2) * t - (a + 3)) * t * t + 1;
  weight[2] = ((a + 2) * u - (a + 3)) * u * u + 1;
  weight[3] = ((a * other - 5 * a) * other + 8 * a) * other - 4 * a;
}

static void fill(const lt_resampling *r, int axis, table *t) {
  int64_t end = t->in - 1;
  for (int64_t o = 0; o <= t->out; o++) t->begin[o] = o * t->taps;
  for (int64_t o = 0; o < t->out; o++) {
    double *weight = t->weight + o * t->taps;
    int32_t *index = t->index + o * t->taps;
    if (t->taps == 1) {
      weight[0] = 1;
      index[0] = (int32_t)(r->mode == LT_LINEAR ? o : nearest(r, axis, o));
      continue;
    }
    double at = position(r, axis, o);
    if (t->taps == 2) at = LARGER(at, 0);
    int64_t i = SMALLER((int64_t)floor(at), end);
    double part = at - (double)i;
    part = LARGER(SMALLER(part, 1), 0);
    if (t->taps == 2) {
      weight[0] = 1 - part;
      weight[1] = part;
      index[0] = (int32_t)i;
      index[1] = (int32_t)SMALLER(i + 1, end);
    } else {
      cubic_weights(part, weight);
      for (int k = 0; k < 4; k++) index[k] = (int32_t)LARGER(SMALLER(i - 1 + k, end), 0);
    }
  }
}

static lt_status make_table(lt_context *ctx, const lt_resampling *r, int axis, table *t) {
  int64_t in = r->in[axis], out = r->out[axis], taps = 1;
  /* Equal sizes leave an axis as it is, whatever the factor (PyTorch). */
  if (r->mode == LT_LINEAR && in != out) taps = 2;
  if (r->mode == LT_CUBIC) taps = in == 1 && out == 1 ? 1 : 4;
  LT_TRY(open_table(ctx, t, in, out, out * taps));
  t->taps = taps;
  fill(r, axis, t);
  return LT_OK;
}

/* The same weights, by element instead of by output. */
static lt_status transpose(lt_context *ctx, table *t) {
  table by;
  int64_t entries = t->begin[t->out];
  LT_TRY(open_table(ctx, &by, t->out, t->in, entries));
  for (int64_t i = 0; i <= t->in; i++) by.begin[i] = 0;
  for (int64_t k = 0; k < entries; k++) by.begin[t->index[k] + 1]++;
  for (int64_t i = 0; i < t->in; i++) by.begin[i + 1] += by.begin[i];
  for (int64_t o = 0; o < t->out; o++) {
    for (int64_t k = t->begin[o]; k < t->begin[o + 1]; k++) {
      int64_t at = by.begin[t->index[k]]++;
      by.index[at] = (int32_t)o;
      by.weight[at] = t->weight[k];
    }
  }
  for (int64_t i = t->in; i > 0; i--) by.begin[i] = by.begin[i - 1];
  by.begin[0] = 0;
  close_table(t);
  *t = by;
  return LT_OK;
}

/* How many outputs from `at` on lie within SPAN columns, from column *low on; 0: not even one. */
static inline int64_t reach(const table *t, int64_t at, int64_t *low, int64_t *width) {
  *low = 0;
  *width = t->in;
  if (t->in <= SPAN) return SMALLER(t->out - at, TILE);
  int64_t n = 0, first = -1, last = -1;
  for (; n < TILE && at + n < t->out; n++) {
    int64_t b = t->begin[at + n], e = t->begin[at + n + 1];
    if (b == e) continue;
    if (first < 0) first = t->index[b];
    if (t->index[e - 1] - first >= SPAN) break;
    last = t->index[e - 1];
  }
  *low = first < 0 ? 0 : first;
  *width = last - *low + 1;
  return n;
}

/* ---- Rows --------------------------------------------------------------------------------- */

#define BODY "kernels/interpolate_body.h"
#include "kernels/each_float.h"

static lt_task *const resample_rows[LT_SIMD_COUNT][2] = LT_EACH_FLOAT(resample_rows);

/* ---- Running ------------------------------------------------------------------------------ */

static lt_status run(lt_context *ctx, const lt_resampling *r, bool adjoint, const void *from,
                     void *to) {
  work w = {.from = from, .to = to, .picks = !adjoint};
  lt_status status = LT_OK;
  double cost = 1; /* per output row */
  for (int d = 0; d < LT_RESAMPLE_AXES && status == LT_OK; d++) {
    table *t = &w.axis[d];
    status = make_table(ctx, r, d, t);
    if (status != LT_OK) break;
    w.picks = w.picks && t->taps == 1;
    if (adjoint) status = transpose(ctx, t);
    double taps = (double)t->begin[t->out] / (double)t->out;
    cost = d < 2 ? cost * taps : cost * (double)t->in + taps * (double)t->out;
  }
  if (status == LT_OK) {
    int64_t rows = r->planes * w.axis[0].out * w.axis[1].out;
    double operations = SMALLER((double)rows * cost, 0x1p62);
    status = lt_parallel(ctx, rows, (int64_t)operations,
                         resample_rows[ctx->simd][r->dtype == LT_FLOAT64], &w);
  }
  for (int d = 0; d < LT_RESAMPLE_AXES; d++) close_table(&w.axis[d]);
  return status;
}

lt_status lt_resample(lt_context *ctx, const lt_resampling *r, const void *x, void *y) {
  return run(ctx, r, false, x, y);
}

lt_status lt_resample_adjoint(lt_context *ctx, const lt_resampling *r, const void *y, void *x) {
  return run(ctx, r, true, y, x);
}
