/* Transposed convolution: conv_transpose1d, conv_transpose2d, conv_transpose3d. It is the input
 * gradient of a convolution, taken for an operation of its own. */
#include "ops/conv.h"
#include "ops/family.h"

enum { STRIDE, PADDING, OUTPUT_PADDING, GROUPS, DILATION };

/* The size of the result along one dimension, -1 where it overflows. */
static int64_t result_size(int64_t size, int64_t span, const lt_conv_call *o, int d,
                           int64_t extra) {
  int64_t result;
  if (__builtin_mul_overflow(size - 1, o->stride[d], &result) || result >= LT_MAX_ELEMENTS) {
    return -1;
  }
  return result - 2 * o->padding[d] + span + extra;
}

static lt_status plan(const lt_call *c, int dims, lt_conv_call *o) {
  const lt_tensor *x = c->in[0], *w = c->in[1];
  const char *name = c->op->name;
  int64_t extra[LT_CONV_DIMS];
  LT_TRY(lt_conv_check(c, dims, GROUPS, true, o));
  LT_TRY(lt_conv_numbers(c, STRIDE, dims, 1, 1, o->stride));
  LT_TRY(lt_conv_numbers(c, DILATION, dims, 1, 1, o->dilation));
  LT_TRY(lt_conv_numbers(c, PADDING, dims, 0, 0, o->padding));
  LT_TRY(lt_conv_numbers(c, OUTPUT_PADDING, dims, 0, 0, extra));
  for (int d = 0; d < dims; d++) {
    int64_t size = x->shape.size[x->shape.ndim - dims + d], span;
    LT_TRY(lt_conv_span(c, w->shape.size[2 + d], o->dilation[d], &span));
    if (extra[d] >= o->stride[d] && extra[d] >= o->dilation[d]) {
      return lt_fail(c->ctx,
                     "%s: output_padding must be below stride or dilation, got %lld (stride %lld, "
                     "dilation %lld)",
                     name, (long long)extra[d], (long long)o->stride[d], (long long)o->dilation[d]);
    }
    o->size[d] = result_size(size, span, o, d, extra[d]);
    if (o->size[d] > 0) continue;
    char left[LT_SHAPE_TEXT], right[LT_SHAPE_TEXT];
    return lt_fail(c->ctx, "%s: the result would have no valid size (x %s, weight %s)", name,
                   lt_shape_text(&x->shape, left), lt_shape_text(&w->shape, right));
  }
  return LT_OK;
}

static void compose(lt_call *c, lt_scope *s, int dims) {
  lt_conv_call o;
  lt_tensor *bias = c->in[2];
  s->status = plan(c, dims, &o);
  if (s->status != LT_OK) return;
  lt_tensor *y = lt_conv_do(s, &lt_op_convolution_input, &o, c->in[0], c->in[1], NULL);
  if (bias) {
    lt_shape shape = {.ndim = dims + 1, .size = {bias->numel, 1, 1, 1}};
    y = lt_add(s, y, lt_reshape_to(s, bias, &shape));
  }
  c->out[0] = y;
}

#define INPUTS                                                                                     \
  { {"x", LT_FLOAT}, {"weight", LT_FLOAT}, {"bias", LT_FLOAT, .optional = true}, }
#define OPTIONS                                                                                    \
  {                                                                                                \
    {"stride", LT_OPTION_INTS}, {"padding", LT_OPTION_INTS}, {"output_padding", LT_OPTION_INTS},   \
        {"groups", LT_OPTION_INT, .value = 1}, {"dilation", LT_OPTION_INTS},                       \
  }

static lt_status conv_transpose1d_infer(lt_call *c) { return plan(c, 1, &(lt_conv_call){0}); }
static void conv_transpose1d_compose(lt_call *c, lt_scope *s) { compose(c, s, 1); }

const lt_op lt_op_conv_transpose1d = {
    .name = "conv_transpose1d",
    .doc = "Transposed convolution over one dimension, as conv_transpose2d has it: x n x in x l "
           "(or in x l), weight in x out/groups x k, bias out.",
    .inputs = INPUTS,
    .options = OPTIONS,
    .infer = conv_transpose1d_infer,
    .compose = conv_transpose1d_compose,
    .sample = {"normal(2, 3, 4), normal(3, 2, 3), normal(2)",
               "normal(2, 4, 3), normal(4, 2, 2), {stride = 3, padding = 1, output_padding = 2, "
               "groups = 2}",
               "transposed(2, 4), normal(2, 3, 2), normal(3), {dilation = 2, stride = 2}"},
};

static lt_status conv_transpose2d_infer(lt_call *c) { return plan(c, 2, &(lt_conv_call){0}); }
static void conv_transpose2d_compose(lt_call *c, lt_scope *s) { compose(c, s, 2); }

const lt_op lt_op_conv_transpose2d = {
    .name = "conv_transpose2d",
    .doc = "Transposed convolution over height and width: the gradient of conv2d for its input, "
           "which spreads each x[n, c, i] over y at i * stride - padding + k * dilation by "
           "weight[c, o, k]. x is n x in x h x w (or in x h x w), weight in x out/groups x kh x "
           "kw, bias out, y n x out x h' x w' with h' = (h - 1) stride - 2 padding + dilation (kh "
           "- 1) + output_padding + 1. Options are one number, or one for each dimension; "
           "output_padding adds to the size at the end, and is below stride or dilation. "
           "Definition and names are PyTorch's.",
    .inputs = INPUTS,
    .options = OPTIONS,
    .infer = conv_transpose2d_infer,
    .compose = conv_transpose2d_compose,
    .sample = {"normal(2, 3, 3, 2), normal(3, 2, 2, 3), normal(2)",
               "normal(2, 4, 3, 2), normal(4, 1, 3, 2), normal(2), {stride = {2, 3}, padding = {1, "
               "0}, output_padding = {1, 2}, groups = 2}",
               "transposed(2, 3, 4), normal(2, 2, 2, 2), {stride = 2, dilation = {3, 1}, padding = "
               "1, output_padding = {2, 1}}"},
};

static lt_status conv_transpose3d_infer(lt_call *c) { return plan(c, 3, &(lt_conv_call){0}); }
static void conv_transpose3d_compose(lt_call *c, lt_scope *s) { compose(c, s, 3); }

const lt_op lt_op_conv_transpose3d = {
    .name = "conv_transpose3d",
    .doc = "Transposed convolution over depth, height and width, as conv_transpose2d has it: x n x "
           "in x d x h x w (or without n), weight in x out/groups x kd x kh x kw, bias out.",
    .inputs = INPUTS,
    .options = OPTIONS,
    .infer = conv_transpose3d_infer,
    .compose = conv_transpose3d_compose,
    .sample = {"normal(2, 2, 2, 3, 2), normal(2, 2, 2, 1, 3), normal(2)",
               "normal(1, 2, 2, 2, 3), normal(2, 1, 2, 3, 2), {stride = {2, 1, 2}, padding = {0, "
               "1, 1}, groups = 2}"},
};

LT_FAMILY(conv_transpose, &lt_op_conv_transpose1d, &lt_op_conv_transpose2d, &lt_op_conv_transpose3d)
