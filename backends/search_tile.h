/* search_tile.h: what the search for quantization scales works on: 16 groups of weights, one in each vector lane. */
#ifndef GEUL_SEARCH_TILE_H
#define GEUL_SEARCH_TILE_H

#include "core/block.h"

enum { GEUL_SEARCH_LANES = 16, GEUL_SEARCH_GROUP_MAX = 32 };

/* Lane l is one group; a block's groups lie next to each other, and a tile holds whole blocks only. All sums run down a
 * lane, or over the lanes of a block in order: nothing depends on how wide the machine's vectors are. */
struct geul_search_tile {
    /* In: element i of lane l, between -2 and 2, and its weight, between 0 and 1. Lanes without a group are zero. */
    _Alignas(64) float x[GEUL_SEARCH_GROUP_MAX][GEUL_SEARCH_LANES];
    float weight[GEUL_SEARCH_GROUP_MAX][GEUL_SEARCH_LANES];
    /* In: a power of two; the block is made of float16 values d * unit and m * unit. Same for all lanes of a block. */
    float unit[GEUL_SEARCH_LANES];
    /* Out: as in struct geul_block, d and m still in x's scale; the integers are whole numbers. error: the sum of
     * weight * (x - value)^2. */
    float d[GEUL_SEARCH_LANES], m[GEUL_SEARCH_LANES];
    float scale[GEUL_SEARCH_LANES], min[GEUL_SEARCH_LANES];
    float error[GEUL_SEARCH_LANES];
    float q[GEUL_SEARCH_GROUP_MAX][GEUL_SEARCH_LANES];
};

#endif
