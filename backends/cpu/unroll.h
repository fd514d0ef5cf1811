/* unroll.h: what the kernels ask of the compiler: loops over registers laid out flat, and calls that are none. */
#ifndef GEUL_UNROLL_H
#define GEUL_UNROLL_H

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif
#define INLINE static inline __attribute__((always_inline))

#endif
