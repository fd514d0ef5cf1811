/* poison.h: a backend for tests whose memory has addresses that nobody may touch: a reserved range without access. It
 * computes with the CPU's kernels on hidden copies, and it is as unkind as the contract allows:
 *
 *   - what is given to a queue is done only when somebody waits for it, and no further than was waited for; host memory
 *     is looked at then, so that a scheduler which forgets an event, or reuses memory early, is caught;
 *   - results that are not `kept` turn into NaN behind their segment;
 *   - memory is NaN to begin with, buffers can be small and alignment large;
 *   - the device can be lost at any call, and its memory run out at any buffer.
 *
 * Checks of the running test fail where the contract is broken: addresses outside of their buffer, buffers larger than
 * the largest, host memory that is freed while it is copied, what is left when the device is closed. */
#ifndef GEUL_TESTS_POISON_H
#define GEUL_TESTS_POISON_H

#include "backends/backend.h"

/* All fields may be zero. */
struct poison_options {
    int n_threads;     /* 0: 1 */
    size_t alignment;  /* 0: 64 */
    size_t max_buffer; /* 0: any size */
    bool plain;        /* without the functions that a backend need not have */
    bool no_copy;      /* has copy(), which never can: everything goes through the host */
    long lost_at;      /* at which of the calls that can fail the device is lost; 0: never */
    long no_memory_at; /* which buffer there is no memory for; 0: none */
    size_t memory;     /* bytes that buffers can have together; 0: as many as wanted, and it does not say */
};

/* What was asked of the device so far. */
struct poison_counts {
    long calls; /* that can fail */
    long buffers, prepared, runs, uploads, downloads, copies;
    long nodes; /* computed */
    long now_prepared;
    size_t host_most; /* most bytes of host_alloc()'s at a time */
    size_t bytes;     /* of the buffers there are */
};

/* A poisoned device, which geul_device_close() closes. Wrapping is refused, so weights are uploaded. options may be
 * NULL. */
struct geul_device *poison_open(struct geul_context *ctx, const struct poison_options *options);
struct poison_counts poison_counts(const struct geul_device *device);
/* From now on, for a device that is open: lost_at and no_memory_at, counted from the next call on. */
void poison_set(struct geul_device *device, long lost_at, long no_memory_at);
bool poison_is_lost(const struct geul_device *device);

#endif
