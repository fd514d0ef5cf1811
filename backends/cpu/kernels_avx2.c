/* kernels_avx2.c: AVX2, FMA, F16C: the float32 kernels, 8 wide, and int8 products.
 *
 * vpmaddubsw multiplies unsigned by signed bytes and adds pairs in int16, which may not overflow: nibbles of Q4_0 are
 * small enough to add up a whole block that way; bytes of Q8_0 are widened to int16 for vpmaddwd instead. */
#include "backends/cpu/quantize_x86.h"

#include <stddef.h>
#include <string.h>

#define VF_WIDTH   8
#define VF_ROWS    2
#define VF_TOKENS  6
#define VF_QUERIES 2
#define VF_MIX     2
#include "backends/cpu/vector_avx2.h"
#include "backends/cpu/kernels_float.h"
#include "backends/cpu/search_lanes.h"

enum { BLOCK = 32, Q8_0_BYTES = 34, Q4_0_BYTES = 18, Q4_0_OFFSET = 8, MR = 16, NR = 6 };

INLINE __m256i load_bytes(const void *p)
{
    return _mm256_loadu_si256(p);
}

/* ------------------------------------------------------------------------------------- many tokens, both types -- */

/* The scales of MR rows into out, 0 for missing ones. */
INLINE void pack_scales(float *out, const uint8_t *w, size_t stride, int rows)
{
    for (int r = 0; r < MR; r++) {
        uint16_t d = 0;
        if (r < rows)
            memcpy(&d, w + (size_t)r * stride, 2);
        out[r] = _cvtsh_ss(d);
    }
}

/* sum[t][r] (NR, MR) from start or out, and back. */
INLINE void load_sums(float (*sum)[MR], const float *out, size_t out_stride, const float *start, size_t tokens)
{
    for (size_t t = 0; t < NR; t++)
        memcpy(sum[t], start ? start : out + (t < tokens ? t : 0) * out_stride, sizeof sum[t]);
}

INLINE void store_sums(float *out, size_t out_stride, float (*sum)[MR], size_t tokens)
{
    for (size_t t = 0; t < tokens; t++)
        memcpy(out + t * out_stride, sum[t], sizeof sum[t]);
}

/* sum[t] += product[t] * the rows' scales * the token's scale. */
INLINE void add_product(float (*sum)[MR], __m256i (*product)[2], const float *w_scale, const float *x_scale)
{
    UNROLL for (size_t v = 0; v < 2; v++)
    {
        vf scales = vf_load(w_scale + 8 * v);
        UNROLL for (size_t t = 0; t < NR; t++)
        {
            float *s = sum[t] + 8 * v;
            vf factor = vf_mul(scales, vf_set1(x_scale[t]));
            vf_store(s, vf_fma(_mm256_cvtepi32_ps(product[t][v]), factor, vf_load(s)));
        }
    }
}

/* ------------------------------------------------------------------------------------------- many tokens, Q8_0 -- */

struct wide_weights { /* a block of MR rows: pairs of int16 */
    int32_t pair[BLOCK / 2][MR];
    float scale[MR];
};
struct wide_tokens {
    int32_t pair[NR][BLOCK / 2];
    float scale[NR];
};

static void pack_q8_0(void *panel, const void *w, size_t stride, int rows, size_t k, struct geul_cpu_ahead *ahead)
{
    (void)ahead;
    struct wide_weights *out = panel;
    for (size_t i = 0; i < k / BLOCK; i++, out++) {
        const uint8_t *block = (const uint8_t *)w + i * Q8_0_BYTES;
        pack_scales(out->scale, block, stride, rows);
        int32_t buffer[8][BLOCK / 2];
        for (int v = 0; v < 2; v++) {
            for (int r = 0; r < 8; r++) {
                int row = 8 * v + r;
                const uint8_t *p = block + (size_t)row * stride + 2;
                __m256i q = row < rows ? load_bytes(p) : _mm256_setzero_si256();
                _mm256_storeu_si256((void *)&buffer[r][0], _mm256_cvtepi8_epi16(_mm256_castsi256_si128(q)));
                _mm256_storeu_si256((void *)&buffer[r][8], _mm256_cvtepi8_epi16(_mm256_extracti128_si256(q, 1)));
            }
            for (int c = 0; c < BLOCK / 2; c += 4)
                vf_transpose4(&buffer[0][c], sizeof buffer[0], &out->pair[c][8 * v], sizeof out->pair[0]);
        }
    }
}

static void pack_x_q8_0(void *packed, const float *x, size_t stride, int tokens, size_t k)
{
    struct wide_tokens *out = packed;
    memset(out, 0, k / BLOCK * sizeof *out);
    for (int t = 0; t < tokens; t++)
        for (size_t i = 0; i < k / BLOCK; i++) {
            __m256i q;
            out[i].scale[t] = quantize32((const float *)at(x, (size_t)t, stride) + i * BLOCK, &q);
            _mm256_storeu_si256((void *)&out[i].pair[t][0], _mm256_cvtepi8_epi16(_mm256_castsi256_si128(q)));
            _mm256_storeu_si256((void *)&out[i].pair[t][8], _mm256_cvtepi8_epi16(_mm256_extracti128_si256(q, 1)));
        }
}

static void tile_q8_0(float *out, size_t out_stride, const void *panel, const void *packed, size_t k,
                      const float *start, int tokens)
{
    const struct wide_weights *w = panel;
    const struct wide_tokens *x = packed;
    _Alignas(32) float sum[NR][MR];
    load_sums(sum, out, out_stride, start, (size_t)tokens);
    for (size_t i = 0; i < k / BLOCK; i++, w++, x++) {
        __m256i product[NR][2];
        UNROLL for (size_t t = 0; t < NR; t++) product[t][0] = product[t][1] = _mm256_setzero_si256();
        for (size_t s = 0; s < BLOCK / 2; s++) {
            __m256i w0 = load_bytes(&w->pair[s][0]), w1 = load_bytes(&w->pair[s][8]);
            UNROLL for (size_t t = 0; t < NR; t++)
            {
                __m256i two = _mm256_set1_epi32(x->pair[t][s]);
                product[t][0] = _mm256_add_epi32(product[t][0], _mm256_madd_epi16(w0, two));
                product[t][1] = _mm256_add_epi32(product[t][1], _mm256_madd_epi16(w1, two));
            }
        }
        add_product(sum, product, w->scale, x->scale);
    }
    store_sums(out, out_stride, sum, (size_t)tokens);
}

/* ------------------------------------------------------------------------------------------- many tokens, Q4_0 -- */

struct nibble_weights { /* a block of MR rows: four bytes 0..15 */
    int32_t four[BLOCK / 4][MR];
    float scale[MR];
};
struct byte_tokens {
    int32_t four[NR][BLOCK / 4];
    float scale[NR];
    int32_t start[NR]; /* -8 * sum */
};

static void pack_q4_0(void *panel, const void *w, size_t stride, int rows, size_t k, struct geul_cpu_ahead *ahead)
{
    (void)ahead;
    const __m256i mask = _mm256_set1_epi8(15);
    struct nibble_weights *out = panel;
    for (size_t i = 0; i < k / BLOCK; i++, out++) {
        const uint8_t *block = (const uint8_t *)w + i * Q4_0_BYTES;
        pack_scales(out->scale, block, stride, rows);
        uint8_t buffer[8][16] = {{0}};
        for (int v = 0; v < 2; v++) {
            __m256i words[4];
            for (int r = 0; r < 8 && 8 * v + r < rows; r++)
                memcpy(buffer[r], block + (size_t)(8 * v + r) * stride + 2, 16);
            transpose_lanes(words, two_rows(buffer[0], 16, 0), two_rows(buffer[0], 16, 1), two_rows(buffer[0], 16, 2),
                            two_rows(buffer[0], 16, 3));
            for (int s = 0; s < 4; s++) {
                __m256i high = _mm256_and_si256(_mm256_srli_epi16(words[s], 4), mask);
                _mm256_storeu_si256((void *)&out->four[s][8 * v], _mm256_and_si256(words[s], mask));
                _mm256_storeu_si256((void *)&out->four[s + 4][8 * v], high);
            }
        }
    }
}

static void pack_x_q4_0(void *packed, const float *x, size_t stride, int tokens, size_t k)
{
    struct byte_tokens *out = packed;
    memset(out, 0, k / BLOCK * sizeof *out);
    for (int t = 0; t < tokens; t++)
        for (size_t i = 0; i < k / BLOCK; i++) {
            __m256i q;
            out[i].scale[t] = quantize32((const float *)at(x, (size_t)t, stride) + i * BLOCK, &q);
            out[i].start[t] = -Q4_0_OFFSET * sum32(q);
            _mm256_storeu_si256((void *)out[i].four[t], q);
        }
}

static void tile_q4_0(float *out, size_t out_stride, const void *panel, const void *packed, size_t k,
                      const float *start, int tokens)
{
    const struct nibble_weights *w = panel;
    const struct byte_tokens *x = packed;
    _Alignas(32) float sum[NR][MR];
    load_sums(sum, out, out_stride, start, (size_t)tokens);
    for (size_t i = 0; i < k / BLOCK; i++, w++, x++) {
        __m256i product[NR][2];
        UNROLL for (size_t t = 0; t < NR; t++) product[t][0] = product[t][1] = _mm256_setzero_si256();
        /* int16 sums: 8 steps of at most 2 * 15 * 127 */
        for (size_t s = 0; s < BLOCK / 4; s++) {
            __m256i w0 = load_bytes(&w->four[s][0]), w1 = load_bytes(&w->four[s][8]);
            UNROLL for (size_t t = 0; t < NR; t++)
            {
                __m256i four = _mm256_set1_epi32(x->four[t][s]);
                product[t][0] = _mm256_add_epi16(product[t][0], _mm256_maddubs_epi16(w0, four));
                product[t][1] = _mm256_add_epi16(product[t][1], _mm256_maddubs_epi16(w1, four));
            }
        }
        UNROLL for (size_t t = 0; t < NR; t++) UNROLL for (size_t v = 0; v < 2; v++) product[t][v] =
            _mm256_add_epi32(_mm256_madd_epi16(product[t][v], _mm256_set1_epi16(1)), _mm256_set1_epi32(x->start[t]));
        add_product(sum, product, w->scale, x->scale);
    }
    store_sums(out, out_stride, sum, (size_t)tokens);
}

/* vpmaddubsw and the addition it needs, as in tile_q4_0. */
static uint64_t peak_int8(uint64_t rounds)
{
    enum { N = 12 };
    volatile int sink;
    __m256i sum[N], a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-2);
    UNROLL for (int j = 0; j < N; j++) sum[j] = _mm256_set1_epi32(j);
    for (uint64_t i = 0; i < rounds; i++)
        UNROLL for (int j = 0; j < N; j++)
        {
            __asm__ volatile("" : "+x"(a));
            sum[j] = _mm256_add_epi16(sum[j], _mm256_maddubs_epi16(a, b));
        }
    UNROLL for (int j = 0; j < N; j++) sink = _mm256_extract_epi32(sum[j], 0);
    (void)sink;
    return rounds * N * 32;
}

static const struct geul_cpu_panel q8_0_panel = {.mr = MR,
                                                 .nr = NR,
                                                 .k_block = 512,
                                                 .k_step = BLOCK,
                                                 .w_step = sizeof(struct wide_weights),
                                                 .x_step = sizeof(struct wide_tokens),
                                                 .pack_w = pack_q8_0,
                                                 .pack_x = pack_x_q8_0,
                                                 .tile = tile_q8_0};
static const struct geul_cpu_panel q4_0_panel = {.mr = MR,
                                                 .nr = NR,
                                                 .k_block = 1024,
                                                 .k_step = BLOCK,
                                                 .w_step = sizeof(struct nibble_weights),
                                                 .x_step = sizeof(struct byte_tokens),
                                                 .pack_w = pack_q4_0,
                                                 .pack_x = pack_x_q4_0,
                                                 .tile = tile_q4_0};

const struct geul_cpu_kernels geul_cpu_kernels_avx2 = {
    FLOAT_KERNELS,
    .search = search,
    .panel = {FLOAT_PANELS, [GEUL_TYPE_Q8_0] = &q8_0_panel, [GEUL_TYPE_Q4_0] = &q4_0_panel},
    .peak_int8 = peak_int8,
};
