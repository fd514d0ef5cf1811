/* unroll.h: what the kernels need of the compiler: loops over registers unrolled in full, functions always inlined. */
#ifndef GEUL_UNROLL_H
#define GEUL_UNROLL_H

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif
#define INLINE static inline __attribute__((always_inline))

#endif
