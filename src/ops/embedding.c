/* Rows of a table by their numbers, one by one or in bags. The gradient adds rows back; with
 * `sparse` it keeps only those (core/rows.h). Row numbers count from 1 and are checked before
 * anything is read or written. */
#include "core/context.h"
#include "core/rows.h"
#include "kernels/copy.h"
#include "kernels/parallel.h"
#include "kernels/rows.h"
#include "ops/family.h"
#include "ops/index.h"
#include "tape/vjp.h"
#include "tape/vmap.h"

#include <string.h>

/* The padding row as index values name it, from 1, if one is given. */
static lt_status padding_of(const lt_call *c, int option, int64_t rows, int64_t *padding,
                            bool *given) {
  *given = lt_given(c->attrs, option);
  *padding = 0;
  if (!*given) return LT_OK;
  int64_t at = lt_get_int(c->attrs, c->op, option);
  if (at < -rows || at >= rows) {
    return lt_fail(c->ctx, "%s: padding_idx %lld is outside 1..%lld", c->op->name,
                   (long long)(at < 0 ? at : at + 1), (long long)rows);
  }
  *padding = (at < 0 ? at + rows : at) + 1;
  return LT_OK;
}

static lt_status check_table(const lt_call *c) {
  char text[LT_SHAPE_TEXT];
  if (c->in[1]->shape.ndim == 2) return LT_OK;
  return lt_fail(c->ctx, "%s: weight must have two dimensions, got %s", c->op->name,
                 lt_shape_text(&c->in[1]->shape, text));
}

static lt_status check_sparse(const lt_call *c, int sparse, int by_freq) {
  if (!lt_get_int(c->attrs, c->op, sparse) || !lt_get_int(c->attrs, c->op, by_freq)) return LT_OK;
  return lt_fail(c->ctx, "%s: scale_grad_by_freq is not for sparse gradients", c->op->name);
}

/* ---- embedding, embedding_take ------------------------------------------------------------------
 */

enum { PADDING, BY_FREQ, SPARSE };

static lt_status embedding_infer(lt_call *c) {
  int64_t padding;
  bool padded;
  LT_TRY(check_table(c));
  const lt_tensor *index = c->in[0], *weight = c->in[1];
  if (index->shape.ndim == LT_MAX_RANK) {
    return lt_fail(c->ctx, "embedding: index has %d dimensions, one too many", LT_MAX_RANK);
  }
  LT_TRY(padding_of(c, PADDING, weight->shape.size[0], &padding, &padded));
  LT_TRY(check_sparse(c, SPARSE, BY_FREQ));
  LT_TRY(lt_check_indices(c->op->name, "index", index, weight->shape.size[0], NULL));
  lt_shape shape = index->shape;
  shape.size[shape.ndim++] = weight->shape.size[1];
  c->dtype = (lt_dtype)weight->dtype;
  c->result[0] = (lt_spec){c->dtype, shape};
  return LT_OK;
}

typedef struct gather {
  const int64_t *index;
  const lt_tensor *weight;
  char *y;
} gather;

/* Rows first..last-1 of the result. */
static void gather_task(void *argument, int64_t first, int64_t last) {
  const gather *w = argument;
  int64_t n = w->weight->shape.size[1], step = w->weight->strides[1];
  lt_dtype dtype = (lt_dtype)w->weight->dtype;
  int64_t size = lt_dtype_size(dtype), stride = w->weight->strides[0] * size, bytes = n * size;
  const char *table = w->weight->data - stride;
  for (int64_t k = first; k < last; k++) {
    const char *x = table + w->index[k] * stride;
    if (step == 1)
      memcpy(w->y + k * bytes, x, (size_t)bytes);
    else
      lt_convert(n, dtype, w->y + k * bytes, 1, dtype, x, step);
  }
}

/* index holds c->in[0] as contiguous int64. */
static lt_status take_rows(lt_call *c, const lt_tensor *index) {
  gather w = {(const int64_t *)(const void *)index->data, c->in[1], c->out[0]->data};
  if (c->out[0]->numel == 0) return LT_OK;
  return lt_parallel(c->ctx, index->numel, c->out[0]->numel, gather_task, &w);
}

static lt_status embedding_forward(lt_call *c) {
  lt_tensor *index;
  LT_TRY(lt_contiguous_as(c->in[0], LT_INT64, &index));
  lt_status status = take_rows(c, index);
  lt_tensor_release(index);
  return status;
}

/* The rows of dy that are not the padding's, and their numbers: memory of their own, or dy's. */
static lt_status pick_rows(const lt_tensor *index, lt_tensor *dy, const int64_t *padding,
                           lt_tensor **numbers, lt_tensor **values) {
  int64_t n = index->numel, width = dy->shape.size[1], kept = 0;
  int64_t bytes = width * lt_dtype_size((lt_dtype)dy->dtype);
  const int64_t *from = (const int64_t *)(const void *)index->data;
  for (int64_t k = 0; k < n; k++) kept += !padding || from[k] != *padding;
  lt_shape shape = lt_shape_make(2, (int64_t[]){kept, width});
  lt_status status = LT_OK;
  if (kept == n)
    *values = lt_tensor_retain(dy);
  else
    status = lt_tensor_new(dy->ctx, "embedding", (lt_dtype)dy->dtype, &shape, values);
  if (status != LT_OK) return status;
  shape = lt_shape_make(1, &kept);
  status = lt_tensor_new(dy->ctx, "embedding", LT_INT64, &shape, numbers);
  if (status != LT_OK) {
    lt_tensor_release(*values);
    return status;
  }
  int64_t *to = (int64_t *)(void *)(*numbers)->data;
  for (int64_t k = 0, at = 0; k < n; k++) {
    if (padding && from[k] == *padding) continue;
    if (kept < n && bytes > 0) {
      memcpy((*values)->data + at * bytes, dy->data + k * bytes, (size_t)bytes);
    }
    to[at++] = from[k];
  }
  return LT_OK;
}

/* dy: contiguous, K x D. */
static lt_status sparse_gradient(const lt_vjp *v, int64_t rows, const lt_tensor *index,
                                 lt_tensor *dy, lt_tensor **result) {
  int64_t at = lt_get_int(v->attrs, v->op, PADDING), padding = (at < 0 ? at + rows : at) + 1;
  lt_tensor *numbers, *values;
  LT_TRY(pick_rows(index, dy, lt_given(v->attrs, PADDING) ? &padding : NULL, &numbers, &values));
  /* The host may have written into the index meanwhile; from here on nobody can. */
  lt_status status = lt_check_indices("embedding", "index", numbers, rows, NULL);
  if (status == LT_OK) return lt_rows_new(v->ctx, rows, numbers, values, false, result);
  lt_tensor_release(numbers);
  lt_tensor_release(values);
  return status;
}

static void give_sparse(lt_vjp *v, const lt_spec *weight) {
  lt_scope *s = v->s;
  lt_shape flat = lt_shape_make(2, (int64_t[]){v->in[0]->numel, weight->shape.size[1]});
  lt_tensor *dy = lt_reshape_to(s, v->dy[0], &flat), *index = NULL, *g = NULL;
  if (!dy) return;
  s->status = lt_tensor_contiguous(dy, &dy);
  if (s->status != LT_OK) return;
  lt_keep(s, dy);
  s->status = lt_contiguous_as(v->in[0], LT_INT64, &index);
  if (s->status == LT_OK) s->status = sparse_gradient(v, weight->shape.size[0], index, dy, &g);
  lt_tensor_release(index);
  if (s->status == LT_OK) lt_give(v, 1, lt_keep(s, g));
}

/* PADDING and BY_FREQ are the first options of all these ops. */
static void copy_options(const lt_vjp *v, const lt_op *op, lt_attrs *attrs) {
  lt_attrs_default(attrs, op);
  if (lt_given(v->attrs, PADDING)) {
    lt_attrs_set_int(attrs, op, PADDING, lt_get_int(v->attrs, v->op, PADDING));
  }
  lt_attrs_set_int(attrs, op, BY_FREQ, lt_get_int(v->attrs, v->op, BY_FREQ));
}

enum { ROWS = 2 };

static void embedding_vjp(lt_vjp *v) {
  lt_spec weight = lt_input_spec(v, 1);
  lt_attrs attrs;
  if (!v->need[1]) return;
  bool sparse = v->op == &lt_op_embedding && lt_get_int(v->attrs, v->op, SPARSE);
  /* Sparse gradients have no derivative. */
  bool recorded = (v->ctx->listening || v->ctx->noting) && !v->ctx->no_grad;
  if (sparse && !recorded && lt_is_plain(v->in[0]) && lt_is_plain(v->dy[0])) {
    give_sparse(v, &weight);
    return;
  }
  copy_options(v, &lt_op_embedding_backward, &attrs);
  lt_attrs_set_int(&attrs, &lt_op_embedding_backward, ROWS, weight.shape.size[0]);
  lt_give(v, 1, lt_do2(v->s, &lt_op_embedding_backward, &attrs, v->in[0], v->dy[0]));
}

/* How often a row comes is counted in each sample. */
static void embedding_batch(lt_batch *b) {
  if (lt_get_int(b->attrs, b->op, BY_FREQ))
    lt_batch_each(b);
  else
    lt_batch_leading(b);
}

const lt_op lt_op_embedding = {
    .name = "embedding",
    .doc =
        "y at index i is row i of weight (V x D): index.shape x D. Rows count from 1. The row "
        "padding_idx (negative: from the end) gets no gradient; scale_grad_by_freq divides the "
        "gradient of each row by how often it is in index. With sparse the gradient keeps only the "
        "rows that were looked up (g.is_sparse), unless a tape records the backward pass.",
    .inputs = {{"index", LT_INDEX}, {"weight", LT_ANY}},
    .options = {{"padding_idx", LT_OPTION_INDEX},
                {"scale_grad_by_freq", LT_OPTION_BOOL},
                {"sparse", LT_OPTION_BOOL}},
    .infer = embedding_infer,
    .forward = embedding_forward,
    .vjp = embedding_vjp,
    .saves = LT_IN(0),
    .linear = true,
    .batch = embedding_batch,
    .function = true,
    .sample = {"integers(1, 5, 4), normal(5, 3)",
               "integers(1, 4, 2, 3), normal(6, 4), {padding_idx = -2}",
               "integers(2, 3), transposed(3, 2), {padding_idx = 1}"},
};

/* How often the row of each position is in index: divides the rows of y. */
static lt_status divide_by_freq(lt_call *c, const lt_tensor *index) {
  lt_groups g;
  int64_t width = c->in[1]->shape.size[1];
  lt_status status =
      lt_groups_find(c->ctx, index->numel, (const int64_t *)(const void *)index->data, NULL, &g);
  for (int64_t i = 0; status == LT_OK && i < g.count; i++) {
    double count = (double)(g.start[i + 1] - g.start[i]);
    for (int64_t j = g.start[i]; j < g.start[i + 1]; j++) {
      for (int64_t at = g.order[j] * width; at < (g.order[j] + 1) * width; at++) {
        lt_tensor_write(c->out[0], at, lt_tensor_read(c->out[0], at) / count);
      }
    }
  }
  lt_groups_free(&g);
  return status;
}

static lt_status embedding_take_forward(lt_call *c) {
  int64_t padding, bytes = c->in[1]->shape.size[1] * lt_dtype_size(c->dtype);
  bool padded;
  lt_tensor *index;
  LT_TRY(padding_of(c, PADDING, c->in[1]->shape.size[0], &padding, &padded));
  LT_TRY(lt_contiguous_as(c->in[0], LT_INT64, &index));
  const int64_t *at = (const int64_t *)(const void *)index->data;
  lt_status status = take_rows(c, index);
  if (status == LT_OK && lt_get_int(c->attrs, c->op, BY_FREQ)) status = divide_by_freq(c, index);
  for (int64_t k = 0; padded && bytes > 0 && k < index->numel; k++) {
    if (at[k] == padding) memset(c->out[0]->data + k * bytes, 0, (size_t)bytes);
  }
  lt_tensor_release(index);
  return status;
}

const lt_op lt_op_embedding_take = {
    .name = "embedding_take",
    .doc = "The transpose of embedding_backward: rows of weight, zeros for the padding's, each "
           "divided by how often it is in index if scale_grad_by_freq says so.",
    .inputs = {{"index", LT_INDEX}, {"weight", LT_ANY}},
    .options = {{"padding_idx", LT_OPTION_INDEX},
                {"scale_grad_by_freq", LT_OPTION_BOOL},
                {"sparse", LT_OPTION_BOOL}},
    .infer = embedding_infer,
    .forward = embedding_take_forward,
    .vjp = embedding_vjp,
    .saves = LT_IN(0),
    .linear = true,
    .batch = embedding_batch,
    .internal = true,
};

/* ---- embedding_backward ------------------------------------------------------------------------
 */

static lt_status embedding_backward_infer(lt_call *c) {
  const lt_shape *index = &c->in[0]->shape, *dy = &c->in[1]->shape;
  lt_shape front = *dy;
  front.ndim--;
  if (dy->ndim == 0 || !lt_shape_equal(index, &front)) {
    char a[LT_SHAPE_TEXT], b[LT_SHAPE_TEXT];
    return lt_fail(c->ctx, "%s: dy is %s, index %s", c->op->name, lt_shape_text(dy, a),
                   lt_shape_text(index, b));
  }
  int64_t rows = lt_get_int(c->attrs, c->op, ROWS), padding;
  bool padded;
  LT_TRY(padding_of(c, PADDING, rows, &padding, &padded));
  LT_TRY(lt_check_indices(c->op->name, "index", c->in[0], rows, NULL));
  c->dtype = (lt_dtype)c->in[1]->dtype;
  c->result[0] = (lt_spec){c->dtype, lt_shape_make(2, (int64_t[]){rows, dy->size[dy->ndim - 1]})};
  return LT_OK;
}

/* index and dy: contiguous. */
static lt_status add_rows(lt_call *c, const lt_tensor *index, const lt_tensor *dy) {
  int64_t padding, rows = c->out[0]->shape.size[0], width = c->out[0]->shape.size[1];
  bool padded;
  lt_groups g;
  LT_TRY(padding_of(c, PADDING, rows, &padding, &padded));
  LT_TRY(lt_zero(c->ctx, c->out[0]->data, c->out[0]->numel * lt_dtype_size(c->dtype)));
  lt_status status =
      lt_groups_find(c->ctx, index->numel, (const int64_t *)(const void *)index->data,
                     padded ? &padding : NULL, &g);
  if (status == LT_OK) {
    status = lt_groups_sum(c->ctx, &g, c->dtype, width, dy->data, c->out[0]->data, false,
                           lt_get_int(c->attrs, c->op, BY_FREQ));
  }
  lt_groups_free(&g);
  return status;
}

static lt_status embedding_backward_forward(lt_call *c) {
  lt_tensor *index, *dy;
  if (c->out[0]->numel == 0) return LT_OK;
  LT_TRY(lt_contiguous_as(c->in[0], LT_INT64, &index));
  lt_status status = lt_tensor_contiguous(c->in[1], &dy);
  if (status == LT_OK) {
    status = add_rows(c, index, dy);
    lt_tensor_release(dy);
  }
  lt_tensor_release(index);
  return status;
}

static void embedding_backward_vjp(lt_vjp *v) {
  lt_attrs attrs;
  copy_options(v, &lt_op_embedding_take, &attrs);
  lt_give(v, 1, lt_do2(v->s, &lt_op_embedding_take, &attrs, v->in[0], v->dy[0]));
}

const lt_op lt_op_embedding_backward = {
    .name = "embedding_backward",
    .doc = "Zeros, `rows` x D, to which the rows of dy (index.shape x D) are added at their "
           "numbers; those of padding_idx are left out, and scale_grad_by_freq makes the sums "
           "means.",
    .inputs = {{"index", LT_INDEX}, {"dy", LT_FLOAT}},
    .options = {{"padding_idx", LT_OPTION_INDEX},
                {"scale_grad_by_freq", LT_OPTION_BOOL},
                {"rows", LT_OPTION_INT, .required = true}},
    .infer = embedding_backward_infer,
    .forward = embedding_backward_forward,
    .vjp = embedding_backward_vjp,
    .saves = LT_IN(0),
    .linear = true,
    .batch = lt_batch_each,
    .internal = true,
};

/* ---- embedding_bag -----------------------------------------------------------------------------
 */

enum { BAG_MODE, BAG_PADDING, BAG_BY_FREQ, BAG_SPARSE, BAG_LAST };
enum { MEAN, SUM, MAX }; /* modes */
enum { BAGS_PADDING, BAGS_WEIGHT_ROWS, BAGS_LAST };

/* How many bags index (B x N, or K with offsets) holds. */
static lt_status count_bags(const lt_call *c, const lt_tensor *index, const lt_tensor *offsets,
                            bool include_last, int64_t *bags) {
  char text[LT_SHAPE_TEXT];
  if (index->shape.ndim != (offsets ? 1 : 2)) {
    return lt_fail(c->ctx, "embedding_bag: index must have %s, got %s",
                   offsets ? "one dimension where there are offsets"
                           : "two dimensions where there are no offsets",
                   lt_shape_text(&index->shape, text));
  }
  *bags = index->shape.size[0];
  if (!offsets) return LT_OK;
  if (offsets->shape.ndim != 1 || (include_last && offsets->numel == 0)) {
    return lt_fail(c->ctx, "embedding_bag: offsets must have one dimension%s, got %s",
                   include_last ? " and an entry" : "", lt_shape_text(&offsets->shape, text));
  }
  *bags = offsets->numel - include_last;
  return LT_OK;
}

static lt_status bag_numbers_infer(lt_call *c) {
  int64_t bags;
  LT_TRY(count_bags(c, c->in[0], c->in[1], lt_get_int(c->attrs, c->op, BAGS_LAST), &bags));
  c->result[0] = (lt_spec){LT_INT64, lt_shape_make(1, &c->in[0]->numel)};
  return LT_OK;
}

/* The places of index, 0-based, at which bag b begins and where its successor does. */
static void bag_range(const lt_tensor *index, const int64_t *offset, int64_t bags,
                      bool include_last, int64_t b, int64_t *first, int64_t *last) {
  if (offset) {
    *first = offset[b] - 1;
    *last = b + 1 < bags || include_last ? offset[b + 1] - 1 : index->numel;
  } else {
    *first = b * index->shape.size[1];
    *last = *first + index->shape.size[1];
  }
}

static lt_status check_offsets(const lt_call *c, int64_t n, const int64_t *offset, int64_t length,
                               bool include_last) {
  if (n > 0 && offset[0] != 1) {
    return lt_fail(c->ctx, "embedding_bag: offsets must begin with 1, got %lld",
                   (long long)offset[0]);
  }
  for (int64_t b = 1; b < n; b++) {
    if (offset[b] >= offset[b - 1] && offset[b] <= length + 1) continue;
    return lt_fail(c->ctx, "embedding_bag: offset %lld at element %lld is outside %lld..%lld",
                   (long long)offset[b], (long long)b + 1, (long long)offset[b - 1],
                   (long long)length + 1);
  }
  if ((include_last && offset[n - 1] != length + 1) || (n == 0 && length > 0)) {
    return lt_fail(c->ctx, "embedding_bag: the offsets leave out the end of index");
  }
  return LT_OK;
}

static lt_status number_bags(lt_call *c, const int64_t *index, const int64_t *offset) {
  const lt_tensor *x = c->in[0];
  int64_t bags, first, last, padding, *y = (int64_t *)(void *)c->out[0]->data;
  bool include_last = lt_get_int(c->attrs, c->op, BAGS_LAST), padded;
  LT_TRY(count_bags(c, x, c->in[1], include_last, &bags));
  LT_TRY(padding_of(c, BAGS_PADDING, lt_get_int(c->attrs, c->op, BAGS_WEIGHT_ROWS), &padding,
                    &padded));
  if (offset) LT_TRY(check_offsets(c, c->in[1]->numel, offset, x->numel, include_last));
  for (int64_t b = 0; b < bags; b++) {
    bag_range(x, offset, bags, include_last, b, &first, &last);
    for (int64_t k = first; k < last; k++) y[k] = padded && index[k] == padding ? bags + 1 : b + 1;
  }
  return LT_OK;
}

static lt_status bag_numbers_forward(lt_call *c) {
  lt_tensor *index, *offsets = NULL;
  LT_TRY(lt_contiguous_as(c->in[0], LT_INT64, &index));
  lt_status status = c->in[1] ? lt_contiguous_as(c->in[1], LT_INT64, &offsets) : LT_OK;
  if (status == LT_OK) {
    status = number_bags(c, (const int64_t *)(const void *)index->data,
                         offsets ? (const int64_t *)(const void *)offsets->data : NULL);
  }
  lt_tensor_release(offsets);
  lt_tensor_release(index);
  return status;
}

const lt_op lt_op_bag_numbers = {
    .name = "bag_numbers",
    .doc = "Which bag each element of index belongs to, from 1; those of padding_idx to one more "
           "than there are.",
    .inputs = {{"index", LT_INDEX}, {"offsets", LT_INDEX, .optional = true}},
    .options = {{"padding_idx", LT_OPTION_INDEX},
                {"rows", LT_OPTION_INT},
                {"include_last_offset", LT_OPTION_BOOL}},
    .infer = bag_numbers_infer,
    .forward = bag_numbers_forward,
    .batch = lt_batch_each,
    .internal = true,
};

/* The columns at..at+n-1 of one bag, n <= COLUMNS: marks the first largest of each. */
enum { COLUMNS = 256 };
static void mark_largest(const lt_tensor *x, int64_t m, const int64_t *order, int64_t at, int64_t n,
                         char *mask) {
  int64_t width = x->shape.size[1], size = lt_dtype_size((lt_dtype)x->dtype), best[COLUMNS];
  double most[COLUMNS], row[COLUMNS];
  for (int64_t j = 0; j < m; j++) {
    lt_convert(n, LT_FLOAT64, row, 1, (lt_dtype)x->dtype, x->data + (order[j] * width + at) * size,
               1);
    for (int64_t i = 0; i < n; i++) {
      bool more = j == 0 || row[i] > most[i];
      most[i] = more ? row[i] : most[i];
      best[i] = more ? order[j] : best[i];
    }
  }
  for (int64_t i = 0; i < n; i++) mask[best[i] * width + at + i] = 1;
}

static lt_status bag_largest_infer(lt_call *c) {
  c->result[0] = (lt_spec){LT_BOOL, c->in[1]->shape};
  return LT_OK;
}

/* bag and x: contiguous. */
static lt_status find_largest(lt_call *c, const lt_tensor *bag, const lt_tensor *x) {
  lt_groups g;
  int64_t width = x->shape.size[1];
  LT_TRY(lt_zero(c->ctx, c->out[0]->data, c->out[0]->numel));
  lt_status status =
      lt_groups_find(c->ctx, bag->numel, (const int64_t *)(const void *)bag->data, NULL, &g);
  for (int64_t i = 0; status == LT_OK && i < g.count; i++) {
    for (int64_t at = 0; at < width; at += COLUMNS) {
      mark_largest(x, g.start[i + 1] - g.start[i], g.order + g.start[i], at,
                   width - at < COLUMNS ? width - at : COLUMNS, c->out[0]->data);
    }
  }
  lt_groups_free(&g);
  return status;
}

static lt_status bag_largest_forward(lt_call *c) {
  lt_tensor *bag, *x;
  LT_TRY(lt_contiguous_as(c->in[0], LT_INT64, &bag));
  lt_status status = lt_tensor_contiguous(c->in[1], &x);
  if (status == LT_OK) {
    status = find_largest(c, bag, x);
    lt_tensor_release(x);
  }
  lt_tensor_release(bag);
  return status;
}

const lt_op lt_op_bag_largest = {
    .name = "bag_largest",
    .doc = "True for the first largest element of each column of each bag of rows.",
    .inputs = {{"bag", LT_INDEX}, {"x", LT_FLOAT}},
    .infer = bag_largest_infer,
    .forward = bag_largest_forward,
    .batch = lt_batch_each,
    .internal = true,
};

static lt_status embedding_bag_infer(lt_call *c) {
  const lt_tensor *index = c->in[0], *weights = c->in[3];
  int64_t bags, padding, rows;
  bool padded;
  char a[LT_SHAPE_TEXT], b[LT_SHAPE_TEXT];
  LT_TRY(check_table(c));
  rows = c->in[1]->shape.size[0];
  LT_TRY(count_bags(c, index, c->in[2], lt_get_int(c->attrs, c->op, BAG_LAST), &bags));
  LT_TRY(padding_of(c, BAG_PADDING, rows, &padding, &padded));
  LT_TRY(check_sparse(c, BAG_SPARSE, BAG_BY_FREQ));
  if (weights && lt_get_int(c->attrs, c->op, BAG_MODE) != SUM) {
    return lt_fail(c->ctx, "embedding_bag: per_sample_weights are for mode sum");
  }
  if (weights && !lt_shape_equal(&weights->shape, &index->shape)) {
    return lt_fail(c->ctx, "embedding_bag: per_sample_weights is %s, index %s",
                   lt_shape_text(&weights->shape, a), lt_shape_text(&index->shape, b));
  }
  return lt_is_plain(index) ? lt_check_indices("embedding_bag", "index", index, rows, NULL) : LT_OK;
}

/* The rows that index names, one below the other. */
static lt_tensor *bag_rows(lt_call *c, lt_scope *s, lt_tensor *index) {
  const lt_op *op = &lt_op_embedding;
  lt_attrs attrs;
  lt_attrs_default(&attrs, op);
  if (lt_given(c->attrs, BAG_PADDING)) {
    lt_attrs_set_int(&attrs, op, PADDING, lt_get_int(c->attrs, c->op, BAG_PADDING));
  }
  lt_attrs_set_int(&attrs, op, BY_FREQ, lt_get_int(c->attrs, c->op, BAG_BY_FREQ));
  lt_attrs_set_int(&attrs, op, SPARSE, lt_get_int(c->attrs, c->op, BAG_SPARSE));
  return lt_do2(s, op, &attrs, index, c->in[1]);
}

static lt_tensor *bag_numbers(lt_call *c, lt_scope *s) {
  const lt_op *op = &lt_op_bag_numbers;
  lt_attrs attrs;
  lt_attrs_default(&attrs, op);
  if (lt_given(c->attrs, BAG_PADDING)) {
    lt_attrs_set_int(&attrs, op, BAGS_PADDING, lt_get_int(c->attrs, c->op, BAG_PADDING));
  }
  lt_attrs_set_int(&attrs, op, BAGS_WEIGHT_ROWS, c->in[1]->shape.size[0]);
  lt_attrs_set_int(&attrs, op, BAGS_LAST, lt_get_int(c->attrs, c->op, BAG_LAST));
  return lt_do(s, op, &attrs, 2, (lt_tensor *[]){c->in[0], c->in[2]});
}

/* A bag's sum is what embedding_backward makes of its rows: those of padding_idx go to one bag
 * more, which stays empty and is left off. */
static void embedding_bag_compose(lt_call *c, lt_scope *s) {
  int64_t mode = lt_get_int(c->attrs, c->op, BAG_MODE), n = c->in[0]->numel, bags = 0;
  if (s->status == LT_OK) {
    s->status = count_bags(c, c->in[0], c->in[2], lt_get_int(c->attrs, c->op, BAG_LAST), &bags);
  }
  lt_tensor *bag = bag_numbers(c, s);
  lt_tensor *x = bag_rows(c, s, lt_reshape_to(s, c->in[0], &(lt_shape){.ndim = 1, .size = {n}}));
  if (c->in[3]) {
    x = lt_mul(s, x, lt_reshape_to(s, c->in[3], &(lt_shape){.ndim = 2, .size = {n, 1}}));
  } else if (mode == MAX) {
    x = lt_do3(s, &lt_op_where, NULL, lt_do2(s, &lt_op_bag_largest, NULL, bag, x), x,
               lt_number(s, 0));
  }
  bool padded = lt_given(c->attrs, BAG_PADDING);
  const lt_op *op = &lt_op_embedding_backward;
  lt_attrs attrs;
  lt_attrs_default(&attrs, op);
  if (padded) lt_attrs_set_int(&attrs, op, PADDING, -1);
  lt_attrs_set_int(&attrs, op, BY_FREQ, mode == MEAN);
  lt_attrs_set_int(&attrs, op, ROWS, bags + padded);
  c->out[0] = lt_do2(s, op, &attrs, bag, x);
  if (!padded) return;
  lt_attrs_default(&attrs, &lt_op_narrow);
  lt_attrs_set_int(&attrs, &lt_op_narrow, 0, 0);
  lt_attrs_set_int(&attrs, &lt_op_narrow, 1, 0);
  lt_attrs_set_int(&attrs, &lt_op_narrow, 2, bags);
  c->out[0] = lt_do1(s, &lt_op_narrow, &attrs, c->out[0]);
}

const lt_op lt_op_embedding_bag = {
    .name = "embedding_bag",
    .doc = "The mean, sum or max of rows of weight (V x D), bag by bag: index is B x N, a bag in "
           "each row, or K numbers of which bag b begins at place offsets[b] (from 1; with "
           "include_last_offset the last one is K + 1): B x D. Empty bags give zeros. Rows "
           "count from 1; those of padding_idx are left out. per_sample_weights, of index's "
           "shape, multiply the rows of a sum. scale_grad_by_freq and sparse: as of embedding.",
    .inputs = {{"index", LT_INDEX},
               {"weight", LT_FLOAT},
               {"offsets", LT_INDEX, .optional = true},
               {"per_sample_weights", LT_FLOAT, .optional = true}},
    .options = {{"mode", LT_OPTION_CHOICE, .choices = "mean sum max"},
                {"padding_idx", LT_OPTION_INDEX},
                {"scale_grad_by_freq", LT_OPTION_BOOL},
                {"sparse", LT_OPTION_BOOL},
                {"include_last_offset", LT_OPTION_BOOL}},
    .infer = embedding_bag_infer,
    .compose = embedding_bag_compose,
    .function = true,
    .sample = {"integers(1, 5, 3, 4), normal(5, 3)",
               "integers(1, 4, 5), normal(4, 2), integers(1, 1, 3), {mode = 'max'}",
               "integers(1, 5, 2, 3), normal(5, 4), nil, normal(2, 3), {mode = 'sum'}",
               "integers(1, 3, 4, 3), transposed(3, 2), {padding_idx = -1}"},
};

LT_FAMILY(embedding, &lt_op_embedding, &lt_op_embedding_take, &lt_op_embedding_backward,
          &lt_op_embedding_bag, &lt_op_bag_numbers, &lt_op_bag_largest)
