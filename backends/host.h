/* host.h: what the CPU offers besides its device: ceilings to measure against, the search for quantization scales, and
 * lists of its instruction sets and kernels. backends/cpu/ implements it. */
#ifndef GEUL_HOST_H
#define GEUL_HOST_H

#include "backends/backend.h"

/* ---------------------------------------------------------------------------------- ceilings -- */

/* Measures the ceilings of the host's device, with all its threads together and in the best instruction set that it
 * uses, as often as wanted, since those of a shared machine change. Where the processor has no bfloat16 products they
 * are float32 ones, with the same ceiling. Holds geul_host_probe_bytes() of resident memory. Used by one thread at a
 * time; device must outlive it. */
struct geul_host_probe;
/* NULL (recorded) when memory is short or device is of another backend. Free with geul_host_probe_free(). */
struct geul_host_probe *geul_host_probe_new(struct geul_context *ctx, struct geul_device *device);
void geul_host_probe_free(struct geul_host_probe *probe);
size_t geul_host_probe_bytes(const struct geul_host_probe *probe);
/* The ceilings now; takes about a quarter of a second. */
struct geul_device_ceilings geul_host_probe_measure(const struct geul_host_probe *probe);

/* ------------------------------------------------------------------------------------ search -- */

struct geul_block_format;
struct geul_search_tile;

/* Finds the integers of 16 quantization groups that leave the least error (backends/search_tile.h). */
typedef void geul_search_kernel(const struct geul_block_format *format, struct geul_search_tile *tile);
/* The one for the widest instruction set that this machine has; all give the same bits. May be called from any thread.
 */
geul_search_kernel *geul_host_search(void);

/* ---------------------------------------------------------------------------------- listings -- */

/* The i-th instruction set of this build and whether this machine has it; false after the last. */
bool geul_host_instruction_set(int i, const char **name, bool *supported);

/* One of the micro-kernels that the device computes with. */
struct geul_host_kernel {
    const char *slot, *meaning;
    const char *instruction_set; /* whose kernel fills the slot */
};
/* The i-th of them; false after the last, and for a device of another backend, which has none. */
bool geul_host_kernel_at(const struct geul_device *device, int i, struct geul_host_kernel *out);

#endif
