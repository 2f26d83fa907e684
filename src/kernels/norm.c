/* The loops of normalisation for each float type and level of SIMD. Sums run in a fixed number of
 * lanes (as many as the registers hold) over short blocks, and in double from block to block. */
#include "kernels/norm.h"
#include "kernels/elementwise.h"

#include <stdbool.h>

enum { BLOCK = 1024 };

#define INLINE static inline __attribute__((always_inline))

/* Adds the lanes up in `into`, by halves. */
#define ADD_LANES(lane, into)                                                                      \
  do {                                                                                             \
    for (int half = LANES / 2; half > 0; half /= 2) {                                              \
      for (int l = 0; l < half; l++) lane[l] += lane[l + half];                                    \
    }                                                                                              \
    into += (double)lane[0];                                                                       \
  } while (0)

/* STEP(i, l) for each i of a block from `at` on, in lane l. */
#define EACH(at, end, STEP)                                                                        \
  do {                                                                                             \
    int64_t i = at;                                                                                \
    for (; i + LANES <= (end); i += LANES) {                                                       \
      for (int l = 0; l < LANES; l++) STEP(i + l, l);                                              \
    }                                                                                              \
    for (int l = 0; i + l < (end); l++) STEP(i + l, l);                                            \
  } while (0)

#define SUM_STEP(i, l) lane[l] += x[i]
#define SQUARE_STEP(i, l)                                                                          \
  do {                                                                                             \
    TYPE d = x[i] - c;                                                                             \
    lane[l] += d;                                                                                  \
    square[l] += d * d;                                                                            \
  } while (0)
#define DOT_STEP(i, l)                                                                             \
  do {                                                                                             \
    TYPE xh = (x[i] - c) * s, g = has_w ? dy[i] * w[i] : dy[i];                                    \
    lane[l] += g;                                                                                  \
    dot[l] += g * xh;                                                                              \
    if (has_dw) dw[i] += dy[i] * xh;                                                               \
    if (has_db) db[i] += dy[i];                                                                    \
  } while (0)

#define LEAST(a, b) ((a) < (b) ? (a) : (b))

#define KERNELS(NAME, TARGET, REAL, WIDTH)                                                         \
  TARGET static double sum_##NAME(int64_t n, const void *data) {                                   \
    typedef REAL TYPE;                                                                             \
    enum { LANES = WIDTH };                                                                        \
    const TYPE *x = data;                                                                          \
    double total = 0;                                                                              \
    for (int64_t at = 0; at < n; at += BLOCK) {                                                    \
      TYPE lane[LANES] = {0};                                                                      \
      EACH(at, LEAST(n, at + BLOCK), SUM_STEP);                                                    \
      ADD_LANES(lane, total);                                                                      \
    }                                                                                              \
    return total;                                                                                  \
  }                                                                                                \
  TARGET static void squares_##NAME(int64_t n, const void *data, double centre, double into[2]) {  \
    typedef REAL TYPE;                                                                             \
    enum { LANES = WIDTH };                                                                        \
    const TYPE *x = data, c = (TYPE)centre;                                                        \
    for (int64_t at = 0; at < n; at += BLOCK) {                                                    \
      TYPE lane[LANES] = {0}, square[LANES] = {0};                                                 \
      EACH(at, LEAST(n, at + BLOCK), SQUARE_STEP);                                                 \
      ADD_LANES(lane, into[0]);                                                                    \
      ADD_LANES(square, into[1]);                                                                  \
    }                                                                                              \
  }                                                                                                \
  TARGET static void map_##NAME(int64_t n, const void *data, void *result, double centre,          \
                                double scale, double shift, const void *weight,                    \
                                const void *bias) {                                                \
    const REAL *x = data, *w = weight, *b = bias;                                                  \
    const REAL c = (REAL)centre, s = (REAL)scale, t = (REAL)shift;                                 \
    REAL *restrict y = result;                                                                     \
    if (w && b) {                                                                                  \
      for (int64_t i = 0; i < n; i++) y[i] = (x[i] - c) * s * w[i] + b[i];                         \
    } else if (w) {                                                                                \
      for (int64_t i = 0; i < n; i++) y[i] = (x[i] - c) * s * w[i];                                \
    } else if (b) {                                                                                \
      for (int64_t i = 0; i < n; i++) y[i] = (x[i] - c) * s + b[i];                                \
    } else {                                                                                       \
      for (int64_t i = 0; i < n; i++) y[i] = (x[i] - c) * s + t;                                   \
    }                                                                                              \
  }                                                                                                \
  INLINE TARGET void dots_of_##NAME(int64_t n, const REAL *dy, const REAL *x, REAL c, REAL s,      \
                                    const REAL *w, REAL *restrict dw, REAL *restrict db,           \
                                    bool has_w, bool has_dw, bool has_db, double into[2]) {        \
    typedef REAL TYPE;                                                                             \
    enum { LANES = WIDTH };                                                                        \
    for (int64_t at = 0; at < n; at += BLOCK) {                                                    \
      TYPE lane[LANES] = {0}, dot[LANES] = {0};                                                    \
      EACH(at, LEAST(n, at + BLOCK), DOT_STEP);                                                    \
      ADD_LANES(lane, into[0]);                                                                    \
      ADD_LANES(dot, into[1]);                                                                     \
    }                                                                                              \
  }                                                                                                \
  TARGET static void dots_##NAME(int64_t n, const void *dy, const void *x, double centre,          \
                                 double scale, const void *w, void *dw, void *db,                  \
                                 double into[2]) {                                                 \
    REAL c = (REAL)centre, s = (REAL)scale;                                                        \
    if (w && dw && db)                                                                             \
      dots_of_##NAME(n, dy, x, c, s, w, dw, db, true, true, true, into);                           \
    else if (w && dw)                                                                              \
      dots_of_##NAME(n, dy, x, c, s, w, dw, NULL, true, true, false, into);                        \
    else if (w)                                                                                    \
      dots_of_##NAME(n, dy, x, c, s, w, NULL, db, true, false, db != NULL, into);                  \
    else                                                                                           \
      dots_of_##NAME(n, dy, x, c, s, NULL, NULL, db, false, false, db != NULL, into);              \
  }                                                                                                \
  TARGET static void back_##NAME(int64_t n, const void *grad, const void *data, void *result,      \
                                 const void *weight, double centre, double factor, double shift,   \
                                 double slope) {                                                   \
    const REAL *dy = grad, *x = data, *w = weight;                                                 \
    const REAL c = (REAL)centre, f = (REAL)factor, t = (REAL)shift, m = (REAL)slope;               \
    REAL *restrict dx = result;                                                                    \
    if (w) {                                                                                       \
      for (int64_t i = 0; i < n; i++) dx[i] = f * (dy[i] * w[i]) + t + m * (x[i] - c);             \
    } else {                                                                                       \
      for (int64_t i = 0; i < n; i++) dx[i] = f * dy[i] + t + m * (x[i] - c);                      \
    }                                                                                              \
  }                                                                                                \
  TARGET static void drain_##NAME(int64_t n, void *data, double *restrict into) {                  \
    REAL *restrict x = data;                                                                       \
    for (int64_t i = 0; i < n; i++) {                                                              \
      into[i] += (double)x[i];                                                                     \
      x[i] = 0;                                                                                    \
    }                                                                                              \
  }

KERNELS(f32, , float, 32)
KERNELS(f64, , double, 16)
KERNELS(f32_avx2, LT_TARGET_AVX2, float, 32)
KERNELS(f64_avx2, LT_TARGET_AVX2, double, 16)
KERNELS(f32_avx512, LT_TARGET_AVX512, float, 64)
KERNELS(f64_avx512, LT_TARGET_AVX512, double, 32)

#define ALL(NAME)                                                                                  \
  { sum_##NAME, squares_##NAME, map_##NAME, dots_##NAME, back_##NAME, drain_##NAME }

const lt_norm_kernels lt_norm_kernels_of[LT_SIMD_COUNT][2] = {
    {ALL(f32), ALL(f64)}, {ALL(f32_avx2), ALL(f64_avx2)}, {ALL(f32_avx512), ALL(f64_avx512)}};
