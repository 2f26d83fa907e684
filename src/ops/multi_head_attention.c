/* multi_head_attention: projections, attention in every head, and a projection of the heads
 * together. Made of other ops. */
#include "core/context.h"
#include "ops/attention.h"
#include "ops/family.h"

#include <math.h>

enum { QUERY, KEY, VALUE, W_IN, B_IN, W_OUT, B_OUT, PADDING_MASK, ATTN_MASK };
enum { NUM_HEADS, NEED_WEIGHTS, AVERAGE };

/* ---- Checks ------------------------------------------------------------------------------------
 */

static lt_status check_shape(const lt_call *c, int i, int n, const int64_t *size) {
  const lt_tensor *t = c->in[i];
  lt_shape shape = lt_shape_make(n, size);
  char wanted[LT_SHAPE_TEXT], got[LT_SHAPE_TEXT];
  if (!t || lt_shape_equal(&t->shape, &shape)) return LT_OK;
  return lt_fail(c->ctx, "%s: %s must be %s, got %s", c->op->name, c->op->inputs[i].name,
                 lt_shape_text(&shape, wanted), lt_shape_text(&t->shape, got));
}

static lt_status check_dtypes(const lt_call *c) {
  for (int i = KEY; i < c->inputs; i++) {
    const lt_tensor *t = c->in[i], *q = c->in[QUERY];
    bool mask = i >= PADDING_MASK;
    if (!t || t->dtype == q->dtype || (mask && t->dtype == LT_BOOL)) continue;
    return lt_fail(c->ctx, "%s: %s must be %s%s, got %s", c->op->name, c->op->inputs[i].name,
                   lt_dtype_name((lt_dtype)q->dtype),
                   mask ? " (added) or bool (true is not attended)" : " as query",
                   lt_dtype_name((lt_dtype)t->dtype));
  }
  return LT_OK;
}

static lt_status mha_infer(lt_call *c) {
  const lt_shape *q = &c->in[QUERY]->shape, *k = &c->in[KEY]->shape;
  int64_t heads = lt_get_int(c->attrs, c->op, NUM_HEADS);
  char text[LT_SHAPE_TEXT], other[LT_SHAPE_TEXT];
  LT_TRY(check_dtypes(c));
  bool batched = q->ndim == 3;
  if (q->ndim < 2 || q->ndim > 3 || k->ndim != q->ndim || (batched && q->size[0] != k->size[0])) {
    return lt_fail(c->ctx,
                   "%s: query, key and value must be N x L x E, N x S x E and N x S x E, or all "
                   "without N (query %s, key %s)",
                   c->op->name, lt_shape_text(q, text), lt_shape_text(k, other));
  }
  int64_t n = batched ? q->size[0] : 1, l = q->size[q->ndim - 2], s = k->size[q->ndim - 2];
  int64_t e = q->size[q->ndim - 1];
  if (heads < 1 || e < 1 || e % heads != 0) {
    return lt_fail(c->ctx, "%s: num_heads = %lld does not divide the %lld features of query",
                   c->op->name, (long long)heads, (long long)e);
  }
  int64_t keys[] = {n, s, e};
  LT_TRY(check_shape(c, KEY, q->ndim, batched ? keys : keys + 1));
  LT_TRY(check_shape(c, VALUE, q->ndim, batched ? keys : keys + 1));
  LT_TRY(check_shape(c, W_IN, 2, (int64_t[]){3 * e, e}));
  LT_TRY(check_shape(c, B_IN, 1, (int64_t[]){3 * e}));
  LT_TRY(check_shape(c, W_OUT, 2, (int64_t[]){e, e}));
  LT_TRY(check_shape(c, B_OUT, 1, &e));
  LT_TRY(check_shape(c, PADDING_MASK, batched ? 2 : 1, batched ? keys : keys + 1));
  bool each = c->in[ATTN_MASK] && c->in[ATTN_MASK]->shape.ndim == 3;
  if (each) return check_shape(c, ATTN_MASK, 3, (int64_t[]){n * heads, l, s});
  return check_shape(c, ATTN_MASK, 2, (int64_t[]){l, s});
}

/* ---- The parts ---------------------------------------------------------------------------------
 */

static lt_tensor *narrow(lt_scope *s, lt_tensor *t, int dim, int64_t start, int64_t length) {
  const lt_op *op = &lt_op_narrow;
  lt_attrs attrs;
  lt_attrs_default(&attrs, op);
  lt_attrs_set_int(&attrs, op, 0, dim);
  lt_attrs_set_int(&attrs, op, 1, start);
  lt_attrs_set_int(&attrs, op, 2, length);
  return lt_do1(s, op, &attrs, t);
}

/* x W^T + b, with rows first .. first + count - 1 of thirds of the weight and bias. */
static lt_tensor *project(lt_call *c, lt_scope *s, lt_tensor *x, int first, int count) {
  int64_t e = c->in[W_OUT]->shape.size[0];
  lt_tensor *w = c->in[W_IN], *b = c->in[B_IN];
  if (count < 3) {
    w = narrow(s, w, 0, first * e, count * e);
    b = narrow(s, b, 0, first * e, count * e);
  }
  return x && w ? lt_do(s, &lt_op_linear, NULL, 3, (lt_tensor *[]){x, w, b}) : NULL;
}

/* One product for all that come from the same tensor. */
static void project_in(lt_call *c, lt_scope *s, lt_tensor *out[3]) {
  lt_tensor *const *x = c->in;
  int64_t e = c->in[W_OUT]->shape.size[0];
  for (int first = 0, count; first < 3; first += count) {
    for (count = 1; first + count < 3 && x[first + count] == x[first]; count++) {
    }
    lt_tensor *all = project(c, s, x[first], first, count);
    for (int i = 0; i < count; i++) {
      out[first + i] = count == 1 ? all : narrow(s, all, -1, i * e, e);
    }
  }
}

static lt_tensor *swap_middle(lt_scope *s, lt_tensor *t) {
  const lt_op *op = &lt_op_transpose;
  lt_attrs attrs;
  lt_attrs_default(&attrs, op);
  lt_attrs_set_int(&attrs, op, 0, 1);
  lt_attrs_set_int(&attrs, op, 1, 2);
  return lt_do1(s, op, &attrs, t);
}

/* N x L x E as N x heads x L x E / heads, a view. */
static lt_tensor *into_heads(lt_scope *s, lt_tensor *t, int64_t n, int64_t heads) {
  if (!t) return NULL;
  int64_t l = t->shape.size[t->shape.ndim - 2], e = t->shape.size[t->shape.ndim - 1];
  lt_shape shape = lt_shape_make(4, (int64_t[]){n, l, heads, e / heads});
  return swap_middle(s, lt_reshape_to(s, t, &shape));
}

/* A mask in which true is not attended, as floats to be added. */
static lt_tensor *added(lt_scope *s, lt_tensor *mask, lt_dtype dtype) {
  if (!mask || mask->dtype != LT_BOOL) return mask;
  lt_spec spec = {dtype, {0}};
  lt_tensor *zero = lt_full_like(s, &spec, 0), *hidden = lt_full_like(s, &spec, -INFINITY);
  return lt_do3(s, &lt_op_where, NULL, mask, hidden, zero);
}

/* Both masks as one: bool, true attends, if both are bool; floats otherwise. */
static lt_tensor *join_masks(lt_call *c, lt_scope *s, int64_t n, int64_t heads) {
  lt_tensor *padding = c->in[PADDING_MASK], *mask = c->in[ATTN_MASK];
  lt_dtype dtype = (lt_dtype)c->in[QUERY]->dtype;
  if (padding) {
    int64_t keys = padding->shape.size[padding->shape.ndim - 1];
    lt_shape shape = lt_shape_make(4, (int64_t[]){n, 1, 1, keys});
    padding = lt_reshape_to(s, padding, &shape);
  }
  if (mask && mask->shape.ndim == 3) {
    const int64_t *size = mask->shape.size;
    lt_shape shape = lt_shape_make(4, (int64_t[]){n, heads, size[1], size[2]});
    mask = lt_reshape_to(s, mask, &shape);
  }
  bool adds = (padding && padding->dtype != LT_BOOL) || (mask && mask->dtype != LT_BOOL);
  if (adds) {
    padding = added(s, padding, dtype);
    mask = added(s, mask, dtype);
    return padding && mask ? lt_add(s, padding, mask) : padding ? padding : mask;
  }
  padding = lt_do1(s, &lt_op_logical_not, NULL, padding);
  mask = lt_do1(s, &lt_op_logical_not, NULL, mask);
  if (!padding || !mask) return padding ? padding : mask;
  return lt_do2(s, &lt_op_logical_and, NULL, padding, mask);
}

static lt_tensor *without_batch(lt_scope *s, lt_tensor *t) {
  if (!t) return NULL;
  lt_shape shape = lt_shape_make(t->shape.ndim - 1, t->shape.size + 1);
  return lt_reshape_to(s, t, &shape);
}

static void mha_compose(lt_call *c, lt_scope *s) {
  const lt_shape *query = &c->in[QUERY]->shape;
  bool batched = query->ndim == 3;
  bool need_weights = lt_get_int(c->attrs, c->op, NEED_WEIGHTS) != 0;
  int64_t heads = lt_get_int(c->attrs, c->op, NUM_HEADS), n = batched ? query->size[0] : 1;
  int64_t l = query->size[query->ndim - 2], e = query->size[query->ndim - 1];
  double scale = 1 / sqrt((double)(e / heads));
  lt_tensor *x[3], *weights = NULL, *y;
  project_in(c, s, x);
  for (int i = 0; i < 3; i++) x[i] = into_heads(s, x[i], n, heads);
  lt_tensor *mask = join_masks(c, s, n, heads);
  if (need_weights) {
    weights = lt_attention_weights(s, x[0], x[1], mask, false, scale);
    y = lt_do2(s, &lt_op_matmul, NULL, weights, x[2]);
  } else {
    y = s->status == LT_OK ? lt_attend(s, x[0], x[1], x[2], mask, false, scale) : NULL;
  }
  lt_shape shape = lt_shape_make(3, (int64_t[]){n, l, e});
  y = lt_reshape_to(s, swap_middle(s, y), &shape);
  if (y) y = lt_do(s, &lt_op_linear, NULL, 3, (lt_tensor *[]){y, c->in[W_OUT], c->in[B_OUT]});
  c->out[0] = batched ? y : without_batch(s, y);
  if (!need_weights) return;
  if (lt_get_int(c->attrs, c->op, AVERAGE)) {
    const int64_t dim = 1;
    weights = lt_scale(s, lt_sum_over(s, weights, 1, &dim, false), 1 / (double)heads);
  }
  c->outputs = 2;
  c->out[1] = batched ? weights : without_batch(s, weights);
}

const lt_op lt_op_multi_head_attention = {
    .name = "multi_head_attention",
    .doc = "Attention in num_heads parts of the features, for query N x L x E, key and value N x S "
           "x E (or all without N): each is projected by its third of in_proj_weight (3E x E) and "
           "in_proj_bias (3E), attended as in scaled_dot_product_attention, and the parts are "
           "projected together by out_proj_weight (E x E) and out_proj_bias (E). key_padding_mask "
           "is N x S, attn_mask L x S or (N num_heads) x L x S: bool, where true is not attended, "
           "or float, added. Returns N x L x E, and with need_weights the weights: N x L x S, the "
           "mean over heads, or N x num_heads x L x S without average_attn_weights. Without "
           "need_weights no L x S matrix is kept. Vaswani et al. 2017, arXiv 1706.03762.",
    .inputs = {{"query", LT_FLOAT},
               {"key", LT_FLOAT},
               {"value", LT_FLOAT},
               {"in_proj_weight", LT_FLOAT},
               {"in_proj_bias", LT_FLOAT, .optional = true},
               {"out_proj_weight", LT_FLOAT},
               {"out_proj_bias", LT_FLOAT, .optional = true},
               {"key_padding_mask", LT_ANY, .optional = true},
               {"attn_mask", LT_ANY, .optional = true}},
    .options = {{"num_heads", LT_OPTION_INT, .required = true},
                {"need_weights", LT_OPTION_BOOL, .value = 1},
                {"average_attn_weights", LT_OPTION_BOOL, .value = 1}},
    .infer = mha_infer,
    .compose = mha_compose,
    .results = 2,
    .function = true,
    .sample = {"normal(2, 3, 4), normal(2, 2, 4), normal(2, 2, 4), normal(12, 4), normal(12), "
               "normal(4, 4), normal(4), {num_heads = 2}",
               "normal(3, 4), normal(3, 4), normal(3, 4), normal(12, 4), nil, normal(4, 4), nil, "
               "nil, normal(3, 3), {num_heads = 2, average_attn_weights = false}",
               "normal(1, 2, 2), normal(1, 3, 2), normal(1, 3, 2), normal(6, 2), normal(6), "
               "normal(2, 2), normal(2), nil, mask(2, 3), {num_heads = 1, need_weights = false}"},
};

LT_FAMILY(multi_head_attention, &lt_op_multi_head_attention)
