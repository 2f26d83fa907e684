/* layer_norm, rms_norm, group_norm and instance_norm. The forward pass keeps the mean and 1 / std
 * of each row for a fused backward op, and that op's own gradient is made of differentiable ops. */
#include "ops/norm.h"
#include "core/context.h"
#include "kernels/parallel.h"
#include "ops/family.h"
#include "tape/vmap.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* ---- Shared: checks, contiguous inputs ------------------------------------------------------- */

lt_status lt_norm_check(const lt_call *c, int input, const lt_shape *shape) {
  const lt_tensor *t = c->in[input], *x = c->in[0];
  char wanted[LT_SHAPE_TEXT], got[LT_SHAPE_TEXT];
  if (!t || (t->dtype == x->dtype && lt_shape_equal(&t->shape, shape))) return LT_OK;
  return lt_fail(c->ctx, "%s: %s must be %s of %s, got %s of %s", c->op->name,
                 c->op->inputs[input].name, lt_dtype_name((lt_dtype)x->dtype),
                 lt_shape_text(shape, wanted), lt_dtype_name((lt_dtype)t->dtype),
                 lt_shape_text(&t->shape, got));
}

void lt_norm_release(lt_tensor *held[LT_NORM_HELD]) {
  for (int i = 0; i < LT_NORM_HELD; i++) lt_tensor_release(held[i]);
}

lt_status lt_norm_hold(const lt_call *c, lt_tensor *held[LT_NORM_HELD]) {
  for (int i = 0; i < LT_NORM_HELD; i++) held[i] = NULL;
  for (int i = 0; i < c->inputs; i++) {
    lt_status status = c->in[i] ? lt_tensor_contiguous(c->in[i], &held[i]) : LT_OK;
    if (status == LT_OK) continue;
    lt_norm_release(held);
    return status;
  }
  return LT_OK;
}

/* ---- Shared: gradients ------------------------------------------------------------------------
 */

void lt_norm_vjp(lt_vjp *v, const lt_op *backward, lt_attrs *attrs, int weight, int bias,
                 lt_tensor *mean, lt_tensor *rstd) {
  int source[] = {0, weight, bias};
  int64_t wanted = 0;
  for (int k = 0; k < 3; k++) {
    if (source[k] >= 0 && v->need[source[k]]) wanted |= 1 << k;
  }
  lt_attrs_set_int(attrs, backward, LT_NORM_WANTED, wanted);
  lt_tensor *in[] = {v->dy[0], v->in[0], v->in[weight], mean, rstd}, *out[LT_MAX_OUTPUTS];
  lt_do_all(v->s, backward, attrs, 5, in, out);
  for (int k = 0; k < 3; k++) {
    if (wanted >> k & 1) lt_give(v, source[k], out[k]);
  }
}

lt_status lt_norm_backward_infer(lt_call *c, const lt_shape *weight) {
  int64_t wanted = lt_get_int(c->attrs, c->op, LT_NORM_WANTED);
  lt_shape nothing = lt_shape_make(1, (int64_t[]){0});
  lt_dtype dtype = (lt_dtype)c->in[LT_NORM_X]->dtype;
  c->outputs = 3;
  for (int k = 0; k < 3; k++) {
    const lt_shape *shape = k == LT_NORM_DX ? &c->in[LT_NORM_X]->shape : weight;
    c->result[k] = (lt_spec){dtype, wanted >> k & 1 ? *shape : nothing};
  }
  return LT_OK;
}

typedef struct terms {
  lt_scope *s;
  const lt_norm_view *view;
  lt_tensor *xh, *rstd;
} terms;

static lt_tensor *mean_over(const terms *t, lt_tensor *a) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_mean);
  lt_attrs_set_list(&attrs, &lt_op_mean, 0, t->view->ndims, t->view->dims);
  lt_attrs_set_int(&attrs, &lt_op_mean, 1, true);
  return lt_do1(t->s, &lt_op_mean, &attrs, a);
}

/* The normalised x and 1 / std, as functions of x. */
static void normalise(lt_vjp *v, terms *t, lt_tensor *x) {
  lt_scope *s = t->s;
  const lt_norm_view *view = t->view;
  if (view->fixed) {
    t->rstd = lt_reshape_to(s, v->in[LT_NORM_RSTD], &view->stats);
    x = lt_sub(s, x, lt_reshape_to(s, v->in[LT_NORM_MEAN], &view->stats));
  } else {
    if (view->centred) x = lt_sub(s, x, mean_over(t, x));
    lt_tensor *variance = lt_shift(s, mean_over(t, lt_mul(s, x, x)), view->eps);
    t->rstd = lt_do2(s, &lt_op_pow, NULL, variance, lt_number(s, -0.5));
  }
  t->xh = lt_mul(s, x, t->rstd);
}

/* The gradient of x from that of xh: rstd (a - mean(a) - xh mean(a xh)). */
static lt_tensor *project(const terms *t, lt_tensor *a) {
  lt_scope *s = t->s;
  if (t->view->fixed) return lt_mul(s, a, t->rstd);
  lt_tensor *apart = lt_sub(s, a, lt_mul(s, t->xh, mean_over(t, lt_mul(s, a, t->xh))));
  if (t->view->centred) apart = lt_sub(s, apart, mean_over(t, a));
  return lt_mul(s, apart, t->rstd);
}

/* a + b; NULL is 0. */
static lt_tensor *plus(lt_scope *s, lt_tensor *a, lt_tensor *b) {
  return a && b ? lt_add(s, a, b) : a ? a : b;
}

/* Of result k; NULL for one that was not wanted. */
static lt_tensor *cotangent(lt_vjp *v, int k, const lt_shape *shape) {
  bool wanted = lt_get_int(v->attrs, v->op, LT_NORM_WANTED) >> k & 1;
  return wanted ? lt_reshape_to(v->s, v->dy[k], shape) : NULL;
}

/* The backward op, with g = dy w: dx = project(g), dweight = sum(dy xh), dbias = sum(dy). Its
 * cotangents: u, p, q. */
void lt_norm_backward_vjp(lt_vjp *v, const lt_norm_view *view) {
  lt_scope *s = v->s;
  terms t = {.s = s, .view = view};
  lt_tensor *x = lt_reshape_to(s, v->in[LT_NORM_X], &view->x);
  lt_tensor *dy = lt_reshape_to(s, v->in[LT_NORM_DY], &view->x);
  lt_tensor *w = lt_reshape_to(s, v->in[LT_NORM_WEIGHT], &view->weight);
  lt_tensor *u = cotangent(v, LT_NORM_DX, &view->x);
  lt_tensor *p = cotangent(v, LT_NORM_DWEIGHT, &view->weight);
  lt_tensor *q = cotangent(v, LT_NORM_DBIAS, &view->weight);
  normalise(v, &t, x);
  lt_tensor *along = u ? project(&t, u) : NULL;
  if (v->need[LT_NORM_DY]) {
    lt_tensor *to_dy = w ? lt_mul(s, along, w) : along;
    to_dy = plus(s, to_dy, lt_mul(s, p, t.xh));
    to_dy = plus(s, to_dy, lt_expand_to(s, q, &view->x));
    lt_shape shape = lt_input_spec(v, LT_NORM_DY).shape;
    lt_give(v, LT_NORM_DY, lt_reshape_to(s, to_dy, &shape));
  }
  if (w && v->need[LT_NORM_WEIGHT] && u) {
    lt_tensor *to_w = lt_sum_to(s, lt_mul(s, dy, along), &view->weight);
    lt_shape shape = lt_input_spec(v, LT_NORM_WEIGHT).shape;
    lt_give(v, LT_NORM_WEIGHT, lt_reshape_to(s, to_w, &shape));
  }
  if (!v->need[LT_NORM_X]) return;
  lt_tensor *to_xh = lt_mul(s, p, dy), *to_x = NULL;
  if (u && !view->fixed) {
    lt_tensor *g = w ? lt_mul(s, dy, w) : dy;
    lt_tensor *u_dot = mean_over(&t, lt_mul(s, u, t.xh)),
              *g_dot = mean_over(&t, lt_mul(s, g, t.xh));
    lt_tensor *from_u = lt_add(s, lt_mul(s, g_dot, u), lt_mul(s, u_dot, g));
    to_xh = plus(s, to_xh, lt_neg(s, lt_mul(s, t.rstd, from_u)));
    /* and through rstd, whose gradient is -rstd^2 xh / n */
    lt_tensor *size = lt_sub(s, mean_over(&t, lt_mul(s, u, g)), lt_mul(s, u_dot, g_dot));
    if (view->centred) size = lt_sub(s, size, lt_mul(s, mean_over(&t, u), mean_over(&t, g)));
    to_x = lt_neg(s, lt_mul(s, lt_mul(s, size, lt_mul(s, t.rstd, t.rstd)), t.xh));
  }
  to_x = plus(s, to_x, to_xh ? project(&t, to_xh) : NULL);
  lt_shape shape = lt_input_spec(v, LT_NORM_X).shape;
  lt_give(v, LT_NORM_X, lt_reshape_to(s, to_x, &shape));
}

/* Of backward ops. Without sums over rows the batch is more of them, put together as `merge` says:
 * a leading dimension, or one with dim 0. */
static void backward_batch(lt_batch *b, bool merge) {
  lt_tensor *in[LT_NORM_HELD];
  if (lt_get_int(b->attrs, b->op, LT_NORM_WANTED) != 1 << LT_NORM_DX || b->over[LT_NORM_WEIGHT]) {
    lt_batch_each(b);
    return;
  }
  for (int i = 0; i < b->inputs; i++) {
    in[i] = i == LT_NORM_WEIGHT ? b->in[i] : lt_batch_in(b, i);
    if (!merge || !in[i] || i == LT_NORM_WEIGHT) continue;
    lt_shape shape = b->in[i]->shape;
    shape.size[0] *= b->size;
    in[i] = lt_reshape_to(b->s, in[i], &shape);
  }
  lt_batch_run(b, b->attrs, in);
  for (int k = 0; k < b->outputs; k++) {
    lt_shape shape = lt_batch_shape(b, &b->result[k].shape);
    b->out[k] = lt_reshape_to(b->s, b->out[k], &shape);
  }
}

/* ---- layer_norm, rms_norm: rows of the last dimensions -----------------------------------------
 */

enum { NORMALIZED_SHAPE, EPS };

/* Weight and bias gradients of ROWS rows are added up in the float type, further ones in double;
 * that for at most SLOTS parts of the rows, and then of those. */
enum { ROWS = 32, SLOTS = 64 };

typedef struct rows {
  const lt_norm_kernels *k;
  int64_t rows, n;
  int64_t bytes; /* of an element */
  bool centred;
  double eps;
  lt_tensor *const *in;     /* held, contiguous */
  lt_tensor *const *out;    /* forward: y, mean, rstd; backward: dx, dweight, dbias */
  lt_tensor *mean, *rstd;   /* NULL: not kept */
  bool want[3];             /* backward */
  int64_t slots, slot_size; /* bytes */
  char *scratch;
} rows;

static void forward_rows(void *argument, int64_t first, int64_t last) {
  const rows *w = argument;
  const lt_tensor *x = w->in[0], *weight = w->in[1], *bias = w->in[2];
  for (int64_t r = first; r < last; r++) {
    const char *row = x->data + r * w->n * w->bytes;
    double sums[2] = {0}, mean = 0, variance, centre = 0;
    if (w->centred) centre = lt_norm_centre(w->k, w->n, row, x->dtype);
    w->k->squares(w->n, row, centre, sums);
    if (w->centred)
      lt_norm_moments(sums, centre, w->n, &mean, &variance);
    else
      variance = sums[1] / (double)w->n;
    double rstd = 1 / sqrt(variance + w->eps);
    w->k->map(w->n, row, w->out[0]->data + r * w->n * w->bytes, mean, rstd, 0,
              weight ? weight->data : NULL, bias ? bias->data : NULL);
    if (w->mean) lt_tensor_write(w->mean, r, mean);
    if (w->rstd) lt_tensor_write(w->rstd, r, rstd);
  }
}

/* The k-th accumulator (dweight, dbias) of a slot: in double, and in the float type. */
static double *sums_of(const rows *w, int64_t slot, int k) {
  return (double *)(void *)(w->scratch + slot * w->slot_size) + k * w->n;
}
static char *recent_of(const rows *w, int64_t slot, int k) {
  return w->scratch + slot * w->slot_size + 2 * w->n * 8 + k * w->n * w->bytes;
}

static void backward_rows(void *argument, int64_t first, int64_t last) {
  const rows *w = argument;
  const lt_tensor *dy = w->in[LT_NORM_DY], *x = w->in[LT_NORM_X], *weight = w->in[LT_NORM_WEIGHT];
  for (int64_t slot = first; slot < last; slot++) {
    int64_t begin = w->rows * slot / w->slots, end = w->rows * (slot + 1) / w->slots;
    char *dw = w->want[1] ? recent_of(w, slot, 0) : NULL;
    char *db = w->want[2] ? recent_of(w, slot, 1) : NULL;
    if (dw || db) memset(w->scratch + slot * w->slot_size, 0, (size_t)w->slot_size);
    for (int64_t r = begin; r < end; r++) {
      int64_t at = r * w->n * w->bytes;
      double sums[2] = {0};
      double mean = w->centred ? lt_tensor_read(w->mean, r) : 0, rstd = lt_tensor_read(w->rstd, r);
      const char *scale = weight ? weight->data : NULL;
      w->k->dots(w->n, dy->data + at, x->data + at, mean, rstd, scale, dw, db, sums);
      if (w->want[0]) {
        double level = w->centred ? -rstd * sums[0] / (double)w->n : 0;
        double slope = -rstd * rstd * sums[1] / (double)w->n;
        w->k->back(w->n, dy->data + at, x->data + at, w->out[0]->data + at, scale, mean, rstd,
                   level, slope);
      }
      if ((r - begin) % ROWS != ROWS - 1 && r + 1 < end) continue;
      if (dw) w->k->drain(w->n, dw, sums_of(w, slot, 0));
      if (db) w->k->drain(w->n, db, sums_of(w, slot, 1));
    }
  }
}

static lt_status run_backward_rows(lt_context *ctx, rows *w) {
  lt_block *block = NULL;
  bool sums = w->want[1] || w->want[2];
  w->slots = (w->rows + ROWS - 1) / ROWS < SLOTS ? (w->rows + ROWS - 1) / ROWS : SLOTS;
  w->slot_size = ((16 + 2 * w->bytes) * w->n + 63) / 64 * 64;
  if (sums && w->slots > 0) {
    LT_TRY(lt_block_new(ctx, w->slots * w->slot_size, &block));
    w->scratch = block->data;
  }
  lt_status status = lt_parallel(ctx, w->slots, w->rows * w->n * 4, backward_rows, w);
  for (int k = 0; k < 2 && status == LT_OK; k++) {
    for (int64_t j = 0; w->want[1 + k] && j < w->n; j++) {
      double total = 0;
      for (int64_t slot = 0; slot < w->slots; slot++) total += sums_of(w, slot, k)[j];
      lt_tensor_write(w->out[1 + k], j, total);
    }
  }
  if (block) lt_block_release(block);
  return status;
}

/* How many of the last dimensions make a row. */
static int row_dims(const lt_attrs *attrs, const lt_op *op, const lt_tensor *weight) {
  int n;
  if (lt_get_list(attrs, op, NORMALIZED_SHAPE, &n)) return n;
  return weight ? weight->shape.ndim : 1;
}

static int64_t last_sizes(const lt_shape *s, int dims) {
  int64_t n = 1;
  for (int d = s->ndim - dims; d < s->ndim; d++) n *= s->size[d];
  return n;
}
static int64_t first_sizes(const lt_shape *s, int dims) {
  int64_t n = 1;
  for (int d = 0; d < dims; d++) n *= s->size[d];
  return n;
}

static double eps_of(const lt_attrs *attrs, const lt_op *op, int option, lt_dtype dtype) {
  if (lt_given(attrs, option) || op->options[option].value > 0) {
    return lt_get_number(attrs, op, option);
  }
  return dtype == LT_FLOAT32 ? (double)FLT_EPSILON : DBL_EPSILON;
}

static lt_status rows_infer(lt_call *c) {
  const lt_shape *x = &c->in[0]->shape;
  int n, dims = row_dims(c->attrs, c->op, c->in[1]);
  const int64_t *given = lt_get_list(c->attrs, c->op, NORMALIZED_SHAPE, &n);
  char text[LT_SHAPE_TEXT], wanted[LT_SHAPE_TEXT];
  bool fits = dims > 0 && dims <= x->ndim;
  for (int d = 0; fits && given && d < dims; d++) fits = given[d] == x->size[x->ndim - dims + d];
  if (!fits) {
    lt_shape shape = given ? lt_shape_make(n, given) : lt_shape_make(0, NULL);
    if (!given && c->in[1]) shape = c->in[1]->shape;
    return lt_fail(c->ctx, "%s: x (%s) must end in the dimensions of %s (%s)", c->op->name,
                   lt_shape_text(x, text), given || !c->in[1] ? "normalized_shape" : "weight",
                   given || c->in[1] ? lt_shape_text(&shape, wanted) : "one by default");
  }
  lt_shape row = lt_shape_make(dims, x->size + x->ndim - dims), stats = *x;
  LT_TRY(lt_norm_check(c, 1, &row));
  if (c->inputs > 2) LT_TRY(lt_norm_check(c, 2, &row));
  for (int d = x->ndim - dims; d < x->ndim; d++) stats.size[d] = 1;
  LT_TRY(lt_infer_same(c));
  if (!c->recorded) return LT_OK;
  c->outputs = c->op->results;
  for (int k = 1; k < c->outputs; k++) c->result[k] = (lt_spec){c->dtype, stats};
  return LT_OK;
}

static lt_status rows_forward(lt_call *c, bool centred) {
  int dims = row_dims(c->attrs, c->op, c->in[1]);
  const lt_shape *x = &c->in[0]->shape;
  lt_tensor *held[LT_NORM_HELD];
  rows w = {.k = &lt_norm_kernels_of[c->ctx->simd][c->dtype],
            .rows = first_sizes(x, x->ndim - dims),
            .n = last_sizes(x, dims),
            .bytes = lt_dtype_size(c->dtype),
            .centred = centred,
            .eps = eps_of(c->attrs, c->op, EPS, c->dtype),
            .in = held,
            .out = c->out,
            .mean = centred && c->outputs > 1 ? c->out[1] : NULL,
            .rstd = c->outputs > 1 ? c->out[c->outputs - 1] : NULL};
  LT_TRY(lt_norm_hold(c, held));
  lt_status status = lt_parallel(c->ctx, w.rows, w.rows * w.n * 3, forward_rows, &w);
  lt_norm_release(held);
  return status;
}

/* Options of the backward op behind LT_NORM_WANTED. */
enum { BACKWARD_DIMS = 1, BACKWARD_EPS };

static lt_status rows_backward_infer(lt_call *c) {
  const lt_shape *x = &c->in[LT_NORM_X]->shape;
  int dims = (int)lt_get_int(c->attrs, c->op, BACKWARD_DIMS);
  lt_shape row = lt_shape_make(dims, x->size + x->ndim - dims);
  return lt_norm_backward_infer(c, &row);
}

static lt_status rows_backward_forward(lt_call *c) {
  int dims = (int)lt_get_int(c->attrs, c->op, BACKWARD_DIMS);
  const lt_tensor *x = c->in[LT_NORM_X];
  int64_t wanted = lt_get_int(c->attrs, c->op, LT_NORM_WANTED);
  lt_tensor *held[LT_NORM_HELD];
  LT_TRY(lt_norm_hold(c, held));
  rows w = {.k = &lt_norm_kernels_of[c->ctx->simd][x->dtype],
            .rows = first_sizes(&x->shape, x->shape.ndim - dims),
            .n = last_sizes(&x->shape, dims),
            .bytes = lt_dtype_size((lt_dtype)x->dtype),
            .centred = held[LT_NORM_MEAN] != NULL,
            .in = held,
            .out = c->out,
            .mean = held[LT_NORM_MEAN],
            .rstd = held[LT_NORM_RSTD],
            .want = {wanted & 1, wanted >> 1 & 1, wanted >> 2 & 1}};
  lt_status status = run_backward_rows(c->ctx, &w);
  lt_norm_release(held);
  return status;
}

static void rows_backward_batch(lt_batch *b) { backward_batch(b, false); }

static void rows_backward_vjp(lt_vjp *v) {
  lt_shape x = lt_input_spec(v, LT_NORM_X).shape;
  int dims = (int)lt_get_int(v->attrs, v->op, BACKWARD_DIMS);
  int64_t n = last_sizes(&x, dims), count = first_sizes(&x, x.ndim - dims);
  lt_norm_backward_vjp(v, &(lt_norm_view){.x = lt_shape_make(2, (int64_t[]){count, n}),
                                          .weight = lt_shape_make(1, &n),
                                          .ndims = 1,
                                          .dims = {1},
                                          .centred = v->in[LT_NORM_MEAN] != NULL,
                                          .eps = lt_get_number(v->attrs, v->op, BACKWARD_EPS)});
}

const lt_op lt_op_layer_norm_backward = {
    .name = "layer_norm_backward",
    .doc = "dx = rstd (g - mean(g) - xh mean(g xh)) with g = dy weight and xh = (x - mean) rstd; "
           "dweight, the sum of dy xh; dbias, that of dy. Without mean, those of rms_norm.",
    .inputs = {{"dy", LT_FLOAT},
               {"x", LT_FLOAT},
               {"weight", LT_FLOAT, .optional = true},
               {"mean", LT_FLOAT, .optional = true},
               {"rstd", LT_FLOAT}},
    .options = {{"wanted", LT_OPTION_INT}, {"dims", LT_OPTION_INT}, {"eps", LT_OPTION_NUMBER}},
    .infer = rows_backward_infer,
    .forward = rows_backward_forward,
    .vjp = rows_backward_vjp,
    .batch = rows_backward_batch,
    .saves = LT_IN(0) | LT_IN(1) | LT_IN(2) | LT_IN(3),
    .results = 3,
    .internal = true,
};

static void rows_vjp(lt_vjp *v, int bias, lt_tensor *mean, lt_tensor *rstd) {
  const lt_op *op = &lt_op_layer_norm_backward;
  lt_dtype dtype = lt_input_spec(v, 0).dtype;
  lt_attrs attrs;
  lt_attrs_default(&attrs, op);
  lt_attrs_set_int(&attrs, op, BACKWARD_DIMS, row_dims(v->attrs, v->op, v->in[1]));
  lt_attrs_set_number(&attrs, op, BACKWARD_EPS, eps_of(v->attrs, v->op, EPS, dtype));
  lt_norm_vjp(v, op, &attrs, 1, bias, mean, rstd);
}

static lt_status layer_norm_forward(lt_call *c) { return rows_forward(c, true); }
static void layer_norm_vjp(lt_vjp *v) { rows_vjp(v, 2, v->out[1], v->out[2]); }

const lt_op lt_op_layer_norm = {
    .name = "layer_norm",
    .doc = "y = (x - mean) / sqrt(var + eps) * weight + bias, with mean and variance (dividing by "
           "n) over the last dimensions: those of normalized_shape, which are also the shape of "
           "weight and bias. By default they are weight's, or the last one. Ba, Kiros, Hinton "
           "2016, arXiv 1607.06450.",
    .inputs = {{"x", LT_FLOAT},
               {"weight", LT_FLOAT, .optional = true},
               {"bias", LT_FLOAT, .optional = true}},
    .options = {{"normalized_shape", LT_OPTION_SIZES}, {"eps", LT_OPTION_NUMBER, .value = 1e-5}},
    .infer = rows_infer,
    .forward = layer_norm_forward,
    .vjp = layer_norm_vjp,
    .batch = lt_batch_leading,
    .saves = LT_IN(0) | LT_IN(1) | LT_OUT(1) | LT_OUT(2),
    .results = 3,
    .hidden = 2,
    .option_at = 2,
    .sample = {"normal(3, 4), positive(4), normal(4)", "transposed(2, 3, 5), positive(5)",
               "normal(2, 3, 4), positive(3, 4), normal(3, 4), {normalized_shape = {3, 4}, eps = "
               "0.1}",
               "normal(2, 5), {eps = 0.01}", "normal(2, 5), nil, normal(5)"},
};

static lt_status rms_norm_forward(lt_call *c) { return rows_forward(c, false); }
static void rms_norm_vjp(lt_vjp *v) { rows_vjp(v, -1, NULL, v->out[1]); }

const lt_op lt_op_rms_norm = {
    .name = "rms_norm",
    .doc = "y = x / sqrt(mean(x^2) + eps) * weight, with the mean over the last dimensions: those "
           "of normalized_shape, which are also the shape of weight. By default they are weight's, "
           "or the last one. eps is by default the machine epsilon of x's dtype. Zhang, Sennrich "
           "2019, arXiv 1910.07467.",
    .inputs = {{"x", LT_FLOAT}, {"weight", LT_FLOAT, .optional = true}},
    .options = {{"normalized_shape", LT_OPTION_SIZES}, {"eps", LT_OPTION_NUMBER}},
    .infer = rows_infer,
    .forward = rms_norm_forward,
    .vjp = rms_norm_vjp,
    .batch = lt_batch_leading,
    .saves = LT_IN(0) | LT_IN(1) | LT_OUT(1),
    .results = 2,
    .hidden = 1,
    .option_at = 2,
    .sample = {"normal(3, 4), positive(4)",
               "normal(2, 3, 4), positive(3, 4), {normalized_shape = {3, 4}, eps = 0.1}",
               "transposed(2, 3, 5), {eps = 0.01}"},
};

/* ---- group_norm, instance_norm: groups of channels ---------------------------------------------
 */

enum { NUM_GROUPS, GROUP_EPS };

/* x is N x C x S; a row is a group of an image: `size` channels, S elements each. */
typedef struct groups {
  const lt_norm_kernels *k;
  int64_t images, channels, count, size, s;
  int64_t bytes;
  double eps;
  lt_tensor *const *in;
  lt_tensor *const *out;
  lt_tensor *mean, *rstd;
  bool want_dx;
  double *sums; /* backward: sums of dy and dy xh in each channel of each image */
} groups;

static groups groups_of(const lt_tensor *x, const lt_attrs *attrs, const lt_op *op, int option) {
  int64_t n = x->shape.size[0], c = x->shape.size[1], count = lt_get_int(attrs, op, option);
  return (groups){.k = &lt_norm_kernels_of[x->ctx->simd][x->dtype],
                  .images = n,
                  .channels = c,
                  .count = count,
                  .size = c / count,
                  .s = last_sizes(&x->shape, x->shape.ndim - 2),
                  .bytes = lt_dtype_size((lt_dtype)x->dtype)};
}

static void forward_groups(void *argument, int64_t first, int64_t last) {
  const groups *w = argument;
  const lt_tensor *x = w->in[0], *weight = w->in[1], *bias = w->in[2];
  int64_t n = w->size * w->s;
  for (int64_t r = first; r < last; r++) {
    const char *row = x->data + r * n * w->bytes;
    char *y = w->out[0]->data + r * n * w->bytes;
    double sums[2] = {0}, mean, variance;
    double centre = lt_norm_centre(w->k, n, row, x->dtype);
    w->k->squares(n, row, centre, sums);
    lt_norm_moments(sums, centre, n, &mean, &variance);
    double rstd = 1 / sqrt(variance + w->eps);
    for (int64_t k = 0; k < w->size; k++) {
      int64_t channel = r % w->count * w->size + k, at = k * w->s * w->bytes;
      w->k->map(w->s, row + at, y + at, mean, rstd * lt_norm_load(weight, channel),
                bias ? lt_norm_load(bias, channel) : 0, NULL, NULL);
    }
    if (w->mean) lt_tensor_write(w->mean, r, mean);
    if (w->rstd) lt_tensor_write(w->rstd, r, rstd);
  }
}

static void backward_groups(void *argument, int64_t first, int64_t last) {
  const groups *w = argument;
  const lt_tensor *dy = w->in[LT_NORM_DY], *x = w->in[LT_NORM_X], *weight = w->in[LT_NORM_WEIGHT];
  double n = (double)(w->size * w->s);
  for (int64_t r = first; r < last; r++) {
    double mean = lt_tensor_read(w->mean, r), rstd = lt_tensor_read(w->rstd, r);
    double level = 0, slope = 0, *sums = w->sums + 2 * r * w->size;
    int64_t channel = r % w->count * w->size, at = r * w->size * w->s * w->bytes;
    int64_t step = w->s * w->bytes;
    for (int64_t k = 0; k < w->size; k++) {
      double scale = lt_norm_load(weight, channel + k);
      sums[2 * k] = sums[2 * k + 1] = 0;
      w->k->dots(w->s, dy->data + at + k * step, x->data + at + k * step, mean, rstd, NULL, NULL,
                 NULL, sums + 2 * k);
      level -= rstd * scale * sums[2 * k] / n;
      slope -= rstd * rstd * scale * sums[2 * k + 1] / n;
    }
    for (int64_t k = 0; w->want_dx && k < w->size; k++, at += step) {
      w->k->back(w->s, dy->data + at, x->data + at, w->out[0]->data + at, NULL, mean,
                 rstd * lt_norm_load(weight, channel + k), level, slope);
    }
  }
}

static lt_status group_norm_infer(lt_call *c) {
  const lt_shape *x = &c->in[0]->shape;
  int64_t count = lt_get_int(c->attrs, c->op, NUM_GROUPS);
  char text[LT_SHAPE_TEXT];
  if (x->ndim < 2 || count < 1 || x->size[1] % count != 0 || (count > 1 && count > x->size[1])) {
    return lt_fail(c->ctx,
                   "%s: x must be images x channels x ..., with channels divisible by num_groups = "
                   "%lld, got %s",
                   c->op->name, (long long)count, lt_shape_text(x, text));
  }
  lt_shape channels = lt_shape_make(1, x->size + 1);
  LT_TRY(lt_norm_check(c, 1, &channels));
  LT_TRY(lt_norm_check(c, 2, &channels));
  LT_TRY(lt_infer_same(c));
  if (!c->recorded) return LT_OK;
  c->outputs = 3;
  lt_shape stats = lt_shape_make(2, (int64_t[]){x->size[0], count});
  c->result[1] = c->result[2] = (lt_spec){c->dtype, stats};
  return LT_OK;
}

static lt_status group_norm_forward(lt_call *c) {
  lt_tensor *held[LT_NORM_HELD];
  LT_TRY(lt_norm_hold(c, held));
  groups w = groups_of(held[0], c->attrs, c->op, NUM_GROUPS);
  w.eps = lt_get_number(c->attrs, c->op, GROUP_EPS);
  w.in = held;
  w.out = c->out;
  if (c->outputs > 1) w.mean = c->out[1], w.rstd = c->out[2];
  lt_status status =
      lt_parallel(c->ctx, w.images * w.count, held[0]->numel * 3, forward_groups, &w);
  lt_norm_release(held);
  return status;
}

enum { BACKWARD_GROUPS = 1 };

static lt_status group_norm_backward_infer(lt_call *c) {
  lt_shape channels = lt_shape_make(1, c->in[LT_NORM_X]->shape.size + 1);
  return lt_norm_backward_infer(c, &channels);
}

static lt_status group_norm_backward_forward(lt_call *c) {
  int64_t wanted = lt_get_int(c->attrs, c->op, LT_NORM_WANTED);
  lt_tensor *held[LT_NORM_HELD];
  lt_block *block = NULL;
  LT_TRY(lt_norm_hold(c, held));
  groups w = groups_of(held[LT_NORM_X], c->attrs, c->op, BACKWARD_GROUPS);
  w.in = held;
  w.out = c->out;
  w.mean = held[LT_NORM_MEAN];
  w.rstd = held[LT_NORM_RSTD];
  w.want_dx = wanted & 1;
  lt_status status = lt_block_new(c->ctx, (2 * w.images * w.channels + 1) * 8, &block);
  if (status == LT_OK) {
    w.sums = block->data;
    status = lt_parallel(c->ctx, w.images * w.count, held[0]->numel * 4, backward_groups, &w);
  }
  for (int k = 1; k < 3 && status == LT_OK; k++) { /* dweight from the sums of dy xh, dbias of dy */
    for (int64_t channel = 0; wanted >> k & 1 && channel < w.channels; channel++) {
      double total = 0;
      for (int64_t i = 0; i < w.images; i++)
        total += w.sums[2 * (i * w.channels + channel) + 2 - k];
      lt_tensor_write(c->out[k], channel, total);
    }
  }
  if (block) lt_block_release(block);
  lt_norm_release(held);
  return status;
}

static void group_norm_backward_batch(lt_batch *b) { backward_batch(b, true); }

static void group_norm_backward_vjp(lt_vjp *v) {
  lt_shape x = lt_input_spec(v, LT_NORM_X).shape;
  int64_t count = lt_get_int(v->attrs, v->op, BACKWARD_GROUPS), size = x.size[1] / count;
  int64_t s = last_sizes(&x, x.ndim - 2);
  lt_norm_backward_vjp(
      v, &(lt_norm_view){.x = lt_shape_make(4, (int64_t[]){x.size[0], count, size, s}),
                         .weight = lt_shape_make(3, (int64_t[]){count, size, 1}),
                         .ndims = 2,
                         .dims = {2, 3},
                         .centred = true,
                         .eps = lt_get_number(v->attrs, v->op, BACKWARD_EPS)});
}

const lt_op lt_op_group_norm_backward = {
    .name = "group_norm_backward",
    .doc = "The gradients of group_norm, as layer_norm_backward's, with rows of groups.",
    .inputs = {{"dy", LT_FLOAT},
               {"x", LT_FLOAT},
               {"weight", LT_FLOAT, .optional = true},
               {"mean", LT_FLOAT},
               {"rstd", LT_FLOAT}},
    .options = {{"wanted", LT_OPTION_INT},
                {"num_groups", LT_OPTION_INT},
                {"eps", LT_OPTION_NUMBER}},
    .infer = group_norm_backward_infer,
    .forward = group_norm_backward_forward,
    .vjp = group_norm_backward_vjp,
    .batch = group_norm_backward_batch,
    .saves = LT_IN(0) | LT_IN(1) | LT_IN(2),
    .results = 3,
    .internal = true,
};

static void group_norm_vjp(lt_vjp *v) {
  const lt_op *op = &lt_op_group_norm_backward;
  lt_attrs attrs;
  lt_attrs_default(&attrs, op);
  lt_attrs_set_int(&attrs, op, BACKWARD_GROUPS, lt_get_int(v->attrs, v->op, NUM_GROUPS));
  lt_attrs_set_number(&attrs, op, BACKWARD_EPS, lt_get_number(v->attrs, v->op, GROUP_EPS));
  lt_norm_vjp(v, op, &attrs, 1, 2, v->out[1], v->out[2]);
}

static void group_norm_batch(lt_batch *b) { lt_batch_merge(b, b->in[0]->shape.ndim); }

const lt_op lt_op_group_norm = {
    .name = "group_norm",
    .doc = "y = (x - mean) / sqrt(var + eps) * weight + bias for x of N x C x ..., with mean and "
           "variance (dividing by n) over each of num_groups groups of channels in each image; "
           "weight and bias have C elements. Wu, He 2018, arXiv 1803.08494.",
    .inputs = {{"x", LT_FLOAT},
               {"weight", LT_FLOAT, .optional = true},
               {"bias", LT_FLOAT, .optional = true}},
    .options = {{"num_groups", LT_OPTION_INT, .required = true},
                {"eps", LT_OPTION_NUMBER, .value = 1e-5}},
    .infer = group_norm_infer,
    .forward = group_norm_forward,
    .vjp = group_norm_vjp,
    .batch = group_norm_batch,
    .saves = LT_IN(0) | LT_IN(1) | LT_OUT(1) | LT_OUT(2),
    .results = 3,
    .hidden = 2,
    .option_at = 2,
    .sample = {"normal(2, 4, 3), positive(4), normal(4), {num_groups = 2}",
               "normal(3, 4), positive(4), nil, {num_groups = 1, eps = 0.1}",
               "normal(1, 2, 2, 3), nil, normal(2), {num_groups = 2}",
               "transposed(2, 3, 2, 2), {num_groups = 3}"},
};

static lt_status instance_norm_infer(lt_call *c) {
  const lt_shape *x = &c->in[0]->shape;
  char text[LT_SHAPE_TEXT];
  if (x->ndim < 3 || last_sizes(x, x->ndim - 2) == 1) {
    return lt_fail(c->ctx,
                   "%s: x must be images x channels x ..., with more than one element in each "
                   "channel, got %s",
                   c->op->name, lt_shape_text(x, text));
  }
  lt_shape channels = lt_shape_make(1, x->size + 1);
  LT_TRY(lt_norm_check(c, 1, &channels));
  return lt_norm_check(c, 2, &channels);
}

static void instance_norm_compose(lt_call *c, lt_scope *s) {
  const lt_op *op = &lt_op_group_norm;
  int64_t channels = c->in[0]->shape.size[1];
  lt_attrs attrs;
  lt_attrs_default(&attrs, op);
  lt_attrs_set_int(&attrs, op, NUM_GROUPS, channels > 0 ? channels : 1);
  lt_attrs_set_number(&attrs, op, GROUP_EPS, lt_get_number(c->attrs, c->op, 0));
  c->out[0] = lt_do(s, op, &attrs, 3, c->in);
}

const lt_op lt_op_instance_norm = {
    .name = "instance_norm",
    .doc = "y = (x - mean) / sqrt(var + eps) * weight + bias for x of N x C x ..., with mean and "
           "variance (dividing by n) over each channel of each image; weight and bias have C "
           "elements. Ulyanov, Vedaldi, Lempitsky 2016, arXiv 1607.08022.",
    .inputs = {{"x", LT_FLOAT},
               {"weight", LT_FLOAT, .optional = true},
               {"bias", LT_FLOAT, .optional = true}},
    .options = {{"eps", LT_OPTION_NUMBER, .value = 1e-5}},
    .infer = instance_norm_infer,
    .compose = instance_norm_compose,
    .sample = {"normal(2, 3, 4), positive(3), normal(3)", "transposed(1, 2, 2, 3), {eps = 0.1}"},
};

LT_FAMILY(norm, &lt_op_layer_norm_backward, &lt_op_layer_norm, &lt_op_rms_norm,
          &lt_op_group_norm_backward, &lt_op_group_norm, &lt_op_instance_norm)
