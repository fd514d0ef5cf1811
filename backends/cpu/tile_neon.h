/* tile_neon.h: tiles of NR tokens with the rows of a vector side by side, for the units that have them so: NEON without
 * and with sdot. Static: see kernels_float.h. */
#ifndef GEUL_TILE_NEON_H
#define GEUL_TILE_NEON_H

#include "backends/cpu/blocks_neon.h"

enum { NR = 4, VECTORS = MR / 4 };

/* One block of NR tokens. */
struct tokens {
    int8_t q[NR][BLOCK];
    float scale[NR];
    float sum[3][NR]; /* scaled_sums */
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
            vst1q_s8(out[i].q[t], q.val[0]);
            vst1q_s8(out[i].q[t] + 16, q.val[1]);
            out[i].scale[t] = scale;
            for (int j = 0; j < 3; j++)
                out[i].sum[j][t] = sum[j];
        }
    }
}

/* The unit's part of it: the products of rows 4v..4v+3, values of group g, with T tokens. w: the values of MR rows. */
typedef void multiplier(int32x4_t product[NR], const uint8_t *w, const struct tokens *x, int T, int v, int g,
                        struct kind kind);

INLINE void add_block(float32x4_t sum[NR][VECTORS], const uint8_t *w, const struct tokens *x, const int T,
                      const struct kind kind, multiplier *multiply)
{
    const float *scale = (const float *)(w + WEIGHT_BYTES), *min = scale + kind.groups * MR;
    UNROLL for (int g = 0; g < kind.groups; g++) UNROLL for (int v = 0; v < VECTORS; v++)
    {
        const int part = kind.groups == 1 ? 0 : 1 + g;
        int32x4_t product[NR];
        multiply(product, w, x, T, v, g, kind);
        float32x4_t d = vld1q_f32(scale + g * MR + 4 * v);
        UNROLL for (int t = 0; t < T; t++) sum[t][v] =
            vfmaq_f32(sum[t][v], vcvtq_f32_s32(product[t]), vmulq_n_f32(d, x->scale[t]));
        if (kind.has_min) {
            float32x4_t m = vld1q_f32(min + g * MR + 4 * v);
            UNROLL for (int t = 0; t < T; t++) sum[t][v] = vfmsq_f32(sum[t][v], m, vdupq_n_f32(x->sum[part][t]));
        }
    }
}

INLINE void tile_of(float *out, size_t out_stride, const uint8_t *w, const struct tokens *x, size_t k,
                    const float *start, const int T, const struct kind kind, multiplier *multiply)
{
    float32x4_t sum[NR][VECTORS];
    UNROLL for (int t = 0; t < T; t++) UNROLL for (int v = 0; v < VECTORS; v++) sum[t][v] =
        vld1q_f32((start ? start : out + (size_t)t * out_stride) + 4 * v);
    for (size_t i = 0; i < k / BLOCK; i++, x++, w += kind.step)
        add_block(sum, w, x, T, kind, multiply);
    UNROLL for (int t = 0; t < T; t++) UNROLL for (int v = 0; v < VECTORS; v++)
        vst1q_f32(out + (size_t)t * out_stride + 4 * v, sum[t][v]);
}

/* The number of tokens is a constant in each branch: that many registers. */
INLINE void tile_any(float *out, size_t out_stride, const void *w, const void *x, size_t k, const float *start,
                     int tokens, const struct kind kind, multiplier *multiply)
{
    switch (tokens) {
    case 1:
        tile_of(out, out_stride, w, x, k, start, 1, kind, multiply);
        return;
    case 2:
        tile_of(out, out_stride, w, x, k, start, 2, kind, multiply);
        return;
    case 3:
        tile_of(out, out_stride, w, x, k, start, 3, kind, multiply);
        return;
    default:
        tile_of(out, out_stride, w, x, k, start, NR, kind, multiply);
    }
}

/* For each kind: tile_<kind> with the unit's multiply. */
#define TILE(kind)                                                                                                     \
    static void tile_##kind(float *out, size_t out_stride, const void *w, const void *x, size_t k, const float *start, \
                            int tokens)                                                                                \
    {                                                                                                                  \
        tile_any(out, out_stride, w, x, k, start, tokens, KIND_##kind, multiply);                                      \
    }

#endif
