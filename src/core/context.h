/* All state of one engine hangs here: memory, random numbers, history, open tapes, settings.
 * One context belongs to one thread at a time; contexts share nothing. */
#ifndef LT_CORE_CONTEXT_H
#define LT_CORE_CONTEXT_H

#include "core/block.h"
#include "core/cpu.h"
#include "core/dtype.h"
#include "core/random.h"
#include "core/spare.h"
#include "core/status.h"

struct lt_lapack;
struct lt_node;
struct lt_op;
struct lt_reading;
struct lt_tape;
struct lt_told;

enum { LT_MESSAGE = 2048, LT_MAX_TAPES = 64, LT_MAX_VMAPS = 8 };

/* One lt.vmap call that is running. */
typedef struct lt_vmap {
  uint64_t number;
  int64_t size;  /* samples */
  bool fallback; /* ops without a batching rule run sample by sample */
  lt_site site;
} lt_vmap;

/* The last executed operations, oldest dropped first: what `explain` reads outside tapes. */
typedef struct lt_history {
  struct lt_node **nodes; /* ring; NULL until the first operation */
  int64_t capacity;       /* slots allocated, a power of two; grows up to `limit` */
  int64_t limit;
  int64_t count; /* nodes kept */
  int64_t total; /* nodes ever added: node k sits in slot k % capacity */
} lt_history;

/* Names of the user's chunks, as lt_site.chunk numbers them from 1. */
typedef struct lt_chunks {
  char **names;
  uint32_t *slot; /* numbers, by hash of the name; 0 is empty; twice the capacity */
  uint32_t count, capacity;
  uint32_t last; /* the one found last: most calls come from one file */
} lt_chunks;

struct lt_context {
  char message[LT_MESSAGE];
  lt_pool pool;
  lt_spare spare;
  lt_random random;
  lt_simd simd;
  int threads;
  long process;         /* pid at the start: a forked child has no threads to count on */
  int64_t memory_limit; /* bytes; no single block may be larger */
  lt_dtype default_dtype;
  uint64_t next_id;
  lt_history history;
  lt_chunks chunks;
  struct lt_tape *tapes[LT_MAX_TAPES]; /* open ones, by slot */
  uint64_t open;                       /* bit per slot in use */
  uint64_t listening;                  /* bit per slot: recording now */
  int no_grad;                         /* depth of lt.no_grad */
  uint64_t next_number;                /* of tapes and vmap calls, from 1 */
  lt_vmap vmap[LT_MAX_VMAPS];          /* running calls, the outermost first */
  int vmaps;
  bool wants_hidden;            /* during a batching rule whose op a tape records */
  struct lt_reading *readings;  /* numbers that left the tensors (tape/reading.h); NULL for none */
  uint64_t readings_since;      /* how old ids were when the first of the open tapes was opened */
  int walks;                    /* gradients being taken, each inside the last */
  lt_site gradient_site;        /* the call of the innermost */
  struct lt_noting *noting;     /* during the first run of a checkpoint */
  const struct lt_op *composed; /* the outermost op made of others that runs now */
  struct lt_told *told;         /* zero gradients explained (tape/diagnose.h); NULL for none */
  int diagnosing;               /* walks that run again to see what went wrong in them */
  volatile int interrupted;     /* set from signal handlers and other threads */
  /* Fills in the user's current call site; given by the host language. NULL: unknown. */
  lt_site (*find_site)(void *host);
  void *host;
  lt_site site; /* during a walk: the call site that backward operations inherit */
  bool has_site;
  struct lt_lapack *lapack; /* opened at the first op that needs it; one piece of memory */
};

lt_status lt_context_new(lt_context **ctx);
/* Every tensor and tape must have been released before. */
void lt_context_free(lt_context *ctx);

/* LT_INTERRUPTED, once, after the host asked for it; called between operations and tiles. */
lt_status lt_check_interrupt(lt_context *ctx);

/* Threads for work of about `operations` elementary steps: 1 for small work and in forked
 * children. Never changes results, only time. */
int lt_threads_for(const lt_context *ctx, int64_t operations);

/* The number of a chunk's name, adding it when it is new. 0 when memory is short, and for new ones
 * after the first 65,536: programs that never stop loading text do not grow. */
uint32_t lt_chunk_number(lt_context *ctx, const char *name);
/* "train.lua:11", "train.lua:11 (in a tail call)" for the frame below a lost one, "?" for an
 * unknown site. Returns `text`. */
enum { LT_SITE_TEXT = 96 };
const char *lt_site_text(const lt_context *ctx, lt_site site, char text[LT_SITE_TEXT]);

/* Where the user's program is now. */
lt_site lt_current_site(lt_context *ctx);

#endif
