/* Triangles and diagonals of matrices, which are the last two dimensions or two named ones. A
 * diagonal is a view: one stride, the sum of two. Diagonal number k lies k places above the main
 * one; negative ones lie below it. */
#include "kernels/copy.h"
#include "kernels/loop.h"
#include "kernels/parallel.h"
#include "ops/family.h"
#include "ops/linalg.h"
#include "tape/vmap.h"

#include <string.h>

enum { DIAGONAL };

/* A diagonal's number, brought to the nearest that is beside a matrix of m x n. */
static int64_t nearest(int64_t k, int64_t m, int64_t n) { return k < -m ? -m : k > n ? n : k; }

/* ---- tril, triu ------------------------------------------------------------------------------ */

typedef struct triangle {
  const lt_tensor *x;
  lt_tensor *y;
  lt_loop rows; /* of x: all dimensions but the last */
  int64_t m, n, diagonal;
  bool lower;
} triangle;

static void triangle_task(void *argument, int64_t first, int64_t last) {
  const triangle *t = argument;
  lt_dtype dtype = (lt_dtype)t->x->dtype;
  int64_t size = lt_dtype_size(dtype), step = t->x->strides[t->x->shape.ndim - 1];
  for (int64_t r = first; r < last; r++) {
    int64_t offset[LT_LOOP_OPERANDS], border = r % t->m + t->diagonal + t->lower;
    border = nearest(border, 0, t->n); /* columns before it are below */
    int64_t from = t->lower ? 0 : border, to = t->lower ? border : t->n;
    lt_loop_row(&t->rows, r / t->rows.length, offset);
    int64_t at = offset[0] + r % t->rows.length * t->rows.step[0];
    char *y = t->y->data + r * t->n * size;
    memset(y, 0, (size_t)(from * size));
    lt_convert(to - from, dtype, y + from * size, 1, dtype, t->x->data + (at + from * step) * size,
               step);
    memset(y + to * size, 0, (size_t)((t->n - to) * size));
  }
}

static lt_status triangle_infer(lt_call *c) {
  LT_TRY(lt_check_matrix(c, 0, false));
  return lt_infer_same(c);
}

static lt_status triangle_forward(lt_call *c, bool lower) {
  const lt_tensor *x = c->in[0];
  if (x->numel == 0) return LT_OK;
  int ndim = x->shape.ndim;
  triangle t = {.x = x,
                .y = c->out[0],
                .m = x->shape.size[ndim - 2],
                .n = x->shape.size[ndim - 1],
                .lower = lower};
  t.diagonal = nearest(lt_get_int(c->attrs, c->op, DIAGONAL), t.m, t.n);
  lt_shape rows = lt_shape_make(ndim - 1, x->shape.size);
  lt_loop_build(&t.rows, &rows, 1, (const int64_t *const[]){x->strides});
  return lt_parallel(c->ctx, x->numel / t.n, x->numel, triangle_task, &t);
}

static lt_status tril_forward(lt_call *c) { return triangle_forward(c, true); }
static lt_status triu_forward(lt_call *c) { return triangle_forward(c, false); }

static void triangle_vjp(lt_vjp *v) { lt_give(v, 0, lt_do1(v->s, v->op, v->attrs, v->dy[0])); }

const lt_op lt_op_tril = {
    .name = "tril",
    .doc = "The lower triangle of matrices, ... x m x n: elements on and below diagonal number "
           "`diagonal`, and 0 elsewhere.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"diagonal", LT_OPTION_INT}},
    .infer = triangle_infer,
    .forward = tril_forward,
    .vjp = triangle_vjp,
    .batch = lt_batch_leading,
    .linear = true,
    .sample = {"normal(3, 4)", "normal(4, 3), -1", "normal(2, 3, 3), {diagonal = 1}",
               "transposed(2, 4, 2), {diagonal = -2}"},
};

const lt_op lt_op_triu = {
    .name = "triu",
    .doc = "The upper triangle of matrices, ... x m x n: elements on and above diagonal number "
           "`diagonal`, and 0 elsewhere.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"diagonal", LT_OPTION_INT}},
    .infer = triangle_infer,
    .forward = triu_forward,
    .vjp = triangle_vjp,
    .batch = lt_batch_leading,
    .linear = true,
    .sample = {"normal(3, 4)", "normal(4, 3), -1", "normal(2, 3, 3), {diagonal = 1}",
               "transposed(2, 4, 2), {diagonal = -2}"},
};

/* ---- diagonal -------------------------------------------------------------------------------- */

enum { OFFSET, DIM1, DIM2 };
enum { BACK_SIZE, BACK_OFFSET, BACK_DIM1, BACK_DIM2 };

/* One diagonal of a shape: the two dimensions that it crosses, where it begins, its length. */
typedef struct line {
  int dim1, dim2;
  int64_t row, column, length;
} line;

static lt_status two_dims(lt_call *c, int64_t dim1, int64_t dim2, int ndim, line *l) {
  const char *name = c->op->name;
  LT_TRY(lt_dim_normalise(c->ctx, name, dim1, ndim, &l->dim1));
  LT_TRY(lt_dim_normalise(c->ctx, name, dim2, ndim, &l->dim2));
  if (l->dim1 != l->dim2) return LT_OK;
  return lt_fail(c->ctx, "%s: dim1 and dim2 are both %d", name, l->dim1 + 1);
}

static void place(line *l, const lt_shape *s, int64_t offset) {
  int64_t m = s->size[l->dim1], n = s->size[l->dim2], k = nearest(offset, m, n);
  l->row = k < 0 ? -k : 0;
  l->column = k > 0 ? k : 0;
  l->length = m - l->row < n - l->column ? m - l->row : n - l->column;
}

/* The other dimensions' sizes (or strides), and the diagonal's at the end. */
static int diagonal_list(const line *l, int ndim, const int64_t *from, int64_t own,
                         int64_t to[LT_MAX_RANK]) {
  int n = 0;
  for (int d = 0; d < ndim; d++) {
    if (d != l->dim1 && d != l->dim2) to[n++] = from[d];
  }
  to[n++] = own;
  return n;
}

/* Its first element's place in a tensor, and the strides along it. */
static int64_t diagonal_strides(const line *l, const lt_tensor *t, int64_t strides[LT_MAX_RANK]) {
  int64_t s1 = t->strides[l->dim1], s2 = t->strides[l->dim2];
  diagonal_list(l, t->shape.ndim, t->strides, s1 + s2, strides);
  return l->length > 0 ? l->row * s1 + l->column * s2 : 0;
}

static lt_status diagonal_line(lt_call *c, line *l) {
  const lt_shape *x = &c->in[0]->shape;
  char text[LT_SHAPE_TEXT];
  if (x->ndim < 2) {
    return lt_fail(c->ctx, "diagonal: x must have at least 2 dimensions, got %s",
                   lt_shape_text(x, text));
  }
  LT_TRY(two_dims(c, lt_get_int(c->attrs, c->op, DIM1), lt_get_int(c->attrs, c->op, DIM2), x->ndim,
                  l));
  place(l, x, lt_get_int(c->attrs, c->op, OFFSET));
  return LT_OK;
}

static lt_status diagonal_infer(lt_call *c) {
  line l;
  LT_TRY(diagonal_line(c, &l));
  lt_spec *r = &c->result[0];
  *r = (lt_spec){.dtype = (lt_dtype)c->in[0]->dtype};
  r->shape.ndim =
      diagonal_list(&l, c->in[0]->shape.ndim, c->in[0]->shape.size, l.length, r->shape.size);
  return LT_OK;
}

static lt_status diagonal_forward(lt_call *c) {
  line l;
  int64_t strides[LT_MAX_RANK];
  LT_TRY(diagonal_line(c, &l));
  int64_t offset = diagonal_strides(&l, c->in[0], strides);
  return lt_tensor_view(c->in[0], offset, &c->result[0].shape, strides, &c->out[0]);
}

/* Zeros of a shape with x on a diagonal. */
static lt_tensor *embed(lt_scope *s, lt_tensor *x, const lt_shape *shape, int64_t offset,
                        int64_t dim1, int64_t dim2) {
  const lt_op *op = &lt_op_diagonal_backward;
  lt_attrs attrs;
  lt_attrs_default(&attrs, op);
  lt_attrs_set_list(&attrs, op, BACK_SIZE, shape->ndim, shape->size);
  lt_attrs_set_int(&attrs, op, BACK_OFFSET, offset);
  lt_attrs_set_int(&attrs, op, BACK_DIM1, dim1);
  lt_attrs_set_int(&attrs, op, BACK_DIM2, dim2);
  return lt_do1(s, op, &attrs, x);
}

static void diagonal_vjp(lt_vjp *v) {
  lt_spec x = lt_input_spec(v, 0);
  lt_give(v, 0,
          embed(v->s, v->dy[0], &x.shape, lt_get_int(v->attrs, v->op, OFFSET),
                lt_get_int(v->attrs, v->op, DIM1), lt_get_int(v->attrs, v->op, DIM2)));
}

const lt_op lt_op_diagonal = {
    .name = "diagonal",
    .doc = "Diagonal number `offset` of the matrices that dimensions dim1 (rows) and dim2 "
           "(columns) make; the two go, and the diagonal becomes the last dimension. A view.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"offset", LT_OPTION_INT},
                {"dim1", LT_OPTION_DIM, .value = 0},
                {"dim2", LT_OPTION_DIM, .value = 1}},
    .infer = diagonal_infer,
    .forward = diagonal_forward,
    .vjp = diagonal_vjp,
    .batch = lt_batch_dims,
    .linear = true,
    .view = true,
    .sample = {"normal(3, 4)", "normal(4, 3), -1",
               "normal(2, 3, 4), {offset = 1, dim1 = 1, dim2 = 3}",
               "transposed(2, 3, 3), {dim1 = -1, dim2 = -2}"},
};

/* ---- diagonal_backward ----------------------------------------------------------------------- */

static lt_shape back_shape(const lt_attrs *attrs, const lt_op *op) {
  int n;
  const int64_t *size = lt_get_list(attrs, op, BACK_SIZE, &n);
  return lt_shape_make(n, size);
}

static lt_status back_line(lt_call *c, const lt_shape *shape, line *l) {
  LT_TRY(two_dims(c, lt_get_int(c->attrs, c->op, BACK_DIM1), lt_get_int(c->attrs, c->op, BACK_DIM2),
                  shape->ndim, l));
  place(l, shape, lt_get_int(c->attrs, c->op, BACK_OFFSET));
  return LT_OK;
}

static lt_status diagonal_backward_infer(lt_call *c) {
  c->result[0] = (lt_spec){(lt_dtype)c->in[0]->dtype, back_shape(c->attrs, c->op)};
  return LT_OK;
}

static lt_status diagonal_backward_forward(lt_call *c) {
  const lt_tensor *x = c->in[0];
  lt_tensor *y = c->out[0];
  lt_dtype dtype = (lt_dtype)y->dtype;
  line l;
  int64_t strides[LT_MAX_RANK];
  LT_TRY(back_line(c, &y->shape, &l));
  if (y->numel > 0) memset(y->data, 0, (size_t)(y->numel * lt_dtype_size(dtype)));
  if (x->numel == 0) return LT_OK;
  int64_t offset = diagonal_strides(&l, y, strides);
  lt_copy(&x->shape, dtype, y->data + offset * lt_dtype_size(dtype), strides, dtype, x->data,
          x->strides);
  return LT_OK;
}

static void diagonal_backward_vjp(lt_vjp *v) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_diagonal);
  lt_attrs_set_int(&attrs, &lt_op_diagonal, OFFSET, lt_get_int(v->attrs, v->op, BACK_OFFSET));
  lt_attrs_set_int(&attrs, &lt_op_diagonal, DIM1, lt_get_int(v->attrs, v->op, BACK_DIM1));
  lt_attrs_set_int(&attrs, &lt_op_diagonal, DIM2, lt_get_int(v->attrs, v->op, BACK_DIM2));
  lt_give(v, 0, lt_do1(v->s, &lt_op_diagonal, &attrs, v->dy[0]));
}

const lt_op lt_op_diagonal_backward = {
    .name = "diagonal_backward",
    .doc = "Zeros of the given size, with x on diagonal number `offset` of dimensions dim1 and "
           "dim2.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"size", LT_OPTION_SIZES, .required = true},
                {"offset", LT_OPTION_INT},
                {"dim1", LT_OPTION_DIM, .value = 0},
                {"dim2", LT_OPTION_DIM, .value = 1}},
    .infer = diagonal_backward_infer,
    .forward = diagonal_backward_forward,
    .vjp = diagonal_backward_vjp,
    .batch = lt_batch_dims,
    .linear = true,
    .internal = true,
    .sample = {"normal(2, 2), {size = {3, 2, 4}, offset = 2, dim1 = 1, dim2 = 3}"},
};

/* ---- diag_embed, diag, trace ------------------------------------------------------------------
 */

/* The shape that x has with its last dimension as diagonal number `offset` between two. */
static lt_status embedded_shape(lt_call *c, int64_t offset, int64_t dim1, int64_t dim2,
                                lt_shape *shape) {
  const lt_shape *x = &c->in[0]->shape;
  line l;
  if (x->ndim == 0 || x->ndim == LT_MAX_RANK) {
    return lt_fail(c->ctx, "%s: x must have 1 to %d dimensions, got %d", c->op->name,
                   LT_MAX_RANK - 1, x->ndim);
  }
  LT_TRY(two_dims(c, dim1, dim2, x->ndim + 1, &l));
  int64_t size = nearest(offset, LT_MAX_ELEMENTS, LT_MAX_ELEMENTS);
  size = x->size[x->ndim - 1] + (size < 0 ? -size : size);
  shape->ndim = x->ndim + 1;
  for (int d = 0, from = 0; d < shape->ndim; d++) {
    shape->size[d] = d == l.dim1 || d == l.dim2 ? size : x->size[from++];
  }
  return lt_shape_check(c->ctx, c->op->name, shape);
}

static lt_status diag_embed_shape(lt_call *c, lt_shape *shape) {
  return embedded_shape(c, lt_get_int(c->attrs, c->op, OFFSET), lt_get_int(c->attrs, c->op, DIM1),
                        lt_get_int(c->attrs, c->op, DIM2), shape);
}

static lt_status diag_embed_infer(lt_call *c) {
  lt_shape shape;
  return diag_embed_shape(c, &shape);
}

static void diag_embed_compose(lt_call *c, lt_scope *s) {
  lt_shape shape;
  s->status = diag_embed_shape(c, &shape);
  c->out[0] = embed(s, c->in[0], &shape, lt_get_int(c->attrs, c->op, OFFSET),
                    lt_get_int(c->attrs, c->op, DIM1), lt_get_int(c->attrs, c->op, DIM2));
}

const lt_op lt_op_diag_embed = {
    .name = "diag_embed",
    .doc = "Square matrices, 0 but for diagonal number `offset`, which is the last dimension of x, "
           "n: it becomes dimensions dim1 and dim2 of the result, of size n + |offset| each; by "
           "default the last two.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"offset", LT_OPTION_INT},
                {"dim1", LT_OPTION_DIM, .value = -2},
                {"dim2", LT_OPTION_DIM, .value = -1}},
    .infer = diag_embed_infer,
    .compose = diag_embed_compose,
    .sample = {"normal(3)", "normal(2, 3), -1", "normal(2, 3), {offset = 1, dim1 = 1, dim2 = 3}"},
};

static lt_status diag_infer(lt_call *c) {
  lt_shape shape;
  char text[LT_SHAPE_TEXT];
  if (c->in[0]->shape.ndim == 2) return LT_OK;
  if (c->in[0]->shape.ndim == 1) {
    return embedded_shape(c, lt_get_int(c->attrs, c->op, DIAGONAL), 0, 1, &shape);
  }
  return lt_fail(c->ctx, "diag: x must have 1 or 2 dimensions, got %s",
                 lt_shape_text(&c->in[0]->shape, text));
}

static void diag_compose(lt_call *c, lt_scope *s) {
  int64_t k = lt_get_int(c->attrs, c->op, DIAGONAL);
  lt_shape shape;
  if (c->in[0]->shape.ndim == 1) {
    s->status = embedded_shape(c, k, 0, 1, &shape);
    c->out[0] = embed(s, c->in[0], &shape, k, 0, 1);
    return;
  }
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_diagonal);
  lt_attrs_set_int(&attrs, &lt_op_diagonal, OFFSET, k);
  c->out[0] = lt_do1(s, &lt_op_clone, NULL, lt_do1(s, &lt_op_diagonal, &attrs, c->in[0]));
}

const lt_op lt_op_diag = {
    .name = "diag",
    .doc = "Of a vector, the square matrix with it on diagonal number `diagonal`; of a matrix, "
           "that diagonal, copied.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"diagonal", LT_OPTION_INT}},
    .infer = diag_infer,
    .compose = diag_compose,
    .sample = {"normal(3)", "normal(2), -1", "normal(3, 4)", "transposed(4, 3), {diagonal = 1}"},
};

static lt_status trace_infer(lt_call *c) {
  char text[LT_SHAPE_TEXT];
  if (c->in[0]->shape.ndim == 2) return LT_OK;
  return lt_fail(c->ctx, "trace: x must be a matrix, got %s",
                 lt_shape_text(&c->in[0]->shape, text));
}

static void trace_compose(lt_call *c, lt_scope *s) {
  c->out[0] = lt_do1(s, &lt_op_sum, NULL, lt_diagonal(s, c->in[0]));
}

const lt_op lt_op_trace = {
    .name = "trace",
    .doc = "The sum of the main diagonal of a matrix, m x n.",
    .inputs = {{"x", LT_ANY}},
    .infer = trace_infer,
    .compose = trace_compose,
    .sample = {"normal(3, 3)", "transposed(2, 4)"},
};

/* ---- Words of rules ---------------------------------------------------------------------------
 */

lt_tensor *lt_triangle(lt_scope *s, lt_tensor *a, bool lower, int64_t diagonal) {
  const lt_op *op = lower ? &lt_op_tril : &lt_op_triu;
  lt_attrs attrs;
  lt_attrs_default(&attrs, op);
  lt_attrs_set_int(&attrs, op, DIAGONAL, diagonal);
  return lt_do1(s, op, &attrs, a);
}

lt_tensor *lt_diagonal(lt_scope *s, lt_tensor *a) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_diagonal);
  lt_attrs_set_int(&attrs, &lt_op_diagonal, DIM1, -2);
  lt_attrs_set_int(&attrs, &lt_op_diagonal, DIM2, -1);
  return lt_do1(s, &lt_op_diagonal, &attrs, a);
}

lt_tensor *lt_diagonal_matrix(lt_scope *s, lt_tensor *a) {
  return lt_do1(s, &lt_op_diag_embed, NULL, a);
}

lt_tensor *lt_mirrored(lt_scope *s, lt_tensor *a) {
  return lt_add(s, lt_triangle(s, a, true, 0), lt_transposed(s, lt_triangle(s, a, true, -1)));
}

LT_FAMILY(triangle, &lt_op_tril, &lt_op_triu, &lt_op_diagonal, &lt_op_diagonal_backward,
          &lt_op_diag_embed, &lt_op_diag, &lt_op_trace)
