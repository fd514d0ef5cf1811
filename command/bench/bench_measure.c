/* bench_measure.c: runs the model on random tokens, and measures the machine's ceilings before and after.
 *
 *     threads x sequences     loads the model, opens a session, warms up      measure_loaded()
 *       depths                fills the cache to that depth                   deepen()
 *         prompts             (with the first number of sequences only)       measure_cell()
 *         generations                                                         measure_cell()
 *           repetitions       ceilings, the run itself, ceilings
 *
 * A shared machine's speed changes within seconds, so the share of the ceiling is taken per repetition, from the
 * ceilings right before and after it; the medians come last. */
#include "command/bench/bench_measure.h"

#include "command/bench/bench_work.h"
#include "command/progress.h"
#include "command/report.h"
#include "command/terminal.h"

#include "core/os.h"
#include "core/random.h"
#include "models/model.h"

#include <stdio.h>
#include <stdlib.h>

enum { WARM_UP_TOKENS = 32 };

/* One repetition. */
struct sample {
    double tps, ceiling_tps, share;
    struct geul_device_ceilings ceilings; /* of the device that takes longest */
};

/* The ceilings of all devices at a moment. */
struct moment {
    struct geul_device_ceilings at[GEUL_MAX_DEVICES];
};

/* The state of one model's measurement. */
struct bench {
    const struct geul_bench_sweep *sweep;
    struct geul_model_args args; /* with the current number of threads and sequences */
    struct geul_context *ctx;    /* for what outlives a session */
    struct geul_device *host;    /* that the CPU's ceilings are measured on, beside the model's */
    struct geul_ceilings ceilings;
    struct geul_loaded l;
    int n_devices;
    struct geul_bench_work work[GEUL_MAX_DEVICES];
    double cache_bytes[GEUL_MAX_DEVICES]; /* of keys and values per position of one sequence */
    struct geul_bench_cell cell;          /* filled in as far as it is known */
    int32_t *ids;
    int n_ids; /* as many as the longest sequence */
    struct geul_batch_item *step;
    struct sample *samples;
    uint64_t done, total; /* tokens, for the progress bar */
    uint64_t load_peak;   /* resident bytes, before the probe */
    char types[64], devices[64];
    bool enough; /* the caller wants no more cells */
};

static int largest(const struct geul_bench_list *list)
{
    int most = 0;
    for (int i = 0; i < list->n; i++)
        most = list->v[i] > most ? list->v[i] : most;
    return most;
}

/* Random ids from the whole vocabulary. */
static void fill_ids(int32_t *ids, int n, int n_vocab, uint64_t seed)
{
    for (int i = 0; i < n; i++)
        ids[i] = (int32_t)((geul_random_congruential(&seed) >> 33) % (uint64_t)n_vocab);
}

static enum geul_status advance(struct bench *b, int tokens)
{
    b->done += (uint64_t)tokens;
    if (!b->sweep->turn)
        geul_progress_update(b->done, b->total);
    return geul_interrupted() ? geul_fail(b->l.ctx, GEUL_ERROR_CANCELLED, "interrupted") : GEUL_OK;
}

/* Appends n ids to sequence 0 in pieces of a batch; the last token's logits are computed. */
static enum geul_status append(struct bench *b, int n)
{
    enum geul_status status = GEUL_OK;
    const float *logits;
    int from = geul_session_length(b->l.session, 0);
    for (int done = 0; done < n && status == GEUL_OK;) {
        int piece = n - done < b->args.n_batch ? n - done : b->args.n_batch;
        status = geul_session_append(b->l.session, 0, b->ids + from + done, piece, done + piece == n ? &logits : NULL);
        done += piece;
        if (status == GEUL_OK)
            status = advance(b, piece);
    }
    return status;
}

static bool ignore_logits(void *user, int item, const float *logits, int n_vocab)
{
    (void)user, (void)item, (void)logits, (void)n_vocab;
    return true;
}

/* Appends one id to each of the sequences, n times, as generation does. */
static enum geul_status generate(struct bench *b, int n)
{
    enum geul_status status = GEUL_OK;
    int from = geul_session_length(b->l.session, 0), parallel = b->cell.parallel;
    for (int i = 0; i < n && status == GEUL_OK; i++) {
        for (int s = 0; s < parallel; s++)
            b->step[s] =
                (struct geul_batch_item){.token = b->ids[(from + i + s) % b->n_ids], .seq = s, .want_logits = true};
        status = geul_session_eval(b->l.session, b->step, parallel, ignore_logits, NULL);
        if (status == GEUL_OK)
            status = advance(b, parallel);
    }
    return status;
}

static enum geul_status run(struct bench *b, int n_prompt, int n_generate)
{
    return n_prompt > 0 ? append(b, n_prompt) : generate(b, n_generate);
}

/* Truncates every sequence to the depth of the cell. */
static void rewind_sequences(struct bench *b)
{
    for (int s = 0; s < b->cell.parallel; s++)
        geul_session_truncate(b->l.session, s, b->cell.depth);
}

/* Brings all sequences to the depth of the cell. Sequence 0 keeps what it has and appends the rest; the others become
 * copies of it. */
static enum geul_status deepen(struct bench *b)
{
    rewind_sequences(b);
    enum geul_status status = append(b, b->cell.depth - geul_session_length(b->l.session, 0));
    for (int s = 1; s < b->args.n_sequences && status == GEUL_OK && b->cell.depth > 0; s++)
        status = geul_session_copy(b->l.session, 0, s);
    return status;
}

static struct geul_device_ceilings mean_of(const struct geul_device_ceilings *a, const struct geul_device_ceilings *b)
{
    return (struct geul_device_ceilings){.read_bytes_per_s = (a->read_bytes_per_s + b->read_bytes_per_s) / 2,
                                         .f32_macs_per_s = (a->f32_macs_per_s + b->f32_macs_per_s) / 2,
                                         .bf16_macs_per_s = (a->bf16_macs_per_s + b->bf16_macs_per_s) / 2,
                                         .int8_macs_per_s = (a->int8_macs_per_s + b->int8_macs_per_s) / 2};
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median of one member of the samples (a double at that offset); the extremes too unless NULL. */
static double median(const struct sample *samples, int n, size_t member, double *low, double *high)
{
    double v[GEUL_BENCH_REPETITIONS_MAX];
    for (int i = 0; i < n; i++)
        v[i] = *(const double *)(const void *)((const char *)&samples[i] + member);
    qsort(v, (size_t)n, sizeof *v, compare);
    if (low && high) {
        *low = v[0];
        *high = v[n - 1];
    }
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* Passes the cell with the figures of n repetitions to the caller. Returns whether it wants more. */
static bool hand_out(struct bench *b, const struct sample *samples, int n)
{
    struct geul_bench_cell *c = &b->cell;
    struct geul_device_ceilings sum = {0};
    for (int i = 0; i < n; i++) {
        sum.read_bytes_per_s += samples[i].ceilings.read_bytes_per_s / n;
        sum.f32_macs_per_s += samples[i].ceilings.f32_macs_per_s / n;
        sum.bf16_macs_per_s += samples[i].ceilings.bf16_macs_per_s / n;
        sum.int8_macs_per_s += samples[i].ceilings.int8_macs_per_s / n;
    }
    c->ceilings = sum;
    c->repetitions = n;
    c->tps = median(samples, n, offsetof(struct sample, tps), &c->tps_low, &c->tps_high);
    c->share = median(samples, n, offsetof(struct sample, share), NULL, NULL);
    c->ceiling_tps = median(samples, n, offsetof(struct sample, ceiling_tps), NULL, NULL);
    /* The probe's buffers are not the model's memory. Loading may have had the higher peak, before the probe existed.
     */
    uint64_t peak = geul_os_peak_rss(), held = geul_host_probe_bytes(b->ceilings.probe);
    peak = peak > held ? peak - held : 0;
    c->peak_rss_bytes = (int64_t)(peak > b->load_peak ? peak : b->load_peak);
    c->peak_over_bytes = c->peak_rss_bytes - c->file_bytes - c->kv_cache_bytes;
    return b->sweep->cell(b->sweep->user, c);
}

static enum geul_status measure_ceilings(struct bench *b, struct moment *now)
{
    for (int d = 0; d < b->n_devices; d++)
        if (b->work[d].weight_bytes > 0 && !geul_ceilings_measure(&b->ceilings, d, &now->at[d]))
            return geul_fail_from(b->l.ctx, b->ctx);
    return GEUL_OK;
}

/* What the work of the cell takes of device d. */
static struct geul_bench_amount amount_of(const struct bench *b, int d)
{
    const struct geul_bench_cell *c = &b->cell;
    if (c->n_prompt > 0)
        return geul_bench_prompt_amount(&b->work[d], c->n_prompt, b->args.n_batch, c->depth, b->cache_bytes[d]);
    return geul_bench_generation_amount(&b->work[d], c->n_generate, c->parallel, c->depth, b->cache_bytes[d]);
}

/* The least time of the cell by the ceilings before and after a repetition: the devices compute one after the other.
 * Whose part takes longest says what the bound is. */
static double least_seconds(struct bench *b, const struct moment *before, const struct moment *after,
                            struct geul_device_ceilings *slowest)
{
    double sum = 0, most = -1;
    for (int d = 0; d < b->n_devices; d++) {
        if (b->work[d].weight_bytes <= 0)
            continue;
        struct geul_bench_amount amount = amount_of(b, d);
        struct geul_device_ceilings mean = mean_of(&before->at[d], &after->at[d]);
        const char *bound;
        double seconds = geul_bench_least_seconds(&amount, &mean, &bound);
        sum += seconds;
        if (seconds > most) {
            most = seconds;
            b->cell.bound = bound;
            *slowest = mean;
        }
    }
    return sum;
}

/* Fills in the work of the cell, and returns its tokens. */
static int begin_cell(struct bench *b, int n_prompt, int n_generate)
{
    struct geul_bench_cell *c = &b->cell;
    c->n_prompt = n_prompt;
    c->n_generate = n_generate;
    c->bytes = c->macs = 0;
    for (int d = 0; d < b->n_devices; d++) {
        struct geul_bench_amount amount = amount_of(b, d);
        c->bytes += amount.bytes;
        for (int i = 0; i < GEUL_BENCH_ARITHMETICS; i++)
            c->macs += amount.macs[i];
    }
    return n_prompt > 0 ? n_prompt : n_generate * c->parallel;
}

/* All repetitions of one cell after a short warm-up. */
static enum geul_status measure_cell(struct bench *b, int n_prompt, int n_generate)
{
    int tokens = begin_cell(b, n_prompt, n_generate);
    /* The warm-up: at most one batch or one step, so that buffers exist and the plan for this shape is made. */
    rewind_sequences(b);
    struct moment before = {{{0}}}, after = {{{0}}};
    enum geul_status status = run(b, n_prompt < b->args.n_batch ? n_prompt : b->args.n_batch, 1);
    /* The ceilings after one repetition are those before the next, unless the caller's turn lies between them. */
    if (status == GEUL_OK)
        status = measure_ceilings(b, &before);
    for (int i = 0; i < b->sweep->repetitions && status == GEUL_OK && !b->enough; i++, before = after) {
        struct sample *s = &b->samples[i];
        if (b->sweep->turn) { /* another program is measured meanwhile, so this may wait for long */
            b->enough = !b->sweep->turn(b->sweep->user);
            if (b->enough)
                return GEUL_OK;
            status = measure_ceilings(b, &before);
        }
        rewind_sequences(b);
        double start = geul_os_seconds();
        if (status == GEUL_OK)
            status = run(b, n_prompt, n_generate);
        s->tps = tokens / (geul_os_seconds() - start);
        if (status == GEUL_OK)
            status = measure_ceilings(b, &after);
        if (status != GEUL_OK)
            return status;
        s->ceiling_tps = tokens / least_seconds(b, &before, &after, &s->ceilings);
        s->share = s->tps / s->ceiling_tps;
        if (b->sweep->turn)
            b->enough = !hand_out(b, s, 1);
    }
    if (!b->sweep->turn && status == GEUL_OK)
        b->enough = !hand_out(b, b->samples, b->sweep->repetitions);
    return status;
}

/* The name that llama-bench gives such a test, and how many sequences there are. */
static void name_test(char *out, size_t size, const struct geul_bench_cell *c, int n_prompt, int n_generate)
{
    int n = snprintf(out, size, n_prompt > 0 ? "pp%d" : "tg%d", n_prompt > 0 ? n_prompt : n_generate);
    if (c->parallel > 1)
        n += snprintf(out + n, size - (size_t)n, " x%d", c->parallel);
    if (c->depth > 0)
        snprintf(out + n, size - (size_t)n, " @ d%d", c->depth);
}

/* All cells of one session: every depth in the order given, and at each the prompts, if wanted, and the generations. */
static enum geul_status measure_session(struct bench *b, bool prompts)
{
    const struct geul_bench_sweep *p = b->sweep;
    enum geul_status status = GEUL_OK;
    char test[64];
    b->cell.test = test;
    for (int d = 0; d < p->depths.n && status == GEUL_OK && !b->enough; d++) {
        b->cell.depth = p->depths.v[d];
        status = deepen(b);
        b->cell.parallel = 1;
        for (int i = 0; prompts && i < p->prompts.n && status == GEUL_OK && !b->enough; i++) {
            if (p->prompts.v[i] == 0)
                continue;
            name_test(test, sizeof test, &b->cell, p->prompts.v[i], 0);
            status = measure_cell(b, p->prompts.v[i], 0);
        }
        rewind_sequences(b);
        b->cell.parallel = b->args.n_sequences;
        for (int i = 0; i < p->generates.n && status == GEUL_OK && !b->enough; i++) {
            if (p->generates.v[i] == 0)
                continue;
            name_test(test, sizeof test, &b->cell, 0, p->generates.v[i]);
            status = measure_cell(b, 0, p->generates.v[i]);
        }
    }
    return status;
}

/* Counts bytes and multiply-adds of the model's file on every device. */
static enum geul_status count_work(struct bench *b)
{
    const struct geul_model *m = b->l.model;
    struct geul_gguf *g = geul_gguf_open(b->l.ctx, b->args.path);
    if (!g)
        return geul_error_status(b->l.ctx);
    double position = (double)b->cell.kv_cache_bytes / geul_session_capacity(b->l.session) / b->args.n_sequences;
    size_t n = 0;
    b->n_devices = m->n_devices;
    b->devices[0] = '\0';
    for (int i = 1; i <= b->n_devices; i++) { /* the CPU, which is device 0, is named last */
        int d = i % b->n_devices, n_layers = 0;
        geul_bench_work_count(g, m, d, &b->work[d]);
        for (int k = 0; k < m->neox.shape.n_layers; k++)
            n_layers += m->placement.layers[k] == d;
        b->cache_bytes[d] = position * n_layers / m->neox.shape.n_layers;
        if (b->work[d].weight_bytes > 0 && n < sizeof b->devices)
            n += (size_t)snprintf(b->devices + n, sizeof b->devices - n, "%s%s", n ? "+" : "", m->devices[d]->id);
    }
    geul_bench_work_types(g, b->types, sizeof b->types);
    b->cell.file_bytes = (int64_t)geul_gguf_file_bytes(g);
    b->cell.types = b->types;
    b->cell.devices = b->devices;
    b->cell.n_gpu_layers = m->placement.n;
    geul_gguf_close(g);
    return GEUL_OK;
}

/* Opens what the ceilings are measured with: the CPU's on a device of their own, with the threads of the test, the
 * others' where the model lies. */
static bool open_ceilings(struct bench *b)
{
    struct geul_devices devices = {.n = b->l.model->n_devices};
    b->host = geul_device_open(b->ctx, GEUL_DEVICE_HOST, b->args.n_threads);
    for (int d = 1; d < devices.n; d++)
        devices.at[d] = b->l.model->devices[d];
    devices.at[GEUL_DEVICE_HOST] = b->host;
    return b->host && geul_ceilings_open(b->ctx, &devices, &b->ceilings);
}

/* Measures the model that is open. Returns the exit code. */
static int measure_opened(struct bench *b, bool prompts)
{
    /* The probe's device comes after the peak of loading is taken: its buffers would count as the model's. */
    b->load_peak = geul_os_peak_rss();
    if (!open_ceilings(b))
        return geul_report_failure(b->ctx);
    geul_os_peak_rss_reset();
    b->cell.n_threads = b->host->n_threads;
    b->cell.load_seconds = b->l.load_seconds;
    b->cell.kv_cache_bytes = (int64_t)geul_session_cache_bytes(b->l.session);
    b->cell.parallel = 1;
    b->cell.depth = 0;
    fill_ids(b->ids, b->n_ids, geul_model_get_shape(b->l.model)->n_vocab, b->sweep->seed);
    enum geul_status status = count_work(b);
    int warm = b->n_ids < WARM_UP_TOKENS ? b->n_ids : WARM_UP_TOKENS;
    if (status == GEUL_OK)
        status = append(b, warm); /* touches every weight */
    if (status == GEUL_OK)
        status = measure_session(b, prompts);
    geul_progress_hide();
    return status == GEUL_OK ? 0 : geul_report_failure(b->l.ctx);
}

/* Loads the model for so many threads and sequences, and measures. Returns the exit code. */
static int measure_loaded(struct bench *b, int n_threads, int n_sequences, bool prompts)
{
    b->args.n_threads = n_threads;
    b->args.n_sequences = n_sequences;
    geul_os_peak_rss_reset();
    int code = geul_loaded_open(&b->args, false, &b->l);
    if (code != 0)
        return code;
    code = measure_opened(b, prompts);
    geul_ceilings_close(&b->ceilings);
    geul_device_close(b->ctx, b->host);
    geul_loaded_close(&b->l);
    b->host = NULL;
    return code;
}

/* Approximate number of tokens to compute, for the progress bar. */
static uint64_t count_tokens(const struct geul_bench_sweep *p)
{
    uint64_t each = 0, parallel = 0;
    for (int i = 0; i < p->prompts.n; i++)
        each += (uint64_t)p->prompts.v[i];
    for (int i = 0; i < p->parallels.n; i++)
        parallel += (uint64_t)p->parallels.v[i];
    for (int i = 0; i < p->generates.n; i++)
        each += (uint64_t)p->generates.v[i] * parallel;
    return (uint64_t)p->threads.n * ((uint64_t)p->depths.n * each * (uint64_t)p->repetitions +
                                     (uint64_t)largest(&p->depths) * (uint64_t)p->parallels.n);
}

/* Every number of threads and sequences. Returns the exit code. */
static int measure_all(struct bench *b)
{
    const struct geul_bench_sweep *p = b->sweep;
    int code = 0;
    geul_progress_start("measuring", "tokens");
    for (int t = 0; t < p->threads.n && code == 0; t++)
        for (int i = 0; i < p->parallels.n && code == 0 && !b->enough; i++)
            code = measure_loaded(b, p->threads.v[t], p->parallels.v[i], i == 0);
    geul_progress_hide();
    return code;
}

/* The longest text of the sweep. */
static int longest_text(const struct geul_bench_sweep *sweep)
{
    int prompt = largest(&sweep->prompts), generate = largest(&sweep->generates);
    return largest(&sweep->depths) + (prompt > generate ? prompt : generate);
}

void geul_bench_largest(struct geul_model_args *args, const struct geul_bench_sweep *sweep)
{
    args->n_sequences = largest(&sweep->parallels);
    args->n_context = args->n_context ? args->n_context : longest_text(sweep);
}

int geul_bench_measure(const struct geul_model_args *args, const struct geul_bench_sweep *sweep)
{
    int code = 1, longest = longest_text(sweep);
    struct bench b = {.sweep = sweep,
                      .args = *args,
                      .ctx = geul_report_context(false),
                      .n_ids = longest,
                      .total = count_tokens(sweep)};
    if (!b.ctx)
        return 1;
    if (b.args.n_context == 0)
        b.args.n_context = longest;
    b.cell.model = args->path;
    b.cell.cache_type = args->cache_type;
    b.cell.n_batch = args->n_batch;
    b.ids = geul_alloc(b.ctx, (size_t)longest, sizeof *b.ids);
    b.step = geul_alloc(b.ctx, (size_t)largest(&sweep->parallels), sizeof *b.step);
    b.samples = geul_alloc(b.ctx, (size_t)sweep->repetitions, sizeof *b.samples);
    if (b.ids && b.step && b.samples)
        code = measure_all(&b);
    else
        geul_report_failure(b.ctx);
    geul_free(b.ctx, b.ids);
    geul_free(b.ctx, b.step);
    geul_free(b.ctx, b.samples);
    geul_report_context_free(b.ctx);
    return code;
}
