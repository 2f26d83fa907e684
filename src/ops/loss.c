/* How pointwise losses run. One pass computes values tile by tile, multiplies them by the weight
 * and adds them up in double, over fixed chunks; the gradient is one elementwise op. */
#include "ops/loss.h"
#include "core/context.h"
#include "kernels/copy.h"
#include "kernels/loop.h"
#include "kernels/parallel.h"
#include "kernels/reduce.h"

#include <math.h>

/* ---- Reduction ---------------------------------------------------------------------------- */

lt_reduction lt_reduction_of(const lt_attrs *attrs, const lt_op *op) {
  return (lt_reduction)lt_get_int(attrs, op, LT_REDUCTION);
}

lt_attrs lt_with_reduction(const lt_attrs *attrs, const lt_op *op, lt_reduction reduction) {
  lt_attrs changed = *attrs;
  lt_attrs_set_int(&changed, op, LT_REDUCTION, reduction);
  return changed;
}

double lt_sum_parts(double *part, int64_t n) {
  if (n == 0) return 0;
  for (; n > 1; n = (n + 1) / 2) {
    for (int64_t i = 0; i < n / 2; i++) part[i] = part[2 * i] + part[2 * i + 1];
    if (n % 2) part[n / 2] = part[n - 1];
  }
  return part[0];
}

lt_tensor *lt_reduced(lt_scope *s, lt_tensor *y, lt_reduction reduction) {
  if (reduction == LT_NONE) return y;
  return lt_do1(s, reduction == LT_MEAN ? &lt_op_mean : &lt_op_sum, NULL, y);
}

lt_tensor *lt_step(lt_scope *s, const lt_op *comparison, lt_tensor *a, lt_tensor *b) {
  lt_tensor *holds = lt_do2(s, comparison, NULL, a, b);
  return holds ? lt_to_dtype(s, holds, (lt_dtype)a->dtype) : NULL;
}

lt_status lt_check_range(const lt_call *c, int i, double low, double high) {
  const lt_tensor *x = c->in[i];
  lt_loop loop;
  int64_t offset[LT_LOOP_OPERANDS];
  lt_loop_build(&loop, &x->shape, 1, (const int64_t *const[]){x->strides});
  for (int64_t row = 0; x->numel > 0 && row < loop.rows; row++) {
    lt_loop_row(&loop, row, offset);
    for (int64_t j = 0; j < loop.length; j++) {
      double value = lt_tensor_read(x, offset[0] + j * loop.step[0]);
      if (!(value < low || value > high)) continue;
      return lt_fail(c->ctx, "%s: %s %g at element %lld is outside %g..%g", c->op->name,
                     c->op->inputs[i].name, value, (long long)(row * loop.length + j + 1), low,
                     high);
    }
  }
  return LT_OK;
}

/* ---- The pass ------------------------------------------------------------------------------- */

/* Elements of a row that one task takes, and of those that it computes at once. */
enum { CHUNK = 1 << 14, TILE = 512, OPERANDS = LT_TILE_INPUTS + 1 };

LT_KERNEL_2(weigh, value, weight, value *weight)

typedef struct work {
  lt_loop loop; /* over the values, the operands and the weight */
  lt_tile *tile, *weigh;
  lt_fold_row *sum;
  lt_dtype dtype;
  int operands;                /* the weight included */
  bool weighted;               /* the last one is the weight */
  const char *base[OPERANDS];  /* first elements */
  lt_dtype stored[OPERANDS];   /* their types */
  const double *k;             /* the options */
  char *y;                     /* NULL: these are wanted: */
  double *part, *weights_part; /* sums of each task */
  int64_t chunks;              /* tasks for a row, */
  int64_t rows;                /* or rows for a task */
} work;

/* n elements of operand j from `at` in its row on, as `dtype`; in `buffer` if not as they lie. */
static void *operand(const work *w, int j, const int64_t *offset, int64_t at, int64_t n,
                     void *buffer) {
  int64_t step = w->loop.step[1 + j];
  const char *from = w->base[j] + (offset[1 + j] + at * step) * lt_dtype_size(w->stored[j]);
  if (w->stored[j] == w->dtype && step == 1) return (void *)(uintptr_t)from;
  lt_convert(n, w->dtype, buffer, 1, w->stored[j], from, step);
  return buffer;
}

/* Elements at..end-1 of a row. */
static void compute(const work *w, const int64_t *offset, int64_t at, int64_t end, lt_cell *sum,
                    lt_cell *weights) {
  _Alignas(64) char buffer[OPERANDS + 2][TILE * sizeof(double)];
  void *p[1 + OPERANDS];
  for (; at < end; at += TILE) {
    int64_t n = end - at < TILE ? end - at : TILE;
    char *y = w->y ? w->y + (offset[0] + at) * lt_dtype_size(w->dtype) : buffer[OPERANDS];
    for (int j = 0; j < w->operands; j++) p[1 + j] = operand(w, j, offset, at, n, buffer[j]);
    p[0] = w->weighted ? buffer[OPERANDS + 1] : y;
    w->tile(n, p, w->k);
    if (w->weighted) w->weigh(n, (void *[]){y, p[0], p[w->operands]}, w->k);
    if (w->part) w->sum(n, y, 0, sum, NULL);
    if (w->weights_part) w->sum(n, p[w->operands], 0, weights, NULL);
  }
}

static void task(void *argument, int64_t first, int64_t last) {
  const work *w = argument;
  int64_t offset[LT_LOOP_OPERANDS];
  for (int64_t t = first; t < last; t++) {
    lt_cell sum = {.f = 0}, weights = {.f = 0};
    int64_t at = t % w->chunks * CHUNK, row = t / w->chunks * w->rows, end_row = row + w->rows;
    int64_t end = at + CHUNK < w->loop.length ? at + CHUNK : w->loop.length;
    if (end_row > w->loop.rows) end_row = w->loop.rows;
    for (; row < end_row; row++) {
      lt_loop_row(&w->loop, row, offset);
      compute(w, offset, at, end, &sum, &weights);
    }
    if (w->part) w->part[t] = sum.f;
    if (w->weights_part) w->weights_part[t] = weights.f;
  }
}

static lt_shape values_shape(const lt_call *c) {
  lt_shape shape = c->in[0]->shape;
  for (int i = 1; i < c->inputs; i++) {
    if (c->in[i]) lt_shape_broadcast(&shape, &c->in[i]->shape);
  }
  return shape;
}

lt_status lt_loss_infer(lt_call *c) {
  LT_TRY(lt_infer_elementwise(c));
  LT_TRY(lt_shape_check(c->ctx, c->op->name, &c->result[0].shape));
  if (!lt_dtype_is_float(c->dtype)) c->result[0].dtype = c->dtype = c->ctx->default_dtype;
  if (lt_reduction_of(c->attrs, c->op) != LT_NONE) c->result[0].shape.ndim = 0;
  return LT_OK;
}

lt_status lt_loss_infer_alike(lt_call *c) {
  const lt_shape *x = &c->in[0]->shape, *target = &c->in[1]->shape;
  char a[LT_SHAPE_TEXT], b[LT_SHAPE_TEXT];
  if (!lt_shape_equal(x, target)) {
    return lt_fail(c->ctx, "%s: input and target must have the same shape, got %s and %s",
                   c->op->name, lt_shape_text(x, a), lt_shape_text(target, b));
  }
  LT_TRY(lt_loss_infer(c));
  lt_shape values = values_shape(c);
  if (lt_shape_equal(x, &values)) return LT_OK;
  return lt_fail(c->ctx, "%s: weights must broadcast to input's shape %s, but make it %s",
                 c->op->name, lt_shape_text(x, a), lt_shape_text(&values, b));
}

/* The operands in order, then the weight. */
static void plan(const lt_call *c, const lt_loss *loss, const lt_shape *shape, work *w) {
  int64_t strides[1 + OPERANDS][LT_MAX_RANK];
  const int64_t *lists[1 + OPERANDS] = {strides[0]};
  const lt_tensor *operands[OPERANDS], *weight = loss->weight > 0 ? c->in[loss->weight] : NULL;
  bool flat = true; /* all lie alike: most do */
  for (int i = 0; i < c->inputs; i++) {
    if (c->in[i] && !(weight && i == loss->weight)) operands[w->operands++] = c->in[i];
  }
  w->weighted = weight != NULL;
  if (weight) operands[w->operands++] = weight;
  for (int j = 0; j < w->operands; j++) {
    w->base[j] = operands[j]->data;
    w->stored[j] = (lt_dtype)operands[j]->dtype;
    flat = flat && operands[j]->contiguous && lt_shape_equal(&operands[j]->shape, shape);
  }
  if (flat) {
    w->loop.operands = 1 + w->operands;
    w->loop.length = lt_shape_numel(shape);
    w->loop.rows = 1;
    for (int j = 0; j <= w->operands; j++) w->loop.step[j] = 1;
  } else {
    lt_shape_strides(shape, strides[0]);
    for (int j = 0; j < w->operands; j++) {
      lt_broadcast_strides(&operands[j]->shape, operands[j]->strides, shape, strides[1 + j]);
      lists[1 + j] = strides[1 + j];
    }
    lt_loop_build(&w->loop, shape, 1 + w->operands, lists);
  }
  w->chunks = (w->loop.length + CHUNK - 1) / CHUNK;
  w->rows = w->chunks > 1 || w->loop.length == 0 ? 1 : CHUNK / w->loop.length;
}

/* What the sum of the values is divided by; `count` of them, or the sum of their weights. */
static double divisor(const lt_attrs *attrs, const lt_op *op, const lt_shape *input, double count) {
  switch (lt_reduction_of(attrs, op)) {
  case LT_MEAN: return count;
  case LT_BATCHMEAN: return input->ndim > 0 ? (double)input->size[0] : 1;
  default: return 1;
  }
}

lt_status lt_loss_forward(lt_call *c, const lt_loss *loss, const lt_kernel *kernel) {
  lt_simd simd = c->ctx->simd;
  double k[LT_MAX_OPTIONS] = {0}, few[2] = {0};
  work w = {.tile = kernel->tile[simd][c->dtype],
            .weigh = weigh_kernel.tile[simd][c->dtype],
            .sum = lt_fold_sum.row[simd][c->dtype],
            .dtype = c->dtype,
            .k = k};
  for (int i = 0; i < LT_MAX_OPTIONS && c->op->options[i].name; i++) {
    k[i] = c->op->options[i].type == LT_OPTION_NUMBER ? lt_get_number(c->attrs, c->op, i)
                                                      : (double)lt_get_int(c->attrs, c->op, i);
  }
  lt_shape shape = values_shape(c);
  plan(c, loss, &shape, &w);
  int64_t count = lt_shape_numel(&shape), tasks = 0;
  if (count > 0) tasks = (w.loop.rows * w.chunks + w.rows - 1) / w.rows;
  bool none = lt_reduction_of(c->attrs, c->op) == LT_NONE;
  lt_tensor *parts = NULL;
  if (none) w.y = c->out[0]->data;
  if (!none || loss->check) w.part = few;
  if (w.part && tasks > 1) {
    LT_TRY(lt_tensor_new(c->ctx, c->op->name, LT_FLOAT64, &(lt_shape){2, {2, tasks}}, &parts));
    w.part = (double *)(void *)parts->data;
  }
  if (!none && loss->over_weights && w.weighted) w.weights_part = w.part + (tasks > 1 ? tasks : 1);
  lt_status status = lt_parallel(c->ctx, tasks, count * 4, task, &w);
  if (status == LT_OK && w.part) {
    double sum = lt_sum_parts(w.part, tasks), over = (double)count;
    if (w.weights_part) over = lt_sum_parts(w.weights_part, tasks);
    if (!none) {
      lt_tensor_write(c->out[0], 0, sum / divisor(c->attrs, c->op, &c->in[0]->shape, over));
    }
    if (loss->check && isnan(sum)) status = loss->check(c);
  }
  lt_tensor_release(parts);
  return status;
}

/* ---- Rules ---------------------------------------------------------------------------------- */

/* The operands of a loss among its inputs. Returns how many; operand k is input at[k]. */
static int operands_of(const lt_vjp *v, const lt_loss *loss, lt_tensor **x, int *at) {
  int n = 0;
  for (int i = 0; i < v->inputs; i++) {
    if (!v->in[i] || (loss->weight > 0 && i == loss->weight)) continue;
    x[n] = v->in[i];
    at[n++] = i;
  }
  return n;
}

static void give_zeros(lt_vjp *v, int i) {
  lt_spec spec = lt_input_spec(v, i);
  lt_give(v, i, lt_full_like(v->s, &spec, 0));
}

/* The values, unweighted and unreduced. */
static lt_tensor *values(lt_vjp *v, const lt_loss *loss) {
  lt_attrs attrs = lt_with_reduction(v->attrs, v->op, LT_NONE);
  lt_tensor *in[LT_MAX_INPUTS];
  for (int i = 0; i < v->inputs; i++) in[i] = i == loss->weight ? NULL : v->in[i];
  return lt_do(v->s, v->op, &attrs, v->inputs, in);
}

/* The gradient of a weight: the gradient g of the sum times the values; less their mean where the
 * weights are divided by. */
static void give_weight(lt_vjp *v, const lt_loss *loss, lt_tensor *g, lt_tensor *total) {
  lt_scope *s = v->s;
  lt_tensor *y = values(v, loss), *weight = v->in[loss->weight];
  if (total) {
    lt_tensor *sum = lt_sum_to(s, lt_mul(s, y, weight), &(lt_shape){0});
    y = lt_sub(s, y, lt_div(s, sum, total));
  }
  lt_give(v, loss->weight, lt_mul(s, g, y));
}

void lt_loss_vjp(lt_vjp *v, const lt_loss *loss, const lt_op *backward) {
  lt_scope *s = v->s;
  lt_tensor *in[1 + LT_TILE_INPUTS], **x = in + 1, *total = NULL, *g = v->dy[0];
  lt_tensor *weight = loss->weight > 0 ? v->in[loss->weight] : NULL;
  lt_shape shape = v->in[0]->shape;
  int at[LT_TILE_INPUTS], operands = operands_of(v, loss, x, at);
  for (int i = 1; i < v->inputs; i++) {
    if (v->in[i]) lt_shape_broadcast(&shape, &v->in[i]->shape);
  }
  double count = (double)lt_shape_numel(&shape);
  if (weight && loss->over_weights && lt_reduction_of(v->attrs, v->op) == LT_MEAN) {
    total = lt_sum_to(s, weight, &(lt_shape){0}); /* of the weights as they broadcast */
    if (weight->numel != (int64_t)count) total = lt_scale(s, total, count / (double)weight->numel);
    g = lt_div(s, g, total);
  } else {
    double over = divisor(v->attrs, v->op, &v->in[0]->shape, count);
    if (over != 1) g = lt_scale(s, g, 1 / over);
  }
  in[0] = weight ? lt_mul(s, g, weight) : g;
  if (v->need[0] || (loss->difference && v->need[1])) {
    lt_tensor *dx = lt_do(s, backward, v->attrs, 1 + operands, in);
    if (v->need[0]) lt_give(v, 0, dx);
    if (loss->difference && v->need[1]) lt_give(v, 1, lt_neg(s, dx));
  }
  for (int k = loss->difference ? 2 : 1; k < operands; k++) {
    if (!v->need[at[k]]) continue;
    if (loss->slope)
      lt_give(v, at[k], lt_mul(s, in[0], loss->slope(v, x, k)));
    else
      give_zeros(v, at[k]);
  }
  if (weight && v->need[loss->weight]) give_weight(v, loss, g, total);
}

void lt_loss_backward_vjp(lt_vjp *v, const lt_loss *loss) {
  lt_scope *s = v->s;
  lt_tensor *u = v->dy[0], *const *x = v->in + 1;
  if (v->need[0]) {
    lt_tensor *in[1 + LT_TILE_INPUTS] = {u};
    for (int i = 1; i < v->inputs; i++) in[i] = v->in[i];
    lt_give(v, 0, lt_do(s, v->op, v->attrs, v->inputs, in));
  }
  lt_tensor *curve = NULL, *h = loss->curve ? lt_mul(s, u, v->in[0]) : NULL;
  bool difference = loss->difference && (v->need[1] || v->need[2]);
  if (loss->curve && (difference || v->need[1])) curve = loss->curve(v, x, 0);
  if (v->need[1]) curve ? lt_give(v, 1, lt_mul(s, h, curve)) : give_zeros(v, 1);
  if (difference && v->need[2]) {
    curve ? lt_give(v, 2, lt_neg(s, lt_mul(s, h, curve))) : give_zeros(v, 2);
  }
  for (int i = loss->difference ? 2 : 1; i < v->inputs - 1; i++) {
    if (!v->need[1 + i]) continue;
    curve = loss->curve ? loss->curve(v, x, i) : NULL;
    curve ? lt_give(v, 1 + i, lt_mul(s, h, curve)) : give_zeros(v, 1 + i);
  }
}

/* Of each sample: all dims but the first. */
static lt_tensor *sum_samples(lt_scope *s, lt_tensor *y) {
  int64_t dims[LT_MAX_RANK];
  if (!y || y->shape.ndim < 2) return y;
  for (int d = 1; d < y->shape.ndim; d++) dims[d - 1] = d;
  return lt_sum_over(s, y, y->shape.ndim - 1, dims, false);
}

/* The values of all samples in one run; then each sample's are reduced. */
void lt_loss_batch(lt_batch *b, const lt_loss *loss) {
  lt_scope *s = b->s;
  lt_reduction reduction = lt_reduction_of(b->attrs, b->op);
  lt_attrs attrs = lt_with_reduction(b->attrs, b->op, LT_NONE);
  lt_shape sample = b->in[0]->shape;
  lt_tensor *in[LT_MAX_INPUTS];
  for (int i = 1; i < b->inputs; i++) {
    if (b->in[i]) lt_shape_broadcast(&sample, &b->in[i]->shape);
  }
  for (int i = 0; i < b->inputs; i++) {
    in[i] = b->in[i];
    if (!b->in[i] || (i > 1 && !b->over[i])) continue;
    lt_shape own = b->in[i]->shape, aligned = {.ndim = sample.ndim};
    for (int d = 0; d < sample.ndim; d++) {
      int from = d - (sample.ndim - own.ndim);
      aligned.size[d] = from < 0 ? 1 : own.size[from];
    }
    lt_tensor *all = lt_batch_in(b, i); /* fails where a dimension is too many */
    aligned = lt_batch_shape(b, &aligned);
    in[i] = lt_reshape_to(s, all, &aligned);
  }
  lt_tensor *y = lt_do(s, b->op, &attrs, b->inputs, in);
  if (reduction != LT_NONE && y) {
    lt_tensor *weight = loss->over_weights ? in[loss->weight] : NULL, *total = NULL;
    double count = (double)lt_shape_numel(&sample);
    double over = divisor(b->attrs, b->op, &b->in[0]->shape, count);
    if (weight && reduction == LT_MEAN) {
      total = sum_samples(s, lt_expand_to(s, weight, &y->shape));
    }
    y = sum_samples(s, y);
    y = total ? lt_div(s, y, total) : over != 1 ? lt_scale(s, y, 1 / over) : y;
  }
  lt_batch_give(b, y);
}
