/* Numbers that left the tensors. While a tape is open, what item, get, totable and tostring give
 * out is remembered by value; when such numbers come back, as an operand or as a new tensor, a
 * light node joins the two, so that explain finds the way they took. */
#ifndef LT_TAPE_READING_H
#define LT_TAPE_READING_H

#include "core/tensor.h"
#include "ops/op.h"

/* So many elements of a tensor are remembered, and looked at. */
enum { LT_NOTED = 16 };

/* `op` is the reading call; it lends its name. */
void lt_reading_note(const lt_op *op, const lt_tensor *t, double value);
/* t was made of numbers of the host's, `value` are its first ones: do all of them come from
 * tensors? Then that is noted, and *found set. */
lt_status lt_reading_return(lt_tensor *t, int count, const double *value, bool *found);
/* The op that read this number last, since the first of the open tapes was opened; if none did, the
 * last reading of all, with *same false. NULL if there was none. */
const lt_op *lt_reading_find(const lt_context *ctx, double value, lt_site *where, bool *same);

#endif
