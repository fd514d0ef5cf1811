/* blocks_neon.h: blocks of weights and activations as signed bytes, for the NEON units. Static: included once per unit,
 * which first includes arm_neon.h. */
#include "backends/cpu/kernels.h"

#include <math.h>
#include <string.h>

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif
#define INLINE static inline __attribute__((always_inline))

enum { BLOCK = 32, Q8_0_BYTES = 34, Q4_0_BYTES = 18, MR = 8, NR = 6 };

/* The 32 int8 of x into q; returns their scale, NaN when x holds an infinite or undefined value. Bit-equal to
 * kernels_scalar.c. */
static inline float quantize32(const float *x, int8_t *q)
{
    const uint32_t infinity = 0x7f800000;
    float32x4_t v[8];
    uint32x4_t largest = vdupq_n_u32(0);
    for (int i = 0; i < 8; i++) {
        v[i] = vld1q_f32(x + 4 * i);
        largest = vmaxq_u32(largest, vbicq_u32(vreinterpretq_u32_f32(v[i]), vdupq_n_u32(0x80000000)));
    }
    uint32_t bits = vmaxvq_u32(largest);
    float amax;
    memcpy(&amax, &bits, sizeof amax);
    memset(q, 0, BLOCK);
    if (bits >= infinity)
        return NAN;
    if (amax < 0x1p-100f)
        return 0;
    float inverse = 127.0f / amax;
    for (int i = 0; i < 8; i += 2) {
        int16x4_t a = vmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(v[i], inverse)));
        int16x4_t b = vmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(v[i + 1], inverse)));
        vst1_s8(q + 4 * i, vmovn_s16(vcombine_s16(a, b)));
    }
    return amax / 127.0f;
}

/* One token for the dot kernels. */
struct block {
    float scale;
    int8_t q[BLOCK];
};

static void pack_blocks_x(void *packed, const float *x, size_t k)
{
    struct block *b = packed;
    for (size_t i = 0; i < k / BLOCK; i++)
        b[i].scale = quantize32(x + i * BLOCK, b[i].q);
}

static inline float block_scale(const uint8_t *block)
{
    uint16_t h;
    memcpy(&h, block, sizeof h);
    return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h))), 0);
}

/* The 32 values of a weight block. */
typedef int8x16x2_t unpacker(const uint8_t *block);

INLINE int8x16x2_t unpack_q8_0(const uint8_t *block)
{
    return (int8x16x2_t){{vreinterpretq_s8_u8(vld1q_u8(block + 2)), vreinterpretq_s8_u8(vld1q_u8(block + 18))}};
}

INLINE int8x16x2_t unpack_q4_0(const uint8_t *block)
{
    uint8x16_t b = vld1q_u8(block + 2);
    int8x16_t eight = vdupq_n_s8(8);
    return (int8x16x2_t){{vsubq_s8(vreinterpretq_s8_u8(vandq_u8(b, vdupq_n_u8(15))), eight),
                          vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(b, 4)), eight)}};
}

/* 4 partial sums of one block's product, to be defined by the unit. */
static inline int32x4_t block_product(int8x16x2_t w, int8x16x2_t x);

INLINE void dot_blocks(float *out, const void *w, size_t stride, const struct block *x, size_t k, int rows,
                       size_t bytes, unpacker *unpack)
{
    const size_t ahead = geul_cpu_ahead(stride) / 4;
    for (int r = 0; r < rows; r++) {
        const uint8_t *p = (const uint8_t *)w + (size_t)r * stride;
        float32x4_t sum = vdupq_n_f32(0);
        for (size_t i = 0; i < k / BLOCK; i++, p += bytes) {
            int8x16x2_t y = {{vld1q_s8(x[i].q), vld1q_s8(x[i].q + 16)}};
            __builtin_prefetch(p + ahead);
            sum = vfmaq_n_f32(sum, vcvtq_f32_s32(block_product(unpack(p), y)), block_scale(p) * x[i].scale);
        }
        out[r] = vaddvq_f32(sum);
    }
}

static void dot_q8_0(float *out, const void *w, size_t stride, const void *x, size_t k, int rows)
{
    dot_blocks(out, w, stride, x, k, rows, Q8_0_BYTES, unpack_q8_0);
}

static void dot_q4_0(float *out, const void *w, size_t stride, const void *x, size_t k, int rows)
{
    dot_blocks(out, w, stride, x, k, rows, Q4_0_BYTES, unpack_q4_0);
}

/* A block of MR weight rows or of NR tokens: WORD bytes of every row, then the next WORD of every row. */
struct weights {
    int8_t q[BLOCK / WORD][MR][WORD];
    float scale[MR];
};
struct tokens {
    int8_t q[BLOCK / WORD][NR][WORD];
    float scale[NR];
};

INLINE void pack_blocks(struct weights *out, const uint8_t *w, size_t stride, int rows, size_t k, size_t bytes,
                        unpacker *unpack)
{
    memset(out, 0, k / BLOCK * sizeof *out);
    for (size_t i = 0; i < k / BLOCK; i++, out++)
        for (int r = 0; r < rows; r++) {
            const uint8_t *p = w + (size_t)r * stride + i * bytes;
            int8x16x2_t v = unpack(p);
            int8_t q[BLOCK];
            vst1q_s8(q, v.val[0]);
            vst1q_s8(q + 16, v.val[1]);
            for (int s = 0; s < BLOCK / WORD; s++)
                memcpy(out->q[s][r], q + s * WORD, WORD);
            out->scale[r] = block_scale(p);
        }
}

static void pack_q8_0(void *panel, const void *w, size_t stride, int rows, size_t k)
{
    pack_blocks(panel, w, stride, rows, k, Q8_0_BYTES, unpack_q8_0);
}

static void pack_q4_0(void *panel, const void *w, size_t stride, int rows, size_t k)
{
    pack_blocks(panel, w, stride, rows, k, Q4_0_BYTES, unpack_q4_0);
}

static void pack_tokens(void *packed, const float *x, size_t stride, int tokens, size_t k)
{
    struct tokens *out = packed;
    memset(out, 0, k / BLOCK * sizeof *out);
    for (int t = 0; t < tokens; t++)
        for (size_t i = 0; i < k / BLOCK; i++) {
            int8_t q[BLOCK];
            out[i].scale[t] = quantize32((const float *)((const uint8_t *)x + (size_t)t * stride) + i * BLOCK, q);
            for (int s = 0; s < BLOCK / WORD; s++)
                memcpy(out[i].q[s][t], q + s * WORD, WORD);
        }
}

/* Products of one block, rows 0..3 and 4..7 of every token; to be defined by the unit. */
static inline void tile_products(int32x4_t product[NR][2], const struct weights *w, const struct tokens *x);

static void tile_blocks(float *out, size_t out_stride, const void *panel, const void *packed, size_t k,
                        const float *start)
{
    const struct weights *w = panel;
    const struct tokens *x = packed;
    float32x4_t sum[NR][2];
    UNROLL for (size_t t = 0; t < NR; t++) UNROLL for (size_t v = 0; v < 2; v++) sum[t][v] =
        vld1q_f32((start ? start : out + t * out_stride) + 4 * v);
    for (size_t i = 0; i < k / BLOCK; i++, w++, x++) {
        int32x4_t product[NR][2];
        tile_products(product, w, x);
        UNROLL for (size_t v = 0; v < 2; v++)
        {
            float32x4_t scale = vld1q_f32(w->scale + 4 * v);
            UNROLL for (size_t t = 0; t < NR; t++) sum[t][v] =
                vfmaq_f32(sum[t][v], vcvtq_f32_s32(product[t][v]), vmulq_n_f32(scale, x->scale[t]));
        }
    }
    UNROLL for (size_t t = 0; t < NR; t++) UNROLL for (size_t v = 0; v < 2; v++)
        vst1q_f32(out + t * out_stride + 4 * v, sum[t][v]);
}

static const struct geul_cpu_dot q8_0_dot = {BLOCK, sizeof(struct block), pack_blocks_x, dot_q8_0};
static const struct geul_cpu_dot q4_0_dot = {BLOCK, sizeof(struct block), pack_blocks_x, dot_q4_0};

#define BLOCK_PANEL(type)                                                                                              \
    {                                                                                                                  \
        .mr = MR, .nr = NR, .min_tokens = 4, .k_block = 2048, .k_step = BLOCK, .w_step = sizeof(struct weights),       \
        .x_step = sizeof(struct tokens), .pack_w = pack_##type, .pack_x = pack_tokens, .tile = tile_blocks             \
    }
static const struct geul_cpu_panel q8_0_panel = BLOCK_PANEL(q8_0), q4_0_panel = BLOCK_PANEL(q4_0);

#define BLOCK_DOTS   [GEUL_TYPE_Q8_0] = &q8_0_dot, [GEUL_TYPE_Q4_0] = &q4_0_dot
#define BLOCK_PANELS [GEUL_TYPE_Q8_0] = &q8_0_panel, [GEUL_TYPE_Q4_0] = &q4_0_panel
