/* batch.c: see batch.h.
 *
 * A batch of two samples, x of 5 ids (x0 and x1 are its prompt) and y of 3, before padding:
 *
 *     token      x0 x1 x2 x3 | y0 y1           the last id of a sample is only a target
 *     sequence    0  0  0  0 |  1  1
 *     position    0  1  2  3 |  0  1           0 again behind the end of a document
 *     predicts   -- x2 x3 x4 | y1 y2           x1 is no target: row 0 has no loss
 *     rows           1  2  3    4  5           targets: x2 x3 x4 y1 y2
 *
 * The order of samples is a function of seed and position alone: position is all that a checkpoint has to hold. */
#include "train/batch.h"

#include "core/context.h"
#include "core/random.h"
#include "data/dataset.h"
#include "data/order.h"

enum { STEP = 64 }; /* tokens and rows are padded to multiples of it, so that few shapes of graphs occur */

static int rounded(int n)
{
    return (n + STEP - 1) / STEP * STEP;
}

bool geul_batcher_init(struct geul_batcher *b, struct geul_context *ctx, const struct geul_dataset *data,
                       const struct geul_train_options *o, int n_context, int32_t end_token, bool shuffle)
{
    *b = (struct geul_batcher){.ctx = ctx,
                               .data = data,
                               .n_context = n_context,
                               .n_batch = o->n_batch,
                               .worker = o->worker,
                               .n_workers = o->n_workers > 0 ? o->n_workers : 1,
                               .packing = o->packing,
                               .attend_across_documents = o->attend_across_documents,
                               .shuffle = shuffle,
                               .end_token = end_token,
                               .seed = o->seed,
                               .capacity = o->n_batch * n_context};
    if (geul_batcher_epoch(b) < 1) {
        geul_fail(ctx, GEUL_ERROR_ARGUMENT, "the data has %lld samples, too few for %d workers",
                  (long long)geul_dataset_sample_count(data), b->n_workers);
        return false;
    }
    b->ids = geul_alloc(ctx, (size_t)n_context + 1, sizeof *b->ids);
    b->target = geul_alloc(ctx, (size_t)n_context + 1, sizeof *b->target);
    return b->ids && b->target;
}

void geul_batcher_free(struct geul_batcher *b)
{
    geul_free(b->ctx, b->ids);
    geul_free(b->ctx, b->target);
    b->ids = NULL;
    b->target = NULL;
}

int64_t geul_batcher_epoch(const struct geul_batcher *b)
{
    return geul_dataset_sample_count(b->data) / b->n_workers;
}

int geul_batcher_most_tokens(const struct geul_batcher *b)
{
    return rounded(b->capacity);
}

bool geul_batch_init(struct geul_batch *batch, struct geul_context *ctx, int most_tokens)
{
    size_t n = (size_t)most_tokens;
    *batch = (struct geul_batch){0};
    batch->ids = geul_alloc(ctx, n, sizeof *batch->ids);
    batch->seq_pos = geul_alloc(ctx, n, 2 * sizeof *batch->seq_pos);
    batch->rows = geul_alloc(ctx, n, sizeof *batch->rows);
    batch->targets = geul_alloc(ctx, n, sizeof *batch->targets);
    return batch->ids && batch->seq_pos && batch->rows && batch->targets;
}

void geul_batch_free(struct geul_batch *batch, struct geul_context *ctx)
{
    geul_free(ctx, batch->ids);
    geul_free(ctx, batch->seq_pos);
    geul_free(ctx, batch->rows);
    geul_free(ctx, batch->targets);
    *batch = (struct geul_batch){0};
}

/* The sample at a position of the run: every pass over the data has its own order, dealt to the workers in turn. What
 * does not divide among them, fewer samples than workers, is left out of that pass. */
static int64_t sample_at(const struct geul_batcher *b, int64_t position)
{
    int64_t epoch = geul_batcher_epoch(b), i = position % epoch * b->n_workers + b->worker;
    if (!b->shuffle)
        return i;
    return geul_permute(geul_random_bits(b->seed, (uint64_t)(position / epoch)), geul_dataset_sample_count(b->data), i);
}

/* Positions that sample i takes: its last id is only a target. */
static int positions_of(const struct geul_batcher *b, int64_t i)
{
    int n = geul_dataset_length(b->data, i) - 1;
    return n < b->n_context ? n : b->n_context;
}

/* Appends the first n + 1 ids of sample i to the batch. In a window, attention stops at the end of each document; the
 * turns of a conversation attend to each other in spite of their end tokens. */
static void append(struct geul_batcher *b, struct geul_batch *batch, int64_t i, int n)
{
    const bool cut = !b->attend_across_documents && geul_dataset_is_window(b->data, i);
    int start = 0, sequence = (int)batch->samples, at = batch->n_tokens;
    geul_dataset_read(b->data, i, n + 1, b->ids, b->target);
    for (int k = 0; k < n; k++, at++) {
        if (k > 0 && cut && b->ids[k - 1] == b->end_token)
            start = k; /* position 0 again: a token attends to as many tokens before it as its position says */
        batch->ids[at] = b->ids[k];
        batch->seq_pos[2 * at] = sequence;
        batch->seq_pos[2 * at + 1] = k - start;
        if (!b->target[k + 1])
            continue;
        batch->rows[batch->n_rows] = at;
        batch->targets[batch->n_rows++] = b->ids[k + 1];
    }
    batch->n_tokens = at;
    batch->samples++;
}

/* Fills up to the next multiples. Padding tokens have position 0 and so attend to themselves alone; padding rows have
 * weight 0 in the loss, and target -1. */
static void pad(struct geul_batch *batch)
{
    batch->tokens = batch->n_tokens;
    batch->n_targets = batch->n_rows;
    for (int end = rounded(batch->n_tokens); batch->n_tokens < end; batch->n_tokens++) {
        batch->ids[batch->n_tokens] = 0;
        batch->seq_pos[2 * batch->n_tokens] = (int32_t)batch->samples;
        batch->seq_pos[2 * batch->n_tokens + 1] = 0;
    }
    for (int end = rounded(batch->n_rows); batch->n_rows < end; batch->n_rows++) {
        /* row r is token r, so that where every token has a target all_rows holds, and nothing is gathered */
        batch->rows[batch->n_rows] = batch->n_rows < batch->n_tokens ? batch->n_rows : 0;
        batch->targets[batch->n_rows] = -1;
    }
    batch->all_rows = batch->n_rows == batch->n_tokens;
    for (int r = 0; r < batch->n_rows && batch->all_rows; r++)
        batch->all_rows = batch->rows[r] == r;
}

/* Whether a batch that holds so many samples and tokens takes a sample of n positions too. An empty one always does:
 * n <= n_context <= capacity. Without packing, n_batch samples of at most n_context positions fit as well. */
static bool takes(const struct geul_batcher *b, int64_t samples, int64_t tokens, int n)
{
    return b->packing ? tokens + n <= b->capacity : samples < b->n_batch;
}

void geul_batcher_skip(struct geul_batcher *b, int64_t end)
{
    int64_t samples = 0, tokens = 0;
    for (; b->position < end; b->position++, samples++) {
        int n = positions_of(b, sample_at(b, b->position));
        if (!takes(b, samples, tokens, n))
            break;
        tokens += n;
    }
}

void geul_batcher_next(struct geul_batcher *b, struct geul_batch *batch, int64_t end)
{
    batch->n_tokens = batch->n_rows = 0;
    batch->samples = 0;
    for (; b->position < end; b->position++) {
        int64_t i = sample_at(b, b->position);
        int n = positions_of(b, i);
        if (!takes(b, batch->samples, batch->n_tokens, n))
            break;
        append(b, batch, i, n);
    }
    pad(batch);
}
