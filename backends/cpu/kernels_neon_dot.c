/* kernels_neon_dot.c: int8 products by sdot (four at a time into int32). */
#include "backends/cpu/tile_neon.h"

/* Transposes 4 x 4 words: row r, word c goes to word r of vector c, `apart` bytes after the one before. */
INLINE void turn(int8_t *out, size_t apart, int8x16_t a, int8x16_t b, int8x16_t c, int8x16_t d)
{
    int32x4_t ab = vtrn1q_s32(vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b));
    int32x4_t cd = vtrn1q_s32(vreinterpretq_s32_s8(c), vreinterpretq_s32_s8(d));
    int32x4_t ab1 = vtrn2q_s32(vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b));
    int32x4_t cd1 = vtrn2q_s32(vreinterpretq_s32_s8(c), vreinterpretq_s32_s8(d));
#define PAIR(half, first, second)                                                                                      \
    vreinterpretq_s8_s64(vtrn##half##q_s64(vreinterpretq_s64_s32(first), vreinterpretq_s64_s32(second)))
    vst1q_s8(out, PAIR(1, ab, cd));
    vst1q_s8(out + apart, PAIR(1, ab1, cd1));
    vst1q_s8(out + 2 * apart, PAIR(2, ab, cd));
    vst1q_s8(out + 3 * apart, PAIR(2, ab1, cd1));
#undef PAIR
}

/* Words s = 0..7: values 4s..4s+3 of row 0, of row 1, ... */
INLINE void store_group(uint8_t *out, int v, const values row[4])
{
    UNROLL for (int c = 0; c < 2; c++) turn((int8_t *)out + c * BLOCK / 2 * MR + 16 * v, 4 * MR, row[0].val[c],
                                            row[1].val[c], row[2].val[c], row[3].val[c]);
}

/* Words 4h..4h+3: four steps, each of which takes a lane of every token. Lanes must be literals. */
INLINE void multiply_half(int32x4_t product[NR], const uint8_t *w, const struct tokens *x, int T, int v, int h)
{
    int8x16_t q[NR];
    UNROLL for (int t = 0; t < T; t++) q[t] = vld1q_s8(x->q[t] + 16 * h);
#define STEP(lane)                                                                                                     \
    {                                                                                                                  \
        int8x16_t rows = vld1q_s8((const int8_t *)w + (4 * h + lane) * MR * 4 + 16 * v);                               \
        UNROLL for (int t = 0; t < T; t++) product[t] = vdotq_laneq_s32(product[t], rows, q[t], lane);                 \
    }
    STEP(0)
    STEP(1)
    STEP(2)
    STEP(3)
#undef STEP
}

INLINE void multiply(int32x4_t product[NR], const uint8_t *w, const struct tokens *x, int T, int v, int g,
                     struct kind kind)
{
    UNROLL for (int t = 0; t < T; t++) product[t] = vdupq_n_s32(0);
    UNROLL for (int h = 0; h < 2; h++) if (kind.groups == 1 || g == h) multiply_half(product, w, x, T, v, h);
}

TILE(1)
TILE(1m)
TILE(2)
TILE(2m)
#define tile_1w tile_1 /* int32 holds wide products too */

static uint64_t peak_int8(uint64_t rounds)
{
    enum { N = 16 };
    volatile int32_t sink;
    int32x4_t sum[N];
    int8x16_t a = vdupq_n_s8(3), b = vdupq_n_s8(-2);
    UNROLL for (int j = 0; j < N; j++) sum[j] = vdupq_n_s32(j);
    for (uint64_t i = 0; i < rounds; i++) {
        UNROLL for (int j = 0; j < N; j++) sum[j] = vdotq_s32(sum[j], a, b);
        __asm__ volatile("" : "+w"(a));
    }
    UNROLL for (int j = 0; j < N; j++) sink = vaddvq_s32(sum[j]);
    (void)sink;
    return rounds * N * 16;
}

BLOCK_TYPES(BLOCK_PANEL)

const struct geul_cpu_kernels geul_cpu_kernels_neon_dot = {
    .panel = {BLOCK_TYPES(BLOCK_ENTRY)},
    .peak_int8 = peak_int8,
};
