/* kernels_train.h: kernels of gradients over the vector type of kernels_float.h, which includes this. */
#include "backends/cpu/train_lanes.h"

/* The slope of the exact GELU: the normal distribution's integral and density, Phi(x) + x phi(x); off by at most 4e-7.
 * Beyond +-14 both ends are reached, and clamping keeps infinity times 0 away. */
INLINE vf vf_gelu_erf_slope(vf x)
{
    x = vf_min(vf_set1(14.0f), vf_max(vf_set1(-14.0f), x));
    vf tail = vf_mul(vf_set1(0.5f), vf_erfc(x));
    vf density = vf_exp2(vf_mul(vf_mul(vf_set1(-0.72134752f), x), x)); /* e^(-x^2 / 2) */
    density = vf_mul(vf_set1(0.39894228f), density);
    return vf_fma(x, density, vf_below_zero(x, tail, vf_sub(vf_set1(1.0f), tail)));
}

/* GELU is x s(u), the slope s + x s (1 - s) u' with s = 1 / (1 + e^-u), u = 1.5957... (x + 0.044715 x^3). */
INLINE vf vf_gelu_tanh_slope(vf x)
{
    x = vf_min(vf_set1(10.0f), vf_max(vf_set1(-10.0f), x));
    vf square = vf_mul(x, x), one = vf_set1(1.0f), a = vf_mul(vf_set1(1.59576912f), x);
    vf e = vf_exp(vf_mul(a, vf_fma(vf_set1(0.044715f), square, one)));
    vf rest = vf_div(one, vf_add(one, e)), s = vf_mul(e, rest);
    return vf_fma(vf_mul(vf_mul(s, rest), a), vf_fma(vf_set1(0.134145f), square, one), s);
}

static void gelu_erf_back(float *out, const float *dy, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + VF_WIDTH <= n; i += VF_WIDTH)
        vf_store(out + i, vf_mul(vf_load(dy + i), vf_gelu_erf_slope(vf_load(x + i))));
    if (i < n)
        vf_store_n(out + i, vf_mul(vf_load_n(dy + i, n - i), vf_gelu_erf_slope(vf_load_n(x + i, n - i))), n - i);
}

static void gelu_tanh_back(float *out, const float *dy, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + VF_WIDTH <= n; i += VF_WIDTH)
        vf_store(out + i, vf_mul(vf_load(dy + i), vf_gelu_tanh_slope(vf_load(x + i))));
    if (i < n)
        vf_store_n(out + i, vf_mul(vf_load_n(dy + i, n - i), vf_gelu_tanh_slope(vf_load_n(x + i, n - i))), n - i);
}

/* With g = dy * weight and h the row at mean 0 and variance 1: inverse * (g - mean(g) - h mean(g h)). */
static void layernorm_back(float *out, const float *dy, const float *x, const float *weight, float eps, size_t n)
{
    size_t whole = n / VF_WIDTH * VF_WIDTH, rest = n - whole;
    float scale;
    vf m = vf_set1(row_mean(x, eps, n, &scale)), inverse = vf_set1(scale), sum = vf_zero(), products = vf_zero();
    for (size_t i = 0; i < whole; i += VF_WIDTH) {
        vf g = vf_mul(vf_load(dy + i), vf_load(weight + i));
        sum = vf_add(sum, g);
        products = vf_fma(g, vf_mul(vf_sub(vf_load(x + i), m), inverse), products);
    }
    if (rest) {
        vf g = vf_mul(vf_load_n(dy + whole, rest), vf_load_n(weight + whole, rest));
        sum = vf_add(sum, g);
        products = vf_fma(g, vf_mul(vf_sub(vf_load_n(x + whole, rest), m), inverse), products);
    }
    vf start = vf_set1(vf_sum(sum) / (float)n), along = vf_set1(-vf_sum(products) / (float)n);
    for (size_t i = 0; i < whole; i += VF_WIDTH) {
        vf g = vf_mul(vf_load(dy + i), vf_load(weight + i)), h = vf_mul(vf_sub(vf_load(x + i), m), inverse);
        vf_store(out + i, vf_mul(inverse, vf_fma(h, along, vf_sub(g, start))));
    }
    if (rest) {
        vf g = vf_mul(vf_load_n(dy + whole, rest), vf_load_n(weight + whole, rest));
        vf h = vf_mul(vf_sub(vf_load_n(x + whole, rest), m), inverse);
        vf_store_n(out + whole, vf_mul(inverse, vf_fma(h, along, vf_sub(g, start))), rest);
    }
}

static void layernorm_sums(float *dweight, float *dbias, const float *dy, const float *x, float eps, size_t n)
{
    size_t whole = n / VF_WIDTH * VF_WIDTH, rest = n - whole;
    float scale;
    vf m = vf_set1(row_mean(x, eps, n, &scale)), inverse = vf_set1(scale);
    for (size_t i = 0; i < whole; i += VF_WIDTH) {
        vf g = vf_load(dy + i), h = vf_mul(vf_sub(vf_load(x + i), m), inverse);
        vf_store(dweight + i, vf_fma(g, h, vf_load(dweight + i)));
        vf_store(dbias + i, vf_add(g, vf_load(dbias + i)));
    }
    if (rest) {
        vf g = vf_load_n(dy + whole, rest), h = vf_mul(vf_sub(vf_load_n(x + whole, rest), m), inverse);
        vf_store_n(dweight + whole, vf_fma(g, h, vf_load_n(dweight + whole, rest)), rest);
        vf_store_n(dbias + whole, vf_add(g, vf_load_n(dbias + whole, rest)), rest);
    }
}

#define TRAIN_KERNELS                                                                                                  \
    .gelu_erf_back = gelu_erf_back, .gelu_tanh_back = gelu_tanh_back, .layernorm_back = layernorm_back,                \
    .layernorm_sums = layernorm_sums
