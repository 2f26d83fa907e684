/* t[i], t[{i, {first, last}, {}}], t[mask], and assignment through the same forms. Each step is
 * a view made by an op, so gradients pass. */
#include "kernels/copy.h"
#include "lua/host.h"
#include "ops/ops.h"
#include "tape/assign.h"

#include <string.h>

/* What one entry of an index says about one dimension. */
typedef struct place {
  bool all, one;
  int64_t first, last, step; /* 0-based, negative from the end; one: first alone */
} place;

/* ---- Reading an index --------------------------------------------------------------------------
 */

static int64_t read_place(lua_State *L, lt_host *h, int at, const char *what) {
  int is_int = 0;
  lua_Integer i = lua_type(L, at) == LUA_TNUMBER ? lua_tointegerx(L, at, &is_int) : 0;
  char text[LT_SHAPE_TEXT + 32];
  if (!is_int)
    lt_error(L, h, "index: %s must be an integer, got %s", what, lt_what(L, h, at, text));
  if (i == 0) lt_error(L, h, "index: 0 is no place; they count from 1");
  return i > 0 ? i - 1 : i;
}

/* i, {}, {first, last} or {first, last, step}, from the top of the stack. */
static place read_entry(lua_State *L, lt_host *h) {
  int top = lua_gettop(L);
  if (lua_type(L, top) != LUA_TTABLE) {
    return (place){.one = true, .first = read_place(L, h, top, "an entry")};
  }
  int n = (int)lua_rawlen(L, top);
  lua_pushnil(L);
  if (n == 0 && !lua_next(L, top)) return (place){.all = true};
  lua_settop(L, top);
  if (n > 3 || n < 2) lt_error(L, h, "index: a range is {first, last} or {first, last, step}");
  place p = {.step = 1};
  for (int i = 1; i <= n; i++) lua_rawgeti(L, top, i);
  p.first = read_place(L, h, top + 1, "first");
  /* {first, 0} ends before the first element, as string.sub does: nothing. */
  bool none = lua_type(L, top + 2) == LUA_TNUMBER && lua_tonumber(L, top + 2) == 0;
  p.last = none ? INT64_MIN : read_place(L, h, top + 2, "last");
  if (n == 3) p.step = lua_tointeger(L, top + 3);
  if (p.step < 1) lt_error(L, h, "index: step must be a positive integer");
  lua_settop(L, top);
  return p;
}

/* ---- Views
 * --------------------------------------------------------------------------------------- */

/* Replaces *t (owned) by the result of a view op on it. */
static lt_status apply(lt_context *ctx, const lt_op *op, const lt_attrs *attrs, lt_tensor **t) {
  lt_tensor *out[LT_MAX_OUTPUTS];
  int outputs;
  LT_TRY(lt_run(ctx, op, 1, t, attrs, &outputs, out));
  lt_tensor_release(*t);
  *t = out[0];
  return LT_OK;
}

/* Applies one place to dimension `dim` of *t; *gone says whether the dimension went away. */
static lt_status narrow(lt_context *ctx, const place *p, int dim, lt_tensor **t, bool *gone) {
  lt_attrs attrs;
  *gone = p->one;
  if (p->all) return LT_OK;
  const lt_op *op = p->one ? &lt_op_select : &lt_op_slice;
  lt_attrs_default(&attrs, op);
  lt_attrs_set_int(&attrs, op, 0, dim);
  lt_attrs_set_int(&attrs, op, 1, p->first);
  if (!p->one) {
    lt_attrs_set_int(&attrs, op, 2, p->last);
    lt_attrs_set_int(&attrs, op, 3, p->step);
  }
  return apply(ctx, op, &attrs, t);
}

/* Pushes the view of t that the key at index 2 names: an integer or a table of entries. */
static lt_tensor *push_view(lua_State *L, lt_host *h, lt_tensor *t) {
  lt_tensor **slot = lt_new_tensor_slot(L, h);
  *slot = lt_tensor_retain(t);
  bool gone;
  char shape[LT_SHAPE_TEXT];
  if (lua_type(L, 2) == LUA_TNUMBER) {
    if (t->shape.ndim == 0)
      lt_error(L, h, "index: a 0-d tensor has no elements to index; use item");
    place p = {.one = true, .first = read_place(L, h, 2, "it")};
    LT_CHECK(L, h, narrow(h->ctx, &p, 0, slot, &gone));
    return *slot;
  }
  int n = (int)lua_rawlen(L, 2);
  if (n > t->shape.ndim) {
    lt_error(L, h, "index: %d entries for a tensor of shape %s", n,
             lt_shape_text(&t->shape, shape));
  }
  int dim = 0;
  for (int i = 1; i <= n; i++) {
    lua_rawgeti(L, 2, i);
    place p = read_entry(L, h);
    lua_pop(L, 1);
    LT_CHECK(L, h, narrow(h->ctx, &p, dim, slot, &gone));
    dim += !gone;
  }
  if (*slot == t) { /* nothing was narrowed: still a view of its own */
    lt_attrs attrs;
    lt_attrs_default(&attrs, &lt_op_expand);
    lt_attrs_set_list(&attrs, &lt_op_expand, 0, t->shape.ndim, t->shape.size);
    LT_CHECK(L, h, apply(h->ctx, &lt_op_expand, &attrs, slot));
  }
  return *slot;
}

/* ---- __index
 * --------------------------------------------------------------------------------------- */

/* Raises "tensor has no method 'summ' (sum?)": the nearest name is looked up in Lua. */
static int no_such_field(lua_State *L, lt_host *h, const char *key) {
  lua_getfield(L, lua_upvalueindex(LT_UP_META), "__nearest");
  lua_getfield(L, lua_upvalueindex(LT_UP_META), "__methods");
  lua_pushstring(L, key);
  const char *near = "";
  if (lua_pcall(L, 2, 1, 0) == LUA_OK && lua_type(L, -1) == LUA_TSTRING) near = lua_tostring(L, -1);
  return lt_error(L, h, "a tensor has no field or method '%s'%s%s%s", key, *near ? " (" : "", near,
                  *near ? "?)" : "");
}

static int tensor_index(lua_State *L) {
  int type = lua_type(L, 2);
  if (type == LUA_TSTRING) { /* methods first: they are asked for most */
    lua_getfield(L, lua_upvalueindex(LT_UP_META), "__methods");
    lua_pushvalue(L, 2);
    if (lua_rawget(L, -2) != LUA_TNIL) return 1;
  }
  lt_host *h = lt_host_of(L);
  lt_tensor *t = lt_check_tensor(L, h, 1, "index", "x");
  lua_settop(L, 2);
  if (type == LUA_TSTRING) {
    const char *key = lua_tostring(L, 2);
    return lt_push_field(L, t, key) ? 1 : no_such_field(L, h, key);
  }
  if (type == LUA_TNUMBER && t->shape.ndim > 0 && lua_isinteger(L, 2) &&
      lua_tointeger(L, 2) == t->shape.size[0] + 1) {
    return 0; /* one past the end is nil: ipairs stops there */
  }
  if (type == LUA_TNUMBER || type == LUA_TTABLE) {
    push_view(L, h, t);
    return 1;
  }
  lt_tensor *key = lt_test_tensor(L, h, 2);
  char what[LT_SHAPE_TEXT + 32];
  if (!key) lt_error(L, h, "index: cannot be %s", lt_what(L, h, 2, what));
  if (key->dtype == LT_BOOL) {
    lt_tensor **slot = lt_new_tensor_slot(L, h), *out[LT_MAX_OUTPUTS];
    int outputs;
    LT_CHECK(L, h,
             lt_run(h->ctx, &lt_op_masked_select, 2, (lt_tensor *[]){t, key}, NULL, &outputs, out));
    *slot = out[0];
    lt_collect_if_due(L, h);
    return 1;
  }
  return lt_error(L, h,
                  "index: a %s tensor; a mask is bool, rows are taken by t:index_select(dim, i)",
                  lt_dtype_name((lt_dtype)key->dtype));
}

/* ---- Assignment
 * -------------------------------------------------------------------------------------- */

/* Writes the value at stack index `value` into all of dst. Not recorded. */
static void write_into(lua_State *L, lt_host *h, lt_tensor *dst, int value) {
  lt_tensor *src = lt_test_tensor(L, h, value);
  if (!src) src = lt_push_value(L, h, value, dst->dtype, "assign");
  LT_CHECK(L, h, lt_tensor_copy(dst, src));
}

/* t[mask] = a number, or a 1-d tensor with one element for each true of the mask. */
static void write_masked(lua_State *L, lt_host *h, lt_tensor *t, lt_tensor *mask) {
  char a[LT_SHAPE_TEXT], b[LT_SHAPE_TEXT];
  if (!lt_shape_equal(&t->shape, &mask->shape)) {
    lt_error(L, h, "assign: the mask is %s, the tensor %s", lt_shape_text(&mask->shape, a),
             lt_shape_text(&t->shape, b));
  }
  lt_tensor *src = lt_test_tensor(L, h, 3);
  if (!src) src = lt_push_value(L, h, 3, t->dtype, "assign");
  LT_CHECK(L, h, lt_check_plain(src, "assign", "the value"));
  lt_tensor **flat = lt_new_tensor_slot(L, h), **where = lt_new_tensor_slot(L, h);
  LT_CHECK(L, h, lt_tensor_contiguous(mask, where));
  LT_CHECK(L, h, lt_tensor_new(h->ctx, "assign", (lt_dtype)t->dtype, &t->shape, flat));
  LT_CHECK(L, h, lt_tensor_copy(*flat, t));
  const uint8_t *on = (const uint8_t *)(*where)->data;
  int64_t count = 0, size = lt_dtype_size((lt_dtype)t->dtype);
  for (int64_t i = 0; i < t->numel; i++) count += on[i];
  if (src->numel != 1 && (src->numel != count || src->shape.ndim != 1)) {
    lt_error(L, h, "assign: %s values for %d places of the mask", lt_shape_text(&src->shape, a),
             (int)count);
  }
  int64_t step = src->numel == 1 ? 0 : src->strides[0];
  int64_t src_size = lt_dtype_size((lt_dtype)src->dtype);
  for (int64_t i = 0, k = 0; i < t->numel; i++) {
    if (!on[i]) continue;
    lt_convert(1, (lt_dtype)t->dtype, (*flat)->data + i * size, 1, (lt_dtype)src->dtype,
               src->data + k++ * step * src_size, 1);
  }
  LT_CHECK(L, h, lt_tensor_copy(t, *flat));
}

static int tensor_newindex(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_tensor *t = lt_check_tensor(L, h, 1, "index", "x");
  int type = lua_type(L, 2);
  char what[LT_SHAPE_TEXT + 32];
  if (type == LUA_TSTRING) {
    lt_set_field(L, h, t, lua_tostring(L, 2), 3);
    return 0;
  }
  LT_CHECK(L, h, lt_assign_begin(h->ctx, t, "assign"));
  lt_tensor *key = lt_test_tensor(L, h, 2);
  if (key && key->dtype == LT_BOOL) {
    write_masked(L, h, t, key);
  } else if (type == LUA_TNUMBER || type == LUA_TTABLE) {
    write_into(L, h, push_view(L, h, t), 3);
  } else {
    lt_error(L, h, "index: cannot be %s", lt_what(L, h, 2, what));
  }
  LT_CHECK(L, h, lt_assign_end(h->ctx, t, lt_test_tensor(L, h, 3)));
  return 0;
}

/* v:assign(x), v:assign_add(x), v:assign_sub(x): in place, not recorded; return v */
static int assign_with(lua_State *L, const char *name, const lt_op *op) {
  lt_host *h = lt_host_of(L);
  lt_tensor *t = lt_check_tensor(L, h, 1, name, "x");
  lua_settop(L, 2);
  LT_CHECK(L, h, lt_assign_begin(h->ctx, t, name));
  lt_tensor *x = lt_test_tensor(L, h, 2);
  if (!x) x = lt_push_value(L, h, 2, t->dtype, name);
  lt_tensor *value = x;
  if (op) {
    lt_tensor **slot = lt_new_tensor_slot(L, h), *out[LT_MAX_OUTPUTS];
    int outputs;
    h->ctx->no_grad++;
    lt_status status = lt_run(h->ctx, op, 2, (lt_tensor *[]){t, x}, NULL, &outputs, out);
    h->ctx->no_grad--;
    if (status == LT_ERROR) lt_fail_as(h->ctx, name);
    LT_CHECK(L, h, status);
    value = *slot = out[0];
  }
  LT_CHECK(L, h, lt_tensor_copy(t, value));
  LT_CHECK(L, h, lt_assign_end(h->ctx, t, x));
  lua_settop(L, 1);
  return 1;
}

static int assign(lua_State *L) { return assign_with(L, "assign", NULL); }
static int assign_add(lua_State *L) { return assign_with(L, "assign_add", &lt_op_add); }
static int assign_sub(lua_State *L) { return assign_with(L, "assign_sub", &lt_op_sub); }

void lt_open_index(lua_State *L, int host, int meta) {
  static const luaL_Reg methods[] = {
      {"assign", assign}, {"assign_add", assign_add}, {"assign_sub", assign_sub}, {NULL, NULL}};
  static const luaL_Reg metamethods[] = {
      {"__index", tensor_index}, {"__newindex", tensor_newindex}, {NULL, NULL}};
  lua_getfield(L, meta, "__methods");
  lt_set_functions(L, methods, host, meta);
  lua_pop(L, 1);
  lua_pushvalue(L, meta);
  lt_set_functions(L, metamethods, host, meta);
  lua_pop(L, 1);
}
