/* What the files of the binding share among themselves. */
#ifndef LT_LUA_HOST_H
#define LT_LUA_HOST_H

#include "lua/binding.h"

/* Pushes the state's host, with a fresh context, and notes it in the registry. */
lt_host *lt_host_push(lua_State *L);

/* One tensor or tape userdata fewer. */
void lt_host_drop_user(lt_host *h);

/* As lt_new_tensor_slot, for functions of the public header, which are not closures. */
lt_tensor **lt_new_tensor_slot_outside(lua_State *L, lt_host *h);

/* The tape at index 1. */
lt_tape *lt_check_tape(lua_State *L, lt_host *h, const char *op);

/* Raises if the value at index can't be called. */
void lt_check_callable(lua_State *L, lt_host *h, int index, const char *op);

/* Pushes t.shape, t.dtype, ...; false (and nothing pushed) if there is no such field. */
bool lt_push_field(lua_State *L, const lt_tensor *t, const char *key);
/* t.name = value, t.trainable = value */
void lt_set_field(lua_State *L, lt_host *h, lt_tensor *t, const char *key, int value);

#endif
