/* What losses share: the option reduction, and pointwise losses, which are computed from their
 * operands one by one. Such a loss gives a tile of values and one of gradients; the values are
 * weighed and added up in the pass that computes them. */
#ifndef LT_OPS_LOSS_H
#define LT_OPS_LOSS_H

#include "kernels/elementwise.h"
#include "ops/family.h"
#include "tape/vjp.h"
#include "tape/vmap.h"

/* The choices of the option `reduction`, in this order; it is the first option of every loss. */
#define LT_REDUCTIONS "mean sum none"
typedef enum lt_reduction { LT_MEAN, LT_SUM, LT_NONE, LT_BATCHMEAN } lt_reduction;

enum { LT_REDUCTION }; /* the option's number */
#define LT_REDUCTION_OPTION                                                                        \
  { "reduction", LT_OPTION_CHOICE, .choices = LT_REDUCTIONS }
#define LT_REDUCTION_DOC                                                                           \
  " reduction \"mean\" takes the mean of the values, \"sum\" the sum, \"none\" leaves them."

lt_reduction lt_reduction_of(const lt_attrs *attrs, const lt_op *op);
/* The same options with another reduction. */
lt_attrs lt_with_reduction(const lt_attrs *attrs, const lt_op *op, lt_reduction reduction);

/* The sum of n parts, pair by pair; they are overwritten. */
double lt_sum_parts(double *part, int64_t n);

/* Values y reduced by ops, as the option says; for "none" y itself. */
lt_tensor *lt_reduced(lt_scope *s, lt_tensor *y, lt_reduction reduction);

/* 1 where the comparison of a and b holds, else 0, as numbers of a's type. */
lt_tensor *lt_step(lt_scope *s, const lt_op *comparison, lt_tensor *a, lt_tensor *b);

/* Fails at the first element of input i outside low..high; NaN may pass. */
lt_status lt_check_range(const lt_call *c, int i, double low, double high);

/* ---- Pointwise losses ---------------------------------------------------------------------- */

/* Operands are the inputs without the weight. In rules operand i is x[i]; they are made of
 * differentiable ops, which gives every order of derivative. */
typedef lt_tensor *lt_loss_rule(lt_vjp *v, lt_tensor *const *x, int i);

typedef struct lt_loss {
  int weight;          /* which input multiplies the values; 0: none */
  bool over_weights;   /* the mean is over the sum of the weights, not over the count */
  bool difference;     /* values depend on x[0] - x[1] */
  lt_loss_rule *slope; /* derivative of the value in x[i], i > 0; NULL: 0 */
  lt_loss_rule *curve; /* derivative in x[i] of that in x[0]; NULL, also as its result: 0 */
  lt_status (*check)(const lt_call *c); /* when a value is NaN: may say why it must not be */
} lt_loss;

/* Broadcast shape of all inputs, their type; a scalar when the values are reduced. */
lt_status lt_loss_infer(lt_call *c);
/* The same for losses whose input and target must have one shape, that of the values. */
lt_status lt_loss_infer_alike(lt_call *c);
lt_status lt_loss_forward(lt_call *c, const lt_loss *loss, const lt_kernel *kernel);
void lt_loss_vjp(lt_vjp *v, const lt_loss *loss, const lt_op *backward);
void lt_loss_backward_vjp(lt_vjp *v, const lt_loss *loss);
void lt_loss_batch(lt_batch *b, const lt_loss *loss);

/* Kernels of dy and three operands. */
#define LT_TILE_OF_4(NAME, TARGET, TYPE, RESULT, A1, A2, A3, A4, ...)                              \
  TARGET static void NAME(int64_t n, void *const *p, const double *lt_k) {                         \
    typedef TYPE T;                                                                                \
    RESULT *restrict lt_y = p[0];                                                                  \
    const T *lt_1 = p[1], *lt_2 = p[2], *lt_3 = p[3], *lt_4 = p[4];                                \
    LT_HOLD_OPTIONS                                                                                \
    for (int64_t lt_i = 0; lt_i < n; lt_i++) {                                                     \
      const T A1 = lt_1[lt_i], A2 = lt_2[lt_i], A3 = lt_3[lt_i], A4 = lt_4[lt_i];                  \
      lt_y[lt_i] = (RESULT)(__VA_ARGS__);                                                          \
    }                                                                                              \
  }
#define LT_KERNEL_4(NAME, ...) LT_KERNEL_OF(LT_TILE_OF_4, NAME, __VA_ARGS__)

/* LT_LOSS(mse_loss, ...) makes lt_op_mse_loss of mse_loss (an lt_loss), mse_loss_kernel (values of
 * the operands) and mse_loss_backward_kernel (dy and the operands: dy times the derivative in
 * x[0]). Both take the loss's options. */
#define LT_LOSS(NAME, INFER, OPERANDS, INPUTS, ...)                                                \
  static lt_status NAME##_forward(lt_call *c) {                                                    \
    return lt_loss_forward(c, &NAME, &NAME##_kernel);                                              \
  }                                                                                                \
  static void NAME##_batch(lt_batch *b) { lt_loss_batch(b, &NAME); }                               \
  static void NAME##_backward_vjp(lt_vjp *v) { lt_loss_backward_vjp(v, &NAME); }                   \
  static const lt_op NAME##_backward = {.name = #NAME "_backward",                                 \
                                        .inputs = {{"dy", LT_FLOAT}, OPERANDS},                    \
                                        .infer = lt_infer_elementwise,                             \
                                        .kernel = &NAME##_backward_kernel,                         \
                                        .vjp = NAME##_backward_vjp,                                \
                                        .saves = LT_IN(0) | LT_IN(1) | LT_IN(2) | LT_IN(3),        \
                                        __VA_ARGS__};                                              \
  static void NAME##_vjp(lt_vjp *v) { lt_loss_vjp(v, &NAME, &NAME##_backward); }                   \
  const lt_op lt_op_##NAME = {.name = #NAME,                                                       \
                              .inputs = {INPUTS},                                                  \
                              .infer = INFER,                                                      \
                              .forward = NAME##_forward,                                           \
                              .vjp = NAME##_vjp,                                                   \
                              .saves = LT_IN(0) | LT_IN(1) | LT_IN(2) | LT_IN(3),                  \
                              .batch = NAME##_batch,                                               \
                              __VA_ARGS__};

#endif
