/* loss.cu: see loss.h. A block takes a row and reads it once: a thread keeps the largest logit so far, and the sums of
 * powers and of differences relative to it, which are brought to the row's largest one at the end. Memory bounds it. */
#include "backends/cuda/loss.h"

#include "backends/cuda/quads.h"

enum { THREADS = 512 };

/* What n logits give. rests: the sum of x - max. */
struct softmax_sums {
    float max, powers, rests, n;
};

DEVICE void add_logit(softmax_sums *s, float x)
{
    if (x > s->max) {
        float shift = s->max - x; /* -infinity at first */
        s->powers = s->n > 0 ? s->powers * expf(shift) : 0;
        s->rests = s->n > 0 ? s->rests + s->n * shift : 0;
        s->max = x;
    }
    /* Below any number: nothing, and an infinite difference. NaN reaches both sums. */
    bool first = s->max == -INFINITY && x == -INFINITY;
    s->powers += first ? 0 : expf(x - s->max);
    s->rests += first ? x : x - s->max;
    s->n += 1;
}

/* The sums over the block, for all its threads; spare: 3 * 32 floats. */
DEVICE softmax_sums sums_of_block(softmax_sums s, float *spare)
{
    float max = block_max(s.max, spare), shift = s.max - max;
    if (s.n > 0 && s.max < max) {
        s.powers *= expf(shift);
        s.rests += s.n * shift;
    }
    s.max = max;
    s.powers = block_sum(s.powers, spare + WARP);
    s.rests = block_sum(s.rests, spare + 2 * WARP);
    return s;
}

DEVICE softmax_sums sums_of_row(const cuda_loss &a, const float *row, float *spare)
{
    softmax_sums s = {-INFINITY, 0, 0, 0};
    for (int64_t i = thread() * QUAD; i < a.n; i += THREADS * QUAD) {
        quad q = load_quad(row + i, a.n - i, a.aligned);
        for (int j = 0; j < QUAD; j++)
            if (j < a.n - i)
                add_logit(&s, q.v[j]);
    }
    return sums_of_block(s, spare);
}

/* The row's target; negative when there is none. */
DEVICE int64_t target_of(const cuda_loss &a, int64_t row)
{
    int64_t target = a.targets[row];
    return target < a.n ? target : -1;
}

KERNEL(THREADS, 2) void loss(cuda_loss a)
{
    SHARED(float, spare, 3 * WARP);
    const int64_t r = block_x(), target = target_of(a, r);
    const float *row = a.x + r * a.stride;
    if (target < 0) {
        if (thread() == 0)
            a.loss[r] = 0;
        return;
    }
    softmax_sums s = sums_of_row(a, row, spare);
    if (thread() > 0)
        return;
    /* In double, as the CPU: one thread does it. */
    double log_powers = log((double)s.powers), lse = log_powers + (double)s.max, smoothing = a.smoothing;
    double sum = (1 - smoothing) * (log_powers - ((double)row[target] - (double)s.max));
    if (a.smoothing > 0)
        sum += smoothing * (log_powers - (double)s.rests / (double)a.n);
    if (a.z > 0)
        sum += (double)a.z * lse * lse;
    a.loss[r] = (float)sum;
}

KERNEL(THREADS, 2) void loss_back(cuda_loss_back args)
{
    SHARED(float, spare, 3 * WARP);
    const cuda_loss &a = args.of;
    const int64_t r = block_x(), target = target_of(a, r);
    const float *row = a.x + r * a.stride, dy = args.dy[r];
    float *dx = args.dx + r * a.n;
    const bool none = target < 0 || dy == 0;
    float factor = 0, offset = 0, max = 0;
    if (!none) {
        softmax_sums s = sums_of_row(a, row, spare);
        float lse = logf(s.powers) + s.max;
        factor = dy * (a.z > 0 ? 1 + 2 * a.z * lse : 1) / s.powers;
        offset = -dy * a.smoothing / (float)a.n;
        max = s.max;
    }
    for (int64_t i = thread() * QUAD; i < a.n; i += THREADS * QUAD) {
        quad q = {{0, 0, 0, 0}};
        if (!none)
            q = load_quad(row + i, a.n - i, a.aligned);
        for (int j = 0; j < QUAD && !none; j++) {
            q.v[j] = expf(q.v[j] - max) * factor + offset;
            if (i + j == target)
                q.v[j] -= dy * (1 - a.smoothing);
        }
        store_quad(dx + i, q, a.n - i, a.aligned);
    }
}

static bool row_aligned(const cuda_loss &a)
{
    return is_aligned(a.x, nullptr) && (a.n_rows < 2 || a.stride % QUAD == 0);
}

int geul_cuda_launch_loss(struct cuda_stream *stream, const void *args)
{
    cuda_loss a = *(const cuda_loss *)args;
    a.aligned = row_aligned(a);
    return LAUNCH(stream, loss, GRID(a.n_rows, 1, 1), THREADS, 0, a);
}

int geul_cuda_launch_loss_back(struct cuda_stream *stream, const void *args)
{
    cuda_loss_back a = *(const cuda_loss_back *)args;
    a.of.aligned = row_aligned(a.of) && is_aligned(a.dx, nullptr) && (a.of.n_rows < 2 || a.of.n % QUAD == 0);
    return LAUNCH(stream, loss_back, GRID(a.of.n_rows, 1, 1), THREADS, 0, a);
}
