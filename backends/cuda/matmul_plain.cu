/* matmul_plain.cu: products in plain float32 arithmetic (narrow.h). A block computes 64 x 64 results, 16 of K at a
 * time; a thread 4 x 4 of them, 16 rows and columns apart. The order of a sum is that of K. */
#include "backends/cuda/narrow.h"

#include "backends/cuda/epilogue.h"

enum { TILE = 64, DEPTH = 16, EACH = 4, SIDE = TILE / EACH, THREADS = SIDE * SIDE };

template <cuda_type type> DEVICE float element(const void *data, int64_t at)
{
    if constexpr (type == CUDA_F32)
        return ((const float *)data)[at];
    uint16_t h = ((const uint16_t *)data)[at];
    return type == CUDA_F16 ? half_to_float(h) : bfloat_to_float(h);
}

DEVICE float rounded(float x, bool bfloat)
{
    return bfloat ? bfloat_to_float(float_to_bfloat(x)) : x;
}

/* A tile of one side, (DEPTH, TILE): threads that follow each other read along the packed dimension. stride: of the
 * tile's own dimension and of K. */
template <cuda_type type>
DEVICE void bring_side(float *tile, const void *data, const int64_t stride[2], int64_t first, int64_t n, int64_t depth,
                       int64_t k, bool bfloat)
{
    const bool along_k = stride[1] == 1;
    for (int i = thread(); i < TILE * DEPTH; i += THREADS) {
        int at = along_k ? i / DEPTH : i % TILE, d = along_k ? i % DEPTH : i / TILE;
        bool there = first + at < n && depth + d < k;
        float v = there ? element<type>(data, (first + at) * stride[0] + (depth + d) * stride[1]) : 0;
        tile[d * (TILE + 1) + at] = rounded(v, bfloat);
    }
}

template <cuda_type type> KERNEL(THREADS, 2) void matmul_plain(cuda_matmul_plain p)
{
    SHARED(float, a, DEPTH *(TILE + 1));
    SHARED(float, b, DEPTH *(TILE + 1));
    const int64_t row = (int64_t)block_y() * TILE, column = (int64_t)block_x() * TILE;
    const int my_row = thread() / SIDE, my_column = thread() % SIDE;
    const int64_t a_stride[2] = {p.a_stride[0], p.a_stride[1]}, b_stride[2] = {p.b_stride[1], p.b_stride[0]};
    float sum[EACH][EACH] = {};
    for (int64_t depth = 0; depth < p.k; depth += DEPTH) {
        bring_side<CUDA_F32>(a, p.a, a_stride, row, p.m, depth, p.k, p.bfloat);
        bring_side<type>(b, p.b, b_stride, column, p.n, depth, p.k, p.bfloat);
        barrier();
        for (int d = 0; d < DEPTH; d++) {
            float left[EACH], right[EACH];
            UNROLL
            for (int i = 0; i < EACH; i++) {
                left[i] = a[d * (TILE + 1) + my_row + SIDE * i];
                right[i] = b[d * (TILE + 1) + my_column + SIDE * i];
            }
            UNROLL
            for (int i = 0; i < EACH; i++) {
                UNROLL
                for (int j = 0; j < EACH; j++)
                    sum[i][j] = fmaf(left[i], right[j], sum[i][j]);
            }
        }
        barrier();
    }
    UNROLL
    for (int i = 0; i < EACH; i++) {
        UNROLL
        for (int j = 0; j < EACH; j++) {
            int64_t r = row + my_row + SIDE * i, c = column + my_column + SIDE * j;
            if (r >= p.m || c >= p.n)
                continue;
            float *y = p.out.y + r * p.out.y_stride + c;
            *y = p.adds ? *y + sum[i][j] : finish(p.out, sum[i][j], r, c);
        }
    }
}

int geul_cuda_launch_matmul_plain(struct cuda_stream *stream, const void *args)
{
    const struct cuda_matmul_plain *p = (const struct cuda_matmul_plain *)args;
    grid g = GRID((p->n + TILE - 1) / TILE, (p->m + TILE - 1) / TILE, 1);
    switch (p->type) {
    case CUDA_F32:
        return LAUNCH(stream, matmul_plain<CUDA_F32>, g, THREADS, 0, *p);
    case CUDA_F16:
        return LAUNCH(stream, matmul_plain<CUDA_F16>, g, THREADS, 0, *p);
    case CUDA_BF16:
        return LAUNCH(stream, matmul_plain<CUDA_BF16>, g, THREADS, 0, *p);
    default:
        return 1; /* cudaErrorInvalidValue */
    }
}
