/* A tensor: a typed, strided window on a block, with the identity by which tapes know it. */
#ifndef LT_CORE_TENSOR_H
#define LT_CORE_TENSOR_H

#include "core/block.h"
#include "core/dtype.h"
#include "core/shape.h"

typedef struct lt_tensor {
  lt_context *ctx;
  lt_block *block;
  char *data;           /* the first element, inside the block */
  uint64_t id;          /* the value's identity; ids grow with time, none is used twice */
  uint64_t tapes;       /* bit per open tape that recorded how this value was made */
  char *name;           /* owned; NULL for none */
  struct lt_rows *rows; /* of a sparse gradient, which has no elements itself (core/rows.h) */
  int32_t refs;
  uint32_t version; /* of the block when this value was made */
  uint8_t dtype;    /* an lt_dtype */
  bool variable;    /* tapes watch it by themselves, while it is trainable */
  bool trainable;
  bool weak;                   /* a number of the host language: gives way in type promotion */
  bool zero_told;              /* a zero gradient of it was explained */
  bool contiguous;             /* row-major without gaps */
  struct lt_tangent *tangents; /* in forward mode */
  struct lt_tensor *over;      /* inside lt.vmap: all samples, the batch in front; NULL otherwise */
  lt_site frozen;              /* where trainable became false */
  uint64_t vmap;               /* which vmap call made it so */
  lt_shape shape;
  int64_t strides[LT_MAX_RANK]; /* in elements */
  int64_t numel;
} lt_tensor;

/* A new contiguous tensor, contents undefined. The caller holds the one reference. `op` begins
 * the message when the shape is impossible. */
lt_status lt_tensor_new(lt_context *ctx, const char *op, lt_dtype dtype, const lt_shape *shape,
                        lt_tensor **result);

/* A 0-d tensor holding a number of the host language. */
lt_status lt_tensor_scalar(lt_context *ctx, double value, lt_dtype dtype, lt_tensor **result);

/* Another window on t's block: `offset` elements from t's first. It is a new value. */
lt_status lt_tensor_view(const lt_tensor *t, int64_t offset, const lt_shape *shape,
                         const int64_t *strides, lt_tensor **result);

/* The values that `over` holds along its dim 0, as one tensor of vmap call number `vmap`: in shape
 * and memory the first of them. */
lt_status lt_tensor_batch(lt_tensor *over, uint64_t vmap, lt_tensor **result);

/* The derivative of a value along the direction of one tape in forward mode. */
typedef struct lt_tangent {
  uint64_t tape; /* its number */
  lt_tensor *value;
  struct lt_tangent *next;
} lt_tangent;

/* The tangent for a tape, or NULL. */
lt_tensor *lt_tensor_tangent(const lt_tensor *t, uint64_t tape);
/* Sets it, where there is none yet. */
lt_status lt_tensor_set_tangent(lt_tensor *t, uint64_t tape, lt_tensor *value);

/* A contiguous window on memory of the host's (not const: gradients may be read back from it). */
lt_status lt_tensor_wrap(lt_context *ctx, const char *op, lt_dtype dtype, const lt_shape *shape,
                         void *data, lt_release_fn release, void *userdata, lt_tensor **result);

/* Has t elements in memory? Others stand for what only some code understands. */
static inline bool lt_is_plain(const lt_tensor *t) { return !t->rows && !t->over; }
/* Fails for those others: "mul: x is a sparse gradient (3 rows of 10000x64); ...". */
lt_status lt_check_plain(const lt_tensor *t, const char *op, const char *name);

static inline lt_tensor *lt_tensor_retain(lt_tensor *t) {
  t->refs++;
  return t;
}
void lt_tensor_release(lt_tensor *t); /* NULL is allowed */

/* Do several elements share one place in memory, as expand makes them? */
bool lt_tensor_repeats(const lt_tensor *t);

/* Sets or (name NULL) removes the name. */
lt_status lt_tensor_set_name(lt_tensor *t, const char *name);

/* Copies src into dst element by element; shapes must be equal, or src broadcasts. Types are
 * converted as in C, out-of-range and NaN to integer give the nearest bound and 0. */
lt_status lt_tensor_copy(lt_tensor *dst, const lt_tensor *src);

/* t itself (retained) when it is contiguous, otherwise a contiguous copy. Not recorded. */
lt_status lt_tensor_contiguous(lt_tensor *t, lt_tensor **result);

/* Says that t's memory was written in place at `site`: views of it become stale values. */
void lt_tensor_written(lt_tensor *t, lt_site site);

/* One element of any type as a double or an int64; `offset` in elements from the first. */
double lt_tensor_read(const lt_tensor *t, int64_t offset);
void lt_tensor_write(lt_tensor *t, int64_t offset, double value);
int64_t lt_tensor_read_int(const lt_tensor *t, int64_t offset);
void lt_tensor_write_int(lt_tensor *t, int64_t offset, int64_t value);

#endif
