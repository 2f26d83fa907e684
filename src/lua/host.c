/* The host of a state: finding it, errors at the user's line, call sites, closing. */
#include "lua/binding.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char host_key = 0;

lt_host *lt_host_find(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &host_key);
  lt_host *h = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return h && h->ctx ? h : NULL;
}

lt_host *lt_host_of(lua_State *L) {
  lt_host *h = lua_touserdata(L, lua_upvalueindex(LT_UP_HOST));
  if (!h->ctx) luaL_error(L, "luatape: the Lua state is closing");
  h->L = L;
  return h;
}

/* ---- Call sites ---------------------------------------------------------------------------- */

/* Our own Lua files are compiled under names of this form. */
static bool is_internal(const lua_Debug *ar) { return strncmp(ar->source, "=[luatape", 9) == 0; }

/* The innermost frame of the user's Lua code. A frame that a tail call replaced is not on the
 * stack: then the line of the next frame is given as negative, "called below here". */
static lt_site find_site(void *userdata) {
  lt_host *h = userdata;
  lua_Debug ar;
  bool lost = false;
  /* Level 0 is our C function: a tail call of it leaves its caller in place. */
  for (int level = 1; lua_getstack(h->L, level, &ar); level++) {
    lua_getinfo(h->L, "Slt", &ar);
    if (ar.currentline >= 0 && !is_internal(&ar)) {
      int line = lost ? -ar.currentline : ar.currentline;
      return (lt_site){lt_chunk_number(h->ctx, ar.short_src), line};
    }
    lost = ar.istailcall;
  }
  return (lt_site){0, 0};
}

void lt_set_functions(lua_State *L, const luaL_Reg *functions, int host, int meta) {
  for (; functions->name; functions++) {
    lua_pushvalue(L, host);
    lua_pushvalue(L, meta);
    lua_pushcclosure(L, functions->func, 2);
    lua_setfield(L, -2, functions->name);
  }
}

/* ---- Errors -------------------------------------------------------------------------------- */

static int raise_text(lua_State *L, lt_host *h, const char *text) {
  char at[LT_SITE_TEXT];
  lt_site site = find_site(h);
  if (site.chunk)
    lua_pushfstring(L, "%s: %s", lt_site_text(h->ctx, site, at), text);
  else
    lua_pushstring(L, text);
  return lua_error(L);
}

int lt_raise(lua_State *L, lt_host *h, lt_status status) {
  h->L = L;
  if (status == LT_NO_MEMORY) lua_gc(L, LUA_GCCOLLECT);
  return raise_text(L, h, lt_message(h->ctx));
}

int lt_error(lua_State *L, lt_host *h, const char *format, ...) {
  char text[LT_MESSAGE];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  h->L = L;
  return raise_text(L, h, text);
}

const char *lt_what(lua_State *L, lt_host *h, int index, char text[LT_SHAPE_TEXT + 32]) {
  const lt_tensor *t = lt_test_tensor(L, h, index);
  if (t) {
    char shape[LT_SHAPE_TEXT];
    snprintf(text, LT_SHAPE_TEXT + 32, "a %s %s tensor", lt_dtype_name((lt_dtype)t->dtype),
             lt_shape_text(&t->shape, shape));
    return text;
  }
  if (lua_isnoneornil(L, index)) return "nothing";
  int type = lua_type(L, index);
  snprintf(text, LT_SHAPE_TEXT + 32, "a %s", lua_typename(L, type));
  return text;
}

/* ---- Opening and closing ------------------------------------------------------------------- */

/* The context goes with the last tensor or tape, whatever order the collector takes. */
void lt_host_drop_user(lt_host *h) {
  h->users--;
  if (!h->closing || h->users > 0 || !h->ctx) return;
  lt_context_free(h->ctx);
  h->ctx = NULL;
}

static int host_gc(lua_State *L) {
  lt_host *h = lua_touserdata(L, 1);
  if (h->closing) return 0;
  h->closing = true;
  h->users++;
  lt_host_drop_user(h);
  return 0;
}

lt_host *lt_host_push(lua_State *L) {
  lt_host *h = lua_newuserdatauv(L, sizeof *h, 0);
  memset(h, 0, sizeof *h);
  lua_createtable(L, 0, 2);
  lua_pushcfunction(L, host_gc);
  lua_setfield(L, -2, "__gc");
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  lua_setmetatable(L, -2);
  if (lt_context_new(&h->ctx) != LT_OK) luaL_error(L, "not enough memory");
  h->L = L;
  h->ctx->find_site = find_site;
  h->ctx->host = h;
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &host_key);
  return h;
}
