/* From the rule that made a NaN or Inf back through the values that it read, each made by an op of
 * the tape, to the first one that is not finite. */
#include "tape/origin.h"
#include "kernels/finite.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_elementwise(const lt_op *op) { return op->kernel || op->elementwise; }

/* ---- At the rule ---------------------------------------------------------------------------- */

/* The element of t at a place of `shape`; false where t has none. */
static bool element_at(const lt_tensor *t, const lt_shape *shape, int64_t at, double *value) {
  int64_t offset = t && lt_is_plain(t) && at >= 0 ? lt_offset_at(t, shape, at) : -1;
  if (offset < 0) return false;
  *value = lt_tensor_read(t, offset);
  return true;
}

/* The gradient of an input in the shape of the result, before it is summed over broadcast
 * dimensions; belongs to s. */
static lt_tensor *whole_gradient(lt_scope *s, const lt_vjp *v, int input) {
  lt_vjp again = *v;
  again.s = s;
  again.whole = true;
  again.dx = calloc((size_t)v->inputs, sizeof *again.dx);
  if (!again.dx) return NULL;
  v->op->vjp(&again);
  lt_tensor *g = s->status == LT_OK && again.dx[input] ? lt_tensor_retain(again.dx[input]) : NULL;
  for (int i = 0; i < v->inputs; i++) lt_tensor_release(again.dx[i]);
  free(again.dx);
  return g ? lt_keep(s, g) : NULL;
}

static void find_place(lt_event *e, lt_vjp *v) {
  const lt_tensor *g = v->dx[e->input];
  lt_shape result = lt_output_spec(v, 0).shape;
  lt_scope s;
  lt_scope_open(&s, v->ctx);
  if (is_elementwise(v->op) && !lt_shape_equal(&g->shape, &result)) {
    lt_tensor *whole = whole_gradient(&s, v, e->input);
    if (whole && lt_shape_equal(&whole->shape, &result)) g = whole;
  }
  e->at = lt_first_nonfinite(g, false);
  e->exact = e->at >= 0 && is_elementwise(v->op) && lt_shape_equal(&g->shape, &result);
  e->shape = g->shape;
  if (g->rows) e->at = -1;
  element_at(g, &e->shape, e->at, &e->made);
  if (e->exact) element_at(v->dy[0], &e->shape, e->at, &e->dy);
  lt_scope_close(&s);
}

void lt_event_locate(lt_event *e, lt_vjp *v) {
  find_place(e, v);
  for (int i = 0; i < v->inputs + v->outputs && !e->read; i++) {
    const lt_tensor *t = i < v->inputs ? v->in[i] : v->out[i - v->inputs];
    double x;
    if (!t) continue;
    bool bad =
        e->exact && element_at(t, &e->shape, e->at, &x) ? !isfinite(x) : lt_look_at(t).nonfinite;
    if (bad) e->read = v->node->edge[i].id;
  }
}

/* ---- Back to the first ----------------------------------------------------------------------- */

/* A value that is not finite. */
typedef struct origin {
  lt_node *node;   /* that made it; NULL: it was there when the tape began */
  uint64_t id;     /* the value */
  lt_tensor *t;    /* the same; NULL: not known */
  int64_t at;      /* the element */
  lt_node *reader; /* whose input led here */
} origin;

static bool bad_input(lt_values *values, const origin *o, int i, bool nan, origin *from) {
  uint64_t id = lt_node_in(o->node, i)->id;
  lt_tensor *t = lt_values_find(values, id);
  if (!t || !lt_is_plain(t) || !lt_look_at(t).nonfinite) return false;
  int64_t at = lt_first_nonfinite(t, nan);
  if (is_elementwise(o->node->op) && o->t && o->at >= 0) { /* that same element, or none */
    int64_t offset = lt_offset_at(t, &o->t->shape, o->at);
    double x = offset >= 0 ? lt_tensor_read(t, offset) : 0;
    if (nan ? !isnan(x) : isfinite(x)) return false;
    if (lt_shape_equal(&t->shape, &o->t->shape)) at = o->at;
  }
  *from = (origin){lt_tape_find(values->tape, id), id, t, at, o->node};
  return at >= 0;
}

/* An input of a sum or view that is not known, while the others are finite. */
static bool unknown_input(lt_values *values, const origin *o, origin *from) {
  if (!o->node->op->linear) return false;
  for (int i = 0; i < o->node->inputs; i++) {
    uint64_t id = lt_node_in(o->node, i)->id;
    if (!id || lt_values_find(values, id) || lt_tape_find(values->tape, id)) continue;
    *from = (origin){NULL, id, NULL, -1, o->node};
    return true;
  }
  return false;
}

static double value_of(const origin *o) {
  double x = NAN;
  if (o->t) element_at(o->t, &o->t->shape, o->at, &x);
  return x;
}

static origin trace(lt_values *values, uint64_t id, lt_node *reader) {
  lt_tensor *t = lt_values_find(values, id);
  origin o = {lt_tape_find(values->tape, id), id, t, t ? lt_first_nonfinite(t, false) : -1, reader};
  origin made_nan = {0}; /* where a NaN came out of infinite numbers */
  while (o.node) {
    origin from = {0};
    bool nan = isnan(value_of(&o)), found = false;
    for (int i = 0; i < o.node->inputs && nan && !found; i++) {
      found = bad_input(values, &o, i, true, &from);
    }
    bool turns = nan && !found;
    for (int i = 0; i < o.node->inputs && !found; i++) {
      found = bad_input(values, &o, i, false, &from);
    }
    if (!found) turns = false;
    if (!found && !unknown_input(values, &o, &from)) break;
    if (turns) made_nan = o;
    o = from;
  }
  bool number = !o.node && o.t && o.t->weak; /* of the program's text: told by the op */
  /* A mask of -inf is meant; what makes NaN of it is not. */
  if (!o.node && made_nan.node && o.t && !o.t->variable && value_of(&o) == -INFINITY)
    return made_nan;
  if (number && o.reader) {
    lt_tensor *made = lt_values_find(values, lt_node_out(o.reader, 0)->id);
    o = (origin){o.reader, lt_node_out(o.reader, 0)->id, made,
                 made ? lt_first_nonfinite(made, false) : -1, NULL};
  }
  return o;
}

/* ---- Texts -------------------------------------------------------------------------------------
 */

static const char *number(double x, char text[32]) {
  if (isnan(x)) return "nan";
  snprintf(text, 32, "%.9g", x);
  return text;
}

/* " at element [2, 3]", nothing for 0-d. */
static const char *place_text(const lt_finding *f, char text[160]) {
  text[0] = '\0';
  for (int d = 0; d < f->ndim; d++) {
    size_t n = strlen(text);
    snprintf(text + n, 160 - n, d ? ", %lld" : " at element [%lld", (long long)f->element[d]);
  }
  return f->ndim > 0 ? strcat(text, "]") : text;
}

static void set_place(lt_finding *f, const lt_shape *shape, int64_t at) {
  f->ndim = at >= 0 ? shape->ndim : -1;
  for (int d = f->ndim - 1; d >= 0; d--) {
    f->element[d] = at % shape->size[d] + 1;
    at /= shape->size[d];
  }
}

/* The op's inputs at an element of its result. */
static void set_operands(lt_finding *f, lt_values *values, lt_node *n, const lt_shape *shape,
                         int64_t at) {
  if (!is_elementwise(n->op) || n->inputs > LT_MAX_INPUTS) return;
  f->operands = n->inputs;
  for (int i = 0; i < n->inputs; i++) {
    lt_tensor *t = lt_values_find(values, lt_node_in(n, i)->id);
    f->known[i] = element_at(t, shape, at, &f->operand[i]);
  }
}

/* "x = 0, other = 2" */
static const char *operands_text(const lt_finding *f, const lt_op *op, char text[256]) {
  char x[32];
  text[0] = '\0';
  for (int i = 0; i < f->operands; i++) {
    size_t n = strlen(text);
    if (!f->known[i] || !op->inputs[i].name || op->inputs[i].list) continue;
    snprintf(text + n, 256 - n, "%s%s = %s", n ? ", " : "", op->inputs[i].name,
             number(f->operand[i], x));
  }
  return text;
}

bool lt_op_zeroes(const lt_op *op) { return op->zero != NULL; }

lt_node *lt_node_after(const lt_tape *tape, lt_node *n, bool (*is)(const lt_op *op)) {
  lt_ids way = {0};
  lt_node *found = NULL;
  int64_t k = lt_tape_index(tape, lt_node_out(n, 0)->id);
  lt_status status = LT_OK;
  for (int i = 0; i < n->outputs && status == LT_OK; i++) {
    status = lt_ids_add(tape->ctx, &way, lt_node_out(n, i)->id);
  }
  for (k++; k > 0 && k < tape->count && !found && status == LT_OK; k++) {
    lt_node *m = tape->nodes[k];
    bool depends = false;
    for (int i = 0; i < m->inputs && !depends; i++) {
      depends = lt_ids_has(&way, lt_node_in(m, i)->id);
    }
    if (depends && is(m->op)) found = m;
    for (int i = 0; depends && i < m->outputs && status == LT_OK; i++) {
      status = lt_ids_add(tape->ctx, &way, lt_node_out(m, i)->id);
    }
  }
  lt_ids_clear(&way);
  return found;
}

/* Can it multiply by 0, or take something else? */
static bool masks(const lt_op *op) {
  return (op->zero && strcmp(op->zero, "masked") == 0) || strcmp(op->name, "mul") == 0;
}

/* What was given, and the harmless input to give instead. */
static void tell_trap(const lt_question *q, lt_values *values, lt_node *n, const lt_finding *f,
                      char *text, size_t room) {
  char at[LT_SITE_TEXT], masked[LT_SITE_TEXT], place[160], operands[256];
  const lt_context *ctx = q->tape->ctx;
  const lt_node *mask = lt_node_after(values->tape, n, masks);
  const char *op = n->called->name, *by = mask ? mask->called->name : "a product";
  lt_site_text(ctx, n->site, at);
  if (mask) lt_site_text(ctx, mask->site, masked);
  bool product = !mask || strcmp(mask->op->name, "mul") == 0;
  int length = snprintf(text, room,
                        "%s at %s got %s%s, in the branch that %s%s%s %s; its infinite derivative "
                        "was multiplied by 0, and 0 * inf is nan.\n",
                        op, at, operands_text(f, n->op, operands), place_text(f, place), by,
                        mask ? " at " : "", mask ? masked : "",
                        product ? "multiplied by 0" : "did not select");
  if (length < 0 || (size_t)length >= room) return;
  snprintf(text + length, room - (size_t)length,
           n->inputs == 1
               ? "  Give %s a harmless input there: %s(where(mask, x, 1)) instead of "
                 "where(mask, %s(x), 0)."
               : "  Give %s harmless operands there: choose by where among its operands, "
                 "not among its results.",
           op, op, op);
}

/* The value that was there before. */
static void tell_leaf(const lt_question *q, const origin *o, lt_finding *f, char *text,
                      size_t room) {
  lt_context *ctx = q->tape->ctx;
  char at[LT_SITE_TEXT], place[160], x[32], shown[112];
  lt_node *maker = lt_history_find(ctx, o->id);
  bool written = o->t && o->t->block->version > 0 && o->t->block->writer.chunk;
  f->where = written     ? o->t->block->writer
             : maker     ? maker->site
             : o->reader ? o->reader->site
                         : q->called;
  f->op = written ? "assign" : maker ? maker->called->name : "tensor";
  f->phase = "forward";
  if (o->t && o->at >= 0) {
    set_place(f, &o->t->shape, o->at);
    f->has_result = true;
    f->result = value_of(o);
  }
  shown[0] = '\0';
  if (o->t && o->t->name) snprintf(shown, sizeof shown, "'%.100s'", o->t->name);
  lt_site_text(ctx, f->where, at);
  snprintf(text, room, "the %s %s%sitself holds %s%s (%s at %s).\n  %s",
           o->t && o->t->variable ? "variable" : "tensor", shown, shown[0] ? " " : "",
           o->t ? number(f->result, x) : "nan or inf", place_text(f, place),
           written ? "written" : "made", at,
           o->t && o->t->variable ? "An earlier step or the loaded values put it there."
                                  : "Look at what it was made of.");
}

/* ---- Together ---------------------------------------------------------------------------------
 */

static bool any_nonfinite(int count, lt_tensor *const *t) {
  for (int i = 0; t && i < count; i++) {
    if (t[i] && lt_look_at(t[i]).nonfinite) return true;
  }
  return false;
}

/* No rule made it. */
static void tell_sum(const lt_question *q, const lt_event *e, lt_finding *f, char *text,
                     size_t room) {
  char at[LT_SITE_TEXT];
  bool seeds = any_nonfinite(q->seeds ? q->targets : 0, q->seeds);
  f->phase = "backward";
  f->where = e && !seeds ? e->node->site : q->called;
  f->op = e && !seeds ? e->node->closure.repeatable ? "checkpoint"
                        : e->node->closure.vjp      ? "custom_gradient"
                                                    : e->node->called->name
                      : "gradient";
  lt_site_text(q->tape->ctx, f->where, at);
  if (seeds)
    snprintf(text, room, "the output_gradients given at %s hold it.", at);
  else if (e && e->blind)
    snprintf(text, room,
             "the gradient of %s at %s is a function that returned it, or it came "
             "later.",
             f->op, at);
  else
    snprintf(text, room,
             "the finite gradients that meet at %s at %s add up beyond the largest "
             "number.\n  Scale the loss down.",
             f->op, at);
}

static void tell_forward(const lt_question *q, lt_values *values, const origin *o, lt_finding *f,
                         char *text, size_t room) {
  char at[LT_SITE_TEXT], place[160], operands[256], x[32];
  f->phase = "forward";
  f->where = o->node->site;
  f->op = o->node->called->name;
  if (o->t && o->at >= 0) {
    set_place(f, &o->t->shape, o->at);
    set_operands(f, values, o->node, &o->t->shape, o->at);
    f->has_result = true;
    f->result = value_of(o);
  }
  lt_site_text(q->tape->ctx, f->where, at);
  operands_text(f, o->node->op, operands);
  snprintf(text, room,
           "%s at %s made %s%s%s%s in the forward pass.\n  All values before it that "
           "are known are finite.",
           f->op, at, number(f->result, x), operands[0] ? " of " : "", operands,
           place_text(f, place));
}

static void tell_backward(const lt_question *q, lt_values *values, const lt_event *e, lt_finding *f,
                          char *text, size_t room) {
  char at[LT_SITE_TEXT], place[160], operands[256], x[32], y[32];
  f->phase = "backward";
  f->where = e->node->site;
  f->op = e->node->called->name;
  f->has_dy = e->exact;
  f->dy = e->dy;
  if (e->at >= 0) set_place(f, &e->shape, e->at);
  if (e->exact) {
    set_operands(f, values, e->node, &e->shape, e->at);
    lt_tensor *result = lt_values_find(values, lt_node_out(e->node, 0)->id);
    f->has_result = element_at(result, &e->shape, e->at, &f->result);
  }
  lt_site_text(q->tape->ctx, f->where, at);
  operands_text(f, e->node->op, operands);
  if (e->exact)
    snprintf(text, room,
             "the gradient of %s at %s is %s%s, where dy = %s%s%s.\n  All values of "
             "the forward pass there are finite.",
             f->op, at, number(e->made, x), place_text(f, place), number(e->dy, y),
             operands[0] ? ", " : "", operands);
  else
    snprintf(text, room,
             "the gradient of %s at %s is %s%s, though all that went into it is "
             "finite.",
             f->op, at, number(e->made, x), place_text(f, place));
}

void lt_tell_nonfinite(const lt_question *q, const lt_event *e, lt_values *values, lt_finding *f,
                       char *text, size_t room) {
  if (!e || e->blind || e->sum) {
    tell_sum(q, e, f, text, room);
    return;
  }
  bool target_bad = any_nonfinite(q->targets, q->target), trap = e->exact && e->dy == 0;
  origin o = {0};
  if (e->read) {
    o = trace(values, e->read, e->node);
  } else if (e->exact) { /* the op's own result there? */
    uint64_t id = lt_node_out(e->node, 0)->id;
    lt_tensor *t = lt_values_find(values, id);
    double x;
    if (element_at(t, &e->shape, e->at, &x) && !isfinite(x)) {
      o = (origin){e->node, id, t, e->at, NULL};
    }
  }
  if (o.id && !o.node) {
    tell_leaf(q, &o, f, text, room);
  } else if (o.id && (!trap || target_bad)) {
    tell_forward(q, values, &o, f, text, room);
  } else {
    lt_event first = *e;
    if (o.id && o.at >= 0 && o.t) { /* its value is where the infinite factor came from */
      first.node = o.node;
      first.exact = is_elementwise(o.node->op);
      first.shape = o.t->shape;
      first.at = o.at;
    }
    tell_backward(q, values, &first, f, text, room);
  }
  if (trap && o.id && !o.node) return;
  if (trap) tell_trap(q, values, o.node ? o.node : e->node, f, text, room);
}
