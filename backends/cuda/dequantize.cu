/* dequantize.cu: weights of any type as floats of 32 or 16 bits: what geul_decode() gives, rounded to nearest. Memory
 * bounds it: a thread takes a unit of a block, and lanes write 32 or 64 bytes each. */
#include "backends/cuda/matvec.h"

#include "backends/cuda/blocks.h"
#include "backends/cuda/plain.h"

enum { THREADS = 256, MOST_BLOCKS = 1 << 20 };

DEVICE void store_value(void *out, int64_t at, float v, cuda_type to)
{
    if (to == CUDA_F32)
        ((float *)out)[at] = v;
    else
        ((uint16_t *)out)[at] = to == CUDA_F16 ? float_to_half(v) : float_to_bfloat(v);
}

/* The 16 values of a part, at elements `at` and following: rows are multiples of a block, so they lie on 16 bytes. */
template <cuda_type type> DEVICE void store_part(void *out, int64_t at, const unpacked<type> &u, int p, cuda_type to)
{
    UNROLL
    for (int i = 0; i < 16; i += 8) {
        float v[8];
        words4 low, high;
        UNROLL
        for (int j = 0; j < 8; j++)
            v[j] = unpacked_value<type>(u, p, i + j);
        UNROLL
        for (int j = 0; j < 4; j++) {
            low.w[j] = to == CUDA_F32   ? bits_of(v[j])
                       : to == CUDA_F16 ? halves(v[2 * j], v[2 * j + 1])
                                        : bfloats(v[2 * j], v[2 * j + 1]);
            high.w[j] = bits_of(v[4 + j]);
        }
        if (to == CUDA_F32) {
            *(words4 *)((float *)out + at + i) = low;
            *(words4 *)((float *)out + at + i + 4) = high;
        } else {
            *(words4 *)((uint16_t *)out + at + i) = low;
        }
    }
}

template <cuda_type type> KERNEL(THREADS, 4) void dequantize_blocks(cuda_dequantize a)
{
    typedef shape_of<type> shape;
    const int64_t per_row = a.n_cols / shape::unit, n = a.n_rows * per_row;
    for (int64_t i = (int64_t)block_x() * THREADS + thread(); i < n; i += (int64_t)grid_x() * THREADS) {
        int64_t row = i / per_row, block = i % per_row / shape::units;
        int unit = (int)(i % per_row % shape::units);
        unpacked<type> u;
        unpack<type>((const uint8_t *)a.weights + row * a.row_bytes + block * shape::bytes, unit, &u);
        UNROLL
        for (int p = 0; p < shape::parts; p++)
            store_part<type>(a.out, row * a.n_cols + block * shape::values + part_offset<type>(unit, p), u, p, a.to);
    }
}

template <cuda_type type> KERNEL(THREADS, 4) void dequantize_plain(cuda_dequantize a)
{
    const int64_t n = a.n_rows * a.n_cols;
    for (int64_t i = (int64_t)block_x() * THREADS + thread(); i < n; i += (int64_t)grid_x() * THREADS) {
        const uint8_t *row = (const uint8_t *)a.weights + i / a.n_cols * a.row_bytes;
        store_value(a.out, i, plain_at<type>(row, i % a.n_cols), a.to);
    }
}

template <cuda_type type> static int launch_blocks(struct cuda_stream *stream, const cuda_dequantize &a)
{
    int64_t blocks = blocks_for(a.n_rows * (a.n_cols / shape_of<type>::unit), THREADS, MOST_BLOCKS);
    return LAUNCH(stream, dequantize_blocks<type>, GRID(blocks, 1, 1), THREADS, 0, a);
}

template <cuda_type type> static int launch_plain(struct cuda_stream *stream, const cuda_dequantize &a)
{
    int64_t blocks = blocks_for(a.n_rows * a.n_cols, THREADS, MOST_BLOCKS);
    return LAUNCH(stream, dequantize_plain<type>, GRID(blocks, 1, 1), THREADS, 0, a);
}

int geul_cuda_launch_dequantize(struct cuda_stream *stream, const void *args)
{
    const struct cuda_dequantize *a = (const struct cuda_dequantize *)args;
    static const struct {
        cuda_type type;
        int (*launch)(struct cuda_stream *stream, const cuda_dequantize &a);
    } launches[] = {{CUDA_F32, launch_plain<CUDA_F32>},
                    {CUDA_F16, launch_plain<CUDA_F16>},
                    {CUDA_BF16, launch_plain<CUDA_BF16>},
#define ROW(type) {CUDA_##type, launch_blocks<CUDA_##type>},
                    EACH_BLOCK_TYPE(ROW)
#undef ROW
    };
    for (size_t i = 0; i < sizeof launches / sizeof *launches; i++)
        if (launches[i].type == a->type)
            return launches[i].launch(stream, *a);
    return 1; /* cudaErrorInvalidValue */
}
