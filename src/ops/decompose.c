/* Factors of matrices by LAPACK: Cholesky, QR, eigenvalues of symmetric matrices, singular values,
 * and what follows from these. Gradients are the textbook formulas, written with ops that have
 * gradients themselves. Where a formula divides by the difference of two equal eigenvalues (or
 * singular values), the gradient does not exist, and that quotient is taken for 0. */
#include "core/context.h"
#include "kernels/copy.h"
#include "kernels/gemm.h"
#include "kernels/lapack.h"
#include "ops/family.h"
#include "ops/linalg.h"
#include "ops/reduction.h"
#include "tape/vmap.h"

#include <float.h>
#include <string.h>

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

static lt_status check_size(lt_call *c, int64_t n, int64_t most) {
  if (n <= most) return LT_OK;
  return lt_fail(c->ctx, "%s: the matrix is too large for LAPACK", c->op->name);
}

static lt_status failed(lt_call *c, const char *why, int64_t i, int64_t count) {
  char which[64];
  return lt_fail(c->ctx, "%s: %s %s", c->op->name, lt_matrix_text(i, count, which), why);
}

static const char NOT_FINITE[] = "holds NaN or infinity";
static const char NO_CONVERGENCE[] = "has singular or eigenvalues that do not converge";

/* Elements of a matrix of the output's type, by place. */
static char *matrix_of(lt_tensor *y, int64_t i, int64_t elements) {
  return y->data + i * elements * lt_dtype_size((lt_dtype)y->dtype);
}

/* (a + a^T) / 2, in place, exact where a is symmetric. */
#define SYMMETRISE(NAME, T)                                                                        \
  static void NAME(int64_t n, T *a) {                                                              \
    for (int64_t i = 0; i < n; i++) {                                                              \
      for (int64_t j = 0; j < i; j++) {                                                            \
        a[i * n + j] = a[j * n + i] = a[i * n + j] / 2 + a[j * n + i] / 2;                         \
      }                                                                                            \
    }                                                                                              \
  }
SYMMETRISE(symmetrise_f32, float)
SYMMETRISE(symmetrise_f64, double)

static void symmetrise(lt_dtype dtype, int64_t n, void *a) {
  if (dtype == LT_FLOAT64)
    symmetrise_f64(n, a);
  else
    symmetrise_f32(n, a);
}

static lt_tensor *symmetric_part(lt_scope *s, lt_tensor *a) {
  return lt_scale(s, lt_add(s, a, lt_transposed(s, a)), 0.5);
}

/* ---- cholesky ----------------------------------------------------------------------------------
 */

enum { CHOLESKY_UPPER };

static lt_status square_infer(lt_call *c) {
  LT_TRY(lt_check_matrix(c, 0, true));
  return lt_infer_same(c);
}

/* Clears the triangle, by rows, that is not a factor. */
static void clear_rest(lt_dtype dtype, int64_t n, bool upper, char *a) {
  int64_t item = lt_dtype_size(dtype);
  for (int64_t i = 0; i < n; i++) {
    memset(a + (i * n + (upper ? 0 : i + 1)) * item, 0, (size_t)((upper ? i : n - 1 - i) * item));
  }
}

static lt_status cholesky_forward(lt_call *c) {
  const lt_lapack *l;
  lt_tensor *y = c->out[0];
  lt_dtype dtype = (lt_dtype)y->dtype;
  bool upper = lt_get_int(c->attrs, c->op, CHOLESKY_UPPER);
  if (y->numel == 0) return LT_OK;
  lt_shape batch = lt_batch_of(&y->shape);
  lt_matrices x = lt_matrices_of(c->in[0], &batch);
  int64_t n = x.rows;
  LT_TRY(check_size(c, n, LT_LAPACK_MOST));
  LT_TRY(lt_lapack_open(c->ctx, "cholesky", &l));
  for (int64_t i = 0; i < x.count; i++) {
    char *a = matrix_of(y, i, n * n), which[64];
    LT_TRY(lt_check_interrupt(c->ctx));
    lt_matrix_take(&x, i, false, a);
    symmetrise(dtype, n, a);
    int64_t info = lt_potrf(l, dtype, !upper, n, a); /* seen by columns */
    if (info > 0) {
      return lt_fail(c->ctx,
                     "cholesky: %s is not positive definite (its leading minor of order "
                     "%lld is not)",
                     lt_matrix_text(i, x.count, which), (long long)info);
    }
    clear_rest(dtype, n, upper, a);
  }
  return LT_OK;
}

/* Murray (2016), symmetrised: with P = half of L^T dL's lower triangle, mirrored: L^-T P L^-1 */
static void cholesky_vjp(lt_vjp *v) {
  lt_scope *s = v->s;
  bool upper = lt_get_int(v->attrs, v->op, CHOLESKY_UPPER);
  lt_tensor *l = upper ? lt_transposed(s, v->out[0]) : v->out[0];
  lt_tensor *lt = upper ? v->out[0] : lt_transposed(s, l);
  lt_tensor *dl = upper ? lt_transposed(s, v->dy[0]) : v->dy[0];
  lt_tensor *p = lt_scale(s, lt_mirrored(s, lt_product(s, lt, dl)), 0.5);
  p = lt_solve_triangular(s, lt, p, true, true, false);
  lt_give(v, 0, lt_solve_triangular(s, l, p, false, false, false));
}

const lt_op lt_op_cholesky = {
    .name = "cholesky",
    .doc =
        "The lower triangular L of A = L L^T for symmetric positive definite matrices, ... x n x "
        "n; with upper, U = L^T. Of another matrix the symmetric part (A + A^T) / 2 is taken, "
        "and so is the gradient symmetric. An error where it is not positive definite. By LAPACK "
        "(potrf); gradient: Murray 2016.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {{"upper", LT_OPTION_BOOL}},
    .infer = square_infer,
    .forward = cholesky_forward,
    .vjp = cholesky_vjp,
    .batch = lt_batch_leading,
    .saves = LT_OUT(0),
    .sample = {"positive(3):diag_embed() + uniform(3, 3) * 0.25",
               "positive(2, 2):diag_embed() + transposed(2, 2, 2) * 0.125, {upper = true}"},
};

/* ---- qr
 * ------------------------------------------------------------------------------------------ */

enum { QR_MODE };
enum { REDUCED, COMPLETE, R_ONLY };
enum { QR_A, QR_TAU, QR_WORK };

static lt_status qr_infer(lt_call *c) {
  LT_TRY(lt_check_matrix(c, 0, false));
  lt_dtype dtype = (lt_dtype)c->in[0]->dtype;
  int64_t mode = lt_get_int(c->attrs, c->op, QR_MODE);
  lt_shape q = c->in[0]->shape, r = q;
  int64_t m = q.size[q.ndim - 2], n = q.size[q.ndim - 1], k = mode == COMPLETE ? m : smaller(m, n);
  q.size[q.ndim - 1] = k;
  r.size[r.ndim - 2] = k;
  c->outputs = 2;
  c->result[0] = (lt_spec){dtype, mode == R_ONLY ? lt_shape_make(1, (int64_t[]){0}) : q};
  c->result[1] = (lt_spec){dtype, r};
  return LT_OK;
}

/* The complete q of a matrix without columns, or without rows, is the identity. */
static void set_identities(lt_tensor *q, int64_t m, int64_t count) {
  memset(q->data, 0, (size_t)(q->numel * lt_dtype_size((lt_dtype)q->dtype)));
  for (int64_t i = 0; i < count; i++) {
    for (int64_t k = 0; k < m; k++) lt_tensor_write(q, i * m * m + k * (m + 1), 1);
  }
}

static lt_status qr_run(lt_call *c, const lt_lapack *l, const lt_matrices *x, int64_t work,
                        lt_scratch *s) {
  lt_tensor *q = c->out[0], *r = c->out[1];
  lt_dtype dtype = (lt_dtype)r->dtype;
  int64_t m = x->rows, n = x->columns, k = r->shape.size[r->shape.ndim - 2];
  int64_t item = lt_dtype_size(dtype);
  lt_shape top = lt_shape_make(2, (int64_t[]){k, n});
  for (int64_t i = 0; i < x->count; i++) {
    LT_TRY(lt_check_interrupt(c->ctx));
    lt_matrix_take(x, i, true, s->part[QR_A]);
    lt_geqrf(l, dtype, m, n, s->part[QR_A], s->part[QR_TAU], s->part[QR_WORK], work);
    char *y = matrix_of(r, i, k * n);
    lt_copy(&top, dtype, y, (int64_t[]){n, 1}, dtype, s->part[QR_A], (int64_t[]){1, m});
    for (int64_t row = 1; row < k; row++) {
      memset(y + row * n * item, 0, (size_t)(smaller(row, n) * item));
    }
    if (q->shape.ndim == 1) continue;
    lt_orgqr(l, dtype, m, k, smaller(m, n), s->part[QR_A], s->part[QR_TAU], s->part[QR_WORK], work);
    lt_matrix_put(q, i, s->part[QR_A]);
  }
  return LT_OK;
}

static lt_status qr_forward(lt_call *c) {
  const lt_lapack *l;
  lt_scratch s;
  lt_tensor *q = c->out[0], *r = c->out[1];
  lt_dtype dtype = (lt_dtype)r->dtype;
  lt_shape batch = lt_batch_of(&r->shape);
  lt_matrices x = lt_matrices_of(c->in[0], &batch);
  int64_t m = x.rows, n = x.columns, k = r->shape.size[r->shape.ndim - 2];
  if (c->in[0]->numel == 0) {
    if (q->numel > 0) set_identities(q, m, x.count);
    return LT_OK;
  }
  LT_TRY(check_size(c, m, LT_LAPACK_MOST));
  LT_TRY(check_size(c, n, LT_LAPACK_MOST));
  LT_TRY(lt_lapack_open(c->ctx, "qr", &l));
  int64_t work = lt_qr_work(l, dtype, m, n, k), item = lt_dtype_size(dtype);
  LT_TRY(lt_scratch_new(c->ctx, "qr", 3,
                        (int64_t[]){m * (n > k ? n : k) * item, smaller(m, n) * item, work * item},
                        &s));
  lt_status status = qr_run(c, l, &x, work, &s);
  lt_block_release(s.block);
  return status;
}

/* For X of m x n with m >= n, as in Walter & Lehmann (2010): (dQ + Q S) R^-T, where S mirrors the
 * upper triangle of dR R^T - Q^T dQ. */
static lt_tensor *qr_rule(lt_scope *s, lt_tensor *q, lt_tensor *r, lt_tensor *dq, lt_tensor *dr) {
  lt_tensor *rt = lt_transposed(s, r);
  lt_tensor *sum = lt_sub(s, lt_product(s, dr, rt), lt_product(s, lt_transposed(s, q), dq));
  lt_tensor *mirrored = lt_mirrored(s, lt_transposed(s, sum));
  return lt_solve_triangular(s, rt, lt_add(s, dq, lt_product(s, q, mirrored)), false, false, false);
}

/* A wide X = [A B] has Q from A alone, and R = [R1 Q^T B]. */
static void qr_vjp(lt_vjp *v) {
  lt_scope *s = v->s;
  lt_tensor *q = v->out[0], *r = v->out[1], *dq = v->dy[0], *dr = v->dy[1];
  const lt_shape x = lt_input_spec(v, 0).shape;
  int64_t mode = lt_get_int(v->attrs, v->op, QR_MODE);
  int64_t m = x.size[x.ndim - 2], n = x.size[x.ndim - 1];
  if (mode == R_ONLY || (mode == COMPLETE && m > n)) {
    s->status = lt_fail(v->ctx, "qr: mode '%s' has no gradient%s; mode 'reduced' has",
                        mode == R_ONLY ? "r" : "complete", mode == R_ONLY ? "" : " for m > n");
    return;
  }
  if (m >= n) {
    lt_give(v, 0, qr_rule(s, q, r, dq, dr));
    return;
  }
  lt_tensor *rest = lt_part(s, r, -1, m, n - m), *drest = lt_part(s, dr, -1, m, n - m);
  dq = lt_add(s, dq, lt_product(s, lt_product(s, q, rest), lt_transposed(s, drest)));
  lt_tensor *da = qr_rule(s, q, lt_part(s, r, -1, 0, m), dq, lt_part(s, dr, -1, 0, m));
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_cat);
  lt_attrs_set_int(&attrs, &lt_op_cat, 0, -1);
  lt_give(v, 0, lt_do2(s, &lt_op_cat, &attrs, da, lt_product(s, q, drest)));
}

/* The empty Q of mode 'r' has no batch. */
static void qr_batch(lt_batch *b) {
  if (lt_get_int(b->attrs, b->op, QR_MODE) == R_ONLY)
    lt_batch_each(b);
  else
    lt_batch_leading(b);
}

const lt_op lt_op_qr = {
    .name = "qr",
    .doc =
        "X = Q R for matrices of ... x m x n: Q with orthonormal columns and an upper triangular "
        "R, of m x k and k x n with k = min(m, n); k = m in mode 'complete'; in mode 'r' Q is "
        "empty. Signs as LAPACK has them (geqrf, orgqr): R's diagonal may be negative. Gradient: "
        "Walter & Lehmann 2010, where the first min(m, n) columns are independent; modes 'r', and "
        "'complete' for m > n, have none.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {{"mode", LT_OPTION_CHOICE, .choices = "reduced complete r"}},
    .infer = qr_infer,
    .forward = qr_forward,
    .vjp = qr_vjp,
    .batch = qr_batch,
    .saves = LT_OUT(0) | LT_OUT(1),
    .results = 2,
    .sample = {"normal(4, 3)", "normal(2, 2, 3)", "transposed(3, 3), {mode = 'complete'}"},
};

/* ---- eigh, eigvalsh
 * -------------------------------------------------------------------------------- */

enum { EIGH_A, EIGH_INTEGERS, EIGH_WORK };

static lt_status eigh_infer(lt_call *c) {
  LT_TRY(lt_check_matrix(c, 0, true));
  lt_dtype dtype = (lt_dtype)c->in[0]->dtype;
  const lt_shape *x = &c->in[0]->shape;
  c->outputs = 2;
  c->result[0] = (lt_spec){dtype, lt_shape_make(x->ndim - 1, x->size)};
  c->result[1] = (lt_spec){dtype, *x};
  return LT_OK;
}

static lt_status eigh_run(lt_call *c, const lt_lapack *l, const lt_matrices *x, int64_t work,
                          lt_scratch *s) {
  lt_tensor *w = c->out[0], *v = c->out[1];
  lt_dtype dtype = (lt_dtype)v->dtype;
  int64_t n = x->rows;
  for (int64_t i = 0; i < x->count; i++) {
    LT_TRY(lt_check_interrupt(c->ctx));
    lt_matrix_take(x, i, false, s->part[EIGH_A]);
    if (!lt_all_finite(dtype, n * n, s->part[EIGH_A])) return failed(c, NOT_FINITE, i, x->count);
    symmetrise(dtype, n, s->part[EIGH_A]);
    if (lt_syevd(l, dtype, n, s->part[EIGH_A], matrix_of(w, i, n), s->part[EIGH_WORK], work,
                 s->part[EIGH_INTEGERS]) != 0) {
      return failed(c, NO_CONVERGENCE, i, x->count);
    }
    lt_matrix_put(v, i, s->part[EIGH_A]);
  }
  return LT_OK;
}

static lt_status eigh_forward(lt_call *c) {
  const lt_lapack *l;
  lt_scratch s;
  lt_dtype dtype = (lt_dtype)c->in[0]->dtype;
  if (c->out[1]->numel == 0) return LT_OK;
  lt_shape batch = lt_batch_of(&c->in[0]->shape);
  lt_matrices x = lt_matrices_of(c->in[0], &batch);
  int64_t n = x.rows, item = lt_dtype_size(dtype);
  LT_TRY(check_size(c, n, LT_SYEVD_MOST));
  LT_TRY(lt_lapack_open(c->ctx, "eigh", &l));
  int64_t work = lt_syevd_work(l, dtype, n);
  LT_TRY(lt_scratch_new(
      c->ctx, "eigh", 3,
      (int64_t[]){n * n * item, (3 + 5 * n) * (int64_t)sizeof(int32_t), work * item}, &s));
  lt_status status = eigh_run(c, l, &x, work, &s);
  lt_block_release(s.block);
  return status;
}

/* m[i][j] / (d[j] - d[i]) */
static lt_tensor *over_differences(lt_scope *s, lt_tensor *m, lt_tensor *d) {
  return lt_div_or_zero(s, m, lt_sub(s, lt_unsqueezed(s, d, -2), lt_unsqueezed(s, d, -1)));
}

/* V (diag(dw) + V^T dV / (w[j] - w[i])) V^T, symmetrised as the matrix itself was. */
static void eigh_vjp(lt_vjp *v) {
  lt_scope *s = v->s;
  lt_tensor *vt = lt_transposed(s, v->out[1]);
  lt_tensor *inner = over_differences(s, lt_product(s, vt, v->dy[1]), v->out[0]);
  inner = lt_add(s, inner, lt_diagonal_matrix(s, v->dy[0]));
  lt_give(v, 0, symmetric_part(s, lt_product(s, v->out[1], lt_product(s, inner, vt))));
}

const lt_op lt_op_eigh = {
    .name = "eigh",
    .doc =
        "Eigenvalues w, rising, and orthonormal eigenvectors, the columns of V, of symmetric "
        "matrices: X = V diag(w) V^T, ... x n x n; w is ... x n. Of another matrix the symmetric "
        "part (X + X^T) / 2 is taken. The gradient of V exists where the eigenvalues differ. By "
        "LAPACK (syevd); signs as it has them.",
    .inputs = {{"x", LT_FLOAT}},
    .infer = eigh_infer,
    .forward = eigh_forward,
    .vjp = eigh_vjp,
    .batch = lt_batch_leading,
    .saves = LT_OUT(0) | LT_OUT(1),
    .results = 2,
    .sample = {"normal(3, 3)", "transposed(2, 2, 2)"},
};

static void eigvalsh_compose(lt_call *c, lt_scope *s) {
  c->out[0] = lt_do1(s, &lt_op_eigh, NULL, c->in[0]);
}

static lt_status eigvalsh_check(lt_call *c) { return lt_check_matrix(c, 0, true); }

const lt_op lt_op_eigvalsh = {
    .name = "eigvalsh",
    .doc = "Eigenvalues, rising, of symmetric matrices, ... x n x n: the first result of eigh.",
    .inputs = {{"x", LT_FLOAT}},
    .infer = eigvalsh_check,
    .compose = eigvalsh_compose,
    .sample = {"normal(3, 3)", "transposed(2, 2, 2)"},
};

/* ---- svd, svdvals
 * ----------------------------------------------------------------------------------- */

enum { FULL_MATRICES };
enum { SVD_A, SVD_INTEGERS, SVD_WORK, SVD_U, SVD_VT, SVD_VALUES };

static lt_status svd_infer(lt_call *c) {
  LT_TRY(lt_check_matrix(c, 0, false));
  lt_dtype dtype = (lt_dtype)c->in[0]->dtype;
  lt_shape u = c->in[0]->shape, vh = u, values = lt_shape_make(u.ndim - 1, u.size);
  int64_t m = u.size[u.ndim - 2], n = u.size[u.ndim - 1], k = smaller(m, n);
  bool full = lt_get_int(c->attrs, c->op, FULL_MATRICES);
  u.size[u.ndim - 1] = full ? m : k;
  vh.size[vh.ndim - 2] = full ? n : k;
  values.size[values.ndim - 1] = k;
  c->outputs = 3;
  c->result[0] = (lt_spec){dtype, u};
  c->result[1] = (lt_spec){dtype, values};
  c->result[2] = (lt_spec){dtype, vh};
  return LT_OK;
}

/* Room for one matrix's decomposition; u and vt are left out where they go to the results. */
static lt_status svd_scratch(lt_call *c, const lt_lapack *l, const lt_matrices *x, bool full,
                             bool vectors, int64_t *work, lt_scratch *s) {
  lt_dtype dtype = (lt_dtype)x->t->dtype;
  int64_t m = x->rows, n = x->columns, k = smaller(m, n), item = lt_dtype_size(dtype);
  *work = lt_gesdd_work(l, dtype, full, n, m);
  return lt_scratch_new(c->ctx, c->op->name, vectors ? 6 : 3,
                        (int64_t[]){m * n * item, 8 * k * (int64_t)sizeof(int32_t), *work * item,
                                    n * k * item, k * m * item, k * item},
                        s);
}

/* Our rows are Fortran's columns: it decomposes X^T = V S U^T, so its u is Vh by rows and its vt is
 * U by rows. */
static lt_status svd_one(lt_call *c, const lt_lapack *l, const lt_matrices *x, int64_t i, bool full,
                         int64_t work, const lt_scratch *s, void *u, void *values, void *vh) {
  lt_dtype dtype = (lt_dtype)x->t->dtype;
  LT_TRY(lt_check_interrupt(c->ctx));
  lt_matrix_take(x, i, false, s->part[SVD_A]);
  if (!lt_all_finite(dtype, x->rows * x->columns, s->part[SVD_A])) {
    return failed(c, NOT_FINITE, i, x->count);
  }
  if (lt_gesdd(l, dtype, full, x->columns, x->rows, s->part[SVD_A], values, vh, u,
               s->part[SVD_WORK], work, s->part[SVD_INTEGERS]) != 0) {
    return failed(c, NO_CONVERGENCE, i, x->count);
  }
  return LT_OK;
}

static lt_status check_svd(lt_call *c, const lt_matrices *x) {
  LT_TRY(check_size(c, x->rows, LT_LAPACK_MOST));
  LT_TRY(check_size(c, x->columns, LT_LAPACK_MOST));
  return check_size(c, smaller(x->rows, x->columns), LT_GESDD_MOST);
}

static lt_status svd_forward(lt_call *c) {
  const lt_lapack *l;
  lt_scratch s;
  lt_tensor *u = c->out[0], *values = c->out[1], *vh = c->out[2];
  bool full = lt_get_int(c->attrs, c->op, FULL_MATRICES);
  lt_shape batch = lt_batch_of(&c->in[0]->shape);
  lt_matrices x = lt_matrices_of(c->in[0], &batch);
  int64_t m = x.rows, n = x.columns, k = smaller(m, n), ku = full ? m : k, kv = full ? n : k, work;
  if (c->in[0]->numel == 0) {
    if (u->numel > 0) set_identities(u, m, x.count);
    if (vh->numel > 0) set_identities(vh, n, x.count);
    return LT_OK;
  }
  LT_TRY(check_svd(c, &x));
  LT_TRY(lt_lapack_open(c->ctx, "svd", &l));
  LT_TRY(svd_scratch(c, l, &x, full, false, &work, &s));
  lt_status status = LT_OK;
  for (int64_t i = 0; i < x.count && status == LT_OK; i++) {
    status = svd_one(c, l, &x, i, full, work, &s, matrix_of(u, i, m * ku), matrix_of(values, i, k),
                     matrix_of(vh, i, kv * n));
  }
  lt_block_release(s.block);
  return status;
}

/* a - a^T */
static lt_tensor *skew(lt_scope *s, lt_tensor *a) { return lt_sub(s, a, lt_transposed(s, a)); }

/* U (E_U S + S E_V + diag(dS)) Vh, with E_U = skew(U^T dU) / (s[j]^2 - s[i]^2) and E_V the same of
 * V; and, where U or V is not square, what dU and dV have outside the space that they span. */
static void svd_vjp(lt_vjp *v) {
  lt_scope *s = v->s;
  lt_tensor *u = v->out[0], *values = v->out[1], *vh = v->out[2];
  lt_tensor *du = v->dy[0], *dvh = v->dy[2];
  const lt_shape x = lt_input_spec(v, 0).shape;
  int64_t m = x.size[x.ndim - 2], n = x.size[x.ndim - 1];
  if (m != n && lt_get_int(v->attrs, v->op, FULL_MATRICES)) {
    s->status = lt_fail(v->ctx, "svd: full_matrices = true has no gradient unless m = n");
    return;
  }
  lt_tensor *row = lt_unsqueezed(s, values, -2), *column = lt_unsqueezed(s, values, -1);
  lt_tensor *squares = lt_mul(s, lt_sub(s, row, column), lt_add(s, row, column));
  lt_tensor *utdu = lt_product(s, lt_transposed(s, u), du);
  lt_tensor *dvhv = lt_product(s, dvh, lt_transposed(s, vh));
  lt_tensor *eu = lt_div_or_zero(s, skew(s, utdu), squares);
  lt_tensor *ev = lt_div_or_zero(s, skew(s, lt_transposed(s, dvhv)), squares);
  lt_tensor *inner = lt_add(s, lt_mul(s, eu, row), lt_mul(s, column, ev));
  inner = lt_add(s, inner, lt_diagonal_matrix(s, v->dy[1]));
  lt_tensor *dx = lt_product(s, u, lt_product(s, inner, vh));
  if (m > n) {
    lt_tensor *outside = lt_sub(s, du, lt_product(s, u, utdu));
    dx = lt_add(s, dx, lt_product(s, lt_div_or_zero(s, outside, row), vh));
  }
  if (n > m) {
    lt_tensor *outside = lt_sub(s, dvh, lt_product(s, dvhv, vh));
    dx = lt_add(s, dx, lt_product(s, u, lt_div_or_zero(s, outside, column)));
  }
  lt_give(v, 0, dx);
}

const lt_op lt_op_svd = {
    .name = "svd",
    .doc =
        "X = U diag(S) Vh for matrices of ... x m x n: singular values S, falling, ... x k with k "
        "= min(m, n), and orthonormal U, m x k, and Vh, k x n: U, S, Vh. With full_matrices U is "
        "m x m and Vh n x n, and there is no gradient unless m = n. The gradient of U and Vh "
        "exists where the singular values differ and are not 0. By LAPACK (gesdd); signs as it "
        "has them.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {{"full_matrices", LT_OPTION_BOOL}},
    .infer = svd_infer,
    .forward = svd_forward,
    .vjp = svd_vjp,
    .batch = lt_batch_leading,
    .saves = LT_OUT(0) | LT_OUT(1) | LT_OUT(2),
    .results = 3,
    .sample = {"normal(3, 3)", "normal(4, 2)", "transposed(2, 2, 3)"},
};

static lt_status svdvals_check(lt_call *c) { return lt_check_matrix(c, 0, false); }

static void svdvals_compose(lt_call *c, lt_scope *s) {
  lt_tensor *out[LT_MAX_OUTPUTS];
  lt_do_all(s, &lt_op_svd, NULL, 1, c->in, out);
  c->out[0] = out[1];
}

const lt_op lt_op_svdvals = {
    .name = "svdvals",
    .doc = "Singular values, falling, of matrices, ... x m x n: the second result of svd.",
    .inputs = {{"x", LT_FLOAT}},
    .infer = svdvals_check,
    .compose = svdvals_compose,
    .sample = {"normal(3, 3)", "normal(2, 4, 2)"},
};

/* ---- pinv, lstsq
 * -------------------------------------------------------------------------------------- */

enum { RTOL };

static lt_status pinv_infer(lt_call *c) {
  LT_TRY(lt_check_matrix(c, 0, false));
  lt_shape y = c->in[0]->shape;
  y.size[y.ndim - 2] = c->in[0]->shape.size[y.ndim - 1];
  y.size[y.ndim - 1] = c->in[0]->shape.size[y.ndim - 2];
  c->result[0] = (lt_spec){(lt_dtype)c->in[0]->dtype, y};
  return LT_OK;
}

/* V diag(1 / s) U^T, without the values that count for 0. */
#define INVERT(NAME, T, GEMM)                                                                      \
  static void NAME(lt_simd simd, int64_t m, int64_t n, double rtol, const T *u, const T *s, T *vh, \
                   T *y) {                                                                         \
    int64_t k = smaller(m, n);                                                                     \
    for (int64_t i = 0; i < k; i++) {                                                              \
      T scale = (double)s[i] > rtol * (double)s[0] ? 1 / s[i] : 0;                                 \
      for (int64_t j = 0; j < n; j++) vh[i * n + j] *= scale;                                      \
    }                                                                                              \
    lt_gemm g = {.m = n,                                                                           \
                 .n = m,                                                                           \
                 .k = k,                                                                           \
                 .a = vh,                                                                          \
                 .a_row = 1,                                                                       \
                 .a_col = n,                                                                       \
                 .b = u,                                                                           \
                 .b_row = 1,                                                                       \
                 .b_col = k,                                                                       \
                 .c = y,                                                                           \
                 .c_row = m,                                                                       \
                 .c_col = 1};                                                                      \
    GEMM(&g, simd, 1);                                                                             \
  }
INVERT(invert_f32, float, lt_gemm_f32)
INVERT(invert_f64, double, lt_gemm_f64)

static lt_status pinv_run(lt_call *c, const lt_lapack *l, const lt_matrices *x, int64_t work,
                          lt_scratch *s) {
  lt_dtype dtype = (lt_dtype)c->out[0]->dtype;
  int64_t m = x->rows, n = x->columns;
  void *u = s->part[SVD_VT], *vh = s->part[SVD_U], *values = s->part[SVD_VALUES];
  double rtol =
      lt_given(c->attrs, RTOL)
          ? lt_get_number(c->attrs, c->op, RTOL)
          : (double)(m > n ? m : n) * (dtype == LT_FLOAT64 ? DBL_EPSILON : (double)FLT_EPSILON);
  for (int64_t i = 0; i < x->count; i++) {
    void *y = matrix_of(c->out[0], i, m * n);
    LT_TRY(svd_one(c, l, x, i, false, work, s, u, values, vh));
    if (dtype == LT_FLOAT64)
      invert_f64(c->ctx->simd, m, n, rtol, u, values, vh, y);
    else
      invert_f32(c->ctx->simd, m, n, rtol, u, values, vh, y);
  }
  return LT_OK;
}

static lt_status pinv_forward(lt_call *c) {
  const lt_lapack *l;
  lt_scratch s;
  int64_t work;
  if (c->out[0]->numel == 0) return LT_OK;
  lt_shape batch = lt_batch_of(&c->in[0]->shape);
  lt_matrices x = lt_matrices_of(c->in[0], &batch);
  LT_TRY(check_svd(c, &x));
  LT_TRY(lt_lapack_open(c->ctx, "pinv", &l));
  LT_TRY(svd_scratch(c, l, &x, false, true, &work, &s));
  lt_status status = pinv_run(c, l, &x, work, &s);
  lt_block_release(s.block);
  return status;
}

/* Golub & Pereyra (1973): with G = dP^T,
 * -P^T dP P^T + (G - X P G) P P^T + P^T P (G - G P X) */
static void pinv_vjp(lt_vjp *v) {
  lt_scope *s = v->s;
  lt_tensor *x = v->in[0], *p = v->out[0], *pt = lt_transposed(s, p),
            *g = lt_transposed(s, v->dy[0]);
  lt_tensor *own = lt_product(s, pt, lt_product(s, v->dy[0], pt));
  lt_tensor *rows = lt_sub(s, g, lt_product(s, x, lt_product(s, p, g)));
  lt_tensor *columns = lt_sub(s, g, lt_product(s, lt_product(s, g, p), x));
  lt_tensor *rest = lt_add(s, lt_product(s, lt_product(s, rows, p), pt),
                           lt_product(s, pt, lt_product(s, p, columns)));
  lt_give(v, 0, lt_sub(s, rest, own));
}

const lt_op lt_op_pinv = {
    .name = "pinv",
    .doc =
        "The pseudoinverse of Moore and Penrose of matrices, ... x m x n gives ... x n x m. "
        "Singular values of at most rtol times the largest count for 0; by default rtol is "
        "max(m, n) times the type's epsilon. Gradient: Golub & Pereyra 1973, where the rank stays "
        "the same. By LAPACK (gesdd).",
    .inputs = {{"x", LT_FLOAT}},
    .options = {{"rtol", LT_OPTION_NUMBER}},
    .infer = pinv_infer,
    .forward = pinv_forward,
    .vjp = pinv_vjp,
    .batch = lt_batch_leading,
    .saves = LT_IN(0) | LT_OUT(0),
    .sample = {"normal(3, 2)", "transposed(2, 2, 3)", "positive(2):diag_embed(), {rtol = 0.001}"},
};

static lt_status lstsq_check(lt_call *c) {
  const lt_shape *a = &c->in[0]->shape, *b = &c->in[1]->shape;
  char ta[LT_SHAPE_TEXT], tb[LT_SHAPE_TEXT];
  LT_TRY(lt_check_same_dtype(c));
  LT_TRY(lt_check_matrix(c, 0, false));
  if (b->ndim == 0 || b->size[b->ndim - (b->ndim > 1 ? 2 : 1)] != a->size[a->ndim - 2]) {
    return lt_fail(c->ctx, "lstsq: b has another number of rows than a (a %s, b %s)",
                   lt_shape_text(a, ta), lt_shape_text(b, tb));
  }
  lt_shape batch = lt_batch_of(a), other = lt_shape_make(b->ndim > 2 ? b->ndim - 2 : 0, b->size);
  if (lt_shape_broadcast(&batch, &other)) return LT_OK;
  return lt_fail(c->ctx, "lstsq: batch sizes do not broadcast (a %s, b %s)", lt_shape_text(a, ta),
                 lt_shape_text(b, tb));
}

static void lstsq_compose(lt_call *c, lt_scope *s) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_pinv);
  if (lt_given(c->attrs, RTOL)) {
    lt_attrs_set_number(&attrs, &lt_op_pinv, RTOL, lt_get_number(c->attrs, c->op, RTOL));
  }
  c->out[0] = lt_product(s, lt_do1(s, &lt_op_pinv, &attrs, c->in[0]), c->in[1]);
}

const lt_op lt_op_lstsq = {
    .name = "lstsq",
    .doc = "Least squares: the x of smallest |a x - b|, and among those of smallest |x|, for a of "
           "... x m x n and b of m x k or m; batches broadcast. It is pinv(a, {rtol = rtol}) b.",
    .inputs = {{"a", LT_FLOAT}, {"b", LT_FLOAT}},
    .options = {{"rtol", LT_OPTION_NUMBER}},
    .infer = lstsq_check,
    .compose = lstsq_compose,
    .sample = {"normal(4, 2), normal(4)", "normal(2, 2, 3), transposed(2, 2), {rtol = 1e-10}"},
};

LT_FAMILY(decompose, &lt_op_cholesky, &lt_op_qr, &lt_op_eigh, &lt_op_eigvalsh, &lt_op_svd,
          &lt_op_svdvals, &lt_op_pinv, &lt_op_lstsq)
