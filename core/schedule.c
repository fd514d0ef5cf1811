/* schedule.c: from a graph to device segments with copies between them, and running those.
 *
 *   assign    every node goes to the device of the weight or cache it reads, else to that of its first operand
 *   values    every result, input and copy becomes a value with a lifetime; one memory plan per device
 *   addresses each device's memory is made large enough, and every value gets its offset in it
 *   segments  runs of nodes of one device, each preceded by the copies that it needs; nodes that read a copy get a twin
 *             whose operands point to it
 *
 * The life of a node, from the call that changes it:
 *
 *   geul_node()           built      operation, operands, shape; no device and no memory    (tensor.c, shape.c)
 *   geul_graph_new()      collected  if an output needs it: its index is its step           (graph.c)
 *   geul_runtime_plan()   numbered   mark = index, by which all arrays here are addressed
 *                         assigned   device[index]
 *                         valued     value[index]: bytes, first step, last step that reads it
 *                         addressed  buffer and data
 *                         split      into the list of a segment, itself or as its twin
 *   geul_runtime_run()    computed   with its segment, after the segment's copies; as often as the graph is run
 *                         released   after its last step its memory goes to the next value planned there: nothing is
 *                                    freed
 *   geul_context_reset()  gone       node, graph and schedule; the runtime keeps its memory for the next plan
 *
 * A result b that is read on both of two devices; c = matmul(b, a weight of device 1), e = add(b, d):
 *
 *   step            0        1                   2        3                   4
 *   device 0        a  --->  b  -------------------------------------------->  e
 *                            | copied                           d copied ^
 *   device 1                 +-------->  b' -->  c  --->  d  ------------+
 *   segments       [ 0: a b         ]   [ 1: copy b; c d  ]   [ 2: copy d; e  ]
 *   memory of b              ==================================================     device 0, steps 1 to 4
 *   memory of b'                                 =                                  device 1, step 2
 */
#include "core/schedule.h"

#include "core/os.h"
#include "core/plan.h"

#include <string.h>

/* The copy of a value on another device. */
struct copy {
    const struct geul_tensor *root; /* what is copied: a contiguous result, input or weight */
    struct geul_tensor *on;         /* its twin on device */
    int device;
    int value;  /* index in that device's plan */
    int before; /* step before which it is made; copies are in the order of these */
};

struct segment {
    int device, first_copy, n_copies, n_nodes;
    struct geul_tensor **nodes;
};

/* What a backend has made of a segment. */
struct ready {
    int device;
    struct geul_prepared *prepared;
};

struct geul_schedule {
    int *device; /* per node */
    int *value;  /* per node: index in its device's plan, -1 for views and stores */
    int *last;   /* per node: last step that reads its memory; n_nodes: the caller reads it after the run */
    int *leaf_device, *leaf_value;
    struct geul_plan_value *values[GEUL_MAX_DEVICES];
    int n_values[GEUL_MAX_DEVICES];
    struct copy *copies;
    int n_copies;
    struct segment *segments;
    int n_segments;
};

struct geul_runtime {
    struct geul_context *ctx;
    struct geul_device *devices[GEUL_MAX_DEVICES];
    struct geul_queue *queues[GEUL_MAX_DEVICES]; /* one on each device */
    int n_devices;
    struct geul_buffer memory[GEUL_MAX_DEVICES]; /* of the planned graph's values; grows, never shrinks */
    uint64_t tickets[GEUL_MAX_DEVICES];          /* of each device's latest segment */
    struct geul_device *own_device;              /* opened by geul_runtime_new() */
    const struct geul_graph *planned;            /* whose values the memory holds; another plan takes it over */
    /* Of each of its segments. Here and not with the graph, which can be gone before the runtime is freed. */
    struct ready *ready;
    int n_ready;
    void *staging; /* host memory for copies that no pair of devices can make */
    size_t staging_bytes;
    void (*progress)(void *user, int done, int total); /* see geul_runtime_watch() */
    void *progress_user;
};

/* ---------------------------------------------------------------------------------- lifetime -- */

/* Ends the use of the planned graph. The graph itself may be gone. */
static void unplan(struct geul_runtime *rt)
{
    for (int i = 0; i < rt->n_ready; i++) {
        const struct ready *r = &rt->ready[i];
        rt->devices[r->device]->backend->release(rt->ctx, rt->queues[r->device], r->prepared);
    }
    geul_free(rt->ctx, rt->ready);
    rt->ready = NULL;
    rt->n_ready = 0;
    rt->planned = NULL;
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
    rt->n_devices = n_devices;
    memcpy(rt->devices, devices, (size_t)n_devices * sizeof *devices);
    for (int d = 0; d < n_devices; d++) {
        rt->queues[d] = devices[d]->backend->queue_new(ctx, devices[d], options);
        if (!rt->queues[d]) {
            geul_runtime_free(rt);
            return NULL;
        }
    }
    return rt;
}

struct geul_runtime *geul_runtime_new(struct geul_context *ctx, const struct geul_runtime_options *options)
{
    struct geul_device *host = geul_device_open(ctx, GEUL_DEVICE_HOST, options ? options->n_threads : 0);
    if (!host)
        return NULL;
    struct geul_queue_options how = {.exact = options && options->exact};
    struct geul_runtime *rt = geul_runtime_new_on(ctx, &host, 1, &how);
    if (rt)
        rt->own_device = host;
    else
        geul_device_close(ctx, host);
    return rt;
}

void geul_runtime_free(struct geul_runtime *rt)
{
    if (!rt)
        return;
    unplan(rt);
    for (int d = 0; d < rt->n_devices; d++)
        if (rt->memory[d].device)
            rt->devices[d]->backend->buffer_free(rt->ctx, &rt->memory[d]);
    for (int d = 0; d < rt->n_devices; d++)
        if (rt->queues[d])
            rt->devices[d]->backend->queue_free(rt->ctx, rt->queues[d]);
    geul_free(rt->ctx, rt->staging);
    geul_device_close(rt->ctx, rt->own_device);
    geul_free(rt->ctx, rt);
}

int geul_runtime_thread_count(const struct geul_runtime *rt)
{
    return rt->own_device ? rt->own_device->n_threads : 0;
}

int geul_runtime_segment_count(const struct geul_runtime *rt)
{
    return rt->planned ? rt->planned->schedule->n_segments : 0;
}

int geul_runtime_copy_count(const struct geul_runtime *rt)
{
    return rt->planned ? rt->planned->schedule->n_copies : 0;
}

bool geul_runtime_planned(const struct geul_runtime *rt, const struct geul_graph *g)
{
    return g && rt->planned == g;
}

size_t geul_runtime_bytes(const struct geul_runtime *rt, int device)
{
    return rt->memory[device].size;
}

bool geul_device_supports(const struct geul_device *device, const struct geul_tensor *node)
{
    const struct geul_backend *backend = device->backend;
    return node->op == GEUL_OP_VIEW ||
           (backend->has_op(node->op) && geul_layout_fits(node) && backend->supports(device, node));
}

/* ------------------------------------------------------------------------------------ assign -- */

/* The tensor whose memory t lives in: views share their operand's, a store's result is its cache. */
static struct geul_tensor *root_of(struct geul_tensor *t)
{
    while (t->op == GEUL_OP_VIEW || (geul_op_info(t->op)->flags & GEUL_FLAG_WRITES))
        t = t->src[0];
    return t;
}

/* Whether what t reads was changed by a node of the graph. */
static bool is_changed(const struct geul_tensor *t)
{
    while (t->op == GEUL_OP_VIEW)
        t = t->src[0];
    return geul_op_info(t->op)->flags & GEUL_FLAG_WRITES;
}

/* Whether t is a weight or a cache: it had its own memory before the graph was planned. */
static bool has_own_memory(const struct geul_tensor *t)
{
    return t->op == GEUL_OP_LEAF && !t->input;
}

static int device_index(const struct geul_runtime *rt, const struct geul_device *device)
{
    int d = 0;
    while (d < rt->n_devices && rt->devices[d] != device)
        d++;
    return d;
}

/* The device that holds t's values; -1 for an input, or zeros, that no node has used yet. */
static int home_of(const struct geul_runtime *rt, const struct geul_schedule *s, struct geul_tensor *t)
{
    const struct geul_tensor *root = root_of(t);
    if (has_own_memory(root))
        return device_index(rt, root->buffer->device);
    return root->input ? s->leaf_device[root->mark] : s->device[root->mark];
}

/* A device for node: where a weight or cache among its operands lies, else where the first operand with a device lies,
 * else the first device; what is written stays where it is. -1 when none of them can compute it. */
static int choose_device(const struct geul_runtime *rt, const struct geul_schedule *s, const struct geul_tensor *node)
{
    int candidates[2 * GEUL_MAX_SRC + 1], n = 0;
    /* Writing a copy would leave the original as it was: the node follows its operand 0 or does not run. */
    bool writes = geul_op_info(node->op)->flags & GEUL_FLAG_WRITES;
    int written = writes ? home_of(rt, s, node->src[0]) : -1;
    if (written >= 0)
        candidates[n++] = written;
    for (int pinned = 1; pinned >= 0 && written < 0; pinned--)
        for (int i = 0; i < node->n_src; i++) {
            const struct geul_tensor *root = root_of(node->src[i]);
            if (pinned == has_own_memory(root))
                candidates[n++] = home_of(rt, s, node->src[i]);
        }
    if (written < 0)
        candidates[n++] = 0;
    for (int i = 0; i < n; i++) {
        int d = candidates[i];
        if (d >= 0 && d < rt->n_devices && geul_device_supports(rt->devices[d], node))
            return d;
    }
    return -1;
}

/* Gives every node and input a device. Operands come before users, so their devices are known, except those of inputs
 * and zeros, which follow their first user. */
static enum geul_status assign(const struct geul_runtime *rt, struct geul_graph *g, struct geul_schedule *s)
{
    for (int i = 0; i < g->n_leaves; i++)
        s->leaf_device[i] = -1;
    for (int i = 0; i < g->n_nodes; i++) {
        struct geul_tensor *t = g->nodes[i];
        if (t->op == GEUL_OP_VIEW) {
            s->device[i] = home_of(rt, s, t->src[0]);
            continue;
        }
        s->device[i] = t->op == GEUL_OP_ZERO ? -1 : choose_device(rt, s, t);
        if (t->op == GEUL_OP_ZERO)
            continue;
        if (s->device[i] < 0)
            return geul_fail(g->ctx, GEUL_ERROR_UNSUPPORTED, "no device can compute %s (operation %s)", t->name,
                             geul_op_info(t->op)->name);
        for (int k = 0; k < t->n_src; k++) {
            const struct geul_tensor *root = root_of(t->src[k]);
            if (root->input && s->leaf_device[root->mark] < 0)
                s->leaf_device[root->mark] = s->device[i];
            else if (root->op == GEUL_OP_ZERO && s->device[root->mark] < 0)
                s->device[root->mark] = s->device[i];
        }
    }
    for (int i = 0; i < g->n_nodes; i++)
        if (s->device[i] < 0) /* zeros that no node uses, and views of what had no device yet */
            s->device[i] = 0;
    return GEUL_OK;
}

/* ------------------------------------------------------------------------------------ values -- */

static int add_value(struct geul_schedule *s, int device, size_t bytes, int first, int last)
{
    int i = s->n_values[device]++;
    s->values[device][i] = (struct geul_plan_value){.bytes = bytes, .first = first, .last = last, .reuses = -1};
    return i;
}

/* The copy of root on device, NULL when there is none yet. */
static struct copy *find_copy(const struct geul_schedule *s, const struct geul_tensor *root, int device)
{
    for (int i = s->n_copies - 1; i >= 0; i--)
        if (s->copies[i].root == root && s->copies[i].device == device)
            return &s->copies[i];
    return NULL;
}

/* Last step in which each result is read, through views and writes too: what counts is the memory. Outputs outlive the
 * last step. */
static void find_last_uses(const struct geul_graph *g, struct geul_schedule *s)
{
    for (int i = 0; i < g->n_nodes; i++) {
        s->last[i] = i;
        struct geul_tensor *t = g->nodes[i];
        for (int k = 0; k < t->n_src; k++) {
            const struct geul_tensor *root = root_of(t->src[k]);
            if (root->op != GEUL_OP_LEAF)
                s->last[root->mark] = i;
        }
    }
    for (int i = 0; i < g->n_nodes; i++) { /* an output's root may be read after the output itself */
        const struct geul_tensor *root = root_of(g->nodes[i]);
        if (g->nodes[i]->output && root->op != GEUL_OP_LEAF)
            s->last[root->mark] = g->n_nodes;
    }
}

/* Whether node may write its result over its first operand: no later step reads that memory (an output's is read after
 * the run), no other operand lies in it, and the result covers it exactly. */
static bool may_reuse(const struct geul_schedule *s, const struct geul_tensor *node, int step)
{
    if (!(geul_op_info(node->op)->flags & GEUL_FLAG_INPLACE))
        return false;
    struct geul_tensor *a = node->src[0], *root = root_of(a);
    if (root->op == GEUL_OP_LEAF || s->device[root->mark] != s->device[step] || s->last[root->mark] != step)
        return false;
    for (int k = 1; k < node->n_src; k++)
        if (root_of(node->src[k]) == root)
            return false;
    return a->type == node->type && geul_is_contiguous(a) && geul_tensor_bytes(a) == geul_tensor_bytes(root) &&
           geul_tensor_bytes(a) == geul_tensor_bytes(node);
}

/* Makes sure that node's operands have copies on its device where they live elsewhere. */
static enum geul_status add_copies(const struct geul_runtime *rt, struct geul_graph *g, struct geul_schedule *s,
                                   int step)
{
    const struct geul_tensor *node = g->nodes[step];
    int device = s->device[step];
    for (int k = 0; k < node->n_src; k++) {
        struct geul_tensor *root = root_of(node->src[k]);
        if (home_of(rt, s, root) == device)
            continue;
        struct copy *c = find_copy(s, root, device);
        /* A plain result has one value for the whole run, so one copy serves all its readers on a device. A cache, or
         * the sum that a writing node returns, may have been written since the copy was made. */
        bool stale = c && (has_own_memory(root) || is_changed(node->src[k]));
        if (!c || stale) {
            struct geul_tensor *on = geul_arena(g->ctx, 1, sizeof *on);
            if (!on)
                return GEUL_ERROR_MEMORY;
            *on = *root; /* the whole root, even if a view of it is read: views then keep their offsets */
            on->op = GEUL_OP_LEAF;
            on->n_src = 0;
            c = &s->copies[s->n_copies++];
            *c = (struct copy){root, on, device, add_value(s, device, geul_tensor_bytes(root), step, step), step};
        }
        s->values[device][c->value].last = step; /* steps only grow */
    }
    return GEUL_OK;
}

/* Every input, result and copy becomes a value of its device's plan, ordered by first step as geul_plan() wants it:
 * inputs, which live during the whole run since the caller writes them before it, then each node after its copies. */
static enum geul_status make_values(const struct geul_runtime *rt, struct geul_graph *g, struct geul_schedule *s)
{
    find_last_uses(g, s);
    for (int i = 0; i < g->n_leaves; i++) {
        if (s->leaf_device[i] < 0)
            s->leaf_device[i] = 0; /* an input that is an output and read by nobody */
        s->leaf_value[i] = add_value(s, s->leaf_device[i], geul_tensor_bytes(g->leaves[i]), 0, g->n_nodes);
    }
    for (int i = 0; i < g->n_nodes; i++) {
        struct geul_tensor *t = g->nodes[i];
        s->value[i] = -1;
        if (t->op == GEUL_OP_VIEW)
            continue;
        enum geul_status status = add_copies(rt, g, s, i);
        if (status != GEUL_OK)
            return status;
        if (root_of(t) != t) /* writes into what has a value, or its own memory, already */
            continue;
        s->value[i] = add_value(s, s->device[i], geul_tensor_bytes(t), i, s->last[i]);
        if (may_reuse(s, t, i))
            s->values[s->device[i]][s->value[i]].reuses = s->value[root_of(t->src[0])->mark];
    }
    return GEUL_OK;
}

/* --------------------------------------------------------------------------------- addresses -- */

static void put(struct geul_tensor *t, struct geul_buffer *buffer, const struct geul_plan_value *v)
{
    t->buffer = buffer;
    t->data = (char *)buffer->base + v->offset;
}

/* Plans each device, makes sure it has the memory, and gives every tensor its address. What an earlier graph left in
 * the memory is lost. */
static enum geul_status assign_addresses(struct geul_runtime *rt, struct geul_graph *g, struct geul_schedule *s)
{
    for (int d = 0; d < rt->n_devices; d++) {
        size_t total;
        enum geul_status status = geul_plan(g->ctx, s->values[d], s->n_values[d], &total);
        if (status != GEUL_OK)
            return status;
        struct geul_buffer *m = &rt->memory[d];
        if (m->device && m->size >= total)
            continue;
        if (m->device) /* before the larger one is allocated: both may not fit */
            rt->devices[d]->backend->buffer_free(rt->ctx, m);
        *m = (struct geul_buffer){0};
        struct geul_buffer fresh = {0};
        status = rt->devices[d]->backend->buffer_new(g->ctx, rt->devices[d], total, &fresh);
        if (status != GEUL_OK)
            return status;
        *m = fresh;
        if (m->host)
            geul_os_prefer_large_pages(m->base, m->size);
    }
    for (int i = 0; i < g->n_leaves; i++) {
        int d = s->leaf_device[i];
        put(g->leaves[i], &rt->memory[d], &s->values[d][s->leaf_value[i]]);
    }
    for (int i = 0; i < s->n_copies; i++) {
        struct copy *c = &s->copies[i];
        put(c->on, &rt->memory[c->device], &s->values[c->device][c->value]);
    }
    /* In order: a view or a write has its operand's address, which is set by then. */
    for (int i = 0; i < g->n_nodes; i++) {
        struct geul_tensor *t = g->nodes[i];
        if (s->value[i] >= 0) {
            put(t, &rt->memory[s->device[i]], &s->values[s->device[i]][s->value[i]]);
        } else {
            t->buffer = t->src[0]->buffer;
            t->data = (char *)t->src[0]->data + (t->op == GEUL_OP_VIEW ? t->params.view.offset : 0);
        }
    }
    return GEUL_OK;
}

/* ---------------------------------------------------------------------------------- segments -- */

/* t as seen on the device of copy c: the same shape and strides over the copy's memory, at the same distance from its
 * start as t from its root's. */
static struct geul_tensor *twin_operand(struct geul_context *ctx, const struct geul_tensor *t, const struct copy *c)
{
    struct geul_tensor *twin = geul_arena(ctx, 1, sizeof *twin);
    if (!twin)
        return NULL;
    *twin = *t;
    twin->op = GEUL_OP_LEAF;
    twin->n_src = 0;
    twin->buffer = c->on->buffer;
    twin->data = (char *)c->on->data + ((const char *)t->data - (const char *)c->root->data);
    return twin;
}

/* The newest copy of root on device that was made at or before step. */
static const struct copy *copy_for(const struct geul_schedule *s, const struct geul_tensor *root, int device, int step)
{
    const struct copy *found = NULL;
    for (int i = 0; i < s->n_copies && s->copies[i].before <= step; i++)
        if (s->copies[i].root == root && s->copies[i].device == device)
            found = &s->copies[i];
    return found;
}

/* The node as its device computes it: itself, or a twin that reads copies. The node's own operands stay, since another
 * plan needs them. NULL when memory is short. */
static struct geul_tensor *node_for_device(const struct geul_runtime *rt, struct geul_graph *g,
                                           const struct geul_schedule *s, int step)
{
    struct geul_tensor *node = g->nodes[step], *twin = NULL;
    for (int k = 0; k < node->n_src; k++) {
        const struct geul_tensor *root = root_of(node->src[k]);
        if (home_of(rt, s, node->src[k]) == s->device[step])
            continue;
        if (!twin) {
            twin = geul_arena(g->ctx, 1, sizeof *twin);
            if (!twin)
                return NULL;
            *twin = *node;
        }
        twin->src[k] = twin_operand(g->ctx, node->src[k], copy_for(s, root, s->device[step], step));
        if (!twin->src[k])
            return NULL;
    }
    return twin ? twin : node;
}

/* Cuts the nodes into runs of one device. Copies are only made between segments, so a node that needs one starts a new
 * segment. Views compute nothing and are in none. */
static enum geul_status make_segments(const struct geul_runtime *rt, struct geul_graph *g, struct geul_schedule *s)
{
    struct geul_tensor **list = geul_arena(g->ctx, (size_t)g->n_nodes, sizeof(struct geul_tensor *));
    s->segments = geul_arena(g->ctx, (size_t)g->n_nodes, sizeof *s->segments);
    if (!list || !s->segments)
        return GEUL_ERROR_MEMORY;
    /* One list of all nodes, of which each segment has a slice; there are at most as many segments as nodes. */
    struct segment *current = NULL;
    int copies = 0, used = 0;
    for (int i = 0; i < g->n_nodes; i++) {
        if (g->nodes[i]->op == GEUL_OP_VIEW)
            continue;
        bool needs_copy = copies < s->n_copies && s->copies[copies].before == i;
        if (!current || current->device != s->device[i] || needs_copy) {
            current = &s->segments[s->n_segments++];
            *current = (struct segment){.device = s->device[i], .first_copy = copies, .nodes = list + used};
            while (copies < s->n_copies && s->copies[copies].before == i)
                copies++;
            current->n_copies = copies - current->first_copy;
        }
        list[used] = node_for_device(rt, g, s, i);
        if (!list[used++])
            return GEUL_ERROR_MEMORY;
        current->n_nodes++;
    }
    return GEUL_OK;
}

/* Marks, from the end, what is read by others than its own segment: outputs, and what later segments or copies need. */
static void mark_kept(const struct geul_graph *g, const struct geul_schedule *s)
{
    int step = g->n_nodes - 1;
    for (int i = s->n_segments - 1, behind = g->n_nodes; i >= 0; i--) {
        const struct segment *seg = &s->segments[i];
        for (int k = seg->n_nodes - 1; k >= 0; k--, step--) {
            while (g->nodes[step]->op == GEUL_OP_VIEW)
                step--;
            seg->nodes[k]->kept = s->last[step] >= behind; /* the node's twin, where it has one */
        }
        behind = step + 1;
    }
}

/* Lets the backends prepare the segments. On failure those that are prepared are in rt->ready. */
static enum geul_status prepare_segments(struct geul_runtime *rt, const struct geul_graph *g,
                                         const struct geul_schedule *s)
{
    rt->ready = geul_alloc(rt->ctx, (size_t)s->n_segments, sizeof *rt->ready);
    if (!rt->ready)
        return geul_fail_from(g->ctx, rt->ctx);
    enum geul_status status = GEUL_OK;
    for (int i = 0; i < s->n_segments && status == GEUL_OK; i++) {
        const struct segment *seg = &s->segments[i];
        struct ready *r = &rt->ready[i];
        r->device = seg->device;
        status = rt->devices[seg->device]->backend->prepare(g->ctx, rt->queues[seg->device], seg->nodes, seg->n_nodes,
                                                            &r->prepared);
        rt->n_ready += status == GEUL_OK;
    }
    return status;
}

/* Host memory for the largest copy: copies are made one at a time. */
static enum geul_status make_staging(struct geul_runtime *rt, const struct geul_graph *g, const struct geul_schedule *s)
{
    size_t most = 0;
    for (int i = 0; i < s->n_copies; i++) {
        size_t bytes = geul_tensor_bytes(s->copies[i].root);
        most = bytes > most ? bytes : most;
    }
    if (most <= rt->staging_bytes)
        return GEUL_OK;
    geul_free(rt->ctx, rt->staging);
    rt->staging_bytes = 0;
    rt->staging = geul_alloc(g->ctx, most, 1);
    if (!rt->staging)
        return GEUL_ERROR_MEMORY;
    rt->staging_bytes = most;
    return GEUL_OK;
}

/* A schedule with its arrays sized for g, in g's arena. */
static struct geul_schedule *new_schedule(const struct geul_runtime *rt, const struct geul_graph *g)
{
    size_t nodes = (size_t)g->n_nodes, leaves = (size_t)g->n_leaves;
    size_t copies = rt->n_devices > 1 ? nodes * GEUL_MAX_SRC : 0; /* at most one for each operand */
    struct geul_schedule *s = geul_arena(g->ctx, 1, sizeof *s);
    if (!s)
        return NULL;
    s->device = geul_arena(g->ctx, nodes, sizeof *s->device);
    s->value = geul_arena(g->ctx, nodes, sizeof *s->value);
    s->last = geul_arena(g->ctx, nodes, sizeof *s->last);
    s->leaf_device = geul_arena(g->ctx, leaves, sizeof *s->leaf_device);
    s->leaf_value = geul_arena(g->ctx, leaves, sizeof *s->leaf_value);
    s->copies = geul_arena(g->ctx, copies, sizeof *s->copies);
    bool ok = s->device && s->value && s->last && s->leaf_device && s->leaf_value && s->copies;
    for (int d = 0; d < rt->n_devices; d++) {
        s->values[d] = geul_arena(g->ctx, nodes + leaves + copies, sizeof *s->values[d]);
        ok = ok && s->values[d];
    }
    return ok ? s : NULL;
}

/* Every node and input gets its index as its mark. Another graph of the same context may have marked the same tensors,
 * so this is done for each plan, and marks are not used after it. */
static void number(struct geul_graph *g)
{
    for (int i = 0; i < g->n_nodes; i++)
        g->nodes[i]->mark = (uint32_t)i;
    for (int i = 0; i < g->n_leaves; i++)
        g->leaves[i]->mark = (uint32_t)i;
}

/* Devices and values of g's nodes, without memory yet. NULL on failure. */
static struct geul_schedule *make_schedule(const struct geul_runtime *rt, struct geul_graph *g)
{
    if (!g)
        return NULL;
    number(g);
    struct geul_schedule *s = new_schedule(rt, g);
    bool ok = s && assign(rt, g, s) == GEUL_OK && make_values(rt, g, s) == GEUL_OK;
    return ok ? s : NULL;
}

enum geul_status geul_runtime_measure(struct geul_runtime *rt, struct geul_graph *g, size_t *values, size_t *working)
{
    *values = *working = 0;
    struct geul_schedule *s = make_schedule(rt, g);
    if (!s)
        return g ? geul_error_status(g->ctx) : GEUL_ERROR_ARGUMENT;
    struct geul_tensor **nodes = geul_arena(g->ctx, (size_t)g->n_nodes, sizeof(struct geul_tensor *));
    for (int d = 0; d < rt->n_devices; d++) {
        size_t total, n = 0;
        if (!nodes || geul_plan(g->ctx, s->values[d], s->n_values[d], &total) != GEUL_OK)
            return GEUL_ERROR_MEMORY;
        for (int i = 0; i < g->n_nodes; i++)
            if (s->device[i] == d && g->nodes[i]->op != GEUL_OP_VIEW)
                nodes[n++] = g->nodes[i];
        *values += total;
        size_t more =
            rt->devices[d]->backend->working ? rt->devices[d]->backend->working(rt->queues[d], nodes, (int)n) : 0;
        if (!geul_add_size(*working, more, working))
            return geul_fail(g->ctx, GEUL_ERROR_MEMORY, "the graph's working memory exceeds the address space");
    }
    return GEUL_OK;
}

enum geul_status geul_runtime_plan(struct geul_runtime *rt, struct geul_graph *g)
{
    unplan(rt);
    struct geul_schedule *s = make_schedule(rt, g);
    if (!s)
        return g ? geul_error_status(g->ctx) : GEUL_ERROR_ARGUMENT;
    enum geul_status status = assign_addresses(rt, g, s);
    if (status == GEUL_OK)
        status = make_segments(rt, g, s);
    if (status == GEUL_OK)
        status = make_staging(rt, g, s);
    if (status == GEUL_OK) {
        mark_kept(g, s);
        status = prepare_segments(rt, g, s);
    }
    if (status != GEUL_OK) {
        unplan(rt);
        return status;
    }
    g->schedule = s;
    rt->planned = g;
    return GEUL_OK;
}

/* --------------------------------------------------------------------------------------- run -- */

static enum geul_status wait_for(struct geul_runtime *rt, struct geul_context *ctx, int device)
{
    return rt->devices[device]->backend->event_wait(ctx, rt->queues[device], rt->tickets[device]);
}

/* Moves one value to another device: directly, or by way of host memory. */
static enum geul_status make_copy(struct geul_runtime *rt, struct geul_context *ctx, const struct copy *c)
{
    const struct geul_tensor *from = c->root;
    struct geul_tensor *to = c->on;
    size_t bytes = geul_tensor_bytes(from);
    const struct geul_backend *target = to->buffer->device->backend;
    int source = device_index(rt, from->buffer->device);
    enum geul_status status = GEUL_OK;
    bool done = false;
    if (source < rt->n_devices) /* the value may still be on its way; upload() itself waits for its device */
        status = wait_for(rt, ctx, source);
    if (status == GEUL_OK && target->copy)
        status = target->copy(ctx, rt->queues[c->device], to->buffer, to->data, from->buffer, from->data, bytes, &done);
    if (status != GEUL_OK || done)
        return status;
    const void *host = from->data;
    if (!from->buffer->host) {
        status = from->buffer->device->backend->download(ctx, from->buffer, from->data, rt->staging, bytes);
        host = rt->staging;
    }
    return status == GEUL_OK ? target->upload(ctx, to->buffer, to->data, host, bytes) : status;
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

/* Computes g; cancel as in struct geul_run_watch. */
static enum geul_status run_graph(struct geul_runtime *rt, struct geul_graph *g, const atomic_bool *cancel)
{
    if (!g || rt->planned != g)
        return geul_fail(g ? g->ctx : rt->ctx, GEUL_ERROR_ARGUMENT, "the graph must be planned on this runtime first");
    const struct geul_schedule *s = g->schedule;
    struct place place = {.rt = rt};
    const struct geul_run_watch watch = {cancel, rt->progress ? tell_progress : NULL, &place};
    enum geul_status status = GEUL_OK;
    for (int i = 0; i < s->n_segments; i++)
        place.total += s->segments[i].n_nodes;
    for (int i = 0; i < s->n_segments && status == GEUL_OK; i++) {
        const struct segment *seg = &s->segments[i];
        struct geul_device *device = rt->devices[seg->device];
        if (cancel && atomic_load(cancel)) { /* also where the backend does not notice */
            status = GEUL_ERROR_CANCELLED;
            break;
        }
        for (int k = 0; k < seg->n_copies && status == GEUL_OK; k++)
            status = make_copy(rt, g->ctx, &s->copies[seg->first_copy + k]);
        if (status != GEUL_OK)
            break;
        struct geul_queue *queue = rt->queues[seg->device];
        status = device->backend->run(g->ctx, queue, rt->ready[i].prepared, &watch);
        place.before += seg->n_nodes;
        enum geul_status recorded = device->backend->event_record(g->ctx, queue, &rt->tickets[seg->device]);
        status = status == GEUL_OK ? recorded : status;
    }
    /* Also after a failure: nothing may run on memory that the caller is about to use or free. */
    for (int d = 0; d < rt->n_devices; d++) {
        enum geul_status waited = wait_for(rt, g->ctx, d);
        status = status == GEUL_OK ? waited : status;
    }
    return status;
}

enum geul_status geul_runtime_run(struct geul_runtime *rt, struct geul_graph *g)
{
    enum geul_status status = run_graph(rt, g, geul_context_cancel_flag(rt->ctx));
    if (status != GEUL_ERROR_CANCELLED)
        return status;
    geul_context_uncancel(rt->ctx); /* it has had its effect */
    return geul_fail(g->ctx, GEUL_ERROR_CANCELLED, "cancelled");
}

void geul_runtime_watch(struct geul_runtime *rt, void (*progress)(void *user, int done, int total), void *user)
{
    rt->progress = progress;
    rt->progress_user = user;
}

enum geul_status geul_runtime_run_whole(struct geul_runtime *rt, struct geul_graph *g)
{
    return run_graph(rt, g, NULL);
}
