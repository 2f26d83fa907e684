/* The optimizer userdata, and what lua/luatape/optim.lua builds the user's interface with. A step
 * walks the tables of gradients and variables side by side and makes one call of the core. */
#include "lua/host.h"
#include "optim/optimizer.h"

#include <stdio.h>
#include <string.h>

/* The own upvalue is the optimizers' metatable; user value 1 maps a variable's address to the
 * number of its slot. */
typedef struct handle {
  lt_optimizer *o;
  const void *mark; /* &lt_rules: no other library's userdata says so */
} handle;

/* Tables of variables may nest this deep; deeper ones contain themselves. */
enum { DEEPEST = 64 };

static bool is_handle(lua_State *L, const handle *u) {
  return u && lua_rawlen(L, 1) == sizeof *u && u->mark == (const void *)&lt_rules;
}

static lt_optimizer *check_optimizer(lua_State *L, lt_host *h) {
  handle *u = lua_touserdata(L, 1);
  if (is_handle(L, u) && lua_getmetatable(L, 1)) {
    bool same = lua_rawequal(L, -1, lua_upvalueindex(LT_UP_OWN));
    lua_pop(L, 1);
    if (same && u->o) return u->o;
  }
  lt_error(L, h, "optim: not an optimizer");
  return NULL;
}

/* core.optimizer_new(number of the rule) */
static int optimizer_new(lua_State *L) {
  lt_host *h = lt_host_of(L);
  const lt_rule *rule = lt_rules[luaL_checkinteger(L, 1) - 1];
  handle *u = lua_newuserdatauv(L, sizeof *u, 1);
  *u = (handle){NULL, &lt_rules};
  lua_newtable(L);
  lua_setiuservalue(L, -2, 1);
  lua_pushvalue(L, lua_upvalueindex(LT_UP_OWN));
  lua_setmetatable(L, -2);
  LT_CHECK(L, h, lt_optimizer_new(h->ctx, rule, &u->o));
  h->users++;
  return 1;
}

static int optimizer_gc(lua_State *L) {
  lt_host *h = lua_touserdata(L, lua_upvalueindex(LT_UP_HOST));
  handle *u = lua_touserdata(L, 1);
  if (!is_handle(L, u) || !u->o || !h->ctx) return 0;
  lt_optimizer_free(u->o);
  u->o = NULL;
  lt_host_drop_user(h);
  return 0;
}

/* core.optimizer_group(optimizer, group, list of option values) */
static int optimizer_group(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_optimizer *o = check_optimizer(L, h);
  double values[LT_RULE_WORDS] = {0};
  lua_Integer group = luaL_checkinteger(L, 2);
  int n = (int)lua_rawlen(L, 3);
  for (int i = 0; i < n && i < LT_RULE_WORDS; i++) {
    lua_rawgeti(L, 3, i + 1);
    values[i] = lua_isboolean(L, -1) ? lua_toboolean(L, -1) : lua_tonumber(L, -1);
    lua_pop(L, 1);
  }
  LT_CHECK(L, h, lt_optimizer_set_group(o, (int32_t)group - 1, values));
  return 0;
}

/* core.optimizer_clip(optimizer, clip_value, clip_norm, global_clip_norm, apply_nonfinite) */
static int optimizer_clip(lua_State *L) {
  lt_optimizer *o = check_optimizer(L, lt_host_of(L));
  o->clip_value = luaL_optnumber(L, 2, 0);
  o->clip_norm = luaL_optnumber(L, 3, 0);
  o->global_clip_norm = luaL_optnumber(L, 4, 0);
  o->apply_nonfinite = lua_toboolean(L, 5);
  return 0;
}

/* core.optimizer_add(optimizer, variable, group, label) -> slot */
static int optimizer_add(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_optimizer *o = check_optimizer(L, h);
  lt_tensor *p = lt_check_values(L, h, 2, o->rule->name, luaL_checkstring(L, 4));
  LT_CHECK(L, h, lt_optimizer_add(o, p, (int32_t)luaL_checkinteger(L, 3) - 1, lua_tostring(L, 4)));
  lua_getiuservalue(L, 1, 1);
  lua_pushinteger(L, o->slots);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, -3, p);
  return 1;
}

/* core.optimizer_find(optimizer, variable) -> slot or nil */
static int optimizer_find(lua_State *L) {
  lt_host *h = lt_host_of(L);
  check_optimizer(L, h);
  lua_getiuservalue(L, 1, 1);
  lua_rawgetp(L, -1, lt_check_tensor(L, h, 2, "optim", "the variable"));
  return 1;
}

/* ---- A step ---------------------------------------------------------------------------------- */

typedef struct walk {
  lua_State *L;
  lt_host *h;
  lt_optimizer *o;
  int known;     /* stack index of the table of slots */
  int missing;   /* stack index of the list of variables to tell about, or nil */
  int64_t next;  /* the slot expected next */
  int64_t seen;  /* variables so far */
  bool stranger; /* a variable without a slot: the walk was for nothing */
} walk;

/* Leaves no gradient behind. */
static void give_up(const walk *w, lt_status status) {
  lt_optimizer_begin(w->o);
  lt_raise(w->L, w->h, status);
}

static lt_slot *find_slot(walk *w, const lt_tensor *p) {
  lt_optimizer *o = w->o;
  if (w->next < o->slots && o->slot[w->next].p == p) return &o->slot[w->next++];
  if (lua_rawgetp(w->L, w->known, p) == LUA_TNUMBER)
    w->next = (int64_t)lua_tointeger(w->L, -1);
  else
    w->stranger = true;
  lua_pop(w->L, 1);
  return w->stranger ? NULL : &o->slot[w->next - 1];
}

/* The variable at index `at` and its gradient at `g`. */
static void take_pair(walk *w, int g, int at, const lt_tensor *p) {
  lua_State *L = w->L;
  lt_slot *s = find_slot(w, p);
  w->seen++;
  if (!s) return;
  lt_tensor *gradient = lt_test_tensor(L, w->h, g);
  if (gradient) {
    lt_status status = lt_optimizer_give(w->o, s - w->o->slot, gradient);
    if (status != LT_OK) give_up(w, status);
    return;
  }
  if (lua_toboolean(L, g)) {
    char text[LT_LABEL_TEXT], what[LT_SHAPE_TEXT + 32];
    give_up(w, lt_fail(w->h->ctx, "apply_gradients: the gradient of %s must be a tensor, got %s",
                       lt_slot_text(s, text), lt_what(L, w->h, g, what)));
  }
  if (s->told) return;
  if (lua_isnil(L, w->missing)) {
    lua_newtable(L);
    lua_replace(L, w->missing);
  }
  lua_pushvalue(L, at);
  lua_rawseti(L, w->missing, (lua_Integer)lua_rawlen(L, w->missing) + 1);
}

static void walk_pairs(walk *w, int g, int at, int depth) {
  lua_State *L = w->L;
  const lt_tensor *p = lt_test_tensor(L, w->h, at);
  char what[LT_SHAPE_TEXT + 32];
  if (p) {
    take_pair(w, g, at, p);
    return;
  }
  if (lua_type(L, at) != LUA_TTABLE) {
    give_up(w, lt_fail(w->h->ctx, "apply_gradients: takes variables, or tables of them, got %s",
                       lt_what(L, w->h, at, what)));
  }
  if (depth > DEEPEST) {
    give_up(w, lt_fail(w->h->ctx, "apply_gradients: tables of variables nest too deeply"));
  }
  bool empty = !lua_toboolean(L, g);
  if (!empty && lua_type(L, g) != LUA_TTABLE) {
    give_up(w, lt_fail(w->h->ctx,
                       "apply_gradients: where the variables are a table, the gradients are %s",
                       lt_what(L, w->h, g, what)));
  }
  if (!empty && lua_rawlen(L, g) > lua_rawlen(L, at)) {
    give_up(w, lt_fail(w->h->ctx, "apply_gradients: %d gradients for %d variables",
                       (int)lua_rawlen(L, g), (int)lua_rawlen(L, at)));
  }
  luaL_checkstack(L, 6, "tables of variables");
  lua_pushnil(L);
  while (lua_next(L, at)) { /* key, variable */
    lua_pushvalue(L, -2);
    if (empty) {
      lua_pop(L, 1);
      lua_pushnil(L);
    } else {
      lua_rawget(L, g);
    }
    int top = lua_gettop(L);
    walk_pairs(w, top, top - 1, depth + 1);
    lua_settop(L, top - 2);
  }
}

/* core.optimizer_apply(optimizer, gradients, variables) -> nothing when all variables moved, or
 * a word and what it is about:
 *   "new"                      there are variables without a slot; nothing was done
 *   "missing", list            the others moved; the list holds variables not told about before
 *   "none"                     no variable has a gradient; nothing was done
 *   "nonfinite", variable's text, count, variable's slot; nothing was done */
static int optimizer_apply(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lua_settop(L, 3);
  walk w = {.L = L, .h = h, .o = check_optimizer(L, h), .known = 4, .missing = 5};
  lua_getiuservalue(L, 1, 1);
  lua_pushnil(L);
  lt_optimizer_begin(w.o);
  walk_pairs(&w, 2, 3, 0);
  if (w.stranger || w.o->actives == 0) {
    lt_optimizer_begin(w.o);
    if (w.seen == 0) lt_error(L, h, "apply_gradients: there are no variables");
    if (w.stranger)
      lua_pushliteral(L, "new");
    else
      lua_pushliteral(L, "none");
    return 1;
  }
  int64_t bad, count;
  LT_CHECK(L, h, lt_optimizer_run(w.o, &bad, &count));
  if (bad >= 0) {
    char text[LT_LABEL_TEXT];
    lua_pushliteral(L, "nonfinite");
    lua_pushstring(L, lt_slot_text(&w.o->slot[bad], text));
    lua_pushinteger(L, count);
    lua_pushinteger(L, bad + 1);
    return 4;
  }
  if (lua_isnil(L, w.missing)) return 0;
  for (lua_Integer i = 1; lua_rawgeti(L, w.missing, i) != LUA_TNIL; i++) {
    lua_rawgetp(L, w.known, lt_test_tensor(L, h, -1));
    w.o->slot[lua_tointeger(L, -1) - 1].told = true;
    lua_settop(L, w.missing);
  }
  lua_settop(L, w.missing);
  lua_pushliteral(L, "missing");
  lua_insert(L, -2);
  return 2;
}

/* ---- Looking inside ---------------------------------------------------------------------------
 */

static lt_slot *check_slot(lua_State *L, lt_host *h, lt_optimizer *o) {
  lua_Integer i = luaL_checkinteger(L, 2);
  if (i < 1 || i > o->slots) lt_error(L, h, "optim: there is no variable %d", (int)i);
  return &o->slot[i - 1];
}

/* core.optimizer_steps(optimizer [, steps]) -> steps so far */
static int optimizer_steps(lua_State *L) {
  lt_optimizer *o = check_optimizer(L, lt_host_of(L));
  if (lua_isinteger(L, 2)) o->step = lua_tointeger(L, 2);
  lua_pushinteger(L, o->step);
  return 1;
}

/* core.optimizer_slot(optimizer, slot) -> variable, text, group, steps; nil past the last */
static int optimizer_slot(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_optimizer *o = check_optimizer(L, h);
  if (luaL_checkinteger(L, 2) > o->slots) return 0;
  const lt_slot *s = check_slot(L, h, o);
  char text[LT_LABEL_TEXT];
  lt_push_tensor(L, h, s->p);
  lua_pushstring(L, lt_slot_text(s, text));
  lua_pushinteger(L, s->group + 1);
  lua_pushinteger(L, s->step);
  return 4;
}

/* core.optimizer_states(optimizer, slot) -> a table of copies of the slot's states, by name */
static int optimizer_states(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_optimizer *o = check_optimizer(L, h);
  const lt_slot *s = check_slot(L, h, o);
  lua_createtable(L, 0, LT_RULE_STATES + 1);
  for (int i = 0; i < LT_RULE_STATES; i++) {
    const lt_tensor *from = s->state[i];
    if (!from) continue;
    lt_tensor **slot = lt_new_tensor_slot(L, h);
    LT_CHECK(L, h, lt_tensor_new(h->ctx, "state_dict", (lt_dtype)from->dtype, &from->shape, slot));
    LT_CHECK(L, h, lt_tensor_copy(*slot, from));
    lua_setfield(L, -2, o->rule->states[i]);
  }
  return 1;
}

/* core.optimizer_restore(optimizer, slot, steps, states by name [, true: only check]) */
static int optimizer_restore(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_optimizer *o = check_optimizer(L, h);
  lt_slot *s = check_slot(L, h, o);
  lua_Integer steps = luaL_checkinteger(L, 3);
  lua_settop(L, 5);
  lt_tensor *from[LT_RULE_STATES] = {NULL};
  luaL_checktype(L, 4, LUA_TTABLE);
  for (int i = 0; i < LT_RULE_STATES && o->rule->states[i]; i++) {
    if (lua_getfield(L, 4, o->rule->states[i]) == LUA_TNIL) continue;
    from[i] = lt_check_values(L, h, -1, "load_state_dict", o->rule->states[i]);
    if (lt_shape_equal(&from[i]->shape, &s->p->shape)) continue;
    char text[LT_LABEL_TEXT], shape[LT_SHAPE_TEXT];
    lt_error(L, h, "load_state_dict: %s of %s is %s", o->rule->states[i], lt_slot_text(s, text),
             lt_shape_text(&from[i]->shape, shape));
  }
  if (lua_toboolean(L, 5)) return 0;
  for (int i = 0; i < LT_RULE_STATES; i++) {
    lt_tensor_release(s->state[i]);
    s->state[i] = NULL;
    if (!from[i]) continue;
    LT_CHECK(L, h, lt_slot_state(o, s, i));
    LT_CHECK(L, h, lt_tensor_copy(s->state[i], from[i]));
  }
  s->step = steps;
  return 0;
}

/* core.optimizer_moved(optimizer, slot, gradient) -> norm of the last update, of the variable */
static int optimizer_moved(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_optimizer *o = check_optimizer(L, h);
  const lt_slot *s = check_slot(L, h, o);
  double update, weight;
  lt_tensor *g = lt_check_tensor(L, h, 3, "optim", "the gradient");
  if (!lt_shape_equal(&g->shape, &s->p->shape) || g->dtype != s->p->dtype) return 0;
  LT_CHECK(L, h, lt_slot_moved(o, s, g, &update, &weight));
  lua_pushnumber(L, update);
  lua_pushnumber(L, weight);
  return 2;
}

/* ---- The rules ----------------------------------------------------------------------------------
 */

static void push_default(lua_State *L, const lt_rule_option *o, const double *value,
                         const char *key) {
  if (o->kind == LT_RULE_FLAG) {
    lua_pushboolean(L, value[0] != 0);
  } else if (o->kind == LT_RULE_NUMBER) {
    lua_pushnumber(L, value[0]);
  } else {
    lua_createtable(L, 2, 0);
    for (int i = 0; i < 2; i++) {
      lua_pushnumber(L, value[i]);
      lua_rawseti(L, -2, i + 1);
    }
  }
  lua_setfield(L, -2, key);
}

/* core.optimizer_rules() -> list of {name =, doc =, options = list of {name =, kind =, value =,
 * keras =, low =, high =}} */
static int optimizer_rules(lua_State *L) {
  static const char *const kinds[] = {"number", "pair", "flag"};
  lua_newtable(L);
  for (int r = 0; lt_rules[r]; r++) {
    const lt_rule *rule = lt_rules[r];
    lua_newtable(L);
    lua_pushstring(L, rule->name);
    lua_setfield(L, -2, "name");
    lua_pushstring(L, rule->doc);
    lua_setfield(L, -2, "doc");
    lua_newtable(L);
    for (int i = 0; i < LT_RULE_OPTIONS && rule->options[i].name; i++) {
      const lt_rule_option *o = &rule->options[i];
      lua_newtable(L);
      lua_pushstring(L, o->name);
      lua_setfield(L, -2, "name");
      lua_pushstring(L, kinds[o->kind]);
      lua_setfield(L, -2, "kind");
      push_default(L, o, o->value, "value");
      push_default(L, o, o->keras, "keras");
      lua_pushnumber(L, o->low);
      lua_setfield(L, -2, "low");
      lua_pushnumber(L, o->high);
      lua_setfield(L, -2, "high");
      lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -2, "options");
    lua_rawseti(L, -2, r + 1);
  }
  return 1;
}

static const luaL_Reg functions[] = {{"optimizer_rules", optimizer_rules},
                                     {"optimizer_new", optimizer_new},
                                     {"optimizer_group", optimizer_group},
                                     {"optimizer_clip", optimizer_clip},
                                     {"optimizer_add", optimizer_add},
                                     {"optimizer_find", optimizer_find},
                                     {"optimizer_apply", optimizer_apply},
                                     {"optimizer_steps", optimizer_steps},
                                     {"optimizer_slot", optimizer_slot},
                                     {"optimizer_states", optimizer_states},
                                     {"optimizer_restore", optimizer_restore},
                                     {"optimizer_moved", optimizer_moved},
                                     {NULL, NULL}};

/* As lt_set_functions, with the optimizers' metatable as the own upvalue. */
void lt_open_optim(lua_State *L, int host, int meta) {
  int module = lua_gettop(L);
  lua_newtable(L);
  lua_pushvalue(L, host);
  lua_pushcclosure(L, optimizer_gc, 1);
  lua_setfield(L, -2, "__gc");
  lua_pushliteral(L, "luatape.optimizer");
  lua_setfield(L, -2, "__name");
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  for (const luaL_Reg *f = functions; f->name; f++) {
    lua_pushvalue(L, host);
    lua_pushvalue(L, meta);
    lua_pushvalue(L, module + 1);
    lua_pushcclosure(L, f->func, 3);
    lua_setfield(L, module, f->name);
  }
  lua_settop(L, module);
}
