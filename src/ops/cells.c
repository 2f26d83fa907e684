/* Recurrent cells, for loops that the user writes: each is a network of one layer over a sequence
 * of one step, so that it takes few nodes and shares kernel and gradient with lstm and the others.
 */
#include "ops/family.h"
#include "ops/recurrent.h"
#include "tape/vjp.h"

typedef struct cell {
  const lt_op *network;
  int states, gates;
} cell;

static cell cell_of(const lt_op *op) {
  if (op == &lt_op_lstm_cell) return (cell){&lt_op_lstm, 2, 4};
  if (op == &lt_op_gru_cell) return (cell){&lt_op_gru, 1, 3};
  return (cell){op == &lt_op_rnn_relu_cell ? &lt_op_rnn_relu : &lt_op_rnn_tanh, 1, 1};
}

static lt_status check(const lt_call *c, int i, const lt_shape *shape) {
  const lt_tensor *t = c->in[i];
  char want[LT_SHAPE_TEXT], got[LT_SHAPE_TEXT];
  if (!t || (t->dtype == c->in[0]->dtype && lt_shape_equal(&t->shape, shape))) return LT_OK;
  return lt_fail(c->ctx, "%s: %s must be %s %s, got %s %s", c->op->name, c->op->inputs[i].name,
                 lt_dtype_name((lt_dtype)c->in[0]->dtype), lt_shape_text(shape, want),
                 lt_dtype_name((lt_dtype)t->dtype), lt_shape_text(&t->shape, got));
}

static lt_status cell_infer(lt_call *c) {
  cell k = cell_of(c->op);
  const lt_shape *x = &c->in[0]->shape, *h = &c->in[1]->shape;
  char left[LT_SHAPE_TEXT], right[LT_SHAPE_TEXT];
  if ((x->ndim != 1 && x->ndim != 2) || h->ndim != x->ndim ||
      (x->ndim == 2 && h->size[0] != x->size[0])) {
    return lt_fail(c->ctx,
                   "%s: x and h must be batch x inputs and batch x hidden, or inputs and hidden "
                   "(got %s and %s)",
                   c->op->name, lt_shape_text(x, left), lt_shape_text(h, right));
  }
  int64_t inputs = x->size[x->ndim - 1], hidden = h->size[h->ndim - 1], gates = k.gates * hidden;
  lt_shape w_ih = lt_shape_make(2, (int64_t[]){gates, inputs});
  lt_shape w_hh = lt_shape_make(2, (int64_t[]){gates, hidden}), bias = lt_shape_make(1, &gates);
  for (int i = 1; i <= k.states; i++) LT_TRY(check(c, i, h));
  LT_TRY(check(c, 1 + k.states + LT_W_IH, &w_ih));
  LT_TRY(check(c, 1 + k.states + LT_W_HH, &w_hh));
  LT_TRY(check(c, 1 + k.states + LT_B_IH, &bias));
  return check(c, 1 + k.states + LT_B_HH, &bias);
}

/* With a first dimension of 1: the one step of x, the one cell of a state. */
static lt_tensor *first_of_one(lt_scope *s, lt_tensor *t) {
  lt_shape shape = {.ndim = t->shape.ndim + 1, .size = {1}};
  for (int d = 0; d < t->shape.ndim; d++) shape.size[d + 1] = t->shape.size[d];
  return lt_reshape_to(s, t, &shape);
}

static void cell_compose(lt_call *c, lt_scope *s) {
  cell k = cell_of(c->op);
  lt_tensor *in[3 + 4], *out[LT_MAX_OUTPUTS], *const *weight = c->in + 1 + k.states;
  int count = 1 + k.states;
  bool bias = weight[LT_B_IH] || weight[LT_B_HH];
  lt_attrs attrs;
  lt_attrs_default(&attrs, k.network);
  lt_attrs_set_int(&attrs, k.network, lt_op_option_index(k.network, "bias"), bias);
  for (int i = 0; i < count; i++) in[i] = first_of_one(s, c->in[i]);
  for (int i = 0; i < (bias ? 4 : 2); i++) in[count++] = weight[i];
  for (int i = LT_B_IH; bias && i <= LT_B_HH;
       i++) { /* PyTorch's cells take one without the other */
    const lt_tensor *other = weight[LT_B_IH + LT_B_HH - i];
    if (weight[i]) continue;
    in[1 + k.states + i] = lt_full_like(s, &(lt_spec){(lt_dtype)other->dtype, other->shape}, 0);
  }
  lt_do_all(s, k.network, &attrs, count, in, out);
  for (int i = 0; i < k.states; i++) c->out[i] = lt_reshape_to(s, out[1 + i], &c->in[1]->shape);
  c->outputs = k.states;
}

#define CELL_DOC                                                                                   \
  " of x, batch x inputs, and of the state, batch x hidden, or both without the batch; returns "   \
  "the "                                                                                           \
  "new state. Weights as in the network; each bias may be left out."

#define ONE_STATE(GATES)                                                                           \
  .inputs = {{"x", LT_FLOAT},                                                                      \
             {"h", LT_FLOAT},                                                                      \
             {"w_ih", LT_FLOAT},                                                                   \
             {"w_hh", LT_FLOAT},                                                                   \
             {"b_ih", LT_FLOAT, .optional = true},                                                 \
             {"b_hh", LT_FLOAT, .optional = true}},                                                \
  .infer = cell_infer, .compose = cell_compose, .function = true,                                  \
  .sample = {"normal(2, 3), normal(2, 2), normal(" GATES ", 3), normal(" GATES ", 2), "            \
             "normal(" GATES "), normal(" GATES ")",                                               \
             "normal(3), normal(2), transposed(" GATES ", 3), normal(" GATES ", 2)"}

const lt_op lt_op_rnn_tanh_cell = {
    .name = "rnn_tanh_cell", .doc = "One step of rnn_tanh," CELL_DOC, ONE_STATE("2")};

const lt_op lt_op_rnn_relu_cell = {
    .name = "rnn_relu_cell", .doc = "One step of rnn_relu," CELL_DOC, ONE_STATE("2")};

const lt_op lt_op_gru_cell = {
    .name = "gru_cell", .doc = "One step of gru," CELL_DOC, ONE_STATE("6")};

const lt_op lt_op_lstm_cell = {
    .name = "lstm_cell",
    .doc = "One step of lstm," CELL_DOC " The state is h and c.",
    .inputs = {{"x", LT_FLOAT},
               {"h", LT_FLOAT},
               {"c", LT_FLOAT},
               {"w_ih", LT_FLOAT},
               {"w_hh", LT_FLOAT},
               {"b_ih", LT_FLOAT, .optional = true},
               {"b_hh", LT_FLOAT, .optional = true}},
    .infer = cell_infer,
    .compose = cell_compose,
    .results = 2,
    .function = true,
    .sample = {"normal(2, 3), normal(2, 2), normal(2, 2), normal(8, 3), normal(8, 2), normal(8), "
               "normal(8)",
               "normal(3), normal(2), normal(2), normal(8, 3), transposed(8, 2)"},
};

LT_FAMILY(cells, &lt_op_rnn_tanh_cell, &lt_op_rnn_relu_cell, &lt_op_gru_cell, &lt_op_lstm_cell)
