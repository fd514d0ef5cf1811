/* poison.h: a backend for tests whose memory has addresses that nobody may touch: a reserved range without access. It
 * computes with the CPU's kernels on hidden copies, and only when somebody waits for it, so that a scheduler which
 * forgets an event or a copy is caught. */
#ifndef GEUL_TESTS_POISON_H
#define GEUL_TESTS_POISON_H

#include "backends/backend.h"

/* A poisoned device. wrapping is refused, so weights are uploaded. */
struct geul_device *poison_open(struct geul_context *ctx, int n_threads);
void poison_close(struct geul_context *ctx, struct geul_device *device);
/* Nodes computed so far. */
long poison_nodes(const struct geul_device *device);

#endif
