/* Every op of the registry as a Lua function and method: one dispatcher reads the arguments as
 * the op's block declares them. */
#include "lua/host.h"
#include "ops/ops.h"
#include "tape/reading.h"

#include <string.h>

/* Inputs that fit without a buffer of their own. */
enum { FEW = 16 };

typedef struct call {
  lua_State *L;
  lt_host *h;
  const lt_op *op;
  int arguments; /* on the Lua stack */
  int inputs;
  lt_tensor **in;
  int numbers;               /* inputs that are plain numbers */
  int number[LT_MAX_INPUTS]; /* where a plain number was given for it; 0: not so */
  lt_tensor *few[FEW];
  lt_attrs attrs;
} call;

/* ---- Inputs ---------------------------------------------------------------------------------- */

static void bad_input(const call *c, int argument, const char *name, const char *wanted) {
  char what[LT_SHAPE_TEXT + 32];
  lt_error(c->L, c->h, "%s: %s must be %s, got %s", c->op->name, name, wanted,
           lt_what(c->L, c->h, argument, what));
}

/* Numbers stand for 0-d tensors, made once nothing can fail any more. */
static void read_input(call *c, int i, int argument) {
  const lt_input *input = &c->op->inputs[i];
  lt_tensor *t = lt_test_tensor(c->L, c->h, argument);
  c->in[i] = t;
  c->inputs++;
  if (t) return;
  int type = lua_type(c->L, argument);
  if ((type == LUA_TNUMBER && input->accepts != LT_INDEX && input->accepts != LT_MASK)) {
    c->number[i] = argument;
    c->numbers++;
  } else if (!(input->optional && (type == LUA_TNIL || type == LUA_TNONE))) {
    bad_input(c, argument, input->name, "a tensor");
  }
}

/* Room for `count` inputs; a buffer for many stays on the stack above the arguments. */
static void reserve(call *c, int64_t count) {
  if (count > LT_MAX_EDGES / 2) lt_error(c->L, c->h, "%s: too many tensors", c->op->name);
  if (count <= FEW) return;
  lt_tensor **room = lua_newuserdatauv(c->L, (size_t)count * sizeof *room, 0);
  memcpy(room, c->in, (size_t)c->inputs * sizeof *room);
  c->in = room;
}

/* A list of tensors, as a table or as all tensors that follow: cat({a, b}), cat(a, b). Returns
 * the argument behind it. */
static int read_list(call *c, int i, int argument) {
  lua_State *L = c->L;
  const char *name = c->op->inputs[i].name;
  if (lt_test_tensor(L, c->h, argument)) {
    reserve(c, i + c->arguments - argument + 1);
    for (; argument <= c->arguments; argument++) {
      lt_tensor *t = lt_test_tensor(L, c->h, argument);
      if (!t) break;
      c->in[c->inputs++] = t;
    }
    return argument;
  }
  if (lua_type(L, argument) != LUA_TTABLE) bad_input(c, argument, name, "a list of tensors");
  int64_t n = (int64_t)lua_rawlen(L, argument);
  if (n == 0) lt_error(L, c->h, "%s: the list of tensors is empty", c->op->name);
  reserve(c, i + n);
  for (int64_t k = 0; k < n; k++) {
    lua_rawgeti(L, argument, k + 1);
    c->in[i + k] = lt_test_tensor(L, c->h, -1);
    if (!c->in[i + k]) bad_input(c, lua_gettop(L), name, "a list of tensors");
    lua_pop(L, 1);
  }
  c->inputs = i + (int)n;
  return argument + 1;
}

/* ---- Options ----------------------------------------------------------------------------------
 */

static void bad_option(const call *c, int at, const lt_option *o, const char *wanted) {
  char what[LT_SHAPE_TEXT + 32];
  lt_error(c->L, c->h, "%s: %s must be %s%s%s, got %s", c->op->name, o->name, wanted,
           o->choices ? " or one of: " : "", o->choices ? o->choices : "",
           lt_what(c->L, c->h, at, what));
}

static double read_number(const call *c, int at, const lt_option *o) {
  if (lua_type(c->L, at) != LUA_TNUMBER) bad_option(c, at, o, "a number");
  return lua_tonumber(c->L, at);
}

static int64_t read_integer(const call *c, int at, const lt_option *o) {
  int is_int = 0;
  lua_Integer i = lua_type(c->L, at) == LUA_TNUMBER ? lua_tointegerx(c->L, at, &is_int) : 0;
  if (!is_int) bad_option(c, at, o, "an integer");
  return i;
}

/* 1-based or negative in Lua, 0-based or negative in the core. */
static int64_t read_position(const call *c, int at, const lt_option *o) {
  int64_t i = read_integer(c, at, o);
  if (i == 0) lt_error(c->L, c->h, "%s: %s is 0; they count from 1", c->op->name, o->name);
  return i > 0 ? i - 1 : i;
}

static int64_t read_element(const call *c, int at, const lt_option *o) {
  return o->type == LT_OPTION_DIMS ? read_position(c, at, o) : read_integer(c, at, o);
}

static int64_t read_choice(const call *c, int at, const lt_option *o) {
  const char *given = lua_type(c->L, at) == LUA_TSTRING ? lua_tostring(c->L, at) : NULL;
  size_t length = given ? strlen(given) : 0;
  int64_t index = 0;
  for (const char *p = o->choices; given && *p; index++) {
    size_t n = strcspn(p, " ");
    if (n == length && memcmp(p, given, n) == 0) return index;
    p += n + (p[n] == ' ');
  }
  char what[LT_SHAPE_TEXT + 32];
  lt_error(c->L, c->h, "%s: %s must be one of: %s; got %s", c->op->name, o->name, o->choices,
           given ? given : lt_what(c->L, c->h, at, what));
  return 0;
}

static int capacity_of(const lt_option *o) {
  return o->type == LT_OPTION_PAIRS ? 2 * LT_MAX_RANK : LT_MAX_RANK;
}

/* Sets a list option from n values on top of the stack; pops them. */
static void set_list(call *c, int option, int n) {
  lua_State *L = c->L;
  const lt_option *o = &c->op->options[option];
  int64_t list[2 * LT_MAX_RANK];
  double numbers[LT_MAX_RANK];
  int base = lua_gettop(L) - n + 1;
  for (int i = 0; i < n; i++) {
    if (o->type == LT_OPTION_NUMBERS)
      numbers[i] = read_number(c, base + i, o);
    else
      list[i] = read_element(c, base + i, o);
  }
  lua_pop(L, n);
  if (o->type == LT_OPTION_NUMBERS)
    lt_attrs_set_numbers(&c->attrs, c->op, option, n, numbers);
  else
    lt_attrs_set_list(&c->attrs, c->op, option, n, list);
}

/* Pairs may come in parts: {{1, 2}, {3, 4}} is {1, 2, 3, 4}. */
static bool is_nested(lua_State *L, int at) {
  if (lua_type(L, at) != LUA_TTABLE) return false;
  bool nested = lua_rawgeti(L, at, 1) == LUA_TTABLE;
  lua_pop(L, 1);
  return nested;
}

static int push_parts(call *c, const lt_option *o, int at) {
  lua_State *L = c->L;
  int n = 0;
  luaL_checkstack(L, capacity_of(o) + 1, "options");
  for (size_t i = 1; i <= lua_rawlen(L, at); i++) {
    int type = lua_rawgeti(L, at, (lua_Integer)i), part = lua_gettop(L);
    if (type != LUA_TTABLE) bad_option(c, part, o, "lists of integers");
    for (size_t k = 1; k <= lua_rawlen(L, part); k++) {
      if (n++ == capacity_of(o)) {
        lt_error(L, c->h, "%s: %s has more than %d entries", c->op->name, o->name, capacity_of(o));
      }
      lua_rawgeti(L, part, (lua_Integer)k);
    }
    lua_remove(L, part);
  }
  return n;
}

static void read_list_option(call *c, int option, int at) {
  const lt_option *o = &c->op->options[option];
  lua_State *L = c->L;
  int n = 1;
  if (o->choices && lua_type(L, at) == LUA_TSTRING) {
    lt_attrs_set_word(&c->attrs, c->op, option, (int)read_choice(c, at, o));
    return;
  }
  if (o->type == LT_OPTION_PAIRS && is_nested(L, at)) {
    set_list(c, option, push_parts(c, o, at));
    return;
  }
  if (lua_type(L, at) == LUA_TTABLE) {
    if (lua_rawlen(L, at) > (size_t)capacity_of(o)) {
      lt_error(L, c->h, "%s: %s has %d entries, at most %d are possible", c->op->name, o->name,
               (int)lua_rawlen(L, at), capacity_of(o));
    }
    n = (int)lua_rawlen(L, at);
    luaL_checkstack(L, n, "options");
    for (int i = 0; i < n; i++) lua_rawgeti(L, at, i + 1);
  } else {
    lua_pushvalue(L, at);
  }
  set_list(c, option, n);
}

static void read_text(call *c, int option, int at) {
  const lt_option *o = &c->op->options[option];
  size_t n;
  if (lua_type(c->L, at) != LUA_TSTRING) bad_option(c, at, o, "a string");
  const char *text = lua_tolstring(c->L, at, &n);
  if (n > LT_MAX_TEXT) {
    lt_error(c->L, c->h, "%s: %s has %d bytes, at most %d are possible", c->op->name, o->name,
             (int)n, LT_MAX_TEXT);
  }
  lt_attrs_set_text(&c->attrs, c->op, option, (int)n, text);
}

static void read_option(call *c, int option, int at) {
  const lt_option *o = &c->op->options[option];
  lua_State *L = c->L;
  int type = lua_type(L, at);
  switch (o->type) {
  case LT_OPTION_INT: lt_attrs_set_int(&c->attrs, c->op, option, read_integer(c, at, o)); break;
  case LT_OPTION_NUMBER:
    lt_attrs_set_number(&c->attrs, c->op, option, read_number(c, at, o));
    break;
  case LT_OPTION_BOOL:
    if (type != LUA_TBOOLEAN) bad_option(c, at, o, "true or false");
    lt_attrs_set_int(&c->attrs, c->op, option, lua_toboolean(L, at));
    break;
  case LT_OPTION_CHOICE: lt_attrs_set_int(&c->attrs, c->op, option, read_choice(c, at, o)); break;
  case LT_OPTION_DIM:
  case LT_OPTION_INDEX: lt_attrs_set_int(&c->attrs, c->op, option, read_position(c, at, o)); break;
  case LT_OPTION_DIMS:
  case LT_OPTION_SIZES:
  case LT_OPTION_INTS:
  case LT_OPTION_NUMBERS:
  case LT_OPTION_PAIRS: read_list_option(c, option, at); break;
  case LT_OPTION_TEXT: read_text(c, option, at); break;
  case LT_OPTION_DTYPE:
    lt_attrs_set_int(&c->attrs, c->op, option, lt_check_dtype(L, c->h, at, c->op->name));
    break;
  }
}

static void unknown_option(const call *c, const char *key) {
  luaL_Buffer b;
  luaL_buffinit(c->L, &b);
  for (int i = 0; i < lt_op_options(c->op); i++) {
    if (i > 0) luaL_addstring(&b, ", ");
    luaL_addstring(&b, c->op->options[i].name);
  }
  luaL_pushresult(&b);
  const char *known = lua_tostring(c->L, -1);
  lt_error(c->L, c->h, "%s: unknown option '%s'; %s%s", c->op->name, key,
           *known ? "it has " : "it has none", known);
}

static void read_options(call *c, int at) {
  lua_State *L = c->L;
  lua_pushnil(L);
  while (lua_next(L, at)) {
    bool named = lua_type(L, -2) == LUA_TSTRING;
    int option = named ? lt_op_option_index(c->op, lua_tostring(L, -2)) : -1;
    if (option < 0) unknown_option(c, named ? lua_tostring(L, -2) : luaL_tolstring(L, -2, NULL));
    read_option(c, option, lua_gettop(L));
    lua_pop(L, 1);
  }
}

/* Is the value a table of options, rather than a list of numbers? */
static bool is_options(lua_State *L, int at) {
  if (lua_type(L, at) != LUA_TTABLE || lua_rawlen(L, at) > 0) return false;
  lua_pushnil(L);
  if (!lua_next(L, at)) return false;
  lua_pop(L, 2);
  return true;
}

static bool is_empty_table(lua_State *L, int at) {
  if (lua_type(L, at) != LUA_TTABLE || lua_rawlen(L, at) > 0) return false;
  lua_pushnil(L);
  if (!lua_next(L, at)) return true;
  lua_pop(L, 2);
  return false;
}

static bool is_list_option(const lt_option *o) {
  return o->type == LT_OPTION_DIMS || o->type == LT_OPTION_SIZES || o->type == LT_OPTION_INTS ||
         o->type == LT_OPTION_NUMBERS || o->type == LT_OPTION_PAIRS;
}

static bool is_shape_option(const lt_option *o) {
  return o->type == LT_OPTION_DIMS || o->type == LT_OPTION_SIZES;
}

/* Options that a table without entries can be meant for. */
static bool may_be_empty(const lt_option *o) {
  return is_list_option(o) && (o->required || is_shape_option(o));
}

/* Positional options in the order of the block, then a table. Sizes or dims that come first take
 * all numbers that follow: zeros(2, 3), x:permute(2, 1). */
static void read_positional(call *c, int at, int option) {
  lua_State *L = c->L;
  int options = lt_op_options(c->op);
  for (; at <= c->arguments; at++, option++) {
    if (is_options(L, at)) {
      read_options(c, at++);
      break;
    }
    bool empty = lua_type(L, at) == LUA_TTABLE && lua_rawlen(L, at) == 0;
    if (empty && (option >= options || !may_be_empty(&c->op->options[option]))) {
      at++; /* {} says nothing */
      break;
    }
    if (option >= options) break;
    if (lua_isnil(L, at)) continue;
    const lt_option *o = &c->op->options[option];
    if (!is_list_option(o) || lua_type(L, at) != LUA_TNUMBER) {
      read_option(c, option, at);
      continue;
    }
    int n = 0;
    bool more = option + 1 < options && c->op->options[option + 1].required; /* movedim(x, 1, 3) */
    bool all = option == 0 && !more && is_shape_option(o);
    luaL_checkstack(L, capacity_of(o), "options");
    do {
      if (n == capacity_of(o)) {
        lt_error(L, c->h, "%s: %s has more than %d entries", c->op->name, o->name, capacity_of(o));
      }
      lua_pushvalue(L, at + n++);
    } while (all && at + n <= c->arguments && lua_type(L, at + n) == LUA_TNUMBER);
    set_list(c, option, n);
    at += n - 1;
  }
  if (at <= c->arguments && !lua_isnil(L, at)) {
    char what[LT_SHAPE_TEXT + 32];
    lt_error(L, c->h, "%s: argument %d (%s) is one too many", c->op->name, at,
             lt_what(L, c->h, at, what));
  }
}

/* ---- The call -----------------------------------------------------------------------------------
 */

/* From here on no Lua error can happen until the numbers' tensors are released again. */
static lt_status run(call *c, int *outputs, lt_tensor *out[LT_MAX_OUTPUTS]) {
  lt_context *ctx = c->h->ctx;
  c->h->L = c->L;
  lt_tensor *made[LT_MAX_INPUTS];
  lt_status status = LT_OK;
  for (int i = 0; c->numbers > 0 && i < LT_MAX_INPUTS; i++) made[i] = NULL;
  for (int i = 0; c->numbers > 0 && i < LT_MAX_INPUTS && status == LT_OK; i++) {
    if (!c->number[i]) continue;
    bool is_int = lua_isinteger(c->L, c->number[i]), returned = false;
    status = lt_tensor_scalar(ctx, 0, is_int ? LT_INT64 : LT_FLOAT64, &made[i]);
    if (status != LT_OK) break;
    if (is_int)
      lt_tensor_write_int(made[i], 0, lua_tointeger(c->L, c->number[i]));
    else
      lt_tensor_write(made[i], 0, lua_tonumber(c->L, c->number[i]));
    made[i]->weak = true;
    double value = lua_tonumber(c->L, c->number[i]);
    if (!is_int) status = lt_reading_return(made[i], 1, &value, &returned);
    c->in[i] = made[i];
  }
  if (status == LT_OK) {
    status = lt_run(ctx, c->op, c->inputs, c->in, &c->attrs, outputs, out);
  }
  for (int i = 0; c->numbers > 0 && i < LT_MAX_INPUTS; i++) lt_tensor_release(made[i]);
  return status;
}

/* Is what stands at the place of an input the first option? */
static bool stands_for_option(lua_State *L, int at, const lt_option *o) {
  int type = lua_type(L, at);
  if (is_list_option(o) && type == LUA_TTABLE && lua_rawlen(L, at) > 0) {
    type = lua_rawgeti(L, at, 1);
    lua_pop(L, 1);
    return type == LUA_TNUMBER;
  }
  return type == LUA_TNUMBER || type == LUA_TSTRING;
}

static void read_arguments(call *c) {
  lua_State *L = c->L;
  c->inputs = c->numbers = 0;
  c->in = c->few;
  for (int i = 0; i < LT_MAX_INPUTS; i++) c->number[i] = 0;
  lt_attrs_default(&c->attrs, c->op);
  int at = 1, option = 0;
  for (int i = 0; i < LT_MAX_INPUTS && c->op->inputs[i].name; i++) {
    const lt_input *input = &c->op->inputs[i];
    /* PyTorch's order: x, dim, index */
    if (i + 1 == c->op->option_at && stands_for_option(L, at, &c->op->options[option])) {
      read_option(c, option++, at++);
    }
    /* An options table, or a word, may stand in the place of optional inputs. */
    bool options = is_options(L, at) || is_empty_table(L, at) || lua_type(L, at) == LUA_TSTRING;
    if (input->optional && options) {
      for (; i < LT_MAX_INPUTS && c->op->inputs[i].name; i++) c->in[c->inputs++] = NULL;
      break;
    }
    if (input->list)
      at = read_list(c, i, at);
    else
      read_input(c, i, at++);
  }
  read_positional(c, at, option);
}

/* The userdata of the results come before anything is read: making them may run finalizers, which
 * may call ops and change tables. From reading to filling them nothing of Lua's runs. */
static int call_op(lua_State *L) {
  enum { NAMED = LT_MAX_INPUTS + 2 }; /* arguments that are read whether they are there or not */
  call c;
  c.L = L;
  c.h = lt_host_of(L);
  c.op = lua_touserdata(L, lua_upvalueindex(LT_UP_OWN));
  c.arguments = lua_gettop(L);
  if (c.arguments < NAMED) lua_settop(L, NAMED);
  lt_tensor **slot[LT_MAX_OUTPUTS], *out[LT_MAX_OUTPUTS];
  int outputs, below = lua_gettop(L);
  slot[0] = lt_new_tensor_slot(L, c.h);
  int shown = (c.op->results ? c.op->results : 1) - c.op->hidden;
  for (int i = 1; i < shown; i++) slot[i] = lt_new_tensor_slot(L, c.h);
  read_arguments(&c);
  lt_status status = run(&c, &outputs, out);
  if (status == LT_NO_MEMORY) { /* dead tensors may hold what is missing */
    lua_gc(L, LUA_GCCOLLECT);
    read_arguments(&c);
    status = run(&c, &outputs, out);
  }
  if (status != LT_OK) lt_raise(L, c.h, status);
  for (; outputs > shown; outputs--) lt_tensor_release(out[outputs - 1]);
  for (int i = 0; i < outputs; i++) *slot[i] = out[i];
  lua_settop(L, below + outputs);
  lt_collect_if_due(L, c.h);
  return outputs;
}

/* Lua hands the operand of a unary minus over twice. */
static int call_unary(lua_State *L) {
  lua_settop(L, 1);
  return call_op(L);
}

/* ---- Registering
 * --------------------------------------------------------------------------------- */

static void push_op(lua_State *L, lua_CFunction f, const lt_op *op, int host, int meta) {
  lua_pushvalue(L, host);
  lua_pushvalue(L, meta);
  lua_pushlightuserdata(L, (void *)(uintptr_t)op);
  lua_pushcclosure(L, f, 3);
}

static const char *const accepts_names[] = {"any", "float", "index", "mask"};
static const char *const option_types[] = {"int",   "number", "bool", "choice",  "dim",
                                           "dims",  "sizes",  "ints", "numbers", "pairs",
                                           "index", "dtype",  "text"};

static void set_string(lua_State *L, const char *key, const char *value) {
  lua_pushstring(L, value);
  lua_setfield(L, -2, key);
}
static void set_flag(lua_State *L, const char *key, bool value) {
  lua_pushboolean(L, value);
  lua_setfield(L, -2, key);
}

static void describe_inputs(lua_State *L, const lt_op *op) {
  lua_newtable(L);
  for (int i = 0; i < lt_op_inputs(op); i++) {
    const lt_input *input = &op->inputs[i];
    lua_newtable(L);
    set_string(L, "name", input->name);
    set_string(L, "accepts", accepts_names[input->accepts]);
    set_flag(L, "optional", input->optional);
    set_flag(L, "list", input->list);
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, "inputs");
}

static void describe_options(lua_State *L, const lt_op *op) {
  lua_newtable(L);
  for (int i = 0; i < lt_op_options(op); i++) {
    const lt_option *o = &op->options[i];
    lua_newtable(L);
    set_string(L, "name", o->name);
    set_string(L, "type", option_types[o->type]);
    set_flag(L, "required", o->required);
    if (o->choices) {
      set_string(L, "choices", o->choices);
    } else if (o->type == LT_OPTION_BOOL) {
      set_flag(L, "default", o->value != 0);
    } else if (o->type == LT_OPTION_INT || o->type == LT_OPTION_NUMBER ||
               (o->type == LT_OPTION_DIM && o->value != 0)) {
      lua_pushnumber(L, o->value);
      lua_setfield(L, -2, "default");
    }
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, "options");
}

/* How tangents go through the op (tape/forward.h). */
static const char *forward_mode(const lt_op *op) {
  if (op->compose) return "parts";
  if (op->linear) return "linear";
  if (op->multilinear) return "multilinear";
  return op->jvp ? "rule" : "derived";
}

static void describe(lua_State *L, const lt_op *op, const char *family) {
  lua_newtable(L);
  set_string(L, "name", op->name);
  set_string(L, "family", family);
  set_string(L, "doc", op->doc ? op->doc : "");
  describe_inputs(L, op);
  describe_options(L, op);
  lua_newtable(L);
  for (int i = 0; i < LT_MAX_SAMPLES && op->sample[i]; i++) {
    lua_pushstring(L, op->sample[i]);
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, "samples");
  set_flag(L, "differentiable", op->vjp || op->compose);
  if (op->vjp || op->compose) set_string(L, "forward", forward_mode(op));
  set_flag(L, "batched", op->batch || op->kernel || op->elementwise || op->compose);
  set_flag(L, "internal", op->internal);
  set_flag(L, "view", op->view);
  set_flag(L, "cuts", op->cuts);
  set_flag(L, "elementwise", op->kernel || op->elementwise);
  lua_pushinteger(L, op->option_at);
  lua_setfield(L, -2, "option_at");
  set_flag(L, "method", !op->internal && !op->function);
}

/* lt.ops: what the registry says of each op, by name; made when it is first asked for. */
static int list_ops(lua_State *L) {
  const lt_op *const *const *families = lt_families();
  lua_newtable(L);
  for (int f = 0; families[f]; f++) {
    for (const lt_op *const *op = families[f]; *op; op++) {
      describe(L, *op, lt_family_name(f));
      lua_setfield(L, -2, (*op)->name);
    }
  }
  return 1;
}

/* Operators and the ops behind them. */
static const char *const operators[][2] = {
    {"__add", "add"},           {"__sub", "sub"},       {"__mul", "mul"},
    {"__div", "div"},           {"__pow", "pow"},       {"__unm", "neg"},
    {"__idiv", "floor_divide"}, {"__mod", "remainder"}, {NULL, NULL}};

void lt_open_ops(lua_State *L, int host, int meta) {
  int module = lua_gettop(L);
  lua_getfield(L, meta, "__methods");
  int methods = lua_gettop(L);
  for (const lt_op *const *const *f = lt_families(); *f; f++) {
    for (const lt_op *const *op = *f; *op; op++) {
      if ((*op)->internal) continue;
      push_op(L, call_op, *op, host, meta);
      if (!(*op)->function) {
        lua_pushvalue(L, -1);
        lua_setfield(L, methods, (*op)->name);
      }
      lua_setfield(L, module, (*op)->name);
    }
  }
  lua_pop(L, 1);
  for (int i = 0; operators[i][0]; i++) {
    const lt_op *op = lt_op_find(operators[i][1]);
    if (!op) continue;
    bool unary = lt_op_inputs(op) == 1;
    push_op(L, unary ? call_unary : call_op, op, host, meta);
    lua_setfield(L, meta, operators[i][0]);
  }
  lua_pushcfunction(L, list_ops);
  lua_setfield(L, module, "list_ops");
}
