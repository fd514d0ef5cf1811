/* graph.c: which nodes of a context the outputs need, in the order in which they were built. */
#include "core/graph.h"

enum { UNUSED = 0, NEEDED = 1 };

/* Marks what t reads. Weights of other contexts are not written to: several threads may share them. */
static bool mark_operands(struct geul_context *ctx, const struct geul_tensor *t)
{
    for (int i = 0; i < t->n_src; i++) {
        struct geul_tensor *s = t->src[i];
        if (s->ctx == ctx) {
            s->mark = NEEDED;
        } else if (s->op != GEUL_OP_LEAF || s->input) {
            geul_fail(ctx, GEUL_ERROR_ARGUMENT, "%s reads %s, which was made in another context", t->name, s->name);
            return false;
        }
    }
    return true;
}

/* Collects the marked nodes and inputs of ctx. The list runs from newest to oldest, so the arrays are filled from their
 * ends: operands come before users. */
static void collect(struct geul_graph *g, struct geul_tensor *newest)
{
    int node = g->n_nodes, leaf = g->n_leaves;
    for (struct geul_tensor *t = newest; t; t = t->previous) {
        if (t->mark != NEEDED)
            continue;
        if (t->op != GEUL_OP_LEAF)
            g->nodes[--node] = t;
        else if (t->input)
            g->leaves[--leaf] = t;
    }
}

struct geul_graph *geul_graph_new(struct geul_context *ctx, struct geul_tensor *const *outputs, int n_outputs)
{
    struct geul_tensor *newest = *geul_context_last_tensor(ctx);
    for (struct geul_tensor *t = newest; t; t = t->previous)
        t->mark = UNUSED;
    for (int i = 0; i < n_outputs; i++) {
        if (!outputs[i]) {
            geul_fail(ctx, GEUL_ERROR_ARGUMENT, "output %d of the graph is missing", i);
            return NULL;
        }
        if (outputs[i]->ctx != ctx) {
            geul_fail(ctx, GEUL_ERROR_ARGUMENT, "output %s of the graph was made in another context", outputs[i]->name);
            return NULL;
        }
        outputs[i]->mark = NEEDED;
        outputs[i]->output = true;
    }
    struct geul_graph *g = geul_arena(ctx, 1, sizeof *g);
    if (!g)
        return NULL;
    g->ctx = ctx;
    /* Operands are older than their users: when the walk comes to t, all users have been seen, so its mark is final. */
    for (struct geul_tensor *t = newest; t; t = t->previous) {
        if (t->mark != NEEDED)
            continue;
        if (!mark_operands(ctx, t))
            return NULL;
        g->n_nodes += t->op != GEUL_OP_LEAF;
        g->n_leaves += t->input;
    }
    g->nodes = geul_arena(ctx, (size_t)g->n_nodes, sizeof *g->nodes);
    g->leaves = geul_arena(ctx, (size_t)g->n_leaves, sizeof *g->leaves);
    if (!g->nodes || !g->leaves)
        return NULL;
    collect(g, newest);
    return g;
}

int geul_graph_node_count(const struct geul_graph *graph)
{
    return graph->n_nodes;
}
