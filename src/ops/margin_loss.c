/* Losses that ask for a margin: of targets -1 and 1, of pairs and triplets of vectors, and between
 * the scores of classes. Those on numbers are pointwise; the others are made of ops. Formulas,
 * names and defaults are PyTorch's. */
#include "core/context.h"
#include "kernels/copy.h"
#include "kernels/math.h"
#include "kernels/parallel.h"
#include "ops/index.h"
#include "ops/loss.h"

#include <string.h>

#define PAIR                                                                                       \
  {"input", LT_ANY}, { "target", LT_ANY }

static lt_tensor *call(lt_scope *s, const lt_op *op, lt_tensor *x) {
  return lt_do1(s, op, NULL, x);
}

static double number(const lt_call *c, int option) {
  return lt_get_number(c->attrs, c->op, option);
}

/* ---- hinge_loss ----------------------------------------------------------------------------- */

#define HINGE(z) ((z) <= 0 ? 0 : (z))

LT_KERNEL_2(hinge_loss, x, t, HINGE(1 - t * x))
LT_KERNEL_3(hinge_loss_backward, dy, x, t, 1 - t * x <= 0 ? 0 : -dy * t)

/* -1 where the margin is not kept, else 0 */
static lt_tensor *hinge_step(lt_vjp *v, lt_tensor *const *x) {
  lt_tensor *product = lt_mul(v->s, x[0], x[1]);
  return lt_neg(v->s, lt_step(v->s, &lt_op_lt, product, lt_number(v->s, 1)));
}

static lt_tensor *hinge_slope(lt_vjp *v, lt_tensor *const *x, int i) {
  (void)i;
  return lt_mul(v->s, hinge_step(v, x), x[0]);
}

static lt_tensor *hinge_curve(lt_vjp *v, lt_tensor *const *x, int i) {
  return i == 0 ? NULL : hinge_step(v, x);
}

static const lt_loss hinge_loss = {.slope = hinge_slope, .curve = hinge_curve};

LT_LOSS(hinge_loss, lt_loss_infer, PAIR, PAIR,
        .doc = "max(0, 1 - target * input) for targets -1 and 1, as Keras has it; input and "
               "target broadcast." LT_REDUCTION_DOC,
        .options = {LT_REDUCTION_OPTION},
        .sample = {"normal(3, 4), integers(0, 1, 3, 4) * 2 - 1",
                   "normal(2, 3, 4), normal(4), {reduction = 'sum'}",
                   "normal(3, 4), normal(3, 4), {reduction = 'none'}"})

/* ---- hinge_embedding_loss ------------------------------------------------------------------- */

enum { MARGIN = 1 };

LT_KERNEL_2(hinge_embedding_loss, x, t, (t != 1 ? HINGE(K(MARGIN) - x) : 0) + (t != -1 ? x : 0))
LT_KERNEL_3(hinge_embedding_loss_backward, dy, x, t,
            (t != 1 && !(K(MARGIN) - x <= 0) ? -dy : 0) + (t != -1 ? dy : 0))

static const lt_loss hinge_embedding_loss = {0};

LT_LOSS(hinge_embedding_loss, lt_loss_infer, PAIR, PAIR,
        .doc = "input (a distance) where target is 1, max(0, margin - input) where it is -1; "
               "input and target broadcast." LT_REDUCTION_DOC,
        .options = {LT_REDUCTION_OPTION, {"margin", LT_OPTION_NUMBER, .value = 1}},
        .sample = {"normal(3, 4), integers(0, 1, 3, 4) * 2 - 1",
                   "normal(2, 3, 4), integers(0, 1, 3, 1) * 2 - 1, {margin = 0.3, reduction = "
                   "'sum'}",
                   "normal(3), integers(0, 1, 3) * 2 - 1, {reduction = 'none'}"})

/* ---- soft_margin_loss ----------------------------------------------------------------------- */

#define SOFTPLUS(z) (((z) > 0 ? (z) : 0) + LOG1P(EXP(-ABS(z))))

LT_KERNEL_2(soft_margin_loss, x, t, SOFTPLUS(-t *x))
LT_KERNEL_3(soft_margin_loss_backward, dy, x, t, -dy *t *SIGMOID(-t *x))

/* sigmoid(-target * input) */
static lt_tensor *soft_share(lt_vjp *v, lt_tensor *const *x) {
  return call(v->s, &lt_op_sigmoid, lt_neg(v->s, lt_mul(v->s, x[0], x[1])));
}

static lt_tensor *soft_slope(lt_vjp *v, lt_tensor *const *x, int i) {
  (void)i;
  return lt_neg(v->s, lt_mul(v->s, x[0], soft_share(v, x)));
}

/* t^2 p (1 - p) in the input, t x p (1 - p) - p in the target */
static lt_tensor *soft_curve(lt_vjp *v, lt_tensor *const *x, int i) {
  lt_scope *s = v->s;
  lt_tensor *p = soft_share(v, x), *bend = lt_mul(s, p, lt_shift(s, lt_neg(s, p), 1));
  lt_tensor *curve = lt_mul(s, lt_mul(s, x[1], x[1 - i]), bend);
  return i == 0 ? curve : lt_sub(s, curve, p);
}

static const lt_loss soft_margin_loss = {.slope = soft_slope, .curve = soft_curve};

LT_LOSS(soft_margin_loss, lt_loss_infer, PAIR, PAIR,
        .doc = "ln(1 + e^(-target * input)) for targets -1 and 1, without overflow; input and "
               "target broadcast." LT_REDUCTION_DOC,
        .options = {LT_REDUCTION_OPTION},
        .sample = {"normal(3, 4), normal(3, 4)",
                   "normal(2, 3, 4), integers(0, 1, 4) * 2 - 1, {reduction = 'sum'}",
                   "normal(3, 4), normal(3, 1), {reduction = 'none'}"})

/* ---- margin_ranking_loss -------------------------------------------------------------------- */

LT_KERNEL_3(margin_ranking_loss, x, other, t, HINGE(K(MARGIN) - t * (x - other)))
LT_KERNEL_4(margin_ranking_loss_backward, dy, x, other, t,
            K(MARGIN) - t * (x - other) <= 0 ? 0 : -dy * t)

/* -1 where the margin is not kept, else 0 */
static lt_tensor *ranking_step(lt_vjp *v, lt_tensor *const *x) {
  lt_scope *s = v->s;
  lt_tensor *lead = lt_mul(s, x[2], lt_sub(s, x[0], x[1]));
  lt_tensor *margin = lt_number(s, lt_get_number(v->attrs, v->op, MARGIN));
  return lt_neg(s, lt_step(s, &lt_op_lt, lead, margin));
}

static lt_tensor *ranking_slope(lt_vjp *v, lt_tensor *const *x, int i) {
  (void)i;
  return lt_mul(v->s, ranking_step(v, x), lt_sub(v->s, x[0], x[1]));
}

static lt_tensor *ranking_curve(lt_vjp *v, lt_tensor *const *x, int i) {
  return i == 0 ? NULL : ranking_step(v, x);
}

static const lt_loss margin_ranking_loss = {
    .difference = true, .slope = ranking_slope, .curve = ranking_curve};

#define RANKED                                                                                     \
  {"input1", LT_ANY}, {"input2", LT_ANY}, { "target", LT_ANY }

LT_LOSS(margin_ranking_loss, lt_loss_infer, RANKED, RANKED,
        .doc = "max(0, margin - target * (input1 - input2)): input1 should rank higher where "
               "target is 1, lower where it is -1; all three broadcast." LT_REDUCTION_DOC,
        .options = {LT_REDUCTION_OPTION, {"margin", LT_OPTION_NUMBER}},
        .sample = {"normal(3, 4), normal(3, 4), integers(0, 1, 3, 4) * 2 - 1",
                   "normal(2, 3, 4), normal(4), normal(3, 1), {margin = 0.5, reduction = 'sum'}",
                   "normal(3), normal(3), normal(3), {reduction = 'none'}"})

/* ---- cosine_embedding_loss ------------------------------------------------------------------ */

static lt_status refuse_shapes(const lt_call *c, const char *wanted) {
  char a[3][LT_SHAPE_TEXT];
  for (int i = 0; i < 3; i++) {
    if (i < c->inputs && c->in[i]) lt_shape_text(&c->in[i]->shape, a[i]);
  }
  if (lt_op_inputs(c->op) < 3 || !c->in[2]) {
    return lt_fail(c->ctx, "%s: %s, got %s and %s", c->op->name, wanted, a[0], a[1]);
  }
  return lt_fail(c->ctx, "%s: %s, got %s, %s and %s", c->op->name, wanted, a[0], a[1], a[2]);
}

static lt_status cosine_infer(lt_call *c) {
  lt_shape x = c->in[0]->shape;
  int places = c->in[2]->shape.ndim;
  bool fits = places <= 1 && x.ndim == places + 1 && c->in[1]->shape.ndim == x.ndim &&
              lt_shape_broadcast(&x, &c->in[1]->shape);
  if (fits) {
    x.ndim = places;
    fits = lt_shape_broadcast(&x, &c->in[2]->shape);
  }
  if (fits) return LT_OK;
  return refuse_shapes(c, "takes inputs of N x D and a target of N, or of D and 0-d");
}

static lt_tensor *dot(lt_scope *s, lt_tensor *a, lt_tensor *b) {
  return lt_sum_over(s, lt_mul(s, a, b), 1, (int64_t[]){-1}, false);
}

static lt_tensor *where_equal(lt_scope *s, lt_tensor *target, double value, lt_tensor *y) {
  lt_tensor *holds = lt_do2(s, &lt_op_eq, NULL, target, lt_number(s, value));
  return lt_do3(s, &lt_op_where, NULL, holds, y, lt_number(s, 0));
}

static void cosine_compose(lt_call *c, lt_scope *s) {
  lt_tensor *a = c->in[0], *b = c->in[1], *t = c->in[2];
  lt_tensor *squares =
      lt_mul(s, lt_shift(s, dot(s, a, a), 1e-12), lt_shift(s, dot(s, b, b), 1e-12));
  lt_tensor *cosine = lt_div(s, dot(s, a, b), call(s, &lt_op_sqrt, squares));
  lt_tensor *near = where_equal(s, t, 1, lt_shift(s, lt_neg(s, cosine), 1));
  lt_tensor *far = call(s, &lt_op_relu, lt_shift(s, cosine, -number(c, MARGIN)));
  lt_tensor *y = lt_add(s, near, where_equal(s, t, -1, far));
  c->out[0] = lt_reduced(s, y, lt_reduction_of(c->attrs, c->op));
}

const lt_op lt_op_cosine_embedding_loss = {
    .name = "cosine_embedding_loss",
    .doc = "Of the cosine between the vectors input1 and input2: 1 - cos where target is 1, "
           "max(0, cos - margin) where it is -1. Inputs are N x D with a target of N, or D with a "
           "0-d target." LT_REDUCTION_DOC,
    .inputs = {{"input1", LT_FLOAT}, {"input2", LT_FLOAT}, {"target", LT_ANY}},
    .options = {LT_REDUCTION_OPTION, {"margin", LT_OPTION_NUMBER}},
    .infer = cosine_infer,
    .compose = cosine_compose,
    .sample = {"normal(3, 4), normal(3, 4), integers(0, 1, 3) * 2 - 1",
               "normal(5, 3), normal(5, 3), integers(0, 1, 5) * 2 - 1, {margin = -0.9, reduction "
               "= 'sum'}",
               "normal(3, 4), normal(1, 4), integers(0, 1, 3) * 2 - 1, {margin = -0.9, reduction "
               "= 'none'}",
               "normal(4), normal(4), 1"},
};

/* ---- triplet_margin_loss -------------------------------------------------------------------- */

enum { TRIPLET_P = 2, TRIPLET_EPS, TRIPLET_SWAP };

static lt_status triplet_infer(lt_call *c) {
  lt_shape x = c->in[0]->shape;
  bool fits = x.ndim > 0;
  for (int i = 1; i < 3 && fits; i++) {
    fits = c->in[i]->shape.ndim == x.ndim && lt_shape_broadcast(&x, &c->in[i]->shape);
  }
  if (isnan(number(c, TRIPLET_P))) return lt_fail(c->ctx, "%s: p is nan", c->op->name);
  if (!fits) return refuse_shapes(c, "takes three tensors of vectors that broadcast, of one rank");
  if (x.size[x.ndim - 1] > 0) return LT_OK;
  return refuse_shapes(c, "the vectors have no elements");
}

/* The p-norm of a - b + eps along the last dim. */
static lt_tensor *distance(const lt_call *c, lt_scope *s, lt_tensor *a, lt_tensor *b) {
  const lt_op *op = &lt_op_norm;
  lt_attrs attrs;
  lt_attrs_default(&attrs, op);
  lt_attrs_set_number(&attrs, op, lt_op_option_index(op, "p"), number(c, TRIPLET_P));
  lt_attrs_set_list(&attrs, op, lt_op_option_index(op, "dim"), 1, (int64_t[]){-1});
  return lt_do1(s, op, &attrs, lt_shift(s, lt_sub(s, a, b), number(c, TRIPLET_EPS)));
}

static void triplet_compose(lt_call *c, lt_scope *s) {
  lt_tensor *anchor = c->in[0], *positive = c->in[1], *negative = c->in[2];
  lt_tensor *far = distance(c, s, anchor, negative);
  if (lt_get_int(c->attrs, c->op, TRIPLET_SWAP) != 0) {
    far = lt_do2(s, &lt_op_minimum, NULL, far, distance(c, s, positive, negative));
  }
  lt_tensor *gap = lt_sub(s, distance(c, s, anchor, positive), far);
  lt_tensor *y = call(s, &lt_op_relu, lt_shift(s, gap, number(c, MARGIN)));
  c->out[0] = lt_reduced(s, y, lt_reduction_of(c->attrs, c->op));
}

const lt_op lt_op_triplet_margin_loss = {
    .name = "triplet_margin_loss",
    .doc = "max(0, d(anchor, positive) - d(anchor, negative) + margin) with the distance "
           "d(a, b) = norm of a - b + eps in p along the last dimension. swap takes "
           "d(positive, negative) where that is smaller than d(anchor, negative)." LT_REDUCTION_DOC
           " Balntas et al. 2016.",
    .inputs = {{"anchor", LT_FLOAT}, {"positive", LT_FLOAT}, {"negative", LT_FLOAT}},
    .options = {LT_REDUCTION_OPTION,
                {"margin", LT_OPTION_NUMBER, .value = 1},
                {"p", LT_OPTION_NUMBER, .value = 2},
                {"eps", LT_OPTION_NUMBER, .value = 1e-6},
                {"swap", LT_OPTION_BOOL}},
    .infer = triplet_infer,
    .compose = triplet_compose,
    .sample = {"normal(3, 4), normal(3, 4), normal(3, 4), {margin = 3}",
               "normal(2, 3, 4), normal(2, 3, 4), normal(2, 1, 4), {margin = 3, swap = true, "
               "reduction = 'sum'}",
               "normal(3, 4), normal(3, 4), normal(3, 4), {margin = 3, p = 3, eps = 0.1, "
               "reduction = 'none'}",
               "normal(4), normal(4), normal(4), {margin = 9, p = 1}"},
};

/* ---- multi_margin_loss ---------------------------------------------------------------------- */

enum { MULTI_P = 1, MULTI_MARGIN };

/* Which element of each row is the label's. */
static lt_status label_mask_infer(lt_call *c) {
  int64_t classes = lt_get_int(c->attrs, c->op, 0);
  c->result[0] = (lt_spec){LT_BOOL, {2, {c->in[0]->numel, classes}}};
  return lt_check_indices("multi_margin_loss", "label", c->in[0], classes, NULL);
}

static lt_status label_mask_forward(lt_call *c) {
  lt_tensor *y = c->out[0], *labels;
  LT_TRY(lt_contiguous_as(c->in[0], LT_INT64, &labels));
  const int64_t *label = (const int64_t *)(const void *)labels->data;
  memset(y->data, 0, (size_t)y->numel);
  for (int64_t i = 0; i < y->shape.size[0]; i++) y->data[i * y->shape.size[1] + label[i] - 1] = 1;
  lt_tensor_release(labels);
  return LT_OK;
}

static const lt_op label_mask = {
    .name = "label_mask",
    .doc = "A row of `classes` for each label: true at the label, else false.",
    .inputs = {{"label", LT_INDEX}},
    .options = {{"classes", LT_OPTION_INT}},
    .infer = label_mask_infer,
    .forward = label_mask_forward,
    .batch = lt_batch_each,
    .internal = true,
};

static lt_status multi_margin_infer(lt_call *c) {
  const lt_tensor *x = c->in[0], *target = c->in[1], *weight = c->in[2];
  int ndim = x->shape.ndim;
  int64_t p = lt_get_int(c->attrs, c->op, MULTI_P), rows = ndim == 2 ? x->shape.size[0] : 1;
  if (p != 1 && p != 2) {
    return lt_fail(c->ctx, "multi_margin_loss: p must be 1 or 2, got %lld", (long long)p);
  }
  bool fits = ndim > 0 && ndim <= 2 && x->shape.size[ndim - 1] > 0 && target->numel == rows &&
              (ndim == 1 ? target->shape.ndim <= 1 : target->shape.ndim == 1);
  if (!fits) return refuse_shapes(c, "takes input of N x C and labels of N, or of C and one label");
  if (weight && (weight->shape.ndim != 1 || weight->numel != x->shape.size[ndim - 1])) {
    return refuse_shapes(c, "takes one weight for each class");
  }
  return LT_OK;
}

static void multi_margin_compose(lt_call *c, lt_scope *s) {
  lt_shape x = c->in[0]->shape, places = c->in[1]->shape;
  int64_t classes = x.size[x.ndim - 1], rows = x.ndim == 2 ? x.size[0] : 1;
  lt_tensor *input = lt_reshape_to(s, c->in[0], &(lt_shape){2, {rows, classes}});
  lt_tensor *labels = lt_reshape_to(s, c->in[1], &(lt_shape){1, {rows}});
  lt_attrs attrs;
  lt_attrs_default(&attrs, &label_mask);
  lt_attrs_set_int(&attrs, &label_mask, 0, classes);
  lt_tensor *mask = lt_do1(s, &label_mask, &attrs, labels), *zero = lt_number(s, 0);
  lt_tensor *own = lt_do3(s, &lt_op_where, NULL, mask, input, zero);
  own = lt_shift(s, lt_sum_over(s, own, 1, (int64_t[]){1}, true), -number(c, MULTI_MARGIN));
  lt_tensor *y = call(s, &lt_op_relu, lt_sub(s, input, own));
  if (lt_get_int(c->attrs, c->op, MULTI_P) == 2) y = call(s, &lt_op_square, y);
  y = lt_sum_over(s, lt_do3(s, &lt_op_where, NULL, mask, zero, y), 1, (int64_t[]){1}, false);
  y = lt_scale(s, y, 1 / (double)classes);
  if (c->in[2]) {
    lt_attrs_default(&attrs, &lt_op_index_select);
    lt_attrs_set_int(&attrs, &lt_op_index_select, lt_op_option_index(&lt_op_index_select, "dim"),
                     0);
    y = lt_mul(s, y, lt_do2(s, &lt_op_index_select, &attrs, c->in[2], labels));
  }
  y = lt_reshape_to(s, y, &places);
  c->out[0] = lt_reduced(s, y, lt_reduction_of(c->attrs, c->op));
}

const lt_op lt_op_multi_margin_loss = {
    .name = "multi_margin_loss",
    .doc = "Of the scores x of C classes and the label y: the sum of max(0, margin - x_y + x_i)^p "
           "over all i other than y, over C; p is 1 or 2, weight multiplies by the label's. input "
           "is N x C with N labels, or C with one; labels count from 1." LT_REDUCTION_DOC
           " Crammer and Singer 2001.",
    .inputs = {{"input", LT_FLOAT}, {"target", LT_INDEX}, {"weight", LT_FLOAT, .optional = true}},
    .options = {LT_REDUCTION_OPTION,
                {"p", LT_OPTION_INT, .value = 1},
                {"margin", LT_OPTION_NUMBER, .value = 1}},
    .infer = multi_margin_infer,
    .compose = multi_margin_compose,
    .sample =
        {"normal(3, 4), integers(1, 4, 3)",
         "normal(5, 3), integers(1, 3, 5), positive(3), {p = 2, margin = 2, reduction = 'sum'}",
         "transposed(4, 3), integers(1, 3, 4), {reduction = 'none'}",
         "normal(4), integers(1, 4), positive(4), {p = 2}"},
};

/* ---- multilabel_margin_loss ----------------------------------------------------------------- */

static const int64_t NO_LABEL = -1;

/* The values and, where they are recorded, their gradient: constant between kinks. */
static lt_status multilabel_infer(lt_call *c) {
  const lt_tensor *x = c->in[0];
  c->result[0] = (lt_spec){(lt_dtype)x->dtype, {1, {x->shape.size[0]}}};
  c->result[1] = (lt_spec){(lt_dtype)x->dtype, x->shape};
  c->outputs = c->recorded ? 2 : 1;
  return lt_check_indices("multilabel_margin_loss", "label", c->in[1], x->shape.size[1], &NO_LABEL);
}

typedef struct rows {
  int64_t classes;
  const double *x;
  const int64_t *label;
  lt_tensor *y, *slope; /* no slope: NULL */
} rows;

/* Marks a row's labels in `marked`, up to the first -1. Returns how many there are. */
static int64_t mark_labels(const rows *r, int64_t row, bool *marked) {
  const int64_t *label = r->label + row * r->classes;
  int64_t n = 0;
  memset(marked, 0, (size_t)r->classes * sizeof *marked);
  while (n < r->classes && label[n] != NO_LABEL) marked[label[n++] - 1] = true;
  return n;
}

static void multilabel_row(const rows *r, int64_t row, bool *marked, double *slope) {
  const double *x = r->x + row * r->classes;
  const int64_t *label = r->label + row * r->classes;
  int64_t labels = mark_labels(r, row, marked);
  double sum = 0, each = 1 / (double)r->classes;
  for (int64_t i = 0; i < r->classes; i++) slope[i] = 0;
  for (int64_t j = 0; j < labels; j++) {
    int64_t own = label[j] - 1;
    for (int64_t i = 0; i < r->classes; i++) {
      double gap = 1 - x[own] + x[i];
      if (marked[i] || gap <= 0) continue;
      sum += gap;
      slope[i] += each;
      slope[own] -= each;
    }
  }
  lt_tensor_write(r->y, row, sum * each);
  for (int64_t i = 0; r->slope && i < r->classes; i++) {
    lt_tensor_write(r->slope, row * r->classes + i, slope[i]);
  }
}

static lt_status multilabel_forward(lt_call *c) {
  lt_tensor *x, *label = NULL, *slope = NULL, *marked = NULL;
  int64_t classes = c->in[0]->shape.size[1];
  lt_status status = lt_contiguous_as(c->in[0], LT_FLOAT64, &x);
  if (status != LT_OK) return status;
  status = lt_contiguous_as(c->in[1], LT_INT64, &label);
  lt_shape row = {1, {classes}};
  if (status == LT_OK) status = lt_tensor_new(c->ctx, c->op->name, LT_FLOAT64, &row, &slope);
  if (status == LT_OK) status = lt_tensor_new(c->ctx, c->op->name, LT_BOOL, &row, &marked);
  rows r = {.classes = classes, .y = c->out[0], .slope = c->out[1]};
  if (status == LT_OK) {
    r.x = (const double *)(const void *)x->data;
    r.label = (const int64_t *)(const void *)label->data;
  }
  for (int64_t i = 0; status == LT_OK && i < c->in[0]->shape.size[0]; i++) {
    if (i % 64 == 0) status = lt_check_interrupt(c->ctx);
    multilabel_row(&r, i, (bool *)(void *)marked->data, (double *)(void *)slope->data);
  }
  lt_tensor_release(x);
  lt_tensor_release(label);
  lt_tensor_release(slope);
  lt_tensor_release(marked);
  return status;
}

static void multilabel_vjp(lt_vjp *v) {
  if (!v->dy[0]) return;
  lt_shape column = {2, {v->dy[0]->shape.size[0], 1}};
  lt_give(v, 0, lt_mul(v->s, lt_reshape_to(v->s, v->dy[0], &column), v->out[1]));
}

static const lt_op multilabel_margin = {
    .name = "multilabel_margin",
    .doc = "multilabel_margin_loss of each row.",
    .inputs = {{"input", LT_FLOAT}, {"target", LT_INDEX}},
    .infer = multilabel_infer,
    .forward = multilabel_forward,
    .vjp = multilabel_vjp,
    .batch = lt_batch_each,
    .saves = LT_OUT(1),
    .results = 2,
    .hidden = 1,
    .internal = true,
};

static lt_status multilabel_margin_infer(lt_call *c) {
  const lt_shape *x = &c->in[0]->shape;
  bool fits = (x->ndim == 1 || x->ndim == 2) && lt_shape_equal(x, &c->in[1]->shape) &&
              x->size[x->ndim - 1] > 0;
  if (fits) return LT_OK;
  return refuse_shapes(c, "takes input and labels of one shape, N x C or C");
}

static void multilabel_margin_compose(lt_call *c, lt_scope *s) {
  lt_shape x = c->in[0]->shape, two = x.ndim == 2 ? x : (lt_shape){2, {1, x.size[0]}};
  lt_tensor *y = lt_do2(s, &multilabel_margin, NULL, lt_reshape_to(s, c->in[0], &two),
                        lt_reshape_to(s, c->in[1], &two));
  if (x.ndim == 1) y = lt_reshape_to(s, y, &(lt_shape){0});
  c->out[0] = lt_reduced(s, y, lt_reduction_of(c->attrs, c->op));
}

const lt_op lt_op_multilabel_margin_loss = {
    .name = "multilabel_margin_loss",
    .doc = "Of the scores x of C classes, some of which are labels: the sum of "
           "max(0, 1 - x_y + x_i) over all labels y and all i that are none, over C. input is "
           "N x C or C; target has its shape and lists each row's labels, which count from 1, up "
           "to the first -1." LT_REDUCTION_DOC,
    .inputs = {{"input", LT_FLOAT}, {"target", LT_INDEX}},
    .options = {LT_REDUCTION_OPTION},
    .infer = multilabel_margin_infer,
    .compose = multilabel_margin_compose,
    .sample = {"normal(3, 4), integers(1, 4, 3, 4)",
               "normal(3, 4), integers(1, 2, 3, 4) * 2 - 1, {reduction = 'sum'}",
               "transposed(3, 4), integers(0, 1, 3, 4) * 3 - 1, {reduction = 'none'}",
               "normal(4), integers(1, 2, 4)"},
};

/* ---- multilabel_soft_margin_loss ------------------------------------------------------------ */

static lt_status multilabel_soft_infer(lt_call *c) {
  lt_shape x = c->in[0]->shape, all = x;
  bool fits = x.ndim > 0 && x.size[x.ndim - 1] > 0 && lt_shape_equal(&x, &c->in[1]->shape);
  if (!fits) return refuse_shapes(c, "takes input and target of one shape, ... x C");
  if (c->in[2] && (!lt_shape_broadcast(&all, &c->in[2]->shape) || !lt_shape_equal(&all, &x))) {
    return refuse_shapes(c, "weight must broadcast to input's shape");
  }
  return LT_OK;
}

static void multilabel_soft_compose(lt_call *c, lt_scope *s) {
  const lt_op *op = &lt_op_binary_cross_entropy_with_logits;
  lt_attrs attrs;
  lt_attrs_default(&attrs, op);
  attrs = lt_with_reduction(&attrs, op, LT_NONE);
  lt_tensor *y = lt_do(s, op, &attrs, 4, (lt_tensor *[]){c->in[0], c->in[1], c->in[2], NULL});
  double classes = (double)c->in[0]->shape.size[c->in[0]->shape.ndim - 1];
  y = lt_scale(s, lt_sum_over(s, y, 1, (int64_t[]){-1}, false), 1 / classes);
  c->out[0] = lt_reduced(s, y, lt_reduction_of(c->attrs, c->op));
}

const lt_op lt_op_multilabel_soft_margin_loss = {
    .name = "multilabel_soft_margin_loss",
    .doc = "The mean of binary_cross_entropy_with_logits over the C classes in the last "
           "dimension: target says for each class whether it is a label (1 or 0); weight "
           "broadcasts." LT_REDUCTION_DOC,
    .inputs = {{"input", LT_ANY}, {"target", LT_ANY}, {"weight", LT_ANY, .optional = true}},
    .options = {LT_REDUCTION_OPTION},
    .infer = multilabel_soft_infer,
    .compose = multilabel_soft_compose,
    .sample = {"normal(3, 4), uniform(3, 4)",
               "normal(2, 3, 4), uniform(2, 3, 4), positive(4), {reduction = 'sum'}",
               "normal(4), integers(0, 1, 4), {reduction = 'none'}"},
};

LT_FAMILY(margin_loss, &lt_op_hinge_loss, &lt_op_hinge_embedding_loss, &lt_op_soft_margin_loss,
          &lt_op_margin_ranking_loss, &lt_op_cosine_embedding_loss, &lt_op_triplet_margin_loss,
          &lt_op_multi_margin_loss, &lt_op_multilabel_margin_loss,
          &lt_op_multilabel_soft_margin_loss)
