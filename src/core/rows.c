/* Making, merging and spreading out sparse gradients. */
#include "core/rows.h"
#include "core/context.h"
#include "kernels/rows.h"

#include <math.h>
#include <string.h>

void lt_rows_free(lt_context *ctx, lt_rows *rows) {
  lt_tensor_release(rows->indices);
  lt_tensor_release(rows->values);
  lt_spare_give(&ctx->spare, rows, sizeof *rows);
}

lt_status lt_rows_new(lt_context *ctx, int64_t rows, lt_tensor *indices, lt_tensor *values,
                      bool coalesced, lt_tensor **result) {
  lt_rows *r = lt_spare_take(&ctx->spare, sizeof *r);
  lt_tensor *cell = NULL, *g;
  lt_status status = r ? LT_OK : lt_fail_memory(ctx, sizeof *r);
  /* One NaN stands in the place of all elements: who looks past lt_is_plain sees it. */
  if (status == LT_OK) status = lt_tensor_scalar(ctx, NAN, (lt_dtype)values->dtype, &cell);
  if (status == LT_OK) {
    lt_shape shape = lt_shape_make(2, (int64_t[]){rows, values->shape.size[1]});
    status = lt_tensor_view(cell, 0, &shape, (int64_t[]){0, 0}, &g);
    lt_tensor_release(cell);
  }
  if (status != LT_OK) {
    if (r) lt_spare_give(&ctx->spare, r, sizeof *r);
    lt_tensor_release(indices);
    lt_tensor_release(values);
    return status;
  }
  *r = (lt_rows){indices, values, coalesced};
  g->rows = r;
  *result = g;
  return LT_OK;
}

lt_status lt_rows_with(const lt_tensor *g, lt_tensor *values, lt_tensor **result) {
  return lt_rows_new(g->ctx, g->shape.size[0], lt_tensor_retain(g->rows->indices),
                     lt_tensor_retain(values), g->rows->coalesced, result);
}

/* Indices and values for n rows of g's kind. */
static lt_status new_parts(const lt_tensor *g, int64_t n, lt_tensor **indices, lt_tensor **values) {
  lt_shape shape = lt_shape_make(2, (int64_t[]){n, g->shape.size[1]});
  LT_TRY(lt_tensor_new(g->ctx, "coalesce", LT_INT64, &(lt_shape){.ndim = 1, .size = {n}}, indices));
  lt_status status = lt_tensor_new(g->ctx, "coalesce", (lt_dtype)g->dtype, &shape, values);
  if (status != LT_OK) lt_tensor_release(*indices);
  return status;
}

static int64_t *numbers(const lt_tensor *indices) { return (int64_t *)(void *)indices->data; }

static lt_status sum_groups(const lt_tensor *g, const lt_groups *groups, char *y, bool packed) {
  return lt_groups_sum(g->ctx, groups, (lt_dtype)g->dtype, g->shape.size[1], g->rows->values->data,
                       y, packed, false);
}

static lt_status coalesce(const lt_tensor *g, const lt_groups *groups, lt_tensor **result) {
  lt_tensor *indices, *values;
  LT_TRY(new_parts(g, groups->count, &indices, &values));
  if (groups->count > 0) {
    memcpy(indices->data, groups->number, (size_t)groups->count * sizeof(int64_t));
  }
  lt_status status = sum_groups(g, groups, values->data, true);
  if (status == LT_OK) {
    return lt_rows_new(g->ctx, g->shape.size[0], indices, values, true, result);
  }
  lt_tensor_release(indices);
  lt_tensor_release(values);
  return status;
}

lt_status lt_rows_coalesce(lt_tensor *g, lt_tensor **result) {
  if (g->rows->coalesced) {
    *result = lt_tensor_retain(g);
    return LT_OK;
  }
  lt_groups groups;
  lt_status status =
      lt_groups_find(g->ctx, g->rows->indices->numel, numbers(g->rows->indices), NULL, &groups);
  if (status == LT_OK) status = coalesce(g, &groups, result);
  lt_groups_free(&groups);
  return status;
}

lt_status lt_rows_join(const lt_tensor *a, const lt_tensor *b, lt_tensor **result) {
  const lt_rows *from[2] = {a->rows, b->rows};
  lt_tensor *indices, *values;
  LT_TRY(new_parts(a, from[0]->indices->numel + from[1]->indices->numel, &indices, &values));
  char *i = indices->data, *v = values->data;
  for (int k = 0; k < 2; k++) {
    int64_t i_bytes = from[k]->indices->numel * (int64_t)sizeof(int64_t);
    int64_t v_bytes = from[k]->values->numel * lt_dtype_size((lt_dtype)a->dtype);
    if (i_bytes > 0) memcpy(i, from[k]->indices->data, (size_t)i_bytes);
    if (v_bytes > 0) memcpy(v, from[k]->values->data, (size_t)v_bytes);
    i += i_bytes;
    v += v_bytes;
  }
  return lt_rows_new(a->ctx, a->shape.size[0], indices, values, false, result);
}

lt_status lt_rows_to_dense(const lt_tensor *g, lt_tensor **result) {
  lt_groups groups;
  lt_tensor *y;
  LT_TRY(lt_tensor_new(g->ctx, "to_dense", (lt_dtype)g->dtype, &g->shape, &y));
  lt_status status =
      lt_groups_find(g->ctx, g->rows->indices->numel, numbers(g->rows->indices), NULL, &groups);
  if (status == LT_OK) {
    status = lt_zero(g->ctx, y->data, y->numel * lt_dtype_size((lt_dtype)g->dtype));
  }
  if (status == LT_OK) status = sum_groups(g, &groups, y->data, false);
  lt_groups_free(&groups);
  if (status != LT_OK) {
    lt_tensor_release(y);
    return status;
  }
  *result = y;
  return LT_OK;
}
