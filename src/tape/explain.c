/* Two sweeps over the history and the tape: forwards, which values depend on the source at all;
 * backwards from the target, through which nodes on the way, and which of them cut. */
#include "tape/explain.h"

#include <stdio.h>
#include <string.h>

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

static bool touches(lt_node *n, const lt_ids *set, bool outputs) {
  int count = outputs ? n->outputs : n->inputs;
  for (int i = 0; i < count; i++) {
    if (lt_ids_has(set, outputs ? lt_node_out(n, i)->id : lt_node_in(n, i)->id)) return true;
  }
  return false;
}

static lt_status add_all(lt_context *ctx, lt_node *n, lt_ids *set, bool outputs) {
  int count = outputs ? n->outputs : n->inputs;
  for (int i = 0; i < count; i++) {
    uint64_t id = outputs ? lt_node_out(n, i)->id : lt_node_in(n, i)->id;
    if (id) LT_TRY(lt_ids_add(ctx, set, id));
  }
  return LT_OK;
}

static bool uses(lt_node *n, uint64_t id) {
  for (int i = 0; i < n->inputs; i++) {
    if (lt_node_in(n, i)->id == id) return true;
  }
  return false;
}

/* What kind of cut a node off the tape is. */
static const char *code_of(const lt_tape *tape, lt_node *n, const lt_tensor *source) {
  bool before = age(n) < tape->first_id;
  bool integer = !lt_dtype_is_float((lt_dtype)lt_node_out(n, 0)->dtype);
  switch ((lt_reason)n->reason) {
  case LT_CUT: return "stopped";
  case LT_IN_NO_GRAD: return "no-grad";
  case LT_NO_GRADIENT:
    if (strcmp(n->op->name, "assign") == 0) return "assigned";
    return integer && strcmp(n->op->name, "to") == 0 ? "int-cast" : "nondiff-op";
  case LT_RECORDED:
    if (before && age(n) >= tape->opened_id) return "reset";
    return before ? "outside-tape" : "other-tape";
  case LT_TAPE_PAUSED: return before ? "outside-tape" : "paused";
  case LT_NO_TAPE: return "outside-tape";
  case LT_UNCONNECTED: break;
  }
  if (before) return "outside-tape";
  if (source->variable && !source->trainable) return "frozen";
  if (lt_ids_has(&tape->watched, source->id)) return "late-watch";
  return "unwatched";
}

/* ---- Texts ---------------------------------------------------------------------------------- */

static const char *name_of(const lt_tensor *t, const char *otherwise) {
  return t->name ? t->name : otherwise;
}

/* What happened, and what to write instead, after the first line. */
static void describe(const lt_tape *tape, const lt_tensor *source, const lt_why *w, char *text,
                     size_t room) {
  const lt_context *ctx = tape->ctx;
  char at[LT_SITE_TEXT], opened[LT_SITE_TEXT];
  const char *name = name_of(source, "the source"), *op = w->op ? w->op : "?";
  lt_site_text(ctx, w->where, at);
  lt_site_text(ctx, tape->opened, opened);
#define SAY(...) snprintf(text, room, __VA_ARGS__)
#define IS(CODE) (strcmp(w->code, CODE) == 0)
  if (IS("outside-tape")) {
    SAY("%s was last used by %s at %s, while this tape, opened at %s, did not record.\n"
        "  Move the call at %s between lt.tape() and gradient, or use opt:minimize(f, vars).",
        name, op, at, opened, at);
  } else if (IS("no-grad")) {
    SAY("%s at %s ran inside lt.no_grad.\n  Call it outside lt.no_grad.", op, at);
  } else if (IS("paused")) {
    SAY("%s at %s ran while the tape was paused.\n  Call it before tape:stop or after tape:resume.",
        op, at);
  } else if (IS("reset")) {
    SAY("what was recorded until then was forgotten by tape:reset at %s.\n"
        "  Run the forward pass after the reset.",
        at);
  } else if (IS("other-tape")) {
    SAY("%s at %s was recorded by another tape, not by the one opened at %s.\n"
        "  Ask the tape that listened then.",
        op, at, opened);
  } else if (IS("stopped")) {
    SAY("%s at %s cuts every path.\n  Remove it, or leave %s out of the sources.", op, at, name);
  } else if (IS("unwatched")) {
    SAY("no one watched %s when %s used it at %s.\n"
        "  Call tape:watch on it first, or make it with lt.variable.",
        name, op, at);
  } else if (IS("late-watch")) {
    SAY("%s used %s at %s, before tape:watch.\n  Watch it before its first use.", op, name, at);
  } else if (IS("frozen")) {
    SAY("%s is not trainable.\n  Set its trainable to true (m:unfreeze()), or watch it.", name);
  } else if (IS("rebound")) {
    SAY("%s is not a variable but the result of %s at %s: another object than the variable.\n"
        "  Update variables in place: v:assign_sub(...).",
        name, op, at);
  } else if (IS("int-dtype")) {
    SAY("%s is %s, made at %s; only floats have gradients.\n"
        "  Make it with {dtype = \"float32\"}.",
        name, lt_dtype_name((lt_dtype)source->dtype), at);
  } else if (IS("int-cast")) {
    SAY("every path is cast to an integer or bool at %s.\n  Keep it a float.", at);
  } else if (IS("nondiff-op")) {
    SAY("every path goes through %s at %s, which has no gradient.", op, at);
  } else if (IS("assigned")) {
    SAY("the value passed through a write in place at %s, which carries no gradient.", at);
  } else if (IS("dead-end")) {
    SAY("%s was used, last by %s at %s, but that result does not reach the target.", name, op, at);
  } else if (IS("unused")) {
    SAY("%s was not used since the tape was opened at %s.", name, opened);
  } else {
    SAY("%s is connected to the target.", name);
  }
#undef IS
#undef SAY
}

static void write_message(const lt_tape *tape, const lt_tensor *target, const lt_tensor *source,
                          lt_why *w) {
  bool connected = strcmp(w->code, "ok") == 0 || strcmp(w->code, "partial") == 0;
  int n = snprintf(w->message, LT_WHY_TEXT, "%s of '%s' with respect to '%s' [%s]\n  ",
                   connected ? "a gradient" : "no gradient", name_of(target, "the target"),
                   name_of(source, "the source"), w->code);
  if (n > 0 && n < LT_WHY_TEXT) {
    describe(tape, source, w, w->message + n, (size_t)(LT_WHY_TEXT - n));
  }
}

/* ---- The search --------------------------------------------------------------------------------
 */

typedef struct search {
  lt_tape *tape;
  lt_tensor *source;
  lt_ids dependent; /* values that depend on the source */
  lt_ids clean;     /* those from which recorded nodes alone lead to a target */
  lt_ids reached;   /* those from which any nodes lead to a target */
  bool connected;
  lt_node *use;      /* the last node that reads the source itself ... */
  lt_node *on_path;  /* ... and lies on a path to the target */
  lt_node *path_use; /* ... and that off the tape */
} search;

static lt_status forwards(search *s) {
  sweep w = {.ctx = s->tape->ctx, .tape = s->tape};
  bool on_tape;
  for (lt_node *n; (n = next(&w, &on_tape));) {
    if (uses(n, s->source->id)) s->use = n;
    if (touches(n, &s->dependent, false)) LT_TRY(add_all(s->tape->ctx, n, &s->dependent, true));
  }
  return LT_OK;
}

static lt_status backwards(search *s, lt_why *why) {
  lt_context *ctx = s->tape->ctx;
  sweep w = {ctx, s->tape, ctx->history.count, s->tape->count};
  bool on_tape;
  for (lt_node *n; (n = previous(&w, &on_tape));) {
    if (!touches(n, &s->reached, true) || !touches(n, &s->dependent, false)) continue;
    bool reads = uses(n, s->source->id);
    LT_TRY(add_all(ctx, n, &s->reached, false));
    if (reads && !s->on_path) s->on_path = n;
    if (on_tape) {
      if (touches(n, &s->clean, true)) {
        LT_TRY(add_all(ctx, n, &s->clean, false));
        s->connected = s->connected || reads;
      }
      continue;
    }
    if (reads && !s->path_use) s->path_use = n;
    /* A value that follows a cut is watched by nobody either: the cut itself is told. */
    if (n->reason == LT_UNCONNECTED && age(n) >= s->tape->first_id && !reads) continue;
    if (why->cuts < LT_MAX_CUTS) {
      why->cut[why->cuts++] = (lt_cut){code_of(s->tape, n, s->source), n->site, n->op->name};
    }
  }
  return LT_OK;
}

/* Codes whose place is the use of the source, not the cut nearest to the target. */
static bool told_at_use(const char *code) {
  return strcmp(code, "outside-tape") == 0 || strcmp(code, "no-grad") == 0 ||
         strcmp(code, "paused") == 0 || strcmp(code, "unwatched") == 0 ||
         strcmp(code, "other-tape") == 0 || strcmp(code, "frozen") == 0 ||
         strcmp(code, "late-watch") == 0;
}

static void set(lt_why *why, const char *code, lt_site where, const char *op) {
  why->code = code;
  why->where = where;
  why->op = op;
}

static void conclude(search *s, lt_why *why) {
  lt_context *ctx = s->tape->ctx;
  lt_node *maker = lt_history_find(ctx, s->source->id);
  lt_site made = maker ? maker->site : (lt_site){0, 0};
  if (!lt_dtype_is_float((lt_dtype)s->source->dtype)) {
    set(why, "int-dtype", made, maker ? maker->op->name : NULL);
  } else if (s->connected && s->on_path && !lt_tape_knows(s->tape, s->source)) {
    bool frozen = s->source->variable && !s->source->trainable;
    set(why, frozen ? "frozen" : "unwatched", s->on_path->site, s->on_path->op->name);
  } else if (s->connected) {
    set(why, why->cuts ? "partial" : "ok", why->cuts ? why->cut[0].where : made,
        why->cuts ? why->cut[0].op : NULL);
  } else if (why->cuts > 0) {
    lt_cut c = why->cut[0];
    if (s->path_use && told_at_use(c.code) && code_of(s->tape, s->path_use, s->source) == c.code) {
      c.where = s->path_use->site;
      c.op = s->path_use->op->name;
    }
    if (strcmp(c.code, "unwatched") == 0 && !s->source->variable && maker && maker->inputs > 0) {
      c = (lt_cut){"rebound", made, maker->op->name};
    } else if (strcmp(c.code, "reset") == 0) {
      c.where = s->tape->reset_at;
      c.op = "reset";
    }
    set(why, c.code, c.where, c.op);
  } else if (s->use && age(s->use) >= s->tape->opened_id) {
    set(why, "dead-end", s->use->site, s->use->op->name);
  } else {
    set(why, "unused", s->tape->opened, NULL);
  }
}

lt_status lt_explain(lt_tape *tape, int targets, lt_tensor *const *target, lt_tensor *source,
                     lt_why *why) {
  lt_context *ctx = tape->ctx;
  search s = {.tape = tape, .source = source};
  *why = (lt_why){.code = "ok"};
  lt_status status = lt_ids_add(ctx, &s.dependent, source->id);
  for (int i = 0; i < targets && status == LT_OK; i++) {
    status = lt_ids_add(ctx, &s.reached, target[i]->id);
    if (status == LT_OK) status = lt_ids_add(ctx, &s.clean, target[i]->id);
    s.connected = s.connected || target[i]->id == source->id;
  }
  if (status == LT_OK) status = forwards(&s);
  if (status == LT_OK) status = backwards(&s, why);
  if (status == LT_OK) {
    conclude(&s, why);
    write_message(tape, targets > 0 ? target[0] : source, source, why);
  }
  lt_ids_clear(&s.dependent);
  lt_ids_clear(&s.clean);
  lt_ids_clear(&s.reached);
  return status;
}
