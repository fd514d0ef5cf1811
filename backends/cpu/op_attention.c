/* op_attention.c: STORE into the KV cache and ATTENTION over it or over the tokens' own keys, without a T x T buffer.
 *
 * T tokens, H heads, D values of a head, C positions of a sequence. Token t is the query at position p = seq_pos[t][1]
 * of its sequence and attends to positions 0..p of it. Softmax is streamed: the scores of a tile of KEYS positions are
 * turned into weights under the largest score so far, and what was summed before is scaled down when a larger one
 * comes. It restarts every SPAN positions, and the spans of a query are folded together in order:
 *
 *   position  0       64      128     192     256                             512        p
 *             | tile  | tile  | tile  | tile  | tile  | tile  | tile  | tile  | tile  | t |
 *             | span 0: max, sum, y           | span 1: max, sum, y           | span 2    |
 *
 *   tile: s = factor * (q . k) for each key, factor = scale * log2(e), so that weights are powers of 2;
 *         new = the largest of s and max; sum, y *= 2^(max - new); sum += 2^(s - new); y += 2^(s - new) * v
 *   fold: (span 0 + span 1) + span 2, both sides scaled to the larger max before each sum; at the end y /= sum
 *
 * Tiles and spans are counted from position 0, and a query's sums are the same operations in the same order whether it
 * is computed alone or with others (kernels.def). So its result depends on its sequence up to its position and on
 * nothing else: not on the batch it came in, and not on the threads, which may share the spans of one head.
 *
 * The tokens' own keys (T, H, D) are read as a cache in which sequences overlap: sequence s begins at token s. */
#include "backends/cpu/attention.h"

#include <math.h>
#include <string.h>

enum {
    QUERIES = 128, /* most tokens of a unit of work: how often keys and values widened to float32 are used */
    FEWEST = 32,   /* tokens of a unit when there is little work for many threads */
    GROUP = 16,    /* queries whose scores and sums stay in the first-level cache */
    QUAD = 4,      /* queries that the tile kernels take together */
    KEYS = 64,     /* positions of a tile */
    SPAN = 256,    /* positions after which the softmax restarts: the smallest unit of work split over threads */
    FEW = 4,       /* fewer queries than this read the cache directly, without widening it first */
    UNITS = 8,     /* units of work per thread that are aimed at */
    HEAD = 16,     /* floats before the sums of a part: its max and sum */
    PART_BYTES = 1 << 24,
};

static const int32_t *seq_pos_of(const struct geul_tensor *seq_pos, size_t token)
{
    return geul_cpu_row(seq_pos, token);
}

/* A token's sequence and its position there. */
struct seat {
    int64_t seq, position;
};

static bool inside(const struct geul_tensor *cache, struct seat seat)
{
    return seat.seq >= 0 && seat.seq < cache->shape[0] && seat.position >= 0 && seat.position < cache->shape[2];
}

static uint8_t *cache_row(const struct geul_tensor *cache, int64_t seq, size_t head, size_t position)
{
    return (uint8_t *)cache->data + (size_t)seq * cache->stride[0] + head * cache->stride[1] +
           position * cache->stride[2];
}

/* Threads share the heads, not the tokens, so that of two tokens for one position the later always wins. */
static void run_store(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    const struct geul_tensor *cache = t->src[0], *x = t->src[1], *seq_pos = t->src[2];
    size_t heads = (size_t)x->shape[1], depth = (size_t)x->shape[2], from, to;
    geul_cpu_share(run, heads, &from, &to);
    for (size_t i = 0; i < (size_t)x->shape[0]; i++) {
        const int32_t *at = seq_pos_of(seq_pos, i);
        for (size_t h = from; h < to && inside(cache, (struct seat){at[0], at[1]}); h++)
            run->kernels->narrow[cache->type](cache_row(cache, at[0], h, (size_t)at[1]), geul_cpu_row(x, i * heads + h),
                                              depth);
    }
}

static bool store_supports(const struct geul_cpu_kernels *kernels, const struct geul_tensor *t)
{
    return kernels->narrow[t->src[0]->type] != NULL;
}

/* ------------------------------------------------------------------------------------- a run -- */

/* What a thread works with. Sizes in floats. */
struct job {
    const struct geul_cpu_kernels *kernels;
    const struct geul_tensor *t, *seq_pos;
    struct geul_tensor k, v;    /* (S, H, C, D), or as_cache() */
    bool own;                   /* they are the tokens' own */
    size_t heads, depth, spans; /* spans: of the token with the longest context */
    float factor;               /* q . k times this is an exponent of 2 */
    float *queries, *sums;      /* (QUERIES, D) */
    float *keys, *values;       /* (KEYS, D) */
    float *scores;              /* (GROUP, KEYS) */
    float *parts;               /* (T, H, spans, part), or NULL when one thread does all spans of a head */
    size_t part;
};

/* Tokens of one sequence, one head. */
struct queries {
    size_t first, n, head, deepest; /* deepest: the most of seen */
    int64_t seq;
    size_t seen[QUERIES];                         /* positions that each attends to: 0..seen-1 */
    float max[QUERIES], sum[QUERIES];             /* of this span */
    float total_max[QUERIES], total_sum[QUERIES]; /* of the spans before, folded */
};

/* Keys or values as a cache. Own ones (T, H, D) as (T, H, T, D), where position p of sequence s is token s + p. */
static struct geul_tensor as_cache(const struct geul_tensor *x)
{
    struct geul_tensor cache = *x;
    if (x->n_dims == 3) {
        cache.n_dims = 4;
        cache.shape[2] = x->shape[0];
        cache.stride[2] = x->stride[0];
        cache.shape[3] = x->shape[2];
        cache.stride[3] = x->stride[2];
    }
    return cache;
}

static struct seat seat_of(const struct job *j, size_t token)
{
    const int32_t *at = seq_pos_of(j->seq_pos, token);
    return (struct seat){j->own ? (int64_t)token - at[1] : at[0], at[1]};
}

static size_t spans_of(size_t positions)
{
    return (positions + SPAN - 1) / SPAN;
}

/* How many of the n positions from `from` on query i attends to: always the first ones, as its context has no gaps. */
static size_t visible(const struct queries *q, size_t i, size_t from, size_t n)
{
    size_t seen = q->seen[i] > from ? q->seen[i] - from : 0;
    return seen < n ? seen : n;
}

/* Turns the scores of query i for n keys into weights, and scales its sums of values so far down to the new maximum. */
static void weigh(const struct job *j, struct queries *q, size_t i, float *scores, size_t n)
{
    float before = j->kernels->softmax(scores, n, j->factor, &q->max[i], &q->sum[i]);
    if (before != 1)
        j->kernels->scale(j->sums + i * j->depth, before, j->depth);
}

/* One tile for each query by itself, read directly from the cache. */
static void attend_few(const struct job *j, struct queries *q, size_t from, size_t n_keys)
{
    const uint8_t *k = cache_row(&j->k, q->seq, q->head, from), *v = cache_row(&j->v, q->seq, q->head, from);
    for (size_t i = 0; i < q->n; i++) {
        size_t n = visible(q, i, from, n_keys);
        if (n == 0)
            continue;
        j->kernels->score[j->k.type](j->scores, k, j->k.stride[2], j->queries + i * j->depth, n, j->depth);
        weigh(j, q, i, j->scores, n);
        j->kernels->mix[j->v.type](j->sums + i * j->depth, v, j->v.stride[2], j->scores, n, j->depth);
    }
}

/* Adds the weighted values of one tile to queries [at, at + n) of a group that starts at `group`. Positions that all of
 * them attend to are added for all together; the rest, one query at a time. Each element of a sum takes the positions
 * in order either way. */
static void mix_values(const struct job *j, struct queries *q, size_t group, size_t at, size_t n, size_t from,
                       size_t n_keys)
{
    size_t common = n % QUAD ? 0 : n_keys;
    const float *weights = j->scores + (at - group) * KEYS;
    float *sums = j->sums + at * j->depth;
    for (size_t i = 0; i < n; i++) {
        size_t seen = visible(q, at + i, from, n_keys);
        common = seen < common ? seen : common;
    }
    if (common)
        j->kernels->mix_tile(sums, j->values, weights, KEYS, 1, n, common, j->depth);
    for (size_t i = 0; i < n; i++) {
        size_t seen = visible(q, at + i, from, n_keys);
        if (seen > common)
            j->kernels->mix[GEUL_TYPE_F32](sums + i * j->depth, j->values + common * j->depth, j->depth * sizeof(float),
                                           weights + i * KEYS + common, seen - common, j->depth);
    }
}

/* Prefetches the share of group `group` of n of the next tile's rows, so that they arrive while groups are computed. */
static void fetch_next(const struct job *j, const struct queries *q, size_t from, size_t group, size_t n)
{
    const struct geul_tensor *const caches[] = {&j->k, &j->v};
    for (int c = 0; c < 2; c++)
        for (size_t row = from + group * KEYS / n; row < from + (group + 1) * KEYS / n && row < q->deepest; row++) {
            const uint8_t *p = cache_row(caches[c], q->seq, q->head, row);
            for (size_t i = 0; i < caches[c]->stride[2]; i += 64)
                __builtin_prefetch(p + i);
        }
}

/* One tile for many queries: keys and values become float32 once. A group is scored with all rows of the tile that any
 * of its queries attends to. */
static void attend_many(const struct job *j, struct queries *q, size_t from, size_t n_keys)
{
    const struct geul_cpu_kernels *kernels = j->kernels;
    kernels->widen[j->k.type](j->keys, cache_row(&j->k, q->seq, q->head, from), j->k.stride[2], n_keys, j->depth);
    kernels->widen[j->v.type](j->values, cache_row(&j->v, q->seq, q->head, from), j->v.stride[2], n_keys, j->depth);
    for (size_t group = 0; group < q->n; group += GROUP) {
        size_t n = q->n - group < GROUP ? q->n - group : GROUP, most = 0, least = n_keys;
        for (size_t i = 0; i < n; i++) {
            size_t seen = visible(q, group + i, from, n_keys);
            most = seen > most ? seen : most;
            least = seen < least ? seen : least;
        }
        fetch_next(j, q, from + KEYS, group / GROUP, (q->n + GROUP - 1) / GROUP);
        if (most == 0)
            continue;
        /* Whole quads of both: up to three rows of each are stale or of no use. The causal mask is that each query
         * below reads only its first `seen` scores, so these never count. */
        kernels->score_tile(j->scores, KEYS, j->queries + group * j->depth, geul_cpu_round_up(n, QUAD), j->keys,
                            geul_cpu_round_up(most, QUAD), j->depth);
        for (size_t i = 0; i < n; i++) {
            size_t seen = visible(q, group + i, from, n_keys);
            if (seen > 0)
                weigh(j, q, group + i, j->scores + i * KEYS, seen);
        }
        /* Away from the diagonal all attend to the same positions, and one call serves the group. */
        size_t step = least == most && n % QUAD == 0 ? n : QUAD;
        for (size_t i = 0; i < n; i += step)
            mix_values(j, q, group, group + i, n - i < step ? n - i : step, from, n_keys);
    }
}

/* ------------------------------------------------------------------------------------- spans -- */

/* Folds the next span of a query (sums of values, maximum, sum of weights) into out and its totals, in order. */
static void fold(const struct geul_cpu_kernels *kernels, float *out, float *total_max, float *total_sum, bool first,
                 const float *part, float max, float sum, size_t depth)
{
    if (first) {
        memcpy(out, part, depth * sizeof *out);
        *total_max = max;
        *total_sum = sum;
        return;
    }
    float high = *total_max > max ? *total_max : max, a = exp2f(*total_max - high), b = exp2f(max - high);
    kernels->blend(out, a, part, b, depth);
    *total_sum = *total_sum * a + sum * b;
    *total_max = high;
}

static float *result_row(const struct job *j, size_t token, size_t head)
{
    return geul_cpu_row(j->t, token * j->heads + head);
}

static float *part_row(const struct job *j, size_t token, size_t head, size_t span)
{
    return j->parts + ((token * j->heads + head) * j->spans + span) * j->part;
}

/* Writes what query i got from the span to its part, or folds it into the result at once. */
static void deliver(const struct job *j, struct queries *q, size_t i, size_t span)
{
    const float *sums = j->sums + i * j->depth;
    if (!j->parts) {
        fold(j->kernels, result_row(j, q->first + i, q->head), &q->total_max[i], &q->total_sum[i], span == 0, sums,
             q->max[i], q->sum[i], j->depth);
        return;
    }
    float *part = part_row(j, q->first + i, q->head, span);
    part[0] = q->max[i];
    part[1] = q->sum[i];
    memcpy(part + HEAD, sums, j->depth * sizeof *part);
}

/* One span of all queries. The state of the softmax starts from nothing, whoever computed the spans before. */
static void attend_span(const struct job *j, struct queries *q, size_t span)
{
    size_t start = span * SPAN, end = start + SPAN < q->deepest ? start + SPAN : q->deepest;
    memset(j->sums, 0, q->n * j->depth * sizeof *j->sums);
    for (size_t i = 0; i < q->n; i++) {
        q->max[i] = -INFINITY;
        q->sum[i] = 0;
    }
    for (size_t from = start; from < end; from += KEYS) {
        size_t n_keys = end - from < KEYS ? end - from : KEYS;
        if (q->n < FEW)
            attend_few(j, q, from, n_keys);
        else
            attend_many(j, q, from, n_keys);
    }
    for (size_t i = 0; i < q->n; i++)
        if (q->seen[i] > start)
            deliver(j, q, i, span);
}

/* How many tokens from first on, before end, are of one sequence and inside the cache. */
static size_t run_of_sequence(const struct job *j, size_t first, size_t end)
{
    int64_t seq = seat_of(j, first).seq;
    size_t n = 0;
    while (first + n < end && inside(&j->k, seat_of(j, first + n)) && seat_of(j, first + n).seq == seq)
        n++;
    return n;
}

/* Spans [from, to) of one head of n tokens of one sequence. */
static void attend_run(const struct job *j, size_t first, size_t n, size_t head, size_t from, size_t to)
{
    struct queries q = {.first = first, .n = n, .head = head, .seq = seat_of(j, first).seq};
    const struct geul_tensor *x = j->t->src[0];
    for (size_t i = 0; i < n; i++) {
        q.seen[i] = (size_t)seat_of(j, first + i).position + 1;
        q.deepest = q.seen[i] > q.deepest ? q.seen[i] : q.deepest;
        memcpy(j->queries + i * j->depth, geul_cpu_row(x, (first + i) * j->heads + head), j->depth * sizeof(float));
    }
    for (size_t span = from; span < to && span * SPAN < q.deepest; span++)
        attend_span(j, &q, span);
    for (size_t i = 0; i < n && !j->parts; i++)
        j->kernels->scale(result_row(j, first + i, head), 1 / q.total_sum[i], j->depth);
}

/* Spans [from, to) of one head of tokens [first, end), a run of one sequence at a time. Tokens outside the cache get
 * NaN: there is nothing they could attend to. */
static void attend_unit(const struct job *j, size_t first, size_t end, size_t head, size_t from, size_t to)
{
    while (first < end) {
        size_t n = run_of_sequence(j, first, end);
        if (n > 0) {
            attend_run(j, first, n, head, from, to);
        } else if (from == 0) {
            float *out = result_row(j, first, head);
            for (size_t i = 0; i < j->depth; i++)
                out[i] = NAN;
        }
        first += n > 0 ? n : 1;
    }
}

/* Folds the parts of this thread's share of tokens times heads: the operations of deliver(), in the same order. */
static void fold_parts(const struct job *j, struct geul_cpu_run *run)
{
    size_t from, to;
    geul_cpu_barrier(run);
    geul_cpu_share(run, (size_t)j->t->shape[0] * j->heads, &from, &to);
    for (size_t i = from; i < to; i++) {
        size_t token = i / j->heads, head = i % j->heads;
        struct seat at = seat_of(j, token);
        float *out = result_row(j, token, head), max = 0, sum = 1;
        if (!inside(&j->k, at))
            continue;
        for (size_t span = 0; span < spans_of((size_t)at.position + 1); span++) {
            const float *part = part_row(j, token, head, span);
            fold(j->kernels, out, &max, &sum, span == 0, part + HEAD, part[0], part[1], j->depth);
        }
        j->kernels->scale(out, 1 / sum, j->depth);
    }
}

/* ------------------------------------------------------------------------------------ the op -- */

/* Units of work: heads times blocks of tokens. */
static size_t units_of(const struct geul_tensor *t, size_t block)
{
    return ((size_t)t->shape[0] + block - 1) / block * (size_t)t->shape[1];
}

/* Tokens of a unit of work. */
static size_t block_of(const struct geul_tensor *t, int n_threads)
{
    size_t block = QUERIES;
    while (block > FEWEST && units_of(t, block) < UNITS * (size_t)n_threads)
        block /= 2;
    return block;
}

static size_t part_floats(size_t depth)
{
    return HEAD + geul_cpu_round_up(depth, HEAD);
}

/* Bytes of the parts when the cache is full; 0 when one thread does all spans of a head, because there are heads and
 * tokens enough or the parts would take too much. */
static size_t part_bytes(const struct geul_tensor *t, int n_threads)
{
    size_t bytes = part_floats((size_t)t->shape[2]) * sizeof(float);
    size_t spans = spans_of((size_t)as_cache(t->src[1]).shape[2]);
    bool shared = units_of(t, FEWEST) <= UNITS * (size_t)n_threads && spans > 1;
    if (!shared || !geul_mul_size(bytes, (size_t)t->shape[0], &bytes) ||
        !geul_mul_size(bytes, (size_t)t->shape[1], &bytes) || !geul_mul_size(bytes, spans, &bytes))
        return 0;
    return bytes <= PART_BYTES ? bytes : 0;
}

/* Floats that a thread needs. */
static size_t work_floats(size_t depth)
{
    return 2 * (QUERIES + KEYS) * geul_cpu_round_up(depth, HEAD) + GROUP * KEYS;
}

static bool attention_scratch(const struct geul_cpu_kernels *kernels, const struct geul_tensor *t, int n_threads,
                              size_t *bytes)
{
    (void)kernels;
    return geul_mul_size(work_floats((size_t)t->shape[2]) * sizeof(float), (size_t)n_threads, bytes) &&
           geul_add_size(*bytes, part_bytes(t, n_threads), bytes);
}

/* Lays out the scratch: queries, sums, keys, values and scores of each thread, then the parts of all. Whether there are
 * parts follows from t and the number of threads, so threads agree; the bits are the same with and without. */
static struct job job_of(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    size_t tokens = (size_t)t->shape[0], depth = (size_t)t->shape[2], row = geul_cpu_round_up(depth, HEAD);
    float *memory = (float *)(void *)run->scratch, *mine = memory + work_floats(depth) * (size_t)run->thread;
    struct job j = {.kernels = run->kernels,
                    .t = t,
                    .k = as_cache(t->src[1]),
                    .v = as_cache(t->src[2]),
                    .own = t->src[1]->n_dims == 3,
                    .seq_pos = t->src[3],
                    .heads = (size_t)t->shape[1],
                    .depth = depth,
                    .factor = geul_cpu_exponent(t->params.attention.scale),
                    .queries = mine,
                    .sums = mine + QUERIES * row,
                    .keys = mine + 2 * QUERIES * row,
                    .values = mine + (2 * QUERIES + KEYS) * row,
                    .scores = mine + 2 * (QUERIES + KEYS) * row,
                    .part = part_floats(depth)};
    for (size_t i = 0; i < tokens; i++) {
        struct seat at = seat_of(&j, i);
        size_t spans = inside(&j.k, at) ? spans_of((size_t)at.position + 1) : 1;
        j.spans = spans > j.spans ? spans : j.spans;
    }
    if (j.spans > 1 && part_bytes(t, run->n_threads) > 0)
        j.parts = memory + work_floats(depth) * (size_t)run->n_threads;
    return j;
}

static void run_attention(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    struct job j = job_of(run, t);
    size_t tokens = (size_t)t->shape[0], block = block_of(t, run->n_threads), blocks = (tokens + block - 1) / block;
    size_t pieces = j.parts ? j.spans : 1;
    /* Head by head, so that keys and values are still in cache for the next block of tokens. The last tokens have the
     * longest contexts: they go first, so that no thread is left with a long unit at the end. */
    for (size_t i; (i = geul_cpu_take(run)) < blocks * j.heads * pieces;) {
        size_t piece = i % pieces, first = (blocks - 1 - i / pieces % blocks) * block, head = i / pieces / blocks;
        size_t end = tokens - first < block ? tokens : first + block;
        attend_unit(&j, first, end, head, piece, j.parts ? piece + 1 : j.spans);
    }
    if (j.parts)
        fold_parts(&j, run);
}

static bool attention_supports(const struct geul_cpu_kernels *kernels, const struct geul_tensor *t)
{
    return kernels->score[t->src[1]->type] && t->src[0]->type == GEUL_TYPE_F32 && t->src[1]->type == t->src[2]->type;
}

const struct geul_cpu_op geul_cpu_op_STORE = {.supports = store_supports, .run = run_store};
const struct geul_cpu_op geul_cpu_op_ATTENTION = {
    .supports = attention_supports, .scratch = attention_scratch, .run = run_attention};
