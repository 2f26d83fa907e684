/* The driver of a step: checks everything, then walks all variables as one list of chunks. */
#include "optim/optimizer.h"
#include "core/context.h"
#include "core/rows.h"
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

extern const lt_rule lt_rule_adam, lt_rule_adamw, lt_rule_sgd, lt_rule_rmsprop, lt_rule_adagrad;
const lt_rule *const lt_rules[] = {&lt_rule_adam,    &lt_rule_adamw,   &lt_rule_sgd,
                                   &lt_rule_rmsprop, &lt_rule_adagrad, NULL};

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
  double first = i == 0 && o->rule->start ? o->rule->start(o->group[s->group]) : 0;
  int64_t bytes = s->p->numel * lt_dtype_size((lt_dtype)s->p->dtype);
  if (first == 0 && bytes > 0) memset(s->state[i]->data, 0, (size_t)bytes);
  for (int64_t j = 0; first != 0 && j < s->p->numel; j++) lt_tensor_write(s->state[i], j, first);
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
  if (!g->rows) LT_TRY(lt_check_plain(g, "apply_gradients", "a gradient"));
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

/* What is in memory of a gradient: of a sparse one, its rows. */
static const lt_tensor *elements_of(const lt_tensor *g) { return g->rows ? g->rows->values : g; }

static void replace_gradient(lt_slot *s, lt_tensor *own) {
  lt_tensor_release(s->g);
  s->g = own;
}

/* The gradient as the loop wants it: its rows each once and ascending, contiguous, not in the
 * variable's own memory, clipped. */
static lt_status settle_gradient(lt_optimizer *o, lt_slot *s) {
  lt_tensor *own, *sparse;
  if (s->g->rows) {
    LT_TRY(lt_rows_coalesce(s->g, &own));
    replace_gradient(s, own);
  }
  const lt_tensor *g = elements_of(s->g);
  if (g->contiguous && g->block != s->p->block && o->clip_value == 0) return LT_OK;
  LT_TRY(lt_tensor_new(o->ctx, "apply_gradients", (lt_dtype)g->dtype, &g->shape, &own));
  lt_status status = lt_tensor_copy(own, g);
  if (status == LT_OK && o->clip_value != 0) clip_values(own, o->clip_value);
  if (status == LT_OK && s->g->rows) {
    status = lt_rows_with(s->g, own, &sparse);
    if (status == LT_OK) replace_gradient(s, sparse);
  } else if (status == LT_OK) {
    replace_gradient(s, lt_tensor_retain(own));
  }
  lt_tensor_release(own);
  return status;
}

/* Elements of the gradient that one task moves: of a sparse one, whole rows. */
static int64_t chunk_of(const lt_tensor *g) {
  int64_t width = g->rows ? g->shape.size[1] : 1;
  return width < 2 ? CHUNK : width < CHUNK ? CHUNK / width * width : width;
}

/* All that can fail, before anything moves. Counts the chunks. */
static lt_status settle(lt_optimizer *o, int64_t *chunks, int64_t *elements) {
  *chunks = *elements = 0;
  for (int64_t i = 0; i < o->actives; i++) {
    lt_slot *s = &o->slot[o->active[i]];
    const lt_step *step = o->rule->step(o->group[s->group]);
    LT_TRY(settle_gradient(o, s));
    for (int j = 0; j < step->states; j++) LT_TRY(lt_slot_state(o, s, j));
    int64_t n = elements_of(s->g)->numel, most = chunk_of(s->g);
    s->first = *chunks;
    *chunks += (n + most - 1) / most;
    *elements += n;
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

/* A chunk: elements at..at+n-1 of a slot's gradient. */
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
    int64_t most = chunk_of(s->g), at = (number - s->first) * most;
    int64_t left = elements_of(s->g)->numel - at;
    work(&(chunk){.o = o,
                  .s = s,
                  .type = (lt_dtype)s->p->dtype,
                  .number = number,
                  .at = at,
                  .n = left < most ? left : most});
  }
}

static void measure(const chunk *c) {
  const char *g = elements_of(c->s->g)->data + c->at * lt_dtype_size(c->type);
  c->o->sums[c->number] = squares(c->o->ctx->simd, c->type, c->n, g);
}

/* How many of the gradient's elements from..end-1 belong to neighbours in the variable, from the
 * first one on; *at is where that lies there. */
static int64_t run_at(const lt_tensor *g, int64_t from, int64_t end, int64_t *at) {
  *at = from;
  if (!g->rows) return end - from;
  const int64_t *row = (const int64_t *)(const void *)g->rows->indices->data;
  int64_t width = g->shape.size[1], k = from / width, last = end / width, n = 1;
  while (k + n < last && row[k + n] == row[k] + n) n++;
  *at = (row[k] - 1) * width;
  return n * width;
}

static void move(const chunk *c) {
  const lt_slot *s = c->s;
  const lt_step *step = c->o->rule->step(c->o->group[s->group]);
  const char *g = elements_of(s->g)->data;
  int64_t size = lt_dtype_size(c->type), at, n, end = c->at + c->n;
  for (int64_t from = c->at; from < end; from += n) {
    n = run_at(s->g, from, end, &at);
    void *state[LT_RULE_STATES] = {NULL};
    for (int j = 0; j < LT_RULE_STATES; j++) {
      if (s->state[j]) state[j] = s->state[j]->data + at * size;
    }
    step->tile[c->o->ctx->simd][c->type](n, s->p->data + at * size, g + from * size, state[0],
                                         state[1], state[2], s->k);
  }
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
    const lt_tensor *g = elements_of(s->g);
    for (int64_t e = 0; e < g->numel; e++) *count += !isfinite(lt_tensor_read(g, e));
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

/* The squared norm of what the step does to n elements of the variable, from `at` on; g: of its
 * gradient. */
static double moved_squares(const lt_optimizer *o, const lt_slot *s, const double *k, int64_t at,
                            int64_t n, const char *g) {
  _Alignas(64) char room[1 + LT_RULE_STATES][TILE * sizeof(double)];
  lt_dtype type = (lt_dtype)s->p->dtype;
  const lt_step *step = o->rule->step(o->group[s->group]);
  int64_t size = lt_dtype_size(type), most;
  double moved = 0;
  for (int64_t end = at + n; at < end; at += most, g += most * size) {
    most = end - at < TILE ? end - at : TILE;
    size_t bytes = (size_t)(most * size);
    const char *p = s->p->data + at * size;
    memcpy(room[0], p, bytes);
    for (int j = 0; j < step->states; j++)
      memcpy(room[1 + j], s->state[j]->data + at * size, bytes);
    step->tile[o->ctx->simd][type](most, room[0], g, room[1], room[2], room[3], k);
    subtract(type, most, room[0], p);
    moved += squares(o->ctx->simd, type, most, room[0]);
  }
  return moved;
}

/* The gradient as settle_gradient leaves it, but not clipped. */
static lt_status readable(lt_tensor *gradient, lt_tensor **g) {
  if (gradient->rows) return lt_rows_coalesce(gradient, g);
  LT_TRY(lt_check_plain(gradient, "optim", "the gradient"));
  return lt_tensor_contiguous(gradient, g);
}

lt_status lt_slot_moved(const lt_optimizer *o, const lt_slot *s, lt_tensor *gradient,
                        double *update, double *weight) {
  lt_dtype type = (lt_dtype)s->p->dtype;
  const lt_step *step = o->rule->step(o->group[s->group]);
  double k[LT_RULE_NUMBERS], moved = 0, own = 0;
  *update = *weight = NAN;
  if (s->step == 0) return LT_OK;
  for (int j = 0; j < step->states; j++) { /* options have changed since */
    if (!s->state[j]) return LT_OK;
  }
  lt_tensor *g;
  LT_TRY(readable(gradient, &g));
  memcpy(k, s->k, sizeof k);
  if (o->rule->hold) o->rule->hold(k);
  uint64_t mode = flush_denormals();
  const lt_tensor *elements = elements_of(g);
  for (int64_t from = 0, n, at; from < elements->numel; from += n) {
    n = run_at(g, from, elements->numel, &at);
    moved += moved_squares(o, s, k, at, n, elements->data + from * lt_dtype_size(type));
  }
  for (int64_t at = 0; at < s->p->numel; at += TILE) {
    int64_t n = s->p->numel - at < TILE ? s->p->numel - at : TILE;
    own += squares(o->ctx->simd, type, n, s->p->data + at * lt_dtype_size(type));
  }
  restore_denormals(mode);
  *update = sqrt(moved);
  *weight = sqrt(own);
  lt_tensor_release(g);
  return LT_OK;
}
