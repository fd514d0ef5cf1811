/* kernels_neon.c: NEON as every aarch64 has it: the float32 kernels, 4 wide, and int8 products.
 *
 * smull and smlal multiply signed bytes into int16, where two products fit (2 * 128 * 127 < 2^15); sadalp then adds
 * pairs of them into int32. Each block is summed up as an integer before it meets its scales, as in kernels_scalar.c.
 */
#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* ---------------------------------------------------------------------------------- vectors for kernels_float.h -- */

#define VF_WIDTH   4
#define VF_ROWS    4
#define VF_TOKENS  6
#define VF_QUERIES 4
#define VF_MIX     4
typedef float32x4_t vf;

static inline vf vf_zero(void)
{
    return vdupq_n_f32(0);
}
static inline vf vf_set1(float f)
{
    return vdupq_n_f32(f);
}
static inline vf vf_load(const float *p)
{
    return vld1q_f32(p);
}
static inline void vf_store(float *p, vf v)
{
    vst1q_f32(p, v);
}
static inline vf vf_load_n(const float *p, size_t n)
{
    float part[VF_WIDTH] = {0};
    if (n >= VF_WIDTH)
        return vld1q_f32(p);
    memcpy(part, p, n * sizeof *p);
    return vld1q_f32(part);
}
static inline void vf_store_n(float *p, vf v, size_t n)
{
    float part[VF_WIDTH];
    vst1q_f32(part, v);
    memcpy(p, part, (n < VF_WIDTH ? n : VF_WIDTH) * sizeof *p);
}
static inline vf vf_add(vf a, vf b)
{
    return vaddq_f32(a, b);
}
static inline vf vf_sub(vf a, vf b)
{
    return vsubq_f32(a, b);
}
static inline vf vf_mul(vf a, vf b)
{
    return vmulq_f32(a, b);
}
static inline vf vf_div(vf a, vf b)
{
    return vdivq_f32(a, b);
}
static inline vf vf_fma(vf a, vf b, vf c)
{
    return vfmaq_f32(c, a, b);
}
/* Comparisons, because fmax would return a NaN of the first operand too, and fmaxnm that of neither. */
static inline vf vf_max(vf a, vf b)
{
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}
static inline vf vf_min(vf a, vf b)
{
    return vbslq_f32(vcltq_f32(a, b), a, b);
}
static inline float vf_sum(vf v)
{
    return vaddvq_f32(v);
}
/* The sum of each of 4 vectors: neighbours, then pairs of them. */
static inline vf vf_sums(const vf *v)
{
    return vpaddq_f32(vpaddq_f32(v[0], v[1]), vpaddq_f32(v[2], v[3]));
}
static inline float vf_largest(vf v)
{
    return vmaxvq_f32(v);
}
static inline vf vf_round(vf v)
{
    return vrndnq_f32(v);
}
static inline vf vf_pow2(vf n)
{
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127)), 23));
}
static inline vf vf_below_zero(vf x, vf a, vf b)
{
    return vbslq_f32(vcltzq_f32(x), a, b);
}
static inline uint16x4_t load_halves(const void *p)
{
    uint16x4_t h;
    memcpy(&h, p, sizeof h);
    return h;
}
static inline uint16x4_t load_halves_n(const void *p, size_t n)
{
    uint16_t part[VF_WIDTH] = {0};
    memcpy(part, p, (n < VF_WIDTH ? n : VF_WIDTH) * sizeof *part);
    return vld1_u16(part);
}
static inline vf vf_load_f16(const void *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(load_halves(p)));
}
static inline vf vf_load_f16_n(const void *p, size_t n)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(load_halves_n(p, n)));
}
static inline void vf_store_f16(void *p, vf v)
{
    uint16x4_t h = vreinterpret_u16_f16(vcvt_f16_f32(v));
    memcpy(p, &h, sizeof h);
}
static inline float vf_scale_f16(const void *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h))), 0);
}
static inline vf vf_load_i8(const void *p)
{
    uint32_t four;
    memcpy(&four, p, sizeof four);
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(four))))));
}
static inline vf vf_load_bf16(const void *p)
{
    return vreinterpretq_f32_u32(vshll_n_u16(load_halves(p), 16));
}
static inline vf vf_load_bf16_n(const void *p, size_t n)
{
    return vreinterpretq_f32_u32(vshll_n_u16(load_halves_n(p, n), 16));
}

/* 4 rows of 4 words into 4 vectors of 4. Strides in bytes. */
static inline void vf_transpose4(const void *src, size_t src_stride, void *dst, size_t dst_stride)
{
    uint32x4_t r[4], t[4];
    for (size_t i = 0; i < 4; i++)
        memcpy(&r[i], (const uint8_t *)src + i * src_stride, sizeof r[i]);
    uint32x4x2_t a = vtrnq_u32(r[0], r[1]), b = vtrnq_u32(r[2], r[3]);
    t[0] = vcombine_u32(vget_low_u32(a.val[0]), vget_low_u32(b.val[0]));
    t[1] = vcombine_u32(vget_low_u32(a.val[1]), vget_low_u32(b.val[1]));
    t[2] = vcombine_u32(vget_high_u32(a.val[0]), vget_high_u32(b.val[0]));
    t[3] = vcombine_u32(vget_high_u32(a.val[1]), vget_high_u32(b.val[1]));
    for (size_t i = 0; i < 4; i++)
        memcpy((uint8_t *)dst + i * dst_stride, &t[i], sizeof t[i]);
}

#include "backends/cpu/blocks_neon.h"
#include "backends/cpu/kernels_float.h"

/* ------------------------------------------------------------------------------------------------------ blocks -- */

enum { MR = 8, NR = 4 };

/* Bit-equal to kernels_scalar.c: NaN as the scale when x holds an infinite or undefined value. */
static void quantize(struct block *b, const float *x)
{
    const float smallest = 0x1p-100f;
    uint32x4_t largest = vdupq_n_u32(0);
    for (int i = 0; i < BLOCK; i += 4)
        largest = vmaxq_u32(largest, vreinterpretq_u32_f32(vabsq_f32(vld1q_f32(x + i))));
    uint32_t bits = vmaxvq_u32(largest);
    float amax;
    memcpy(&amax, &bits, sizeof amax);
    bool defined = bits < 0x7f800000;
    if (!defined || amax < smallest) {
        memset(b->q, 0, sizeof b->q);
        b->scale = defined ? 0 : NAN;
        return;
    }
    float32x4_t inverse = vdupq_n_f32(127.0f / amax);
    b->scale = amax / 127.0f;
    for (int i = 0; i < BLOCK; i += 8) {
        int32x4_t low = vcvtnq_s32_f32(vmulq_f32(vld1q_f32(x + i), inverse));
        int32x4_t high = vcvtnq_s32_f32(vmulq_f32(vld1q_f32(x + i + 4), inverse));
        vst1_s8(b->q + i, vmovn_s16(vcombine_s16(vmovn_s32(low), vmovn_s32(high))));
    }
}

/* 4 partial sums of a block's product. */
INLINE int32x4_t multiply(int8x16x2_t w, int8x16x2_t x)
{
    int16x8_t a = vmull_s8(vget_low_s8(w.val[0]), vget_low_s8(x.val[0]));
    int16x8_t b = vmull_s8(vget_low_s8(w.val[1]), vget_low_s8(x.val[1]));
    a = vmlal_high_s8(a, w.val[0], x.val[0]);
    b = vmlal_high_s8(b, w.val[1], x.val[1]);
    return vpadalq_s16(vpaddlq_s16(a), b);
}

/* ------------------------------------------------------------------------------------------------ many tokens -- */

/* One block of MR weight rows, and of NR tokens. */
struct weights {
    int8_t q[MR][BLOCK];
    float scale[MR];
};
struct tokens {
    struct block token[NR];
};

INLINE void place(void *weights, int r, int8x16x2_t q, float scale)
{
    struct weights *out = weights;
    vst1q_s8(out->q[r], q.val[0]);
    vst1q_s8(out->q[r] + 16, q.val[1]);
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

static void pack_tokens(void *packed, const float *x, size_t stride, int tokens, size_t k)
{
    struct tokens *out = packed;
    memset(out, 0, k / BLOCK * sizeof *out);
    for (int t = 0; t < tokens; t++)
        for (size_t i = 0; i < k / BLOCK; i++)
            quantize(&out[i].token[t], (const float *)at(x, (size_t)t, stride) + i * BLOCK);
}

static void tile_whole(float *out, size_t out_stride, const void *panel, const void *packed, size_t k,
                       const float *start)
{
    const struct weights *w = panel;
    const struct tokens *x = packed;
    float32x4_t sum[NR][MR / 4];
    UNROLL for (size_t t = 0; t < NR; t++) UNROLL for (size_t v = 0; v < MR / 4; v++) sum[t][v] =
        vld1q_f32((start ? start : out + t * out_stride) + 4 * v);
    for (size_t i = 0; i < k / BLOCK; i++, w++, x++)
        UNROLL for (size_t v = 0; v < MR / 4; v++)
        {
            float32x4_t scale = vld1q_f32(w->scale + 4 * v);
            int8x16x2_t row[4];
            UNROLL for (size_t r = 0; r < 4; r++) row[r] = load_bytes(w->q[4 * v + r]);
            UNROLL for (size_t t = 0; t < NR; t++)
            {
                int8x16x2_t q = load_bytes(x->token[t].q);
                int32x4_t product[4];
                UNROLL for (size_t r = 0; r < 4; r++) product[r] = multiply(row[r], q);
                sum[t][v] =
                    vfmaq_f32(sum[t][v], vcvtq_f32_s32(sum_each(product)), vmulq_n_f32(scale, x->token[t].scale));
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

/* smlal alone: what the folding into int32 costs is the kernels' own. */
static uint64_t peak_int8(uint64_t rounds)
{
    enum { N = 16 };
    volatile int16_t sink;
    int16x8_t sum[N];
    int8x8_t a = vdup_n_s8(3), b = vdup_n_s8(-2);
    UNROLL for (int j = 0; j < N; j++) sum[j] = vdupq_n_s16((int16_t)j);
    for (uint64_t i = 0; i < rounds; i++) {
        UNROLL for (int j = 0; j < N; j++) sum[j] = vmlal_s8(sum[j], a, b);
        __asm__ volatile("" : "+w"(a));
    }
    UNROLL for (int j = 0; j < N; j++) sink = vaddvq_s16(sum[j]);
    (void)sink;
    return rounds * N * 8;
}

#define BLOCK_PANEL(type)                                                                                              \
    {                                                                                                                  \
        .mr = MR, .nr = NR, .k_block = 1024, .k_step = BLOCK, .w_step = sizeof(struct weights),                        \
        .x_step = sizeof(struct tokens), .pack_w = pack_##type, .pack_x = pack_tokens, .tile = tile_blocks             \
    }
static const struct geul_cpu_panel q8_0_panel = BLOCK_PANEL(q8_0), q4_0_panel = BLOCK_PANEL(q4_0);

const struct geul_cpu_kernels geul_cpu_kernels_neon = {
    FLOAT_KERNELS,
    .panel = {FLOAT_PANELS, [GEUL_TYPE_Q8_0] = &q8_0_panel, [GEUL_TYPE_Q4_0] = &q4_0_panel},
    .peak_int8 = peak_int8,
};
