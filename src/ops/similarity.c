/* Vectors along a dimension: normalize, cosine_similarity, pairwise_distance; and the bilinear form
 * of two vectors. Made of other ops. */
#include "ops/family.h"
#include "tape/vjp.h"

enum { P_OF_NORM, DIM_OF_NORM, KEEPDIM_OF_NORM };

static lt_tensor *norm_along(lt_scope *s, lt_tensor *x, double p, int64_t dim, bool keepdim) {
  const lt_op *op = &lt_op_norm;
  lt_attrs attrs;
  lt_attrs_default(&attrs, op);
  lt_attrs_set_number(&attrs, op, P_OF_NORM, p);
  lt_attrs_set_list(&attrs, op, DIM_OF_NORM, 1, &dim);
  lt_attrs_set_int(&attrs, op, KEEPDIM_OF_NORM, keepdim);
  return lt_do1(s, op, &attrs, x);
}

/* x divided by its norm along dim, or by eps where that is larger. */
static lt_tensor *unit(lt_scope *s, lt_tensor *x, double p, int64_t dim, double eps) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_clamp);
  lt_attrs_set_number(&attrs, &lt_op_clamp, 0, eps);
  lt_tensor *in[] = {norm_along(s, x, p, dim, true), NULL, NULL};
  return lt_div(s, x, in[0] ? lt_do(s, &lt_op_clamp, &attrs, 3, in) : NULL);
}

/* ---- normalize ----------------------------------------------------------------------------------
 */

enum { P, DIM, EPS };

static lt_status normalize_infer(lt_call *c) {
  int dim;
  return lt_dim_normalise(c->ctx, c->op->name, lt_get_int(c->attrs, c->op, DIM),
                          c->in[0]->shape.ndim, &dim);
}

static void normalize_compose(lt_call *c, lt_scope *s) {
  c->out[0] = unit(s, c->in[0], lt_get_number(c->attrs, c->op, P), lt_get_int(c->attrs, c->op, DIM),
                   lt_get_number(c->attrs, c->op, EPS));
}

const lt_op lt_op_normalize = {
    .name = "normalize",
    .doc = "x / max(|x|, eps), with the p-norm of x along dim, by default the second.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {{"p", LT_OPTION_NUMBER, .value = 2},
                {"dim", LT_OPTION_DIM, .value = 1},
                {"eps", LT_OPTION_NUMBER, .value = 1e-12}},
    .infer = normalize_infer,
    .compose = normalize_compose,
    .sample = {"normal(3, 4)", "normal(2, 3, 4), {p = 3, dim = -1}",
               "positive(3, 4), {dim = 1, eps = 10}"},
};

/* ---- cosine_similarity, pairwise_distance
 * --------------------------------------------------------- */

static lt_status check_pair(lt_call *c, lt_shape *shape) {
  const lt_tensor *a = c->in[0], *b = c->in[1];
  char left[LT_SHAPE_TEXT], right[LT_SHAPE_TEXT];
  *shape = a->shape;
  if (a->dtype != b->dtype) {
    return lt_fail(c->ctx, "%s: dtypes differ (%s and %s)", c->op->name,
                   lt_dtype_name((lt_dtype)a->dtype), lt_dtype_name((lt_dtype)b->dtype));
  }
  if (lt_shape_broadcast(shape, &b->shape)) return LT_OK;
  return lt_fail(c->ctx, "%s: shapes do not broadcast (%s and %s)", c->op->name,
                 lt_shape_text(&a->shape, left), lt_shape_text(&b->shape, right));
}

enum { COSINE_DIM, COSINE_EPS };

static lt_status cosine_similarity_infer(lt_call *c) {
  int dim;
  lt_shape shape;
  LT_TRY(check_pair(c, &shape));
  return lt_dim_normalise(c->ctx, c->op->name, lt_get_int(c->attrs, c->op, COSINE_DIM), shape.ndim,
                          &dim);
}

static void cosine_similarity_compose(lt_call *c, lt_scope *s) {
  int64_t dim = lt_get_int(c->attrs, c->op, COSINE_DIM);
  double eps = lt_get_number(c->attrs, c->op, COSINE_EPS);
  lt_shape shape = c->in[0]->shape;
  lt_shape_broadcast(&shape, &c->in[1]->shape);
  lt_tensor *a = unit(s, lt_expand_to(s, c->in[0], &shape), 2, dim, eps);
  lt_tensor *b = unit(s, lt_expand_to(s, c->in[1], &shape), 2, dim, eps);
  c->out[0] = lt_sum_over(s, lt_mul(s, a, b), 1, &dim, false);
}

const lt_op lt_op_cosine_similarity = {
    .name = "cosine_similarity",
    .doc = "sum(x1 x2) / (max(|x1|, eps) max(|x2|, eps)) along dim, by default the second, after "
           "broadcasting: the cosine of the angle between two vectors.",
    .inputs = {{"x1", LT_FLOAT}, {"x2", LT_FLOAT}},
    .options = {{"dim", LT_OPTION_DIM, .value = 1}, {"eps", LT_OPTION_NUMBER, .value = 1e-8}},
    .infer = cosine_similarity_infer,
    .compose = cosine_similarity_compose,
    .sample = {"normal(3, 4), normal(3, 4)", "normal(2, 3, 4), normal(3, 1), {dim = 1}"},
};

enum { DISTANCE_P, DISTANCE_EPS, DISTANCE_KEEPDIM };

static lt_status pairwise_distance_infer(lt_call *c) {
  lt_shape shape;
  LT_TRY(check_pair(c, &shape));
  if (shape.ndim > 0) return LT_OK;
  return lt_fail(c->ctx, "%s: takes vectors along the last dimension, got 0-d tensors",
                 c->op->name);
}

static void pairwise_distance_compose(lt_call *c, lt_scope *s) {
  double eps = lt_get_number(c->attrs, c->op, DISTANCE_EPS);
  c->out[0] = norm_along(s, lt_shift(s, lt_sub(s, c->in[0], c->in[1]), eps),
                         lt_get_number(c->attrs, c->op, DISTANCE_P), -1,
                         lt_get_int(c->attrs, c->op, DISTANCE_KEEPDIM) != 0);
}

const lt_op lt_op_pairwise_distance = {
    .name = "pairwise_distance",
    .doc = "The p-norm of x1 - x2 + eps along the last dimension, with broadcasting.",
    .inputs = {{"x1", LT_FLOAT}, {"x2", LT_FLOAT}},
    .options = {{"p", LT_OPTION_NUMBER, .value = 2},
                {"eps", LT_OPTION_NUMBER, .value = 1e-6},
                {"keepdim", LT_OPTION_BOOL}},
    .infer = pairwise_distance_infer,
    .compose = pairwise_distance_compose,
    .sample = {"normal(3, 4), normal(3, 4)", "normal(2, 3, 4), normal(4), {p = 3, keepdim = true}"},
};

/* ---- bilinear
 * ------------------------------------------------------------------------------------- */

static lt_status bilinear_infer(lt_call *c) {
  const lt_tensor *a = c->in[0], *b = c->in[1], *w = c->in[2], *bias = c->in[3];
  char first[LT_SHAPE_TEXT], second[LT_SHAPE_TEXT], third[LT_SHAPE_TEXT];
  int n = a->shape.ndim;
  bool fits = n > 0 && b->shape.ndim == n && w->shape.ndim == 3;
  for (int d = 0; fits && d < n - 1; d++) fits = a->shape.size[d] == b->shape.size[d];
  fits =
      fits && a->shape.size[n - 1] == w->shape.size[1] && b->shape.size[n - 1] == w->shape.size[2];
  if (!fits) {
    return lt_fail(c->ctx,
                   "%s: takes x1 of ... x in1, x2 of ... x in2 and weight of out x in1 x in2, got "
                   "%s, %s and %s",
                   c->op->name, lt_shape_text(&a->shape, first), lt_shape_text(&b->shape, second),
                   lt_shape_text(&w->shape, third));
  }
  if (bias && (bias->shape.ndim != 1 || bias->numel != w->shape.size[0])) {
    return lt_fail(c->ctx, "%s: bias must have %lld elements, got %s", c->op->name,
                   (long long)w->shape.size[0], lt_shape_text(&bias->shape, first));
  }
  for (int i = 1; i < 4; i++) {
    if (!c->in[i] || c->in[i]->dtype == a->dtype) continue;
    return lt_fail(c->ctx, "%s: dtypes differ (%s and %s)", c->op->name,
                   lt_dtype_name((lt_dtype)a->dtype), lt_dtype_name((lt_dtype)c->in[i]->dtype));
  }
  return LT_OK;
}

/* x1 W is out x rows x in2; times x2, summed, it is out x rows. */
static void bilinear_compose(lt_call *c, lt_scope *s) {
  lt_shape left = c->in[0]->shape, right = c->in[1]->shape, result = left;
  const int64_t last = -1;
  int64_t rows = 1;
  for (int d = 0; d < left.ndim - 1; d++) rows *= left.size[d];
  result.size[left.ndim - 1] = c->in[2]->shape.size[0];
  left = lt_shape_make(2, (int64_t[]){rows, left.size[left.ndim - 1]});
  right = lt_shape_make(2, (int64_t[]){rows, right.size[right.ndim - 1]});
  lt_tensor *x1 = lt_reshape_to(s, c->in[0], &left), *x2 = lt_reshape_to(s, c->in[1], &right);
  lt_tensor *y = lt_mul(s, lt_do2(s, &lt_op_matmul, NULL, x1, c->in[2]), x2);
  y = lt_do1(s, &lt_op_transpose, NULL, lt_sum_over(s, y, 1, &last, false));
  y = lt_reshape_to(s, y, &result);
  c->out[0] = c->in[3] ? lt_add(s, y, c->in[3]) : y;
}

const lt_op lt_op_bilinear = {
    .name = "bilinear",
    .doc = "y_o = x1^T W_o x2 + b_o on the last dimensions: x1 ... x in1, x2 ... x in2, weight out "
           "x in1 x in2, bias out.",
    .inputs = {{"x1", LT_FLOAT},
               {"x2", LT_FLOAT},
               {"weight", LT_FLOAT},
               {"bias", LT_FLOAT, .optional = true}},
    .infer = bilinear_infer,
    .compose = bilinear_compose,
    .sample = {"normal(2, 3), normal(2, 4), normal(5, 3, 4), normal(5)",
               "normal(2, 2, 3), normal(2, 2, 2), normal(2, 3, 2)",
               "normal(3), normal(2), normal(2, 3, 2), normal(2)"},
};

LT_FAMILY(similarity, &lt_op_normalize, &lt_op_cosine_similarity, &lt_op_pairwise_distance,
          &lt_op_bilinear)
