/* What only a host can try: the functions of luatape.h, several states, other threads, fork.
 * Prints one line per check and `host: N checks passed` at the end. */
#define _POSIX_C_SOURCE 200809L
#include <fenv.h>
#include <lauxlib.h>
#include <lualib.h>
#include <luatape.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int checks, failures;

static void check(int good, const char *what) {
  checks++;
  failures += !good;
  printf("%s %s\n", good ? "ok  " : "FAIL", what);
  fflush(stdout);
}

static lua_State *open_state(void) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  luaL_requiref(L, "luatape", luaopen_luatape, 0);
  lua_setglobal(L, "lt");
  return L;
}

/* Runs text; on an error leaves the message on the stack and returns it. */
static const char *run(lua_State *L, const char *text) {
  return luaL_dostring(L, text) ? lua_tostring(L, -1) : NULL;
}

static double number(lua_State *L, const char *expression) {
  lua_pushfstring(L, "return %s", expression);
  const char *error = run(L, lua_tostring(L, -1));
  if (error) fprintf(stderr, "%s\n", error);
  return lua_tonumber(L, -1);
}

/* ---- Pushing and reading ------------------------------------------------------------------ */

static int released;
static void on_release(void *userdata, void *data) {
  (void)data;
  released += *(int *)userdata;
}

static int push_bad_rank(lua_State *L) {
  float data[1] = {0};
  luatape_push(L, data, LUATAPE_FLOAT32, 9, (int64_t[9]){1}, on_release, NULL);
  return 0;
}
static int push_negative(lua_State *L) {
  float data[1] = {0};
  luatape_push(L, data, LUATAPE_FLOAT32, 2, (int64_t[]){2, -1}, on_release, NULL);
  return 0;
}
static int check_number(lua_State *L) {
  luatape_view view;
  lua_pushnumber(L, 1);
  luatape_check(L, -1, &view);
  return 0;
}
static int read_too_little(lua_State *L) {
  float out[1];
  lua_getglobal(L, "x");
  luatape_read(L, -1, LUATAPE_FLOAT32, out, 1);
  return 0;
}

static int raises(lua_State *L, lua_CFunction f, const char *text) {
  lua_pushcfunction(L, f);
  int good = lua_pcall(L, 0, 0, 0) != LUA_OK && strstr(lua_tostring(L, -1), text);
  lua_settop(L, 0);
  return good;
}

static void pushing(void) {
  lua_State *L = open_state();
  float data[6] = {1, 2, 3, 4, 5, 6};
  int one = 1;
  luatape_push(L, data, LUATAPE_FLOAT32, 2, (int64_t[]){2, 3}, on_release, &one);
  lua_setglobal(L, "x");
  check(number(L, "x:sum():item()") == 21, "a pushed tensor is read");
  run(L, "x[1] = 0");
  check(data[0] == 0 && data[2] == 0 && data[3] == 4, "Lua writes into the host's memory");
  data[5] = 60;
  check(number(L, "x:get(2, 3)") == 60, "and sees what the host writes");
  luatape_view view;
  run(L, "y = x:transpose()");
  lua_getglobal(L, "y");
  check(luatape_test(L, -1, &view) && view.ndim == 2 && view.shape[0] == 3 &&
            view.strides[0] == 1 && view.strides[1] == 3 && view.data == data,
        "a view shows its strides");
  double out[6];
  luatape_read(L, -1, LUATAPE_FLOAT64, out, 6);
  check(out[1] == 4 && out[4] == 0 && out[5] == 60, "reading packs and converts");
  lua_settop(L, 0);
  lua_pushliteral(L, "text");
  check(!luatape_test(L, -1, &view), "a string is no tensor");
  check(raises(L, push_bad_rank, "ndim 9"), "nine dimensions are refused");
  check(raises(L, push_negative, "negative"), "a negative size is refused");
  check(raises(L, check_number, "luatape.tensor expected"), "luatape_check names the type");
  check(raises(L, read_too_little, "room for 1 elements"), "luatape_read counts");
  check(released == 0, "nothing was released yet, nor by failed pushes");
  run(L, "x = nil; z = y[1]; y = nil; collectgarbage(); collectgarbage()");
  check(released == 0, "a view keeps the memory");
  run(L, "z = nil; collectgarbage(); collectgarbage()");
  check(released == 1, "with the last view it is released, once");
  luatape_push(L, data, LUATAPE_FLOAT32, 1, (int64_t[]){6}, on_release, &one);
  lua_close(L);
  check(released == 2, "closing the state releases the rest");
}

/* ---- States -------------------------------------------------------------------------------- */

static void states(void) {
  lua_State *a = open_state(), *b = open_state();
  run(a, "lt.manual_seed(1) x = lt.randn(4) tape = lt.tape() w = lt.variable{1, 2}");
  run(b, "lt.manual_seed(1) x = lt.randn(4) w = lt.variable{3, 4} y = (w * w):sum()");
  check(number(a, "x:sum():item()") == number(b, "x:sum():item()"), "states draw the same numbers");
  check(number(a, "tape.count") == 0, "a tape hears its own state only");
  lua_close(a);
  check(number(b, "lt.tape():gradient(w, w):sum():item()") == 2, "one state outlives the other");
  /* What a finalizer finds while its state is closing. */
  run(b,
      "t = setmetatable({}, {__gc = function() pcall(function() return lt.ones(3) + x end) end})");
  lua_close(b);
  check(1, "a finalizer may still call luatape while the state closes");
  lua_State *bare = luaL_newstate();
  check(raises(bare, luaopen_luatape, "needs Lua's base"), "opening without them says so");
  luaL_openlibs(bare);
  luaL_requiref(bare, "luatape", luaopen_luatape, 0);
  lua_setglobal(bare, "lt");
  run(bare, "for name in next, _G do if name ~= 'lt' then _G[name] = nil end end");
  check(!run(bare, "local t = lt.tensor{1, 2} local _ = t + 1 lt.tape():close() lt.help()"),
        "luatape lives without the globals of the standard library");
  lua_close(bare);
}

static void *train(void *result) {
  lua_State *L = open_state();
  const char *error = run(L, "lt.manual_seed(3) lt.set_num_threads(2)\n"
                             "local w = lt.variable(lt.randn(300, 300))\n"
                             "for i = 1, 5 do local t <close> = lt.tape()\n"
                             "w:assign_sub(t:gradient(w:matmul(w):tanh():sum(), w) * 1e-3) end\n"
                             "return w:sum():item()");
  *(double *)result = error ? 0.0 / 0.0 : lua_tonumber(L, -1);
  lua_close(L);
  return NULL;
}

static void threads(void) {
  pthread_t id[4];
  double result[4];
  for (int i = 0; i < 4; i++) pthread_create(&id[i], NULL, train, &result[i]);
  for (int i = 0; i < 4; i++) pthread_join(id[i], NULL);
  check(result[0] == result[1] && result[1] == result[2] && result[2] == result[3],
        "four threads with a state each train to the same bits");
}

/* ---- Interrupting ---------------------------------------------------------------------------- */

static void *interrupt_soon(void *flag) {
  nanosleep(&(struct timespec){0, 200000000}, NULL);
  *(volatile int *)flag = 1;
  return NULL;
}

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void interrupting(void) {
  lua_State *L = open_state();
  luatape_set_threads(L, 1);
  run(L, "big = lt.ones(6000, 6000)");
  pthread_t id;
  pthread_create(&id, NULL, interrupt_soon, (void *)(uintptr_t)luatape_interrupt_flag(L));
  double start = seconds();
  const char *error = run(L, "for i = 1, 100 do local _ = big:matmul(big) end");
  pthread_join(id, NULL);
  check(error && strstr(error, "interrupted!"), "another thread interrupts a long product");
  check(seconds() - start < 20, "within a product, not after all of them");
  check(number(L, "lt.ones(2):sum():item()") == 2, "and the state goes on");
  lua_close(L);
}

/* ---- What belongs to the host ------------------------------------------------------------------
 */

static void forking(void) {
  lua_State *L = open_state();
  run(L, "lt.set_num_threads(2) x = lt.ones(800, 800) y = x:matmul(x)");
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    alarm(60); /* a hang is the failure looked for */
    const char *error = run(L, "assert(x:matmul(x):get(5, 5) == 800 and (x + x):sum():item() > 0)");
    _exit(error ? 1 : 0);
  }
  int status = -1;
  waitpid(child, &status, 0);
  check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a forked child computes after two threads");
  lua_close(L);
}

static void host_untouched(void) {
  struct sigaction before, after;
  fenv_t mode, mode_after;
  sigaction(SIGINT, NULL, &before);
  fegetenv(&mode);
  lua_State *L = open_state();
  run(L, "local w = lt.variable(lt.randn(50, 50)) local t = lt.tape()\n"
         "local _ = t:gradient(w:matmul(w):exp():sum(), w)");
  sigaction(SIGINT, NULL, &after);
  fegetenv(&mode_after);
  check(before.sa_handler == after.sa_handler, "signal handlers stay the host's");
#if defined(__x86_64__)
  check((mode.__mxcsr & ~0x3fu) == (mode_after.__mxcsr & ~0x3fu), "and the floating point mode");
#endif
  check(!getenv("BLIS_ARCH_TYPE"), "and the environment");
  lua_close(L);
}

int main(void) {
  host_untouched();
  pushing();
  states();
  threads();
  interrupting();
  forking();
  printf("host: %d of %d checks passed\n", checks - failures, checks);
  return failures != 0;
}
