/* block_choose.h: how the reference encoder chooses the integers of a block; the codec column of geul_types.def names
 * one of these.
 *
 * Each choice looks at the largest values only: simple and repeatable. Searches that minimize an error are in
 * quantize/. A block with a NaN or an infinity, or with values beyond the range of float16 scales, becomes one whose
 * values are not finite, so that damage in a checkpoint shows instead of being rounded away. */
#ifndef GEUL_BLOCK_CHOOSE_H
#define GEUL_BLOCK_CHOOSE_H

#include "core/block.h"

/* Fills block with the integers for the format->block values of x. */
typedef void geul_block_choice(const struct geul_block_format *format, const float *x, struct geul_block *block);

/* One group. The first three give the bits of the PyPI package gguf (gguf.quants.quantize). */
geul_block_choice geul_choose_nearest; /* the largest magnitude becomes q_high */
geul_block_choice geul_choose_extreme; /* the value of largest magnitude becomes q_low */
geul_block_choice geul_choose_affine;  /* smallest and largest value become q_low and q_high */
/* Groups whose scales are integers too. */
geul_block_choice geul_choose_offset;  /* each group from its smallest value, or 0, to its largest */
geul_block_choice geul_choose_centred; /* each group's value of largest magnitude becomes v(q_low) */

#endif
