/* Protected calls of the program: every piece of user code runs through lt_cli_call, which adds a
   traceback to its errors and lets Ctrl-C stop it; lt_cli_report says on stderr what went wrong. */
#ifndef LT_CLI_CALL_H
#define LT_CLI_CALL_H

#include <lua.h>

/* luaopen_luatape for package.preload: it also makes Ctrl-C reach luatape's C work. */
int lt_cli_open_luatape(lua_State *L);

/* Calls the function below its `nargs` arguments, as lua_pcall does. While it runs, SIGINT raises
   "interrupted!" in Lua code and in luatape's C work; a second SIGINT kills the process. */
int lt_cli_call(lua_State *L, int nargs, int nresults);

/* Unless `status` is LUA_OK, writes `prefix` and the message on top of the stack to stderr and pops
   it. Returns `status`. */
int lt_cli_report(lua_State *L, int status, const char *prefix);

#endif
