/* cpu_cases.c: see cpu_cases.h. */
#include "tests/backends/cpu_cases.h"

#include "core/runtime.h"

enum { CANARY = 0xA5, EDGE = 256 };

struct cpu_guard cpu_guard(size_t bytes, size_t shift)
{
    struct cpu_guard g = {.bytes = bytes, .whole = malloc(bytes + 2 * EDGE + 128)};
    if (!g.whole)
        exit(2);
    memset(g.whole, CANARY, bytes + 2 * EDGE + 128);
    g.data = (uint8_t *)(((uintptr_t)g.whole + EDGE + 63) & ~(uintptr_t)63) + shift;
    return g;
}

void cpu_guard_free(struct cpu_guard *g, const char *what)
{
    bool alive = true;
    for (size_t i = 0; i < (size_t)(g->data - g->whole); i++)
        alive &= g->whole[i] == CANARY;
    for (size_t i = 0; i < EDGE / 2; i++)
        alive &= g->data[g->bytes + i] == CANARY;
    CHECK_MSG(alive, "%s wrote outside its output", what);
    free(g->whole);
}

struct geul_device *cpu_device(struct geul_context *ctx, const char *variant, int n_threads)
{
    if (variant)
        setenv("GEUL_CPU", variant, 1);
    else
        unsetenv("GEUL_CPU");
    struct geul_device *device = geul_device_open(ctx, GEUL_DEVICE_HOST, n_threads);
    unsetenv("GEUL_CPU");
    CHECK_MSG(device != NULL, "geul_device_open: %s", geul_error(ctx));
    return device;
}

struct geul_tensor *cpu_leaf(struct geul_context *ctx, uint64_t *seed, enum geul_type type, int n_dims,
                             const int64_t *shape, double spread)
{
    size_t bytes;
    int64_t n = 1;
    for (int i = 0; i < n_dims; i++)
        n *= shape[i];
    if (!geul_shape_bytes(type, n_dims, shape, &bytes))
        return NULL;
    float *values = geul_arena(ctx, (size_t)n + 1, sizeof *values);
    void *data = geul_arena(ctx, 1, bytes + 1);
    if (!values || !data)
        return NULL;
    for (int64_t i = 0; i < n; i++)
        values[i] = (float)(spread * test_normal(seed));
    if (type != GEUL_TYPE_I32)
        geul_encode(type, values, data, n);
    return geul_leaf(ctx, type, n_dims, shape, "leaf", NULL, data);
}

struct geul_tensor *cpu_view(struct geul_tensor *t)
{
    if (t && t->op == GEUL_OP_VIEW)
        t->data = (uint8_t *)cpu_view(t->src[0])->data + t->params.view.offset;
    return t;
}

double cpu_value(const struct geul_tensor *t, int64_t i)
{
    const uint8_t *p = t->data;
    int64_t block = geul_type_block(t->type), in_block = 0;
    float values[256];
    bool found = block == 1; /* the dimension that counts blocks */
    for (int d = t->n_dims - 1; d >= 0; d--) {
        int64_t at = i % t->shape[d];
        i /= t->shape[d];
        if (!found && t->stride[d] == geul_type_bytes(t->type)) {
            found = true;
            in_block = at % block;
            at /= block;
        }
        p += (size_t)at * t->stride[d];
    }
    geul_decode(t->type, p, values, block);
    return values[in_block];
}

int cpu_nodes(struct geul_context *ctx, struct geul_tensor *t, struct geul_tensor **nodes, int n)
{
    if (t->op == GEUL_OP_LEAF)
        return n;
    for (int i = 0; i < n; i++)
        if (nodes[i] == t)
            return n;
    for (int i = 0; i < t->n_src; i++)
        if (t->src[i])
            n = cpu_nodes(ctx, t->src[i], nodes, n);
    size_t bytes;
    if (t->op == GEUL_OP_VIEW)
        t->data = (uint8_t *)t->src[0]->data + t->params.view.offset;
    else if (geul_op_info(t->op)->flags & GEUL_FLAG_WRITES)
        t->data = t->src[0]->data;
    else if (!t->data && geul_shape_bytes(t->type, t->n_dims, t->shape, &bytes))
        t->data = geul_arena(ctx, 1, bytes + 1);
    nodes[n] = t;
    return n + 1;
}

bool cpu_run_nodes(struct geul_context *ctx, struct geul_device *device, struct geul_tensor *const *nodes, int n)
{
    const struct geul_backend *backend = device->backend;
    struct geul_queue *queue = backend->queue_new(ctx, device, NULL);
    if (!queue)
        return false;
    struct geul_prepared *prepared = NULL;
    uint64_t ticket;
    bool ok = backend->prepare(ctx, queue, nodes, n, &prepared) == GEUL_OK &&
              backend->run(ctx, queue, prepared, NULL) == GEUL_OK &&
              backend->event_record(ctx, queue, &ticket) == GEUL_OK &&
              backend->event_wait(ctx, queue, ticket) == GEUL_OK;
    backend->release(ctx, queue, prepared);
    backend->queue_free(ctx, queue);
    return ok;
}

bool cpu_compute(struct geul_context *ctx, struct geul_device *device, struct geul_tensor *t)
{
    struct geul_tensor *nodes[CPU_NODES];
    if (!CHECK_MSG(t != NULL, "%s", geul_error(ctx)))
        return false;
    int n = cpu_nodes(ctx, t, nodes, 0);
    for (int i = 0; i < n; i++)
        if (!CHECK_MSG(geul_device_supports(device, nodes[i]), "%s is unsupported", nodes[i]->name))
            return false;
    bool ok = CHECK_MSG(cpu_run_nodes(ctx, device, nodes, n), "%s", geul_error(ctx));
    return ok;
}

bool cpu_close(const char *what, const float *got, const double *want, int64_t n, double absolute, double relative)
{
    for (int64_t i = 0; i < n; i++) {
        double g = got[i], w = want[i];
        bool ok = isnan(w) ? isnan(g) : isinf(w) ? g == w : fabs(g - w) <= absolute + relative * fabs(w);
        if (!ok)
            return test_check(false, __FILE__, __LINE__, "%s: element %lld is %.9g, expected %.9g", what, (long long)i,
                              g, w);
    }
    return true;
}
