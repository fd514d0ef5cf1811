/* test_fit.c: what a model takes of its devices, planned and real, and devices by name. */
#include "models/fit.h"
#include "models/session.h"
#include "tests/harness.h"
#include "tests/poison.h"

enum { CONTEXT = 96, SEQUENCES = 2, BATCH = 24, TOKENS = 30 };

static const struct geul_session_options planned = {
    .n_context = CONTEXT, .n_sequences = SEQUENCES, .n_batch = BATCH, .cache_type = GEUL_TYPE_F16};

/* The CPU and one or two poisoned cards with so much memory. */
struct bed {
    struct geul_context *ctx;
    struct geul_devices devices;
};

static bool open_bed(struct bed *b, int n_cards, size_t memory, size_t alignment)
{
    const struct poison_options o = {.memory = memory, .alignment = alignment};
    *b = (struct bed){.ctx = geul_context_new(NULL), .devices = {.n = 1 + n_cards}};
    b->devices.at[0] = geul_device_open(b->ctx, GEUL_DEVICE_HOST, 1);
    for (int d = 1; d <= n_cards; d++)
        b->devices.at[d] = poison_open(b->ctx, &o);
    bool ok = b->devices.at[0] != NULL;
    for (int d = 1; d <= n_cards; d++)
        ok = ok && b->devices.at[d];
    return CHECK(ok);
}

static void close_bed(struct bed *b)
{
    geul_devices_close(b->ctx, &b->devices);
    geul_context_free(b->ctx);
}

static enum geul_status plan(struct bed *b, const struct geul_model_options *o, struct geul_fit *fit)
{
    struct geul_gguf *g = geul_gguf_open(b->ctx, test_mini_model());
    geul_error_clear(b->ctx);
    enum geul_status status = g ? geul_fit_plan(b->ctx, g, &b->devices, o, fit) : GEUL_ERROR_FORMAT;
    geul_gguf_close(g);
    return status;
}

static struct geul_model *load(struct bed *b, const struct geul_model_options *o)
{
    geul_error_clear(b->ctx);
    return geul_model_load_on(b->ctx, test_mini_model(), o, b->devices.at, b->devices.n, GEUL_LAYERS_BY_OPTIONS);
}

static size_t bytes_of(const struct geul_fit_device *f)
{
    return f->weights + f->cache + f->working;
}

/* Evaluates the largest batch with all logits, and one token of each sequence; the last logits go to last, room for
 * n_vocab. */
static bool use(struct bed *b, const struct geul_model *m, float *last)
{
    struct geul_session *s = geul_session_new(b->ctx, m, &planned);
    struct geul_batch_item items[BATCH];
    int32_t ids[TOKENS];
    const float *logits = NULL;
    for (int i = 0; i < BATCH; i++)
        items[i] = (struct geul_batch_item){.token = 10 + 7 * i, .seq = i % SEQUENCES, .want_logits = true};
    for (int i = 0; i < TOKENS; i++)
        ids[i] = 3 + 11 * i;
    bool ok = s && geul_session_eval(s, items, BATCH, NULL, NULL) == GEUL_OK &&
              geul_session_eval(s, items, SEQUENCES, NULL, NULL) == GEUL_OK &&
              geul_session_append(s, 1, ids, TOKENS, &logits) == GEUL_OK;
    if (ok)
        memcpy(last, logits, (size_t)m->neox.shape.n_vocab * sizeof *last);
    CHECK_MSG(ok, "%s", geul_error(b->ctx));
    geul_session_free(s);
    return ok;
}

TEST(fit_counts_what_is_allocated)
{
    enum { VOCAB = 4032 };
    static float first[VOCAB], other[VOCAB];
    const size_t alignments[] = {64, 4096};
    for (int a = 0; a < 2; a++)
        for (int n = GEUL_LAYERS_NONE; n <= 7; n++) { /* 6 layers and the output */
            struct bed b;
            struct geul_fit fit;
            struct geul_model_options o = {.n_gpu_layers = n, .session = &planned};
            REQUIRE(open_bed(&b, 1, (size_t)64 << 20, alignments[a]));
            REQUIRE(plan(&b, &o, &fit) == GEUL_OK);
            CHECK(fit.fits && fit.shape.n_vocab == VOCAB);
            CHECK_INT(fit.placement.n, n == GEUL_LAYERS_NONE ? 0 : n <= 0 ? 7 : n);
            struct geul_model *m = load(&b, &o);
            REQUIRE(m);
            CHECK_INT(poison_counts(b.devices.at[1]).bytes, fit.at[1].weights);
            struct geul_session *s = geul_session_new(b.ctx, m, &planned);
            CHECK_INT(poison_counts(b.devices.at[1]).bytes, fit.at[1].weights + fit.at[1].cache);
            struct geul_batch_item items[BATCH];
            for (int i = 0; i < BATCH; i++)
                items[i] = (struct geul_batch_item){.token = i, .seq = i % SEQUENCES, .want_logits = true};
            CHECK(s && geul_session_eval(s, items, BATCH, NULL, NULL) == GEUL_OK &&
                  geul_session_eval(s, items, SEQUENCES, NULL, NULL) == GEUL_OK);
            CHECK_MSG(poison_counts(b.devices.at[1]).bytes == bytes_of(&fit.at[1]), "%d layers: %zu bytes, planned %zu",
                      n, poison_counts(b.devices.at[1]).bytes, bytes_of(&fit.at[1]));
            geul_session_free(s);
            CHECK(use(&b, m, n == GEUL_LAYERS_NONE ? first : other));
            CHECK_MSG(n == GEUL_LAYERS_NONE || memcmp(first, other, sizeof first) == 0, "%d layers: other logits", n);
            geul_model_free(m);
            geul_fit_free(b.ctx, &fit);
            close_bed(&b);
        }
}

/* What is asked for fits to the byte; a byte less is refused with what would do, all of which does. */
TEST(fit_refuses_a_card_that_is_a_byte_too_small)
{
    struct bed b;
    struct geul_fit fit;
    struct geul_model_options o = {.n_gpu_layers = GEUL_LAYERS_ALL, .session = &planned};
    REQUIRE(open_bed(&b, 1, (size_t)64 << 20, 0));
    REQUIRE(plan(&b, &o, &fit) == GEUL_OK);
    size_t need = bytes_of(&fit.at[1]);
    geul_fit_free(b.ctx, &fit);
    close_bed(&b);
    for (int less = 0; less < 2; less++) {
        REQUIRE(open_bed(&b, 1, need - (size_t)less, 0));
        REQUIRE(plan(&b, &o, &fit) == GEUL_OK);
        CHECK_INT(fit.fits, !less);
        struct geul_model *m = load(&b, &o);
        CHECK((m != NULL) == !less);
        static float logits[4032];
        if (m)
            CHECK(use(&b, m, logits));
        geul_model_free(m);
        if (less) {
            CHECK_INT(geul_error_status(b.ctx), GEUL_ERROR_MEMORY);
            CHECK_MSG(strstr(geul_error(b.ctx), "the poisoned device (poison:0) is too small") &&
                          strstr(geul_error(b.ctx), "of 6 layers") && strstr(geul_error(b.ctx), "a context of ") &&
                          strstr(geul_error(b.ctx), "q8_0") && strstr(geul_error(b.ctx), "bits per weight"),
                      "%s", geul_error(b.ctx));
            CHECK(fit.most_layers == 6 && fit.smaller_cache && fit.most_bits > 0);
            CHECK_MSG(fit.most_context >= CONTEXT - 2 && fit.most_context < CONTEXT, "%d", fit.most_context);
            struct geul_session_options shorter = planned;
            shorter.n_context = fit.most_context;
            struct geul_model_options then = {.n_gpu_layers = GEUL_LAYERS_ALL, .session = &shorter};
            m = load(&b, &then);
            CHECK_MSG(m, "%s", geul_error(b.ctx));
            geul_model_free(m);
            then = (struct geul_model_options){.n_gpu_layers = fit.most_layers, .session = &planned};
            m = load(&b, &then);
            CHECK_MSG(m, "%s", geul_error(b.ctx));
            geul_model_free(m);
        }
        geul_fit_free(b.ctx, &fit);
        close_bed(&b);
    }
}

/* From nothing to everything as the memory grows; the reserve stays free; what is chosen can be used. */
TEST(fit_chooses_as_many_layers_as_there_is_room_for)
{
    static float logits[4032];
    int before = -1, seen = 0;
    for (size_t memory = (size_t)1 << 19; memory <= (size_t)14 << 20; memory += (size_t)1 << 19) {
        struct bed b;
        struct geul_fit fit;
        struct geul_model_options o = {.session = &planned, .reserve_bytes = 100000};
        REQUIRE(open_bed(&b, 1, memory, 0));
        REQUIRE(plan(&b, &o, &fit) == GEUL_OK);
        CHECK(fit.fits && fit.placement.n >= before);
        CHECK_INT(fit.at[1].reserve, memory / 16);
        CHECK(fit.placement.n == 0 || bytes_of(&fit.at[1]) + memory / 16 + 100000 <= memory);
        seen += fit.placement.n != before;
        before = fit.placement.n;
        struct geul_model *m = load(&b, &o);
        REQUIRE(m);
        CHECK_INT(m->placement.n, fit.placement.n);
        CHECK(use(&b, m, logits));
        geul_model_free(m);
        geul_fit_free(b.ctx, &fit);
        close_bed(&b);
    }
    CHECK_INT(before, 7);
    CHECK_MSG(seen >= 5, "%d numbers of layers", seen);
}

TEST(fit_shares_layers_among_cards)
{
    static float logits[4032], alone[4032];
    const struct {
        float split[2];
        int layers[6];
    } cases[] = {{{0, 0}, {1, 1, 1, 2, 2, 2}},
                 {{2, 1}, {1, 1, 1, 1, 2, 2}},
                 {{0, 1}, {2, 2, 2, 2, 2, 2}},
                 {{1, 0}, {1, 1, 1, 1, 1, 1}}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct bed b;
        struct geul_model_options o = {.session = &planned};
        memcpy(o.tensor_split, cases[c].split, sizeof cases[c].split);
        REQUIRE(open_bed(&b, 2, (size_t)64 << 20, 0));
        struct geul_model *m = load(&b, &o);
        REQUIRE(m);
        for (int i = 0; i < 6; i++)
            CHECK_MSG(m->placement.layers[i] == cases[c].layers[i], "case %zu: layer %d is on %d", c, i,
                      m->placement.layers[i]);
        CHECK(m->placement.n == 7 && m->placement.output == cases[c].layers[5] &&
              m->placement.embedding == cases[c].layers[0]);
        CHECK(use(&b, m, c ? logits : alone));
        CHECK(c == 0 || memcmp(alone, logits, sizeof alone) == 0);
        geul_model_free(m);
        close_bed(&b);
    }
}

/* At whatever call the card is lost while the model is planned and loaded: a failure that says so, and nothing is left.
 */
TEST(fit_survives_a_card_that_is_lost)
{
    struct geul_model_options o = {.n_gpu_layers = 3, .session = &planned};
    bool ok = false;
    int n = 0;
    while (!ok && n++ < 500) {
        const struct poison_options lost = {.memory = (size_t)64 << 20, .lost_at = n};
        struct bed b = {.ctx = geul_context_new(NULL), .devices = {.n = 2}};
        b.devices.at[0] = geul_device_open(b.ctx, GEUL_DEVICE_HOST, 1);
        b.devices.at[1] = poison_open(b.ctx, &lost);
        REQUIRE(b.devices.at[0] && b.devices.at[1]);
        struct geul_model *m = load(&b, &o);
        ok = m != NULL;
        CHECK_MSG(ok || geul_error_status(b.ctx) == GEUL_ERROR_DEVICE, "call %d: %s", n, geul_error(b.ctx));
        geul_model_free(m);
        close_bed(&b);
    }
    CHECK_MSG(ok && n > 3, "%d calls", n);
}

TEST(fit_survives_every_failing_allocation)
{
    struct test_shortage s = {.most = 4000};
    while (test_shortage_next(&s)) {
        struct geul_gguf *g = geul_gguf_open(s.ctx, test_mini_model());
        struct geul_devices devices;
        struct geul_fit fit = {.n = 0};
        bool open = g && geul_devices_open(s.ctx, "none", 1, &devices) == GEUL_OK;
        struct geul_model_options o = {.session = &planned};
        s.ok = open && geul_fit_plan(s.ctx, g, &devices, &o, &fit) == GEUL_OK;
        geul_fit_free(s.ctx, &fit);
        if (open)
            geul_devices_close(s.ctx, &devices);
        geul_gguf_close(g);
    }
}

/* ----------------------------------------------------------------------------------- by name -- */

static const char *module_folder(void)
{
    static char folder[1100];
    snprintf(folder, sizeof folder, "%s", GEUL_BINARY);
    *strrchr(folder, '/') = '\0';
    strcat(folder, "/cuda-host");
    return folder;
}

TEST(devices_are_opened_by_name)
{
    static const struct {
        const char *names, *ids; /* of those opened; NULL: refused */
        const char *says;
    } cases[] = {
        {NULL, "cpu", NULL},
        {"", "cpu", NULL},
        {"none", "cpu", NULL},
        {"cpu", "cpu", NULL},
        {"auto", "cpu cuda:0 cuda:1", NULL},
        {"cuda", "cpu cuda:0 cuda:1", NULL},
        {"cuda:1", "cpu cuda:1", NULL},
        {"cuda:1,cpu", "cpu cuda:1", NULL},
        {"cuda:1,cuda:0", "cpu cuda:1 cuda:0", NULL},
        {"cuda:1,cuda", "cpu cuda:1 cuda:0", NULL},
        {"cuda:2", NULL, "there is no device \"cuda:2\", only cpu, cuda:0, cuda:1"},
        {"cuda:", NULL, "there is no device \"cuda:\""},
        {"cuda:-1", NULL, "there is no device \"cuda:-1\""},
        {"cuda:1x", NULL, "there is no device \"cuda:1x\""},
        {"cuda:99999999999999999999", NULL, "there is no device"},
        {"gpu", NULL, "there is no device \"gpu\""},
        {"cpu:0", NULL, "there is no device \"cpu:0\""},
    };
    setenv("GEUL_BACKENDS", module_folder(), 1);
    setenv("GEUL_HOST_GPU", "sm_90,sm_75", 1);
    struct geul_context *ctx = geul_context_new(NULL);
    if (geul_device_count() == 1) {
        test_skip("there is no %s/libgeul-cuda.so (it needs a C++ compiler)", module_folder());
        return;
    }
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct geul_devices devices;
        char ids[200] = "";
        geul_error_clear(ctx);
        bool ok = geul_devices_open(ctx, cases[i].names, 3, &devices) == GEUL_OK;
        const char *name = cases[i].names ? cases[i].names : "NULL";
        CHECK_MSG(ok == (cases[i].ids != NULL), "%s: %s", name, geul_error(ctx));
        for (int d = 0; ok && d < devices.n; d++) {
            strcat(strcat(ids, d ? " " : ""), devices.at[d]->id);
            CHECK(d > 0 || devices.at[d]->n_threads == 3);
        }
        CHECK_MSG(!ok || strcmp(ids, cases[i].ids) == 0, "%s: %s", name, ids);
        CHECK_MSG(ok || strstr(geul_error(ctx), cases[i].says), "%s: %s", name, geul_error(ctx));
        CHECK(ok || devices.n == 0);
        geul_devices_close(ctx, &devices);
    }
    struct geul_device_info info;
    CHECK(geul_device_describe(ctx, 2, &info) == GEUL_OK);
    CHECK_STR(info.id, "cuda:1");
    CHECK_STR(info.backend, "cuda");
    CHECK(info.total_bytes > 0 && info.free_bytes <= info.total_bytes && info.n_threads == 0);
    CHECK(geul_device_describe(ctx, 3, &info) == GEUL_ERROR_ARGUMENT);
    geul_context_free(ctx);
}

static void gather(void *user, enum geul_log_level level, const char *text)
{
    char *all = user;
    size_t n = strlen(all);
    snprintf(all + n, 2000 - n, "%d %s\n", (int)level, text);
}

/* A card that does not open is left out under auto, with a warning, and a failure when it was named. */
TEST(devices_that_do_not_open_are_left_out)
{
    setenv("GEUL_BACKENDS", module_folder(), 1);
    setenv("GEUL_HOST_GPU", "sm_90", 1);
    setenv("GEUL_HOST_GPU_FAIL", "describe 1 2", 1);
    char log[2000] = "";
    struct geul_context *ctx = geul_context_new(&(struct geul_context_options){.log = gather, .log_user = log});
    struct geul_devices devices;
    if (geul_device_count() == 1) {
        test_skip("there is no %s/libgeul-cuda.so (it needs a C++ compiler)", module_folder());
        return;
    }
    CHECK(geul_devices_open(ctx, "auto", 1, &devices) == GEUL_OK);
    CHECK_INT(devices.n, 1);
    CHECK_MSG(strstr(log, "device 1 is left out: "), "%s", log);
    CHECK(geul_error_status(ctx) == GEUL_OK);
    geul_devices_close(ctx, &devices);
    geul_context_free(ctx);
}

TEST(devices_say_why_there_are_none)
{
    setenv("GEUL_BACKENDS", "none", 1);
    char log[2000] = "", why[300];
    struct geul_context *ctx = geul_context_new(&(struct geul_context_options){.log = gather, .log_user = log});
    struct geul_devices devices;
    CHECK(geul_backend_missing(0, why, sizeof why) && !geul_backend_missing(1, why, sizeof why));
    CHECK(geul_devices_open(ctx, "auto", 1, &devices) == GEUL_OK && devices.n == 1);
    CHECK_MSG(strstr(log, "GEUL_BACKENDS leaves it out; using the CPU"), "%s", log);
    geul_devices_close(ctx, &devices);
    CHECK(geul_devices_open(ctx, "cuda:0", 1, &devices) == GEUL_ERROR_ARGUMENT);
    CHECK_MSG(strstr(geul_error(ctx), "there is no device \"cuda:0\", only cpu; ") &&
                  strstr(geul_error(ctx), "GEUL_BACKENDS"),
              "%s", geul_error(ctx));
    geul_context_free(ctx);
}
