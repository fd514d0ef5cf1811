/* row_problems.h: what was wrong with rows, and what of them was not used (geul_tools.h). */
#ifndef GEUL_ROW_PROBLEMS_H
#define GEUL_ROW_PROBLEMS_H

#include "core/context.h"
#include "geul_tools.h"

enum { GEUL_ROW_PROBLEMS_KEPT = 20, GEUL_ROW_NOTES_KEPT = 256 };

/* A growing list of texts. */
struct geul_row_texts {
    char **items;
    size_t n, capacity;
};

struct geul_row_problems {
    struct geul_context *ctx;
    char *texts[GEUL_ROW_PROBLEMS_KEPT];
    int n_texts;
    int64_t n;
    struct geul_row_texts notes, forms;
};
/* Adds a problem of that file and line. When memory is short it is only counted, with the failure recorded. */
void geul_row_problem(struct geul_row_problems *p, const char *path, int64_t line, const char *format, ...)
    GEUL_PRINTF(4, 5);
/* Adds "FILE: text" to the notes or forms of p; beyond GEUL_ROW_NOTES_KEPT texts nothing. When memory is short the
 * failure is recorded. */
void geul_row_problems_add(struct geul_row_problems *p, struct geul_row_texts *list, const char *path,
                           const char *text);
/* Frees the texts, for a list that was not made by geul_row_problems_new(). */
void geul_row_problems_clear(struct geul_row_problems *p);
/* Moves what from holds to the end of to, which may be NULL and otherwise has the same context; from is then empty. */
void geul_row_problems_move(struct geul_row_problems *from, struct geul_row_problems *to);

#endif
