/* ctc_loss. Its slope in log_probs comes out of the same call as the loss, when a tape records it;
 * the derivative of the slope is an op of its own. */
#include "kernels/ctc.h"
#include "core/context.h"
#include "kernels/copy.h"
#include "kernels/parallel.h"
#include "ops/index.h"
#include "ops/loss.h"

#include <math.h>
#include <string.h>

/* All ops of this file take the inputs of ctc_loss first. */
enum { LOG_PROBS, TARGETS, INPUT_LENGTHS, TARGET_LENGTHS, DY, SLOPE, ALONG = DY };
enum { BLANK = 1, ZERO_INFINITY };

/* A call's sizes. Without a batch the rank is 2 and there is one sequence. */
typedef struct sizes {
  int64_t steps, sequences, classes, blank;
} sizes;

static lt_status read_sizes(const lt_call *c, sizes *z) {
  const lt_shape *x = &c->in[LOG_PROBS]->shape;
  char text[LT_SHAPE_TEXT];
  if ((x->ndim != 2 && x->ndim != 3) || x->size[x->ndim - 1] == 0) {
    return lt_fail(c->ctx,
                   "ctc_loss: log_probs must be steps x sequences x classes, or steps x "
                   "classes, got %s",
                   lt_shape_text(x, text));
  }
  *z = (sizes){x->size[0], x->ndim == 3 ? x->size[1] : 1, x->size[x->ndim - 1], 0};
  int64_t blank = lt_get_int(c->attrs, c->op, BLANK);
  z->blank = blank < 0 ? blank + z->classes : blank;
  if (z->blank >= 0 && z->blank < z->classes) return LT_OK;
  return lt_fail(c->ctx, "ctc_loss: blank %lld is not one of %lld classes",
                 (long long)(blank < 0 ? blank : blank + 1), (long long)z->classes);
}

static bool is_index(const lt_tensor *t) { return t->dtype == LT_INT64 || t->dtype == LT_INT32; }

/* One length for each sequence, none above `most`. */
static lt_status check_lengths(const lt_call *c, const sizes *z, int input, int64_t most,
                               const char *of) {
  const lt_tensor *t = c->in[input];
  const char *name = c->op->inputs[input].name;
  char text[LT_SHAPE_TEXT];
  if (!is_index(t) || t->shape.ndim > 1 || t->numel != z->sequences) {
    return lt_fail(c->ctx, "ctc_loss: %s must be int64 of %lld, one for each sequence, got %s %s",
                   name, (long long)z->sequences, lt_dtype_name((lt_dtype)t->dtype),
                   lt_shape_text(&t->shape, text));
  }
  for (int64_t n = 0; n < z->sequences; n++) {
    int64_t length = lt_tensor_read_int(t, t->shape.ndim == 1 ? n * t->strides[0] : 0);
    if (length >= 0 && length <= most) continue;
    return lt_fail(c->ctx, "ctc_loss: %s has %lld for sequence %lld, outside 0..%lld, the %s", name,
                   (long long)length, (long long)(n + 1), (long long)most, of);
  }
  return LT_OK;
}

static int64_t length_at(const lt_tensor *t, int64_t n) {
  return lt_tensor_read_int(t, t->shape.ndim == 1 ? n * t->strides[0] : 0);
}

/* Labels within the lengths are classes other than the blank. */
static lt_status check_labels(const lt_call *c, const sizes *z) {
  const lt_tensor *t = c->in[TARGETS], *lengths = c->in[TARGET_LENGTHS];
  int64_t begin = 0, step = t->shape.ndim > 0 ? t->strides[t->shape.ndim - 1] : 0;
  for (int64_t n = 0; n < z->sequences; n++) {
    int64_t length = length_at(lengths, n);
    if (t->shape.ndim == 2) begin = n * t->strides[0];
    for (int64_t i = 0; i < length; i++) {
      int64_t label = lt_tensor_read_int(t, begin + i * step);
      if (label >= 1 && label <= z->classes && label != z->blank + 1) continue;
      return lt_fail(c->ctx, "ctc_loss: label %lld of sequence %lld is %lld, %s 1..%lld",
                     (long long)(i + 1), (long long)(n + 1), (long long)label,
                     label == z->blank + 1 ? "the blank; labels are the others of" : "outside",
                     (long long)z->classes);
    }
    begin += length * step;
  }
  return LT_OK;
}

static lt_status ctc_infer(lt_call *c) {
  sizes z;
  char text[LT_SHAPE_TEXT];
  LT_TRY(read_sizes(c, &z));
  const lt_tensor *x = c->in[LOG_PROBS], *targets = c->in[TARGETS];
  bool rows = targets->shape.ndim == 2 && targets->shape.size[0] == z.sequences;
  if (!rows && targets->shape.ndim != 1) {
    return lt_fail(c->ctx,
                   "ctc_loss: targets must have a row for each of %lld sequences, or be "
                   "one row of all labels, got %s",
                   (long long)z.sequences, lt_shape_text(&targets->shape, text));
  }
  LT_TRY(check_lengths(c, &z, INPUT_LENGTHS, z.steps, "steps of log_probs"));
  int64_t most = targets->shape.size[targets->shape.ndim - 1], all = 0;
  LT_TRY(check_lengths(c, &z, TARGET_LENGTHS, most, "labels in targets"));
  for (int64_t n = 0; n < z.sequences && !rows; n++) {
    all += length_at(c->in[TARGET_LENGTHS], n);
    if (all > most) {
      return lt_fail(c->ctx,
                     "ctc_loss: target_lengths add up to more than the %lld labels in "
                     "targets",
                     (long long)most);
    }
  }
  LT_TRY(check_labels(c, &z));
  lt_shape losses = {x->shape.ndim - 2, {z.sequences}};
  if (lt_reduction_of(c->attrs, c->op) != LT_NONE) losses.ndim = 0;
  c->result[0] = (lt_spec){(lt_dtype)x->dtype, losses};
  c->result[1] = (lt_spec){(lt_dtype)x->dtype, x->shape};
  c->outputs = c->recorded ? 2 : 1;
  return LT_OK;
}

typedef struct batch {
  lt_ctc first;             /* what all sequences share */
  int64_t sequences, width; /* labels from one row of targets to the next; 0: all in one row */
  const int64_t *label, *input_length, *target_length;
  const int64_t *begin; /* of each sequence's labels */
  int64_t room;
  double *rooms, *loss;
  char *slope;       /* NULL: not wanted */
  const char *along; /* how the slope changes along this is wanted instead; or NULL */
  lt_reduction reduction;
  bool zero_infinity;
} batch;

/* What a sequence's loss is multiplied by. */
static double factor_of(const batch *b, int64_t n) {
  if (b->reduction != LT_MEAN) return 1;
  int64_t length = b->target_length[n] > 0 ? b->target_length[n] : 1;
  return 1 / ((double)length * (double)b->sequences);
}

static void zero_steps(const batch *b, int64_t n, int64_t from, int64_t end) {
  int64_t size = lt_dtype_size(b->first.dtype), classes = b->first.classes;
  for (int64_t t = from; t < end; t++) {
    memset(b->slope + (t * b->first.stride + n * classes) * size, 0, (size_t)(classes * size));
  }
}

static void task(void *argument, int64_t first, int64_t last) {
  const batch *b = argument;
  for (int64_t n = first; n < last; n++) {
    lt_ctc p = b->first;
    int64_t offset = n * p.classes * lt_dtype_size(p.dtype);
    p.steps = b->input_length[n];
    p.log_probs += offset;
    p.labels = b->target_length[n];
    p.label = b->label + b->begin[n];
    double *room = b->rooms + n * b->room, factor = factor_of(b, n);
    char *slope = b->slope ? b->slope + offset : NULL;
    double loss = b->along ? lt_ctc_curve(&p, room, b->along + offset, slope, factor)
                           : lt_ctc_loss(&p, room, slope, factor);
    bool none = b->zero_infinity && isinf(loss);
    b->loss[n] = none ? 0 : loss * factor;
    if (b->slope) zero_steps(b, n, none ? 0 : p.steps, b->first.steps);
  }
}

enum { OWN = 8 }; /* tensors that a run makes */

/* Computes b->loss and, if it is there, b->slope. */
static lt_status run(const lt_call *c, batch *b, lt_tensor **own) {
  sizes z;
  LT_TRY(read_sizes(c, &z));
  b->sequences = z.sequences;
  b->reduction = lt_reduction_of(c->attrs, c->op);
  b->zero_infinity = lt_get_int(c->attrs, c->op, ZERO_INFINITY) != 0;
  LT_TRY(lt_tensor_contiguous(c->in[LOG_PROBS], &own[LOG_PROBS]));
  for (int i = TARGETS; i <= TARGET_LENGTHS; i++) {
    LT_TRY(lt_contiguous_as(c->in[i], LT_INT64, &own[i]));
  }
  b->label = (const int64_t *)(const void *)own[TARGETS]->data;
  b->input_length = (const int64_t *)(const void *)own[INPUT_LENGTHS]->data;
  b->target_length = (const int64_t *)(const void *)own[TARGET_LENGTHS]->data;
  lt_shape per_sequence = {1, {z.sequences}};
  LT_TRY(lt_tensor_new(c->ctx, c->op->name, LT_INT64, &per_sequence, &own[4]));
  LT_TRY(lt_tensor_new(c->ctx, c->op->name, LT_FLOAT64, &per_sequence, &own[5]));
  int64_t *begin = (int64_t *)(void *)own[4]->data;
  int64_t most = 0, labels = 0; /* of one sequence, of all */
  bool rows = own[TARGETS]->shape.ndim == 2;
  for (int64_t n = 0; n < z.sequences; n++) {
    begin[n] = rows ? n * own[TARGETS]->shape.size[1] : labels;
    labels += b->target_length[n];
    if (b->target_length[n] > most) most = b->target_length[n];
  }
  if ((double)z.steps * (double)most > 0x1p44) {
    return lt_fail(c->ctx, "ctc_loss: %lld steps times %lld labels is too much", (long long)z.steps,
                   (long long)most);
  }
  b->begin = begin;
  b->loss = (double *)(void *)own[5]->data;
  b->room = lt_ctc_room(z.steps, most, b->along ? 2 : b->slope ? 1 : 0);
  lt_shape rooms = {2, {z.sequences, b->room}};
  LT_TRY(lt_tensor_new(c->ctx, c->op->name, LT_FLOAT64, &rooms, &own[6]));
  b->rooms = (double *)(void *)own[6]->data;
  b->first = (lt_ctc){.steps = z.steps,
                      .classes = z.classes,
                      .dtype = (lt_dtype)c->in[LOG_PROBS]->dtype,
                      .log_probs = own[LOG_PROBS]->data,
                      .stride = z.sequences * z.classes,
                      .blank = z.blank};
  int64_t operations = z.steps * (2 * labels + z.sequences) * 64;
  return lt_parallel(c->ctx, z.sequences, operations, task, b);
}

static void write_losses(const lt_call *c, const batch *b) {
  for (int64_t n = 0; b->reduction == LT_NONE && n < b->sequences; n++) {
    lt_tensor_write(c->out[0], n, b->loss[n]);
  }
  if (b->reduction == LT_NONE) return;
  bool empty = b->reduction == LT_MEAN && b->sequences == 0;
  lt_tensor_write(c->out[0], 0, empty ? (double)NAN : lt_sum_parts(b->loss, b->sequences));
}

static lt_status ctc_forward(lt_call *c) {
  lt_tensor *own[OWN] = {NULL};
  batch b = {.slope = c->outputs > 1 ? c->out[1]->data : NULL};
  lt_status status = run(c, &b, own);
  if (status == LT_OK) write_losses(c, &b);
  for (int i = 0; i < OWN; i++) lt_tensor_release(own[i]);
  return status;
}

/* ---- ctc_loss_curve ------------------------------------------------------------------------- */

#define INPUTS                                                                                     \
  {"log_probs", LT_FLOAT}, {"targets", LT_INDEX}, {"input_lengths", LT_ANY}, {                     \
    "target_lengths", LT_ANY                                                                       \
  }
#define OPTIONS                                                                                    \
  {                                                                                                \
    LT_REDUCTION_OPTION, {"blank", LT_OPTION_INDEX}, { "zero_infinity", LT_OPTION_BOOL }           \
  }

static lt_status like_log_probs(lt_call *c) {
  c->dtype = (lt_dtype)c->in[LOG_PROBS]->dtype;
  c->result[0] = (lt_spec){c->dtype, c->in[LOG_PROBS]->shape};
  return LT_OK;
}

static lt_status curve_forward(lt_call *c) {
  lt_tensor *own[OWN] = {NULL};
  batch b = {.slope = c->out[0]->data};
  lt_status status = lt_contiguous_as(c->in[ALONG], c->dtype, &own[OWN - 1]);
  if (status == LT_OK) {
    b.along = own[OWN - 1]->data;
    status = run(c, &b, own);
  }
  for (int i = 0; i < OWN; i++) lt_tensor_release(own[i]);
  return status;
}

/* Options and inputs of ctc_loss, and one or two tensors more. */
static lt_tensor *with_inputs(lt_vjp *v, const lt_op *op, lt_tensor *a, lt_tensor *b) {
  lt_tensor *in[] = {
      v->in[LOG_PROBS], v->in[TARGETS], v->in[INPUT_LENGTHS], v->in[TARGET_LENGTHS], a, b};
  return a ? lt_do(v->s, op, v->attrs, b ? 6 : 5, in) : NULL;
}

static void curve_vjp(lt_vjp *v) { /* the second derivatives are symmetric */
  if (v->need[ALONG]) lt_give(v, ALONG, with_inputs(v, v->op, v->dy[0], NULL));
  if (v->need[LOG_PROBS] && v->s->status == LT_OK) {
    v->s->status = lt_fail(v->ctx, "ctc_loss: has no third derivative in log_probs");
  }
}

static const lt_op ctc_loss_curve = {
    .name = "ctc_loss_curve",
    .doc = "The second derivatives of ctc_loss in log_probs times a tensor of that shape.",
    .inputs = {INPUTS, {"along", LT_FLOAT}},
    .options = OPTIONS,
    .infer = like_log_probs,
    .forward = curve_forward,
    .vjp = curve_vjp,
    .batch = lt_batch_each,
    .saves = LT_IN(0) | LT_IN(1) | LT_IN(2) | LT_IN(3),
    .internal = true,
};

/* ---- ctc_loss_backward ---------------------------------------------------------------------- */

LT_KERNEL_2(product, dy, slope, dy *slope)

static lt_status backward_forward(lt_call *c) {
  lt_call product = *c;
  product.in = c->in + DY;
  product.inputs = 2;
  return lt_elementwise(&product, &product_kernel);
}

static void backward_vjp(lt_vjp *v) {
  lt_tensor *u = v->dy[0];
  if (v->need[DY]) lt_give(v, DY, lt_mul(v->s, u, v->in[SLOPE]));
  if (!v->need[LOG_PROBS]) return;
  lt_give(v, LOG_PROBS, with_inputs(v, &ctc_loss_curve, lt_mul(v->s, u, v->in[DY]), NULL));
}

static const lt_op ctc_loss_backward = {
    .name = "ctc_loss_backward",
    .doc = "dy times the slope of ctc_loss in log_probs.",
    .inputs = {INPUTS, {"dy", LT_FLOAT}, {"slope", LT_FLOAT}},
    .options = OPTIONS,
    .infer = like_log_probs,
    .forward = backward_forward,
    .vjp = backward_vjp,
    .batch = lt_batch_each,
    .saves = LT_IN(0) | LT_IN(1) | LT_IN(2) | LT_IN(3) | LT_IN(DY) | LT_IN(SLOPE),
    .internal = true,
};

/* ---- ctc_loss ------------------------------------------------------------------------------- */

static void ctc_vjp(lt_vjp *v) {
  lt_tensor *dy = v->dy[0];
  if (!v->need[LOG_PROBS] || !dy) return;
  if (dy->shape.ndim > 0) dy = lt_reshape_to(v->s, dy, &(lt_shape){2, {dy->shape.size[0], 1}});
  lt_give(v, LOG_PROBS, with_inputs(v, &ctc_loss_backward, dy, v->out[1]));
}

const lt_op lt_op_ctc_loss = {
    .name = "ctc_loss",
    .doc =
        "Connectionist temporal classification: -ln of the probability of each sequence of labels, "
        "summed over all its alignments with longer input. log_probs (from log_softmax) is steps x "
        "sequences x classes, or steps x classes; targets has a row of labels for each sequence, "
        "or all of them in one row; labels and blank are classes and count from 1. input_lengths "
        "and target_lengths say how many steps and labels of each sequence count. reduction "
        "\"mean\" divides each loss by its number of labels, then takes the mean. Where there is "
        "no alignment the loss is infinite and the gradient NaN, with zero_infinity both are 0. "
        "The gradient is PyTorch's, exp(log_probs) - occupancy: right behind log_softmax, and not "
        "the partial derivative in log_probs alone. It can be differentiated once more. Graves et "
        "al. 2006.",
    .inputs = {INPUTS},
    .options = OPTIONS,
    .infer = ctc_infer,
    .forward = ctc_forward,
    .vjp = ctc_vjp,
    .batch = lt_batch_each,
    .saves = LT_IN(0) | LT_IN(1) | LT_IN(2) | LT_IN(3) | LT_OUT(1),
    .results = 2,
    .hidden = 1,
    .sample = {"normal(5, 2, 4), integers(2, 4, 2, 2), integers(4, 5, 2), integers(1, 2, 2)",
               "normal(6, 3), integers(1, 2, 2), 6, 2, {blank = 3, reduction = 'sum'}",
               "normal(4, 3, 3), integers(2, 3, 3), integers(1, 4, 3), integers(1, 1, 3), "
               "{reduction = 'none', zero_infinity = true}"},
};

LT_FAMILY(ctc, &lt_op_ctc_loss)
