/* Between Lua's stack and the core. Every C function of the binding is a closure whose first
 * upvalue is the host (the state's engine) and whose second is the tensors' metatable, so type
 * checks compare two pointers. Core failures are statuses; lt_raise turns them into Lua errors
 * at the user's line, after all frames of the core are gone. */
#ifndef LT_LUA_BINDING_H
#define LT_LUA_BINDING_H

#include "core/context.h"
#include "core/tensor.h"
#include "ops/op.h"
#include "tape/tape.h"

#include <lauxlib.h>
#include <lua.h>

/* One per lua_State, a userdata that lives as long as the state. */
typedef struct lt_host {
  lt_context *ctx;       /* NULL once the state is closing and the last tensor is gone */
  lua_State *L;          /* the coroutine that called last */
  const void *tensor_mt; /* identity of the metatables */
  const void *tape_mt;
  int64_t users;    /* tensors, tapes and optimizers in userdata */
  int64_t baseline; /* live bytes after the last collection */
  bool closing;
} lt_host;

enum { LT_UP_HOST = 1, LT_UP_META = 2, LT_UP_OWN = 3 };

/* The host of the running C function; raises when the state is closing. Also notes L, for call
 * sites. */
lt_host *lt_host_of(lua_State *L);
/* From anywhere: NULL if luatape was not opened in this state. */
lt_host *lt_host_find(lua_State *L);

/* Registers functions as closures over (host, tensor metatable) into the table on the top. */
void lt_set_functions(lua_State *L, const luaL_Reg *functions, int host, int meta);

/* ---- Errors ----------------------------------------------------------------------------- */

/* Raises the context's message, or any, with the user's position in front. */
int lt_raise(lua_State *L, lt_host *h, lt_status status);
int lt_error(lua_State *L, lt_host *h, const char *format, ...) LT_PRINTF(3, 4);
#define LT_CHECK(L, h, expression)                                                                 \
  do {                                                                                             \
    lt_status lt_check_status = (expression);                                                      \
    if (lt_check_status != LT_OK) lt_raise(L, h, lt_check_status);                                 \
  } while (0)
/* "a number", "a float64 2x3 tensor", "a table", for messages. Pushes nothing; uses `text`. */
const char *lt_what(lua_State *L, lt_host *h, int index, char text[LT_SHAPE_TEXT + 32]);

/* ---- Tensors ----------------------------------------------------------------------------- */

/* The tensor at index, or NULL. */
lt_tensor *lt_test_tensor(lua_State *L, lt_host *h, int index);
/* Raises "op: name must be a tensor, got ...". */
lt_tensor *lt_check_tensor(lua_State *L, lt_host *h, int index, const char *op, const char *name);
/* The same, and raises where t has no elements to read (lt_is_plain). Every function that looks at
 * memory takes its tensors from here. */
lt_tensor *lt_check_values(lua_State *L, lt_host *h, int index, const char *op, const char *name);
/* Pushes t with a reference of its own. A variable always comes back as the same userdata. Lets
 * the collector run if C memory has grown. */
void lt_push_tensor(lua_State *L, lt_host *h, lt_tensor *t);
/* Pushes an empty tensor userdata; its slot is filled by the caller (NULL until then). Slots come
 * before what fills them: pushing may raise, or run finalizers that call anything. */
lt_tensor **lt_new_tensor_slot(lua_State *L, lt_host *h);
/* Tells the collector about C memory; after this a tensor on no stack may be gone. */
void lt_collect_if_due(lua_State *L, lt_host *h);

/* Pushes a contiguous tensor made of the value at index: number, boolean, nested table or tensor
 * (copied). dtype -1: the default one for numbers, bool for booleans, its own for a tensor. */
lt_tensor *lt_push_value(lua_State *L, lt_host *h, int index, int dtype, const char *op);
/* Reads options {dtype = ...}-like strings; raises listing the known names. */
lt_dtype lt_check_dtype(lua_State *L, lt_host *h, int index, const char *op);
/* One element as number, integer or boolean. */
void lt_push_element(lua_State *L, const lt_tensor *t, int64_t offset);

/* ---- Parts that register themselves; the module table is on the top of the stack ----------- */

void lt_open_tensor(lua_State *L, int host, int meta); /* fields, get and set, constructors */
void lt_open_index(lua_State *L, int host, int meta);  /* t[...] and assignment */
void lt_open_ops(lua_State *L, int host, int meta);    /* every op of the registry */
void lt_open_tape(lua_State *L, int host, int meta);
void lt_open_custom(lua_State *L, int host, int meta); /* custom_gradient, checkpoint */
void lt_open_nodes(lua_State *L, int host, int meta);
void lt_open_transform(lua_State *L, int host, int meta); /* vmap */
void lt_open_sparse(lua_State *L, int host, int meta);    /* sparse gradients */
void lt_open_optim(lua_State *L, int host, int meta);
void lt_open_data(lua_State *L, int host, int meta);
void lt_open_engine(lua_State *L, int host, int meta); /* memory, threads, seeds, version */

#endif
