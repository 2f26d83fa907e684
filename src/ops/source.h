/* What ops that make tensors out of nothing share. */
#ifndef LT_OPS_SOURCE_H
#define LT_OPS_SOURCE_H

#include "ops/op.h"

/* The type in option `dtype`, or `otherwise` where it is absent. */
lt_dtype lt_get_dtype(const lt_call *c, int dtype, lt_dtype otherwise);

/* The shape in the list `size` (absent: 0-d); the type as above. */
lt_status lt_infer_source(lt_call *c, int size, int dtype, lt_dtype otherwise);

/* The shape of input 0; the type in option `dtype`, or that of input 0. */
lt_status lt_infer_like(lt_call *c, int dtype);

#endif
