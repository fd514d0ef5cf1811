/* batch.h: samples laid one after the other for one forward pass, and which come when. */
#ifndef GEUL_BATCH_H
#define GEUL_BATCH_H

#include "geul.h"

/* T tokens, of which R have a target. Tokens at the end that belong to no sample are sequences of their own; rows at
 * the end that stand for none have weight 0. */
struct geul_batch {
    int n_tokens, n_rows; /* rounded up, so that few shapes occur */
    int32_t *ids;         /* (T) */
    int32_t *seq_pos;     /* (T, 2): sequence, position */
    int32_t *rows;        /* (R) tokens that have a target */
    int32_t *targets;     /* (R) */
    bool all_rows;        /* rows are 0, 1, 2 ... T - 1 */
    int64_t samples, tokens, n_targets;
};

/* What makes batches of a dataset. */
struct geul_batcher {
    struct geul_context *ctx;
    const struct geul_dataset *data;
    int n_context, n_batch, worker, n_workers;
    bool packing, attend_across_documents, shuffle;
    int32_t end_token; /* -1: none */
    uint64_t seed;
    int64_t position; /* samples taken since the beginning: all there is to save */
    int capacity;     /* most tokens of a batch */
    int32_t *ids;     /* of one sample: n_context + 1 */
    bool *target;
};

/* Fills b for data; shuffle false: in order, for evaluation. false when memory is short or nothing is there to take. */
bool geul_batcher_init(struct geul_batcher *b, struct geul_context *ctx, const struct geul_dataset *data,
                       const struct geul_train_options *o, int n_context, int32_t end_token, bool shuffle);
void geul_batcher_free(struct geul_batcher *b);
/* Samples of one pass over the data for this worker. */
int64_t geul_batcher_epoch(const struct geul_batcher *b);
/* The most tokens and rows that a batch can have. */
int geul_batcher_most_tokens(const struct geul_batcher *b);

bool geul_batch_init(struct geul_batch *batch, struct geul_context *ctx, int most_tokens);
void geul_batch_free(struct geul_batch *batch, struct geul_context *ctx);
/* Goes on as geul_batcher_next() does, without reading anything: for counting. */
void geul_batcher_skip(struct geul_batcher *b, int64_t end);
/* The next samples, at most up to position `end`. */
void geul_batcher_next(struct geul_batcher *b, struct geul_batch *batch, int64_t end);

#endif
