/* The tape userdata, and what lua/luatape/tape.lua builds the user's interface with: walks over
 * flat lists, no_grad. */
#include "lua/host.h"
#include "ops/ops.h"
#include "tape/diagnose.h"
#include "tape/explain.h"
#include "tape/forward.h"

#include <stdlib.h>
#include <string.h>

typedef struct handle {
  lt_tape *tape;
  const void *mark; /* &host->tape_mt: no other library's userdata says so */
} handle;

static bool is_handle(lua_State *L, const lt_host *h, const handle *u) {
  if (!u || lua_rawlen(L, 1) != sizeof *u || u->mark != &h->tape_mt) return false;
  if (!lua_getmetatable(L, 1)) return false;
  bool same = lua_topointer(L, -1) == h->tape_mt;
  lua_pop(L, 1);
  return same;
}

static handle *tape_handle(lua_State *L, lt_host *h, const char *op) {
  handle *u = lua_touserdata(L, 1);
  char what[LT_SHAPE_TEXT + 32];
  if (is_handle(L, h, u) && u->tape) return u;
  lt_error(L, h, "%s: takes a tape, got %s", op, lt_what(L, h, 1, what));
  return NULL;
}

lt_tape *lt_check_tape(lua_State *L, lt_host *h, const char *op) {
  return tape_handle(L, h, op)->tape;
}

/* core.tape_new(metatable, persistent, watch_variables, forward, keep_inputs) */
static int tape_new(lua_State *L) {
  lt_host *h = lt_host_of(L);
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 5);
  handle *u = lua_newuserdatauv(L, sizeof *u, 0);
  *u = (handle){NULL, &h->tape_mt};
  lua_pushvalue(L, 1);
  lua_setmetatable(L, -2);
  h->tape_mt = lua_topointer(L, 1);
  if (h->ctx->open == UINT64_MAX) lua_gc(L, LUA_GCCOLLECT); /* forgotten ones may go */
  if (lua_toboolean(L, 4))
    LT_CHECK(L, h, lt_forward_new(h->ctx, &u->tape));
  else
    LT_CHECK(L, h, lt_tape_new(h->ctx, lua_toboolean(L, 2), lua_toboolean(L, 3), &u->tape));
  u->tape->keep_inputs = lua_toboolean(L, 5);
  h->users++;
  return 1;
}

static int tape_gc(lua_State *L) {
  lt_host *h = lua_touserdata(L, lua_upvalueindex(LT_UP_HOST));
  handle *u = lua_touserdata(L, 1);
  if (!h->ctx || !is_handle(L, h, u) || !u->tape) return 0;
  h->L = L; /* the coroutine that called last may be gone, and rules are Lua values */
  lt_tape_release(u->tape);
  u->tape = NULL;
  lt_host_drop_user(h);
  return 0;
}

static int tape_close(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_tape_close(lt_check_tape(L, h, "close"));
  return 0;
}

static int tape_watch(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_tape *tape = lt_check_tape(L, h, "watch");
  LT_CHECK(L, h, lt_tape_watch(tape, lt_check_tensor(L, h, 2, "watch", "x")));
  lua_settop(L, 2);
  return 1;
}

/* core.set_tangent(forward tape, x, tangent) */
static int set_tangent(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_tape *tape = lt_check_tape(L, h, "jvp");
  lt_tensor *x = lt_check_tensor(L, h, 2, "jvp", "a primal");
  LT_CHECK(L, h, lt_forward_watch(tape, x, lt_check_tensor(L, h, 3, "jvp", "a tangent")));
  return 0;
}

/* core.tangent(forward tape, y) -> its tangent, or nil */
static int tangent(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_tape *tape = lt_check_tape(L, h, "jvp");
  lt_tensor *t = lt_tensor_tangent(lt_check_tensor(L, h, 2, "jvp", "the result"), tape->number);
  if (t)
    lt_push_tensor(L, h, t);
  else
    lua_pushnil(L);
  return 1;
}

/* core.hold(tape, held): a held tape is not used up by its gradients */
static int hold(lua_State *L) {
  lt_check_tape(L, lt_host_of(L), "jacobian")->held = lua_toboolean(L, 2);
  return 0;
}

static int tape_stop(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_tape_stop(lt_check_tape(L, h, "stop"));
  return 0;
}

static int tape_resume(lua_State *L) {
  lt_host *h = lt_host_of(L);
  LT_CHECK(L, h, lt_tape_resume(lt_check_tape(L, h, "resume")));
  return 0;
}

static int tape_reset(lua_State *L) {
  lt_host *h = lt_host_of(L);
  LT_CHECK(L, h, lt_tape_reset(lt_check_tape(L, h, "reset")));
  return 0;
}

static int tape_variables(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_tape *tape = lt_check_tape(L, h, "watched_variables");
  lua_createtable(L, (int)tape->variable_count, 0);
  for (int64_t i = 0; i < tape->variable_count; i++) {
    lt_push_tensor(L, h, tape->variables[i]);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/* tape.listening, tape.persistent, tape.consumed, tape.closed */
static int tape_state(lua_State *L) {
  lt_host *h = lt_host_of(L);
  const lt_tape *tape = lt_check_tape(L, h, "tape");
  lua_pushboolean(L, tape->listening);
  lua_pushboolean(L, tape->persistent);
  lua_pushboolean(L, tape->consumed);
  lua_pushboolean(L, tape->closed);
  lua_pushinteger(L, tape->count);
  return 5;
}

/* ---- Gradients ---------------------------------------------------------------------------------
 */

/* The tensors of the list at index, in a buffer left on the stack; `false` gives NULL. */
static lt_tensor **read_tensors(lua_State *L, lt_host *h, int index, int count, const char *name) {
  lt_tensor **list = lua_newuserdatauv(L, (size_t)(count ? count : 1) * sizeof *list, 0);
  for (int i = 0; i < count; i++) {
    bool absent = lua_rawgeti(L, index, i + 1) == LUA_TBOOLEAN && !lua_toboolean(L, -1);
    list[i] = absent ? NULL : lt_check_tensor(L, h, -1, "gradient", name);
    lua_pop(L, 1);
  }
  return list;
}

/* core.gradient(tape, targets, seeds or nil, sources) -> list, false where there is none; was one
 * of them found to be zero, NaN or Inf? */
static int gradient(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_tape *tape = lt_check_tape(L, h, "gradient");
  lua_settop(L, 4);
  int targets = (int)lua_rawlen(L, 2), sources = (int)lua_rawlen(L, 4);
  lt_tensor **target = read_tensors(L, h, 2, targets, "the target");
  lt_tensor **seeds = lua_isnil(L, 3) ? NULL : read_tensors(L, h, 3, targets, "output_gradients");
  lt_tensor **source = read_tensors(L, h, 4, sources, "a source");
  for (int i = 0; i < targets; i++) {
    if (!target[i]) lt_error(L, h, "gradient: the target must be a tensor, got false");
  }
  for (int i = 0; i < sources; i++) {
    if (!source[i]) lt_error(L, h, "gradient: a source must be a tensor, got false");
  }
  lua_createtable(L, sources, 0);
  int list = lua_gettop(L);
  for (int i = 0; i < sources; i++) { /* the userdata first: what follows cannot fail half-way */
    lt_new_tensor_slot(L, h);
    lua_rawseti(L, list, i + 1);
  }
  lt_tensor **result = lua_newuserdatauv(L, (size_t)(sources ? sources : 1) * sizeof *result, 0);
  h->L = L;     /* where the walk calls Lua; a finalizer may have called from elsewhere */
  tape->refs++; /* a rule may let go of the last one */
  lt_status status = lt_tape_gradient(tape, targets, target, seeds, sources, source, result);
  bool found = tape->found;
  lt_tape_release(tape);
  LT_CHECK(L, h, status);
  for (int i = 0; i < sources; i++) {
    lua_rawgeti(L, list, i + 1);
    *(lt_tensor **)lua_touserdata(L, -1) = result[i];
    lua_pop(L, 1);
    if (result[i]) continue;
    lua_pushboolean(L, 0);
    lua_rawseti(L, list, i + 1);
  }
  lua_settop(L, list);
  lua_pushboolean(L, found);
  lt_collect_if_due(L, h);
  return 2;
}

static void set_number(lua_State *L, const char *key, double x) {
  lua_pushnumber(L, x);
  lua_setfield(L, -2, key);
}

static void set_string(lua_State *L, const char *key, const char *text) {
  lua_pushstring(L, text);
  lua_setfield(L, -2, key);
}

/* Pushes what was found out about values: because, share, phase, element, operands; nil for
 * nothing. */
static void push_finding(lua_State *L, const lt_finding *f) {
  if (!f) {
    lua_pushnil(L);
    return;
  }
  lua_createtable(L, 0, 4);
  if (!f->phase) {
    set_string(L, "because", f->because);
    if (f->because) set_number(L, "share", f->share);
    return;
  }
  set_string(L, "phase", f->phase);
  if (f->ndim >= 0) {
    lua_createtable(L, f->ndim, 0);
    for (int d = 0; d < f->ndim; d++) {
      lua_pushinteger(L, f->element[d]);
      lua_rawseti(L, -2, d + 1);
    }
    lua_setfield(L, -2, "element");
  }
  lua_createtable(L, f->operands, 2);
  for (int i = 0; i < f->operands; i++) {
    if (f->known[i])
      lua_pushnumber(L, f->operand[i]);
    else
      lua_pushboolean(L, 0);
    lua_rawseti(L, -2, i + 1);
  }
  if (f->has_dy) set_number(L, "dy", f->dy);
  if (f->has_result) set_number(L, "result", f->result);
  lua_setfield(L, -2, "operands");
}

/* core.explain(tape, targets, source) -> code, where, op, message, paths, cuts, finding or nil */
static int explain(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_tape *tape = lt_check_tape(L, h, "explain");
  lua_settop(L, 3);
  int targets = (int)lua_rawlen(L, 2);
  lt_tensor **target = read_tensors(L, h, 2, targets, "the target");
  lt_tensor *source = lt_check_tensor(L, h, 3, "explain", "the source");
  lt_why *why = lua_newuserdatauv(L, sizeof *why, 0);
  LT_CHECK(L, h, lt_explain(tape, targets, target, source, why));
  char at[LT_SITE_TEXT];
  lua_pushstring(L, why->code);
  lua_pushstring(L, lt_site_text(h->ctx, why->where, at));
  lua_pushstring(L, why->op);
  lua_pushstring(L, why->message);
  lua_pushnumber(L, why->paths);
  lua_createtable(L, why->cuts, 0);
  for (int i = 0; i < why->cuts; i++) {
    lua_createtable(L, 0, 3);
    lua_pushstring(L, why->cut[i].code);
    lua_setfield(L, -2, "code");
    lua_pushstring(L, lt_site_text(h->ctx, why->cut[i].where, at));
    lua_setfield(L, -2, "where");
    lua_pushstring(L, why->cut[i].op);
    lua_setfield(L, -2, "op");
    lua_rawseti(L, -2, i + 1);
  }
  push_finding(L, why->finding);
  return 7;
}

void lt_check_callable(lua_State *L, lt_host *h, int index, const char *op) {
  char what[LT_SHAPE_TEXT + 32];
  if (lua_type(L, index) == LUA_TFUNCTION) return;
  if (luaL_getmetafield(L, index, "__call") == LUA_TNIL) {
    lt_error(L, h, "%s: takes a function, got %s", op, lt_what(L, h, index, what));
  }
  lua_pop(L, 1);
}

/* Calls of user's functions by C are calls across which nothing can yield: while a coroutine slept
 * inside no_grad, the rest of the program would not record either. */

/* lt.no_grad(f, ...): calls f with no tape recording; returns its results */
static int no_grad(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_check_callable(L, h, 1, "no_grad");
  h->ctx->no_grad++;
  int failed = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
  h->ctx->no_grad--;
  return failed ? lua_error(L) : lua_gettop(L);
}

/* tape:paused(f, ...): calls f with recording stopped, also when it raises; returns its results */
static int tape_paused(lua_State *L) {
  lt_host *h = lt_host_of(L);
  handle *u = tape_handle(L, h, "paused");
  lt_check_callable(L, h, 2, "paused");
  bool listening = u->tape->listening;
  lt_tape_stop(u->tape);
  int failed = lua_pcall(L, lua_gettop(L) - 2, LUA_MULTRET, 0);
  /* f may have used the tape up, closed it, or have called its finalizer by hand */
  if (listening && u->tape && u->tape->slot >= 0) lt_tape_resume(u->tape);
  return failed ? lua_error(L) : lua_gettop(L) - 1;
}

/* core.fail(message): raises it with the user's position */
static int fail(lua_State *L) { return lt_error(L, lt_host_of(L), "%s", luaL_checkstring(L, 1)); }

/* core.made_by(t): the op that made a recorded value, or nil */
static int made_by(lua_State *L) {
  lt_host *h = lt_host_of(L);
  const lt_tensor *t = lt_check_tensor(L, h, 1, "made_by", "x");
  const lt_node *n = t->tapes ? lt_history_find(h->ctx, t->id) : NULL;
  lua_pushstring(L, n ? n->op->name : NULL);
  return 1;
}

void lt_open_tape(lua_State *L, int host, int meta) {
  static const luaL_Reg functions[] = {{"tape_new", tape_new},
                                       {"tape_gc", tape_gc},
                                       {"tape_state", tape_state},
                                       {"close", tape_close},
                                       {"watch", tape_watch},
                                       {"stop", tape_stop},
                                       {"resume", tape_resume},
                                       {"reset", tape_reset},
                                       {"paused", tape_paused},
                                       {"watched_variables", tape_variables},
                                       {"gradient", gradient},
                                       {"set_tangent", set_tangent},
                                       {"tangent", tangent},
                                       {"hold", hold},
                                       {"explain", explain},
                                       {"no_grad", no_grad},
                                       {"fail", fail},
                                       {"made_by", made_by},
                                       {NULL, NULL}};
  lt_set_functions(L, functions, host, meta);
}
