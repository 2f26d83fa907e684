/* Running ops on batches of samples. */
#include "tape/vmap.h"
#include "core/context.h"
#include "ops/ops.h"
#include "tape/tape.h"

#include <stdlib.h>
#include <string.h>

/* ---- Words of rules ------------------------------------------------------------------------- */

lt_shape lt_batch_shape(const lt_batch *b, const lt_shape *sample) {
  lt_shape all = {.ndim = sample->ndim + 1};
  all.size[0] = b->size;
  memcpy(all.size + 1, sample->size, (size_t)sample->ndim * sizeof *sample->size);
  return all;
}

/* Sizes gain a dimension: there must be room for it. */
static bool has_room(lt_batch *b, int ndim) {
  if (ndim < LT_MAX_RANK) return true;
  if (b->s->status == LT_OK) {
    b->s->status = lt_fail(b->ctx, "%s: a batch of samples of %d dimensions has more than %d",
                           b->op->name, ndim, LT_MAX_RANK);
  }
  return false;
}

lt_tensor *lt_batch_in(lt_batch *b, int i) {
  if (!b->in[i] || b->over[i]) return b->over[i];
  if (!has_room(b, b->in[i]->shape.ndim)) return NULL;
  lt_shape all = lt_batch_shape(b, &b->in[i]->shape);
  return lt_expand_to(b->s, b->in[i], &all);
}

void lt_batch_run(lt_batch *b, const lt_attrs *attrs, lt_tensor *const *in) {
  b->outputs = lt_do_all(b->s, b->op, attrs, b->inputs, in, b->out);
}

void lt_batch_give(lt_batch *b, lt_tensor *result) {
  b->outputs = 1;
  b->out[0] = result;
}

/* Room for as many tensors as the op has inputs; NULL after a failure. */
static lt_tensor **room(lt_batch *b) {
  size_t bytes = (size_t)(b->inputs ? b->inputs : 1) * sizeof(lt_tensor *);
  lt_tensor **list = b->s->status == LT_OK ? malloc(bytes) : NULL;
  if (!list && b->s->status == LT_OK) b->s->status = lt_fail_memory(b->ctx, (long long)bytes);
  return list;
}

static bool differs(const lt_batch *b, int first) {
  for (int i = first; i < b->inputs; i++) {
    if (b->over[i]) return true;
  }
  return false;
}

/* ---- Rules ---------------------------------------------------------------------------------- */

/* A 0-d sample gives way in type promotion, the row of all of them would not. */
static lt_tensor *keep_type(lt_batch *b, int i, lt_dtype meeting) {
  int last = lt_op_inputs(b->op) - 1;
  lt_accepts accepts = b->op->inputs[i < last ? i : last].accepts;
  bool alone = b->in[i]->shape.ndim == 0 && (accepts == LT_ANY || accepts == LT_FLOAT);
  return alone ? lt_to_dtype(b->s, b->over[i], meeting) : b->over[i];
}

void lt_batch_broadcast(lt_batch *b) {
  lt_tensor **in = room(b);
  if (!in) return;
  int rank = 0;
  for (int i = 0; i < b->inputs; i++) {
    if (b->in[i] && b->in[i]->shape.ndim > rank) rank = b->in[i]->shape.ndim;
  }
  lt_dtype meeting = lt_result_type(&(lt_call){.ctx = b->ctx, .inputs = b->inputs, .in = b->in});
  for (int i = 0; i < b->inputs && has_room(b, rank); i++) {
    in[i] = b->in[i];
    if (!b->over[i]) continue;
    const lt_shape *sample = &b->in[i]->shape;
    lt_shape aligned = {.ndim = 1 + rank, .size = {b->size}};
    for (int d = 0; d < rank; d++) {
      int own = d - (rank - sample->ndim);
      aligned.size[1 + d] = own < 0 ? 1 : sample->size[own];
    }
    in[i] = lt_reshape_to(b->s, keep_type(b, i, meeting), &aligned);
  }
  lt_batch_run(b, b->attrs, in);
  free(in);
}

/* The options of one sample, for the batch. `row`: samples are rows of one dimension. */
static void shift_dims(const lt_batch *b, int rank, bool row, lt_attrs *a) {
  *a = *b->attrs;
  for (int k = 0; k < lt_op_options(b->op); k++) {
    int64_t list[LT_MAX_RANK];
    int n;
    if (b->op->options[k].type == LT_OPTION_DIM) {
      int64_t dim = lt_get_int(a, b->op, k);
      lt_attrs_set_int(a, b->op, k, row ? 1 : dim < 0 ? dim : dim + 1);
    } else if (b->op->options[k].type == LT_OPTION_DIMS) {
      const int64_t *dims = lt_get_list(a, b->op, k, &n);
      if (row || !dims) n = row ? 1 : rank;
      for (int i = 0; i < n; i++) {
        list[i] = row || !dims ? i + 1 : dims[i] < 0 ? dims[i] : dims[i] + 1;
      }
      lt_attrs_set_list(a, b->op, k, n, list);
    } else if (b->op->options[k].type == LT_OPTION_SIZES && lt_given(a, k)) {
      const int64_t *sizes = lt_get_list(a, b->op, k, &n);
      list[0] = b->size;
      for (int i = 0; i < n && i + 1 < LT_MAX_RANK; i++) list[i + 1] = sizes[i];
      lt_attrs_set_list(a, b->op, k, n + 1, list);
    }
  }
}

void lt_batch_shift(const lt_batch *b, lt_attrs *attrs) {
  shift_dims(b, b->in[0]->shape.ndim, false, attrs);
}

/* All inputs with the batch in front; `row`: every sample laid out in one dimension. */
static void run_shifted(lt_batch *b, bool row) {
  lt_tensor **in = room(b);
  if (!in) return;
  for (int i = 0; i < b->inputs; i++) {
    in[i] = lt_batch_in(b, i);
    if (!row || !in[i]) continue;
    in[i] = lt_reshape_to(b->s, in[i], &(lt_shape){2, {b->size, b->in[i]->numel}});
  }
  lt_attrs attrs;
  shift_dims(b, b->in[0]->shape.ndim, row, &attrs);
  lt_batch_run(b, &attrs, in);
  if (b->outputs > b->results) b->outputs = b->results; /* with a dim there may be more */
  for (int k = 0; row && k < b->outputs; k++) {
    lt_shape all = lt_batch_shape(b, &b->result[k].shape);
    b->out[k] = lt_reshape_to(b->s, b->out[k], &all);
  }
  free(in);
}

void lt_batch_dims(lt_batch *b) {
  bool sized = false;
  for (int k = 0; k < lt_op_options(b->op); k++) {
    sized = sized || (b->op->options[k].type == LT_OPTION_SIZES && lt_given(b->attrs, k));
  }
  run_shifted(b, b->in[0]->shape.ndim == 0 && !sized);
}

void lt_batch_dims_or_all(lt_batch *b) {
  bool all = b->in[0]->shape.ndim == 0;
  for (int k = 0; k < lt_op_options(b->op); k++) {
    if (b->op->options[k].type == LT_OPTION_DIM) all = all || !lt_given(b->attrs, k);
  }
  run_shifted(b, all);
}

/* Input 0 in another shape, the others as they are. */
static void run_on(lt_batch *b, lt_tensor *first) {
  lt_tensor **in = room(b);
  if (!in) return;
  memcpy(in, b->in, (size_t)b->inputs * sizeof *in);
  in[0] = first;
  lt_batch_run(b, b->attrs, in);
  free(in);
}

void lt_batch_leading(lt_batch *b) {
  if (differs(b, 1))
    lt_batch_each(b);
  else
    run_on(b, b->over[0]);
}

void lt_batch_merge(lt_batch *b, int rank) {
  if (differs(b, 1)) {
    lt_batch_each(b);
  } else if (b->in[0]->shape.ndim != rank) {
    run_on(b, b->over[0]);
  } else {
    lt_shape merged = b->in[0]->shape;
    int64_t own = merged.size[0];
    merged.size[0] *= b->size;
    run_on(b, lt_reshape_to(b->s, b->over[0], &merged));
    for (int k = 0; k < b->outputs; k++) {
      const lt_shape *y = &b->out[k]->shape;
      lt_shape split = {.ndim = y->ndim + 1};
      split.size[0] = b->size;
      split.size[1] = own;
      memcpy(split.size + 2, y->size + 1, (size_t)(y->ndim - 1) * sizeof *y->size);
      b->out[k] = lt_reshape_to(b->s, b->out[k], &split);
    }
  }
}

/* Sample n of a batch. */
static lt_tensor *sample_of(lt_batch *b, lt_tensor *over, int64_t n) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_select);
  lt_attrs_set_int(&attrs, &lt_op_select, 0, 0);
  lt_attrs_set_int(&attrs, &lt_op_select, 1, n);
  return lt_do1(b->s, &lt_op_select, &attrs, over);
}

/* Results of all samples: output k of sample n at [k * size + n]. */
static void run_each(lt_batch *b, lt_tensor **in, lt_tensor **results) {
  for (int64_t n = 0; n < b->size && b->s->status == LT_OK; n++) {
    lt_tensor *out[LT_MAX_OUTPUTS];
    for (int i = 0; i < b->inputs; i++) {
      in[i] = b->over[i] ? sample_of(b, b->over[i], n) : b->in[i];
    }
    b->outputs = lt_do_all(b->s, b->op, b->attrs, b->inputs, in, out);
    for (int k = 0; k < b->outputs; k++) {
      results[k * b->size + n] = out[k];
      if (lt_shape_equal(&out[k]->shape, &results[k * b->size]->shape)) continue;
      b->s->status =
          lt_fail(b->ctx, "%s: its result has another shape for each sample of vmap", b->op->name);
    }
  }
}

void lt_batch_each(lt_batch *b) {
  lt_tensor **in = room(b);
  size_t bytes = LT_MAX_OUTPUTS * (size_t)b->size * sizeof(lt_tensor *);
  lt_tensor **results = in ? malloc(bytes) : NULL;
  if (in && !results) b->s->status = lt_fail_memory(b->ctx, (long long)bytes);
  if (results) run_each(b, in, results);
  for (int k = 0; k < b->outputs && b->s->status == LT_OK; k++) {
    if (b->size > LT_MAX_EDGES / 2) {
      b->s->status = lt_fail(b->ctx, "%s: too many samples", b->op->name);
    }
    b->out[k] = lt_do(b->s, &lt_op_stack, NULL, (int)b->size, results + k * b->size);
  }
  free(results);
  free(in);
}

/* ---- Calls ---------------------------------------------------------------------------------- */

lt_status lt_vmap_open(lt_context *ctx, int64_t size, bool fallback, uint64_t *number) {
  if (ctx->vmaps == LT_MAX_VMAPS) {
    return lt_fail(ctx, "vmap: calls are nested more than %d deep", LT_MAX_VMAPS);
  }
  if (size < 1) return lt_fail(ctx, "vmap: the batch is empty");
  *number = ctx->next_number++;
  ctx->vmap[ctx->vmaps++] = (lt_vmap){*number, size, fallback, lt_current_site(ctx)};
  return LT_OK;
}

void lt_vmap_close(lt_context *ctx, uint64_t number) {
  for (int k = 0; k < ctx->vmaps; k++) {
    if (ctx->vmap[k].number == number) ctx->vmaps = k;
  }
}

lt_status lt_vmap_level(lt_context *ctx, const lt_tensor *t, int *level) {
  for (int k = ctx->vmaps; k > 0; k--) {
    if (ctx->vmap[k - 1].number != t->vmap) continue;
    *level = k;
    return LT_OK;
  }
  char shape[LT_SHAPE_TEXT];
  return lt_fail(ctx, "vmap: '%s' (%s) stands for the samples of a vmap call that has ended",
                 t->name ? t->name : "unnamed", lt_shape_text(&t->shape, shape));
}

/* Leaves the innermost call for what handles whole batches. */
typedef struct outside {
  lt_context *ctx;
  int vmaps;
  uint64_t listening, inner;
  bool wants_hidden;
} outside;

static outside step_outside(lt_context *ctx, int level) {
  outside o = {ctx, ctx->vmaps, ctx->listening, 0, ctx->wants_hidden};
  for (uint64_t left = ctx->listening; left; left &= left - 1) {
    int slot = __builtin_ctzll(left);
    if (ctx->tapes[slot]->depth >= level) o.inner |= (uint64_t)1 << slot;
  }
  ctx->vmaps = level - 1;
  ctx->listening &= ~o.inner;
  return o;
}

/* Tapes that were opened or closed meanwhile keep their state. */
static void step_inside(const outside *o) {
  o->ctx->vmaps = o->vmaps;
  o->ctx->listening |= o->inner & o->ctx->open;
  o->ctx->wants_hidden = o->wants_hidden;
}

/* t with dimension `from` moved to `to`. */
static lt_tensor *move_dim(lt_scope *s, lt_tensor *t, int from, int to) {
  int64_t dims[LT_MAX_RANK];
  int n = 0;
  for (int d = 0; d < t->shape.ndim; d++) {
    if (d != from) dims[n++] = d;
  }
  memmove(dims + to + 1, dims + to, (size_t)(n - to) * sizeof *dims);
  dims[to] = from;
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_permute);
  lt_attrs_set_list(&attrs, &lt_op_permute, 0, t->shape.ndim, dims);
  return from == to ? t : lt_do1(s, &lt_op_permute, &attrs, t);
}

lt_status lt_vmap_split(lt_tensor *t, int dim, lt_tensor **result) {
  lt_context *ctx = t->ctx;
  const lt_vmap *v = &ctx->vmap[ctx->vmaps - 1];
  outside o = step_outside(ctx, ctx->vmaps);
  lt_scope s;
  lt_scope_open(&s, ctx);
  lt_tensor *over = move_dim(&s, t, dim, 0);
  if (over) s.status = lt_tensor_batch(over, v->number, result);
  lt_scope_close(&s);
  step_inside(&o);
  return s.status == LT_OK ? lt_record_source(&lt_op_vmap, *result, false) : s.status;
}

lt_status lt_vmap_join(lt_tensor *t, int dim, lt_tensor **result) {
  lt_context *ctx = t->ctx;
  const lt_vmap *v = &ctx->vmap[ctx->vmaps - 1];
  int level = 0;
  if (t->over) LT_TRY(lt_vmap_level(ctx, t, &level));
  lt_scope s;
  lt_scope_open(&s, ctx);
  outside o = step_outside(ctx, ctx->vmaps);
  lt_batch b = {.ctx = ctx, .s = &s, .op = &lt_op_vmap, .size = v->size, .in = &t};
  lt_tensor *none = NULL;
  b.over = level == o.vmaps ? &t->over : &none;
  lt_tensor *over = lt_batch_in(&b, 0);
  if (over) over = move_dim(&s, over, 0, dim);
  *result = over ? lt_tensor_retain(over) : NULL;
  lt_scope_close(&s);
  step_inside(&o);
  return s.status;
}

/* The rule has run: its results become samples. */
static lt_status take_results(lt_call *c, const lt_batch *b) {
  c->outputs = 0;
  for (int k = 0; k < b->outputs; k++) {
    lt_tensor *over = b->out[k];
    if (over->shape.ndim < 1 || over->shape.size[0] != b->size) {
      return lt_fail(c->ctx, "%s: its batching rule lost the batch", c->op->name);
    }
    LT_TRY(lt_tensor_batch(over, c->ctx->vmap[c->level - 1].number, &c->out[k]));
    c->outputs++;
  }
  return LT_OK;
}

static lt_status run_rule(lt_call *c, void (*rule)(lt_batch *), lt_tensor **over) {
  lt_context *ctx = c->ctx;
  lt_scope s;
  lt_scope_open(&s, ctx);
  lt_batch b = {.ctx = ctx,
                .s = &s,
                .op = c->op,
                .attrs = c->attrs,
                .own = c->own,
                .result = c->result,
                .results = c->outputs,
                .size = ctx->vmap[c->level - 1].size,
                .inputs = c->inputs,
                .in = c->in,
                .over = over};
  uint64_t number = ctx->vmap[c->level - 1].number;
  for (int i = 0; i < c->inputs; i++) {
    over[i] = c->in[i] && c->in[i]->vmap == number ? c->in[i]->over : NULL;
  }
  outside o = step_outside(ctx, c->level);
  if (c->op->hidden && o.inner) {
    uint64_t outer = ctx->listening;
    ctx->listening = o.inner;
    ctx->wants_hidden = ctx->wants_hidden || lt_is_recorded(c);
    ctx->listening = outer;
  }
  rule(&b);
  step_inside(&o);
  c->attrs = b.attrs;
  lt_status status = s.status == LT_OK ? take_results(c, &b) : s.status;
  lt_scope_close(&s);
  if (status != LT_OK) return status;
  uint64_t listening = ctx->listening;
  ctx->listening = o.inner & ctx->open;
  status = lt_record(c, NULL);
  ctx->listening = listening;
  return status;
}

lt_status lt_vmap_run(lt_call *c) {
  const lt_vmap *v = &c->ctx->vmap[c->level - 1];
  void (*rule)(lt_batch *) = c->op->batch;
  LT_TRY(c->op->infer(c)); /* so that errors speak of one sample */
  if (!rule && (c->op->kernel || c->op->elementwise)) rule = lt_batch_broadcast;
  if (!rule && v->fallback) rule = lt_batch_each;
  if (!rule) {
    char at[LT_SITE_TEXT];
    return lt_fail(c->ctx,
                   "%s: has no batching rule (vmap at %s); lt.vmap(f, {fallback = true}) runs such "
                   "ops sample by sample",
                   c->op->name, lt_site_text(c->ctx, v->site, at));
  }
  enum { FEW = 16 };
  lt_tensor *few[FEW];
  size_t bytes = (size_t)c->inputs * sizeof(lt_tensor *);
  lt_tensor **over = c->inputs > FEW ? malloc(bytes) : few;
  if (!over) return lt_fail_memory(c->ctx, (long long)bytes);
  lt_status status = run_rule(c, rule, over);
  if (over != few) free(over);
  return status;
}

lt_status lt_vmap_view(lt_tensor *t, lt_tensor **result) {
  if (t->over) return lt_tensor_batch(t->over, t->vmap, result);
  return lt_tensor_view(t, 0, &t->shape, t->strides, result);
}

static bool is_recorded_outside(const lt_context *ctx, const lt_tensor *t, uint64_t inner) {
  for (uint64_t left = ctx->listening & ~inner; left && t; left &= left - 1) {
    const lt_tape *tape = ctx->tapes[__builtin_ctzll(left)];
    for (const lt_tensor *over = t->over; over; over = over->over) {
      if (lt_tape_connects(tape, over)) return true;
    }
  }
  return false;
}

lt_status lt_vmap_record(lt_call *c, const lt_closure *closure) {
  lt_context *ctx = c->ctx;
  lt_status status = LT_OK;
  for (int i = 0; i < c->inputs && status == LT_OK; i++) {
    int level = 0;
    if (c->in[i] && c->in[i]->over) status = lt_vmap_level(ctx, c->in[i], &level);
    if (level > c->level) c->level = level;
  }
  if (status == LT_OK && c->level == 0) return lt_record(c, closure);
  uint64_t listening = ctx->listening, inner = 0;
  if (status == LT_OK) {
    outside o = step_outside(ctx, c->level);
    inner = o.inner;
    step_inside(&o);
  }
  for (int i = 0; i < c->inputs && status == LT_OK; i++) {
    if (!is_recorded_outside(ctx, c->in[i], inner)) continue;
    char at[LT_SITE_TEXT];
    status = lt_fail(ctx, "%s: inside vmap (at %s) only tapes opened there know its gradient",
                     c->op->name, lt_site_text(ctx, ctx->vmap[c->level - 1].site, at));
  }
  if (status != LT_OK) {
    closure->release(closure->userdata);
    return status;
  }
  ctx->listening = inner;
  status = lt_record(c, closure);
  ctx->listening = listening & ctx->open;
  return status;
}
