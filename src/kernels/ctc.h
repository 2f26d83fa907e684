/* Connectionist temporal classification: the probability of a sequence of labels, summed over all
 * its alignments with longer input, and its gradient. In logarithms, which nothing can underflow.
 */
#ifndef LT_KERNELS_CTC_H
#define LT_KERNELS_CTC_H

#include "core/dtype.h"

typedef struct lt_ctc {
  int64_t steps, classes;
  lt_dtype dtype;        /* float32 or float64 */
  const char *log_probs; /* those of step t begin at element t * stride, one for each class */
  int64_t stride;
  int64_t labels;
  const int64_t *label; /* classes, which count from 1 */
  int64_t blank;        /* a class, from 0 */
} lt_ctc;

/* Doubles of working memory, for all derivatives up to `order`. */
int64_t lt_ctc_room(int64_t steps, int64_t labels, int order);

/* -ln of the probability that log_probs give the labels; infinity where there is no alignment.
 * `slope` (NULL: not wanted), laid out as log_probs, becomes factor * (exp(log_probs) - occupancy),
 * which is the gradient behind a log_softmax; all NaN where there is no alignment.
 * Graves et al. 2006. */
double lt_ctc_loss(const lt_ctc *p, double *room, char *slope, double factor);

/* How the slope changes when log_probs change along v, laid out as they are. Returns the loss. */
double lt_ctc_curve(const lt_ctc *p, double *room, const char *v, char *curve, double factor);

#endif
