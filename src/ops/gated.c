/* Activations of more than one variable: prelu learns its slopes, glu gates one half of its input
 * by the other. */
#include "kernels/elementwise.h"
#include "kernels/math.h"
#include "ops/family.h"
#include "tape/vmap.h"

/* Runs a kernel of two operands into c's result. */
static lt_status run_kernel(const lt_call *c, const lt_kernel *kernel, lt_tensor *a, lt_tensor *b) {
  lt_call inner = *c;
  inner.inputs = 2;
  inner.in = (lt_tensor *[]){a, b};
  return lt_elementwise(&inner, kernel);
}

/* ---- prelu ----------------------------------------------------------------------------------- */

static lt_status prelu_infer(lt_call *c) {
  const lt_tensor *x = c->in[0], *weight = c->in[1];
  int64_t channels = x->shape.ndim > 1 ? x->shape.size[1] : 1;
  if (weight->numel != 1 && (weight->shape.ndim != 1 || weight->numel != channels)) {
    char a[LT_SHAPE_TEXT], b[LT_SHAPE_TEXT];
    return lt_fail(
        c->ctx,
        "prelu: weight must hold 1 slope, or one for each of %lld channels (x %s, weight %s)",
        (long long)channels, lt_shape_text(&x->shape, a), lt_shape_text(&weight->shape, b));
  }
  c->dtype = lt_result_type(c);
  c->result[0] = (lt_spec){c->dtype, x->shape};
  return LT_OK;
}

/* Sizes with which n slopes broadcast along dimension 2 of x: n x 1 x ... */
static lt_shape slopes_shape(const lt_shape *x, const lt_shape *weight) {
  lt_shape shape = {.ndim = x->ndim > 1 ? x->ndim - 1 : x->ndim};
  for (int d = 0; d < shape.ndim; d++) shape.size[d] = d > 0 ? 1 : lt_shape_numel(weight);
  return shape;
}

LT_KERNEL_2(prelu, x, slope, x > 0 ? x : slope * x)

static lt_status prelu_forward(lt_call *c) {
  lt_tensor *weight = c->in[1], *slopes;
  lt_shape shape = slopes_shape(&c->in[0]->shape, &weight->shape);
  int64_t strides[LT_MAX_RANK] = {weight->shape.ndim > 0 ? weight->strides[0] : 0};
  LT_TRY(lt_tensor_view(weight, 0, &shape, strides, &slopes));
  lt_status status = run_kernel(c, &prelu_kernel, c->in[0], slopes);
  lt_tensor_release(slopes);
  return status;
}

static void prelu_vjp(lt_vjp *v) {
  lt_scope *s = v->s;
  lt_tensor *x = v->in[0], *dy = v->dy[0];
  lt_shape weight = lt_input_spec(v, 1).shape, shape = slopes_shape(&x->shape, &weight);
  lt_tensor *above = lt_do2(s, &lt_op_gt, NULL, x, lt_number(s, 0));
  if (v->need[0]) {
    lt_tensor *slopes = lt_reshape_to(s, v->in[1], &shape);
    lt_give(v, 0, lt_do3(s, &lt_op_where, NULL, above, dy, lt_mul(s, dy, slopes)));
  }
  if (v->need[1]) {
    lt_tensor *dw = lt_do3(s, &lt_op_where, NULL, above, lt_number(s, 0), lt_mul(s, dy, x));
    lt_give(v, 1, lt_reshape_to(s, lt_sum_to(s, dw, &shape), &weight));
  }
}

const lt_op lt_op_prelu = {
    .name = "prelu",
    .doc = "y = x where x > 0, else weight * x. weight holds one slope, or one for each channel "
           "(dimension 2 of x). He et al. 2015, arXiv 1502.01852.",
    .inputs = {{"x", LT_FLOAT}, {"weight", LT_FLOAT}},
    .infer = prelu_infer,
    .forward = prelu_forward,
    .vjp = prelu_vjp,
    .batch = lt_batch_each,
    .saves = LT_IN(0) | LT_IN(1),
    .sample = {"normal(3, 4), positive(4)", "normal(2, 3, 4), positive(1)", "normal(), positive()"},
};

/* ---- glu --------------------------------------------------------------------------------------
 */

enum { DIM };

static lt_status glu_infer(lt_call *c) {
  lt_shape shape = c->in[0]->shape;
  char text[LT_SHAPE_TEXT];
  int dim;
  LT_TRY(lt_dim_normalise(c->ctx, "glu", lt_get_int(c->attrs, c->op, DIM), shape.ndim, &dim));
  if (shape.ndim == 0 || shape.size[dim] % 2 != 0) {
    return lt_fail(c->ctx, "glu: dim %d must have an even size (x %s)", dim + 1,
                   lt_shape_text(&shape, text));
  }
  shape.size[dim] /= 2;
  c->dtype = (lt_dtype)c->in[0]->dtype;
  c->result[0] = (lt_spec){c->dtype, shape};
  return LT_OK;
}

LT_KERNEL_2(glu, a, b, a *SIGMOID(b))

static lt_status glu_forward(lt_call *c) {
  const lt_tensor *x = c->in[0];
  const lt_shape *half = &c->result[0].shape;
  lt_tensor *a, *b;
  int dim;
  LT_TRY(lt_dim_normalise(c->ctx, "glu", lt_get_int(c->attrs, c->op, DIM), half->ndim, &dim));
  LT_TRY(lt_tensor_view(x, 0, half, x->strides, &a));
  lt_status status = lt_tensor_view(x, half->size[dim] * x->strides[dim], half, x->strides, &b);
  if (status == LT_OK) {
    status = run_kernel(c, &glu_kernel, a, b);
    lt_tensor_release(b);
  }
  lt_tensor_release(a);
  return status;
}

/* Half number i of x along dim. */
static lt_tensor *half_of(lt_vjp *v, int64_t dim, int64_t size, int i) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_narrow);
  lt_attrs_set_int(&attrs, &lt_op_narrow, 0, dim);
  lt_attrs_set_int(&attrs, &lt_op_narrow, 1, i * size);
  lt_attrs_set_int(&attrs, &lt_op_narrow, 2, size);
  return lt_do1(v->s, &lt_op_narrow, &attrs, v->in[0]);
}

static void glu_vjp(lt_vjp *v) { /* with s = sigmoid(b): dy s, and dy a s (1 - s) */
  lt_scope *s = v->s;
  int64_t dim = lt_get_int(v->attrs, v->op, DIM);
  lt_shape half = lt_output_spec(v, 0).shape;
  if (dim < 0) dim += half.ndim;
  lt_tensor *a = half_of(v, dim, half.size[dim], 0), *b = half_of(v, dim, half.size[dim], 1);
  lt_tensor *gate = lt_do1(s, &lt_op_sigmoid, NULL, b);
  lt_tensor *da = lt_mul(s, v->dy[0], gate);
  lt_tensor *db = lt_mul(s, lt_mul(s, da, a), lt_shift(s, lt_neg(s, gate), 1));
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_cat);
  lt_attrs_set_int(&attrs, &lt_op_cat, 0, dim);
  lt_give(v, 0, lt_do2(s, &lt_op_cat, &attrs, da, db));
}

const lt_op lt_op_glu = {
    .name = "glu",
    .doc = "Gated linear unit, y = a * sigmoid(b), a and b the halves of x along dim. Dauphin et "
           "al. 2016, arXiv 1612.08083.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {{"dim", LT_OPTION_DIM, .value = -1}},
    .infer = glu_infer,
    .forward = glu_forward,
    .vjp = glu_vjp,
    .batch = lt_batch_dims,
    .saves = LT_IN(0),
    .sample = {"normal(3, 4)", "normal(2, 4, 3), {dim = 2}"},
};

LT_FAMILY(gated, &lt_op_prelu, &lt_op_glu)
