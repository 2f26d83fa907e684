/* Systems of linear equations, inverses and determinants, by LAPACK's factors P L U. Rows of our
 * matrices are Fortran's columns: it sees the transposed matrix, and what is asked of it is turned
 * around accordingly, so that little is copied. */
#include "ops/linalg.h"
#include "core/context.h"
#include "kernels/copy.h"
#include "kernels/gemm.h"
#include "kernels/lapack.h"
#include "ops/family.h"
#include "tape/vmap.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- Checks -----------------------------------------------------------------------------------
 */

lt_status lt_check_same_dtype(lt_call *c) {
  for (int i = 1; i < c->inputs; i++) {
    if (!c->in[i] || c->in[i]->dtype == c->in[0]->dtype) continue;
    const char *name = lt_dtype_name((lt_dtype)c->in[0]->dtype);
    return lt_fail(c->ctx, "%s: dtypes differ (%s and %s); convert one, as in x:to(\"%s\")",
                   c->op->name, name, lt_dtype_name((lt_dtype)c->in[i]->dtype), name);
  }
  return LT_OK;
}

lt_status lt_check_matrix(lt_call *c, int i, bool square) {
  const lt_shape *x = &c->in[i]->shape;
  char text[LT_SHAPE_TEXT];
  if (x->ndim >= 2 && (!square || x->size[x->ndim - 1] == x->size[x->ndim - 2])) return LT_OK;
  return lt_fail(c->ctx, "%s: %s must be a %smatrix, or a batch of them, got %s", c->op->name,
                 c->op->inputs[i].name, square ? "square " : "", lt_shape_text(x, text));
}

/* ---- Matrices of a tensor ----------------------------------------------------------------------
 */

static double read_at(lt_dtype dtype, const void *a, int64_t i) {
  return dtype == LT_FLOAT64 ? ((const double *)a)[i] : (double)((const float *)a)[i];
}
static void write_at(lt_dtype dtype, void *a, int64_t i, double value) {
  if (dtype == LT_FLOAT64)
    ((double *)a)[i] = value;
  else
    ((float *)a)[i] = (float)value;
}

lt_shape lt_batch_of(const lt_shape *s) { return lt_shape_make(s->ndim - 2, s->size); }

lt_matrices lt_matrices_of(const lt_tensor *t, const lt_shape *batch) {
  lt_shape own = lt_batch_of(&t->shape);
  lt_matrices m = {.t = t,
                   .rows = t->shape.size[t->shape.ndim - 2],
                   .columns = t->shape.size[t->shape.ndim - 1],
                   .count = lt_shape_numel(batch),
                   .batch = *batch};
  lt_broadcast_strides(&own, t->strides, batch, m.stride);
  return m;
}

int64_t lt_matrix_at(const lt_matrices *m, int64_t i) {
  int64_t offset = 0;
  for (int d = m->batch.ndim - 1; d >= 0; d--) {
    offset += i % m->batch.size[d] * m->stride[d];
    i /= m->batch.size[d];
  }
  return offset;
}

void lt_matrix_take(const lt_matrices *m, int64_t i, bool by_columns, void *to) {
  const lt_tensor *t = m->t;
  lt_dtype dtype = (lt_dtype)t->dtype;
  const int64_t *from = t->strides + t->shape.ndim - 2;
  lt_shape shape = lt_shape_make(2, (int64_t[]){m->rows, m->columns});
  int64_t strides[] = {by_columns ? 1 : m->columns, by_columns ? m->rows : 1};
  lt_copy(&shape, dtype, to, strides, dtype, t->data + lt_matrix_at(m, i) * lt_dtype_size(dtype),
          from);
}

void lt_matrix_put(lt_tensor *y, int64_t i, const void *columns) {
  const int64_t *size = y->shape.size + y->shape.ndim - 2;
  lt_dtype dtype = (lt_dtype)y->dtype;
  lt_shape shape = lt_shape_make(2, size);
  lt_copy(&shape, dtype, y->data + i * size[0] * size[1] * lt_dtype_size(dtype),
          (int64_t[]){size[1], 1}, dtype, columns, (int64_t[]){1, size[0]});
}

bool lt_all_finite(lt_dtype dtype, int64_t n, const void *data) {
  for (int64_t i = 0; i < n; i++) {
    if (!isfinite(read_at(dtype, data, i))) return false;
  }
  return true;
}

const char *lt_matrix_text(int64_t i, int64_t count, char text[64]) {
  if (count == 1) return "the matrix";
  snprintf(text, 64, "matrix %lld of %lld", (long long)i + 1, (long long)count);
  return text;
}

lt_status lt_scratch_new(lt_context *ctx, const char *op, int parts, const int64_t *bytes,
                         lt_scratch *s) {
  enum { ALIGN = 64 };
  int64_t total = 0, at[LT_SCRATCH_PARTS];
  for (int i = 0; i < parts; i++) {
    at[i] = total;
    if (__builtin_add_overflow(total, (bytes[i] + ALIGN - 1) / ALIGN * ALIGN, &total)) {
      return lt_fail(ctx, "%s: the matrix is too large", op);
    }
  }
  LT_TRY(lt_block_new(ctx, total, &s->block));
  for (int i = 0; i < parts; i++) s->part[i] = (char *)s->block->data + at[i];
  return LT_OK;
}

static lt_status too_large(lt_call *c) {
  return lt_fail(c->ctx, "%s: the matrix is too large for LAPACK", c->op->name);
}

static lt_status singular(lt_call *c, const char *op, int64_t i, int64_t count) {
  char which[64];
  return lt_fail(c->ctx, "%s: %s is singular", op, lt_matrix_text(i, count, which));
}

static void set_identity(lt_dtype dtype, int64_t n, void *a) {
  memset(a, 0, (size_t)(n * n * lt_dtype_size(dtype)));
  for (int64_t i = 0; i < n; i++) write_at(dtype, a, i * (n + 1), 1);
}

/* ---- inv --------------------------------------------------------------------------------------
 */

enum { LU, PIVOTS, MORE };

/* Room for the factors of an n x n matrix, and `more` elements. */
static lt_status lu_scratch(lt_call *c, int64_t n, int64_t more, lt_scratch *s) {
  int64_t item = lt_dtype_size((lt_dtype)c->in[0]->dtype);
  if (n > LT_LAPACK_MOST || more / (n > 0 ? n : 1) > LT_LAPACK_MOST) return too_large(c);
  return lt_scratch_new(c->ctx, c->op->name, 3,
                        (int64_t[]){n * n * item, n * (int64_t)sizeof(int32_t), more * item}, s);
}

static lt_status inv_infer(lt_call *c) {
  LT_TRY(lt_check_matrix(c, 0, true));
  return lt_infer_same(c);
}

static lt_status inv_run(lt_call *c, const lt_lapack *l, lt_scratch *s) {
  lt_tensor *y = c->out[0];
  lt_dtype dtype = (lt_dtype)y->dtype;
  lt_shape batch = lt_batch_of(&y->shape);
  lt_matrices x = lt_matrices_of(c->in[0], &batch);
  int64_t n = x.rows;
  for (int64_t i = 0; i < x.count; i++) {
    void *inverse = y->data + i * n * n * lt_dtype_size(dtype);
    LT_TRY(lt_check_interrupt(c->ctx));
    lt_matrix_take(&x, i, false, s->part[LU]);
    set_identity(dtype, n, inverse);
    if (lt_getrf(l, dtype, n, s->part[LU], s->part[PIVOTS]) > 0) {
      return singular(c, "inv", i, x.count);
    }
    lt_getrs(l, dtype, false, n, n, s->part[LU], s->part[PIVOTS], inverse);
  }
  return LT_OK;
}

static lt_status inv_forward(lt_call *c) {
  const lt_lapack *l;
  lt_scratch s;
  if (c->out[0]->numel == 0) return LT_OK;
  LT_TRY(lt_lapack_open(c->ctx, "inv", &l));
  LT_TRY(lu_scratch(c, c->in[0]->shape.size[c->in[0]->shape.ndim - 1], 0, &s));
  lt_status status = inv_run(c, l, &s);
  lt_block_release(s.block);
  return status;
}

/* dX = -Y^T dY Y^T */
static void inv_vjp(lt_vjp *v) {
  lt_tensor *t = lt_transposed(v->s, v->out[0]);
  lt_give(v, 0, lt_neg(v->s, lt_product(v->s, t, lt_product(v->s, v->dy[0], t))));
}

const lt_op lt_op_inv = {
    .name = "inv",
    .doc = "Inverse of square matrices, ... x n x n; an error for singular ones. By LAPACK (getrf, "
           "getrs).",
    .inputs = {{"x", LT_FLOAT}},
    .infer = inv_infer,
    .forward = inv_forward,
    .vjp = inv_vjp,
    .batch = lt_batch_leading,
    .saves = LT_OUT(0),
    .sample = {"positive(3):diag_embed() + uniform(3, 3) * 0.25",
               "transposed(2, 2, 2) * 0.25 + positive(2, 2):diag_embed()"},
};

/* ---- solve ------------------------------------------------------------------------------------
 */

/* b is one right side for each matrix, or a single one: not a matrix of columns. */
static bool is_vector(const lt_shape *a, const lt_shape *b) {
  if (b->ndim == 1) return true;
  if (a->ndim - 1 != b->ndim) return false;
  for (int d = 0; d < b->ndim; d++) {
    if (a->size[d] != b->size[d]) return false;
  }
  return true;
}

enum { LEFT };

static lt_status solve_check(lt_call *c) {
  const lt_shape *a = &c->in[0]->shape, *b = &c->in[1]->shape;
  char ta[LT_SHAPE_TEXT], tb[LT_SHAPE_TEXT];
  LT_TRY(lt_check_same_dtype(c));
  LT_TRY(lt_check_matrix(c, 0, true));
  bool vector = is_vector(a, b), left = lt_get_int(c->attrs, c->op, LEFT);
  if (vector && !left) {
    return lt_fail(c->ctx,
                   "solve: with left = false b must be a matrix, or a batch of them, got "
                   "%s",
                   lt_shape_text(b, tb));
  }
  int64_t n = b->ndim == 0 ? -1 : b->size[b->ndim - (vector || !left ? 1 : 2)];
  if (n != a->size[a->ndim - 1]) {
    return lt_fail(c->ctx, "solve: b has another number of rows than a (a %s, b %s)",
                   lt_shape_text(a, ta), lt_shape_text(b, tb));
  }
  lt_shape batch = lt_batch_of(a),
           other = lt_shape_make(vector ? b->ndim - 1 : b->ndim - 2, b->size);
  if (lt_shape_broadcast(&batch, &other)) return LT_OK;
  return lt_fail(c->ctx, "solve: batch sizes do not broadcast (a %s, b %s)", lt_shape_text(a, ta),
                 lt_shape_text(b, tb));
}

static void solve_compose(lt_call *c, lt_scope *s) {
  lt_tensor *a = c->in[0], *b = c->in[1], *x;
  if (!lt_get_int(c->attrs, c->op, LEFT)) { /* x a = b is a^T x^T = b^T */
    x = lt_do2(s, &lt_op_solve_columns, NULL, lt_transposed(s, a), lt_transposed(s, b));
    c->out[0] = lt_transposed(s, x);
    return;
  }
  if (!is_vector(&a->shape, &b->shape)) {
    c->out[0] = lt_do2(s, &lt_op_solve_columns, NULL, a, b);
    return;
  }
  x = lt_do2(s, &lt_op_solve_columns, NULL, a, lt_unsqueezed(s, b, -1));
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_squeeze);
  lt_attrs_set_list(&attrs, &lt_op_squeeze, 0, 1, (int64_t[]){-1});
  c->out[0] = lt_do1(s, &lt_op_squeeze, &attrs, x);
}

const lt_op lt_op_solve = {
    .name = "solve",
    .doc = "The x of a x = b for square matrices a, ... x n x n, and b of n x k or n (a vector for "
           "each matrix: ... x n with the batch of a, or a single one); of x a = b with left = "
           "false. Batches broadcast. An error for singular matrices. By LAPACK (getrf, getrs).",
    .inputs = {{"a", LT_FLOAT}, {"b", LT_FLOAT}},
    .options = {{"left", LT_OPTION_BOOL, .value = 1}},
    .infer = solve_check,
    .compose = solve_compose,
    .sample = {"positive(3):diag_embed() + uniform(3, 3) * 0.25, normal(3, 2)",
               "positive(2, 3):diag_embed() + uniform(2, 3, 3) * 0.25, transposed(3, 2)",
               "positive(2, 2):diag_embed() + uniform(2, 2) * 0.25, normal(2, 2)",
               "positive(2):diag_embed() + uniform(2, 2) * 0.25, normal(3, 2), {left = false}"},
};

static lt_status solve_columns_infer(lt_call *c) {
  lt_shape batch = lt_batch_of(&c->in[0]->shape), other = lt_batch_of(&c->in[1]->shape);
  const lt_shape *b = &c->in[1]->shape;
  lt_shape_broadcast(&batch, &other);
  for (int d = b->ndim - 2; d < b->ndim; d++) batch.size[batch.ndim++] = b->size[d];
  c->result[0] = (lt_spec){(lt_dtype)c->in[0]->dtype, batch};
  return LT_OK;
}

/* A matrix that serves several right sides one after the other is factored once. */
static lt_status solve_run(lt_call *c, const lt_lapack *l, lt_scratch *s) {
  lt_tensor *y = c->out[0];
  lt_dtype dtype = (lt_dtype)y->dtype;
  lt_shape batch = lt_batch_of(&y->shape);
  lt_matrices a = lt_matrices_of(c->in[0], &batch), b = lt_matrices_of(c->in[1], &batch);
  int64_t factored = -1;
  for (int64_t i = 0; i < a.count; i++) {
    LT_TRY(lt_check_interrupt(c->ctx));
    if (i == 0 || lt_matrix_at(&a, i) != factored) {
      factored = lt_matrix_at(&a, i);
      lt_matrix_take(&a, i, false, s->part[LU]);
      if (lt_getrf(l, dtype, a.rows, s->part[LU], s->part[PIVOTS]) > 0) {
        return singular(c, "solve", i, a.count);
      }
    }
    lt_matrix_take(&b, i, true, s->part[MORE]);
    lt_getrs(l, dtype, true, a.rows, b.columns, s->part[LU], s->part[PIVOTS], s->part[MORE]);
    lt_matrix_put(y, i, s->part[MORE]);
  }
  return LT_OK;
}

static lt_status solve_columns_forward(lt_call *c) {
  const lt_lapack *l;
  lt_scratch s;
  const int64_t *size = c->out[0]->shape.size + c->out[0]->shape.ndim - 2;
  if (c->out[0]->numel == 0) return LT_OK;
  LT_TRY(lt_lapack_open(c->ctx, "solve", &l));
  LT_TRY(lu_scratch(c, size[0], size[0] * size[1], &s));
  lt_status status = solve_run(c, l, &s);
  lt_block_release(s.block);
  return status;
}

/* dB = A^-T dX, dA = -dB X^T */
static void solve_columns_vjp(lt_vjp *v) {
  lt_tensor *db = lt_do2(v->s, v->op, NULL, lt_transposed(v->s, v->in[0]), v->dy[0]);
  if (v->need[1]) lt_give(v, 1, db);
  if (v->need[0]) {
    lt_give(v, 0, lt_neg(v->s, lt_product(v->s, db, lt_transposed(v->s, v->out[0]))));
  }
}

const lt_op lt_op_solve_columns = {
    .name = "solve_columns",
    .doc = "solve for a matrix of columns on the right side.",
    .inputs = {{"a", LT_FLOAT}, {"b", LT_FLOAT}},
    .infer = solve_columns_infer,
    .forward = solve_columns_forward,
    .vjp = solve_columns_vjp,
    .batch = lt_batch_broadcast,
    .saves = LT_IN(0) | LT_OUT(0),
    .internal = true,
};

/* ---- solve_triangular ---------------------------------------------------------------------------
 */

enum { UPPER, TRIANGULAR_LEFT, UNIT };

static lt_status solve_triangular_infer(lt_call *c) {
  const lt_shape *a = &c->in[0]->shape, *b = &c->in[1]->shape;
  char ta[LT_SHAPE_TEXT], tb[LT_SHAPE_TEXT];
  LT_TRY(lt_check_same_dtype(c));
  LT_TRY(lt_check_matrix(c, 0, true));
  LT_TRY(lt_check_matrix(c, 1, false));
  bool left = lt_get_int(c->attrs, c->op, TRIANGULAR_LEFT);
  if (b->size[b->ndim - (left ? 2 : 1)] != a->size[a->ndim - 1]) {
    return lt_fail(c->ctx, "solve_triangular: b has another number of %s than a (a %s, b %s)",
                   left ? "rows" : "columns", lt_shape_text(a, ta), lt_shape_text(b, tb));
  }
  lt_shape batch = lt_batch_of(a), other = lt_batch_of(b);
  if (!lt_shape_broadcast(&batch, &other)) {
    return lt_fail(c->ctx, "solve_triangular: batch sizes do not broadcast (a %s, b %s)",
                   lt_shape_text(a, ta), lt_shape_text(b, tb));
  }
  return solve_columns_infer(c);
}

/* Seen by columns, a x = b is x^T a^T = b^T, with an upper triangle that is a lower one. */
static lt_status solve_triangular_forward(lt_call *c) {
  const lt_lapack *l;
  lt_scratch s;
  lt_tensor *y = c->out[0];
  lt_dtype dtype = (lt_dtype)y->dtype;
  if (y->numel == 0) return LT_OK;
  lt_shape batch = lt_batch_of(&y->shape);
  lt_matrices a = lt_matrices_of(c->in[0], &batch), b = lt_matrices_of(c->in[1], &batch);
  bool upper = lt_get_int(c->attrs, c->op, UPPER), unit = lt_get_int(c->attrs, c->op, UNIT);
  bool left = lt_get_int(c->attrs, c->op, TRIANGULAR_LEFT);
  if (b.rows > LT_LAPACK_MOST || b.columns > LT_LAPACK_MOST) return too_large(c);
  LT_TRY(lt_lapack_open(c->ctx, "solve_triangular", &l));
  LT_TRY(lu_scratch(c, a.rows, 0, &s));
  lt_status status = LT_OK;
  for (int64_t i = 0; i < a.count && status == LT_OK; i++) {
    void *x = y->data + i * b.rows * b.columns * lt_dtype_size(dtype);
    lt_matrix_take(&a, i, false, s.part[LU]);
    lt_matrix_take(&b, i, false, x);
    lt_trsm(l, dtype, left, !upper, unit, b.columns, b.rows, s.part[LU], x);
    status = lt_check_interrupt(c->ctx);
  }
  lt_block_release(s.block);
  return status;
}

lt_tensor *lt_solve_triangular(lt_scope *s, lt_tensor *a, lt_tensor *b, bool upper, bool left,
                               bool unit) {
  const lt_op *op = &lt_op_solve_triangular;
  lt_attrs attrs;
  lt_attrs_default(&attrs, op);
  lt_attrs_set_int(&attrs, op, UPPER, upper);
  lt_attrs_set_int(&attrs, op, TRIANGULAR_LEFT, left);
  lt_attrs_set_int(&attrs, op, UNIT, unit);
  return lt_do2(s, op, &attrs, a, b);
}

/* a x = b: dB = A^-T dX, dA = -dB X^T; x a = b: dB = dX A^-T, dA = -X^T dB: of its triangle. */
static void solve_triangular_vjp(lt_vjp *v) {
  lt_scope *s = v->s;
  bool upper = lt_get_int(v->attrs, v->op, UPPER), unit = lt_get_int(v->attrs, v->op, UNIT);
  bool left = lt_get_int(v->attrs, v->op, TRIANGULAR_LEFT);
  lt_tensor *db = lt_solve_triangular(s, lt_transposed(s, v->in[0]), v->dy[0], !upper, left, unit);
  if (v->need[1]) lt_give(v, 1, db);
  if (!v->need[0]) return;
  lt_tensor *xt = lt_transposed(s, v->out[0]);
  lt_tensor *da = left ? lt_product(s, db, xt) : lt_product(s, xt, db);
  lt_give(v, 0, lt_neg(s, lt_triangle(s, da, !upper, upper ? unit : -unit)));
}

const lt_op lt_op_solve_triangular = {
    .name = "solve_triangular",
    .doc =
        "The x of a x = b for triangular matrices a, ... x n x n, and b of n x k; of x a = b, b "
        "of k x n, with left = false. Only the upper or the lower triangle of a is read, without "
        "its diagonal (taken for ones) where unitriangular. Batches broadcast. A zero on the "
        "diagonal gives infinities. By BLAS (trsm).",
    .inputs = {{"a", LT_FLOAT}, {"b", LT_FLOAT}},
    .options = {{"upper", LT_OPTION_BOOL, .required = true},
                {"left", LT_OPTION_BOOL, .value = 1},
                {"unitriangular", LT_OPTION_BOOL}},
    .infer = solve_triangular_infer,
    .forward = solve_triangular_forward,
    .vjp = solve_triangular_vjp,
    .batch = lt_batch_broadcast,
    .saves = LT_IN(0) | LT_OUT(0),
    .sample =
        {"positive(3, 3), normal(3, 2), {upper = true}",
         "positive(2, 3, 3), transposed(3, 2), {upper = false}",
         "uniform(3, 3), normal(2, 2, 3), {upper = false, left = false, unitriangular = true}",
         "positive(2, 2), normal(3, 2), {upper = true, left = false}"},
};

/* ---- det, slogdet -------------------------------------------------------------------------------
 */

/* The sign of the determinant and the absolute values on the diagonal of the factors. */
typedef struct diagonal {
  double sign, product, log, least, most;
} diagonal;

static diagonal read_factors(lt_dtype dtype, int64_t n, const void *lu, const int32_t *pivots) {
  diagonal d = {.sign = 1, .product = 1, .least = INFINITY};
  for (int64_t i = 0; i < n; i++) {
    double u = read_at(dtype, lu, i * (n + 1)), size = fabs(u);
    d.sign *= u > 0 ? 1 : u < 0 ? -1 : u;
    if (pivots[i] != i + 1) d.sign = -d.sign;
    d.product *= size;
    d.log += log(size);
    d.least = size < d.least ? size : d.least;
    d.most = size > d.most ? size : d.most;
  }
  return d;
}

static lt_status det_infer(lt_call *c) {
  LT_TRY(lt_check_matrix(c, 0, true));
  c->result[0] = (lt_spec){(lt_dtype)c->in[0]->dtype, lt_batch_of(&c->in[0]->shape)};
  c->result[1] = c->result[0];
  c->outputs = c->op->results ? c->op->results : 1;
  return LT_OK;
}

static lt_status det_forward(lt_call *c) {
  const lt_lapack *l = NULL;
  lt_scratch s;
  lt_dtype dtype = (lt_dtype)c->in[0]->dtype;
  if (c->out[0]->numel == 0) return LT_OK;
  lt_matrices x = lt_matrices_of(c->in[0], &c->out[0]->shape);
  if (x.rows > 0) LT_TRY(lt_lapack_open(c->ctx, c->op->name, &l));
  LT_TRY(lu_scratch(c, x.rows, 0, &s));
  lt_status status = LT_OK;
  for (int64_t i = 0; i < x.count && status == LT_OK; i++) {
    if (x.rows > 0) {
      lt_matrix_take(&x, i, false, s.part[LU]);
      (void)lt_getrf(l, dtype, x.rows, s.part[LU], s.part[PIVOTS]);
    }
    diagonal d = read_factors(dtype, x.rows, s.part[LU], s.part[PIVOTS]);
    if (c->outputs == 1) {
      lt_tensor_write(c->out[0], i, d.sign * d.product);
    } else {
      lt_tensor_write(c->out[0], i, d.sign == 0 ? 0 : d.sign);
      lt_tensor_write(c->out[1], i, d.log);
    }
    status = lt_check_interrupt(c->ctx);
  }
  lt_block_release(s.block);
  return status;
}

/* One number for each matrix, to be multiplied with matrices. */
static lt_tensor *for_each_matrix(lt_scope *s, lt_tensor *t) {
  return lt_unsqueezed(s, lt_unsqueezed(s, t, -1), -1);
}

static void det_vjp(lt_vjp *v) {
  lt_tensor *cofactors = lt_do1(v->s, &lt_op_cofactor, NULL, v->in[0]);
  lt_give(v, 0, lt_mul(v->s, for_each_matrix(v->s, v->dy[0]), cofactors));
}

const lt_op lt_op_det = {
    .name = "det",
    .doc =
        "Determinant of square matrices, ... x n x n; 1 for n = 0. The gradient is the matrix of "
        "cofactors, also of a singular one. By LAPACK (getrf).",
    .inputs = {{"x", LT_FLOAT}},
    .infer = det_infer,
    .forward = det_forward,
    .vjp = det_vjp,
    .batch = lt_batch_leading,
    .saves = LT_IN(0),
    .sample = {"normal(3, 3)", "transposed(2, 2, 2)", "normal(1, 1)"},
};

/* Of log |det X|: X^-T. The sign does not change. */
static void slogdet_vjp(lt_vjp *v) {
  lt_tensor *inverse = lt_do1(v->s, &lt_op_inv, NULL, v->in[0]);
  lt_give(v, 0, lt_mul(v->s, for_each_matrix(v->s, v->dy[1]), lt_transposed(v->s, inverse)));
}

const lt_op lt_op_slogdet = {
    .name = "slogdet",
    .doc = "Sign and logarithm of the absolute value of the determinant of square matrices, ... x "
           "n x n: sign, logabsdet. Of a singular one 0 and -inf. By LAPACK (getrf).",
    .inputs = {{"x", LT_FLOAT}},
    .infer = det_infer,
    .forward = det_forward,
    .vjp = slogdet_vjp,
    .batch = lt_batch_leading,
    .saves = LT_IN(0),
    .results = 2,
    .sample = {"positive(3):diag_embed() + uniform(3, 3) * 0.25",
               "transposed(2, 2, 2) * 0.25 + positive(2, 2):diag_embed()"},
};

/* ---- cofactor -----------------------------------------------------------------------------------
 */

enum { SINGULAR_VALUES = MORE, LEFT_VECTORS, RIGHT_VECTORS, WORK };

/* det(U) det(V) U C V^T for X = U S V^T, with C the products of all other singular values: right
 * also for singular matrices. What gesdd calls vt holds U by rows, and u holds V by columns. */
static lt_status cofactor_by_svd(lt_call *c, const lt_lapack *l, const lt_matrices *x, int64_t i,
                                 int64_t work, lt_scratch *s, void *y) {
  lt_dtype dtype = (lt_dtype)x->t->dtype;
  int64_t n = x->rows, bytes = n * n * lt_dtype_size(dtype);
  void *u = s->part[RIGHT_VECTORS], *v = s->part[LEFT_VECTORS], *values = s->part[SINGULAR_VALUES];
  lt_matrix_take(x, i, false, y);
  if (!lt_all_finite(dtype, n * n, y) ||
      lt_gesdd(l, dtype, true, n, n, y, values, v, u, s->part[WORK], work, s->part[PIVOTS]) != 0) {
    char which[64];
    return lt_fail(c->ctx, "det: the gradient of %s does not exist or does not converge",
                   lt_matrix_text(i, x->count, which));
  }
  double sign = 1;
  for (int side = 0; side < 2; side++) { /* their determinants are 1 or -1 */
    memcpy(s->part[LU], side ? v : u, (size_t)bytes);
    (void)lt_getrf(l, dtype, n, s->part[LU], s->part[PIVOTS]);
    sign *= read_factors(dtype, n, s->part[LU], s->part[PIVOTS]).sign;
  }
  for (int64_t k = 0; k < n; k++) {
    double others = sign;
    for (int64_t j = 0; j < n; j++) others *= j == k ? 1 : read_at(dtype, values, j);
    for (int64_t j = 0; j < n; j++)
      write_at(dtype, v, k * n + j, others * read_at(dtype, v, k * n + j));
  }
  lt_gemm g = {.m = n,
               .n = n,
               .k = n,
               .a = u,
               .a_row = n,
               .a_col = 1,
               .b = v,
               .b_row = n,
               .b_col = 1,
               .c = y,
               .c_row = n,
               .c_col = 1};
  if (dtype == LT_FLOAT64)
    lt_gemm_f64(&g, c->ctx->simd, 1);
  else
    lt_gemm_f32(&g, c->ctx->simd, 1);
  return LT_OK;
}

/* det(X) X^-T where the factors keep half of the digits. */
static lt_status cofactor_run(lt_call *c, const lt_lapack *l, int64_t work, lt_scratch *s) {
  lt_dtype dtype = (lt_dtype)c->in[0]->dtype;
  lt_shape batch = lt_batch_of(&c->in[0]->shape);
  lt_matrices x = lt_matrices_of(c->in[0], &batch);
  int64_t n = x.rows;
  double enough = sqrt(dtype == LT_FLOAT64 ? DBL_EPSILON : (double)FLT_EPSILON);
  for (int64_t i = 0; i < x.count; i++) {
    void *y = c->out[0]->data + i * n * n * lt_dtype_size(dtype);
    LT_TRY(lt_check_interrupt(c->ctx));
    lt_matrix_take(&x, i, false, s->part[LU]);
    int64_t info = lt_getrf(l, dtype, n, s->part[LU], s->part[PIVOTS]);
    diagonal d = read_factors(dtype, n, s->part[LU], s->part[PIVOTS]);
    if (info > 0 || d.least < enough * d.most) {
      LT_TRY(cofactor_by_svd(c, l, &x, i, work, s, y));
      continue;
    }
    set_identity(dtype, n, y);
    lt_getrs(l, dtype, true, n, n, s->part[LU], s->part[PIVOTS], y);
    for (int64_t k = 0; k < n * n; k++) {
      write_at(dtype, y, k, d.sign * d.product * read_at(dtype, y, k));
    }
  }
  return LT_OK;
}

static lt_status cofactor_forward(lt_call *c) {
  const lt_lapack *l;
  lt_scratch s;
  lt_dtype dtype = (lt_dtype)c->in[0]->dtype;
  int64_t n = c->in[0]->shape.size[c->in[0]->shape.ndim - 1], item = lt_dtype_size(dtype);
  if (c->out[0]->numel == 0) return LT_OK;
  LT_TRY(lt_lapack_open(c->ctx, "det", &l));
  if (n > LT_GESDD_MOST) return too_large(c);
  int64_t work = lt_gesdd_work(l, dtype, true, n, n);
  LT_TRY(lt_scratch_new(c->ctx, "det", 6,
                        (int64_t[]){n * n * item, 8 * n * (int64_t)sizeof(int32_t), n * item,
                                    n * n * item, n * n * item, work * item},
                        &s));
  lt_status status = cofactor_run(c, l, work, &s);
  lt_block_release(s.block);
  return status;
}

/* With W = X^-T: dX = det(X) (<dY, W> W - W dY^T W) */
static void cofactor_vjp(lt_vjp *v) {
  lt_scope *s = v->s;
  lt_tensor *x = v->in[0], *dy = v->dy[0];
  lt_tensor *w = lt_transposed(s, lt_do1(s, &lt_op_inv, NULL, x));
  lt_tensor *inner = lt_sum_over(s, lt_mul(s, dy, w), 2, (int64_t[]){-2, -1}, true);
  lt_tensor *rest = lt_product(s, w, lt_product(s, lt_transposed(s, dy), w));
  lt_tensor *det = for_each_matrix(s, lt_do1(s, &lt_op_det, NULL, x));
  lt_give(v, 0, lt_mul(s, det, lt_sub(s, lt_mul(s, inner, w), rest)));
}

const lt_op lt_op_cofactor = {
    .name = "cofactor",
    .doc = "The cofactors of square matrices, det(X) X^-T; by singular values where X is singular "
           "or nearly so.",
    .inputs = {{"x", LT_FLOAT}},
    .infer = inv_infer,
    .forward = cofactor_forward,
    .vjp = cofactor_vjp,
    .batch = lt_batch_leading,
    .saves = LT_IN(0),
    .internal = true,
};

LT_FAMILY(linalg, &lt_op_inv, &lt_op_solve, &lt_op_solve_columns, &lt_op_solve_triangular,
          &lt_op_det, &lt_op_slogdet, &lt_op_cofactor)
