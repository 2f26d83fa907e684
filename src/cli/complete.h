/* Completion of names: what could stand where the cursor stands. */
#ifndef LT_CLI_COMPLETE_H
#define LT_CLI_COMPLETE_H

#include <lua.h>

/* A Lua function: takes the word before the cursor ("pri", "a.b.c", "a:me") and returns the list of
   words it may become: globals and keywords, fields, methods. It runs no code of the user's. */
int lt_cli_complete(lua_State *L);

#endif
