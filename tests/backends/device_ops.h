/* device_ops.h: the cases of op_frame.h on devices whose memory is not the host's: tensors are uploaded, prepared,
 * computed and downloaded. Where such a device rounds otherwise than the CPU, device_ops.c says why and by how much. */
#ifndef GEUL_TESTS_DEVICE_OPS_H
#define GEUL_TESTS_DEVICE_OPS_H

#include "tests/backends/op_frame.h"

/* How devices are opened, and what may change between two runs without changing a bit. */
struct device_kind {
    const char *name;
    struct geul_device *(*open)(struct geul_context *ctx);
    int n_ways;
    const char *(*way)(int i); /* goes over to way i; returns its name */
};

/* Computes t on r->device; a result of several runs must be that of one. false (counted in r->unsupported) when the
 * device does not take one of the nodes. */
bool device_compute(struct run *r, struct geul_tensor *t);
/* Runs an operation's case: against its reference in the first way, then with the same bits in the others. Returns how
 * many computations the device does not take. */
int check_device_op(const struct device_kind *kind, enum geul_op op, bool exact);
/* The same of a case that is not in the table. */
int check_device_case(const struct device_kind *kind, const char *name, void (*run_case)(struct run *), bool exact);

#endif
