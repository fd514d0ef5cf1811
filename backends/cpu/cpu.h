/* cpu.h: the state of the CPU's device. */
#ifndef GEUL_CPU_H
#define GEUL_CPU_H

#include "backends/backend.h"
#include "backends/cpu/cpu_detect.h"

#include <omp.h>

/* geul_device.state of the CPU. */
struct geul_cpu_state {
    int spins; /* see struct geul_cpu_run */
    struct geul_cpu_choice choice;
    struct geul_context *own; /* scratch comes from here: the contexts of runs may have other allocators */
    uint8_t *scratch;         /* grows with the graphs that were run */
    size_t scratch_bytes;
    omp_lock_t turn; /* held during a run */
};

extern const struct geul_backend geul_backend_cpu;

#endif
