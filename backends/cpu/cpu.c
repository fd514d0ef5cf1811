/* cpu.c: the CPU as a device: memory, threads and the walk over a graph's nodes. */
#include "backends/cpu/cpu.h"

#include "backends/cpu/cpu_ops.h"
#include "core/check.h"
#include "core/os.h"
#include "core/team.h"

#include <stdio.h>
#include <string.h>

enum { MAX_THREADS = 1024 };

static void cpu_memory(struct geul_device *device, size_t *free_bytes, size_t *total_bytes)
{
    (void)device;
    geul_os_memory(free_bytes, total_bytes);
}

static enum geul_status cpu_buffer_new(struct geul_context *ctx, struct geul_device *device, size_t size,
                                       struct geul_buffer *out)
{
    void *base = geul_alloc(ctx, 1, size);
    if (!base)
        return GEUL_ERROR_MEMORY;
    *out = (struct geul_buffer){.device = device, .base = base, .size = size, .host = true, .state = base};
    return GEUL_OK;
}

static enum geul_status cpu_buffer_wrap(struct geul_context *ctx, struct geul_device *device, void *host, size_t size,
                                        struct geul_buffer *out)
{
    (void)ctx;
    *out = (struct geul_buffer){.device = device, .base = host, .size = size, .host = true, .state = NULL};
    return GEUL_OK;
}

/* state is the memory to free; wrapped buffers have none. */
static void cpu_buffer_free(struct geul_context *ctx, struct geul_buffer *buffer)
{
    geul_free(ctx, buffer->state);
    *buffer = (struct geul_buffer){0};
}

static enum geul_status cpu_upload(struct geul_context *ctx, struct geul_buffer *buffer, void *address, const void *src,
                                   size_t size)
{
    (void)ctx;
    (void)buffer;
    if (size > 0)
        memcpy(address, src, size);
    return GEUL_OK;
}

static enum geul_status cpu_download(struct geul_context *ctx, const struct geul_buffer *buffer, const void *address,
                                     void *dst, size_t size)
{
    (void)ctx;
    (void)buffer;
    if (size > 0)
        memcpy(dst, address, size);
    return GEUL_OK;
}

static enum geul_status cpu_copy(struct geul_context *ctx, struct geul_queue *queue, struct geul_buffer *dst,
                                 void *dst_address, const struct geul_buffer *src, const void *src_address, size_t size,
                                 bool *done)
{
    (void)ctx;
    (void)queue;
    *done = dst->host && src->host;
    if (*done && size > 0)
        memcpy(dst_address, src_address, size);
    return GEUL_OK;
}

static bool cpu_has_op(enum geul_op op)
{
    return geul_cpu_op(op) != NULL;
}

static const struct geul_cpu_kernels *kernels_of(const struct geul_device *device)
{
    return &((const struct geul_cpu_state *)device->state)->choice.kernels;
}

static bool cpu_supports(const struct geul_device *device, const struct geul_tensor *node)
{
    const struct geul_cpu_op *op = geul_cpu_op(node->op);
    return !op->supports || op->supports(kernels_of(device), node);
}

/* geul_queue.state of the CPU. */
struct queue_state {
    struct geul_context *own; /* scratch comes from here: the contexts of runs may have other allocators */
    uint8_t *scratch;         /* grows with the graphs that were run */
    size_t scratch_bytes;
};

/* The most scratch and the most kept memory that any of the nodes needs, each rounded up to whole cache lines. false on
 * overflow. */
static bool scratch_needed(const struct geul_queue *queue, struct geul_tensor *const *nodes, int n_nodes,
                           size_t *scratch, size_t *kept)
{
    *scratch = *kept = 0;
    for (int i = 0; i < n_nodes; i++) {
        const struct geul_cpu_op *op = geul_cpu_op(nodes[i]->op);
        size_t bytes = 0;
        if (op->scratch && !op->scratch(kernels_of(queue->device), nodes[i], queue->n_threads, &bytes))
            return false;
        *scratch = bytes > *scratch ? bytes : *scratch;
        bytes = 0;
        if (op->kept && !op->kept(nodes[i], &bytes))
            return false;
        *kept = bytes > *kept ? bytes : *kept;
    }
    if (!geul_add_size(*scratch, 63, scratch) || !geul_add_size(*kept, 63, kept))
        return false;
    *scratch &= ~(size_t)63;
    *kept &= ~(size_t)63;
    return true;
}

static size_t cpu_working(const struct geul_queue *queue, struct geul_tensor *const *nodes, int n_nodes)
{
    size_t scratch, kept, all;
    bool known = scratch_needed(queue, nodes, n_nodes, &scratch, &kept) && geul_add_size(scratch, kept, &all);
    return known ? all : SIZE_MAX;
}

/* Makes the queue's scratch memory at least `all` bytes. */
static enum geul_status grow_scratch(struct geul_context *ctx, struct geul_queue *queue, size_t all)
{
    struct queue_state *state = queue->state;
    if (all <= state->scratch_bytes)
        return GEUL_OK;
    /* Nothing in the scratch outlives a run, so the old one is freed before: no peak of both. */
    geul_free(state->own, state->scratch);
    state->scratch_bytes = 0;
    geul_error_clear(state->own);
    state->scratch = geul_alloc(state->own, 1, all);
    if (!state->scratch)
        return geul_fail_from(ctx, state->own);
    state->scratch_bytes = all;
    return GEUL_OK;
}

static struct geul_queue *cpu_queue_new(struct geul_context *ctx, struct geul_device *device,
                                        const struct geul_queue_options *options)
{
    static const struct geul_queue_options defaults = {0};
    const struct geul_queue_options *o = options ? options : &defaults;
    if (geul_check_threads(ctx, o->n_threads) != GEUL_OK)
        return NULL;
    struct geul_queue *queue = geul_alloc(ctx, 1, sizeof *queue);
    struct queue_state *state = geul_alloc(ctx, 1, sizeof *state);
    struct geul_context *own = geul_context_new_like(ctx);
    if (!own)
        geul_fail_memory(ctx, sizeof *state);
    if (!queue || !state || !own) {
        geul_context_free(own);
        geul_free(ctx, state);
        geul_free(ctx, queue);
        return NULL;
    }
    state->own = own;
    int n_threads = o->n_threads > 0 ? o->n_threads : device->n_threads;
    /* Exact whether that was asked for or not: no sum depends on how many rows are computed together. */
    *queue = (struct geul_queue){.device = device, .n_threads = n_threads, .exact = true, .state = state};
    return queue;
}

static void cpu_queue_free(struct geul_context *ctx, struct geul_queue *queue)
{
    struct queue_state *state = queue->state;
    geul_free(state->own, state->scratch);
    geul_context_free(state->own);
    geul_free(ctx, state);
    geul_free(ctx, queue);
}

/* One thread's walk over all nodes. A node starts when every thread has finished the one before. Two work counters take
 * turns: while the nodes of one are computed, the other is set to 0 for the next; the barrier publishes that. */
static void walk(struct geul_cpu_run *run, struct geul_tensor *const *nodes, int n_nodes)
{
    const struct geul_run_watch *watch = run->shared->watch;
    int step = 0, following = 0;
    for (int i = 0; i < n_nodes; i++) {
        const struct geul_cpu_op *op = geul_cpu_op(nodes[i]->op);
        if (!op->run)
            continue;
        while (following < n_nodes && (following <= i || nodes[following]->op != GEUL_OP_MATMUL))
            following++;
        run->next = &run->shared->next[step & 1];
        step++;
        /* Nobody uses the other counter now: the node before this one is done. */
        if (run->thread == 0)
            atomic_store_explicit(&run->shared->next[step & 1], 0, memory_order_relaxed);
        run->following = following < n_nodes ? nodes[following] : NULL;
        op->run(run, nodes[i]);
        geul_cpu_barrier(run);
        if (run->shared->stopped)
            return;
        if (run->thread == 0 && watch && watch->progress) /* the thread that called; the others go on meanwhile */
            watch->progress(watch->user, i + 1);
    }
}

/* A run as its team sees it. */
struct work {
    const struct geul_cpu_kernels *kernels;
    struct geul_cpu_shared *shared;
    uint8_t *kept, *scratch;
    struct geul_tensor *const *nodes;
    int n_nodes;
};

static void walk_in_team(void *user, int thread, int n_threads)
{
    const struct work *w = user;
    /* Fewer threads than the scratch is for compute the same. */
    struct geul_cpu_run run = {.thread = thread,
                               .n_threads = n_threads,
                               .kernels = w->kernels,
                               .shared = w->shared,
                               .kept = w->kept,
                               .scratch = w->scratch};
    walk(&run, w->nodes, w->n_nodes);
}

/* The nodes, and how the queue's scratch memory is divided between what is kept from node to node and the rest. */
struct geul_prepared {
    struct geul_tensor *const *nodes;
    int n_nodes;
    size_t kept;
};

static enum geul_status cpu_prepare(struct geul_context *ctx, struct geul_queue *queue,
                                    struct geul_tensor *const *nodes, int n_nodes, struct geul_prepared **out)
{
    size_t scratch, kept, all;
    if (!scratch_needed(queue, nodes, n_nodes, &scratch, &kept) || !geul_add_size(scratch, kept, &all))
        return geul_fail(ctx, GEUL_ERROR_MEMORY,
                         "the CPU's working memory for this graph exceeds the address space; "
                         "use smaller batches");
    enum geul_status status = grow_scratch(ctx, queue, all);
    if (status != GEUL_OK)
        return status;
    struct geul_prepared *prepared = geul_alloc(ctx, 1, sizeof *prepared);
    if (!prepared)
        return GEUL_ERROR_MEMORY;
    *prepared = (struct geul_prepared){nodes, n_nodes, kept};
    *out = prepared;
    return GEUL_OK;
}

static enum geul_status cpu_run(struct geul_context *ctx, struct geul_queue *queue, struct geul_prepared *prepared,
                                const struct geul_run_watch *watch)
{
    (void)ctx;
    uint8_t *memory = ((struct queue_state *)queue->state)->scratch;
    struct geul_cpu_shared shared = {.watch = watch};
    struct work work = {.kernels = kernels_of(queue->device),
                        .shared = &shared,
                        .kept = memory,
                        .scratch = prepared->kept ? memory + prepared->kept : memory,
                        .nodes = prepared->nodes,
                        .n_nodes = prepared->n_nodes};
    geul_team_run(queue->n_threads, walk_in_team, &work);
    return shared.stopped ? GEUL_ERROR_CANCELLED : GEUL_OK;
}

static void cpu_release(struct geul_context *ctx, struct geul_queue *queue, struct geul_prepared *prepared)
{
    (void)queue;
    geul_free(ctx, prepared);
}

/* run() has finished when it returns, so there is never anything to wait for. */
static enum geul_status cpu_event_record(struct geul_context *ctx, struct geul_queue *queue, uint64_t *ticket)
{
    (void)ctx;
    (void)queue;
    *ticket = 0;
    return GEUL_OK;
}

static enum geul_status cpu_event_wait(struct geul_context *ctx, struct geul_queue *queue, uint64_t ticket)
{
    (void)ctx;
    (void)queue;
    (void)ticket;
    return GEUL_OK;
}

static int cpu_count(void)
{
    return 1;
}

static struct geul_device *cpu_open(struct geul_context *ctx, int i, int n_threads)
{
    (void)i;
    if (geul_check_threads(ctx, n_threads) != GEUL_OK)
        return NULL;
    struct geul_device *device = geul_alloc(ctx, 1, sizeof *device);
    struct geul_cpu_state *state = geul_alloc(ctx, 1, sizeof *state);
    const char *cap = geul_os_env("GEUL_CPU");
    if (!device || !state || geul_cpu_choose(ctx, cap && cap[0] ? cap : NULL, &state->choice) != GEUL_OK) {
        geul_free(ctx, state);
        geul_free(ctx, device);
        return NULL;
    }
    device->n_threads = n_threads ? n_threads : geul_os_cores();
    if (device->n_threads > MAX_THREADS)
        device->n_threads = MAX_THREADS;
    device->backend = &geul_backend_cpu;
    device->alignment = 64;
    device->max_buffer = SIZE_MAX;
    device->state = state;
    snprintf(device->id, sizeof device->id, "cpu");
    snprintf(device->name, sizeof device->name, "CPU, %d thread%s", device->n_threads,
             device->n_threads > 1 ? "s" : "");
    return device;
}

static void cpu_close(struct geul_context *ctx, struct geul_device *device)
{
    geul_free(ctx, device->state);
    geul_free(ctx, device);
}

const struct geul_backend geul_backend_cpu = {
    .name = "cpu",
    .count = cpu_count,
    .open = cpu_open,
    .close = cpu_close,
    .memory = cpu_memory,
    .buffer_new = cpu_buffer_new,
    .buffer_wrap = cpu_buffer_wrap,
    .buffer_free = cpu_buffer_free,
    .upload = cpu_upload,
    .download = cpu_download,
    .copy = cpu_copy,
    .has_op = cpu_has_op,
    .supports = cpu_supports,
    .queue_new = cpu_queue_new,
    .queue_free = cpu_queue_free,
    .prepare = cpu_prepare,
    .run = cpu_run,
    .release = cpu_release,
    .working = cpu_working,
    .event_record = cpu_event_record,
    .event_wait = cpu_event_wait,
    .measure = geul_cpu_measure,
};
