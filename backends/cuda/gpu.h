/* gpu.h: what the C files of this backend call of CUDA, as a table: runtime.cu fills it with the CUDA runtime's
 * functions, tests/cuda_host/host_gpu.c with the CPU's stand-in. C and C++. */
#ifndef GEUL_CUDA_GPU_H
#define GEUL_CUDA_GPU_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a card can do; everything that differs between cards is looked up here and never asked of the compiler. */
struct cuda_card {
    char name[64];
    int major, minor;     /* compute capability */
    int n_sm;             /* multiprocessors */
    size_t shared_most;   /* bytes of shared memory that a block may ask for */
    size_t l2_bytes;      /* second-level cache */
    bool bfloat_products; /* multiply_bfloat(): from 8.0 on */
    bool async_copies;    /* copy16_async() really is: from 8.0 on */
};

/* Error numbers of the CUDA runtime that are more than a text. */
enum {
    CUDA_NO_MEMORY = 2,
    CUDA_OLD_DRIVER = 35, /* or none */
    CUDA_NO_CARD = 100,
    CUDA_NOT_READY = 600,
    CUDA_PEERS_ALREADY = 704
};

enum cuda_direction { CUDA_UP, CUDA_DOWN, CUDA_WITHIN }; /* host to device, device to host, on one device */

/* Functions return 0 or an error number; of work that was given before, too, once it has failed. Except where a device
 * is named, they are about the one that this thread uses. Streams, events and graphs are CUDA's handles. */
struct cuda_gpu {
    int driver_needed; /* CUDA's version, 1000 * major + 10 * minor, that the driver must serve */
    /* A run of more seconds is not worth capturing: launching takes little of it, and a graph cannot be cancelled. */
    double long_run;
    /* File names of the cuBLAS that goes with it, in the order in which they are tried; NULL after the last. */
    const char *const *blas;

    int (*driver_version)(int *version); /* 0: there is none */
    int (*count)(int *n);
    int (*capability)(int device, int *major, int *minor);
    int (*describe)(int device, struct cuda_card *out); /* all but the last two fields */
    int (*use)(int device);                             /* by this thread from now on */
    int (*reset)(void);                                 /* all that is on the device is gone */
    int (*wait)(void);                                  /* for all work of the device */
    int (*memory)(size_t *free_bytes, size_t *total_bytes);

    int (*allocate)(void **out, size_t bytes);
    int (*release)(void *memory);
    int (*host_allocate)(void **out, size_t bytes); /* pinned, for all devices */
    int (*host_release)(void *memory);
    int (*copy)(void *to, const void *from, size_t bytes, enum cuda_direction direction); /* waits for no stream */
    int (*copy_async)(void *to, const void *from, size_t bytes, enum cuda_direction direction, void *stream);
    int (*copy_peer)(void *to, int to_device, const void *from, int from_device, size_t bytes, void *stream);
    int (*set_async)(void *memory, int byte, size_t bytes, void *stream);
    int (*can_reach)(int device, int other, int *can); /* whether device may read other's memory */
    int (*reach)(int other);                           /* lets the used device do that */

    int (*stream_new)(void **out); /* waits for no other stream */
    int (*stream_free)(void *stream);
    int (*stream_wait)(void *stream);
    int (*stream_after)(void *stream, void *event); /* what is given to stream from now on starts after event */
    int (*event_new)(void **out, bool timed);
    int (*event_free)(void *event);
    int (*event_record)(void *event, void *stream);
    int (*event_wait)(void *event);
    int (*event_seconds)(void *from, void *to, double *seconds); /* between two timed ones that are done */

    /* What this thread gives to stream in between is not run but becomes a graph. */
    int (*capture_begin)(void *stream);
    int (*capture_end)(void *stream, void **graph); /* ready to be launched */
    int (*graph_launch)(void *graph, void *stream);
    int (*graph_free)(void *graph);

    int (*last_error)(void);        /* of a launch; it is forgotten then, unless the device is lost */
    const char *(*text)(int error); /* for people */
};
/* The table of this build. */
const struct cuda_gpu *geul_cuda_gpu(void);

#ifdef __cplusplus
}
#endif
#endif
