/* Settings and figures of the engine: memory, threads, seeds, default dtype, version. */
#include "kernels/gemm.h"
#include "lua/host.h"
#include "luatape.h"

/* lt.memory() -> {live =, peak =, pooled =} in bytes */
static int memory(lua_State *L) {
  const lt_pool *pool = &lt_host_of(L)->ctx->pool;
  lua_createtable(L, 0, 3);
  lua_pushinteger(L, pool->live);
  lua_setfield(L, -2, "live");
  lua_pushinteger(L, pool->peak);
  lua_setfield(L, -2, "peak");
  lua_pushinteger(L, pool->pooled);
  lua_setfield(L, -2, "pooled");
  return 1;
}

static int64_t check_integer(lua_State *L, lt_host *h, const char *op, int64_t least) {
  int is_int = 0;
  lua_Integer i = lua_type(L, 1) == LUA_TNUMBER ? lua_tointegerx(L, 1, &is_int) : 0;
  char what[LT_SHAPE_TEXT + 32];
  if (!is_int) lt_error(L, h, "%s: takes an integer, got %s", op, lt_what(L, h, 1, what));
  if (i < least) lt_error(L, h, "%s: takes %lld or more", op, (long long)least);
  return i;
}

static int set_num_threads(lua_State *L) {
  lt_host *h = lt_host_of(L);
  int64_t n = check_integer(L, h, "set_num_threads", 1);
  h->ctx->threads = n > 1024 ? 1024 : (int)n;
  return 0;
}

static int num_threads(lua_State *L) {
  lua_pushinteger(L, lt_host_of(L)->ctx->threads);
  return 1;
}

/* lt.manual_seed(n): restarts the stream of random numbers */
static int manual_seed(lua_State *L) {
  lt_host *h = lt_host_of(L);
  h->ctx->random.seed = (uint64_t)check_integer(L, h, "manual_seed", INT64_MIN);
  h->ctx->random.offset = 0;
  return 0;
}

/* lt.set_history(n): how many of the last operations explain can look back on */
static int set_history(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_history_limit(h->ctx, check_integer(L, h, "set_history", 0));
  return 0;
}

/* lt.set_default_dtype("float32" | "float64") */
static int set_default_dtype(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_dtype dtype = lt_check_dtype(L, h, 1, "set_default_dtype");
  if (!lt_dtype_is_float(dtype)) {
    lt_error(L, h, "set_default_dtype: dtype must be float32 or float64, got %s",
             lt_dtype_name(dtype));
  }
  h->ctx->default_dtype = dtype;
  return 0;
}

static int get_default_dtype(lua_State *L) {
  lua_pushstring(L, lt_dtype_name(lt_host_of(L)->ctx->default_dtype));
  return 1;
}

/* lt.version(): luatape's, Lua's, BLIS's, kernels, SIMD level, threads; one line each */
static int version(lua_State *L) {
  const lt_context *ctx = lt_host_of(L)->ctx;
  lua_pushfstring(L, "luatape %s\n%s\nBLIS %s, kernels %s\nSIMD %s\nthreads %d", LUATAPE_VERSION,
                  LUA_RELEASE, lt_blis_version(), lt_blis_kernels(), lt_simd_name(ctx->simd),
                  ctx->threads);
  return 1;
}

void lt_open_engine(lua_State *L, int host, int meta) {
  static const luaL_Reg functions[] = {{"memory", memory},
                                       {"set_num_threads", set_num_threads},
                                       {"num_threads", num_threads},
                                       {"manual_seed", manual_seed},
                                       {"set_history", set_history},
                                       {"set_default_dtype", set_default_dtype},
                                       {"get_default_dtype", get_default_dtype},
                                       {"version", version},
                                       {NULL, NULL}};
  lt_set_functions(L, functions, host, meta);
  lt_blis_open(); /* now: BLIS aborts the process when its start-up finds no memory */
}
