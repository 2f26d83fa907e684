/* The watched walk notes events: rules that turned something into zeros, or something finite into
 * NaN or Inf. Of those on the way to a source the one that counts is told. */
#include "tape/diagnose.h"
#include "kernels/finite.h"
#include "tape/origin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Findings ------------------------------------------------------------------------------ */

enum { TOLD = 256, SITES = 1024, SEARCHES = 100 };

/* Zero gradients that were explained, by source, so that later steps need no search; a later one
 * takes an older one's place. Sources that are no variables are new ones in every step: for them
 * the searches are counted by the line at which the tape was opened. */
typedef struct lt_told {
  struct {
    uint64_t source;
    lt_finding *finding;
  } place[TOLD];
  uint8_t searches[SITES];
  lt_finding *inner; /* the last one of a gradient taken inside a watched walk */
} lt_told;

static void release(lt_finding *f) {
  if (f && --f->refs == 0) free(f);
}

void lt_told_free(lt_context *ctx) {
  for (int i = 0; ctx->told && i < TOLD; i++) release(ctx->told->place[i].finding);
  if (ctx->told) release(ctx->told->inner);
  free(ctx->told);
  ctx->told = NULL;
}

void lt_findings_forget(lt_tape *tape) {
  for (int64_t i = 0; i < tape->noted_count; i++) release(tape->noted[i].finding);
  tape->noted_count = 0;
}

const lt_finding *lt_finding_of(const lt_tape *tape, uint64_t target, uint64_t source) {
  for (int64_t i = 0; i < tape->noted_count; i++) {
    const lt_noted *n = &tape->noted[i];
    if (n->source == source && n->target == target) return n->finding;
  }
  return NULL;
}

/* The same question was asked again. */
static void forget(lt_tape *tape, uint64_t target, uint64_t source) {
  int64_t kept = 0;
  for (int64_t i = 0; i < tape->noted_count; i++) {
    if (tape->noted[i].source == source && tape->noted[i].target == target)
      release(tape->noted[i].finding);
    else
      tape->noted[kept++] = tape->noted[i];
  }
  tape->noted_count = kept;
}

static void keep(const lt_question *q, uint64_t source, lt_finding *f) {
  lt_tape *tape = q->tape;
  if (tape->noted_count == tape->noted_capacity) {
    int64_t grown = tape->noted_capacity ? 2 * tape->noted_capacity : 8;
    lt_noted *more = realloc(tape->noted, (size_t)grown * sizeof *more);
    if (!more) return;
    tape->noted = more;
    tape->noted_capacity = grown;
  }
  tape->noted[tape->noted_count++] = (lt_noted){q->target[0]->id, source, f};
  f->refs++;
}

/* ---- Is this zero to be searched for? ---------------------------------------------------------
 */

static lt_told *told_of(lt_context *ctx) {
  if (!ctx->told) ctx->told = calloc(1, sizeof *ctx->told);
  return ctx->told;
}

static bool is_new_zero(const lt_question *q, lt_tensor *source) {
  lt_told *told = told_of(source->ctx);
  if (told && source->ctx->diagnosing) return true;
  if (!told || source->zero_told) return false;
  source->zero_told = true;
  if (source->variable) return true;
  lt_site at = q->tape->opened;
  uint8_t *searches = &told->searches[(at.chunk * 31u + (uint32_t)at.line) % SITES];
  if (*searches >= SEARCHES) return false;
  ++*searches;
  return true;
}

static bool recall(const lt_question *q, const lt_tensor *source) {
  lt_told *told = source->ctx->told;
  int i = (int)(source->id % TOLD);
  if (!told || told->place[i].source != source->id) return false;
  keep(q, source->id, told->place[i].finding);
  return true;
}

static void remember(lt_tensor *source, lt_finding *f) {
  lt_told *told = told_of(source->ctx);
  int i = (int)(source->id % TOLD);
  if (!told) return;
  release(told->place[i].finding);
  told->place[i].source = source->id;
  told->place[i].finding = f;
  f->refs++;
}

/* ---- The watched walk ---------------------------------------------------------------------- */

enum { MOST_EVENTS = 256 };

typedef struct search {
  lt_observer observer; /* first: its pointer is the search's */
  bool zero;            /* looks for zeros, or for what is not finite */
  int count;
  lt_event event[MOST_EVENTS];
} search;

static lt_event *new_event(search *s, lt_vjp *v, int input) {
  if (s->count == MOST_EVENTS) return NULL;
  lt_event *e = &s->event[s->count++];
  *e = (lt_event){.node = v->node, .input = input, .id = lt_node_in(v->node, input)->id, .at = -1};
  e->blind = v->node->closure.vjp && !v->node->closure.repeatable;
  lt_told *told = v->ctx->told;
  if (v->node->closure.repeatable && told && told->inner) {
    e->inner = told->inner;
    e->inner->refs++;
  }
  return e;
}

static void see_zero(search *s, lt_vjp *v) {
  int64_t arrived = 0;
  for (int k = 0; k < v->outputs; k++) {
    if (v->dy[k] && !lt_look_at(v->dy[k]).zero) arrived += lt_count_nonzero(v->dy[k]);
  }
  if (arrived == 0) return;
  bool blind = v->node->closure.vjp && !v->node->closure.repeatable;
  for (int i = 0; i < v->inputs; i++) {
    if (!v->need[i] || !(blind || (v->dx[i] && lt_look_at(v->dx[i]).zero))) continue;
    lt_event *e = new_event(s, v, i);
    if (e) e->arrived = arrived;
  }
}

static void see_nonfinite(search *s, lt_vjp *v) {
  bool blind = v->node->closure.vjp && !v->node->closure.repeatable;
  for (int k = 0; k < v->outputs; k++) {
    if (!v->dy[k] || !lt_look_at(v->dy[k]).nonfinite) continue;
    if (s->count > 0) return;             /* it came from there */
    for (int i = 0; i < v->inputs; i++) { /* finite parts, and a sum that is not */
      lt_event *e = v->need[i] ? new_event(s, v, i) : NULL;
      if (e) e->sum = true;
    }
    return;
  }
  for (int i = 0; i < v->inputs; i++) {
    if (!v->need[i] || !(blind || (v->dx[i] && lt_look_at(v->dx[i]).nonfinite))) continue;
    lt_event *e = new_event(s, v, i);
    if (e && !blind) lt_event_locate(e, v);
  }
}

static void seen(lt_observer *observer, lt_vjp *v) {
  search *s = (search *)(void *)observer;
  (s->zero ? see_zero : see_nonfinite)(s, v);
  if (!v->ctx->told) return;
  release(v->ctx->told->inner);
  v->ctx->told->inner = NULL;
}

/* ---- Which event counts for a source -----------------------------------------------------------
 */

/* The values that depend on a source. */
static lt_status dependents(const lt_tape *tape, uint64_t source, lt_ids *set) {
  LT_TRY(lt_ids_add(tape->ctx, set, source));
  for (int64_t k = 0; k < tape->count; k++) {
    lt_node *n = tape->nodes[k];
    bool depends = false;
    for (int i = 0; i < n->inputs && !depends; i++) depends = lt_ids_has(set, lt_node_in(n, i)->id);
    for (int i = 0; depends && i < n->outputs; i++) {
      LT_TRY(lt_ids_add(tape->ctx, set, lt_node_out(n, i)->id));
    }
  }
  return LT_OK;
}

/* Zero: the last of the walk, that nearest to the source; otherwise the first. What happens inside
 * a function that was not run again is a guess, for when there is nothing else. */
static const lt_event *choose(const search *s, const lt_ids *way) {
  const lt_event *best = NULL;
  for (int i = 0; i < s->count; i++) {
    const lt_event *e = &s->event[i];
    if (way && !lt_ids_has(way, e->id)) continue;
    if (!best || (best->blind && !e->blind) || (s->zero && best->blind == e->blind)) best = e;
  }
  return best;
}

/* ---- What is said of a zero --------------------------------------------------------------------
 */

static const char *advice(const char *because) {
  if (strcmp(because, "relu") == 0) {
    return "No input of it is positive: its units are dead. Lower the learning rate, start the "
           "bias above 0, or use leaky_relu.";
  }
  if (strcmp(because, "saturated") == 0) {
    return "Its inputs are so large that its slope is 0. Scale them down, or give the logits to a "
           "loss that takes logits.";
  }
  if (strcmp(because, "clipped") == 0) return "All its inputs lie outside the bounds.";
  if (strcmp(because, "masked") == 0) return "It selected other elements.";
  if (strcmp(because, "flat-op") == 0) {
    return "It is made of steps, and its derivative is 0 everywhere. For a gradient that passes "
           "through: x + lt.stop_gradient(f(x) - x).";
  }
  return "What it is multiplied by there is 0, or the products cancel out.";
}

/* A join or a window only passes on what has come to its part: the op that chose among the parts
 * comes after it. */
static lt_event chooser(const lt_tape *tape, const lt_event *e) {
  lt_event found = *e;
  lt_node *n = e->node;
  if (!n->op->linear || n->op->view || n->op->zero) return found;
  lt_node *next = lt_node_after(tape, n, lt_op_zeroes);
  if (!next) return found;
  lt_spec part = lt_edge_spec(n, lt_node_in(n, e->input));
  found.node = next;
  found.arrived = lt_shape_numel(&part.shape);
  return found;
}

/* Are the weights of the targets zero, or not finite, themselves? */
static bool says_why(const lt_question *q, bool zero) {
  bool all = q->seeds != NULL, any = false;
  for (int i = 0; q->seeds && i < q->targets; i++) {
    lt_look look = q->seeds[i] ? lt_look_at(q->seeds[i]) : (lt_look){false, false};
    all = all && look.zero;
    any = any || look.nonfinite;
  }
  return zero ? all : any;
}

static void tell_zero(const lt_question *q, const lt_event *blocking, lt_finding *f, char *text,
                      size_t room) {
  char at[LT_SITE_TEXT];
  lt_event chosen, *e = NULL;
  if (blocking) {
    chosen = chooser(q->tape, blocking);
    e = &chosen;
  }
  f->because = "zero-factor";
  f->share = 1;
  if (e) {
    f->where = e->node->site;
    f->op = e->node->closure.repeatable ? "checkpoint"
            : e->node->closure.vjp      ? "custom_gradient"
                                        : e->node->called->name;
    if (e->node->op->zero) f->because = e->node->op->zero;
    lt_site_text(q->tape->ctx, f->where, at);
    snprintf(text, room, "%s at %s blocked 100 %% (%lld of %lld) of a nonzero gradient (%s).\n  %s",
             f->op, at, (long long)e->arrived, (long long)e->arrived, f->because,
             e->blind ? "The function given as its gradient returned zeros, or they come later."
                      : advice(f->because));
    return;
  }
  f->where = q->called;
  f->op = "gradient";
  lt_site_text(q->tape->ctx, f->where, at);
  snprintf(text, room,
           says_why(q, true)
               ? "the output_gradients given at %s are all 0."
               : "no op blocked it: the gradients of its uses, added up at %s, cancel out.",
           at);
}

/* ---- The search ---------------------------------------------------------------------------------
 */

enum { LABEL = 160 };

/* "'w'", or for want of a name "the result of mean at train.lua:9". */
static const char *label(const lt_question *q, const lt_tensor *t, const char *otherwise,
                         char text[LABEL]) {
  char at[LT_SITE_TEXT];
  const lt_node *made = lt_tape_find(q->tape, t->id);
  if (!made) made = lt_history_find(t->ctx, t->id);
  if (t->name)
    snprintf(text, LABEL, "'%.100s'", t->name);
  else if (made)
    snprintf(text, LABEL, "%s %s at %s", made->inputs > 0 ? "the result of" : "the",
             made->called->name, lt_site_text(t->ctx, made->site, at));
  else
    snprintf(text, LABEL, "%s", otherwise);
  return text;
}

/* The same as inside a function that the walk ran again, but for the source. */
static void tell_inner(const lt_finding *inner, lt_finding *f, char *text, size_t room) {
  const char *rest = strchr(inner->message, '\n');
  lt_finding own = *f;
  snprintf(text, room, "%.*s", (int)room - 1, rest ? rest + 3 : inner->message);
  memcpy(own.message, f->message, sizeof own.message);
  *f = *inner;
  f->refs = own.refs;
  f->code = own.code;
  memcpy(f->message, own.message, sizeof f->message);
}

static void replace_inner(lt_context *ctx, lt_finding *f) {
  lt_told *told = told_of(ctx);
  if (!told) return;
  release(told->inner);
  told->inner = f;
  f->refs++;
}

static lt_status find_out(const lt_question *q, const search *s, lt_values *values,
                          lt_tensor *source) {
  lt_ids way = {0};
  lt_status status = s->count > 1 ? dependents(q->tape, source->id, &way) : LT_OK;
  if (status != LT_OK) {
    lt_ids_clear(&way);
    return status;
  }
  const lt_event *e = choose(s, s->count > 1 ? &way : NULL);
  lt_ids_clear(&way);
  lt_finding *f = calloc(1, sizeof *f);
  if (!f) return lt_fail_memory(source->ctx, sizeof *f);
  f->refs = 1;
  f->ndim = -1;
  f->code = s->zero ? "zero" : "nonfinite";
  char from[LABEL], to[LABEL];
  int n = snprintf(f->message, LT_FINDING_TEXT, "the gradient of %s with respect to %s %s [%s]\n  ",
                   label(q, q->target[0], "the target", to), label(q, source, "the source", from),
                   s->zero ? "is exactly zero" : "holds NaN or Inf", f->code);
  char *text = f->message + n;
  size_t room = LT_FINDING_TEXT - (size_t)n;
  if (e && e->inner)
    tell_inner(e->inner, f, text, room);
  else if (s->zero)
    tell_zero(q, e, f, text, room);
  else
    lt_tell_nonfinite(q, e, values, f, text, room);
  keep(q, source->id, f);
  if (source->ctx->diagnosing > 1)
    replace_inner(source->ctx, f);
  else if (s->zero)
    remember(source, f);
  release(f);
  q->tape->found = true;
  return LT_OK;
}

/* It was searched for before, and what was found then is forgotten. */
static void tell_known_zero(const lt_question *q, lt_tensor *source) {
  char from[LABEL], to[LABEL];
  lt_finding *f = calloc(1, sizeof *f);
  if (!f) return;
  *f = (lt_finding){.refs = 1, .code = "zero", .op = "gradient", .where = q->called, .ndim = -1};
  snprintf(f->message, LT_FINDING_TEXT,
           "the gradient of %s with respect to %s is exactly zero [zero]\n"
           "  The reason was told when this was first so, and is not searched for in every step.",
           label(q, q->target[0], "the target", to), label(q, source, "the source", from));
  keep(q, source->id, f);
  release(f);
}

/* One watched walk for all sources of a kind. */
static lt_status look_again(const lt_question *q, bool zero, int sources, lt_tensor **source) {
  lt_question asked = *q;
  asked.sources = sources;
  asked.source = source;
  search *s = calloc(1, sizeof *s);
  if (!s) return lt_fail_memory(q->tape->ctx, sizeof *s);
  s->observer.seen = seen;
  s->zero = zero;
  lt_values values = {0};
  lt_status status = says_why(q, zero) ? LT_OK : lt_walk_again(&asked, &s->observer);
  if (status == LT_OK && !zero) {
    status = lt_values_open(&values, q->tape, q->targets, q->target);
    for (int i = 0; i < sources && status == LT_OK; i++) {
      status = lt_values_add(&values, source[i]->id, source[i]);
    }
  }
  for (int i = 0; i < sources && status == LT_OK; i++) {
    status = find_out(q, s, &values, source[i]);
  }
  lt_values_close(&values);
  for (int i = 0; i < s->count; i++) release(s->event[i].inner);
  free(s);
  return status;
}

/* Runs ops and rules with nothing recording: no tape, no history, no random numbers used up. */
static void look_quietly(const lt_question *q, bool zero, int sources, lt_tensor **source) {
  lt_context *ctx = q->tape->ctx;
  lt_random random = ctx->random;
  uint64_t listening = ctx->listening;
  int64_t limit = ctx->history.limit;
  struct lt_noting *noting = ctx->noting;
  ctx->listening = 0;
  ctx->history.limit = 0;
  ctx->noting = NULL;
  ctx->diagnosing++;
  lt_status status = look_again(q, zero, sources, source);
  ctx->diagnosing--;
  ctx->noting = noting;
  ctx->history.limit = limit;
  ctx->listening = listening & ctx->open;
  ctx->random = random;
  if (status == LT_INTERRUPTED) ctx->interrupted = 1; /* for the next op */
}

void lt_diagnose(const lt_question *q, lt_tensor *const *gradients) {
  lt_context *ctx = q->tape->ctx;
  lt_tensor **found = NULL; /* not finite from the front, zero from the back */
  int bad = 0, zero = 0;
  q->tape->found = false;
  bool inside = ctx->walks > 1 && !ctx->diagnosing; /* of a rule: the outer one tells */
  if (inside || ctx->diagnosing > 4 || q->tape->held || ctx->vmaps > 0 || q->targets == 0) return;
  for (int i = 0; i < q->sources; i++) {
    if (!gradients[i]) continue;
    if (q->tape->noted_count > 0) forget(q->tape, q->target[0]->id, q->source[i]->id);
    lt_look look = lt_look_at(gradients[i]);
    if (!look.nonfinite && !look.zero) continue;
    if (look.zero && !is_new_zero(q, q->source[i])) {
      if (!recall(q, q->source[i])) tell_known_zero(q, q->source[i]);
      continue;
    }
    if (!found) found = malloc((size_t)q->sources * sizeof *found);
    if (!found) return;
    if (look.nonfinite)
      found[bad++] = q->source[i];
    else
      found[q->sources - ++zero] = q->source[i];
  }
  if (bad > 0) look_quietly(q, false, bad, found);
  if (zero > 0) look_quietly(q, true, zero, found + q->sources - zero);
  free(found);
}
