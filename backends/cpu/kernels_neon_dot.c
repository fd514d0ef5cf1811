/* kernels_neon_dot.c: int8 products by SDOT: four products of each of 4 words. */
#include <arm_neon.h>

#define WORD 4
#include "backends/cpu/blocks_neon.h"

static inline int32x4_t block_product(int8x16x2_t w, int8x16x2_t x)
{
    return vdotq_s32(vdotq_s32(vdupq_n_s32(0), w.val[0], x.val[0]), w.val[1], x.val[1]);
}

static inline void tile_products(int32x4_t product[NR][2], const struct weights *w, const struct tokens *x)
{
    UNROLL for (size_t t = 0; t < NR; t++) product[t][0] = product[t][1] = vdupq_n_s32(0);
    UNROLL for (size_t s = 0; s < BLOCK / WORD; s++)
    {
        int8x16_t w0 = vld1q_s8(w->q[s][0]), w1 = vld1q_s8(w->q[s][4]);
        UNROLL for (size_t t = 0; t < NR; t++)
        {
            int32_t four;
            memcpy(&four, x->q[s][t], 4);
            int8x16_t all = vreinterpretq_s8_s32(vdupq_n_s32(four));
            product[t][0] = vdotq_s32(product[t][0], w0, all);
            product[t][1] = vdotq_s32(product[t][1], w1, all);
        }
    }
}

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

const struct geul_cpu_kernels geul_cpu_kernels_neon_dot = {
    .dot = {BLOCK_DOTS}, .panel = {BLOCK_PANELS}, .peak_int8 = peak_int8};
