/* Sums, products and tests over one, several or all dimensions, and what all reductions share.
 * The work is done by folds (kernels/fold.c) under one driver (kernels/reduce.c). */
#include "kernels/reduce.h"
#include "ops/family.h"
#include "ops/reduction.h"
#include "tape/vmap.h"

/* ---- dim and keepdim --------------------------------------------------------------------- */

lt_status lt_reduced_dims(lt_context *ctx, const lt_op *op, const lt_attrs *attrs, int ndim,
                          bool out[LT_MAX_RANK]) {
  int option = lt_op_option_index(op, "dim"), n = 0;
  int64_t one;
  const int64_t *dims = NULL;
  if (op->options[option].type == LT_OPTION_DIMS) {
    dims = lt_get_list(attrs, op, option, &n);
  } else if (lt_given(attrs, option)) {
    one = lt_get_int(attrs, op, option);
    dims = &one;
    n = 1;
  }
  for (int d = 0; d < LT_MAX_RANK; d++) out[d] = n == 0;
  for (int i = 0; i < n; i++) {
    int d;
    LT_TRY(lt_dim_normalise(ctx, op->name, dims[i], ndim, &d));
    if (out[d]) return lt_fail(ctx, "%s: dim %d comes twice", op->name, d + 1);
    out[d] = true;
  }
  return LT_OK;
}

static lt_shape reduced_shape(const lt_shape *x, const bool out[LT_MAX_RANK], bool keepdim) {
  lt_shape shape = {0};
  for (int d = 0; d < x->ndim; d++) {
    if (!out[d])
      shape.size[shape.ndim++] = x->size[d];
    else if (keepdim)
      shape.size[shape.ndim++] = 1;
  }
  return shape;
}

lt_status lt_infer_reduced(lt_call *c, int i, lt_dtype dtype) {
  bool out[LT_MAX_RANK];
  const lt_shape *x = &c->in[0]->shape;
  int keepdim = lt_op_option_index(c->op, "keepdim");
  LT_TRY(lt_reduced_dims(c->ctx, c->op, c->attrs, x->ndim, out));
  bool keeps = keepdim >= 0 && lt_get_int(c->attrs, c->op, keepdim);
  c->result[i] = (lt_spec){dtype, reduced_shape(x, out, keeps)};
  return LT_OK;
}

lt_status lt_infer_taken(lt_call *c, int i, lt_dtype dtype) {
  LT_TRY(lt_infer_reduced(c, i, dtype));
  char text[LT_SHAPE_TEXT];
  if (c->in[0]->numel > 0 || lt_shape_numel(&c->result[i].shape) == 0) return LT_OK;
  return lt_fail(c->ctx, "%s: no element to take (%s)", c->op->name,
                 lt_shape_text(&c->in[0]->shape, text));
}

lt_status lt_infer_reduction(lt_call *c) {
  return lt_infer_reduced(c, 0, (lt_dtype)c->in[0]->dtype);
}

lt_status lt_forward_fold(lt_call *c, const lt_fold *fold, const double *k) {
  bool out[LT_MAX_RANK];
  LT_TRY(lt_reduced_dims(c->ctx, c->op, c->attrs, c->in[0]->shape.ndim, out));
  return lt_reduce(fold, k, c->in[0], out, c->outputs, c->out);
}

/* The input's shape with the reduced dimensions at size 1. The dims were checked by infer. */
static lt_shape kept_shape(const lt_vjp *v) {
  bool out[LT_MAX_RANK];
  lt_spec x = lt_input_spec(v, 0);
  (void)lt_reduced_dims(v->ctx, v->op, v->attrs, x.shape.ndim, out);
  return reduced_shape(&x.shape, out, true);
}

int64_t lt_reduced_count(const lt_vjp *v) {
  bool out[LT_MAX_RANK];
  lt_spec x = lt_input_spec(v, 0);
  int64_t count = 1;
  (void)lt_reduced_dims(v->ctx, v->op, v->attrs, x.shape.ndim, out);
  for (int d = 0; d < x.shape.ndim; d++) count *= out[d] ? x.shape.size[d] : 1;
  return count;
}

lt_tensor *lt_restore_dims(lt_vjp *v, lt_tensor *t) {
  if (t && t->shape.ndim == 0) return t; /* broadcasts as it is */
  lt_shape kept = kept_shape(v);
  return lt_reshape_to(v->s, t, &kept);
}

lt_tensor *lt_reduce_alike(lt_vjp *v, const lt_op *op, lt_tensor *t) {
  bool out[LT_MAX_RANK];
  lt_spec x = lt_input_spec(v, 0);
  int64_t dims[LT_MAX_RANK];
  int n = 0;
  lt_attrs attrs;
  (void)lt_reduced_dims(v->ctx, v->op, v->attrs, x.shape.ndim, out);
  for (int d = 0; d < x.shape.ndim; d++) {
    if (out[d]) dims[n++] = d;
  }
  lt_attrs_default(&attrs, op);
  lt_attrs_set_list(&attrs, op, lt_op_option_index(op, "dim"), n, dims);
  lt_attrs_set_int(&attrs, op, lt_op_option_index(op, "keepdim"), true);
  return lt_do1(v->s, op, &attrs, t);
}

lt_status lt_dim_of(const lt_call *c, int *dim) {
  int64_t given = lt_get_int(c->attrs, c->op, lt_op_option_index(c->op, "dim"));
  return lt_dim_normalise(c->ctx, c->op->name, given, c->in[0]->shape.ndim, dim);
}

/* ---- sum --------------------------------------------------------------------------------- */

static lt_status infer_number(lt_call *c) {
  lt_dtype dtype = (lt_dtype)c->in[0]->dtype;
  return lt_infer_reduced(c, 0, lt_dtype_is_float(dtype) ? dtype : LT_INT64);
}

static lt_status sum_forward(lt_call *c) { return lt_forward_fold(c, &lt_fold_sum, NULL); }

static void sum_vjp(lt_vjp *v) {
  lt_spec x = lt_input_spec(v, 0);
  lt_give(v, 0, lt_expand_to(v->s, lt_restore_dims(v, v->dy[0]), &x.shape));
}

const lt_op lt_op_sum = {
    .name = "sum",
    .doc = "Sum over the dimensions in dim, by default all. Integers and bool give int64; floats "
           "are added in double precision. Nothing sums to 0.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dim", LT_OPTION_DIMS}, {"keepdim", LT_OPTION_BOOL}},
    .infer = infer_number,
    .forward = sum_forward,
    .vjp = sum_vjp,
    .linear = true,
    .batch = lt_batch_dims,
    .sample = {"normal(3, 4)", "normal(2, 3, 4), {dim = {1, 3}, keepdim = true}",
               "transposed(3, 4), 2"},
};

/* ---- mean -------------------------------------------------------------------------------- */

static lt_status mean_forward(lt_call *c) { return lt_forward_fold(c, &lt_fold_mean, NULL); }

static void mean_vjp(lt_vjp *v) {
  lt_spec x = lt_input_spec(v, 0);
  lt_tensor *share = lt_scale(v->s, v->dy[0], 1.0 / (double)lt_reduced_count(v));
  lt_give(v, 0, lt_expand_to(v->s, lt_restore_dims(v, share), &x.shape));
}

const lt_op lt_op_mean = {
    .name = "mean",
    .doc = "Arithmetic mean, sum(x) / n, over the dimensions in dim, by default all. Of nothing: "
           "nan.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {{"dim", LT_OPTION_DIMS}, {"keepdim", LT_OPTION_BOOL}},
    .infer = lt_infer_reduction,
    .forward = mean_forward,
    .vjp = mean_vjp,
    .linear = true,
    .batch = lt_batch_dims,
    .sample = {"normal(3, 4)", "normal(2, 3, 4), {dim = {1, 3}}", "transposed(3, 4), 1"},
};

/* ---- prod -------------------------------------------------------------------------------- */

static lt_status prod_forward(lt_call *c) { return lt_forward_fold(c, &lt_fold_prod, NULL); }

static lt_tensor *product_before(lt_scope *s, lt_tensor *x, int64_t dim, bool reverse) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_product_before);
  lt_attrs_set_int(&attrs, &lt_op_product_before, 0, dim);
  lt_attrs_set_int(&attrs, &lt_op_product_before, 1, reverse);
  return lt_do1(s, &lt_op_product_before, &attrs, x);
}

/* dy/dx_i is the product of all other factors, those before times those behind: right with zeros
 * among them, to every order. */
static void prod_vjp(lt_vjp *v) {
  lt_tensor *x = v->in[0], *dy = lt_restore_dims(v, v->dy[0]);
  lt_shape shape = x->shape, line = {.ndim = 1, .size = {x->numel}}, ones = {1, {1}};
  bool all = !lt_given(v->attrs, 0);
  int64_t dim = all ? 0 : lt_get_int(v->attrs, v->op, 0);
  if (all) {
    x = lt_reshape_to(v->s, x, &line);
    dy = lt_reshape_to(v->s, dy, &ones);
  }
  lt_tensor *others =
      lt_mul(v->s, product_before(v->s, x, dim, false), product_before(v->s, x, dim, true));
  lt_give(v, 0, lt_reshape_to(v->s, lt_mul(v->s, dy, others), &shape));
}

const lt_op lt_op_prod = {
    .name = "prod",
    .doc = "Product over dimension dim, by default over all elements. Integers and bool give "
           "int64. The empty product is 1. The gradient is exact with zeros among the factors.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dim", LT_OPTION_DIM}, {"keepdim", LT_OPTION_BOOL}},
    .infer = infer_number,
    .forward = prod_forward,
    .vjp = prod_vjp,
    .batch = lt_batch_dims_or_all,
    .saves = LT_IN(0),
    .sample = {"normal(3, 2)", "normal(2, 3, 4), {dim = 2, keepdim = true}"},
};

/* ---- count_nonzero, any, all -------------------------------------------------------------- */

static lt_status infer_count(lt_call *c) { return lt_infer_reduced(c, 0, LT_INT64); }
static lt_status infer_test(lt_call *c) { return lt_infer_reduced(c, 0, LT_BOOL); }

static lt_status count_nonzero_forward(lt_call *c) {
  return lt_forward_fold(c, &lt_fold_count, NULL);
}
static lt_status any_forward(lt_call *c) { return lt_forward_fold(c, &lt_fold_any, NULL); }
static lt_status all_forward(lt_call *c) { return lt_forward_fold(c, &lt_fold_all, NULL); }

const lt_op lt_op_count_nonzero = {
    .name = "count_nonzero",
    .doc = "Number of elements other than 0 (NaN is one), as int64, over the dimensions in dim, by "
           "default all.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dim", LT_OPTION_DIMS}},
    .infer = infer_count,
    .forward = count_nonzero_forward,
    .batch = lt_batch_dims,
    .sample = {"normal(3, 4)", "integers(0, 2, 2, 3, 4), {dim = {1, 3}}"},
};

const lt_op lt_op_any = {
    .name = "any",
    .doc = "Is an element other than 0 (or true)? As bool, over the dimensions in dim, by default "
           "all. Of nothing: false.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dim", LT_OPTION_DIMS}, {"keepdim", LT_OPTION_BOOL}},
    .infer = infer_test,
    .forward = any_forward,
    .batch = lt_batch_dims,
    .sample = {"mask(3, 4)", "mask(2, 3, 4), {dim = {1, 3}, keepdim = true}"},
};

const lt_op lt_op_all = {
    .name = "all",
    .doc = "Are all elements other than 0 (or true)? As bool, over the dimensions in dim, by "
           "default all. Of nothing: true.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dim", LT_OPTION_DIMS}, {"keepdim", LT_OPTION_BOOL}},
    .infer = infer_test,
    .forward = all_forward,
    .batch = lt_batch_dims,
    .sample = {"mask(3, 4)", "mask(2, 3, 4), {dim = {1, 3}, keepdim = true}"},
};

LT_FAMILY(reduce, &lt_op_sum, &lt_op_mean, &lt_op_prod, &lt_op_count_nonzero, &lt_op_any,
          &lt_op_all)
