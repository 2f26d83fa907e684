/* The driver of lines. Neighbouring lines are gathered together, since they share cache lines. */
#include "kernels/lines.h"
#include "core/context.h"
#include "kernels/loop.h"
#include "kernels/parallel.h"

enum { PANEL = 64 /* lines gathered together */, SLOTS = 64 /* tasks, each with a scratch */ };

/* No more than this for the scratch of all tasks, where one line's fits. */
static const int64_t SCRATCH = (int64_t)1 << 28;

typedef struct operand {
  char *data;
  int64_t bytes;  /* per element */
  int64_t length; /* elements in a line */
  int64_t step;   /* from one to the next */
  bool direct;
  bool written;
  int64_t at;    /* its lines in the scratch */
  int64_t apart; /* from one line there to the next, elements */
} operand;

typedef struct work {
  lt_loop loop;
  int operands;
  operand o[LT_LINE_OPERANDS];
  lt_line_fn *fn;
  const void *argument;
  int64_t panel;  /* lines per panel */
  int64_t panels; /* per row of the loop */
  int64_t total;  /* panels in all */
  int64_t slots;
  int64_t scratch, caller; /* bytes per slot; where the caller's begins */
  char *memory;
} work;

/* Gathers `lines` lines, `apart` elements apart in y, eight elements of each at a time. */
#define GATHER(TYPE)                                                                               \
  do {                                                                                             \
    const TYPE *from = x;                                                                          \
    TYPE *to = y;                                                                                  \
    int64_t i = 0;                                                                                 \
    for (; i + 8 <= o->length; i += 8) {                                                           \
      for (int64_t l = 0; l < lines; l++) {                                                        \
        for (int e = 0; e < 8; e++) {                                                              \
          to[l * o->apart + i + e] = from[(i + e) * o->step + l * next];                           \
        }                                                                                          \
      }                                                                                            \
    }                                                                                              \
    for (; i < o->length; i++) {                                                                   \
      for (int64_t l = 0; l < lines; l++) to[l * o->apart + i] = from[i * o->step + l * next];     \
    }                                                                                              \
  } while (0)

#define SCATTER(TYPE)                                                                              \
  do {                                                                                             \
    const TYPE *from = y;                                                                          \
    TYPE *to = x;                                                                                  \
    for (int64_t i = 0; i < o->length; i++) {                                                      \
      for (int64_t l = 0; l < lines; l++) to[i * o->step + l * next] = from[l * o->apart + i];     \
    }                                                                                              \
  } while (0)

/* Between the tensor, its lines `next` elements apart, and the scratch. */
static void gather(const operand *o, int64_t lines, int64_t next, const void *x, void *y) {
  if (o->bytes == 4)
    GATHER(int32_t);
  else if (o->bytes == 8)
    GATHER(int64_t);
  else
    GATHER(char);
}
static void scatter(const operand *o, int64_t lines, int64_t next, void *x, const void *y) {
  if (o->bytes == 4)
    SCATTER(int32_t);
  else if (o->bytes == 8)
    SCATTER(int64_t);
  else
    SCATTER(char);
}

static void run_panel(const work *w, int64_t number, char *scratch) {
  int64_t offset[LT_LOOP_OPERANDS];
  int64_t first = number % w->panels * w->panel;
  int64_t lines = w->loop.length - first < w->panel ? w->loop.length - first : w->panel;
  lt_loop_row(&w->loop, number / w->panels, offset);
  for (int k = 0; k < w->operands; k++) {
    const operand *o = &w->o[k];
    offset[k] += first * w->loop.step[k];
    if (o->direct || o->written) continue;
    gather(o, lines, w->loop.step[k], o->data + offset[k] * o->bytes, scratch + o->at);
  }
  for (int64_t l = 0; l < lines; l++) {
    void *line[LT_LINE_OPERANDS];
    for (int k = 0; k < w->operands; k++) {
      const operand *o = &w->o[k];
      line[k] = o->direct ? o->data + (offset[k] + l * w->loop.step[k]) * o->bytes
                          : scratch + o->at + l * o->apart * o->bytes;
    }
    w->fn(w->argument, line, scratch + w->caller);
  }
  for (int k = 0; k < w->operands; k++) {
    const operand *o = &w->o[k];
    if (o->direct || !o->written) continue;
    scatter(o, lines, w->loop.step[k], o->data + offset[k] * o->bytes, scratch + o->at);
  }
}

static void task(void *argument, int64_t first, int64_t last) {
  const work *w = argument;
  for (int64_t slot = first; slot < last; slot++) {
    int64_t end = w->total * (slot + 1) / w->slots;
    for (int64_t p = w->total * slot / w->slots; p < end; p++) {
      run_panel(w, p, w->memory + slot * w->scratch);
    }
  }
}

static int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

lt_status lt_lines(lt_context *ctx, int dim, int operands, lt_tensor *const *t, int written,
                   lt_line_fn *fn, const void *argument, int64_t scratch, int64_t cost) {
  work w = {.operands = operands, .fn = fn, .argument = argument, .panel = PANEL};
  lt_shape others = {0};
  int64_t strides[LT_LINE_OPERANDS][LT_MAX_RANK];
  const int64_t *lists[LT_LINE_OPERANDS];
  int64_t longest = 1;
  for (int d = 0; d < t[0]->shape.ndim; d++) {
    if (d == dim) continue;
    for (int k = 0; k < operands; k++) strides[k][others.ndim] = t[k]->strides[d];
    others.size[others.ndim++] = t[0]->shape.size[d];
  }
  for (int k = 0; k < operands; k++) {
    operand *o = &w.o[k];
    lists[k] = strides[k];
    o->data = t[k]->data;
    o->bytes = lt_dtype_size((lt_dtype)t[k]->dtype);
    o->length = lt_line_length(t[k], dim);
    o->step = t[k]->shape.ndim == 0 ? 1 : t[k]->strides[dim];
    o->direct = o->step == 1 || o->length <= 1;
    o->written = k >= operands - written;
    if (o->length > longest) longest = o->length;
  }
  lt_loop_build(&w.loop, &others, operands, lists);
  if (w.loop.rows * w.loop.length == 0) return LT_OK;
  while (w.panel > 1 && w.panel * longest > 1 << 17) w.panel /= 2;
  if (w.panel > w.loop.length) w.panel = w.loop.length;
  w.panels = (w.loop.length + w.panel - 1) / w.panel;
  w.total = w.loop.rows * w.panels;
  for (int k = 0; k < operands; k++) {
    operand *o = &w.o[k];
    if (o->direct) continue;
    o->at = w.caller;
    o->apart = (aligned(o->length * o->bytes) + 64) / o->bytes; /* lines must not share sets */
    w.caller += w.panel * o->apart * o->bytes;
  }
  w.scratch = w.caller + aligned(scratch);
  w.slots = w.total < SLOTS ? w.total : SLOTS;
  while (w.slots > 1 && w.slots * w.scratch > SCRATCH) w.slots /= 2;
  lt_block *block = NULL;
  if (w.scratch > 0) {
    LT_TRY(lt_block_new(ctx, w.slots * w.scratch, &block));
    w.memory = block->data;
  }
  lt_status status = lt_parallel(ctx, w.slots, w.loop.rows * w.loop.length * cost, task, &w);
  if (block) lt_block_release(block);
  return status;
}
