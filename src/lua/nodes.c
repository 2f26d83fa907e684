/* Nodes of a tape for the Lua half: what ran where on which values, and running it again. */
#include "lua/host.h"
#include "tape/vmap.h"

static lt_node *check_node(lua_State *L, lt_host *h) {
  lt_tape *tape = lt_check_tape(L, h, "node");
  lua_Integer k = luaL_checkinteger(L, 2);
  luaL_argcheck(L, k >= 1 && k <= tape->count, 2, "no such node");
  return tape->nodes[k - 1];
}

/* core.node(tape, k) -> op, where, list of the inputs that are kept (false for others), whether a
 * function was given as its gradient */
static int node(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_node *n = check_node(L, h);
  char at[LT_SITE_TEXT];
  lua_pushstring(L, n->op->name);
  lua_pushstring(L, lt_site_text(h->ctx, n->site, at));
  lua_createtable(L, n->inputs, 0);
  for (int i = 0; i < n->inputs; i++) {
    lt_tensor *t = lt_node_in(n, i)->saved;
    if (t)
      lt_push_tensor(L, h, t);
    else
      lua_pushboolean(L, 0);
    lua_rawseti(L, -2, i + 1);
  }
  lua_pushboolean(L, n->closure.vjp != NULL);
  return 4;
}

/* core.rerun(tape, k, inputs) -> results of the node's op, with its options, on other inputs (false
 * for those that were absent) */
static int rerun(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_node *n = check_node(L, h);
  lt_attrs attrs;
  lt_node_attrs(n, &attrs);
  lt_tensor *out[LT_MAX_OUTPUTS], **slot[LT_MAX_OUTPUTS];
  lt_tensor **in = lua_newuserdatauv(L, (size_t)(n->inputs + 1) * sizeof *in, 0);
  for (int i = 0; i < n->inputs; i++) {
    lua_rawgeti(L, 3, i + 1);
    in[i] = lua_toboolean(L, -1) ? lt_check_tensor(L, h, -1, n->op->name, "an input") : NULL;
    lua_pop(L, 1);
  }
  for (int k = 0; k < n->outputs; k++) slot[k] = lt_new_tensor_slot(L, h);
  int outputs;
  LT_CHECK(L, h, lt_run(h->ctx, n->op, n->inputs, in, &attrs, &outputs, out));
  for (int k = n->outputs; k < outputs; k++) lt_tensor_release(out[k]);
  for (int k = 0; k < n->outputs && k < outputs; k++) *slot[k] = out[k];
  return n->outputs - n->op->hidden;
}

void lt_open_nodes(lua_State *L, int host, int meta) {
  static const luaL_Reg functions[] = {{"node", node}, {"rerun", rerun}, {NULL, NULL}};
  lt_set_functions(L, functions, host, meta);
}
