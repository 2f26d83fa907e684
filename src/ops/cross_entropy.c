/* Losses on classes: cross_entropy and nll_loss. All of them are -sum a_c log p_c with shares a of
 * the classes, which a label, label smoothing or probabilities define. Forward and the first
 * gradient of labels are fused; other derivatives are made of ops on the shares. */
#include "core/context.h"
#include "kernels/copy.h"
#include "kernels/elementwise.h"
#include "kernels/math.h"
#include "kernels/parallel.h"
#include "ops/family.h"
#include "ops/index.h"
#include "ops/loss.h"

#include <string.h>

/* ---- Rows of logits ------------------------------------------------------------------------- */

/* On n contiguous elements: the largest, NaN aside; y = exp(x - max), and its sum; y *= factor. */
typedef struct row_kernels {
  double (*max)(int64_t n, const void *x);
  double (*exp_sum)(int64_t n, const void *x, double max, void *y);
  void (*scale)(int64_t n, void *y, double factor);
} row_kernels;

enum { LANES = 16 };

#define ROWS(NAME, TARGET, T)                                                                      \
  TARGET static double NAME##_max(int64_t n, const void *data) {                                   \
    const T *x = data;                                                                             \
    T lane[LANES], max = (T)-INFINITY;                                                             \
    int64_t i = 0;                                                                                 \
    for (int l = 0; l < LANES; l++) lane[l] = max;                                                 \
    for (; i + LANES <= n; i += LANES) {                                                           \
      for (int l = 0; l < LANES; l++) lane[l] = x[i + l] > lane[l] ? x[i + l] : lane[l];           \
    }                                                                                              \
    for (; i < n; i++) max = x[i] > max ? x[i] : max;                                              \
    for (int l = 0; l < LANES; l++) max = lane[l] > max ? lane[l] : max;                           \
    return (double)max;                                                                            \
  }                                                                                                \
  TARGET static double NAME##_exp_sum(int64_t n, const void *data, double max, void *result) {     \
    const T *x = data, m = (T)max;                                                                 \
    T *y = result;                                                                                 \
    double lane[LANES] = {0};                                                                      \
    int64_t i = 0;                                                                                 \
    for (int64_t j = 0; j < n; j++) y[j] = EXP(x[j] - m);                                          \
    for (; i + LANES <= n; i += LANES) {                                                           \
      for (int l = 0; l < LANES; l++) lane[l] += (double)y[i + l];                                 \
    }                                                                                              \
    for (; i < n; i++) lane[0] += (double)y[i];                                                    \
    for (int l = 1; l < LANES; l++) lane[0] += lane[l];                                            \
    return lane[0];                                                                                \
  }                                                                                                \
  TARGET static void NAME##_scale(int64_t n, void *data, double factor) {                          \
    T *y = data, f = (T)factor;                                                                    \
    for (int64_t i = 0; i < n; i++) y[i] *= f;                                                     \
  }
ROWS(rows_f32, , float)
ROWS(rows_f64, , double)
ROWS(rows_f32_avx2, LT_TARGET_AVX2, float)
ROWS(rows_f64_avx2, LT_TARGET_AVX2, double)
ROWS(rows_f32_avx512, LT_TARGET_AVX512, float)
ROWS(rows_f64_avx512, LT_TARGET_AVX512, double)

#define ROW(NAME)                                                                                  \
  { NAME##_max, NAME##_exp_sum, NAME##_scale }
static const row_kernels rows[LT_SIMD_COUNT][2] = {{ROW(rows_f32), ROW(rows_f64)},
                                                   {ROW(rows_f32_avx2), ROW(rows_f64_avx2)},
                                                   {ROW(rows_f32_avx512), ROW(rows_f64_avx512)}};

/* ---- The problem ---------------------------------------------------------------------------- */

enum { IGNORE_INDEX = 1, LABEL_SMOOTHING };
enum { INPUT, TARGET, WEIGHT, DY };

/* Which dimension of the input holds the classes. */
static int class_dim(const lt_shape *x) { return x->ndim == 1 ? 0 : 1; }

/* The shape of the labels, and of the losses before reduction. */
static lt_shape places_of(const lt_shape *x) {
  lt_shape s = {0};
  for (int d = 0; d < x->ndim; d++) {
    if (d != class_dim(x)) s.size[s.ndim++] = x->size[d];
  }
  return s;
}

static lt_status check_target(lt_call *c, const lt_shape *places) {
  const lt_tensor *x = c->in[INPUT], *target = c->in[TARGET];
  char got[LT_SHAPE_TEXT], labels[LT_SHAPE_TEXT], all[LT_SHAPE_TEXT];
  bool smoothes = c->op->options[LABEL_SMOOTHING].name != NULL;
  bool fits = lt_shape_equal(&target->shape, places) && !lt_dtype_is_float((lt_dtype)target->dtype);
  lt_shape_text(&target->shape, got);
  lt_shape_text(places, labels);
  lt_shape_text(&x->shape, all);
  if (target->dtype == x->dtype && smoothes && lt_shape_equal(&target->shape, &x->shape)) {
    if (lt_get_int(c->attrs, c->op, IGNORE_INDEX) < 1) return LT_OK; /* no label */
    return lt_fail(c->ctx, "%s: ignore_index is for labels, and target holds probabilities",
                   c->op->name);
  }
  if (!fits || target->dtype == LT_BOOL) {
    return lt_fail(c->ctx, "%s: for input %s %s target must be labels (int64) of %s%s%s, got %s %s",
                   c->op->name, lt_dtype_name((lt_dtype)x->dtype), all, labels,
                   smoothes ? " or probabilities of " : "", smoothes ? all : "",
                   lt_dtype_name((lt_dtype)target->dtype), got);
  }
  int64_t ignored = lt_get_int(c->attrs, c->op, IGNORE_INDEX);
  return lt_check_indices(c->op->name, "label", target, x->shape.size[class_dim(&x->shape)],
                          &ignored);
}

static lt_status infer_classes(lt_call *c) {
  const lt_tensor *x = c->in[INPUT], *weight = c->in[WEIGHT];
  char text[LT_SHAPE_TEXT];
  int64_t classes = x->shape.ndim > 0 ? x->shape.size[class_dim(&x->shape)] : 0;
  if (classes == 0) {
    return lt_fail(c->ctx, "%s: input has no classes (%s); it must be classes, or places x classes",
                   c->op->name, lt_shape_text(&x->shape, text));
  }
  if (weight &&
      (weight->dtype != x->dtype || weight->shape.ndim != 1 || weight->numel != classes)) {
    return lt_fail(c->ctx, "%s: weight must be %s of %lld, got %s of %s", c->op->name,
                   lt_dtype_name((lt_dtype)x->dtype), (long long)classes,
                   lt_dtype_name((lt_dtype)weight->dtype), lt_shape_text(&weight->shape, text));
  }
  if (c->op->options[LABEL_SMOOTHING].name) {
    double smoothing = lt_get_number(c->attrs, c->op, LABEL_SMOOTHING);
    if (!(smoothing >= 0 && smoothing <= 1)) {
      return lt_fail(c->ctx, "%s: label_smoothing must lie in 0..1, got %g", c->op->name,
                     smoothing);
    }
  }
  lt_shape places = places_of(&x->shape);
  LT_TRY(check_target(c, &places));
  if (lt_reduction_of(c->attrs, c->op) != LT_NONE) places.ndim = 0;
  c->result[0] = (lt_spec){(lt_dtype)x->dtype, places};
  return LT_OK;
}

/* ---- Running over places -------------------------------------------------------------------- */

/* A call with its operands contiguous. Place i has its logits at outer i / inner, inner i % inner
 * of outer x classes x inner. */
typedef struct problem {
  const row_kernels *row;
  lt_dtype dtype;
  int64_t places, classes, inner;
  int64_t per_task;
  const char *x;
  const int64_t *label; /* NULL: probabilities */
  const double *p;
  const double *weight; /* NULL: all 1 */
  double smoothing, all_weights;
  int64_t ignored;
  char *y;        /* the loss of each place, or NULL: */
  double *part;   /* their sum for each task */
  char *dx;       /* backward: the result, */
  const char *dy; /* dy of place i at i * dy_step, */
  int64_t dy_step;
  double scale; /* and what it is multiplied by */
  lt_tensor *own[4];
} problem;

static const double *doubles(const lt_tensor *t) { return (const double *)(const void *)t->data; }

static void close_problem(problem *e) {
  for (int i = 0; i < 4; i++) lt_tensor_release(e->own[i]);
}

static lt_status open_problem(const lt_call *c, problem *e) {
  lt_tensor *x = c->in[INPUT], *target = c->in[TARGET], *weight = c->in[WEIGHT];
  int dim = class_dim(&x->shape);
  *e = (problem){.dtype = (lt_dtype)x->dtype, .classes = x->shape.size[dim], .inner = 1};
  e->row = &rows[c->ctx->simd][e->dtype];
  e->places = x->numel / e->classes;
  for (int d = dim + 1; d < x->shape.ndim; d++) e->inner *= x->shape.size[d];
  e->per_task = 4096 / e->classes + 1;
  e->ignored = lt_get_int(c->attrs, c->op, IGNORE_INDEX);
  e->all_weights = (double)e->classes;
  if (c->op->options[LABEL_SMOOTHING].name) {
    e->smoothing = lt_get_number(c->attrs, c->op, LABEL_SMOOTHING);
  }
  LT_TRY(lt_tensor_contiguous(x, &e->own[INPUT]));
  e->x = e->own[INPUT]->data;
  bool labels = !lt_dtype_is_float((lt_dtype)target->dtype);
  LT_TRY(lt_contiguous_as(target, labels ? LT_INT64 : LT_FLOAT64, &e->own[TARGET]));
  if (labels)
    e->label = (const int64_t *)(const void *)e->own[TARGET]->data;
  else
    e->p = doubles(e->own[TARGET]);
  if (!weight) return LT_OK;
  LT_TRY(lt_contiguous_as(weight, LT_FLOAT64, &e->own[WEIGHT]));
  e->weight = doubles(e->own[WEIGHT]);
  e->all_weights = 0;
  for (int64_t k = 0; k < e->classes; k++) e->all_weights += e->weight[k];
  return LT_OK;
}

static int64_t tasks_of(const problem *e) { return (e->places + e->per_task - 1) / e->per_task; }

/* What the mean divides by: the weights of the labels that are not ignored; for probabilities the
 * number of places. */
static double divisor(const problem *e) {
  if (!e->label) return (double)e->places;
  double sum = 0;
  for (int64_t i = 0; i < e->places; i++) {
    if (e->label[i] != e->ignored) sum += e->weight ? e->weight[e->label[i] - 1] : 1;
  }
  return sum;
}

/* Where the logits of place i begin, in elements; the next class is `inner` further. */
static int64_t logits_of(const problem *e, int64_t i) {
  return i / e->inner * e->classes * e->inner + i % e->inner;
}

static double element(const problem *e, const char *x, int64_t at) {
  return e->dtype == LT_FLOAT64 ? ((const double *)(const void *)x)[at]
                                : (double)((const float *)(const void *)x)[at];
}

enum { TILE = 512 };
typedef struct tile {
  _Alignas(64) char of[TILE * sizeof(double)];
} tile;

static int64_t tile_at(const problem *e, int64_t k) {
  return e->classes - k < TILE ? e->classes - k : TILE;
}

/* n logits from class k on of the place at `at`, contiguous: as they lie, or gathered. */
static const void *gathered(const problem *e, int64_t at, int64_t k, int64_t n, tile *t) {
  const char *x = e->x + (at + k * e->inner) * lt_dtype_size(e->dtype);
  if (e->inner == 1) return x;
  lt_convert(n, e->dtype, t->of, 1, e->dtype, x, e->inner);
  return t->of;
}

static double row_max(const problem *e, int64_t at) {
  tile t;
  double max = -INFINITY;
  for (int64_t k = 0; k < e->classes; k += TILE) {
    double m = e->row->max(tile_at(e, k), gathered(e, at, k, tile_at(e, k), &t));
    if (m > max) max = m;
  }
  return max;
}

/* The sum of exp(x - max), written to dx where that is wanted. */
static double row_exp_sum(const problem *e, int64_t at, double max) {
  tile from, to;
  double sum = 0;
  for (int64_t k = 0; k < e->classes; k += TILE) {
    int64_t n = tile_at(e, k);
    const void *x = gathered(e, at, k, n, &from);
    char *dx = e->dx ? e->dx + (at + k * e->inner) * lt_dtype_size(e->dtype) : NULL;
    sum += e->row->exp_sum(n, x, max, dx && e->inner == 1 ? dx : to.of);
    if (dx && e->inner > 1) lt_convert(n, e->dtype, dx, e->inner, e->dtype, to.of, 1);
  }
  return sum;
}

/* The share of class k at a place whose logits are at `at`, weight included. */
static double share(const problem *e, int64_t i, int64_t at, int64_t k) {
  double given = e->label ? e->label[i] == k + 1 : e->p[at + k * e->inner];
  double own = (1 - e->smoothing) * given + e->smoothing / (double)e->classes;
  return e->weight ? e->weight[k] * own : own;
}

static bool is_ignored(const problem *e, int64_t i) {
  return e->label && e->label[i] == e->ignored;
}

static double entropy_at(const problem *e, int64_t i) {
  if (is_ignored(e, i)) return 0;
  int64_t at = logits_of(e, i);
  double max = row_max(e, at), log_sum = log(row_exp_sum(e, at, max)), sum = 0;
  int64_t k = 0, last = e->classes;
  if (e->label && e->smoothing == 0) k = e->label[i] - 1, last = k + 1; /* the only share */
  for (; k < last; k++) {
    sum -= share(e, i, at, k) * (element(e, e->x, at + k * e->inner) - max - log_sum);
  }
  return sum;
}

static double nll_at(const problem *e, int64_t i) {
  if (is_ignored(e, i)) return 0;
  int64_t k = e->label[i] - 1;
  return -(e->weight ? e->weight[k] : 1) * element(e, e->x, logits_of(e, i) + k * e->inner);
}

static void run_places(const problem *e, double (*loss)(const problem *, int64_t), int64_t first,
                       int64_t last) {
  for (int64_t t = first; t < last; t++) {
    int64_t end = (t + 1) * e->per_task < e->places ? (t + 1) * e->per_task : e->places;
    double sum = 0;
    for (int64_t i = t * e->per_task; i < end; i++) {
      double value = loss(e, i);
      sum += value;
      if (e->y && e->dtype == LT_FLOAT64)
        ((double *)(void *)e->y)[i] = value;
      else if (e->y)
        ((float *)(void *)e->y)[i] = (float)value;
    }
    if (!e->y) e->part[t] = sum;
  }
}

static void entropy_task(void *argument, int64_t first, int64_t last) {
  run_places(argument, entropy_at, first, last);
}
static void nll_task(void *argument, int64_t first, int64_t last) {
  run_places(argument, nll_at, first, last);
}

static lt_status reduce_places(lt_call *c, problem *e, lt_task *task, int64_t operations) {
  LT_TRY(open_problem(c, e));
  lt_reduction reduction = lt_reduction_of(c->attrs, c->op);
  int64_t tasks = tasks_of(e);
  if (reduction == LT_NONE) {
    e->y = c->out[0]->data;
    return lt_parallel(c->ctx, tasks, operations, task, e);
  }
  LT_TRY(lt_tensor_new(c->ctx, c->op->name, LT_FLOAT64, &(lt_shape){1, {tasks}}, &e->own[3]));
  e->part = (double *)(void *)e->own[3]->data;
  LT_TRY(lt_parallel(c->ctx, tasks, operations, task, e));
  double sum = lt_sum_parts(e->part, tasks);
  lt_tensor_write(c->out[0], 0, reduction == LT_MEAN ? sum / divisor(e) : sum);
  return LT_OK;
}

/* ---- Batches of calls: one run without reduction, then that of each sample ----------------------
 */

/* All samples of input i as one: the batch joins its first dim; it is the first of single places.
 */
static lt_tensor *merged(lt_batch *b, int i) {
  lt_tensor *all = lt_batch_in(b, i);
  if (!all || b->in[INPUT]->shape.ndim == 1) return all;
  lt_shape shape = b->in[i]->shape;
  shape.size[0] *= b->size;
  return lt_reshape_to(b->s, all, &shape);
}

/* As the samples have it; `row`: each laid out in one. */
static lt_tensor *split(lt_batch *b, lt_tensor *t, const lt_shape *sample, bool row) {
  lt_shape all = lt_batch_shape(b, sample);
  if (row) all = (lt_shape){2, {b->size, lt_shape_numel(sample)}};
  return lt_reshape_to(b->s, t, &all);
}

static lt_tensor *sum_rows(lt_batch *b, lt_tensor *t) {
  return lt_sum_over(b->s, t, 1, (int64_t[]){1}, false);
}

/* What the mean of each sample divides by, or NULL for sums; see divisor(). */
static lt_tensor *divisors(lt_batch *b, const lt_shape *places) {
  lt_scope *s = b->s;
  lt_dtype dtype = (lt_dtype)b->in[INPUT]->dtype;
  if (lt_reduction_of(b->attrs, b->op) != LT_MEAN) return NULL;
  if (lt_dtype_is_float((lt_dtype)b->in[TARGET]->dtype)) {
    return lt_number(s, (double)lt_shape_numel(places));
  }
  lt_tensor *labels = split(b, lt_batch_in(b, TARGET), places, true);
  lt_tensor *ignored = lt_number(s, (double)lt_get_int(b->attrs, b->op, IGNORE_INDEX));
  lt_tensor *counts = lt_do2(s, &lt_op_ne, NULL, labels, ignored);
  if (!b->in[WEIGHT]) return sum_rows(b, lt_to_dtype(s, counts, dtype));
  const lt_op *op = &lt_op_index_select;
  lt_attrs attrs;
  lt_attrs_default(&attrs, op);
  lt_attrs_set_int(&attrs, op, lt_op_option_index(op, "dim"), 0);
  lt_tensor *without = lt_do2(s, &lt_op_eq, NULL, labels, ignored);
  lt_tensor *safe = lt_do3(s, &lt_op_masked_fill, NULL, labels, without, lt_number(s, 1));
  if (!safe) return NULL;
  lt_tensor *row = lt_reshape_to(s, safe, &(lt_shape){1, {safe->numel}});
  lt_tensor *weights = split(b, lt_do2(s, op, &attrs, b->in[WEIGHT], row), places, true);
  return sum_rows(b, lt_do3(s, &lt_op_where, NULL, counts, weights, lt_number(s, 0)));
}

static void loss_batch(lt_batch *b) {
  if (b->over[WEIGHT]) {
    lt_batch_each(b);
    return;
  }
  lt_attrs attrs = lt_with_reduction(b->attrs, b->op, LT_NONE);
  lt_shape places = places_of(&b->in[INPUT]->shape);
  lt_tensor *in[] = {merged(b, INPUT), merged(b, TARGET), b->in[WEIGHT]};
  lt_tensor *y = in[0] && in[1] ? lt_do(b->s, b->op, &attrs, 3, in) : NULL;
  if (lt_reduction_of(b->attrs, b->op) == LT_NONE) {
    lt_batch_give(b, split(b, y, &places, false));
    return;
  }
  lt_tensor *over = divisors(b, &places);
  y = sum_rows(b, split(b, y, &places, true));
  lt_batch_give(b, over ? lt_div(b->s, y, over) : y);
}

/* dy of every place of every sample. */
static lt_tensor *spread(lt_batch *b, const lt_shape *places) {
  if (lt_reduction_of(b->attrs, b->op) == LT_NONE) return merged(b, DY);
  lt_scope *s = b->s;
  lt_tensor *dy = lt_batch_in(b, DY), *over = divisors(b, places);
  if (over) dy = lt_div(s, dy, over);
  lt_shape all = {2, {b->size, lt_shape_numel(places)}};
  dy = lt_expand_to(s, lt_reshape_to(s, dy, &(lt_shape){2, {b->size, 1}}), &all);
  if (places->ndim == 0) return lt_reshape_to(s, dy, &(lt_shape){1, {b->size}});
  lt_shape joined = *places;
  joined.size[0] *= b->size;
  return lt_reshape_to(s, dy, &joined);
}

static void backward_batch(lt_batch *b) {
  if (b->over[WEIGHT]) {
    lt_batch_each(b);
    return;
  }
  const lt_shape *x = &b->in[INPUT]->shape;
  lt_attrs attrs = lt_with_reduction(b->attrs, b->op, LT_NONE);
  lt_shape places = places_of(x);
  lt_tensor *in[] = {merged(b, INPUT), merged(b, TARGET), b->in[WEIGHT], spread(b, &places)};
  if (!in[0] || !in[1] || !in[3]) return;
  lt_batch_give(b, split(b, lt_do(b->s, b->op, &attrs, 4, in), x, false));
}

/* ---- Shares as a tensor, for gradients ----------------------------------------------------------
 */

enum { SHARES_SIZE, SHARES_DTYPE, SHARES_IGNORED, SHARES_SMOOTHING };

static lt_status class_shares_infer(lt_call *c) {
  int n;
  const int64_t *size = lt_get_list(c->attrs, c->op, SHARES_SIZE, &n);
  c->result[0] =
      (lt_spec){(lt_dtype)lt_get_int(c->attrs, c->op, SHARES_DTYPE), lt_shape_make(n, size)};
  return LT_OK;
}

static lt_status class_shares_forward(lt_call *c) {
  lt_tensor *y = c->out[0], *labels;
  lt_shape strided = places_of(&y->shape);
  int64_t places = lt_shape_numel(&strided), inner = 1, dim = class_dim(&y->shape);
  int64_t classes = y->shape.size[dim], ignored = lt_get_int(c->attrs, c->op, SHARES_IGNORED);
  double smoothing = lt_get_number(c->attrs, c->op, SHARES_SMOOTHING);
  for (int d = (int)dim + 1; d < y->shape.ndim; d++) inner *= y->shape.size[d];
  LT_TRY(lt_contiguous_as(c->in[0], LT_INT64, &labels));
  memset(y->data, 0, (size_t)(y->numel * lt_dtype_size((lt_dtype)y->dtype)));
  for (int64_t i = 0; i < places; i++) {
    int64_t label = ((const int64_t *)(const void *)labels->data)[i];
    int64_t at = i / inner * classes * inner + i % inner;
    double each = smoothing / (double)classes;
    if (label == ignored) continue;
    for (int64_t k = 0; smoothing > 0 && k < classes; k++) lt_tensor_write(y, at + k * inner, each);
    lt_tensor_write(y, at + (label - 1) * inner, 1 - smoothing + each);
  }
  lt_tensor_release(labels);
  return LT_OK;
}

static void class_shares_batch(lt_batch *b) {
  int n;
  const int64_t *size = lt_get_list(b->attrs, b->op, SHARES_SIZE, &n);
  lt_shape sample = lt_shape_make(n, size), all = sample, labels = b->in[0]->shape;
  if (n == 1) {
    all = lt_batch_shape(b, &sample);
    labels = lt_batch_shape(b, &labels);
  } else {
    all.size[0] *= b->size;
    labels.size[0] *= b->size;
  }
  lt_attrs attrs = *b->attrs;
  lt_attrs_set_list(&attrs, b->op, SHARES_SIZE, all.ndim, all.size);
  lt_tensor *target = lt_reshape_to(b->s, lt_batch_in(b, 0), &labels);
  lt_batch_give(b, split(b, lt_do1(b->s, b->op, &attrs, target), &sample, false));
}

const lt_op lt_op_class_shares = {
    .name = "class_shares",
    .doc = "The share of each class in the loss: 1 - label_smoothing for the label and "
           "label_smoothing / classes for all; zeros where the label is ignored.",
    .inputs = {{"target", LT_ANY}},
    .options = {{"size", LT_OPTION_SIZES, .required = true},
                {"dtype", LT_OPTION_DTYPE},
                {"ignore_index", LT_OPTION_INT},
                {"label_smoothing", LT_OPTION_NUMBER}},
    .infer = class_shares_infer,
    .forward = class_shares_forward,
    .batch = class_shares_batch,
    .internal = true,
};

/* In a rule: loss = -sum a log p, with a = share * weight / divisor. */
typedef struct shares {
  lt_spec x;
  int64_t dim;
  double smoothing;
  bool labels, mean;
  lt_shape class_shape; /* of the weights, beside x */
  lt_tensor *label;     /* 1 for the label; NULL for probabilities */
  lt_tensor *share, *weight, *a;
  lt_tensor *divisor; /* NULL: 1 */
} shares;

static lt_tensor *class_shares(lt_vjp *v, const shares *h, double smoothing) {
  const lt_op *op = &lt_op_class_shares;
  lt_attrs attrs;
  lt_attrs_default(&attrs, op);
  lt_attrs_set_list(&attrs, op, SHARES_SIZE, h->x.shape.ndim, h->x.shape.size);
  lt_attrs_set_int(&attrs, op, SHARES_DTYPE, h->x.dtype);
  lt_attrs_set_int(&attrs, op, SHARES_IGNORED, lt_get_int(v->attrs, v->op, IGNORE_INDEX));
  lt_attrs_set_number(&attrs, op, SHARES_SMOOTHING, smoothing);
  return lt_do1(v->s, op, &attrs, v->in[TARGET]);
}

static lt_tensor *sum_classes(lt_vjp *v, const shares *h, lt_tensor *t, bool keepdim) {
  return t ? lt_sum_over(v->s, t, 1, &h->dim, keepdim) : NULL;
}

static lt_tensor *over_divisor(lt_vjp *v, const shares *h, lt_tensor *t) {
  return h->divisor ? lt_div(v->s, t, h->divisor) : t;
}

static lt_tensor *weighted(lt_vjp *v, const shares *h, lt_tensor *t) {
  return h->weight ? lt_mul(v->s, t, h->weight) : t;
}

static shares read_shares(lt_vjp *v) {
  shares h = {.x = lt_input_spec(v, INPUT)};
  lt_scope *s = v->s;
  const lt_shape *x = &h.x.shape;
  h.dim = class_dim(x);
  h.labels = !lt_dtype_is_float(lt_input_spec(v, TARGET).dtype);
  h.mean = lt_reduction_of(v->attrs, v->op) == LT_MEAN;
  bool smoothes = v->op->options[LABEL_SMOOTHING].name != NULL;
  if (smoothes) h.smoothing = lt_get_number(v->attrs, v->op, LABEL_SMOOTHING);
  h.class_shape.ndim = x->ndim - (int)h.dim;
  for (int d = 0; d < h.class_shape.ndim; d++) h.class_shape.size[d] = d ? 1 : x->size[h.dim];
  if (v->in[WEIGHT]) h.weight = lt_reshape_to(s, v->in[WEIGHT], &h.class_shape);
  if (h.labels) {
    h.label = class_shares(v, &h, 0);
    h.share = h.smoothing > 0 ? class_shares(v, &h, h.smoothing) : h.label;
    if (h.mean) h.divisor = lt_sum_to(s, weighted(v, &h, h.label), &(lt_shape){0});
  } else {
    lt_shape places = places_of(x);
    lt_tensor *kept = lt_scale(s, v->in[TARGET], 1 - h.smoothing);
    h.share = lt_shift(s, kept, h.smoothing / (double)x->size[h.dim]);
    if (h.mean) h.divisor = lt_number(s, (double)lt_shape_numel(&places));
  }
  h.a = over_divisor(v, &h, weighted(v, &h, h.share));
  return h;
}

/* dy beside x: of each place, or one for all. */
static lt_tensor *beside(lt_vjp *v, const shares *h, lt_tensor *dy) {
  lt_shape shape = h->x.shape;
  shape.size[h->dim] = 1;
  return dy && dy->shape.ndim > 0 ? lt_reshape_to(v->s, dy, &shape) : dy;
}

/* Passes the gradient r of the shares a on to probabilities and weight. */
static void give_shares(lt_vjp *v, const shares *h, lt_tensor *r) {
  lt_scope *s = v->s;
  if (!h->labels && v->need[TARGET]) {
    lt_tensor *dp = lt_scale(s, over_divisor(v, h, weighted(v, h, r)), 1 - h->smoothing);
    lt_give(v, TARGET, dp);
  }
  if (!v->need[WEIGHT]) return;
  lt_shape weight = lt_input_spec(v, WEIGHT).shape;
  lt_tensor *dw = lt_sum_to(s, lt_mul(s, r, h->share), &h->class_shape);
  if (h->labels && h->mean) { /* the divisor holds weights, too */
    lt_tensor *count = lt_sum_to(s, h->label, &h->class_shape);
    lt_tensor *total = lt_sum_to(s, lt_mul(s, r, h->a), &(lt_shape){0});
    dw = lt_sub(s, dw, lt_mul(s, count, total));
  }
  lt_give(v, WEIGHT, lt_reshape_to(s, over_divisor(v, h, dw), &weight));
}

static lt_tensor *along_classes(lt_vjp *v, const lt_op *op, const shares *h, lt_tensor *x) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, op);
  lt_attrs_set_int(&attrs, op, lt_op_option_index(op, "dim"), h->dim);
  return lt_do1(v->s, op, &attrs, x);
}

/* ---- cross_entropy_backward -------------------------------------------------------------------
 */

static lt_status cross_entropy_backward_infer(lt_call *c) {
  LT_TRY(infer_classes(c));
  c->result[0] = (lt_spec){(lt_dtype)c->in[INPUT]->dtype, c->in[INPUT]->shape};
  return LT_OK;
}

/* dx = g (softmax(x) sum a - a), for labels. */
static void backward_at(const problem *e, int64_t i) {
  int64_t at = logits_of(e, i), size = lt_dtype_size(e->dtype), n = e->classes, inner = e->inner;
  char *dx = e->dx + at * size;
  if (is_ignored(e, i)) {
    for (int64_t k = 0; k < n; k++) memset(dx + k * inner * size, 0, (size_t)size);
    return;
  }
  int64_t label = e->label[i] - 1;
  double g = element(e, e->dy, i * e->dy_step) * e->scale;
  double own = (1 - e->smoothing) * (e->weight ? e->weight[label] : 1);
  double each = e->smoothing / (double)n, max = row_max(e, at);
  double factor = g * (own + each * e->all_weights) / row_exp_sum(e, at, max);
  if (inner == 1) e->row->scale(n, dx, factor);
  float *f32 = (float *)(void *)dx;
  double *f64 = (double *)(void *)dx;
  bool wide = e->dtype == LT_FLOAT64;
  for (int64_t k = 0; k < n && (inner > 1 || each > 0); k++) {
    double y = (inner > 1 ? factor : 1) * element(e, dx, k * inner);
    y -= g * each * (e->weight ? e->weight[k] : 1);
    if (wide)
      f64[k * inner] = y;
    else
      f32[k * inner] = (float)y;
  }
  if (wide)
    f64[label * inner] -= g * own;
  else
    f32[label * inner] -= (float)(g * own);
}

static void backward_task(void *argument, int64_t first, int64_t last) {
  const problem *e = argument;
  int64_t end = last * e->per_task < e->places ? last * e->per_task : e->places;
  for (int64_t i = first * e->per_task; i < end; i++) backward_at(e, i);
}

static lt_status run_backward(lt_call *c, problem *e) {
  LT_TRY(open_problem(c, e));
  lt_reduction reduction = lt_reduction_of(c->attrs, c->op);
  LT_TRY(lt_tensor_contiguous(c->in[DY], &e->own[3]));
  e->dy = e->own[3]->data;
  e->dy_step = reduction == LT_NONE;
  e->scale = reduction == LT_MEAN ? 1 / divisor(e) : 1;
  e->dx = c->out[0]->data;
  return lt_parallel(c->ctx, tasks_of(e), c->out[0]->numel * 4, backward_task, e);
}

static lt_status cross_entropy_backward_forward(lt_call *c) {
  problem e;
  lt_status status = run_backward(c, &e);
  close_problem(&e);
  return status;
}

static void cross_entropy_backward_vjp(lt_vjp *v) {
  lt_scope *s = v->s;
  shares h = read_shares(v);
  lt_tensor *g = beside(v, &h, v->in[DY]), *u = v->dy[0];
  lt_tensor *p = along_classes(v, &lt_op_softmax, &h, v->in[INPUT]);
  lt_tensor *mean = sum_classes(v, &h, lt_mul(s, u, p), true);
  lt_tensor *fall = lt_sub(s, mean, u); /* sum u dx = g sum a (mean - u) */
  if (v->need[DY]) lt_give(v, DY, sum_classes(v, &h, lt_mul(s, h.a, fall), false));
  if (v->need[INPUT]) {
    lt_tensor *total = sum_classes(v, &h, h.a, true);
    lt_give(v, INPUT, lt_neg(s, lt_mul(s, lt_mul(s, g, total), lt_mul(s, p, fall))));
  }
  give_shares(v, &h, lt_mul(s, g, fall));
}

const lt_op lt_op_cross_entropy_backward = {
    .name = "cross_entropy_backward",
    .doc = "dy times the gradient of cross_entropy of labels in input.",
    .inputs = {{"input", LT_FLOAT},
               {"target", LT_ANY},
               {"weight", LT_FLOAT, .optional = true},
               {"dy", LT_FLOAT}},
    .options = {LT_REDUCTION_OPTION,
                {"ignore_index", LT_OPTION_INT, .value = -100},
                {"label_smoothing", LT_OPTION_NUMBER}},
    .infer = cross_entropy_backward_infer,
    .forward = cross_entropy_backward_forward,
    .vjp = cross_entropy_backward_vjp,
    .batch = backward_batch,
    .saves = LT_IN(INPUT) | LT_IN(TARGET) | LT_IN(WEIGHT) | LT_IN(DY),
    .internal = true,
};

/* ---- cross_entropy ----------------------------------------------------------------------------
 */

static lt_status cross_entropy_forward(lt_call *c) {
  problem e;
  lt_status status = reduce_places(c, &e, entropy_task, c->in[INPUT]->numel * 4);
  close_problem(&e);
  return status;
}

static void cross_entropy_vjp(lt_vjp *v) {
  lt_scope *s = v->s;
  bool labels = !lt_dtype_is_float(lt_input_spec(v, TARGET).dtype);
  if (labels && v->need[INPUT]) {
    lt_tensor *in[] = {v->in[INPUT], v->in[TARGET], v->in[WEIGHT], v->dy[0]};
    lt_give(v, INPUT, lt_do(s, &lt_op_cross_entropy_backward, v->attrs, 4, in));
  }
  if (labels && !v->need[WEIGHT]) return;
  shares h = read_shares(v);
  lt_tensor *g = beside(v, &h, v->dy[0]);
  if (!labels && v->need[INPUT]) {
    lt_tensor *p = along_classes(v, &lt_op_softmax, &h, v->in[INPUT]);
    lt_tensor *total = sum_classes(v, &h, h.a, true);
    lt_give(v, INPUT, lt_mul(s, g, lt_sub(s, lt_mul(s, total, p), h.a)));
  }
  lt_tensor *log_p = along_classes(v, &lt_op_log_softmax, &h, v->in[INPUT]);
  give_shares(v, &h, lt_neg(s, lt_mul(s, g, log_p)));
}

const lt_op lt_op_cross_entropy = {
    .name = "cross_entropy",
    .doc = "Cross entropy of logits: -log softmax(input) at the label, its mean over places, "
           "weighted by the weight of each label's class. input is C, N x C or N x C x ...; "
           "target holds labels, which count from 1, in that shape without C, or probabilities "
           "in all of it. Labels equal to ignore_index do not count. label_smoothing spreads "
           "that part of the target over all classes (Szegedy et al. 2016, arXiv 1512.00567).",
    .inputs = {{"input", LT_FLOAT}, {"target", LT_ANY}, {"weight", LT_FLOAT, .optional = true}},
    .options = {LT_REDUCTION_OPTION,
                {"ignore_index", LT_OPTION_INT, .value = -100},
                {"label_smoothing", LT_OPTION_NUMBER}},
    .infer = infer_classes,
    .forward = cross_entropy_forward,
    .vjp = cross_entropy_vjp,
    .batch = loss_batch,
    .saves = LT_IN(INPUT) | LT_IN(TARGET) | LT_IN(WEIGHT),
    .sample = {"normal(3, 4), integers(1, 4, 3)",
               "normal(5, 4), integers(1, 4, 5), positive(4), {label_smoothing = 0.2}",
               "normal(2, 3, 4), integers(1, 3, 2, 4), positive(3), {reduction = 'sum', "
               "ignore_index = 2, label_smoothing = 0.1}",
               "transposed(4, 3), integers(1, 3, 4), {reduction = 'none', ignore_index = 1}",
               "normal(4), integers(1, 4)", "normal(3, 4), positive(3, 4)",
               "normal(2, 3, 2), positive(2, 3, 2), positive(3), {label_smoothing = 0.1}",
               "normal(3, 4), positive(3, 4), positive(4), {reduction = 'none'}"},
};

/* ---- nll_loss ---------------------------------------------------------------------------------
 */

static lt_status nll_loss_forward(lt_call *c) {
  problem e;
  lt_status status = reduce_places(c, &e, nll_task, c->in[TARGET]->numel * 4);
  close_problem(&e);
  return status;
}

static void nll_loss_vjp(lt_vjp *v) {
  lt_scope *s = v->s;
  shares h = read_shares(v);
  lt_tensor *minus_g = lt_neg(s, beside(v, &h, v->dy[0]));
  if (v->need[INPUT]) lt_give(v, INPUT, lt_mul(s, minus_g, h.a));
  if (v->need[WEIGHT]) give_shares(v, &h, lt_mul(s, minus_g, v->in[INPUT]));
}

const lt_op lt_op_nll_loss = {
    .name = "nll_loss",
    .doc = "Negative log likelihood: -input at the label, its mean over places, weighted by the "
           "weight of each label's class. input holds log-probabilities (log_softmax makes "
           "them), C, N x C or N x C x ...; labels count from 1. Labels equal to ignore_index do "
           "not count.",
    .inputs = {{"input", LT_FLOAT}, {"target", LT_ANY}, {"weight", LT_FLOAT, .optional = true}},
    .options = {LT_REDUCTION_OPTION, {"ignore_index", LT_OPTION_INT, .value = -100}},
    .infer = infer_classes,
    .forward = nll_loss_forward,
    .vjp = nll_loss_vjp,
    .batch = loss_batch,
    .saves = LT_IN(INPUT) | LT_IN(TARGET) | LT_IN(WEIGHT),
    .sample = {"normal(3, 4), integers(1, 4, 3)",
               "normal(2, 3, 4), integers(1, 3, 2, 4), positive(3), {ignore_index = 2}",
               "transposed(4, 3), integers(1, 3, 4), {reduction = 'none'}",
               "normal(4), integers(1, 4), positive(4), {reduction = 'sum'}"},
};

LT_FAMILY(cross_entropy, &lt_op_cross_entropy, &lt_op_cross_entropy_backward, &lt_op_class_shares,
          &lt_op_nll_loss)
