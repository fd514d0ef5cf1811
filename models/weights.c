/* weights.c: see weights.h. Two blocks of host memory take turns: while the device copies from one, the other is filled
 * from the file, of which each piece is resident only while it is read. */
#include "models/weights.h"

#include "core/os.h"

#include <string.h>

enum { MOST_PACKED = 256 << 20, MOST_STREAMED = 32 << 20, N_HOST_BLOCKS = 2, HOST_ALIGNMENT = 64 };

struct expected {
    struct geul_device *device;
    size_t bytes;
};

/* What is under way on a device. */
struct lane {
    struct geul_device *device;
    struct geul_queue *queue;   /* NULL where copies cannot be asynchronous */
    struct geul_buffer *buffer; /* that is being filled */
    size_t used;
};

struct host_block {
    uint8_t *memory;
    size_t used;
    struct lane *lane; /* whose copies out of it end with ticket; NULL: none */
    uint64_t ticket;
};

struct geul_weights_upload {
    struct geul_context *ctx;
    struct geul_buffer *buffers;
    int64_t *n_buffers;
    struct expected *expected;
    int64_t n_expected, next;
    struct lane lanes[GEUL_MAX_DEVICES];
    int n_lanes;
    struct host_block blocks[N_HOST_BLOCKS];
    struct geul_device *host; /* whose backend has made their memory; NULL: there is none */
    size_t block_bytes;
    int current;
};

struct geul_weights_upload *geul_weights_upload_new(struct geul_context *ctx, int64_t n, struct geul_buffer *buffers,
                                                    int64_t *n_buffers)
{
    struct geul_weights_upload *u = geul_alloc(ctx, 1, sizeof *u);
    struct expected *expected = geul_alloc(ctx, (size_t)n, sizeof *expected);
    if (!u || !expected) {
        geul_free(ctx, u);
        geul_free(ctx, expected);
        return NULL;
    }
    *u = (struct geul_weights_upload){.ctx = ctx, .buffers = buffers, .n_buffers = n_buffers, .expected = expected};
    return u;
}

void geul_weights_upload_expect(struct geul_weights_upload *u, struct geul_device *device, size_t bytes)
{
    u->expected[u->n_expected++] = (struct expected){device, bytes};
}

/* ----------------------------------------------------------------------------------- packing -- */

static size_t aligned(const struct geul_device *device, size_t bytes)
{
    return (bytes + device->alignment - 1) & ~(device->alignment - 1); /* bytes of a file: they do not overflow */
}

/* Bytes of a new buffer that begins with the next tensor: as many of its device's as fit into one. */
static size_t buffer_bytes(const struct geul_weights_upload *u)
{
    const struct expected *first = &u->expected[u->next];
    const size_t most = first->device->max_buffer < MOST_PACKED ? first->device->max_buffer : MOST_PACKED;
    size_t bytes = aligned(first->device, first->bytes);
    for (int64_t i = u->next + 1; i < u->n_expected; i++) {
        size_t more = aligned(first->device, u->expected[i].bytes);
        if (u->expected[i].device != first->device)
            continue;
        if (bytes > most || more > most - bytes) /* the first alone may be larger than usual */
            break;
        bytes += more;
    }
    return bytes;
}

/* The lane of device; NULL (recorded) on failure. */
static struct lane *lane_of(struct geul_weights_upload *u, struct geul_device *device)
{
    for (int i = 0; i < u->n_lanes; i++)
        if (u->lanes[i].device == device)
            return &u->lanes[i];
    struct lane *lane = &u->lanes[u->n_lanes]; /* a model has at most GEUL_MAX_DEVICES */
    *lane = (struct lane){.device = device};
    if (device->backend->upload_async && !(lane->queue = device->backend->queue_new(u->ctx, device, NULL)))
        return NULL;
    u->n_lanes++;
    return lane;
}

/* A place for the next tensor, behind the one before it on its device or in a new buffer. */
static enum geul_status place(struct geul_weights_upload *u, struct lane *lane, const char *name, void **address)
{
    size_t bytes = aligned(lane->device, u->expected[u->next].bytes);
    if (!lane->buffer || bytes > lane->buffer->size - lane->used) {
        struct geul_buffer *b = &u->buffers[*u->n_buffers];
        enum geul_status status = geul_device_buffer(u->ctx, lane->device, buffer_bytes(u), name, b);
        if (status != GEUL_OK)
            return status;
        ++*u->n_buffers;
        lane->buffer = b;
        lane->used = 0;
    }
    *address = (uint8_t *)lane->buffer->base + lane->used;
    lane->used += bytes;
    return GEUL_OK;
}

/* --------------------------------------------------------------------------------- streaming -- */

/* Waits until nothing is copied from the block any more. */
static enum geul_status empty_block(struct geul_weights_upload *u, struct host_block *b)
{
    enum geul_status status = GEUL_OK;
    if (b->lane)
        status = b->lane->device->backend->event_wait(u->ctx, b->lane->queue, b->ticket);
    b->lane = NULL;
    b->used = 0;
    return status;
}

static void free_blocks(struct geul_weights_upload *u)
{
    uint64_t ticket;
    for (int i = 0; i < u->n_lanes;
         i++) { /* also what was under way when something failed; on a lost device nothing is */
        const struct lane *l = &u->lanes[i];
        if (l->queue && l->device->backend->event_record(u->ctx, l->queue, &ticket) == GEUL_OK)
            (void)l->device->backend->event_wait(u->ctx, l->queue, ticket);
    }
    for (int i = 0; i < N_HOST_BLOCKS; i++) {
        u->blocks[i].lane = NULL;
        u->blocks[i].used = 0;
        if (u->host)
            geul_host_memory_free(u->ctx, u->host, u->blocks[i].memory);
        u->blocks[i].memory = NULL;
    }
    u->host = NULL;
}

/* Makes the blocks ones of device's backend: as large as what is still to come, up to the usual size. */
static enum geul_status make_blocks(struct geul_weights_upload *u, struct geul_device *device)
{
    if (u->host && u->host->backend == device->backend)
        return GEUL_OK;
    free_blocks(u);
    size_t left = 0;
    for (int64_t i = u->next; i < u->n_expected && left < MOST_STREAMED; i++)
        left += u->expected[i].device->backend == device->backend ? aligned(device, u->expected[i].bytes) : 0;
    u->block_bytes = left < MOST_STREAMED ? left + HOST_ALIGNMENT : MOST_STREAMED;
    u->host = device;
    for (int i = 0; i < N_HOST_BLOCKS; i++)
        if (!(u->blocks[i].memory = geul_host_memory(u->ctx, device, u->block_bytes)))
            return geul_error_status(u->ctx);
    return GEUL_OK;
}

/* Up to *n bytes from src on their way to address, through the block whose turn it is; *n becomes how many. */
static enum geul_status stream_piece(struct geul_weights_upload *u, struct lane *lane, void *address,
                                     const uint8_t *src, size_t *n)
{
    const struct geul_backend *backend = lane->device->backend;
    struct host_block *b = &u->blocks[u->current];
    if (b->used >= u->block_bytes || (b->lane && b->lane != lane)) {
        u->current = (u->current + 1) % N_HOST_BLOCKS;
        b = &u->blocks[u->current];
        enum geul_status status = empty_block(u, b);
        if (status != GEUL_OK)
            return status;
    }
    size_t room = u->block_bytes - b->used;
    *n = *n < room ? *n : room;
    memcpy(b->memory + b->used, src, *n);
    enum geul_status status =
        backend->upload_async(u->ctx, lane->queue, lane->buffer, address, b->memory + b->used, *n);
    b->used += (*n + HOST_ALIGNMENT - 1) / HOST_ALIGNMENT * HOST_ALIGNMENT;
    b->lane = lane;
    uint64_t ticket;
    if (status == GEUL_OK)
        status = backend->event_record(u->ctx, lane->queue, &ticket);
    if (status == GEUL_OK)
        b->ticket = ticket;
    return status;
}

enum geul_status geul_weights_upload_put(struct geul_weights_upload *u, const struct geul_gguf_tensor *t,
                                         struct geul_buffer **buffer, void **address)
{
    struct lane *lane = lane_of(u, u->expected[u->next].device);
    if (!lane)
        return geul_error_status(u->ctx);
    enum geul_status status = place(u, lane, t->name, address);
    *buffer = lane->buffer;
    if (status == GEUL_OK && lane->queue)
        status = make_blocks(u, lane->device);
    const uint8_t *src = t->data;
    for (size_t at = 0, n; at < t->bytes && status == GEUL_OK; at += n) {
        n = t->bytes - at < MOST_STREAMED ? t->bytes - at : MOST_STREAMED;
        uint8_t *to = (uint8_t *)*address + at;
        status = lane->queue ? stream_piece(u, lane, to, src + at, &n)
                             : lane->device->backend->upload(u->ctx, lane->buffer, to, src + at, n);
        geul_os_map_discard(src + at, n);
    }
    u->next++;
    return status;
}

enum geul_status geul_weights_upload_finish(struct geul_weights_upload *u)
{
    enum geul_status status = GEUL_OK;
    for (int i = 0; i < N_HOST_BLOCKS && status == GEUL_OK; i++)
        status = empty_block(u, &u->blocks[i]);
    return status;
}

void geul_weights_upload_free(struct geul_weights_upload *u)
{
    if (!u)
        return;
    struct geul_context *ctx = u->ctx;
    free_blocks(u);
    for (int i = 0; i < u->n_lanes; i++)
        if (u->lanes[i].queue)
            u->lanes[i].device->backend->queue_free(ctx, u->lanes[i].queue);
    geul_free(ctx, u->expected);
    geul_free(ctx, u);
}
