/* Opening LAPACK at run time, and calling Fortran: every argument by its address, the lengths of
 * texts at the end. Both float types have routines of the same form, so one table serves both. */
#define _GNU_SOURCE /* RTLD_NODELETE */
#include "kernels/lapack.h"
#include "core/context.h"
#include "kernels/factor.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

typedef const int32_t *in;
typedef const char *text;

typedef void potrf_fn(text uplo, in n, void *a, in lda, int32_t *info, size_t);
typedef void getrf_fn(in m, in n, void *a, in lda, int32_t *pivots, int32_t *info);
typedef void getrs_fn(text trans, in n, in columns, const void *a, in lda, in pivots, void *b,
                      in ldb, int32_t *info, size_t);
typedef void trsm_fn(text side, text uplo, text trans, text diag, in m, in n, const void *alpha,
                     const void *a, in lda, void *b, in ldb, size_t, size_t, size_t, size_t);
typedef void geqrf_fn(in m, in n, void *a, in lda, void *tau, void *work, in size, int32_t *info);
typedef void orgqr_fn(in m, in n, in k, void *a, in lda, const void *tau, void *work, in size,
                      int32_t *info);
typedef void syevd_fn(text jobz, text uplo, in n, void *a, in lda, void *w, void *work, in size,
                      int32_t *integers, in integers_size, int32_t *info, size_t, size_t);
typedef void gesdd_fn(text jobz, in m, in n, void *a, in lda, void *s, void *u, in ldu, void *vt,
                      in ldvt, void *work, in size, int32_t *integers, int32_t *info, size_t);

/* F(name) for every routine; trsm is BLAS's, which LAPACK brings along. */
#define ROUTINES(F) F(potrf) F(getrf) F(getrs) F(trsm) F(geqrf) F(orgqr) F(syevd) F(gesdd)

#define FIELD(NAME) NAME##_fn *NAME[2]; /* of float32, of float64 */
struct lt_lapack {
  ROUTINES(FIELD)
};

/* ---- Opening ----------------------------------------------------------------------------------
 */

/* ISO C has no conversion from an object's address to a function's. */
static bool find(void *library, const char *name, void *function) {
  void *address = dlsym(library, name);
  memcpy(function, &address, sizeof address);
  return address != NULL;
}

static bool find_all(void *library, lt_lapack *l) {
  bool all = true;
#define FIND(NAME)                                                                                 \
  all = all && find(library, "s" #NAME "_", &l->NAME[0]) &&                                        \
        find(library, "d" #NAME "_", &l->NAME[1]);
  ROUTINES(FIND)
  return all;
}

/* The library stays mapped: its own libraries have threads and handlers. */
static void *open_library(void) {
  static const char *const names[] = {"liblapack.so.3", "liblapack.so", "liblapack.dylib"};
  const char *own = getenv("LUATAPE_LAPACK");
  int mode = RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE;
  if (own) return dlopen(own, mode);
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    void *library = dlopen(names[i], mode);
    if (library) return library;
  }
  return NULL;
}

lt_status lt_lapack_open(lt_context *ctx, const char *op, const lt_lapack **lapack) {
  if (!ctx->lapack) {
    void *library = open_library();
    if (!library) return lt_fail(ctx, "%s: needs LAPACK (apt-get install liblapack3)", op);
    lt_lapack *l = malloc(sizeof *l);
    bool complete = l && find_all(library, l);
    dlclose(library); /* counts down only */
    if (!l) return lt_fail_memory(ctx, sizeof *l);
    if (!complete) {
      free(l);
      return lt_fail(ctx, "%s: the LAPACK library lacks routines (apt-get install liblapack3)", op);
    }
    ctx->lapack = l;
  }
  *lapack = ctx->lapack;
  return LT_OK;
}

/* ---- Calling -----------------------------------------------------------------------------------
 */

#define TYPE(type) ((type) == LT_FLOAT64)

static int32_t count(int64_t n) { return (int32_t)n; }
/* Leading dimensions are at least 1. */
static int32_t lead(int64_t n) { return n > 1 ? (int32_t)n : 1; }

int64_t lt_potrf(const lt_lapack *l, lt_dtype type, bool upper, int64_t n, void *a) {
  if (n <= LT_SMALL_MATRIX) return lt_small_potrf(type, upper, n, a);
  int32_t size = count(n), lda = lead(n), info = 0;
  l->potrf[TYPE(type)](upper ? "U" : "L", &size, a, &lda, &info, 1);
  return info;
}

int64_t lt_getrf(const lt_lapack *l, lt_dtype type, int64_t n, void *a, int32_t *pivots) {
  if (n <= LT_SMALL_MATRIX) return lt_small_getrf(type, n, a, pivots);
  int32_t size = count(n), lda = lead(n), info = 0;
  l->getrf[TYPE(type)](&size, &size, a, &lda, pivots, &info);
  return info;
}

void lt_getrs(const lt_lapack *l, lt_dtype type, bool transposed, int64_t n, int64_t columns,
              const void *lu, const int32_t *pivots, void *b) {
  if (n <= LT_SMALL_MATRIX && columns <= LT_SMALL_SIDES) {
    lt_small_getrs(type, transposed, n, columns, lu, pivots, b);
    return;
  }
  int32_t size = count(n), wide = count(columns), lda = lead(n), info = 0;
  l->getrs[TYPE(type)](transposed ? "T" : "N", &size, &wide, lu, &lda, pivots, b, &lda, &info, 1);
}

void lt_trsm(const lt_lapack *l, lt_dtype type, bool right, bool upper, bool unit, int64_t m,
             int64_t n, const void *a, void *b) {
  if ((right ? n : m) <= LT_SMALL_MATRIX && (right ? m : n) <= LT_SMALL_SIDES) {
    lt_small_trsm(type, right, upper, unit, m, n, a, b);
    return;
  }
  int32_t rows = count(m), columns = count(n), lda = lead(right ? n : m), ldb = lead(m);
  const float one_f32 = 1;
  const double one_f64 = 1;
  const void *one = TYPE(type) ? (const void *)&one_f64 : (const void *)&one_f32;
  l->trsm[TYPE(type)](right ? "R" : "L", upper ? "U" : "L", "N", unit ? "U" : "N", &rows, &columns,
                      one, a, &lda, b, &ldb, 1, 1, 1, 1);
}

void lt_geqrf(const lt_lapack *l, lt_dtype type, int64_t m, int64_t n, void *a, void *tau,
              void *work, int64_t size) {
  int32_t rows = count(m), columns = count(n), lda = lead(m), room = count(size), info = 0;
  l->geqrf[TYPE(type)](&rows, &columns, a, &lda, tau, work, &room, &info);
}

void lt_orgqr(const lt_lapack *l, lt_dtype type, int64_t m, int64_t k, int64_t reflections, void *q,
              const void *tau, void *work, int64_t size) {
  int32_t rows = count(m), columns = count(k), lda = lead(m), room = count(size), info = 0;
  int32_t used = count(reflections);
  l->orgqr[TYPE(type)](&rows, &columns, &used, q, &lda, tau, work, &room, &info);
}

int64_t lt_syevd(const lt_lapack *l, lt_dtype type, int64_t n, void *a, void *w, void *work,
                 int64_t size, int32_t *integers) {
  int32_t rows = count(n), lda = lead(n), room = count(size), info = 0;
  int32_t integers_room = count(3 + 5 * n);
  l->syevd[TYPE(type)]("V", "U", &rows, a, &lda, w, work, &room, integers, &integers_room, &info, 1,
                       1);
  return info;
}

int64_t lt_gesdd(const lt_lapack *l, lt_dtype type, bool full, int64_t m, int64_t n, void *a,
                 void *s, void *u, void *vt, void *work, int64_t size, int32_t *integers) {
  int32_t rows = count(m), columns = count(n), room = count(size), info = 0;
  int32_t lda = lead(m), ldvt = lead(full || n < m ? n : m);
  l->gesdd[TYPE(type)](full ? "A" : "S", &rows, &columns, a, &lda, s, u, &lda, vt, &ldvt, work,
                       &room, integers, &info, 1);
  return info;
}

/* ---- How much work space ------------------------------------------------------------------------
 */

/* A routine asked for the size -1 answers with the best one, as a float: rounded, so somewhat more
 * is taken. At least 1. */
static int64_t answer(lt_dtype type, const void *work) {
  double size = TYPE(type) ? *(const double *)work : (double)*(const float *)work;
  return (int64_t)(size * (1 + 1e-6)) + 1;
}

int64_t lt_qr_work(const lt_lapack *l, lt_dtype type, int64_t m, int64_t n, int64_t k) {
  double work[2][2] = {{0}};
  int64_t reflections = m < n ? m : n;
  lt_geqrf(l, type, m, n, work[0], work[0], work[0], -1);
  if (reflections > 0) lt_orgqr(l, type, m, k, reflections, work[1], work[1], work[1], -1);
  int64_t first = answer(type, work[0]), second = answer(type, work[1]);
  return first > second ? first : second;
}

int64_t lt_syevd_work(const lt_lapack *l, lt_dtype type, int64_t n) {
  double work[2] = {0};
  int32_t integers[2], rows = count(n), lda = lead(n), ask = -1, info = 0;
  l->syevd[TYPE(type)]("V", "U", &rows, work, &lda, work, work, &ask, integers, &ask, &info, 1, 1);
  return answer(type, work);
}

int64_t lt_gesdd_work(const lt_lapack *l, lt_dtype type, bool full, int64_t m, int64_t n) {
  double work[2] = {0};
  int32_t integers[8];
  lt_gesdd(l, type, full, m, n, work, work, work, work, work, -1, integers);
  return answer(type, work);
}
