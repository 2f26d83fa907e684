/* RMSprop and Adagrad: the gradient divided by the root of an average, or of the sum, of its
 * squares. Hinton 2012 (lecture 6e of Neural Networks for Machine Learning); centered: Graves 2013,
 * arXiv 1308.0850; Duchi, Hazan and Singer 2011. Keras adds eps under the root, PyTorch beside it,
 * and Keras keeps the rate inside the momentum buffer: a matter of factors again. */
#include "optim/rule.h"

#include <stddef.h>

/* numbers of the options */
enum { LR, ALPHA, EPS, WEIGHT_DECAY, MOMENTUM, CENTERED, MAXIMIZE, KERAS };
enum { ADAGRAD_LR, LR_DECAY, ADAGRAD_DECAY, INITIAL, ADAGRAD_EPS, ADAGRAD_MAXIMIZE, ADAGRAD_KERAS };
/* factors of a step; the first five are those of every rule here */
enum { SIGN, COUPLED, SHRINK, KEEP, TAKE, INSIDE, OUTSIDE, INERTIA, PUSH, RATE };

#define SQUARES                                                                                    \
  const T d = K(SIGN) * g[i] + K(COUPLED) * p[i];                                                  \
  const T v = K(KEEP) * a[i] + K(TAKE) * d * d;                                                    \
  a[i] = v;
#define SCALED(V) (d / (ROOT((V) + K(INSIDE)) + K(OUTSIDE)))

/* a is square_avg of RMSprop and sum of Adagrad, b momentum_buffer, c grad_avg. */
LT_STEP(plain_step, 1, {
  SQUARES
  p[i] = K(SHRINK) * p[i] - K(RATE) * (K(PUSH) * SCALED(v));
})

LT_STEP(momentum_step, 2, {
  SQUARES
  const T m = K(INERTIA) * b[i] + K(PUSH) * SCALED(v);
  b[i] = m;
  p[i] = K(SHRINK) * p[i] - K(RATE) * m;
})

LT_STEP(centered_step, 3, {
  SQUARES
  const T mean = K(KEEP) * c[i] + K(TAKE) * d;
  const T m = K(INERTIA) * b[i] + K(PUSH) * SCALED(v - mean * mean);
  c[i] = mean;
  b[i] = m;
  p[i] = K(SHRINK) * p[i] - K(RATE) * m;
})

static const lt_step *rmsprop_step(const double *o) {
  if (o[CENTERED] != 0) return &centered_step;
  return o[MOMENTUM] != 0 ? &momentum_step : &plain_step;
}

static void rmsprop_prepare(const double *o, double t, double *k) {
  bool keras = o[KERAS] != 0;
  (void)t;
  k[SIGN] = o[MAXIMIZE] != 0 ? -1 : 1;
  k[COUPLED] = keras ? 0 : o[WEIGHT_DECAY];
  k[SHRINK] = keras ? 1 - o[LR] * o[WEIGHT_DECAY] : 1;
  k[KEEP] = o[ALPHA];
  k[TAKE] = 1 - o[ALPHA];
  k[INSIDE] = keras ? o[EPS] : 0;
  k[OUTSIDE] = keras ? 0 : o[EPS];
  k[INERTIA] = o[MOMENTUM];
  k[PUSH] = keras ? o[LR] : 1;
  k[RATE] = keras ? 1 : o[LR];
}

static void hold(double *k) {
  k[KEEP] = 1;
  k[TAKE] = 0;
}

/* A buffer with inertia has taken the push already. */
static void rmsprop_hold(double *k) {
  hold(k);
  if (k[INERTIA] == 0) return;
  k[INERTIA] = 1;
  k[PUSH] = 0;
}

const lt_rule lt_rule_rmsprop = {
    .name = "RMSprop",
    .doc =
        "v = alpha v + (1 - alpha) g^2, p = p - lr g / (sqrt(v) + eps); centered = true subtracts "
        "the square of the averaged gradient from v under the root; with momentum "
        "b = momentum b + g / (sqrt(v) + eps) and p = p - lr b. weight_decay adds weight_decay p "
        "to "
        "g. keras = true: g / sqrt(v + eps), alpha (Keras's rho) 0.9, eps 1e-7, lr 0.001 and "
        "inside "
        "the buffer, and weight_decay shrinks p by lr weight_decay p first. Hinton 2012; Graves "
        "2013, arXiv 1308.0850.",
    .options = {{"lr", LT_RULE_NUMBER, {1e-2}, {1e-3}, 0, INFINITY},
                {"alpha", LT_RULE_NUMBER, {0.99}, {0.9}, 0, INFINITY},
                {"eps", LT_RULE_NUMBER, {1e-8}, {1e-7}, 0, INFINITY},
                {"weight_decay", LT_RULE_NUMBER, {0}, {0}, 0, INFINITY},
                {"momentum", LT_RULE_NUMBER, {0}, {0}, 0, INFINITY},
                {"centered", LT_RULE_FLAG, {0}, {0}, 0, 0},
                {"maximize", LT_RULE_FLAG, {0}, {0}, 0, 0},
                {"keras", LT_RULE_FLAG, {0}, {0}, 0, 0}},
    .states = {"square_avg", "momentum_buffer", "grad_avg"},
    .step = rmsprop_step,
    .prepare = rmsprop_prepare,
    .hold = rmsprop_hold,
};

static const lt_step *adagrad_step(const double *o) {
  (void)o;
  return &plain_step;
}

static void adagrad_prepare(const double *o, double t, double *k) {
  bool keras = o[ADAGRAD_KERAS] != 0;
  k[SIGN] = o[ADAGRAD_MAXIMIZE] != 0 ? -1 : 1;
  k[COUPLED] = keras ? 0 : o[ADAGRAD_DECAY];
  k[SHRINK] = keras ? 1 - o[ADAGRAD_LR] * o[ADAGRAD_DECAY] : 1;
  k[KEEP] = k[TAKE] = k[PUSH] = 1;
  k[INSIDE] = keras ? o[ADAGRAD_EPS] : 0;
  k[OUTSIDE] = keras ? 0 : o[ADAGRAD_EPS];
  k[RATE] = o[ADAGRAD_LR] / (1 + (t - 1) * o[LR_DECAY]);
}

static double adagrad_start(const double *o) { return o[INITIAL]; }

const lt_rule lt_rule_adagrad = {
    .name = "Adagrad",
    .doc = "s = s + g^2 from s = initial_accumulator_value, p = p - lr / (1 + (t - 1) lr_decay) "
           "g / (sqrt(s) + eps). weight_decay adds weight_decay p to g. keras = true: "
           "g / sqrt(s + eps), initial_accumulator_value 0.1, eps 1e-7, lr 0.001, and weight_decay "
           "shrinks p by lr weight_decay p first. Duchi, Hazan and Singer 2011.",
    .options = {{"lr", LT_RULE_NUMBER, {1e-2}, {1e-3}, 0, INFINITY},
                {"lr_decay", LT_RULE_NUMBER, {0}, {0}, 0, INFINITY},
                {"weight_decay", LT_RULE_NUMBER, {0}, {0}, 0, INFINITY},
                {"initial_accumulator_value", LT_RULE_NUMBER, {0}, {0.1}, 0, INFINITY},
                {"eps", LT_RULE_NUMBER, {1e-10}, {1e-7}, 0, INFINITY},
                {"maximize", LT_RULE_FLAG, {0}, {0}, 0, 0},
                {"keras", LT_RULE_FLAG, {0}, {0}, 0, 0}},
    .states = {"sum"},
    .step = adagrad_step,
    .prepare = adagrad_prepare,
    .hold = hold,
    .start = adagrad_start,
};
