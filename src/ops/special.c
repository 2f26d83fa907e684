/* Special functions: the error function and its kin, the logarithm of the gamma function and its
 * derivatives, logit. */
#include "kernels/special.h"
#include "ops/unary.h"

/* ---- erf, erfc, erfinv -------------------------------------------------------------------------
 */

#define TWO_BY_SQRT_PI 1.12837916709551257390

/* erf'' = -2 x erf', and so for erfc; erfinv's f' by y grows by 2 y f'. */
static lt_tensor *minus_2x_slope(lt_vjp *v, lt_tensor *x) {
  return lt_scale(v->s, lt_mul(v->s, x, lt_slope(v, x)), -2);
}
static lt_tensor *plus_2y_slope(lt_vjp *v, lt_tensor *y) {
  return lt_scale(v->s, lt_mul(v->s, y, lt_slope(v, y)), 2);
}

LT_KERNEL_1(erf, x, ERF(x))
LT_KERNEL_2(erf_backward, dy, x, dy *C(TWO_BY_SQRT_PI) * EXP(-x * x))
LT_UNARY(erf, LT_IN(0), minus_2x_slope, .zero = "saturated",
         .doc = "Error function, y = 2 / sqrt(pi) * integral of e^(-t^2) from 0 to x, element by "
                "element.",
         .sample = {"normal(3, 4)"})

LT_PLAIN_KERNEL_1(erfc, x, ERFC(x))
LT_KERNEL_2(erfc_backward, dy, x, dy *C(-TWO_BY_SQRT_PI) * EXP(-x * x))
LT_UNARY(erfc, LT_IN(0), minus_2x_slope, .zero = "saturated",
         .doc = "y = 1 - erf(x), exact also where erf(x) is near 1, element by element.",
         .sample = {"normal(3, 4)"})

LT_PLAIN_KERNEL_1(erfinv, x, (T)lt_erfinv(x))
LT_KERNEL_2(erfinv_backward, dy, y, dy *C(1 / TWO_BY_SQRT_PI) * EXP(y * y))
LT_UNARY(erfinv, LT_OUT(0), plus_2y_slope,
         .doc = "Inverse error function, the y with erf(y) = x, element by element; infinite at -1 "
                "and 1, NaN outside.",
         .sample = {"uniform(3, 4)"})

/* ---- lgamma, digamma, polygamma
 * ------------------------------------------------------------------ */

LT_PLAIN_KERNEL_1(lgamma, x, (T)lt_lgamma(x))

static void lgamma_vjp(lt_vjp *v) {
  lt_give(v, 0, lt_mul(v->s, v->dy[0], lt_do1(v->s, &lt_op_digamma, NULL, v->in[0])));
}

const lt_op lt_op_lgamma = {
    .name = "lgamma",
    .doc = "Logarithm of the gamma function's magnitude, y = ln |Gamma(x)|, element by element.",
    .inputs = {{"x", LT_FLOAT}},
    .infer = lt_infer_elementwise,
    .kernel = &lgamma_kernel,
    .vjp = lgamma_vjp,
    .saves = LT_IN(0),
    .sample = {"positive(3, 4)"},
};

enum { ORDER };

/* Gives dy * polygamma(x, order). */
static void give_polygamma(lt_vjp *v, int64_t order) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_polygamma);
  lt_attrs_set_int(&attrs, &lt_op_polygamma, ORDER, order);
  lt_give(v, 0, lt_mul(v->s, v->dy[0], lt_do1(v->s, &lt_op_polygamma, &attrs, v->in[0])));
}

LT_PLAIN_KERNEL_1(digamma, x, (T)lt_digamma(x))

static void digamma_vjp(lt_vjp *v) { give_polygamma(v, 1); }

const lt_op lt_op_digamma = {
    .name = "digamma",
    .doc = "Logarithmic derivative of the gamma function, y = Gamma'(x) / Gamma(x), element by "
           "element; NaN at negative integers.",
    .inputs = {{"x", LT_FLOAT}},
    .infer = lt_infer_elementwise,
    .kernel = &digamma_kernel,
    .vjp = digamma_vjp,
    .saves = LT_IN(0),
    .sample = {"positive(3, 4)"},
};

static lt_status polygamma_infer(lt_call *c) {
  int64_t n = lt_get_int(c->attrs, c->op, ORDER);
  if (n < 0 || n > LT_MAX_POLYGAMMA) {
    return lt_fail(c->ctx, "polygamma: n must be in 0..%d, got %lld", LT_MAX_POLYGAMMA,
                   (long long)n);
  }
  return lt_infer_elementwise(c);
}

LT_PLAIN_KERNEL_1(polygamma, x, (T)lt_polygamma((int)k[ORDER], x))

static void polygamma_vjp(lt_vjp *v) { give_polygamma(v, lt_get_int(v->attrs, v->op, ORDER) + 1); }

const lt_op lt_op_polygamma = {
    .name = "polygamma",
    .doc = "The n-th derivative of digamma(x), element by element.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {{"n", LT_OPTION_INT, .required = true}},
    .infer = polygamma_infer,
    .kernel = &polygamma_kernel,
    .vjp = polygamma_vjp,
    .saves = LT_IN(0),
    .sample = {"positive(3, 4), {n = 1}", "positive(2, 3, 4), {n = 2}"},
};

/* ---- logit --------------------------------------------------------------------------------------
 */

enum { EPS };

static inline double clamped(double x, double eps) {
  return eps < 0 ? x : x < eps ? eps : x > 1 - eps ? 1 - eps : x;
}

/* Outside [eps, 1 - eps] the gradient is 0; without eps, outside [0, 1], there is none. */
static inline double logit_slope(double x, double eps) {
  double low = eps < 0 ? 0 : eps;
  if (x < low || x > 1 - low) return eps < 0 ? NAN : 0;
  return x == 0 || x == 1 ? INFINITY : 1 / (x * (1 - x));
}

static lt_tensor *logit_second(lt_vjp *v, lt_tensor *x) { /* (2 x - 1) f'^2 */
  lt_tensor *slope = lt_slope(v, x);
  lt_tensor *twice = lt_shift(v->s, lt_scale(v->s, x, 2), -1);
  return lt_mul(v->s, twice, lt_mul(v->s, slope, slope));
}

LT_PLAIN_KERNEL_1(logit, x, (T)(log(clamped(x, k[EPS]) / (1 - clamped(x, k[EPS])))))
LT_PLAIN_KERNEL_2(logit_backward, dy, x, dy *(T)logit_slope(x, k[EPS]))
LT_UNARY(logit, LT_IN(0), logit_second,
         .doc = "Log-odds, the inverse of sigmoid: y = ln(x / (1 - x)), element by element. x is "
                "first clamped to [eps, 1 - eps]; a negative eps (the default) does not clamp, and "
                "y is NaN outside [0, 1].",
         .options = {{"eps", LT_OPTION_NUMBER, .value = -1}},
         .sample = {"positive(3, 4) * 0.4", "positive(2, 3, 4) * 0.4, {eps = 0.01}"})

LT_FAMILY(special, &lt_op_erf, &lt_op_erfc, &lt_op_erfinv, &lt_op_lgamma, &lt_op_digamma,
          &lt_op_polygamma, &lt_op_logit)
