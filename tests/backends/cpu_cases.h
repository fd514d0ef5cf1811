/* cpu_cases.h: what the tests of the CPU backend share: a device under a chosen instruction set, memory with canaries
 * round it, leaves filled with random numbers, and comparisons. */
#ifndef GEUL_TESTS_CPU_CASES_H
#define GEUL_TESTS_CPU_CASES_H

#include "backends/cpu/cpu.h"
#include "tests/harness.h"

enum { CPU_SEED = 20261123 };

/* Lengths around every vector width and block. */
#define CPU_SIZES                                                                                                      \
    {                                                                                                                  \
        1, 2, 3, 5, 7, 8, 9, 12, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 96, 127, 128, 129, 257, 300                   \
    }

/* Memory of bytes bytes between two canaries, misaligned by shift bytes. Free with cpu_guard_free(), which checks that
 * the canaries live. */
struct cpu_guard {
    uint8_t *whole, *data;
    size_t bytes;
};
struct cpu_guard cpu_guard(size_t bytes, size_t shift);
void cpu_guard_free(struct cpu_guard *g, const char *what);

/* A device under GEUL_CPU=variant (NULL: all), or NULL with a failed check. */
struct geul_device *cpu_device(struct geul_context *ctx, const char *variant, int n_threads);
/* A contiguous leaf of the type with normal random values times spread; memory from the arena of ctx. */
struct geul_tensor *cpu_leaf(struct geul_context *ctx, uint64_t *seed, enum geul_type type, int n_dims,
                             const int64_t *shape, double spread);
/* Gives a view of a leaf, or of such a view, its address already, so that its values can be read; returns t. */
struct geul_tensor *cpu_view(struct geul_tensor *t);
/* Element i (in row-major order of its shape) of a tensor of any type and strides. */
double cpu_value(const struct geul_tensor *t, int64_t i);
/* Gives t and what it needs memory, in the host's, and appends these nodes, in order, to the n that are there already.
 * Returns how many there are then, at most CPU_NODES. */
enum { CPU_NODES = 64 };
int cpu_nodes(struct geul_context *ctx, struct geul_tensor *t, struct geul_tensor **nodes, int n);
/* Computes nodes that have memory; false (recorded) on failure. */
bool cpu_run_nodes(struct geul_context *ctx, struct geul_device *device, struct geul_tensor *const *nodes, int n);
/* Gives every node of the chain that ends in t memory and computes it. false (and a failed check) on failure. */
bool cpu_compute(struct geul_context *ctx, struct geul_device *device, struct geul_tensor *t);
/* Whether all of n values agree: |got - want| <= absolute + relative * |want|, NaN with NaN, infinities alike. */
bool cpu_close(const char *what, const float *got, const double *want, int64_t n, double absolute, double relative);

#endif
