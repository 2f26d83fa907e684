/* Ops that other files name: those that gradient rules are written with, and those that the
 * binding calls by itself. */
#ifndef LT_OPS_OPS_H
#define LT_OPS_OPS_H

#include "ops/op.h"

extern const lt_op lt_op_add, lt_op_sub, lt_op_mul, lt_op_div, lt_op_neg;
extern const lt_op lt_op_pow, lt_op_hypot, lt_op_xlogy, lt_op_sigmoid;
extern const lt_op lt_op_sin, lt_op_cos, lt_op_sinh, lt_op_cosh, lt_op_digamma, lt_op_polygamma;
extern const lt_op lt_op_eq, lt_op_ne, lt_op_lt, lt_op_le, lt_op_gt, lt_op_ge, lt_op_logical_and,
    lt_op_logical_not;
extern const lt_op lt_op_maximum, lt_op_minimum, lt_op_clamp, lt_op_where, lt_op_masked_fill;
extern const lt_op lt_op_permute, lt_op_reshape, lt_op_expand, lt_op_transpose, lt_op_slice,
    lt_op_select;
extern const lt_op lt_op_masked_select;
extern const lt_op lt_op_to, lt_op_clone, lt_op_detach, lt_op_alias;
extern const lt_op lt_op_full_like;
extern const lt_op lt_op_sum, lt_op_mean, lt_op_softmax, lt_op_log_softmax, lt_op_logsumexp;
extern const lt_op lt_op_cumsum_either, lt_op_shift, lt_op_recurrence, lt_op_product_before;
extern const lt_op lt_op_exp_difference, lt_op_div_or_zero;
extern const lt_op lt_op_matmul;
extern const lt_op lt_op_unsqueeze, lt_op_narrow, lt_op_slice_backward;
extern const lt_op lt_op_index_select, lt_op_index_add, lt_op_masked_select_backward;
extern const lt_op lt_op_randperm, lt_op_range;
extern const lt_op lt_op_permute, lt_op_flip, lt_op_roll, lt_op_pad, lt_op_pad_backward;
extern const lt_op lt_op_gather, lt_op_gather_backward, lt_op_scatter, lt_op_scatter_add;
extern const lt_op lt_op_index_fill, lt_op_sort, lt_op_cumsum;
extern const lt_op lt_op_abs, lt_op_sign, lt_op_square, lt_op_sqrt, lt_op_exp, lt_op_log;
extern const lt_op lt_op_sin, lt_op_cos, lt_op_sinh, lt_op_cosh, lt_op_tanh, lt_op_relu;
extern const lt_op lt_op_floor, lt_op_round;
extern const lt_op lt_op_softplus, lt_op_digamma, lt_op_polygamma, lt_op_cat, lt_op_dropout;
extern const lt_op lt_op_stack;
extern const lt_op lt_op_embedding, lt_op_embedding_take, lt_op_embedding_backward;
extern const lt_op lt_op_softmax_backward, lt_op_amax;
extern const lt_op lt_op_convolution, lt_op_convolution_input, lt_op_convolution_weight;
extern const lt_op lt_op_logsigmoid, lt_op_log1p, lt_op_norm, lt_op_gaussian_nll_loss;
extern const lt_op lt_op_binary_cross_entropy_with_logits;
extern const lt_op lt_op_linear, lt_op_rnn_tanh, lt_op_rnn_relu, lt_op_gru, lt_op_lstm;
extern const lt_op lt_op_recurrent_backward;
extern const lt_op lt_op_rnn_tanh_cell, lt_op_rnn_relu_cell, lt_op_gru_cell, lt_op_lstm_cell;
extern const lt_op lt_op_squeeze;
extern const lt_op lt_op_tril, lt_op_triu, lt_op_diagonal, lt_op_diagonal_backward,
    lt_op_diag_embed;
extern const lt_op lt_op_inv, lt_op_det, lt_op_cofactor, lt_op_solve_columns;
extern const lt_op lt_op_solve_triangular, lt_op_svd, lt_op_eigh, lt_op_pinv;

/* Values that the program builds itself; they lend their names to light nodes. */
extern const lt_op lt_op_tensor, lt_op_variable, lt_op_assign, lt_op_custom, lt_op_vmap;
extern const lt_op lt_op_item, lt_op_get, lt_op_totable, lt_op_tostring;

#endif
