/* cpu_kernel_cases.h: what the checks of the CPU's kernels share. Each slot of kernels.def has a function
 * cpu_check_<name> (of a family of types, with the type), which test_cpu_kernels.c calls for every instruction set that
 * fills the slot; without it the tests do not link. */
#ifndef GEUL_TESTS_CPU_KERNEL_CASES_H
#define GEUL_TESTS_CPU_KERNEL_CASES_H

#include "tests/backends/cpu_cases.h"

static const size_t sizes[] = CPU_SIZES;
enum { N_SIZES = sizeof sizes / sizeof sizes[0], LONGEST = 300 };

/* The kernels under test, the name of their instruction set, and the state of the random numbers. Slots that the
 * instruction set does not fill are skipped: another one's are used there. */
extern const struct geul_cpu_kernels *cpu_kernels;
extern const char *cpu_variant;
extern uint64_t cpu_seed;

/* n normal random values times spread; free(). */
float *cpu_randoms(size_t n, double spread);
/* Checks the n float32 values that a slot wrote (see cpu_close()). */
void cpu_check_slot(const char *slot, size_t n, const void *got, const double *want, double absolute, double relative);

/* Weights of the type (rows, k), as blocks with stride bytes between rows and as doubles. */
struct cpu_weights {
    uint8_t *data;
    double *values;
    size_t stride;
};
struct cpu_weights cpu_weights_new(enum geul_type type, size_t rows, size_t k);
void cpu_weights_free(struct cpu_weights *w);

#define KERNEL(name, returns, arguments, meaning) void cpu_check_##name(void);
#define TYPED(family, type, meaning)              void cpu_check_##family(enum geul_type type);
#include "backends/cpu/kernels.def"
#undef KERNEL
#undef TYPED

#endif
