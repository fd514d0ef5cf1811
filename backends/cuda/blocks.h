/* blocks.h: for kernels: the block types (core/block.c has pictures of their bytes), unpacked to int8.
 *
 * A block is cut into units, the pieces that a thread takes: bytes that lie together and what they hold, up to 64
 * values. A unit is `parts` parts of 16 values that follow each other in the row:
 *
 *     struct unpacked<type> u;
 *     unpack<type>(block, unit, &u);
 *     value 4 j + i of part p, at element part_offset<type>(unit, p) + 4 j + i of the block, is
 *         u.scale[p] * (byte i of u.word[p][j]) - u.minimum[p]
 *
 * Groups of scales are 16 or 32 values: where they are 32 (shape::group), parts 2 p and 2 p + 1 are one group and have
 * the same scale and minimum. Blocks lie at their own alignment, 2 bytes for many types: what follows loads words that
 * are aligned and moves the bytes into place. */
#ifndef GEUL_CUDA_BLOCKS_H
#define GEUL_CUDA_BLOCKS_H

#include "backends/cuda/cuda_types.h"
#include "backends/cuda/warp.h"

/* What is fixed for a type: values and bytes of a block, of a group's scale, of a unit; whether values have a minimum.
 */
template <int values_, int bytes_, int group_, int unit_, bool minimum_> struct block_shape {
    enum { values = values_, bytes = bytes_, group = group_, unit = unit_ };
    enum { units = values_ / unit_, parts = unit_ / 16, minimum = minimum_ };
};
template <cuda_type type> struct shape_of;
template <> struct shape_of<CUDA_Q8_0> : block_shape<32, 34, 32, 32, false> {
};
template <> struct shape_of<CUDA_Q4_0> : block_shape<32, 18, 32, 32, false> {
};
template <> struct shape_of<CUDA_Q4_1> : block_shape<32, 20, 32, 32, true> {
};
template <> struct shape_of<CUDA_Q5_0> : block_shape<32, 22, 32, 32, false> {
};
template <> struct shape_of<CUDA_Q5_1> : block_shape<32, 24, 32, 32, true> {
};
template <> struct shape_of<CUDA_Q2_K> : block_shape<256, 84, 16, 64, true> {
};
template <> struct shape_of<CUDA_Q3_K> : block_shape<256, 110, 16, 64, false> {
};
template <> struct shape_of<CUDA_Q4_K> : block_shape<256, 144, 32, 64, true> {
};
template <> struct shape_of<CUDA_Q5_K> : block_shape<256, 176, 32, 64, true> {
};
template <> struct shape_of<CUDA_Q6_K> : block_shape<256, 210, 16, 64, false> {
};
template <> struct shape_of<CUDA_IQ4_NL> : block_shape<32, 18, 32, 32, false> {
};
template <> struct shape_of<CUDA_IQ4_XS> : block_shape<256, 136, 32, 32, false> {
};

template <cuda_type type> struct unpacked {
    uint32_t word[shape_of<type>::parts][4];
    float scale[shape_of<type>::parts];
    float minimum[shape_of<type>::parts]; /* 0 where the type has none */
};

/* ------------------------------------------------------------------------------------- bytes -- */

/* Words that begin at p, which lies on 2 bytes; none of the bytes around them but the 2 before p, where p does not lie
 * on 4, is read. */
template <int n> DEVICE void load_words_at_2(const uint8_t *p, uint32_t w[n])
{
    const int shift = (int)((uintptr_t)p & 2) * 8;
    const uint32_t *from = (const uint32_t *)(p - shift / 8);
    UNROLL
    for (int i = 0; i < n; i++)
        w[i] = from[i];
    uint32_t behind = ((const uint16_t *)p)[2 * n - 1];
    UNROLL
    for (int i = 0; i < n; i++) {
        uint64_t both = (uint64_t)(i + 1 < n ? w[i + 1] : behind) << 32 | w[i];
        w[i] = (uint32_t)(both >> shift);
    }
}

template <int n> DEVICE void load_words_at_4(const uint8_t *p, uint32_t w[n])
{
    UNROLL
    for (int i = 0; i < n; i++)
        w[i] = ((const uint32_t *)p)[i];
}

template <int n> DEVICE void load_words_at_8(const uint8_t *p, uint32_t w[n])
{
    UNROLL
    for (int i = 0; i < n; i += 2) {
        words2 v = load8(p + 4 * i);
        w[i] = v.w[0];
        w[i + 1] = v.w[1];
    }
}

/* again: they are read again soon. */
template <int n, bool again = false> DEVICE void load_words_at_16(const uint8_t *p, uint32_t w[n])
{
    UNROLL
    for (int i = 0; i < n; i += 4) {
        words4 v = again ? load16(p + 4 * i) : load16_once(p + 4 * i);
        UNROLL
        for (int j = 0; j < 4; j++)
            w[i + j] = v.w[j];
    }
}

DEVICE float half_at(const uint8_t *p)
{
    return half_to_float(*(const uint16_t *)p);
}

/* Byte i of n words, 2 to 4. Registers cannot be indexed, and what chooses among words one after the other nvcc turns
 * into a table in memory: so two words are one number. */
template <int n> DEVICE int byte_of(const uint32_t (&words)[n], int i)
{
    uint64_t pair = (uint64_t)words[1] << 32 | words[0];
    if constexpr (n > 2)
        pair = i < 8 ? pair : (uint64_t)words[n - 1] << (n > 3 ? 32 : 0) | (n > 3 ? words[2] : 0);
    return (int)(pair >> 8 * (i % 8) & 0xff);
}

/* Each byte of w, 0 to 127, less n: the borrow stops at a bit that is set for it. */
DEVICE uint32_t subtract_bytes(uint32_t w, int n)
{
    return ((w | 0x80808080u) - 0x01010101u * (uint32_t)n) ^ 0x80808080u;
}

/* The lowest 4 bits of `bits`, one to each byte, at bit `to` of it. The product puts bit i to bit 7 i + i. */
DEVICE uint32_t spread_bits(uint32_t bits, int to)
{
    return ((bits & 15) * 0x00204081u & 0x01010101u) << to;
}

/* The 16 levels of the IQ4 types (core/block.c: iq4_levels), four to a word. */
DEVICE void levels_of(uint32_t nibbles, uint32_t *low, uint32_t *high)
{
    const uint32_t level[4] = {0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u};
    uint32_t found[2]; /* low and high nibbles of bytes 0 and 1, then of 2 and 3, alternating */
    UNROLL
    for (int i = 0; i < 2; i++) {
        uint32_t s = nibbles >> 16 * i & 0xffff;
        uint32_t below = permute_bytes(level[0], level[1], s & 0x7777),
                 above = permute_bytes(level[2], level[3], s & 0x7777);
        found[i] = permute_bytes(below, above, 0x3210u | (s & 0x8888) >> 1);
    }
    *low = permute_bytes(found[0], found[1], 0x6420);
    *high = permute_bytes(found[0], found[1], 0x7531);
}

/* Scales and minima of groups 0 to 3 of Q4_K and Q5_K, or of 4 to 7, a byte each; they lie in bytes 4 to 15, those of
 * the upper groups with two bits in the bytes of the lower ones. Both are computed, for lanes of a warp want either. */
DEVICE void scale_words(const uint32_t (&words)[4], bool upper, uint32_t *scales, uint32_t *minima)
{
    const uint32_t above = 0x30303030u, below = 0x0f0f0f0fu;
    *scales = upper ? (words[3] & below) | (words[1] >> 2 & above) : words[1] & (above | below);
    *minima = upper ? (words[3] >> 4 & below) | (words[2] >> 2 & above) : words[2] & (above | below);
}

/* ---------------------------------------------------------------------------------- unpacking -- */

template <cuda_type type> DEVICE int part_offset(int unit, int part)
{
    if constexpr (type == CUDA_Q2_K || type == CUDA_Q3_K)
        return unit / 2 * 128 + part * 32 + unit % 2 * 16;
    else if constexpr (type == CUDA_Q6_K)
        return unit / 2 * 128 + part / 2 * 64 + unit % 2 * 32 + part % 2 * 16;
    else
        return unit * shape_of<type>::unit + part * 16;
}

/* The 16 bytes of 4-bit codes of a block of 32: low nibbles first. `at` is their alignment. */
template <int at> DEVICE void load_nibbles(const uint8_t *p, uint32_t low[4])
{
    if constexpr (at == 2)
        load_words_at_2<4>(p, low);
    else if constexpr (at == 4)
        load_words_at_4<4>(p, low);
    else
        load_words_at_8<4>(p, low);
}

template <cuda_type type> DEVICE void unpack_32(const uint8_t *block, unpacked<type> *u)
{
    constexpr bool minimum = shape_of<type>::minimum, fifth = type == CUDA_Q5_0 || type == CUDA_Q5_1;
    constexpr int codes = shape_of<type>::bytes - 16;
    constexpr int alignment = type == CUDA_Q5_1 ? 8 : type == CUDA_Q4_1 ? 4 : 2;
    uint32_t word[4], high = 0;
    load_nibbles<alignment>(block + codes, word);
    if constexpr (type == CUDA_Q5_0)
        load_words_at_2<1>(block + codes - 4, &high);
    if constexpr (type == CUDA_Q5_1)
        high = *(const uint32_t *)(block + codes - 4);
    UNROLL
    for (int p = 0; p < 2; p++) {
        u->scale[p] = half_at(block);
        u->minimum[p] = minimum ? -half_at(block + 2) : 0; /* the file's is added */
    }
    UNROLL
    for (int j = 0; j < 4; j++) {
        if constexpr (type == CUDA_IQ4_NL) {
            levels_of(word[j], &u->word[0][j], &u->word[1][j]);
        } else {
            UNROLL
            for (int p = 0; p < 2; p++) {
                uint32_t w = word[j] >> 4 * p & 0x0f0f0f0fu;
                if (fifth)
                    w |= spread_bits(high >> (16 * p + 4 * j), 4);
                u->word[p][j] = minimum ? w : subtract_bytes(w, fifth ? 16 : 8);
            }
        }
    }
}

DEVICE void unpack_q8_0(const uint8_t *block, unpacked<CUDA_Q8_0> *u)
{
    load_words_at_2<8>(block + 2, &u->word[0][0]);
    UNROLL
    for (int p = 0; p < 2; p++) {
        u->scale[p] = half_at(block);
        u->minimum[p] = 0;
    }
}

/* Q4_K and Q5_K: 32 bytes of low nibbles are two groups. */
template <cuda_type type> DEVICE void unpack_pairs(const uint8_t *block, int unit, unpacked<type> *u)
{
    constexpr bool fifth = type == CUDA_Q5_K;
    uint32_t head[4], low[8], high[8];
    load_words_at_16<4>(block, head);
    load_words_at_16<8>(block + (fifth ? 48 : 16) + 32 * unit, low);
    if constexpr (fifth)
        load_words_at_16<8>(block + 16, high);
    uint32_t scales, minima;
    scale_words(head, unit >= 2, &scales, &minima);
    const float d = half_to_float((uint16_t)head[0]), m = half_to_float((uint16_t)(head[0] >> 16));
    UNROLL
    for (int p = 0; p < 4; p++) {
        const int bit = 2 * unit + p / 2;
        u->scale[p] = d * (float)(scales >> bit % 4 * 8 & 0xff);
        u->minimum[p] = m * (float)(minima >> bit % 4 * 8 & 0xff);
        UNROLL
        for (int j = 0; j < 4; j++) {
            u->word[p][j] = low[p % 2 * 4 + j] >> p / 2 * 4 & 0x0f0f0f0fu;
            if constexpr (fifth)
                u->word[p][j] |= (high[p % 2 * 4 + j] >> bit & 0x01010101u) << 4;
        }
    }
}

DEVICE void unpack_q2_k(const uint8_t *block, int unit, unpacked<CUDA_Q2_K> *u)
{
    uint32_t low[4], scales[4];
    load_words_at_4<4>(block + 16 + 16 * unit, low);
    load_words_at_4<4>(block, scales);
    const float d = half_at(block + 80), m = half_at(block + 82);
    UNROLL
    for (int p = 0; p < 4; p++) {
        int both = byte_of(scales, unit / 2 * 8 + 2 * p + unit % 2);
        u->scale[p] = d * (float)(both & 15);
        u->minimum[p] = m * (float)(both >> 4);
        UNROLL
        for (int j = 0; j < 4; j++)
            u->word[p][j] = low[j] >> 2 * p & 0x03030303u;
    }
}

DEVICE void unpack_q3_k(const uint8_t *block, int unit, unpacked<CUDA_Q3_K> *u)
{
    uint32_t low[4], high[4], scales[3];
    load_words_at_2<4>(block + 32 + 16 * unit, low);
    load_words_at_2<4>(block + 16 * (unit % 2), high);
    load_words_at_2<3>(block + 96, scales);
    const float d = half_at(block + 108);
    UNROLL
    for (int p = 0; p < 4; p++) {
        int g = unit / 2 * 8 + 2 * p + unit % 2;
        int scale = (byte_of(scales, g % 8) >> g / 8 * 4 & 15) | (byte_of(scales, 8 + g % 4) >> g / 4 * 2 & 3) << 4;
        u->scale[p] = d * (float)(scale - 32);
        u->minimum[p] = 0;
        UNROLL
        for (int j = 0; j < 4; j++) {
            uint32_t third = high[j] >> (unit / 2 * 4 + p) & 0x01010101u;
            u->word[p][j] = subtract_bytes((low[j] >> 2 * p & 0x03030303u) | third << 2, 4);
        }
    }
}

DEVICE void unpack_q6_k(const uint8_t *block, int unit, unpacked<CUDA_Q6_K> *u)
{
    uint32_t low[8], high[8];
    load_words_at_2<8>(block + 32 * unit, low);
    load_words_at_2<8>(block + 128 + 32 * (unit / 2), high);
    const float d = half_at(block + 208);
    uint32_t scales = 0;
    UNROLL
    for (int p = 0; p < 4; p++) {
        if (p % 2 == 0) /* the scales of two parts lie together */
            scales = *(const uint16_t *)(block + 192 + part_offset<CUDA_Q6_K>(unit, p) / 16);
        u->scale[p] = d * (float)(int8_t)(scales >> 8 * (p % 2));
        u->minimum[p] = 0;
        UNROLL
        for (int j = 0; j < 4; j++) {
            uint32_t two = high[p % 2 * 4 + j] >> (unit % 2 * 2 + p / 2 * 4) & 0x03030303u;
            u->word[p][j] = subtract_bytes((low[p % 2 * 4 + j] >> p / 2 * 4 & 0x0f0f0f0fu) | two << 4, 32);
        }
    }
}

DEVICE void unpack_iq4_xs(const uint8_t *block, int unit, unpacked<CUDA_IQ4_XS> *u)
{
    uint32_t head[2], codes[4];
    load_words_at_8<2>(block, head);
    load_words_at_8<4>(block + 8 + 16 * unit, codes);
    int scale = (int)(head[1] >> 4 * unit & 15) | (int)(head[0] >> (16 + 2 * unit) & 3) << 4;
    UNROLL
    for (int p = 0; p < 2; p++) {
        u->scale[p] = half_to_float((uint16_t)head[0]) * (float)(scale - 32);
        u->minimum[p] = 0;
    }
    UNROLL
    for (int j = 0; j < 4; j++)
        levels_of(codes[j], &u->word[0][j], &u->word[1][j]);
}

template <cuda_type type> DEVICE void unpack(const uint8_t *block, int unit, unpacked<type> *u)
{
    if constexpr (type == CUDA_Q8_0)
        unpack_q8_0(block, u);
    else if constexpr (type == CUDA_Q4_K || type == CUDA_Q5_K)
        unpack_pairs<type>(block, unit, u);
    else if constexpr (type == CUDA_Q2_K)
        unpack_q2_k(block, unit, u);
    else if constexpr (type == CUDA_Q3_K)
        unpack_q3_k(block, unit, u);
    else if constexpr (type == CUDA_Q6_K)
        unpack_q6_k(block, unit, u);
    else if constexpr (type == CUDA_IQ4_XS)
        unpack_iq4_xs(block, unit, u);
    else
        unpack_32<type>(block, u);
}

/* Value i of part p as a float: what geul_decode() gives. */
template <cuda_type type> DEVICE float unpacked_value(const unpacked<type> &u, int p, int i)
{
    int q = (int8_t)(u.word[p][i / 4] >> 8 * (i % 4));
    return u.scale[p] * (float)q - u.minimum[p];
}

#endif
