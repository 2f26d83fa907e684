/* Differences of neighbours: what cumsum undoes. */
#include "ops/family.h"
#include "ops/index.h"
#include "tape/vjp.h"

enum { N, DIM };

static lt_status diff_infer(lt_call *c) {
  int dim;
  int64_t n = lt_get_int(c->attrs, c->op, N);
  LT_TRY(lt_indexed_dim(c, DIM, &dim));
  if (n < 0) return lt_fail(c->ctx, "diff: n must not be negative, got %lld", (long long)n);
  if (c->in[0]->dtype != LT_BOOL) return LT_OK;
  return lt_fail(c->ctx, "diff: x must hold numbers, got bool");
}

/* length elements of dimension dim from `start` on. */
static lt_tensor *part(lt_scope *s, lt_tensor *x, int64_t dim, int64_t start, int64_t length) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_narrow);
  lt_attrs_set_int(&attrs, &lt_op_narrow, 0, dim);
  lt_attrs_set_int(&attrs, &lt_op_narrow, 1, start);
  lt_attrs_set_int(&attrs, &lt_op_narrow, 2, length);
  return lt_do1(s, &lt_op_narrow, &attrs, x);
}

static void diff_compose(lt_call *c, lt_scope *s) {
  lt_tensor *x = c->in[0];
  int64_t dim = lt_get_int(c->attrs, c->op, DIM), n = lt_get_int(c->attrs, c->op, N);
  int64_t size = x->shape.size[dim < 0 ? dim + x->shape.ndim : dim];
  for (; n > 0 && size > 0 && s->status == LT_OK; n--, size--) {
    x = lt_sub(s, part(s, x, dim, 1, size - 1), part(s, x, dim, 0, size - 1));
  }
  c->out[0] = x == c->in[0] ? lt_do1(s, &lt_op_clone, NULL, x) : x;
}

const lt_op lt_op_diff = {
    .name = "diff",
    .doc = "Each element less the one before it along dim, which gets one element fewer; n times "
           "over.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"n", LT_OPTION_INT, .value = 1}, {"dim", LT_OPTION_DIM, .value = -1}},
    .infer = diff_infer,
    .compose = diff_compose,
    .sample = {"normal(3, 4)", "normal(5, 3), {n = 2, dim = 1}", "transposed(4, 3), 0"},
};

LT_FAMILY(difference, &lt_op_diff)
