/* kernels_float.h: the float32 kernels over a vector type, for one instruction set per inclusion.
 *
 * The including unit first defines, all static: VF_WIDTH (floats per vector), VF_ROWS and VF_TOKENS (vectors of weight
 * rows and tokens per tile), the type vf, and vf_zero set1 load store load_n store_n (first n only, rest zero) add sub
 * mul div fma(a, b, c) = a * b + c, max min (a constant first: NaN in the second operand comes out), sum, largest,
 * round (to nearest), pow2 (2^n for whole -127 <= n <= 127, 2^-127 giving 0), below_zero(x, a, b) = x < 0 ? a : b,
 * load_f16(_n), load_bf16(_n), store_f16, and vf_transpose4: see pack_plain; and what attention_float.h names. It is
 * included once per unit, so nothing here is shared between files that are compiled with different flags. */
#include "backends/cpu/kernels.h"
#include "backends/cpu/unroll.h"
#include "core/half.h"

#include <math.h>
#include <string.h>

enum { VF_MR = VF_WIDTH * VF_ROWS };

/* 2^(n + f) of a whole n in [-127, 127] and f in [-1/2, 1/2], on which the polynomial's relative error is 2e-9. */
INLINE vf vf_exp2_of(vf n, vf f)
{
    vf p = vf_set1(1.5353359e-4f);
    p = vf_fma(p, f, vf_set1(1.3398875e-3f));
    p = vf_fma(p, f, vf_set1(9.6184369e-3f));
    p = vf_fma(p, f, vf_set1(5.5503324e-2f));
    p = vf_fma(p, f, vf_set1(0.24022648f));
    p = vf_fma(p, f, vf_set1(0.69314718f));
    p = vf_fma(p, f, vf_set1(1.0f));
    return vf_mul(p, vf_pow2(n));
}

/* 2^t. */
INLINE vf vf_exp2(vf t)
{
    t = vf_min(vf_set1(127.0f), vf_max(vf_set1(-127.0f), t));
    vf n = vf_round(t);
    return vf_exp2_of(n, vf_sub(t, n));
}

/* e^x. The product with log2(e) is made in two parts, so that large arguments keep their digits. */
INLINE vf vf_exp(vf x)
{
    x = vf_min(vf_set1(88.0f), vf_max(vf_set1(-88.0f), x));
    vf n = vf_round(vf_mul(x, vf_set1(1.44269504f)));
    vf f = vf_fma(n, vf_set1(-0.693359375f), x);
    f = vf_mul(vf_fma(n, vf_set1(2.12194440e-4f), f), vf_set1(1.44269504f));
    return vf_mul(vf_exp2(f), vf_pow2(n));
}

/* erfc(|x|/sqrt 2) = 2^(-a p(a)) for a = |x|, with a polynomial p fitted on 0..14. */
INLINE vf vf_erfc(vf x)
{
    vf a = vf_max(vf_sub(vf_zero(), x), x), p = vf_set1(1.57398201e-8f);
    p = vf_fma(p, a, vf_set1(-5.91525463e-7f));
    p = vf_fma(p, a, vf_set1(8.77841285e-6f));
    p = vf_fma(p, a, vf_set1(-6.68244538e-5f));
    p = vf_fma(p, a, vf_set1(2.54141865e-4f));
    p = vf_fma(p, a, vf_set1(4.25521612e-5f));
    p = vf_fma(p, a, vf_set1(-6.99101156e-3f));
    p = vf_fma(p, a, vf_set1(5.24676777e-2f));
    p = vf_fma(p, a, vf_set1(0.459213078f));
    p = vf_fma(p, a, vf_set1(1.15110493f));
    return vf_exp2(vf_mul(vf_sub(vf_zero(), a), p));
}

/* x/2 * erfc(-x/sqrt 2): at most 2e-7 from the exact erf, and the negative side has no cancellation. */
INLINE vf vf_gelu_erf(vf x)
{
    vf tail = vf_erfc(x);
    return vf_mul(vf_mul(vf_set1(0.5f), x), vf_below_zero(x, tail, vf_sub(vf_set1(2.0f), tail)));
}

/* x/2 * (1 + tanh(y)) = x e^(2y) / (1 + e^(2y)). */
INLINE vf vf_gelu_tanh(vf x)
{
    vf cube = vf_mul(vf_mul(x, x), x);
    vf e = vf_exp(vf_mul(vf_set1(1.59576912f), vf_fma(vf_set1(0.044715f), cube, x)));
    return vf_mul(x, vf_div(e, vf_add(vf_set1(1.0f), e)));
}

static void gelu_erf(float *out, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + VF_WIDTH <= n; i += VF_WIDTH)
        vf_store(out + i, vf_gelu_erf(vf_load(x + i)));
    if (i < n)
        vf_store_n(out + i, vf_gelu_erf(vf_load_n(x + i, n - i)), n - i);
}

static void gelu_tanh(float *out, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + VF_WIDTH <= n; i += VF_WIDTH)
        vf_store(out + i, vf_gelu_tanh(vf_load(x + i)));
    if (i < n)
        vf_store_n(out + i, vf_gelu_tanh(vf_load_n(x + i, n - i)), n - i);
}

static void add(float *out, const float *a, const float *b, size_t n)
{
    size_t i = 0;
    for (; i + VF_WIDTH <= n; i += VF_WIDTH)
        vf_store(out + i, vf_add(vf_load(a + i), vf_load(b + i)));
    if (i < n)
        vf_store_n(out + i, vf_add(vf_load_n(a + i, n - i), vf_load_n(b + i, n - i)), n - i);
}

static void scale(float *x, float factor, size_t n)
{
    size_t i = 0;
    for (; i + VF_WIDTH <= n; i += VF_WIDTH)
        vf_store(x + i, vf_mul(vf_load(x + i), vf_set1(factor)));
    if (i < n)
        vf_store_n(x + i, vf_mul(vf_load_n(x + i, n - i), vf_set1(factor)), n - i);
}

static void rotate(float *out, const float *x, const float *cosine, const float *sine, size_t half)
{
    size_t i = 0;
    for (; i + VF_WIDTH <= half; i += VF_WIDTH) {
        vf a = vf_load(x + i), b = vf_load(x + i + half), c = vf_load(cosine + i), s = vf_load(sine + i);
        vf_store(out + i, vf_sub(vf_mul(a, c), vf_mul(b, s)));
        vf_store(out + i + half, vf_fma(b, c, vf_mul(a, s)));
    }
    if (i < half) {
        size_t n = half - i;
        vf a = vf_load_n(x + i, n), b = vf_load_n(x + i + half, n);
        vf c = vf_load_n(cosine + i, n), s = vf_load_n(sine + i, n);
        vf_store_n(out + i, vf_sub(vf_mul(a, c), vf_mul(b, s)), n);
        vf_store_n(out + i + half, vf_fma(b, c, vf_mul(a, s)), n);
    }
}

/* The mean of a row, and 1 / its standard deviation. Two passes, the mean first and then the squared differences from
 * it: sums of x and x x would cancel. */
INLINE float row_mean(const float *x, float eps, size_t n, float *inverse)
{
    size_t whole = n / VF_WIDTH * VF_WIDTH, rest = n - whole;
    vf sum = vf_zero(), squares = vf_zero();
    for (size_t i = 0; i < whole; i += VF_WIDTH)
        sum = vf_add(sum, vf_load(x + i));
    if (rest)
        sum = vf_add(sum, vf_load_n(x + whole, rest));
    float mean = vf_sum(sum) / (float)n;
    vf m = vf_set1(mean);
    for (size_t i = 0; i < whole; i += VF_WIDTH) {
        vf d = vf_sub(vf_load(x + i), m);
        squares = vf_fma(d, d, squares);
    }
    float total = vf_sum(squares);
    for (size_t i = whole; i < n; i++)
        total += (x[i] - mean) * (x[i] - mean);
    *inverse = 1 / sqrtf(total / (float)n + eps);
    return mean;
}

static void layernorm(float *out, const float *x, const float *weight, const float *bias, float eps, size_t n)
{
    size_t whole = n / VF_WIDTH * VF_WIDTH, rest = n - whole;
    float scale;
    vf m = vf_set1(row_mean(x, eps, n, &scale)), inverse = vf_set1(scale);
    for (size_t i = 0; i < whole; i += VF_WIDTH) {
        vf d = vf_mul(vf_sub(vf_load(x + i), m), inverse);
        vf_store(out + i, vf_fma(d, vf_load(weight + i), vf_load(bias + i)));
    }
    if (rest) {
        vf d = vf_mul(vf_sub(vf_load_n(x + whole, rest), m), inverse);
        vf_store_n(out + whole, vf_fma(d, vf_load_n(weight + whole, rest), vf_load_n(bias + whole, rest)), rest);
    }
}

/* A whole vector of a row of some type, or its first n elements. */
typedef vf loader(const void *p);
typedef vf loader_n(const void *p, size_t n);

static const void *at(const void *p, size_t i, size_t bytes)
{
    return (const uint8_t *)p + i * bytes;
}

INLINE vf load_any_f32(const void *p)
{
    return vf_load(p);
}

INLINE vf load_any_f32_n(const void *p, size_t n)
{
    return vf_load_n(p, n);
}

#include "backends/cpu/attention_float.h"
#include "backends/cpu/loss_float.h"
#include "backends/cpu/kernels_train.h"

/* VF_WIDTH rows of k values become k vectors, VF_MR floats apart: pieces of the rows are first converted to float32 in
 * a buffer, from which vf_transpose4(src, src_stride, dst, dst_stride) (bytes) transposes VF_WIDTH rows of 4 words into
 * 4 vectors. */
INLINE void pack_plain(float *panel, const void *w, size_t stride, int rows, size_t k, size_t bytes, loader *load,
                       loader_n *load_n, struct geul_cpu_prefetch *prefetch)
{
    enum { PIECE = 64 };
    _Alignas(64) float buffer[VF_WIDTH][PIECE];
    for (int v = 0; v < VF_ROWS; v++)
        for (size_t from = 0; from < k; from += PIECE) {
            size_t n = k - from < PIECE ? k - from : PIECE, c = 0;
            float *out = panel + from * VF_MR + v * VF_WIDTH;
            for (int r = 0; r < VF_WIDTH; r++) {
                int row = v * VF_WIDTH + r;
                const uint8_t *p = row < rows ? (const uint8_t *)w + (size_t)row * stride + from * bytes : NULL;
                if (prefetch)
                    geul_cpu_prefetch_bytes(prefetch, n * bytes);
                for (size_t i = 0; i < n; i += VF_WIDTH) {
                    size_t left = n - i;
                    vf x = !p ? vf_zero() : left >= VF_WIDTH ? load(p + i * bytes) : load_n(p + i * bytes, left);
                    vf_store(&buffer[r][i], x);
                }
            }
            for (; c + 4 <= n; c += 4)
                vf_transpose4(&buffer[0][c], sizeof buffer[0], out + c * VF_MR, VF_MR * sizeof(float));
            for (; c < n; c++)
                for (int r = 0; r < VF_WIDTH; r++)
                    out[c * VF_MR + (size_t)r] = buffer[r][c];
        }
}

INLINE void pack_plain_outer(float *panel, const void *w, size_t stride, int rows, size_t k, size_t bytes, loader *load,
                             loader_n *load_n)
{
    for (size_t i = 0; i < k; i++)
        UNROLL for (size_t v = 0; v < VF_ROWS; v++)
        {
            const void *p = at(at(w, i, stride), v * VF_WIDTH, bytes);
            size_t from = v * VF_WIDTH, left = (size_t)rows > from ? (size_t)rows - from : 0;
            vf_store(panel + i * VF_MR + from, left >= VF_WIDTH ? load(p) : left ? load_n(p, left) : vf_zero());
        }
}

static void pack_f32(void *panel, const void *w, size_t stride, int rows, size_t k, struct geul_cpu_prefetch *prefetch)
{
    pack_plain(panel, w, stride, rows, k, sizeof(float), load_any_f32, load_any_f32_n, prefetch);
}

static void pack_f16(void *panel, const void *w, size_t stride, int rows, size_t k, struct geul_cpu_prefetch *prefetch)
{
    pack_plain(panel, w, stride, rows, k, 2, vf_load_f16, vf_load_f16_n, prefetch);
}

static void pack_bf16(void *panel, const void *w, size_t stride, int rows, size_t k, struct geul_cpu_prefetch *prefetch)
{
    pack_plain(panel, w, stride, rows, k, 2, vf_load_bf16, vf_load_bf16_n, prefetch);
}

static void pack_outer_f32(void *panel, const void *w, size_t stride, int rows, size_t k)
{
    pack_plain_outer(panel, w, stride, rows, k, sizeof(float), load_any_f32, load_any_f32_n);
}

static void pack_outer_f16(void *panel, const void *w, size_t stride, int rows, size_t k)
{
    pack_plain_outer(panel, w, stride, rows, k, 2, vf_load_f16, vf_load_f16_n);
}

static void pack_outer_bf16(void *panel, const void *w, size_t stride, int rows, size_t k)
{
    pack_plain_outer(panel, w, stride, rows, k, 2, vf_load_bf16, vf_load_bf16_n);
}

/* VF_TOKENS floats per k. */
static void pack_x(void *packed, const float *x, size_t stride, int tokens, size_t k)
{
    float *out = packed;
    for (size_t t = 0; t < VF_TOKENS; t++) {
        const float *row = at(x, t, stride);
        for (size_t i = 0; i < k; i++)
            out[i * VF_TOKENS + t] = (int)t < tokens ? row[i] : 0;
    }
}

static void pack_x_outer(void *packed, const float *x, size_t stride, int tokens, size_t k)
{
    float *out = packed;
    for (size_t i = 0; i < k; i++, out += VF_TOKENS) {
        const float *row = at(x, i, stride);
        if (tokens == VF_TOKENS) {
            memcpy(out, row, VF_TOKENS * sizeof *out);
            continue;
        }
        for (size_t t = 0; t < VF_TOKENS; t++)
            out[t] = (int)t < tokens ? row[t] : 0;
    }
}

/* T of the tile's tokens, the first of them at x. A lane's sums are the same for every T: one multiply-add per k, in
 * order. */
INLINE void tile_part(float *out, size_t out_stride, const float *w, const float *x, size_t k, const float *start,
                      const size_t T)
{
    vf sum[VF_TOKENS][VF_ROWS];
    UNROLL for (size_t t = 0; t < T; t++) UNROLL for (size_t v = 0; v < VF_ROWS; v++) sum[t][v] =
        vf_load((start ? start : out + t * out_stride) + v * VF_WIDTH);
    for (size_t i = 0; i < k; i++, w += VF_MR, x += VF_TOKENS) {
        vf column[VF_ROWS];
        UNROLL for (size_t v = 0; v < VF_ROWS; v++) column[v] = vf_load(w + v * VF_WIDTH);
        UNROLL for (size_t t = 0; t < T; t++)
        {
            vf value = vf_set1(x[t]);
            UNROLL for (size_t v = 0; v < VF_ROWS; v++) sum[t][v] = vf_fma(column[v], value, sum[t][v]);
        }
    }
    UNROLL for (size_t t = 0; t < T; t++) UNROLL for (size_t v = 0; v < VF_ROWS; v++)
        vf_store(out + t * out_stride + v * VF_WIDTH, sum[t][v]);
}

static void tile(float *out, size_t out_stride, const void *panel, const void *packed, size_t k, const float *start,
                 int tokens)
{
    const float *x = packed;
    size_t t = 0, n = (size_t)tokens;
    if (n == VF_TOKENS) {
        tile_part(out, out_stride, panel, x, k, start, VF_TOKENS);
        return;
    }
    for (; t + 4 <= n; t += 4)
        tile_part(out + t * out_stride, out_stride, panel, x + t, k, start, 4);
    for (; t + 2 <= n; t += 2)
        tile_part(out + t * out_stride, out_stride, panel, x + t, k, start, 2);
    if (t < n)
        tile_part(out + t * out_stride, out_stride, panel, x + t, k, start, 1);
}

static uint64_t peak_f32(uint64_t rounds)
{
    enum { N = 12 };
    volatile float sink;
    vf sum[N], factor = vf_set1(0.999f), one = vf_set1(1.0f);
    UNROLL for (int j = 0; j < N; j++) sum[j] = vf_set1((float)j);
    for (uint64_t i = 0; i < rounds; i++)
        UNROLL for (int j = 0; j < N; j++) sum[j] = vf_fma(sum[j], factor, one);
    UNROLL for (int j = 0; j < N; j++) sink = vf_sum(sum[j]);
    (void)sink;
    return rounds * N * VF_WIDTH;
}

#define FLOAT_PANEL(type)                                                                                              \
    {                                                                                                                  \
        .mr = VF_MR, .nr = VF_TOKENS, .k_block = 256, .k_step = 1, .w_step = VF_MR * sizeof(float),                    \
        .x_step = VF_TOKENS * sizeof(float), .pack_w = pack_##type, .pack_w_outer = pack_outer_##type,                 \
        .pack_x = pack_x, .pack_x_outer = pack_x_outer, .tile = tile                                                   \
    }
static const struct geul_cpu_panel f32_panel = FLOAT_PANEL(f32), f16_panel = FLOAT_PANEL(f16);
static const struct geul_cpu_panel bf16_panel = FLOAT_PANEL(bf16);

/* What a unit's table takes from here. */
#define FLOAT_KERNELS                                                                                                  \
    .add = add, .gelu_erf = gelu_erf, .gelu_tanh = gelu_tanh, .layernorm = layernorm, .rotate = rotate,                \
    .scale = scale, .peak_f32 = peak_f32, .blend = blend, .softmax = softmax, .score_tile = score_tile,                \
    .mix_tile = mix_tile, .softmax_back = softmax_back, .softmax_sums = softmax_sums, .softmax_line = softmax_line,    \
    TRAIN_KERNELS, TRAIN_LANES,                                                                                        \
    .peak_bf16 = peak_f32, /* without instructions of their own, bfloat16 products are float32 ones */                 \
        .cache = {[GEUL_TYPE_F32] = &f32_panel, [GEUL_TYPE_F16] = &f16_panel, [GEUL_TYPE_BF16] = &bf16_panel},         \
    .score = {[GEUL_TYPE_F32] = score_f32,                                                                             \
              [GEUL_TYPE_F16] = score_f16,                                                                             \
              [GEUL_TYPE_BF16] = score_bf16,                                                                           \
              [GEUL_TYPE_Q8_0] = score_q8_0},                                                                          \
    .mix = {[GEUL_TYPE_F32] = mix_f32,                                                                                 \
            [GEUL_TYPE_F16] = mix_f16,                                                                                 \
            [GEUL_TYPE_BF16] = mix_bf16,                                                                               \
            [GEUL_TYPE_Q8_0] = mix_q8_0},                                                                              \
    .widen = {[GEUL_TYPE_F32] = widen_f32,                                                                             \
              [GEUL_TYPE_F16] = widen_f16,                                                                             \
              [GEUL_TYPE_BF16] = widen_bf16,                                                                           \
              [GEUL_TYPE_Q8_0] = widen_q8_0},                                                                          \
    .narrow = {[GEUL_TYPE_F16] = narrow_f16, [GEUL_TYPE_Q8_0] = narrow_q8_0}
#define FLOAT_PANELS [GEUL_TYPE_F32] = &f32_panel, [GEUL_TYPE_F16] = &f16_panel, [GEUL_TYPE_BF16] = &bf16_panel
