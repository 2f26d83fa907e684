/* Losses that compare input and target element by element. Each is a tile of values, a tile of
 * gradients in the input, and the rules for other derivatives; ops/loss.h says how they run.
 * Formulas, names and defaults are PyTorch's. */
#include "kernels/math.h"
#include "ops/loss.h"

#define PAIR                                                                                       \
  {"input", LT_ANY}, { "target", LT_ANY }
#define WEIGHED                                                                                    \
  PAIR, { "weight", LT_ANY, .optional = true }

static const double LOG_2PI = 1.83787706640934548356;

static lt_tensor *call(lt_vjp *v, const lt_op *op, lt_tensor *x) {
  return lt_do1(v->s, op, NULL, x);
}

/* x, at least `low`, where it takes no gradient. */
static lt_tensor *at_least(lt_vjp *v, lt_tensor *x, double low) {
  return lt_do2(v->s, &lt_op_maximum, NULL, x, lt_number(v->s, low));
}

/* 1 - x */
static lt_tensor *rest(lt_vjp *v, lt_tensor *x) { return lt_shift(v->s, lt_neg(v->s, x), 1); }

/* A tile of two expressions, of which the options choose: each is a loop that stays a vector's. */
#define CHOICE_OF_2(NAME, TARGET, TYPE, RESULT, A, B, CHOICE, FIRST, OTHER)                        \
  TARGET static void NAME(int64_t n, void *const *p, const double *lt_k) {                         \
    typedef TYPE T;                                                                                \
    RESULT *restrict lt_y = p[0];                                                                  \
    const T *lt_a = p[1], *lt_b = p[2];                                                            \
    LT_HOLD_OPTIONS                                                                                \
    for (int64_t lt_i = 0; (CHOICE) && lt_i < n; lt_i++) {                                         \
      const T A = lt_a[lt_i], B = lt_b[lt_i];                                                      \
      lt_y[lt_i] = (RESULT)(FIRST);                                                                \
    }                                                                                              \
    for (int64_t lt_i = 0; !(CHOICE) && lt_i < n; lt_i++) {                                        \
      const T A = lt_a[lt_i], B = lt_b[lt_i];                                                      \
      lt_y[lt_i] = (RESULT)(OTHER);                                                                \
    }                                                                                              \
  }

/* ---- mse_loss, l1_loss ---------------------------------------------------------------------- */

#define WEIGHT_DOC " A weight multiplies the values; the mean is then over the sum of the weights."

LT_KERNEL_2(mse_loss, x, t, (x - t) * (x - t))
LT_KERNEL_3(mse_loss_backward, dy, x, t, dy * 2 * (x - t))

static lt_tensor *mse_curve(lt_vjp *v, lt_tensor *const *x, int i) {
  (void)x, (void)i;
  return lt_number(v->s, 2);
}

static const lt_loss mse_loss = {
    .weight = 2, .over_weights = true, .difference = true, .curve = mse_curve};

LT_LOSS(mse_loss, lt_loss_infer, PAIR, WEIGHED,
        .doc = "Squared error, (input - target)^2; input and target broadcast." LT_REDUCTION_DOC
            WEIGHT_DOC,
        .options = {LT_REDUCTION_OPTION},
        .sample = {"normal(3, 4), normal(3, 4)",
                   "normal(2, 3, 4), normal(3, 1), {reduction = 'sum'}",
                   "transposed(3, 4), normal(4), {reduction = 'none'}",
                   "normal(3, 4), normal(3, 4), positive(4)",
                   "normal(2, 3), normal(3), positive(2, 3), {reduction = 'sum'}"})

/* dy with the sign of d; 0 where d is 0 or NaN */
#define SIGNED(dy, d) ((d) > 0 ? (dy) : (d) < 0 ? -(dy) : 0)

LT_KERNEL_2(l1_loss, x, t, ABS(x - t))
LT_KERNEL_3(l1_loss_backward, dy, x, t, SIGNED(dy, x - t))

static const lt_loss l1_loss = {.weight = 2, .over_weights = true, .difference = true};

LT_LOSS(l1_loss, lt_loss_infer, PAIR, WEIGHED,
        .doc = "Absolute error, |input - target|; input and target broadcast. Where they are equal "
               "the gradient is 0." LT_REDUCTION_DOC WEIGHT_DOC,
        .options = {LT_REDUCTION_OPTION},
        .sample = {"normal(3, 4), normal(3, 4)",
                   "normal(2, 3, 4), normal(3, 1), positive(3, 4), {reduction = 'sum'}",
                   "normal(3, 4), normal(3, 4), positive(3, 4)",
                   "normal(3, 4), normal(4), {reduction = 'none'}"})

/* ---- huber_loss, smooth_l1_loss ------------------------------------------------------------- */

enum { DELTA = 1, BETA = 1 };

/* 1 where |input - target| < option 1, else 0 */
static lt_tensor *within(lt_vjp *v, lt_tensor *const *x) {
  lt_tensor *distance = call(v, &lt_op_abs, lt_sub(v->s, x[0], x[1]));
  return lt_step(v->s, &lt_op_lt, distance, lt_number(v->s, lt_get_number(v->attrs, v->op, 1)));
}

LT_KERNEL_2(huber_loss, x, t,
            ABS(x - t) < K(DELTA) ? C(0.5) * (x - t) * (x - t)
                                  : K(DELTA) * (ABS(x - t) - C(0.5) * K(DELTA)))
LT_KERNEL_3(huber_loss_backward, dy, x, t,
            dy *(x - t < -K(DELTA)  ? -K(DELTA)
                 : x - t > K(DELTA) ? K(DELTA)
                                    : x - t))

static lt_tensor *huber_curve(lt_vjp *v, lt_tensor *const *x, int i) {
  (void)i;
  return within(v, x);
}

static const lt_loss huber_loss = {
    .weight = 2, .over_weights = true, .difference = true, .curve = huber_curve};

static lt_status huber_infer(lt_call *c) {
  double delta = lt_get_number(c->attrs, c->op, DELTA);
  if (!(delta > 0)) return lt_fail(c->ctx, "huber_loss: delta must be positive, got %g", delta);
  return lt_loss_infer(c);
}

LT_LOSS(huber_loss, huber_infer, PAIR, WEIGHED,
        .doc = "With d = |input - target|: d^2 / 2 where d < delta, else delta * (d - delta / 2); "
               "input and target broadcast." LT_REDUCTION_DOC WEIGHT_DOC " Huber 1964.",
        .options = {LT_REDUCTION_OPTION, {"delta", LT_OPTION_NUMBER, .value = 1}},
        .sample = {"normal(3, 4), normal(3, 4)",
                   "normal(2, 3, 4), normal(3, 1), {delta = 0.5, reduction = 'sum'}",
                   "normal(3, 4), normal(4), positive(3, 1), {delta = 2}",
                   "normal(3, 4), normal(4), {reduction = 'none'}"})

LT_KERNEL_2(smooth_l1_loss, x, t,
            ABS(x - t) < K(BETA) ? C(0.5) * (x - t) * (x - t) / K(BETA)
                                 : ABS(x - t) - C(0.5) * K(BETA))
LT_KERNEL_3(smooth_l1_loss_backward, dy, x, t,
            ABS(x - t) >= K(BETA) ? SIGNED(dy, x - t) : dy * (x - t) / K(BETA))

static lt_tensor *smooth_l1_curve(lt_vjp *v, lt_tensor *const *x, int i) {
  double beta = lt_get_number(v->attrs, v->op, BETA);
  (void)i;
  return beta > 0 ? lt_scale(v->s, within(v, x), 1 / beta) : NULL;
}

static const lt_loss smooth_l1_loss = {.difference = true, .curve = smooth_l1_curve};

static lt_status smooth_l1_infer(lt_call *c) {
  double beta = lt_get_number(c->attrs, c->op, BETA);
  if (!(beta >= 0)) return lt_fail(c->ctx, "smooth_l1_loss: beta is negative, %g", beta);
  return lt_loss_infer(c);
}

LT_LOSS(smooth_l1_loss, smooth_l1_infer, PAIR, PAIR,
        .doc = "With d = |input - target|: d^2 / (2 beta) where d < beta, else d - beta / 2; "
               "input and target broadcast. beta = 0 makes it l1_loss." LT_REDUCTION_DOC
               " Girshick 2015, arXiv 1504.08083.",
        .options = {LT_REDUCTION_OPTION, {"beta", LT_OPTION_NUMBER, .value = 1}},
        .sample = {"normal(3, 4), normal(3, 4)",
                   "normal(2, 3, 4), normal(3, 1), {beta = 0.5, reduction = 'sum'}",
                   "normal(3, 4), normal(4), {beta = 2, reduction = 'none'}",
                   "normal(3, 4), normal(4), {beta = 0}"})

/* ---- binary_cross_entropy ------------------------------------------------------------------- */

/* Logarithms count no further than -100; NaN stays. */
LT_MATH float bounded_f32(float y) { return y < -100.0f ? -100.0f : y; }
LT_MATH double bounded_f64(double y) { return y < -100 ? -100 : y; }
#define BOUNDED(y) LT_BY_TYPE(y, bounded_f32, bounded_f64)
#define LARGER(a, b) ((a) < (b) ? (b) : (a))
#define TINY 9.999999960041972e-13 /* PyTorch's 1e-12 is a float32 */

/* Outside 0..1 the logarithms are NaN; the second line is what tells of targets. */
LT_KERNEL_2(binary_cross_entropy, x, t,
            (t - 1) * BOUNDED(LOG1P(-x)) - t * BOUNDED(LOG(x)) + (t < 0 || t > 1 ? C(NAN) : 0))
LT_KERNEL_3(binary_cross_entropy_backward, dy, x, t, dy *(x - t) / LARGER((1 - x) * x, C(TINY)))

static lt_tensor *bounded_log(lt_vjp *v, const lt_op *log, lt_tensor *x) {
  return at_least(v, call(v, log, x), -100);
}

static lt_tensor *entropy_slope(lt_vjp *v, lt_tensor *const *x, int i) { /* ln(1 - p) - ln p */
  (void)i;
  return lt_sub(v->s, bounded_log(v, &lt_op_log1p, lt_neg(v->s, x[0])),
                bounded_log(v, &lt_op_log, x[0]));
}

/* -1 / p (1 - p) in t; (p^2 - 2 p t + t) / (p (1 - p))^2 in p */
static lt_tensor *entropy_curve(lt_vjp *v, lt_tensor *const *x, int i) {
  lt_scope *s = v->s;
  lt_tensor *p = x[0], *t = x[1], *q = rest(v, p);
  if (i == 1) return lt_div(s, lt_number(s, -1), at_least(v, lt_mul(s, p, q), TINY));
  lt_tensor *top = lt_add(s, lt_mul(s, p, lt_sub(s, p, lt_scale(s, t, 2))), t);
  lt_tensor *root = lt_mul(s, lt_shift(s, p, TINY), lt_shift(s, q, TINY));
  return lt_div(s, top, lt_mul(s, root, root));
}

static lt_status entropy_check(const lt_call *c) {
  LT_TRY(lt_check_range(c, 0, 0, 1));
  return lt_check_range(c, 1, 0, 1);
}

static const lt_loss binary_cross_entropy = {
    .weight = 2, .slope = entropy_slope, .curve = entropy_curve, .check = entropy_check};

LT_LOSS(binary_cross_entropy, lt_loss_infer_alike, PAIR, WEIGHED,
        .doc = "Cross entropy of probabilities p (input) for targets t, both within 0..1 and of "
               "one shape: -weight * (t ln p + (1 - t) ln(1 - p)). Logarithms count no further "
               "than -100; the gradient is divided by at least 1e-12." LT_REDUCTION_DOC
               " binary_cross_entropy_with_logits is more exact.",
        .options = {LT_REDUCTION_OPTION},
        .sample = {"uniform(3, 4) * 0.5 + 0.5, uniform(3, 4) * 0.5 + 0.5",
                   "uniform(2, 3, 4) * 0.5 + 0.5, uniform(2, 3, 4) * 0.5 + 0.5, positive(3, 1), "
                   "{reduction = 'sum'}",
                   "uniform(3, 4) * 0.5 + 0.5, uniform(3, 4) * 0.5 + 0.5, positive(3, 4)",
                   "uniform(3) * 0.5 + 0.5, uniform(3) * 0.5 + 0.5, {reduction = 'none'}"})

/* ---- binary_cross_entropy_with_logits --------------------------------------------------------
 */

#define SOFTPLUS(z) (((z) > 0 ? (z) : 0) + LOG1P(EXP(-ABS(z))))

LT_KERNEL_2(logits_entropy, x, t, (1 - t) * x + SOFTPLUS(-x))
LT_KERNEL_3(logits_entropy_backward, dy, x, t, dy *(SIGMOID(x) - t))

static lt_tensor *softplus_of_minus(lt_vjp *v, lt_tensor *x) {
  return lt_neg(v->s, call(v, &lt_op_logsigmoid, x));
}

static lt_tensor *logits_slope(lt_vjp *v, lt_tensor *const *x, int i) {
  (void)i;
  return lt_neg(v->s, x[0]);
}

static lt_tensor *logits_curve(lt_vjp *v, lt_tensor *const *x, int i) {
  lt_tensor *p = i == 0 ? call(v, &lt_op_sigmoid, x[0]) : NULL;
  return i == 0 ? lt_mul(v->s, p, rest(v, p)) : lt_number(v->s, -1);
}

static const lt_loss logits_entropy = {.weight = 2, .slope = logits_slope, .curve = logits_curve};

LT_LOSS(logits_entropy, lt_loss_infer, PAIR, WEIGHED,
        .doc = "binary_cross_entropy_with_logits without pos_weight.",
        .options = {LT_REDUCTION_OPTION}, .internal = true)

/* Positive targets count q times. */
LT_KERNEL_3(positive_entropy, x, t, q, (1 - t) * x + (1 + (q - 1) * t) * SOFTPLUS(-x))
LT_KERNEL_4(positive_entropy_backward, dy, x, t, q, dy *(SIGMOID(x) * (1 + (q - 1) * t) - q * t))

static lt_tensor *positive_slope(lt_vjp *v, lt_tensor *const *x, int i) {
  lt_scope *s = v->s;
  lt_tensor *soft = softplus_of_minus(v, x[0]);
  if (i == 2) return lt_mul(s, x[1], soft);
  return lt_sub(s, lt_mul(s, lt_shift(s, x[2], -1), soft), x[0]);
}

static lt_tensor *positive_curve(lt_vjp *v, lt_tensor *const *x, int i) {
  lt_scope *s = v->s;
  lt_tensor *p = call(v, &lt_op_sigmoid, x[0]), *t = x[1], *more = lt_shift(s, x[2], -1);
  if (i == 2) return lt_mul(s, t, lt_shift(s, p, -1));
  if (i == 1) return lt_sub(s, lt_mul(s, more, p), x[2]);
  return lt_mul(s, lt_shift(s, lt_mul(s, more, t), 1), lt_mul(s, p, rest(v, p)));
}

static const lt_loss positive_entropy = {
    .weight = 3, .slope = positive_slope, .curve = positive_curve};

#define POSITIVE_OPERANDS                                                                          \
  PAIR, { "pos_weight", LT_ANY }
#define POSITIVE_INPUTS                                                                            \
  POSITIVE_OPERANDS, { "weight", LT_ANY, .optional = true }

LT_LOSS(positive_entropy, lt_loss_infer, POSITIVE_OPERANDS, POSITIVE_INPUTS,
        .doc = "binary_cross_entropy_with_logits with pos_weight.",
        .options = {LT_REDUCTION_OPTION}, .internal = true)

static void logits_compose(lt_call *c, lt_scope *s) {
  lt_tensor *const *in = c->in;
  if (in[3])
    c->out[0] =
        lt_do(s, &lt_op_positive_entropy, c->attrs, 4, (lt_tensor *[]){in[0], in[1], in[3], in[2]});
  else
    c->out[0] = lt_do(s, &lt_op_logits_entropy, c->attrs, 3, in);
}

const lt_op lt_op_binary_cross_entropy_with_logits = {
    .name = "binary_cross_entropy_with_logits",
    .doc = "Cross entropy of the probabilities p = sigmoid(input) for targets t, without "
           "overflow: -weight * (pos_weight * t ln p + (1 - t) ln(1 - p)). input and target have "
           "one shape, to which weight and pos_weight broadcast." LT_REDUCTION_DOC,
    .inputs = {WEIGHED, {"pos_weight", LT_ANY, .optional = true}},
    .options = {LT_REDUCTION_OPTION},
    .infer = lt_loss_infer_alike,
    .compose = logits_compose,
    .sample = {"normal(3, 4), uniform(3, 4)", "normal(3, 4), uniform(3, 4), positive(4)",
               "normal(2, 3, 4), uniform(2, 3, 4), positive(2, 1, 4), positive(4), {reduction = "
               "'sum'}",
               "normal(3, 4), uniform(3, 4), nil, positive(4), {reduction = 'none'}"},
};

/* ---- kl_div ---------------------------------------------------------------------------------- */

enum { LOG_TARGET = 1 };

LT_KERNEL_OF(CHOICE_OF_2, kl_div, x, t, K(LOG_TARGET) != 0, EXP(t) * (t - x),
             (t == 0 ? 0 : t * LOG(t)) - t * x)
LT_KERNEL_3(kl_div_backward, dy, x, t, ((void)x, -dy *(K(LOG_TARGET) != 0 ? EXP(t) : t)))

static bool is_log(const lt_vjp *v) { return lt_get_int(v->attrs, v->op, LOG_TARGET) != 0; }

static lt_tensor *kl_slope(lt_vjp *v, lt_tensor *const *x, int i) {
  lt_scope *s = v->s;
  (void)i;
  lt_tensor *log_t = is_log(v) ? x[1] : call(v, &lt_op_log, x[1]);
  lt_tensor *slope = lt_shift(s, lt_sub(s, log_t, x[0]), 1);
  return is_log(v) ? lt_mul(s, call(v, &lt_op_exp, x[1]), slope) : slope;
}

static lt_tensor *kl_curve(lt_vjp *v, lt_tensor *const *x, int i) {
  if (i == 0) return NULL;
  return is_log(v) ? lt_neg(v->s, call(v, &lt_op_exp, x[1])) : lt_number(v->s, -1);
}

static const lt_loss kl_div = {.slope = kl_slope, .curve = kl_curve};

LT_LOSS(kl_div, lt_loss_infer, PAIR, PAIR,
        .doc = "Kullback-Leibler divergence, t (ln t - input) for probabilities t and "
               "log-probabilities input, 0 where t is 0; with log_target the target is ln t. "
               "input and target broadcast." LT_REDUCTION_DOC
               " \"batchmean\" divides the sum by the size of input's first dimension, which is "
               "the divergence's definition.",
        .options = {{"reduction", LT_OPTION_CHOICE, .choices = LT_REDUCTIONS " batchmean"},
                    {"log_target", LT_OPTION_BOOL}},
        .sample = {"normal(3, 4), positive(3, 4)",
                   "normal(2, 3, 4), normal(3, 1), {log_target = true, reduction = 'sum'}",
                   "normal(3, 4), positive(4), {reduction = 'batchmean'}",
                   "normal(3, 4), positive(3, 4), {reduction = 'none'}"})

/* ---- poisson_nll_loss ------------------------------------------------------------------------ */

enum { LOG_INPUT = 1, FULL, EPS };

/* Stirling's approximation of ln t! */
#define STIRLING(t) ((t) > 1 ? (t)*LOG(t) - (t) + C(0.5) * (C(LOG_2PI) + LOG(t)) : 0)

LT_KERNEL_OF(CHOICE_OF_2, poisson_nll_loss, x, t, K(LOG_INPUT) != 0 && K(FULL) == 0, EXP(x) - t * x,
             (K(LOG_INPUT) != 0 ? EXP(x) - t * x : x - t * LOG(x + K(EPS))) +
                 (K(FULL) != 0 ? STIRLING(t) : 0))
LT_KERNEL_3(poisson_nll_loss_backward, dy, x, t,
            dy *(K(LOG_INPUT) != 0 ? EXP(x) - t : 1 - t / (x + K(EPS))))

static bool is_log_input(const lt_vjp *v) { return lt_get_int(v->attrs, v->op, LOG_INPUT) != 0; }

/* input + eps */
static lt_tensor *rate(lt_vjp *v, lt_tensor *x) {
  return lt_shift(v->s, x, lt_get_number(v->attrs, v->op, EPS));
}

static lt_tensor *poisson_slope(lt_vjp *v, lt_tensor *const *x, int i) {
  lt_scope *s = v->s;
  (void)i;
  lt_tensor *slope = lt_neg(s, is_log_input(v) ? x[0] : call(v, &lt_op_log, rate(v, x[0])));
  if (lt_get_int(v->attrs, v->op, FULL) == 0) return slope;
  lt_tensor *t = at_least(v, x[1], 1); /* ln t + 1 / 2t, where t > 1 */
  lt_tensor *half = lt_scale(s, lt_div(s, lt_number(s, 1), t), 0.5);
  lt_tensor *more = lt_add(s, call(v, &lt_op_log, t), half);
  return lt_add(s, slope, lt_mul(s, lt_step(v->s, &lt_op_gt, x[1], lt_number(s, 1)), more));
}

static lt_tensor *poisson_curve(lt_vjp *v, lt_tensor *const *x, int i) {
  lt_scope *s = v->s;
  if (is_log_input(v)) return i == 0 ? call(v, &lt_op_exp, x[0]) : lt_number(s, -1);
  lt_tensor *each = lt_div(s, lt_number(s, -1), rate(v, x[0]));
  return i == 1 ? each : lt_mul(s, x[1], lt_mul(s, each, each));
}

static const lt_loss poisson_nll_loss = {.slope = poisson_slope, .curve = poisson_curve};

LT_LOSS(poisson_nll_loss, lt_loss_infer, PAIR, PAIR,
        .doc = "Negative log likelihood of counts t under Poisson's distribution: e^x - t x when "
               "input is the logarithm x of the rate (log_input), else x - t ln(x + eps). full "
               "adds Stirling's approximation of ln t! where t > 1. input and target "
               "broadcast." LT_REDUCTION_DOC,
        .options = {LT_REDUCTION_OPTION,
                    {"log_input", LT_OPTION_BOOL, .value = 1},
                    {"full", LT_OPTION_BOOL},
                    {"eps", LT_OPTION_NUMBER, .value = 1e-8}},
        .sample = {"normal(3, 4), positive(3, 4)",
                   "normal(2, 3, 4), positive(4) * 3, {full = true}",
                   "positive(3, 4), positive(3, 4), {log_input = false, eps = 0.1, reduction = "
                   "'sum'}",
                   "normal(3, 4), integers(0, 5, 3, 4), {full = true, reduction = 'none'}"})

/* ---- gaussian_nll_loss ----------------------------------------------------------------------- */

enum { GAUSSIAN_FULL = 1, GAUSSIAN_EPS };

/* The variance, at least eps. */
#define VARIANCE(u) ((u) < K(GAUSSIAN_EPS) ? K(GAUSSIAN_EPS) : (u))

LT_KERNEL_3(gaussian_nll, x, t, u,
            C(0.5) * (LOG(VARIANCE(u)) + (x - t) * (x - t) / VARIANCE(u)) +
                (K(GAUSSIAN_FULL) != 0 ? C(0.5 * LOG_2PI) : 0) + (u < 0 ? C(NAN) : 0))
LT_KERNEL_4(gaussian_nll_backward, dy, x, t, u, dy *(x - t) / VARIANCE(u))

/* The bound lets gradients pass, as if it were not there. */
static lt_tensor *variance(lt_vjp *v, lt_tensor *u) {
  lt_tensor *least = at_least(v, u, lt_get_number(v->attrs, v->op, GAUSSIAN_EPS));
  return lt_add(v->s, u, call(v, &lt_op_detach, lt_sub(v->s, least, u)));
}

static lt_tensor *gaussian_slope(lt_vjp *v, lt_tensor *const *x, int i) { /* in the variance */
  lt_scope *s = v->s;
  (void)i;
  lt_tensor *u = variance(v, x[2]), *d = lt_sub(s, x[0], x[1]);
  lt_tensor *more = lt_div(s, lt_mul(s, d, d), u);
  return lt_scale(s, lt_div(s, lt_shift(s, more, -1), u), -0.5);
}

static lt_tensor *gaussian_curve(lt_vjp *v, lt_tensor *const *x, int i) {
  lt_scope *s = v->s;
  lt_tensor *u = variance(v, x[2]);
  if (i == 0) return lt_div(s, lt_number(s, 1), u);
  return lt_div(s, lt_sub(s, x[1], x[0]), lt_mul(s, u, u));
}

static lt_status gaussian_check(const lt_call *c) {
  lt_call of_user = *c;
  of_user.op = &lt_op_gaussian_nll_loss; /* whose name is in the message */
  return lt_check_range(&of_user, 2, 0, INFINITY);
}

static const lt_loss gaussian_nll = {
    .difference = true, .slope = gaussian_slope, .curve = gaussian_curve, .check = gaussian_check};

#define GAUSSIAN_INPUTS                                                                            \
  PAIR, { "var", LT_ANY }
#define GAUSSIAN_OPTIONS                                                                           \
  {                                                                                                \
    LT_REDUCTION_OPTION, {"full", LT_OPTION_BOOL}, { "eps", LT_OPTION_NUMBER, .value = 1e-6 }      \
  }

LT_LOSS(gaussian_nll, lt_loss_infer, GAUSSIAN_INPUTS, GAUSSIAN_INPUTS,
        .doc = "gaussian_nll_loss of tensors that broadcast.", .options = GAUSSIAN_OPTIONS,
        .internal = true)

/* The variance's shape beside input: as it is, or with a last dimension of 1 that is missing. */
static lt_shape variance_shape(const lt_call *c) {
  lt_shape x = c->in[0]->shape, var = c->in[2]->shape;
  if (lt_shape_equal(&x, &var) || var.ndim != x.ndim - 1) return var;
  x.ndim--;
  if (lt_shape_equal(&x, &var)) var.size[var.ndim++] = 1;
  return var;
}

static lt_status gaussian_infer(lt_call *c) {
  const lt_shape *x = &c->in[0]->shape;
  lt_shape var = variance_shape(c), all = *x;
  char a[LT_SHAPE_TEXT], b[LT_SHAPE_TEXT];
  double eps = lt_get_number(c->attrs, c->op, GAUSSIAN_EPS);
  if (!(eps > 0)) return lt_fail(c->ctx, "%s: eps must be positive, got %g", c->op->name, eps);
  if (!lt_shape_broadcast(&all, &var) || !lt_shape_equal(&all, x)) {
    return lt_fail(c->ctx,
                   "%s: var must have input's shape %s, with dimensions of 1, or without "
                   "the last one, got %s",
                   c->op->name, lt_shape_text(x, a), lt_shape_text(&c->in[2]->shape, b));
  }
  if (lt_shape_broadcast(&all, &c->in[1]->shape)) return LT_OK;
  return lt_fail(c->ctx, "%s: shapes do not broadcast (%s and %s)", c->op->name,
                 lt_shape_text(x, a), lt_shape_text(&c->in[1]->shape, b));
}

static void gaussian_compose(lt_call *c, lt_scope *s) {
  lt_shape var = variance_shape(c);
  lt_tensor *in[] = {c->in[0], c->in[1], lt_reshape_to(s, c->in[2], &var)};
  if (in[2]) c->out[0] = lt_do(s, &lt_op_gaussian_nll, c->attrs, 3, in);
}

const lt_op lt_op_gaussian_nll_loss = {
    .name = "gaussian_nll_loss",
    .doc = "Negative log likelihood of target under normal distributions of mean input and "
           "variance var: (ln var + (input - target)^2 / var) / 2, plus ln(2 pi) / 2 with full. "
           "var has input's shape, perhaps with dimensions of 1, or lacks the last dimension. A "
           "var below eps counts as eps, but keeps its gradient; a negative one is an "
           "error." LT_REDUCTION_DOC " Nix and Weigend 1994.",
    .inputs = {GAUSSIAN_INPUTS},
    .options = GAUSSIAN_OPTIONS,
    .infer = gaussian_infer,
    .compose = gaussian_compose,
    .sample = {"normal(3, 4), normal(3, 4), positive(3, 4)",
               "normal(2, 3, 4), normal(4), positive(2, 3), {full = true, reduction = 'sum'}",
               "normal(3, 4), normal(3, 4), positive(3, 1), {reduction = 'none'}",
               "normal(3, 4), normal(3, 4), positive()"},
};

LT_FAMILY(pointwise_loss, &lt_op_mse_loss, &lt_op_l1_loss, &lt_op_huber_loss, &lt_op_smooth_l1_loss,
          &lt_op_binary_cross_entropy, &lt_op_logits_entropy, &lt_op_positive_entropy,
          &lt_op_binary_cross_entropy_with_logits, &lt_op_kl_div, &lt_op_poisson_nll_loss,
          &lt_op_gaussian_nll, &lt_op_gaussian_nll_loss)
