/* Two sweeps over the history and the tape: forwards, which values depend on the source at all;
 * backwards from the target, through which nodes on the way, and which of them cut. */
#include "tape/explain.h"
#include "ops/ops.h"
#include "tape/diagnose.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The codes of cuts, compared by address. */
static const char OUTSIDE_TAPE[] = "outside-tape", NO_GRAD[] = "no-grad", PAUSED[] = "paused",
                  RESET[] = "reset", OTHER_TAPE[] = "other-tape", SECOND_ORDER[] = "second-order",
                  STOPPED[] = "stopped", UNWATCHED[] = "unwatched", LATE_WATCH[] = "late-watch",
                  FROZEN[] = "frozen", REBOUND[] = "rebound", ASSIGNED[] = "assigned",
                  LEFT_TENSORS[] = "left-tensors", INT_DTYPE[] = "int-dtype",
                  INT_CAST[] = "int-cast", NONDIFF_OP[] = "nondiff-op", DEAD_END[] = "dead-end",
                  UNUSED[] = "unused", DROPPED[] = "history-dropped", PARTIAL[] = "partial",
                  CONNECTED[] = "ok";

typedef struct search {
  lt_context *ctx;
  lt_tape *tape;
  lt_tensor *source;
  int targets;
  lt_tensor *const *target;
  lt_why *why;
  lt_ids dependent; /* values that depend on the source */
  lt_ids ancestry;  /* values that the targets are made of */
  lt_ids direct;    /* those that count as paths: not as a mask or index, not as an older state */
  lt_ids clean;     /* those from which recorded nodes alone lead to a target */
  bool is_direct[LT_MAX_CUTS];
  bool connected;
  bool unknown;           /* part of the ancestry is not known any more */
  const lt_node *use;     /* the last that read the source while the tape was open */
  const lt_node *nearest; /* of the first cut */
} search;

/* ---- Nodes -------------------------------------------------------------------------------------
 */

/* The nodes of the history and of the tape, merged by age; a node may be in both. */
typedef struct sweep {
  const lt_context *ctx;
  const lt_tape *tape;
  int64_t h, t; /* next in each */
} sweep;

static uint64_t age(const lt_node *n) { return n->edge[n->inputs].id; }

/* The next younger node, and whether the tape recorded it. */
static lt_node *next(sweep *s, bool *on_tape) {
  lt_node *h = s->h < s->ctx->history.count ? lt_history_at(s->ctx, s->h) : NULL;
  lt_node *t = s->t < s->tape->count ? s->tape->nodes[s->t] : NULL;
  *on_tape = t && (!h || age(t) <= age(h));
  if (t && *on_tape) {
    s->t++;
    s->h += h == t;
    return t;
  }
  s->h += h != NULL;
  return h;
}

/* The next older one; starts with h and t at the counts. */
static lt_node *previous(sweep *s, bool *on_tape) {
  lt_node *h = s->h > 0 ? lt_history_at(s->ctx, s->h - 1) : NULL;
  lt_node *t = s->t > 0 ? s->tape->nodes[s->t - 1] : NULL;
  *on_tape = t && (!h || age(t) >= age(h));
  if (t && *on_tape) {
    s->t--;
    s->h -= h == t;
    return t;
  }
  s->h -= h != NULL;
  return h;
}

static lt_node *maker_of(const search *s, uint64_t id) {
  lt_node *n = lt_tape_find(s->tape, id);
  return n ? n : lt_history_find(s->ctx, id);
}

static bool in_life(const lt_tape *tape, const lt_node *n) {
  return age(n) >= tape->opened_id && age(n) < tape->left_id;
}

/* A variable that is written keeps its identity: such a node has it as its first input. */
static bool writes_variable(const lt_node *n) {
  return n->op == &lt_op_assign && n->edge[0].variable;
}
static bool changes_variable(const search *s, const lt_node *n) {
  return writes_variable(n) && in_life(s->tape, n);
}
/* Where the inputs begin that the node reads. */
static int first_read(const lt_node *n) { return writes_variable(n) ? 1 : 0; }

static bool uses(const lt_node *n, uint64_t id) {
  for (int i = first_read(n); i < n->inputs; i++) {
    if (n->edge[i].id == id) return true;
  }
  return false;
}

/* zeros_like(x) and its kin look at the shape alone. */
static bool reads_values(const lt_node *n) {
  size_t length = strlen(n->op->name);
  return length < 5 || strcmp(n->op->name + length - 5, "_like") != 0;
}

static bool reads_any(const lt_node *n, const lt_ids *set) {
  for (int i = first_read(n); i < n->inputs; i++) {
    if (lt_ids_has(set, n->edge[i].id)) return true;
  }
  return false;
}

static bool is_float(const lt_edge *e) { return lt_dtype_is_float((lt_dtype)e->dtype); }

enum { ANY, FLOATS, OTHERS };

static bool makes_any(const search *s, const lt_node *n, const lt_ids *set, int kind) {
  if (changes_variable(s, n)) return lt_ids_has(set, n->edge[0].id);
  for (int i = n->inputs; i < n->inputs + n->outputs; i++) {
    bool fits = kind == ANY || is_float(&n->edge[i]) == (kind == FLOATS);
    if (fits && lt_ids_has(set, n->edge[i].id)) return true;
  }
  return false;
}

/* ---- What kind of cut a node is ----------------------------------------------------------------
 */

static const lt_watch *watch_of(const lt_tape *tape, uint64_t id) {
  for (int64_t i = 0; i < tape->watch_count; i++) {
    if (tape->watches[i].id == id) return &tape->watches[i];
  }
  return NULL;
}

/* Why a listening tape took no notice of the source; `at` is how old ids were. NULL: it would
 * have. */
static const char *code_of_source(const search *s, uint64_t at) {
  const lt_tensor *source = s->source;
  const lt_watch *watch = watch_of(s->tape, source->id);
  if (!lt_dtype_is_float((lt_dtype)source->dtype)) return INT_DTYPE;
  if (watch) return watch->at > at ? LATE_WATCH : NULL;
  if (!source->variable) return UNWATCHED;
  if (!source->trainable || source->frozen.chunk) return FROZEN;
  return s->tape->watch_variables ? NULL : UNWATCHED;
}

/* A tensor built by the program, of numbers that may have been read before. */
static bool is_built(const lt_node *n) {
  return n->op == &lt_op_tensor || n->op == &lt_op_variable;
}

/* Is the node a cut whenever and wherever it runs? */
static const char *code_of_op(const lt_node *n) {
  bool makes_float = false;
  for (int i = n->inputs; i < n->inputs + n->outputs; i++) {
    makes_float = makes_float || is_float(&n->edge[i]);
  }
  if (n->reason == LT_READ) return LEFT_TENSORS;
  if (n->reason == LT_IN_GRADIENT) return SECOND_ORDER;
  if (n->op->cuts) return STOPPED;
  if (n->op == &lt_op_assign) return ASSIGNED;
  if (is_built(n)) return NULL;
  if (!makes_float) return strcmp(n->op->name, "to") == 0 ? INT_CAST : NONDIFF_OP;
  bool by_hand = n->op == &lt_op_custom || n->op == &lt_op_vmap;
  return n->op->vjp || n->op->jvp || by_hand ? NULL : NONDIFF_OP;
}

/* Does the node read a value that the tape would know: the source, or one that it recorded? */
static bool leaves_tape(const search *s, const lt_node *n) {
  for (int i = first_read(n); i < n->inputs; i++) {
    uint64_t id = n->edge[i].id;
    if (is_float(&n->edge[i]) && id != s->source->id && lt_ids_has(&s->dependent, id) &&
        lt_tape_find(s->tape, id)) {
      return true;
    }
  }
  return false;
}

/* The code of a node on the way that the tape did not record. NULL: a value that no one watched
 * passed here, since a cut before it. */
static const char *code_of(const search *s, const lt_node *n) {
  const lt_tape *tape = s->tape;
  const char *code = code_of_op(n);
  if (code || is_built(n)) return code;
  if (n->reason == LT_IN_NO_GRAD) return NO_GRAD;
  if (!in_life(tape, n)) return n->reason == LT_RECORDED ? OTHER_TAPE : OUTSIDE_TAPE;
  if (n->reason == LT_TAPE_PAUSED) return PAUSED;
  bool reads = uses(n, s->source->id), leaves = leaves_tape(s, n);
  if (!reads && !leaves) return age(n) < tape->first_id ? RESET : NULL;
  code = reads ? code_of_source(s, age(n)) : NULL;
  if (!code && age(n) < tape->first_id) return RESET;
  if (n->reason == LT_RECORDED && code) return OTHER_TAPE;
  return code ? code : PAUSED;
}

/* Several nodes in one place outside the tape are one cut, told at the first of them: does this one
 * only go on with what another began? */
static bool goes_on(const search *s, const lt_node *n, const char *code) {
  bool any = false;
  for (int i = first_read(n); i < n->inputs; i++) {
    uint64_t id = n->edge[i].id;
    if (!lt_ids_has(&s->dependent, id)) continue;
    if (id == s->source->id || lt_tape_find(s->tape, id)) return false;
    const lt_node *maker = lt_history_find(s->ctx, id);
    if (!maker || !maker->on_way || code_of(s, maker) != code) return false;
    any = true;
  }
  return any;
}

/* ---- The cuts ----------------------------------------------------------------------------------
 */

/* Is the source, a plain tensor, computed from a variable? */
static bool is_computed(const search *s, const lt_node *made) {
  lt_ids parts = {0};
  sweep w = {s->ctx, s->tape, s->ctx->history.count, s->tape->count};
  bool on_tape, found = false;
  if (s->source->variable || !made || is_built(made)) return false;
  lt_status status = lt_ids_add(s->ctx, &parts, s->source->id);
  for (lt_node *n; status == LT_OK && !found && (n = previous(&w, &on_tape));) {
    if (!makes_any(s, n, &parts, ANY)) continue;
    for (int i = 0; i < n->inputs && status == LT_OK; i++) {
      found = found || n->edge[i].variable;
      if (n->edge[i].id) status = lt_ids_add(s->ctx, &parts, n->edge[i].id);
    }
  }
  lt_ids_clear(&parts);
  return found;
}

/* A cut whose place is not the node's own. */
static lt_cut place_cut(const search *s, const char *code, const lt_node *n) {
  lt_cut cut = {code, n ? n->site : (lt_site){0, 0}, n ? n->called->name : NULL};
  const lt_node *made = maker_of(s, s->source->id);
  if (code == SECOND_ORDER) {
    cut.op = "gradient";
  } else if (code == RESET) {
    cut = (lt_cut){code, s->tape->reset_at, "reset"};
  } else if (code == LATE_WATCH) {
    cut = (lt_cut){code, watch_of(s->tape, s->source->id)->site, "watch"};
  } else if (code == FROZEN) {
    cut = (lt_cut){code, s->source->frozen, "trainable"};
  } else if (code == INT_DTYPE) {
    cut = (lt_cut){code, made ? made->site : s->source->frozen, made ? made->called->name : NULL};
  } else if (code == UNWATCHED) {
    if (is_computed(s, made)) cut = (lt_cut){REBOUND, made->site, made->called->name};
    if (!n && made) cut = (lt_cut){code, made->site, made->called->name};
  }
  return cut;
}

static void add_cut(search *s, const char *code, const lt_node *n, bool direct) {
  lt_why *why = s->why;
  lt_cut cut = place_cut(s, code, n);
  for (int i = 0; i < why->cuts; i++) {
    lt_cut *c = &why->cut[i];
    if (c->code != cut.code) continue;
    if (c->code == UNWATCHED) *c = cut; /* its first use tells most */
    if (c->where.chunk == cut.where.chunk && c->where.line == cut.where.line && c->op == cut.op) {
      s->is_direct[i] = s->is_direct[i] || direct;
      return;
    }
  }
  if (why->cuts == LT_MAX_CUTS) return;
  if (why->cuts == 0) s->nearest = n;
  s->is_direct[why->cuts] = direct;
  why->cut[why->cuts++] = cut;
}

/* ---- The sweeps --------------------------------------------------------------------------------
 */

static lt_status forwards(search *s) {
  sweep w = {.ctx = s->ctx, .tape = s->tape};
  bool on_tape;
  for (lt_node *n; (n = next(&w, &on_tape));) {
    if (uses(n, s->source->id) && reads_values(n) && in_life(s->tape, n)) s->use = n;
    n->on_way = reads_any(n, &s->dependent);
    if (!n->on_way) continue;
    if (changes_variable(s, n)) LT_TRY(lt_ids_add(s->ctx, &s->dependent, n->edge[0].id));
    for (int i = n->inputs; i < n->inputs + n->outputs; i++) {
      LT_TRY(lt_ids_add(s->ctx, &s->dependent, n->edge[i].id));
    }
  }
  return LT_OK;
}

/* Could value `id` depend on the source in a way that is forgotten? */
static bool is_forgotten(const search *s, uint64_t id) {
  const lt_history *h = &s->ctx->history;
  uint64_t oldest = h->count > 0 ? age(lt_history_at(s->ctx, 0)) : s->ctx->next_id;
  return id > s->source->id && id < oldest && !lt_tape_find(s->tape, id);
}

static lt_status add_inputs(search *s, const lt_node *n, bool on_tape, bool direct, bool clean) {
  for (int i = first_read(n); i < n->inputs; i++) {
    const lt_edge *e = &n->edge[i];
    if (!e->id) continue;
    LT_TRY(lt_ids_add(s->ctx, &s->ancestry, e->id));
    if (!e->variable && is_forgotten(s, e->id)) s->unknown = true;
    bool selects = on_tape && !is_float(e); /* a mask or an index */
    if (direct && !selects) LT_TRY(lt_ids_add(s->ctx, &s->direct, e->id));
    if (!clean || selects || e->none) continue;
    LT_TRY(lt_ids_add(s->ctx, &s->clean, e->id));
  }
  return LT_OK;
}

static void look_for_cut(search *s, const lt_node *n, bool on_tape, bool direct) {
  bool reads = uses(n, s->source->id);
  if (!on_tape) {
    const char *code = code_of(s, n);
    if (code && !(code != SECOND_ORDER && !code_of_op(n) && goes_on(s, n, code))) {
      add_cut(s, code, n, direct);
    }
    return;
  }
  bool cut = makes_any(s, n, &s->ancestry, OTHERS) && !makes_any(s, n, &s->ancestry, FLOATS);
  for (int i = 0; i < n->inputs; i++) {
    cut = cut || (n->edge[i].none && lt_ids_has(&s->dependent, n->edge[i].id));
  }
  if (cut) add_cut(s, NONDIFF_OP, n, direct);
  if (reads && !lt_tape_knows(s->tape, s->source)) {
    const char *code = code_of_source(s, age(n));
    add_cut(s, code ? code : UNWATCHED, n, direct);
  }
}

static lt_status backwards(search *s) {
  sweep w = {s->ctx, s->tape, s->ctx->history.count, s->tape->count};
  bool on_tape;
  for (lt_node *n; (n = previous(&w, &on_tape));) {
    if (!makes_any(s, n, &s->ancestry, ANY)) continue;
    bool is_state = n->op == &lt_op_assign && age(n) < s->tape->opened_id;
    bool direct = !is_state && makes_any(s, n, &s->direct, ANY);
    bool clean = on_tape && makes_any(s, n, &s->clean, FLOATS);
    if (n->on_way) look_for_cut(s, n, on_tape, direct);
    LT_TRY(add_inputs(s, n, on_tape, direct, clean));
  }
  s->connected = lt_ids_has(&s->clean, s->source->id) && lt_tape_knows(s->tape, s->source);
  return LT_OK;
}

/* How many paths of recorded nodes lead from the source to the targets: all outputs of a node have
 * the sum of its inputs' numbers. */
static lt_status count_paths(const search *s) {
  lt_tape *tape = s->tape;
  size_t bytes = (size_t)(tape->count + 1) * sizeof(double);
  double *count = malloc(bytes);
  if (!count) return lt_fail_memory(s->ctx, (long long)bytes);
  for (int64_t k = 0; k < tape->count; k++) {
    const lt_node *n = tape->nodes[k];
    count[k] = 0;
    for (int i = 0; i < n->inputs; i++) {
      const lt_edge *e = &n->edge[i];
      if (!is_float(e) || e->none) continue;
      int64_t maker = e->id == s->source->id ? -1 : lt_tape_index(tape, e->id);
      count[k] += e->id == s->source->id ? 1 : maker >= 0 ? count[maker] : 0;
    }
  }
  for (int t = 0; t < s->targets; t++) {
    uint64_t id = s->target[t]->id;
    int64_t maker = lt_tape_index(tape, id);
    s->why->paths += id == s->source->id ? 1 : maker >= 0 ? count[maker] : 0;
  }
  free(count);
  return LT_OK;
}

/* ---- The answer --------------------------------------------------------------------------------
 */

static void answer(lt_why *why, const char *code, lt_site where, const char *op) {
  why->code = code;
  why->where = where;
  why->op = op;
}

/* Masks, indices and what was written before the tape was opened take nothing from a gradient that
 * is there. */
static void drop_indirect(search *s) {
  int kept = 0;
  for (int i = 0; i < s->why->cuts; i++) {
    if (s->is_direct[i]) s->why->cut[kept++] = s->why->cut[i];
  }
  s->why->cuts = kept;
}

static void conclude(search *s) {
  lt_why *why = s->why;
  lt_tape *tape = s->tape;
  const lt_node *made = maker_of(s, s->source->id);
  lt_site created = made ? made->site : s->source->frozen;
  if (!lt_dtype_is_float((lt_dtype)s->source->dtype)) {
    add_cut(s, INT_DTYPE, NULL, true); /* whatever else there is */
    answer(why, INT_DTYPE, created, made ? made->called->name : NULL);
    return;
  }
  if (!s->connected && lt_ids_has(&s->clean, s->source->id) && why->cuts == 0) { /* the target */
    const char *code = code_of_source(s, tape->left_id);
    add_cut(s, code ? code : UNWATCHED, NULL, true);
  }
  if (s->connected) drop_indirect(s);
  const lt_cut *cut = why->cuts > 0 ? &why->cut[0] : NULL;
  if (cut) {
    answer(why, s->connected ? PARTIAL : cut->code, cut->where, cut->op);
  } else if (s->connected) {
    answer(why, CONNECTED, created, NULL);
  } else if (s->unknown) {
    answer(why, DROPPED, tape->opened, NULL);
  } else if (s->use) {
    answer(why, DEAD_END, s->use->site, s->use->called->name);
  } else {
    answer(why, UNUSED, tape->opened, NULL);
  }
}

/* ---- Texts -------------------------------------------------------------------------------------
 */

enum { LABEL = 160 };

/* "'w'", or for want of a name "the result of mean at train.lua:9". */
static const char *label(const search *s, const lt_tensor *t, const char *otherwise,
                         char text[LABEL]) {
  char at[LT_SITE_TEXT];
  const lt_node *made = maker_of(s, t->id);
  if (t->name)
    snprintf(text, LABEL, "'%s'", t->name);
  else if (made && made->site.chunk)
    snprintf(text, LABEL, "%s %s at %s", is_built(made) ? "the" : "the result of",
             made->called->name, lt_site_text(s->ctx, made->site, at));
  else
    snprintf(text, LABEL, "%s", otherwise);
  return text;
}

/* What does as well as the op, and has a gradient. */
static const char *instead_of(const char *op) {
  static const char *const known[][2] = {
      {"argmax", "Use softmax(x, dim), which says the same smoothly."},
      {"argmin", "Use softmax(-x, dim), which says the same smoothly."},
      {"argsort", "Use the sorted values (the first result of sort)."},
      {"gt", "Use a smooth step, sigmoid(k * x), or relu."},
      {"ge", "Use a smooth step, sigmoid(k * x), or relu."},
      {"lt", "Use a smooth step, sigmoid(-k * x), or relu."},
      {"le", "Use a smooth step, sigmoid(-k * x), or relu."},
      {"eq", "Use a distance, (a - b) ^ 2 or exp(-(a - b) ^ 2)."},
      {"ne", "Use a distance, (a - b) ^ 2."},
  };
  for (size_t i = 0; op && i < sizeof known / sizeof *known; i++) {
    if (strcmp(op, known[i][0]) == 0) return known[i][1];
  }
  return "Take a differentiable op, or give it a gradient by lt.custom_gradient.";
}

/* When, beside the life of the tape, a node ran. */
static const char *when(const search *s, const lt_node *n, char text[LABEL]) {
  char at[LT_SITE_TEXT];
  const lt_tape *tape = s->tape;
  if (age(n) < tape->opened_id)
    snprintf(text, LABEL, "before this tape was opened at %s",
             lt_site_text(s->ctx, tape->opened, at));
  else if (tape->consumed)
    snprintf(text, LABEL, "after this tape was used up at %s",
             lt_site_text(s->ctx, tape->consumed_at, at));
  else
    snprintf(text, LABEL, "after this tape was closed");
  return text;
}

/* What happened, and what to write instead, after the first line. */
static int describe(const search *s, char *text, size_t room) {
  const lt_why *w = s->why;
  char at[LT_SITE_TEXT], opened[LT_SITE_TEXT], ran[LABEL];
  const char *name = s->source->name ? s->source->name : "the source";
  const char *op = w->op ? w->op : "?", *code = w->code;
  const lt_node *n = s->nearest;
  lt_site_text(s->ctx, w->where, at);
  lt_site_text(s->ctx, s->tape->opened, opened);
#define SAY(...) return snprintf(text, room, __VA_ARGS__)
  if (code == OUTSIDE_TAPE && n && uses(n, s->source->id)) {
    SAY("%s was last used by %s at %s, %s.\n"
        "  Move the call at %s between lt.tape() and gradient, or use opt:minimize(f, vars).",
        name, op, at, when(s, n, ran), at);
  } else if (code == OUTSIDE_TAPE && n) {
    SAY("%s at %s ran %s.\n  Move that call between lt.tape() and gradient.", op, at,
        when(s, n, ran));
  } else if (code == NO_GRAD) {
    SAY("%s at %s ran inside lt.no_grad.\n  Call it outside lt.no_grad.", op, at);
  } else if (code == PAUSED) {
    SAY("%s at %s ran while this tape was paused.\n"
        "  Call it before tape:stop or after tape:resume, and outside tape:paused.",
        op, at);
  } else if (code == RESET) {
    SAY("what was recorded until then was forgotten by tape:reset at %s.\n"
        "  Run the forward pass after the reset.",
        at);
  } else if (code == OTHER_TAPE && n && !in_life(s->tape, n)) {
    SAY("%s at %s was recorded by another tape, %s.\n"
        "  Ask the tape that listened then, or run it again under this one.",
        op, at, when(s, n, ran));
  } else if (code == OTHER_TAPE) {
    SAY("%s at %s was recorded by another tape, not by the one opened at %s.\n"
        "  Ask the tape that watches %s, or call tape:watch on it here too.",
        op, at, opened, name);
  } else if (code == STOPPED) {
    SAY("%s at %s cuts the path on purpose.\n  Remove it, or leave %s out of the sources.", op, at,
        name);
  } else if (code == UNWATCHED && s->source->variable) {
    SAY("this tape, opened at %s with watch_variables = false, does not watch %s by itself.\n"
        "  Call tape:watch on it before its use at %s.",
        opened, name, at);
  } else if (code == UNWATCHED) {
    SAY("no one watched %s when %s used it at %s.\n"
        "  Call tape:watch on it first, or make it with lt.variable.",
        name, op, at);
  } else if (code == LATE_WATCH) {
    SAY("%s was watched at %s only after its use.\n  Watch it before its first use.", name, at);
  } else if (code == FROZEN) {
    SAY("%s is not trainable since %s.\n"
        "  Set its trainable to true (m:unfreeze()) before it is used, or watch it.",
        name, at);
  } else if (code == REBOUND) {
    SAY("%s is not a variable but the result of %s at %s: another object than the variable.\n"
        "  Update variables in place, v:assign_sub(...), or call tape:watch on the new tensor.",
        name, op, at);
  } else if (code == ASSIGNED) {
    SAY("the value passed through the write in place at %s, which carries no gradient.\n"
        "  Compute with the value itself (local new = ...) instead of writing it into a tensor.",
        at);
  } else if (code == LEFT_TENSORS) {
    SAY("the value was read as a plain number by %s at %s, and came back as a constant.\n"
        "  Compute with the tensor itself.",
        op, at);
  } else if (code == SECOND_ORDER) {
    SAY("the gradient taken at %s was recorded by no outer tape.\n"
        "  Open the tape that is asked before the inner one, and take that gradient inside it.",
        at);
  } else if (code == DROPPED) {
    SAY("only the last %lld operations outside this tape are known, and what led to the target is "
        "older.\n  lt.set_history(n) keeps more of them.",
        (long long)s->ctx->history.limit);
  } else if (code == PARTIAL) {
    SAY("%s reaches the target by %.0f path%s; %s is cut by %s at %s [%s].\n"
        "  Its share is missing from the gradient.",
        name, w->paths, w->paths == 1 ? "" : "s", w->cuts == 1 ? "another" : "the nearest other",
        op, at, w->cut[0].code);
  } else if (code == INT_DTYPE) {
    SAY("%s is %s, made at %s; only floats have gradients.\n"
        "  Make it with {dtype = \"float32\"}.",
        name, lt_dtype_name((lt_dtype)s->source->dtype), at);
  } else if (code == INT_CAST) {
    SAY("%s at %s casts the value to an integer or bool, which has no gradient.\n"
        "  Keep it a float; for a threshold take a smooth step, sigmoid(k * x).",
        op, at);
  } else if (code == NONDIFF_OP) {
    SAY("%s at %s has no gradient.\n  %s", op, at, instead_of(op));
  } else if (code == DEAD_END) {
    SAY("%s was used, last by %s at %s, but that result does not reach the target.\n"
        "  Use the result of that call in the target, or leave %s out of the sources.",
        name, op, at, name);
  } else if (code == UNUSED) {
    SAY("%s was not used since the tape was opened at %s.\n"
        "  Use it in the forward pass, or leave it out of the sources.",
        name, opened);
  }
  SAY("%s is connected to the target by %.0f path%s.", name, w->paths, w->paths == 1 ? "" : "s");
#undef SAY
}

/* Further cuts, or a target that is a mere constant. */
static void add_line(const search *s, char *text, size_t room) {
  const lt_why *w = s->why;
  char at[LT_SITE_TEXT];
  const lt_node *made = maker_of(s, s->target[0]->id);
  if (w->cuts > 1) {
    const lt_cut *c = &w->cut[w->cut[0].code == w->code || s->connected];
    snprintf(text, room, "\n  It is also cut by %s at %s [%s]%s.", c->op ? c->op : "its dtype",
             lt_site_text(s->ctx, c->where, at), c->code, w->cuts > 2 ? ", and further on" : "");
  } else if ((w->code == UNUSED || w->code == DEAD_END) && made && is_built(made)) {
    snprintf(text, room, "\n  The target is a constant, made by %s at %s.", made->called->name,
             lt_site_text(s->ctx, made->site, at));
  }
}

static void write_message(const search *s) {
  char from[LABEL], to[LABEL], *text = s->why->message;
  const size_t room = LT_WHY_TEXT;
  int n = snprintf(text, room, "%s of %s with respect to %s [%s]\n  ",
                   s->connected ? "a gradient" : "no gradient",
                   label(s, s->target[0], "the target", to),
                   label(s, s->source, "the source", from), s->why->code);
  if (n > 0 && (size_t)n < room) n += describe(s, text + n, room - (size_t)n);
  if (n > 0 && (size_t)n < room) add_line(s, text + n, room - (size_t)n);
}

/* What the values said when the gradient was taken: not finite tells more than a cut, a cut on some
 * of the paths more than zero. */
static void take_finding(search *s) {
  lt_why *why = s->why;
  if (why->code != CONNECTED && why->code != PARTIAL) return;
  const lt_finding *f = lt_finding_of(s->tape, s->target[0]->id, s->source->id);
  why->finding = f;
  if (!f || (why->code == PARTIAL && !f->phase)) return;
  answer(why, f->code, f->where, f->op);
  snprintf(why->message, LT_WHY_TEXT, "%s", f->message);
}

lt_status lt_explain(lt_tape *tape, int targets, lt_tensor *const *target, lt_tensor *source,
                     lt_why *why) {
  lt_context *ctx = tape->ctx;
  search s = {
      .ctx = ctx, .tape = tape, .source = source, .targets = targets, .target = target, .why = why};
  *why = (lt_why){.code = CONNECTED};
  if (targets == 0) return lt_fail(ctx, "explain: there is no target");
  lt_status status = lt_ids_add(ctx, &s.dependent, source->id);
  for (int i = 0; i < targets && status == LT_OK; i++) {
    uint64_t id = target[i]->id;
    status = lt_ids_add(ctx, &s.ancestry, id);
    if (status == LT_OK) status = lt_ids_add(ctx, &s.direct, id);
    if (status == LT_OK) status = lt_ids_add(ctx, &s.clean, id);
    s.unknown = s.unknown || (!target[i]->variable && is_forgotten(&s, id));
  }
  if (status == LT_OK) status = forwards(&s);
  if (status == LT_OK) status = backwards(&s);
  if (status == LT_OK && s.connected) status = count_paths(&s);
  if (status == LT_OK) {
    conclude(&s);
    write_message(&s);
    take_finding(&s);
  }
  lt_ids_clear(&s.dependent);
  lt_ids_clear(&s.ancestry);
  lt_ids_clear(&s.direct);
  lt_ids_clear(&s.clean);
  return status;
}
