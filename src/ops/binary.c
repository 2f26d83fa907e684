/* Functions of two operands from plane geometry, and the sign taken from another. */
#include "kernels/elementwise.h"
#include "ops/family.h"
#include "tape/vjp.h"

#include <tgmath.h>

/* ---- hypot ---------------------------------------------------------------------------------- */

LT_PLAIN_KERNEL_2(hypot, x, other, hypot(x, other))

static void hypot_vjp(lt_vjp *v) { /* d/dx = x / y */
  for (int i = 0; i < 2; i++) {
    if (!v->need[i]) continue;
    lt_give(v, i, lt_mul(v->s, v->dy[0], lt_div(v->s, v->in[i], v->out[0])));
  }
}

const lt_op lt_op_hypot = {
    .name = "hypot",
    .doc = "y = sqrt(x^2 + other^2), without overflow; with broadcasting.",
    .inputs = {{"x", LT_FLOAT}, {"other", LT_FLOAT}},
    .infer = lt_infer_elementwise,
    .kernel = &hypot_kernel,
    .vjp = hypot_vjp,
    .saves = LT_IN(0) | LT_IN(1) | LT_OUT(0),
    .sample = {"normal(3, 4), positive(3, 4)", "positive(2, 3, 1), normal(4)"},
};

/* ---- atan2 ---------------------------------------------------------------------------------- */

LT_PLAIN_KERNEL_2(atan2, x, other, atan2(x, other))

/* dx = other / r^2, dother = -x / r^2 with r = hypot(x, other); both 0 at the origin (PyTorch). */
static void atan2_vjp(lt_vjp *v) {
  lt_scope *s = v->s;
  lt_tensor *x = v->in[0], *other = v->in[1], *zero = lt_number(s, 0);
  lt_tensor *r = lt_do2(s, &lt_op_hypot, NULL, x, other);
  lt_tensor *scaled = lt_do3(s, &lt_op_where, NULL, lt_do2(s, &lt_op_eq, NULL, r, zero), zero,
                             lt_div(s, lt_div(s, v->dy[0], r), r));
  if (v->need[0]) lt_give(v, 0, lt_mul(s, scaled, other));
  if (v->need[1]) lt_give(v, 1, lt_neg(s, lt_mul(s, scaled, x)));
}

const lt_op lt_op_atan2 = {
    .name = "atan2",
    .doc = "Angle of the point (other, x) seen from the origin, in (-pi, pi]; with broadcasting.",
    .inputs = {{"x", LT_FLOAT}, {"other", LT_FLOAT}},
    .infer = lt_infer_elementwise,
    .kernel = &atan2_kernel,
    .vjp = atan2_vjp,
    .saves = LT_IN(0) | LT_IN(1),
    .sample = {"normal(3, 4), positive(3, 4)", "positive(2, 3, 1), normal(4)"},
};

/* ---- copysign ------------------------------------------------------------------------------- */

LT_KERNEL_2(copysign, x, other, copysign(x, other))

extern const lt_op lt_op_copysign_backward;

static void copysign_vjp(lt_vjp *v) {
  if (v->need[0]) {
    lt_give(v, 0, lt_do3(v->s, &lt_op_copysign_backward, NULL, v->dy[0], v->in[0], v->in[1]));
  }
  if (v->need[1]) {
    lt_spec spec = lt_input_spec(v, 1);
    lt_give(v, 1, lt_full_like(v->s, &spec, 0));
  }
}

const lt_op lt_op_copysign = {
    .name = "copysign",
    .doc = "The magnitude of x with the sign of other (that of a zero counts); with broadcasting. "
           "The gradient of other is zero.",
    .inputs = {{"x", LT_FLOAT}, {"other", LT_FLOAT}},
    .infer = lt_infer_elementwise,
    .kernel = &copysign_kernel,
    .vjp = copysign_vjp,
    .saves = LT_IN(0) | LT_IN(1),
    .sample = {"positive(3, 4), positive(3, 4)", "positive(2, 3, 1), -2"},
};

LT_KERNEL_3(copysign_backward, dy, x, other, x == 0 ? 0 : dy * (copysign(x, other) / x))

static void copysign_backward_vjp(lt_vjp *v) {
  if (v->need[0]) lt_give(v, 0, lt_do3(v->s, v->op, NULL, v->dy[0], v->in[1], v->in[2]));
}

const lt_op lt_op_copysign_backward = {
    .name = "copysign_backward",
    .doc = "Gradient of copysign in x: dy * y / x, and 0 where x is 0.",
    .inputs = {{"dy", LT_FLOAT}, {"x", LT_FLOAT}, {"other", LT_FLOAT}},
    .infer = lt_infer_elementwise,
    .kernel = &copysign_backward_kernel,
    .vjp = copysign_backward_vjp,
    .saves = LT_IN(1) | LT_IN(2),
    .internal = true,
    .sample = {"normal(3, 4), positive(3, 4), positive(3, 4)"},
};

LT_FAMILY(binary, &lt_op_atan2, &lt_op_hypot, &lt_op_copysign, &lt_op_copysign_backward)
