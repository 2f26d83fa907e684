/* Element types, and the rule by which two of them meet (PyTorch's promotion). */
#ifndef LT_CORE_DTYPE_H
#define LT_CORE_DTYPE_H

#include <stdbool.h>
#include <stdint.h>

typedef enum lt_dtype {
  LT_FLOAT32,
  LT_FLOAT64,
  LT_INT64,
  LT_INT32,
  LT_UINT8,
  LT_BOOL,
  LT_DTYPE_COUNT
} lt_dtype;

/* Categories are ordered: a higher one wins whatever the sizes. */
typedef enum lt_category { LT_CATEGORY_BOOL, LT_CATEGORY_INT, LT_CATEGORY_FLOAT } lt_category;

const char *lt_dtype_name(lt_dtype t);
/* false when there is no such name */
bool lt_dtype_from_name(const char *name, lt_dtype *t);
int64_t lt_dtype_size(lt_dtype t);
lt_category lt_dtype_category(lt_dtype t);
static inline bool lt_dtype_is_float(lt_dtype t) { return t <= LT_FLOAT64; }

/* The smallest type that holds both: float64 > float32 > int64 > int32 > uint8 > bool. */
lt_dtype lt_dtype_promote(lt_dtype a, lt_dtype b);

#endif
