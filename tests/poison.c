/* poison.c: see poison.h. */
#define _GNU_SOURCE /* MAP_ANONYMOUS */
#include "tests/poison.h"

#include <string.h>
#include <sys/mman.h>

enum { MOST_QUEUED = 4096 };

struct poison {
    struct geul_device *cpu;
    struct geul_queue *on_cpu;
    struct geul_context *ctx;
    struct geul_tensor *queue[MOST_QUEUED]; /* twins of nodes that nobody waited for yet, in ctx's arena */
    int n_queued;
    uint64_t given, done;
    long nodes;
};

/* The buffer behind a poisoned range. */
struct hidden {
    uint8_t *bytes;
    size_t reserved;
};

static void memory_size(struct geul_device *device, size_t *free_bytes, size_t *total_bytes)
{
    (void)device;
    *free_bytes = *total_bytes = 0;
}

/* Where the bytes of a poisoned address really are. */
static uint8_t *real(const struct geul_buffer *b, const void *address)
{
    return ((struct hidden *)b->state)->bytes + ((const uint8_t *)address - (const uint8_t *)b->base);
}

static enum geul_status buffer_new(struct geul_context *ctx, struct geul_device *device, size_t size,
                                   struct geul_buffer *out)
{
    size_t reserved = (size + 8191) / 4096 * 4096;
    struct hidden *h = geul_alloc(ctx, 1, sizeof *h);
    if (!h)
        return GEUL_ERROR_MEMORY;
    *h = (struct hidden){geul_alloc(ctx, size, 1), reserved};
    void *range = mmap(NULL, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!h->bytes || range == MAP_FAILED) {
        geul_free(ctx, h->bytes);
        geul_free(ctx, h);
        return geul_fail(ctx, GEUL_ERROR_MEMORY, "no poisoned memory");
    }
    memset(h->bytes, 0xff, size); /* NaN in every float type: reading before writing shows */
    *out = (struct geul_buffer){.device = device, .base = range, .size = size, .host = false, .state = h};
    return GEUL_OK;
}

static void compute(struct poison *p)
{
    const struct geul_backend *cpu = p->cpu->backend;
    struct geul_prepared *prepared = NULL;
    if (cpu->prepare(p->ctx, p->on_cpu, p->queue, p->n_queued, &prepared) == GEUL_OK)
        cpu->run(p->ctx, p->on_cpu, prepared, NULL);
    cpu->release(p->ctx, p->on_cpu, prepared);
}

/* Computes everything queued. */
static void flush(struct geul_device *device)
{
    struct poison *p = device->state;
    if (p->n_queued)
        compute(p);
    p->nodes += p->n_queued;
    p->n_queued = 0;
    p->done = p->given;
    geul_context_reset(p->ctx);
}

static void buffer_free(struct geul_context *ctx, struct geul_buffer *b)
{
    flush(b->device);
    struct hidden *h = b->state;
    munmap(b->base, h->reserved);
    geul_free(ctx, h->bytes);
    geul_free(ctx, h);
    *b = (struct geul_buffer){0};
}

static enum geul_status upload(struct geul_context *ctx, struct geul_buffer *b, void *address, const void *src,
                               size_t size)
{
    (void)ctx;
    flush(b->device);
    memcpy(real(b, address), src, size);
    return GEUL_OK;
}

static enum geul_status download(struct geul_context *ctx, const struct geul_buffer *b, const void *address, void *dst,
                                 size_t size)
{
    (void)ctx;
    flush(b->device);
    memcpy(dst, real(b, address), size);
    return GEUL_OK;
}

static bool has_op(enum geul_op op)
{
    (void)op;
    return true; /* the CPU has all */
}

static bool supports(const struct geul_device *device, const struct geul_tensor *node)
{
    const struct poison *p = device->state;
    return p->cpu->backend->supports(p->cpu, node);
}

/* t with its poisoned address replaced by the real one. */
static struct geul_tensor *reveal(struct poison *p, const struct geul_tensor *t)
{
    struct geul_tensor *twin = geul_arena(p->ctx, 1, sizeof *twin);
    if (twin) {
        *twin = *t;
        twin->data = real(t->buffer, t->data);
    }
    return twin;
}

/* All queues of a device are its one list of work. */
static struct geul_queue *queue_new(struct geul_context *ctx, struct geul_device *device,
                                    const struct geul_queue_options *options)
{
    struct geul_queue *queue = geul_alloc(ctx, 1, sizeof *queue);
    (void)options;
    if (queue)
        queue->device = device;
    return queue;
}

static void queue_free(struct geul_context *ctx, struct geul_queue *queue)
{
    geul_free(ctx, queue);
}

struct geul_prepared {
    struct geul_tensor *const *nodes;
    int n_nodes;
};

static enum geul_status prepare(struct geul_context *ctx, struct geul_queue *queue, struct geul_tensor *const *nodes,
                                int n_nodes, struct geul_prepared **out)
{
    (void)queue;
    *out = geul_alloc(ctx, 1, sizeof **out);
    if (!*out)
        return GEUL_ERROR_MEMORY;
    **out = (struct geul_prepared){nodes, n_nodes};
    return GEUL_OK;
}

static void release(struct geul_context *ctx, struct geul_queue *queue, struct geul_prepared *prepared)
{
    (void)queue;
    geul_free(ctx, prepared);
}

static enum geul_status run(struct geul_context *ctx, struct geul_queue *queue, struct geul_prepared *prepared,
                            const struct geul_run_watch *watch)
{
    struct geul_device *device = queue->device;
    struct poison *p = device->state;
    (void)watch;
    for (int i = 0; i < prepared->n_nodes; i++) {
        if (p->n_queued == MOST_QUEUED)
            flush(device);
        struct geul_tensor *twin = reveal(p, prepared->nodes[i]);
        bool ok = twin != NULL;
        for (int k = 0; ok && k < twin->n_src; k++) {
            if (twin->src[k]->buffer->device != device)
                return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "%s reads %s, which is on another device", twin->name,
                                 twin->src[k]->name);
            twin->src[k] = reveal(p, twin->src[k]);
            ok = twin->src[k] != NULL;
        }
        if (!ok)
            return geul_fail_from(ctx, p->ctx);
        p->queue[p->n_queued++] = twin;
    }
    p->given++;
    return GEUL_OK;
}

static enum geul_status event_record(struct geul_context *ctx, struct geul_queue *queue, uint64_t *ticket)
{
    (void)ctx;
    *ticket = ((struct poison *)queue->device->state)->given;
    return GEUL_OK;
}

static enum geul_status event_wait(struct geul_context *ctx, struct geul_queue *queue, uint64_t ticket)
{
    (void)ctx;
    if (ticket > ((struct poison *)queue->device->state)->done)
        flush(queue->device);
    return GEUL_OK;
}

static const struct geul_backend backend = {
    .name = "poison",
    .close = poison_close,
    .memory = memory_size,
    .buffer_new = buffer_new,
    .buffer_free = buffer_free,
    .upload = upload,
    .download = download,
    .has_op = has_op,
    .supports = supports,
    .queue_new = queue_new,
    .queue_free = queue_free,
    .prepare = prepare,
    .run = run,
    .release = release,
    .event_record = event_record,
    .event_wait = event_wait,
};

struct geul_device *poison_open(struct geul_context *ctx, int n_threads)
{
    struct geul_device *d = geul_alloc(ctx, 1, sizeof *d);
    struct poison *p = geul_alloc(ctx, 1, sizeof *p);
    if (d && p) {
        p->cpu = geul_device_open(ctx, GEUL_DEVICE_HOST, n_threads);
        p->ctx = geul_context_new_like(ctx);
        p->on_cpu = p->cpu && p->ctx ? p->cpu->backend->queue_new(ctx, p->cpu, NULL) : NULL;
        if (p->on_cpu) {
            *d = (struct geul_device){.backend = &backend,
                                      .name = "poisoned",
                                      .id = "poison",
                                      .alignment = 64,
                                      .max_buffer = SIZE_MAX,
                                      .state = p};
            return d;
        }
        geul_device_close(ctx, p->cpu);
        geul_context_free(p->ctx);
    }
    geul_free(ctx, p);
    geul_free(ctx, d);
    return NULL;
}

void poison_close(struct geul_context *ctx, struct geul_device *device)
{
    if (!device)
        return;
    struct poison *p = device->state;
    flush(device);
    p->cpu->backend->queue_free(ctx, p->on_cpu);
    geul_device_close(ctx, p->cpu);
    geul_context_free(p->ctx);
    geul_free(ctx, p);
    geul_free(ctx, device);
}

long poison_nodes(const struct geul_device *device)
{
    return ((const struct poison *)device->state)->nodes;
}
