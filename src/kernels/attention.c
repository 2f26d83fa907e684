/* The tiles of attention for each float type and level of SIMD. Each tile is a product of ours
 * (kernels/gemm.h), a pass over it along the queries, and products with it. */
#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "kernels/gemm.h"
#include "kernels/math.h"

#include <string.h>

/* A tile has QUERIES columns, or FEW where no more are there; those without a query are computed
 * and not read. */
enum { QUERIES = LT_ATTENTION_QUERIES, KEYS = LT_ATTENTION_KEYS, FEW = 16, LANES = 8 };

#define INLINE static inline __attribute__((always_inline))

/* A tile of scores: rows of QUERIES elements. */
typedef struct tile {
  int64_t key, keys;      /* its first row, and how many */
  int64_t query, queries; /* its first column, and how many */
} tile;

/* Loops over a tile and along its queries. */
typedef struct tile_kernels {
  /* Adds the mask to the scores. */
  void (*mask)(const lt_attention *a, const tile *t, void *scores);
  /* Scores become exp(score - max), after max and total (sums of them) took the tile in; what was
   * summed up before must be multiplied with `decay`. */
  void (*weigh)(const tile *t, void *scores, void *max, void *total, void *decay);
  /* Rows of out, `columns` each, times decay; rows that decay by 1 are left alone. */
  void (*decay)(int64_t queries, int64_t columns, const void *decay, void *out);
  /* out /= total, and the log of the sum of exponentials. */
  void (*finish)(int64_t queries, int64_t columns, const void *max, const void *total, void *out,
                 void *lse);
  /* to[c][i] = x[i][c] * factor for `queries` rows and `columns`; zeros in the other columns. */
  void (*turn)(int64_t queries, int64_t columns, const void *x, int64_t row, int64_t col,
               double factor, void *to);
  /* dot[i] = the sum of dout * out over row i. */
  void (*dots)(int64_t queries, int64_t columns, const void *dout, int64_t row, int64_t col,
               const void *out, void *dot);
  /* Scores become p = exp(score - lse), and dp becomes scale * p * (dp - dot). */
  void (*slopes)(const tile *t, double scale, const void *lse, const void *dot, void *scores,
                 void *dp);
} tile_kernels;

#define KERNELS(NAME, TARGET, REAL)                                                                \
  TARGET static void mask_##NAME(const lt_attention *a, const tile *t, void *scores) {             \
    const REAL hidden = (REAL)-INFINITY;                                                           \
    const int64_t row = a->mask.row, col = a->mask.col, from = t->query * row + t->key * col;      \
    for (int64_t j = 0; j < t->keys && a->masked != LT_ATTENTION_ALL; j++) {                       \
      REAL *s = (REAL *)scores + j * QUERIES;                                                      \
      if (a->masked == LT_ATTENTION_KEEP) {                                                        \
        const uint8_t *m = (const uint8_t *)a->mask.data + from + j * col;                         \
        for (int64_t i = 0; i < t->queries; i++) s[i] = m[i * row] ? s[i] : hidden;                \
      } else {                                                                                     \
        const REAL *m = (const REAL *)a->mask.data + from + j * col;                               \
        for (int64_t i = 0; i < t->queries; i++) s[i] += m[i * row];                               \
      }                                                                                            \
    }                                                                                              \
    for (int64_t j = 0; j < t->keys && a->causal; j++) {                                           \
      REAL *s = (REAL *)scores + j * QUERIES;                                                      \
      int64_t before = t->key + j - t->query; /* queries that do not see key j yet */              \
      if (before > t->queries) before = t->queries;                                                \
      for (int64_t i = 0; i < before; i++) s[i] = hidden;                                          \
    }                                                                                              \
  }                                                                                                \
  INLINE TARGET void weigh_by_##NAME(const int width, int64_t keys, void *scores, void *max,       \
                                     void *total, void *decay) {                                   \
    REAL *restrict m = max, *restrict sum = total, *restrict d = decay;                            \
    REAL most[QUERIES], base[QUERIES], here[QUERIES] = {0};                                        \
    for (int i = 0; i < width; i++) most[i] = m[i];                                                \
    for (int64_t j = 0; j < keys; j++) {                                                           \
      const REAL *s = (const REAL *)scores + j * QUERIES;                                          \
      for (int i = 0; i < width; i++) most[i] = s[i] > most[i] ? s[i] : most[i];                   \
    }                                                                                              \
    for (int i = 0; i < width; i++) { /* -inf so far: every weight is 0 */                         \
      base[i] = most[i] == (REAL)-INFINITY ? 0 : most[i];                                          \
      d[i] = EXP(m[i] - base[i]);                                                                  \
      m[i] = most[i];                                                                              \
    }                                                                                              \
    for (int64_t j = 0; j < keys; j++) {                                                           \
      REAL *s = (REAL *)scores + j * QUERIES;                                                      \
      for (int i = 0; i < width; i++) {                                                            \
        REAL p = EXP(s[i] - base[i]);                                                              \
        here[i] += p;                                                                              \
        s[i] = p;                                                                                  \
      }                                                                                            \
    }                                                                                              \
    for (int i = 0; i < width; i++) sum[i] = sum[i] * d[i] + here[i];                              \
  }                                                                                                \
  TARGET static void weigh_##NAME(const tile *t, void *scores, void *max, void *total,             \
                                  void *decay) {                                                   \
    if (t->queries > FEW)                                                                          \
      weigh_by_##NAME(QUERIES, t->keys, scores, max, total, decay);                                \
    else                                                                                           \
      weigh_by_##NAME(FEW, t->keys, scores, max, total, decay);                                    \
  }                                                                                                \
  TARGET static void decay_##NAME(int64_t queries, int64_t columns, const void *decay,             \
                                  void *out) {                                                     \
    for (int64_t i = 0; i < queries; i++) {                                                        \
      const REAL d = ((const REAL *)decay)[i];                                                     \
      REAL *o = (REAL *)out + i * columns;                                                         \
      if (d == 1) continue;                                                                        \
      for (int64_t c = 0; c < columns; c++) o[c] *= d;                                             \
    }                                                                                              \
  }                                                                                                \
  TARGET static void finish_##NAME(int64_t queries, int64_t columns, const void *max,              \
                                   const void *total, void *out, void *lse) {                      \
    for (int64_t i = 0; i < queries; i++) {                                                        \
      const REAL sum = ((const REAL *)total)[i], most = ((const REAL *)max)[i];                    \
      const REAL share = sum == 0 ? 0 : 1 / sum;                                                   \
      REAL *o = (REAL *)out + i * columns;                                                         \
      for (int64_t c = 0; c < columns; c++) o[c] *= share;                                         \
      if (lse) ((REAL *)lse)[i] = sum == 0 ? (REAL)INFINITY : most + LOG(sum);                     \
    }                                                                                              \
  }                                                                                                \
  TARGET static void turn_##NAME(int64_t queries, int64_t columns, const void *x, int64_t row,     \
                                 int64_t col, double factor, void *to) {                           \
    const REAL f = (REAL)factor;                                                                   \
    for (int64_t c = 0; c < columns; c++) {                                                        \
      const REAL *from = (const REAL *)x + c * col;                                                \
      REAL *restrict y = (REAL *)to + c * QUERIES;                                                 \
      for (int64_t i = 0; i < queries; i++) y[i] = from[i * row] * f;                              \
      for (int64_t i = queries; i < QUERIES; i++) y[i] = 0;                                        \
    }                                                                                              \
  }                                                                                                \
  TARGET static void dots_##NAME(int64_t queries, int64_t columns, const void *dout, int64_t row,  \
                                 int64_t col, const void *out, void *dot) {                        \
    for (int64_t i = 0; i < QUERIES; i++) ((REAL *)dot)[i] = 0;                                    \
    for (int64_t i = 0; i < queries; i++) {                                                        \
      double lane[LANES] = {0};                                                                    \
      const REAL *g = (const REAL *)dout + i * row, *o = (const REAL *)out + i * columns;          \
      int64_t c = 0;                                                                               \
      for (; col == 1 && c + LANES <= columns; c += LANES) {                                       \
        for (int l = 0; l < LANES; l++) lane[l] += (double)g[c + l] * (double)o[c + l];            \
      }                                                                                            \
      for (; c < columns; c++) lane[0] += (double)g[c * col] * (double)o[c];                       \
      for (int l = 1; l < LANES; l++) lane[0] += lane[l];                                          \
      ((REAL *)dot)[i] = (REAL)lane[0];                                                            \
    }                                                                                              \
  }                                                                                                \
  INLINE TARGET void slopes_by_##NAME(const int width, int64_t keys, double scale,                 \
                                      const void *lse, const void *dot, void *scores, void *dp) {  \
    const REAL f = (REAL)scale;                                                                    \
    REAL base[QUERIES], mean[QUERIES];                                                             \
    memcpy(base, lse, sizeof base);                                                                \
    memcpy(mean, dot, sizeof mean);                                                                \
    for (int64_t j = 0; j < keys; j++) {                                                           \
      REAL *restrict s = (REAL *)scores + j * QUERIES, *restrict d = (REAL *)dp + j * QUERIES;     \
      for (int i = 0; i < width; i++) {                                                            \
        REAL p = EXP(s[i] - base[i]);                                                              \
        s[i] = p;                                                                                  \
        d[i] = f * (p * (d[i] - mean[i]));                                                         \
      }                                                                                            \
    }                                                                                              \
  }                                                                                                \
  TARGET static void slopes_##NAME(const tile *t, double scale, const void *lse, const void *dot,  \
                                   void *scores, void *dp) {                                       \
    if (t->queries > FEW)                                                                          \
      slopes_by_##NAME(QUERIES, t->keys, scale, lse, dot, scores, dp);                             \
    else                                                                                           \
      slopes_by_##NAME(FEW, t->keys, scale, lse, dot, scores, dp);                                 \
  }

KERNELS(f32, , float)
KERNELS(f64, , double)
KERNELS(f32_avx2, LT_TARGET_AVX2, float)
KERNELS(f64_avx2, LT_TARGET_AVX2, double)
KERNELS(f32_avx512, LT_TARGET_AVX512, float)
KERNELS(f64_avx512, LT_TARGET_AVX512, double)

#define ALL(NAME)                                                                                  \
  {                                                                                                \
    mask_##NAME, weigh_##NAME, decay_##NAME, finish_##NAME, turn_##NAME, dots_##NAME,              \
        slopes_##NAME                                                                              \
  }
static const tile_kernels kernels[LT_SIMD_COUNT][2] = {
    {ALL(f32), ALL(f64)}, {ALL(f32_avx2), ALL(f64_avx2)}, {ALL(f32_avx512), ALL(f64_avx512)}};

/* ---- Putting tiles together --------------------------------------------------------------------
 */

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static int64_t size_of(const lt_attention *a) { return lt_dtype_size(a->dtype); }

static char *moved(const lt_attention *a, const void *data, int64_t elements) {
  return (char *)(uintptr_t)data + elements * size_of(a);
}

static void multiply(const lt_attention *a, const lt_gemm *g) {
  a->dtype == LT_FLOAT32 ? lt_gemm_f32(g, a->simd, 1) : lt_gemm_f64(g, a->simd, 1);
}

/* Where the parts of the scratch begin, in elements. */
typedef struct places {
  int64_t scores, dp, q, dout, max, total, decay, end;
} places;

static places places_of(const lt_attention *a) {
  places p = {.scores = 0, .dp = KEYS * QUERIES, .q = 2 * KEYS * QUERIES};
  p.dout = p.q + a->e * QUERIES;
  p.max = p.dout + a->ev * QUERIES;
  p.total = p.max + QUERIES;
  p.decay = p.total + QUERIES;
  p.end = p.decay + QUERIES;
  return p;
}

int64_t lt_attention_scratch(const lt_attention *a) { return places_of(a).end * size_of(a); }

/* Keys that some query up to the last of the tile may see. */
static int64_t keys_seen(const lt_attention *a, const tile *t) {
  return a->causal ? least(a->s, t->query + t->queries) : a->s;
}

/* x (keys x depth) times a turned y (depth x queries): a tile. */
static void make_tile(const lt_attention *a, const tile *t, const lt_attention_matrix *x,
                      int64_t depth, const void *y, void *to) {
  multiply(a, &(lt_gemm){.m = t->keys,
                         .n = t->queries > FEW ? QUERIES : FEW,
                         .k = depth,
                         .a = moved(a, x->data, t->key * x->row),
                         .a_row = x->row,
                         .a_col = x->col,
                         .b = y,
                         .b_row = QUERIES,
                         .b_col = 1,
                         .c = to,
                         .c_row = QUERIES,
                         .c_col = 1});
}

static void make_scores(const lt_attention *a, const tile_kernels *k, const tile *t, const void *q,
                        void *scores) {
  make_tile(a, t, &a->k, a->e, q, scores);
  bool crosses = a->causal && t->key + t->keys - 1 > t->query;
  if (a->masked != LT_ATTENTION_ALL || crosses) k->mask(a, t, scores);
}

/* to (queries x columns) += tile^T x. */
static void add_by_query(const lt_attention *a, const tile *t, const void *of,
                         const lt_attention_matrix *x, int64_t columns, void *to) {
  multiply(a, &(lt_gemm){.m = t->queries,
                         .n = columns,
                         .k = t->keys,
                         .a = of,
                         .a_row = 1,
                         .a_col = QUERIES,
                         .b = moved(a, x->data, t->key * x->row),
                         .b_row = x->row,
                         .b_col = x->col,
                         .c = moved(a, to, t->query * columns),
                         .c_row = columns,
                         .c_col = 1,
                         .accumulate = true});
}

/* to (keys x columns) += tile x. */
static void add_by_key(const lt_attention *a, const tile *t, const void *of,
                       const lt_attention_matrix *x, int64_t columns, void *to) {
  multiply(a, &(lt_gemm){.m = t->keys,
                         .n = columns,
                         .k = t->queries,
                         .a = of,
                         .a_row = QUERIES,
                         .a_col = 1,
                         .b = moved(a, x->data, t->query * x->row),
                         .b_row = x->row,
                         .b_col = x->col,
                         .c = moved(a, to, t->key * columns),
                         .c_row = columns,
                         .c_col = 1,
                         .accumulate = true});
}

static void fill(const lt_attention *a, void *data, int64_t n, double value) {
  for (int64_t i = 0; i < n; i++) {
    if (a->dtype == LT_FLOAT32)
      ((float *)data)[i] = (float)value;
    else
      ((double *)data)[i] = value;
  }
}

void lt_attention_forward(const lt_attention *a, int64_t first, void *scratch) {
  const tile_kernels *k = &kernels[a->simd][a->dtype];
  const places p = places_of(a);
  tile t = {.query = first, .queries = least(QUERIES, a->l - first)};
  char *scores = moved(a, scratch, p.scores), *q = moved(a, scratch, p.q);
  char *max = moved(a, scratch, p.max), *total = moved(a, scratch, p.total);
  char *decay = moved(a, scratch, p.decay), *out = moved(a, a->out, first * a->ev);
  int64_t seen = keys_seen(a, &t);
  k->turn(t.queries, a->e, moved(a, a->q.data, first * a->q.row), a->q.row, a->q.col, a->scale, q);
  fill(a, max, QUERIES, -INFINITY);
  fill(a, total, QUERIES, 0);
  memset(out, 0, (size_t)(t.queries * a->ev * size_of(a)));
  for (; t.key < seen; t.key += KEYS) {
    t.keys = least(KEYS, seen - t.key);
    make_scores(a, k, &t, q, scores);
    k->weigh(&t, scores, max, total, decay);
    if (t.key > 0) k->decay(t.queries, a->ev, decay, out);
    add_by_query(a, &t, scores, &a->v, a->ev, a->out);
  }
  k->finish(t.queries, a->ev, max, total, out, a->lse ? moved(a, a->lse, first) : NULL);
}

void lt_attention_backward(const lt_attention *a, void *scratch) {
  const tile_kernels *k = &kernels[a->simd][a->dtype];
  const places p = places_of(a);
  char *scores = moved(a, scratch, p.scores), *dp = moved(a, scratch, p.dp);
  char *q = moved(a, scratch, p.q), *dout = moved(a, scratch, p.dout);
  char *lse = moved(a, scratch, p.max), *dot = moved(a, scratch, p.total);
  for (int64_t first = 0; first < a->l; first += QUERIES) {
    tile t = {.query = first, .queries = least(QUERIES, a->l - first)};
    int64_t seen = keys_seen(a, &t);
    const char *g = moved(a, a->dout.data, first * a->dout.row);
    k->turn(t.queries, a->e, moved(a, a->q.data, first * a->q.row), a->q.row, a->q.col, a->scale,
            q);
    k->turn(t.queries, a->ev, g, a->dout.row, a->dout.col, 1, dout);
    k->dots(t.queries, a->ev, g, a->dout.row, a->dout.col, moved(a, a->out, first * a->ev), dot);
    fill(a, lse, QUERIES, 0);
    memcpy(lse, moved(a, a->lse, first), (size_t)(t.queries * size_of(a)));
    for (; t.key < seen; t.key += KEYS) {
      t.keys = least(KEYS, seen - t.key);
      make_scores(a, k, &t, q, scores);
      make_tile(a, &t, &a->v, a->ev, dout, dp);
      k->slopes(&t, a->scale, lse, dot, scores, dp);
      add_by_key(a, &t, scores, &a->dout, a->ev, a->dv);
      add_by_key(a, &t, dp, &a->q, a->e, a->dk);
      add_by_query(a, &t, dp, &a->k, a->e, a->dq);
    }
  }
}
