/* Computing element by element. An op gives one expression; the macros below make of it one loop
 * for each element type and each level of SIMD, over short contiguous tiles. The driver finds
 * the tiles: it broadcasts, gathers strided operands, converts types, splits among threads. */
#ifndef LT_KERNELS_ELEMENTWISE_H
#define LT_KERNELS_ELEMENTWISE_H

#include "core/cpu.h"
#include "core/tensor.h"

/* p[0] is the result, p[1].. the operands, n contiguous elements each; k the options, 8 of
 * them (LT_MAX_OPTIONS). */
typedef void lt_tile(int64_t n, void *const *p, const double *k);

typedef struct lt_kernel {
  lt_tile *tile[LT_SIMD_COUNT][LT_DTYPE_COUNT]; /* by the type computed in; NULL: not for it */
} lt_kernel;

enum { LT_TILE_INPUTS = 4 };

/* Runs a tile over all elements of y (contiguous) and of the inputs, which broadcast to y's shape
 * and reach the tile converted to the types as[]. */
lt_status lt_tiles(lt_tile *tile, const lt_tensor *y, int inputs, lt_tensor *const *in,
                   const lt_dtype *as, const double *k);

#if defined(__x86_64__) && defined(__GNUC__)
#  define LT_TARGET_AVX2 __attribute__((target("avx2,fma")))
#  define LT_TARGET_AVX512 __attribute__((target("avx2,fma,avx512f,avx512dq,avx512bw,avx512vl")))
#else
#  define LT_TARGET_AVX2
#  define LT_TARGET_AVX512
#endif

/* Option number i inside an expression. All are read before the loop: a load in one arm of a
 * condition would keep the loop from being vectorised. */
#define K(i) ((T)k[i])
#define LT_HOLD_OPTIONS                                                                            \
  const double k[] = {lt_k[0], lt_k[1], lt_k[2], lt_k[3], lt_k[4], lt_k[5], lt_k[6], lt_k[7]};     \
  (void)k;

/* One tile function. T is the operands' type, R the result's; the expression sees operands under
 * the names given, options as K(i), and the type as T. */
#define LT_TILE_OF_1(NAME, TARGET, TYPE, RESULT, A, ...)                                           \
  TARGET static void NAME(int64_t n, void *const *p, const double *lt_k) {                         \
    typedef TYPE T;                                                                                \
    RESULT *restrict lt_y = p[0];                                                                  \
    const T *lt_a = p[1];                                                                          \
    LT_HOLD_OPTIONS                                                                                \
    for (int64_t lt_i = 0; lt_i < n; lt_i++) {                                                     \
      const T A = lt_a[lt_i];                                                                      \
      lt_y[lt_i] = (RESULT)(__VA_ARGS__);                                                          \
    }                                                                                              \
  }
#define LT_TILE_OF_2(NAME, TARGET, TYPE, RESULT, A, B, ...)                                        \
  TARGET static void NAME(int64_t n, void *const *p, const double *lt_k) {                         \
    typedef TYPE T;                                                                                \
    RESULT *restrict lt_y = p[0];                                                                  \
    const T *lt_a = p[1], *lt_b = p[2];                                                            \
    LT_HOLD_OPTIONS                                                                                \
    for (int64_t lt_i = 0; lt_i < n; lt_i++) {                                                     \
      const T A = lt_a[lt_i], B = lt_b[lt_i];                                                      \
      lt_y[lt_i] = (RESULT)(__VA_ARGS__);                                                          \
    }                                                                                              \
  }
#define LT_TILE_OF_3(NAME, TARGET, TYPE, RESULT, A, B, C, ...)                                     \
  TARGET static void NAME(int64_t n, void *const *p, const double *lt_k) {                         \
    typedef TYPE T;                                                                                \
    RESULT *restrict lt_y = p[0];                                                                  \
    const T *lt_a = p[1], *lt_b = p[2], *lt_c = p[3];                                              \
    LT_HOLD_OPTIONS                                                                                \
    for (int64_t lt_i = 0; lt_i < n; lt_i++) {                                                     \
      const T A = lt_a[lt_i], B = lt_b[lt_i], C = lt_c[lt_i];                                      \
      lt_y[lt_i] = (RESULT)(__VA_ARGS__);                                                          \
    }                                                                                              \
  }

/* Floats, for every level of SIMD. */
#define LT_FLOAT_TILES(OF, NAME, ...)                                                              \
  OF(NAME##_f32, , float, float, __VA_ARGS__)                                                      \
  OF(NAME##_f64, , double, double, __VA_ARGS__)                                                    \
  OF(NAME##_f32_avx2, LT_TARGET_AVX2, float, float, __VA_ARGS__)                                   \
  OF(NAME##_f64_avx2, LT_TARGET_AVX2, double, double, __VA_ARGS__)                                 \
  OF(NAME##_f32_avx512, LT_TARGET_AVX512, float, float, __VA_ARGS__)                               \
  OF(NAME##_f64_avx512, LT_TARGET_AVX512, double, double, __VA_ARGS__)

/* LT_KERNEL_1(tanh, x, TANH(x)) defines tanh_kernel for float32 and float64. */
#define LT_KERNEL_OF(OF, NAME, ...)                                                                \
  LT_FLOAT_TILES(OF, NAME, __VA_ARGS__)                                                            \
  static const lt_kernel NAME##_kernel = {{{NAME##_f32, NAME##_f64},                               \
                                           {NAME##_f32_avx2, NAME##_f64_avx2},                     \
                                           {NAME##_f32_avx512, NAME##_f64_avx512}}};
#define LT_KERNEL_1(NAME, ...) LT_KERNEL_OF(LT_TILE_OF_1, NAME, __VA_ARGS__)
#define LT_KERNEL_2(NAME, ...) LT_KERNEL_OF(LT_TILE_OF_2, NAME, __VA_ARGS__)
#define LT_KERNEL_3(NAME, ...) LT_KERNEL_OF(LT_TILE_OF_3, NAME, __VA_ARGS__)

/* The same built once, for expressions that no SIMD level makes faster (calls of libm). */
#define LT_PLAIN_KERNEL_OF(OF, NAME, ...)                                                          \
  OF(NAME##_f32, , float, float, __VA_ARGS__)                                                      \
  OF(NAME##_f64, , double, double, __VA_ARGS__)                                                    \
  static const lt_kernel NAME##_kernel = {                                                         \
      {{NAME##_f32, NAME##_f64}, {NAME##_f32, NAME##_f64}, {NAME##_f32, NAME##_f64}}};
#define LT_PLAIN_KERNEL_1(NAME, ...) LT_PLAIN_KERNEL_OF(LT_TILE_OF_1, NAME, __VA_ARGS__)
#define LT_PLAIN_KERNEL_2(NAME, ...) LT_PLAIN_KERNEL_OF(LT_TILE_OF_2, NAME, __VA_ARGS__)
#define LT_PLAIN_KERNEL_3(NAME, ...) LT_PLAIN_KERNEL_OF(LT_TILE_OF_3, NAME, __VA_ARGS__)

/* Floats as above, and the integer types; bool is computed as uint8. */
#define LT_NUMBER_KERNEL_OF(OF, NAME, ...)                                                         \
  LT_FLOAT_TILES(OF, NAME, __VA_ARGS__)                                                            \
  OF(NAME##_i64, , int64_t, int64_t, __VA_ARGS__)                                                  \
  OF(NAME##_i32, , int32_t, int32_t, __VA_ARGS__)                                                  \
  OF(NAME##_u8, , uint8_t, uint8_t, __VA_ARGS__)                                                   \
  static const lt_kernel NAME##_kernel = {                                                         \
      {{NAME##_f32, NAME##_f64, NAME##_i64, NAME##_i32, NAME##_u8, NAME##_u8},                     \
       {NAME##_f32_avx2, NAME##_f64_avx2, NAME##_i64, NAME##_i32, NAME##_u8, NAME##_u8},           \
       {NAME##_f32_avx512, NAME##_f64_avx512, NAME##_i64, NAME##_i32, NAME##_u8, NAME##_u8}}};
#define LT_NUMBER_KERNEL_1(NAME, ...) LT_NUMBER_KERNEL_OF(LT_TILE_OF_1, NAME, __VA_ARGS__)
#define LT_NUMBER_KERNEL_2(NAME, ...) LT_NUMBER_KERNEL_OF(LT_TILE_OF_2, NAME, __VA_ARGS__)
#define LT_NUMBER_KERNEL_3(NAME, ...) LT_NUMBER_KERNEL_OF(LT_TILE_OF_3, NAME, __VA_ARGS__)

/* Any type in, bool (uint8 of 0 or 1) out. */
#define LT_PREDICATE_OF(OF, NAME, ...)                                                             \
  OF(NAME##_f32, , float, uint8_t, __VA_ARGS__)                                                    \
  OF(NAME##_f64, , double, uint8_t, __VA_ARGS__)                                                   \
  OF(NAME##_i64, , int64_t, uint8_t, __VA_ARGS__)                                                  \
  OF(NAME##_i32, , int32_t, uint8_t, __VA_ARGS__)                                                  \
  OF(NAME##_u8, , uint8_t, uint8_t, __VA_ARGS__)                                                   \
  static const lt_kernel NAME##_kernel = {                                                         \
      {{NAME##_f32, NAME##_f64, NAME##_i64, NAME##_i32, NAME##_u8, NAME##_u8},                     \
       {NAME##_f32, NAME##_f64, NAME##_i64, NAME##_i32, NAME##_u8, NAME##_u8},                     \
       {NAME##_f32, NAME##_f64, NAME##_i64, NAME##_i32, NAME##_u8, NAME##_u8}}};
#define LT_PREDICATE_1(NAME, ...) LT_PREDICATE_OF(LT_TILE_OF_1, NAME, __VA_ARGS__)
#define LT_PREDICATE_2(NAME, ...) LT_PREDICATE_OF(LT_TILE_OF_2, NAME, __VA_ARGS__)

#endif
