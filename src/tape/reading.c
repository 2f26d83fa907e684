/* Readings, in a table with one place for each hash: what is older gives way. */
#include "tape/reading.h"
#include "core/context.h"
#include "tape/node.h"

#include <stdlib.h>
#include <string.h>

enum { READINGS = 4096 }; /* a power of two */

typedef struct lt_reading {
  const lt_op *op; /* NULL: empty */
  double value;
  uint64_t id; /* of the tensor */
  uint64_t at; /* how old ids were then */
  lt_site site;
} lt_reading;

static lt_reading *place_of(lt_reading *readings, double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return &readings[bits * 0x9E3779B97F4A7C15u >> 52 & (READINGS - 1)];
}

void lt_reading_note(const lt_op *op, const lt_tensor *t, double value) {
  lt_context *ctx = t->ctx;
#ifdef LT_WITHOUT_PROVENANCE
  return;
#endif
  if (!ctx->open) return;
  if (!ctx->readings) ctx->readings = calloc(READINGS, sizeof *ctx->readings);
  if (!ctx->readings) return; /* an explanation less, and no error for it */
  *place_of(ctx->readings, value) =
      (lt_reading){op, value, t->id, ctx->next_id, lt_current_site(ctx)};
}

lt_status lt_reading_return(lt_tensor *t, int count, const double *value, bool *found) {
  lt_context *ctx = t->ctx;
  uint64_t from[LT_NOTED];
  const lt_reading *r = NULL;
  if (!ctx->open || !ctx->readings || count == 0) return LT_OK;
  for (int i = 0; i < count; i++) {
    r = place_of(ctx->readings, value[i]);
    if (!r->op || r->value != value[i] || r->at < ctx->readings_since) return LT_OK;
    from[i] = r->id;
  }
  *found = true;
  return lt_record_reading(r->op, count, from, r->site, t);
}

const lt_op *lt_reading_find(const lt_context *ctx, double value, lt_site *where, bool *same) {
  if (!ctx->open || !ctx->readings) return NULL;
  const lt_reading *r = place_of(ctx->readings, value);
  *same = r->op && r->value == value && r->at >= ctx->readings_since;
  for (int i = 0; i < READINGS && !*same; i++) {
    const lt_reading *other = &ctx->readings[i];
    if (other->op && (!r->op || other->at > r->at)) r = other;
  }
  if (!r->op || r->at < ctx->readings_since) return NULL;
  *where = r->site;
  return r->op;
}
