/* The elements of x in other places, or in another shape. Most are made of views and one copy at
 * the end; turning round and rolling are copies of their own. */
#include "core/context.h"
#include "kernels/spans.h"
#include "ops/family.h"
#include "ops/index.h"
#include "tape/vjp.h"
#include "tape/vmap.h"

#include <string.h>

/* Op `op`, whose first option is a list. */
static lt_tensor *by_list(lt_scope *s, const lt_op *op, lt_tensor *x, int n, const int64_t *list) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, op);
  lt_attrs_set_list(&attrs, op, 0, n, list);
  return lt_do1(s, op, &attrs, x);
}

static lt_tensor *reshaped(lt_scope *s, lt_tensor *x, const lt_shape *shape) {
  return by_list(s, &lt_op_reshape, x, shape->ndim, shape->size);
}

static int64_t product(const lt_shape *shape, int first, int last) {
  int64_t n = 1;
  for (int d = first; d < last; d++) n *= shape->size[d];
  return n;
}

/* The dims in list option `option` of a call, as 0..ndim-1, each once. */
static lt_status different_dims(const lt_call *c, int option, int ndim, int *n,
                                int out[LT_MAX_RANK]) {
  const int64_t *dims = lt_get_list(c->attrs, c->op, option, n);
  uint32_t seen = 0;
  for (int i = 0; i < *n; i++) {
    LT_TRY(lt_dim_normalise(c->ctx, c->op->name, dims[i], ndim, &out[i]));
    if (seen >> out[i] & 1) {
      return lt_fail(c->ctx, "%s: dim %d comes twice", c->op->name, out[i] + 1);
    }
    seen |= 1u << out[i];
  }
  return LT_OK;
}

/* ---- flatten, unflatten ------------------------------------------------------------------- */

enum { START_DIM, END_DIM };

static lt_status flatten_dims(const lt_call *c, int *start, int *end) {
  int ndim = c->in[0]->shape.ndim;
  LT_TRY(lt_dim_normalise(c->ctx, "flatten", lt_get_int(c->attrs, c->op, START_DIM), ndim, start));
  LT_TRY(lt_dim_normalise(c->ctx, "flatten", lt_get_int(c->attrs, c->op, END_DIM), ndim, end));
  if (*start <= *end) return LT_OK;
  return lt_fail(c->ctx, "flatten: start_dim %d lies behind end_dim %d", *start + 1, *end + 1);
}

static lt_status flatten_infer(lt_call *c) {
  int start, end;
  return flatten_dims(c, &start, &end);
}

static void flatten_compose(lt_call *c, lt_scope *s) {
  const lt_shape *x = &c->in[0]->shape;
  lt_shape y = {0};
  int start = 0, end = 0;
  flatten_dims(c, &start, &end);
  for (int d = 0; d < start; d++) y.size[y.ndim++] = x->size[d];
  y.size[y.ndim++] = product(x, start, x->ndim > 0 ? end + 1 : 0);
  for (int d = end + 1; d < x->ndim; d++) y.size[y.ndim++] = x->size[d];
  c->out[0] = reshaped(s, c->in[0], &y);
}

const lt_op lt_op_flatten = {
    .name = "flatten",
    .doc = "x with dimensions start_dim to end_dim as one; a 0-d tensor gets one dimension. A view "
           "where x is contiguous.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"start_dim", LT_OPTION_DIM, .value = 0}, {"end_dim", LT_OPTION_DIM, .value = -1}},
    .infer = flatten_infer,
    .compose = flatten_compose,
    .sample = {"normal(2, 3, 4)", "normal(2, 3, 4), 2", "transposed(3, 2, 4), {end_dim = -2}"},
};

enum { UNFLATTEN_DIM, SIZES };

static lt_status unflattened(const lt_call *c, lt_shape *y) {
  const lt_shape *x = &c->in[0]->shape;
  int dim, n, guess = -1;
  const int64_t *sizes = lt_get_list(c->attrs, c->op, SIZES, &n);
  char text[LT_SHAPE_TEXT];
  LT_TRY(lt_indexed_dim(c, UNFLATTEN_DIM, &dim));
  if (n == 0 || x->ndim - 1 + n > LT_MAX_RANK) {
    return lt_fail(c->ctx, "unflatten: %d sizes for dim %d of %s; at most %d dimensions are there",
                   n, dim + 1, lt_shape_text(x, text), LT_MAX_RANK);
  }
  lt_shape part = lt_shape_make(n, sizes);
  const lt_shape asked = part;
  for (int i = 0; i < n; i++) {
    if (part.size[i] != -1 || guess >= 0) continue;
    guess = i;
    part.size[i] = 1;
  }
  LT_TRY(lt_shape_check(c->ctx, "unflatten", &part));
  int64_t rest = lt_shape_numel(&part), whole = x->size[dim];
  if (guess >= 0 && rest > 0 && whole % rest == 0) part.size[guess] = whole / rest;
  if (lt_shape_numel(&part) != whole || (guess >= 0 && rest == 0)) {
    return lt_fail(c->ctx, "unflatten: dim %d of size %lld cannot become %s", dim + 1,
                   (long long)whole, lt_shape_text(&asked, text));
  }
  *y = (lt_shape){0};
  for (int d = 0; d < dim; d++) y->size[y->ndim++] = x->size[d];
  for (int i = 0; i < n; i++) y->size[y->ndim++] = part.size[i];
  for (int d = dim + 1; d < x->ndim; d++) y->size[y->ndim++] = x->size[d];
  return LT_OK;
}

static lt_status unflatten_infer(lt_call *c) {
  lt_shape y;
  return unflattened(c, &y);
}

static void unflatten_compose(lt_call *c, lt_scope *s) {
  lt_shape y = {0};
  unflattened(c, &y);
  c->out[0] = reshaped(s, c->in[0], &y);
}

const lt_op lt_op_unflatten = {
    .name = "unflatten",
    .doc = "x with dimension dim as several, of the given sizes; one may be -1. A view where x is "
           "contiguous.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dim", LT_OPTION_DIM, .required = true},
                {"sizes", LT_OPTION_SIZES, .required = true}},
    .infer = unflatten_infer,
    .compose = unflatten_compose,
    .sample = {"normal(6, 4), 1, {2, 3}", "normal(2, 3, 4), {dim = -1, sizes = {2, -1}}"},
};

/* ---- movedim ------------------------------------------------------------------------------ */

enum { SOURCE, DESTINATION };

/* order[d] is the dimension of x that becomes dimension d. */
static lt_status moved_order(const lt_call *c, int64_t order[LT_MAX_RANK]) {
  int n, m, from[LT_MAX_RANK], to[LT_MAX_RANK], ndim = c->in[0]->shape.ndim;
  bool placed[LT_MAX_RANK] = {false}, taken[LT_MAX_RANK] = {false};
  LT_TRY(different_dims(c, SOURCE, ndim, &n, from));
  LT_TRY(different_dims(c, DESTINATION, ndim, &m, to));
  if (n != m) return lt_fail(c->ctx, "movedim: %d dims cannot go to %d places", n, m);
  for (int i = 0; i < n && ndim > 0; i++) {
    order[to[i]] = from[i];
    placed[to[i]] = taken[from[i]] = true;
  }
  for (int d = 0, next = 0; d < ndim; d++) {
    if (placed[d]) continue;
    while (taken[next]) next++;
    order[d] = next++;
  }
  return LT_OK;
}

static lt_status movedim_infer(lt_call *c) {
  int64_t order[LT_MAX_RANK];
  return moved_order(c, order);
}

static void movedim_compose(lt_call *c, lt_scope *s) {
  int64_t order[LT_MAX_RANK];
  moved_order(c, order);
  c->out[0] = by_list(s, &lt_op_permute, c->in[0], c->in[0]->shape.ndim, order);
}

const lt_op lt_op_movedim = {
    .name = "movedim",
    .doc = "x with its dimensions source at the places destination; the others keep their order. "
           "A view.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"source", LT_OPTION_DIMS, .required = true},
                {"destination", LT_OPTION_DIMS, .required = true}},
    .infer = movedim_infer,
    .compose = movedim_compose,
    .sample = {"normal(2, 3, 4), {source = 1, destination = 3}",
               "normal(2, 3, 4), {source = {-1, 1}, destination = {1, 2}}"},
};

/* ---- broadcast_to ------------------------------------------------------------------------- */

static lt_status broadcast_to_infer(lt_call *c) {
  const lt_shape *x = &c->in[0]->shape;
  int n;
  const int64_t *list = lt_get_list(c->attrs, c->op, 0, &n);
  lt_shape asked = lt_shape_make(n, list), size = asked;
  char from[LT_SHAPE_TEXT], to[LT_SHAPE_TEXT];
  for (int d = 0; d < n; d++) {
    int own = d - (n - x->ndim);
    if (size.size[d] == -1 && own >= 0) size.size[d] = x->size[own];
  }
  LT_TRY(lt_shape_check(c->ctx, "broadcast_to", &size));
  lt_shape both = size;
  if (lt_shape_broadcast(&both, x) && lt_shape_equal(&both, &size)) return LT_OK;
  return lt_fail(c->ctx, "broadcast_to: x (%s) does not broadcast to %s", lt_shape_text(x, from),
                 lt_shape_text(&asked, to));
}

static void broadcast_to_compose(lt_call *c, lt_scope *s) {
  int n;
  const int64_t *list = lt_get_list(c->attrs, c->op, 0, &n);
  c->out[0] = by_list(s, &lt_op_expand, c->in[0], n, list);
}

const lt_op lt_op_broadcast_to = {
    .name = "broadcast_to",
    .doc = "x seen in the given size, to which it broadcasts: the same as expand. A view.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"size", LT_OPTION_SIZES, .required = true}},
    .infer = broadcast_to_infer,
    .compose = broadcast_to_compose,
    .sample = {"normal(3, 1), {3, 4}", "normal(4), {2, 3, 4}"},
};

/* ---- flip --------------------------------------------------------------------------------- */

static lt_status flip_infer(lt_call *c) {
  int n, dims[LT_MAX_RANK];
  LT_TRY(different_dims(c, 0, c->in[0]->shape.ndim, &n, dims));
  return lt_infer_same(c);
}

static lt_status flip_forward(lt_call *c) {
  const lt_shape *x = &c->in[0]->shape;
  lt_spans spans = {0};
  int n, dims[LT_MAX_RANK];
  bool turned[LT_MAX_RANK] = {false};
  LT_TRY(different_dims(c, 0, x->ndim, &n, dims));
  for (int i = 0; i < n; i++) turned[dims[i]] = true;
  for (int d = 0; d < x->ndim; d++) {
    int64_t size = x->size[d], last = size - 1;
    lt_spans_add(&spans, d,
                 turned[d] ? (lt_span){.from = last, .length = size, .step = -1}
                           : (lt_span){.length = size, .step = 1});
  }
  return lt_spans_copy(&spans, c->out[0], c->in[0], NULL);
}

static void flip_vjp(lt_vjp *v) { lt_give(v, 0, lt_do1(v->s, v->op, v->attrs, v->dy[0])); }

const lt_op lt_op_flip = {
    .name = "flip",
    .doc = "x with its elements in reverse order along dims.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dims", LT_OPTION_DIMS, .required = true}},
    .infer = flip_infer,
    .forward = flip_forward,
    .vjp = flip_vjp,
    .linear = true,
    .batch = lt_batch_dims,
    .sample = {"normal(3, 4), 1", "normal(2, 3, 4), {dims = {1, -1}}", "transposed(4, 3), 2"},
};

/* ---- roll --------------------------------------------------------------------------------- */

enum { SHIFTS, ROLL_DIMS };

/* How far each of the dimensions of `shape` is rolled, 0..size-1. */
static lt_status distances(lt_context *ctx, const lt_attrs *attrs, const lt_shape *shape,
                           int64_t by[LT_MAX_RANK]) {
  int n, m, d;
  const int64_t *shifts = lt_get_list(attrs, &lt_op_roll, SHIFTS, &n);
  const int64_t *dims = lt_get_list(attrs, &lt_op_roll, ROLL_DIMS, &m);
  if (n != (dims ? m : 1)) {
    return lt_fail(ctx, "roll: %d shifts for %d dims", n, dims ? m : 1);
  }
  for (int i = 0; i < shape->ndim; i++) by[i] = 0;
  for (int i = 0; i < n; i++) {
    LT_TRY(lt_dim_normalise(ctx, "roll", dims ? dims[i] : 0, shape->ndim, &d));
    int64_t size = shape->ndim > 0 ? shape->size[d] : 0;
    if (size > 0) by[d] = (by[d] + shifts[i] % size + size) % size;
  }
  return LT_OK;
}

/* Without dims all elements are one dimension. */
static lt_shape rolled_shape(const lt_attrs *attrs, const lt_shape *x) {
  int64_t numel = lt_shape_numel(x);
  return lt_given(attrs, ROLL_DIMS) ? *x : lt_shape_make(1, &numel);
}

static lt_status roll_infer(lt_call *c) {
  lt_shape shape = rolled_shape(c->attrs, &c->in[0]->shape);
  int64_t by[LT_MAX_RANK];
  LT_TRY(distances(c->ctx, c->attrs, &shape, by));
  return lt_infer_same(c);
}

/* x and y of the shape in which they are rolled. */
static lt_status roll_spans(lt_call *c, lt_tensor *y, const lt_tensor *x) {
  lt_spans spans = {0};
  int64_t by[LT_MAX_RANK];
  LT_TRY(distances(c->ctx, c->attrs, &x->shape, by));
  for (int d = 0; d < x->shape.ndim; d++) {
    int64_t size = x->shape.size[d];
    lt_spans_add(&spans, d, (lt_span){.from = size - by[d], .length = by[d], .step = 1});
    lt_spans_add(&spans, d, (lt_span){.to = by[d], .length = size - by[d], .step = 1});
  }
  return lt_spans_copy(&spans, y, x, NULL);
}

static lt_status roll_forward(lt_call *c) {
  if (lt_given(c->attrs, ROLL_DIMS)) return roll_spans(c, c->out[0], c->in[0]);
  const int64_t step[LT_MAX_RANK] = {1};
  lt_shape line = rolled_shape(c->attrs, &c->in[0]->shape);
  lt_tensor *packed, *x = NULL, *y = NULL;
  LT_TRY(lt_tensor_contiguous(c->in[0], &packed));
  lt_status status = lt_tensor_view(packed, 0, &line, step, &x);
  if (status == LT_OK) status = lt_tensor_view(c->out[0], 0, &line, step, &y);
  if (status == LT_OK) status = roll_spans(c, y, x);
  lt_tensor_release(y);
  lt_tensor_release(x);
  lt_tensor_release(packed);
  return status;
}

/* Back by as much as it went forward. */
static void roll_vjp(lt_vjp *v) {
  lt_shape x = lt_input_spec(v, 0).shape, shape = rolled_shape(v->attrs, &x);
  int n, m;
  const int64_t *shifts = lt_get_list(v->attrs, v->op, SHIFTS, &n);
  const int64_t *dims = lt_get_list(v->attrs, v->op, ROLL_DIMS, &m);
  int64_t back[LT_MAX_RANK];
  for (int i = 0; i < n; i++) {
    int64_t dim = dims ? dims[i] : 0, size = 0;
    if (shape.ndim > 0) size = shape.size[dim < 0 ? dim + shape.ndim : dim];
    back[i] = size > 0 ? -(shifts[i] % size) : 0;
  }
  lt_attrs attrs = *v->attrs;
  lt_attrs_set_list(&attrs, v->op, SHIFTS, n, back);
  lt_give(v, 0, lt_do1(v->s, v->op, &attrs, v->dy[0]));
}

/* Samples that roll as one dimension are rows. */
static void roll_batch(lt_batch *b) {
  if (lt_given(b->attrs, ROLL_DIMS)) {
    lt_batch_dims(b);
    return;
  }
  lt_shape all = lt_batch_shape(b, &b->in[0]->shape);
  lt_attrs attrs = *b->attrs;
  lt_attrs_set_list(&attrs, b->op, ROLL_DIMS, 1, (int64_t[]){1});
  lt_tensor *rows = lt_reshape_to(b->s, b->over[0], &(lt_shape){2, {b->size, b->in[0]->numel}});
  lt_batch_give(b, lt_reshape_to(b->s, lt_do1(b->s, b->op, &attrs, rows), &all));
}

const lt_op lt_op_roll = {
    .name = "roll",
    .doc = "x with its elements moved on by shifts along dims; those that leave at the end come in "
           "at the beginning. Without dims it moves in row-major order.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"shifts", LT_OPTION_INTS, .required = true}, {"dims", LT_OPTION_DIMS}},
    .infer = roll_infer,
    .forward = roll_forward,
    .vjp = roll_vjp,
    .linear = true,
    .batch = roll_batch,
    .sample = {"normal(3, 4), 2", "normal(2, 3, 4), {shifts = {-1, 6}, dims = {2, -1}}",
               "transposed(4, 3), 1, 1"},
};

/* ---- tile --------------------------------------------------------------------------------- */

/* How often each dimension of x, seen with `y->ndim` dimensions, is repeated. */
static lt_status tiled(const lt_call *c, lt_shape *x, int64_t times[LT_MAX_RANK], lt_shape *y) {
  const lt_shape *own = &c->in[0]->shape;
  int n;
  const int64_t *dims = lt_get_list(c->attrs, c->op, 0, &n);
  x->ndim = y->ndim = n > own->ndim ? n : own->ndim;
  for (int d = 0; d < y->ndim; d++) {
    int i = d - (y->ndim - n), from = d - (y->ndim - own->ndim);
    times[d] = i >= 0 ? dims[i] : 1;
    x->size[d] = from >= 0 ? own->size[from] : 1;
    if (times[d] < 0) {
      return lt_fail(c->ctx, "tile: dim %d cannot be repeated %lld times", d + 1,
                     (long long)times[d]);
    }
    if (__builtin_mul_overflow(x->size[d], times[d], &y->size[d])) y->size[d] = INT64_MAX;
  }
  return lt_shape_check(c->ctx, "tile", y);
}

static lt_status tile_infer(lt_call *c) {
  lt_shape x, y;
  int64_t times[LT_MAX_RANK];
  return tiled(c, &x, times, &y);
}

/* x, as outer slices of `inner` elements, with each slice repeated behind itself. */
static lt_tensor *repeated(lt_scope *s, lt_tensor *x, int64_t outer, int64_t times, int64_t inner,
                           const lt_shape *shape) {
  lt_tensor *t = reshaped(s, x, &(lt_shape){3, {outer, 1, inner}});
  t = by_list(s, &lt_op_expand, t, 3, (int64_t[]){outer, times, inner});
  return t ? reshaped(s, t, shape) : NULL;
}

/* From the last dimension on, so that the largest copy is made once, of long rows. */
static void tile_compose(lt_call *c, lt_scope *s) {
  lt_shape x, y;
  int64_t times[LT_MAX_RANK];
  tiled(c, &x, times, &y);
  lt_tensor *t = reshaped(s, c->in[0], &x);
  bool copied = false;
  for (int d = x.ndim - 1; d >= 0; d--) {
    if (times[d] == 1) continue;
    int64_t outer = product(&x, 0, d), inner = product(&x, d, x.ndim);
    x.size[d] = y.size[d];
    t = repeated(s, t, outer, times[d], inner, &x);
    copied = true;
  }
  c->out[0] = copied ? t : lt_do1(s, &lt_op_clone, NULL, t);
}

const lt_op lt_op_tile = {
    .name = "tile",
    .doc = "x repeated dims[i] times along dimension i. Where there are fewer numbers than "
           "dimensions they are those of the last; where there are more, x gets new dimensions in "
           "front. PyTorch's tile and x.repeat.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dims", LT_OPTION_SIZES, .required = true}},
    .infer = tile_infer,
    .compose = tile_compose,
    .sample = {"normal(3, 4), {2}", "normal(2, 3), {2, 1, 3}", "transposed(4, 3), {3, 2}",
               "normal(2, 3), {1, 1}"},
};

/* ---- repeat_interleave --------------------------------------------------------------------- */

enum { LENGTH };

/* The numbers of times, and their sum. */
static lt_status sum_of_repeats(lt_call *c, int64_t *sum) {
  const lt_tensor *repeats = c->in[0];
  int64_t length = lt_get_int(c->attrs, c->op, LENGTH), step = 0;
  if (repeats->numel != 1) step = repeats->strides[0];
  *sum = 0;
  for (int64_t i = 0; i < length; i++) {
    int64_t n = lt_tensor_read_int(repeats, i * step);
    if (n < 0 || n >= LT_MAX_ELEMENTS || *sum >= LT_MAX_ELEMENTS) {
      return lt_fail(c->ctx, "repeat_interleave: element %lld cannot be repeated %lld times",
                     (long long)i + 1, (long long)n);
    }
    *sum += n;
  }
  return LT_OK;
}

static lt_status repeated_places_infer(lt_call *c) {
  int64_t sum;
  LT_TRY(sum_of_repeats(c, &sum));
  c->result[0] = (lt_spec){LT_INT64, lt_shape_make(1, &sum)};
  return lt_shape_check(c->ctx, "repeat_interleave", &c->result[0].shape);
}

static lt_status repeated_places_forward(lt_call *c) {
  const lt_tensor *repeats = c->in[0];
  int64_t length = lt_get_int(c->attrs, c->op, LENGTH), at = 0;
  int64_t step = repeats->numel != 1 ? repeats->strides[0] : 0;
  int64_t *place = (void *)c->out[0]->data;
  for (int64_t i = 0; i < length; i++) {
    for (int64_t n = lt_tensor_read_int(repeats, i * step); n > 0; n--) place[at++] = i + 1;
  }
  return LT_OK;
}

const lt_op lt_op_repeated_places = {
    .name = "repeated_places",
    .doc = "1, as often as the first element says, then 2, and so on up to length. A single "
           "element says it for all.",
    .inputs = {{"repeats", LT_INDEX}},
    .options = {{"length", LT_OPTION_INT, .required = true}},
    .infer = repeated_places_infer,
    .forward = repeated_places_forward,
    .batch = lt_batch_each,
    .internal = true,
    .sample = {"integers(0, 3, 4), {length = 4}"},
};

enum { INTERLEAVE_DIM, REPEATS };

/* What is repeated along which dimension: without dim, all elements as one. */
typedef struct interleaving {
  lt_shape x;
  int dim;
  int64_t times; /* -1: as a tensor says */
} interleaving;

static lt_status interleave(const lt_call *c, interleaving *w) {
  const lt_tensor *repeats = c->in[1];
  int64_t numel = c->in[0]->numel;
  bool flat = !lt_given(c->attrs, INTERLEAVE_DIM) || c->in[0]->shape.ndim == 0;
  w->x = flat ? lt_shape_make(1, &numel) : c->in[0]->shape;
  w->times = lt_get_int(c->attrs, c->op, REPEATS);
  LT_TRY(lt_dim_normalise(c->ctx, "repeat_interleave", lt_get_int(c->attrs, c->op, INTERLEAVE_DIM),
                          w->x.ndim, &w->dim));
  if ((repeats != NULL) == lt_given(c->attrs, REPEATS)) {
    return lt_fail(c->ctx, "repeat_interleave: repeats must be given once, a number or a tensor");
  }
  if (repeats && lt_dtype_category((lt_dtype)repeats->dtype) != lt_dtype_category(LT_INT64)) {
    return lt_fail(c->ctx, "repeat_interleave: repeats must be integers, got %s",
                   lt_dtype_name((lt_dtype)repeats->dtype));
  }
  if (repeats && !repeats->weak) {
    char text[LT_SHAPE_TEXT];
    w->times = -1;
    if (repeats->shape.ndim < 2 && (repeats->numel == 1 || repeats->numel == w->x.size[w->dim])) {
      return LT_OK;
    }
    return lt_fail(c->ctx, "repeat_interleave: repeats (%s) must hold one number or %lld",
                   lt_shape_text(&repeats->shape, text), (long long)w->x.size[w->dim]);
  }
  if (repeats) w->times = lt_tensor_read_int(repeats, 0);
  lt_shape y = w->x;
  if (w->times < 0 || __builtin_mul_overflow(y.size[w->dim], w->times, &y.size[w->dim])) {
    return lt_fail(c->ctx, "repeat_interleave: repeats = %lld is out of range",
                   (long long)w->times);
  }
  return lt_shape_check(c->ctx, "repeat_interleave", &y);
}

static lt_status repeat_interleave_infer(lt_call *c) {
  interleaving w;
  return interleave(c, &w);
}

static void repeat_interleave_compose(lt_call *c, lt_scope *s) {
  interleaving w;
  lt_attrs attrs;
  interleave(c, &w);
  if (w.times >= 0) {
    int64_t outer = product(&w.x, 0, w.dim + 1), inner = product(&w.x, w.dim + 1, w.x.ndim);
    w.x.size[w.dim] *= w.times;
    lt_tensor *y = repeated(s, c->in[0], outer, w.times, inner, &w.x);
    c->out[0] = w.times == 1 ? lt_do1(s, &lt_op_clone, NULL, y) : y;
    return;
  }
  lt_attrs_default(&attrs, &lt_op_repeated_places);
  lt_attrs_set_int(&attrs, &lt_op_repeated_places, LENGTH, w.x.size[w.dim]);
  lt_tensor *place = lt_do1(s, &lt_op_repeated_places, &attrs, c->in[1]);
  lt_attrs_default(&attrs, &lt_op_index_select);
  lt_attrs_set_int(&attrs, &lt_op_index_select, 0, w.dim);
  c->out[0] = lt_do2(s, &lt_op_index_select, &attrs, reshaped(s, c->in[0], &w.x), place);
}

const lt_op lt_op_repeat_interleave = {
    .name = "repeat_interleave",
    .doc = "Each element along dim several times, one behind the other: repeats is a number, or an "
           "integer tensor of one number for each element. Without dim, all elements in row-major "
           "order.",
    .inputs = {{"x", LT_ANY}, {"repeats", LT_ANY, .optional = true}},
    .options = {{"dim", LT_OPTION_DIM}, {"repeats", LT_OPTION_INT}},
    .infer = repeat_interleave_infer,
    .compose = repeat_interleave_compose,
    .sample = {"normal(3, 4), 2", "normal(2, 3, 4), {repeats = 3, dim = 2}",
               "normal(2, 3, 4), integers(2, 2, 4), {dim = -1}"},
};

/* ---- rot90 -------------------------------------------------------------------------------- */

enum { TURNS, PLANE };

/* The two dimensions, from the first towards the second. */
static lt_status plane(const lt_call *c, int dims[LT_MAX_RANK]) {
  int n, ndim = c->in[0]->shape.ndim;
  char text[LT_SHAPE_TEXT];
  if (ndim < 2) {
    return lt_fail(c->ctx, "rot90: x must have two dimensions or more, got %s",
                   lt_shape_text(&c->in[0]->shape, text));
  }
  dims[0] = 0;
  dims[1] = 1;
  if (!lt_given(c->attrs, PLANE)) return LT_OK;
  LT_TRY(different_dims(c, PLANE, ndim, &n, dims));
  return n == 2 ? LT_OK : lt_fail(c->ctx, "rot90: dims must be two dimensions, got %d", n);
}

static lt_status rot90_infer(lt_call *c) {
  int dims[LT_MAX_RANK];
  return plane(c, dims);
}

static void rot90_compose(lt_call *c, lt_scope *s) {
  int dims[LT_MAX_RANK] = {0}, turns = (int)(((lt_get_int(c->attrs, c->op, TURNS) % 4) + 4) % 4);
  plane(c, dims);
  if (turns % 2 == 0) {
    c->out[0] = turns == 0 ? lt_do1(s, &lt_op_clone, NULL, c->in[0])
                           : by_list(s, &lt_op_flip, c->in[0], 2, (int64_t[]){dims[0], dims[1]});
    return;
  }
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_transpose);
  lt_attrs_set_int(&attrs, &lt_op_transpose, 0, dims[0]);
  lt_attrs_set_int(&attrs, &lt_op_transpose, 1, dims[1]);
  lt_tensor *turned = by_list(s, &lt_op_flip, c->in[0], 1, (int64_t[]){dims[turns == 1]});
  c->out[0] = lt_do1(s, &lt_op_transpose, &attrs, turned);
}

const lt_op lt_op_rot90 = {
    .name = "rot90",
    .doc = "x turned k times by 90 degrees in the plane of two dims, from the first towards the "
           "second; by default those are 1 and 2.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"k", LT_OPTION_INT, .value = 1}, {"dims", LT_OPTION_DIMS}},
    .infer = rot90_infer,
    .compose = rot90_compose,
    .sample = {"normal(3, 4)", "normal(2, 3, 4), {k = -1, dims = {3, 1}}", "normal(2, 3), 2",
               "normal(2, 3), 4"},
};

LT_FAMILY(rearrange, &lt_op_flatten, &lt_op_unflatten, &lt_op_movedim, &lt_op_broadcast_to,
          &lt_op_flip, &lt_op_roll, &lt_op_tile, &lt_op_repeated_places, &lt_op_repeat_interleave,
          &lt_op_rot90)
