/* trainer.c: a training run from its options to its steps.
 *
 * What holds between steps: gradients that batches add to are zero; weights, states, step and the batcher's position
 * belong together, and are what a checkpoint holds. A step either
 *
 *     updates                weights and states change, step and position advance;
 *     skips (not finite,     only step and position advance, and the samples are passed over;
 *       or judge refused)
 *     fails, is cancelled    position goes back: the same step can be tried again.
 *
 * Only a device that fails within the update itself leaves weights of which some are updated. */
#include "train/trainer.h"

#include "core/os.h"
#include "core/random.h"
#include "data/dataset.h"
#include "models/lora.h"

#include <math.h>
#include <string.h>

struct geul_train_options geul_train_options_default(void)
{
    struct geul_train_options o = {
        .lora = {.alpha = 16, .targets = GEUL_LORA_ALL},
        .precision = GEUL_PRECISION_F32,
        .n_batch = 4,
        .n_accumulate = 1,
        .packing = true,
        .rate = 1e-4f,
        .clip = 1,
        .schedule = GEUL_RATE_COSINE,
        .rate_floor = 0.1f,
        .decay_share = 0.2f,
        .warmup = -1,
        .epochs = 1,
    };
    geul_train_options_set_optimizer(&o, GEUL_OPTIMIZER_ADAMW);
    return o;
}

/* ----------------------------------------------------------------------------------- options -- */

/* One option and the range it must be in. */
struct range {
    const char *name;
    double value, low, high;
};

static enum geul_status out_of_range(struct geul_context *ctx, const char *name, double value, double low, double high)
{
    return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "%s is %g; %g to %g is possible", name, value, low, high);
}

/* Checks the hyper-parameters against the optimizer's row. */
static enum geul_status check_hyper(struct geul_context *ctx, const struct geul_train_options *o)
{
    const struct geul_optimizer_info *info = geul_optimizer_info(o->optimizer);
    const struct {
        const char *name;
        double value;
        const struct geul_optimizer_hyper *row;
    } all[] = {
        {"beta1", (double)o->beta1, &info->beta1},
        {"beta2", (double)o->beta2, &info->beta2},
        {"epsilon", (double)o->epsilon, &info->epsilon},
        {"the weight decay", (double)o->weight_decay, &info->weight_decay},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        const struct geul_optimizer_hyper *row = all[i].row;
        if (all[i].value >= row->least && all[i].value <= row->most)
            continue;
        if (row->meaning)
            return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "%s takes %s as %s; %g is usual, not %g", info->title,
                             all[i].name, row->meaning, row->usual, all[i].value);
        return out_of_range(ctx, all[i].name, all[i].value, row->least, row->most);
    }
    return GEUL_OK;
}

static enum geul_status check_ranges(struct geul_context *ctx, const struct geul_train_options *o)
{
    const struct range ranges[] = {
        {"the rank", o->lora.rank, 0, 4096},
        {"the recomputation", (double)o->recompute, GEUL_RECOMPUTE_LIGHT, GEUL_RECOMPUTE_NONE},
        {"alpha", (double)o->lora.alpha, 1e-6, 1e6},
        {"dropout", (double)o->lora.dropout, 0, 0.99},
        {"the context", o->n_context, 0, 1 << 20},
        {"the batch", o->n_batch, 1, 1 << 16},
        {"the number of accumulated batches", o->n_accumulate, 1, 1 << 16},
        {"the learning rate", (double)o->rate, 0, 1e6},
        {"the largest gradient norm", (double)o->clip, 0, 1e12},
        {"the floor of the learning rate", (double)o->rate_floor, 0, 1},
        {"the share of the decay", (double)o->decay_share, 0, 1},
        {"the smoothing", (double)o->smoothing, 0, 0.999},
        {"the weight of the z-loss", (double)o->z_loss, 0, 1e3},
        {"the number of steps", (double)o->steps, 0, 1e12},
        {"the number of workers", o->n_workers, 0, 1 << 20},
        {"the worker", o->worker, 0, o->n_workers > 0 ? o->n_workers - 1 : 0},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (!(ranges[i].value >= ranges[i].low && ranges[i].value <= ranges[i].high))
            return out_of_range(ctx, ranges[i].name, ranges[i].value, ranges[i].low, ranges[i].high);
    return GEUL_OK;
}

static enum geul_status check_options(struct geul_context *ctx, const struct geul_train_options *o)
{
    if (!o->model_path)
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "no model to train was named");
    if (!geul_optimizer_info(o->optimizer) || !geul_rate_schedule_name(o->schedule))
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "there is no optimizer %d or no schedule %d", (int)o->optimizer,
                         (int)o->schedule);
    if (o->precision != GEUL_PRECISION_F32 && o->precision != GEUL_PRECISION_BF16)
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "training computes in float32 or bfloat16");
    if (check_hyper(ctx, o) != GEUL_OK)
        return geul_error_status(ctx);
    if (o->lora.rank && !(o->lora.targets & GEUL_LORA_ALL))
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "an adapter needs at least one target");
    if (o->steps == 0 && !(o->epochs > 0 && o->epochs <= 1e6))
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "neither a number of steps nor of epochs says how long to train");
    return check_ranges(ctx, o);
}

/* Checks that every id of the data is a row of the model's embedding, and that shards were made with its tokenizer. */
static enum geul_status check_data(struct geul_trainer *t, const struct geul_dataset *data)
{
    if (!data || geul_dataset_sample_count(data) == 0)
        return geul_fail(t->ctx, GEUL_ERROR_ARGUMENT, "there is no sample to learn from");
    const struct geul_tokenizer *tok = t->model->tokenizer;
    if (tok && geul_dataset_check_tokenizer(t->ctx, data, tok) != GEUL_OK)
        return geul_error_status(t->ctx);
    int32_t largest = geul_dataset_highest_id(data);
    if (largest >= t->model->neox.shape.n_vocab)
        return geul_fail(t->ctx, GEUL_ERROR_ARGUMENT, "the data holds token %d; the model has ids 0 to %d", largest,
                         t->model->neox.shape.n_vocab - 1);
    return GEUL_OK;
}

/* ---------------------------------------------------------------------------------- lifetime -- */

/* Steps that the epochs take. With packing, a batch holds as many samples as fit, so they are counted by forming the
 * batches of all samples, or of the first `counted`, from which the rest is extrapolated. */
static int64_t count_steps(struct geul_trainer *t)
{
    const struct geul_train_options *o = &t->options;
    const double counted = 1e7; /* samples */
    int64_t epoch = geul_batcher_epoch(&t->batcher), steps = 0;
    if (o->steps)
        return o->steps;
    double all = ceil(o->epochs * (double)epoch), share = all > counted ? counted / all : 1;
    int64_t end = (int64_t)(all * share);
    if (!o->packing) {
        double per_step = (double)o->n_batch * o->n_accumulate;
        return (int64_t)ceil(all / per_step);
    }
    struct geul_batcher b = t->batcher; /* a copy: the run's own stays at its beginning */
    for (int64_t before = -1; b.position < end && b.position > before; steps++) {
        before = b.position;
        for (int i = 0; i < o->n_accumulate; i++)
            geul_batcher_skip(&b, end);
    }
    return (int64_t)ceil((double)steps / share);
}

/* Warns of options that are possible but hardly what was meant. */
static void warn(const struct geul_trainer *t)
{
    const struct geul_model_shape *s = &t->model->neox.shape;
    if (t->n_context > s->n_context)
        geul_log(t->ctx, GEUL_LOG_WARN, "a context of %d tokens; the model has only seen %d positions", t->n_context,
                 s->n_context);
    if (t->options.lora.rank > s->d_model)
        geul_log(t->ctx, GEUL_LOG_WARN,
                 "an adapter of rank %d is larger than the matrices it adapts, whose rank is at most %d",
                 t->options.lora.rank, s->d_model);
}

struct geul_trainer *geul_trainer_open(struct geul_context *ctx, const struct geul_train_options *options,
                                       const struct geul_dataset *data, const struct geul_trainer_devices *where,
                                       bool dry)
{
    const struct geul_trainer_devices host = {NULL, 0, 0}, *on = where ? where : &host;
    geul_error_clear(ctx);
    struct geul_train_options effective = *options;
    struct geul_lora *start = options->lora.from ? geul_adapter_start_read(ctx, &effective.lora) : NULL;
    if (options->lora.from && !start)
        return NULL;
    struct geul_trainer *t = check_options(ctx, &effective) == GEUL_OK ? geul_alloc(ctx, 1, sizeof *t) : NULL;
    if (!t) {
        geul_lora_free(start);
        return NULL;
    }
    t->ctx = ctx;
    t->options = effective;
    t->rate_scale = 1;
    t->model_path = geul_strndup(ctx, options->model_path, strlen(options->model_path));
    struct geul_model_options how = {.n_threads = options->n_threads, .regex = options->regex};
    enum geul_weights weights = effective.lora.rank ? GEUL_WEIGHTS_MAPPED : dry ? GEUL_WEIGHTS_NONE : GEUL_WEIGHTS_OWN;
    if (t->model_path)
        t->model = geul_model_load_as(ctx, t->model_path, &how, on->devices, on->n, on->first_layers, weights);
    bool ok = t->model && (!start || geul_adapter_start_check(t, start) == GEUL_OK) && check_data(t, data) == GEUL_OK;
    if (ok) {
        t->options.model_path = t->model_path;
        t->n_context = options->n_context ? options->n_context : t->model->neox.shape.n_context;
        t->end_token = t->model->tokenizer ? geul_token_end(t->model->tokenizer) : -1;
        ok = (int64_t)t->n_context * options->n_batch <= 1 << 24 ||
             geul_fail(ctx, GEUL_ERROR_ARGUMENT, "%d samples of %d tokens are too many for one batch; use accumulation",
                       options->n_batch, t->n_context) == GEUL_OK;
    }
    ok = ok && geul_batcher_init(&t->batcher, ctx, data, &t->options, t->n_context, t->end_token, true) &&
         geul_params_make(&t->params, ctx, t->model, &t->options, dry);
    ok = ok && (!start || dry || geul_adapter_start_fill(t, start) == GEUL_OK);
    geul_lora_free(start);
    if (!ok) {
        geul_trainer_free(t);
        return NULL;
    }
    t->steps = count_steps(t);
    if (t->options.warmup < 0)
        t->options.warmup = t->steps * 3 / 100;
    return t;
}

/* Allocates memory for batches, the runtimes and the contexts of graphs; on failure geul_trainer_free() frees the part
 * that was. */
static bool make_parts(struct geul_trainer *t)
{
    size_t n = (size_t)t->options.n_accumulate;
    int most = geul_batcher_most_tokens(&t->batcher);
    t->batches = geul_alloc(t->ctx, n, sizeof *t->batches);
    t->loss_rows = geul_alloc(t->ctx, (size_t)most, sizeof *t->loss_rows);
    t->row_weights = geul_alloc(t->ctx, (size_t)most, sizeof *t->row_weights);
    if (!t->batches || !t->loss_rows || !t->row_weights)
        return false;
    for (size_t i = 0; i < n; i++)
        if (!geul_batch_init(&t->batches[i], t->ctx, most))
            return false;
    t->runtime = geul_runtime_new_on(t->ctx, t->model->devices, t->model->n_devices, NULL);
    return t->runtime && geul_batch_graph_init(&t->train, t->ctx) && geul_batch_graph_init(&t->evaluate, t->ctx) &&
           geul_update_init(t);
}

struct geul_trainer *geul_trainer_new_on(struct geul_context *ctx, const struct geul_train_options *options,
                                         const struct geul_dataset *data, const struct geul_trainer_devices *where)
{
    struct geul_trainer *t = geul_trainer_open(ctx, options, data, where, false);
    if (t && !make_parts(t)) {
        geul_trainer_free(t);
        return NULL;
    }
    if (t)
        warn(t);
    return t;
}

struct geul_trainer *geul_trainer_new(struct geul_context *ctx, const struct geul_train_options *options,
                                      const struct geul_dataset *data)
{
    return geul_trainer_new_on(ctx, options, data, NULL);
}

void geul_trainer_free(struct geul_trainer *t)
{
    if (!t)
        return;
    struct geul_context *ctx = t->ctx;
    geul_runtime_free(t->runtime);
    geul_runtime_free(t->norm_runtime);
    geul_runtime_free(t->update_runtime);
    geul_batch_graph_free(&t->train);
    geul_batch_graph_free(&t->evaluate);
    geul_context_free(t->updates);
    for (int i = 0; t->batches && i < t->options.n_accumulate; i++)
        geul_batch_free(&t->batches[i], ctx);
    geul_free(ctx, t->batches);
    geul_free(ctx, t->loss_rows);
    geul_free(ctx, t->row_weights);
    if (t->batcher.ctx)
        geul_batcher_free(&t->batcher);
    if (t->params.ctx)
        geul_params_free(&t->params);
    geul_model_free(t->model); /* after the parameters: these detach their adapter from it */
    geul_free(ctx, t->model_path);
    geul_free(ctx, t);
}

const struct geul_train_options *geul_trainer_get_options(const struct geul_trainer *t)
{
    return &t->options;
}

int64_t geul_trainer_total_steps(const struct geul_trainer *t)
{
    return t->steps;
}

int64_t geul_trainer_steps_done(const struct geul_trainer *t)
{
    return t->step;
}

struct geul_model *geul_trainer_model(struct geul_trainer *t)
{
    return t->model;
}

void geul_trainer_scale_rate(struct geul_trainer *t, double scale)
{
    t->rate_scale = scale >= 0 ? scale : 1;
}

void geul_trainer_cancel(struct geul_trainer *t)
{
    geul_context_cancel(t->ctx);
}

/* ------------------------------------------------------------------------------------- steps -- */

/* Forms all batches of the next step first, because the weight of each target, 1 / r->targets, needs their total; the
 * report gets what they hold. */
static void take_batches(struct geul_trainer *t, struct geul_train_report *r)
{
    for (int i = 0; i < t->options.n_accumulate; i++) {
        geul_batcher_next(&t->batcher, &t->batches[i], INT64_MAX);
        r->tokens += t->batches[i].tokens;
        r->targets += t->batches[i].n_targets;
        r->samples += t->batches[i].samples;
    }
    r->epoch = (double)t->batcher.position / (double)geul_batcher_epoch(&t->batcher);
}

/* Adds the gradients of all batches to the parameters', and computes the mean loss. *at: the batch at which the loss
 * ceased to be finite, 0 when it is. */
static enum geul_status accumulate(struct geul_trainer *t, struct geul_train_report *r, int *at)
{
    double total = 0;
    *at = 0;
    for (int i = 0; i < t->options.n_accumulate; i++) {
        double sum;
        if (t->batches[i].n_targets == 0)
            continue;
        /* for dropout: a function of step and batch, so that a resumed run drops the same */
        uint64_t seed =
            geul_random_bits(t->options.seed + 1, (uint64_t)t->step * (uint64_t)t->options.n_accumulate + (uint64_t)i);
        enum geul_status status =
            geul_batch_graph_run(t, &t->train, &t->batches[i], (float)(1.0 / (double)r->targets), seed, &sum);
        if (status != GEUL_OK)
            return status;
        if (!isfinite(sum) && isfinite(total))
            *at = i;
        total += sum;
    }
    r->loss = total / (double)r->targets;
    return GEUL_OK;
}

/* The update, unless loss or gradients are not finite, where the report says what caused it, or judge refuses. The
 * update also clears the gradients; who returns without it has to (after a failure the next step does). */
static enum geul_status apply(struct geul_trainer *t, struct geul_train_report *r, int at)
{
    int bad;
    enum geul_status status = geul_update_norm(t, &r->grad_norm, &bad);
    if (status != GEUL_OK)
        return status;
    if (!isfinite(r->loss) || bad >= 0) {
        r->outcome = GEUL_STEP_NOT_FINITE;
        r->grad_norm = NAN;
        status = geul_params_clear(&t->params);
        return status != GEUL_OK ? status : geul_diagnose(t, &t->batches[at], bad, r->where, sizeof r->where);
    }
    if (t->options.judge && !t->options.judge(t->options.user, r->loss, r->grad_norm)) {
        r->outcome = GEUL_STEP_REFUSED;
        return geul_params_clear(&t->params);
    }
    double clip = (double)t->options.clip, scale = clip > 0 ? clip / (r->grad_norm + 1e-6) : 1;
    return geul_update_apply(t, r->rate, scale < 1 ? scale : 1);
}

enum geul_status geul_trainer_step(struct geul_trainer *t, struct geul_train_report *report)
{
    double start = geul_os_seconds();
    struct geul_train_report r = {.step = t->step + 1,
                                  .rate = t->rate_scale * geul_rate_at(&t->options, t->step + 1, t->steps)};
    int64_t position = t->batcher.position;
    int at;
    geul_error_clear(t->ctx);
    if (t->stale && geul_params_clear(&t->params) != GEUL_OK)
        return geul_error_status(t->ctx);
    t->stale = false;
    take_batches(t, &r);
    enum geul_status status = GEUL_OK;
    if (r.targets == 0)
        status = geul_fail(t->ctx, GEUL_ERROR_ARGUMENT,
                           "the samples of step %lld have no target in their first %d "
                           "tokens",
                           (long long)r.step, t->n_context);
    if (status == GEUL_OK)
        status = accumulate(t, &r, &at);
    if (status == GEUL_OK)
        status = apply(t, &r, at);
    if (status != GEUL_OK) { /* as if the step had not started */
        t->batcher.position = position;
        t->stale = true; /* clearing gigabytes can wait: who cancelled a step waits for its end */
        return status;
    }
    t->step++;
    r.seconds = geul_os_seconds() - start;
    if (report)
        *report = r;
    return GEUL_OK;
}

enum geul_status geul_trainer_evaluate(struct geul_trainer *t, const struct geul_dataset *data, double *loss)
{
    struct geul_batcher b = {.ctx = t->ctx};
    struct geul_batch *batch = &t->batches[0]; /* only used within a step */
    double total = 0;
    int64_t targets = 0;
    geul_error_clear(t->ctx);
    enum geul_status status = check_data(t, data);
    struct geul_train_options alone = t->options; /* every worker evaluates all of data, in order */
    alone.worker = alone.n_workers = 0;
    if (status == GEUL_OK && !geul_batcher_init(&b, t->ctx, data, &alone, t->n_context, t->end_token, false))
        status = geul_error_status(t->ctx);
    for (int64_t end = status == GEUL_OK ? geul_batcher_epoch(&b) : 0; status == GEUL_OK && b.position < end;) {
        double sum = 0;
        geul_batcher_next(&b, batch, end);
        if (batch->n_targets > 0)
            status = geul_batch_graph_run(t, &t->evaluate, batch, 0, 0, &sum);
        total += sum;
        targets += batch->n_targets;
    }
    geul_batcher_free(&b);
    *loss = targets ? total / (double)targets : NAN;
    return status;
}
