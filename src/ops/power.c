/* Powers, and the logarithms that go with sums of them. An exponent that is a single number picks
 * a kernel once per call: x ^ 2 is x * x, not a call of pow for each element. */
#include "kernels/elementwise.h"
#include "kernels/find.h"
#include "ops/family.h"
#include "tape/vjp.h"

#include <tgmath.h>

/* ---- pow ---------------------------------------------------------------------------------- */

/* By squaring, modulo 2^64; exponents are 0 or more. */
static inline int64_t pow_int(int64_t x, int64_t exponent) {
  uint64_t power = 1, square = (uint64_t)x;
  for (; exponent > 0; exponent >>= 1, square *= square) {
    if (exponent & 1) power *= square;
  }
  return (int64_t)power;
}
static inline float pow_float32(float x, float exponent) { return pow(x, exponent); }
static inline double pow_float64(double x, double exponent) { return pow(x, exponent); }

LT_NUMBER_KERNEL_2(pow, x, exponent,
                   _Generic(x, float
                            : pow_float32, double
                            : pow_float64, default
                            : pow_int)(x, exponent))
LT_KERNEL_1(pow_1, x, x)
LT_KERNEL_1(pow_2, x, x *x)
LT_KERNEL_1(pow_3, x, x *x *x)
LT_KERNEL_1(pow_half, x, sqrt(x))
LT_KERNEL_1(pow_minus_1, x, 1 / x)

static lt_status pow_infer(lt_call *c) {
  LT_TRY(lt_infer_elementwise(c));
  if (c->dtype == LT_BOOL) c->result[0].dtype = c->dtype = LT_INT64;
  if (lt_dtype_is_float(c->dtype) || !lt_holds_int(c->in[1], INT64_MIN, -1)) return LT_OK;
  return lt_fail(c->ctx, "pow: integers have no integer power with a negative exponent "
                         "(x:to(\"float32\") makes floats)");
}

/* The kernel of x alone for this exponent, or NULL. */
static const lt_kernel *kernel_for(const lt_call *c, const lt_tensor *exponent,
                                   const lt_kernel *const special[5]) {
  static const double exponents[] = {1, 2, 3, 0.5, -1};
  if (exponent->numel != 1 || !lt_dtype_is_float(c->dtype)) return NULL;
  double value = lt_tensor_read(exponent, 0);
  for (int i = 0; i < 5; i++) {
    if (value == exponents[i]) return special[i];
  }
  return NULL;
}

/* The exponent is the last input: special kernels do without it. */
static lt_status by_exponent(lt_call *c, const lt_kernel *general,
                             const lt_kernel *const special[5]) {
  const lt_kernel *kernel = kernel_for(c, c->in[c->inputs - 1], special);
  if (!kernel) return lt_elementwise(c, general);
  lt_call of_x = *c;
  of_x.inputs--;
  return lt_elementwise(&of_x, kernel);
}

static lt_status pow_forward(lt_call *c) {
  static const lt_kernel *const special[] = {&pow_1_kernel, &pow_2_kernel, &pow_3_kernel,
                                             &pow_half_kernel, &pow_minus_1_kernel};
  return by_exponent(c, &pow_kernel, special);
}

extern const lt_op lt_op_pow_backward, lt_op_pow_exponent_backward;

static void pow_vjp(lt_vjp *v) {
  if (v->need[0]) {
    lt_give(v, 0, lt_do3(v->s, &lt_op_pow_backward, NULL, v->dy[0], v->in[0], v->in[1]));
  }
  if (v->need[1]) {
    lt_give(v, 1, lt_do3(v->s, &lt_op_pow_exponent_backward, NULL, v->dy[0], v->in[0], v->in[1]));
  }
}

const lt_op lt_op_pow = {
    .name = "pow",
    .doc = "Power, y = x ^ exponent, with broadcasting; either may be a number. Also x ^ exponent. "
           "Integers stay integers; their exponents must not be negative.",
    .inputs = {{"x", LT_ANY}, {"exponent", LT_ANY}},
    .infer = pow_infer,
    .forward = pow_forward,
    .vjp = pow_vjp,
    .elementwise = true,
    .saves = LT_IN(0) | LT_IN(1),
    .sample = {"positive(3, 4), normal(3, 4)", "positive(2, 3, 1), normal(4)", "normal(3, 4), 2",
               "positive(3, 4), 0.5", "positive(3, 4), -1.7", "positive(), normal(3, 4)",
               "normal(3, 4), 3"},
};

/* ---- pow_backward: dy * exponent * x ^ (exponent - 1), 0 for exponent 0 ------------------------
 */

LT_PLAIN_KERNEL_3(pow_backward, dy, x, exponent,
                  exponent == 0 ? 0 : dy * (exponent * pow(x, exponent - 1)))
LT_KERNEL_2(pow_1_backward, dy, x, ((void)x, dy))
LT_KERNEL_2(pow_2_backward, dy, x, dy *(2 * x))
LT_KERNEL_2(pow_3_backward, dy, x, dy *(3 * x * x))
LT_KERNEL_2(pow_half_backward, dy, x, dy *((T)0.5 / sqrt(x)))
LT_KERNEL_2(pow_minus_1_backward, dy, x, -dy / (x * x))

static lt_status pow_backward_forward(lt_call *c) {
  static const lt_kernel *const special[] = {&pow_1_backward_kernel, &pow_2_backward_kernel,
                                             &pow_3_backward_kernel, &pow_half_backward_kernel,
                                             &pow_minus_1_backward_kernel};
  return by_exponent(c, &pow_backward_kernel, special);
}

/* exponent - 1; of a number it is a number. */
static lt_tensor *one_less(lt_scope *s, lt_tensor *exponent) {
  return exponent->weak ? lt_number(s, lt_tensor_read(exponent, 0) - 1) : lt_shift(s, exponent, -1);
}

/* g * d^2 (x ^ e) / dx de = g * (e * x^(e-1) * log x + x^(e-1)) */
static lt_tensor *mixed_derivative(lt_scope *s, lt_tensor *g, lt_tensor *x, lt_tensor *e) {
  lt_tensor *less = one_less(s, e);
  lt_tensor *by_log = lt_do3(s, &lt_op_pow_exponent_backward, NULL, lt_mul(s, g, e), x, less);
  return lt_add(s, by_log, lt_mul(s, g, lt_do2(s, &lt_op_pow, NULL, x, less)));
}

static void pow_backward_vjp(lt_vjp *v) {
  lt_scope *s = v->s;
  lt_tensor *g = v->dy[0], *x = v->in[1], *e = v->in[2];
  if (v->need[0]) lt_give(v, 0, lt_do3(s, v->op, NULL, g, x, e));
  if (!v->need[1] && !v->need[2]) return;
  lt_tensor *h = lt_mul(s, g, v->in[0]);
  if (v->need[1]) lt_give(v, 1, lt_do3(s, v->op, NULL, lt_mul(s, h, e), x, one_less(s, e)));
  if (v->need[2]) lt_give(v, 2, mixed_derivative(s, h, x, e));
}

const lt_op lt_op_pow_backward = {
    .name = "pow_backward",
    .doc = "Gradient of pow in x: dy * exponent * x ^ (exponent - 1), and 0 where exponent is 0.",
    .inputs = {{"dy", LT_ANY}, {"x", LT_ANY}, {"exponent", LT_ANY}},
    .infer = lt_infer_elementwise,
    .forward = pow_backward_forward,
    .vjp = pow_backward_vjp,
    .elementwise = true,
    .saves = LT_IN(0) | LT_IN(1) | LT_IN(2),
    .internal = true,
    .sample = {"normal(3, 4), positive(3, 4), normal(3, 4)", "normal(3, 4), normal(3, 4), 2"},
};

/* ---- pow_exponent_backward: dy * x ^ exponent * log x ------------------------------------------
 */

LT_PLAIN_KERNEL_3(pow_exponent_backward, dy, x, exponent,
                  x == 0 && exponent >= 0 ? 0 : dy * (pow(x, exponent) * log(x)))

static void pow_exponent_backward_vjp(lt_vjp *v) {
  lt_scope *s = v->s;
  lt_tensor *g = v->dy[0], *x = v->in[1], *e = v->in[2];
  if (v->need[0]) lt_give(v, 0, lt_do3(s, v->op, NULL, g, x, e));
  if (!v->need[1] && !v->need[2]) return;
  lt_tensor *h = lt_mul(s, g, v->in[0]);
  if (v->need[1]) lt_give(v, 1, mixed_derivative(s, h, x, e));
  if (v->need[2]) {
    lt_give(v, 2, lt_do2(s, &lt_op_xlogy, NULL, lt_do3(s, v->op, NULL, h, x, e), x));
  }
}

const lt_op lt_op_pow_exponent_backward = {
    .name = "pow_exponent_backward",
    .doc = "Gradient of pow in the exponent: dy * x ^ exponent * log x, and 0 where x is 0 and the "
           "exponent is not negative.",
    .inputs = {{"dy", LT_FLOAT}, {"x", LT_FLOAT}, {"exponent", LT_FLOAT}},
    .infer = lt_infer_elementwise,
    .kernel = &pow_exponent_backward_kernel,
    .vjp = pow_exponent_backward_vjp,
    .saves = LT_IN(0) | LT_IN(1) | LT_IN(2),
    .internal = true,
    .sample = {"normal(3, 4), positive(3, 4), normal(3, 4)", "normal(3, 4), 2, normal(3, 4)"},
};

/* ---- xlogy ---------------------------------------------------------------------------------- */

LT_PLAIN_KERNEL_2(xlogy, x, other, x == 0 && other == other ? 0 : x * log(other))

/* dx = log other, but 0 where x is 0 and other is not positive (PyTorch); dother = x / other */
static void xlogy_vjp(lt_vjp *v) {
  lt_scope *s = v->s;
  lt_tensor *dy = v->dy[0], *x = v->in[0], *other = v->in[1];
  if (v->need[0]) {
    lt_tensor *zero = lt_number(s, 0);
    lt_tensor *cut = lt_do2(s, &lt_op_logical_and, NULL, lt_do2(s, &lt_op_eq, NULL, x, zero),
                            lt_do2(s, &lt_op_le, NULL, other, zero));
    lt_give(v, 0, lt_do3(s, &lt_op_where, NULL, cut, zero, lt_do2(s, v->op, NULL, dy, other)));
  }
  if (v->need[1]) lt_give(v, 1, lt_div(s, lt_mul(s, dy, x), other));
}

const lt_op lt_op_xlogy = {
    .name = "xlogy",
    .doc = "y = x * log(other), and 0 where x is 0 (unless other is NaN); with broadcasting.",
    .inputs = {{"x", LT_FLOAT}, {"other", LT_FLOAT}},
    .infer = lt_infer_elementwise,
    .kernel = &xlogy_kernel,
    .vjp = xlogy_vjp,
    .saves = LT_IN(0) | LT_IN(1),
    .sample = {"normal(3, 4), positive(3, 4)", "normal(2, 3, 1), positive(4)", "normal(3), 2"},
};

/* ---- logaddexp, logaddexp2 --------------------------------------------------------------------
 */

static const double LOG_2 = 0.69314718055994530942;

/* With the larger one taken out; equal ones first, as inf - inf is NaN. */
LT_PLAIN_KERNEL_2(logaddexp, x, other,
                  x == other ? x + (T)LOG_2
                             : (x > other ? x : other) + log1p(exp(-fabs(x - other))))
LT_PLAIN_KERNEL_2(logaddexp2, x, other,
                  x == other ? x + 1
                             : (x > other ? x : other) + log1p(exp2(-fabs(x - other))) / (T)LOG_2)

/* The share of x in the sum is sigmoid((x - other) * log of the base). */
static void give_shares(lt_vjp *v, double log_base) {
  lt_scope *s = v->s;
  for (int i = 0; i < 2; i++) {
    if (!v->need[i]) continue;
    lt_tensor *ahead = lt_sub(s, v->in[i], v->in[1 - i]);
    if (log_base != 1) ahead = lt_scale(s, ahead, log_base);
    lt_give(v, i, lt_mul(s, v->dy[0], lt_do1(s, &lt_op_sigmoid, NULL, ahead)));
  }
}

static void logaddexp_vjp(lt_vjp *v) { give_shares(v, 1); }

const lt_op lt_op_logaddexp = {
    .name = "logaddexp",
    .doc = "y = log(exp(x) + exp(other)), without overflow; with broadcasting.",
    .inputs = {{"x", LT_FLOAT}, {"other", LT_FLOAT}},
    .infer = lt_infer_elementwise,
    .kernel = &logaddexp_kernel,
    .vjp = logaddexp_vjp,
    .saves = LT_IN(0) | LT_IN(1),
    .sample = {"normal(3, 4), normal(3, 4)", "normal(2, 3, 1), normal(4)"},
};

static void logaddexp2_vjp(lt_vjp *v) { give_shares(v, LOG_2); }

const lt_op lt_op_logaddexp2 = {
    .name = "logaddexp2",
    .doc = "y = log2(2 ^ x + 2 ^ other), without overflow; with broadcasting.",
    .inputs = {{"x", LT_FLOAT}, {"other", LT_FLOAT}},
    .infer = lt_infer_elementwise,
    .kernel = &logaddexp2_kernel,
    .vjp = logaddexp2_vjp,
    .saves = LT_IN(0) | LT_IN(1),
    .sample = {"normal(3, 4), normal(3, 4)", "normal(2, 3, 1), normal(4)"},
};

LT_FAMILY(power, &lt_op_pow, &lt_op_pow_backward, &lt_op_pow_exponent_backward, &lt_op_xlogy,
          &lt_op_logaddexp, &lt_op_logaddexp2)
