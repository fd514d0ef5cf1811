/* batch.h: samples concatenated for one forward pass, and the order in which they come. */
#ifndef GEUL_BATCH_H
#define GEUL_BATCH_H

#include "geul.h"

/* T tokens, of which R have a target, both with padding at the end: tokens that belong to no sample and attend to
 * themselves alone, and rows whose target is -1 and whose loss has weight 0. */
struct geul_batch {
    int n_tokens, n_rows;               /* T and R: rounded up, so that few shapes occur */
    int32_t *ids;                       /* (T) */
    int32_t *seq_pos;                   /* (T, 2): sequence, position */
    int32_t *rows;                      /* (R) tokens that have a target */
    int32_t *targets;                   /* (R) */
    bool all_rows;                      /* rows are 0, 1, 2 ... T - 1 */
    int64_t samples, tokens, n_targets; /* without padding */
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

/* Fills b for data; shuffle false: in order, for evaluation. false when memory is short or the data has fewer samples
 * than there are workers. */
bool geul_batcher_init(struct geul_batcher *b, struct geul_context *ctx, const struct geul_dataset *data,
                       const struct geul_train_options *o, int n_context, int32_t end_token, bool shuffle);
void geul_batcher_free(struct geul_batcher *b);
/* Samples of one pass over the data for this worker. */
int64_t geul_batcher_epoch(const struct geul_batcher *b);
/* The most tokens and rows that a batch can have. */
int geul_batcher_most_tokens(const struct geul_batcher *b);

bool geul_batch_init(struct geul_batch *batch, struct geul_context *ctx, int most_tokens);
void geul_batch_free(struct geul_batch *batch, struct geul_context *ctx);
/* Advances as geul_batcher_next() does, without reading any ids: for counting steps. */
void geul_batcher_skip(struct geul_batcher *b, int64_t end);
/* Makes batch the next samples, at most up to position `end`. */
void geul_batcher_next(struct geul_batcher *b, struct geul_batch *batch, int64_t end);

#endif
