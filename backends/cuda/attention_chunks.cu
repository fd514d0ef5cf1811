/* attention_chunks.cu: attention of single tokens, in chunks of the cache (attention.h).
 *
 * What bounds it is reading keys and values. L lanes share a position, eight dimensions each; the block's 128 / L
 * groups of lanes take every so many positions. Scores are kept in shared memory, so keys and values are each one pass
 * of independent loads. Blocks behind a token's last position end at once: where that is, they read on the device. */
#include "backends/cuda/attention.h"

#include "backends/cuda/cache_rows.h"
#include "backends/cuda/round_lane.h"

enum { CHUNK = CUDA_ATTENTION_CHUNK, THREADS = 128, WARPS = THREADS / WARP };

/* Floats that a block leaves: largest score, sum of exponentials, and the sum of values for each dimension. */
enum { HEAD_FLOATS = 2 };

/* Lanes of a position, for depths up to 8 times that. */
static int lanes_for(int64_t depth)
{
    int lanes = 4;
    while (lanes * OCTET < depth)
        lanes *= 2;
    return lanes;
}

/* What a block knows. */
struct chunk {
    int64_t token;
    int head, first, end; /* positions */
    int n_chunks;         /* of this token */
    cache_walk k, v;
};

/* Each group of L lanes (the whole block takes turns where L is more than a warp) scores every so many positions. */
template <cuda_type type, int L, bool whole>
DEVICE void score(const cuda_attention &a, const chunk &c, float *scores, const float *query)
{
    enum { LANES = L < WARP ? L : WARP, EACH = L / LANES, GROUPS = THREADS / LANES };
    const int depth = (int)a.depth, group = thread() / LANES, in_group = thread() % LANES;
    float q[EACH][OCTET];
    UNROLL
    for (int e = 0; e < EACH; e++) {
        UNROLL
        for (int i = 0; i < OCTET; i++)
            q[e][i] = query[(e * LANES + in_group) * OCTET + i];
    }
    UNROLL_4
    for (int p = 0; p < CHUNK / GROUPS; p++) {
        const int position = c.first + p * GROUPS + group;
        float sum = 0;
        UNROLL
        for (int e = 0; e < EACH; e++) {
            const int at = (e * LANES + in_group) * OCTET;
            float k[OCTET] = {};
            if (at < depth && position < c.end)
                load_octet<type, whole>(k, c.k.first + position * c.k.step, at, depth);
            UNROLL
            for (int i = 0; i < OCTET; i++)
                sum = fmaf(q[e][i], k[i], sum);
        }
        sum = warp_sum<LANES>(sum);
        if (in_group == 0)
            scores[p * GROUPS + group] = position < c.end ? sum * a.scale : -INFINITY;
    }
}

/* The sum of the values by the weights in scores, (depth), into out; spare: GROUPS * L * OCTET floats. */
template <cuda_type type, int L, bool whole>
DEVICE void sum_values(const cuda_attention &a, const chunk &c, const float *weights, float *spare, float *out)
{
    enum { LANES = L < WARP ? L : WARP, EACH = L / LANES, GROUPS = THREADS / LANES };
    const int depth = (int)a.depth, group = thread() / LANES, in_group = thread() % LANES;
    float sum[EACH][OCTET] = {};
    UNROLL_4
    for (int p = 0; p < CHUNK / GROUPS; p++) {
        const int position = c.first + p * GROUPS + group;
        UNROLL
        for (int e = 0; e < EACH; e++) {
            const int at = (e * LANES + in_group) * OCTET;
            float v[OCTET] = {};
            if (at < depth && position < c.end)
                load_octet<type, whole>(v, c.v.first + position * c.v.step, at, depth);
            const float weight = position < c.end ? weights[p * GROUPS + group] : 0;
            UNROLL
            for (int i = 0; i < OCTET; i++)
                sum[e][i] = fmaf(weight, v[i], sum[e][i]);
        }
    }
    UNROLL
    for (int e = 0; e < EACH; e++) {
        UNROLL
        for (int i = 0; i < OCTET; i++)
            spare[group * (L * OCTET) + (e * LANES + in_group) * OCTET + i] = sum[e][i];
    }
    barrier();
    for (int d = thread(); d < depth; d += THREADS) {
        float all = 0;
        for (int g = 0; g < GROUPS; g++)
            all += spare[g * (L * OCTET) + d];
        out[d] = all;
    }
}

/* Stores a token's result, (depth) in shared memory, rounded too where that is wanted. */
DEVICE void leave_result(const cuda_attention &a, const chunk &c, const float *result)
{
    const int depth = (int)a.depth;
    const int64_t at = (c.token * a.n_heads + c.head) * depth;
    barrier();
    for (int d = thread(); a.y && d < depth; d += THREADS)
        a.y[at + d] = result[d];
    for (int g = warp_number(); a.rounded.q && g < depth / WARP; g += WARPS) {
        float scale;
        int32_t sum;
        int q = round_lane(result[g * WARP + lane()], &scale, &sum);
        a.rounded.q[at + g * WARP + lane()] = (int8_t)q;
        if (lane() == 0) {
            a.rounded.scale[at / WARP + g] = scale;
            a.rounded.sum[at / WARP + g] = sum;
        }
    }
}

/* The last block of a token's head puts the parts of all its chunks together, into result. */
DEVICE void combine(const cuda_attention &a, const chunk &c, float *result)
{
    const int depth = (int)a.depth, floats = depth + HEAD_FLOATS;
    const int64_t chunks = (a.longest + CHUNK - 1) / CHUNK;
    volatile const float *parts = a.partial + (c.token * a.n_heads + c.head) * chunks * floats;
    float highest = -INFINITY, total = 0;
    for (int i = 0; i < c.n_chunks; i++) {
        float m = parts[(int64_t)i * floats];
        highest = m > highest || m != m ? m : highest;
    }
    for (int i = 0; i < c.n_chunks; i++)
        total += expf(parts[(int64_t)i * floats] - highest) * parts[(int64_t)i * floats + 1];
    for (int d = thread(); d < depth; d += THREADS) {
        float sum = 0;
        for (int i = 0; i < c.n_chunks; i++)
            sum = fmaf(expf(parts[(int64_t)i * floats] - highest), parts[(int64_t)i * floats + HEAD_FLOATS + d], sum);
        result[d] = sum / total;
    }
}

/* The largest of v over the block, NaN where one is. */
DEVICE float block_highest(float v, float *spare)
{
    bool broken = v != v;
    float highest = block_max(broken ? INFINITY : v, spare);
    barrier();
    return block_max(broken ? 1 : 0, spare + WARP) > 0 ? NAN : highest;
}

template <cuda_type type, int L, bool whole> KERNEL(THREADS, 4) void attention_chunks(cuda_attention a)
{
    enum { LANES = L < WARP ? L : WARP, GROUPS = THREADS / LANES };
    SHARED(float, query, L *OCTET);
    SHARED(float, scores, CHUNK);
    SHARED(float, spare, GROUPS *L *OCTET);
    SHARED(float, reduction, 2 * WARP);
    SHARED(uint32_t, order, 1);
    chunk c = {block_y(), block_z(), block_x() * CHUNK, 0, 0, {}, {}};
    const int32_t *place = a.places.data + c.token * a.places.stride;
    const int depth = (int)a.depth;
    c.k = walk_of(a.k, place, c.token, c.head);
    c.v = walk_of(a.v, place, c.token, c.head);
    if (!c.k.first) {
        for (int d = thread(); d < depth; d += THREADS)
            query[d] = NAN;
        if (block_x() == 0)
            leave_result(a, c, query);
        return;
    }
    const int last = place[1];
    if (c.first > last)
        return;
    c.end = last + 1 < c.first + CHUNK ? last + 1 : c.first + CHUNK;
    c.n_chunks = last / CHUNK + 1;
    const float *q = a.q.data + c.token * a.q.token_stride + c.head * a.q.head_stride;
    for (int d = thread(); d < L * OCTET; d += THREADS)
        query[d] = d < depth ? q[d] : 0;
    barrier();
    score<type, L, whole>(a, c, scores, query);
    barrier();
    float mine = scores[thread()], highest = block_highest(mine, reduction);
    barrier();
    float weight = mine == -INFINITY && c.first + thread() >= c.end ? 0 : expf(mine - highest);
    scores[thread()] = weight;
    float total = block_sum(weight, reduction); /* its barrier also publishes the weights */
    float *out = query;                         /* no longer needed */
    sum_values<type, L, whole>(a, c, scores, spare, out);
    if (c.n_chunks == 1) {
        for (int d = thread(); d < depth; d += THREADS)
            out[d] /= total;
        leave_result(a, c, out);
        return;
    }
    const int64_t head = c.token * a.n_heads + c.head, chunks = (a.longest + CHUNK - 1) / CHUNK;
    float *part = a.partial + (head * chunks + block_x()) * (depth + HEAD_FLOATS);
    for (int d = thread(); d < depth; d += THREADS)
        part[HEAD_FLOATS + d] = out[d];
    if (thread() == 0) {
        part[0] = highest;
        part[1] = total;
    }
    fence();
    barrier();
    if (thread() == 0) {
        order[0] = atomic_add(a.counters + head, 1);
        if (order[0] == (uint32_t)c.n_chunks - 1)
            a.counters[head] = 0;
    }
    barrier();
    if (order[0] != (uint32_t)c.n_chunks - 1)
        return;
    fence();
    combine(a, c, out);
    leave_result(a, c, out);
}

template <cuda_type type, int L> static int launch(struct cuda_stream *stream, const cuda_attention &a)
{
    uintptr_t places = 0;
    const cuda_cache *sides[] = {&a.k, &a.v};
    for (int i = 0; i < 2; i++)
        places |= (uintptr_t)sides[i]->data | (uintptr_t)sides[i]->sequence_stride | (uintptr_t)sides[i]->head_stride |
                  (uintptr_t)sides[i]->position_stride;
    grid g = GRID((a.longest + CHUNK - 1) / CHUNK, a.n_tokens, a.n_heads);
    if (places % 16 == 0 && a.depth % OCTET == 0)
        return LAUNCH(stream, (attention_chunks<type, L, true>), g, THREADS, 0, a);
    return LAUNCH(stream, (attention_chunks<type, L, false>), g, THREADS, 0, a);
}

template <cuda_type type> static int launch_type(struct cuda_stream *stream, const cuda_attention &a)
{
    switch (lanes_for(a.depth)) {
    case 4:
        return launch<type, 4>(stream, a);
    case 8:
        return launch<type, 8>(stream, a);
    case 16:
        return launch<type, 16>(stream, a);
    case 32:
        return launch<type, 32>(stream, a);
    case 64:
        return launch<type, 64>(stream, a);
    case 128:
        return launch<type, 128>(stream, a);
    default:
        return 1; /* cudaErrorInvalidValue */
    }
}

int geul_cuda_launch_attention_chunks(struct cuda_stream *stream, const void *args)
{
    const struct cuda_attention *a = (const struct cuda_attention *)args;
    switch (a->k.type) {
    case CUDA_F32:
        return launch_type<CUDA_F32>(stream, *a);
    case CUDA_F16:
        return launch_type<CUDA_F16>(stream, *a);
    case CUDA_BF16:
        return launch_type<CUDA_BF16>(stream, *a);
    case CUDA_Q8_0:
        return launch_type<CUDA_Q8_0>(stream, *a);
    default:
        return 1; /* cudaErrorInvalidValue */
    }
}

size_t geul_cuda_attention_partial_bytes(const struct cuda_attention *a)
{
    int64_t chunks = (a->longest + CHUNK - 1) / CHUNK;
    return (size_t)(a->n_tokens * a->n_heads * chunks * (a->depth + HEAD_FLOATS)) * sizeof(float);
}
