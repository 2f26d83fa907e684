/* LAPACK, opened when it is first needed: it is neither linked nor loaded at the start. Matrices
 * are stored by columns here, as Fortran has them, without gaps; what is stored by rows is the
 * transposed matrix. Callers check sizes and values: no routine may meet an argument that it
 * complains about, since that stops the process. */
#ifndef LT_KERNELS_LAPACK_H
#define LT_KERNELS_LAPACK_H

#include "core/dtype.h"
#include "core/status.h"
#include <stdint.h>

/* The library's routines; hangs on the context, from the first use on. */
typedef struct lt_lapack lt_lapack;

/* Opens the library: LUATAPE_LAPACK's if that is set, else the system's. `op` begins the message
 * when there is none. */
lt_status lt_lapack_open(lt_context *ctx, const char *op, const lt_lapack **lapack);

/* Rows or columns that LAPACK can count; and those, the fewer of a matrix's, for which it can still
 * count the work space of eigenvalues and singular values. */
#define LT_LAPACK_MOST ((int64_t)INT32_MAX)
#define LT_SYEVD_MOST ((int64_t)30000)
#define LT_GESDD_MOST ((int64_t)20000)

/* The routines return LAPACK's info: 0 for success, a positive number when the matrix has not what
 * it takes. `type` is float32 or float64; work has lt_..._work() elements. */

/* The Cholesky factor over one triangle of a; info: the order of the minor that is not positive. */
int64_t lt_potrf(const lt_lapack *l, lt_dtype type, bool upper, int64_t n, void *a);

/* a = P L U, over a; pivots count rows from 1. info: the first zero on U's diagonal, from 1. */
int64_t lt_getrf(const lt_lapack *l, lt_dtype type, int64_t n, void *a, int32_t *pivots);

/* a x = b, or a^T x = b, from getrf's factors; x over b, n x columns. */
void lt_getrs(const lt_lapack *l, lt_dtype type, bool transposed, int64_t n, int64_t columns,
              const void *lu, const int32_t *pivots, void *b);

/* a x = b, or x a = b where `right`, for a triangular a; x over b, which is m x n. A zero on the
 * diagonal gives infinities. */
void lt_trsm(const lt_lapack *l, lt_dtype type, bool right, bool upper, bool unit, int64_t m,
             int64_t n, const void *a, void *b);

/* Householder's q r = a (m x n): r in the upper triangle of a; then q's first k columns, from the
 * min(m, n) reflections, over an m x k matrix. */
void lt_geqrf(const lt_lapack *l, lt_dtype type, int64_t m, int64_t n, void *a, void *tau,
              void *work, int64_t size);
void lt_orgqr(const lt_lapack *l, lt_dtype type, int64_t m, int64_t k, int64_t reflections, void *q,
              const void *tau, void *work, int64_t size);
int64_t lt_qr_work(const lt_lapack *l, lt_dtype type, int64_t m, int64_t n, int64_t k);

/* Eigenvalues of a symmetric a, rising, and the eigenvectors as columns over a; only a's upper
 * triangle is read. integers: 3 + 5 n of them. */
int64_t lt_syevd(const lt_lapack *l, lt_dtype type, int64_t n, void *a, void *w, void *work,
                 int64_t size, int32_t *integers);
int64_t lt_syevd_work(const lt_lapack *l, lt_dtype type, int64_t n);

/* Singular values of a (m x n, destroyed), falling; u is m x ku and vt kv x n, all of them when
 * `full`, else ku = kv = min(m, n). integers: 8 min(m, n) of them. */
int64_t lt_gesdd(const lt_lapack *l, lt_dtype type, bool full, int64_t m, int64_t n, void *a,
                 void *s, void *u, void *vt, void *work, int64_t size, int32_t *integers);
int64_t lt_gesdd_work(const lt_lapack *l, lt_dtype type, bool full, int64_t m, int64_t n);

#endif
