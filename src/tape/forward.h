/* Forward mode: a tape that keeps no nodes but carries tangents along, as TensorFlow's
 * ForwardAccumulator does. A tangent lives as long as the value it belongs to. */
#ifndef LT_TAPE_FORWARD_H
#define LT_TAPE_FORWARD_H

#include "tape/tape.h"
#include "tape/vjp.h"

/* What a forward rule sees. */
typedef struct lt_jvp {
  lt_context *ctx;
  lt_scope *s;
  const lt_op *op;
  const lt_attrs *attrs;
  int inputs, outputs;
  lt_tensor *const *in; /* all of them, whatever `saves` says */
  lt_tensor *const *out;
  lt_tensor **dx; /* tangent of each input; NULL: it does not change */
  lt_tensor **dy; /* to be filled, owned by the scope: tangent of each output, NULL for none */
} lt_jvp;

lt_status lt_forward_new(lt_context *ctx, lt_tape **tape);
/* Says along which direction x changes; of x's shape and type. */
lt_status lt_forward_watch(lt_tape *tape, lt_tensor *x, lt_tensor *tangent);
/* The tangents of a call's outputs, from those of its inputs; called when it is recorded. */
lt_status lt_forward_step(lt_tape *tape, const lt_call *c, lt_node *n);

#endif
