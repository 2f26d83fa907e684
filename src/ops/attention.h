/* The words that ops on attention share. */
#ifndef LT_OPS_ATTENTION_H
#define LT_OPS_ATTENTION_H

#include "ops/op.h"
#include "tape/vjp.h"

extern const lt_op lt_op_attention;

/* softmax(scale q k^T + mask) as a tensor of its own, differentiable. The mask may be NULL, bool
 * (true attends) or float (added); rows with every key masked are 0. */
lt_tensor *lt_attention_weights(lt_scope *s, lt_tensor *q, lt_tensor *k, lt_tensor *mask,
                                bool causal, double scale);

/* weights v, without keeping the weights. */
lt_tensor *lt_attend(lt_scope *s, lt_tensor *q, lt_tensor *k, lt_tensor *v, lt_tensor *mask,
                     bool causal, double scale);

/* a with its last two dimensions swapped. */
lt_tensor *lt_last_swapped(lt_scope *s, lt_tensor *a);

#endif
