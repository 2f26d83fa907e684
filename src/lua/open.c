/* luaopen_luatape: wires the parts together and starts the Lua half. */
#include "lua/half.h"
#include "lua/host.h"
#include "luatape.h"

#include <string.h>

/* What the Lua half uses of the standard library: kept as it is when luatape is opened, so that
 * no script can break it by changing globals. Those after the gap may be missing. */
static const char *const needed[] = {"assert", "error",    "getmetatable", "ipairs",       "math",
                                     "next",   "pairs",    "pcall",        "rawequal",     "rawget",
                                     "rawlen", "rawset",   "select",       "setmetatable", "string",
                                     "table",  "tonumber", "tostring",     "type",         NULL};
static const char *const useful[] = {"io", "os", "warn", "require", "coroutine", "load", NULL};

static void push_environment(lua_State *L) {
  lua_newtable(L);
  for (int i = 0; needed[i]; i++) {
    if (lua_getglobal(L, needed[i]) == LUA_TNIL) {
      luaL_error(L, "luatape needs Lua's base, string, table and math libraries ('%s' is missing)",
                 needed[i]);
    }
    lua_setfield(L, -2, needed[i]);
  }
  for (int i = 0; useful[i]; i++) {
    lua_getglobal(L, useful[i]);
    lua_setfield(L, -2, useful[i]);
  }
}

/* Runs the Lua file of that name once with (module, core) and returns what it returned. */
static int import(lua_State *L) {
  const char *name = luaL_checkstring(L, 1);
  lua_settop(L, 1);
  if (lua_getfield(L, lua_upvalueindex(3), name) != LUA_TNIL) return 1;
  const lt_lua_text *text = lt_lua_half;
  while (text->name && strcmp(text->name, name) != 0) text++;
  if (!text->name) return luaL_error(L, "luatape has no part named '%s'", name);
  lua_pushfstring(L, "=[%s]", name);
  if (luaL_loadbufferx(L, text->text, text->length, lua_tostring(L, -1), "t") != LUA_OK) {
    return lua_error(L);
  }
  lua_pushvalue(L, lua_upvalueindex(4));
  lua_setupvalue(L, -2, 1); /* its _ENV */
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_call(L, 2, 1);
  lua_pushvalue(L, -1);
  lua_setfield(L, lua_upvalueindex(3), name);
  return 1;
}

/* core.sources() -> the texts by name: lt.help reads their comments. */
static int sources(lua_State *L) {
  lua_newtable(L);
  for (const lt_lua_text *t = lt_lua_half; t->name; t++) {
    lua_pushlstring(L, t->text, t->length);
    lua_setfield(L, -2, t->name);
  }
  return 1;
}

/* A loader for package.preload: require hands the name over. */
static void add_preloads(lua_State *L, int import_at) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  for (const lt_lua_text *t = lt_lua_half; t->name; t++) {
    if (strcmp(t->name, "luatape") == 0) continue;
    lua_pushvalue(L, import_at);
    lua_setfield(L, -2, t->name);
  }
  lua_pop(L, 1);
}

static void push_tensor_meta(lua_State *L) {
  lua_newtable(L);
  lua_newtable(L);
  lua_setfield(L, -2, "__methods");
  lua_pushliteral(L, "luatape.tensor");
  lua_setfield(L, -2, "__name");
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
}

int luaopen_luatape(lua_State *L) {
  static const char module_key = 0;
  luaL_checkversion(L);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &module_key) == LUA_TTABLE) return 1;
  lua_settop(L, 0);
  lt_host *h = lt_host_push(L); /* 1 */
  push_tensor_meta(L);          /* 2 */
  h->tensor_mt = lua_topointer(L, 2);
  lua_newtable(L); /* 3: the module */
  lt_open_tensor(L, 1, 2);
  lt_open_index(L, 1, 2);
  lt_open_ops(L, 1, 2);
  lt_open_engine(L, 1, 2);
  lua_newtable(L); /* 4: what only the Lua half sees */
  lt_open_tape(L, 1, 2);
  lt_open_custom(L, 1, 2);
  lt_open_nodes(L, 1, 2);
  lt_open_transform(L, 1, 2);
  lt_open_sparse(L, 1, 2);
  lt_open_optim(L, 1, 2);
  lt_open_data(L, 1, 2);
  lua_pushvalue(L, 2);
  lua_setfield(L, 4, "tensor_meta");
  lua_pushcfunction(L, sources);
  lua_setfield(L, 4, "sources");
  lua_pushvalue(L, 3);
  lua_pushvalue(L, 4);
  lua_newtable(L);
  push_environment(L);
  lua_pushcclosure(L, import, 4); /* 5 */
  lua_pushvalue(L, 5);
  lua_setfield(L, 4, "import");
  add_preloads(L, 5);
  lua_pushvalue(L, 5);
  lua_pushliteral(L, "luatape");
  lua_call(L, 1, 0); /* init.lua */
  lua_pushvalue(L, 3);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &module_key);
  lua_settop(L, 3);
  return 1;
}
