/* bench_train.c: the speed of training steps.
 *
 *     bench_train MODEL.gguf [f32|bf16] [STEPS] [BATCH] [CONTEXT] [RANK]
 *
 * Learns random ids: BATCH samples of CONTEXT tokens, all of them targets. RANK > 0: a low-rank adapter beside the
 * model's weights. Prints a line per step and the medians. */
#include "backends/cpu/ceilings.h"
#include "core/os.h"
#include "train/trainer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
        for (int i = 0; i <= n_context; i++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            ids[i] = (int32_t)(state >> 33) % 4000;
        }
        geul_dataset_add(data, ids, NULL, n_context + 1);
    }
    geul_free(ctx, ids);
    return data;
}

static int run(struct geul_context *ctx, const struct geul_train_options *o, int steps)
{
    enum { MOST = 1000 };
    static double seconds[MOST], share[MOST];
    struct geul_dataset *data = make_data(ctx, 64 * o->n_batch, o->n_context);
    struct geul_train_plan plan = {0};
    struct geul_train_report r;
    geul_train_plan(ctx, o, data, false, &plan);
    struct geul_trainer *t = geul_trainer_new(ctx, o, data);
    bool ok = t && geul_trainer_step(t, &r) == GEUL_OK; /* takes the memory */
    double peak = (double)geul_os_peak_rss();           /* before the probe takes its own */
    struct geul_cpu_probe *probe = ok ? geul_cpu_probe_new(ctx, t->model->devices[0]) : NULL;
    const struct geul_model_shape *s = t ? geul_model_get_shape(t->model) : NULL;
    ok = probe != NULL;
    int n = steps < MOST ? steps : MOST;
    for (int i = 0; ok && i < n; i++) {
        struct geul_cpu_ceilings c = geul_cpu_probe_measure(probe);
        ok = geul_trainer_step(t, &r) == GEUL_OK;
        if (!ok)
            break;
        double matrices = (double)(s->n_params - (int64_t)s->n_vocab * s->d_model);
        double macs = 3 * matrices * (double)r.tokens;
        seconds[i] = r.seconds;
        share[i] = macs / r.seconds / (o->precision == GEUL_PRECISION_BF16 ? c.bf16_macs_per_s : c.f32_macs_per_s);
        printf("step %d: loss %.4f, %.3f s, %.1f tokens/s, products %.0f %% of the ceiling\n", i + 1, r.loss, r.seconds,
               (double)r.tokens / r.seconds, 100 * share[i]);
        fflush(stdout);
    }
    if (ok)
        printf("median %.3f s, %.1f tokens/s, %.0f %%; peak memory %.0f MB (foretold %.0f): weights %.0f, gradients "
               "%.0f, states %.0f, "
               "activations %.0f\n",
               median(seconds, n), (double)o->n_batch * o->n_context / median(seconds, n), 100 * median(share, n),
               peak / 1e6, (double)plan.total / 1e6, (double)t->params.weight_bytes / 1e6,
               (double)t->params.gradient_bytes / 1e6, (double)t->params.state_bytes / 1e6,
               (double)geul_runtime_bytes(t->runtime, 0) / 1e6);
    else
        fprintf(stderr, "bench_train: %s\n", geul_error(ctx));
    geul_cpu_probe_free(probe);
    geul_trainer_free(t);
    geul_dataset_free(data);
    return ok ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct geul_train_options o = geul_train_options_default();
    struct geul_context *ctx = geul_context_new(NULL);
    if (argc < 2) {
        fprintf(stderr, "usage: bench_train MODEL.gguf [f32|bf16] [STEPS] [BATCH] [CONTEXT] [RANK]\n");
        return 2;
    }
    o.model_path = argv[1];
    o.precision = argc > 2 && strcmp(argv[2], "bf16") == 0 ? GEUL_PRECISION_BF16 : GEUL_PRECISION_F32;
    o.n_batch = argc > 4 ? atoi(argv[4]) : 4;
    o.n_context = argc > 5 ? atoi(argv[5]) : 256;
    o.lora.rank = argc > 6 ? atoi(argv[6]) : 0;
    o.recompute = o.lora.rank > 0 ? GEUL_RECOMPUTE_FULL : GEUL_RECOMPUTE_LIGHT;
    o.steps = 1000;
    int code = run(ctx, &o, argc > 3 ? atoi(argv[3]) : 7);
    geul_context_free(ctx);
    return code;
}
