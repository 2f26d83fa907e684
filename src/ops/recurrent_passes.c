/* The passes over a recurrent network. Forward, per cell: a product with the input for many steps
 * at once, and for each step a product with the state and a pass over the gates. Backward the same
 * way, then one product over all steps for each weight. Inside, time always comes before the
 * batch. */
#include "core/context.h"
#include "core/random.h"
#include "kernels/copy.h"
#include "kernels/gemm.h"
#include "kernels/reduce.h"
#include "ops/recurrent.h"

#include <string.h>

/* ---- Memory --------------------------------------------------------------------------------- */

static lt_tensor *hold(lt_network *n, lt_tensor *t) { return n->own[n->owned++] = t; }

static void let_go(lt_network *n, int down_to) {
  while (n->owned > down_to) lt_tensor_release(n->own[--n->owned]);
}

static lt_status matrix(lt_network *n, int64_t rows, int64_t width, lt_rows *m) {
  lt_tensor *t;
  lt_shape shape = lt_shape_make(2, (int64_t[]){rows, width});
  LT_TRY(lt_tensor_new(n->ctx, n->name, n->dtype, &shape, &t));
  *m = (lt_rows){hold(n, t)->data, width};
  return LT_OK;
}

static lt_status contiguous(lt_network *n, lt_tensor *t, const char **data) {
  lt_tensor *own;
  LT_TRY(lt_tensor_contiguous(t, &own));
  *data = hold(n, own)->data;
  return LT_OK;
}

static lt_status weight(lt_network *n, int64_t cell, int which, const char **data) {
  return contiguous(n, n->weight[cell * n->per_cell + which], data);
}

/* A sequence that the user sees, as rows of time steps, those of samples in each. */
static lt_status time_major(lt_network *n, lt_tensor *t, lt_rows *m) {
  const char *data;
  int last = t->shape.ndim - 1;
  if (n->batch_first) {
    lt_tensor *turned;
    lt_shape shape = lt_shape_make(3, (int64_t[]){n->steps, n->batch, t->shape.size[last]});
    const int64_t strides[] = {t->strides[1], t->strides[0], t->strides[2]};
    LT_TRY(lt_tensor_view(t, 0, &shape, strides, &turned));
    t = hold(n, turned);
  }
  LT_TRY(contiguous(n, t, &data));
  *m = (lt_rows){(char *)(uintptr_t)data, t->shape.size[last]};
  return LT_OK;
}

static lt_rows at(const lt_network *n, lt_rows m, int64_t row, int64_t column) {
  return (lt_rows){m.data + (row * m.step + column) * lt_dtype_size(n->dtype), m.step};
}

static void copy(const lt_network *n, int64_t rows, int64_t width, lt_rows to, lt_rows from) {
  lt_shape shape = lt_shape_make(2, (int64_t[]){rows, width});
  lt_copy(&shape, n->dtype, to.data, (int64_t[]){to.step, 1}, n->dtype, from.data,
          (int64_t[]){from.step, 1});
}

/* Into the contiguous memory of a sequence that the user sees. */
static void copy_back(const lt_network *n, int64_t width, char *to, lt_rows from) {
  lt_shape shape = lt_shape_make(3, (int64_t[]){n->batch, n->steps, width});
  lt_copy(&shape, n->dtype, to, (int64_t[]){n->steps * width, width, 1}, n->dtype, from.data,
          (int64_t[]){from.step, n->batch * from.step, 1});
}

/* ---- Products ------------------------------------------------------------------------------- */

typedef struct product {
  const lt_network *n;
  lt_gemm g;
  int threads;
} product;

/* Tasks are groups of rows of the result. */
static const int64_t GROUP = 512;

static void product_task(void *argument, int64_t first, int64_t last) {
  const product *p = argument;
  int64_t size = lt_dtype_size(p->n->dtype), end = last * GROUP;
  lt_gemm g = p->g;
  g.m = (end < g.m ? end : g.m) - first * GROUP;
  g.a = (const char *)g.a + first * GROUP * g.a_row * size;
  g.c = (char *)g.c + first * GROUP * g.c_row * size;
  (p->n->dtype == LT_FLOAT64 ? lt_gemm_f64 : lt_gemm_f32)(&g, p->n->ctx->simd, p->threads);
}

/* The product of a time step, or of all of them at once. */
static lt_status multiply(const lt_network *n, lt_gemm g) {
  double products = (double)g.m * (double)g.n * (double)g.k / 8; /* in the unit of lt_threads_for */
  int64_t work = (int64_t)(products < 0x1p60 ? products : 0x1p60);
  product p = {.n = n, .g = g, .threads = lt_threads_for(n->ctx, work)};
  int64_t groups = (g.m + GROUP - 1) / GROUP;
  if (groups <= 1) {
    product_task(&p, 0, 1);
    return LT_OK;
  }
  p.threads = 1;
  return lt_parallel(n->ctx, groups, work, product_task, &p);
}

/* ---- Forward -------------------------------------------------------------------------------- */

/* Multiplies a sequence by the dropout mask of the output of `layer`, the one that the op dropout
 * draws from the same counters. */
static void drop(const lt_network *n, int64_t layer, lt_rows to, lt_rows from) {
  int64_t width = lt_network_width(n), i = 0;
  uint64_t counter = lt_network_counter(n, layer);
  double scale = 1 / (1 - n->dropout);
  uint32_t words[4];
  for (int64_t row = 0; row < n->steps * n->batch; row++) {
    const void *a = at(n, from, row, 0).data;
    void *b = at(n, to, row, 0).data;
    for (int64_t j = 0; j < width; j++, i++) {
      if (i % 4 == 0) lt_philox(n->seed, counter++, words);
      double factor = lt_uniform32(words[i % 4]) >= (float)n->dropout ? scale : 0;
      if (n->dtype == LT_FLOAT64)
        ((double *)b)[j] = ((const double *)a)[j] * factor;
      else
        ((float *)b)[j] = ((const float *)a)[j] * (float)factor;
    }
  }
}

/* Where a cell keeps its gates in `reserve`; plain cells have their output for that. */
static lt_rows gates_in(const lt_network *n, lt_rows reserve, int64_t cell) {
  return at(n, reserve, 0, cell % n->slots * (n->gates + n->memory));
}

/* The output of a layer, for all steps: in `reserve`, but for the last where y has that form. */
static lt_rows output_in(const lt_network *n, lt_rows reserve, lt_rows y, int64_t layer) {
  if (layer == n->layers - 1 && !n->batch_first) return y;
  int64_t behind = n->memory ? n->slots * (n->gates + n->memory) : 0;
  return at(n, reserve, 0, behind + layer * lt_network_width(n));
}

/* What a layer takes in; with dropout a copy of the output below. */
static lt_status input_of(lt_network *n, lt_rows x, lt_rows reserve, lt_rows y, int64_t layer,
                          lt_rows *in) {
  if (layer == 0) {
    *in = x;
    return LT_OK;
  }
  lt_rows below = output_in(n, reserve, y, layer - 1);
  *in = below;
  if (n->dropout == 0) return LT_OK;
  LT_TRY(matrix(n, n->steps * n->batch, lt_network_width(n), in));
  drop(n, layer - 1, *in, below);
  return LT_OK;
}

/* A bias, or zeros where there is none. */
static lt_status bias_of(lt_network *n, int64_t cell, int which, const void **bias) {
  const char *data;
  lt_rows zeros;
  if (n->per_cell == 4) {
    LT_TRY(weight(n, cell, which, &data));
    *bias = data;
    return LT_OK;
  }
  LT_TRY(matrix(n, 1, n->gates, &zeros));
  memset(zeros.data, 0, (size_t)(n->gates * lt_dtype_size(n->dtype)));
  *bias = zeros.data;
  return LT_OK;
}

/* A weight (gates x width) as the right factor of a product, width x gates: turned once where
 * several steps use it. */
static lt_status factor(lt_network *n, int64_t cell, int which, int64_t width, lt_gemm *g) {
  const char *w;
  LT_TRY(weight(n, cell, which, &w));
  *g = (lt_gemm){.n = n->gates, .k = width, .a_col = 1, .b = w, .b_row = 1, .b_col = width};
  g->c_col = 1;
  if (n->steps < 4) return LT_OK;
  lt_rows turned;
  lt_shape shape = lt_shape_make(2, (int64_t[]){width, n->gates});
  LT_TRY(matrix(n, width, n->gates, &turned));
  lt_copy(&shape, n->dtype, turned.data, (int64_t[]){n->gates, 1}, n->dtype, w,
          (int64_t[]){1, width});
  g->b = turned.data;
  g->b_row = n->gates;
  g->b_col = 1;
  return LT_OK;
}

static lt_status apply(const lt_network *n, lt_gemm g, int64_t rows, lt_rows from, lt_rows to) {
  g.m = rows;
  g.a = from.data;
  g.a_row = from.step;
  g.c = to.data;
  g.c_row = to.step;
  return multiply(n, g);
}

/* Then steps do nothing, and may be very many. */
static bool is_empty(const lt_network *n) { return n->batch * n->hidden == 0; }

/* Rows whose sums are begun at once, by the product with the input, and still lie in the cache when
 * their step comes. */
static const int64_t AHEAD = 256;

/* One cell over all steps. `states`: h0 and c0, in rows of samples, and where the last ones go. */
static lt_status run_cell(lt_network *n, int64_t cell, lt_rows in, lt_rows out, lt_rows gates,
                          const lt_rows states[2], lt_rows *last) {
  int64_t batch = n->batch, ahead = batch > 0 ? (AHEAD + batch - 1) / batch : 1;
  lt_order o = lt_network_order(n, cell);
  lt_recurrent_step s = {.hidden = n->hidden, .last_h = states[0], .last_memory = states[1]};
  lt_rows memory = at(n, gates, 0, n->memory ? n->gates : 0);
  lt_gemm input, hidden;
  LT_TRY(factor(n, cell, LT_W_IH, lt_network_inputs(n, cell / n->directions), &input));
  LT_TRY(factor(n, cell, LT_W_HH, n->hidden, &hidden));
  LT_TRY(bias_of(n, cell, LT_B_IH, &s.bias));
  LT_TRY(bias_of(n, cell, LT_B_HH, &s.hidden_bias));
  if (n->cell == LT_GRU) LT_TRY(matrix(n, batch, n->gates, &s.product));
  hidden.accumulate = n->cell != LT_GRU;
  lt_task *pass = lt_recurrent_forward(n->cell, n->ctx->simd, n->dtype);
  for (int64_t k = 0, t = o.first; k < n->steps && !is_empty(n); k++, t += o.by) {
    LT_TRY(lt_check_interrupt(n->ctx));
    if (k % ahead == 0) {
      int64_t count = n->steps - k < ahead ? n->steps - k : ahead;
      int64_t row = (o.by > 0 ? t : t - count + 1) * batch;
      LT_TRY(apply(n, input, count * batch, at(n, in, row, 0), at(n, gates, row, 0)));
    }
    s.gates = at(n, gates, t * batch, 0);
    s.h = at(n, out, t * batch, 0);
    s.memory = at(n, memory, t * batch, 0);
    LT_TRY(apply(n, hidden, batch, s.last_h, n->cell == LT_GRU ? s.product : s.gates));
    LT_TRY(lt_parallel(n->ctx, batch, batch * n->gates * 4, pass, &s));
    s.last_h = s.h;
    s.last_memory = s.memory;
  }
  last[0] = s.last_h;
  last[1] = s.last_memory;
  return LT_OK;
}

/* The states of a cell in a tensor of those of all cells. */
static lt_rows state_of(const lt_network *n, const void *data, int64_t cell) {
  lt_rows all = {(char *)(uintptr_t)data, n->hidden};
  return at(n, all, cell * n->batch, 0);
}

static lt_status run_network(lt_network *n, lt_call *c) {
  const char *initial[2] = {NULL, NULL};
  lt_rows x, y, reserve;
  int states = lt_network_states(n);
  for (int i = 0; i < states; i++) LT_TRY(contiguous(n, c->in[LT_RNN_H0 + i], &initial[i]));
  LT_TRY(time_major(n, c->in[LT_RNN_X], &x));
  if (!c->recorded) n->slots = 1;
  if (c->recorded)
    reserve = (lt_rows){c->out[1 + states]->data, lt_network_kept(n)};
  else
    LT_TRY(matrix(n, n->steps * n->batch, lt_network_kept(n), &reserve));
  y = (lt_rows){c->out[0]->data, lt_network_width(n)};
  for (int64_t layer = 0; layer < n->layers; layer++) {
    int mark = n->owned;
    lt_rows in, out = output_in(n, reserve, y, layer);
    LT_TRY(input_of(n, x, reserve, y, layer, &in));
    for (int64_t d = 0; d < n->directions; d++) {
      int64_t cell = layer * n->directions + d;
      int inner = n->owned;
      lt_rows h = at(n, out, 0, d * n->hidden), start[2] = {{0}}, last[2];
      lt_rows gates = n->memory ? gates_in(n, reserve, cell) : h;
      for (int i = 0; i < states; i++) start[i] = state_of(n, initial[i], cell);
      LT_TRY(run_cell(n, cell, in, h, gates, start, last));
      for (int i = 0; i < states; i++) {
        copy(n, n->batch, n->hidden, state_of(n, c->out[1 + i]->data, cell), last[i]);
      }
      let_go(n, inner);
    }
    let_go(n, mark);
  }
  if (n->batch_first) {
    copy_back(n, lt_network_width(n), y.data, output_in(n, reserve, y, n->layers - 1));
  }
  return LT_OK;
}

/* ---- Backward ------------------------------------------------------------------------------- */

/* One cell on the way back. */
typedef struct backward {
  int64_t cell;
  lt_rows in, out, gates; /* of all steps, from the way there */
  lt_rows h0, c0;
  lt_rows dy;                /* of all steps */
  lt_rows dh, dc;            /* of the last state; become those of the first */
  lt_tensor *dinput, *dlast; /* results: gradients of the sums, as in lt_recurrent_step */
} backward;

static lt_rows rows_of(const lt_tensor *t) { return (lt_rows){t->data, t->shape.size[1]}; }

static lt_status walk_back(lt_network *n, backward *b) {
  lt_order o = lt_network_order(n, b->cell);
  int64_t batch = n->batch;
  lt_rows memory = at(n, b->gates, 0, n->memory ? n->gates : 0);
  lt_recurrent_step s = {.hidden = n->hidden, .dh = b->dh, .dc = b->dc};
  lt_task *pass = lt_recurrent_backward(n->cell, n->ctx->simd, n->dtype);
  const char *w_hh;
  LT_TRY(weight(n, b->cell, LT_W_HH, &w_hh));
  for (int64_t k = n->steps - 1; k >= 0 && !is_empty(n); k--) {
    int64_t t = o.first + k * o.by, before = (t - o.by) * batch;
    LT_TRY(lt_check_interrupt(n->ctx));
    s.gates = at(n, b->gates, t * batch, 0);
    s.memory = at(n, memory, t * batch, 0);
    s.last_h = k > 0 ? at(n, b->out, before, 0) : b->h0;
    s.last_memory = k > 0 ? at(n, memory, before, 0) : b->c0;
    s.dy = at(n, b->dy, t * batch, 0);
    s.dinput = at(n, rows_of(b->dinput), t * batch, 0);
    s.dlast = at(n, rows_of(b->dlast), t * batch, 0);
    LT_TRY(lt_parallel(n->ctx, batch, batch * n->gates * 2, pass, &s));
    LT_TRY(multiply(n, (lt_gemm){.m = batch,
                                 .n = n->hidden,
                                 .k = n->gates,
                                 .a = s.dlast.data,
                                 .a_row = s.dlast.step,
                                 .a_col = 1,
                                 .b = w_hh,
                                 .b_row = n->hidden,
                                 .b_col = 1,
                                 .c = s.dh.data,
                                 .c_row = s.dh.step,
                                 .c_col = 1,
                                 .accumulate = n->cell == LT_GRU}));
  }
  return LT_OK;
}

/* dW (gates x width) = [dW +] dz^T x, over `rows` rows of both. */
static lt_status weight_gradient(const lt_network *n, int64_t rows, lt_rows dz, lt_rows x,
                                 int64_t width, char *dw, bool accumulate) {
  return multiply(n, (lt_gemm){.m = n->gates,
                               .n = width,
                               .k = rows,
                               .a = dz.data,
                               .a_row = 1,
                               .a_col = dz.step,
                               .b = x.data,
                               .b_row = x.step,
                               .b_col = 1,
                               .c = dw,
                               .c_row = width,
                               .c_col = 1,
                               .accumulate = accumulate});
}

/* The sum of the rows of dz. */
static lt_status bias_gradient(lt_network *n, lt_tensor *dz, lt_tensor *dw, int64_t place) {
  const bool out[LT_MAX_RANK] = {true};
  lt_tensor *part;
  lt_shape shape = lt_shape_make(1, &n->gates);
  LT_TRY(lt_tensor_view(dw, place, &shape, (int64_t[]){1}, &part));
  hold(n, part);
  return lt_reduce(&lt_fold_sum, NULL, dz, out, 1, &part);
}

static lt_status give_weights(lt_network *n, const backward *b, lt_tensor *dw) {
  lt_order o = lt_network_order(n, b->cell);
  int64_t first = b->cell * n->per_cell, size = lt_dtype_size(n->dtype), batch = n->batch;
  int64_t inputs = lt_network_inputs(n, b->cell / n->directions);
  lt_rows dinput = rows_of(b->dinput), dlast = rows_of(b->dlast);
  char *dw_ih = dw->data + lt_network_weight_place(n, first) * size;
  char *dw_hh = dw->data + lt_network_weight_place(n, first + 1) * size;
  LT_TRY(weight_gradient(n, n->steps * batch, dinput, b->in, inputs, dw_ih, false));
  /* the first step by h0, all others by the output of the step before */
  LT_TRY(
      weight_gradient(n, batch, at(n, dlast, o.first * batch, 0), b->h0, n->hidden, dw_hh, false));
  if (n->steps > 1) {
    LT_TRY(weight_gradient(n, (n->steps - 1) * batch, at(n, dlast, o.by > 0 ? batch : 0, 0),
                           at(n, b->out, o.by > 0 ? 0 : batch, 0), n->hidden, dw_hh, true));
  }
  if (n->per_cell < 4) return LT_OK;
  int64_t b_ih = lt_network_weight_place(n, first + LT_B_IH), b_hh = b_ih + n->gates;
  LT_TRY(bias_gradient(n, b->dinput, dw, b_ih));
  if (b->dlast != b->dinput) return bias_gradient(n, b->dlast, dw, b_hh);
  memcpy(dw->data + b_hh * size, dw->data + b_ih * size, (size_t)(n->gates * size));
  return LT_OK;
}

static lt_status gradient_matrix(lt_network *n, lt_tensor **t) {
  lt_shape shape = lt_shape_make(2, (int64_t[]){n->steps * n->batch, n->gates});
  LT_TRY(lt_tensor_new(n->ctx, n->name, n->dtype, &shape, t));
  hold(n, *t);
  return LT_OK;
}

/* A cell, and its part of the gradient of what its layer takes in (no data: not wanted). */
static lt_status cell_back(lt_network *n, backward *b, lt_tensor *dw, lt_rows din) {
  int64_t inputs = lt_network_inputs(n, b->cell / n->directions);
  const char *w_ih;
  LT_TRY(gradient_matrix(n, &b->dinput));
  b->dlast = b->dinput;
  if (n->cell == LT_GRU) LT_TRY(gradient_matrix(n, &b->dlast));
  LT_TRY(walk_back(n, b));
  if (dw) LT_TRY(give_weights(n, b, dw));
  if (!din.data) return LT_OK;
  LT_TRY(weight(n, b->cell, LT_W_IH, &w_ih));
  return multiply(n, (lt_gemm){.m = n->steps * n->batch,
                               .n = inputs,
                               .k = n->gates,
                               .a = b->dinput->data,
                               .a_row = n->gates,
                               .a_col = 1,
                               .b = w_ih,
                               .b_row = inputs,
                               .b_col = 1,
                               .c = din.data,
                               .c_row = din.step,
                               .c_col = 1,
                               .accumulate = b->cell % n->directions == 1});
}

/* The states that a call takes and gives the gradients of: [0] h, [1] c. */
typedef struct states {
  const char *initial[2];
  char *gradient[2];
} states;

static lt_status open_states(lt_call *c, lt_network *n, states *s) {
  *s = (states){{NULL, NULL}, {NULL, NULL}};
  int64_t cells = lt_network_cells(n);
  for (int i = 0; i < lt_network_states(n); i++) {
    const char *dlast;
    LT_TRY(contiguous(n, c->in[LT_RNN_OF_H0 + i], &s->initial[i]));
    LT_TRY(contiguous(n, c->in[LT_RNN_DH_N + i], &dlast));
    s->gradient[i] = c->out[i == 0 ? LT_RNN_DH0 : LT_RNN_DC0]->data;
    memcpy(s->gradient[i], dlast, (size_t)(cells * n->batch * n->hidden * lt_dtype_size(n->dtype)));
  }
  return LT_OK;
}

static lt_status network_back(lt_network *n, lt_call *c, bool wants_x, bool wants_weights) {
  int64_t rows = n->steps * n->batch;
  lt_tensor *dw = wants_weights ? c->out[LT_RNN_DWEIGHTS] : NULL;
  states s;
  lt_rows x, dx = {0}, dy, y = {0}, reserve, between[2];
  const char *kept;
  LT_TRY(open_states(c, n, &s));
  LT_TRY(time_major(n, c->in[LT_RNN_OF_X], &x));
  LT_TRY(time_major(n, c->in[LT_RNN_DY], &dy));
  LT_TRY(contiguous(n, c->in[LT_RNN_OF_KEPT], &kept));
  reserve = (lt_rows){(char *)(uintptr_t)kept, lt_network_kept(n)};
  if (!n->batch_first) LT_TRY(time_major(n, c->in[LT_RNN_OF_Y], &y));
  if (wants_x && n->batch_first)
    LT_TRY(matrix(n, rows, n->inputs, &dx));
  else if (wants_x)
    dx = (lt_rows){c->out[LT_RNN_DX]->data, n->inputs};
  for (int i = 0; i < 2 && i < n->layers - 1; i++) {
    LT_TRY(matrix(n, rows, lt_network_width(n), &between[i]));
  }
  for (int64_t layer = n->layers - 1; layer >= 0; layer--) {
    int mark = n->owned;
    lt_rows in, out = output_in(n, reserve, y, layer);
    lt_rows din = layer == 0 ? dx : between[layer % 2 && n->layers > 2];
    LT_TRY(input_of(n, x, reserve, y, layer, &in));
    for (int64_t d = 0; d < n->directions; d++) {
      int inner = n->owned;
      int64_t cell = layer * n->directions + d;
      backward b = {.cell = cell, .in = in, .out = at(n, out, 0, d * n->hidden)};
      b.gates = n->memory ? gates_in(n, reserve, cell) : b.out;
      b.h0 = state_of(n, s.initial[0], cell);
      b.dh = state_of(n, s.gradient[0], cell);
      if (n->cell == LT_LSTM) {
        b.c0 = state_of(n, s.initial[1], cell);
        b.dc = state_of(n, s.gradient[1], cell);
      }
      b.dy = at(n, dy, 0, d * n->hidden);
      LT_TRY(cell_back(n, &b, dw, din));
      let_go(n, inner);
    }
    if (layer > 0 && n->dropout > 0) drop(n, layer - 1, din, din);
    let_go(n, mark);
    dy = din;
  }
  if (wants_x && n->batch_first) copy_back(n, n->inputs, c->out[LT_RNN_DX]->data, dx);
  return LT_OK;
}

lt_status lt_network_forward(lt_network *n, lt_call *c) {
  lt_status status = run_network(n, c);
  let_go(n, 0);
  return status;
}

lt_status lt_network_backward(lt_network *n, lt_call *c, bool wants_x, bool wants_weights) {
  lt_status status = network_back(n, c, wants_x, wants_weights);
  let_go(n, 0);
  return status;
}
