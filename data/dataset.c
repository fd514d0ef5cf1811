/* dataset.c: training samples (geul.h, dataset.h). Per token 4 bytes and a bit in memory, nothing for shards. */
#include "data/dataset.h"

#include "data/encode_sample.h"
#include "data/shard.h"

#include <limits.h>
#include <string.h>

enum { MOST_CONTEXT = 1 << 24 };

/* Consecutive samples of one kind: all in memory, or the windows of one shard. Runs are in the order of the samples,
 * and every sample belongs to one. A shard of count tokens has windows that share their borders, because the last id of
 * a window is only a target:
 *
 *     shard    0 1 2 ... n n+1 ... 2n 2n+1 ...     n = n_context
 *     window 0 [-- n+1 --]
 *     window 1           [-- n+1 ---]              begins with the id that window 0 ends with
 */
struct run {
    int64_t first;            /* sample */
    struct geul_shard *shard; /* NULL: in memory */
    size_t start;             /* in memory: the number of the first sample among those in memory */
    int n_context;            /* of a shard's windows */
};

struct geul_dataset {
    struct geul_context *ctx;
    int32_t *ids; /* of all samples in memory */
    size_t n_ids, id_capacity;
    unsigned char *targets; /* a bit per id */
    size_t target_capacity; /* bytes */
    size_t *ends;           /* where each sample in memory ends in ids */
    size_t n_ends, end_capacity;
    struct run *runs;
    size_t n_runs, run_capacity;
    int64_t samples, tokens, target_count;
    int32_t highest;
    int longest;
};

struct geul_dataset *geul_dataset_new(struct geul_context *ctx)
{
    struct geul_dataset *d = geul_alloc(ctx, 1, sizeof *d);
    if (!d)
        return NULL;
    d->ctx = ctx;
    d->highest = -1;
    return d;
}

void geul_dataset_free(struct geul_dataset *d)
{
    if (!d)
        return;
    for (size_t i = 0; i < d->n_runs; i++)
        geul_shard_close(d->runs[i].shard);
    geul_free(d->ctx, d->ids);
    geul_free(d->ctx, d->targets);
    geul_free(d->ctx, d->ends);
    geul_free(d->ctx, d->runs);
    geul_free(d->ctx, d);
}

/* --------------------------------------------------------------------------------- in memory -- */

static void set_target(struct geul_dataset *d, size_t at, bool target)
{
    unsigned char bit = (unsigned char)(1 << at % 8);
    d->targets[at / 8] = (unsigned char)((d->targets[at / 8] & ~bit) | (target ? bit : 0));
}

/* Counts n samples that have been added, with `tokens` ids and `targets` targets in all. */
static void count(struct geul_dataset *d, int64_t n, int64_t tokens, int64_t targets, int longest, int32_t highest)
{
    d->samples += n;
    d->tokens += tokens;
    d->target_count += targets;
    d->longest = longest > d->longest ? longest : d->longest;
    d->highest = highest > d->highest ? highest : d->highest;
}

/* Checks a sample; counts its targets. The first id is none: nothing predicts it. */
static enum geul_status check(struct geul_context *ctx, const int32_t *ids, const bool *target, int n, int *targets,
                              int32_t *highest)
{
    *targets = 0;
    *highest = -1;
    if (n < 2)
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "a sample of %d tokens; at least 2 are needed", n);
    for (int i = 0; i < n; i++) {
        if (ids[i] < 0)
            return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "token %d of a sample has the negative id %d", i, ids[i]);
        *targets += i > 0 && (!target || target[i]);
        *highest = ids[i] > *highest ? ids[i] : *highest;
    }
    if (*targets == 0)
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "a sample of %d tokens has no target: there is nothing to learn", n);
    return GEUL_OK;
}

enum geul_status geul_dataset_add(struct geul_dataset *d, const int32_t *ids, const bool *target, int n)
{
    int targets;
    int32_t highest;
    geul_error_clear(d->ctx);
    if (check(d->ctx, ids, target, n, &targets, &highest) != GEUL_OK)
        return geul_error_status(d->ctx);
    size_t length = (size_t)n, total;
    bool new_run = d->n_runs == 0 || d->runs[d->n_runs - 1].shard;
    if (!geul_add_size(d->n_ids, length, &total) ||
        !geul_reserve(d->ctx, &d->ids, &d->id_capacity, total, sizeof *d->ids) ||
        !geul_reserve(d->ctx, &d->targets, &d->target_capacity, total / 8 + 1, sizeof *d->targets) ||
        !geul_reserve(d->ctx, &d->ends, &d->end_capacity, d->n_ends + 1, sizeof *d->ends) ||
        !geul_reserve(d->ctx, &d->runs, &d->run_capacity, d->n_runs + 1, sizeof *d->runs))
        return GEUL_ERROR_MEMORY;
    /* All memory is there: from here on the sample is added whole. */
    if (new_run)
        d->runs[d->n_runs++] = (struct run){.first = d->samples, .start = d->n_ends};
    memcpy(d->ids + d->n_ids, ids, length * sizeof *ids);
    for (size_t i = 0; i < length; i++)
        set_target(d, d->n_ids + i, i > 0 && (!target || target[i]));
    d->n_ids = d->ends[d->n_ends++] = total;
    count(d, 1, n, targets, n, highest);
    return GEUL_OK;
}

/* Adds an encoded sample and frees it. */
static enum geul_status add_sample(struct geul_dataset *d, enum geul_status status, struct geul_sample *s)
{
    if (status == GEUL_OK && s->n > INT_MAX)
        status = geul_fail(d->ctx, GEUL_ERROR_ARGUMENT, "a sample of %zu tokens is too long", s->n);
    if (status == GEUL_OK)
        status = geul_dataset_add(d, s->ids, s->target, (int)s->n);
    geul_sample_free(d->ctx, s);
    return status;
}

enum geul_status geul_dataset_add_turns(struct geul_dataset *d, const struct geul_tokenizer *tok,
                                        const struct geul_template *t, const struct geul_turn *turns, int n,
                                        const char *input, bool whole)
{
    const struct geul_conversation c = {.turns = turns, .n = n, .input = input, .whole = whole};
    struct geul_sample s;
    return add_sample(d, geul_sample_of_turns(d->ctx, tok, t, &c, &s), &s);
}

enum geul_status geul_dataset_add_answer(struct geul_dataset *d, const struct geul_tokenizer *tok,
                                         const struct geul_template *t, const char *question, const char *input,
                                         const char *answer, bool whole)
{
    return geul_dataset_add_turns(d, tok, t, &(struct geul_turn){question, answer}, 1, input, whole);
}

enum geul_status geul_dataset_add_text(struct geul_dataset *d, const struct geul_tokenizer *tok, const char *text,
                                       size_t length)
{
    struct geul_sample s;
    return add_sample(d, geul_sample_of_text(d->ctx, tok, text, length, false, &s), &s);
}

/* ------------------------------------------------------------------------------------ shards -- */

/* Fails unless s has tokens like those of the shards before it. */
static enum geul_status check_shard(const struct geul_dataset *d, const struct geul_shard *s, int n_context)
{
    if (n_context < 1 || n_context > MOST_CONTEXT)
        return geul_fail(d->ctx, GEUL_ERROR_ARGUMENT, "windows of %d tokens; 1 to %d are possible", n_context,
                         MOST_CONTEXT);
    for (size_t i = 0; i < d->n_runs; i++)
        if (d->runs[i].shard && !geul_shard_kinds_equal(geul_shard_get_kind(d->runs[i].shard), geul_shard_get_kind(s)))
            return geul_fail(d->ctx, GEUL_ERROR_ARGUMENT, "%s and %s were made with different tokenizers",
                             geul_shard_name(d->runs[i].shard), geul_shard_name(s));
    return GEUL_OK;
}

enum geul_status geul_dataset_add_shard(struct geul_dataset *d, const char *path, int n_context)
{
    geul_error_clear(d->ctx);
    struct geul_shard *s = geul_shard_open(d->ctx, path);
    if (!s)
        return geul_error_status(d->ctx);
    enum geul_status status = check_shard(d, s, n_context);
    bool single = geul_shard_count(s) < 2; /* what was left at the end of a corpus: nothing to predict */
    if (status != GEUL_OK || single ||
        !geul_reserve(d->ctx, &d->runs, &d->run_capacity, d->n_runs + 1, sizeof *d->runs)) {
        geul_shard_close(s);
        return geul_error_status(d->ctx); /* OK for the single one */
    }
    int64_t targets = (int64_t)geul_shard_count(s) - 1, windows = (targets - 1) / n_context + 1;
    int longest = (targets < n_context ? (int)targets : n_context) + 1;
    d->runs[d->n_runs++] = (struct run){.first = d->samples, .shard = s, .n_context = n_context};
    count(d, windows, targets + windows, targets, longest, geul_shard_get_kind(s)->n_vocab - 1);
    return GEUL_OK;
}

enum geul_status geul_dataset_check_tokenizer(struct geul_context *ctx, const struct geul_dataset *d,
                                              const struct geul_tokenizer *tok)
{
    const struct geul_shard *first = NULL;
    for (size_t i = 0; i < d->n_runs && !first; i++)
        first = d->runs[i].shard;
    if (!first) /* all shards of a dataset are alike */
        return GEUL_OK;
    struct geul_shard_kind kind = geul_shard_kind_of(tok);
    const struct geul_shard_kind *held = geul_shard_get_kind(first);
    if (geul_shard_kinds_equal(held, &kind))
        return GEUL_OK;
    return geul_fail(ctx, GEUL_ERROR_ARGUMENT,
                     "%s was made with another tokenizer (%d tokens, hash %016llx) than the model's (%d tokens, hash "
                     "%016llx): write it again with the model's",
                     geul_shard_name(first), held->n_vocab, (unsigned long long)held->hash, kind.n_vocab,
                     (unsigned long long)kind.hash);
}

/* ----------------------------------------------------------------------------------- reading -- */

int64_t geul_dataset_sample_count(const struct geul_dataset *d)
{
    return d->samples;
}

int64_t geul_dataset_token_count(const struct geul_dataset *d)
{
    return d->tokens;
}

int64_t geul_dataset_target_count(const struct geul_dataset *d)
{
    return d->target_count;
}

int32_t geul_dataset_highest_id(const struct geul_dataset *d)
{
    return d->highest;
}

int geul_dataset_longest(const struct geul_dataset *d)
{
    return d->longest;
}

/* Where the ids of a sample are. */
struct sample_span {
    const struct geul_shard *shard; /* NULL: in d->ids */
    size_t first;
    int n;
};

/* Finds sample i, which must exist. */
static struct sample_span find(const struct geul_dataset *d, int64_t i)
{
    size_t low = 0, high = d->n_runs; /* the run lies in [low, high) */
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (d->runs[middle].first <= i)
            low = middle;
        else
            high = middle;
    }
    const struct run *r = &d->runs[low];
    size_t k = (size_t)(i - r->first);
    if (r->shard) {
        size_t begin = k * (size_t)r->n_context, rest = (size_t)geul_shard_count(r->shard) - begin;
        size_t most = (size_t)r->n_context + 1;
        return (struct sample_span){r->shard, begin, (int)(rest < most ? rest : most)};
    }
    size_t number = r->start + k, begin = number ? d->ends[number - 1] : 0;
    return (struct sample_span){NULL, begin, (int)(d->ends[number] - begin)};
}

bool geul_dataset_is_window(const struct geul_dataset *d, int64_t i)
{
    return i >= 0 && i < d->samples && find(d, i).shard;
}

int geul_dataset_length(const struct geul_dataset *d, int64_t i)
{
    return i >= 0 && i < d->samples ? find(d, i).n : 0;
}

void geul_dataset_read(const struct geul_dataset *d, int64_t i, int n, int32_t *ids, bool *target)
{
    struct sample_span p = find(d, i);
    if (ids && p.shard)
        geul_shard_read(p.shard, p.first, (size_t)n, ids);
    else if (ids)
        memcpy(ids, d->ids + p.first, (size_t)n * sizeof *ids);
    for (int k = 0; target && k < n; k++) {
        size_t at = p.first + (size_t)k;
        target[k] = p.shard ? k > 0 : d->targets[at / 8] >> at % 8 & 1;
    }
}
