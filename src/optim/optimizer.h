/* An optimizer: the variables it has seen, their states, groups of options, and the one call that
 * moves all variables of a step. Either every variable moves or none does. */
#ifndef LT_OPTIM_OPTIMIZER_H
#define LT_OPTIM_OPTIMIZER_H

#include "core/tensor.h"
#include "optim/rule.h"

/* A variable and what the rule keeps of it. */
typedef struct lt_slot {
  lt_tensor *p;
  char *label;                      /* for messages, when the variable has no name */
  lt_tensor *state[LT_RULE_STATES]; /* NULL until the first step that needs it */
  int64_t step;                     /* updates so far */
  int32_t group;
  bool told; /* that it had no gradient */
  /* during a step */
  lt_tensor *g;              /* the gradient given, then contiguous; sparse ones: coalesced */
  int64_t first;             /* number of its first chunk */
  double squares;            /* the gradient's, summed */
  double k[LT_RULE_NUMBERS]; /* factors; those of the last step stay */
} lt_slot;

typedef struct lt_optimizer {
  lt_context *ctx;
  const lt_rule *rule;
  int64_t step; /* steps so far */
  /* clipping of the gradients, by value or by norm, as Keras does it; 0 for none */
  double clip_value, clip_norm, global_clip_norm;
  bool apply_nonfinite; /* do not look for NaN and Inf */
  double (*group)[LT_RULE_WORDS];
  int32_t groups;
  lt_slot *slot;
  int64_t slots, capacity;
  int64_t *active; /* slots that have a gradient in this step; room for `capacity` */
  int64_t actives;
  double *sums; /* of squares, of each chunk of a step */
  int64_t sums_capacity;
} lt_optimizer;

lt_status lt_optimizer_new(lt_context *ctx, const lt_rule *rule, lt_optimizer **result);
void lt_optimizer_free(lt_optimizer *o);

/* Sets the options of a group; group number o->groups is a new one. `values` as in lt_rule. */
lt_status lt_optimizer_set_group(lt_optimizer *o, int32_t group, const double *values);

/* Takes in a variable: a contiguous float tensor. Fails for one that it has. */
lt_status lt_optimizer_add(lt_optimizer *o, lt_tensor *p, int32_t group, const char *label);

/* "'dense.weight' (3x4)" */
enum { LT_LABEL_TEXT = 256 };
const char *lt_slot_text(const lt_slot *s, char text[LT_LABEL_TEXT]);

/* A step: begin, give the gradients there are, run. */
void lt_optimizer_begin(lt_optimizer *o);
lt_status lt_optimizer_give(lt_optimizer *o, int64_t slot, lt_tensor *gradient);

/* Moves every variable that was given a gradient, in one pass that reads and writes each number
 * once, after one pass over the gradients that looks for NaN and Inf. If there are any, nothing
 * moves, *bad is their slot and *bad_count their number; otherwise *bad is -1. While it runs,
 * denormal numbers count as zero: they would make it many times slower, and moments decay into
 * them. Same bits for any number of threads. A sparse gradient (core/rows.h) moves its rows only:
 * the others, and their states, are neither read nor written. */
lt_status lt_optimizer_run(lt_optimizer *o, int64_t *bad, int64_t *bad_count);

/* By how much the last step moved the slot's variable, which was given `gradient`: the norm of
 * the update, found by taking the same step again beside the variable; and the variable's own.
 * NaN when there was no step. */
lt_status lt_slot_moved(const lt_optimizer *o, const lt_slot *s, lt_tensor *gradient,
                        double *update, double *weight);

/* The state tensor number i of a slot, made of zeros if it is not there yet. */
lt_status lt_slot_state(lt_optimizer *o, lt_slot *s, int i);

#endif
