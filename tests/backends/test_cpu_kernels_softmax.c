/* test_cpu_kernels_softmax.c: softmax's kernels, forwards and back, for attention and the loss. */
#include "tests/backends/cpu_kernel_cases.h"

/* Two blocks one after the other must give the weights of one softmax over both. */
void cpu_check_softmax(void)
{
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s];
        float *x = cpu_randoms(2 * n, 8), max = -INFINITY, sum = 0;
        double want[2 * LONGEST], high = -INFINITY, total = 0;
        for (size_t i = 0; i < 2 * n; i++)
            high = fmax(high, 0.3f * x[i]);
        for (size_t i = 0; i < 2 * n; i++)
            total += want[i] = exp2((double)0.3f * x[i] - high);
        float before = cpu_kernels->softmax(x, n, 0.3f, &max, &sum);
        CHECK_MSG(before == 0, "%s softmax: the first block scales nothing", cpu_variant);
        before = cpu_kernels->softmax(x + n, n, 0.3f, &max, &sum);
        for (size_t i = 0; i < n; i++)
            x[i] *= before;
        cpu_check_slot("softmax", 2 * n, x, want, 1e-6, 1e-5);
        CHECK_MSG(fabs(sum - total) < 2e-6 * total + 1e-6, "%s softmax sum %g, expected %g", cpu_variant, sum, total);
        x[n - 1] = NAN;
        cpu_kernels->softmax(x, n, 0.3f, &max, &sum);
        CHECK_MSG(isnan(sum), "%s softmax hides NaN", cpu_variant);
        free(x);
    }
}

void cpu_check_softmax_back(void)
{
    const double factor = 0.375, max = 1.5, inverse = 0.25, delta = -0.75, scale = 0.3125;
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s];
        float *scores = cpu_randoms(n, 3), *slopes = cpu_randoms(n, 2);
        double weights[LONGEST], want[LONGEST];
        for (size_t i = 0; i < n; i++) {
            weights[i] = exp2(factor * (double)scores[i] - max) * inverse;
            want[i] = weights[i] * ((double)slopes[i] - delta) * scale;
        }
        struct cpu_guard p = cpu_guard(n * sizeof(float), 4), dp = cpu_guard(n * sizeof(float), s % 2 ? 4 : 0);
        memcpy(p.data, scores, n * sizeof(float));
        memcpy(dp.data, slopes, n * sizeof(float));
        cpu_kernels->softmax_back((float *)p.data, (float *)dp.data, n, (float)factor, (float)max, (float)inverse,
                                  (float)delta, (float)scale);
        cpu_check_slot("softmax_back", n, p.data, weights, 1e-9, 1e-6);
        cpu_check_slot("softmax_back", n, dp.data, want, 1e-7, 1e-6);
        cpu_guard_free(&p, "softmax_back");
        cpu_guard_free(&dp, "softmax_back");
        free(scores);
        free(slopes);
    }
}

void cpu_check_softmax_sums(void)
{
    for (size_t s = 0; s < N_SIZES + 2; s++) {
        size_t n = s < N_SIZES ? sizes[s] : s == N_SIZES ? 3001 : 30080;
        float *x = cpu_randoms(n, 4);
        double high = -INFINITY, want[2] = {0, 0}, got[2];
        for (size_t i = 0; i < n; i++)
            high = fmax(high, x[i] += 50);
        for (size_t i = 0; i < n; i++) {
            want[0] += exp(x[i] - high);
            want[1] += x[i] - high;
        }
        CHECK_MSG((double)cpu_kernels->softmax_sums(x, n, &got[0], &got[1]) == high, "%s softmax_sums: max",
                  cpu_variant);
        CHECK_MSG(fabs(got[0] - want[0]) <= 2e-7 * want[0], "%s softmax_sums n=%zu: %.10g, expected %.10g", cpu_variant,
                  n, got[0], want[0]);
        CHECK_MSG(fabs(got[1] - want[1]) <= -1e-6 * want[1], "%s softmax_sums n=%zu: rests %.10g, expected %.10g",
                  cpu_variant, n, got[1], want[1]);
        x[n / 2] = -INFINITY;
        cpu_kernels->softmax_sums(x, n, &got[0], &got[1]);
        CHECK_MSG(n == 1 || isfinite(got[0]), "%s softmax_sums: -inf has no power", cpu_variant);
        for (int i = 0; i < 2; i++) {
            x[n - 1 - (size_t)i * (n / 3)] = i ? INFINITY : NAN;
            cpu_kernels->softmax_sums(x, n, &got[0], &got[1]);
            CHECK_MSG(isnan(got[0]), "%s softmax_sums n=%zu hides NaN or infinity", cpu_variant, n);
        }
        free(x);
    }
}

void cpu_check_softmax_line(void)
{
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s];
        float *x = cpu_randoms(n, 4);
        double want[LONGEST];
        x[n / 2] = n % 2 ? NAN : -INFINITY;
        for (size_t i = 0; i < n; i++)
            want[i] = 0.375 * exp((double)x[i] - 5) - 0.0625;
        struct cpu_guard out = cpu_guard(n * sizeof(float), s % 2 ? 4 : 0);
        cpu_kernels->softmax_line((float *)out.data, x, n, 5, 0.375f, -0.0625f);
        cpu_check_slot("softmax_line", n, out.data, want, 1e-8, 1e-6);
        cpu_guard_free(&out, "softmax_line");
        cpu_kernels->softmax_line(x, x, n, 5, 0.375f, -0.0625f);
        cpu_check_slot("softmax_line in place", n, x, want, 1e-8, 1e-6);
        free(x);
    }
}
