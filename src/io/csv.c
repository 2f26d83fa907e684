/* The CSV reader: one pass counts the rows, one reads the numbers straight into the table. Most
 * numbers are a short integer times a small power of ten, which one exact multiplication gives;
 * the others go to strtod without their decimal point, so that no locale can change them. */
#define _POSIX_C_SOURCE 200809L
#include "io/csv.h"
#include "core/context.h"

#include <errno.h>
#include <fcntl.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Numbers --------------------------------------------------------------------------------- */

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* The value of a decimal of any length, digits [first, last) with at most one point among them,
 * times ten to the power given. No double needs more than 767 significant digits to be told from
 * the halves between its neighbours: what follows DIGITS of them matters only if it is not 0. */
static double read_long(const char *first, const char *last, int64_t power, lt_dtype dtype) {
  enum { DIGITS = 800, FAR = 100000 };
  char text[DIGITS + 32];
  int n = 0;
  bool more = false;
  for (; first < last; first++) {
    if (*first == '.' || (n == 0 && *first == '0')) continue;
    if (n < DIGITS) {
      text[n++] = *first;
    } else {
      more |= *first != '0';
      power++;
    }
  }
  if (n == 0) return 0;
  if (more) {
    text[n++] = '1';
    power--;
  }
  power = power > FAR ? FAR : power < -FAR ? -FAR : power;
  snprintf(text + n, sizeof text - (size_t)n, "e%d", (int)power);
  return dtype == LT_FLOAT32 ? (double)strtof(text, NULL) : strtod(text, NULL);
}

/* Is v, a double in the range of normal floats, a half between two of them? If it stands for a
 * decimal near it, it does not say which of the two is nearer to that. */
static bool is_float_half(double v) {
  uint64_t bits;
  memcpy(&bits, &v, sizeof bits);
  return (bits & 0x1fffffff) == 0x10000000;
}

/* Reads inf, infinity or nan in any case. */
static const char *read_word(const char *p, const char *end, double *value) {
  static const struct {
    const char *letters;
    double value;
  } words[] = {{"infinity", INFINITY}, {"inf", INFINITY}, {"nan", NAN}};
  for (int i = 0; i < 3; i++) {
    const char *letter = words[i].letters, *q = p;
    for (; *letter && q < end && (*q | 0x20) == *letter; letter++) q++;
    if (*letter) continue;
    *value = words[i].value;
    return q;
  }
  return NULL;
}

/* Reads a number at p, rounded to the dtype, and returns what follows it; NULL if there is none.
 * *fits says whether it lies in the dtype's range. */
static const char *read_number(const char *p, const char *end, lt_dtype dtype, double *value,
                               bool *fits) {
  static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                  1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                  1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
  enum { EXACT = 22, HELD = 19 }; /* the last exact power; digits that 64 bits hold */
  bool negative = p < end && *p == '-';
  if (p < end && (*p == '-' || *p == '+')) p++;
  *fits = true;
  const char *first = p, *point = NULL;
  uint64_t digits = 0;
  for (; p < end; p++) {
    if (is_digit(*p))
      digits = 10 * digits + (uint64_t)(*p - '0');
    else if (*p == '.' && !point)
      point = p;
    else
      break;
  }
  const char *last = p;
  int64_t count = last - first - (point != NULL), power = point ? point + 1 - last : 0;
  if (count == 0) {
    p = point ? NULL : read_word(p, end, value);
    if (p && negative) *value = -*value;
    return p;
  }
  if (p < end && (*p == 'e' || *p == 'E')) {
    const int64_t most = INT64_MAX / 100;
    bool small = ++p < end && *p == '-';
    if (p < end && (*p == '-' || *p == '+')) p++;
    if (p == end || !is_digit(*p)) return NULL;
    int64_t exponent = 0;
    for (; p < end && is_digit(*p); p++) {
      if (exponent < most) exponent = 10 * exponent + (*p - '0');
    }
    power += small ? -exponent : exponent;
  }
  double v;
  if (FLT_EVAL_METHOD == 0 && count <= HELD && digits <= (uint64_t)1 << 53 && power >= -EXACT &&
      power <= EXACT) {
    v = power < 0 ? (double)digits / powers[-power] : (double)digits * powers[power];
    if (dtype == LT_FLOAT32) {
      v = is_float_half(v) ? read_long(first, last, power, dtype) : (double)(float)v;
    }
  } else {
    v = read_long(first, last, power, dtype);
  }
  *fits = !isinf(v);
  *value = negative ? -v : v;
  return p;
}

/* ---- Fields ---------------------------------------------------------------------------------- */

typedef struct reader {
  lt_context *ctx;
  const char *name;
  const lt_csv_options *options;
  const char *at, *end; /* what is not read yet, without the blank lines at the end */
  int64_t line;         /* of the text, as next_line read it last */
} reader;

typedef struct span {
  const char *first, *last;
  bool quoted;
} span;

static const char *skip_blanks(const char *p, const char *end, char separator) {
  while (p < end && (*p == ' ' || *p == '\t') && *p != separator) p++;
  return p;
}

static span trim(const char *first, const char *last, bool quoted, char separator) {
  span s = {skip_blanks(first, last, separator), last, quoted};
  while (s.last > s.first && (s.last[-1] == ' ' || s.last[-1] == '\t') && s.last[-1] != separator) {
    s.last--;
  }
  return s;
}

/* The next line without its end. */
static bool next_line(reader *r, span *line) {
  if (r->at == r->end) return false;
  const char *stop = memchr(r->at, '\n', (size_t)(r->end - r->at));
  line->first = r->at;
  line->last = stop ? stop : r->end;
  if (line->last > line->first && line->last[-1] == '\r') line->last--;
  r->at = stop ? stop + 1 : r->end;
  r->line++;
  return true;
}

/* The field at p without blanks and quotes; returns where it ends: at a separator or the end. A
 * quoted field may hold separators, and quotes written twice. */
static const char *take_field(const char *p, const char *end, char separator, span *field) {
  p = skip_blanks(p, end, separator);
  if (p < end && *p == '"') {
    const char *q = p + 1;
    while (q < end && (*q != '"' || (q + 1 < end && q[1] == '"'))) q += *q == '"' ? 2 : 1;
    const char *after = q < end ? skip_blanks(q + 1, end, separator) : NULL;
    if (after && (after == end || *after == separator)) {
      *field = trim(p + 1, q, true, separator);
      return after;
    }
  }
  const char *stop = memchr(p, separator, (size_t)(end - p));
  if (!stop) stop = end;
  *field = trim(p, stop, false, separator);
  return stop;
}

static int64_t count_fields(span line, char separator) {
  span field;
  for (int64_t count = 1;; count++) {
    const char *stop = take_field(line.first, line.last, separator, &field);
    if (stop == line.last) return count;
    line.first = stop + 1;
  }
}

static bool is_number(span field, bool *fits, double *value, lt_dtype dtype) {
  return read_number(field.first, field.last, dtype, value, fits) == field.last;
}

/* ---- Header ---------------------------------------------------------------------------------- */

static bool is_header(const reader *r, span line) {
  if (r->options->header != LT_CSV_HEADER_AUTO) return r->options->header == LT_CSV_HEADER_YES;
  for (;;) {
    span field;
    bool fits;
    double value;
    const char *stop = take_field(line.first, line.last, r->options->separator, &field);
    if (field.first < field.last && !is_number(field, &fits, &value, r->options->dtype))
      return true;
    if (stop == line.last) return false;
    line.first = stop + 1;
  }
}

/* Each name loses a separator or the line's end and gains a zero: they need no more room than the
 * line and one byte. */
static lt_status copy_names(lt_context *ctx, span line, char separator, char **names) {
  size_t room = (size_t)(line.last - line.first) + 1;
  char *to = *names = malloc(room);
  if (!to) return lt_fail_memory(ctx, (long long)room);
  for (;;) {
    span field;
    const char *stop = take_field(line.first, line.last, separator, &field);
    for (const char *p = field.first; p < field.last; p++) {
      *to++ = *p;
      if (field.quoted && *p == '"') p++; /* written twice */
    }
    *to++ = '\0';
    if (stop == line.last) return LT_OK;
    line.first = stop + 1;
  }
}

/* ---- Rows ------------------------------------------------------------------------------------ */

static lt_status fail_field(const reader *r, span field, int64_t column, bool fits) {
  enum { SHOWN = 32 };
  if (field.first == field.last) {
    return lt_fail(r->ctx, "csv: %s:%lld: column %lld is empty", r->name, (long long)r->line,
                   (long long)column);
  }
  char text[SHOWN + 1];
  int n = 0;
  for (const char *p = field.first; p < field.last && n < SHOWN; p++) {
    text[n++] = (unsigned char)*p < ' ' || *p == 0x7f ? '?' : *p;
  }
  bool cut = field.last - field.first > SHOWN;
  while (cut && n > 0 && ((unsigned char)field.first[n] & 0xc0) == 0x80) n--; /* whole letters */
  text[n] = '\0';
  if (fits) {
    return lt_fail(r->ctx, "csv: %s:%lld: column %lld: '%s%s' is not a number", r->name,
                   (long long)r->line, (long long)column, text, cut ? "..." : "");
  }
  return lt_fail(r->ctx, "csv: %s:%lld: column %lld: '%s%s' is too large for %s", r->name,
                 (long long)r->line, (long long)column, text, cut ? "..." : "",
                 lt_dtype_name(r->options->dtype));
}

/* Reads a line of `columns` numbers into `table` at element `at`; NULL only checks them. */
static lt_status read_row(const reader *r, span line, int64_t columns, const char *model,
                          const lt_tensor *table, int64_t at) {
  char separator = r->options->separator;
  lt_dtype dtype = r->options->dtype;
  float *floats = table && dtype == LT_FLOAT32 ? (float *)(void *)table->data : NULL;
  double *doubles = table && dtype == LT_FLOAT64 ? (double *)(void *)table->data : NULL;
  const char *p = line.first, *end = line.last;
  int64_t column = 0;
  for (; column < columns; column++) {
    bool fits;
    double value;
    const char *stop = read_number(skip_blanks(p, end, separator), end, dtype, &value, &fits);
    if (stop) stop = skip_blanks(stop, end, separator);
    if (!stop || (stop < end && *stop != separator) || !fits) {
      span field;
      stop = take_field(p, end, separator, &field);
      if (!is_number(field, &fits, &value, dtype) || !fits) {
        return fail_field(r, field, column + 1, fits);
      }
    }
    if (floats) floats[at + column] = (float)value;
    if (doubles) doubles[at + column] = value;
    if (stop == end) break;
    p = stop + 1;
  }
  if (column == columns - 1) return LT_OK;
  return lt_fail(r->ctx, "csv: %s:%lld: %lld columns, the %s has %lld", r->name, (long long)r->line,
                 (long long)count_fields(line, separator), model, (long long)columns);
}

static lt_status read_rows(reader *r, int64_t columns, const char *model, const lt_tensor *table) {
  enum { POLL = 4096 };
  span line;
  for (int64_t row = 0; next_line(r, &line); row++) {
    if (row % POLL == POLL - 1) LT_TRY(lt_check_interrupt(r->ctx));
    if (skip_blanks(line.first, line.last, r->options->separator) == line.last) {
      return lt_fail(r->ctx, "csv: %s:%lld: an empty line", r->name, (long long)r->line);
    }
    LT_TRY(read_row(r, line, columns, model, table, row * columns));
  }
  return LT_OK;
}

static int64_t count_lines(const char *p, const char *end) {
  int64_t lines = 0;
  while (p < end) {
    const char *stop = memchr(p, '\n', (size_t)(end - p));
    lines++;
    p = stop ? stop + 1 : end;
  }
  return lines;
}

/* ---- Texts and files ------------------------------------------------------------------------- */

static lt_status check_options(lt_context *ctx, const lt_csv_options *o) {
  char c = o->separator;
  bool letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
  if (letter || is_digit(c) || !c || strchr("+-.\"\r\n", c)) {
    return lt_fail(ctx, "csv: separator cannot be a letter, a digit, a sign, a point, a quote or a "
                        "line's end");
  }
  if (!lt_dtype_is_float(o->dtype)) {
    return lt_fail(ctx, "csv: dtype must be float32 or float64, not %s", lt_dtype_name(o->dtype));
  }
  if (o->skip < 0) return lt_fail(ctx, "csv: skip must not be negative");
  return LT_OK;
}

/* Drops a byte order mark in front and blank lines at the end. */
static void trim_text(reader *r) {
  if (r->end - r->at >= 3 && memcmp(r->at, "\xef\xbb\xbf", 3) == 0) r->at += 3;
  for (const char *p = r->end; p > r->at;) {
    char c = *--p;
    bool blank = (c == ' ' || c == '\t') && c != r->options->separator;
    if (c == '\n')
      r->end = p;
    else if (!blank && c != '\r')
      return;
  }
  r->end = r->at;
}

/* The text behind the header, whose first row is at r->at. */
static lt_status read_table(reader *r, int64_t columns, const char *model, lt_tensor **table) {
  int64_t rows = count_lines(r->at, r->end);
  int64_t most = (r->end - r->at + 1) / 2; /* a number and what ends it: two bytes each */
  if (rows > most / columns) {             /* some row is short: find the first */
    LT_TRY(read_rows(r, columns, model, NULL));
    return lt_fail(r->ctx, "csv: %s: the rows differ in length", r->name);
  }
  lt_shape shape = {.ndim = 2, .size = {rows, columns}};
  LT_TRY(lt_tensor_new(r->ctx, "csv", r->options->dtype, &shape, table));
  lt_status status = read_rows(r, columns, model, *table);
  if (status != LT_OK) {
    lt_tensor_release(*table);
    *table = NULL;
  }
  return status;
}

lt_status lt_csv_text(lt_context *ctx, const char *name, const char *text, int64_t length,
                      const lt_csv_options *options, lt_csv *result) {
  enum { SHOWN = 400 }; /* bytes of a path in messages, its end */
  *result = (lt_csv){0};
  LT_TRY(check_options(ctx, options));
  size_t n = strlen(name);
  if (n > SHOWN) name += n - SHOWN;
  reader r = {.ctx = ctx, .name = name, .options = options, .at = text, .end = text + length};
  const char *zero = length > 0 ? memchr(text, '\0', (size_t)length) : NULL;
  if (zero) {
    return lt_fail(ctx, "csv: %s:%lld: a zero byte; this is not text", name,
                   (long long)count_lines(text, zero + 1));
  }
  if (length > 0) trim_text(&r);
  if (r.at == r.end) return lt_fail(ctx, "csv: %s: no rows, it is empty", name);
  span line;
  while (r.line < options->skip && next_line(&r, &line)) continue;
  reader ahead = r;
  if (!next_line(&ahead, &line)) {
    return lt_fail(ctx, "csv: %s: no rows after the %lld lines to skip", name, (long long)r.line);
  }
  result->columns = count_fields(line, options->separator);
  bool header = is_header(&r, line);
  if (header) {
    r = ahead;
    if (r.at == r.end) return lt_fail(ctx, "csv: %s: no rows after the header", name);
    LT_TRY(copy_names(ctx, line, options->separator, &result->names));
  }
  lt_status status =
      read_table(&r, result->columns, header ? "header" : "first row", &result->table);
  if (status != LT_OK) lt_csv_free_names(result);
  return status;
}

/* All bytes of an open file of `size`, or fewer if it shrinks meanwhile. */
static lt_status read_all(lt_context *ctx, const char *path, int file, char *text, int64_t size,
                          int64_t *length) {
  enum { PIECE = 1 << 24 };
  for (*length = 0; *length < size;) {
    LT_TRY(lt_check_interrupt(ctx));
    int64_t left = size - *length;
    ssize_t got = read(file, text + *length, (size_t)(left < PIECE ? left : PIECE));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return lt_fail(ctx, "csv: cannot read '%.400s': %s", path, strerror(errno));
    if (got == 0) break;
    *length += got;
  }
  return LT_OK;
}

static lt_status read_file(lt_context *ctx, const char *path, int file,
                           const lt_csv_options *options, lt_csv *result) {
  struct stat about;
  if (fstat(file, &about) != 0) {
    return lt_fail(ctx, "csv: cannot read '%.400s': %s", path, strerror(errno));
  }
  if (!S_ISREG(about.st_mode)) return lt_fail(ctx, "csv: '%.400s' is not a regular file", path);
  int64_t size = about.st_size, length;
  if (size > ctx->memory_limit) return lt_fail_memory(ctx, size);
  char *text = malloc((size_t)size + 1);
  if (!text) return lt_fail_memory(ctx, size);
  lt_status status = read_all(ctx, path, file, text, size, &length);
  if (status == LT_OK) status = lt_csv_text(ctx, path, text, length, options, result);
  free(text);
  return status;
}

lt_status lt_csv_file(lt_context *ctx, const char *path, const lt_csv_options *options,
                      lt_csv *result) {
  *result = (lt_csv){0};
  LT_TRY(check_options(ctx, options));
  int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* a pipe must not make us wait */
  if (file < 0) return lt_fail(ctx, "csv: cannot open '%.400s': %s", path, strerror(errno));
  lt_status status = read_file(ctx, path, file, options, result);
  close(file);
  return status;
}

void lt_csv_free_names(lt_csv *csv) {
  free(csv->names);
  csv->names = NULL;
}
