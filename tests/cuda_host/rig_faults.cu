/* rig_faults.cu: see rig_faults.h. Every kernel is right or has the mistake of its name. */
#include "backends/cuda/warp.h"
#include "tests/cuda_host/rig_faults.h"

/* What writes outside of its arrays is not watched by the address sanitizer: the canaries shall find it. */
#define UNWATCHED __attribute__((no_sanitize("address")))

/* --------------------------------------------------------------------------------- barriers -- */

template <bool right> KERNEL(128, 1) void missing_barrier(rig_fault args)
{
    SHARED(float, tile, 128);
    tile[thread()] = args.x[thread()];
    if (right)
        barrier();
    args.out[thread()] = tile[127 - thread()];
}

/* The tile is written again while another warp may still read it. */
template <bool right> KERNEL(64, 1) void missing_barrier_of_loop(rig_fault args)
{
    SHARED(float, tile, 64);
    for (int round = 0; round < 2; round++) {
        tile[thread()] = args.x[64 * round + thread()];
        barrier();
        args.out[64 * round + thread()] = tile[63 - thread()];
        if (right)
            barrier();
    }
}

/* In lock step all warps write before one reads: only a warp that runs ahead shows this one. */
template <bool right> KERNEL(128, 1) void barrier_of_warp_alone(rig_fault args)
{
    SHARED(float, tile, 128);
    tile[thread()] = args.x[thread()];
    if (right)
        barrier();
    else
        warp_barrier();
    args.out[thread()] = tile[127 - thread()];
}

template <bool right> KERNEL(32, 1) void missing_warp_barrier(rig_fault args)
{
    SHARED(float, tile, 32);
    tile[lane()] = args.x[lane()];
    if (right)
        warp_barrier();
    args.out[lane()] = tile[lane() ^ 1];
}

template <bool right> KERNEL(128, 1) void not_set(rig_fault args)
{
    SHARED(float, sums, 128);
    if (right)
        sums[thread()] = 0;
    for (int i = 0; i < 4; i++)
        sums[thread()] += args.x[(thread() + i) % 128];
    args.out[thread()] = sums[thread()];
}

/* A block that uses what another has written, when nothing says which comes first. */
template <bool right> KERNEL(32, 1) void order_of_blocks(rig_fault args)
{
    if (lane() != 0)
        return;
    float before = right || block_x() == 0 ? 0 : args.out[block_x() - 1];
    args.out[block_x()] = before + args.x[block_x()];
}

/* The last block to come adds up what all have written; wrong: the one with the highest number does. */
template <bool right> KERNEL(32, 1) void last_block(rig_fault args)
{
    if (lane() != 0)
        return;
    args.out[block_x()] = args.x[block_x()];
    fence();
    int number = (int)atomic_add(args.counter, 1);
    if ((right ? number : block_x()) == grid_x() - 1) {
        fence();
        float sum = 0;
        for (int i = 0; i < grid_x(); i++)
            sum += args.out[i];
        args.out[grid_x()] = sum;
    }
}

/* ----------------------------------------------------------------------- asynchronous copies -- */

/* Each thread turns the order of a piece that it has copied itself. */
template <bool right> KERNEL(128, 1) void missing_wait(rig_fault args)
{
    SHARED(float, tile, 128);
    if (thread() < 32) {
        copy16_async(&tile[4 * thread()], args.x + 4 * thread(), true);
        copies_commit();
        if (right)
            copies_wait<0>();
        for (int i = 0; i < 4; i++)
            args.out[4 * thread() + i] = tile[4 * thread() + 3 - i];
    }
}

template <bool right> KERNEL(32, 1) void wait_for_too_few(rig_fault args)
{
    SHARED(float, tile, 256);
    for (int i = 0; i < 2; i++) {
        copy16_async(&tile[128 * i + 4 * lane()], args.x + 4 * ((lane() + i) % 32), true);
        copies_commit();
    }
    copies_wait<right ? 0 : 1>();
    for (int i = 0; i < 4; i++)
        args.out[4 * lane() + i] = tile[4 * lane() + i] + tile[128 + 4 * lane() + i];
}

/* Who waits has its own copies, and those of others only behind a barrier. */
template <bool right> KERNEL(128, 1) void missing_barrier_of_copy(rig_fault args)
{
    SHARED(float, tile, 128);
    if (thread() < 32)
        copy16_async(&tile[4 * thread()], args.x + 4 * thread(), true);
    copies_commit();
    copies_wait<0>();
    if (right)
        barrier();
    args.out[thread()] = tile[127 - thread()];
}

template <bool right> KERNEL(32, 1) void misaligned_copy(rig_fault args)
{
    SHARED(float, tile, 136);
    copy16_async(&tile[4 * lane() + (right ? 4 : 2)], args.x + 4 * lane(), true);
    copies_commit();
    copies_wait<0>();
    args.out[lane()] = tile[4 * lane() + 4];
}

template <bool right> KERNEL(32, 1) void copy_to_device_memory(rig_fault args)
{
    SHARED(float, tile, 128);
    copy16_async((right ? tile : args.out) + 4 * lane(), args.x + 4 * lane(), true);
    copies_commit();
    copies_wait<0>();
    args.out[lane()] = tile[4 * lane()];
}

/* -------------------------------------------------------------------------------- fragments -- */

/* The right places of the fragments of A are (row g, first half of k), (g + 8, first), (g, second), (g + 8, second). */
template <bool right> DEVICE void fragments(const rig_fault &args, uint32_t a[4], uint32_t b[2])
{
    int g = lane() / 4, t = lane() % 4;
    const uint32_t *rows = (const uint32_t *)args.x, *columns = rows + 16 * 8;
    a[0] = rows[8 * g + t];
    a[right ? 1 : 2] = rows[8 * (g + 8) + t];
    a[right ? 2 : 1] = rows[8 * g + 4 + t];
    a[3] = rows[8 * (g + 8) + 4 + t];
    b[0] = columns[8 * g + t];
    b[1] = columns[8 * g + 4 + t];
}

template <bool right> KERNEL(32, 1) void fragments_int8(rig_fault args)
{
    uint32_t a[4], b[2];
    int32_t d[4] = {0, 0, 0, 0};
    fragments<right>(args, a, b);
    multiply_int8(d, a, b);
    for (int i = 0; i < 4; i++)
        args.out[4 * lane() + i] = (float)d[i];
}

template <bool right> KERNEL(32, 1) void fragments_half(rig_fault args)
{
    uint32_t a[4], b[2];
    float d[4] = {0, 0, 0, 0};
    fragments<right>(args, a, b);
    multiply_half(d, a, b);
    for (int i = 0; i < 4; i++)
        args.out[4 * lane() + i] = d[i];
}

/* Loads the 32 x 8 elements as four matrices, with or without their transposes. */
template <bool right> KERNEL(32, 1) void fragments_turned(rig_fault args)
{
    SHARED(uint16_t, tile, 32 * 8);
    for (int i = lane(); i < 128; i += WARP)
        ((uint32_t *)tile)[i] = ((const uint32_t *)args.x)[i];
    warp_barrier();
    uint32_t r[4];
    if (right)
        load_matrices4_turned(r, tile + 8 * lane());
    else
        load_matrices4(r, tile + 8 * lane());
    for (int i = 0; i < 4; i++)
        ((uint32_t *)args.out)[4 * lane() + i] = r[i];
}

template <bool right> KERNEL(32, 1) void matrices_of_device_memory(rig_fault args)
{
    SHARED(uint16_t, tile, 256);
    for (int i = lane(); i < 256; i += WARP)
        tile[i] = (uint16_t)i;
    warp_barrier();
    uint32_t r[2];
    load_matrices2(r, right ? tile + 8 * (lane() % 16) : (const uint16_t *)args.x);
    args.out[lane()] = (float)(r[0] + r[1]);
}

/* ---------------------------------------------------------------------------- shared memory -- */

template <bool right> UNWATCHED KERNEL(128, 1) void write_behind(rig_fault args)
{
    SHARED(float, tile, 128);
    float *values = tile;
    values[thread() + (right ? 0 : 1)] = args.x[thread()];
    barrier();
    args.out[thread()] = values[127];
}

template <bool right> UNWATCHED KERNEL(128, 1) void write_before(rig_fault args)
{
    SHARED(float, tile, 128);
    float *values = tile;
    values[thread() - (right ? 0 : 1)] = args.x[thread()];
    barrier();
    args.out[thread()] = values[0];
}

template <bool right> UNWATCHED KERNEL(128, 1) void write_behind_dynamic(rig_fault args)
{
    SHARED_DYNAMIC(float, values);
    values[thread() + (right ? 0 : 1)] = args.x[thread()];
    barrier();
    args.out[thread()] = values[127];
}

template <bool right> KERNEL(32, 1) void large_array(rig_fault args)
{
    SHARED(float, large, right ? 12 * 1024 : 12 * 1024 + 1);
    large[lane()] = args.x[lane()];
    args.out[lane()] = large[lane()];
}

/* rig_launch_fault() asks for 512 bytes too, on a card with 48 KB. */
template <bool right> KERNEL(32, 1) void large_sum(rig_fault args)
{
    SHARED(float, some, right ? 11 * 1024 : 12 * 1024 - 16);
    some[lane()] = args.x[lane()];
    args.out[lane()] = some[lane()];
}

/* ------------------------------------------------------------------------------ collectives -- */

template <bool right> KERNEL(32, 1) void divergent_shuffle(rig_fault args)
{
    float v = args.x[lane()];
    if (right || lane() < 16)
        v = shuffle_xor(v, 1);
    args.out[lane()] = v;
}

template <bool right> KERNEL(32, 1) void divergent_votes(rig_fault args)
{
    float v = args.x[lane()];
    if (right || lane() % 2)
        v = shuffle_xor(v, 1);
    else
        v = (float)votes(v > 0);
    args.out[lane()] = v;
}

template <bool right> KERNEL(64, 1) void early_return(rig_fault args)
{
    if (!right && thread() == 5)
        return;
    float v = warp_sum(args.x[thread()]);
    args.out[thread()] = v;
}

template <bool right> KERNEL(128, 1) void barrier_of_some(rig_fault args)
{
    SHARED(float, tile, 32);
    if (thread() < 32)
        tile[thread()] = args.x[thread()];
    if (right || thread() < 32)
        barrier();
    args.out[thread()] = right ? tile[thread() % 32] : 0;
}

template <bool right> KERNEL(64, 1) void two_barriers(rig_fault args)
{
    SHARED(float, tile, 64);
    tile[thread()] = args.x[thread()];
    if (right || thread() < 32)
        barrier();
    else
        barrier();
    args.out[thread()] = tile[63 - thread()];
}

template <bool right> KERNEL(32, 1) void shuffle_from_nowhere(rig_fault args)
{
    int from = lane() + 1;
    args.out[lane()] = shuffle(args.x[lane()], right ? from % 32 : from);
}

/* ------------------------------------------------------------------------------------ loads -- */

template <bool right> KERNEL(32, 1) void misaligned_load16(rig_fault args)
{
    words4 v = load16(args.x + lane() * (right ? 4 : 2));
    args.out[lane()] = (float)v.w[3];
}

template <bool right> KERNEL(32, 1) void misaligned_load8(rig_fault args)
{
    words2 v = load8(args.x + lane() * (right ? 2 : 1));
    args.out[lane()] = (float)v.w[1];
}

template <bool right> KERNEL(32, 1) void shared_read_once(rig_fault args)
{
    SHARED(float, tile, 128);
    for (int i = lane(); i < 128; i += WARP)
        tile[i] = args.x[i];
    warp_barrier();
    words4 v = right ? load16(tile + 4 * lane()) : load16_once(tile + 4 * lane());
    args.out[lane()] = (float)v.w[3];
}

/* --------------------------------------------------------------------------------- launches -- */

extern "C" int rig_launch_fault(cuda_stream *stream, rig_fault_kernel which, bool right, const rig_fault *args)
{
    enum { BYTES = 512 }; /* for those that ask for shared memory */
    switch (which) {
#define FAULT(name, threads, blocks, said)                                                                             \
    case RIG_##name:                                                                                                   \
        return right ? LAUNCH(stream, (name<true>), GRID(blocks, 1, 1), threads, BYTES, *args)                         \
                     : LAUNCH(stream, (name<false>), GRID(blocks, 1, 1), threads, BYTES, *args);
        RIG_FAULTS(FAULT)
#undef FAULT
    default:
        return -1;
    }
}

KERNEL(1024, 1) void nothing(int)
{
}

extern "C" int rig_launch_nothing(cuda_stream *stream, const int64_t size[3], int n_threads, size_t shared)
{
    return LAUNCH(stream, nothing, GRID(size[0], size[1], size[2]), n_threads, shared, 0);
}
