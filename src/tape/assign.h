/* Writing into a tensor in place. A write carries no gradient: it gives a plain tensor a new
 * identity, so that no gradient flows through the old one; a variable stays itself. */
#ifndef LT_TAPE_ASSIGN_H
#define LT_TAPE_ASSIGN_H

#include "tape/node.h"

/* Refuses values that a listening tape recorded, as their gradient would silently be wrong, and
 * windows whose elements share memory. */
lt_status lt_assign_begin(lt_context *ctx, const lt_tensor *t, const char *op);

/* After the write: a new version of the memory, written here. `source` (NULL: a number) is what
 * was written. */
lt_status lt_assign_end(lt_context *ctx, lt_tensor *t, lt_tensor *source);

#endif
