/* bench_products.c: the products of a training step compared with the machine's own ceilings.
 *
 *     bench_products [TOKENS] [WIDTH] [VOCABULARY]
 *
 * For each shape and precision the median of seven runs, each against a ceiling measured right before it. Values are
 * random. Forward: x (T, K) W'; dx: dy (T, N) W; dW: dy' x, added to a sum. */
#include "backends/host.h"
#include "core/os.h"
#include "core/random.h"
#include "core/runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REPEATS = 7 };
enum kind { FORWARD, BACK_X, BACK_W };

static struct geul_tensor *random_leaf(struct geul_context *ctx, struct geul_device *device, enum geul_type type,
                                       int64_t rows, int64_t cols)
{
    int64_t shape[2] = {rows, cols};
    size_t bytes;
    struct geul_buffer *b = geul_arena(ctx, 1, sizeof *b);
    if (!b || !geul_shape_bytes(type, 2, shape, &bytes) ||
        device->backend->buffer_new(ctx, device, bytes, b) != GEUL_OK)
        return NULL;
    float *values = geul_alloc(ctx, (size_t)cols, sizeof *values);
    uint64_t state = 1;
    for (int64_t r = 0; values && r < rows; r++) {
        for (int64_t i = 0; i < cols; i++)
            values[i] = (float)((double)(geul_random_congruential(&state) >> 40) / (1 << 24) - 0.5);
        geul_encode(type, values, (uint8_t *)b->base + (size_t)r * (bytes / (size_t)rows), cols);
    }
    geul_free(ctx, values);
    return geul_leaf(ctx, type, 2, shape, "leaf", b, b->base);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* The product of one kind for a layer W (N, K) and T tokens. */
static struct geul_tensor *build(struct geul_context *ctx, struct geul_device *device, enum kind kind,
                                 enum geul_type type, enum geul_precision precision, int64_t T, int64_t N, int64_t K)
{
    struct geul_tensor *w = random_leaf(ctx, device, type, N, K), *x = random_leaf(ctx, device, GEUL_TYPE_F32, T, K);
    struct geul_tensor *dy = random_leaf(ctx, device, GEUL_TYPE_F32, T, N);
    if (kind == FORWARD)
        return geul_linear_at(ctx, precision, x, w, NULL, false);
    if (kind == BACK_X)
        return geul_matmul_at(ctx, precision, dy, w);
    struct geul_tensor *sum = random_leaf(ctx, device, GEUL_TYPE_F32, N, K);
    return geul_addmm(ctx, sum, geul_transpose(ctx, dy, 0, 1), x, precision);
}

static bool measure(struct geul_device *device, const struct geul_host_probe *probe, enum kind kind,
                    enum geul_type type, enum geul_precision precision, int64_t T, int64_t N, int64_t K)
{
    static const char *const kinds[] = {"forward", "dx", "dW"};
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_runtime *rt = geul_runtime_new_on(ctx, &device, 1, NULL);
    struct geul_tensor *y = build(ctx, device, kind, type, precision, T, N, K);
    struct geul_graph *g = geul_graph_new(ctx, &y, 1);
    bool ok = rt && g && geul_runtime_plan(rt, g) == GEUL_OK && geul_runtime_run(rt, g) == GEUL_OK;
    double rate[REPEATS], share[REPEATS];
    for (int i = 0; ok && i < REPEATS; i++) {
        struct geul_device_ceilings c = geul_host_probe_measure(probe);
        double start = geul_os_seconds();
        ok = geul_runtime_run(rt, g) == GEUL_OK;
        rate[i] = (double)T * (double)N * (double)K / (geul_os_seconds() - start);
        share[i] = rate[i] / (precision == GEUL_PRECISION_BF16 ? c.bf16_macs_per_s : c.f32_macs_per_s);
    }
    if (ok) {
        qsort(rate, REPEATS, sizeof *rate, by_size);
        qsort(share, REPEATS, sizeof *share, by_size);
        printf("%-8s %-5s %-5s T %5lld N %6lld K %5lld  %7.1f GMAC/s  %3.0f %%\n", kinds[kind], geul_type_name(type),
               precision == GEUL_PRECISION_BF16 ? "bf16" : "f32", (long long)T, (long long)N, (long long)K,
               rate[REPEATS / 2] / 1e9, 100 * share[REPEATS / 2]);
    } else {
        fprintf(stderr, "bench_products: %s\n", geul_error(ctx));
    }
    geul_runtime_free(rt);
    geul_context_free(ctx); /* the buffers of the leaves go with the process */
    return ok;
}

int main(int argc, char **argv)
{
    int64_t T = argc > 1 ? atoll(argv[1]) : 1024, C = argc > 2 ? atoll(argv[2]) : 768,
            V = argc > 3 ? atoll(argv[3]) : 30080;
    static const enum geul_type types[] = {GEUL_TYPE_F32, GEUL_TYPE_Q4_K};
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_device *device = geul_device_open(ctx, GEUL_DEVICE_HOST, 0);
    struct geul_host_probe *probe = device ? geul_host_probe_new(ctx, device) : NULL;
    bool ok = probe != NULL && T > 0 && C > 0 && V > 0;
    for (int p = GEUL_PRECISION_F32; ok && p <= GEUL_PRECISION_BF16; p++)
        for (int type = 0; ok && type < 2; type++)
            for (int kind = FORWARD; ok && kind <= (type ? BACK_X : BACK_W); kind++) {
                enum geul_precision precision = (enum geul_precision)p;
                ok = measure(device, probe, (enum kind)kind, types[type], precision, T, 4 * C, C) &&
                     measure(device, probe, (enum kind)kind, types[type], precision, T, C, 4 * C) &&
                     measure(device, probe, (enum kind)kind, types[type], precision, T / 4, V, C);
            }
    geul_host_probe_free(probe);
    geul_device_close(ctx, device);
    geul_context_free(ctx);
    return ok ? 0 : 1;
}
