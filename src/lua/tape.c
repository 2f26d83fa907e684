/* The tape userdata, and what lua/luatape/tape.lua builds the user's interface with: walks over
 * flat lists, custom gradients, no_grad. */
#include "lua/host.h"
#include "ops/ops.h"
#include "tape/explain.h"
#include "tape/vjp.h"

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

static lt_tape *check_tape(lua_State *L, lt_host *h, const char *op) {
  return tape_handle(L, h, op)->tape;
}

/* core.tape_new(metatable, persistent, watch_variables) */
static int tape_new(lua_State *L) {
  lt_host *h = lt_host_of(L);
  luaL_checktype(L, 1, LUA_TTABLE);
  handle *u = lua_newuserdatauv(L, sizeof *u, 0);
  *u = (handle){NULL, &h->tape_mt};
  lua_pushvalue(L, 1);
  lua_setmetatable(L, -2);
  h->tape_mt = lua_topointer(L, 1);
  if (h->ctx->open == UINT64_MAX) lua_gc(L, LUA_GCCOLLECT); /* forgotten ones may go */
  LT_CHECK(L, h, lt_tape_new(h->ctx, lua_toboolean(L, 2), lua_toboolean(L, 3), &u->tape));
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
  lt_tape_close(check_tape(L, h, "close"));
  return 0;
}

static int tape_watch(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_tape *tape = check_tape(L, h, "watch");
  LT_CHECK(L, h, lt_tape_watch(tape, lt_check_tensor(L, h, 2, "watch", "x")));
  lua_settop(L, 2);
  return 1;
}

static int tape_stop(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_tape_stop(check_tape(L, h, "stop"));
  return 0;
}

static int tape_resume(lua_State *L) {
  lt_host *h = lt_host_of(L);
  LT_CHECK(L, h, lt_tape_resume(check_tape(L, h, "resume")));
  return 0;
}

static int tape_reset(lua_State *L) {
  lt_host *h = lt_host_of(L);
  LT_CHECK(L, h, lt_tape_reset(check_tape(L, h, "reset")));
  return 0;
}

static int tape_variables(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_tape *tape = check_tape(L, h, "watched_variables");
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
  const lt_tape *tape = check_tape(L, h, "tape");
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

/* core.gradient(tape, targets, seeds or nil, sources) -> list, false where there is none */
static int gradient(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_tape *tape = check_tape(L, h, "gradient");
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
  h->L = L; /* where the walk calls Lua; a finalizer may have called from elsewhere */
  LT_CHECK(L, h, lt_tape_gradient(tape, targets, target, seeds, sources, source, result));
  for (int i = 0; i < sources; i++) {
    lua_rawgeti(L, list, i + 1);
    *(lt_tensor **)lua_touserdata(L, -1) = result[i];
    lua_pop(L, 1);
    if (result[i]) continue;
    lua_pushboolean(L, 0);
    lua_rawseti(L, list, i + 1);
  }
  lua_settop(L, list);
  lt_collect_if_due(L, h);
  return 1;
}

/* core.explain(tape, targets, source) -> code, where, op, message, cuts */
static int explain(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_tape *tape = check_tape(L, h, "explain");
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
  return 5;
}

static void check_callable(lua_State *L, lt_host *h, int index, const char *op) {
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
  check_callable(L, h, 1, "no_grad");
  h->ctx->no_grad++;
  int failed = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
  h->ctx->no_grad--;
  return failed ? lua_error(L) : lua_gettop(L);
}

/* tape:paused(f, ...): calls f with recording stopped, also when it raises; returns its results */
static int tape_paused(lua_State *L) {
  lt_host *h = lt_host_of(L);
  handle *u = tape_handle(L, h, "paused");
  check_callable(L, h, 2, "paused");
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

/* ---- custom_gradient
 * ------------------------------------------------------------------------------ */

/* A gradient rule that is a Lua function, kept in the registry. */
typedef struct rule {
  lt_host *h;
  int function;
  lt_site site; /* where it was given */
  /* during a call */
  lt_vjp *v;
} rule;

static void release_rule(void *userdata) {
  rule *r = userdata;
  luaL_unref(r->h->L, LUA_REGISTRYINDEX, r->function);
  free(r);
}

/* Runs protected: calls the function with dy and takes the gradients of the inputs. */
static int call_rule(lua_State *L) {
  rule *r = lua_touserdata(L, 1);
  lt_host *h = r->h;
  lt_vjp *v = r->v;
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->function);
  lua_rawgetp(L, LUA_REGISTRYINDEX, h); /* the tensors' constructor, closed over its metatable */
  lua_pushlightuserdata(L, v->dy[0]);
  lua_call(L, 1, 1);
  lua_call(L, 1, LUA_MULTRET);
  int given = lua_gettop(L) - 1;
  char at[LT_SITE_TEXT], want[LT_SHAPE_TEXT], got[LT_SHAPE_TEXT], what[LT_SHAPE_TEXT + 32];
  lt_site_text(h->ctx, r->site, at);
  if (given != v->inputs) {
    return luaL_error(L, "custom_gradient: %d inputs but the function at %s returned %d gradients",
                      v->inputs, at, given);
  }
  for (int i = 0; i < given; i++) {
    if (lua_isnil(L, i + 2)) continue;
    lt_tensor *g = lt_test_tensor(L, h, i + 2);
    lt_spec spec = lt_input_spec(v, i);
    if (!g) {
      return luaL_error(L, "custom_gradient: gradient %d of the function at %s is %s, not a tensor",
                        i + 1, at, lt_what(L, h, i + 2, what));
    }
    if (!lt_shape_equal(&g->shape, &spec.shape)) {
      return luaL_error(L, "custom_gradient: gradient %d of the function at %s is %s, its input %s",
                        i + 1, at, lt_shape_text(&g->shape, got), lt_shape_text(&spec.shape, want));
    }
    if (v->need[i]) lt_give(v, i, g);
  }
  return 0;
}

/* The closure's gradient rule: no Lua error may leave it. */
static lt_status rule_vjp(void *userdata, lt_vjp *v) {
  rule *r = userdata;
  lua_State *L = r->h->L;
  if (!lua_checkstack(L, 4)) return lt_fail_memory(v->ctx, 64);
  lt_vjp *outer = r->v;
  bool has_site = v->ctx->has_site;
  r->v = v;
  v->ctx->has_site = false; /* the function's own lines */
  lua_pushcfunction(L, call_rule);
  lua_pushlightuserdata(L, r);
  int failed = lua_pcall(L, 1, 0, 0);
  v->ctx->has_site = has_site;
  r->h->L = L;
  r->v = outer;
  if (!failed) return v->s->status;
  const char *message = lua_tostring(L, -1);
  lt_fail(v->ctx, "%s", message ? message : "custom_gradient: the function raised an error");
  lua_pop(L, 1);
  return LT_ERROR;
}

/* Wraps a tensor, given as light userdata, for call_rule. */
static int wrap(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_push_tensor(L, h, lua_touserdata(L, 1));
  return 1;
}

/* core.custom(y, inputs, function) -> a view of y whose gradient is the function's */
static int custom(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_tensor *y = lt_check_tensor(L, h, 1, "custom_gradient", "the result");
  int inputs = (int)lua_rawlen(L, 2);
  luaL_checktype(L, 3, LUA_TFUNCTION);
  lt_tensor **in = read_tensors(L, h, 2, inputs, "an argument");
  lt_tensor **slot = lt_new_tensor_slot(L, h);
  lua_pushvalue(L, 3);
  int function = luaL_ref(L, LUA_REGISTRYINDEX);
  rule *r = malloc(sizeof *r);
  if (!r) {
    luaL_unref(L, LUA_REGISTRYINDEX, function);
    return lt_error(L, h, "custom_gradient: not enough memory");
  }
  *r = (rule){.h = h, .function = function, .site = lt_current_site(h->ctx)};
  lt_closure closure = {rule_vjp, release_rule, r};
  lt_status status = lt_tensor_view(y, 0, &y->shape, y->strides, slot);
  if (status != LT_OK) release_rule(r);
  LT_CHECK(L, h, status);
  lt_attrs none = {0};
  lt_call c = {.ctx = h->ctx,
               .op = &lt_op_custom,
               .attrs = &none,
               .inputs = inputs,
               .in = in,
               .outputs = 1,
               .out = {*slot}};
  LT_CHECK(L, h, lt_record(&c, &closure));
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
                                       {"explain", explain},
                                       {"no_grad", no_grad},
                                       {"custom", custom},
                                       {"fail", fail},
                                       {"made_by", made_by},
                                       {NULL, NULL}};
  lt_set_functions(L, functions, host, meta);
  lua_pushvalue(L, host);
  lua_pushvalue(L, meta);
  lua_pushcclosure(L, wrap, 2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, lua_touserdata(L, host));
}
