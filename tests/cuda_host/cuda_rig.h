/* cuda_rig.h: runs the kernels of the CUDA backend on the CPU, one fiber per thread, and checks what they do.
 * What a kernel calls stands in warp_host.h; this is what tests and the stand-in for CUDA's runtime call.
 *
 * A launch runs its blocks one after the other, and in a block one thread at a time: up to its next collective, where
 * the next thread goes on. In which order, the schedule says; correct kernels do the same under each of them, and one
 * that lacks a barrier does not under at least one. Checked are
 *   - a collective of the warp: all 32 lanes come to the same one, at the same line
 *   - a barrier: all threads of the block do, so none has returned before
 *   - shared memory: NaN (all bits set) until written; canaries round every array (red zones under the address
 *     sanitizer); within CUDA's limits
 *   - asynchronous copies: NaN until waited for; inside shared memory; aligned. So are 16- and 8-byte loads
 *   - launches: whole warps, at most 1024 threads, grid within CUDA's limits
 * The first failure of a launch ends it: LAUNCH() returns an error number and cuda_host_failure() says what and where.
 * Not seen are
 *   - the limits that KERNEL() names: the card refuses such a launch (tools/check_tree compares what is written)
 *   - a missing fence(), and a shuffle or vote in place of a barrier: here they order memory, on a card they do not
 *   - two threads that write the same place of device memory, or add to it, in either order
 *   - a thread that waits in a loop for another: it never ends
 * Launches of several threads of the program run one after the other. */
#ifndef GEUL_TESTS_CUDA_RIG_H
#define GEUL_TESTS_CUDA_RIG_H

#include "backends/cuda/stream.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --------------------------------------------------------------------------------- for tests -- */

enum cuda_host_schedule {
    CUDA_HOST_LOCK_STEP,      /* warp by warp, lane by lane, each to its next collective; blocks rising */
    CUDA_HOST_LOCK_STEP_BACK, /* the same from the last warp, lane and block down */
    CUDA_HOST_FIRST_AHEAD,    /* a warp runs as far as it can, up to a barrier, before the ones above it */
    CUDA_HOST_LAST_AHEAD,     /* before the ones below it; lanes and blocks falling */
    CUDA_HOST_RANDOM,         /* warps and lanes in an order drawn anew at each collective, the same in every run */
    CUDA_HOST_SCHEDULES
};
/* For the launches from now on; lock step at the beginning. */
void cuda_host_schedule(enum cuda_host_schedule schedule);

/* for (EACH_SCHEDULE(s)) { ... }: the body under every schedule; afterwards lock step again. */
#define EACH_SCHEDULE(s)                                                                                               \
    int s = 0;                                                                                                         \
    cuda_host_use(s);                                                                                                  \
    s++
bool cuda_host_use(int schedule);
/* For messages. */
const char *cuda_host_schedule_name(int schedule);

/* What the first failing launch since the last cuda_host_forget() did wrong; "" when none failed. */
const char *cuda_host_failure(void);
void cuda_host_forget(void);
/* A check of harness.h that a launch function returns 0. */
#define CHECK_LAUNCH(call) CHECK_MSG((call) == 0, "%s: %s", #call, cuda_host_failure())

/* Bytes of shared memory that a block may have from now on, as struct cuda_card's shared_most; 99 KB at the beginning,
 * at most 227 KB. */
void cuda_host_shared_most(size_t bytes);

/* ---------------------------------------------------------------------------------- launches -- */

/* Error numbers of the CUDA runtime. */
enum {
    CUDA_HOST_INVALID_VALUE = 1,
    CUDA_HOST_NO_MEMORY = 2,
    CUDA_HOST_INVALID_CONFIGURATION = 9,
    CUDA_HOST_LAUNCH_FAILURE = 719
};

/* What LAUNCH() makes. args are args_bytes of plain data, so that a launch may be copied and run later, more than once.
 */
struct cuda_host_launch {
    const char *kernel, *file; /* literals */
    int line;
    int64_t grid[3];
    int n_threads;
    size_t shared;
    void (*call)(const void *args); /* the body, for the thread that cuda_host_now names */
    const void *args;
    size_t args_bytes;
};
/* Checks and runs a launch; 0 or an error number. */
int cuda_host_run(const struct cuda_host_launch *launch);
/* Where LAUNCH() goes: to this function when it is set (to capture a graph, or to count), else to cuda_host_run(). */
extern int (*cuda_host_hook)(struct cuda_stream *stream, const struct cuda_host_launch *launch);
int cuda_host_submit(struct cuda_stream *stream, const struct cuda_host_launch *launch);

/* ------------------------------------------------------------------------------- for kernels -- */

/* The thread that runs. */
struct cuda_host_place {
    int thread, threads;
    int block[3], grid[3];
    unsigned long serial; /* of the block, over all launches */
};
extern struct cuda_host_place cuda_host_now;

/* An array of shared memory; one for each declaration in each instance of a kernel. */
struct cuda_host_array {
    const char *name;
    size_t bytes;
    unsigned long serial; /* the block in which `at` holds */
    void *at;
};
void *cuda_host_shared(struct cuda_host_array *array);
void *cuda_host_shared_dynamic(void);

/* The place of a call in a kernel's source. */
struct cuda_host_site {
    const char *file;
    int line;
};
/* A collective: complete() is given the args of all 32 lanes in their order when the last one is there, and puts each
 * lane's results there. NULL: nothing is exchanged. */
struct cuda_host_collective {
    const char *name;
    void (*complete)(void *const *args);
    bool of_block;
};
extern const struct cuda_host_collective cuda_host_barrier, cuda_host_warp_barrier, cuda_host_shuffle, cuda_host_votes,
    cuda_host_multiply_int8, cuda_host_multiply_half, cuda_host_multiply_bfloat, cuda_host_load_matrices;
void cuda_host_collect(const struct cuda_host_collective *what, void *args, struct cuda_host_site site);

struct cuda_host_shuffle_args {
    uint32_t value; /* becomes the result */
    int from;
};
struct cuda_host_votes_args {
    bool condition;
    uint32_t votes;
};
struct cuda_host_multiply_args {
    void *d;
    const uint32_t *a, *b;
};
struct cuda_host_matrices_args {
    uint32_t *r;
    const void *row;
    int n;
    bool turned;
};

/* Ends the launch. */
void cuda_host_fail(struct cuda_host_site site, const char *format, ...)
    __attribute__((noreturn, format(printf, 2, 3)));
bool cuda_host_is_shared(const void *p, size_t bytes);
void cuda_host_copy16(void *shared, const void *global, bool valid, struct cuda_host_site site);
void cuda_host_copies_commit(void);
void cuda_host_copies_wait(int newest);

float cuda_host_half_to_float(uint16_t h);
uint16_t cuda_host_float_to_half(float x);
uint16_t cuda_host_float_to_bfloat(float x);
int cuda_host_round_to_int(float x);

#ifdef __cplusplus
}
#endif
#endif
