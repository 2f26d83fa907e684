/* Activation functions of neural networks. At their corners the gradient is PyTorch's. Steps in a
 * factor f' are taken from relu, whose own factor is 0 or 1. */
#include "ops/unary.h"

/* 1 where x > 0, else 0: a constant to derivatives */
static lt_tensor *step(lt_vjp *v, lt_tensor *x);

static lt_tensor *call(lt_vjp *v, const lt_op *op, lt_tensor *x) {
  return lt_do1(v->s, op, NULL, x);
}

/* ---- relu, relu6, leaky_relu, threshold
 * ------------------------------------------------------------ */

LT_NUMBER_KERNEL_1(relu, x, (T)(x <= 0 ? 0 : x))
LT_KERNEL_2(relu_backward, dy, y, y <= 0 ? 0 : dy)
LT_UNARY_OF(relu, LT_ANY, lt_infer_elementwise, LT_OUT(0), NULL, .zero = "relu",
            .doc = "Rectified linear unit, y = max(x, 0), element by element. The gradient at 0 is "
                   "0.",
            .sample = {"normal(3, 4)"})

static lt_tensor *step(lt_vjp *v, lt_tensor *x) {
  return lt_do2(v->s, &relu_backward, NULL, lt_number(v->s, 1), x);
}

LT_KERNEL_1(relu6, x, x<0 ? 0 : x> 6 ? 6 : x)
LT_KERNEL_2(relu6_backward, dy, x, x > 0 && x < 6 ? dy : 0)
LT_UNARY(relu6, LT_IN(0), NULL, .zero = "relu", .doc = "y = min(max(x, 0), 6), element by element.",
         .sample = {"normal(3, 4)"})

enum { NEGATIVE_SLOPE };

LT_KERNEL_1(leaky_relu, x, x > 0 ? x : x * K(NEGATIVE_SLOPE))
LT_KERNEL_2(leaky_relu_backward, dy, x, x > 0 ? dy : dy * K(NEGATIVE_SLOPE))
LT_UNARY(leaky_relu, LT_IN(0), NULL,
         .doc = "y = x where x > 0, else negative_slope * x, element by element.",
         .options = {{"negative_slope", LT_OPTION_NUMBER, .value = 0.01}},
         .sample = {"normal(3, 4)", "normal(2, 3, 4), {negative_slope = 0.2}"})

enum { THRESHOLD, VALUE };

LT_KERNEL_1(threshold, x, x <= K(THRESHOLD) ? K(VALUE) : x)
LT_KERNEL_2(threshold_backward, dy, x, x <= K(THRESHOLD) ? 0 : dy)
LT_UNARY(threshold, LT_IN(0), NULL, .zero = "relu",
         .doc = "y = x where x > threshold, else value, element by element.",
         .options = {{"threshold", LT_OPTION_NUMBER, .required = true},
                     {"value", LT_OPTION_NUMBER, .required = true}},
         .sample = {"normal(3, 4), {threshold = 0.1, value = -1}",
                    "normal(2, 3, 4), {threshold = -0.5, value = 2}"})

/* ---- elu, selu, celu: f' is 1 (or a scale) for x > 0, and falls exponentially below
 * ------------------- */

enum { ALPHA };

static lt_status alpha_infer(lt_call *c) {
  if (lt_get_number(c->attrs, c->op, ALPHA) == 0) {
    return lt_fail(c->ctx, "%s: alpha must not be 0", c->op->name);
  }
  return lt_infer_elementwise(c);
}

LT_KERNEL_1(elu, x, x > 0 ? x : K(ALPHA) * EXPM1(x))
LT_KERNEL_2(elu_backward, dy, x, x <= 0 ? dy * K(ALPHA) * EXP(x) : dy)
static lt_tensor *elu_second(lt_vjp *v, lt_tensor *x) {
  return lt_sub(v->s, lt_slope(v, x), step(v, x));
}
LT_UNARY(elu, LT_IN(0), elu_second, .zero = "saturated",
         .doc = "Exponential linear unit, y = x where x > 0, else alpha * (e^x - 1), element by "
                "element. Clevert et al. 2015, arXiv 1511.07289.",
         .options = {{"alpha", LT_OPTION_NUMBER, .value = 1}},
         .sample = {"normal(3, 4)", "normal(2, 3, 4), {alpha = 0.5}"})

#define SELU_SCALE 1.0507009873554804934193349852946
#define SELU_ALPHA 1.6732632423543772848170429916717

LT_KERNEL_1(selu, x, C(SELU_SCALE) * (x > 0 ? x : C(SELU_ALPHA) * EXPM1(x)))
LT_KERNEL_2(selu_backward, dy, x, C(SELU_SCALE) * dy * (x > 0 ? 1 : C(SELU_ALPHA) * EXP(x)))
static lt_tensor *selu_second(lt_vjp *v, lt_tensor *x) {
  return lt_sub(v->s, lt_slope(v, x), lt_scale(v->s, step(v, x), SELU_SCALE));
}
LT_UNARY(selu, LT_IN(0), selu_second, .zero = "saturated",
         .doc =
             "Scaled exponential linear unit: elu with alpha = 1.6733, times 1.0507, which keeps "
             "mean 0 and variance 1 from layer to layer. Klambauer et al. 2017, arXiv "
             "1706.02515.",
         .sample = {"normal(3, 4)"})

LT_KERNEL_1(celu, x, x > 0 ? x : K(ALPHA) * EXPM1(x / K(ALPHA)))
LT_KERNEL_2(celu_backward, dy, x, x > 0 ? dy : dy * EXP(x / K(ALPHA)))
static lt_tensor *celu_second(lt_vjp *v, lt_tensor *x) {
  double alpha = lt_get_number(v->attrs, v->op, ALPHA);
  return lt_scale(v->s, lt_sub(v->s, lt_slope(v, x), step(v, x)), 1 / alpha);
}
LT_UNARY_OF(celu, LT_FLOAT, alpha_infer, LT_IN(0), celu_second, .zero = "saturated",
            .doc =
                "Continuously differentiable elu, y = x where x > 0, else alpha * (e^(x / alpha) "
                "- 1), element by element. Barron 2017, arXiv 1704.07483.",
            .options = {{"alpha", LT_OPTION_NUMBER, .value = 1}},
            .sample = {"normal(3, 4)", "normal(2, 3, 4), {alpha = 0.5}"})

/* ---- sigmoid, logsigmoid, softplus
 * -------------------------------------------------------------------- */

LT_KERNEL_1(sigmoid, x, SIGMOID(x))
LT_KERNEL_2(sigmoid_backward, dy, y, dy *(1 - y) * y)
static lt_tensor *sigmoid_second(lt_vjp *v, lt_tensor *y) { /* 1 - 2 y */
  return lt_shift(v->s, lt_scale(v->s, y, -2), 1);
}
LT_UNARY(sigmoid, LT_OUT(0), sigmoid_second, .zero = "saturated",
         .doc = "Logistic function, y = 1 / (1 + e^-x), element by element.",
         .sample = {"normal(3, 4)"})

LT_KERNEL_1(logsigmoid, x, (x < 0 ? x : 0) - LOG1P(EXP(-ABS(x))))
LT_KERNEL_2(logsigmoid_backward, dy, x, dy *SIGMOID(-x))
static lt_tensor *logsigmoid_second(lt_vjp *v, lt_tensor *x) { /* f' (f' - 1) */
  lt_tensor *slope = lt_slope(v, x);
  return lt_mul(v->s, slope, lt_shift(v->s, slope, -1));
}
LT_UNARY(logsigmoid, LT_IN(0), logsigmoid_second, .zero = "saturated",
         .doc = "Logarithm of sigmoid, y = -ln(1 + e^-x), without overflow, element by element.",
         .sample = {"normal(3, 4)"})

enum { BETA, SOFTPLUS_THRESHOLD };

static lt_status softplus_infer(lt_call *c) {
  if (lt_get_number(c->attrs, c->op, BETA) == 0) {
    return lt_fail(c->ctx, "softplus: beta must not be 0");
  }
  return lt_infer_elementwise(c);
}

#define SOFTPLUS(z) (((z) > 0 ? (z) : 0) + LOG1P(EXP(-ABS(z))))

LT_KERNEL_1(softplus, x, x *K(BETA) > K(SOFTPLUS_THRESHOLD) ? x : SOFTPLUS(x * K(BETA)) / K(BETA))
LT_KERNEL_2(softplus_backward, dy, x,
            x *K(BETA) > K(SOFTPLUS_THRESHOLD) ? dy : dy * SIGMOID(x * K(BETA)))
static lt_tensor *softplus_second(lt_vjp *v, lt_tensor *x) { /* beta f' (1 - f') */
  lt_tensor *slope = lt_slope(v, x);
  double beta = lt_get_number(v->attrs, v->op, BETA);
  return lt_scale(v->s, lt_mul(v->s, slope, lt_shift(v->s, slope, -1)), -beta);
}
LT_UNARY_OF(softplus, LT_FLOAT, softplus_infer, LT_IN(0), softplus_second, .zero = "saturated",
            .doc = "Smooth relu, y = ln(1 + e^(beta x)) / beta, element by element; y = x where "
                   "beta x > threshold.",
            .options = {{"beta", LT_OPTION_NUMBER, .value = 1},
                        {"threshold", LT_OPTION_NUMBER, .value = 20}},
            .sample = {"normal(3, 4)", "normal(2, 3, 4), {beta = 2, threshold = 5}"})

/* ---- gelu
 * ---------------------------------------------------------------------------------------------- */

enum { APPROXIMATE };

#define SQRT_HALF 0.70710678118654752440
#define SQRT_TWO_BY_PI 0.79788456080286535588
#define GELU_CUBIC 0.044715

/* y = x phi(x) with phi(x) = (1 + erf(x / sqrt 2)) / 2, or (1 + tanh(u)) / 2 */
#define GELU_U(x) (C(SQRT_TWO_BY_PI) * ((x) + C(GELU_CUBIC) * (x) * (x) * (x)))
#define GELU_DU(x) (C(SQRT_TWO_BY_PI) * (1 + C(3 * GELU_CUBIC) * (x) * (x)))
#define GELU_PHI(x) (C(0.5) * (1 + (K(APPROXIMATE) != 0 ? TANH(GELU_U(x)) : ERF((x)*C(SQRT_HALF)))))
#define GELU_DPHI(x)                                                                               \
  (K(APPROXIMATE) != 0 ? C(0.5) * (1 - TANH(GELU_U(x)) * TANH(GELU_U(x))) * GELU_DU(x)             \
                       : C(0.5 * SQRT_TWO_BY_PI) * EXP(C(-0.5) * (x) * (x)))

LT_KERNEL_1(gelu, x, x *GELU_PHI(x))
LT_KERNEL_2(gelu_backward, dy, x, dy *(GELU_PHI(x) + x * GELU_DPHI(x)))

/* 1 - tanh(u)^2 = 4 sigmoid(2 u) sigmoid(-2 u), also where tanh(u) is near 1 */
static lt_tensor *tanh_slope(lt_vjp *v, lt_tensor *u) {
  lt_tensor *high = call(v, &lt_op_sigmoid, lt_scale(v->s, u, 2));
  lt_tensor *low = call(v, &lt_op_sigmoid, lt_scale(v->s, u, -2));
  return lt_scale(v->s, lt_mul(v->s, high, low), 4);
}

/* 2 phi' + x phi'' */
static lt_tensor *gelu_second(lt_vjp *v, lt_tensor *x) {
  lt_scope *s = v->s;
  lt_tensor *square = lt_mul(s, x, x);
  if (lt_get_int(v->attrs, v->op, APPROXIMATE) == 0) { /* sqrt(1 / 2 pi) e^(-x^2 / 2) (2 - x^2) */
    lt_tensor *bell = call(v, &lt_op_exp, lt_scale(s, square, -0.5));
    return lt_scale(s, lt_mul(s, bell, lt_shift(s, square, -2)), -0.5 * SQRT_TWO_BY_PI);
  }
  /* (1 - t^2) (u' + x u'' / 2 - x t u'^2) with t = tanh(u) */
  lt_tensor *cubic = lt_mul(s, x, lt_shift(s, lt_scale(s, square, GELU_CUBIC), 1));
  lt_tensor *u = lt_scale(s, cubic, SQRT_TWO_BY_PI), *t = call(v, &lt_op_tanh, u);
  lt_tensor *du = lt_scale(s, lt_shift(s, lt_scale(s, square, 3 * GELU_CUBIC), 1), SQRT_TWO_BY_PI);
  lt_tensor *curve = lt_scale(s, square, 3 * GELU_CUBIC * SQRT_TWO_BY_PI);
  lt_tensor *bend = lt_mul(s, lt_mul(s, x, t), lt_mul(s, du, du));
  return lt_mul(s, tanh_slope(v, u), lt_sub(s, lt_add(s, du, curve), bend));
}

LT_UNARY(gelu, LT_IN(0), gelu_second, .zero = "saturated",
         .doc = "Gaussian error linear unit, y = x * Phi(x), Phi the normal distribution function; "
                "approximate = \"tanh\" takes x * (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2. "
                "Hendrycks and Gimpel 2016, arXiv 1606.08415.",
         .options = {{"approximate", LT_OPTION_CHOICE, .choices = "none tanh"}},
         .sample = {"normal(3, 4)", "normal(2, 3, 4), {approximate = 'tanh'}"})

/* ---- silu, mish
 * ------------------------------------------------------------------------------------------ */

LT_KERNEL_1(silu, x, x *SIGMOID(x))
LT_KERNEL_2(silu_backward, dy, x, dy *SIGMOID(x) * (1 + x * (1 - SIGMOID(x))))
static lt_tensor *silu_second(lt_vjp *v, lt_tensor *x) { /* s (1 - s) (2 + x (1 - 2 s)) */
  lt_scope *s = v->s;
  lt_tensor *y = call(v, &lt_op_sigmoid, x);
  lt_tensor *slope = lt_mul(s, y, lt_shift(s, lt_neg(s, y), 1));
  lt_tensor *odd = lt_shift(s, lt_scale(s, y, -2), 1);
  return lt_mul(s, slope, lt_shift(s, lt_mul(s, x, odd), 2));
}
LT_UNARY(silu, LT_IN(0), silu_second, .zero = "saturated",
         .doc = "Sigmoid linear unit (swish), y = x * sigmoid(x), element by element. Elfwing et "
                "al. 2017, arXiv 1702.03118.",
         .sample = {"normal(3, 4)"})

/* With e = e^x and n = e (e + 2): tanh(ln(1 + e)) = n / (n + 2), which is 1 from x = 20 on. */
#define MISH_E(x) EXP((x) > 20 ? 20 : (x))
#define MISH_GATE(e) ((e) * ((e) + 2) / ((e) * ((e) + 2) + 2))
/* 1 - gate^2 times sigmoid(x) = e / (1 + e), where n + 1 = (1 + e)^2 */
#define MISH_SLOPE(e) (4 * (e) * ((e) + 1) / (((e) * ((e) + 2) + 2) * ((e) * ((e) + 2) + 2)))

LT_KERNEL_1(mish, x, x *MISH_GATE(MISH_E(x)))
LT_KERNEL_2(mish_backward, dy, x,
            dy *(MISH_GATE(MISH_E(x)) + x * (x > 20 ? 0 : MISH_SLOPE(MISH_E(x)))))
/* s (1 - t^2) (2 + x (1 - s - 2 t s)) with t = tanh(softplus(x)), s = sigmoid(x) */
static lt_tensor *mish_second(lt_vjp *v, lt_tensor *x) {
  lt_scope *s = v->s;
  lt_tensor *y = call(v, &lt_op_sigmoid, x);
  lt_tensor *u = call(v, &lt_op_softplus, x), *t = call(v, &lt_op_tanh, u);
  lt_tensor *slope = lt_mul(s, y, tanh_slope(v, u));
  lt_tensor *rest = lt_mul(s, y, lt_shift(s, lt_scale(s, t, 2), 1));
  lt_tensor *bend = lt_mul(s, x, lt_shift(s, lt_neg(s, rest), 1));
  return lt_mul(s, slope, lt_shift(s, bend, 2));
}
LT_UNARY(mish, LT_IN(0), mish_second, .zero = "saturated",
         .doc = "y = x * tanh(softplus(x)), element by element. Misra 2019, arXiv 1908.08681.",
         .sample = {"normal(3, 4)"})

/* ---- softsign, tanhshrink
 * ---------------------------------------------------------------------------------- */

LT_KERNEL_1(softsign, x, x / (1 + ABS(x)))
/* x - x is 0, and NaN where y is */
LT_KERNEL_2(softsign_backward, dy, x, dy / ((1 + ABS(x)) * (1 + ABS(x))) + (x - x))
static lt_tensor *softsign_second(lt_vjp *v, lt_tensor *x) { /* -2 sign(x) f' / (1 + |x|) */
  lt_tensor *signed_slope = lt_mul(v->s, call(v, &lt_op_sign, x), lt_slope(v, x));
  lt_tensor *span = lt_shift(v->s, call(v, &lt_op_abs, x), 1);
  return lt_scale(v->s, lt_div(v->s, signed_slope, span), -2);
}
LT_UNARY(softsign, LT_IN(0), softsign_second, .zero = "saturated",
         .doc = "y = x / (1 + |x|), element by element.", .sample = {"normal(3, 4)"})

LT_KERNEL_1(tanhshrink, x, x - TANH(x))
LT_KERNEL_2(tanhshrink_backward, dy, x, dy *TANH(x) * TANH(x))
static lt_tensor *tanhshrink_second(lt_vjp *v, lt_tensor *x) { /* 2 t (1 - t^2) */
  lt_tensor *t = call(v, &lt_op_tanh, x);
  lt_tensor *flat = lt_shift(v->s, lt_neg(v->s, lt_mul(v->s, t, t)), 1);
  return lt_scale(v->s, lt_mul(v->s, t, flat), 2);
}
LT_UNARY(tanhshrink, LT_IN(0), tanhshrink_second, .doc = "y = x - tanh(x), element by element.",
         .sample = {"normal(3, 4)"})

/* ---- hardtanh, hardsigmoid, hardswish
 * ------------------------------------------------------------------------ */

enum { MIN_VAL, MAX_VAL };

static lt_status hardtanh_infer(lt_call *c) {
  double low = lt_get_number(c->attrs, c->op, MIN_VAL);
  double high = lt_get_number(c->attrs, c->op, MAX_VAL);
  if (low > high) {
    return lt_fail(c->ctx, "hardtanh: min_val (%g) is greater than max_val (%g)", low, high);
  }
  return lt_infer_elementwise(c);
}

LT_KERNEL_1(hardtanh, x, x<K(MIN_VAL) ? K(MIN_VAL) : x> K(MAX_VAL) ? K(MAX_VAL) : x)
LT_KERNEL_2(hardtanh_backward, dy, x, x > K(MIN_VAL) && x < K(MAX_VAL) ? dy : 0)
LT_UNARY_OF(hardtanh, LT_FLOAT, hardtanh_infer, LT_IN(0), NULL, .zero = "clipped",
            .doc = "y = min(max(x, min_val), max_val), element by element. The gradient at a bound "
                   "is 0.",
            .options = {{"min_val", LT_OPTION_NUMBER, .value = -1},
                        {"max_val", LT_OPTION_NUMBER, .value = 1}},
            .sample = {"normal(3, 4)", "normal(2, 3, 4), {min_val = -0.5, max_val = 2}"})

LT_KERNEL_1(hardsigmoid, x, x <= -3 ? 0 : x >= 3 ? 1 : (x + 3) / 6)
LT_KERNEL_2(hardsigmoid_backward, dy, x, x > -3 && x < 3 ? dy / 6 : 0)
LT_UNARY(hardsigmoid, LT_IN(0), NULL, .zero = "saturated",
         .doc = "y = min(max(x + 3, 0), 6) / 6, element by element: sigmoid in three pieces.",
         .sample = {"normal(3, 4)"})

LT_KERNEL_1(hardswish, x, x *(x <= -3 ? 0 : x >= 3 ? 1 : (x + 3) / 6))
LT_KERNEL_2(hardswish_backward, dy, x, x <= -3 ? 0 : x < 3 ? dy * (x / 3 + C(0.5)) : dy)
static lt_tensor *hardswish_second(lt_vjp *v, lt_tensor *x) { /* 1/3 between -3 and 3 */
  lt_tensor *slope = lt_do2(v->s, &hardsigmoid_backward, NULL, lt_number(v->s, 1), x);
  return lt_scale(v->s, slope, 2);
}
LT_UNARY(hardswish, LT_IN(0), hardswish_second, .zero = "saturated",
         .doc = "y = x * hardsigmoid(x), element by element. Howard et al. 2019, arXiv 1905.02244.",
         .sample = {"normal(3, 4)"})

/* ---- hardshrink, softshrink
 * ------------------------------------------------------------------------------------ */

enum { LAMBD };

static lt_status softshrink_infer(lt_call *c) {
  double lambd = lt_get_number(c->attrs, c->op, LAMBD);
  if (lambd < 0) return lt_fail(c->ctx, "softshrink: lambd must not be negative, got %g", lambd);
  return lt_infer_elementwise(c);
}

LT_KERNEL_1(hardshrink, x, x >= -K(LAMBD) && x <= K(LAMBD) ? 0 : x)
LT_KERNEL_2(hardshrink_backward, dy, x, x<-K(LAMBD) || x> K(LAMBD) ? dy : 0)
LT_UNARY(hardshrink, LT_IN(0), NULL, .zero = "clipped",
         .doc = "y = x where |x| > lambd, else 0, element by element.",
         .options = {{"lambd", LT_OPTION_NUMBER, .value = 0.5}},
         .sample = {"normal(3, 4)", "normal(2, 3, 4), {lambd = 1}"})

LT_KERNEL_1(softshrink, x, x > K(LAMBD) ? x - K(LAMBD) : x < -K(LAMBD) ? x + K(LAMBD) : x * 0)
LT_KERNEL_2(softshrink_backward, dy, x, x<-K(LAMBD) || x> K(LAMBD) ? dy : 0)
LT_UNARY_OF(softshrink, LT_FLOAT, softshrink_infer, LT_IN(0), NULL, .zero = "clipped",
            .doc = "y = x moved by lambd towards 0, which it does not pass, element by element.",
            .options = {{"lambd", LT_OPTION_NUMBER, .value = 0.5}},
            .sample = {"normal(3, 4)", "normal(2, 3, 4), {lambd = 1}"})

LT_FAMILY(activation, &lt_op_relu, &lt_op_relu6, &lt_op_leaky_relu, &lt_op_threshold, &lt_op_elu,
          &lt_op_selu, &lt_op_celu, &lt_op_sigmoid, &lt_op_logsigmoid, &lt_op_softplus, &lt_op_gelu,
          &lt_op_silu, &lt_op_mish, &lt_op_softsign, &lt_op_tanhshrink, &lt_op_hardtanh,
          &lt_op_hardsigmoid, &lt_op_hardswish, &lt_op_hardshrink, &lt_op_softshrink)
