/* stub_cublas.h: how the tests steer the cuBLAS that poses as the real one (stub_cublas.c). */
#ifndef GEUL_TESTS_STUB_CUBLAS_H
#define GEUL_TESTS_STUB_CUBLAS_H

#include <stddef.h>

enum stub_cublas_call { STUB_CREATE, STUB_DESTROY, STUB_STREAM, STUB_WORKSPACE, STUB_MATH, STUB_GEMM, STUB_CALLS };

struct stub_cublas {
    long calls[STUB_CALLS];
    int fails; /* the call that fails from now on; STUB_CALLS: none */
    int open;  /* handles */
    /* Gives work to stream, which calls it once, later, with a copy of args. NULL: it is done at once. */
    void (*launch)(void *stream, void (*work)(const void *args), const void *args, size_t bytes);
    const char *misuse; /* of the first wrong argument; NULL: none so far */
};
/* Exported by the library. */
struct stub_cublas *stub_cublas(void);

#endif
