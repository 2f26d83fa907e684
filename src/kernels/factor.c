/* Plain loops. Transposed and lower matrices are upper ones with other strides, so one routine of
 * each kind serves all. */
#include "kernels/factor.h"

#include <tgmath.h>

/* potrf: a = u^T u over the upper triangle of a, whose elements lie at i * row + j * column.
 * getrf: pivots are rows of the largest size in their column.
 * substitute: the triangular a x = b for `sides` right sides, from the first or the last row on.
 * exchange: the rows of b as getrf has exchanged them, or back. */
#define ROUTINES(T)                                                                                \
  static int64_t potrf_##T(int64_t n, T *a, int64_t row, int64_t column) {                         \
    for (int64_t j = 0; j < n; j++) {                                                              \
      T *own = a + j * column, square = own[j * row];                                              \
      for (int64_t i = 0; i < j; i++) {                                                            \
        const T *other = a + i * column;                                                           \
        T sum = own[i * row];                                                                      \
        for (int64_t k = 0; k < i; k++) sum -= other[k * row] * own[k * row];                      \
        own[i * row] = sum / other[i * row];                                                       \
        square -= own[i * row] * own[i * row];                                                     \
      }                                                                                            \
      if (!(square > 0)) return j + 1;                                                             \
      own[j * row] = sqrt(square);                                                                 \
    }                                                                                              \
    return 0;                                                                                      \
  }                                                                                                \
  static int64_t getrf_##T(int64_t n, T *a, int32_t *pivots) {                                     \
    int64_t zero = 0;                                                                              \
    for (int64_t k = 0; k < n; k++) {                                                              \
      T *own = a + k * n;                                                                          \
      int64_t p = k;                                                                               \
      for (int64_t i = k + 1; i < n; i++) {                                                        \
        if (fabs(own[i]) > fabs(own[p])) p = i;                                                    \
      }                                                                                            \
      pivots[k] = (int32_t)(p + 1);                                                                \
      if (own[p] == 0) {                                                                           \
        if (!zero) zero = k + 1;                                                                   \
        continue;                                                                                  \
      }                                                                                            \
      for (int64_t j = 0; p != k && j < n; j++) {                                                  \
        T t = a[j * n + k];                                                                        \
        a[j * n + k] = a[j * n + p];                                                               \
        a[j * n + p] = t;                                                                          \
      }                                                                                            \
      for (int64_t i = k + 1; i < n; i++) own[i] /= own[k];                                        \
      for (int64_t j = k + 1; j < n; j++) {                                                        \
        for (int64_t i = k + 1; i < n; i++) a[j * n + i] -= own[i] * a[j * n + k];                 \
      }                                                                                            \
    }                                                                                              \
    return zero;                                                                                   \
  }                                                                                                \
  static void substitute_##T(bool upper, bool unit, int64_t n, const T *a, int64_t row,            \
                             int64_t column, int64_t sides, T *b, int64_t b_row, int64_t b_side) { \
    for (int64_t s = 0; s < sides; s++) {                                                          \
      T *x = b + s * b_side;                                                                       \
      for (int64_t step = 0; step < n; step++) {                                                   \
        int64_t i = upper ? n - 1 - step : step, from = upper ? i + 1 : 0, to = upper ? n : i;     \
        T sum = x[i * b_row];                                                                      \
        for (int64_t k = from; k < to; k++) sum -= a[i * row + k * column] * x[k * b_row];         \
        x[i * b_row] = unit ? sum : sum / a[i * (row + column)];                                   \
      }                                                                                            \
    }                                                                                              \
  }                                                                                                \
  static void exchange_##T(bool back, int64_t n, const int32_t *pivots, int64_t sides, T *b) {     \
    for (int64_t step = 0; step < n; step++) {                                                     \
      int64_t i = back ? n - 1 - step : step, p = pivots[i] - 1;                                   \
      for (int64_t s = 0; p != i && s < sides; s++) {                                              \
        T t = b[s * n + i];                                                                        \
        b[s * n + i] = b[s * n + p];                                                               \
        b[s * n + p] = t;                                                                          \
      }                                                                                            \
    }                                                                                              \
  }                                                                                                \
  static void getrs_##T(bool transposed, int64_t n, int64_t sides, const T *lu,                    \
                        const int32_t *pivots, T *b) {                                             \
    if (transposed) {                                                                              \
      substitute_##T(false, false, n, lu, n, 1, sides, b, 1, n);                                   \
      substitute_##T(true, true, n, lu, n, 1, sides, b, 1, n);                                     \
      exchange_##T(true, n, pivots, sides, b);                                                     \
    } else {                                                                                       \
      exchange_##T(false, n, pivots, sides, b);                                                    \
      substitute_##T(false, true, n, lu, 1, n, sides, b, 1, n);                                    \
      substitute_##T(true, false, n, lu, 1, n, sides, b, 1, n);                                    \
    }                                                                                              \
  }
ROUTINES(float)
ROUTINES(double)

int64_t lt_small_potrf(lt_dtype type, bool upper, int64_t n, void *a) {
  int64_t row = upper ? 1 : n, column = upper ? n : 1;
  return type == LT_FLOAT64 ? potrf_double(n, a, row, column) : potrf_float(n, a, row, column);
}

int64_t lt_small_getrf(lt_dtype type, int64_t n, void *a, int32_t *pivots) {
  return type == LT_FLOAT64 ? getrf_double(n, a, pivots) : getrf_float(n, a, pivots);
}

void lt_small_getrs(lt_dtype type, bool transposed, int64_t n, int64_t columns, const void *lu,
                    const int32_t *pivots, void *b) {
  if (type == LT_FLOAT64)
    getrs_double(transposed, n, columns, lu, pivots, b);
  else
    getrs_float(transposed, n, columns, lu, pivots, b);
}

/* x a = b is a^T x^T = b^T. */
void lt_small_trsm(lt_dtype type, bool right, bool upper, bool unit, int64_t m, int64_t n,
                   const void *a, void *b) {
  int64_t size = right ? n : m, row = right ? n : 1, column = right ? 1 : m;
  int64_t sides = right ? m : n, b_row = right ? m : 1, b_side = right ? 1 : m;
  upper = upper != right;
  if (type == LT_FLOAT64)
    substitute_double(upper, unit, size, a, row, column, sides, b, b_row, b_side);
  else
    substitute_float(upper, unit, size, a, row, column, sides, b, b_row, b_side);
}
