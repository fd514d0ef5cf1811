/* warp_host.h: what backends/cuda/warp.h lists, for the CPU: a thread is a fiber, and cuda_rig.c decides which one
 * runs. */
#ifndef GEUL_TESTS_WARP_HOST_H
#define GEUL_TESTS_WARP_HOST_H

#include "tests/cuda_host/cuda_rig.h"

#include <string.h>

#define KERNEL(threads, blocks) static __attribute__((unused))
#define DEVICE                  static inline
#define CONSTANT                static __attribute__((unused)) const
#define SHARED(type, name, count)                                                                                      \
    static cuda_host_array name##_array = {#name, sizeof(type[count]), 0, nullptr};                                    \
    type(&name)[count] = *(type(*)[count])shared_array(name##_array)
#define SHARED_DYNAMIC(type, name) type *const name = (type *)cuda_host_shared_dynamic()
#define UNROLL
#define UNROLL_4
#define ROLLED
#define LAUNCH(stream, kernel, blocks, ...)                                                                            \
    launch_kernel(#kernel, __FILE__, __LINE__, stream, kernel, blocks, __VA_ARGS__)

/* Keeps arguments from taking part in the choice of a kernel's parameter types. */
template <typename T> struct as_declared {
    typedef T type;
};

template <typename... P>
static int launch_kernel(const char *name, const char *file, int line, cuda_stream *s, void (*kernel)(P...), grid g,
                         int n_threads, size_t shared, typename as_declared<P>::type... args)
{
    auto body = [=] { kernel(args...); };
    void (*call)(const void *) = [](const void *p) { (*(const decltype(body) *)p)(); };
    cuda_host_launch launch = {name, file, line, {g.x, g.y, g.z}, n_threads, shared, call, &body, sizeof body};
    return cuda_host_submit(s, &launch);
}

static inline void *shared_array(cuda_host_array &array)
{
    return array.serial == cuda_host_now.serial ? array.at : cuda_host_shared(&array);
}

/* The default arguments of what follows are the place of the call. */
#define CALLED_AT const char *file = __builtin_FILE(), int line = __builtin_LINE()

/* ------------------------------------------------------------------------------------ places -- */

DEVICE int thread()
{
    return cuda_host_now.thread;
}
DEVICE int threads()
{
    return cuda_host_now.threads;
}
DEVICE int block_x()
{
    return cuda_host_now.block[0];
}
DEVICE int block_y()
{
    return cuda_host_now.block[1];
}
DEVICE int block_z()
{
    return cuda_host_now.block[2];
}
DEVICE int grid_x()
{
    return cuda_host_now.grid[0];
}
DEVICE int grid_y()
{
    return cuda_host_now.grid[1];
}
DEVICE int grid_z()
{
    return cuda_host_now.grid[2];
}

/* ------------------------------------------------------------------------------- collectives -- */

DEVICE void barrier(CALLED_AT)
{
    cuda_host_collect(&cuda_host_barrier, nullptr, {file, line});
}
DEVICE void warp_barrier(CALLED_AT)
{
    cuda_host_collect(&cuda_host_warp_barrier, nullptr, {file, line});
}
template <typename T> DEVICE T shuffle(T v, int from, CALLED_AT)
{
    static_assert(sizeof v == 4, "float, int32_t or uint32_t");
    if (from < 0 || from >= WARP)
        cuda_host_fail({file, line}, "shuffle() from lane %d", from);
    cuda_host_shuffle_args args = {0, from};
    memcpy(&args.value, &v, 4);
    cuda_host_collect(&cuda_host_shuffle, &args, {file, line});
    memcpy(&v, &args.value, 4);
    return v;
}
template <typename T> DEVICE T shuffle_xor(T v, int mask, CALLED_AT)
{
    return shuffle(v, (cuda_host_now.thread % WARP) ^ mask, file, line);
}
DEVICE uint32_t votes(bool condition, CALLED_AT)
{
    cuda_host_votes_args args = {condition, 0};
    cuda_host_collect(&cuda_host_votes, &args, {file, line});
    return args.votes;
}

/* ------------------------------------------------------------------------------------- other -- */

DEVICE int dot4(int a, int b, int sum)
{
    for (int i = 0; i < 32; i += 8)
        sum = (int)((unsigned)sum + (unsigned)((int8_t)(a >> i) * (int8_t)(b >> i)));
    return sum;
}
DEVICE uint32_t permute_bytes(uint32_t a, uint32_t b, uint32_t selector)
{
    uint64_t bytes = (uint64_t)b << 32 | a;
    uint32_t result = 0;
    for (int i = 0; i < 4; i++)
        result |= (uint32_t)(bytes >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
    return result;
}
DEVICE int round_to_int(float x)
{
    return cuda_host_round_to_int(x);
}
DEVICE float half_to_float(uint16_t h)
{
    return cuda_host_half_to_float(h);
}
DEVICE uint16_t float_to_half(float x)
{
    return cuda_host_float_to_half(x);
}
DEVICE float bfloat_to_float(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
DEVICE uint16_t float_to_bfloat(float x)
{
    return cuda_host_float_to_bfloat(x);
}
DEVICE uint32_t halves(float lo, float hi)
{
    return (uint32_t)float_to_half(lo) | (uint32_t)float_to_half(hi) << 16;
}
DEVICE uint32_t bfloats(float lo, float hi)
{
    return (uint32_t)float_to_bfloat(lo) | (uint32_t)float_to_bfloat(hi) << 16;
}
DEVICE words4 load16(const void *p, CALLED_AT)
{
    if ((uintptr_t)p % 16)
        cuda_host_fail({file, line}, "load16() of %p: not a multiple of 16", p);
    words4 v;
    memcpy(&v, p, sizeof v);
    return v;
}
DEVICE words4 load16_once(const void *p, CALLED_AT)
{
    if (cuda_host_is_shared(p, 1))
        cuda_host_fail({file, line}, "load16_once() of shared memory");
    return load16(p, file, line);
}
DEVICE words2 load8(const void *p, CALLED_AT)
{
    if ((uintptr_t)p % 8)
        cuda_host_fail({file, line}, "load8() of %p: not a multiple of 8", p);
    words2 v;
    memcpy(&v, p, sizeof v);
    return v;
}
DEVICE uint32_t atomic_add(uint32_t *p, uint32_t n)
{
    uint32_t before = *p;
    *p = before + n;
    return before;
}
DEVICE void fence()
{
}
DEVICE void copy16_async(void *shared, const void *global, bool valid, CALLED_AT)
{
    cuda_host_copy16(shared, global, valid, {file, line});
}
DEVICE void copies_commit()
{
    cuda_host_copies_commit();
}
template <int n> DEVICE void copies_wait()
{
    static_assert(n >= 0, "a number of groups");
    cuda_host_copies_wait(n);
}

/* ---------------------------------------------------------------------------------- matrices -- */

DEVICE void multiply_int8(int32_t d[4], const uint32_t a[4], const uint32_t b[2], CALLED_AT)
{
    cuda_host_multiply_args args = {d, a, b};
    cuda_host_collect(&cuda_host_multiply_int8, &args, {file, line});
}
DEVICE void multiply_int8_half(int32_t d[4], const uint32_t a[2], uint32_t b, CALLED_AT)
{
    const uint32_t whole_a[4] = {a[0], a[1], 0, 0}, whole_b[2] = {b, 0};
    multiply_int8(d, whole_a, whole_b, file, line);
}
DEVICE void multiply_half(float d[4], const uint32_t a[4], const uint32_t b[2], CALLED_AT)
{
    cuda_host_multiply_args args = {d, a, b};
    cuda_host_collect(&cuda_host_multiply_half, &args, {file, line});
}
DEVICE void multiply_bfloat(float d[4], const uint32_t a[4], const uint32_t b[2], CALLED_AT)
{
    cuda_host_multiply_args args = {d, a, b};
    cuda_host_collect(&cuda_host_multiply_bfloat, &args, {file, line});
}

/* The four of load_matrices. */
static inline void load_matrices(uint32_t *r, const void *row, int n, bool turned, const char *file, int line)
{
    if ((uintptr_t)row % 16 || !cuda_host_is_shared(row, 16))
        cuda_host_fail({file, line}, "load_matrices%d(): %p is not 16 aligned bytes of shared memory", n, row);
    cuda_host_matrices_args args = {r, row, n, turned};
    cuda_host_collect(&cuda_host_load_matrices, &args, {file, line});
}
DEVICE void load_matrices4(uint32_t r[4], const void *row, CALLED_AT)
{
    load_matrices(r, row, 4, false, file, line);
}
DEVICE void load_matrices2(uint32_t r[2], const void *row, CALLED_AT)
{
    load_matrices(r, row, 2, false, file, line);
}
DEVICE void load_matrices4_turned(uint32_t r[4], const void *row, CALLED_AT)
{
    load_matrices(r, row, 4, true, file, line);
}
DEVICE void load_matrices2_turned(uint32_t r[2], const void *row, CALLED_AT)
{
    load_matrices(r, row, 2, true, file, line);
}

#endif
