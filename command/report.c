/* report.c: messages, JSON and the end of stdout. */
#include "command/report.h"

#include "command/progress.h"
#include "command/terminal.h"

#include "core/os.h"
#include "geul.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *command, *program = "geul"; /* of this process */
static int write_error;                        /* errno of the first failed write to stdout */

void geul_report_set_program(const char *word)
{
    program = word;
}

const char *geul_report_program(void)
{
    return program;
}

enum { MOST_INPUTS = 8 };
static struct input {
    struct geul_file_id id;
    const char *name;
} inputs[MOST_INPUTS];
static int n_inputs;

void geul_report_set_command(const char *name)
{
    command = name;
}

/* The text that format and args make, fit for a terminal, to f. Longer than any message that is meant: cut. */
static void print_text(FILE *f, const char *format, va_list args)
{
    char text[8192];
    vsnprintf(text, sizeof text, format, args);
    fputs(geul_printable(text, text, sizeof text), f);
}

/* Begins a line on stderr. The bar is erased and stdout flushed first, so that on a terminal the two streams appear in
 * the order in which they were written. */
static void print_line(const char *format, va_list args)
{
    geul_progress_hide();
    fflush(stdout);
    fprintf(stderr, "geul%s%s: ", command ? " " : "", command ? command : "");
    print_text(stderr, format, args);
}

int geul_report_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_line(format, args);
    va_end(args);
    fputc('\n', stderr);
    return 1;
}

int geul_report_failure(const struct geul_context *ctx)
{
    if (geul_interrupted()) /* the user knows why */
        return geul_interrupt_code();
    return geul_report_error("%s", geul_error(ctx));
}

int geul_report_usage(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_line(format, args);
    va_end(args);
    fprintf(stderr, " (see `geul%s%s --help`)\n", command ? " " : "", command ? command : "");
    return 2;
}

void geul_report_note(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_line(format, args);
    va_end(args);
    fputc('\n', stderr);
}

void geul_report_line(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_text(stdout, format, args);
    va_end(args);
    putchar('\n');
}

void geul_report_clean(FILE *f, const char *text, size_t n)
{
    for (size_t i = 0, length; i < n; i += length ? length : 1) {
        length = text[i] == '\n' || text[i] == '\t' ? 1 : geul_printable_length(text + i, n - i);
        fwrite(length ? text + i : "?", 1, length ? length : 1, f);
    }
}

/* The log callback of contexts; user is not NULL when notes are wanted too. */
static void log_line(void *user, enum geul_log_level level, const char *text)
{
    if (level == GEUL_LOG_WARN)
        geul_report_note("warning: %s", text);
    else if (user && level == GEUL_LOG_INFO)
        geul_report_note("%s", text);
}

void geul_report_input(const char *path)
{
    struct geul_file_id id;
    if (n_inputs < MOST_INPUTS && (path ? geul_os_file_id(path, &id) : geul_os_descriptor_id(STDIN_FILENO, &id)))
        inputs[n_inputs++] = (struct input){id, path ? path : "standard input"};
}

struct geul_context *geul_report_context(bool verbose)
{
    static char wanted;
    struct geul_context_options options = {.log = log_line, .log_user = verbose ? &wanted : NULL};
    struct geul_context *ctx = geul_context_new(&options);
    if (!ctx) {
        geul_report_error("out of memory");
        return NULL;
    }
    geul_inputs_begin(ctx); /* the whole command is one run */
    for (int i = 0; i < n_inputs; i++)
        if (geul_inputs_open(ctx, inputs[i].id, inputs[i].name))
            geul_inputs_close(ctx, inputs[i].id);
    geul_interrupt_cancels(ctx);
    return ctx;
}

void geul_report_context_free(struct geul_context *ctx)
{
    if (ctx)
        geul_interrupt_spares(ctx);
    geul_context_free(ctx);
}

bool geul_report_text(const char *text, size_t length)
{
    bool ok = length == 0 || fwrite(text, 1, length, stdout) == length;
    if ((!ok || fflush(stdout) != 0) && !write_error)
        write_error = errno;
    return !write_error;
}

/* Writes JSON to stdout. jansson escapes the control characters below U+0020; the others, which a terminal must not get
 * either, follow here: 1 to 3 bytes in UTF-8. */
static bool print_escaped(const char *text)
{
    const char *from = text;
    for (size_t length; *text; text += length) {
        const unsigned char *c = (const unsigned char *)text;
        length = geul_printable_length(text, 4);
        if (length > 0 || *c == '\n') {
            length = length ? length : 1;
            continue;
        }
        unsigned code = *c;
        length = *c < 0x80 ? 1 : *c < 0xe0 ? 2 : 3;
        if (length == 2)
            code = (*c & 0x1fu) << 6 | (c[1] & 0x3fu);
        else if (length == 3)
            code = (*c & 0xfu) << 12 | (c[1] & 0x3fu) << 6 | (c[2] & 0x3fu);
        fwrite(from, 1, (size_t)(text - from), stdout);
        printf("\\u%04x", code);
        from = text + length;
    }
    return fwrite(from, 1, strlen(from), stdout) == strlen(from) && putchar('\n') != EOF && !ferror(stdout);
}

static int print_json(json_t *json, size_t flags)
{
    if (!json)
        return geul_report_error("out of memory");
    char *text = json_dumps(json, flags | JSON_REAL_PRECISION(9));
    json_decref(json);
    if (!text)
        return geul_report_error("out of memory");
    if (!print_escaped(text) && !write_error)
        write_error = errno;
    free(text);
    return 0;
}

int geul_report_json(json_t *json)
{
    return print_json(json, JSON_INDENT(2));
}

int geul_report_json_line(json_t *json)
{
    return print_json(json, JSON_COMPACT);
}

json_t *geul_report_json_text(const char *text, size_t length)
{
    struct geul_utf8_stream stream = {.n_held = 0};
    char *clean = malloc(3 * (length + 4) + 12);
    if (!clean)
        return NULL;
    size_t n = geul_utf8_push(&stream, text, length, clean);
    n += geul_utf8_finish(&stream, clean + n);
    json_t *json = json_stringn(clean, n);
    free(clean);
    return json;
}

json_t *geul_report_json_name(const char *name)
{
    return geul_report_json_text(name, strlen(name));
}

json_t *geul_report_json_real(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

json_t *geul_report_json_ids(const int32_t *ids, size_t n)
{
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(array, json_integer(ids[i]));
    return array;
}

int geul_report_end(int code)
{
    geul_progress_hide();
    geul_report_text("", 0); /* flushes */
    if (!write_error && ferror(stdout))
        write_error = EIO;
    if (write_error && write_error != EPIPE && code == 0)
        return geul_report_error("cannot write to standard output: %s", strerror(write_error));
    return code;
}
