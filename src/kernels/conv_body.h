/* The tiles of convolution for one element type and one instruction set: included by conv_tile.c,
 * which defines the macros; those of the type are undefined again at the end. Each element of a
 * result is summed in the order of the taps (of the places), whatever tile it lies in. */

typedef TYPE NAME(vector) __attribute__((vector_size(BYTES), aligned(sizeof(TYPE)), may_alias));
#define VECTOR NAME(vector)
#define LANES ((int64_t)(BYTES / sizeof(TYPE)))
#define LOAD(p) (*(const VECTOR *)(p))
#define STORE(p, v) (*(VECTOR *)(p) = (v))

/* ---- Results: rows of weights times columns ----------------------------------------------------
 */

/* The last vector has `last` elements. */
INLINE void NAME(rows_tile)(const int rows, const int vectors, const lt_conv_rows *r,
                            const TYPE *weights, const TYPE *columns, TYPE *y, int64_t last) {
  VECTOR sum[ROWS_MOST][WIDEST], row[WIDEST];
  const int64_t *at = r->at, y_row = r->y_row;
  const int end = vectors - 1;
  UNROLL for (int i = 0; i < rows; i++) {
    UNROLL for (int j = 0; j < vectors; j++) {
      __builtin_prefetch(y + i * y_row + j * LANES, 1);
      sum[i][j] = (VECTOR){0};
    }
  }
  for (int64_t p = 0; p < r->taps; p++, weights += rows) {
    const TYPE *b = columns + at[p];
    UNROLL for (int j = 0; j < vectors; j++) row[j] = LOAD(b + j * LANES);
    UNROLL for (int i = 0; i < rows; i++) {
      UNROLL for (int j = 0; j < vectors; j++) sum[i][j] += weights[i] * row[j];
    }
  }
  UNROLL for (int i = 0; i < rows; i++, y += y_row) {
    if (r->add) {
      TYPE part[BYTES / sizeof(TYPE)] = {0};
      UNROLL for (int j = 0; j < end; j++) sum[i][j] += LOAD(y + j * LANES);
      memcpy(part, y + end * LANES, (size_t)last * sizeof(TYPE));
      sum[i][end] += LOAD(part);
    }
    UNROLL for (int j = 0; j < end; j++) STORE(y + j * LANES, sum[i][j]);
    if (last == LANES)
      STORE(y + end * LANES, sum[i][end]);
    else
      memcpy(y + end * LANES, &sum[i][end], (size_t)last * sizeof(TYPE));
  }
}

typedef void NAME(rows_function)(const lt_conv_rows *, const TYPE *, const TYPE *, TYPE *, int64_t);
#define DEFINE(rows, vectors)                                                                      \
  static TARGET void NAME(rows_##rows##x##vectors)(const lt_conv_rows *r, const TYPE *weights,     \
                                                   const TYPE *columns, TYPE *y, int64_t last) {   \
    NAME(rows_tile)(rows, vectors, r, weights, columns, y, last);                                  \
  }
ROWS(DEFINE)
#undef DEFINE
#define ENTRY(rows, vectors) [rows][vectors] = NAME(rows_##rows##x##vectors),
static NAME(rows_function) *const NAME(rows_of)[ROWS_MOST + 1][WIDEST + 1] = {ROWS(ENTRY)};
#undef ENTRY

static TARGET void NAME(rows)(const lt_conv_rows *r) {
  const int64_t blocks = quotient_up(r->m, ROWS_MOST), vectors = quotient_up(r->n, LANES);
  const int64_t panels = quotient_up(vectors, BY_LEVEL(vectors)[share(r->m, blocks, 0)]);
  for (int64_t panel = 0, j = 0; panel < panels; panel++) {
    const int64_t width = share(vectors, panels, panel), last = r->n - j - (width - 1) * LANES;
    const TYPE *weights = r->weights, *columns = (const TYPE *)r->columns + j;
    TYPE *y = (TYPE *)r->y + j;
    for (int64_t block = 0; block < blocks; block++) {
      const int64_t rows = share(r->m, blocks, block);
      NAME(rows_of)[rows][width](r, weights + r->first * rows, columns, y, least(last, LANES));
      weights += rows * r->depth;
      y += rows * r->y_row;
    }
    j += width * LANES;
  }
}

/* ---- Sums: columns times rows of dy, turned ----------------------------------------------------
 */

/* dy has a row of `width` elements for each of n places. */
INLINE void NAME(sums_tile)(const int taps, const int vectors, int64_t n, const int64_t *at,
                            const TYPE *columns, const TYPE *dy, int64_t dy_row, TYPE *sums,
                            int64_t width, bool add) {
  VECTOR sum[SUMS_MOST][SUMS_WIDTH], row[SUMS_WIDTH];
  const TYPE *x[SUMS_MOST];
  UNROLL for (int i = 0; i < taps; i++) {
    x[i] = columns + at[i];
    UNROLL for (int j = 0; j < vectors; j++) sum[i][j] = (VECTOR){0};
  }
  for (int64_t p = 0; p < n; p++, dy += dy_row) {
    UNROLL for (int j = 0; j < vectors; j++) row[j] = LOAD(dy + j * LANES);
    UNROLL for (int i = 0; i < taps; i++) {
      UNROLL for (int j = 0; j < vectors; j++) sum[i][j] += x[i][p] * row[j];
    }
  }
  UNROLL for (int i = 0; i < taps; i++, sums += width) {
    UNROLL for (int j = 0; j < vectors; j++) {
      if (add) sum[i][j] += LOAD(sums + j * LANES);
      STORE(sums + j * LANES, sum[i][j]);
    }
  }
}

typedef void NAME(sums_function)(int64_t, const int64_t *, const TYPE *, const TYPE *, int64_t,
                                 TYPE *, int64_t, bool);
#define DEFINE(taps, vectors)                                                                      \
  static TARGET void NAME(sums_##taps##x##vectors)(                                                \
      int64_t n, const int64_t *at, const TYPE *columns, const TYPE *dy, int64_t dy_row,           \
      TYPE *sums, int64_t width, bool add) {                                                       \
    NAME(sums_tile)(taps, vectors, n, at, columns, dy, dy_row, sums, width, add);                  \
  }
SUMS(DEFINE)
#undef DEFINE
#define ENTRY(taps, vectors) [vectors][taps] = NAME(sums_##taps##x##vectors),
static NAME(sums_function) *const NAME(sums_of)[SUMS_WIDTH + 1][SUMS_MOST + 1] = {SUMS(ENTRY)};
#undef ENTRY

/* For few rows of dy, which leave vectors of them empty: the vectors lie along the places. */
INLINE void NAME(dots_tile)(const int taps, const lt_conv_sums *s, const TYPE *dy,
                            const int64_t *at, TYPE *sums, int64_t width) {
  VECTOR sum[8];
  const TYPE *x[8];
  int64_t p = 0;
  UNROLL for (int j = 0; j < taps; j++) {
    x[j] = (const TYPE *)s->columns + at[j];
    sum[j] = (VECTOR){0};
  }
  for (; p + LANES <= s->n; p += LANES) {
    VECTOR row = LOAD(dy + p);
    UNROLL for (int j = 0; j < taps; j++) sum[j] += row * LOAD(x[j] + p);
  }
  for (int j = 0; j < taps; j++, sums += width) {
    TYPE lane[BYTES / sizeof(TYPE)];
    STORE(lane, sum[j]);
    for (int64_t q = p; q < s->n; q++) lane[q - p] += x[j][q] * dy[q];
    UNROLL for (int half = BYTES / (2 * (int)sizeof(TYPE)); half > 0; half /= 2) {
      UNROLL for (int l = 0; l < half; l++) lane[l] += lane[l + half];
    }
    *sums = s->add ? *sums + lane[0] : lane[0];
  }
}

static TARGET void NAME(dots_x1)(const lt_conv_sums *s, const TYPE *dy, const int64_t *at,
                                 TYPE *sums, int64_t width) {
  NAME(dots_tile)(1, s, dy, at, sums, width);
}
static TARGET void NAME(dots_x8)(const lt_conv_sums *s, const TYPE *dy, const int64_t *at,
                                 TYPE *sums, int64_t width) {
  NAME(dots_tile)(8, s, dy, at, sums, width);
}

static TARGET void NAME(dots)(const lt_conv_sums *s, int64_t width) {
  const TYPE *dy = s->dy;
  for (int64_t i = 0; i < s->m; i++, dy += s->dy_row) {
    TYPE *sums = (TYPE *)s->sums + i;
    int64_t j = 0;
    for (; j + 8 <= s->taps; j += 8) NAME(dots_x8)(s, dy, s->at + j, sums + j * width, width);
    for (; j < s->taps; j++) NAME(dots_x1)(s, dy, s->at + j, sums + j * width, width);
  }
}

static TARGET void NAME(sums)(const lt_conv_sums *s) {
  const int64_t vectors = quotient_up(s->m, LANES), panels = quotient_up(vectors, SUMS_WIDTH);
  TYPE *room = s->room;
  if (4 * s->m <= LANES) {
    NAME(dots)(s, vectors * LANES);
    return;
  }
  const int64_t parts = quotient_up(s->n, LT_CONV_DEPTH);
  for (int64_t part = 0, p = 0; part < parts; part++) {
    const int64_t n = share(s->n, parts, part);
    for (int64_t panel = 0, j = 0; panel < panels; panel++) {
      const int64_t width = share(vectors, panels, panel), columns = width * LANES;
      const int64_t blocks = quotient_up(s->taps, BY_LEVEL(taps)[width]);
      const int64_t rows = least(columns, s->m - j);
      const TYPE *dy = (const TYPE *)s->dy + j * s->dy_row + p;
      EXPAND_LEVEL(turn, KIND)(n, rows, dy, s->dy_row, room, columns);
      for (int64_t i = 0; i < n && rows < columns; i++) { /* adds nothing, but must be numbers */
        for (int64_t k = rows; k < columns; k++) room[i * columns + k] = 0;
      }
      for (int64_t block = 0, tap = 0; block < blocks; block++) {
        const int64_t taps = share(s->taps, blocks, block);
        TYPE *sums = (TYPE *)s->sums + tap * vectors * LANES + j;
        NAME(sums_of)
        [width][taps](n, s->at + tap, (const TYPE *)s->columns + p, room, columns, sums,
                      vectors * LANES, s->add || part > 0);
        tap += taps;
      }
      j += columns;
    }
    p += n;
  }
}

#undef VECTOR
#undef LANES
#undef LOAD
#undef STORE
#undef KIND
#undef TYPE
