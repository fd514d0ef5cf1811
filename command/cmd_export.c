/* cmd_export.c: `geul export` makes a Hugging Face directory from a GGUF file. */
#include "command/lora_files.h"
#include "command/command.h"
#include "command/options.h"
#include "command/progress.h"
#include "command/report.h"
#include "command/terminal.h"

#include "geul_tools.h"
#include "core/os.h"

#include <stdio.h>
#include <string.h>

struct settings {
    const char *type, *base;
    int n_threads, shard_mb;
    bool strict, json;
};

static const char *const types[] = {"keep", "f32", "f16", "bf16", NULL}; /* in the order of enum geul_export_dtype */

#define SETTINGS struct settings
/* clang-format off */
static const struct geul_option options[] = {
    OPTION_CHOICE("--type, --outtype", type,      "TYPE", types,
                  "of all tensors: f32, f16, bf16; keep: what the matrices have, f16 for quantized ones, and f32 for norms and biases that it would change"),
    OPTION_INT(   "--max-shard-mb",    shard_mb,  1, 1 << 20, "largest size of a weight file in MB"),
    OPTION_PATH(  "--base",            base,      "PATH", FILE_OR_DIR,
                  "the model that an adapter is for, a GGUF file or a Hugging Face directory, needed when the adapter's file does not say how many heads it has"),
    OPTION_FLAG(  "--strict",          strict,    "fails where a value is not finite in the output, which otherwise is a warning"),
    OPTION_INT(   "-t, --threads",     n_threads, 0, 1024, "threads, 0: one per core"),
    OPTION_FLAG(  "--json",            json,      "prints directory and seconds as JSON"),
    OPTION_END,
};
/* clang-format on */

static const struct geul_command_help help = {
    .name = "export",
    .usage = "FILE DIR [options]",
    .summary = "make a Hugging Face directory, which transformers loads, from a GGUF file",
    .about = "An adapter (LoRA) becomes a directory for PEFT, always in float32.",
    .example = "geul export koalpaca.gguf koalpaca-hf --type f16\n"
               "geul export adapter.gguf adapter-peft",
    .options = options,
    .min_args = 2,
    .max_args = 2,
    .arg_name = "the file or the directory",
};

int geul_cmd_export(int argc, char **argv)
{
    struct settings s = {.type = "keep", .shard_mb = 5000};
    const char *args[GEUL_ARGS_MAX];
    int n_args, code;
    if (!geul_options_parse(&help, argc, argv, &s, args, &n_args, &code))
        return code;
    struct geul_context *ctx = geul_report_context(true);
    if (!ctx)
        return 1;
    geul_interrupt_catch(1);
    geul_terminate_catch();
    struct geul_peft_options peft = {.size = sizeof peft, .base = s.base};
    struct geul_export_options how = {.size = sizeof how,
                                      .n_threads = s.n_threads,
                                      .max_shard_bytes = (uint64_t)s.shard_mb * 1000000,
                                      .strict = s.strict,
                                      .progress = geul_progress_callback};
    for (int i = 0; types[i]; i++)
        if (strcmp(s.type, types[i]) == 0)
            how.dtype = (enum geul_export_dtype)i;
    double start = geul_os_seconds();
    geul_progress_start("exporting", NULL);
    enum geul_status status = geul_lora_is_gguf(args[0]) ? geul_export_peft(ctx, args[0], args[1], &peft)
                                                         : geul_export_hf(ctx, args[0], args[1], &how);
    geul_progress_hide();
    double seconds = geul_os_seconds() - start;
    if (status != GEUL_OK)
        code = geul_report_failure(ctx);
    else if (s.json)
        geul_report_json(json_pack("{s:o, s:f}", "directory", geul_report_json_name(args[1]), "seconds", seconds));
    else
        geul_report_line("%s: written in %.1f s", args[1], seconds);
    geul_report_context_free(ctx);
    return code;
}
