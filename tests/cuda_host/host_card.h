/* host_card.h: a card of host_gpu.h as the tests of operations and models open it. */
#ifndef GEUL_TESTS_HOST_CARD_H
#define GEUL_TESTS_HOST_CARD_H

#include "backends/cuda/device.h"
#include "tests/backends/device_ops.h"

/* The row of host_gpu.h that host_card_open() opens; "sm_90" at the beginning. */
extern const char *host_card_name;
struct geul_device *host_card_open(struct geul_context *ctx);
/* That card in lock step, then with the last warp ahead. */
struct device_kind host_card_kind(void);
/* Checks that the stand-in and the rig have nothing to complain of. In lock step again afterwards. */
void host_card_check(void);

#endif
