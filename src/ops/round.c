/* Rounding, and questions about a number: functions made of steps, so gradients are 0 (frac: 1). */
#include "ops/unary.h"

/* ---- floor, ceil, trunc, frac -----------------------------------------------------------------
 */

LT_NUMBER_KERNEL_1(floor, x, (T)FLOOR(x))

const lt_op lt_op_floor = {
    .name = "floor",
    .doc = "The largest integer <= x, element by element, in x's type. The gradient is 0.",
    .inputs = {{"x", LT_ANY}},
    .infer = lt_infer_elementwise,
    .kernel = &floor_kernel,
    .vjp = lt_flat_vjp,
    .zero = "flat-op",
    .sample = {"normal(3, 4)"},
};

LT_NUMBER_KERNEL_1(ceil, x, (T)CEIL(x))

const lt_op lt_op_ceil = {
    .name = "ceil",
    .doc = "The smallest integer >= x, element by element, in x's type. The gradient is 0.",
    .inputs = {{"x", LT_ANY}},
    .infer = lt_infer_elementwise,
    .kernel = &ceil_kernel,
    .vjp = lt_flat_vjp,
    .zero = "flat-op",
    .sample = {"normal(3, 4)"},
};

LT_NUMBER_KERNEL_1(trunc, x, (T)TRUNC(x))

const lt_op lt_op_trunc = {
    .name = "trunc",
    .doc = "x without its fraction, element by element, in x's type. The gradient is 0.",
    .inputs = {{"x", LT_ANY}},
    .infer = lt_infer_elementwise,
    .kernel = &trunc_kernel,
    .vjp = lt_flat_vjp,
    .zero = "flat-op",
    .sample = {"normal(3, 4)"},
};

LT_KERNEL_1(frac, x, x - TRUNC(x))

static void frac_vjp(lt_vjp *v) { lt_give(v, 0, v->dy[0]); }

const lt_op lt_op_frac = {
    .name = "frac",
    .doc = "The fraction of x with x's sign, y = x - trunc(x), element by element. The gradient "
           "passes through.",
    .inputs = {{"x", LT_FLOAT}},
    .infer = lt_infer_elementwise,
    .kernel = &frac_kernel,
    .vjp = frac_vjp,
    .sample = {"normal(3, 4)"},
};

/* ---- round --------------------------------------------------------------------------------------
 */

enum { DECIMALS };

static lt_status round_infer(lt_call *c) {
  LT_TRY(lt_infer_elementwise(c));
  int64_t decimals = lt_get_int(c->attrs, c->op, DECIMALS);
  if (decimals < 0 && !lt_dtype_is_float(c->dtype)) {
    return lt_fail(c->ctx, "round: decimals = %lld needs floats, x is %s", (long long)decimals,
                   lt_dtype_name(c->dtype));
  }
  return LT_OK;
}

/* To a multiple of 10^-decimals. Powers of ten with a negative exponent are not exact: those of
 * their opposites are. */
static inline double round_to(double x, double decimals) {
  double scale = pow(10, fmin(fabs(decimals), 308));
  if (decimals < 0) return rint(x / scale) * scale;
  double y = x * scale;
  return isfinite(y) ? rint(y) / scale : x;
}
static inline int64_t round_integer(int64_t x, double decimals) {
  (void)decimals; /* not negative: round_infer */
  return x;
}
#define ROUND_TO(x, decimals)                                                                      \
  _Generic((x), float : round_to, double : round_to, default : round_integer)(x, decimals)

LT_NUMBER_KERNEL_1(round, x, (T)(k[DECIMALS] == 0 ? ROUND(x) : ROUND_TO(x, k[DECIMALS])))

const lt_op lt_op_round = {
    .name = "round",
    .doc = "The nearest integer, halves to the even one, or the nearest number with so many "
           "decimals (negative: tens, hundreds, ...); element by element, in x's type. The "
           "gradient is 0.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"decimals", LT_OPTION_INT}},
    .infer = round_infer,
    .kernel = &round_kernel,
    .vjp = lt_flat_vjp,
    .zero = "flat-op",
    .sample = {"normal(3, 4)", "normal(2, 3, 4), {decimals = 2}"},
};

/* ---- isnan, isinf, isfinite, logical_not
 * ---------------------------------------------------------- */

LT_PREDICATE_1(isnan, x, isnan((double)x) != 0)

const lt_op lt_op_isnan = {
    .name = "isnan",
    .doc = "Is x not a number? A bool for each element.",
    .inputs = {{"x", LT_ANY}},
    .infer = lt_infer_predicate,
    .kernel = &isnan_kernel,
    .sample = {"normal(3, 4)"},
};

LT_PREDICATE_1(isinf, x, isinf((double)x) != 0)

const lt_op lt_op_isinf = {
    .name = "isinf",
    .doc = "Is x infinite? A bool for each element.",
    .inputs = {{"x", LT_ANY}},
    .infer = lt_infer_predicate,
    .kernel = &isinf_kernel,
    .sample = {"normal(3, 4)"},
};

LT_PREDICATE_1(isfinite, x, isfinite((double)x) != 0)

const lt_op lt_op_isfinite = {
    .name = "isfinite",
    .doc = "Is x neither infinite nor NaN? A bool for each element.",
    .inputs = {{"x", LT_ANY}},
    .infer = lt_infer_predicate,
    .kernel = &isfinite_kernel,
    .sample = {"normal(3, 4)"},
};

LT_PREDICATE_1(logical_not, x, x == 0)

const lt_op lt_op_logical_not = {
    .name = "logical_not",
    .doc = "Is x zero (false)? A bool for each element.",
    .inputs = {{"x", LT_ANY}},
    .infer = lt_infer_predicate,
    .kernel = &logical_not_kernel,
    .sample = {"mask(3, 4)", "integers(0, 2, 3, 4)"},
};

LT_FAMILY(round, &lt_op_floor, &lt_op_ceil, &lt_op_trunc, &lt_op_frac, &lt_op_round, &lt_op_isnan,
          &lt_op_isinf, &lt_op_isfinite, &lt_op_logical_not)
