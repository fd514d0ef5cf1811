/* cmd_convert.c: `geul convert` makes a GGUF file from a Hugging Face directory. */
#include "command/command.h"
#include "command/options.h"
#include "command/progress.h"
#include "command/report.h"
#include "command/terminal.h"

#include "geul_tools.h"
#include "core/bytes.h"
#include "core/gguf.h"
#include "core/os.h"

#include <stdio.h>
#include <string.h>

struct settings {
    const char *output, *type, *gelu, *name, *base;
    int n_threads;
    bool strict, no_tokenizer, json;
};

/* Filled by list_types(). */
static const char *types[GEUL_TYPE_COUNT + 1];
static char type_help[160];
static const char *const gelus[] = {"config", "erf", "tanh", NULL}; /* in the order of enum geul_convert_gelu */

#define SETTINGS struct settings
/* clang-format off */
static const struct geul_option options[] = {
    REQUIRED_PATH("-o, --output, --outfile", output,    "FILE", FILE, "the GGUF file"),
    OPTION_CHOICE("--type, --outtype",       type,      "TYPE", types,
                  type_help),
    OPTION_CHOICE("--gelu",                  gelu,      "KIND", gelus,
                  "erf or tanh, for checkpoints whose config.json names the wrong one"),
    OPTION_TEXT(  "--name",                  name,      "TEXT", "the model's name; otherwise the directory's"),
    OPTION_PATH(  "--base",                  base,      "PATH", FILE_OR_DIR,
                  "the model that an adapter is for, a GGUF file or a Hugging Face directory, needed when the adapter names none that is on this machine"),
    OPTION_FLAG(  "--no-tokenizer",          no_tokenizer,
                  "leaves the tokenizer out: the file holds ids only, no texts"),
    OPTION_FLAG(  "--strict",                strict,    "fails where a value is not finite in the output, which otherwise is a warning"),
    OPTION_INT(   "-t, --threads",           n_threads, 0, 1024, "threads, 0: one per core"),
    OPTION_FLAG(  "--json",                  json,      "prints file, bytes, tensors and seconds as JSON"),
    OPTION_END,
};
/* clang-format on */

static const struct geul_command_help help = {
    .name = "convert",
    .usage = "DIR -o FILE [options]",
    .summary = "make a GGUF file from a Hugging Face directory",
    .about = "The directory holds config.json, the weights as safetensors or .bin, sharded or not, and a tokenizer: "
             "tokenizer.json, or vocab.json with merges.txt; or adapter_config.json and the weights of a LoRA adapter "
             "as PEFT writes it, which become float32. Where both are in one directory the model is converted, with "
             "--base the adapter.",
    .example = "geul convert polyglot-ko-1.3b -o polyglot-ko-1.3b.gguf --type q8_0\n"
               "geul convert adapter-peft -o adapter.gguf --base polyglot-ko-1.3b.gguf",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .arg_name = "the directory",
};

static void list_types(void)
{
    size_t n = (size_t)snprintf(type_help, sizeof type_help, "of the matrices: ");
    enum geul_type type;
    for (size_t i = 0; (type = geul_convert_type_at(i)) != GEUL_TYPE_COUNT && n < sizeof type_help; i++) {
        bool last = geul_convert_type_at(i + 1) == GEUL_TYPE_COUNT;
        types[i] = geul_type_name(type);
        n += (size_t)snprintf(type_help + n, sizeof type_help - n, "%s%s",
                              i == 0 ? ""
                              : last ? " or "
                                     : ", ",
                              types[i]);
    }
    if (n < sizeof type_help)
        snprintf(type_help + n, sizeof type_help - n, " (others: geul quantize)");
}

/* Says what was written. Returns the exit code. */
static int report(struct geul_context *ctx, const struct settings *s, double seconds)
{
    char size[32];
    struct geul_gguf *g = geul_gguf_open(ctx, s->output);
    if (!g)
        return geul_report_failure(ctx);
    uint64_t bytes = geul_gguf_file_bytes(g);
    int64_t tensors = geul_gguf_tensor_count(g);
    geul_gguf_close(g);
    if (s->json)
        return geul_report_json(json_pack("{s:o, s:s, s:I, s:I, s:f}", "file", geul_report_json_name(s->output), "type",
                                          s->type, "file_bytes", (json_int_t)bytes, "tensors", (json_int_t)tensors,
                                          "seconds", seconds));
    geul_report_line("%s: %s, %lld tensors, %s, in %.1f s", s->output, s->type, (long long)tensors,
                     geul_bytes_text(bytes, size, sizeof size), seconds);
    return 0;
}

int geul_cmd_convert(int argc, char **argv)
{
    struct settings s = {.type = "f16", .gelu = "config"};
    const char *args[GEUL_ARGS_MAX];
    int n_args, code;
    list_types();
    if (!geul_options_parse(&help, argc, argv, &s, args, &n_args, &code))
        return code;
    struct geul_context *ctx = geul_report_context(true);
    if (!ctx)
        return 1;
    geul_interrupt_catch(1);
    geul_terminate_catch();
    struct geul_convert_options how = {.size = sizeof how,
                                       .type = geul_type_from_name(s.type),
                                       .name = s.name,
                                       .n_threads = s.n_threads,
                                       .no_tokenizer = s.no_tokenizer,
                                       .strict = s.strict,
                                       .progress = geul_progress_callback};
    for (int i = 0; gelus[i]; i++)
        if (strcmp(s.gelu, gelus[i]) == 0)
            how.gelu = (enum geul_convert_gelu)i;
    double start = geul_os_seconds();
    geul_progress_start("converting", NULL);
    bool adapter = geul_peft_is(args[0]), both = adapter && geul_peft_has_model(args[0]);
    if (both && !s.base) {
        adapter = false;
        geul_report_note(
            "%s holds a whole model beside adapter_config.json; the model is converted (--base %s converts "
            "the adapter)",
            args[0], args[0]);
    }
    struct geul_peft_options peft = {.size = sizeof peft, .base = s.base, .name = s.name};
    enum geul_status status =
        adapter ? geul_convert_peft(ctx, args[0], s.output, &peft) : geul_convert_hf(ctx, args[0], s.output, &how);
    geul_progress_hide();
    s.type = adapter ? "f32" : s.type;
    code = status == GEUL_OK ? report(ctx, &s, geul_os_seconds() - start) : geul_report_failure(ctx);
    geul_report_context_free(ctx);
    return code;
}
