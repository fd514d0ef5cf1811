/* blocks_neon.h: block types for the three NEON units: weight rows into panels of int8, activations into int8. Static:
 * see kernels_float.h.
 *
 * A panel holds, for every 32 values of MR weight rows: the values in the order that the unit's instructions want, then
 * the rows' scales and, for types with a minimum, their minima: one each, or two for types that change them every 16
 * values. A type is two functions over one row of it: 32 of its values, and the integers that its scales are made of.
 * Four rows are unpacked side by side, so that a unit can turn them and scales are made four at a time. */
#ifndef GEUL_BLOCKS_NEON_H
#define GEUL_BLOCKS_NEON_H

#include <arm_neon.h>
#include <math.h>
#include <string.h>

#include "backends/cpu/kernels.h"
#include "backends/cpu/unroll.h"

enum { BLOCK = 32, SUPER = 256, MR = 8, WEIGHT_BYTES = BLOCK * MR, LARGEST_BLOCK = 210 };

/* How 32 values of a type are multiplied. */
struct kind {
    int groups; /* scales (and minima) of 32 values: 1 or 2 */
    bool has_min;
    bool narrow; /* |value| <= 32: eight products with an int8 fit into an int16 */
    size_t step; /* bytes that 32 values of MR rows take in a panel */
};

/* <kind>: <groups>[m: with a minimum][w: wide, not narrow] */
enum {
    STEP_1 = WEIGHT_BYTES + MR * 4,
    STEP_1w = STEP_1,
    STEP_1m = STEP_1 + MR * 4,
    STEP_2 = STEP_1 + MR * 4,
    STEP_2m = STEP_2 + 2 * MR * 4
};
#define KIND_1  ((struct kind){1, false, true, STEP_1})
#define KIND_1w ((struct kind){1, false, false, STEP_1w})
#define KIND_1m ((struct kind){1, true, true, STEP_1m})
#define KIND_2  ((struct kind){2, false, true, STEP_2})
#define KIND_2m ((struct kind){2, true, true, STEP_2m})

/* The block types: enum, values_<name>, values and bytes of a block, factors_<name>, kind. */
#define BLOCK_TYPES(ROW)                                                                                               \
    ROW(Q8_0, q8_0, BLOCK, 34, d, 1w)                                                                                  \
    ROW(Q4_0, q4_0, BLOCK, 18, d, 1)                                                                                   \
    ROW(Q4_1, q4_1, BLOCK, 20, dm, 1m)                                                                                 \
    ROW(Q5_0, q5_0, BLOCK, 22, d, 1)                                                                                   \
    ROW(Q5_1, q5_1, BLOCK, 24, dm, 1m)                                                                                 \
    ROW(Q2_K, q2_k, SUPER, 84, q2_k, 2m)                                                                               \
    ROW(Q3_K, q3_k, SUPER, 110, q3_k, 2)                                                                               \
    ROW(Q4_K, q4_k, SUPER, 144, q4_k, 1m)                                                                              \
    ROW(Q5_K, q5_k, SUPER, 176, q4_k, 1m)                                                                              \
    ROW(Q6_K, q6_k, SUPER, 210, q6_k, 2)                                                                               \
    ROW(IQ4_NL, iq4_nl, BLOCK, 18, d, 1w)                                                                              \
    ROW(IQ4_XS, iq4_xs, SUPER, 136, iq4_xs, 1w)

/* ------------------------------------------------------------------------------------ values -- */

/* 32 int8: values 0..15 and 16..31. */
typedef int8x16x2_t values;

INLINE uint16_t load_u16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE uint32_t load_u32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE uint64_t load_u64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE uint8x16_t load16(const uint8_t *p)
{
    return vld1q_u8(p);
}

/* n bits of every byte, those from `from` on moved to bit `to`. Shifts by a vector, because clang wants literals where
 * the intrinsics shift by a number; the compilers make the same instruction of it. */
INLINE uint8x16_t bits_to(uint8x16_t v, int from, int n, int to)
{
    uint8x16_t moved = from > to   ? v >> vdupq_n_u8((uint8_t)(from - to))
                       : from < to ? v << vdupq_n_u8((uint8_t)(to - from))
                                   : v;
    bool all = from > to ? from + n == 8 && to == 0 : to + n == 8 && from == 0;
    return all ? moved : vandq_u8(moved, vdupq_n_u8((uint8_t)(((1 << n) - 1) << to)));
}

INLINE uint8x16_t bits(uint8x16_t v, int from, int n)
{
    return bits_to(v, from, n, 0);
}

INLINE int8x16_t less(uint8x16_t v, int offset)
{
    int8x16_t q = vreinterpretq_s8_u8(v);
    return offset ? vsubq_s8(q, vdupq_n_s8((int8_t)offset)) : q;
}

/* 16 bytes of nibbles: the low ones are values 0..15, the high ones 16..31. */
INLINE values nibbles(const uint8_t *p, int offset)
{
    uint8x16_t v = load16(p);
    return (values){{less(bits(v, 0, 4), offset), less(bits(v, 4, 4), offset)}};
}

/* Nibbles that point into the table of the IQ4 types. */
INLINE values nibbles_iq4(const uint8_t *p)
{
    static const int8_t iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    uint8x16_t v = load16(p);
    int8x16_t table = vld1q_s8(iq4);
    return (values){{vqtbl1q_s8(table, bits(v, 0, 4)), vqtbl1q_s8(table, bits(v, 4, 4))}};
}

/* Nibbles with a fifth bit: bit i of the 32 at high belongs to value i. */
INLINE values nibbles5(const uint8_t *p, const uint8_t *high, int offset)
{
    const uint8x16_t mask = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201)), sixteen = vdupq_n_u8(16);
    const uint8x16_t each = vcombine_u8(vdup_n_u8(0), vdup_n_u8(1)); /* which byte has a value's bit */
    uint8x16_t four = vreinterpretq_u8_u32(vdupq_n_u32(load_u32(high))), v = load16(p);
    uint8x16_t first = vqtbl1q_u8(four, each), second = vqtbl1q_u8(four, vaddq_u8(each, vdupq_n_u8(2)));
    first = vandq_u8(vtstq_u8(first, mask), sixteen);
    second = vandq_u8(vtstq_u8(second, mask), sixteen);
    return (values){{less(vorrq_u8(bits(v, 0, 4), first), offset), less(vorrq_u8(bits(v, 4, 4), second), offset)}};
}

/* 32 values of two bit planes of 32 bytes: n bits from bit `from` of low, and n_high from bit from_high of high. */
INLINE values planes(const uint8_t *low, int from, int n, const uint8_t *high, int from_high, int n_high, int offset)
{
    values q;
    UNROLL for (int c = 0; c < 2; c++)
    {
        uint8x16_t v = bits(load16(low + 16 * c), from, n);
        if (n_high)
            v = vorrq_u8(v, bits_to(load16(high + 16 * c), from_high, n_high, n));
        q.val[c] = less(v, offset);
    }
    return q;
}

/* values_<type>: values 32i..32i+31 of a block. */
INLINE values values_q8_0(const uint8_t *p, int i)
{
    (void)i;
    return (values){{less(load16(p + 2), 0), less(load16(p + 18), 0)}};
}

INLINE values values_q4_0(const uint8_t *p, int i)
{
    (void)i;
    return nibbles(p + 2, 8);
}

INLINE values values_q4_1(const uint8_t *p, int i)
{
    (void)i;
    return nibbles(p + 4, 0);
}

INLINE values values_q5_0(const uint8_t *p, int i)
{
    (void)i;
    return nibbles5(p + 6, p + 2, 16);
}

INLINE values values_q5_1(const uint8_t *p, int i)
{
    (void)i;
    return nibbles5(p + 8, p + 4, 0);
}

INLINE values values_q2_k(const uint8_t *p, int i)
{
    return planes(p + 16 + i / 4 * 32, i % 4 * 2, 2, NULL, 0, 0, 0);
}

INLINE values values_q3_k(const uint8_t *p, int i)
{
    return planes(p + 32 + i / 4 * 32, i % 4 * 2, 2, p, i, 1, 4);
}

INLINE values values_q4_k(const uint8_t *p, int i)
{
    return planes(p + 16 + i / 2 * 32, i % 2 * 4, 4, NULL, 0, 0, 0);
}

INLINE values values_q5_k(const uint8_t *p, int i)
{
    return planes(p + 48 + i / 2 * 32, i % 2 * 4, 4, p + 16, i, 1, 0);
}

/* Every 128 values: 64 bytes of nibbles, of which the first 32 hold blocks 0 and 2. */
INLINE values values_q6_k(const uint8_t *p, int i)
{
    return planes(p + i / 4 * 64 + i % 2 * 32, i % 4 / 2 * 4, 4, p + 128 + i / 4 * 32, i % 4 * 2, 2, 32);
}

INLINE values values_iq4_nl(const uint8_t *p, int i)
{
    (void)i;
    return nibbles_iq4(p + 2);
}

INLINE values values_iq4_xs(const uint8_t *p, int i)
{
    return nibbles_iq4(p + 8 + 16 * i);
}

/* ------------------------------------------------------------------------------------ scales -- */

/* Group g of a block has the scale d * scale[g] and the minimum m * min[g]; a type of one group d and m. */
struct factors {
    uint16_t d, m; /* float16 */
    int8x16_t scale, min;
};

INLINE struct factors only(uint16_t d, uint16_t m)
{
    return (struct factors){d, m, vdupq_n_s8(1), vdupq_n_s8(1)};
}

/* factors_<name>. Q4_1 and Q5_1 add their minimum, so that the panel gets it with the other sign. */
INLINE struct factors factors_d(const uint8_t *p)
{
    return only(load_u16(p), 0);
}

INLINE struct factors factors_dm(const uint8_t *p)
{
    return only(load_u16(p), load_u16(p + 2) ^ 0x8000);
}

INLINE struct factors factors_q2_k(const uint8_t *p)
{
    uint8x16_t v = load16(p);
    return (struct factors){load_u16(p + 80), load_u16(p + 82), less(bits(v, 0, 4), 0), less(bits(v, 4, 4), 0)};
}

INLINE struct factors factors_q3_k(const uint8_t *p)
{
    static const int32_t down[4] = {0, -2, -4, -6};
    uint8x16_t low = vreinterpretq_u8_u64((uint64x2_t){load_u64(p + 96), load_u64(p + 96) >> 4});
    uint8x16_t high = vreinterpretq_u8_u32(vshlq_u32(vdupq_n_u32(load_u32(p + 104)), vld1q_s32(down)));
    uint8x16_t six = vorrq_u8(bits(low, 0, 4), bits_to(high, 0, 2, 4));
    return (struct factors){load_u16(p + 108), 0, less(six, 32), vdupq_n_s8(0)};
}

/* Six bits each: scales 0..3, minima 0..3, and what is left of scales and minima 4..7 in nibbles. */
INLINE struct factors factors_q4_k(const uint8_t *p)
{
    const uint64_t low_word = 0xffffffff;
    uint64_t eight = load_u64(p + 4), rest = load_u32(p + 12);
    uint64_t first = eight & 0x3f3f3f3f3f3f3f3f, second = (eight >> 2 & 0x3030303030303030);
    second |= (rest & 0x0f0f0f0f) | (rest >> 4 & 0x0f0f0f0f) << 32;
    uint64_t scale = (first & low_word) | second << 32, min = first >> 32 | (second & ~low_word);
    return (struct factors){load_u16(p), load_u16(p + 2), vreinterpretq_s8_u64((uint64x2_t){scale, 0}),
                            vreinterpretq_s8_u64((uint64x2_t){min, 0})};
}

INLINE struct factors factors_q6_k(const uint8_t *p)
{
    return (struct factors){load_u16(p + 208), 0, less(load16(p + 192), 0), vdupq_n_s8(0)};
}

INLINE struct factors factors_iq4_xs(const uint8_t *p)
{
    static const int16_t down[8] = {0, -2, -4, -6, -8, -10, -12, -14};
    uint32_t nibble = load_u32(p + 4);
    uint8x16_t four = vreinterpretq_u8_u32((uint32x4_t){nibble, 0, 0, 0});
    uint8x16_t low = vzip1q_u8(bits(four, 0, 4), bits(four, 4, 4));
    uint8x8_t high = vmovn_u16(vshlq_u16(vdupq_n_u16(load_u16(p + 2)), vld1q_s16(down)));
    uint8x16_t six = vorrq_u8(low, bits_to(vcombine_u8(high, high), 0, 2, 4));
    return (struct factors){load_u16(p), 0, less(six, 32), vdupq_n_s8(0)};
}

/* Four rows' d times the n integers of each: those of one block of 32 every `apart` bytes, and where it has two groups
 * the second one's MR floats after the first one's. */
INLINE void store_factors(uint8_t *out, size_t apart, const uint16_t d[4], const int8x16_t integer[4], int n,
                          int groups)
{
    float32x4_t scale = vcvt_f32_f16(vreinterpret_f16_u16((uint16x4_t){d[0], d[1], d[2], d[3]}));
    if (n == 1) {
        vst1q_f32((float *)out, scale);
        return;
    }
    int8x16_t even[2] = {vzip1q_s8(integer[0], integer[2]), vzip2q_s8(integer[0], integer[2])};
    int8x16_t odd[2] = {vzip1q_s8(integer[1], integer[3]), vzip2q_s8(integer[1], integer[3])};
    UNROLL for (int j = 0; j < n; j += 4)
    {
        int8x16_t four = j % 8 ? vzip2q_s8(even[j / 8], odd[j / 8]) : vzip1q_s8(even[j / 8], odd[j / 8]);
        int16x8_t low = vmovl_s8(vget_low_s8(four)), high = vmovl_high_s8(four);
        int32x4_t wide[4] = {vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)),
                             vmovl_high_s16(high)};
        UNROLL for (int i = j; i < j + 4; i++)
        {
            float *to = (float *)(out + (size_t)(i / groups) * apart) + i % groups * MR;
            vst1q_f32(to, vmulq_f32(scale, vcvtq_f32_s32(wide[i - j])));
        }
    }
}

/* ------------------------------------------------------------------------------------ panels -- */

typedef values values_of(const uint8_t *block, int i);
typedef struct factors factors_of(const uint8_t *block);

/* Stores 32 values each of rows 4v..4v+3 in the order of the unit's instructions. */
typedef void group_store(uint8_t *out, int v, const values row[4]);

/* A block or super-block of n values each of rows 4v..4v+3. */
INLINE void pack_four(uint8_t *out, int v, const uint8_t *const p[4], int n, struct kind kind, values_of *unpack,
                      factors_of *factors, group_store *store_group)
{
    const int parts = n / BLOCK, n_factors = parts * kind.groups;
    const size_t row = 4 * (size_t)v * sizeof(float);
    uint16_t d[4], m[4];
    int8x16_t scale[4], min[4];
    UNROLL for (int r = 0; r < 4; r++)
    {
        struct factors f = factors(p[r]);
        d[r] = f.d;
        m[r] = f.m;
        scale[r] = f.scale;
        min[r] = f.min;
    }
    store_factors(out + WEIGHT_BYTES + row, kind.step, d, scale, n_factors, kind.groups);
    if (kind.has_min)
        store_factors(out + WEIGHT_BYTES + (size_t)kind.groups * MR * sizeof(float) + row, kind.step, m, min, n_factors,
                      kind.groups);
    UNROLL for (int i = 0; i < parts; i++)
    {
        values q[4];
        UNROLL for (int r = 0; r < 4; r++) q[r] = unpack(p[r], i);
        store_group(out + (size_t)i * kind.step, v, q);
    }
}

/* A whole panel. Missing rows at the edge read one block of zero bytes, d included, again and again: scales are 0. */
INLINE void pack_rows(uint8_t *out, const uint8_t *w, size_t stride, int rows, size_t k, int n, size_t bytes,
                      struct kind kind, values_of *unpack, factors_of *factors, group_store *store_group,
                      struct geul_cpu_prefetch *prefetch)
{
    static const uint8_t missing[LARGEST_BLOCK];
    for (int v = 0; v < MR / 4; v++) {
        const uint8_t *p[4];
        size_t next[4];
        UNROLL for (int r = 0; r < 4; r++)
        {
            bool here = 4 * v + r < rows;
            p[r] = here ? w + (size_t)(4 * v + r) * stride : missing;
            next[r] = here ? bytes : 0;
        }
        for (size_t i = 0; i < k / (size_t)n; i++) {
            if (prefetch)
                geul_cpu_prefetch_bytes(prefetch, 4 * bytes);
            pack_four(out + i * (size_t)(n / BLOCK) * kind.step, v, p, n, kind, unpack, factors, store_group);
            UNROLL for (int r = 0; r < 4; r++) p[r] += next[r];
        }
    }
}

/* For BLOCK_TYPES: the panel of a type, of the unit's store_group, struct tokens, pack_tokens, NR and tile_<kind>. */
#define BLOCK_PANEL(id, type, n, bytes, factors, kind)                                                                 \
    static void pack_##type(void *panel, const void *w, size_t stride, int rows, size_t k,                             \
                            struct geul_cpu_prefetch *prefetch)                                                        \
    {                                                                                                                  \
        pack_rows(panel, w, stride, rows, k, n, bytes, KIND_##kind, values_##type, factors_##factors, store_group,     \
                  prefetch);                                                                                           \
    }                                                                                                                  \
    static const struct geul_cpu_panel type##_panel = {.mr = MR,                                                       \
                                                       .nr = NR,                                                       \
                                                       .k_block = 1024,                                                \
                                                       .k_step = BLOCK,                                                \
                                                       .w_step = STEP_##kind,                                          \
                                                       .x_step = sizeof(struct tokens),                                \
                                                       .pack_w = pack_##type,                                          \
                                                       .pack_x = pack_tokens,                                          \
                                                       .tile = tile_##kind};
/* For BLOCK_TYPES: its entry in the unit's table. */
#define BLOCK_ENTRY(id, type, n, bytes, factors, kind) [GEUL_TYPE_##id] = &type##_panel,

/* ------------------------------------------------------------------------------- activations -- */

/* The 32 int8 of x into *q; returns their scale, NaN when x holds an infinite or undefined value. Bit-equal to
 * kernels_scalar.c. */
INLINE float quantize32(const float *x, values *q)
{
    uint32x4_t largest = vdupq_n_u32(0);
    for (int i = 0; i < BLOCK; i += 4)
        largest = vmaxq_u32(largest, vreinterpretq_u32_f32(vabsq_f32(vld1q_f32(x + i))));
    uint32_t u = vmaxvq_u32(largest);
    float amax;
    memcpy(&amax, &u, sizeof amax);
    *q = (values){{vdupq_n_s8(0), vdupq_n_s8(0)}};
    if (u >= 0x7f800000)
        return NAN;
    if (amax < 0x1p-100f)
        return 0;
    float32x4_t inverse = vdupq_n_f32(127.0f / amax);
    for (int c = 0; c < 2; c++, x += 16) {
        int16x8_t half[2];
        for (int i = 0; i < 2; i++) {
            int32x4_t low = vcvtnq_s32_f32(vmulq_f32(vld1q_f32(x + 8 * i), inverse));
            int32x4_t high = vcvtnq_s32_f32(vmulq_f32(vld1q_f32(x + 8 * i + 4), inverse));
            half[i] = vcombine_s16(vmovn_s32(low), vmovn_s32(high));
        }
        q->val[c] = vcombine_s8(vmovn_s16(half[0]), vmovn_s16(half[1]));
    }
    return amax / 127.0f;
}

/* scale times the sum of all 32, of the first 16, of the last 16: what minima are multiplied by. */
INLINE void scaled_sums(const values *q, float scale, float sum[3])
{
    int first = vaddlvq_s8(q->val[0]), second = vaddlvq_s8(q->val[1]);
    sum[0] = scale * (float)(first + second);
    sum[1] = scale * (float)first;
    sum[2] = scale * (float)second;
}

#endif
