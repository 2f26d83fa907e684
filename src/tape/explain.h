/* Why a source has no gradient: reads the recorded nodes and the light ones around them. */
#ifndef LT_TAPE_EXPLAIN_H
#define LT_TAPE_EXPLAIN_H

#include "tape/tape.h"

enum { LT_MAX_CUTS = 32, LT_WHY_TEXT = 1024 };

/* One place where a path from the source to the target is cut. */
typedef struct lt_cut {
  const char *code; /* "outside-tape", "stopped", ... */
  lt_site where;
  const char *op;
} lt_cut;

typedef struct lt_why {
  const char *code; /* of the cut nearest to the target; "ok" and "partial" when connected */
  lt_site where;
  const char *op;
  double paths; /* from the target to the source, when connected */
  int cuts;     /* nearest to the target first */
  lt_cut cut[LT_MAX_CUTS];
  const struct lt_finding
      *finding; /* what was found out about a gradient that was taken, or NULL */
  char message[LT_WHY_TEXT];
} lt_why;

/* Works on open, used up and closed tapes. */
lt_status lt_explain(lt_tape *tape, int targets, lt_tensor *const *target, lt_tensor *source,
                     lt_why *why);

#endif
