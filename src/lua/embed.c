/* The functions of luatape.h, for hosts. */
#include "kernels/copy.h"
#include "lua/host.h"
#include "luatape.h"
#include "ops/ops.h"

#include <string.h>

_Static_assert((int)LUATAPE_BOOL == (int)LT_BOOL && (int)LUATAPE_MAX_RANK == (int)LT_MAX_RANK,
               "the public enumerations follow the core's");

/* The state's host, or an error: luaopen_luatape comes first. */
static lt_host *need_host(lua_State *L) {
  lt_host *h = lt_host_find(L);
  if (!h) luaL_error(L, "luatape: not opened in this state (luaopen_luatape)");
  h->L = L;
  return h;
}

void luatape_push(lua_State *L, void *data, luatape_dtype dtype, int ndim, const int64_t *shape,
                  luatape_release release, void *userdata) {
  lt_host *h = need_host(L);
  if (ndim < 0 || ndim > LT_MAX_RANK) lt_error(L, h, "luatape_push: ndim %d is outside 0..8", ndim);
  if ((unsigned)dtype >= LT_DTYPE_COUNT) lt_error(L, h, "luatape_push: no such dtype");
  lt_shape s = lt_shape_make(ndim, shape);
  lt_tensor **slot = lt_new_tensor_slot_outside(L, h), *t;
  /* Without a release function until nothing can fail any more. */
  LT_CHECK(L, h, lt_tensor_wrap(h->ctx, "luatape_push", (lt_dtype)dtype, &s, data, NULL, NULL, &t));
  *slot = t;
  LT_CHECK(L, h, lt_record_source(&lt_op_tensor, t, false));
  t->block->release = release;
  t->block->release_userdata = userdata;
}

static int fill(lua_State *L, lt_host *h, int index, luatape_view *view) {
  const lt_tensor *t = lt_test_tensor(L, h, index);
  if (!t || !lt_is_plain(t)) return 0;
  *view = (luatape_view){
      .data = t->data, .dtype = (luatape_dtype)t->dtype, .ndim = t->shape.ndim, .numel = t->numel};
  memcpy(view->shape, t->shape.size, sizeof view->shape);
  memcpy(view->strides, t->strides, (size_t)t->shape.ndim * sizeof *view->strides);
  return 1;
}

int luatape_test(lua_State *L, int index, luatape_view *view) {
  lt_host *h = lt_host_find(L);
  return h ? fill(L, h, index, view) : 0;
}

void luatape_check(lua_State *L, int index, luatape_view *view) {
  lt_host *h = need_host(L);
  if (fill(L, h, index, view)) return;
  if (lt_test_tensor(L, h, index)) lt_check_values(L, h, index, "luatape_check", "the value");
  luaL_typeerror(L, index, "luatape.tensor");
}

void luatape_read(lua_State *L, int index, luatape_dtype dtype, void *out, int64_t count) {
  lt_host *h = need_host(L);
  const lt_tensor *t = lt_check_values(L, h, index, "luatape_read", "the value");
  if ((unsigned)dtype >= LT_DTYPE_COUNT) lt_error(L, h, "luatape_read: no such dtype");
  if (count != t->numel) {
    lt_error(L, h, "luatape_read: room for %lld elements, the tensor has %lld", (long long)count,
             (long long)t->numel);
  }
  int64_t strides[LT_MAX_RANK];
  lt_shape_strides(&t->shape, strides);
  lt_copy(&t->shape, (lt_dtype)dtype, out, strides, (lt_dtype)t->dtype, t->data, t->strides);
}

void luatape_set_threads(lua_State *L, int threads) {
  need_host(L)->ctx->threads = threads < 1 ? 1 : threads > 1024 ? 1024 : threads;
}

volatile int *luatape_interrupt_flag(lua_State *L) { return &need_host(L)->ctx->interrupted; }
