/* Lines typed by the user. Ctrl-C at the prompt drops the line and keeps the session, which may
   hold hours of work. The history is written after every line: os.exit or a crash loses none. */
#define _POSIX_C_SOURCE 200809L
#include "cli/line.h"

#include "cli/complete.h"

#include <errno.h>
#include <lauxlib.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

#ifdef LT_WITH_LIBEDIT
#  include <editline/readline.h>
#  include <fcntl.h>
#  include <limits.h>
#  include <locale.h>
#  include <setjmp.h>
#  include <stdlib.h>
#  include <string.h>
#  include <sys/stat.h>

enum { HISTORY_ENTRIES = 1000 };

/* libedit hands its callbacks no argument of ours: their state has to stand here. */
static lua_State *names;
static bool editing;
static char history_file[PATH_MAX]; /* "" while there is none */
static sigjmp_buf prompt;
static volatile sig_atomic_t in_readline;

/* readline() retries an interrupted read, so the only way out is the one psql takes with libedit
   and GNU readline alike: a jump. Not out of a completion, which has Lua calls on the stack. */
static void cancel(int signal_number) {
  (void)signal_number;
  if (in_readline) siglongjmp(prompt, 1);
}

/* The generator libedit calls until it gets NULL; the list of words is on top of the stack. */
static char *next_word(const char *text, int state) {
  static lua_Integer last;
  (void)text;
  last = state == 0 ? 1 : last + 1;
  lua_rawgeti(names, -1, last);
  const char *word = lua_tostring(names, -1);
  char *copy = word ? strdup(word) : NULL;
  lua_pop(names, 1);
  return copy;
}

static char **complete(const char *text, int start, int end) {
  (void)start, (void)end;
  char **words = NULL;
  in_readline = 0;
  rl_attempted_completion_over = 1; /* no file names, even when nothing matches */
  if (lua_checkstack(names, LUA_MINSTACK)) {
    lua_pushcfunction(names, lt_cli_complete);
    lua_pushstring(names, text);
    if (lua_pcall(names, 1, 1, 0) == LUA_OK) words = rl_completion_matches(text, next_word);
    lua_pop(names, 1);
  }
  in_readline = 1;
  return words;
}

/* $XDG_STATE_HOME/luatape/history or ~/.luatape_history, for the user's eyes only. Whatever fails
   leaves a session without a history file. */
static void open_history(void) {
  const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
  int length = 0;
  if (state && *state == '/') {
    length = snprintf(history_file, sizeof history_file, "%s/luatape/history", state);
    for (char *p = history_file; length < PATH_MAX && (p = strchr(p + 1, '/')); *p = '/') {
      *p = '\0';
      mkdir(history_file, 0700);
    }
  } else if (home && *home) {
    length = snprintf(history_file, sizeof history_file, "%s/.luatape_history", home);
  }
  int file = length > 0 && length < PATH_MAX ? open(history_file, O_WRONLY | O_CREAT, 0600) : -1;
  if (file < 0) {
    history_file[0] = '\0';
    return;
  }
  close(file);
  read_history(history_file);
}

static void open_editor(lua_State *L) {
  editing = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
  if (!editing) return;
  names = L;
  setlocale(LC_CTYPE, ""); /* which bytes make a character on the screen */
  rl_readline_name = "luatape";
  rl_initialize();
  rl_attempted_completion_function = complete;
  rl_basic_word_break_characters = " \t\n\"'`@$<>=;|&{}()[],+-*/^%#~";
  rl_completion_append_character = '\0';
  using_history();
  open_history();
  stifle_history(HISTORY_ENTRIES);
}

static void remember(const char *chunk) {
  add_history(chunk);
  if (*history_file) write_history(history_file);
}

static lt_cli_line edited_line(lua_State *L, const char *text) {
  struct sigaction action = {.sa_handler = cancel}, before;
  char *volatile line = NULL;
  volatile lt_cli_line result = LT_CLI_CANCELLED;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, &before);
  if (sigsetjmp(prompt, 1) == 0) {
    in_readline = 1;
    line = readline(text);
    result = line ? LT_CLI_LINE : LT_CLI_END;
  }
  in_readline = 0;
  sigaction(SIGINT, &before, NULL);
  if (result == LT_CLI_LINE) lua_pushstring(L, line);
  if (result == LT_CLI_CANCELLED) putchar('\n');
  free(line);
  return result;
}

#else /* no editing: the same names, with nothing behind them */
enum { editing = false };
static void open_editor(lua_State *L) { (void)L; }
static void remember(const char *chunk) { (void)chunk; }
static lt_cli_line edited_line(lua_State *L, const char *text) {
  (void)L, (void)text;
  return LT_CLI_END;
}
#endif

static void wake(int signal_number) { (void)signal_number; }

/* On a terminal Ctrl-C makes getc fail with EINTR; a pipe keeps what SIGINT did before. */
static lt_cli_line plain_line(lua_State *L, const char *text) {
  struct sigaction action = {.sa_handler = wake}, before;
  bool terminal = isatty(STDIN_FILENO);
  luaL_Buffer line;
  int c;
  fputs(text, stdout);
  fflush(stdout);
  luaL_buffinit(L, &line);
  sigemptyset(&action.sa_mask);
  if (terminal) sigaction(SIGINT, &action, &before);
  while ((c = getc(stdin)) != EOF && c != '\n') luaL_addchar(&line, (char)c);
  bool cancelled = c == EOF && ferror(stdin) && errno == EINTR;
  if (terminal) sigaction(SIGINT, &before, NULL);
  luaL_pushresult(&line);
  if (c == '\n' || (!cancelled && lua_rawlen(L, -1) > 0)) return LT_CLI_LINE;
  lua_pop(L, 1);
  if (!cancelled) return LT_CLI_END;
  clearerr(stdin);
  putchar('\n');
  return LT_CLI_CANCELLED;
}

void lt_cli_line_open(lua_State *L) { open_editor(L); }

lt_cli_line lt_cli_line_read(lua_State *L, const char *text) {
  return editing ? edited_line(L, text) : plain_line(L, text);
}

void lt_cli_line_remember(const char *chunk) {
  if (editing && *chunk) remember(chunk);
}
