/* Adam and AdamW. Kingma and Ba 2015, arXiv 1412.6980; Loshchilov and Hutter 2019, arXiv
 * 1711.05101; amsgrad: Reddi et al. 2018. PyTorch's and Keras's formulas differ only in factors
 * that are the same for all elements, so one loop serves all of them. */
#include "optim/rule.h"

enum { LR, BETA1, BETA2, EPS, WEIGHT_DECAY, AMSGRAD, MAXIMIZE, KERAS }; /* numbers of the options */
enum { SIGN, COUPLED, KEEP, TAKE1, KEEP2, TAKE2, RATE, SCALE, OFFSET }; /* factors of a step */

/* a is exp_avg, b exp_avg_sq, c the largest exp_avg_sq so far. */
#define GRADIENT                                                                                   \
  const T d = K(SIGN) * g[i] + K(COUPLED) * p[i];                                                  \
  const T m = a[i] + (d - a[i]) * K(TAKE1);                                                        \
  const T v = K(KEEP2) * b[i] + K(TAKE2) * d * d;
#define UPDATE(V)                                                                                  \
  a[i] = m;                                                                                        \
  b[i] = v;                                                                                        \
  p[i] = K(KEEP) * p[i] - K(RATE) * m / (ROOT(V) * K(SCALE) + K(OFFSET));

LT_STEP(adam_step, 2, {GRADIENT UPDATE(v)})

LT_STEP(amsgrad_step, 3, {
  GRADIENT
  const T w = c[i] > v ? c[i] : v; /* NaN in v wins */
  c[i] = w;
  UPDATE(w)
})

static const lt_step *step(const double *o) { return o[AMSGRAD] != 0 ? &amsgrad_step : &adam_step; }

/* PyTorch divides by sqrt(v / c2) + eps, Keras by (sqrt(v) + eps) / sqrt(c2). */
static void factors(const double *o, bool decoupled, double t, double *k) {
  double c1 = 1 - pow(o[BETA1], t), c2 = 1 - pow(o[BETA2], t);
  bool keras = o[KERAS] != 0;
  k[SIGN] = o[MAXIMIZE] != 0 ? -1 : 1;
  k[COUPLED] = decoupled ? 0 : o[WEIGHT_DECAY];
  k[KEEP] = decoupled ? 1 - o[LR] * o[WEIGHT_DECAY] : 1;
  k[TAKE1] = 1 - o[BETA1];
  k[KEEP2] = o[BETA2];
  k[TAKE2] = 1 - o[BETA2];
  k[RATE] = keras ? o[LR] * sqrt(c2) / c1 : o[LR] / c1;
  k[SCALE] = keras ? 1 : 1 / sqrt(c2);
  k[OFFSET] = o[EPS];
}

static void adam_prepare(const double *o, double t, double *k) { factors(o, o[KERAS] != 0, t, k); }
static void adamw_prepare(const double *o, double t, double *k) { factors(o, true, t, k); }

static void hold(double *k) {
  k[TAKE1] = k[TAKE2] = 0;
  k[KEEP2] = 1;
}

#define OPTIONS(DECAY, KERAS_DECAY)                                                                \
  {                                                                                                \
    {"lr", LT_RULE_NUMBER, {1e-3}, {1e-3}, 0, INFINITY},                                           \
        {"betas", LT_RULE_PAIR, {0.9, 0.999}, {0.9, 0.999}, 0, 1},                                 \
        {"eps", LT_RULE_NUMBER, {1e-8}, {1e-7}, 0, INFINITY},                                      \
        {"weight_decay", LT_RULE_NUMBER, {DECAY}, {KERAS_DECAY}, 0, INFINITY},                     \
        {"amsgrad", LT_RULE_FLAG, {0}, {0}, 0, 0}, {"maximize", LT_RULE_FLAG, {0}, {0}, 0, 0},     \
        {"keras", LT_RULE_FLAG, {0}, {0}, 0, 0},                                                   \
  }

const lt_rule lt_rule_adam = {
    .name = "Adam",
    .doc = "m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2, "
           "p = p - lr m^ / (sqrt(v^) + eps) with m^ = m / (1 - beta1^t), v^ = v / (1 - beta2^t). "
           "weight_decay adds weight_decay p to g; amsgrad takes the largest v so far. "
           "keras = true: p = p - lr sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + eps), eps "
           "1e-7, and weight_decay shrinks p by lr weight_decay p first. Kingma and Ba 2015.",
    .options = OPTIONS(0, 0),
    .states = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"},
    .step = step,
    .prepare = adam_prepare,
    .hold = hold,
};

const lt_rule lt_rule_adamw = {
    .name = "AdamW",
    .doc = "Adam whose weight_decay shrinks p by lr weight_decay p, apart from the gradient. "
           "Default 0.01; 0.004 under keras = true. Loshchilov and Hutter 2019.",
    .options = OPTIONS(0.01, 0.004),
    .states = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"},
    .step = step,
    .prepare = adamw_prepare,
    .hold = hold,
};
