/* Memory: 64-byte aligned blocks with a reference count, kept in free lists by size class when
 * nobody holds them. A fresh page costs more than most kernels, so reuse is everything. */
#ifndef LT_CORE_BLOCK_H
#define LT_CORE_BLOCK_H

#include "core/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A call site: the user's chunk (an index into the context's list of chunk names) and line. */
typedef struct lt_site {
  uint32_t chunk; /* 0: unknown */
  int32_t line;   /* negative: of the frame below one that a tail call took away */
} lt_site;

typedef void (*lt_release_fn)(void *userdata, void *data);

typedef struct lt_block {
  lt_context *ctx;
  void *data;       /* 64-byte aligned, except memory of the host's */
  int64_t capacity; /* bytes */
  int32_t refs;
  uint32_t version;       /* counts writes in place */
  lt_site writer;         /* of the last of them */
  bool wrapped;           /* memory of the host's */
  lt_release_fn release;  /* for it, or NULL */
  void *release_userdata; /* its first argument */
  struct lt_block *next;  /* in the free list */
} lt_block;

/* Free blocks by size class: four classes to each power of two, so at most a fifth is wasted. */
enum { LT_POOL_CLASSES = 4 * 48 };

typedef struct lt_pool {
  lt_block *free[LT_POOL_CLASSES];
  int64_t live;   /* bytes in blocks that somebody holds */
  int64_t peak;   /* the highest `live` so far */
  int64_t pooled; /* bytes in the free lists */
  int64_t grown;  /* bytes handed out since the collector was last asked to run */
} lt_pool;

/* A block of at least `bytes`, contents undefined, one reference held by the caller. */
lt_status lt_block_new(lt_context *ctx, int64_t bytes, lt_block **block);

/* Wraps memory of the host's; `release` (may be NULL) runs when the last reference goes. */
lt_status lt_block_wrap(lt_context *ctx, void *data, int64_t bytes, lt_release_fn release,
                        void *userdata, lt_block **block);

static inline lt_block *lt_block_retain(lt_block *b) {
  b->refs++;
  return b;
}
void lt_block_release(lt_block *b);

/* Gives the free lists back to the system. */
void lt_pool_trim(lt_pool *pool);

#endif
