/* autodiff.c: reverse-mode differentiation by more nodes of the same context: which gradients have arrived where, what
 * they flow on to, and what of the forward pass is recomputed for them. The rules of the operations are in backward.c.
 *
 * A flow walks the context's tensors from y back to the oldest. Operands are older than their node, so when the walk
 * comes to t, all users of t have been passed and every share of its gradient has arrived: it is handed to t's rule
 * once, whole. What the rules build is newer than y, and the walk never meets it. */
#include "core/autodiff.h"

#include <string.h>

/* What is known of a tensor. A leaf's gradient remains in arrived; a node's is moved on by carry(). */
struct entry {
    const struct geul_tensor *key;
    struct geul_tensor *arrived; /* its gradient so far, not yet carried on */
    struct geul_tensor *total;   /* of a wanted node: what was carried on, over all flows */
    struct geul_tensor *into;    /* leaf that sums go to */
    struct geul_tensor *again;   /* recomputes its value */
    bool wanted;                 /* named by geul_gradients_want() */
    bool kept;                   /* named by geul_gradients_keep() */
    bool reaches;                /* wanted, or computed from something that is */
    bool own;                    /* nobody else reads arrived, which is contiguous: it may grow in place */
};

struct geul_gradients {
    struct geul_context *ctx;
    struct entry *entries; /* hashed by address, capacity a power of two */
    size_t n, capacity;
    const struct geul_tensor *last_kept; /* newest tensor named by geul_gradients_keep() */
    bool failed;
};

/* --------------------------------------------------------------------------------------- map -- */

/* The entry of key, or the free one where it belongs. At most half of the entries are in use, so the search ends. */
static struct entry *slot(struct entry *entries, size_t capacity, const struct geul_tensor *key)
{
    /* the arena aligns to 16: the low 4 bits of an address tell nothing */
    size_t i = (size_t)(((uintptr_t)key >> 4) * 0x9e3779b97f4a7c15u >> 20) & (capacity - 1);
    while (entries[i].key && entries[i].key != key)
        i = (i + 1) & (capacity - 1);
    return &entries[i];
}

/* t's entry, NULL when nothing is known of it. */
static struct entry *find(const struct geul_gradients *g, const struct geul_tensor *t)
{
    struct entry *e = t ? slot(g->entries, g->capacity, t) : NULL;
    return e && e->key ? e : NULL;
}

/* t's entry, made when there is none. NULL when memory is short. Entries may move: pointers to them are invalid after
 * this. */
static struct entry *get(struct geul_gradients *g, const struct geul_tensor *t)
{
    if (2 * (g->n + 1) > g->capacity) {
        /* the old table stays in the arena, unused, until the context is reset */
        struct entry *grown = geul_arena(g->ctx, 2 * g->capacity, sizeof *grown);
        if (!grown)
            return NULL;
        for (size_t i = 0; i < g->capacity; i++)
            if (g->entries[i].key)
                *slot(grown, 2 * g->capacity, g->entries[i].key) = g->entries[i];
        g->entries = grown;
        g->capacity *= 2;
    }
    struct entry *e = slot(g->entries, g->capacity, t);
    if (!e->key) {
        e->key = t;
        g->n++;
    }
    return e;
}

struct geul_gradients *geul_gradients_new(struct geul_context *ctx)
{
    enum { FIRST = 1024 };
    struct geul_gradients *g = geul_arena(ctx, 1, sizeof *g);
    struct entry *entries = geul_arena(ctx, FIRST, sizeof *entries);
    if (!g || !entries)
        return NULL;
    *g = (struct geul_gradients){.ctx = ctx, .entries = entries, .capacity = FIRST};
    return g;
}

struct geul_context *geul_gradients_context(const struct geul_gradients *g)
{
    return g->ctx;
}

static bool same_shape(const struct geul_tensor *a, const struct geul_tensor *b)
{
    return a->n_dims == b->n_dims && memcmp(a->shape, b->shape, sizeof a->shape) == 0;
}

/* Whether into can hold t's gradient; records why not. */
static bool may_sum_into(const struct geul_gradients *g, const struct geul_tensor *t, const struct geul_tensor *into)
{
    if (!into)
        return true;
    bool fits = t->op == GEUL_OP_LEAF && into->op == GEUL_OP_LEAF && into->type == GEUL_TYPE_F32 &&
                same_shape(t, into) && geul_is_contiguous(into);
    if (!fits)
        geul_fail(g->ctx, GEUL_ERROR_ARGUMENT,
                  "the gradient of %s cannot be added to %s: both must be leaves of one "
                  "shape, and that float32",
                  t->name, into->name);
    return fits;
}

void geul_gradients_want(struct geul_gradients *g, struct geul_tensor *t, struct geul_tensor *into)
{
    if (!g)
        return;
    struct entry *e = t && may_sum_into(g, t, into) ? get(g, t) : NULL;
    if (!e) {
        g->failed = true;
        return;
    }
    e->wanted = e->reaches = true;
    e->into = into;
}

void geul_gradients_keep(struct geul_gradients *g, struct geul_tensor *t)
{
    if (!g)
        return;
    struct entry *e = t ? get(g, t) : NULL;
    if (!e) {
        g->failed = true;
        return;
    }
    e->kept = true;
    if (!g->last_kept || t->serial > g->last_kept->serial)
        g->last_kept = t;
}

bool geul_gradients_wanted(const struct geul_gradients *g, const struct geul_tensor *t)
{
    const struct entry *e = find(g, t);
    return e && e->wanted;
}

bool geul_gradients_reach(const struct geul_gradients *g, const struct geul_tensor *t)
{
    const struct entry *e = find(g, t);
    return e && e->reaches;
}

/* ----------------------------------------------------------------------------- recomputation -- */

/* Recursion goes back to the nearest kept tensors, so its depth is that of the graph between two of them. */
struct geul_tensor *geul_gradients_value(struct geul_gradients *g, struct geul_tensor *t)
{
    /* What came after the last kept tensor is read first by the backward pass and is not worth computing twice. */
    if (!t || t->op == GEUL_OP_LEAF || !g->last_kept || t->serial > g->last_kept->serial)
        return t;
    const struct entry *e = find(g, t);
    if (e && (e->kept || e->again))
        return e->kept ? t : e->again;
    if (geul_op_info(t->op)->flags & GEUL_FLAG_WRITES) {
        geul_fail(g->ctx, GEUL_ERROR_UNSUPPORTED, "%s writes to memory and cannot be computed again", t->name);
        return NULL;
    }
    /* The clones are built here, in the middle of the backward pass, and so run and take memory only then. One clone
     * serves all rules that need the value. */
    struct geul_tensor *src[GEUL_MAX_SRC] = {0};
    for (int i = 0; i < t->n_src; i++)
        if (t->src[i] && !(src[i] = geul_gradients_value(g, t->src[i])))
            return NULL;
    struct geul_tensor *again = geul_node_clone(g->ctx, t, src);
    struct entry *mine = again ? get(g, t) : NULL;
    if (!mine)
        return NULL;
    return mine->again = again;
}

/* -------------------------------------------------------------------------------------- sums -- */

/* Makes sum what has arrived at t; own as in struct entry. sum NULL: a builder failed, and with it the gradients. */
static void arrive(struct geul_gradients *g, struct geul_tensor *t, struct geul_tensor *sum, bool own)
{
    struct entry *e = sum ? get(g, t) : NULL;
    if (!e) {
        g->failed = true;
        return;
    }
    e->arrived = sum;
    e->own = own;
}

/* What sums of t are added to in place: the leaf named for it, or once something was added, the node that did. Each sum
 * thus reads the one before, which keeps them in order. NULL when no leaf was named. */
static struct geul_tensor *target(const struct geul_gradients *g, const struct geul_tensor *t)
{
    const struct entry *e = find(g, t);
    return !e || !e->into ? NULL : e->arrived ? e->arrived : e->into;
}

void geul_gradients_add(struct geul_gradients *g, struct geul_tensor *t, struct geul_tensor *dt)
{
    if (!geul_gradients_reach(g, t))
        return;
    struct geul_tensor *into = target(g, t), *before = find(g, t)->arrived;
    /* The first dt is stored as it is: a rule may hand one tensor to several operands, so it is not t's own. A sum of
     * two is a new tensor, which only this entry knows. */
    if (into)
        arrive(g, t, geul_accumulate(g->ctx, into, dt), true);
    else
        arrive(g, t, before && dt ? geul_add(g->ctx, before, dt) : dt, before != NULL);
}

/* The 2-dimensional tensor that t is the transpose of; NULL when t is not a transpose. */
static struct geul_tensor *untransposed(const struct geul_tensor *t)
{
    if (t->op != GEUL_OP_VIEW || t->n_dims != 2 || t->params.view.offset)
        return NULL;
    struct geul_tensor *w = t->src[0];
    bool turned = w->n_dims == 2 && w->shape[0] == t->shape[1] && w->shape[1] == t->shape[0] &&
                  w->stride[0] == t->stride[1] && w->stride[1] == t->stride[0] && w->block_dim != t->block_dim;
    return turned ? w : NULL;
}

void geul_gradients_add_product(struct geul_gradients *g, struct geul_tensor *t, struct geul_tensor *a,
                                struct geul_tensor *b, enum geul_precision precision)
{
    if (!geul_gradients_reach(g, t))
        return;
    struct geul_tensor *w = find(g, t)->wanted ? NULL : untransposed(t), *into = target(g, t);
    /* t = w' is usually the weight of a linear layer. dw = (a b)' = b' a' is summed in w's layout, where optimizers and
     * adapters want it, not in t's. */
    if (w) {
        geul_gradients_add_product(g, w, geul_transpose(g->ctx, b, 0, 1), geul_transpose(g->ctx, a, 0, 1), precision);
        return;
    }
    const struct entry *e = find(g, t);
    if (!into && e->arrived && e->own)
        into = e->arrived;
    if (into)
        arrive(g, t, geul_addmm(g->ctx, into, a, b, precision), true);
    else if (e->arrived)
        geul_gradients_add(g, t, geul_matmul_at(g->ctx, precision, a, b));
    else
        arrive(g, t, geul_matmul_at(g->ctx, precision, a, b), true);
}

/* What has arrived at t, as a contiguous sum that may grow in place: the leaf named for it, t's own sum, or zeros to
 * which what arrived before is added. */
static struct geul_tensor *growing(struct geul_gradients *g, struct geul_tensor *t)
{
    struct geul_tensor *into = target(g, t);
    const struct entry *e = find(g, t);
    if (into || (e && e->arrived && e->own))
        return into ? into : e->arrived;
    struct geul_tensor *zero = geul_zero(g->ctx, t->n_dims, t->shape);
    return e && e->arrived ? geul_accumulate(g->ctx, zero, e->arrived) : zero;
}

void geul_gradients_add_rows(struct geul_gradients *g, struct geul_tensor *t, struct geul_tensor *dt)
{
    if (geul_gradients_reach(g, t))
        arrive(g, t, geul_accumulate(g->ctx, growing(g, t), dt), true);
}

void geul_gradients_add_scattered(struct geul_gradients *g, struct geul_tensor *t, struct geul_tensor *dt,
                                  struct geul_tensor *ids)
{
    if (geul_gradients_reach(g, t))
        arrive(g, t, geul_scatter(g->ctx, growing(g, t), dt, ids), true);
}

void geul_gradients_add_patch(struct geul_gradients *g, struct geul_tensor *t, struct geul_tensor *dt,
                              struct geul_params_region region)
{
    if (!geul_gradients_reach(g, t))
        return;
    if (dt && dt->stride[dt->n_dims - 1] != sizeof(float)) /* patch reads packed rows */
        dt = geul_contiguous(g->ctx, dt);
    arrive(g, t, geul_patch(g->ctx, growing(g, t), dt, region), true);
}

/* ------------------------------------------------------------------------------------- flows -- */

/* Marks what reaches something wanted, among y and everything made before it. Operands are older than their node, so
 * one pass from the oldest on is enough. */
static bool mark_reaching(struct geul_gradients *g, struct geul_tensor *y)
{
    size_t n = (size_t)y->serial + 1, i = n;
    /* The context links tensors only from newer to older. y is the one with number `serial`, so i ends at 0. */
    struct geul_tensor **tape = geul_alloc(g->ctx, n, sizeof(struct geul_tensor *));
    bool ok = tape != NULL;
    for (struct geul_tensor *t = y; ok && t; t = t->previous)
        tape[--i] = t;
    for (; ok && i < n; i++) {
        bool reaches = geul_gradients_reach(g, tape[i]);
        for (int k = 0; !reaches && k < tape[i]->n_src; k++)
            reaches = geul_gradients_reach(g, tape[i]->src[k]);
        struct entry *e = reaches ? get(g, tape[i]) : NULL;
        ok = !reaches || e;
        if (e)
            e->reaches = true;
    }
    geul_free(g->ctx, tape);
    return ok;
}

/* Hands what has arrived at t to its rule. The walk has passed all users of t, so nothing more comes in this flow; what
 * a later flow brings starts a new sum, since the rule and `total` read this one from now on. */
static void carry(struct geul_gradients *g, struct geul_tensor *t)
{
    struct entry *e = find(g, t);
    struct geul_tensor *dt = e ? e->arrived : NULL;
    if (!dt || t->op == GEUL_OP_LEAF)
        return;
    e->arrived = NULL;
    e->own = false;
    if (e->wanted) {
        struct geul_tensor *total = e->total ? geul_add(g->ctx, e->total, dt) : dt;
        find(g, t)->total = total;
    }
    geul_op_info(t->op)->backward(g, t, dt);
}

enum geul_status geul_gradients_flow(struct geul_gradients *g, struct geul_tensor *y, struct geul_tensor *dy,
                                     struct geul_tensor *until)
{
    if (!g || !y)
        return g ? geul_error_status(g->ctx) : GEUL_ERROR_ARGUMENT; /* a builder failed and left its reason */
    if (y->ctx != g->ctx)
        return geul_fail(g->ctx, GEUL_ERROR_ARGUMENT, "%s, whose gradient is requested, was made in another context",
                         y->name);
    if (dy && (dy->type != GEUL_TYPE_F32 || !same_shape(dy, y)))
        return geul_fail(g->ctx, GEUL_ERROR_ARGUMENT, "%s is not a gradient of %s: it must be float32 in its shape",
                         dy->name, y->name);
    if (g->failed)
        return geul_error_status(g->ctx);
    struct entry *e = until ? get(g, until) : NULL;
    if (until && !e)
        return GEUL_ERROR_MEMORY;
    if (e)
        e->reaches = true; /* it collects its gradient for a later flow, whatever lies behind it */
    if (!mark_reaching(g, y))
        return geul_error_status(g->ctx);
    if (!geul_gradients_reach(g, y))
        return GEUL_OK;
    if (dy)
        geul_gradients_add(g, y, dy);
    for (struct geul_tensor *t = y; t && t != until && !g->failed; t = t->previous)
        carry(g, t);
    return g->failed ? geul_error_status(g->ctx) : GEUL_OK;
}

struct geul_tensor *geul_gradients_of(struct geul_gradients *g, struct geul_tensor *t)
{
    const struct entry *e = g ? find(g, t) : NULL;
    struct geul_tensor *sum = !e ? NULL : e->total ? e->total : e->arrived;
    return !sum || geul_is_contiguous(sum) ? sum : geul_contiguous(g->ctx, sum);
}
