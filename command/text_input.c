/* text_input.c: texts from files and stdin. */
#include "command/text_input.h"

#include "command/report.h"

#include "geul_tools.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const size_t text_limit = (size_t)1 << 30; /* a prompt larger than this is a mistake */

const char *const geul_nfc_choices[] = {"auto", "on", "off", NULL}; /* enum geul_nfc */

enum geul_nfc geul_nfc_of(const char *name)
{
    int i = 0;
    while (strcmp(geul_nfc_choices[i], name) != 0)
        i++;
    return (enum geul_nfc)i;
}

/* Everything up to the end of f. NULL with errno set. */
static char *read_all(FILE *f, size_t *length)
{
    size_t used = 0, size = 1 << 16;
    char *text = malloc(size);
    while (text) {
        used += fread(text + used, 1, size - used - 1, f);
        if (ferror(f) || feof(f) || used >= text_limit)
            break;
        char *grown = realloc(text, 2 * size);
        if (!grown)
            free(text);
        text = grown;
        size *= 2;
    }
    if (text && (ferror(f) || used >= text_limit)) {
        errno = ferror(f) ? errno : EFBIG;
        free(text);
        return NULL;
    }
    if (text)
        text[used] = '\0';
    *length = used;
    return text;
}

/* Replaces the bytes of a file by its text (geul_text_decode()). NULL after a message; bytes are freed. */
static char *decode(char *bytes, const char *name, const char *encoding, size_t *length)
{
    struct geul_context *ctx = geul_report_context(false);
    char *text = ctx ? geul_text_decode(ctx, bytes, *length, name, encoding, length) : NULL;
    free(bytes);
    char *copy = text ? malloc(*length + 1) : NULL;
    if (copy)
        memcpy(copy, text, *length + 1);
    else if (text)
        geul_report_error("out of memory");
    else if (ctx)
        geul_report_failure(ctx);
    geul_text_free(ctx, text);
    geul_report_context_free(ctx);
    return copy;
}

char *geul_text_input_file(const char *path, const char *encoding, size_t *length)
{
    struct stat st;
    bool standard = strcmp(path, "-") == 0;
    const char *name = standard ? "standard input" : path;
    FILE *f = standard ? stdin : fopen(path, "rb");
    if (f && !standard && fstat(fileno(f), &st) == 0 && S_ISDIR(st.st_mode)) {
        fclose(f);
        f = NULL;
        errno = EISDIR;
    }
    char *bytes = f ? read_all(f, length) : NULL;
    if (!bytes)
        geul_report_error("cannot read %s: %s", name, strerror(errno));
    if (f && !standard)
        fclose(f);
    if (bytes)
        geul_report_input(standard ? NULL : path);
    return bytes ? decode(bytes, name, encoding, length) : NULL;
}

bool geul_text_input_line(FILE *f, char **line, size_t *capacity, size_t *length)
{
    ssize_t n = getline(line, capacity, f);
    if (n < 0)
        return false;
    *length = (size_t)n;
    if (n > 0 && (*line)[n - 1] == '\n') {
        --*length;
        *length -= *length > 0 && (*line)[*length - 1] == '\r';
    }
    /* A byte order mark may begin every line that is the first of a file: of `cat a.txt b.txt` too. */
    if (*length >= 3 && memcmp(*line, "\xef\xbb\xbf", 3) == 0) {
        *length -= 3;
        memmove(*line, *line + 3, *length);
    }
    (*line)[*length] = '\0';
    return true;
}

bool geul_text_input_check(const char *line, size_t length)
{
    const char *encoding = geul_text_guess_encoding(line, length);
    if (encoding)
        geul_report_error("standard input is %s, not UTF-8; recode it: iconv -f %s -t utf-8", encoding, encoding);
    return !encoding;
}

char *geul_text_input_prompt(const char *text, const char *file, const char *encoding, size_t *length, int *code)
{
    *code = 1;
    if ((text != NULL) == (file != NULL)) {
        *code = geul_report_usage(text ? "-p and -f exclude each other" : "-p TEXT or -f FILE is missing");
        return NULL;
    }
    if (file || strcmp(text, "-") == 0) {
        char *all = geul_text_input_file(file ? file : "-", encoding, length);
        if (all && *length > 0 && all[*length - 1] == '\n') /* editors and echo append it; nobody means it */
            all[--*length] = '\0';
        return all;
    }
    *length = strlen(text);
    char *copy = strdup(text);
    if (!copy)
        geul_report_error("out of memory");
    return copy;
}
