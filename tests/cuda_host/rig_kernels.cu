/* rig_kernels.cu: kernels that use what warp.h has, as those of backends/cuda do; see rig_kernels.h. */
#include "backends/cuda/warp.h"
#include "tests/cuda_host/rig_kernels.h"

/* --------------------------------------------------------------------------------- row sums -- */

enum { SUM_THREADS = 128 };

KERNEL(SUM_THREADS, 4) void row_sums(rig_row_sums args)
{
    SHARED(float, spare, WARP);
    const float *x = args.x + (int64_t)block_x() * args.n_cols;
    float sum = 0;
    for (int i = thread(); i < args.n_cols; i += threads())
        sum += x[i];
    sum = block_sum(sum, spare);
    if (thread() == 0)
        args.out[block_x()] = sum;
}

extern "C" int rig_launch_row_sums(cuda_stream *stream, const rig_row_sums *args)
{
    return LAUNCH(stream, row_sums, GRID(args->n_rows, 1, 1), SUM_THREADS, 0, *args);
}

/* ------------------------------------------------------------------------------------- turn -- */

/* Two groups of `pieces` pieces are under way at a time. */
template <int pieces> KERNEL(pieces, 2) void turn(rig_turn args)
{
    SHARED_DYNAMIC(words4, stage);
    int n_groups = (args.n + pieces - 1) / pieces;
    auto fetch = [=](int group) {
        int i = group * pieces + thread();
        copy16_async(&stage[group % 2 * pieces + thread()], args.x + (int64_t)4 * i, i < args.n);
        copies_commit();
    };
    fetch(0);
    for (int group = 0; group < n_groups; group++) {
        fetch(group + 1); /* one beyond the last, which holds zeros */
        copies_wait<1>();
        barrier();
        words4 piece = load16(&stage[group % 2 * pieces + pieces - 1 - thread()]);
        int i = group * pieces + thread();
        for (int j = 0; i < args.n && j < 4; j++)
            args.out[4 * i + j] = piece.w[j];
        barrier();
    }
}

extern "C" int rig_launch_turn(cuda_stream *stream, const rig_turn *args)
{
    return LAUNCH(stream, (turn<128>), GRID(1, 1, 1), 128, 2 * 128 * sizeof(words4), *args);
}

/* --------------------------------------------------------------------------------- products -- */

/* A warp has 16 x 8 elements; its fragments come straight from memory. */
KERNEL(WARP, 8) void product_int8(rig_product args)
{
    int g = lane() / 4, t = lane() % 4;
    const int8_t *a = (const int8_t *)args.a + ((int64_t)block_y() * 16 + g) * args.k;
    const int8_t *b = (const int8_t *)args.b + ((int64_t)block_x() * 8 + g) * args.k;
    int32_t d[4] = {0, 0, 0, 0};
    for (int k = 4 * t; k < args.k; k += 32) {
        const int8_t *lower = a + (int64_t)8 * args.k;
        uint32_t fragment_a[4] = {*(const uint32_t *)(a + k), *(const uint32_t *)(lower + k),
                                  *(const uint32_t *)(a + k + 16), *(const uint32_t *)(lower + k + 16)};
        uint32_t fragment_b[2] = {*(const uint32_t *)(b + k), *(const uint32_t *)(b + k + 16)};
        multiply_int8(d, fragment_a, fragment_b);
    }
    int32_t *out = (int32_t *)args.out + ((int64_t)block_y() * 16 + g) * args.n + block_x() * 8 + 2 * t;
    for (int i = 0; i < 4; i++)
        out[i / 2 * 8 * args.n + i % 2] = d[i];
}

extern "C" int rig_launch_product_int8(cuda_stream *stream, const rig_product *args)
{
    return LAUNCH(stream, product_int8, GRID(args->n / 8, args->m / 16, 1), WARP, 0, *args);
}

/* The same of halves, by way of shared memory and load_matrices. */
KERNEL(WARP, 8) void product_half(rig_product args)
{
    SHARED(uint16_t, tile_a, 16 * 16);
    SHARED(uint16_t, tile_b, 8 * 16);
    const uint16_t *a = (const uint16_t *)args.a + (int64_t)block_y() * 16 * args.k;
    const uint16_t *b = (const uint16_t *)args.b + (int64_t)block_x() * 8 * args.k;
    float d[4] = {0, 0, 0, 0};
    for (int k = 0; k < args.k; k += 16) {
        warp_barrier(); /* the tiles have been read */
        for (int i = lane(); i < 16 * 16; i += WARP)
            tile_a[i] = a[i / 16 * args.k + k + i % 16];
        for (int i = lane(); i < 8 * 16; i += WARP)
            tile_b[i] = b[i / 16 * args.k + k + i % 16];
        warp_barrier();
        uint32_t fragment_a[4], fragment_b[2];
        load_matrices4(fragment_a, tile_a + lane() % 16 * 16 + lane() / 16 * 8);
        load_matrices2(fragment_b, tile_b + lane() % 8 * 16 + lane() / 8 % 2 * 8);
        multiply_half(d, fragment_a, fragment_b);
    }
    int g = lane() / 4, t = lane() % 4;
    float *out = (float *)args.out + ((int64_t)block_y() * 16 + g) * args.n + block_x() * 8 + 2 * t;
    for (int i = 0; i < 4; i++)
        out[i / 2 * 8 * args.n + i % 2] = d[i];
}

extern "C" int rig_launch_product_half(cuda_stream *stream, const rig_product *args)
{
    return LAUNCH(stream, product_half, GRID(args->n / 8, args->m / 16, 1), WARP, 0, *args);
}
