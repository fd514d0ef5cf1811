/* bpe.h: byte-pair encoding of one word: merges the adjacent pair of lowest rank until none is left. */
#ifndef GEUL_BPE_H
#define GEUL_BPE_H

#include "tokenizer/text_table.h"

#define GEUL_BPE_SHORT 48 /* words up to this many symbols are merged in place, longer ones through a heap */

/* Merges ids[0..n) in place by the table (left, right -> rank, id); returns the new length, or -1 (recorded) when
 * memory is short. Equal ranks go leftmost first. Time n log n for long words. When work is not NULL, the number of
 * steps taken is added to it. */
ptrdiff_t geul_bpe_merge(struct geul_context *ctx, const struct geul_pair_table *merges, uint32_t *ids, size_t n,
                         uint64_t *work);

#endif
