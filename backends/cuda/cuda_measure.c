/* cuda_measure.c: the card's ceilings, measured by kernels that only read or only multiply. */
#include "backends/cuda/device.h"

#include "backends/cuda/ceilings.h"

/* Reading: so much memory at most, a quarter of what is free at most, and at least twice the cache if that can be.
 * Multiplying: rounds are doubled until a launch takes so long. */
#define READ_MOST   ((size_t)1 << 30)
#define LONG_ENOUGH 2e-3
enum { MOST_ROUNDS = 1 << 16, TRIES = 3 };

struct bed {
    const struct cuda_gpu *gpu;
    struct cuda_stream stream;
    void *from, *to; /* timed events */
    void *memory;
    size_t bytes;
};

/* Seconds of a launch; 0 or an error number. */
static int time_launch(struct bed *b, cuda_launch *launch, const void *args, double *seconds)
{
    int error = b->gpu->event_record(b->from, b->stream.handle);
    error = error ? error : launch(&b->stream, args);
    error = error ? error : b->gpu->event_record(b->to, b->stream.handle);
    error = error ? error : b->gpu->event_wait(b->to);
    return error ? error : b->gpu->event_seconds(b->from, b->to, seconds);
}

static int measure_reading(struct bed *b, const struct cuda_card *card, double *bytes_per_s)
{
    struct cuda_read args = {b->memory, b->bytes, b->memory, card->n_sm};
    int error = 0;
    for (int i = 0; i < TRIES && !error; i++) { /* the first warms up */
        double seconds = 0;
        error = time_launch(b, geul_cuda_launch_read, &args, &seconds);
        double rate = seconds > 0 ? (double)b->bytes / seconds : 0;
        *bytes_per_s = rate > *bytes_per_s ? rate : *bytes_per_s;
    }
    return error;
}

static int measure_peak(struct bed *b, const struct cuda_card *card, enum cuda_peak peak, double *macs_per_s)
{
    struct cuda_multiply args = {peak, 64, card->n_sm, b->memory};
    int error = 0;
    for (double seconds = 0; !error && seconds < LONG_ENOUGH && args.rounds < MOST_ROUNDS; args.rounds *= 2) {
        error = time_launch(b, geul_cuda_launch_multiply, &args, &seconds);
        double rate = seconds > 0 ? geul_cuda_multiply_macs(&args) / seconds : 0;
        *macs_per_s = rate > *macs_per_s ? rate : *macs_per_s;
    }
    return error;
}

static int set_up(struct bed *b)
{
    size_t free_bytes = 0, total_bytes;
    int error = b->gpu->memory(&free_bytes, &total_bytes);
    b->bytes = (free_bytes / 4 < READ_MOST ? free_bytes / 4 : READ_MOST) & ~(size_t)255;
    error = error ? error : b->gpu->allocate(&b->memory, b->bytes ? b->bytes : 256);
    error = error ? error : b->gpu->stream_new(&b->stream.handle);
    error = error ? error : b->gpu->set_async(b->memory, 0, b->bytes, b->stream.handle);
    error = error ? error : b->gpu->event_new(&b->from, true);
    return error ? error : b->gpu->event_new(&b->to, true);
}

static void tear_down(struct bed *b)
{
    if (b->from)
        b->gpu->event_free(b->from);
    if (b->to)
        b->gpu->event_free(b->to);
    if (b->stream.handle)
        b->gpu->stream_free(b->stream.handle);
    if (b->memory)
        b->gpu->release(b->memory);
}

enum geul_status geul_cuda_measure(struct geul_context *ctx, struct geul_device *device,
                                   struct geul_device_ceilings *out)
{
    const struct cuda_device *d = geul_cuda_device(device);
    *out = (struct geul_device_ceilings){0};
    enum geul_status status = geul_cuda_enter(ctx, device);
    if (status != GEUL_OK)
        return status;
    struct bed bed = {.gpu = d->gpu};
    int error = set_up(&bed);
    error = error ? error : measure_reading(&bed, &d->card, &out->read_bytes_per_s);
    error = error ? error : measure_peak(&bed, &d->card, CUDA_PEAK_F32, &out->f32_macs_per_s);
    error = error ? error : measure_peak(&bed, &d->card, CUDA_PEAK_INT8, &out->int8_macs_per_s);
    if (!error && d->card.bfloat_products)
        error = measure_peak(&bed, &d->card, CUDA_PEAK_BF16, &out->bf16_macs_per_s);
    tear_down(&bed);
    return geul_cuda_check(ctx, device, error, "measuring it");
}
