/* Elementary functions of one variable: powers, exponentials, trigonometry. Many factors f' are
 * differentiated through themselves: (1 / (1 + x))' is minus its square. */
#include "ops/unary.h"

/* ---- Rules shared by every unary op -------------------------------------------------------- */

void lt_unary_vjp(lt_vjp *v, const lt_op *backward) {
  lt_tensor *s = v->in[0] ? v->in[0] : v->out[0];
  lt_give(v, 0, lt_do2(v->s, backward, v->attrs, v->dy[0], s));
}

static void give_zeros(lt_vjp *v, int i) {
  lt_spec spec = lt_input_spec(v, i);
  lt_give(v, i, lt_full_like(v->s, &spec, 0));
}

void lt_unary_backward_vjp(lt_vjp *v, lt_second *second) {
  lt_tensor *g = v->dy[0], *dy = v->in[0], *s = v->in[1];
  if (v->need[0]) lt_give(v, 0, lt_do2(v->s, v->op, v->attrs, g, s));
  if (!v->need[1]) return;
  if (second)
    lt_give(v, 1, lt_mul(v->s, lt_mul(v->s, g, dy), second(v, s)));
  else
    give_zeros(v, 1);
}

lt_tensor *lt_slope(lt_vjp *v, lt_tensor *s) {
  return lt_do2(v->s, v->op, v->attrs, lt_number(v->s, 1), s);
}

void lt_flat_vjp(lt_vjp *v) { give_zeros(v, 0); }

static lt_tensor *square_of(lt_vjp *v, lt_tensor *a) { return lt_mul(v->s, a, a); }
static lt_tensor *cube_of(lt_vjp *v, lt_tensor *a) { return lt_mul(v->s, a, square_of(v, a)); }

/* factor * s * f'(s)^power: what the second derivative of most inverse functions is */
static lt_tensor *s_slope_squared(lt_vjp *v, lt_tensor *s, double factor) {
  return lt_scale(v->s, lt_mul(v->s, s, square_of(v, lt_slope(v, s))), factor);
}
static lt_tensor *s_slope_cubed(lt_vjp *v, lt_tensor *s, double factor) {
  return lt_scale(v->s, lt_mul(v->s, s, cube_of(v, lt_slope(v, s))), factor);
}

static lt_tensor *one(lt_vjp *v, lt_tensor *s) {
  (void)s;
  return lt_number(v->s, 1);
}

/* ---- abs, sign ---------------------------------------------------------------------------- */

#define SIGN(x) ((x) <= 0 ? ((x) == 0 ? 0 : -1) : (x) > 0)

LT_NUMBER_KERNEL_1(abs, x, (T)(x <= 0 ? 0 - x : x))
LT_KERNEL_2(abs_backward, dy, x, dy *C(SIGN(x)))

LT_UNARY_OF(abs, LT_ANY, lt_infer_elementwise, LT_IN(0), NULL,
            .doc = "Absolute value, y = |x|, element by element. The gradient at 0 is 0.",
            .sample = {"normal(3, 4)"})

LT_NUMBER_KERNEL_1(sign, x, (T)SIGN(x))

const lt_op lt_op_sign = {
    .name = "sign",
    .doc = "-1, 0 or 1 as x is negative, zero or positive; 0 for NaN. The gradient is 0.",
    .inputs = {{"x", LT_ANY}},
    .infer = lt_infer_elementwise,
    .kernel = &sign_kernel,
    .vjp = lt_flat_vjp,
    .zero = "flat-op",
    .sample = {"normal(3, 4)"},
};

/* ---- square, sqrt, rsqrt, reciprocal -------------------------------------------------------- */

LT_NUMBER_KERNEL_1(square, x, (T)(x *x))
LT_KERNEL_2(square_backward, dy, x, 2 * dy * x)
static lt_tensor *square_second(lt_vjp *v, lt_tensor *x) {
  (void)x;
  return lt_number(v->s, 2);
}
LT_UNARY_OF(square, LT_ANY, lt_infer_elementwise, LT_IN(0), square_second,
            .doc = "Square, y = x^2, element by element.", .sample = {"normal(3, 4)"})

LT_KERNEL_1(sqrt, x, SQRT(x))
LT_KERNEL_2(sqrt_backward, dy, y, dy / (2 * y))
static lt_tensor *sqrt_second(lt_vjp *v, lt_tensor *y) { /* -1 / (2 y^2) */
  return lt_scale(v->s, square_of(v, lt_slope(v, y)), -2);
}
LT_UNARY(sqrt, LT_OUT(0), sqrt_second,
         .doc = "Square root, y = sqrt(x), element by element; NaN for x < 0.",
         .sample = {"positive(3, 4)"})

LT_KERNEL_1(rsqrt, x, 1 / SQRT(x))
LT_KERNEL_2(rsqrt_backward, dy, y, C(-0.5) * dy * y * y * y)
static lt_tensor *rsqrt_second(lt_vjp *v, lt_tensor *y) {
  return lt_scale(v->s, square_of(v, y), -1.5);
}
LT_UNARY(rsqrt, LT_OUT(0), rsqrt_second,
         .doc = "Reciprocal square root, y = 1 / sqrt(x), element by element; NaN for x < 0.",
         .sample = {"positive(3, 4)"})

LT_KERNEL_1(reciprocal, x, 1 / x)
LT_KERNEL_2(reciprocal_backward, dy, y, -dy *y *y)
static lt_tensor *reciprocal_second(lt_vjp *v, lt_tensor *y) { return lt_scale(v->s, y, -2); }
LT_UNARY(reciprocal, LT_OUT(0), reciprocal_second,
         .doc = "Reciprocal, y = 1 / x, element by element.", .sample = {"positive(3, 4)"})

/* ---- exp, expm1 ------------------------------------------------------------------------------ */

LT_KERNEL_1(exp, x, EXP(x))

static void exp_vjp(lt_vjp *v) { lt_give(v, 0, lt_mul(v->s, v->dy[0], v->out[0])); }

const lt_op lt_op_exp = {
    .name = "exp",
    .doc = "Exponential, y = e^x, element by element.",
    .inputs = {{"x", LT_FLOAT}},
    .infer = lt_infer_elementwise,
    .kernel = &exp_kernel,
    .vjp = exp_vjp,
    .zero = "saturated",
    .saves = LT_OUT(0),
    .sample = {"normal(3, 4)"},
};

LT_KERNEL_1(expm1, x, EXPM1(x))
LT_KERNEL_2(expm1_backward, dy, y, dy *(y + 1))
LT_UNARY(expm1, LT_OUT(0), one, .doc = "y = e^x - 1, exact also for small x, element by element.",
         .sample = {"normal(3, 4)"})

/* ---- log, log2, log10, log1p ------------------------------------------------------------------
 */

static void log_vjp(lt_vjp *v) { lt_give(v, 0, lt_div(v->s, v->dy[0], v->in[0])); }
static void log2_vjp(lt_vjp *v) { /* / ln 2 */
  lt_give(v, 0, lt_scale(v->s, lt_div(v->s, v->dy[0], v->in[0]), 1.44269504088896340736));
}
static void log10_vjp(lt_vjp *v) { /* / ln 10 */
  lt_give(v, 0, lt_scale(v->s, lt_div(v->s, v->dy[0], v->in[0]), 0.43429448190325182765));
}

LT_KERNEL_1(log, x, LOG(x))

const lt_op lt_op_log = {
    .name = "log",
    .doc = "Natural logarithm, y = ln(x), element by element; -inf at 0, NaN for x < 0.",
    .inputs = {{"x", LT_FLOAT}},
    .infer = lt_infer_elementwise,
    .kernel = &log_kernel,
    .vjp = log_vjp,
    .saves = LT_IN(0),
    .sample = {"positive(3, 4)"},
};

LT_PLAIN_KERNEL_1(log2, x, LOG2(x))

const lt_op lt_op_log2 = {
    .name = "log2",
    .doc = "Logarithm to base 2, element by element; -inf at 0, NaN for x < 0.",
    .inputs = {{"x", LT_FLOAT}},
    .infer = lt_infer_elementwise,
    .kernel = &log2_kernel,
    .vjp = log2_vjp,
    .saves = LT_IN(0),
    .sample = {"positive(3, 4)"},
};

LT_PLAIN_KERNEL_1(log10, x, LOG10(x))

const lt_op lt_op_log10 = {
    .name = "log10",
    .doc = "Logarithm to base 10, element by element; -inf at 0, NaN for x < 0.",
    .inputs = {{"x", LT_FLOAT}},
    .infer = lt_infer_elementwise,
    .kernel = &log10_kernel,
    .vjp = log10_vjp,
    .saves = LT_IN(0),
    .sample = {"positive(3, 4)"},
};

LT_KERNEL_1(log1p, x, LOG1P(x))
LT_KERNEL_2(log1p_backward, dy, x, dy / (1 + x))
static lt_tensor *log1p_second(lt_vjp *v, lt_tensor *x) {
  return lt_neg(v->s, square_of(v, lt_slope(v, x)));
}
LT_UNARY(log1p, LT_IN(0), log1p_second,
         .doc = "y = ln(1 + x), exact also for small x, element by element.",
         .sample = {"positive(3, 4)"})

/* ---- sin, cos, tan ----------------------------------------------------------------------------
 */

static lt_tensor *minus_sin(lt_vjp *v, lt_tensor *x) {
  return lt_neg(v->s, lt_do1(v->s, &lt_op_sin, NULL, x));
}
static lt_tensor *minus_cos(lt_vjp *v, lt_tensor *x) {
  return lt_neg(v->s, lt_do1(v->s, &lt_op_cos, NULL, x));
}

LT_PLAIN_KERNEL_1(sin, x, SIN(x))
LT_PLAIN_KERNEL_2(sin_backward, dy, x, dy *COS(x))
LT_UNARY(sin, LT_IN(0), minus_sin, .doc = "Sine of x in radians, element by element.",
         .sample = {"normal(3, 4)"})

LT_PLAIN_KERNEL_1(cos, x, COS(x))
LT_PLAIN_KERNEL_2(cos_backward, dy, x, -dy *SIN(x))
LT_UNARY(cos, LT_IN(0), minus_cos, .doc = "Cosine of x in radians, element by element.",
         .sample = {"normal(3, 4)"})

LT_PLAIN_KERNEL_1(tan, x, TAN(x))
LT_KERNEL_2(tan_backward, dy, y, dy *(1 + y * y))
static lt_tensor *tan_second(lt_vjp *v, lt_tensor *y) { return lt_scale(v->s, y, 2); }
LT_UNARY(tan, LT_OUT(0), tan_second, .doc = "Tangent of x in radians, element by element.",
         .sample = {"uniform(3, 4)"})

/* ---- asin, acos, atan ---------------------------------------------------------------------------
 */

static lt_tensor *plus_cubed(lt_vjp *v, lt_tensor *x) { return s_slope_cubed(v, x, 1); }
static lt_tensor *minus_cubed(lt_vjp *v, lt_tensor *x) { return s_slope_cubed(v, x, -1); }
static lt_tensor *plus_squared(lt_vjp *v, lt_tensor *x) { return s_slope_squared(v, x, 2); }
static lt_tensor *minus_squared(lt_vjp *v, lt_tensor *x) { return s_slope_squared(v, x, -2); }

LT_PLAIN_KERNEL_1(asin, x, ASIN(x))
LT_KERNEL_2(asin_backward, dy, x, dy / SQRT((1 - x) * (1 + x)))
LT_UNARY(asin, LT_IN(0), plus_cubed,
         .doc = "Arcsine in radians, element by element; NaN outside [-1, 1].",
         .sample = {"uniform(3, 4)"})

LT_PLAIN_KERNEL_1(acos, x, ACOS(x))
LT_KERNEL_2(acos_backward, dy, x, -dy / SQRT((1 - x) * (1 + x)))
LT_UNARY(acos, LT_IN(0), plus_cubed,
         .doc = "Arccosine in radians, element by element; NaN outside [-1, 1].",
         .sample = {"uniform(3, 4)"})

LT_PLAIN_KERNEL_1(atan, x, ATAN(x))
LT_KERNEL_2(atan_backward, dy, x, dy / (1 + x * x))
LT_UNARY(atan, LT_IN(0), minus_squared, .doc = "Arctangent in radians, element by element.",
         .sample = {"normal(3, 4)"})

/* ---- sinh, cosh, tanh
 * ---------------------------------------------------------------------------- */

static lt_tensor *sinh_of(lt_vjp *v, lt_tensor *x) { return lt_do1(v->s, &lt_op_sinh, NULL, x); }
static lt_tensor *cosh_of(lt_vjp *v, lt_tensor *x) { return lt_do1(v->s, &lt_op_cosh, NULL, x); }

LT_PLAIN_KERNEL_1(sinh, x, SINH(x))
LT_PLAIN_KERNEL_2(sinh_backward, dy, x, dy *COSH(x))
LT_UNARY(sinh, LT_IN(0), sinh_of, .doc = "Hyperbolic sine, element by element.",
         .sample = {"normal(3, 4)"})

LT_PLAIN_KERNEL_1(cosh, x, COSH(x))
LT_PLAIN_KERNEL_2(cosh_backward, dy, x, dy *SINH(x))
LT_UNARY(cosh, LT_IN(0), cosh_of, .doc = "Hyperbolic cosine, element by element.",
         .sample = {"normal(3, 4)"})

LT_KERNEL_1(tanh, x, TANH(x))
LT_KERNEL_2(tanh_backward, dy, y, dy *(1 - y * y))
static lt_tensor *tanh_second(lt_vjp *v, lt_tensor *y) { return lt_scale(v->s, y, -2); }
LT_UNARY(tanh, LT_OUT(0), tanh_second, .zero = "saturated",
         .doc = "Hyperbolic tangent, y = tanh(x), element by element.", .sample = {"normal(3, 4)"})

/* ---- asinh, acosh, atanh
 * -------------------------------------------------------------------------- */

LT_PLAIN_KERNEL_1(asinh, x, ASINH(x))
LT_KERNEL_2(asinh_backward, dy, x, dy / SQRT(1 + x * x))
LT_UNARY(asinh, LT_IN(0), minus_cubed, .doc = "Inverse hyperbolic sine, element by element.",
         .sample = {"normal(3, 4)"})

LT_PLAIN_KERNEL_1(acosh, x, ACOSH(x))
LT_KERNEL_2(acosh_backward, dy, x, dy / SQRT((ABS(x) - 1) * (ABS(x) + 1)))
LT_UNARY(acosh, LT_IN(0), minus_cubed,
         .doc = "Inverse hyperbolic cosine, element by element; NaN for x < 1.",
         .sample = {"positive(3, 4) + 1"})

LT_PLAIN_KERNEL_1(atanh, x, ATANH(x))
LT_KERNEL_2(atanh_backward, dy, x, dy / ((1 - x) * (1 + x)))
LT_UNARY(atanh, LT_IN(0), plus_squared,
         .doc = "Inverse hyperbolic tangent, element by element; NaN outside [-1, 1].",
         .sample = {"uniform(3, 4)"})

LT_FAMILY(unary, &lt_op_abs, &lt_op_sign, &lt_op_square, &lt_op_sqrt, &lt_op_rsqrt,
          &lt_op_reciprocal, &lt_op_exp, &lt_op_expm1, &lt_op_log, &lt_op_log2, &lt_op_log10,
          &lt_op_log1p, &lt_op_sin, &lt_op_cos, &lt_op_tan, &lt_op_asin, &lt_op_acos, &lt_op_atan,
          &lt_op_sinh, &lt_op_cosh, &lt_op_tanh, &lt_op_asinh, &lt_op_acosh, &lt_op_atanh)
