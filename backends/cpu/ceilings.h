/* ceilings.h: what this machine can do at most, measured. */
#ifndef GEUL_CPU_CEILINGS_H
#define GEUL_CPU_CEILINGS_H

#include "backends/backend.h"

/* With all threads of the device together, in the best instruction set that it uses. */
struct geul_cpu_ceilings {
    double read_bytes_per_s;
    double f32_macs_per_s, bf16_macs_per_s, int8_macs_per_s; /* multiply-adds */
};

/* Measures device (a CPU device) in about a second, with 512 MiB of memory for a moment: ask for peak memory
 * before. Fails only when that memory cannot be had. */
enum geul_status geul_cpu_ceilings(struct geul_context *ctx, struct geul_device *device,
                                   struct geul_cpu_ceilings *ceilings);

#endif
