/* rows.h: reading rows of training data (geul_tools.h) from memory, and from several files. */
#ifndef GEUL_ROWS_H
#define GEUL_ROWS_H

#include "core/context.h"
#include "geul_tools.h"

enum { GEUL_ROW_PROBLEMS_KEPT = 20 };

struct geul_row_problems {
    struct geul_context *ctx;
    char *texts[GEUL_ROW_PROBLEMS_KEPT];
    int n_texts;
    int64_t n;
};
/* Adds a problem of that file and line. When memory is short it is only counted, with the failure recorded. */
void geul_row_problem(struct geul_row_problems *p, const char *path, int64_t line, const char *format, ...)
    GEUL_PRINTF(4, 5);
/* Frees the texts, for a list that was not made by geul_row_problems_new(). */
void geul_row_problems_clear(struct geul_row_problems *p);
/* Moves what from holds to the end of to, which may be NULL and otherwise has the same context; from is then empty. */
void geul_row_problems_move(struct geul_row_problems *from, struct geul_row_problems *to);

/* geul_rows_open() over bytes, which must stay until close; by the name they are JSON Lines or, ending in .txt, one
 * text. */
struct geul_rows *geul_rows_open_memory(struct geul_context *ctx, const void *data, size_t size, const char *name,
                                        struct geul_row_problems *problems);

/* What happens to the rows of several files. */
struct geul_rows_walk {
    struct geul_row_problems *problems;
    /* With GEUL_ERROR_ARGUMENT the row becomes a problem with the text of the failure, other failures end the walk.
     * path is the caller's. */
    enum geul_status (*on_row)(void *user, const char *path, const struct geul_row *row);
    void *user;
    /* After every row: bytes of all files read so far, and in all. false stops. May be NULL. */
    bool (*on_progress)(void *user, uint64_t done, uint64_t total);
    void *progress_user;
};
/* Reads all rows of all files in order. Fails when a file cannot be read or has neither a row nor a problem. */
enum geul_status geul_rows_walk(struct geul_context *ctx, const char *const *paths, int n_paths,
                                const struct geul_rows_walk *walk);

#endif
