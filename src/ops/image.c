/* Ops on images: blocks as columns and back, channels and pixels in other places, normalisation
 * across channels. */
#include "core/context.h"
#include "kernels/unfold.h"
#include "ops/family.h"
#include "ops/pool.h"
#include "tape/vmap.h"

/* ---- unfold_windows, fold_windows (internal) ------------------------------------------------- */

static lt_pooling planes_of(const lt_call *c, int trailing) {
  lt_pooling p = {.planes = 1};
  lt_get_axes(c->attrs, c->op, p.axis);
  for (int d = 0; d < c->in[0]->shape.ndim - trailing; d++) p.planes *= c->in[0]->shape.size[d];
  return p;
}

static lt_status unfold_windows_infer(lt_call *c) {
  lt_window axis[LT_POOL_AXES];
  int n = lt_get_axes(c->attrs, c->op, axis), ndim = c->in[0]->shape.ndim;
  c->result[0] = (lt_spec){(lt_dtype)c->in[0]->dtype, c->in[0]->shape};
  c->result[0].shape.size[ndim - n] = axis[1].kernel * axis[2].kernel;
  c->result[0].shape.size[ndim - 1] = axis[1].out * axis[2].out;
  return LT_OK;
}

static lt_status unfold_windows_forward(lt_call *c) {
  lt_tensor *x;
  if (c->out[0]->numel == 0) return LT_OK;
  LT_TRY(lt_tensor_contiguous(c->in[0], &x));
  lt_pooling p = planes_of(c, 2);
  lt_status status = lt_unfold(c->ctx, p.planes, p.axis, lt_dtype_size((lt_dtype)x->dtype), x->data,
                               c->out[0]->data);
  lt_tensor_release(x);
  return status;
}

static const lt_op unfold_windows, fold_windows;

static void unfold_windows_vjp(lt_vjp *v) {
  lt_give(v, 0, lt_do1(v->s, &fold_windows, v->attrs, v->dy[0]));
}

static const lt_op unfold_windows = {
    .name = "unfold_windows",
    .doc = "Planes (..., H, W) as the elements of their windows, (..., kernel, windows).",
    .inputs = {{"x", LT_FLOAT}},
    .options = {LT_AXIS_OPTIONS},
    .infer = unfold_windows_infer,
    .forward = unfold_windows_forward,
    .vjp = unfold_windows_vjp,
    .linear = true,
    .batch = lt_batch_leading,
    .internal = true,
};

static lt_status fold_windows_infer(lt_call *c) {
  lt_window axis[LT_POOL_AXES];
  int n = lt_get_axes(c->attrs, c->op, axis);
  c->result[0] =
      (lt_spec){(lt_dtype)c->in[0]->dtype, lt_with_axes(&c->in[0]->shape, n, axis, true)};
  return LT_OK;
}

static lt_status fold_windows_forward(lt_call *c) {
  lt_tensor *y;
  if (c->out[0]->numel == 0) return LT_OK;
  LT_TRY(lt_tensor_contiguous(c->in[0], &y));
  lt_pooling p = planes_of(c, 2);
  lt_status status =
      lt_fold(c->ctx, p.planes, p.axis, (lt_dtype)y->dtype, y->data, c->out[0]->data);
  lt_tensor_release(y);
  return status;
}

static void fold_windows_vjp(lt_vjp *v) {
  lt_give(v, 0, lt_do1(v->s, &unfold_windows, v->attrs, v->dy[0]));
}

static const lt_op fold_windows = {
    .name = "fold_windows",
    .doc = "The adjoint of unfold_windows.",
    .inputs = {{"y", LT_FLOAT}},
    .options = {LT_AXIS_OPTIONS},
    .infer = fold_windows_infer,
    .forward = fold_windows_forward,
    .vjp = fold_windows_vjp,
    .linear = true,
    .batch = lt_batch_leading,
    .internal = true,
};

/* ---- unfold, fold ---------------------------------------------------------------------------- */

/* Windows over rows and columns whose sizes axis[1].in and axis[2].in are known; options from
 * `first` on. */
static lt_status block_windows(const lt_call *c, int first, lt_window axis[LT_POOL_AXES]) {
  enum { KERNEL, DILATION, PADDING, STRIDE };
  int64_t kernel[LT_POOL_AXES], dilation[LT_POOL_AXES], padding[LT_POOL_AXES], stride[LT_POOL_AXES];
  LT_TRY(lt_axis_list(c, first + KERNEL, 2, 1, 1, kernel));
  LT_TRY(lt_axis_list(c, first + DILATION, 2, 1, 1, dilation));
  LT_TRY(lt_axis_list(c, first + PADDING, 2, 0, 0, padding));
  LT_TRY(lt_axis_list(c, first + STRIDE, 2, 1, 1, stride));
  for (int i = 0; i < 2; i++) {
    lt_window *a = &axis[1 + i];
    int64_t reach = (kernel[i] - 1) * dilation[i] + 1, room = a->in + 2 * padding[i] - reach;
    if (room < 0) {
      return lt_fail(c->ctx,
                     "%s: the block is larger than the image (block %lld, size %lld, "
                     "padding %lld)",
                     c->op->name, (long long)reach, (long long)a->in, (long long)padding[i]);
    }
    *a = (lt_window){a->in, room / stride[i] + 1, kernel[i], stride[i], padding[i], dilation[i]};
  }
  lt_shape y = {4, {axis[1].kernel, axis[2].kernel, axis[1].out, axis[2].out}};
  return lt_shape_check(c->ctx, c->op->name, &y);
}

static lt_tensor *on_windows(lt_scope *s, const lt_op *op, lt_tensor *x,
                             const lt_window axis[LT_POOL_AXES]) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, op);
  lt_set_axes(&attrs, op, 2, axis);
  return lt_do1(s, op, &attrs, x);
}

static lt_status unfold_axes(const lt_call *c, lt_window axis[LT_POOL_AXES]) {
  LT_TRY(lt_plane_axes(c, 2, axis));
  return block_windows(c, 0, axis);
}

static lt_status unfold_infer(lt_call *c) {
  lt_window axis[LT_POOL_AXES];
  return unfold_axes(c, axis);
}

static void unfold_compose(lt_call *c, lt_scope *s) {
  lt_window axis[LT_POOL_AXES];
  s->status = unfold_axes(c, axis);
  lt_tensor *y = on_windows(s, &unfold_windows, c->in[0], axis);
  if (!y) return;
  lt_shape shape = y->shape; /* (N,) C, kernel, windows */
  shape.ndim--;
  shape.size[shape.ndim - 2] *= y->shape.size[shape.ndim - 1];
  shape.size[shape.ndim - 1] = y->shape.size[shape.ndim];
  c->out[0] = lt_reshape_to(s, y, &shape);
}

#define BLOCK_OPTIONS                                                                              \
  {"kernel_size", LT_OPTION_INTS, .required = true}, {"dilation", LT_OPTION_INTS},                 \
      {"padding", LT_OPTION_INTS}, {                                                               \
    "stride", LT_OPTION_INTS                                                                       \
  }

const lt_op lt_op_unfold = {
    .name = "unfold",
    .doc = "Sliding blocks as columns (im2col): x (C, H, W) or (N, C, H, W) becomes (C kh kw, L) "
           "or (N, C kh kw, L), L the number of blocks, row after row; there are floor((H + 2 "
           "padding - dilation (kh - 1) - 1) / stride) + 1 rows of blocks. Padding is zeros. Each "
           "option is one integer or one for each dimension.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {BLOCK_OPTIONS},
    .infer = unfold_infer,
    .compose = unfold_compose,
    .sample = {"normal(1, 2, 4, 5), {2, 3}",
               "normal(2, 4, 4), {kernel_size = 2, dilation = 2, padding = 1, stride = {1, 2}}"},
};

static lt_status fold_axes(const lt_call *c, lt_window axis[LT_POOL_AXES]) {
  const lt_shape *y = &c->in[0]->shape;
  int64_t size[LT_POOL_AXES];
  char text[LT_SHAPE_TEXT];
  if (y->ndim != 2 && y->ndim != 3) {
    return lt_fail(c->ctx, "fold: x must be (C kh kw, L) or (N, C kh kw, L), got %s",
                   lt_shape_text(y, text));
  }
  LT_TRY(lt_axis_list(c, 0, 2, 1, 1, size));
  for (int d = 0; d < LT_POOL_AXES; d++) axis[d] = (lt_window){1, 1, 1, 1, 0, 1};
  for (int i = 0; i < 2; i++) axis[1 + i].in = size[i];
  LT_TRY(block_windows(c, 1, axis));
  int64_t taps = axis[1].kernel * axis[2].kernel, blocks = axis[1].out * axis[2].out;
  if (y->size[y->ndim - 2] % taps != 0 || y->size[y->ndim - 1] != blocks) {
    return lt_fail(c->ctx,
                   "fold: the last dimensions of x must be a multiple of %lld and %lld, "
                   "got %s",
                   (long long)taps, (long long)blocks, lt_shape_text(y, text));
  }
  return LT_OK;
}

static lt_status fold_infer(lt_call *c) {
  lt_window axis[LT_POOL_AXES];
  return fold_axes(c, axis);
}

static void fold_compose(lt_call *c, lt_scope *s) {
  lt_window axis[LT_POOL_AXES];
  s->status = fold_axes(c, axis);
  lt_shape shape = c->in[0]->shape;
  int64_t taps = axis[1].kernel * axis[2].kernel;
  shape.size[shape.ndim] = shape.size[shape.ndim - 1];
  shape.size[shape.ndim - 1] = taps;
  shape.size[shape.ndim - 2] /= taps;
  shape.ndim++;
  c->out[0] = on_windows(s, &fold_windows, lt_reshape_to(s, c->in[0], &shape), axis);
}

const lt_op lt_op_fold = {
    .name = "fold",
    .doc = "Columns of blocks added up to images (col2im): x (C kh kw, L) or (N, C kh kw, L) "
           "becomes (C, H, W) or (N, C, H, W) of output_size. The adjoint of unfold with the same "
           "options: elements in several blocks are sums.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {{"output_size", LT_OPTION_INTS, .required = true}, BLOCK_OPTIONS},
    .infer = fold_infer,
    .compose = fold_compose,
    .sample = {"normal(1, 12, 9), {4, 5}, {2, 3}",
               "normal(8, 4), {output_size = 4, kernel_size = 2, dilation = 2, padding = {0, 1}, "
               "stride = {1, 2}}"},
};

/* ---- pixel_shuffle, pixel_unshuffle, channel_shuffle ------------------------------------------
 */

/* x seen as six dimensions, these in another order, and those as `shape`. */
static lt_tensor *rearrange(lt_scope *s, lt_tensor *x, const int64_t sizes[6],
                            const int64_t order[6], const lt_shape *shape) {
  lt_shape parts = lt_shape_make(6, sizes);
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_permute);
  lt_attrs_set_list(&attrs, &lt_op_permute, 0, 6, order);
  x = lt_do1(s, &lt_op_permute, &attrs, lt_reshape_to(s, x, &parts));
  return lt_reshape_to(s, x, shape);
}

static int64_t leading(const lt_shape *x, int trailing) {
  int64_t n = 1;
  for (int d = 0; d < x->ndim - trailing; d++) n *= x->size[d];
  return n;
}

static lt_status check_factor(const lt_call *c, int64_t factor, bool fits) {
  const lt_shape *x = &c->in[0]->shape;
  char text[LT_SHAPE_TEXT];
  const char *name = c->op->options[0].name;
  if (x->ndim < 3) {
    return lt_fail(c->ctx, "%s: x must have 3 dimensions or more, got %s", c->op->name,
                   lt_shape_text(x, text));
  }
  if (fits) return LT_OK;
  return lt_fail(c->ctx, "%s: %s %lld does not divide x (%s)", c->op->name, name, (long long)factor,
                 lt_shape_text(x, text));
}

static lt_status pixel_shuffle_infer(lt_call *c) {
  const lt_shape *x = &c->in[0]->shape;
  int64_t r = lt_get_int(c->attrs, c->op, 0);
  bool fits = r > 0 && r <= INT32_MAX && x->ndim >= 3 && x->size[x->ndim - 3] % (r * r) == 0;
  return check_factor(c, r, fits);
}

static void pixel_shuffle_compose(lt_call *c, lt_scope *s) {
  lt_shape y = c->in[0]->shape;
  int64_t r = lt_get_int(c->attrs, c->op, 0), *size = &y.size[y.ndim - 3];
  int64_t parts[6] = {leading(&y, 3), size[0] / (r * r), r, r, size[1], size[2]};
  size[0] /= r * r;
  size[1] *= r;
  size[2] *= r;
  c->out[0] = rearrange(s, c->in[0], parts, (int64_t[]){0, 1, 4, 2, 5, 3}, &y);
}

const lt_op lt_op_pixel_shuffle = {
    .name = "pixel_shuffle",
    .doc = "(..., C r r, H, W) becomes (..., C, H r, W r), r the upscale_factor: channels become "
           "squares of pixels. Shi et al. 2016, arXiv 1609.05158.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"upscale_factor", LT_OPTION_INT, .required = true}},
    .infer = pixel_shuffle_infer,
    .compose = pixel_shuffle_compose,
    .sample = {"normal(1, 8, 2, 3), 2", "normal(9, 2, 1), {upscale_factor = 3}"},
};

static lt_status pixel_unshuffle_infer(lt_call *c) {
  const lt_shape *x = &c->in[0]->shape;
  int64_t r = lt_get_int(c->attrs, c->op, 0);
  bool fits = r > 0 && r <= INT32_MAX && x->ndim >= 3 && x->size[x->ndim - 2] % r == 0 &&
              x->size[x->ndim - 1] % r == 0;
  return check_factor(c, r, fits);
}

static void pixel_unshuffle_compose(lt_call *c, lt_scope *s) {
  lt_shape y = c->in[0]->shape;
  int64_t r = lt_get_int(c->attrs, c->op, 0), *size = &y.size[y.ndim - 3];
  int64_t parts[6] = {leading(&y, 3), size[0], size[1] / r, r, size[2] / r, r};
  size[0] *= r * r;
  size[1] /= r;
  size[2] /= r;
  c->out[0] = rearrange(s, c->in[0], parts, (int64_t[]){0, 1, 3, 5, 2, 4}, &y);
}

const lt_op lt_op_pixel_unshuffle = {
    .name = "pixel_unshuffle",
    .doc = "The inverse of pixel_shuffle: (..., C, H r, W r) becomes (..., C r r, H, W), r the "
           "downscale_factor.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"downscale_factor", LT_OPTION_INT, .required = true}},
    .infer = pixel_unshuffle_infer,
    .compose = pixel_unshuffle_compose,
    .sample = {"normal(1, 2, 4, 6), 2", "normal(2, 3, 6), {downscale_factor = 3}"},
};

static lt_status channel_shuffle_infer(lt_call *c) {
  const lt_shape *x = &c->in[0]->shape;
  int64_t groups = lt_get_int(c->attrs, c->op, 0);
  return check_factor(c, groups, groups > 0 && x->ndim >= 3 && x->size[1] % groups == 0);
}

static void channel_shuffle_compose(lt_call *c, lt_scope *s) {
  const lt_shape *x = &c->in[0]->shape;
  int64_t groups = lt_get_int(c->attrs, c->op, 0), rest = 1;
  for (int d = 2; d < x->ndim; d++) rest *= x->size[d];
  int64_t parts[6] = {x->size[0], groups, x->size[1] / groups, rest, 1, 1};
  c->out[0] = rearrange(s, c->in[0], parts, (int64_t[]){0, 2, 1, 3, 4, 5}, x);
}

const lt_op lt_op_channel_shuffle = {
    .name = "channel_shuffle",
    .doc = "x (N, C, ...) with its channels in another order: those of `groups` equal groups "
           "alternate. Zhang et al. 2018, arXiv 1707.01083.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"groups", LT_OPTION_INT, .required = true}},
    .infer = channel_shuffle_infer,
    .compose = channel_shuffle_compose,
    .sample = {"normal(2, 6, 2, 2), 3", "normal(1, 4, 3), 2"},
};

/* ---- local_response_norm ----------------------------------------------------------------------
 */

enum { LRN_SIZE, LRN_ALPHA, LRN_BETA, LRN_K };

static lt_status local_response_norm_infer(lt_call *c) {
  const lt_shape *x = &c->in[0]->shape;
  int64_t size = lt_get_int(c->attrs, c->op, LRN_SIZE);
  char text[LT_SHAPE_TEXT];
  if (x->ndim < 3) {
    return lt_fail(c->ctx, "local_response_norm: x must have 3 dimensions or more, got %s",
                   lt_shape_text(x, text));
  }
  if (size >= 1 && size <= INT32_MAX) return LT_OK;
  return lt_fail(c->ctx, "local_response_norm: size must be between 1 and %d, got %lld", INT32_MAX,
                 (long long)size);
}

static void local_response_norm_compose(lt_call *c, lt_scope *s) {
  lt_tensor *x = c->in[0];
  int64_t size = lt_get_int(c->attrs, c->op, LRN_SIZE), channels = x->shape.size[1], rest = 1;
  double alpha = lt_get_number(c->attrs, c->op, LRN_ALPHA);
  for (int d = 2; d < x->shape.ndim; d++) rest *= x->shape.size[d];
  lt_shape planes = {3, {x->shape.size[0], channels, rest}};
  lt_window axis[LT_POOL_AXES] = {
      {1, 1, 1, 1, 0, 1}, {channels, channels, size, 1, size / 2, 1}, {rest, rest, 1, 1, 0, 1}};
  lt_tensor *squares = lt_reshape_to(s, lt_mul(s, x, x), &planes);
  lt_tensor *mean = lt_mean_windows(s, squares, 2, axis, true, (double)size);
  mean = lt_reshape_to(s, mean, &x->shape);
  lt_tensor *base = lt_shift(s, lt_scale(s, mean, alpha), lt_get_number(c->attrs, c->op, LRN_K));
  lt_tensor *power = lt_number(s, lt_get_number(c->attrs, c->op, LRN_BETA));
  c->out[0] = lt_div(s, x, lt_do2(s, &lt_op_pow, NULL, base, power));
}

const lt_op lt_op_local_response_norm = {
    .name = "local_response_norm",
    .doc = "y = x / (k + alpha mean(x ^ 2)) ^ beta, the mean over `size` channels around each, "
           "from size // 2 in front of it on, those that do not exist counting as 0; x is "
           "(N, C, ...). Krizhevsky et al. 2012, in PyTorch's form.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {{"size", LT_OPTION_INT, .required = true},
                {"alpha", LT_OPTION_NUMBER, .value = 1e-4},
                {"beta", LT_OPTION_NUMBER, .value = 0.75},
                {"k", LT_OPTION_NUMBER, .value = 1}},
    .infer = local_response_norm_infer,
    .compose = local_response_norm_compose,
    .sample = {"normal(2, 5, 3), {size = 3, alpha = 0.5}",
               "normal(1, 4, 2, 3), {size = 2, alpha = 1, beta = 0.5, k = 2}"},
};

LT_FAMILY(image, &unfold_windows, &fold_windows, &lt_op_unfold, &lt_op_fold, &lt_op_pixel_shuffle,
          &lt_op_pixel_unshuffle, &lt_op_channel_shuffle, &lt_op_local_response_norm)
