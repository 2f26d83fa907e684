/* Recurrent networks over whole sequences, each one op with a gradient that is one op as well. For
 * derivatives of higher order the network is composed of ops, step by step, and those are
 * differentiated. */
#include "ops/recurrent.h"

#include "core/context.h"
#include "ops/family.h"
#include "tape/tape.h"
#include "tape/vmap.h"

#include <stdlib.h>

/* ---- The network ---------------------------------------------------------------------------- */

enum { NUM_LAYERS, BIDIRECTIONAL, BATCH_FIRST, BIAS, DROPOUT, TRAIN, SEED, COUNTER };
/* The gradient's op has others in two places. */
enum { CELL = BIAS, WANTED = TRAIN };
enum { X = LT_RNN_X, H0 = LT_RNN_H0, C0 = LT_RNN_C0 };

static lt_recurrent cell_of(const lt_op *op) {
  if (op == &lt_op_lstm) return LT_LSTM;
  if (op == &lt_op_gru) return LT_GRU;
  return op == &lt_op_rnn_relu ? LT_RNN_RELU : LT_RNN_TANH;
}

static int states_of(const lt_op *op) { return op == &lt_op_lstm ? 2 : 1; }

/* From x, h0 and the options that a recurrent op and its gradient share. */
static lt_network describe(lt_context *ctx, const lt_op *op, const lt_attrs *attrs,
                           lt_recurrent cell, const lt_tensor *x, const lt_tensor *h0,
                           lt_tensor *const *weight, int weights) {
  static const int64_t gates[LT_RECURRENT_COUNT] = {1, 1, 3, 4};
  lt_network n = {.ctx = ctx, .name = op->name, .cell = cell, .dtype = (lt_dtype)x->dtype};
  const int64_t *size = x->shape.size;
  n.layers = lt_get_int(attrs, op, NUM_LAYERS);
  n.directions = lt_get_int(attrs, op, BIDIRECTIONAL) ? 2 : 1;
  n.batched = x->shape.ndim == 3;
  n.batch_first = n.batched && lt_get_int(attrs, op, BATCH_FIRST);
  n.steps = size[n.batch_first];
  n.batch = n.batched ? size[!n.batch_first] : 1;
  n.inputs = size[x->shape.ndim - 1];
  n.hidden = h0->shape.size[h0->shape.ndim - 1];
  n.gates = gates[cell] * n.hidden;
  n.memory = cell == LT_GRU || cell == LT_LSTM ? n.hidden : 0;
  n.per_cell = weights / lt_network_cells(&n);
  n.slots = lt_network_cells(&n);
  n.dropout = n.layers > 1 ? lt_get_number(attrs, op, DROPOUT) : 0;
  n.seed = (uint64_t)lt_get_int(attrs, op, SEED);
  n.counter = (uint64_t)lt_get_int(attrs, op, COUNTER);
  n.weight = weight;
  return n;
}

/* From the inputs of a recurrent op. */
static lt_network describe_forward(lt_context *ctx, const lt_op *op, const lt_attrs *attrs,
                                   int inputs, lt_tensor *const *in) {
  int first = 1 + states_of(op);
  lt_network n = describe(ctx, op, attrs, cell_of(op), in[X], in[H0], in + first, inputs - first);
  if (!lt_get_int(attrs, op, TRAIN)) n.dropout = 0;
  return n;
}

/* From those of the gradient's op. */
static lt_network describe_backward(lt_context *ctx, const lt_op *op, const lt_attrs *attrs,
                                    int inputs, lt_tensor *const *in) {
  return describe(ctx, op, attrs, (lt_recurrent)lt_get_int(attrs, op, CELL), in[LT_RNN_OF_X],
                  in[LT_RNN_OF_H0], in + LT_RNN_OF_WEIGHTS, inputs - LT_RNN_OF_WEIGHTS);
}

/* A sequence and the states as the user sees them. */
static lt_shape sequence_shape(const lt_network *n, int64_t width) {
  if (!n->batched) return lt_shape_make(2, (int64_t[]){n->steps, width});
  if (n->batch_first) return lt_shape_make(3, (int64_t[]){n->batch, n->steps, width});
  return lt_shape_make(3, (int64_t[]){n->steps, n->batch, width});
}

static lt_shape state_shape(const lt_network *n) {
  if (!n->batched) return lt_shape_make(2, (int64_t[]){lt_network_cells(n), n->hidden});
  return lt_shape_make(3, (int64_t[]){lt_network_cells(n), n->batch, n->hidden});
}

lt_shape lt_network_weight_shape(const lt_network *n, int64_t i) {
  int64_t layer = i / n->per_cell / n->directions, which = i % n->per_cell;
  int64_t inputs = which == LT_W_IH ? lt_network_inputs(n, layer) : n->hidden;
  return lt_shape_make(which >= LT_B_IH ? 1 : 2, (int64_t[]){n->gates, inputs});
}

int64_t lt_network_weight_place(const lt_network *n, int64_t i) {
  int64_t sum = 0;
  for (int64_t k = 0; k < i; k++) {
    lt_shape s = lt_network_weight_shape(n, k);
    sum += lt_shape_numel(&s);
  }
  return sum;
}

uint64_t lt_network_counter(const lt_network *n, int64_t layer) {
  int64_t each = (n->steps * n->batch * lt_network_width(n) + 3) / 4; /* four numbers a counter */
  return n->counter + (uint64_t)(layer * each);
}

/* ---- Checks --------------------------------------------------------------------------------- */

static lt_status check_weights(const lt_call *c, const lt_network *n) {
  static const char *const names[] = {"w_ih", "w_hh", "b_ih", "b_hh"};
  char want[LT_SHAPE_TEXT], got[LT_SHAPE_TEXT];
  for (int64_t i = 0; i < lt_network_cells(n) * n->per_cell; i++) {
    const lt_tensor *w = n->weight[i];
    int64_t cell = i / n->per_cell, layer = cell / n->directions;
    lt_shape shape = lt_network_weight_shape(n, i);
    if (w->dtype == n->dtype && lt_shape_equal(&w->shape, &shape)) continue;
    return lt_fail(c->ctx, "%s: %s of layer %lld%s (weight %lld) must be %s %s, got %s %s",
                   c->op->name, names[i % n->per_cell], (long long)(layer + 1),
                   cell % n->directions ? ", backwards in time," : "", (long long)(i + 1),
                   lt_dtype_name(n->dtype), lt_shape_text(&shape, want),
                   lt_dtype_name((lt_dtype)w->dtype), lt_shape_text(&w->shape, got));
  }
  return LT_OK;
}

static lt_status check_count(const lt_call *c) {
  int64_t layers = lt_get_int(c->attrs, c->op, NUM_LAYERS);
  int64_t directions = lt_get_int(c->attrs, c->op, BIDIRECTIONAL) ? 2 : 1;
  bool bias = lt_get_int(c->attrs, c->op, BIAS);
  int given = c->inputs - 1 - states_of(c->op);
  if (layers < 1 || layers > LT_MAX_EDGES) {
    return lt_fail(c->ctx, "%s: num_layers must be at least 1, got %lld", c->op->name,
                   (long long)layers);
  }
  if (given == layers * directions * (bias ? 4 : 2)) return LT_OK;
  return lt_fail(
      c->ctx,
      "%s: num_layers = %lld, bidirectional = %s, bias = %s needs %lld weights (for each "
      "layer and direction w_ih, w_hh%s), got %d",
      c->op->name, (long long)layers, directions == 2 ? "true" : "false", bias ? "true" : "false",
      (long long)(layers * directions * (bias ? 4 : 2)), bias ? ", b_ih, b_hh" : "", given);
}

static lt_status recurrent_infer(lt_call *c) {
  const lt_tensor *x = c->in[X], *h0 = c->in[H0];
  int states = states_of(c->op);
  char want[LT_SHAPE_TEXT], got[LT_SHAPE_TEXT];
  LT_TRY(check_count(c));
  if (x->shape.ndim != 2 && x->shape.ndim != 3) {
    return lt_fail(
        c->ctx,
        "%s: x must be steps x batch x inputs (batch x steps x inputs with batch_first), "
        "or steps x inputs, got %s",
        c->op->name, lt_shape_text(&x->shape, got));
  }
  if (h0->shape.ndim != x->shape.ndim) {
    return lt_fail(c->ctx, "%s: h0 must be %s beside x of %s, got %s", c->op->name,
                   x->shape.ndim == 3 ? "cells x batch x hidden" : "cells x hidden",
                   lt_shape_text(&x->shape, want), lt_shape_text(&h0->shape, got));
  }
  lt_network n = describe_forward(c->ctx, c->op, c->attrs, c->inputs, c->in);
  if (n.steps == 0) {
    return lt_fail(c->ctx, "%s: x has no time steps (%s)", c->op->name,
                   lt_shape_text(&x->shape, got));
  }
  if (!(n.dropout >= 0 && n.dropout <= 1)) {
    return lt_fail(c->ctx, "%s: dropout must be in 0..1, got %g", c->op->name, n.dropout);
  }
  lt_shape state = state_shape(&n);
  for (int i = H0; i <= states; i++) {
    if (c->in[i]->dtype == x->dtype && lt_shape_equal(&c->in[i]->shape, &state)) continue;
    return lt_fail(c->ctx, "%s: %s must be %s %s, got %s %s", c->op->name, c->op->inputs[i].name,
                   lt_dtype_name(n.dtype), lt_shape_text(&state, want),
                   lt_dtype_name((lt_dtype)c->in[i]->dtype), lt_shape_text(&c->in[i]->shape, got));
  }
  LT_TRY(check_weights(c, &n));
  c->result[0] = (lt_spec){n.dtype, sequence_shape(&n, lt_network_width(&n))};
  for (int i = 1; i <= states; i++) c->result[i] = (lt_spec){n.dtype, state};
  c->result[1 + states] =
      (lt_spec){n.dtype, lt_shape_make(3, (int64_t[]){n.steps, n.batch, lt_network_kept(&n)})};
  c->outputs = 1 + states + c->recorded;
  return LT_OK;
}

/* ---- Forward -------------------------------------------------------------------------------- */

/* Takes fresh counters for the masks; `own` are the options with them. */
static void choose_masks(lt_network *n, const lt_op *op, const lt_attrs *attrs, lt_attrs *own) {
  lt_random *r = &n->ctx->random;
  n->seed = r->seed;
  n->counter = 0;
  n->counter = lt_random_take(r, lt_network_counter(n, n->layers - 1));
  *own = *attrs;
  lt_attrs_set_int(own, op, SEED, (int64_t)n->seed);
  lt_attrs_set_int(own, op, COUNTER, (int64_t)n->counter);
}

static lt_status recurrent_forward(lt_call *c) {
  lt_network n = describe_forward(c->ctx, c->op, c->attrs, c->inputs, c->in);
  if (n.dropout > 0 && !lt_given(c->attrs, COUNTER)) {
    choose_masks(&n, c->op, c->attrs, c->own);
    c->attrs = c->own;
  }
  return lt_network_forward(&n, c);
}

static lt_tensor **list_of(lt_scope *s, int64_t count) {
  lt_tensor **list = calloc((size_t)count, sizeof *list);
  if (!list && s->status == LT_OK) {
    s->status = lt_fail_memory(s->ctx, count * (long long)sizeof *list);
  }
  return list;
}

static lt_tensor *narrow(lt_scope *s, lt_tensor *t, int64_t start, int64_t length) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_narrow);
  lt_attrs_set_int(&attrs, &lt_op_narrow, 0, -1);
  lt_attrs_set_int(&attrs, &lt_op_narrow, 1, start);
  lt_attrs_set_int(&attrs, &lt_op_narrow, 2, length);
  return lt_do1(s, &lt_op_narrow, &attrs, t);
}

/* The part of the gradient of all weights that is weight i's. */
static lt_tensor *part_of(const lt_network *n, lt_scope *s, lt_tensor *all, int64_t i) {
  lt_shape shape = lt_network_weight_shape(n, i);
  lt_tensor *part = narrow(s, all, lt_network_weight_place(n, i), lt_shape_numel(&shape));
  return lt_reshape_to(s, part, &shape);
}

enum { WANTS_X = 1, WANTS_WEIGHTS = 2 };

static lt_attrs backward_attrs(const lt_vjp *v, const lt_network *n) {
  const lt_op *op = &lt_op_recurrent_backward;
  lt_attrs attrs;
  bool any_weight = false;
  for (int i = 1 + states_of(v->op); i < v->inputs; i++) any_weight = any_weight || v->need[i];
  lt_attrs_default(&attrs, op);
  lt_attrs_set_int(&attrs, op, NUM_LAYERS, n->layers);
  lt_attrs_set_int(&attrs, op, BIDIRECTIONAL, n->directions == 2);
  lt_attrs_set_int(&attrs, op, BATCH_FIRST, n->batch_first);
  lt_attrs_set_int(&attrs, op, CELL, n->cell);
  lt_attrs_set_number(&attrs, op, DROPOUT, n->dropout);
  lt_attrs_set_int(&attrs, op, WANTED,
                   (v->need[X] ? WANTS_X : 0) | (any_weight ? WANTS_WEIGHTS : 0));
  lt_attrs_set_int(&attrs, op, SEED, (int64_t)n->seed);
  lt_attrs_set_int(&attrs, op, COUNTER, (int64_t)n->counter);
  return attrs;
}

static void recurrent_vjp(lt_vjp *v) {
  int states = states_of(v->op), first = 1 + states, weights = v->inputs - first;
  lt_network n = describe_forward(v->ctx, v->op, v->attrs, v->inputs, v->in);
  lt_attrs attrs = backward_attrs(v, &n);
  lt_tensor **in = list_of(v->s, LT_RNN_OF_WEIGHTS + weights), *out[LT_MAX_OUTPUTS];
  if (!in) return;
  for (int i = 0; i < first; i++) {
    in[LT_RNN_DY + i] = v->dy[i];
    in[LT_RNN_OF_X + i] = v->in[i];
  }
  in[LT_RNN_OF_Y] = v->out[0];
  in[LT_RNN_OF_KEPT] = v->out[first];
  for (int i = 0; i < weights; i++) in[LT_RNN_OF_WEIGHTS + i] = v->in[first + i];
  lt_do_all(v->s, &lt_op_recurrent_backward, &attrs, LT_RNN_OF_WEIGHTS + weights, in, out);
  free(in);
  if (v->need[X]) lt_give(v, X, out[LT_RNN_DX]);
  if (v->need[H0]) lt_give(v, H0, out[LT_RNN_DH0]);
  if (states == 2 && v->need[C0]) lt_give(v, C0, out[LT_RNN_DC0]);
  for (int i = 0; i < weights; i++) {
    if (v->need[first + i]) lt_give(v, first + i, part_of(&n, v->s, out[LT_RNN_DWEIGHTS], i));
  }
}

/* ---- The network made of ops ---------------------------------------------------------------- */

static lt_tensor *at_dim0(lt_scope *s, lt_tensor *t, int64_t index) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_select);
  lt_attrs_set_int(&attrs, &lt_op_select, 0, 0);
  lt_attrs_set_int(&attrs, &lt_op_select, 1, index);
  return lt_do1(s, &lt_op_select, &attrs, t);
}

static lt_tensor *cat(lt_scope *s, int dim, int64_t count, lt_tensor *const *t) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_cat);
  lt_attrs_set_int(&attrs, &lt_op_cat, 0, dim);
  return lt_do(s, &lt_op_cat, &attrs, (int)count, t);
}

static lt_tensor *linear(lt_scope *s, lt_tensor *x, lt_tensor *w, lt_tensor *bias) {
  return lt_do(s, &lt_op_linear, NULL, 3, (lt_tensor *[]){x, w, bias});
}

static lt_tensor *swapped(lt_scope *s, lt_tensor *t) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_transpose);
  lt_attrs_set_int(&attrs, &lt_op_transpose, 0, 0);
  lt_attrs_set_int(&attrs, &lt_op_transpose, 1, 1);
  return lt_do1(s, &lt_op_transpose, &attrs, t);
}

/* x of batch_first with time in front, and the other way round. */
static lt_tensor *turned(const lt_network *n, lt_scope *s, lt_tensor *t) {
  return n->batch_first ? swapped(s, t) : t;
}

static lt_tensor *gate(const lt_network *n, lt_scope *s, const lt_op *op, lt_tensor *z,
                       int number) {
  return lt_do1(s, op, NULL, narrow(s, z, number * n->hidden, n->hidden));
}

/* A time step: x w_ih + b_ih is given, state[0] h and state[1] c are replaced. */
static void compose_step(const lt_network *n, lt_scope *s, lt_tensor *input, lt_tensor *w_hh,
                         lt_tensor *b_hh, lt_tensor *state[2]) {
  const lt_op *sigmoid = &lt_op_sigmoid, *tanh = &lt_op_tanh;
  lt_tensor *last = linear(s, state[0], w_hh, b_hh), *z = lt_add(s, input, last);
  if (n->cell == LT_LSTM) {
    lt_tensor *i = gate(n, s, sigmoid, z, 0), *f = gate(n, s, sigmoid, z, 1);
    lt_tensor *g = gate(n, s, tanh, z, 2), *o = gate(n, s, sigmoid, z, 3);
    state[1] = lt_add(s, lt_mul(s, f, state[1]), lt_mul(s, i, g));
    state[0] = lt_mul(s, o, lt_do1(s, tanh, NULL, state[1]));
  } else if (n->cell == LT_GRU) {
    int64_t width = n->hidden;
    lt_tensor *r = gate(n, s, sigmoid, z, 0), *keep = gate(n, s, sigmoid, z, 1);
    lt_tensor *reset = lt_mul(s, r, narrow(s, last, 2 * width, width));
    lt_tensor *new = lt_do1(s, tanh, NULL, lt_add(s, narrow(s, input, 2 * width, width), reset));
    state[0] = lt_add(s, new, lt_mul(s, keep, lt_sub(s, state[0], new)));
  } else {
    state[0] = lt_do1(s, n->cell == LT_RNN_TANH ? tanh : &lt_op_relu, NULL, z);
  }
}

/* A cell over all steps: returns its output, steps x batch x hidden, and leaves the last states.
 * `each` has room for a tensor per step. */
static lt_tensor *compose_cell(const lt_network *n, lt_scope *s, int64_t cell, lt_tensor *x,
                               lt_tensor *state[2], lt_tensor **each) {
  lt_tensor *const *w = n->weight + cell * n->per_cell;
  bool bias = n->per_cell == 4;
  lt_order o = lt_network_order(n, cell);
  lt_shape row = lt_shape_make(3, (int64_t[]){1, n->batch, n->hidden});
  lt_tensor *input = linear(s, x, w[LT_W_IH], bias ? w[LT_B_IH] : NULL);
  for (int64_t k = 0, t = o.first; k < n->steps; k++, t += o.by) {
    compose_step(n, s, at_dim0(s, input, t), w[LT_W_HH], bias ? w[LT_B_HH] : NULL, state);
    each[t] = lt_reshape_to(s, state[0], &row);
  }
  return cat(s, 0, n->steps, each);
}

/* The mask is one tensor by itself: under vmap all samples share it. */
static lt_tensor *dropped(const lt_network *n, lt_scope *s, int64_t layer, lt_tensor *x) {
  if (n->dropout == 0) return x;
  const lt_op *op = &lt_op_dropout;
  lt_spec ones = {n->dtype, lt_shape_make(3, (int64_t[]){n->steps, n->batch, lt_network_width(n)})};
  lt_attrs attrs;
  lt_attrs_default(&attrs, op);
  lt_attrs_set_number(&attrs, op, lt_op_option_index(op, "p"), n->dropout);
  lt_attrs_set_int(&attrs, op, lt_op_option_index(op, "seed"), (int64_t)n->seed);
  lt_attrs_set_int(&attrs, op, lt_op_option_index(op, "counter"),
                   (int64_t)lt_network_counter(n, layer));
  return lt_mul(s, x, lt_do1(s, op, &attrs, lt_full_like(s, &ones, 1)));
}

/* `in` is x, h0 and, of lstm, c0; `out` y and the last states. `room` is for one tensor per step
 * and two per cell. */
static void compose_network(const lt_network *n, lt_scope *s, lt_tensor *const *in, lt_tensor **out,
                            lt_tensor **room) {
  int64_t cells = lt_network_cells(n);
  lt_shape sequence = lt_shape_make(3, (int64_t[]){n->steps, n->batch, n->inputs});
  lt_shape states = lt_shape_make(3, (int64_t[]){cells, n->batch, n->hidden});
  lt_shape state = lt_shape_make(3, (int64_t[]){1, n->batch, n->hidden});
  lt_shape seen = sequence_shape(n, lt_network_width(n)), seen_state = state_shape(n);
  lt_tensor *x = lt_reshape_to(s, turned(n, s, in[X]), &sequence);
  lt_tensor **last = room + n->steps;
  int count = lt_network_states(n);
  for (int64_t cell = 0, layer = 0; layer < n->layers; layer++) {
    lt_tensor *half[2];
    for (int64_t d = 0; d < n->directions; d++, cell++) {
      lt_tensor *now[2] = {NULL, NULL};
      for (int i = 0; i < count; i++) {
        now[i] = at_dim0(s, lt_reshape_to(s, in[H0 + i], &states), cell);
      }
      half[d] = compose_cell(n, s, cell, x, now, room);
      for (int i = 0; i < count; i++) last[i * cells + cell] = lt_reshape_to(s, now[i], &state);
    }
    x = cat(s, 2, n->directions, half);
    if (layer < n->layers - 1) x = dropped(n, s, layer, x);
  }
  out[0] = lt_reshape_to(s, turned(n, s, x), &seen);
  for (int i = 0; i < count; i++) {
    out[1 + i] = lt_reshape_to(s, cat(s, 0, cells, last + i * cells), &seen_state);
  }
}

/* ---- Batches of samples --------------------------------------------------------------------- */

/* All samples of an input as one with a larger batch. Behind the samples a sequence of batch_first
 * (`leads`) has its batch; others have time or cells, then the batch, if there is one. */
static lt_tensor *merged(lt_batch *b, int i, bool leads) {
  lt_tensor *t = b->in[i] ? lt_batch_in(b, i) : NULL;
  if (!t) return NULL;
  const int64_t *size = b->in[i]->shape.size;
  bool batched = b->in[i]->shape.ndim == 3;
  int64_t batch = !batched ? 1 : leads ? size[0] : size[1], width = size[batched ? 2 : 1];
  int64_t time = leads ? size[1] : size[0], all = b->size * batch;
  lt_shape shape = leads ? (lt_shape){3, {all, time, width}} : (lt_shape){3, {time, all, width}};
  return lt_reshape_to(b->s, leads ? t : swapped(b->s, t), &shape);
}

/* And back: result k, of which the samples have the shape that the op says. */
static lt_tensor *parted(lt_batch *b, int k, bool leads) {
  const lt_shape *sample = &b->result[k].shape;
  lt_shape all = lt_batch_shape(b, sample);
  lt_tensor *t = b->out[k];
  if (sample->ndim == 1) return lt_expand_to(b->s, t, &all); /* not wanted: empty */
  if (leads) return lt_reshape_to(b->s, t, &all);
  lt_shape split = {sample->ndim + 1, {sample->size[0], b->size}};
  for (int d = 1; d < sample->ndim; d++) split.size[d + 1] = sample->size[d];
  return swapped(b->s, lt_reshape_to(b->s, t, &split));
}

static bool shares_weights(const lt_batch *b, int first) {
  for (int i = first; i < b->inputs; i++) {
    if (b->over[i]) return false;
  }
  return true;
}

/* Samples that share the weights (inputs from `weights` on) are one larger batch. Bits say which
 * inputs and results are sequences. */
static void run_merged(lt_batch *b, const lt_network *n, int weights, uint32_t sequences,
                       uint32_t results) {
  lt_tensor **in = list_of(b->s, b->inputs);
  if (!in) return;
  lt_attrs attrs = *b->attrs;
  lt_attrs_set_int(&attrs, b->op, BATCH_FIRST, n->batch_first);
  for (int i = 0; i < b->inputs; i++) {
    in[i] = i < weights ? merged(b, i, n->batch_first && (sequences >> i & 1)) : b->in[i];
  }
  lt_batch_run(b, &attrs, in);
  free(in);
  for (int k = 0; k < b->outputs; k++) {
    b->out[k] = parted(b, k, n->batch_first && (results >> k & 1));
  }
}

/* With dropout all samples have the same masks, so that a gradient finds them however it runs. */
static void recurrent_batch(lt_batch *b) {
  int weights = 1 + states_of(b->op);
  lt_network n = describe_forward(b->ctx, b->op, b->attrs, b->inputs, b->in);
  if (n.dropout > 0 && !lt_given(b->attrs, COUNTER)) {
    choose_masks(&n, b->op, b->attrs, b->own);
    b->attrs = b->own;
  }
  if (n.dropout == 0 && shares_weights(b, weights))
    run_merged(b, &n, weights, 1u << X, 1u << 0);
  else
    lt_batch_each(b);
}

static void backward_batch(lt_batch *b) {
  lt_network n = describe_backward(b->ctx, b->op, b->attrs, b->inputs, b->in);
  bool each_weight = lt_get_int(b->attrs, b->op, WANTED) & WANTS_WEIGHTS;
  if (n.dropout > 0 || each_weight || !shares_weights(b, LT_RNN_OF_WEIGHTS)) {
    lt_batch_each(b);
    return;
  }
  run_merged(b, &n, LT_RNN_OF_WEIGHTS, 1u << LT_RNN_DY | 1u << LT_RNN_OF_X | 1u << LT_RNN_OF_Y,
             1u << LT_RNN_DX);
}

/* ---- recurrent_backward --------------------------------------------------------------------- */

static lt_status backward_infer(lt_call *c) {
  lt_network n = describe_backward(c->ctx, c->op, c->attrs, c->inputs, c->in);
  int64_t wanted = lt_get_int(c->attrs, c->op, WANTED);
  int64_t weights = lt_network_weight_place(&n, c->inputs - LT_RNN_OF_WEIGHTS);
  const lt_shape none = {1, {0}}, all = {1, {weights}};
  c->result[LT_RNN_DX] = (lt_spec){n.dtype, wanted & WANTS_X ? c->in[LT_RNN_OF_X]->shape : none};
  c->result[LT_RNN_DH0] = (lt_spec){n.dtype, c->in[LT_RNN_OF_H0]->shape};
  c->result[LT_RNN_DWEIGHTS] = (lt_spec){n.dtype, wanted & WANTS_WEIGHTS ? all : none};
  c->result[LT_RNN_DC0] = c->result[LT_RNN_DH0];
  c->outputs = n.cell == LT_LSTM ? 4 : 3;
  return LT_OK;
}

static lt_status backward_forward(lt_call *c) {
  lt_network n = describe_backward(c->ctx, c->op, c->attrs, c->inputs, c->in);
  int64_t wanted = lt_get_int(c->attrs, c->op, WANTED);
  return lt_network_backward(&n, c, wanted & WANTS_X, wanted & WANTS_WEIGHTS);
}

/* The values that the gradient is a function of: x, h0 (c0), the weights; dy, dh_n (dc_n). */
typedef struct arguments {
  int states, weights, sources, all;
  int *input;       /* which input of the op each is */
  lt_tensor **t;    /* new values that stand for them */
  lt_tensor **room; /* of compose_network; behind it of three lists as long as t */
} arguments;

/* A new value equal to t: two inputs that are one value get gradients of their own. */
static lt_tensor *alias(lt_scope *s, lt_tensor *t) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_expand);
  lt_attrs_set_list(&attrs, &lt_op_expand, 0, t->shape.ndim, t->shape.size);
  return lt_do1(s, &lt_op_expand, &attrs, t);
}

static bool open_arguments(lt_vjp *v, const lt_network *n, arguments *a) {
  a->states = lt_network_states(n);
  a->weights = v->inputs - LT_RNN_OF_WEIGHTS;
  a->sources = 1 + a->states + a->weights;
  a->all = a->sources + 1 + a->states;
  a->input = malloc((size_t)a->all * sizeof *a->input);
  a->t = list_of(v->s, a->all);
  a->room = list_of(v->s, n->steps + 2 * lt_network_cells(n) + 3 * a->all);
  if (!a->input || !a->t || !a->room) {
    if (v->s->status == LT_OK) v->s->status = lt_fail_memory(v->ctx, a->all);
    return false;
  }
  int k = 0;
  for (int i = 0; i <= a->states; i++) a->input[k++] = LT_RNN_OF_X + i;
  for (int i = 0; i < a->weights; i++) a->input[k++] = LT_RNN_OF_WEIGHTS + i;
  for (int i = 0; i <= a->states; i++) a->input[k++] = LT_RNN_DY + i;
  for (k = 0; k < a->all; k++) a->t[k] = alias(v->s, v->in[a->input[k]]);
  return v->s->status == LT_OK;
}

static lt_status open_tape(lt_context *ctx, int count, lt_tensor *const *t, lt_tape **tape) {
  LT_TRY(lt_tape_new(ctx, false, false, tape));
  for (int i = 0; i < count; i++) LT_TRY(lt_tape_watch(*tape, t[i]));
  return LT_OK;
}

/* Hands gradients over to the scope. */
static void keep_all(lt_scope *s, int count, lt_tensor **gradients) {
  for (int i = 0; i < count; i++) {
    if (gradients[i]) gradients[i] = lt_keep(s, gradients[i]);
  }
}

/* The gradient of the network made of ops, on a tape of its own. */
static lt_status composed_gradient(lt_vjp *v, lt_network *n, arguments *a, lt_tensor **gradients) {
  lt_tape *tape = NULL;
  lt_tensor *out[3] = {NULL, NULL, NULL};
  lt_status status = open_tape(v->ctx, a->sources, a->t, &tape);
  n->weight = a->t + 1 + a->states;
  if (status == LT_OK) {
    compose_network(n, v->s, a->t, out, a->room);
    status = v->s->status;
  }
  if (status == LT_OK) {
    status =
        lt_tape_gradient(tape, 1 + a->states, out, a->t + a->sources, a->sources, a->t, gradients);
  }
  if (status == LT_OK) keep_all(v->s, a->sources, gradients);
  if (tape) lt_tape_release(tape);
  return status;
}

/* Beside each gradient what the rule has for it. Drops those that do not count. */
static int pair_targets(lt_vjp *v, const lt_network *n, const arguments *a, lt_tensor **gradients,
                        lt_tensor **seeds) {
  int64_t wanted = lt_get_int(v->attrs, v->op, WANTED);
  int count = 0;
  for (int k = 0; k < a->sources; k++) {
    lt_tensor *seed;
    if (!gradients[k] || (k == X && !(wanted & WANTS_X))) continue;
    if (k > a->states && !(wanted & WANTS_WEIGHTS)) continue;
    if (k > a->states)
      seed = part_of(n, v->s, v->dy[LT_RNN_DWEIGHTS], k - 1 - a->states);
    else
      seed = v->dy[k == X ? LT_RNN_DX : k == H0 ? LT_RNN_DH0 : LT_RNN_DC0];
    gradients[count] = gradients[k];
    seeds[count++] = seed;
  }
  return count;
}

/* An outer tape sees how the gradient of the composed network comes about, and differentiates it;
 * tapes of the user see both. */
static lt_status composed_twice(lt_vjp *v, lt_network *n, arguments *a) {
  lt_tape *tape = NULL;
  lt_tensor **gradients = a->room + n->steps + 2 * lt_network_cells(n),
            **seeds = gradients + a->all;
  lt_status status = open_tape(v->ctx, a->all, a->t, &tape);
  if (status == LT_OK) status = composed_gradient(v, n, a, gradients);
  int targets = status == LT_OK ? pair_targets(v, n, a, gradients, seeds) : 0;
  if (status == LT_OK) status = v->s->status;
  if (status == LT_OK) {
    lt_tensor **results = seeds + a->all;
    status = lt_tape_gradient(tape, targets, gradients, seeds, a->all, a->t, results);
    if (status == LT_OK) keep_all(v->s, a->all, results);
    for (int k = 0; k < a->all && status == LT_OK; k++) {
      if (v->need[a->input[k]]) lt_give(v, a->input[k], results[k]);
    }
  }
  if (tape) lt_tape_release(tape);
  return status;
}

static void backward_vjp(lt_vjp *v) {
  lt_network n = describe_backward(v->ctx, v->op, v->attrs, v->inputs, v->in);
  arguments a;
  if (open_arguments(v, &n, &a)) {
    lt_status status = composed_twice(v, &n, &a);
    if (v->s->status == LT_OK) v->s->status = status;
  }
  free(a.input);
  free(a.t);
  free(a.room);
}

const lt_op lt_op_recurrent_backward = {
    .name = "recurrent_backward",
    .doc = "The gradients of rnn_tanh, rnn_relu, gru and lstm: dx, dh0, those of all weights one "
           "behind the other, dc0. `kept` is their hidden result.",
    .inputs = {{"dy", LT_FLOAT},
               {"dh_n", LT_FLOAT},
               {"dc_n", LT_FLOAT, .optional = true},
               {"x", LT_FLOAT},
               {"h0", LT_FLOAT},
               {"c0", LT_FLOAT, .optional = true},
               {"y", LT_FLOAT},
               {"kept", LT_FLOAT},
               {"weights", LT_FLOAT, .list = true}},
    .options = {{"num_layers", LT_OPTION_INT, .value = 1},
                {"bidirectional", LT_OPTION_BOOL},
                {"batch_first", LT_OPTION_BOOL},
                {"cell", LT_OPTION_INT},
                {"dropout", LT_OPTION_NUMBER},
                {"wanted", LT_OPTION_INT},
                {"seed", LT_OPTION_INT},
                {"counter", LT_OPTION_INT}},
    .infer = backward_infer,
    .forward = backward_forward,
    .vjp = backward_vjp,
    .batch = backward_batch,
    .saves = LT_IN(LT_RNN_DY) | LT_IN(LT_RNN_DH_N) | LT_IN(LT_RNN_DC_N) | LT_IN(LT_RNN_OF_X) |
             LT_IN(LT_RNN_OF_H0) | LT_IN(LT_RNN_OF_C0) | LT_IN(LT_RNN_OF_WEIGHTS),
    .results = 4,
    .internal = true,
};

/* ---- The ops -------------------------------------------------------------------------------- */

#define RECURRENT_DOC                                                                              \
  " x is steps x batch x inputs, batch x steps x inputs with batch_first, or steps x inputs; h0 "  \
  "holds the first state of each layer and direction, cells x batch x hidden (cells x hidden). "   \
  "weights are, for each layer and in it each direction, w_ih, w_hh and with bias b_ih, b_hh: "    \
  "gates * hidden x inputs, gates * hidden x hidden, gates * hidden, gates * hidden; upper "       \
  "layers "                                                                                        \
  "take in the outputs of all directions. The second direction of bidirectional reads the "        \
  "sequence from its end. Between layers dropout applies while train is true; seed and counter "   \
  "name the part of a random stream that its masks come from. Returns the output of the last "     \
  "layer for every step, steps x batch x directions * hidden, and the last state of each cell. "   \
  "As torch."

#define RECURRENT_OPTIONS                                                                          \
  {                                                                                                \
    {"num_layers", LT_OPTION_INT, .value = 1}, {"bidirectional", LT_OPTION_BOOL},                  \
        {"batch_first", LT_OPTION_BOOL}, {"bias", LT_OPTION_BOOL, .value = 1},                     \
        {"dropout", LT_OPTION_NUMBER}, {"train", LT_OPTION_BOOL, .value = 1},                      \
        {"seed", LT_OPTION_INT}, {                                                                 \
      "counter", LT_OPTION_INT                                                                     \
    }                                                                                              \
  }

/* Ops with one state: inputs and saved tensors are the same. */
#define ONE_STATE                                                                                  \
  .inputs = {{"x", LT_FLOAT}, {"h0", LT_FLOAT}, {"weights", LT_FLOAT, .list = true}},              \
  .options = RECURRENT_OPTIONS, .infer = recurrent_infer, .forward = recurrent_forward,            \
  .vjp = recurrent_vjp, .batch = recurrent_batch,                                                  \
  .saves = LT_IN(0) | LT_IN(1) | LT_IN(2) | LT_OUT(0) | LT_OUT(2), .results = 3, .hidden = 1,      \
  .function = true

const lt_op lt_op_rnn_tanh = {
    .name = "rnn_tanh",
    .doc = "Elman network: h = tanh(w_ih x + b_ih + w_hh h' + b_hh), h' being the state before "
           "(Elman 1990, Cognitive Science 14)." RECURRENT_DOC "rnn_tanh.",
    ONE_STATE,
    .sample = {"normal(4, 2, 3), normal(1, 2, 2), {normal(2, 3), normal(2, 2), normal(2), "
               "normal(2)}",
               "normal(2, 3, 2), normal(4, 2, 2), {normal(2, 2), normal(2, 2), normal(2, 2), "
               "normal(2, 2), normal(2, 4), normal(2, 2), normal(2, 4), transposed(2, 2)}, "
               "{num_layers = 2, bidirectional = true, batch_first = true, bias = false}"},
};

const lt_op lt_op_rnn_relu = {
    .name = "rnn_relu",
    .doc =
        "Elman network with rectified units: h = max(w_ih x + b_ih + w_hh h' + b_hh, 0), h' being "
        "the state before." RECURRENT_DOC "rnn_relu.",
    ONE_STATE,
    .sample = {"normal(4, 2, 3), normal(1, 2, 2), {normal(2, 3), normal(2, 2), normal(2), "
               "normal(2)}",
               "normal(3, 2), normal(2, 3), {normal(3, 2), normal(3, 3), normal(3), normal(3), "
               "normal(3, 2), normal(3, 3), normal(3), normal(3)}, {bidirectional = true}"},
};

const lt_op lt_op_gru = {
    .name = "gru",
    .doc =
        "Gated recurrent units: r = sigmoid(w_ir x + b_ir + w_hr h' + b_hr), z = sigmoid(w_iz x + "
        "b_iz + w_hz h' + b_hz), n = tanh(w_in x + b_in + r (w_hn h' + b_hn)), h = (1 - z) n + "
        "z h', h' being the state before; the rows of the weights are those of r, z, n (Cho et "
        "al. 2014, arXiv 1406.1078, with the reset after the product)." RECURRENT_DOC "gru.",
    ONE_STATE,
    .sample = {"normal(4, 2, 3), normal(1, 2, 2), {normal(6, 3), normal(6, 2), normal(6), "
               "normal(6)}",
               "normal(2, 3, 2), normal(2, 2, 2), {normal(6, 2), normal(6, 2), normal(6, 2), "
               "transposed(6, 2)}, {num_layers = 2, batch_first = true, bias = false, dropout = "
               "0.4, seed = 3, counter = 0}",
               "normal(3, 2), normal(2, 2), {normal(6, 2), normal(6, 2), normal(6, 2), "
               "normal(6, 2)}, {bidirectional = true, bias = false}"},
};

const lt_op lt_op_lstm = {
    .name = "lstm",
    .doc =
        "Long short-term memory: i, f, o = sigmoid(w_i x + b_i + w_h h' + b_h), g = tanh of its "
        "own such sum, c = f c' + i g, h = o tanh(c), h' and c' being the states before; the rows "
        "of the weights are those of i, f, g, o (Hochreiter & Schmidhuber 1997, Neural "
        "Computation 9; forget gate: Gers et al. 2000). c0 is like h0, and the last c is "
        "returned, too." RECURRENT_DOC "lstm.",
    .inputs = {{"x", LT_FLOAT},
               {"h0", LT_FLOAT},
               {"c0", LT_FLOAT},
               {"weights", LT_FLOAT, .list = true}},
    .options = RECURRENT_OPTIONS,
    .infer = recurrent_infer,
    .forward = recurrent_forward,
    .vjp = recurrent_vjp,
    .batch = recurrent_batch,
    .saves = LT_IN(0) | LT_IN(1) | LT_IN(2) | LT_IN(3) | LT_OUT(0) | LT_OUT(3),
    .results = 4,
    .hidden = 1,
    .function = true,
    .sample = {"normal(4, 2, 3), normal(1, 2, 2), normal(1, 2, 2), {normal(8, 3), normal(8, 2), "
               "normal(8), normal(8)}",
               "normal(2, 3, 2), normal(2, 2, 2), normal(2, 2, 2), {normal(8, 2), normal(8, 2), "
               "normal(8), normal(8), normal(8, 2), normal(8, 2), normal(8), normal(8)}, "
               "{bidirectional = true, batch_first = true}",
               "normal(3, 2), normal(2, 2), normal(2, 2), {normal(8, 2), normal(8, 2), "
               "normal(8, 2), transposed(8, 2)}, {num_layers = 2, bias = false, dropout = 0.4, "
               "seed = 3, counter = 0}"},
};

LT_FAMILY(recurrent, &lt_op_rnn_tanh, &lt_op_rnn_relu, &lt_op_gru, &lt_op_lstm,
          &lt_op_recurrent_backward)
