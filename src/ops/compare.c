/* Questions with the answer true or false. Operands meet in their common type first, so that an
 * integer compares with a float as PyTorch has it; no gradient passes. */
#include "kernels/elementwise.h"
#include "ops/family.h"

#include <math.h>
#include <string.h>

/* One comparison: all have the same inputs and rule. */
#define COMPARISON(NAME, EXPRESSION, DOC)                                                          \
  LT_PREDICATE_2(is_##NAME, x, other, EXPRESSION)                                                  \
  const lt_op lt_op_##NAME = {                                                                     \
      .name = #NAME,                                                                               \
      .doc = DOC,                                                                                  \
      .inputs = {{"x", LT_ANY}, {"other", LT_ANY}},                                                \
      .infer = lt_infer_predicate,                                                                 \
      .kernel = &is_##NAME##_kernel,                                                               \
      .sample = {"normal(3, 4), normal(3, 4)", "integers(1, 3, 2, 3, 1), integers(1, 3, 4)"},      \
  };

/* ---- eq, ne, lt, le, gt, ge ------------------------------------------------------------------ */

COMPARISON(eq, x == other,
           "Is x equal to other? A bool tensor, with broadcasting; NaN equals nothing.")
COMPARISON(ne, x != other,
           "Is x unlike other? A bool tensor, with broadcasting; NaN is unlike all.")
COMPARISON(lt, x < other, "Is x less than other? A bool tensor, with broadcasting.")
COMPARISON(le, x <= other, "Is x at most other? A bool tensor, with broadcasting.")
COMPARISON(gt, x > other, "Is x greater than other? A bool tensor, with broadcasting.")
COMPARISON(ge, x >= other, "Is x at least other? A bool tensor, with broadcasting.")

/* ---- logical_and, logical_or, logical_xor ------------------------------------------------------
 */

COMPARISON(logical_and, x != 0 && other != 0,
           "Are both x and other true? Anything but 0 is true; with broadcasting.")
COMPARISON(logical_or, x != 0 || other != 0,
           "Is x or other true? Anything but 0 is true; with broadcasting.")
COMPARISON(logical_xor, (x != 0) != (other != 0),
           "Is one of x and other true, and not both? Anything but 0 is true; with broadcasting.")

/* ---- isclose -----------------------------------------------------------------------------------
 */

enum { RTOL, ATOL, EQUAL_NAN };

static inline bool is_close(double x, double other, const double *k) {
  if (x == other) return true; /* infinities too */
  if (isnan(x) && isnan(other)) return k[EQUAL_NAN] != 0;
  double error = fabs(x - other);
  return isfinite(error) && error <= k[ATOL] + fabs(k[RTOL] * other);
}

LT_PREDICATE_2(isclose, x, other, is_close((double)x, (double)other, k))

static lt_status isclose_infer(lt_call *c) {
  for (int i = RTOL; i <= ATOL; i++) {
    double tolerance = lt_get_number(c->attrs, c->op, i);
    if (tolerance >= 0) continue;
    return lt_fail(c->ctx, "%s: %s = %g must be 0 or more", c->op->name, c->op->options[i].name,
                   tolerance);
  }
  return lt_infer_predicate(c);
}

const lt_op lt_op_isclose = {
    .name = "isclose",
    .doc = "Is |x - other| <= atol + rtol * |other|? A bool tensor, with broadcasting. Equal "
           "infinities are close; two NaN are if equal_nan.",
    .inputs = {{"x", LT_ANY}, {"other", LT_ANY}},
    .options = {{"rtol", LT_OPTION_NUMBER, .value = 1e-5},
                {"atol", LT_OPTION_NUMBER, .value = 1e-8},
                {"equal_nan", LT_OPTION_BOOL}},
    .infer = isclose_infer,
    .kernel = &isclose_kernel,
    .sample = {"normal(3, 4), normal(3, 4)", "normal(3, 4), normal(4), {rtol = 0.5, atol = 0.1}"},
};

LT_FAMILY(compare, &lt_op_eq, &lt_op_ne, &lt_op_lt, &lt_op_le, &lt_op_gt, &lt_op_ge,
          &lt_op_logical_and, &lt_op_logical_or, &lt_op_logical_xor, &lt_op_isclose)
