/* Source text only: the program refuses precompiled chunks, wherever they come from. */
#ifndef LT_CLI_TEXT_ONLY_H
#define LT_CLI_TEXT_ONLY_H

#include <lua.h>

/* Replaces load, loadfile, dofile and require's search for Lua files by ones that take text only.
   Call it when the standard libraries are open. */
void lt_cli_text_only(lua_State *L);

#endif
