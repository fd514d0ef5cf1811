/* line_history.c: see line_history.h. The file has a line per text, in which U+2028, Unicode's line separator, stands
 * for a newline. */
#include "command/line/line_history.h"

#include "command/text_input.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KEPT = 1000 };
static const char separator[] = "\xe2\x80\xa8";

struct geul_line_history {
    char **texts; /* 2 * KEPT of them have room */
    int n;
    char *path; /* or NULL */
};

/* Opens the file for writing; only its owner may read it. NULL where that is not possible. */
static FILE *open_file(const struct geul_line_history *h, const char *mode, int flags)
{
    int fd = h->path ? open(h->path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0600) : -1;
    FILE *f = fd >= 0 ? fdopen(fd, mode) : NULL;
    if (!f && fd >= 0)
        close(fd);
    return f;
}

static void write_text(FILE *f, const char *text)
{
    for (; *text; text++)
        if (*text == '\n')
            fputs(separator, f);
        else
            putc(*text, f);
    putc('\n', f);
}

/* Appends a copy; the oldest half goes when there is no room. */
static void append(struct geul_line_history *h, const char *text)
{
    if (h->n == 2 * KEPT) {
        for (int i = 0; i < KEPT; i++)
            free(h->texts[i]);
        memmove(h->texts, h->texts + KEPT, KEPT * sizeof *h->texts);
        h->n = KEPT;
    }
    char *copy = strdup(text);
    if (copy)
        h->texts[h->n++] = copy;
}

/* Reads the file. One that has grown too long is cut to its newest lines: it only grows while it is used, and
 * rewriting it at twice the limit keeps that rare. */
static void load(struct geul_line_history *h)
{
    FILE *f = h->path ? fopen(h->path, "r") : NULL;
    char *line = NULL;
    size_t capacity = 0, length;
    int n_lines = 0;
    for (; f && geul_text_input_line(f, &line, &capacity, &length); n_lines++) {
        for (char *at = line; (at = strstr(at, separator)); at++) {
            *at = '\n';
            memmove(at + 1, at + strlen(separator), strlen(at + strlen(separator)) + 1);
        }
        append(h, line);
    }
    free(line);
    if (f)
        fclose(f);
    if (n_lines < 2 * KEPT || !(f = open_file(h, "w", O_TRUNC)))
        return;
    for (int i = h->n > KEPT ? h->n - KEPT : 0; i < h->n; i++)
        write_text(f, h->texts[i]);
    fclose(f);
}

struct geul_line_history *geul_line_history_new(const char *path)
{
    struct geul_line_history *h = calloc(1, sizeof *h);
    if (!h)
        return NULL;
    h->texts = calloc((size_t)2 * KEPT, sizeof *h->texts);
    h->path = path ? strdup(path) : NULL;
    if (!h->texts) {
        geul_line_history_free(h);
        return NULL;
    }
    load(h);
    return h;
}

void geul_line_history_free(struct geul_line_history *h)
{
    if (!h)
        return;
    for (int i = 0; i < h->n; i++)
        free(h->texts[i]);
    free(h->texts);
    free(h->path);
    free(h);
}

void geul_line_history_add(struct geul_line_history *h, const char *text)
{
    if (!*text || (h->n > 0 && strcmp(h->texts[h->n - 1], text) == 0))
        return;
    append(h, text);
    FILE *f = open_file(h, "a", O_APPEND);
    if (!f)
        return;
    write_text(f, text);
    fclose(f);
}

int geul_line_history_count(const struct geul_line_history *h)
{
    return h->n;
}

const char *geul_line_history_get(const struct geul_line_history *h, int index)
{
    return h->texts[index];
}
