/* dropout. The mask is not kept: it is drawn again, for the gradient, from the part of the random
 * stream that the recorded options name. */
#include "core/context.h"
#include "kernels/parallel.h"
#include "ops/family.h"
#include "ops/ops.h"
#include "tape/vmap.h"

enum { P, TRAINING, SEED, COUNTER, SAMPLES };

/* Elements of one task; a multiple of the four that one counter decides. */
static const int64_t CHUNK = 1 << 14;

typedef struct dropping {
  const void *x;
  void *y;
  lt_dtype dtype;
  int64_t n;
  double p;
  uint64_t seed, counter;
} dropping;

#define DROP(NAME, TYPE)                                                                           \
  static void NAME(const dropping *w, int64_t from, int64_t to) {                                  \
    const TYPE *x = w->x, scale = (TYPE)(1 / (1 - w->p));                                          \
    const float p = (float)w->p;                                                                   \
    TYPE *y = w->y;                                                                                \
    for (int64_t i = from; i < to; i += 4) {                                                       \
      uint32_t words[4];                                                                           \
      lt_philox(w->seed, w->counter + (uint64_t)i / 4, words);                                     \
      for (int j = 0; j < 4 && i + j < to; j++) {                                                  \
        y[i + j] = x[i + j] * (lt_uniform32(words[j]) >= p ? scale : 0);                           \
      }                                                                                            \
    }                                                                                              \
  }
DROP(drop_float32, float)
DROP(drop_float64, double)

static void task(void *argument, int64_t first, int64_t last) {
  const dropping *w = argument;
  int64_t to = last * CHUNK < w->n ? last * CHUNK : w->n;
  (w->dtype == LT_FLOAT32 ? drop_float32 : drop_float64)(w, first * CHUNK, to);
}

static lt_status dropout_infer(lt_call *c) {
  double p = lt_get_number(c->attrs, c->op, P);
  if (!(p >= 0 && p <= 1)) return lt_fail(c->ctx, "dropout: p must be in 0..1, got %g", p);
  return lt_infer_same(c);
}

/* Takes fresh counters for n elements, and notes them in the options that are recorded. */
static void choose(lt_context *ctx, int64_t n, lt_attrs *own) {
  lt_random *r = &ctx->random;
  lt_attrs_set_int(own, &lt_op_dropout, SEED, (int64_t)r->seed);
  lt_attrs_set_int(own, &lt_op_dropout, COUNTER, (int64_t)lt_random_take(r, (uint64_t)(n + 3) / 4));
}

static lt_status dropout_forward(lt_call *c) {
  if (!lt_get_int(c->attrs, c->op, TRAINING)) return lt_tensor_copy(c->out[0], c->in[0]);
  if (!lt_given(c->attrs, COUNTER)) {
    *c->own = *c->attrs;
    c->attrs = c->own;
    choose(c->ctx, c->in[0]->numel, c->own);
  }
  lt_tensor *x;
  LT_TRY(lt_tensor_contiguous(c->in[0], &x));
  dropping w = {.x = x->data,
                .y = c->out[0]->data,
                .dtype = c->dtype,
                .n = x->numel,
                .p = lt_get_number(c->attrs, c->op, P),
                .seed = (uint64_t)lt_get_int(c->attrs, c->op, SEED),
                .counter = (uint64_t)lt_get_int(c->attrs, c->op, COUNTER)};
  lt_status status = lt_parallel(c->ctx, (w.n + CHUNK - 1) / CHUNK, w.n * 8, task, &w);
  lt_tensor_release(x);
  return status;
}

static void dropout_vjp(lt_vjp *v) {
  lt_tensor *dy = v->dy[0];
  if (lt_get_int(v->attrs, v->op, SAMPLES)) { /* masks differ by sample even where dy does not */
    lt_attrs one;
    lt_attrs_default(&one, &lt_op_full_like);
    lt_attrs_set_number(&one, &lt_op_full_like, 0, 1);
    dy = lt_mul(v->s, dy, lt_do1(v->s, &lt_op_full_like, &one, v->out[0]));
  }
  lt_give(v, 0, lt_do1(v->s, v->op, v->attrs, dy));
}

/* Each sample has a mask of its own; the gradient draws all of them again. */
static void dropout_batch(lt_batch *b) {
  *b->own = *b->attrs;
  b->attrs = b->own;
  if (!lt_given(b->own, COUNTER)) choose(b->ctx, b->over[0]->numel, b->own);
  lt_attrs_set_int(b->own, b->op, SAMPLES, 1);
  lt_batch_run(b, b->own, b->over);
}

const lt_op lt_op_dropout = {
    .name = "dropout",
    .doc = "Sets each element to 0 with probability p and multiplies the others by 1 / (1 - p); x "
           "itself where training is false. The mask is drawn from the context's random stream, or "
           "again from the part of a stream that seed and counter name (samples: for a batch of "
           "vmap). "
           "Srivastava et al. 2014, "
           "JMLR 15.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {{"p", LT_OPTION_NUMBER, .value = 0.5},
                {"training", LT_OPTION_BOOL, .value = 1},
                {"seed", LT_OPTION_INT},
                {"counter", LT_OPTION_INT},
                {"samples", LT_OPTION_BOOL}},
    .infer = dropout_infer,
    .forward = dropout_forward,
    .vjp = dropout_vjp,
    .zero = "masked",
    .saves = LT_OUT(0),
    .linear = true,
    .batch = dropout_batch,
    .sample = {"normal(3, 4), {p = 0.25, seed = 1, counter = 0}",
               "normal(2, 3, 4), {seed = 2, counter = 5}", "normal(3, 4), {training = false}"},
};

LT_FAMILY(dropout, &lt_op_dropout)
