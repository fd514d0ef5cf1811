/* ceilings.c: loops that do nothing but one thing, on all threads at once; the best of several short rounds. */
#include "backends/cpu/ceilings.h"

#include "backends/cpu/cpu.h"
#include "core/os.h"

#include <omp.h>
#include <string.h>

enum { READ_BYTES = 512 << 20, READ_PASSES = 12, PEAK_PASSES = 5 };

static const double PEAK_SECONDS = 0.012; /* one pass */

/* Multiply-adds per second of one kernel. */
static double peak(int n_threads, uint64_t (*kernel)(uint64_t rounds))
{
    uint64_t rounds = 1000;
    double took = 0, best = 0;
    while (took < PEAK_SECONDS / 4 && rounds < (uint64_t)1 << 40) {
        rounds *= 2;
        double start = geul_os_seconds();
        kernel(rounds);
        took = geul_os_seconds() - start;
    }
    rounds = (uint64_t)((double)rounds * PEAK_SECONDS / took);
    for (int pass = 0; pass < PEAK_PASSES; pass++) {
        uint64_t macs = 0;
        double start = geul_os_seconds();
#pragma omp parallel num_threads(n_threads) reduction(+ : macs)
        macs += kernel(rounds);
        double rate = (double)macs / (geul_os_seconds() - start);
        best = rate > best ? rate : best;
    }
    return best;
}

/* Bytes per second when every thread reads its part of data. */
static double read_rate(int n_threads, const struct geul_cpu_kernels *kernels, uint8_t *data)
{
    double best = 0;
#pragma omp parallel num_threads(n_threads)
    {
        size_t each = READ_BYTES / (size_t)omp_get_num_threads();
        memset(data + (size_t)omp_get_thread_num() * each, 1, each); /* so that the pages exist */
    }
    for (int pass = 0; pass < READ_PASSES; pass++) {
        uint64_t sum = 0, bytes = 0;
        double start = geul_os_seconds();
#pragma omp parallel num_threads(n_threads) reduction(+ : sum, bytes)
        {
            size_t each = READ_BYTES / (size_t)omp_get_num_threads() / 256 * 256;
            sum += kernels->read_sum(data + (size_t)omp_get_thread_num() * each, each);
            bytes += each;
        }
        volatile uint64_t sink = sum;
        (void)sink;
        double rate = (double)bytes / (geul_os_seconds() - start);
        best = rate > best ? rate : best;
    }
    return best;
}

enum geul_status geul_cpu_ceilings(struct geul_context *ctx, struct geul_device *device,
                                   struct geul_cpu_ceilings *ceilings)
{
    const struct geul_cpu_state *state = device->state;
    const struct geul_cpu_kernels *kernels = &state->choice.kernels;
    uint8_t *data = geul_alloc(ctx, 1, READ_BYTES);
    if (!data)
        return GEUL_ERROR_MEMORY;
    ceilings->read_bytes_per_s = read_rate(state->n_threads, kernels, data);
    geul_free(ctx, data);
    ceilings->f32_macs_per_s = peak(state->n_threads, kernels->peak_f32);
    ceilings->bf16_macs_per_s = peak(state->n_threads, kernels->peak_bf16);
    ceilings->int8_macs_per_s = peak(state->n_threads, kernels->peak_int8);
    return GEUL_OK;
}
