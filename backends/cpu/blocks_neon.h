/* blocks_neon.h: what the NEON kernels of block types share. Static: the files that include it have different flags. */
#ifndef GEUL_BLOCKS_NEON_H
#define GEUL_BLOCKS_NEON_H

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "backends/cpu/unroll.h"

enum { BLOCK = 32, Q8_0_BYTES = 34, Q4_0_BYTES = 18, Q4_0_OFFSET = 8 };

/* 32 activations as int8 and their scale: kernels_neon.c makes them, all three files multiply with them. */
struct block {
    int8_t q[BLOCK];
    float scale;
};

/* The 32 values of a weight block as int8. */
typedef int8x16x2_t unpacker(const uint8_t *block);

/* 4 partial sums of a block's product. */
typedef int32x4_t multiplier(int8x16x2_t w, int8x16x2_t x);

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

/* The scales of four blocks. */
INLINE float32x4_t load_scales(const uint8_t *const block[4])
{
    uint16_t d[4];
    for (int r = 0; r < 4; r++)
        memcpy(&d[r], block[r], sizeof d[r]);
    uint16x4_t v = vdup_n_u16(d[0]);
    v = vset_lane_u16(d[1], v, 1);
    v = vset_lane_u16(d[2], v, 2);
    v = vset_lane_u16(d[3], v, 3);
    return vcvt_f32_f16(vreinterpret_f16_u16(v));
}

/* The sums of four vectors. */
INLINE int32x4_t sum_each(const int32x4_t v[4])
{
    return vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3]));
}

/* Four rows at a time; beyond the end the last row is computed again, so that all go the same way. */
INLINE void dot_blocks(float *out, const void *w, size_t stride, const struct block *x, size_t k, int rows,
                       size_t bytes, unpacker *unpack, multiplier *multiply)
{
    enum { AHEAD = 1024 };
    for (int first = 0; first < rows; first += 4) {
        int here = rows - first < 4 ? rows - first : 4;
        const uint8_t *p[4];
        float32x4_t sum = vdupq_n_f32(0);
        for (int r = 0; r < 4; r++)
            p[r] = (const uint8_t *)w + (size_t)(first + (r < here ? r : here - 1)) * stride;
        for (size_t i = 0; i < k / BLOCK; i++) {
            int8x16x2_t q = load_bytes(x[i].q);
            int32x4_t product[4];
            float32x4_t factor = vmulq_n_f32(load_scales(p), x[i].scale);
            UNROLL for (int r = 0; r < 4; r++)
            {
                __builtin_prefetch(p[r] + AHEAD);
                product[r] = multiply(unpack(p[r]), q);
                p[r] += bytes;
            }
            sum = vfmaq_f32(sum, vcvtq_f32_s32(sum_each(product)), factor);
        }
        float sums[4];
        vst1q_f32(sums, sum);
        memcpy(out + first, sums, (size_t)here * sizeof *out);
    }
}

/* A panel of blocks of `size` bytes, which place fills row by row; what it leaves is zero. */
INLINE void pack_blocks(void *panel, size_t size, const uint8_t *w, size_t stride, int rows, size_t k, size_t bytes,
                        unpacker *unpack, placer *place)
{
    uint8_t *out = panel;
    memset(out, 0, k / BLOCK * size);
    for (size_t i = 0; i < k / BLOCK; i++, out += size)
        for (int r = 0; r < rows; r++) {
            const uint8_t *block = w + (size_t)r * stride + i * bytes;
            place(out, r, unpack(block), load_scale(block));
        }
}

#endif
