/* stream.h: the queue of launches as kernels see it; between the C of this backend and its .cu files. */
#ifndef GEUL_CUDA_STREAM_H
#define GEUL_CUDA_STREAM_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Functions that launch return 0, or the CUDA runtime's error number. */
struct cuda_stream {
    void *handle;  /* cudaStream_t */
    long launches; /* kernels given to it so far */
    /* What a library that launches keeps for this stream, such as its handle; whoever sets it sets detach too, which is
     * called when the stream has done its work, before it is destroyed. NULL: nothing. */
    void *attached;
    bool given_up; /* the library has failed on this stream, and is not asked again */
    void (*detach)(struct cuda_stream *stream);
};

#ifdef __cplusplus
}
#endif
#endif
