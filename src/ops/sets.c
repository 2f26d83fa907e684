/* What occurs in a tensor, where, and how often. The shapes of most results depend on the data. */
#include "core/context.h"
#include "kernels/copy.h"
#include "kernels/loop.h"
#include "ops/family.h"
#include "ops/index.h"
#include "tape/vjp.h"
#include "tape/vmap.h"

#include <string.h>

/* The largest of n numbers, 0 of none. */
static int64_t largest(int64_t n, const int64_t *x) {
  int64_t most = 0;
  for (int64_t i = 0; i < n; i++) most = x[i] > most ? x[i] : most;
  return most;
}

/* The largest element of an index tensor. */
static lt_status largest_index(lt_tensor *index, int64_t *most) {
  lt_tensor *list;
  LT_TRY(lt_contiguous_as(index, LT_INT64, &list));
  *most = largest(list->numel, (const int64_t *)(const void *)list->data);
  lt_tensor_release(list);
  return LT_OK;
}

/* ---- one_hot -------------------------------------------------------------------------------- */

enum { NUM_CLASSES };

static lt_status one_hot_infer(lt_call *c) {
  const lt_tensor *index = c->in[0];
  int64_t classes = lt_get_int(c->attrs, c->op, NUM_CLASSES);
  lt_spec *r = &c->result[0];
  *r = (lt_spec){LT_INT64, index->shape};
  if (r->shape.ndim == LT_MAX_RANK) {
    return lt_fail(c->ctx, "one_hot: index has %d dimensions already, the most there are",
                   LT_MAX_RANK);
  }
  if (classes == -1) {
    if (index->numel == 0) return lt_fail(c->ctx, "one_hot: no index shows how many classes");
    LT_TRY(lt_check_indices("one_hot", "index", index, LT_MAX_ELEMENTS, NULL));
    LT_TRY(largest_index(c->in[0], &classes));
  }
  if (classes < 1) {
    return lt_fail(c->ctx, "one_hot: num_classes must be at least 1, got %lld", (long long)classes);
  }
  r->shape.size[r->shape.ndim++] = classes;
  LT_TRY(lt_shape_check(c->ctx, "one_hot", &r->shape));
  return lt_check_indices("one_hot", "index", index, classes, NULL);
}

static lt_status one_hot_forward(lt_call *c) {
  lt_tensor *y = c->out[0], *index;
  int64_t classes = y->shape.size[y->shape.ndim - 1], *row = (void *)y->data;
  LT_TRY(lt_contiguous_as(c->in[0], LT_INT64, &index));
  const int64_t *at = (const void *)index->data;
  memset(y->data, 0, (size_t)y->numel * sizeof *row);
  for (int64_t i = 0; i < index->numel; i++, row += classes) row[at[i] - 1] = 1;
  lt_tensor_release(index);
  return LT_OK;
}

/* Each sample may show another number of classes. */
static void one_hot_batch(lt_batch *b) {
  if (lt_get_int(b->attrs, b->op, NUM_CLASSES) < 0)
    lt_batch_each(b);
  else
    lt_batch_leading(b);
}

const lt_op lt_op_one_hot = {
    .name = "one_hot",
    .doc =
        "For each index a line of num_classes zeros (int64) with a 1 at that place, which counts "
        "from 1. By default there are as many classes as the largest index.",
    .inputs = {{"index", LT_INDEX}},
    .options = {{"num_classes", LT_OPTION_INT, .value = -1}},
    .infer = one_hot_infer,
    .forward = one_hot_forward,
    .batch = one_hot_batch,
    .sample = {"integers(1, 4, 5), 4", "integers(1, 3, 2, 3)", "integers(1, 3), {num_classes = 6}"},
};

/* ---- nonzero -------------------------------------------------------------------------------- */

enum { TILE = 256 };

/* How many elements are not zero; writes their coordinates where `y` is given. */
static int64_t find_nonzero(const lt_tensor *x, int64_t *y) {
  uint8_t tile[TILE];
  int64_t size = lt_dtype_size((lt_dtype)x->dtype), offset[LT_LOOP_OPERANDS], found = 0;
  int64_t place[LT_MAX_RANK] = {0};
  int ndim = x->shape.ndim;
  lt_loop loop;
  lt_loop_build(&loop, &x->shape, 1, (const int64_t *const[]){x->strides});
  for (int64_t row = 0; x->numel > 0 && row < loop.rows; row++) {
    lt_loop_row(&loop, row, offset);
    for (int64_t at = 0; at < loop.length; at += TILE) {
      int64_t n = loop.length - at < TILE ? loop.length - at : TILE;
      lt_convert(n, LT_BOOL, tile, 1, (lt_dtype)x->dtype,
                 x->data + (offset[0] + at * loop.step[0]) * size, loop.step[0]);
      for (int64_t i = 0; i < n; i++) {
        for (int d = 0; y && tile[i] && d < ndim; d++) y[found * ndim + d] = place[d] + 1;
        for (int d = ndim - 1; y && d >= 0 && ++place[d] == x->shape.size[d]; d--) place[d] = 0;
        found += tile[i];
      }
    }
  }
  return found;
}

static lt_status nonzero_infer(lt_call *c) {
  const lt_tensor *x = c->in[0];
  c->result[0] = (lt_spec){LT_INT64, {2, {find_nonzero(x, NULL), x->shape.ndim}}};
  return LT_OK;
}

static lt_status nonzero_forward(lt_call *c) {
  find_nonzero(c->in[0], (void *)c->out[0]->data);
  return LT_OK;
}

const lt_op lt_op_nonzero = {
    .name = "nonzero",
    .doc = "Where x is not zero: one row for each such element, in row-major order, with its place "
           "along every dimension (int64, counted from 1).",
    .inputs = {{"x", LT_ANY}},
    .infer = nonzero_infer,
    .forward = nonzero_forward,
    .sample = {"mask(3, 4)", "integers(0, 1, 2, 3, 2)", "normal()"},
};

/* ---- bincount ------------------------------------------------------------------------------- */

enum { MINLENGTH };

static lt_status bincount_infer(lt_call *c) {
  const lt_tensor *x = c->in[0], *weights = c->in[1];
  int64_t least = lt_get_int(c->attrs, c->op, MINLENGTH), bins;
  char a[LT_SHAPE_TEXT], b[LT_SHAPE_TEXT];
  if (x->shape.ndim != 1) {
    return lt_fail(c->ctx, "bincount: x must have one dimension, got %s",
                   lt_shape_text(&x->shape, a));
  }
  if (weights && !lt_shape_equal(&x->shape, &weights->shape)) {
    return lt_fail(c->ctx, "bincount: weights (%s) must have the shape of x (%s)",
                   lt_shape_text(&weights->shape, b), lt_shape_text(&x->shape, a));
  }
  if (least < 0) {
    return lt_fail(c->ctx, "bincount: minlength must not be negative, got %lld", (long long)least);
  }
  LT_TRY(lt_check_indices("bincount", "value", x, LT_MAX_ELEMENTS, NULL));
  LT_TRY(largest_index(c->in[0], &bins));
  bins = bins > least ? bins : least;
  lt_dtype dtype = weights ? (lt_dtype)weights->dtype : LT_INT64;
  if (weights && !lt_dtype_is_float(dtype)) dtype = LT_FLOAT64;
  c->result[0] = (lt_spec){dtype, lt_shape_make(1, &bins)};
  return lt_shape_check(c->ctx, "bincount", &c->result[0].shape);
}

/* Sums in y, which is int64, or float64 with weights. */
static lt_status count_bins(lt_call *c, lt_tensor *y) {
  lt_tensor *x, *weights = NULL;
  memset(y->data, 0, (size_t)y->numel * 8);
  LT_TRY(lt_contiguous_as(c->in[0], LT_INT64, &x));
  lt_status status = c->in[1] ? lt_contiguous_as(c->in[1], LT_FLOAT64, &weights) : LT_OK;
  const int64_t *at = (const void *)x->data;
  if (status == LT_OK && weights) {
    const double *weight = (const void *)weights->data;
    double *sum = (void *)y->data;
    for (int64_t i = 0; i < x->numel; i++) sum[at[i] - 1] += weight[i];
    lt_tensor_release(weights);
  } else if (status == LT_OK) {
    int64_t *count = (void *)y->data;
    for (int64_t i = 0; i < x->numel; i++) count[at[i] - 1]++;
  }
  lt_tensor_release(x);
  return status;
}

static lt_status bincount_forward(lt_call *c) {
  lt_tensor *y = c->out[0], *wide;
  if (y->dtype != LT_FLOAT32) return count_bins(c, y);
  LT_TRY(lt_tensor_new(c->ctx, "bincount", LT_FLOAT64, &y->shape, &wide));
  lt_status status = count_bins(c, wide);
  if (status == LT_OK) status = lt_tensor_copy(y, wide);
  lt_tensor_release(wide);
  return status;
}

static void bincount_vjp(lt_vjp *v) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_index_select);
  lt_attrs_set_int(&attrs, &lt_op_index_select, 0, 0);
  lt_give(v, 1, lt_do2(v->s, &lt_op_index_select, &attrs, v->dy[0], v->in[0]));
}

const lt_op lt_op_bincount = {
    .name = "bincount",
    .doc = "How often 1, 2, 3, ... occur in x, up to its largest number and at least to minlength "
           "(int64); with weights, the sum of the weights of the elements that are that number, of "
           "their float type.",
    .inputs = {{"x", LT_INDEX}, {"weights", LT_ANY, .optional = true}},
    .options = {{"minlength", LT_OPTION_INT}},
    .infer = bincount_infer,
    .forward = bincount_forward,
    .vjp = bincount_vjp,
    .saves = LT_IN(0),
    .linear = true,
    .sample = {"integers(1, 5, 9), normal(9), {minlength = 7}", "integers(1, 5, 9)"},
};

/* ---- unique --------------------------------------------------------------------------------- */

enum { SORTED, RETURN_INVERSE, RETURN_COUNTS };

/* length elements from `start` on of a line. */
static lt_tensor *piece(lt_scope *s, lt_tensor *line, int64_t start, int64_t length) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_narrow);
  lt_attrs_set_int(&attrs, &lt_op_narrow, 0, 0);
  lt_attrs_set_int(&attrs, &lt_op_narrow, 1, start);
  lt_attrs_set_int(&attrs, &lt_op_narrow, 2, length);
  return lt_do1(s, &lt_op_narrow, &attrs, line);
}

/* In a sorted line: is the element another than the one before it? */
static lt_tensor *first_ones(lt_scope *s, lt_tensor *line, int64_t n) {
  lt_spec first = {LT_BOOL, {1, {n > 0}}};
  lt_tensor *yes = lt_full_like(s, &first, 1);
  if (n < 2) return yes;
  lt_tensor *in[] = {
      yes, lt_do2(s, &lt_op_ne, NULL, piece(s, line, 1, n - 1), piece(s, line, 0, n - 1))};
  return in[0] && in[1] ? lt_do(s, &lt_op_cat, NULL, 2, in) : NULL;
}

static void unique_compose(lt_call *c, lt_scope *s) {
  int64_t n = c->in[0]->numel;
  lt_shape line = lt_shape_make(1, &n);
  lt_spec zeros = {LT_INT64, line};
  lt_tensor *sorted[LT_MAX_OUTPUTS], *flat = lt_reshape_to(s, c->in[0], &line);
  lt_attrs attrs;
  if (!flat) return;
  lt_do_all(s, &lt_op_sort, NULL, 1, &flat, sorted);
  lt_tensor *first = first_ones(s, sorted[0], n);
  c->out[0] = lt_do2(s, &lt_op_masked_select, NULL, sorted[0], first);
  bool inverse = lt_get_int(c->attrs, c->op, RETURN_INVERSE);
  bool counts = lt_get_int(c->attrs, c->op, RETURN_COUNTS);
  if (!inverse && !counts) return;
  lt_attrs_default(&attrs, &lt_op_cumsum);
  lt_attrs_set_int(&attrs, &lt_op_cumsum, 0, 0);
  lt_tensor *number = lt_do1(s, &lt_op_cumsum, &attrs, first); /* in the list of unique ones */
  if (inverse) {
    lt_attrs_default(&attrs, &lt_op_scatter);
    lt_attrs_set_int(&attrs, &lt_op_scatter, 0, 0);
    lt_tensor *back =
        lt_do3(s, &lt_op_scatter, &attrs, lt_full_like(s, &zeros, 0), sorted[1], number);
    c->out[c->outputs++] = lt_reshape_to(s, back, &c->in[0]->shape);
  }
  if (counts) {
    lt_tensor *in[] = {number, NULL};
    c->out[c->outputs++] = number ? lt_do(s, &lt_op_bincount, NULL, 2, in) : NULL;
  }
}

const lt_op lt_op_unique = {
    .name = "unique",
    .doc = "The different elements of x, in order; every NaN is another. With return_inverse, also "
           "the place in that list of each element of x (of x's shape, counted from 1); with "
           "return_counts, also how often each occurs. sorted = false allows any order, and gives "
           "the same. The gradient goes to the first of equal elements.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"sorted", LT_OPTION_BOOL, .value = 1},
                {"return_inverse", LT_OPTION_BOOL},
                {"return_counts", LT_OPTION_BOOL}},
    .compose = unique_compose,
    .results = 3,
    .sample = {"normal(5)", "integers(1, 4, 3, 4), {return_inverse = true, return_counts = true}",
               "integers(1, 3, 7), {return_counts = true}"},
};

LT_FAMILY(sets, &lt_op_one_hot, &lt_op_nonzero, &lt_op_bincount, &lt_op_unique)
