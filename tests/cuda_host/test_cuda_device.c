/* test_cuda_device.c: cards, memory, copies, queues and events of the CUDA backend, over the CPU's stand-in for CUDA.
 */
#include "tests/cuda_host/cuda_bed.h"

#include <pthread.h>

static const struct geul_backend *const cuda = &geul_backend_cuda;

/* A status, with the message where it is not the wanted one. */
static bool is(enum geul_status status, enum geul_status wanted, const struct geul_context *ctx)
{
    return CHECK_MSG(status == wanted, "status %d, expected %d: %s", (int)status, (int)wanted, geul_error(ctx));
}

static bool says(const char *text, const char *part)
{
    return CHECK_MSG(strstr(text, part) != NULL, "\"%s\" does not say \"%s\"", text, part);
}

/* ------------------------------------------------------------------------------------- cards -- */

TEST(cuda_cards_have_names_and_abilities)
{
    struct geul_context *ctx = geul_context_new(NULL);
    char text[400] = "?";
    host_gpu_machine("sm_75,sm_90,sm_120");
    CHECK_INT(cuda->count(), 3);
    cuda->missing(text, sizeof text);
    CHECK_STR(text, "");
    static const char *const ids[] = {"cuda:0", "cuda:1", "cuda:2"}, *const names[] = {"CPU as sm_75", "CPU as sm_90",
                                                                                       "CPU as sm_120"};
    for (int i = 0; i < 3; i++) {
        struct geul_device *d = cuda->open(ctx, i, 0);
        REQUIRE(d);
        CHECK_STR(d->id, ids[i]);
        CHECK_STR(d->name, names[i]);
        CHECK(d->backend == cuda && d->alignment == 256 && d->max_buffer == SIZE_MAX && d->n_threads == 0);
        const struct cuda_card *card = &geul_cuda_device(d)->card;
        CHECK_INT(card->bfloat_products, i > 0);
        CHECK_INT(card->async_copies, i > 0);
        CHECK_INT(card->major, i == 0 ? 7 : i == 1 ? 9 : 12);
        size_t free_bytes, total_bytes;
        cuda->memory(d, &free_bytes, &total_bytes);
        CHECK(total_bytes == 256 << 20 && free_bytes == total_bytes);
        cuda->close(ctx, d);
    }
    CHECK(!cuda->open(ctx, 3, 0));
    says(geul_error(ctx), "there is no NVIDIA card 3");
    geul_context_free(ctx);
    bed_is_clean();
}

TEST(cuda_says_why_there_is_no_card)
{
    static const struct {
        const char *cards;
        int version, version_error, count_error, n;
        const char *reason;
    } cases[] = {
        {"sm_90", 0, 0, 0, 0, "no NVIDIA driver is installed; 580 or later is needed"},
        {"sm_90", 0, CUDA_OLD_DRIVER, 0, 0, "no NVIDIA driver is installed; 580 or later is needed"},
        {"sm_90", 12040, 0, CUDA_OLD_DRIVER, 0,
         "the NVIDIA driver is too old: it serves CUDA 12.4; install driver 580 or later"},
        {"sm_90", 0, 999, 0, 0, "the NVIDIA driver does not answer: unknown error (CUDA error 999)"},
        {"", 13000, 0, 0, 0, "the NVIDIA driver finds no card"},
        {"sm_90", 13000, 0, 999, 0, "CUDA does not start: unknown error (CUDA error 999)"},
        {"sm_90", 13010, 0, 803, 0, "the machine has to be restarted"},
        {"sm_61", 13000, 0, 0, 0, "compute capability 6.1, and 7.5 (GTX 16, RTX 20) is the least"},
        {"sm_61,sm_90", 13000, 0, 0, 1, "card 0 is too old for CUDA 13"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct geul_context *ctx = geul_context_new(NULL);
        char text[400] = "";
        host_gpu_machine(cases[i].cards);
        host_gpu_driver(cases[i].version, cases[i].count_error);
        for (int ask = 0; ask < 3; ask++) {
            host_gpu_fail(HOST_GPU_driver_version, cases[i].version_error ? 1 : 0, cases[i].version_error);
            if (ask == 0) {
                CHECK_INT(cuda->count(), cases[i].n);
            } else if (ask == 1) {
                cuda->missing(text, sizeof text);
                says(text, cases[i].reason);
            } else {
                struct geul_device *d = cuda->open(ctx, cases[i].n, 0);
                CHECK(!d);
                is(geul_error_status(ctx), GEUL_ERROR_DEVICE, ctx);
                says(geul_error(ctx), cases[i].reason);
            }
        }
        geul_context_free(ctx);
    }
    /* The number of a card is CUDA's, also when one before it is left out. */
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_device *d = cuda->open(ctx, 0, 0);
    REQUIRE(d);
    CHECK_STR(d->id, "cuda:1");
    cuda->close(ctx, d);
    geul_context_free(ctx);
}

/* ----------------------------------------------------------------------------------- buffers -- */

TEST(cuda_memory_that_is_short_is_told)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_device *d = bed_device(ctx, "small");
    REQUIRE(d);
    struct geul_buffer all, more;
    is(cuda->buffer_new(ctx, d, 1 << 20, &all), GEUL_OK, ctx);
    is(cuda->buffer_new(ctx, d, 3 << 20, &more), GEUL_ERROR_MEMORY, ctx);
    says(geul_error(ctx),
         "CPU as small (cuda:0): out of memory: 3.0 MiB more could not be allocated, 0.0 of 1.0 MiB are "
         "free; put less on it");
    geul_error_clear(ctx);
    cuda->buffer_free(ctx, &all);
    is(cuda->buffer_new(ctx, d, 0, &all), GEUL_OK, ctx);
    CHECK(all.base && !all.host && all.device == d);
    cuda->buffer_free(ctx, &all);
    CHECK(!all.base);
    cuda->close(ctx, d);
    geul_context_free(ctx);
    bed_is_clean();
}

/* ------------------------------------------------------------------------------------ copies -- */

enum { BYTES = 1000 };

/* Two buffers of a device, two queues, and pinned memory. */
struct bench {
    struct geul_context *ctx;
    struct geul_device *device;
    struct geul_buffer a, b;
    struct geul_queue *one, *two;
    uint8_t *pinned;
};

static bool set_up(struct bench *s, const char *cards)
{
    s->ctx = geul_context_new(NULL);
    s->device = bed_device(s->ctx, cards);
    if (!CHECK(s->device))
        return false;
    s->one = cuda->queue_new(s->ctx, s->device, NULL);
    s->two = cuda->queue_new(s->ctx, s->device, NULL);
    s->pinned = cuda->host_alloc(s->ctx, s->device, BYTES);
    bool ok = CHECK(s->one && s->two && s->pinned && (uintptr_t)s->pinned % 64 == 0);
    ok = is(cuda->buffer_new(s->ctx, s->device, BYTES, &s->a), GEUL_OK, s->ctx) && ok;
    return is(cuda->buffer_new(s->ctx, s->device, BYTES, &s->b), GEUL_OK, s->ctx) && ok &&
           CHECK((uintptr_t)s->a.base % 256 == 0);
}

static void tear_down(struct bench *s)
{
    cuda->buffer_free(s->ctx, &s->a);
    cuda->buffer_free(s->ctx, &s->b);
    cuda->queue_free(s->ctx, s->one);
    cuda->queue_free(s->ctx, s->two);
    cuda->host_free(s->ctx, s->device, s->pinned);
    cuda->host_free(s->ctx, s->device, NULL);
    cuda->close(s->ctx, s->device);
    geul_context_free(s->ctx);
    bed_is_clean();
}

TEST(cuda_copies_run_in_the_order_of_their_queue)
{
    struct bench s;
    if (!set_up(&s, "sm_90"))
        return;
    uint64_t first = 0, second = 0;
    bool done = false;
    uint8_t got[BYTES] = {0};
    memset(s.pinned, 1, BYTES);
    is(cuda->upload_async(s.ctx, s.one, &s.a, s.a.base, s.pinned, BYTES), GEUL_OK, s.ctx);
    memset(s.pinned, 2, BYTES); /* too early: the copy has not been made */
    is(cuda->copy(s.ctx, s.one, &s.b, s.b.base, &s.a, s.a.base, BYTES, &done), GEUL_OK, s.ctx);
    CHECK(done);
    is(cuda->event_record(s.ctx, s.one, &first), GEUL_OK, s.ctx);
    is(cuda->event_wait(s.ctx, s.one, first), GEUL_OK, s.ctx);
    is(cuda->download(s.ctx, &s.b, s.b.base, got, BYTES), GEUL_OK, s.ctx);
    CHECK(got[0] == 2 && got[BYTES - 1] == 2);
    is(cuda->download_async(s.ctx, s.one, &s.b, (uint8_t *)s.b.base + 10, s.pinned, 1), GEUL_OK, s.ctx);
    is(cuda->event_record(s.ctx, s.one, &second), GEUL_OK, s.ctx);
    CHECK(second > first && first > 0);
    is(cuda->event_wait(s.ctx, s.one, second), GEUL_OK, s.ctx);
    is(cuda->event_wait(s.ctx, s.one, 0), GEUL_OK, s.ctx);
    CHECK_INT(s.pinned[0], 2);
    tear_down(&s);
}

TEST(cuda_upload_and_download_wait_for_all_work)
{
    struct bench s;
    if (!set_up(&s, "sm_90"))
        return;
    uint8_t ordinary[BYTES], got[BYTES] = {0};
    memset(s.pinned, 1, BYTES);
    memset(ordinary, 3, BYTES);
    is(cuda->upload_async(s.ctx, s.one, &s.a, s.a.base, s.pinned, BYTES), GEUL_OK, s.ctx);
    is(cuda->upload(s.ctx, &s.a, s.a.base, ordinary, BYTES / 2), GEUL_OK, s.ctx);
    memset(ordinary, 4, BYTES); /* it has arrived */
    bool done;
    is(cuda->copy(s.ctx, s.two, &s.b, s.b.base, &s.a, s.a.base, BYTES, &done), GEUL_OK, s.ctx);
    is(cuda->download(s.ctx, &s.b, s.b.base, got, BYTES), GEUL_OK, s.ctx);
    CHECK(got[0] == 3 && got[BYTES / 2 - 1] == 3 && got[BYTES / 2] == 1);
    is(cuda->upload(s.ctx, &s.a, s.a.base, ordinary, 0), GEUL_OK, s.ctx);
    tear_down(&s);
}

TEST(cuda_queues_wait_for_each_other_where_told)
{
    for (int waits = 0; waits < 2; waits++) {
        struct bench s;
        if (!set_up(&s, "sm_90"))
            return;
        uint64_t ticket = 0;
        bool done = false;
        memset(s.pinned, 7, BYTES);
        is(cuda->upload_async(s.ctx, s.one, &s.a, s.a.base, s.pinned, BYTES), GEUL_OK, s.ctx);
        /* More tickets than there are events: an old one is then done when a later one is. */
        for (int i = 0; i < CUDA_TICKETS + 2; i++) {
            uint64_t next = 0;
            is(cuda->event_record(s.ctx, s.one, &next), GEUL_OK, s.ctx);
            ticket = ticket ? ticket : next;
        }
        if (waits)
            is(cuda->wait_on(s.ctx, s.two, s.one, ticket, &done), GEUL_OK, s.ctx);
        CHECK_INT(done, waits);
        is(cuda->copy(s.ctx, s.two, &s.b, s.b.base, &s.a, s.a.base, BYTES, &done), GEUL_OK, s.ctx);
        is(cuda->event_record(s.ctx, s.two, &ticket), GEUL_OK, s.ctx);
        is(cuda->event_wait(s.ctx, s.two, ticket), GEUL_OK, s.ctx);
        uint8_t got = 0;
        is(cuda->download(s.ctx, &s.b, s.b.base, &got, 1), GEUL_OK, s.ctx);
        CHECK_INT(got, waits ? 7 : 0xff); /* what happens without is a race: the stand-in lets it be lost */
        tear_down(&s);
    }
}

TEST(cuda_copies_between_cards_and_not_to_others)
{
    struct bench s;
    if (!set_up(&s, "sm_90,sm_86"))
        return;
    struct geul_device *other = cuda->open(s.ctx, 1, 0), *cpu = geul_device_open(s.ctx, GEUL_DEVICE_HOST, 1);
    REQUIRE(other && cpu);
    struct geul_queue *queue = cuda->queue_new(s.ctx, other, NULL);
    struct geul_buffer there, host;
    is(cuda->buffer_new(s.ctx, other, BYTES, &there), GEUL_OK, s.ctx);
    is(cpu->backend->buffer_new(s.ctx, cpu, BYTES, &host), GEUL_OK, s.ctx);
    uint64_t ticket = 0;
    bool done = false;
    memset(s.pinned, 9, BYTES);
    for (int i = 0; i < 2; i++) { /* cards are connected once */
        is(cuda->upload_async(s.ctx, s.one, &s.a, s.a.base, s.pinned, BYTES), GEUL_OK, s.ctx);
        is(cuda->event_record(s.ctx, s.one, &ticket), GEUL_OK, s.ctx);
        is(cuda->wait_on(s.ctx, queue, s.one, ticket, &done), GEUL_OK, s.ctx);
        CHECK(done);
        is(cuda->copy(s.ctx, queue, &there, there.base, &s.a, s.a.base, BYTES, &done), GEUL_OK, s.ctx);
        CHECK(done);
    }
    CHECK_INT(host_gpu_calls(HOST_GPU_reach), 1);
    uint8_t got[BYTES] = {0};
    is(cuda->download(s.ctx, &there, there.base, got, BYTES), GEUL_OK, s.ctx);
    CHECK(got[0] == 9 && got[BYTES - 1] == 9);
    is(cuda->copy(s.ctx, queue, &there, there.base, &host, host.base, BYTES, &done), GEUL_OK, s.ctx);
    CHECK(!done);
    struct geul_queue *on_cpu = cpu->backend->queue_new(s.ctx, cpu, NULL);
    is(cuda->wait_on(s.ctx, queue, on_cpu, 0, &done), GEUL_OK, s.ctx);
    CHECK(!done);
    cpu->backend->queue_free(s.ctx, on_cpu);
    cpu->backend->buffer_free(s.ctx, &host);
    geul_device_close(s.ctx, cpu);
    cuda->buffer_free(s.ctx, &there);
    cuda->queue_free(s.ctx, queue);
    cuda->close(s.ctx, other);
    tear_down(&s);
}

static void detach(struct cuda_stream *stream)
{
    CHECK(stream->handle && stream->attached);
    ++*(int *)stream->attached;
}

TEST(cuda_queue_gives_up_what_is_attached_to_it)
{
    struct bench s;
    int detached = 0;
    if (!set_up(&s, "sm_90"))
        return;
    struct cuda_stream *stream = &geul_cuda_queue(s.one)->stream;
    stream->attached = &detached;
    stream->detach = detach;
    tear_down(&s);
    CHECK_INT(detached, 1);
}

/* -------------------------------------------------------------------------------------- loss -- */

TEST(cuda_card_that_is_lost_is_told_by_every_call)
{
    struct bench s;
    if (!set_up(&s, "sm_90"))
        return;
    struct geul_device *again = cuda->open(s.ctx, 0, 0); /* another user of the same card */
    REQUIRE(again);
    uint64_t ticket = 0;
    bool done;
    uint8_t byte = 0;
    struct geul_buffer buffer;
    struct geul_prepared *p = NULL;
    struct geul_device_ceilings ceilings;
    host_gpu_fail(HOST_GPU_wait, 1, 700);
    is(cuda->upload(s.ctx, &s.a, s.a.base, &byte, 1), GEUL_ERROR_DEVICE, s.ctx);
    says(geul_error(s.ctx),
         "CPU as sm_90 (cuda:0) is lost, copying 1 bytes to it failed: an illegal memory access was "
         "encountered (CUDA error 700); what was on it is gone: free what uses it, then load the model");
    for (int call = 0; call < 14; call++) {
        geul_error_clear(s.ctx);
        enum geul_status status = GEUL_OK;
        switch (call) {
        case 0:
            status = cuda->upload(s.ctx, &s.a, s.a.base, &byte, 1);
            break;
        case 1:
            status = cuda->download(s.ctx, &s.a, s.a.base, &byte, 1);
            break;
        case 2:
            status = cuda->upload_async(s.ctx, s.one, &s.a, s.a.base, s.pinned, 1);
            break;
        case 3:
            status = cuda->download_async(s.ctx, s.one, &s.a, s.a.base, s.pinned, 1);
            break;
        case 4:
            status = cuda->copy(s.ctx, s.one, &s.b, s.b.base, &s.a, s.a.base, 1, &done);
            break;
        case 5:
            status = cuda->buffer_new(s.ctx, s.device, 1, &buffer);
            break;
        case 6:
            status = cuda->event_record(s.ctx, s.one, &ticket);
            break;
        case 7:
            status = cuda->event_wait(s.ctx, s.one, 1);
            break;
        case 8:
            status = cuda->wait_on(s.ctx, s.one, s.two, 1, &done);
            break;
        case 9:
            status = cuda->prepare(s.ctx, s.one, NULL, 0, &p);
            break;
        case 10:
            status = cuda->queue_new(s.ctx, s.device, NULL) ? GEUL_OK : geul_error_status(s.ctx);
            break;
        case 11:
            status = cuda->host_alloc(s.ctx, s.device, 1) ? GEUL_OK : geul_error_status(s.ctx);
            break;
        case 12:
            status = cuda->measure(s.ctx, s.device, &ceilings);
            break;
        default:
            status = cuda->buffer_new(s.ctx, again, 1, &buffer);
            break;
        }
        CHECK_MSG(status == GEUL_ERROR_DEVICE && strstr(geul_error(s.ctx), "(cuda:0) is lost"), "call %d: %d, %s", call,
                  (int)status, geul_error(s.ctx));
    }
    /* Nobody opens it while it is used; afterwards it is as new. */
    geul_error_clear(s.ctx);
    CHECK(!cuda->open(s.ctx, 0, 0));
    says(geul_error(s.ctx), "cuda:0 is lost since an earlier failure; free everything that uses it");
    cuda->close(s.ctx, again);
    tear_down(&s);
    CHECK_INT(host_gpu_calls(HOST_GPU_reset), 1);
    s.ctx = geul_context_new(NULL);
    struct geul_device *d = cuda->open(s.ctx, 0, 0);
    REQUIRE(d);
    is(cuda->buffer_new(s.ctx, d, BYTES, &buffer), GEUL_OK, s.ctx);
    is(cuda->upload(s.ctx, &buffer, buffer.base, &byte, 1), GEUL_OK, s.ctx);
    cuda->buffer_free(s.ctx, &buffer);
    cuda->close(s.ctx, d);
    geul_context_free(s.ctx);
    bed_is_clean();
}

TEST(cuda_card_that_does_not_come_back_is_told)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_device *d = bed_device(ctx, "sm_90");
    struct geul_buffer buffer;
    REQUIRE(d);
    host_gpu_fail(HOST_GPU_allocate, 1, 719);
    is(cuda->buffer_new(ctx, d, 1, &buffer), GEUL_ERROR_DEVICE, ctx);
    host_gpu_fail(HOST_GPU_reset, -2, 719); /* the next two */
    cuda->close(ctx, d);
    geul_error_clear(ctx);
    CHECK(!cuda->open(ctx, 0, 0));
    is(geul_error_status(ctx), GEUL_ERROR_DEVICE, ctx);
    says(geul_error(ctx), "cuda:0 is lost since an earlier failure and does not come back: unspecified launch failure "
                          "(CUDA error 719); restart the program");
    geul_error_clear(ctx);
    d = cuda->open(ctx, 0, 0);
    CHECK_MSG(d != NULL, "%s", geul_error(ctx));
    cuda->close(ctx, d);
    geul_context_free(ctx);
    bed_is_clean();
}

TEST(cuda_card_that_is_lost_leaves_the_others)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_device *first = bed_device(ctx, "sm_90,sm_90"), *second = cuda->open(ctx, 1, 0);
    REQUIRE(first && second);
    struct geul_buffer buffer;
    host_gpu_fail(HOST_GPU_allocate, 1, 719);
    is(cuda->buffer_new(ctx, first, 1, &buffer), GEUL_ERROR_DEVICE, ctx);
    geul_error_clear(ctx);
    is(cuda->buffer_new(ctx, second, 1, &buffer), GEUL_OK, ctx);
    cuda->close(ctx, first); /* resets its own card alone */
    uint8_t byte = 5;
    is(cuda->upload(ctx, &buffer, buffer.base, &byte, 1), GEUL_OK, ctx);
    cuda->buffer_free(ctx, &buffer);
    cuda->close(ctx, second);
    geul_context_free(ctx);
    bed_is_clean();
}

/* ----------------------------------------------------------------------------------- threads -- */

/* A thread with a queue of its own on one of the cards. */
struct user {
    struct geul_device *device;
    int rounds;
    bool failed;
};

static void *use_queue(void *argument)
{
    struct user *u = argument;
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_queue *queue = cuda->queue_new(ctx, u->device, NULL);
    struct geul_buffer a, b;
    uint8_t *pinned = cuda->host_alloc(ctx, u->device, BYTES), got;
    bool ok = queue && pinned && cuda->buffer_new(ctx, u->device, BYTES, &a) == GEUL_OK &&
              cuda->buffer_new(ctx, u->device, BYTES, &b) == GEUL_OK;
    for (int i = 0; ok && i < u->rounds; i++) {
        uint64_t ticket;
        bool done;
        memset(pinned, i & 0x7f, BYTES);
        ok = cuda->upload_async(ctx, queue, &a, a.base, pinned, BYTES) == GEUL_OK &&
             cuda->copy(ctx, queue, &b, b.base, &a, a.base, BYTES, &done) == GEUL_OK &&
             cuda->event_record(ctx, queue, &ticket) == GEUL_OK && cuda->event_wait(ctx, queue, ticket) == GEUL_OK &&
             cuda->download(ctx, &b, (uint8_t *)b.base + BYTES - 1, &got, 1) == GEUL_OK && got == (i & 0x7f);
    }
    u->failed = !ok;
    cuda->buffer_free(ctx, &a);
    cuda->buffer_free(ctx, &b);
    cuda->host_free(ctx, u->device, pinned);
    cuda->queue_free(ctx, queue);
    geul_context_free(ctx);
    return NULL;
}

TEST(cuda_queues_are_used_by_different_threads)
{
    enum { USERS = 4, ROUNDS = 200 };
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_device *first = bed_device(ctx, "sm_90,sm_86"), *second = cuda->open(ctx, 1, 0);
    REQUIRE(first && second);
    struct user users[USERS];
    pthread_t threads[USERS];
    for (int i = 0; i < USERS; i++) {
        users[i] = (struct user){i % 2 ? second : first, ROUNDS, false};
        REQUIRE(pthread_create(&threads[i], NULL, use_queue, &users[i]) == 0);
    }
    for (int i = 0; i < USERS; i++) {
        pthread_join(threads[i], NULL);
        CHECK_MSG(!users[i].failed, "thread %d", i);
    }
    cuda->close(ctx, first);
    cuda->close(ctx, second);
    geul_context_free(ctx);
    bed_is_clean();
}

/* ---------------------------------------------------------------------------------- ceilings -- */

TEST(cuda_ceilings_are_measured)
{
    static const char *const cards[] = {"sm_75", "sm_90"};
    for (int i = 0; i < 2; i++) {
        struct geul_context *ctx = geul_context_new(NULL);
        host_gpu_machine(cards[i]);
        struct geul_device *d = cuda->open(ctx, 0, 0);
        REQUIRE(d);
        struct geul_device_ceilings c;
        is(cuda->measure(ctx, d, &c), GEUL_OK, ctx);
        CHECK(c.read_bytes_per_s > 0 && c.f32_macs_per_s > 0 && c.int8_macs_per_s > 0);
        CHECK_INT(c.bf16_macs_per_s > 0, i == 1);
        cuda->close(ctx, d);
        geul_context_free(ctx);
        bed_is_clean();
    }
}
