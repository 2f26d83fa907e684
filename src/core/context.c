/* Opening and closing a context, failure messages, call sites. */
#define _POSIX_C_SOURCE 200809L
#include "core/context.h"
#include "tape/diagnose.h"
#include "tape/node.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef LT_WITHOUT_PROVENANCE /* built to measure what it costs */
enum { HISTORY_LIMIT = 0 };
#else
enum { HISTORY_LIMIT = 65536 };
#endif
enum { CHUNKS_LIMIT = 65536 };

/* Below this much work a second thread costs more than it brings. */
static const int64_t OPERATIONS_PER_THREAD = 1 << 18;

lt_status lt_context_new(lt_context **result) {
  lt_context *ctx = calloc(1, sizeof *ctx);
  if (!ctx) return LT_NO_MEMORY;
  ctx->simd = lt_simd_detect();
  ctx->threads = lt_cpu_count();
  ctx->process = (long)getpid();
  ctx->memory_limit = (int64_t)sysconf(_SC_PHYS_PAGES) * (int64_t)sysconf(_SC_PAGESIZE);
  if (ctx->memory_limit <= 0) ctx->memory_limit = (int64_t)1 << 48;
  ctx->default_dtype = LT_FLOAT32;
  ctx->next_id = ctx->next_number = 1;
  ctx->history.limit = HISTORY_LIMIT;
  *result = ctx;
  return LT_OK;
}

void lt_context_free(lt_context *ctx) {
  lt_history_clear(ctx);
  free(ctx->history.nodes);
  free(ctx->readings);
  lt_told_free(ctx);
  for (uint32_t i = 0; i < ctx->chunks.count; i++) free(ctx->chunks.names[i]);
  free(ctx->chunks.names);
  free(ctx->chunks.slot);
  free(ctx->lapack);
  lt_pool_trim(&ctx->pool);
  lt_spare_free(&ctx->spare);
  free(ctx);
}

lt_status lt_fail(lt_context *ctx, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(ctx->message, sizeof ctx->message, format, arguments);
  va_end(arguments);
  return LT_ERROR;
}

void lt_fail_as(lt_context *ctx, const char *op) {
  char *text = ctx->message;
  size_t head = strspn(text, "abcdefghijklmnopqrstuvwxyz_0123456789"), name = strlen(op);
  bool named = head > 0 && strncmp(text + head, ": ", 2) == 0;
  if (named && strncmp(text, "vmap", head) == 0) return; /* of the transform, not the op */
  size_t from = named ? head + 2 : 0, length = strlen(text + from), room = LT_MESSAGE - name - 3;
  if (length > room) length = room;
  memmove(text + name + 2, text + from, length);
  memcpy(text, op, name);
  memcpy(text + name, ": ", 2);
  text[name + 2 + length] = '\0';
}

lt_status lt_fail_memory(lt_context *ctx, long long bytes) {
  snprintf(ctx->message, sizeof ctx->message, "not enough memory for %lld bytes", bytes);
  return LT_NO_MEMORY;
}

const char *lt_message(const lt_context *ctx) { return ctx->message; }

lt_status lt_check_interrupt(lt_context *ctx) {
  if (!ctx->interrupted) return LT_OK;
  ctx->interrupted = 0;
  lt_fail(ctx, "interrupted!");
  return LT_INTERRUPTED;
}

int lt_threads_for(const lt_context *ctx, int64_t operations) {
  int64_t most = operations / OPERATIONS_PER_THREAD;
  if (ctx->threads <= 1 || most <= 1) return 1;
  if ((long)getpid() != ctx->process) return 1;
  return most < ctx->threads ? (int)most : ctx->threads;
}

/* Where the name is, or could be put. */
static uint32_t slot_of(const lt_chunks *c, const char *name) {
  uint32_t hash = 2166136261u, mask = 2 * c->capacity - 1; /* FNV-1a */
  for (const char *p = name; *p; p++) hash = (hash ^ (unsigned char)*p) * 16777619u;
  hash &= mask;
  while (c->slot[hash] && strcmp(c->names[c->slot[hash] - 1], name) != 0) hash = (hash + 1) & mask;
  return hash;
}

static bool grow_chunks(lt_chunks *c) {
  lt_chunks grown = *c;
  grown.capacity = c->capacity ? 2 * c->capacity : 8;
  grown.slot = calloc(2 * (size_t)grown.capacity, sizeof *grown.slot);
  if (!grown.slot) return false;
  grown.names = realloc(c->names, grown.capacity * sizeof *grown.names);
  if (!grown.names) {
    free(grown.slot);
    return false;
  }
  for (uint32_t i = 0; i < c->count; i++) grown.slot[slot_of(&grown, grown.names[i])] = i + 1;
  free(c->slot);
  *c = grown;
  return true;
}

uint32_t lt_chunk_number(lt_context *ctx, const char *name) {
  lt_chunks *c = &ctx->chunks;
  if (c->last && strcmp(c->names[c->last - 1], name) == 0) return c->last;
  uint32_t found = c->capacity ? c->slot[slot_of(c, name)] : 0;
  if (found) return c->last = found;
  if (c->count == CHUNKS_LIMIT || (c->count == c->capacity && !grow_chunks(c))) return 0;
  char *copy = strdup(name);
  if (!copy) return 0;
  c->names[c->count++] = copy;
  c->slot[slot_of(c, name)] = c->count;
  return c->last = c->count;
}

const char *lt_site_text(const lt_context *ctx, lt_site site, char text[LT_SITE_TEXT]) {
  if (site.chunk == 0) return strcpy(text, "?");
  const char *name = ctx->chunks.names[site.chunk - 1];
  if (site.line > 0)
    snprintf(text, LT_SITE_TEXT, "%s:%d", name, (int)site.line);
  else
    snprintf(text, LT_SITE_TEXT, "%s:%d (in a tail call)", name, -(int)site.line);
  return text;
}

lt_site lt_current_site(lt_context *ctx) {
#ifdef LT_WITHOUT_PROVENANCE
  return (lt_site){0, 0};
#endif
  if (ctx->has_site) return ctx->site;
  return ctx->find_site ? ctx->find_site(ctx->host) : (lt_site){0, 0};
}
