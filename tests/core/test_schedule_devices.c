/* Graphs over devices that do their work late: the order between them, memory in several buffers, inputs in one copy,
 * and two planned graphs at a time. */
#include "core/runtime.h"
#include "tests/harness.h"
#include "tests/poison.h"

enum { ROWS = 4, COLS = 24, VALUES = ROWS * COLS, N_WEIGHTS = 12, N_INPUTS = 3, MOST_DEVICES = 4 };

/* Weights (COLS) on devices in turn, and the runtime. */
struct field {
    struct geul_context *ctx;
    struct geul_device *devices[MOST_DEVICES];
    int n;
    struct geul_buffer buffers[N_WEIGHTS];
    struct geul_runtime *rt;
};

/* options[i]: NULL is the CPU. */
static bool field_open(struct field *f, int n, const struct poison_options *const *options)
{
    *f = (struct field){.ctx = geul_context_new(NULL), .n = n};
    bool ok = true;
    for (int d = 0; d < n; d++) {
        f->devices[d] = options[d] ? poison_open(f->ctx, options[d]) : geul_device_open(f->ctx, GEUL_DEVICE_HOST, 1);
        ok = ok && f->devices[d];
    }
    for (int i = 0; i < N_WEIGHTS && ok; i++) {
        struct geul_device *device = f->devices[(i * 5 + i / n) % n];
        float w[COLS];
        for (int k = 0; k < COLS; k++)
            w[k] = 0.1f * (float)((i * 7 + k * 3) % 11) - 0.5f;
        ok = device->backend->buffer_new(f->ctx, device, sizeof w, &f->buffers[i]) == GEUL_OK &&
             device->backend->upload(f->ctx, &f->buffers[i], f->buffers[i].base, w, sizeof w) == GEUL_OK;
    }
    f->rt = ok ? geul_runtime_new_on(f->ctx, f->devices, n, NULL) : NULL;
    return CHECK_MSG(f->rt != NULL, "%s", geul_error(f->ctx));
}

static void field_close(struct field *f)
{
    geul_runtime_free(f->rt);
    for (int i = 0; i < N_WEIGHTS; i++)
        if (f->buffers[i].device)
            f->buffers[i].device->backend->buffer_free(f->ctx, &f->buffers[i]);
    for (int d = 0; d < f->n; d++)
        geul_device_close(f->ctx, f->devices[d]);
    geul_context_free(f->ctx);
}

/* A graph of n operations in a context of its own. */
struct web {
    struct geul_context *ctx;
    struct geul_graph *graph;
    struct geul_tensor *in[N_INPUTS], *out[2];
};

/* The same operations for the same seed, whatever the devices: results are read once or many times, soon or much later,
 * whole or in part, beside weights that pin them. */
static bool web_make(struct web *w, struct field *f, uint64_t seed, int n)
{
    enum { MOST = 200 };
    struct geul_tensor *v[MOST];
    int count = 0;
    *w = (struct web){.ctx = geul_context_new_like(f->ctx)};
    for (int i = 0; i < N_INPUTS; i++) {
        w->in[i] = geul_input(w->ctx, GEUL_TYPE_F32, 2, (int64_t[]){ROWS, COLS}, "in");
        v[count++] = w->in[i];
    }
    for (int i = 0; i < n; i++) {
        struct geul_tensor *a = v[test_random(&seed) % (uint64_t)count], *b = v[count - 1];
        int which = (int)(test_random(&seed) % N_WEIGHTS);
        struct geul_buffer *at = &f->buffers[which];
        struct geul_tensor *weight = geul_leaf(w->ctx, GEUL_TYPE_F32, 1, (int64_t[]){COLS}, "weight", at, at->base);
        switch (test_random(&seed) % 5) {
        case 0:
            v[count] = geul_gelu(w->ctx, b, GEUL_GELU_ERF);
            break;
        case 1:
            v[count] = geul_add(w->ctx, a, b);
            break;
        case 2:
            v[count] = geul_scale(w->ctx, geul_add(w->ctx, b, weight), 0.5f);
            break;
        case 3:
            v[count] = geul_add(w->ctx, a, weight);
            break;
        default: /* one row of a, in all rows of b */
            a = geul_reshape(w->ctx, geul_narrow(w->ctx, a, 0, i % ROWS, 1), 1, (int64_t[]){COLS});
            v[count] = geul_scale(w->ctx, geul_add(w->ctx, b, a), 0.75f);
        }
        count++;
    }
    w->out[0] = v[count - 1];
    w->out[1] = geul_add(w->ctx, v[count / 2], v[count - 2]);
    for (int i = 0; i < N_INPUTS; i++) /* so that all are inputs of the graph */
        w->out[1] = geul_add(w->ctx, w->out[1], w->in[i]);
    w->graph = geul_graph_new(w->ctx, w->out, 2);
    return CHECK_MSG(w->graph != NULL, "%s", geul_error(w->ctx));
}

/* Runs it with inputs that depend on round; out gets both outputs. */
static bool web_run(struct web *w, struct field *f, int round, float *out)
{
    float x[VALUES];
    bool ok = geul_runtime_planned(f->rt, w->graph) || geul_runtime_plan(f->rt, w->graph) == GEUL_OK;
    for (int i = 0; i < N_INPUTS && ok; i++) {
        for (int k = 0; k < VALUES; k++)
            x[k] = 0.3f * (float)((k * (i + 2) + round * 5) % 13) - 1.5f;
        ok = geul_tensor_write(w->in[i], x, sizeof x) == GEUL_OK;
    }
    ok = ok && geul_runtime_run(f->rt, w->graph) == GEUL_OK;
    for (int i = 0; i < 2 && ok; i++)
        ok = geul_tensor_read(w->out[i], out + i * VALUES, VALUES * sizeof *out) == GEUL_OK;
    return CHECK_MSG(ok, "%s", geul_error(w->ctx));
}

static const struct poison_options async = {0}, no_copy = {.no_copy = true}, plain = {.plain = true},
                                   wide = {.alignment = 256}, narrow = {.alignment = 256, .max_buffer = 2048},
                                   plain_narrow = {.plain = true, .max_buffer = 1536};

/* Every graph has the same bits on all devices, and also when two of them take turns. */
TEST(schedule_keeps_the_order_between_late_devices)
{
    static const struct {
        int n;
        const struct poison_options *devices[MOST_DEVICES];
    } cases[] = {{1, {&async}},
                 {2, {&async, &async}},
                 {2, {NULL, &async}},
                 {2, {&plain, &async}},
                 {3, {&async, NULL, &async}},
                 {3, {&no_copy, &no_copy, &async}},
                 {2, {NULL, &no_copy}},
                 {3, {&async, &wide, &plain}},
                 {4, {NULL, &async, &narrow, &plain_narrow}},
                 {4, {&narrow, &async, &async, &async}}};
    enum { SEEDS = 12, ROUNDS = 3 };
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct field host;
        struct web a, b;
        float want[2][ROUNDS][2 * VALUES], got[2 * VALUES];
        REQUIRE(field_open(&host, 1, (const struct poison_options *const[]){NULL}));
        REQUIRE(web_make(&a, &host, seed, 60) && web_make(&b, &host, seed + 100, 25));
        for (int round = 0; round < ROUNDS; round++)
            REQUIRE(web_run(&a, &host, round, want[0][round]) && web_run(&b, &host, round, want[1][round]));
        for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
            struct field f;
            struct web w[2];
            REQUIRE(field_open(&f, cases[c].n, cases[c].devices));
            REQUIRE(web_make(&w[0], &f, seed, 60) && web_make(&w[1], &f, seed + 100, 25));
            for (int round = 0; round < ROUNDS; round++)
                for (int i = 0; i < 2; i++) {
                    REQUIRE(web_run(&w[i], &f, round, got));
                    CHECK_MSG(memcmp(got, want[i][round], sizeof got) == 0,
                              "seed %d, case %zu, graph %d, round %d: other values", (int)seed, c, i, round);
                }
            geul_context_free(w[0].ctx); /* before the runtime, which has them planned */
            geul_context_free(w[1].ctx);
            field_close(&f);
        }
        geul_context_free(a.ctx);
        geul_context_free(b.ctx);
        field_close(&host);
    }
}

/* Writing inputs copies nothing; a run copies the inputs of a device at once. */
TEST(schedule_uploads_inputs_in_one_copy)
{
    static const struct poison_options *const kinds[] = {&async, &plain, &wide};
    for (int k = 0; k < 3; k++) {
        struct field f;
        struct web w;
        float out[2 * VALUES], x[VALUES];
        REQUIRE(field_open(&f, 1, &kinds[k]) && web_make(&w, &f, 7, 30));
        REQUIRE(geul_runtime_plan(f.rt, w.graph) == GEUL_OK);
        struct poison_counts before = poison_counts(f.devices[0]);
        for (int round = 0; round < 3; round++)
            REQUIRE(web_run(&w, &f, round, out));
        struct poison_counts after = poison_counts(f.devices[0]);
        CHECK_INT(after.uploads - before.uploads, 3);
        CHECK_INT(after.prepared - before.prepared, 0);
        CHECK_INT(after.runs - before.runs, 3);
        CHECK_INT(after.downloads - before.downloads, 6);
        /* They are read back as they were written, and keep their values over runs. */
        float y[2 * VALUES];
        REQUIRE(geul_runtime_run(f.rt, w.graph) == GEUL_OK);
        REQUIRE(geul_tensor_read(w.out[0], y, sizeof x) == GEUL_OK && memcmp(y, out, sizeof x) == 0);
        REQUIRE(geul_tensor_read(w.in[1], x, sizeof x) == GEUL_OK);
        CHECK(x[1] == 0.3f * (float)((3 + 2 * 5) % 13) - 1.5f);
        geul_context_free(w.ctx);
        field_close(&f);
    }
}

/* A view of an input is written where the input is; an input that the graph adds to keeps its sum over runs. */
TEST(schedule_inputs_are_the_same_everywhere)
{
    for (int poisoned = 0; poisoned < 2; poisoned++) {
        const struct poison_options *kind = poisoned ? &async : NULL;
        struct field f;
        REQUIRE(field_open(&f, 1, &kind));
        struct geul_context *ctx = geul_context_new_like(f.ctx);
        struct geul_tensor *x = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){ROWS, COLS}, "x");
        struct geul_tensor *sum = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){ROWS, COLS}, "sum");
        struct geul_tensor *row = geul_narrow(ctx, x, 0, 1, 1);
        struct geul_tensor *out[2] = {geul_add(ctx, x, geul_reshape(ctx, row, 1, (int64_t[]){COLS})),
                                      geul_accumulate(ctx, sum, x)};
        struct geul_graph *g = geul_graph_new(ctx, out, 2);
        REQUIRE(g && geul_runtime_plan(f.rt, g) == GEUL_OK);
        float values[VALUES], got[VALUES], ten[COLS];
        for (int i = 0; i < VALUES; i++)
            values[i] = (float)i;
        for (int i = 0; i < COLS; i++)
            ten[i] = 10;
        REQUIRE(geul_tensor_write(x, values, sizeof values) == GEUL_OK);
        REQUIRE(geul_tensor_write(sum, values, sizeof values) == GEUL_OK);
        REQUIRE(geul_tensor_write(row, ten, sizeof ten) == GEUL_OK);
        for (int run = 1; run <= 3; run++) {
            REQUIRE(geul_runtime_run(f.rt, g) == GEUL_OK && geul_tensor_read(out[0], got, sizeof got) == GEUL_OK);
            CHECK(got[0] == 10 && got[COLS] == 20 && got[2 * COLS + 3] == (float)(2 * COLS + 3) + 10);
            REQUIRE(geul_tensor_read(out[1], got, sizeof got) == GEUL_OK);
            CHECK(got[5] == 5 + (float)run * 5 && got[COLS] == COLS + (float)run * 10);
        }
        geul_context_free(ctx);
        field_close(&f);
    }
}

/* Memory in buffers of limited size; what does not fit into one is refused by name and numbers. */
TEST(schedule_spreads_over_small_buffers)
{
    const struct poison_options small = {.alignment = 256, .max_buffer = 2048}, *kind = &small;
    struct field f;
    struct web w;
    float out[2 * VALUES];
    REQUIRE(field_open(&f, 1, &kind) && web_make(&w, &f, 3, 60));
    long before = poison_counts(f.devices[0]).buffers;
    REQUIRE(web_run(&w, &f, 0, out));
    long buffers = poison_counts(f.devices[0]).buffers - before;
    CHECK_MSG(buffers >= 2, "%ld buffers", buffers);
    CHECK(geul_runtime_bytes(f.rt, 0) <= (size_t)buffers * 2048);
    struct geul_runtime_needs needs[GEUL_MAX_DEVICES];
    REQUIRE(geul_runtime_measure(f.rt, w.graph, needs) == GEUL_OK);
    CHECK_INT(needs[0].values, geul_runtime_bytes(f.rt, 0));
    struct geul_context *ctx = geul_context_new_like(f.ctx);
    struct geul_tensor *x = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){8, 64}, "x");
    struct geul_tensor *y =
        geul_embed(ctx, geul_gelu(ctx, x, GEUL_GELU_ERF), geul_input(ctx, GEUL_TYPE_I32, 1, (int64_t[]){9}, "ids"));
    struct geul_graph *g = geul_graph_new(ctx, &y, 1);
    REQUIRE(g);
    enum geul_status status = geul_runtime_plan(f.rt, g);
    CHECK_INT(status, GEUL_ERROR_MEMORY);
    CHECK_MSG(strstr(geul_error(ctx), "2048") && strstr(geul_error(ctx), f.devices[0]->name) &&
                  strstr(geul_error(ctx), "inputs"),
              "%s", geul_error(ctx));
    REQUIRE(web_run(&w, &f, 1, out)); /* whose plan is untouched */
    geul_context_free(ctx);
    geul_context_free(w.ctx);
    field_close(&f);
}

/* Two graphs stay planned; a third takes the place of the one that was not used for longest, and so does a larger one
 * of both. */
TEST(runtime_keeps_two_graphs_planned)
{
    const struct poison_options *kind = &async;
    struct field f;
    struct web w[4];
    float out[2 * VALUES];
    REQUIRE(field_open(&f, 1, &kind));
    REQUIRE(web_make(&w[0], &f, 1, 40) && web_make(&w[1], &f, 2, 10) && web_make(&w[2], &f, 3, 10));
    REQUIRE(web_run(&w[0], &f, 0, out) && web_run(&w[1], &f, 0, out) && web_run(&w[0], &f, 1, out));
    CHECK(geul_runtime_planned(f.rt, w[0].graph) && geul_runtime_planned(f.rt, w[1].graph));
    CHECK_INT(poison_counts(f.devices[0]).prepared, 2);
    REQUIRE(web_run(&w[2], &f, 0, out));
    CHECK(geul_runtime_planned(f.rt, w[0].graph) && !geul_runtime_planned(f.rt, w[1].graph));
    enum geul_status status = geul_runtime_run(f.rt, w[1].graph);
    CHECK_INT(status, GEUL_ERROR_ARGUMENT);
    CHECK_MSG(strstr(geul_error(w[1].ctx), "planned") != NULL, "%s", geul_error(w[1].ctx));
    /* A graph of a context whose other graph is planned: they share tensors, so it takes its place. */
    struct geul_graph *first = w[2].graph;
    w[2].graph = geul_graph_new(w[2].ctx, w[2].out, 1);
    REQUIRE(w[2].graph && geul_runtime_plan(f.rt, w[2].graph) == GEUL_OK);
    CHECK(!geul_runtime_planned(f.rt, first) && geul_runtime_planned(f.rt, w[0].graph));
    CHECK_INT(poison_counts(f.devices[0]).now_prepared, 2);
    /* One that needs more memory than there is. */
    w[3] = (struct web){.ctx = geul_context_new_like(f.ctx)};
    struct geul_tensor *x = geul_input(w[3].ctx, GEUL_TYPE_F32, 2, (int64_t[]){64, 512}, "x");
    struct geul_tensor *y = geul_add(w[3].ctx, geul_gelu(w[3].ctx, x, GEUL_GELU_ERF), x);
    struct geul_graph *large = geul_graph_new(w[3].ctx, &y, 1);
    REQUIRE(large && geul_runtime_plan(f.rt, large) == GEUL_OK);
    CHECK(!geul_runtime_planned(f.rt, w[0].graph) && !geul_runtime_planned(f.rt, w[2].graph));
    CHECK_INT(poison_counts(f.devices[0]).now_prepared, 1);
    /* A graph at the address of one that is gone is not taken for it. */
    REQUIRE(web_run(&w[0], &f, 0, out));
    geul_context_reset(w[0].ctx);
    struct geul_tensor *other = geul_input(w[0].ctx, GEUL_TYPE_F32, 1, (int64_t[]){8}, "x");
    struct geul_graph *again = geul_graph_new(w[0].ctx, (struct geul_tensor *[]){geul_add(w[0].ctx, other, other)}, 1);
    REQUIRE(again);
    CHECK(!geul_runtime_planned(f.rt, again));
    for (int i = 0; i < 4; i++)
        geul_context_free(w[i].ctx);
    field_close(&f);
}

struct heard {
    int n;
    char text[400];
};

static void hear(void *user, enum geul_log_level level, const char *text)
{
    struct heard *h = user;
    if (level == GEUL_LOG_WARN) {
        h->n++;
        snprintf(h->text, sizeof h->text, "%s", text);
    }
}

static bool refuse_gelu(const struct geul_device *device, const struct geul_tensor *node)
{
    (void)device;
    return node->op != GEUL_OP_GELU;
}

/* A weight that its device cannot compute with is copied in every run: said once, with name and size. */
TEST(schedule_tells_of_weights_that_are_copied)
{
    struct heard heard = {0};
    struct geul_context *ctx = geul_context_new(&(struct geul_context_options){.log = hear, .log_user = &heard});
    struct geul_device *devices[2] = {geul_device_open(ctx, GEUL_DEVICE_HOST, 1), poison_open(ctx, NULL)};
    REQUIRE(devices[0] && devices[1]);
    struct geul_backend limited = *devices[1]->backend; /* no GELU there */
    limited.supports = refuse_gelu;
    devices[1]->backend = &limited;
    struct geul_runtime *rt = geul_runtime_new_on(ctx, devices, 2, NULL);
    struct geul_buffer b;
    float w[COLS] = {1}, got[COLS];
    REQUIRE(rt && limited.buffer_new(ctx, devices[1], sizeof w, &b) == GEUL_OK);
    REQUIRE(limited.upload(ctx, &b, b.base, w, sizeof w) == GEUL_OK);
    struct geul_context *gctx = geul_context_new_like(ctx);
    struct geul_tensor *weight = geul_leaf(gctx, GEUL_TYPE_F32, 1, (int64_t[]){COLS}, "the.weight", &b, b.base);
    struct geul_tensor *y = geul_gelu(gctx, weight, GEUL_GELU_ERF);
    struct geul_graph *g = geul_graph_new(gctx, &y, 1);
    for (int i = 0; i < 2; i++)
        REQUIRE(g && geul_runtime_plan(rt, g) == GEUL_OK && geul_runtime_run(rt, g) == GEUL_OK);
    REQUIRE(geul_tensor_read(y, got, sizeof got) == GEUL_OK);
    CHECK(fabs((double)got[0] - 0.8413447) < 1e-6);
    CHECK_INT(heard.n, 1);
    CHECK_MSG(strstr(heard.text, "the.weight") && strstr(heard.text, "96 bytes") && strstr(heard.text, "gelu") &&
                  strstr(heard.text, devices[1]->name),
              "%s", heard.text);
    limited.buffer_free(ctx, &b);
    geul_runtime_free(rt);
    geul_context_free(gctx);
    for (int d = 0; d < 2; d++)
        geul_device_close(ctx, devices[d]);
    geul_context_free(ctx);
}

/* A graph's context may have another allocator than the runtime's and be freed first; what failed is said there. */
TEST(runtime_takes_graphs_of_any_allocator)
{
    const struct poison_options *kinds[] = {NULL, &async};
    for (int k = 0; k < 2; k++) {
        struct test_allocator counted = {.fail_at = 0};
        struct geul_context_options options = {.allocate = test_allocate, .allocate_user = &counted};
        struct field f;
        REQUIRE(field_open(&f, 1, &kinds[k]));
        struct geul_context *ctx = geul_context_new(&options);
        struct geul_tensor *x = geul_input(ctx, GEUL_TYPE_F32, 1, (int64_t[]){8}, "x");
        struct geul_graph *g = geul_graph_new(ctx, (struct geul_tensor *[]){geul_add(ctx, x, x)}, 1);
        REQUIRE(g && geul_runtime_plan(f.rt, g) == GEUL_OK && geul_runtime_run(f.rt, g) == GEUL_OK);
        if (k == 1) {
            poison_set(f.devices[0], 1, 0);
            enum geul_status status = geul_runtime_run(f.rt, g);
            CHECK_INT(status, GEUL_ERROR_DEVICE);
            CHECK(geul_error_status(ctx) == GEUL_ERROR_DEVICE && geul_error_status(f.ctx) == GEUL_OK);
            status = geul_runtime_plan(f.rt, g); /* refused as long as the runtime lives */
            CHECK_INT(status, GEUL_ERROR_DEVICE);
        }
        geul_context_free(ctx);
        CHECK_INT(counted.outstanding, 0);
        field_close(&f);
    }
}
