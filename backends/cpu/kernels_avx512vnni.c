/* kernels_avx512vnni.c: int8 products by vpdpbusd (unsigned times signed bytes, four at a time into int32).
 *
 * Weights become unsigned by an offset, which a correction takes back: sum (w + o) x = sum w x + o sum x, so the int32
 * sums start from -o * sum x, known when the activations are packed. */
#include "backends/cpu/quantize_x86.h"

#include "backends/cpu/kernels.h"
#include "backends/cpu/unroll.h"
#include "backends/cpu/vector_avx512.h"

#include <string.h>

enum {
    BLOCK = 32,
    Q8_0_BYTES = 34,
    Q4_0_BYTES = 18,
    Q8_0_OFFSET = 128,
    Q4_0_OFFSET = 8,
    ROWS = 2, /* vectors of 16 weight rows */
    MR = 16 * ROWS,
    NR = 6
};

/* ------------------------------------------------------------------------------------------------- few tokens -- */

/* Two blocks of activations as the dot kernels want them. */
struct pair {
    int8_t q[2 * BLOCK];
    int32_t start[16]; /* -offset * sum in words 0 and 8 */
    float scale[16];   /* 8 times the one, 8 times the other */
};

INLINE void pack_pairs(void *packed, const float *x, size_t k, int offset)
{
    struct pair *p = packed;
    for (size_t i = 0; i < k / BLOCK; i++) {
        struct pair *at = &p[i / 2];
        size_t half = i % 2;
        __m256i q;
        if (half == 0)
            memset(at, 0, sizeof *at);
        _mm256_storeu_ps(at->scale + 8 * half, _mm256_set1_ps(quantize32(x + i * BLOCK, &q)));
        _mm256_storeu_si256((void *)(at->q + BLOCK * half), q);
        at->start[8 * half] = -offset * sum32(q);
    }
}

static void pack_pairs_q8_0(void *packed, const float *x, size_t k)
{
    pack_pairs(packed, x, k, Q8_0_OFFSET);
}

static void pack_pairs_q4_0(void *packed, const float *x, size_t k)
{
    pack_pairs(packed, x, k, Q4_0_OFFSET);
}

/* The unsigned bytes of a block, or of it and the next one. */
typedef __m512i unpacker(const uint8_t *block, bool two);

INLINE __m512i unpack_q8_0(const uint8_t *block, bool two)
{
    __m512i v = _mm512_zextsi256_si512(_mm256_loadu_si256((const void *)(block + 2)));
    if (two)
        v = _mm512_inserti64x4(v, _mm256_loadu_si256((const void *)(block + Q8_0_BYTES + 2)), 1);
    return _mm512_xor_si512(v, _mm512_set1_epi8(-128));
}

INLINE __m512i unpack_q4_0(const uint8_t *block, bool two)
{
    __m256i v = _mm256_zextsi128_si256(_mm_loadu_si128((const void *)(block + 2)));
    if (two)
        v = _mm256_inserti128_si256(v, _mm_loadu_si128((const void *)(block + Q4_0_BYTES + 2)), 1);
    __m512i twice = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 1, 0, 1, 2, 3, 2, 3), _mm512_zextsi256_si512(v));
    twice = _mm512_srlv_epi64(twice, _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4));
    return _mm512_and_si512(twice, _mm512_set1_epi8(15));
}

/* The scale of a block in 8 floats, and of the next in 8 more. */
INLINE __m512 scales(const uint8_t *block, size_t bytes, bool two)
{
    uint16_t a, b = 0;
    memcpy(&a, block, 2);
    if (two)
        memcpy(&b, block + bytes, 2);
    return _mm512_cvtph_ps(_mm256_mask_set1_epi16(_mm256_set1_epi16((short)a), 0xff00, (short)b));
}

INLINE __m512 add_pair(__m512 sum, const uint8_t *block, const struct pair *x, unpacker *unpack, size_t bytes, bool two)
{
    __m512i product = _mm512_dpbusd_epi32(_mm512_loadu_si512(x->start), unpack(block, two), _mm512_loadu_si512(x->q));
    __m512 factor = _mm512_mul_ps(scales(block, bytes, two), _mm512_loadu_ps(x->scale));
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(product), factor, sum);
}

INLINE void dot_rows(float *out, const uint8_t *w, size_t stride, const struct pair *x, size_t k, const int R,
                     unpacker *unpack, size_t bytes)
{
    const size_t ahead = geul_cpu_ahead(stride);
    __m512 sum[4];
    size_t blocks = k / BLOCK;
    UNROLL for (int r = 0; r < R; r++) sum[r] = _mm512_setzero_ps();
    for (size_t i = 0; i + 2 <= blocks; i += 2)
        UNROLL for (int r = 0; r < R; r++)
        {
            const uint8_t *p = w + (size_t)r * stride + i * bytes;
            __builtin_prefetch(p + ahead);
            sum[r] = add_pair(sum[r], p, &x[i / 2], unpack, bytes, true);
        }
    UNROLL for (int r = 0; r < R; r++)
    {
        if (blocks % 2)
            sum[r] =
                add_pair(sum[r], w + (size_t)r * stride + (blocks - 1) * bytes, &x[blocks / 2], unpack, bytes, false);
        out[r] = _mm512_reduce_add_ps(sum[r]);
    }
}

INLINE void dot_blocks(float *out, const void *w, size_t stride, const void *x, size_t k, int rows, unpacker *unpack,
                       size_t bytes)
{
    int r = 0;
    for (; r + 4 <= rows; r += 4)
        dot_rows(out + r, (const uint8_t *)w + (size_t)r * stride, stride, x, k, 4, unpack, bytes);
    for (; r < rows; r++)
        dot_rows(out + r, (const uint8_t *)w + (size_t)r * stride, stride, x, k, 1, unpack, bytes);
}

static void dot_q8_0(float *out, const void *w, size_t stride, const void *x, size_t k, int rows)
{
    dot_blocks(out, w, stride, x, k, rows, unpack_q8_0, Q8_0_BYTES);
}

static void dot_q4_0(float *out, const void *w, size_t stride, const void *x, size_t k, int rows)
{
    dot_blocks(out, w, stride, x, k, rows, unpack_q4_0, Q4_0_BYTES);
}

/* ------------------------------------------------------------------------------------------------ many tokens -- */

/* One block of MR weight rows: w[s] holds bytes 4s..4s+3 of every row, plus 128. */
struct weights {
    uint8_t q[BLOCK / 4][MR * 4];
    float scale[MR];
};

/* One block of NR tokens. */
struct tokens {
    int32_t q[NR][BLOCK / 4]; /* four int8 each */
    int32_t start[NR];        /* -128 * sum */
    float scale[NR];
};

/* Both types get the offset of Q8_0, so that they share the kernel. low and high: words 0..3 and 4..7 of 16 rows. */
INLINE void store_words(struct weights *out, int v, const __m512i low[4], const __m512i high[4])
{
    for (int s = 0; s < 4; s++) {
        _mm512_storeu_si512(out->q[s] + 64 * v, low[s]);
        _mm512_storeu_si512(out->q[s + 4] + 64 * v, high[s]);
    }
}

INLINE void pack_sixteen_q8_0(struct weights *out, int v, const uint8_t *w, size_t stride)
{
    __m512i words[2][4], flip = _mm512_set1_epi8(-128);
    for (int h = 0; h < 2; h++) {
        const uint8_t *p = w + 2 + 16 * h;
        transpose_lanes(words[h], four_rows(p, stride, 0), four_rows(p, stride, 1), four_rows(p, stride, 2),
                        four_rows(p, stride, 3));
        for (int s = 0; s < 4; s++)
            words[h][s] = _mm512_xor_si512(words[h][s], flip);
    }
    store_words(out, v, words[0], words[1]);
}

INLINE void pack_sixteen_q4_0(struct weights *out, int v, const uint8_t *w, size_t stride)
{
    __m512i words[4], low[4], high[4], mask = _mm512_set1_epi8(15), to_128 = _mm512_set1_epi8(128 - Q4_0_OFFSET);
    const uint8_t *p = w + 2;
    transpose_lanes(words, four_rows(p, stride, 0), four_rows(p, stride, 1), four_rows(p, stride, 2),
                    four_rows(p, stride, 3));
    for (int s = 0; s < 4; s++) {
        low[s] = _mm512_add_epi8(_mm512_and_si512(words[s], mask), to_128);
        high[s] = _mm512_add_epi8(_mm512_and_si512(_mm512_srli_epi16(words[s], 4), mask), to_128);
    }
    store_words(out, v, low, high);
}

typedef void sixteen(struct weights *out, int v, const uint8_t *w, size_t stride);

/* Missing rows at the edge are blocks of zeros, scale included. */
INLINE void pack_blocks(struct weights *out, const uint8_t *w, size_t stride, int rows, size_t k, size_t bytes,
                        sixteen *pack)
{
    uint8_t copy[16 * Q8_0_BYTES];
    for (size_t i = 0; i < k / BLOCK; i++, out++)
        for (int v = 0; v < ROWS; v++) {
            const uint8_t *p = w + i * bytes + (size_t)v * 16 * stride;
            size_t step = stride;
            uint16_t d[16] = {0};
            int here = rows - 16 * v < 16 ? rows - 16 * v : 16;
            if (here < 16) {
                memset(copy, 0, sizeof copy);
                for (int r = 0; r < here; r++)
                    memcpy(copy + (size_t)r * bytes, p + (size_t)r * stride, bytes);
                p = copy;
                step = bytes;
            }
            for (size_t r = 0; r < 16; r++)
                memcpy(&d[r], p + r * step, 2);
            pack(out, v, p, step);
            _mm512_storeu_ps(out->scale + 16 * v, _mm512_cvtph_ps(_mm256_loadu_si256((const void *)d)));
        }
}

static void pack_q8_0(void *panel, const void *w, size_t stride, int rows, size_t k)
{
    pack_blocks(panel, w, stride, rows, k, Q8_0_BYTES, pack_sixteen_q8_0);
}

static void pack_q4_0(void *panel, const void *w, size_t stride, int rows, size_t k)
{
    pack_blocks(panel, w, stride, rows, k, Q4_0_BYTES, pack_sixteen_q4_0);
}

static void pack_tokens(void *packed, const float *x, size_t stride, int tokens, size_t k)
{
    struct tokens *out = packed;
    memset(out, 0, k / BLOCK * sizeof *out);
    for (int t = 0; t < tokens; t++) {
        const float *row = (const float *)((const uint8_t *)x + (size_t)t * stride);
        for (size_t i = 0; i < k / BLOCK; i++) {
            __m256i q;
            out[i].scale[t] = quantize32(row + i * BLOCK, &q);
            out[i].start[t] = -128 * sum32(q);
            _mm256_storeu_si256((void *)out[i].q[t], q);
        }
    }
}

static void tile(float *out, size_t out_stride, const void *panel, const void *packed, size_t k, const float *start)
{
    const struct weights *w = panel;
    const struct tokens *x = packed;
    __m512 sum[NR][ROWS];
    UNROLL for (size_t t = 0; t < NR; t++) UNROLL for (size_t v = 0; v < ROWS; v++) sum[t][v] =
        _mm512_loadu_ps((start ? start : out + t * out_stride) + 16 * v);
    for (size_t i = 0; i < k / BLOCK; i++, w++, x++) {
        __m512i product[NR][ROWS];
        UNROLL for (size_t t = 0; t < NR; t++) UNROLL for (size_t v = 0; v < ROWS; v++) product[t][v] =
            _mm512_set1_epi32(x->start[t]);
        UNROLL for (size_t s = 0; s < BLOCK / 4; s++)
        {
            __m512i w0 = _mm512_loadu_si512(w->q[s]), w1 = _mm512_loadu_si512(w->q[s] + 64);
            UNROLL for (size_t t = 0; t < NR; t++)
            {
                __m512i four = _mm512_set1_epi32(x->q[t][s]);
                product[t][0] = _mm512_dpbusd_epi32(product[t][0], w0, four);
                product[t][1] = _mm512_dpbusd_epi32(product[t][1], w1, four);
            }
        }
        UNROLL for (size_t v = 0; v < ROWS; v++)
        {
            __m512 scale = _mm512_loadu_ps(w->scale + 16 * v);
            UNROLL for (size_t t = 0; t < NR; t++) sum[t][v] = _mm512_fmadd_ps(
                _mm512_cvtepi32_ps(product[t][v]), _mm512_mul_ps(scale, _mm512_set1_ps(x->scale[t])), sum[t][v]);
        }
    }
    UNROLL for (size_t t = 0; t < NR; t++) UNROLL for (size_t v = 0; v < ROWS; v++)
        _mm512_storeu_ps(out + t * out_stride + 16 * v, sum[t][v]);
}

static uint64_t peak_int8(uint64_t rounds)
{
    enum { N = 12 };
    volatile int sink;
    __m512i sum[N], a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(-2);
    UNROLL for (int j = 0; j < N; j++) sum[j] = _mm512_set1_epi32(j);
    for (uint64_t i = 0; i < rounds; i++) {
        UNROLL for (int j = 0; j < N; j++) sum[j] = _mm512_dpbusd_epi32(sum[j], a, b);
        __asm__ volatile("" : "+v"(a));
    }
    UNROLL for (int j = 0; j < N; j++) sink = _mm512_reduce_add_epi32(sum[j]);
    (void)sink;
    return rounds * N * 64;
}

static const struct geul_cpu_dot q8_0_dot = {2 * BLOCK, sizeof(struct pair), pack_pairs_q8_0, dot_q8_0};
static const struct geul_cpu_dot q4_0_dot = {2 * BLOCK, sizeof(struct pair), pack_pairs_q4_0, dot_q4_0};

#define BLOCK_PANEL(type)                                                                                              \
    {                                                                                                                  \
        .mr = MR, .nr = NR, .min_tokens = 3, .k_block = 1024, .k_step = BLOCK, .w_step = sizeof(struct weights),       \
        .x_step = sizeof(struct tokens), .pack_w = pack_##type, .pack_x = pack_tokens, .tile = tile                    \
    }
static const struct geul_cpu_panel q8_0_panel = BLOCK_PANEL(q8_0), q4_0_panel = BLOCK_PANEL(q4_0);

const struct geul_cpu_kernels geul_cpu_kernels_avx512vnni = {
    .dot = {[GEUL_TYPE_Q8_0] = &q8_0_dot, [GEUL_TYPE_Q4_0] = &q4_0_dot},
    .panel = {[GEUL_TYPE_Q8_0] = &q8_0_panel, [GEUL_TYPE_Q4_0] = &q4_0_panel},
    .peak_int8 = peak_int8,
};
