/* batch.c: see batch.h. */
#include "train/batch.h"

#include "core/context.h"
#include "core/random.h"
#include "data/dataset.h"
#include "data/order.h"

enum { STEP = 64 }; /* tokens and rows come in multiples of it */

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
                               .see_across = o->see_across,
                               .shuffle = shuffle,
                               .end_token = end_token,
                               .seed = o->seed,
                               .capacity = o->n_batch * n_context};
    if (geul_batcher_epoch(b) < 1) {
        geul_fail(ctx, GEUL_ERROR_ARGUMENT, "the data has %lld samples, too few for %d workers",
                  (long long)geul_dataset_samples(data), b->n_workers);
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
    return geul_dataset_samples(b->data) / b->n_workers;
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
    batch->place = geul_alloc(ctx, n, 2 * sizeof *batch->place);
    batch->rows = geul_alloc(ctx, n, sizeof *batch->rows);
    batch->targets = geul_alloc(ctx, n, sizeof *batch->targets);
    return batch->ids && batch->place && batch->rows && batch->targets;
}

void geul_batch_free(struct geul_batch *batch, struct geul_context *ctx)
{
    geul_free(ctx, batch->ids);
    geul_free(ctx, batch->place);
    geul_free(ctx, batch->rows);
    geul_free(ctx, batch->targets);
    *batch = (struct geul_batch){0};
}

/* The sample at a position of the run: every pass over the data has an order of its own, dealt to the workers in turn.
 */
static int64_t sample_at(const struct geul_batcher *b, int64_t position)
{
    int64_t epoch = geul_batcher_epoch(b), i = position % epoch * b->n_workers + b->worker;
    if (!b->shuffle)
        return i;
    return geul_permute(geul_random_bits(b->seed, (uint64_t)(position / epoch)), geul_dataset_samples(b->data), i);
}

/* Positions that sample i takes: its last id is only a target. */
static int positions_of(const struct geul_batcher *b, int64_t i)
{
    int n = geul_dataset_length(b->data, i) - 1;
    return n < b->n_context ? n : b->n_context;
}

/* Appends the first n + 1 ids of sample i to the batch. Where a window holds several documents, the end of one ends
 * what later tokens see; the turns of a conversation, each with its end, see each other. */
static void append(struct geul_batcher *b, struct geul_batch *batch, int64_t i, int n)
{
    const bool cut = !b->see_across && geul_dataset_is_window(b->data, i);
    int start = 0, sequence = (int)batch->samples, at = batch->n_tokens;
    geul_dataset_read(b->data, i, n + 1, b->ids, b->target);
    for (int k = 0; k < n; k++, at++) {
        if (k > 0 && cut && b->ids[k - 1] == b->end_token)
            start = k;
        batch->ids[at] = b->ids[k];
        batch->place[2 * at] = sequence;
        batch->place[2 * at + 1] = k - start;
        if (!b->target[k + 1])
            continue;
        batch->rows[batch->n_rows] = at;
        batch->targets[batch->n_rows++] = b->ids[k + 1];
    }
    batch->n_tokens = at;
    batch->samples++;
}

/* Fills up to the next multiples. */
static void pad(struct geul_batch *batch)
{
    batch->tokens = batch->n_tokens;
    batch->n_targets = batch->n_rows;
    for (int end = rounded(batch->n_tokens); batch->n_tokens < end; batch->n_tokens++) {
        batch->ids[batch->n_tokens] = 0;
        batch->place[2 * batch->n_tokens] = (int32_t)batch->samples;
        batch->place[2 * batch->n_tokens + 1] = 0;
    }
    for (int end = rounded(batch->n_rows); batch->n_rows < end; batch->n_rows++) {
        batch->rows[batch->n_rows] = batch->n_rows < batch->n_tokens ? batch->n_rows : 0;
        batch->targets[batch->n_rows] = -1;
    }
    batch->all_rows = batch->n_rows == batch->n_tokens;
    for (int r = 0; r < batch->n_rows && batch->all_rows; r++)
        batch->all_rows = batch->rows[r] == r;
}

/* Whether a batch that holds so much takes a sample of n positions too. */
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
