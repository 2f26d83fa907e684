/* Ops that other files name: those that gradient rules are written with, and those that the
 * binding calls by itself. */
#ifndef LT_OPS_OPS_H
#define LT_OPS_OPS_H

#include "ops/op.h"

extern const lt_op lt_op_add, lt_op_sub, lt_op_mul, lt_op_div, lt_op_neg;
extern const lt_op lt_op_pow, lt_op_hypot, lt_op_xlogy, lt_op_sigmoid;
extern const lt_op lt_op_eq, lt_op_ne, lt_op_lt, lt_op_le, lt_op_gt, lt_op_ge, lt_op_logical_and;
extern const lt_op lt_op_maximum, lt_op_minimum, lt_op_clamp, lt_op_where, lt_op_masked_fill;
extern const lt_op lt_op_reshape, lt_op_expand, lt_op_transpose, lt_op_slice, lt_op_select;
extern const lt_op lt_op_masked_select;
extern const lt_op lt_op_to, lt_op_detach;
extern const lt_op lt_op_sum;
extern const lt_op lt_op_matmul;

/* Values that the program builds itself; they lend their names to light nodes. */
extern const lt_op lt_op_tensor, lt_op_variable, lt_op_assign, lt_op_custom;

#endif
