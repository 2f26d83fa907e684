/* Tests on the bits of floats: those with all bits of the exponent set are not finite. Nothing but
 * and, add and or, so that compilers vectorise it. */
#include "kernels/finite.h"
#include "core/rows.h"

#include <math.h>

static lt_look look32(const uint32_t *p, int64_t n) {
  uint32_t any = 0, bad = 0;
  for (int64_t i = 0; i < n; i++) {
    any |= p[i];
    bad |= (p[i] & 0x7F800000u) + 0x00800000u;
  }
  return (lt_look){bad >> 31, n > 0 && any << 1 == 0};
}

static lt_look look64(const uint64_t *p, int64_t n) {
  uint64_t any = 0, bad = 0;
  for (int64_t i = 0; i < n; i++) {
    any |= p[i];
    bad |= (p[i] & 0x7FF0000000000000u) + 0x0010000000000000u;
  }
  return (lt_look){bad >> 63, n > 0 && any << 1 == 0};
}

int64_t lt_offset_at(const lt_tensor *t, const lt_shape *shape, int64_t at) {
  int shift = shape->ndim - t->shape.ndim;
  int64_t offset = 0;
  if (shift < 0) return -1;
  for (int d = shape->ndim - 1; d >= shift; d--) {
    int64_t place = at % shape->size[d], size = t->shape.size[d - shift];
    at /= shape->size[d];
    if (size != shape->size[d] && size != 1) return -1;
    if (size != 1) offset += place * t->strides[d - shift];
  }
  return offset;
}

static double element(const lt_tensor *t, int64_t at) {
  return lt_tensor_read(t, t->contiguous ? at : lt_offset_at(t, &t->shape, at));
}

lt_look lt_look_at(const lt_tensor *t) {
  lt_look look = {false, false};
  if (t->rows) t = t->rows->values;
  if (t->over || !lt_dtype_is_float((lt_dtype)t->dtype)) return look;
  int64_t n = t->numel;
  bool single = true; /* expanded from one element */
  for (int d = 0; d < t->shape.ndim; d++) {
    single = single && (t->strides[d] == 0 || t->shape.size[d] == 1);
  }
  if (single && n > 1) n = 1;
  if (t->contiguous || single) {
    return t->dtype == LT_FLOAT32 ? look32((const uint32_t *)(const void *)t->data, n)
                                  : look64((const uint64_t *)(const void *)t->data, n);
  }
  look.zero = n > 0;
  for (int64_t i = 0; i < n; i++) {
    double x = element(t, i);
    look.nonfinite = look.nonfinite || !isfinite(x);
    look.zero = look.zero && x == 0;
  }
  return look;
}

int64_t lt_first_nonfinite(const lt_tensor *t, bool nan) {
  if (t->rows) t = t->rows->values;
  for (int64_t i = 0; i < t->numel; i++) {
    double x = element(t, i);
    if (nan ? isnan(x) : !isfinite(x)) return i;
  }
  return -1;
}

int64_t lt_count_nonzero(const lt_tensor *t) {
  int64_t count = 0;
  if (t->rows) t = t->rows->values;
  for (int64_t i = 0; i < t->numel; i++) count += element(t, i) != 0;
  return count;
}
