/* kernels_neon_i8mm.c: int8 products of 2 x 8 by 8 x 2 matrices by smmla, for panels of Q8_0 and Q4_0.
 *
 * Rows and tokens go in pairs; a vector of sums holds (token 0, row 0), (0, 1), (1, 0), (1, 1). Activations are made
 * int8 by kernels_neon.c, which every machine with smmla can run too. */
#include "backends/cpu/blocks_neon.h"
#include "backends/cpu/kernels.h"

#include <arm_neon.h>
#include <string.h>

enum { MR = 8, NR = 6, STEP = 8 };

/* One block of MR weight rows: q[s] holds bytes 8s..8s+7 of every row. scale[p] is that of a pair, twice. */
struct weights {
    int8_t q[BLOCK / STEP][MR][STEP];
    float scale[MR / 2][4]; /* row 0, row 1, row 0, row 1 */
};

/* One block of NR tokens. */
struct tokens {
    int8_t q[BLOCK / STEP][NR][STEP];
    float scale[NR / 2][4]; /* token 0, token 0, token 1, token 1 */
};

INLINE void place(void *weights, int r, int8x16x2_t q, float scale)
{
    struct weights *out = weights;
    vst1_s8(out->q[0][r], vget_low_s8(q.val[0]));
    vst1_s8(out->q[1][r], vget_high_s8(q.val[0]));
    vst1_s8(out->q[2][r], vget_low_s8(q.val[1]));
    vst1_s8(out->q[3][r], vget_high_s8(q.val[1]));
    out->scale[r / 2][r % 2] = out->scale[r / 2][r % 2 + 2] = scale;
}

static void pack_q8_0(void *panel, const void *w, size_t stride, int rows, size_t k, struct geul_cpu_ahead *ahead)
{
    pack_blocks(panel, sizeof(struct weights), w, stride, rows, k, Q8_0_BYTES, unpack_q8_0, place, ahead);
}

static void pack_q4_0(void *panel, const void *w, size_t stride, int rows, size_t k, struct geul_cpu_ahead *ahead)
{
    pack_blocks(panel, sizeof(struct weights), w, stride, rows, k, Q4_0_BYTES, unpack_q4_0, place, ahead);
}

static void pack_tokens(void *packed, const float *x, size_t stride, int tokens, size_t k)
{
    struct tokens *out = packed;
    memset(out, 0, k / BLOCK * sizeof *out);
    for (int t = 0; t < tokens; t++) {
        const float *row = (const float *)((const uint8_t *)x + (size_t)t * stride);
        for (size_t i = 0; i < k / BLOCK; i++) {
            struct block four[4];
            geul_cpu_kernels_neon.panel[GEUL_TYPE_Q8_0]->pack_x(four, row + i * BLOCK, stride, 1, BLOCK);
            for (int s = 0; s < BLOCK / STEP; s++)
                memcpy(out[i].q[s][t], four[0].q + STEP * s, STEP);
            float *scale = out[i].scale[t / 2] + t % 2 * 2;
            scale[0] = scale[1] = four[0].scale;
        }
    }
}

static void tile_whole(float *out, size_t out_stride, const void *panel, const void *packed, size_t k,
                       const float *start)
{
    const struct weights *w = panel;
    const struct tokens *x = packed;
    size_t from_stride = start ? 0 : out_stride;
    float32x4_t sum[NR / 2][MR / 2];
    UNROLL for (size_t t = 0; t < NR / 2; t++) UNROLL for (size_t p = 0; p < MR / 2; p++)
    {
        const float *from = (start ? start : out) + 2 * t * from_stride + 2 * p;
        sum[t][p] = vcombine_f32(vld1_f32(from), vld1_f32(from + from_stride));
    }
    for (size_t i = 0; i < k / BLOCK; i++, w++, x++) {
        int32x4_t product[NR / 2][MR / 2];
        UNROLL for (size_t t = 0; t < NR / 2; t++) UNROLL for (size_t p = 0; p < MR / 2; p++) product[t][p] =
            vdupq_n_s32(0);
        UNROLL for (size_t s = 0; s < BLOCK / STEP; s++) UNROLL for (size_t t = 0; t < NR / 2; t++)
        {
            int8x16_t two = vld1q_s8(x->q[s][2 * t]);
            UNROLL for (size_t p = 0; p < MR / 2; p++) product[t][p] =
                vmmlaq_s32(product[t][p], two, vld1q_s8(w->q[s][2 * p]));
        }
        UNROLL for (size_t t = 0; t < NR / 2; t++)
        {
            float32x4_t scale = vld1q_f32(x->scale[t]);
            UNROLL for (size_t p = 0; p < MR / 2; p++) sum[t][p] =
                vfmaq_f32(sum[t][p], vcvtq_f32_s32(product[t][p]), vmulq_f32(vld1q_f32(w->scale[p]), scale));
        }
    }
    UNROLL for (size_t t = 0; t < NR / 2; t++) UNROLL for (size_t p = 0; p < MR / 2; p++)
    {
        float *to = out + 2 * t * out_stride + 2 * p;
        vst1_f32(to, vget_low_f32(sum[t][p]));
        vst1_f32(to + out_stride, vget_high_f32(sum[t][p]));
    }
}

static void tile_blocks(float *out, size_t out_stride, const void *panel, const void *packed, size_t k,
                        const float *start, int tokens)
{
    float spare[MR * NR];
    tile_some(out, out_stride, panel, packed, k, start, (size_t)tokens, spare, MR, NR, tile_whole);
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

#define BLOCK_PANEL(type)                                                                                              \
    {                                                                                                                  \
        .mr = MR, .nr = NR, .k_block = 1024, .k_step = BLOCK, .w_step = sizeof(struct weights),                        \
        .x_step = sizeof(struct tokens), .pack_w = pack_##type, .pack_x = pack_tokens, .tile = tile_blocks             \
    }
static const struct geul_cpu_panel q8_0_panel = BLOCK_PANEL(q8_0), q4_0_panel = BLOCK_PANEL(q4_0);

const struct geul_cpu_kernels geul_cpu_kernels_neon_i8mm = {
    .panel = {[GEUL_TYPE_Q8_0] = &q8_0_panel, [GEUL_TYPE_Q4_0] = &q4_0_panel},
    .peak_int8 = peak_int8,
};
