/* Columns: what a convolution's results read of the input, laid side by side, a tile at a time.
 * Taps that lie above each other in the kernel's height read the same rows, so these are packed
 * once and found again by an offset: a third of im2col's traffic for a kernel of 3x3. */
#ifndef LT_KERNELS_CONV_COLUMNS_H
#define LT_KERNELS_CONV_COLUMNS_H

#include "kernels/conv.h"
#include <stdbool.h>

/* One spatial dimension of a correlation: tap j of result q reads place q * step + first +
 * j * apart of the input (nothing beyond its ends) and element kernel + j * kernel_step of the
 * kernel; result q stands at place + q * spread. `apart` is at least 1. */
typedef struct lt_conv_axis {
  int64_t in, out, step;
  int64_t taps, first, apart;
  int64_t kernel, kernel_step;
  int64_t place, spread;
} lt_conv_axis;

/* How the input of one group is cut and packed. A line holds, for one channel and one tap in depth,
 * width and class of taps in height, what all results of a tile read: slabs of `slab` rows, one for
 * each plane of results. Tap j in height is found in class j % classes, `shift` rows further for
 * each turn j / classes. Lines are ordered by class, channel, tap in depth, tap in width; the taps
 * of a line, its turns, follow each other. */
typedef struct lt_columns {
  lt_conv_axis axis[LT_CONV_DIMS];
  lt_conv_tensor from;
  int64_t size; /* of an element, in bytes */
  int64_t images, channels;
  lt_simd simd;
  int64_t classes, shift, turns;
  int64_t lines;
  int64_t planes, rows, cols; /* of a full tile; planes (depth of an image) lie apart in memory */
  int64_t slab, pitch;        /* rows of a slab; elements from line to line */
  int64_t plane_tiles, row_tiles, col_tiles;
} lt_columns;

typedef struct lt_conv_tile {
  int64_t plane, planes, row, rows, col, cols;
  int64_t places; /* planes * rows * cols */
} lt_conv_tile;

/* What a line is: its channel, and its tap in each dimension; of its turns, the first. */
typedef struct lt_conv_line {
  int64_t channel, tap[LT_CONV_DIMS];
} lt_conv_line;

/* Fills in everything but axis, from, size, images, channels and simd. Nothing may be empty. */
void lt_columns_plan(lt_columns *p);

int64_t lt_columns_tiles(const lt_columns *p);
lt_conv_tile lt_columns_tile(const lt_columns *p, int64_t number);

/* How many taps the first `lines` lines have. */
int64_t lt_columns_taps(const lt_columns *p, int64_t lines);

/* Line number `line`, and the one behind it. */
lt_conv_line lt_columns_line(const lt_columns *p, int64_t line);
void lt_columns_next(const lt_columns *p, lt_conv_line *line);

/* How many turns a line has. */
int64_t lt_columns_turns(const lt_columns *p, const lt_conv_line *line);

/* Where the taps of lines first..last-1 begin, when `first` is packed at 0; in elements. */
void lt_columns_at(const lt_columns *p, const lt_conv_tile *tile, int64_t first, int64_t last,
                   int64_t *at);

/* Packs lines first..last-1 of a tile of group `group` to `to`. */
void lt_columns_pack(const lt_columns *p, const lt_conv_tile *tile, int64_t group, int64_t first,
                     int64_t last, char *to);

/* Copies a tile of the results between their place in `t`, whose first channel is `channel`, and
 * rows of tile->places elements, one for each channel. */
void lt_columns_results(const lt_columns *p, const lt_conv_tile *tile, const lt_conv_tensor *t,
                        int64_t channel, int64_t channels, char *rows, bool from_rows);

/* Where the tile's results of one channel lie behind each other in `t` (contiguous), their offset
 * in elements; else -1. */
int64_t lt_columns_direct(const lt_columns *p, const lt_conv_tile *tile, const lt_conv_tensor *t);

#endif
