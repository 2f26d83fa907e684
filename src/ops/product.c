/* Products made of other ops: outer, Kronecker and cross products, products with a term added,
 * contractions of several dimensions, powers. What is a sum of products goes through matmul. */
#include "ops/family.h"
#include "ops/index.h"
#include "ops/linalg.h"

/* ---- Words ----------------------------------------------------------------------------------- */

lt_tensor *lt_product(lt_scope *s, lt_tensor *a, lt_tensor *b) {
  return lt_do2(s, &lt_op_matmul, NULL, a, b);
}

lt_tensor *lt_transposed(lt_scope *s, lt_tensor *a) { return lt_do1(s, &lt_op_transpose, NULL, a); }

lt_tensor *lt_unsqueezed(lt_scope *s, lt_tensor *a, int dim) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_unsqueeze);
  lt_attrs_set_int(&attrs, &lt_op_unsqueeze, 0, dim);
  return lt_do1(s, &lt_op_unsqueeze, &attrs, a);
}

lt_tensor *lt_part(lt_scope *s, lt_tensor *a, int dim, int64_t start, int64_t length) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_narrow);
  lt_attrs_set_int(&attrs, &lt_op_narrow, 0, dim);
  lt_attrs_set_int(&attrs, &lt_op_narrow, 1, start);
  lt_attrs_set_int(&attrs, &lt_op_narrow, 2, length);
  return lt_do1(s, &lt_op_narrow, &attrs, a);
}

/* ---- Checks ---------------------------------------------------------------------------------- */

static lt_status check_ranks(lt_call *c, int first, int left, int right) {
  const lt_shape *a = &c->in[first]->shape, *b = &c->in[first + 1]->shape;
  char ta[LT_SHAPE_TEXT], tb[LT_SHAPE_TEXT];
  if (a->ndim == left && b->ndim == right) return LT_OK;
  return lt_fail(c->ctx, "%s: %s must have %d dimension%s and %s %d (got %s and %s)", c->op->name,
                 c->op->inputs[first].name, left, left > 1 ? "s" : "",
                 c->op->inputs[first + 1].name, right, lt_shape_text(a, ta), lt_shape_text(b, tb));
}

/* ---- outer, kron ------------------------------------------------------------------------------
 */

static lt_status outer_infer(lt_call *c) { return check_ranks(c, 0, 1, 1); }

static void outer_compose(lt_call *c, lt_scope *s) {
  c->out[0] = lt_mul(s, lt_unsqueezed(s, c->in[0], 1), c->in[1]);
}

const lt_op lt_op_outer = {
    .name = "outer",
    .doc = "Outer product of two vectors, y[i][j] = x[i] other[j]: m and n give m x n.",
    .inputs = {{"x", LT_ANY}, {"other", LT_ANY}},
    .infer = outer_infer,
    .compose = outer_compose,
    .sample = {"normal(3), normal(4)", "normal(1), normal(2)"},
};

/* Sizes of a and b in turn, 1 in the place of the other's; and their products. */
static lt_status kron_shapes(lt_call *c, lt_shape *a, lt_shape *b, lt_shape *y) {
  const lt_shape *x = &c->in[0]->shape, *other = &c->in[1]->shape;
  int n = x->ndim > other->ndim ? x->ndim : other->ndim;
  if (2 * n > LT_MAX_RANK) {
    return lt_fail(c->ctx, "kron: takes at most %d dimensions, got %d", LT_MAX_RANK / 2, n);
  }
  a->ndim = b->ndim = 2 * n;
  y->ndim = n;
  for (int d = 0; d < n; d++) {
    int da = d - (n - x->ndim), db = d - (n - other->ndim);
    a->size[2 * d] = da < 0 ? 1 : x->size[da];
    b->size[2 * d + 1] = db < 0 ? 1 : other->size[db];
    a->size[2 * d + 1] = b->size[2 * d] = 1;
    y->size[d] = a->size[2 * d] * b->size[2 * d + 1]; /* both below 2^48; checked as a whole */
  }
  return LT_OK;
}

static lt_status kron_infer(lt_call *c) {
  lt_shape a, b, y;
  LT_TRY(kron_shapes(c, &a, &b, &y));
  (void)lt_shape_broadcast(&a, &b);
  return lt_shape_check(c->ctx, "kron", &a);
}

static void kron_compose(lt_call *c, lt_scope *s) {
  lt_shape a, b, y;
  s->status = kron_shapes(c, &a, &b, &y);
  lt_tensor *product = lt_mul(s, lt_reshape_to(s, c->in[0], &a), lt_reshape_to(s, c->in[1], &b));
  c->out[0] = lt_reshape_to(s, product, &y);
}

const lt_op lt_op_kron = {
    .name = "kron",
    .doc = "Kronecker product: every element of x times the whole of other, in its place. Sizes "
           "multiply, dimension by dimension; the one with fewer gets ones in front.",
    .inputs = {{"x", LT_ANY}, {"other", LT_ANY}},
    .infer = kron_infer,
    .compose = kron_compose,
    .sample = {"normal(2, 2), normal(3, 2)", "normal(3), normal(2, 2)",
               "transposed(2, 2, 3), normal(1, 2, 1)"},
};

/* ---- cross, vecdot ----------------------------------------------------------------------------
 */

enum { DIM };

/* The dimension from the end, which both operands have, and their common shape. */
static lt_status vector_dim(lt_call *c, int64_t *dim, lt_shape *shape) {
  int64_t given = lt_get_int(c->attrs, c->op, DIM);
  int at;
  *shape = c->in[0]->shape;
  if (!lt_shape_broadcast(shape, &c->in[1]->shape)) {
    char a[LT_SHAPE_TEXT], b[LT_SHAPE_TEXT];
    return lt_fail(c->ctx, "%s: shapes do not broadcast (%s and %s)", c->op->name,
                   lt_shape_text(&c->in[0]->shape, a), lt_shape_text(&c->in[1]->shape, b));
  }
  LT_TRY(lt_dim_normalise(c->ctx, c->op->name, given, shape->ndim, &at));
  *dim = at - shape->ndim;
  return LT_OK;
}

static lt_status cross_infer(lt_call *c) {
  int64_t dim = 0;
  lt_shape shape;
  LT_TRY(vector_dim(c, &dim, &shape));
  for (int i = 0; i < 2; i++) {
    const lt_shape *x = &c->in[i]->shape;
    char text[LT_SHAPE_TEXT];
    if (x->ndim == shape.ndim && x->ndim > 0 && x->size[x->ndim + dim] == 3) continue;
    return lt_fail(c->ctx, "cross: %s must have size 3 in dim %d, got %s", c->op->inputs[i].name,
                   shape.ndim + (int)dim + 1, lt_shape_text(x, text));
  }
  return LT_OK;
}

/* x with its components in another order: each takes the place of the one `by` before it. */
static lt_tensor *turned(lt_scope *s, lt_tensor *x, int64_t dim, int64_t by) {
  lt_tensor *order = NULL;
  lt_shape three = lt_shape_make(1, (int64_t[]){3});
  if (s->status == LT_OK) s->status = lt_tensor_new(s->ctx, "cross", LT_INT64, &three, &order);
  if (s->status != LT_OK) return NULL;
  for (int64_t i = 0; i < 3; i++) lt_tensor_write_int(order, i, (i + by) % 3 + 1);
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_index_select);
  lt_attrs_set_int(&attrs, &lt_op_index_select, 0, dim);
  return lt_do2(s, &lt_op_index_select, &attrs, x, lt_keep(s, order));
}

static void cross_compose(lt_call *c, lt_scope *s) {
  int64_t dim = 0;
  lt_shape shape;
  lt_tensor *a = c->in[0], *b = c->in[1];
  s->status = vector_dim(c, &dim, &shape);
  c->out[0] = lt_sub(s, lt_mul(s, turned(s, a, dim, 1), turned(s, b, dim, 2)),
                     lt_mul(s, turned(s, a, dim, 2), turned(s, b, dim, 1)));
}

const lt_op lt_op_cross = {
    .name = "cross",
    .doc = "Cross product of vectors of 3 components, which lie along dim; the other dimensions "
           "broadcast.",
    .inputs = {{"x", LT_ANY}, {"other", LT_ANY}},
    .options = {{"dim", LT_OPTION_DIM, .value = -1}},
    .infer = cross_infer,
    .compose = cross_compose,
    .sample = {"normal(2, 3), normal(2, 3)", "normal(3, 4), normal(3, 1), {dim = 1}",
               "normal(3), normal(3)", "transposed(2, 3, 2), normal(2, 3, 2), {dim = 2}"},
};

static lt_status vecdot_infer(lt_call *c) {
  int64_t dim = 0;
  lt_shape shape;
  return vector_dim(c, &dim, &shape);
}

static void vecdot_compose(lt_call *c, lt_scope *s) {
  int64_t dim = 0;
  lt_shape shape;
  s->status = vector_dim(c, &dim, &shape);
  c->out[0] = lt_sum_over(s, lt_mul(s, c->in[0], c->in[1]), 1, &dim, false);
}

const lt_op lt_op_vecdot = {
    .name = "vecdot",
    .doc = "Inner products of vectors, which lie along dim: the sum of x * other over it, with "
           "broadcasting.",
    .inputs = {{"x", LT_ANY}, {"other", LT_ANY}},
    .options = {{"dim", LT_OPTION_DIM, .value = -1}},
    .infer = vecdot_infer,
    .compose = vecdot_compose,
    .sample = {"normal(2, 3), normal(2, 3)", "normal(3, 4), normal(3, 1), {dim = 1}",
               "normal(3), normal(2, 2, 3)"},
};

/* ---- addmm, addmv, addr, baddbmm: beta * input + alpha * product --------------------------------
 */

enum { BETA, ALPHA };

/* The product's shape is batch (-1: none) x m x n, without a dimension that is negative. */
static lt_status check_sum(lt_call *c, int64_t inner1, int64_t inner2, int64_t batch, int64_t m,
                           int64_t n) {
  lt_shape product = {0}, shape = c->in[0]->shape;
  char text[3][LT_SHAPE_TEXT];
  if (inner1 != inner2) {
    return lt_fail(c->ctx, "%s: inner sizes differ (%s and %s)", c->op->name,
                   lt_shape_text(&c->in[1]->shape, text[0]),
                   lt_shape_text(&c->in[2]->shape, text[1]));
  }
  int64_t sizes[] = {batch, m, n};
  for (int d = 0; d < 3; d++) {
    if (sizes[d] >= 0) product.size[product.ndim++] = sizes[d];
  }
  LT_TRY(lt_check_same_dtype(c));
  if (lt_shape_broadcast(&shape, &product) && lt_shape_equal(&shape, &product)) return LT_OK;
  return lt_fail(c->ctx, "%s: input (%s) does not broadcast to the product's shape (%s)",
                 c->op->name, lt_shape_text(&c->in[0]->shape, text[0]),
                 lt_shape_text(&product, text[1]));
}

/* Zeros in the shape of x, whose values do not count, not even NaN; its gradient is 0. */
static lt_tensor *without_values(lt_scope *s, lt_tensor *x) {
  lt_tensor *all = lt_full_like(s, &(lt_spec){.dtype = LT_BOOL}, 1);
  return lt_do3(s, &lt_op_masked_fill, NULL, x, all, lt_number(s, 0));
}

static void add_product(lt_call *c, lt_scope *s, lt_tensor *product) {
  double beta = lt_get_number(c->attrs, c->op, BETA), alpha = lt_get_number(c->attrs, c->op, ALPHA);
  lt_tensor *input = c->in[0];
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_add);
  lt_attrs_set_number(&attrs, &lt_op_add, 0, alpha);
  if (beta != 1) input = beta == 0 ? without_values(s, input) : lt_scale(s, input, beta);
  c->out[0] = lt_do2(s, &lt_op_add, &attrs, input, product);
}

static void add_matmul(lt_call *c, lt_scope *s) {
  add_product(c, s, lt_product(s, c->in[1], c->in[2]));
}

static lt_status addmm_infer(lt_call *c) {
  LT_TRY(check_ranks(c, 1, 2, 2));
  const int64_t *a = c->in[1]->shape.size, *b = c->in[2]->shape.size;
  return check_sum(c, a[1], b[0], -1, a[0], b[1]);
}

const lt_op lt_op_addmm = {
    .name = "addmm",
    .doc = "beta * input + alpha * mat1 mat2: m x k by k x n gives m x n, to which input "
           "broadcasts. With beta = 0 the values of input do not count.",
    .inputs = {{"input", LT_FLOAT}, {"mat1", LT_FLOAT}, {"mat2", LT_FLOAT}},
    .options = {{"beta", LT_OPTION_NUMBER, .value = 1}, {"alpha", LT_OPTION_NUMBER, .value = 1}},
    .infer = addmm_infer,
    .compose = add_matmul,
    .sample = {"normal(2, 3), normal(2, 4), normal(4, 3)",
               "normal(3), transposed(2, 4), normal(4, 3), {beta = 0.5, alpha = -2}",
               "normal(2, 1), normal(2, 2), normal(2, 3), {beta = 0}"},
};

static lt_status baddbmm_infer(lt_call *c) {
  LT_TRY(check_ranks(c, 1, 3, 3));
  const int64_t *a = c->in[1]->shape.size, *b = c->in[2]->shape.size;
  if (a[0] != b[0]) {
    return lt_fail(c->ctx, "baddbmm: batch sizes differ (%lld and %lld)", (long long)a[0],
                   (long long)b[0]);
  }
  return check_sum(c, a[2], b[1], a[0], a[1], b[2]);
}

const lt_op lt_op_baddbmm = {
    .name = "baddbmm",
    .doc = "beta * input + alpha * batch1 batch2 on batches of matrices: b x m x k by b x k x n "
           "gives b x m x n, to which input broadcasts. With beta = 0 the values of input do not "
           "count.",
    .inputs = {{"input", LT_FLOAT}, {"batch1", LT_FLOAT}, {"batch2", LT_FLOAT}},
    .options = {{"beta", LT_OPTION_NUMBER, .value = 1}, {"alpha", LT_OPTION_NUMBER, .value = 1}},
    .infer = baddbmm_infer,
    .compose = add_matmul,
    .sample = {"normal(2, 2, 3), normal(2, 2, 4), normal(2, 4, 3)",
               "normal(3), transposed(2, 2, 4), normal(2, 4, 3), {beta = 0.5, alpha = -2}"},
};

static lt_status addmv_infer(lt_call *c) {
  LT_TRY(check_ranks(c, 1, 2, 1));
  const int64_t *a = c->in[1]->shape.size;
  return check_sum(c, a[1], c->in[2]->shape.size[0], -1, a[0], -1);
}

const lt_op lt_op_addmv = {
    .name = "addmv",
    .doc = "beta * input + alpha * mat vec: m x k by k gives m, to which input broadcasts. With "
           "beta = 0 the values of input do not count.",
    .inputs = {{"input", LT_FLOAT}, {"mat", LT_FLOAT}, {"vec", LT_FLOAT}},
    .options = {{"beta", LT_OPTION_NUMBER, .value = 1}, {"alpha", LT_OPTION_NUMBER, .value = 1}},
    .infer = addmv_infer,
    .compose = add_matmul,
    .sample = {"normal(3), normal(3, 4), normal(4)",
               "normal(), transposed(3, 4), normal(4), {beta = 0.5, alpha = -2}"},
};

static lt_status addr_infer(lt_call *c) {
  LT_TRY(check_ranks(c, 1, 1, 1));
  return check_sum(c, 1, 1, -1, c->in[1]->numel, c->in[2]->numel);
}

static void addr_compose(lt_call *c, lt_scope *s) {
  add_product(c, s, lt_mul(s, lt_unsqueezed(s, c->in[1], 1), c->in[2]));
}

const lt_op lt_op_addr = {
    .name = "addr",
    .doc = "beta * input + alpha * the outer product of vec1 and vec2: m and n give m x n, to "
           "which input broadcasts. With beta = 0 the values of input do not count.",
    .inputs = {{"input", LT_FLOAT}, {"vec1", LT_FLOAT}, {"vec2", LT_FLOAT}},
    .options = {{"beta", LT_OPTION_NUMBER, .value = 1}, {"alpha", LT_OPTION_NUMBER, .value = 1}},
    .infer = addr_infer,
    .compose = addr_compose,
    .sample = {"normal(3, 4), normal(3), normal(4)",
               "normal(4), normal(3), normal(4), {beta = 0.5, alpha = -2}"},
};

/* ---- tensordot --------------------------------------------------------------------------------
 */

enum { TENSORDOT_DIMS };

/* Which dimensions of x meet which of other, one by one. */
typedef struct contraction {
  int n, dim[2][LT_MAX_RANK];
} contraction;

static lt_status contraction_of(lt_call *c, contraction *t) {
  int n;
  const int64_t *list = lt_get_list(c->attrs, c->op, TENSORDOT_DIMS, &n);
  const lt_shape *x = &c->in[0]->shape, *other = &c->in[1]->shape;
  if (n == 1) {
    if (list[0] < 0 || list[0] > x->ndim || list[0] > other->ndim) {
      return lt_fail(c->ctx, "tensordot: dims = %lld of tensors of %d and %d dimensions",
                     (long long)list[0], x->ndim, other->ndim);
    }
    t->n = (int)list[0];
    for (int i = 0; i < t->n; i++) {
      t->dim[0][i] = x->ndim - t->n + i;
      t->dim[1][i] = i;
    }
    return LT_OK;
  }
  if (n % 2 != 0) {
    return lt_fail(c->ctx, "tensordot: dims must name as many dimensions of other as of x");
  }
  t->n = n / 2;
  for (int side = 0; side < 2; side++) {
    uint32_t seen = 0;
    for (int i = 0; i < t->n; i++) {
      int64_t dim = list[side * t->n + i];
      int *at = &t->dim[side][i];
      if (dim == 0) return lt_fail(c->ctx, "tensordot: dims has a 0; they count from 1");
      LT_TRY(lt_dim_normalise(c->ctx, "tensordot", dim > 0 ? dim - 1 : dim,
                              c->in[side]->shape.ndim ? c->in[side]->shape.ndim : 0, at));
      if (seen >> *at & 1 || c->in[side]->shape.ndim == 0) {
        return lt_fail(c->ctx, "tensordot: dims names dim %d of %s twice, or it has none", *at + 1,
                       c->op->inputs[side].name);
      }
      seen |= 1u << *at;
    }
  }
  return LT_OK;
}

static lt_status tensordot_infer(lt_call *c) {
  contraction t = {0};
  const lt_shape *x = &c->in[0]->shape, *other = &c->in[1]->shape;
  char a[LT_SHAPE_TEXT], b[LT_SHAPE_TEXT];
  LT_TRY(lt_check_same_dtype(c));
  LT_TRY(contraction_of(c, &t));
  for (int i = 0; i < t.n; i++) {
    if (x->size[t.dim[0][i]] == other->size[t.dim[1][i]]) continue;
    return lt_fail(c->ctx, "tensordot: dim %d of x and dim %d of other differ in size (%s and %s)",
                   t.dim[0][i] + 1, t.dim[1][i] + 1, lt_shape_text(x, a), lt_shape_text(other, b));
  }
  if (x->ndim + other->ndim - 2 * t.n > LT_MAX_RANK) {
    return lt_fail(c->ctx, "tensordot: the result has more than %d dimensions (%s and %s)",
                   LT_MAX_RANK, lt_shape_text(x, a), lt_shape_text(other, b));
  }
  return LT_OK;
}

/* An operand as a matrix: its contracted dimensions are the columns of x, the rows of other. */
static lt_tensor *as_matrix(lt_scope *s, lt_tensor *x, const contraction *t, int side,
                            lt_shape *shape) {
  int64_t order[LT_MAX_RANK], inner = 1, outer = 1;
  uint32_t gone = 0;
  int n = 0;
  for (int i = 0; i < t->n; i++) gone |= 1u << t->dim[side][i];
  for (int i = 0; side == 1 && i < t->n; i++) order[n++] = t->dim[1][i];
  for (int d = 0; d < x->shape.ndim; d++) {
    if (gone >> d & 1) {
      inner *= x->shape.size[d];
      continue;
    }
    order[n++] = d;
    outer *= x->shape.size[d];
    shape->size[shape->ndim++] = x->shape.size[d];
  }
  for (int i = 0; side == 0 && i < t->n; i++) order[n++] = t->dim[0][i];
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_permute);
  lt_attrs_set_list(&attrs, &lt_op_permute, 0, n, order);
  lt_shape matrix =
      lt_shape_make(2, side == 0 ? (int64_t[]){outer, inner} : (int64_t[]){inner, outer});
  return lt_reshape_to(s, lt_do1(s, &lt_op_permute, &attrs, x), &matrix);
}

static void tensordot_compose(lt_call *c, lt_scope *s) {
  contraction t = {0};
  lt_shape shape = {0};
  s->status = contraction_of(c, &t);
  if (s->status != LT_OK) return;
  lt_tensor *a = as_matrix(s, c->in[0], &t, 0, &shape);
  lt_tensor *b = as_matrix(s, c->in[1], &t, 1, &shape);
  c->out[0] = lt_reshape_to(s, lt_product(s, a, b), &shape);
}

const lt_op lt_op_tensordot = {
    .name = "tensordot",
    .doc = "Sum of products over several dimensions at once. dims = n: the last n of x with the "
           "first n of other; dims = {{1, 3}, {2, 1}}: 1 of x with 2 of other, and 3 with 1. What "
           "is left of x comes first in the result. One product of matrices.",
    .inputs = {{"x", LT_FLOAT}, {"other", LT_FLOAT}},
    .options = {{"dims", LT_OPTION_PAIRS, .required = true}},
    .infer = tensordot_infer,
    .compose = tensordot_compose,
    .sample = {"normal(2, 3, 2), normal(3, 2, 4), 2",
               "normal(2, 3, 2), transposed(4, 2, 2), {dims = {{3, 1}, {2, -1}}}",
               "normal(2), normal(3), {dims = 0}"},
};

/* ---- matrix_power -----------------------------------------------------------------------------
 */

enum { POWER };

static lt_status matrix_power_infer(lt_call *c) { return lt_check_matrix(c, 0, true); }

/* By squaring: some 2 log2(n) products. */
static void matrix_power_compose(lt_call *c, lt_scope *s) {
  int64_t n = lt_get_int(c->attrs, c->op, POWER);
  lt_tensor *square = c->in[0], *y = NULL;
  uint64_t left = n < 0 ? -(uint64_t)n : (uint64_t)n;
  if (n < 0) square = lt_do1(s, &lt_op_inv, NULL, square);
  if (n == 0) {
    lt_spec ones = {(lt_dtype)square->dtype, square->shape};
    ones.shape.ndim--;
    y = lt_add(s, without_values(s, square), lt_diagonal_matrix(s, lt_full_like(s, &ones, 1)));
  }
  for (; left > 0 && s->status == LT_OK; left >>= 1) {
    if (left & 1) y = y ? lt_product(s, y, square) : square;
    if (left > 1) square = lt_product(s, square, square);
  }
  c->out[0] = n == 1 ? lt_do1(s, &lt_op_clone, NULL, y) : y;
}

const lt_op lt_op_matrix_power = {
    .name = "matrix_power",
    .doc = "Square matrices to the power n, an integer: products by repeated squaring, of the "
           "inverse where n is negative; n = 0 gives the identity.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {{"n", LT_OPTION_INT, .required = true}},
    .infer = matrix_power_infer,
    .compose = matrix_power_compose,
    .sample = {"uniform(3, 3), 3", "uniform(2, 2), 1", "uniform(2, 2), 0",
               "transposed(2, 2, 2), {n = 2}",
               "positive(2, 2):diag_embed() + uniform(2, 2, 2) * 0.25, {n = -2}"},
};

LT_FAMILY(product, &lt_op_outer, &lt_op_kron, &lt_op_cross, &lt_op_vecdot, &lt_op_addmm,
          &lt_op_baddbmm, &lt_op_addmv, &lt_op_addr, &lt_op_tensordot, &lt_op_matrix_power)
