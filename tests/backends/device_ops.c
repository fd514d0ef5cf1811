/* device_ops.c: see device_ops.h. */
#include "tests/backends/device_ops.h"

#include "core/runtime.h"

enum { MOST = 4 * CPU_NODES, ALIGNMENT = 256 };

/* What a GPU's results may be off by beyond what a case allows the CPU. 2^-24 is half a unit in the last place. */
static const struct {
    double absolute, relative;
    double loose; /* more, absolute, where sums need not have one order */
} allowed[GEUL_OP_COUNT] = {
    /* scale * q - minimum may be one FMA: a rounding of products up to 8 less */
    [GEUL_OP_EMBED] = {8 * 0x1p-24, 0, 0},
    [GEUL_OP_CONT] = {8 * 0x1p-24, 0, 0},
    /* CUDA's erfcf() and tanhf() are good to 4 units, expf() to 2 */
    [GEUL_OP_GELU] = {0, 8 * 0x1p-24, 0},
    [GEUL_OP_GELU_BACK] = {0, 8 * 0x1p-24, 0},
    /* a power takes part in up to 59 + 9 float32 sums at 30,080 classes, where the CPU sums in double; a share of 1/4
     * of the mean of differences up to 12 from as many */
    [GEUL_OP_CROSS_ENTROPY] = {68 * 0x1p-24 * (1 + 12 / 4.0), 4 * 0x1p-24, 0},
    [GEUL_OP_LOSS_BACK] = {68 * 0x1p-24, 68 * 0x1p-24, 0},
    /* tiles round queries and float32 keys to halves: scores, 1/4 of sums of up to 80 products of mean size 2/3, by as
     * much twice the size; probabilities by twice that; then values of mean size 4/5 are summed */
    [GEUL_OP_ATTENTION] = {.loose = 2 * 0x1p-11 * 80 * (2 / 3.0) / 4 * 2 * (4 / 5.0)},
};

/* ----------------------------------------------------------------------------------- regions -- */

/* Memory of the host, and where its copy lies on the device. */
struct region {
    uint8_t *from, *to;
    uint8_t *at;
    bool written; /* by a node */
};

struct shadow {
    struct run *r;
    struct geul_tensor *tensor[MOST], *twin[MOST]; /* operands before those that read them */
    int n;
    struct region region[MOST];
    int n_regions;
    struct geul_buffer buffer;
};

static size_t round_up(size_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* Bytes from t's first element to behind its last one. */
static size_t span(const struct geul_tensor *t)
{
    size_t bytes = geul_type_bytes(t->type);
    for (int d = 0; d < t->n_dims; d++) {
        int64_t steps = d == t->block_dim ? t->shape[d] / geul_type_block(t->type) : t->shape[d];
        if (steps == 0)
            return 0;
        bytes += (size_t)(steps - 1) * t->stride[d];
    }
    return bytes;
}

/* Adds the memory of t, which may overlap what is there. */
static void add_region(struct shadow *s, const struct geul_tensor *t, bool written)
{
    struct region fresh = {t->data, (uint8_t *)t->data + span(t), NULL, written};
    int kept = 0;
    if (fresh.from == fresh.to)
        return;
    for (int i = 0; i < s->n_regions; i++) {
        struct region *old = &s->region[i];
        if (old->to <= fresh.from || fresh.to <= old->from) {
            s->region[kept++] = *old;
            continue;
        }
        fresh.from = old->from < fresh.from ? old->from : fresh.from;
        fresh.to = old->to > fresh.to ? old->to : fresh.to;
        fresh.written |= old->written;
    }
    s->region[kept] = fresh;
    s->n_regions = kept + 1;
}

static void *address_of(const struct shadow *s, const struct geul_tensor *t)
{
    for (int i = 0; i < s->n_regions; i++)
        if ((uint8_t *)t->data >= s->region[i].from && (uint8_t *)t->data < s->region[i].to)
            return s->region[i].at + ((uint8_t *)t->data - s->region[i].from);
    return s->buffer.base; /* without elements */
}

/* ------------------------------------------------------------------------------------- twins -- */

static int find(const struct shadow *s, const struct geul_tensor *t)
{
    int i = 0;
    while (i < s->n && s->tensor[i] != t)
        i++;
    return i;
}

/* Lists t and all that it reads. */
static void list(struct shadow *s, struct geul_tensor *t)
{
    if (find(s, t) < s->n)
        return;
    for (int k = 0; k < t->n_src; k++)
        if (t->src[k])
            list(s, t->src[k]);
    if (!CHECK_MSG(s->n < MOST, "more than %d tensors", MOST))
        exit(2);
    if (t->op == GEUL_OP_VIEW) /* of leaves, too */
        t->data = (uint8_t *)t->src[0]->data + t->params.view.offset;
    else
        add_region(s, t, t->op != GEUL_OP_LEAF);
    for (int k = 0; k < t->n_src && t->op >= GEUL_OP_SGD; k++) /* an optimizer changes gradient and states, too */
        add_region(s, t->src[k], true);
    s->tensor[s->n++] = t;
}

/* Every tensor as it is on the device; the last one's values are wanted. */
static void make_twins(struct shadow *s)
{
    for (int i = 0; i < s->n; i++) {
        struct geul_tensor *twin = s->twin[i] = geul_arena(s->r->ctx, 1, sizeof *twin);
        *twin = *s->tensor[i];
        twin->buffer = &s->buffer;
        twin->data = address_of(s, s->tensor[i]);
        twin->kept = i == s->n - 1;
        for (int k = 0; k < twin->n_src; k++)
            if (twin->src[k])
                twin->src[k] = s->twin[find(s, twin->src[k])];
    }
}

static bool make_shadow(struct shadow *s, struct run *r, struct geul_tensor *t)
{
    *s = (struct shadow){.r = r};
    list(s, t);
    size_t bytes = ALIGNMENT;
    for (int i = 0; i < s->n_regions; i++)
        bytes += round_up((size_t)(s->region[i].to - s->region[i].from));
    if (!CHECK_MSG(r->device->backend->buffer_new(r->ctx, r->device, bytes, &s->buffer) == GEUL_OK, "%s",
                   geul_error(r->ctx)))
        return false;
    uint8_t *at = s->buffer.base;
    for (int i = 0; i < s->n_regions; i++) {
        s->region[i].at = at;
        at += round_up((size_t)(s->region[i].to - s->region[i].from));
    }
    make_twins(s);
    return true;
}

/* ----------------------------------------------------------------------------------- running -- */

static bool upload(struct shadow *s)
{
    bool ok = true;
    for (int i = 0; i < s->n_regions; i++) {
        const struct region *m = &s->region[i];
        ok = ok &&
             s->r->device->backend->upload(s->r->ctx, &s->buffer, m->at, m->from, (size_t)(m->to - m->from)) == GEUL_OK;
    }
    return ok;
}

/* What no node writes must be as it was. */
static bool download(struct shadow *s)
{
    bool ok = true;
    for (int i = 0; i < s->n_regions && ok; i++) {
        const struct region *m = &s->region[i];
        size_t bytes = (size_t)(m->to - m->from);
        void *copy = malloc(bytes);
        ok = s->r->device->backend->download(s->r->ctx, &s->buffer, m->at, copy, bytes) == GEUL_OK;
        if (ok && m->written)
            memcpy(m->from, copy, bytes);
        else if (ok)
            CHECK_MSG(memcmp(m->from, copy, bytes) == 0, "%s: an operand has changed", s->r->what);
        free(copy);
    }
    return ok;
}

/* Nodes are run twice in all ways but the first, so that a device may replay what it has recorded. */
static bool run_nodes(struct shadow *s, struct geul_queue *queue, struct geul_tensor *const *nodes, int n)
{
    struct geul_context *ctx = s->r->ctx;
    const struct geul_backend *backend = s->r->device->backend;
    struct geul_prepared *prepared = NULL;
    uint64_t ticket;
    bool ok = backend->prepare(ctx, queue, nodes, n, &prepared) == GEUL_OK;
    for (int i = 0; ok && i < (s->r->compare ? 2 : 1); i++)
        ok = upload(s) && backend->run(ctx, queue, prepared, NULL) == GEUL_OK &&
             backend->event_record(ctx, queue, &ticket) == GEUL_OK &&
             backend->event_wait(ctx, queue, ticket) == GEUL_OK;
    backend->release(ctx, queue, prepared);
    return ok && download(s);
}

static bool compute(struct shadow *s)
{
    struct run *r = s->r;
    struct geul_tensor *nodes[MOST];
    int n = 0;
    for (int i = 0; i < s->n; i++) {
        if (s->tensor[i]->op == GEUL_OP_LEAF || s->tensor[i]->op == GEUL_OP_VIEW)
            continue;
        if (!geul_device_supports(r->device, s->twin[i])) {
            r->unsupported++;
            return false;
        }
        nodes[n++] = s->twin[i];
    }
    struct geul_queue *queue =
        r->device->backend->queue_new(r->ctx, r->device, &(struct geul_queue_options){.exact = r->exact});
    bool ok = CHECK_MSG(queue && run_nodes(s, queue, nodes, n), "%s: %s", r->what, geul_error(r->ctx));
    if (queue)
        r->device->backend->queue_free(r->ctx, queue);
    return ok;
}

bool device_compute(struct run *r, struct geul_tensor *t)
{
    struct geul_tensor *nodes[CPU_NODES];
    struct shadow s;
    if (!CHECK_MSG(t != NULL, "%s", geul_error(r->ctx)))
        return false;
    cpu_nodes(r->ctx, t, nodes, 0);
    bool ok = make_shadow(&s, r, t);
    if (!ok)
        return false;
    ok = compute(&s);
    r->device->backend->buffer_free(r->ctx, &s.buffer);
    return ok;
}

static int check_case(const struct device_kind *kind, struct run r, void (*run_case)(struct run *))
{
    for (int i = 0; i < kind->n_ways; i++) {
        r.other = kind->way(i);
        r.ctx = geul_context_new(NULL);
        r.device = kind->open(r.ctx);
        r.seed = CPU_SEED;
        r.compare = i > 0;
        r.at = 0;
        r.unsupported = 0;
        if (CHECK_MSG(r.device != NULL, "%s: %s", r.what, geul_error(r.ctx)))
            run_case(&r);
        geul_device_close(r.ctx, r.device);
        geul_context_free(r.ctx);
    }
    free(r.kept);
    return r.unsupported;
}

int check_device_case(const struct device_kind *kind, const char *name, void (*run_case)(struct run *), bool exact)
{
    char what[96];
    snprintf(what, sizeof what, "%s on %s%s", name, kind->name, exact ? ", exact" : "");
    return check_case(kind, (struct run){.what = what, .far = true, .exact = exact}, run_case);
}

int check_device_op(const struct device_kind *kind, enum geul_op op, bool exact)
{
    char what[96];
    snprintf(what, sizeof what, "%s on %s%s", geul_op_info(op)->name, kind->name, exact ? ", exact" : "");
    struct run r = {.what = what,
                    .far = true,
                    .exact = exact,
                    .absolute = allowed[op].absolute + (exact ? 0 : allowed[op].loose),
                    .relative = allowed[op].relative};
    return check_case(kind, r, op_cases[op]);
}
