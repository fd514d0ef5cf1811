/* dot_avx512vnni.h: one token times weight rows read directly from the file's blocks, in the order of memory. Static:
 * see kernels_float.h.
 *
 * A row is taken in stretches of 16 groups (512 values, or 256 of types whose scales change every 16): a stretch gives
 * 16 whole-number products and 16 factors. Those of 16 rows are transposed, so that every row adds up its groups in the
 * order, and with the operations, of the panels: the same bits, at a third of the instructions. */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

enum { GROUPS = 16, WIDE = 512 };

/* One stretch of the token. */
struct stretch {
    int8_t q[WIDE];        /* types whose scales change every 16 values use half */
    int32_t start[GROUPS]; /* -offset * sum of the group, where weights are unsigned by an offset */
    float scale[GROUPS];
    float sum[GROUPS]; /* scale * sum */
};

/* What a row's stretch is: values = factor * product - min * sum. */
struct terms {
    __m512i product;
    __m512 scale, min;
};

typedef struct terms row_terms(const uint8_t *row, const struct stretch *x, const uint8_t **next);

INLINE void pack_stretches(struct stretch *out, const float *x, size_t k, const size_t values, const int offset)
{
    const int parts = values == WIDE ? 1 : 2; /* groups of a block of 32 */
    for (size_t i = 0; i < k / BLOCK; i++) {
        struct stretch *at = &out[i * BLOCK / values];
        size_t block = i % (values / BLOCK);
        __m256i q;
        float scale = quantize32(x + i * BLOCK, &q);
        __m128i halves = sums16(q);
        int32_t sum[2] = {_mm_cvtsi128_si32(halves), _mm_extract_epi32(halves, 2)};
        _mm256_storeu_si256((void *)(at->q + block * BLOCK), q);
        if (parts == 1)
            sum[0] += sum[1];
        for (int p = 0; p < parts; p++) {
            size_t g = block * (size_t)parts + (size_t)p;
            at->start[g] = -offset * sum[p];
            at->scale[g] = scale;
            at->sum[g] = scale * (float)sum[p];
        }
    }
}

/* Sums of the words in each 128-bit lane: word j of lane l gets that of lane l of v[j]. */
INLINE __m512i sum_lanes(const __m512i v[4])
{
    __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

/* Sums of 16 groups of 32 values: halves of v[0], of v[1], ... */
INLINE __m512i sum_halves(const __m512i v[8])
{
    __m512i a = sum_lanes(v), b = sum_lanes(v + 4);
    __m512i s = _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
    return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15), s);
}

/* Sums of 16 groups of 16 values: quarters of v[0], of v[1], ... */
INLINE __m512i sum_quarters(const __m512i v[4])
{
    return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),
                                    sum_lanes(v));
}

INLINE void prefetch_lines(const uint8_t **next, int lines)
{
    UNROLL for (int i = 0; i < lines; i++) __builtin_prefetch(*next + 64 * i);
    *next += 64 * lines;
}

INLINE __m512i times(__m512i w, const struct stretch *x, int i)
{
    return _mm512_dpbusd_epi32(_mm512_setzero_si512(), w, _mm512_loadu_si512(x->q + 64 * i));
}

/* 32 bytes, twice; and two times 16 bytes, each twice. */
INLINE __m512i twice32(const uint8_t *p)
{
    return _mm512_broadcast_i64x4(_mm256_loadu_si256((const void *)p));
}

INLINE __m512i twice16(const uint8_t *p, size_t distance)
{
    __m256i v = _mm256_castsi128_si256(_mm_loadu_si128((const void *)p));
    v = _mm256_inserti128_si256(v, _mm_loadu_si128((const void *)(p + distance)), 1);
    return _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 1, 0, 1, 2, 3, 2, 3), _mm512_castsi256_si512(v));
}

INLINE struct terms row_q8_0(const uint8_t *row, const struct stretch *x, const uint8_t **next)
{
    __m512i v[8];
    UNROLL for (int i = 0; i < 8; i++)
    {
        const uint8_t *p = row + 68 * i + 2;
        __m512i w = _mm512_castsi256_si512(_mm256_loadu_si256((const void *)p));
        w = _mm512_inserti64x4(w, _mm256_loadu_si256((const void *)(p + 34)), 1);
        v[i] = times(_mm512_xor_si512(w, bytes(-128)), x, i);
        prefetch_lines(next, 1);
    }
    const struct source blocks = {row, 34, NULL};
    return (struct terms){.product = sum_halves(v), .scale = f16_rows(&blocks, 0)};
}

INLINE struct terms row_q4_0(const uint8_t *row, const struct stretch *x, const uint8_t **next)
{
    const __m512i shift = _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4);
    __m512i v[8];
    UNROLL for (int i = 0; i < 8; i++)
    {
        __m512i w = _mm512_srlv_epi64(twice16(row + 36 * i + 2, 18), shift);
        v[i] = times(_mm512_and_si512(w, bytes(15)), x, i);
        if (i % 2 == 0)
            prefetch_lines(next, 1);
    }
    const struct source blocks = {row, 18, NULL};
    return (struct terms){.product = sum_halves(v), .scale = f16_rows(&blocks, 0)};
}

/* 16 bytes as floats, times a and b, 8 each. */
INLINE __m512 scaled_bytes(uint64_t low, uint64_t high, float a, float b)
{
    __m512i v = _mm512_cvtepu8_epi32(_mm_set_epi64x((long long)high, (long long)low));
    __m512 factor = _mm512_insertf32x8(_mm512_set1_ps(a), _mm256_set1_ps(b), 1);
    return _mm512_mul_ps(factor, _mm512_cvtepi32_ps(v));
}

INLINE float f16_at(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return _cvtsh_ss(h);
}

/* d, dmin, scales and minima of two super-blocks of Q4_K or Q5_K, `bytes_of` apart. */
INLINE void scales_k(struct terms *t, const uint8_t *p, size_t bytes_of)
{
    uint64_t scale[2], min[2];
    UNROLL for (size_t i = 0; i < 2; i++)
    {
        uint32_t w[3];
        memcpy(w, p + i * bytes_of + 4, sizeof w);
        scale[i] = (w[0] & 0x3f3f3f3f) | (uint64_t)((w[2] & 0x0f0f0f0f) | (w[0] >> 2 & 0x30303030)) << 32;
        min[i] = (w[1] & 0x3f3f3f3f) | (uint64_t)((w[2] >> 4 & 0x0f0f0f0f) | (w[1] >> 2 & 0x30303030)) << 32;
    }
    t->scale = scaled_bytes(scale[0], scale[1], f16_at(p), f16_at(p + bytes_of));
    t->min = scaled_bytes(min[0], min[1], f16_at(p + 2), f16_at(p + bytes_of + 2));
}

INLINE struct terms row_q4_k(const uint8_t *row, const struct stretch *x, const uint8_t **next)
{
    const __m512i shift = _mm512_setr_epi64(0, 0, 0, 0, 4, 4, 4, 4);
    struct terms t;
    __m512i v[8];
    UNROLL for (int i = 0; i < 8; i++)
    {
        const uint8_t *p = row + i / 4 * 144 + 16 + i % 4 * 32;
        v[i] = times(_mm512_and_si512(_mm512_srlv_epi64(twice32(p), shift), bytes(15)), x, i);
        if (i % 2 == 0)
            prefetch_lines(next, 1);
    }
    t.product = sum_halves(v);
    scales_k(&t, row, 144);
    return t;
}

INLINE struct terms row_q5_k(const uint8_t *row, const struct stretch *x, const uint8_t **next)
{
    const __m512i shift = _mm512_setr_epi64(0, 0, 0, 0, 4, 4, 4, 4);
    struct terms t;
    __m512i v[8];
    UNROLL for (int i = 0; i < 8; i++)
    {
        const uint8_t *block = row + i / 4 * 176;
        int bit = i % 4 * 2; /* of the first half; that of the second is the next one */
        __m512i low = _mm512_and_si512(_mm512_srlv_epi64(twice32(block + 48 + i % 4 * 32), shift), bytes(15));
        __m512i high = _mm512_srlv_epi64(twice32(block + 16),
                                         _mm512_setr_epi64(bit, bit, bit, bit, bit + 1, bit + 1, bit + 1, bit + 1));
        high = _mm512_slli_epi32(_mm512_and_si512(high, bytes(1)), 4);
        v[i] = times(_mm512_or_si512(low, high), x, i);
        if (i % 4 != 3)
            prefetch_lines(next, 1);
    }
    t.product = sum_halves(v);
    scales_k(&t, row, 176);
    return t;
}

INLINE struct terms row_q6_k(const uint8_t *row, const struct stretch *x, const uint8_t **next)
{
    __m512i v[4];
    UNROLL for (int h = 0; h < 2; h++)
    {
        __m512i low = _mm512_loadu_si512(row + 64 * h), high = twice32(row + 128 + 32 * h);
        UNROLL for (int i = 0; i < 2; i++)
        {
            int bit = 4 * i;
            __m512i top =
                _mm512_srlv_epi64(high, _mm512_setr_epi64(bit, bit, bit, bit, bit + 2, bit + 2, bit + 2, bit + 2));
            top = _mm512_slli_epi32(_mm512_and_si512(top, bytes(3)), 4);
            v[2 * h + i] = times(_mm512_or_si512(bits(low, 4 * i, 4), top), x, 2 * h + i);
        }
        prefetch_lines(next, 1);
    }
    prefetch_lines(next, 1);
    __m512 scale = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)(row + 192))));
    return (struct terms){.product = sum_quarters(v), .scale = _mm512_mul_ps(_mm512_set1_ps(f16_at(row + 208)), scale)};
}

/* rows <= 16 rows; beyond them the last one is computed again. stretch_bytes: bytes of a stretch of one row. */
INLINE void dot_sixteen(float *out, const uint8_t *w, size_t stride, const struct stretch *x, size_t stretches,
                        int rows, const float *start, size_t stretch_bytes, const bool has_min, row_terms *terms,
                        struct geul_cpu_prefetch *prefetch)
{
    __mmask16 here = (__mmask16)((1u << rows) - 1);
    __m512 sum = start ? _mm512_maskz_loadu_ps(here, start) : _mm512_setzero_ps();
    for (size_t i = 0; i < stretches; i++, x++, w += stretch_bytes) {
        const uint8_t *next = prefetch->at, *end = prefetch->at + 16 * stretch_bytes;
        __m512 product[16], factor[16], min[16];
        __m512i from = _mm512_loadu_si512(x->start);
        const uint8_t *row = w;
        for (int r = 0; r < 16; r++, row += r < rows ? stride : 0) {
            struct terms t = terms(row, x, &next);
            product[r] = _mm512_cvtepi32_ps(_mm512_add_epi32(t.product, from));
            factor[r] = _mm512_mul_ps(t.scale, _mm512_loadu_ps(x->scale));
            if (has_min)
                min[r] = t.min;
        }
        for (; next < end; next += 64)
            __builtin_prefetch(next);
        prefetch->at = end < prefetch->end ? end : prefetch->end;
        turn(product, product);
        turn(factor, factor);
        if (has_min)
            turn(min, min);
        /* Lane r is row r: from here on what add_block() of the panels does, group by group. */
        UNROLL for (int g = 0; g < GROUPS; g++)
        {
            sum = _mm512_fmadd_ps(product[g], factor[g], sum);
            if (has_min)
                sum = _mm512_fnmadd_ps(min[g], _mm512_set1_ps(x->sum[g]), sum);
        }
    }
    _mm512_mask_storeu_ps(out, here, sum);
}

#define DOT(type, values, bytes_of, offset, has_min)                                                                   \
    static void pack_x_##type(void *packed, const float *x, size_t k)                                                  \
    {                                                                                                                  \
        pack_stretches(packed, x, k, values, offset);                                                                  \
    }                                                                                                                  \
    static void dot_##type(float *out, const void *w, size_t stride, const void *x, size_t k, int rows,                \
                           const float *start, struct geul_cpu_prefetch *prefetch)                                     \
    {                                                                                                                  \
        for (int r = 0; r < rows; r += 16)                                                                             \
            dot_sixteen(out + r, (const uint8_t *)w + (size_t)r * stride, stride, x, k / (values),                     \
                        rows - r < 16 ? rows - r : 16, start ? start + r : NULL, bytes_of, has_min, row_##type,        \
                        prefetch);                                                                                     \
    }                                                                                                                  \
    static const struct geul_cpu_dot type##_dot = {values, sizeof(struct stretch), pack_x_##type, dot_##type};
DOT(q8_0, WIDE, 16 * 34, 128, false)
DOT(q4_0, WIDE, 16 * 18, 8, false)
DOT(q4_k, WIDE, 2 * 144, 0, true)
DOT(q5_k, WIDE, 2 * 176, 0, true)
DOT(q6_k, SUPER, 210, 32, false)
#undef DOT
