/* Products of matrices. Every operand is a first matrix, its two strides and the strides of the
 * batch; transposed and broadcast operands are nothing but other strides. */
#include "core/context.h"
#include "kernels/copy.h"
#include "kernels/gemm.h"
#include "kernels/loop.h"
#include "kernels/parallel.h"
#include "ops/family.h"
#include "tape/forward.h"
#include "tape/vmap.h"

/* ---- Running products ------------------------------------------------------------------------ */

/* Products of one size, and where each finds its operands. */
typedef struct products {
  lt_gemm g; /* the first */
  lt_dtype dtype;
  lt_simd simd;
  lt_shape batch;
  int64_t stride[3][LT_MAX_RANK]; /* of C, A and B along the batch */
  lt_loop loop;                   /* over the batch */
} products;

/* Operations of one product, in the unit of lt_threads_for: some 16 floating point operations. */
static double operations(const lt_gemm *g) {
  return (double)g->m * (double)g->n * (double)g->k / 8;
}

static void multiply(const products *p, const lt_gemm *g, int threads) {
  if (p->dtype == LT_FLOAT64)
    lt_gemm_f64(g, p->simd, threads);
  else
    lt_gemm_f32(g, p->simd, threads);
}

static const char *shifted(const products *p, const void *data, int64_t elements) {
  return (const char *)data + elements * lt_dtype_size(p->dtype);
}

static lt_gemm product_number(const products *p, int64_t i) {
  int64_t offset[LT_LOOP_OPERANDS], place = i % p->loop.length;
  lt_gemm g = p->g;
  lt_loop_row(&p->loop, i / p->loop.length, offset);
  g.c = (char *)g.c + (offset[0] + place * p->loop.step[0]) * lt_dtype_size(p->dtype);
  g.a = shifted(p, g.a, offset[1] + place * p->loop.step[1]);
  g.b = shifted(p, g.b, offset[2] + place * p->loop.step[2]);
  return g;
}

static void products_task(void *argument, int64_t first, int64_t last) {
  const products *p = argument;
  for (int64_t i = first; i < last; i++) {
    lt_gemm g = product_number(p, i);
    multiply(p, &g, 1);
  }
}

/* A product of more operations than this is cut into slabs: the threads' tasks, and the steps
 * between two looks at the interrupt flag. The slabs follow from the sizes alone. Inside a slab
 * BLIS runs one thread: its own spin at barriers, and on a busy machine wait for one another for
 * seconds. */
static const double CUT = (double)((int64_t)1 << 22);

typedef struct slabs {
  const products *p;
  lt_gemm g;
  bool rows;      /* along m, or along n */
  int64_t extent; /* rows or columns of a slab */
} slabs;

static void slabs_task(void *argument, int64_t first, int64_t last) {
  const slabs *s = argument;
  for (int64_t i = first; i < last; i++) {
    lt_gemm g = s->g;
    int64_t at = i * s->extent, *size = s->rows ? &g.m : &g.n;
    int64_t c_step = s->rows ? g.c_row : g.c_col;
    *size = *size - at < s->extent ? *size - at : s->extent;
    if (s->rows)
      g.a = shifted(s->p, g.a, at * g.a_row);
    else
      g.b = shifted(s->p, g.b, at * g.b_col);
    g.c = (char *)g.c + at * c_step * lt_dtype_size(s->p->dtype);
    multiply(s->p, &g, 1);
  }
}

/* Slabs of at most 512, an even number of them. */
static lt_status in_slabs(lt_context *ctx, const products *p, lt_gemm g) {
  enum { PAIR = 1024, ALIGN = 32 };
  double work = operations(&g) < 0x1p60 ? operations(&g) : 0x1p60;
  if (work <= CUT) {
    multiply(p, &g, lt_threads_for(ctx, (int64_t)work));
    return LT_OK;
  }
  slabs s = {.p = p, .g = g, .rows = g.m >= g.n};
  int64_t whole = s.rows ? g.m : g.n, count = 2 * ((whole + PAIR - 1) / PAIR);
  s.extent = (whole + count - 1) / count;
  s.extent = (s.extent + ALIGN - 1) / ALIGN * ALIGN;
  return lt_parallel(ctx, (whole + s.extent - 1) / s.extent, (int64_t)work, slabs_task, &s);
}

/* Rows of A that continue from matrix to matrix, against one B for all, are one tall matrix. */
static void stack_rows(products *p) {
  lt_gemm *g = &p->g;
  while (p->batch.ndim > 0) {
    int d = p->batch.ndim - 1;
    int64_t size = p->batch.size[d];
    bool continues = g->m == 1 || p->stride[1][d] == g->m * g->a_row;
    if (size != 1 && !(p->stride[2][d] == 0 && continues)) return;
    if (size != 1) {
      if (g->m == 1) g->a_row = p->stride[1][d], g->c_row = p->stride[0][d];
      g->m *= size;
    }
    p->batch.ndim--;
  }
}

static lt_status run(lt_context *ctx, products *p) {
  p->simd = ctx->simd;
  stack_rows(p);
  lt_loop_build(&p->loop, &p->batch, 3,
                (const int64_t *const[]){p->stride[0], p->stride[1], p->stride[2]});
  int64_t count = p->loop.rows * p->loop.length;
  double each = operations(&p->g);
  if (p->g.m == 0 || p->g.n == 0 || count == 0) return LT_OK;
  bool large = lt_threads_for(ctx, (int64_t)(each < CUT ? each : CUT)) > 1;
  if (each <= CUT && count > 1 && (!large || count >= 4 * (int64_t)ctx->threads)) {
    double all = each * (double)count + (double)count;
    return lt_parallel(ctx, count, (int64_t)(all < 0x1p60 ? all : 0x1p60), products_task, p);
  }
  for (int64_t i = 0; i < count; i++) {
    if (i > 0) LT_TRY(lt_check_interrupt(ctx));
    LT_TRY(in_slabs(ctx, p, product_number(p, i)));
  }
  return LT_OK;
}

/* ---- matmul ---------------------------------------------------------------------------------- */

static lt_status check_types(lt_call *c) {
  for (int i = 1; i < c->inputs; i++) {
    if (!c->in[i] || c->in[i]->dtype == c->in[0]->dtype) continue;
    const char *name = lt_dtype_name((lt_dtype)c->in[0]->dtype);
    return lt_fail(c->ctx, "%s: dtypes differ (%s and %s); convert one, as in x:to(\"%s\")",
                   c->op->name, name, lt_dtype_name((lt_dtype)c->in[i]->dtype), name);
  }
  return LT_OK;
}

/* The sizes of a, or of b, as a matrix: a vector is a row on the left, a column on the right. */
static void matrix_sizes(const lt_shape *s, bool left, int64_t *rows, int64_t *columns) {
  *rows = s->ndim > 1 ? s->size[s->ndim - 2] : left ? 1 : s->size[0];
  *columns = s->ndim > 1 || left ? s->size[s->ndim - 1] : 1;
}

static lt_shape batch_of(const lt_shape *s) {
  return lt_shape_make(s->ndim > 2 ? s->ndim - 2 : 0, s->size);
}

static lt_status matmul_infer(lt_call *c) {
  const lt_shape *a = &c->in[0]->shape, *b = &c->in[1]->shape;
  char left[LT_SHAPE_TEXT], right[LT_SHAPE_TEXT];
  int64_t m, n, k, inner;
  LT_TRY(check_types(c));
  if (a->ndim == 0 || b->ndim == 0) {
    return lt_fail(c->ctx, "%s: a 0-d tensor is no matrix (%s and %s); mul takes numbers",
                   c->op->name, lt_shape_text(a, left), lt_shape_text(b, right));
  }
  matrix_sizes(a, true, &m, &k);
  matrix_sizes(b, false, &inner, &n);
  if (k != inner) {
    return lt_fail(c->ctx, "%s: inner sizes differ (%s and %s)", c->op->name,
                   lt_shape_text(a, left), lt_shape_text(b, right));
  }
  lt_shape shape = batch_of(a), other = batch_of(b);
  if (!lt_shape_broadcast(&shape, &other)) {
    return lt_fail(c->ctx, "%s: batch sizes do not broadcast (%s and %s)", c->op->name,
                   lt_shape_text(a, left), lt_shape_text(b, right));
  }
  if (a->ndim > 1) shape.size[shape.ndim++] = m;
  if (b->ndim > 1) shape.size[shape.ndim++] = n;
  c->result[0] = (lt_spec){(lt_dtype)c->in[0]->dtype, shape};
  return LT_OK;
}

/* The strides of t along the batch. */
static void batch_strides(const lt_tensor *t, const lt_shape *batch, int64_t *strides) {
  lt_shape own = batch_of(&t->shape);
  int shift = batch->ndim - own.ndim;
  for (int d = 0; d < batch->ndim; d++) {
    strides[d] = d < shift || own.size[d - shift] == 1 ? 0 : t->strides[d - shift];
  }
}

static lt_status matmul_forward(lt_call *c) {
  const lt_tensor *a = c->in[0], *b = c->in[1];
  lt_tensor *y = c->out[0];
  int64_t inner;
  products p = {.dtype = (lt_dtype)y->dtype, .g = {.a = a->data, .b = b->data, .c = y->data}};
  lt_gemm *g = &p.g;
  matrix_sizes(&a->shape, true, &g->m, &g->k);
  matrix_sizes(&b->shape, false, &inner, &g->n);
  int an = a->shape.ndim, bn = b->shape.ndim;
  g->a_row = an > 1 ? a->strides[an - 2] : 0;
  g->a_col = a->strides[an - 1];
  g->b_row = b->strides[bn > 1 ? bn - 2 : 0];
  g->b_col = bn > 1 ? b->strides[bn - 1] : 0;
  g->c_row = g->n;
  g->c_col = 1;
  p.batch = lt_shape_make(y->shape.ndim - (an > 1) - (bn > 1), y->shape.size);
  batch_strides(a, &p.batch, p.stride[1]);
  batch_strides(b, &p.batch, p.stride[2]);
  for (int d = 0; d < p.batch.ndim; d++) p.stride[0][d] = y->strides[d];
  return run(c->ctx, &p);
}

static lt_tensor *product(lt_vjp *v, lt_tensor *a, lt_tensor *b) {
  return lt_do2(v->s, &lt_op_matmul, NULL, a, b);
}

static lt_tensor *transposed(lt_vjp *v, lt_tensor *a) {
  return lt_do1(v->s, &lt_op_transpose, NULL, a);
}

/* t with its leading dimensions made one. */
static lt_tensor *flat(lt_vjp *v, lt_tensor *t) {
  if (!t || t->shape.ndim == 2) return t;
  int64_t columns = t->shape.size[t->shape.ndim - 1], rows = 1;
  for (int d = 0; d < t->shape.ndim - 1; d++) rows *= t->shape.size[d];
  lt_shape shape = lt_shape_make(2, (int64_t[]){rows, columns});
  return lt_reshape_to(v->s, t, &shape);
}

/* dA = dY B^T, dB = A^T dY, on matrices; lt_give sums the batch where an operand had none. */
static void matmul_vjp(lt_vjp *v) {
  lt_shape a = lt_input_spec(v, 0).shape, b = lt_input_spec(v, 1).shape;
  lt_shape dy_shape = batch_of(&a), other = batch_of(&b), left = a, right = b;
  lt_shape_broadcast(&dy_shape, &other);
  if (a.ndim == 1) left = lt_shape_make(2, (int64_t[]){1, a.size[0]});
  if (b.ndim == 1) right = lt_shape_make(2, (int64_t[]){b.size[0], 1});
  dy_shape.size[dy_shape.ndim++] = left.size[left.ndim - 2];
  dy_shape.size[dy_shape.ndim++] = right.size[right.ndim - 1];
  lt_tensor *dy = lt_reshape_to(v->s, v->dy[0], &dy_shape);
  if (v->need[0]) {
    lt_give(v, 0, product(v, dy, transposed(v, lt_reshape_to(v->s, v->in[1], &right))));
  }
  if (!v->need[1]) return;
  lt_tensor *x = lt_reshape_to(v->s, v->in[0], &left);
  if (right.ndim == 2) { /* the sum over the batch is a product too */
    x = flat(v, x);
    dy = flat(v, dy);
  }
  lt_tensor *db = product(v, transposed(v, x), dy);
  lt_give(v, 1, b.ndim == 1 ? lt_reshape_to(v->s, db, &b) : db);
}

/* Vectors become a matrix of one row or column; the batch stands before all dimensions. */
static lt_tensor *lifted(lt_batch *b, int i, int rank) {
  const lt_shape *x = &b->in[i]->shape;
  lt_shape y = {0};
  bool vector = x->ndim == 1;
  if (b->over[i]) {
    y.size[y.ndim++] = b->size;
    for (int pad = rank - (vector ? 2 : x->ndim); pad > 0; pad--) y.size[y.ndim++] = 1;
  }
  if (vector && i == 0) y.size[y.ndim++] = 1;
  for (int d = 0; d < x->ndim; d++) y.size[y.ndim++] = x->size[d];
  if (vector && i == 1) y.size[y.ndim++] = 1;
  return lt_reshape_to(b->s, b->over[i] ? b->over[i] : b->in[i], &y);
}

static void matmul_batch(lt_batch *b) {
  int left = b->in[0]->shape.ndim, right = b->in[1]->shape.ndim;
  int rank = left > right ? left : right;
  lt_tensor *x, *y;
  if (left == 1 && !b->over[1] && right <= 2) { /* rows of one product */
    x = b->over[0];
    y = b->in[1];
  } else if (right == 1 && !b->over[0] && left <= 2) {
    x = b->over[1];
    y = left == 2 ? lt_do1(b->s, &lt_op_transpose, NULL, b->in[0]) : b->in[0];
  } else if (rank + 1 > LT_MAX_RANK) {
    lt_batch_each(b);
    return;
  } else {
    x = lifted(b, 0, rank < 2 ? 2 : rank);
    y = lifted(b, 1, rank < 2 ? 2 : rank);
  }
  lt_shape all = lt_batch_shape(b, &b->result[0].shape);
  lt_batch_give(b, lt_reshape_to(b->s, lt_do2(b->s, &lt_op_matmul, NULL, x, y), &all));
}

const lt_op lt_op_matmul = {
    .name = "matmul",
    .doc = "Product of matrices, y = x other: m x k by k x n gives m x n. A vector is a row on the "
           "left and a column on the right, and its dimension goes; leading dimensions are a "
           "batch and broadcast.",
    .inputs = {{"x", LT_FLOAT}, {"other", LT_FLOAT}},
    .infer = matmul_infer,
    .forward = matmul_forward,
    .vjp = matmul_vjp,
    .multilinear = true,
    .batch = matmul_batch,
    .saves = LT_IN(0) | LT_IN(1),
    .crosswise = true,
    .sample = {"normal(3, 4), normal(4, 2)", "transposed(2, 3), transposed(3, 2)",
               "normal(3), normal(3)", "normal(2, 3, 4), normal(4, 2)",
               "normal(2, 1, 3, 4), normal(3, 4, 2)", "normal(4), normal(2, 4, 3)",
               "normal(2, 3, 4), normal(4)", "normal(3, 4), normal(2, 4, 1)"},
};

/* ---- mm, bmm, mv, dot: matmul for operands of fixed ranks
 * ---------------------------------------- */

static lt_status check_ranks(lt_call *c, int left, int right) {
  const lt_shape *a = &c->in[0]->shape, *b = &c->in[1]->shape;
  char first[LT_SHAPE_TEXT], second[LT_SHAPE_TEXT];
  if (a->ndim != left || b->ndim != right) {
    return lt_fail(c->ctx, "%s: takes tensors of %d and %d dimensions (got %s and %s)", c->op->name,
                   left, right, lt_shape_text(a, first), lt_shape_text(b, second));
  }
  if (left == 3 && a->size[0] != b->size[0]) {
    return lt_fail(c->ctx, "%s: batch sizes differ (%s and %s)", c->op->name,
                   lt_shape_text(a, first), lt_shape_text(b, second));
  }
  return matmul_infer(c);
}

static lt_status mm_infer(lt_call *c) { return check_ranks(c, 2, 2); }
static lt_status bmm_infer(lt_call *c) { return check_ranks(c, 3, 3); }
static lt_status mv_infer(lt_call *c) { return check_ranks(c, 2, 1); }
static lt_status dot_infer(lt_call *c) { return check_ranks(c, 1, 1); }

const lt_op lt_op_mm = {
    .name = "mm",
    .doc = "Product of two matrices, m x k by k x n.",
    .inputs = {{"x", LT_FLOAT}, {"other", LT_FLOAT}},
    .infer = mm_infer,
    .forward = matmul_forward,
    .vjp = matmul_vjp,
    .multilinear = true,
    .batch = matmul_batch,
    .saves = LT_IN(0) | LT_IN(1),
    .crosswise = true,
    .sample = {"normal(3, 4), normal(4, 2)", "transposed(2, 3), transposed(3, 2)"},
};

const lt_op lt_op_bmm = {
    .name = "bmm",
    .doc = "Products of matrices in two batches of equal size, b x m x k by b x k x n.",
    .inputs = {{"x", LT_FLOAT}, {"other", LT_FLOAT}},
    .infer = bmm_infer,
    .forward = matmul_forward,
    .vjp = matmul_vjp,
    .multilinear = true,
    .batch = matmul_batch,
    .saves = LT_IN(0) | LT_IN(1),
    .crosswise = true,
    .sample = {"normal(2, 3, 4), normal(2, 4, 2)", "normal(2, 3, 4), transposed(2, 4, 2)"},
};

const lt_op lt_op_mv = {
    .name = "mv",
    .doc = "Product of a matrix and a vector, m x k by k.",
    .inputs = {{"x", LT_FLOAT}, {"vec", LT_FLOAT}},
    .infer = mv_infer,
    .forward = matmul_forward,
    .vjp = matmul_vjp,
    .multilinear = true,
    .batch = matmul_batch,
    .saves = LT_IN(0) | LT_IN(1),
    .crosswise = true,
    .sample = {"normal(3, 4), normal(4)", "transposed(3, 4), normal(4)"},
};

const lt_op lt_op_dot = {
    .name = "dot",
    .doc = "Inner product of two vectors, the sum of x * other.",
    .inputs = {{"x", LT_FLOAT}, {"other", LT_FLOAT}},
    .infer = dot_infer,
    .forward = matmul_forward,
    .vjp = matmul_vjp,
    .multilinear = true,
    .batch = matmul_batch,
    .saves = LT_IN(0) | LT_IN(1),
    .crosswise = true,
    .sample = {"normal(5), normal(5)"},
};

/* ---- linear -----------------------------------------------------------------------------------
 */

static lt_status linear_infer(lt_call *c) {
  const lt_shape *x = &c->in[0]->shape, *w = &c->in[1]->shape;
  char left[LT_SHAPE_TEXT], right[LT_SHAPE_TEXT];
  LT_TRY(check_types(c));
  if (x->ndim == 0 || w->ndim != 2) {
    return lt_fail(c->ctx,
                   "linear: weight must be out x in, and x end in a dimension of in (x %s, "
                   "weight %s)",
                   lt_shape_text(x, left), lt_shape_text(w, right));
  }
  if (x->size[x->ndim - 1] != w->size[1]) {
    return lt_fail(c->ctx, "linear: inner sizes differ (x %s, weight %s)", lt_shape_text(x, left),
                   lt_shape_text(w, right));
  }
  if (c->in[2] && (c->in[2]->shape.ndim != 1 || c->in[2]->numel != w->size[0])) {
    return lt_fail(c->ctx, "linear: bias must have %lld elements, got %s", (long long)w->size[0],
                   lt_shape_text(&c->in[2]->shape, left));
  }
  c->result[0] = (lt_spec){(lt_dtype)c->in[0]->dtype, *x};
  c->result[0].shape.size[x->ndim - 1] = w->size[0];
  return LT_OK;
}

static lt_status linear_forward(lt_call *c) {
  const lt_tensor *w = c->in[1], *bias = c->in[2];
  lt_tensor *x, *y = c->out[0];
  lt_dtype dtype = (lt_dtype)y->dtype;
  int64_t out = w->shape.size[0], rows = 1;
  for (int d = 0; d < y->shape.ndim - 1; d++) rows *= y->shape.size[d];
  if (bias) {
    lt_shape shape = lt_shape_make(2, (int64_t[]){rows, out});
    lt_copy(&shape, dtype, y->data, (int64_t[]){out, 1}, dtype, bias->data,
            (int64_t[]){0, bias->strides[0]});
  }
  int ndim = c->in[0]->shape.ndim;
  if (ndim <= 2)
    x = lt_tensor_retain(c->in[0]);
  else
    LT_TRY(lt_tensor_contiguous(c->in[0], &x));
  products p = {.dtype = dtype,
                .g = {.m = rows,
                      .n = out,
                      .k = w->shape.size[1],
                      .a = x->data,
                      .a_row = ndim == 2 ? x->strides[0] : w->shape.size[1],
                      .a_col = x->strides[ndim - 1],
                      .b = w->data,
                      .b_row = w->strides[1],
                      .b_col = w->strides[0],
                      .c = y->data,
                      .c_row = out,
                      .c_col = 1,
                      .accumulate = bias != NULL}};
  lt_status status = run(c->ctx, &p);
  lt_tensor_release(x);
  return status;
}

/* dx = dy W, dW = dy^T x, db = the sum of dy, with all leading dimensions as one. */
static void linear_vjp(lt_vjp *v) {
  lt_tensor *dy = v->dy[0], *x = v->in[0];
  if (v->need[0]) lt_give(v, 0, product(v, dy, v->in[1]));
  if (v->need[1]) {
    lt_tensor *dy_flat = flat(v, dy), *x_flat = flat(v, x);
    if (dy_flat && x_flat) lt_give(v, 1, product(v, transposed(v, dy_flat), x_flat));
  }
  if (v->need[2]) lt_give(v, 2, dy);
}

static void linear_batch(lt_batch *b) {
  if (!b->over[1] && !b->over[2]) {
    lt_batch_leading(b);
    return;
  }
  const lt_spec *y = &b->result[0];
  int64_t in = b->in[1]->shape.size[1], out = b->in[1]->shape.size[0];
  int64_t rows = 1;
  for (int d = 0; d < y->shape.ndim - 1; d++) rows *= y->shape.size[d];
  lt_tensor *x = lt_reshape_to(b->s, lt_batch_in(b, 0), &(lt_shape){3, {b->size, rows, in}});
  lt_tensor *w = lt_do1(b->s, &lt_op_transpose, NULL, b->over[1] ? b->over[1] : b->in[1]);
  lt_tensor *result = lt_do2(b->s, &lt_op_matmul, NULL, x, w), *bias = b->in[2];
  if (b->over[2]) bias = lt_reshape_to(b->s, b->over[2], &(lt_shape){3, {b->size, 1, out}});
  lt_shape all = lt_batch_shape(b, &y->shape);
  lt_batch_give(b, lt_reshape_to(b->s, bias ? lt_add(b->s, result, bias) : result, &all));
}

static void linear_jvp(lt_jvp *j) {
  lt_tensor *x = j->in[0], *w = j->in[1];
  lt_tensor *parts[] = {
      j->dx[0] ? lt_do(j->s, j->op, NULL, 3, (lt_tensor *[]){j->dx[0], w, NULL}) : NULL,
      j->dx[1] ? lt_do(j->s, j->op, NULL, 3, (lt_tensor *[]){x, j->dx[1], NULL}) : NULL,
      lt_expand_to(j->s, j->dx[2], &j->out[0]->shape)};
  for (int i = 0; i < 3; i++) {
    if (parts[i]) j->dy[0] = j->dy[0] ? lt_add(j->s, j->dy[0], parts[i]) : parts[i];
  }
}

const lt_op lt_op_linear = {
    .name = "linear",
    .doc = "y = x W^T + b, on the last dimension of x: x ... x in, weight out x in, bias out.",
    .inputs = {{"x", LT_FLOAT}, {"weight", LT_FLOAT}, {"bias", LT_FLOAT, .optional = true}},
    .infer = linear_infer,
    .forward = linear_forward,
    .vjp = linear_vjp,
    .jvp = linear_jvp,
    .batch = linear_batch,
    .saves = LT_IN(0) | LT_IN(1),
    .crosswise = true,
    .sample = {"normal(3, 4), normal(2, 4), normal(2)", "normal(2, 3, 4), normal(2, 4)",
               "normal(4), transposed(2, 4), normal(2)",
               "transposed(2, 3, 4), normal(1, 4), normal(1)"},
};

LT_FAMILY(matmul, &lt_op_matmul, &lt_op_mm, &lt_op_bmm, &lt_op_mv, &lt_op_dot, &lt_op_linear)
