/* Rows of blocks lie along rows of the image, so that both directions walk along rows. */
#include "kernels/unfold.h"
#include "kernels/copy.h"
#include "kernels/parallel.h"

#include <string.h>

typedef struct work {
  const lt_window *h, *w;
  int64_t size;
  const char *from;
  char *to;
} work;

/* The outputs low..high-1 whose element `tap` of the window is inside. */
static void inside(const lt_window *a, int64_t tap, int64_t *low, int64_t *high) {
  int64_t first = a->padding - tap * a->dilation;
  *low = first > 0 ? (first + a->stride - 1) / a->stride : 0;
  *high = a->in + first > 0 ? (a->in + first - 1) / a->stride + 1 : 0;
  if (*high > a->out) *high = a->out;
  if (*low > *high) *low = *high;
}

/* Rows of y, each one element of the windows of a plane. */
static void unfold_task(void *argument, int64_t first, int64_t last) {
  const work *k = argument;
  const lt_window *h = k->h, *w = k->w;
  for (int64_t r = first; r < last; r++) {
    int64_t tap_w = r % w->kernel, tap_h = r / w->kernel % h->kernel, low, high, top, bottom;
    const char *x = k->from + r / w->kernel / h->kernel * h->in * w->in * k->size;
    char *y = k->to + r * h->out * w->out * k->size;
    inside(w, tap_w, &low, &high);
    inside(h, tap_h, &top, &bottom);
    for (int64_t o = 0; o < h->out; o++, y += w->out * k->size) {
      if (o < top || o >= bottom) {
        memset(y, 0, (size_t)(w->out * k->size));
        continue;
      }
      int64_t at = (o * h->stride + tap_h * h->dilation - h->padding) * w->in + low * w->stride +
                   tap_w * w->dilation - w->padding;
      memset(y, 0, (size_t)(low * k->size));
      if (w->stride == 1) {
        memcpy(y + low * k->size, x + (low < high ? at : 0) * k->size,
               (size_t)((high - low) * k->size));
      } else {
        lt_dtype as = k->size == 8 ? LT_INT64 : LT_INT32;
        lt_convert(high - low, as, y + low * k->size, 1, as, x + (low < high ? at : 0) * k->size,
                   w->stride);
      }
      memset(y + high * k->size, 0, (size_t)((w->out - high) * k->size));
    }
  }
}

#define FOLD(NAME, TYPE)                                                                           \
  static void NAME(void *argument, int64_t first, int64_t last) {                                  \
    const work *k = argument;                                                                      \
    const lt_window *h = k->h, *w = k->w;                                                          \
    int64_t taps = h->kernel * w->kernel;                                                          \
    for (int64_t plane = first; plane < last; plane++) {                                           \
      TYPE *x = (TYPE *)(void *)k->to + plane * h->in * w->in;                                     \
      memset(x, 0, (size_t)(h->in * w->in) * sizeof *x);                                           \
      for (int64_t tap = 0; tap < taps; tap++) {                                                   \
        const TYPE *y =                                                                            \
            (const TYPE *)(const void *)k->from + (plane * taps + tap) * h->out * w->out;          \
        int64_t tap_h = tap / w->kernel, tap_w = tap % w->kernel, low, high, top, bottom;          \
        inside(w, tap_w, &low, &high);                                                             \
        inside(h, tap_h, &top, &bottom);                                                           \
        for (int64_t o = top; o < bottom && low < high; o++) {                                     \
          int64_t at = (o * h->stride + tap_h * h->dilation - h->padding) * w->in +                \
                       low * w->stride + tap_w * w->dilation - w->padding;                         \
          add_##NAME(high - low, w->stride, y + o * w->out + low, x + at);                         \
        }                                                                                          \
      }                                                                                            \
    }                                                                                              \
  }
#define ADD(NAME, TYPE)                                                                            \
  static void add_##NAME(int64_t n, int64_t stride, const TYPE *restrict y, TYPE *restrict x) {    \
    if (stride == 1) {                                                                             \
      for (int64_t i = 0; i < n; i++) x[i] += y[i];                                                \
    } else {                                                                                       \
      for (int64_t i = 0; i < n; i++) x[i * stride] += y[i];                                       \
    }                                                                                              \
  }
ADD(fold_f32, float)
ADD(fold_f64, double)
FOLD(fold_f32, float)
FOLD(fold_f64, double)

lt_status lt_unfold(lt_context *ctx, int64_t planes, const lt_window axis[LT_POOL_AXES],
                    int64_t size, const void *x, void *y) {
  work k = {.h = &axis[1], .w = &axis[2], .size = size, .from = x, .to = y};
  int64_t rows = planes * k.h->kernel * k.w->kernel;
  return lt_parallel(ctx, rows, rows * k.h->out * k.w->out, unfold_task, &k);
}

lt_status lt_fold(lt_context *ctx, int64_t planes, const lt_window axis[LT_POOL_AXES],
                  lt_dtype dtype, const void *y, void *x) {
  work k = {.h = &axis[1], .w = &axis[2], .from = y, .to = x};
  int64_t operations = planes * k.h->kernel * k.w->kernel * k.h->out * k.w->out;
  return lt_parallel(ctx, planes, operations, dtype == LT_FLOAT32 ? fold_f32 : fold_f64, &k);
}
