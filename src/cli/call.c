/* Protected calls with a traceback, and Ctrl-C. A signal handler may not raise a Lua error, so it
   asks twice: by a hook, which stops Lua code at its next instruction, and by luatape's interrupt
   flag, which stops the C work in progress between two tiles. */
#define _POSIX_C_SOURCE 200809L
#include "cli/call.h"

#include "luatape.h"

#include <lauxlib.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

enum { ONE_PRESS_MS = 50 };

/* A handler gets no argument: what it has to reach stands here. */
static lua_State *running;
static volatile int *luatape_flag; /* NULL until something requires luatape */
static volatile sig_atomic_t asked;
static struct timespec asked_at;

/* Stays on, so that a loop around a pcall ends too: the error comes again outside the pcall. */
static void stop(lua_State *L, lua_Debug *ar) {
  (void)ar;
  lua_pushliteral(L, "interrupted!");
  lua_error(L);
}

/* The hook skips calls: else it would fire in add_traceback, before that can drop it. */
static void ask_to_stop(void) {
  if (luatape_flag) *luatape_flag = 1;
  lua_sethook(running, stop, LUA_MASKRET | LUA_MASKCOUNT, 1);
}

/* Whichever of the two stopped the call, the other's request may still be open. */
static void drop_request(lua_State *L) {
  if (luatape_flag) *luatape_flag = 0;
  if (lua_gethook(L) == stop) lua_sethook(L, NULL, 0, 0);
}

/* The first SIGINT asks, the next one kills. `timeout` and terminals may deliver one press twice,
   to the process and to its group: what comes at once counts as the same. */
static void on_interrupt(int signal_number) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  if (!asked) {
    asked = 1;
    asked_at = now;
    ask_to_stop();
  } else if ((now.tv_sec - asked_at.tv_sec) * 1000 + (now.tv_nsec - asked_at.tv_nsec) / 1000000 >
             ONE_PRESS_MS) {
    signal(signal_number, SIG_DFL);
    raise(signal_number);
  }
}

static int add_traceback(lua_State *L) {
  drop_request(L);
  const char *message = lua_tostring(L, 1);
  if (message == NULL) {
    if (luaL_callmeta(L, 1, "__tostring") && lua_type(L, -1) == LUA_TSTRING) return 1;
    message = lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 1));
  }
  luaL_traceback(L, L, message, 1);
  return 1;
}

int lt_cli_open_luatape(lua_State *L) {
  int results = luaopen_luatape(L);
  luatape_flag = luatape_interrupt_flag(L);
  return results;
}

int lt_cli_call(lua_State *L, int nargs, int nresults) {
  int base = lua_gettop(L) - nargs;
  lua_pushcfunction(L, add_traceback);
  lua_insert(L, base);
  /* No SA_RESTART: a blocked io.read has to return, so that the hook gets its turn. */
  struct sigaction action = {.sa_handler = on_interrupt}, before;
  sigemptyset(&action.sa_mask);
  running = L;
  asked = 0;
  sigaction(SIGINT, &action, &before);
  int status = lua_pcall(L, nargs, nresults, base);
  sigaction(SIGINT, &before, NULL);
  drop_request(L);
  lua_remove(L, base);
  return status;
}

int lt_cli_report(lua_State *L, int status, const char *prefix) {
  if (status != LUA_OK) {
    const char *message = lua_tostring(L, -1);
    fprintf(stderr, "%s%s\n", prefix, message ? message : "(error message is not a string)");
    lua_pop(L, 1);
  }
  return status;
}
