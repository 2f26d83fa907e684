/* The scope of a gradient rule, and the ops that rules are written with. */
#include "tape/vjp.h"
#include "core/rows.h"
#include "ops/ops.h"

#include <stdlib.h>
#include <string.h>

void lt_scope_open(lt_scope *s, lt_context *ctx) {
  *s = (lt_scope){.ctx = ctx, .capacity = (int)(sizeof s->few / sizeof s->few[0])};
  s->made = s->few;
}

void lt_scope_close(lt_scope *s) {
  for (int i = 0; i < s->count; i++) lt_tensor_release(s->made[i]);
  if (s->made != s->few) free(s->made);
  s->made = NULL;
  s->count = 0;
}

lt_tensor *lt_keep(lt_scope *s, lt_tensor *t) {
  if (s->count == s->capacity) {
    size_t bytes = 2 * (size_t)s->capacity * sizeof *s->made;
    lt_tensor **more = malloc(bytes);
    if (!more) {
      s->status = lt_fail_memory(s->ctx, (long long)bytes);
      lt_tensor_release(t);
      return NULL;
    }
    memcpy(more, s->made, (size_t)s->count * sizeof *more);
    if (s->made != s->few) free(s->made);
    s->made = more;
    s->capacity *= 2;
  }
  return s->made[s->count++] = t;
}

int lt_do_all(lt_scope *s, const lt_op *op, const lt_attrs *attrs, int inputs, lt_tensor *const *in,
              lt_tensor *out[LT_MAX_OUTPUTS]) {
  int outputs = 0;
  if (s->status == LT_OK) s->status = lt_run(s->ctx, op, inputs, in, attrs, &outputs, out);
  for (int i = 0; i < outputs; i++) out[i] = lt_keep(s, out[i]);
  if (s->status == LT_OK) return outputs;
  for (int i = 0; i < LT_MAX_OUTPUTS; i++) out[i] = NULL;
  return 0;
}

lt_tensor *lt_do(lt_scope *s, const lt_op *op, const lt_attrs *attrs, int inputs,
                 lt_tensor *const *in) {
  lt_tensor *out[LT_MAX_OUTPUTS];
  int outputs = 0;
  if (s->status == LT_OK) s->status = lt_run(s->ctx, op, inputs, in, attrs, &outputs, out);
  if (s->status != LT_OK) return NULL;
  for (int i = 1; i < outputs; i++) lt_tensor_release(out[i]);
  return lt_keep(s, out[0]);
}

lt_tensor *lt_do1(lt_scope *s, const lt_op *op, const lt_attrs *attrs, lt_tensor *a) {
  return a ? lt_do(s, op, attrs, 1, &a) : NULL;
}
lt_tensor *lt_do2(lt_scope *s, const lt_op *op, const lt_attrs *attrs, lt_tensor *a, lt_tensor *b) {
  return a && b ? lt_do(s, op, attrs, 2, (lt_tensor *[]){a, b}) : NULL;
}
lt_tensor *lt_do3(lt_scope *s, const lt_op *op, const lt_attrs *attrs, lt_tensor *a, lt_tensor *b,
                  lt_tensor *c) {
  return a && b && c ? lt_do(s, op, attrs, 3, (lt_tensor *[]){a, b, c}) : NULL;
}

lt_tensor *lt_number(lt_scope *s, double value) {
  if (s->status != LT_OK) return NULL;
  lt_tensor *t;
  s->status = lt_tensor_scalar(s->ctx, value, LT_FLOAT64, &t);
  if (s->status != LT_OK) return NULL;
  t->weak = true;
  return lt_keep(s, t);
}

lt_tensor *lt_add(lt_scope *s, lt_tensor *a, lt_tensor *b) {
  return lt_do2(s, &lt_op_add, NULL, a, b);
}
lt_tensor *lt_sub(lt_scope *s, lt_tensor *a, lt_tensor *b) {
  return lt_do2(s, &lt_op_sub, NULL, a, b);
}
lt_tensor *lt_mul(lt_scope *s, lt_tensor *a, lt_tensor *b) {
  return lt_do2(s, &lt_op_mul, NULL, a, b);
}
lt_tensor *lt_div(lt_scope *s, lt_tensor *a, lt_tensor *b) {
  return lt_do2(s, &lt_op_div, NULL, a, b);
}
lt_tensor *lt_neg(lt_scope *s, lt_tensor *a) { return lt_do1(s, &lt_op_neg, NULL, a); }
lt_tensor *lt_scale(lt_scope *s, lt_tensor *a, double f) { return lt_mul(s, a, lt_number(s, f)); }
lt_tensor *lt_shift(lt_scope *s, lt_tensor *a, double t) { return lt_add(s, a, lt_number(s, t)); }

static lt_tensor *to_shape(lt_scope *s, const lt_op *op, lt_tensor *a, const lt_shape *shape) {
  if (!a || lt_shape_equal(&a->shape, shape)) return a;
  lt_attrs attrs;
  lt_attrs_default(&attrs, op);
  lt_attrs_set_list(&attrs, op, 0, shape->ndim, shape->size);
  return lt_do1(s, op, &attrs, a);
}

lt_tensor *lt_reshape_to(lt_scope *s, lt_tensor *a, const lt_shape *shape) {
  return to_shape(s, &lt_op_reshape, a, shape);
}
lt_tensor *lt_expand_to(lt_scope *s, lt_tensor *a, const lt_shape *shape) {
  return to_shape(s, &lt_op_expand, a, shape);
}

lt_tensor *lt_sum_over(lt_scope *s, lt_tensor *a, int n, const int64_t *dims, bool keepdim) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_sum);
  lt_attrs_set_list(&attrs, &lt_op_sum, 0, n, dims);
  lt_attrs_set_int(&attrs, &lt_op_sum, 1, keepdim);
  return lt_do1(s, &lt_op_sum, &attrs, a);
}

lt_tensor *lt_sum_to(lt_scope *s, lt_tensor *a, const lt_shape *shape) {
  if (!a || lt_shape_equal(&a->shape, shape)) return a;
  int64_t dims[LT_MAX_RANK];
  int n = 0, shift = a->shape.ndim - shape->ndim;
  bool stretched = false; /* some sizes of 1 stay in the result */
  for (int d = 0; d < a->shape.ndim; d++) {
    bool stretch = d >= shift && shape->size[d - shift] == 1 && a->shape.size[d] != 1;
    if (d < shift || stretch) dims[n++] = d;
    stretched = stretched || stretch;
  }
  return lt_reshape_to(s, n > 0 ? lt_sum_over(s, a, n, dims, stretched) : a, shape);
}

lt_tensor *lt_to_dtype(lt_scope *s, lt_tensor *a, lt_dtype dtype) {
  if (!a || a->dtype == dtype) return a;
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_to);
  lt_attrs_set_int(&attrs, &lt_op_to, 0, dtype);
  return lt_do1(s, &lt_op_to, &attrs, a);
}

lt_tensor *lt_full_like(lt_scope *s, const lt_spec *like, double value) {
  if (s->status != LT_OK) return NULL;
  lt_tensor *one;
  s->status = lt_tensor_scalar(s->ctx, value, like->dtype, &one);
  if (s->status != LT_OK) return NULL;
  return lt_expand_to(s, lt_keep(s, one), &like->shape);
}

lt_spec lt_input_spec(const lt_vjp *v, int i) {
  return lt_edge_spec(v->node, lt_node_in(v->node, i));
}
lt_spec lt_output_spec(const lt_vjp *v, int i) {
  return lt_edge_spec(v->node, lt_node_out(v->node, i));
}

lt_tensor *lt_dense(lt_scope *s, lt_tensor *g) {
  if (!g || !g->rows || s->status != LT_OK) return g;
  s->status = lt_rows_to_dense(g, &g);
  return s->status == LT_OK ? lt_keep(s, g) : NULL;
}

lt_tensor *lt_accumulate(lt_scope *s, lt_tensor *a, lt_tensor *b) {
  if (!a || !b || !a->rows || !b->rows) return lt_add(s, lt_dense(s, a), lt_dense(s, b));
  if (s->status == LT_OK) s->status = lt_rows_join(a, b, &a);
  return s->status == LT_OK ? lt_keep(s, a) : NULL;
}

void lt_give(lt_vjp *v, int i, lt_tensor *gradient) {
  if (!gradient || v->s->status != LT_OK) return;
  lt_spec spec = lt_input_spec(v, i);
  if (!v->whole) gradient = lt_sum_to(v->s, gradient, &spec.shape);
  gradient = lt_to_dtype(v->s, gradient, spec.dtype);
  if (gradient && v->dx[i]) gradient = lt_accumulate(v->s, v->dx[i], gradient);
  if (!gradient) return;
  lt_tensor_release(v->dx[i]);
  v->dx[i] = lt_tensor_retain(gradient);
}
