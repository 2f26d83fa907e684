/* Rows of pooling for one float type and one instruction set: included by each_float.h. Three
 * ways through a row, by its windows:
 *
 * - pairs: windows two columns wide, side by side: one pass over the input row;
 * - narrow: for each column of the window one pass over a tile of the output row;
 * - wide or adaptive: output by output, along the input row.
 *
 * Means add up the columns of a window first, and then its sums of columns. */

/* Selections one after the other, as compilers turn them into masks. */
INLINE void NAME(larger)(TYPE v, SAME_WIDTH p, TYPE *best, SAME_WIDTH *place, const bool placed) {
  TYPE b = *best;
  if (placed) {
    SAME_WIDTH q = v > b ? p : *place;
    q = v != v ? p : q;
    *place = q < 0 ? p : q; /* the first of all */
  }
  b = v > b ? v : b;
  *best = v != v ? v : b;
}

INLINE void NAME(take)(int64_t n, const int64_t stride, const TYPE *restrict x, TYPE *restrict best,
                       SAME_WIDTH *restrict place, SAME_WIDTH tap, const bool placed) {
  for (int64_t i = 0; i < n; i++) NAME(larger)(x[i * stride], tap, &best[i], &place[i], placed);
}

/* One input row of pairs; the first one of its windows starts them. */
INLINE void NAME(take_pairs)(int64_t n, const TYPE *restrict x, TYPE *restrict best,
                             SAME_WIDTH *restrict place, SAME_WIDTH tap, const bool start,
                             const bool placed) {
  for (int64_t i = 0; i < n; i++) {
    TYPE b = x[2 * i];
    SAME_WIDTH p = tap;
    NAME(larger)(x[2 * i + 1], tap + 1, &b, &p, placed);
    if (start) {
      best[i] = b;
      if (placed) place[i] = p;
    } else {
      NAME(larger)(b, p, &best[i], &place[i], placed);
    }
  }
}

/* Outputs at..at+n-1 of a row of windows that are pairs or narrow. */
INLINE void NAME(max_tile)(const work *w, const lines *l, const TYPE *x, int64_t at, int64_t n,
                           TYPE *best, SAME_WIDTH *place, const bool placed) {
  const lt_window *c = &w->axis[2];
  for (int64_t i = 0; i < n && !(w->pairs && l->count > 0); i++) {
    best[i] = (TYPE)-INFINITY;
    place[i] = -1;
  }
  for (int64_t k = 0; k < l->count; k++) {
    const TYPE *row = x + input_row(w, l, k) * c->in;
    SAME_WIDTH tap = (SAME_WIDTH)(first_tap(w, l, k) * c->kernel);
    if (w->pairs && k == 0) {
      NAME(take_pairs)(n, row + 2 * at, best, place, tap, true, placed);
      continue;
    }
    if (w->pairs) {
      NAME(take_pairs)(n, row + 2 * at, best, place, tap, false, placed);
      continue;
    }
    for (int64_t j = 0; j < c->kernel; j++, tap++) {
      int64_t low = LARGER(w->low[j], at), high = SMALLER(w->high[j], at + n);
      const TYPE *from = row + low * c->stride + j * c->dilation - c->padding;
      TYPE *b = best + (low - at);
      SAME_WIDTH *p = place + (low - at);
      if (low >= high) continue;
      switch (c->stride) {
      case 1: NAME(take)(high - low, 1, from, b, p, tap, placed); break;
      case 2: NAME(take)(high - low, 2, from, b, p, tap, placed); break;
      default: NAME(take)(high - low, c->stride, from, b, p, tap, placed);
      }
    }
  }
}

/* The largest of a long window. */
INLINE TYPE NAME(maximum)(const work *w, const lines *l, const TYPE *x, range r) {
  TYPE lane[LANES];
  for (int j = 0; j < LANES; j++) lane[j] = (TYPE)-INFINITY;
  for (int64_t k = 0; k < l->count; k++) {
    const TYPE *row = x + input_row(w, l, k) * w->axis[2].in + r.first;
    int64_t i = 0;
    for (; i + LANES <= r.count; i += LANES) {
      for (int j = 0; j < LANES; j++) NAME(larger)(row[i + j], 0, &lane[j], NULL, false);
    }
    for (; i < r.count; i++) NAME(larger)(row[i], 0, &lane[0], NULL, false);
  }
  for (int j = 1; j < LANES; j++) NAME(larger)(lane[j], 0, &lane[0], NULL, false);
  return lane[0];
}

INLINE int64_t NAME(find)(const work *w, const lines *l, const TYPE *x, range r, TYPE value) {
  for (int64_t k = 0; k < l->count; k++) {
    int64_t at = input_row(w, l, k) * w->axis[2].in + r.first;
    for (int64_t j = 0; j < r.count; j++) {
      if (x[at + j] == value) return at + j;
    }
  }
  return -1;
}

/* One output, by itself. Returns the place of the largest in the plane, -1 for none. */
TARGET static int64_t NAME(max_window)(const work *w, const lines *l, const TYPE *x, int64_t o,
                                       TYPE *result) {
  range r = range_of(&w->axis[2], o);
  if (r.step == 1 && r.count >= LANES) {
    *result = NAME(maximum)(w, l, x, r);
    if (!w->place) return -1;
    if (*result == *result) return NAME(find)(w, l, x, r, *result);
  }
  TYPE best = (TYPE)-INFINITY;
  int64_t place = -1;
  for (int64_t k = 0; k < l->count; k++) {
    int64_t at = input_row(w, l, k) * w->axis[2].in + r.first;
    for (int64_t j = 0; j < r.count; j++, at += r.step) {
      bool take = (x[at] > best) | (x[at] != x[at]) | (place < 0);
      best = take ? x[at] : best;
      place = take ? at : place;
    }
  }
  *result = best;
  return place;
}

TARGET static void NAME(max_rows)(void *argument, int64_t first, int64_t last) {
  const work *w = argument;
  int64_t columns = w->axis[2].out, size = plane_of(w, true);
  lines l = lines_of(w, first);
  for (int64_t r = first; r < last; r++, next_lines(w, &l)) {
    const TYPE *x = (const TYPE *)w->from + l.plane * size;
    TYPE *y = (TYPE *)w->to + r * columns;
    if (!w->pairs && !w->narrow) {
      for (int64_t o = 0; o < columns; o++) {
        int64_t place = NAME(max_window)(w, &l, x, o, &y[o]);
        if (w->place) put_place(w, &l, r * columns + o, o, place);
      }
      continue;
    }
    for (int64_t at = 0; at < columns; at += TILE) {
      int64_t n = SMALLER(columns - at, TILE);
      int64_t m =
          w->pairs ? whole_lanes(n, l.plane * size + l.last * w->axis[2].in + 2 * at, 2, w->inputs)
                   : n;
      TYPE best[TILE];
      SAME_WIDTH place[TILE];
      if (!w->place) {
        NAME(max_tile)(w, &l, x, at, m, best, place, false);
      } else {
        NAME(max_tile)(w, &l, x, at, m, best, place, true);
        if (w->place_dtype == LT_UINT8) {
          uint8_t tap[TILE];
          for (int64_t i = 0; i < m; i++) tap[i] = (uint8_t)place[i]; /* -1: LT_NO_TAP */
          memcpy((uint8_t *)w->place + r * columns + at, tap, (size_t)n);
        } else {
          int64_t *to = (int64_t *)w->place + r * columns + at;
          for (int64_t i = 0; i < n; i++) to[i] = place_of_tap(w, &l, at + i, place[i]) + 1;
        }
      }
      memcpy(y + at, best, (size_t)n * sizeof *best);
    }
  }
}

/* Rows of x below windows that lie side by side, two columns wide: each is written once. */
TARGET static void NAME(scatter_pairs)(void *argument, int64_t first, int64_t last) {
  const work *w = argument;
  const lt_window *a = w->axis;
  below b = below_of(w, first);
  for (int64_t r = first; r < last; r++, next_below(w, &b)) {
    bool covered = b.od < a[0].out && b.oh < a[1].out;
    int64_t n = covered ? a[2].out : 0;
    int64_t at = covered ? ((b.plane * a[0].out + b.od) * a[1].out + b.oh) * a[2].out : 0;
    int tap = (int)((b.kd * a[1].kernel + b.kh) * 2);
    TYPE *restrict x = (TYPE *)w->to + r * a[2].in;
    const TYPE *restrict y = (const TYPE *)w->from + at;
    const uint8_t *restrict place = (const uint8_t *)w->place + at;
    for (int64_t from = 0; from < n; from += TILE) {
      int64_t m = SMALLER(n - from, TILE), lanes = whole_lanes(m, at + from, 1, w->outputs);
      TYPE tile[2 * TILE];
      SAME_WIDTH taps[TILE]; /* as wide as the elements they choose */
      for (int64_t i = 0; i < lanes; i++) taps[i] = place[from + i];
      for (int64_t i = 0; i < lanes; i++) {
        tile[2 * i] = taps[i] == tap ? y[from + i] : 0;
        tile[2 * i + 1] = taps[i] == tap + 1 ? y[from + i] : 0;
      }
      memcpy(x + 2 * from, tile, 2 * (size_t)m * sizeof *x);
    }
    for (int64_t i = 2 * n; i < a[2].in; i++) x[i] = 0;
  }
}

/* ---- Means -------------------------------------------------------------------------------- */

INLINE double NAME(sum)(int64_t n, const TYPE *x) {
  double lane[LANES] = {0}, total = 0;
  int64_t i = 0;
  if (n >= LANES) {
    for (; i + LANES <= n; i += LANES) {
      for (int j = 0; j < LANES; j++) lane[j] += (double)x[i + j];
    }
    for (int j = 0; j < LANES; j++) total += lane[j];
  }
  for (; i < n; i++) total += (double)x[i];
  return total;
}

/* column[i] += scale * x[i]; begun with the first row. */
INLINE void NAME(add_row)(int64_t n, const TYPE *restrict x, double scale, const bool start,
                          double *restrict column) {
  if (start) {
    for (int64_t i = 0; i < n; i++) column[i] = (double)x[i] * scale;
  } else {
    for (int64_t i = 0; i < n; i++) column[i] += (double)x[i] * scale;
  }
}

/* A row of means of pairs; few elements make each, so float will do. */
INLINE void NAME(avg_pairs)(const work *w, const lines *l, const TYPE *x, TYPE *restrict y) {
  int64_t n = w->axis[2].out, in = w->axis[2].in;
  TYPE divisor = (TYPE)divisor_of(w, l, 0);
  if (l->count == 2) {
    for (int64_t at = 0; at < n; at += TILE) {
      const TYPE *a = x + input_row(w, l, 0) * in + 2 * at, *b = x + l->last * in + 2 * at;
      int64_t m = SMALLER(n - at, TILE);
      int64_t lanes = whole_lanes(m, b - (const TYPE *)w->from, 2, w->inputs);
      TYPE tile[TILE];
      for (int64_t i = 0; i < lanes; i++) {
        tile[i] = ((a[2 * i] + a[2 * i + 1]) + (b[2 * i] + b[2 * i + 1])) / divisor;
      }
      memcpy(y + at, tile, (size_t)m * sizeof *y);
    }
    return;
  }
  for (int64_t k = 0; k < l->count; k++) {
    const TYPE *row = x + input_row(w, l, k) * in;
    for (int64_t i = 0; i < n; i++) y[i] = (k ? y[i] : 0) + (row[2 * i] + row[2 * i + 1]);
  }
  for (int64_t i = 0; i < n; i++) y[i] /= divisor;
}

INLINE void NAME(add_columns)(int64_t n, const int64_t stride, const double *restrict column,
                              double *restrict sum) {
  for (int64_t i = 0; i < n; i++) sum[i] += column[i * stride];
}

/* Outputs at..at+n-1 of a row, whose windows lie within SPAN columns. */
INLINE void NAME(avg_tile)(const work *w, const lines *l, const TYPE *x, int64_t at, int64_t n,
                           TYPE *y) {
  const lt_window *c = &w->axis[2];
  range first = range_of(c, at), last = range_of(c, at + n - 1);
  double column[SPAN], sum[TILE] = {0};
  int64_t width = last.first + last.count - first.first;
  for (int64_t k = 0; k < l->count; k++) {
    const TYPE *row = x + input_row(w, l, k) * c->in + first.first;
    if (k == 0)
      NAME(add_row)(width, row, 1, true, column);
    else
      NAME(add_row)(width, row, 1, false, column);
  }
  if (w->narrow) {
    for (int64_t j = 0; j < c->kernel; j++) {
      int64_t low = LARGER(w->low[j], at), high = SMALLER(w->high[j], at + n);
      const double *from = column + (low * c->stride + j - c->padding - first.first);
      if (low >= high) continue;
      switch (c->stride) {
      case 1: NAME(add_columns)(high - low, 1, from, sum + (low - at)); break;
      case 2: NAME(add_columns)(high - low, 2, from, sum + (low - at)); break;
      default: NAME(add_columns)(high - low, c->stride, from, sum + (low - at));
      }
    }
  } else {
    for (int64_t o = at; o < at + n; o++) {
      range r = range_of(c, o);
      const double *from = column + (r.first - first.first);
      for (int64_t i = 0; i < r.count; i++) sum[o - at] += from[i];
    }
  }
  if (w->even) {
    double divisor = divisor_of(w, l, 0);
    for (int64_t i = 0; i < n; i++) y[i] = (TYPE)(sum[i] / divisor);
  } else {
    for (int64_t i = 0; i < n; i++) y[i] = (TYPE)(sum[i] / divisor_of(w, l, at + i));
  }
}

TARGET static void NAME(avg_rows)(void *argument, int64_t first, int64_t last) {
  const work *w = argument;
  int64_t columns = w->axis[2].out, size = plane_of(w, true);
  lines l = lines_of(w, first);
  for (int64_t r = first; r < last; r++, next_lines(w, &l)) {
    const TYPE *x = (const TYPE *)w->from + l.plane * size;
    TYPE *y = (TYPE *)w->to + r * columns;
    if (w->pairs && l.count <= FEW_ROWS) {
      NAME(avg_pairs)(w, &l, x, y);
    } else if (w->tile > 0 && (w->narrow || l.count > 1)) {
      for (int64_t at = 0; at < columns; at += w->tile) {
        NAME(avg_tile)(w, &l, x, at, SMALLER(columns - at, w->tile), y + at);
      }
    } else {
      for (int64_t o = 0; o < columns; o++) {
        range c = range_of(&w->axis[2], o);
        double sum = 0;
        for (int64_t k = 0; k < l.count; k++) {
          sum += NAME(sum)(c.count, x + input_row(w, &l, k) * w->axis[2].in + c.first);
        }
        y[o] = (TYPE)(sum / divisor_of(w, &l, o));
      }
    }
  }
}

/* Rows of x below means of windows that lie side by side, two columns wide. */
TARGET static void NAME(spread_pairs)(void *argument, int64_t first, int64_t last) {
  const work *w = argument;
  const lt_window *a = w->axis;
  TYPE share = (TYPE)(1 / w->common);
  below b = below_of(w, first);
  for (int64_t r = first; r < last; r++, next_below(w, &b)) {
    bool covered = b.od < a[0].out && b.oh < a[1].out;
    int64_t n = covered ? a[2].out : 0;
    int64_t row = covered ? (b.plane * a[0].out + b.od) * a[1].out + b.oh : 0;
    TYPE *restrict x = (TYPE *)w->to + r * a[2].in;
    const TYPE *restrict y = (const TYPE *)w->from + row * a[2].out;
    for (int64_t from = 0; from < n; from += TILE) {
      int64_t m = SMALLER(n - from, TILE);
      int64_t lanes = whole_lanes(m, row * a[2].out + from, 1, w->outputs);
      TYPE tile[2 * TILE];
      for (int64_t i = 0; i < lanes; i++) {
        TYPE v = y[from + i] * share;
        tile[2 * i] = v;
        tile[2 * i + 1] = v;
      }
      memcpy(x + 2 * from, tile, 2 * (size_t)m * sizeof *x);
    }
    for (int64_t i = 2 * n; i < a[2].in; i++) x[i] = 0;
  }
}

INLINE void NAME(spread)(int64_t n, const int64_t stride, const double *restrict column,
                         double *restrict sum) {
  for (int64_t i = 0; i < n; i++) sum[i * stride] += column[i];
}

/* Elements at..at+n-1 of a row of x receive from outputs first..first+m-1 of the rows of means
 * above it, which `column` has the sums of. */
INLINE void NAME(spread_tile)(const work *w, const double *column, int64_t first, int64_t m,
                              int64_t at, int64_t n, double *sum) {
  const lt_window *c = &w->axis[2];
  for (int64_t j = 0; w->narrow && j < c->kernel; j++) {
    int64_t low = LARGER(w->low[j], first), high = SMALLER(w->high[j], first + m);
    if (n < c->in) {
      low = LARGER(low, ceiling(at + c->padding - j, c->stride));
      high = SMALLER(high, ceiling(at + n + c->padding - j, c->stride));
    }
    if (low >= high) continue;
    const double *from = column + (low - first);
    double *to = sum + (low * c->stride + j - c->padding - at);
    switch (c->stride) {
    case 1: NAME(spread)(high - low, 1, from, to); break;
    case 2: NAME(spread)(high - low, 2, from, to); break;
    default: NAME(spread)(high - low, c->stride, from, to);
    }
  }
  for (int64_t o = first; !w->narrow && o < first + m; o++) {
    range r = range_of(c, o);
    int64_t low = LARGER(r.first, at), high = SMALLER(r.first + r.count, at + n);
    double v = column[o - first];
    for (int64_t i = low; i < high; i++) sum[i - at] += v;
  }
}

TARGET static void NAME(spread_rows)(void *argument, int64_t first, int64_t last) {
  const work *w = argument;
  const lt_window *a = w->axis;
  double column[SPAN];
  below b = below_of(w, first);
  for (int64_t r = first; r < last; r++, next_below(w, &b)) {
    range rows = outputs_above(&a[1], b.h), deep = outputs_above(&a[0], b.d);
    int64_t parts = rows.count * deep.count;
    TYPE *x = (TYPE *)w->to + r * a[2].in;
    for (int64_t at = 0; at < a[2].in; at += TILE) {
      int64_t n = SMALLER(a[2].in - at, TILE);
      int64_t o = 0, end = a[2].out;
      if (n < a[2].in) {
        range last_above = outputs_above(&a[2], at + n - 1);
        o = outputs_above(&a[2], at).first;
        end = last_above.first + last_above.count;
      }
      double sum[TILE] = {0};
      for (int64_t m; o < end && parts > 0; o += m) {
        m = SMALLER(end - o, SPAN);
        for (int64_t k = 0; k < parts; k++) {
          int64_t at_d = deep.count == 1 ? 0 : k / rows.count;
          int64_t od = deep.first + at_d, oh = rows.first + k - at_d * rows.count;
          int64_t row = (b.plane * a[0].out + od) * a[1].out + oh;
          const TYPE *y = (const TYPE *)w->from + row * a[2].out + o;
          double scale = row_share(w, od, oh);
          if (k == 0)
            NAME(add_row)(m, y, scale, true, column);
          else
            NAME(add_row)(m, y, scale, false, column);
        }
        if (!w->even) {
          for (int64_t i = 0; i < m; i++) column[i] *= w->share[o + i];
        }
        NAME(spread_tile)(w, column, o, m, at, n, sum);
      }
      for (int64_t i = 0; i < n; i++) x[at + i] = (TYPE)sum[i];
    }
  }
}
