/* The folds: what is done to each element, for every element type and level of SIMD. Rows run in
 * a fixed number of lanes, so that their bits do not depend on the width of the registers. */
#include "kernels/elementwise.h"
#include "kernels/math.h"
#include "kernels/reduce.h"

enum { LANES = 32, SMALL = 512 };

/* ---- Folds of one cell ------------------------------------------------------------------- */

/* T is the element's type, A the state's. STEP(a, x) takes an element in, MERGE(a, b) a state. */
#define ROW(NAME, TARGET, TYPE, STATE, START, STEP, MERGE)                                         \
  TARGET static void NAME##_row(int64_t n, const void *from, int64_t at, lt_cell *state,           \
                                const double *k) {                                                 \
    typedef STATE A;                                                                               \
    const TYPE *x = from;                                                                          \
    A lane[LANES], *result = (A *)(void *)state;                                                   \
    int64_t i = 0;                                                                                 \
    (void)at, (void)k;                                                                             \
    if (n < LANES) {                                                                               \
      A two = START;                                                                               \
      for (; i + 2 <= n; i += 2) {                                                                 \
        *result = STEP(*result, x[i]);                                                             \
        two = STEP(two, x[i + 1]);                                                                 \
      }                                                                                            \
      if (i < n) *result = STEP(*result, x[i]);                                                    \
      *result = MERGE(*result, two);                                                               \
      return;                                                                                      \
    }                                                                                              \
    for (int l = 0; l < LANES; l++) lane[l] = START;                                               \
    for (; i + LANES <= n; i += LANES) {                                                           \
      for (int l = 0; l < LANES; l++) lane[l] = STEP(lane[l], x[i + l]);                           \
    }                                                                                              \
    for (int l = 0; i + l < n; l++) lane[l] = STEP(lane[l], x[i + l]);                             \
    for (int half = LANES / 2; half > 0; half /= 2) {                                              \
      for (int l = 0; l < half; l++) lane[l] = MERGE(lane[l], lane[l + half]);                     \
    }                                                                                              \
    *result = MERGE(*result, lane[0]);                                                             \
  }

#define COLUMNS(NAME, TARGET, TYPE, STATE, START, STEP, MERGE)                                     \
  TARGET static void NAME##_columns(int64_t n, int64_t rows, const void *from, int64_t stride,     \
                                    int64_t at, lt_cell *state, const double *k) {                 \
    typedef STATE A;                                                                               \
    A *restrict a = (A *)(void *)state;                                                            \
    const TYPE *x = from;                                                                          \
    (void)at, (void)k;                                                                             \
    for (; rows >= 4; rows -= 4, x += 4 * stride) {                                                \
      const TYPE *x1 = x + stride, *x2 = x1 + stride, *x3 = x2 + stride;                           \
      for (int64_t j = 0; j < n; j++) {                                                            \
        A two = STEP(a[j], x[j]);                                                                  \
        two = STEP(two, x1[j]);                                                                    \
        two = STEP(two, x2[j]);                                                                    \
        a[j] = STEP(two, x3[j]);                                                                   \
      }                                                                                            \
    }                                                                                              \
    for (; rows > 0; rows--, x += stride) {                                                        \
      for (int64_t j = 0; j < n; j++) a[j] = STEP(a[j], x[j]);                                     \
    }                                                                                              \
  }

#define MERGE_CELLS(NAME, STATE, MERGE)                                                            \
  static void NAME(int64_t n, lt_cell *to, const lt_cell *from) {                                  \
    typedef STATE A;                                                                               \
    A *a = (A *)(void *)to;                                                                        \
    const A *b = (const A *)(const void *)from;                                                    \
    for (int64_t j = 0; j < n; j++) a[j] = MERGE(a[j], b[j]);                                      \
  }

#define BOTH(NAME, ...) ROW(NAME, __VA_ARGS__) COLUMNS(NAME, __VA_ARGS__)

#define FLOATS_OF(OF, NAME, ...)                                                                   \
  OF(NAME##_f32, , float, __VA_ARGS__)                                                             \
  OF(NAME##_f64, , double, __VA_ARGS__)                                                            \
  OF(NAME##_f32_avx2, LT_TARGET_AVX2, float, __VA_ARGS__)                                          \
  OF(NAME##_f64_avx2, LT_TARGET_AVX2, double, __VA_ARGS__)                                         \
  OF(NAME##_f32_avx512, LT_TARGET_AVX512, float, __VA_ARGS__)                                      \
  OF(NAME##_f64_avx512, LT_TARGET_AVX512, double, __VA_ARGS__)
#define FLOATS(NAME, ...) FLOATS_OF(BOTH, NAME, __VA_ARGS__)
#define INTEGERS(NAME, ...)                                                                        \
  BOTH(NAME##_i64, , int64_t, __VA_ARGS__)                                                         \
  BOTH(NAME##_i32, , int32_t, __VA_ARGS__)                                                         \
  BOTH(NAME##_u8, , uint8_t, __VA_ARGS__)

#define TABLE_FLOAT(NAME, KIND)                                                                    \
  {                                                                                                \
    {NAME##_f32_##KIND, NAME##_f64_##KIND}, {NAME##_f32_avx2_##KIND, NAME##_f64_avx2_##KIND}, {    \
      NAME##_f32_avx512_##KIND, NAME##_f64_avx512_##KIND                                           \
    }                                                                                              \
  }
#define TABLE(NAME, KIND)                                                                          \
  {                                                                                                \
    {NAME##_f32_##KIND, NAME##_f64_##KIND, NAME##_i64_##KIND,                                      \
     NAME##_i32_##KIND, NAME##_u8_##KIND,  NAME##_u8_##KIND},                                      \
        {NAME##_f32_avx2_##KIND, NAME##_f64_avx2_##KIND, NAME##_i64_##KIND,                        \
         NAME##_i32_##KIND,      NAME##_u8_##KIND,       NAME##_u8_##KIND},                        \
    {                                                                                              \
      NAME##_f32_avx512_##KIND, NAME##_f64_avx512_##KIND, NAME##_i64_##KIND, NAME##_i32_##KIND,    \
          NAME##_u8_##KIND, NAME##_u8_##KIND                                                       \
    }                                                                                              \
  }

/* ---- sum, mean, prod --------------------------------------------------------------------- */

#define ADD(a, b) ((a) + (b))
#define SUM(a, x) ((a) + (A)(x))
FLOATS(sum, double, 0, SUM, ADD)
INTEGERS(sum, int64_t, 0, SUM, ADD)
MERGE_CELLS(add_floats, double, ADD)
MERGE_CELLS(add_ints, int64_t, ADD)

const lt_fold lt_fold_sum = {
    .planes = 1,
    .row = TABLE(sum, row),
    .columns = TABLE(sum, columns),
    .merge_float = add_floats,
    .merge_int = add_ints,
};

static void divide(int64_t n, lt_cell *state, int64_t count, const double *k) {
  (void)k;
  for (int64_t j = 0; j < n; j++) state[j].f /= (double)count;
}

const lt_fold lt_fold_mean = {
    .planes = 1,
    .row = TABLE_FLOAT(sum, row),
    .columns = TABLE_FLOAT(sum, columns),
    .merge_float = add_floats,
    .finish = divide,
};

#define MULTIPLY(a, b) ((a) * (b))
#define PRODUCT(a, x) ((a) * (A)(x))
FLOATS(prod, double, 1, PRODUCT, MULTIPLY)
INTEGERS(prod, int64_t, 1, PRODUCT, MULTIPLY)
MERGE_CELLS(multiply_floats, double, MULTIPLY)
MERGE_CELLS(multiply_ints, int64_t, MULTIPLY)

const lt_fold lt_fold_prod = {
    .planes = 1,
    .start_float = {{.f = 1}},
    .start_int = {{.i = 1}},
    .row = TABLE(prod, row),
    .columns = TABLE(prod, columns),
    .merge_float = multiply_floats,
    .merge_int = multiply_ints,
};

/* ---- count, any, all --------------------------------------------------------------------- */

#define COUNT(a, x) ((a) + ((x) != 0))
FLOATS(count, int64_t, 0, COUNT, ADD)
INTEGERS(count, int64_t, 0, COUNT, ADD)

const lt_fold lt_fold_count = {
    .planes = 1,
    .row = TABLE(count, row),
    .columns = TABLE(count, columns),
    .merge_float = add_ints,
    .merge_int = add_ints,
};

static void is_some(int64_t n, lt_cell *state, int64_t count, const double *k) {
  (void)count, (void)k;
  for (int64_t j = 0; j < n; j++) state[j].i = state[j].i > 0;
}
static void is_every(int64_t n, lt_cell *state, int64_t count, const double *k) {
  (void)k;
  for (int64_t j = 0; j < n; j++) state[j].i = state[j].i == count;
}

const lt_fold lt_fold_any = {
    .planes = 1,
    .row = TABLE(count, row),
    .columns = TABLE(count, columns),
    .merge_float = add_ints,
    .merge_int = add_ints,
    .finish = is_some,
};

const lt_fold lt_fold_all = {
    .planes = 1,
    .row = TABLE(count, row),
    .columns = TABLE(count, columns),
    .merge_float = add_ints,
    .merge_int = add_ints,
    .finish = is_every,
};

/* ---- Extremes: NaN wins, and stays ------------------------------------------------------- */

#define IS_NAN(x) ((x) != (x))
#define LARGER(a, x) ((A)(x) > (a) || IS_NAN((A)(x)) ? (A)(x) : (a))
#define SMALLER(a, x) ((A)(x) < (a) || IS_NAN((A)(x)) ? (A)(x) : (a))
#define LARGER_INT(a, x) ((A)(x) > (a) ? (A)(x) : (a))
#define SMALLER_INT(a, x) ((A)(x) < (a) ? (A)(x) : (a))

FLOATS(amax, double, -INFINITY, LARGER, LARGER)
INTEGERS(amax, int64_t, INT64_MIN, LARGER_INT, LARGER_INT)
MERGE_CELLS(larger_floats, double, LARGER)
MERGE_CELLS(larger_ints, int64_t, LARGER_INT)
FLOATS(amin, double, INFINITY, SMALLER, SMALLER)
INTEGERS(amin, int64_t, INT64_MAX, SMALLER_INT, SMALLER_INT)
MERGE_CELLS(smaller_floats, double, SMALLER)
MERGE_CELLS(smaller_ints, int64_t, SMALLER_INT)

const lt_fold lt_fold_amax = {
    .planes = 1,
    .start_float = {{.f = -INFINITY}},
    .start_int = {{.i = INT64_MIN}},
    .row = TABLE(amax, row),
    .columns = TABLE(amax, columns),
    .merge_float = larger_floats,
    .merge_int = larger_ints,
};

const lt_fold lt_fold_amin = {
    .planes = 1,
    .start_float = {{.f = INFINITY}},
    .start_int = {{.i = INT64_MAX}},
    .row = TABLE(amin, row),
    .columns = TABLE(amin, columns),
    .merge_float = smaller_floats,
    .merge_int = smaller_ints,
};

/* ---- Extremes with their place: a cell for the value, one for the place (0: none yet) ------ */

#define NEVER(x) 0
#define PLACED(NAME, TARGET, TYPE, EXTREME, STATE, BEYOND, NAN_TEST)                               \
  TARGET static void NAME##_row(int64_t n, const void *from, int64_t at, lt_cell *state,           \
                                const double *k) {                                                 \
    STATE *value = (STATE *)(void *)state;                                                         \
    const TYPE *x = from;                                                                          \
    for (int64_t i = 0; i < n; i += SMALL) {                                                       \
      int64_t m = n - i < SMALL ? n - i : SMALL, j = i;                                            \
      lt_cell cell = state[0];                                                                     \
      STATE *best = (STATE *)(void *)&cell;                                                        \
      if (state[1].i == 0) *best = x[i];                                                           \
      EXTREME##_row(m, x + i, at, &cell, k);                                                       \
      if (NAN_TEST(*value) || (state[1].i > 0 && *best == *value)) continue;                       \
      if (NAN_TEST(*best))                                                                         \
        while (!NAN_TEST(x[j])) j++;                                                               \
      else                                                                                         \
        while (x[j] != *best) j++;                                                                 \
      state[0] = cell;                                                                             \
      state[1].i = at + j + 1;                                                                     \
    }                                                                                              \
  }                                                                                                \
  TARGET static void NAME##_columns(int64_t n, int64_t rows, const void *from, int64_t stride,     \
                                    int64_t at, lt_cell *state, const double *k) {                 \
    STATE *restrict value = (STATE *)(void *)state;                                                \
    int64_t *restrict place = &state[n].i;                                                         \
    const TYPE *x = from;                                                                          \
    (void)k;                                                                                       \
    for (int64_t r = 0; r < rows; r++, x += stride) {                                              \
      for (int64_t j = 0; j < n; j++) {                                                            \
        STATE here = x[j], best = value[j];                                                        \
        bool takes = (here BEYOND best) | (place[j] == 0) | (NAN_TEST(here) & !NAN_TEST(best));    \
        value[j] = takes ? here : best;                                                            \
        place[j] = takes ? at + r + 1 : place[j];                                                  \
      }                                                                                            \
    }                                                                                              \
  }

#define PLACED_MERGE(NAME, MEMBER, BEYOND, NAN_TEST)                                               \
  static void NAME(int64_t n, lt_cell *a, const lt_cell *b) {                                      \
    for (int64_t j = 0; j < n; j++) {                                                              \
      if (b[j].MEMBER BEYOND a[j].MEMBER || (NAN_TEST(b[j].MEMBER) && !NAN_TEST(a[j].MEMBER))) {   \
        a[j] = b[j];                                                                               \
        a[n + j] = b[n + j];                                                                       \
      }                                                                                            \
    }                                                                                              \
  }

#define PLACED_FLOAT(NAME, EXTREME, BEYOND, LEVEL, TARGET)                                         \
  PLACED(NAME##_f32##LEVEL, TARGET, float, EXTREME##_f32##LEVEL, double, BEYOND, IS_NAN)           \
  PLACED(NAME##_f64##LEVEL, TARGET, double, EXTREME##_f64##LEVEL, double, BEYOND, IS_NAN)
#define PLACED_ALL(NAME, EXTREME, BEYOND)                                                          \
  PLACED_FLOAT(NAME, EXTREME, BEYOND, , )                                                          \
  PLACED_FLOAT(NAME, EXTREME, BEYOND, _avx2, LT_TARGET_AVX2)                                       \
  PLACED_FLOAT(NAME, EXTREME, BEYOND, _avx512, LT_TARGET_AVX512)                                   \
  PLACED(NAME##_i64, , int64_t, EXTREME##_i64, int64_t, BEYOND, NEVER)                             \
  PLACED(NAME##_i32, , int32_t, EXTREME##_i32, int64_t, BEYOND, NEVER)                             \
  PLACED(NAME##_u8, , uint8_t, EXTREME##_u8, int64_t, BEYOND, NEVER)                               \
  PLACED_MERGE(NAME##_floats, f, BEYOND, IS_NAN)                                                   \
  PLACED_MERGE(NAME##_ints, i, BEYOND, NEVER)

PLACED_ALL(max, amax, >)
PLACED_ALL(min, amin, <)

static void only_place(int64_t n, lt_cell *state, int64_t count, const double *k) {
  (void)count, (void)k;
  for (int64_t j = 0; j < n; j++) state[j] = state[n + j];
}

#define PLACED_FOLD(NAME, FINISH)                                                                  \
  {                                                                                                \
    .planes = 2, .ordered = true, .row = TABLE(NAME, row), .columns = TABLE(NAME, columns),        \
    .merge_float = NAME##_floats, .merge_int = NAME##_ints, .finish = FINISH                       \
  }

const lt_fold lt_fold_max = PLACED_FOLD(max, NULL);
const lt_fold lt_fold_min = PLACED_FOLD(min, NULL);
const lt_fold lt_fold_argmax = PLACED_FOLD(max, only_place);
const lt_fold lt_fold_argmin = PLACED_FOLD(min, only_place);

/* ---- Variance: count, mean and sum of squared deviations ---------------------------------- */

/* Welford's update by columns, Chan, Golub and LeVeque's pairwise merge between tiles (The
 * American Statistician 37, 1983). */
static void merge_var(int64_t n, lt_cell *a, const lt_cell *b) {
  for (int64_t j = 0; j < n; j++) {
    double na = a[j].f, nb = b[j].f, all = na + nb, apart = b[n + j].f - a[n + j].f;
    if (nb == 0) continue;
    a[j].f = all;
    a[n + j].f = na == 0 ? b[n + j].f : a[n + j].f + apart * (nb / all);
    a[2 * n + j].f += b[2 * n + j].f + (na == 0 ? 0 : apart * apart * (na * nb / all));
  }
}

#define DEVIATION(a, x) ((a) + ((A)(x)-k[0]) * ((A)(x)-k[0]))
FLOATS_OF(ROW, deviation, double, 0, DEVIATION, ADD)

#define VAR(NAME, TARGET, TYPE, LEVEL)                                                             \
  TARGET static void NAME##_row(int64_t n, const void *from, int64_t at, lt_cell *state,           \
                                const double *k) {                                                 \
    const TYPE *x = from;                                                                          \
    (void)k;                                                                                       \
    for (int64_t i = 0; i < n; i += SMALL) {                                                       \
      int64_t m = n - i < SMALL ? n - i : SMALL;                                                   \
      lt_cell tile[3] = {{.f = (double)m}, {.f = 0}, {.f = 0}};                                    \
      sum_##LEVEL##_row(m, x + i, at, &tile[1], NULL);                                             \
      tile[1].f /= (double)m;                                                                      \
      deviation_##LEVEL##_row(m, x + i, at, &tile[2], &tile[1].f);                                 \
      merge_var(1, state, tile);                                                                   \
    }                                                                                              \
  }                                                                                                \
  TARGET static void NAME##_columns(int64_t n, int64_t rows, const void *from, int64_t stride,     \
                                    int64_t at, lt_cell *state, const double *k) {                 \
    const TYPE *x = from;                                                                          \
    double *restrict mean = &state[n].f, *restrict square = &state[2 * n].f;                       \
    (void)at, (void)k;                                                                             \
    for (int64_t r = 0; r < rows; r++, x += stride) {                                              \
      double share = 1 / (state[0].f + (double)r + 1);                                             \
      for (int64_t j = 0; j < n; j++) {                                                            \
        double before = (double)x[j] - mean[j];                                                    \
        mean[j] += before * share;                                                                 \
        square[j] += before * ((double)x[j] - mean[j]);                                            \
      }                                                                                            \
    }                                                                                              \
    for (int64_t j = 0; j < n; j++) state[j].f += (double)rows;                                    \
  }

VAR(var_f32, , float, f32)
VAR(var_f64, , double, f64)
VAR(var_f32_avx2, LT_TARGET_AVX2, float, f32_avx2)
VAR(var_f64_avx2, LT_TARGET_AVX2, double, f64_avx2)
VAR(var_f32_avx512, LT_TARGET_AVX512, float, f32_avx512)
VAR(var_f64_avx512, LT_TARGET_AVX512, double, f64_avx512)

static void finish_var(int64_t n, lt_cell *state, int64_t count, const double *k) {
  double over = fmax((double)count - k[0], 0);
  for (int64_t j = 0; j < n; j++) state[j].f = state[2 * n + j].f / over;
}
static void finish_std(int64_t n, lt_cell *state, int64_t count, const double *k) {
  finish_var(n, state, count, k);
  for (int64_t j = 0; j < n; j++) state[j].f = sqrt(state[j].f);
}

const lt_fold lt_fold_var = {
    .planes = 3,
    .row = TABLE_FLOAT(var, row),
    .columns = TABLE_FLOAT(var, columns),
    .merge_float = merge_var,
    .finish = finish_var,
};

const lt_fold lt_fold_std = {
    .planes = 3,
    .row = TABLE_FLOAT(var, row),
    .columns = TABLE_FLOAT(var, columns),
    .merge_float = merge_var,
    .finish = finish_std,
};

/* ---- Norms ------------------------------------------------------------------------------- */

#define POWER(a, x) ((a) + pow(fabs((A)(x)), k[0]))
#define SQUARE(a, x) ((a) + (A)(x) * (A)(x))
#define ABSOLUTE(a, x) ((a) + fabs((A)(x)))
#define ABS_LARGER(a, x) LARGER(a, fabs((A)(x)))
#define ABS_SMALLER(a, x) SMALLER(a, fabs((A)(x)))
BOTH(power_f32, , float, double, 0, POWER, ADD)
BOTH(power_f64, , double, double, 0, POWER, ADD)
FLOATS(square, double, 0, SQUARE, ADD)
FLOATS(absolute, double, 0, ABSOLUTE, ADD)
FLOATS(abs_max, double, -INFINITY, ABS_LARGER, LARGER)
FLOATS(abs_min, double, INFINITY, ABS_SMALLER, SMALLER)

static void root(int64_t n, lt_cell *state, int64_t count, const double *k) {
  (void)count;
  for (int64_t j = 0; j < n; j++) state[j].f = pow(state[j].f, 1 / k[0]);
}
static void square_root(int64_t n, lt_cell *state, int64_t count, const double *k) {
  (void)count, (void)k;
  for (int64_t j = 0; j < n; j++) state[j].f = sqrt(state[j].f);
}

const lt_fold lt_fold_norm = {
    .planes = 1,
    .row = {{power_f32_row, power_f64_row},
            {power_f32_row, power_f64_row},
            {power_f32_row, power_f64_row}},
    .columns = {{power_f32_columns, power_f64_columns},
                {power_f32_columns, power_f64_columns},
                {power_f32_columns, power_f64_columns}},
    .merge_float = add_floats,
    .finish = root,
};

const lt_fold lt_fold_norm2 = {
    .planes = 1,
    .row = TABLE_FLOAT(square, row),
    .columns = TABLE_FLOAT(square, columns),
    .merge_float = add_floats,
    .finish = square_root,
};

const lt_fold lt_fold_norm1 = {
    .planes = 1,
    .row = TABLE_FLOAT(absolute, row),
    .columns = TABLE_FLOAT(absolute, columns),
    .merge_float = add_floats,
};

static void count_as_float(int64_t n, lt_cell *state, int64_t count, const double *k) {
  (void)count, (void)k;
  for (int64_t j = 0; j < n; j++) state[j].f = (double)state[j].i;
}

const lt_fold lt_fold_norm0 = {
    .planes = 1,
    .row = TABLE_FLOAT(count, row),
    .columns = TABLE_FLOAT(count, columns),
    .merge_float = add_ints,
    .finish = count_as_float,
};

const lt_fold lt_fold_abs_max = {
    .planes = 1,
    .start_float = {{.f = -INFINITY}},
    .row = TABLE_FLOAT(abs_max, row),
    .columns = TABLE_FLOAT(abs_max, columns),
    .merge_float = larger_floats,
};

const lt_fold lt_fold_abs_min = {
    .planes = 1,
    .start_float = {{.f = INFINITY}},
    .row = TABLE_FLOAT(abs_min, row),
    .columns = TABLE_FLOAT(abs_min, columns),
    .merge_float = smaller_floats,
};

/* ---- logsumexp: the maximum, and the sum of exp(x - maximum) ------------------------------- */

/* Where all is -inf, or +inf or NaN is among the elements, the maximum alone is the result. */
static double base_of(double maximum) { return isfinite(maximum) ? maximum : 0; }

/* Makes the sums, of exp(x - before), sums of exp(x - after). */
static void rebase(int64_t n, double *sum, const double *before, const double *after) {
  for (int64_t j = 0; j < n; j++) {
    if (sum[j] != 0 && before[j] != after[j]) sum[j] *= exp(before[j] - base_of(after[j]));
  }
}

#define LOGSUMEXP(NAME, TARGET, TYPE, LEVEL)                                                       \
  TARGET static void NAME##_row(int64_t n, const void *from, int64_t at, lt_cell *state,           \
                                const double *k) {                                                 \
    const TYPE *x = from;                                                                          \
    TYPE e[SMALL];                                                                                 \
    for (int64_t i = 0; i < n; i += SMALL) {                                                       \
      int64_t m = n - i < SMALL ? n - i : SMALL;                                                   \
      lt_cell most = state[0];                                                                     \
      amax_##LEVEL##_row(m, x + i, at, &most, k);                                                  \
      rebase(1, &state[1].f, &state[0].f, &most.f);                                                \
      state[0] = most;                                                                             \
      TYPE base = (TYPE)base_of(most.f);                                                           \
      for (int64_t j = 0; j < m; j++) e[j] = EXP(x[i + j] - base);                                 \
      sum_##LEVEL##_row(m, e, at, &state[1], k);                                                   \
    }                                                                                              \
  }                                                                                                \
  TARGET static void NAME##_columns(int64_t n, int64_t rows, const void *from, int64_t stride,     \
                                    int64_t at, lt_cell *state, const double *k) {                 \
    enum { ROWS = 16 };                                                                            \
    double *most = &state[0].f, *restrict sum = &state[n].f, before[SMALL];                        \
    TYPE base[SMALL];                                                                              \
    const TYPE *x = from;                                                                          \
    for (int64_t r = 0; r < rows; r += ROWS, x += ROWS * stride) {                                 \
      int64_t height = rows - r < ROWS ? rows - r : ROWS;                                          \
      for (int64_t first = 0; first < n; first += SMALL) {                                         \
        int64_t m = n - first < SMALL ? n - first : SMALL;                                         \
        for (int64_t j = 0; j < m; j++) before[j] = most[first + j];                               \
        amax_##LEVEL##_columns(m, height, x + first, stride, at, &state[first], k);                \
        rebase(m, sum + first, before, most + first);                                              \
        for (int64_t j = 0; j < m; j++) base[j] = (TYPE)base_of(most[first + j]);                  \
        for (int64_t i = 0; i < height; i++) {                                                     \
          const TYPE *row = x + first + i * stride;                                                \
          for (int64_t j = 0; j < m; j++) sum[first + j] += (double)EXP(row[j] - base[j]);         \
        }                                                                                          \
      }                                                                                            \
    }                                                                                              \
  }

LOGSUMEXP(logsumexp_f32, , float, f32)
LOGSUMEXP(logsumexp_f64, , double, f64)
LOGSUMEXP(logsumexp_f32_avx2, LT_TARGET_AVX2, float, f32_avx2)
LOGSUMEXP(logsumexp_f64_avx2, LT_TARGET_AVX2, double, f64_avx2)
LOGSUMEXP(logsumexp_f32_avx512, LT_TARGET_AVX512, float, f32_avx512)
LOGSUMEXP(logsumexp_f64_avx512, LT_TARGET_AVX512, double, f64_avx512)

static void merge_logsumexp(int64_t n, lt_cell *a, const lt_cell *b) {
  for (int64_t j = 0; j < n; j++) {
    double most = b[j].f > a[j].f || IS_NAN(b[j].f) ? b[j].f : a[j].f, more = b[n + j].f;
    rebase(1, &a[n + j].f, &a[j].f, &most);
    rebase(1, &more, &b[j].f, &most);
    a[j].f = most;
    a[n + j].f += more;
  }
}

static void finish_logsumexp(int64_t n, lt_cell *state, int64_t count, const double *k) {
  (void)count, (void)k;
  for (int64_t j = 0; j < n; j++) {
    if (isfinite(state[j].f)) state[j].f += log(state[n + j].f);
  }
}

const lt_fold lt_fold_logsumexp = {
    .planes = 2,
    .start_float = {{.f = -INFINITY}},
    .row = TABLE_FLOAT(logsumexp, row),
    .columns = TABLE_FLOAT(logsumexp, columns),
    .merge_float = merge_logsumexp,
    .finish = finish_logsumexp,
};
