/* text_input.c: texts from files and stdin. */
#include "command/text_input.h"

#include "command/report.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const size_t text_limit = (size_t)1 << 30; /* a prompt larger than this is a mistake */

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

char *geul_text_input_file(const char *path, size_t *length)
{
    struct stat st;
    bool standard = strcmp(path, "-") == 0;
    FILE *f = standard ? stdin : fopen(path, "rb");
    if (f && !standard && fstat(fileno(f), &st) == 0 && S_ISDIR(st.st_mode)) {
        fclose(f);
        f = NULL;
        errno = EISDIR;
    }
    char *text = f ? read_all(f, length) : NULL;
    if (!text)
        geul_report_error("cannot read %s: %s", standard ? "standard input" : path, strerror(errno));
    if (f && !standard)
        fclose(f);
    if (text)
        geul_report_input(standard ? NULL : path);
    return text;
}

bool geul_text_input_line(FILE *f, char **line, size_t *capacity, size_t *length)
{
    ssize_t n = getline(line, capacity, f);
    if (n < 0)
        return false;
    *length = (size_t)n;
    if (n > 0 && (*line)[n - 1] == '\n')
        (*line)[--*length] = '\0';
    return true;
}

char *geul_text_input_prompt(const char *text, const char *file, size_t *length, int *code)
{
    *code = 1;
    if ((text != NULL) == (file != NULL)) {
        *code = geul_report_usage(text ? "-p and -f exclude each other" : "-p TEXT or -f FILE is missing");
        return NULL;
    }
    if (file || strcmp(text, "-") == 0) {
        char *all = geul_text_input_file(file ? file : "-", length);
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
