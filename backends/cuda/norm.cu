/* norm.cu: see norm.h.
 *
 * A row is read once and kept in registers (longer ones than 8 values a thread are read again, from the cache). Its
 * mean is taken first; the sums of the differences d from it and of their squares then give what the mean was off by,
 * so that float32 suffices however far the row lies from 0:
 *
 *     off = sum d / n     variance = sum d^2 / n - off^2     result = (d - off) / sqrt(variance + eps) * weight + bias
 *
 * How the sums are cut depends on the length of a row alone: a row's bits do not depend on the other rows.
 *
 * Generating, there is one row, and what counts is latency: as many threads as a row has quads, and the first weights
 * are loaded before the sums are known. With many rows it is memory that counts, and every value moves once. */
#include "backends/cuda/norm.h"

#include "backends/cuda/quads.h"
#include "backends/cuda/round_group.h"

enum {
    KEPT = 2,       /* quads of a row that a thread keeps */
    MOST = 1024,    /* threads of a row */
    WARP_ROW = 256, /* columns of a row that a warp takes */
    WARP_ROWS = 8   /* such rows of a block */
};

/* ---------------------------------------------------------------------------------- the sums -- */

/* A row is shared by a warp, or by the block. Its threads take quads at, at + step, ... */
template <bool block> DEVICE int team_at()
{
    return block ? thread() : lane();
}

template <bool block> DEVICE int team_size()
{
    return block ? threads() : WARP;
}

/* The sums of a and of b over the threads of a row, at the cost of one barrier; spare: shared memory of 64 floats that
 * no other sum of the kernel uses. */
template <bool block> DEVICE void team_sums(float *a, float *b, float *spare)
{
    *a = warp_sum(*a);
    *b = warp_sum(*b);
    if (!block)
        return;
    if (lane() == 0) {
        spare[warp_number()] = *a;
        spare[WARP + warp_number()] = *b;
    }
    barrier();
    bool there = lane() < threads() / WARP;
    *a = warp_sum(there ? spare[lane()] : 0.0f);
    *b = warp_sum(there ? spare[WARP + lane()] : 0.0f);
}

/* What a thread knows of its row. */
struct moments {
    float mean, off; /* the row's mean is mean + off */
    float inverse;   /* 1 / its deviation */
};

DEVICE float quad_sum(const quad &q)
{
    return (q.v[0] + q.v[1]) + (q.v[2] + q.v[3]);
}

/* Adds what a quad of which `left` elements are there gives to the sums of differences. */
DEVICE void add_differences(const quad &q, int64_t left, float mean, float *sum, float *squares)
{
    for (int j = 0; j < QUAD; j++) {
        float d = j < left ? q.v[j] - mean : 0;
        *sum += d;
        *squares += d * d;
    }
}

/* kept: the thread's first KEPT quads of row x, of n elements. spare: 128 floats. */
template <bool block>
DEVICE moments row_moments(const float *x, int64_t n, float eps, bool aligned, const quad kept[KEPT], float *spare)
{
    const int at = team_at<block>() * QUAD, step = team_size<block>() * QUAD;
    float sum = 0, rest = 0, squares = 0;
    for (int k = 0; k < KEPT; k++)
        sum += quad_sum(kept[k]);
    for (int64_t i = at + KEPT * step; i < n; i += step)
        sum += quad_sum(load_quad(x + i, n - i, aligned));
    team_sums<block>(&sum, &rest, spare);
    moments m;
    m.mean = sum / (float)n;
    for (int k = 0; k < KEPT; k++)
        add_differences(kept[k], n - at - k * step, m.mean, &rest, &squares);
    for (int64_t i = at + KEPT * step; i < n; i += step)
        add_differences(load_quad(x + i, n - i, aligned), n - i, m.mean, &rest, &squares);
    team_sums<block>(&rest, &squares, spare + 2 * WARP);
    m.off = rest / (float)n;
    float variance = squares / (float)n - m.off * m.off;
    variance = variance < 0 ? 0 : variance; /* NaN stays */
    m.inverse = 1 / sqrtf(variance + eps);
    return m;
}

/* ------------------------------------------------------------------------------------- norms -- */

/* A result's weight and bias at column i. */
struct factors {
    quad weight, bias;
};

DEVICE factors load_factors(const cuda_norm_result &r, int64_t i, int64_t n, bool aligned)
{
    factors f = {load_quad(r.weight + i, n - i, aligned), load_quad(r.bias + i, n - i, aligned)};
    return f;
}

/* Stores the quad of a row's result at column i, of n. All lanes of a warp come here with the same loop, those behind
 * the row's end too: rounding takes 8 of them together. */
DEVICE void finish(const cuda_norm_result &r, int64_t row, int64_t i, int64_t n, const quad &x, const moments &m,
                   const factors &f, bool aligned)
{
    quad y;
    for (int j = 0; j < QUAD; j++)
        y.v[j] = (x.v[j] - m.mean - m.off) * m.inverse * f.weight.v[j] + f.bias.v[j];
    if (r.y)
        store_quad(r.y + row * n + i, y, n - i, aligned);
    if (r.rounded.q)
        round_quad(y.v, r.rounded, row * n + i, i < n);
}

template <bool block, int n_results> DEVICE void norm_row(const cuda_norm &a, int64_t row, float *spare)
{
    const int64_t n = a.n_cols, at = team_at<block>() * QUAD, step = team_size<block>() * QUAD;
    const float *x = a.x + row_offset(row, a.leading, a.stride);
    const bool aligned = a.aligned;
    quad kept[KEPT];
    factors first[n_results];
    UNROLL
    for (int k = 0; k < KEPT; k++)
        kept[k] = load_quad(x + at + k * step, n - at - k * step, aligned);
    UNROLL
    for (int r = 0; r < n_results; r++)
        first[r] = load_factors(a.result[r], at, n, aligned);
    moments m = row_moments<block>(x, n, a.eps, aligned, kept, spare);
    UNROLL
    for (int k = 0; k < KEPT; k++) {
        UNROLL
        for (int r = 0; r < n_results; r++) {
            factors f = k == 0 ? first[r] : load_factors(a.result[r], at + k * step, n, aligned);
            finish(a.result[r], row, at + k * step, n, kept[k], m, f, aligned);
        }
    }
    for (int64_t from = KEPT * step; from < n; from += step) {
        quad q = load_quad(x + from + at, n - from - at, aligned); /* before y, which may be x, is written */
        for (int r = 0; r < n_results; r++)
            finish(a.result[r], row, from + at, n, q, m, load_factors(a.result[r], from + at, n, aligned), aligned);
    }
}

template <int n_results> KERNEL(WARP *WARP_ROWS, 1) void norm_short(cuda_norm a)
{
    int64_t row = (int64_t)block_x() * WARP_ROWS + warp_number();
    if (row < a.n_rows)
        norm_row<false, n_results>(a, row, nullptr);
}

template <int n_results> KERNEL(MOST, 1) void norm_long(cuda_norm a)
{
    SHARED(float, spare, 4 * WARP);
    norm_row<true, n_results>(a, block_x(), spare);
}

/* ---------------------------------------------------------------------------------- gradient -- */

/* With g = dy * weight and h the row at mean 0 and variance 1: inverse * (g - mean(g) - h mean(g h)). */
template <bool block> DEVICE void norm_back_row(const cuda_norm_back &a, int64_t row, float *spare)
{
    const int64_t n = a.n_cols, at = team_at<block>() * QUAD, step = team_size<block>() * QUAD;
    const float *x = (const float *)a.x.data + row_offset(row, a.leading, a.x.stride);
    const float *dy = (const float *)a.dy.data + row_offset(row, a.leading, a.dy.stride);
    const bool aligned = a.aligned;
    quad kept[KEPT];
    for (int k = 0; k < KEPT; k++)
        kept[k] = load_quad(x + at + k * step, n - at - k * step, aligned);
    moments m = row_moments<block>(x, n, a.eps, aligned, kept, spare);
    float sum = 0, products = 0;
    for (int64_t i = at; i < n; i += step) {
        quad g = load_quad(dy + i, n - i, aligned), w = load_quad(a.weight + i, n - i, aligned);
        quad h = load_quad(x + i, n - i, aligned);
        for (int j = 0; j < QUAD; j++) {
            float v = g.v[j] * w.v[j]; /* 0 behind the end */
            sum += v;
            products += j < n - i ? v * ((h.v[j] - m.mean - m.off) * m.inverse) : 0;
        }
    }
    team_sums<block>(&sum, &products, spare + 4 * WARP);
    sum /= (float)n;
    products /= (float)n;
    for (int64_t i = at; i < n; i += step) {
        quad g = load_quad(dy + i, n - i, aligned), w = load_quad(a.weight + i, n - i, aligned);
        quad h = load_quad(x + i, n - i, aligned), dx;
        for (int j = 0; j < QUAD; j++)
            dx.v[j] = m.inverse * (g.v[j] * w.v[j] - sum - (h.v[j] - m.mean - m.off) * m.inverse * products);
        store_quad(a.dx + row * n + i, dx, n - i, aligned);
    }
}

KERNEL(WARP *WARP_ROWS, 1) void norm_back_short(cuda_norm_back a)
{
    int64_t row = (int64_t)block_x() * WARP_ROWS + warp_number();
    if (row < a.n_rows)
        norm_back_row<false>(a, row, nullptr);
}

KERNEL(MOST, 1) void norm_back_long(cuda_norm_back a)
{
    SHARED(float, spare, 6 * WARP);
    norm_back_row<true>(a, block_x(), spare);
}

/* ------------------------------------------------------------------------------------ launch -- */

/* Threads for a row of n columns: a quad each, in whole warps. */
static int threads_of(int64_t n)
{
    int64_t t = (n + QUAD * WARP - 1) / (QUAD * WARP) * WARP;
    return t > MOST ? MOST : (int)t;
}

template <int n_results> static int launch_norm(struct cuda_stream *stream, const cuda_norm &a)
{
    if (a.n_cols <= WARP_ROW)
        return LAUNCH(stream, (norm_short<n_results>), GRID((a.n_rows + WARP_ROWS - 1) / WARP_ROWS, 1, 1),
                      WARP * WARP_ROWS, 0, a);
    return LAUNCH(stream, (norm_long<n_results>), GRID(a.n_rows, 1, 1), threads_of(a.n_cols), 0, a);
}

int geul_cuda_launch_norm(struct cuda_stream *stream, const void *args)
{
    cuda_norm a = *(const cuda_norm *)args;
    if (a.n_cols == 0)
        return 0;
    bool aligned = a.n_cols % QUAD == 0 && is_aligned(a.x, a.stride);
    for (int r = 0; r < a.n_results; r++)
        aligned &= is_aligned(a.result[r].weight, nullptr) && is_aligned(a.result[r].bias, nullptr) &&
                   is_aligned(a.result[r].y, nullptr);
    a.aligned = aligned;
    return a.n_results == 1 ? launch_norm<1>(stream, a) : launch_norm<2>(stream, a);
}

int geul_cuda_launch_norm_back(struct cuda_stream *stream, const void *args)
{
    cuda_norm_back a = *(const cuda_norm_back *)args;
    if (a.n_cols == 0)
        return 0;
    a.aligned = a.n_cols % QUAD == 0 && is_aligned(a.x.data, a.x.stride) && is_aligned(a.dy.data, a.dy.stride) &&
                is_aligned(a.weight, nullptr) && is_aligned(a.dx, nullptr);
    if (a.n_cols <= WARP_ROW)
        return LAUNCH(stream, norm_back_short, GRID((a.n_rows + WARP_ROWS - 1) / WARP_ROWS, 1, 1), WARP * WARP_ROWS, 0,
                      a);
    return LAUNCH(stream, norm_back_long, GRID(a.n_rows, 1, 1), threads_of(a.n_cols), 0, a);
}
