/* batch_graph.c: forward and backward pass of one batch.
 *
 * T tokens, R of them with a target, C d_model, V vocabulary. The logits (R, V) never exist as a whole: CHUNK rows at a
 * time become losses and at once gradients, of hidden (the last norm's output) and, where it is trained, of the output
 * matrix, so that the next chunk reuses their memory. After the last chunk the gradient continues from hidden:
 *
 *     ids -> embed -> layer 0 -> ... -> layer n - 1 -> norm -> hidden (R, C)
 *                                                               |  rows [0, CHUNK): logits -> losses -> d hidden, dW
 *                                                               |  rows [CHUNK, 2 CHUNK): ...
 *     d embed <- ................................. <- d norm <- d hidden (R, C), complete
 *
 * Recomputation: FULL keeps the layers' outputs, LIGHT also each layer's costly tensors, NONE everything. What else a
 * layer's gradient reads is computed again when it is the layer's turn. */
#include "train/trainer.h"

#include <string.h>

enum { CHUNK = 256 };

bool geul_batch_graph_init(struct geul_batch_graph *bg, struct geul_context *ctx)
{
    *bg = (struct geul_batch_graph){.ctx = geul_context_new_like(ctx)};
    if (!bg->ctx)
        geul_fail_memory(ctx, sizeof *bg);
    return bg->ctx != NULL;
}

void geul_batch_graph_free(struct geul_batch_graph *bg)
{
    geul_context_free(bg->ctx);
    *bg = (struct geul_batch_graph){0};
}

static void make_inputs(struct geul_batch_graph *bg, const struct geul_batch *batch)
{
    int64_t T = batch->n_tokens, R = batch->n_rows;
    bg->ids = geul_input(bg->ctx, GEUL_TYPE_I32, 1, (int64_t[]){T}, "ids");
    bg->seq_pos = geul_input(bg->ctx, GEUL_TYPE_I32, 2, (int64_t[]){T, 2}, "seq_pos");
    bg->rows = batch->all_rows ? NULL : geul_input(bg->ctx, GEUL_TYPE_I32, 1, (int64_t[]){R}, "rows");
    bg->targets = geul_input(bg->ctx, GEUL_TYPE_I32, 1, (int64_t[]){R}, "targets");
    bg->weights = geul_input(bg->ctx, GEUL_TYPE_F32, 1, (int64_t[]){R}, "weights");
    bg->seed = geul_input(bg->ctx, GEUL_TYPE_I32, 1, (int64_t[]){2}, "seed");
}

/* Losses of the rows of hidden (R, C), chunk by chunk; with g also their gradients, back to hidden. */
static bool make_losses(struct geul_trainer *t, struct geul_batch_graph *bg, struct geul_tensor *hidden,
                        struct geul_gradients *g)
{
    const struct geul_train_options *o = &t->options;
    struct geul_context *ctx = bg->ctx;
    int64_t R = hidden ? hidden->shape[0] : 0, C = t->model->neox.shape.d_model;
    bg->n_losses = 0;
    bg->losses = geul_arena(ctx, (size_t)(R / CHUNK + 1), sizeof(struct geul_tensor *));
    if (!hidden || !bg->losses)
        return false;
    for (int64_t r = 0; r < R; r += CHUNK) {
        int64_t n = R - r < CHUNK ? R - r : CHUNK;
        /* Padding rows are computed like others; their weight of 0 takes them out of the gradient, sum_losses() out of
         * the loss. What is reported is the plain loss, also where smoothing or z are trained with. */
        struct geul_tensor *rows = geul_reshape(ctx, geul_narrow(ctx, hidden, 0, r, n), 2, (int64_t[]){n, C});
        struct geul_tensor *logits = geul_neox_logits(ctx, &t->model->neox, rows, o->precision); /* (n, V) */
        struct geul_tensor *targets = geul_narrow(ctx, bg->targets, 0, r, n);                    /* (n) */
        struct geul_tensor *plain = geul_cross_entropy(ctx, logits, targets, 0, 0);              /* (n) */
        struct geul_tensor *loss = g && (o->smoothing > 0 || o->z_loss > 0)
                                       ? geul_cross_entropy(ctx, logits, targets, o->smoothing, o->z_loss)
                                       : plain;
        struct geul_tensor *weights = geul_narrow(ctx, bg->weights, 0, r, n);
        bg->losses[bg->n_losses++] = plain;
        if (g && (!weights || geul_gradients_flow(g, loss, weights, hidden) != GEUL_OK))
            return false;
    }
    return true;
}

/* Forward pass, losses, and with g the gradients of all parameters. The order matters: wanted tensors and those to keep
 * are named before the first flow. */
static bool make_passes(struct geul_trainer *t, struct geul_batch_graph *bg, struct geul_gradients *g)
{
    const struct geul_train_options *o = &t->options;
    int layers = t->model->neox.shape.n_layers;
    struct geul_tensor **layer_out = geul_arena(bg->ctx, (size_t)layers, sizeof(struct geul_tensor *));
    struct geul_tensor **costly = geul_arena(bg->ctx, (size_t)layers * GEUL_NEOX_COSTLY, sizeof(struct geul_tensor *));
    struct geul_neox_pass pass = {.in = {bg->ids, bg->seq_pos, bg->rows},
                                  .precision = o->precision,
                                  .dropout = g ? o->lora.dropout : 0,
                                  .seed = bg->seed,
                                  .layer_out = layer_out,
                                  .costly = costly};
    if (!layer_out || !costly)
        return false;
    for (int i = 0; g && i < t->params.n; i++)
        geul_gradients_want(g, t->params.items[i].weight, t->params.adds ? t->params.items[i].gradient : NULL);
    struct geul_tensor *hidden = geul_neox_hidden(bg->ctx, &t->model->neox, &pass); /* (R, C) */
    for (int i = 0; g && o->recompute != GEUL_RECOMPUTE_NONE && i < layers; i++)
        geul_gradients_keep(g, layer_out[i]);
    for (int i = 0; g && o->recompute == GEUL_RECOMPUTE_LIGHT && i < layers * GEUL_NEOX_COSTLY; i++)
        geul_gradients_keep(g, costly[i]);
    if (!make_losses(t, bg, hidden, g))
        return false;
    return !g || geul_gradients_flow(g, hidden, NULL, NULL) == GEUL_OK;
}

/* The graph whose outputs are the losses and, with g, all parameters' gradients: those the graph adds to leaves, or its
 * own. A parameter that nothing reaches has none. */
static struct geul_graph *close_graph(struct geul_trainer *t, struct geul_batch_graph *bg, struct geul_gradients *g)
{
    int most = bg->n_losses + t->params.n, n = bg->n_losses;
    struct geul_tensor **outputs = geul_arena(bg->ctx, (size_t)most, sizeof(struct geul_tensor *));
    bg->gradients = geul_arena(bg->ctx, (size_t)t->params.n, sizeof(struct geul_tensor *));
    if (!outputs || !bg->gradients)
        return NULL;
    memcpy(outputs, bg->losses, (size_t)n * sizeof(struct geul_tensor *));
    for (int i = 0; g && i < t->params.n; i++) {
        bg->gradients[i] = outputs[n] = geul_gradients_of(g, t->params.items[i].weight);
        n += outputs[n] != NULL;
    }
    return geul_graph_new(bg->ctx, outputs, n);
}

/* Plans a fresh graph. Where a step has one batch, the gradients are values of this graph, in memory that moves with
 * every planning: leaves over them, and the graphs of norms and update that read these, are made again. */
static bool plan_memory(struct geul_trainer *t, struct geul_batch_graph *bg)
{
    if (geul_runtime_plan(t->runtime, bg->graph) != GEUL_OK) {
        geul_fail_from(t->ctx, bg->ctx);
        return false;
    }
    if (!bg->backward || t->params.adds)
        return true;
    geul_context_reset(t->updates);
    for (int i = 0; i < t->params.n; i++) {
        const struct geul_tensor *g = bg->gradients[i];
        struct geul_param *p = &t->params.items[i];
        p->gradient = NULL;
        if (!g)
            continue;
        p->gradient = geul_leaf(t->updates, GEUL_TYPE_F32, g->n_dims, g->shape, p->weight->name, g->buffer, g->data);
        if (!p->gradient) {
            geul_fail_from(t->ctx, t->updates);
            return false;
        }
    }
    return geul_update_make(t);
}

bool geul_batch_graph_make(struct geul_trainer *t, struct geul_batch_graph *bg, const struct geul_batch *batch,
                           bool backward, bool *fresh)
{
    /* The graphs of training and evaluation share the runtime's memory; the larger one takes it from the other. A graph
     * that has lost its memory is built from scratch, since planning it again would leave the old plan in the arena. */
    *fresh = !geul_runtime_planned(t->runtime, bg->graph) || bg->n_tokens != batch->n_tokens ||
             bg->n_rows != batch->n_rows || bg->all_rows != batch->all_rows || bg->backward != backward;
    if (!*fresh)
        return true;
    bg->graph = NULL;
    geul_context_reset(bg->ctx);
    bg->n_tokens = batch->n_tokens;
    bg->n_rows = batch->n_rows;
    bg->all_rows = batch->all_rows;
    bg->backward = backward;
    make_inputs(bg, batch);
    struct geul_gradients *g = backward ? geul_gradients_new(bg->ctx) : NULL;
    if ((!backward || g) && make_passes(t, bg, g))
        bg->graph = close_graph(t, bg, g);
    if (geul_error_status(bg->ctx) != GEUL_OK) /* also where a builder failed whose result no output depends on */
        bg->graph = NULL;
    if (!bg->graph)
        geul_fail_from(t->ctx, bg->ctx);
    return bg->graph != NULL;
}

/* Whether the graph reads that input at all, and so has memory for it: seed, for instance, only with dropout. */
static bool is_read(const struct geul_batch_graph *bg, const struct geul_tensor *input)
{
    for (int i = 0; input && i < bg->graph->n_leaves; i++)
        if (bg->graph->leaves[i] == input)
            return true;
    return false;
}

static bool write_inputs(struct geul_trainer *t, const struct geul_batch_graph *bg, const struct geul_batch *batch,
                         float weight, uint64_t seed)
{
    size_t T = (size_t)batch->n_tokens, R = (size_t)batch->n_rows;
    const int32_t seeds[2] = {(int32_t)(uint32_t)seed, (int32_t)(uint32_t)(seed >> 32)};
    for (size_t r = 0; r < R; r++)
        t->row_weights[r] = (int64_t)r < batch->n_targets ? weight : 0;
    const struct {
        struct geul_tensor *to;
        const void *from;
        size_t bytes;
    } inputs[] = {{bg->ids, batch->ids, T * sizeof *batch->ids},
                  {bg->seq_pos, batch->seq_pos, 2 * T * sizeof *batch->seq_pos},
                  {bg->rows, batch->rows, R * sizeof *batch->rows},
                  {bg->targets, batch->targets, R * sizeof *batch->targets},
                  {bg->weights, t->row_weights, R * sizeof *t->row_weights},
                  {bg->seed, seeds, sizeof seeds}};
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++)
        if (is_read(bg, inputs[i].to) && geul_tensor_write(inputs[i].to, inputs[i].from, inputs[i].bytes) != GEUL_OK)
            return false;
    return true;
}

/* Adds up the losses of the batch's targets, padding left out, in double and in order: the same sum for any number of
 * threads. */
static bool sum_losses(struct geul_trainer *t, const struct geul_batch_graph *bg, const struct geul_batch *batch,
                       double *sum)
{
    int64_t left = batch->n_targets;
    *sum = 0;
    for (int i = 0; i < bg->n_losses; i++) {
        int64_t n = bg->losses[i]->shape[0];
        if (geul_tensor_read(bg->losses[i], t->loss_rows, (size_t)n * sizeof *t->loss_rows) != GEUL_OK)
            return false;
        for (int64_t r = 0; r < n && r < left; r++)
            *sum += t->loss_rows[r];
        left -= n;
    }
    return true;
}

enum geul_status geul_batch_graph_run(struct geul_trainer *t, struct geul_batch_graph *bg,
                                      const struct geul_batch *batch, float weight, uint64_t seed, double *sum)
{
    bool fresh;
    if (!geul_batch_graph_make(t, bg, batch, bg == &t->train, &fresh))
        return geul_error_status(t->ctx);
    bool ok = !fresh || plan_memory(t, bg);
    ok = ok && write_inputs(t, bg, batch, weight, seed) && geul_runtime_run(t->runtime, bg->graph) == GEUL_OK &&
         sum_losses(t, bg, batch, sum);
    if (ok)
        return GEUL_OK;
    geul_fail_from(t->ctx, bg->ctx);
    bg->graph = NULL; /* not to be trusted any more: the next run builds it from scratch */
    return geul_error_status(t->ctx);
}
