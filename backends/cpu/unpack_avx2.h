/* unpack_avx2.h: rows of every block type into panels for AVX2. Static: see kernels_float.h.
 *
 * A panel holds, for every 32 values of MR weight rows, words of all rows, which lie MR * 4 bytes apart: 0..7 the
 * values as bytes (4s..4s+3 of row 0, of row 1, ...; unsigned, or signed for types of 8 bits), 8 the scale, 9 the
 * minimum; or, for types that change scales every 16 values, 8 the common factor, 9 and 10 the whole scales of the
 * halves as pairs of equal int16, 11 and 12 the minima. Bytes are read 16 per row and transposed (rows8), so that 8
 * rows are unpacked by the same operations. */
#include "backends/cpu/unroll.h"

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

enum {
    BLOCK = 32,
    SUPER = 256,
    ROWS = 2, /* vectors of 8 weight rows */
    MR = VF_WIDTH * ROWS,
    WORD = 4 * MR, /* bytes of a word of all rows */
    SCALE = 8,
    MIN = 9,
    PAIRS = 9,
    MINS = 11,
    STEP_1 = 9 * WORD,
    STEP_1M = 10 * WORD,
    STEP_2 = 11 * WORD,
    STEP_2M = 13 * WORD,
    LARGEST_BLOCK = 210
};

/* 8 rows of one or more blocks in memory, and what to prefetch: in the order of memory, a line with about every line
 * that is read, so that prefetches never stall. */
struct source {
    const uint8_t *p;
    size_t stride;
    const uint8_t *next; /* to prefetch */
};

/* Bytes at..at+15 of rows 0..7: words[c] gets bytes at+4c..at+4c+3 of every row. */
INLINE void rows8(__m256i words[4], struct source *from, size_t at)
{
    __m256i r[4];
    UNROLL for (size_t j = 0; j < 4; j++)
    {
        r[j] = two_rows(from->p + at, from->stride, j);
        if (j % 2)
            continue;
        __builtin_prefetch(from->next);
        from->next += 64;
    }
    transpose_lanes(words, r[0], r[1], r[2], r[3]);
}

/* The float16 at byte `at` of every row. */
INLINE __m256 f16_rows(const struct source *from, size_t at)
{
    uint16_t h[8];
    UNROLL for (size_t r = 0; r < 8; r++) memcpy(&h[r], from->p + at + r * from->stride, 2);
    return _mm256_cvtph_ps(_mm_setr_epi16((short)h[0], (short)h[1], (short)h[2], (short)h[3], (short)h[4], (short)h[5],
                                          (short)h[6], (short)h[7]));
}

/* The word at byte `at` of every row. */
INLINE __m256i words8(const struct source *from, size_t at)
{
    int32_t w[8];
    UNROLL for (size_t r = 0; r < 8; r++) memcpy(&w[r], from->p + at + r * from->stride, 4);
    return _mm256_setr_epi32(w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]);
}

/* The float16 in the high or low half of every word. */
INLINE __m256 high_f16(__m256i v)
{
    __m256i h = _mm256_srli_epi32(v, 16);
    return _mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1)));
}

INLINE __m256 low_f16(__m256i v)
{
    return high_f16(_mm256_slli_epi32(v, 16));
}

INLINE __m256i bytes(int value)
{
    return _mm256_set1_epi8((char)value);
}

/* Bits from..from+n-1 of every byte. */
INLINE __m256i bits(__m256i v, int from, int n)
{
    return _mm256_and_si256(from ? _mm256_srli_epi32(v, from) : v, bytes((1 << n) - 1));
}

/* The same, moved to bit `to`. */
INLINE __m256i bits_to(__m256i v, int from, int n, int to)
{
    __m256i moved = from > to ? _mm256_srli_epi32(v, from - to) : from < to ? _mm256_slli_epi32(v, to - from) : v;
    return _mm256_and_si256(moved, bytes(((1 << n) - 1) << to));
}

/* Byte i of every word, with a sign or without. */
INLINE __m256i unsigned_byte(__m256i v, int i)
{
    return _mm256_and_si256(_mm256_srli_epi32(v, 8 * i), _mm256_set1_epi32(255));
}

INLINE __m256i signed_byte(__m256i v, int i)
{
    return _mm256_srai_epi32(_mm256_slli_epi32(v, 24 - 8 * i), 24);
}

/* out: a block of the panel, moved by 32 bytes for the second 8 rows. */
INLINE void store_word(uint8_t *out, int i, __m256i v)
{
    _mm256_storeu_si256((void *)(out + i * WORD), v);
}

INLINE void store_float(uint8_t *out, int i, __m256 v)
{
    _mm256_storeu_ps((float *)(out + i * WORD), v);
}

/* scale: small whole numbers. */
INLINE void store_pair(uint8_t *out, int i, __m256i scale)
{
    store_word(out, i,
               _mm256_or_si256(_mm256_slli_epi32(scale, 16), _mm256_and_si256(scale, _mm256_set1_epi32(65535))));
}

/* 16 bytes of nibbles: the low ones are values 0..15, the high ones 16..31. */
INLINE void store_nibbles(uint8_t *out, struct source *from, size_t at)
{
    __m256i words[4];
    rows8(words, from, at);
    UNROLL for (int s = 0; s < 4; s++)
    {
        store_word(out, s, bits(words[s], 0, 4));
        store_word(out, s + 4, bits(words[s], 4, 4));
    }
}

/* The same as indices of the codebook of the IQ4 types. */
INLINE void store_codes(uint8_t *out, struct source *from, size_t at)
{
    const __m256i book = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113));
    __m256i words[4];
    rows8(words, from, at);
    UNROLL for (int s = 0; s < 4; s++)
    {
        store_word(out, s, _mm256_shuffle_epi8(book, bits(words[s], 0, 4)));
        store_word(out, s + 4, _mm256_shuffle_epi8(book, bits(words[s], 4, 4)));
    }
}

/* The same with a fifth bit: bit i of high belongs to value i. */
INLINE void store_nibbles5(uint8_t *out, struct source *from, size_t at, __m256i high)
{
    const __m256i spread = _mm256_set1_epi64x((int64_t)0x8040201008040201);
    __m256i words[4];
    rows8(words, from, at);
    UNROLL for (int j = 0; j < 4; j++) /* byte j of high has the bits of words 2j and 2j+1 */
    {
        __m256i byte = _mm256_shuffle_epi8(
            high, _mm256_add_epi8(bytes(j), _mm256_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c, 0, 0x04040404,
                                                              0x08080808, 0x0c0c0c0c)));
        UNROLL for (int s = 2 * j; s < 2 * j + 2; s++)
        {
            __m256i bit = s % 2 ? _mm256_shuffle_epi32(spread, 0xf5) : _mm256_shuffle_epi32(spread, 0xa0);
            __m256i fifth = _mm256_cmpeq_epi8(_mm256_and_si256(byte, bit), bit);
            store_word(out, s,
                       _mm256_or_si256(s < 4 ? bits(words[s], 0, 4) : bits(words[s - 4], 4, 4),
                                       _mm256_and_si256(fifth, bytes(16))));
        }
    }
}

/* --------------------------------------------------- 8 rows of one block or super-block each -- */

INLINE void eight_q8_0(uint8_t *out, struct source *from)
{
    store_float(out, SCALE, f16_rows(from, 0));
    UNROLL for (int c = 0; c < 2; c++)
    {
        __m256i words[4];
        rows8(words, from, (size_t)(2 + 16 * c));
        UNROLL for (int s = 0; s < 4; s++) store_word(out, 4 * c + s, words[s]);
    }
}

INLINE void eight_q4_0(uint8_t *out, struct source *from)
{
    store_float(out, SCALE, f16_rows(from, 0));
    store_nibbles(out, from, 2);
}

INLINE void eight_iq4_nl(uint8_t *out, struct source *from)
{
    store_float(out, SCALE, f16_rows(from, 0));
    store_codes(out, from, 2);
}

INLINE void eight_q5_0(uint8_t *out, struct source *from)
{
    store_float(out, SCALE, f16_rows(from, 0));
    store_nibbles5(out, from, 6, words8(from, 2));
}

/* A value is scale * q - min. The tile computes with q - offset (kernels_avx2.c), so the panel's minimum is smaller by
 * scale * offset. */
INLINE void store_affine(uint8_t *out, __m256 scale, __m256 min, int offset)
{
    store_float(out, SCALE, scale);
    store_float(out, MIN, offset ? _mm256_fnmadd_ps(scale, _mm256_set1_ps((float)offset), min) : min);
}

/* d and m of the types whose value is d * q + m. */
INLINE void store_sum(uint8_t *out, struct source *from, int offset)
{
    __m256i head = words8(from, 0);
    store_affine(out, low_f16(head), _mm256_sub_ps(_mm256_setzero_ps(), high_f16(head)), offset);
}

INLINE void eight_q4_1(uint8_t *out, struct source *from)
{
    store_sum(out, from, 0);
    store_nibbles(out, from, 4);
}

INLINE void eight_q5_1(uint8_t *out, struct source *from)
{
    store_sum(out, from, 16);
    store_nibbles5(out, from, 8, words8(from, 4));
}

/* d, dmin and the 6-bit scales and minima that Q4_K and Q5_K begin with. */
INLINE void store_scales_k(uint8_t *out, struct source *from, int offset)
{
    __m256i head[4];
    rows8(head, from, 0);
    __m256 d = low_f16(head[0]), dmin = high_f16(head[0]);
    __m256i scale[2] = {bits(head[1], 0, 6), _mm256_or_si256(bits(head[3], 0, 4), bits_to(head[1], 6, 2, 4))};
    __m256i min[2] = {bits(head[2], 0, 6), _mm256_or_si256(bits(head[3], 4, 4), bits_to(head[2], 6, 2, 4))};
    UNROLL for (int i = 0; i < 8; i++)
    {
        __m256 m = _mm256_cvtepi32_ps(unsigned_byte(min[i / 4], i % 4));
        store_affine(out + (size_t)i * STEP_1M,
                     _mm256_mul_ps(d, _mm256_cvtepi32_ps(unsigned_byte(scale[i / 4], i % 4))), _mm256_mul_ps(dmin, m),
                     offset);
    }
}

INLINE void eight_q4_k(uint8_t *out, struct source *from)
{
    store_scales_k(out, from, 0);
    for (int i = 0; i < 8; i++) { /* 16 bytes: half a block by low nibbles, half of the next by high ones */
        __m256i words[4];
        uint8_t *block = out + (size_t)(i / 2 * 2) * STEP_1M;
        rows8(words, from, (size_t)(16 + 16 * i));
        UNROLL for (int s = 0; s < 4; s++)
        {
            store_word(block, i % 2 * 4 + s, bits(words[s], 0, 4));
            store_word(block + STEP_1M, i % 2 * 4 + s, bits(words[s], 4, 4));
        }
    }
}

INLINE void eight_q5_k(uint8_t *out, struct source *from)
{
    store_scales_k(out, from, 16);
    for (int c = 0; c < 2; c++) { /* 16 values of every block; bit i of a byte of high is the fifth of block i */
        __m256i high[4];
        rows8(high, from, (size_t)(16 + 16 * c));
        UNROLL for (int j = 0; j < 4; j++)
        {
            __m256i words[4];
            uint8_t *block = out + (size_t)(2 * j) * STEP_1M;
            rows8(words, from, (size_t)(48 + 32 * j + 16 * c));
            UNROLL for (int s = 0; s < 4; s++)
            {
                store_word(block, 4 * c + s, _mm256_or_si256(bits(words[s], 0, 4), bits_to(high[s], 2 * j, 1, 4)));
                store_word(block + STEP_1M, 4 * c + s,
                           _mm256_or_si256(bits(words[s], 4, 4), bits_to(high[s], 2 * j + 1, 1, 4)));
            }
        }
    }
}

INLINE void eight_q6_k(uint8_t *out, struct source *from)
{
    __m256i scale[4];
    __m256 d = f16_rows(from, 208);
    rows8(scale, from, 192);
    UNROLL for (int i = 0; i < 16; i++)
    {
        uint8_t *block = out + (size_t)(i / 2) * STEP_2;
        store_pair(block, PAIRS + i % 2, signed_byte(scale[i / 4], i % 4));
        if (i % 2)
            store_float(block, SCALE, d);
    }
    for (int i = 0; i < 4; i++) { /* 16 values of four blocks */
        int h = i / 2, c = i % 2;
        __m256i a[4], b[4], high[4];
        uint8_t *block = out + (size_t)(4 * h) * STEP_2;
        rows8(a, from, (size_t)(64 * h + 16 * c));
        rows8(b, from, (size_t)(64 * h + 32 + 16 * c));
        rows8(high, from, (size_t)(128 + 32 * h + 16 * c));
        UNROLL for (int s = 0; s < 4; s++)
        {
            int at = 4 * c + s;
            store_word(block, at, _mm256_or_si256(bits(a[s], 0, 4), bits_to(high[s], 0, 2, 4)));
            store_word(block + STEP_2, at, _mm256_or_si256(bits(b[s], 0, 4), bits_to(high[s], 2, 2, 4)));
            store_word(block + 2 * STEP_2, at, _mm256_or_si256(bits(a[s], 4, 4), bits_to(high[s], 4, 2, 4)));
            store_word(block + 3 * STEP_2, at, _mm256_or_si256(bits(b[s], 4, 4), bits_to(high[s], 6, 2, 4)));
        }
    }
}

INLINE void eight_q3_k(uint8_t *out, struct source *from)
{
    __m256i r[4], head[4];
    UNROLL for (size_t j = 0; j < 4; j++) /* the last 14 bytes: 12 of scales, then d */
        r[j] = _mm256_bsrli_epi128(two_rows(from->p + 94, from->stride, j), 2);
    transpose_lanes(head, r[0], r[1], r[2], r[3]);
    __m256 d = low_f16(head[3]);
    UNROLL for (int i = 0; i < 4; i++)
    {
        __m256i six = _mm256_or_si256(bits(head[i % 2], i / 2 * 4, 4), bits_to(head[2], 2 * i, 2, 4));
        UNROLL for (int j = 0; j < 4; j++)
        {
            uint8_t *block = out + (size_t)(2 * i + j / 2) * STEP_2;
            store_pair(block, PAIRS + j % 2, _mm256_sub_epi32(unsigned_byte(six, j), _mm256_set1_epi32(32)));
            if (j % 2)
                store_float(block, SCALE, d);
        }
    }
    for (int c = 0; c < 2; c++) { /* 16 values of every block; bit i of a byte of high is the third of block i */
        __m256i high[4];
        rows8(high, from, (size_t)(16 * c));
        UNROLL for (int h = 0; h < 2; h++)
        {
            __m256i words[4];
            rows8(words, from, (size_t)(32 + 32 * h + 16 * c));
            UNROLL for (int s = 0; s < 4; s++) UNROLL for (int j = 0; j < 4; j++)
                store_word(out + (size_t)(4 * h + j) * STEP_2, 4 * c + s,
                           _mm256_or_si256(bits(words[s], 2 * j, 2), bits_to(high[s], 4 * h + j, 1, 2)));
        }
    }
}

INLINE void eight_q2_k(uint8_t *out, struct source *from)
{
    __m256i head[4], ends = words8(from, 80);
    __m256 d = low_f16(ends), dmin = high_f16(ends);
    rows8(head, from, 0);
    UNROLL for (int i = 0; i < 16; i++)
    {
        uint8_t *block = out + (size_t)(i / 2) * STEP_2M;
        __m256i min = unsigned_byte(bits(head[i / 4], 4, 4), i % 4);
        store_pair(block, PAIRS + i % 2, unsigned_byte(bits(head[i / 4], 0, 4), i % 4));
        store_float(block, MINS + i % 2, _mm256_mul_ps(dmin, _mm256_cvtepi32_ps(min)));
        if (i % 2)
            store_float(block, SCALE, d);
    }
    for (int i = 0; i < 4; i++) { /* 16 values of four blocks */
        int h = i / 2, c = i % 2;
        __m256i words[4];
        rows8(words, from, (size_t)(16 + 32 * h + 16 * c));
        UNROLL for (int s = 0; s < 4; s++) UNROLL for (int j = 0; j < 4; j++)
            store_word(out + (size_t)(4 * h + j) * STEP_2M, 4 * c + s, bits(words[s], 2 * j, 2));
    }
}

INLINE void eight_iq4_xs(uint8_t *out, struct source *from)
{
    __m256i head[4], low = _mm256_set1_epi32(15), high = _mm256_set1_epi32(3);
    rows8(head, from, 0);
    __m256 d = low_f16(head[0]);
    for (int i = 0; i < 8; i++) {
        __m256i six =
            _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi32(head[1], 4 * i), low),
                            _mm256_slli_epi32(_mm256_and_si256(_mm256_srli_epi32(head[0], 16 + 2 * i), high), 4));
        uint8_t *block = out + (size_t)i * STEP_1;
        store_float(block, SCALE, _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_sub_epi32(six, _mm256_set1_epi32(32)))));
        store_codes(block, from, (size_t)(8 + 16 * i));
    }
}

typedef void eight(uint8_t *out, struct source *from);

/* Whole panels: k values of rows <= MR rows. Missing rows at the edge become blocks of zero bytes, d included, so that
 * their values are 0. An incomplete set of 8 rows is copied first: nothing is read beyond the rows of the matrix. */
INLINE void pack_rows(uint8_t *out, const uint8_t *w, size_t stride, int rows, size_t k, size_t block, size_t bytes_of,
                      size_t step, eight *unpack, struct geul_cpu_prefetch *prefetch)
{
    uint8_t copy[VF_WIDTH * LARGEST_BLOCK];
    const uint8_t *fetched = prefetch ? prefetch->at : w, *end = fetched;
    for (int v = 0; v < ROWS; v++, w += VF_WIDTH * stride, rows -= VF_WIDTH) {
        struct source from = {w, stride, fetched};
        for (size_t i = 0; i < k / block; i++) {
            uint8_t *to = out + (size_t)v * VF_WIDTH * 4 + i * (block / BLOCK) * step;
            if (rows >= VF_WIDTH) {
                unpack(to, &from);
                from.p += bytes_of;
            } else {
                memset(copy, 0, sizeof copy);
                for (int r = 0; r < rows; r++)
                    memcpy(copy + (size_t)r * bytes_of, w + (size_t)r * stride + i * bytes_of, bytes_of);
                unpack(to, &(struct source){copy, bytes_of, fetched});
            }
            /* As many bytes as were read: what unpack, which prefetches whole lines, has left of them. */
            end += VF_WIDTH * bytes_of;
            for (; prefetch && from.next < end; from.next += 64)
                __builtin_prefetch(from.next);
        }
        fetched = from.next;
    }
    if (prefetch)
        prefetch->at = end < prefetch->end ? end : prefetch->end;
}

#define PACK(type, block, bytes_of, step)                                                                              \
    static void pack_##type(void *panel, const void *w, size_t stride, int rows, size_t k,                             \
                            struct geul_cpu_prefetch *prefetch)                                                        \
    {                                                                                                                  \
        pack_rows(panel, w, stride, rows, k, block, bytes_of, step, eight_##type, prefetch);                           \
    }
PACK(q8_0, BLOCK, 34, STEP_1)
PACK(q4_0, BLOCK, 18, STEP_1)
PACK(iq4_nl, BLOCK, 18, STEP_1)
PACK(q5_0, BLOCK, 22, STEP_1)
PACK(q4_1, BLOCK, 20, STEP_1M)
PACK(q5_1, BLOCK, 24, STEP_1M)
PACK(iq4_xs, SUPER, 136, STEP_1)
PACK(q4_k, SUPER, 144, STEP_1M)
PACK(q5_k, SUPER, 176, STEP_1M)
PACK(q6_k, SUPER, 210, STEP_2)
PACK(q3_k, SUPER, 110, STEP_2)
PACK(q2_k, SUPER, 84, STEP_2M)
#undef PACK
