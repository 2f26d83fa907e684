/* Tables of numbers from comma-separated text. The whole text is checked before a table is handed
 * out: ragged rows, empty fields and words are errors that name file, line and column. */
#ifndef LT_IO_CSV_H
#define LT_IO_CSV_H

#include "core/tensor.h"

typedef enum lt_csv_header {
  LT_CSV_HEADER_AUTO, /* the first row is a header if a field of it is neither empty nor a number */
  LT_CSV_HEADER_NO,
  LT_CSV_HEADER_YES
} lt_csv_header;

typedef struct lt_csv_options {
  lt_csv_header header;
  char separator; /* one byte that can be no part of a number; never a quote or a line's end */
  lt_dtype dtype; /* LT_FLOAT32 or LT_FLOAT64 */
  int64_t skip;   /* lines to pass over before the header or the first row */
} lt_csv_options;

typedef struct lt_csv {
  lt_tensor *table; /* rows x columns; the caller holds the one reference */
  char *names;      /* the columns' names, each ended by a zero byte; NULL without a header */
  int64_t columns;
} lt_csv;

/* Reads `length` bytes of text. Rows end in LF or CR LF; blank lines may follow the last. A field
 * is a number with blanks or double quotes around it: [+-] digits [. digits] [e [+-] digits], or
 * inf, infinity, nan in any case. Numbers are rounded to the nearest of the dtype, halves to even,
 * whatever the locale; too large ones are an error, too small ones become 0. `name` stands for the
 * text in messages. Memory: the table, and the names. On failure *result holds nothing. */
lt_status lt_csv_text(lt_context *ctx, const char *name, const char *text, int64_t length,
                      const lt_csv_options *options, lt_csv *result);

/* The same for a file, which must be a regular one; it is read into memory as a whole. */
lt_status lt_csv_file(lt_context *ctx, const char *path, const lt_csv_options *options,
                      lt_csv *result);

/* Frees the names; the table is the caller's. */
void lt_csv_free_names(lt_csv *csv);

#endif
