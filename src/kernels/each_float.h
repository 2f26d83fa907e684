/* Includes BODY once for each float type and each level of SIMD. It writes its functions as
 * TARGET static void NAME(f)(...): f_f32_portable, ..., f_f64_avx512; LT_EACH_FLOAT(f) is the table
 * of them, by level and type. TYPE is the float, SAME_WIDTH an integer as wide. Needs
 * kernels/elementwise.h. */
#define PASTE(a, b, c) a##_##b##_##c
#define EXPAND(a, b, c) PASTE(a, b, c)
#define NAME(x) EXPAND(x, KIND, LEVEL)
#define INLINE static inline __attribute__((always_inline)) TARGET
#define LT_EACH_FLOAT(f)                                                                           \
  {                                                                                                \
    {f##_f32_portable, f##_f64_portable}, {f##_f32_avx2, f##_f64_avx2}, {                          \
      f##_f32_avx512, f##_f64_avx512                                                               \
    }                                                                                              \
  }

#define KIND f32
#define TYPE float
#define SAME_WIDTH int32_t
#define LEVEL portable
#define TARGET
#include BODY
#undef LEVEL
#undef TARGET
#define LEVEL avx2
#define TARGET LT_TARGET_AVX2
#include BODY
#undef LEVEL
#undef TARGET
#define LEVEL avx512
#define TARGET LT_TARGET_AVX512
#include BODY
#undef LEVEL
#undef TARGET
#undef KIND
#undef TYPE
#undef SAME_WIDTH

#define KIND f64
#define TYPE double
#define SAME_WIDTH int64_t
#define LEVEL portable
#define TARGET
#include BODY
#undef LEVEL
#undef TARGET
#define LEVEL avx2
#define TARGET LT_TARGET_AVX2
#include BODY
#undef LEVEL
#undef TARGET
#define LEVEL avx512
#define TARGET LT_TARGET_AVX512
#include BODY
#undef LEVEL
#undef TARGET
#undef KIND
#undef TYPE
#undef SAME_WIDTH
