/* kernels_neon_i8mm.c: int8 products of 2 x 8 by 8 x 2 matrices by smmla.
 *
 * Rows and tokens go in pairs; a vector of sums holds (token 0, row 0), (0, 1), (1, 0), (1, 1). A token without a
 * partner leaves half of that idle, but takes no more instructions than sdot would: 16 for 32 values of 8 rows. */
#include "backends/cpu/blocks_neon.h"

enum { PAIRS = 3, NR = 2 * PAIRS, ROW_PAIRS = MR / 2, EIGHTS = BLOCK / 8 };

/* One block of NR tokens. Vectors hold what a pair of tokens has: token 0, token 0, token 1, token 1. */
struct tokens {
    int8_t q[EIGHTS][NR][8];
    float scale[PAIRS][4];
    float sum[3][PAIRS][4]; /* scaled_sums */
};

static void pack_tokens(void *packed, const float *x, size_t stride, int tokens, size_t k)
{
    struct tokens *out = packed;
    memset(out, 0, k / BLOCK * sizeof *out);
    for (int t = 0; t < tokens; t++) {
        const float *row = (const float *)((const uint8_t *)x + (size_t)t * stride);
        for (size_t i = 0; i < k / BLOCK; i++) {
            values q;
            float sum[3], scale = quantize32(row + i * BLOCK, &q);
            scaled_sums(&q, scale, sum);
            for (int c = 0; c < 2; c++) {
                vst1_s8(out[i].q[2 * c][t], vget_low_s8(q.val[c]));
                vst1_s8(out[i].q[2 * c + 1][t], vget_high_s8(q.val[c]));
            }
            vst1_f32(out[i].scale[t / 2] + t % 2 * 2, vdup_n_f32(scale));
            for (int j = 0; j < 3; j++)
                vst1_f32(out[i].sum[j][t / 2] + t % 2 * 2, vdup_n_f32(sum[j]));
        }
    }
}

/* Eights s = 0..3: values 8s..8s+7 of row 0, of row 1, ... */
INLINE void store_group(uint8_t *out, int v, const values row[4])
{
    UNROLL for (int c = 0; c < 2; c++) UNROLL for (int r = 0; r < 4; r += 2)
    {
        int64x2_t a = vreinterpretq_s64_s8(row[r].val[c]), b = vreinterpretq_s64_s8(row[r + 1].val[c]);
        int8_t *to = (int8_t *)out + 2 * c * MR * 8 + (4 * v + r) * 8;
        vst1q_s8(to, vreinterpretq_s8_s64(vzip1q_s64(a, b)));
        vst1q_s8(to + MR * 8, vreinterpretq_s8_s64(vzip2q_s64(a, b)));
    }
}

/* What a pair of rows has, once for each token: row 0, row 1, row 0, row 1. */
INLINE float32x4_t load_twice(const float *p)
{
    float32x2_t pair = vld1_f32(p);
    return vcombine_f32(pair, pair);
}

/* One block: P pairs of tokens. */
INLINE void add_block(float32x4_t sum[PAIRS][ROW_PAIRS], const uint8_t *w, const struct tokens *x, const int P,
                      const struct kind kind)
{
    const float *scale = (const float *)(w + WEIGHT_BYTES), *min = scale + kind.groups * MR;
    UNROLL for (int g = 0; g < kind.groups; g++)
    {
        const int part = kind.groups == 1 ? 0 : 1 + g;
        int32x4_t product[PAIRS][ROW_PAIRS];
        UNROLL for (int t = 0; t < P; t++) UNROLL for (int r = 0; r < ROW_PAIRS; r++) product[t][r] = vdupq_n_s32(0);
        UNROLL for (int s = 0; s < EIGHTS; s++) if (kind.groups == 1 || s * 2 / EIGHTS == g)
            UNROLL for (int t = 0; t < P; t++)
        {
            int8x16_t two = vld1q_s8(x->q[s][2 * t]);
            UNROLL for (int r = 0; r < ROW_PAIRS; r++) product[t][r] =
                vmmlaq_s32(product[t][r], two, vld1q_s8((const int8_t *)w + s * MR * 8 + 16 * r));
        }
        UNROLL for (int r = 0; r < ROW_PAIRS; r++)
        {
            float32x4_t d = load_twice(scale + g * MR + 2 * r);
            UNROLL for (int t = 0; t < P; t++) sum[t][r] =
                vfmaq_f32(sum[t][r], vcvtq_f32_s32(product[t][r]), vmulq_f32(d, vld1q_f32(x->scale[t])));
            if (kind.has_min) {
                float32x4_t m = load_twice(min + g * MR + 2 * r);
                UNROLL for (int t = 0; t < P; t++) sum[t][r] = vfmsq_f32(sum[t][r], m, vld1q_f32(x->sum[part][t]));
            }
        }
    }
}

/* P pairs, of which the last may lack its second token. */
INLINE void tile_of(float *out, size_t out_stride, const uint8_t *w, const struct tokens *x, size_t k,
                    const float *start, int tokens, const int P, const struct kind kind)
{
    const float *from = start ? start : out;
    const size_t from_stride = start ? 0 : out_stride, last = (size_t)tokens - 1;
    float32x4_t sum[PAIRS][ROW_PAIRS];
    UNROLL for (size_t t = 0; t < (size_t)P; t++) UNROLL for (size_t r = 0; r < ROW_PAIRS; r++)
    {
        size_t second = 2 * t + 1 < last ? 2 * t + 1 : last;
        sum[t][r] =
            vcombine_f32(vld1_f32(from + 2 * t * from_stride + 2 * r), vld1_f32(from + second * from_stride + 2 * r));
    }
    for (size_t i = 0; i < k / BLOCK; i++, x++, w += kind.step)
        add_block(sum, w, x, P, kind);
    UNROLL for (size_t t = 0; t < (size_t)P; t++) UNROLL for (size_t r = 0; r < ROW_PAIRS; r++)
    {
        float *to = out + 2 * t * out_stride + 2 * r;
        vst1_f32(to, vget_low_f32(sum[t][r]));
        if (2 * t + 1 <= last)
            vst1_f32(to + out_stride, vget_high_f32(sum[t][r]));
    }
}

/* The number of pairs is a constant in each branch: that many registers. */
INLINE void tile_any(float *out, size_t out_stride, const void *w, const void *x, size_t k, const float *start,
                     int tokens, const struct kind kind)
{
    switch ((tokens + 1) / 2) {
    case 1:
        tile_of(out, out_stride, w, x, k, start, tokens, 1, kind);
        return;
    case 2:
        tile_of(out, out_stride, w, x, k, start, tokens, 2, kind);
        return;
    default:
        tile_of(out, out_stride, w, x, k, start, tokens, PAIRS, kind);
    }
}

#define TILE(kind)                                                                                                     \
    static void tile_##kind(float *out, size_t out_stride, const void *w, const void *x, size_t k, const float *start, \
                            int tokens)                                                                                \
    {                                                                                                                  \
        tile_any(out, out_stride, w, x, k, start, tokens, KIND_##kind);                                                \
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
        UNROLL for (int j = 0; j < N; j++) sum[j] = vmmlaq_s32(sum[j], a, b);
        __asm__ volatile("" : "+w"(a));
    }
    UNROLL for (int j = 0; j < N; j++) sink = vaddvq_s32(sum[j]);
    (void)sink;
    return rounds * N * 32;
}

BLOCK_TYPES(BLOCK_PANEL)

const struct geul_cpu_kernels geul_cpu_kernels_neon_i8mm = {
    .panel = {BLOCK_TYPES(BLOCK_ENTRY)},
    .peak_int8 = peak_int8,
};
