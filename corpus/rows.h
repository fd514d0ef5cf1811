/* rows.h: reading rows of training data (geul_tools.h) from memory, and from several files. */
#ifndef GEUL_ROWS_H
#define GEUL_ROWS_H

#include "corpus/row_problems.h"

/* geul_rows_open_encoded() over bytes, which must stay until close; the name's end says what they are. */
struct geul_rows *geul_rows_open_memory(struct geul_context *ctx, const void *data, size_t size, const char *name,
                                        const char *encoding, struct geul_row_problems *problems);

/* What happens to the rows of several files. */
struct geul_rows_walk {
    struct geul_row_problems *problems;
    const char *encoding; /* of the files */
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
