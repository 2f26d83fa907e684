/* A value that no node saved is made again by the op that made it, from its inputs, and these
 * likewise. */
#include "tape/replay.h"

#include <stdlib.h>

enum { DEEPEST = 4096, ROOM = 64 << 20 };

static lt_value *place_of(const lt_values *v, uint64_t id) {
  uint64_t mask = (uint64_t)v->capacity - 1, i = id * 0x9E3779B97F4A7C15u >> 32 & mask;
  while (v->slot[i].id && v->slot[i].id != id) i = (i + 1) & mask;
  return &v->slot[i];
}

lt_status lt_values_add(lt_values *v, uint64_t id, lt_tensor *t) {
  if (2 * (v->count + 1) > v->capacity) {
    lt_values grown = *v;
    grown.capacity = v->capacity ? 2 * v->capacity : 64;
    grown.slot = calloc((size_t)grown.capacity, sizeof *grown.slot);
    if (!grown.slot) {
      return lt_fail_memory(v->tape->ctx, grown.capacity * (int64_t)sizeof *grown.slot);
    }
    for (int64_t i = 0; i < v->capacity; i++) {
      if (v->slot[i].id) *place_of(&grown, v->slot[i].id) = v->slot[i];
    }
    free(v->slot);
    *v = grown;
  }
  lt_value *place = place_of(v, id);
  if (place->id) return LT_OK;
  *place = (lt_value){id, t ? lt_tensor_retain(t) : NULL};
  v->count++;
  return LT_OK;
}

/* What was overwritten since is not what it was. */
static void drop_stale(lt_values *v) {
  for (int64_t k = 0; k < v->tape->count; k++) {
    lt_node *n = v->tape->nodes[k];
    for (int i = 0; i < n->inputs; i++) {
      const lt_edge *e = lt_node_in(n, i);
      lt_value *known = e->id ? place_of(v, e->id) : NULL;
      if (!known || !known->t || known->t->block->version == e->version) continue;
      lt_tensor_release(known->t);
      known->t = NULL;
    }
  }
}

lt_status lt_values_open(lt_values *v, lt_tape *tape, int count, lt_tensor *const *given) {
  const lt_pool *pool = &tape->ctx->pool;
  *v =
      (lt_values){.tape = tape, .most = (pool->peak > pool->live ? pool->peak : pool->live) + ROOM};
  LT_TRY(lt_values_add(v, UINT64_MAX, NULL)); /* never empty */
  for (int i = 0; i < count; i++) LT_TRY(lt_values_add(v, given[i]->id, given[i]));
  for (int64_t i = 0; i < tape->variable_count; i++) {
    LT_TRY(lt_values_add(v, tape->variables[i]->id, tape->variables[i]));
  }
  for (int64_t k = 0; k < tape->count; k++) {
    const lt_node *n = tape->nodes[k];
    for (int i = 0; i < n->inputs + n->outputs; i++) {
      const lt_edge *e = &n->edge[i];
      if (!e->saved || e->saved->block->version != e->version) continue;
      if (e->id) LT_TRY(lt_values_add(v, e->id, e->saved));
    }
  }
  drop_stale(v);
  return LT_OK;
}

void lt_values_close(lt_values *v) {
  for (int64_t i = 0; i < v->capacity; i++) lt_tensor_release(v->slot[i].t);
  free(v->slot);
  *v = (lt_values){0};
}

/* Runs a node's op again on known inputs. Random ones would give other numbers. */
static void run_again(lt_values *v, lt_node *n) {
  lt_context *ctx = v->tape->ctx;
  if (ctx->pool.live > v->most) return;
  lt_tensor **in = malloc((size_t)(n->inputs + 1) * sizeof *in), *out[LT_MAX_OUTPUTS];
  if (!in) return;
  for (int i = 0; i < n->inputs; i++) {
    uint64_t id = lt_node_in(n, i)->id;
    in[i] = id ? place_of(v, id)->t : NULL;
  }
  lt_attrs attrs;
  lt_node_attrs(n, &attrs);
  lt_random before = ctx->random;
  int outputs = 0;
  lt_status status = lt_run(ctx, n->op, n->inputs, in, &attrs, &outputs, out);
  bool random = ctx->random.offset != before.offset;
  ctx->random = before;
  if (status == LT_INTERRUPTED) ctx->interrupted = 1; /* for the next op */
  for (int i = 0; i < outputs; i++) {
    lt_spec spec = i < n->outputs ? lt_edge_spec(n, lt_node_out(n, i)) : (lt_spec){0};
    bool same = i < n->outputs && spec.dtype == (lt_dtype)out[i]->dtype &&
                lt_shape_equal(&spec.shape, &out[i]->shape);
    if (same && !random) (void)lt_values_add(v, lt_node_out(n, i)->id, out[i]);
    lt_tensor_release(out[i]);
  }
  free(in);
}

static lt_tensor *find(lt_values *v, uint64_t id, int depth) {
  lt_value *known = place_of(v, id);
  if (known->id) return known->t;
  lt_node *n = lt_tape_find(v->tape, id);
  bool possible = n && !n->closure.vjp && depth < DEEPEST && !v->tape->ctx->interrupted;
  for (int i = 0; possible && i < n->inputs; i++) {
    uint64_t from = lt_node_in(n, i)->id;
    possible = from == 0 || find(v, from, depth + 1);
  }
  if (possible) run_again(v, n);
  if (lt_values_add(v, id, NULL) != LT_OK) return NULL; /* if it is not there by now */
  return place_of(v, id)->t;
}

lt_tensor *lt_values_find(lt_values *v, uint64_t id) { return id ? find(v, id, 0) : NULL; }
