/* The tiles of convolution, written in the compiler's own vectors: one body (conv_body.h) for each
 * element type and instruction set; here stand the sizes of each one's tiles. */
#include "kernels/conv_tile.h"
#include "kernels/elementwise.h"

#include <string.h>
#if defined(__x86_64__)
#  include <xmmintrin.h>
#endif

#if defined(__clang__)
#  pragma clang diagnostic ignored "-Wpass-failed"
#  define UNROLL _Pragma("clang loop unroll(full)")
#else
#  define UNROLL _Pragma("GCC unroll 16")
#endif

#define PASTE(a, b, c) a##_##b##_##c
#define EXPAND(a, b, c) PASTE(a, b, c)
#define NAME(x) EXPAND(x, KIND, LEVEL)
#define PASTE_LEVEL(x, level) x##_##level
#define EXPAND_LEVEL(x, level) PASTE_LEVEL(x, level)
#define BY_LEVEL(x) EXPAND_LEVEL(x, LEVEL)
#define INLINE static inline __attribute__((always_inline)) TARGET

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t quotient_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t share(int64_t total, int64_t parts, int64_t index) {
  return total / parts + (index < total % parts);
}

/* `count` rows of dy, `row` apart, and n of their elements, turned into n rows of `width`. */
static void turn_f32(int64_t n, int64_t count, const float *dy, int64_t row, float *to,
                     int64_t width) {
  int64_t j = 0;
#if defined(__x86_64__)
  for (; j + 4 <= count; j += 4, dy += 4 * row) {
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
      __m128 a = _mm_loadu_ps(dy + i), b = _mm_loadu_ps(dy + row + i);
      __m128 c = _mm_loadu_ps(dy + 2 * row + i), d = _mm_loadu_ps(dy + 3 * row + i);
      _MM_TRANSPOSE4_PS(a, b, c, d);
      _mm_storeu_ps(to + i * width + j, a);
      _mm_storeu_ps(to + (i + 1) * width + j, b);
      _mm_storeu_ps(to + (i + 2) * width + j, c);
      _mm_storeu_ps(to + (i + 3) * width + j, d);
    }
    for (; i < n; i++) {
      for (int k = 0; k < 4; k++) to[i * width + j + k] = dy[k * row + i];
    }
  }
#endif
  for (; j < count; j++, dy += row) {
    for (int64_t i = 0; i < n; i++) to[i * width + j] = dy[i];
  }
}

static void turn_f64(int64_t n, int64_t count, const double *dy, int64_t row, double *to,
                     int64_t width) {
  for (int64_t j = 0; j < count; j++, dy += row) {
    for (int64_t i = 0; i < n; i++) to[i * width + j] = dy[i];
  }
}

/* Rows are short and many, so that memcpy would take longer than the copy: chunks of a vector, of
 * which the last overlaps the one before. */
#define COPY(SUFFIX, TARGET, BYTES)                                                                \
  typedef uint8_t chunk_##SUFFIX __attribute__((vector_size(BYTES), aligned(1), may_alias));       \
  TARGET static void copy_##SUFFIX(int64_t rows, int64_t bytes, char *to, int64_t to_row,          \
                                   const char *from, int64_t from_row) {                           \
    typedef chunk_##SUFFIX C;                                                                      \
    const int64_t end = bytes - BYTES;                                                             \
    for (int64_t r = 0; r < rows; r++, to += to_row, from += from_row) {                           \
      for (int64_t i = 0; i < end; i += BYTES) *(C *)(to + i) = *(const C *)(from + i);            \
      *(C *)(to + end) = *(const C *)(from + end);                                                 \
    }                                                                                              \
  }
COPY(portable, , 16)
COPY(avx2, LT_TARGET_AVX2, 32)
COPY(avx512, LT_TARGET_AVX512, 64)

/* What a level says of itself: ROWS are its tiles of results (rows, vectors), ROWS_MOST the
 * tallest, vectors_LEVEL the widest of each height; SUMS its tiles of sums (taps, vectors),
 * SUMS_WIDTH the widest, taps_LEVEL the tallest of each width. */
#define TO_4(X, v) X(1, v) X(2, v) X(3, v) X(4, v)
#define TO_6(X, v) TO_4(X, v) X(5, v) X(6, v)
#define TO_8(X, v) TO_6(X, v) X(7, v) X(8, v)

/* ---- 16 registers ---------------------------------------------------------------------------- */

#define ROWS(X) TO_4(X, 1) TO_4(X, 2) TO_4(X, 3) X(1, 4) X(1, 5) X(1, 6)
#define ROWS_MOST 4
#define WIDEST 6
#define SUMS(X) TO_8(X, 1) TO_6(X, 2)
#define SUMS_WIDTH 2
#define SUMS_MOST 8

static const int8_t vectors_portable[] = {0, 6, 3, 3, 3}, taps_portable[] = {0, 8, 6};
#define LEVEL portable
#define TARGET
#define BYTES 16
#define KIND f32
#define TYPE float
#include "kernels/conv_body.h"
#define KIND f64
#define TYPE double
#include "kernels/conv_body.h"
#undef LEVEL
#undef TARGET
#undef BYTES

#if defined(__x86_64__)

static const int8_t vectors_avx2[] = {0, 6, 3, 3, 3}, taps_avx2[] = {0, 8, 6};
#  define LEVEL avx2
#  define TARGET LT_TARGET_AVX2
#  define BYTES 32
#  define KIND f32
#  define TYPE float
#  include "kernels/conv_body.h"
#  define KIND f64
#  define TYPE double
#  include "kernels/conv_body.h"
#  undef LEVEL
#  undef TARGET
#  undef BYTES

#  undef ROWS
#  undef ROWS_MOST
#  undef WIDEST
#  undef SUMS
#  undef SUMS_WIDTH
#  undef SUMS_MOST

/* ---- 32 registers of 64 bytes ------------------------------------------------------------------
 */

#  define ROWS(X)                                                                                  \
    TO_8(X, 1)                                                                                     \
    TO_8(X, 2)                                                                                     \
    TO_8(X, 3) X(1, 4) X(2, 4) X(1, 5) X(1, 6) X(1, 7) X(1, 8)
#  define ROWS_MOST 8
#  define WIDEST 8
#  define SUMS(X) TO_8(X, 1) TO_8(X, 2) TO_8(X, 3) TO_6(X, 4)
#  define SUMS_WIDTH 4
#  define SUMS_MOST 8

static const int8_t vectors_avx512[] = {0, 8, 4, 3, 3, 3, 3, 3, 3};
static const int8_t taps_avx512[] = {0, 8, 8, 8, 6};
#  define LEVEL avx512
#  define TARGET LT_TARGET_AVX512
#  define BYTES 64
#  define KIND f32
#  define TYPE float
#  include "kernels/conv_body.h"
#  define KIND f64
#  define TYPE double
#  include "kernels/conv_body.h"

#endif

/* ---- The doors ---------------------------------------------------------------------------------
 */

int64_t lt_conv_blocks(lt_simd simd, int64_t m) {
  return quotient_up(m, simd == LT_SIMD_AVX512 ? 8 : 4);
}

int64_t lt_conv_width(lt_simd simd, bool is_double, int64_t m) {
  int64_t lanes = (simd == LT_SIMD_AVX512 ? 64
                   : simd == LT_SIMD_AVX2 ? 32
                                          : 16) /
                  (is_double ? (int64_t)sizeof(double) : (int64_t)sizeof(float));
  return quotient_up(m, lanes) * lanes;
}

void lt_conv_rows_run(const lt_conv_rows *r, lt_simd simd, bool is_double) {
  switch (simd) {
#if defined(__x86_64__)
  case LT_SIMD_AVX512: (is_double ? rows_f64_avx512 : rows_f32_avx512)(r); break;
  case LT_SIMD_AVX2: (is_double ? rows_f64_avx2 : rows_f32_avx2)(r); break;
#endif
  default: (is_double ? rows_f64_portable : rows_f32_portable)(r); break;
  }
}

void lt_conv_sums_run(const lt_conv_sums *s, lt_simd simd, bool is_double) {
  switch (simd) {
#if defined(__x86_64__)
  case LT_SIMD_AVX512: (is_double ? sums_f64_avx512 : sums_f32_avx512)(s); break;
  case LT_SIMD_AVX2: (is_double ? sums_f64_avx2 : sums_f32_avx2)(s); break;
#endif
  default: (is_double ? sums_f64_portable : sums_f32_portable)(s); break;
  }
}

void lt_conv_copy(lt_simd simd, int64_t rows, int64_t bytes, char *to, int64_t to_row,
                  const char *from, int64_t from_row) {
  if (bytes > 1024 || bytes < 16) {
    for (int64_t r = 0; r < rows; r++) memcpy(to + r * to_row, from + r * from_row, (size_t)bytes);
  } else if (simd >= LT_SIMD_AVX512 && bytes >= 64) {
    copy_avx512(rows, bytes, to, to_row, from, from_row);
  } else if (simd >= LT_SIMD_AVX2 && bytes >= 32) {
    copy_avx2(rows, bytes, to, to_row, from, from_row);
  } else {
    copy_portable(rows, bytes, to, to_row, from, from_row);
  }
}
