/* blocks_neon.h: what the NEON kernels of block types share. No functions: these files have different flags. */
#ifndef GEUL_BLOCKS_NEON_H
#define GEUL_BLOCKS_NEON_H

#include <stdint.h>

enum { BLOCK = 32, Q8_0_BYTES = 34, Q4_0_BYTES = 18, Q4_0_OFFSET = 8 };

/* 32 activations as int8 and their scale: kernels_neon.c makes them, all three files multiply with them. */
struct block {
    int8_t q[BLOCK];
    float scale;
};

#endif
