/* The driver of a step: checks everything, then walks all variables as one list of chunks. */
#include "optim/optimizer.h"
#include "core/context.h"
#include "kernels/parallel.h"
#include "kernels/reduce.h"
#include "tape/assign.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__) && defined(__GNUC__)
#  include <xmmintrin.h>
#endif

/* Elements of a variable that one task moves; those that are copied to look at their step. */
enum { CHUNK = 1 << 14, TILE = 512 };

extern const lt_rule lt_rule_adam, lt_rule_adamw, lt_rule_sgd;
const lt_rule *const lt_rules[] = {&lt_rule_adam, &lt_rule_adamw, &lt_rule_sgd, NULL};

/* ---- Denormals ------------------------------------------------------------------------------- */

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
static void restore_denormals(uint64_t mode) { __asm__ volatile("msr fpcr, %0" : : "r"(mode)); }
#else
static uint64_t flush_denormals(void) { return 0; }
static void restore_denormals(uint64_t mode) { (void)mode; }
#endif

/* ---- Sums of squares ------------------------------------------------------------------------- */

static double squares(lt_simd simd, lt_dtype type, int64_t n, const void *x) {
  lt_cell sum = {.f = 0};
  lt_fold_norm2.row[simd][type](n, x, 0, &sum, NULL);
  return sum.f;
}

/* ---- Variables and groups -------------------------------------------------------------------- */

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
  if (s->p->name)
    snprintf(text, LT_LABEL_TEXT, "'%.70s' (%s)", s->p->name, shape);
  else
    snprintf(text, LT_LABEL_TEXT, "%.70s (%s)", s->label, shape);
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

/* ---- Gathering a step ------------------------------------------------------------------------ */

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
  float *a = (float *)(void *)g->data, most = (float)bound;
  double *b = (double *)(void *)g->data;
  bool single = g->dtype == LT_FLOAT32;
  for (int64_t i = 0; i < g->numel && single; i++) {
    a[i] = a[i] > most ? most : a[i] < -most ? -most : a[i];
  }
  for (int64_t i = 0; i < g->numel && !single; i++) {
    b[i] = b[i] > bound ? bound : b[i] < -bound ? -bound : b[i];
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
    double *sums = realloc(o->sums, (size_t)*chunks * sizeof *sums);
    if (!sums) return lt_fail_memory(o->ctx, *chunks * (long long)sizeof *sums);
    o->sums = sums;
    o->sums_capacity = *chunks;
  }
  return LT_OK;
}

/* ---- The passes ------------------------------------------------------------------------------ */

/* A chunk: elements at..at+n-1 of a slot's variable. */
typedef struct chunk {
  const lt_optimizer *o;
  const lt_slot *s;
  lt_dtype type;
  int64_t number, at, n;
} chunk;

/* The last active slot that begins at or before chunk `number`. */
static int64_t slot_of(const lt_optimizer *o, int64_t number) {
  int64_t low = 0, high = o->actives - 1;
  while (low < high) {
    int64_t middle = (low + high + 1) / 2;
    if (o->slot[o->active[middle]].first <= number)
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

static void each_chunk(const lt_optimizer *o, int64_t first, int64_t last,
                       void (*work)(const chunk *)) {
  int64_t i = slot_of(o, first);
  for (int64_t number = first; number < last; number++) {
    while (i + 1 < o->actives && o->slot[o->active[i + 1]].first <= number) i++;
    const lt_slot *s = &o->slot[o->active[i]];
    int64_t at = (number - s->first) * CHUNK, left = s->p->numel - at;
    work(&(chunk){.o = o,
                  .s = s,
                  .type = (lt_dtype)s->p->dtype,
                  .number = number,
                  .at = at,
                  .n = left < CHUNK ? left : CHUNK});
  }
}

static void measure(const chunk *c) {
  const char *g = c->s->g->data + c->at * lt_dtype_size(c->type);
  c->o->sums[c->number] = squares(c->o->ctx->simd, c->type, c->n, g);
}

static void move(const chunk *c) {
  const lt_slot *s = c->s;
  int64_t offset = c->at * lt_dtype_size(c->type);
  void *state[LT_RULE_STATES] = {NULL};
  for (int j = 0; j < LT_RULE_STATES; j++) {
    if (s->state[j]) state[j] = s->state[j]->data + offset;
  }
  const lt_step *step = c->o->rule->step(c->o->group[s->group]);
  step->tile[c->o->ctx->simd][c->type](c->n, s->p->data + offset, s->g->data + offset, state[0],
                                       state[1], state[2], s->k);
}

static void measure_task(void *argument, int64_t first, int64_t last) {
  each_chunk(argument, first, last, measure);
}

static void move_task(void *argument, int64_t first, int64_t last) {
  uint64_t mode = flush_denormals();
  each_chunk(argument, first, last, move);
  restore_denormals(mode);
}

/* In one call, never interrupted half-way: the work is named smaller than a poll's. */
static lt_status run_pass(lt_optimizer *o, int64_t chunks, int64_t elements, lt_task *task) {
  int64_t operations = elements < (1 << 21) ? elements * 4 : 1 << 23;
  return lt_parallel(o->ctx, chunks, operations, task, o);
}

static lt_status measure_all(lt_optimizer *o, int64_t chunks, int64_t elements) {
  LT_TRY(run_pass(o, chunks, elements, measure_task));
  for (int64_t i = 0; i < o->actives; i++) {
    lt_slot *s = &o->slot[o->active[i]];
    int64_t end = i + 1 < o->actives ? o->slot[o->active[i + 1]].first : chunks;
    s->squares = 0;
    for (int64_t c = s->first; c < end; c++) s->squares += o->sums[c];
  }
  return LT_OK;
}

/* The first slot whose gradient is not finite, or -1. A sum of squares that is not finite may
 * also have overflowed. */
static int64_t find_nonfinite(const lt_optimizer *o, int64_t *count) {
  for (int64_t i = 0; i < o->actives; i++) {
    const lt_slot *s = &o->slot[o->active[i]];
    if (isfinite(s->squares)) continue;
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
  for (int64_t i = 0; i < o->actives; i++) total += o->slot[o->active[i]].squares;
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
    if (o->clip_norm != 0) s->k[0] *= clip_factor(o->clip_norm, sqrt(s->squares));
  }
}

static lt_status finish(lt_optimizer *o) {
  lt_site site = lt_current_site(o->ctx);
  lt_status status = LT_OK;
  for (int64_t i = 0; i < o->actives; i++) {
    lt_slot *s = &o->slot[o->active[i]];
    s->step++;
    if (s->p->variable)
      lt_tensor_written(s->p, site);
    else if (status == LT_OK)
      status = lt_assign_end(o->ctx, s->p, NULL);
  }
  o->step++;
  return status;
}

static lt_status run(lt_optimizer *o, int64_t *bad, int64_t *bad_count) {
  int64_t chunks, elements;
  LT_TRY(lt_check_interrupt(o->ctx));
  LT_TRY(settle(o, &chunks, &elements));
  if (!o->apply_nonfinite || o->clip_norm != 0 || o->global_clip_norm != 0) {
    LT_TRY(measure_all(o, chunks, elements));
  }
  if (!o->apply_nonfinite) *bad = find_nonfinite(o, bad_count);
  if (*bad >= 0) return LT_OK;
  prepare(o);
  LT_TRY(run_pass(o, chunks, elements, move_task));
  return finish(o);
}

lt_status lt_optimizer_run(lt_optimizer *o, int64_t *bad, int64_t *bad_count) {
  *bad = -1;
  *bad_count = 0;
  lt_status status = run(o, bad, bad_count);
  lt_optimizer_begin(o);
  return status;
}

/* ---- Looking at a step ----------------------------------------------------------------------- */

/* to = from - to */
static void subtract(lt_dtype type, int64_t n, void *restrict to, const void *restrict from) {
  float *a = to;
  double *b = to;
  const float *c = from;
  const double *d = from;
  for (int64_t i = 0; i < n && type == LT_FLOAT32; i++) a[i] = c[i] - a[i];
  for (int64_t i = 0; i < n && type == LT_FLOAT64; i++) b[i] = d[i] - b[i];
}

lt_status lt_slot_moved(const lt_optimizer *o, const lt_slot *s, lt_tensor *gradient,
                        double *update, double *weight) {
  _Alignas(64) char room[2 + LT_RULE_STATES][TILE * sizeof(double)];
  lt_dtype type = (lt_dtype)s->p->dtype;
  lt_simd simd = o->ctx->simd;
  const lt_step *step = o->rule->step(o->group[s->group]);
  double k[LT_RULE_NUMBERS], moved = 0, own = 0;
  *update = *weight = NAN;
  if (s->step == 0) return LT_OK;
  for (int j = 0; j < step->states; j++) { /* options have changed since */
    if (!s->state[j]) return LT_OK;
  }
  lt_tensor *g;
  LT_TRY(lt_tensor_contiguous(gradient, &g));
  memcpy(k, s->k, sizeof k);
  if (o->rule->hold) o->rule->hold(k);
  uint64_t mode = flush_denormals();
  for (int64_t at = 0; at < s->p->numel; at += TILE) {
    int64_t n = s->p->numel - at < TILE ? s->p->numel - at : TILE;
    int64_t offset = at * lt_dtype_size(type);
    size_t bytes = (size_t)(n * lt_dtype_size(type));
    const char *p = s->p->data + offset;
    memcpy(room[0], p, bytes);
    for (int j = 0; j < step->states; j++) memcpy(room[1 + j], s->state[j]->data + offset, bytes);
    step->tile[simd][type](n, room[0], g->data + offset, room[1], room[2], room[3], k);
    own += squares(simd, type, n, p);
    subtract(type, n, room[0], p);
    moved += squares(simd, type, n, room[0]);
  }
  restore_denormals(mode);
  lt_tensor_release(g);
  *update = sqrt(moved);
  *weight = sqrt(own);
  return LT_OK;
}
