/* ceilings.cu: see ceilings.h. What loops compute is stored under a condition that never holds, so that compilers keep
 * the loops. */
#include "backends/cuda/ceilings.h"

#include "backends/cuda/warp.h"

enum { THREADS = 256, BLOCKS_PER_SM = 8, LOADS = 4, UNLIKELY = 0x5eed1e55 };

/* Each thread has LOADS loads of 16 bytes in flight, which lie THREADS apart, so that warps read whole lines. */
KERNEL(THREADS, BLOCKS_PER_SM) void read_all(const words4 *data, size_t n, uint32_t *sink)
{
    const size_t step = (size_t)grid_x() * THREADS * LOADS;
    uint32_t sum = 0;
    for (size_t at = (size_t)block_x() * THREADS * LOADS + (size_t)thread(); at < n; at += step) {
        words4 v[LOADS];
        for (int i = 0; i < LOADS; i++)
            v[i] = at + (size_t)i * THREADS < n ? load16_once(data + at + (size_t)i * THREADS) : words4{};
        for (int i = 0; i < LOADS; i++)
            sum ^= v[i].w[0] ^ v[i].w[1] ^ v[i].w[2] ^ v[i].w[3];
    }
    if (sum == UNLIKELY)
        *sink = sum;
}

int geul_cuda_launch_read(struct cuda_stream *stream, const void *args)
{
    const struct cuda_read *a = (const struct cuda_read *)args;
    return LAUNCH(stream, read_all, GRID(a->n_sm * BLOCKS_PER_SM, 1, 1), THREADS, 0, (const words4 *)a->data,
                  a->bytes / sizeof(words4), a->sink);
}

/* CHAINS independent sums a warp hide the latency of one. */
enum { CHAINS = 8, PEAK_BLOCKS = 2 };

KERNEL(THREADS, PEAK_BLOCKS) void multiply_floats(int rounds, float factor, uint32_t *sink)
{
    float sum[CHAINS];
    for (int i = 0; i < CHAINS; i++)
        sum[i] = (float)(thread() + i);
    for (int r = 0; r < rounds; r++)
        for (int i = 0; i < CHAINS; i++)
            sum[i] = fmaf(sum[i], factor, 1.0f);
    float all = 0;
    for (int i = 0; i < CHAINS; i++)
        all += sum[i];
    if (all == (float)UNLIKELY)
        *sink = 1;
}

template <cuda_peak peak, typename T> KERNEL(THREADS, PEAK_BLOCKS) void multiply_matrices(int rounds, uint32_t *sink)
{
    T d[CHAINS][4] = {};
    uint32_t a[4], b[2];
    for (int i = 0; i < 4; i++) /* bits that are small numbers in each of the formats */
        a[i] = 0x3c013c01u + (uint32_t)(lane() & 3);
    for (int i = 0; i < 2; i++)
        b[i] = 0x3c023c02u + (uint32_t)(lane() & 7);
    for (int r = 0; r < rounds; r++)
        for (int i = 0; i < CHAINS; i++) {
            if constexpr (peak == CUDA_PEAK_INT8)
                multiply_int8(d[i], a, b);
            else if constexpr (peak == CUDA_PEAK_F16)
                multiply_half(d[i], a, b);
            else
                multiply_bfloat(d[i], a, b);
        }
    T all = 0;
    for (int i = 0; i < CHAINS; i++)
        all += d[i][0] + d[i][1] + d[i][2] + d[i][3];
    if (all == (T)UNLIKELY)
        *sink = 1;
}

int geul_cuda_launch_multiply(struct cuda_stream *stream, const void *args)
{
    const struct cuda_multiply *m = (const struct cuda_multiply *)args;
    const grid g = GRID(m->n_sm * PEAK_BLOCKS, 1, 1);
    switch (m->peak) {
    case CUDA_PEAK_F32:
        return LAUNCH(stream, multiply_floats, g, THREADS, 0, m->rounds, 0.5f, m->sink);
    case CUDA_PEAK_BF16:
        return LAUNCH(stream, (multiply_matrices<CUDA_PEAK_BF16, float>), g, THREADS, 0, m->rounds, m->sink);
    case CUDA_PEAK_F16:
        return LAUNCH(stream, (multiply_matrices<CUDA_PEAK_F16, float>), g, THREADS, 0, m->rounds, m->sink);
    default:
        return LAUNCH(stream, (multiply_matrices<CUDA_PEAK_INT8, int32_t>), g, THREADS, 0, m->rounds, m->sink);
    }
}

double geul_cuda_multiply_macs(const struct cuda_multiply *m)
{
    static const double per_warp[CUDA_PEAKS] = {32, 16 * 8 * 16, 16 * 8 * 16, 16 * 8 * 32}; /* of one chain's step */
    return per_warp[m->peak] * CHAINS * m->rounds * (THREADS / WARP) * PEAK_BLOCKS * m->n_sm;
}
