/* Making, sharing and copying tensors. */
#include "core/tensor.h"
#include "core/context.h"
#include "core/rows.h"
#include "kernels/copy.h"

#include <stdlib.h>
#include <string.h>

static bool is_contiguous(const lt_tensor *t) {
  int64_t step = 1;
  for (int i = t->shape.ndim - 1; i >= 0; i--) {
    if (t->shape.size[i] != 1 && t->strides[i] != step) return t->numel <= 1;
    step *= t->shape.size[i];
  }
  return true;
}

static lt_status new_header(lt_context *ctx, lt_dtype dtype, const lt_shape *shape,
                            lt_tensor **result) {
  lt_tensor *t = lt_spare_take(&ctx->spare, sizeof *t);
  if (!t) return lt_fail_memory(ctx, sizeof *t);
  t->ctx = ctx;
  t->block = NULL;
  t->data = NULL;
  t->id = ctx->next_id++;
  t->tapes = 0;
  t->name = NULL;
  t->rows = NULL;
  t->refs = 1;
  t->version = 0;
  t->dtype = (uint8_t)dtype;
  t->variable = t->trainable = t->weak = t->zero_told = false;
  t->contiguous = true;
  t->tangents = NULL;
  t->over = NULL;
  t->vmap = 0;
  t->frozen = (lt_site){0, 0};
  t->shape = *shape;
  t->numel = lt_shape_numel(shape);
  *result = t;
  return LT_OK;
}

lt_status lt_tensor_new(lt_context *ctx, const char *op, lt_dtype dtype, const lt_shape *shape,
                        lt_tensor **result) {
  LT_TRY(lt_shape_check(ctx, op, shape));
  lt_tensor *t;
  LT_TRY(new_header(ctx, dtype, shape, &t));
  lt_shape_strides(shape, t->strides);
  lt_status status = lt_block_new(ctx, t->numel * lt_dtype_size(dtype), &t->block);
  if (status != LT_OK) {
    lt_spare_give(&ctx->spare, t, sizeof *t);
    return status;
  }
  t->data = t->block->data;
  *result = t;
  return LT_OK;
}

lt_status lt_tensor_scalar(lt_context *ctx, double value, lt_dtype dtype, lt_tensor **result) {
  LT_TRY(lt_tensor_new(ctx, "scalar", dtype, &(lt_shape){0}, result));
  lt_tensor_write(*result, 0, value);
  return LT_OK;
}

lt_status lt_tensor_view(const lt_tensor *t, int64_t offset, const lt_shape *shape,
                         const int64_t *strides, lt_tensor **result) {
  lt_tensor *v;
  LT_TRY(new_header(t->ctx, (lt_dtype)t->dtype, shape, &v));
  memcpy(v->strides, strides, (size_t)shape->ndim * sizeof *strides);
  v->block = lt_block_retain(t->block);
  v->data = t->data + offset * lt_dtype_size((lt_dtype)t->dtype);
  v->version = t->block->version;
  v->contiguous = is_contiguous(v);
  *result = v;
  return LT_OK;
}

lt_status lt_tensor_wrap(lt_context *ctx, const char *op, lt_dtype dtype, const lt_shape *shape,
                         void *data, lt_release_fn release, void *userdata, lt_tensor **result) {
  LT_TRY(lt_shape_check(ctx, op, shape));
  lt_tensor *t;
  LT_TRY(new_header(ctx, dtype, shape, &t));
  lt_shape_strides(shape, t->strides);
  int64_t bytes = t->numel * lt_dtype_size(dtype);
  lt_status status = lt_block_wrap(ctx, data, bytes, release, userdata, &t->block);
  if (status != LT_OK) {
    lt_spare_give(&ctx->spare, t, sizeof *t);
    return status;
  }
  t->data = data;
  *result = t;
  return LT_OK;
}

lt_status lt_tensor_batch(lt_tensor *over, uint64_t vmap, lt_tensor **result) {
  lt_shape sample = lt_shape_make(over->shape.ndim - 1, over->shape.size + 1);
  LT_TRY(lt_tensor_view(over, 0, &sample, over->strides + 1, result));
  (*result)->over = lt_tensor_retain(over);
  (*result)->vmap = vmap;
  return LT_OK;
}

lt_tensor *lt_tensor_tangent(const lt_tensor *t, uint64_t tape) {
  for (const lt_tangent *d = t->tangents; d; d = d->next) {
    if (d->tape == tape) return d->value;
  }
  return NULL;
}

lt_status lt_tensor_set_tangent(lt_tensor *t, uint64_t tape, lt_tensor *value) {
  lt_tangent *d = lt_spare_take(&t->ctx->spare, sizeof *d);
  if (!d) return lt_fail_memory(t->ctx, sizeof *d);
  *d = (lt_tangent){tape, lt_tensor_retain(value), t->tangents};
  t->tangents = d;
  return LT_OK;
}

/* What few tensors have. */
static void release_wrapping(lt_tensor *t) {
  while (t->tangents) {
    lt_tangent *d = t->tangents;
    t->tangents = d->next;
    lt_tensor_release(d->value);
    lt_spare_give(&t->ctx->spare, d, sizeof *d);
  }
  lt_tensor_release(t->over);
}

void lt_tensor_release(lt_tensor *t) {
  if (!t || --t->refs > 0) return;
  if (t->tangents || t->over) release_wrapping(t);
  lt_block_release(t->block);
  if (t->rows) lt_rows_free(t->ctx, t->rows);
  free(t->name);
  lt_spare_give(&t->ctx->spare, t, sizeof *t);
}

lt_status lt_check_plain(const lt_tensor *t, const char *op, const char *name) {
  if (lt_is_plain(t)) return LT_OK;
  char shape[LT_SHAPE_TEXT];
  if (t->over) {
    return lt_fail(t->ctx,
                   "%s: %s (%s) stands for the samples of a vmap call; its values differ by sample",
                   op, name, lt_shape_text(&t->shape, shape));
  }
  return lt_fail(t->ctx,
                 "%s: %s is a sparse gradient (%lld rows of %s); g:to_dense() makes it an ordinary "
                 "tensor",
                 op, name, (long long)t->rows->indices->numel, lt_shape_text(&t->shape, shape));
}

bool lt_tensor_repeats(const lt_tensor *t) {
  for (int d = 0; d < t->shape.ndim; d++) {
    if (t->strides[d] == 0 && t->shape.size[d] > 1) return t->numel > 0;
  }
  return false;
}

lt_status lt_tensor_set_name(lt_tensor *t, const char *name) {
  char *copy = NULL;
  if (name) {
    size_t n = strlen(name) + 1;
    copy = malloc(n);
    if (!copy) return lt_fail_memory(t->ctx, (long long)n);
    memcpy(copy, name, n);
  }
  free(t->name);
  t->name = copy;
  return LT_OK;
}

/* Do the two windows share bytes in a way that a copy in element order could trip over? */
static bool overlaps(const lt_tensor *a, const lt_tensor *b) {
  if (a->block != b->block) return false;
  return a->data != b->data || !lt_shape_equal(&a->shape, &b->shape) ||
         memcmp(a->strides, b->strides, (size_t)a->shape.ndim * sizeof a->strides[0]) != 0;
}

lt_status lt_tensor_copy(lt_tensor *dst, const lt_tensor *src) {
  LT_TRY(lt_check_plain(src, "assign", "the value"));
  lt_shape shape = dst->shape;
  if (!lt_shape_broadcast(&shape, &src->shape) || !lt_shape_equal(&shape, &dst->shape)) {
    char to[LT_SHAPE_TEXT], from[LT_SHAPE_TEXT];
    return lt_fail(dst->ctx, "assign: the shape %s does not fit into %s",
                   lt_shape_text(&src->shape, from), lt_shape_text(&dst->shape, to));
  }
  lt_tensor *own = NULL;
  if (overlaps(dst, src)) {
    LT_TRY(lt_tensor_new(dst->ctx, "assign", (lt_dtype)src->dtype, &src->shape, &own));
    LT_TRY(lt_tensor_copy(own, src));
    src = own;
  }
  int64_t strides[LT_MAX_RANK];
  lt_broadcast_strides(&src->shape, src->strides, &dst->shape, strides);
  lt_copy(&dst->shape, (lt_dtype)dst->dtype, dst->data, dst->strides, (lt_dtype)src->dtype,
          src->data, strides);
  lt_tensor_release(own);
  return LT_OK;
}

lt_status lt_tensor_contiguous(lt_tensor *t, lt_tensor **result) {
  if (t->contiguous) {
    *result = lt_tensor_retain(t);
    return LT_OK;
  }
  LT_TRY(lt_tensor_new(t->ctx, "contiguous", (lt_dtype)t->dtype, &t->shape, result));
  return lt_tensor_copy(*result, t);
}

void lt_tensor_written(lt_tensor *t, lt_site site) {
  t->block->version++;
  t->block->writer = site;
  t->version = t->block->version;
}

double lt_tensor_read(const lt_tensor *t, int64_t offset) {
  switch ((lt_dtype)t->dtype) {
  case LT_FLOAT32: return (double)((const float *)(const void *)t->data)[offset];
  case LT_FLOAT64: return ((const double *)(const void *)t->data)[offset];
  default: return (double)lt_tensor_read_int(t, offset);
  }
}

int64_t lt_tensor_read_int(const lt_tensor *t, int64_t offset) {
  int64_t value;
  int64_t size = lt_dtype_size((lt_dtype)t->dtype);
  lt_convert(1, LT_INT64, &value, 1, (lt_dtype)t->dtype, t->data + offset * size, 1);
  return value;
}

void lt_tensor_write(lt_tensor *t, int64_t offset, double value) {
  int64_t size = lt_dtype_size((lt_dtype)t->dtype);
  lt_convert(1, (lt_dtype)t->dtype, t->data + offset * size, 1, LT_FLOAT64, &value, 1);
}

void lt_tensor_write_int(lt_tensor *t, int64_t offset, int64_t value) {
  int64_t size = lt_dtype_size((lt_dtype)t->dtype);
  lt_convert(1, (lt_dtype)t->dtype, t->data + offset * size, 1, LT_INT64, &value, 1);
}
