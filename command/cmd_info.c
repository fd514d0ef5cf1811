/* cmd_info.c: `geul info` shows a file; --cpu, --ops and --devices show the machine and the build. */
#include "command/lora_files.h"
#include "command/command.h"
#include "command/info_machine.h"
#include "command/model_args.h"
#include "command/options.h"
#include "command/progress.h"
#include "command/report.h"

#include "core/bytes.h"
#include "core/gguf.h"
#include "geul.h"

#include <stdio.h>
#include <string.h>

struct settings {
    const char *path;
    bool cpu, ops, devices, json;
};

#define SETTINGS struct settings
/* clang-format off */
static const struct geul_option options[] = {
    OPTION_PATH("-m, --model", path,    "FILE", FILE, "the GGUF file; may also be given without -m"),
    OPTION_FLAG("--cpu",       cpu,     "which instruction set fills which kernel slot"),
    OPTION_FLAG("--ops",       ops,     "the operations and where they run"),
    OPTION_FLAG("--devices",   devices, "the devices of this machine and their memory"),
    OPTION_FLAG("--json",      json,    "prints the same as JSON"),
    OPTION_END,
};
/* clang-format on */

static const struct geul_command_help help = {
    .name = "info",
    .usage = "FILE | --cpu | --ops | --devices [options]",
    .summary = "show a file, the processor, the operations or the devices",
    .example = "geul info polyglot.gguf\n"
               "geul info --cpu",
    .options = options,
    .max_args = 1,
    .arg_name = "a GGUF file",
};

enum { SHOWN_ITEMS = 4, SHOWN_BYTES = 72 };

static const char *const key_types[GEUL_GGUF_TYPE_COUNT] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                                            "bool", "string", "array", "u64", "i64", "f64"};

/* Sums over the tensors of the file. */
struct totals {
    uint64_t elements, bytes;
    uint64_t kv_cache; /* bytes at f16 and n_context positions; 0 when the file is not a gptneox model */
    uint64_t n_context;
};

static uint64_t elements_of(const struct geul_gguf_tensor *t)
{
    uint64_t n = 1;
    for (int d = 0; d < t->n_dims; d++)
        n *= (uint64_t)t->shape[d];
    return n;
}

static struct totals add_up(const struct geul_gguf *g)
{
    struct totals sum = {0, 0, 0, 0};
    for (int64_t i = 0; i < geul_gguf_tensor_count(g); i++) {
        sum.elements += elements_of(geul_gguf_tensor_at(g, i));
        sum.bytes += geul_gguf_tensor_at(g, i)->bytes;
    }
    uint64_t layers, width;
    if (geul_gguf_u64(g, "gptneox.block_count", &layers) && geul_gguf_u64(g, "gptneox.embedding_length", &width) &&
        geul_gguf_u64(g, "gptneox.context_length", &sum.n_context) && layers < 1 << 16 && width < 1 << 24 &&
        sum.n_context < 1 << 24)
        sum.kv_cache = 2 * 2 * layers * width * sum.n_context;
    return sum;
}

/* -------------------------------------------------------------------------------------- text -- */

/* n bytes on one line, shortened; of control characters and broken UTF-8 each byte as '?'. */
static void print_text(const char *s, size_t n, size_t most)
{
    size_t shown = n < most ? n : most;
    while (shown > 0 && shown < n && ((unsigned char)s[shown] & 0xc0) == 0x80)
        shown--; /* never in the middle of a character */
    putchar('"');
    for (size_t i = 0, length; i < shown; i += length ? length : 1) {
        length = geul_printable_length(s + i, shown - i);
        if (length > 0)
            fwrite(s + i, 1, length, stdout);
        else
            fputs(s[i] == '\n' ? "\\n" : "?", stdout);
    }
    printf(shown < n ? "...\" (%zu bytes)" : "\"", n);
}

static void print_number(const struct geul_gguf *g, const char *key)
{
    int64_t i;
    uint64_t u;
    double f;
    bool b;
    if (geul_gguf_bool(g, key, &b))
        printf("%s", b ? "true" : "false");
    else if (geul_gguf_i64(g, key, &i))
        printf("%lld", (long long)i);
    else if (geul_gguf_u64(g, key, &u))
        printf("%llu", (unsigned long long)u);
    else if (geul_gguf_f64(g, key, &f))
        printf("%.7g", f);
}

/* The first items of an array. */
static void print_array(struct geul_gguf_array *a)
{
    const char *s;
    size_t n;
    printf("%llu x %s: ", (unsigned long long)a->count, key_types[a->type]);
    for (uint64_t i = 0; i < a->count && i < SHOWN_ITEMS; i++) {
        if (i)
            printf(", ");
        if (a->type == GEUL_GGUF_STRING && geul_gguf_array_next(a, &s, &n))
            print_text(s, n, 16);
        else if (a->type == GEUL_GGUF_F32 || a->type == GEUL_GGUF_F64)
            printf("%.7g", geul_gguf_array_f64(a, i));
        else
            printf("%lld", (long long)geul_gguf_array_i64(a, i));
    }
    printf(a->count > SHOWN_ITEMS ? ", ...\n" : "\n");
}

static void print_keys(const struct geul_gguf *g)
{
    printf("\nkeys:\n");
    for (int64_t i = 0; i < geul_gguf_key_count(g); i++) {
        const char *name = geul_gguf_key_name(g, i), *s;
        char shown[128];
        struct geul_gguf_array array;
        size_t n;
        printf("  %-42s ", geul_printable(name, shown, sizeof shown));
        if (geul_gguf_get_array(g, name, &array)) {
            print_array(&array);
            continue;
        }
        if (geul_gguf_string(g, name, &s, &n))
            print_text(s, n, SHOWN_BYTES);
        else
            print_number(g, name);
        putchar('\n');
    }
}

static void print_tensors(const struct geul_gguf *g)
{
    printf("\ntensors:\n");
    for (int64_t i = 0; i < geul_gguf_tensor_count(g); i++) {
        const struct geul_gguf_tensor *t = geul_gguf_tensor_at(g, i);
        char shape[96] = "", size[32], name[80];
        for (int d = 0; d < t->n_dims; d++) {
            size_t n = strlen(shape);
            snprintf(shape + n, sizeof shape - n, "%s%lld", d ? " x " : "", (long long)t->shape[d]);
        }
        printf("  %-28s %-6s %16s %10s\n", geul_printable(t->name, name, sizeof name), geul_type_name(t->type), shape,
               geul_bytes_text(t->bytes, size, sizeof size));
    }
}

/* The tokenizer of a file; NULL without a message where it has none that geul can read: the keys are shown anyway. */
static struct geul_tokenizer *load_tokenizer(struct geul_context *ctx, const struct geul_gguf *g)
{
    struct geul_tokenizer *tok =
        geul_gguf_has(g, "tokenizer.ggml.tokens") ? geul_tokenizer_load(ctx, geul_gguf_path(g), geul_regex()) : NULL;
    geul_error_clear(ctx);
    return tok;
}

/* The tokens that end a text. */
static void print_ends(struct geul_context *ctx, const struct geul_gguf *g)
{
    struct geul_tokenizer *tok = load_tokenizer(ctx, g);
    const int32_t *ends;
    int n = tok ? geul_token_ends(tok, &ends) : 0;
    for (int i = 0; i < n; i++) {
        size_t length;
        const char *text = geul_token_text(tok, ends[i], &length);
        printf(i ? ", %d " : "  end of a text    %d ", ends[i]);
        print_text(text, length, SHOWN_BYTES);
    }
    if (n > 0)
        putchar('\n');
    geul_tokenizer_free(tok);
}

static void print_file(struct geul_context *ctx, const struct geul_gguf *g)
{
    struct totals sum = add_up(g);
    char text[32];
    geul_report_line("%s: GGUF version %u, %s", geul_gguf_path(g), geul_gguf_version(g),
                     geul_bytes_text(geul_gguf_file_bytes(g), text, sizeof text));
    printf("  parameters       %llu\n", (unsigned long long)sum.elements);
    printf("  bits per weight  %.2f\n", sum.elements ? 8.0 * (double)sum.bytes / (double)sum.elements : 0.0);
    geul_lora_print(g);
    print_ends(ctx, g);
    if (sum.kv_cache)
        printf("  keys and values  %s at f16 and %llu positions\n", geul_bytes_text(sum.kv_cache, text, sizeof text),
               (unsigned long long)sum.n_context);
    print_keys(g);
    print_tensors(g);
}

/* -------------------------------------------------------------------------------------- JSON -- */

/* The value of a key; arrays beyond a few items as their type and length only. */
static json_t *key_json(const struct geul_gguf *g, int64_t i)
{
    const char *name = geul_gguf_key_name(g, i), *s;
    struct geul_gguf_array array;
    int64_t v;
    double f;
    bool b;
    size_t n;
    if (geul_gguf_get_array(g, name, &array))
        return json_pack("{s:s, s:I}", "array_of", key_types[array.type], "count", (json_int_t)array.count);
    if (geul_gguf_string(g, name, &s, &n))
        return geul_report_json_text(s, n);
    if (geul_gguf_bool(g, name, &b))
        return json_boolean(b);
    if (geul_gguf_i64(g, name, &v))
        return json_integer(v);
    return geul_gguf_f64(g, name, &f) ? geul_report_json_real(f) : json_null();
}

/* Adds what print_ends() prints. */
static void add_ends(struct geul_context *ctx, const struct geul_gguf *g, json_t *json)
{
    struct geul_tokenizer *tok = load_tokenizer(ctx, g);
    const int32_t *ends;
    int n = tok ? geul_token_ends(tok, &ends) : 0;
    if (n > 0)
        json_object_set_new(json, "end_tokens", geul_report_json_ids(ends, (size_t)n));
    geul_tokenizer_free(tok);
}

static int print_json(struct geul_context *ctx, const struct geul_gguf *g)
{
    struct totals sum = add_up(g);
    json_t *keys = json_object(), *tensors = json_array();
    for (int64_t i = 0; i < geul_gguf_key_count(g); i++)
        json_object_set_new(keys, geul_gguf_key_name(g, i), key_json(g, i));
    for (int64_t i = 0; i < geul_gguf_tensor_count(g); i++) {
        const struct geul_gguf_tensor *t = geul_gguf_tensor_at(g, i);
        json_t *shape = json_array();
        for (int d = 0; d < t->n_dims; d++)
            json_array_append_new(shape, json_integer(t->shape[d]));
        json_array_append_new(tensors,
                              json_pack("{s:o, s:s, s:o, s:I}", "name", geul_report_json_name(t->name), "type",
                                        geul_type_name(t->type), "shape", shape, "bytes", (json_int_t)t->bytes));
    }
    json_t *json =
        json_pack("{s:o, s:I, s:I, s:I, s:I, s:I, s:o, s:o}", "file", geul_report_json_name(geul_gguf_path(g)),
                  "version", (json_int_t)geul_gguf_version(g), "file_bytes", (json_int_t)geul_gguf_file_bytes(g),
                  "parameters", (json_int_t)sum.elements, "tensor_bytes", (json_int_t)sum.bytes, "kv_cache_bytes",
                  (json_int_t)sum.kv_cache, "keys", keys, "tensors", tensors);
    json_t *adapter = geul_lora_json(g);
    if (adapter)
        json_object_set_new(json, "adapter", adapter);
    add_ends(ctx, g, json);
    return geul_report_json(json);
}

int geul_cmd_info(int argc, char **argv)
{
    struct settings s = {.path = NULL};
    const char *args[GEUL_ARGS_MAX];
    int n_args, code;
    if (!geul_options_parse(&help, argc, argv, &s, args, &n_args, &code))
        return code;
    const char *path = n_args ? args[0] : s.path;
    if (n_args && s.path)
        return geul_report_usage("\"%s\" is one file too many", args[0]);
    if ((path != NULL) + s.cpu + s.ops + s.devices != 1)
        return geul_report_usage("exactly one of FILE, --cpu, --ops and --devices is needed");
    struct geul_context *ctx = geul_report_context(false);
    if (!ctx)
        return 1;
    if (path) {
        struct geul_gguf *g = geul_gguf_open(ctx, path);
        if (!g)
            code = geul_report_failure(ctx);
        else if (s.json)
            code = print_json(ctx, g);
        else
            print_file(ctx, g);
        geul_gguf_close(g);
    } else {
        code = s.cpu ? geul_info_host(ctx, s.json) : s.ops ? geul_info_ops(s.json) : geul_info_devices(ctx, s.json);
    }
    geul_report_context_free(ctx);
    return code;
}
