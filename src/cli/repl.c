/* The read-eval-print loop. A line is tried as an expression first, then as a statement; a
   statement that the parser found unfinished takes further lines. */
#include "cli/repl.h"

#include "cli/call.h"
#include "cli/line.h"

#include <lauxlib.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define CHUNK_NAME "=stdin"

/* _PROMPT and _PROMPT2 may be any value: a __tostring makes a prompt that changes. */
static int prompt_text(lua_State *L) {
  const char *name = lua_tostring(L, 1);
  lua_pushglobaltable(L);
  if (lua_getfield(L, -1, name) == LUA_TNIL) return 0;
  luaL_tolstring(L, -1, NULL);
  return 1;
}

static lt_cli_line read_line(lua_State *L, const char *name, const char *standard) {
  lua_pushcfunction(L, prompt_text);
  lua_pushstring(L, name);
  bool own = lua_pcall(L, 1, 1, 0) == LUA_OK && lua_isstring(L, -1);
  lt_cli_line got = lt_cli_line_read(L, own ? lua_tostring(L, -1) : standard);
  lua_remove(L, got == LT_CLI_LINE ? -2 : -1); /* the prompt, or what came in its place */
  return got;
}

static bool unfinished(lua_State *L, int status) {
  static const char mark[] = "<eof>";
  size_t length, n = sizeof mark - 1;
  if (status != LUA_ERRSYNTAX) return false;
  const char *message = lua_tolstring(L, -1, &length);
  return length >= n && strcmp(message + length - n, mark) == 0;
}

static int compile(lua_State *L, const char *prefix, int source) {
  size_t length;
  lua_pushfstring(L, "%s%s", prefix, lua_tostring(L, source));
  const char *text = lua_tolstring(L, -1, &length);
  int status = luaL_loadbufferx(L, text, length, CHUNK_NAME, "t");
  lua_remove(L, -2);
  return status;
}

/* Compiles the text at 1 as an expression, else as a statement. True when more lines could help. */
static bool compile_either(lua_State *L, int *status) {
  *status = compile(L, "return ", 1);
  if (*status == LUA_OK) return false;
  bool open = unfinished(L, *status);
  lua_settop(L, 1);
  *status = compile(L, "", 1);
  return *status != LUA_OK && (open || unfinished(L, *status));
}

/* Reads one chunk onto an empty stack: its text, and above it the function or the message. */
static lt_cli_line read_chunk(lua_State *L, int *status) {
  lt_cli_line got = read_line(L, "_PROMPT", "> ");
  if (got != LT_CLI_LINE) return got;
  if (*lua_tostring(L, 1) == '=') { /* "=x", as Lua 5.2 had it */
    lua_pushfstring(L, "return %s", lua_tostring(L, 1) + 1);
    lua_replace(L, 1);
  }
  while (compile_either(L, status)) {
    got = read_line(L, "_PROMPT2", ">> ");
    if (got == LT_CLI_CANCELLED) return got;
    if (got == LT_CLI_END) break;
    lua_remove(L, 2); /* the message */
    lua_pushliteral(L, "\n");
    lua_insert(L, 2);
    lua_concat(L, 3);
  }
  lt_cli_line_remember(lua_tostring(L, 1));
  return LT_CLI_LINE;
}

static int print_values(lua_State *L) {
  lua_getglobal(L, "print");
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, 0);
  return 0;
}

static int run_chunk(lua_State *L) {
  int status = lt_cli_call(L, 0, LUA_MULTRET);
  int n = lua_gettop(L) - 1; /* above the source text */
  if (status != LUA_OK || n == 0) return status;
  if (!lua_checkstack(L, LUA_MINSTACK)) {
    lua_settop(L, 0);
    lua_pushliteral(L, "too many results to print");
    return LUA_ERRRUN;
  }
  lua_pushcfunction(L, print_values);
  lua_insert(L, -n - 1);
  return lt_cli_call(L, n, 0);
}

void lt_cli_repl(lua_State *L) {
  lt_cli_line got;
  int status = LUA_OK;
  lt_cli_line_open(L);
  for (;;) {
    lua_settop(L, 0);
    if ((got = read_chunk(L, &status)) == LT_CLI_END) break;
    if (got == LT_CLI_CANCELLED) continue;
    if (status == LUA_OK) status = run_chunk(L);
    lt_cli_report(L, status, "");
  }
  putchar('\n');
  fflush(stdout);
}
