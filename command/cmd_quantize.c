/* cmd_quantize.c: `geul quantize` makes a smaller GGUF file from another. */
#include "command/command.h"
#include "command/options.h"
#include "command/progress.h"
#include "command/report.h"
#include "command/terminal.h"

#include "core/bytes.h"
#include "core/os.h"
#include "core/tensor.h"
#include "models/neox.h"
#include "geul_tools.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { RULES_MAX = GEUL_TEXT_LIST_MAX + 2, PATTERN_MAX = 512 };

struct settings {
    const char *imatrix, *output_type, *embedding_type, *max_size, *split_size;
    struct geul_text_list tensor_types;
    float target_bpw;
    int split_tensors, n_threads;
    bool strict, keep_split, dry_run, verbose, json;
};

#define SETTINGS struct settings
/* clang-format off */
static const struct geul_option options[] = {
    OPTION_PATH("--imatrix",              imatrix,        "FILE", FILE,
                "importance of the columns, from `geul imatrix` or llama.cpp (GGUF or .dat)"),
    OPTION_REAL("--target-bpw",           target_bpw,     0, 32,
                "instead of TYPE: chooses types by measured error, at most X bits per weight overall"),
    OPTION_TEXT("--max-size",             max_size,       "SIZE",
                "instead of TYPE: chooses types by measured error, for a file of at most SIZE (800M, 8G, 7.5GiB)"),
    OPTION_LIST("--tensor-type",          tensor_types,   "REGEX=TYPE",
                "matrices whose name matches get TYPE; may be given several times, the first that matches counts"),
    OPTION_TEXT("--output-tensor-type",   output_type,    "TYPE", "of output.weight"),
    OPTION_TEXT("--token-embedding-type", embedding_type, "TYPE", "of token_embd.weight"),
    OPTION_TEXT("--split-max-size",       split_size,     "SIZE",
                "write parts OUT-00001-of-0000N.gguf of at most SIZE each"),
    OPTION_INT( "--split-max-tensors",    split_tensors,  0, 1 << 20, "the same by the number of tensors"),
    OPTION_FLAG("--keep-split",           keep_split,     "split the output as the input is split"),
    OPTION_FLAG("--dry-run",              dry_run,        "shows what each tensor would become; writes nothing"),
    OPTION_FLAG("--strict",               strict,         "fails where a value is not finite in the output, which otherwise is a warning"),
    OPTION_INT( "-t, --threads",          n_threads,      0, 1024, "threads, 0: one per core"),
    OPTION_FLAG("-v, --verbose",          verbose,        "shows each tensor with its error"),
    OPTION_FLAG("--json",                 json,           "prints files, sizes and every tensor as JSON"),
    OPTION_END,
};
/* clang-format on */

/* Filled by list_types(). */
static char about[512];

static const struct geul_command_help help = {
    .name = "quantize",
    .usage = "IN OUT TYPE [options]",
    .summary = "make a smaller GGUF file from another",
    .about = about,
    .example = "geul quantize in-f16.gguf out-q4_k_m.gguf q4_k_m --imatrix in.imatrix\n"
               "geul quantize in-f16.gguf out-4.5.gguf --target-bpw 4.5\n"
               "geul quantize in-f16.gguf q4_k_m --dry-run --tensor-type ffn_up=q6_k",
    .options = options,
    .min_args = 1,
    .max_args = 3,
    .arg_name = "IN, OUT and TYPE",
};

static void list_types(void)
{
    size_t n = (size_t)snprintf(about, sizeof about, "TYPE, from the largest to the smallest:");
    const struct geul_mix *mix;
    for (size_t i = 0; (mix = geul_mix_at(i)) != NULL && n < sizeof about; i++)
        n += (size_t)snprintf(about + n, sizeof about - n, " %s", geul_mix_name(mix));
    if (n < sizeof about)
        snprintf(about + n, sizeof about - n,
                 "; copy keeps every matrix as it is, for splitting and joining files. IN is best f32, f16 or bf16; "
                 "for a split model give the first part.");
}

/* What the command line asks for. */
struct request {
    const char *in, *out; /* out NULL: not named, which a dry run may leave open */
    struct geul_quantize_options how;
    struct geul_quantize_rule rules[RULES_MAX];
    char patterns[RULES_MAX][PATTERN_MAX]; /* of the rules */
    struct geul_imatrix *imatrix;
};

/* ------------------------------------------------------------------------------ command line -- */

/* "800M", "8G", "7.5GiB": bytes. false after a message; NULL gives 0. */
static bool parse_size(const char *text, const char *option, uint64_t *bytes)
{
    static const struct {
        const char *unit;
        double factor;
    } units[] = {
        {"", 1},         {"B", 1},   {"K", 1e3},  {"KB", 1e3},     {"KiB", 0x1p10}, {"M", 1e6},   {"MB", 1e6},
        {"MiB", 0x1p20}, {"G", 1e9}, {"GB", 1e9}, {"GiB", 0x1p30}, {"T", 1e12},     {"TB", 1e12}, {"TiB", 0x1p40},
    };
    *bytes = 0;
    if (!text)
        return true;
    char *end;
    double v = strtod(text, &end);
    for (size_t i = 0; end > text && i < sizeof units / sizeof *units; i++)
        if (strcmp(end, units[i].unit) == 0 && v * units[i].factor >= 1 && v * units[i].factor < 1e18) {
            *bytes = (uint64_t)(v * units[i].factor);
            return true;
        }
    geul_report_usage("%s takes a size such as 800M, 8G or 7.5GiB, not \"%s\"", option, text);
    return false;
}

/* A type of matrices by its name; GEUL_TYPE_COUNT after a message. */
static enum geul_type parse_type(const char *name, const char *option)
{
    enum geul_type type = geul_type_from_name(name);
    if (geul_type_is_weight(type))
        return type;
    const char *names[GEUL_TYPE_COUNT];
    int n = 0;
    for (enum geul_type i = 0; i < GEUL_TYPE_COUNT; i++)
        if (geul_type_is_weight(i))
            names[n++] = geul_type_name(i);
    const char *nearest = geul_option_nearest(name, names, n);
    geul_report_usage("%s: \"%s\" is not a type%s%s%s", option, name, nearest ? "; did you mean " : "",
                      nearest ? nearest : "", nearest ? "?" : "");
    return GEUL_TYPE_COUNT;
}

static bool add_rule(struct request *r, const char *pattern, const char *type, const char *option)
{
    enum geul_type t = parse_type(type, option);
    if (t != GEUL_TYPE_COUNT)
        r->rules[r->how.n_rules++] = (struct geul_quantize_rule){pattern, t};
    return t != GEUL_TYPE_COUNT;
}

/* A rule for the single tensor of a role. */
static bool add_role_rule(struct request *r, enum geul_neox_role role, const char *type, const char *option)
{
    const struct geul_neox_tensor_info *t = geul_neox_role_info(role);
    char *pattern = r->patterns[r->how.n_rules];
    snprintf(pattern, PATTERN_MAX, "^%s\\.%s$", t->gguf, t->part);
    return add_rule(r, pattern, type, option);
}

/* Turns the options that name types of single tensors into rules. false after a message. */
static bool parse_rules(const struct settings *s, struct request *r)
{
    if (s->output_type && !add_role_rule(r, GEUL_NEOX_ROLE_OUTPUT, s->output_type, "--output-tensor-type"))
        return false;
    if (s->embedding_type && !add_role_rule(r, GEUL_NEOX_ROLE_EMBEDDING, s->embedding_type, "--token-embedding-type"))
        return false;
    for (int i = 0; i < s->tensor_types.n; i++) {
        const char *text = s->tensor_types.items[i], *equals = strrchr(text, '=');
        if (!equals || equals == text || (size_t)(equals - text) >= PATTERN_MAX) {
            geul_report_usage("--tensor-type takes REGEX=TYPE, for instance 'ffn_down=q6_k', not \"%.80s\"", text);
            return false;
        }
        char *pattern = r->patterns[r->how.n_rules];
        snprintf(pattern, PATTERN_MAX, "%.*s", (int)(equals - text), text);
        if (!add_rule(r, pattern, equals + 1, "--tensor-type"))
            return false;
    }
    r->how.rules = r->rules;
    return true;
}

/* The mix of that name; NULL after a message. */
static const struct geul_mix *parse_mix(const char *name)
{
    const char *names[64];
    int n = 0;
    const struct geul_mix *mix = geul_mix_find(name), *other;
    for (size_t i = 0; (other = geul_mix_at(i)) != NULL && n < 64; i++)
        names[n++] = geul_mix_name(other);
    if (!mix) {
        const char *nearest = geul_option_nearest(name, names, n);
        geul_report_usage("\"%s\" is not a type to quantize to%s%s%s", name, nearest ? "; did you mean " : "",
                          nearest ? nearest : "", nearest ? "?" : "");
    }
    return mix;
}

/* Turns words and settings into a request. false after a message. */
static bool parse(const struct settings *s, const char **args, int n_args, struct request *r)
{
    bool bound = s->target_bpw > 0 || s->max_size;
    r->in = args[0];
    r->how.size = sizeof r->how;
    r->how.target_bpw = (double)s->target_bpw;
    r->how.split_tensors = s->split_tensors;
    r->how.keep_split = s->keep_split;
    r->how.n_threads = s->n_threads;
    r->how.imatrix_name = s->imatrix;
    r->how.strict = s->strict;
    if (!parse_size(s->max_size, "--max-size", &r->how.max_bytes) ||
        !parse_size(s->split_size, "--split-max-size", &r->how.split_bytes) || !parse_rules(s, r))
        return false;
    if (bound && n_args == 3) {
        geul_report_usage("a size limit replaces the type \"%s\"; give one of the two", args[2]);
        return false;
    }
    /* The last word is the type unless a size limit replaces it; of the files before it a dry run may leave out OUT. */
    int n_files = bound ? n_args : n_args - 1;
    if (n_files < 1 || (n_files < 2 && !s->dry_run)) {
        geul_report_usage(n_args > 1 && !bound
                              ? "name the input, the output and the type"
                              : "name the input, the output, and a type or --target-bpw or --max-size");
        return false;
    }
    r->out = n_files > 1 ? args[1] : NULL;
    r->how.keep_types = !bound && strcasecmp(args[n_args - 1], "copy") == 0;
    if (r->how.keep_types)
        return true;
    r->how.mix = bound ? NULL : parse_mix(args[n_args - 1]);
    return bound || r->how.mix;
}

/* ----------------------------------------------------------------------------------- reports -- */

/* "768 x 256" */
static const char *shape_text(const struct geul_quantize_tensor *t, char *text, size_t size)
{
    size_t n = 0;
    text[0] = '\0';
    for (int d = 0; d < t->n_dims && n < size; d++)
        n += (size_t)snprintf(text + n, size - n, "%s%lld", d ? " x " : "", (long long)t->shape[d]);
    return text;
}

static struct geul_quantize_summary summary_of(const struct geul_quantize *q)
{
    struct geul_quantize_summary sum = {.size = sizeof sum};
    geul_quantize_get_summary(q, &sum);
    return sum;
}

static struct geul_quantize_tensor tensor_of(const struct geul_quantize *q, int64_t i)
{
    struct geul_quantize_tensor t = {.size = sizeof t};
    geul_quantize_get_tensor(q, i, &t);
    return t;
}

static void print_tensors(const struct geul_quantize *q)
{
    const int64_t n = summary_of(q).n_tensors;
    for (int64_t i = 0; i < n; i++) {
        const struct geul_quantize_tensor t = tensor_of(q, i);
        char name[80], shape[100], before[32], after[32], error[32] = "";
        if (t.written && t.to != t.from)
            snprintf(error, sizeof error, "  error %.3g", t.error);
        printf("%-32s %16s  %6s -> %-6s  %10s -> %-10s%s%s\n", geul_printable(t.name, name, sizeof name),
               shape_text(&t, shape, sizeof shape), geul_type_name(t.from), geul_type_name(t.to),
               geul_bytes_text(t.from_bytes, before, sizeof before), geul_bytes_text(t.to_bytes, after, sizeof after),
               error, t.fell_back ? "  (fallback)" : "");
    }
}

static json_t *tensors_json(const struct geul_quantize *q)
{
    json_t *list = json_array();
    const int64_t n = summary_of(q).n_tensors;
    for (int64_t i = 0; i < n; i++) {
        const struct geul_quantize_tensor t = tensor_of(q, i);
        json_t *shape = json_array();
        for (int d = 0; d < t.n_dims; d++)
            json_array_append_new(shape, json_integer(t.shape[d]));
        json_array_append_new(
            list, json_pack("{s:o, s:o, s:s, s:s, s:I, s:I, s:b, s:o, s:I}", "name",
                            geul_report_json_text(t.name, strlen(t.name)), "shape", shape, "from",
                            geul_type_name(t.from), "to", geul_type_name(t.to), "from_bytes", (json_int_t)t.from_bytes,
                            "bytes", (json_int_t)t.to_bytes, "fell_back", t.fell_back, "error",
                            t.written ? geul_report_json_real(t.error) : json_null(), "lost", (json_int_t)t.lost));
    }
    return list;
}

/* The names of the files written; an empty list in a dry run. */
static json_t *files_json(struct geul_context *ctx, const struct geul_quantize *q, const struct request *r,
                          bool written)
{
    json_t *list = json_array();
    const int64_t n = summary_of(q).n_parts;
    for (int64_t i = 0; written && i < n; i++) {
        char *name = geul_quantize_part_name(q, r->out, i);
        json_array_append_new(list, name ? geul_report_json_name(name) : json_null());
        geul_text_free(ctx, name);
    }
    return list;
}

/* The word for the type on the command line; NULL: a size limit replaced it. */
static const char *type_name(const struct request *r)
{
    return r->how.keep_types ? "copy" : r->how.mix ? geul_mix_name(r->how.mix) : NULL;
}

/* Says what was or would be written. Returns the exit code. */
static int report(struct geul_context *ctx, const struct geul_quantize *q, const struct settings *s,
                  const struct request *r, double seconds)
{
    const struct geul_quantize_summary sum = summary_of(q);
    char before[32], after[32], type[48];
    if (s->json)
        return geul_report_json(json_pack(
            "{s:o, s:o, s:I, s:I, s:f, s:f, s:I, s:I, s:b, s:f, s:o}", "files", files_json(ctx, q, r, !s->dry_run),
            "type", type_name(r) ? json_string(type_name(r)) : json_null(), "from_bytes", (json_int_t)sum.from_bytes,
            "file_bytes", (json_int_t)sum.to_bytes, "from_bits_per_weight", sum.from_bpw, "bits_per_weight", sum.to_bpw,
            "fallbacks", (json_int_t)sum.n_fallbacks, "parts", (json_int_t)sum.n_parts, "dry_run", s->dry_run,
            "seconds", seconds, "tensors", tensors_json(q)));
    if (s->dry_run || s->verbose)
        print_tensors(q);
    geul_bytes_text(sum.from_bytes, before, sizeof before);
    geul_bytes_text(sum.to_bytes, after, sizeof after);
    snprintf(type, sizeof type, "%s", type_name(r) ? type_name(r) : "types by measured error");
    printf("%s: %s, %lld tensors, %s -> %s (%llu bytes), %.3f -> %.3f bits per weight", r->out ? r->out : r->in, type,
           (long long)sum.n_tensors, before, after, (unsigned long long)sum.to_bytes, sum.from_bpw, sum.to_bpw);
    if (sum.n_parts > 1)
        printf(", %lld parts", (long long)sum.n_parts);
    if (s->dry_run)
        printf("; nothing was written\n");
    else
        printf(", in %.1f s\n", seconds);
    return 0;
}

/* Chooses types, writes and reports. Returns the exit code. */
static int run(struct geul_context *ctx, const struct settings *s, struct request *r)
{
    double start = geul_os_seconds();
    if (s->imatrix) {
        r->imatrix = geul_imatrix_load(ctx, s->imatrix);
        if (!r->imatrix)
            return geul_report_failure(ctx);
        r->how.imatrix = r->imatrix;
    }
    r->how.progress = geul_progress_callback;
    r->how.measuring = geul_progress_callback;
    geul_progress_start("measuring types", "tensors");
    struct geul_quantize *q = geul_quantize_new(ctx, r->in, &r->how);
    geul_progress_start("quantizing", NULL);
    bool ok = q && (s->dry_run || geul_quantize_write(q, r->out) == GEUL_OK);
    geul_progress_hide();
    int code = ok ? report(ctx, q, s, r, geul_os_seconds() - start) : geul_report_failure(ctx);
    geul_quantize_free(q);
    return code;
}

int geul_cmd_quantize(int argc, char **argv)
{
    struct settings s = {0};
    const char *args[GEUL_ARGS_MAX];
    int n_args, code;
    list_types();
    if (!geul_options_parse(&help, argc, argv, &s, args, &n_args, &code))
        return code;
    struct request *r = calloc(1, sizeof *r);
    struct geul_context *ctx = geul_report_context(s.verbose);
    if (!r || !ctx) {
        free(r);
        return ctx ? geul_report_error("out of memory") : 1;
    }
    geul_interrupt_catch(1);
    geul_terminate_catch();
    code = parse(&s, args, n_args, r) ? run(ctx, &s, r) : 2;
    geul_imatrix_free(r->imatrix);
    geul_report_context_free(ctx);
    free(r);
    return code;
}
