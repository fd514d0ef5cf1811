/* poison.c: see poison.h. */
#define _GNU_SOURCE /* MAP_ANONYMOUS */
#include "tests/poison.h"

#include "tests/harness.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/* A piece of work that nobody has waited for yet. */
enum kind { NODES, UPLOAD, DOWNLOAD, COPY, WAIT };
struct work {
    enum kind kind;
    struct geul_tensor **nodes; /* twins with real addresses, in an arena of its own */
    int n_nodes;
    struct geul_context *arena;
    void *to;
    const void *from;
    size_t size;
    struct geul_device *other; /* of WAIT */
    uint64_t ticket;
};

struct poison {
    struct poison_options options;
    struct geul_device *cpu;
    struct geul_queue *on_cpu;
    struct geul_context *ctx;
    struct work *work; /* given[done] to given[given - 1] */
    size_t n_work, capacity;
    uint64_t done; /* pieces of work that are, of all that were ever given */
    enum geul_status failed;
    bool lost;
    struct poison_counts counts;
    long call, buffer; /* in the counts of options */
    long open_buffers, open_queues;
    size_t host_bytes;
};

/* The buffer behind a poisoned range. */
struct hidden {
    uint8_t *bytes;
    size_t reserved;
};

struct geul_prepared {
    struct geul_tensor *const *nodes;
    int n_nodes;
};

static struct poison *poison_of(const struct geul_device *device)
{
    return device->state;
}

/* Begins a call that can fail. */
static enum geul_status begin(struct geul_context *ctx, struct geul_device *device)
{
    struct poison *p = device->state;
    p->counts.calls++;
    if (++p->call == p->options.lost_at)
        p->lost = true;
    if (!p->lost)
        return GEUL_OK;
    return geul_fail(ctx, GEUL_ERROR_DEVICE, "%s is lost", device->name);
}

/* -------------------------------------------------------------------------------------- work -- */

static void free_work(struct work *w)
{
    geul_context_free(w->arena);
    *w = (struct work){0};
}

/* Work that is not done on a lost device never is. */
static void drop_work(struct poison *p)
{
    for (size_t i = 0; i < p->n_work; i++)
        free_work(&p->work[i]);
    p->done += p->n_work;
    p->n_work = 0;
}

static enum geul_status add_work(struct poison *p, struct work w)
{
    if (!geul_reserve(p->ctx, &p->work, &p->capacity, p->n_work + 1, sizeof *p->work)) {
        free_work(&w);
        return GEUL_ERROR_MEMORY;
    }
    p->work[p->n_work++] = w;
    return GEUL_OK;
}

static bool overlap(const struct geul_tensor *a, const struct geul_tensor *b)
{
    const char *x = a->data, *y = b->data;
    return x < y + geul_tensor_bytes(b) && y < x + geul_tensor_bytes(a);
}

/* What need not have been stored is destroyed, unless its memory has gone to a later node. */
static void forget_results(const struct work *w)
{
    for (int i = 0; i < w->n_nodes; i++) {
        const struct geul_tensor *t = w->nodes[i];
        bool taken = t->kept || (geul_op_info(t->op)->flags & GEUL_FLAG_WRITES);
        for (int k = i + 1; k < w->n_nodes && !taken; k++)
            taken = overlap(t, w->nodes[k]);
        if (!taken)
            memset(t->data, 0xff, geul_tensor_bytes(t));
    }
}

static enum geul_status compute(struct poison *p, const struct work *w)
{
    const struct geul_backend *cpu = p->cpu->backend;
    struct geul_prepared *prepared = NULL;
    enum geul_status status = cpu->prepare(p->ctx, p->on_cpu, w->nodes, w->n_nodes, &prepared);
    if (status == GEUL_OK)
        status = cpu->run(p->ctx, p->on_cpu, prepared, NULL);
    cpu->release(p->ctx, p->on_cpu, prepared);
    forget_results(w);
    p->counts.nodes += w->n_nodes;
    return status;
}

/* Does the work of the device up to ticket. */
static void flush(struct geul_device *device, uint64_t ticket)
{
    struct poison *p = device->state;
    while (p->n_work > 0 && p->done < ticket && !p->lost) {
        struct work w = p->work[0];
        memmove(p->work, p->work + 1, --p->n_work * sizeof w);
        p->done++; /* before it is done: what it waits for may wait for what is before it here */
        if (w.kind == WAIT)
            flush(w.other, w.ticket);
        else if (w.kind == NODES && compute(p, &w) != GEUL_OK)
            p->failed = GEUL_ERROR_MEMORY;
        else if (w.kind != NODES && w.size > 0)
            memcpy(w.to, w.from, w.size);
        free_work(&w);
    }
}

static void flush_all(struct geul_device *device)
{
    flush(device, UINT64_MAX);
}

/* ------------------------------------------------------------------------------------ memory -- */

static void memory_size(struct geul_device *device, size_t *free_bytes, size_t *total_bytes)
{
    const struct poison *p = poison_of(device);
    *total_bytes = p->options.memory;
    *free_bytes = p->options.memory > p->counts.bytes ? p->options.memory - p->counts.bytes : 0;
}

/* Where the bytes of a poisoned address really are. */
static uint8_t *real(const struct geul_buffer *b, const void *address, size_t size)
{
    const uint8_t *base = b->base, *at = address;
    CHECK_MSG(at >= base && size <= b->size && (size_t)(at - base) <= b->size - size,
              "%zu bytes at %td of a buffer of %zu bytes", size, at - base, b->size);
    return ((struct hidden *)b->state)->bytes + (at - base);
}

static enum geul_status buffer_new(struct geul_context *ctx, struct geul_device *device, size_t size,
                                   struct geul_buffer *out)
{
    struct poison *p = device->state;
    enum geul_status status = begin(ctx, device);
    if (status != GEUL_OK)
        return status;
    CHECK_MSG(size <= device->max_buffer, "a buffer of %zu bytes, of at most %zu", size, device->max_buffer);
    if (++p->buffer == p->options.no_memory_at || (p->options.memory && size > p->options.memory - p->counts.bytes))
        return geul_fail(ctx, GEUL_ERROR_MEMORY, "%s has no memory for %zu bytes", device->name, size);
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
    p->counts.buffers++;
    p->counts.bytes += size;
    p->open_buffers++;
    return GEUL_OK;
}

static void buffer_free(struct geul_context *ctx, struct geul_buffer *b)
{
    flush_all(b->device);
    struct hidden *h = b->state;
    munmap(b->base, h->reserved);
    poison_of(b->device)->counts.bytes -= b->size;
    memset(h->bytes, 0xff, b->size);
    geul_free(ctx, h->bytes);
    geul_free(ctx, h);
    poison_of(b->device)->open_buffers--;
    *b = (struct geul_buffer){0};
}

enum { HOST_HEADER = 64 };

static void *host_alloc(struct geul_context *ctx, struct geul_device *device, size_t size)
{
    struct poison *p = device->state;
    uint8_t *memory = begin(ctx, device) == GEUL_OK ? geul_alloc(ctx, 1, size + HOST_HEADER) : NULL;
    if (!memory)
        return NULL;
    memcpy(memory, &size, sizeof size);
    memset(memory + HOST_HEADER, 0xff, size);
    p->host_bytes += size;
    p->counts.host_most = p->host_bytes > p->counts.host_most ? p->host_bytes : p->counts.host_most;
    return memory + HOST_HEADER;
}

static void host_free(struct geul_context *ctx, struct geul_device *device, void *memory)
{
    struct poison *p = device->state;
    uint8_t *whole = (uint8_t *)memory - HOST_HEADER;
    size_t size;
    memcpy(&size, whole, sizeof size);
    for (size_t i = 0; i < p->n_work && !p->lost; i++) {
        const uint8_t *used = p->work[i].kind == UPLOAD     ? p->work[i].from
                              : p->work[i].kind == DOWNLOAD ? p->work[i].to
                                                            : NULL;
        CHECK_MSG(!used || used < whole || used >= whole + HOST_HEADER + size, "host memory is freed while in use");
    }
    p->host_bytes -= size;
    geul_free(ctx, whole);
}

/* ------------------------------------------------------------------------------------ copies -- */

static enum geul_status upload(struct geul_context *ctx, struct geul_buffer *b, void *address, const void *src,
                               size_t size)
{
    enum geul_status status = begin(ctx, b->device);
    if (status != GEUL_OK)
        return status;
    flush_all(b->device);
    poison_of(b->device)->counts.uploads++;
    if (size > 0)
        memcpy(real(b, address, size), src, size);
    return GEUL_OK;
}

static enum geul_status download(struct geul_context *ctx, const struct geul_buffer *b, const void *address, void *dst,
                                 size_t size)
{
    enum geul_status status = begin(ctx, b->device);
    if (status != GEUL_OK)
        return status;
    flush_all(b->device);
    poison_of(b->device)->counts.downloads++;
    if (size > 0)
        memcpy(dst, real(b, address, size), size);
    return GEUL_OK;
}

static enum geul_status upload_async(struct geul_context *ctx, struct geul_queue *queue, struct geul_buffer *b,
                                     void *address, const void *src, size_t size)
{
    struct poison *p = queue->device->state;
    enum geul_status status = begin(ctx, queue->device);
    if (status != GEUL_OK)
        return status;
    p->counts.uploads++;
    return add_work(p, (struct work){.kind = UPLOAD, .to = real(b, address, size), .from = src, .size = size});
}

static enum geul_status download_async(struct geul_context *ctx, struct geul_queue *queue, const struct geul_buffer *b,
                                       const void *address, void *dst, size_t size)
{
    struct poison *p = queue->device->state;
    enum geul_status status = begin(ctx, queue->device);
    if (status != GEUL_OK)
        return status;
    p->counts.downloads++;
    return add_work(p, (struct work){.kind = DOWNLOAD, .to = dst, .from = real(b, address, size), .size = size});
}

static enum geul_status copy(struct geul_context *ctx, struct geul_queue *queue, struct geul_buffer *dst,
                             void *dst_address, const struct geul_buffer *src, const void *src_address, size_t size,
                             bool *done)
{
    struct poison *p = queue->device->state;
    enum geul_status status = begin(ctx, queue->device);
    CHECK(queue->device == dst->device);
    *done = src->device->backend == queue->device->backend && !p->options.no_copy;
    if (status != GEUL_OK || !*done)
        return status;
    p->counts.copies++;
    uint8_t *to = real(dst, dst_address, size);
    const uint8_t *from = real(src, src_address, size);
    CHECK(to + size <= from || from + size <= to);
    return add_work(p, (struct work){.kind = COPY, .to = to, .from = from, .size = size});
}

/* ----------------------------------------------------------------------------------- running -- */

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

/* All queues of a device are its one list of work. */
static struct geul_queue *queue_new(struct geul_context *ctx, struct geul_device *device,
                                    const struct geul_queue_options *options)
{
    struct geul_queue *queue = begin(ctx, device) == GEUL_OK ? geul_alloc(ctx, 1, sizeof *queue) : NULL;
    if (!queue)
        return NULL;
    *queue = (struct geul_queue){.device = device, .exact = options && options->exact};
    poison_of(device)->open_queues++;
    return queue;
}

static void queue_free(struct geul_context *ctx, struct geul_queue *queue)
{
    poison_of(queue->device)->open_queues--;
    geul_free(ctx, queue);
}

static enum geul_status prepare(struct geul_context *ctx, struct geul_queue *queue, struct geul_tensor *const *nodes,
                                int n_nodes, struct geul_prepared **out)
{
    struct poison *p = queue->device->state;
    enum geul_status status = begin(ctx, queue->device);
    if (status != GEUL_OK)
        return status;
    *out = geul_alloc(ctx, 1, sizeof **out);
    if (!*out)
        return GEUL_ERROR_MEMORY;
    **out = (struct geul_prepared){nodes, n_nodes};
    p->counts.prepared++;
    p->counts.now_prepared++;
    return GEUL_OK;
}

static void release(struct geul_context *ctx, struct geul_queue *queue, struct geul_prepared *prepared)
{
    flush_all(queue->device);
    if (prepared)
        poison_of(queue->device)->counts.now_prepared--;
    geul_free(ctx, prepared);
}

/* t with its poisoned address replaced by the real one. */
static struct geul_tensor *reveal(struct geul_context *arena, const struct geul_tensor *t)
{
    struct geul_tensor *twin = geul_arena(arena, 1, sizeof *twin);
    if (!twin)
        return NULL;
    *twin = *t;
    twin->data = real(t->buffer, t->data, geul_is_contiguous(t) ? geul_tensor_bytes(t) : 0);
    return twin;
}

/* A node with its operands. */
static struct geul_tensor *reveal_node(struct geul_context *ctx, struct geul_context *arena,
                                       const struct geul_device *device, const struct geul_tensor *node)
{
    struct geul_tensor *twin = reveal(arena, node);
    bool writes = geul_op_info(node->op)->flags & GEUL_FLAG_WRITES; /* a view of a cache begins anywhere */
    CHECK_MSG(writes || (uintptr_t)node->data % device->alignment == 0, "%s is not aligned", node->name);
    for (int k = 0; twin && k < twin->n_src; k++) {
        if (twin->src[k]->buffer->device != device) {
            geul_fail(ctx, GEUL_ERROR_ARGUMENT, "%s reads %s, which is on another device", twin->name,
                      twin->src[k]->name);
            return NULL;
        }
        twin->src[k] = reveal(arena, twin->src[k]);
        if (!twin->src[k])
            return NULL;
    }
    return twin;
}

static enum geul_status run(struct geul_context *ctx, struct geul_queue *queue, struct geul_prepared *prepared,
                            const struct geul_run_watch *watch)
{
    struct geul_device *device = queue->device;
    struct poison *p = device->state;
    enum geul_status status = begin(ctx, device);
    if (status != GEUL_OK)
        return status;
    (void)watch;
    p->counts.runs++;
    size_t n = (size_t)prepared->n_nodes;
    struct work w = {.kind = NODES, .n_nodes = prepared->n_nodes, .arena = geul_context_new_like(p->ctx)};
    bool ok = w.arena && (w.nodes = geul_arena(w.arena, n, sizeof(struct geul_tensor *)));
    for (size_t i = 0; ok && i < n; i++)
        ok = (w.nodes[i] = reveal_node(ctx, w.arena, device, prepared->nodes[i])) != NULL;
    if (!ok) {
        free_work(&w);
        return geul_fail(ctx, GEUL_ERROR_MEMORY, "no memory for the work of %s", device->name);
    }
    status = add_work(p, w);
    return status == GEUL_OK ? status : geul_fail_from(ctx, p->ctx);
}

static enum geul_status event_record(struct geul_context *ctx, struct geul_queue *queue, uint64_t *ticket)
{
    const struct poison *p = queue->device->state;
    enum geul_status status = begin(ctx, queue->device);
    if (status == GEUL_OK)
        *ticket = p->done + p->n_work;
    return status;
}

static enum geul_status event_wait(struct geul_context *ctx, struct geul_queue *queue, uint64_t ticket)
{
    struct poison *p = queue->device->state;
    enum geul_status status = begin(ctx, queue->device);
    if (status != GEUL_OK)
        return status;
    flush(queue->device, ticket);
    if (p->failed == GEUL_OK)
        return GEUL_OK;
    p->failed = GEUL_OK;
    return geul_fail_from(ctx, p->ctx);
}

static enum geul_status wait_on(struct geul_context *ctx, struct geul_queue *queue, struct geul_queue *other,
                                uint64_t ticket, bool *done)
{
    struct poison *p = queue->device->state;
    enum geul_status status = begin(ctx, queue->device);
    *done = other->device->backend == queue->device->backend;
    if (status != GEUL_OK || !*done)
        return status;
    return add_work(p, (struct work){.kind = WAIT, .other = other->device, .ticket = ticket});
}

/* ----------------------------------------------------------------------------------- devices -- */

static void close_device(struct geul_context *ctx, struct geul_device *device)
{
    struct poison *p = device->state;
    flush_all(device);
    drop_work(p);
    CHECK_MSG(p->open_buffers == 0 && p->open_queues == 0 && p->counts.now_prepared == 0 && p->host_bytes == 0,
              "left on %s: %ld buffers, %ld queues, %ld prepared lists, %zu bytes of host memory", device->name,
              p->open_buffers, p->open_queues, p->counts.now_prepared, p->host_bytes);
    if (p->on_cpu)
        p->cpu->backend->queue_free(ctx, p->on_cpu);
    geul_device_close(ctx, p->cpu);
    if (p->ctx)
        geul_free(p->ctx, p->work);
    geul_context_free(p->ctx);
    geul_free(ctx, p);
    geul_free(ctx, device);
}

#define FUNCTIONS                                                                                                      \
    .close = close_device, .memory = memory_size, .buffer_new = buffer_new, .buffer_free = buffer_free,                \
    .upload = upload, .download = download, .has_op = has_op, .supports = supports, .queue_new = queue_new,            \
    .queue_free = queue_free, .prepare = prepare, .run = run, .release = release, .event_record = event_record,        \
    .event_wait = event_wait

static const struct geul_backend plain_backend = {.name = "plain poison", FUNCTIONS};
static const struct geul_backend backend = {.name = "poison",
                                            FUNCTIONS,
                                            .host_alloc = host_alloc,
                                            .host_free = host_free,
                                            .upload_async = upload_async,
                                            .download_async = download_async,
                                            .copy = copy,
                                            .wait_on = wait_on};

struct geul_device *poison_open(struct geul_context *ctx, const struct poison_options *options)
{
    static const struct poison_options defaults = {0};
    const struct poison_options *o = options ? options : &defaults;
    struct geul_device *d = geul_alloc(ctx, 1, sizeof *d);
    struct poison *p = geul_alloc(ctx, 1, sizeof *p);
    if (!d || !p) {
        geul_free(ctx, p);
        geul_free(ctx, d);
        return NULL;
    }
    p->options = *o;
    *d = (struct geul_device){.backend = o->plain ? &plain_backend : &backend,
                              .name = "the poisoned device",
                              .id = "poison:0",
                              .alignment = o->alignment ? o->alignment : 64,
                              .max_buffer = o->max_buffer ? o->max_buffer : SIZE_MAX,
                              .state = p};
    p->cpu = geul_device_open(ctx, GEUL_DEVICE_HOST, o->n_threads ? o->n_threads : 1);
    p->ctx = geul_context_new_like(ctx);
    p->on_cpu = p->cpu && p->ctx ? p->cpu->backend->queue_new(ctx, p->cpu, NULL) : NULL;
    if (p->on_cpu)
        return d;
    geul_fail_memory(ctx, sizeof *p);
    close_device(ctx, d);
    return NULL;
}

struct poison_counts poison_counts(const struct geul_device *device)
{
    return poison_of(device)->counts;
}

void poison_set(struct geul_device *device, long lost_at, long no_memory_at)
{
    struct poison *p = device->state;
    p->call = p->buffer = 0;
    p->options.lost_at = lost_at;
    p->options.no_memory_at = no_memory_at;
}

bool poison_is_lost(const struct geul_device *device)
{
    return poison_of(device)->lost;
}
