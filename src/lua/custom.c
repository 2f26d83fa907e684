/* Gradient rules that are Lua functions: custom_gradient, and checkpoint, which is one whose rule
 * runs the function again. */
#include "lua/host.h"
#include "ops/ops.h"
#include "tape/note.h"
#include "tape/vmap.h"

#include <stdlib.h>

/* A rule, kept in the registry. */
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

/* Pushes the gradient of each result; nil for results that have none. */
static void push_dy(lua_State *L, lt_host *h, const lt_vjp *v) {
  luaL_checkstack(L, v->outputs + 4, "too many results");
  for (int k = 0; k < v->outputs; k++) {
    if (!v->dy[k]) {
      lua_pushnil(L);
      continue;
    }
    lua_rawgetp(L, LUA_REGISTRYINDEX, h); /* the tensors' constructor, closed over its metatable */
    lua_pushlightuserdata(L, v->dy[k]);
    lua_call(L, 1, 1);
  }
}

/* Runs protected: calls the function with dy and takes the gradients of the inputs. */
static int call_rule(lua_State *L) {
  rule *r = lua_touserdata(L, 1);
  lt_host *h = r->h;
  lt_vjp *v = r->v;
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->function);
  push_dy(L, h, v);
  lua_call(L, v->outputs, LUA_MULTRET);
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

/* Wraps a tensor, given as light userdata, for push_dy. */
static int wrap(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_push_tensor(L, h, lua_touserdata(L, 1));
  return 1;
}

/* core.custom(results, inputs, function, repeatable) -> views of the results, whose gradient is the
 * function's */
static int custom(lua_State *L) {
  lt_host *h = lt_host_of(L);
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_checktype(L, 3, LUA_TFUNCTION);
  lua_settop(L, 4);
  int outputs = (int)lua_rawlen(L, 1), inputs = (int)lua_rawlen(L, 2);
  if (outputs > LT_MAX_OUTPUTS) {
    lt_error(L, h, "custom_gradient: %d results, at most %d are possible", outputs, LT_MAX_OUTPUTS);
  }
  if (inputs > LT_MAX_EDGES / 2) lt_error(L, h, "custom_gradient: too many inputs");
  lt_tensor **in = lua_newuserdatauv(L, (size_t)(inputs ? inputs : 1) * sizeof *in, 0);
  for (int i = 0; i < inputs; i++) {
    lua_rawgeti(L, 2, i + 1);
    in[i] = lt_check_tensor(L, h, -1, "custom_gradient", "an argument");
    lua_pop(L, 1);
  }
  lt_tensor *y[LT_MAX_OUTPUTS], **slot[LT_MAX_OUTPUTS];
  for (int k = 0; k < outputs; k++) {
    lua_rawgeti(L, 1, k + 1);
    y[k] = lt_check_tensor(L, h, -1, "custom_gradient", "the result");
    if (!y[k]->over) lt_check_values(L, h, -1, "custom_gradient", "the result");
    lua_pop(L, 1);
  }
  int below = lua_gettop(L);
  for (int k = 0; k < outputs; k++) slot[k] = lt_new_tensor_slot(L, h);
  lua_pushvalue(L, 3);
  int function = luaL_ref(L, LUA_REGISTRYINDEX);
  rule *r = malloc(sizeof *r);
  if (!r) {
    luaL_unref(L, LUA_REGISTRYINDEX, function);
    return lt_error(L, h, "custom_gradient: not enough memory");
  }
  *r = (rule){.h = h, .function = function, .site = lt_current_site(h->ctx)};
  lt_closure closure = {rule_vjp, release_rule, r, lua_toboolean(L, 4)};
  lt_attrs none = {0};
  lt_call c = {.ctx = h->ctx,
               .op = &lt_op_custom,
               .attrs = &none,
               .inputs = inputs,
               .in = in,
               .outputs = outputs};
  lt_status status = LT_OK;
  for (int k = 0; k < outputs && status == LT_OK; k++) {
    status = lt_vmap_view(y[k], slot[k]);
    c.out[k] = *slot[k];
  }
  if (status == LT_OK)
    status = lt_vmap_record(&c, &closure);
  else
    release_rule(r);
  LT_CHECK(L, h, status);
  return lua_gettop(L) - below;
}

/* core.note(f, ...) -> list of the recorded tensors that f read, results of f; nothing that f does
 * is recorded */
static int note(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_check_callable(L, h, 1, "checkpoint");
  lt_noting noting;
  lt_note_begin(&noting, h->ctx);
  int failed = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
  lt_note_end(&noting);
  if (failed) {
    lt_note_free(&noting);
    return lua_error(L);
  }
  h->L = L;
  int results = lua_gettop(L);
  lua_createtable(L, (int)noting.count, 0);
  for (int64_t i = 0; i < noting.count; i++) {
    lt_push_tensor(L, h, noting.inputs[i]);
    lua_rawseti(L, -2, i + 1);
  }
  lt_note_free(&noting);
  lua_insert(L, 1);
  return results + 1;
}

/* core.random_place([place]) -> where the stream of random numbers is; goes to the given one */
static int random_place(lua_State *L) {
  lt_random *r = &lt_host_of(L)->ctx->random;
  lua_pushinteger(L, (lua_Integer)r->offset);
  if (lua_isinteger(L, 1)) r->offset = (uint64_t)lua_tointeger(L, 1);
  return 1;
}

void lt_open_custom(lua_State *L, int host, int meta) {
  static const luaL_Reg functions[] = {
      {"custom", custom}, {"note", note}, {"random_place", random_place}, {NULL, NULL}};
  lt_set_functions(L, functions, host, meta);
  lua_pushvalue(L, host);
  lua_pushvalue(L, meta);
  lua_pushcclosure(L, wrap, 2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, lua_touserdata(L, host));
}
