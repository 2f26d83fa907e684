/* The driver of a step: checks everything, then walks all variables as one list of chunks. */
#include "optim/optimizer.h"
#include "core/context.h"
#include "kernels/parallel.h"
#include "tape/assign.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__) && defined(__GNUC__)
#include <xmmintrin.h>
#endif

/* Elements of a variable that one task moves, and those whose old values fit beside them in the
 * first-level cache while they are compared. */
enum { CHUNK = 1 << 14, TILE = 1 << 10 };

extern const lt_rule lt_rule_adam, lt_rule_adamw, lt_rule_sgd;
const lt_rule *const lt_rules[] = {&lt_rule_adam, &lt_rule_adamw, &lt_rule_sgd, NULL};

/* ---- Denormals ----------------------------------------------------------------------------- */

/* Flushes denormals in this thread; returns the mode to go back to. */
#if defined(__x86_64__) && defined(__GNUC__)
static uint64_t flush_denormals(void) {
  unsigned mode = _mm_getcsr();
  _mm_setcsr(mode | 0x8040); /* results and operands */
  return mode;
}
static void restore_denormals(uint64_t mode) { _mm_setcsr((unsigned)mode); }
#elif defined(__aarch64__) && defined(__GNUC__)
static uint64_t flush_denormals(void) {
  uint64_t mode;
  __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
  __asm__ volatile("msr fpcr, %0" : : "r"(mode | (uint64_t)1 << 24));
  return mode;
}
static void restore_denormals(uint64_t mode) {
  __asm__ volatile("msr fpcr, %0" : : "r"(mode));
}
#else
static uint64_t flush_denormals(void) { return 0; }
static void restore_denormals(uint64_t mode) { (void)mode; }
#endif

/* ---- Sums of squares ------------------------------------------------------------------------- */

/* In double, in eight lanes, which add up in a fixed order. `b` is subtracted if it is given. */
#define SQUARES(NAME, TARGET, TYPE)                                                                \
  TARGET static double NAME(int64_t n, const void *values, const void *others) {                   \
    const TYPE *a = values, *b = others;                                                           \
    double lane[8] = {0}, rest = 0;                                                                \
    int64_t i = 0;                                                                                 \
    for (; i + 8 <= n && !b; i += 8) {                                                             \
      for (int j = 0; j < 8; j++) lane[j] += (double)a[i + j] * (double)a[i + j];                  \
    }                                                                                              \
    for (; i + 8 <= n; i += 8) {                                                                   \
      for (int j = 0; j < 8; j++) {                                                                \
        const double d = (double)a[i + j] - (double)b[i + j];                                      \
        lane[j] += d * d;                                                                          \
      }                                                                                            \
    }                                                                                              \
    for (; i < n; i++) {                                                                           \
      const double d = (double)a[i] - (b ? (double)b[i] : 0);                                      \
      rest += d * d;                                                                               \
    }                                                                                              \
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +                                           \
           ((lane[1] + lane[5]) + (lane[3] + lane[7])) + rest;                                     \
  }
SQUARES(squares_f32, , float)
SQUARES(squares_f64, , double)
SQUARES(squares_f32_avx2, LT_TARGET_AVX2, float)
SQUARES(squares_f64_avx2, LT_TARGET_AVX2, double)
SQUARES(squares_f32_avx512, LT_TARGET_AVX512, float)
SQUARES(squares_f64_avx512, LT_TARGET_AVX512, double)

typedef double squares_fn(int64_t n, const void *values, const void *others);
static squares_fn *const squares[LT_SIMD_COUNT][2] = {{squares_f32, squares_f64},
                                                      {squares_f32_avx2, squares_f64_avx2},
                                                      {squares_f32_avx512, squares_f64_avx512}};

/* ---- Variables and groups ---------------------------------------------------------------------- */

lt_status lt_optimizer_new(lt_context *ctx, const lt_rule *rule, lt_optimizer **result) {
  lt_optimizer *o = calloc(1, sizeof *o);
  if (!o) return lt_fail_memory(ctx, sizeof *o);
  o->ctx = ctx;
  o->rule = rule;
  *result = o;
  return LT_OK;
}

void lt_optimizer_free(lt_optimizer *o) {
  if (!o) return;
  for (int64_t i = 0; i < o->slots; i++) {
    lt_slot *s = &o->slot[i];
    lt_tensor_release(s->p);
    lt_tensor_release(s->g);
    for (int j = 0; j < LT_RULE_STATES; j++) lt_tensor_release(s->state[j]);
    free(s->label);
  }
  free(o->group);
  free(o->slot);
  free(o->active);
  free(o->sums);
  free(o);
}

lt_status lt_optimizer_set_group(lt_optimizer *o, int32_t group, const double *values) {
  const char *wrong = o->rule->check ? o->rule->check(values) : NULL;
  if (wrong) return lt_fail(o->ctx, "%s: %s", o->rule->name, wrong);
  if (group == o->groups) {
    size_t bytes = (size_t)(group + 1) * sizeof *o->group;
    void *bigger = realloc(o->group, bytes);
    if (!bigger) return lt_fail_memory(o->ctx, (long long)bytes);
    o->group = bigger;
    o->groups++;
  }
  memcpy(o->group[group], values, sizeof o->group[group]);
  return LT_OK;
}

const char *lt_slot_text(const lt_slot *s, char text[LT_LABEL_TEXT]) {
  char shape[LT_SHAPE_TEXT];
  lt_shape_text(&s->p->shape, shape);
  if (s->p->name) snprintf(text, LT_LABEL_TEXT, "'%.70s' (%s)", s->p->name, shape);
  else snprintf(text, LT_LABEL_TEXT, "%.70s (%s)", s->label, shape);
  return text;
}

static lt_status make_room(lt_optimizer *o) {
  if (o->slots < o->capacity) return LT_OK;
  int64_t capacity = o->capacity ? 2 * o->capacity : 8;
  lt_slot *slots = realloc(o->slot, (size_t)capacity * sizeof *slots);
  if (slots) o->slot = slots;
  int64_t *active = slots ? realloc(o->active, (size_t)capacity * sizeof *active) : NULL;
  if (!active) return lt_fail_memory(o->ctx, capacity * (long long)sizeof *slots);
  o->active = active;
  o->capacity = capacity;
  return LT_OK;
}

lt_status lt_optimizer_add(lt_optimizer *o, lt_tensor *p, int32_t group, const char *label) {
  lt_slot s = {.p = p, .group = group, .label = (char *)(uintptr_t)label};
  char text[LT_LABEL_TEXT];
  lt_slot_text(&s, text);
  if (!lt_dtype_is_float((lt_dtype)p->dtype)) {
    return lt_fail(o->ctx, "%s: %s is %s; only floats can be trained [int-dtype]", o->rule->name,
                   text, lt_dtype_name((lt_dtype)p->dtype));
  }
  if (!p->contiguous) {
    return lt_fail(o->ctx, "%s: %s is a strided view; train the variable it is a view of",
                   o->rule->name, text);
  }
  LT_TRY(make_room(o));
  size_t length = strlen(label) + 1;
  s.label = malloc(length);
  if (!s.label) return lt_fail_memory(o->ctx, (long long)length);
  memcpy(s.label, label, length);
  lt_tensor_retain(p);
  o->slot[o->slots++] = s;
  return LT_OK;
}

lt_status lt_slot_state(lt_optimizer *o, lt_slot *s, int i) {
  if (s->state[i]) return LT_OK;
  LT_TRY(lt_tensor_new(o->ctx, o->rule->name, (lt_dtype)s->p->dtype, &s->p->shape, &s->state[i]));
  int64_t bytes = s->p->numel * lt_dtype_size((lt_dtype)s->p->dtype);
  if (bytes > 0) memset(s->state[i]->data, 0, (size_t)bytes);
  return LT_OK;
}

/* ---- Gathering a step --------------------------------------------------------------------------- */

void lt_optimizer_begin(lt_optimizer *o) {
  for (int64_t i = 0; i < o->actives; i++) {
    lt_slot *s = &o->slot[o->active[i]];
    lt_tensor_release(s->g);
    s->g = NULL;
  }
  o->actives = 0;
}

lt_status lt_optimizer_give(lt_optimizer *o, int64_t slot, lt_tensor *g) {
  lt_slot *s = &o->slot[slot];
  const lt_tensor *p = s->p;
  char text[LT_LABEL_TEXT], shape[LT_SHAPE_TEXT];
  if (s->g) {
    return lt_fail(o->ctx, "apply_gradients: %s is given twice", lt_slot_text(s, text));
  }
  if (!lt_shape_equal(&p->shape, &g->shape)) {
    return lt_fail(o->ctx,
                   "apply_gradients: the gradient of %s is %s; are the gradients in another order "
                   "than the variables? [order]",
                   lt_slot_text(s, text), lt_shape_text(&g->shape, shape));
  }
  if (p->dtype != g->dtype) {
    return lt_fail(o->ctx, "apply_gradients: the gradient of %s is %s, the variable %s",
                   lt_slot_text(s, text), lt_dtype_name((lt_dtype)g->dtype),
                   lt_dtype_name((lt_dtype)p->dtype));
  }
  LT_TRY(lt_assign_begin(o->ctx, p, "apply_gradients"));
  s->g = lt_tensor_retain(g);
  o->active[o->actives++] = slot;
  return LT_OK;
}

static void clip_values(lt_tensor *g, double bound) {
  for (int64_t i = 0; i < g->numel; i++) {
    double x = lt_tensor_read(g, i);
    if (x > bound || x < -bound) lt_tensor_write(g, i, x > 0 ? bound : -bound);
  }
}

/* The gradient as the loop wants it: contiguous, not in the variable's own memory, clipped. */
static lt_status settle_gradient(lt_optimizer *o, lt_slot *s) {
  if (s->g->contiguous && s->g->block != s->p->block && o->clip_value == 0) return LT_OK;
  lt_tensor *own;
  LT_TRY(lt_tensor_new(o->ctx, "apply_gradients", (lt_dtype)s->g->dtype, &s->g->shape, &own));
  lt_status status = lt_tensor_copy(own, s->g);
  if (status == LT_OK && o->clip_value != 0) clip_values(own, o->clip_value);
  lt_tensor_release(s->g);
  s->g = own;
  return status;
}

/* All that can fail, before anything moves. Counts the chunks. */
static lt_status settle(lt_optimizer *o, int64_t *chunks, int64_t *elements) {
  *chunks = *elements = 0;
  for (int64_t i = 0; i < o->actives; i++) {
    lt_slot *s = &o->slot[o->active[i]];
    const lt_step *step = o->rule->step(o->group[s->group]);
    LT_TRY(settle_gradient(o, s));
    for (int j = 0; j < step->states; j++) LT_TRY(lt_slot_state(o, s, j));
    s->first = *chunks;
    *chunks += (s->p->numel + CHUNK - 1) / CHUNK;
    *elements += s->p->numel;
  }
  if (*chunks > o->sums_capacity) {
    lt_squares *sums = realloc(o->sums, (size_t)*chunks * sizeof *sums);
    if (!sums) return lt_fail_memory(o->ctx, *chunks * (long long)sizeof *sums);
    o->sums = sums;
    o->sums_capacity = *chunks;
  }
  return LT_OK;
}

/* ---- The passes ------------------------------------------------------------------------------------ */

typedef struct pass {
  lt_optimizer *o;
  bool watch;
  /* the chunk at hand */
  lt_slot *s;
  int type; /* 0: float32, 1: float64 */
  int64_t at, n;
} pass;

/* The last active slot that begins at or before chunk `number`. */
static int64_t slot_of(const lt_optimizer *o, int64_t number) {
  int64_t low = 0, high = o->actives - 1;
  while (low < high) {
    int64_t middle = (low + high + 1) / 2;
    if (o->slot[o->active[middle]].first <= number) low = middle;
    else high = middle - 1;
  }
  return low;
}

/* Calls `work` for each chunk first..last-1. */
static void each_chunk(pass w, int64_t first, int64_t last, void (*work)(const pass *, lt_squares *)) {
  int64_t i = slot_of(w.o, first);
  for (int64_t chunk = first; chunk < last; chunk++) {
    while (i + 1 < w.o->actives && w.o->slot[w.o->active[i + 1]].first <= chunk) i++;
    w.s = &w.o->slot[w.o->active[i]];
    w.type = w.s->p->dtype == LT_FLOAT64;
    w.at = (chunk - w.s->first) * CHUNK;
    w.n = w.s->p->numel - w.at < CHUNK ? w.s->p->numel - w.at : CHUNK;
    work(&w, &w.o->sums[chunk]);
  }
}

static size_t size_of(const pass *w) { return w->type ? sizeof(double) : sizeof(float); }

static void measure(const pass *w, lt_squares *sums) {
  const char *g = w->s->g->data + (size_t)w->at * size_of(w);
  sums->gradient = squares[w->o->ctx->simd][w->type](w->n, g, NULL);
}

static void measure_task(void *argument, int64_t first, int64_t last) {
  each_chunk(*(const pass *)argument, first, last, measure);
}

/* Elements at..at+n-1 of the slot's variable. */
static void move_range(const pass *w, int64_t at, int64_t n) {
  const lt_slot *s = w->s;
  size_t offset = (size_t)at * size_of(w);
  void *state[LT_RULE_STATES] = {NULL};
  for (int j = 0; j < LT_RULE_STATES; j++) {
    if (s->state[j]) state[j] = s->state[j]->data + offset;
  }
  const lt_step *step = w->o->rule->step(w->o->group[s->group]);
  step->tile[w->o->ctx->simd][w->type](n, s->p->data + offset, s->g->data + offset, state[0],
                                       state[1], state[2], s->k);
}

static void move(const pass *w, lt_squares *sums) {
  if (!w->watch) {
    move_range(w, w->at, w->n);
    return;
  }
  _Alignas(64) char old[TILE * sizeof(double)];
  squares_fn *sum = squares[w->o->ctx->simd][w->type];
  sums->update = sums->weight = 0;
  for (int64_t at = w->at; at < w->at + w->n; at += TILE) {
    int64_t n = w->at + w->n - at < TILE ? w->at + w->n - at : TILE;
    const char *p = w->s->p->data + (size_t)at * size_of(w);
    memcpy(old, p, (size_t)n * size_of(w));
    sums->weight += sum(n, old, NULL);
    move_range(w, at, n);
    sums->update += sum(n, p, old);
  }
}

static void move_task(void *argument, int64_t first, int64_t last) {
  uint64_t mode = flush_denormals();
  each_chunk(*(const pass *)argument, first, last, move);
  restore_denormals(mode);
}

/* One call, never interrupted half-way: the work is named smaller than a poll's. */
static lt_status run_pass(pass *w, int64_t chunks, int64_t elements, lt_task *task) {
  int64_t operations = elements < (1 << 21) ? elements * 4 : 1 << 23;
  return lt_parallel(w->o->ctx, chunks, operations, task, w);
}

static void add_up(lt_optimizer *o, bool moved) {
  for (int64_t i = 0; i < o->actives; i++) {
    lt_slot *s = &o->slot[o->active[i]];
    lt_squares total = {moved ? s->squares.gradient : 0, 0, 0};
    int64_t chunks = (s->p->numel + CHUNK - 1) / CHUNK;
    for (int64_t c = s->first; c < s->first + chunks; c++) {
      if (!moved) total.gradient += o->sums[c].gradient;
      if (moved) total.update += o->sums[c].update;
      if (moved) total.weight += o->sums[c].weight;
    }
    s->squares = total;
  }
}

/* The first slot whose gradient is not finite, or -1. A sum of squares that is not finite may
 * also have overflowed. */
static int64_t find_nonfinite(const lt_optimizer *o, int64_t *count) {
  for (int64_t i = 0; i < o->actives; i++) {
    const lt_slot *s = &o->slot[o->active[i]];
    if (isfinite(s->squares.gradient)) continue;
    *count = 0;
    for (int64_t e = 0; e < s->g->numel; e++) *count += !isfinite(lt_tensor_read(s->g, e));
    if (*count > 0) return o->active[i];
  }
  return -1;
}

/* c / max(c, norm), and NaN for a norm that is not finite (TensorFlow). */
static double clip_factor(double bound, double norm) {
  return bound / (norm > bound ? norm : bound) + (norm - norm);
}

/* The factors of each variable; equal ones are computed once. */
static void prepare(lt_optimizer *o) {
  double total = 0, whole = 1;
  for (int64_t i = 0; i < o->actives; i++) total += o->slot[o->active[i]].squares.gradient;
  if (o->global_clip_norm != 0) whole = clip_factor(o->global_clip_norm, sqrt(total));
  const lt_slot *last = NULL;
  double k[LT_RULE_NUMBERS];
  for (int64_t i = 0; i < o->actives; i++) {
    lt_slot *s = &o->slot[o->active[i]];
    if (!last || last->group != s->group || last->step != s->step) {
      o->rule->prepare(o->group[s->group], (double)(s->step + 1), k);
    }
    last = s;
    memcpy(s->k, k, sizeof k);
    s->k[0] *= whole;
    if (o->clip_norm != 0) s->k[0] *= clip_factor(o->clip_norm, sqrt(s->squares.gradient));
  }
}

static lt_status finish(lt_optimizer *o) {
  lt_site site = lt_current_site(o->ctx);
  lt_status status = LT_OK;
  for (int64_t i = 0; i < o->actives; i++) {
    lt_slot *s = &o->slot[o->active[i]];
    s->step++;
    if (s->p->variable) lt_tensor_written(s->p, site);
    else if (status == LT_OK) status = lt_assign_end(o->ctx, s->p, NULL);
  }
  o->step++;
  return status;
}

static lt_status run(lt_optimizer *o, bool watch, int64_t *bad, int64_t *bad_count) {
  int64_t chunks, elements;
  pass w = {.o = o, .watch = watch};
  LT_TRY(lt_check_interrupt(o->ctx));
  LT_TRY(settle(o, &chunks, &elements));
  if (!o->apply_nonfinite || watch || o->clip_norm != 0 || o->global_clip_norm != 0) {
    LT_TRY(run_pass(&w, chunks, elements, measure_task));
    add_up(o, false);
  }
  if (!o->apply_nonfinite) *bad = find_nonfinite(o, bad_count);
  if (*bad >= 0) return LT_OK;
  prepare(o);
  LT_TRY(run_pass(&w, chunks, elements, move_task));
  if (watch) add_up(o, true);
  return finish(o);
}

lt_status lt_optimizer_run(lt_optimizer *o, bool watch, int64_t *bad, int64_t *bad_count) {
  *bad = -1;
  *bad_count = 0;
  lt_status status = run(o, watch, bad, bad_count);
  lt_optimizer_begin(o);
  return status;
}
