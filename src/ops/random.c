/* Numbers drawn at random. Each op takes as many counters as it needs off the context's stream;
 * element i is a pure function of the seed and its counter, so threads never change a number. */
#include "core/context.h"
#include "kernels/copy.h"
#include "kernels/parallel.h"
#include "ops/family.h"
#include "ops/index.h"
#include "ops/source.h"
#include "tape/vmap.h"

#include <math.h>
#include <string.h>

/* Elements that one task draws; a multiple of the elements that one counter gives. */
static const int64_t CHUNK = 1 << 14;

/* One counter gives four float32, or two elements of any other type. */
typedef struct draw {
  void (*four)(const struct draw *d, const uint32_t words[4], float y[4]);
  void (*two)(const struct draw *d, const uint32_t words[4], double y[2]);
  double a, b; /* uniform: from a to b; normal: mean and standard deviation */
  uint64_t seed, first;
  void *data;
  int64_t n;
} draw;

static void draw_task(void *argument, int64_t first, int64_t last) {
  const draw *d = argument;
  int64_t to = last * CHUNK < d->n ? last * CHUNK : d->n;
  uint32_t words[4];
  float four[4];
  double two[2];
  for (int64_t i = first * CHUNK; d->four && i < to; i += 4) {
    lt_philox(d->seed, d->first + (uint64_t)i / 4, words);
    d->four(d, words, four);
    memcpy((float *)d->data + i, four, (size_t)(to - i < 4 ? to - i : 4) * sizeof *four);
  }
  for (int64_t i = first * CHUNK; d->two && i < to; i += 2) {
    lt_philox(d->seed, d->first + (uint64_t)i / 2, words);
    d->two(d, words, two);
    memcpy((double *)d->data + i, two, (size_t)(to - i < 2 ? 1 : 2) * sizeof *two);
  }
}

static int64_t chunks(int64_t n) { return (n + CHUNK - 1) / CHUNK; }

/* Takes the counters of n elements, `each` to a counter. */
static uint64_t take(lt_context *ctx, int64_t n, int64_t each) {
  return lt_random_take(&ctx->random, (uint64_t)((n + each - 1) / each));
}

/* Fills the result with d's distribution. */
static lt_status run(lt_call *c, draw *d) {
  lt_tensor *y = c->out[0];
  if (y->dtype == LT_FLOAT32)
    d->two = NULL;
  else
    d->four = NULL;
  d->data = y->data;
  d->n = y->numel;
  d->seed = c->ctx->random.seed;
  d->first = take(c->ctx, d->n, d->four ? 4 : 2);
  return lt_parallel(c->ctx, chunks(d->n), d->n * 16, draw_task, d);
}

static lt_status check_float(lt_call *c) {
  if (lt_dtype_is_float(c->result[0].dtype)) return LT_OK;
  return lt_fail(c->ctx, "%s: dtype must be float32 or float64, not %s", c->op->name,
                 lt_dtype_name(c->result[0].dtype));
}

/* ---- Uniform: rand, rand_like, uniform ----------------------------------------------------- */

/* a + (b - a) u may be rounded up to b, which does not belong. */
static void uniform_four(const draw *d, const uint32_t words[4], float y[4]) {
  float a = (float)d->a, b = (float)d->b;
  for (int i = 0; i < 4; i++) {
    y[i] = a + (b - a) * lt_uniform32(words[i]);
    if (y[i] >= b) y[i] = a < b ? nextafterf(b, a) : a;
  }
}
static void uniform_two(const draw *d, const uint32_t words[4], double y[2]) {
  for (int i = 0; i < 2; i++) {
    y[i] = d->a + (d->b - d->a) * lt_uniform64(words[2 * i], words[2 * i + 1]);
    if (y[i] >= d->b) y[i] = d->a < d->b ? nextafter(d->b, d->a) : d->a;
  }
}

enum { SIZE, DTYPE };

static lt_status float_infer(lt_call *c) {
  LT_TRY(lt_infer_source(c, SIZE, DTYPE, c->ctx->default_dtype));
  return check_float(c);
}
static lt_status rand_forward(lt_call *c) {
  return run(c, &(draw){.four = uniform_four, .two = uniform_two, .b = 1});
}

const lt_op lt_op_rand = {
    .name = "rand",
    .doc = "Uniform numbers in [0, 1): multiples of 2^-24 for float32, of 2^-53 for float64.",
    .options = {{"size", LT_OPTION_SIZES}, {"dtype", LT_OPTION_DTYPE}},
    .infer = float_infer,
    .forward = rand_forward,
    .function = true,
    .sample = {"2, 3", "{5}, {dtype = 'float64'}"},
};

enum { LIKE_DTYPE };

static lt_status like_infer(lt_call *c) {
  LT_TRY(lt_infer_like(c, LIKE_DTYPE));
  return check_float(c);
}

const lt_op lt_op_rand_like = {
    .name = "rand_like",
    .doc = "Uniform numbers in [0, 1) in the shape and dtype of x; x passes no gradient on.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dtype", LT_OPTION_DTYPE}},
    .infer = like_infer,
    .forward = rand_forward,
    .batch = lt_batch_leading,
    .sample = {"normal(3, 4)", "integers(1, 9, 2), {dtype = 'float32'}"},
};

enum { A, B, AB_SIZE, AB_DTYPE };

static lt_status uniform_infer(lt_call *c) {
  double low = lt_get_number(c->attrs, c->op, A), high = lt_get_number(c->attrs, c->op, B);
  if (!isfinite(high - low) || low > high) {
    return lt_fail(c->ctx, "uniform: no numbers from %g to %g", low, high);
  }
  LT_TRY(lt_infer_source(c, AB_SIZE, AB_DTYPE, c->ctx->default_dtype));
  return check_float(c);
}
static lt_status uniform_forward(lt_call *c) {
  return run(c, &(draw){.four = uniform_four,
                        .two = uniform_two,
                        .a = lt_get_number(c->attrs, c->op, A),
                        .b = lt_get_number(c->attrs, c->op, B)});
}

const lt_op lt_op_uniform = {
    .name = "uniform",
    .doc = "Uniform numbers in [low, high).",
    .options = {{"low", LT_OPTION_NUMBER, .required = true},
                {"high", LT_OPTION_NUMBER, .required = true},
                {"size", LT_OPTION_SIZES},
                {"dtype", LT_OPTION_DTYPE}},
    .infer = uniform_infer,
    .forward = uniform_forward,
    .function = true,
    .sample = {"-1, 1, {2, 3}", "0, 0.5, {4}, {dtype = 'float64'}"},
};

/* ---- Normal: randn, randn_like, normal ------------------------------------------------------ */

#define TAU 6.283185307179586

/* Box and Muller 1958: two uniform numbers make two normal ones. The first is never 0. */
static void normal_four(const draw *d, const uint32_t words[4], float y[4]) {
  float mean = (float)d->a, std = (float)d->b;
  for (int i = 0; i < 4; i += 2) {
    float radius = std * sqrtf(-2 * logf(((float)words[i] + 0.5f) * 0x1p-32f));
    float angle = (float)TAU * 0x1p-32f * (float)words[i + 1];
    y[i] = mean + radius * cosf(angle);
    y[i + 1] = mean + radius * sinf(angle);
  }
}
static void normal_two(const draw *d, const uint32_t words[4], double y[2]) {
  double radius = d->b * sqrt(-2 * log(1 - lt_uniform64(words[0], words[1])));
  double angle = TAU * lt_uniform64(words[2], words[3]);
  y[0] = d->a + radius * cos(angle);
  y[1] = d->a + radius * sin(angle);
}

static lt_status randn_forward(lt_call *c) {
  return run(c, &(draw){.four = normal_four, .two = normal_two, .b = 1});
}

const lt_op lt_op_randn = {
    .name = "randn",
    .doc = "Standard normal numbers, by Box and Muller's pairs (1958).",
    .options = {{"size", LT_OPTION_SIZES}, {"dtype", LT_OPTION_DTYPE}},
    .infer = float_infer,
    .forward = randn_forward,
    .function = true,
    .sample = {"2, 3", "{5}, {dtype = 'float64'}"},
};

const lt_op lt_op_randn_like = {
    .name = "randn_like",
    .doc = "Standard normal numbers in the shape and dtype of x; x passes no gradient on.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dtype", LT_OPTION_DTYPE}},
    .infer = like_infer,
    .forward = randn_forward,
    .batch = lt_batch_leading,
    .sample = {"normal(3, 4)", "integers(1, 9, 2), {dtype = 'float32'}"},
};

static lt_status normal_infer(lt_call *c) {
  double std = lt_get_number(c->attrs, c->op, B);
  if (!(std >= 0)) return lt_fail(c->ctx, "normal: std must not be negative, got %g", std);
  LT_TRY(lt_infer_source(c, AB_SIZE, AB_DTYPE, c->ctx->default_dtype));
  return check_float(c);
}
static lt_status normal_forward(lt_call *c) {
  return run(c, &(draw){.four = normal_four,
                        .two = normal_two,
                        .a = lt_get_number(c->attrs, c->op, A),
                        .b = lt_get_number(c->attrs, c->op, B)});
}

const lt_op lt_op_normal = {
    .name = "normal",
    .doc = "Normal numbers of the given mean and standard deviation.",
    .options = {{"mean", LT_OPTION_NUMBER, .required = true},
                {"std", LT_OPTION_NUMBER, .required = true},
                {"size", LT_OPTION_SIZES},
                {"dtype", LT_OPTION_DTYPE}},
    .infer = normal_infer,
    .forward = normal_forward,
    .function = true,
    .sample = {"0, 0.1, {2, 3}", "5, 2, {4}, {dtype = 'float64'}"},
};

/* ---- Integers: randint, randperm ------------------------------------------------------------ */

/* The upper 64 bits of a * b. */
static uint64_t multiply_high(uint64_t a, uint64_t b) {
  uint64_t a0 = (uint32_t)a, a1 = a >> 32, b0 = (uint32_t)b, b1 = b >> 32;
  uint64_t middle = a1 * b0 + (a0 * b0 >> 32), other = a0 * b1 + (uint32_t)middle;
  return a1 * b1 + (middle >> 32) + (other >> 32);
}

/* One of 0..count-1 (count 0: of all 2^64). 64 random bits are scaled to the range instead of
 * divided: no number is likelier than another by more than count / 2^64. */
static uint64_t integer(const uint32_t words[2], uint64_t count) {
  uint64_t bits = (uint64_t)words[0] << 32 | words[1];
  return count ? multiply_high(bits, count) : bits;
}

typedef struct integers {
  uint64_t seed, first, count;
  int64_t low, n;
  lt_dtype dtype;
  char *data;
} integers;

static void integers_task(void *argument, int64_t first, int64_t last) {
  enum { TILE = 512 };
  const integers *d = argument;
  int64_t to = last * CHUNK < d->n ? last * CHUNK : d->n;
  int64_t tile[TILE];
  for (int64_t at = first * CHUNK; at < to; at += TILE) {
    int64_t n = to - at < TILE ? to - at : TILE;
    for (int64_t i = 0; i < n; i += 2) {
      uint32_t words[4];
      lt_philox(d->seed, d->first + (uint64_t)(at + i) / 2, words);
      tile[i] = (int64_t)((uint64_t)d->low + integer(words, d->count));
      tile[i + 1] = (int64_t)((uint64_t)d->low + integer(words + 2, d->count));
    }
    lt_convert(n, d->dtype, d->data + at * lt_dtype_size(d->dtype), 1, LT_INT64, tile, 1);
  }
}

static lt_status randint_infer(lt_call *c) {
  int64_t low = lt_get_int(c->attrs, c->op, A), high = lt_get_int(c->attrs, c->op, B);
  if (low > high) {
    return lt_fail(c->ctx, "randint: no integers from %lld to %lld", (long long)low,
                   (long long)high);
  }
  LT_TRY(lt_infer_source(c, AB_SIZE, AB_DTYPE, LT_INT64));
  int64_t least = INT64_MIN, most = INT64_MAX;
  switch (c->result[0].dtype) {
  case LT_INT32: least = INT32_MIN, most = INT32_MAX; break;
  case LT_UINT8: least = 0, most = UINT8_MAX; break;
  case LT_BOOL: least = 0, most = 1; break;
  default: break;
  }
  if (least <= low && high <= most) return LT_OK;
  return lt_fail(c->ctx, "randint: %lld..%lld does not fit into %s", (long long)low,
                 (long long)high, lt_dtype_name(c->result[0].dtype));
}

static lt_status randint_forward(lt_call *c) {
  lt_tensor *y = c->out[0];
  int64_t low = lt_get_int(c->attrs, c->op, A), high = lt_get_int(c->attrs, c->op, B);
  integers d = {.seed = c->ctx->random.seed,
                .first = take(c->ctx, y->numel, 2),
                .count = (uint64_t)high - (uint64_t)low + 1,
                .low = low,
                .n = y->numel,
                .dtype = (lt_dtype)y->dtype,
                .data = y->data};
  return lt_parallel(c->ctx, chunks(d.n), d.n * 32, integers_task, &d);
}

const lt_op lt_op_randint = {
    .name = "randint",
    .doc = "Integers from low to high, both included as in Lua's math.random, each as likely as "
           "the others; int64 unless another dtype is given.",
    .options = {{"low", LT_OPTION_INT, .required = true},
                {"high", LT_OPTION_INT, .required = true},
                {"size", LT_OPTION_SIZES},
                {"dtype", LT_OPTION_DTYPE}},
    .infer = randint_infer,
    .forward = randint_forward,
    .function = true,
    .sample = {"1, 6, {2, 3}", "-5, 5, {4}, {dtype = 'float32'}"},
};

enum { N };

static lt_status randperm_infer(lt_call *c) {
  int64_t n = lt_get_int(c->attrs, c->op, N);
  c->result[0] = (lt_spec){LT_INT64, lt_shape_make(1, &n)};
  return LT_OK;
}

static lt_status randperm_forward(lt_call *c) {
  enum { POLL = 1 << 20 };
  int64_t n = c->out[0]->numel, *y = (int64_t *)(void *)c->out[0]->data;
  uint64_t seed = c->ctx->random.seed, first = take(c->ctx, n, 2);
  uint32_t words[4];
  for (int64_t i = 0; i < n; i++) {
    if (i % POLL == POLL - 1) LT_TRY(lt_check_interrupt(c->ctx));
    if (i % 2 == 0) lt_philox(seed, first + (uint64_t)i / 2, words);
    int64_t j = (int64_t)integer(words + i % 2 * 2, (uint64_t)i + 1);
    y[i] = y[j]; /* i + 1 changes places with one of the first i + 1 */
    y[j] = i + 1;
  }
  return LT_OK;
}

const lt_op lt_op_randperm = {
    .name = "randperm",
    .doc = "The integers 1..n in random order, int64: each order as likely as the others (the "
           "shuffle of Fisher and Yates, from the inside out).",
    .options = {{"n", LT_OPTION_INT, .required = true}},
    .infer = randperm_infer,
    .forward = randperm_forward,
    .function = true,
    .sample = {"5", "0"},
};

/* ---- bernoulli --------------------------------------------------------------------------------
 */

enum { P };

static lt_status bernoulli_infer(lt_call *c) {
  lt_dtype dtype = (lt_dtype)c->in[0]->dtype;
  double p = lt_get_number(c->attrs, c->op, P);
  c->result[0] = (lt_spec){dtype, c->in[0]->shape};
  if (lt_given(c->attrs, P)) {
    if (p >= 0 && p <= 1) return LT_OK;
    return lt_fail(c->ctx, "bernoulli: p must lie in 0..1, got %g", p);
  }
  if (lt_dtype_is_float(dtype)) return LT_OK;
  return lt_fail(c->ctx, "bernoulli: x holds probabilities and must be a float tensor, got %s",
                 lt_dtype_name(dtype));
}

typedef struct coins {
  uint64_t seed, first;
  const double *p; /* NULL: `same` for all */
  double same;
  int64_t n;
  lt_dtype dtype;
  char *data;
} coins;

/* One counter throws four coins. */
static void coins_task(void *argument, int64_t first, int64_t last) {
  const coins *d = argument;
  int64_t to = last * CHUNK < d->n ? last * CHUNK : d->n, size = lt_dtype_size(d->dtype);
  uint32_t words[4];
  uint8_t heads[4];
  for (int64_t i = first * CHUNK; i < to; i += 4) {
    int n = to - i < 4 ? (int)(to - i) : 4;
    lt_philox(d->seed, d->first + (uint64_t)i / 4, words);
    for (int j = 0; j < n; j++) heads[j] = words[j] * 0x1p-32 < (d->p ? d->p[i + j] : d->same);
    lt_convert(n, d->dtype, d->data + i * size, 1, LT_BOOL, heads, 1);
  }
}

static lt_status throw_coins(lt_call *c, const double *p) {
  lt_tensor *y = c->out[0];
  for (int64_t i = 0; p && i < y->numel; i++) {
    if (p[i] >= 0 && p[i] <= 1) continue;
    return lt_fail(c->ctx, "bernoulli: p must lie in 0..1, got %g at element %lld", p[i],
                   (long long)(i + 1));
  }
  coins d = {.seed = c->ctx->random.seed,
             .first = take(c->ctx, y->numel, 4),
             .p = p,
             .same = lt_get_number(c->attrs, c->op, P),
             .n = y->numel,
             .dtype = (lt_dtype)y->dtype,
             .data = y->data};
  return lt_parallel(c->ctx, chunks(d.n), d.n * 8, coins_task, &d);
}

static lt_status bernoulli_forward(lt_call *c) {
  if (lt_given(c->attrs, P)) return throw_coins(c, NULL);
  lt_tensor *p;
  LT_TRY(lt_contiguous_as(c->in[0], LT_FLOAT64, &p));
  lt_status status = throw_coins(c, (const double *)(const void *)p->data);
  lt_tensor_release(p);
  return status;
}

const lt_op lt_op_bernoulli = {
    .name = "bernoulli",
    .doc = "1 with the probability that x says at each place, else 0, in the shape and dtype of "
           "x. With p that is the probability everywhere. x passes no gradient on.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"p", LT_OPTION_NUMBER}},
    .infer = bernoulli_infer,
    .forward = bernoulli_forward,
    .batch = lt_batch_leading,
    .sample = {"normal(3, 4), {p = 0.25}", "integers(0, 1, 3), {p = 1}"},
};

LT_FAMILY(random, &lt_op_rand, &lt_op_rand_like, &lt_op_uniform, &lt_op_randn, &lt_op_randn_like,
          &lt_op_normal, &lt_op_randint, &lt_op_randperm, &lt_op_bernoulli)
