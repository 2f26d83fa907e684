/* luatape, the program: options, a script, exit codes, as lua.c 5.4 has them. What it adds: luatape
   is built in, source text only, and `lt` at hand where one types rather than writes. */
#define _POSIX_C_SOURCE 200809L
#include "cli/call.h"
#include "cli/repl.h"
#include "cli/text_only.h"
#include "luatape.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PREFIX "luatape: "
#define INIT_VARIABLE "LUA_INIT"
#define INIT_VARIABLE_VERSIONED INIT_VARIABLE "_" LUA_VERSION_MAJOR "_" LUA_VERSION_MINOR

typedef struct {
  bool bad, interactive, version, help, statement, no_environment;
  int script; /* index of the script in argv, argc if there is none; of the culprit if bad */
} options;

static const char usage[] = "usage: luatape [options] [script [args]]\n"
                            "Available options are:\n"
                            "  -e stat   execute string 'stat'\n"
                            "  -i        enter interactive mode after executing 'script'\n"
                            "  -l mod    require library 'mod' into global 'mod'\n"
                            "  -l g=mod  require library 'mod' into global 'g'\n"
                            "  -v        show version information\n"
                            "  -E        ignore environment variables\n"
                            "  -W        turn warnings on\n"
                            "  --        stop handling options\n"
                            "  -         stop handling options and execute stdin\n"
                            "  --help [name]  show this and all names, or the reference of one\n";

static void print_usage(const char *culprit) {
  if (culprit[1] == 'e' || culprit[1] == 'l')
    fprintf(stderr, PREFIX "'%s' needs argument\n", culprit);
  else
    fprintf(stderr, PREFIX "unrecognized option '%s'\n", culprit);
  fputs(usage, stderr);
}

/* An option that takes an argument has it attached or as the next word. */
static bool takes_next_word(const char *option) {
  return (option[1] == 'e' || option[1] == 'l') && option[2] == '\0';
}

static options read_options(int argc, char **argv) {
  options o = {.script = argc};
  for (int i = 1; i < argc; i++) {
    const char *word = argv[i];
    o.script = i;
    if (word[0] != '-' || word[1] == '\0') return o; /* a script, or "-" for stdin */
    if (strcmp(word, "--help") == 0) {
      o.help = true;
      return o;
    }
    o.bad = word[2] != '\0' && word[1] != 'e' && word[1] != 'l';
    switch (word[1]) {
    case '-': o.script += !o.bad; return o;
    case 'e': o.statement = true; break;
    case 'i': o.interactive = true; break;
    case 'v': o.version = true; break;
    case 'E': o.no_environment = true; break;
    case 'l':
    case 'W': break;
    default: o.bad = true;
    }
    if (takes_next_word(word) && (++i >= argc || argv[i][0] == '-')) o.bad = true;
    if (o.bad) return o;
  }
  o.script = argc;
  return o;
}

/* The global `arg`: the script at 0, its arguments above, the program and its options below. */
static void set_arg(lua_State *L, char **argv, int argc, int script) {
  if (script == argc) script = 0;
  lua_createtable(L, argc - script, script + 1);
  for (int i = 0; i < argc; i++) {
    lua_pushstring(L, argv[i]);
    lua_rawseti(L, -2, i - script);
  }
  lua_setglobal(L, "arg");
}

/* Runs what a loader left: a chunk, or a message. */
static bool run_chunk(lua_State *L, int status, int nargs) {
  if (status == LUA_OK) status = lt_cli_call(L, nargs, 0);
  return lt_cli_report(L, status, PREFIX) == LUA_OK;
}

static bool run_file(lua_State *L, const char *name) {
  return run_chunk(L, luaL_loadfilex(L, name, "t"), 0);
}

static bool run_string(lua_State *L, const char *text, const char *name) {
  return run_chunk(L, luaL_loadbufferx(L, text, strlen(text), name, "t"), 0);
}

static bool run_init_variable(lua_State *L) {
  const char *name = "=" INIT_VARIABLE_VERSIONED, *init = getenv(name + 1);
  if (init == NULL) init = getenv((name = "=" INIT_VARIABLE) + 1);
  if (init == NULL) return true;
  return *init == '@' ? run_file(L, init + 1) : run_string(L, init, name);
}

/* Pushes require(name). */
static bool require(lua_State *L, const char *name) {
  lua_getglobal(L, "require");
  lua_pushstring(L, name);
  return lt_cli_report(L, lt_cli_call(L, 1, 1), PREFIX) == LUA_OK;
}

/* "mod", "g=mod", or "mod-suffix", whose suffix is not part of the global's name. */
static bool require_option(lua_State *L, const char *text) {
  const char *equals = strchr(text, '=');
  const char *end = equals ? equals : strchr(text, '-');
  if (!require(L, equals ? equals + 1 : text)) return false;
  lua_pushglobaltable(L);
  lua_pushlstring(L, text, end ? (size_t)(end - text) : strlen(text));
  lua_rotate(L, -3, -1);
  lua_settable(L, -3);
  lua_pop(L, 1);
  return true;
}

/* Raw access to the global `lt`: a script may have made _G strict. */
static int push_lt(lua_State *L) {
  lua_pushglobaltable(L);
  lua_pushliteral(L, "lt");
  int type = lua_rawget(L, -2);
  lua_remove(L, -2);
  return type;
}

static void pop_lt(lua_State *L) {
  lua_pushglobaltable(L);
  lua_pushliteral(L, "lt");
  lua_rotate(L, -3, -1);
  lua_rawset(L, -3);
  lua_pop(L, 1);
}

/* Opening luatape costs more than starting Lua, and a script says by `require` whether it needs it:
   so `lt` is set when something typed is about to run, unless that name is taken. (A lazy global
   would need a metatable on _G, which belongs to the user.) */
static bool set_lt(lua_State *L) {
  bool taken = push_lt(L) != LUA_TNIL;
  lua_pop(L, 1);
  if (taken) return true;
  if (!require(L, "luatape")) return false;
  pop_lt(L);
  return true;
}

/* The statement borrows `lt`: the modules and the script after it find no global of ours. */
static bool run_statement(lua_State *L, const char *text) {
  push_lt(L);
  if (!set_lt(L)) return false;
  push_lt(L);
  bool ok = run_string(L, text, "=(command line)");
  push_lt(L);
  bool kept = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  if (kept)
    pop_lt(L);
  else
    lua_pop(L, 1);
  return ok;
}

static bool run_options(lua_State *L, char **argv, int end) {
  for (int i = 1; i < end; i++) {
    char kind = argv[i][1];
    const char *argument = argv[i] + 2;
    if (takes_next_word(argv[i])) argument = argv[++i];
    if (kind == 'e' && !run_statement(L, argument)) return false;
    if (kind == 'l' && !require_option(L, argument)) return false;
    if (kind == 'W') lua_warning(L, "@on", 0);
  }
  return true;
}

static bool run_script(lua_State *L, char **argv, int script) {
  const char *name = argv[script];
  if (strcmp(name, "-") == 0 && strcmp(argv[script - 1], "--") != 0) name = NULL; /* stdin */
  int status = luaL_loadfilex(L, name, "t");
  int n = 0;
  if (status == LUA_OK) { /* its arguments, as the options may have left them */
    if (lua_getglobal(L, "arg") != LUA_TTABLE) luaL_error(L, "'arg' is not a table");
    n = (int)luaL_len(L, -1);
    luaL_checkstack(L, n + 3, "too many arguments to script");
    for (int i = 1; i <= n; i++) lua_rawgeti(L, -i, i);
    lua_remove(L, -n - 1);
  }
  return run_chunk(L, status, n);
}

/* luatape.version() says everything about this build and machine. */
static bool print_version(lua_State *L) {
  if (!require(L, "luatape")) return false;
  lua_getfield(L, -1, "version");
  if (lt_cli_report(L, lt_cli_call(L, 0, 1), PREFIX) != LUA_OK) return false;
  puts(lua_tostring(L, -1));
  fflush(stdout);
  lua_pop(L, 2);
  return true;
}

/* lt.help(name), or without a name what the program takes and the names that there are. */
static bool print_help(lua_State *L, const char *name) {
  if (!require(L, "luatape")) return false;
  lua_getfield(L, -1, "help");
  lua_pushstring(L, name); /* nil for NULL */
  if (lt_cli_report(L, lua_pcall(L, 1, 1, 0), PREFIX) != LUA_OK) return false;
  if (!name) puts(usage);
  puts(lua_tostring(L, -1));
  lua_pop(L, 2);
  return true;
}

static bool run_repl(lua_State *L, bool banner) {
  if (banner) puts("luatape " LUATAPE_VERSION "  " LUA_RELEASE);
  if (!set_lt(L)) return false;
  lt_cli_repl(L);
  return true;
}

/* The program under lua_pcall. Arguments: argc, argv. Returns whether all went well. */
static int run(lua_State *L) {
  int argc = (int)lua_tointeger(L, 1);
  char **argv = lua_touserdata(L, 2);
  options o = read_options(argc, argv);
  if (o.bad) return print_usage(argv[o.script]), 0;
  luaL_checkversion(L);
  if (o.no_environment) {
    lua_pushboolean(L, true);
    lua_setfield(L, LUA_REGISTRYINDEX, "LUA_NOENV"); /* openlibs reads it */
  }
  luaL_openlibs(L);
  lt_cli_text_only(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, lt_cli_open_luatape);
  lua_setfield(L, -2, "luatape");
  lua_pop(L, 1);
  set_arg(L, argv, argc, o.script);
  lua_gc(L, LUA_GCGEN, 0, 0);

  bool script = o.script < argc, terminal = isatty(STDIN_FILENO);
  if (o.help) {
    lua_pushboolean(L, print_help(L, argv[o.script + 1]));
    return 1;
  }
  if (o.version && !print_version(L)) return 0;
  if (!o.no_environment && !run_init_variable(L)) return 0;
  if (!run_options(L, argv, o.script)) return 0;
  if (script && !run_script(L, argv, o.script)) return 0;
  bool idle = !script && !o.statement && !o.version;
  if (o.interactive || (idle && terminal)) {
    if (!run_repl(L, !o.version)) return 0;
  } else if (idle && !run_file(L, NULL)) {
    return 0;
  }
  lua_pushboolean(L, true);
  return 1;
}

int main(int argc, char **argv) {
  lua_State *L = luaL_newstate();
  if (L == NULL) {
    fputs(PREFIX "cannot create state: not enough memory\n", stderr);
    return EXIT_FAILURE;
  }
  lua_pushcfunction(L, run);
  lua_pushinteger(L, argc);
  lua_pushlightuserdata(L, argv);
  int status = lt_cli_report(L, lua_pcall(L, 2, 1, 0), PREFIX);
  bool ok = status == LUA_OK && lua_toboolean(L, -1);
  lua_close(L);
  return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
