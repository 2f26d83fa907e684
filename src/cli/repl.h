/* The read-eval-print loop. */
#ifndef LT_CLI_REPL_H
#define LT_CLI_REPL_H

#include <lua.h>

/* Reads chunks from stdin, runs them and prints their results, until end of input. Errors of the
   chunks are reported and do not end it. Clears the stack. */
void lt_cli_repl(lua_State *L);

#endif
