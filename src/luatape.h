/* luatape.h: luatape for programs that embed Lua.
 *
 * luatape is an autodiff engine for Lua 5.4. A host opens it like any Lua library:
 *
 *     luaL_requiref(L, "luatape", luaopen_luatape, 0);
 *     lua_pop(L, 1);
 *
 * From then on `require "luatape"` works in that state. It needs Lua's base, string, table and
 * math libraries; what it uses of them is kept as it was when luatape was opened. Each lua_State
 * has an engine of its own: states share nothing, and one state belongs to one thread at a time. No
 * file is read, no thread is started by opening, no signal handler is ever installed, nothing is
 * printed.
 *
 * Functions that take an index take a stack index of L. Those documented to raise do so by
 * lua_error, so call them where Lua errors are caught (inside a C function that Lua calls, or
 * under lua_pcall). Dimensions here count from 0; the values of index tensors (class labels,
 * results of argmax) count from 1, as they do in Lua. */
#ifndef LUATAPE_H
#define LUATAPE_H

#include <lua.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#  define LUATAPE_API __declspec(dllexport)
#elif defined(__GNUC__)
#  define LUATAPE_API __attribute__((visibility("default")))
#else
#  define LUATAPE_API
#endif

#define LUATAPE_VERSION "0.1.0"
#define LUATAPE_MAX_RANK 8

/* The opener for luaL_requiref, package.preload and `require`. Pushes the module's table. */
LUATAPE_API int luaopen_luatape(lua_State *L);

typedef enum luatape_dtype {
  LUATAPE_FLOAT32,
  LUATAPE_FLOAT64,
  LUATAPE_INT64,
  LUATAPE_INT32,
  LUATAPE_UINT8,
  LUATAPE_BOOL
} luatape_dtype;

/* What a tensor looks like in memory. Element (i0, i1, ...) lies `strides[0] * i0 + ...`
 * elements behind data. */
typedef struct luatape_view {
  void *data;
  luatape_dtype dtype;
  int ndim;
  int64_t shape[LUATAPE_MAX_RANK];
  int64_t strides[LUATAPE_MAX_RANK];
  int64_t numel;
} luatape_view;

typedef void (*luatape_release)(void *userdata, void *data);

/* Pushes a tensor that lives in the host's memory, row-major, without copying. `release` (or
 * NULL) is called once, when nothing in the state needs the memory any more, at the latest by
 * lua_close. The host may change the contents between calls into Lua; a gradient that needs the
 * old contents would then be wrong, so not while a tape is open on them.
 * Raises for ndim outside 0..8, negative or too large sizes, and when memory is short; `release`
 * has then not been called. */
LUATAPE_API void luatape_push(lua_State *L, void *data, luatape_dtype dtype, int ndim,
                              const int64_t *shape, luatape_release release, void *userdata);

/* Fills *view from the tensor at `index`. Returns 0, and raises nothing, if there is none. The
 * pointers are good while that tensor is on the stack or otherwise alive. A sparse gradient has no
 * elements to point at, and counts as none. */
LUATAPE_API int luatape_test(lua_State *L, int index, luatape_view *view);

/* The same, but raises an argument error naming the type found. */
LUATAPE_API void luatape_check(lua_State *L, int index, luatape_view *view);

/* Copies the tensor at `index`, row by row whatever its strides, converted to `dtype`, into
 * `out`, which has room for `count` elements. Raises if count is not the number of elements. */
LUATAPE_API void luatape_read(lua_State *L, int index, luatape_dtype dtype, void *out,
                              int64_t count);

/* How many threads large operations of this state may use; at least 1. Results do not depend on
 * it. By default as many as the process has cores. */
LUATAPE_API void luatape_set_threads(lua_State *L, int threads);

/* The state's interrupt flag. Setting *flag to 1, from a signal handler or from another thread,
 * makes the running or the next operation raise "interrupted!", also in the middle of a long
 * product; raising clears it. The pointer is good until lua_close. */
LUATAPE_API volatile int *luatape_interrupt_flag(lua_State *L);

#ifdef __cplusplus
}
#endif

#endif
