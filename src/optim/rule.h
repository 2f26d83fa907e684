/* An update rule is described once, in one block: name, options, states, the loop over elements,
 * and the numbers of a step. The driver (optimizer.c), the Lua constructor with its checks and
 * the state_dict are derived from it. */
#ifndef LT_OPTIM_RULE_H
#define LT_OPTIM_RULE_H

#include "core/cpu.h"
#include "kernels/elementwise.h" /* LT_TARGET_*, K */
#include <math.h>
#include <stdint.h>

enum { LT_RULE_OPTIONS = 12, LT_RULE_WORDS = 16, LT_RULE_STATES = 3, LT_RULE_NUMBERS = 12 };

/* n elements of one variable: reads and writes p and the states a, b, c, reads g. k[0] multiplies
 * g. */
typedef void lt_step_tile(int64_t n, void *restrict p, const void *restrict g, void *restrict a,
                          void *restrict b, void *restrict c, const double *restrict k);

/* One form of the loop, for each level of SIMD and float32, float64. */
typedef struct lt_step {
  int states; /* how many of the rule's states it keeps, from the first */
  lt_step_tile *tile[LT_SIMD_COUNT][2];
} lt_step;

typedef enum lt_rule_kind {
  LT_RULE_NUMBER, /* low <= x < high */
  LT_RULE_PAIR,   /* two of them, in a table */
  LT_RULE_FLAG    /* true or false */
} lt_rule_kind;

typedef struct lt_rule_option {
  const char *name;
  lt_rule_kind kind;
  double value[2]; /* PyTorch's default */
  double keras[2]; /* the default under keras = true */
  double low, high;
} lt_rule_option;

typedef struct lt_rule {
  const char *name;
  const char *doc;
  lt_rule_option options[LT_RULE_OPTIONS]; /* the first is lr */
  const char *states[LT_RULE_STATES + 1];  /* PyTorch's names */
  /* What follows sees an option list as numbers in the order of `options`, a pair as two. */
  const lt_step *(*step)(const double *o);
  /* The factors of a variable's step number t = 1, 2, ..., in double. */
  void (*prepare)(const double *o, double t, double *k);
  /* Changes the factors so that the states stay and p moves as in the step that made them; NULL
   * for rules without states. */
  void (*hold)(double *k);
  /* What the elements of the first state are before the first step; NULL for 0. */
  double (*start)(const double *o);
  /* What is wrong with the options together; NULL for nothing. */
  const char *(*check)(const double *o);
} lt_rule;

/* All rules; NULL ends the list. */
extern const lt_rule *const lt_rules[];

/* ---- Loops -------------------------------------------------------------------------------- */

/* The body sees element i of p[], g[] and the states a[], b[], c[]; factors as K(number), the type
 * as T, the root as ROOT(x). */
#define ROOT(x) ((T)(sizeof(T) == sizeof(float) ? (double)sqrtf((float)(x)) : sqrt((double)(x))))
#define LT_STEP_TILE(NAME, TARGET, TYPE, ...)                                                      \
  TARGET static void NAME(int64_t n, void *restrict lt_p, const void *restrict lt_g,               \
                          void *restrict lt_a, void *restrict lt_b, void *restrict lt_c,           \
                          const double *restrict k) {                                              \
    typedef TYPE T;                                                                                \
    T *p = lt_p, *a = lt_a, *b = lt_b, *c = lt_c;                                                  \
    const T *g = lt_g;                                                                             \
    (void)a, (void)b, (void)c;                                                                     \
    for (int64_t i = 0; i < n; i++) __VA_ARGS__                                                    \
  }
#define LT_STEP(NAME, STATES, ...)                                                                 \
  LT_STEP_TILE(NAME##_f32, , float, __VA_ARGS__)                                                   \
  LT_STEP_TILE(NAME##_f64, , double, __VA_ARGS__)                                                  \
  LT_STEP_TILE(NAME##_f32_avx2, LT_TARGET_AVX2, float, __VA_ARGS__)                                \
  LT_STEP_TILE(NAME##_f64_avx2, LT_TARGET_AVX2, double, __VA_ARGS__)                               \
  LT_STEP_TILE(NAME##_f32_avx512, LT_TARGET_AVX512, float, __VA_ARGS__)                            \
  LT_STEP_TILE(NAME##_f64_avx512, LT_TARGET_AVX512, double, __VA_ARGS__)                           \
  static const lt_step NAME = {STATES,                                                             \
                               {{NAME##_f32, NAME##_f64},                                          \
                                {NAME##_f32_avx2, NAME##_f64_avx2},                                \
                                {NAME##_f32_avx512, NAME##_f64_avx512}}};

#endif
