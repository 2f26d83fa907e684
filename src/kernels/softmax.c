/* The lines of softmax for each float type and level of SIMD. The maximum is taken off before the
 * exponential, so nothing overflows; sums run in double, in a fixed number of lanes. */
#include "kernels/softmax.h"
#include "kernels/elementwise.h"
#include "kernels/math.h"

enum { LANES = 32, TILE = 512 };

#define SUM_LANES(sum)                                                                             \
  for (int half = LANES / 2; half > 0; half /= 2) {                                                \
    for (int l = 0; l < half; l++) sum[l] += sum[l + half];                                        \
  }

/* `total` becomes the sum of TERM(i) for i in 0..n-1. */
#define ADD_UP(total, n, TERM)                                                                     \
  do {                                                                                             \
    if ((n) < LANES) {                                                                             \
      for (int64_t i = 0; i < (n); i++) total += (double)TERM(i);                                  \
      break;                                                                                       \
    }                                                                                              \
    double lane[LANES] = {0};                                                                      \
    int64_t at = 0;                                                                                \
    for (; at + LANES <= (n); at += LANES) {                                                       \
      for (int l = 0; l < LANES; l++) lane[l] += (double)TERM(at + l);                             \
    }                                                                                              \
    for (int l = 0; at + l < (n); l++) lane[l] += (double)TERM(at + l);                            \
    SUM_LANES(lane)                                                                                \
    total += lane[0];                                                                              \
  } while (0)

#define LARGER(a, b) ((a) > (b) ? (a) : (b))

/* The maximum passes NaN over: it comes back in the sum. */
#define LINES(NAME, TARGET, TYPE)                                                                  \
  TARGET static TYPE maximum_##NAME(int64_t n, const TYPE *x, TYPE sign) {                         \
    TYPE lane[LANES];                                                                              \
    int64_t i = 0;                                                                                 \
    if (n < LANES) {                                                                               \
      lane[0] = (TYPE)-INFINITY;                                                                   \
      for (; i < n; i++) lane[0] = LARGER(sign * x[i], lane[0]);                                   \
      return lane[0];                                                                              \
    }                                                                                              \
    for (int l = 0; l < LANES; l++) lane[l] = (TYPE)-INFINITY;                                     \
    for (; i + LANES <= n; i += LANES) {                                                           \
      for (int l = 0; l < LANES; l++) lane[l] = LARGER(sign * x[i + l], lane[l]);                  \
    }                                                                                              \
    for (; i < n; i++) lane[0] = LARGER(sign * x[i], lane[0]);                                     \
    for (int half = LANES / 2; half > 0; half /= 2) {                                              \
      for (int l = 0; l < half; l++) lane[l] = LARGER(lane[l + half], lane[l]);                    \
    }                                                                                              \
    return lane[0];                                                                                \
  }                                                                                                \
  /* e = exp(sign x - most), added up */                                                           \
  TARGET static double exps_##NAME(int64_t n, const TYPE *x, TYPE sign, TYPE most, TYPE *e) {      \
    double total = 0;                                                                              \
    for (int64_t i = 0; i < n; i++) e[i] = EXP(sign * x[i] - most);                                \
    ADD_UP(total, n, EXPONENTIAL);                                                                 \
    return total;                                                                                  \
  }                                                                                                \
  TARGET static void softmax_##NAME(const void *argument, void *const *line, void *scratch) {      \
    const lt_softmax_line *s = argument;                                                           \
    const TYPE *x = line[0];                                                                       \
    TYPE *y = line[1], sign = s->negative ? -1 : 1, most = maximum_##NAME(s->n, x, sign);          \
    double total = 0;                                                                              \
    (void)scratch;                                                                                 \
    for (int64_t i = 0; i < s->n; i += TILE) {                                                     \
      int64_t n = s->n - i < TILE ? s->n - i : TILE;                                               \
      total += exps_##NAME(n, x + i, sign, most, y + i);                                           \
    }                                                                                              \
    TYPE share = (TYPE)(1 / total);                                                                \
    for (int64_t i = 0; i < s->n; i++) y[i] *= share;                                              \
  }                                                                                                \
  TARGET static void log_softmax_##NAME(const void *argument, void *const *line, void *scratch) {  \
    const lt_softmax_line *s = argument;                                                           \
    const TYPE *x = line[0];                                                                       \
    TYPE *y = line[1], most = maximum_##NAME(s->n, x, 1), e[TILE];                                 \
    double total = 0;                                                                              \
    (void)scratch;                                                                                 \
    for (int64_t i = 0; i < s->n; i += TILE) {                                                     \
      int64_t n = s->n - i < TILE ? s->n - i : TILE;                                               \
      total += exps_##NAME(n, x + i, 1, most, e);                                                  \
    }                                                                                              \
    TYPE base = (TYPE)log(total);                                                                  \
    for (int64_t i = 0; i < s->n; i++) y[i] = x[i] - most - base;                                  \
  }                                                                                                \
  TARGET static void softmax_backward_##NAME(const void *argument, void *const *line,              \
                                             void *scratch) {                                      \
    const lt_softmax_line *s = argument;                                                           \
    const TYPE *dy = line[0], *y = line[1];                                                        \
    TYPE *dx = line[2];                                                                            \
    double total = 0;                                                                              \
    (void)scratch;                                                                                 \
    ADD_UP(total, s->n, PRODUCT);                                                                  \
    TYPE mean = (TYPE)total;                                                                       \
    for (int64_t i = 0; i < s->n; i++) dx[i] = y[i] * (dy[i] - mean);                              \
  }                                                                                                \
  TARGET static void log_softmax_backward_##NAME(const void *argument, void *const *line,          \
                                                 void *scratch) {                                  \
    const lt_softmax_line *s = argument;                                                           \
    const TYPE *dy = line[0], *y = line[1];                                                        \
    TYPE *dx = line[2];                                                                            \
    double total = 0;                                                                              \
    (void)scratch;                                                                                 \
    ADD_UP(total, s->n, GRADIENT);                                                                 \
    TYPE sum = (TYPE)total;                                                                        \
    for (int64_t i = 0; i < s->n; i++) dx[i] = dy[i] - EXP(y[i]) * sum;                            \
  }

#define EXPONENTIAL(i) e[i]
#define PRODUCT(i) dy[i] * (double)y[i]
#define GRADIENT(i) dy[i]

LINES(f32, , float)
LINES(f64, , double)
LINES(f32_avx2, LT_TARGET_AVX2, float)
LINES(f64_avx2, LT_TARGET_AVX2, double)
LINES(f32_avx512, LT_TARGET_AVX512, float)
LINES(f64_avx512, LT_TARGET_AVX512, double)

#define TABLE(NAME)                                                                                \
  {                                                                                                \
    {NAME##_f32, NAME##_f64}, {NAME##_f32_avx2, NAME##_f64_avx2}, {                                \
      NAME##_f32_avx512, NAME##_f64_avx512                                                         \
    }                                                                                              \
  }

lt_line_fn *const lt_softmax_lines[LT_SIMD_COUNT][2] = TABLE(softmax);
lt_line_fn *const lt_log_softmax_lines[LT_SIMD_COUNT][2] = TABLE(log_softmax);
lt_line_fn *const lt_softmax_backward_lines[LT_SIMD_COUNT][2] = TABLE(softmax_backward);
lt_line_fn *const lt_log_softmax_backward_lines[LT_SIMD_COUNT][2] = TABLE(log_softmax_backward);
