/* training_data.c: see training_data.h. */
#include "command/learn/training_data.h"

#include "command/model_args.h"
#include "command/learn/adapter_source.h"
#include "command/learn/preview.h"
#include "command/progress.h"
#include "command/report.h"
#include "command/row_notes.h"
#include "command/terminal.h"
#include "command/text_input.h"
#include "command/learn/training.h"
#include "command/learn/training_choice.h"

#include "geul_tools.h"

#include <stdio.h>
#include <string.h>

enum { LEAST_ROWS = 100 }; /* of which some are held out without being asked */

static const char *const switches[] = {"on", "off", NULL};
static const char *const too_longs[] = {"truncate", "skip", "refuse", NULL}; /* enum geul_samples_long */

#define SETTINGS struct geul_data_args
/* clang-format off */
const struct geul_option geul_data_option_rows[] = {
    OPTION_PATHS( "--train-file",  files,          "FILE", FILE,
                  "questions and answers, conversations or texts: JSON Lines or an array, .csv, .tsv, .txt, .geulshard"),
    OPTION_PATHS( "--eval-file",   held_out_files, "FILE", FILE, "the same, for evaluation only"),
    OPTION_REAL(  "--held-out",    held_out,       -1, 0.5,
                  "share of the training rows to hold out for evaluation when no --eval-file is given; -1: 0.02, "
                  "nothing of fewer than 100 rows"),
    OPTION_PATH(  "--template",    template_name,  "NAME", NAME_OR_FILE,
                  "koalpaca, kullm, kgoat, a file, none, or auto: the model's own"),
    OPTION_CHOICE("--mask-prompt", mask_prompt,    "on|off", switches, "on: only answers are learned"),
    OPTION_CHOICE("--too-long",    too_long,       "WHAT", too_longs, "what to do with conversations longer than -c"),
    GEUL_ENCODING_OPTION,
    GEUL_NFC_OPTION("rows"),
    OPTION_END,
};
/* clang-format on */

/* -------------------------------------------------------------------------------------- data -- */

/* What was read of a list of files. */
struct files {
    struct geul_dataset *samples; /* NULL: no files were given */
    struct geul_samples_report report;
};

/* What the run reads. */
struct data {
    struct geul_context *ctx;
    const struct geul_data_args *args;
    int n_context;
    uint64_t seed;
    bool preview;             /* which form each file has is shown too */
    struct geul_model *model; /* for its tokenizer and template */
    struct geul_template *t;
    struct files train, measured;  /* measured: of --eval-file */
    struct geul_dataset *held_out; /* rows of the training files that are kept for evaluation */
    char names[512];
};

/* Tokens of the longest sample of d (NULL: none), or least. */
static int longest_of(const struct geul_dataset *d, int least)
{
    for (int64_t i = 0; d && i < geul_dataset_sample_count(d); i++) {
        int n = geul_dataset_length(d, i);
        least = n > least ? n : least;
    }
    return least;
}

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

/* Reads files: shards are mapped, the others are read as rows, of which a share goes to held_out. All rows are read in
 * one call, so the same seed holds out the same rows whatever shards there are beside them. */
static enum geul_status read_files(struct data *d, const struct geul_text_list *files, float share,
                                   struct geul_dataset *held_out, struct files *out)
{
    const char *rows[GEUL_TEXT_LIST_MAX];
    int n_rows = 0;
    for (int i = 0; i < files->n; i++)
        if (!is_shard(files->items[i]))
            rows[n_rows++] = files->items[i];
    struct geul_row_problems *problems = geul_row_problems_new(d->ctx);
    out->samples = geul_dataset_new(d->ctx);
    out->report.size = sizeof out->report;
    if (!problems || !out->samples) {
        geul_row_problems_free(problems);
        return GEUL_ERROR_MEMORY;
    }
    struct geul_samples_options how = {.size = sizeof how,
                                       .prompt_template = d->t,
                                       .whole = strcmp(d->args->mask_prompt, "off") == 0,
                                       .n_context = d->n_context,
                                       .too_long = too_long_of(d->args->too_long),
                                       .held_out = (double)share,
                                       .seed = d->seed,
                                       .problems = problems,
                                       .progress = geul_progress_callback,
                                       .encoding = d->args->encoding,
                                       .nfc = geul_nfc_of(d->args->nfc)};
    enum geul_status status = GEUL_OK;
    geul_progress_start("reading", NULL);
    if (n_rows > 0)
        status = geul_samples_read(d->ctx, geul_model_get_tokenizer(d->model), rows, n_rows, &how, out->samples,
                                   held_out, &out->report);
    geul_progress_hide();
    for (int i = 0; status == GEUL_OK && i < files->n; i++)
        if (is_shard(files->items[i]))
            status = geul_dataset_add_shard(out->samples, files->items[i], d->n_context);
    geul_row_notes_print(problems);
    if (d->preview)
        geul_row_notes_print_forms(problems);
    geul_row_problems_free(problems);
    return status;
}

/* Prints what was read. */
static void tell_data(const struct files *f, const char *what)
{
    const struct geul_samples_report *r = &f->report;
    if (!f->samples)
        return;
    fprintf(stderr, "%s: %lld samples, %lld tokens, of which %lld are learned\n", what,
            (long long)geul_dataset_sample_count(f->samples), (long long)geul_dataset_token_count(f->samples),
            (long long)geul_dataset_target_count(f->samples));
    if (r->too_long > 0)
        geul_report_note("%lld rows are longer than the context (the first is %s:%lld; the longest has %lld tokens); "
                         "see -c and --too-long",
                         (long long)r->too_long, r->long_path, (long long)r->long_line, (long long)r->longest);
    if (r->joined_input > 0)
        geul_report_note("%lld inputs were joined to their questions: the template has no place for them",
                         (long long)r->joined_input);
    geul_row_notes_print_nfc(r->not_nfc, r->nfc_applied);
}

/* Gives the rows that were held out back to training. */
static enum geul_status take_back(struct data *d)
{
    int n = longest_of(d->held_out, 0);
    int32_t *ids = geul_alloc(d->ctx, (size_t)n, sizeof *ids);
    bool *target = geul_alloc(d->ctx, (size_t)n, sizeof *target);
    enum geul_status status = ids && target ? GEUL_OK : GEUL_ERROR_MEMORY;
    for (int64_t i = 0; status == GEUL_OK && i < geul_dataset_sample_count(d->held_out); i++) {
        n = geul_dataset_length(d->held_out, i);
        geul_dataset_read(d->held_out, i, n, ids, target);
        status = geul_dataset_add(d->train.samples, ids, target, n);
    }
    geul_free(d->ctx, ids);
    geul_free(d->ctx, target);
    geul_dataset_free(d->held_out);
    d->held_out = geul_dataset_new(d->ctx);
    return d->held_out ? status : GEUL_ERROR_MEMORY;
}

static enum geul_status read_data(struct data *d)
{
    const struct geul_data_args *a = d->args;
    size_t used = 0;
    for (int i = 0; i < a->files.n && used < sizeof d->names - 1; i++)
        used += (size_t)snprintf(d->names + used, sizeof d->names - used, "%s%s", i ? ", " : "", a->files.items[i]);
    d->held_out = geul_dataset_new(d->ctx);
    if (!d->held_out)
        return GEUL_ERROR_MEMORY;
    bool usual = a->held_out < 0;
    float share = a->held_out_files.n ? 0 : usual ? 0.02f : a->held_out;
    enum geul_status status = read_files(d, &a->files, share, d->held_out, &d->train);
    bool few = usual && share > 0 && d->train.report.rows > 0 && d->train.report.rows < LEAST_ROWS;
    if (status == GEUL_OK && few && geul_dataset_sample_count(d->held_out) > 0)
        status = take_back(d);
    if (status == GEUL_OK && a->held_out_files.n > 0)
        status = read_files(d, &a->held_out_files, 0, NULL, &d->measured);
    if (status != GEUL_OK)
        return status;
    tell_data(&d->train, "training");
    tell_data(&d->measured, "evaluation");
    if (!d->measured.samples && geul_dataset_sample_count(d->held_out) > 0)
        fprintf(stderr, "held out: %lld samples\n", (long long)geul_dataset_sample_count(d->held_out));
    else if (!d->measured.samples && few)
        fprintf(stderr, "held out: nothing, as there are fewer than %d rows (--held-out, --eval-file)\n", LEAST_ROWS);
    return GEUL_OK;
}

static void data_free(struct data *d)
{
    geul_dataset_free(d->train.samples);
    geul_dataset_free(d->measured.samples);
    geul_dataset_free(d->held_out);
    geul_template_free(d->t);
    geul_model_free(d->model);
}

/* ---------------------------------------------------------------------------------- training -- */

/* Opens the model for its tokenizer and context. false after a message. */
static bool open_model(struct data *d, const struct geul_train_options *o)
{
    struct geul_model_options how = {.n_threads = o->n_threads, .regex = geul_regex()};
    d->model = geul_model_load(d->ctx, o->model_path, &how);
    if (d->model && !geul_model_get_tokenizer(d->model))
        geul_fail(d->ctx, GEUL_ERROR_FORMAT, "%s has no tokenizer; it knows only token ids", o->model_path);
    if (d->model && geul_model_get_tokenizer(d->model))
        return true;
    geul_report_failure(d->ctx);
    return false;
}

/* Opens the template that was asked for; "auto" is that of the adapter to go on from, text, before the model's. false
 * after a message. */
static bool open_template(struct data *d, const char *text)
{
    const char *name = d->args->template_name;
    if (strcmp(name, "none") == 0)
        return true;
    return geul_template_open(d->ctx, d->model, text && strcmp(name, "auto") == 0 ? text : name, &d->t);
}

static int work(struct data *d, const struct geul_train_args *args, const struct geul_train_options *o,
                const char *title, enum geul_type type)
{
    if (read_data(d) != GEUL_OK)
        return geul_report_failure(d->ctx);
    const struct geul_tokenizer *tok = geul_model_get_tokenizer(d->model);
    if (args->preview > 0)
        return geul_preview_print(stdout, tok, d->train.samples, args->preview, geul_terminal_on_stderr()) ? 0 : 1;
    const struct geul_dataset *measured = d->measured.samples ? d->measured.samples : d->held_out;
    struct geul_choice_basis basis = {.samples = geul_dataset_sample_count(d->train.samples),
                                      .tokens = geul_dataset_token_count(d->train.samples),
                                      .longest = longest_of(d->train.samples, longest_of(measured, 0)),
                                      .d_model = geul_model_get_shape(d->model)->d_model,
                                      .n_context = d->n_context};
    struct geul_training job = {.ctx = d->ctx,
                                .args = args,
                                .options = *o,
                                .title = title,
                                .train = d->train.samples,
                                .held_out = measured,
                                .data_name = d->names,
                                .type = type,
                                .shape = geul_model_get_shape(d->model)};
    /* What was read with the model's context may be trained with a shorter one that holds it all. */
    geul_choose_options(&job.options, &basis, args->full, args->packing);
    if (job.options.n_context == 0)
        job.options.n_context = d->n_context;
    return geul_training_run(&job);
}

int geul_train_on_data(struct geul_context *ctx, const struct geul_train_args *args, const struct geul_data_args *data,
                       const struct geul_train_options *o, const char *title, enum geul_type type)
{
    struct data d = {.ctx = ctx, .args = data, .seed = args->seed.value, .preview = args->preview > 0};
    struct geul_train_options effective = *o;
    char *text = NULL; /* the adapter's template */
    int code = 1;
    if (data->files.n == 0)
        return geul_report_usage("--train-file is missing: there is nothing to learn from");
    if (open_model(&d, o)) {
        const struct geul_model_shape *shape = geul_model_get_shape(d.model);
        d.n_context = o->n_context ? o->n_context : shape->n_context;
        code = o->lora.from ? geul_adapter_source_take(ctx, args, &effective, shape, &text) : 0;
        if (code == 0)
            code = open_template(&d, text) ? work(&d, args, &effective, title, type) : 1;
    }
    geul_free(ctx, text);
    data_free(&d);
    return code;
}
