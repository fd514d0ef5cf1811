/* op_attention_back.c: ATTENTION_BACK, the gradients of q, k and v, without a T x T buffer.
 *
 * T tokens, H heads, D values of a head. Token i attends to the keys j from i - seq_pos[i][1] to i; with scores s_ij =
 * scale * q_i . k_j and weights p_ij, their softmax over j, y_i is the sum of p_ij v_j. So
 *   dp_ij = dy_i . v_j     ds_ij = scale * p_ij (dp_ij - dy_i . y_i)
 *   dv_j  = sum over i of p_ij dy_i     dk_j = sum over i of ds_ij q_i     dq_i = sum over j of ds_ij k_j
 *
 * A stretch is a run of tokens that no token outside attends to: a document. Stretches are cut into blocks, counted
 * from their first token. In a first pass the threads share blocks of queries and find the maxima and sums of their
 * softmax; in a second, blocks of keys, each of which goes through the blocks of queries that can attend to it and
 * recomputes the weights:
 *
 *            keys 0   1   2   3           second pass: a unit of work is one column of one head, from the bottom up.
 *   queries 0     0                       dk and dv of the column are its own. dq of a row is added up from left to
 *           1     0   1                   right: the number in a cell is its turn, for which it waits (add_dq).
 *           2     0   1   2
 *           3     0   1   2   3
 *
 * Units are taken in the order of columns. So a thread waits only for a column to the left that has been started, and
 * the leftmost of those never waits: there is no deadlock. Since all go up, the column before is usually ahead.
 * A sum thus depends on nothing but its stretch, and not on the number of threads. */
#include "backends/cpu/attention.h"

#include <math.h>
#include <string.h>

enum {
    BLOCK = 64,    /* tokens: queries and keys of a tile of scores */
    GROUP = 32,    /* queries whose scores stay in the first-level cache */
    DIAGONAL = 16, /* the same in blocks on the diagonal: smaller groups score fewer keys in vain */
    QUAD = 4,      /* rows that the tile kernels take together */
    LINE = 64,     /* bytes of a cache line, on which parts of the scratch begin */
};

/* Tokens [first, first + n) of the stretch [start, end). */
struct block {
    size_t first, n, start, end;
};

/* What all threads work on. */
struct common {
    size_t *n_blocks;
    struct block *blocks;
    float *max, *inverse, *delta; /* (H, T): largest score as an exponent, 1 / sum of powers, dy . y */
    atomic_int *added;            /* (H, blocks): how many blocks of keys have added to dq */
};

/* What a thread works with: rows of BLOCK tokens, packed. */
struct job {
    const struct geul_cpu_kernels *kernels;
    const struct geul_tensor *t, *dy, *y, *q, *k, *v, *seq_pos;
    size_t tokens, heads, depth;
    float scale, factor; /* q . k times factor is an exponent of 2 */
    struct common all;
    float *rows_q, *rows_dy, *rows_k, *rows_v, *dq, *dk, *dv; /* (BLOCK, D) */
    float *p, *ds;                                            /* (GROUP, BLOCK) */
};

/* -------------------------------------------------------------------------------------- mask -- */

/* The first token that token i attends to, all up to i; i + 1 when it attends to none. */
static size_t first_seen(const struct job *j, size_t i)
{
    const uint8_t *entry = (const uint8_t *)j->seq_pos->data + i * j->seq_pos->stride[0];
    int64_t position = ((const int32_t *)(const void *)entry)[1];
    return position >= 0 && position <= (int64_t)i ? i - (size_t)position : i + 1;
}

/* The keys of a block that token i attends to: [*from, *to), counted from the block's first. */
static void visible(const struct job *j, const struct block *keys, size_t i, size_t *from, size_t *to)
{
    size_t seen = first_seen(j, i), end = i + 1 > keys->first ? i + 1 - keys->first : 0;
    *to = end < keys->n ? end : keys->n;
    *from = seen > keys->first ? seen - keys->first : 0;
    if (*from > *to)
        *from = *to;
}

/* How many keys of a block the n tokens from `first` on have to be scored with: up to the last that any of them attends
 * to. */
static size_t deepest(const struct job *j, const struct block *keys, size_t first, size_t n)
{
    size_t most = 0;
    for (size_t i = 0; i < n; i++) {
        size_t from, to;
        visible(j, keys, first + i, &from, &to);
        most = from < to && to > most ? to : most;
    }
    return most;
}

/* Lists the blocks in order. A stretch begins where no token from there on attends further back, so stretches are found
 * from the last token on, and the list is reversed at the end. One thread does it, for all. */
static void list_blocks(const struct job *j)
{
    struct block *blocks = j->all.blocks;
    size_t n = 0, end = j->tokens, seen = j->tokens;
    for (size_t i = j->tokens; i-- > 0;) {
        size_t first = first_seen(j, i);
        seen = first < seen ? first : seen;
        if (seen < i)
            continue;
        /* No token of [i, end) attends before i, nor does any after it: [i, end) is a stretch. */
        for (size_t b = (end - i - 1) / BLOCK + 1; b-- > 0;) {
            size_t from = i + b * BLOCK;
            blocks[n++] = (struct block){from, end - from < BLOCK ? end - from : BLOCK, i, end};
        }
        end = i;
    }
    for (size_t i = 0; i < n / 2; i++) {
        struct block block = blocks[i];
        blocks[i] = blocks[n - 1 - i];
        blocks[n - 1 - i] = block;
    }
    *j->all.n_blocks = n;
}

/* Packs one head of a block of x. */
static void pack(const struct job *j, float *out, const struct geul_tensor *x, const struct block *b, size_t head)
{
    j->kernels->widen[GEUL_TYPE_F32](out, geul_cpu_row(x, b->first * j->heads + head), x->stride[0], b->n, j->depth);
}

/* --------------------------------------------------------------------- sums of the softmaxes -- */

/* Adds the scores with block `keys` to the streamed softmax (max, sum) of each of a block of queries. */
static void measure_tile(const struct job *j, const struct block *queries, const struct block *keys, float *max,
                         float *sum)
{
    for (size_t group = 0; group < queries->n; group += GROUP) {
        size_t first = queries->first + group, n = queries->n - group < GROUP ? queries->n - group : GROUP;
        size_t most = deepest(j, keys, first, n);
        if (most == 0)
            continue;
        j->kernels->score_tile(j->p, BLOCK, j->rows_q + group * j->depth, geul_cpu_round_up(n, QUAD), j->rows_k,
                               geul_cpu_round_up(most, QUAD), j->depth);
        for (size_t i = 0; i < n; i++) {
            size_t from, to;
            visible(j, keys, first + i, &from, &to);
            if (from < to)
                j->kernels->softmax(j->p + i * BLOCK + from, to - from, j->factor, &max[group + i], &sum[group + i]);
        }
    }
}

/* First pass: one head of a block of queries against all blocks of its stretch up to its own. Leaves max, inverse and
 * delta of its tokens, and its count of turns at 0. */
static void measure(const struct job *j, size_t block, size_t head)
{
    const struct block *queries = &j->all.blocks[block], *keys = queries - (queries->first - queries->start) / BLOCK;
    size_t at = head * j->tokens + queries->first;
    float *max = j->all.max + at, *sum = j->all.inverse + at;
    for (size_t i = 0; i < queries->n; i++) {
        size_t row = (queries->first + i) * j->heads + head;
        max[i] = -INFINITY;
        sum[i] = 0;
        j->kernels->score[GEUL_TYPE_F32](j->all.delta + at + i, geul_cpu_row(j->y, row), 0, geul_cpu_row(j->dy, row), 1,
                                         j->depth);
    }
    pack(j, j->rows_q, j->q, queries, head);
    for (; keys <= queries; keys++) {
        pack(j, j->rows_k, j->k, keys, head);
        measure_tile(j, queries, keys, max, sum);
    }
    for (size_t i = 0; i < queries->n; i++)
        sum[i] = 1 / sum[i];
    atomic_init(&j->all.added[head * *j->all.n_blocks + block], 0);
}

/* --------------------------------------------------------------------------------- gradients -- */

/* Recomputes the weights p, and computes the scores' gradients ds, of n queries of a block, from number `group` on,
 * with the first `most` keys. Where a query does not attend both are 0, so that whole tiles can be summed. */
static void weigh(const struct job *j, const struct block *queries, const struct block *keys, size_t head, size_t group,
                  size_t n, size_t most)
{
    const struct common *all = &j->all;
    size_t rows = geul_cpu_round_up(n, QUAD), columns = geul_cpu_round_up(most, QUAD);
    j->kernels->score_tile(j->p, BLOCK, j->rows_q + group * j->depth, rows, j->rows_k, columns, j->depth);
    j->kernels->score_tile(j->ds, BLOCK, j->rows_dy + group * j->depth, rows, j->rows_v, columns, j->depth);
    for (size_t i = 0; i < n; i++) {
        size_t from, to, at = head * j->tokens + queries->first + group + i;
        float *p = j->p + i * BLOCK, *ds = j->ds + i * BLOCK;
        visible(j, keys, queries->first + group + i, &from, &to);
        if (from < to)
            j->kernels->softmax_back(p + from, ds + from, to - from, j->factor, all->max[at], all->inverse[at],
                                     all->delta[at], j->scale);
        for (size_t r = 0; r < columns; r++)
            if (r < from || r >= to)
                p[r] = ds[r] = 0;
    }
}

/* One cell: adds what a block of queries gives to dk and dv of a block of keys, and sets dq to what it gets from it. */
static void pair(const struct job *j, const struct block *queries, const struct block *keys, size_t head)
{
    size_t depth = j->depth, step = queries == keys ? DIAGONAL : GROUP;
    memset(j->dq, 0, geul_cpu_round_up(queries->n, QUAD) * depth * sizeof *j->dq);
    pack(j, j->rows_q, j->q, queries, head);
    pack(j, j->rows_dy, j->dy, queries, head);
    for (size_t group = 0; group < queries->n; group += step) {
        size_t n = queries->n - group < step ? queries->n - group : step;
        size_t most = deepest(j, keys, queries->first + group, n), columns = geul_cpu_round_up(most, QUAD);
        if (most == 0)
            continue;
        weigh(j, queries, keys, head, group, n, most);
        /* p and ds read by columns: the keys are the rows of the result. Rows of dq beyond n are never read. */
        j->kernels->mix_tile(j->dv, j->rows_dy + group * depth, j->p, 1, BLOCK, columns, n, depth);
        j->kernels->mix_tile(j->dk, j->rows_q + group * depth, j->ds, 1, BLOCK, columns, n, depth);
        j->kernels->mix_tile(j->dq + group * depth, j->rows_k, j->ds, BLOCK, 1, geul_cpu_round_up(n, QUAD), most,
                             depth);
    }
}

/* Row of one head of a token in gradient number `which`: of q, k or v. t is (3, T, H, D). */
static float *result_row(const struct job *j, size_t which, size_t token, size_t head)
{
    return (float *)j->t->data + ((which * j->tokens + token) * j->heads + head) * j->depth;
}

/* Adds dq of a block of queries from block of keys number `turn` of the stretch, when it is its turn: float sums depend
 * on their order, so it is fixed. A token that attends to nothing has no gradient: NaN. */
static void add_dq(const struct job *j, size_t block, size_t head, int turn)
{
    const struct block *b = &j->all.blocks[block];
    atomic_int *added = &j->all.added[head * *j->all.n_blocks + block];
    /* Acquire: the sums of the turns before, by other threads, are visible now. The release below passes them on. */
    geul_cpu_await(added, turn);
    for (size_t i = 0; i < b->n; i++) {
        float *out = result_row(j, 0, b->first + i, head), *part = j->dq + i * j->depth;
        if (turn > 0)
            j->kernels->add(out, out, part, j->depth);
        else if (first_seen(j, b->first + i) <= b->first + i)
            memcpy(out, part, j->depth * sizeof *out);
        else
            for (size_t d = 0; d < j->depth; d++)
                out[d] = NAN;
    }
    atomic_store_explicit(added, turn + 1, memory_order_release);
}

/* Second pass: one head of a block of keys. The last queries come first: the blocks of keys before this one, which add
 * to dq before it, started with them too, and are usually ahead. */
static void go_back(const struct job *j, size_t block, size_t head)
{
    const struct block *keys = &j->all.blocks[block];
    size_t last = block + (keys->end - 1 - keys->first) / BLOCK, rows = geul_cpu_round_up(keys->n, QUAD);
    pack(j, j->rows_k, j->k, keys, head);
    pack(j, j->rows_v, j->v, keys, head);
    memset(j->dk, 0, rows * j->depth * sizeof *j->dk);
    memset(j->dv, 0, rows * j->depth * sizeof *j->dv);
    for (size_t b = last + 1; b-- > block;) {
        pair(j, &j->all.blocks[b], keys, head);
        add_dq(j, b, head, (int)((keys->first - keys->start) / BLOCK));
    }
    for (size_t i = 0; i < keys->n; i++) {
        memcpy(result_row(j, 1, keys->first + i, head), j->dk + i * j->depth, j->depth * sizeof *j->dk);
        memcpy(result_row(j, 2, keys->first + i, head), j->dv + i * j->depth, j->depth * sizeof *j->dv);
    }
}

/* ------------------------------------------------------------------------------------ the op -- */

/* Bytes that a thread needs; and below, those that all share. false on overflow. */
static bool thread_bytes(const struct geul_tensor *t, size_t *bytes)
{
    size_t row;
    return geul_mul_size((size_t)t->shape[3], 7 * BLOCK * sizeof(float), &row) &&
           geul_add_size(row, 2 * GROUP * BLOCK * sizeof(float), bytes);
}

static bool common_bytes(const struct geul_tensor *t, size_t *bytes)
{
    size_t per_head = 3 * sizeof(float) + sizeof(atomic_int);
    return geul_mul_size((size_t)t->shape[2], per_head, bytes) && geul_add_size(*bytes, sizeof(struct block), bytes) &&
           geul_mul_size(*bytes, (size_t)t->shape[1], bytes) && geul_add_size(*bytes, 2 * LINE, bytes) &&
           (*bytes = *bytes / LINE * LINE, true);
}

static bool back_scratch(const struct geul_cpu_kernels *kernels, const struct geul_tensor *t, int n_threads,
                         size_t *bytes)
{
    size_t mine, common;
    (void)kernels;
    return thread_bytes(t, &mine) && common_bytes(t, &common) && geul_mul_size(mine, (size_t)n_threads, bytes) &&
           geul_add_size(*bytes, common, bytes);
}

/* The shared part of the scratch. */
static struct common lay_out(uint8_t *memory, size_t tokens, size_t heads)
{
    struct common all = {.n_blocks = (size_t *)(void *)memory, .blocks = (struct block *)(void *)(memory + LINE)};
    all.max = (float *)(void *)(all.blocks + tokens);
    all.inverse = all.max + heads * tokens;
    all.delta = all.inverse + heads * tokens;
    all.added = (atomic_int *)(void *)(all.delta + heads * tokens);
    return all;
}

/* Lays out the scratch: what all share, then each thread's tiles and rows. */
static struct job job_of(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    size_t mine = 0, common = 0, rows = BLOCK * (size_t)t->shape[3];
    thread_bytes(t, &mine);
    common_bytes(t, &common);
    float *memory = (float *)(void *)(run->scratch + common + mine * (size_t)run->thread);
    float scale = t->params.attention.scale;
    return (struct job){.kernels = run->kernels,
                        .t = t,
                        .dy = t->src[0],
                        .y = t->src[1],
                        .q = t->src[2],
                        .k = t->src[3],
                        .v = t->src[4],
                        .seq_pos = t->src[5],
                        .tokens = (size_t)t->shape[1],
                        .heads = (size_t)t->shape[2],
                        .depth = (size_t)t->shape[3],
                        .scale = scale,
                        .factor = geul_cpu_exponent(scale),
                        .all = lay_out(run->scratch, (size_t)t->shape[1], (size_t)t->shape[2]),
                        .p = memory,
                        .ds = memory + GROUP * BLOCK,
                        .rows_q = memory + 2 * GROUP * BLOCK,
                        .rows_dy = memory + 2 * GROUP * BLOCK + rows,
                        .rows_k = memory + 2 * GROUP * BLOCK + 2 * rows,
                        .rows_v = memory + 2 * GROUP * BLOCK + 3 * rows,
                        .dq = memory + 2 * GROUP * BLOCK + 4 * rows,
                        .dk = memory + 2 * GROUP * BLOCK + 5 * rows,
                        .dv = memory + 2 * GROUP * BLOCK + 6 * rows};
}

static void run_back(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    struct job j = job_of(run, t);
    if (run->thread == 0)
        list_blocks(&j);
    geul_cpu_barrier(run);
    size_t blocks = *j.all.n_blocks, units = blocks * j.heads, i;
    while ((i = geul_cpu_take(run)) < units) /* the last queries have the longest contexts: they go first */
        measure(&j, blocks - 1 - i % blocks, i / blocks);
    geul_cpu_barrier(run);
    /* The counter: each thread took once when nothing was left. A cancel hands out nothing here or before, and a thread
     * waits for units before its own only, which others have taken and will finish. */
    size_t taken = units + (size_t)run->n_threads;
    while ((i = geul_cpu_take(run) - taken) < units)
        go_back(&j, i % blocks, i / blocks);
}

const struct geul_cpu_op geul_cpu_op_ATTENTION_BACK = {.scratch = back_scratch, .run = run_back};
