/* kernels_scalar.c: every slot in plain C. This is what a kernel means; the other units are only faster. */
#include "backends/cpu/kernels.h"
#include "backends/cpu/search_lanes.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 32, MR = 4, NR = 4 };

static void add(float *out, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = a[i] + b[i];
}

static void gelu_erf(float *out, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = 0.5f * x[i] * erfcf(-x[i] * 0.70710678f);
}

static void gelu_tanh(float *out, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = 0.5f * x[i] * (1.0f + tanhf(0.79788456f * (x[i] + 0.044715f * x[i] * x[i] * x[i])));
}

static void layernorm(float *out, const float *x, const float *weight, const float *bias, float eps, size_t n)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i];
    double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += (x[i] - mean) * (x[i] - mean);
    double inverse = 1 / sqrt(squares / (double)n + eps);
    for (size_t i = 0; i < n; i++)
        out[i] = (float)((x[i] - mean) * inverse) * weight[i] + bias[i];
}

static void rotate(float *out, const float *x, const float *cosine, const float *sine, size_t half)
{
    for (size_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        out[i] = a * cosine[i] - b * sine[i];
        out[i + half] = b * cosine[i] + a * sine[i];
    }
}

static void scale(float *x, float factor, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] *= factor;
}

/* The value of element i of a plain type. */
static inline float load_f32(const void *p, size_t i)
{
    float f;
    memcpy(&f, (const uint8_t *)p + i * sizeof f, sizeof f);
    return f;
}

static inline uint16_t load_u16(const void *p, size_t i)
{
    uint16_t h;
    memcpy(&h, (const uint8_t *)p + i * sizeof h, sizeof h);
    return h;
}

static inline float load_f16(const void *p, size_t i)
{
    return geul_f16_to_f32(load_u16(p, i));
}

static inline float load_bf16(const void *p, size_t i)
{
    return geul_bf16_to_f32(load_u16(p, i));
}

typedef float loader(const void *p, size_t i);

static inline void dot_plain(float *out, const void *w, size_t stride, const float *x, size_t k, int rows, loader *load)
{
    for (int r = 0; r < rows; r++) {
        const uint8_t *row = (const uint8_t *)w + (size_t)r * stride;
        float sum = 0;
        for (size_t i = 0; i < k; i++)
            sum += load(row, i) * x[i];
        out[r] = sum;
    }
}

static void dot_f32(float *out, const void *w, size_t stride, const void *x, size_t k, int rows)
{
    dot_plain(out, w, stride, x, k, rows, load_f32);
}

static void dot_f16(float *out, const void *w, size_t stride, const void *x, size_t k, int rows)
{
    dot_plain(out, w, stride, x, k, rows, load_f16);
}

static void dot_bf16(float *out, const void *w, size_t stride, const void *x, size_t k, int rows)
{
    dot_plain(out, w, stride, x, k, rows, load_bf16);
}

/* 32 activations as int8 and their scale. The same bits in every instruction set. */
struct block {
    float scale;
    int8_t q[BLOCK];
};

static void quantize(struct block *b, const float *x)
{
    const uint32_t infinity = 0x7f800000;
    uint32_t largest = 0;
    for (int i = 0; i < BLOCK; i++) {
        uint32_t u;
        memcpy(&u, &x[i], sizeof u);
        u &= 0x7fffffff;
        largest = u > largest ? u : largest;
    }
    float amax;
    memcpy(&amax, &largest, sizeof amax);
    memset(b, 0, sizeof *b);
    if (largest >= infinity) {
        b->scale = NAN; /* an infinite or undefined value makes the result undefined, not silently small */
        return;
    }
    if (amax < 0x1p-100f)
        return;
    float inverse = 127.0f / amax;
    b->scale = amax / 127.0f;
    for (int i = 0; i < BLOCK; i++)
        b->q[i] = (int8_t)lrintf(x[i] * inverse);
}

static void quantize_row(void *packed, const float *x, size_t k)
{
    struct block *b = packed;
    for (size_t i = 0; i < k; i += BLOCK)
        quantize(b++, x + i);
}

/* One weight block: its scale, and its values as int8. */
typedef float unpacker(int8_t *q, const uint8_t *block);

static inline float unpack_q8_0(int8_t *q, const uint8_t *block)
{
    memcpy(q, block + 2, BLOCK);
    return load_f16(block, 0);
}

static inline float unpack_q4_0(int8_t *q, const uint8_t *block)
{
    for (int i = 0; i < BLOCK / 2; i++) {
        q[i] = (int8_t)((block[2 + i] & 15) - 8);
        q[i + BLOCK / 2] = (int8_t)((block[2 + i] >> 4) - 8);
    }
    return load_f16(block, 0);
}

static inline float block_product(const int8_t *w, const int8_t *x, float factor)
{
    int sum = 0;
    for (int i = 0; i < BLOCK; i++)
        sum += w[i] * x[i];
    return (float)sum * factor;
}

static inline void dot_blocks(float *out, const void *w, size_t stride, const struct block *x, size_t k, int rows,
                              unpacker *unpack, size_t bytes)
{
    for (int r = 0; r < rows; r++) {
        const uint8_t *row = (const uint8_t *)w + (size_t)r * stride;
        float sum = 0;
        for (size_t i = 0; i < k / BLOCK; i++) {
            int8_t q[BLOCK];
            float d = unpack(q, row + i * bytes);
            sum += block_product(q, x[i].q, d * x[i].scale);
        }
        out[r] = sum;
    }
}

static void dot_q8_0(float *out, const void *w, size_t stride, const void *x, size_t k, int rows)
{
    dot_blocks(out, w, stride, x, k, rows, unpack_q8_0, 34);
}

static void dot_q4_0(float *out, const void *w, size_t stride, const void *x, size_t k, int rows)
{
    dot_blocks(out, w, stride, x, k, rows, unpack_q4_0, 18);
}

/* Panels of plain types: MR floats per k, and NR floats per k. */
static inline void pack_plain(float *panel, const void *w, size_t stride, int rows, size_t k, loader *load)
{
    for (int r = 0; r < MR; r++)
        for (size_t i = 0; i < k; i++)
            panel[i * MR + (size_t)r] = r < rows ? load((const uint8_t *)w + (size_t)r * stride, i) : 0;
}

static inline void pack_plain_outer(float *panel, const void *w, size_t stride, int rows, size_t k, loader *load)
{
    for (size_t i = 0; i < k; i++)
        for (int r = 0; r < MR; r++)
            panel[i * MR + (size_t)r] = r < rows ? load((const uint8_t *)w + i * stride, (size_t)r) : 0;
}

static void pack_f32(void *panel, const void *w, size_t stride, int rows, size_t k)
{
    pack_plain(panel, w, stride, rows, k, load_f32);
}

static void pack_f16(void *panel, const void *w, size_t stride, int rows, size_t k)
{
    pack_plain(panel, w, stride, rows, k, load_f16);
}

static void pack_bf16(void *panel, const void *w, size_t stride, int rows, size_t k)
{
    pack_plain(panel, w, stride, rows, k, load_bf16);
}

static void pack_outer_f32(void *panel, const void *w, size_t stride, int rows, size_t k)
{
    pack_plain_outer(panel, w, stride, rows, k, load_f32);
}

static void pack_outer_f16(void *panel, const void *w, size_t stride, int rows, size_t k)
{
    pack_plain_outer(panel, w, stride, rows, k, load_f16);
}

static void pack_outer_bf16(void *panel, const void *w, size_t stride, int rows, size_t k)
{
    pack_plain_outer(panel, w, stride, rows, k, load_bf16);
}

static void tile_plain(float *out, size_t out_stride, const void *panel, const void *packed, size_t k,
                       const float *start)
{
    const float *w = panel, *x = packed;
    for (size_t t = 0; t < NR; t++)
        for (size_t r = 0; r < MR; r++) {
            float sum = start ? start[r] : out[t * out_stride + r];
            for (size_t i = 0; i < k; i++)
                sum += w[i * MR + r] * x[i * NR + t];
            out[t * out_stride + r] = sum;
        }
}

/* Packed tokens of plain types are a panel of NR rows. */
static void pack_x_plain(void *packed, const float *x, size_t stride, int tokens, size_t k)
{
    _Static_assert(MR == NR, "tokens are packed as weight rows are");
    pack_f32(packed, x, stride, tokens, k);
}

/* Panels of block types: per block, MR (NR) of struct block. */
static inline void pack_blocks(struct block *panel, const void *w, size_t stride, int rows, size_t k, unpacker *unpack,
                               size_t bytes)
{
    memset(panel, 0, k / BLOCK * MR * sizeof *panel);
    for (size_t i = 0; i < k / BLOCK; i++)
        for (int r = 0; r < rows; r++) {
            struct block *b = &panel[i * MR + (size_t)r];
            b->scale = unpack(b->q, (const uint8_t *)w + (size_t)r * stride + i * bytes);
        }
}

static void pack_q8_0(void *panel, const void *w, size_t stride, int rows, size_t k)
{
    pack_blocks(panel, w, stride, rows, k, unpack_q8_0, 34);
}

static void pack_q4_0(void *panel, const void *w, size_t stride, int rows, size_t k)
{
    pack_blocks(panel, w, stride, rows, k, unpack_q4_0, 18);
}

static void pack_x_blocks(void *packed, const float *x, size_t stride, int tokens, size_t k)
{
    struct block *b = packed;
    memset(b, 0, k / BLOCK * NR * sizeof *b);
    for (size_t i = 0; i < k / BLOCK; i++)
        for (int t = 0; t < tokens; t++)
            quantize(&b[i * NR + (size_t)t], (const float *)((const uint8_t *)x + (size_t)t * stride) + i * BLOCK);
}

static void tile_blocks(float *out, size_t out_stride, const void *panel, const void *packed, size_t k,
                        const float *start)
{
    const struct block *w = panel, *x = packed;
    for (size_t t = 0; t < NR; t++)
        for (size_t r = 0; r < MR; r++) {
            float sum = start ? start[r] : out[t * out_stride + r];
            for (size_t i = 0; i < k / BLOCK; i++) {
                const struct block *a = &w[i * MR + r], *b = &x[i * NR + t];
                sum += block_product(a->q, b->q, a->scale * b->scale);
            }
            out[t * out_stride + r] = sum;
        }
}

#include "backends/cpu/attention_scalar.h"

static uint64_t peak_f32(uint64_t rounds)
{
    enum { N = 16 };
    volatile float sink;
    float acc[N] = {0};
    for (uint64_t i = 0; i < rounds; i++)
        for (int j = 0; j < N; j++)
            acc[j] = acc[j] * 0.999f + 1.0f;
    for (int j = 0; j < N; j++)
        sink = acc[j];
    (void)sink;
    return rounds * N;
}

static uint64_t peak_int8(uint64_t rounds)
{
    enum { N = 16 };
    volatile uint32_t sink;
    uint32_t acc[N] = {0};
    for (uint64_t i = 0; i < rounds; i++)
        for (uint32_t j = 0; j < N; j++)
            acc[j] = acc[j] * 3 + j;
    for (int j = 0; j < N; j++)
        sink = acc[j];
    (void)sink;
    return rounds * N;
}

static uint64_t read_sum(const void *data, size_t bytes, size_t streams, size_t ahead)
{
    uint64_t sum[4] = {0};
    size_t each = bytes / streams;
    for (size_t i = 0; i + 256 <= each; i += 256)
        for (size_t s = 0; s < streams; s++) {
            const uint8_t *p = (const uint8_t *)data + s * each + i;
            for (size_t j = 0; j < 4; j++) {
                uint64_t v;
                if (ahead > 0)
                    __builtin_prefetch(p + 64 * j + ahead);
                memcpy(&v, p + 64 * j, sizeof v);
                sum[j] += v;
            }
        }
    return sum[0] + sum[1] + sum[2] + sum[3];
}

static const struct geul_cpu_dot plain_dot[] = {
    {1, sizeof(float), NULL, dot_f32}, {1, sizeof(float), NULL, dot_f16}, {1, sizeof(float), NULL, dot_bf16}};
static const struct geul_cpu_dot q8_0_dot = {BLOCK, sizeof(struct block), quantize_row, dot_q8_0};
static const struct geul_cpu_dot q4_0_dot = {BLOCK, sizeof(struct block), quantize_row, dot_q4_0};

#define PLAIN_PANEL(type)                                                                                              \
    {                                                                                                                  \
        .mr = MR, .nr = NR, .min_tokens = 8, .k_block = 512, .k_step = 1, .w_step = MR * sizeof(float),                \
        .x_step = NR * sizeof(float), .pack_w = pack_##type, .pack_w_outer = pack_outer_##type,                        \
        .pack_x = pack_x_plain, .tile = tile_plain                                                                     \
    }
#define BLOCK_PANEL(type)                                                                                              \
    {                                                                                                                  \
        .mr = MR, .nr = NR, .min_tokens = 8, .k_block = 1024, .k_step = BLOCK, .w_step = MR * sizeof(struct block),    \
        .x_step = NR * sizeof(struct block), .pack_w = pack_##type, .pack_x = pack_x_blocks, .tile = tile_blocks       \
    }
static const struct geul_cpu_panel f32_panel = PLAIN_PANEL(f32), f16_panel = PLAIN_PANEL(f16);
static const struct geul_cpu_panel bf16_panel = PLAIN_PANEL(bf16);
static const struct geul_cpu_panel q8_0_panel = BLOCK_PANEL(q8_0), q4_0_panel = BLOCK_PANEL(q4_0);

const struct geul_cpu_kernels geul_cpu_kernels_scalar = {
    .add = add,
    .gelu_erf = gelu_erf,
    .gelu_tanh = gelu_tanh,
    .layernorm = layernorm,
    .rotate = rotate,
    .scale = scale,
    .search = search,
    .blend = blend,
    .softmax = softmax,
    .dot = {[GEUL_TYPE_F32] = &plain_dot[0],
            [GEUL_TYPE_F16] = &plain_dot[1],
            [GEUL_TYPE_BF16] = &plain_dot[2],
            [GEUL_TYPE_Q8_0] = &q8_0_dot,
            [GEUL_TYPE_Q4_0] = &q4_0_dot},
    .panel = {[GEUL_TYPE_F32] = &f32_panel,
              [GEUL_TYPE_F16] = &f16_panel,
              [GEUL_TYPE_BF16] = &bf16_panel,
              [GEUL_TYPE_Q8_0] = &q8_0_panel,
              [GEUL_TYPE_Q4_0] = &q4_0_panel},
    .cache = {[GEUL_TYPE_F32] = &f32_panel, [GEUL_TYPE_F16] = &f16_panel, [GEUL_TYPE_BF16] = &bf16_panel},
    .score = {[GEUL_TYPE_F32] = score_f32,
              [GEUL_TYPE_F16] = score_f16,
              [GEUL_TYPE_BF16] = score_bf16,
              [GEUL_TYPE_Q8_0] = score_q8_0},
    .mix = {[GEUL_TYPE_F32] = mix_f32,
            [GEUL_TYPE_F16] = mix_f16,
            [GEUL_TYPE_BF16] = mix_bf16,
            [GEUL_TYPE_Q8_0] = mix_q8_0},
    .score_tile = score_tile,
    .mix_tile = mix_tile,
    .widen = {[GEUL_TYPE_F32] = widen_f32,
              [GEUL_TYPE_F16] = widen_f16,
              [GEUL_TYPE_BF16] = widen_bf16,
              [GEUL_TYPE_Q8_0] = widen_q8_0},
    .narrow = {[GEUL_TYPE_F32] = narrow_f32,
               [GEUL_TYPE_F16] = narrow_f16,
               [GEUL_TYPE_BF16] = narrow_bf16,
               [GEUL_TYPE_Q8_0] = narrow_q8_0},
    .peak_f32 = peak_f32,
    .peak_bf16 = peak_f32,
    .peak_int8 = peak_int8,
    .read_sum = read_sum,
};
