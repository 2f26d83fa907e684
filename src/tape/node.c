/* Nodes and the history of the last ones. */
#include "tape/node.h"
#include "tape/forward.h"
#include "tape/note.h"
#include "tape/reading.h"
#include "tape/tape.h"

#include <stdlib.h>
#include <string.h>

static int64_t *sizes_of(const lt_node *n) {
  return (int64_t *)(uintptr_t)&n->edge[n->inputs + n->outputs];
}
static lt_word *words_of(const lt_node *n) { return (lt_word *)(void *)(sizes_of(n) + n->sizes); }

lt_spec lt_edge_spec(const lt_node *n, const lt_edge *e) {
  return (lt_spec){(lt_dtype)e->dtype, lt_shape_make(e->ndim, sizes_of(n) + e->at)};
}

void lt_node_attrs(const lt_node *n, lt_attrs *attrs) {
  const lt_word *w = words_of(n);
  attrs->given = (uint32_t)w[0].i;
  attrs->count = n->words - 1;
  memcpy(attrs->word, w + 1, (size_t)attrs->count * sizeof *w);
}

static void drop_values(lt_node *n) {
  for (int i = 0; i < n->inputs + n->outputs; i++) {
    lt_tensor_release(n->edge[i].saved);
    n->edge[i].saved = NULL;
  }
  lt_closure c = n->closure;
  n->closure = (lt_closure){0};
  if (c.release) c.release(c.userdata);
}

static size_t bytes_of(const lt_node *n) {
  return sizeof *n + (size_t)(n->inputs + n->outputs) * sizeof(lt_edge) +
         (size_t)(n->sizes + n->words) * sizeof(int64_t);
}

void lt_node_release(lt_context *ctx, lt_node *n) {
  if (--n->refs > 0) return;
  drop_values(n);
  lt_spare_give(&ctx->spare, n, bytes_of(n));
}

void lt_node_let_go(lt_node *n) {
  if (--n->holders == 0) drop_values(n);
}

/* ---- History ---------------------------------------------------------------------------- */

lt_node *lt_history_at(const lt_context *ctx, int64_t k) {
  const lt_history *h = &ctx->history;
  return h->nodes[(h->total - h->count + k) & (h->capacity - 1)];
}

static void history_drop_oldest(lt_context *ctx) {
  lt_history *h = &ctx->history;
  lt_node *oldest = lt_history_at(ctx, 0);
  h->count--;
  lt_node_release(ctx, oldest);
}

void lt_history_clear(lt_context *ctx) {
  while (ctx->history.count > 0) history_drop_oldest(ctx);
}

void lt_history_limit(lt_context *ctx, int64_t limit) {
  ctx->history.limit = limit;
  while (ctx->history.count > limit) history_drop_oldest(ctx);
}

static lt_status history_grow(lt_context *ctx) {
  lt_history *h = &ctx->history;
  int64_t capacity = h->capacity ? 2 * h->capacity : 256;
  lt_node **nodes = malloc((size_t)capacity * sizeof(lt_node *));
  if (!nodes) return lt_fail_memory(ctx, capacity * (int64_t)sizeof(lt_node *));
  for (int64_t k = 0; k < h->count; k++) {
    nodes[(h->total - h->count + k) & (capacity - 1)] = lt_history_at(ctx, k);
  }
  free(h->nodes);
  h->nodes = nodes;
  h->capacity = capacity;
  return LT_OK;
}

static lt_status history_add(lt_context *ctx, lt_node *n) {
  lt_history *h = &ctx->history;
  if (h->limit == 0) return LT_OK;
  if (h->count == h->limit) history_drop_oldest(ctx);
  if (h->count == h->capacity) LT_TRY(history_grow(ctx));
  h->nodes[h->total++ & (h->capacity - 1)] = lt_node_retain(n);
  h->count++;
  /* The node that goes next has been cold for 65,536 operations: fetch it meanwhile. */
  const char *oldest = (const char *)lt_history_at(ctx, 0);
  __builtin_prefetch(oldest, 1);
  __builtin_prefetch(oldest + 64, 1);
  __builtin_prefetch(oldest + 128, 1);
  return LT_OK;
}

lt_node *lt_history_find(const lt_context *ctx, uint64_t id) {
  int64_t low = 0, high = ctx->history.count;
  while (low < high) { /* the last node whose first output is not younger than id */
    int64_t middle = (low + high) / 2;
    if (lt_node_out(lt_history_at(ctx, middle), 0)->id <= id)
      low = middle + 1;
    else
      high = middle;
  }
  if (low == 0) return NULL;
  lt_node *n = lt_history_at(ctx, low - 1);
  return id - lt_node_out(n, 0)->id < (uint64_t)n->outputs ? n : NULL;
}

/* ---- Recording -------------------------------------------------------------------------- */

/* The tapes that listen and watch an input. */
static uint64_t connected_tapes(const lt_call *c) {
  uint64_t connected = 0;
  for (uint64_t left = c->ctx->listening; left; left &= left - 1) {
    int slot = __builtin_ctzll(left);
    for (int i = 0; i < c->inputs; i++) {
      if (c->in[i] && lt_tape_connects(c->ctx->tapes[slot], c->in[i])) {
        connected |= (uint64_t)1 << slot;
        break;
      }
    }
  }
  return connected;
}

bool lt_is_recorded(const lt_call *c) { return !c->ctx->no_grad && connected_tapes(c) != 0; }

/* The open tapes that this call concerns, and if none: why. */
static uint64_t listeners(const lt_call *c, bool differentiable, lt_reason *reason) {
  const lt_context *ctx = c->ctx;
  if (ctx->no_grad) {
    *reason = ctx->walks ? LT_IN_GRADIENT : LT_IN_NO_GRAD;
    return 0;
  }
  if (!ctx->listening) {
    *reason = ctx->walks ? LT_IN_GRADIENT : ctx->open ? LT_TAPE_PAUSED : LT_NO_TAPE;
    return 0;
  }
  uint64_t connected = connected_tapes(c);
  bool is_float = false;
  for (int i = 0; i < c->outputs; i++) {
    is_float = is_float || lt_dtype_is_float((lt_dtype)c->out[i]->dtype);
  }
  if (!connected)
    *reason = LT_UNCONNECTED;
  else if (c->op->cuts)
    *reason = LT_CUT;
  else if (!differentiable || !is_float)
    *reason = LT_NO_GRADIENT;
  else
    *reason = LT_RECORDED;
  return *reason == LT_RECORDED ? connected : 0;
}

static void fill_edge(lt_edge *e, lt_tensor *t, bool save, lt_node *n, int64_t *sizes) {
  if (!t) {
    *e = (lt_edge){0};
    return;
  }
  *e = (lt_edge){.id = t->id, .version = t->block->version};
  e->dtype = t->dtype & 7u;
  e->variable = t->variable;
  if (save) e->saved = lt_tensor_retain(t);
  if (!sizes) return;
  e->ndim = (uint32_t)t->shape.ndim & 15;
  e->at = (uint32_t)n->sizes & 0x7fffff;
  memcpy(sizes + n->sizes, t->shape.size, (size_t)t->shape.ndim * sizeof *sizes);
  n->sizes += t->shape.ndim;
}

/* Does the gradient rule read input i? A list's tensors count as the input that they stand for. */
static bool reads_input(const lt_op *op, int i) {
  if (i >= LT_MAX_INPUTS || !op->inputs[i].name) i = lt_op_inputs(op) - 1;
  return i >= 0 && op->saves & LT_IN(i);
}

lt_tensor *lt_node_read(lt_node *n, int i) {
  return reads_input(n->op, i) ? lt_node_in(n, i)->saved : NULL;
}

/* Do tapes want all inputs, so that the op can run again? */
static bool keeps_inputs(const lt_context *ctx, uint64_t tapes) {
  for (; tapes; tapes &= tapes - 1) {
    if (ctx->tapes[__builtin_ctzll(tapes)]->keep_inputs) return true;
  }
  return false;
}

/* Is input i to be kept for the gradients of the others? */
static bool saves_input(const lt_call *c, uint64_t tapes, int i) {
  if (!c->op->saves || !reads_input(c->op, i)) return false;
  if (!c->op->crosswise) return true;
  for (uint64_t left = tapes; left; left &= left - 1) {
    const lt_tape *tape = c->ctx->tapes[__builtin_ctzll(left)];
    for (int k = 0; k < c->inputs; k++) {
      if (k != i && c->in[k] && lt_tape_connects(tape, c->in[k])) return true;
    }
  }
  return false;
}

/* A few numbers that nothing differentiates: no more memory than the node, and with them ops can
 * run again when somebody asks where a NaN came from. */
static bool is_small_constant(const lt_tensor *t) {
  return t && t->tapes == 0 && !t->variable && lt_is_plain(t) && t->block->capacity <= 128;
}

static lt_status new_node(lt_call *c, lt_reason reason, uint64_t tapes, lt_node **result) {
  bool heavy = reason == LT_RECORDED;
  int sizes = 0, words = heavy ? 1 + c->attrs->count : 0, edges = c->inputs + c->outputs;
  if (heavy) {
    for (int i = 0; i < c->inputs; i++) sizes += c->in[i] ? c->in[i]->shape.ndim : 0;
    for (int i = 0; i < c->outputs; i++) sizes += c->out[i]->shape.ndim;
  }
  if (edges > LT_MAX_EDGES) {
    return lt_fail(c->ctx, "%s: too many tensors (%d)", c->op->name, c->inputs);
  }
  size_t bytes =
      sizeof(lt_node) + (size_t)edges * sizeof(lt_edge) + (size_t)(sizes + words) * sizeof(int64_t);
  lt_node *n = lt_spare_take(&c->ctx->spare, bytes);
  if (!n) return lt_fail_memory(c->ctx, (long long)bytes);
  *n = (lt_node){.op = c->op,
                 .called = c->ctx->composed ? c->ctx->composed : c->op,
                 .refs = 1,
                 .reason = (uint8_t)reason,
                 .inputs = c->inputs,
                 .outputs = c->outputs,
                 .sizes = sizes,
                 .words = words};
  int64_t *list = heavy ? sizes_of(n) : NULL;
  bool keep = heavy && keeps_inputs(c->ctx, tapes);
  n->sizes = 0; /* counts up again as edges are filled */
  for (int i = 0; i < c->inputs; i++) {
    bool save = keep || (heavy && (saves_input(c, tapes, i) || is_small_constant(c->in[i])));
    fill_edge(lt_node_in(n, i), c->in[i], save, n, list);
  }
  for (int i = 0; i < c->outputs; i++) {
    c->out[i]->id = c->ctx->next_id++;
    fill_edge(lt_node_out(n, i), c->out[i], heavy && (c->op->saves & LT_OUT(i)), n, list);
  }
  if (heavy) {
    lt_word *w = words_of(n);
    w[0].i = c->attrs->given;
    memcpy(w + 1, c->attrs->word, (size_t)c->attrs->count * sizeof *w);
  }
  *result = n;
  return LT_OK;
}

/* The oldest of the tapes first: tangents of later ones have tangents of their own on it. */
static lt_status carry_tangents(const lt_call *c, lt_node *n, uint64_t *tapes) {
  int oldest = __builtin_ctzll(*tapes);
  for (uint64_t left = *tapes; left; left &= left - 1) {
    int slot = __builtin_ctzll(left);
    if (c->ctx->tapes[slot]->number < c->ctx->tapes[oldest]->number) oldest = slot;
  }
  *tapes &= ~((uint64_t)1 << oldest);
  return lt_forward_step(c->ctx->tapes[oldest], c, n);
}

/* A call that neither a tape nor the history keeps. */
static lt_status pass_by(lt_call *c, const lt_closure *closure) {
  if (closure) closure->release(closure->userdata);
  for (int i = 0; i < c->outputs; i++) {
    c->out[i]->id = c->ctx->next_id++;
    if (lt_dtype_is_float((lt_dtype)c->out[i]->dtype)) c->out[i]->tapes = 0;
  }
  return LT_OK;
}

lt_status lt_record(lt_call *c, const lt_closure *closure) {
  lt_context *ctx = c->ctx;
  lt_reason reason;
  if (ctx->noting) LT_TRY(lt_note(ctx->noting, c));
  uint64_t tapes = listeners(c, c->op->vjp || c->op->jvp || closure, &reason);
  if (!tapes && ctx->history.limit == 0) return pass_by(c, closure);
  lt_node *n = NULL;
  lt_status status = new_node(c, reason, tapes, &n);
  if (closure && (status != LT_OK || !tapes)) closure->release(closure->userdata);
  LT_TRY(status);
  n->site = reason == LT_IN_GRADIENT ? ctx->gradient_site : lt_current_site(ctx);
  n->tapes = tapes;
  if (closure && tapes) n->closure = *closure;
  status = history_add(ctx, n);
  uint64_t forward = 0;
  for (uint64_t left = tapes; left && status == LT_OK; left &= left - 1) {
    lt_tape *tape = ctx->tapes[__builtin_ctzll(left)];
    if (tape->forward) {
      forward |= left & -left;
      continue;
    }
    for (int i = 0; i < c->inputs && status == LT_OK; i++) {
      if (c->in[i] && c->in[i]->variable) status = lt_tape_note_variable(tape, c->in[i]);
    }
    if (status == LT_OK) status = lt_tape_append(tape, n);
    if (status == LT_OK) n->holders++;
  }
  for (int i = 0; i < c->outputs; i++) {
    if (lt_dtype_is_float((lt_dtype)c->out[i]->dtype)) c->out[i]->tapes = tapes;
  }
  while (forward && status == LT_OK) status = carry_tangents(c, n, &forward);
  if (tapes && n->holders == 0) drop_values(n); /* the history needs none */
  lt_node_release(ctx, n);
  return status;
}

/* A light node with one output, whose site and inputs are known. */
static lt_status record_light(lt_call *c, lt_reason reason, lt_site site, const uint64_t *from) {
  lt_node *n = NULL;
  LT_TRY(new_node(c, reason, 0, &n));
  n->site = site;
  for (int i = 0; i < c->inputs; i++) lt_node_in(n, i)->id = from[i];
  lt_status status = history_add(c->ctx, n);
  lt_node_release(c->ctx, n);
  return status;
}

lt_status lt_record_source(const lt_op *op, lt_tensor *t, bool was_read) {
  lt_attrs none = {0};
  uint64_t numbers = t->id;
  lt_call c = {.ctx = t->ctx,
               .op = op,
               .attrs = &none,
               .inputs = was_read ? 1 : 0,
               .in = &t,
               .outputs = 1,
               .out = {t}};
  return record_light(&c, LT_UNCONNECTED, lt_current_site(t->ctx), &numbers);
}

lt_status lt_record_reading(const lt_op *op, int count, const uint64_t *from, lt_site read_at,
                            lt_tensor *t) {
  lt_attrs none = {0};
  lt_tensor *in[LT_NOTED] = {NULL};
  lt_call c = {
      .ctx = t->ctx, .op = op, .attrs = &none, .inputs = count, .in = in, .outputs = 1, .out = {t}};
  return record_light(&c, LT_READ, read_at, from);
}
