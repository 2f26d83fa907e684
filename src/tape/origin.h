/* Where a NaN or Inf comes from: the first value that is not finite although all that it was made
 * of is, or the first rule of the backward walk that made one of finite gradients. */
#ifndef LT_TAPE_ORIGIN_H
#define LT_TAPE_ORIGIN_H

#include "tape/diagnose.h"
#include "tape/replay.h"

/* What a rule did to the gradient of one input. */
typedef struct lt_event {
  lt_node *node;
  int input;
  uint64_t id;              /* of that input */
  int64_t arrived;          /* elements of the incoming gradient that are not 0 */
  bool blind;               /* the rule is a function that was not called again */
  struct lt_finding *inner; /* what was found inside a function that was */
  bool sum;                 /* the incoming gradient, a sum of finite ones, is not finite itself */
  bool exact;     /* `at` is a place of the op's result, which is made element by element */
  lt_shape shape; /* in which `at` counts */
  int64_t at;     /* the first element that is not finite, -1 for none */
  double made;    /* what the rule made there */
  double dy;      /* of `exact`: what had arrived there */
  uint64_t read;  /* a value that the rule read, and that is not finite; 0 for none */
} lt_event;

/* Fills in an event whose rule has just run, from shape on. */
void lt_event_locate(lt_event *e, lt_vjp *v);

/* The first node after n that its results lead to and for which `is` holds, or NULL. */
lt_node *lt_node_after(const lt_tape *tape, lt_node *n, bool (*is)(const lt_op *op));
/* Is it known to turn gradients into zeros? */
bool lt_op_zeroes(const lt_op *op);

/* Fills in f but for the code, and what is to be said after the first line. e NULL: no rule made
 * it. */
void lt_tell_nonfinite(const lt_question *q, const lt_event *e, lt_values *values, lt_finding *f,
                       char *text, size_t room);

#endif
