/* The loops, one for each kind of work and type, and how tasks share the lanes. */
#include "kernels/lanes.h"
#include "core/context.h"
#include "kernels/loop.h"
#include "kernels/parallel.h"

/* A rectangle of index, its element at (a, b) and that of `near`; `far` is the tensor that index
 * chooses from, which has no stride along the lanes but `lane`, by the place chosen. */
typedef struct rectangle {
  int64_t size[2];
  int64_t far[2], at[2], near[2]; /* strides */
  int64_t lane;
} rectangle;

typedef void lane_fn(const rectangle *r, void *far, const int64_t *at, void *near);

/* The two usual rectangles, where index and near lie row by row, are loops of their own. */
#define ROW(FAR, NEAR, F, AT, X, STATEMENT)                                                        \
  for (int64_t b = 0; b < r->size[1]; b++) {                                                       \
    FAR *const f = first + b * (F) + place[b * (AT)] * lane;                                       \
    NEAR *const x = row + b * (X);                                                                 \
    STATEMENT;                                                                                     \
  }
#define LANES(NAME, FAR, NEAR, STATEMENT)                                                          \
  static void NAME(const rectangle *r, void *far, const int64_t *at, void *near) {                 \
    const int64_t lane = r->lane;                                                                  \
    const bool rows = r->at[1] == 1 && r->near[1] == 1;                                            \
    for (int64_t a = 0; a < r->size[0]; a++) {                                                     \
      FAR *const first = (FAR *)far + a * r->far[0] - lane;                                        \
      const int64_t *const place = at + a * r->at[0];                                              \
      NEAR *const row = (NEAR *)near + a * r->near[0];                                             \
      if (rows && r->far[1] == 1)                                                                  \
        ROW(FAR, NEAR, 1, 1, 1, STATEMENT)                                                         \
      else if (rows && r->far[1] == 0)                                                             \
        ROW(FAR, NEAR, 0, 1, 1, STATEMENT)                                                         \
      else                                                                                         \
        ROW(FAR, NEAR, r->far[1], r->at[1], r->near[1], STATEMENT)                                 \
    }                                                                                              \
  }

/* A kind of work for every dtype. */
typedef struct kind {
  lane_fn *of[LT_DTYPE_COUNT];
  lane_fn *wide; /* float32 into float64 */
} kind;

LANES(take_8, const uint64_t, uint64_t, *x = *f)
LANES(take_4, const uint32_t, uint32_t, *x = *f)
LANES(take_1, const uint8_t, uint8_t, *x = *f)
LANES(put_8, uint64_t, const uint64_t, *f = *x)
LANES(put_4, uint32_t, const uint32_t, *f = *x)
LANES(put_1, uint8_t, const uint8_t, *f = *x)

#define ARITHMETIC(NAME, VALUE)                                                                    \
  LANES(NAME##_f32, float, const float, *f = (float)(VALUE))                                       \
  LANES(NAME##_f64, double, const double, *f = (VALUE))                                            \
  LANES(NAME##_i64, int64_t, const int64_t, *f = (VALUE))                                          \
  LANES(NAME##_i32, int32_t, const int32_t, *f = (int32_t)(VALUE))                                 \
  LANES(NAME##_u8, uint8_t, const uint8_t, *f = (uint8_t)(VALUE))                                  \
  LANES(NAME##_wide, double, const float, *f = (VALUE))
ARITHMETIC(add, *f + *x)
ARITHMETIC(multiply, *f **x)
/* NaN wins. */
ARITHMETIC(larger, *f > *x || !(*f == *f) ? *f : *x)
ARITHMETIC(smaller, *f < *x || !(*f == *f) ? *f : *x)

#define ALL(NAME)                                                                                  \
  {                                                                                                \
    .of = {NAME##_f32, NAME##_f64, NAME##_i64, NAME##_i32, NAME##_u8, NAME##_u8},                  \
    .wide = NAME##_wide                                                                            \
  }
static const kind kinds[] = {[LT_TAKE] = {.of = {take_4, take_8, take_8, take_4, take_1, take_1}},
                             [LT_PUT] = {.of = {put_4, put_8, put_8, put_4, put_1, put_1}},
                             [LT_ADD] = ALL(add),
                             [LT_MULTIPLY] = ALL(multiply),
                             [LT_LARGER] = ALL(larger),
                             [LT_SMALLER] = ALL(smaller)};

typedef struct lanes {
  lt_loop loop;           /* over the lanes: far, index, near */
  int64_t count, step[3]; /* along them */
  int64_t piece, pieces;  /* lanes of a row that one task takes, tasks per row */
  int64_t part, parts;    /* of a lane */
  char *far, *near;
  const int64_t *index;
  int64_t far_size, near_size;
  lane_fn *fn;
} lanes;

static void lanes_task(void *argument, int64_t first, int64_t last) {
  const lanes *w = argument;
  int64_t offset[LT_LOOP_OPERANDS];
  for (int64_t t = first; t < last; t++) {
    int64_t along = t % w->parts * w->part, across = t / w->parts % w->pieces * w->piece;
    int64_t count = w->count - along < w->part ? w->count - along : w->part;
    int64_t width = w->loop.length - across < w->piece ? w->loop.length - across : w->piece;
    lt_loop_row(&w->loop, t / w->parts / w->pieces, offset);
    /* Inside runs what lies closer in index. */
    int inner = w->step[1] <= w->loop.step[1] || width == 1;
    rectangle r = {.lane = w->step[0]};
    r.size[inner] = count;
    r.at[inner] = w->step[1];
    r.near[inner] = w->step[2];
    r.size[1 - inner] = width;
    r.far[1 - inner] = w->loop.step[0];
    r.at[1 - inner] = w->loop.step[1];
    r.near[1 - inner] = w->loop.step[2];
    int64_t far = offset[0] + across * w->loop.step[0];
    int64_t at = offset[1] + across * w->loop.step[1] + along * w->step[1];
    int64_t near = offset[2] + across * w->loop.step[2] + along * w->step[2];
    w->fn(&r, w->far + far * w->far_size, w->index + at, w->near + near * w->near_size);
  }
}

lt_status lt_lanes(lt_lane_work work, int dim, const lt_shape *shape, lt_tensor *far,
                   const lt_tensor *index, lt_tensor *near) {
  enum { MOST = 512, LEAST = 16, PART = 1 << 12 };
  const lt_tensor *t[3] = {far, index, near};
  int64_t strides[3][LT_MAX_RANK];
  lt_shape across = *shape;
  lanes w = {.far = far->data, .near = near->data, .count = 1};
  if (lt_shape_numel(shape) == 0) return LT_OK;
  w.index = (const int64_t *)(const void *)index->data;
  w.far_size = lt_dtype_size((lt_dtype)far->dtype);
  w.near_size = lt_dtype_size((lt_dtype)near->dtype);
  w.fn = far->dtype == near->dtype ? kinds[work].of[near->dtype] : kinds[work].wide;
  for (int k = 0; k < 3; k++) {
    lt_broadcast_strides(&t[k]->shape, t[k]->strides, shape, strides[k]);
  }
  if (shape->ndim > 0) {
    strides[0][dim] = far->strides[dim];
    w.count = shape->size[dim];
    across.size[dim] = 1;
    for (int k = 0; k < 3; k++) w.step[k] = strides[k][dim];
  }
  lt_loop_build(&w.loop, &across, 3, (const int64_t *const[]){strides[0], strides[1], strides[2]});
  w.piece = (w.loop.length + LEAST - 1) / LEAST;
  w.piece = w.piece < LEAST ? LEAST : w.piece > MOST ? MOST : w.piece;
  w.pieces = (w.loop.length + w.piece - 1) / w.piece;
  w.part = work == LT_TAKE ? PART : w.count;
  w.parts = (w.count + w.part - 1) / w.part;
  return lt_parallel(far->ctx, w.loop.rows * w.pieces * w.parts, lt_shape_numel(shape) * 4,
                     lanes_task, &w);
}
