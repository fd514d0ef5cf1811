/* kernels_avx512vnni.c: int8 products by vpdpbusd (unsigned times signed bytes, four at a time into int32).
 *
 * Weights become unsigned bytes. Types without a minimum get 128 added, which a correction takes back:
 * sum (w + 128) x = sum w x + 128 sum x, so the int32 sums start from -128 * sum x, known when the activations are
 * packed. Types with a minimum are unsigned as they are, and min * sum x is subtracted in float32. */
#include "backends/cpu/quantize_x86.h"

#include "backends/cpu/kernels.h"
#include "backends/cpu/unroll.h"
#include "backends/cpu/vector_avx512.h"
#include "backends/cpu/unpack_avx512.h"

#include <string.h>

enum { NR = 6, WORDS = BLOCK / 4 };

/* One block of NR tokens. Of the arrays of three, [0] is for the whole block and [1], [2] for its halves. */
struct tokens {
    int32_t q[NR][WORDS]; /* four int8 each */
    int32_t start[3][NR]; /* -128 * sum */
    float sum[3][NR];     /* scale * sum */
    float scale[NR];
};

/* Each token's blocks as int8, with what tiles need of their sums: as integers to start from, and scaled for minima. */
static void pack_tokens(void *packed, const float *x, size_t stride, int tokens, size_t k)
{
    struct tokens *out = packed;
    memset(out, 0, k / BLOCK * sizeof *out);
    for (int t = 0; t < tokens; t++) {
        const float *row = (const float *)((const uint8_t *)x + (size_t)t * stride);
        for (size_t i = 0; i < k / BLOCK; i++) {
            __m256i q;
            float scale = quantize32(row + i * BLOCK, &q);
            __m128i halves = sums16(q);
            int32_t sum[3] = {0, _mm_cvtsi128_si32(halves), _mm_extract_epi32(halves, 2)};
            sum[0] = sum[1] + sum[2];
            out[i].scale[t] = scale;
            for (int j = 0; j < 3; j++) {
                out[i].start[j][t] = -128 * sum[j];
                out[i].sum[j][t] = scale * (float)sum[j];
            }
            _mm256_storeu_si256((void *)out[i].q[t], q);
        }
    }
}

/* One block: T tokens, groups G of the block with a scale (and minimum) each. */
INLINE void add_block(__m512 sum[NR][ROWS], const uint8_t *w, const struct tokens *x, const int T, const int G,
                      const bool has_min)
{
    const float *scale = (const float *)(w + WEIGHT_BYTES), *min = scale + G * MR;
    const int words = WORDS / G;
    UNROLL for (int g = 0; g < G; g++)
    {
        const int part = G == 1 ? 0 : 1 + g, first = g * words;
        __m512i product[NR][ROWS];
        UNROLL for (int t = 0; t < T; t++) UNROLL for (int v = 0; v < ROWS; v++) product[t][v] =
            has_min ? _mm512_setzero_si512() : _mm512_set1_epi32(x->start[part][t]);
        UNROLL for (int s = first; s < first + words; s++)
        {
            __m512i w0 = _mm512_loadu_si512(w + s * MR * 4), w1 = _mm512_loadu_si512(w + s * MR * 4 + 64);
            UNROLL for (int t = 0; t < T; t++)
            {
                __m512i four = _mm512_set1_epi32(x->q[t][s]);
                product[t][0] = _mm512_dpbusd_epi32(product[t][0], w0, four);
                product[t][1] = _mm512_dpbusd_epi32(product[t][1], w1, four);
            }
        }
        UNROLL for (int v = 0; v < ROWS; v++)
        {
            __m512 d = _mm512_loadu_ps(scale + g * MR + 16 * v);
            UNROLL for (int t = 0; t < T; t++) sum[t][v] = _mm512_fmadd_ps(
                _mm512_cvtepi32_ps(product[t][v]), _mm512_mul_ps(d, _mm512_set1_ps(x->scale[t])), sum[t][v]);
            if (has_min) {
                __m512 m = _mm512_loadu_ps(min + g * MR + 16 * v);
                UNROLL for (int t = 0; t < T; t++) sum[t][v] =
                    _mm512_fnmadd_ps(m, _mm512_set1_ps(x->sum[part][t]), sum[t][v]);
            }
        }
    }
}

INLINE void tile_of(float *out, size_t out_stride, const uint8_t *w, const struct tokens *x, size_t k,
                    const float *start, const int T, const int G, const bool has_min)
{
    __m512 sum[NR][ROWS];
    UNROLL for (int t = 0; t < T; t++) UNROLL for (int v = 0; v < ROWS; v++) sum[t][v] =
        _mm512_loadu_ps((start ? start : out + (size_t)t * out_stride) + 16 * v);
    for (size_t i = 0; i < k / BLOCK; i++, x++, w += WEIGHT_BYTES + (size_t)(has_min ? 2 : 1) * (size_t)G * MR * 4)
        add_block(sum, w, x, T, G, has_min);
    UNROLL for (int t = 0; t < T; t++) UNROLL for (int v = 0; v < ROWS; v++)
        _mm512_storeu_ps(out + (size_t)t * out_stride + 16 * v, sum[t][v]);
}

/* The number of tokens is a constant in each branch: that many registers. */
INLINE void tile_any(float *out, size_t out_stride, const void *w, const void *x, size_t k, const float *start,
                     int tokens, const int G, const bool has_min)
{
    switch (tokens) {
    case 1:
        tile_of(out, out_stride, w, x, k, start, 1, G, has_min);
        return;
    case 2:
        tile_of(out, out_stride, w, x, k, start, 2, G, has_min);
        return;
    case 3:
        tile_of(out, out_stride, w, x, k, start, 3, G, has_min);
        return;
    case 4:
        tile_of(out, out_stride, w, x, k, start, 4, G, has_min);
        return;
    case 5:
        tile_of(out, out_stride, w, x, k, start, 5, G, has_min);
        return;
    default:
        tile_of(out, out_stride, w, x, k, start, NR, G, has_min);
    }
}

/* tile_<groups>[m]: m with a minimum. */
#define TILE(name, groups, has_min)                                                                                    \
    static void tile_##name(float *out, size_t out_stride, const void *w, const void *x, size_t k, const float *start, \
                            int tokens)                                                                                \
    {                                                                                                                  \
        tile_any(out, out_stride, w, x, k, start, tokens, groups, has_min);                                            \
    }
TILE(1, 1, false)
TILE(1m, 1, true)
TILE(2, 2, false)
TILE(2m, 2, true)
#undef TILE

#include "backends/cpu/dot_avx512vnni.h"

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

#define PANEL(type, tile_name, step)                                                                                   \
    static const struct geul_cpu_panel type##_panel = {.mr = MR,                                                       \
                                                       .nr = NR,                                                       \
                                                       .k_block = 1024,                                                \
                                                       .k_step = BLOCK,                                                \
                                                       .w_step = step,                                                 \
                                                       .x_step = sizeof(struct tokens),                                \
                                                       .pack_w = pack_##type,                                          \
                                                       .pack_x = pack_tokens,                                          \
                                                       .tile = tile_##tile_name};
PANEL(q8_0, 1, STEP_1)
PANEL(q4_0, 1, STEP_1)
PANEL(q5_0, 1, STEP_1)
PANEL(iq4_nl, 1, STEP_1)
PANEL(iq4_xs, 1, STEP_1)
PANEL(q4_1, 1m, STEP_2)
PANEL(q5_1, 1m, STEP_2)
PANEL(q4_k, 1m, STEP_2)
PANEL(q5_k, 1m, STEP_2)
PANEL(q3_k, 2, STEP_2)
PANEL(q6_k, 2, STEP_2)
PANEL(q2_k, 2m, STEP_4)
#undef PANEL

const struct geul_cpu_kernels geul_cpu_kernels_avx512vnni = {
    .dot = {[GEUL_TYPE_Q8_0] = &q8_0_dot,
            [GEUL_TYPE_Q4_0] = &q4_0_dot,
            [GEUL_TYPE_Q4_K] = &q4_k_dot,
            [GEUL_TYPE_Q5_K] = &q5_k_dot,
            [GEUL_TYPE_Q6_K] = &q6_k_dot},
    .panel = {[GEUL_TYPE_Q8_0] = &q8_0_panel,
              [GEUL_TYPE_Q4_0] = &q4_0_panel,
              [GEUL_TYPE_Q4_1] = &q4_1_panel,
              [GEUL_TYPE_Q5_0] = &q5_0_panel,
              [GEUL_TYPE_Q5_1] = &q5_1_panel,
              [GEUL_TYPE_Q2_K] = &q2_k_panel,
              [GEUL_TYPE_Q3_K] = &q3_k_panel,
              [GEUL_TYPE_Q4_K] = &q4_k_panel,
              [GEUL_TYPE_Q5_K] = &q5_k_panel,
              [GEUL_TYPE_Q6_K] = &q6_k_panel,
              [GEUL_TYPE_IQ4_NL] = &iq4_nl_panel,
              [GEUL_TYPE_IQ4_XS] = &iq4_xs_panel},
    .peak_int8 = peak_int8,
};
