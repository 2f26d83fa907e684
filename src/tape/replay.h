/* Values of a tape once more: what nodes saved, and, from that, what they did not save. */
#ifndef LT_TAPE_REPLAY_H
#define LT_TAPE_REPLAY_H

#include "tape/tape.h"

typedef struct lt_value {
  uint64_t id;  /* 0: empty */
  lt_tensor *t; /* NULL: cannot be known */
} lt_value;

typedef struct lt_values {
  lt_tape *tape;
  lt_value *slot; /* open addressing */
  int64_t count, capacity;
  int64_t most; /* bytes that may be held while ops run again */
} lt_values;

/* Takes in what the tape still holds, and the given tensors. Nothing may be recording. */
lt_status lt_values_open(lt_values *v, lt_tape *tape, int count, lt_tensor *const *given);
/* Adds what is known; keeps a reference of its own. */
lt_status lt_values_add(lt_values *v, uint64_t id, lt_tensor *t);
void lt_values_close(lt_values *v);

/* The value, or NULL: it was not saved, and neither was what it was made of, or it was random. */
lt_tensor *lt_values_find(lt_values *v, uint64_t id);

#endif
