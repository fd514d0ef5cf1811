/* cmd_merge.c: `geul merge` adds adapters to the weights of a model. */
#include "command/lora_args.h"
#include "command/command.h"
#include "command/progress.h"
#include "command/report.h"
#include "command/terminal.h"

#include "core/bytes.h"
#include "core/context.h"
#include "core/os.h"
#include "geul_tools.h"

#include <stdio.h>
#include <string.h>

struct settings {
    const char *model, *output, *type;
    struct geul_lora_args adapters;
    int n_threads;
    bool strict, json;
};

#define SETTINGS struct settings
/* clang-format off */
static const struct geul_option options[] = {
    REQUIRED_PATH("-m, --model",       model,     "FILE", FILE,
                  "the model, a GGUF file (of a split one the first part)"),
    OPTION_GROUP(adapters, geul_lora_option_rows),
    REQUIRED_PATH("-o, --output",      output,    "FILE", FILE, "the merged model"),
    OPTION_TEXT(  "--type, --outtype", type,      "TYPE",
                  "of the matrices, any that `geul quantize` knows; otherwise each keeps its own, or becomes f16 where the model is quantized"),
    OPTION_FLAG(  "--strict",          strict,    "fails where a value is not finite in the output, which otherwise is a warning"),
    OPTION_INT(   "-t, --threads",     n_threads, 0, 1024, "threads, 0: one per core"),
    OPTION_FLAG(  "--json",            json,      "prints file, bytes, type and matrices as JSON"),
    OPTION_END,
};
/* clang-format on */

static const struct geul_command_help help = {
    .name = "merge",
    .usage = "-m FILE --lora FILE -o FILE [options]",
    .summary = "add adapters to the weights of a model",
    .about =
        "Several adapters add up. Start from the weights that they were trained on, in the most precise form you have. "
        "`geul export` makes a Hugging Face directory of the result.",
    .example = "geul merge -m f16.gguf --lora adapter.gguf -o merged-f16.gguf\n"
               "geul merge -m f16.gguf --lora-scaled peft:0.5 -o merged.gguf --type q4_k_m",
    .options = options,
};

/* What the command works with. */
struct work {
    const struct settings *s;
    struct geul_context *ctx;
    struct geul_lora_choice choices[GEUL_LORAS_MAX];
    struct geul_merge_input inputs[GEUL_LORAS_MAX];
    int n;
    struct geul_merge *merge;
    struct geul_quantize_options how;
    struct geul_quantize *quantize;
};

/* Lists the adapters. */
static void name_adapters(struct work *w)
{
    for (int i = 0; i < w->n; i++)
        w->inputs[i] = (struct geul_merge_input){w->choices[i].path, w->choices[i].scale};
}

/* The types of the output. */
static void choose_types(struct work *w)
{
    const char *type = w->s->type;
    if (!type && geul_merge_is_quantized(w->merge)) {
        type = "f16";
        geul_report_note("%s is quantized; the merged file is f16 (--type quantizes it again)", w->s->model);
    }
    w->how.mix = type ? geul_mix_find(type) : NULL;
    w->how.keep_types = !type;
}

static enum geul_status merge(struct work *w)
{
    w->how.size = sizeof w->how;
    w->how.n_threads = w->s->n_threads;
    w->how.strict = w->s->strict;
    w->how.progress = geul_progress_callback;
    name_adapters(w);
    w->merge = geul_merge_new(w->ctx, w->s->model, w->inputs, w->n);
    if (!w->merge)
        return geul_error_status(w->ctx);
    choose_types(w);
    /* A merge is a quantization whose weights pass through w->merge on their way, so that must outlive w->quantize. */
    w->how.hooks = geul_merge_hooks(w->merge);
    w->quantize = geul_quantize_new(w->ctx, w->s->model, &w->how);
    if (!w->quantize)
        return geul_error_status(w->ctx);
    geul_progress_start("merging", NULL);
    enum geul_status status = geul_quantize_write(w->quantize, w->s->output);
    geul_progress_hide();
    return status;
}

/* Says what was written. Returns the exit code. */
static int report(const struct work *w, double seconds)
{
    char size[32];
    const char *type = w->how.mix ? geul_mix_name(w->how.mix) : "as it was";
    struct geul_quantize_summary sum = {.size = sizeof sum};
    geul_quantize_get_summary(w->quantize, &sum);
    int matrices = geul_merge_matrix_count(w->merge);
    if (w->s->json)
        return geul_report_json(json_pack("{s:o, s:s?, s:I, s:i, s:i, s:f}", "file",
                                          geul_report_json_name(w->s->output), "type", w->how.mix ? type : NULL,
                                          "file_bytes", (json_int_t)sum.to_bytes, "adapters", w->n, "matrices",
                                          matrices, "seconds", seconds));
    geul_report_line("%s: %d matrices changed, type %s, %s, in %.1f s", w->s->output, matrices, type,
                     geul_bytes_text(sum.to_bytes, size, sizeof size), seconds);
    return 0;
}

static void work_free(struct work *w)
{
    geul_quantize_free(w->quantize);
    geul_merge_free(w->merge);
    for (int i = 0; i < GEUL_LORAS_MAX; i++)
        geul_free(w->ctx, w->choices[i].path);
    geul_report_context_free(w->ctx);
}

int geul_cmd_merge(int argc, char **argv)
{
    struct settings s = {.model = NULL};
    const char *args[GEUL_ARGS_MAX];
    int n_args, code;
    if (!geul_options_parse(&help, argc, argv, &s, args, &n_args, &code))
        return code;
    if (s.adapters.plain.n + s.adapters.scaled.n == 0)
        return geul_report_usage("--lora FILE is missing");
    if (s.type && !geul_mix_find(s.type))
        return geul_report_usage("--type: \"%s\" is not a type; `geul quantize --help` lists them", s.type);
    struct work w = {.s = &s, .ctx = geul_report_context(false)};
    if (!w.ctx)
        return 1;
    geul_interrupt_catch(1);
    geul_terminate_catch();
    double start = geul_os_seconds();
    w.n = geul_lora_args_choices(w.ctx, &s.adapters, w.choices);
    bool ok = w.n > 0 && merge(&w) == GEUL_OK;
    code = ok ? report(&w, geul_os_seconds() - start) : geul_report_failure(w.ctx);
    work_free(&w);
    return code;
}
