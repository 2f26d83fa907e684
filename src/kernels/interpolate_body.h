/* Rows of resampling for one float type and one instruction set: included by each_float.h. First
 * the input rows are added up by their weights, in double, then each output takes its columns of
 * the sum. */

INLINE void NAME(add_row)(int64_t n, const TYPE *restrict x, double weight, const bool start,
                          double *restrict column) {
  if (start) {
    for (int64_t i = 0; i < n; i++) column[i] = (double)x[i] * weight;
  } else {
    for (int64_t i = 0; i < n; i++) column[i] += (double)x[i] * weight;
  }
}

INLINE void NAME(pick)(int64_t n, const int32_t *restrict index, const TYPE *restrict x,
                       TYPE *restrict y) {
  for (int64_t i = 0; i < n; i++) y[i] = x[index[i]];
}

/* y[o] = the sum of `taps` columns; index counts from column `first` of x on. */
INLINE void NAME(mix)(int64_t n, const int taps, const int32_t *restrict index,
                      const double *restrict weight, const double *restrict column, int64_t first,
                      TYPE *restrict y) {
  int32_t base = (int32_t)first;
  for (int64_t i = 0; i < n; i++) {
    double sum = 0;
    for (int k = 0; k < taps; k++) sum += weight[i * taps + k] * column[index[i * taps + k] - base];
    y[i] = (TYPE)sum;
  }
}

/* An output whose columns lie too far apart for the sum. */
INLINE TYPE NAME(far)(const work *w, const TYPE *plane, int64_t d, int64_t h, int64_t o) {
  const table *a = w->axis;
  double sum = 0;
  for (int64_t i = a[0].begin[d]; i < a[0].begin[d + 1]; i++) {
    for (int64_t j = a[1].begin[h]; j < a[1].begin[h + 1]; j++) {
      const TYPE *x = plane + (a[0].index[i] * a[1].in + a[1].index[j]) * a[2].in;
      double part = 0;
      for (int64_t k = a[2].begin[o]; k < a[2].begin[o + 1]; k++) {
        part += a[2].weight[k] * (double)x[a[2].index[k]];
      }
      sum += part * (a[0].weight[i] * a[1].weight[j]);
    }
  }
  return (TYPE)sum;
}

INLINE void NAME(resample_tile)(const work *w, const TYPE *plane, int64_t d, int64_t h, int64_t at,
                                int64_t n, int64_t first, int64_t width, TYPE *y) {
  const table *a = w->axis, *c = &a[2];
  double column[SPAN];
  bool start = true;
  for (int64_t i = a[0].begin[d]; i < a[0].begin[d + 1]; i++) {
    for (int64_t j = a[1].begin[h]; j < a[1].begin[h + 1]; j++) {
      const TYPE *x = plane + (a[0].index[i] * a[1].in + a[1].index[j]) * c->in + first;
      double weight = a[0].weight[i] * a[1].weight[j];
      if (start)
        NAME(add_row)(width, x, weight, true, column);
      else
        NAME(add_row)(width, x, weight, false, column);
      start = false;
    }
  }
  for (int64_t i = 0; i < width && start; i++) column[i] = 0;
  const int32_t *index = c->index + c->begin[at];
  const double *weight = c->weight + c->begin[at];
  switch (c->taps) {
  case 1: NAME(mix)(n, 1, index, weight, column, first, y); break;
  case 2: NAME(mix)(n, 2, index, weight, column, first, y); break;
  case 4: NAME(mix)(n, 4, index, weight, column, first, y); break;
  default:
    for (int64_t o = at; o < at + n; o++) {
      double sum = 0;
      for (int64_t k = c->begin[o]; k < c->begin[o + 1]; k++) {
        sum += c->weight[k] * column[c->index[k] - first];
      }
      y[o - at] = (TYPE)sum;
    }
  }
}

TARGET static void NAME(resample_rows)(void *argument, int64_t first, int64_t last) {
  const work *w = argument;
  const table *a = w->axis, *c = &a[2];
  int64_t size = a[0].in * a[1].in * a[2].in;
  int64_t h = first % a[1].out, d = first / a[1].out % a[0].out,
          plane = first / a[1].out / a[0].out;
  for (int64_t r = first; r < last; r++) {
    const TYPE *x = (const TYPE *)w->from + plane * size;
    TYPE *y = (TYPE *)w->to + r * c->out;
    if (w->picks) {
      NAME(pick)(c->out, c->index, x + (a[0].index[d] * a[1].in + a[1].index[h]) * c->in, y);
    } else {
      for (int64_t at = 0, n; at < c->out; at += n) {
        int64_t low, width;
        n = reach(c, at, &low, &width);
        if (n == 0)
          y[at] = NAME(far)(w, x, d, h, at), n = 1;
        else
          NAME(resample_tile)(w, x, d, h, at, n, low, width, y + at);
      }
    }
    if (++h < a[1].out) continue;
    h = 0;
    if (++d < a[0].out) continue;
    d = 0;
    plane++;
  }
}
