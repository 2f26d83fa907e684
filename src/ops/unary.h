/* One block per function of one variable. An op y = f(x) names a forward kernel, a fused kernel
 * of its gradient, f_backward(dy, s) = dy * f'(s), and the function `second`: the derivative of
 * that factor f' in s, made of differentiable ops. s is x or, where that is better, y. From the
 * three follow the rules of f and of f_backward, and with them every order of derivative. */
#ifndef LT_OPS_UNARY_H
#define LT_OPS_UNARY_H

#include "kernels/elementwise.h"
#include "kernels/math.h"
#include "ops/family.h"
#include "tape/vjp.h"

/* NULL: f' is constant but for steps. */
typedef lt_tensor *lt_second(lt_vjp *v, lt_tensor *s);

void lt_unary_vjp(lt_vjp *v, const lt_op *backward);
void lt_unary_backward_vjp(lt_vjp *v, lt_second *second);

/* For functions `second`, which run in the rule of f_backward: the factor f'(s) itself. */
lt_tensor *lt_slope(lt_vjp *v, lt_tensor *s);

/* The rule of functions made of steps: zeros. */
void lt_flat_vjp(lt_vjp *v);

/* LT_UNARY(tanh, LT_OUT(0), tanh_second, .doc = ..., .options = ..., .sample = ...) makes
 * lt_op_tanh of tanh_kernel, tanh_backward_kernel and tanh_second; SAVED says what s is. The
 * options are passed to both kernels. */
#define LT_UNARY(NAME, SAVED, SECOND, ...)                                                         \
  LT_UNARY_OF(NAME, LT_FLOAT, lt_infer_elementwise, SAVED, SECOND, __VA_ARGS__)

#define LT_UNARY_OF(NAME, ACCEPTS, INFER, SAVED, SECOND, ...)                                      \
  static void NAME##_backward_vjp(lt_vjp *v) { lt_unary_backward_vjp(v, SECOND); }                 \
  static const lt_op NAME##_backward = {.name = #NAME "_backward",                                 \
                                        .inputs = {{"dy", LT_FLOAT}, {"s", LT_FLOAT}},             \
                                        .infer = lt_infer_elementwise,                             \
                                        .kernel = &NAME##_backward_kernel,                         \
                                        .vjp = NAME##_backward_vjp,                                \
                                        .saves = LT_IN(0) | LT_IN(1),                              \
                                        .internal = true,                                          \
                                        __VA_ARGS__};                                              \
  static void NAME##_vjp(lt_vjp *v) { lt_unary_vjp(v, &NAME##_backward); }                         \
  const lt_op lt_op_##NAME = {.name = #NAME,                                                       \
                              .inputs = {{"x", ACCEPTS}},                                          \
                              .infer = INFER,                                                      \
                              .kernel = &NAME##_kernel,                                            \
                              .vjp = NAME##_vjp,                                                   \
                              .saves = SAVED,                                                      \
                              __VA_ARGS__};

#endif
