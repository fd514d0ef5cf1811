/* kernels_scalar.c: every slot in plain C but dot and rounded, which are ways to be faster. This is what a kernel
 * means. */
#include "backends/cpu/kernels.h"
#include "backends/cpu/search_lanes.h"
#include "backends/cpu/train_lanes.h"
#include "core/block.h"
#include "core/half.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 32, HALF = 16, MR = 4, NR = 4 };

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

static float clamp(float x, float limit)
{
    return x < -limit ? -limit : x > limit ? limit : x;
}

/* The normal distribution's integral and density: Phi(x) + x phi(x). Beyond the limits both ends are reached. */
static void gelu_erf_back(float *out, const float *dy, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float v = clamp(x[i], 14);
        out[i] = dy[i] * (0.5f * erfcf(-v * 0.70710678f) + v * 0.39894228f * expf(-0.5f * v * v));
    }
}

/* GELU is x s(u), the slope s + x s (1 - s) u' with s = 1 / (1 + e^-u), u = 1.5957... (x + 0.044715 x^3). */
static void gelu_tanh_back(float *out, const float *dy, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float v = clamp(x[i], 10), square = v * v;
        float e = expf(1.59576912f * v * (1 + 0.044715f * square)), rest = 1 / (1 + e), s = e * rest;
        out[i] = dy[i] * (s + v * s * rest * 1.59576912f * (1 + 0.134145f * square));
    }
}

/* The mean of a row, and 1 / its deviation. */
static double row_mean(const float *x, float eps, size_t n, double *inverse)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i];
    double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += (x[i] - mean) * (x[i] - mean);
    *inverse = 1 / sqrt(squares / (double)n + eps);
    return mean;
}

static void layernorm(float *out, const float *x, const float *weight, const float *bias, float eps, size_t n)
{
    double inverse, mean = row_mean(x, eps, n, &inverse);
    for (size_t i = 0; i < n; i++)
        out[i] = (float)((x[i] - mean) * inverse) * weight[i] + bias[i];
}

/* With g = dy * weight and h the row at mean 0 and variance 1: inverse * (g - mean(g) - h mean(g h)). */
static void layernorm_back(float *out, const float *dy, const float *x, const float *weight, float eps, size_t n)
{
    double inverse, mean = row_mean(x, eps, n, &inverse), sum = 0, products = 0;
    for (size_t i = 0; i < n; i++) {
        double g = (double)dy[i] * weight[i];
        sum += g;
        products += g * (x[i] - mean) * inverse;
    }
    for (size_t i = 0; i < n; i++) {
        double g = (double)dy[i] * weight[i], h = (x[i] - mean) * inverse;
        out[i] = (float)(inverse * (g - sum / (double)n - h * products / (double)n));
    }
}

static void layernorm_sums(float *dweight, float *dbias, const float *dy, const float *x, float eps, size_t n)
{
    double inverse, mean = row_mean(x, eps, n, &inverse);
    for (size_t i = 0; i < n; i++) {
        dweight[i] += (float)(dy[i] * (x[i] - mean) * inverse);
        dbias[i] += dy[i];
    }
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

static void pack_f32(void *panel, const void *w, size_t stride, int rows, size_t k, struct geul_cpu_prefetch *prefetch)
{
    (void)prefetch;
    pack_plain(panel, w, stride, rows, k, load_f32);
}

static void pack_f16(void *panel, const void *w, size_t stride, int rows, size_t k, struct geul_cpu_prefetch *prefetch)
{
    (void)prefetch;
    pack_plain(panel, w, stride, rows, k, load_f16);
}

static void pack_bf16(void *panel, const void *w, size_t stride, int rows, size_t k, struct geul_cpu_prefetch *prefetch)
{
    (void)prefetch;
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
                       const float *start, int tokens)
{
    const float *w = panel, *x = packed;
    for (size_t t = 0; t < (size_t)tokens; t++)
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
    pack_f32(packed, x, stride, tokens, k, NULL);
}

static void pack_x_outer_plain(void *packed, const float *x, size_t stride, int tokens, size_t k)
{
    pack_outer_f32(packed, x, stride, tokens, k);
}

/* 32 activations as int8, their scale, and the sums of both halves. The same bits in every instruction set. */
struct activations {
    int8_t q[BLOCK];
    float scale;
    int32_t sum[2];
};

static void quantize(struct activations *b, const float *x)
{
    const uint32_t infinity = 0x7f800000;
    uint32_t largest = 0;
    /* As integers, magnitudes have the order of floats, with NaN above infinity: it cannot be missed. */
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
    for (int i = 0; i < BLOCK; i++) {
        b->q[i] = (int8_t)lrintf(x[i] * inverse); /* halves to even; at most 127 */
        b->sum[i / HALF] += b->q[i];
    }
}

static void pack_x_blocks(void *packed, const float *x, size_t stride, int tokens, size_t k)
{
    struct activations *b = packed;
    memset(b, 0, k / BLOCK * NR * sizeof *b);
    for (size_t i = 0; i < k / BLOCK; i++)
        for (int t = 0; t < tokens; t++)
            quantize(&b[i * NR + (size_t)t], (const float *)((const uint8_t *)x + (size_t)t * stride) + i * BLOCK);
}

/* 32 weights of any block type: whole numbers, and a scale and a minimum for each half. */
struct weights {
    int8_t q[BLOCK];
    float scale[2], min[2];
};

/* One block or super-block of a row into n / 32 weights, MR apart. */
static void unpack(struct weights *out, enum geul_type type, const uint8_t *bytes)
{
    const struct geul_block_format *f = geul_block_format(type);
    struct geul_block b;
    geul_block_unpack(type, bytes, &b);
    for (int i = 0; i < f->block; i++) {
        struct weights *w = &out[i / BLOCK * MR];
        int half = i % BLOCK / HALF, group = i / f->group;
        w->q[i % BLOCK] = (int8_t)(f->codebook ? f->codebook[b.q[i]] : b.q[i]);
        w->scale[half] = b.d * (float)b.scale[group];
        w->min[half] = b.m * (float)b.min[group];
    }
}

static inline void pack_blocks(struct weights *panel, enum geul_type type, const void *w, size_t stride, int rows,
                               size_t k)
{
    size_t block = (size_t)geul_type_block(type);
    memset(panel, 0, k / BLOCK * MR * sizeof *panel);
    for (size_t i = 0; i < k / block; i++)
        for (int r = 0; r < rows; r++)
            unpack(&panel[i * block / BLOCK * MR + (size_t)r], type,
                   (const uint8_t *)w + (size_t)r * stride + i * geul_type_bytes(type));
}

/* What a block of weights and activations adds to a sum: its halves together where they share scale and minimum. */
static float add_block(float sum, const struct weights *w, const struct activations *x, int n_groups)
{
    for (int g = 0; g < n_groups; g++) {
        int product = 0, total = n_groups == 1 ? x->sum[0] + x->sum[1] : x->sum[g];
        for (int i = g * BLOCK / n_groups; i < (g + 1) * BLOCK / n_groups; i++)
            product += w->q[i] * x->q[i];
        sum += (float)product * (w->scale[g] * x->scale);
        sum -= w->min[g] * (x->scale * (float)total);
    }
    return sum;
}

static inline void tile_blocks(float *out, size_t out_stride, const struct weights *w, const struct activations *x,
                               size_t k, const float *start, int tokens, int n_groups)
{
    for (size_t t = 0; t < (size_t)tokens; t++)
        for (size_t r = 0; r < MR; r++) {
            float sum = start ? start[r] : out[t * out_stride + r];
            for (size_t i = 0; i < k / BLOCK; i++)
                sum = add_block(sum, &w[i * MR + r], &x[i * NR + t], n_groups);
            out[t * out_stride + r] = sum;
        }
}

static void tile_groups_1(float *out, size_t out_stride, const void *panel, const void *packed, size_t k,
                          const float *start, int tokens)
{
    tile_blocks(out, out_stride, panel, packed, k, start, tokens, 1);
}

static void tile_groups_2(float *out, size_t out_stride, const void *panel, const void *packed, size_t k,
                          const float *start, int tokens)
{
    tile_blocks(out, out_stride, panel, packed, k, start, tokens, 2);
}

#include "backends/cpu/attention_scalar.h"

static float softmax_sums(const float *x, size_t n, double *powers, double *rests)
{
    float max = -INFINITY;
    for (size_t i = 0; i < n; i++)
        max = x[i] > max ? x[i] : max; /* NaN reaches the sums */
    *powers = *rests = 0;
    for (size_t i = 0; i < n; i++) {
        *powers += exp((double)x[i] - max);
        *rests += (double)x[i] - max;
    }
    return max;
}

static void softmax_line(float *out, const float *x, size_t n, float max, float a, float b)
{
    for (size_t i = 0; i < n; i++)
        out[i] = a * expf(x[i] - max) + b;
}

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

static uint64_t read_sum(const void *data, size_t bytes, size_t streams, size_t distance)
{
    uint64_t sum[4] = {0};
    size_t each = bytes / streams;
    for (size_t i = 0; i + 256 <= each; i += 256)
        for (size_t s = 0; s < streams; s++) {
            const uint8_t *p = (const uint8_t *)data + s * each + i;
            for (size_t j = 0; j < 4; j++) {
                uint64_t v;
                if (distance > 0)
                    __builtin_prefetch(p + 64 * j + distance);
                memcpy(&v, p + 64 * j, sizeof v);
                sum[j] += v;
            }
        }
    return sum[0] + sum[1] + sum[2] + sum[3];
}

#define PLAIN_PANEL(type)                                                                                              \
    {                                                                                                                  \
        .mr = MR, .nr = NR, .k_block = 512, .k_step = 1, .w_step = MR * sizeof(float), .x_step = NR * sizeof(float),   \
        .pack_w = pack_##type, .pack_w_outer = pack_outer_##type, .pack_x = pack_x_plain,                              \
        .pack_x_outer = pack_x_outer_plain, .tile = tile_plain                                                         \
    }
#define BLOCK_PANEL(type, groups)                                                                                      \
    static void pack_##type(void *panel, const void *w, size_t stride, int rows, size_t k,                             \
                            struct geul_cpu_prefetch *prefetch)                                                        \
    {                                                                                                                  \
        (void)prefetch;                                                                                                \
        pack_blocks(panel, GEUL_TYPE_##type, w, stride, rows, k);                                                      \
    }                                                                                                                  \
    static const struct geul_cpu_panel panel_##type = {.mr = MR,                                                       \
                                                       .nr = NR,                                                       \
                                                       .k_block = 1024,                                                \
                                                       .k_step = BLOCK,                                                \
                                                       .w_step = MR * sizeof(struct weights),                          \
                                                       .x_step = NR * sizeof(struct activations),                      \
                                                       .pack_w = pack_##type,                                          \
                                                       .pack_x = pack_x_blocks,                                        \
                                                       .tile = tile_groups_##groups};
/* The block types, and how many scales and minima 32 values have. */
#define EACH_BLOCK_TYPE(ROW)                                                                                           \
    ROW(Q8_0, 1)                                                                                                       \
    ROW(Q4_0, 1)                                                                                                       \
    ROW(Q4_1, 1)                                                                                                       \
    ROW(Q5_0, 1)                                                                                                       \
    ROW(Q5_1, 1)                                                                                                       \
    ROW(Q2_K, 2)                                                                                                       \
    ROW(Q3_K, 2)                                                                                                       \
    ROW(Q4_K, 1)                                                                                                       \
    ROW(Q5_K, 1)                                                                                                       \
    ROW(Q6_K, 2)                                                                                                       \
    ROW(IQ4_NL, 1)                                                                                                     \
    ROW(IQ4_XS, 1)
EACH_BLOCK_TYPE(BLOCK_PANEL)
static const struct geul_cpu_panel f32_panel = PLAIN_PANEL(f32), f16_panel = PLAIN_PANEL(f16);
static const struct geul_cpu_panel bf16_panel = PLAIN_PANEL(bf16);

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
    .softmax_back = softmax_back,
    .softmax_sums = softmax_sums,
    .softmax_line = softmax_line,
    .gelu_erf_back = gelu_erf_back,
    .gelu_tanh_back = gelu_tanh_back,
    .layernorm_back = layernorm_back,
    .layernorm_sums = layernorm_sums,
    TRAIN_LANES,
#define BLOCK_SLOT(type, groups) [GEUL_TYPE_##type] = &panel_##type,
    .panel = {[GEUL_TYPE_F32] = &f32_panel,
              [GEUL_TYPE_F16] = &f16_panel,
              [GEUL_TYPE_BF16] = &bf16_panel,
              EACH_BLOCK_TYPE(BLOCK_SLOT)},
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
