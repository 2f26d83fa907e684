/* batch_norm: each channel normalised over the batch. A channel is a task; its segments, one per
 * image, lie in N x C x S, and in C x NS where they would be too short to be worth a call. */
#include "core/context.h"
#include "kernels/parallel.h"
#include "ops/family.h"
#include "ops/norm.h"
#include "tape/assign.h"
#include "tape/vmap.h"

#include <math.h>

enum { X, RUNNING_MEAN, RUNNING_VAR, WEIGHT, BIAS };
enum { TRAINING, MOMENTUM, EPS };
enum { SHORT = 32 }; /* segments of fewer elements are put together first */

/* Element (image i, channel c, e) is number i * apart + c * next + e. */
typedef struct channels {
  const lt_norm_kernels *k;
  int64_t count, images, length; /* segments of a channel, and their elements */
  int64_t apart, next;
  int64_t total; /* elements of a channel */
  int64_t bytes;
  uint8_t dtype;
  bool training;
  double eps;
  const char *x, *dy;
  char *y, *dx;
  const lt_tensor *weight, *bias;
  lt_tensor *mean, *rstd; /* kept, or NULL; inputs of the backward pass */
  const lt_tensor *running_mean, *running_var;
  double *moments; /* mean and variance of each channel, in training */
  lt_tensor *dweight, *dbias;
} channels;

static int64_t elements_per_channel(const lt_shape *x) {
  int64_t n = 1;
  for (int d = 2; d < x->ndim; d++) n *= x->size[d];
  return n;
}

/* N x C x S, or C x N x S where S is short. */
static bool is_short(const lt_tensor *x) { return elements_per_channel(&x->shape) < SHORT; }

static channels channels_of(const lt_tensor *x) {
  int64_t s = elements_per_channel(&x->shape), n = x->shape.size[0], c = x->shape.size[1];
  channels w = {.k = &lt_norm_kernels_of[x->ctx->simd][x->dtype],
                .count = c,
                .images = n,
                .length = s,
                .apart = c * s,
                .next = s,
                .total = n * s,
                .bytes = lt_dtype_size((lt_dtype)x->dtype),
                .dtype = x->dtype};
  if (is_short(x)) w.images = 1, w.length = w.next = n * s, w.apart = 0;
  return w;
}

/* x with its first two dimensions swapped, a view. */
static lt_status swapped(const lt_tensor *x, lt_tensor **result) {
  lt_shape shape = x->shape;
  int64_t strides[LT_MAX_RANK];
  for (int d = 0; d < shape.ndim; d++) strides[d] = x->strides[d];
  shape.size[0] = x->shape.size[1], shape.size[1] = x->shape.size[0];
  strides[0] = x->strides[1], strides[1] = x->strides[0];
  return lt_tensor_view(x, 0, &shape, strides, result);
}

/* x in the order of channels_of, not recorded. */
static lt_status arranged(lt_tensor *x, lt_tensor **result) {
  if (!is_short(x)) return lt_tensor_contiguous(x, result);
  lt_tensor *view;
  LT_TRY(swapped(x, &view));
  lt_status status = lt_tensor_contiguous(view, result);
  lt_tensor_release(view);
  return status;
}

/* Where a result like y is to be written; into y itself, or put there by lay_down. */
static lt_status room_for(lt_tensor *y, lt_tensor **result) {
  if (!is_short(y)) {
    *result = lt_tensor_retain(y);
    return LT_OK;
  }
  lt_shape shape = y->shape;
  shape.size[0] = y->shape.size[1], shape.size[1] = y->shape.size[0];
  return lt_tensor_new(y->ctx, "batch_norm", (lt_dtype)y->dtype, &shape, result);
}
static lt_status lay_down(lt_tensor *y, const lt_tensor *room) {
  if (!is_short(y)) return LT_OK;
  lt_tensor *view;
  LT_TRY(swapped(y, &view));
  lt_status status = lt_tensor_copy(view, room);
  lt_tensor_release(view);
  return status;
}

/* ---- Forward -----------------------------------------------------------------------------------
 */

static double element(const lt_tensor *t, int64_t i) {
  return lt_tensor_read(t, i * t->strides[0]);
}

static void forward_task(void *argument, int64_t first, int64_t last) {
  const channels *w = argument;
  for (int64_t c = first; c < last; c++) {
    double mean, variance;
    int64_t step = w->apart * w->bytes, at = c * w->next * w->bytes;
    if (w->training) {
      double sum = 0, sums[2] = {0};
      for (int64_t i = 0; i < w->images; i++) sum += w->k->sum(w->length, w->x + at + i * step);
      double centre = lt_norm_rounded(sum / (double)w->total, w->dtype);
      for (int64_t i = 0; i < w->images; i++) {
        w->k->squares(w->length, w->x + at + i * step, centre, sums);
      }
      lt_norm_moments(sums, centre, w->total, &mean, &variance);
      w->moments[2 * c] = mean;
      w->moments[2 * c + 1] = variance;
    } else {
      mean = element(w->running_mean, c);
      variance = element(w->running_var, c);
    }
    double rstd = 1 / sqrt(variance + w->eps);
    double scale = w->weight ? rstd * element(w->weight, c) : rstd;
    double shift = w->bias ? element(w->bias, c) : 0;
    for (int64_t i = 0; i < w->images; i++) {
      w->k->map(w->length, w->x + at + i * step, w->y + at + i * step, mean, scale, shift, NULL,
                NULL);
    }
    if (w->mean) lt_tensor_write(w->mean, c, mean);
    if (w->rstd) lt_tensor_write(w->rstd, c, rstd);
  }
}

/* running = (1 - momentum) running + momentum now; of the variance that divides by n - 1. */
static lt_status update(lt_call *c, const channels *w) {
  double momentum = lt_get_number(c->attrs, c->op, MOMENTUM);
  for (int k = 0; k < 2; k++) {
    lt_tensor *t = c->in[RUNNING_MEAN + k];
    double unbiased = k == 0 ? 1 : (double)w->total / (double)(w->total - 1);
    if (!t) continue;
    for (int64_t i = 0; i < w->count; i++) {
      double now = w->moments[2 * i + k] * unbiased;
      lt_tensor_write(t, i * t->strides[0], (1 - momentum) * element(t, i) + momentum * now);
    }
    LT_TRY(lt_assign_end(c->ctx, t, NULL));
  }
  return LT_OK;
}

static lt_status check_running(lt_call *c, bool training, const lt_shape *shape) {
  for (int i = RUNNING_MEAN; i <= RUNNING_VAR; i++) {
    const lt_tensor *t = c->in[i];
    char text[LT_SHAPE_TEXT], wanted[LT_SHAPE_TEXT];
    if (!t && !training) {
      return lt_fail(c->ctx, "batch_norm: without training it needs running_mean and running_var");
    }
    if (!t) continue;
    if (!lt_shape_equal(&t->shape, shape)) {
      return lt_fail(c->ctx, "batch_norm: %s must be of %s, got %s", c->op->inputs[i].name,
                     lt_shape_text(shape, wanted), lt_shape_text(&t->shape, text));
    }
    if (training) LT_TRY(lt_assign_begin(c->ctx, t, "batch_norm"));
  }
  return LT_OK;
}

static lt_status batch_norm_infer(lt_call *c) {
  const lt_shape *x = &c->in[X]->shape;
  bool training = lt_get_int(c->attrs, c->op, TRAINING) != 0;
  char text[LT_SHAPE_TEXT];
  if (x->ndim < 2) {
    return lt_fail(c->ctx, "batch_norm: x must be images x channels x ..., got %s",
                   lt_shape_text(x, text));
  }
  lt_shape shape = lt_shape_make(1, x->size + 1);
  LT_TRY(lt_norm_check(c, WEIGHT, &shape));
  LT_TRY(lt_norm_check(c, BIAS, &shape));
  LT_TRY(check_running(c, training, &shape));
  if (training && x->size[0] * elements_per_channel(x) == 1) {
    return lt_fail(c->ctx,
                   "batch_norm: training needs more than one element in each channel, got %s",
                   lt_shape_text(x, text));
  }
  LT_TRY(lt_infer_same(c));
  if (!c->recorded) return LT_OK;
  c->outputs = 3;
  c->result[1] = c->result[2] = (lt_spec){c->dtype, shape};
  return LT_OK;
}

static lt_status batch_norm_forward(lt_call *c) {
  lt_tensor *x = NULL, *y = NULL;
  lt_block *block = NULL;
  channels w = channels_of(c->in[X]);
  w.training = lt_get_int(c->attrs, c->op, TRAINING) != 0;
  w.eps = lt_get_number(c->attrs, c->op, EPS);
  w.weight = c->in[WEIGHT], w.bias = c->in[BIAS];
  w.running_mean = c->in[RUNNING_MEAN], w.running_var = c->in[RUNNING_VAR];
  if (c->outputs > 1) w.mean = c->out[1], w.rstd = c->out[2];
  lt_status status = lt_block_new(c->ctx, (2 * w.count + 1) * 8, &block);
  if (status == LT_OK) status = arranged(c->in[X], &x);
  if (status == LT_OK) status = room_for(c->out[0], &y);
  if (status == LT_OK) {
    w.moments = block->data;
    w.x = x->data;
    w.y = y->data;
    status = lt_parallel(c->ctx, w.count, c->in[X]->numel * 3, forward_task, &w);
  }
  if (status == LT_OK) status = lay_down(c->out[0], y);
  if (status == LT_OK && w.training && w.total > 0) status = update(c, &w);
  lt_tensor_release(y);
  lt_tensor_release(x);
  if (block) lt_block_release(block);
  return status;
}

/* ---- Backward ----------------------------------------------------------------------------------
 */

enum { BACKWARD_TRAINING = 1, BACKWARD_EPS };

static void backward_task(void *argument, int64_t first, int64_t last) {
  const channels *w = argument;
  for (int64_t c = first; c < last; c++) {
    double sums[2] = {0}, mean = element(w->mean, c), rstd = element(w->rstd, c);
    int64_t step = w->apart * w->bytes, at = c * w->next * w->bytes;
    if (w->training || w->dweight || w->dbias) {
      for (int64_t i = 0; i < w->images; i++) {
        w->k->dots(w->length, w->dy + at + i * step, w->x + at + i * step, mean, rstd, NULL, NULL,
                   NULL, sums);
      }
    }
    if (w->dweight) lt_tensor_write(w->dweight, c, sums[1]);
    if (w->dbias) lt_tensor_write(w->dbias, c, sums[0]);
    double factor = w->weight ? rstd * element(w->weight, c) : rstd, level = 0, slope = 0;
    if (w->training) {
      level = -factor * sums[0] / (double)w->total;
      slope = -factor * rstd * sums[1] / (double)w->total;
    }
    for (int64_t i = 0; w->dx && i < w->images; i++) {
      w->k->back(w->length, w->dy + at + i * step, w->x + at + i * step, w->dx + at + i * step,
                 NULL, mean, factor, level, slope);
    }
  }
}

static lt_status batch_norm_backward_infer(lt_call *c) {
  lt_shape shape = lt_shape_make(1, c->in[LT_NORM_X]->shape.size + 1);
  return lt_norm_backward_infer(c, &shape);
}

static lt_status batch_norm_backward_forward(lt_call *c) {
  int64_t wanted = lt_get_int(c->attrs, c->op, LT_NORM_WANTED);
  lt_tensor *x = NULL, *dy = NULL, *dx = NULL;
  channels w = channels_of(c->in[LT_NORM_X]);
  w.training = lt_get_int(c->attrs, c->op, BACKWARD_TRAINING) != 0;
  w.weight = c->in[LT_NORM_WEIGHT];
  w.mean = c->in[LT_NORM_MEAN], w.rstd = c->in[LT_NORM_RSTD];
  if (wanted >> LT_NORM_DWEIGHT & 1) w.dweight = c->out[LT_NORM_DWEIGHT];
  if (wanted >> LT_NORM_DBIAS & 1) w.dbias = c->out[LT_NORM_DBIAS];
  lt_status status = arranged(c->in[LT_NORM_X], &x);
  if (status == LT_OK) status = arranged(c->in[LT_NORM_DY], &dy);
  if (status == LT_OK && wanted & 1) status = room_for(c->out[LT_NORM_DX], &dx);
  if (status == LT_OK) {
    w.x = x->data;
    w.dy = dy->data;
    w.dx = dx ? dx->data : NULL;
    status = lt_parallel(c->ctx, w.count, x->numel * 4, backward_task, &w);
  }
  if (status == LT_OK && dx) status = lay_down(c->out[LT_NORM_DX], dx);
  lt_tensor_release(dx);
  lt_tensor_release(dy);
  lt_tensor_release(x);
  return status;
}

static void batch_norm_backward_vjp(lt_vjp *v) {
  lt_shape x = lt_input_spec(v, LT_NORM_X).shape;
  int64_t n = x.size[0], c = x.size[1], s = elements_per_channel(&x);
  lt_norm_backward_vjp(v, &(lt_norm_view){.x = lt_shape_make(3, (int64_t[]){n, c, s}),
                                          .weight = lt_shape_make(2, (int64_t[]){c, 1}),
                                          .stats = lt_shape_make(2, (int64_t[]){c, 1}),
                                          .ndims = 2,
                                          .dims = {0, 2},
                                          .centred = true,
                                          .fixed = !lt_get_int(v->attrs, v->op, BACKWARD_TRAINING),
                                          .eps = lt_get_number(v->attrs, v->op, BACKWARD_EPS)});
}

const lt_op lt_op_batch_norm_backward = {
    .name = "batch_norm_backward",
    .doc = "The gradients of batch_norm, as layer_norm_backward's, with channels for rows; without "
           "training dx = dy weight rstd.",
    .inputs = {{"dy", LT_FLOAT},
               {"x", LT_FLOAT},
               {"weight", LT_FLOAT, .optional = true},
               {"mean", LT_FLOAT},
               {"rstd", LT_FLOAT}},
    .options = {{"wanted", LT_OPTION_INT}, {"training", LT_OPTION_BOOL}, {"eps", LT_OPTION_NUMBER}},
    .infer = batch_norm_backward_infer,
    .forward = batch_norm_backward_forward,
    .vjp = batch_norm_backward_vjp,
    .batch = lt_batch_each,
    .saves = LT_IN(0) | LT_IN(1) | LT_IN(2) | LT_IN(3) | LT_IN(4),
    .results = 3,
    .internal = true,
};

static void batch_norm_vjp(lt_vjp *v) {
  const lt_op *op = &lt_op_batch_norm_backward;
  lt_attrs attrs;
  lt_attrs_default(&attrs, op);
  lt_attrs_set_int(&attrs, op, BACKWARD_TRAINING, lt_get_int(v->attrs, v->op, TRAINING));
  lt_attrs_set_number(&attrs, op, BACKWARD_EPS, lt_get_number(v->attrs, v->op, EPS));
  lt_norm_vjp(v, op, &attrs, WEIGHT, BIAS, v->out[1], v->out[2]);
}

static void batch_norm_batch(lt_batch *b) {
  bool running = b->in[RUNNING_MEAN] || b->in[RUNNING_VAR];
  if (lt_get_int(b->attrs, b->op, TRAINING) && running)
    b->s->status = lt_fail(b->ctx, "batch_norm: inside vmap running_mean and running_var cannot be "
                                   "updated; leave them out");
  else
    lt_batch_each(b);
}

const lt_op lt_op_batch_norm = {
    .name = "batch_norm",
    .doc = "y = (x - mean) / sqrt(var + eps) * weight + bias for x of N x C x ..., channel by "
           "channel; the other tensors have C elements. With training, mean and variance (dividing "
           "by n) are the batch's, and running_mean and running_var, where given, are updated in "
           "place: running = (1 - momentum) running + momentum now, with the variance that divides "
           "by n - 1. Without, they are running_mean and running_var, which get no gradient. "
           "Ioffe, Szegedy 2015, arXiv 1502.03167.",
    .inputs = {{"x", LT_FLOAT},
               {"running_mean", LT_FLOAT, .optional = true},
               {"running_var", LT_FLOAT, .optional = true},
               {"weight", LT_FLOAT, .optional = true},
               {"bias", LT_FLOAT, .optional = true}},
    .options = {{"training", LT_OPTION_BOOL},
                {"momentum", LT_OPTION_NUMBER, .value = 0.1},
                {"eps", LT_OPTION_NUMBER, .value = 1e-5}},
    .infer = batch_norm_infer,
    .forward = batch_norm_forward,
    .vjp = batch_norm_vjp,
    .batch = batch_norm_batch,
    .saves = LT_IN(X) | LT_IN(WEIGHT) | LT_OUT(1) | LT_OUT(2),
    .results = 3,
    .hidden = 2,
    .sample = {"normal(5, 3), nil, nil, positive(3), normal(3), {training = true}",
               "normal(2, 2, 3, 4), nil, nil, positive(2), nil, {training = true, eps = 0.1}",
               "transposed(2, 3, 4), {training = true}"},
};

LT_FAMILY(batch_norm, &lt_op_batch_norm_backward, &lt_op_batch_norm)
