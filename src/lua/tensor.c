/* The tensor userdata: making, checking, collecting; constructors, fields, elements. */
#include "lua/host.h"
#include "ops/ops.h"
#include "tape/assign.h"
#include "tape/reading.h"

#include <string.h>

/* What a tensor userdata holds. An error may leave it without a tensor. The mark tells it from
 * other libraries' userdata of this size that debug.setmetatable gave our metatable. */
typedef struct handle {
  lt_tensor *t;
  const void *mark; /* &host->tensor_mt while it counts among the host's users, then NULL */
} handle;

/* Variables by address, weak: a variable is always the same userdata. */
static const char variables_key = 0;

/* C memory may grow by this much, or by half of what is live, before the collector is told. */
static const int64_t GROWTH = (int64_t)16 << 20;

/* ---- Handles --------------------------------------------------------------------------------- */

static handle *test_handle(lua_State *L, const lt_host *h, int index) {
  handle *u = lua_touserdata(L, index);
  if (!u || lua_rawlen(L, index) != sizeof *u || u->mark != &h->tensor_mt) return NULL;
  if (!lua_getmetatable(L, index)) return NULL;
  bool same = lua_topointer(L, -1) == h->tensor_mt;
  lua_pop(L, 1);
  return same ? u : NULL;
}

lt_tensor *lt_test_tensor(lua_State *L, lt_host *h, int index) {
  const handle *u = test_handle(L, h, index);
  return u ? u->t : NULL;
}

lt_tensor *lt_check_tensor(lua_State *L, lt_host *h, int index, const char *op, const char *name) {
  lt_tensor *t = lt_test_tensor(L, h, index);
  char what[LT_SHAPE_TEXT + 32];
  if (!t) lt_error(L, h, "%s: %s must be a tensor, got %s", op, name, lt_what(L, h, index, what));
  return t;
}

lt_tensor *lt_check_values(lua_State *L, lt_host *h, int index, const char *op, const char *name) {
  lt_tensor *t = lt_check_tensor(L, h, index, op, name);
  LT_CHECK(L, h, lt_check_plain(t, op, name));
  return t;
}

/* Makes the userdata and puts it in the place of its metatable, on the top of the stack. */
static lt_tensor **wrap_meta(lua_State *L, lt_host *h) {
  handle *u = lua_newuserdatauv(L, sizeof *u, 0);
  *u = (handle){NULL, &h->tensor_mt};
  h->users++;
  h->L = L; /* a finalizer may have called from another coroutine */
  lua_insert(L, -2);
  lua_setmetatable(L, -2);
  return &u->t;
}

lt_tensor **lt_new_tensor_slot(lua_State *L, lt_host *h) {
  lua_pushvalue(L, lua_upvalueindex(LT_UP_META));
  return wrap_meta(L, h);
}

lt_tensor **lt_new_tensor_slot_outside(lua_State *L, lt_host *h) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, h->tensor_mt);
  return wrap_meta(L, h);
}

/* Leaves the variable's userdata on the stack if it has one. */
static bool push_known_variable(lua_State *L, const lt_tensor *t) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &variables_key);
  bool known = lua_rawgetp(L, -1, t) == LUA_TUSERDATA &&
               ((const handle *)lua_touserdata(L, -1))->t == t; /* not finalized by hand */
  lua_remove(L, -2);
  if (!known) lua_pop(L, 1);
  return known;
}

static void remember_variable(lua_State *L, const lt_tensor *t) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &variables_key);
  lua_pushvalue(L, -2);
  lua_rawsetp(L, -2, t);
  lua_pop(L, 1);
}

void lt_push_tensor(lua_State *L, lt_host *h, lt_tensor *t) {
  if (t->variable && push_known_variable(L, t)) return;
  lt_tensor **slot = lt_new_tensor_slot(L, h); /* may raise, so it comes before the reference */
  *slot = lt_tensor_retain(t);
  if (t->variable) remember_variable(L, t);
  lt_collect_if_due(L, h);
}

static int tensor_gc(lua_State *L) {
  lt_host *h = lua_touserdata(L, lua_upvalueindex(LT_UP_HOST));
  handle *u = test_handle(L, h, 1);
  if (!u) return 0;
  lt_tensor *t = u->t;
  *u = (handle){0};
  lt_tensor_release(t);
  lt_host_drop_user(h);
  return 0;
}

void lt_collect_if_due(lua_State *L, lt_host *h) {
  lt_pool *pool = &h->ctx->pool;
  int64_t bound = h->baseline / 2 > GROWTH ? h->baseline / 2 : GROWTH;
  if (pool->grown < bound) return;
  /* As if Lua itself had allocated them: pays for a part of a cycle, or a young collection. */
  lua_gc(L, LUA_GCSTEP, (int)(pool->grown >> 10));
  pool->grown = 0;
  if (pool->live > h->baseline + 2 * bound) {
    lua_gc(L, LUA_GCCOLLECT);
    h->baseline = pool->live;
  } else if (pool->live < h->baseline) {
    h->baseline = pool->live;
  }
}

/* ---- Values to tensors ------------------------------------------------------------------------
 */

lt_dtype lt_check_dtype(lua_State *L, lt_host *h, int index, const char *op) {
  lt_dtype dtype = LT_FLOAT32;
  const char *name = lua_type(L, index) == LUA_TSTRING ? lua_tostring(L, index) : NULL;
  if (!name || !lt_dtype_from_name(name, &dtype)) {
    char what[LT_SHAPE_TEXT + 32];
    lt_error(L, h, "%s: dtype must be float32, float64, int64, int32, uint8 or bool, got %s", op,
             name ? name : lt_what(L, h, index, what));
  }
  return dtype;
}

/* The shape of the nested table at index, along its first elements; sets *leaf to the type of
 * the first leaf (LUA_TNONE if there is none). */
static void table_shape(lua_State *L, lt_host *h, int index, const char *op, lt_shape *shape,
                        int *leaf) {
  shape->ndim = 0;
  *leaf = LUA_TNONE;
  luaL_checkstack(L, LT_MAX_RANK + 4, "nested table");
  lua_pushvalue(L, index);
  int depth = 1;
  while (lua_type(L, -1) == LUA_TTABLE) {
    if (shape->ndim == LT_MAX_RANK) {
      lt_error(L, h, "%s: tables nest deeper than %d", op, LT_MAX_RANK);
    }
    shape->size[shape->ndim++] = (int64_t)lua_rawlen(L, -1);
    lua_rawgeti(L, -1, 1);
    depth++;
  }
  if (!(shape->ndim > 0 && shape->size[shape->ndim - 1] == 0)) *leaf = lua_type(L, -1);
  lua_pop(L, depth);
}

/* Writes the leaf on the top of the stack to element `at`. */
static void write_leaf(lua_State *L, lt_host *h, lt_tensor *t, int64_t at, const char *op) {
  int type = lua_type(L, -1);
  if (type == LUA_TBOOLEAN) {
    lt_tensor_write_int(t, at, lua_toboolean(L, -1));
  } else if (type == LUA_TNUMBER && lua_isinteger(L, -1)) {
    lt_tensor_write_int(t, at, lua_tointeger(L, -1));
  } else if (type == LUA_TNUMBER) {
    lt_tensor_write(t, at, lua_tonumber(L, -1));
  } else {
    const lt_tensor *x = lt_test_tensor(L, h, -1);
    char what[LT_SHAPE_TEXT + 32];
    if (!x || x->numel != 1) {
      lt_error(L, h, "%s: element %d is %s, not a number", op, (int)(at + 1),
               lt_what(L, h, -1, what));
    }
    LT_CHECK(L, h, lt_check_plain(x, op, "an element"));
    lt_tensor_write(t, at, lt_tensor_read(x, 0));
  }
}

static void fill_from_table(lua_State *L, lt_host *h, lt_tensor *t, int dim, int64_t *at,
                            const char *op) {
  if (dim == t->shape.ndim) {
    if (lua_type(L, -1) == LUA_TTABLE) lt_error(L, h, "%s: tables nest unevenly", op);
    write_leaf(L, h, t, (*at)++, op);
    return;
  }
  if (lua_type(L, -1) != LUA_TTABLE) {
    char what[LT_SHAPE_TEXT + 32];
    lt_error(L, h, "%s: element %d is %s where a table of %d is expected", op, (int)(*at + 1),
             lt_what(L, h, -1, what), (int)t->shape.size[dim]);
  }
  int64_t n = t->shape.size[dim];
  if ((int64_t)lua_rawlen(L, -1) != n) {
    lt_error(L, h, "%s: rows differ in length (%d and %d)", op, (int)n, (int)lua_rawlen(L, -1));
  }
  for (int64_t i = 1; i <= n; i++) {
    lua_rawgeti(L, -1, i);
    fill_from_table(L, h, t, dim + 1, at, op);
    lua_pop(L, 1);
  }
}

lt_tensor *lt_push_value(lua_State *L, lt_host *h, int index, int dtype, const char *op) {
  index = lua_absindex(L, index);
  const lt_tensor *x = lt_test_tensor(L, h, index);
  lt_shape shape = {0};
  int leaf = lua_type(L, index);
  if (x)
    shape = lt_check_values(L, h, index, op, "the value")->shape;
  else if (leaf == LUA_TTABLE)
    table_shape(L, h, index, op, &shape, &leaf);
  else if (leaf != LUA_TNUMBER && leaf != LUA_TBOOLEAN) {
    char what[LT_SHAPE_TEXT + 32];
    lt_error(L, h, "%s: takes a number, a table of numbers or a tensor, got %s", op,
             lt_what(L, h, index, what));
  }
  if (dtype < 0) {
    dtype = x ? x->dtype : leaf == LUA_TBOOLEAN ? LT_BOOL : (int)h->ctx->default_dtype;
  }
  lt_tensor **slot = lt_new_tensor_slot(L, h);
  LT_CHECK(L, h, lt_tensor_new(h->ctx, op, (lt_dtype)dtype, &shape, slot));
  if (x) {
    LT_CHECK(L, h, lt_tensor_copy(*slot, x));
    return *slot;
  }
  int64_t at = 0;
  lua_pushvalue(L, index);
  fill_from_table(L, h, *slot, 0, &at, op);
  lua_pop(L, 1);
  return *slot;
}

/* ---- Constructors ------------------------------------------------------------------------------
 */

/* Reads {dtype =, name =, trainable =}; leaves the name (or nil) on the stack. */
static void read_options(lua_State *L, lt_host *h, int index, const char *op, int *dtype,
                         bool *trainable) {
  if (lua_isnoneornil(L, index)) {
    lua_pushnil(L);
    return;
  }
  char what[LT_SHAPE_TEXT + 32];
  if (lua_type(L, index) != LUA_TTABLE) {
    lt_error(L, h, "%s: options must be a table, got %s", op, lt_what(L, h, index, what));
  }
  lua_pushnil(L);
  lua_pushnil(L); /* below: the name */
  while (lua_next(L, index)) {
    const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    if (strcmp(key, "dtype") == 0) {
      *dtype = (int)lt_check_dtype(L, h, lua_gettop(L), op);
    } else if (strcmp(key, "name") == 0 && lua_type(L, -1) == LUA_TSTRING) {
      lua_pushvalue(L, -1);
      lua_replace(L, index + 1);
    } else if (trainable && strcmp(key, "trainable") == 0) {
      *trainable = lua_toboolean(L, -1);
    } else {
      lt_error(L, h, "%s: unknown or bad option '%s'; there are dtype, name%s", op, key,
               trainable ? ", trainable" : "");
    }
    lua_pop(L, 1);
  }
}

/* Is the first number of a nested table a float of Lua's, as readings are? */
static bool first_is_float(lua_State *L, int index) {
  lua_pushvalue(L, index);
  int depth = 1;
  for (; lua_type(L, -1) == LUA_TTABLE && depth <= LT_MAX_RANK; depth++) lua_rawgeti(L, -1, 1);
  bool is_float = lua_type(L, -1) == LUA_TNUMBER && !lua_isinteger(L, -1);
  lua_pop(L, depth);
  return is_float;
}

static int make(lua_State *L, const lt_op *op, bool variable) {
  lt_host *h = lt_host_of(L);
  int dtype = -1;
  bool trainable = true;
  lua_settop(L, 2);
  read_options(L, h, 2, op->name, &dtype, variable ? &trainable : NULL);
  lt_tensor *t = lt_push_value(L, h, 1, dtype, op->name);
  if (lua_type(L, 3) == LUA_TSTRING) LT_CHECK(L, h, lt_tensor_set_name(t, lua_tostring(L, 3)));
  bool returned = false;
  double first[LT_NOTED];
  int looked = 0;
  if (!variable && lt_dtype_is_float((lt_dtype)t->dtype) && first_is_float(L, 1)) {
    for (; looked < LT_NOTED && looked < t->numel; looked++)
      first[looked] = lt_tensor_read(t, looked);
  }
  LT_CHECK(L, h, lt_reading_return(t, looked, first, &returned));
  LT_CHECK(L, h, lt_record_source(op, t, returned));
  if (variable) {
    t->variable = true;
    t->trainable = trainable && lt_dtype_is_float((lt_dtype)t->dtype);
    if (!t->trainable) t->frozen = lt_current_site(h->ctx);
    remember_variable(L, t);
  }
  lt_collect_if_due(L, h);
  return 1;
}

/* lt.tensor(v [, {dtype =, name =}]) */
static int tensor_new(lua_State *L) { return make(L, &lt_op_tensor, false); }
/* lt.variable(v [, {name =, trainable = true, dtype =}]) */
static int variable_new(lua_State *L) { return make(L, &lt_op_variable, true); }

static int is_tensor(lua_State *L) {
  lua_pushboolean(L, lt_test_tensor(L, lt_host_of(L), 1) != NULL);
  return 1;
}

/* ---- Elements -----------------------------------------------------------------------------------
 */

void lt_push_element(lua_State *L, const lt_tensor *t, int64_t offset) {
  if (lt_dtype_is_float((lt_dtype)t->dtype))
    lua_pushnumber(L, lt_tensor_read(t, offset));
  else if (t->dtype == LT_BOOL)
    lua_pushboolean(L, lt_tensor_read_int(t, offset) != 0);
  else
    lua_pushinteger(L, lt_tensor_read_int(t, offset));
}

/* What a float tensor gives out as a Lua number. */
static void note_reading(const lt_op *op, const lt_tensor *t, int64_t offset) {
  if (t->ctx->open && lt_dtype_is_float((lt_dtype)t->dtype)) {
    lt_reading_note(op, t, lt_tensor_read(t, offset));
  }
}

/* t:item() */
static int item(lua_State *L) {
  lt_host *h = lt_host_of(L);
  const lt_tensor *t = lt_check_values(L, h, 1, "item", "x");
  char shape[LT_SHAPE_TEXT];
  if (t->numel != 1) {
    lt_error(L, h, "item: a tensor of shape %s is not one number; use get or totable",
             lt_shape_text(&t->shape, shape));
  }
  lt_push_element(L, t, 0);
  note_reading(&lt_op_item, t, 0);
  return 1;
}

/* Of a whole tensor its first elements do: they come back together. */
static void note_first(const lt_op *op, const lt_tensor *t) {
  int64_t last = t->shape.ndim > 0 ? t->shape.ndim - 1 : 0;
  int64_t n = t->numel == 0 ? 0 : t->shape.ndim == 0 ? 1 : t->shape.size[last];
  for (int64_t i = 0; i < n && i < LT_NOTED; i++) note_reading(op, t, i * t->strides[last]);
}

static void push_nested(lua_State *L, const lt_tensor *t, int dim, int64_t offset) {
  if (dim == t->shape.ndim) {
    lt_push_element(L, t, offset);
    return;
  }
  int64_t n = t->shape.size[dim];
  lua_createtable(L, (int)n, 0);
  for (int64_t i = 0; i < n; i++) {
    push_nested(L, t, dim + 1, offset + i * t->strides[dim]);
    lua_rawseti(L, -2, i + 1);
  }
}

/* Refuses tables that could not fit: repeated elements and empty rows take no memory before. */
static void check_nested(lua_State *L, lt_host *h, const lt_tensor *t) {
  char shape[LT_SHAPE_TEXT];
  int64_t tables = 1;
  for (int d = 0; d < t->shape.ndim; d++) tables *= t->shape.size[d] ? t->shape.size[d] : 1;
  if (tables <= h->ctx->memory_limit / (int64_t)sizeof(lua_Number)) return;
  lt_error(L, h, "totable: a tensor of shape %s makes larger tables than this machine can hold",
           lt_shape_text(&t->shape, shape));
}

/* t:totable(): nested tables, a plain number for 0-d */
static int totable(lua_State *L) {
  lt_host *h = lt_host_of(L);
  const lt_tensor *t = lt_check_values(L, h, 1, "totable", "x");
  luaL_checkstack(L, 2 * LT_MAX_RANK + 2, "totable");
  check_nested(L, h, t);
  push_nested(L, t, 0, 0);
  note_first(&lt_op_totable, t);
  return 1;
}

/* Offset of the element named by `count` integers from stack index 2 on. */
static int64_t element_at(lua_State *L, lt_host *h, const lt_tensor *t, int count, const char *op) {
  int64_t offset = 0;
  if (count != t->shape.ndim) {
    char shape[LT_SHAPE_TEXT];
    lt_error(L, h, "%s: %d indices for a tensor of shape %s", op, count,
             lt_shape_text(&t->shape, shape));
  }
  for (int d = 0; d < count; d++) {
    int is_int;
    lua_Integer i = lua_tointegerx(L, d + 2, &is_int);
    int64_t n = t->shape.size[d];
    if (!is_int || lua_type(L, d + 2) != LUA_TNUMBER) {
      lt_error(L, h, "%s: index %d is not an integer", op, d + 1);
    }
    if (i < -n || i > n || i == 0) {
      lt_error(L, h, "%s: index %lld is outside 1..%lld in dim %d", op, (long long)i, (long long)n,
               d + 1);
    }
    offset += (i > 0 ? i - 1 : i + n) * t->strides[d];
  }
  return offset;
}

/* t:get(i, j, ...): a number */
static int get(lua_State *L) {
  lt_host *h = lt_host_of(L);
  const lt_tensor *t = lt_check_values(L, h, 1, "get", "x");
  int64_t at = element_at(L, h, t, lua_gettop(L) - 1, "get");
  lt_push_element(L, t, at);
  note_reading(&lt_op_get, t, at);
  return 1;
}

/* t:set(i, j, ..., value); returns t */
static int set(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_tensor *t = lt_check_values(L, h, 1, "set", "x");
  int64_t at = element_at(L, h, t, lua_gettop(L) - 2, "set");
  char what[LT_SHAPE_TEXT + 32];
  int type = lua_type(L, -1);
  if (type != LUA_TNUMBER && type != LUA_TBOOLEAN) {
    lt_error(L, h, "set: the value must be a number, got %s", lt_what(L, h, -1, what));
  }
  LT_CHECK(L, h, lt_assign_begin(h->ctx, t, "set"));
  if (type == LUA_TBOOLEAN)
    lt_tensor_write_int(t, at, lua_toboolean(L, -1));
  else if (lua_isinteger(L, -1))
    lt_tensor_write_int(t, at, lua_tointeger(L, -1));
  else
    lt_tensor_write(t, at, lua_tonumber(L, -1));
  LT_CHECK(L, h, lt_assign_end(h->ctx, t, NULL));
  lua_settop(L, 1);
  return 1;
}

/* ---- Fields
 * --------------------------------------------------------------------------------------- */

static int length(lua_State *L) {
  lt_host *h = lt_host_of(L);
  const lt_tensor *t = lt_check_tensor(L, h, 1, "#", "x");
  if (t->shape.ndim == 0) lt_error(L, h, "#: a 0-d tensor has no length");
  lua_pushinteger(L, t->shape.size[0]);
  return 1;
}

static int numel(lua_State *L) {
  lua_pushinteger(L, lt_check_tensor(L, lt_host_of(L), 1, "numel", "x")->numel);
  return 1;
}

static int is_contiguous(lua_State *L) {
  lua_pushboolean(L, lt_check_tensor(L, lt_host_of(L), 1, "is_contiguous", "x")->contiguous);
  return 1;
}

bool lt_push_field(lua_State *L, const lt_tensor *t, const char *key) {
  if (strcmp(key, "shape") == 0) {
    lua_createtable(L, t->shape.ndim, 0);
    for (int d = 0; d < t->shape.ndim; d++) {
      lua_pushinteger(L, t->shape.size[d]);
      lua_rawseti(L, -2, d + 1);
    }
  } else if (strcmp(key, "dtype") == 0) {
    lua_pushstring(L, lt_dtype_name((lt_dtype)t->dtype));
  } else if (strcmp(key, "ndim") == 0) {
    lua_pushinteger(L, t->shape.ndim);
  } else if (strcmp(key, "name") == 0) {
    lua_pushstring(L, t->name); /* nil for none */
  } else if (strcmp(key, "trainable") == 0) {
    lua_pushboolean(L, t->variable && t->trainable);
  } else if (strcmp(key, "is_variable") == 0) {
    lua_pushboolean(L, t->variable);
  } else if (strcmp(key, "is_sparse") == 0) {
    lua_pushboolean(L, t->rows != NULL);
  } else {
    return false;
  }
  return true;
}

void lt_set_field(lua_State *L, lt_host *h, lt_tensor *t, const char *key, int value) {
  char what[LT_SHAPE_TEXT + 32];
  if (strcmp(key, "name") == 0) {
    if (!lua_isnil(L, value) && lua_type(L, value) != LUA_TSTRING) {
      lt_error(L, h, "name must be a string, got %s", lt_what(L, h, value, what));
    }
    LT_CHECK(L, h, lt_tensor_set_name(t, lua_tostring(L, value)));
  } else if (strcmp(key, "trainable") == 0) {
    if (!t->variable) lt_error(L, h, "trainable: only variables are; lt.variable makes one");
    if (lua_type(L, value) != LUA_TBOOLEAN) {
      lt_error(L, h, "trainable must be true or false, got %s", lt_what(L, h, value, what));
    }
    t->trainable = lua_toboolean(L, value) && lt_dtype_is_float((lt_dtype)t->dtype);
    if (!t->trainable) t->frozen = lt_current_site(h->ctx);
  } else {
    lt_error(L, h, "a tensor has no field '%s' to set (name, trainable, or an index)", key);
  }
}

void lt_open_tensor(lua_State *L, int host, int meta) {
  static const luaL_Reg functions[] = {
      {"tensor", tensor_new}, {"variable", variable_new}, {"is_tensor", is_tensor}, {NULL, NULL}};
  static const luaL_Reg methods[] = {{"item", item},   {"totable", totable},
                                     {"get", get},     {"set", set},
                                     {"numel", numel}, {"is_contiguous", is_contiguous},
                                     {NULL, NULL}};
  static const luaL_Reg metamethods[] = {{"__gc", tensor_gc}, {"__len", length}, {NULL, NULL}};
  lt_set_functions(L, functions, host, meta);
  lua_getfield(L, meta, "__methods");
  lt_set_functions(L, methods, host, meta);
  lua_pop(L, 1);
  lua_pushvalue(L, meta);
  lt_set_functions(L, metamethods, host, meta);
  lua_pop(L, 1);
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "v");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &variables_key);
  lua_pushvalue(L, meta);
  lua_rawsetp(L, LUA_REGISTRYINDEX, lua_topointer(L, meta));
}
