/* CTC by forward and backward variables, in double. The labels with a blank before, between and
 * behind are 2 * labels + 1 states: even ones are blanks. A path stays, moves one state on, or
 * skips a blank between different labels. */
#include "kernels/ctc.h"
#include "kernels/math.h"

static int64_t states_of(int64_t labels) { return 2 * labels + 1; }

int64_t lt_ctc_room(int64_t steps, int64_t labels, int order) {
  return (order * steps + (order < 2 ? 2 : 4)) * states_of(labels);
}

static int64_t class_of(const lt_ctc *p, int64_t state) {
  return state % 2 == 0 ? p->blank : p->label[state / 2] - 1;
}

static bool may_skip_to(const lt_ctc *p, int64_t state) {
  return state % 2 == 1 && state > 1 && p->label[state / 2] != p->label[state / 2 - 1];
}

/* Of a state's class at step t, in log_probs or what is laid out like them. */
static double element(const lt_ctc *p, const char *x, int64_t t, int64_t state) {
  int64_t at = t * p->stride + class_of(p, state);
  return p->dtype == LT_FLOAT64 ? ((const double *)(const void *)x)[at]
                                : (double)((const float *)(const void *)x)[at];
}

static double log_prob(const lt_ctc *p, int64_t t, int64_t state) {
  return element(p, p->log_probs, t, state);
}

/* ln(e^a + e^b + e^c); NaN if one is. */
static double log_sum(double a, double b, double c) {
  double max = a > b ? a : b;
  if (!(c <= max)) max = c;
  if (max == -INFINITY) return a + b + c;
  double sum = exp(a - max) + exp(b - max);
  return max + log(c > -INFINITY ? sum + exp(c - max) : sum);
}

/* States from which the last ones are still within reach at step t, and that can be reached. */
static int64_t first_state(const lt_ctc *p, int64_t t) {
  int64_t first = states_of(p->labels) - 2 * (p->steps - t);
  return first > 0 ? first : 0;
}
static int64_t end_state(const lt_ctc *p, int64_t t) {
  int64_t end = 2 * (t + 1), states = states_of(p->labels);
  return end < states ? end : states;
}

/* alpha[s]: ln of the probability of all beginnings of paths that end in state s at step t. */
static void advance(const lt_ctc *p, int64_t t, const double *before, double *alpha) {
  int64_t states = states_of(p->labels), first = first_state(p, t), end = end_state(p, t);
  for (int64_t s = 0; s < states; s++) alpha[s] = -INFINITY;
  for (int64_t s = first; s < end; s++) {
    if (t == 0) {
      alpha[s] = log_prob(p, t, s);
      continue;
    }
    double moved = s > 0 ? before[s - 1] : -INFINITY;
    double skipped = may_skip_to(p, s) ? before[s - 2] : -INFINITY;
    alpha[s] = log_sum(before[s], moved, skipped) + log_prob(p, t, s);
  }
}

/* beta[s]: ln of the probability of all ends of paths that leave state s at step t. `after` holds
 * those of step t + 1 with its own probability. */
static void retreat(const lt_ctc *p, int64_t t, const double *after, double *beta) {
  int64_t states = states_of(p->labels);
  for (int64_t s = 0; s < states; s++) {
    if (t == p->steps - 1) {
      beta[s] = s >= states - 2 ? 0 : -INFINITY;
      continue;
    }
    double moved = s + 1 < states ? after[s + 1] : -INFINITY;
    bool skips = s + 2 < states && may_skip_to(p, s + 2);
    beta[s] = log_sum(after[s], moved, skips ? after[s + 2] : -INFINITY);
  }
}

/* One step of a derivative: exp(x), times v if there is one, less what each state gives to its
 * class. */
#define STEP(NAME, T)                                                                              \
  static void NAME(const lt_ctc *p, int64_t t, const double *given, const char *along, char *to,   \
                   double factor) {                                                                \
    const T *x = (const T *)(const void *)p->log_probs + t * p->stride;                            \
    const T *v = along ? (const T *)(const void *)along + t * p->stride : NULL;                    \
    T *dx = (T *)(void *)to + t * p->stride, f = (T)factor;                                        \
    double blank = 0;                                                                              \
    for (int64_t k = 0; k < p->classes; k++) dx[k] = f * EXP(x[k]);                                \
    for (int64_t k = 0; v && k < p->classes; k++) dx[k] *= v[k];                                   \
    for (int64_t s = 0; s < states_of(p->labels); s++) {                                           \
      if (s % 2 == 0)                                                                              \
        blank += given[s];                                                                         \
      else                                                                                         \
        dx[class_of(p, s)] -= (T)(factor * given[s]);                                              \
    }                                                                                              \
    dx[p->blank] -= (T)(factor * blank);                                                           \
  }
STEP(step_f32, float)
STEP(step_f64, double)

static void write_step(const lt_ctc *p, int64_t t, const double *given, const char *v, char *to,
                       double factor) {
  (p->dtype == LT_FLOAT64 ? step_f64 : step_f32)(p, t, given, v, to, factor);
}

static void fill(const lt_ctc *p, char *to, double value) {
  for (int64_t t = 0; t < p->steps; t++) {
    for (int64_t k = 0; k < p->classes; k++) {
      int64_t at = t * p->stride + k;
      if (p->dtype == LT_FLOAT64)
        ((double *)(void *)to)[at] = value;
      else
        ((float *)(void *)to)[at] = (float)value;
    }
  }
}

static double loss_at_end(const lt_ctc *p, const double *end) {
  int64_t states = states_of(p->labels);
  return -log_sum(end[states - 1], states > 1 ? end[states - 2] : -INFINITY, -INFINITY);
}

/* How much of all paths' probability goes through a state. */
static double share(double alpha, double beta, double loss) {
  return alpha == -INFINITY || beta == -INFINITY ? 0 : exp(alpha + beta + loss);
}

double lt_ctc_loss(const lt_ctc *p, double *room, char *slope, double factor) {
  int64_t states = states_of(p->labels), last = p->steps - 1;
  if (p->steps == 0) return p->labels == 0 ? 0 : INFINITY;
  double *beta = room, *after = room + states;
  double *alpha = slope ? room + 2 * states : room; /* of all steps, or two in turn */
  for (int64_t t = 0; t <= last; t++) {
    int64_t now = slope ? t : t % 2, before = slope ? t - 1 : 1 - now;
    advance(p, t, t > 0 ? alpha + before * states : NULL, alpha + now * states);
  }
  double loss = loss_at_end(p, alpha + (slope ? last : last % 2) * states);
  if (!slope) return loss;
  if (!(loss < INFINITY)) fill(p, slope, NAN);
  for (int64_t t = last; loss < INFINITY && t >= 0; t--) {
    const double *reached = alpha + t * states;
    retreat(p, t, after, beta);
    for (int64_t s = 0; s < states; s++) {
      after[s] = share(reached[s], beta[s], loss);
    }
    write_step(p, t, after, NULL, slope, factor);
    for (int64_t s = 0; s < states; s++) after[s] = beta[s] + log_prob(p, t, s);
  }
  return loss;
}

/* ---- The second derivative: tangents beside alpha and beta --------------------------------------
 */

/* A sum's tangent: that of its part, by its share. */
static double part(double log_part, double log_whole, double tangent) {
  return log_part == -INFINITY ? 0 : exp(log_part - log_whole) * tangent;
}

static void advance_tangent(const lt_ctc *p, int64_t t, const double *before, const double *alpha,
                            const double *d_before, double *d_alpha, const char *v) {
  for (int64_t s = 0; s < states_of(p->labels); s++) {
    d_alpha[s] = 0;
    if (alpha[s] == -INFINITY) continue;
    double sum = alpha[s] - log_prob(p, t, s);
    d_alpha[s] = element(p, v, t, s);
    if (t == 0) continue;
    d_alpha[s] += part(before[s], sum, d_before[s]);
    if (s > 0) d_alpha[s] += part(before[s - 1], sum, d_before[s - 1]);
    if (may_skip_to(p, s)) d_alpha[s] += part(before[s - 2], sum, d_before[s - 2]);
  }
}

static void retreat_tangent(const lt_ctc *p, int64_t t, const double *after, const double *beta,
                            const double *d_after, double *d_beta) {
  int64_t states = states_of(p->labels);
  for (int64_t s = 0; s < states; s++) {
    d_beta[s] = 0;
    if (beta[s] == -INFINITY || t == p->steps - 1) continue;
    d_beta[s] = part(after[s], beta[s], d_after[s]);
    if (s + 1 < states) d_beta[s] += part(after[s + 1], beta[s], d_after[s + 1]);
    bool skips = s + 2 < states && may_skip_to(p, s + 2);
    if (skips) d_beta[s] += part(after[s + 2], beta[s], d_after[s + 2]);
  }
}

double lt_ctc_curve(const lt_ctc *p, double *room, const char *v, char *curve, double factor) {
  int64_t states = states_of(p->labels), last = p->steps - 1;
  if (p->steps == 0) return p->labels == 0 ? 0 : INFINITY;
  double *beta = room, *after = beta + states, *d_beta = after + states, *d_after = d_beta + states;
  double *alpha = d_after + states, *d_alpha = alpha + p->steps * states;
  for (int64_t t = 0; t <= last; t++) {
    double *now = alpha + t * states, *d_now = d_alpha + t * states;
    const double *before = t > 0 ? now - states : NULL, *d_before = t > 0 ? d_now - states : NULL;
    advance(p, t, before, now);
    advance_tangent(p, t, before, now, d_before, d_now, v);
  }
  double loss = loss_at_end(p, alpha + last * states), d_loss = 0;
  for (int64_t s = states > 1 ? states - 2 : 0; s < states; s++) {
    d_loss -= part(alpha[last * states + s], -loss, d_alpha[last * states + s]);
  }
  if (!(loss < INFINITY)) fill(p, curve, NAN);
  for (int64_t t = last; loss < INFINITY && t >= 0; t--) {
    const double *reached = alpha + t * states, *d_reached = d_alpha + t * states;
    retreat(p, t, after, beta);
    retreat_tangent(p, t, after, beta, d_after, d_beta);
    for (int64_t s = 0; s < states; s++) {
      after[s] = share(reached[s], beta[s], loss) * (d_reached[s] + d_beta[s] + d_loss);
    }
    write_step(p, t, after, v, curve, factor);
    for (int64_t s = 0; s < states; s++) {
      after[s] = beta[s] + log_prob(p, t, s);
      d_after[s] = d_beta[s] + element(p, v, t, s);
    }
  }
  return loss;
}
