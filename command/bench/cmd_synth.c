/* cmd_synth.c: `geul synth` makes a model of random numbers. */
#include "command/command.h"
#include "command/options.h"
#include "command/progress.h"
#include "command/report.h"
#include "command/bench/synth.h"
#include "command/terminal.h"

#include "core/bytes.h"
#include "core/os.h"

#include <stdio.h>

struct settings {
    const char *output;
    struct geul_seed seed;
    bool json;
};

#define SETTINGS struct settings
/* clang-format off */
static const struct geul_option options[] = {
    REQUIRED_PATH("-o, --output", output, "FILE", FILE, "the GGUF file"),
    OPTION_SEED(  "-s, --seed",   seed,   "the same seed gives the same file"),
    OPTION_FLAG(  "--json",       json,   "prints file, bytes and seconds as JSON"),
    OPTION_END,
};
/* clang-format on */

static const struct geul_command_help help = {
    .name = "synth",
    .usage = "SIZE:TYPE -o FILE [options]",
    .summary = "make a GGUF file with random weights, for measuring a machine without a download",
    .about = "SIZE is 1.3b, 3.8b, 5.8b, 12.8b (Polyglot-Ko's shapes) or a Hugging Face config.json; TYPE is a plain "
             "type or a mix that `geul quantize` knows: f32, bf16, q8_0, q4_0, q4_k_m, q6_k, iq4_xs and others. "
             "Matrices whose rows do not fit its blocks get the nearest type that does, and a line says how many. The "
             "file has no tokenizer, and what the model writes makes no sense.",
    .example = "geul synth 1.3b:q4_k_m -o random-1.3b.gguf",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .arg_name = "SIZE:TYPE",
};

int geul_cmd_synth(int argc, char **argv)
{
    struct settings s = {.seed = {0, true}};
    const char *args[GEUL_ARGS_MAX];
    int n_args, code;
    if (!geul_options_parse(&help, argc, argv, &s, args, &n_args, &code))
        return code;
    struct geul_context *ctx = geul_report_context(false);
    struct geul_synth synth;
    if (!ctx)
        return 1;
    geul_interrupt_catch(1);
    geul_terminate_catch();
    double start = geul_os_seconds();
    struct geul_gguf *g = NULL;
    if (!geul_synth_parse(ctx, args[0], &synth))
        code = *geul_error(ctx) ? 1 : 2;
    else if (geul_synth_write(ctx, &synth, s.seed.value, s.output) != GEUL_OK || !(g = geul_gguf_open(ctx, s.output)))
        code = geul_report_failure(ctx);
    if (g) {
        double seconds = geul_os_seconds() - start;
        char text[32];
        uint64_t bytes = geul_gguf_file_bytes(g);
        if (s.json)
            geul_report_json(json_pack("{s:o, s:I, s:f}", "file", geul_report_json_name(s.output), "file_bytes",
                                       (json_int_t)bytes, "seconds", seconds));
        else
            geul_report_line("%s: %s in %.1f s", s.output, geul_bytes_text(bytes, text, sizeof text), seconds);
    }
    geul_gguf_close(g);
    geul_report_context_free(ctx);
    return code;
}
