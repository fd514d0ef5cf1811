/* diagnosis.c: where a loss or gradient that is not finite comes from. Slow, and only run after that has happened (or
 * before saving: geul_diagnose_trained()). Named is the first of: a weight, a layer's output, a gradient, the loss. */
#include "train/trainer.h"

#include <stdio.h>

/* Whether all of t's values are finite, in *finite. ctx is reset. */
static enum geul_status is_finite(struct geul_trainer *t, struct geul_context *ctx, struct geul_tensor *x,
                                  struct geul_runtime *rt, bool *finite)
{
    float value[2];
    geul_context_reset(ctx);
    struct geul_tensor *norm = geul_norm2(ctx, x->type == GEUL_TYPE_F32 ? x : geul_contiguous(ctx, x));
    struct geul_graph *g = geul_graph_new(ctx, &norm, 1);
    if (!g || geul_runtime_plan(rt, g) != GEUL_OK || geul_runtime_run(rt, g) != GEUL_OK ||
        geul_tensor_read(norm, value, sizeof value) != GEUL_OK)
        return geul_fail_from(t->ctx, ctx);
    *finite = value[1] == 0;
    return GEUL_OK;
}

/* Checks one weight, unless `where` names one already. */
static enum geul_status check_weight(struct geul_trainer *t, struct geul_context *ctx, struct geul_runtime *rt,
                                     struct geul_tensor *weight, char *where, size_t size)
{
    bool finite = true;
    enum geul_status status = where[0] ? GEUL_OK : is_finite(t, ctx, weight, rt, &finite);
    if (!finite)
        snprintf(where, size, "the weight %s holds NaN or infinity", weight->name);
    return status;
}

/* The first weight that is trained. */
static enum geul_status check_trained(struct geul_trainer *t, struct geul_context *ctx, struct geul_runtime *rt,
                                      char *where, size_t size)
{
    enum geul_status status = GEUL_OK;
    for (int i = 0; status == GEUL_OK && i < t->params.n; i++)
        status = check_weight(t, ctx, rt, t->params.items[i].weight, where, size);
    return status;
}

/* The first weight of the model, or of the adapter. */
static enum geul_status check_weights(struct geul_trainer *t, struct geul_context *ctx, struct geul_runtime *rt,
                                      char *where, size_t size)
{
    int n = geul_neox_weights(&t->model->neox, NULL);
    struct geul_tensor **weights = geul_alloc(t->ctx, (size_t)n, sizeof(struct geul_tensor *));
    enum geul_status status = weights ? GEUL_OK : GEUL_ERROR_MEMORY;
    if (weights)
        geul_neox_weights(&t->model->neox, weights);
    for (int i = 0; status == GEUL_OK && i < n; i++)
        status = check_weight(t, ctx, rt, weights[i], where, size);
    geul_free(t->ctx, weights);
    return status == GEUL_OK ? check_trained(t, ctx, rt, where, size) : status;
}

/* The first layer whose output in a forward pass of the batch is not finite, into where. */
static enum geul_status check_layers(struct geul_trainer *t, const struct geul_batch *batch, struct geul_context *ctx,
                                     struct geul_runtime *rt, char *where, size_t size)
{
    int layers = t->model->neox.shape.n_layers;
    int64_t T = batch->n_tokens;
    geul_context_reset(ctx);
    struct geul_tensor *ids = geul_input(ctx, GEUL_TYPE_I32, 1, (int64_t[]){T}, "ids");
    struct geul_tensor *seq_pos = geul_input(ctx, GEUL_TYPE_I32, 2, (int64_t[]){T, 2}, "seq_pos");
    struct geul_tensor **out = geul_arena(ctx, (size_t)layers, sizeof(struct geul_tensor *));
    struct geul_neox_pass pass = {
        .in = {.ids = ids, .seq_pos = seq_pos}, .precision = t->options.precision, .layer_out = out};
    if (!out || !geul_neox_hidden(ctx, &t->model->neox, &pass))
        return geul_fail_from(t->ctx, ctx);
    for (int i = 0; i < layers; i++) /* (2): the norm, and how many values are not finite */
        out[i] = geul_norm2(ctx, out[i]);
    struct geul_graph *g = geul_graph_new(ctx, out, layers);
    if (!g || geul_runtime_plan(rt, g) != GEUL_OK ||
        geul_tensor_write(ids, batch->ids, (size_t)T * sizeof *batch->ids) != GEUL_OK ||
        geul_tensor_write(seq_pos, batch->seq_pos, 2 * (size_t)T * sizeof *batch->seq_pos) != GEUL_OK ||
        geul_runtime_run(rt, g) != GEUL_OK)
        return geul_fail_from(t->ctx, ctx);
    for (int i = 0; i < layers; i++) {
        float value[2];
        if (geul_tensor_read(out[i], value, sizeof value) != GEUL_OK)
            return geul_fail_from(t->ctx, ctx);
        if (value[1] == 0)
            continue;
        snprintf(where, size, "layer %d overflows: %.0f values of its output are not finite", i, (double)value[1]);
        break;
    }
    return GEUL_OK;
}

/* A context for the graphs of a diagnosis, and in *rt a runtime for them, not the trainer's, whose graphs keep their
 * memory. Either may be NULL on failure; both are to be freed. where becomes "". */
static struct geul_context *open_scratch(struct geul_trainer *t, struct geul_runtime **rt, char *where)
{
    struct geul_context *ctx = geul_context_new_like(t->ctx);
    *rt = ctx ? geul_runtime_new_on(t->ctx, t->model->devices, t->model->n_devices, NULL) : NULL;
    where[0] = '\0';
    if (!ctx)
        geul_fail_memory(t->ctx, 1);
    return ctx;
}

enum geul_status geul_diagnose_trained(struct geul_trainer *t, char *where, size_t size)
{
    struct geul_runtime *rt;
    struct geul_context *ctx = open_scratch(t, &rt, where);
    enum geul_status status = rt ? check_trained(t, ctx, rt, where, size) : GEUL_ERROR_MEMORY;
    geul_runtime_free(rt);
    geul_context_free(ctx);
    return status;
}

enum geul_status geul_diagnose(struct geul_trainer *t, const struct geul_batch *batch, int bad_gradient, char *where,
                               size_t size)
{
    struct geul_runtime *rt;
    struct geul_context *ctx = open_scratch(t, &rt, where);
    enum geul_status status = rt ? check_weights(t, ctx, rt, where, size) : GEUL_ERROR_MEMORY;
    if (status == GEUL_OK && !where[0])
        status = check_layers(t, batch, ctx, rt, where, size);
    if (status == GEUL_OK && !where[0] && bad_gradient >= 0)
        snprintf(where, size, "the gradient of %s overflows", t->params.items[bad_gradient].weight->name);
    if (status == GEUL_OK && !where[0])
        snprintf(where, size, "the loss overflows");
    geul_runtime_free(rt);
    geul_context_free(ctx);
    return status;
}
