/* test_cpu_kernels.c: every slot of every instruction set that this machine has, against the meaning in double. */
#include "tests/backends/cpu_cases.h"
#include "backends/host.h"
#include "backends/search_tile.h"
#include "core/block.h"
#include "core/half.h"

static const size_t sizes[] = CPU_SIZES;
enum { N_SIZES = sizeof sizes / sizeof sizes[0], LONGEST = 300 };

/* The kernels under test. Slots that the instruction set does not fill are skipped: another one's are used there. */
static const struct geul_cpu_kernels *kernels;
static const char *variant;
static uint64_t seed;

static float *randoms(size_t n, double spread)
{
    float *x = malloc((n + 1) * sizeof *x);
    for (size_t i = 0; x && i < n; i++)
        x[i] = (float)(spread * test_normal(&seed));
    return x;
}

static void check(const char *slot, size_t n, const void *got, const double *want, double absolute, double relative)
{
    char what[96];
    snprintf(what, sizeof what, "%s %s n=%zu", variant, slot, n);
    cpu_close(what, got, want, (int64_t)n, absolute, relative);
}

static void check_add(void)
{
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s];
        float *a = randoms(n, 2), *b = randoms(n, 2);
        double want[LONGEST];
        a[n / 2] = n % 2 ? NAN : INFINITY;
        for (size_t i = 0; i < n; i++)
            want[i] = (double)a[i] + b[i];
        struct cpu_guard out = cpu_guard(n * sizeof(float), s % 2 ? 4 : 0);
        kernels->add((float *)out.data, a, b, n);
        check("add", n, out.data, want, 0, 1e-7);
        cpu_guard_free(&out, "add");
        kernels->add(a, a, b, n);
        check("add in place", n, a, want, 0, 1e-7);
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
    void (*kernel)(float *, const float *, size_t) = tanh_form ? kernels->gelu_tanh : kernels->gelu_erf;
    const float special[] = {0, -0.0f, NAN, INFINITY, -INFINITY, 1e-30f, -1e-30f, 30, -30, 1e30f, -1e30f, 5.9f, -5.9f};
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s];
        float *x = randoms(n, 3);
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
        check(slot, n, out.data, want, 4e-7, 2e-7);
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

static void check_gelu_erf(void)
{
    check_gelu(false);
}

static void check_gelu_tanh(void)
{
    check_gelu(true);
}

static void check_layernorm(void)
{
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s];
        float *x = randoms(n, 3), *w = randoms(n, 1), *b = randoms(n, 1);
        double want[LONGEST], mean = 0, var = 0;
        for (size_t i = 0; i < n; i++)
            mean += (double)(x[i] += 10) / (double)n;
        for (size_t i = 0; i < n; i++)
            var += (x[i] - mean) * (x[i] - mean) / (double)n;
        for (size_t i = 0; i < n; i++)
            want[i] = (x[i] - mean) / sqrt(var + 1e-5) * w[i] + b[i];
        struct cpu_guard out = cpu_guard(n * sizeof(float), s % 2 ? 4 : 0);
        kernels->layernorm((float *)out.data, x, w, b, 1e-5f, n);
        check("layernorm", n, out.data, want, 1e-5, 1e-5);
        cpu_guard_free(&out, "layernorm");
        x[n / 2] = NAN;
        kernels->layernorm(x, x, w, b, 1e-5f, n);
        CHECK_MSG(isnan(x[0]) && isnan(x[n - 1]), "%s layernorm hides NaN", variant);
        free(x);
        free(w);
        free(b);
    }
}

static void check_rotate(void)
{
    for (int s = 0; s < N_SIZES; s++) {
        size_t half = sizes[s];
        float *x = randoms(2 * half, 1), *c = randoms(half, 1), *d = randoms(half, 1);
        double want[2 * LONGEST];
        for (size_t i = 0; i < half; i++) {
            want[i] = (double)x[i] * c[i] - (double)x[i + half] * d[i];
            want[i + half] = (double)x[i + half] * c[i] + (double)x[i] * d[i];
        }
        struct cpu_guard out = cpu_guard(2 * half * sizeof(float), 0);
        kernels->rotate((float *)out.data, x, c, d, half);
        check("rotate", 2 * half, out.data, want, 1e-6, 1e-6);
        cpu_guard_free(&out, "rotate");
        kernels->rotate(x, x, c, d, half);
        check("rotate in place", 2 * half, x, want, 1e-6, 1e-6);
        free(x);
        free(c);
        free(d);
    }
}

static void check_scale(void)
{
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s];
        double want[LONGEST];
        struct cpu_guard x = cpu_guard(n * sizeof(float), 4);
        for (size_t i = 0; i < n; i++)
            want[i] = 0.37f * (double)(((float *)x.data)[i] = test_normal(&seed));
        kernels->scale((float *)x.data, 0.37f, n);
        check("scale", n, x.data, want, 0, 1e-7);
        cpu_guard_free(&x, "scale");
    }
}

static void check_blend(void)
{
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s];
        float *x = randoms(n, 2);
        double want[LONGEST];
        struct cpu_guard out = cpu_guard(n * sizeof(float), 4);
        for (size_t i = 0; i < n; i++)
            want[i] = 0.25 * (double)(((float *)out.data)[i] = test_normal(&seed)) + 1.75 * (double)x[i];
        kernels->blend((float *)out.data, 0.25f, x, 1.75f, n);
        check("blend", n, out.data, want, 1e-6, 1e-6);
        cpu_guard_free(&out, "blend");
        free(x);
    }
}

/* Two blocks one after the other must give the weights of one softmax over both. */
static void check_softmax(void)
{
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s];
        float *x = randoms(2 * n, 8), max = -INFINITY, sum = 0;
        double want[2 * LONGEST], high = -INFINITY, total = 0;
        for (size_t i = 0; i < 2 * n; i++)
            high = fmax(high, 0.3f * x[i]);
        for (size_t i = 0; i < 2 * n; i++)
            total += want[i] = exp2((double)0.3f * x[i] - high);
        float before = kernels->softmax(x, n, 0.3f, &max, &sum);
        CHECK_MSG(before == 0, "%s softmax: the first block scales nothing", variant);
        before = kernels->softmax(x + n, n, 0.3f, &max, &sum);
        for (size_t i = 0; i < n; i++)
            x[i] *= before;
        check("softmax", 2 * n, x, want, 1e-6, 1e-5);
        CHECK_MSG(fabs(sum - total) < 2e-6 * total + 1e-6, "%s softmax sum %g, expected %g", variant, sum, total);
        x[n - 1] = NAN;
        kernels->softmax(x, n, 0.3f, &max, &sum);
        CHECK_MSG(isnan(sum), "%s softmax hides NaN", variant);
        free(x);
    }
}

static void check_softmax_back(void)
{
    const double factor = 0.375, max = 1.5, inverse = 0.25, delta = -0.75, scale = 0.3125;
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s];
        float *scores = randoms(n, 3), *slopes = randoms(n, 2);
        double weights[LONGEST], want[LONGEST];
        for (size_t i = 0; i < n; i++) {
            weights[i] = exp2(factor * (double)scores[i] - max) * inverse;
            want[i] = weights[i] * ((double)slopes[i] - delta) * scale;
        }
        struct cpu_guard p = cpu_guard(n * sizeof(float), 4), dp = cpu_guard(n * sizeof(float), s % 2 ? 4 : 0);
        memcpy(p.data, scores, n * sizeof(float));
        memcpy(dp.data, slopes, n * sizeof(float));
        kernels->softmax_back((float *)p.data, (float *)dp.data, n, (float)factor, (float)max, (float)inverse,
                              (float)delta, (float)scale);
        check("softmax_back", n, p.data, weights, 1e-9, 1e-6);
        check("softmax_back", n, dp.data, want, 1e-7, 1e-6);
        cpu_guard_free(&p, "softmax_back");
        cpu_guard_free(&dp, "softmax_back");
        free(scores);
        free(slopes);
    }
}

static void check_softmax_sums(void)
{
    for (size_t s = 0; s < N_SIZES + 2; s++) {
        size_t n = s < N_SIZES ? sizes[s] : s == N_SIZES ? 3001 : 30080;
        float *x = randoms(n, 4);
        double high = -INFINITY, want[2] = {0, 0}, got[2];
        for (size_t i = 0; i < n; i++)
            high = fmax(high, x[i] += 50);
        for (size_t i = 0; i < n; i++) {
            want[0] += exp(x[i] - high);
            want[1] += x[i] - high;
        }
        CHECK_MSG((double)kernels->softmax_sums(x, n, &got[0], &got[1]) == high, "%s softmax_sums: max", variant);
        CHECK_MSG(fabs(got[0] - want[0]) <= 2e-7 * want[0], "%s softmax_sums n=%zu: %.10g, expected %.10g", variant, n,
                  got[0], want[0]);
        CHECK_MSG(fabs(got[1] - want[1]) <= -1e-6 * want[1], "%s softmax_sums n=%zu: rests %.10g, expected %.10g",
                  variant, n, got[1], want[1]);
        x[n / 2] = -INFINITY;
        kernels->softmax_sums(x, n, &got[0], &got[1]);
        CHECK_MSG(n == 1 || isfinite(got[0]), "%s softmax_sums: -inf has no power", variant);
        for (int i = 0; i < 2; i++) {
            x[n - 1 - (size_t)i * (n / 3)] = i ? INFINITY : NAN;
            kernels->softmax_sums(x, n, &got[0], &got[1]);
            CHECK_MSG(isnan(got[0]), "%s softmax_sums n=%zu hides NaN or infinity", variant, n);
        }
        free(x);
    }
}

static void check_softmax_line(void)
{
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s];
        float *x = randoms(n, 4);
        double want[LONGEST];
        x[n / 2] = n % 2 ? NAN : -INFINITY;
        for (size_t i = 0; i < n; i++)
            want[i] = 0.375 * exp((double)x[i] - 5) - 0.0625;
        struct cpu_guard out = cpu_guard(n * sizeof(float), s % 2 ? 4 : 0);
        kernels->softmax_line((float *)out.data, x, n, 5, 0.375f, -0.0625f);
        check("softmax_line", n, out.data, want, 1e-8, 1e-6);
        cpu_guard_free(&out, "softmax_line");
        kernels->softmax_line(x, x, n, 5, 0.375f, -0.0625f);
        check("softmax_line in place", n, x, want, 1e-8, 1e-6);
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
        float *x = randoms(n, 3), *dy = randoms(n, 2);
        double want[LONGEST];
        for (size_t i = 0; i < n && i < sizeof special / sizeof special[0]; i++)
            x[n - 1 - i] = special[i];
        if (n > 20)
            dy[0] = NAN;
        for (size_t i = 0; i < n; i++)
            want[i] = dy[i] * gelu_slope_of(x[i], tanh_form);
        struct cpu_guard out = cpu_guard(n * sizeof(float), s % 2 ? 4 : 0);
        kernel((float *)out.data, dy, x, n);
        check(slot, n, out.data, want, 4e-6, 1e-6);
        cpu_guard_free(&out, slot);
        kernel(dy, dy, x, n);
        check(slot, n, dy, want, 4e-6, 1e-6);
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

static void check_gelu_erf_back(void)
{
    check_gelu_back("gelu_erf_back", kernels->gelu_erf_back, false);
}

static void check_gelu_tanh_back(void)
{
    check_gelu_back("gelu_tanh_back", kernels->gelu_tanh_back, true);
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

static void check_layernorm_back(void)
{
    for (int s = 1; s < N_SIZES; s++) {
        size_t n = sizes[s];
        float *x = randoms(n, 3), *dy = randoms(n, 1), *w = randoms(n, 1);
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
        kernels->layernorm_back((float *)out.data, dy, x, w, 1e-5f, n);
        check("layernorm_back", n, out.data, want, 1e-5 * inverse, 1e-5);
        cpu_guard_free(&out, "layernorm_back");
        kernels->layernorm_back(dy, dy, x, w, 1e-5f, n);
        check("layernorm_back in place", n, dy, want, 1e-5 * inverse, 1e-5);
        x[n / 2] = NAN;
        kernels->layernorm_back(dy, dy, x, w, 1e-5f, n);
        CHECK_MSG(isnan(dy[0]) && isnan(dy[n - 1]), "%s layernorm_back hides NaN", variant);
        free(x);
        free(dy);
        free(w);
    }
}

static void check_layernorm_sums(void)
{
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s];
        float *x = randoms(n, 3), *dy = randoms(n, 1);
        double weight[LONGEST], bias[LONGEST], h[LONGEST];
        struct cpu_guard dweight = cpu_guard(n * sizeof(float), 4), dbias = cpu_guard(n * sizeof(float), 0);
        normalize(x, n, h);
        for (size_t i = 0; i < n; i++) {
            weight[i] = (double)(((float *)dweight.data)[i] = test_normal(&seed)) + dy[i] * h[i];
            bias[i] = (double)(((float *)dbias.data)[i] = test_normal(&seed)) + (double)dy[i];
        }
        kernels->layernorm_sums((float *)dweight.data, (float *)dbias.data, dy, x, 1e-5f, n);
        check("layernorm_sums", n, dweight.data, weight, 1e-5, 1e-5);
        check("layernorm_sums", n, dbias.data, bias, 1e-6, 1e-6);
        cpu_guard_free(&dweight, "layernorm_sums");
        cpu_guard_free(&dbias, "layernorm_sums");
        free(x);
        free(dy);
    }
}

/* --------------------------------------------------------------------- the same bits in every instruction set -- */

static void check_bits(const char *slot, size_t n, const void *got, const void *want, size_t bytes)
{
    CHECK_MSG(memcmp(got, want, bytes) == 0, "%s %s n=%zu: other bits than scalar", variant, slot, n);
}

static void check_dropout(void)
{
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s], zeros = 0;
        float *x = randoms(n, 1), *want = randoms(n, 1);
        struct cpu_guard out = cpu_guard(n * sizeof(float), s % 2 ? 4 : 0);
        x[0] = NAN;
        geul_cpu_kernels_scalar.dropout(want, x, 99, 5, 1u << 30, 1.5f, n);
        kernels->dropout((float *)out.data, x, 99, 5, 1u << 30, 1.5f, n);
        check_bits("dropout", n, out.data, want, n * sizeof *want);
        for (size_t i = 0; i < n; i++) {
            zeros += want[i] == 0;
            CHECK(want[i] == 0 || isnan(want[i]) == isnan(x[i]));
            CHECK(want[i] == 0 || isnan(x[i]) || want[i] == x[i] * 1.5f);
        }
        CHECK_MSG(fabs((double)zeros - 0.25 * (double)n) < 5 * sqrt((double)n), "%zu of %zu fall out", zeros, n);
        kernels->dropout(x, x, 99, 5, 1u << 30, 1.5f, n);
        check_bits("dropout in place", n, x, want, n * sizeof *want);
        cpu_guard_free(&out, "dropout");
        free(x);
        free(want);
    }
}

static void check_squares(void)
{
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s];
        float *x = randoms(n, 1e25);
        double want = 0;
        uint64_t others = 1, others_too = 0;
        if (n > 4) {
            x[0] = NAN;
            x[n - 1] = -INFINITY;
            x[n / 2] = INFINITY;
        }
        for (size_t i = 0; i < n; i++)
            want += isfinite(x[i]) ? (double)x[i] * (double)x[i] : 0;
        double got = kernels->squares(x, n, &others), scalar = geul_cpu_kernels_scalar.squares(x, n, &others_too);
        CHECK_MSG(fabs(got - want) <= 1e-14 * want && got == scalar, "%s squares n=%zu: %g, expected %g", variant, n,
                  got, want);
        CHECK_INT(others, n > 4 ? 4 : 1);
        free(x);
    }
}

static const struct geul_cpu_step some_step = {.scale = 0.5f,
                                               .keep = 0.99f,
                                               .rate = 0.125f,
                                               .decay = {0.9f, 0.999f},
                                               .mix = {0.1f, 0.001f},
                                               .root = 0.04f,
                                               .epsilon = 1e-8f,
                                               .factor = 0.7f};

/* Copies of n values between canaries. */
static struct cpu_guard guarded(const float *x, size_t n)
{
    struct cpu_guard g = cpu_guard(n * sizeof *x, 4);
    memcpy(g.data, x, n * sizeof *x);
    return g;
}

/* Weights, gradients and two states (second ones not negative) before a step and what it should make of them. */
struct stepped {
    float *x[4];
    struct cpu_guard got[4];
    double want[4][LONGEST];
};

static struct stepped *stepped_new(size_t n)
{
    struct stepped *t = calloc(1, sizeof *t);
    for (int j = 0; j < 4; j++) {
        t->x[j] = randoms(n, 1);
        for (size_t i = 0; j == 3 && i < n; i++)
            t->x[j][i] *= t->x[j][i];
        t->got[j] = guarded(t->x[j], n);
        for (size_t i = 0; i < n; i++)
            t->want[j][i] = t->x[j][i];
    }
    return t;
}

static float *stepped_got(const struct stepped *t, int j)
{
    return (float *)(void *)t->got[j].data;
}

static void stepped_free(struct stepped *t, const char *slot, size_t n)
{
    for (int j = 0; j < 4; j++) {
        check(slot, n, t->got[j].data, t->want[j], 3e-7, 1e-6);
        check_bits(slot, n, t->got[j].data, t->x[j], n * sizeof(float));
        cpu_guard_free(&t->got[j], slot);
        free(t->x[j]);
    }
    free(t);
}

static void check_sgd(void)
{
    const struct geul_cpu_step *k = &some_step;
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s];
        struct stepped *t = stepped_new(n);
        for (size_t i = 0; i < n; i++) {
            t->want[2][i] = t->want[2][i] * k->decay[0] + t->want[1][i] * k->scale;
            t->want[0][i] = t->want[0][i] * k->keep - k->rate * t->want[2][i];
            t->want[1][i] = 0;
        }
        kernels->sgd(stepped_got(t, 0), stepped_got(t, 1), stepped_got(t, 2), k, n);
        geul_cpu_kernels_scalar.sgd(t->x[0], t->x[1], t->x[2], k, n);
        stepped_free(t, "sgd", n);
    }
}

static void check_adamw(void)
{
    const struct geul_cpu_step *k = &some_step;
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s];
        struct stepped *t = stepped_new(n);
        for (size_t i = 0; i < n; i++) {
            double d = t->want[1][i] * k->scale;
            t->want[2][i] += k->mix[0] * (d - t->want[2][i]);
            t->want[3][i] = t->want[3][i] * k->decay[1] + k->mix[1] * d * d;
            t->want[0][i] =
                t->want[0][i] * k->keep - k->rate * t->want[2][i] / (sqrt(t->want[3][i]) / k->root + k->epsilon);
            t->want[1][i] = 0;
        }
        kernels->adamw(stepped_got(t, 0), stepped_got(t, 1), stepped_got(t, 2), stepped_got(t, 3), k, n);
        geul_cpu_kernels_scalar.adamw(t->x[0], t->x[1], t->x[2], t->x[3], k, n);
        stepped_free(t, "adamw", n);
    }
}

static void check_adafactor_step(void)
{
    const struct geul_cpu_step *k = &some_step;
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s];
        struct stepped *t = stepped_new(n);
        t->x[3][0] = 1e-20f; /* below the least moment */
        stepped_got(t, 3)[0] = 1e-20f;
        t->want[3][0] = (double)1e-20f;
        for (size_t i = 0; i < n; i++) {
            double moment = fmax(k->factor * t->want[3][i], k->epsilon);
            t->want[0][i] = t->want[0][i] * k->keep - k->rate * (t->want[1][i] * k->scale / sqrt(moment));
            t->want[1][i] = 0;
        }
        kernels->adafactor_step(stepped_got(t, 0), stepped_got(t, 1), stepped_got(t, 3), k, n);
        geul_cpu_kernels_scalar.adafactor_step(t->x[0], t->x[1], t->x[3], k, n);
        stepped_free(t, "adafactor_step", n);
    }
}

static void check_adafactor_norm(void)
{
    const struct geul_cpu_step *k = &some_step;
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s];
        struct stepped *t = stepped_new(n);
        double want = 0;
        for (size_t i = 0; i < n; i++) {
            double change = t->want[1][i] * k->scale / sqrt(fmax(k->factor * t->want[3][i], k->epsilon));
            want += change * change;
        }
        double got = kernels->adafactor_norm(stepped_got(t, 1), stepped_got(t, 3), k, n);
        double scalar = geul_cpu_kernels_scalar.adafactor_norm(t->x[1], t->x[3], k, n);
        CHECK_MSG(fabs(got - want) <= 1e-6 * want && got == scalar, "%s adafactor_norm n=%zu: %g, expected %g", variant,
                  n, got, want);
        stepped_free(t, "adafactor_norm", n);
    }
}

static void check_adafactor_sums(void)
{
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s];
        struct stepped *t = stepped_new(n);
        double want = 0;
        for (size_t i = 0; i < n; i++) {
            double square = pow(0.3f * t->want[1][i], 2);
            want += square;
            t->want[3][i] += square;
        }
        double got = kernels->adafactor_sums(stepped_got(t, 3), stepped_got(t, 1), 0.3f, n);
        double scalar = geul_cpu_kernels_scalar.adafactor_sums(t->x[3], t->x[1], 0.3f, n);
        CHECK_MSG(fabs(got - want) <= 1e-6 * want && got == scalar, "%s adafactor_sums n=%zu: %g, expected %g", variant,
                  n, got, want);
        stepped_free(t, "adafactor_sums", n);
    }
}

/* Values over many magnitudes come back within one step of the code, the largest as it was, and on average right. */
static void check_state8(bool negative)
{
    enum { N = 256, ROUNDS = 400 };
    const double least = negative ? 0x1.8p-16 : 0x1.2p-32; /* of what is not 0, relative to the largest */
    float x[N], back[N], back_too[N], want_back[N];
    double mean[N] = {0}, largest = 0;
    for (int i = 0; i < N; i++) {
        x[i] = (float)pow(10, -(double)(i % 32) / 6) * (negative && i % 3 == 0 ? -1.0f : 1.0f);
        largest = fmax(largest, fabs((double)x[i]));
    }
    x[77] = 0;
    for (uint64_t round = 0; round < ROUNDS; round++) {
        size_t n = sizes[round % (N_SIZES - 2)];
        struct cpu_guard block = cpu_guard(4 * GEUL_STATE8_WORDS, 4);
        uint8_t want[4 * GEUL_STATE8_WORDS];
        n = n < N ? n : N;
        kernels->state8_write(block.data, x, negative, round, n);
        geul_cpu_kernels_scalar.state8_write(want, x, negative, round, n);
        check_bits("state8_write", n, block.data, want, sizeof want);
        kernels->state8_read(back_too, block.data, negative, n);
        geul_cpu_kernels_scalar.state8_read(want_back, want, negative, n);
        check_bits("state8_read", n, back_too, want_back, n * sizeof *back_too);
        kernels->state8_write(block.data, x, negative, round, N);
        kernels->state8_read(back, block.data, negative, N);
        for (int i = 0; i < N; i++) {
            mean[i] += (double)back[i] / ROUNDS;
            CHECK_MSG(fabs((double)back[i] - (double)x[i]) <= 0.125 * fabs((double)x[i]) + least * largest,
                      "%s state8: %g became %g", variant, x[i], back[i]);
        }
        CHECK(back[0] == x[0] && back[77] == 0);
        cpu_guard_free(&block, "state8_write");
    }
    for (int i = 0; i < N; i++)
        CHECK_MSG(fabs(mean[i] - (double)x[i]) <= 0.02 * fabs((double)x[i]) + (negative ? 4e-6 : 0),
                  "%s state8: %g becomes %g on average", variant, x[i], mean[i]);
    const float odd[] = {NAN, INFINITY, 1, 1e-30f}; /* not a number counts as 0, infinity as the largest number */
    uint8_t block[4 * GEUL_STATE8_WORDS] = {0};
    kernels->state8_write(block, odd, negative, 1, 4);
    kernels->state8_read(back, block, negative, 4);
    CHECK(back[0] == 0 && back[1] > 3.4e38f && isfinite(back[1]) && isfinite(back[2]) && isfinite(back[3]));
    memset(block, 0, sizeof block);
    kernels->state8_read(back, block, negative, N);
    for (int i = 0; i < N; i++)
        CHECK(back[i] == 0);
}

static void check_state8_read(void)
{
    check_state8(true);
}

static void check_state8_write(void)
{
    check_state8(false);
}

/* Weights of the type (rows, k), as blocks with stride bytes between rows and as doubles. */
struct weights {
    uint8_t *data;
    double *values;
    size_t stride;
};

static struct weights make_weights(enum geul_type type, size_t rows, size_t k)
{
    struct weights w = {.stride = k / (size_t)geul_type_block(type) * geul_type_bytes(type)};
    w.stride += geul_type_bytes(type); /* rows of a view need not touch */
    w.data = malloc(rows * w.stride);
    w.values = malloc(rows * k * sizeof *w.values);
    float *x = randoms(k, 1);
    for (size_t r = 0; r < rows; r++) {
        for (size_t i = 0; i < k; i++)
            x[i] = (float)test_normal(&seed);
        if (k > 1)
            x[test_random(&seed) % k] = -4; /* the extreme code of Q4_0 */
        geul_encode(type, x, w.data + r * w.stride, (int64_t)k);
        geul_decode(type, w.data + r * w.stride, x, (int64_t)k);
        for (size_t i = 0; i < k; i++)
            w.values[r * k + i] = x[i];
    }
    if (geul_type_block(type) > 1 && type == GEUL_TYPE_Q8_0) {
        memset(w.data + 2, 0x80, 32); /* -128, which files may hold; the sums must not overflow */
        geul_decode(type, w.data, x, 32);
        for (size_t i = 0; i < 32; i++)
            w.values[i] = x[i];
    }
    free(x);
    return w;
}

static void free_weights(struct weights *w)
{
    free(w->data);
    free(w->values);
}

/* What the product sees of activations: int8 blocks for block types, bfloat16 where the panel rounds them. */
static void seen_activations(float *x, size_t k, bool blocks, bool bf16)
{
    for (size_t i = 0; blocks && i < k; i += 32) {
        float amax = 0;
        for (size_t j = 0; j < 32; j++)
            amax = fabsf(x[i + j]) > amax ? fabsf(x[i + j]) : amax;
        for (size_t j = 0; amax > 0 && j < 32; j++)
            x[i + j] = (float)lrintf(x[i + j] * (127.0f / amax)) * (amax / 127.0f);
    }
    for (size_t i = 0; bf16 && i < k; i++)
        x[i] = geul_bf16_to_f32(geul_f32_to_bf16(x[i]));
}

/* One tile of rows weight rows and tokens tokens. */
static void check_tile(const struct geul_cpu_panel *g, enum geul_type type, size_t k, int rows, int tokens, bool bf16)
{
    size_t mr = (size_t)g->mr;
    struct weights w = make_weights(type, (size_t)rows, k);
    float *x = randoms((size_t)tokens * (k + 3), 1), *start = randoms(mr, 1);
    struct cpu_guard panel = cpu_guard(geul_cpu_packed_bytes(k, g->k_step, g->w_step), 0);
    struct cpu_guard packed = cpu_guard(geul_cpu_packed_bytes(k, g->k_step, g->x_step), 0);
    struct cpu_guard out = cpu_guard(mr * (size_t)tokens * sizeof(float), 0);
    struct geul_cpu_ahead ahead = {w.data, w.data + w.stride};
    for (size_t i = 0; bf16 && type == GEUL_TYPE_F32 && i < (size_t)rows * k; i++) /* rounded too */
        w.values[i] = geul_bf16_to_f32(geul_f32_to_bf16((float)w.values[i]));
    g->pack_w(panel.data, w.data, w.stride, rows, k, tokens % 2 ? &ahead : NULL);
    g->pack_x(packed.data, x, (k + 3) * sizeof(float), tokens, k);
    g->tile((float *)out.data, mr, panel.data, packed.data, k, start, tokens);
    g->tile((float *)out.data, mr, panel.data, packed.data, k, NULL, tokens); /* a second time on top */
    for (int t = 0; t < tokens; t++) {
        seen_activations(x + (size_t)t * (k + 3), k, g->pack_w_outer == NULL && geul_type_block(type) > 1, bf16);
        double want[128], size = 1;
        for (size_t r = 0; r < (size_t)rows; r++) {
            want[r] = start[r];
            for (size_t i = 0; i < k; i++) {
                double product = w.values[r * k + i] * x[(size_t)t * (k + 3) + i];
                want[r] += 2 * product;
                size = fmax(size, fabs(product));
            }
        }
        char what[96];
        snprintf(what, sizeof what, "%s panel %s k=%zu rows=%d token %d of %d", variant, geul_type_name(type), k, rows,
                 t, tokens);
        cpu_close(what, (float *)out.data + (size_t)t * mr, want, rows, 1e-6 * size * sqrt((double)k), 2e-6);
    }
    cpu_guard_free(&panel, "pack_w");
    cpu_guard_free(&packed, "pack_x");
    cpu_guard_free(&out, "tile");
    free(x);
    free(start);
    free_weights(&w);
}

/* Fewer tokens, and every token alone with k in two pieces, must give the bits of the whole tile; a damaged activation
 * must show. */
static void check_invariance(const struct geul_cpu_panel *g, enum geul_type type, size_t k)
{
    size_t mr = (size_t)g->mr, nr = (size_t)g->nr, step = geul_type_block(type) > 1 ? 256 : g->k_step;
    size_t half = k / 2 / step * step, bytes = geul_type_bytes(type);
    struct weights w = make_weights(type, mr, k);
    float *x = randoms(nr * k, 1), *start = randoms(mr, 1);
    float *whole = malloc(mr * nr * sizeof *whole), *alone = malloc(mr * nr * sizeof *alone);
    struct cpu_guard panel = cpu_guard(geul_cpu_packed_bytes(k, g->k_step, g->w_step), 0);
    struct cpu_guard packed = cpu_guard(geul_cpu_packed_bytes(k, g->k_step, g->x_step), 0);
    g->pack_w(panel.data, w.data, w.stride, g->mr, k, NULL);
    g->pack_x(packed.data, x, k * sizeof *x, g->nr, k);
    g->tile(whole, mr, panel.data, packed.data, k, start, g->nr);
    for (size_t t = 1; t < nr; t++) {
        g->pack_x(packed.data, x, k * sizeof *x, (int)t, k);
        g->tile(alone, mr, panel.data, packed.data, k, start, (int)t);
        CHECK_MSG(memcmp(alone, whole, mr * t * sizeof *alone) == 0, "%s panel %s: %zu tokens have other bits than %zu",
                  variant, geul_type_name(type), t, nr);
    }
    for (size_t t = 0; t < nr; t++) {
        const uint8_t *rest = w.data + half / (size_t)geul_type_block(type) * bytes;
        g->pack_w(panel.data, w.data, w.stride, g->mr, half, NULL);
        g->pack_x(packed.data, x + t * k, k * sizeof *x, 1, half);
        g->tile(alone, mr, panel.data, packed.data, half, start, 1);
        g->pack_w(panel.data, rest, w.stride, g->mr, k - half, NULL);
        g->pack_x(packed.data, x + t * k + half, k * sizeof *x, 1, k - half);
        g->tile(alone, mr, panel.data, packed.data, k - half, NULL, 1);
        CHECK_MSG(memcmp(alone, whole + t * mr, mr * sizeof *alone) == 0,
                  "%s panel %s: token %zu of %zu has other bits than alone", variant, geul_type_name(type), t, nr);
    }
    x[k - 1] = k % 64 ? INFINITY : NAN;
    g->pack_w(panel.data, w.data, w.stride, g->mr, k, NULL);
    g->pack_x(packed.data, x, k * sizeof *x, 1, k);
    g->tile(alone, mr, panel.data, packed.data, k, start, 1);
    CHECK_MSG(!isfinite(alone[0]) && !isfinite(alone[mr - 1]), "%s panel %s hides NaN", variant, geul_type_name(type));
    cpu_guard_free(&panel, "pack_w");
    cpu_guard_free(&packed, "pack_x");
    free(x);
    free(start);
    free(whole);
    free(alone);
    free_weights(&w);
}

/* All weights at one end of their integers and all activations equal: sums on the way must not overflow. */
static void check_extremes(const struct geul_cpu_panel *g, enum geul_type type)
{
    const struct geul_block_format *f = geul_block_format(type);
    size_t n = (size_t)f->block;
    for (int high = 0; high < 2; high++) {
        struct geul_block b = {.d = 1};
        int q = high ? f->q_high : f->q_low;
        uint8_t bytes[GEUL_BLOCK_MAX];
        float x[GEUL_BLOCK_MAX], out[128], zeros[128] = {0};
        double want[128];
        for (size_t i = 0; i < n; i++) {
            b.scale[i / (size_t)f->group] = 1;
            b.min[i / (size_t)f->group] = f->min_high == 1;
            b.q[i] = (int16_t)q;
            x[i] = 1;
        }
        geul_block_pack(type, &b, bytes);
        for (int r = 0; r < g->mr; r++)
            want[r] = (double)n * (f->codebook ? f->codebook[q] : q);
        struct cpu_guard panel = cpu_guard(geul_cpu_packed_bytes(n, g->k_step, g->w_step), 0);
        struct cpu_guard packed = cpu_guard(geul_cpu_packed_bytes(n, g->k_step, g->x_step), 0);
        g->pack_w(panel.data, bytes, 0, g->mr, n, NULL);
        g->pack_x(packed.data, x, 0, 1, n);
        g->tile(out, (size_t)g->mr, panel.data, packed.data, n, zeros, 1);
        check(geul_type_name(type), (size_t)g->mr, out, want, 0, 2e-6);
        cpu_guard_free(&panel, "pack_w");
        cpu_guard_free(&packed, "pack_x");
    }
}

/* Any number of rows, with and without a start: the bits of the panel's tile of one token, and nothing beyond. */
static void check_dot(enum geul_type type)
{
    const struct geul_cpu_dot *dot = kernels->dot[type];
    const struct geul_cpu_panel *g = kernels->panel[type];
    enum { ROWS = 53 };
    REQUIRE(g != NULL);
    for (size_t steps = 1; steps <= 3; steps++) {
        size_t k = steps * dot->k_step, mr = (size_t)g->mr;
        struct weights w = make_weights(type, ROWS, k);
        float *x = randoms(k, 1), *start = randoms(ROWS + mr, 1), *want = malloc((ROWS + mr) * sizeof *want);
        if (steps == 3)
            x[k - 1] = INFINITY;
        struct cpu_guard panel = cpu_guard(geul_cpu_packed_bytes(k, g->k_step, g->w_step), 0);
        struct cpu_guard tokens = cpu_guard(geul_cpu_packed_bytes(k, g->k_step, g->x_step), 0);
        struct cpu_guard token = cpu_guard(geul_cpu_packed_bytes(k, dot->k_step, dot->x_step), 0);
        g->pack_x(tokens.data, x, k * sizeof *x, 1, k);
        for (size_t i = 0; i < steps; i++) /* parts are packed apart */
            dot->pack_x(token.data + i * dot->x_step, x + i * dot->k_step, dot->k_step);
        for (int rows = 1; rows <= ROWS; rows += 1 + rows / 4) {
            const float *from = rows % 2 ? start : NULL;
            memset(want, 0, (ROWS + mr) * sizeof *want);
            for (size_t r = 0; r < (size_t)rows; r += mr) {
                int here = (size_t)rows - r < mr ? rows - (int)r : g->mr;
                g->pack_w(panel.data, w.data + r * w.stride, w.stride, here, k, NULL);
                g->tile(want + r, mr, panel.data, tokens.data, k, from ? from + r : NULL, 1);
            }
            struct cpu_guard out = cpu_guard((size_t)rows * sizeof(float), 4);
            struct geul_cpu_ahead ahead = {w.data, w.data + w.stride};
            dot->rows((float *)out.data, w.data, w.stride, token.data, k, rows, from, &ahead);
            for (int r = 0; r < rows; r++)
                CHECK_MSG(memcmp((float *)out.data + r, want + r, sizeof *want) == 0 ||
                              (isnan(want[r]) && isnan(((float *)out.data)[r])),
                          "%s dot %s: row %d of %d is not the panel's", variant, geul_type_name(type), r, rows);
            cpu_guard_free(&out, "dot");
        }
        cpu_guard_free(&panel, "pack_w");
        cpu_guard_free(&tokens, "pack_x");
        cpu_guard_free(&token, "pack_x");
        free(x);
        free(start);
        free(want);
        free_weights(&w);
    }
}

/* pack_w_outer of the transposed weights must give the panel of pack_w. */
static void check_outer(const struct geul_cpu_panel *g, enum geul_type type, size_t k, int rows)
{
    size_t bytes = geul_type_bytes(type), n = (size_t)rows, size = geul_cpu_packed_bytes(k, g->k_step, g->w_step);
    struct weights w = make_weights(type, n, k);
    uint8_t *turned = malloc(k * n * bytes);
    for (size_t i = 0; i < k; i++)
        for (size_t r = 0; r < n; r++)
            memcpy(turned + (i * n + r) * bytes, w.data + r * w.stride + i * bytes, bytes);
    struct cpu_guard a = cpu_guard(size, 0), b = cpu_guard(size, 0);
    g->pack_w(a.data, w.data, w.stride, rows, k, NULL);
    g->pack_w_outer(b.data, turned, n * bytes, rows, k);
    CHECK_MSG(memcmp(a.data, b.data, size) == 0, "%s pack_w_outer %s k=%zu rows=%d", variant, geul_type_name(type), k,
              rows);
    cpu_guard_free(&a, "pack_w");
    cpu_guard_free(&b, "pack_w_outer");
    free(turned);
    free_weights(&w);
}

/* pack_x_outer of the transposed tokens must give what pack_x does. */
static void check_x_outer(const struct geul_cpu_panel *g, size_t k, int tokens)
{
    size_t n = (size_t)tokens, size = geul_cpu_packed_bytes(k, g->k_step, g->x_step);
    float *x = randoms(n * k, 1), *turned = malloc(k * n * sizeof *turned);
    for (size_t i = 0; i < k; i++)
        for (size_t t = 0; t < n; t++)
            turned[i * n + t] = x[t * k + i];
    struct cpu_guard a = cpu_guard(size, 0), b = cpu_guard(size, 0);
    g->pack_x(a.data, x, k * sizeof *x, tokens, k);
    g->pack_x_outer(b.data, turned, n * sizeof *x, tokens, k);
    CHECK_MSG(memcmp(a.data, b.data, size) == 0, "%s pack_x_outer k=%zu tokens=%d", variant, k, tokens);
    cpu_guard_free(&a, "pack_x");
    cpu_guard_free(&b, "pack_x_outer");
    free(x);
    free(turned);
}

static void check_panels(const struct geul_cpu_panel *g, enum geul_type type)
{
    size_t block = (size_t)geul_type_block(type);
    bool bf16 = strcmp(variant, "avx512bf16") == 0;
    for (int s = 0; s < N_SIZES; s++) {
        size_t k = block > 1 ? (sizes[s] / (block == 32 ? 8 : 64) + 1) * block : sizes[s];
        int rows = 1 + (int)(test_random(&seed) % (uint64_t)g->mr);
        check_tile(g, type, k, g->mr, g->nr, bf16);
        check_tile(g, type, k, rows, 1 + (int)(test_random(&seed) % (uint64_t)g->nr), bf16);
        check_invariance(g, type, k);
        if (g->pack_w_outer)
            check_outer(g, type, k, rows);
        if (g->pack_x_outer) {
            check_x_outer(g, k, g->nr);
            check_x_outer(g, k, 1 + rows % g->nr);
        }
    }
    for (int rows = 1; rows <= g->mr; rows++)
        check_tile(g, type, block > 96 ? block : 96, rows, 1 + rows % g->nr, bf16);
    if (block > 1)
        check_extremes(g, type);
    CHECK_MSG(g->k_block % g->k_step == 0 && g->k_block % 256 == 0, "%s: k_block must hold whole blocks", variant);
}

static void check_panel(enum geul_type type)
{
    check_panels(kernels->panel[type], type);
}

static void check_cache(enum geul_type type)
{
    CHECK_MSG(kernels->cache[type]->k_step == 1 && kernels->cache[type]->pack_w_outer, "attention relies on these");
    check_panels(kernels->cache[type], type);
}

static void check_rounded(enum geul_type type)
{
    const struct geul_cpu_panel *g = kernels->rounded[type];
    CHECK_MSG(g->pack_w_outer && g->pack_x_outer, "training relies on these");
    check_panels(g, GEUL_TYPE_F32);
}

/* A depth near size number s that the type can have. */
static size_t depth_of(enum geul_type type, int s)
{
    return geul_type_block(type) > 1 ? sizes[s] / 40 * 32 + 32 : sizes[s];
}

/* Scores of rows 1, 2, ... and the same bits for a row whatever is computed with it. */
static void check_score(enum geul_type type)
{
    enum { ROWS = 37 };
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = depth_of(type, s);
        struct weights k = make_weights(type, ROWS, n);
        float *q = randoms(n, 1), one;
        double want[ROWS], size = 1;
        for (size_t r = 0; r < ROWS; r++) {
            want[r] = 0;
            for (size_t i = 0; i < n; i++) {
                want[r] += k.values[r * n + i] * q[i];
                size = fmax(size, fabs(k.values[r * n + i] * q[i]));
            }
        }
        for (size_t rows = 1; rows <= ROWS; rows += 1 + rows % 5) {
            struct cpu_guard out = cpu_guard(rows * sizeof(float), 4);
            kernels->score[type]((float *)out.data, k.data, k.stride, q, rows, n);
            check("score", rows, out.data, want, 3e-7 * size * sqrt((double)n), 1e-6);
            kernels->score[type](&one, k.data + (rows - 1) * k.stride, k.stride, q, 1, n);
            CHECK_MSG(memcmp(&one, out.data + (rows - 1) * sizeof one, sizeof one) == 0,
                      "%s score: a row depends on its neighbours", variant);
            cpu_guard_free(&out, "score");
        }
        free(q);
        free_weights(&k);
    }
}

/* The tile kernels give the bits of those for one query. */
static void check_score_tile(void)
{
    enum { QUERIES = 12, KEYS = 40 };
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s];
        struct weights k = make_weights(GEUL_TYPE_F32, KEYS, n);
        float *q = randoms(QUERIES * n, 1), *packed = malloc(KEYS * n * sizeof *packed);
        kernels->widen[GEUL_TYPE_F32](packed, k.data, k.stride, KEYS, n);
        for (size_t keys = 4; keys <= KEYS; keys += 12) {
            struct cpu_guard out = cpu_guard(QUERIES * KEYS * sizeof(float), 4);
            kernels->score_tile((float *)out.data, KEYS, q, QUERIES, packed, keys, n);
            for (size_t t = 0; t < QUERIES; t++) {
                float alone[KEYS];
                kernels->score[GEUL_TYPE_F32](alone, packed, n * sizeof *packed, q + t * n, keys, n);
                CHECK_MSG(memcmp(alone, (float *)out.data + t * KEYS, keys * sizeof *alone) == 0,
                          "%s score_tile: query %zu of depth %zu has other bits than alone", variant, t, n);
            }
            cpu_guard_free(&out, "score_tile");
        }
        free(q);
        free(packed);
        free_weights(&k);
    }
}

/* Weights with the queries in rows, and in columns. */
static void check_mix_tile(void)
{
    enum { QUERIES = 8, KEYS = 21, STRIDE = 24 };
    for (int s = 0; s < 2 * N_SIZES; s++) {
        size_t n = sizes[s / 2], stride = s % 2 ? 1 : STRIDE, step = s % 2 ? STRIDE : 1;
        float *v = randoms(KEYS * n, 1), *p = randoms(STRIDE * STRIDE, 1), *want = randoms(QUERIES * n, 1);
        struct cpu_guard out = cpu_guard(QUERIES * n * sizeof(float), 4);
        memcpy(out.data, want, QUERIES * n * sizeof *want);
        kernels->mix_tile((float *)out.data, v, p, stride, step, QUERIES, KEYS, n);
        for (size_t t = 0; t < QUERIES; t++) {
            float row[KEYS];
            for (size_t r = 0; r < KEYS; r++)
                row[r] = p[t * stride + r * step];
            kernels->mix[GEUL_TYPE_F32](want + t * n, v, n * sizeof *v, row, KEYS, n);
        }
        CHECK_MSG(memcmp(want, out.data, QUERIES * n * sizeof *want) == 0,
                  "%s mix_tile: depth %zu has other bits than one query alone", variant, n);
        cpu_guard_free(&out, "mix_tile");
        free(v);
        free(p);
        free(want);
    }
}

static void check_widen(enum geul_type type)
{
    enum { ROWS = 5 };
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = depth_of(type, s);
        struct weights x = make_weights(type, ROWS, n);
        struct cpu_guard out = cpu_guard(ROWS * n * sizeof(float), 4);
        kernels->widen[type]((float *)out.data, x.data, x.stride, ROWS, n);
        check("widen", ROWS * n, out.data, x.values, 0, 0);
        cpu_guard_free(&out, "widen");
        free_weights(&x);
    }
}

static void check_mix(enum geul_type type)
{
    enum { ROWS = 9 };
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = depth_of(type, s);
        struct weights v = make_weights(type, ROWS, n);
        float *p = randoms(ROWS, 1);
        double want[LONGEST];
        struct cpu_guard out = cpu_guard(n * sizeof(float), 4);
        for (size_t i = 0; i < n; i++) {
            want[i] = ((float *)out.data)[i] = test_normal(&seed);
            for (size_t r = 0; r < ROWS; r++)
                want[i] += (double)p[r] * v.values[r * n + i];
        }
        kernels->mix[type]((float *)out.data, v.data, v.stride, p, ROWS, n);
        check("mix", n, out.data, want, 1e-5, 1e-6);
        cpu_guard_free(&out, "mix");
        free(p);
        free_weights(&v);
    }
}

/* Bit for bit what the reference encoding gives. */
static void check_narrow(enum geul_type type)
{
    const float special[] = {NAN,   INFINITY, -INFINITY, 0,       -0.0f,    65504,  65519.9f,       65520,        1e30f,
                             6e-8f, 3e-8f,    2.9e-8f,   6.1e-5f, -6.2e-5f, 1e-40f, 1.00048828125f, 1.0009765625f};
    for (int s = 0; s < N_SIZES; s++) {
        size_t block = (size_t)geul_type_block(type), n = block > 1 ? depth_of(type, s) : sizes[s];
        size_t bytes = n / block * geul_type_bytes(type);
        float *x = randoms(n, 100);
        uint16_t want[2 * LONGEST], got[2 * LONGEST];
        for (size_t i = 0; i < n && i < sizeof special / sizeof special[0]; i++)
            x[n - 1 - i] = special[i];
        for (size_t i = 0; block > 1 && i < block; i++) /* one block whose steps are halves of integers */
            x[n - block + i] = i == 7 ? 127 : (float)i - 15.5f;
        geul_encode(type, x, want, (int64_t)n);
        struct cpu_guard out = cpu_guard(bytes, 2 * (size_t)(s % 2));
        kernels->narrow[type](out.data, x, n);
        memcpy(got, out.data, bytes);
        for (size_t i = 0; i < bytes / 2; i++) {
            bool nan = geul_type_bytes(type) == 2 && isnan(x[i]) && (got[i] & 0x7f80) == (want[i] & 0x7f80);
            if (!CHECK_MSG(got[i] == want[i] || nan, "%s narrow %s: %.9g gives %04x, expected %04x", variant,
                           geul_type_name(type), x[i * 2 / geul_type_bytes(type) * block], got[i], want[i]))
                break;
        }
        cpu_guard_free(&out, "narrow");
        free(x);
    }
}

/* Every instruction set finds the same integers: the file must not depend on the machine that wrote it. */
static void check_search(void)
{
    for (int type = 0; type < GEUL_TYPE_COUNT; type++) {
        const struct geul_block_format *format = geul_block_format((enum geul_type)type);
        for (int round = 0; format && round < 20; round++) {
            struct geul_search_tile want, got;
            memset(&want, 0, sizeof want);
            for (int l = 0; l < GEUL_SEARCH_LANES; l++)
                want.unit[l] = 0x1p-6f;
            for (int i = 0; i < format->group; i++)
                for (int l = 0; l < GEUL_SEARCH_LANES; l++) {
                    float x = test_normal(&seed) * 0.5f, heavy = (float)test_uniform(&seed, 0, 1);
                    want.x[i][l] = round % 3 == 2 && l % 2 ? 0 : fmaxf(-2, fminf(2, x));
                    want.weight[i][l] = round % 2 ? heavy * heavy : 1;
                }
            got = want;
            geul_cpu_kernels_scalar.search(format, &want);
            kernels->search(format, &got);
            if (!CHECK_MSG(memcmp(&want, &got, sizeof want) == 0, "%s search %s differs from scalar", variant,
                           geul_type_name((enum geul_type)type)))
                break;
        }
    }
}

static void check_peak_f32(void)
{
    CHECK(kernels->peak_f32(10) > kernels->peak_f32(5));
}

static void check_peak_bf16(void)
{
    CHECK(kernels->peak_bf16(10) > kernels->peak_bf16(5));
}

static void check_peak_int8(void)
{
    CHECK(kernels->peak_int8(10) > kernels->peak_int8(5));
}

static void check_read_sum(void)
{
    uint64_t *data = calloc(512, 8);
    for (size_t i = 0; i < 512; i += 8)
        data[i] = i;
    for (size_t streams = 1; streams <= 4; streams *= 2)
        for (size_t ahead = 0; ahead <= 1024; ahead += 512)
            CHECK_INT(kernels->read_sum(data, 512 * 8, streams, ahead), 63 * 64 / 2 * 8);
    free(data);
}

TEST(cpu_kernels_ask_for_no_more_than_there_is)
{
    static const uint8_t memory[512];
    struct geul_cpu_ahead ahead = {memory, memory + 100}; /* two lines, the second in part */
    for (int i = 0; i < 4; i++)
        geul_cpu_ask(&ahead, 64);
    CHECK_INT(ahead.at - memory, 128);
}

TEST(cpu_every_slot_of_every_instruction_set)
{
    bool supported;
    for (int i = 0; (kernels = geul_cpu_variant(i, &variant, &supported)) != NULL; i++) {
        if (!supported) {
            printf("  (%s: not on this machine)\n", variant);
            continue;
        }
        seed = CPU_SEED;
#define KERNEL(name, returns, arguments, meaning)                                                                      \
    if (kernels->name)                                                                                                 \
        check_##name();
#define TYPED(family, type, meaning)                                                                                   \
    if (kernels->family[GEUL_TYPE_##type])                                                                             \
        check_##family(GEUL_TYPE_##type);
#include "backends/cpu/kernels.def"
#undef KERNEL
#undef TYPED
    }
}

TEST(cpu_table_has_no_hole)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_device *device = cpu_device(ctx, "scalar", 1);
    REQUIRE(device);
    struct geul_host_kernel k;
    int n = 0;
    for (; geul_host_kernel_at(device, n, &k); n++) {
        bool may_miss = strncmp(k.slot, "dot ", 4) == 0 || strncmp(k.slot, "rounded ", 8) == 0;
        CHECK_MSG(strcmp(k.instruction_set, may_miss ? "none" : "scalar") == 0 && k.meaning[0], "slot %s", k.slot);
    }
    CHECK_INT(n, GEUL_CPU_SLOT_COUNT);
    geul_device_close(ctx, device);
    geul_context_free(ctx);
}

TEST(cpu_unknown_cap_is_an_error)
{
    struct geul_context *ctx = geul_context_new(NULL);
    setenv("GEUL_CPU", "mmx", 1);
    CHECK(geul_device_open(ctx, GEUL_DEVICE_HOST, 1) == NULL);
    CHECK(strstr(geul_error(ctx), "\"mmx\"") && strstr(geul_error(ctx), "scalar"));
    CHECK(geul_error_status(ctx) == GEUL_ERROR_ARGUMENT);
    unsetenv("GEUL_CPU");
    geul_context_free(ctx);
}

TEST(cpu_cap_holds)
{
    struct geul_context *ctx = geul_context_new(NULL);
    const char *name;
    struct geul_host_kernel k;
    bool supported, seen[16] = {false};
    for (int i = 0; i < 16 && geul_cpu_variant(i, &name, &supported); i++) {
        struct geul_device *device = cpu_device(ctx, name, 1);
        REQUIRE(device);
        seen[i] = supported;
        for (int j = 0; geul_host_kernel_at(device, j, &k); j++) {
            if (strcmp(k.instruction_set, "none") == 0)
                continue;
            int at = 0;
            const char *other;
            while (geul_cpu_variant(at, &other, &supported) && strcmp(other, k.instruction_set) != 0)
                at++;
            CHECK_MSG(at <= i && seen[at], "%s: slot %s comes from %s", name, k.slot, k.instruction_set);
        }
        geul_device_close(ctx, device);
    }
    geul_context_free(ctx);
}
