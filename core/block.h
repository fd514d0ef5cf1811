/* block.h: the integers of one quantized block, apart from how a type packs them into bytes.
 *
 * Every block type means the same thing: element i, which lies in group g = i / group, has the value
 *     d * scale[g] * v(q[i]) - m * min[g]
 * where v(q) is q itself, or codebook[q] for the types with a codebook. What a type does not store is fixed: scale 1
 * for blocks of one group, min 0 for types without minimum. Decoding is unpacking and this formula; encoding is a
 * choice of these integers and packing. core/block.c has pictures of the bytes. */
#ifndef GEUL_BLOCK_H
#define GEUL_BLOCK_H

#include "core/tensor.h"

enum { GEUL_BLOCK_MAX = 256, GEUL_GROUPS_MAX = 16 };

struct geul_block {
    float d, m;                     /* exactly representable in float16. Types with one additive minimum per block
                                       (Q4_1, Q5_1) store -m, and min is 1 */
    int16_t scale[GEUL_GROUPS_MAX]; /* one per group */
    int16_t min[GEUL_GROUPS_MAX];
    int16_t q[GEUL_BLOCK_MAX];
};

/* The limits of a type's integers. */
struct geul_block_format {
    int block, group;          /* elements per block and per group */
    int q_low, q_high;         /* of q; for a codebook 0 and its last index */
    int scale_low, scale_high; /* of scale; 1 and 1 when it is not stored */
    int min_high;              /* of min; 0: the type has no minimum; 1: one minimum per block, any sign */
    const int8_t *codebook;    /* NULL: v(q) = q */
};

/* NULL for types that are not integer blocks (f32, f16, bf16, i32). */
const struct geul_block_format *geul_block_format(enum geul_type type);
/* One block from and to its bytes. d and m are rounded to float16 when packed; the integers must be within the
 * format's limits. */
void geul_block_unpack(enum geul_type type, const void *bytes, struct geul_block *block);
void geul_block_pack(enum geul_type type, const struct geul_block *block, void *bytes);
/* The value of every element of the block into x. */
void geul_block_values(const struct geul_block_format *format, const struct geul_block *block, float *x);

#endif
