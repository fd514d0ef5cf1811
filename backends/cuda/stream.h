/* stream.h: the queue of launches as kernels see it; between the C of this backend and its .cu files. */
#ifndef GEUL_CUDA_STREAM_H
#define GEUL_CUDA_STREAM_H

#ifdef __cplusplus
extern "C" {
#endif

/* Functions that launch return 0, or the CUDA runtime's error number. */
struct cuda_stream {
    void *handle;  /* cudaStream_t */
    long launches; /* kernels given to it so far */
};

#ifdef __cplusplus
}
#endif
#endif
