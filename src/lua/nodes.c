/* Nodes for the Lua half: what ran where on which values, running it again, and where single values
 * and numbers came from. */
#include "lua/host.h"
#include "ops/ops.h"
#include "tape/reading.h"
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

/* core.tape_sources(tape) -> table from the ids of variables and watched values to their names, or
 * true for those without */
static int tape_sources(lua_State *L) {
  lt_host *h = lt_host_of(L);
  const lt_tape *tape = lt_check_tape(L, h, "ops");
  lua_createtable(L, 0, (int)(tape->watch_count + tape->variable_count));
  for (int64_t i = 0; i < tape->watch_count; i++) {
    lua_pushboolean(L, 1);
    lua_rawseti(L, -2, (lua_Integer)tape->watches[i].id);
  }
  for (int64_t i = 0; i < tape->variable_count; i++) {
    const lt_tensor *v = tape->variables[i];
    if (v->name)
      lua_pushstring(L, v->name);
    else
      lua_pushboolean(L, 1);
    lua_rawseti(L, -2, (lua_Integer)v->id);
  }
  return 1;
}

/* Pushes {id =, dtype =, shape =, name =, source =}; the table of sources is at index 4. */
static void push_edge(lua_State *L, const lt_node *n, const lt_edge *e) {
  lt_spec spec = lt_edge_spec(n, e);
  lua_createtable(L, 0, 5);
  lua_pushinteger(L, (lua_Integer)e->id);
  lua_setfield(L, -2, "id");
  lua_pushstring(L, lt_dtype_name(spec.dtype));
  lua_setfield(L, -2, "dtype");
  lua_createtable(L, spec.shape.ndim, 0);
  for (int d = 0; d < spec.shape.ndim; d++) {
    lua_pushinteger(L, spec.shape.size[d]);
    lua_rawseti(L, -2, d + 1);
  }
  lua_setfield(L, -2, "shape");
  int source = lua_rawgeti(L, 4, (lua_Integer)e->id);
  if (source != LUA_TSTRING && e->saved && e->saved->name) {
    lua_pop(L, 1);
    lua_pushstring(L, e->saved->name);
  }
  if (lua_type(L, -1) == LUA_TSTRING)
    lua_setfield(L, -2, "name");
  else
    lua_pop(L, 1);
  if (source == LUA_TNIL) return;
  lua_pushboolean(L, 1);
  lua_setfield(L, -2, "source");
}

/* The bytes of a block that is not in the table at index 3 yet. */
static int64_t new_bytes(lua_State *L, const lt_block *b) {
  bool known = lua_rawgetp(L, 3, b) != LUA_TNIL;
  lua_pop(L, 1);
  if (known) return 0;
  lua_pushboolean(L, 1);
  lua_rawsetp(L, 3, b);
  return b->capacity;
}

/* Pushes the list of the edges, without absent ones, and adds the bytes that they keep alive and
 * that are not in the table at index 3 yet. */
static void push_edges(lua_State *L, lt_node *n, int first, int shown, int count, int64_t *bytes) {
  lua_createtable(L, shown, 0);
  for (int i = 0; i < count; i++) {
    const lt_edge *e = &n->edge[first + i];
    if (e->saved) *bytes += new_bytes(L, e->saved->block);
    if (i >= shown || e->id == 0) continue;
    push_edge(L, n, e);
    lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
  }
}

/* core.inspect(tape, k, seen, sources) -> {op =, where =, inputs =, outputs =, bytes =, gradient
 * =}. `seen` collects the blocks of memory that are counted already. */
static int inspect(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_node *n = check_node(L, h);
  luaL_checktype(L, 3, LUA_TTABLE);
  luaL_checktype(L, 4, LUA_TTABLE);
  lua_settop(L, 4);
  char at[LT_SITE_TEXT];
  int64_t bytes = 0;
  lua_createtable(L, 0, 6);
  lua_pushstring(L, n->op->name);
  lua_setfield(L, 5, "op");
  lua_pushstring(L, lt_site_text(h->ctx, n->site, at));
  lua_setfield(L, 5, "where");
  push_edges(L, n, 0, n->inputs, n->inputs, &bytes);
  lua_setfield(L, 5, "inputs");
  push_edges(L, n, n->inputs, n->outputs - n->op->hidden, n->outputs, &bytes);
  lua_setfield(L, 5, "outputs");
  bool holds = !lt_check_tape(L, h, "ops")->spent; /* what it let go, another tape may still need */
  lua_pushinteger(L, holds ? bytes : 0);
  lua_setfield(L, 5, "bytes");
  lua_pushboolean(L, n->reason == LT_RECORDED);
  lua_setfield(L, 5, "gradient");
  return 1;
}

/* ---- Single values ------------------------------------------------------------------------------
 */

/* core.site() -> where the user's program is */
static int site(lua_State *L) {
  lt_host *h = lt_host_of(L);
  char at[LT_SITE_TEXT];
  lua_pushstring(L, lt_site_text(h->ctx, lt_current_site(h->ctx), at));
  return 1;
}

/* Why no gradient flows through a node that no tape recorded; NULL if there is nothing to say. */
static const char *origin_code(const lt_node *n) {
  switch ((lt_reason)n->reason) {
  case LT_NO_TAPE: return n->inputs > 0 ? "outside-tape" : NULL;
  case LT_IN_NO_GRAD: return n->inputs > 0 ? "no-grad" : NULL;
  case LT_TAPE_PAUSED: return n->inputs > 0 ? "paused" : NULL;
  case LT_IN_GRADIENT: return "second-order";
  case LT_READ: return "left-tensors";
  case LT_CUT: return "stopped";
  case LT_NO_GRADIENT: return "nondiff-op";
  case LT_RECORDED: return "outside-tape";
  case LT_UNCONNECTED: break;
  }
  return NULL;
}

/* core.origin(t) -> op and place that made it, and why no gradient flows through it to a tape that
 * did not record it, nil if it depends on nothing; nothing where that is not known any more */
static int origin(lua_State *L) {
  lt_host *h = lt_host_of(L);
  const lt_node *n = lt_history_find(h->ctx, lt_check_tensor(L, h, 1, "origin", "x")->id);
  char at[LT_SITE_TEXT];
  if (!n) return 0;
  if (n->op == &lt_op_tensor && n->inputs > 0) { /* of numbers that were read */
    const lt_node *reading = lt_history_find(h->ctx, n->edge[0].id);
    if (reading) n = reading;
  }
  lua_pushstring(L, n->op->name);
  lua_pushstring(L, lt_site_text(h->ctx, n->site, at));
  lua_pushstring(L, origin_code(n));
  return 3;
}

/* core.records(tape, t) -> did the tape record how t was made, or is t a source of it? and is t
 * older than the tape? */
static int records(lua_State *L) {
  lt_host *h = lt_host_of(L);
  const lt_tape *tape = lt_check_tape(L, h, "records");
  const lt_tensor *t = lt_check_tensor(L, h, 2, "records", "x");
  lua_pushboolean(L, lt_tape_knows(tape, t));
  lua_pushboolean(L, t->id < tape->opened_id);
  return 2;
}

/* core.read_at(number) -> op and place that read it from a tensor last, true; of another number,
 * false, if it was none; nothing if none was read */
static int read_at(lua_State *L) {
  lt_host *h = lt_host_of(L);
  lt_site where;
  bool same;
  const lt_op *op = lt_reading_find(h->ctx, luaL_checknumber(L, 1), &where, &same);
  char at[LT_SITE_TEXT];
  if (!op) return 0;
  lua_pushstring(L, op->name);
  lua_pushstring(L, lt_site_text(h->ctx, where, at));
  lua_pushboolean(L, same);
  return 3;
}

void lt_open_nodes(lua_State *L, int host, int meta) {
  static const luaL_Reg functions[] = {
      {"node", node},       {"rerun", rerun},     {"tape_sources", tape_sources},
      {"inspect", inspect}, {"site", site},       {"origin", origin},
      {"records", records}, {"read_at", read_at}, {NULL, NULL}};
  lt_set_functions(L, functions, host, meta);
}
