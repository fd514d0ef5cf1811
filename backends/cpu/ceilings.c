/* ceilings.c: the machine's peak rates: loops that only multiply or only read, on all threads at once; the best of
 * several short passes. */
#include "backends/cpu/cpu.h"
#include "backends/host.h"
#include "core/os.h"
#include "core/team.h"

#include <stdatomic.h>
#include <string.h>

enum { READ_BYTES = 512 << 20, READ_PASSES = 2, PEAK_PASSES = 4 };

static const double PEAK_SECONDS = 0.008; /* one pass */

enum peak { PEAK_F32, PEAK_BF16, PEAK_INT8, N_PEAKS };
typedef uint64_t peak_kernel(uint64_t rounds);

struct geul_host_probe {
    struct geul_context *ctx;
    int n_threads;
    const struct geul_cpu_kernels *kernels;
    peak_kernel *peak[N_PEAKS];
    uint64_t rounds[N_PEAKS]; /* that take PEAK_SECONDS */
    uint8_t *data;            /* READ_BYTES, more than the caches hold */
};

/* Ways to read a thread's part, for read_sum: which one is fastest differs between machines and from moment to moment,
 * by up to a tenth, so the best of all is the ceiling. */
static const struct {
    size_t streams, distance;
} patterns[] = {{1, 0}, {1, 8192}, {2, 4096}, {4, 1024}};
enum { N_PATTERNS = sizeof patterns / sizeof patterns[0] };

/* How many rounds of a kernel take PEAK_SECONDS. */
static uint64_t calibrate(peak_kernel *kernel)
{
    uint64_t rounds = 1000;
    double took = 0;
    while (took < PEAK_SECONDS / 4 && rounds < (uint64_t)1 << 40) {
        rounds *= 2;
        double start = geul_os_seconds();
        kernel(rounds);
        took = geul_os_seconds() - start;
    }
    return (uint64_t)((double)rounds * PEAK_SECONDS / took);
}

/* Writes this thread's part of the data. */
static void touch_part(void *user, int thread, int n_threads)
{
    size_t each = READ_BYTES / (size_t)n_threads;
    memset((uint8_t *)user + (size_t)thread * each, 1, each);
}

struct geul_host_probe *geul_host_probe_new(struct geul_context *ctx, struct geul_device *device)
{
    if (device->backend != &geul_backend_cpu) {
        geul_fail(ctx, GEUL_ERROR_ARGUMENT, "only the ceilings of the host's device can be measured, not those of %s",
                  device->name);
        return NULL;
    }
    const struct geul_cpu_state *state = device->state;
    const struct geul_cpu_kernels *kernels = &state->choice.kernels;
    struct geul_host_probe *probe = geul_alloc(ctx, 1, sizeof *probe);
    uint8_t *data = probe ? geul_alloc(ctx, 1, READ_BYTES) : NULL;
    if (!data) {
        geul_free(ctx, probe);
        return NULL;
    }
    *probe = (struct geul_host_probe){
        .ctx = ctx,
        .n_threads = device->n_threads,
        .kernels = kernels,
        .peak = {[PEAK_F32] = kernels->peak_f32, [PEAK_BF16] = kernels->peak_bf16, [PEAK_INT8] = kernels->peak_int8},
        .data = data,
    };
    geul_team_run(probe->n_threads, touch_part, data); /* so that the pages exist */
    for (int i = 0; i < N_PEAKS; i++)
        probe->rounds[i] = calibrate(probe->peak[i]);
    return probe;
}

void geul_host_probe_free(struct geul_host_probe *probe)
{
    if (!probe)
        return;
    geul_free(probe->ctx, probe->data);
    geul_free(probe->ctx, probe);
}

size_t geul_host_probe_bytes(const struct geul_host_probe *probe)
{
    (void)probe;
    return READ_BYTES;
}

/* What the threads of a measurement do, and what they have done. */
struct measurement {
    const struct geul_host_probe *probe;
    enum peak which;
    size_t streams, distance;
    _Atomic uint64_t macs, bytes, sum;
};

static void compute_peak(void *user, int thread, int n_threads)
{
    struct measurement *m = user;
    (void)thread, (void)n_threads;
    atomic_fetch_add(&m->macs, m->probe->peak[m->which](m->probe->rounds[m->which]));
}

/* Reads this thread's part of the data. */
static void read_part(void *user, int thread, int n_threads)
{
    struct measurement *m = user;
    size_t each = READ_BYTES / (size_t)n_threads / 4096 * 4096;
    const uint8_t *data = m->probe->data + (size_t)thread * each;
    atomic_fetch_add(&m->sum, m->probe->kernels->read_sum(data, each, m->streams, m->distance));
    atomic_fetch_add(&m->bytes, each);
}

/* Multiply-adds per second of one kernel. */
static double peak_rate(const struct geul_host_probe *probe, enum peak which)
{
    double best = 0;
    for (int pass = 0; pass < PEAK_PASSES; pass++) {
        struct measurement m = {.probe = probe, .which = which};
        double start = geul_os_seconds();
        geul_team_run(probe->n_threads, compute_peak, &m);
        double rate = (double)m.macs / (geul_os_seconds() - start);
        best = rate > best ? rate : best;
    }
    return best;
}

/* Bytes per second of one pass in which every thread reads its part of the data. */
static double read_rate(const struct geul_host_probe *probe, size_t streams, size_t distance)
{
    struct measurement m = {.probe = probe, .streams = streams, .distance = distance};
    double start = geul_os_seconds();
    geul_team_run(probe->n_threads, read_part, &m);
    return (double)m.bytes / (geul_os_seconds() - start);
}

struct geul_device_ceilings geul_host_probe_measure(const struct geul_host_probe *probe)
{
    double read = 0;
    for (int i = 0; i < READ_PASSES * N_PATTERNS; i++) {
        double rate = read_rate(probe, patterns[i % N_PATTERNS].streams, patterns[i % N_PATTERNS].distance);
        read = rate > read ? rate : read;
    }
    return (struct geul_device_ceilings){.read_bytes_per_s = read,
                                         .f32_macs_per_s = peak_rate(probe, PEAK_F32),
                                         .bf16_macs_per_s = peak_rate(probe, PEAK_BF16),
                                         .int8_macs_per_s = peak_rate(probe, PEAK_INT8)};
}

enum geul_status geul_cpu_measure(struct geul_context *ctx, struct geul_device *device,
                                  struct geul_device_ceilings *out)
{
    struct geul_host_probe *probe = geul_host_probe_new(ctx, device);
    if (!probe)
        return geul_error_status(ctx);
    *out = geul_host_probe_measure(probe);
    geul_host_probe_free(probe);
    return GEUL_OK;
}
