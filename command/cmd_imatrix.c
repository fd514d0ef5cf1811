/* cmd_imatrix.c: `geul imatrix` collects the importance matrix for `geul quantize --imatrix`. */
#include "command/command.h"
#include "command/model_args.h"
#include "command/progress.h"
#include "command/report.h"
#include "command/terminal.h"
#include "command/text_input.h"

#include "core/os.h"
#include "geul_tools.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct settings {
    struct geul_model_args model;
    const char *prompt, *file, *encoding, *output;
    struct geul_text_list in_files;
    int chunks, output_frequency;
    bool json;
};

#define SETTINGS struct settings
/* clang-format off */
static const struct geul_option options[] = {
    OPTION_PATH( "-m, --model",              model.path,         "FILE", FILE,
                 "the model, a GGUF file, the most precise you have; not needed to merge files"),
    OPTION_GROUP(model.adapters, geul_lora_option_rows),
    OPTION_PATH( "-f, --file",               file,               "FILE", FILE,
                 "the text; - reads standard input; a newline at the end is left out"),
    OPTION_TEXT( "-p, --prompt",             prompt,             "TEXT", "the text itself, or -"),
    GEUL_ENCODING_OPTION,
    OPTION_PATH( "-o, --output",             output,             "FILE", FILE, "the matrix, a GGUF file"),
    OPTION_PATHS("--in-file",                in_files,           "FILE", FILE,
                 "adds the sums of a file; several times for several files; without a text only these are merged"),
    OPTION_INT(  "-c, --ctx-size",           model.n_context,    1, 1 << 24, "tokens of a chunk"),
    OPTION_INT(  "--chunks",                 chunks,             0, 1 << 30,
                 "at most this many chunks, 0: the whole text"),
    OPTION_INT(  "-ofreq, --output-frequency", output_frequency,   0, 1 << 30,
                 "writes the file after every N chunks too, 0: only at the end"),
    OPTION_INT(  "-t, --threads",            model.n_threads,    0, 1024, "threads, 0: one per core"),
    OPTION_INT(  "-b, --batch-size",         model.n_batch,      0, 1 << 16,
                 "most tokens computed at once, 0: as many as need 256 MiB for the observed inputs (46 for 12.8B, 195 for 1.3B)"),
    OPTION_GROUP(model.where, geul_device_options),
    OPTION_FLAG( "--json",                   json,               "prints what was collected as JSON"),
    OPTION_END,
};
/* clang-format on */

static const struct geul_command_help help = {
    .name = "imatrix",
    .usage = "-m FILE -f TEXT -o FILE [options]",
    .summary = "collect the importance of weights from a text",
    .about = "For every matrix of the model, the sum of squares of each of its inputs over the text: weights that "
             "meet large inputs have to be rounded with more care. The file has llama.cpp's GGUF form and serves its "
             "quantizer as well. A few hundred chunks of text like that which the model will meet are enough. All of "
             "the text is used: the last chunk may be shorter.",
    .example = "geul imatrix -m polyglot-f16.gguf -f korean.txt -o polyglot.imatrix\n"
               "geul imatrix --in-file one.imatrix --in-file two.imatrix -o both.imatrix",
    .options = options,
};

/* What the observed inputs take unless -b says otherwise. */
enum { OBSERVED_BYTES = 256 << 20 };

/* What the progress callback needs. */
struct watch {
    const struct settings *s;
    struct geul_importance *m;
    uint64_t saved; /* chunks when the file was last written */
};

/* The text's perplexity so far. */
static double perplexity(const struct watch *w)
{
    return exp(geul_importance_nats(w->m));
}

static bool show(void *user, uint64_t done, uint64_t total)
{
    static char label[48] = "collecting";
    struct watch *w = user;
    if (done == 0)
        geul_progress_start(label, "tokens");
    else
        snprintf(label, sizeof label, "collecting, perplexity %.4f", perplexity(w));
    uint64_t chunks = geul_importance_chunk_count(w->m);
    if (w->s->output_frequency && chunks >= w->saved + (uint64_t)w->s->output_frequency) {
        w->saved = chunks;
        if (geul_importance_save(w->m, w->s->output) != GEUL_OK)
            return false;
    }
    return geul_progress_callback(NULL, done, total);
}

/* Adds the text to w->m. */
static enum geul_status collect(struct watch *w, struct geul_loaded *l, const char *text, size_t length)
{
    const struct settings *s = w->s;
    struct geul_importance_options o = {
        .size = sizeof o,
        .chunk_size = s->model.n_context,
        .n_chunks = (size_t)s->chunks,
        .n_batch = s->model.n_batch,
        .exact = s->model.where.exact,
        .dataset = s->file ? s->file : "-p",
        .progress = show,
        .user = w,
    };
    geul_session_free(l->session); /* collecting makes its own */
    l->session = NULL;
    enum geul_status status = geul_importance_collect_text(w->m, l->model, text, length, &o);
    geul_progress_hide();
    return status;
}

static int report(const struct watch *w, double seconds)
{
    const struct settings *s = w->s;
    long long chunks = (long long)geul_importance_chunk_count(w->m), matrices = geul_importance_matrix_count(w->m);
    uint64_t n_tokens = geul_importance_tokens(w->m);
    if (s->json)
        return geul_report_json_line(
            json_pack("{s:o, s:I, s:I, s:I, s:I, s:o, s:f}", "file", geul_report_json_name(s->output), "matrices",
                      (json_int_t)matrices, "chunks", (json_int_t)chunks, "tokens", (json_int_t)n_tokens, "chunk_size",
                      (json_int_t)geul_importance_chunk_size(w->m), "perplexity",
                      n_tokens > 1 ? geul_report_json_real(perplexity(w)) : json_null(), "seconds", seconds));
    printf("%s: %lld matrices, %lld chunks", s->output, matrices, chunks);
    if (n_tokens > 1)
        printf("; %llu tokens, perplexity %.4f", (unsigned long long)n_tokens, perplexity(w));
    putchar('\n');
    return 0;
}

/* Adds a matrix, all of which the output will hold too: it may take the file's place, so that matrices grow. */
static enum geul_status add_file(struct watch *w, struct geul_context *ctx, const char *path)
{
    enum geul_status status = geul_importance_add_file(w->m, path);
    geul_os_forget_input(ctx, path);
    return status;
}

/* Merges, collects, writes. l has a model when there is a text. Returns the exit code. */
static int run(const struct settings *s, struct geul_loaded *l, const char *text, size_t length)
{
    double start = geul_os_seconds();
    struct watch w = {.s = s};
    w.m = geul_importance_new(l->ctx);
    enum geul_status status = w.m ? GEUL_OK : GEUL_ERROR_MEMORY;
    for (int i = 0; i < s->in_files.n && status == GEUL_OK; i++)
        status = add_file(&w, l->ctx, s->in_files.items[i]);
    if (status == GEUL_OK)
        status = geul_outfile_check(l->ctx, s->output); /* now rather than after hours of work */
    if (status == GEUL_OK && text) {
        w.saved = geul_importance_chunk_count(w.m);
        status = collect(&w, l, text, length);
    }
    if (status == GEUL_OK)
        status = geul_importance_save(w.m, s->output);
    int code = status == GEUL_OK ? report(&w, geul_os_seconds() - start) : geul_report_failure(l->ctx);
    geul_importance_free(w.m);
    return code;
}

int geul_cmd_imatrix(int argc, char **argv)
{
    struct settings s = {.model = {.cache_type = "f32", .n_context = 512, .reserve = OBSERVED_BYTES},
                         .output = "imatrix.gguf"};
    const char *args[GEUL_ARGS_MAX];
    int n_args, code = 0;
    size_t length = 0;
    char *text = NULL;
    if (!geul_options_parse(&help, argc, argv, &s, args, &n_args, &code))
        return code;
    bool merge = !s.file && !s.prompt;
    if (merge && s.in_files.n == 0)
        return geul_report_usage("-m FILE with -f TEXT, or --in-file FILE is missing");
    if (!merge && !s.model.path)
        return geul_report_usage("a text is given but no model: -m FILE is missing");
    if (!merge && !(text = geul_text_input_prompt(s.prompt, s.file, s.encoding, &length, &code)))
        return code;
    geul_interrupt_catch(1);
    geul_terminate_catch();
    struct geul_loaded l = {.ctx = merge ? geul_report_context(false) : NULL};
    if (!merge)
        code = geul_loaded_open(&s.model, true, &l);
    else if (!l.ctx)
        code = 1;
    if (code == 0) {
        code = run(&s, &l, text, length);
        geul_loaded_close(&l);
    }
    free(text);
    return code;
}
