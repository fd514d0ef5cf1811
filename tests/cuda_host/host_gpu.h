/* host_gpu.h: the CPU's stand-in for the calls of backends/cuda/gpu.h: cards that are rows of a table, and what they
 * hold in the host's memory. Stricter than CUDA where that shows mistakes:
 *   - what is given to a stream is done when somebody waits for it and not before: copies read their source then
 *   - memory of a card is NaN (all bits set) until written, and lies between canaries that are looked at when it is
 * freed
 *   - copies and sets lie inside memory of the right card; asynchronous ones use pinned memory on the host's side
 *   - streams, events and graphs are used under their own card; nothing waits or allocates while a graph is captured
 * The first wrong use is told by host_gpu_misuse(). Every call is counted and can fail; an error that ends CUDA's
 * context loses the card until it is reset. Kernels run in the rig (cuda_rig.h), and one that fails there loses the
 * card.
 *
 * In a program that is not a test the environment says what host_gpu_machine() and host_gpu_fail() are told:
 * GEUL_HOST_GPU=sm_75,sm_90 and GEUL_HOST_GPU_FAIL="allocate 3 2". */
#ifndef GEUL_TESTS_HOST_GPU_H
#define GEUL_TESTS_HOST_GPU_H

#include "backends/cuda/gpu.h"

/* What can be counted and fail: the functions of struct cuda_gpu, and launches of kernels. */
#define HOST_GPU_FUNCTIONS(X)                                                                                          \
    X(driver_version)                                                                                                  \
    X(count)                                                                                                           \
    X(capability)                                                                                                      \
    X(describe)                                                                                                        \
    X(use)                                                                                                             \
    X(reset)                                                                                                           \
    X(wait)                                                                                                            \
    X(memory)                                                                                                          \
    X(allocate)                                                                                                        \
    X(release)                                                                                                         \
    X(host_allocate)                                                                                                   \
    X(host_release)                                                                                                    \
    X(copy)                                                                                                            \
    X(copy_async)                                                                                                      \
    X(copy_peer)                                                                                                       \
    X(set_async)                                                                                                       \
    X(can_reach)                                                                                                       \
    X(reach)                                                                                                           \
    X(stream_new)                                                                                                      \
    X(stream_free)                                                                                                     \
    X(stream_wait)                                                                                                     \
    X(stream_after)                                                                                                    \
    X(event_new)                                                                                                       \
    X(event_free)                                                                                                      \
    X(event_record)                                                                                                    \
    X(event_wait)                                                                                                      \
    X(event_seconds)                                                                                                   \
    X(capture_begin)                                                                                                   \
    X(capture_end)                                                                                                     \
    X(graph_launch)                                                                                                    \
    X(graph_free)                                                                                                      \
    X(last_error)
#define HOST_GPU_CALLS(X) HOST_GPU_FUNCTIONS(X) X(launch)
enum host_gpu_call {
    HOST_GPU_any,
#define CALL(name) HOST_GPU_##name,
    HOST_GPU_CALLS(CALL)
#undef CALL
        HOST_GPU_COUNT
};

/* The machine's cards from now on, by name, with nothing on them: "sm_90", "sm_75,sm_90,sm_90"; "": none. Rows: sm_61
 * (too old), sm_75, sm_80, sm_86, sm_90, sm_120, and small (sm_90 with 1 MiB). A driver of version 13000. */
void host_gpu_machine(const char *cards);
/* The driver's version (0: there is none), and what count() then returns. */
void host_gpu_driver(int version, int error);
/* The file that poses as cuBLAS, whose name must live on; before anything has asked for it. NULL: there is none. */
void host_gpu_blas(const char *path);
/* The n-th call of that kind from now on fails with error; n 0: none does; below 0: the next -n do. */
void host_gpu_fail(enum host_gpu_call call, long n, int error);
/* Calls of that kind since the machine was made, or since the latest host_gpu_count_anew(). */
long host_gpu_calls(enum host_gpu_call call);
void host_gpu_count_anew(void);

/* What is on all cards and not freed, and bytes that were allocated since host_gpu_count_anew(). */
struct host_gpu_use {
    size_t bytes, allocated;
    long blocks, pinned, streams, events, graphs;
};
struct host_gpu_use host_gpu_in_use(void);
/* "" while everything was used as it should be. */
const char *host_gpu_misuse(void);
/* The bytes at an address of a card's memory, once all work is done, for tests. */
void host_gpu_peek(const void *address, void *out, size_t bytes);

#endif
