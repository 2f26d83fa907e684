/* What lua/luatape/transform.lua builds vmap and the transforms with. */
#include "lua/host.h"
#include "ops/ops.h"
#include "tape/vmap.h"

/* core.vmap_run(size, fallback, f, ...): calls f inside a vmap call over `size` samples; returns
 * its results. No coroutine may yield out of it. */
static int vmap_run(lua_State *L) {
  lt_host *h = lt_host_of(L);
  uint64_t number;
  int64_t size = luaL_checkinteger(L, 1);
  luaL_checktype(L, 3, LUA_TFUNCTION);
  LT_CHECK(L, h, lt_vmap_open(h->ctx, size, lua_toboolean(L, 2), &number));
  int failed = lua_pcall(L, lua_gettop(L) - 3, LUA_MULTRET, 0);
  lt_vmap_close(h->ctx, number);
  return failed ? lua_error(L) : lua_gettop(L) - 2;
}

static int check_dim(lua_State *L, lt_host *h, const char *name, int ndim) {
  int dim;
  int64_t given = luaL_checkinteger(L, 2);
  if (given == 0) lt_error(L, h, "vmap: %s is 0; they count from 1", name);
  LT_CHECK(L, h, lt_dim_normalise(h->ctx, "vmap", given > 0 ? given - 1 : given, ndim, &dim));
  return dim;
}

/* core.split(t, dim) -> its samples along dim, as one tensor inside vmap */
static int split(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_tensor *t = lt_check_tensor(L, h, 1, "vmap", "an argument");
  int dim = check_dim(L, h, "in_dims", t->shape.ndim);
  lt_tensor **slot = lt_new_tensor_slot(L, h);
  LT_CHECK(L, h, lt_vmap_split(t, dim, slot));
  return 1;
}

/* core.join(t, dim) -> all samples of t, the batch at dim */
static int join(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_tensor *t = lt_check_tensor(L, h, 1, "vmap", "a result");
  int dim = check_dim(L, h, "out_dims", t->shape.ndim + 1);
  lt_tensor **slot = lt_new_tensor_slot(L, h);
  LT_CHECK(L, h, lt_vmap_join(t, dim, slot));
  lt_collect_if_due(L, h);
  return 1;
}

/* core.alias(t) -> the same value under another identity */
static int alias(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_tensor *t = lt_check_tensor(L, h, 1, "alias", "x"), *out[LT_MAX_OUTPUTS];
  lt_tensor **slot = lt_new_tensor_slot(L, h);
  int outputs;
  LT_CHECK(L, h, lt_run(h->ctx, &lt_op_alias, 1, &t, NULL, &outputs, out));
  *slot = out[0];
  return 1;
}

void lt_open_transform(lua_State *L, int host, int meta) {
  static const luaL_Reg functions[] = {
      {"vmap_run", vmap_run}, {"split", split}, {"join", join}, {"alias", alias}, {NULL, NULL}};
  lt_set_functions(L, functions, host, meta);
}
