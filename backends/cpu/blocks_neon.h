/* blocks_neon.h: what the NEON kernels of block types share. Static: the files that include it have different flags. */
#ifndef GEUL_BLOCKS_NEON_H
#define GEUL_BLOCKS_NEON_H

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "backends/cpu/kernels.h"
#include "backends/cpu/unroll.h"

enum { BLOCK = 32, Q8_0_BYTES = 34, Q4_0_BYTES = 18, Q4_0_OFFSET = 8 };

/* 32 activations as int8 and their scale: kernels_neon.c makes them, all three files multiply with them. */
struct block {
    int8_t q[BLOCK];
    float scale;
};

/* The 32 values of a weight block as int8. */
typedef int8x16x2_t unpacker(const uint8_t *block);

/* Puts the values and the scale of row r into a panel's block (the including file's struct weights). */
typedef void placer(void *weights, int r, int8x16x2_t q, float scale);

INLINE int8x16x2_t load_bytes(const int8_t *p)
{
    return (int8x16x2_t){{vld1q_s8(p), vld1q_s8(p + 16)}};
}

INLINE int8x16x2_t unpack_q8_0(const uint8_t *block)
{
    return load_bytes((const int8_t *)block + 2);
}

INLINE int8x16x2_t unpack_q4_0(const uint8_t *block)
{
    const int8x16_t offset = vdupq_n_s8(Q4_0_OFFSET);
    uint8x16_t v = vld1q_u8(block + 2);
    int8x16_t low = vreinterpretq_s8_u8(vandq_u8(v, vdupq_n_u8(15)));
    int8x16_t high = vreinterpretq_s8_u8(vshrq_n_u8(v, 4));
    return (int8x16x2_t){{vsubq_s8(low, offset), vsubq_s8(high, offset)}};
}

INLINE float load_scale(const uint8_t *block)
{
    uint16_t d;
    memcpy(&d, block, sizeof d);
    return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(d))), 0);
}

/* The sums of four vectors. */
INLINE int32x4_t sum_each(const int32x4_t v[4])
{
    return vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3]));
}

/* A panel of blocks of `size` bytes, which place fills row by row; what it leaves is zero. */
INLINE void pack_blocks(void *panel, size_t size, const uint8_t *w, size_t stride, int rows, size_t k, size_t bytes,
                        unpacker *unpack, placer *place, struct geul_cpu_ahead *ahead)
{
    uint8_t *out = panel;
    memset(out, 0, k / BLOCK * size);
    for (size_t i = 0; i < k / BLOCK; i++, out += size)
        for (int r = 0; r < rows; r++) {
            const uint8_t *block = w + (size_t)r * stride + i * bytes;
            if (ahead)
                geul_cpu_ask(ahead, bytes);
            place(out, r, unpack(block), load_scale(block));
        }
}

/* Tokens at the edge: a tile of nr tokens in spare (nr, mr), of which the first few are copied. */
typedef void whole_tile(float *out, size_t out_stride, const void *panel, const void *packed, size_t k,
                        const float *start);

INLINE void tile_some(float *out, size_t out_stride, const void *panel, const void *packed, size_t k,
                      const float *start, size_t tokens, float *spare, size_t mr, size_t nr, whole_tile *tile)
{
    if (tokens == nr) {
        tile(out, out_stride, panel, packed, k, start);
        return;
    }
    memset(spare, 0, mr * nr * sizeof *spare);
    for (size_t t = 0; !start && t < tokens; t++)
        memcpy(spare + t * mr, out + t * out_stride, mr * sizeof *spare);
    tile(spare, mr, panel, packed, k, start);
    for (size_t t = 0; t < tokens; t++)
        memcpy(out + t * out_stride, spare + t * mr, mr * sizeof *spare);
}

#endif
