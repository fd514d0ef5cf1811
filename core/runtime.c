/* runtime.c: the memory of planned graphs, and running them: segments in order, the copies between them, one upload of
 * inputs per device.
 *
 * What is planned is kept here and not with its graph, which may be gone before the runtime is freed or told: of a
 * graph only its number is remembered, which no other graph ever has.
 *
 * Memory  Each device has blocks, as many and as large as the largest planned graph needs. Planned graphs share them,
 *         since one runs at a time: what one has computed is lost when another runs. Before a block grows, which moves
 *         it, everything is unplanned.
 * Order   A queue does its work in order. Between two of them four rules are kept, where the backends can without
 *         stopping the host (order_behind()):
 *           - a copy reads its source after all work given to that device so far;
 *           - a device is given no more work while another one's copy out of its memory is outstanding, since that work
 *             may be planned over what is copied (fence());
 *           - a staging area is filled again when the copy out of it is done (take_stage());
 *           - the host's copy of the inputs stays as it is until the run has ended, which waits for everything. */
#include "core/runtime.h"

#include "core/schedule.h"
#include "core/os.h"

#include <stdio.h>
#include <string.h>

enum { MOST_PLANNED = 2, N_STAGES = 2 };

/* What a backend has made of a segment. */
struct ready {
    int device;
    struct geul_prepared *prepared;
};

/* A planned graph. */
struct plan {
    uint64_t number;                 /* 0: the place is free */
    const struct geul_context *made; /* the context of its graph, perhaps gone */
    struct ready *ready;             /* one per segment */
    int n_ready, n_segments, n_copies;
    uint64_t used; /* when it was planned or run, in counts of that */
};

/* Host memory of a device for copies that go by way of the host. */
struct stage {
    void *memory;
    size_t bytes;
    bool busy; /* a copy out of it may be under way, until ticket is done */
    uint64_t ticket;
};

/* What the runtime has on a device. */
struct unit {
    struct geul_queue *queue;
    struct geul_buffer **blocks; /* memory of values; the pointers stay, since tensors have them */
    int n_blocks;
    void *mirror; /* host memory that inputs are written to */
    size_t mirror_bytes;
    struct stage stages[N_STAGES];
    int next_stage;
    bool copied_from[GEUL_MAX_DEVICES];      /* whose copies out of this memory may be outstanding */
    uint64_t copy_tickets[GEUL_MAX_DEVICES]; /* until these, of their queues, are done */
};

struct geul_runtime {
    struct geul_context *ctx;
    struct geul_context *own; /* memory and failures of what is done here: contexts of graphs may allocate otherwise */
    struct geul_devices devices;
    struct unit units[GEUL_MAX_DEVICES];
    bool owns_devices; /* geul_runtime_new() has opened them */
    struct plan plans[MOST_PLANNED];
    uint64_t clock;                                    /* for plan.used */
    const struct plan *latest;                         /* of the graph that was planned or run last */
    bool told;                                         /* of weights that are copied in every run */
    void (*progress)(void *user, int done, int total); /* see geul_runtime_watch() */
    void *progress_user;
};

static const struct geul_backend *backend_of(const struct geul_runtime *rt, int d)
{
    return rt->devices.at[d]->backend;
}

/* -------------------------------------------------------------------------- pieces of memory -- */

enum geul_status geul_device_buffer(struct geul_context *ctx, struct geul_device *device, size_t size, const char *what,
                                    struct geul_buffer *out)
{
    if (size > device->max_buffer)
        return geul_fail(ctx, GEUL_ERROR_MEMORY, "%s needs %zu bytes in one piece; the largest buffer of %s holds %zu",
                         what, size, device->name, device->max_buffer);
    return device->backend->buffer_new(ctx, device, size, out);
}

void *geul_host_memory(struct geul_context *ctx, struct geul_device *device, size_t size)
{
    const struct geul_backend *backend = device->backend;
    return backend->host_alloc ? backend->host_alloc(ctx, device, size) : geul_alloc(ctx, 1, size);
}

void geul_host_memory_free(struct geul_context *ctx, struct geul_device *device, void *memory)
{
    if (memory && device->backend->host_free)
        device->backend->host_free(ctx, device, memory);
    else
        geul_free(ctx, memory);
}

/* ---------------------------------------------------------------------------------- lifetime -- */

/* The end of a call: a failure of it goes to ctx. */
static enum geul_status report(struct geul_runtime *rt, struct geul_context *ctx, enum geul_status status)
{
    if (geul_error_status(rt->own) != GEUL_OK) {
        if (status != GEUL_OK)
            geul_fail_from(ctx, rt->own);
        geul_error_clear(rt->own);
    }
    return status;
}

static void unplan(struct geul_runtime *rt, struct plan *p)
{
    for (int i = 0; i < p->n_ready; i++) {
        int d = p->ready[i].device;
        backend_of(rt, d)->release(rt->own, rt->units[d].queue, p->ready[i].prepared);
    }
    geul_free(rt->own, p->ready);
    *p = (struct plan){0};
    if (rt->latest == p)
        rt->latest = NULL;
}

static void unplan_all(struct geul_runtime *rt)
{
    for (int i = 0; i < MOST_PLANNED; i++)
        unplan(rt, &rt->plans[i]);
}

struct geul_runtime *geul_runtime_new_on(struct geul_context *ctx, struct geul_device *const *devices, int n_devices,
                                         const struct geul_queue_options *options)
{
    if (n_devices < 1 || n_devices > GEUL_MAX_DEVICES) {
        geul_fail(ctx, GEUL_ERROR_ARGUMENT, "a runtime takes 1 to %d devices, not %d", GEUL_MAX_DEVICES, n_devices);
        return NULL;
    }
    struct geul_runtime *rt = geul_alloc(ctx, 1, sizeof *rt);
    if (!rt)
        return NULL;
    rt->ctx = ctx;
    rt->own = geul_context_new_like(ctx);
    if (!rt->own) {
        geul_free(ctx, rt);
        return geul_fail_memory(ctx, sizeof *rt);
    }
    rt->devices.n = n_devices;
    memcpy(rt->devices.at, devices, (size_t)n_devices * sizeof *devices);
    for (int d = 0; d < n_devices; d++) {
        rt->units[d].queue = devices[d]->backend->queue_new(rt->own, devices[d], options);
        if (!rt->units[d].queue) {
            geul_fail_from(ctx, rt->own);
            geul_runtime_free(rt);
            return NULL;
        }
    }
    return rt;
}

struct geul_runtime *geul_runtime_new(struct geul_context *ctx, const struct geul_runtime_options *options)
{
    static const struct geul_runtime_options defaults = {0};
    const struct geul_runtime_options *o = options ? options : &defaults;
    struct geul_devices devices;
    if (geul_devices_open(ctx, o->devices, o->n_threads, &devices) != GEUL_OK)
        return NULL;
    struct geul_queue_options how = {.exact = o->exact};
    struct geul_runtime *rt = geul_runtime_new_on(ctx, devices.at, devices.n, &how);
    if (rt)
        rt->owns_devices = true;
    else
        geul_devices_close(ctx, &devices);
    return rt;
}

static void free_unit(struct geul_runtime *rt, int d)
{
    struct geul_device *device = rt->devices.at[d];
    struct unit *u = &rt->units[d];
    for (int k = 0; k < u->n_blocks; k++) {
        if (u->blocks[k]->device)
            device->backend->buffer_free(rt->own, u->blocks[k]);
        geul_free(rt->own, u->blocks[k]);
    }
    geul_free(rt->own, u->blocks);
    geul_host_memory_free(rt->own, device, u->mirror);
    for (int k = 0; k < N_STAGES; k++)
        geul_host_memory_free(rt->own, device, u->stages[k].memory);
    if (u->queue)
        device->backend->queue_free(rt->own, u->queue);
}

void geul_runtime_free(struct geul_runtime *rt)
{
    if (!rt)
        return;
    unplan_all(rt);
    for (int d = 0; d < rt->devices.n; d++)
        free_unit(rt, d);
    geul_context_free(rt->own);
    if (rt->owns_devices)
        geul_devices_close(rt->ctx, &rt->devices);
    geul_free(rt->ctx, rt);
}

int geul_runtime_thread_count(const struct geul_runtime *rt)
{
    return rt->owns_devices ? rt->devices.at[GEUL_DEVICE_HOST]->n_threads : 0;
}

int geul_runtime_segment_count(const struct geul_runtime *rt)
{
    return rt->latest ? rt->latest->n_segments : 0;
}

int geul_runtime_copy_count(const struct geul_runtime *rt)
{
    return rt->latest ? rt->latest->n_copies : 0;
}

/* The number of g's plan, -1 when it has none here (any more). */
static int plan_of(const struct geul_runtime *rt, const struct geul_graph *g)
{
    for (int i = 0; g && g->planned && i < MOST_PLANNED; i++)
        if (rt->plans[i].number == g->planned)
            return i;
    return -1;
}

bool geul_runtime_planned(const struct geul_runtime *rt, const struct geul_graph *g)
{
    return plan_of(rt, g) >= 0;
}

size_t geul_runtime_bytes(const struct geul_runtime *rt, int device)
{
    size_t bytes = 0;
    for (int k = 0; k < rt->units[device].n_blocks; k++)
        bytes += rt->units[device].blocks[k]->size;
    return bytes;
}

void geul_runtime_watch(struct geul_runtime *rt, void (*progress)(void *user, int done, int total), void *user)
{
    rt->progress = progress;
    rt->progress_user = user;
}

/* ------------------------------------------------------------------------------------ memory -- */

/* Bytes of block k as the schedule needs it; 0: no value lies in it. */
static size_t block_needs(const struct geul_runtime *rt, const struct geul_schedule *s, int d, int k)
{
    if (!s->is_used[d] || k >= s->n_blocks[d])
        return 0;
    size_t bytes = geul_plan_block_bytes(s->values[d], s->n_values[d], k), least = rt->devices.at[d]->alignment;
    return bytes > least ? bytes : least; /* values without bytes have an address too */
}

static bool block_fits(const struct geul_runtime *rt, const struct geul_schedule *s, int d, int k)
{
    const struct unit *u = &rt->units[d];
    return (k < u->n_blocks ? u->blocks[k]->size : 0) >= block_needs(rt, s, d, k);
}

/* Bytes of the host's copy of the inputs on device d, where that is needed at all. */
static size_t mirror_needs(const struct geul_runtime *rt, const struct geul_schedule *s, int d)
{
    return rt->units[d].n_blocks > 0 && rt->units[d].blocks[0]->host ? 0 : s->input_bytes[d];
}

static bool memory_fits(const struct geul_runtime *rt, const struct geul_schedule *s)
{
    for (int d = 0; d < rt->devices.n; d++) {
        for (int k = 0; k < s->n_blocks[d]; k++)
            if (!block_fits(rt, s, d, k))
                return false;
        if (rt->units[d].mirror_bytes < mirror_needs(rt, s, d))
            return false;
    }
    return true;
}

/* Makes block k of device d as large as s needs it. */
static enum geul_status grow_block(struct geul_runtime *rt, const struct geul_schedule *s, int d, int k)
{
    struct unit *u = &rt->units[d];
    struct geul_device *device = rt->devices.at[d];
    if (k == u->n_blocks) {
        struct geul_buffer **more = geul_realloc(rt->own, u->blocks, (size_t)k + 1, sizeof(struct geul_buffer *));
        if (more)
            u->blocks = more;
        struct geul_buffer *b = more ? geul_alloc(rt->own, 1, sizeof *b) : NULL;
        if (!b)
            return GEUL_ERROR_MEMORY;
        u->blocks[u->n_blocks++] = b;
    }
    struct geul_buffer *b = u->blocks[k], fresh = {0};
    if (b->device) /* before the larger one is allocated: both may not fit */
        device->backend->buffer_free(rt->own, b);
    *b = fresh;
    enum geul_status status = geul_device_buffer(rt->own, device, block_needs(rt, s, d, k), "a graph", &fresh);
    if (status != GEUL_OK)
        return status;
    *b = fresh;
    if (b->host)
        geul_os_prefer_large_pages(b->base, b->size);
    return GEUL_OK;
}

static enum geul_status grow_host(struct geul_runtime *rt, int d, void **memory, size_t *bytes, size_t need)
{
    enum { PIECE = 1 << 14 }; /* so that a few more tokens do not make it grow again */
    geul_host_memory_free(rt->own, rt->devices.at[d], *memory);
    *bytes = 0;
    need = (need + PIECE - 1) / PIECE * PIECE;
    *memory = geul_host_memory(rt->own, rt->devices.at[d], need);
    if (!*memory)
        return geul_error_status(rt->own);
    *bytes = need;
    return GEUL_OK;
}

/* Makes room for s; everything else is unplanned if there is too little. */
static enum geul_status make_room(struct geul_runtime *rt, const struct geul_schedule *s)
{
    if (memory_fits(rt, s))
        return GEUL_OK;
    unplan_all(rt);
    enum geul_status status = GEUL_OK;
    for (int d = 0; d < rt->devices.n; d++) {
        struct unit *u = &rt->units[d];
        for (int k = 0; k < s->n_blocks[d] && status == GEUL_OK; k++)
            if (!block_fits(rt, s, d, k))
                status = grow_block(rt, s, d, k);
        if (status == GEUL_OK && u->mirror_bytes < mirror_needs(rt, s, d))
            status = grow_host(rt, d, &u->mirror, &u->mirror_bytes, mirror_needs(rt, s, d));
    }
    return status;
}

/* The number of the device whose staging area copy c goes through, -1 when it needs none: host memory on both sides, or
 * an input, which the host has already, for host memory. */
static int stage_owner(const struct geul_runtime *rt, const struct geul_copy *c)
{
    bool from_host = c->root->buffer->host || c->root->mirror;
    if (!c->on->buffer->host)
        return c->device;
    int source = geul_device_index(&rt->devices, c->root->buffer->device);
    return from_host ? -1 : source < rt->devices.n ? source : c->device;
}

/* Host memory for the largest copy of each device: no copy is under way. */
static enum geul_status make_stages(struct geul_runtime *rt, const struct geul_schedule *s)
{
    for (int i = 0; i < s->n_copies; i++) {
        const struct geul_copy *c = &s->copies[i];
        size_t bytes = geul_tensor_bytes(c->root);
        int d = stage_owner(rt, c);
        for (int k = 0; d >= 0 && k < N_STAGES; k++) {
            struct stage *a = &rt->units[d].stages[k];
            if (a->bytes >= bytes && a->memory)
                continue;
            enum geul_status status = grow_host(rt, d, &a->memory, &a->bytes, bytes);
            if (status != GEUL_OK)
                return status;
        }
    }
    return GEUL_OK;
}

/* ---------------------------------------------------------------------------------- planning -- */

/* Says once which weights lie where what reads them cannot be computed: they are copied in every run. */
static void tell_copied_weights(struct geul_runtime *rt, const struct geul_schedule *s)
{
    size_t bytes = 0;
    const struct geul_copy *first = NULL;
    int n = 0;
    for (int i = 0; i < s->n_copies; i++) {
        const struct geul_tensor *root = s->copies[i].root;
        if (root->op != GEUL_OP_LEAF || root->input)
            continue;
        first = first ? first : &s->copies[i];
        bytes += geul_tensor_bytes(root);
        n++;
    }
    if (!first || rt->told)
        return;
    rt->told = true;
    char others[48] = "";
    if (n > 1)
        snprintf(others, sizeof others, " and %d more", n - 1);
    geul_log(
        rt->ctx, GEUL_LOG_WARN,
        "every run copies %zu bytes that lie on %s to %s, which is slow: %s%s, since %s cannot compute %s with them",
        bytes, first->root->buffer->device->name, rt->devices.at[first->device]->name, first->root->name, others,
        first->root->buffer->device->name, geul_op_info(first->reader->op)->name);
}

/* A place for another plan: a free one, or that of the plan that has not been used for longest. */
static struct plan *free_plan(struct geul_runtime *rt)
{
    struct plan *oldest = &rt->plans[0];
    for (int i = 1; i < MOST_PLANNED; i++)
        if (rt->plans[i].used < oldest->used) /* a free one: 0 */
            oldest = &rt->plans[i];
    unplan(rt, oldest);
    return oldest;
}

/* Lets the backends prepare the segments. On failure p is free again. */
static enum geul_status prepare_segments(struct geul_runtime *rt, struct geul_graph *g, struct plan *p)
{
    static _Atomic uint64_t numbers; /* of all plans of all runtimes */
    const struct geul_schedule *s = g->schedule;
    p->ready = geul_alloc(rt->own, (size_t)s->n_segments, sizeof *p->ready);
    if (!p->ready)
        return GEUL_ERROR_MEMORY;
    enum geul_status status = GEUL_OK;
    for (int i = 0; i < s->n_segments && status == GEUL_OK; i++) {
        const struct geul_segment *seg = &s->segments[i];
        struct ready *r = &p->ready[i];
        r->device = seg->device;
        status = backend_of(rt, seg->device)
                     ->prepare(rt->own, rt->units[seg->device].queue, seg->nodes, seg->n_nodes, &r->prepared);
        p->n_ready += status == GEUL_OK;
    }
    if (status != GEUL_OK) {
        unplan(rt, p);
        return status;
    }
    p->number = g->planned = ++numbers;
    p->made = g->ctx;
    p->n_segments = s->n_segments;
    p->n_copies = s->n_copies;
    p->used = ++rt->clock;
    rt->latest = p;
    return GEUL_OK;
}

enum geul_status geul_runtime_plan(struct geul_runtime *rt, struct geul_graph *g)
{
    if (!g)
        return GEUL_ERROR_ARGUMENT;
    /* Graphs of one context may share tensors, which have one address; and an older plan of g itself is of no use. */
    for (int i = 0; i < MOST_PLANNED; i++)
        if (rt->plans[i].made == g->ctx)
            unplan(rt, &rt->plans[i]);
    g->planned = 0;
    struct geul_schedule *s = geul_schedule_make(&rt->devices, g);
    if (!s)
        return geul_error_status(g->ctx);
    enum geul_status status = make_room(rt, s);
    if (status != GEUL_OK)
        return report(rt, g->ctx, status);
    struct geul_place places[GEUL_MAX_DEVICES];
    for (int d = 0; d < rt->devices.n; d++) {
        const struct unit *u = &rt->units[d];
        places[d].blocks = u->blocks;
        places[d].mirror = mirror_needs(rt, s, d) ? u->mirror : NULL;
    }
    status = geul_schedule_place(&rt->devices, g, s, places);
    if (status == GEUL_OK)
        status = make_stages(rt, s);
    if (status != GEUL_OK)
        return report(rt, g->ctx, status);
    tell_copied_weights(rt, s);
    g->schedule = s;
    return report(rt, g->ctx, prepare_segments(rt, g, free_plan(rt)));
}

/* What device d needs for s: nodes is room for all of g's. */
static struct geul_runtime_needs needs_of(const struct geul_runtime *rt, const struct geul_graph *g,
                                          const struct geul_schedule *s, int d, struct geul_tensor **nodes)
{
    const struct geul_backend *backend = backend_of(rt, d);
    struct geul_runtime_needs needs = {.values = 0};
    int n = 0;
    for (int k = 0; k < s->n_blocks[d]; k++)
        needs.values += block_needs(rt, s, d, k);
    for (int i = 0; i < g->n_nodes; i++)
        if (s->device[i] == d && g->nodes[i]->op != GEUL_OP_VIEW)
            nodes[n++] = g->nodes[i];
    needs.working = backend->working ? backend->working(rt->units[d].queue, nodes, n) : 0;
    return needs;
}

enum geul_status geul_runtime_measure(struct geul_runtime *rt, struct geul_graph *g,
                                      struct geul_runtime_needs needs[GEUL_MAX_DEVICES])
{
    memset(needs, 0, GEUL_MAX_DEVICES * sizeof *needs);
    if (!g)
        return GEUL_ERROR_ARGUMENT;
    struct geul_schedule *s = geul_schedule_make(&rt->devices, g);
    struct geul_tensor **nodes = s ? geul_arena(g->ctx, (size_t)g->n_nodes, sizeof(struct geul_tensor *)) : NULL;
    if (!nodes)
        return geul_error_status(g->ctx);
    for (int d = 0; d < rt->devices.n; d++) {
        needs[d] = needs_of(rt, g, s, d, nodes);
        if (needs[d].working == SIZE_MAX)
            return geul_fail(g->ctx, GEUL_ERROR_MEMORY, "the graph's working memory exceeds the address space");
    }
    return GEUL_OK;
}

/* ------------------------------------------------------------------------------------- order -- */

/* The work that device d is given from now on starts after ticket of device other. */
static enum geul_status order_behind(struct geul_runtime *rt, int d, int other, uint64_t ticket)
{
    const struct geul_backend *backend = backend_of(rt, d);
    enum geul_status status = GEUL_OK;
    bool done = false;
    if (backend->wait_on)
        status = backend->wait_on(rt->own, rt->units[d].queue, rt->units[other].queue, ticket, &done);
    if (status != GEUL_OK || done)
        return status;
    return backend_of(rt, other)->event_wait(rt->own, rt->units[other].queue, ticket);
}

static enum geul_status record(struct geul_runtime *rt, int d, uint64_t *ticket)
{
    return backend_of(rt, d)->event_record(rt->own, rt->units[d].queue, ticket);
}

/* Waits for all work of device d. */
static enum geul_status finish(struct geul_runtime *rt, int d)
{
    uint64_t ticket;
    enum geul_status status = record(rt, d, &ticket);
    return status == GEUL_OK ? backend_of(rt, d)->event_wait(rt->own, rt->units[d].queue, ticket) : status;
}

/* Before device d is given work that writes: other devices may still be copying from its memory. */
static enum geul_status fence(struct geul_runtime *rt, int d)
{
    struct unit *u = &rt->units[d];
    enum geul_status status = GEUL_OK;
    for (int other = 0; other < rt->devices.n && status == GEUL_OK; other++) {
        if (!u->copied_from[other])
            continue;
        status = order_behind(rt, d, other, u->copy_tickets[other]);
        u->copied_from[other] = false;
    }
    return status;
}

/* ------------------------------------------------------------------------------------ copies -- */

/* The next staging area of device d, free to be filled. */
static enum geul_status take_stage(struct geul_runtime *rt, int d, struct stage **out)
{
    struct unit *u = &rt->units[d];
    struct stage *a = *out = &u->stages[u->next_stage];
    u->next_stage = (u->next_stage + 1) % N_STAGES;
    enum geul_status status = GEUL_OK;
    if (a->busy)
        status = backend_of(rt, d)->event_wait(rt->own, u->queue, a->ticket);
    a->busy = false;
    return status;
}

/* Directly from device to device, behind the work of source; *done: whether they can. */
static enum geul_status copy_directly(struct geul_runtime *rt, const struct geul_copy *c, int source, bool *done)
{
    const struct geul_tensor *from = c->root;
    struct geul_tensor *to = c->on;
    uint64_t ticket;
    enum geul_status status = GEUL_OK;
    if (source < rt->devices.n) {
        status = record(rt, source, &ticket);
        if (status == GEUL_OK)
            status = order_behind(rt, c->device, source, ticket);
    }
    if (status == GEUL_OK)
        status = backend_of(rt, c->device)
                     ->copy(rt->own, rt->units[c->device].queue, to->buffer, to->data, from->buffer, from->data,
                            geul_tensor_bytes(from), done);
    if (status != GEUL_OK || !*done || source >= rt->devices.n)
        return status;
    struct unit *u = &rt->units[source];
    u->copied_from[c->device] = true;
    return record(rt, c->device, &u->copy_tickets[c->device]);
}

/* Brings the values of c to host memory: *host, which is a's or the tensor's own. When the values are there is said by
 * *ready, a ticket of the source; *waits false: they are there now. */
static enum geul_status fetch(struct geul_runtime *rt, const struct geul_copy *c, int source, struct stage *a,
                              const void **host, bool *waits, uint64_t *ready)
{
    const struct geul_tensor *from = c->root;
    size_t bytes = geul_tensor_bytes(from);
    *waits = false;
    *host = from->mirror;
    if (*host)
        return GEUL_OK;
    if (from->buffer->host) {
        *host = from->data;
        return source < rt->devices.n ? finish(rt, source) : GEUL_OK;
    }
    const struct geul_backend *backend = from->buffer->device->backend;
    *host = a->memory;
    /* The area is of the memory that the other device allocates, where it lies on one. */
    bool pinned = !backend->host_alloc || backend == backend_of(rt, c->device) || c->on->buffer->host;
    if (source >= rt->devices.n || !backend->download_async || !pinned)
        return backend->download(rt->own, from->buffer, from->data, a->memory, bytes);
    enum geul_status status =
        backend->download_async(rt->own, rt->units[source].queue, from->buffer, from->data, a->memory, bytes);
    *waits = true;
    return status == GEUL_OK ? record(rt, source, ready) : status;
}

/* By way of the host. */
static enum geul_status copy_by_host(struct geul_runtime *rt, const struct geul_copy *c, int source)
{
    const struct geul_backend *target = backend_of(rt, c->device);
    struct geul_tensor *to = c->on;
    size_t bytes = geul_tensor_bytes(c->root);
    struct stage *a = NULL;
    const void *host;
    bool waits;
    uint64_t ready;
    int owner = stage_owner(rt, c);
    enum geul_status status = owner < 0 ? GEUL_OK : take_stage(rt, owner, &a);
    if (status == GEUL_OK)
        status = fetch(rt, c, source, a, &host, &waits, &ready);
    bool at_once = to->buffer->host || !target->upload_async;
    if (status == GEUL_OK && waits)
        status = at_once ? backend_of(rt, source)->event_wait(rt->own, rt->units[source].queue, ready)
                         : order_behind(rt, c->device, source, ready);
    if (status != GEUL_OK)
        return status;
    if (at_once)
        return target->upload(rt->own, to->buffer, to->data, host, bytes);
    if (host != a->memory) /* which is pinned, and stays as it is */
        memcpy(a->memory, host, bytes);
    status = target->upload_async(rt->own, rt->units[c->device].queue, to->buffer, to->data, a->memory, bytes);
    a->busy = true;
    return status == GEUL_OK ? record(rt, c->device, &a->ticket) : status;
}

/* Moves one value to another device. */
static enum geul_status make_copy(struct geul_runtime *rt, const struct geul_copy *c)
{
    const struct geul_tensor *from = c->root;
    int source = geul_device_index(&rt->devices, from->buffer->device);
    bool done = false;
    enum geul_status status = fence(rt, c->device);
    if (status == GEUL_OK && backend_of(rt, c->device)->copy && from->buffer->host == c->on->buffer->host)
        status = copy_directly(rt, c, source, &done);
    return status == GEUL_OK && !done ? copy_by_host(rt, c, source) : status;
}

enum geul_status geul_runtime_read(struct geul_runtime *rt, const struct geul_buffer *b, const void *address,
                                   void *host, size_t size)
{
    int d = geul_device_index(&rt->devices, b->device);
    const struct geul_backend *backend = b->device->backend;
    if (d >= rt->devices.n || !backend->download_async)
        return backend->download(rt->ctx, b, address, host, size);
    enum geul_status status = backend->download_async(rt->own, rt->units[d].queue, b, address, host, size);
    if (status == GEUL_OK)
        status = finish(rt, d);
    return report(rt, rt->ctx, status);
}

enum geul_status geul_runtime_move(struct geul_runtime *rt, struct geul_buffer *b, void *to, const void *from,
                                   size_t size)
{
    enum { PIECE = 1 << 20 };
    int d = geul_device_index(&rt->devices, b->device);
    const struct geul_backend *backend = b->device->backend;
    enum geul_status status = GEUL_OK;
    bool done = false;
    if (d < rt->devices.n && backend->copy)
        status = backend->copy(rt->ctx, rt->units[d].queue, b, to, b, from, size, &done);
    if (status != GEUL_OK || done)
        return status;
    size_t most = size < PIECE ? size : PIECE;
    char *piece = geul_alloc(rt->ctx, 1, most);
    if (!piece)
        return GEUL_ERROR_MEMORY;
    for (size_t at = 0; at < size && status == GEUL_OK; at += most) {
        size_t n = size - at < most ? size - at : most;
        status = backend->download(rt->ctx, b, (const char *)from + at, piece, n);
        if (status == GEUL_OK)
            status = backend->upload(rt->ctx, b, (char *)to + at, piece, n);
    }
    geul_free(rt->ctx, piece);
    return status;
}

/* --------------------------------------------------------------------------------------- run -- */

/* Waits for all devices, also those behind one that fails. The first failure is the result. */
static enum geul_status finish_all(struct geul_runtime *rt)
{
    enum geul_status status = GEUL_OK;
    for (int d = 0; d < rt->devices.n; d++) {
        struct unit *u = &rt->units[d];
        enum geul_status finished = finish(rt, d);
        status = status == GEUL_OK ? finished : status;
        for (int k = 0; k < N_STAGES; k++)
            u->stages[k].busy = false;
        memset(u->copied_from, 0, sizeof u->copied_from);
    }
    return status;
}

enum geul_status geul_runtime_wait(struct geul_runtime *rt)
{
    return report(rt, rt->ctx, finish_all(rt));
}

/* Every device's inputs go there in one copy. They are in front of its memory. */
static enum geul_status upload_inputs(struct geul_runtime *rt, const struct geul_schedule *s)
{
    enum geul_status status = GEUL_OK;
    for (int d = 0; d < rt->devices.n && status == GEUL_OK; d++) {
        const struct geul_backend *backend = backend_of(rt, d);
        struct unit *u = &rt->units[d];
        size_t bytes = mirror_needs(rt, s, d);
        if (bytes == 0)
            continue;
        struct geul_buffer *b = u->blocks[0];
        status = backend->upload_async ? backend->upload_async(rt->own, u->queue, b, b->base, u->mirror, bytes)
                                       : backend->upload(rt->own, b, b->base, u->mirror, bytes);
    }
    return status;
}

/* Where a run is, for rt->progress. */
struct place {
    const struct geul_runtime *rt;
    int before, total; /* nodes of the segments before this one, and of all */
};

static void tell_progress(void *user, int done)
{
    const struct place *p = user;
    p->rt->progress(p->rt->progress_user, p->before + done, p->total);
}

/* A segment after its copies. */
static enum geul_status run_segment(struct geul_runtime *rt, const struct geul_graph *g, const struct geul_segment *seg,
                                    const struct ready *r, const struct geul_run_watch *watch)
{
    enum geul_status status = GEUL_OK;
    for (int k = 0; k < seg->n_copies && status == GEUL_OK; k++)
        status = make_copy(rt, &g->schedule->copies[seg->first_copy + k]);
    if (status == GEUL_OK)
        status = fence(rt, seg->device);
    if (status != GEUL_OK)
        return status;
    return backend_of(rt, seg->device)->run(rt->own, rt->units[seg->device].queue, r->prepared, watch);
}

/* Computes g; cancel as in struct geul_run_watch. */
static enum geul_status run_graph(struct geul_runtime *rt, struct geul_graph *g, const atomic_bool *cancel)
{
    int planned = plan_of(rt, g);
    if (planned < 0)
        return geul_fail(g ? g->ctx : rt->ctx, GEUL_ERROR_ARGUMENT, "the graph must be planned on this runtime first");
    struct plan *p = &rt->plans[planned];
    p->used = ++rt->clock;
    rt->latest = p;
    const struct geul_schedule *s = g->schedule;
    struct place place = {.rt = rt};
    const struct geul_run_watch watch = {cancel, rt->progress ? tell_progress : NULL, &place};
    for (int i = 0; i < s->n_segments; i++)
        place.total += s->segments[i].n_nodes;
    enum geul_status status = upload_inputs(rt, s);
    for (int i = 0; i < s->n_segments && status == GEUL_OK; i++) {
        if (cancel && atomic_load(cancel)) /* also where the backend does not notice */
            status = GEUL_ERROR_CANCELLED;
        else
            status = run_segment(rt, g, &s->segments[i], &p->ready[i], &watch);
        place.before += s->segments[i].n_nodes;
    }
    /* Also after a failure: nothing may run on memory that the caller is about to use or free. */
    enum geul_status finished = finish_all(rt);
    return report(rt, g->ctx, status == GEUL_OK ? finished : status);
}

enum geul_status geul_runtime_run(struct geul_runtime *rt, struct geul_graph *g)
{
    enum geul_status status = run_graph(rt, g, geul_context_cancel_flag(rt->ctx));
    if (status != GEUL_ERROR_CANCELLED)
        return status;
    geul_context_uncancel(rt->ctx); /* it has had its effect */
    return geul_fail(g->ctx, GEUL_ERROR_CANCELLED, "cancelled");
}

enum geul_status geul_runtime_run_whole(struct geul_runtime *rt, struct geul_graph *g)
{
    return run_graph(rt, g, NULL);
}
