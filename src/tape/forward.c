/* Tangents. An op's rule for them is its own, or follows from its gradient rule: an elementwise op
 * has a diagonal Jacobian, which is its own transpose; a linear op maps tangents as it maps values;
 * a product does so for each factor; and the gradient rule of any other op is linear in dy, so that
 * its own gradient with respect to dy is the tangent. */
#include "tape/forward.h"
#include "ops/ops.h"

#include <stdlib.h>
#include <string.h>

lt_status lt_forward_new(lt_context *ctx, lt_tape **tape) {
  LT_TRY(lt_tape_new(ctx, true, false, tape));
  (*tape)->forward = true;
  return LT_OK;
}

lt_status lt_forward_watch(lt_tape *tape, lt_tensor *x, lt_tensor *tangent) {
  char want[LT_SHAPE_TEXT], got[LT_SHAPE_TEXT];
  if (!lt_shape_equal(&x->shape, &tangent->shape) || x->dtype != tangent->dtype) {
    return lt_fail(tape->ctx, "jvp: the tangent is %s %s, its primal %s %s",
                   lt_dtype_name((lt_dtype)tangent->dtype), lt_shape_text(&tangent->shape, got),
                   lt_dtype_name((lt_dtype)x->dtype), lt_shape_text(&x->shape, want));
  }
  LT_TRY(lt_tape_watch(tape, x));
  return lt_tensor_set_tangent(x, tape->number, tangent);
}

static bool is_float(const lt_tensor *t) { return t && lt_dtype_is_float((lt_dtype)t->dtype); }

static lt_tensor *sum_of(lt_scope *s, lt_tensor *a, lt_tensor *b) {
  return a && b ? lt_add(s, a, b) : a ? a : b;
}

/* ---- Derived rules ----------------------------------------------------------------------------
 */

/* op(tangents); inputs that do not change have a tangent of zeros. */
static void through_itself(lt_jvp *j, lt_tensor **in) {
  for (int i = 0; i < j->inputs; i++) {
    in[i] = j->in[i];
    if (!is_float(j->in[i])) continue;
    lt_spec spec = {(lt_dtype)j->in[i]->dtype, j->in[i]->shape};
    in[i] = j->dx[i] ? j->dx[i] : lt_full_like(j->s, &spec, 0);
  }
  lt_do_all(j->s, j->op, j->attrs, j->inputs, in, j->dy);
}

/* The sum of op(.., tangent of one input, ..) over the inputs. */
static void factor_by_factor(lt_jvp *j, lt_tensor **in) {
  for (int i = 0; i < j->inputs; i++) {
    if (!j->dx[i]) continue;
    lt_tensor *part[LT_MAX_OUTPUTS];
    memcpy(in, j->in, (size_t)j->inputs * sizeof *in);
    in[i] = j->dx[i];
    int outputs = lt_do_all(j->s, j->op, j->attrs, j->inputs, in, part);
    for (int k = 0; k < outputs && k < j->outputs; k++) j->dy[k] = sum_of(j->s, j->dy[k], part[k]);
  }
}

/* The gradient rule of a node, outside a walk. It sees what `saves` says and no more. */
static lt_status run_vjp(const lt_jvp *j, lt_node *n, lt_vjp *v) {
  lt_tensor *out[LT_MAX_OUTPUTS], **in = malloc((size_t)j->inputs * sizeof *in);
  if (!in) return lt_fail_memory(j->ctx, j->inputs * (long long)sizeof *in);
  for (int i = 0; i < j->inputs; i++) in[i] = lt_node_read(n, i);
  for (int k = 0; k < j->outputs; k++) out[k] = lt_node_out(n, k)->saved;
  v->ctx = j->ctx;
  v->s = j->s;
  v->op = j->op;
  v->attrs = j->attrs;
  v->node = n;
  v->inputs = j->inputs;
  v->outputs = j->outputs;
  v->in = in;
  v->out = out;
  lt_status status = LT_OK;
  if (n->closure.vjp)
    status = n->closure.vjp(n->closure.userdata, v);
  else
    j->op->vjp(v);
  free(in);
  return status == LT_OK ? j->s->status : status;
}

/* Elementwise: the gradient rule of input i alone, with its tangent in the place of dy. */
static void diagonal(lt_jvp *j, lt_node *n, bool *need, lt_tensor **dx) {
  lt_spec y = {(lt_dtype)j->out[0]->dtype, j->out[0]->shape};
  for (int i = 0; i < j->inputs && j->s->status == LT_OK; i++) {
    if (!j->dx[i]) continue;
    for (int k = 0; k < j->inputs; k++) need[k] = k == i;
    lt_tensor *t = lt_to_dtype(j->s, lt_expand_to(j->s, j->dx[i], &y.shape), y.dtype);
    lt_vjp v = {.need = need, .dx = dx, .dy = &t, .whole = true};
    if (t) j->s->status = run_vjp(j, n, &v);
    if (j->s->status != LT_OK || !dx[i]) continue;
    lt_tensor *part = lt_keep(j->s, dx[i]);
    dx[i] = NULL;
    part = lt_to_dtype(j->s, lt_expand_to(j->s, part, &y.shape), y.dtype);
    j->dy[0] = sum_of(j->s, j->dy[0], part);
  }
}

/* Any other: with g_i(u) the gradients that the rule gives for dy = u, the gradient of
 * sum_i <g_i(u), dx_i> with respect to u. */
static void transposed(lt_jvp *j, lt_node *n, bool *need, lt_tensor **dx) {
  lt_context *ctx = j->ctx;
  lt_scope *s = j->s;
  lt_tensor *u[LT_MAX_OUTPUTS] = {NULL}, *source[LT_MAX_OUTPUTS], *found[LT_MAX_OUTPUTS];
  int which[LT_MAX_OUTPUTS], sources = 0, targets = 0;
  size_t bytes = 2 * (size_t)j->inputs * sizeof(lt_tensor *);
  lt_tape *tape;
  s->status = lt_tape_new(ctx, false, false, &tape);
  if (s->status != LT_OK) return;
  for (int k = 0; k < j->outputs; k++) {
    if (!is_float(j->out[k])) continue;
    lt_spec spec = {(lt_dtype)j->out[k]->dtype, j->out[k]->shape};
    u[k] = lt_do1(s, &lt_op_clone, NULL, lt_full_like(s, &spec, 0));
    if (u[k]) s->status = lt_tape_watch(tape, u[k]);
    which[sources] = k;
    source[sources++] = u[k];
  }
  lt_tensor **target = malloc(bytes), **seed = target + j->inputs;
  if (!target && s->status == LT_OK) s->status = lt_fail_memory(ctx, (long long)bytes);
  for (int i = 0; i < j->inputs; i++) need[i] = j->dx[i] != NULL;
  lt_vjp v = {.need = need, .dx = dx, .dy = u};
  if (s->status == LT_OK) s->status = run_vjp(j, n, &v);
  for (int i = 0; s->status == LT_OK && i < j->inputs; i++) {
    if (!dx[i] || !need[i]) continue;
    target[targets] = dx[i];
    seed[targets++] = j->dx[i];
  }
  if (targets > 0) {
    s->status = lt_tape_gradient(tape, targets, target, seed, sources, source, found);
    for (int k = 0; k < sources && s->status == LT_OK; k++) {
      if (found[k]) j->dy[which[k]] = lt_keep(s, found[k]);
    }
  }
  free(target);
  lt_tape_close(tape);
  lt_tape_release(tape);
}

/* ---- One step ---------------------------------------------------------------------------------
 */

/* `room` and `need` have a place for each input. */
static void run_rule(lt_jvp *j, lt_node *n, lt_tensor **room, bool *need) {
  if (j->op->jvp) {
    j->op->jvp(j);
  } else if (j->op->linear) {
    through_itself(j, room);
  } else if (j->op->multilinear) {
    factor_by_factor(j, room);
  } else {
    memset(room, 0, (size_t)j->inputs * sizeof *room);
    if (j->op->kernel || j->op->elementwise)
      diagonal(j, n, need, room);
    else
      transposed(j, n, need, room);
    for (int i = 0; i < j->inputs; i++) lt_tensor_release(room[i]);
  }
}

/* Tapes that were opened after this one do not see its tangents' arithmetic, nor does itself. */
static uint64_t older(const lt_context *ctx, const lt_tape *tape) {
  uint64_t mask = 0;
  for (uint64_t left = ctx->listening; left; left &= left - 1) {
    int slot = __builtin_ctzll(left);
    if (ctx->tapes[slot]->number < tape->number) mask |= (uint64_t)1 << slot;
  }
  return mask;
}

lt_status lt_forward_step(lt_tape *tape, const lt_call *c, lt_node *n) {
  lt_context *ctx = c->ctx;
  size_t bytes = (size_t)c->inputs * (2 * sizeof(lt_tensor *) + sizeof(bool));
  lt_tensor **dx = malloc(bytes), *dy[LT_MAX_OUTPUTS] = {NULL};
  if (!dx) return lt_fail_memory(ctx, (long long)bytes);
  lt_scope s;
  lt_scope_open(&s, ctx);
  lt_jvp j = {.ctx = ctx,
              .s = &s,
              .op = c->op,
              .attrs = c->attrs,
              .inputs = c->inputs,
              .outputs = c->outputs,
              .in = c->in,
              .out = c->out,
              .dx = dx,
              .dy = dy};
  bool any = false;
  for (int i = 0; i < c->inputs; i++) {
    dx[i] = is_float(c->in[i]) ? lt_tensor_tangent(c->in[i], tape->number) : NULL;
    any = any || dx[i];
  }
  uint64_t listening = ctx->listening;
  ctx->listening = older(ctx, tape);
  if (any) run_rule(&j, n, dx + c->inputs, (bool *)(void *)(dx + 2 * c->inputs));
  ctx->listening = listening & ctx->open;
  for (int k = 0; k < c->outputs && s.status == LT_OK; k++) {
    if (!dy[k] || !is_float(c->out[k])) continue;
    s.status = lt_tensor_set_tangent(c->out[k], tape->number, dy[k]);
  }
  lt_scope_close(&s);
  free(dx);
  return s.status;
}
