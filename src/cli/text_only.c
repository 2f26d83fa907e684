/* Source text only. Lua does not verify precompiled chunks: a damaged one corrupts memory. So
   whatever reads a chunk in this program reads it with mode "t"; all else is as in the manual. */
#include "cli/text_only.h"

#include <lauxlib.h>
#include <lualib.h>
#include <string.h>

/* Calls the library's function (upvalue 1) with 'b' taken out of the mode, argument `at`. */
static int with_text_mode(lua_State *L, int at) {
  const char *mode = luaL_optstring(L, at, "t");
  if (lua_gettop(L) < at) lua_settop(L, at);
  lua_pushstring(L, strchr(mode, 't') ? "t" : "");
  lua_replace(L, at);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  return lua_gettop(L);
}

/* The arguments are checked here and not only behind the call, so that an error names this function
   and the user's line. */
static int text_load(lua_State *L) {
  if (!lua_isstring(L, 1)) luaL_checktype(L, 1, LUA_TFUNCTION);
  luaL_optstring(L, 2, NULL);
  return with_text_mode(L, 3);
}

static int text_loadfile(lua_State *L) {
  luaL_optstring(L, 1, NULL);
  return with_text_mode(L, 2);
}

static int dofile_results(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  return lua_gettop(L) - 1;
}

static int text_dofile(lua_State *L) {
  const char *name = luaL_optstring(L, 1, NULL);
  lua_settop(L, 1);
  if (luaL_loadfilex(L, name, "t") != LUA_OK) return lua_error(L);
  lua_callk(L, 0, LUA_MULTRET, 0, dofile_results); /* the file may yield */
  return dofile_results(L, LUA_OK, 0);
}

/* The searcher for Lua files. Upvalues: the package table, package.searchpath. */
static int search_text(lua_State *L) {
  const char *module = luaL_checkstring(L, 1);
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_pushvalue(L, 1);
  if (lua_getfield(L, lua_upvalueindex(1), "path") != LUA_TSTRING)
    return luaL_error(L, "'package.path' must be a string");
  lua_call(L, 2, 2); /* file; or nil and where it was sought */
  const char *file = lua_tostring(L, -2);
  if (file == NULL) return 1;
  lua_settop(L, 2);
  if (luaL_loadfilex(L, file, "t") != LUA_OK)
    return luaL_error(L, "error loading module '%s' from file '%s':\n\t%s", module, file,
                      lua_tostring(L, -1));
  lua_pushvalue(L, 2);
  return 2;
}

static void wrap(lua_State *L, const char *name, lua_CFunction wrapper) {
  lua_getglobal(L, name);
  lua_pushcclosure(L, wrapper, 1);
  lua_setglobal(L, name);
}

void lt_cli_text_only(lua_State *L) {
  wrap(L, "load", text_load);
  wrap(L, "loadfile", text_loadfile);
  wrap(L, "dofile", text_dofile);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_getfield(L, -1, LUA_LOADLIBNAME);
  lua_getfield(L, -1, "searchers");
  lua_pushvalue(L, -2);
  lua_getfield(L, -1, "searchpath");
  lua_pushcclosure(L, search_text, 2);
  lua_rawseti(L, -2, 2); /* behind the searcher of package.preload */
  lua_pop(L, 3);
}
