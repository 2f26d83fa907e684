/* The table of element types. */
#include "core/dtype.h"

#include <string.h>

static const struct {
  const char *name;
  int64_t size;
  lt_category category;
} dtypes[LT_DTYPE_COUNT] = {
    [LT_FLOAT32] = {"float32", 4, LT_CATEGORY_FLOAT},
    [LT_FLOAT64] = {"float64", 8, LT_CATEGORY_FLOAT},
    [LT_INT64] = {"int64", 8, LT_CATEGORY_INT},
    [LT_INT32] = {"int32", 4, LT_CATEGORY_INT},
    [LT_UINT8] = {"uint8", 1, LT_CATEGORY_INT},
    [LT_BOOL] = {"bool", 1, LT_CATEGORY_BOOL},
};

const char *lt_dtype_name(lt_dtype t) { return dtypes[t].name; }

bool lt_dtype_from_name(const char *name, lt_dtype *t) {
  for (int i = 0; i < LT_DTYPE_COUNT; i++) {
    if (strcmp(name, dtypes[i].name) == 0) {
      *t = (lt_dtype)i;
      return true;
    }
  }
  return false;
}

int64_t lt_dtype_size(lt_dtype t) { return dtypes[t].size; }

lt_category lt_dtype_category(lt_dtype t) { return dtypes[t].category; }

lt_dtype lt_dtype_promote(lt_dtype a, lt_dtype b) {
  if (dtypes[a].category != dtypes[b].category) {
    return dtypes[a].category > dtypes[b].category ? a : b;
  }
  return dtypes[a].size >= dtypes[b].size ? a : b;
}
