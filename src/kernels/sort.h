/* Sorting and selecting along a line. Elements of every type become unsigned keys in the same
 * order, so one radix sort and one radix selection, both stable, serve them all. */
#ifndef LT_KERNELS_SORT_H
#define LT_KERNELS_SORT_H

#include "core/dtype.h"
#include <stdint.h>

typedef struct lt_item {
  uint64_t key;
  int64_t place; /* in the line, from 0 */
} lt_item;

/* The items of n contiguous elements. -0 and 0 get one key; NaN comes behind all numbers, and
 * before them with `descending`. */
void lt_sort_items(lt_dtype type, int64_t n, const void *x, bool descending, lt_item *items);

/* Sorts by key; equal keys keep their order. `spare` holds n items too. */
void lt_sort(lt_dtype type, int64_t n, lt_item *items, lt_item *spare);

/* Brings the k items with the smallest keys, the first of equal ones, to the front, equal ones in
 * their order. The others are lost. */
void lt_sort_select(lt_dtype type, int64_t n, lt_item *items, int64_t k, lt_item *spare);

#endif
