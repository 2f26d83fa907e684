/* One conversion loop per pair of types, made by two macros. */
#include "kernels/copy.h"
#include "kernels/loop.h"

#include <string.h>

#define FROM_SAME(x) (x)
#define TO_BOOL(x) ((x) != 0)
/* The comparisons are false for NaN; the bounds are exact in the float type. */
#define TO_INT64(x) ((x) >= 0x1p63 ? INT64_MAX : (x) >= -0x1p63 ? (int64_t)(x) : x_to_low(x))
#define TO_INT32(x) ((x) >= 0x1p31 ? INT32_MAX : (x) >= -0x1p31 ? (int32_t)(x) : x_to_low32(x))
#define TO_UINT8(x) ((x) >= 256 ? UINT8_MAX : (x) >= 0 ? (uint8_t)(x) : (uint8_t)0)

static inline int64_t x_to_low(double x) { return x < 0 ? INT64_MIN : 0; }
static inline int32_t x_to_low32(double x) { return x < 0 ? INT32_MIN : 0; }

#define CONVERT(NAME, TO, FROM, VALUE)                                                             \
  static void NAME(int64_t n, void *dst, int64_t ds, const void *src, int64_t ss) {                \
    TO *y = dst;                                                                                   \
    const FROM *x = src;                                                                           \
    if (ds == 1 && ss == 1) {                                                                      \
      for (int64_t i = 0; i < n; i++) y[i] = (TO)VALUE(x[i]);                                      \
    } else {                                                                                       \
      for (int64_t i = 0; i < n; i++) y[i * ds] = (TO)VALUE(x[i * ss]);                            \
    }                                                                                              \
  }

#define CONVERT_FROM(NAME, FROM, INT64, INT32, UINT8)                                              \
  CONVERT(NAME##_to_float32, float, FROM, FROM_SAME)                                               \
  CONVERT(NAME##_to_float64, double, FROM, FROM_SAME)                                              \
  CONVERT(NAME##_to_int64, int64_t, FROM, INT64)                                                   \
  CONVERT(NAME##_to_int32, int32_t, FROM, INT32)                                                   \
  CONVERT(NAME##_to_uint8, uint8_t, FROM, UINT8)                                                   \
  CONVERT(NAME##_to_bool, uint8_t, FROM, TO_BOOL)

CONVERT_FROM(float32, float, TO_INT64, TO_INT32, TO_UINT8)
CONVERT_FROM(float64, double, TO_INT64, TO_INT32, TO_UINT8)
CONVERT_FROM(int64, int64_t, FROM_SAME, FROM_SAME, FROM_SAME)
CONVERT_FROM(int32, int32_t, FROM_SAME, FROM_SAME, FROM_SAME)
CONVERT_FROM(uint8, uint8_t, FROM_SAME, FROM_SAME, FROM_SAME)

typedef void convert_fn(int64_t n, void *dst, int64_t ds, const void *src, int64_t ss);

#define ROW(NAME)                                                                                  \
  {                                                                                                \
    NAME##_to_float32, NAME##_to_float64, NAME##_to_int64, NAME##_to_int32, NAME##_to_uint8,       \
        NAME##_to_bool                                                                             \
  }

/* [from][to]; bool is stored as a uint8 of 0 or 1 */
static convert_fn *const converters[LT_DTYPE_COUNT][LT_DTYPE_COUNT] = {
    ROW(float32), ROW(float64), ROW(int64), ROW(int32), ROW(uint8), ROW(uint8)};

void lt_convert(int64_t n, lt_dtype to, void *dst, int64_t dst_step, lt_dtype from, const void *src,
                int64_t src_step) {
  if (to == from && dst_step == 1 && src_step == 1) {
    if (n > 0) memcpy(dst, src, (size_t)(n * lt_dtype_size(to)));
    return;
  }
  converters[from][to](n, dst, dst_step, src, src_step);
}

void lt_copy(const lt_shape *shape, lt_dtype to, void *dst, const int64_t *dst_strides,
             lt_dtype from, const void *src, const int64_t *src_strides) {
  lt_loop loop;
  lt_loop_build(&loop, shape, 2, (const int64_t *const[]){dst_strides, src_strides});
  lt_loop_lengthen(&loop);
  int64_t to_size = lt_dtype_size(to), from_size = lt_dtype_size(from);
  lt_walk w;
  if (loop.rows > 0) lt_walk_start(&w, &loop, 0);
  for (int64_t row = 0; row < loop.rows; row++, lt_walk_next(&w, &loop)) {
    lt_convert(loop.length, to, (char *)dst + w.offset[0] * to_size, loop.step[0], from,
               (const char *)src + w.offset[1] * from_size, loop.step[1]);
  }
}
