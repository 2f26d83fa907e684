/* Direct products for small and thin matrices. One body (gemm_body.h) is compiled for each element
 * type and instruction set; here stand the vectors of each and the sizes of its register tiles. */
#include "kernels/gemm_small.h"

#if defined(__x86_64__)
#  include <immintrin.h>
#endif

#define PASTE(a, b, c) a##_##b##_##c
#define EXPAND(a, b, c) PASTE(a, b, c)
#define NAME(x) EXPAND(x, KIND, LEVEL)
#define PASTE_LEVEL(x, level) x##_##level
#define EXPAND_LEVEL(x, level) PASTE_LEVEL(x, level)
#define BY_LEVEL(x) EXPAND_LEVEL(x, LEVEL)
#define INLINE static inline __attribute__((always_inline)) TARGET

/* Tiles are arrays of vectors: unless their loops are unrolled in full, they live in memory. */
#if defined(__clang__)
/* where a sanitizer keeps the loops it is only slow */
#  pragma clang diagnostic ignored "-Wpass-failed"
#  define UNROLL _Pragma("clang loop unroll(full)")
#else
#  define UNROLL _Pragma("GCC unroll 16")
#endif

#define UP_TO_4(X, v) X(1, v) X(2, v) X(3, v) X(4, v)
#define UP_TO_6(X, v) UP_TO_4(X, v) X(5, v) X(6, v)
#define UP_TO_8(X, v) UP_TO_6(X, v) X(7, v) X(8, v)
#define UP_TO_12(X, v) UP_TO_8(X, v) X(9, v) X(10, v) X(11, v) X(12, v)

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* Divisions are slow, and small products often need none. */
static inline int64_t quotient_up(int64_t a, int64_t b) { return a <= b ? 1 : (a + b - 1) / b; }
static inline int64_t share(int64_t total, int64_t parts, int64_t index) {
  return parts == 1 ? total : total / parts + (index < total % parts);
}

/* The same product seen from the other side: C' = B' A'. */
static lt_gemm transposed(const lt_gemm *g) {
  lt_gemm t = *g;
  t.m = g->n, t.n = g->m;
  t.a = g->b, t.a_row = g->b_col, t.a_col = g->b_row;
  t.b = g->a, t.b_row = g->a_col, t.b_col = g->a_row;
  t.c_row = g->c_col, t.c_col = g->c_row;
  return t;
}

typedef void product_function(const lt_gemm *g);

enum {
  DEPTH = 128, /* summed in registers at a time: few enough rows of B to stay in the caches */
  GROUP = 16   /* columns or rows that no two threads share */
};

/* What a level says of itself: TILES are the register tiles (rows, vectors in a row) that leave
 * room for a row of B and an element of A, TILE_ROWS the tallest of each width; DOT_ROWS rows of A
 * are dotted with four columns of B at once; MASKED says whether vectors are read and written in
 * part as fast as in full. The rest are its operations on vectors; FIRST(n) is the mask of n
 * elements. */

/* ---- portable: vectors of 16 bytes, the compiler's own --------------------------------------- */

#define LEVEL portable
#define TARGET
#define TILES(X) UP_TO_8(X, 1) UP_TO_4(X, 2)
#define TILE_WIDTH 2
#define TILE_HEIGHT 8
static const int8_t rows_portable[] = {0, 8, 4};
#define DOT_ROWS 2
#define MASKED 0
#define MASK int
#define FIRST(count) ((int)(count))
#define LOAD(p) (*(const VECTOR *)(p))
#define STORE(p, v) (*(VECTOR *)(p) = (v))
#define LOAD_PART(mask, p) LOAD(p) /* without masks only full vectors are met */
#define STORE_PART(p, mask, v) STORE(p, v)
#define SPLAT(x) ((x) - (VECTOR){0})
#define FMA(a, b, c) ((a) * (b) + (c))

typedef float f32x4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef double f64x2 __attribute__((vector_size(16), aligned(8), may_alias));

#define KIND f32
#define TYPE float
#define QUAD 4
#define LANES 4
#define VECTOR f32x4
#define SUM(v) ((v)[0] + (v)[1] + ((v)[2] + (v)[3]))
#include "kernels/gemm_body.h"

#define KIND f64
#define TYPE double
#define QUAD 2
#define LANES 2
#define VECTOR f64x2
#define SUM(v) ((v)[0] + (v)[1])
#include "kernels/gemm_body.h"

#undef LEVEL
#undef TARGET
#undef TILES
#undef TILE_WIDTH
#undef TILE_HEIGHT
#undef DOT_ROWS
#undef MASKED
#undef MASK
#undef FIRST
#undef LOAD
#undef STORE
#undef LOAD_PART
#undef STORE_PART
#undef SPLAT
#undef FMA

#if defined(__x86_64__)

#  define LOAD(p) OP(loadu)(p)
#  define STORE(p, v) OP(storeu)(p, v)
#  define SPLAT(x) OP(set1)(x)
#  define FMA(a, b, c) OP(fmadd)(a, b, c)
#  define MASKED 1

/* ---- AVX2 and FMA: 16 registers of 32 bytes -------------------------------------------------- */

#  define LEVEL avx2
#  define TARGET __attribute__((target("avx2,fma")))
#  define TILES(X) UP_TO_8(X, 1) UP_TO_6(X, 2)
#  define TILE_WIDTH 2
#  define TILE_HEIGHT 8
static const int8_t rows_avx2[] = {0, 8, 6};
#  define DOT_ROWS 2
#  define MASK __m256i
#  define LOAD_PART(mask, p) OP(maskload)(p, mask)
#  define STORE_PART(p, mask, v) OP(maskstore)(p, mask, v)

INLINE __m256 gather_avx2_f32(const float *const *column, int64_t p) {
  return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(column[0] + p)),
                              _mm_loadu_ps(column[4] + p), 1);
}

INLINE __m256d gather_avx2_f64(const double *const *column, int64_t p) {
  return _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(column[0] + p)),
                              _mm_loadu_pd(column[2] + p), 1);
}

INLINE float sum_avx2_f32(__m256 v) {
  __m128 w = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  w = _mm_add_ps(w, _mm_movehl_ps(w, w));
  return _mm_cvtss_f32(_mm_add_ss(w, _mm_shuffle_ps(w, w, 1)));
}

INLINE double sum_avx2_f64(__m256d v) {
  __m128d w = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
  return _mm_cvtsd_f64(_mm_add_sd(w, _mm_unpackhi_pd(w, w)));
}

#  define KIND f32
#  define TYPE float
#  define QUAD 4
#  define LANES 8
#  define VECTOR __m256
#  define GATHER gather_avx2_f32
#  define OP(x) _mm256_##x##_ps
#  define FIRST(n)                                                                                 \
    _mm256_cmpgt_epi32(_mm256_set1_epi32((int)(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
#  define SUM(v) sum_avx2_f32(v)
#  include "kernels/gemm_body.h"
#  undef OP
#  undef GATHER
#  undef FIRST

#  define KIND f64
#  define TYPE double
#  define QUAD 2
#  define LANES 4
#  define VECTOR __m256d
#  define GATHER gather_avx2_f64
#  define OP(x) _mm256_##x##_pd
#  define FIRST(n) _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3))
#  define SUM(v) sum_avx2_f64(v)
#  include "kernels/gemm_body.h"
#  undef OP
#  undef GATHER
#  undef FIRST

#  undef LEVEL
#  undef TARGET
#  undef TILES
#  undef TILE_WIDTH
#  undef TILE_HEIGHT
#  undef DOT_ROWS
#  undef MASK
#  undef LOAD_PART
#  undef STORE_PART

/* ---- AVX-512: 32 registers of 64 bytes, masks of their own ----------------------------------- */

#  define LEVEL avx512
#  define TARGET __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")))
#  define TILES(X) UP_TO_12(X, 1) UP_TO_12(X, 2) UP_TO_8(X, 3) UP_TO_6(X, 4)
#  define TILE_WIDTH 4
#  define TILE_HEIGHT 12
static const int8_t rows_avx512[] = {0, 12, 12, 8, 6};
#  define DOT_ROWS 4
#  define LOAD_PART(mask, p) OP(maskz_loadu)(mask, p)
#  define STORE_PART(p, mask, v) OP(mask_storeu)(p, mask, v)
#  define FIRST(n) ((MASK)((1u << (n)) - 1))

INLINE __m512 gather_avx512_f32(const float *const *column, int64_t p) {
  __m512 v = _mm512_castps128_ps512(_mm_loadu_ps(column[0] + p));
  v = _mm512_insertf32x4(v, _mm_loadu_ps(column[4] + p), 1);
  v = _mm512_insertf32x4(v, _mm_loadu_ps(column[8] + p), 2);
  return _mm512_insertf32x4(v, _mm_loadu_ps(column[12] + p), 3);
}

INLINE __m512d gather_avx512_f64(const double *const *column, int64_t p) {
  __m512d v = _mm512_castpd128_pd512(_mm_loadu_pd(column[0] + p));
  v = _mm512_insertf64x2(v, _mm_loadu_pd(column[2] + p), 1);
  v = _mm512_insertf64x2(v, _mm_loadu_pd(column[4] + p), 2);
  return _mm512_insertf64x2(v, _mm_loadu_pd(column[6] + p), 3);
}

#  define KIND f32
#  define TYPE float
#  define QUAD 4
#  define LANES 16
#  define VECTOR __m512
#  define GATHER gather_avx512_f32
#  define MASK __mmask16
#  define OP(x) _mm512_##x##_ps
#  define SUM(v) _mm512_reduce_add_ps(v)
#  include "kernels/gemm_body.h"
#  undef MASK
#  undef OP
#  undef GATHER

#  define KIND f64
#  define TYPE double
#  define QUAD 2
#  define LANES 8
#  define VECTOR __m512d
#  define GATHER gather_avx512_f64
#  define MASK __mmask8
#  define OP(x) _mm512_##x##_pd
#  define SUM(v) _mm512_reduce_add_pd(v)
#  include "kernels/gemm_body.h"

#endif

typedef product_function *choose_function(const lt_gemm *g, lt_gemm *as);

static choose_function *const choose_f32[LT_SIMD_COUNT] = {
    choose_f32_portable,
#if defined(__x86_64__)
    choose_f32_avx2,
    choose_f32_avx512,
#endif
};
static choose_function *const choose_f64[LT_SIMD_COUNT] = {
    choose_f64_portable,
#if defined(__x86_64__)
    choose_f64_avx2,
    choose_f64_avx512,
#endif
};

/* Runs the product in parts of whole groups of columns, or rows, of C. The way is chosen for the
 * whole, tiles sum every element alike, and dots are taken by fours or less, which divide GROUP: so
 * each element gets the same bits in any part. `size` is that of an element. */
static void run(choose_function *choose, const lt_gemm *g, int64_t size, int threads) {
  lt_gemm whole;
  product_function *product = choose(g, &whole);
  /* By columns B is packed once, by rows once in each part. */
  const bool columns = whole.n >= whole.m || (whole.b_col != 1 && whole.n >= 4 * GROUP * threads);
  const int64_t extent = columns ? whole.n : whole.m, groups = quotient_up(extent, GROUP);
  const int parts = (int)least(threads, groups);
  if (parts <= 1) {
    product(&whole);
    return;
  }
#if defined(_OPENMP)
#  pragma omp parallel for schedule(static) num_threads(parts)
#endif
  for (int part = 0; part < parts; part++) {
    const int64_t first = groups * part / parts * GROUP;
    const int64_t count = least(groups * (part + 1) / parts * GROUP, extent) - first;
    lt_gemm piece = whole;
    if (columns) {
      piece.n = count;
      piece.b = (const char *)whole.b + first * whole.b_col * size;
      piece.c = (char *)whole.c + first * whole.c_col * size;
    } else {
      piece.m = count;
      piece.a = (const char *)whole.a + first * whole.a_row * size;
      piece.c = (char *)whole.c + first * whole.c_row * size;
    }
    product(&piece);
  }
}

void lt_gemm_small_f32(const lt_gemm *g, lt_simd simd, int threads) {
  run(choose_f32[simd], g, (int64_t)sizeof(float), threads);
}

void lt_gemm_small_f64(const lt_gemm *g, lt_simd simd, int threads) {
  run(choose_f64[simd], g, (int64_t)sizeof(double), threads);
}
