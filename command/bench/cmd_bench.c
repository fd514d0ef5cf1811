/* cmd_bench.c: `geul bench` measures a model and compares it with the machine's own ceilings. */
#include "command/bench/bench_measure.h"
#include "command/command.h"
#include "command/fit_report.h"
#include "command/paths.h"
#include "command/progress.h"
#include "command/report.h"
#include "command/bench/synth.h"
#include "command/line/cluster.h"
#include "command/terminal.h"

#include "core/bytes.h"
#include "core/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MODELS_MAX = 2 * GEUL_TEXT_LIST_MAX };

struct settings {
    struct geul_model_args model;
    struct geul_text_list files, synthetic, prompts, generates, depths, parallels, threads;
    const char *form; /* one of forms */
    int repetitions;
    bool json, csv, step;
};

static const char *const forms[] = {"table", "md", "csv", "json", "jsonl", NULL}; /* enum form */
enum form { TABLE, MARKDOWN, CSV, JSON, JSON_LINES };

#define SETTINGS struct settings
/* clang-format off */
static const struct geul_option options[] = {
    OPTION_PATHS( "-m, --model",              files,              "FILE", FILE,
                  "a model, a GGUF file; may be given several times"),
    OPTION_GROUP(model.adapters, geul_lora_option_rows),
    OPTION_LIST(  "--synthetic",              synthetic,          "SIZE:TYPE,...",
                  "random weights instead (see `geul synth --help`), kept in $GEUL_CACHE or ~/.cache/geul for the "
                  "next time"),
    OPTION_LIST(  "-p, --n-prompt",           prompts,            "N,...",
                  "tokens of the prompt, 0: none (default 256)"),
    OPTION_LIST(  "-n, --n-gen",              generates,          "N,...", "tokens to generate, 0: none (default 32)"),
    OPTION_LIST(  "-d, --n-depth",            depths,             "N,...",
                  "tokens in the cache before the prompt or the generation (default 0)"),
    OPTION_LIST(  "-np, --parallel",          parallels,          "N,...",
                  "sequences that generate at once (default 1); the figure is that of all together"),
    OPTION_LIST(  "-t, --threads",            threads,            "N,...", "threads, 0: one per core (default 0)"),
    OPTION_INT(   "-r, --repetitions",        repetitions,        1, GEUL_BENCH_REPETITIONS_MAX,
                  "repeats of each test, after a warm-up"),
    OPTION_INT(   "-c, --ctx-size",           model.n_context,    0, 1 << 24,
                  "positions of the cache, 0: as many as needed"),
    OPTION_INT(   "-b, --batch-size, -ub, --ubatch-size", model.n_batch,      1, 1 << 16,
                  "most prompt tokens computed at once"),
    OPTION_CHOICE(GEUL_CACHE_TYPE_NAMES,      model.cache_type,   "TYPE", geul_cache_types, GEUL_CACHE_TYPE_HELP),
    OPTION_GROUP(model.where, geul_device_options),
    OPTION_FLAG(  "--fit",                    model.fit,          GEUL_FIT_HELP),
    OPTION_CHOICE("-o, --output",             form,               "FORM", forms,
                  "table, md (Markdown), csv, json, or jsonl (a line per test)"),
    OPTION_FLAG(  "--json",                   json,               "-o json: every figure as JSON"),
    OPTION_FLAG(  "--csv",                    csv,
                  "-o csv: a header line and a line of figures per test"),
    OPTION_FLAG(  "--step",                   step,
                  "waits for a line on standard input before each repetition and prints each as a line of JSON, so "
                  "that another program can be measured in turn"),
    OPTION_END,
};
/* clang-format on */

static const struct geul_command_help help = {
    .name = "bench",
    .usage = "-m FILE | --synthetic SIZE:TYPE [options]",
    .summary = "measure speed and memory beside the machine's own ceilings",
    .about =
        "Lists are separated by commas, or the option is given several times; every combination is a line of the "
        "table: pp256 is a prompt of 256 tokens, tg32 a text of 32, x4 for 4 sequences at once, @ d500 behind 500 "
        "tokens. The ceilings are measured before and after each repetition with the same threads: how fast memory "
        "can be read, and how many multiply-adds the instructions in use can do. The share compares with the speed at "
        "which the multiply-adds of the weights, or reading the cache and all weights once per step, would take all of "
        "the time. Where a model lies on several devices, each one's part counts by its own ceilings. Speeds are "
        "medians "
        "with their extremes.",
    .example = "geul bench --synthetic 1.3b:q4_k_m,1.3b:q8_0 -p 256,2048 -n 32 -d 0,2000\n"
               "geul bench -m polyglot.gguf -p 0 -n 32 --parallel 1,2,4,8,16 -t 1,2 --csv",
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
        *code = *geul_error(ctx) ? 1 : 2; /* without a failure in ctx it was the word that is wrong */
        geul_report_context_free(ctx);
        return NULL;
    }
    snprintf(name, sizeof name, "synthetic-%s.gguf", synth.label);
    path = geul_path_cache(ctx, name);
    /* A file of that name from an older geul, or a damaged one, is not trusted but made again. */
    struct geul_gguf *g = path && geul_os_exists(path) ? geul_gguf_open(ctx, path) : NULL;
    bool fits = g && geul_synth_fits(ctx, &synth, g);
    geul_gguf_close(g);
    if (path && !fits) {
        geul_os_forget_input(ctx, path);
        geul_error_clear(ctx);
        geul_report_note("making %s", path);
        *code = geul_synth_write(ctx, &synth, 0, path) == GEUL_OK ? 0 : geul_report_failure(ctx);
    } else {
        *code = path ? 0 : geul_report_failure(ctx);
    }
    geul_report_context_free(ctx);
    if (*code != 0) {
        free(path);
        return NULL;
    }
    return path;
}

/* ----------------------------------------------------------------------------------- figures -- */

enum kind { TEXT, INT, BYTES, REAL };

/* Every figure of a cell: its name in JSON and CSV, and its offset. */
#define CELL(name) offsetof(struct geul_bench_cell, name)
static const struct column {
    const char *name;
    enum kind kind;
    size_t offset;
} columns[] = {
    {"model", TEXT, CELL(model)},
    {"types", TEXT, CELL(types)},
    {"test", TEXT, CELL(test)},
    {"n_threads", INT, CELL(n_threads)},
    {"n_batch", INT, CELL(n_batch)},
    {"cache_type", TEXT, CELL(cache_type)},
    {"devices", TEXT, CELL(devices)},
    {"n_gpu_layers", INT, CELL(n_gpu_layers)},
    {"n_prompt", INT, CELL(n_prompt)},
    {"n_generate", INT, CELL(n_generate)},
    {"depth", INT, CELL(depth)},
    {"parallel", INT, CELL(parallel)},
    {"repetitions", INT, CELL(repetitions)},
    {"tokens_per_s", REAL, CELL(tps)},
    {"tokens_per_s_low", REAL, CELL(tps_low)},
    {"tokens_per_s_high", REAL, CELL(tps_high)},
    {"share", REAL, CELL(share)},
    {"bound", TEXT, CELL(bound)},
    {"ceiling_tokens_per_s", REAL, CELL(ceiling_tps)},
    {"ceiling_read_bytes_per_s", REAL, CELL(ceilings.read_bytes_per_s)},
    {"ceiling_int8_macs_per_s", REAL, CELL(ceilings.int8_macs_per_s)},
    {"ceiling_bf16_macs_per_s", REAL, CELL(ceilings.bf16_macs_per_s)},
    {"ceiling_f32_macs_per_s", REAL, CELL(ceilings.f32_macs_per_s)},
    {"macs", REAL, CELL(macs)},
    {"bytes_read", REAL, CELL(bytes)},
    {"load_seconds", REAL, CELL(load_seconds)},
    {"file_bytes", BYTES, CELL(file_bytes)},
    {"kv_cache_bytes", BYTES, CELL(kv_cache_bytes)},
    {"peak_rss_bytes", BYTES, CELL(peak_rss_bytes)},
    {"peak_over_bytes", BYTES, CELL(peak_over_bytes)},
};
enum { N_COLUMNS = sizeof columns / sizeof *columns };

static json_t *json_value(const struct column *column, const void *field)
{
    switch (column->kind) {
    case TEXT:
        return geul_report_json_name(*(const char *const *)field);
    case INT:
        return json_integer(*(const int *)field);
    case BYTES:
        return json_integer(*(const int64_t *)field);
    default:
        return geul_report_json_real(*(const double *)field);
    }
}

static json_t *json_cell(const struct geul_bench_cell *c)
{
    json_t *json = json_object();
    for (int i = 0; i < N_COLUMNS; i++)
        json_object_set_new(json, columns[i].name, json_value(&columns[i], (const char *)c + columns[i].offset));
    return json;
}

/* A field of a CSV line; quotation marks inside of a text are doubled. */
static void print_csv_value(const struct column *column, const void *field)
{
    switch (column->kind) {
    case TEXT:
        putchar('"');
        for (const char *s = *(const char *const *)field; *s; s++)
            printf(*s == '"' ? "\"\"" : "%c", *s);
        putchar('"');
        break;
    case INT:
        printf("%d", *(const int *)field);
        break;
    case BYTES:
        printf("%lld", (long long)*(const int64_t *)field);
        break;
    default:
        printf("%.6g", *(const double *)field);
    }
}

/* What is printed, and what was so far. */
struct output {
    enum form form;
    json_t *cells;                            /* of JSON */
    int name_width, test_width, n;            /* of the longest file name and test, in columns; cells so far */
    double read[2], int8[2], bf16[2], f32[2]; /* lowest and highest ceilings */
};

static bool print_csv(struct output *o, const struct geul_bench_cell *c)
{
    for (int i = 0; o->n == 0 && i < N_COLUMNS; i++)
        printf("%s%s", columns[i].name, i + 1 < N_COLUMNS ? "," : "\n");
    for (int i = 0; i < N_COLUMNS; i++) {
        print_csv_value(&columns[i], (const char *)c + columns[i].offset);
        putchar(i + 1 < N_COLUMNS ? ',' : '\n');
    }
    return geul_report_text("", 0);
}

static const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static void widen(double range[2], double v, bool first)
{
    range[0] = first || v < range[0] ? v : range[0];
    range[1] = first || v > range[1] ? v : range[1];
}

/* "123.4 (120.1 to 125.9)": to about four digits, as machines repeat them no better. */
static void speed_text(const struct geul_bench_cell *c, char *text, size_t size)
{
    int digits = c->tps >= 1000 ? 0 : c->tps >= 100 ? 1 : 2;
    snprintf(text, size, "%.*f (%.*f to %.*f)", digits, c->tps, digits, c->tps_low, digits, c->tps_high);
}

static bool print_row(struct output *o, const struct geul_bench_cell *c)
{
    char size[32], speed[96];
    const char *name = file_name(c->model);
    if (o->n == 0)
        printf("%-*s %9s %-15s %-11s %7s  %-*s %27s  %-15s %9s\n", o->name_width, "model", "size", "types", "devices",
               "threads", o->test_width, "test", "tokens/s (low to high)", "share of", "over MiB");
    speed_text(c, speed, sizeof speed);
    printf("%s%*s %9s %-15s %-11s %7d  %-*s %27s  %5.1f %% %-7s %9.0f\n", name,
           o->name_width - geul_cluster_columns(name, strlen(name)), "",
           geul_bytes_text((uint64_t)c->file_bytes, size, sizeof size), c->types, c->devices, c->n_threads,
           o->test_width, c->test, speed, 100 * c->share, c->bound, (double)c->peak_over_bytes / 0x1p20);
    return geul_report_text("", 0);
}

static bool print_markdown(const struct output *o, const struct geul_bench_cell *c)
{
    char size[32], speed[96];
    if (o->n == 0)
        printf("| model | size | types | devices | threads | test | tokens/s (low to high) | share of | over MiB |\n"
               "| --- | --: | --- | --- | --: | --- | --: | --- | --: |\n");
    speed_text(c, speed, sizeof speed);
    printf("| ");
    for (const char *s = file_name(c->model); *s; s++)
        printf(*s == '|' ? "\\|" : "%c", *s);
    printf(" | %s | %s | %s | %d | %s | %s | %.1f %% %s | %.0f |\n",
           geul_bytes_text((uint64_t)c->file_bytes, size, sizeof size), c->types, c->devices, c->n_threads, c->test,
           speed, 100 * c->share, c->bound, (double)c->peak_over_bytes / 0x1p20);
    return geul_report_text("", 0);
}

static void note_ceilings(struct output *o, const struct geul_bench_cell *c)
{
    bool first = o->n == 0;
    widen(o->read, c->ceilings.read_bytes_per_s * 1e-9, first);
    widen(o->int8, c->ceilings.int8_macs_per_s * 1e-9, first);
    widen(o->bf16, c->ceilings.bf16_macs_per_s * 1e-9, first);
    widen(o->f32, c->ceilings.f32_macs_per_s * 1e-9, first);
}

static bool print_cell(void *user, const struct geul_bench_cell *c)
{
    struct output *o = user;
    bool ok = true;
    geul_progress_hide();
    note_ceilings(o, c);
    switch (o->form) {
    case TABLE:
        ok = print_row(o, c);
        break;
    case MARKDOWN:
        ok = print_markdown(o, c);
        break;
    case CSV:
        ok = print_csv(o, c);
        break;
    case JSON:
        json_array_append_new(o->cells, json_cell(c));
        break;
    case JSON_LINES:
        ok = geul_report_json_line(json_cell(c)) == 0 && geul_report_text("", 0);
    }
    o->n++;
    return ok;
}

/* Waits for a line on stdin. false at its end. */
static bool wait_for_line(void *user)
{
    (void)user;
    int c;
    while ((c = getchar()) != EOF && c != '\n')
        ;
    return c == '\n';
}

static void print_end(const struct output *o)
{
    if (o->n == 0)
        return;
    printf("\nover MiB: peak memory less file and cache; ceilings: memory %.1f to %.1f GB/s; G multiply-adds/s:"
           " int8 %.0f to %.0f, bf16 %.0f to %.0f, f32 %.0f to %.0f\n",
           o->read[0], o->read[1], o->int8[0], o->int8[1], o->bf16[0], o->bf16[1], o->f32[0], o->f32[1]);
}

/* ----------------------------------------------------------------------------------- command -- */

/* The whole numbers of a list option, or the default. Returns 0, or 2 after a message. */
static int parse_list(const char *name, const struct geul_text_list *texts, int fallback, int low, int high,
                      struct geul_bench_list *out)
{
    *out = (struct geul_bench_list){.v = {fallback}, .n = texts->n == 0};
    for (int i = 0; i < texts->n; i++)
        for (const char *at = texts->items[i];; at++) {
            char *end;
            long v = strtol(at, &end, 10);
            if (end == at || (*end && *end != ',') || v < low || v > high)
                return geul_report_usage("%s: \"%s\" is not a list of whole numbers from %d to %d", name,
                                         texts->items[i], low, high);
            if (out->n == GEUL_BENCH_LIST_MAX)
                return geul_report_usage("%s: at most %d values are possible", name, GEUL_BENCH_LIST_MAX);
            out->v[out->n++] = (int)v;
            at = end;
            if (!*at)
                break;
        }
    return 0;
}

static int parse_sweep(const struct settings *s, struct geul_bench_sweep *sweep)
{
    int code = parse_list("-p", &s->prompts, 256, 0, 1 << 20, &sweep->prompts);
    if (code == 0)
        code = parse_list("-n", &s->generates, 32, 0, 1 << 20, &sweep->generates);
    if (code == 0)
        code = parse_list("-d", &s->depths, 0, 0, 1 << 20, &sweep->depths);
    if (code == 0)
        code = parse_list("--parallel", &s->parallels, 1, 1, 1024, &sweep->parallels);
    if (code == 0)
        code = parse_list("-t", &s->threads, 0, 0, 1024, &sweep->threads);
    bool nothing = true;
    for (int i = 0; i < sweep->prompts.n; i++)
        nothing = nothing && sweep->prompts.v[i] == 0;
    for (int i = 0; i < sweep->generates.n; i++)
        nothing = nothing && sweep->generates.v[i] == 0;
    if (code == 0 && nothing)
        return geul_report_usage("-p 0 -n 0 leaves nothing to measure");
    return code;
}

/* The paths of all models, those of synthetic ones made when missing. All are allocated, also after a failure. */
static int find_models(const struct settings *s, char *paths[MODELS_MAX], int *n)
{
    int code = 0;
    *n = 0;
    for (int i = 0; i < s->files.n && code == 0; i++) {
        paths[*n] = strdup(s->files.items[i]);
        code = paths[*n] ? 0 : geul_report_error("out of memory");
        *n += code == 0;
    }
    for (int i = 0; i < s->synthetic.n; i++)
        for (const char *at = s->synthetic.items[i]; code == 0;) {
            char what[1024];
            size_t length = strcspn(at, ",");
            snprintf(what, sizeof what, "%.*s", (int)length, at);
            if (*n == MODELS_MAX)
                return geul_report_usage("at most %d models are possible", MODELS_MAX);
            paths[*n] = synthetic_path(what, &code);
            *n += code == 0;
            at += length;
            if (!*at)
                break;
            at++;
        }
    return code;
}

/* The form of output; --step has its own. */
static enum form form_of(const struct settings *s)
{
    if (s->step)
        return JSON_LINES;
    if (s->json || s->csv)
        return s->json ? JSON : CSV;
    enum form form = TABLE;
    while (s->form && strcmp(forms[form], s->form) != 0)
        form++;
    return form;
}

static int largest(const struct geul_bench_list *list)
{
    int most = 0;
    for (int i = 0; i < list->n; i++)
        most = list->v[i] > most ? list->v[i] : most;
    return most;
}

/* Columns of the longest name of a test, as bench_measure.c builds them: "pp2048 x16 @ d4000". */
static int test_width(const struct geul_bench_sweep *s)
{
    int prompt = largest(&s->prompts), generate = largest(&s->generates), most = prompt > generate ? prompt : generate;
    int n = snprintf(NULL, 0, "pp%d", most), parallel = largest(&s->parallels), depth = largest(&s->depths);
    n += parallel > 1 ? snprintf(NULL, 0, " x%d", parallel) : 0;
    return n + (depth > 0 ? snprintf(NULL, 0, " @ d%d", depth) : 0);
}

/* Measures all models and prints. Returns the exit code. */
static int bench(struct settings *s, struct geul_bench_sweep *sweep, char *const *paths, int n)
{
    struct output o = {.form = form_of(s), .name_width = 5, .test_width = test_width(sweep)};
    int code = 0;
    sweep->user = &o;
    sweep->cell = print_cell;
    sweep->turn = s->step ? wait_for_line : NULL;
    sweep->repetitions = s->repetitions;
    sweep->seed = 1;
    o.cells = o.form == JSON ? json_array() : NULL;
    for (int i = 0; i < n; i++) {
        const char *name = file_name(paths[i]);
        int width = geul_cluster_columns(name, strlen(name));
        o.name_width = width > o.name_width ? width : o.name_width;
    }
    for (int i = 0; i < n && code == 0; i++) {
        s->model.path = paths[i];
        code = geul_bench_measure(&s->model, sweep);
    }
    if (code == 0 && o.form == JSON)
        return geul_report_json(json_pack("{s:o}", "cells", o.cells));
    json_decref(o.cells);
    if (code == 0 && (o.form == TABLE || o.form == MARKDOWN))
        print_end(&o);
    return code;
}

/* Prints the plans of all models, each for its largest session. Returns the exit code. */
static int print_fits(struct settings *s, const struct geul_bench_sweep *sweep, char *const *paths, int n)
{
    json_t *list = form_of(s) == JSON ? json_array() : NULL;
    int code = 0;
    s->model.n_threads = sweep->threads.v[0];
    geul_bench_largest(&s->model, sweep);
    for (int i = 0; i < n && code <= 1; i++) {
        s->model.path = paths[i];
        if (i > 0 && !list)
            putchar('\n');
        int one = geul_fit_report(&s->model, sweep->depths.v, sweep->depths.n, list);
        code = one > code ? one : code;
    }
    if (!list)
        return code;
    geul_report_json(json_pack("{s:o}", "fits", list));
    return code;
}

int geul_cmd_bench(int argc, char **argv)
{
    struct settings s = {.model = GEUL_MODEL_ARGS_DEFAULT, .repetitions = 5};
    struct geul_bench_sweep sweep = {.seed = 1};
    const char *args[GEUL_ARGS_MAX];
    char *paths[MODELS_MAX];
    int n_args, code, n = 0;
    if (!geul_options_parse(&help, argc, argv, &s, args, &n_args, &code))
        return code;
    if (s.files.n + s.synthetic.n == 0)
        return geul_report_usage("-m FILE or --synthetic SIZE:TYPE is needed");
    if (s.csv && (s.json || s.step))
        return geul_report_usage("--csv and --%s are two forms of output; give one", s.json ? "json" : "step");
    if (s.form && (s.csv || s.json || s.step))
        return geul_report_usage("-o and --%s are two forms of output; give one", s.csv    ? "csv"
                                                                                  : s.json ? "json"
                                                                                           : "step");
    code = parse_sweep(&s, &sweep);
    if (code != 0)
        return code;
    geul_interrupt_catch(1);
    geul_terminate_catch();
    code = find_models(&s, paths, &n);
    if (code == 0)
        code = s.model.fit ? print_fits(&s, &sweep, paths, n) : bench(&s, &sweep, paths, n);
    for (int i = 0; i < n; i++)
        free(paths[i]);
    return code;
}
