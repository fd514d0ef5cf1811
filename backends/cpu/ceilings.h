/* ceilings.h: what this machine can do at most, measured. */
#ifndef GEUL_CPU_CEILINGS_H
#define GEUL_CPU_CEILINGS_H

#include "backends/backend.h"

/* With all threads of the device together, in the best instruction set that it uses. */
struct geul_cpu_ceilings {
    double read_bytes_per_s;
    /* Multiply-adds. Where the CPU has no bfloat16 products these are float32 ones, and the ceilings are the same. */
    double f32_macs_per_s, bf16_macs_per_s, int8_macs_per_s;
};

/* Measures the ceilings of a CPU device again and again, since those of a shared machine move. Holds
 * geul_cpu_probe_bytes() of resident memory. Belongs to one thread; device must outlive it. */
struct geul_cpu_probe;
/* NULL when the memory cannot be had. Free with geul_cpu_probe_free(). */
struct geul_cpu_probe *geul_cpu_probe_new(struct geul_context *ctx, struct geul_device *device);
void geul_cpu_probe_free(struct geul_cpu_probe *probe);
size_t geul_cpu_probe_bytes(const struct geul_cpu_probe *probe);
/* The ceilings of this moment, in about a quarter of a second. */
struct geul_cpu_ceilings geul_cpu_probe_measure(const struct geul_cpu_probe *probe);

#endif
