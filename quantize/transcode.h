/* transcode.h: streaming the rows of a tensor from one element type to another, in another order. */
#ifndef GEUL_TRANSCODE_H
#define GEUL_TRANSCODE_H

#include "core/context.h"

struct geul_transcode {
    const uint8_t *data; /* source, any alignment; NULL: zeros, unless there is `fetch` */
    enum geul_type from, to;
    /* Reads source row r (cols values) into x, where the source is not rows of type `from`; called from several
     * threads. NULL: rows are decoded from data. */
    void (*fetch)(const void *source, int64_t r, float *x, int64_t cols);
    const void *source;
    int64_t rows, cols; /* cols must be a multiple of both blocks */
    /* The source row that output row r is; NULL: the same. */
    int64_t (*row_of)(const void *row_order, int64_t r);
    const void *row_order;
    /* Changes decoded output row r (cols values) before it is encoded; called from several threads. NULL: nothing. */
    void (*change)(const void *how, int64_t r, float *x, int64_t cols);
    const void *change_how;
    const float *importance; /* of the columns, for the search for scales (quantize/search.h); NULL: none */
    int n_threads;
    /* Receives the output in order, a few MB at a time, in the calling thread; a status other than GEUL_OK stops. */
    enum geul_status (*sink)(void *user, const void *data, size_t bytes);
    void *user;
};

struct geul_transcode_result {
    int64_t lost; /* values not finite in the output; geul_count_lost() */
    double error; /* sum of importance * (x - x')^2 */
    double norm;  /* sum of importance * x^2 */
};

/* Runs t; needs a few MB of memory and a few rows. Equal types are copied bit by bit, unless rows are changed. *result
 * is set in any case. The output is the same for every number of threads. */
enum geul_status geul_transcode_rows(struct geul_context *ctx, const struct geul_transcode *t,
                                     struct geul_transcode_result *result);
/* Warns of the lost values of the tensor called name, in a type; strict: fails because of them. */
enum geul_status geul_transcode_tell_lost(struct geul_context *ctx, const struct geul_transcode_result *result,
                                          const char *name, const char *type, bool strict);

#endif
