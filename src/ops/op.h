/* The registry of operations. An op is described once, in one block of one file: name, doc,
 * inputs, options, shape and type rule, forward kernel, gradient rule, samples. Everything else
 * (the Lua function and method, argument checks, the reference, the tests) is derived from it. */
#ifndef LT_OPS_OP_H
#define LT_OPS_OP_H

#include "core/context.h"
#include "core/tensor.h"

enum { LT_MAX_INPUTS = 10, LT_MAX_OPTIONS = 8, LT_MAX_OUTPUTS = 6, LT_MAX_SAMPLES = 8 };

/* ---- What an op takes ---------------------------------------------------------------- */

typedef enum lt_accepts {
  LT_ANY,   /* every dtype */
  LT_FLOAT, /* float32 or float64; where the op computes by tiles, integers become floats */
  LT_INDEX, /* int64 or int32; values count from 1 */
  LT_MASK   /* bool */
} lt_accepts;

typedef struct lt_input {
  const char *name;
  lt_accepts accepts;
  bool optional; /* may be absent */
  bool list;     /* one or more tensors; only as the last input */
} lt_input;

typedef enum lt_option_type {
  LT_OPTION_INT,
  LT_OPTION_NUMBER,
  LT_OPTION_BOOL,
  LT_OPTION_CHOICE,  /* one of `choices`, the first by default */
  LT_OPTION_DIM,     /* one dimension: 1-based in Lua, 0-based or negative here */
  LT_OPTION_DIMS,    /* one or several of them */
  LT_OPTION_SIZES,   /* a shape */
  LT_OPTION_INTS,    /* one or several integers: strides, kernel sizes, shifts */
  LT_OPTION_NUMBERS, /* one or several numbers */
  LT_OPTION_PAIRS,   /* up to two integers for each dimension */
  LT_OPTION_INDEX,   /* an element: 1-based in Lua, 0-based or negative here */
  LT_OPTION_DTYPE,
  LT_OPTION_TEXT /* at most LT_MAX_TEXT bytes */
} lt_option_type;

typedef struct lt_option {
  const char *name;
  lt_option_type type;
  double value;        /* the default of INT, NUMBER, BOOL, DIM */
  const char *choices; /* "none mean sum"; of INTS: words that may stand for the numbers */
  bool required;
} lt_option;

/* Options of one call, plain data: each takes one word, a list takes 1 + LT_MAX_RANK (its length
 * first; PAIRS 1 + 2 LT_MAX_RANK), a text its length and LT_MAX_TEXT bytes. A list or text that is
 * not given has length -1; word number k in place of a list is length -2 - k. */
typedef union lt_word {
  int64_t i;
  double f;
} lt_word;

enum {
  LT_LIST_WORDS = 1 + LT_MAX_RANK,
  LT_PAIRS_WORDS = 1 + 2 * LT_MAX_RANK,
  LT_MAX_TEXT = 128,
  LT_TEXT_WORDS = 1 + LT_MAX_TEXT / (int)sizeof(lt_word),
  LT_MAX_WORDS = 48
};

typedef struct lt_attrs {
  uint32_t given; /* bit per option */
  int32_t count;  /* words used */
  lt_word word[LT_MAX_WORDS];
} lt_attrs;

/* ---- A call --------------------------------------------------------------------------- */

typedef struct lt_op lt_op;

/* What is known of a tensor without its data. */
typedef struct lt_spec {
  lt_dtype dtype;
  lt_shape shape;
} lt_spec;

typedef struct lt_call {
  lt_context *ctx;
  const lt_op *op;
  const lt_attrs *attrs;
  lt_attrs *own; /* room for options that the op itself chooses, to be recorded: attrs = own */
  int inputs;
  lt_tensor *const *in; /* NULL for an absent optional input */
  /* filled by infer */
  int outputs; /* 1 unless infer says otherwise */
  lt_spec result[LT_MAX_OUTPUTS];
  lt_dtype dtype; /* in which tiles compute */
  int level;      /* of vmap, from its inputs (tape/vmap.h); 0 outside */
  bool recorded;  /* a tape will ask for the gradient: set before infer for ops with `hidden` */
  /* made by the engine from `result`, or by a view op's forward */
  lt_tensor *out[LT_MAX_OUTPUTS];
} lt_call;

/* ---- The block ------------------------------------------------------------------------ */

struct lt_kernel;
struct lt_scope;
struct lt_vjp;
struct lt_jvp;
struct lt_batch;

struct lt_op {
  const char *name;
  const char *doc; /* what it computes, shapes, where the method comes from */
  lt_input inputs[LT_MAX_INPUTS];
  lt_option options[LT_MAX_OPTIONS];
  /* Checks shapes, types and options, and says what comes out. Nothing is allocated before. */
  lt_status (*infer)(lt_call *c);
  /* Fills c->out. Ops that compute element by element name a kernel instead. */
  lt_status (*forward)(lt_call *c);
  const struct lt_kernel *kernel;
  /* Or the op is made of others (tape/vjp.h has the words): sets c->out and c->outputs; infer, if
   * there is one, only checks. Its parts are recorded, so that it needs no rule of any kind. */
  void (*compose)(lt_call *c, struct lt_scope *s);
  /* Gives the gradients of the inputs (lt_give). NULL: the op has no gradient. */
  void (*vjp)(struct lt_vjp *v);
  uint32_t saves; /* which tensors the vjp reads: LT_IN(i) | LT_OUT(i); a list as a whole */
  /* Forward mode (tape/forward.h): a rule, or one of the two words below, or neither: then it is
   * derived from the vjp. */
  void (*jvp)(struct lt_jvp *j);
  bool linear;      /* in its float inputs together: tangents go through the op itself */
  bool multilinear; /* in each float input by itself, and the vjp saves the others (a product) */
  bool elementwise; /* forward chooses a kernel by the call: derived as for those that name one */
  /* How the op runs on a batch of calls (tape/vmap.h); elementwise ones need no word. */
  void (*batch)(struct lt_batch *b);
  int results;      /* at most; 0 stands for 1 */
  int hidden;       /* the last so many results are for the gradient only; when !c->recorded infer
                       may leave them out */
  bool crosswise;   /* an input is read only for the gradients of the others (a product) */
  bool view;        /* forward makes c->out itself, as windows on an input */
  bool cuts;        /* the gradient ends here on purpose */
  const char *zero; /* why it turns a gradient into zeros, when it does: "relu", "saturated",
                       "clipped", "masked", "flat-op"; NULL: one of its factors is 0 */
  bool internal;    /* part of another op's gradient; no Lua function */
  bool function;    /* a Lua function only, no method */
  int option_at; /* in Lua the first option may stand before input option_at - 1 (from 0): x, dim,
                    index is 2 */
  const char *sample[LT_MAX_SAMPLES]; /* arguments as Lua text, for the tests of every op */
};

#define LT_IN(i) (1u << (i))
#define LT_OUT(i) (1u << (16 + (i)))

/* All ops: a NULL-terminated list of families, each a NULL-terminated list of ops. */
const lt_op *const *const *lt_families(void);
const char *lt_family_name(int family); /* of the list's entry of that number */
const lt_op *lt_op_find(const char *name);

int lt_op_inputs(const lt_op *op); /* declared ones */
int lt_op_options(const lt_op *op);
int lt_op_option_index(const lt_op *op, const char *name); /* -1: no such */

/* ---- Options of a call ---------------------------------------------------------------- */

void lt_attrs_default(lt_attrs *a, const lt_op *op);
void lt_attrs_set_int(lt_attrs *a, const lt_op *op, int option, int64_t value);
void lt_attrs_set_number(lt_attrs *a, const lt_op *op, int option, double value);
void lt_attrs_set_list(lt_attrs *a, const lt_op *op, int option, int n, const int64_t *list);
void lt_attrs_set_numbers(lt_attrs *a, const lt_op *op, int option, int n, const double *list);
void lt_attrs_set_word(lt_attrs *a, const lt_op *op, int option, int index);
void lt_attrs_set_text(lt_attrs *a, const lt_op *op, int option, int n, const char *text);

bool lt_given(const lt_attrs *a, int option);
int64_t lt_get_int(const lt_attrs *a, const lt_op *op, int option); /* BOOL, CHOICE, DIM, ... */
double lt_get_number(const lt_attrs *a, const lt_op *op, int option);
/* The list, its length in *n; NULL and 0 when it was not given. */
const int64_t *lt_get_list(const lt_attrs *a, const lt_op *op, int option, int *n);
const double *lt_get_numbers(const lt_attrs *a, const lt_op *op, int option, int *n);
/* Which of the option's words was given instead of a list: 0, 1, ..., or -1 for none. */
int lt_get_word(const lt_attrs *a, const lt_op *op, int option);
/* Not terminated by 0; its length in *n. */
const char *lt_get_text(const lt_attrs *a, const lt_op *op, int option, int *n);

/* Which choice's name; for messages. */
const char *lt_choice_name(const lt_option *option, int64_t index, char text[32]);

/* ---- Running -------------------------------------------------------------------------- */

/* Runs an op on tensors: checks, infers, allocates, computes, records. `in` holds `inputs`
 * tensors in the order of the op's block, a list at its end; attrs NULL means defaults. On
 * LT_OK the caller owns *outputs tensors in `out`. */
lt_status lt_run(lt_context *ctx, const lt_op *op, int inputs, lt_tensor *const *in,
                 const lt_attrs *attrs, int *outputs, lt_tensor *out[LT_MAX_OUTPUTS]);

/* Runs a kernel of tiles on c->in, in c->dtype, into c->out[0]: what an op with a `kernel` does,
 * for those that choose one by call. Inputs that accept LT_MASK reach the tile as bytes of 0 or 1,
 * the others as c->dtype; options as the K(i) of the tile. */
lt_status lt_elementwise(const lt_call *c, const struct lt_kernel *kernel);

/* ---- Common infer rules ---------------------------------------------------------------- */

/* Broadcast shape, promoted type; ops whose first input accepts LT_FLOAT compute in floats. */
lt_status lt_infer_elementwise(lt_call *c);
/* The same, with a bool result. */
lt_status lt_infer_predicate(lt_call *c);
/* Shape and type of input 0. */
lt_status lt_infer_same(lt_call *c);

/* The type in which the inputs meet: tensors with dimensions first, then 0-d tensors, then
 * numbers, each only if of a higher category (PyTorch). */
lt_dtype lt_result_type(const lt_call *c);

#endif
