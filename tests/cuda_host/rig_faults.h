/* rig_faults.h: kernels with one mistake each, which the rig has to find, and their right twins. */
#ifndef GEUL_TESTS_RIG_FAULTS_H
#define GEUL_TESTS_RIG_FAULTS_H

#include "backends/cuda/stream.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { RIG_FAULT_VALUES = 128 };

/* x and out are of RIG_FAULT_VALUES values, 16-byte aligned; counter is 0. Of the products, x is read as bytes: a of 16
 * rows, then b of 8 columns, 32 bytes each. */
struct rig_fault {
    const float *x;
    float *out;
    uint32_t *counter;
};

/* FAULT(name, threads, blocks, what cuda_host_failure() says; "": only the results tell, under some schedule) */
/* clang-format off */
#define RIG_FAULTS(FAULT)                                                                                              \
    FAULT(missing_barrier,          128, 1, "")                                                                        \
    FAULT(missing_barrier_of_loop,   64, 1, "")                                                                        \
    FAULT(barrier_of_warp_alone,    128, 1, "")                                                                        \
    FAULT(missing_warp_barrier,      32, 1, "")                                                                        \
    FAULT(missing_wait,             128, 1, "")                                                                        \
    FAULT(wait_for_too_few,          32, 1, "")                                                                        \
    FAULT(missing_barrier_of_copy,  128, 1, "")                                                                        \
    FAULT(not_set,                  128, 1, "")                                                                        \
    FAULT(order_of_blocks,           32, 4, "")                                                                        \
    FAULT(last_block,                32, 4, "")                                                                        \
    FAULT(fragments_int8,            32, 1, "")                                                                        \
    FAULT(fragments_half,            32, 1, "")                                                                        \
    FAULT(fragments_turned,          32, 1, "")                                                                        \
    FAULT(write_behind,             128, 1, "writes 4 bytes behind tile, 512 bytes of shared memory, first at byte 512") \
    FAULT(write_before,             128, 1, "writes 4 bytes before tile, an array of shared memory, first 4 before")  \
    FAULT(write_behind_dynamic,     128, 1, "writes 4 bytes behind its dynamic shared memory")                         \
    FAULT(divergent_shuffle,         32, 1, "thread 0 is at shuffle(), ")                                              \
    FAULT(divergent_votes,           32, 1, "thread 1 is at shuffle(), ")                                              \
    FAULT(early_return,              64, 1, "thread 5 has returned")                                                   \
    FAULT(barrier_of_some,          128, 1, "thread 32 has returned")                                                  \
    FAULT(two_barriers,              64, 1, "thread 32 is at barrier(), ")                                             \
    FAULT(shuffle_from_nowhere,      32, 1, "shuffle() from lane 32")                                                  \
    FAULT(misaligned_load16,         32, 1, "not a multiple of 16")                                                    \
    FAULT(misaligned_load8,          32, 1, "not a multiple of 8")                                                     \
    FAULT(misaligned_copy,           32, 1, "not 16 aligned bytes of shared memory")                                   \
    FAULT(copy_to_device_memory,     32, 1, "not 16 aligned bytes of shared memory")                                   \
    FAULT(matrices_of_device_memory, 32, 1, "is not 16 aligned bytes of shared memory")                                \
    FAULT(shared_read_once,          32, 1, "load16_once() of shared memory")                                          \
    FAULT(large_array,               32, 1, "CUDA takes 49152")                                                        \
    FAULT(large_sum,                 32, 1, "the card has ")
/* clang-format on */

enum rig_fault_kernel {
#define FAULT(name, threads, blocks, said) RIG_##name,
    RIG_FAULTS(FAULT)
#undef FAULT
        RIG_N_FAULTS
};
int rig_launch_fault(struct cuda_stream *stream, enum rig_fault_kernel which, bool right, const struct rig_fault *args);

/* A kernel that does nothing but take space. */
int rig_launch_nothing(struct cuda_stream *stream, const int64_t size[3], int n_threads, size_t shared);

#ifdef __cplusplus
}
#endif
#endif
