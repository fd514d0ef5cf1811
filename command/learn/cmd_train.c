/* cmd_train.c: `geul train` trains a new model from scratch: a settings file names its shape, tokenizer and data. */
#include "command/command.h"
#include "command/model_args.h"
#include "command/progress.h"
#include "command/report.h"
#include "command/terminal.h"
#include "command/text_input.h"
#include "command/learn/training.h"
#include "command/learn/training_data.h"

#include "geul_tools.h"
#include "core/bytes.h"
#include "core/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct settings {
    struct geul_train_args train;
    struct geul_data_args data;
    const char *tokenizer, *init, *gelu, *name, *parallel_residual, *attend_across_documents, *model, *type;
    int layers, width, heads, ff, vocabulary;
    float rotary;
};

static const char *const switches[] = {"on", "off", NULL};
static const char *const inits[] = {"small", "normal", NULL}; /* enum geul_init */
static const char *const gelus[] = {"erf", "tanh", NULL};     /* enum geul_gelu */
static const char *const types[] = {"f32", "f16", "bf16", NULL};

#define SETTINGS struct settings
/* clang-format off */
static const struct geul_option options[] = {
    OPTION_PATH(  "--tokenizer",         tokenizer,         "FILE", FILE_OR_DIR,
                  "a GGUF file whose tokenizer is used, a tokenizer.json or a directory that holds one"),
    OPTION_PATH(  "--model",             model,             "FILE", FILE,
                  "continues training the weights of a GGUF file instead of making new ones"),
    OPTION_INT(   "--layers",            layers,            1, 4096, "of the model"),
    OPTION_INT(   "--width",             width,             1, 1 << 20, "d_model"),
    OPTION_INT(   "--heads",             heads,             1, 1 << 16, "attention heads"),
    OPTION_INT(   "--ff",                ff,                0, 1 << 20, "d_ff, 0: four times the width"),
    OPTION_INT(   "--vocabulary",        vocabulary,        0, 1 << 24,
                  "rows of the embedding, 0: the tokenizer's, rounded up to 64"),
    OPTION_REAL(  "--rotary",            rotary,            0, 1,
                  "share of a head's dimensions that are rotated by position"),
    OPTION_CHOICE("--parallel-residual", parallel_residual, "on|off", switches,
                  "attention and feed-forward both read the layer's input"),
    OPTION_CHOICE("--gelu",              gelu,              "FORM", gelus, "exact, or its tanh form"),
    OPTION_CHOICE("--init",              init,              "NAME", inits,
                  "small: as GPT-NeoX; normal: deviation 0.02"),
    OPTION_TEXT(  "--name",              name,              "TEXT", "the model's"),
    OPTION_CHOICE("--see-across",        attend_across_documents,        "on|off", switches,
                  "on: tokens attend to earlier documents of their window too, as in GPT-NeoX"),
    OPTION_CHOICE("--type",              type,              "TYPE", types, "of the result's matrices"),
    OPTION_GROUP(data, geul_data_option_rows),
    OPTION_GROUP(train, geul_train_option_rows),
    OPTION_END,
};
/* clang-format on */

static const struct geul_command_help help = {
    .name = "train",
    .usage = "[CONFIG] [options]",
    .summary = "train a new model from scratch",
    .about =
        "CONFIG is a text file with one setting a line, \"name = value\": every option below without its dashes; # "
        "begins a comment. Options on the command line override the file. The run writes DIR/initial.gguf, random "
        "weights in float32, and trains them as `geul finetune --full` does: the same logs, checkpoints and --resume, "
        "with DIR/model.gguf as the result.",
    .example = "cat small.conf\n"
               "  tokenizer = polyglot-ko-1.3b/tokenizer.json\n"
               "  layers = 12\n"
               "  width = 768\n"
               "  heads = 12\n"
               "  ctx-size = 1024\n"
               "  train-file = corpus-00000.geulshard\n"
               "  eval-file = held-out.jsonl\n"
               "  lr = 6e-4\n"
               "  output = small\n"
               "geul train small.conf --batch-size 8\n"
               "geul train small.conf --resume",
    .options = options,
    .max_args = 1,
    .arg_name = "a settings file",
};

/* ---------------------------------------------------------------------------------- settings -- */

/* s without white space at both ends. */
static char *trimmed(char *s)
{
    s += strspn(s, " \t\r");
    for (size_t n = strlen(s); n > 0 && strchr(" \t\r", s[n - 1]); n--)
        s[n - 1] = '\0';
    return s;
}

/* Applies one line, which it cuts into name and value: settings point into it. false after a message. */
static bool apply_line(char *line, struct settings *s)
{
    char *comment = line;
    while ((comment = strchr(comment, '#')) && comment > line && !strchr(" \t", comment[-1]))
        comment++; /* a # inside a word is part of it */
    if (comment)
        *comment = '\0';
    line = trimmed(line);
    if (!*line)
        return true;
    char *equals = strchr(line, '=');
    if (!equals) {
        geul_report_error("\"%.60s\" is not of the form name = value", line);
        return false;
    }
    *equals = '\0';
    char *name = trimmed(line), *value = trimmed(equals + 1);
    size_t n = strlen(value);
    if (n >= 2 && value[0] == '"' && value[n - 1] == '"') {
        value[n - 1] = '\0';
        value++;
    }
    for (char *c = name; *c; c++)
        *c = *c == '_' ? '-' : *c;
    return geul_option_set(options, s, name, value);
}

/* Applies the file; its text must stay while the settings are used. */
static bool apply_file(const char *path, char *text, struct settings *s)
{
    int number = 1;
    for (char *line = text; line; number++) {
        char *end = strchr(line, '\n');
        if (end)
            *end++ = '\0';
        if (!apply_line(line, s)) {
            geul_report_note("the error is in line %d of %s", number, path);
            return false;
        }
        line = end;
    }
    return true;
}

/* ------------------------------------------------------------------------------------- model -- */

static int index_of_word(const char *const *list, const char *word)
{
    int i = 0;
    while (strcmp(list[i], word) != 0)
        i++;
    return i;
}

/* The model that the settings describe. false after a message. */
static bool describe(const struct settings *s, struct geul_new_model_options *m)
{
    if (!s->tokenizer || !s->layers || !s->width || !s->heads) {
        geul_report_usage("a new model needs --tokenizer, --layers, --width and --heads (or --model)");
        return false;
    }
    /* Rotated dimensions are pairs: rounded down to an even number. */
    int head = s->width / s->heads, rotary = (int)((float)head * s->rotary) / 2 * 2;
    if (s->width % s->heads != 0) {
        geul_report_usage("--heads %d does not divide --width %d", s->heads, s->width);
        return false;
    }
    *m = (struct geul_new_model_options){.size = sizeof *m,
                                         .tokenizer = s->tokenizer,
                                         .n_layers = s->layers,
                                         .d_model = s->width,
                                         .n_heads = s->heads,
                                         .d_ff = s->ff,
                                         .n_rot = rotary ? rotary : -1,
                                         .n_context = s->train.n_context,
                                         .n_vocab = s->vocabulary,
                                         .gelu = (enum geul_gelu)index_of_word(gelus, s->gelu),
                                         .sequential_residual = strcmp(s->parallel_residual, "off") == 0,
                                         .init = (enum geul_init)index_of_word(inits, s->init),
                                         .seed = s->train.seed.value,
                                         .name = s->name};
    return true;
}

/* Fails when the model could not be trained for want of memory, before it is written: its weights and their gradients
 * alone, to which the estimate of the run adds the rest. */
static bool check_memory(struct geul_context *ctx, const struct geul_new_model_options *m)
{
    size_t available, total;
    char needed[32], left[32];
    uint64_t bytes = geul_new_model_bytes(ctx, m);
    geul_os_memory(&available, &total);
    if (bytes == 0)
        return false;
    if (available == 0 || bytes / 2 < available / 4)
        return true;
    geul_fail(ctx, GEUL_ERROR_MEMORY,
              "weights and gradients of this model take %s of memory, %s are free; nothing was written: fewer --layers "
              "or a smaller --width make it smaller",
              geul_bytes_text(2 * bytes, needed, sizeof needed), geul_bytes_text(available, left, sizeof left));
    return false;
}

/* The file that training starts from: --model, or DIR/initial.gguf, which is written unless a resumed run finds
 * it. NULL after a message. */
static const char *first_model(struct geul_context *ctx, const struct settings *s, char *path, size_t size, int *code)
{
    struct geul_new_model_options m;
    if (s->model)
        return s->model;
    snprintf(path, size, "%s/initial.gguf", s->train.output);
    if (geul_os_exists(path) && s->train.resume)
        return path;
    if (!describe(s, &m))
        return NULL;
    m.progress = geul_progress_callback;
    bool ok = check_memory(ctx, &m) && geul_os_make_directory(ctx, s->train.output) == GEUL_OK;
    geul_progress_start("writing the model", NULL);
    ok = ok && geul_new_model_write(ctx, path, &m) == GEUL_OK;
    geul_progress_hide();
    if (ok)
        return path;
    *code = geul_report_failure(ctx);
    return NULL;
}

static int work(struct geul_context *ctx, const struct settings *s)
{
    char path[4096], title[256];
    int code = 1;
    struct geul_train_options o = geul_train_args_options(&s->train);
    o.regex = geul_regex();
    o.rate = s->train.rate > 0 ? s->train.rate : 6e-4f;
    o.attend_across_documents = strcmp(s->attend_across_documents, "on") == 0;
    o.model_path = first_model(ctx, s, path, sizeof path, &code);
    if (!o.model_path)
        return code;
    snprintf(title, sizeof title, "train %.200s", s->train.output);
    return geul_train_on_data(ctx, &s->train, &s->data, &o, title, geul_type_from_name(s->type));
}

int geul_cmd_train(int argc, char **argv)
{
    struct settings s = {.train = GEUL_TRAIN_ARGS_DEFAULT,
                         .data = GEUL_DATA_ARGS_DEFAULT,
                         .init = "small",
                         .gelu = "erf",
                         .name = "geul",
                         .parallel_residual = "on",
                         .attend_across_documents = "off",
                         .type = "f16",
                         .rotary = 0.5f};
    s.data.template_name = "none";
    s.train.n_batch = 4; /* a corpus is read once, in batches of a usual size */
    s.train.epochs = 1;
    s.train.full = true;
    const char *args[GEUL_ARGS_MAX];
    int n_args, code;
    size_t length;
    char *text = NULL;
    /* The settings file is applied first, so that options override it: hence it has to be the first word. Its text
     * stays until the end, because the settings point into it. */
    bool file = argc > 1 && argv[1][0] != '-';
    if (file && !(text = geul_text_input_file(argv[1], NULL, &length)))
        return 1;
    if (file && !apply_file(argv[1], text, &s)) {
        free(text);
        return 1;
    }
    if (!geul_options_parse(&help, argc, argv, &s, args, &n_args, &code)) {
        free(text);
        return code;
    }
    if (n_args > 0 && !file) {
        free(text);
        return geul_report_usage("the settings file, %s, has to come before the options", args[0]);
    }
    s.train.typed = (const char *const *)argv;
    geul_interrupt_catch(1);
    geul_terminate_catch();
    struct geul_context *ctx = geul_report_context(s.train.verbose);
    struct geul_run_dir dir = {.lock = NULL};
    code = ctx ? geul_run_dir_take(ctx, &s.train, &dir) : 1;
    if (code == 0)
        code = work(ctx, &s);
    geul_run_dir_leave(&dir);
    geul_report_context_free(ctx);
    free(text);
    return code;
}
