/* Einstein summation. Every letter is a dimension; operands are contracted two by two, and each
 * such step is one (batched) product of matrices, or a plain product where nothing is summed.
 * Which two come next is chosen greedily, by how much smaller the result is than they are
 * (the greedy order of opt_einsum, Smith & Gray 2018); equal ones from left to right. */
#include "ops/family.h"
#include "ops/linalg.h"

#include <string.h>

enum {
  EQUATION,
  LETTERS = 52,                   /* A-Z, a-z, in the order of an implicit result */
  LABELS = LETTERS + LT_MAX_RANK, /* and the dimensions of the ellipsis */
  MAX_OPERANDS = 64
};

/* A set of labels. */
#define BIT(label) ((uint64_t)1 << (label))

/* Labels of one operand or of the result; `gap` is where the ellipsis stands, -1 for nowhere. */
typedef struct subscripts {
  int n, gap;
  uint8_t label[LT_MAX_TEXT + LT_MAX_RANK];
} subscripts;

typedef struct equation {
  int operands;
  subscripts in[MAX_OPERANDS], out;
  int64_t size[LABELS]; /* -1: not there */
} equation;

/* ---- Reading ----------------------------------------------------------------------------------
 */

static int label_of(char letter) {
  if (letter >= 'A' && letter <= 'Z') return letter - 'A';
  if (letter >= 'a' && letter <= 'z') return letter - 'a' + 26;
  return -1;
}

static char letter_of(int label) { return (char)(label < 26 ? 'A' + label : 'a' + label - 26); }

/* Letters and at most one ellipsis, up to a comma, an arrow or the end. */
static lt_status read_subscripts(lt_context *ctx, const char **at, const char *end, subscripts *r) {
  r->n = 0;
  r->gap = -1;
  for (; *at < end && **at != ',' && **at != '-'; (*at)++) {
    if (**at == ' ') continue;
    if (**at == '.') {
      if (end - *at < 3 || memcmp(*at, "...", 3) != 0 || r->gap >= 0) {
        return lt_fail(ctx, "einsum: a '.' in the equation belongs to no ellipsis '...', of which "
                            "an operand has one at most");
      }
      r->gap = r->n;
      *at += 2;
      continue;
    }
    int label = label_of(**at);
    if (label < 0) {
      bool shown = **at > ' ' && **at <= '~';
      return lt_fail(ctx, "einsum: %s%c%s in the equation is no letter", shown ? "'" : "a byte",
                     shown ? **at : ' ', shown ? "'" : "");
    }
    r->label[r->n++] = (uint8_t)label;
  }
  return LT_OK;
}

/* Puts the labels of the last `count` of `all` ellipsis dimensions into their place. */
static void fill_gap(subscripts *r, int all, int count) {
  if (r->gap < 0) return;
  memmove(r->label + r->gap + count, r->label + r->gap, (size_t)(r->n - r->gap));
  for (int i = 0; i < count; i++) r->label[r->gap + i] = (uint8_t)(LETTERS + all - count + i);
  r->n += count;
}

/* The letters that come once, in alphabetical order, behind the ellipsis. */
static void implicit_result(equation *e) {
  int times[LETTERS] = {0};
  for (int i = 0; i < e->operands; i++) {
    for (int k = 0; k < e->in[i].n; k++) times[e->in[i].label[k]]++;
  }
  e->out = (subscripts){0};
  for (int label = 0; label < LETTERS; label++) {
    if (times[label] == 1) e->out.label[e->out.n++] = (uint8_t)label;
  }
}

static lt_status read_equation(lt_call *c, equation *e, bool *explicit_result) {
  int n;
  const char *at = lt_get_text(c->attrs, c->op, EQUATION, &n), *end = at + n;
  for (e->operands = 0;; at++) {
    if (e->operands == MAX_OPERANDS) {
      return lt_fail(c->ctx, "einsum: takes at most %d operands", MAX_OPERANDS);
    }
    LT_TRY(read_subscripts(c->ctx, &at, end, &e->in[e->operands++]));
    if (at == end || *at != ',') break;
  }
  *explicit_result = at < end;
  if (at == end) {
    implicit_result(e);
    return LT_OK;
  }
  if (end - at < 2 || at[1] != '>') {
    return lt_fail(c->ctx, "einsum: a '-' in the equation belongs to no arrow '->'");
  }
  at += 2;
  LT_TRY(read_subscripts(c->ctx, &at, end, &e->out));
  if (at < end) return lt_fail(c->ctx, "einsum: '%c' in the equation behind the arrow", *at);
  return LT_OK;
}

/* ---- Checking ----------------------------------------------------------------------------------
 */

static void label_text(int label, char text[40]) {
  if (label < LETTERS) {
    memcpy(text, "'?'", 4);
    text[1] = letter_of(label);
  } else {
    memcpy(text, "a dimension of the ellipsis", 28);
  }
}

/* Sizes of the labels; 1 stretches, except against itself. */
static lt_status take_sizes(lt_call *c, equation *e, int i) {
  const lt_shape *x = &c->in[i]->shape;
  const subscripts *r = &e->in[i];
  char shape[LT_SHAPE_TEXT], label[40];
  for (int d = 0; d < r->n; d++) {
    int64_t *size = &e->size[r->label[d]];
    label_text(r->label[d], label);
    for (int k = 0; k < d; k++) {
      if (r->label[k] != r->label[d] || x->size[k] == x->size[d]) continue;
      return lt_fail(c->ctx, "einsum: %s comes twice in operand %d with different sizes (%s)",
                     label, i + 1, lt_shape_text(x, shape));
    }
    if (*size < 0 || *size == 1) {
      *size = x->size[d];
    } else if (x->size[d] != 1 && x->size[d] != *size) {
      return lt_fail(c->ctx, "einsum: %s has size %lld in operand %d (%s), and %lld before it",
                     label, (long long)x->size[d], i + 1, lt_shape_text(x, shape),
                     (long long)*size);
    }
  }
  return LT_OK;
}

static lt_status check_result(lt_call *c, const equation *e) {
  uint64_t seen = 0;
  lt_shape shape = {0};
  if (e->out.n > LT_MAX_RANK) {
    return lt_fail(c->ctx, "einsum: the result has %d dimensions, at most %d are possible",
                   e->out.n, LT_MAX_RANK);
  }
  for (int d = 0; d < e->out.n; d++) {
    int label = e->out.label[d];
    if (e->size[label] < 0) {
      return lt_fail(c->ctx, "einsum: '%c' of the result is in no operand", letter_of(label));
    }
    if (seen & BIT(label)) {
      return lt_fail(c->ctx, "einsum: '%c' comes twice in the result", letter_of(label));
    }
    seen |= BIT(label);
    shape.size[shape.ndim++] = e->size[label];
  }
  return lt_shape_check(c->ctx, "einsum", &shape);
}

/* The whole equation, with labels for the dimensions of its ellipses. */
static lt_status prepare(lt_call *c, equation *e) {
  bool explicit_result = false;
  int most = 0;
  char shape[LT_SHAPE_TEXT];
  LT_TRY(read_equation(c, e, &explicit_result));
  if (e->operands != c->inputs) {
    return lt_fail(c->ctx, "einsum: the equation has %d operand%s, %d tensor%s given", e->operands,
                   e->operands > 1 ? "s" : "", c->inputs, c->inputs > 1 ? "s were" : " was");
  }
  for (int i = 0; i < e->operands; i++) {
    int rest = c->in[i]->shape.ndim - e->in[i].n;
    if (rest < 0 || (rest > 0 && e->in[i].gap < 0)) {
      return lt_fail(c->ctx, "einsum: operand %d has %d letters for a tensor of %d dimensions (%s)",
                     i + 1, e->in[i].n, c->in[i]->shape.ndim,
                     lt_shape_text(&c->in[i]->shape, shape));
    }
    if (rest > most) most = rest;
  }
  for (int l = 0; l < LABELS; l++) e->size[l] = -1;
  for (int i = 0; i < e->operands; i++) {
    fill_gap(&e->in[i], most, c->in[i]->shape.ndim - e->in[i].n);
    LT_TRY(take_sizes(c, e, i));
  }
  if (!explicit_result) e->out.gap = 0;
  fill_gap(&e->out, most, most);
  return check_result(c, e);
}

static lt_status einsum_infer(lt_call *c) {
  equation e;
  LT_TRY(lt_check_same_dtype(c));
  return prepare(c, &e);
}

/* ---- Operands ----------------------------------------------------------------------------------
 */

/* A tensor whose dimensions have labels, none of them twice. */
typedef struct term {
  lt_tensor *t;
  uint64_t set;
  int n;
  uint8_t label[LT_MAX_RANK];
} term;

static void drop(term *x, int d) {
  x->n--;
  memmove(x->label + d, x->label + d + 1, (size_t)(x->n - d));
}

/* A repeated letter is a diagonal; a size of 1 that another operand stretches is no dimension. */
static term make_term(lt_scope *s, lt_tensor *t, const subscripts *r, const int64_t *size) {
  term x = {.t = t, .n = r->n};
  lt_attrs attrs;
  memcpy(x.label, r->label, (size_t)r->n);
  for (int d = 0; d < x.n; d++) {
    uint8_t label = x.label[d];
    for (int k = x.n - 1; k > d; k--) {
      if (x.label[k] != label) continue;
      lt_attrs_default(&attrs, &lt_op_diagonal);
      lt_attrs_set_int(&attrs, &lt_op_diagonal, 1, d);
      lt_attrs_set_int(&attrs, &lt_op_diagonal, 2, k);
      x.t = lt_do1(s, &lt_op_diagonal, &attrs, x.t); /* becomes the last dimension */
      drop(&x, k);
      drop(&x, d);
      x.label[x.n++] = label;
      d = -1; /* from the start again */
      break;
    }
  }
  int64_t ones[LT_MAX_RANK];
  int n = 0;
  for (int d = x.n - 1; d >= 0 && x.t; d--) {
    if (x.t->shape.size[d] == size[x.label[d]]) continue;
    ones[n++] = d;
    drop(&x, d);
  }
  if (n > 0) {
    lt_attrs_default(&attrs, &lt_op_squeeze);
    lt_attrs_set_list(&attrs, &lt_op_squeeze, 0, n, ones);
    x.t = lt_do1(s, &lt_op_squeeze, &attrs, x.t);
  }
  for (int d = 0; d < x.n; d++) x.set |= BIT(x.label[d]);
  return x;
}

/* Sums over what nobody needs. */
static void sum_out(lt_scope *s, term *x, uint64_t needed) {
  int64_t dims[LT_MAX_RANK];
  int n = 0;
  for (int d = x->n - 1; d >= 0; d--) {
    if (needed & BIT(x->label[d])) continue;
    dims[n++] = d;
    drop(x, d);
  }
  x->set &= needed;
  if (n > 0) x->t = lt_sum_over(s, x->t, n, dims, false);
}

/* x with its dimensions in the order of `label`, a view and a value of its own. */
static lt_tensor *ordered(lt_scope *s, const term *x, const uint8_t *label) {
  int64_t order[LT_MAX_RANK];
  for (int i = 0; i < x->n; i++) {
    for (int d = 0; d < x->n; d++) {
      if (x->label[d] == label[i]) order[i] = d;
    }
  }
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_permute);
  lt_attrs_set_list(&attrs, &lt_op_permute, 0, x->n, order);
  return lt_do1(s, &lt_op_permute, &attrs, x->t);
}

/* ---- Contracting two ----------------------------------------------------------------------------
 */

/* Labels in an order; `product` of their sizes. */
typedef struct group {
  int n;
  uint8_t label[2 * LT_MAX_RANK];
  int64_t product;
} group;

static group group_of(const term *x, uint64_t set, const int64_t *size) {
  group g = {.product = 1};
  for (int d = 0; d < x->n; d++) {
    if (!(set & BIT(x->label[d]))) continue;
    g.label[g.n++] = x->label[d];
    g.product *= size[x->label[d]];
  }
  return g;
}

static group joined(const group *a, const group *b) {
  group g = *a;
  memcpy(g.label + g.n, b->label, (size_t)b->n);
  g.n += b->n;
  g.product *= b->product;
  return g;
}

static void add_sizes(lt_shape *shape, const group *g, const int64_t *size) {
  for (int i = 0; i < g->n; i++) shape->size[shape->ndim++] = size[g->label[i]];
}

/* x as matrices, batch x rows x columns. Groups of one dimension, or none, need no copy. */
static lt_tensor *as_matrices(lt_scope *s, const term *x, const group *batch, const group *rows,
                              const group *columns, const int64_t *size) {
  group leading = joined(batch, rows), all = joined(&leading, columns);
  lt_tensor *t = ordered(s, x, all.label);
  bool fits = batch->n + 2 <= LT_MAX_RANK;
  if (fits && rows->n <= 1 && columns->n <= 1) {
    if (rows->n == 0) t = lt_unsqueezed(s, t, batch->n);
    return columns->n == 0 ? lt_unsqueezed(s, t, batch->n + 1) : t;
  }
  lt_shape shape = {0};
  if (fits)
    add_sizes(&shape, batch, size);
  else
    shape.size[shape.ndim++] = batch->product;
  shape.size[shape.ndim++] = rows->product;
  shape.size[shape.ndim++] = columns->product;
  return lt_reshape_to(s, t, &shape);
}

/* The sum of products over the labels of both that are not in `keep`. */
static term contract(lt_scope *s, term a, term b, uint64_t keep, const int64_t *size) {
  sum_out(s, &a, b.set | keep);
  sum_out(s, &b, a.set | keep);
  group batch = group_of(&a, b.set & keep, size), left = group_of(&a, ~b.set, size);
  group inner = group_of(&a, b.set & ~keep, size), right = group_of(&b, ~a.set, size);
  group leading = joined(&batch, &left), all = joined(&leading, &right);
  term y = {.n = all.n, .set = (a.set | b.set) & keep};
  memcpy(y.label, all.label, (size_t)all.n);
  if (inner.n > 0) {
    lt_tensor *x = as_matrices(s, &a, &batch, &left, &inner, size);
    lt_shape shape = {0};
    add_sizes(&shape, &all, size);
    x = lt_product(s, x, as_matrices(s, &b, &batch, &inner, &right, size));
    y.t = lt_reshape_to(s, x, &shape);
    return y;
  }
  group own = joined(&batch, &right);
  lt_tensor *x = ordered(s, &a, leading.label), *other = ordered(s, &b, own.label);
  for (int i = 0; i < right.n; i++) x = lt_unsqueezed(s, x, -1);
  for (int i = 0; i < left.n; i++) other = lt_unsqueezed(s, other, batch.n);
  y.t = lt_mul(s, x, other);
  return y;
}

/* ---- The order
 * ----------------------------------------------------------------------------------- */

static double elements(uint64_t set, const int64_t *size) {
  double n = 1;
  for (int l = 0; l < LABELS; l++) {
    if (set & BIT(l)) n *= (double)size[l];
  }
  return n;
}

/* What must outlive the contraction of terms i and j. */
static uint64_t kept(const term *terms, int n, int i, int j, uint64_t out) {
  for (int k = 0; k < n; k++) {
    if (k != i && k != j) out |= terms[k].set;
  }
  return out;
}

/* The pair whose contraction takes away most; false when every result has too many dimensions. */
static bool best_pair(const term *terms, int n, uint64_t out, const int64_t *size, int *left,
                      int *right) {
  double best = 0;
  bool found = false;
  for (int i = 0; i < n; i++) {
    for (int j = i + 1; j < n; j++) {
      uint64_t result = (terms[i].set | terms[j].set) & kept(terms, n, i, j, out);
      if (__builtin_popcountll(result) > LT_MAX_RANK) continue;
      double cost =
          elements(result, size) - elements(terms[i].set, size) - elements(terms[j].set, size);
      if (found && cost >= best) continue;
      found = true;
      best = cost;
      *left = i;
      *right = j;
    }
  }
  return found;
}

static void einsum_compose(lt_call *c, lt_scope *s) {
  equation e;
  term terms[MAX_OPERANDS];
  uint64_t out = 0;
  s->status = prepare(c, &e);
  if (s->status != LT_OK) return;
  for (int d = 0; d < e.out.n; d++) out |= BIT(e.out.label[d]);
  int n = e.operands, i = 0, j = 0;
  for (int k = 0; k < n; k++) terms[k] = make_term(s, c->in[k], &e.in[k], e.size);
  while (n > 1 && s->status == LT_OK) {
    if (!best_pair(terms, n, out, e.size, &i, &j)) {
      s->status = lt_fail(c->ctx, "einsum: a step of the contraction has more than %d dimensions",
                          LT_MAX_RANK);
      return;
    }
    terms[i] = contract(s, terms[i], terms[j], kept(terms, n, i, j, out), e.size);
    n--;
    memmove(&terms[j], &terms[j + 1], (size_t)(n - j) * sizeof *terms);
  }
  sum_out(s, &terms[0], out);
  bool done = memcmp(terms[0].label, e.out.label, (size_t)e.out.n) == 0;
  for (int k = 0; k < c->inputs; k++) done = done && terms[0].t != c->in[k];
  c->out[0] = done ? terms[0].t : ordered(s, &terms[0], e.out.label);
}

const lt_op lt_op_einsum = {
    .name = "einsum",
    .doc = "Einstein summation: each operand's dimensions get a letter, as in \"bij,bjk->bik\"; "
           "what is behind the arrow stays, all else is summed, of the products of the operands. "
           "A letter twice in one operand takes its diagonal. `...` stands for any dimensions, "
           "which broadcast. Without an arrow the result has the letters that come once, in "
           "alphabetical order, behind those of `...`. Sums of products run as products of "
           "matrices. A result of one operand may be a view.",
    .inputs = {{"operands", LT_FLOAT, .list = true}},
    .options = {{"equation", LT_OPTION_TEXT, .required = true}},
    .infer = einsum_infer,
    .compose = einsum_compose,
    .function = true,
    .option_at = 1,
    .sample = {"'ij,jk->ik', normal(2, 3), normal(3, 4)",
               "'bij,bkj', transposed(2, 2, 3), normal(2, 4, 3)", "'iij->j', normal(3, 3, 2)",
               "'...ij,j->...i', normal(2, 1, 2, 3), normal(3)",
               "'bn,anm,bm->ba', normal(2, 3), normal(2, 3, 2), normal(2, 2)",
               "'ab,cd->dbc', normal(2, 3), normal(2, 2)",
               "'abc,acd,b->', normal(2, 3, 2), normal(2, 2, 2), normal(3)", "'ii', normal(3, 3)"},
};

LT_FAMILY(einsum, &lt_op_einsum)
