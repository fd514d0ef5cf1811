/* rows.h: rows of training data, one by one, from JSON Lines or a plain text file.
 *
 *     {"instruction": ..., "input": ..., "output": ...}       input may be missing, null or ""
 *     {"messages": [{"role": "user", "content": ...}, ...]}   system first or not at all; then user and assistant in
 * turn
 *     {"question": ..., "answer": ...}
 *     {"prompt": ..., "completion": ...}
 *     {"text": ...}
 *
 * The first of these whose keys a line has is taken; other keys are ignored; shapes may be mixed; blank lines are
 * skipped. A line that is no row becomes a problem with its file and line, and the reading goes on. A file whose name
 * ends in .txt is one text. Files are mapped, never loaded. */
#ifndef GEUL_ROWS_H
#define GEUL_ROWS_H

#include "core/context.h"
#include "geul.h"

enum { GEUL_ROW_PROBLEMS_KEPT = 20 };

/* What was wrong: all counted, the first ones as "FILE:LINE: what". Zero it to start. */
struct geul_row_problems {
    char *texts[GEUL_ROW_PROBLEMS_KEPT];
    int n_texts;
    int64_t n;
};
/* Adds a problem of that file and line. */
void geul_row_problem(struct geul_context *ctx, struct geul_row_problems *p, const char *path, int64_t line,
                      const char *format, ...) GEUL_PRINTF(5, 6);
void geul_row_problems_free(struct geul_context *ctx, struct geul_row_problems *p);

enum geul_row_kind { GEUL_ROW_TURNS, GEUL_ROW_TEXT };

/* A row; everything lives until the next call on its file. */
struct geul_row {
    enum geul_row_kind kind;
    int64_t line;                  /* in the file, from 1 */
    const struct geul_turn *turns; /* each with a question and an answer that is not empty */
    int n_turns;
    const char *input;  /* extra context of the first question, NULL: none */
    const char *system; /* the text of the system, NULL: none; at most one of the two is there */
    const char *text;   /* of a TEXT row: length bytes of UTF-8 without NUL */
    size_t length;
};

struct geul_rows;
/* Opens a file. NULL when it is missing, or holds one JSON array instead of a line per row. Free with
 * geul_rows_close(). */
struct geul_rows *geul_rows_open(struct geul_context *ctx, const char *path);
/* The same over bytes, which must stay until close; the name decides whether they are JSON Lines. */
struct geul_rows *geul_rows_open_memory(struct geul_context *ctx, const void *data, size_t size, const char *name);
void geul_rows_close(struct geul_rows *rows);
/* The next row. false at the end, and when memory is short or neither a row nor a problem was in the file: then a
 * failure is recorded. What is no row goes to problems. */
bool geul_rows_next(struct geul_rows *rows, struct geul_row *row, struct geul_row_problems *problems);

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
