/* Running an op: check, infer, allocate, compute, record. */
#include "kernels/elementwise.h"
#include "ops/op.h"
#include "tape/tape.h"
#include "tape/vmap.h"

#include <string.h>

/* ---- Options ---------------------------------------------------------------------------- */

static int words_of(const lt_option *o) {
  switch (o->type) {
  case LT_OPTION_DIMS:
  case LT_OPTION_SIZES:
  case LT_OPTION_INTS:
  case LT_OPTION_NUMBERS: return LT_LIST_WORDS;
  case LT_OPTION_PAIRS: return LT_PAIRS_WORDS;
  case LT_OPTION_TEXT: return LT_TEXT_WORDS;
  default: return 1;
  }
}

static int offset_of(const lt_op *op, int option) {
  int at = 0;
  for (int i = 0; i < option; i++) at += words_of(&op->options[i]);
  return at;
}

int lt_op_inputs(const lt_op *op) {
  int n = 0;
  while (n < LT_MAX_INPUTS && op->inputs[n].name) n++;
  return n;
}

int lt_op_options(const lt_op *op) {
  int n = 0;
  while (n < LT_MAX_OPTIONS && op->options[n].name) n++;
  return n;
}

int lt_op_option_index(const lt_op *op, const char *name) {
  for (int i = 0; i < LT_MAX_OPTIONS && op->options[i].name; i++) {
    if (strcmp(op->options[i].name, name) == 0) return i;
  }
  return -1;
}

void lt_attrs_default(lt_attrs *a, const lt_op *op) {
  a->given = 0;
  int at = 0;
  for (int i = 0; i < LT_MAX_OPTIONS && op->options[i].name; i++) {
    const lt_option *o = &op->options[i];
    int words = words_of(o);
    if (words > 1) {
      memset(&a->word[at], 0, (size_t)words * sizeof a->word[0]);
      a->word[at].i = -1;
    } else if (o->type == LT_OPTION_NUMBER) {
      a->word[at].f = o->value;
    } else {
      a->word[at].i = (int64_t)o->value;
    }
    at += words;
  }
  a->count = at;
}

static lt_word *word_to_set(lt_attrs *a, const lt_op *op, int option) {
  a->given |= 1u << option;
  return &a->word[offset_of(op, option)];
}

void lt_attrs_set_int(lt_attrs *a, const lt_op *op, int option, int64_t value) {
  word_to_set(a, op, option)->i = value;
}

void lt_attrs_set_number(lt_attrs *a, const lt_op *op, int option, double value) {
  word_to_set(a, op, option)->f = value;
}

void lt_attrs_set_list(lt_attrs *a, const lt_op *op, int option, int n, const int64_t *list) {
  lt_word *w = word_to_set(a, op, option);
  w[0].i = n;
  for (int i = 0; i < n; i++) w[1 + i].i = list[i];
}

void lt_attrs_set_numbers(lt_attrs *a, const lt_op *op, int option, int n, const double *list) {
  lt_word *w = word_to_set(a, op, option);
  w[0].i = n;
  for (int i = 0; i < n; i++) w[1 + i].f = list[i];
}

void lt_attrs_set_word(lt_attrs *a, const lt_op *op, int option, int index) {
  word_to_set(a, op, option)->i = -2 - index;
}

void lt_attrs_set_text(lt_attrs *a, const lt_op *op, int option, int n, const char *text) {
  lt_word *w = word_to_set(a, op, option);
  w[0].i = n;
  memcpy(w + 1, text, (size_t)n);
}

bool lt_given(const lt_attrs *a, int option) { return a->given >> option & 1; }

int64_t lt_get_int(const lt_attrs *a, const lt_op *op, int option) {
  return a->word[offset_of(op, option)].i;
}

double lt_get_number(const lt_attrs *a, const lt_op *op, int option) {
  return a->word[offset_of(op, option)].f;
}

const int64_t *lt_get_list(const lt_attrs *a, const lt_op *op, int option, int *n) {
  const lt_word *w = &a->word[offset_of(op, option)];
  *n = w[0].i < 0 ? 0 : (int)w[0].i;
  return w[0].i < 0 ? NULL : &w[1].i;
}

const double *lt_get_numbers(const lt_attrs *a, const lt_op *op, int option, int *n) {
  const lt_word *w = &a->word[offset_of(op, option)];
  *n = w[0].i < 0 ? 0 : (int)w[0].i;
  return w[0].i < 0 ? NULL : &w[1].f;
}

int lt_get_word(const lt_attrs *a, const lt_op *op, int option) {
  int64_t length = a->word[offset_of(op, option)].i;
  return length <= -2 ? (int)(-2 - length) : -1;
}

const char *lt_get_text(const lt_attrs *a, const lt_op *op, int option, int *n) {
  const lt_word *w = &a->word[offset_of(op, option)];
  *n = w[0].i < 0 ? 0 : (int)w[0].i;
  return (const char *)(w + 1);
}

const char *lt_choice_name(const lt_option *option, int64_t index, char text[32]) {
  const char *p = option->choices;
  for (; index > 0; index--) p = strchr(p, ' ') + 1;
  size_t n = strcspn(p, " ");
  memcpy(text, p, n);
  text[n] = '\0';
  return text;
}

/* ---- Common infer rules ------------------------------------------------------------------ */

lt_dtype lt_result_type(const lt_call *c) {
  /* [0] tensors with dimensions, [1] 0-d tensors, [2] numbers; -1 where there is none */
  int level[3] = {-1, -1, -1};
  for (int i = 0; i < c->inputs; i++) {
    const lt_tensor *t = c->in[i];
    if (!t) continue;
    int *l = &level[t->weak ? 2 : t->shape.ndim == 0 ? 1 : 0];
    *l = *l < 0 ? t->dtype : (int)lt_dtype_promote((lt_dtype)*l, (lt_dtype)t->dtype);
  }
  /* A number is of its category's default type. */
  if (level[2] >= 0 && lt_dtype_is_float((lt_dtype)level[2])) level[2] = (int)c->ctx->default_dtype;
  int result = -1;
  for (int l = 0; l < 3; l++) {
    if (level[l] < 0) continue;
    if (result < 0 || lt_dtype_category((lt_dtype)level[l]) > lt_dtype_category((lt_dtype)result)) {
      result = level[l];
    }
  }
  return (lt_dtype)result;
}

static lt_status broadcast_inputs(lt_call *c) {
  c->result[0].shape = c->in[0]->shape;
  for (int i = 1; i < c->inputs; i++) {
    if (!c->in[i] || lt_shape_broadcast(&c->result[0].shape, &c->in[i]->shape)) continue;
    char a[LT_SHAPE_TEXT], b[LT_SHAPE_TEXT];
    return lt_fail(c->ctx, "%s: shapes do not broadcast (%s and %s)", c->op->name,
                   lt_shape_text(&c->result[0].shape, a), lt_shape_text(&c->in[i]->shape, b));
  }
  return LT_OK;
}

lt_status lt_infer_elementwise(lt_call *c) {
  LT_TRY(broadcast_inputs(c));
  c->dtype = lt_result_type(c);
  if (c->op->inputs[0].accepts == LT_FLOAT && !lt_dtype_is_float(c->dtype)) {
    c->dtype = c->ctx->default_dtype;
  }
  c->result[0].dtype = c->dtype;
  return LT_OK;
}

lt_status lt_infer_predicate(lt_call *c) {
  LT_TRY(lt_infer_elementwise(c));
  c->result[0].dtype = LT_BOOL;
  return LT_OK;
}

lt_status lt_infer_same(lt_call *c) {
  c->dtype = (lt_dtype)c->in[0]->dtype;
  c->result[0] = (lt_spec){c->dtype, c->in[0]->shape};
  return LT_OK;
}

/* ---- Checks ----------------------------------------------------------------------------- */

static lt_status check_accepts(lt_call *c, const lt_input *input, const lt_tensor *t) {
  const char *takes = NULL;
  if (input->accepts == LT_FLOAT && !c->op->kernel && !lt_dtype_is_float((lt_dtype)t->dtype)) {
    takes = "a float tensor (x:to(\"float32\") makes one)";
  } else if (input->accepts == LT_INDEX && t->dtype != LT_INT64 && t->dtype != LT_INT32) {
    takes = "int64 or int32";
  } else if (input->accepts == LT_MASK && t->dtype != LT_BOOL) {
    takes = "bool";
  }
  if (!takes) return LT_OK;
  return lt_fail(c->ctx, "%s: %s must be %s, got %s", c->op->name, input->name, takes,
                 lt_dtype_name((lt_dtype)t->dtype));
}

/* Was the memory of a recorded value overwritten through another window on it? */
static lt_status check_fresh(lt_call *c, const lt_tensor *t) {
  if (t->version == t->block->version || t->variable || !(t->tapes & c->ctx->listening)) {
    return LT_OK;
  }
  char at[LT_SITE_TEXT];
  return lt_fail(
      c->ctx, "%s: '%s' was overwritten in place at %s after a tape recorded it [overwritten]",
      c->op->name, t->name ? t->name : "unnamed", lt_site_text(c->ctx, t->block->writer, at));
}

static lt_status check(lt_call *c) {
  int declared = lt_op_inputs(c->op), last = declared - 1;
  bool list = declared > 0 && c->op->inputs[last].list;
  if (list ? c->inputs < declared : c->inputs != declared) {
    return lt_fail(c->ctx, "%s: takes %d tensors, got %d", c->op->name, declared, c->inputs);
  }
  for (int i = 0; i < c->inputs; i++) {
    const lt_input *input = &c->op->inputs[i < last ? i : last];
    if (!c->in[i]) {
      if (input->optional) continue;
      return lt_fail(c->ctx, "%s: %s is missing", c->op->name, input->name);
    }
    if (c->in[i]->ctx != c->ctx) {
      return lt_fail(c->ctx, "%s: %s belongs to another Lua state", c->op->name, input->name);
    }
    if (!c->in[i]->over) LT_TRY(lt_check_plain(c->in[i], c->op->name, input->name));
    LT_TRY(check_accepts(c, input, c->in[i]));
    if (c->in[i]->over) {
      int level;
      LT_TRY(lt_vmap_level(c->ctx, c->in[i], &level));
      if (level > c->level) c->level = level;
    }
    LT_TRY(check_fresh(c, c->in[i]));
  }
  for (int i = 0; i < LT_MAX_OPTIONS && c->op->options[i].name; i++) {
    if (c->op->options[i].required && !lt_given(c->attrs, i)) {
      return lt_fail(c->ctx, "%s: %s is missing", c->op->name, c->op->options[i].name);
    }
  }
  return LT_OK;
}

/* ---- Tiles -------------------------------------------------------------------------------- */

lt_status lt_elementwise(const lt_call *c, const lt_kernel *kernel) {
  lt_tile *tile = kernel->tile[c->ctx->simd][c->dtype];
  double k[LT_MAX_OPTIONS] = {0}; /* tiles read them all before they start */
  lt_dtype as[LT_TILE_INPUTS];
  if (!tile) return lt_fail(c->ctx, "%s: not for %s", c->op->name, lt_dtype_name(c->dtype));
  if (c->inputs > LT_TILE_INPUTS) return lt_fail(c->ctx, "%s: too many tensors", c->op->name);
  for (int i = 0; i < LT_MAX_OPTIONS && c->op->options[i].name; i++) {
    k[i] = c->op->options[i].type == LT_OPTION_NUMBER ? lt_get_number(c->attrs, c->op, i)
                                                      : (double)lt_get_int(c->attrs, c->op, i);
  }
  for (int i = 0; i < c->inputs; i++) {
    as[i] = c->op->inputs[i].accepts == LT_MASK ? LT_BOOL : c->dtype;
  }
  return lt_tiles(tile, c->out[0], c->inputs, c->in, as, k);
}

/* ---- Running ---------------------------------------------------------------------------- */

/* An op that is made of others. */
static lt_status compose(lt_call *c) {
  if (c->op->infer) LT_TRY(c->op->infer(c));
  c->outputs = 1;
  lt_scope s;
  lt_scope_open(&s, c->ctx);
  const lt_op *outer = c->ctx->composed;
  if (!outer) c->ctx->composed = c->op;
  c->op->compose(c, &s);
  c->ctx->composed = outer;
  for (int i = 0; i < c->outputs; i++) {
    if (s.status == LT_OK)
      lt_tensor_retain(c->out[i]);
    else
      c->out[i] = NULL;
  }
  lt_scope_close(&s);
  return s.status;
}

static lt_status execute(lt_call *c) {
  LT_TRY(lt_check_interrupt(c->ctx));
  LT_TRY(check(c));
  if (c->op->compose) return compose(c);
  c->outputs = 1;
  if (c->op->hidden) c->recorded = c->ctx->wants_hidden || lt_is_recorded(c);
  if (c->level > 0) return lt_vmap_run(c);
  LT_TRY(c->op->infer(c));
  if (c->outputs > 1 && c->outputs > c->op->results) {
    return lt_fail(c->ctx, "%s: its block does not announce %d results", c->op->name, c->outputs);
  }
  for (int i = 0; i < c->outputs && !c->op->view; i++) {
    LT_TRY(lt_tensor_new(c->ctx, c->op->name, c->result[i].dtype, &c->result[i].shape, &c->out[i]));
  }
  LT_TRY(c->op->kernel ? lt_elementwise(c, c->op->kernel) : c->op->forward(c));
  return lt_record(c, NULL);
}

lt_status lt_run(lt_context *ctx, const lt_op *op, int inputs, lt_tensor *const *in,
                 const lt_attrs *attrs, int *outputs, lt_tensor *out[LT_MAX_OUTPUTS]) {
  lt_attrs own;
  if (!attrs) {
    lt_attrs_default(&own, op);
    attrs = &own;
  }
  lt_call c = {.ctx = ctx, .op = op, .attrs = attrs, .own = &own, .inputs = inputs, .in = in};
  uint64_t drawn = ctx->random.offset;
  lt_status status = execute(&c);
  if (status == LT_ERROR) lt_fail_as(ctx, op->name); /* whichever part of it refused */
  if (status != LT_OK) ctx->random.offset = drawn;   /* a failed call may be made again */
  for (int i = 0; i < c.outputs; i++) {
    if (status == LT_OK)
      out[i] = c.out[i];
    else
      lt_tensor_release(c.out[i]);
  }
  *outputs = status == LT_OK ? c.outputs : 0;
  return status;
}
