/* Ops that look at the same memory through other sizes and strides: nothing is copied. */
#include "ops/family.h"
#include "tape/vmap.h"

#include <string.h>

/* Makes the one result, a window on input 0. */
static lt_status window(lt_call *c, int64_t offset, const int64_t *strides) {
  return lt_tensor_view(c->in[0], offset, &c->result[0].shape, strides, &c->out[0]);
}

/* ---- reshape ---------------------------------------------------------------------------- */

enum { RESHAPE_SHAPE };

static lt_status reshape_infer(lt_call *c) {
  const lt_tensor *x = c->in[0];
  int n, guess = -1;
  const int64_t *list = lt_get_list(c->attrs, c->op, RESHAPE_SHAPE, &n);
  lt_shape shape = lt_shape_make(n, list);
  const lt_shape asked = shape;
  char from[LT_SHAPE_TEXT], to[LT_SHAPE_TEXT];
  for (int i = 0; i < n; i++) {
    if (shape.size[i] != -1) continue;
    if (guess >= 0) {
      return lt_fail(c->ctx, "reshape: only one size can be -1 (%s)", lt_shape_text(&asked, to));
    }
    guess = i;
    shape.size[i] = 1;
  }
  LT_TRY(lt_shape_check(c->ctx, "reshape", &shape));
  int64_t rest = lt_shape_numel(&shape);
  if (guess >= 0 && rest > 0 && x->numel % rest == 0) shape.size[guess] = x->numel / rest;
  if (lt_shape_numel(&shape) != x->numel || (guess >= 0 && rest == 0)) {
    return lt_fail(c->ctx, "reshape: %s (%lld elements) cannot become %s",
                   lt_shape_text(&x->shape, from), (long long)x->numel, lt_shape_text(&asked, to));
  }
  c->result[0] = (lt_spec){(lt_dtype)x->dtype, shape};
  return LT_OK;
}

static lt_status reshape_forward(lt_call *c) {
  int64_t strides[LT_MAX_RANK];
  lt_shape_strides(&c->result[0].shape, strides);
  if (c->in[0]->contiguous) return window(c, 0, strides);
  lt_tensor *copy;
  LT_TRY(lt_tensor_contiguous(c->in[0], &copy));
  lt_status status = lt_tensor_view(copy, 0, &c->result[0].shape, strides, &c->out[0]);
  lt_tensor_release(copy);
  return status;
}

static void reshape_vjp(lt_vjp *v) {
  lt_spec x = lt_input_spec(v, 0);
  lt_give(v, 0, lt_reshape_to(v->s, v->dy[0], &x.shape));
}

const lt_op lt_op_reshape = {
    .name = "reshape",
    .doc = "The same elements, in row-major order, in another shape; one size may be -1. A view "
           "where x is contiguous, otherwise a copy.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"shape", LT_OPTION_SIZES, .required = true}},
    .infer = reshape_infer,
    .forward = reshape_forward,
    .vjp = reshape_vjp,
    .linear = true,
    .batch = lt_batch_dims,
    .view = true,
    .sample = {"normal(3, 4), {2, 6}", "normal(2, 3, 4), {-1, 4}", "normal(1), {}"},
};

/* ---- expand ----------------------------------------------------------------------------- */

enum { EXPAND_SIZE };

static lt_status expand_infer(lt_call *c) {
  const lt_tensor *x = c->in[0];
  int n;
  const int64_t *list = lt_get_list(c->attrs, c->op, EXPAND_SIZE, &n);
  lt_shape shape = lt_shape_make(n, list);
  const lt_shape asked = shape;
  char from[LT_SHAPE_TEXT], to[LT_SHAPE_TEXT];
  bool fits = n >= x->shape.ndim;
  for (int d = 0; fits && d < n; d++) {
    int64_t own = d < n - x->shape.ndim ? 1 : x->shape.size[d - (n - x->shape.ndim)];
    if (shape.size[d] == -1 && d >= n - x->shape.ndim) shape.size[d] = own; /* as it is */
    fits = own == 1 || own == shape.size[d];
  }
  if (!fits) {
    return lt_fail(c->ctx, "expand: x (%s) does not stretch to %s", lt_shape_text(&x->shape, from),
                   lt_shape_text(&asked, to));
  }
  LT_TRY(lt_shape_check(c->ctx, "expand", &shape));
  c->result[0] = (lt_spec){(lt_dtype)x->dtype, shape};
  return LT_OK;
}

static lt_status expand_forward(lt_call *c) {
  const lt_tensor *x = c->in[0];
  int64_t strides[LT_MAX_RANK];
  lt_broadcast_strides(&x->shape, x->strides, &c->result[0].shape, strides);
  return window(c, 0, strides);
}

static void expand_vjp(lt_vjp *v) { lt_give(v, 0, v->dy[0]); }

/* The sample's dimensions stand at the end of the result's. */
static void expand_batch(lt_batch *b) {
  const lt_shape *x = &b->in[0]->shape, *y = &b->result[0].shape;
  lt_shape aligned = {.ndim = y->ndim + 1};
  aligned.size[0] = b->size;
  for (int d = 0; d < y->ndim && d + 1 < LT_MAX_RANK; d++) {
    int own = d - (y->ndim - x->ndim);
    aligned.size[d + 1] = own < 0 ? 1 : x->size[own];
  }
  lt_shape all = lt_batch_shape(b, y);
  lt_batch_give(b, lt_expand_to(b->s, lt_reshape_to(b->s, b->over[0], &aligned), &all));
}

const lt_op lt_op_expand = {
    .name = "expand",
    .doc = "x seen in a larger shape: dimensions of size 1 are repeated, new ones come in front; "
           "-1 keeps a size. A view.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"size", LT_OPTION_SIZES, .required = true}},
    .infer = expand_infer,
    .forward = expand_forward,
    .vjp = expand_vjp,
    .linear = true,
    .batch = expand_batch,
    .view = true,
    .sample = {"normal(3, 1), {3, 4}", "normal(4), {2, 3, -1}"},
};

/* ---- permute ---------------------------------------------------------------------------- */

enum { PERMUTE_DIMS };

/* order[d] is the dimension of x that becomes dimension d. */
static lt_status permutation(lt_call *c, int order[LT_MAX_RANK]) {
  const lt_tensor *x = c->in[0];
  int n;
  uint32_t seen = 0;
  const int64_t *dims = lt_get_list(c->attrs, c->op, PERMUTE_DIMS, &n);
  char text[LT_SHAPE_TEXT];
  if (n != x->shape.ndim) {
    return lt_fail(c->ctx, "permute: %d dims for a tensor of %d (%s)", n, x->shape.ndim,
                   lt_shape_text(&x->shape, text));
  }
  for (int d = 0; d < n; d++) {
    LT_TRY(lt_dim_normalise(c->ctx, "permute", dims[d], n, &order[d]));
    if (seen >> order[d] & 1) return lt_fail(c->ctx, "permute: dim %d comes twice", order[d] + 1);
    seen |= 1u << order[d];
  }
  return LT_OK;
}

static lt_status permute_infer(lt_call *c) {
  int order[LT_MAX_RANK];
  LT_TRY(permutation(c, order));
  c->result[0] = (lt_spec){.dtype = (lt_dtype)c->in[0]->dtype};
  c->result[0].shape.ndim = c->in[0]->shape.ndim;
  for (int d = 0; d < c->in[0]->shape.ndim; d++) {
    c->result[0].shape.size[d] = c->in[0]->shape.size[order[d]];
  }
  return LT_OK;
}

static lt_status permute_forward(lt_call *c) {
  int order[LT_MAX_RANK];
  int64_t strides[LT_MAX_RANK];
  LT_TRY(permutation(c, order));
  for (int d = 0; d < c->in[0]->shape.ndim; d++) strides[d] = c->in[0]->strides[order[d]];
  return window(c, 0, strides);
}

static void permute_vjp(lt_vjp *v) {
  int n;
  const int64_t *dims = lt_get_list(v->attrs, v->op, PERMUTE_DIMS, &n);
  int64_t back[LT_MAX_RANK];
  for (int d = 0; d < n; d++) back[dims[d] < 0 ? dims[d] + n : dims[d]] = d;
  lt_attrs attrs;
  lt_attrs_default(&attrs, v->op);
  lt_attrs_set_list(&attrs, v->op, PERMUTE_DIMS, n, back);
  lt_give(v, 0, lt_do1(v->s, v->op, &attrs, v->dy[0]));
}

static void permute_batch(lt_batch *b) {
  int n;
  const int64_t *dims = lt_get_list(b->attrs, b->op, 0, &n);
  int64_t all[LT_MAX_RANK] = {0};
  for (int d = 0; d < n && d + 1 < LT_MAX_RANK; d++)
    all[d + 1] = dims[d] < 0 ? dims[d] : dims[d] + 1;
  lt_attrs attrs = *b->attrs;
  lt_attrs_set_list(&attrs, b->op, 0, n + 1, all);
  lt_batch_run(b, &attrs, b->over);
}

const lt_op lt_op_permute = {
    .name = "permute",
    .doc = "x with its dimensions in another order: dimension i of the result is dimension "
           "dims[i] of x. A view.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dims", LT_OPTION_DIMS, .required = true}},
    .infer = permute_infer,
    .forward = permute_forward,
    .vjp = permute_vjp,
    .linear = true,
    .batch = permute_batch,
    .view = true,
    .sample = {"normal(2, 3, 4), {3, 1, 2}", "normal(2, 3), {-1, 1}"},
};

/* ---- transpose -------------------------------------------------------------------------- */

enum { DIM0, DIM1 };

static lt_status swapped(lt_call *c, int *a, int *b) {
  int ndim = c->in[0]->shape.ndim;
  LT_TRY(lt_dim_normalise(c->ctx, "transpose", lt_get_int(c->attrs, c->op, DIM0), ndim, a));
  return lt_dim_normalise(c->ctx, "transpose", lt_get_int(c->attrs, c->op, DIM1), ndim, b);
}

static lt_status transpose_infer(lt_call *c) {
  int a, b;
  LT_TRY(swapped(c, &a, &b));
  c->result[0] = (lt_spec){(lt_dtype)c->in[0]->dtype, c->in[0]->shape};
  if (c->in[0]->shape.ndim == 0) return LT_OK;
  c->result[0].shape.size[a] = c->in[0]->shape.size[b];
  c->result[0].shape.size[b] = c->in[0]->shape.size[a];
  return LT_OK;
}

static lt_status transpose_forward(lt_call *c) {
  int a, b;
  int64_t strides[LT_MAX_RANK] = {0};
  LT_TRY(swapped(c, &a, &b));
  memcpy(strides, c->in[0]->strides, (size_t)c->in[0]->shape.ndim * sizeof *strides);
  if (c->in[0]->shape.ndim > 0) {
    strides[a] = c->in[0]->strides[b];
    strides[b] = c->in[0]->strides[a];
  }
  return window(c, 0, strides);
}

static void transpose_vjp(lt_vjp *v) { lt_give(v, 0, lt_do1(v->s, v->op, v->attrs, v->dy[0])); }

const lt_op lt_op_transpose = {
    .name = "transpose",
    .doc = "x with two dimensions swapped; by default the last two. A view.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dim0", LT_OPTION_DIM, .value = -2}, {"dim1", LT_OPTION_DIM, .value = -1}},
    .infer = transpose_infer,
    .forward = transpose_forward,
    .vjp = transpose_vjp,
    .linear = true,
    .batch = lt_batch_dims,
    .view = true,
    .sample = {"normal(2, 3, 4), 1, 3", "normal(2, 3)"},
};

/* ---- squeeze, unsqueeze ------------------------------------------------------------------ */

enum { SQUEEZE_DIM };

/* Which dimensions of x go. */
static lt_status squeezed(lt_call *c, bool gone[LT_MAX_RANK]) {
  const lt_tensor *x = c->in[0];
  int n;
  const int64_t *dims = lt_get_list(c->attrs, c->op, SQUEEZE_DIM, &n);
  for (int d = 0; d < x->shape.ndim; d++) gone[d] = !dims && x->shape.size[d] == 1;
  for (int i = 0; i < n; i++) {
    int d;
    LT_TRY(lt_dim_normalise(c->ctx, "squeeze", dims[i], x->shape.ndim, &d));
    if (x->shape.ndim > 0) gone[d] = x->shape.size[d] == 1;
  }
  return LT_OK;
}

static lt_status squeeze_infer(lt_call *c) {
  bool gone[LT_MAX_RANK];
  LT_TRY(squeezed(c, gone));
  lt_spec *r = &c->result[0];
  *r = (lt_spec){.dtype = (lt_dtype)c->in[0]->dtype};
  for (int d = 0; d < c->in[0]->shape.ndim; d++) {
    if (!gone[d]) r->shape.size[r->shape.ndim++] = c->in[0]->shape.size[d];
  }
  return LT_OK;
}

static lt_status squeeze_forward(lt_call *c) {
  bool gone[LT_MAX_RANK];
  int64_t strides[LT_MAX_RANK];
  int n = 0;
  LT_TRY(squeezed(c, gone));
  for (int d = 0; d < c->in[0]->shape.ndim; d++) {
    if (!gone[d]) strides[n++] = c->in[0]->strides[d];
  }
  return window(c, 0, strides);
}

const lt_op lt_op_squeeze = {
    .name = "squeeze",
    .doc = "x without dimensions of size 1: those in dim, by default all. A dim of another size "
           "stays. A view.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dim", LT_OPTION_DIMS}},
    .infer = squeeze_infer,
    .forward = squeeze_forward,
    .vjp = reshape_vjp,
    .linear = true,
    .batch = lt_batch_dims,
    .view = true,
    .sample = {"normal(1, 3, 1)", "normal(1, 3, 1), 1", "normal(2, 3), 2"},
};

enum { UNSQUEEZE_DIM };

static lt_status unsqueeze_infer(lt_call *c) {
  const lt_shape *x = &c->in[0]->shape;
  int at;
  if (x->ndim == LT_MAX_RANK) {
    return lt_fail(c->ctx, "unsqueeze: x has %d dimensions already, the most there are", x->ndim);
  }
  LT_TRY(lt_dim_normalise(c->ctx, "unsqueeze", lt_get_int(c->attrs, c->op, UNSQUEEZE_DIM),
                          x->ndim + 1, &at));
  lt_spec *r = &c->result[0];
  *r = (lt_spec){.dtype = (lt_dtype)c->in[0]->dtype, .shape.ndim = x->ndim + 1};
  for (int d = 0; d < r->shape.ndim; d++) {
    r->shape.size[d] = d < at ? x->size[d] : d == at ? 1 : x->size[d - 1];
  }
  return LT_OK;
}

static lt_status unsqueeze_forward(lt_call *c) {
  int at;
  int64_t strides[LT_MAX_RANK];
  LT_TRY(lt_dim_normalise(c->ctx, "unsqueeze", lt_get_int(c->attrs, c->op, UNSQUEEZE_DIM),
                          c->result[0].shape.ndim, &at));
  for (int d = 0; d < c->result[0].shape.ndim; d++) {
    strides[d] = d < at ? c->in[0]->strides[d] : d == at ? 1 : c->in[0]->strides[d - 1];
  }
  return window(c, 0, strides);
}

const lt_op lt_op_unsqueeze = {
    .name = "unsqueeze",
    .doc = "x with a new dimension of size 1 at place dim of the result. A view.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dim", LT_OPTION_DIM, .required = true}},
    .infer = unsqueeze_infer,
    .forward = unsqueeze_forward,
    .vjp = reshape_vjp,
    .linear = true,
    .batch = lt_batch_dims,
    .view = true,
    .sample = {"normal(3, 4), 2", "normal(3), -1"},
};

LT_FAMILY(view, &lt_op_reshape, &lt_op_expand, &lt_op_permute, &lt_op_transpose, &lt_op_squeeze,
          &lt_op_unsqueeze)
