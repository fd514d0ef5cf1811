/* host_cublas.h: how the tests steer the cuBLAS that poses as the real one (host_cublas.c). */
#ifndef GEUL_TESTS_HOST_CUBLAS_H
#define GEUL_TESTS_HOST_CUBLAS_H

#include <stddef.h>

enum host_cublas_call {
    HOST_CUBLAS_CREATE,
    HOST_CUBLAS_DESTROY,
    HOST_CUBLAS_STREAM,
    HOST_CUBLAS_WORKSPACE,
    HOST_CUBLAS_MATH,
    HOST_CUBLAS_GEMM,
    HOST_CUBLAS_CALLS
};

struct host_cublas {
    long calls[HOST_CUBLAS_CALLS];
    int fails; /* the call that fails from now on; HOST_CUBLAS_CALLS: none */
    int open;  /* handles */
    /* Gives work to stream, which calls it once, later, with a copy of args. NULL: it is done at once. */
    void (*launch)(void *stream, void (*work)(const void *args), const void *args, size_t bytes);
    const char *misuse; /* of the first wrong argument; NULL: none so far */
};
/* Exported by the library. */
struct host_cublas *host_cublas(void);

#endif
