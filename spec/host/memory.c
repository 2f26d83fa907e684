/* What happens when memory runs out: a small training step runs again and again while allocation
 * number k fails, alone or with all that follow it, in Lua's allocator or in luatape's own calls
 * (which the linker's --wrap leads here). Only the error "not enough memory" may come, nothing may
 * leak, and the state must serve afterwards. */
#define _POSIX_C_SOURCE 200809L
#include <lauxlib.h>
#include <lualib.h>
#include <luatape.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Allocators that fail -------------------------------------------------------------------- */

static int core_fails, sticky;
static long calls, fail_at; /* 0: never */
static long held;           /* luatape's allocations that were not freed */

static int fails(int core) {
  if (core != core_fails) return 0;
  calls++;
  return fail_at > 0 && (calls == fail_at || (sticky && calls > fail_at));
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *p, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
char *__real_strdup(const char *text);
void __real_free(void *p);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *p, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
char *__wrap_strdup(const char *text);
void __wrap_free(void *p);

static void *note(void *p) {
  held += p != NULL;
  return p;
}
void *__wrap_malloc(size_t size) { return fails(1) ? NULL : note(__real_malloc(size)); }
void *__wrap_calloc(size_t n, size_t size) {
  return fails(1) ? NULL : note(__real_calloc(n, size));
}
char *__wrap_strdup(const char *text) { return fails(1) ? NULL : note(__real_strdup(text)); }
void *__wrap_aligned_alloc(size_t alignment, size_t size) {
  return fails(1) ? NULL : note(__real_aligned_alloc(alignment, size));
}
void *__wrap_realloc(void *p, size_t size) {
  if (fails(1)) return NULL;
  void *moved = __real_realloc(p, size);
  held += !p && moved;
  return moved;
}
void __wrap_free(void *p) {
  held -= p != NULL;
  __real_free(p);
}

static void *lua_memory(void *userdata, void *p, size_t old, size_t size) {
  (void)userdata;
  if (size == 0) {
    __real_free(p);
    return NULL;
  }
  if ((!p || size > old) && fails(0)) return NULL; /* making smaller never fails, says the manual */
  return __real_realloc(p, size);
}

/* ---- The step -------------------------------------------------------------------------------- */

static const char *const step =
    "lt.manual_seed(1)\n"
    "local w = lt.variable(lt.randn(8, 8), {name = 'w'})\n"
    "local b = lt.variable({1, 2, 3, 4, 5, 6, 7, 8}, {name = 'b'})\n"
    "local parts = {}\n"
    "for i = 1, 20 do parts[i] = lt.full({1, 8}, i / 20) end\n"
    "local x = lt.cat(parts, 1)\n"
    "local double = lt.custom_gradient(function(a)\n"
    "  return a * 2, function(dy) return dy * 2 end\n"
    "end)\n"
    "local losses = {}\n"
    "for i = 1, 2 do\n"
    "  local tape <close> = lt.tape{persistent = i == 2}\n"
    "  local y = double(x:matmul(w) + b):tanh()\n"
    "  for k = 1, 24 do y = y + y:mean() * 1e-3 end\n"
    "  local top = y:sort(2)\n"
    "  local loss = lt.mse_loss(top, x) + top[{{1, 5}, 2}]:sum() * 0.1\n"
    "  local g = tape:gradient(loss, {w = w, b = b, other = x})\n"
    "  assert(not g.other and g:why(x).code == 'unwatched')\n"
    "  w:assign_sub(g.w * 0.1)\n"
    "  b:assign_sub(g.b * 0.1)\n"
    "  b[3] = 0.5\n"
    "  x[x:gt(0.9)] = 1\n"
    "  losses[i] = loss:item()\n"
    "end\n"
    "local outer = lt.tape()\n"
    "local inner = lt.tape()\n"
    "local g = inner:gradient((w * w * w):sum(), w)\n"
    "local second = outer:gradient(g:sum(), w):sum():item()\n"
    "local opt = lt.optim.Adam{lr = 0.1}\n"
    "local tape <close> = lt.tape()\n"
    "opt:apply_gradients(tape:gradient((w * b):sum(), {w, b}), {w, b})\n"
    "return losses[1] + losses[2] + second + w:sum():item()\n";

static int checks, failures;

static void check(int good, const char *what, long k, const char *message) {
  checks++;
  if (good) return;
  failures++;
  printf("FAIL %s, %s memory, %s, allocation %ld: %s\n", what, core_fails ? "core" : "Lua",
         sticky ? "all from it on" : "alone", k, message ? message : "?");
  fflush(stdout);
}

static int open_parts(lua_State *L) {
  luaL_openlibs(L);
  luaL_requiref(L, "luatape", luaopen_luatape, 0);
  lua_setglobal(L, "lt");
  return 0;
}

/* Fails when memory does, with the message on the stack. */
static int open_in(lua_State *L) {
  lua_pushcfunction(L, open_parts);
  return lua_pcall(L, 0, 0, 0);
}

static lua_State *open_state(void) {
  lua_State *L = lua_newstate(lua_memory, NULL);
  if (open_in(L) || luaL_loadstring(L, step)) printf("%s\n", lua_tostring(L, -1));
  lua_setfield(L, LUA_REGISTRYINDEX, "step");
  return L;
}

/* Runs the step; its result, or the message. */
static const char *run(lua_State *L, double *result) {
  lua_settop(L, 0);
  lua_getfield(L, LUA_REGISTRYINDEX, "step");
  int failed = lua_pcall(L, 0, 1, 0);
  *result = failed ? 0 : lua_tonumber(L, -1);
  return failed ? lua_tostring(L, -1) : NULL;
}

static double live(lua_State *L) {
  lua_gc(L, LUA_GCCOLLECT);
  lua_gc(L, LUA_GCCOLLECT);
  return luaL_dostring(L, "return lt.memory().live") ? -1 : lua_tonumber(L, -1);
}

/* ---- Failing --------------------------------------------------------------------------------- */

static double expected; /* the step's result */

/* The step with allocation k failing; then once more, in peace. Returns whether it was reached. */
static int try_step(lua_State *L, long k) {
  double result, before = live(L);
  char text[256] = "";
  calls = 0;
  fail_at = k;
  const char *message = run(L, &result);
  long reached = calls;
  fail_at = 0;
  if (message) snprintf(text, sizeof text, "%s", message);
  check(message ? strstr(text, "not enough memory") != NULL : result == expected, "the step", k,
        message ? text : "another result");
  lua_settop(L, 0);
  double after = live(L);
  snprintf(text, sizeof text, "%.0f bytes live, then %.0f", before, after);
  check(after == before, "what is left", k, text);
  message = run(L, &result);
  check(!message && result == expected, "the step after it", k, message);
  return reached >= k;
}

/* Each k in one state, or in a new one whose free lists are empty. */
static long every_step(int new_states) {
  lua_State *L = open_state();
  double first;
  if (!new_states) run(L, &first);
  long k = 1;
  while (try_step(L, k)) {
    k++;
    if (!new_states) continue;
    lua_close(L);
    check(held == 0, "closing", k, "something was not freed");
    L = open_state();
  }
  lua_close(L);
  check(held == 0, "closing", k, "something was not freed");
  return k - 1;
}

/* Opening libraries, some of the many k. */
static long every_opening(long stride) {
  for (long k = 1, reached = k;; k += stride) {
    lua_State *L = lua_newstate(lua_memory, NULL);
    calls = 0;
    fail_at = k;
    int failed = open_in(L);
    reached = calls;
    fail_at = 0;
    check(!failed || strstr(lua_tostring(L, -1), "not enough memory"), "opening", k,
          failed ? lua_tostring(L, -1) : NULL);
    lua_settop(L, 0);
    if (failed && core_fails == 0) check(!open_in(L), "opening again", k, lua_tostring(L, -1));
    lua_close(L);
    check(held == 0, "closing", k, "something was not freed");
    if (reached < k) return k;
  }
}

int main(void) {
  lua_State *L = open_state();
  const char *message = run(L, &expected);
  if (message) printf("FAIL %s\n", message);
  failures += message != NULL;
  lua_close(L);
  for (core_fails = 0; core_fails <= 1 && failures == 0; core_fails++) {
    for (sticky = 0; sticky <= 1; sticky++) {
      long steps = every_step(core_fails), openings = every_opening(core_fails ? 1 : 211);
      printf("ok   %s memory, %s: %ld allocations of a step, %ld of opening\n",
             core_fails ? "core" : "Lua", sticky ? "all from k on" : "number k alone", steps,
             openings);
      fflush(stdout);
    }
  }
  printf("memory: %d of %d checks passed\n", checks - failures, checks);
  return failures != 0;
}
