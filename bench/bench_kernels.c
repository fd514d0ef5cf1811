/* bench_kernels.c: products and small operations of the CPU backend compared with the ceilings of this machine.
 *
 *     bench_kernels [-t THREADS] [-r REPEATS] [-o prompt|decode|small] [-k q4_k,q8_0]
 *
 * GEUL_CPU=... caps the instruction set, -k names the types (default: all). Prompt: T tokens times weights (N, K):
 * GMAC/s, and the share of the int8 (block types), bfloat16 (BF16) or float32 ceiling. Decode: one token, weights too
 * large for the caches: GB/s, and the share of the read bandwidth. Medians. */
#include "backends/host.h"
#include "core/os.h"
#include "core/runtime.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_REPEATS = 1000 };

struct bench {
    struct geul_context *ctx;
    struct geul_device *device;
    struct geul_queue *queue;
    struct geul_device_ceilings ceilings;
    int repeats;
    const char *kinds; /* names of the types, separated by commas; NULL: all */
};

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median seconds of running the nodes; NaN on failure. */
static double measure(const struct bench *b, struct geul_tensor **nodes, int n_nodes)
{
    double seconds[MOST_REPEATS];
    const struct geul_backend *backend = b->device->backend;
    struct geul_prepared *prepared;
    if (backend->prepare(b->ctx, b->queue, nodes, n_nodes, &prepared) != GEUL_OK)
        return NAN;
    for (int i = -1; i < b->repeats; i++) {
        double start = geul_os_seconds();
        backend->run(b->ctx, b->queue, prepared, NULL);
        if (i >= 0)
            seconds[i] = geul_os_seconds() - start;
    }
    backend->release(b->ctx, b->queue, prepared);
    qsort(seconds, (size_t)b->repeats, sizeof seconds[0], compare);
    return seconds[b->repeats / 2];
}

/* A leaf with its own memory, filled with random bytes that make finite numbers. */
static struct geul_tensor *leaf(const struct bench *b, enum geul_type type, int n_dims, const int64_t *shape)
{
    size_t bytes;
    if (!geul_shape_bytes(type, n_dims, shape, &bytes))
        return NULL;
    uint8_t *data = geul_alloc(b->ctx, 1, bytes);
    if (!data)
        return NULL;
    float row[256];
    uint8_t encoded[sizeof row];
    for (int i = 0; i < 256; i++)
        row[i] = sinf((float)i) * 0.1f;
    if (type != GEUL_TYPE_I32) {
        size_t piece = 256 / (size_t)geul_type_block(type) * geul_type_bytes(type);
        geul_encode(type, row, encoded, 256);
        for (size_t i = 0; i < bytes; i += piece)
            memcpy(data + i, encoded, bytes - i < piece ? bytes - i : piece);
    }
    return geul_leaf(b->ctx, type, n_dims, shape, "leaf", NULL, data);
}

static void give_memory(const struct bench *b, struct geul_tensor *t)
{
    size_t bytes;
    if (t && geul_shape_bytes(t->type, t->n_dims, t->shape, &bytes))
        t->data = geul_alloc(b->ctx, 1, bytes);
}

static double ceiling_of(const struct bench *b, enum geul_type type)
{
    if (geul_type_block(type) > 1)
        return b->ceilings.int8_macs_per_s;
    return type == GEUL_TYPE_BF16 ? b->ceilings.bf16_macs_per_s : b->ceilings.f32_macs_per_s;
}

static void bench_matmul(const struct bench *b, enum geul_type type, int64_t tokens, int64_t n, int64_t k)
{
    struct geul_tensor *w = leaf(b, type, 2, (int64_t[]){n, k}), *x = leaf(b, GEUL_TYPE_F32, 2, (int64_t[]){tokens, k});
    struct geul_tensor *bias = leaf(b, GEUL_TYPE_F32, 1, (int64_t[]){n}), *y = geul_linear(b->ctx, x, w, bias, true);
    give_memory(b, y);
    if (!y || !y->data) {
        printf("  %-6s %s\n", geul_type_name(type), geul_error(b->ctx));
        return;
    }
    y->src[1]->data = w->data; /* the transposed view */
    if (!geul_device_supports(b->device, y)) {
        printf("  %-6s no kernel\n", geul_type_name(type));
        return;
    }
    double s = measure(b, &y, 1);
    double macs = (double)tokens * (double)n * (double)k, bytes = (double)n * (double)w->stride[0];
    printf("  %-6s T=%-4d N=%-6d K=%-6d %8.1f us %8.1f GMAC/s %5.1f %% of %s  %6.1f GB/s %5.1f %% of read\n",
           geul_type_name(type), (int)tokens, (int)n, (int)k, s * 1e6, macs / s * 1e-9,
           100 * macs / s / ceiling_of(b, type),
           geul_type_block(type) > 1 ? "int8"
           : type == GEUL_TYPE_BF16  ? "bf16"
                                     : "f32 ",
           bytes / s * 1e-9, 100 * bytes / s / b->ceilings.read_bytes_per_s);
    geul_free(b->ctx, w->data);
    geul_free(b->ctx, x->data);
    geul_free(b->ctx, bias->data);
    geul_free(b->ctx, y->data);
}

static void report(const struct bench *b, const char *name, struct geul_tensor *t, double per, const char *unit)
{
    give_memory(b, t);
    if (!t || !t->data) {
        printf("  %-20s %s\n", name, geul_error(b->ctx));
        return;
    }
    double s = measure(b, &t, 1);
    printf("  %-34s %9.1f us %8.2f %s\n", name, s * 1e6, per / s * 1e-9, unit);
}

/* STORE and ATTENTION of a 1.3B model's layer, by type of cache. The result of the store is a separate cache. */
static void bench_cache(const struct bench *b, enum geul_type type, int64_t depth, struct geul_tensor *q,
                        struct geul_tensor *seq_pos, double elements, double pairs)
{
    const int64_t shape[] = {1, q->shape[1], depth, q->shape[2]};
    struct geul_tensor *k = leaf(b, type, 4, shape), *v = leaf(b, type, 4, shape);
    char name[64];
    if (!k || !v)
        return;
    snprintf(name, sizeof name, "store %s", geul_type_name(type));
    report(b, name, geul_store(b->ctx, k, q, seq_pos), elements, "G elements/s");
    snprintf(name, sizeof name, "attention %s", geul_type_name(type));
    report(b, name, geul_attention(b->ctx, q, k, v, seq_pos, 0.1f), pairs, "GMAC/s");
    geul_free(b->ctx, k->data);
    geul_free(b->ctx, v->data);
}

/* The small operations of a 1.3B model's layer over T tokens, and attention over depth positions. */
static void bench_small(const struct bench *b, int64_t tokens, int64_t depth)
{
    enum { HEADS = 16, HEAD = 128, WIDTH = HEADS * HEAD };
    struct geul_tensor *x = leaf(b, GEUL_TYPE_F32, 2, (int64_t[]){tokens, WIDTH});
    struct geul_tensor *wide = leaf(b, GEUL_TYPE_F32, 2, (int64_t[]){tokens, 4 * WIDTH});
    struct geul_tensor *q = leaf(b, GEUL_TYPE_F32, 3, (int64_t[]){tokens, HEADS, HEAD});
    struct geul_tensor *g = leaf(b, GEUL_TYPE_F32, 1, (int64_t[]){WIDTH});
    struct geul_tensor *seq_pos = leaf(b, GEUL_TYPE_I32, 2, (int64_t[]){tokens, 2});
    if (!x || !wide || !q || !g || !seq_pos)
        return;
    double pairs = 0;
    for (int64_t i = 0; i < tokens; i++) {
        ((int32_t *)seq_pos->data)[2 * i + 1] = (int32_t)(depth - tokens + i);
        pairs += (double)(depth - tokens + i + 1);
    }
    double elements = (double)tokens * WIDTH;
    printf("T=%d, cache depth %d\n", (int)tokens, (int)depth);
    report(b, "add (T, 2048)", geul_add(b->ctx, x, x), elements, "G elements/s");
    report(b, "layernorm (T, 2048)", geul_layernorm(b->ctx, x, g, g, 1e-5f), elements, "G elements/s");
    report(b, "gelu erf (T, 8192)", geul_gelu(b->ctx, wide, GEUL_GELU_ERF), 4 * elements, "G elements/s");
    report(b, "gelu tanh (T, 8192)", geul_gelu(b->ctx, wide, GEUL_GELU_TANH), 4 * elements, "G elements/s");
    report(b, "rope (T, 16, 128), 64 dims", geul_rope(b->ctx, q, seq_pos, 64, 10000), elements / 2, "G elements/s");
    static const enum geul_type caches[] = {GEUL_TYPE_F16, GEUL_TYPE_BF16, GEUL_TYPE_Q8_0, GEUL_TYPE_F32};
    for (int i = 0; i < 4; i++)
        bench_cache(b, caches[i], depth, q, seq_pos, elements, pairs * 2 * WIDTH);
}

/* Whether a type is possible for weights and was requested. */
static bool wanted(const struct bench *b, enum geul_type type)
{
    const char *name = geul_type_name(type);
    size_t n = strlen(name);
    if (type == GEUL_TYPE_I32 || !b->kinds)
        return type != GEUL_TYPE_I32;
    for (const char *at = b->kinds; *at; at += strcspn(at, ","), at += *at == ',')
        if (strcspn(at, ",") == n && strncmp(at, name, n) == 0)
            return true;
    return false;
}

static void bench_prompt(const struct bench *b)
{
    const int64_t tokens[] = {256, 16, 8, 4, 2};
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++)
        for (int type = 0; type < GEUL_TYPE_COUNT; type++)
            if (wanted(b, (enum geul_type)type)) {
                bench_matmul(b, (enum geul_type)type, tokens[i], 2048, 2048);
                bench_matmul(b, (enum geul_type)type, tokens[i], 8192, 2048);
            }
}

/* 512 MiB and more of weights each, as many as the ceiling reads, so that no cache helps. */
static void bench_decode(const struct bench *b)
{
    for (int type = 0; type < GEUL_TYPE_COUNT; type++) {
        if (!wanted(b, (enum geul_type)type))
            continue;
        size_t row = 2048 / (size_t)geul_type_block((enum geul_type)type) * geul_type_bytes((enum geul_type)type);
        int64_t rows = (int64_t)(((size_t)512 << 20) / row + 1023) / 1024 * 1024;
        bench_matmul(b, (enum geul_type)type, 1, rows, 2048);
    }
}

static void bench_all_small(const struct bench *b)
{
    bench_small(b, 256, 256);
    bench_small(b, 256, 2048);
    bench_small(b, 1, 256);
    bench_small(b, 1, 2048);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(const struct bench *);
    } parts[] = {{"prompt", bench_prompt}, {"decode", bench_decode}, {"small", bench_all_small}};
    int threads = 0;
    const char *only = NULL;
    struct bench b = {.ctx = geul_context_new(NULL), .repeats = 9};
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "-t") == 0)
            threads = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "-r") == 0)
            b.repeats = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "-o") == 0)
            only = argv[i + 1];
        else if (strcmp(argv[i], "-k") == 0)
            b.kinds = argv[i + 1];
    }
    b.repeats = b.repeats < 1 ? 1 : b.repeats > MOST_REPEATS ? MOST_REPEATS : b.repeats;
    b.device = b.ctx ? geul_device_open(b.ctx, GEUL_DEVICE_HOST, threads) : NULL;
    b.queue = b.device ? b.device->backend->queue_new(b.ctx, b.device, NULL) : NULL;
    struct geul_host_probe *probe = b.queue ? geul_host_probe_new(b.ctx, b.device) : NULL;
    if (!probe) {
        fprintf(stderr, "%s\n", b.ctx ? geul_error(b.ctx) : "out of memory");
        return 1;
    }
    b.ceilings = geul_host_probe_measure(probe);
    geul_host_probe_free(probe);
    printf("%s; ceilings: read %.1f GB/s, float32 %.0f, bfloat16 %.0f, int8 %.0f GMAC/s\n", b.device->name,
           b.ceilings.read_bytes_per_s * 1e-9, b.ceilings.f32_macs_per_s * 1e-9, b.ceilings.bf16_macs_per_s * 1e-9,
           b.ceilings.int8_macs_per_s * 1e-9);
    for (int i = 0; i < 3; i++)
        if (!only || strcmp(only, parts[i].name) == 0)
            parts[i].run(&b);
    b.device->backend->queue_free(b.ctx, b.queue);
    geul_device_close(b.ctx, b.device);
    geul_context_free(b.ctx);
    return 0;
}
