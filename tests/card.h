/* card.h: a device of this machine, named by GEUL_TEST_DEVICE ("cuda:0"), for tests that tools/gpu_check runs where
 * there is a card. */
#ifndef GEUL_TESTS_CARD_H
#define GEUL_TESTS_CARD_H

#include "backends/backend.h"
#include "tests/harness.h"

/* Whether the environment names a device; the test counts as skipped when it does not. */
bool card_is_named(void);
/* That device; NULL (recorded) when there is none of that name. */
struct geul_device *card_open(struct geul_context *ctx);

#endif
