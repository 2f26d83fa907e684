/* Values that no other value leads to: built by the program, or filled by a rule. Numbers drawn
 * at random are in random.c. */
#include "ops/source.h"
#include "core/context.h"
#include "kernels/copy.h"
#include "kernels/parallel.h"
#include "ops/family.h"
#include "tape/vmap.h"

#include <math.h>
#include <string.h>

/* Names of what the host language does to tensors by itself; they never run as ops. */
const lt_op lt_op_tensor = {.name = "tensor", .internal = true};
const lt_op lt_op_variable = {.name = "variable", .internal = true};
const lt_op lt_op_assign = {.name = "assign", .internal = true};
const lt_op lt_op_custom = {.name = "custom_gradient", .internal = true};
const lt_op lt_op_item = {.name = "item", .internal = true};
const lt_op lt_op_get = {.name = "get", .internal = true};
const lt_op lt_op_totable = {.name = "totable", .internal = true};
const lt_op lt_op_tostring = {.name = "tostring", .internal = true};
const lt_op lt_op_vmap = {.name = "vmap", .internal = true};

lt_dtype lt_get_dtype(const lt_call *c, int dtype, lt_dtype otherwise) {
  return lt_given(c->attrs, dtype) ? (lt_dtype)lt_get_int(c->attrs, c->op, dtype) : otherwise;
}

lt_status lt_infer_source(lt_call *c, int size, int dtype, lt_dtype otherwise) {
  int n;
  const int64_t *list = lt_get_list(c->attrs, c->op, size, &n);
  c->result[0] = (lt_spec){lt_get_dtype(c, dtype, otherwise), lt_shape_make(n, list)};
  return LT_OK;
}

lt_status lt_infer_like(lt_call *c, int dtype) {
  const lt_tensor *x = c->in[0];
  c->result[0] = (lt_spec){lt_get_dtype(c, dtype, (lt_dtype)x->dtype), x->shape};
  return LT_OK;
}

/* ---- Filling ---------------------------------------------------------------------------- */

/* Elements that one task writes. */
static const int64_t CHUNK = 1 << 14;

typedef struct filling {
  char *data;
  int64_t n, size; /* elements, bytes per element */
  char value[8];
} filling;

static void fill_task(void *argument, int64_t first, int64_t last) {
  const filling *f = argument;
  int64_t from = first * CHUNK, to = last * CHUNK < f->n ? last * CHUNK : f->n;
  if (f->size == 8) {
    uint64_t v, *y = (uint64_t *)(void *)f->data;
    memcpy(&v, f->value, sizeof v);
    for (int64_t i = from; i < to; i++) y[i] = v;
  } else if (f->size == 4) {
    uint32_t v, *y = (uint32_t *)(void *)f->data;
    memcpy(&v, f->value, sizeof v);
    for (int64_t i = from; i < to; i++) y[i] = v;
  } else {
    memset(f->data + from, f->value[0], (size_t)(to - from));
  }
}

static lt_status fill(lt_call *c, double value) {
  lt_tensor *y = c->out[0];
  lt_dtype dtype = (lt_dtype)y->dtype;
  filling f = {.data = y->data, .n = y->numel, .size = lt_dtype_size(dtype)};
  lt_convert(1, dtype, f.value, 1, LT_FLOAT64, &value, 1);
  return lt_parallel(c->ctx, (f.n + CHUNK - 1) / CHUNK, f.n, fill_task, &f);
}

/* ---- zeros, ones, empty, full ------------------------------------------------------------- */

enum { SIZE, SIZE_DTYPE };

static lt_status size_infer(lt_call *c) {
  return lt_infer_source(c, SIZE, SIZE_DTYPE, c->ctx->default_dtype);
}
static lt_status zeros_forward(lt_call *c) { return fill(c, 0); }
static lt_status ones_forward(lt_call *c) { return fill(c, 1); }

const lt_op lt_op_zeros = {
    .name = "zeros",
    .doc = "A tensor of the given size filled with 0; without a size, 0-d.",
    .options = {{"size", LT_OPTION_SIZES}, {"dtype", LT_OPTION_DTYPE}},
    .infer = size_infer,
    .forward = zeros_forward,
    .function = true,
    .sample = {"2, 3", "{2, 3}, {dtype = 'int64'}"},
};

const lt_op lt_op_ones = {
    .name = "ones",
    .doc = "A tensor of the given size filled with 1; without a size, 0-d.",
    .options = {{"size", LT_OPTION_SIZES}, {"dtype", LT_OPTION_DTYPE}},
    .infer = size_infer,
    .forward = ones_forward,
    .function = true,
    .sample = {"2, 3", "{2, 3}, {dtype = 'bool'}"},
};

const lt_op lt_op_empty = {
    .name = "empty",
    .doc = "A tensor of the given size to be written later. It holds zeros, so that no program "
           "depends on what memory held before.",
    .options = {{"size", LT_OPTION_SIZES}, {"dtype", LT_OPTION_DTYPE}},
    .infer = size_infer,
    .forward = zeros_forward,
    .function = true,
    .sample = {"2, 3", "{2, 0}, {dtype = 'uint8'}"},
};

enum { FULL_SIZE, FULL_VALUE, FULL_DTYPE };

static lt_status full_infer(lt_call *c) {
  return lt_infer_source(c, FULL_SIZE, FULL_DTYPE, c->ctx->default_dtype);
}
static lt_status full_forward(lt_call *c) {
  return fill(c, lt_get_number(c->attrs, c->op, FULL_VALUE));
}

const lt_op lt_op_full = {
    .name = "full",
    .doc = "A tensor of the given size, a table, filled with fill_value, of the default dtype "
           "unless another is given.",
    .options = {{"size", LT_OPTION_SIZES, .required = true},
                {"fill_value", LT_OPTION_NUMBER, .required = true},
                {"dtype", LT_OPTION_DTYPE}},
    .infer = full_infer,
    .forward = full_forward,
    .function = true,
    .sample = {"{2, 3}, 0.5", "{}, 7, {dtype = 'int32'}"},
};

/* ---- zeros_like, ones_like, full_like ------------------------------------------------------ */

enum { LIKE_DTYPE };

static lt_status like_infer(lt_call *c) { return lt_infer_like(c, LIKE_DTYPE); }

const lt_op lt_op_zeros_like = {
    .name = "zeros_like",
    .doc = "Zeros in the shape and dtype of x; x passes no gradient on.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dtype", LT_OPTION_DTYPE}},
    .infer = like_infer,
    .forward = zeros_forward,
    .batch = lt_batch_leading,
    .sample = {"normal(3, 4)", "transposed(2, 3), {dtype = 'int64'}"},
};

const lt_op lt_op_ones_like = {
    .name = "ones_like",
    .doc = "Ones in the shape and dtype of x; x passes no gradient on.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dtype", LT_OPTION_DTYPE}},
    .infer = like_infer,
    .forward = ones_forward,
    .batch = lt_batch_leading,
    .sample = {"normal(3, 4)", "integers(1, 9, 2), {dtype = 'float32'}"},
};

enum { FULL_LIKE_VALUE, FULL_LIKE_DTYPE };

static lt_status full_like_infer(lt_call *c) { return lt_infer_like(c, FULL_LIKE_DTYPE); }
static lt_status full_like_forward(lt_call *c) {
  return fill(c, lt_get_number(c->attrs, c->op, FULL_LIKE_VALUE));
}

const lt_op lt_op_full_like = {
    .name = "full_like",
    .doc = "fill_value in the shape and dtype of x; x passes no gradient on.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"fill_value", LT_OPTION_NUMBER, .required = true}, {"dtype", LT_OPTION_DTYPE}},
    .infer = full_like_infer,
    .forward = full_like_forward,
    .batch = lt_batch_leading,
    .sample = {"normal(3, 4), 0.5", "normal(), -1, {dtype = 'int64'}"},
};

/* ---- eye -------------------------------------------------------------------------------- */

enum { EYE_N, EYE_M, EYE_DTYPE };

static lt_status eye_infer(lt_call *c) {
  int64_t n = lt_get_int(c->attrs, c->op, EYE_N);
  int64_t m = lt_given(c->attrs, EYE_M) ? lt_get_int(c->attrs, c->op, EYE_M) : n;
  c->result[0] = (lt_spec){lt_get_dtype(c, EYE_DTYPE, c->ctx->default_dtype),
                           lt_shape_make(2, (int64_t[]){n, m})};
  return LT_OK;
}

static lt_status eye_forward(lt_call *c) {
  const lt_shape *s = &c->out[0]->shape;
  LT_TRY(fill(c, 0));
  for (int64_t i = 0; i < s->size[0] && i < s->size[1]; i++) {
    lt_tensor_write_int(c->out[0], i * (s->size[1] + 1), 1);
  }
  return LT_OK;
}

const lt_op lt_op_eye = {
    .name = "eye",
    .doc = "The n x m matrix (n x n without m) with ones on its diagonal and zeros elsewhere.",
    .options = {{"n", LT_OPTION_INT, .required = true},
                {"m", LT_OPTION_INT},
                {"dtype", LT_OPTION_DTYPE}},
    .infer = eye_infer,
    .forward = eye_forward,
    .function = true,
    .sample = {"3", "2, 4, {dtype = 'int64'}"},
};

/* ---- range, linspace ----------------------------------------------------------------------- */

/* Element i is at + i * step; from `middle` on it is counted back from the far end, so that
 * linspace ends exactly. */
typedef struct progression {
  char *data;
  lt_dtype dtype;
  int64_t n, middle;
  double first, last, step;
} progression;

static void progression_task(void *argument, int64_t first, int64_t last) {
  enum { TILE = 512 };
  const progression *p = argument;
  int64_t to = last * CHUNK < p->n ? last * CHUNK : p->n;
  double tile[TILE];
  for (int64_t at = first * CHUNK; at < to; at += TILE) {
    int64_t count = to - at < TILE ? to - at : TILE;
    for (int64_t i = at; i < at + count; i++) {
      tile[i - at] = i < p->middle ? p->first + (double)i * p->step
                                   : p->last - (double)(p->n - 1 - i) * p->step;
    }
    lt_convert(count, p->dtype, p->data + at * lt_dtype_size(p->dtype), 1, LT_FLOAT64, tile, 1);
  }
}

static lt_status fill_progression(lt_call *c, progression *p) {
  p->data = c->out[0]->data;
  p->dtype = (lt_dtype)c->out[0]->dtype;
  p->n = c->out[0]->numel;
  return lt_parallel(c->ctx, (p->n + CHUNK - 1) / CHUNK, p->n, progression_task, p);
}

enum { FIRST, LAST, STEP, RANGE_DTYPE };

static lt_status range_infer(lt_call *c) {
  double first = lt_get_number(c->attrs, c->op, FIRST);
  double last = lt_get_number(c->attrs, c->op, LAST);
  double step = lt_get_number(c->attrs, c->op, STEP);
  if (!isfinite(first) || !isfinite(last) || !isfinite(step) || step == 0) {
    return lt_fail(c->ctx, "range: no numbers lead from %g to %g by steps of %g", first, last,
                   step);
  }
  /* The quotient may be rounded down: (0.3 - 0) / 0.1 is 2.9999999999999996. */
  double steps = floor((last - first) / step * (1 + 0x1p-50));
  if (!(steps < (double)LT_MAX_ELEMENTS)) {
    return lt_fail(c->ctx, "range: too many elements (from %g to %g by %g)", first, last, step);
  }
  c->result[0] = (lt_spec){lt_get_dtype(c, RANGE_DTYPE, c->ctx->default_dtype),
                           lt_shape_make(1, (int64_t[]){steps < 0 ? 0 : (int64_t)steps + 1})};
  return LT_OK;
}

static lt_status range_forward(lt_call *c) {
  progression p = {.middle = INT64_MAX,
                   .first = lt_get_number(c->attrs, c->op, FIRST),
                   .step = lt_get_number(c->attrs, c->op, STEP)};
  return fill_progression(c, &p);
}

const lt_op lt_op_range = {
    .name = "range",
    .doc = "The numbers first, first + step, ..., up to last, which is included, as in Lua's for. "
           "None when step leads away from last. Of the default dtype unless another is given.",
    .options = {{"first", LT_OPTION_NUMBER, .required = true},
                {"last", LT_OPTION_NUMBER, .required = true},
                {"step", LT_OPTION_NUMBER, .value = 1},
                {"dtype", LT_OPTION_DTYPE}},
    .infer = range_infer,
    .forward = range_forward,
    .function = true,
    .sample = {"1, 5", "1, 0, -0.25", "1, 10, 3, {dtype = 'int64'}"},
};

enum { START, STOP, STEPS, LINSPACE_DTYPE };

static lt_status linspace_infer(lt_call *c) {
  int64_t n = lt_get_int(c->attrs, c->op, STEPS);
  c->result[0] = (lt_spec){lt_get_dtype(c, LINSPACE_DTYPE, c->ctx->default_dtype),
                           lt_shape_make(1, (int64_t[]){n})};
  return LT_OK;
}

static lt_status linspace_forward(lt_call *c) {
  int64_t n = c->out[0]->numel;
  progression p = {.middle = (n + 1) / 2,
                   .first = lt_get_number(c->attrs, c->op, START),
                   .last = lt_get_number(c->attrs, c->op, STOP)};
  if (n > 1) p.step = (p.last - p.first) / (double)(n - 1);
  return fill_progression(c, &p);
}

const lt_op lt_op_linspace = {
    .name = "linspace",
    .doc = "The given number of steps at equal distances from start to stop, both included. One "
           "step is start.",
    .options = {{"start", LT_OPTION_NUMBER, .required = true},
                {"stop", LT_OPTION_NUMBER, .required = true},
                {"steps", LT_OPTION_INT, .required = true},
                {"dtype", LT_OPTION_DTYPE}},
    .infer = linspace_infer,
    .forward = linspace_forward,
    .function = true,
    .sample = {"0, 1, 5", "1, -1, 4, {dtype = 'float64'}"},
};

LT_FAMILY(source, &lt_op_item, &lt_op_get, &lt_op_totable, &lt_op_tostring, &lt_op_tensor,
          &lt_op_variable, &lt_op_assign, &lt_op_custom, &lt_op_vmap, &lt_op_zeros, &lt_op_ones,
          &lt_op_empty, &lt_op_full, &lt_op_zeros_like, &lt_op_ones_like, &lt_op_full_like,
          &lt_op_eye, &lt_op_range, &lt_op_linspace)
