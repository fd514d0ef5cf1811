/* warp.h: everything that a kernel does beyond plain C++, under names of our own. No .cu file uses an intrinsic, PTX,
 * <<<>>>, __shared__ or threadIdx itself (tools/check_tree), so that each also compiles as C++ and runs on the CPU, one
 * fiber per thread (tests/cuda_host/). What is below "both" is the same for the two; the rest stands in warp_cuda.h for
 * nvcc and in tests/cuda_host/warp_host.h for the CPU.
 *
 * Kernels
 *   KERNEL(threads, blocks) void name(args)   at most so many threads a block, so many blocks per SM wanted; may follow
 *                                             template <...>. Arguments are values and structs of values and pointers.
 *   DEVICE                                    before a function that kernels call (inlined)
 *   CONSTANT type name[n] = {...}             a table
 *   SHARED(type, name, count)                 shared memory of the block, not set (NaN on the CPU); at a kernel's top
 *   SHARED_DYNAMIC(type, name)                the bytes that LAUNCH() asked for, 16-byte aligned; once per kernel
 *   UNROLL, UNROLL_4                          before a loop whose index chooses registers; before one of which four
 *                                             rounds are to be under way at once
 *   ROLLED                                    before a loop that unrolled would take too many of them
 *   LAUNCH(stream, kernel, GRID(x, y, z), threads, shared_bytes, args...)
 *                                             returns 0 or the runtime's error number; nothing is launched for an empty
 *                                             grid. A template kernel in parentheses: LAUNCH(s, (rows<32>), ...).
 * Places: blocks are one-dimensional
 *   thread()  threads()  lane()  warp_number()  block_x() block_y() block_z()  grid_x() grid_y() grid_z()
 * Collectives: every thread of the block, or every lane of the warp, comes to the same one. Lanes of a warp do not run
 * in step: what a lane reads that another wrote needs a barrier between them, of the warp or the block.
 *   barrier()  warp_barrier()
 *   shuffle(v, from_lane)  shuffle_xor(v, mask)      v float, int32_t or uint32_t
 *   votes(condition)                                 bit i: lane i's
 * Other
 *   dot4(a, b, sum)                  sum + the four products of the signed bytes of a and b
 *   permute_bytes(a, b, selector)    byte i of the result is byte s of the eight bytes of b and a (a's are 0 to 3), s
 *                                    being nibble i of selector, 0 to 7
 *   round_to_int(x)                  to nearest, ties to even
 *   half_to_float(u16)  float_to_half(x)  bfloat_to_float(u16)  float_to_bfloat(x)  halves(lo, hi)  bfloats(lo, hi)
 *   load16(p)  load8(p)              16 or 8 aligned bytes as words
 *   load16_once(p)                   the same of read-only memory that is not read again soon (weights)
 *   atomic_add(p, n)                 of uint32_t in device memory; returns what was there
 *   fence()                          what this thread wrote before is seen by who sees what it writes after
 *   copy16_async(shared, global, valid)   16 bytes, zeros where not valid; in groups that copies_commit() ends;
 *   copies_wait<n>()                      at most n newest groups are still under way; then a barrier() is needed
 * Matrices: fragments of a warp. g = lane / 4, t = lane % 4. A is M x K, B is K x N (each lane's words hold consecutive
 * k of one column), D += A B, M 16, N 8.
 *   multiply_int8(d[4], a[4], b[2])    K 32:  a[0] row g     k 4t..4t+3     a[1] row g+8, the same k
 *                                             a[2] row g     k 16+4t..      a[3] row g+8
 *                                             b[0] column g  k 4t..4t+3     b[1] k 16+4t..
 *   multiply_int8_half(d[4], a[2], b)  K 16: a[0], a[1] and b as a[0], a[1] and b[0] there
 *   multiply_half, multiply_bfloat     K 16:  a[0] row g     k 2t, 2t+1     a[1] row g+8
 *                                             a[2] row g     k 8+2t, 9+2t   a[3] row g+8
 *                                             b[0] column g  k 2t, 2t+1     b[1] k 8+2t, 9+2t
 *                                      d[0], d[1] row g, columns 2t, 2t+1;  d[2], d[3] row g+8
 *   load_matrices4(r[4], row)          four 8 x 8 matrices of 16-bit elements from shared memory: lane i gives the
 *   load_matrices2(r[2], row)          address (16-byte aligned) of row i % 8 of matrix i / 8, and gets elements 2t and
 *                                      2t+1 of row g of matrix m in r[m]; load_matrices2: lanes 16.. give any valid one
 *   load_matrices4_turned, load_matrices2_turned    of each matrix, its transpose
 */
#ifndef GEUL_CUDA_WARP_H
#define GEUL_CUDA_WARP_H

#include "backends/cuda/stream.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct alignas(16) words4 {
    uint32_t w[4];
};
struct alignas(8) words2 {
    uint32_t w[2];
};
struct grid {
    int64_t x, y, z;
};
#define GRID(x, y, z)                                                                                                  \
    grid                                                                                                               \
    {                                                                                                                  \
        (int64_t)(x), (int64_t)(y), (int64_t)(z)                                                                       \
    }
/* CUDA's limits of a grid: y and z. */
enum { GRID_MOST_YZ = 65535, WARP = 32 };

/* Blocks for n items, per of them each, but at most `most`: kernels whose threads walk through what is left. */
static inline int64_t blocks_for(int64_t n, int64_t per, int64_t most)
{
    int64_t blocks = (n + per - 1) / per;
    return blocks < most ? blocks : most;
}

#ifdef __CUDACC__
#include "backends/cuda/warp_cuda.h"
#else
#include "tests/cuda_host/warp_host.h"
#endif

/* -------------------------------------------------------------------------------------- both -- */

DEVICE int lane()
{
    return thread() % WARP;
}

DEVICE int warp_number()
{
    return thread() / WARP;
}

/* The bits of a float, and the float of such bits. */
DEVICE uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

DEVICE float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Sums and maxima over groups of `width` neighbouring lanes (a power of 2), for all lanes of them. */
template <int width = WARP, typename T> DEVICE T warp_sum(T v)
{
    for (int mask = width / 2; mask > 0; mask /= 2)
        v += shuffle_xor(v, mask);
    return v;
}

template <int width = WARP> DEVICE float warp_max(float v)
{
    for (int mask = width / 2; mask > 0; mask /= 2)
        v = fmaxf(v, shuffle_xor(v, mask));
    return v;
}

/* The sum over the block, for all its threads; spare is shared memory of 32 floats, free again after the next
 * barrier(). The order of the sum depends on threads() alone. */
DEVICE float block_sum(float v, float *spare)
{
    v = warp_sum(v);
    if (lane() == 0)
        spare[warp_number()] = v;
    barrier();
    v = lane() < threads() / WARP ? spare[lane()] : 0;
    return warp_sum(v);
}

DEVICE float block_max(float v, float *spare)
{
    v = warp_max(v);
    if (lane() == 0)
        spare[warp_number()] = v;
    barrier();
    v = lane() < threads() / WARP ? spare[lane()] : -INFINITY;
    return warp_max(v);
}

#endif
