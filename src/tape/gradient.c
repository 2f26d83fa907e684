/* The backward walk: a loop over the tape's nodes, from the last to the first. One table says
 * which values lie on a path from a source (only they get gradients) and what has arrived. */
#include "core/rows.h"
#include "ops/ops.h"
#include "tape/diagnose.h"
#include "tape/tape.h"
#include "tape/vjp.h"

#include <stdlib.h>

typedef struct cell {
  uint64_t id; /* 0: empty */
  lt_tensor *gradient;
  bool source; /* asked for: kept to the end */
} cell;

enum { FEW_CELLS = 128 };

typedef struct table {
  lt_context *ctx;
  cell *cells; /* open addressing */
  int64_t count, capacity;
  lt_observer *observer; /* of a walk that only wants to know; NULL otherwise */
  cell few[FEW_CELLS];   /* enough for small models */
} table;

static cell *find(const table *t, uint64_t id) {
  uint64_t mask = (uint64_t)t->capacity - 1, i = id * 0x9E3779B97F4A7C15u >> 32 & mask;
  while (t->cells[i].id && t->cells[i].id != id) i = (i + 1) & mask;
  return &t->cells[i];
}

static bool has(const table *t, uint64_t id) { return find(t, id)->id == id && id != 0; }

static void open_table(table *t, lt_context *ctx, lt_observer *observer) {
  *t = (table){.ctx = ctx, .capacity = FEW_CELLS, .observer = observer};
  t->cells = t->few;
}

static lt_status grow(table *t) {
  cell *old = t->cells;
  int64_t count = t->capacity;
  cell *bigger = calloc(2 * (size_t)count, sizeof *bigger);
  if (!bigger) return lt_fail_memory(t->ctx, 2 * count * (int64_t)sizeof *bigger);
  t->cells = bigger;
  t->capacity = 2 * count;
  for (int64_t i = 0; i < count; i++) {
    if (old[i].id) *find(t, old[i].id) = old[i];
  }
  if (old != t->few) free(old);
  return LT_OK;
}

static lt_status add(table *t, uint64_t id, bool source) {
  if (2 * (t->count + 1) > t->capacity) LT_TRY(grow(t));
  cell *c = find(t, id);
  if (!c->id) {
    c->id = id;
    t->count++;
  }
  c->source = c->source || source;
  return LT_OK;
}

static void close_table(table *t) {
  for (int64_t i = 0; i < t->capacity; i++) lt_tensor_release(t->cells[i].gradient);
  if (t->cells != t->few) free(t->cells);
}

/* Adds a gradient to what has arrived at c; takes over no reference. */
static lt_status arrive(table *t, uint64_t id, lt_tensor *gradient) {
  cell *c = find(t, id);
  if (!c->gradient) {
    c->gradient = lt_tensor_retain(gradient);
    return LT_OK;
  }
  lt_scope s;
  lt_scope_open(&s, t->ctx);
  lt_tensor *sum = lt_accumulate(&s, c->gradient, gradient);
  if (sum) {
    lt_tensor_release(c->gradient);
    c->gradient = lt_tensor_retain(sum);
  }
  lt_scope_close(&s);
  return s.status;
}

/* The values that depend on a source, in the order of the tape. */
static lt_status mark(table *t, const lt_tape *tape) {
  for (int64_t k = 0; k < tape->count; k++) {
    lt_node *n = tape->nodes[k];
    bool depends = false;
    for (int i = 0; i < n->inputs && !depends; i++) depends = has(t, lt_node_in(n, i)->id);
    for (int i = 0; depends && i < n->outputs; i++) {
      LT_TRY(add(t, lt_node_out(n, i)->id, false));
    }
  }
  return LT_OK;
}

/* A value that the rule will read must still be what it was. */
static lt_status check_saved(lt_context *ctx, lt_node *n) {
  for (int i = 0; i < n->inputs + n->outputs; i++) {
    const lt_tensor *t = i < n->inputs ? lt_node_read(n, i) : n->edge[i].saved;
    if (!t || t->block->version == n->edge[i].version) continue;
    char saved[LT_SITE_TEXT], written[LT_SITE_TEXT], shape[LT_SHAPE_TEXT];
    lt_site_text(ctx, n->site, saved);
    lt_site_text(ctx, t->block->writer, written);
    return lt_fail(ctx,
                   "gradient: %s of %s at %s, '%s' (%s), was overwritten in place at %s, and its "
                   "old value is needed [overwritten]",
                   i < n->inputs ? "an input" : "the result", n->op->name, saved,
                   t->name ? t->name : "unnamed", lt_shape_text(&t->shape, shape), written);
  }
  return LT_OK;
}

static lt_status run_rule(lt_node *n, lt_vjp *v) {
  if (n->closure.vjp) return n->closure.vjp(n->closure.userdata, v);
  n->op->vjp(v);
  return v->s->status;
}

/* A function of the host's that may count its calls is not called only to be watched. */
static bool is_blind(const table *t, const lt_node *n) {
  return t->observer && n->closure.vjp && !n->closure.repeatable;
}

/* Passes the gradients of n's outputs on to its inputs. */
static lt_status step_back(table *t, lt_node *n) {
  lt_context *ctx = t->ctx;
  bool any = false;
  for (int i = 0; i < n->outputs && !any; i++) any = find(t, lt_node_out(n, i)->id)->gradient;
  if (!any) return LT_OK;
  LT_TRY(check_saved(ctx, n));

  enum { FEW = 8 };
  int edges = n->inputs + n->outputs;
  lt_tensor *few[2 * FEW + 2 * LT_MAX_OUTPUTS];
  bool few_needs[FEW];
  bool many = n->inputs > FEW;
  lt_tensor **room = many ? calloc((size_t)(2 * edges), sizeof *room) : few;
  bool *need = many ? malloc((size_t)n->inputs) : few_needs;
  if (!room || !need) {
    if (many) free(room), free(need);
    return lt_fail_memory(ctx, 2 * edges * (long long)sizeof *room);
  }
  lt_scope s;
  lt_scope_open(&s, ctx);
  lt_attrs attrs;
  lt_node_attrs(n, &attrs);
  lt_vjp v = {.ctx = ctx,
              .s = &s,
              .op = n->op,
              .attrs = &attrs,
              .node = n,
              .inputs = n->inputs,
              .outputs = n->outputs,
              .need = need,
              .in = room,
              .dx = room + n->inputs,
              .out = room + 2 * n->inputs,
              .dy = room + 2 * n->inputs + n->outputs};
  for (int i = 0; i < n->inputs; i++) {
    v.in[i] = lt_node_read(n, i);
    v.dx[i] = NULL;
    need[i] = has(t, lt_node_in(n, i)->id) && lt_dtype_is_float((lt_dtype)lt_node_in(n, i)->dtype);
  }
  for (int i = 0; i < n->outputs; i++) {
    lt_edge *e = lt_node_out(n, i);
    v.out[i] = e->saved;
    v.dy[i] = lt_dense(&s, find(t, e->id)->gradient);
    if (!v.dy[i] && lt_dtype_is_float((lt_dtype)e->dtype)) {
      lt_spec spec = lt_edge_spec(n, e);
      v.dy[i] = lt_full_like(&s, &spec, 0);
    }
  }
  ctx->site = n->site;
  lt_status status = s.status == LT_OK && !is_blind(t, n) ? run_rule(n, &v) : s.status;
  if (status == LT_OK && t->observer) t->observer->seen(t->observer, &v);
  for (int i = 0; i < n->inputs; i++) {
    if (!t->observer) lt_node_in(n, i)->none = need[i] && !v.dx[i];
    if (v.dx[i] && need[i] && status == LT_OK) {
      status = arrive(t, lt_node_in(n, i)->id, v.dx[i]);
    }
    lt_tensor_release(v.dx[i]);
  }
  lt_scope_close(&s);
  if (many) free(room), free(need);
  for (int i = 0; i < n->outputs; i++) { /* passed on: its memory can serve again */
    cell *c = find(t, lt_node_out(n, i)->id);
    if (c->source || !c->gradient) continue;
    lt_tensor_release(c->gradient);
    c->gradient = NULL;
  }
  return status;
}

static lt_status seed(table *t, lt_tensor *target, lt_tensor *seed_or_null) {
  if (!has(t, target->id)) return LT_OK;
  if (seed_or_null) return arrive(t, target->id, seed_or_null);
  lt_scope s;
  lt_scope_open(&s, t->ctx);
  lt_spec spec = {(lt_dtype)target->dtype, target->shape};
  lt_tensor *ones = lt_full_like(&s, &spec, 1);
  lt_status status = ones ? arrive(t, target->id, ones) : s.status;
  lt_scope_close(&s);
  return status;
}

static lt_status walk(table *t, lt_tape *tape, int targets, lt_tensor *const *target,
                      lt_tensor *const *seeds, int sources, lt_tensor *const *source,
                      lt_tensor **gradients) {
  for (int i = 0; i < sources; i++) {
    if (lt_tape_knows(tape, source[i])) LT_TRY(add(t, source[i]->id, true));
  }
  LT_TRY(mark(t, tape));
  for (int i = 0; i < targets; i++) LT_TRY(seed(t, target[i], seeds ? seeds[i] : NULL));
  for (int64_t k = tape->count - 1; k >= 0; k--) LT_TRY(step_back(t, tape->nodes[k]));
  for (int i = 0; i < sources; i++) {
    lt_tensor *g = find(t, source[i]->id)->gradient;
    gradients[i] = g ? lt_tensor_retain(g) : NULL;
  }
  return LT_OK;
}

static lt_status check_seeds(lt_context *ctx, int targets, lt_tensor *const *target,
                             lt_tensor *const *seeds) {
  char want[LT_SHAPE_TEXT], got[LT_SHAPE_TEXT];
  for (int i = 0; i < targets; i++) {
    if (!lt_dtype_is_float((lt_dtype)target[i]->dtype)) {
      return lt_fail(ctx, "gradient: the target is %s; only floats have gradients [int-dtype]",
                     lt_dtype_name((lt_dtype)target[i]->dtype));
    }
    if (!seeds || !seeds[i]) continue;
    if (!lt_shape_equal(&seeds[i]->shape, &target[i]->shape) ||
        seeds[i]->dtype != target[i]->dtype) {
      return lt_fail(ctx, "gradient: output_gradients is %s %s, the target %s %s",
                     lt_dtype_name((lt_dtype)seeds[i]->dtype), lt_shape_text(&seeds[i]->shape, got),
                     lt_dtype_name((lt_dtype)target[i]->dtype),
                     lt_shape_text(&target[i]->shape, want));
    }
  }
  return LT_OK;
}

/* Does nobody else hold, or see, this memory? */
static bool is_own(const lt_tensor *g) {
  if (g->rows) g = g->rows->values;
  return g->refs == 1 && g->block->refs == 1 && !lt_tensor_repeats(g);
}

static lt_tensor *copy(lt_scope *s, lt_tensor *g) {
  if (!g->rows) return lt_do1(s, &lt_op_clone, NULL, g);
  lt_tensor *values = lt_do1(s, &lt_op_clone, NULL, g->rows->values);
  if (values) s->status = lt_rows_with(g, values, &g);
  return s->status == LT_OK ? lt_keep(s, g) : NULL;
}

/* Gradients become memory of their own: written in place, one must not change another, nor a
 * seed. */
static lt_status separate(lt_context *ctx, int sources, lt_tensor **gradients) {
  for (int i = 0; i < sources; i++) {
    lt_tensor *g = gradients[i];
    if (!g || (g->refs == 1 && is_own(g))) continue;
    lt_scope s;
    lt_scope_open(&s, ctx);
    lt_tensor *own = copy(&s, g);
    if (own) {
      lt_tensor_release(g);
      gradients[i] = lt_tensor_retain(own);
    }
    lt_scope_close(&s);
    LT_TRY(s.status);
  }
  return LT_OK;
}

lt_status lt_walk_again(const lt_question *q, lt_observer *observer) {
  table t;
  open_table(&t, q->tape->ctx, observer);
  lt_tensor **gradients = calloc((size_t)q->sources + 1, sizeof *gradients);
  lt_status status = gradients ? walk(&t, q->tape, q->targets, q->target, q->seeds, q->sources,
                                      q->source, gradients)
                               : lt_fail_memory(t.ctx, q->sources * (long long)sizeof *gradients);
  for (int i = 0; gradients && i < q->sources; i++) lt_tensor_release(gradients[i]);
  free(gradients);
  close_table(&t);
  return status;
}

lt_status lt_tape_gradient(lt_tape *tape, int targets, lt_tensor *const *target,
                           lt_tensor *const *seeds, int sources, lt_tensor *const *source,
                           lt_tensor **gradients) {
  lt_context *ctx = tape->ctx;
  for (int i = 0; i < sources; i++) gradients[i] = NULL;
  LT_TRY(lt_tape_check(tape, "gradient"));
  LT_TRY(check_seeds(ctx, targets, target, seeds));
  table t;
  open_table(&t, ctx, NULL);
  tape->refs++;
  tape->walking = true;
  bool last = !tape->persistent && !tape->held;
  if (last) lt_tape_consume(tape);
  lt_site outer_site = ctx->site, called = lt_current_site(ctx);
  bool outer_has_site = ctx->has_site;
  lt_site outer_gradient = ctx->gradient_site;
  if (ctx->walks++ == 0) ctx->gradient_site = called;
  ctx->has_site = true; /* backward operations belong to the line of their forward ones */
  ctx->site = tape->opened;
  lt_status status = walk(&t, tape, targets, target, seeds, sources, source, gradients);
  close_table(&t);
  if (status == LT_OK) {
    ctx->site = tape->opened;
    status = separate(ctx, sources, gradients);
  }
  lt_question q = {tape, targets, target, seeds, sources, source, called};
  if (status == LT_OK) lt_diagnose(&q, gradients);
  for (int i = 0; i < sources && status != LT_OK; i++) {
    lt_tensor_release(gradients[i]);
    gradients[i] = NULL;
  }
  ctx->site = outer_site;
  ctx->has_site = outer_has_site;
  ctx->gradient_site = outer_gradient;
  ctx->walks--;
  tape->walking = false;
  if (last || tape->closed) lt_tape_spend(tape);
  lt_tape_release(tape);
  return status;
}
