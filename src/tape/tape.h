/* The gradient tape, as TensorFlow's: it records the operations on watched values, and walks
 * them backwards once (persistent: as often as asked). */
#ifndef LT_TAPE_TAPE_H
#define LT_TAPE_TAPE_H

#include "tape/node.h"

/* A set of value ids. */
typedef struct lt_ids {
  uint64_t *slot; /* open addressing, 0 is empty */
  int64_t count, capacity;
} lt_ids;

bool lt_ids_has(const lt_ids *set, uint64_t id);
lt_status lt_ids_add(lt_context *ctx, lt_ids *set, uint64_t id);
void lt_ids_clear(lt_ids *set);

/* A value given to lt_tape_watch, where, and how old ids were then. */
typedef struct lt_watch {
  uint64_t id, at;
  lt_site site;
} lt_watch;

/* What was found out about a gradient of a target in a source (tape/diagnose.h). */
typedef struct lt_noted {
  uint64_t target, source;
  struct lt_finding *finding;
} lt_noted;

typedef struct lt_tape {
  lt_context *ctx;
  int32_t refs;
  int slot;        /* among the context's open tapes; -1 once closed */
  uint64_t number; /* grows with each tape opened */
  int depth;       /* vmap calls that ran when it was opened */
  bool forward;    /* carries tangents along instead of keeping nodes */
  bool persistent, watch_variables, listening, walking;
  bool keep_inputs; /* all of them, so that ops can run again */
  bool held;        /* several walks make one gradient: none of them uses it up */
  bool consumed;    /* by its first gradient */
  bool spent;       /* the recorded values are gone */
  bool closed;
  uint64_t opened_id; /* values with smaller ids are older than the tape ... */
  uint64_t first_id;  /* ... or older than its last reset */
  uint64_t left_id;   /* ... or made since it was used up or closed; the largest while open */
  lt_site opened, consumed_at, reset_at, stopped_at;
  lt_node **nodes; /* in the order they ran */
  int64_t count, capacity;
  lt_ids watched;    /* values given to lt_tape_watch */
  lt_watch *watches; /* the same in order */
  int64_t watch_count, watch_capacity;
  lt_tensor **variables; /* trainable variables that were used, in the order of first use */
  int64_t variable_count, variable_capacity;
  lt_ids variable_ids;
  lt_noted *noted; /* gradients that are zero, NaN or Inf */
  int64_t noted_count, noted_capacity;
  bool found; /* the last gradient was the first of its kind among them */
} lt_tape;

lt_status lt_tape_new(lt_context *ctx, bool persistent, bool watch_variables, lt_tape **tape);
void lt_tape_release(lt_tape *tape);

/* Fails for tensors that are not floats. */
lt_status lt_tape_watch(lt_tape *tape, const lt_tensor *t);
void lt_tape_stop(lt_tape *tape);
lt_status lt_tape_resume(lt_tape *tape);
/* Forgets all that was recorded; recording goes on. */
lt_status lt_tape_reset(lt_tape *tape);
/* Ends recording and drops the values that only this tape held. Idempotent. */
void lt_tape_close(lt_tape *tape);

/* The two halves of using up: no more recording; then the values go. */
void lt_tape_consume(lt_tape *tape);
void lt_tape_spend(lt_tape *tape);

/* Does a change of t reach what this tape records? */
bool lt_tape_connects(const lt_tape *tape, const lt_tensor *t);
/* May t be a source: did someone watch it, or does the tape know how it was made? */
bool lt_tape_knows(const lt_tape *tape, const lt_tensor *t);
lt_status lt_tape_append(lt_tape *tape, lt_node *node);
lt_status lt_tape_note_variable(lt_tape *tape, lt_tensor *t);
/* The place of the recorded node that made value `id`, or -1. */
int64_t lt_tape_index(const lt_tape *tape, uint64_t id);
/* The recorded node that made value `id`, or NULL. */
lt_node *lt_tape_find(const lt_tape *tape, uint64_t id);

/* d sum_k <target_k, seed_k> / d source_i. seeds NULL, or a seed NULL, means ones. gradients[i]
 * is a new reference, or NULL where no path leads from a target to the source. The tape is used
 * up afterwards unless it is persistent. */
lt_status lt_tape_gradient(lt_tape *tape, int targets, lt_tensor *const *target,
                           lt_tensor *const *seeds, int sources, lt_tensor *const *source,
                           lt_tensor **gradients);

/* Errors that gradient, jacobian and the like share: closed or used up. `what` is the call. */
lt_status lt_tape_check(lt_tape *tape, const char *what);

#endif
