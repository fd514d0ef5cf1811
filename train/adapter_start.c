/* adapter_start.c: training that goes on from an adapter instead of a new one. */
#include "train/trainer.h"

#include "models/lora.h"

#include <math.h>

/* The targets of a layer of d, as bits. */
static unsigned targets_of(const struct geul_lora *d, int layer)
{
    unsigned bits = 0;
    for (int t = 0; t < GEUL_NEOX_TARGETS; t++)
        bits |= geul_lora_find(d, layer, (enum geul_neox_target)t) ? 1u << t : 0;
    return bits;
}

/* What is trained has one rank, and the same targets in every layer. */
static enum geul_status check_even(struct geul_context *ctx, const struct geul_lora *d, int n_layers, const char *path)
{
    for (int i = 1; i < d->n_pairs; i++)
        if (d->pairs[i].rank != d->pairs[0].rank)
            return geul_fail(ctx, GEUL_ERROR_ARGUMENT,
                             "%s has matrices of rank %d and of rank %d; only an adapter of one rank can be trained on",
                             path, d->pairs[0].rank, d->pairs[i].rank);
    for (int layer = 1; layer < n_layers; layer++)
        if (targets_of(d, layer) != targets_of(d, 0))
            return geul_fail(
                ctx, GEUL_ERROR_ARGUMENT,
                "%s adapts other matrices in layer %d than in layer 0; only an adapter of the same matrices "
                "in every layer can be trained on",
                path, layer);
    return GEUL_OK;
}

struct geul_lora *geul_adapter_start_read(struct geul_context *ctx, struct geul_lora_options *o)
{
    struct geul_lora *d = geul_lora_read(ctx, o->from);
    if (!d)
        return NULL;
    int rank = d->pairs[0].rank;
    unsigned targets = 0;
    for (int i = 0; i < d->n_pairs; i++)
        targets |= 1u << d->pairs[i].target;
    bool same = (!o->rank || o->rank == rank) && (!(o->alpha > 0) || fabsf(o->alpha - d->alpha) <= 1e-5f * d->alpha) &&
                (!o->rslora || d->rslora) && (!o->targets || o->targets == GEUL_LORA_ALL || o->targets == targets);
    if (!same) {
        geul_fail(
            ctx, GEUL_ERROR_ARGUMENT,
            "%s has rank %d, alpha %g%s and its own targets, which training goes on with; other ones were asked for",
            o->from, rank, (double)d->alpha, d->rslora ? ", rank-stabilized," : "");
        geul_lora_free(d);
        return NULL;
    }
    o->rank = rank;
    o->alpha = d->alpha;
    o->rslora = d->rslora;
    o->targets = targets;
    return d;
}

enum geul_status geul_adapter_start_check(struct geul_trainer *t, const struct geul_lora *d)
{
    const struct geul_model_shape *shape = &t->model->neox.shape;
    enum geul_status status = geul_lora_check_shape(t->ctx, d, shape, t->options.lora.from);
    return status == GEUL_OK ? check_even(t->ctx, d, shape->n_layers, t->options.lora.from) : status;
}

enum geul_status geul_adapter_start_fill(struct geul_trainer *t, const struct geul_lora *d)
{
    for (int i = 0; i < d->n_pairs; i++) {
        const struct geul_lora_pair *from = &d->pairs[i];
        const struct geul_neox_pair *to = &t->params.adapter.pairs[from->layer * GEUL_NEOX_TARGETS + (int)from->target];
        const struct geul_tensor *halves[2] = {to->a, to->b};
        const float *values[2] = {from->a, from->b};
        for (int h = 0; h < 2; h++) {
            const struct geul_tensor *x = halves[h];
            enum geul_status status =
                x->buffer->device->backend->upload(t->ctx, x->buffer, x->data, values[h], geul_tensor_bytes(x));
            if (status != GEUL_OK)
                return status;
        }
    }
    return GEUL_OK;
}
