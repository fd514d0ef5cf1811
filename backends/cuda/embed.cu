/* embed.cu: see embed.h. Few rows are read, of large tables: what counts is latency, and of all rows memory. A thread
 * takes a quad of a plain type, a unit of a block type. */
#include "backends/cuda/embed.h"

#include "backends/cuda/blocks.h"
#include "backends/cuda/quads.h"

enum { THREADS = 128 };

/* Row i of the table for row i of the result; NULL when there is none. */
DEVICE const uint8_t *source_row(const cuda_embed &a, int64_t i)
{
    int64_t offset;
    if (a.ids) {
        int64_t id = a.ids[i];
        if (id < 0 || id >= a.n_table)
            return nullptr;
        offset = id * a.row_bytes;
    } else {
        offset = row_offset(i, a.leading, a.stride);
    }
    return (const uint8_t *)a.table + offset;
}

template <cuda_type type> KERNEL(THREADS, 4) void embed_plain(cuda_embed a)
{
    int64_t row, col, i = (int64_t)block_x() * THREADS + thread(), per_row = (a.n_cols + QUAD - 1) / QUAD;
    if (i >= a.n_rows * per_row)
        return;
    divide(i, per_row, &row, &col);
    col *= QUAD;
    const uint8_t *from = source_row(a, row);
    const int64_t left = a.n_cols - col;
    quad q;
    if (type == CUDA_F32 && from)
        q = load_quad((const float *)from + col, left, a.aligned);
    for (int j = 0; j < QUAD; j++) {
        if (!from)
            q.v[j] = NAN;
        else if (type == CUDA_F16)
            q.v[j] = j < left ? half_to_float(((const uint16_t *)from)[col + j]) : 0;
        else if (type == CUDA_BF16)
            q.v[j] = j < left ? bfloat_to_float(((const uint16_t *)from)[col + j]) : 0;
    }
    store_quad(a.out + row * a.n_cols + col, q, left, a.aligned);
}

template <cuda_type type> KERNEL(THREADS, 4) void embed_blocks(cuda_embed a)
{
    typedef shape_of<type> shape;
    int64_t row, at, i = (int64_t)block_x() * THREADS + thread(), per_row = a.n_cols / shape::unit;
    if (i >= a.n_rows * per_row)
        return;
    divide(i, per_row, &row, &at);
    const int unit = (int)(at % shape::units);
    const int64_t block = at / shape::units;
    const uint8_t *from = source_row(a, row);
    unpacked<type> u;
    if (from)
        unpack<type>(from + block * shape::bytes, unit, &u);
    float *out = a.out + row * a.n_cols + block * shape::values;
    UNROLL
    for (int p = 0; p < shape::parts; p++) {
        UNROLL
        for (int j = 0; j < 16; j += QUAD) {
            quad q;
            UNROLL
            for (int k = 0; k < QUAD; k++)
                q.v[k] = from ? unpacked_value<type>(u, p, j + k) : NAN;
            store_quad(out + part_offset<type>(unit, p) + j, q, QUAD, a.aligned);
        }
    }
}

template <cuda_type type> static int launch_plain(struct cuda_stream *stream, const cuda_embed &a)
{
    int64_t n = a.n_rows * ((a.n_cols + QUAD - 1) / QUAD);
    return LAUNCH(stream, embed_plain<type>, GRID((n + THREADS - 1) / THREADS, 1, 1), THREADS, 0, a);
}

template <cuda_type type> static int launch_blocks(struct cuda_stream *stream, const cuda_embed &a)
{
    int64_t n = a.n_rows * (a.n_cols / shape_of<type>::unit);
    return LAUNCH(stream, embed_blocks<type>, GRID((n + THREADS - 1) / THREADS, 1, 1), THREADS, 0, a);
}

int geul_cuda_launch_embed(struct cuda_stream *stream, const void *args)
{
    static const struct {
        cuda_type type;
        int (*launch)(struct cuda_stream *stream, const cuda_embed &a);
    } launches[] = {{CUDA_F32, launch_plain<CUDA_F32>},
                    {CUDA_F16, launch_plain<CUDA_F16>},
                    {CUDA_BF16, launch_plain<CUDA_BF16>},
#define ROW(type) {CUDA_##type, launch_blocks<CUDA_##type>},
                    EACH_BLOCK_TYPE(ROW)
#undef ROW
    };
    cuda_embed a = *(const cuda_embed *)args;
    bool strides = a.row_bytes % 16 == 0;
    for (int d = 0; d < CUDA_LEADING; d++)
        strides = strides && a.stride[d] % 16 == 0;
    a.aligned = is_aligned(a.out, nullptr) && a.n_cols % QUAD == 0 &&
                (a.type != CUDA_F32 || (is_aligned(a.table, nullptr) && strides));
    for (size_t i = 0; i < sizeof launches / sizeof *launches; i++)
        if (launches[i].type == a.type)
            return launches[i].launch(stream, a);
    return 1; /* cudaErrorInvalidValue */
}
