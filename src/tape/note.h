/* What a function reads from outside: the values of open tapes that the ops it runs take in. The
 * first run of a checkpoint is not recorded but noted, so that its one node has all its inputs,
 * variables and captured tensors too. */
#ifndef LT_TAPE_NOTE_H
#define LT_TAPE_NOTE_H

#include "tape/tape.h"

typedef struct lt_noting {
  lt_context *ctx;
  uint64_t first_id;  /* younger values were made inside */
  uint64_t listening; /* the tapes that would record */
  lt_ids seen;
  lt_tensor **inputs; /* in the order of first use */
  int64_t count, capacity;
  struct lt_noting *outer;
} lt_noting;

/* From here on nothing is recorded, but noted. They nest. */
void lt_note_begin(lt_noting *n, lt_context *ctx);
/* Goes back to recording; the inputs stay. */
void lt_note_end(lt_noting *n);
void lt_note_free(lt_noting *n);
/* Called when an op has run. */
lt_status lt_note(lt_noting *n, const lt_call *c);

#endif
