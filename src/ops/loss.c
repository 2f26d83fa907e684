/* Losses on numbers. The mean and the sum are taken in the same pass, in double, over fixed
 * chunks. */
#include "ops/loss.h"
#include "core/context.h"
#include "kernels/copy.h"
#include "kernels/loop.h"
#include "kernels/parallel.h"
#include "ops/family.h"
#include "tape/vjp.h"

double lt_sum_parts(double *part, int64_t n) {
  if (n == 0) return 0;
  for (; n > 1; n = (n + 1) / 2) {
    for (int64_t i = 0; i < n / 2; i++) part[i] = part[2 * i] + part[2 * i + 1];
    if (n % 2) part[n / 2] = part[n - 1];
  }
  return part[0];
}

/* ---- mse_loss ----------------------------------------------------------------------------- */

enum { REDUCTION };

/* Elements of a row that one task takes, and of those that it converts at once. */
enum { CHUNK = 1 << 14, TILE = 256 };

typedef struct squares {
  lt_loop loop; /* over y (with reduction none), input and target */
  const char *data[2];
  lt_dtype stored[2], dtype;
  char *y;      /* NULL: `part` is wanted */
  double *part; /* one per task */
  int64_t chunks;
} squares;

/* The squares of n differences: into y, or summed. */
#define SQUARES(NAME, T)                                                                           \
  static double NAME(int64_t n, const void *a_data, const void *b_data, void *y_data) {            \
    const T *a = a_data, *b = b_data;                                                              \
    T *y = y_data;                                                                                 \
    double lane[8] = {0};                                                                          \
    int64_t i = 0;                                                                                 \
    for (; y && i < n; i++) y[i] = (a[i] - b[i]) * (a[i] - b[i]);                                  \
    for (; i + 8 <= n; i += 8) {                                                                   \
      for (int l = 0; l < 8; l++) {                                                                \
        double d = a[i + l] - b[i + l];                                                            \
        lane[l] += d * d;                                                                          \
      }                                                                                            \
    }                                                                                              \
    for (; i < n; i++) lane[0] += (double)(a[i] - b[i]) * (double)(a[i] - b[i]);                   \
    return lt_sum_parts(lane, 8);                                                                  \
  }
SQUARES(squares_f32, float)
SQUARES(squares_f64, double)

static void squares_task(void *argument, int64_t first, int64_t last) {
  const squares *w = argument;
  const lt_loop *loop = &w->loop;
  _Alignas(64) char tile[2][TILE * sizeof(double)];
  int64_t offset[LT_LOOP_OPERANDS];
  for (int64_t t = first; t < last; t++) {
    int64_t at = t % w->chunks * CHUNK, end = at + CHUNK;
    double part[CHUNK / TILE];
    int parts = 0;
    if (end > loop->length) end = loop->length;
    lt_loop_row(loop, t / w->chunks, offset);
    for (; at < end; at += TILE) {
      int64_t n = end - at < TILE ? end - at : TILE;
      for (int j = 0; j < 2; j++) {
        int64_t from = offset[1 + j] + at * loop->step[1 + j];
        lt_convert(n, w->dtype, tile[j], 1, w->stored[j],
                   w->data[j] + from * lt_dtype_size(w->stored[j]), loop->step[1 + j]);
      }
      char *y = w->y ? w->y + (offset[0] + at) * lt_dtype_size(w->dtype) : NULL;
      part[parts++] = w->dtype == LT_FLOAT64 ? squares_f64(n, tile[0], tile[1], y)
                                             : squares_f32(n, tile[0], tile[1], y);
    }
    if (!w->y) w->part[t] = lt_sum_parts(part, parts);
  }
}

static lt_shape common_shape(const lt_call *c) {
  lt_shape shape = c->in[0]->shape;
  lt_shape_broadcast(&shape, &c->in[1]->shape);
  return shape;
}

static lt_status mse_loss_infer(lt_call *c) {
  LT_TRY(lt_infer_elementwise(c));
  LT_TRY(lt_shape_check(c->ctx, "mse_loss", &c->result[0].shape));
  if (!lt_dtype_is_float(c->dtype)) c->result[0].dtype = c->dtype = c->ctx->default_dtype;
  if (lt_get_int(c->attrs, c->op, REDUCTION) != LT_NONE) c->result[0].shape.ndim = 0;
  return LT_OK;
}

static lt_status mse_loss_forward(lt_call *c) {
  lt_reduction reduction = (lt_reduction)lt_get_int(c->attrs, c->op, REDUCTION);
  lt_shape shape = common_shape(c);
  int64_t strides[3][LT_MAX_RANK], count = lt_shape_numel(&shape);
  squares w = {.dtype = c->dtype, .y = reduction == LT_NONE ? c->out[0]->data : NULL};
  lt_shape_strides(&shape, strides[0]);
  for (int j = 0; j < 2; j++) {
    const lt_tensor *x = c->in[j];
    lt_broadcast_strides(&x->shape, x->strides, &shape, strides[1 + j]);
    w.data[j] = x->data;
    w.stored[j] = (lt_dtype)x->dtype;
  }
  lt_loop_build(&w.loop, &shape, 3, (const int64_t *const[]){strides[0], strides[1], strides[2]});
  w.chunks = (w.loop.length + CHUNK - 1) / CHUNK;
  int64_t tasks = count > 0 ? w.loop.rows * w.chunks : 0;
  if (w.y) return lt_parallel(c->ctx, tasks, count * 2, squares_task, &w);
  lt_tensor *parts;
  LT_TRY(lt_tensor_new(c->ctx, "mse_loss", LT_FLOAT64, &(lt_shape){1, {tasks}}, &parts));
  w.part = (double *)(void *)parts->data;
  lt_status status = lt_parallel(c->ctx, tasks, count * 2, squares_task, &w);
  if (status == LT_OK) {
    double sum = lt_sum_parts(w.part, tasks);
    lt_tensor_write(c->out[0], 0, reduction == LT_MEAN ? sum / (double)count : sum);
  }
  lt_tensor_release(parts);
  return status;
}

static void mse_loss_vjp(lt_vjp *v) { /* 2 (input - target) dy, over the count for the mean */
  double factor = 2;
  if (lt_get_int(v->attrs, v->op, REDUCTION) == LT_MEAN) {
    lt_shape shape = lt_input_spec(v, 0).shape, target = lt_input_spec(v, 1).shape;
    lt_shape_broadcast(&shape, &target);
    factor /= (double)lt_shape_numel(&shape);
  }
  lt_tensor *difference = lt_sub(v->s, v->in[0], v->in[1]);
  lt_tensor *dx = lt_mul(v->s, difference, lt_scale(v->s, v->dy[0], factor));
  if (v->need[0]) lt_give(v, 0, dx);
  if (v->need[1]) lt_give(v, 1, lt_neg(v->s, dx));
}

const lt_op lt_op_mse_loss = {
    .name = "mse_loss",
    .doc = "Mean squared error, the mean of (input - target)^2; with reduction \"sum\" the sum, "
           "with \"none\" each square. input and target broadcast.",
    .inputs = {{"input", LT_ANY}, {"target", LT_ANY}},
    .options = {{"reduction", LT_OPTION_CHOICE, .choices = LT_REDUCTIONS}},
    .infer = mse_loss_infer,
    .forward = mse_loss_forward,
    .vjp = mse_loss_vjp,
    .saves = LT_IN(0) | LT_IN(1),
    .sample = {"normal(3, 4), normal(3, 4)", "normal(2, 3, 4), normal(3, 1), {reduction = 'sum'}",
               "transposed(3, 4), normal(4), {reduction = 'none'}"},
};

LT_FAMILY(loss, &lt_op_mse_loss)
