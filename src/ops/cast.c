/* Changing type or storage, and cutting the gradient. */
#include "ops/family.h"
#include "tape/vmap.h"

/* ---- to --------------------------------------------------------------------------------- */

enum { TO_DTYPE };

static lt_status to_infer(lt_call *c) {
  c->result[0] = (lt_spec){(lt_dtype)lt_get_int(c->attrs, c->op, TO_DTYPE), c->in[0]->shape};
  return LT_OK;
}

static lt_status copy_forward(lt_call *c) { return lt_tensor_copy(c->out[0], c->in[0]); }

/* lt_give converts back. */
static void pass_vjp(lt_vjp *v) { lt_give(v, 0, v->dy[0]); }

const lt_op lt_op_to = {
    .name = "to",
    .doc = "x in another dtype. Floats become integers by truncation, saturating at the bounds, "
           "NaN as 0; there the gradient ends.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dtype", LT_OPTION_DTYPE, .required = true}},
    .infer = to_infer,
    .forward = copy_forward,
    .vjp = pass_vjp,
    .linear = true,
    .batch = lt_batch_leading,
    .sample = {"normal(3, 4), 'float64'"},
};

/* ---- clone, contiguous ------------------------------------------------------------------- */

const lt_op lt_op_clone = {
    .name = "clone",
    .doc = "A copy of x with memory of its own; the gradient passes through.",
    .inputs = {{"x", LT_ANY}},
    .infer = lt_infer_same,
    .forward = copy_forward,
    .vjp = pass_vjp,
    .linear = true,
    .batch = lt_batch_leading,
    .sample = {"normal(3, 4)"},
};

static lt_status contiguous_forward(lt_call *c) {
  lt_tensor *copy;
  LT_TRY(lt_tensor_contiguous(c->in[0], &copy));
  lt_status status = lt_tensor_view(copy, 0, &copy->shape, copy->strides, &c->out[0]);
  lt_tensor_release(copy);
  return status;
}

const lt_op lt_op_contiguous = {
    .name = "contiguous",
    .doc = "x laid out row by row without gaps: a view of x if it lies so already, else a copy.",
    .inputs = {{"x", LT_ANY}},
    .infer = lt_infer_same,
    .forward = contiguous_forward,
    .vjp = pass_vjp,
    .linear = true,
    .batch = lt_batch_leading,
    .view = true,
    .sample = {"normal(3, 4)", "transposed(3, 4)"},
};

/* ---- alias, stop_gradient, detach
 * ---------------------------------------------------------------- */

static lt_status alias_forward(lt_call *c) {
  return lt_tensor_view(c->in[0], 0, &c->in[0]->shape, c->in[0]->strides, &c->out[0]);
}

const lt_op lt_op_alias = {
    .name = "alias",
    .doc = "x as another value: transforms watch it and not x, which may be in use elsewhere.",
    .inputs = {{"x", LT_ANY}},
    .infer = lt_infer_same,
    .forward = alias_forward,
    .vjp = pass_vjp,
    .linear = true,
    .batch = lt_batch_leading,
    .view = true,
    .internal = true,
};

const lt_op lt_op_stop_gradient = {
    .name = "stop_gradient",
    .doc = "x as a constant: the value passes, the gradient does not (TensorFlow). A view.",
    .inputs = {{"x", LT_ANY}},
    .infer = lt_infer_same,
    .forward = alias_forward,
    .batch = lt_batch_leading,
    .view = true,
    .cuts = true,
    .sample = {"normal(3, 4)"},
};

const lt_op lt_op_detach = {
    .name = "detach",
    .doc = "x as a constant: PyTorch's name of stop_gradient. A view.",
    .inputs = {{"x", LT_ANY}},
    .infer = lt_infer_same,
    .forward = alias_forward,
    .batch = lt_batch_leading,
    .view = true,
    .cuts = true,
    .sample = {"normal(3, 4)"},
};

LT_FAMILY(cast, &lt_op_alias, &lt_op_to, &lt_op_clone, &lt_op_contiguous, &lt_op_stop_gradient,
          &lt_op_detach)
