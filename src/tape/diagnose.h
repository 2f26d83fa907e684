/* Why a gradient is zero, NaN or infinite. Every gradient is looked at; where it is one of these,
 * the walk runs once more, watched, while the tape still holds its values. */
#ifndef LT_TAPE_DIAGNOSE_H
#define LT_TAPE_DIAGNOSE_H

#include "tape/tape.h"
#include "tape/vjp.h"

enum { LT_FINDING_TEXT = 1024 };

/* What was found out about one source. Shared by tapes. */
typedef struct lt_finding {
  int32_t refs;
  const char *code;    /* "zero" or "nonfinite" */
  const char *because; /* of zero: "relu", "saturated", "clipped", "masked", "flat-op",
                          "zero-factor"; NULL when that was not searched for */
  double share;        /* of zero: which part of the gradient that arrived the op blocked */
  const char *phase;   /* of nonfinite: "forward" or "backward" */
  const char *op;
  lt_site where;
  int ndim;                     /* of the element, -1 for none */
  int64_t element[LT_MAX_RANK]; /* from 1 */
  int operands;                 /* the op's inputs at that element */
  bool known[LT_MAX_INPUTS];
  double operand[LT_MAX_INPUTS];
  bool has_dy, has_result;
  double dy, result;
  char message[LT_FINDING_TEXT];
} lt_finding;

/* A call of gradient. */
typedef struct lt_question {
  lt_tape *tape;
  int targets;
  lt_tensor *const *target, *const *seeds;
  int sources;
  lt_tensor *const *source;
  lt_site called;
} lt_question;

/* Sees every rule that ran, with its results in v->dx. Of a function of the host's that is not
 * repeatable: in its place, with none. */
typedef struct lt_observer {
  void (*seen)(struct lt_observer *o, lt_vjp *v);
} lt_observer;

/* The walk of a gradient once more, for the observer. Uses nothing up. (tape/gradient.c) */
lt_status lt_walk_again(const lt_question *q, lt_observer *observer);

/* Looks at the gradients; what is found is noted on the tape. NaN and Inf always, zeros the first
 * time for each source. Never fails: then there is nothing to tell. */
void lt_diagnose(const lt_question *q, lt_tensor *const *gradients);

/* What is noted, or NULL. It lives as long as the tape remembers it. */
const lt_finding *lt_finding_of(const lt_tape *tape, uint64_t target, uint64_t source);
void lt_findings_forget(lt_tape *tape);
void lt_told_free(lt_context *ctx);

#endif
