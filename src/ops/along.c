/* Internal ops that gradients of reductions and scans are made of: elementwise forms that end in 0
 * or 1 where a quotient would not exist. Each has a gradient made of them again. */
#include "kernels/elementwise.h"
#include "kernels/math.h"
#include "ops/family.h"
#include "ops/reduction.h"

/* ---- exp_difference ----------------------------------------------------------------------- */

enum { EQUAL };

LT_KERNEL_2(exp_difference, x, other, k[EQUAL] != 0 && x == other ? 1 : EXP(x - other))

static void exp_difference_vjp(lt_vjp *v) {
  lt_tensor *g = lt_mul(v->s, v->dy[0], v->out[0]);
  if (v->need[0]) lt_give(v, 0, g);
  if (v->need[1]) lt_give(v, 1, lt_neg(v->s, g));
}

const lt_op lt_op_exp_difference = {
    .name = "exp_difference",
    .doc = "exp(x - other); with equal, 1 where the two are equal, infinities too.",
    .inputs = {{"x", LT_FLOAT}, {"other", LT_FLOAT}},
    .options = {{"equal", LT_OPTION_BOOL}},
    .infer = lt_infer_elementwise,
    .kernel = &exp_difference_kernel,
    .vjp = exp_difference_vjp,
    .saves = LT_OUT(0),
    .internal = true,
};

lt_tensor *lt_exp_difference(lt_scope *s, lt_tensor *x, lt_tensor *other, bool equal) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_exp_difference);
  lt_attrs_set_int(&attrs, &lt_op_exp_difference, EQUAL, equal);
  return lt_do2(s, &lt_op_exp_difference, &attrs, x, other);
}

/* ---- div_or_zero --------------------------------------------------------------------------- */

LT_KERNEL_2(div_or_zero, x, other, other == 0 ? 0 : x / other)

static void div_or_zero_vjp(lt_vjp *v) {
  lt_tensor *scaled = lt_div_or_zero(v->s, v->dy[0], v->in[1]);
  if (v->need[0]) lt_give(v, 0, scaled);
  if (v->need[1]) lt_give(v, 1, lt_neg(v->s, lt_mul(v->s, scaled, v->out[0])));
}

const lt_op lt_op_div_or_zero = {
    .name = "div_or_zero",
    .doc = "x / other, and 0 where other is 0.",
    .inputs = {{"x", LT_FLOAT}, {"other", LT_FLOAT}},
    .infer = lt_infer_elementwise,
    .kernel = &div_or_zero_kernel,
    .vjp = div_or_zero_vjp,
    .saves = LT_IN(1) | LT_OUT(0),
    .internal = true,
};

lt_tensor *lt_div_or_zero(lt_scope *s, lt_tensor *x, lt_tensor *other) {
  return lt_do2(s, &lt_op_div_or_zero, NULL, x, other);
}

LT_FAMILY(along, &lt_op_exp_difference, &lt_op_div_or_zero)
