/* warp_cuda.h: what warp.h lists, for nvcc: the one file of this backend with intrinsics and PTX. */
#ifndef GEUL_CUDA_WARP_CUDA_H
#define GEUL_CUDA_WARP_CUDA_H

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

/* Threads that a multiprocessor holds: more blocks than fit there cannot be wanted. */
#if __CUDA_ARCH__ == 750
#define SM_THREADS 1024
#elif __CUDA_ARCH__ == 860 || __CUDA_ARCH__ == 890 || __CUDA_ARCH__ == 1200
#define SM_THREADS 1536
#else
#define SM_THREADS 2048
#endif
#define BLOCKS_THAT_FIT(threads, blocks) ((threads) * (blocks) <= SM_THREADS ? (blocks) : SM_THREADS / (threads))

#define KERNEL(threads, blocks)          static __global__ __launch_bounds__(threads, BLOCKS_THAT_FIT(threads, blocks))
#define DEVICE                           static __device__ __forceinline__
#define CONSTANT                         static __constant__ const
#define SHARED(type, name, count)        __shared__ __align__(16) type name[count]
#define SHARED_DYNAMIC(type, name)                                                                                     \
    extern __shared__ __align__(16) unsigned char dynamic_shared[];                                                    \
    type *const name = (type *)dynamic_shared
#define UNROLL                              _Pragma("unroll")
#define UNROLL_4                            _Pragma("unroll 4")
#define ROLLED                              _Pragma("unroll 1")
#define LAUNCH(stream, kernel, blocks, ...) launch_kernel(stream, kernel, blocks, __VA_ARGS__)

/* Keeps arguments from taking part in the choice of a kernel's parameter types. */
template <typename T> struct as_declared {
    typedef T type;
};

template <typename... P>
static int launch_kernel(struct cuda_stream *s, void (*kernel)(P...), grid g, int n_threads, size_t shared,
                         typename as_declared<P>::type... args)
{
    if (g.x <= 0 || g.y <= 0 || g.z <= 0)
        return 0;
    enum { WITHOUT_ASKING = 48 * 1024 };
    if (shared > WITHOUT_ASKING) {
        cudaError_t error =
            cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
        if (error != cudaSuccess)
            return (int)error;
    }
    void *pointers[] = {(void *)&args...};
    s->launches++;
    return (int)cudaLaunchKernel((const void *)kernel, dim3((unsigned)g.x, (unsigned)g.y, (unsigned)g.z),
                                 dim3((unsigned)n_threads), pointers, shared, (cudaStream_t)s->handle);
}

/* ------------------------------------------------------------------------------------ places -- */

DEVICE int thread()
{
    return (int)threadIdx.x;
}
DEVICE int threads()
{
    return (int)blockDim.x;
}
DEVICE int block_x()
{
    return (int)blockIdx.x;
}
DEVICE int block_y()
{
    return (int)blockIdx.y;
}
DEVICE int block_z()
{
    return (int)blockIdx.z;
}
DEVICE int grid_x()
{
    return (int)gridDim.x;
}
DEVICE int grid_y()
{
    return (int)gridDim.y;
}
DEVICE int grid_z()
{
    return (int)gridDim.z;
}

/* ------------------------------------------------------------------------------- collectives -- */

enum : unsigned { ALL_LANES = 0xffffffffu };

DEVICE void barrier()
{
    __syncthreads();
}
DEVICE void warp_barrier()
{
    __syncwarp(ALL_LANES);
}
template <typename T> DEVICE T shuffle(T v, int from)
{
    return __shfl_sync(ALL_LANES, v, from);
}
template <typename T> DEVICE T shuffle_xor(T v, int mask)
{
    return __shfl_xor_sync(ALL_LANES, v, mask);
}
DEVICE uint32_t votes(bool condition)
{
    return __ballot_sync(ALL_LANES, condition);
}

/* ------------------------------------------------------------------------------------- other -- */

DEVICE int dot4(int a, int b, int sum)
{
    return __dp4a(a, b, sum);
}
DEVICE uint32_t permute_bytes(uint32_t a, uint32_t b, uint32_t selector)
{
    return __byte_perm(a, b, selector);
}
DEVICE int round_to_int(float x)
{
    return __float2int_rn(x);
}
DEVICE float half_to_float(uint16_t h)
{
    return __half2float(__ushort_as_half(h));
}
DEVICE uint16_t float_to_half(float x)
{
    return __half_as_ushort(__float2half_rn(x));
}
DEVICE float bfloat_to_float(uint16_t h)
{
    return __uint_as_float((uint32_t)h << 16);
}
DEVICE uint16_t float_to_bfloat(float x)
{
    return __bfloat16_as_ushort(__float2bfloat16_rn(x));
}
DEVICE uint32_t halves(float lo, float hi)
{
    return (uint32_t)float_to_half(lo) | (uint32_t)float_to_half(hi) << 16;
}
DEVICE uint32_t bfloats(float lo, float hi)
{
    return (uint32_t)float_to_bfloat(lo) | (uint32_t)float_to_bfloat(hi) << 16;
}
DEVICE words4 load16(const void *p)
{
    uint4 v = *(const uint4 *)p;
    return words4{{v.x, v.y, v.z, v.w}};
}
/* Not L1::no_allocate: that does not find a line under way either, and the lanes of one load often take but half of a
 * sector, or 16 bytes of a block of 144: what is left over would come from the second-level cache once more. */
DEVICE words4 load16_once(const void *p)
{
    words4 v;
    asm volatile("ld.global.nc.L1::evict_first.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.w[0]), "=r"(v.w[1]), "=r"(v.w[2]), "=r"(v.w[3])
                 : "l"(p));
    return v;
}
DEVICE words2 load8(const void *p)
{
    uint2 v = *(const uint2 *)p;
    return words2{{v.x, v.y}};
}
DEVICE uint32_t atomic_add(uint32_t *p, uint32_t n)
{
    return atomicAdd(p, n);
}
DEVICE void fence()
{
    __threadfence();
}

/* An address of shared memory as PTX wants it. */
DEVICE uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* Before sm_80 copies are made at once. */
DEVICE void copy16_async(void *shared, const void *global, bool valid)
{
#if __CUDA_ARCH__ >= 800
    int bytes = valid ? 16 : 0; /* the rest becomes zeros */
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes)
                 : "memory");
#else
    *(uint4 *)shared = valid ? *(const uint4 *)global : make_uint4(0, 0, 0, 0);
#endif
}
DEVICE void copies_commit()
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int n> DEVICE void copies_wait()
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(n) : "memory");
#endif
}

/* ---------------------------------------------------------------------------------- matrices -- */

/* Before sm_80 of halves of the size, which lie in the same registers. */
DEVICE void multiply_int8(int32_t d[4], const uint32_t a[4], const uint32_t b[2])
{
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    for (int half = 0; half < 2; half++)
        for (int k = 0; k < 2; k++)
            asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
                         : "+r"(d[2 * half]), "+r"(d[2 * half + 1])
                         : "r"(a[half + 2 * k]), "r"(b[k]));
#endif
}
DEVICE void multiply_int8_half(int32_t d[4], const uint32_t a[2], uint32_t b)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b));
#else
    for (int half = 0; half < 2; half++)
        asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
                     : "+r"(d[2 * half]), "+r"(d[2 * half + 1])
                     : "r"(a[half]), "r"(b));
#endif
}
DEVICE void multiply_half(float d[4], const uint32_t a[4], const uint32_t b[2])
{
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    for (int k = 0; k < 2; k++)
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
                     "{%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[2 * k]), "r"(a[2 * k + 1]), "r"(b[k]));
#endif
}
/* Not before sm_80: struct cuda_card says so (bfloat_products), and no kernel with it is launched there. */
DEVICE void multiply_bfloat(float d[4], const uint32_t a[4], const uint32_t b[2])
{
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

DEVICE void load_matrices4(uint32_t r[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
DEVICE void load_matrices2(uint32_t r[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}
DEVICE void load_matrices4_turned(uint32_t r[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
DEVICE void load_matrices2_turned(uint32_t r[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}

#endif
