/* block.c: see block.h. How each block type packs its integers into bytes.
 *
 * The q of all types lie in bit planes: a chunk of `run` bytes holds run * 8 / bits elements, the first run of them in
 * the lowest bits of its bytes, the next run in the bits above, and so on. Types of 3, 5 and 6 bits have a second plane
 * for the high bits. (Layouts: llama.cpp's block_q*; checked against the PyPI package gguf in
 * tests/core/test_codec_vectors.c.)
 *
 * Blocks byte by byte; d and m are float16, little-endian, and scales the packed integers of the groups:
 *
 *   Q8_0      0 d     2 q (int8)                                                    34 bytes
 *   Q4_0      0 d     2 low 4                                                       18       IQ4_NL too
 *   Q4_1      0 d     2 m       4 low 4                                             20
 *   Q5_0      0 d     2 high 1  6 low 4                                             22
 *   Q5_1      0 d     2 m       4 high 1      8 low 4                               24
 *   Q2_K      0 scales         16 low 2                   80 d         82 m         84
 *   Q3_K      0 high 1         32 low 2                   96 scales   108 d        110
 *   Q4_K      0 d     2 m       4 scales     16 low 4                              144
 *   Q5_K      0 d     2 m       4 scales     16 high 1    48 low 4                 176
 *   Q6_K      0 low 4         128 high 2    192 scales   208 d                     210
 *   IQ4_XS    0 d     2 scales  8 low 4                                            136
 *
 * A plane of 4 bits. A chunk is 16 bytes for 32 elements (run 16, drawn here) in blocks of 32 and in IQ4_XS, 32 bytes
 * for 64 in Q4_K and Q5_K, 64 bytes for 128 in Q6_K:
 *
 *   byte of the chunk    0      1      2              15
 *   bits 7..4         | q16  | q17  | q18  |  ...  | q31  |
 *   bits 3..0         | q0   | q1   | q2   |  ...  | q15  |
 *
 * A plane of 2 bits, run 32: the low bits of Q2_K and Q3_K, the high bits of Q6_K. 32 bytes for 128 elements; of Q6_K's
 * q, bits 5..4 are here and bits 3..0 in the plane above:
 *
 *   byte of the chunk    0      1                    31
 *   bits 7..6         | q96  | q97  |      ...      | q127 |
 *   bits 5..4         | q64  | q65  |      ...      | q95  |
 *   bits 3..2         | q32  | q33  |      ...      | q63  |
 *   bits 1..0         | q0   | q1   |      ...      | q31  |
 *
 * A plane of 1 bit, run 32: the high bits of Q3_K and Q5_K. Bit j of byte i belongs to element 32 j + i; 32 bytes are
 * the whole block. With run 1, in Q5_0 and Q5_1, the 4 bytes are a number of 32 bits whose bit i belongs to element i:
 *
 *   bit               7    6    5    4    3    2    1    0
 *   byte 0         | q7 | q6 | q5 | q4 | q3 | q2 | q1 | q0 |
 *   byte 1         | q15                    ...          q8 |
 */
#include "core/block.h"

#include "core/half.h"

#include <string.h>

enum { NONE = -1, Q8_SIGN = 0x80 };

struct plane {
    int16_t at; /* byte offset in the block */
    int8_t bits, run;
};

/* How the scales and minima of the groups lie in their bytes; block's are within the limits of the format. */
struct packing {
    void (*read)(const uint8_t *bytes, struct geul_block *block);
    void (*write)(const struct geul_block *block, uint8_t *bytes);
};

struct layout {
    struct geul_block_format format;
    int16_t d, m; /* byte offsets of the float16 values; NONE: not stored */
    struct plane low, high;
    uint8_t flip;                 /* what is stored is (q - q_low) ^ flip */
    int16_t scales;               /* byte offset */
    const struct packing *packed; /* NULL: one group, of scale 1 */
};

static uint16_t load_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static void store_u16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

/* ------------------------------------------------------------------------------------ scales -- */

/* Q2_K, 16 bytes: the scale in the low nibble, the minimum in the high one. */
static void read_nibble_pairs(const uint8_t *bytes, struct geul_block *block)
{
    for (int g = 0; g < 16; g++) {
        block->scale[g] = bytes[g] & 15;
        block->min[g] = bytes[g] >> 4;
    }
}

static void write_nibble_pairs(const struct geul_block *block, uint8_t *bytes)
{
    for (int g = 0; g < 16; g++)
        bytes[g] = (uint8_t)(block->scale[g] | block->min[g] << 4);
}

/* Q3_K, 12 bytes. s = scale + 32 has 6 bits, of which the low 4 come first:
 *
 *   bits                 7 6       5 4       3 2       1 0
 *   byte g, g < 8     |    s[8+g] 3..0    |     s[g] 3..0     |
 *   byte 8+g, g < 4   | s[12+g] | s[8+g]  | s[4+g]  |  s[g]   |   5..4 of each
 */
static void read_six_bits(const uint8_t *bytes, struct geul_block *block)
{
    for (int g = 0; g < 16; g++) {
        int low = bytes[g % 8] >> 4 * (g / 8) & 15, high = bytes[8 + g % 4] >> 2 * (g / 4) & 3;
        block->scale[g] = (int16_t)((low | high << 4) - 32);
    }
}

static void write_six_bits(const struct geul_block *block, uint8_t *bytes)
{
    memset(bytes, 0, 12);
    for (int g = 0; g < 16; g++) {
        int s = block->scale[g] + 32;
        bytes[g % 8] = (uint8_t)(bytes[g % 8] | (s & 15) << 4 * (g / 8));
        bytes[8 + g % 4] = (uint8_t)(bytes[8 + g % 4] | (s >> 4) << 2 * (g / 4));
    }
}

/* Q4_K and Q5_K, 12 bytes. Scales s and minima m have 6 bits; groups 0..3 have theirs whole in the first 8 bytes, and
 * groups 4..7 use what is left. g < 4:
 *
 *   bits            7   6       5   4     3   2   1   0
 *   byte g       | s[4+g] 5..4 |        s[g] 5..0        |
 *   byte 4+g     | m[4+g] 5..4 |        m[g] 5..0        |
 *   byte 8+g     |     m[4+g] 3..0     |   s[4+g] 3..0   |
 */
static void read_six_bit_pairs(const uint8_t *bytes, struct geul_block *block)
{
    for (int g = 0; g < 4; g++) {
        block->scale[g] = bytes[g] & 63;
        block->min[g] = bytes[4 + g] & 63;
        block->scale[4 + g] = (int16_t)((bytes[8 + g] & 15) | (bytes[g] >> 6) << 4);
        block->min[4 + g] = (int16_t)(bytes[8 + g] >> 4 | (bytes[4 + g] >> 6) << 4);
    }
}

static void write_six_bit_pairs(const struct geul_block *block, uint8_t *bytes)
{
    for (int g = 0; g < 4; g++) {
        int s = block->scale[4 + g], m = block->min[4 + g];
        bytes[g] = (uint8_t)(block->scale[g] | (s >> 4) << 6);
        bytes[4 + g] = (uint8_t)(block->min[g] | (m >> 4) << 6);
        bytes[8 + g] = (uint8_t)((s & 15) | (m & 15) << 4);
    }
}

/* Q6_K: 16 int8. */
static void read_bytes(const uint8_t *bytes, struct geul_block *block)
{
    for (int g = 0; g < 16; g++)
        block->scale[g] = (int8_t)bytes[g];
}

static void write_bytes(const struct geul_block *block, uint8_t *bytes)
{
    for (int g = 0; g < 16; g++)
        bytes[g] = (uint8_t)block->scale[g];
}

/* IQ4_XS, 6 bytes. s = scale + 32 has 6 bits, of which the high 2 come first:
 *
 *   bits                 7 6       5 4       3 2       1 0
 *   byte b, b < 2     | s[4b+3] | s[4b+2] | s[4b+1] |  s[4b]  |   5..4 of each
 *   byte 2+b, b < 4   |   s[2b+1] 3..0    |    s[2b] 3..0     |
 */
static void read_split_six_bits(const uint8_t *bytes, struct geul_block *block)
{
    for (int g = 0; g < 8; g++) {
        int low = bytes[2 + g / 2] >> 4 * (g % 2) & 15, high = bytes[g / 4] >> 2 * (g % 4) & 3;
        block->scale[g] = (int16_t)((low | high << 4) - 32);
    }
}

static void write_split_six_bits(const struct geul_block *block, uint8_t *bytes)
{
    memset(bytes, 0, 6);
    for (int g = 0; g < 8; g++) {
        int s = block->scale[g] + 32;
        bytes[2 + g / 2] = (uint8_t)(bytes[2 + g / 2] | (s & 15) << 4 * (g % 2));
        bytes[g / 4] = (uint8_t)(bytes[g / 4] | (s >> 4) << 2 * (g % 4));
    }
}

/* ----------------------------------------------------------------------------------- layouts -- */

/* The 16 levels of the IQ4 types: closer together round zero, where the weights are. */
static const int8_t iq4_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

static const struct packing nibble_pairs = {read_nibble_pairs, write_nibble_pairs},
                            six_bits = {read_six_bits, write_six_bits},
                            six_bit_pairs = {read_six_bit_pairs, write_six_bit_pairs},
                            int8s = {read_bytes, write_bytes},
                            split_six_bits = {read_split_six_bits, write_split_six_bits};

/* Members in the order of the structs: {block, group, q_low, q_high, scale_low, scale_high, min_high, codebook}, d, m,
 * low plane {at, bits, run}, high plane, flip, scales, packed. */
static const struct layout layouts[GEUL_TYPE_COUNT] = {
    [GEUL_TYPE_Q8_0] = {{32, 32, -128, 127, 1, 1, 0, NULL}, 0, NONE, {2, 8, 32}, {0, 0, 0}, Q8_SIGN, NONE, NULL},
    [GEUL_TYPE_Q4_0] = {{32, 32, -8, 7, 1, 1, 0, NULL}, 0, NONE, {2, 4, 16}, {0, 0, 0}, 0, NONE, NULL},
    [GEUL_TYPE_Q4_1] = {{32, 32, 0, 15, 1, 1, 1, NULL}, 0, 2, {4, 4, 16}, {0, 0, 0}, 0, NONE, NULL},
    [GEUL_TYPE_Q5_0] = {{32, 32, -16, 15, 1, 1, 0, NULL}, 0, NONE, {6, 4, 16}, {2, 1, 1}, 0, NONE, NULL},
    [GEUL_TYPE_Q5_1] = {{32, 32, 0, 31, 1, 1, 1, NULL}, 0, 2, {8, 4, 16}, {4, 1, 1}, 0, NONE, NULL},
    [GEUL_TYPE_Q2_K] = {{256, 16, 0, 3, 0, 15, 15, NULL}, 80, 82, {16, 2, 32}, {0, 0, 0}, 0, 0, &nibble_pairs},
    [GEUL_TYPE_Q3_K] = {{256, 16, -4, 3, -32, 31, 0, NULL}, 108, NONE, {32, 2, 32}, {0, 1, 32}, 0, 96, &six_bits},
    [GEUL_TYPE_Q4_K] = {{256, 32, 0, 15, 0, 63, 63, NULL}, 0, 2, {16, 4, 32}, {0, 0, 0}, 0, 4, &six_bit_pairs},
    [GEUL_TYPE_Q5_K] = {{256, 32, 0, 31, 0, 63, 63, NULL}, 0, 2, {48, 4, 32}, {16, 1, 32}, 0, 4, &six_bit_pairs},
    [GEUL_TYPE_Q6_K] = {{256, 16, -32, 31, -128, 127, 0, NULL}, 208, NONE, {0, 4, 64}, {128, 2, 32}, 0, 192, &int8s},
    [GEUL_TYPE_IQ4_NL] = {{32, 32, 0, 15, 1, 1, 0, iq4_levels}, 0, NONE, {2, 4, 16}, {0, 0, 0}, 0, NONE, NULL},
    [GEUL_TYPE_IQ4_XS] =
        {{256, 32, 0, 15, -32, 31, 0, iq4_levels}, 0, NONE, {8, 4, 16}, {0, 0, 0}, 0, 2, &split_six_bits},
};

const struct geul_block_format *geul_block_format(enum geul_type type)
{
    return (unsigned)type < GEUL_TYPE_COUNT && layouts[type].format.block ? &layouts[type].format : NULL;
}

/* Loops of exactly 16 become vector instructions: groups are multiples of 16, and so are runs, or they are 1. What a
 * layout loses or writes twice, tests/core/test_block.c finds (block_packing_gives_back_every_byte). */

/* Bits of 16 bytes from bit `down` on into bit `to` of 16 q and above. Bit 0 overwrites what q held; a higher plane is
 * added to what the lower one left. */
static void read_16(const uint8_t *src, int down, uint8_t mask, int to, int16_t *q)
{
    uint8_t code[16];
    for (int i = 0; i < 16; i++)
        code[i] = (uint8_t)((uint8_t)(src[i] >> down) & mask);
    if (to == 0)
        for (int i = 0; i < 16; i++)
            q[i] = code[i];
    else
        for (int i = 0; i < 16; i++)
            q[i] = (int16_t)(q[i] | (int16_t)code[i] << to);
}

static void write_16(const uint8_t *code, int down, int mask, int up, uint8_t *dst)
{
    for (int i = 0; i < 16; i++)
        dst[i] = (uint8_t)(dst[i] | (code[i] >> down & mask) << up);
}

/* The plane's bits, moved to bit `to`, into the n elements of q; the plane for bit 0 has to be read first. A plane of
 * run 1 is never that one. */
static void read_plane(struct plane p, const uint8_t *src, int n, int to, int16_t *q)
{
    uint8_t mask = (uint8_t)((1 << p.bits) - 1);
    for (int16_t *end = q + n; q < end; src += p.run)
        for (int down = 0; down < 8; down += p.bits, q += p.run) {
            for (int i = 0; i + 16 <= p.run; i += 16)
                read_16(src + i, down, mask, to, q + i);
            if (p.run == 1)
                *q = (int16_t)((to ? *q : 0) | (*src >> down & mask) << to);
        }
}

/* Adds bits `from` and above of the n codes to the plane's bytes, which were zero. */
static void write_plane(struct plane p, const uint8_t *code, int n, int from, uint8_t *dst)
{
    int mask = (1 << p.bits) - 1;
    for (const uint8_t *end = code + n; code < end; dst += p.run)
        for (int up = 0; up < 8; up += p.bits, code += p.run) {
            for (int i = 0; i + 16 <= p.run; i += 16)
                write_16(code + i, from, mask, up, dst + i);
            if (p.run == 1)
                *dst = (uint8_t)(*dst | (*code >> from & mask) << up);
        }
}

void geul_block_unpack(enum geul_type type, const void *bytes, struct geul_block *block)
{
    const struct layout *l = &layouts[type];
    const struct geul_block_format *f = &l->format;
    const uint8_t *src = bytes;
    block->d = geul_f16_to_f32(load_u16(src + l->d));
    block->m = l->m == NONE ? 0.0f : geul_f16_to_f32(load_u16(src + l->m));
    if (f->min_high == 1) /* the file's m is added, block.h's is subtracted */
        block->m = -block->m;
    for (int g = 0; g < f->block / f->group; g++) {
        block->scale[g] = 1;
        block->min[g] = f->min_high == 1;
    }
    if (l->packed)
        l->packed->read(src + l->scales, block);
    read_plane(l->low, src + l->low.at, f->block, 0, block->q);
    if (l->high.bits)
        read_plane(l->high, src + l->high.at, f->block, l->low.bits, block->q);
    /* q holds the stored codes, which are unsigned */
    for (int16_t *q = block->q; q < block->q + f->block; q += 16)
        for (int i = 0; i < 16; i++)
            q[i] = (int16_t)((q[i] ^ l->flip) + f->q_low);
}

void geul_block_pack(enum geul_type type, const struct geul_block *block, void *bytes)
{
    const struct layout *l = &layouts[type];
    const struct geul_block_format *f = &l->format;
    uint8_t *dst = bytes, code[GEUL_BLOCK_MAX];
    for (int k = 0; k < f->block; k += 16)
        for (int i = k; i < k + 16; i++)
            code[i] = (uint8_t)((block->q[i] - f->q_low) ^ l->flip);
    memset(dst, 0, geul_type_bytes(type)); /* the planes' bits are or-ed in */
    store_u16(dst + l->d, geul_f32_to_f16(block->d));
    if (l->m != NONE)
        store_u16(dst + l->m, geul_f32_to_f16(f->min_high == 1 ? -block->m : block->m));
    if (l->packed)
        l->packed->write(block, dst + l->scales);
    write_plane(l->low, code, f->block, 0, dst + l->low.at);
    if (l->high.bits)
        write_plane(l->high, code, f->block, l->low.bits, dst + l->high.at);
}

/* d has 11 bits, scale and v have 13 together at most: every product is exact in float32, and only the difference is
 * rounded. */
void geul_block_values(const struct geul_block_format *format, const struct geul_block *block, float *x)
{
    for (int k = 0; k < format->block; k += 16) {
        int g = k / format->group;
        float d = block->d * (float)block->scale[g], m = format->min_high ? block->m * (float)block->min[g] : 0.0f;
        if (format->codebook)
            for (int i = k; i < k + 16; i++)
                x[i] = d * (float)format->codebook[block->q[i]] - m;
        else
            for (int i = k; i < k + 16; i++)
                x[i] = d * (float)block->q[i] - m;
    }
}
