/* update.c: the norms of all gradients, and the optimizer's step: two small graphs over tensors that have memory
 * already. They have a runtime each, since both stay planned while the training graph runs. */
#include "train/trainer.h"

#include <math.h>
#include <string.h>

/* Builds both graphs in t->updates, one node per parameter with a gradient. geul_update_make() plans them. */
static bool build(struct geul_trainer *t)
{
    struct geul_context *ctx = t->updates;
    const struct geul_params *p = &t->params;
    enum geul_op op = geul_optimizer_info(t->options.optimizer)->op;
    int n_norms = 0, n_updated = 0;
    struct geul_tensor **updated = geul_arena(ctx, (size_t)p->n, sizeof(struct geul_tensor *));
    struct geul_tensor **norms = geul_arena(ctx, (size_t)p->n, sizeof(struct geul_tensor *));
    t->norm = geul_arena(ctx, (size_t)p->n, sizeof(struct geul_tensor *));
    t->hyper = geul_input(ctx, GEUL_TYPE_F32, 1, (int64_t[]){GEUL_HYPER_COUNT}, "hyperparameters");
    if (!updated || !norms || !t->norm || !t->hyper)
        return false;
    for (int i = 0; i < p->n; i++) {
        struct geul_tensor *gradient = p->items[i].gradient;
        if (gradient)
            norms[n_norms++] = t->norm[i] = geul_norm2(ctx, gradient);
    }
    t->norms = geul_graph_new(ctx, norms, n_norms);
    for (int i = 0; i < p->n; i++)
        if (p->items[i].gradient)
            updated[n_updated++] = geul_update(ctx, op, p->items[i].weight, p->items[i].gradient, p->items[i].states,
                                               t->hyper, p->items[i].decay);
    t->update = geul_graph_new(ctx, updated, n_updated);
    return t->norms && t->update;
}

bool geul_update_init(struct geul_trainer *t)
{
    t->updates = geul_context_new_like(t->ctx);
    if (!t->updates) {
        geul_fail_memory(t->ctx, 1);
        return false;
    }
    t->norm_runtime = geul_runtime_new_on(t->ctx, t->model->devices, t->model->n_devices, NULL);
    t->update_runtime = geul_runtime_new_on(t->ctx, t->model->devices, t->model->n_devices, NULL);
    if (!t->norm_runtime || !t->update_runtime)
        return false;
    return !t->params.adds || geul_update_make(t);
}

bool geul_update_make(struct geul_trainer *t)
{
    if (build(t) && geul_runtime_plan(t->norm_runtime, t->norms) == GEUL_OK &&
        geul_runtime_plan(t->update_runtime, t->update) == GEUL_OK)
        return true;
    geul_fail_from(t->ctx, t->updates);
    return false;
}

enum geul_status geul_update_norm(struct geul_trainer *t, double *norm, int *bad)
{
    double squares = 0;
    *bad = -1;
    if (geul_runtime_run(t->norm_runtime, t->norms) != GEUL_OK)
        return geul_fail_from(t->ctx, t->updates);
    for (int i = 0; i < t->params.n; i++) {
        float value[2]; /* norm, values that are not finite */
        if (!t->norm[i])
            continue;
        if (geul_tensor_read(t->norm[i], value, sizeof value) != GEUL_OK)
            return geul_fail_from(t->ctx, t->updates);
        squares += (double)value[0] * (double)value[0];
        if ((value[1] > 0 || !isfinite(value[0])) && *bad < 0)
            *bad = i;
    }
    *norm = sqrt(squares);
    return GEUL_OK;
}

enum geul_status geul_update_apply(struct geul_trainer *t, double rate, double scale)
{
    const struct geul_train_options *o = &t->options;
    /* The hyper-parameters are an input: a rate that changes with every step does not change the graph. */
    const float hyper[GEUL_HYPER_COUNT] = {
        [GEUL_HYPER_RATE] = (float)rate,
        [GEUL_HYPER_BETA1] = o->beta1,
        [GEUL_HYPER_BETA2] = o->beta2,
        [GEUL_HYPER_EPSILON] = o->epsilon,
        [GEUL_HYPER_DECAY] = o->weight_decay,
        [GEUL_HYPER_STEP] = (float)(t->step + 1),
        [GEUL_HYPER_GRADIENT_SCALE] = (float)scale,
    };
    if (geul_tensor_write(t->hyper, hyper, sizeof hyper) != GEUL_OK ||
        geul_runtime_run_whole(t->update_runtime, t->update) != GEUL_OK)
        return geul_fail_from(t->ctx, t->updates);
    return GEUL_OK;
}
