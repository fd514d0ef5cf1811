/* unpack_avx512.h: rows of every block type into panels of unsigned bytes. Static: see kernels_float.h.
 *
 * A panel holds, for every 32 values of MR weight rows: words s = 0..7 (values 4s..4s+3 of row 0, of row 1, ...), then
 * the rows' scales and, for types with a minimum, their minima: one each, or two for types that change them every 16
 * values. Bytes are read 16 per row and transposed (rows16), so that 16 rows are unpacked by the same operations. */
#include "backends/cpu/unroll.h"

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

enum {
    BLOCK = 32,
    SUPER = 256,
    ROWS = 2, /* vectors of 16 weight rows */
    MR = 16 * ROWS,
    WEIGHT_BYTES = BLOCK * MR,
    LARGEST_BLOCK = 210
};

/* 16 rows of one or more blocks in memory, and what to prefetch: in the order of memory, a line with about every line
 * that is read, so that prefetches never stall. */
struct source {
    const uint8_t *p;
    size_t stride;
    const uint8_t *next; /* to prefetch */
};

/* Bytes at..at+15 of rows 0..15: words[c] gets bytes at+4c..at+4c+3 of every row. */
INLINE void rows16(__m512i words[4], struct source *from, size_t at)
{
    __m512i r[4];
    UNROLL for (size_t j = 0; j < 4; j++)
    {
        r[j] = four_rows(from->p + at, from->stride, j);
        __builtin_prefetch(from->next);
        from->next += 64;
    }
    transpose_lanes(words, r[0], r[1], r[2], r[3]);
}

/* The float16 at byte `at` of every row. */
INLINE __m512 f16_rows(const struct source *from, size_t at)
{
    const uint8_t *p = from->p + at;
    size_t stride = from->stride;
    __m128i low = _mm_setzero_si128(), high = _mm_setzero_si128();
    uint16_t h;
#define ROW(r)                                                                                                         \
    memcpy(&h, p + (r)*stride, 2);                                                                                     \
    low = _mm_insert_epi16(low, h, r);                                                                                 \
    memcpy(&h, p + ((r) + 8) * stride, 2);                                                                             \
    high = _mm_insert_epi16(high, h, r);
    ROW(0)
    ROW(1)
    ROW(2)
    ROW(3)
    ROW(4)
    ROW(5)
    ROW(6)
    ROW(7)
#undef ROW
    return _mm512_cvtph_ps(_mm256_set_m128i(high, low));
}

/* The word at byte `at` of every row. */
INLINE __m512i words16(const struct source *from, size_t at)
{
    const uint8_t *p = from->p + at;
    size_t stride = from->stride;
    int32_t w[16];
    UNROLL for (size_t r = 0; r < 16; r++) memcpy(&w[r], p + r * stride, 4);
    return _mm512_setr_epi32(w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8], w[9], w[10], w[11], w[12], w[13],
                             w[14], w[15]);
}

/* The float16 in the low or high half of every word. */
INLINE __m512 low_f16(__m512i v)
{
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v));
}

INLINE __m512 high_f16(__m512i v)
{
    return low_f16(_mm512_srli_epi32(v, 16));
}

INLINE __m512i bytes(int value)
{
    return _mm512_set1_epi8((char)value);
}

/* Bits from..from+n-1 of every byte. */
INLINE __m512i bits(__m512i v, int from, int n)
{
    return _mm512_and_si512(from ? _mm512_srli_epi32(v, (unsigned)from) : v, bytes((1 << n) - 1));
}

/* The same, moved to bit `to`. */
INLINE __m512i bits_to(__m512i v, int from, int n, int to)
{
    __m512i moved = from > to   ? _mm512_srli_epi32(v, (unsigned)(from - to))
                    : from < to ? _mm512_slli_epi32(v, (unsigned)(to - from))
                                : v;
    return _mm512_and_si512(moved, bytes(((1 << n) - 1) << to));
}

/* Byte i of every word, as float; with a sign or without. */
INLINE __m512 unsigned_byte(__m512i v, int i)
{
    return _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_srli_epi32(v, (unsigned)(8 * i)), _mm512_set1_epi32(255)));
}

INLINE __m512 signed_byte(__m512i v, int i)
{
    return _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(v, (unsigned)(24 - 8 * i)), 24));
}

/* out: a block of the panel, moved by 64 bytes for the second 16 rows. */
INLINE void store_word(uint8_t *out, int s, __m512i v)
{
    _mm512_storeu_si512(out + s * MR * 4, v);
}

/* i: which of the block's scales, or of its minima, which follow them. */
INLINE void store_scale(uint8_t *out, int i, __m512 v)
{
    _mm512_storeu_ps((float *)(out + WEIGHT_BYTES) + i * MR, v);
}

/* The panel bytes of a 4-bit index: its value from a table, or itself plus an offset. */
struct nibbles {
    bool table;
    int offset;
};

INLINE __m512i nibble_value(__m512i v, struct nibbles how)
{
    static const int8_t iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    if (how.table)
        return _mm512_xor_si512(_mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const void *)iq4)), v),
                                bytes(-128));
    return how.offset ? _mm512_add_epi8(v, bytes(how.offset)) : v;
}

/* 16 bytes of nibbles: the low ones are values 0..15, the high ones 16..31. */
INLINE void store_nibbles(uint8_t *out, struct source *from, size_t at, struct nibbles how)
{
    __m512i words[4];
    rows16(words, from, at);
    UNROLL for (int s = 0; s < 4; s++)
    {
        store_word(out, s, nibble_value(bits(words[s], 0, 4), how));
        store_word(out, s + 4, nibble_value(bits(words[s], 4, 4), how));
    }
}

/* The same with a fifth bit: bit i of high belongs to value i. */
INLINE void store_nibbles5(uint8_t *out, struct source *from, size_t at, __m512i high, int offset)
{
    /* Entry i: the four bits of i, one per byte, at bit 4. */
    const __m512i spread =
        _mm512_setr_epi32(0, 0x10, 0x1000, 0x1010, 0x100000, 0x100010, 0x101000, 0x101010, 0x10000000, 0x10000010,
                          0x10001000, 0x10001010, 0x10100000, 0x10100010, 0x10101000, 0x10101010);
    __m512i words[4];
    rows16(words, from, at);
    UNROLL for (int s = 0; s < 8; s++)
    {
        __m512i fifth = _mm512_permutexvar_epi32(_mm512_srli_epi32(high, (unsigned)(4 * s)), spread);
        __m512i q = _mm512_or_si512(s < 4 ? bits(words[s], 0, 4) : bits(words[s - 4], 4, 4), fifth);
        store_word(out, s, offset ? _mm512_add_epi8(q, bytes(offset)) : q);
    }
}

/* -------------------------------------------------- 16 rows of one block or super-block each -- */

INLINE void sixteen_q8_0(uint8_t *out, struct source *from)
{
    store_scale(out, 0, f16_rows(from, 0));
    UNROLL for (int c = 0; c < 2; c++)
    {
        __m512i words[4];
        rows16(words, from, (size_t)(2 + 16 * c));
        UNROLL for (int s = 0; s < 4; s++) store_word(out, 4 * c + s, _mm512_xor_si512(words[s], bytes(-128)));
    }
}

INLINE void sixteen_q4_0(uint8_t *out, struct source *from)
{
    store_scale(out, 0, f16_rows(from, 0));
    store_nibbles(out, from, 2, (struct nibbles){false, 128 - 8});
}

INLINE void sixteen_iq4_nl(uint8_t *out, struct source *from)
{
    store_scale(out, 0, f16_rows(from, 0));
    store_nibbles(out, from, 2, (struct nibbles){true, 0});
}

/* d and m of the types whose value is d * q + m: the panel subtracts its minimum, so it gets -m. */
INLINE void store_affine(uint8_t *out, struct source *from)
{
    __m512i head = words16(from, 0);
    store_scale(out, 0, low_f16(head));
    store_scale(out, 1, _mm512_sub_ps(_mm512_setzero_ps(), high_f16(head)));
}

INLINE void sixteen_q4_1(uint8_t *out, struct source *from)
{
    store_affine(out, from);
    store_nibbles(out, from, 4, (struct nibbles){false, 0});
}

INLINE void sixteen_q5_0(uint8_t *out, struct source *from)
{
    store_scale(out, 0, f16_rows(from, 0));
    store_nibbles5(out, from, 6, words16(from, 2), 128 - 16);
}

INLINE void sixteen_q5_1(uint8_t *out, struct source *from)
{
    store_affine(out, from);
    store_nibbles5(out, from, 8, words16(from, 4), 0);
}

/* d, dmin and the 6-bit scales and minima that Q4_K and Q5_K begin with. */
INLINE void store_scales_k(uint8_t *out, size_t step, struct source *from)
{
    __m512i head[4];
    rows16(head, from, 0);
    __m512 d = low_f16(head[0]), dmin = high_f16(head[0]);
    __m512i scale[2] = {bits(head[1], 0, 6), _mm512_or_si512(bits(head[3], 0, 4), bits_to(head[1], 6, 2, 4))};
    __m512i min[2] = {bits(head[2], 0, 6), _mm512_or_si512(bits(head[3], 4, 4), bits_to(head[2], 6, 2, 4))};
    UNROLL for (int i = 0; i < 8; i++)
    {
        store_scale(out + (size_t)i * step, 0, _mm512_mul_ps(d, unsigned_byte(scale[i / 4], i % 4)));
        store_scale(out + (size_t)i * step, 1, _mm512_mul_ps(dmin, unsigned_byte(min[i / 4], i % 4)));
    }
}

enum { STEP_1 = WEIGHT_BYTES + MR * 4, STEP_2 = STEP_1 + MR * 4, STEP_4 = STEP_2 + 2 * MR * 4 };

INLINE void sixteen_q4_k(uint8_t *out, struct source *from)
{
    store_scales_k(out, STEP_2, from);
    for (int i = 0; i < 8; i++) { /* 16 bytes: half a block by low nibbles, half of the next by high ones */
        __m512i words[4];
        uint8_t *block = out + (size_t)(i / 2 * 2) * STEP_2;
        rows16(words, from, (size_t)(16 + 16 * i));
        UNROLL for (int s = 0; s < 4; s++)
        {
            store_word(block, i % 2 * 4 + s, bits(words[s], 0, 4));
            store_word(block + STEP_2, i % 2 * 4 + s, bits(words[s], 4, 4));
        }
    }
}

INLINE void sixteen_q5_k(uint8_t *out, struct source *from)
{
    store_scales_k(out, STEP_2, from);
    for (int c = 0; c < 2; c++) { /* 16 values of every block; bit i of a byte of high is the fifth of block i */
        __m512i high[4];
        rows16(high, from, (size_t)(16 + 16 * c));
        UNROLL for (int j = 0; j < 4; j++)
        {
            __m512i words[4];
            uint8_t *block = out + (size_t)(2 * j) * STEP_2;
            rows16(words, from, (size_t)(48 + 32 * j + 16 * c));
            UNROLL for (int s = 0; s < 4; s++)
            {
                store_word(block, 4 * c + s, _mm512_or_si512(bits(words[s], 0, 4), bits_to(high[s], 2 * j, 1, 4)));
                store_word(block + STEP_2, 4 * c + s,
                           _mm512_or_si512(bits(words[s], 4, 4), bits_to(high[s], 2 * j + 1, 1, 4)));
            }
        }
    }
}

INLINE void sixteen_q6_k(uint8_t *out, struct source *from)
{
    __m512i scale[4];
    __m512 d = f16_rows(from, 208);
    rows16(scale, from, 192);
    UNROLL for (int i = 0; i < 16; i++)
        store_scale(out + (size_t)(i / 2) * STEP_2, i % 2, _mm512_mul_ps(d, signed_byte(scale[i / 4], i % 4)));
    for (int i = 0; i < 4; i++) { /* 16 values of four blocks */
        int h = i / 2, c = i % 2;
        __m512i a[4], b[4], high[4];
        uint8_t *block = out + (size_t)(4 * h) * STEP_2;
        rows16(a, from, (size_t)(64 * h + 16 * c));
        rows16(b, from, (size_t)(64 * h + 32 + 16 * c));
        rows16(high, from, (size_t)(128 + 32 * h + 16 * c));
        UNROLL for (int s = 0; s < 4; s++)
        {
            __m512i q[4] = {_mm512_or_si512(bits(a[s], 0, 4), bits_to(high[s], 0, 2, 4)),
                            _mm512_or_si512(bits(b[s], 0, 4), bits_to(high[s], 2, 2, 4)),
                            _mm512_or_si512(bits(a[s], 4, 4), bits_to(high[s], 4, 2, 4)),
                            _mm512_or_si512(bits(b[s], 4, 4), bits_to(high[s], 6, 2, 4))};
            UNROLL for (int j = 0; j < 4; j++)
                store_word(block + (size_t)j * STEP_2, 4 * c + s, _mm512_add_epi8(q[j], bytes(128 - 32)));
        }
    }
}

INLINE void sixteen_q3_k(uint8_t *out, struct source *from)
{
    __m512i r[4], head[4];
    UNROLL for (size_t j = 0; j < 4; j++) /* the last 14 bytes: 12 of scales, then d */
        r[j] = _mm512_bsrli_epi128(four_rows(from->p + 94, from->stride, j), 2);
    transpose_lanes(head, r[0], r[1], r[2], r[3]);
    __m512 d = low_f16(head[3]);
    UNROLL for (int i = 0; i < 4; i++)
    {
        __m512i six = _mm512_or_si512(bits(head[i % 2], i / 2 * 4, 4), bits_to(head[2], 2 * i, 2, 4));
        UNROLL for (int j = 0; j < 4; j++)
            store_scale(out + (size_t)(2 * i + j / 2) * STEP_2, j % 2,
                        _mm512_mul_ps(d, _mm512_sub_ps(unsigned_byte(six, j), _mm512_set1_ps(32))));
    }
    for (int c = 0; c < 2; c++) { /* 16 values of every block; bit i of a byte of high is the third of block i */
        __m512i high[4];
        rows16(high, from, (size_t)(16 * c));
        UNROLL for (int h = 0; h < 2; h++)
        {
            __m512i words[4];
            rows16(words, from, (size_t)(32 + 32 * h + 16 * c));
            UNROLL for (int s = 0; s < 4; s++) UNROLL for (int j = 0; j < 4; j++)
            {
                __m512i q = _mm512_or_si512(bits(words[s], 2 * j, 2), bits_to(high[s], 4 * h + j, 1, 2));
                store_word(out + (size_t)(4 * h + j) * STEP_2, 4 * c + s, _mm512_add_epi8(q, bytes(128 - 4)));
            }
        }
    }
}

INLINE void sixteen_q2_k(uint8_t *out, struct source *from)
{
    __m512i head[4], ends = words16(from, 80);
    __m512 d = low_f16(ends), dmin = high_f16(ends);
    rows16(head, from, 0);
    UNROLL for (int i = 0; i < 16; i++)
    {
        uint8_t *block = out + (size_t)(i / 2) * STEP_4;
        store_scale(block, i % 2, _mm512_mul_ps(d, unsigned_byte(bits(head[i / 4], 0, 4), i % 4)));
        store_scale(block, 2 + i % 2, _mm512_mul_ps(dmin, unsigned_byte(bits(head[i / 4], 4, 4), i % 4)));
    }
    for (int i = 0; i < 4; i++) { /* 16 values of four blocks */
        int h = i / 2, c = i % 2;
        __m512i words[4];
        rows16(words, from, (size_t)(16 + 32 * h + 16 * c));
        UNROLL for (int s = 0; s < 4; s++) UNROLL for (int j = 0; j < 4; j++)
            store_word(out + (size_t)(4 * h + j) * STEP_4, 4 * c + s, bits(words[s], 2 * j, 2));
    }
}

INLINE void sixteen_iq4_xs(uint8_t *out, struct source *from)
{
    __m512i head[4], low = _mm512_set1_epi32(15), high = _mm512_set1_epi32(3);
    rows16(head, from, 0);
    __m512 d = low_f16(head[0]);
    for (int i = 0; i < 8; i++) {
        __m512i six = _mm512_or_si512(
            _mm512_and_si512(_mm512_srli_epi32(head[1], (unsigned)(4 * i)), low),
            _mm512_slli_epi32(_mm512_and_si512(_mm512_srli_epi32(head[0], (unsigned)(16 + 2 * i)), high), 4));
        uint8_t *block = out + (size_t)i * STEP_1;
        store_scale(block, 0, _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_sub_epi32(six, _mm512_set1_epi32(32)))));
        store_nibbles(block, from, (size_t)(8 + 16 * i), (struct nibbles){true, 0});
    }
}

typedef void sixteen(uint8_t *out, struct source *from);

/* Whole panels: k values of rows <= MR rows. Missing rows at the edge become blocks of zero bytes, d included, so that
 * their scales are 0. An incomplete set of 16 rows is copied first: nothing is read beyond the rows of the matrix. */
INLINE void pack_rows(uint8_t *out, const uint8_t *w, size_t stride, int rows, size_t k, size_t block, size_t bytes_of,
                      size_t step, sixteen *unpack, struct geul_cpu_prefetch *prefetch)
{
    uint8_t copy[16 * LARGEST_BLOCK];
    for (size_t i = 0; i < k / block; i++, w += bytes_of, out += block / BLOCK * step)
        for (int v = 0; v < ROWS; v++) {
            int here = rows - 16 * v < 16 ? rows - 16 * v : 16;
            struct source from = {w + (size_t)v * 16 * stride, stride, prefetch ? prefetch->at : w};
            if (here < 16) {
                memset(copy, 0, sizeof copy);
                for (int r = 0; r < here; r++)
                    memcpy(copy + (size_t)r * bytes_of, from.p + (size_t)r * stride, bytes_of);
                from.p = copy;
                from.stride = bytes_of;
            }
            unpack(out + 64 * v, &from);
            if (!prefetch)
                continue;
            /* As many bytes as were read: what unpack, which prefetches whole lines, has left of them. */
            const uint8_t *end = prefetch->at + 16 * bytes_of;
            for (; from.next < end; from.next += 64)
                __builtin_prefetch(from.next);
            prefetch->at = end < prefetch->end ? end : prefetch->end;
        }
}

#define PACK(type, block, bytes_of, step)                                                                              \
    static void pack_##type(void *panel, const void *w, size_t stride, int rows, size_t k,                             \
                            struct geul_cpu_prefetch *prefetch)                                                        \
    {                                                                                                                  \
        pack_rows(panel, w, stride, rows, k, block, bytes_of, step, sixteen_##type, prefetch);                         \
    }
PACK(q8_0, BLOCK, 34, STEP_1)
PACK(q4_0, BLOCK, 18, STEP_1)
PACK(iq4_nl, BLOCK, 18, STEP_1)
PACK(q5_0, BLOCK, 22, STEP_1)
PACK(q4_1, BLOCK, 20, STEP_2)
PACK(q5_1, BLOCK, 24, STEP_2)
PACK(iq4_xs, SUPER, 136, STEP_1)
PACK(q4_k, SUPER, 144, STEP_2)
PACK(q5_k, SUPER, 176, STEP_2)
PACK(q6_k, SUPER, 210, STEP_2)
PACK(q3_k, SUPER, 110, STEP_2)
PACK(q2_k, SUPER, 84, STEP_4)
#undef PACK
