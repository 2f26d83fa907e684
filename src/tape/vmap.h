/* lt.vmap: a function of one sample, run once for a whole batch. Inside, a tensor may stand for one
 * value per sample: it shows the shape of a sample (`t->shape`), and holds all of them in another
 * tensor, the batch in front. An op that meets such a tensor runs by its batching rule, which calls
 * ops on whole batches; tapes opened inside vmap see the op on samples, tapes outside the ops on
 * batches. After functorch and JAX's vmap. */
#ifndef LT_TAPE_VMAP_H
#define LT_TAPE_VMAP_H

#include "tape/vjp.h"

/* What a batching rule sees. */
typedef struct lt_batch {
  lt_context *ctx;
  lt_scope *s;
  const lt_op *op;
  const lt_attrs *attrs; /* a rule may point it to `own`, for what the op has to note */
  lt_attrs *own;
  const lt_spec *result; /* of one sample, as infer says: `results` of them */
  int results;
  int64_t size; /* samples */
  int inputs;
  lt_tensor *const *in; /* as the op was called: shapes of a sample */
  lt_tensor **over; /* all samples, the batch as dim 0; NULL: the same tensor for every sample */
  /* to be filled: results with the batch as dim 0, owned by the scope */
  int outputs;
  lt_tensor *out[LT_MAX_OUTPUTS];
} lt_batch;

/* Input i with the batch in front, also where all samples share it (then expanded, not copied). */
lt_tensor *lt_batch_in(lt_batch *b, int i);
/* Runs the op with other inputs or options, and takes its results for b's. */
void lt_batch_run(lt_batch *b, const lt_attrs *attrs, lt_tensor *const *in);

/* The options of one sample, for a batch in front of input 0: as lt_batch_dims has them. */
void lt_batch_shift(const lt_batch *b, lt_attrs *attrs);
/* The one result of an op that a rule computed with other ops. */
void lt_batch_give(lt_batch *b, lt_tensor *result);
/* Sizes with the batch's in front. */
lt_shape lt_batch_shape(const lt_batch *b, const lt_shape *sample);

/* ---- Rules, for the `batch` of a block --------------------------------------------------- */

/* Inputs broadcast (from the last dim): ones are put behind the batch where ranks differ. Of
 * elementwise ops, and of those on the last two dims of inputs with at least two. */
void lt_batch_broadcast(lt_batch *b);
/* All inputs have the batch in front, so that options that name dims shift by one, and lists of
 * sizes begin with the batch's. A list of dims that is not given becomes all dims of a sample. */
void lt_batch_dims(lt_batch *b);
/* The same, of ops that without their dim take all elements in a row. */
void lt_batch_dims_or_all(lt_batch *b);
/* The op takes any leading dims of input 0; where another input differs by sample: each. */
void lt_batch_leading(lt_batch *b);
/* With `rank` dims, dim 0 of input 0 is a batch of the op's own: both become one. Where another
 * input differs by sample: each. */
void lt_batch_merge(lt_batch *b, int rank);
/* One run for each sample, in C, and their results stacked. */
void lt_batch_each(lt_batch *b);

/* ---- The calls themselves ------------------------------------------------------------------ */

/* Starts a vmap call over `size` samples; they nest. Its number in *number. */
lt_status lt_vmap_open(lt_context *ctx, int64_t size, bool fallback, uint64_t *number);
/* Ends it, and those inside it. */
void lt_vmap_close(lt_context *ctx, uint64_t number);
/* A tensor with the batch as dim `dim` becomes its samples in the innermost call. */
lt_status lt_vmap_split(lt_tensor *t, int dim, lt_tensor **result);
/* All samples of t in the innermost call, the batch as dim `dim`; also where they are the same. */
lt_status lt_vmap_join(lt_tensor *t, int dim, lt_tensor **result);
/* In which running call t has a value for each sample: 1 for the outermost, 0 for none. An error
 * if that call has ended. */
lt_status lt_vmap_level(lt_context *ctx, const lt_tensor *t, int *level);
/* Another value over the same memory, also of samples. */
lt_status lt_vmap_view(lt_tensor *t, lt_tensor **result);
/* lt_record for values that no op of the registry made: a rule given by the host. Under vmap only
 * tapes inside it can use such a rule. */
lt_status lt_vmap_record(lt_call *c, const lt_closure *closure);
/* Runs an op some of whose inputs are samples of call number c->level. */
lt_status lt_vmap_run(lt_call *c);

#endif
