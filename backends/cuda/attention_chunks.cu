/* attention_chunks.cu: attention of single tokens, in chunks of the cache (cuda_attention.h).
 *
 *     position   0        64       128      192   p
 *                | chunk  | chunk  | chunk  | ch |       each: largest score, sum of weights, weighted sum of values
 *                +------ folded in this order ---+       by one block, or by the last of many to end
 *
 * What bounds it is reading keys and values: L lanes share a position, eight dimensions each, and the 128 / L groups of
 * lanes of a block take every so many positions. A thread has four keys and up to eight values of 16 bytes under way
 * before it needs the first: 24 KB a block at depth 128, of which (108 registers) four fit on a multiprocessor. Blocks
 * behind a token's last position end at once: where that is, they read on the device. 2,048 positions are 32 blocks to
 * a head: 512 at 1.3B (16 heads), 1,280 at 12.8B (40), so 4 and 10 for each of an H100's 132 multiprocessors. */
#include "backends/cuda/cache_rows.h"

enum { CHUNK = CUDA_ATTENTION_CHUNK, THREADS = 128, WARPS = THREADS / WARP, HEAD_FLOATS = 2, MOST_DEPTH = 256 };

/* How the threads divide a chunk: groups of L lanes, positions for each, and how many are loaded ahead. */
template <cuda_type type, int L> struct share_of {
    enum { groups = THREADS / L, positions = CHUNK / groups, most = type == CUDA_F32 ? 2 : 8 };
    enum { keys = type == CUDA_F32 || positions < 4 ? 2 : 4, values = positions < (int)most ? positions : (int)most };
};

/* A token's head, and the part of it that a block takes. */
struct chunk_place {
    int64_t token;
    int head, last; /* position */
    cache_walk k, v;
};

/* What a chunk, or several in order, come to; a thread has the sums of dimensions thread() + i * THREADS. */
struct chunk_state {
    float highest, total, sum[MOST_DEPTH / THREADS];
};

/* Every group's n positions from its `first` on; zeros from `end` on, and for lanes that have no dimensions. */
template <cuda_type type, int L, int n>
DEVICE void load_octets(octet<type> o[n], const cache_walk &from, int first, int end, int at, bool mine)
{
    UNROLL
    for (int i = 0; i < n; i++) {
        const int position = first + i * share_of<type, L>::groups;
        o[i] = octet<type>{};
        if (mine && position < end)
            o[i] = load_octet<type>(from.first + position * from.step, at);
    }
}

/* Scores of a chunk's positions, in units of log2; -infinity from `end` on. The first keys are loaded already. mine:
 * the lane has dimensions. */
template <cuda_type type, int L>
DEVICE void score_chunk(octet<type> loaded[share_of<type, L>::keys], const cache_walk &k, int first, int end,
                        const float q[OCTET], bool mine, float *scores)
{
    typedef share_of<type, L> share;
    const int group = thread() / L, at = thread() % L * OCTET;
    UNROLL
    for (int p = 0; p < share::positions; p += share::keys) {
        if (p > 0)
            load_octets<type, L, share::keys>(loaded, k, first + p * share::groups + group, end, at, mine);
        UNROLL
        for (int i = 0; i < share::keys; i++) {
            float v[OCTET], sum = 0;
            widen_octet<type>(v, loaded[i]);
            UNROLL
            for (int j = 0; j < OCTET; j++)
                sum = fmaf(q[j], v[j], sum);
            sum = warp_sum<L>(sum);
            const int place = (p + i) * share::groups + group;
            if (at == 0)
                scores[place] = first + place < end ? sum : -INFINITY;
        }
    }
}

/* Adds n positions' values by their weights. */
template <cuda_type type, int L, int n>
DEVICE void add_values(float sum[OCTET], const octet<type> loaded[n], const float *scores, float from)
{
    UNROLL
    for (int i = 0; i < n; i++) {
        const float weight = exp2f(scores[i * share_of<type, L>::groups] - from);
        float v[OCTET];
        widen_octet<type>(v, loaded[i]);
        UNROLL
        for (int j = 0; j < OCTET; j++)
            sum[j] = fmaf(weight, v[j], sum[j]);
    }
}

/* Puts the groups' sums together: those of a warp by shuffles, then those of the warps. spare: WARPS * L * OCTET. */
template <int L> DEVICE void sum_groups(chunk_state &c, float sum[OCTET], float *spare, int depth)
{
    UNROLL
    for (int j = 0; j < OCTET; j++) {
        UNROLL
        for (int mask = L; mask < WARP; mask *= 2)
            sum[j] += shuffle_xor(sum[j], mask);
        if (lane() < L)
            spare[(warp_number() * L + lane()) * OCTET + j] = sum[j];
    }
    barrier();
    UNROLL
    for (int i = 0; i < MOST_DEPTH / THREADS; i++) {
        const int d = thread() + i * THREADS;
        c.sum[i] = 0;
        for (int w = 0; w < WARPS && d < depth; w++)
            c.sum[i] += spare[w * L * OCTET + d];
    }
}

/* The chunk that begins at `first`. No barrier is needed before the next one: it writes spare behind its own. */
template <cuda_type type, int L>
DEVICE chunk_state attend_chunk(const chunk_place &c, int first, const float q[OCTET], int depth, float *scores,
                                float *spare)
{
    typedef share_of<type, L> share;
    const int group = thread() / L, at = thread() % L * OCTET, end = c.last + 1;
    const bool mine = at < depth;
    octet<type> keys[share::keys], ahead[share::values];
    load_octets<type, L, share::keys>(keys, c.k, first + group, end, at, mine);
    load_octets<type, L, share::values>(ahead, c.v, first + group, end, at, mine);
    score_chunk<type, L>(keys, c.k, first, end, q, mine, scores);
    barrier();
    chunk_state result;
    const float low = scores[lane()], high = scores[lane() + WARP];
    result.highest = warp_max(fmaxf(low, high));
    const float from = finite_or_0(result.highest);
    result.total = warp_sum(exp2f(low - from) + exp2f(high - from));
    float sum[OCTET] = {};
    add_values<type, L, share::values>(sum, ahead, scores + group, from);
    UNROLL
    for (int p = share::values; p < share::positions; p += share::values) {
        const int place = p * share::groups + group;
        load_octets<type, L, share::values>(ahead, c.v, first + place, end, at, mine);
        add_values<type, L, share::values>(sum, ahead, scores + place, from);
    }
    sum_groups<L>(result, sum, spare, depth);
    return result;
}

/* Adds the next chunk to those before it. The same operations whoever does it. */
DEVICE void fold(chunk_state &all, const chunk_state &next)
{
    const float highest = fmaxf(all.highest, next.highest), from = finite_or_0(highest);
    const float old_part = exp2f(all.highest - from), new_part = exp2f(next.highest - from);
    all.highest = highest;
    all.total = fmaf(all.total, old_part, next.total * new_part);
    UNROLL
    for (int i = 0; i < MOST_DEPTH / THREADS; i++)
        all.sum[i] = fmaf(all.sum[i], old_part, next.sum[i] * new_part);
}

DEVICE void leave_partial(float *to, const chunk_state &c, int depth)
{
    UNROLL
    for (int i = 0; i < MOST_DEPTH / THREADS; i++)
        if (thread() + i * THREADS < depth)
            to[HEAD_FLOATS + thread() + i * THREADS] = c.sum[i];
    if (thread() == 0) {
        to[0] = c.highest;
        to[1] = c.total;
    }
}

/* What other blocks left is not looked for in the first-level cache. */
DEVICE chunk_state partial_at(const volatile float *from, int depth)
{
    chunk_state c;
    c.highest = from[0];
    c.total = from[1];
    UNROLL
    for (int i = 0; i < MOST_DEPTH / THREADS; i++)
        c.sum[i] = thread() + i * THREADS < depth ? from[HEAD_FLOATS + thread() + i * THREADS] : 0;
    return c;
}

/* Stores a token's result, and rounds it where that is wanted. spare: MOST_DEPTH floats. */
DEVICE void leave_result(const cuda_attention &a, const chunk_place &c, const chunk_state &all, float *spare)
{
    const int depth = (int)a.depth;
    const int64_t at = (c.token * a.n_heads + c.head) * depth;
    UNROLL
    for (int i = 0; i < MOST_DEPTH / THREADS; i++) {
        const int d = thread() + i * THREADS;
        if (d >= depth)
            continue;
        const float v = all.sum[i] / all.total;
        if (!a.rounded_only)
            a.y[at + d] = v;
        spare[d] = v;
    }
    if (!a.rounded.q)
        return;
    barrier();
    for (int g = warp_number() * WARP; g < depth; g += THREADS)
        round_result(a, at + g, spare[g + lane()]);
}

/* Block x takes heads of the tokens from the last, which attends to the most, to the first; where they have parts, the
 * first chunks of all, then the second ones. */
template <cuda_type type, int L>
KERNEL(THREADS, (type == CUDA_F32 && L == WARP ? 3 : 4))
void attention_chunks(cuda_attention a)
{
    SHARED(float, scores, CHUNK);
    SHARED(float, spare, WARPS *L *OCTET);
    SHARED(float, result, MOST_DEPTH);
    SHARED(uint32_t, order, 1);
    const int64_t heads = a.n_tokens * a.n_heads, x = block_x(), head = heads - 1 - x % heads;
    const int part = (int)(x / heads), depth = (int)a.depth;
    chunk_place c;
    c.token = head / a.n_heads;
    c.head = (int)(head % a.n_heads);
    const int32_t *place = a.places.data + c.token * a.places.stride;
    c.last = place[1];
    c.k = walk_of(a.k, place, c.token, c.head);
    c.v = walk_of(a.v, place, c.token, c.head);
    chunk_state all = {-INFINITY, 0, {}};
    if (!c.k.first) { /* nothing that it could attend to: 0 / 0 */
        if (part == 0)
            leave_result(a, c, all, result);
        return;
    }
    if (part > c.last / CHUNK)
        return;
    const float *query = a.q.data + c.token * a.q.token_stride + c.head * a.q.head_stride;
    const float factor = exponent_factor(a);
    float q[OCTET];
    UNROLL
    for (int j = 0; j < OCTET; j++) {
        const int d = thread() % L * OCTET + j;
        q[j] = d < depth ? query[d] * factor : 0;
    }
    if (a.parts == 0) {
        for (int first = 0; first <= c.last; first += CHUNK)
            fold(all, attend_chunk<type, L>(c, first, q, depth, scores, spare));
    } else {
        const int n_chunks = c.last / CHUNK + 1;
        float *partial = a.partial + head * a.parts * (depth + HEAD_FLOATS);
        const chunk_state mine = attend_chunk<type, L>(c, part * CHUNK, q, depth, scores, spare);
        leave_partial(partial + (int64_t)part * (depth + HEAD_FLOATS), mine, depth);
        if (!ends_last(a.counters + head, n_chunks, order))
            return;
        UNROLL_4
        for (int i = 0; i < n_chunks; i++)
            fold(all, partial_at(partial + (int64_t)i * (depth + HEAD_FLOATS), depth));
    }
    leave_result(a, c, all, result);
}

template <cuda_type type, int L> static int launch(struct cuda_stream *stream, const cuda_attention &a)
{
    const int64_t blocks = a.n_tokens * a.n_heads * (a.parts > 0 ? a.parts : 1);
    return LAUNCH(stream, (attention_chunks<type, L>), GRID(blocks, 1, 1), THREADS, 0, a);
}

/* By how many lanes share a position, the fewest that have eight dimensions each. */
static const struct chunks {
    int depth; /* the most */
    cuda_type type;
    int (*launch)(struct cuda_stream *stream, const cuda_attention &a);
} instances[] = {
#define LANES(type)                                                                                                    \
    {32, type, launch<type, 4>}, {64, type, launch<type, 8>}, {128, type, launch<type, 16>},                           \
        {256, type, launch<type, 32>},
    LANES(CUDA_F32) LANES(CUDA_F16) LANES(CUDA_BF16) LANES(CUDA_Q8_0)
#undef LANES
};

static const struct chunks *find(cuda_type type, int64_t depth)
{
    for (size_t i = 0; i < sizeof instances / sizeof *instances; i++)
        if (instances[i].type == type && depth <= instances[i].depth && depth % OCTET == 0)
            return &instances[i];
    return NULL;
}

bool geul_cuda_attention_has_chunks(enum cuda_type type, int64_t depth)
{
    return find(type, depth) != NULL;
}

int geul_cuda_launch_attention_chunks(struct cuda_stream *stream, const void *args)
{
    const struct cuda_attention *a = (const struct cuda_attention *)args;
    const struct chunks *instance = find(a->k.type, a->depth);
    if (!instance || !has_aligned_rows(a->k) || !has_aligned_rows(a->v))
        return geul_cuda_launch_attention_plain(stream, args);
    return instance->launch(stream, *a);
}
