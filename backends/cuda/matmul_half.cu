/* matmul_half.cu: products of float16 and bfloat16 by tensor cores (matmul.h, tiles.h); sums are float32. A step is 64
 * values; the next one's are copied while its products are computed. */
#include "backends/cuda/tiles.h"

enum { STEP = TILE_BYTES / 2 };

template <int T> struct half_memory {
    uint8_t weights[2][CUDA_TILE_ROWS * TILE_STRIDE], x[2][T * TILE_STRIDE];
};

template <int T> DEVICE void bring_step(half_memory<T> &s, const cuda_matmul_half &a, int step, int to)
{
    const int64_t at = (int64_t)step * STEP;
    for (int side = 0; side < 2; side++) {
        const uint16_t *from = side ? a.x : a.weights;
        const int rows = side ? T : CUDA_TILE_ROWS;
        const int64_t first = side ? (int64_t)block_y() * T : (int64_t)block_x() * CUDA_TILE_ROWS;
        const int64_t n_rows = side ? a.n_tokens : a.n, stride = side ? a.x_stride : a.weight_stride;
        uint8_t *shared = side ? s.x[to] : s.weights[to];
        for (int i = thread(); i < rows * (TILE_BYTES / 16); i += TILE_THREADS) {
            int row = i / (TILE_BYTES / 16), column = i % (TILE_BYTES / 16) * 8;
            bool there = first + row < n_rows && at + column < a.k;
            copy16_async(shared + row * TILE_STRIDE + 2 * column,
                         there ? from + (first + row) * stride + at + column : from, there);
        }
    }
    copies_commit();
}

template <bool bfloat, int T>
DEVICE void multiply_step(const half_memory<T> &s, int half, float sum[tile_of<T>::m][tile_of<T>::n][4])
{
    typedef tile_of<T> tile;
    for (int at = 0; at < TILE_BYTES; at += 32) {
        uint32_t a[tile::m][4];
        UNROLL
        for (int m = 0; m < tile::m; m++)
            load_weight_fragment(a[m], s.weights[half], warp_row<T>() + 16 * m, at);
        UNROLL
        for (int i = 0; i < tile::n; i++) {
            uint32_t b[2];
            load_token_fragment(b, s.x[half], warp_token<T>() + 8 * i, at);
            UNROLL
            for (int m = 0; m < tile::m; m++) {
                if (bfloat)
                    multiply_bfloat(sum[m][i], a[m], b);
                else
                    multiply_half(sum[m][i], a[m], b);
            }
        }
    }
}

template <bool bfloat, int T> KERNEL(TILE_THREADS, T <= 64 ? 2 : 1) void matmul_half(cuda_matmul_half a)
{
    SHARED_DYNAMIC(uint8_t, memory);
    half_memory<T> &s = *(half_memory<T> *)memory;
    float sum[tile_of<T>::m][tile_of<T>::n][4] = {};
    const tile_steps steps = steps_of(a.k * 2, a.cut.split);
    if (steps.from < steps.to)
        bring_step<T>(s, a, steps.from, 0);
    for (int step = steps.from, half = 0; step < steps.to; step++, half ^= 1) {
        copies_wait<0>();
        barrier(); /* also: everybody is done with the half that is overwritten next */
        if (step + 1 < steps.to)
            bring_step<T>(s, a, step + 1, half ^ 1);
        multiply_step<bfloat, T>(s, half, sum);
    }
    leave_tile<T>(*(sum_tile<T> *)memory, sum, a.cut, a.out, a.n_tokens, a.n, a.row_scale);
}

template <bool bfloat, int T> static int launch(struct cuda_stream *stream, const cuda_matmul_half &a)
{
    grid g = GRID((a.n + CUDA_TILE_ROWS - 1) / CUDA_TILE_ROWS, (a.n_tokens + T - 1) / T, a.cut.split);
    return LAUNCH(stream, (matmul_half<bfloat, T>), g, TILE_THREADS, tile_memory<half_memory<T>, T>(), a);
}

int geul_cuda_launch_matmul_half(struct cuda_stream *stream, const void *args)
{
    const struct cuda_matmul_half *a = (const struct cuda_matmul_half *)args;
    static int (*const launches[2][4])(struct cuda_stream *, const cuda_matmul_half &) = {
        {launch<false, 16>, launch<false, 32>, launch<false, 64>, launch<false, 128>},
        {launch<true, 16>, launch<true, 32>, launch<true, 64>, launch<true, 128>}};
    return launches[a->bfloat][which_tile(a->cut.tokens)](stream, *a);
}
