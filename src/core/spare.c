/* The free lists of small things. */
#include "core/spare.h"

#include <stdlib.h>

/* Which list; LT_SPARE_CLASSES for none. */
static size_t class_of(size_t bytes) {
  size_t class = (bytes - 1) / LT_SPARE_STEP;
  return class < LT_SPARE_CLASSES ? class : LT_SPARE_CLASSES;
}

void *lt_spare_take(lt_spare *spare, size_t bytes) {
  size_t class = class_of(bytes);
  if (class == LT_SPARE_CLASSES) return malloc(bytes);
  void **p = spare->list[class];
  if (!p) return malloc((class + 1) * LT_SPARE_STEP);
  spare->list[class] = *p;
  spare->count[class]--;
  return p;
}

void lt_spare_give(lt_spare *spare, void *p, size_t bytes) {
  size_t class = class_of(bytes);
  if (class == LT_SPARE_CLASSES || spare->count[class] == LT_SPARE_MOST) {
    free(p);
    return;
  }
  spare->count[class]++;
  *(void **)p = spare->list[class];
  spare->list[class] = p;
}

void lt_spare_free(lt_spare *spare) {
  for (int i = 0; i < LT_SPARE_CLASSES; i++) {
    for (void **p = spare->list[i], **next; p; p = next) {
      next = *p;
      free(p);
    }
    spare->list[i] = NULL;
    spare->count[i] = 0;
  }
}
