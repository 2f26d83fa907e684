/* The direct product, for one element type and one instruction set: included by gemm_small.c, which
 * defines the macros; those of the type are undefined again at the end. Three ways through it:
 *
 * - tiles: a tile of C in registers, rows of B in vectors, elements of A broadcast. A may be stored
 *   in any way. B needs rows of neighbours: another B is packed, a panel at a time, on the stack. A
 *   C without rows of neighbours gets its tiles through a buffer.
 * - tiles of C' = B' A': the same with the roles of A and B, rows and columns exchanged.
 * - dots: where rows of A and columns of B both lie along k. Nothing is packed, which pays when
 *   each element would be used only a few times.
 *
 * k is cut at multiples of DEPTH, and each element of C is summed in order: so where the tiles lie,
 * and which thread computes them, has no part in the result. */

#define PANEL (TILE_WIDTH * LANES)
#define FAR (2048 / (int64_t)sizeof(TYPE))

/* The tile: C (rows x vectors) = [C +] A (rows x k) B (k x vectors), of the last vector `last`. */
INLINE void NAME(tile)(const int rows, const int vectors, int64_t k, const TYPE *a, int64_t a_row,
                       int64_t a_col, const TYPE *b, int64_t b_row, TYPE *c, int64_t c_row,
                       MASK last, bool add) {
  VECTOR sum[TILE_HEIGHT][TILE_WIDTH], row[TILE_WIDTH];
  const int end = vectors - 1;
  (void)last;
  UNROLL for (int i = 0; i < rows; i++) {
    UNROLL for (int j = 0; j < vectors; j++) sum[i][j] = SPLAT((TYPE)0);
  }
  for (int64_t p = 0; p < k; p++, a += a_col, b += b_row) {
    UNROLL for (int j = 0; j < end; j++) row[j] = LOAD(b + j * LANES);
    row[end] = LOAD_PART(last, b + end * LANES);
    UNROLL for (int i = 0; i < rows; i++) {
      VECTOR x = SPLAT(a[i * a_row]);
      UNROLL for (int j = 0; j < vectors; j++) sum[i][j] = FMA(x, row[j], sum[i][j]);
    }
  }
  UNROLL for (int i = 0; i < rows; i++, c += c_row) {
    if (add) {
      UNROLL for (int j = 0; j < end; j++) sum[i][j] += LOAD(c + j * LANES);
      sum[i][end] += LOAD_PART(last, c + end * LANES);
    }
    UNROLL for (int j = 0; j < end; j++) STORE(c + j * LANES, sum[i][j]);
    STORE_PART(c + end * LANES, last, sum[i][end]);
  }
}

typedef void NAME(tile_function)(int64_t, const TYPE *, int64_t, int64_t, const TYPE *, int64_t,
                                 TYPE *, int64_t, MASK, bool);
#define DEFINE(rows, vectors)                                                                      \
  static TARGET void NAME(tile_##rows##x##vectors)(int64_t k, const TYPE *a, int64_t a_row,        \
                                                   int64_t a_col, const TYPE *b, int64_t b_row,    \
                                                   TYPE *c, int64_t c_row, MASK last, bool add) {  \
    NAME(tile)(rows, vectors, k, a, a_row, a_col, b, b_row, c, c_row, last, add);                  \
  }
TILES(DEFINE)
#undef DEFINE
#define ENTRY(rows, vectors) [vectors][rows] = NAME(tile_##rows##x##vectors),
static NAME(tile_function) *const NAME(tile_of)[TILE_WIDTH + 1][TILE_HEIGHT + 1] = {TILES(ENTRY)};
#undef ENTRY

#if MASKED
/* QUAD neighbours of each of LANES columns, from p on, into QUAD rows. */
INLINE void NAME(turn)(const TYPE *const *column, int64_t p, TYPE *to) {
  VECTOR in[QUAD];
  UNROLL for (int i = 0; i < QUAD; i++) in[i] = GATHER(column + i, p);
#  if QUAD == 4
  VECTOR a = OP(unpacklo)(in[0], in[1]), b = OP(unpackhi)(in[0], in[1]);
  VECTOR c = OP(unpacklo)(in[2], in[3]), d = OP(unpackhi)(in[2], in[3]);
  STORE(to, OP(shuffle)(a, c, 0x44));
  STORE(to + PANEL, OP(shuffle)(a, c, 0xee));
  STORE(to + 2 * PANEL, OP(shuffle)(b, d, 0x44));
  STORE(to + 3 * PANEL, OP(shuffle)(b, d, 0xee));
#  else
  STORE(to, OP(unpacklo)(in[0], in[1]));
  STORE(to + PANEL, OP(unpackhi)(in[0], in[1]));
#  endif
}
#endif

/* A block of B (depth x cols) into neighbouring rows of PANEL elements, full vectors of them. */
static TARGET void NAME(pack)(int64_t depth, int64_t cols, const TYPE *b, int64_t b_row,
                              int64_t b_col, TYPE *to) {
#if MASKED
  if (b_row == 1) { /* columns of neighbours: transposed QUAD elements of LANES columns at a time */
    for (int64_t j = 0; j < cols; j += LANES) {
      const TYPE *column[LANES]; /* beyond the last column the last again: never looked at */
      for (int64_t i = 0; i < LANES; i++) column[i] = b + least(j + i, cols - 1) * b_col;
      int64_t p = 0;
      for (; p + QUAD <= depth; p += QUAD) NAME(turn)(column, p, to + p * PANEL + j);
      for (; p < depth; p++) {
        for (int64_t i = 0; i < LANES; i++) to[p * PANEL + j + i] = column[i][p];
      }
    }
    return;
  }
#endif
  for (int64_t p = 0; p < depth; p++) {
    for (int64_t j = 0; j < cols; j++) to[p * PANEL + j] = b[p * b_row + j * b_col];
    for (int64_t j = cols; j % LANES != 0; j++) to[p * PANEL + j] = 0;
  }
}

/* A tile from rows of PANEL elements to where it belongs in C. */
static TARGET void NAME(scatter)(int64_t rows, int64_t cols, const TYPE *from, TYPE *c,
                                 int64_t c_row, int64_t c_col, bool add) {
  for (int64_t j = 0; j < cols; j++) {
    TYPE *to = c + j * c_col;
    if (add) {
      for (int64_t i = 0; i < rows; i++) to[i * c_row] += from[i * PANEL + j];
    } else {
      for (int64_t i = 0; i < rows; i++) to[i * c_row] = from[i * PANEL + j];
    }
  }
}

static TARGET void NAME(by_tiles)(const lt_gemm *g) {
  TYPE packed[DEPTH * PANEL] __attribute__((aligned(64)));
  TYPE aside[TILE_HEIGHT * PANEL] __attribute__((aligned(64)));
  const int64_t vectors = quotient_up(g->n, LANES), panels = quotient_up(vectors, TILE_WIDTH);
  /* Rows of B that lie far apart crowd the same few places of the caches. */
  const bool far = g->b_col == 1 && (g->b_row >= FAR || g->b_row <= -FAR);
  const int64_t deepest = far ? DEPTH / 2 : DEPTH;
  for (int64_t p = 0; p < g->k; p += deepest) {
    const int64_t depth = least(deepest, g->k - p);
    const bool add = g->accumulate || p > 0;
    for (int64_t panel = 0, j = 0; panel < panels; panel++) {
      const int64_t width = share(vectors, panels, panel);
      const int64_t cols = least(width * LANES, g->n - j);
      const int64_t blocks = quotient_up(g->m, BY_LEVEL(rows)[width]);
      const bool padded = !MASKED && cols % LANES != 0;
      const MASK last = FIRST(cols - (width - 1) * LANES);
      const TYPE *b = (const TYPE *)g->b + p * g->b_row + j * g->b_col;
      int64_t b_row = g->b_row;
      if (g->b_col != 1 || padded) {
        NAME(pack)(depth, cols, b, g->b_row, g->b_col, packed);
        b = packed;
        b_row = PANEL;
      }
      for (int64_t block = 0, i = 0; block < blocks; block++) {
        const int64_t rows = share(g->m, blocks, block);
        const TYPE *a = (const TYPE *)g->a + i * g->a_row + p * g->a_col;
        TYPE *c = (TYPE *)g->c + i * g->c_row + j * g->c_col;
        NAME(tile_function) *tile = NAME(tile_of)[width][rows];
        if (g->c_col != 1 || padded) {
          tile(depth, a, g->a_row, g->a_col, b, b_row, aside, PANEL, last, false);
          NAME(scatter)(rows, cols, aside, c, g->c_row, g->c_col, add);
        } else {
          tile(depth, a, g->a_row, g->a_col, b, b_row, c, g->c_row, last, add);
        }
        i += rows;
      }
      j += cols;
    }
  }
}

/* C of `rows` rows and `cols` columns by dots, each in `ways` sums: a lone sum waits for itself. */
INLINE void NAME(dots)(const int rows, const int cols, const int ways, const lt_gemm *g, int64_t i,
                       int64_t j) {
  VECTOR sum[DOT_ROWS][4][8];
  const TYPE *a = (const TYPE *)g->a + i * g->a_row, *b = (const TYPE *)g->b + j * g->b_col;
  int64_t p = 0;
  UNROLL for (int x = 0; x < rows; x++) {
    UNROLL for (int y = 0; y < cols; y++) {
      UNROLL for (int w = 0; w < ways; w++) sum[x][y][w] = SPLAT((TYPE)0);
    }
  }
  for (; p + ways * LANES <= g->k; p += ways * LANES) {
    UNROLL for (int w = 0; w < ways; w++) {
      UNROLL for (int y = 0; y < cols; y++) {
        VECTOR column = LOAD(b + y * g->b_col + p + w * LANES);
        UNROLL for (int x = 0; x < rows; x++) {
          sum[x][y][w] = FMA(LOAD(a + x * g->a_row + p + w * LANES), column, sum[x][y][w]);
        }
      }
    }
  }
  UNROLL for (int w = 1; w < ways; w++) {
    UNROLL for (int x = 0; x < rows; x++) {
      UNROLL for (int y = 0; y < cols; y++) sum[x][y][0] += sum[x][y][w];
    }
  }
#if MASKED
  for (; p < g->k; p += LANES) {
    const MASK mask = FIRST(least(LANES, g->k - p));
    UNROLL for (int y = 0; y < cols; y++) {
      VECTOR column = LOAD_PART(mask, b + y * g->b_col + p);
      UNROLL for (int x = 0; x < rows; x++) {
        sum[x][y][0] = FMA(LOAD_PART(mask, a + x * g->a_row + p), column, sum[x][y][0]);
      }
    }
  }
#endif
  UNROLL for (int x = 0; x < rows; x++) {
    UNROLL for (int y = 0; y < cols; y++) {
      TYPE *c = (TYPE *)g->c + (i + x) * g->c_row + (j + y) * g->c_col, dot = SUM(sum[x][y][0]);
      for (int64_t q = p; q < g->k; q++) dot += a[x * g->a_row + q] * b[y * g->b_col + q];
      *c = g->accumulate ? *c + dot : dot;
    }
  }
}

static TARGET void NAME(dots_1x1)(const lt_gemm *g, int64_t i, int64_t j) {
  NAME(dots)(1, 1, 8, g, i, j);
}
static TARGET void NAME(dots_1x4)(const lt_gemm *g, int64_t i, int64_t j) {
  NAME(dots)(1, 4, 2, g, i, j);
}
static TARGET void NAME(dots_Nx1)(const lt_gemm *g, int64_t i, int64_t j) {
  NAME(dots)(DOT_ROWS, 1, 2, g, i, j);
}
static TARGET void NAME(dots_Nx4)(const lt_gemm *g, int64_t i, int64_t j) {
  NAME(dots)(DOT_ROWS, 4, 1, g, i, j);
}

static TARGET void NAME(by_dots)(const lt_gemm *g) {
  for (int64_t j = 0; j < g->n;) {
    const int64_t cols = g->n - j >= 4 ? 4 : 1;
    int64_t i = 0;
    for (; i + DOT_ROWS <= g->m; i += DOT_ROWS) {
      cols == 4 ? NAME(dots_Nx4)(g, i, j) : NAME(dots_Nx1)(g, i, j);
    }
    for (; i < g->m; i++) cols == 4 ? NAME(dots_1x4)(g, i, j) : NAME(dots_1x1)(g, i, j);
    j += cols;
  }
}

/* What a way costs, in half cycles or so: vectors multiplied (a tile of fewer than 8 sums waits for
 * them), elements packed and scattered, vectors summed up. Measured weights: of 1448 shapes the
 * choice was 1 or 2 % slower than the best way on average. */
static double NAME(cost_of_tiles)(const lt_gemm *g) {
  const int64_t vectors = quotient_up(g->n, LANES), panels = quotient_up(vectors, TILE_WIDTH);
  const int64_t blocks = quotient_up(g->m, BY_LEVEL(rows)[quotient_up(vectors, panels)]);
  const double m = (double)g->m, n = (double)g->n, k = (double)g->k;
  double cost = 60 + k * (double)most(g->m * vectors, 8 * panels * blocks);
  if (g->b_col != 1) cost += n * k * (MASKED && g->b_row == 1 ? 6.0 / LANES : 2);
  if (g->c_col != 1) cost += m * n * 2 * (double)quotient_up(g->k, DEPTH);
  return cost;
}

static double NAME(cost_of_dots)(const lt_gemm *g) {
  return (double)g->m * (double)g->n * (1.2 * (double)quotient_up(g->k, LANES) + 8);
}

/* The cheapest way to this product, and in *as the product to hand to it. */
static product_function *NAME(choose)(const lt_gemm *g, lt_gemm *as) {
  const lt_gemm t = transposed(g);
  const double cost = NAME(cost_of_tiles)(g), cost_transposed = NAME(cost_of_tiles)(&t);
  const double best = cost <= cost_transposed ? cost : cost_transposed;
  *as = *g;
  if (g->a_col == 1 && g->b_row == 1 && NAME(cost_of_dots)(g) < best) return NAME(by_dots);
  if (cost_transposed < cost) *as = t;
  return NAME(by_tiles);
}

#undef PANEL
#undef FAR
#undef KIND
#undef TYPE
#undef LANES
#undef QUAD
#undef VECTOR
#undef SUM
