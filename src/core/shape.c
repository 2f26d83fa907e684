/* Shapes: checks, texts, row-major strides, broadcasting. */
#include "core/shape.h"

#include <stdio.h>
#include <string.h>

bool lt_shape_equal(const lt_shape *a, const lt_shape *b) {
  return a->ndim == b->ndim && memcmp(a->size, b->size, (size_t)a->ndim * sizeof a->size[0]) == 0;
}

int64_t lt_shape_numel(const lt_shape *s) {
  int64_t n = 1;
  for (int i = 0; i < s->ndim; i++) n *= s->size[i];
  return n;
}

lt_status lt_shape_check(lt_context *ctx, const char *op, const lt_shape *s) {
  int64_t n = 1;
  char text[LT_SHAPE_TEXT];
  /* Zeros do not excuse the others: strides are products of all sizes behind them. */
  for (int i = 0; i < s->ndim; i++) {
    if (s->size[i] < 0) {
      return lt_fail(ctx, "%s: size %d is negative (%s)", op, i + 1, lt_shape_text(s, text));
    }
    int64_t factor = s->size[i] ? s->size[i] : 1;
    if (__builtin_mul_overflow(n, factor, &n) || n >= LT_MAX_ELEMENTS) {
      return lt_fail(ctx, "%s: the shape %s has too many elements", op, lt_shape_text(s, text));
    }
  }
  return LT_OK;
}

const char *lt_shape_text(const lt_shape *s, char text[LT_SHAPE_TEXT]) {
  if (s->ndim == 0) return strcpy(text, "0-d");
  size_t at = 0;
  for (int i = 0; i < s->ndim; i++) {
    at += (size_t)snprintf(text + at, LT_SHAPE_TEXT - at, i ? "x%lld" : "%lld",
                           (long long)s->size[i]);
  }
  return text;
}

void lt_shape_strides(const lt_shape *s, int64_t strides[LT_MAX_RANK]) {
  int64_t step = 1;
  for (int i = s->ndim - 1; i >= 0; i--) {
    strides[i] = step;
    step *= s->size[i] ? s->size[i] : 1;
  }
}

bool lt_shape_broadcast(lt_shape *a, const lt_shape *b) {
  lt_shape r = {.ndim = a->ndim > b->ndim ? a->ndim : b->ndim};
  for (int i = 0; i < r.ndim; i++) {
    int ia = i - (r.ndim - a->ndim), ib = i - (r.ndim - b->ndim);
    int64_t na = ia < 0 ? 1 : a->size[ia], nb = ib < 0 ? 1 : b->size[ib];
    if (na != nb && na != 1 && nb != 1) return false;
    r.size[i] = na == 1 ? nb : na;
  }
  *a = r;
  return true;
}

void lt_broadcast_strides(const lt_shape *own, const int64_t *own_strides, const lt_shape *shape,
                          int64_t strides[LT_MAX_RANK]) {
  int shift = shape->ndim - own->ndim;
  for (int d = 0; d < shape->ndim; d++) {
    strides[d] = d < shift || own->size[d - shift] == 1 ? 0 : own_strides[d - shift];
  }
}

lt_status lt_dim_normalise(lt_context *ctx, const char *op, int64_t dim, int ndim, int *result) {
  int64_t n = ndim ? ndim : 1;
  if (dim < -n || dim >= n) {
    long long shown = (long long)(dim < 0 ? dim : dim + 1);
    if (ndim == 0) return lt_fail(ctx, "%s: dim %lld of a 0-d tensor", op, shown);
    return lt_fail(ctx, "%s: dim %lld is outside 1..%d (or -%d..-1)", op, shown, ndim, ndim);
  }
  *result = (int)(dim < 0 ? dim + n : dim);
  return LT_OK;
}
