/* cmd_finetune.c: `geul finetune` teaches a model from questions and answers or texts: an adapter, or all weights. */
#include "examples/geul/command.h"
#include "examples/geul/model_args.h"
#include "examples/geul/preview.h"
#include "examples/geul/progress.h"
#include "examples/geul/report.h"
#include "examples/geul/row_notes.h"
#include "examples/geul/terminal.h"
#include "examples/geul/training.h"

#include "data/samples.h"

#include <stdio.h>
#include <string.h>

struct settings {
    struct geul_train_args train;
    const char *model, *template_name, *mask_prompt, *too_long, *targets, *type;
    struct geul_text_list files, held_out_files;
    float held_out, alpha, dropout;
    int rank;
    bool full, rslora;
};

static const char *const switches[] = {"on", "off", NULL};
static const char *const too_longs[] = {"truncate", "skip", "refuse", NULL}; /* enum geul_samples_long */
static const char *const types[] = {"f32", "f16", "bf16", NULL};

#define FIELD(name) offsetof(struct settings, name)
static const struct geul_option options[] = {
    {.kind = GEUL_OPTION_TEXT,
     .names = "-m, --model",
     .value = "FILE",
     .offset = FIELD(model),
     .help = "the model to begin with, of any type; it is not changed",
     .required = true},
    {.kind = GEUL_OPTION_LIST,
     .names = "--train-file",
     .value = "FILE",
     .offset = FIELD(files),
     .help = "JSON Lines of questions and answers, conversations or texts, a .txt, or a .geulshard",
     .required = true},
    {GEUL_OPTION_LIST, "--eval-file", "FILE", FIELD(held_out_files), "the same, to measure by and not to learn from", 0,
     0, NULL, NULL, false},
    {GEUL_OPTION_REAL, "--held-out", "X", FIELD(held_out), "share of the training rows that is measured by instead", 0,
     0.5, NULL, NULL, false},
    {GEUL_OPTION_TEXT, "--template", "NAME", FIELD(template_name),
     "koalpaca, kullm, kgoat, a file, none, or auto: the model's own", 0, 0, NULL, NULL, false},
    {GEUL_OPTION_CHOICE, "--mask-prompt", "on|off", FIELD(mask_prompt), "on: only answers are learned", 0, 0, switches,
     NULL, false},
    {GEUL_OPTION_CHOICE, "--too-long", "WHAT", FIELD(too_long), "conversations longer than -c", 0, 0, too_longs, NULL,
     false},
    {GEUL_OPTION_FLAG, "--full", NULL, FIELD(full), "trains all weights instead of an adapter", 0, 0, NULL, NULL,
     false},
    {GEUL_OPTION_INT, "-r, --rank, --lora-rank", "N", FIELD(rank), "of the adapter", 1, 4096, NULL, NULL, false},
    {GEUL_OPTION_REAL, "--lora-alpha", "X", FIELD(alpha), "its scale times the rank, 0: twice the rank", 0, 1e6, NULL,
     NULL, false},
    {GEUL_OPTION_REAL, "--lora-dropout", "X", FIELD(dropout), "of what enters it", 0, 0.9, NULL, NULL, false},
    {GEUL_OPTION_FLAG, "--rslora", NULL, FIELD(rslora), "scale alpha / sqrt(rank) instead of alpha / rank", 0, 0, NULL,
     NULL, false},
    {GEUL_OPTION_TEXT, "--lora-targets", "LIST", FIELD(targets), "which products: qkv,out,up,down", 0, 0, NULL, NULL,
     false},
    {GEUL_OPTION_CHOICE, "--type", "TYPE", FIELD(type), "with --full: of the result's matrices", 0, 0, types, NULL,
     false},
    {.kind = GEUL_OPTION_GROUP, .offset = FIELD(train), .group = geul_train_option_rows},
    {.kind = GEUL_OPTION_END},
};

static const struct geul_command_help help = {
    .name = "finetune",
    .usage = "-m FILE --train-file FILE -o DIR [options]",
    .summary = "teach a model: adapters (LoRA, QLoRA) or all weights",
    .about =
        "Trains a low-rank adapter beside a model that stays as it is, quantized or not, or with --full all weights. "
        "Rows are {\"instruction\", \"input\", \"output\"}, {\"question\", \"answer\"}, {\"messages\"}, "
        "{\"prompt\", \"completion\"} or {\"text\"}; only answers and the <|endoftext|> behind each are learned. "
        "DIR gets checkpoints, log.csv, log.jsonl, TensorBoard's events, report.html, the best state and the result: "
        "adapter.gguf for --lora and adapter/ for PEFT, or model.gguf. The run can be stopped at any time and goes on "
        "with --resume, bit for bit as if it had not been.",
    .example = "geul finetune -m polyglot-ko-1.3b-q4_k_m.gguf --train-file koalpaca.jsonl --template koalpaca -o run\n"
               "geul finetune -m polyglot-ko-1.3b-q4_k_m.gguf --train-file koalpaca.jsonl -c 512 -o run --plan\n"
               "geul chat -m polyglot-ko-1.3b-q4_k_m.gguf --lora run/adapter.gguf",
    .options = options,
};

/* "qkv,out" as bits; 0 after a message. HF's names of the layers are taken too. */
static unsigned parse_targets(const char *list)
{
    static const struct {
        const char *name;
        unsigned bit;
    } names[] = {{"qkv", GEUL_LORA_QKV},   {"query_key_value", GEUL_LORA_QKV},
                 {"out", GEUL_LORA_OUT},   {"dense", GEUL_LORA_OUT},
                 {"up", GEUL_LORA_UP},     {"dense_h_to_4h", GEUL_LORA_UP},
                 {"down", GEUL_LORA_DOWN}, {"dense_4h_to_h", GEUL_LORA_DOWN},
                 {"all", GEUL_LORA_ALL}};
    unsigned bits = 0;
    for (const char *at = list; *at;) {
        size_t n = strcspn(at, ","), i = 0;
        while (i < sizeof names / sizeof *names && (strlen(names[i].name) != n || memcmp(names[i].name, at, n) != 0))
            i++;
        if (i == sizeof names / sizeof *names) {
            geul_report_usage("--lora-targets: \"%.*s\" is none of qkv, out, up, down", (int)n, at);
            return 0;
        }
        bits |= names[i].bit;
        at += n + (at[n] == ',');
    }
    if (!bits)
        geul_report_usage("--lora-targets names no target");
    return bits;
}

/* Fills the library's options; false after a message. */
static bool make_options(const struct settings *s, struct geul_train_options *o)
{
    *o = geul_train_args_options(&s->train);
    o->model_path = s->model;
    o->regex = geul_regex();
    if (s->train.rate == 0)
        o->rate = s->full ? 2e-5f : 2e-4f;
    if (s->full)
        return true;
    o->lora = (struct geul_lora_options){.rank = s->rank,
                                         .alpha = s->alpha > 0 ? s->alpha : 2 * (float)s->rank,
                                         .dropout = s->dropout,
                                         .rslora = s->rslora,
                                         .targets = parse_targets(s->targets)};
    if (s->train.weight_decay < 0)
        o->weight_decay = 0;
    return o->lora.targets != 0;
}

/* ------------------------------------------------------------------------------------------------------------ data --
 */

/* What the run reads. */
struct data {
    struct geul_context *ctx;
    struct geul_model *model; /* for its tokenizer and template */
    struct geul_template *t;
    struct geul_samples train, held_out;
    char names[512];
};

static bool is_shard(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot && strcmp(dot, ".geulshard") == 0;
}

static enum geul_samples_long too_long_of(const char *name)
{
    int i = 0;
    while (strcmp(too_longs[i], name) != 0)
        i++;
    return (enum geul_samples_long)i;
}

/* Reads files: shards are mapped, the others read as rows. */
static enum geul_status read_files(struct data *d, const struct settings *s, const struct geul_text_list *files,
                                   int n_context, float held_out, struct geul_samples *out)
{
    const char *rows[GEUL_TEXT_LIST_MAX];
    int n_rows = 0;
    for (int i = 0; i < files->n; i++)
        if (!is_shard(files->items[i]))
            rows[n_rows++] = files->items[i];
    struct geul_samples_options how = {.t = d->t,
                                       .whole = strcmp(s->mask_prompt, "off") == 0,
                                       .n_context = n_context,
                                       .too_long = too_long_of(s->too_long),
                                       .held_out = (double)held_out,
                                       .seed = s->train.seed.value,
                                       .on_progress = geul_progress_callback};
    enum geul_status status = GEUL_OK;
    geul_progress_begin("reading", NULL);
    if (n_rows > 0)
        status = geul_samples_read(d->ctx, geul_model_get_tokenizer(d->model), rows, n_rows, &how, out);
    else if (!(out->train = geul_dataset_new(d->ctx)))
        status = GEUL_ERROR_MEMORY;
    geul_progress_hide();
    for (int i = 0; status == GEUL_OK && i < files->n; i++)
        if (is_shard(files->items[i]))
            status = geul_dataset_add_shard(out->train, files->items[i], n_context);
    geul_row_notes_print(&out->problems);
    return status;
}

/* Says what was read. */
static void tell_data(const struct data *d, const struct geul_samples *s, const char *what)
{
    const struct geul_samples_report *r = &s->report;
    (void)d;
    if (!s->train)
        return;
    fprintf(stderr, "%s: %lld samples, %lld tokens, of which %lld are learned\n", what,
            (long long)geul_dataset_samples(s->train), (long long)geul_dataset_tokens(s->train),
            (long long)geul_dataset_targets(s->train));
    if (r->too_long > 0)
        geul_report_note("%lld rows are longer than the context (the first is %s:%lld; the longest has %lld tokens); "
                         "see -c and --too-long",
                         (long long)r->too_long, r->n_long_lines ? r->long_paths[0] : "?",
                         (long long)(r->n_long_lines ? r->long_lines[0] : 0), (long long)r->longest);
    if (r->joined_input > 0)
        geul_report_note("%lld inputs were joined to their questions: the template has no place for them",
                         (long long)r->joined_input);
}

static enum geul_status read_data(struct data *d, const struct settings *s, int n_context)
{
    size_t used = 0;
    for (int i = 0; i < s->files.n && used < sizeof d->names - 1; i++)
        used += (size_t)snprintf(d->names + used, sizeof d->names - used, "%s%s", i ? ", " : "", s->files.items[i]);
    enum geul_status status = read_files(d, s, &s->files, n_context, s->held_out, &d->train);
    if (status == GEUL_OK && s->held_out_files.n > 0)
        status = read_files(d, s, &s->held_out_files, n_context, 0, &d->held_out);
    if (status != GEUL_OK)
        return status;
    tell_data(d, &d->train, "training");
    tell_data(d, &d->held_out, "evaluation");
    if (!d->held_out.train && d->train.held_out && geul_dataset_samples(d->train.held_out) > 0)
        fprintf(stderr, "held out: %lld samples\n", (long long)geul_dataset_samples(d->train.held_out));
    return GEUL_OK;
}

static void data_free(struct data *d)
{
    geul_samples_free(d->ctx, &d->train);
    geul_samples_free(d->ctx, &d->held_out);
    geul_template_free(d->t);
    geul_model_free(d->model);
    geul_context_free(d->ctx);
}

/* ----------------------------------------------------------------------------------------------------------- whole --
 */

/* Opens the model for its tokenizer, template and context. false after a message. */
static bool open_model(struct data *d, const struct settings *s)
{
    struct geul_model_options how = {.n_threads = s->train.n_threads, .regex = geul_regex()};
    d->ctx = geul_report_context(s->train.verbose);
    if (!d->ctx)
        return false;
    d->model = geul_model_load(d->ctx, s->model, &how);
    if (d->model && !geul_model_get_tokenizer(d->model))
        geul_fail(d->ctx, GEUL_ERROR_FORMAT, "%s has no tokenizer; it knows only token ids", s->model);
    if (!d->model || !geul_model_get_tokenizer(d->model)) {
        geul_report_failure(d->ctx);
        return false;
    }
    return strcmp(s->template_name, "none") == 0 || geul_template_open(d->ctx, d->model, s->template_name, &d->t);
}

static int work(struct data *d, const struct settings *s, struct geul_train_options *o)
{
    char title[256];
    o->n_context = o->n_context ? o->n_context : geul_model_get_shape(d->model)->n_context;
    if (read_data(d, s, o->n_context) != GEUL_OK)
        return geul_report_failure(d->ctx);
    const struct geul_tokenizer *tok = geul_model_get_tokenizer(d->model);
    if (s->train.preview > 0)
        return geul_preview_print(stdout, tok, d->train.train, s->train.preview, geul_terminal_on_stderr()) ? 0 : 1;
    snprintf(title, sizeof title, "finetune %.200s", s->model);
    struct geul_training job = {.ctx = d->ctx,
                                .args = &s->train,
                                .options = *o,
                                .title = title,
                                .train = d->train.train,
                                .held_out = d->held_out.train ? d->held_out.train : d->train.held_out,
                                .data_name = d->names,
                                .type = geul_type_from_name(s->type)};
    return geul_training_run(&job);
}

int geul_cmd_finetune(int argc, char **argv)
{
    struct settings s = {.train = GEUL_TRAIN_ARGS_DEFAULT,
                         .template_name = "auto",
                         .mask_prompt = "on",
                         .too_long = "truncate",
                         .targets = "qkv,out,up,down",
                         .type = "f16",
                         .held_out = 0.02f,
                         .rank = 8};
    struct geul_train_options o;
    struct data d = {.ctx = NULL};
    const char *args[GEUL_ARGS_MAX];
    int n_args, code;
    if (!geul_options_parse(&help, argc, argv, &s, args, &n_args, &code))
        return code;
    if (!make_options(&s, &o))
        return 2;
    geul_interrupt_catch(1);
    code = open_model(&d, &s) ? work(&d, &s, &o) : 1;
    data_free(&d);
    return code;
}
