/* What the files of linear algebra share: checks of their operands, and the words that their
 * gradient rules and composed ops are written with. A matrix is the last two dimensions; what lies
 * before them is a batch. */
#ifndef LT_OPS_LINALG_H
#define LT_OPS_LINALG_H

#include "ops/op.h"
#include "tape/vjp.h"

/* ---- Checks ---------------------------------------------------------------------------------- */

/* All inputs are of one dtype. */
lt_status lt_check_same_dtype(lt_call *c);
/* Input i has at least two dimensions, and as many rows as columns where `square` asks for it. */
lt_status lt_check_matrix(lt_call *c, int i, bool square);

/* ---- Words of rules, on the last two dimensions ---------------------------------------------- */

lt_tensor *lt_product(lt_scope *s, lt_tensor *a, lt_tensor *b);
lt_tensor *lt_transposed(lt_scope *s, lt_tensor *a);
/* a without what lies above (`lower`) or below its diagonal number `diagonal`. */
lt_tensor *lt_triangle(lt_scope *s, lt_tensor *a, bool lower, int64_t diagonal);
/* The main diagonal as a vector, and a vector as the diagonal of a square matrix. */
lt_tensor *lt_diagonal(lt_scope *s, lt_tensor *a);
lt_tensor *lt_diagonal_matrix(lt_scope *s, lt_tensor *a);
/* A symmetric matrix from half of itself: the part on and below the diagonal, mirrored. */
lt_tensor *lt_mirrored(lt_scope *s, lt_tensor *a);
/* Elements start .. start + length - 1 of one of the last two dimensions (-2 or -1). */
lt_tensor *lt_part(lt_scope *s, lt_tensor *a, int dim, int64_t start, int64_t length);
/* A new dimension of size 1, at place dim of the result (from 0, or negative). */
lt_tensor *lt_unsqueezed(lt_scope *s, lt_tensor *a, int dim);
/* The x of a x = b, or of x a = b, as the op solve_triangular. */
lt_tensor *lt_solve_triangular(lt_scope *s, lt_tensor *a, lt_tensor *b, bool upper, bool left,
                               bool unit);

/* ---- Forwards: the matrices of a tensor, one by one -------------------------------------------
 */

/* The matrices of a tensor, as many as a batch has to which they broadcast. */
typedef struct lt_matrices {
  const lt_tensor *t;
  int64_t rows, columns, count;
  lt_shape batch;
  int64_t stride[LT_MAX_RANK]; /* along the batch */
} lt_matrices;

/* The sizes before the last two. */
lt_shape lt_batch_of(const lt_shape *s);
lt_matrices lt_matrices_of(const lt_tensor *t, const lt_shape *batch);
/* Where matrix i begins, in elements from the tensor's first. */
int64_t lt_matrix_at(const lt_matrices *m, int64_t i);
/* Copies matrix i, row by row or column by column. */
void lt_matrix_take(const lt_matrices *m, int64_t i, bool by_columns, void *to);
/* Writes matrix i of a result from one that lies column by column. */
void lt_matrix_put(lt_tensor *y, int64_t i, const void *columns);

/* Neither NaN nor infinity among n floats. */
bool lt_all_finite(lt_dtype dtype, int64_t n, const void *data);

/* "the matrix", or "matrix 2 of 3"; for messages. */
const char *lt_matrix_text(int64_t i, int64_t count, char text[64]);

/* Memory for one call: several parts of a block. */
enum { LT_SCRATCH_PARTS = 6 };
typedef struct lt_scratch {
  lt_block *block;
  void *part[LT_SCRATCH_PARTS];
} lt_scratch;
lt_status lt_scratch_new(lt_context *ctx, const char *op, int parts, const int64_t *bytes,
                         lt_scratch *s);

#endif
