/* cuda_bed.h: a card of host_gpu.h behind a runtime, and plain kernels for a few operations, for the tests of plans and
 * devices: they use scratch, zeros, rounded rows and a pattern where real kernels would. */
#ifndef GEUL_TESTS_CUDA_BED_H
#define GEUL_TESTS_CUDA_BED_H

#include "backends/cuda/prepare.h"
#include "core/runtime.h"
#include "tests/cuda_host/cuda_rig.h"
#include "tests/cuda_host/host_gpu.h"
#include "tests/harness.h"

/* ADD, SCALE, GELU, LAYERNORM, MATMUL and ACCUMULATE of contiguous float32 tensors:
 *   ADD         two steps, the first copies operand 0 to scratch
 *   SCALE       one step; two after each other are one pattern ("scale twice") when the first has one reader
 *   GELU        x itself plus a counter in zeros, which is 0 whenever a step begins and ends
 *   LAYERNORM   x itself; leaves it rounded where that is wanted, then stores it only if somebody else reads it
 *   MATMUL      x (T, K) rounded, times weights (N, K) transposed
 *   ACCUMULATE  operand 0 += operand 1 */
extern const struct cuda_kernels bed_kernels;
/* The same, but no pattern. */
extern const struct cuda_kernels bed_kernels_apart;

/* A device with them, on the first of these cards. NULL (recorded) on failure. */
struct geul_device *bed_device(struct geul_context *ctx, const char *cards);

/* What the next launch of SCALE does wrong. */
enum bed_fault {
    BED_FINE,
    BED_REFUSED, /* its launch function returns an error that is not fatal */
    BED_BREAKS   /* the kernel writes beyond shared memory: seen when somebody waits */
};
extern enum bed_fault bed_fault;
/* What geul_cuda_leave_rounded() said of the latest LAYERNORM: 0 not wanted, 1 wanted, 2 only that. */
extern int bed_left;
/* Whether the latest plan was exact. */
extern bool bed_exact;

/* Whether everything has been freed and used as it should be; checks that fail otherwise. */
bool bed_is_clean(void);

#endif
