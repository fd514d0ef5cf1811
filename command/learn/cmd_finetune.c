/* cmd_finetune.c: `geul finetune` trains an adapter, or all weights, on questions and answers or texts. */
#include "command/command.h"
#include "command/model_args.h"
#include "command/report.h"
#include "command/terminal.h"
#include "command/learn/training.h"
#include "command/learn/training_data.h"

#include "convert/neox_tensors.h"

#include <stdio.h>
#include <string.h>

struct settings {
    struct geul_train_args train;
    struct geul_data_args data;
    const char *model, *targets, *type, *from;
    float alpha, dropout;
    int rank;
    bool rslora;
};

static const char *const types[] = {"f32", "f16", "bf16", NULL};

#define SETTINGS struct settings
/* clang-format off */
static const struct geul_option options[] = {
    REQUIRED_PATH("-m, --model",             model,   "FILE", FILE,
                  "the model to start from, of any type; it is not changed"),
    OPTION_PATH(  "--lora",                  from,    "ADAPTER", FILE_OR_DIR,
                  "goes on from this adapter, a GGUF file or a directory of PEFT, with its rank, alpha and targets"),
    OPTION_FLAG(  "--full",                  train.full, "trains all weights instead of an adapter"),
    OPTION_INT(   "-r, --rank, --lora-rank", rank,    0, 4096, "of the adapter, 0: chosen by the number of samples"),
    OPTION_REAL(  "--lora-alpha",            alpha,   0, 1e6, "the adapter's scale times its rank, 0: twice the rank"),
    OPTION_REAL(  "--lora-dropout",          dropout, 0, 0.9, "share of the adapter's inputs to drop"),
    OPTION_FLAG(  "--rslora",                rslora,  "scale alpha / sqrt(rank) instead of alpha / rank"),
    OPTION_TEXT(  "--lora-targets",          targets, "LIST", "which products: qkv,out,up,down, or all (default all)"),
    OPTION_CHOICE("--type",                  type,    "TYPE", types, "with --full: of the result's matrices"),
    OPTION_GROUP(data, geul_data_option_rows),
    OPTION_GROUP(train, geul_train_option_rows),
    OPTION_END,
};
/* clang-format on */

static const struct geul_command_help help = {
    .name = "finetune",
    .usage = "-m FILE --train-file FILE -o DIR [options]",
    .summary = "fine-tune a model: adapters (LoRA, QLoRA) or all weights",
    .about =
        "Trains a low-rank adapter on a model that itself stays unchanged, quantized or not, or with --full all "
        "weights. "
        "Rows are {\"instruction\", \"input\", \"output\"}, {\"question\", \"answer\"}, {\"messages\"}, "
        "{\"prompt\", \"completion\"} or {\"text\"}; only answers and the <|endoftext|> behind each are learned. "
        "DIR gets checkpoints, log.csv, log.jsonl, TensorBoard's events, report.html, the best state and the result: "
        "adapter.gguf for --lora and adapter/ for PEFT, or model.gguf. The run can be stopped at any time; --resume "
        "continues it, bit for bit as if it had not been stopped.",
    .example = "geul finetune -m f16.gguf --train-file pairs.jsonl -o run --template koalpaca\n"
               "geul finetune -m f16.gguf --train-file pairs.jsonl -o run -c 512 --plan\n"
               "geul chat -m f16.gguf --lora run/adapter.gguf",
    .options = options,
};

/* The bits of one word, n bytes long: a target, HF's name of it, or "all"; 0: none of them. */
static unsigned target_bits(const char *word, size_t n)
{
    if (n == 3 && memcmp(word, "all", n) == 0)
        return GEUL_LORA_ALL;
    for (int t = 0; t < GEUL_NEOX_TARGETS; t++) {
        const char *names[] = {geul_neox_target_word((enum geul_neox_target)t),
                               geul_neox_hf_target((enum geul_neox_target)t)};
        for (int i = 0; i < 2; i++)
            if (strlen(names[i]) == n && memcmp(names[i], word, n) == 0)
                return 1u << t;
    }
    return 0;
}

/* "qkv,out" as bits; 0 after a message. */
static unsigned parse_targets(const char *list)
{
    unsigned bits = 0;
    for (const char *at = list; *at;) {
        size_t n = strcspn(at, ",");
        unsigned found = target_bits(at, n);
        char known[100];
        if (!found) {
            geul_report_usage("--lora-targets: \"%.*s\" is not one of %s", (int)n, at,
                              geul_neox_list_targets(known, sizeof known, geul_neox_target_word, ", ", ", "));
            return 0;
        }
        bits |= found;
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
    if (s->train.full && s->from) {
        geul_report_usage(
            "--lora goes on from an adapter, --full trains all weights: leave one of them out (`geul merge` "
            "puts an adapter into the weights)");
        return false;
    }
    if (s->train.full)
        return true;
    o->lora = (struct geul_lora_options){.rank = s->rank,
                                         .alpha = s->alpha,
                                         .dropout = s->dropout,
                                         .rslora = s->rslora,
                                         .targets = s->targets ? parse_targets(s->targets)
                                                    : s->from  ? 0
                                                               : GEUL_LORA_ALL,
                                         .from = s->from};
    if (s->train.weight_decay < 0)
        o->weight_decay = 0;
    return o->lora.targets != 0 || (s->from && !s->targets);
}

int geul_cmd_finetune(int argc, char **argv)
{
    struct settings s = {.train = GEUL_TRAIN_ARGS_DEFAULT, .data = GEUL_DATA_ARGS_DEFAULT, .type = "f16"};
    struct geul_train_options o;
    struct geul_run_dir dir = {.lock = NULL};
    const char *args[GEUL_ARGS_MAX];
    char title[256];
    int n_args, code;
    if (!geul_options_parse(&help, argc, argv, &s, args, &n_args, &code))
        return code;
    if (!make_options(&s, &o))
        return 2;
    s.train.typed = (const char *const *)argv;
    geul_interrupt_catch(1);
    geul_terminate_catch();
    struct geul_context *ctx = geul_report_context(s.train.verbose);
    snprintf(title, sizeof title, "finetune %.200s", s.model);
    code = ctx ? geul_run_dir_take(ctx, &s.train, &dir) : 1;
    if (code == 0)
        code = geul_train_on_data(ctx, &s.train, &s.data, &o, title, geul_type_from_name(s.type));
    geul_run_dir_leave(&dir);
    geul_report_context_free(ctx);
    return code;
}
