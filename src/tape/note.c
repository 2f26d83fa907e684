/* Noting which recorded values a function reads. */
#include "tape/note.h"

#include <stdlib.h>

void lt_note_begin(lt_noting *n, lt_context *ctx) {
  *n = (lt_noting){.ctx = ctx,
                   .first_id = ctx->next_id,
                   .listening = ctx->listening | (ctx->noting ? ctx->noting->listening : 0),
                   .outer = ctx->noting};
  ctx->noting = n;
  ctx->listening = 0;
}

void lt_note_end(lt_noting *n) {
  n->ctx->noting = n->outer;
  n->ctx->listening = n->outer ? 0 : n->listening & n->ctx->open;
}

void lt_note_free(lt_noting *n) {
  for (int64_t i = 0; i < n->count; i++) lt_tensor_release(n->inputs[i]);
  free(n->inputs);
  lt_ids_clear(&n->seen);
}

static bool is_recorded(const lt_noting *n, const lt_tensor *t) {
  for (uint64_t left = n->listening & n->ctx->open; left; left &= left - 1) {
    if (lt_tape_connects(n->ctx->tapes[__builtin_ctzll(left)], t)) return true;
  }
  return false;
}

lt_status lt_note(lt_noting *n, const lt_call *c) {
  for (int i = 0; i < c->inputs && !n->ctx->no_grad; i++) {
    lt_tensor *t = c->in[i];
    if (!t || t->id >= n->first_id || lt_ids_has(&n->seen, t->id) || !is_recorded(n, t)) continue;
    if (n->count == n->capacity) {
      int64_t grown = n->capacity ? 2 * n->capacity : 16;
      lt_tensor **more = realloc(n->inputs, (size_t)grown * sizeof *more);
      if (!more) return lt_fail_memory(n->ctx, grown * (int64_t)sizeof *more);
      n->inputs = more;
      n->capacity = grown;
    }
    LT_TRY(lt_ids_add(n->ctx, &n->seen, t->id));
    n->inputs[n->count++] = lt_tensor_retain(t);
  }
  return n->outer ? lt_note(n->outer, c) : LT_OK;
}
