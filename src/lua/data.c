/* What lua/luatape/data.lua builds on: the CSV reader, seeded orders, and the terminal and clock of
 * a progress line. */
#define _POSIX_C_SOURCE 200809L
#include "io/csv.h"
#include "lua/binding.h"
#include "ops/ops.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Runs protected, as tables may run out of memory: a list of the names. */
static int push_names(lua_State *L) {
  const lt_csv *csv = lua_touserdata(L, 1);
  const char *name = csv->names;
  lua_settop(L, 0);
  lua_newtable(L);
  for (int64_t i = 1; i <= csv->columns; i++, name += strlen(name) + 1) {
    lua_pushstring(L, name);
    lua_rawseti(L, 1, i);
  }
  return 1;
}

static lt_csv_header check_header(lua_State *L, lt_host *h, int index) {
  if (lua_type(L, index) == LUA_TBOOLEAN) {
    return lua_toboolean(L, index) ? LT_CSV_HEADER_YES : LT_CSV_HEADER_NO;
  }
  bool is_auto = lua_type(L, index) == LUA_TSTRING && strcmp(lua_tostring(L, index), "auto") == 0;
  if (!is_auto) lt_error(L, h, "csv: header must be \"auto\", true or false");
  return LT_CSV_HEADER_AUTO;
}

static lt_status read_csv(lt_host *h, bool is_text, const char *source, size_t length,
                          const lt_csv_options *options, lt_csv *csv) {
  if (is_text) return lt_csv_text(h->ctx, "text", source, (int64_t)length, options, csv);
  return lt_csv_file(h->ctx, source, options, csv);
}

/* core.csv(source, is_text, header, separator, dtype, skip) -> tensor, names or nil */
static int csv(lua_State *L) {
  lt_host *h = lt_host_of(L);
  char what[LT_SHAPE_TEXT + 32];
  size_t length, separator_length = 0;
  bool is_text = lua_toboolean(L, 2);
  if (lua_type(L, 1) != LUA_TSTRING) {
    lt_error(L, h, "csv: %s must be a string, got %s", is_text ? "the text" : "the path",
             lt_what(L, h, 1, what));
  }
  const char *source = lua_tolstring(L, 1, &length);
  if (!is_text && strlen(source) != length) lt_error(L, h, "csv: a zero byte in the path");
  const char *separator =
      lua_type(L, 4) == LUA_TSTRING ? lua_tolstring(L, 4, &separator_length) : NULL;
  if (separator_length != 1) lt_error(L, h, "csv: separator must be a string of one character");
  int is_int;
  lua_Integer skip = lua_tointegerx(L, 6, &is_int);
  if (!is_int || lua_type(L, 6) != LUA_TNUMBER) lt_error(L, h, "csv: skip must be an integer");
  lt_csv_options options = {.header = check_header(L, h, 3),
                            .separator = separator[0],
                            .dtype = lt_check_dtype(L, h, 5, "csv"),
                            .skip = skip};
  lt_tensor **slot = lt_new_tensor_slot(L, h);
  luaL_checkstack(L, LUA_MINSTACK, "csv");
  lt_csv result;
  lt_status status = read_csv(h, is_text, source, length, &options, &result);
  if (status == LT_NO_MEMORY) { /* dead tensors may hold what is missing */
    lua_gc(L, LUA_GCCOLLECT);
    status = read_csv(h, is_text, source, length, &options, &result);
  }
  LT_CHECK(L, h, status);
  *slot = result.table;
  if (result.names) {
    lua_pushcfunction(L, push_names);
    lua_pushlightuserdata(L, &result);
    int failed = lua_pcall(L, 1, 1, 0);
    lt_csv_free_names(&result);
    if (failed) return lua_error(L);
  } else {
    lua_pushnil(L);
  }
  lt_collect_if_due(L, h);
  return 2;
}

/* core.randperm(n, seed): the order that lt.randperm(n) gives after lt.manual_seed(seed), drawn
 * beside the context's stream. */
static int randperm(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_randperm);
  lt_attrs_set_int(&attrs, &lt_op_randperm, 0, luaL_checkinteger(L, 1));
  uint64_t seed = (uint64_t)luaL_checkinteger(L, 2);
  lt_tensor **slot = lt_new_tensor_slot(L, h), *out[LT_MAX_OUTPUTS];
  lt_random stream = h->ctx->random;
  int outputs;
  h->ctx->random = (lt_random){.seed = seed};
  lt_status status = lt_run(h->ctx, &lt_op_randperm, 0, NULL, &attrs, &outputs, out);
  h->ctx->random = stream;
  LT_CHECK(L, h, status);
  *slot = out[0];
  return 1;
}

/* core.is_terminal(): does standard output go to a terminal? */
static int is_terminal(lua_State *L) {
  lua_pushboolean(L, isatty(fileno(stdout)));
  return 1;
}

/* core.clock(): seconds on a clock that is never set */
static int seconds(lua_State *L) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  lua_pushnumber(L, (double)now.tv_sec + 1e-9 * (double)now.tv_nsec);
  return 1;
}

void lt_open_data(lua_State *L, int host, int meta) {
  static const luaL_Reg functions[] = {{"csv", csv},
                                       {"randperm", randperm},
                                       {"is_terminal", is_terminal},
                                       {"clock", seconds},
                                       {NULL, NULL}};
  lt_set_functions(L, functions, host, meta);
}
