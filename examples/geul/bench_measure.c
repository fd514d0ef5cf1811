/* bench_measure.c: runs the model on random tokens, then the machine on its ceilings. */
#include "examples/geul/bench_measure.h"

#include "examples/geul/progress.h"
#include "examples/geul/report.h"
#include "examples/geul/terminal.h"

#include "core/gguf.h"
#include "core/os.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WARM_UP_TOKENS = 32 };

/* Work that is under way, for the progress bar. */
struct run {
    struct geul_loaded *l;
    const struct geul_bench_plan *plan;
    int n_batch;
    int32_t *ids;                /* n_prompt + n_generate */
    double *prompt, *generation; /* tokens/s of each repeat */
    uint64_t done, total;        /* tokens */
};

static bool advance(struct run *r, int tokens)
{
    r->done += (uint64_t)tokens;
    geul_progress_update(r->done, r->total);
    return !geul_interrupted();
}

/* Appends n ids in pieces of a batch, or one by one as generation does; *seconds may be NULL. */
static enum geul_status timed(struct run *r, const int32_t *ids, int n, bool one_by_one, double *seconds)
{
    double start = geul_os_seconds();
    const float *logits;
    for (int done = 0; done < n;) {
        int m = one_by_one ? 1 : n - done < r->n_batch ? n - done : r->n_batch;
        bool wanted = one_by_one || done + m == n;
        enum geul_status status = geul_session_append(r->l->session, 0, ids + done, m, wanted ? &logits : NULL);
        if (status != GEUL_OK)
            return status;
        done += m;
        if (!advance(r, m))
            return geul_fail(r->l->ctx, GEUL_ERROR_CANCELLED, "interrupted");
    }
    if (seconds)
        *seconds = geul_os_seconds() - start;
    return GEUL_OK;
}

/* A warm-up that touches every weight, then all repeats. */
static enum geul_status run_all(struct run *r)
{
    const struct geul_bench_plan *p = r->plan;
    enum geul_status status = GEUL_OK;
    int warm = p->n_prompt + p->n_generate < WARM_UP_TOKENS ? p->n_prompt + p->n_generate : WARM_UP_TOKENS;
    r->total = (uint64_t)(p->n_prompt + p->n_generate) * (uint64_t)p->repeats + (uint64_t)warm;
    geul_progress_begin("measuring", "tokens");
    status = timed(r, r->ids, warm, false, NULL);
    for (int i = 0; i < p->repeats && status == GEUL_OK; i++) {
        double seconds = 0;
        geul_session_truncate(r->l->session, 0, 0);
        if (p->n_prompt > 0)
            status = timed(r, r->ids, p->n_prompt, false, &seconds);
        r->prompt[i] = seconds > 0 ? p->n_prompt / seconds : 0;
        seconds = 0;
        if (status == GEUL_OK && p->n_generate > 0)
            status = timed(r, r->ids + p->n_prompt, p->n_generate, true, &seconds);
        r->generation[i] = seconds > 0 ? p->n_generate / seconds : 0;
    }
    geul_progress_hide();
    return status;
}

static struct geul_bench_figure figure(const double *v, int n)
{
    struct geul_bench_figure f = {0, 0};
    for (int i = 0; i < n; i++)
        f.mean += v[i] / n;
    for (int i = 0; i < n; i++)
        f.deviation += (v[i] - f.mean) * (v[i] - f.mean) / (n > 1 ? n - 1 : 1);
    f.deviation = sqrt(f.deviation);
    return f;
}

/* Random ids from the whole vocabulary. */
static void fill_ids(int32_t *ids, int n, int n_vocab, uint64_t seed)
{
    for (int i = 0; i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        ids[i] = (int32_t)((seed >> 33) % (uint64_t)n_vocab);
    }
}

static enum geul_status measure_speed(struct geul_loaded *l, const struct geul_bench_plan *plan, int n_batch,
                                      struct geul_bench_result *out)
{
    int n = plan->n_prompt + plan->n_generate;
    struct run r = {.l = l, .plan = plan, .n_batch = n_batch};
    r.ids = geul_alloc(l->ctx, (size_t)n, sizeof *r.ids);
    r.prompt = geul_alloc(l->ctx, (size_t)plan->repeats, sizeof *r.prompt);
    r.generation = geul_alloc(l->ctx, (size_t)plan->repeats, sizeof *r.generation);
    enum geul_status status = GEUL_ERROR_MEMORY;
    if (r.ids && r.prompt && r.generation) {
        fill_ids(r.ids, n, geul_model_get_shape(l->model)->n_vocab, plan->seed);
        status = run_all(&r);
        out->prompt_tps = figure(r.prompt, plan->repeats);
        out->generation_tps = figure(r.generation, plan->repeats);
    }
    geul_free(l->ctx, r.ids);
    geul_free(l->ctx, r.prompt);
    geul_free(l->ctx, r.generation);
    return status;
}

/* What the tensors of the file cost: multiply-adds and bytes. */
static void count_work(const struct geul_gguf *g, const struct geul_bench_plan *plan, struct geul_bench_result *out)
{
    double largest = 0;
    bool tied = !geul_gguf_find_tensor(g, "output.weight");
    for (int64_t i = 0; i < geul_gguf_tensor_count(g); i++) {
        const struct geul_gguf_tensor *t = geul_gguf_tensor_at(g, i);
        bool embedding = strcmp(t->name, "token_embd.weight") == 0;
        bool output = strcmp(t->name, "output.weight") == 0 || (embedding && tied);
        if (embedding && !output)
            continue; /* one row of it per token */
        out->generation_bytes_per_token += (double)t->bytes;
        if (t->n_dims != 2)
            continue;
        double macs = (double)t->shape[0] * (double)t->shape[1];
        out->prompt_macs_per_token += output ? macs / (plan->n_prompt > 0 ? plan->n_prompt : 1) : macs;
        if (!output && macs > largest) {
            largest = macs;
            out->type = t->type;
        }
    }
}

/* The kind of arithmetic that each type's products are made of. */
static void choose_ceiling(struct geul_bench_result *out)
{
    const struct geul_cpu_ceilings *c = &out->ceilings;
    out->prompt_ceiling = "f32";
    out->prompt_macs_per_s = c->f32_macs_per_s;
    if (out->type == GEUL_TYPE_Q8_0 || out->type == GEUL_TYPE_Q4_0) {
        out->prompt_ceiling = "int8";
        out->prompt_macs_per_s = c->int8_macs_per_s;
    } else if (out->type == GEUL_TYPE_BF16 && c->bf16_macs_per_s > 0) {
        out->prompt_ceiling = "bf16";
        out->prompt_macs_per_s = c->bf16_macs_per_s;
    }
    if (out->prompt_macs_per_s > 0)
        out->prompt_share = out->prompt_macs_per_token * out->prompt_tps.mean / out->prompt_macs_per_s;
    if (c->read_bytes_per_s > 0)
        out->generation_share = out->generation_bytes_per_token * out->generation_tps.mean / c->read_bytes_per_s;
}

/* The machine's ceilings, with as many threads as the model had. */
static enum geul_status measure_ceilings(struct geul_context *ctx, int n_threads, struct geul_bench_result *out)
{
    struct geul_device *cpu = geul_cpu_open(ctx, n_threads);
    if (!cpu)
        return geul_error_status(ctx);
    out->n_threads = geul_cpu_threads(cpu);
    struct geul_cpu_probe *probe = geul_cpu_probe_new(ctx, cpu);
    if (probe)
        out->ceilings = geul_cpu_probe_measure(probe);
    geul_cpu_probe_free(probe);
    geul_cpu_close(ctx, cpu);
    return probe ? GEUL_OK : GEUL_ERROR_MEMORY;
}

int geul_bench_measure(const struct geul_model_args *args, const struct geul_bench_plan *plan,
                       struct geul_bench_result *out)
{
    struct geul_loaded l;
    *out = (struct geul_bench_result){.type = GEUL_TYPE_F32};
    int code = geul_loaded_open(args, false, &l);
    if (code != 0)
        return code;
    out->load_seconds = l.load_seconds;
    out->kv_cache_bytes = geul_session_cache_bytes(l.session);
    enum geul_status status = measure_speed(&l, plan, args->n_batch, out);
    out->peak_rss_bytes = geul_os_peak_rss(); /* before the ceilings, which take memory of their own */
    struct geul_gguf *g = status == GEUL_OK ? geul_gguf_open(l.ctx, args->path) : NULL;
    if (g) {
        out->file_bytes = geul_gguf_file_bytes(g);
        count_work(g, plan, out);
        status = measure_ceilings(l.ctx, args->n_threads, out);
    }
    if (status != GEUL_OK || !g)
        code = geul_report_failure(l.ctx);
    else
        choose_ceiling(out);
    geul_gguf_close(g);
    geul_loaded_close(&l);
    return code;
}
