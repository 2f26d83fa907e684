/* The gates of recurrent cells: one body (recurrent_body.h) is compiled for each element type and
 * instruction set. */
#include "kernels/recurrent.h"

#include "kernels/elementwise.h"
#include "kernels/math.h"

/* No unit of a step reads what another one writes. */
#if defined(__clang__)
/* loops that call libm stay as they are */
#  pragma clang diagnostic ignored "-Wpass-failed"
#  define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#  define INDEPENDENT _Pragma("GCC ivdep")
#endif
#define FOR_UNITS INDEPENDENT for (int64_t j = 0; j < w; j++)

#define TARGET
#define T float
#define NAME(x) x##_f32
#include "kernels/recurrent_body.h"

#define TARGET
#define T double
#define NAME(x) x##_f64
#include "kernels/recurrent_body.h"

#define TARGET LT_TARGET_AVX2
#define T float
#define NAME(x) x##_f32_avx2
#include "kernels/recurrent_body.h"

#define TARGET LT_TARGET_AVX2
#define T double
#define NAME(x) x##_f64_avx2
#include "kernels/recurrent_body.h"

#define TARGET LT_TARGET_AVX512
#define T float
#define NAME(x) x##_f32_avx512
#include "kernels/recurrent_body.h"

#define TARGET LT_TARGET_AVX512
#define T double
#define NAME(x) x##_f64_avx512
#include "kernels/recurrent_body.h"

lt_task *lt_recurrent_forward(lt_recurrent cell, lt_simd simd, lt_dtype dtype) {
  static lt_task *const *const by_level[LT_SIMD_COUNT][2] = {
      {forward_f32, forward_f64},
      {forward_f32_avx2, forward_f64_avx2},
      {forward_f32_avx512, forward_f64_avx512}};
  return by_level[simd][dtype == LT_FLOAT64][cell];
}

lt_task *lt_recurrent_backward(lt_recurrent cell, lt_simd simd, lt_dtype dtype) {
  static lt_task *const *const by_level[LT_SIMD_COUNT][2] = {
      {backward_f32, backward_f64},
      {backward_f32_avx2, backward_f64_avx2},
      {backward_f32_avx512, backward_f64_avx512}};
  return by_level[simd][dtype == LT_FLOAT64][cell];
}
