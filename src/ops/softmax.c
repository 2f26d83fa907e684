/* Softmax along a dimension, its logarithm, and logsumexp. Backward passes are fused kernels, ops
 * with gradients of their own. */
#include "kernels/softmax.h"
#include "kernels/reduce.h"
#include "ops/family.h"
#include "ops/reduction.h"
#include "tape/vmap.h"

enum { DIM };

static lt_status infer_line(lt_call *c) {
  int dim;
  LT_TRY(lt_dim_of(c, &dim));
  return lt_infer_same(c);
}

static lt_status run(lt_call *c, lt_line_fn *const lines[LT_SIMD_COUNT][2], bool negative) {
  int dim;
  LT_TRY(lt_dim_of(c, &dim));
  lt_softmax_line s = {lt_line_length(c->in[0], dim), negative};
  lt_tensor *t[] = {c->in[0], c->inputs > 1 ? c->in[1] : c->out[0], c->out[0]};
  return lt_lines(c->ctx, dim, c->inputs + 1, t, 1, lines[c->ctx->simd][c->in[0]->dtype], &s, 0,
                  s.n * 8);
}

/* A backward op along the same dimension. */
static lt_tensor *backward(lt_vjp *v, const lt_op *op, lt_tensor *dy, lt_tensor *y) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, op);
  lt_attrs_set_int(&attrs, op, DIM, lt_get_int(v->attrs, v->op, DIM));
  return lt_do2(v->s, op, &attrs, dy, y);
}

static lt_tensor *sum_line(lt_vjp *v, lt_tensor *x) {
  int64_t dim = lt_get_int(v->attrs, v->op, DIM);
  return lt_sum_over(v->s, x, 1, &dim, true);
}

/* ---- softmax, softmin -------------------------------------------------------------------- */

static lt_status softmax_backward_forward(lt_call *c) {
  return run(c, lt_softmax_backward_lines, false);
}

/* dx = y (g - sum(g y)), with a cotangent w. */
static void softmax_backward_vjp(lt_vjp *v) {
  lt_scope *s = v->s;
  lt_tensor *g = v->in[0], *y = v->in[1], *w = v->dy[0];
  if (v->need[0]) lt_give(v, 0, backward(v, v->op, w, y));
  if (v->need[1]) {
    lt_tensor *apart = lt_sub(s, g, sum_line(v, lt_mul(s, g, y)));
    lt_tensor *mean = sum_line(v, lt_mul(s, w, y));
    lt_give(v, 1, lt_sub(s, lt_mul(s, w, apart), lt_mul(s, mean, g)));
  }
}

const lt_op lt_op_softmax_backward = {
    .name = "softmax_backward",
    .doc = "dx = y (dy - sum(dy y)) along dim.",
    .inputs = {{"dy", LT_FLOAT}, {"y", LT_FLOAT}},
    .options = {{"dim", LT_OPTION_DIM}},
    .infer = infer_line,
    .forward = softmax_backward_forward,
    .vjp = softmax_backward_vjp,
    .batch = lt_batch_dims,
    .saves = LT_IN(0) | LT_IN(1),
    .internal = true,
};

static lt_status softmax_forward(lt_call *c) { return run(c, lt_softmax_lines, false); }
static lt_status softmin_forward(lt_call *c) { return run(c, lt_softmax_lines, true); }

static void softmax_vjp(lt_vjp *v) {
  lt_give(v, 0, backward(v, &lt_op_softmax_backward, v->dy[0], v->out[0]));
}
static void softmin_vjp(lt_vjp *v) {
  lt_give(v, 0, lt_neg(v->s, backward(v, &lt_op_softmax_backward, v->dy[0], v->out[0])));
}

const lt_op lt_op_softmax = {
    .name = "softmax",
    .doc = "y = exp(x) / sum(exp(x)) along dim, by default the last; without overflow.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {{"dim", LT_OPTION_DIM, .value = -1}},
    .infer = infer_line,
    .forward = softmax_forward,
    .vjp = softmax_vjp,
    .zero = "saturated",
    .batch = lt_batch_dims,
    .saves = LT_OUT(0),
    .sample = {"normal(3, 4)", "normal(2, 3, 4), {dim = 2}"},
};

const lt_op lt_op_softmin = {
    .name = "softmin",
    .doc = "The softmax of -x along dim, by default the last.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {{"dim", LT_OPTION_DIM, .value = -1}},
    .infer = infer_line,
    .forward = softmin_forward,
    .vjp = softmin_vjp,
    .batch = lt_batch_dims,
    .saves = LT_OUT(0),
    .sample = {"normal(3, 4)", "normal(2, 3, 4), {dim = 2}"},
};

/* ---- log_softmax ------------------------------------------------------------------------- */

static lt_status log_softmax_backward_forward(lt_call *c) {
  return run(c, lt_log_softmax_backward_lines, false);
}

/* dx = g - exp(y) sum(g), with a cotangent w. */
static void log_softmax_backward_vjp(lt_vjp *v) {
  lt_scope *s = v->s;
  lt_tensor *weighed = lt_mul(s, v->dy[0], lt_exp_difference(s, v->in[1], lt_number(s, 0), false));
  if (v->need[0]) lt_give(v, 0, lt_sub(s, v->dy[0], sum_line(v, weighed)));
  if (v->need[1]) lt_give(v, 1, lt_neg(s, lt_mul(s, weighed, sum_line(v, v->in[0]))));
}

const lt_op lt_op_log_softmax_backward = {
    .name = "log_softmax_backward",
    .doc = "dx = dy - exp(y) sum(dy) along dim.",
    .inputs = {{"dy", LT_FLOAT}, {"y", LT_FLOAT}},
    .options = {{"dim", LT_OPTION_DIM}},
    .infer = infer_line,
    .forward = log_softmax_backward_forward,
    .vjp = log_softmax_backward_vjp,
    .batch = lt_batch_dims,
    .saves = LT_IN(0) | LT_IN(1),
    .internal = true,
};

static lt_status log_softmax_forward(lt_call *c) { return run(c, lt_log_softmax_lines, false); }

static void log_softmax_vjp(lt_vjp *v) {
  lt_give(v, 0, backward(v, &lt_op_log_softmax_backward, v->dy[0], v->out[0]));
}

const lt_op lt_op_log_softmax = {
    .name = "log_softmax",
    .doc = "y = x - log(sum(exp(x))) along dim, by default the last; without overflow.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {{"dim", LT_OPTION_DIM, .value = -1}},
    .infer = infer_line,
    .forward = log_softmax_forward,
    .vjp = log_softmax_vjp,
    .zero = "saturated",
    .batch = lt_batch_dims,
    .saves = LT_OUT(0),
    .sample = {"normal(3, 4)", "normal(2, 3, 4), {dim = 2}"},
};

/* ---- logsumexp --------------------------------------------------------------------------- */

static lt_status logsumexp_forward(lt_call *c) {
  return lt_forward_fold(c, &lt_fold_logsumexp, NULL);
}

static void logsumexp_vjp(lt_vjp *v) {
  lt_tensor *share = lt_exp_difference(v->s, v->in[0], lt_restore_dims(v, v->out[0]), false);
  lt_give(v, 0, lt_mul(v->s, lt_restore_dims(v, v->dy[0]), share));
}

const lt_op lt_op_logsumexp = {
    .name = "logsumexp",
    .doc = "log(sum(exp(x))) over the dimensions in dim, by default all; without overflow. Of "
           "nothing: -inf.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {{"dim", LT_OPTION_DIMS}, {"keepdim", LT_OPTION_BOOL}},
    .infer = lt_infer_reduction,
    .forward = logsumexp_forward,
    .vjp = logsumexp_vjp,
    .batch = lt_batch_dims,
    .saves = LT_IN(0) | LT_OUT(0),
    .sample = {"normal(3, 4)", "normal(2, 3, 4), {dim = {1, 3}, keepdim = true}"},
};

LT_FAMILY(softmax, &lt_op_softmax_backward, &lt_op_softmax, &lt_op_softmin,
          &lt_op_log_softmax_backward, &lt_op_log_softmax, &lt_op_logsumexp)
