/* rig.h: a model on devices of a test's choice, with a session. */
#ifndef GEUL_TESTS_RIG_H
#define GEUL_TESTS_RIG_H

#include "models/session.h"
#include "tests/harness.h"
#include "tests/poison.h"

struct rig {
    struct geul_context *ctx;
    struct geul_device *devices[2];
    struct geul_model *model;
    struct geul_session *session;
};

struct rig_options {
    int n_threads, n_batch, n_sequences; /* 0: 1, the default, 1 */
    enum geul_type cache;
    const char *cpu;              /* the best instruction set to use; NULL: what the machine has */
    int poisoned_from;            /* layers from here on are on a poisoned device; < 0: none */
    bool all_poisoned;            /* everything is on it */
    struct poison_options poison; /* but for its threads */
    struct geul_device *(*other)(struct geul_context *ctx); /* opens what stands in the poisoned device's place */
    bool exact;                                             /* sums have one order on every device */
};

/* false (and a failed check) when it cannot be opened; close it all the same. */
bool rig_open(struct rig *r, const char *path, struct rig_options o);
void rig_close(struct rig *r);
/* Instruction set i of this machine, NULL behind the last. */
const char *rig_variant(int i);

#endif
