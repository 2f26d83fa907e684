/* Sparse gradients: tensors of V x D that are zero but for some rows, and keep only those. After
 * PyTorch's sparse COO gradients of embeddings and TensorFlow's IndexedSlices. Such a tensor has no
 * elements (lt_is_plain); ops refuse it, the backward walk and the optimizers know it. */
#ifndef LT_CORE_ROWS_H
#define LT_CORE_ROWS_H

#include "core/tensor.h"

typedef struct lt_rows {
  lt_tensor *indices; /* int64, K: numbers of the rows, from 1, in any order, some more than once;
                         nobody else's memory, as they are not checked again */
  lt_tensor *values;  /* K x D, contiguous */
  bool coalesced;     /* ascending, each once */
} lt_rows;

/* The gradient of shape V x D with these rows: takes both references over, also when it fails. */
lt_status lt_rows_new(lt_context *ctx, int64_t rows, lt_tensor *indices, lt_tensor *values,
                      bool coalesced, lt_tensor **result);
void lt_rows_free(lt_context *ctx, lt_rows *rows);

/* The same rows with other values, K x D, retained. */
lt_status lt_rows_with(const lt_tensor *g, lt_tensor *values, lt_tensor **result);
/* The rows ascending and each once; those that came more than once are summed in the order in
 * which they came. g itself, retained, if it is so already. */
lt_status lt_rows_coalesce(lt_tensor *g, lt_tensor **result);
/* a + b, both sparse: the rows of a, then those of b. */
lt_status lt_rows_join(const lt_tensor *a, const lt_tensor *b, lt_tensor **result);
/* An ordinary tensor of the same value. */
lt_status lt_rows_to_dense(const lt_tensor *g, lt_tensor **result);

#endif
