/* kernels_avx512bf16.c: bfloat16 products by vdpbf16ps (two at a time into float32). The activations are rounded to
 * bfloat16 too, so this serves bfloat16 weights, and training with products of float32 rounded to bfloat16. */
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "backends/cpu/kernels.h"
#include "backends/cpu/unroll.h"
#include "backends/cpu/vector_avx512.h"

#include <string.h>

enum { ROWS = 2, MR = 16 * ROWS, NR = 12 };

/* One pair of values of every row: k_step 2. */
struct weights {
    uint32_t pair[MR];
};
struct tokens {
    uint32_t pair[NR];
};

/* Pair i of a row of k values; the last one may lack its second half. */
static uint32_t pair_at(const uint8_t *row, size_t i, size_t k)
{
    uint32_t v = 0;
    memcpy(&v, row + 4 * i, k - 2 * i < 2 ? 2 : 4);
    return v;
}

/* Whole vectors of 16 rows are transposed 4 pairs at a time; the end of k, and missing rows, pair by pair. */
static void pack_w(void *panel, const void *w, size_t stride, int rows, size_t k, struct geul_cpu_prefetch *prefetch)
{
    struct weights *out = panel;
    size_t pairs = (k + 1) / 2;
    for (int v = 0; v < ROWS; v++) {
        const uint8_t *p = (const uint8_t *)w + (size_t)v * 16 * stride;
        size_t i = 0;
        if (rows >= 16 * (v + 1))
            for (; 2 * (i + 4) <= k; i += 4) {
                if (prefetch)
                    geul_cpu_prefetch_bytes(prefetch, 16 * 16);
                vf_transpose4(p + 4 * i, stride, &out[i].pair[16 * v], sizeof *out);
            }
        for (; i < pairs; i++)
            for (int r = 0; r < 16; r++)
                out[i].pair[16 * v + r] = 16 * v + r < rows ? pair_at(p + (size_t)r * stride, i, k) : 0;
    }
}

static void pack_x(void *packed, const float *x, size_t stride, int tokens, size_t k)
{
    struct tokens *out = packed;
    size_t pairs = (k + 1) / 2;
    for (int t = 0; t < NR; t++) {
        const float *row = (const float *)((const uint8_t *)x + (size_t)t * stride);
        for (size_t i = 0; i < pairs; i += 8) {
            size_t left = k - 2 * i;
            uint32_t pair[8];
            __m512 v = t < tokens ? vf_load_n(row + 2 * i, left < 16 ? left : 16) : vf_zero();
            __m256bh h = _mm512_cvtneps_pbh(v);
            memcpy(pair, &h, sizeof pair);
            for (size_t j = 0; j < 8 && i + j < pairs; j++)
                out[i + j].pair[t] = pair[j];
        }
    }
}

/* Two vectors, rounded, as pairs: the first in the low halves, the second in the high ones. */
INLINE __m512i pairs_of(__m512 low, __m512 high)
{
    __m256i l, h;
    __m256bh rounded = _mm512_cvtneps_pbh(low);
    memcpy(&l, &rounded, sizeof l);
    rounded = _mm512_cvtneps_pbh(high);
    memcpy(&h, &rounded, sizeof h);
    return _mm512_or_si512(_mm512_cvtepu16_epi32(l), _mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

/* n <= 16 values of row i of k, zeros where there is none. */
INLINE __m512 outer_row(const float *x, size_t stride, size_t i, size_t k, size_t n)
{
    const float *row = (const float *)(const void *)((const uint8_t *)(const void *)x + i * stride);
    return i < k && n > 0 ? vf_load_n(row, n) : vf_zero();
}

static void pack_x_outer(void *packed, const float *x, size_t stride, int tokens, size_t k)
{
    uint32_t *out = packed;
    size_t n = (size_t)tokens;
    for (size_t i = 0; i < k; i += 2, out += NR)
        _mm512_mask_storeu_epi32(out, first(NR),
                                 pairs_of(outer_row(x, stride, i, k, n), outer_row(x, stride, i + 1, k, n)));
}

static void pack_w_outer_f32(void *panel, const void *w, size_t stride, int rows, size_t k)
{
    struct weights *out = panel;
    for (size_t i = 0; i < k; i += 2, out++)
        for (int v = 0; v < ROWS; v++) {
            const float *column = (const float *)w + 16 * v;
            size_t n = rows <= 16 * v ? 0 : rows - 16 * v < 16 ? (size_t)(rows - 16 * v) : 16;
            _mm512_storeu_si512(out->pair + 16 * v,
                                pairs_of(outer_row(column, stride, i, k, n), outer_row(column, stride, i + 1, k, n)));
        }
}

/* 16 rows at a time, 16 values of each rounded, then transposed as pairs. */
static void pack_w_f32(void *panel, const void *w, size_t stride, int rows, size_t k,
                       struct geul_cpu_prefetch *prefetch)
{
    struct weights *out = panel;
    for (int v = 0; v < ROWS; v++)
        for (size_t i = 0; i < k; i += 16) {
            uint32_t buffer[16][8], turned[8][16];
            size_t left = k - i < 16 ? k - i : 16;
            for (int r = 0; r < 16; r++) {
                const float *row = (const float *)(const void *)((const uint8_t *)w + (size_t)(16 * v + r) * stride);
                __m256bh h = _mm512_cvtneps_pbh(16 * v + r < rows ? vf_load_n(row + i, left) : vf_zero());
                memcpy(buffer[r], &h, sizeof h);
                if (prefetch)
                    geul_cpu_prefetch_bytes(prefetch, 64);
            }
            vf_transpose4(buffer[0], sizeof buffer[0], turned[0], sizeof turned[0]);
            vf_transpose4(buffer[0] + 4, sizeof buffer[0], turned[4], sizeof turned[0]);
            for (size_t j = 0; j < (left + 1) / 2; j++)
                memcpy(out[i / 2 + j].pair + 16 * v, turned[j], sizeof turned[j]);
        }
}

static inline __m512bh as_bf16(__m512i v)
{
    __m512bh h;
    memcpy(&h, &v, sizeof h);
    return h;
}

/* T of the tile's tokens, from number first on. */
INLINE void tile_part(float *out, size_t out_stride, const struct weights *w, const struct tokens *x, size_t k,
                      const float *start, size_t first, const size_t T)
{
    out += first * out_stride;
    __m512 sum[NR][ROWS];
    UNROLL for (size_t t = 0; t < T; t++) UNROLL for (size_t v = 0; v < ROWS; v++) sum[t][v] =
        _mm512_loadu_ps((start ? start : out + t * out_stride) + 16 * v);
    for (size_t i = 0; i < (k + 1) / 2; i++, w++, x++) {
        __m512bh w0 = as_bf16(_mm512_loadu_si512(w->pair)), w1 = as_bf16(_mm512_loadu_si512(w->pair + 16));
        UNROLL for (size_t t = 0; t < T; t++)
        {
            __m512bh two = as_bf16(_mm512_set1_epi32((int)x->pair[first + t]));
            sum[t][0] = _mm512_dpbf16_ps(sum[t][0], w0, two);
            sum[t][1] = _mm512_dpbf16_ps(sum[t][1], w1, two);
        }
    }
    UNROLL for (size_t t = 0; t < T; t++) UNROLL for (size_t v = 0; v < ROWS; v++)
        _mm512_storeu_ps(out + t * out_stride + 16 * v, sum[t][v]);
}

static void tile(float *out, size_t out_stride, const void *panel, const void *packed, size_t k, const float *start,
                 int tokens)
{
    size_t t = 0, n = (size_t)tokens;
    if (n == NR) {
        tile_part(out, out_stride, panel, packed, k, start, 0, NR);
        return;
    }
    for (; t + 4 <= n; t += 4)
        tile_part(out, out_stride, panel, packed, k, start, t, 4);
    for (; t + 2 <= n; t += 2)
        tile_part(out, out_stride, panel, packed, k, start, t, 2);
    if (t < n)
        tile_part(out, out_stride, panel, packed, k, start, t, 1);
}

/* --------------------------------------------------------------------------------- one token -- */

static void pack_token(void *packed, const float *x, size_t k)
{
    for (size_t i = 0; i < k; i += 16) {
        __m256bh h = _mm512_cvtneps_pbh(_mm512_loadu_ps(x + i));
        memcpy((uint8_t *)packed + 2 * i, &h, sizeof h);
    }
}

/* rows <= 16 rows, 32 values of each transposed, so that a vector holds a pair of every row: the sums of the panel, in
 * its order. Beyond rows the last one is read again. */
static void dot_sixteen(float *out, const uint8_t *w, size_t stride, const uint32_t *x, size_t k, int rows,
                        const float *start, struct geul_cpu_prefetch *prefetch)
{
    __m512 sum = start ? vf_load_n(start, (size_t)rows) : vf_zero();
    const uint8_t *next = prefetch->at;
    for (size_t i = 0; i < k / 2; i += 16) {
        __m512 pair[16];
        const uint8_t *row = w + 4 * i;
        UNROLL for (int r = 0; r < 16; r++)
        {
            pair[r] = _mm512_loadu_ps(row);
            row += r + 1 < rows ? stride : 0;
            __builtin_prefetch(next + 64 * r);
        }
        next += 64 * 16;
        turn(pair, pair);
        UNROLL for (int j = 0; j < 16; j++) sum = _mm512_dpbf16_ps(sum, as_bf16(_mm512_castps_si512(pair[j])),
                                                                   as_bf16(_mm512_set1_epi32((int)x[i + (size_t)j])));
    }
    vf_store_n(out, sum, (size_t)rows);
    prefetch->at = next < prefetch->end ? next : prefetch->end;
}

static void dot_rows(float *out, const void *w, size_t stride, const void *x, size_t k, int rows, const float *start,
                     struct geul_cpu_prefetch *prefetch)
{
    for (int r = 0; r < rows; r += 16)
        dot_sixteen(out + r, (const uint8_t *)w + (size_t)r * stride, stride, x, k, rows - r < 16 ? rows - r : 16,
                    start ? start + r : NULL, prefetch);
}

static uint64_t peak_bf16(uint64_t rounds)
{
    enum { N = 12 };
    volatile float sink;
    __m512 sum[N];
    __m512i a = _mm512_set1_epi16(0x3f80), b = _mm512_set1_epi16(0x3c00);
    UNROLL for (int j = 0; j < N; j++) sum[j] = _mm512_set1_ps((float)j);
    for (uint64_t i = 0; i < rounds; i++) {
        UNROLL for (int j = 0; j < N; j++) sum[j] = _mm512_dpbf16_ps(sum[j], as_bf16(a), as_bf16(b));
        __asm__ volatile("" : "+v"(a));
    }
    UNROLL for (int j = 0; j < N; j++) sink = _mm512_reduce_add_ps(sum[j]);
    (void)sink;
    return rounds * N * 32;
}

static const struct geul_cpu_panel bf16_panel = {.mr = MR,
                                                 .nr = NR,
                                                 .k_block = 512,
                                                 .k_step = 2,
                                                 .w_step = sizeof(struct weights),
                                                 .x_step = sizeof(struct tokens),
                                                 .pack_w = pack_w,
                                                 .pack_x = pack_x,
                                                 .tile = tile};

static const struct geul_cpu_panel rounded_panel = {.mr = MR,
                                                    .nr = NR,
                                                    .k_block = 512,
                                                    .k_step = 2,
                                                    .w_step = sizeof(struct weights),
                                                    .x_step = sizeof(struct tokens),
                                                    .pack_w = pack_w_f32,
                                                    .pack_w_outer = pack_w_outer_f32,
                                                    .pack_x = pack_x,
                                                    .pack_x_outer = pack_x_outer,
                                                    .tile = tile};

static const struct geul_cpu_dot bf16_dot = {32, 64, pack_token, dot_rows};

const struct geul_cpu_kernels geul_cpu_kernels_avx512bf16 = {
    .dot = {[GEUL_TYPE_BF16] = &bf16_dot},
    .panel = {[GEUL_TYPE_BF16] = &bf16_panel},
    .rounded = {[GEUL_TYPE_BF16] = &rounded_panel},
    .peak_bf16 = peak_bf16,
};
