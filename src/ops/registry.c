/* All ops, by name. */
#include "ops/family.h"

#include <string.h>

/* Every file of ops, once. */
/* clang-format off */
#define FAMILIES(F)                                                                                \
  F(arithmetic) F(power) F(binary) F(compare) F(choose)                                            \
  F(unary) F(round) F(special) F(activation) F(gated) F(dropout)                                   \
  F(reduce) F(statistics) F(extremum) F(scan) F(softmax) F(order) F(along)                         \
  F(source) F(random) F(cast) F(view) F(slice) F(index) F(join)                                    \
  F(rearrange) F(pad) F(gather) F(scatter) F(sets) F(difference)                                   \
  F(pool) F(adaptive_pool) F(interpolate) F(image) F(grid)                                         \
  F(matmul) F(product) F(einsum) F(triangle) F(linalg) F(decompose)                                \
  F(pointwise_loss) F(margin_loss) F(cross_entropy) F(ctc) F(embedding)                            \
  F(conv) F(conv_transpose)                                                                        \
  F(recurrent) F(cells)                                                                            \
  F(norm) F(batch_norm) F(similarity) F(attention) F(multi_head_attention)
/* clang-format on */

#define DECLARE(NAME) extern const lt_op *const lt_family_##NAME[];
FAMILIES(DECLARE)

#define LIST(NAME) lt_family_##NAME,
static const lt_op *const *const families[] = {FAMILIES(LIST) NULL};

const lt_op *const *const *lt_families(void) { return families; }

#define NAME_OF(NAME) #NAME,
static const char *const names[] = {FAMILIES(NAME_OF)};

const char *lt_family_name(int family) { return names[family]; }

const lt_op *lt_op_find(const char *name) {
  for (int f = 0; families[f]; f++) {
    for (int i = 0; families[f][i]; i++) {
      if (strcmp(families[f][i]->name, name) == 0) return families[f][i];
    }
  }
  return NULL;
}
