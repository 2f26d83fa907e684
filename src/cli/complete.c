/* Completion of names. Pressing Tab must not change the program: values are reached by raw access
   alone, and a metatable is followed only to tables (__methods, else __index), never called. */
#include "cli/complete.h"

#include <ctype.h>
#include <lauxlib.h>
#include <stdbool.h>
#include <string.h>

enum { WORD = 1, LIST = 2, LONGEST_CHAIN = 32 };

static const char *const keywords[] = {"and",   "break", "do",       "else", "elseif", "end",
                                       "false", "for",   "function", "goto", "if",     "in",
                                       "local", "nil",   "not",      "or",   "repeat", "return",
                                       "then",  "true",  "until",    "while"};

static size_t name_length(const char *s) {
  size_t n = 0;
  if (isdigit((unsigned char)*s)) return 0;
  while (isalnum((unsigned char)s[n]) || s[n] == '_') n++;
  return n;
}

/* Where the name that ends at `end` begins. */
static const char *name_start(const char *first, const char *end) {
  while (end > first && (isalnum((unsigned char)end[-1]) || end[-1] == '_')) end--;
  return end;
}

/* Replaces the value on top by the table its missing fields are looked up in. */
static bool parent(lua_State *L) {
  static const char *const links[] = {"__methods", "__index"};
  for (int i = 0; i < 2; i++) {
    int type = luaL_getmetafield(L, -1, links[i]);
    if (type == LUA_TTABLE) return lua_remove(L, -2), true;
    if (type != LUA_TNIL) lua_pop(L, 1);
  }
  return false;
}

/* Replaces the value on top by its field. */
static bool field(lua_State *L, const char *name, size_t length) {
  for (int i = 0; i < LONGEST_CHAIN; i++) {
    if (lua_istable(L, -1)) {
      lua_pushlstring(L, name, length);
      if (lua_rawget(L, -2) != LUA_TNIL) return lua_remove(L, -2), true;
      lua_pop(L, 1);
    }
    if (!parent(L)) return false;
  }
  return false;
}

/* Adds `name` to the list, after the part of the word that stands before `prefix`. The list also
   holds its names as keys, so that each comes once. */
static void offer(lua_State *L, const char *prefix, const char *name) {
  if (strncmp(name, prefix, strlen(prefix)) != 0) return;
  if (*name == '_' && *prefix != '_') return; /* private by custom: only when asked for */
  if (*name == '\0' || name[name_length(name)] != '\0') return;
  const char *word = lua_tostring(L, WORD);
  lua_pushlstring(L, word, (size_t)(prefix - word));
  lua_pushstring(L, name);
  lua_concat(L, 2);
  lua_pushvalue(L, -1);
  if (lua_rawget(L, LIST) == LUA_TNIL) {
    lua_pushvalue(L, -2);
    lua_pushboolean(L, true);
    lua_rawset(L, LIST);
    lua_pushvalue(L, -2);
    lua_rawseti(L, LIST, (lua_Integer)lua_rawlen(L, LIST) + 1);
  }
  lua_pop(L, 2);
}

/* Offers the fields of the value on top, its own and the inherited ones. */
static void offer_fields(lua_State *L, const char *prefix, bool methods_only) {
  for (int i = 0; i < LONGEST_CHAIN; i++) {
    if (lua_istable(L, -1)) {
      for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1))
        if (lua_type(L, -2) == LUA_TSTRING && (!methods_only || lua_isfunction(L, -1)))
          offer(L, prefix, lua_tostring(L, -2));
    }
    if (!parent(L)) return;
  }
}

/* Whether a dot ends at `end`, one that is not half of a concatenation. */
static bool after_dot(const char *first, const char *end) {
  return end > first && end[-1] == '.' && !(end - 1 > first && end[-2] == '.');
}

int lt_cli_complete(lua_State *L) {
  size_t length;
  const char *word = luaL_checklstring(L, WORD, &length);
  lua_settop(L, WORD);
  lua_newtable(L);
  const char *prefix = name_start(word, word + length);
  bool method = prefix > word && prefix[-1] == ':';
  bool holder = method || after_dot(word, prefix);
  lua_pushglobaltable(L);
  if (holder) {
    const char *end = prefix - 1, *name = name_start(word, end);
    while (after_dot(word, name)) name = name_start(word, name - 1);
    for (;; name++) {
      size_t n = name_length(name);
      if (n == 0 || !field(L, name, n)) return lua_settop(L, LIST), 1;
      if ((name += n) == end) break;
    }
  } else {
    for (size_t i = 0; i < sizeof keywords / sizeof *keywords; i++) offer(L, prefix, keywords[i]);
  }
  offer_fields(L, prefix, method);
  lua_settop(L, LIST);
  return 1;
}
