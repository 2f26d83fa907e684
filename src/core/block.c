/* The pool of blocks. Header and data are one allocation: 128 bytes before the data. */
#include "core/block.h"
#include "core/context.h"

#include <stdlib.h>

enum { HEADER = 128, SMALLEST = 64 };
_Static_assert(sizeof(lt_block) <= HEADER, "the header fits in front of the data");

/* Freed memory that is kept: as much as is live, and at least this much. */
static const int64_t KEPT_AT_LEAST = (int64_t)48 << 20;

/* Classes are 64, 80, 96, 112, 128, 160, 192, 224, 256, ... bytes. */
static int size_class(int64_t bytes, int64_t *rounded) {
  if (bytes <= SMALLEST) {
    *rounded = SMALLEST;
    return 0;
  }
  int log = 63 - __builtin_clzll((unsigned long long)(bytes - 1)); /* 2^log < bytes <= 2^(log+1) */
  int64_t quarter = (int64_t)1 << (log - 2);
  int64_t step = (bytes - ((int64_t)1 << log) + quarter - 1) / quarter; /* 1..4 */
  *rounded = ((int64_t)1 << log) + step * quarter;
  return 4 * (log - 6) + (int)step;
}

static void count(lt_pool *pool, int64_t bytes) {
  pool->live += bytes;
  pool->grown += bytes;
  if (pool->live > pool->peak) pool->peak = pool->live;
}

lt_status lt_block_new(lt_context *ctx, int64_t bytes, lt_block **block) {
  lt_pool *pool = &ctx->pool;
  int64_t rounded;
  if (bytes > ctx->memory_limit) {
    return lt_fail(ctx, "a tensor of %.3g GB asks for more memory than this machine has (%.3g GB)",
                   (double)bytes / 1e9, (double)ctx->memory_limit / 1e9);
  }
  int class = size_class(bytes, &rounded);
  lt_block *b = pool->free[class];
  if (b) {
    pool->free[class] = b->next;
    pool->pooled -= rounded;
  } else {
    size_t total = ((size_t)rounded + HEADER + 63) / 64 * 64;
    b = aligned_alloc(64, total);
    if (!b) {
      lt_pool_trim(pool);
      b = aligned_alloc(64, total);
      if (!b) return lt_fail_memory(ctx, bytes);
    }
    b->ctx = ctx;
    b->data = (char *)b + HEADER;
    b->capacity = rounded;
    b->wrapped = false;
    b->release = NULL;
    b->release_userdata = NULL;
  }
  b->refs = 1;
  b->version = 0;
  b->writer = (lt_site){0, 0};
  b->next = NULL;
  count(pool, rounded);
  *block = b;
  return LT_OK;
}

lt_status lt_block_wrap(lt_context *ctx, void *data, int64_t bytes, lt_release_fn release,
                        void *userdata, lt_block **block) {
  lt_block *b = malloc(sizeof *b);
  if (!b) return lt_fail_memory(ctx, sizeof *b);
  *b = (lt_block){.ctx = ctx,
                  .data = data,
                  .capacity = bytes,
                  .refs = 1,
                  .wrapped = true,
                  .release = release,
                  .release_userdata = userdata};
  *block = b;
  return LT_OK;
}

void lt_block_release(lt_block *b) {
  if (--b->refs > 0) return;
  if (b->wrapped) {
    if (b->release) b->release(b->release_userdata, b->data);
    free(b);
    return;
  }
  lt_pool *pool = &b->ctx->pool;
  pool->live -= b->capacity;
  int64_t kept = pool->live > KEPT_AT_LEAST ? pool->live : KEPT_AT_LEAST;
  if (pool->pooled + b->capacity > kept) {
    free(b);
    return;
  }
  int64_t rounded;
  int class = size_class(b->capacity, &rounded);
  b->next = pool->free[class];
  pool->free[class] = b;
  pool->pooled += b->capacity;
}

void lt_pool_trim(lt_pool *pool) {
  for (int i = 0; i < LT_POOL_CLASSES; i++) {
    lt_block *next;
    for (lt_block *b = pool->free[i]; b; b = next) {
      next = b->next;
      free(b);
    }
    pool->free[i] = NULL;
  }
  pool->pooled = 0;
}
