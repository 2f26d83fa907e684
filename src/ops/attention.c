/* scaled_dot_product_attention. Forward and first gradient run by tiles (kernels/attention.h) and
 * keep one number for each query; gradients of masks, and of gradients, are made of ops on the
 * L x S matrix of weights. */
#include "ops/attention.h"
#include "core/context.h"
#include "kernels/attention.h"
#include "kernels/parallel.h"
#include "ops/family.h"
#include "tape/vmap.h"

#include <math.h>
#include <string.h>

enum { Q, K, V, MASK };
enum { SLOTS = 64 }; /* parts of the work, each with a scratch of its own */

/* ---- Sizes -------------------------------------------------------------------------------------
 */

/* batch x L x E by batch x S x E, batch x S x Ev. */
typedef struct sizes {
  lt_shape batch;
  int64_t l, s, e, ev;
} sizes;

static lt_shape with_last(lt_shape batch, int64_t rows, int64_t columns) {
  batch.size[batch.ndim++] = rows;
  batch.size[batch.ndim++] = columns;
  return batch;
}

static lt_status fail_shapes(const lt_call *c, const char *what) {
  char q[LT_SHAPE_TEXT], k[LT_SHAPE_TEXT], v[LT_SHAPE_TEXT];
  return lt_fail(c->ctx, "%s: %s (query %s, key %s, value %s)", c->op->name, what,
                 lt_shape_text(&c->in[Q]->shape, q), lt_shape_text(&c->in[K]->shape, k),
                 lt_shape_text(&c->in[V]->shape, v));
}

/* The batch takes the leading dimensions of t in, as a batching rule may have put them there. */
static lt_status widen(const lt_call *c, const lt_tensor *t, sizes *z) {
  lt_shape leading = lt_shape_make(t->shape.ndim > 2 ? t->shape.ndim - 2 : 0, t->shape.size);
  if (lt_shape_broadcast(&z->batch, &leading)) return LT_OK;
  return fail_shapes(c, "leading dimensions do not broadcast");
}

static lt_status check_mask(const lt_call *c, sizes *z) {
  const lt_tensor *mask = c->in[MASK];
  char wanted[LT_SHAPE_TEXT], got[LT_SHAPE_TEXT];
  if (!mask) return LT_OK;
  if (mask->dtype != LT_BOOL && mask->dtype != c->in[Q]->dtype) {
    return lt_fail(c->ctx, "%s: attn_mask must be bool (true attends) or %s (added), got %s",
                   c->op->name, lt_dtype_name((lt_dtype)c->in[Q]->dtype),
                   lt_dtype_name((lt_dtype)mask->dtype));
  }
  if (c->op == &lt_op_attention) LT_TRY(widen(c, mask, z));
  lt_shape full = with_last(z->batch, z->l, z->s), both = full;
  if (lt_shape_broadcast(&both, &mask->shape) && lt_shape_equal(&both, &full)) return LT_OK;
  return lt_fail(c->ctx, "%s: attn_mask must broadcast to %s, got %s", c->op->name,
                 lt_shape_text(&full, wanted), lt_shape_text(&mask->shape, got));
}

/* With `grouped`, the keys' heads (dimension -3) each serve several of the queries'. */
static lt_status sizes_of(const lt_call *c, bool grouped, sizes *z) {
  lt_shape shape[3];
  for (int i = Q; i <= V; i++) {
    shape[i] = c->in[i]->shape;
    if (c->in[i]->dtype != c->in[Q]->dtype) return fail_shapes(c, "dtypes differ");
    if (shape[i].ndim < 2) return fail_shapes(c, "each needs at least two dimensions");
  }
  if (grouped) {
    for (int i = Q; i <= V; i++) {
      if (shape[i].ndim < 3 || shape[i].ndim == LT_MAX_RANK) {
        return fail_shapes(c, "enable_gqa takes heads in dimension -3");
      }
    }
    int64_t heads = shape[Q].size[shape[Q].ndim - 3], *k = &shape[K].size[shape[K].ndim - 3];
    int64_t *v = &shape[V].size[shape[V].ndim - 3];
    if (*k != *v || *k == 0 || heads % *k != 0) {
      return fail_shapes(c, "enable_gqa needs equal numbers of heads in key and value, which "
                            "divide the query's");
    }
    *k = *v = heads;
  }
  for (int i = Q; i <= V; i++) {
    int64_t rows = shape[i].size[shape[i].ndim - 2], columns = shape[i].size[shape[i].ndim - 1];
    shape[i].ndim -= 2;
    if (i == Q) z->l = rows, z->e = columns, z->batch = shape[Q];
    if (i == K) {
      z->s = rows;
      if (columns != z->e) return fail_shapes(c, "query and key differ in their last dimension");
    }
    if (i == V) {
      z->ev = columns;
      if (rows != z->s) return fail_shapes(c, "key and value differ in length");
    }
    if (!lt_shape_broadcast(&z->batch, &shape[i])) {
      return fail_shapes(c, "leading dimensions do not broadcast");
    }
  }
  return check_mask(c, z);
}

/* ---- The work by heads ------------------------------------------------------------------------
 */

enum { DOUT = 4, OUT, LSE, OPERANDS };

typedef struct job {
  lt_attention head; /* of the first one */
  sizes z;
  int64_t count, tiles;
  int64_t slots, slot_size;
  char *scratch;
  int64_t stride[OPERANDS][LT_MAX_RANK]; /* along the batch, in elements */
} job;

/* The matrices of a tensor that broadcasts to the batch; its strides go to number `which`. */
static lt_attention_matrix matrix_of(job *w, const lt_tensor *t, int which, int64_t rows,
                                     int64_t columns) {
  lt_shape full = with_last(w->z.batch, rows, columns);
  int n = full.ndim;
  lt_broadcast_strides(&t->shape, t->strides, &full, w->stride[which]);
  return (lt_attention_matrix){t->data, w->stride[which][n - 2], w->stride[which][n - 1]};
}

static void *shifted(const job *w, void *data, int which, int64_t head, int64_t bytes) {
  int64_t at = 0;
  for (int d = w->z.batch.ndim - 1; d >= 0; d--) {
    at += head % w->z.batch.size[d] * w->stride[which][d];
    head /= w->z.batch.size[d];
  }
  return (char *)data + at * bytes;
}

/* q, k, v and mask stand at `first` of the call's inputs. */
static job job_of(const lt_call *c, const sizes *z, int first) {
  lt_tensor *const *in = c->in + first;
  job w = {.z = *z, .count = lt_shape_numel(&z->batch)};
  w.head = (lt_attention){.dtype = (lt_dtype)in[Q]->dtype,
                          .simd = c->ctx->simd,
                          .l = z->l,
                          .s = z->s,
                          .e = z->e,
                          .ev = z->ev,
                          .causal = lt_get_int(c->attrs, c->op, 0) != 0,
                          .scale = lt_get_number(c->attrs, c->op, 1)};
  w.tiles = (z->l + LT_ATTENTION_QUERIES - 1) / LT_ATTENTION_QUERIES;
  w.head.q = matrix_of(&w, in[Q], Q, z->l, z->e);
  w.head.k = matrix_of(&w, in[K], K, z->s, z->e);
  w.head.v = matrix_of(&w, in[V], V, z->s, z->ev);
  if (!in[MASK]) return w;
  w.head.mask = matrix_of(&w, in[MASK], MASK, z->l, z->s);
  w.head.masked = in[MASK]->dtype == LT_BOOL ? LT_ATTENTION_KEEP : LT_ATTENTION_ADD;
  return w;
}

/* Head number `index`; the gradients are contiguous. */
static lt_attention head_number(const job *w, int64_t index) {
  lt_attention a = w->head;
  int64_t bytes = lt_dtype_size(a.dtype);
  a.q.data = shifted(w, a.q.data, Q, index, bytes);
  a.k.data = shifted(w, a.k.data, K, index, bytes);
  a.v.data = shifted(w, a.v.data, V, index, bytes);
  if (a.mask.data) {
    a.mask.data = shifted(w, a.mask.data, MASK, index, a.masked == LT_ATTENTION_KEEP ? 1 : bytes);
  }
  a.out = shifted(w, a.out, OUT, index, bytes);
  if (a.lse) a.lse = shifted(w, a.lse, LSE, index, bytes);
  if (!a.dq) return a;
  a.dout.data = shifted(w, a.dout.data, DOUT, index, bytes);
  a.dq = (char *)a.dq + index * a.l * a.e * bytes;
  a.dk = (char *)a.dk + index * a.s * a.e * bytes;
  a.dv = (char *)a.dv + index * a.s * a.ev * bytes;
  return a;
}

/* Slot i takes tasks i, i + slots, ...: under a causal mask later tiles cost more. */
static void forward_task(void *argument, int64_t first, int64_t last) {
  const job *w = argument;
  for (int64_t slot = first; slot < last; slot++) {
    for (int64_t i = slot; i < w->count * w->tiles; i += w->slots) {
      lt_attention a = head_number(w, i / w->tiles);
      lt_attention_forward(&a, i % w->tiles * LT_ATTENTION_QUERIES,
                           w->scratch + slot * w->slot_size);
    }
  }
}

static void backward_task(void *argument, int64_t first, int64_t last) {
  const job *w = argument;
  for (int64_t slot = first; slot < last; slot++) {
    for (int64_t i = slot; i < w->count; i += w->slots) {
      lt_attention a = head_number(w, i);
      lt_attention_backward(&a, w->scratch + slot * w->slot_size);
    }
  }
}

static lt_status run(lt_context *ctx, job *w, int64_t tasks, lt_task *task) {
  if (tasks == 0) return LT_OK;
  lt_block *block;
  w->slots = tasks < SLOTS ? tasks : SLOTS;
  w->slot_size = (lt_attention_scratch(&w->head) + 63) / 64 * 64;
  LT_TRY(lt_block_new(ctx, w->slots * w->slot_size, &block));
  w->scratch = block->data;
  double work = (double)w->count * (double)w->z.l * (double)w->z.s;
  work *= (double)(w->z.e + w->z.ev + 8) / 4;
  lt_status status = lt_parallel(ctx, w->slots, (int64_t)(work < 0x1p60 ? work : 0x1p60), task, w);
  lt_block_release(block);
  return status;
}

/* ---- attention, by tiles -----------------------------------------------------------------------
 */

static lt_status attention_infer(lt_call *c) {
  sizes z;
  LT_TRY(sizes_of(c, false, &z));
  lt_dtype dtype = (lt_dtype)c->in[Q]->dtype;
  c->result[0] = (lt_spec){dtype, with_last(z.batch, z.l, z.ev)};
  if (!c->recorded) return LT_OK;
  c->outputs = 2;
  c->result[1] = (lt_spec){dtype, with_last(z.batch, z.l, 1)};
  return LT_OK;
}

static lt_status attention_forward(lt_call *c) {
  sizes z;
  LT_TRY(sizes_of(c, false, &z));
  job w = job_of(c, &z, 0);
  w.head.out = matrix_of(&w, c->out[0], OUT, z.l, z.ev).data;
  if (c->outputs > 1) w.head.lse = matrix_of(&w, c->out[1], LSE, z.l, 1).data;
  return run(c->ctx, &w, w.count * w.tiles, forward_task);
}

/* Inputs of the backward op: dout, then q, k, v and mask, then what was computed. */
enum { BACKWARD_OUT = 5, BACKWARD_LSE };

static lt_status backward_sizes(const lt_call *c, sizes *z) {
  lt_call forward = *c;
  forward.op = &lt_op_attention;
  forward.in = c->in + 1;
  LT_TRY(sizes_of(&forward, false, z));
  LT_TRY(widen(c, c->in[0], z));
  LT_TRY(widen(c, c->in[BACKWARD_OUT], z));
  return widen(c, c->in[BACKWARD_LSE], z);
}

static lt_status attention_backward_infer(lt_call *c) {
  sizes z;
  lt_dtype dtype = (lt_dtype)c->in[0]->dtype;
  LT_TRY(backward_sizes(c, &z));
  c->outputs = 3;
  c->result[0] = (lt_spec){dtype, with_last(z.batch, z.l, z.e)};
  c->result[1] = (lt_spec){dtype, with_last(z.batch, z.s, z.e)};
  c->result[2] = (lt_spec){dtype, with_last(z.batch, z.s, z.ev)};
  return LT_OK;
}

static lt_status attention_backward_forward(lt_call *c) {
  sizes z;
  lt_tensor *out = NULL, *lse = NULL;
  LT_TRY(backward_sizes(c, &z));
  job w = job_of(c, &z, 1);
  w.head.dout = matrix_of(&w, c->in[0], DOUT, z.l, z.ev);
  w.head.dq = c->out[0]->data;
  w.head.dk = c->out[1]->data;
  w.head.dv = c->out[2]->data;
  for (int i = 0; i < 3; i++) {
    memset(c->out[i]->data, 0,
           (size_t)(c->out[i]->numel * lt_dtype_size((lt_dtype)c->out[i]->dtype)));
  }
  lt_status status = lt_tensor_contiguous(c->in[BACKWARD_OUT], &out);
  if (status == LT_OK) status = lt_tensor_contiguous(c->in[BACKWARD_LSE], &lse);
  if (status == LT_OK) {
    w.head.out = matrix_of(&w, out, OUT, z.l, z.ev).data;
    w.head.lse = matrix_of(&w, lse, LSE, z.l, 1).data;
    status = run(c->ctx, &w, w.count, backward_task);
  }
  lt_tensor_release(lse);
  lt_tensor_release(out);
  return status;
}

/* ---- The same made of ops ----------------------------------------------------------------------
 */

lt_tensor *lt_last_swapped(lt_scope *s, lt_tensor *a) {
  return lt_do1(s, &lt_op_transpose, NULL, a);
}

static lt_tensor *product(lt_scope *s, lt_tensor *a, lt_tensor *b) {
  return lt_do2(s, &lt_op_matmul, NULL, a, b);
}

/* L x S, true where key j <= query i. */
static lt_tensor *causal_mask(lt_scope *s, int64_t l, int64_t keys) {
  lt_tensor *t;
  lt_shape shape = lt_shape_make(2, (int64_t[]){l, keys});
  if (s->status == LT_OK) s->status = lt_tensor_new(s->ctx, "attention", LT_BOOL, &shape, &t);
  if (s->status != LT_OK) return NULL;
  for (int64_t i = 0; i < l; i++) {
    for (int64_t j = 0; j < keys; j++) t->data[i * keys + j] = j <= i;
  }
  return lt_keep(s, t);
}

static lt_tensor *where(lt_scope *s, lt_tensor *condition, lt_tensor *x, lt_tensor *other) {
  return lt_do3(s, &lt_op_where, NULL, condition, x, other);
}

/* Rows without a key: bool, L x 1. */
static lt_tensor *dead_rows(lt_scope *s, lt_tensor *scores) {
  const int64_t last = -1;
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_amax);
  lt_attrs_set_list(&attrs, &lt_op_amax, 0, 1, &last);
  lt_attrs_set_int(&attrs, &lt_op_amax, 1, true);
  lt_tensor *most = lt_do1(s, &lt_op_amax, &attrs, scores);
  return lt_do2(s, &lt_op_eq, NULL, most, lt_number(s, -INFINITY));
}

lt_tensor *lt_attention_weights(lt_scope *s, lt_tensor *q, lt_tensor *k, lt_tensor *mask,
                                bool causal, double scale) {
  lt_tensor *scores = lt_scale(s, product(s, q, lt_last_swapped(s, k)), scale), *dead = NULL;
  if (!scores) return NULL;
  int n = scores->shape.ndim;
  int64_t l = scores->shape.size[n - 2], keys = scores->shape.size[n - 1];
  if (mask && mask->dtype == LT_BOOL)
    scores = where(s, mask, scores, lt_number(s, -INFINITY));
  else if (mask)
    scores = lt_add(s, scores, mask);
  if (causal) scores = where(s, causal_mask(s, l, keys), scores, lt_number(s, -INFINITY));
  if (mask && keys > 0) {
    dead = dead_rows(s, scores);
    scores = where(s, dead, lt_number(s, 0), scores);
  }
  lt_tensor *weights = lt_do1(s, &lt_op_softmax, NULL, scores);
  return dead ? where(s, dead, lt_number(s, 0), weights) : weights;
}

/* The gradient through a softmax with result y. */
static lt_tensor *through_softmax(lt_scope *s, lt_tensor *dy, lt_tensor *y) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_softmax_backward);
  lt_attrs_set_int(&attrs, &lt_op_softmax_backward, 0, -1);
  return lt_do2(s, &lt_op_softmax_backward, &attrs, dy, y);
}

static lt_tensor *row_sum(lt_scope *s, lt_tensor *a) {
  const int64_t last = -1;
  return lt_sum_over(s, a, 1, &last, true);
}

/* With weights P of scores, G = dout and dP = G v^T: dS = P (dP - rowsum(P dP)), dq = scale dS k,
 * dk = scale dS^T q, dv = P^T G. Cotangents of the three: a, b, c; W, Z and Y are the gradients
 * that arrive at dS, at P, and through it at the scores. */
static void attention_backward_vjp(lt_vjp *v) {
  lt_scope *s = v->s;
  bool causal = lt_get_int(v->attrs, v->op, 0) != 0;
  double scale = lt_get_number(v->attrs, v->op, 1);
  lt_tensor *g = v->in[0], *q = v->in[1], *k = v->in[2], *value = v->in[3], *mask = v->in[4];
  lt_tensor *a = v->dy[0], *b = v->dy[1], *c = v->dy[2];
  lt_tensor *p = lt_attention_weights(s, q, k, mask, causal, scale);
  lt_tensor *dp = product(s, g, lt_last_swapped(s, value));
  lt_tensor *ds = lt_scale(s, through_softmax(s, dp, p), scale);
  lt_tensor *w = NULL, *z = NULL;
  if (a) w = product(s, a, lt_last_swapped(s, k));
  if (b) {
    lt_tensor *from_b = product(s, q, lt_last_swapped(s, b));
    w = w ? lt_add(s, w, from_b) : from_b;
  }
  if (c) z = product(s, g, lt_last_swapped(s, c));
  if (w) {
    w = lt_scale(s, w, scale);
    lt_tensor *apart = lt_mul(s, w, lt_sub(s, dp, row_sum(s, lt_mul(s, p, dp))));
    apart = lt_sub(s, apart, lt_mul(s, row_sum(s, lt_mul(s, w, p)), dp));
    z = z ? lt_add(s, z, apart) : apart;
  }
  lt_tensor *t = w ? through_softmax(s, w, p) : NULL, *y = z ? through_softmax(s, z, p) : NULL;
  if (v->need[0]) {
    lt_give(v, 0, c ? product(s, p, c) : NULL);
    lt_give(v, 0, t ? product(s, t, value) : NULL);
  }
  if (v->need[1]) {
    lt_give(v, 1, b ? product(s, ds, b) : NULL);
    lt_give(v, 1, y ? lt_scale(s, product(s, y, k), scale) : NULL);
  }
  if (v->need[2]) {
    lt_give(v, 2, a ? product(s, lt_last_swapped(s, ds), a) : NULL);
    lt_give(v, 2, y ? lt_scale(s, product(s, lt_last_swapped(s, y), q), scale) : NULL);
  }
  if (v->need[3] && t) lt_give(v, 3, product(s, lt_last_swapped(s, t), g));
  if (mask && v->need[4]) lt_give(v, 4, y);
}

const lt_op lt_op_attention_backward = {
    .name = "attention_backward",
    .doc = "The gradients of attention with respect to query, key and value, by tiles.",
    .inputs = {{"dout", LT_FLOAT},
               {"query", LT_FLOAT},
               {"key", LT_FLOAT},
               {"value", LT_FLOAT},
               {"attn_mask", LT_ANY, .optional = true},
               {"out", LT_FLOAT},
               {"lse", LT_FLOAT}},
    .options = {{"is_causal", LT_OPTION_BOOL}, {"scale", LT_OPTION_NUMBER}},
    .infer = attention_backward_infer,
    .forward = attention_backward_forward,
    .vjp = attention_backward_vjp,
    .batch = lt_batch_broadcast,
    .saves = LT_IN(0) | LT_IN(1) | LT_IN(2) | LT_IN(3) | LT_IN(4),
    .results = 3,
    .internal = true,
};

static void attention_vjp(lt_vjp *v) {
  lt_scope *s = v->s;
  const lt_op *op = &lt_op_attention_backward;
  bool causal = lt_get_int(v->attrs, v->op, 0) != 0;
  double scale = lt_get_number(v->attrs, v->op, 1);
  lt_tensor *q = v->in[Q], *k = v->in[K], *value = v->in[V], *mask = v->in[MASK];
  if (v->need[Q] || v->need[K] || v->need[V]) {
    lt_attrs attrs;
    lt_attrs_default(&attrs, op);
    lt_attrs_set_int(&attrs, op, 0, causal);
    lt_attrs_set_number(&attrs, op, 1, scale);
    lt_tensor *in[] = {v->dy[0], q, k, value, mask, v->out[0], v->out[1]}, *out[LT_MAX_OUTPUTS];
    lt_do_all(s, op, &attrs, 7, in, out);
    for (int i = Q; i <= V; i++) {
      if (v->need[i]) lt_give(v, i, out[i]);
    }
  }
  if (!mask || !v->need[MASK]) return;
  lt_tensor *weights = lt_attention_weights(s, q, k, mask, causal, scale);
  lt_tensor *dweights = product(s, v->dy[0], lt_last_swapped(s, value));
  lt_give(v, MASK, through_softmax(s, dweights, weights));
}

const lt_op lt_op_attention = {
    .name = "attention",
    .doc = "softmax(scale query key^T + attn_mask) value by tiles, and the log of the sum of "
           "exponentials for each query.",
    .inputs = {{"query", LT_FLOAT},
               {"key", LT_FLOAT},
               {"value", LT_FLOAT},
               {"attn_mask", LT_ANY, .optional = true}},
    .options = {{"is_causal", LT_OPTION_BOOL}, {"scale", LT_OPTION_NUMBER}},
    .infer = attention_infer,
    .forward = attention_forward,
    .vjp = attention_vjp,
    .batch = lt_batch_broadcast,
    .saves = LT_IN(Q) | LT_IN(K) | LT_IN(V) | LT_IN(MASK) | LT_OUT(0) | LT_OUT(1),
    .results = 2,
    .hidden = 1,
    .internal = true,
};

lt_tensor *lt_attend(lt_scope *s, lt_tensor *q, lt_tensor *k, lt_tensor *v, lt_tensor *mask,
                     bool causal, double scale) {
  const lt_op *op = &lt_op_attention;
  lt_attrs attrs;
  lt_attrs_default(&attrs, op);
  lt_attrs_set_int(&attrs, op, 0, causal);
  lt_attrs_set_number(&attrs, op, 1, scale);
  return lt_do(s, op, &attrs, 4, (lt_tensor *[]){q, k, v, mask});
}

/* ---- scaled_dot_product_attention
 * ----------------------------------------------------------------- */

enum { DROPOUT_P, IS_CAUSAL, SCALE, ENABLE_GQA };

static lt_status sdpa_infer(lt_call *c) {
  sizes z;
  double p = lt_get_number(c->attrs, c->op, DROPOUT_P);
  if (!(p >= 0 && p <= 1)) {
    return lt_fail(c->ctx, "%s: dropout_p must be in 0..1, got %g", c->op->name, p);
  }
  if (c->in[MASK] && lt_get_int(c->attrs, c->op, IS_CAUSAL)) {
    return lt_fail(c->ctx, "%s: takes attn_mask or is_causal, not both", c->op->name);
  }
  return sizes_of(c, lt_get_int(c->attrs, c->op, ENABLE_GQA) != 0, &z);
}

/* Dimension -3 of t, as `heads` x `each`. */
static lt_tensor *split_heads(lt_scope *s, lt_tensor *t, int64_t heads, int64_t each) {
  if (!t) return NULL;
  lt_shape shape = t->shape;
  int n = shape.ndim++;
  shape.size[n] = t->shape.size[n - 1];
  shape.size[n - 1] = t->shape.size[n - 2];
  shape.size[n - 2] = each;
  shape.size[n - 3] = heads;
  return lt_reshape_to(s, t, &shape);
}

static void sdpa_compose(lt_call *c, lt_scope *s) {
  lt_tensor *q = c->in[Q], *k = c->in[K], *v = c->in[V], *mask = c->in[MASK];
  double p = lt_get_number(c->attrs, c->op, DROPOUT_P);
  bool causal = lt_get_int(c->attrs, c->op, IS_CAUSAL) != 0;
  double scale = 1 / sqrt((double)q->shape.size[q->shape.ndim - 1]);
  if (lt_given(c->attrs, SCALE)) scale = lt_get_number(c->attrs, c->op, SCALE);
  bool grouped = lt_get_int(c->attrs, c->op, ENABLE_GQA) != 0;
  if (mask && mask->shape.ndim == 0) mask = lt_reshape_to(s, mask, &(lt_shape){2, {1, 1}});
  if (grouped) { /* the keys' heads are repeated, by broadcasting */
    int64_t heads = k->shape.size[k->shape.ndim - 3];
    int64_t each = q->shape.size[q->shape.ndim - 3] / heads;
    q = split_heads(s, q, heads, each);
    k = split_heads(s, k, heads, 1);
    v = split_heads(s, v, heads, 1);
    if (mask && mask->shape.ndim > 2) {
      bool same = mask->shape.size[mask->shape.ndim - 3] == 1;
      mask = split_heads(s, mask, same ? 1 : heads, same ? 1 : each);
    }
  }
  lt_tensor *y;
  if (p > 0) {
    lt_attrs attrs;
    lt_attrs_default(&attrs, &lt_op_dropout);
    lt_attrs_set_number(&attrs, &lt_op_dropout, 0, p);
    lt_tensor *weights = lt_attention_weights(s, q, k, mask, causal, scale);
    y = product(s, lt_do1(s, &lt_op_dropout, &attrs, weights), v);
  } else {
    y = lt_attend(s, q, k, v, mask, causal, scale);
  }
  if (grouped && y) {
    lt_shape shape = y->shape;
    int n = shape.ndim--;
    shape.size[n - 4] = y->shape.size[n - 4] * y->shape.size[n - 3];
    shape.size[n - 3] = y->shape.size[n - 2];
    shape.size[n - 2] = y->shape.size[n - 1];
    y = lt_reshape_to(s, y, &shape);
  }
  c->out[0] = y;
}

const lt_op lt_op_scaled_dot_product_attention = {
    .name = "scaled_dot_product_attention",
    .doc = "softmax(scale query key^T + attn_mask) value, for query ... x L x E, key ... x S x E, "
           "value ... x S x Ev; leading dimensions broadcast. attn_mask broadcasts to ... x L x S: "
           "bool (true attends) or float (added). With is_causal query i sees keys 1..i. A query "
           "whose keys are all masked gives 0. scale is by default 1 / sqrt(E). With enable_gqa "
           "each head (dimension -3) of key and value serves several of query. dropout_p drops "
           "weights, always. Neither value nor gradient keeps an L x S matrix, unless a float mask "
           "or a second derivative asks for it, or dropout. Vaswani et al. 2017, arXiv 1706.03762; "
           "Dao et al. 2022, arXiv 2205.14135.",
    .inputs = {{"query", LT_FLOAT},
               {"key", LT_FLOAT},
               {"value", LT_FLOAT},
               {"attn_mask", LT_ANY, .optional = true}},
    .options = {{"dropout_p", LT_OPTION_NUMBER},
                {"is_causal", LT_OPTION_BOOL},
                {"scale", LT_OPTION_NUMBER},
                {"enable_gqa", LT_OPTION_BOOL}},
    .infer = sdpa_infer,
    .compose = sdpa_compose,
    .function = true,
    .sample = {"normal(2, 3, 4), normal(2, 5, 4), normal(2, 5, 2)",
               "normal(2, 2, 3, 2), normal(2, 2, 3, 2), normal(2, 2, 3, 3), {is_causal = true, "
               "scale = 0.7}",
               "normal(3, 2), transposed(4, 2), normal(4, 3), normal(3, 4)",
               "normal(2, 1, 3, 2), normal(2, 4, 2), normal(4, 2), mask(3, 4)",
               "normal(4, 3, 2), normal(2, 3, 2), normal(2, 3, 2), normal(4, 3, 3), {enable_gqa = "
               "true}"},
};

LT_FAMILY(attention, &lt_op_attention_backward, &lt_op_attention,
          &lt_op_scaled_dot_product_attention)
