/* cpu_kernel_cases.c: see cpu_kernel_cases.h. */
#include "tests/backends/cpu_kernel_cases.h"

const struct geul_cpu_kernels *cpu_kernels;
const char *cpu_variant;
uint64_t cpu_seed;

float *cpu_randoms(size_t n, double spread)
{
    float *x = malloc((n + 1) * sizeof *x);
    for (size_t i = 0; x && i < n; i++)
        x[i] = (float)(spread * test_normal(&cpu_seed));
    return x;
}

void cpu_check_slot(const char *slot, size_t n, const void *got, const double *want, double absolute, double relative)
{
    char what[96];
    snprintf(what, sizeof what, "%s %s n=%zu", cpu_variant, slot, n);
    cpu_close(what, got, want, (int64_t)n, absolute, relative);
}

struct cpu_weights cpu_weights_new(enum geul_type type, size_t rows, size_t k)
{
    struct cpu_weights w = {.stride = k / (size_t)geul_type_block(type) * geul_type_bytes(type)};
    w.stride += geul_type_bytes(type); /* rows of a view need not touch */
    w.data = malloc(rows * w.stride);
    w.values = malloc(rows * k * sizeof *w.values);
    float *x = cpu_randoms(k, 1);
    for (size_t r = 0; r < rows; r++) {
        for (size_t i = 0; i < k; i++)
            x[i] = (float)test_normal(&cpu_seed);
        if (k > 1)
            x[test_random(&cpu_seed) % k] = -4; /* the extreme code of Q4_0 */
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

void cpu_weights_free(struct cpu_weights *w)
{
    free(w->data);
    free(w->values);
}
