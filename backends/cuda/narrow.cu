/* narrow.cu: see narrow.h. Memory bounds these kernels: every value is read and written once or twice. */
#include "backends/cuda/narrow.h"

#include "backends/cuda/epilogue.h"
#include "backends/cuda/plain.h"

enum { THREADS = 256, MOST_BLOCKS = 1 << 16 };

/* 2^e of the scale that makes x 2^8 <= |x| < 2^9; x finite and not 0. */
DEVICE float power_for(float largest)
{
    uint32_t bits = bits_of(largest);
    int exponent = (int)(bits >> 23); /* of the largest, biased; 0 for denormals */
    int wanted = 127 + 8 - (exponent - 127);
    wanted = wanted < 1 ? 1 : wanted > 253 ? 253 : wanted; /* so that 1 / scale is a normal number too */
    bits = (uint32_t)wanted << 23;
    return float_of(bits);
}

/* A block takes a row. */
KERNEL(THREADS, 4) void narrow_rows(cuda_narrow a)
{
    SHARED(float, spare, 32);
    for (int64_t row = block_x(); row < a.n_rows; row += grid_x()) {
        const float *x = a.x + row * a.stride;
        float power = 1;
        if (!a.bfloat) {
            float most = 0;
            bool finite = true;
            for (int64_t i = thread(); i < a.n_cols; i += THREADS) {
                float size = fabsf(x[i]);
                finite = finite && size < INFINITY;
                most = fmaxf(most, size);
            }
            most = block_max(finite ? most : INFINITY, spare);
            power = most > 0 && most < INFINITY ? power_for(most) : 1;
            if (thread() == 0)
                a.scale[row] = most < INFINITY ? 1 / power : NAN;
            barrier(); /* spare is free again */
        }
        for (int64_t i = thread(); i < a.out_stride; i += THREADS) {
            float v = i < a.n_cols ? x[i] * power : 0;
            a.out[row * a.out_stride + i] = a.bfloat ? float_to_bfloat(v) : float_to_half(v);
        }
    }
}

int geul_cuda_launch_narrow(struct cuda_stream *stream, const void *args)
{
    const struct cuda_narrow *a = (const struct cuda_narrow *)args;
    return LAUNCH(stream, narrow_rows, GRID(blocks_for(a->n_rows, 1, MOST_BLOCKS), 1, 1), THREADS, 0, *a);
}

/* A block moves tiles of 32 x 32 by way of shared memory: it reads along what is packed there, and writes along rows.
 */
enum { TILE = 32 };

template <cuda_type from> KERNEL(THREADS, 4) void pack_tiles(cuda_pack a)
{
    SHARED(float, tile, TILE *(TILE + 1));
    const bool along_rows = a.stride[1] == 1;
    const int64_t column = (int64_t)block_x() * TILE;
    for (int64_t row = (int64_t)block_y() * TILE; row < a.n_rows; row += (int64_t)grid_y() * TILE) {
        for (int i = thread(); i < TILE * TILE; i += THREADS) {
            int r = along_rows ? i / TILE : i % TILE, c = along_rows ? i % TILE : i / TILE;
            bool there = row + r < a.n_rows && column + c < a.n_cols;
            int64_t at = (row + r) * a.stride[0] + (column + c) * a.stride[1];
            tile[r * (TILE + 1) + c] = there ? plain_at<from>(a.x, at) : 0;
        }
        barrier();
        for (int i = thread(); i < TILE * TILE; i += THREADS) {
            int r = i / TILE, c = i % TILE;
            if (row + r >= a.n_rows || column + c >= a.out_stride)
                continue;
            int64_t at = (row + r) * a.out_stride + column + c;
            float v = tile[r * (TILE + 1) + c];
            if (a.to == CUDA_F32)
                ((float *)a.out)[at] = v;
            else
                ((uint16_t *)a.out)[at] = a.to == CUDA_F16 ? float_to_half(v) : float_to_bfloat(v);
        }
        barrier();
    }
}

int geul_cuda_launch_pack(struct cuda_stream *stream, const void *args)
{
    const struct cuda_pack *a = (const struct cuda_pack *)args;
    grid g = GRID((a->out_stride + TILE - 1) / TILE, blocks_for(a->n_rows, TILE, GRID_MOST_YZ), 1);
    switch (a->from) {
    case CUDA_F32:
        return LAUNCH(stream, pack_tiles<CUDA_F32>, g, THREADS, 0, *a);
    case CUDA_F16:
        return LAUNCH(stream, pack_tiles<CUDA_F16>, g, THREADS, 0, *a);
    case CUDA_BF16:
        return LAUNCH(stream, pack_tiles<CUDA_BF16>, g, THREADS, 0, *a);
    default:
        return 1; /* cudaErrorInvalidValue */
    }
}

enum { FINISHED = 4 * THREADS }; /* columns of a block, which has no division to do for each element */

KERNEL(THREADS, 4) void finish_rows(cuda_finish a)
{
    const int64_t row = block_x(), first = (int64_t)block_y() * FINISHED;
    const int64_t end = first + FINISHED < a.n_cols ? first + FINISHED : a.n_cols;
    const float scale = a.scale ? a.scale[row] : 1;
    for (int64_t column = first + thread(); column < end; column += THREADS) {
        float v = a.sums[row * a.stride + column];
        a.out.y[row * a.out.y_stride + column] = finish(a.out, v * scale, row, column);
    }
}

int geul_cuda_launch_finish(struct cuda_stream *stream, const void *args)
{
    const struct cuda_finish *a = (const struct cuda_finish *)args;
    const grid g = GRID(a->n_rows, (a->n_cols + FINISHED - 1) / FINISHED, 1);
    return LAUNCH(stream, finish_rows, g, THREADS, 0, *a);
}
