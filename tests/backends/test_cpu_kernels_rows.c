/* test_cpu_kernels_rows.c: the kernels that take a row at a time: sums, GELU, layer norm, rotation, forwards and back.
 */
#include "tests/backends/cpu_kernel_cases.h"

void cpu_check_add(void)
{
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s];
        float *a = cpu_randoms(n, 2), *b = cpu_randoms(n, 2);
        double want[LONGEST];
        a[n / 2] = n % 2 ? NAN : INFINITY;
        for (size_t i = 0; i < n; i++)
            want[i] = (double)a[i] + b[i];
        struct cpu_guard out = cpu_guard(n * sizeof(float), s % 2 ? 4 : 0);
        cpu_kernels->add((float *)out.data, a, b, n);
        cpu_check_slot("add", n, out.data, want, 0, 1e-7);
        cpu_guard_free(&out, "add");
        cpu_kernels->add(a, a, b, n);
        cpu_check_slot("add in place", n, a, want, 0, 1e-7);
        free(a);
        free(b);
    }
}

static double gelu_of(double x, bool tanh_form)
{
    if (tanh_form)
        return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    return 0.5 * x * erfc(-x * 0.7071067811865476);
}

static void check_gelu(bool tanh_form)
{
    const char *slot = tanh_form ? "gelu_tanh" : "gelu_erf";
    void (*kernel)(float *, const float *, size_t) = tanh_form ? cpu_kernels->gelu_tanh : cpu_kernels->gelu_erf;
    const float special[] = {0, -0.0f, NAN, INFINITY, -INFINITY, 1e-30f, -1e-30f, 30, -30, 1e30f, -1e30f, 5.9f, -5.9f};
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s];
        float *x = cpu_randoms(n, 3);
        double want[LONGEST];
        for (size_t i = 0; i < n && i < sizeof special / sizeof special[0]; i++)
            x[n - 1 - i] = special[i];
        for (size_t i = 0; i < n; i++)
            want[i] = gelu_of(x[i], tanh_form);
        struct cpu_guard out = cpu_guard(n * sizeof(float), s % 2 ? 4 : 0);
        kernel((float *)out.data, x, n);
        /* minus infinity: NaN as in PyTorch, or 0, which is the limit */
        for (size_t i = 0; i < n; i++)
            if (x[i] == -INFINITY && ((float *)out.data)[i] == 0)
                want[i] = 0;
        cpu_check_slot(slot, n, out.data, want, 4e-7, 2e-7);
        cpu_guard_free(&out, slot);
        free(x);
    }
    for (double v = -9; v < 9; v += 9e-4) { /* the whole range finely */
        float x = (float)v, out;
        kernel(&out, &x, 1);
        double want = gelu_of(x, tanh_form);
        if (!cpu_close(slot, &out, &want, 1, 1.2e-7 * (1 + fabs(v)), 2e-7))
            break;
    }
}

void cpu_check_gelu_erf(void)
{
    check_gelu(false);
}

void cpu_check_gelu_tanh(void)
{
    check_gelu(true);
}

void cpu_check_layernorm(void)
{
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s];
        float *x = cpu_randoms(n, 3), *w = cpu_randoms(n, 1), *b = cpu_randoms(n, 1);
        double want[LONGEST], mean = 0, var = 0;
        for (size_t i = 0; i < n; i++)
            mean += (double)(x[i] += 10) / (double)n;
        for (size_t i = 0; i < n; i++)
            var += (x[i] - mean) * (x[i] - mean) / (double)n;
        for (size_t i = 0; i < n; i++)
            want[i] = (x[i] - mean) / sqrt(var + 1e-5) * w[i] + b[i];
        struct cpu_guard out = cpu_guard(n * sizeof(float), s % 2 ? 4 : 0);
        cpu_kernels->layernorm((float *)out.data, x, w, b, 1e-5f, n);
        cpu_check_slot("layernorm", n, out.data, want, 1e-5, 1e-5);
        cpu_guard_free(&out, "layernorm");
        x[n / 2] = NAN;
        cpu_kernels->layernorm(x, x, w, b, 1e-5f, n);
        CHECK_MSG(isnan(x[0]) && isnan(x[n - 1]), "%s layernorm hides NaN", cpu_variant);
        free(x);
        free(w);
        free(b);
    }
}

void cpu_check_rotate(void)
{
    for (int s = 0; s < N_SIZES; s++) {
        size_t half = sizes[s];
        float *x = cpu_randoms(2 * half, 1), *c = cpu_randoms(half, 1), *d = cpu_randoms(half, 1);
        double want[2 * LONGEST];
        for (size_t i = 0; i < half; i++) {
            want[i] = (double)x[i] * c[i] - (double)x[i + half] * d[i];
            want[i + half] = (double)x[i + half] * c[i] + (double)x[i] * d[i];
        }
        struct cpu_guard out = cpu_guard(2 * half * sizeof(float), 0);
        cpu_kernels->rotate((float *)out.data, x, c, d, half);
        cpu_check_slot("rotate", 2 * half, out.data, want, 1e-6, 1e-6);
        cpu_guard_free(&out, "rotate");
        cpu_kernels->rotate(x, x, c, d, half);
        cpu_check_slot("rotate in place", 2 * half, x, want, 1e-6, 1e-6);
        free(x);
        free(c);
        free(d);
    }
}

void cpu_check_scale(void)
{
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s];
        double want[LONGEST];
        struct cpu_guard x = cpu_guard(n * sizeof(float), 4);
        for (size_t i = 0; i < n; i++)
            want[i] = 0.37f * (double)(((float *)x.data)[i] = test_normal(&cpu_seed));
        cpu_kernels->scale((float *)x.data, 0.37f, n);
        cpu_check_slot("scale", n, x.data, want, 0, 1e-7);
        cpu_guard_free(&x, "scale");
    }
}

void cpu_check_blend(void)
{
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s];
        float *x = cpu_randoms(n, 2);
        double want[LONGEST];
        struct cpu_guard out = cpu_guard(n * sizeof(float), 4);
        for (size_t i = 0; i < n; i++)
            want[i] = 0.25 * (double)(((float *)out.data)[i] = test_normal(&cpu_seed)) + 1.75 * (double)x[i];
        cpu_kernels->blend((float *)out.data, 0.25f, x, 1.75f, n);
        cpu_check_slot("blend", n, out.data, want, 1e-6, 1e-6);
        cpu_guard_free(&out, "blend");
        free(x);
    }
}

/* The slope of GELU at x, whose limits are 0 and 1. */
static double gelu_slope_of(double x, bool tanh_form)
{
    if (fabs(x) > 40)
        return x > 0;
    if (!tanh_form)
        return 0.5 * erfc(-x * 0.7071067811865476) + x * 0.3989422804014327 * exp(-0.5 * x * x);
    double t = tanh(0.7978845608028654 * (x + 0.044715 * x * x * x));
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * 0.7978845608028654 * (1 + 3 * 0.044715 * x * x);
}

static void check_gelu_back(const char *slot, void (*kernel)(float *, const float *, const float *, size_t),
                            bool tanh_form)
{
    const float special[] = {0, -0.0f, NAN, INFINITY, -INFINITY, 1e-30f, 30, -30, 1e30f, -1e30f, 5.9f, -5.9f};
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s];
        float *x = cpu_randoms(n, 3), *dy = cpu_randoms(n, 2);
        double want[LONGEST];
        for (size_t i = 0; i < n && i < sizeof special / sizeof special[0]; i++)
            x[n - 1 - i] = special[i];
        if (n > 20)
            dy[0] = NAN;
        for (size_t i = 0; i < n; i++)
            want[i] = dy[i] * gelu_slope_of(x[i], tanh_form);
        struct cpu_guard out = cpu_guard(n * sizeof(float), s % 2 ? 4 : 0);
        kernel((float *)out.data, dy, x, n);
        cpu_check_slot(slot, n, out.data, want, 4e-6, 1e-6);
        cpu_guard_free(&out, slot);
        kernel(dy, dy, x, n);
        cpu_check_slot(slot, n, dy, want, 4e-6, 1e-6);
        free(x);
        free(dy);
    }
    for (double v = -16; v < 16; v += 9e-4) {
        float x = (float)v, one = 1, out;
        kernel(&out, &one, &x, 1);
        double want = gelu_slope_of(x, tanh_form);
        if (!cpu_close(slot, &out, &want, 1, 1e-6, 0))
            break;
    }
}

void cpu_check_gelu_erf_back(void)
{
    check_gelu_back("gelu_erf_back", cpu_kernels->gelu_erf_back, false);
}

void cpu_check_gelu_tanh_back(void)
{
    check_gelu_back("gelu_tanh_back", cpu_kernels->gelu_tanh_back, true);
}

/* x at mean 0 and variance 1; returns 1 / deviation. */
static double normalize(const float *x, size_t n, double *h)
{
    double mean = 0, var = 0;
    for (size_t i = 0; i < n; i++)
        mean += (double)x[i] / (double)n;
    for (size_t i = 0; i < n; i++)
        var += (x[i] - mean) * (x[i] - mean) / (double)n;
    for (size_t i = 0; i < n; i++)
        h[i] = (x[i] - mean) / sqrt(var + 1e-5);
    return 1 / sqrt(var + 1e-5);
}

void cpu_check_layernorm_back(void)
{
    for (int s = 1; s < N_SIZES; s++) {
        size_t n = sizes[s];
        float *x = cpu_randoms(n, 3), *dy = cpu_randoms(n, 1), *w = cpu_randoms(n, 1);
        double want[LONGEST], h[LONGEST], sum = 0, products = 0;
        for (size_t i = 0; i < n; i++)
            x[i] += 10;
        double inverse = normalize(x, n, h);
        for (size_t i = 0; i < n; i++) {
            sum += (double)dy[i] * w[i] / (double)n;
            products += (double)dy[i] * w[i] * h[i] / (double)n;
        }
        for (size_t i = 0; i < n; i++)
            want[i] = inverse * ((double)dy[i] * w[i] - sum - h[i] * products);
        struct cpu_guard out = cpu_guard(n * sizeof(float), s % 2 ? 4 : 0);
        cpu_kernels->layernorm_back((float *)out.data, dy, x, w, 1e-5f, n);
        cpu_check_slot("layernorm_back", n, out.data, want, 1e-5 * inverse, 1e-5);
        cpu_guard_free(&out, "layernorm_back");
        cpu_kernels->layernorm_back(dy, dy, x, w, 1e-5f, n);
        cpu_check_slot("layernorm_back in place", n, dy, want, 1e-5 * inverse, 1e-5);
        x[n / 2] = NAN;
        cpu_kernels->layernorm_back(dy, dy, x, w, 1e-5f, n);
        CHECK_MSG(isnan(dy[0]) && isnan(dy[n - 1]), "%s layernorm_back hides NaN", cpu_variant);
        free(x);
        free(dy);
        free(w);
    }
}

void cpu_check_layernorm_sums(void)
{
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s];
        float *x = cpu_randoms(n, 3), *dy = cpu_randoms(n, 1);
        double weight[LONGEST], bias[LONGEST], h[LONGEST];
        struct cpu_guard dweight = cpu_guard(n * sizeof(float), 4), dbias = cpu_guard(n * sizeof(float), 0);
        normalize(x, n, h);
        for (size_t i = 0; i < n; i++) {
            weight[i] = (double)(((float *)dweight.data)[i] = test_normal(&cpu_seed)) + dy[i] * h[i];
            bias[i] = (double)(((float *)dbias.data)[i] = test_normal(&cpu_seed)) + (double)dy[i];
        }
        cpu_kernels->layernorm_sums((float *)dweight.data, (float *)dbias.data, dy, x, 1e-5f, n);
        cpu_check_slot("layernorm_sums", n, dweight.data, weight, 1e-5, 1e-5);
        cpu_check_slot("layernorm_sums", n, dbias.data, bias, 1e-6, 1e-6);
        cpu_guard_free(&dweight, "layernorm_sums");
        cpu_guard_free(&dbias, "layernorm_sums");
        free(x);
        free(dy);
    }
}
