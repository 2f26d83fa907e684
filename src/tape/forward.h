/* Forward mode: a tape that keeps no nodes but carries tangents along, TensorFlow's
 * ForwardAccumulator. A tangent lives as long as the value it belongs to. */
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

#endif
