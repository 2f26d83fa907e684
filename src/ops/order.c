/* Ops that put elements in order: sorting, selecting the first, the middle, a position. Sorts are
 * stable; NaN counts as the largest number; places count from 1. */
#include "kernels/lines.h"
#include "kernels/sort.h"
#include "ops/family.h"
#include "ops/index.h"
#include "ops/reduction.h"
#include "tape/vmap.h"

#include <math.h>

/* What a line needs to know. */
typedef struct order {
  lt_dtype type;
  int64_t n; /* elements in the line */
  int64_t k; /* taken from it */
  bool descending;
  bool values; /* are they asked for, before the places? */
} order;

static int64_t scratch_of(int64_t n) { return 2 * n * (int64_t)sizeof(lt_item); }

/* Writes the first k items: the elements into line[1], if asked for, the places behind them. */
static void write_items(const order *o, const lt_item *items, void *const *line) {
  int64_t *place = line[o->values ? 2 : 1];
  for (int64_t i = 0; i < o->k; i++) place[i] = items[i].place + 1;
  if (!o->values) return;
  switch (lt_dtype_size(o->type)) {
  case 4:
    for (int64_t i = 0; i < o->k; i++) {
      ((int32_t *)line[1])[i] = ((const int32_t *)line[0])[items[i].place];
    }
    break;
  case 8:
    for (int64_t i = 0; i < o->k; i++) {
      ((int64_t *)line[1])[i] = ((const int64_t *)line[0])[items[i].place];
    }
    break;
  default:
    for (int64_t i = 0; i < o->k; i++) {
      ((char *)line[1])[i] = ((const char *)line[0])[items[i].place];
    }
  }
}

static void sort_line(const void *argument, void *const *line, void *scratch) {
  const order *o = argument;
  lt_item *items = scratch;
  lt_sort_items(o->type, o->n, line[0], o->descending, items);
  if (o->k < o->n) lt_sort_select(o->type, o->n, items, o->k, items + o->n);
  lt_sort(o->type, o->k, items, items + o->n);
  write_items(o, items, line);
}

/* Input 0 along `dim` in order, k elements of each line, into the call's results. */
static lt_status sort_lines(lt_call *c, int64_t k, bool descending, bool values) {
  int dim;
  LT_TRY(lt_dim_of(c, &dim));
  order o = {(lt_dtype)c->in[0]->dtype, lt_line_length(c->in[0], dim), k, descending, values};
  if (k < 0) o.k = o.n;
  lt_tensor *t[] = {c->in[0], c->out[0], c->outputs > 1 ? c->out[1] : NULL};
  return lt_lines(c->ctx, dim, 1 + c->outputs, t, c->outputs, sort_line, &o, scratch_of(o.n),
                  o.n * 32);
}

/* ---- sort, argsort ----------------------------------------------------------------------- */

enum { DIM, DESCENDING };

static lt_status infer_places(lt_call *c) {
  int dim;
  LT_TRY(lt_dim_of(c, &dim));
  c->result[0] = (lt_spec){LT_INT64, c->in[0]->shape};
  return LT_OK;
}

static lt_status sort_infer(lt_call *c) {
  LT_TRY(infer_places(c));
  c->outputs = 2;
  c->result[1] = c->result[0];
  c->result[0].dtype = (lt_dtype)c->in[0]->dtype;
  return LT_OK;
}

static lt_status sort_forward(lt_call *c) {
  return sort_lines(c, -1, lt_get_int(c->attrs, c->op, DESCENDING), true);
}
static lt_status argsort_forward(lt_call *c) {
  return sort_lines(c, -1, lt_get_int(c->attrs, c->op, DESCENDING), false);
}

static void sort_vjp(lt_vjp *v) {
  int64_t dim = lt_get_int(v->attrs, v->op, lt_op_option_index(v->op, "dim"));
  lt_give(v, 0, lt_put_along(v, v->dy[0], v->out[1], dim));
}

const lt_op lt_op_sort = {
    .name = "sort",
    .results = 2,
    .doc = "The elements in order along dim, and the places they came from (int64, counted from "
           "1). Equal elements keep their order, whether stable is asked for or not; NaN counts "
           "as the largest.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dim", LT_OPTION_DIM, .value = -1},
                {"descending", LT_OPTION_BOOL},
                {"stable", LT_OPTION_BOOL}},
    .infer = sort_infer,
    .forward = sort_forward,
    .vjp = sort_vjp,
    .batch = lt_batch_dims,
    .saves = LT_OUT(1),
    .sample = {"normal(5)", "normal(2, 3, 4), {dim = 2, descending = true}"},
};

const lt_op lt_op_argsort = {
    .name = "argsort",
    .doc = "The places of the elements in order along dim (int64, counted from 1): the second "
           "result of sort.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dim", LT_OPTION_DIM, .value = -1},
                {"descending", LT_OPTION_BOOL},
                {"stable", LT_OPTION_BOOL}},
    .infer = infer_places,
    .forward = argsort_forward,
    .batch = lt_batch_dims,
    .sample = {"normal(5)", "normal(2, 3, 4), {dim = 2, descending = true}"},
};

/* ---- topk -------------------------------------------------------------------------------- */

enum { K, TOPK_DIM, LARGEST };

static lt_status topk_infer(lt_call *c) {
  int dim;
  LT_TRY(lt_dim_of(c, &dim));
  int64_t k = lt_get_int(c->attrs, c->op, K), n = lt_line_length(c->in[0], dim);
  if (k < 0 || k > n) {
    return lt_fail(c->ctx, "topk: k = %lld of %lld elements along dim %d", (long long)k,
                   (long long)n, dim + 1);
  }
  c->outputs = 2;
  c->result[0] = (lt_spec){(lt_dtype)c->in[0]->dtype, c->in[0]->shape};
  if (c->in[0]->shape.ndim > 0) {
    c->result[0].shape.size[dim] = k;
  } else if (k == 0) {
    c->result[0].shape = (lt_shape){1, {0}};
  }
  c->result[1] = (lt_spec){LT_INT64, c->result[0].shape};
  return LT_OK;
}

static lt_status topk_forward(lt_call *c) {
  if (c->out[0]->numel == 0) return LT_OK;
  return sort_lines(c, lt_get_int(c->attrs, c->op, K), lt_get_int(c->attrs, c->op, LARGEST), true);
}

const lt_op lt_op_topk = {
    .name = "topk",
    .results = 2,
    .doc = "The k largest elements along dim, or smallest with largest = false, in order, and "
           "their places (int64, counted from 1). Of equal elements the first are taken. sorted = "
           "false allows any order, and gives the same.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"k", LT_OPTION_INT, .required = true},
                {"dim", LT_OPTION_DIM, .value = -1},
                {"largest", LT_OPTION_BOOL, .value = 1},
                {"sorted", LT_OPTION_BOOL, .value = 1}},
    .infer = topk_infer,
    .forward = topk_forward,
    .vjp = sort_vjp,
    .zero = "masked",
    .batch = lt_batch_dims,
    .saves = LT_OUT(1),
    .sample = {"normal(5), 2", "normal(2, 3, 4), {k = 2, dim = 2, largest = false}"},
};

/* ---- median ------------------------------------------------------------------------------ */

static int64_t first_nan(const order *o, const void *x) {
  for (int64_t i = 0; i < o->n; i++) {
    if (o->type == LT_FLOAT32 && isnan(((const float *)x)[i])) return i;
    if (o->type == LT_FLOAT64 && isnan(((const double *)x)[i])) return i;
  }
  return -1;
}

static void median_line(const void *argument, void *const *line, void *scratch) {
  const order *o = argument;
  lt_item *items = scratch;
  order one = *o;
  one.k = 1;
  items[0].place = lt_dtype_is_float(o->type) ? first_nan(o, line[0]) : -1;
  if (items[0].place < 0) {
    lt_sort_items(o->type, o->n, line[0], false, items);
    lt_sort_select(o->type, o->n, items, o->k, items + o->n);
    for (int64_t i = 1; i < o->k; i++) { /* the largest of the lower half */
      if (items[i].key > items[0].key) items[0] = items[i];
    }
  }
  write_items(&one, items, line);
}

static lt_status median_infer(lt_call *c) {
  bool nothing = c->in[0]->numel == 0 && !lt_given(c->attrs, DIM);
  if (nothing && lt_dtype_is_float((lt_dtype)c->in[0]->dtype)) return lt_infer_reduction(c);
  return lt_infer_placed(c);
}

/* All elements are one line. */
static lt_status median_of_all(lt_call *c) {
  lt_tensor *x;
  lt_block *scratch;
  int64_t place, n = c->in[0]->numel;
  if (n == 0) {
    lt_tensor_write(c->out[0], 0, NAN);
    return LT_OK;
  }
  order o = {(lt_dtype)c->in[0]->dtype, n, (n - 1) / 2 + 1, false, true};
  LT_TRY(lt_tensor_contiguous(c->in[0], &x));
  lt_status status = lt_block_new(c->ctx, scratch_of(n), &scratch);
  if (status == LT_OK) {
    median_line(&o, (void *const[]){x->data, c->out[0]->data, &place}, scratch->data);
    lt_block_release(scratch);
  }
  lt_tensor_release(x);
  return status;
}

static lt_status median_forward(lt_call *c) {
  if (c->outputs == 1) return median_of_all(c);
  int dim;
  LT_TRY(lt_dim_of(c, &dim));
  int64_t n = lt_line_length(c->in[0], dim), strides[LT_MAX_RANK];
  order o = {(lt_dtype)c->in[0]->dtype, n, (n - 1) / 2 + 1, false, true};
  lt_shape kept = c->in[0]->shape;
  if (kept.ndim > 0) kept.size[dim] = 1;
  lt_shape_strides(&kept, strides);
  lt_tensor *t[3] = {c->in[0], NULL, NULL};
  lt_status status = lt_tensor_view(c->out[0], 0, &kept, strides, &t[1]);
  if (status == LT_OK) status = lt_tensor_view(c->out[1], 0, &kept, strides, &t[2]);
  if (status == LT_OK) {
    status = lt_lines(c->ctx, dim, 3, t, 2, median_line, &o, scratch_of(n), n * 16);
  }
  lt_tensor_release(t[1]);
  lt_tensor_release(t[2]);
  return status;
}

const lt_op lt_op_median = {
    .name = "median",
    .results = 2,
    .doc = "The middle element in order, of an even number the lower one; NaN if there is one. "
           "With dim two results, the median along dim and its place (int64, counted from 1). "
           "The gradient goes as that of max.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dim", LT_OPTION_DIM}, {"keepdim", LT_OPTION_BOOL}},
    .infer = median_infer,
    .forward = median_forward,
    .vjp = lt_placed_vjp,
    .zero = "masked",
    .batch = lt_batch_dims_or_all,
    .saves = LT_IN(0) | LT_OUT(0) | LT_OUT(1),
    .sample = {"normal(5)", "normal(2, 3, 4), {dim = 3, keepdim = true}", "normal(5), 1"},
};

/* ---- searchsorted ------------------------------------------------------------------------ */

enum { RIGHT };

static lt_status searchsorted_infer(lt_call *c) {
  const lt_shape *sequence = &c->in[0]->shape, *values = &c->in[1]->shape;
  char a[LT_SHAPE_TEXT], b[LT_SHAPE_TEXT];
  bool fits = sequence->ndim == 1 || sequence->ndim == values->ndim;
  for (int d = 0; fits && d < sequence->ndim - 1; d++) {
    fits = sequence->size[d] == values->size[d];
  }
  if (!fits || sequence->ndim == 0) {
    return lt_fail(c->ctx,
                   "searchsorted: sorted_sequence (%s) must have one dimension, or those of "
                   "values (%s) but for the last",
                   lt_shape_text(sequence, a), lt_shape_text(values, b));
  }
  c->dtype = lt_result_type(c);
  c->result[0] = (lt_spec){LT_INT64, *values};
  return LT_OK;
}

/* How many of the n sorted elements are smaller than the value; with `right`, not larger. */
#define POSITION(NAME, TYPE)                                                                       \
  static int64_t NAME(int64_t n, const void *sequence, const void *values, int64_t i,              \
                      bool right) {                                                                \
    const TYPE *x = sequence;                                                                      \
    const TYPE value = ((const TYPE *)values)[i];                                                  \
    int64_t low = 0, high = n;                                                                     \
    while (low < high) {                                                                           \
      int64_t middle = low + (high - low) / 2;                                                     \
      bool beyond = right ? x[middle] > value : x[middle] >= value;                                \
      if (beyond)                                                                                  \
        high = middle;                                                                             \
      else                                                                                         \
        low = middle + 1;                                                                          \
    }                                                                                              \
    return low;                                                                                    \
  }
POSITION(position_f32, float)
POSITION(position_f64, double)
POSITION(position_i64, int64_t)
POSITION(position_i32, int32_t)
POSITION(position_u8, uint8_t)

typedef int64_t position(int64_t n, const void *sequence, const void *values, int64_t i,
                         bool right);
static position *const positions[LT_DTYPE_COUNT] = {position_f32, position_f64, position_i64,
                                                    position_i32, position_u8,  position_u8};

static lt_status searchsorted_forward(lt_call *c) {
  lt_tensor *x, *values;
  LT_TRY(lt_contiguous_as(c->in[0], c->dtype, &x));
  lt_status status = lt_contiguous_as(c->in[1], c->dtype, &values);
  if (status == LT_OK) {
    int64_t n = x->shape.size[x->shape.ndim - 1], lines = n > 0 ? x->numel / n : 1;
    int64_t per_line = lines > 0 ? values->numel / lines : 0;
    bool right = lt_get_int(c->attrs, c->op, RIGHT);
    int64_t *y = (void *)c->out[0]->data;
    for (int64_t i = 0; i < values->numel; i++) {
      const char *line = x->data + i / per_line * n * lt_dtype_size(c->dtype);
      y[i] = positions[c->dtype](n, line, values->data, i, right) + 1;
    }
    lt_tensor_release(values);
  }
  lt_tensor_release(x);
  return status;
}

/* One sorted row serves values of any shape. */
static void searchsorted_batch(lt_batch *b) {
  if (b->over[0] || b->in[0]->shape.ndim != 1)
    lt_batch_each(b);
  else
    lt_batch_run(b, b->attrs, (lt_tensor *[]){b->in[0], b->over[1]});
}

const lt_op lt_op_searchsorted = {
    .name = "searchsorted",
    .doc = "Where values would go into sorted_sequence so that it stays sorted: the place of the "
           "first element that is not smaller, or with right = true that is larger (int64, "
           "counted from 1; n + 1 behind the last). sorted_sequence has one dimension, or one "
           "sequence per line of values.",
    .inputs = {{"sorted_sequence", LT_ANY}, {"values", LT_ANY}},
    .options = {{"right", LT_OPTION_BOOL}},
    .infer = searchsorted_infer,
    .forward = searchsorted_forward,
    .batch = searchsorted_batch,
    .sample = {"positive(5):cumsum(1), uniform(2, 3)",
               "integers(1, 3, 2, 4):cumsum(2), integers(0, 9, 2, 3), {right = true}"},
};

LT_FAMILY(order, &lt_op_sort, &lt_op_argsort, &lt_op_topk, &lt_op_median, &lt_op_searchsorted)
