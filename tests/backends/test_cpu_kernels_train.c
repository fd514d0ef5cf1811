/* test_cpu_kernels_train.c: training's kernels: dropout, the gradient's norm, optimizer steps and 8-bit states.
 * They give the same bits in every instruction set. */
#include "tests/backends/cpu_kernel_cases.h"

static void check_bits(const char *slot, size_t n, const void *got, const void *want, size_t bytes)
{
    CHECK_MSG(memcmp(got, want, bytes) == 0, "%s %s n=%zu: other bits than scalar", cpu_variant, slot, n);
}

void cpu_check_dropout(void)
{
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s], zeros = 0;
        float *x = cpu_randoms(n, 1), *want = cpu_randoms(n, 1);
        struct cpu_guard out = cpu_guard(n * sizeof(float), s % 2 ? 4 : 0);
        x[0] = NAN;
        geul_cpu_kernels_scalar.dropout(want, x, 99, 5, 1u << 30, 1.5f, n);
        cpu_kernels->dropout((float *)out.data, x, 99, 5, 1u << 30, 1.5f, n);
        check_bits("dropout", n, out.data, want, n * sizeof *want);
        for (size_t i = 0; i < n; i++) {
            zeros += want[i] == 0;
            CHECK(want[i] == 0 || isnan(want[i]) == isnan(x[i]));
            CHECK(want[i] == 0 || isnan(x[i]) || want[i] == x[i] * 1.5f);
        }
        CHECK_MSG(fabs((double)zeros - 0.25 * (double)n) < 5 * sqrt((double)n), "%zu of %zu fall out", zeros, n);
        cpu_kernels->dropout(x, x, 99, 5, 1u << 30, 1.5f, n);
        check_bits("dropout in place", n, x, want, n * sizeof *want);
        cpu_guard_free(&out, "dropout");
        free(x);
        free(want);
    }
}

void cpu_check_squares(void)
{
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s];
        float *x = cpu_randoms(n, 1e25);
        double want = 0;
        uint64_t others = 1, others_too = 0;
        if (n > 4) {
            x[0] = NAN;
            x[n - 1] = -INFINITY;
            x[n / 2] = INFINITY;
        }
        for (size_t i = 0; i < n; i++)
            want += isfinite(x[i]) ? (double)x[i] * (double)x[i] : 0;
        double got = cpu_kernels->squares(x, n, &others), scalar = geul_cpu_kernels_scalar.squares(x, n, &others_too);
        CHECK_MSG(fabs(got - want) <= 1e-14 * want && got == scalar, "%s squares n=%zu: %g, expected %g", cpu_variant,
                  n, got, want);
        CHECK_INT(others, n > 4 ? 4 : 1);
        free(x);
    }
}

static const struct geul_cpu_step some_step = {.scale = 0.5f,
                                               .shrink = 0.99f,
                                               .rate = 0.125f,
                                               .decay = {0.9f, 0.999f},
                                               .mix = {0.1f, 0.001f},
                                               .root = 0.04f,
                                               .epsilon = 1e-8f,
                                               .factor = 0.7f,
                                               .pull = 0.1f};

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
        t->x[j] = cpu_randoms(n, 1);
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
        cpu_check_slot(slot, n, t->got[j].data, t->want[j], 3e-7, 1e-6);
        check_bits(slot, n, t->got[j].data, t->x[j], n * sizeof(float));
        cpu_guard_free(&t->got[j], slot);
        free(t->x[j]);
    }
    free(t);
}

void cpu_check_sgd(void)
{
    const struct geul_cpu_step *k = &some_step;
    for (int s = 0; s < N_SIZES; s++) {
        size_t n = sizes[s];
        struct stepped *t = stepped_new(n);
        for (size_t i = 0; i < n; i++) {
            t->want[2][i] = t->want[2][i] * k->decay[0] + t->want[1][i] * k->scale + k->pull * t->want[0][i];
            t->want[0][i] = t->want[0][i] - k->rate * t->want[2][i];
            t->want[1][i] = 0;
        }
        cpu_kernels->sgd(stepped_got(t, 0), stepped_got(t, 1), stepped_got(t, 2), k, n);
        geul_cpu_kernels_scalar.sgd(t->x[0], t->x[1], t->x[2], k, n);
        stepped_free(t, "sgd", n);
    }
}

void cpu_check_adamw(void)
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
                t->want[0][i] * k->shrink - k->rate * t->want[2][i] / (sqrt(t->want[3][i]) / k->root + k->epsilon);
            t->want[1][i] = 0;
        }
        cpu_kernels->adamw(stepped_got(t, 0), stepped_got(t, 1), stepped_got(t, 2), stepped_got(t, 3), k, n);
        geul_cpu_kernels_scalar.adamw(t->x[0], t->x[1], t->x[2], t->x[3], k, n);
        stepped_free(t, "adamw", n);
    }
}

void cpu_check_adafactor_step(void)
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
            t->want[0][i] = t->want[0][i] * k->shrink - k->rate * (t->want[1][i] * k->scale / sqrt(moment));
            t->want[1][i] = 0;
        }
        cpu_kernels->adafactor_step(stepped_got(t, 0), stepped_got(t, 1), stepped_got(t, 3), k, n);
        geul_cpu_kernels_scalar.adafactor_step(t->x[0], t->x[1], t->x[3], k, n);
        stepped_free(t, "adafactor_step", n);
    }
}

void cpu_check_adafactor_norm(void)
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
        double got = cpu_kernels->adafactor_norm(stepped_got(t, 1), stepped_got(t, 3), k, n);
        double scalar = geul_cpu_kernels_scalar.adafactor_norm(t->x[1], t->x[3], k, n);
        CHECK_MSG(fabs(got - want) <= 1e-6 * want && got == scalar, "%s adafactor_norm n=%zu: %g, expected %g",
                  cpu_variant, n, got, want);
        stepped_free(t, "adafactor_norm", n);
    }
}

void cpu_check_adafactor_sums(void)
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
        double got = cpu_kernels->adafactor_sums(stepped_got(t, 3), stepped_got(t, 1), 0.3f, n);
        double scalar = geul_cpu_kernels_scalar.adafactor_sums(t->x[3], t->x[1], 0.3f, n);
        CHECK_MSG(fabs(got - want) <= 1e-6 * want && got == scalar, "%s adafactor_sums n=%zu: %g, expected %g",
                  cpu_variant, n, got, want);
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
        cpu_kernels->state8_write(block.data, x, negative, round, n);
        geul_cpu_kernels_scalar.state8_write(want, x, negative, round, n);
        check_bits("state8_write", n, block.data, want, sizeof want);
        cpu_kernels->state8_read(back_too, block.data, negative, n);
        geul_cpu_kernels_scalar.state8_read(want_back, want, negative, n);
        check_bits("state8_read", n, back_too, want_back, n * sizeof *back_too);
        cpu_kernels->state8_write(block.data, x, negative, round, N);
        cpu_kernels->state8_read(back, block.data, negative, N);
        for (int i = 0; i < N; i++) {
            mean[i] += (double)back[i] / ROUNDS;
            CHECK_MSG(fabs((double)back[i] - (double)x[i]) <= 0.125 * fabs((double)x[i]) + least * largest,
                      "%s state8: %g became %g", cpu_variant, x[i], back[i]);
        }
        CHECK(back[0] == x[0] && back[77] == 0);
        cpu_guard_free(&block, "state8_write");
    }
    for (int i = 0; i < N; i++)
        CHECK_MSG(fabs(mean[i] - (double)x[i]) <= 0.02 * fabs((double)x[i]) + (negative ? 4e-6 : 0),
                  "%s state8: %g becomes %g on average", cpu_variant, x[i], mean[i]);
    const float odd[] = {NAN, INFINITY, 1, 1e-30f}; /* not a number counts as 0, infinity as the largest number */
    uint8_t block[4 * GEUL_STATE8_WORDS] = {0};
    cpu_kernels->state8_write(block, odd, negative, 1, 4);
    cpu_kernels->state8_read(back, block, negative, 4);
    CHECK(back[0] == 0 && back[1] > 3.4e38f && isfinite(back[1]) && isfinite(back[2]) && isfinite(back[3]));
    memset(block, 0, sizeof block);
    cpu_kernels->state8_read(back, block, negative, N);
    for (int i = 0; i < N; i++)
        CHECK(back[i] == 0);
}

void cpu_check_state8_read(void)
{
    check_state8(true);
}

void cpu_check_state8_write(void)
{
    check_state8(false);
}
