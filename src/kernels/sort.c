/* Radix sort by bytes, from the low end; radix selection from the high end; insertion for short
 * lines. */
#include "kernels/sort.h"

#include <string.h>

enum { DIGITS = 256, SHORT = 48 };

/* ---- Keys -------------------------------------------------------------------------------- */

/* Floats are ordered like integers once the negative ones are turned over. */
static uint64_t key_of_float(float x) {
  uint32_t bits;
  if (x != x) return UINT32_MAX;
  x += 0.0f; /* -0 becomes 0 */
  memcpy(&bits, &x, sizeof bits);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}
static uint64_t key_of_double(double x) {
  uint64_t bits;
  if (x != x) return UINT64_MAX;
  x += 0.0;
  memcpy(&bits, &x, sizeof bits);
  return bits >> 63 ? ~bits : bits | (uint64_t)1 << 63;
}

void lt_sort_items(lt_dtype type, int64_t n, const void *x, bool descending, lt_item *items) {
  uint64_t flip = 0;
  if (descending) flip = UINT64_MAX >> (64 - 8 * (int)lt_dtype_size(type));
  for (int64_t i = 0; i < n; i++) {
    uint64_t key = 0;
    switch (type) {
    case LT_FLOAT32: key = key_of_float(((const float *)x)[i]); break;
    case LT_FLOAT64: key = key_of_double(((const double *)x)[i]); break;
    case LT_INT64: key = (uint64_t)((const int64_t *)x)[i] ^ (uint64_t)1 << 63; break;
    case LT_INT32: key = (uint32_t)((const int32_t *)x)[i] ^ (uint32_t)1 << 31; break;
    default: key = ((const uint8_t *)x)[i];
    }
    items[i] = (lt_item){key ^ flip, i};
  }
}

static unsigned digit(const lt_item *item, int byte) { return item->key >> (8 * byte) & 255; }

/* ---- Sorting ----------------------------------------------------------------------------- */

static void insert(int64_t n, lt_item *items) {
  for (int64_t i = 1; i < n; i++) {
    lt_item moved = items[i];
    int64_t j = i;
    for (; j > 0 && items[j - 1].key > moved.key; j--) items[j] = items[j - 1];
    items[j] = moved;
  }
}

void lt_sort(lt_dtype type, int64_t n, lt_item *items, lt_item *spare) {
  if (n <= SHORT) {
    insert(n, items);
    return;
  }
  lt_item *from = items, *to = spare;
  for (int byte = 0; byte < (int)lt_dtype_size(type); byte++) {
    int64_t begin[DIGITS] = {0}, sum = 0;
    for (int64_t i = 0; i < n; i++) begin[digit(&from[i], byte)]++;
    if (begin[digit(&from[0], byte)] == n) continue;
    for (int d = 0; d < DIGITS; d++) {
      int64_t count = begin[d];
      begin[d] = sum;
      sum += count;
    }
    for (int64_t i = 0; i < n; i++) to[begin[digit(&from[i], byte)]++] = from[i];
    lt_item *swap = from;
    from = to;
    to = swap;
  }
  if (from != items) memcpy(items, from, (size_t)n * sizeof *items);
}

/* ---- Selecting --------------------------------------------------------------------------- */

void lt_sort_select(lt_dtype type, int64_t n, lt_item *items, int64_t k, lt_item *spare) {
  if (n <= SHORT) {
    insert(n, items);
    return;
  }
  int64_t begin = 0, end = n; /* items before `begin` are chosen; those up to `end` in question */
  for (int byte = (int)lt_dtype_size(type) - 1; byte >= 0 && begin < k && k < end; byte--) {
    int64_t count[DIGITS] = {0}, below = begin, chosen = begin, equal = 0;
    unsigned pivot = 0;
    for (int64_t i = begin; i < end; i++) count[digit(&items[i], byte)]++;
    while (below + count[pivot] < k) below += count[pivot++];
    if (count[pivot] == end - begin) continue;
    for (int64_t i = begin; i < end; i++) {
      unsigned d = digit(&items[i], byte);
      if (d < pivot)
        items[chosen++] = items[i];
      else if (d == pivot)
        spare[equal++] = items[i];
    }
    memcpy(items + chosen, spare, (size_t)equal * sizeof *items);
    begin = chosen;
    end = chosen + equal;
  }
}
