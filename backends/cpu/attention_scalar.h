/* attention_scalar.h: attention in plain C; included once by kernels_scalar.c, whose load_f32(), load_f16() and
 * load_bf16() it uses. attention_float.h says why the order of sums matters; here it is element by element. */

static float load_q8_0(const void *p, size_t i)
{
    const uint8_t *block = (const uint8_t *)p + i / 32 * 34;
    return load_f16(block, 0) * (float)(int8_t)block[2 + i % 32];
}

static inline void score_any(float *out, const void *k, size_t stride, const float *q, size_t rows, size_t depth,
                             loader *load)
{
    for (size_t r = 0; r < rows; r++) {
        const uint8_t *row = (const uint8_t *)k + r * stride;
        float sum = 0;
        for (size_t i = 0; i < depth; i++)
            sum += load(row, i) * q[i];
        out[r] = sum;
    }
}

static inline void mix_any(float *out, const void *v, size_t stride, const float *p, size_t rows, size_t depth,
                           loader *load)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < depth; i++)
            out[i] += p[r] * load((const uint8_t *)v + r * stride, i);
}

static inline void widen_any(float *out, const void *x, size_t stride, size_t rows, size_t depth, loader *load)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < depth; i++)
            out[r * depth + i] = load((const uint8_t *)x + r * stride, i);
}

/* The three kernels of one type of cache. */
#define ATTENTION_KERNELS(type)                                                                                        \
    static void score_##type(float *out, const void *k, size_t stride, const float *q, size_t rows, size_t depth)      \
    {                                                                                                                  \
        score_any(out, k, stride, q, rows, depth, load_##type);                                                        \
    }                                                                                                                  \
    static void mix_##type(float *out, const void *v, size_t stride, const float *p, size_t rows, size_t depth)        \
    {                                                                                                                  \
        mix_any(out, v, stride, p, rows, depth, load_##type);                                                          \
    }                                                                                                                  \
    static void widen_##type(float *out, const void *x, size_t stride, size_t rows, size_t depth)                      \
    {                                                                                                                  \
        widen_any(out, x, stride, rows, depth, load_##type);                                                           \
    }
ATTENTION_KERNELS(f32)
ATTENTION_KERNELS(f16)
ATTENTION_KERNELS(bf16)
ATTENTION_KERNELS(q8_0)
#undef ATTENTION_KERNELS

static void score_tile(float *out, size_t out_stride, const float *q, size_t queries, const float *k, size_t keys,
                       size_t depth)
{
    for (size_t t = 0; t < queries; t++)
        score_f32(out + t * out_stride, k, depth * sizeof *k, q + t * depth, keys, depth);
}

static void mix_tile(float *out, const float *v, const float *p, size_t p_stride, size_t p_step, size_t queries,
                     size_t keys, size_t depth)
{
    for (size_t t = 0; t < queries; t++)
        for (size_t r = 0; r < keys; r++)
            mix_f32(out + t * depth, v + r * depth, depth * sizeof *v, p + t * p_stride + r * p_step, 1, depth);
}

static void blend(float *out, float a, const float *x, float b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = a * out[i] + b * x[i];
}

static float softmax(float *s, size_t n, float factor, float *max, float *sum)
{
    float old = *max, new = old;
    for (size_t i = 0; i < n; i++) {
        s[i] *= factor;
        new = s[i] > new ? s[i] : new;
    }
    float total = 0;
    for (size_t i = 0; i < n; i++) {
        s[i] = exp2f(s[i] - new); /* NaN stays NaN and so reaches the sum */
        total += s[i];
    }
    float before = old == new ? 1 : exp2f(old - new);
    *max = new;
    *sum = *sum * before + total;
    return before;
}

static void softmax_back(float *s, float *dp, size_t n, float factor, float max, float inverse, float delta,
                         float scale)
{
    for (size_t i = 0; i < n; i++) {
        s[i] = exp2f(s[i] * factor - max) * inverse;
        dp[i] = s[i] * (dp[i] - delta) * scale;
    }
}

static void narrow_f32(void *out, const float *x, size_t n)
{
    memcpy(out, x, n * sizeof *x);
}

static void narrow_f16(void *out, const float *x, size_t n)
{
    geul_encode(GEUL_TYPE_F16, x, out, (int64_t)n);
}

static void narrow_bf16(void *out, const float *x, size_t n)
{
    geul_encode(GEUL_TYPE_BF16, x, out, (int64_t)n);
}

static void narrow_q8_0(void *out, const float *x, size_t n)
{
    geul_encode(GEUL_TYPE_Q8_0, x, out, (int64_t)n);
}
