/* device.c: NVIDIA cards as devices: which there are, memory, copies, queues and events.
 *
 * CUDA's calls are about the card that the calling thread uses, so each function begins with geul_cuda_enter(). Queues
 * are streams that wait for no other; what upload() and download() promise is done by waiting for the whole card.
 *
 * An error of a kernel, such as an access to memory that is not there, ends CUDA's context of the card: every call from
 * then on reports it, by whomever it is made. The card is lost then (all geul_devices of it), and when the last of them
 * has been closed it is reset, which makes it usable again. */
#include "backends/cuda/device.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { MOST_CARDS = 16, OLDEST_MAJOR = 7, OLDEST_MINOR = 5 };

/* What all geul_devices of a card share. */
static struct {
    pthread_mutex_t lock;
    struct {
        int users;
        atomic_bool lost;
        atomic_bool reaches[MOST_CARDS]; /* whose memory it has been let read, or must copy by way of the host */
    } cards[MOST_CARDS];
} shared = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---------------------------------------------------------------------------------- captures -- */

/* Held by one who captures, or shared by those who wait for cards. */
static pthread_rwlock_t captures = PTHREAD_RWLOCK_INITIALIZER;

void geul_cuda_begin_capture(void)
{
    pthread_rwlock_wrlock(&captures);
}

void geul_cuda_begin_waiting(void)
{
    pthread_rwlock_rdlock(&captures);
}

void geul_cuda_end_of_either(void)
{
    pthread_rwlock_unlock(&captures);
}

/* Waits for all work of the card that this thread uses. */
static int wait_for_card(const struct cuda_gpu *gpu)
{
    geul_cuda_begin_waiting();
    int error = gpu->wait();
    geul_cuda_end_of_either();
    return error;
}

/* ------------------------------------------------------------------------------------ errors -- */

/* Errors after which nothing on the card can be used. */
static bool is_fatal(int error)
{
    static const int fatal[] = {
        201, 214, 220,                /* no context any more; memory or link errors that cannot be corrected */
        700, 702, 709,                /* illegal address, timeout of the display's watchdog, context destroyed */
        710, 714, 715, 716, 717, 718, /* assertion, stack, instruction, alignment, address space, program counter */
        719, 721, 999,                /* launch failure, tensor memory, unknown */
    };
    for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++)
        if (error == fatal[i])
            return true;
    return false;
}

static atomic_bool *lost_flag(const struct geul_device *device)
{
    return &shared.cards[geul_cuda_device(device)->number].lost;
}

#define WHAT_TO_DO "what was on it is gone: free what uses it, then load the model again"

enum geul_status geul_cuda_enter(struct geul_context *ctx, struct geul_device *device)
{
    if (atomic_load(lost_flag(device)))
        return geul_fail(ctx, GEUL_ERROR_DEVICE, "%s (%s) is lost since an earlier failure; %s", device->name,
                         device->id, WHAT_TO_DO);
    const struct cuda_device *d = geul_cuda_device(device);
    return geul_cuda_check(ctx, device, d->gpu->use(d->number), "selecting it");
}

enum geul_status geul_cuda_check(struct geul_context *ctx, const struct geul_device *device, int error,
                                 const char *doing, ...)
{
    if (!error)
        return GEUL_OK;
    char text[300];
    va_list args;
    va_start(args, doing);
    vsnprintf(text, sizeof text, doing, args);
    va_end(args);
    const struct cuda_gpu *gpu = geul_cuda_device(device)->gpu;
    if (is_fatal(error)) {
        atomic_store(lost_flag(device), true);
        return geul_fail(ctx, GEUL_ERROR_DEVICE, "%s (%s) is lost, %s failed: %s (CUDA error %d); %s", device->name,
                         device->id, text, gpu->text(error), error, WHAT_TO_DO);
    }
    gpu->last_error(); /* or the next launch would report it */
    enum geul_status status = error == CUDA_NO_MEMORY ? GEUL_ERROR_MEMORY : GEUL_ERROR_UNSUPPORTED;
    return geul_fail(ctx, status, "%s (%s): %s failed: %s (CUDA error %d)", device->name, device->id, text,
                     gpu->text(error), error);
}

/* ------------------------------------------------------------------------------------- cards -- */

/* The cards that can be used, by CUDA's numbers, and why there are no more. */
struct survey {
    int numbers[MOST_CARDS], n;
    char reason[300]; /* "": there are no others */
};

/* Whether there is a driver that can serve this backend; why not, in s->reason. */
static bool find_driver(const struct cuda_gpu *gpu, struct survey *s)
{
    /* The first driver that serves each version of CUDA. */
    const int needed = gpu->driver_needed, driver = needed >= 13000 ? 580 : 525;
    int version = 0, error = gpu->driver_version(&version);
    if (!error && version >= needed)
        return true;
    if (error && error != CUDA_OLD_DRIVER)
        snprintf(s->reason, sizeof s->reason, "the NVIDIA driver does not answer: %s (CUDA error %d)", gpu->text(error),
                 error);
    else if (version == 0)
        snprintf(s->reason, sizeof s->reason, "no NVIDIA driver is installed; %d or later is needed", driver);
    else
        snprintf(s->reason, sizeof s->reason,
                 "the NVIDIA driver is too old: it serves CUDA %d.%d; install driver %d or later, for CUDA %d.%d",
                 version / 1000, version % 1000 / 10, driver, needed / 1000, needed % 1000 / 10);
    return false;
}

static struct survey look(const struct cuda_gpu *gpu)
{
    struct survey s = {.n = 0};
    int n = 0;
    if (!find_driver(gpu, &s))
        return s;
    int error = gpu->count(&n);
    if (error == CUDA_NO_CARD || (!error && n == 0))
        snprintf(s.reason, sizeof s.reason, "the NVIDIA driver finds no card");
    else if (error)
        snprintf(s.reason, sizeof s.reason, "CUDA does not start: %s (CUDA error %d)%s", gpu->text(error), error,
                 error == 803 || error == 804 ? "; after an update of the driver the machine has to be restarted" : "");
    for (int i = 0; !error && i < n && i < MOST_CARDS; i++) {
        int major = 0, minor = 0, asked = gpu->capability(i, &major, &minor);
        if (asked)
            snprintf(s.reason, sizeof s.reason, "card %d does not answer: %s (CUDA error %d)", i, gpu->text(asked),
                     asked);
        else if (major < OLDEST_MAJOR || (major == OLDEST_MAJOR && minor < OLDEST_MINOR))
            snprintf(s.reason, sizeof s.reason,
                     "card %d is too old for CUDA %d: it has compute capability %d.%d, and %d.%d (GTX 16, RTX 20) is "
                     "the least",
                     i, gpu->driver_needed / 1000, major, minor, (int)OLDEST_MAJOR, (int)OLDEST_MINOR);
        else
            s.numbers[s.n++] = i;
    }
    return s;
}

static int cuda_count(void)
{
    return look(geul_cuda_gpu()).n;
}

static void cuda_missing(char *text, size_t size)
{
    struct survey s = look(geul_cuda_gpu());
    snprintf(text, size, "%s", s.reason);
}

/* Makes CUDA's context of the card, and asks what the card is. */
static int ask_card(struct cuda_device *d)
{
    size_t free_bytes, total_bytes;
    int error = d->gpu->use(d->number);
    error = error ? error : d->gpu->memory(&free_bytes, &total_bytes);
    error = error ? error : d->gpu->describe(d->number, &d->card);
    d->card.bfloat_products = d->card.async_copies = d->card.major >= 8;
    return error;
}

/* What CUDA returns here may still be the old error: whether the card can be used again, ask_card() says. */
static void reset_card(const struct cuda_device *d)
{
    for (int i = 0; i < MOST_CARDS; i++) {
        atomic_store(&shared.cards[d->number].reaches[i], false);
        atomic_store(&shared.cards[i].reaches[d->number], false);
    }
    d->gpu->use(d->number);
    d->gpu->reset();
    d->gpu->last_error();
}

/* Lets the card be used. One that is lost, perhaps by others in this program, is reset if nobody here uses it. */
static enum geul_status start_card(struct geul_context *ctx, struct geul_device *device)
{
    struct cuda_device *d = geul_cuda_device(device);
    atomic_bool *lost = &shared.cards[d->number].lost;
    const bool used = shared.cards[d->number].users > 0;
    if (atomic_load(lost) && used)
        return geul_fail(ctx, GEUL_ERROR_DEVICE,
                         "%s is lost since an earlier failure; free everything that uses it, "
                         "then it can be used again",
                         device->id);
    int error = ask_card(d);
    if (is_fatal(error) && !used) {
        reset_card(d);
        error = ask_card(d);
        if (is_fatal(error))
            return geul_fail(ctx, GEUL_ERROR_DEVICE,
                             "%s is lost since an earlier failure and does not come back: %s (CUDA error %d); "
                             "restart the program",
                             device->id, d->gpu->text(error), error);
    }
    if (!error)
        snprintf(device->name, sizeof device->name, "%s", d->card.name);
    return geul_cuda_check(ctx, device, error, "starting it");
}

static struct geul_device *cuda_open(struct geul_context *ctx, int i, int n_threads)
{
    (void)n_threads;
    const struct cuda_gpu *gpu = geul_cuda_gpu();
    struct survey s = look(gpu);
    if (i < 0 || i >= s.n) {
        geul_fail(ctx, GEUL_ERROR_DEVICE, "there is no NVIDIA card %d: %s", i, s.reason[0] ? s.reason : "it is gone");
        return NULL;
    }
    struct geul_device *device = geul_alloc(ctx, 1, sizeof *device);
    struct cuda_device *d = geul_alloc(ctx, 1, sizeof *d);
    if (!device || !d) {
        geul_free(ctx, d);
        geul_free(ctx, device);
        return NULL;
    }
    *d = (struct cuda_device){.gpu = gpu, .number = s.numbers[i], .kernels = geul_cuda_kernels};
    *device = (struct geul_device){
        .backend = &geul_backend_cuda, .alignment = 256, .max_buffer = SIZE_MAX, .name = "NVIDIA card", .state = d};
    snprintf(device->id, sizeof device->id, "cuda:%d", d->number);
    pthread_mutex_lock(&shared.lock);
    enum geul_status status = start_card(ctx, device);
    shared.cards[d->number].users += status == GEUL_OK;
    pthread_mutex_unlock(&shared.lock);
    if (status == GEUL_OK)
        return device;
    geul_free(ctx, d);
    geul_free(ctx, device);
    return NULL;
}

static void cuda_close(struct geul_context *ctx, struct geul_device *device)
{
    struct cuda_device *d = geul_cuda_device(device);
    atomic_bool *lost = lost_flag(device);
    pthread_mutex_lock(&shared.lock);
    if (--shared.cards[d->number].users == 0) {
        int error = d->gpu->use(d->number);
        error = error ? error : wait_for_card(d->gpu);
        /* At once, so that its memory is free for others. If that fails, whoever opens it next tries again. */
        if (atomic_load(lost) || is_fatal(error))
            reset_card(d);
        atomic_store(lost, false);
    }
    pthread_mutex_unlock(&shared.lock);
    geul_free(ctx, d);
    geul_free(ctx, device);
}

static void cuda_memory(struct geul_device *device, size_t *free_bytes, size_t *total_bytes)
{
    const struct cuda_device *d = geul_cuda_device(device);
    *free_bytes = *total_bytes = 0;
    if (!atomic_load(lost_flag(device)) && d->gpu->use(d->number) == 0 && d->gpu->memory(free_bytes, total_bytes))
        *free_bytes = *total_bytes = 0;
}

/* ----------------------------------------------------------------------------------- buffers -- */

static enum geul_status cuda_buffer_new(struct geul_context *ctx, struct geul_device *device, size_t size,
                                        struct geul_buffer *out)
{
    const struct cuda_gpu *gpu = geul_cuda_device(device)->gpu;
    void *base = NULL;
    enum geul_status status = geul_cuda_enter(ctx, device);
    if (status != GEUL_OK)
        return status;
    int error = gpu->allocate(&base, size ? size : 1);
    if (error == CUDA_NO_MEMORY) {
        size_t free_bytes, total_bytes;
        gpu->last_error();
        cuda_memory(device, &free_bytes, &total_bytes);
        return geul_fail(ctx, GEUL_ERROR_MEMORY,
                         "%s (%s): out of memory: %.1f MiB more could not be allocated, %.1f of %.1f MiB are free; put "
                         "less on it (fewer layers, a shorter context, smaller batches)",
                         device->name, device->id, (double)size / (1 << 20), (double)free_bytes / (1 << 20),
                         (double)total_bytes / (1 << 20));
    }
    status = geul_cuda_check(ctx, device, error, "allocating %zu bytes", size);
    if (status == GEUL_OK)
        *out = (struct geul_buffer){.device = device, .base = base, .size = size};
    return status;
}

static void cuda_buffer_free(struct geul_context *ctx, struct geul_buffer *buffer)
{
    (void)ctx;
    const struct cuda_device *d = geul_cuda_device(buffer->device);
    d->gpu->use(d->number);
    geul_cuda_begin_waiting();
    d->gpu->wait();
    d->gpu->release(buffer->base);
    geul_cuda_end_of_either();
    *buffer = (struct geul_buffer){0};
}

static void *cuda_host_alloc(struct geul_context *ctx, struct geul_device *device, size_t size)
{
    void *memory = NULL;
    if (geul_cuda_enter(ctx, device) != GEUL_OK)
        return NULL;
    int error = geul_cuda_device(device)->gpu->host_allocate(&memory, size ? size : 1);
    return geul_cuda_check(ctx, device, error, "pinning %zu bytes of the host's memory", size) == GEUL_OK ? memory
                                                                                                          : NULL;
}

static void cuda_host_free(struct geul_context *ctx, struct geul_device *device, void *memory)
{
    (void)ctx;
    const struct cuda_device *d = geul_cuda_device(device);
    d->gpu->use(d->number);
    if (memory)
        d->gpu->host_release(memory);
}

/* ------------------------------------------------------------------------------------ copies -- */

static enum geul_status copy_now(struct geul_context *ctx, struct geul_device *device, void *to, const void *from,
                                 size_t size, enum cuda_direction direction)
{
    const struct cuda_gpu *gpu = geul_cuda_device(device)->gpu;
    enum geul_status status = geul_cuda_enter(ctx, device);
    if (status != GEUL_OK || size == 0)
        return status;
    int error = wait_for_card(gpu);
    error = error ? error : gpu->copy(to, from, size, direction);
    /* What lies in ordinary memory has been taken over, but perhaps not arrived, and streams do not wait for it. */
    if (!error && direction == CUDA_UP)
        error = wait_for_card(gpu);
    return geul_cuda_check(ctx, device, error, "copying %zu bytes %s", size,
                           direction == CUDA_UP ? "to it" : "from it");
}

static enum geul_status cuda_upload(struct geul_context *ctx, struct geul_buffer *buffer, void *address,
                                    const void *src, size_t size)
{
    return copy_now(ctx, buffer->device, address, src, size, CUDA_UP);
}

static enum geul_status cuda_download(struct geul_context *ctx, const struct geul_buffer *buffer, const void *address,
                                      void *dst, size_t size)
{
    return copy_now(ctx, buffer->device, dst, address, size, CUDA_DOWN);
}

static enum geul_status copy_later(struct geul_context *ctx, struct geul_queue *queue, void *to, const void *from,
                                   size_t size, enum cuda_direction direction)
{
    enum geul_status status = geul_cuda_enter(ctx, queue->device);
    if (status != GEUL_OK || size == 0)
        return status;
    int error = geul_cuda_device(queue->device)
                    ->gpu->copy_async(to, from, size, direction, geul_cuda_queue(queue)->stream.handle);
    return geul_cuda_check(ctx, queue->device, error, "starting a copy of %zu bytes", size);
}

static enum geul_status cuda_upload_async(struct geul_context *ctx, struct geul_queue *queue,
                                          struct geul_buffer *buffer, void *address, const void *src, size_t size)
{
    (void)buffer;
    return copy_later(ctx, queue, address, src, size, CUDA_UP);
}

static enum geul_status cuda_download_async(struct geul_context *ctx, struct geul_queue *queue,
                                            const struct geul_buffer *buffer, const void *address, void *dst,
                                            size_t size)
{
    (void)buffer;
    return copy_later(ctx, queue, dst, address, size, CUDA_DOWN);
}

/* Lets the card of device read other's memory, where they are connected; otherwise CUDA copies by way of the host. */
static int connect(const struct cuda_device *device, const struct cuda_device *other)
{
    atomic_bool *reaches = &shared.cards[device->number].reaches[other->number];
    int can = 0, error = 0;
    if (atomic_load(reaches))
        return 0;
    error = device->gpu->can_reach(device->number, other->number, &can);
    if (!error && can)
        error = device->gpu->reach(other->number);
    if (error == CUDA_PEERS_ALREADY) {
        device->gpu->last_error();
        error = 0;
    }
    atomic_store(reaches, error == 0);
    return error;
}

static enum geul_status cuda_copy(struct geul_context *ctx, struct geul_queue *queue, struct geul_buffer *dst,
                                  void *dst_address, const struct geul_buffer *src, const void *src_address,
                                  size_t size, bool *done)
{
    *done = src->device->backend == &geul_backend_cuda;
    const struct cuda_device *to = geul_cuda_device(dst->device);
    if (!*done)
        return GEUL_OK;
    const struct cuda_device *from = geul_cuda_device(src->device);
    if (to->number == from->number)
        return copy_later(ctx, queue, dst_address, src_address, size, CUDA_WITHIN);
    enum geul_status status = geul_cuda_enter(ctx, src->device);
    if (status == GEUL_OK)
        status = geul_cuda_enter(ctx, dst->device);
    if (status != GEUL_OK || size == 0)
        return status;
    int error = connect(to, from);
    if (!error)
        error = to->gpu->copy_peer(dst_address, to->number, src_address, from->number, size,
                                   geul_cuda_queue(queue)->stream.handle);
    return geul_cuda_check(ctx, dst->device, error, "starting a copy of %zu bytes from %s", size, src->device->id);
}

/* ----------------------------------------------------------------------------------- support -- */

static bool cuda_has_op(enum geul_op op)
{
    return geul_cuda_op(op) != NULL;
}

static bool cuda_supports(const struct geul_device *device, const struct geul_tensor *node)
{
    const struct cuda_device *d = geul_cuda_device(device);
    const struct cuda_op *op = d->kernels->ops[node->op];
    return op && (!op->supports || op->supports(&d->card, node));
}

/* -------------------------------------------------------------------------- queues and events -- */

static void free_queue(struct geul_context *ctx, struct geul_queue *queue)
{
    const struct cuda_device *d = geul_cuda_device(queue->device);
    struct cuda_queue *q = queue->state;
    d->gpu->use(d->number);
    if (q->stream.handle)
        d->gpu->stream_wait(q->stream.handle);
    if (q->stream.detach) { /* cuBLAS, for one, waits for the card */
        geul_cuda_begin_waiting();
        q->stream.detach(&q->stream);
        geul_cuda_end_of_either();
    }
    for (int i = 0; i < CUDA_TICKETS; i++)
        if (q->tickets[i])
            d->gpu->event_free(q->tickets[i]);
    for (int i = 0; i < CUDA_PACE; i++)
        if (q->pace[i])
            d->gpu->event_free(q->pace[i]);
    if (q->stream.handle)
        d->gpu->stream_free(q->stream.handle);
    geul_free(ctx, q);
    geul_free(ctx, queue);
}

static struct geul_queue *cuda_queue_new(struct geul_context *ctx, struct geul_device *device,
                                         const struct geul_queue_options *options)
{
    const struct cuda_gpu *gpu = geul_cuda_device(device)->gpu;
    if (geul_cuda_enter(ctx, device) != GEUL_OK)
        return NULL;
    struct geul_queue *queue = geul_alloc(ctx, 1, sizeof *queue);
    struct cuda_queue *q = geul_alloc(ctx, 1, sizeof *q);
    if (!queue || !q) {
        geul_free(ctx, q);
        geul_free(ctx, queue);
        return NULL;
    }
    *queue = (struct geul_queue){.device = device, .exact = options && options->exact, .state = q};
    int error = gpu->stream_new(&q->stream.handle);
    for (int i = 0; i < CUDA_TICKETS && !error; i++)
        error = gpu->event_new(&q->tickets[i], false);
    for (int i = 0; i < CUDA_PACE && !error; i++)
        error = gpu->event_new(&q->pace[i], false);
    if (geul_cuda_check(ctx, device, error, "making a queue") == GEUL_OK)
        return queue;
    free_queue(ctx, queue);
    return NULL;
}

/* Tickets count from 1; 0 is that of no work. */
static enum geul_status cuda_event_record(struct geul_context *ctx, struct geul_queue *queue, uint64_t *ticket)
{
    struct cuda_queue *q = geul_cuda_queue(queue);
    enum geul_status status = geul_cuda_enter(ctx, queue->device);
    if (status != GEUL_OK)
        return status;
    void *event = q->tickets[(q->given + 1) % CUDA_TICKETS];
    int error = geul_cuda_device(queue->device)->gpu->event_record(event, q->stream.handle);
    status = geul_cuda_check(ctx, queue->device, error, "work that it was given");
    if (status == GEUL_OK)
        *ticket = ++q->given;
    return status;
}

static enum geul_status cuda_event_wait(struct geul_context *ctx, struct geul_queue *queue, uint64_t ticket)
{
    const struct cuda_queue *q = geul_cuda_queue(queue);
    enum geul_status status = geul_cuda_enter(ctx, queue->device);
    if (status != GEUL_OK || ticket == 0)
        return status;
    int error = geul_cuda_device(queue->device)->gpu->event_wait(q->tickets[ticket % CUDA_TICKETS]);
    return geul_cuda_check(ctx, queue->device, error,
                           "work that it was given (CUDA_LAUNCH_BLOCKING=1 in the environment names the kernel)");
}

static enum geul_status cuda_wait_on(struct geul_context *ctx, struct geul_queue *queue, struct geul_queue *other,
                                     uint64_t ticket, bool *done)
{
    *done = other->device->backend == &geul_backend_cuda;
    if (!*done || ticket == 0)
        return GEUL_OK;
    enum geul_status status = geul_cuda_enter(ctx, other->device);
    if (status == GEUL_OK)
        status = geul_cuda_enter(ctx, queue->device);
    if (status != GEUL_OK)
        return status;
    void *event = geul_cuda_queue(other)->tickets[ticket % CUDA_TICKETS];
    int error = geul_cuda_device(queue->device)->gpu->stream_after(geul_cuda_queue(queue)->stream.handle, event);
    return geul_cuda_check(ctx, queue->device, error, "waiting for %s", other->device->id);
}

const struct geul_backend geul_backend_cuda = {
    .name = "cuda",
    .count = cuda_count,
    .missing = cuda_missing,
    .open = cuda_open,
    .close = cuda_close,
    .memory = cuda_memory,
    .buffer_new = cuda_buffer_new,
    .buffer_free = cuda_buffer_free,
    .host_alloc = cuda_host_alloc,
    .host_free = cuda_host_free,
    .upload = cuda_upload,
    .download = cuda_download,
    .upload_async = cuda_upload_async,
    .download_async = cuda_download_async,
    .copy = cuda_copy,
    .has_op = cuda_has_op,
    .supports = cuda_supports,
    .queue_new = cuda_queue_new,
    .queue_free = free_queue,
    .prepare = geul_cuda_prepare,
    .run = geul_cuda_run,
    .release = geul_cuda_release,
    .working = geul_cuda_working,
    .event_record = cuda_event_record,
    .event_wait = cuda_event_wait,
    .wait_on = cuda_wait_on,
    .measure = geul_cuda_measure,
};
