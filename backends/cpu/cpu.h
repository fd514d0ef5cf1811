/* cpu.h: the state of the CPU's device. */
#ifndef GEUL_CPU_H
#define GEUL_CPU_H

#include "backends/backend.h"
#include "backends/cpu/cpu_detect.h"

/* geul_device.state of the CPU: what its queues share, which does not change. */
struct geul_cpu_state {
    struct geul_cpu_choice choice;
};

extern const struct geul_backend geul_backend_cpu;

/* geul_backend.measure: one measurement with a probe of its own (ceilings.c). */
enum geul_status geul_cpu_measure(struct geul_context *ctx, struct geul_device *device,
                                  struct geul_device_ceilings *out);

#endif
