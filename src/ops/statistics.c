/* Variance, standard deviation and norms. The variance is taken in one pass in double precision
 * (Welford 1962; merged by Chan, Golub and LeVeque 1983). */
#include "kernels/elementwise.h"
#include "kernels/math.h"
#include "kernels/reduce.h"
#include "ops/family.h"
#include "ops/reduction.h"
#include "tape/vmap.h"

/* ---- var, std ---------------------------------------------------------------------------- */

enum { DIM, CORRECTION };

static lt_status var_forward(lt_call *c) {
  double correction = lt_get_number(c->attrs, c->op, CORRECTION);
  return lt_forward_fold(c, &lt_fold_var, &correction);
}

/* Gives the gradient of a variance: 2 (x - mean) dy / (n - correction). */
static void give_var(lt_vjp *v, lt_tensor *dy) {
  lt_tensor *x = v->in[0];
  double over = (double)lt_reduced_count(v) - lt_get_number(v->attrs, v->op, CORRECTION);
  lt_tensor *apart = lt_sub(v->s, x, lt_reduce_alike(v, &lt_op_mean, x));
  if (!lt_given(v->attrs, DIM) && over <= 0) { /* infinite, whatever the sign; nan at the mean */
    apart = lt_scale(v->s, lt_mul(v->s, apart, apart), INFINITY);
    lt_give(v, 0, lt_mul(v->s, lt_restore_dims(v, dy), apart));
    return;
  }
  dy = lt_restore_dims(v, lt_scale(v->s, dy, 2 / over));
  lt_give(v, 0, lt_mul(v->s, dy, apart));
}

static void var_vjp(lt_vjp *v) { give_var(v, v->dy[0]); }

const lt_op lt_op_var = {
    .name = "var",
    .doc = "Variance, sum((x - mean)^2) / (n - correction), over the dimensions in dim, by default "
           "all. correction = 0 divides by n.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {{"dim", LT_OPTION_DIMS},
                {"correction", LT_OPTION_NUMBER, .value = 1},
                {"keepdim", LT_OPTION_BOOL}},
    .infer = lt_infer_reduction,
    .forward = var_forward,
    .vjp = var_vjp,
    .batch = lt_batch_dims,
    .saves = LT_IN(0),
    .sample = {"normal(3, 4)", "normal(2, 3, 4), {dim = {1, 3}, keepdim = true}",
               "normal(3, 4), {dim = 1, correction = 0}"},
};

static lt_status std_forward(lt_call *c) {
  double correction = lt_get_number(c->attrs, c->op, CORRECTION);
  return lt_forward_fold(c, &lt_fold_std, &correction);
}

/* Where the deviation is 0 so is the gradient. */
static void std_vjp(lt_vjp *v) {
  give_var(v, lt_div_or_zero(v->s, v->dy[0], lt_scale(v->s, v->out[0], 2)));
}

const lt_op lt_op_std = {
    .name = "std",
    .doc = "Standard deviation, the root of var, over the dimensions in dim, by default all. "
           "correction = 0 divides by n.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {{"dim", LT_OPTION_DIMS},
                {"correction", LT_OPTION_NUMBER, .value = 1},
                {"keepdim", LT_OPTION_BOOL}},
    .infer = lt_infer_reduction,
    .forward = std_forward,
    .vjp = std_vjp,
    .batch = lt_batch_dims,
    .saves = LT_IN(0) | LT_OUT(0),
    .sample = {"normal(3, 4)", "normal(2, 3, 4), {dim = {1, 3}, keepdim = true}",
               "normal(3, 4), {dim = 1, correction = 0}"},
};

/* ---- Powers of |x|, for the gradient of norms ---------------------------------------------- */

enum { P };

/* Poles at 0 are left out. */
LT_PLAIN_KERNEL_1(abs_power, x, x == 0 && K(P) < 0 ? 0 : (T)pow(fabs((double)x), k[P]))
LT_PLAIN_KERNEL_1(signed_power, x,
                  K(P) == 0 ? (T)((x > 0) - (x < 0))
                  : x == 0  ? 0
                            : (T)copysign(pow(fabs((double)x), k[P]), (double)x))

extern const lt_op lt_op_abs_power, lt_op_signed_power;

static lt_tensor *power(lt_scope *s, const lt_op *op, lt_tensor *x, double p) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, op);
  lt_attrs_set_number(&attrs, op, P, p);
  return lt_do1(s, op, &attrs, x);
}

static void power_vjp(lt_vjp *v) {
  double p = lt_get_number(v->attrs, v->op, P);
  const lt_op *other = v->op == &lt_op_abs_power ? &lt_op_signed_power : &lt_op_abs_power;
  if (p == 0) return; /* flat */
  lt_tensor *slope = lt_scale(v->s, power(v->s, other, v->in[0], p - 1), p);
  lt_give(v, 0, lt_mul(v->s, v->dy[0], slope));
}

const lt_op lt_op_abs_power = {
    .name = "abs_power",
    .doc = "|x|^p.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {{"p", LT_OPTION_NUMBER}},
    .infer = lt_infer_elementwise,
    .kernel = &abs_power_kernel,
    .vjp = power_vjp,
    .saves = LT_IN(0),
    .internal = true,
};

const lt_op lt_op_signed_power = {
    .name = "signed_power",
    .doc = "sign(x) |x|^p.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {{"p", LT_OPTION_NUMBER}},
    .infer = lt_infer_elementwise,
    .kernel = &signed_power_kernel,
    .vjp = power_vjp,
    .saves = LT_IN(0),
    .internal = true,
};

LT_KERNEL_2(abs_ties, x, y, x != x || ABS(x) == y)

const lt_op lt_op_abs_ties = {
    .name = "abs_ties",
    .doc = "1 where |x| equals y or is NaN, else 0. A constant for gradients.",
    .inputs = {{"x", LT_FLOAT}, {"y", LT_FLOAT}},
    .infer = lt_infer_elementwise,
    .kernel = &abs_ties_kernel,
    .cuts = true,
    .internal = true,
};

/* ---- norm -------------------------------------------------------------------------------- */

static lt_status norm_infer(lt_call *c) {
  double p = lt_get_number(c->attrs, c->op, P);
  if (isnan(p)) return lt_fail(c->ctx, "norm: p is nan");
  lt_dtype dtype = (lt_dtype)c->in[0]->dtype;
  return p < 0 || isinf(p) ? lt_infer_taken(c, 0, dtype) : lt_infer_reduced(c, 0, dtype);
}

static lt_status norm_forward(lt_call *c) {
  double p = lt_get_number(c->attrs, c->op, P);
  const lt_fold *fold = p == 2          ? &lt_fold_norm2
                        : p == 1        ? &lt_fold_norm1
                        : p == 0        ? &lt_fold_norm0
                        : p == INFINITY ? &lt_fold_abs_max
                        : isinf(p)      ? &lt_fold_abs_min
                                        : &lt_fold_norm;
  return lt_forward_fold(c, fold, &p);
}

static void norm_vjp(lt_vjp *v) {
  lt_scope *s = v->s;
  double p = lt_get_number(v->attrs, v->op, P);
  lt_tensor *x = v->in[0], *dx;
  lt_tensor *y = lt_restore_dims(v, v->out[0]), *dy = lt_restore_dims(v, v->dy[0]);
  if (p == 0) return; /* a count */
  if (isinf(p)) {
    lt_tensor *equal = lt_do2(s, &lt_op_abs_ties, NULL, x, y);
    dx = lt_mul(s, lt_div(s, dy, lt_reduce_alike(v, &lt_op_sum, equal)), equal);
    dx = lt_mul(s, dx, power(s, &lt_op_signed_power, x, 0));
  } else if (p == 2) {
    dx = lt_mul(s, dy, lt_div_or_zero(s, x, y));
  } else if (p == 1) {
    dx = lt_mul(s, dy, power(s, &lt_op_signed_power, x, 0));
  } else if (p < 1) {
    dx = lt_mul(s, dy, power(s, &lt_op_abs_power, y, 1 - p));
    dx = lt_mul(s, dx, power(s, &lt_op_signed_power, x, p - 1));
  } else {
    dx = lt_div_or_zero(s, dy, power(s, &lt_op_abs_power, y, p - 1));
    dx = lt_mul(s, dx, power(s, &lt_op_signed_power, x, p - 1));
  }
  lt_give(v, 0, dx);
}

const lt_op lt_op_norm = {
    .name = "norm",
    .doc = "Norm (sum |x|^p)^(1/p) over the dimensions in dim, by default all. p = inf and -inf "
           "are the largest and smallest |x|, p = 0 counts elements other than 0. At 0 the "
           "gradient of the 2-norm is 0.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {{"p", LT_OPTION_NUMBER, .value = 2},
                {"dim", LT_OPTION_DIMS},
                {"keepdim", LT_OPTION_BOOL}},
    .infer = norm_infer,
    .forward = norm_forward,
    .vjp = norm_vjp,
    .batch = lt_batch_dims,
    .saves = LT_IN(0) | LT_OUT(0),
    .sample = {"normal(3, 4)", "normal(2, 3, 4), {p = 3, dim = {1, 3}, keepdim = true}",
               "positive(3, 4), {p = 1, dim = 2}", "positive(3, 4), {p = 0.5, dim = 1}",
               "normal(3, 4), {p = math.huge}"},
};

LT_FAMILY(statistics, &lt_op_var, &lt_op_std, &lt_op_abs_power, &lt_op_signed_power,
          &lt_op_abs_ties, &lt_op_norm)
