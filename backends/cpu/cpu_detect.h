/* cpu_detect.h: which instruction sets this machine has, and the table of kernels they give together. */
#ifndef GEUL_CPU_DETECT_H
#define GEUL_CPU_DETECT_H

#include "backends/cpu/kernels.h"

/* The kernels in use, and for each slot the name of the instruction set it came from. */
struct geul_cpu_choice {
    struct geul_cpu_kernels kernels;
    const char *variant[GEUL_CPU_SLOT_COUNT];
};

/* Fills choice: the scalar table, overlaid with every supported one up to and including the one named cap (NULL: all).
 * Fails when cap names none of this build. */
enum geul_status geul_cpu_choose(struct geul_context *ctx, const char *cap, struct geul_cpu_choice *choice);
/* Name and meaning of a slot. */
const char *geul_cpu_slot_name(enum geul_cpu_slot slot);
const char *geul_cpu_slot_meaning(enum geul_cpu_slot slot);
/* The i-th instruction set of this build, in the order of overlaying; NULL after the last. *supported: whether this
 * machine has it. */
const struct geul_cpu_kernels *geul_cpu_variant(int i, const char **name, bool *supported);

#endif
