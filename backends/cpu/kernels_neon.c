/* kernels_neon.c: NEON as every aarch64 has it: the float32 kernels, 4 wide, and int8 products.
 *
 * smull and smlal multiply signed bytes into int16, where two products fit (2 * 128 * 127 < 2^15), or eight of types of
 * up to 6 bits; sadalp then adds pairs of them into int32. Each group is summed up as an integer before it meets its
 * scale, as in kernels_scalar.c. */
#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* --------------------------------------------------------------- vectors for kernels_float.h -- */

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

#include "backends/cpu/kernels_float.h"
#include "backends/cpu/tile_neon.h"

/* ------------------------------------------------------------------------------------ blocks -- */

/* A row's 32 values lie together. */
INLINE void store_group(uint8_t *out, int v, const values row[4])
{
    UNROLL for (int r = 0; r < 4; r++) UNROLL for (int c = 0; c < 2; c++)
        vst1q_s8((int8_t *)out + (4 * v + r) * BLOCK + 16 * c, row[r].val[c]);
}

/* The sums of four vectors. */
INLINE int32x4_t sum_each(const int32x4_t s[4])
{
    return vpaddq_s32(vpaddq_s32(s[0], s[1]), vpaddq_s32(s[2], s[3]));
}

/* Four rows' 16 (from half g) or 32 values times a token's: a sum each. Narrow values are summed up across neighbours,
 * 8 products of 32 * 127 at most, before they are widened; of others no more than two fit. */
INLINE int32x4_t multiply_rows(const int8x16_t row[4][2], const int8x16_t x[2], int g, struct kind kind)
{
    int16x8_t a[4], b[4];
    UNROLL for (int r = 0; r < 4; r++)
    {
        a[r] = vmlal_high_s8(vmull_s8(vget_low_s8(row[r][g]), vget_low_s8(x[g])), row[r][g], x[g]);
        if (kind.groups == 1 && kind.narrow)
            a[r] = vmlal_high_s8(vmlal_s8(a[r], vget_low_s8(row[r][1]), vget_low_s8(x[1])), row[r][1], x[1]);
        if (kind.groups == 1 && !kind.narrow)
            b[r] = vmlal_high_s8(vmull_s8(vget_low_s8(row[r][1]), vget_low_s8(x[1])), row[r][1], x[1]);
    }
    if (kind.narrow)
        return vpaddq_s32(vpaddlq_s16(vpaddq_s16(a[0], a[1])), vpaddlq_s16(vpaddq_s16(a[2], a[3])));
    int32x4_t s[4];
    UNROLL for (int r = 0; r < 4; r++) s[r] = vpadalq_s16(vpaddlq_s16(a[r]), b[r]);
    return sum_each(s);
}

INLINE void multiply(int32x4_t product[NR], const uint8_t *w, const struct tokens *x, int T, int v, int g,
                     struct kind kind)
{
    int8x16_t row[4][2];
    UNROLL for (int r = 0; r < 4; r++) UNROLL for (int c = 0; c < 2; c++) row[r][c] =
        vld1q_s8((const int8_t *)w + (4 * v + r) * BLOCK + 16 * c);
    UNROLL for (int t = 0; t < T; t++)
    {
        int8x16_t q[2] = {vld1q_s8(x->q[t]), vld1q_s8(x->q[t] + 16)};
        product[t] = multiply_rows(row, q, g, kind);
    }
}

TILE(1)
TILE(1w)
TILE(1m)
TILE(2)
TILE(2m)

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

BLOCK_TYPES(BLOCK_PANEL)

const struct geul_cpu_kernels geul_cpu_kernels_neon = {
    FLOAT_KERNELS,
    .panel = {FLOAT_PANELS, BLOCK_TYPES(BLOCK_ENTRY)},
    .peak_int8 = peak_int8,
};
