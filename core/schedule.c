/* schedule.c: from a graph to device segments with copies between them. runtime.c runs those.
 *
 *   assign    every node goes to the device of the weight or cache it reads, else to that of its first operand
 *   values    every result, input and copy becomes a value with a lifetime; one memory plan per device
 *   addresses every value gets its block and offset in its device's memory, which the runtime has made large enough
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

#include <string.h>

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

int geul_device_index(const struct geul_devices *devices, const struct geul_device *device)
{
    int d = 0;
    while (d < devices->n && devices->at[d] != device)
        d++;
    return d;
}

/* The device that holds t's values; -1 for an input, or zeros, that no node has used yet. */
static int home_of(const struct geul_devices *devices, const struct geul_schedule *s, struct geul_tensor *t)
{
    const struct geul_tensor *root = root_of(t);
    if (has_own_memory(root))
        return geul_device_index(devices, root->buffer->device);
    return root->input ? s->leaf_device[root->mark] : s->device[root->mark];
}

/* A device for node: where a weight or cache among its operands lies, else where the first operand with a device lies,
 * else the first device; what is written stays where it is. -1 when none of them can compute it. */
static int choose_device(const struct geul_devices *devices, const struct geul_schedule *s,
                         const struct geul_tensor *node)
{
    int candidates[2 * GEUL_MAX_SRC + 1], n = 0;
    /* Writing a copy would leave the original as it was: the node follows its operand 0 or does not run. */
    bool writes = geul_op_info(node->op)->flags & GEUL_FLAG_WRITES;
    int written = writes ? home_of(devices, s, node->src[0]) : -1;
    if (written >= 0)
        candidates[n++] = written;
    for (int pinned = 1; pinned >= 0 && written < 0; pinned--)
        for (int i = 0; i < node->n_src; i++) {
            const struct geul_tensor *root = root_of(node->src[i]);
            if (pinned == has_own_memory(root))
                candidates[n++] = home_of(devices, s, node->src[i]);
        }
    if (written < 0)
        candidates[n++] = 0;
    for (int i = 0; i < n; i++) {
        int d = candidates[i];
        if (d >= 0 && d < devices->n && geul_device_supports(devices->at[d], node))
            return d;
    }
    return -1;
}

/* Gives every node and input a device. Operands come before users, so their devices are known, except those of inputs
 * and zeros, which follow their first user. */
static enum geul_status assign(const struct geul_devices *devices, struct geul_graph *g, struct geul_schedule *s)
{
    for (int i = 0; i < g->n_leaves; i++)
        s->leaf_device[i] = -1;
    for (int i = 0; i < g->n_nodes; i++) {
        struct geul_tensor *t = g->nodes[i];
        if (t->op == GEUL_OP_VIEW) {
            s->device[i] = home_of(devices, s, t->src[0]);
            continue;
        }
        s->device[i] = t->op == GEUL_OP_ZERO ? -1 : choose_device(devices, s, t);
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

/* Whether device has buffers that bytes of t fit into. */
static enum geul_status check_size(struct geul_context *ctx, const struct geul_device *device, size_t bytes,
                                   const char *what)
{
    if (bytes <= device->max_buffer)
        return GEUL_OK;
    return geul_fail(
        ctx, GEUL_ERROR_MEMORY,
        "%s: %zu bytes in one piece are more than the largest buffer of %s holds, %zu; use smaller batches "
        "or another device",
        what, bytes, device->name, device->max_buffer);
}

/* The copy of root on device, NULL when there is none yet. */
static struct geul_copy *find_copy(const struct geul_schedule *s, const struct geul_tensor *root, int device)
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
static enum geul_status add_copies(const struct geul_devices *devices, struct geul_graph *g, struct geul_schedule *s,
                                   int step)
{
    const struct geul_tensor *node = g->nodes[step];
    int device = s->device[step];
    for (int k = 0; k < node->n_src; k++) {
        struct geul_tensor *root = root_of(node->src[k]);
        if (home_of(devices, s, root) == device)
            continue;
        struct geul_copy *c = find_copy(s, root, device);
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
            size_t bytes = geul_tensor_bytes(root);
            enum geul_status status = check_size(g->ctx, devices->at[device], bytes, root->name);
            if (status != GEUL_OK)
                return status;
            c = &s->copies[s->n_copies++];
            *c = (struct geul_copy){root, on, node, device, add_value(s, device, bytes, step, step), step};
        }
        s->values[device][c->value].last = step; /* steps only grow */
    }
    return GEUL_OK;
}

/* Sets leaf_value[] to 0 for inputs that only the caller writes, to -1 for those that the graph adds to. */
static void find_written(struct geul_graph *g, struct geul_schedule *s)
{
    for (int i = 0; i < g->n_nodes; i++) {
        const struct geul_tensor *root = root_of(g->nodes[i]);
        if (root->input && (geul_op_info(g->nodes[i]->op)->flags & GEUL_FLAG_WRITES))
            s->leaf_value[root->mark] = -1;
    }
}

/* The inputs of a device are one value, in front of its memory, so that one copy takes them there; those that the graph
 * adds to are not copied in every run and have values of their own. All live during the whole run, since the caller
 * writes them before it. */
static enum geul_status make_inputs(const struct geul_devices *devices, struct geul_graph *g, struct geul_schedule *s)
{
    find_written(g, s);
    for (int i = 0; i < g->n_leaves; i++) {
        if (s->leaf_device[i] < 0)
            s->leaf_device[i] = 0; /* an input that is an output and read by nobody */
        int d = s->leaf_device[i];
        size_t mask = devices->at[d]->alignment - 1, bytes = geul_tensor_bytes(g->leaves[i]);
        if (s->leaf_value[i] < 0)
            continue;
        s->leaf_offset[i] = s->input_bytes[d];
        if (!geul_add_size(bytes, mask, &bytes) || !geul_add_size(s->input_bytes[d], bytes & ~mask, &s->input_bytes[d]))
            return geul_fail(g->ctx, GEUL_ERROR_MEMORY, "the graph's inputs exceed the address space");
    }
    for (int d = 0; d < devices->n; d++) {
        enum geul_status status = check_size(g->ctx, devices->at[d], s->input_bytes[d], "the inputs of the graph");
        if (status != GEUL_OK)
            return status;
        s->values[d][add_value(s, d, s->input_bytes[d], 0, g->n_nodes)].front = true; /* number 0, also of no bytes */
    }
    for (int i = 0; i < g->n_leaves; i++) {
        size_t bytes = geul_tensor_bytes(g->leaves[i]);
        if (s->leaf_value[i] < 0) {
            enum geul_status status = check_size(g->ctx, devices->at[s->leaf_device[i]], bytes, g->leaves[i]->name);
            if (status != GEUL_OK)
                return status;
            s->leaf_value[i] = add_value(s, s->leaf_device[i], bytes, 0, g->n_nodes);
        }
    }
    return GEUL_OK;
}

/* Every result and copy, and the inputs together, become values of their device's plan, ordered by first step as
 * geul_plan() wants it: inputs, then each node after its copies. */
static enum geul_status make_values(const struct geul_devices *devices, struct geul_graph *g, struct geul_schedule *s)
{
    find_last_uses(g, s);
    enum geul_status status = make_inputs(devices, g, s);
    if (status != GEUL_OK)
        return status;
    for (int i = 0; i < g->n_nodes; i++) {
        struct geul_tensor *t = g->nodes[i];
        s->value[i] = -1;
        if (t->op == GEUL_OP_VIEW)
            continue;
        status = add_copies(devices, g, s, i);
        if (status != GEUL_OK)
            return status;
        if (root_of(t) != t) /* writes into what has a value, or its own memory, already */
            continue;
        size_t bytes = geul_tensor_bytes(t);
        status = check_size(g->ctx, devices->at[s->device[i]], bytes, t->name);
        if (status != GEUL_OK)
            return status;
        s->value[i] = add_value(s, s->device[i], bytes, i, s->last[i]);
        if (may_reuse(s, t, i))
            s->values[s->device[i]][s->value[i]].reuses = s->value[root_of(t->src[0])->mark];
    }
    return GEUL_OK;
}

/* A schedule with its arrays sized for g, in g's arena. */
static struct geul_schedule *new_schedule(const struct geul_devices *devices, const struct geul_graph *g)
{
    size_t nodes = (size_t)g->n_nodes, leaves = (size_t)g->n_leaves;
    size_t copies = devices->n > 1 ? nodes * GEUL_MAX_SRC : 0; /* at most one for each operand */
    struct geul_schedule *s = geul_arena(g->ctx, 1, sizeof *s);
    if (!s)
        return NULL;
    s->device = geul_arena(g->ctx, nodes, sizeof *s->device);
    s->value = geul_arena(g->ctx, nodes, sizeof *s->value);
    s->last = geul_arena(g->ctx, nodes, sizeof *s->last);
    s->leaf_device = geul_arena(g->ctx, leaves, sizeof *s->leaf_device);
    s->leaf_value = geul_arena(g->ctx, leaves, sizeof *s->leaf_value);
    s->leaf_offset = geul_arena(g->ctx, leaves, sizeof *s->leaf_offset);
    s->copies = geul_arena(g->ctx, copies, sizeof *s->copies);
    bool ok = s->device && s->value && s->last && s->leaf_device && s->leaf_value && s->leaf_offset && s->copies;
    for (int d = 0; d < devices->n; d++) {
        s->values[d] = geul_arena(g->ctx, nodes + leaves + 1 + copies, sizeof *s->values[d]);
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

struct geul_schedule *geul_schedule_make(const struct geul_devices *devices, struct geul_graph *g)
{
    number(g);
    struct geul_schedule *s = new_schedule(devices, g);
    bool ok = s && assign(devices, g, s) == GEUL_OK && make_values(devices, g, s) == GEUL_OK;
    for (int d = 0; ok && d < devices->n; d++) {
        s->is_used[d] = s->n_values[d] > 1; /* the inputs are one */
        const struct geul_plan_limits limits = {devices->at[d]->alignment, devices->at[d]->max_buffer};
        ok = geul_plan(g->ctx, s->values[d], s->n_values[d], &limits, &s->n_blocks[d]) == GEUL_OK;
    }
    for (int i = 0; ok && i < g->n_leaves; i++)
        s->is_used[s->leaf_device[i]] = true;
    return ok ? s : NULL;
}

/* --------------------------------------------------------------------------------- addresses -- */

static void put(struct geul_tensor *t, const struct geul_place *place, const struct geul_plan_value *v)
{
    t->buffer = place->blocks[v->block];
    t->data = (char *)t->buffer->base + v->offset;
}

static void assign_addresses(const struct geul_graph *g, const struct geul_schedule *s, const struct geul_place *places)
{
    for (int i = 0; i < g->n_leaves; i++) {
        struct geul_tensor *t = g->leaves[i];
        int d = s->leaf_device[i];
        put(t, &places[d], &s->values[d][s->leaf_value[i]]);
        t->data = (char *)t->data + s->leaf_offset[i];
        t->mirror = places[d].mirror && s->leaf_value[i] == 0 ? (char *)places[d].mirror + s->leaf_offset[i] : NULL;
    }
    for (int i = 0; i < s->n_copies; i++) {
        const struct geul_copy *c = &s->copies[i];
        put(c->on, &places[c->device], &s->values[c->device][c->value]);
        c->on->mirror = NULL;
    }
    /* In order: a view or a write has its operand's address, which is set by then. */
    for (int i = 0; i < g->n_nodes; i++) {
        struct geul_tensor *t = g->nodes[i];
        const struct geul_tensor *a = t->src[0];
        t->mirror = NULL;
        if (s->value[i] >= 0) {
            put(t, &places[s->device[i]], &s->values[s->device[i]][s->value[i]]);
        } else {
            size_t offset = t->op == GEUL_OP_VIEW ? t->params.view.offset : 0;
            t->buffer = a->buffer;
            t->data = (char *)a->data + offset;
            t->mirror = a->mirror ? (char *)a->mirror + offset : NULL;
        }
    }
}

/* ---------------------------------------------------------------------------------- segments -- */

/* t as seen on the device of copy c: the same shape and strides over the copy's memory, at the same distance from its
 * start as t from its root's. */
static struct geul_tensor *twin_operand(struct geul_context *ctx, const struct geul_tensor *t,
                                        const struct geul_copy *c)
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
static const struct geul_copy *copy_for(const struct geul_schedule *s, const struct geul_tensor *root, int device,
                                        int step)
{
    const struct geul_copy *found = NULL;
    for (int i = 0; i < s->n_copies && s->copies[i].before <= step; i++)
        if (s->copies[i].root == root && s->copies[i].device == device)
            found = &s->copies[i];
    return found;
}

/* The node as its device computes it: itself, or a twin that reads copies. The node's own operands stay, since another
 * plan needs them. NULL when memory is short. */
static struct geul_tensor *node_for_device(const struct geul_devices *devices, struct geul_graph *g,
                                           const struct geul_schedule *s, int step)
{
    struct geul_tensor *node = g->nodes[step], *twin = NULL;
    for (int k = 0; k < node->n_src; k++) {
        const struct geul_tensor *root = root_of(node->src[k]);
        if (home_of(devices, s, node->src[k]) == s->device[step])
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
static enum geul_status make_segments(const struct geul_devices *devices, struct geul_graph *g, struct geul_schedule *s)
{
    struct geul_tensor **list = geul_arena(g->ctx, (size_t)g->n_nodes, sizeof(struct geul_tensor *));
    s->segments = geul_arena(g->ctx, (size_t)g->n_nodes, sizeof *s->segments);
    if (!list || !s->segments)
        return GEUL_ERROR_MEMORY;
    /* One list of all nodes, of which each segment has a slice; there are at most as many segments as nodes. */
    struct geul_segment *current = NULL;
    int copies = 0, used = 0;
    for (int i = 0; i < g->n_nodes; i++) {
        if (g->nodes[i]->op == GEUL_OP_VIEW)
            continue;
        bool needs_copy = copies < s->n_copies && s->copies[copies].before == i;
        if (!current || current->device != s->device[i] || needs_copy) {
            current = &s->segments[s->n_segments++];
            *current = (struct geul_segment){.device = s->device[i], .first_copy = copies, .nodes = list + used};
            while (copies < s->n_copies && s->copies[copies].before == i)
                copies++;
            current->n_copies = copies - current->first_copy;
        }
        list[used] = node_for_device(devices, g, s, i);
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
        const struct geul_segment *seg = &s->segments[i];
        for (int k = seg->n_nodes - 1; k >= 0; k--, step--) {
            while (g->nodes[step]->op == GEUL_OP_VIEW)
                step--;
            seg->nodes[k]->kept = s->last[step] >= behind; /* the node's twin, where it has one */
        }
        behind = step + 1;
    }
}

enum geul_status geul_schedule_place(const struct geul_devices *devices, struct geul_graph *g, struct geul_schedule *s,
                                     const struct geul_place *places)
{
    assign_addresses(g, s, places);
    enum geul_status status = make_segments(devices, g, s);
    if (status == GEUL_OK)
        mark_kept(g, s);
    return status;
}
