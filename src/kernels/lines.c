/* The driver of lines. Neighbouring lines are gathered together, since they share cache lines. */
#include "kernels/lines.h"
#include "core/context.h"
#include "kernels/loop.h"
#include "kernels/parallel.h"

enum { PANEL = 16 /* lines gathered together */, SLOTS = 64 /* tasks, each with a scratch */ };

/* No more than this for the scratch of all tasks, where one line's fits. */
static const int64_t SCRATCH = (int64_t)1 << 28;

typedef struct operand {
  char *data;
  int64_t bytes;  /* per element */
  int64_t length; /* elements in a line */
  int64_t step;   /* from one to the next */
  bool direct;
  bool written;
  int64_t at; /* its lines in the scratch */
} operand;

typedef struct work {
  lt_loop loop;
  int operands;
  operand o[LT_LINE_OPERANDS];
  lt_line_fn *fn;
  const void *argument;
  int64_t panel;           /* lines per panel */
  int64_t panels;          /* per row of the loop */
  int64_t total;           /* panels in all */
  int64_t slots;
  int64_t scratch, caller; /* bytes per slot; where the caller's begins */
  char *memory;
} work;

#define TRANSPOSE(TYPE)                                                                            \
  do {                                                                                             \
    const TYPE *from = x;                                                                          \
    TYPE *to = y;                                                                                  \
    for (int64_t i = 0; i < rows; i++) {                                                           \
      for (int64_t j = 0; j < columns; j++) {                                                      \
        to[i * to_row + j * to_column] = from[i * from_row + j * from_column];                     \
      }                                                                                            \
    }                                                                                              \
  } while (0)

static void copy_panel(int64_t bytes, int64_t rows, int64_t columns, const void *x,
                       int64_t from_row, int64_t from_column, void *y, int64_t to_row,
                       int64_t to_column) {
  if (bytes == 4) TRANSPOSE(int32_t);
  else if (bytes == 8) TRANSPOSE(int64_t);
  else TRANSPOSE(char);
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
    copy_panel(o->bytes, o->length, lines, o->data + offset[k] * o->bytes, o->step,
               w->loop.step[k], scratch + o->at, 1, o->length);
  }
  for (int64_t l = 0; l < lines; l++) {
    void *line[LT_LINE_OPERANDS];
    for (int k = 0; k < w->operands; k++) {
      const operand *o = &w->o[k];
      line[k] = o->direct ? o->data + (offset[k] + l * w->loop.step[k]) * o->bytes
                          : scratch + o->at + l * o->length * o->bytes;
    }
    w->fn(w->argument, line, scratch + w->caller);
  }
  for (int k = 0; k < w->operands; k++) {
    const operand *o = &w->o[k];
    if (o->direct || !o->written) continue;
    copy_panel(o->bytes, o->length, lines, scratch + o->at, 1, o->length,
               o->data + offset[k] * o->bytes, o->step, w->loop.step[k]);
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
  while (w.panel > 1 && w.panel * longest > 1 << 15) w.panel /= 2;
  if (w.panel > w.loop.length) w.panel = w.loop.length;
  w.panels = (w.loop.length + w.panel - 1) / w.panel;
  w.total = w.loop.rows * w.panels;
  for (int k = 0; k < operands; k++) {
    w.o[k].at = w.caller;
    if (!w.o[k].direct) w.caller += aligned(w.panel * w.o[k].length * w.o[k].bytes);
  }
  w.scratch = w.caller + aligned(scratch);
  w.slots = w.total < SLOTS ? w.total : SLOTS;
  while (w.slots > 1 && w.slots * w.scratch > SCRATCH) w.slots /= 2;
  lt_block *block = NULL;
  if (w.scratch > 0) {
    LT_TRY(lt_block_new(ctx, w.slots * w.scratch, &block));
    w.memory = block->data;
  }
  lt_status status =
      lt_parallel(ctx, w.slots, w.loop.rows * w.loop.length * cost, task, &w);
  if (block) lt_block_release(block);
  return status;
}
