/* bench_train.c: the speed of training steps.
 *
 *     bench_train MODEL.gguf [f32|bf16] [STEPS] [BATCH] [CONTEXT] [RANK] [IDS|-] [none|light|full]
 *
 * Learns random ids: BATCH samples of CONTEXT tokens, all of them targets. RANK > 0: a low-rank adapter on the
 * model's weights. The last one says what is computed again, light by default, full with an adapter. Prints a line per
 * step and the medians.
 *
 * With - as STEPS it first prints what geul_train_estimate() says, takes one step that is not counted, and then as many
 * as each line of standard input says; everything as lines of JSON (bench/training/speed.py). IDS is a file of int32
 * ids, CONTEXT + 1 a sample, - for random ones. The learning rate stays the same. */
#include "backends/host.h"
#include "core/os.h"
#include "core/random.h"
#include "train/trainer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_size);
    return n ? v[n / 2] : 0;
}

/* Random samples of n_context + 1 ids. */
static struct geul_dataset *make_data(struct geul_context *ctx, int samples, int n_context)
{
    struct geul_dataset *data = geul_dataset_new(ctx);
    int32_t *ids = geul_alloc(ctx, (size_t)n_context + 1, sizeof *ids);
    uint64_t state = 1;
    for (int s = 0; data && ids && s < samples; s++) {
        for (int i = 0; i <= n_context; i++)
            ids[i] = (int32_t)(geul_random_congruential(&state) >> 33) % 4000;
        geul_dataset_add(data, ids, NULL, n_context + 1);
    }
    geul_free(ctx, ids);
    return data;
}

/* Samples of n_context + 1 ids from a file of int32. */
static struct geul_dataset *read_data(struct geul_context *ctx, const char *path, int n_context)
{
    struct geul_dataset *data = geul_dataset_new(ctx);
    size_t n = (size_t)n_context + 1;
    int32_t *ids = geul_alloc(ctx, n, sizeof *ids);
    FILE *f = fopen(path, "rb");
    if (!f)
        geul_fail(ctx, GEUL_ERROR_IO, "%s cannot be read", path);
    while (data && ids && f && fread(ids, sizeof *ids, n, f) == n)
        geul_dataset_add(data, ids, NULL, (int)n);
    if (f)
        fclose(f);
    geul_free(ctx, ids);
    return data;
}

/* What runs, and the figures of its last step. */
struct bench {
    struct geul_trainer *trainer;
    struct geul_train_estimate estimate;
    struct geul_host_probe *probe;
    struct geul_device_ceilings ceilings; /* of just now */
    struct geul_train_report report;
    double cpu_seconds; /* of all threads; other programs on the machine change it less than seconds */
    double macs_per_s;
    double share; /* of the time that its products take at the ceilings before and after it */
};

static double ceiling_of(const struct bench *b)
{
    return b->trainer->options.precision == GEUL_PRECISION_BF16 ? b->ceilings.bf16_macs_per_s
                                                                : b->ceilings.f32_macs_per_s;
}

/* One step with the ceilings of that moment. The products of attention are not counted. */
static bool take_step(struct bench *b)
{
    const struct geul_model_shape *s = geul_model_get_shape(b->trainer->model);
    double matrices = (double)(s->n_params - (int64_t)s->n_vocab * s->d_model), before = ceiling_of(b);
    clock_t start = clock();
    if (geul_trainer_step(b->trainer, &b->report) != GEUL_OK)
        return false;
    b->cpu_seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    b->ceilings = geul_host_probe_measure(b->probe);
    b->macs_per_s = 3 * matrices * (double)b->report.tokens / b->report.seconds;
    b->share = b->macs_per_s / (0.5 * (before + ceiling_of(b)));
    return true;
}

/* Peak resident bytes without the probe's, which are not part of training. */
static uint64_t peak_of(const struct bench *b)
{
    return geul_os_peak_rss() - geul_host_probe_bytes(b->probe);
}

/* Runs a number of steps and prints them for people. */
static bool run_steps(struct bench *b, int steps)
{
    enum { MOST = 1000 };
    static double seconds[MOST], share[MOST];
    int n = steps < MOST ? steps : MOST;
    for (int i = 0; i < n; i++) {
        if (!take_step(b))
            return false;
        seconds[i] = b->report.seconds;
        share[i] = b->share;
        printf("step %d: loss %.4f, %.3f s, %.1f tokens/s, products %.0f %% of the ceiling\n", i + 1, b->report.loss,
               seconds[i], (double)b->report.tokens / seconds[i], 100 * share[i]);
        fflush(stdout);
    }
    const struct geul_trainer *t = b->trainer;
    double middle = median(seconds, n), mega = 1e-6;
    printf("median %.3f s, %.1f tokens/s, %.0f %%; peak memory %.0f MB (estimated %.0f): weights %.0f, gradients %.0f, "
           "states %.0f, "
           "activations %.0f\n",
           middle, (double)b->report.tokens / middle, 100 * median(share, n), mega * (double)peak_of(b),
           mega * (double)b->estimate.total, mega * (double)t->params.weight_bytes,
           mega * (double)t->params.gradient_bytes, mega * (double)t->params.state_bytes,
           mega * (double)geul_runtime_bytes(t->runtime, 0));
    return true;
}

/* A step as JSON. */
static void print_step(const struct bench *b)
{
    const struct geul_train_report *r = &b->report;
    printf("{\"loss\": %.9g, \"seconds\": %.6f, \"cpu_seconds\": %.6f, \"tokens\": %lld, \"macs_per_s\": %.5g, "
           "\"share\": %.4f, \"f32_macs_per_s\": %.4g, "
           "\"bf16_macs_per_s\": %.4g, \"peak_rss_bytes\": %llu}\n",
           r->loss, r->seconds, b->cpu_seconds, (long long)r->tokens, b->macs_per_s, b->share,
           b->ceilings.f32_macs_per_s, b->ceilings.bf16_macs_per_s, (unsigned long long)peak_of(b));
    fflush(stdout);
}

/* As many steps as each line of standard input says. */
static bool obey(struct bench *b)
{
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        b->ceilings = geul_host_probe_measure(b->probe);
        for (int i = 0; i < atoi(line); i++) {
            if (!take_step(b))
                return false;
            print_step(b);
        }
    }
    return true;
}

static void print_estimate(const struct geul_train_estimate *p)
{
    printf("{\"planned_bytes\": %zu, \"weights\": %zu, \"mapped\": %zu, \"gradients\": %zu, \"states\": %zu, "
           "\"activations\": %zu, \"scratch\": %zu, \"other\": %zu, \"trained\": %lld}\n",
           p->total, p->weights, p->mapped, p->gradients, p->states, p->activations, p->scratch, p->other,
           (long long)p->trained);
    fflush(stdout);
}

/* steps: -1 for those that standard input asks for. */
static int run(struct geul_context *ctx, const struct geul_train_options *o, int steps, const char *path)
{
    struct geul_dataset *data =
        path ? read_data(ctx, path, o->n_context) : make_data(ctx, 64 * o->n_batch, o->n_context);
    struct bench b = {0};
    bool ok = data && geul_train_estimate(ctx, o, data, false, &b.estimate) == GEUL_OK;
    if (ok && steps < 0)
        print_estimate(&b.estimate);
    b.trainer = ok ? geul_trainer_new(ctx, o, data) : NULL;
    b.probe = b.trainer ? geul_host_probe_new(ctx, b.trainer->model->devices[0]) : NULL;
    ok = b.probe != NULL;
    if (ok)
        b.ceilings = geul_host_probe_measure(b.probe);
    ok = ok && take_step(&b); /* the first one takes the memory */
    if (ok && steps < 0)
        print_step(&b);
    ok = ok && (steps < 0 ? obey(&b) : run_steps(&b, steps));
    if (!ok)
        fprintf(stderr, "bench_train: %s\n", geul_error(ctx));
    geul_host_probe_free(b.probe);
    geul_trainer_free(b.trainer);
    geul_dataset_free(data);
    return ok ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct geul_train_options o = geul_train_options_default();
    struct geul_context *ctx = geul_context_new(NULL);
    if (argc < 2) {
        fprintf(
            stderr,
            "usage: bench_train MODEL.gguf [f32|bf16] [STEPS] [BATCH] [CONTEXT] [RANK] [IDS|-] [none|light|full]\n");
        return 2;
    }
    o.model_path = argv[1];
    o.precision = argc > 2 && strcmp(argv[2], "bf16") == 0 ? GEUL_PRECISION_BF16 : GEUL_PRECISION_F32;
    o.n_batch = argc > 4 ? atoi(argv[4]) : 4;
    o.n_context = argc > 5 ? atoi(argv[5]) : 256;
    o.lora.rank = argc > 6 ? atoi(argv[6]) : 0;
    o.recompute = o.lora.rank > 0 ? GEUL_RECOMPUTE_FULL : GEUL_RECOMPUTE_LIGHT;
    if (argc > 8)
        o.recompute = strcmp(argv[8], "none") == 0    ? GEUL_RECOMPUTE_NONE
                      : strcmp(argv[8], "light") == 0 ? GEUL_RECOMPUTE_LIGHT
                                                      : GEUL_RECOMPUTE_FULL;
    o.schedule = GEUL_RATE_CONSTANT;
    o.warmup = 0;
    o.steps = 1000;
    int steps = argc > 3 ? strcmp(argv[3], "-") == 0 ? -1 : atoi(argv[3]) : 7;
    int code = run(ctx, &o, steps, argc > 7 && strcmp(argv[7], "-") != 0 ? argv[7] : NULL);
    geul_context_free(ctx);
    return code;
}
