/* kernels_neon_i8mm.c: int8 products by SMMLA: 2 tokens times 2 rows, 8 bytes of each. */
#include <arm_neon.h>

#define WORD 8
#include "backends/cpu/blocks_neon.h"

static inline int32x4_t block_product(int8x16x2_t w, int8x16x2_t x)
{
    return vdotq_s32(vdotq_s32(vdupq_n_s32(0), w.val[0], x.val[0]), w.val[1], x.val[1]);
}

/* SMMLA gives (token 0, row 0) (0, 1) (1, 0) (1, 1); two neighbours make the rows of a token whole. */
static inline void tile_products(int32x4_t product[NR][2], const struct weights *w, const struct tokens *x)
{
    int32x4_t pair[NR / 2][MR / 2];
    UNROLL for (size_t t = 0; t < NR / 2; t++) UNROLL for (size_t r = 0; r < MR / 2; r++) pair[t][r] = vdupq_n_s32(0);
    UNROLL for (size_t s = 0; s < BLOCK / WORD; s++) UNROLL for (size_t t = 0; t < NR / 2; t++)
    {
        int8x16_t two = vld1q_s8(x->q[s][2 * t]);
        UNROLL for (size_t r = 0; r < MR / 2; r++) pair[t][r] = vmmlaq_s32(pair[t][r], two, vld1q_s8(w->q[s][2 * r]));
    }
    UNROLL for (size_t t = 0; t < NR / 2; t++) UNROLL for (size_t v = 0; v < 2; v++)
    {
        int32x4_t a = pair[t][2 * v], b = pair[t][2 * v + 1];
        product[2 * t][v] = vcombine_s32(vget_low_s32(a), vget_low_s32(b));
        product[2 * t + 1][v] = vcombine_s32(vget_high_s32(a), vget_high_s32(b));
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
        UNROLL for (int j = 0; j < N; j++) sum[j] = vmmlaq_s32(sum[j], a, b);
        __asm__ volatile("" : "+w"(a));
    }
    UNROLL for (int j = 0; j < N; j++) sink = vaddvq_s32(sum[j]);
    (void)sink;
    return rounds * N * 32;
}

const struct geul_cpu_kernels geul_cpu_kernels_neon_i8mm = {
    .dot = {BLOCK_DOTS}, .panel = {BLOCK_PANELS}, .peak_int8 = peak_int8};
