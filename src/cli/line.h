/* Lines typed by the user: edited, completed and remembered where libedit is built in
   (LT_WITH_LIBEDIT) and a terminal is there, plain otherwise. */
#ifndef LT_CLI_LINE_H
#define LT_CLI_LINE_H

#include <lua.h>

typedef enum {
  LT_CLI_LINE,      /* a line was read; it is on top of the stack, without its newline */
  LT_CLI_CANCELLED, /* Ctrl-C: the user gave up what was typed so far */
  LT_CLI_END        /* end of input */
} lt_cli_line;

/* Gets ready to read: loads the history, binds Tab to lt_cli_complete over the names of `L`. */
void lt_cli_line_open(lua_State *L);

lt_cli_line lt_cli_line_read(lua_State *L, const char *prompt);

/* Adds a chunk (it may have several lines) to the history and to its file. */
void lt_cli_line_remember(const char *chunk);

#endif
