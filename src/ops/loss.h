/* What losses share: the option reduction and the sum of partial results. */
#ifndef LT_OPS_LOSS_H
#define LT_OPS_LOSS_H

#include <stdint.h>

/* The choices of the option `reduction`, in this order. */
#define LT_REDUCTIONS "mean sum none"
typedef enum lt_reduction { LT_MEAN, LT_SUM, LT_NONE } lt_reduction;

/* The sum of n parts, pair by pair; they are overwritten. */
double lt_sum_parts(double *part, int64_t n);

#endif
