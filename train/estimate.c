/* estimate.c: what a run will need, from its graphs, planned without memory, and from the speed of a few products. */
#include "train/trainer.h"

#include "core/os.h"

#include <string.h>

enum {
    LOOKED_AT = 256,   /* steps whose batches are laid out to find the largest shapes */
    COUNTED = 1 << 22, /* tokens that are looked at for the embeddings they need; more need all */
    WINDOW = 64 << 10, /* bytes of a file that Linux maps when one of them is read (fault_around_bytes) */
    WRITING = 2 << 20  /* bytes for pieces and buffers while a checkpoint is written */
};

/* Finds the largest batch of the first steps: most tokens, and most rows, which may be another batch's. Only its sizes
 * are set: graphs are made from sizes. */
static bool largest_batch(struct geul_trainer *t, struct geul_batch *most, int64_t *tokens_per_step)
{
    struct geul_batch b;
    int64_t tokens = 0, steps = 0, last = t->steps < LOOKED_AT ? t->steps : LOOKED_AT;
    bool ok = geul_batch_init(&b, t->ctx, geul_batcher_most_tokens(&t->batcher));
    *most = (struct geul_batch){0};
    for (; ok && steps < last; steps++)
        for (int i = 0; i < t->options.n_accumulate; i++) {
            geul_batcher_next(&t->batcher, &b, INT64_MAX);
            tokens += b.tokens;
            most->all_rows |= b.all_rows;
            most->n_tokens = b.n_tokens > most->n_tokens ? b.n_tokens : most->n_tokens;
            most->n_rows = b.n_rows > most->n_rows ? b.n_rows : most->n_rows;
        }
    most->all_rows = most->all_rows && most->n_rows == most->n_tokens;
    *tokens_per_step = steps ? tokens / steps : 0;
    geul_batch_free(&b, t->ctx);
    return ok;
}

/* Marks the windows that the rows of these ids are in; returns how many were not marked before. */
static size_t mark_windows(const struct geul_tensor *table, const int32_t *ids, int n, bool *seen)
{
    size_t row = geul_tensor_bytes(table) / (size_t)table->shape[0], fresh = 0;
    uintptr_t first = (uintptr_t)table->data / WINDOW;
    for (int i = 0; i < n; i++) {
        uintptr_t at = (uintptr_t)table->data + (size_t)ids[i] * row;
        for (size_t w = at / WINDOW - first; w <= (at + row - 1) / WINDOW - first; w++) {
            fresh += !seen[w];
            seen[w] = true;
        }
    }
    return fresh;
}

/* Bytes of the table of embeddings that become resident: with few different ids in the data only a part, all of it when
 * it also is the output matrix. */
static bool embedding_bytes(struct geul_trainer *t, size_t *bytes)
{
    const struct geul_tensor *table = t->model->neox.embed;
    const struct geul_batcher *b = &t->batcher;
    size_t all = geul_tensor_bytes(table), windows = 0, tokens = 0;
    bool *seen = geul_alloc(t->ctx, all / WINDOW + 2, sizeof *seen);
    for (int64_t i = 0; seen && i < geul_dataset_sample_count(b->data) && tokens < COUNTED; i++) {
        int length = geul_dataset_length(b->data, i), n = length < b->n_context ? length : b->n_context;
        geul_dataset_read(b->data, i, n, b->ids, b->target);
        windows += mark_windows(table, b->ids, n, seen);
        tokens += (size_t)n;
    }
    geul_free(t->ctx, seen);
    bool whole = tokens >= COUNTED || table == t->model->neox.output || windows * WINDOW > all;
    *bytes = whole ? all : windows * WINDOW;
    return seen != NULL;
}

/* Bytes of the model's file that a step reads from the mapping: none when weights are trained, which are copies. */
static bool mapped_bytes(struct geul_trainer *t, size_t *bytes)
{
    size_t embedding = 0;
    int64_t n = t->options.lora.rank ? geul_gguf_tensor_count(t->model->file) : 0;
    *bytes = 0;
    if (n == 0)
        return true;
    for (int64_t i = 0; i < n; i++)
        *bytes += geul_gguf_tensor_at(t->model->file, i)->bytes;
    bool ok = embedding_bytes(t, &embedding);
    *bytes += embedding - geul_tensor_bytes(t->model->neox.embed);
    return ok;
}

/* -------------------------------------------------------------------------------------- time -- */

/* Multiply-adds of the products of g. */
static double products_of(const struct geul_graph *g)
{
    double macs = 0;
    for (int i = 0; i < g->n_nodes; i++) {
        const struct geul_tensor *t = g->nodes[i];
        if (t->op == GEUL_OP_MATMUL || t->op == GEUL_OP_ADDMM)
            macs += (double)t->shape[0] * (double)t->shape[1] * (double)t->src[t->op == GEUL_OP_ADDMM]->shape[1];
    }
    return macs;
}

/* A float32 input. Fresh memory holds zeros, which run as fast as other numbers; denormals would not. */
static struct geul_tensor *operand(struct geul_context *ctx, int64_t rows, int64_t cols)
{
    return geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){rows, cols}, "operand");
}

/* The products of one matrix in a step: forward, to the input and, where weights are trained, to the weight. */
static struct geul_graph *sample_graph(const struct geul_trainer *t, struct geul_context *ctx, int64_t T)
{
    const struct geul_tensor *w = t->model->neox.layers[0].up_w;
    enum geul_precision precision = t->options.precision;
    struct geul_tensor *weight =
        t->options.lora.rank ? t->model->neox.layers[0].up_w : operand(ctx, w->shape[0], w->shape[1]);
    struct geul_tensor *x = operand(ctx, T, w->shape[1]), *dy = operand(ctx, T, w->shape[0]);
    struct geul_tensor *out[3] = {geul_linear_at(ctx, precision, x, weight, NULL, false),
                                  geul_matmul_at(ctx, precision, dy, weight)};
    int n = 2;
    if (t->options.lora.rank == 0)
        out[n++] = geul_addmm(ctx, operand(ctx, w->shape[0], w->shape[1]), geul_transpose(ctx, dy, 0, 1), x, precision);
    return geul_graph_new(ctx, out, n);
}

/* Multiply-adds per second of such products, the best of at least two runs and 0.7 s; 0 when they cannot be run. */
static double measure_rate(struct geul_trainer *t, int64_t T)
{
    struct geul_context *ctx = geul_context_new_like(t->ctx);
    struct geul_runtime *rt = ctx ? geul_runtime_new_on(t->ctx, t->model->devices, t->model->n_devices, NULL) : NULL;
    struct geul_graph *g = rt ? sample_graph(t, ctx, T) : NULL;
    double best = 0, started = geul_os_seconds();
    if (g && geul_runtime_plan(rt, g) == GEUL_OK)
        for (int i = 0; i < 2 || geul_os_seconds() - started < 0.7; i++) {
            double start = geul_os_seconds();
            if (geul_runtime_run(rt, g) != GEUL_OK)
                break;
            double rate = products_of(g) / (geul_os_seconds() - start);
            best = rate > best ? rate : best;
        }
    geul_runtime_free(rt);
    geul_context_free(ctx);
    return best;
}

/* ------------------------------------------------------------------------------------- whole -- */

/* Makes a graph for a batch and raises the estimate's sizes to what it takes: the maximum, since the graphs
 * of a runtime share its memory. */
static enum geul_status measure_graph(struct geul_trainer *t, struct geul_batch_graph *bg,
                                      const struct geul_batch *batch, bool backward,
                                      struct geul_train_estimate *estimate)
{
    bool fresh;
    struct geul_runtime_needs needs[GEUL_MAX_DEVICES];
    size_t values = 0, scratch = 0;
    if (!geul_batch_graph_init(bg, t->ctx) || !geul_batch_graph_make(t, bg, batch, backward, &fresh))
        return geul_error_status(t->ctx);
    if (geul_runtime_measure(t->runtime, bg->graph, needs) != GEUL_OK)
        return geul_fail_from(t->ctx, bg->ctx);
    for (int d = 0; d < t->model->n_devices; d++) {
        values += needs[d].values;
        scratch += needs[d].working;
    }
    estimate->activations = values > estimate->activations ? values : estimate->activations;
    estimate->scratch = scratch > estimate->scratch ? scratch : estimate->scratch;
    return GEUL_OK;
}

/* Fills the sizes of the graphs of training and evaluation, and the products of a batch. */
static enum geul_status measure_graphs(struct geul_trainer *t, const struct geul_batch *most,
                                       struct geul_train_estimate *estimate, double *macs)
{
    t->runtime = geul_runtime_new_on(t->ctx, t->model->devices, t->model->n_devices, NULL);
    if (!t->runtime || measure_graph(t, &t->train, most, true, estimate) != GEUL_OK ||
        measure_graph(t, &t->evaluate, most, false, estimate) != GEUL_OK)
        return geul_error_status(t->ctx);
    *macs = products_of(t->train.graph);
    return GEUL_OK;
}

enum geul_status geul_train_estimate(struct geul_context *ctx, const struct geul_train_options *options,
                                     const struct geul_dataset *data, bool measure,
                                     struct geul_train_estimate *estimate)
{
    /* A step takes about so many times its products' time: attention, norms and the optimizer come on top. */
    const double besides = 1.2;
    struct geul_train_estimate p = {0};
    struct geul_batch most;
    double macs = 0;
    size_t total;
    struct geul_trainer *t = geul_trainer_open(ctx, options, data, NULL, true);
    if (!t)
        return geul_error_status(ctx);
    bool ok = largest_batch(t, &most, &p.tokens_per_step) && measure_graphs(t, &most, &p, &macs) == GEUL_OK &&
              geul_update_init(t) && mapped_bytes(t, &p.mapped);
    /* Nothing of what is counted below is resident yet: a dry trainer's weights are mapped or without memory. */
    p.other = (size_t)geul_os_resident() + WRITING; /* the program, its data, the model's list of tensors, the graphs */
    if (t->options.lora.rank)
        p.other += t->params.weight_bytes; /* an adapter is copied while it is written */
    p.weights = t->params.weight_bytes;
    p.gradients = (size_t)t->params.elements * sizeof(float);
    if (ok && !t->params.adds) /* they are among the values of the graph */
        p.activations -= p.gradients < p.activations ? p.gradients : p.activations;
    p.states = t->params.state_bytes;
    p.trained = t->params.elements;
    p.steps = t->steps;
    p.total = p.other + p.weights + p.mapped + p.gradients + p.states + p.activations + p.scratch;
    geul_os_memory(&p.available, &total);
    if (ok && measure) {
        double rate = measure_rate(t, most.n_tokens < 512 ? most.n_tokens : 512);
        p.seconds_per_step = rate > 0 ? macs * t->options.n_accumulate / rate * besides : 0;
    }
    geul_trainer_free(t);
    if (ok)
        *estimate = p;
    return ok ? GEUL_OK : geul_error_status(ctx);
}
