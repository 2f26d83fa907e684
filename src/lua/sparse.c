/* Sparse gradients in Lua: looking into them, and making others of them. What reads elements
 * refuses them by itself (lt_check_values, lt_run). */
#include "core/rows.h"
#include "lua/binding.h"

static lt_tensor *check_sparse(lua_State *L, lt_host *h, const char *op) {
  lt_tensor *t = lt_check_tensor(L, h, 1, op, "x");
  char what[LT_SHAPE_TEXT + 32];
  if (!t->rows) {
    lt_error(L, h, "%s: x must be a sparse gradient, got %s", op, lt_what(L, h, 1, what));
  }
  return t;
}

/* g:indices(): a copy, as nobody may change them */
static int indices(lua_State *L) {
  lt_host *h = lt_host_of(L);
  const lt_tensor *from = check_sparse(L, h, "indices")->rows->indices;
  lt_tensor **slot = lt_new_tensor_slot(L, h);
  LT_CHECK(L, h, lt_tensor_new(h->ctx, "indices", LT_INT64, &from->shape, slot));
  LT_CHECK(L, h, lt_tensor_copy(*slot, from));
  return 1;
}

/* g:values(): g's own memory */
static int values(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_push_tensor(L, h, check_sparse(L, h, "values")->rows->values);
  return 1;
}

/* Pushes what `make` makes of the tensor at index 1. */
static int push_made(lua_State *L, lt_host *h, lt_tensor *t,
                     lt_status (*make)(lt_tensor *t, lt_tensor **result)) {
  lt_tensor **slot = lt_new_tensor_slot(L, h), *made;
  LT_CHECK(L, h, make(t, &made));
  *slot = made;
  lt_collect_if_due(L, h);
  return 1;
}

/* g:coalesce() */
static int coalesce(lua_State *L) {
  lt_host *h = lt_host_of(L);
  return push_made(L, h, check_sparse(L, h, "coalesce"), lt_rows_coalesce);
}

static lt_status spread(lt_tensor *t, lt_tensor **result) { return lt_rows_to_dense(t, result); }

/* g:to_dense(): an ordinary tensor; one that is ordinary already is returned itself */
static int to_dense(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_tensor *t = lt_check_tensor(L, h, 1, "to_dense", "x");
  lua_settop(L, 1);
  return t->rows ? push_made(L, h, t, spread) : 1;
}

/* core.with_values(g, values): g's rows with other values */
static int with_values(lua_State *L) {
  lt_host *h = lt_host_of(L);
  const lt_tensor *g = check_sparse(L, h, "with_values");
  lt_tensor *v = lt_check_values(L, h, 2, "with_values", "the values");
  if (!lt_shape_equal(&v->shape, &g->rows->values->shape) || v->dtype != g->dtype) {
    lt_error(L, h, "with_values: the values do not fit");
  }
  lt_tensor **compact = lt_new_tensor_slot(L, h), **slot = lt_new_tensor_slot(L, h), *made;
  LT_CHECK(L, h, lt_tensor_contiguous(v, compact));
  LT_CHECK(L, h, lt_rows_with(g, *compact, &made));
  *slot = made;
  return 1;
}

/* core.sparse_rows(g): how many; nothing for an ordinary tensor */
static int sparse_rows(lua_State *L) {
  const lt_tensor *t = lt_check_tensor(L, lt_host_of(L), 1, "sparse_rows", "x");
  if (!t->rows) return 0;
  lua_pushinteger(L, t->rows->indices->numel);
  return 1;
}

void lt_open_sparse(lua_State *L, int host, int meta) {
  static const luaL_Reg methods[] = {{"indices", indices},
                                     {"values", values},
                                     {"coalesce", coalesce},
                                     {"to_dense", to_dense},
                                     {NULL, NULL}};
  static const luaL_Reg functions[] = {
      {"with_values", with_values}, {"sparse_rows", sparse_rows}, {NULL, NULL}};
  lt_set_functions(L, functions, host, meta);
  lua_getfield(L, meta, "__methods");
  lt_set_functions(L, methods, host, meta);
  lua_pop(L, 1);
}
