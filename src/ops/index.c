/* Elements chosen by numbers or by a mask: copies. The gradient of a choice puts dy back where it
 * was chosen. Index values count from 1 and are checked before anything is written. */
#include "ops/index.h"
#include "core/context.h"
#include "kernels/copy.h"
#include "kernels/loop.h"
#include "kernels/parallel.h"
#include "ops/family.h"
#include "tape/vmap.h"

#include <string.h>

lt_status lt_check_indices(const char *op, const char *what, const lt_tensor *t, int64_t count,
                           const int64_t *skip) {
  enum { TILE = 256 };
  int64_t tile[TILE], size = lt_dtype_size((lt_dtype)t->dtype), offset[LT_LOOP_OPERANDS];
  lt_loop loop;
  lt_loop_build(&loop, &t->shape, 1, (const int64_t *const[]){t->strides});
  for (int64_t row = 0; t->numel > 0 && row < loop.rows; row++) {
    lt_loop_row(&loop, row, offset);
    for (int64_t at = 0; at < loop.length; at += TILE) {
      int64_t n = loop.length - at < TILE ? loop.length - at : TILE;
      lt_convert(n, LT_INT64, tile, 1, (lt_dtype)t->dtype,
                 t->data + (offset[0] + at * loop.step[0]) * size, loop.step[0]);
      int64_t bad = 0; /* negative, if one is; without branches, as they hardly ever are */
      for (int64_t i = 0; i < n; i++) bad |= (tile[i] - 1) | (count - tile[i]);
      for (int64_t i = 0; bad < 0 && i < n; i++) {
        if ((tile[i] >= 1 && tile[i] <= count) || (skip && tile[i] == *skip)) continue;
        return lt_fail(t->ctx, "%s: %s %lld at element %lld is outside 1..%lld", op, what,
                       (long long)tile[i], (long long)(row * loop.length + at + i + 1),
                       (long long)count);
      }
    }
  }
  return LT_OK;
}

lt_status lt_contiguous_as(lt_tensor *t, lt_dtype dtype, lt_tensor **result) {
  if (t->dtype == dtype) return lt_tensor_contiguous(t, result);
  LT_TRY(lt_tensor_new(t->ctx, "copy", dtype, &t->shape, result));
  return lt_tensor_copy(*result, t);
}

lt_status lt_indexed_dim(const lt_call *c, int option, int *dim) {
  const lt_shape *x = &c->in[0]->shape;
  if (x->ndim == 0) return lt_fail(c->ctx, "%s: x is 0-d and has no dimensions", c->op->name);
  return lt_dim_normalise(c->ctx, c->op->name, lt_get_int(c->attrs, c->op, option), x->ndim, dim);
}

/* ---- index_select, index_add ------------------------------------------------------------------
 */

enum { INDEX_DIM, INDEX_ALPHA };

/* Finds dim and checks the index. */
static lt_status check_index(lt_call *c, int *dim) {
  const lt_tensor *index = c->in[1];
  LT_TRY(lt_indexed_dim(c, INDEX_DIM, dim));
  if (index->shape.ndim > 1) {
    char text[LT_SHAPE_TEXT];
    return lt_fail(c->ctx, "%s: index must have one dimension, got %s", c->op->name,
                   lt_shape_text(&index->shape, text));
  }
  return lt_check_indices(c->op->name, "index", index, c->in[0]->shape.size[*dim], NULL);
}

/* Slices of dimension dim of two tensors: the others are walked together. */
typedef struct slices {
  lt_loop loop;
  int64_t stride[2]; /* from slice to slice */
  int64_t count, size;
  const int64_t *index; /* counts from 1 */
  char *y;
  const char *x;
  double alpha;
  void (*add)(const struct slices *w, char *y, const char *x, int64_t n);
} slices;

static void build_slices(slices *w, int dim, const lt_tensor *y, const lt_tensor *x) {
  lt_shape rest = x->shape;
  rest.size[dim] = 1;
  lt_loop_build(&w->loop, &rest, 2, (const int64_t *const[]){y->strides, x->strides});
  w->stride[0] = y->strides[dim];
  w->stride[1] = x->strides[dim];
  w->size = lt_dtype_size((lt_dtype)x->dtype);
  w->y = y->data;
  w->x = x->data;
}

static lt_status index_select_infer(lt_call *c) {
  int dim;
  LT_TRY(check_index(c, &dim));
  LT_TRY(lt_infer_same(c));
  c->result[0].shape.size[dim] = c->in[1]->numel;
  return LT_OK;
}

#define GATHER(T)                                                                                  \
  for (int64_t j = first; j < last; j++) {                                                         \
    ((T *)(void *)y)[j * w->stride[0]] = ((const T *)(const void *)x)[at[j] * w->stride[1]];       \
  }

/* Slices first..last-1 of the result. */
static void index_select_task(void *argument, int64_t first, int64_t last) {
  const slices *w = argument;
  const int64_t *at = w->index;
  int64_t offset[LT_LOOP_OPERANDS];
  lt_dtype copied_as = w->size == 8 ? LT_INT64 : w->size == 4 ? LT_INT32 : LT_UINT8;
  for (int64_t row = 0; row < w->loop.rows; row++) {
    lt_loop_row(&w->loop, row, offset);
    char *y = w->y + offset[0] * w->size;
    const char *x = w->x + (offset[1] - w->stride[1]) * w->size;
    if (w->loop.length > 1) {
      for (int64_t j = first; j < last; j++) {
        lt_convert(w->loop.length, copied_as, y + j * w->stride[0] * w->size, w->loop.step[0],
                   copied_as, x + at[j] * w->stride[1] * w->size, w->loop.step[1]);
      }
    } else if (w->size == 8) {
      GATHER(uint64_t)
    } else if (w->size == 4) {
      GATHER(uint32_t)
    } else {
      GATHER(uint8_t)
    }
  }
}

static lt_status index_select_forward(lt_call *c) {
  int dim;
  lt_tensor *index;
  LT_TRY(lt_indexed_dim(c, INDEX_DIM, &dim));
  if (c->out[0]->numel == 0) return LT_OK;
  LT_TRY(lt_contiguous_as(c->in[1], LT_INT64, &index));
  slices w = {.index = (const int64_t *)(const void *)index->data};
  build_slices(&w, dim, c->out[0], c->in[0]);
  lt_status status =
      lt_parallel(c->ctx, c->in[1]->numel, c->out[0]->numel * 2, index_select_task, &w);
  lt_tensor_release(index);
  return status;
}

static void index_select_vjp(lt_vjp *v) {
  lt_spec x = lt_input_spec(v, 0);
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_index_add);
  lt_attrs_set_int(&attrs, &lt_op_index_add, INDEX_DIM, lt_get_int(v->attrs, v->op, INDEX_DIM));
  lt_tensor *zeros = lt_full_like(v->s, &x, 0);
  lt_give(v, 0, lt_do3(v->s, &lt_op_index_add, &attrs, zeros, v->in[1], v->dy[0]));
}

static void index_select_batch(lt_batch *b) {
  if (b->over[1] || b->in[0]->shape.ndim == 0) {
    lt_batch_each(b);
    return;
  }
  lt_attrs attrs;
  lt_batch_shift(b, &attrs);
  lt_batch_run(b, &attrs, (lt_tensor *[]){b->over[0], b->in[1]});
}

const lt_op lt_op_index_select = {
    .name = "index_select",
    .option_at = 2,
    .doc = "The slices of dimension dim whose numbers index lists, in that order; numbers count "
           "from 1 and may come twice. The shape of x, but for dim.",
    .inputs = {{"x", LT_ANY}, {"index", LT_INDEX}},
    .options = {{"dim", LT_OPTION_DIM, .required = true}},
    .infer = index_select_infer,
    .forward = index_select_forward,
    .vjp = index_select_vjp,
    .zero = "masked",
    .linear = true,
    .batch = index_select_batch,
    .saves = LT_IN(1),
    .sample = {"normal(3, 4), integers(1, 3, 5), {dim = 1}",
               "normal(2, 3, 4), integers(1, 4, 2), {dim = -1}",
               "transposed(4, 3), integers(1, 3, 4), {dim = 2}"},
};

static lt_status index_add_infer(lt_call *c) {
  const lt_tensor *x = c->in[0], *source = c->in[2];
  int dim;
  LT_TRY(check_index(c, &dim));
  if (source->dtype != x->dtype || x->dtype == LT_BOOL) {
    return lt_fail(c->ctx, "index_add: x and source must be numbers of one dtype (%s and %s)",
                   lt_dtype_name((lt_dtype)x->dtype), lt_dtype_name((lt_dtype)source->dtype));
  }
  LT_TRY(lt_infer_same(c));
  lt_shape want = x->shape;
  want.size[dim] = c->in[1]->numel;
  if (lt_shape_equal(&want, &source->shape)) return LT_OK;
  char needs[LT_SHAPE_TEXT], got[LT_SHAPE_TEXT];
  return lt_fail(c->ctx, "index_add: source must be %s, got %s", lt_shape_text(&want, needs),
                 lt_shape_text(&source->shape, got));
}

#define ADD(NAME, SUM, T)                                                                          \
  static void NAME(const slices *w, char *y_bytes, const char *x_bytes, int64_t n) {               \
    SUM *y = (SUM *)(void *)y_bytes, alpha = (SUM)w->alpha;                                        \
    const T *x = (const T *)(const void *)x_bytes;                                                 \
    int64_t ys = w->loop.step[0], xs = w->loop.step[1];                                            \
    if (ys == 1 && xs == 1) {                                                                      \
      for (int64_t i = 0; i < n; i++) y[i] = (SUM)(y[i] + alpha * (SUM)x[i]);                      \
    } else {                                                                                       \
      for (int64_t i = 0; i < n; i++) y[i * ys] = (SUM)(y[i * ys] + alpha * (SUM)x[i * xs]);       \
    }                                                                                              \
  }
ADD(add_f32, float, float)
ADD(add_f32_wide, double, float)
ADD(add_f64, double, double)
ADD(add_i64, int64_t, int64_t)
ADD(add_i32, int32_t, int32_t)
ADD(add_u8, uint8_t, uint8_t)

/* Elements of a row that one task adds to, for all of index: the order of additions to an element
 * is that of index. */
static const int64_t PIECE = 512;

static void index_add_task(void *argument, int64_t first, int64_t last) {
  const slices *w = argument;
  int64_t pieces = (w->loop.length + PIECE - 1) / PIECE, offset[LT_LOOP_OPERANDS];
  int64_t y_size = w->add == add_f32_wide ? (int64_t)sizeof(double) : w->size;
  for (int64_t t = first; t < last; t++) {
    int64_t at = t % pieces * PIECE;
    int64_t n = w->loop.length - at < PIECE ? w->loop.length - at : PIECE;
    lt_loop_row(&w->loop, t / pieces, offset);
    int64_t y = offset[0] + at * w->loop.step[0] - w->stride[0];
    int64_t x = offset[1] + at * w->loop.step[1];
    for (int64_t j = 0; j < w->count; j++) {
      w->add(w, w->y + (y + w->index[j] * w->stride[0]) * y_size,
             w->x + (x + j * w->stride[1]) * w->size, n);
    }
  }
}

/* y += alpha * source, slice by slice. */
static lt_status add_slices(lt_call *c, int dim, lt_tensor *y) {
  lt_tensor *index;
  LT_TRY(lt_contiguous_as(c->in[1], LT_INT64, &index));
  slices w = {.index = (const int64_t *)(const void *)index->data,
              .count = index->numel,
              .alpha = lt_get_number(c->attrs, c->op, INDEX_ALPHA)};
  build_slices(&w, dim, y, c->in[2]);
  switch ((lt_dtype)c->in[2]->dtype) {
  case LT_FLOAT32: w.add = y->dtype == LT_FLOAT64 ? add_f32_wide : add_f32; break;
  case LT_FLOAT64: w.add = add_f64; break;
  case LT_INT64: w.add = add_i64; break;
  case LT_INT32: w.add = add_i32; break;
  default: w.add = add_u8; break;
  }
  int64_t pieces = (w.loop.length + PIECE - 1) / PIECE;
  lt_status status =
      lt_parallel(c->ctx, w.loop.rows * pieces, c->in[2]->numel * 2, index_add_task, &w);
  lt_tensor_release(index);
  return status;
}

static lt_status index_add_forward(lt_call *c) {
  int dim;
  lt_tensor *y = c->out[0], *wide;
  LT_TRY(lt_indexed_dim(c, INDEX_DIM, &dim));
  /* Where many meet in one place, float32 would lose what the sum is made of. */
  if (y->dtype != LT_FLOAT32 || c->in[1]->numel <= 8 * y->shape.size[dim]) {
    LT_TRY(lt_tensor_copy(y, c->in[0]));
    return c->in[2]->numel > 0 ? add_slices(c, dim, y) : LT_OK;
  }
  LT_TRY(lt_tensor_new(c->ctx, "index_add", LT_FLOAT64, &y->shape, &wide));
  lt_status status = lt_tensor_copy(wide, c->in[0]);
  if (status == LT_OK && c->in[2]->numel > 0) status = add_slices(c, dim, wide);
  if (status == LT_OK) status = lt_tensor_copy(y, wide);
  lt_tensor_release(wide);
  return status;
}

static void index_add_vjp(lt_vjp *v) {
  lt_give(v, 0, v->dy[0]);
  if (!v->need[2]) return;
  double alpha = lt_get_number(v->attrs, v->op, INDEX_ALPHA);
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_index_select);
  lt_attrs_set_int(&attrs, &lt_op_index_select, INDEX_DIM, lt_get_int(v->attrs, v->op, INDEX_DIM));
  lt_tensor *dy = lt_do2(v->s, &lt_op_index_select, &attrs, v->dy[0], v->in[1]);
  lt_give(v, 2, alpha == 1 ? dy : lt_scale(v->s, dy, alpha));
}

const lt_op lt_op_index_add = {
    .name = "index_add",
    .option_at = 2,
    .doc = "x with alpha times slice j of source added to slice index[j] of dimension dim, for "
           "every j in turn; numbers count from 1 and may come twice.",
    .inputs = {{"x", LT_ANY}, {"index", LT_INDEX}, {"source", LT_ANY}},
    .options = {{"dim", LT_OPTION_DIM, .required = true}, {"alpha", LT_OPTION_NUMBER, .value = 1}},
    .infer = index_add_infer,
    .forward = index_add_forward,
    .vjp = index_add_vjp,
    .linear = true,
    .batch = lt_batch_each,
    .saves = LT_IN(1),
    .sample = {"normal(3, 4), integers(1, 3, 5), normal(5, 4), {dim = 1}",
               "normal(2, 3, 4), integers(1, 4, 2), normal(2, 3, 2), {dim = -1, alpha = 0.5}"},
};

/* ---- masked_select -----------------------------------------------------------------------------
 */

/* The shape in which x and mask meet, and how many elements of it the mask names. */
static lt_status meet(lt_call *c, const lt_shape *x, const lt_tensor *mask, lt_shape *shape,
                      int64_t *count) {
  *shape = *x;
  if (!lt_shape_broadcast(shape, &mask->shape)) {
    char a[LT_SHAPE_TEXT], b[LT_SHAPE_TEXT];
    return lt_fail(c->ctx, "%s: shapes do not broadcast (%s and %s)", c->op->name,
                   lt_shape_text(x, a), lt_shape_text(&mask->shape, b));
  }
  LT_TRY(lt_shape_check(c->ctx, c->op->name, shape));
  int64_t offset[LT_LOOP_OPERANDS], n = 0;
  lt_loop loop;
  lt_loop_build(&loop, &mask->shape, 1, (const int64_t *const[]){mask->strides});
  for (int64_t row = 0; mask->numel > 0 && row < loop.rows; row++) {
    lt_loop_row(&loop, row, offset);
    const char *m = mask->data + offset[0];
    for (int64_t i = 0; i < loop.length; i++) n += m[i * loop.step[0]];
  }
  *count = mask->numel > 0 ? n * (lt_shape_numel(shape) / mask->numel) : 0;
  return LT_OK;
}

/* Rows of `full` and of the mask; `packed` goes on from element k. Without branches: what the mask
 * does not name is overwritten by the next element. */
#define PACK(T)                                                                                    \
  {                                                                                                \
    T *y = (T *)(void *)packed;                                                                    \
    const T *x = (const T *)(const void *)full->data + at[0];                                      \
    for (int64_t i = 0; i < loop.length && k < count; i++) {                                       \
      y[k * step] = x[i * xs];                                                                     \
      k += m[i * ms];                                                                              \
    }                                                                                              \
  }
#define UNPACK(T)                                                                                  \
  {                                                                                                \
    const T *y = (const T *)(const void *)packed;                                                  \
    T *x = (T *)(void *)full->data + at[0];                                                        \
    for (int64_t i = 0; i < loop.length; i++) {                                                    \
      x[i * xs] = y[(k < count ? k : count - 1) * step] * m[i * ms];                               \
      k += m[i * ms];                                                                              \
    }                                                                                              \
  }

/* Copies the masked elements of `full` into `list`, which has at least one, or back, with zeros
 * between them. */
static void pick(const lt_tensor *full, const lt_tensor *mask, const lt_tensor *list,
                 const lt_shape *shape, bool unpack) {
  char *packed = list->data;
  int64_t size = lt_dtype_size((lt_dtype)list->dtype), step = list->strides[0];
  int64_t count = list->numel, k = 0;
  int64_t strides[2][LT_MAX_RANK], at[LT_LOOP_OPERANDS];
  const lt_tensor *both[2] = {full, mask};
  for (int j = 0; j < 2; j++) {
    lt_broadcast_strides(&both[j]->shape, both[j]->strides, shape, strides[j]);
  }
  lt_loop loop;
  lt_loop_build(&loop, shape, 2, (const int64_t *const[]){strides[0], strides[1]});
  int64_t xs = loop.step[0], ms = loop.step[1];
  for (int64_t row = 0; row < loop.rows; row++) {
    lt_loop_row(&loop, row, at);
    const uint8_t *m = (const uint8_t *)mask->data + at[1];
    if (size == 8 && unpack)
      UNPACK(uint64_t)
    else if (size == 8)
      PACK(uint64_t)
    else if (size == 4 && unpack)
      UNPACK(uint32_t)
    else if (size == 4)
      PACK(uint32_t)
    else if (unpack)
      UNPACK(uint8_t)
    else
      PACK(uint8_t)
  }
}

static lt_status masked_select_infer(lt_call *c) {
  lt_shape shape;
  int64_t count;
  LT_TRY(meet(c, &c->in[0]->shape, c->in[1], &shape, &count));
  c->result[0] = (lt_spec){(lt_dtype)c->in[0]->dtype, lt_shape_make(1, &count)};
  return LT_OK;
}

static lt_status masked_select_forward(lt_call *c) {
  lt_shape shape = c->in[0]->shape;
  lt_shape_broadcast(&shape, &c->in[1]->shape);
  if (c->out[0]->numel > 0) pick(c->in[0], c->in[1], c->out[0], &shape, false);
  return LT_OK;
}

static void masked_select_vjp(lt_vjp *v) {
  lt_shape shape = lt_input_spec(v, 0).shape, mask = lt_input_spec(v, 1).shape;
  lt_shape_broadcast(&shape, &mask);
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_masked_select_backward);
  lt_attrs_set_list(&attrs, &lt_op_masked_select_backward, 0, shape.ndim, shape.size);
  lt_give(v, 0, lt_do2(v->s, &lt_op_masked_select_backward, &attrs, v->dy[0], v->in[1]));
}

const lt_op lt_op_masked_select = {
    .name = "masked_select",
    .doc = "The elements of x where mask is true, in row-major order, as one dimension; x and "
           "mask broadcast.",
    .inputs = {{"x", LT_ANY}, {"mask", LT_MASK}},
    .infer = masked_select_infer,
    .forward = masked_select_forward,
    .vjp = masked_select_vjp,
    .zero = "masked",
    .linear = true,
    .saves = LT_IN(1),
    .sample = {"normal(3, 4), mask(3, 4)", "normal(2, 3, 1), mask(4)",
               "transposed(4, 3), mask(4, 1)"},
};

static lt_status masked_select_backward_infer(lt_call *c) {
  int n;
  int64_t count;
  const int64_t *size = lt_get_list(c->attrs, c->op, 0, &n);
  lt_shape want = lt_shape_make(n, size), shape;
  LT_TRY(meet(c, &want, c->in[1], &shape, &count));
  if (c->in[0]->shape.ndim != 1 || c->in[0]->numel != count) {
    return lt_fail(c->ctx, "%s: the mask names %lld elements, dy has %lld", c->op->name,
                   (long long)count, (long long)c->in[0]->numel);
  }
  c->result[0] = (lt_spec){(lt_dtype)c->in[0]->dtype, want};
  return LT_OK;
}

static lt_status masked_select_backward_forward(lt_call *c) {
  lt_tensor *dx = c->out[0];
  size_t bytes = (size_t)(dx->numel * lt_dtype_size((lt_dtype)dx->dtype));
  if (c->in[0]->numel > 0)
    pick(dx, c->in[1], c->in[0], &dx->shape, true);
  else
    memset(dx->data, 0, bytes);
  return LT_OK;
}

static void masked_select_backward_vjp(lt_vjp *v) {
  lt_give(v, 0, lt_do2(v->s, &lt_op_masked_select, NULL, v->dy[0], v->in[1]));
}

const lt_op lt_op_masked_select_backward = {
    .name = "masked_select_backward",
    .doc = "dy's elements, in turn, where mask is true, and zeros elsewhere, in the given size.",
    .inputs = {{"dy", LT_ANY}, {"mask", LT_MASK}},
    .options = {{"size", LT_OPTION_SIZES, .required = true}},
    .infer = masked_select_backward_infer,
    .forward = masked_select_backward_forward,
    .vjp = masked_select_backward_vjp,
    .linear = true,
    .saves = LT_IN(1),
    .internal = true,
};

LT_FAMILY(index, &lt_op_index_select, &lt_op_index_add, &lt_op_masked_select,
          &lt_op_masked_select_backward)
