/* cmd_bench.c: `geul bench` measures a model beside the machine's own ceilings. */
#include "examples/geul/bench_measure.h"
#include "examples/geul/command.h"
#include "examples/geul/paths.h"
#include "examples/geul/progress.h"
#include "examples/geul/report.h"
#include "examples/geul/synth.h"
#include "examples/geul/terminal.h"

#include "core/os.h"

#include <stdio.h>
#include <stdlib.h>

struct settings {
    struct geul_model_args model;
    const char *synthetic;
    int n_prompt, n_generate, repeats;
    bool json, csv;
};

#define FIELD(name) offsetof(struct settings, name)
static const struct geul_option options[] = {
    {GEUL_OPTION_TEXT, "-m, --model", "FILE", FIELD(model.path), "the model, a GGUF file", 0, 0, NULL, NULL, false},
    {GEUL_OPTION_TEXT, "--synthetic", "SIZE:TYPE", FIELD(synthetic),
     "random weights instead (see `geul synth --help`), kept in $GEUL_CACHE or ~/.cache/geul for the next time", 0, 0,
     NULL, NULL, false},
    {GEUL_OPTION_INT, "-p, --n-prompt", "N", FIELD(n_prompt), "tokens of the prompt", 0, 1 << 20, NULL, NULL, false},
    {GEUL_OPTION_INT, "-n, --n-gen", "N", FIELD(n_generate), "tokens to generate", 0, 1 << 20, NULL, NULL, false},
    {GEUL_OPTION_INT, "-r, --repetitions", "N", FIELD(repeats), "repeats, after a warm-up", 1, 1000, NULL, NULL, false},
    {GEUL_OPTION_INT, "-t, --threads", "N", FIELD(model.n_threads), "threads, 0: one per core", 0, 1024, NULL, NULL,
     false},
    {GEUL_OPTION_INT, "-c, --ctx-size", "N", FIELD(model.n_context), "positions of the cache, 0: as many as needed", 0,
     1 << 24, NULL, NULL, false},
    {GEUL_OPTION_INT, "-b, --batch-size", "N", FIELD(model.n_batch), "most prompt tokens computed at once", 1, 1 << 16,
     NULL, NULL, false},
    {GEUL_OPTION_INT, "-ngl, --gpu-layers, --n-gpu-layers", "N", FIELD(model.n_gpu_layers),
     "layers on the GPU; this build has none", 0, 100000, NULL, NULL, false},
    {GEUL_OPTION_FLAG, "--json", NULL, FIELD(json), "prints every figure as JSON", 0, 0, NULL, NULL, false},
    {GEUL_OPTION_FLAG, "--csv", NULL, FIELD(csv), "prints a header line and a line of figures", 0, 0, NULL, NULL,
     false},
    {.kind = GEUL_OPTION_END},
};

static const struct geul_command_help help = {
    .name = "bench",
    .usage = "-m FILE | --synthetic SIZE:TYPE [options]",
    .summary = "measure speed and memory beside the machine's own ceilings",
    .about =
        "The ceilings are measured in the same run with the same threads: how fast memory can be read, and how many "
        "multiply-adds the instructions in use can do. A prompt is compared with the arithmetic of its weights' type, "
        "generation with reading all weights once per token.",
    .example = "geul bench --synthetic 1.3b:q8_0 -p 256 -n 32 -r 3\n"
               "geul bench -m polyglot.gguf --json",
    .options = options,
};

/* Finds or makes the file of random weights; a path to be freed by free(), or NULL with *code set. */
static char *synthetic_path(const char *what, int *code)
{
    struct geul_context *ctx = geul_report_context(false);
    struct geul_synth synth;
    char name[128], *path = NULL;
    *code = 1;
    if (!ctx)
        return NULL;
    if (!geul_synth_parse(ctx, what, &synth)) {
        *code = *geul_error(ctx) ? 1 : 2;
        geul_context_free(ctx);
        return NULL;
    }
    snprintf(name, sizeof name, "synthetic-%s.gguf", synth.label);
    path = geul_path_cache(ctx, name);
    struct geul_gguf *g = path && geul_os_exists(path) ? geul_gguf_open(ctx, path) : NULL;
    bool fits = g && geul_synth_fits(ctx, &synth, g);
    geul_gguf_close(g);
    if (path && !fits) {
        geul_error_clear(ctx);
        geul_report_note("making %s", path);
        *code = geul_synth_write(ctx, &synth, 0, path) == GEUL_OK ? 0 : geul_report_failure(ctx);
    } else {
        *code = path ? 0 : geul_report_failure(ctx);
    }
    geul_context_free(ctx);
    if (*code != 0) {
        free(path);
        return NULL;
    }
    return path;
}

/* Every figure: the name in JSON and CSV, and the value. */
struct row {
    const char *name;
    double value;
    bool whole;
};
enum { N_ROWS = 23 };

static void collect(const struct settings *s, const struct geul_bench_result *r, struct row rows[N_ROWS])
{
    const struct row all[N_ROWS] = {
        {"n_prompt", s->n_prompt, true},
        {"n_generate", s->n_generate, true},
        {"repetitions", s->repeats, true},
        {"n_threads", r->n_threads, true},
        {"prompt_tps", r->prompt_tps.mean, false},
        {"prompt_tps_stddev", r->prompt_tps.deviation, false},
        {"generation_tps", r->generation_tps.mean, false},
        {"generation_tps_stddev", r->generation_tps.deviation, false},
        {"load_seconds", r->load_seconds, false},
        {"peak_rss_bytes", (double)r->peak_rss_bytes, true},
        {"file_bytes", (double)r->file_bytes, true},
        {"kv_cache_bytes", (double)r->kv_cache_bytes, true},
        {"ceiling_read_bytes_per_s", r->ceilings.read_bytes_per_s, false},
        {"ceiling_int8_macs_per_s", r->ceilings.int8_macs_per_s, false},
        {"ceiling_bf16_macs_per_s", r->ceilings.bf16_macs_per_s, false},
        {"ceiling_f32_macs_per_s", r->ceilings.f32_macs_per_s, false},
        {"prompt_macs_per_token", r->prompt_macs_per_token, false},
        {"generation_bytes_per_token", r->generation_bytes_per_token, false},
        {"prompt_macs_per_s", r->prompt_macs_per_token * r->prompt_tps.mean, false},
        {"generation_bytes_per_s", r->generation_bytes_per_token * r->generation_tps.mean, false},
        {"prompt_ceiling_macs_per_s", r->prompt_macs_per_s, false},
        {"prompt_share", r->prompt_share, false},
        {"generation_share", r->generation_share, false},
    };
    for (int i = 0; i < N_ROWS; i++)
        rows[i] = all[i];
}

static int print_json(const char *path, const struct geul_bench_result *r, const struct row *rows)
{
    json_t *json = json_pack("{s:o, s:s, s:s}", "model", geul_report_json_name(path), "type", geul_type_name(r->type),
                             "prompt_ceiling", r->prompt_ceiling);
    for (int i = 0; i < N_ROWS; i++)
        json_object_set_new(json, rows[i].name,
                            rows[i].whole ? json_integer((json_int_t)rows[i].value)
                                          : geul_report_json_real(rows[i].value));
    return geul_report_json(json);
}

static int print_csv(const char *path, const struct geul_bench_result *r, const struct row *rows)
{
    printf("model,type");
    for (int i = 0; i < N_ROWS; i++)
        printf(",%s", rows[i].name);
    printf("\n\"%s\",%s", path, geul_type_name(r->type));
    for (int i = 0; i < N_ROWS; i++)
        printf(rows[i].whole ? ",%.0f" : ",%.6g", rows[i].value);
    putchar('\n');
    return 0;
}

static int print_table(const char *path, const struct settings *s, const struct geul_bench_result *r)
{
    char a[32], b[32], c[32];
    const struct geul_cpu_ceilings *most = &r->ceilings;
    printf("model        %s (%s, %s)\n", path, geul_type_name(r->type),
           geul_progress_bytes(r->file_bytes, a, sizeof a));
    printf("threads      %d; %d repeats after a warm-up\n", r->n_threads, s->repeats);
    printf("load         %.3f s\n", r->load_seconds);
    printf("peak memory  %s, of which file %s, keys and values %s\n",
           geul_progress_bytes(r->peak_rss_bytes, a, sizeof a), geul_progress_bytes(r->file_bytes, b, sizeof b),
           geul_progress_bytes(r->kv_cache_bytes, c, sizeof c));
    printf("\n%-22s %18s   %-30s %s\n", "", "tokens/s", "work", "share of ceiling");
    if (s->n_prompt > 0)
        printf("prompt %-6d tokens   %10.2f +- %-5.2f   %7.1f G multiply-adds/s          %.1f %% of %s\n", s->n_prompt,
               r->prompt_tps.mean, r->prompt_tps.deviation, r->prompt_macs_per_token * r->prompt_tps.mean * 1e-9,
               100 * r->prompt_share, r->prompt_ceiling);
    if (s->n_generate > 0)
        printf("text   %-6d tokens   %10.2f +- %-5.2f   %7.1f GB/s of weights read        %.1f %% of memory\n",
               s->n_generate, r->generation_tps.mean, r->generation_tps.deviation,
               r->generation_bytes_per_token * r->generation_tps.mean * 1e-9, 100 * r->generation_share);
    printf("\nceilings     memory %.1f GB/s; G multiply-adds/s: int8 %.1f, bf16 %.1f, f32 %.1f\n",
           most->read_bytes_per_s * 1e-9, most->int8_macs_per_s * 1e-9, most->bf16_macs_per_s * 1e-9,
           most->f32_macs_per_s * 1e-9);
    return 0;
}

/* Measures the model at path and prints. Returns the exit code. */
static int bench(struct settings *s, const char *path)
{
    struct geul_bench_plan plan = {
        .n_prompt = s->n_prompt, .n_generate = s->n_generate, .repeats = s->repeats, .seed = 1};
    struct geul_bench_result r;
    struct row rows[N_ROWS];
    if (s->model.n_context == 0)
        s->model.n_context = plan.n_prompt + plan.n_generate;
    s->model.path = path;
    int code = geul_bench_measure(&s->model, &plan, &r);
    if (code != 0)
        return code;
    collect(s, &r, rows);
    return s->json ? print_json(path, &r, rows) : s->csv ? print_csv(path, &r, rows) : print_table(path, s, &r);
}

int geul_cmd_bench(int argc, char **argv)
{
    struct settings s = {.model = GEUL_MODEL_ARGS_DEFAULT, .n_prompt = 256, .n_generate = 32, .repeats = 3};
    const char *args[GEUL_ARGS_MAX];
    int n_args, code;
    if (!geul_options_parse(&help, argc, argv, &s, args, &n_args, &code))
        return code;
    if ((s.model.path != NULL) == (s.synthetic != NULL))
        return geul_report_usage("either -m FILE or --synthetic SIZE:TYPE is needed");
    if (s.n_prompt + s.n_generate == 0)
        return geul_report_usage("-p 0 -n 0 leaves nothing to measure");
    geul_interrupt_catch(1);
    char *path = s.synthetic ? synthetic_path(s.synthetic, &code) : NULL;
    if (s.synthetic && !path)
        return code;
    code = bench(&s, path ? path : s.model.path);
    free(path);
    return code;
}
