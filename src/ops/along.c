/* Internal ops that gradients of reductions, scans and sorts are made of: taking elements along a
 * dimension by their places, adding them back, and elementwise forms that end in 0 where a
 * quotient would not exist. Each has a gradient made of them again. */
#include "kernels/elementwise.h"
#include "kernels/lines.h"
#include "kernels/math.h"
#include "ops/family.h"
#include "ops/index.h"
#include "ops/reduction.h"

/* ---- take_along, put_along ---------------------------------------------------------------- */

enum { DIM, SIZE };

typedef struct places {
  int64_t n;      /* places given */
  int64_t length; /* elements they choose from */
} places;

#define LINES(NAME, TYPE)                                                                          \
  static void take_##NAME(const void *argument, void *const *line, void *scratch) {                \
    const places *p = argument;                                                                    \
    const TYPE *x = line[0];                                                                       \
    const int64_t *place = line[1];                                                                \
    TYPE *y = line[2];                                                                             \
    (void)scratch;                                                                                 \
    for (int64_t i = 0; i < p->n; i++) y[i] = x[place[i] - 1];                                     \
  }                                                                                                \
  static void put_##NAME(const void *argument, void *const *line, void *scratch) {                 \
    const places *p = argument;                                                                    \
    const TYPE *x = line[0];                                                                       \
    const int64_t *place = line[1];                                                                \
    TYPE *y = line[2];                                                                             \
    (void)scratch;                                                                                 \
    for (int64_t i = 0; i < p->length; i++) y[i] = 0;                                              \
    for (int64_t i = 0; i < p->n; i++) y[place[i] - 1] += x[i];                                    \
  }
LINES(f32, float)
LINES(f64, double)

static lt_status infer_take(lt_call *c) {
  c->result[0] = (lt_spec){(lt_dtype)c->in[0]->dtype, c->in[1]->shape};
  return LT_OK;
}

static lt_status infer_put(lt_call *c) {
  int dim;
  LT_TRY(lt_dim_of(c, &dim));
  c->result[0] = (lt_spec){(lt_dtype)c->in[0]->dtype, c->in[0]->shape};
  if (c->in[0]->shape.ndim > 0) {
    c->result[0].shape.size[dim] = lt_get_int(c->attrs, c->op, SIZE);
  }
  return LT_OK;
}

static lt_status along(lt_call *c, int64_t length, lt_line_fn *f32, lt_line_fn *f64) {
  int dim;
  LT_TRY(lt_dim_of(c, &dim));
  LT_TRY(lt_check_indices(c->op->name, "place", c->in[1], length, NULL));
  places p = {lt_line_length(c->in[1], dim), length};
  return lt_lines(c->ctx, dim, 3, (lt_tensor *[]){c->in[0], c->in[1], c->out[0]}, 1,
                  c->in[0]->dtype == LT_FLOAT32 ? f32 : f64, &p, 0, p.n + length);
}

static lt_status take_forward(lt_call *c) {
  int dim;
  LT_TRY(lt_dim_of(c, &dim));
  return along(c, lt_line_length(c->in[0], dim), take_f32, take_f64);
}

static lt_status put_forward(lt_call *c) {
  int dim;
  LT_TRY(lt_dim_of(c, &dim));
  return along(c, lt_line_length(c->out[0], dim), put_f32, put_f64);
}

lt_tensor *lt_put_along(lt_vjp *v, lt_tensor *dy, lt_tensor *place, int64_t dim) {
  const lt_op *op = &lt_op_put_along;
  lt_shape x = lt_input_spec(v, 0).shape;
  lt_attrs attrs;
  lt_attrs_default(&attrs, op);
  lt_attrs_set_int(&attrs, op, DIM, dim);
  lt_attrs_set_int(&attrs, op, SIZE, x.ndim == 0 ? 1 : x.size[dim < 0 ? dim + x.ndim : dim]);
  return lt_do2(v->s, op, &attrs, dy, place);
}

static void take_vjp(lt_vjp *v) {
  lt_give(v, 0, lt_put_along(v, v->dy[0], v->in[1], lt_get_int(v->attrs, v->op, DIM)));
}

static void put_vjp(lt_vjp *v) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_take_along);
  lt_attrs_set_int(&attrs, &lt_op_take_along, DIM, lt_get_int(v->attrs, v->op, DIM));
  lt_give(v, 0, lt_do2(v->s, &lt_op_take_along, &attrs, v->dy[0], v->in[1]));
}

const lt_op lt_op_take_along = {
    .name = "take_along",
    .doc = "y_i = x at place_i along dim; places count from 1.",
    .inputs = {{"x", LT_FLOAT}, {"place", LT_INDEX}},
    .options = {{"dim", LT_OPTION_DIM}},
    .infer = infer_take,
    .forward = take_forward,
    .vjp = take_vjp,
    .saves = LT_IN(1),
    .internal = true,
};

const lt_op lt_op_put_along = {
    .name = "put_along",
    .doc =
        "Zeros, `size` of them along dim, to which x is added at its places; these count from 1.",
    .inputs = {{"x", LT_FLOAT}, {"place", LT_INDEX}},
    .options = {{"dim", LT_OPTION_DIM}, {"size", LT_OPTION_INT}},
    .infer = infer_put,
    .forward = put_forward,
    .vjp = put_vjp,
    .saves = LT_IN(1),
    .internal = true,
};

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

LT_FAMILY(along, &lt_op_take_along, &lt_op_put_along, &lt_op_exp_difference, &lt_op_div_or_zero)
