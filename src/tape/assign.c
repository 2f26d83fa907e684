/* Versions and identities around a write in place. */
#include "tape/assign.h"
#include "ops/ops.h"
#include "tape/tape.h"

lt_status lt_assign_begin(lt_context *ctx, const lt_tensor *t, const char *op) {
  LT_TRY(lt_check_plain(t, op, "x"));
  if (lt_tensor_repeats(t)) {
    char shape[LT_SHAPE_TEXT];
    return lt_fail(ctx,
                   "%s: elements of '%s' (%s) share memory, as expand makes them; write into its "
                   "x:clone()",
                   op, t->name ? t->name : "the tensor", lt_shape_text(&t->shape, shape));
  }
  if (t->variable || ctx->no_grad) return LT_OK;
  for (uint64_t left = ctx->listening; left; left &= left - 1) {
    const lt_tape *tape = ctx->tapes[__builtin_ctzll(left)];
    if (!lt_tape_connects(tape, t)) continue;
    char at[LT_SITE_TEXT];
    return lt_fail(ctx,
                   "%s: '%s' is recorded by the tape opened at %s, and a write in place has no "
                   "gradient; use lt.where or lt.cat, or write inside tape:paused [assigned]",
                   op, t->name ? t->name : "the tensor", lt_site_text(ctx, tape->opened, at));
  }
  return LT_OK;
}

lt_status lt_assign_end(lt_context *ctx, lt_tensor *t, lt_tensor *source) {
  lt_tensor_written(t, lt_current_site(ctx));
  if (t->variable && !(source && ctx->open)) return LT_OK;
  lt_tensor written = *t; /* variables keep their identity: the new value has its own in the node */
  lt_attrs none = {0};
  lt_call c = {.ctx = ctx,
               .op = &lt_op_assign,
               .attrs = &none,
               .inputs = source ? 2 : 1,
               .in = (lt_tensor *[]){t, source},
               .outputs = 1,
               .out = {t->variable ? &written : t}};
  return lt_record(&c, NULL);
}
