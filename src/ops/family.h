/* How a file of ops ends: with the list of its blocks, which the registry collects. */
#ifndef LT_OPS_FAMILY_H
#define LT_OPS_FAMILY_H

#include "ops/op.h"
#include "ops/ops.h"

#define LT_FAMILY(NAME, ...)                                                                       \
  extern const lt_op *const lt_family_##NAME[];                                                    \
  const lt_op *const lt_family_##NAME[] = {__VA_ARGS__, NULL};

#endif
