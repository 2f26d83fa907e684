/* The four operations, the sign and the remainders: the ops behind + - * / // % and unary minus,
 * and the products that add up in one pass. Integers stay integers except in a true quotient. */
#include "kernels/copy.h"
#include "kernels/elementwise.h"
#include "kernels/find.h"
#include "ops/family.h"
#include "tape/vjp.h"

#include <tgmath.h>

/* Arithmetic on booleans counts: true is 1. */
static lt_status infer_number(lt_call *c) {
  LT_TRY(lt_infer_elementwise(c));
  if (c->dtype == LT_BOOL) c->result[0].dtype = c->dtype = LT_INT64;
  return LT_OK;
}

/* The same for ops whose option 0 is a factor: it must fit the result's type. */
static lt_status infer_with_factor(lt_call *c) {
  LT_TRY(infer_number(c));
  double factor = lt_get_number(c->attrs, c->op, 0);
  double most = c->dtype == LT_UINT8 ? UINT8_MAX : c->dtype == LT_INT32 ? INT32_MAX : 0x1p53;
  double least = c->dtype == LT_UINT8 ? 0 : -most;
  if (lt_dtype_is_float(c->dtype) ||
      (factor == floor(factor) && factor >= least && factor <= most)) {
    return LT_OK;
  }
  return lt_fail(c->ctx, "%s: %s = %g does not fit a result of %s", c->op->name,
                 c->op->options[0].name, factor, lt_dtype_name(c->dtype));
}

static void give_zeros(lt_vjp *v) {
  for (int i = 0; i < v->inputs; i++) {
    lt_spec spec = lt_input_spec(v, i);
    if (v->need[i]) lt_give(v, i, lt_full_like(v->s, &spec, 0));
  }
}

/* ---- add -------------------------------------------------------------------------------- */

enum { ALPHA };

LT_NUMBER_KERNEL_2(add, x, other, (T)(x + K(ALPHA) * other))

static void add_vjp(lt_vjp *v) {
  double alpha = lt_get_number(v->attrs, v->op, ALPHA);
  if (v->need[0]) lt_give(v, 0, v->dy[0]);
  if (v->need[1]) lt_give(v, 1, alpha == 1 ? v->dy[0] : lt_scale(v->s, v->dy[0], alpha));
}

const lt_op lt_op_add = {
    .name = "add",
    .doc = "Sum, y = x + alpha * other, element by element with broadcasting. Also x + other.",
    .inputs = {{"x", LT_ANY}, {"other", LT_ANY}},
    .options = {{"alpha", LT_OPTION_NUMBER, .value = 1}},
    .infer = infer_with_factor,
    .kernel = &add_kernel,
    .vjp = add_vjp,
    .sample = {"normal(3, 4), normal(3, 4)", "normal(3, 4), normal(4), {alpha = 2}",
               "normal(), normal(2, 1)"},
};

/* ---- sub -------------------------------------------------------------------------------- */

LT_NUMBER_KERNEL_2(sub, x, other, (T)(x - K(ALPHA) * other))

static void sub_vjp(lt_vjp *v) {
  double alpha = lt_get_number(v->attrs, v->op, ALPHA);
  if (v->need[0]) lt_give(v, 0, v->dy[0]);
  if (v->need[1]) {
    lt_give(v, 1, alpha == 1 ? lt_neg(v->s, v->dy[0]) : lt_scale(v->s, v->dy[0], -alpha));
  }
}

const lt_op lt_op_sub = {
    .name = "sub",
    .doc =
        "Difference, y = x - alpha * other, element by element with broadcasting. Also x - other.",
    .inputs = {{"x", LT_ANY}, {"other", LT_ANY}},
    .options = {{"alpha", LT_OPTION_NUMBER, .value = 1}},
    .infer = infer_with_factor,
    .kernel = &sub_kernel,
    .vjp = sub_vjp,
    .sample = {"normal(3, 4), normal(3, 4)", "normal(3, 1), normal(4), {alpha = 0.5}"},
};

/* ---- mul -------------------------------------------------------------------------------- */

LT_NUMBER_KERNEL_2(mul, x, other, (T)(x *other))

static void mul_vjp(lt_vjp *v) {
  if (v->need[0]) lt_give(v, 0, lt_mul(v->s, v->dy[0], v->in[1]));
  if (v->need[1]) lt_give(v, 1, lt_mul(v->s, v->dy[0], v->in[0]));
}

const lt_op lt_op_mul = {
    .name = "mul",
    .doc = "Product, y = x * other, element by element with broadcasting. Also x * other.",
    .inputs = {{"x", LT_ANY}, {"other", LT_ANY}},
    .infer = infer_number,
    .kernel = &mul_kernel,
    .vjp = mul_vjp,
    .saves = LT_IN(0) | LT_IN(1),
    .crosswise = true,
    .sample = {"normal(3, 4), normal(3, 4)", "normal(3, 1), normal(2, 1, 4)"},
};

/* ---- neg -------------------------------------------------------------------------------- */

LT_NUMBER_KERNEL_1(neg, x, (T)(-x))

static void neg_vjp(lt_vjp *v) { lt_give(v, 0, lt_neg(v->s, v->dy[0])); }

const lt_op lt_op_neg = {
    .name = "neg",
    .doc = "Negative, y = -x, element by element. Also -x.",
    .inputs = {{"x", LT_ANY}},
    .infer = infer_number,
    .kernel = &neg_kernel,
    .vjp = neg_vjp,
    .sample = {"normal(3, 4)"},
};

/* ---- Whole quotients and remainders, of integers in 64 bits and of floats ----------------- */

/* The quotient that division by -1 has when it overflows wraps around instead of trapping. */
static inline int64_t trunc_int(int64_t x, int64_t d) { return d == -1 ? -x : x / d; }
static inline int64_t fmod_int(int64_t x, int64_t d) { return d == -1 ? 0 : x % d; }
static inline int64_t floor_int(int64_t x, int64_t d) {
  return trunc_int(x, d) - (fmod_int(x, d) != 0 && (x < 0) != (d < 0));
}
static inline int64_t remainder_int(int64_t x, int64_t d) {
  int64_t r = fmod_int(x, d);
  return r != 0 && (r < 0) != (d < 0) ? r + d : r;
}

static inline float trunc_float32(float x, float d) { return trunc(x / d); }
static inline double trunc_float(double x, double d) { return trunc(x / d); }
static inline double fmod_float(double x, double d) { return fmod(x, d); }
/* From the exact remainder, so that a rounded x / d cannot end one too high (Python, PyTorch). */
static inline double floor_float(double x, double d) {
  if (d == 0) return x / d;
  double r = fmod(x, d), q = (x - r) / d;
  if (r != 0 && (r < 0) != (d < 0)) q -= 1;
  if (q == 0) return copysign(0.0, x / d);
  double whole = floor(q);
  return q - whole > 0.5 ? whole + 1 : whole;
}
static inline double remainder_float(double x, double d) {
  double r = fmod(x, d);
  return r != 0 && (r < 0) != (d < 0) ? r + d : r;
}

#define BY_TYPE(x, F32, F64, INT) _Generic((x), float : F32, double : F64, default : INT)

/* Integers are checked before the result is allocated. */
static lt_status check_divisor(lt_call *c) {
  const lt_tensor *other = c->in[1];
  if (lt_dtype_is_float(c->dtype) || lt_shape_numel(&c->result[0].shape) == 0) return LT_OK;
  bool holds = lt_holds_int(other, 0, 0);
  if (other->shape.ndim == 0) { /* 256 is 0 as uint8, in which a number meets such a tensor */
    int64_t as[1] = {0};        /* room for any type */
    lt_convert(1, c->dtype, as, 1, (lt_dtype)other->dtype, other->data, 1);
    holds = as[0] == 0;
  }
  if (!holds) return LT_OK;
  return lt_fail(c->ctx, "%s: integer division by zero (other, %s, holds a 0)", c->op->name,
                 lt_dtype_name((lt_dtype)other->dtype));
}

static lt_status infer_whole(lt_call *c) {
  LT_TRY(infer_number(c));
  return check_divisor(c);
}

/* ---- div -------------------------------------------------------------------------------- */

enum { ROUNDING_MODE };
enum { ROUNDING_NONE, ROUNDING_FLOOR, ROUNDING_TRUNC };

LT_KERNEL_2(div, x, other, x / other)
LT_NUMBER_KERNEL_2(floor_divide, x, other,
                   BY_TYPE(x, floor_float, floor_float, floor_int)(x, other))
LT_NUMBER_KERNEL_2(trunc_divide, x, other,
                   BY_TYPE(x, trunc_float32, trunc_float, trunc_int)(x, other))

static lt_status div_infer(lt_call *c) {
  if (lt_get_int(c->attrs, c->op, ROUNDING_MODE) != ROUNDING_NONE) return infer_whole(c);
  LT_TRY(lt_infer_elementwise(c));
  if (!lt_dtype_is_float(c->dtype)) c->result[0].dtype = c->dtype = c->ctx->default_dtype;
  return LT_OK;
}

static lt_status div_forward(lt_call *c) {
  static const lt_kernel *const kernels[] = {&div_kernel, &floor_divide_kernel,
                                             &trunc_divide_kernel};
  return lt_elementwise(c, kernels[lt_get_int(c->attrs, c->op, ROUNDING_MODE)]);
}

static void div_vjp(lt_vjp *v) { /* d/dx = 1 / other, d/dother = -y / other */
  if (lt_get_int(v->attrs, v->op, ROUNDING_MODE) != ROUNDING_NONE) {
    give_zeros(v);
    return;
  }
  lt_tensor *scaled = lt_div(v->s, v->dy[0], v->in[1]);
  if (v->need[0]) lt_give(v, 0, scaled);
  if (v->need[1]) lt_give(v, 1, lt_neg(v->s, lt_mul(v->s, scaled, v->out[0])));
}

const lt_op lt_op_div = {
    .name = "div",
    .doc = "Quotient, y = x / other, element by element with broadcasting. Also x / other. "
           "rounding_mode \"floor\" rounds it down and \"trunc\" towards zero: then integers stay "
           "integers (by default they become floats), and the gradient is zero.",
    .inputs = {{"x", LT_ANY}, {"other", LT_ANY}},
    .options = {{"rounding_mode", LT_OPTION_CHOICE, .choices = "none floor trunc"}},
    .infer = div_infer,
    .forward = div_forward,
    .vjp = div_vjp,
    .elementwise = true,
    .saves = LT_IN(1) | LT_OUT(0),
    .sample = {"normal(3, 4), positive(3, 4)", "normal(3, 1), positive(4)",
               "normal(2, 3, 1), positive(4), {rounding_mode = 'floor'}",
               "normal(3, 4), positive(3, 1), {rounding_mode = 'trunc'}"},
};

/* ---- floor_divide ------------------------------------------------------------------------- */

const lt_op lt_op_floor_divide = {
    .name = "floor_divide",
    .doc =
        "Quotient rounded down, y = floor(x / other), with broadcasting; integers stay integers. "
        "Also x // other. The gradient is zero.",
    .inputs = {{"x", LT_ANY}, {"other", LT_ANY}},
    .infer = infer_whole,
    .kernel = &floor_divide_kernel,
    .vjp = give_zeros,
    .zero = "flat-op",
    .sample = {"normal(3, 4), positive(3, 4)", "integers(-9, 9, 2, 3), integers(1, 4, 3)"},
};

/* ---- remainder, fmod ---------------------------------------------------------------------- */

LT_NUMBER_KERNEL_2(remainder, x, other,
                   BY_TYPE(x, remainder_float, remainder_float, remainder_int)(x, other))
LT_NUMBER_KERNEL_2(fmod, x, other, BY_TYPE(x, fmod_float, fmod_float, fmod_int)(x, other))

/* y = x - other * q, with the whole quotient q constant almost everywhere. */
static void give_of_remainder(lt_vjp *v, int rounding) {
  if (v->need[0]) lt_give(v, 0, v->dy[0]);
  if (!v->need[1]) return;
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_div);
  lt_attrs_set_int(&attrs, &lt_op_div, ROUNDING_MODE, rounding);
  lt_tensor *q = lt_do2(v->s, &lt_op_div, &attrs, v->in[0], v->in[1]);
  lt_give(v, 1, lt_neg(v->s, lt_mul(v->s, v->dy[0], q)));
}

static void remainder_vjp(lt_vjp *v) { give_of_remainder(v, ROUNDING_FLOOR); }

const lt_op lt_op_remainder = {
    .name = "remainder",
    .doc = "Remainder with the sign of the divisor, y = x - other * floor(x / other), with "
           "broadcasting. Also x % other, as Lua's.",
    .inputs = {{"x", LT_ANY}, {"other", LT_ANY}},
    .infer = infer_whole,
    .kernel = &remainder_kernel,
    .vjp = remainder_vjp,
    .saves = LT_IN(0) | LT_IN(1),
    .sample = {"normal(3, 4), positive(3, 4)", "normal(2, 3, 1), positive(4)"},
};

static void fmod_vjp(lt_vjp *v) { give_of_remainder(v, ROUNDING_TRUNC); }

const lt_op lt_op_fmod = {
    .name = "fmod",
    .doc = "Remainder with the sign of x, y = x - other * trunc(x / other), with broadcasting: C's "
           "fmod.",
    .inputs = {{"x", LT_ANY}, {"other", LT_ANY}},
    .infer = infer_whole,
    .kernel = &fmod_kernel,
    .vjp = fmod_vjp,
    .saves = LT_IN(0) | LT_IN(1),
    .sample = {"normal(3, 4), positive(3, 4)", "normal(2, 3, 1), positive(4)"},
};

/* ---- addcmul, addcdiv --------------------------------------------------------------------- */

enum { VALUE };

LT_NUMBER_KERNEL_3(addcmul, x, a, b, (T)(x + K(VALUE) * a * b))

static void addcmul_vjp(lt_vjp *v) {
  lt_scope *s = v->s;
  lt_tensor *scaled = v->dy[0];
  double value = lt_get_number(v->attrs, v->op, VALUE);
  if (v->need[0]) lt_give(v, 0, v->dy[0]);
  if (value != 1 && (v->need[1] || v->need[2])) scaled = lt_scale(s, v->dy[0], value);
  if (v->need[1]) lt_give(v, 1, lt_mul(s, scaled, v->in[2]));
  if (v->need[2]) lt_give(v, 2, lt_mul(s, scaled, v->in[1]));
}

const lt_op lt_op_addcmul = {
    .name = "addcmul",
    .doc = "y = x + value * tensor1 * tensor2, element by element with broadcasting.",
    .inputs = {{"x", LT_ANY}, {"tensor1", LT_ANY}, {"tensor2", LT_ANY}},
    .options = {{"value", LT_OPTION_NUMBER, .value = 1}},
    .infer = infer_with_factor,
    .kernel = &addcmul_kernel,
    .vjp = addcmul_vjp,
    .saves = LT_IN(1) | LT_IN(2),
    .sample = {"normal(3, 4), normal(3, 4), normal(3, 4)",
               "normal(2, 1, 4), normal(3, 1), normal(), {value = -0.5}"},
};

LT_KERNEL_3(addcdiv, x, a, b, x + K(VALUE) * a / b)

static void addcdiv_vjp(lt_vjp *v) {
  lt_scope *s = v->s;
  double value = lt_get_number(v->attrs, v->op, VALUE);
  if (v->need[0]) lt_give(v, 0, v->dy[0]);
  if (!v->need[1] && !v->need[2]) return;
  lt_tensor *scaled = value == 1 ? v->dy[0] : lt_scale(s, v->dy[0], value);
  lt_tensor *over = lt_div(s, scaled, v->in[2]);
  if (v->need[1]) lt_give(v, 1, over);
  if (v->need[2]) lt_give(v, 2, lt_neg(s, lt_mul(s, over, lt_div(s, v->in[1], v->in[2]))));
}

const lt_op lt_op_addcdiv = {
    .name = "addcdiv",
    .doc = "y = x + value * tensor1 / tensor2, element by element with broadcasting; integers "
           "become floats.",
    .inputs = {{"x", LT_FLOAT}, {"tensor1", LT_FLOAT}, {"tensor2", LT_FLOAT}},
    .options = {{"value", LT_OPTION_NUMBER, .value = 1}},
    .infer = lt_infer_elementwise,
    .kernel = &addcdiv_kernel,
    .vjp = addcdiv_vjp,
    .saves = LT_IN(1) | LT_IN(2),
    .sample = {"normal(3, 4), normal(3, 4), positive(3, 4)",
               "normal(2, 1, 4), normal(3, 1), positive(), {value = -0.5}"},
};

/* ---- lerp --------------------------------------------------------------------------------- */

/* From the nearer end, so that both ends are met exactly. */
LT_KERNEL_3(lerp, x, end, weight,
            fabs(weight) < (T)0.5 ? x + weight * (end - x) : end - (end - x) * (1 - weight))

/* a - b; of two numbers it is a number. */
static lt_tensor *difference(lt_scope *s, lt_tensor *a, lt_tensor *b) {
  if (!a || !a->weak || !b->weak) return lt_sub(s, a, b);
  return lt_number(s, lt_tensor_read(a, 0) - lt_tensor_read(b, 0));
}

static void lerp_vjp(lt_vjp *v) {
  lt_scope *s = v->s;
  lt_tensor *x = v->in[0], *end = v->in[1], *weight = v->in[2];
  if (v->need[0]) {
    lt_give(v, 0, lt_mul(s, v->dy[0], difference(s, lt_number(s, 1), weight)));
  }
  if (v->need[1]) lt_give(v, 1, lt_mul(s, v->dy[0], weight));
  if (v->need[2]) lt_give(v, 2, lt_mul(s, v->dy[0], difference(s, end, x)));
}

const lt_op lt_op_lerp = {
    .name = "lerp",
    .doc =
        "Linear interpolation, y = x + weight * (end - x), with broadcasting; weight is a tensor "
        "or a number.",
    .inputs = {{"x", LT_FLOAT}, {"end", LT_FLOAT}, {"weight", LT_FLOAT}},
    .infer = lt_infer_elementwise,
    .kernel = &lerp_kernel,
    .vjp = lerp_vjp,
    .saves = LT_IN(0) | LT_IN(1) | LT_IN(2),
    .sample = {"normal(3, 4), normal(3, 4), 0.3", "normal(2, 1, 4), normal(3, 1), normal(4)"},
};

LT_FAMILY(arithmetic, &lt_op_add, &lt_op_sub, &lt_op_mul, &lt_op_div, &lt_op_neg,
          &lt_op_floor_divide, &lt_op_remainder, &lt_op_fmod, &lt_op_addcmul, &lt_op_addcdiv,
          &lt_op_lerp)
