/* How the core reports failure: a status code returned by every function that can fail, and a
 * message on the context that names the op, the argument and the shapes. Nothing here prints,
 * exits or jumps. */
#ifndef LT_CORE_STATUS_H
#define LT_CORE_STATUS_H

typedef struct lt_context lt_context;

typedef enum lt_status {
  LT_OK = 0,
  LT_ERROR,      /* bad argument or impossible request: the message says which */
  LT_NO_MEMORY,  /* the allocator gave nothing */
  LT_INTERRUPTED /* the host asked to stop (lt_interrupt) */
} lt_status;

#if defined(__GNUC__)
#  define LT_PRINTF(at, first) __attribute__((format(printf, at, first)))
#else
#  define LT_PRINTF(at, first)
#endif

/* Stores the message on the context and returns LT_ERROR, so that `return lt_fail(...)` reads. */
lt_status lt_fail(lt_context *ctx, const char *format, ...) LT_PRINTF(2, 3);

/* Out of memory while asking for `bytes`; returns LT_NO_MEMORY. */
lt_status lt_fail_memory(lt_context *ctx, long long bytes);

/* The last failure was that of a part of op: its message now begins with op's name. */
void lt_fail_as(lt_context *ctx, const char *op);

/* The message of the last failure; never NULL. */
const char *lt_message(const lt_context *ctx);

#define LT_TRY(expression)                                                                         \
  do {                                                                                             \
    lt_status lt_try_status = (expression);                                                        \
    if (lt_try_status != LT_OK) return lt_try_status;                                              \
  } while (0)

#endif
