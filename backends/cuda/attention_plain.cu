/* attention_plain.cu: attention of any depth, type and alignment (cuda_attention.h), in chunks one after the other,
 * with the sums of values in the result itself. No model of ours needs it: it is written to be right, not fast. */
#include "backends/cuda/cache_rows.h"

enum { CHUNK = CUDA_ATTENTION_CHUNK, THREADS = 128, WARPS = THREADS / WARP };

/* Scores of the chunk that begins at `first`, in units of log2; -infinity behind `last`. */
DEVICE void score_chunk(const cuda_attention &a, const float *q, const cache_walk &k, int first, int last,
                        float *scores)
{
    const float factor = exponent_factor(a);
    for (int i = warp_number(); i < CHUNK; i += WARPS) {
        float sum = 0;
        for (int d = lane(); d < (int)a.depth && first + i <= last; d += WARP)
            sum = fmaf(q[d], value_at(a.k.type, k.first + (first + i) * k.step, d), sum);
        sum = warp_sum(sum);
        if (lane() == 0)
            scores[i] = first + i <= last ? sum * factor : -INFINITY;
    }
}

/* Adds the chunk to y, the sums so far, which are scaled by old_part first. */
DEVICE void add_chunk(const cuda_attention &a, float *y, const cache_walk &v, int first, int last, const float *weights,
                      float old_part)
{
    const int n = last - first < CHUNK ? last - first + 1 : (int)CHUNK;
    for (int d = thread(); d < (int)a.depth; d += THREADS) {
        float sum = first == 0 ? 0 : y[d] * old_part;
        for (int i = 0; i < n; i++)
            sum = fmaf(weights[i], value_at(a.v.type, v.first + (first + i) * v.step, d), sum);
        y[d] = sum;
    }
}

KERNEL(THREADS, 4) void attention_plain(cuda_attention a)
{
    SHARED(float, scores, CHUNK);
    SHARED(float, weights, CHUNK);
    const int64_t at = (a.n_tokens * a.n_heads - 1 - block_x()), token = at / a.n_heads;
    const int head = (int)(at % a.n_heads), depth = (int)a.depth;
    const int32_t *place = a.places.data + token * a.places.stride;
    const cache_walk k = walk_of(a.k, place, token, head), v = walk_of(a.v, place, token, head);
    const int last = k.first ? place[1] : -1;
    const float *q = a.q.data + token * a.q.token_stride + head * a.q.head_stride;
    float *y = a.y + at * depth, highest = -INFINITY, total = 0;
    for (int first = 0; first <= last; first += CHUNK) {
        score_chunk(a, q, k, first, last, scores);
        barrier();
        const float low = scores[lane()], high = scores[lane() + WARP];
        const float next = fmaxf(highest, warp_max(fmaxf(low, high))), from = finite_or_0(next);
        const float old_part = exp2f(highest - from);
        total = fmaf(total, old_part, warp_sum(exp2f(low - from) + exp2f(high - from)));
        highest = next;
        if (thread() < CHUNK)
            weights[thread()] = exp2f(scores[thread()] - from);
        barrier();
        add_chunk(a, y, v, first, last, weights, old_part);
        /* The next scores are written while weights are read, and the next weights behind a barrier. */
    }
    for (int d = thread(); d < depth; d += THREADS)
        y[d] = last < 0 ? NAN : y[d] / total;
    if (!a.rounded.q)
        return;
    barrier();
    for (int g = warp_number() * WARP; g < depth; g += THREADS)
        round_result(a, at * depth + g, y[g + lane()]);
}

int geul_cuda_launch_attention_plain(struct cuda_stream *stream, const void *args)
{
    const struct cuda_attention *a = (const struct cuda_attention *)args;
    return LAUNCH(stream, attention_plain, GRID(a->n_tokens * a->n_heads, 1, 1), THREADS, 0, *a);
}
