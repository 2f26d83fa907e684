/* Each element of the result is one of several operands': the larger, the one within bounds, the
 * one that a mask names. The gradient goes to the operand that was chosen. */
#include "kernels/elementwise.h"
#include "ops/family.h"
#include "tape/vmap.h"

#include <math.h>

/* ---- maximum, minimum ------------------------------------------------------------------------ */

/* NaN wins: the second condition holds for a NaN alone. */
#define LARGER(a, b) ((a) > (b) || !((a) == (a)) ? (a) : (b))
#define SMALLER(a, b) ((a) < (b) || !((a) == (a)) ? (a) : (b))

LT_NUMBER_KERNEL_2(maximum, x, other, LARGER(x, other))
LT_NUMBER_KERNEL_2(minimum, x, other, SMALLER(x, other))

extern const lt_op lt_op_maximum_backward;

/* What is left of dy where `own` was to be the larger. */
static lt_tensor *share(lt_scope *s, lt_tensor *dy, lt_tensor *own, lt_tensor *other) {
  return lt_do3(s, &lt_op_maximum_backward, NULL, dy, own, other);
}

static void maximum_vjp(lt_vjp *v) {
  if (v->need[0]) lt_give(v, 0, share(v->s, v->dy[0], v->in[0], v->in[1]));
  if (v->need[1]) lt_give(v, 1, share(v->s, v->dy[0], v->in[1], v->in[0]));
}

const lt_op lt_op_maximum = {
    .name = "maximum",
    .doc =
        "The larger of x and other, element by element with broadcasting; NaN if either is. Equal "
        "ones share the gradient.",
    .inputs = {{"x", LT_ANY}, {"other", LT_ANY}},
    .infer = lt_infer_elementwise,
    .kernel = &maximum_kernel,
    .vjp = maximum_vjp,
    .zero = "masked",
    .saves = LT_IN(0) | LT_IN(1),
    .sample = {"normal(3, 4), normal(3, 4)", "normal(2, 3, 1), normal(4)"},
};

static void minimum_vjp(lt_vjp *v) {
  if (v->need[0]) lt_give(v, 0, share(v->s, v->dy[0], v->in[1], v->in[0]));
  if (v->need[1]) lt_give(v, 1, share(v->s, v->dy[0], v->in[0], v->in[1]));
}

const lt_op lt_op_minimum = {
    .name = "minimum",
    .doc = "The smaller of x and other, element by element with broadcasting; NaN if either is. "
           "Equal ones share the gradient.",
    .inputs = {{"x", LT_ANY}, {"other", LT_ANY}},
    .infer = lt_infer_elementwise,
    .kernel = &minimum_kernel,
    .vjp = minimum_vjp,
    .zero = "masked",
    .saves = LT_IN(0) | LT_IN(1),
    .sample = {"normal(3, 4), normal(3, 4)", "normal(2, 3, 1), normal(4)"},
};

/* ---- maximum_backward ---------------------------------------------------------------------- */

LT_KERNEL_3(maximum_backward, dy, x, other, x == other ? dy / 2 : x < other ? 0 : dy)

static void maximum_backward_vjp(lt_vjp *v) {
  if (v->need[0]) lt_give(v, 0, share(v->s, v->dy[0], v->in[1], v->in[2]));
}

const lt_op lt_op_maximum_backward = {
    .name = "maximum_backward",
    .doc = "Gradient of maximum in x: dy where x is larger or either is NaN, half of it where they "
           "are equal, 0 where x is smaller. Of minimum too, with x and other exchanged.",
    .inputs = {{"dy", LT_FLOAT}, {"x", LT_FLOAT}, {"other", LT_FLOAT}},
    .infer = lt_infer_elementwise,
    .kernel = &maximum_backward_kernel,
    .vjp = maximum_backward_vjp,
    .saves = LT_IN(1) | LT_IN(2),
    .internal = true,
    .sample = {"normal(3, 4), normal(3, 4), normal(3, 4)"},
};

/* ---- clamp ----------------------------------------------------------------------------------- */

enum { X, BOUND }; /* inputs: x, and from BOUND on the lower and the upper bound */
enum { MIN, MAX }; /* options, in the same order */

/* In two steps, which compilers turn into two instructions. */
#define CLAMP_TILE(NAME, TARGET, TYPE, RESULT, X, LO, HI)                                          \
  TARGET static void NAME(int64_t n, void *const *p, const double *k) {                            \
    TYPE *restrict y = p[0];                                                                       \
    const TYPE *x = p[X], *lo = p[LO], *hi = p[HI];                                                \
    (void)k;                                                                                       \
    for (int64_t i = 0; i < n; i++) {                                                              \
      const TYPE low = LARGER(x[i], lo[i]);                                                        \
      y[i] = SMALLER(low, hi[i]);                                                                  \
    }                                                                                              \
  }

LT_NUMBER_KERNEL_OF(CLAMP_TILE, clamp, 1, 2, 3)

static lt_status clamp_infer(lt_call *c) {
  bool any = false;
  LT_TRY(lt_infer_elementwise(c));
  for (int i = MIN; i <= MAX; i++) {
    const char *name = c->op->options[i].name;
    bool number = lt_given(c->attrs, i);
    any = any || number || c->in[BOUND + i];
    if (!number) continue;
    if (c->in[BOUND + i]) {
      return lt_fail(c->ctx, "clamp: %s is given twice, as an argument and as the option %s",
                     c->op->inputs[BOUND + i].name, name);
    }
    double value = lt_get_number(c->attrs, c->op, i);
    if (value == floor(value) && c->dtype == LT_BOOL) c->dtype = LT_INT64;
    if (value != floor(value) && !lt_dtype_is_float(c->dtype)) c->dtype = c->ctx->default_dtype;
  }
  if (!any) return lt_fail(c->ctx, "clamp: min, max or both must be given");
  c->result[0].dtype = c->dtype;
  return LT_OK;
}

static lt_status clamp_forward(lt_call *c) {
  lt_call call = *c;
  lt_tensor *in[3] = {c->in[X]}, *made[2] = {NULL};
  lt_status status = LT_OK;
  const lt_kernel *kernel = NULL;
  call.in = in;
  call.inputs = 1;
  for (int i = MIN; i <= MAX && status == LT_OK; i++) {
    lt_tensor *bound = c->in[BOUND + i];
    if (lt_given(c->attrs, i)) {
      status = lt_tensor_scalar(c->ctx, lt_get_number(c->attrs, c->op, i), LT_FLOAT64, &made[i]);
      bound = made[i];
    }
    if (!bound) continue;
    in[call.inputs++] = bound;
    kernel = kernel ? &clamp_kernel : i == MIN ? &maximum_kernel : &minimum_kernel;
  }
  if (status == LT_OK) status = lt_elementwise(&call, kernel);
  for (int i = MIN; i <= MAX; i++) lt_tensor_release(made[i]);
  return status;
}

extern const lt_op lt_op_clamp_backward;

/* As minimum(maximum(x, lo), hi), but that a bound which is a number takes all of the gradient
 * where x meets it (PyTorch). */
static void clamp_vjp(lt_vjp *v) {
  lt_scope *s = v->s;
  lt_tensor *x = v->in[X], *bound[2];
  bool numbers = true;
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_clamp_backward);
  for (int i = MIN; i <= MAX; i++) {
    bool option = lt_given(v->attrs, i);
    bound[i] = option ? lt_number(s, lt_get_number(v->attrs, v->op, i)) : v->in[BOUND + i];
    if (!bound[i]) continue;
    if (!bound[i]->weak)
      numbers = false;
    else
      lt_attrs_set_number(&attrs, &lt_op_clamp_backward, i, lt_tensor_read(bound[i], 0));
  }
  if (numbers) {
    lt_give(v, X, lt_do2(s, &lt_op_clamp_backward, &attrs, v->dy[0], x));
    return;
  }
  lt_tensor *lo = bound[MIN], *hi = bound[MAX], *dy = v->dy[0];
  if (hi) {
    lt_tensor *low = lo ? lt_do2(s, &lt_op_maximum, NULL, x, lo) : x;
    if (v->need[BOUND + MAX]) lt_give(v, BOUND + MAX, share(s, dy, low, hi));
    dy = share(s, dy, hi, low);
  }
  if (v->need[X]) lt_give(v, X, lo ? share(s, dy, x, lo) : dy);
  if (v->need[BOUND + MIN]) lt_give(v, BOUND + MIN, share(s, dy, lo, x));
}

const lt_op lt_op_clamp = {
    .name = "clamp",
    .doc =
        "x kept within bounds, y = minimum(maximum(x, lo), hi); either bound may be missing. They "
        "are tensors that broadcast, or numbers, which can also be given as min and max. NaN "
        "stays NaN; where lo > hi the result is hi.",
    .inputs = {{"x", LT_ANY}, {"lo", LT_ANY, .optional = true}, {"hi", LT_ANY, .optional = true}},
    .options = {{"min", LT_OPTION_NUMBER}, {"max", LT_OPTION_NUMBER}},
    .infer = clamp_infer,
    .forward = clamp_forward,
    .vjp = clamp_vjp,
    .zero = "clipped",
    .elementwise = true,
    .saves = LT_IN(0) | LT_IN(1) | LT_IN(2),
    .sample = {"normal(3, 4), {min = -0.5, max = 0.5}", "normal(2, 3, 4), {max = 0.3}",
               "normal(3, 4), -0.4", "normal(2, 3, 4), uniform(4), positive(3, 1)",
               "normal(3, 4), nil, uniform(4)"},
};

LT_KERNEL_2(clamp_min_backward, dy, x, x > K(MIN) ? dy : 0)
LT_KERNEL_2(clamp_max_backward, dy, x, x < K(MAX) ? dy : 0)
LT_KERNEL_2(clamp_backward, dy, x, x > K(MIN) && x < K(MAX) ? dy : 0)

static lt_status clamp_backward_forward(lt_call *c) {
  const lt_kernel *kernel = !lt_given(c->attrs, MAX)   ? &clamp_min_backward_kernel
                            : !lt_given(c->attrs, MIN) ? &clamp_max_backward_kernel
                                                       : &clamp_backward_kernel;
  return lt_elementwise(c, kernel);
}

static void clamp_backward_vjp(lt_vjp *v) {
  if (v->need[0]) lt_give(v, 0, lt_do2(v->s, v->op, v->attrs, v->dy[0], v->in[1]));
}

const lt_op lt_op_clamp_backward = {
    .name = "clamp_backward",
    .doc = "Gradient of clamp in x, for bounds that are numbers: dy where min < x < max, else 0.",
    .inputs = {{"dy", LT_FLOAT}, {"x", LT_FLOAT}},
    .options = {{"min", LT_OPTION_NUMBER}, {"max", LT_OPTION_NUMBER}},
    .infer = lt_infer_elementwise,
    .forward = clamp_backward_forward,
    .vjp = clamp_backward_vjp,
    .elementwise = true,
    .saves = LT_IN(1),
    .internal = true,
    .sample = {"normal(3, 4), normal(3, 4), {min = -0.5, max = 0.5}"},
};

/* ---- where ----------------------------------------------------------------------------------- */

/* A tile that takes operand A where operand MASK holds, else B; by their numbers. Both are read, so
 * that the loop can be vectorised. */
#define CHOICE_TILE(NAME, TARGET, TYPE, RESULT, MASK, A, B)                                        \
  TARGET static void NAME(int64_t n, void *const *p, const double *k) {                            \
    TYPE *restrict y = p[0];                                                                       \
    const uint8_t *mask = p[MASK];                                                                 \
    const TYPE *a = p[A], *b = p[B];                                                               \
    (void)k;                                                                                       \
    for (int64_t i = 0; i < n; i++) {                                                              \
      const TYPE chosen = a[i], other = b[i];                                                      \
      y[i] = mask[i] ? chosen : other;                                                             \
    }                                                                                              \
  }

LT_NUMBER_KERNEL_OF(CHOICE_TILE, where, 1, 2, 3)

/* a where the mask holds, else b */
static lt_tensor *where(lt_scope *s, lt_tensor *mask, lt_tensor *a, lt_tensor *b) {
  return lt_do3(s, &lt_op_where, NULL, mask, a, b);
}

static void where_vjp(lt_vjp *v) {
  lt_tensor *zero = lt_number(v->s, 0);
  if (v->need[1]) lt_give(v, 1, where(v->s, v->in[0], v->dy[0], zero));
  if (v->need[2]) lt_give(v, 2, where(v->s, v->in[0], zero, v->dy[0]));
}

const lt_op lt_op_where = {
    .name = "where",
    .doc = "x where the condition holds, other elsewhere: a bool tensor chooses, all three "
           "broadcast. The gradient goes to the chosen one, and nothing of the other gets into it.",
    .inputs = {{"condition", LT_MASK}, {"x", LT_ANY}, {"other", LT_ANY}},
    .infer = lt_infer_elementwise,
    .kernel = &where_kernel,
    .vjp = where_vjp,
    .zero = "masked",
    .saves = LT_IN(0),
    .sample = {"mask(3, 4), normal(3, 4), normal(3, 4)", "mask(2, 1, 4), normal(3, 1), normal()",
               "mask(3, 4), normal(4), 0"},
};

/* ---- masked_fill ------------------------------------------------------------------------------
 */

LT_NUMBER_KERNEL_OF(CHOICE_TILE, masked_fill, 2, 3, 1)

static lt_status masked_fill_infer(lt_call *c) {
  const lt_tensor *x = c->in[0], *value = c->in[2];
  char shape[LT_SHAPE_TEXT];
  if (value->shape.ndim > 0) {
    return lt_fail(c->ctx, "masked_fill: value must be a number or 0-d, got %s",
                   lt_shape_text(&value->shape, shape));
  }
  LT_TRY(lt_infer_elementwise(c));
  c->result[0].dtype = c->dtype = (lt_dtype)x->dtype;
  double number = lt_tensor_read(value, 0);
  if (lt_dtype_is_float(c->dtype) || number == floor(number)) return LT_OK;
  return lt_fail(c->ctx, "masked_fill: value %g does not fit x, which is %s", number,
                 lt_dtype_name(c->dtype));
}

static void masked_fill_vjp(lt_vjp *v) {
  lt_tensor *zero = lt_number(v->s, 0);
  if (v->need[0]) lt_give(v, 0, where(v->s, v->in[1], zero, v->dy[0]));
  if (v->need[2]) lt_give(v, 2, where(v->s, v->in[1], v->dy[0], zero));
}

static void masked_fill_batch(lt_batch *b) { (b->over[2] ? lt_batch_each : lt_batch_broadcast)(b); }

const lt_op lt_op_masked_fill = {
    .name = "masked_fill",
    .doc = "x with value (a number or a 0-d tensor) where the bool mask holds; x and mask "
           "broadcast. The result has x's dtype.",
    .inputs = {{"x", LT_ANY}, {"mask", LT_MASK}, {"value", LT_ANY}},
    .infer = masked_fill_infer,
    .batch = masked_fill_batch,
    .kernel = &masked_fill_kernel,
    .vjp = masked_fill_vjp,
    .zero = "masked",
    .saves = LT_IN(1),
    .sample = {"normal(3, 4), mask(3, 4), -1.5", "normal(2, 3, 4), mask(4), normal()"},
};

LT_FAMILY(choose, &lt_op_maximum, &lt_op_minimum, &lt_op_maximum_backward, &lt_op_clamp,
          &lt_op_clamp_backward, &lt_op_where, &lt_op_masked_fill)
