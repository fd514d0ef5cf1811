/* op_attention.c: STORE into the KV cache and ATTENTION over it, without a T x T buffer.
 *
 * T tokens, H heads, D values of a head, C positions of a sequence. Softmax runs online: scores of a block of cached
 * positions are turned into weights under the largest score so far, and what was summed before is scaled down when a
 * larger one comes. One thread computes one head of QUERIES tokens from beginning to end. */
#include "backends/cpu/cpu_ops.h"

#include <math.h>
#include <string.h>

enum {
    QUERIES = 48, /* a unit of work; also how often unpacked keys and values are used */
    KEYS = 64,    /* a block of cached positions */
};

static const int32_t *place_of(const struct geul_tensor *place, size_t token)
{
    return geul_cpu_row(place, token);
}

static bool inside(const struct geul_tensor *cache, const int32_t *place)
{
    return place[0] >= 0 && place[0] < cache->shape[0] && place[1] >= 0 && place[1] < cache->shape[2];
}

static uint8_t *cache_row(const struct geul_tensor *cache, int32_t seq, size_t head, size_t position)
{
    return (uint8_t *)cache->data + (size_t)seq * cache->stride[0] + head * cache->stride[1] +
           position * cache->stride[2];
}

/* Threads share the heads, not the tokens, so that of two tokens for one place the later always wins. */
static void run_store(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    const struct geul_tensor *cache = t->src[0], *x = t->src[1], *place = t->src[2];
    size_t heads = (size_t)x->shape[1], depth = (size_t)x->shape[2], from, to;
    geul_cpu_share(run, heads, &from, &to);
    for (size_t i = 0; i < (size_t)x->shape[0]; i++) {
        const int32_t *at = place_of(place, i);
        for (size_t h = from; h < to && inside(cache, at); h++)
            run->kernels->narrow[cache->type](cache_row(cache, at[0], h, (size_t)at[1]), geul_cpu_row(x, i * heads + h),
                                              depth);
    }
}

static bool store_supports(const struct geul_cpu_kernels *kernels, const struct geul_tensor *t)
{
    return kernels->narrow[t->src[0]->type] != NULL;
}

/* ------------------------------------------------------------------------------------------------ few queries -- */

/* One head of one token: scores by dot kernels over the cache as it lies. */
static void attend_one(const struct geul_cpu_kernels *kernels, const struct geul_tensor *t, size_t token, size_t head)
{
    const struct geul_tensor *q = t->src[0], *k = t->src[1], *v = t->src[2];
    const int32_t *at = place_of(t->src[3], token);
    size_t heads = (size_t)q->shape[1], depth = (size_t)q->shape[2], seen = (size_t)at[1] + 1;
    const float *query = geul_cpu_row(q, token * heads + head);
    float *out = geul_cpu_row(t, token * heads + head);
    float scores[KEYS], max = -INFINITY, sum = 0;
    memset(out, 0, depth * sizeof *out);
    for (size_t from = 0; from < seen; from += KEYS) {
        size_t n = seen - from < KEYS ? seen - from : KEYS;
        kernels->dot[k->type]->rows(scores, cache_row(k, at[0], head, from), k->stride[2], query, depth, (int)n);
        float before = kernels->softmax(scores, n, t->params.attention.scale, &max, &sum);
        if (before != 1)
            kernels->scale(out, before, depth);
        kernels->mix[v->type](out, cache_row(v, at[0], head, from), v->stride[2], scores, n, depth);
    }
    kernels->scale(out, 1 / sum, depth);
}

/* ----------------------------------------------------------------------------------------------- many queries -- */

/* The parts of a thread's working memory, in bytes. */
struct layout {
    size_t queries, keys, values, scores, weights, sums, whole;
    size_t score_stride, sum_stride; /* floats per query, padded to whole tiles */
};

static size_t round_up(size_t n, size_t step)
{
    return (n + step - 1) / step * step;
}

static size_t packed(size_t n, size_t step, size_t bytes)
{
    return round_up(n, step) / step * bytes;
}

/* x_step and w_step are per single k in the float32 panels of the cache slots (k_step 1). */
static struct layout lay_out(const struct geul_cpu_panel *g, size_t depth)
{
    size_t nr = (size_t)g->nr, mr = (size_t)g->mr, tokens = round_up(QUERIES, nr);
    struct layout l = {.score_stride = round_up(KEYS, mr), .sum_stride = round_up(depth, mr)};
    size_t sizes[] = {packed(QUERIES, nr, depth * g->x_step), packed(KEYS, mr, depth * g->w_step),
                      packed(depth, mr, KEYS * g->w_step),    tokens * l.score_stride * sizeof(float),
                      packed(QUERIES, nr, KEYS * g->x_step),  tokens * l.sum_stride * sizeof(float)};
    size_t *offsets[] = {&l.queries, &l.keys, &l.values, &l.scores, &l.weights, &l.sums};
    for (int i = 0; i < 6; i++) {
        *offsets[i] = l.whole;
        l.whole += round_up(sizes[i], 64);
    }
    return l;
}

/* n tokens times rows weight rows: packed tokens, panels side by side, k values. start as in the tile. */
static void multiply(const struct geul_cpu_panel *g, float *out, size_t out_stride, const uint8_t *panels, size_t rows,
                     const uint8_t *tokens, size_t n, size_t k, const float *start)
{
    size_t nr = (size_t)g->nr, mr = (size_t)g->mr;
    for (size_t r = 0; r < rows; r += mr)
        for (size_t i = 0; i < n; i += nr)
            g->tile(out + i * out_stride + r, out_stride, panels + r / mr * k * g->w_step,
                    tokens + i / nr * k * g->x_step, k, start);
}

static void pack_tokens(const struct geul_cpu_panel *g, uint8_t *out, const void *x, size_t stride, size_t n, size_t k)
{
    size_t nr = (size_t)g->nr;
    for (size_t i = 0; i < n; i += nr)
        g->pack_x(out + i / nr * k * g->x_step, (const float *)((const uint8_t *)x + i * stride), stride,
                  (int)(n - i < nr ? n - i : nr), k);
}

/* Keys become weight rows; values are already in the order of the second product, where k is the position. */
static void pack_keys_values(const struct geul_cpu_panel *g, uint8_t *memory, const struct layout *l,
                             const struct geul_tensor *k, const struct geul_tensor *v, int32_t seq, size_t head,
                             size_t from, size_t n)
{
    size_t mr = (size_t)g->mr, depth = (size_t)k->shape[3];
    for (size_t r = 0; r < n; r += mr)
        g->pack_w(memory + l->keys + r / mr * depth * g->w_step, cache_row(k, seq, head, from + r), k->stride[2],
                  (int)(n - r < mr ? n - r : mr), depth);
    for (size_t d = 0; d < depth; d += mr)
        g->pack_w_outer(memory + l->values + d / mr * n * g->w_step,
                        cache_row(v, seq, head, from) + d * geul_type_bytes(v->type), v->stride[2],
                        (int)(depth - d < mr ? depth - d : mr), n);
}

/* Scores of one block of positions into weights; a query sees those up to its own position. */
static void weigh(const struct geul_cpu_kernels *kernels, const struct geul_tensor *t, size_t first, size_t n_queries,
                  size_t from, size_t n, float *scores, float *sums, const struct layout *l, float *max, float *sum)
{
    size_t depth = (size_t)t->shape[2];
    for (size_t i = 0; i < n_queries; i++) {
        float *s = scores + i * l->score_stride;
        size_t end = (size_t)place_of(t->src[3], first + i)[1] + 1, seen = end <= from ? 0 : end - from;
        seen = seen < n ? seen : n;
        if (seen > 0) {
            float before = kernels->softmax(s, seen, t->params.attention.scale, &max[i], &sum[i]);
            if (before != 1)
                kernels->scale(sums + i * l->sum_stride, before, depth);
        }
        memset(s + seen, 0, (n - seen) * sizeof *s);
    }
}

/* One head of n_queries tokens of one sequence, starting at token first. */
static void attend_many(const struct geul_cpu_kernels *kernels, const struct geul_tensor *t, size_t first,
                        size_t n_queries, size_t head, uint8_t *memory)
{
    static const float zeros[256];
    const struct geul_tensor *q = t->src[0], *k = t->src[1], *v = t->src[2];
    const struct geul_cpu_panel *g = kernels->cache[k->type];
    size_t heads = (size_t)q->shape[1], depth = (size_t)q->shape[2], last = 0;
    struct layout l = lay_out(g, depth);
    float *scores = (float *)(memory + l.scores), *sums = (float *)(memory + l.sums);
    float max[QUERIES], sum[QUERIES];
    int32_t seq = place_of(t->src[3], first)[0];
    for (size_t i = 0; i < n_queries; i++) {
        size_t end = (size_t)place_of(t->src[3], first + i)[1] + 1;
        last = end > last ? end : last;
        max[i] = -INFINITY;
        sum[i] = 0;
    }
    memset(sums, 0, round_up(n_queries, (size_t)g->nr) * l.sum_stride * sizeof *sums);
    pack_tokens(g, memory + l.queries, geul_cpu_row(q, first * heads + head), q->stride[0], n_queries, depth);
    for (size_t from = 0; from < last; from += KEYS) {
        size_t n = last - from < KEYS ? last - from : KEYS;
        pack_keys_values(g, memory, &l, k, v, seq, head, from, n);
        multiply(g, scores, l.score_stride, memory + l.keys, n, memory + l.queries, n_queries, depth, zeros);
        weigh(kernels, t, first, n_queries, from, n, scores, sums, &l, max, sum);
        pack_tokens(g, memory + l.weights, scores, l.score_stride * sizeof *scores, n_queries, n);
        multiply(g, sums, l.sum_stride, memory + l.values, depth, memory + l.weights, n_queries, n, NULL);
    }
    for (size_t i = 0; i < n_queries; i++) {
        float *out = geul_cpu_row(t, (first + i) * heads + head);
        memcpy(out, sums + i * l.sum_stride, depth * sizeof *out);
        kernels->scale(out, 1 / sum[i], depth);
    }
}

/* ------------------------------------------------------------------------------------------------------ the op -- */

/* Tokens from first on, before end, that belong to one sequence and lie inside the cache. */
static size_t run_of_sequence(const struct geul_tensor *t, size_t first, size_t end)
{
    size_t n = 0;
    while (first + n < end && inside(t->src[1], place_of(t->src[3], first + n)) &&
           place_of(t->src[3], first + n)[0] == place_of(t->src[3], first)[0])
        n++;
    return n;
}

/* One head of the tokens [first, end). Tokens outside the cache get NaN: there is nothing they could see. */
static void attend_unit(const struct geul_cpu_kernels *kernels, const struct geul_tensor *t, size_t first, size_t end,
                        size_t head, uint8_t *memory)
{
    enum { FEW = 4 };
    while (first < end) {
        size_t n = run_of_sequence(t, first, end);
        if (n == 0) {
            float *out = geul_cpu_row(t, first * (size_t)t->shape[1] + head);
            for (int64_t i = 0; i < t->shape[2]; i++)
                out[i] = NAN;
            n = 1;
        } else if (n >= FEW)
            attend_many(kernels, t, first, n, head, memory);
        else
            for (size_t i = 0; i < n; i++)
                attend_one(kernels, t, first + i, head);
        first += n;
    }
}

static void run_attention(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    const struct geul_cpu_panel *g = run->kernels->cache[t->src[1]->type];
    size_t tokens = (size_t)t->shape[0], heads = (size_t)t->shape[1], units = (tokens + QUERIES - 1) / QUERIES;
    uint8_t *memory = run->scratch + lay_out(g, (size_t)t->shape[2]).whole * (size_t)run->thread;
    /* The last tokens see most and so take longest: they go first. */
    for (size_t i; (i = geul_cpu_take(run)) < units * heads;) {
        size_t first = (units - 1 - i / heads) * QUERIES;
        attend_unit(run->kernels, t, first, tokens - first < QUERIES ? tokens : first + QUERIES, i % heads, memory);
    }
}

static bool attention_supports(const struct geul_cpu_kernels *kernels, const struct geul_tensor *t)
{
    const struct geul_cpu_panel *g = kernels->cache[t->src[1]->type];
    return g && t->src[0]->type == GEUL_TYPE_F32 && t->src[1]->type == t->src[2]->type;
}

static bool attention_scratch(const struct geul_cpu_kernels *kernels, const struct geul_tensor *t, int n_threads,
                              size_t *bytes)
{
    struct layout l = lay_out(kernels->cache[t->src[1]->type], (size_t)t->shape[2]);
    return geul_mul_size(l.whole, (size_t)n_threads, bytes);
}

const struct geul_cpu_op geul_cpu_op_STORE = {.supports = store_supports, .run = run_store};
const struct geul_cpu_op geul_cpu_op_ATTENTION = {
    .supports = attention_supports, .scratch = attention_scratch, .run = run_attention};
