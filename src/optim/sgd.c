/* Stochastic gradient descent with momentum. Sutskever et al. 2013; PyTorch keeps the rate out of
 * the momentum buffer, Keras inside: again a matter of factors. */
#include "optim/rule.h"

#include <stddef.h>

enum {
  LR,
  MOMENTUM,
  DAMPENING,
  WEIGHT_DECAY,
  NESTEROV,
  MAXIMIZE,
  KERAS
};                                                              /* numbers of the options */
enum { SIGN, COUPLED, KEEP, RATE, INERTIA, TAKE, BUFFER_RATE }; /* factors of a step */

LT_STEP(plain_step, 0, {
  const T d = K(SIGN) * g[i] + K(COUPLED) * p[i];
  p[i] = K(KEEP) * p[i] - K(RATE) * d;
})

/* a is momentum_buffer; under Nesterov the step looks ahead by the gradient itself. */
LT_STEP(momentum_step, 1, {
  const T d = K(SIGN) * g[i] + K(COUPLED) * p[i];
  const T m = K(INERTIA) * a[i] + K(TAKE) * d;
  a[i] = m;
  p[i] = K(KEEP) * p[i] - (K(RATE) * d + K(BUFFER_RATE) * m);
})

static const lt_step *step(const double *o) {
  return o[MOMENTUM] != 0 ? &momentum_step : &plain_step;
}

static void prepare(const double *o, double t, double *k) {
  bool keras = o[KERAS] != 0, nesterov = o[NESTEROV] != 0;
  double ahead = nesterov ? o[MOMENTUM] : 1;
  k[SIGN] = o[MAXIMIZE] != 0 ? -1 : 1;
  k[COUPLED] = keras ? 0 : o[WEIGHT_DECAY];
  k[KEEP] = keras ? 1 - o[LR] * o[WEIGHT_DECAY] : 1;
  k[RATE] = o[MOMENTUM] == 0 || nesterov ? o[LR] : 0;
  k[INERTIA] = o[MOMENTUM];
  k[TAKE] = t == 1 ? 1 : 1 - o[DAMPENING]; /* the buffer begins as the first gradient */
  k[BUFFER_RATE] = ahead * o[LR];
  if (keras) {
    k[TAKE] = o[LR];
    k[BUFFER_RATE] = ahead;
  }
}

static void hold(double *k) {
  k[INERTIA] = 1;
  k[TAKE] = 0;
}

static const char *check(const double *o) {
  if (o[NESTEROV] != 0 && (o[MOMENTUM] == 0 || o[DAMPENING] != 0)) {
    return "nesterov needs a momentum above 0 and no dampening";
  }
  return NULL;
}

const lt_rule lt_rule_sgd = {
    .name = "SGD",
    .doc =
        "p = p - lr g; with momentum b = momentum b + (1 - dampening) g (b = g at first) and "
        "p = p - lr b, with nesterov p = p - lr (g + momentum b). weight_decay adds "
        "weight_decay p to g. keras = true: b = momentum b + lr g, p = p - b (nesterov: "
        "p - lr g - momentum b), lr 0.01, and weight_decay shrinks p by lr weight_decay p first. "
        "Sutskever et al. 2013.",
    .options = {{"lr", LT_RULE_NUMBER, {1e-3}, {1e-2}, 0, INFINITY},
                {"momentum", LT_RULE_NUMBER, {0}, {0}, 0, INFINITY},
                {"dampening", LT_RULE_NUMBER, {0}, {0}, -INFINITY, INFINITY},
                {"weight_decay", LT_RULE_NUMBER, {0}, {0}, 0, INFINITY},
                {"nesterov", LT_RULE_FLAG, {0}, {0}, 0, 0},
                {"maximize", LT_RULE_FLAG, {0}, {0}, 0, 0},
                {"keras", LT_RULE_FLAG, {0}, {0}, 0, 0}},
    .states = {"momentum_buffer"},
    .step = step,
    .prepare = prepare,
    .hold = hold,
    .check = check,
};
