/* kernels_avx2.c: AVX2, FMA, F16C: the float32 kernels, 8 wide, and int8 products.
 *
 * vpmaddubsw multiplies unsigned by signed bytes and adds pairs to an int16, which must not saturate: weights up to 128
 * are safe. Such pairs are then added up in int16, where overflow only wraps, so that a sum is right whenever its final
 * value fits. Weights of up to 6 bits stay as they are stored, offset and all, and the sums start from -offset * sum x:
 * what comes out is the sum over signed weights, for 16 values of -16..15 or 8 of -32..31 at most 32512.
 * 8-bit weights give their sign to the activations, and their pairs are widened at once. */
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
#include "backends/cpu/unpack_avx2.h"

enum { NR = 6, WORDS = BLOCK / 4 };

/* Sums stay in their registers, in the order written: gcc would first multiply everything, into memory. */
#define KEEP(v) __asm__("" : "+x"(v))

/* -------------------------------------------------------------------- weights of 2 to 6 bits -- */

/* One block of NR tokens. Of the arrays of three, [0] is for the whole block and [1], [2] for its halves. */
struct tokens {
    int32_t q[NR][WORDS]; /* four int8 each */
    int32_t start[3][NR]; /* two int16: -offset * sum of the first and second two of every four */
    float sum[3][NR];     /* scale * sum */
    float scale[NR];
};

/* Weights have 1 << offset_bits added. */
INLINE void pack_tokens(void *packed, const float *x, size_t stride, int tokens, size_t k, const int offset_bits)
{
    struct tokens *out = packed;
    memset(out, 0, k / BLOCK * sizeof *out);
    for (int t = 0; t < tokens; t++)
        for (size_t i = 0; i < k / BLOCK; i++) {
            __m256i q;
            float scale = quantize32((const float *)at(x, (size_t)t, stride) + i * BLOCK, &q);
            /* int16 pairs, then the same two sums in every word of a half */
            __m256i sums = _mm256_maddubs_epi16(bytes(1), q);
            sums = _mm256_add_epi16(sums, _mm256_shuffle_epi32(sums, 0x4e));
            sums = _mm256_add_epi16(sums, _mm256_shuffle_epi32(sums, 0xb1));
            __m128i half[3] = {_mm_setzero_si128(), _mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1)};
            half[0] = _mm_add_epi16(half[1], half[2]);
            out[i].scale[t] = scale;
            for (int j = 0; j < 3; j++) {
                __m128i start = _mm_sub_epi16(_mm_setzero_si128(), _mm_slli_epi16(half[j], offset_bits));
                out[i].start[j][t] = _mm_cvtsi128_si32(start);
                out[i].sum[j][t] = scale * (float)_mm_cvtsi128_si32(_mm_madd_epi16(half[j], _mm_set1_epi16(1)));
            }
            _mm256_storeu_si256((void *)out[i].q[t], q);
        }
}

#define PACK_TOKENS(offset_bits)                                                                                       \
    static void pack_tokens_##offset_bits(void *packed, const float *x, size_t stride, int tokens, size_t k)           \
    {                                                                                                                  \
        pack_tokens(packed, x, stride, tokens, k, offset_bits);                                                        \
    }
PACK_TOKENS(0)
PACK_TOKENS(2)
PACK_TOKENS(3)
PACK_TOKENS(4)
PACK_TOKENS(5)
#undef PACK_TOKENS

/* What a tile is made for: groups of a block with a scale (and minimum) each, whether weights have an offset that the
 * sums start from, and whether there are minima. */
struct shape {
    int groups;
    bool offset, min;
    bool is_signed; /* bytes of all values; one group, no minimum */
};

INLINE __m256i word(const uint8_t *w, int i, int v)
{
    return _mm256_loadu_si256((const void *)(w + i * WORD + v * VF_WIDTH * 4));
}

INLINE __m256 word_float(const uint8_t *w, int i, int v)
{
    return _mm256_castsi256_ps(word(w, i, v));
}

/* Group g of a block: products as pairs of int16. */
INLINE void multiply_group(__m256i product[NR][ROWS], const uint8_t *w, const struct tokens *x, const int T,
                           const struct shape how, const int g)
{
    const int part = how.groups == 1 ? 0 : 1 + g, n = WORDS / how.groups;
    UNROLL for (int t = 0; t < T; t++) UNROLL for (int v = 0; v < ROWS; v++) product[t][v] =
        how.offset ? _mm256_set1_epi32(x->start[part][t]) : _mm256_setzero_si256();
    UNROLL for (int s = g * n; s < (g + 1) * n; s++)
    {
        __m256i w0 = word(w, s, 0), w1 = word(w, s, 1);
        UNROLL for (int t = 0; t < T; t++)
        {
            __m256i four = _mm256_set1_epi32(x->q[t][s]);
            product[t][0] = _mm256_add_epi16(product[t][0], _mm256_maddubs_epi16(w0, four));
            KEEP(product[t][0]);
            product[t][1] = _mm256_add_epi16(product[t][1], _mm256_maddubs_epi16(w1, four));
            KEEP(product[t][1]);
        }
    }
}

/* A block of signed bytes: products as int32. |w| is unsigned, x gets the sign of w. */
INLINE void multiply_signed(__m256i product[NR][ROWS], const uint8_t *w, const struct tokens *x, const int T)
{
    UNROLL for (int t = 0; t < T; t++) UNROLL for (int v = 0; v < ROWS; v++) product[t][v] = _mm256_setzero_si256();
    UNROLL for (int s = 0; s < WORDS; s++) UNROLL for (int v = 0; v < ROWS; v++)
    {
        __m256i sign = word(w, s, v), size = _mm256_abs_epi8(sign);
        UNROLL for (int t = 0; t < T; t++)
        {
            __m256i pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(_mm256_set1_epi32(x->q[t][s]), sign));
            product[t][v] = _mm256_add_epi32(product[t][v], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
            KEEP(product[t][v]);
        }
    }
}

/* One block: T tokens, their sums in memory at out. */
INLINE void add_block(float *out, size_t out_stride, const uint8_t *w, const struct tokens *x, const int T,
                      const struct shape how)
{
    __m256i product[NR][ROWS], first_half[NR][ROWS];
    if (how.is_signed)
        multiply_signed(product, w, x, T);
    else
        multiply_group(product, w, x, T, how, 0);
    /* Two groups: their whole-number scales are multiplied in int32, exactly, and the common factor comes in once. */
    if (how.groups == 2) {
        UNROLL for (int v = 0; v < ROWS; v++) UNROLL for (int t = 0; t < T; t++) first_half[t][v] =
            _mm256_madd_epi16(product[t][v], word(w, PAIRS, v));
        multiply_group(product, w, x, T, how, 1);
    }
    UNROLL for (int v = 0; v < ROWS; v++)
    {
        __m256i pairs = how.groups == 2 ? word(w, PAIRS + 1, v) : _mm256_set1_epi16(1);
        UNROLL for (int t = 0; t < T; t++)
        {
            float *sum = out + (size_t)t * out_stride + VF_WIDTH * v;
            __m256i whole = how.is_signed ? product[t][v] : _mm256_madd_epi16(product[t][v], pairs);
            if (how.groups == 2)
                whole = _mm256_add_epi32(whole, first_half[t][v]);
            __m256 factor = _mm256_mul_ps(word_float(w, SCALE, v), _mm256_set1_ps(x->scale[t]));
            __m256 s = _mm256_fmadd_ps(_mm256_cvtepi32_ps(whole), factor, _mm256_loadu_ps(sum));
            if (how.min && how.groups == 1)
                s = _mm256_fnmadd_ps(word_float(w, MIN, v), _mm256_set1_ps(x->sum[0][t]), s);
            if (how.min && how.groups == 2) {
                s = _mm256_fnmadd_ps(word_float(w, MINS, v), _mm256_set1_ps(x->sum[1][t]), s);
                s = _mm256_fnmadd_ps(word_float(w, MINS + 1, v), _mm256_set1_ps(x->sum[2][t]), s);
            }
            _mm256_storeu_ps(sum, s);
        }
    }
}

INLINE void tile_of(float *out, size_t out_stride, const uint8_t *w, const struct tokens *x, size_t k,
                    const float *start, const int T, const struct shape how)
{
    const size_t step = how.groups == 1 ? how.min ? STEP_1M : STEP_1 : how.min ? STEP_2M : STEP_2;
    for (int t = 0; start && t < T; t++)
        memcpy(out + (size_t)t * out_stride, start, MR * sizeof *out);
    for (size_t i = 0; i < k / BLOCK; i++, x++, w += step)
        add_block(out, out_stride, w, x, T, how);
}

/* The number of tokens is a constant in each branch: that many registers. */
INLINE void tile_any(float *out, size_t out_stride, const void *w, const void *x, size_t k, const float *start,
                     int tokens, const struct shape how)
{
    switch (tokens) {
    case 1:
        tile_of(out, out_stride, w, x, k, start, 1, how);
        return;
    case 2:
        tile_of(out, out_stride, w, x, k, start, 2, how);
        return;
    case 3:
        tile_of(out, out_stride, w, x, k, start, 3, how);
        return;
    case 4:
        tile_of(out, out_stride, w, x, k, start, 4, how);
        return;
    case 5:
        tile_of(out, out_stride, w, x, k, start, 5, how);
        return;
    default:
        tile_of(out, out_stride, w, x, k, start, NR, how);
    }
}

#define TILE(name, ...)                                                                                                \
    static void tile_##name(float *out, size_t out_stride, const void *w, const void *x, size_t k, const float *start, \
                            int tokens)                                                                                \
    {                                                                                                                  \
        tile_any(out, out_stride, w, x, k, start, tokens, (struct shape){__VA_ARGS__});                                \
    }
TILE(signed, .groups = 1, .is_signed = true)
TILE(1, .groups = 1, .offset = true)
TILE(1m, .groups = 1, .min = true)
TILE(1om, .groups = 1, .offset = true, .min = true)
TILE(2, .groups = 2, .offset = true)
TILE(2m, .groups = 2, .min = true)
#undef TILE

/* vpmaddubsw and the addition it needs, as in multiply_group. */
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
            KEEP(sum[j]);
        }
    UNROLL for (int j = 0; j < N; j++) sink = _mm256_extract_epi32(sum[j], 0);
    (void)sink;
    return rounds * N * 32;
}

#define PANEL(type, tile_name, step, offset_bits)                                                                      \
    static const struct geul_cpu_panel type##_panel = {.mr = MR,                                                       \
                                                       .nr = NR,                                                       \
                                                       .k_block = 1024,                                                \
                                                       .k_step = BLOCK,                                                \
                                                       .w_step = step,                                                 \
                                                       .x_step = sizeof(struct tokens),                                \
                                                       .pack_w = pack_##type,                                          \
                                                       .pack_x = pack_tokens_##offset_bits,                            \
                                                       .tile = tile_##tile_name};
PANEL(q8_0, signed, STEP_1, 0)
PANEL(iq4_nl, signed, STEP_1, 0)
PANEL(iq4_xs, signed, STEP_1, 0)
PANEL(q4_0, 1, STEP_1, 3)
PANEL(q5_0, 1, STEP_1, 4)
PANEL(q4_1, 1m, STEP_1M, 0)
PANEL(q4_k, 1m, STEP_1M, 0)
PANEL(q5_1, 1om, STEP_1M, 4)
PANEL(q5_k, 1om, STEP_1M, 4)
PANEL(q3_k, 2, STEP_2, 2)
PANEL(q6_k, 2, STEP_2, 5)
PANEL(q2_k, 2m, STEP_2M, 0)
#undef PANEL

const struct geul_cpu_kernels geul_cpu_kernels_avx2 = {
    FLOAT_KERNELS,
    .search = search,
    .panel =
        {FLOAT_PANELS, [GEUL_TYPE_Q8_0] = &q8_0_panel, [GEUL_TYPE_Q4_0] = &q4_0_panel, [GEUL_TYPE_Q4_1] = &q4_1_panel,
         [GEUL_TYPE_Q5_0] = &q5_0_panel, [GEUL_TYPE_Q5_1] = &q5_1_panel, [GEUL_TYPE_Q2_K] = &q2_k_panel,
         [GEUL_TYPE_Q3_K] = &q3_k_panel, [GEUL_TYPE_Q4_K] = &q4_k_panel, [GEUL_TYPE_Q5_K] = &q5_k_panel,
         [GEUL_TYPE_Q6_K] = &q6_k_panel, [GEUL_TYPE_IQ4_NL] = &iq4_nl_panel, [GEUL_TYPE_IQ4_XS] = &iq4_xs_panel},
    .peak_int8 = peak_int8,
};
