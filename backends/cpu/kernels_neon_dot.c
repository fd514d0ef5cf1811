/* kernels_neon_dot.c: int8 products by sdot (four at a time into int32), for blocks of Q8_0 and Q4_0.
 *
 * Activations are packed by kernels_neon.c, which every machine with sdot can run too. */
#include "backends/cpu/blocks_neon.h"
#include "backends/cpu/kernels.h"

#include <arm_neon.h>
#include <string.h>

enum { MR = 8, NR = 4 };

/* ------------------------------------------------------------------------------------------------ many tokens -- */

/* One block of MR weight rows: q[s] holds bytes 4s..4s+3 of every row. */
struct weights {
    int8_t q[BLOCK / 4][MR][4];
    float scale[MR];
};

/* One block of NR tokens. */
struct tokens {
    struct block token[NR];
};

INLINE void place(void *weights, int r, int8x16x2_t q, float scale)
{
    struct weights *out = weights;
    int8_t bytes[BLOCK];
    vst1q_s8(bytes, q.val[0]);
    vst1q_s8(bytes + 16, q.val[1]);
    for (int s = 0; s < BLOCK / 4; s++)
        memcpy(out->q[s][r], bytes + 4 * s, 4);
    out->scale[r] = scale;
}

static void pack_q8_0(void *panel, const void *w, size_t stride, int rows, size_t k, struct geul_cpu_ahead *ahead)
{
    pack_blocks(panel, sizeof(struct weights), w, stride, rows, k, Q8_0_BYTES, unpack_q8_0, place, ahead);
}

static void pack_q4_0(void *panel, const void *w, size_t stride, int rows, size_t k, struct geul_cpu_ahead *ahead)
{
    pack_blocks(panel, sizeof(struct weights), w, stride, rows, k, Q4_0_BYTES, unpack_q4_0, place, ahead);
}

/* Tokens lie as in kernels_neon.c. */
static void pack_tokens(void *packed, const float *x, size_t stride, int tokens, size_t k)
{
    geul_cpu_kernels_neon.panel[GEUL_TYPE_Q8_0]->pack_x(packed, x, stride, tokens, k);
}

/* Bytes 16h..16h+15 of the block: four steps, each of which takes a lane of every token. Lanes must be literals. */
INLINE void add_half(int32x4_t (*product)[MR / 4], const struct weights *w, const struct tokens *x, int h)
{
    int8x16_t q[NR];
    UNROLL for (int t = 0; t < NR; t++) q[t] = vld1q_s8(x->token[t].q + 16 * h);
#define STEP(lane)                                                                                                     \
    UNROLL for (int v = 0; v < MR / 4; v++)                                                                            \
    {                                                                                                                  \
        int8x16_t rows = vld1q_s8(w->q[4 * h + lane][4 * v]);                                                          \
        UNROLL for (int t = 0; t < NR; t++) product[t][v] = vdotq_laneq_s32(product[t][v], rows, q[t], lane);          \
    }
    STEP(0)
    STEP(1)
    STEP(2)
    STEP(3)
#undef STEP
}

static void tile_whole(float *out, size_t out_stride, const void *panel, const void *packed, size_t k,
                       const float *start)
{
    const struct weights *w = panel;
    const struct tokens *x = packed;
    float32x4_t sum[NR][MR / 4];
    UNROLL for (size_t t = 0; t < NR; t++) UNROLL for (size_t v = 0; v < MR / 4; v++) sum[t][v] =
        vld1q_f32((start ? start : out + t * out_stride) + 4 * v);
    for (size_t i = 0; i < k / BLOCK; i++, w++, x++) {
        int32x4_t product[NR][MR / 4];
        UNROLL for (size_t t = 0; t < NR; t++) UNROLL for (size_t v = 0; v < MR / 4; v++) product[t][v] =
            vdupq_n_s32(0);
        add_half(product, w, x, 0);
        add_half(product, w, x, 1);
        UNROLL for (size_t v = 0; v < MR / 4; v++)
        {
            float32x4_t scale = vld1q_f32(w->scale + 4 * v);
            UNROLL for (size_t t = 0; t < NR; t++) sum[t][v] =
                vfmaq_f32(sum[t][v], vcvtq_f32_s32(product[t][v]), vmulq_n_f32(scale, x->token[t].scale));
        }
    }
    UNROLL for (size_t t = 0; t < NR; t++) UNROLL for (size_t v = 0; v < MR / 4; v++)
        vst1q_f32(out + t * out_stride + 4 * v, sum[t][v]);
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
        UNROLL for (int j = 0; j < N; j++) sum[j] = vdotq_s32(sum[j], a, b);
        __asm__ volatile("" : "+w"(a));
    }
    UNROLL for (int j = 0; j < N; j++) sink = vaddvq_s32(sum[j]);
    (void)sink;
    return rounds * N * 16;
}

#define BLOCK_PANEL(type)                                                                                              \
    {                                                                                                                  \
        .mr = MR, .nr = NR, .k_block = 1024, .k_step = BLOCK, .w_step = sizeof(struct weights),                        \
        .x_step = sizeof(struct tokens), .pack_w = pack_##type, .pack_x = pack_tokens, .tile = tile_blocks             \
    }
static const struct geul_cpu_panel q8_0_panel = BLOCK_PANEL(q8_0), q4_0_panel = BLOCK_PANEL(q4_0);

const struct geul_cpu_kernels geul_cpu_kernels_neon_dot = {
    .panel = {[GEUL_TYPE_Q8_0] = &q8_0_panel, [GEUL_TYPE_Q4_0] = &q4_0_panel},
    .peak_int8 = peak_int8,
};
