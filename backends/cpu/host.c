/* host.c: the search and the listings of backends/host.h; its ceilings are in ceilings.c. */
#include "backends/host.h"

#include "backends/cpu/cpu.h"

#include <stdatomic.h>

geul_search_kernel *geul_host_search(void)
{
    static _Atomic(geul_search_kernel *) known; /* threads that look at the same time find the same one */
    geul_search_kernel *kernel = atomic_load(&known);
    if (kernel)
        return kernel;
    const struct geul_cpu_kernels *table;
    const char *name;
    bool supported;
    for (int i = 0; (table = geul_cpu_variant(i, &name, &supported)) != NULL; i++)
        if (supported && table->search)
            kernel = table->search;
    atomic_store(&known, kernel);
    return kernel;
}

bool geul_host_instruction_set(int i, const char **name, bool *supported)
{
    return geul_cpu_variant(i, name, supported) != NULL;
}

bool geul_host_kernel_at(const struct geul_device *device, int i, struct geul_host_kernel *out)
{
    const struct geul_cpu_state *state = device->state;
    if (device->backend != &geul_backend_cpu || i < 0 || i >= GEUL_CPU_SLOT_COUNT)
        return false;
    *out = (struct geul_host_kernel){.slot = geul_cpu_slot_name((enum geul_cpu_slot)i),
                                     .meaning = geul_cpu_slot_meaning((enum geul_cpu_slot)i),
                                     .instruction_set = state->choice.variant[i]};
    return true;
}
