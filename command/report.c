/* report.c: messages, JSON and the end of stdout. */
#include "command/report.h"

#include "command/progress.h"
#include "command/terminal.h"

#include "geul.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

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

void geul_report_set_command(const char *name)
{
    command = name;
}

/* Begins a line on stderr. The bar is erased and stdout flushed first, so that on a terminal the two streams appear in
 * the order in which they were written. */
static void print_line(const char *format, va_list args)
{
    geul_progress_hide();
    fflush(stdout);
    fprintf(stderr, "geul%s%s: ", command ? " " : "", command ? command : "");
    vfprintf(stderr, format, args);
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
    if (geul_interrupted()) /* the user knows why; 128 + SIGINT, as shells count */
        return 130;
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

/* The log callback of contexts; user is not NULL when notes are wanted too. */
static void log_line(void *user, enum geul_log_level level, const char *text)
{
    if (level == GEUL_LOG_WARN)
        geul_report_note("warning: %s", text);
    else if (user && level == GEUL_LOG_INFO)
        geul_report_note("%s", text);
}

struct geul_context *geul_report_context(bool verbose)
{
    static char wanted;
    struct geul_context_options options = {.log = log_line, .log_user = verbose ? &wanted : NULL};
    struct geul_context *ctx = geul_context_new(&options);
    if (!ctx)
        geul_report_error("out of memory");
    return ctx;
}

bool geul_report_text(const char *text, size_t length)
{
    bool ok = length == 0 || fwrite(text, 1, length, stdout) == length;
    if ((!ok || fflush(stdout) != 0) && !write_error)
        write_error = errno;
    return !write_error;
}

static int print_json(json_t *json, size_t flags)
{
    if (!json)
        return geul_report_error("out of memory");
    char *text = json_dumps(json, flags | JSON_REAL_PRECISION(9));
    json_decref(json);
    if (!text)
        return geul_report_error("out of memory");
    bool ok = fwrite(text, 1, strlen(text), stdout) == strlen(text) && putchar('\n') != EOF;
    if (!ok && !write_error)
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
