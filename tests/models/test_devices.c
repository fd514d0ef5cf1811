/* Models on devices that can be lost, that run out of memory, whose buffers are small: what is promised of them above
 * the backends. */
#include "models/weights.h"
#include "tests/models/golden.h"
#include "tests/models/rig.h"

#include <sys/mman.h>

enum { PROMPT = 12, DECODED = 3 };

/* Everything that a program does with a model: loads it with layers from `first` on on the last device, evaluates a
 * prompt and a few tokens behind it, copies the sequence. The logits of the last token go to `last`. The status is that
 * of the first failure; a session whose device is lost goes on refusing. */
static enum geul_status use_model(struct geul_context *ctx, const struct golden *g, const char *path,
                                  struct geul_device *const *devices, int n, int first, float *last)
{
    const int32_t *ids = g->tokens.i32;
    const float *logits = NULL;
    geul_error_clear(ctx);
    struct geul_model *m = geul_model_load_on(ctx, path, NULL, devices, n, first);
    struct geul_session_options o = {.n_sequences = 2, .n_batch = 8, .cache_type = GEUL_TYPE_F16};
    struct geul_session *s = m ? geul_session_new(ctx, m, &o) : NULL;
    enum geul_status status = s ? GEUL_OK : geul_error_status(ctx);
    if (s)
        status = geul_session_append(s, 0, ids, PROMPT, NULL);
    if (status == GEUL_OK)
        status = geul_session_copy(s, 0, 1);
    for (int i = 0; i < DECODED && status == GEUL_OK; i++)
        status = geul_session_append(s, 1, ids + PROMPT + i, 1, &logits);
    if (status == GEUL_ERROR_DEVICE && s)
        for (int i = 0; i < 2; i++) /* another shape, and the same once more */
            CHECK(geul_session_append(s, 0, ids, 2, NULL) == GEUL_ERROR_DEVICE);
    if (status == GEUL_OK && last)
        memcpy(last, logits, (size_t)g->logits.shape[1] * sizeof *last);
    geul_session_free(s);
    geul_model_free(m);
    return status;
}

/* The devices of a case: all poisoned, the second layer poisoned, or two poisoned ones. */
struct placed {
    struct geul_device *devices[2];
    int n, first;
};
enum { N_PLACES = 3 };

static bool place(struct geul_context *ctx, int which, const struct poison_options *o, struct placed *p)
{
    static const struct {
        bool host, second;
    } places[N_PLACES] = {{false, false}, {true, true}, {false, true}};
    *p = (struct placed){.n = places[which].second ? 2 : 1, .first = places[which].second ? 1 : 0};
    p->devices[0] = places[which].host ? geul_device_open(ctx, GEUL_DEVICE_HOST, 1) : poison_open(ctx, o);
    if (places[which].second)
        p->devices[1] = poison_open(ctx, o);
    return CHECK(p->devices[0] && (p->n == 1 || p->devices[1]));
}

static void unplace(struct geul_context *ctx, const struct placed *p)
{
    for (int d = p->n - 1; d >= 0; d--)
        geul_device_close(ctx, p->devices[d]);
}

/* A golden with what the CPU computes for it. */
struct reference {
    struct golden g;
    char path[1024];
    float *logits;
    size_t bytes;
};

static bool reference_open(struct reference *r, const char *name, enum geul_type type)
{
    if (!golden_open(name, &r->g))
        return false;
    snprintf(r->path, sizeof r->path, "%s", golden_convert(&r->g, type));
    r->bytes = (size_t)r->g.logits.shape[1] * sizeof(float);
    r->logits = malloc(r->bytes);
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_device *cpu = geul_device_open(ctx, GEUL_DEVICE_HOST, 1);
    bool ok = cpu && use_model(ctx, &r->g, r->path, &cpu, 1, 0, r->logits) == GEUL_OK;
    geul_device_close(ctx, cpu);
    geul_context_free(ctx);
    return CHECK(ok);
}

static void reference_close(struct reference *r)
{
    free(r->logits);
    golden_close(&r->g);
}

/* Loses the last device at each of its calls in turn. The call that notices fails and names it, everything can be
 * freed, nothing is left, and a device that is opened then computes the model as if nothing had been. */
static void lose_at_every_call(const struct reference *r, int which, bool plain)
{
    struct test_allocator count = {.fail_at = 0};
    struct geul_context_options options = {.allocate = test_allocate, .allocate_user = &count};
    struct geul_context *ctx = geul_context_new(&options);
    float *logits = malloc(r->bytes);
    bool lost = true;
    long n = 0;
    while (lost && n < 5000) {
        struct placed p;
        n++;
        REQUIRE(place(ctx, which, &(struct poison_options){.plain = plain}, &p));
        poison_set(p.devices[p.n - 1], n, 0);
        enum geul_status status = use_model(ctx, &r->g, r->path, p.devices, p.n, p.first, logits);
        lost = poison_is_lost(p.devices[p.n - 1]);
        CHECK_MSG(status == (lost ? GEUL_ERROR_DEVICE : GEUL_OK), "call %ld: status %d, %s", n, status,
                  geul_error(ctx));
        CHECK_MSG(!lost || strstr(geul_error(ctx), p.devices[0]->name) || strstr(geul_error(ctx), p.devices[1]->name),
                  "call %ld: %s", n, geul_error(ctx));
        unplace(ctx, &p);
        if (n % 16)
            continue;
        REQUIRE(place(ctx, which, &(struct poison_options){.plain = plain}, &p));
        CHECK(use_model(ctx, &r->g, r->path, p.devices, p.n, p.first, logits) == GEUL_OK);
        CHECK(memcmp(logits, r->logits, r->bytes) == 0);
        unplace(ctx, &p);
    }
    CHECK(!lost && n > 30);
    printf("  devices %d, %s: lost at %ld calls\n", which, plain ? "plain" : "asynchronous", n - 1);
    free(logits);
    geul_context_free(ctx);
    CHECK_INT(count.outstanding, 0);
}

TEST(models_survive_the_loss_of_a_device)
{
    struct reference r;
    REQUIRE(reference_open(&r, "sequential", GEUL_TYPE_F16));
    for (int which = 0; which < N_PLACES; which++)
        for (int plain = 0; plain < 2; plain++)
            lose_at_every_call(&r, which, plain);
    reference_close(&r);
}

/* No memory for each of its buffers in turn is an ordinary error, and a session that has failed goes on once there is.
 */
TEST(models_survive_a_device_without_memory)
{
    struct reference r;
    REQUIRE(reference_open(&r, "sequential", GEUL_TYPE_F16));
    float *logits = malloc(r.bytes);
    for (int which = 0; which < N_PLACES; which++) {
        enum geul_status status = GEUL_ERROR_MEMORY;
        long n = 0;
        while (status != GEUL_OK && n < 200) {
            struct geul_context *ctx = geul_context_new(NULL);
            struct placed p;
            n++;
            REQUIRE(place(ctx, which, NULL, &p));
            poison_set(p.devices[p.n - 1], 0, n);
            status = use_model(ctx, &r.g, r.path, p.devices, p.n, p.first, logits);
            CHECK_MSG(status == GEUL_OK || (status == GEUL_ERROR_MEMORY && strstr(geul_error(ctx), "no memory")),
                      "devices %d, buffer %ld: status %d, %s", which, n, status, geul_error(ctx));
            unplace(ctx, &p);
            geul_context_free(ctx);
        }
        CHECK(n > 4 && memcmp(logits, r.logits, r.bytes) == 0);
    }
    struct rig rig;
    const struct rig_options all = {.poisoned_from = -1, .all_poisoned = true, .n_batch = 8, .cache = GEUL_TYPE_F16};
    REQUIRE(rig_open(&rig, r.path, all));
    REQUIRE(geul_session_append(rig.session, 0, r.g.tokens.i32, 1, NULL) == GEUL_OK);
    poison_set(rig.devices[0], 0, 1);
    enum geul_status status = geul_session_append(rig.session, 0, r.g.tokens.i32 + 1, PROMPT - 1, NULL);
    CHECK_INT(status, GEUL_ERROR_MEMORY);
    CHECK_INT(geul_session_length(rig.session, 0), 1);
    const float *last = NULL;
    REQUIRE(geul_session_append(rig.session, 0, r.g.tokens.i32 + 1, PROMPT - 1 + DECODED, &last) == GEUL_OK);
    CHECK(last && memcmp(last, r.logits, r.bytes) == 0);
    rig_close(&rig);
    free(logits);
    reference_close(&r);
}

/* Small buffers, wide alignment, no copies from device to device: the same bits. */
TEST(models_fit_into_small_buffers)
{
    static const struct poison_options kinds[] = {{.max_buffer = 40 << 10},
                                                  {.max_buffer = 48 << 10, .alignment = 256},
                                                  {.max_buffer = 40 << 10, .plain = true},
                                                  {.alignment = 4096, .no_copy = true}};
    struct reference r;
    REQUIRE(reference_open(&r, "sequential", GEUL_TYPE_F16));
    float *logits = malloc(r.bytes);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (int which = 0; which < N_PLACES; which++) {
            struct geul_context *ctx = geul_context_new(NULL);
            struct placed p;
            REQUIRE(place(ctx, which, &kinds[k], &p));
            enum geul_status status = use_model(ctx, &r.g, r.path, p.devices, p.n, p.first, logits);
            CHECK_MSG(status == GEUL_OK && memcmp(logits, r.logits, r.bytes) == 0, "kind %zu, devices %d: %s", k, which,
                      geul_error(ctx));
            unplace(ctx, &p);
            geul_context_free(ctx);
        }
    /* A cache tensor that no buffer holds: 2 sequences of 2^20 positions. */
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_device *device = poison_open(ctx, &kinds[0]);
    struct geul_model *m = geul_model_load_on(ctx, r.path, NULL, &device, 1, 0);
    REQUIRE(m);
    struct geul_session_options o = {.n_sequences = 2, .n_context = 1 << 12, .cache_type = GEUL_TYPE_F16};
    CHECK(!geul_session_new(ctx, m, &o) && geul_error_status(ctx) == GEUL_ERROR_MEMORY);
    CHECK_MSG(strstr(geul_error(ctx), "40960") && strstr(geul_error(ctx), device->name), "%s", geul_error(ctx));
    geul_model_free(m);
    geul_device_close(ctx, device);
    geul_context_free(ctx);
    free(logits);
    reference_close(&r);
}

/* Prompts and single tokens that alternate prepare nothing new after their first time; a batch is one upload. */
TEST(sessions_alternate_between_two_shapes)
{
    struct golden g;
    struct rig r;
    REQUIRE(golden_open("sequential", &g));
    REQUIRE(rig_open(&r, golden_convert(&g, GEUL_TYPE_F16),
                     (struct rig_options){.poisoned_from = -1, .all_poisoned = true, .n_sequences = 2, .n_batch = 16}));
    const float *logits;
    struct poison_counts before = {0}, after;
    for (int round = 0; round < 4; round++) {
        geul_session_truncate(r.session, 0, 0);
        REQUIRE(geul_session_append(r.session, 0, g.tokens.i32, PROMPT, &logits) == GEUL_OK);
        for (int i = 0; i < DECODED; i++)
            REQUIRE(geul_session_append(r.session, 0, g.tokens.i32 + PROMPT + i, 1, &logits) == GEUL_OK);
        if (round == 0)
            before = poison_counts(r.devices[0]);
    }
    after = poison_counts(r.devices[0]);
    CHECK_INT(before.prepared, 2);
    CHECK_INT(after.prepared - before.prepared, 0);
    CHECK_INT(after.buffers - before.buffers, 0);
    CHECK_INT(after.runs - before.runs, 3 * (1 + DECODED));
    CHECK_INT(after.uploads - before.uploads, 3 * (1 + DECODED));
    CHECK_INT(after.downloads - before.downloads, 3 * (1 + DECODED)); /* one row of logits each */
    before = after;
    REQUIRE(geul_session_copy(r.session, 0, 1) == GEUL_OK);
    after = poison_counts(r.devices[0]);
    CHECK_INT(after.uploads + after.downloads - before.uploads - before.downloads, 0);
    CHECK_INT(after.copies - before.copies, 2 * geul_model_get_shape(r.model)->n_layers);
    rig_close(&r);
    golden_close(&g);
}

/* A tensor of the file with bytes of a pattern, in memory whose pages can be discarded. */
static struct geul_gguf_tensor pattern(size_t bytes, uint32_t seed)
{
    uint8_t *data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t i = 0; data != MAP_FAILED && i < bytes; i++)
        data[i] = (uint8_t)((i * 2654435761u + seed) >> 13);
    return (struct geul_gguf_tensor){.name = "t", .data = data, .bytes = bytes};
}

/* Weights come in whole, packed into few buffers, through 64 MiB of host memory. */
TEST(weights_stream_through_little_memory)
{
    static const size_t sizes[] = {70 << 20, 13, (1 << 20) + 7, 40 << 20, 150 << 20, 5000};
    enum { N = sizeof sizes / sizeof *sizes };
    struct geul_context *ctx = geul_context_new(NULL);
    for (int plain = 0; plain < 2; plain++) {
        struct geul_device *device = poison_open(ctx, &(struct poison_options){.alignment = 256, .plain = plain});
        struct geul_device *other = poison_open(ctx, NULL);
        struct geul_buffer buffers[N], *at[N];
        void *address[N];
        int64_t n_buffers = 0;
        struct geul_weights_upload *u = geul_weights_upload_new(ctx, N, buffers, &n_buffers);
        REQUIRE(device && other && u);
        for (int i = 0; i < N; i++)
            geul_weights_upload_expect(u, i == 2 ? other : device, sizes[i]);
        for (int i = 0; i < N; i++) {
            struct geul_gguf_tensor t = pattern(sizes[i], (uint32_t)i);
            REQUIRE(geul_weights_upload_put(u, &t, &at[i], &address[i]) == GEUL_OK);
            munmap((void *)(uintptr_t)t.data, sizes[i]);
        }
        REQUIRE(geul_weights_upload_finish(u) == GEUL_OK);
        geul_weights_upload_free(u);
        CHECK_INT(n_buffers, 3); /* 110 and 150 MiB, and the other device's */
        CHECK(buffers[0].size == (70 << 20) + 256 + (40 << 20) && buffers[2].size == (150 << 20) + 5120);
        CHECK_INT(poison_counts(device).host_most + poison_counts(other).host_most,
                  plain ? 2 * ((1 << 20) + 128) : 64 << 20);
        uint8_t *got = malloc(150 << 20);
        for (int i = 0; i < N; i++) {
            struct geul_gguf_tensor t = pattern(sizes[i], (uint32_t)i);
            CHECK((uintptr_t)address[i] % at[i]->device->alignment == 0);
            REQUIRE(device->backend->download(ctx, at[i], address[i], got, sizes[i]) == GEUL_OK);
            CHECK_MSG(memcmp(got, t.data, sizes[i]) == 0, "tensor %d", i);
            munmap((void *)(uintptr_t)t.data, sizes[i]);
        }
        free(got);
        for (int64_t i = 0; i < n_buffers; i++)
            buffers[i].device->backend->buffer_free(ctx, &buffers[i]);
        geul_device_close(ctx, other);
        geul_device_close(ctx, device);
    }
    geul_context_free(ctx);
}
