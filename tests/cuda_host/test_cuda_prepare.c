/* test_cuda_prepare.c: plans of the CUDA backend: steps, scratch, rounded rows, captured graphs, failures. On the CPU,
 * with kernels of cuda_bed.c. */
#include "tests/cuda_host/cuda_bed.h"

#include <pthread.h>
#include <time.h>

enum { N = 64 };

/* CHECK_INT() would call twice. */
static bool is(enum geul_status status, enum geul_status wanted, const struct geul_context *ctx)
{
    return CHECK_MSG(status == wanted, "status %d, expected %d: %s", (int)status, (int)wanted, geul_error(ctx));
}

/* A runtime on one card. */
struct bed {
    struct geul_context *ctx;
    struct geul_device *device;
    struct geul_runtime *rt;
};

static bool open_bed(struct bed *b, const struct cuda_kernels *kernels, const struct geul_queue_options *options)
{
    b->ctx = geul_context_new(NULL);
    b->device = bed_device(b->ctx, "sm_90");
    b->rt = NULL;
    if (b->device) {
        geul_cuda_device(b->device)->kernels = kernels;
        b->rt = geul_runtime_new_on(b->ctx, &b->device, 1, options);
    }
    return CHECK_MSG(b->rt != NULL, "%s", geul_error(b->ctx));
}

static void close_bed(struct bed *b)
{
    geul_runtime_free(b->rt);
    if (b->device)
        geul_backend_cuda.close(b->ctx, b->device);
    geul_context_free(b->ctx);
    bed_is_clean();
}

static struct geul_tensor *input(struct bed *b, int64_t rows, int64_t cols)
{
    return geul_input(b->ctx, GEUL_TYPE_F32, 2, (const int64_t[]){rows, cols}, "x");
}

/* Plans the graph of outputs. */
static struct geul_graph *plan(struct bed *b, struct geul_tensor *const *outputs, int n)
{
    struct geul_graph *g = geul_graph_new(b->ctx, outputs, n);
    if (!g || geul_runtime_plan(b->rt, g) != GEUL_OK) {
        CHECK_MSG(false, "%s", geul_error(b->ctx));
        return NULL;
    }
    return g;
}

static bool write_all(struct geul_tensor *t, float value)
{
    float values[4 * N];
    int64_t n = geul_rows(t) * geul_cols(t);
    for (int64_t i = 0; i < n; i++)
        values[i] = value + (float)(i % 5);
    return is(geul_tensor_write(t, values, (size_t)n * sizeof(float)), GEUL_OK, t->ctx);
}

/* Element i of t after a run, -1 when it cannot be read. */
static float value(const struct geul_tensor *t, int64_t i)
{
    float values[4 * N];
    size_t bytes = geul_tensor_bytes(t);
    return bytes <= sizeof values && geul_tensor_read(t, values, bytes) == GEUL_OK ? values[i] : -1;
}

/* ----------------------------------------------------------------------------------- running -- */

TEST(cuda_plan_runs_then_is_captured_then_replayed)
{
    struct bed b;
    if (!open_bed(&b, &bed_kernels_apart, NULL))
        return;
    struct geul_tensor *x = input(&b, 1, N), *y = input(&b, 1, N);
    struct geul_tensor *out = geul_scale(b.ctx, geul_gelu(b.ctx, geul_add(b.ctx, x, y), GEUL_GELU_ERF), 3);
    struct geul_graph *g = plan(&b, &out, 1);
    REQUIRE(g);
    for (int run = 0; run < 5; run++) {
        float a = (float)run, c = (float)(10 * run);
        REQUIRE(write_all(x, a) && write_all(y, c));
        host_gpu_count_anew();
        is(geul_runtime_run(b.rt, g), GEUL_OK, b.ctx);
        for (int i = 0; i < N; i++)
            if (!CHECK_MSG(value(out, i) == 3 * (a + c + (float)(2 * (i % 5))), "run %d, element %d: %g", run, i,
                           (double)value(out, i)))
                break;
        /* add takes two steps; the capture counts launches that are not run */
        CHECK_INT(host_gpu_calls(HOST_GPU_launch), run < 2 ? 4 : 0);
        CHECK_INT(host_gpu_calls(HOST_GPU_capture_begin), run == 1);
        CHECK_INT(host_gpu_calls(HOST_GPU_graph_launch), run >= 1);
    }
    close_bed(&b);
}

TEST(cuda_plan_goes_on_where_a_graph_cannot_be_captured)
{
    static const enum host_gpu_call calls[] = {HOST_GPU_capture_begin, HOST_GPU_capture_end, HOST_GPU_launch};
    for (int k = 0; k < 3; k++) {
        struct bed b;
        if (!open_bed(&b, &bed_kernels, NULL))
            return;
        struct geul_tensor *x = input(&b, 1, N), *out = geul_scale(b.ctx, x, 2);
        struct geul_graph *g = plan(&b, &out, 1);
        REQUIRE(g && write_all(x, 1));
        is(geul_runtime_run(b.rt, g), GEUL_OK, b.ctx);
        host_gpu_fail(calls[k], 1, 900);
        for (int run = 1; run < 4; run++) {
            REQUIRE(write_all(x, (float)run));
            is(geul_runtime_run(b.rt, g), GEUL_OK, b.ctx);
            CHECK_MSG(value(out, 0) == 2 * (float)run, "%g", (double)value(out, 0));
        }
        CHECK_INT(host_gpu_calls(HOST_GPU_graph_launch), 0);
        CHECK_INT(geul_error_status(b.ctx), GEUL_OK);
        close_bed(&b);
    }
}

/* Another thread, which copies to the card while this one captures. */
static struct {
    struct geul_buffer buffer;
    pthread_t thread;
    bool started;
    enum geul_status status;
} beside;

static void *copy_beside(void *unused)
{
    (void)unused;
    struct geul_context *ctx = geul_context_new(NULL);
    const uint8_t bytes[N] = {0};
    beside.status = geul_backend_cuda.upload(ctx, &beside.buffer, beside.buffer.base, bytes, N);
    geul_context_free(ctx);
    return NULL;
}

/* A launch of nothing. While it is captured the other thread starts, and has time to come to its wait for the card. */
static int launch_beside(struct cuda_stream *stream, const void *args)
{
    const struct timespec while_it_copies = {.tv_nsec = 50000000};
    (void)stream;
    (void)args;
    if (host_gpu_calls(HOST_GPU_capture_begin) == 1 && !beside.started) {
        beside.started = pthread_create(&beside.thread, NULL, copy_beside, NULL) == 0;
        nanosleep(&while_it_copies, NULL);
    }
    return 0;
}

static void emit_beside(struct cuda_plan *plan, const struct geul_tensor *node)
{
    (void)node;
    geul_cuda_step(plan, "nothing", launch_beside, "", 1);
}

TEST(cuda_plan_is_captured_while_another_thread_waits_for_the_card)
{
    static const struct cuda_op op = {.emit = emit_beside};
    static const struct cuda_op *const ops[GEUL_OP_COUNT] = {[GEUL_OP_SCALE] = &op};
    const struct cuda_kernels kernels = {ops, bed_kernels_apart.patterns, bed_kernels.round};
    struct bed b;
    if (!open_bed(&b, &kernels, NULL))
        return;
    beside.started = false;
    beside.status = GEUL_ERROR_DEVICE;
    REQUIRE(geul_backend_cuda.buffer_new(b.ctx, b.device, N, &beside.buffer) == GEUL_OK);
    struct geul_tensor *x = input(&b, 1, N), *out = geul_scale(b.ctx, x, 2);
    struct geul_graph *g = plan(&b, &out, 1);
    REQUIRE(g && write_all(x, 1));
    host_gpu_count_anew();
    for (int run = 0; run < 3; run++)
        is(geul_runtime_run(b.rt, g), GEUL_OK, b.ctx);
    REQUIRE(beside.started);
    pthread_join(beside.thread, NULL);
    CHECK_INT(beside.status, GEUL_OK);
    CHECK_INT(host_gpu_calls(HOST_GPU_graph_launch), 2);
    geul_backend_cuda.buffer_free(b.ctx, &beside.buffer);
    close_bed(&b);
}

/* What a watched run tells, and when it is cancelled. */
struct seen {
    struct geul_context *ctx;
    int told, last, cancel_at;
};

static void see(void *user, int done, int total)
{
    struct seen *s = user;
    CHECK_MSG(done > s->last && done <= total, "%d nodes of %d are done, after %d", done, total, s->last);
    s->last = done;
    s->told++;
    if (s->cancel_at && done >= s->cancel_at)
        geul_context_cancel(s->ctx);
}

TEST(cuda_plan_tells_progress_and_can_be_cancelled)
{
    enum { CHAIN = 60 };
    struct bed b;
    if (!open_bed(&b, &bed_kernels_apart, NULL))
        return;
    struct geul_tensor *x = input(&b, 1, N), *out = x;
    for (int i = 0; i < CHAIN; i++)
        out = geul_scale(b.ctx, out, -1);
    struct geul_graph *g = plan(&b, &out, 1);
    REQUIRE(g && write_all(x, 1));
    struct seen seen = {b.ctx, 0, 0, 24};
    geul_runtime_watch(b.rt, see, &seen);
    host_gpu_count_anew();
    is(geul_runtime_run(b.rt, g), GEUL_ERROR_CANCELLED, b.ctx);
    long launched = host_gpu_calls(HOST_GPU_launch);
    CHECK_MSG(launched >= 24 && launched <= 24 + 16, "%ld launches before the run was cancelled", launched);
    geul_error_clear(b.ctx);
    seen = (struct seen){b.ctx, 0, 0, 0};
    host_gpu_count_anew();
    is(geul_runtime_run(b.rt, g), GEUL_OK, b.ctx);
    CHECK_INT(host_gpu_calls(HOST_GPU_launch), CHAIN);
    CHECK_MSG(seen.told >= 5 && seen.last >= CHAIN - 16, "told %d times, last of %d", seen.told, seen.last);
    CHECK_MSG(value(out, 0) == 1, "%g", (double)value(out, 0));
    close_bed(&b);
}

TEST(cuda_plan_is_exact_where_the_queue_is)
{
    for (int exact = 0; exact < 2; exact++) {
        struct bed b;
        if (!open_bed(&b, &bed_kernels, &(struct geul_queue_options){.exact = exact}))
            return;
        struct geul_tensor *x = input(&b, 1, N), *out = geul_add(b.ctx, x, x);
        bed_exact = !exact;
        CHECK(plan(&b, &out, 1));
        CHECK_INT(bed_exact, exact);
        close_bed(&b);
    }
}

/* ---------------------------------------------------------------------------------- patterns -- */

TEST(cuda_plan_tries_patterns_first)
{
    for (int kept = 0; kept < 3; kept++) { /* nobody else, the caller, another node reads the first of the pair */
        struct bed b;
        if (!open_bed(&b, &bed_kernels, NULL))
            return;
        struct geul_tensor *x = input(&b, 1, N), *first = geul_scale(b.ctx, x, 2),
                           *second = geul_scale(b.ctx, first, 5);
        struct geul_tensor *sum = geul_add(b.ctx, second, kept == 2 ? first : x), *outputs[] = {sum, first};
        struct geul_graph *g = plan(&b, outputs, kept == 1 ? 2 : 1);
        REQUIRE(g && write_all(x, 7));
        host_gpu_count_anew();
        is(geul_runtime_run(b.rt, g), GEUL_OK, b.ctx);
        CHECK_INT(host_gpu_calls(HOST_GPU_launch), kept ? 4 : 3);
        CHECK_MSG(value(sum, 0) == (kept == 2 ? 84 : 77), "%g", (double)value(sum, 0));
        if (kept == 1)
            CHECK_MSG(value(first, 0) == 14, "%g", (double)value(first, 0));
        close_bed(&b);
    }
}

/* ------------------------------------------------------------------------------------ memory -- */

/* Nodes of a graph that is planned, without views. */
static int listed(const struct geul_graph *g, struct geul_tensor **nodes)
{
    int n = 0;
    for (int i = 0; i < g->n_nodes; i++)
        if (g->nodes[i]->op != GEUL_OP_VIEW)
            nodes[n++] = g->nodes[i];
    return n;
}

static void measure(struct bed *b, struct geul_graph *g, size_t *values, size_t *working)
{
    struct geul_runtime_needs needs[GEUL_MAX_DEVICES];
    is(geul_runtime_measure(b->rt, g, needs), GEUL_OK, b->ctx);
    for (int d = 0; d < GEUL_MAX_DEVICES; d++) {
        *values += needs[d].values;
        *working += needs[d].working;
    }
}

TEST(cuda_plan_allocates_what_was_planned)
{
    struct bed b;
    if (!open_bed(&b, &bed_kernels, NULL))
        return;
    struct geul_tensor *w = geul_input(b.ctx, GEUL_TYPE_F32, 2, (const int64_t[]){N, N}, "w"), *x = input(&b, 4, N);
    struct geul_tensor *y = geul_linear(b.ctx, geul_gelu(b.ctx, geul_add(b.ctx, x, x), GEUL_GELU_ERF), w, NULL, false);
    struct geul_tensor *out = geul_add(b.ctx, geul_linear(b.ctx, y, w, NULL, false), x), *nodes[16];
    struct geul_graph *g = geul_graph_new(b.ctx, &out, 1);
    REQUIRE(g && g->n_nodes <= 16);
    size_t values = 0, working = 0;
    measure(&b, g, &values, &working);
    CHECK(working > 0);
    host_gpu_count_anew();
    is(geul_runtime_plan(b.rt, g), GEUL_OK, b.ctx);
    CHECK_INT(host_gpu_in_use().allocated, values + working);
    CHECK_INT(host_gpu_in_use().bytes, values + working);
    /* Nothing more while it runs, and the same plan when its addresses are known. */
    for (int run = 0; run < 3; run++)
        is(geul_runtime_run(b.rt, g), GEUL_OK, b.ctx);
    CHECK_INT(host_gpu_in_use().allocated, values + working);
    struct geul_queue *queue = geul_backend_cuda.queue_new(b.ctx, b.device, NULL);
    int n = listed(g, nodes);
    REQUIRE(queue);
    CHECK_INT(geul_backend_cuda.working(queue, nodes, n), working);
    struct geul_prepared *p = NULL;
    is(geul_backend_cuda.prepare(b.ctx, queue, nodes, n, &p), GEUL_OK, b.ctx);
    REQUIRE(p);
    CHECK_INT(p->bytes, working);
    geul_backend_cuda.release(b.ctx, queue, p);
    geul_backend_cuda.queue_free(b.ctx, queue);
    close_bed(&b);
}

TEST(cuda_plan_shares_scratch_of_nodes_after_each_other)
{
    struct bed b;
    if (!open_bed(&b, &bed_kernels_apart, NULL))
        return;
    struct geul_tensor *x = input(&b, 1, N), *out = x;
    for (int i = 0; i < 6; i++)
        out = geul_gelu(b.ctx, geul_add(b.ctx, out, x), GEUL_GELU_ERF);
    struct geul_graph *g = geul_graph_new(b.ctx, &out, 1);
    size_t values = 0, working = 0;
    measure(&b, g, &values, &working);
    CHECK_INT(working, 6 * 256 + N * sizeof(float)); /* six counters of their own, one copy for all sums */
    is(geul_runtime_plan(b.rt, g), GEUL_OK, b.ctx);
    REQUIRE(write_all(x, 1));
    for (int run = 0; run < 3; run++) {
        is(geul_runtime_run(b.rt, g), GEUL_OK, b.ctx);
        CHECK_MSG(value(out, 0) == 7, "%g", (double)value(out, 0));
    }
    close_bed(&b);
}

/* Kernels of this test alone: "keep" takes scratch up to the node that a test says, and tells where it lies. */
static struct {
    int until;
    void *at[8];
    int n;
} kept_pieces;

static void emit_keeping(struct cuda_plan *p, const struct geul_tensor *node)
{
    (void)node;
    int i = kept_pieces.n++ % 8;
    kept_pieces.at[i] = geul_cuda_scratch(p, 256, p->at == 0 ? kept_pieces.until : p->at);
}

static int take_two(struct cuda_plan *p, int at)
{
    if (at != 1 || p->n_nodes < 3)
        return 0;
    p->at = 2;
    emit_keeping(p, p->nodes[2]);
    return 2;
}

TEST(cuda_plan_keeps_scratch_to_the_end_of_a_pattern)
{
    static const struct cuda_op keep = {NULL, emit_keeping};
    static const struct cuda_op *const ops[GEUL_OP_COUNT] = {[GEUL_OP_SCALE] = &keep};
    static cuda_pattern *const patterns[] = {take_two, NULL};
    static const struct cuda_kernels kernels = {ops, patterns, NULL};
    for (int until = 0; until < 3; until++) {
        struct bed b;
        if (!open_bed(&b, &kernels, NULL))
            return;
        struct geul_tensor *out = input(&b, 1, N);
        for (int i = 0; i < 3; i++)
            out = geul_scale(b.ctx, out, 2);
        kept_pieces.until = until;
        kept_pieces.n = 0;
        CHECK(plan(&b, &out, 1));
        CHECK_INT(kept_pieces.n, 6); /* two groups, three passes */
        /* What is kept up to node 1 may still be read by the steps of nodes 1 and 2, emitted together. */
        CHECK_MSG((kept_pieces.at[4] == kept_pieces.at[5]) == (until == 0), "kept up to node %d", until);
        close_bed(&b);
    }
}

/* ------------------------------------------------------------------------------ rounded rows -- */

/* y = x W^T of the bed's whole numbers. */
static struct geul_tensor *product(struct bed *b, struct geul_tensor *x, struct geul_tensor *w)
{
    return geul_linear(b->ctx, x, w, NULL, false);
}

/* Runs the graph of an output, and perhaps another, and checks its first element; returns the launches. */
static long launches_of(struct bed *b, struct geul_tensor *x, struct geul_tensor *w, struct geul_tensor *out,
                        struct geul_tensor *other, float want)
{
    static float weights[N * N];
    struct geul_tensor *const outputs[] = {out, other};
    struct geul_graph *g = plan(b, outputs, other ? 2 : 1);
    for (int i = 0; i < N * N; i++)
        weights[i] = 1;
    if (!g || !write_all(x, 1) || !is(geul_tensor_write(w, weights, sizeof weights), GEUL_OK, b->ctx))
        return -1;
    host_gpu_count_anew();
    is(geul_runtime_run(b->rt, g), GEUL_OK, b->ctx);
    CHECK_MSG(value(out, 0) == want, "%g, expected %g", (double)value(out, 0), (double)want);
    return host_gpu_calls(HOST_GPU_launch);
}

static float row_sum(void)
{
    float sum = 0;
    for (int i = 0; i < N; i++)
        sum += 1 + (float)(i % 5);
    return sum;
}

TEST(cuda_rows_are_rounded_once_for_all_readers)
{
    struct bed b;
    if (!open_bed(&b, &bed_kernels, NULL))
        return;
    const int64_t one[] = {1, N}, wide[] = {2, N / 2};
    struct geul_tensor *w = geul_input(b.ctx, GEUL_TYPE_F32, 2, (const int64_t[]){N, N}, "w"), *x = input(&b, 1, N);
    struct geul_tensor *again = geul_reshape(b.ctx, geul_reshape(b.ctx, x, 2, wide), 2, one);
    struct geul_tensor *out = geul_add(b.ctx, product(&b, x, w), product(&b, again, w));
    /* round, product, product, and add's two */
    long launches = launches_of(&b, x, w, out, NULL, 2 * row_sum());
    CHECK_INT(launches, 5);
    close_bed(&b);
}

TEST(cuda_rows_are_left_rounded_by_who_computes_them)
{
    /* Who reads the values themselves: nobody, another node, the caller. */
    for (int other = 0; other < 3; other++) {
        struct bed b;
        if (!open_bed(&b, &bed_kernels, NULL))
            return;
        struct geul_tensor *w = geul_input(b.ctx, GEUL_TYPE_F32, 2, (const int64_t[]){N, N}, "w"), *x = input(&b, 1, N);
        struct geul_tensor *ones = geul_narrow(b.ctx, w, 0, 0, 1);
        struct geul_tensor *gain = geul_reshape(b.ctx, ones, 1, (const int64_t[]){N});
        struct geul_tensor *y = geul_layernorm(b.ctx, x, gain, gain, 1e-5f);
        struct geul_tensor *out = geul_add(b.ctx, product(&b, y, w), other == 1 ? y : product(&b, y, w));
        /* norm, one or two products, and add's two: no rounding by itself */
        float want = row_sum() + (other == 1 ? 1 : row_sum());
        long launches = launches_of(&b, x, w, out, other == 2 ? y : NULL, want);
        CHECK_INT(launches, other == 1 ? 4 : 5);
        CHECK_INT(bed_left, other ? 1 : 2);
        if (other == 2)
            CHECK_MSG(value(y, 1) == 2, "%g", (double)value(y, 1));
        close_bed(&b);
    }
}

TEST(cuda_rows_that_nobody_wants_are_not_rounded)
{
    struct bed b;
    if (!open_bed(&b, &bed_kernels, NULL))
        return;
    struct geul_tensor *w = geul_input(b.ctx, GEUL_TYPE_F32, 2, (const int64_t[]){N, N}, "w"), *x = input(&b, 1, N);
    struct geul_tensor *gain = geul_reshape(b.ctx, geul_narrow(b.ctx, w, 0, 0, 1), 1, (const int64_t[]){N});
    struct geul_tensor *out = geul_scale(b.ctx, geul_layernorm(b.ctx, x, gain, gain, 1e-5f), 2);
    long launches = launches_of(&b, x, w, out, NULL, 2);
    CHECK_INT(launches, 2);
    CHECK_INT(bed_left, 0);
    close_bed(&b);
}

TEST(cuda_rows_are_rounded_again_when_they_have_changed)
{
    struct bed b;
    if (!open_bed(&b, &bed_kernels, NULL))
        return;
    struct geul_tensor *w = geul_input(b.ctx, GEUL_TYPE_F32, 2, (const int64_t[]){N, N}, "w"), *x = input(&b, 1, N);
    struct geul_tensor *before = product(&b, x, w), *twice = geul_accumulate(b.ctx, x, geul_scale(b.ctx, x, 1));
    struct geul_tensor *after = product(&b, x, w); /* reads x itself, which the node before has changed */
    /* round, product, scale, accumulate, round, product, and add's two */
    long launches = launches_of(&b, x, w, geul_add(b.ctx, before, after), twice, 3 * row_sum());
    CHECK_INT(launches, 8);
    close_bed(&b);
}

TEST(cuda_and_the_cpu_divide_a_graph)
{
    struct bed b;
    if (!open_bed(&b, &bed_kernels, NULL))
        return;
    static float weights[N * N], offsets[N];
    for (int i = 0; i < N * N; i++)
        weights[i] = 1;
    struct geul_device *devices[] = {geul_device_open(b.ctx, GEUL_DEVICE_HOST, 1), b.device};
    struct geul_runtime *rt = geul_runtime_new_on(b.ctx, devices, 2, NULL);
    struct geul_buffer on_card, on_cpu;
    REQUIRE(rt && geul_backend_cuda.buffer_new(b.ctx, b.device, sizeof weights, &on_card) == GEUL_OK &&
            geul_backend_cuda.upload(b.ctx, &on_card, on_card.base, weights, sizeof weights) == GEUL_OK &&
            devices[0]->backend->buffer_wrap(b.ctx, devices[0], offsets, sizeof offsets, &on_cpu) == GEUL_OK);
    struct geul_tensor *w = geul_leaf(b.ctx, GEUL_TYPE_F32, 2, (const int64_t[]){N, N}, "w", &on_card, on_card.base);
    struct geul_tensor *c = geul_leaf(b.ctx, GEUL_TYPE_F32, 1, (const int64_t[]){N}, "c", &on_cpu, on_cpu.base);
    /* Both products read the CPU's sum, by twins of it that are different structs. */
    struct geul_tensor *x = input(&b, 1, N), *sum = geul_add(b.ctx, x, c);
    struct geul_tensor *both = geul_add(b.ctx, product(&b, sum, w), product(&b, sum, w));
    struct geul_tensor *out = geul_add(b.ctx, both, c);
    struct geul_graph *g = geul_graph_new(b.ctx, &out, 1);
    REQUIRE(g && is(geul_runtime_plan(rt, g), GEUL_OK, b.ctx));
    CHECK_INT(geul_runtime_segment_count(rt), 3);
    for (int run = 0; run < 4; run++) {
        offsets[0] = (float)run;
        write_all(x, (float)run);
        host_gpu_count_anew();
        is(geul_runtime_run(rt, g), GEUL_OK, b.ctx);
        float want = 2 * (row_sum() + N * (float)(run - 1) + (float)run) + (float)run;
        CHECK_MSG(value(out, 0) == want, "run %d: %g, expected %g", run, (double)value(out, 0), (double)want);
        if (run == 0)
            CHECK_INT(host_gpu_calls(HOST_GPU_launch), 5); /* rounded once, two products, the sum's two steps */
    }
    geul_runtime_free(rt);
    geul_backend_cuda.buffer_free(b.ctx, &on_card);
    geul_device_close(b.ctx, devices[0]);
    close_bed(&b);
}

TEST(cuda_memory_that_overlaps_is_seen)
{
    struct geul_context *ctx = geul_context_new(NULL);
    static float memory[64 * 64];
    struct geul_tensor *all = geul_input(ctx, GEUL_TYPE_F32, 2, (const int64_t[]){64, 64}, "all");
    CHECK(geul_cuda_apart(all, all)); /* no addresses yet */
    all->data = memory;
    const struct {
        int64_t row, rows, col, cols;
        bool apart; /* of rows 8 to 15 */
    } cases[] = {{0, 8, 0, 64, true},   {16, 8, 0, 64, true}, {0, 9, 0, 64, false}, {15, 9, 0, 64, false},
                 {8, 0, 0, 64, true},   {0, 9, 0, 32, false}, {0, 8, 32, 32, true}, {10, 1, 5, 1, false},
                 {0, 64, 0, 64, false}, {7, 1, 63, 1, true}};
    struct geul_tensor *part = geul_narrow(ctx, all, 0, 8, 8);
    part->data = memory + 8 * 64;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct geul_tensor *t =
            geul_narrow(ctx, geul_narrow(ctx, all, 0, cases[i].row, cases[i].rows), 1, cases[i].col, cases[i].cols);
        REQUIRE(t);
        t->data = memory + cases[i].row * 64 + cases[i].col;
        CHECK_MSG(geul_cuda_apart(part, t) == cases[i].apart && geul_cuda_apart(t, part) == cases[i].apart, "case %zu",
                  i);
    }
    geul_context_free(ctx);
}

/* ---------------------------------------------------------------------------------- failures -- */

TEST(cuda_steps_that_fail_are_named)
{
    struct bed b;
    if (!open_bed(&b, &bed_kernels, NULL))
        return;
    struct geul_tensor *x = input(&b, 1, N), *out = geul_named(geul_scale(b.ctx, x, 2), "layer 3's scale");
    struct geul_graph *g = plan(&b, &out, 1);
    REQUIRE(g && write_all(x, 1));
    bed_fault = BED_REFUSED;
    is(geul_runtime_run(b.rt, g), GEUL_ERROR_UNSUPPORTED, b.ctx);
    CHECK_MSG(strstr(geul_error(b.ctx), "CPU as sm_90 (cuda:0): kernel scale of layer 3's scale (scale) failed: "),
              "%s", geul_error(b.ctx));
    geul_error_clear(b.ctx);
    is(geul_runtime_run(b.rt, g), GEUL_OK, b.ctx); /* the card lives */
    CHECK_MSG(value(out, 0) == 2, "%g", (double)value(out, 0));
    close_bed(&b);
}

TEST(cuda_kernel_that_breaks_loses_the_card)
{
    struct bed b;
    if (!open_bed(&b, &bed_kernels, NULL))
        return;
    struct geul_tensor *x = input(&b, 1, N), *out = geul_scale(b.ctx, x, 2);
    struct geul_graph *g = plan(&b, &out, 1);
    REQUIRE(g && write_all(x, 1));
    bed_fault = BED_BREAKS;
    is(geul_runtime_run(b.rt, g), GEUL_ERROR_DEVICE, b.ctx);
    CHECK_MSG(strstr(geul_error(b.ctx), "CPU as sm_90 (cuda:0) is lost") && strstr(geul_error(b.ctx), "load the model"),
              "%s", geul_error(b.ctx));
    for (int i = 0; i < 2; i++) {
        geul_error_clear(b.ctx);
        is(geul_runtime_run(b.rt, g), GEUL_ERROR_DEVICE, b.ctx);
    }
    close_bed(&b);
}

TEST(cuda_plan_without_a_kernel_is_refused)
{
    struct bed b;
    if (!open_bed(&b, &bed_kernels, NULL))
        return;
    struct geul_tensor *x = input(&b, 1, N), *out = geul_named(geul_contiguous(b.ctx, x), "copy of x");
    struct geul_queue *queue = geul_backend_cuda.queue_new(b.ctx, b.device, NULL);
    struct geul_prepared *p = NULL;
    CHECK(!geul_device_supports(b.device, out));
    CHECK_INT(geul_backend_cuda.working(queue, &out, 1), SIZE_MAX);
    is(geul_backend_cuda.prepare(b.ctx, queue, &out, 1, &p), GEUL_ERROR_UNSUPPORTED, b.ctx);
    CHECK(!p);
    CHECK_MSG(strstr(geul_error(b.ctx), "copy of x (contiguous) on CPU as sm_90: there is no kernel"), "%s",
              geul_error(b.ctx));
    geul_backend_cuda.queue_free(b.ctx, queue);
    close_bed(&b);
}

/* All that a program does with a card, up to three runs; the status of what failed first. */
static enum geul_status use_card(struct geul_context *ctx)
{
    struct geul_device *device = geul_backend_cuda.open(ctx, 0, 0);
    struct geul_runtime *rt = device ? geul_runtime_new_on(ctx, &device, 1, NULL) : NULL;
    struct geul_tensor *x = geul_input(ctx, GEUL_TYPE_F32, 2, (const int64_t[]){1, N}, "x");
    struct geul_tensor *out = geul_scale(ctx, geul_gelu(ctx, geul_add(ctx, x, x), GEUL_GELU_ERF), 2);
    struct geul_graph *g = geul_graph_new(ctx, &out, 1);
    enum geul_status status = rt && g ? geul_runtime_plan(rt, g) : GEUL_ERROR_MEMORY;
    float values[N] = {1};
    if (status == GEUL_OK)
        status = geul_tensor_write(x, values, sizeof values);
    for (int run = 0; run < 3 && status == GEUL_OK; run++)
        status = geul_runtime_run(rt, g);
    if (status == GEUL_OK)
        status = geul_tensor_read(out, values, sizeof values);
    if (status == GEUL_OK)
        CHECK_MSG(values[0] == 4, "%g", (double)values[0]);
    geul_runtime_free(rt);
    if (device)
        geul_backend_cuda.close(ctx, device);
    return geul_error_status(ctx) != GEUL_OK ? geul_error_status(ctx) : status;
}

/* Calls whose failure nobody looks at: what frees something, and what asks the card when it is opened and closed, which
 * is asked again after a reset. Capturing is given up; the error shows in what is called next, if it is fatal. */
static bool may_pass(enum host_gpu_call call)
{
    static const enum host_gpu_call calls[] = {
        HOST_GPU_release,  HOST_GPU_stream_free,  HOST_GPU_event_free,  HOST_GPU_graph_free,
        HOST_GPU_use,      HOST_GPU_wait,         HOST_GPU_stream_wait, HOST_GPU_memory,
        HOST_GPU_describe, HOST_GPU_host_release, HOST_GPU_reset,       HOST_GPU_last_error,
    };
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (call == calls[i])
            return true;
    return false;
}

/* One use of the card in which a call fails, and one after it. Whether it came to that call. */
static bool try_failing(enum host_gpu_call call, long n, int error)
{
    struct geul_context *ctx = geul_context_new(NULL);
    host_gpu_machine("sm_90");
    host_gpu_fail(call, n, error);
    enum geul_status status = use_card(ctx);
    const bool came = host_gpu_calls(call) >= n, fatal = error == 719;
    const bool given_up = call == HOST_GPU_capture_begin || call == HOST_GPU_capture_end || call == HOST_GPU_launch;
    if (came && status == GEUL_OK)
        CHECK_MSG(may_pass(call) || (given_up && !fatal), "call %d, %ld failed with %d, and nobody noticed", (int)call,
                  n, error);
    else
        CHECK_MSG(came == (status != GEUL_OK && geul_error(ctx)[0]), "call %d, %ld failed with %d: status %d, \"%s\"",
                  (int)call, n, error, (int)status, geul_error(ctx));
    if (fatal || !may_pass(call)) /* a block that could not be freed stays, until the card is reset */
        bed_is_clean();
    host_gpu_fail(HOST_GPU_any, 0, 0);
    geul_error_clear(ctx);
    CHECK_MSG(use_card(ctx) == GEUL_OK, "after call %d, %ld failed with %d: %s", (int)call, n, error, geul_error(ctx));
    geul_context_free(ctx);
    return came;
}

TEST(cuda_every_call_may_fail)
{
    static const int errors[] = {CUDA_NO_MEMORY, 719, 1};
    geul_cuda_kernels = &bed_kernels;
    long calls = 0;
    for (int e = 0; e < 3; e++)
        for (int call = HOST_GPU_any + 1; call < HOST_GPU_COUNT; call++)
            for (long n = 1; try_failing((enum host_gpu_call)call, n, errors[e]); n++)
                calls++;
    CHECK_MSG(calls > 200, "%ld calls failed", calls);
}

TEST(cuda_memory_of_the_host_may_be_short)
{
    struct test_shortage s = {.most = 400};
    while (test_shortage_next(&s)) {
        host_gpu_machine("sm_90");
        geul_cuda_kernels = &bed_kernels;
        s.ok = use_card(s.ctx) == GEUL_OK;
        if (!bed_is_clean())
            return;
    }
}
