/* Cumulative ops along one dimension. Their gradients are again scans: a linear recurrence
 * h_i = b_i + a_i h_(i-1), which is its own adjoint in the other direction, carries them all. */
#include "kernels/elementwise.h"
#include "kernels/lines.h"
#include "kernels/math.h"
#include "ops/family.h"
#include "ops/reduction.h"
#include "tape/forward.h"
#include "tape/vmap.h"

/* Which way a line is walked. */
typedef struct path {
  int64_t n, first, step;
} path;

static path path_of(int64_t n, bool reverse) {
  return (path){n, reverse ? n - 1 : 0, reverse ? -1 : 1};
}

enum { DIM, REVERSE, BY = 1, FILL = 2 };

static lt_status run(lt_call *c, lt_line_fn *const fn[LT_DTYPE_COUNT], bool reverse) {
  int dim;
  lt_tensor *t[LT_LINE_OPERANDS];
  LT_TRY(lt_dim_of(c, &dim));
  for (int i = 0; i < c->inputs; i++) t[i] = c->in[i];
  for (int i = 0; i < c->outputs; i++) t[c->inputs + i] = c->out[i];
  path p = path_of(lt_line_length(c->in[0], dim), reverse);
  return lt_lines(c->ctx, dim, c->inputs + c->outputs, t, c->outputs, fn[c->in[0]->dtype], &p, 0,
                  4 * p.n);
}

/* Checks dim; the result is like input 0. */
static lt_status infer_scan(lt_call *c) {
  int dim;
  LT_TRY(lt_dim_of(c, &dim));
  return lt_infer_same(c);
}
static lt_status infer_number_scan(lt_call *c) {
  LT_TRY(infer_scan(c));
  if (!lt_dtype_is_float(c->dtype)) c->result[0].dtype = LT_INT64;
  return LT_OK;
}

/* Calls a scan of this file along the same dimension as the op whose rule runs. */
static lt_tensor *scan1(lt_vjp *v, const lt_op *op, lt_tensor *x, bool reverse) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, op);
  lt_attrs_set_int(&attrs, op, DIM, lt_get_int(v->attrs, v->op, DIM));
  lt_attrs_set_int(&attrs, op, REVERSE, reverse);
  return lt_do1(v->s, op, &attrs, x);
}

/* One step sees `sum` and x[i], and sets y[i], which is an R. */
#define SCAN(NAME, TYPE, STATE, RESULT, START, ...)                                                \
  static void NAME(const void *argument, void *const *line, void *scratch) {                       \
    typedef RESULT R;                                                                              \
    const path *p = argument;                                                                      \
    const TYPE *x = line[0];                                                                       \
    RESULT *y = line[1];                                                                           \
    STATE sum = START;                                                                             \
    (void)scratch;                                                                                 \
    for (int64_t k = 0, i = p->first; k < p->n; k++, i += p->step) {                               \
      __VA_ARGS__                                                                                  \
    }                                                                                              \
  }
#define FLOAT_SCANS(NAME, START, ...)                                                              \
  SCAN(NAME##_f32, float, double, float, START, __VA_ARGS__)                                       \
  SCAN(NAME##_f64, double, double, double, START, __VA_ARGS__)                                     \
  static lt_line_fn *const NAME[LT_DTYPE_COUNT] = {NAME##_f32, NAME##_f64};
#define NUMBER_SCANS(NAME, START, FLOAT, INTEGER)                                                  \
  SCAN(NAME##_f32, float, double, float, START, y[i] = (R)(FLOAT);)                                \
  SCAN(NAME##_f64, double, double, double, START, y[i] = (R)(FLOAT);)                              \
  SCAN(NAME##_i64, int64_t, int64_t, int64_t, START, y[i] = (R)(INTEGER);)                         \
  SCAN(NAME##_i32, int32_t, int64_t, int64_t, START, y[i] = (R)(INTEGER);)                         \
  SCAN(NAME##_u8, uint8_t, int64_t, int64_t, START, y[i] = (R)(INTEGER);)                          \
  static lt_line_fn *const NAME[LT_DTYPE_COUNT] = {NAME##_f32, NAME##_f64, NAME##_i64,             \
                                                   NAME##_i32, NAME##_u8,  NAME##_u8};

/* ---- cumsum ------------------------------------------------------------------------------ */

NUMBER_SCANS(cumsum, 0, sum += (double)x[i], sum += x[i])

static lt_status cumsum_forward(lt_call *c) { return run(c, cumsum, false); }

static void cumsum_vjp(lt_vjp *v) { lt_give(v, 0, scan1(v, &lt_op_cumsum_either, v->dy[0], true)); }

const lt_op lt_op_cumsum = {
    .name = "cumsum",
    .doc = "Running sum along dim, y_i = x_1 + ... + x_i. Integers and bool give int64.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dim", LT_OPTION_DIM, .required = true}},
    .infer = infer_number_scan,
    .forward = cumsum_forward,
    .vjp = cumsum_vjp,
    .linear = true,
    .batch = lt_batch_dims,
    .sample = {"normal(5), 1", "normal(2, 3, 4), {dim = 2}"},
};

static lt_status cumsum_either_forward(lt_call *c) {
  return run(c, cumsum, lt_get_int(c->attrs, c->op, REVERSE));
}

static void cumsum_either_vjp(lt_vjp *v) {
  lt_give(v, 0, scan1(v, v->op, v->dy[0], !lt_get_int(v->attrs, v->op, REVERSE)));
}

const lt_op lt_op_cumsum_either = {
    .name = "cumsum_either",
    .doc = "cumsum from the front or, with reverse, from the end.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {{"dim", LT_OPTION_DIM, .required = true}, {"reverse", LT_OPTION_BOOL}},
    .infer = infer_scan,
    .forward = cumsum_either_forward,
    .vjp = cumsum_either_vjp,
    .linear = true,
    .batch = lt_batch_dims,
    .internal = true,
};

/* ---- shift ------------------------------------------------------------------------------- */

typedef struct shift_by {
  int64_t n, by;
  double fill;
} shift_by;

#define SHIFT(NAME, TYPE)                                                                          \
  static void NAME(const void *argument, void *const *line, void *scratch) {                       \
    const shift_by *s = argument;                                                                  \
    const TYPE *x = line[0];                                                                       \
    TYPE *y = line[1];                                                                             \
    (void)scratch;                                                                                 \
    for (int64_t i = 0; i < s->n; i++) {                                                           \
      int64_t from = i - s->by;                                                                    \
      y[i] = from >= 0 && from < s->n ? x[from] : (TYPE)s->fill;                                   \
    }                                                                                              \
  }
SHIFT(shift_f32, float)
SHIFT(shift_f64, double)

static lt_status shift_forward(lt_call *c) {
  int dim;
  LT_TRY(lt_dim_of(c, &dim));
  shift_by s = {lt_line_length(c->in[0], dim), lt_get_int(c->attrs, c->op, BY),
                lt_get_number(c->attrs, c->op, FILL)};
  return lt_lines(c->ctx, dim, 2, (lt_tensor *[]){c->in[0], c->out[0]}, 1,
                  c->in[0]->dtype == LT_FLOAT32 ? shift_f32 : shift_f64, &s, 0, s.n);
}

static lt_tensor *shifted(lt_vjp *v, lt_tensor *x, int64_t by, double fill) {
  const lt_op *op = &lt_op_shift;
  lt_attrs attrs;
  lt_attrs_default(&attrs, op);
  lt_attrs_set_int(&attrs, op, DIM, lt_get_int(v->attrs, v->op, DIM));
  lt_attrs_set_int(&attrs, op, BY, by);
  lt_attrs_set_number(&attrs, op, FILL, fill);
  return lt_do1(v->s, op, &attrs, x);
}

static void shift_vjp(lt_vjp *v) {
  lt_give(v, 0, shifted(v, v->dy[0], -lt_get_int(v->attrs, v->op, BY), 0));
}

/* The fill does not change. */
static void shift_jvp(lt_jvp *j) {
  lt_attrs attrs = *j->attrs;
  lt_attrs_set_number(&attrs, j->op, FILL, 0);
  j->dy[0] = lt_do1(j->s, j->op, &attrs, j->dx[0]);
}

const lt_op lt_op_shift = {
    .name = "shift",
    .doc = "y_i = x_(i - by) along dim, and fill where there is none.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {{"dim", LT_OPTION_DIM}, {"by", LT_OPTION_INT}, {"fill", LT_OPTION_NUMBER}},
    .infer = infer_scan,
    .forward = shift_forward,
    .vjp = shift_vjp,
    .jvp = shift_jvp,
    .batch = lt_batch_dims,
    .internal = true,
};

/* ---- recurrence -------------------------------------------------------------------------- */

#define RECURRENCE(NAME, TYPE)                                                                     \
  static void NAME(const void *argument, void *const *line, void *scratch) {                       \
    const path *p = argument;                                                                      \
    const TYPE *a = line[0], *b = line[1];                                                         \
    TYPE *y = line[2];                                                                             \
    double h = 0;                                                                                  \
    (void)scratch;                                                                                 \
    for (int64_t k = 0, i = p->first; k < p->n; k++, i += p->step) {                               \
      h = k == 0 ? (double)b[i] : (double)b[i] + (double)a[i] * h;                                 \
      y[i] = (TYPE)h;                                                                              \
    }                                                                                              \
  }
RECURRENCE(recurrence_f32, float)
RECURRENCE(recurrence_f64, double)
static lt_line_fn *const recurrence_lines[LT_DTYPE_COUNT] = {recurrence_f32, recurrence_f64};

static lt_status recurrence_forward(lt_call *c) {
  return run(c, recurrence_lines, lt_get_int(c->attrs, c->op, REVERSE));
}

static lt_tensor *recurrence(lt_vjp *v, lt_tensor *a, lt_tensor *b, bool reverse) {
  const lt_op *op = &lt_op_recurrence;
  lt_attrs attrs;
  lt_attrs_default(&attrs, op);
  lt_attrs_set_int(&attrs, op, DIM, lt_get_int(v->attrs, v->op, DIM));
  lt_attrs_set_int(&attrs, op, REVERSE, reverse);
  return lt_do2(v->s, op, &attrs, a, b);
}

/* The adjoint walks the other way: l_i = dh_i + a_(i+1) l_(i+1); da_i = l_i h_(i-1), db = l. */
static void recurrence_vjp(lt_vjp *v) {
  bool reverse = lt_get_int(v->attrs, v->op, REVERSE);
  int64_t on = reverse ? -1 : 1;
  lt_tensor *l = recurrence(v, shifted(v, v->in[0], -on, 0), v->dy[0], !reverse);
  if (v->need[0]) lt_give(v, 0, lt_mul(v->s, l, shifted(v, v->out[0], on, 0)));
  if (v->need[1]) lt_give(v, 1, l);
}

const lt_op lt_op_recurrence = {
    .name = "recurrence",
    .doc = "h_i = b_i + a_i h_(i-1) along dim, or with reverse h_i = b_i + a_i h_(i+1). a and b "
           "have one shape.",
    .inputs = {{"a", LT_FLOAT}, {"b", LT_FLOAT}},
    .options = {{"dim", LT_OPTION_DIM}, {"reverse", LT_OPTION_BOOL}},
    .infer = infer_scan,
    .forward = recurrence_forward,
    .vjp = recurrence_vjp,
    .batch = lt_batch_dims,
    .saves = LT_IN(0) | LT_OUT(0),
    .internal = true,
};

/* ---- cumprod ----------------------------------------------------------------------------- */

NUMBER_SCANS(cumprod, 1, sum *= (double)x[i], sum *= x[i])
FLOAT_SCANS(product_before, 1, {
  double before = sum;
  sum *= (double)x[i];
  y[i] = (R)before;
})

static lt_status product_before_forward(lt_call *c) {
  return run(c, product_before, lt_get_int(c->attrs, c->op, REVERSE));
}

/* y_i = x_(i-1) y_(i-1) is a recurrence with y_1 = 1. */
static void product_before_vjp(lt_vjp *v) {
  bool reverse = lt_get_int(v->attrs, v->op, REVERSE);
  lt_tensor *l = recurrence(v, v->in[0], v->dy[0], !reverse);
  lt_give(v, 0, lt_mul(v->s, v->out[0], shifted(v, l, reverse ? 1 : -1, 0)));
}

const lt_op lt_op_product_before = {
    .name = "product_before",
    .doc = "The product of all elements before each along dim; of all behind it, with reverse.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {{"dim", LT_OPTION_DIM}, {"reverse", LT_OPTION_BOOL}},
    .infer = infer_scan,
    .forward = product_before_forward,
    .vjp = product_before_vjp,
    .batch = lt_batch_dims,
    .saves = LT_IN(0) | LT_OUT(0),
    .internal = true,
};

static lt_status cumprod_forward(lt_call *c) { return run(c, cumprod, false); }

/* dx_i = (x_1 ... x_(i-1)) r_i with r_i = dy_i + x_(i+1) r_(i+1): nothing is divided, so zeros
 * are no exception. */
static void cumprod_vjp(lt_vjp *v) {
  lt_tensor *r = recurrence(v, shifted(v, v->in[0], -1, 0), v->dy[0], true);
  lt_give(v, 0, lt_mul(v->s, scan1(v, &lt_op_product_before, v->in[0], false), r));
}

const lt_op lt_op_cumprod = {
    .name = "cumprod",
    .doc = "Running product along dim, y_i = x_1 ... x_i. Integers and bool give int64. The "
           "gradient is exact with zeros among the factors.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dim", LT_OPTION_DIM, .required = true}},
    .infer = infer_number_scan,
    .forward = cumprod_forward,
    .vjp = cumprod_vjp,
    .batch = lt_batch_dims,
    .saves = LT_IN(0),
    .sample = {"normal(5), 1", "normal(2, 3, 4), {dim = 2}"},
};

/* ---- cummax, cummin ---------------------------------------------------------------------- */

#define NO_NAN(x) 0
#define IS_NAN(x) ((x) != (x))
#define CUMULATE(NAME, TYPE, REACHES, NAN_TEST)                                                    \
  static void NAME(const void *argument, void *const *line, void *scratch) {                       \
    const path *p = argument;                                                                      \
    const TYPE *x = line[0];                                                                       \
    TYPE *y = line[1];                                                                             \
    int64_t *place = line[2], at = 1;                                                              \
    TYPE best = p->n > 0 ? x[0] : 0;                                                               \
    (void)scratch;                                                                                 \
    for (int64_t i = 0; i < p->n; i++) {                                                           \
      bool takes = NAN_TEST(x[i]) || (!NAN_TEST(best) && x[i] REACHES best);                       \
      best = takes ? x[i] : best;                                                                  \
      at = takes ? i + 1 : at;                                                                     \
      y[i] = best;                                                                                 \
      place[i] = at;                                                                               \
    }                                                                                              \
  }
#define CUMULATES(NAME, REACHES)                                                                   \
  CUMULATE(NAME##_f32, float, REACHES, IS_NAN)                                                     \
  CUMULATE(NAME##_f64, double, REACHES, IS_NAN)                                                    \
  CUMULATE(NAME##_i64, int64_t, REACHES, NO_NAN)                                                   \
  CUMULATE(NAME##_i32, int32_t, REACHES, NO_NAN)                                                   \
  CUMULATE(NAME##_u8, uint8_t, REACHES, NO_NAN)                                                    \
  static lt_line_fn *const NAME[LT_DTYPE_COUNT] = {NAME##_f32, NAME##_f64, NAME##_i64,             \
                                                   NAME##_i32, NAME##_u8,  NAME##_u8};
CUMULATES(cummax, >=)
CUMULATES(cummin, <=)

static lt_status infer_cumulate(lt_call *c) {
  LT_TRY(infer_scan(c));
  c->outputs = 2;
  c->result[1] = (lt_spec){LT_INT64, c->in[0]->shape};
  return LT_OK;
}

static lt_status cummax_forward(lt_call *c) { return run(c, cummax, false); }
static lt_status cummin_forward(lt_call *c) { return run(c, cummin, false); }

static void cumulate_vjp(lt_vjp *v) {
  lt_give(v, 0, lt_put_along(v, v->dy[0], v->out[1], lt_get_int(v->attrs, v->op, DIM)));
}

const lt_op lt_op_cummax = {
    .name = "cummax",
    .results = 2,
    .doc = "Largest element so far along dim, and its place (counted from 1; the latest of equal "
           "ones). NaN counts as the largest and stays.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dim", LT_OPTION_DIM, .required = true}},
    .infer = infer_cumulate,
    .forward = cummax_forward,
    .vjp = cumulate_vjp,
    .batch = lt_batch_dims,
    .saves = LT_OUT(1),
    .sample = {"normal(5), 1", "normal(2, 3, 4), {dim = 2}"},
};

const lt_op lt_op_cummin = {
    .name = "cummin",
    .results = 2,
    .doc = "Smallest element so far along dim, and its place (counted from 1; the latest of equal "
           "ones). NaN counts as the smallest and stays.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dim", LT_OPTION_DIM, .required = true}},
    .infer = infer_cumulate,
    .forward = cummin_forward,
    .vjp = cumulate_vjp,
    .batch = lt_batch_dims,
    .saves = LT_OUT(1),
    .sample = {"normal(5), 1", "normal(2, 3, 4), {dim = 2}"},
};

/* ---- logcumsumexp ------------------------------------------------------------------------ */

static double add_exps(double a, double b) { /* log(exp a + exp b) */
  if (IS_NAN(a) || IS_NAN(b)) return a + b;
  double low = a < b ? a : b, high = a < b ? b : a;
  return low == high && isinf(low) ? low : high + log1p(exp(low - high));
}

FLOAT_SCANS(logcumsumexp, -INFINITY, {
  sum = add_exps(sum, (double)x[i]);
  y[i] = (R)sum;
})

static lt_status logcumsumexp_forward(lt_call *c) { return run(c, logcumsumexp, false); }

/* dx_i = sum over k >= i of dy_k exp(x_i - y_k) = r_i exp(x_i - y_i), where
 * r_i = dy_i + exp(y_i - y_(i+1)) r_(i+1): y does not fall, so no factor exceeds 1. */
static void logcumsumexp_vjp(lt_vjp *v) {
  lt_tensor *y = v->out[0];
  lt_tensor *decay = lt_exp_difference(v->s, y, shifted(v, y, -1, INFINITY), true);
  lt_tensor *r = recurrence(v, decay, v->dy[0], true);
  lt_give(v, 0, lt_mul(v->s, r, lt_exp_difference(v->s, v->in[0], y, false)));
}

const lt_op lt_op_logcumsumexp = {
    .name = "logcumsumexp",
    .doc = "Running log of the sum of exponentials along dim, y_i = log(exp x_1 + ... + exp x_i), "
           "without overflow.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {{"dim", LT_OPTION_DIM, .required = true}},
    .infer = infer_scan,
    .forward = logcumsumexp_forward,
    .vjp = logcumsumexp_vjp,
    .batch = lt_batch_dims,
    .saves = LT_IN(0) | LT_OUT(0),
    .sample = {"normal(5), 1", "normal(2, 3, 4), {dim = 2}"},
};

LT_FAMILY(scan, &lt_op_cumsum, &lt_op_cumsum_either, &lt_op_shift, &lt_op_recurrence,
          &lt_op_cumprod, &lt_op_product_before, &lt_op_cummax, &lt_op_cummin, &lt_op_logcumsumexp)
