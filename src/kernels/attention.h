/* Attention by tiles: softmax(scale Q K^T + mask) V without the L x S matrix in memory. Dao et al.
 * 2022, FlashAttention, arXiv 2205.14135. Tiles hold keys in rows and queries in columns, so that
 * the softmax runs along whole vectors, and no product has to turn an operand around. */
#ifndef LT_KERNELS_ATTENTION_H
#define LT_KERNELS_ATTENTION_H

#include "core/cpu.h"
#include "core/dtype.h"

#include <stdbool.h>
#include <stdint.h>

enum { LT_ATTENTION_QUERIES = 64, LT_ATTENTION_KEYS = 128 }; /* in a tile, at most */

/* Rows and columns of one matrix, strides in elements. */
typedef struct lt_attention_matrix {
  void *data;
  int64_t row, col;
} lt_attention_matrix;

typedef enum lt_attention_mask {
  LT_ATTENTION_ALL,
  LT_ATTENTION_KEEP, /* bool: true attends */
  LT_ATTENTION_ADD   /* floats of the inputs' type, added */
} lt_attention_mask;

/* One head: q is L x E, k S x E, v S x Ev, mask L x S. */
typedef struct lt_attention {
  lt_dtype dtype;
  lt_simd simd;
  int64_t l, s, e, ev;
  double scale;
  bool causal; /* query i sees keys 0..i */
  lt_attention_mask masked;
  lt_attention_matrix q, k, v, mask;
  void *out; /* L x Ev, contiguous */
  void *lse; /* L: log of the sum of exponentials; +inf where every key is masked. May be NULL in
                the forward pass */
  /* backward */
  lt_attention_matrix dout;
  void *dq, *dk, *dv; /* contiguous, zero before */
} lt_attention;

/* Bytes of scratch that one call needs. */
int64_t lt_attention_scratch(const lt_attention *a);

/* The output of queries first .. first + LT_ATTENTION_QUERIES - 1, as far as there are. */
void lt_attention_forward(const lt_attention *a, int64_t first, void *scratch);

/* The gradients of a head. */
void lt_attention_backward(const lt_attention *a, void *scratch);

#endif
