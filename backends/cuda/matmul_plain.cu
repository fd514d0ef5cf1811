/* matmul_plain.cu: products in plain float32 arithmetic (narrow.h). A block computes tiles of 64 x 64 or 128 x 128
 * results, 16 of K at a time; a thread 4 x 4 or 8 x 8 of them, in groups of 4 that it reads with one load each. A large
 * tile makes 64 multiplications of 4 loads and is bound by arithmetic; a small one is for results that are few. */
#include "backends/cuda/narrow.h"

#include "backends/cuda/epilogue.h"
#include "backends/cuda/plain.h"

#include <string.h>

enum { DEPTH = 16, SIDE = 16, THREADS = SIDE * SIDE, MANY_RESULTS = 1 << 20 };

/* each: results of a thread along either side. */
template <int each> struct side_of {
    enum { tile = SIDE * each, stride = tile + 4 };
    float v[DEPTH * stride];
};

/* A tile of one side: threads that follow each other read along the packed dimension. stride: of the tile's own
 * dimension and of K. */
template <cuda_type type, int each>
DEVICE void bring_side(side_of<each> &side, const void *data, const int64_t stride[2], int64_t first, int64_t n,
                       int64_t depth, int64_t k)
{
    const bool along_k = stride[1] == 1;
    UNROLL
    for (int j = 0; j < each; j++) {
        int i = thread() + j * THREADS;
        int at = along_k ? i / DEPTH : i % side.tile, d = along_k ? i % DEPTH : i / side.tile;
        bool there = first + at < n && depth + d < k;
        const int64_t place = (first + at) * stride[0] + (depth + d) * stride[1];
        side.v[d * side.stride + at] = there ? plain_at<type>(data, place) : 0;
    }
}

/* Number i of a thread's results along a side where it is number `mine` of SIDE. */
DEVICE int place_of(int mine, int i)
{
    return i / 4 * (SIDE * 4) + mine * 4 + i % 4;
}

template <int each> DEVICE void load_side(float v[each], const side_of<each> &side, int depth, int mine)
{
    UNROLL
    for (int i = 0; i < each; i += 4) {
        words4 w = load16(side.v + depth * side.stride + place_of(mine, i));
        memcpy(v + i, &w, sizeof w);
    }
}

template <cuda_type type, int each> KERNEL(THREADS, 1) void matmul_plain(cuda_matmul_plain p)
{
    SHARED(side_of<each>, sides, 2);
    const int64_t row = (int64_t)block_y() * sides[0].tile, column = (int64_t)block_x() * sides[0].tile;
    const int my_row = thread() / SIDE, my_column = thread() % SIDE;
    const int64_t a_stride[2] = {p.a_stride[0], p.a_stride[1]}, b_stride[2] = {p.b_stride[1], p.b_stride[0]};
    float sum[each][each] = {};
    for (int64_t depth = 0; depth < p.k; depth += DEPTH) {
        bring_side<CUDA_F32, each>(sides[0], p.a, a_stride, row, p.m, depth, p.k);
        bring_side<type, each>(sides[1], p.b, b_stride, column, p.n, depth, p.k);
        barrier();
        for (int d = 0; d < DEPTH; d++) {
            float left[each], right[each];
            load_side<each>(left, sides[0], d, my_row);
            load_side<each>(right, sides[1], d, my_column);
            UNROLL
            for (int i = 0; i < each; i++) {
                UNROLL
                for (int j = 0; j < each; j++)
                    sum[i][j] = fmaf(left[i], right[j], sum[i][j]);
            }
        }
        barrier();
    }
    UNROLL
    for (int i = 0; i < each; i++) {
        UNROLL
        for (int j = 0; j < each; j++) {
            int64_t r = row + place_of(my_row, i), c = column + place_of(my_column, j);
            if (r < p.m && c < p.n)
                p.out.y[r * p.out.y_stride + c] = finish(p.out, sum[i][j], r, c);
        }
    }
}

template <cuda_type type, int each> static int launch_tiles(struct cuda_stream *stream, const cuda_matmul_plain &p)
{
    const int64_t tile = side_of<each>::tile;
    grid g = GRID((p.n + tile - 1) / tile, (p.m + tile - 1) / tile, 1);
    return LAUNCH(stream, (matmul_plain<type, each>), g, THREADS, 0, p);
}

/* The order of a sum does not depend on the tile. */
template <cuda_type type> static int launch(struct cuda_stream *stream, const cuda_matmul_plain &p)
{
    bool large = p.m >= side_of<8>::tile && p.n >= side_of<8>::tile && p.m * p.n >= MANY_RESULTS;
    return large ? launch_tiles<type, 8>(stream, p) : launch_tiles<type, 4>(stream, p);
}

int geul_cuda_launch_matmul_plain(struct cuda_stream *stream, const void *args)
{
    const struct cuda_matmul_plain *p = (const struct cuda_matmul_plain *)args;
    switch (p->type) {
    case CUDA_F32:
        return launch<CUDA_F32>(stream, *p);
    case CUDA_F16:
        return launch<CUDA_F16>(stream, *p);
    case CUDA_BF16:
        return launch<CUDA_BF16>(stream, *p);
    default:
        return 1; /* cudaErrorInvalidValue */
    }
}
