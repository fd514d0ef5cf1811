/* wrapper_checks.h: one check for everything that warp.h lists: a kernel that uses it, and in plain C what must come
 * out. test_cuda_wrappers.c runs them on the CPU, so that the rig is held against the meaning, and
 * tests/cuda_card/check_wrappers.cu on a card, so that the meaning is held against the hardware: fragment layouts above
 * all. */
#ifndef GEUL_TESTS_WRAPPER_CHECKS_H
#define GEUL_TESTS_WRAPPER_CHECKS_H

#include "backends/cuda/stream.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { WRAPPER_WORDS = 1024 }; /* of in and out at most */

struct wrapper_check {
    const char *name;
    int n_in, n_out; /* words */
    /* in and out are device memory; in random bits, out zeros. Returns 0 or an error number. */
    int (*launch)(struct cuda_stream *stream, const uint32_t *in, uint32_t *out);
    void (*expect)(const uint32_t *in, uint32_t *out);
    bool bfloat; /* needs bfloat products */
};

/* Check i; NULL after the last. */
const struct wrapper_check *wrapper_check_at(int i);
/* The random words of a check, which are the same each time. */
void wrapper_check_fill(const struct wrapper_check *check, uint32_t *in);
/* The first word where got is not what is expected, -1 when all are. NaN of a float conversion may have any payload. */
int wrapper_check_compare(const struct wrapper_check *check, const uint32_t *in, const uint32_t *got);

#ifdef __cplusplus
}
#endif
#endif
