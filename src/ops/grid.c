/* Images at the points of a grid, and the grids of affine maps. Made of other ops: coordinates of
 * pixels, the elements there by gather, and their weights. */
#include "core/context.h"
#include "ops/family.h"
#include "ops/pool.h"

#include <math.h>

static lt_tensor *clamp(lt_scope *s, lt_tensor *x, double low, double high) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_clamp);
  lt_attrs_set_number(&attrs, &lt_op_clamp, 0, low);
  lt_attrs_set_number(&attrs, &lt_op_clamp, 1, high);
  return x ? lt_do(s, &lt_op_clamp, &attrs, 3, (lt_tensor *[]){x, NULL, NULL}) : NULL;
}

/* ---- grid_sample ----------------------------------------------------------------------------- */

enum { MODE, PADDING_MODE, ALIGN_CORNERS };
enum { BILINEAR, NEAREST };
enum { ZEROS, BORDER, REFLECTION };

static lt_status grid_sample_infer(lt_call *c) {
  const lt_shape *x = &c->in[0]->shape, *grid = &c->in[1]->shape;
  char a[LT_SHAPE_TEXT], b[LT_SHAPE_TEXT];
  if (x->ndim != 4 || grid->ndim != 4 || grid->size[3] != 2 || x->size[0] != grid->size[0]) {
    return lt_fail(c->ctx,
                   "grid_sample: x must be (N, C, H, W) and grid (N, H', W', 2), got %s and %s",
                   lt_shape_text(x, a), lt_shape_text(grid, b));
  }
  if (x->size[2] < 1 || x->size[3] < 1) {
    return lt_fail(c->ctx, "grid_sample: x has no pixels (%s)", lt_shape_text(x, a));
  }
  if (c->in[0]->dtype == c->in[1]->dtype) return LT_OK;
  return lt_fail(c->ctx, "grid_sample: x and grid must be of one dtype (%s and %s)",
                 lt_dtype_name((lt_dtype)c->in[0]->dtype),
                 lt_dtype_name((lt_dtype)c->in[1]->dtype));
}

/* Coordinate number k of the grid, in pixels from 0 along an axis of `size`; padding is done. */
static lt_tensor *pixels(lt_call *c, lt_scope *s, int k, int64_t size) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_select);
  lt_attrs_set_int(&attrs, &lt_op_select, 0, 3);
  lt_attrs_set_int(&attrs, &lt_op_select, 1, k);
  bool align = lt_get_int(c->attrs, c->op, ALIGN_CORNERS);
  int64_t padding = lt_get_int(c->attrs, c->op, PADDING_MODE);
  double end = (double)(size - 1), low = align ? 0 : -0.5, span = align ? end : (double)size;
  lt_tensor *p = lt_do1(s, &lt_op_select, &attrs, c->in[1]);
  p = lt_shift(s, lt_scale(s, p, span / 2), end / 2);
  if (padding == REFLECTION && span > 0) { /* a wave between low and low + span */
    lt_tensor *away = lt_do1(s, &lt_op_abs, NULL, lt_shift(s, p, -low));
    lt_tensor *waves = lt_do1(s, &lt_op_floor, NULL, lt_scale(s, away, 0.5 / span));
    lt_tensor *in_wave = lt_sub(s, away, lt_scale(s, waves, 2 * span));
    lt_tensor *fall = lt_do1(s, &lt_op_abs, NULL, lt_shift(s, in_wave, -span));
    p = lt_shift(s, lt_neg(s, fall), span + low);
  }
  return padding == ZEROS ? p : clamp(s, p, 0, end);
}

/* One of the two neighbours along an axis: where it is, whether it is inside, its weight. */
typedef struct neighbour {
  lt_tensor *place, *inside, *weight;
} neighbour;

static neighbour neighbour_of(lt_scope *s, lt_tensor *at, int64_t size, lt_tensor *weight) {
  lt_tensor *place = clamp(s, at, 0, (double)(size - 1));
  return (neighbour){lt_to_dtype(s, place, LT_FLOAT64), lt_do2(s, &lt_op_eq, NULL, at, place),
                     weight};
}

/* Both; only the first without weights for the nearest. */
static void neighbours(lt_scope *s, lt_tensor *p, int64_t size, bool nearest, neighbour n[2]) {
  if (nearest) {
    n[0] = neighbour_of(s, lt_do1(s, &lt_op_round, NULL, p), size, NULL);
    return;
  }
  lt_tensor *low = lt_do1(s, &lt_op_floor, NULL, p), *part = lt_sub(s, p, low);
  n[0] = neighbour_of(s, low, size, lt_shift(s, lt_neg(s, part), 1));
  n[1] = neighbour_of(s, lt_shift(s, low, 1), size, part);
}

/* The pixels at two neighbours, times their weights: (N, C, points). */
static lt_tensor *sampled(lt_scope *s, lt_tensor *planes, int64_t width, const neighbour *y,
                          const neighbour *x) {
  lt_tensor *place = lt_shift(s, lt_add(s, lt_scale(s, y->place, (double)width), x->place), 1);
  lt_tensor *inside = lt_do2(s, &lt_op_logical_and, NULL, y->inside, x->inside);
  if (!place || !inside) return NULL;
  lt_shape each = {3, {place->shape.size[0], 1, place->shape.size[1] * place->shape.size[2]}};
  lt_shape all = each;
  all.size[1] = planes->shape.size[1];
  place = lt_reshape_to(s, lt_to_dtype(s, place, LT_INT64), &each);
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_gather);
  lt_attrs_set_int(&attrs, &lt_op_gather, 0, 2);
  lt_tensor *value = lt_do2(s, &lt_op_gather, &attrs, planes, lt_expand_to(s, place, &all));
  inside = lt_reshape_to(s, inside, &each);
  value = lt_do3(s, &lt_op_where, NULL, inside, value, lt_number(s, 0));
  if (!x->weight) return value;
  return lt_mul(s, value, lt_reshape_to(s, lt_mul(s, y->weight, x->weight), &each));
}

static void grid_sample_compose(lt_call *c, lt_scope *s) {
  const lt_shape *x = &c->in[0]->shape, *grid = &c->in[1]->shape;
  int64_t height = x->size[2], width = x->size[3];
  lt_shape shape = {4, {x->size[0], x->size[1], grid->size[1], grid->size[2]}};
  lt_shape flat = {3, {x->size[0], x->size[1], height * width}};
  bool nearest = lt_get_int(c->attrs, c->op, MODE) == NEAREST;
  neighbour across[2], down[2];
  neighbours(s, pixels(c, s, 0, width), width, nearest, across);
  neighbours(s, pixels(c, s, 1, height), height, nearest, down);
  lt_tensor *planes = lt_reshape_to(s, c->in[0], &flat);
  lt_tensor *y = sampled(s, planes, width, &down[0], &across[0]);
  for (int k = 1; k < 4 && !nearest; k++) {
    y = lt_add(s, y, sampled(s, planes, width, &down[k / 2], &across[k % 2]));
  }
  c->out[0] = lt_reshape_to(s, y, &shape);
}

const lt_op lt_op_grid_sample = {
    .name = "grid_sample",
    .doc = "x (N, C, H, W) at the points of grid (N, H', W', 2): (N, C, H', W'). A point is x, y "
           "in [-1, 1], -1 and 1 being the outer edges of the image, with align_corners the "
           "centres of its corner pixels. bilinear mixes four pixels, nearest takes one. Outside "
           "there are zeros, the pixels of the border, or the image reflected at its edges. "
           "Jaderberg et al. 2015, arXiv 1506.02025.",
    .inputs = {{"x", LT_FLOAT}, {"grid", LT_FLOAT}},
    .options = {{"mode", LT_OPTION_CHOICE, .choices = "bilinear nearest"},
                {"padding_mode", LT_OPTION_CHOICE, .choices = "zeros border reflection"},
                {"align_corners", LT_OPTION_BOOL}},
    .infer = grid_sample_infer,
    .compose = grid_sample_compose,
    .sample = {"normal(1, 2, 3, 4), uniform(1, 2, 3, 2)",
               "normal(2, 1, 4, 3), normal(2, 3, 2, 2), {padding_mode = 'border', align_corners = "
               "true}",
               "normal(1, 2, 3, 3), normal(1, 2, 2, 2), {padding_mode = 'reflection'}",
               "normal(1, 2, 4, 3), normal(1, 2, 2, 2), {mode = 'nearest'}"},
};

/* ---- affine_grid ------------------------------------------------------------------------------
 */

enum { SIZE, AFFINE_ALIGN };

static lt_status affine_grid_infer(lt_call *c) {
  const lt_shape *theta = &c->in[0]->shape;
  int n;
  const int64_t *size = lt_get_list(c->attrs, c->op, SIZE, &n);
  lt_shape image = lt_shape_make(n, size);
  char a[LT_SHAPE_TEXT], b[LT_SHAPE_TEXT];
  bool fits = (n == 4 || n == 5) && theta->ndim == 3 && theta->size[0] == size[0] &&
              theta->size[1] == n - 2 && theta->size[2] == n - 1;
  for (int d = 0; d < n; d++) fits = fits && size[d] >= (d < 2 ? 0 : 1);
  if (fits) {
    image.size[0] = image.size[1] = 1; /* points are counted whether there are images or not */
    return lt_shape_check(c->ctx, "affine_grid", &image);
  }
  return lt_fail(c->ctx,
                 "affine_grid: theta (N, 2, 3) needs a size (N, C, H, W), theta (N, 3, 4) a size "
                 "(N, C, D, H, W), got %s and %s",
                 lt_shape_text(theta, a), lt_shape_text(&image, b));
}

/* Homogeneous coordinates of all points, one in each row: x, y, (z,) 1. */
static lt_tensor *base_points(lt_scope *s, lt_dtype dtype, int n, const int64_t *size, bool align) {
  lt_shape shape = {2, {1, n + 1}};
  lt_tensor *base;
  for (int d = 0; d < n; d++) shape.size[0] *= size[d];
  if (s->status == LT_OK) s->status = lt_tensor_new(s->ctx, "affine_grid", dtype, &shape, &base);
  if (s->status != LT_OK) return NULL;
  for (int64_t point = 0; point < shape.size[0]; point++) {
    int64_t rest = point;
    for (int k = 0; k < n; k++) { /* x is the last dimension */
      int64_t count = size[n - 1 - k], i = rest % count;
      double end = align ? (double)(count - 1) : (double)count;
      double at = count == 1 ? 0 : (double)(2 * i - (count - 1)) / end;
      lt_tensor_write(base, point * (n + 1) + k, at);
      rest /= count;
    }
    lt_tensor_write(base, point * (n + 1) + n, 1);
  }
  return lt_keep(s, base);
}

static void affine_grid_compose(lt_call *c, lt_scope *s) {
  int count;
  const int64_t *size = lt_get_list(c->attrs, c->op, SIZE, &count);
  int n = count - 2;
  lt_tensor *base = base_points(s, (lt_dtype)c->in[0]->dtype, n, size + 2,
                                lt_get_int(c->attrs, c->op, AFFINE_ALIGN));
  lt_tensor *theta = lt_do1(s, &lt_op_transpose, NULL, c->in[0]); /* (N, n + 1, n) */
  lt_shape shape = {count, {size[0]}};
  for (int d = 0; d < n; d++) shape.size[1 + d] = size[2 + d];
  shape.size[1 + n] = n;
  c->out[0] = lt_reshape_to(s, lt_do2(s, &lt_op_matmul, NULL, base, theta), &shape);
}

const lt_op lt_op_affine_grid = {
    .name = "affine_grid",
    .doc = "The grid for grid_sample of affine maps theta (N, 2, 3): for images of size (N, C, H, "
           "W) the points theta [x y 1]' as (N, H, W, 2), x and y the centres of pixels in [-1, "
           "1]; also theta (N, 3, 4) for volumes. align_corners as in grid_sample.",
    .inputs = {{"theta", LT_FLOAT}},
    .options = {{"size", LT_OPTION_SIZES, .required = true}, {"align_corners", LT_OPTION_BOOL}},
    .infer = affine_grid_infer,
    .compose = affine_grid_compose,
    .function = true,
    .sample = {"normal(2, 2, 3), {2, 1, 3, 4}", "normal(1, 3, 4), {1, 1, 2, 2, 3}, true"},
};

LT_FAMILY(grid, &lt_op_grid_sample, &lt_op_affine_grid)
