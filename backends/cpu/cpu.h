/* cpu.h: what the CPU backend offers besides backends/backend.h. */
#ifndef GEUL_CPU_H
#define GEUL_CPU_H

#include "backends/backend.h"
#include "backends/cpu/cpu_detect.h"

#include <omp.h>

/* What lies behind geul_device.state. */
struct geul_cpu_state {
    int n_threads;
    int spins; /* see struct geul_cpu_run */
    struct geul_cpu_choice choice;
    struct geul_context *own; /* scratch comes from here: the contexts of runs may have other allocators */
    uint8_t *scratch;         /* grows with the graphs that were run */
    size_t scratch_bytes;
    omp_lock_t turn; /* held during a run */
};

/* Slot i and the instruction set whose kernel fills it, for listings. false after the last slot. */
bool geul_cpu_describe(const struct geul_device *device, int i, const char **slot, const char **variant);

#endif
