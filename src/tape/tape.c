/* The life of a tape: opening, watching, recording, closing. */
#include "tape/tape.h"
#include "tape/diagnose.h"

#include <stdlib.h>
#include <string.h>

/* ---- Sets of ids ------------------------------------------------------------------------ */

static int64_t slot_of(const lt_ids *set, uint64_t id) {
  uint64_t mask = (uint64_t)set->capacity - 1, i = id * 0x9E3779B97F4A7C15u >> 32 & mask;
  while (set->slot[i] && set->slot[i] != id) i = (i + 1) & mask;
  return (int64_t)i;
}

bool lt_ids_has(const lt_ids *set, uint64_t id) {
  return set->count > 0 && id != 0 && set->slot[slot_of(set, id)] == id;
}

lt_status lt_ids_add(lt_context *ctx, lt_ids *set, uint64_t id) {
  if (2 * (set->count + 1) > set->capacity) {
    lt_ids grown = {.capacity = set->capacity ? 2 * set->capacity : 16};
    grown.slot = calloc((size_t)grown.capacity, sizeof *grown.slot);
    if (!grown.slot) return lt_fail_memory(ctx, grown.capacity * (int64_t)sizeof *grown.slot);
    for (int64_t i = 0; i < set->capacity; i++) {
      if (set->slot[i]) grown.slot[slot_of(&grown, set->slot[i])] = set->slot[i];
    }
    grown.count = set->count;
    free(set->slot);
    *set = grown;
  }
  int64_t i = slot_of(set, id);
  if (set->slot[i] != id) {
    set->slot[i] = id;
    set->count++;
  }
  return LT_OK;
}

void lt_ids_clear(lt_ids *set) {
  free(set->slot);
  *set = (lt_ids){0};
}

/* ---- Opening and closing ---------------------------------------------------------------- */

lt_status lt_tape_new(lt_context *ctx, bool persistent, bool watch_variables, lt_tape **result) {
  if (ctx->open == UINT64_MAX) {
    return lt_fail(ctx, "tape: %d tapes are open; close them (local tape <close> = lt.tape())",
                   LT_MAX_TAPES);
  }
  lt_tape *t = calloc(1, sizeof *t);
  if (!t) return lt_fail_memory(ctx, sizeof *t);
  t->ctx = ctx;
  t->refs = 1;
  t->slot = __builtin_ctzll(~ctx->open);
  t->persistent = persistent;
  t->watch_variables = watch_variables;
  t->listening = true;
  if (!ctx->open) ctx->readings_since = ctx->next_id;
  t->number = ctx->next_number++;
  t->depth = ctx->vmaps;
  t->opened_id = t->first_id = ctx->next_id;
  t->left_id = UINT64_MAX;
  t->opened = lt_current_site(ctx);
  uint64_t bit = (uint64_t)1 << t->slot;
  ctx->tapes[t->slot] = t;
  ctx->open |= bit;
  ctx->listening |= bit;
  *result = t;
  return LT_OK;
}

/* Gives the slot back: nothing is recorded any more. */
static void leave(lt_tape *t) {
  if (t->slot < 0) return;
  uint64_t bit = (uint64_t)1 << t->slot;
  t->ctx->open &= ~bit;
  t->ctx->listening &= ~bit;
  t->ctx->tapes[t->slot] = NULL;
  t->slot = -1;
  t->left_id = t->ctx->next_id;
  t->listening = false;
}

static void let_values_go(lt_tape *t) {
  for (int64_t i = 0; i < t->count; i++) lt_node_let_go(t->nodes[i]);
}

static void forget(lt_tape *t) {
  for (int64_t i = 0; i < t->count; i++) lt_node_release(t->ctx, t->nodes[i]);
  t->count = 0;
  for (int64_t i = 0; i < t->variable_count; i++) lt_tensor_release(t->variables[i]);
  t->variable_count = 0;
  lt_findings_forget(t);
  lt_ids_clear(&t->variable_ids);
}

void lt_tape_consume(lt_tape *t) {
  if (t->consumed || t->closed) return;
  t->consumed = true;
  t->consumed_at = lt_current_site(t->ctx);
  leave(t);
}

void lt_tape_close(lt_tape *t) {
  leave(t);
  t->closed = true;
  if (!t->walking) lt_tape_spend(t); /* a walk ends with it */
}

void lt_tape_spend(lt_tape *t) {
  if (!t->spent) let_values_go(t);
  t->spent = true;
}

void lt_tape_release(lt_tape *t) {
  if (--t->refs > 0) return;
  lt_tape_close(t);
  forget(t);
  lt_ids_clear(&t->watched);
  free(t->watches);
  free(t->nodes);
  free(t->variables);
  free(t->noted);
  free(t);
}

lt_status lt_tape_check(lt_tape *t, const char *what) {
  lt_context *ctx = t->ctx;
  char at[LT_SITE_TEXT];
  if (t->closed) return lt_fail(ctx, "%s: the tape is closed", what);
  if (t->walking) return lt_fail(ctx, "%s: the tape is being walked already", what);
  if (t->consumed) {
    return lt_fail(ctx,
                   "%s: the tape was used up at %s; open it with lt.tape{persistent = true} to "
                   "ask more than once [consumed]",
                   what, lt_site_text(ctx, t->consumed_at, at));
  }
  return LT_OK;
}

void lt_tape_stop(lt_tape *t) {
  if (t->slot < 0 || !t->listening) return;
  t->listening = false;
  t->stopped_at = lt_current_site(t->ctx);
  t->ctx->listening &= ~((uint64_t)1 << t->slot);
}

lt_status lt_tape_resume(lt_tape *t) {
  if (t->slot < 0 || !t->walking) LT_TRY(lt_tape_check(t, "resume"));
  t->listening = true;
  t->ctx->listening |= (uint64_t)1 << t->slot;
  return LT_OK;
}

lt_status lt_tape_reset(lt_tape *t) {
  LT_TRY(lt_tape_check(t, "reset"));
  let_values_go(t);
  forget(t);
  t->first_id = t->ctx->next_id;
  t->reset_at = lt_current_site(t->ctx);
  return LT_OK;
}

/* ---- Watching and recording ------------------------------------------------------------- */

/* Makes room for one more element. */
static lt_status reserve(lt_context *ctx, void **list, int64_t count, int64_t *capacity,
                         size_t size) {
  if (count < *capacity) return LT_OK;
  int64_t grown = *capacity ? 2 * *capacity : 32;
  void *bigger = realloc(*list, (size_t)grown * size);
  if (!bigger) return lt_fail_memory(ctx, grown * (int64_t)size);
  *list = bigger;
  *capacity = grown;
  return LT_OK;
}

lt_status lt_tape_watch(lt_tape *t, const lt_tensor *x) {
  LT_TRY(lt_tape_check(t, "watch"));
  if (!lt_dtype_is_float((lt_dtype)x->dtype)) {
    return lt_fail(t->ctx, "watch: %s is %s; only float32 and float64 have gradients [int-dtype]",
                   x->name ? x->name : "the tensor", lt_dtype_name((lt_dtype)x->dtype));
  }
  if (lt_ids_has(&t->watched, x->id)) return LT_OK;
  LT_TRY(reserve(t->ctx, (void **)&t->watches, t->watch_count, &t->watch_capacity,
                 sizeof *t->watches));
  t->watches[t->watch_count++] = (lt_watch){x->id, t->ctx->next_id, lt_current_site(t->ctx)};
  return lt_ids_add(t->ctx, &t->watched, x->id);
}

bool lt_tape_connects(const lt_tape *t, const lt_tensor *x) {
  if ((x->tapes >> t->slot & 1) && x->id >= t->first_id) return true;
  if (x->variable && x->trainable && t->watch_variables) return true;
  return lt_ids_has(&t->watched, x->id);
}

bool lt_tape_knows(const lt_tape *t, const lt_tensor *x) {
  return (x->variable && x->trainable && t->watch_variables) || lt_ids_has(&t->watched, x->id) ||
         lt_tape_find(t, x->id);
}

lt_status lt_tape_append(lt_tape *t, lt_node *n) {
  LT_TRY(reserve(t->ctx, (void **)&t->nodes, t->count, &t->capacity, sizeof *t->nodes));
  t->nodes[t->count++] = lt_node_retain(n);
  return LT_OK;
}

lt_status lt_tape_note_variable(lt_tape *t, lt_tensor *x) {
  if (!x->trainable || lt_ids_has(&t->variable_ids, x->id)) return LT_OK;
  LT_TRY(reserve(t->ctx, (void **)&t->variables, t->variable_count, &t->variable_capacity,
                 sizeof *t->variables));
  LT_TRY(lt_ids_add(t->ctx, &t->variable_ids, x->id));
  t->variables[t->variable_count++] = lt_tensor_retain(x);
  return LT_OK;
}

int64_t lt_tape_index(const lt_tape *t, uint64_t id) {
  int64_t low = 0, high = t->count;
  while (low < high) {
    int64_t middle = (low + high) / 2;
    if (lt_node_out(t->nodes[middle], 0)->id <= id)
      low = middle + 1;
    else
      high = middle;
  }
  if (low == 0) return -1;
  lt_node *n = t->nodes[low - 1];
  return id - lt_node_out(n, 0)->id < (uint64_t)n->outputs ? low - 1 : -1;
}

lt_node *lt_tape_find(const lt_tape *t, uint64_t id) {
  int64_t k = lt_tape_index(t, id);
  return k < 0 ? NULL : t->nodes[k];
}
