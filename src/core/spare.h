/* Free lists for small things that are made and dropped with every operation: tensor headers and
 * nodes. Sizes go up in steps of 32 bytes; what is larger, and what there are too many of, is
 * malloc's. */
#ifndef LT_CORE_SPARE_H
#define LT_CORE_SPARE_H

#include <stddef.h>

enum { LT_SPARE_STEP = 32, LT_SPARE_CLASSES = 12, LT_SPARE_MOST = 8192 };

typedef struct lt_spare {
  void *list[LT_SPARE_CLASSES]; /* the first word of each points to the next */
  int count[LT_SPARE_CLASSES];
} lt_spare;

/* NULL when memory is short. */
void *lt_spare_take(lt_spare *spare, size_t bytes);
/* `bytes` as it was taken. */
void lt_spare_give(lt_spare *spare, void *p, size_t bytes);
void lt_spare_free(lt_spare *spare);

#endif
