/* The part of the library that is written in Lua, as text inside the library. */
#ifndef LT_LUA_HALF_H
#define LT_LUA_HALF_H

#include <stddef.h>

typedef struct lt_lua_text {
  const char *name; /* "luatape.nn"; NULL ends the list */
  const char *text;
  size_t length;
} lt_lua_text;

extern const lt_lua_text lt_lua_half[];

#endif
