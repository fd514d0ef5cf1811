/* Graphs and the scheduler: what is kept, what is reused, and copies between devices that cannot read each other's
 * memory. */
#include "core/runtime.h"
#include "tests/harness.h"
#include "tests/poison.h"

TEST(graph_keeps_only_what_the_outputs_need)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_tensor *x = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){2, 8}, "x");
    struct geul_tensor *y = geul_gelu(ctx, x, GEUL_GELU_ERF);
    struct geul_tensor *dead = geul_add(ctx, x, x);
    struct geul_tensor *z = geul_add(ctx, y, x);
    CHECK(dead != NULL);
    struct geul_graph *g = geul_graph_new(ctx, &z, 1);
    REQUIRE(g);
    CHECK_INT(geul_graph_node_count(g), 2);
    struct geul_graph *both = geul_graph_new(ctx, (struct geul_tensor *[]){z, dead}, 2);
    REQUIRE(both);
    CHECK_INT(geul_graph_node_count(both), 3);
    geul_context_free(ctx);
}

TEST(builders_report_the_first_mistake)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_tensor *x = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){2, 8}, "x");
    struct geul_tensor *w = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){4, 6}, "w");
    struct geul_tensor *y = geul_gelu(ctx, geul_linear(ctx, x, w, NULL, false), GEUL_GELU_ERF);
    CHECK(y == NULL);
    CHECK(geul_add(ctx, y, x) == NULL);
    CHECK(geul_graph_new(ctx, &y, 1) == NULL);
    const char *e = geul_error(ctx);
    CHECK_MSG(strstr(e, "matmul") && strstr(e, "x f32 (2, 8)") && strstr(e, "(6, 4)"), "%s", e);
    geul_error_clear(ctx);
    CHECK(geul_reshape(ctx, x, 2, (int64_t[]){3, 5}) == NULL);
    CHECK(geul_narrow(ctx, x, 1, 4, 5) == NULL);
    CHECK(geul_input(ctx, GEUL_TYPE_Q8_0, 1, (int64_t[]){33}, "q") == NULL);
    CHECK(geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){INT64_MAX, INT64_MAX}, "huge") == NULL);
    CHECK(geul_rope(ctx, x, w, 4, 10000) == NULL);
    geul_context_free(ctx);
}

/* y = gelu(x + w) + w, with w on device home, computed over all devices. */
static void check_split(struct geul_context *ctx, struct geul_device *const *devices, int n, int home,
                        int expected_segments)
{
    struct geul_runtime *rt = geul_runtime_new_on(ctx, devices, n, NULL);
    REQUIRE(rt);
    struct geul_context *gctx = geul_context_new_like(ctx);
    float w[8], x[16], y[16];
    for (int i = 0; i < 16; i++)
        x[i] = (float)i * 0.25f - 2;
    for (int i = 0; i < 8; i++)
        w[i] = 1 - (float)i * 0.3f;
    struct geul_buffer buffer;
    REQUIRE(devices[home]->backend->buffer_new(ctx, devices[home], sizeof w, &buffer) == GEUL_OK);
    REQUIRE(devices[home]->backend->upload(ctx, &buffer, buffer.base, w, sizeof w) == GEUL_OK);
    struct geul_tensor *weight = geul_leaf(gctx, GEUL_TYPE_F32, 1, (int64_t[]){8}, "w", &buffer, buffer.base);
    struct geul_tensor *in = geul_input(gctx, GEUL_TYPE_F32, 2, (int64_t[]){2, 8}, "x");
    /* The first GELU reads only an input, so it goes to device 0. */
    struct geul_tensor *a = geul_gelu(gctx, geul_gelu(gctx, in, GEUL_GELU_ERF), GEUL_GELU_TANH);
    struct geul_tensor *b = geul_add(gctx, geul_narrow(gctx, a, 0, 1, 1), weight);
    struct geul_tensor *out = geul_add(gctx, a, geul_reshape(gctx, b, 1, (int64_t[]){8}));
    struct geul_graph *g = geul_graph_new(gctx, &out, 1);
    REQUIRE(g && geul_runtime_plan(rt, g) == GEUL_OK);
    CHECK_INT(geul_runtime_segment_count(rt), expected_segments);
    CHECK_INT(geul_runtime_copy_count(rt), expected_segments - 1); /* here each segment but the first begins with one */
    for (int d = 0; d < n; d++)
        CHECK((geul_runtime_bytes(rt, d) > 0) == (expected_segments > 1 || d == home));
    for (int round = 0; round < 2; round++) { /* inputs survive a run */
        if (round == 0)
            REQUIRE(geul_tensor_write(in, x, sizeof x) == GEUL_OK);
        REQUIRE(geul_runtime_run(rt, g) == GEUL_OK && geul_tensor_read(out, y, sizeof y) == GEUL_OK);
        for (int i = 0; i < 16; i++) {
            double v[2]; /* a at row of i, a at row 1 */
            for (int k = 0; k < 2; k++) {
                double t = (double)x[k ? 8 + i % 8 : i];
                t = 0.5 * t * (1 + erf(t * 0.70710678118654752));
                v[k] = 0.5 * t * (1 + tanh(0.79788456080286536 * (t + 0.044715 * t * t * t)));
            }
            double expected = v[0] + v[1] + (double)w[i % 8];
            CHECK_MSG(fabs((double)y[i] - expected) < 1e-5, "home %d, element %d: %g, expected %g", home, i,
                      (double)y[i], expected);
        }
    }
    devices[home]->backend->buffer_free(ctx, &buffer);
    geul_context_free(gctx);
    geul_runtime_free(rt);
}

TEST(schedule_copies_between_devices)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_device *cpu = geul_device_open(ctx, GEUL_DEVICE_HOST, 1), *p = poison_open(ctx, NULL),
                       *q = poison_open(ctx, NULL);
    REQUIRE(cpu && p && q);
    check_split(ctx, (struct geul_device *[]){cpu}, 1, 0, 1);
    check_split(ctx, (struct geul_device *[]){cpu, p}, 2, 1, 3);
    check_split(ctx, (struct geul_device *[]){p, cpu}, 2, 1, 3);
    check_split(ctx, (struct geul_device *[]){p, q}, 2, 1, 3);
    check_split(ctx, (struct geul_device *[]){p, q}, 2, 0, 1);
    geul_device_close(ctx, q);
    geul_device_close(ctx, p);
    geul_device_close(ctx, cpu);
    geul_context_free(ctx);
}

TEST(schedule_refuses_unplanned_graphs)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_runtime *rt = geul_runtime_new(ctx, &(struct geul_runtime_options){.n_threads = 1});
    REQUIRE(rt);
    struct geul_tensor *x = geul_input(ctx, GEUL_TYPE_F32, 1, (int64_t[]){8}, "x");
    struct geul_tensor *y = geul_add(ctx, x, x);
    struct geul_graph *g = geul_graph_new(ctx, &y, 1);
    REQUIRE(g);
    float v[8] = {0};
    enum geul_status status = geul_tensor_write(x, v, sizeof v);
    CHECK_INT(status, GEUL_ERROR_ARGUMENT);
    geul_error_clear(ctx);
    status = geul_runtime_run(rt, g);
    CHECK_INT(status, GEUL_ERROR_ARGUMENT);
    geul_error_clear(ctx);
    REQUIRE(geul_runtime_plan(rt, g) == GEUL_OK);
    status = geul_tensor_write(x, v, 4);
    CHECK_INT(status, GEUL_ERROR_ARGUMENT);
    CHECK(strstr(geul_error(ctx), "32 bytes") != NULL);
    geul_runtime_free(rt);
    geul_context_free(ctx);
}

/* A small graph planned after a larger one of the same context was made, and the other way round. */
TEST(graphs_of_one_context_do_not_mix)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_runtime *rt = geul_runtime_new(ctx, &(struct geul_runtime_options){.n_threads = 1});
    REQUIRE(rt);
    CHECK_INT(geul_runtime_thread_count(rt), 1);
    struct geul_tensor *x = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){2, 8}, "x");
    struct geul_tensor *big = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){64, 64}, "big");
    for (int i = 0; i < 200; i++)
        big = geul_add(ctx, big, big);
    struct geul_tensor *twice = geul_add(ctx, x, x); /* needed again after the next result */
    struct geul_tensor *y = geul_add(ctx, geul_add(ctx, twice, x), twice);
    struct geul_graph *small = geul_graph_new(ctx, &y, 1);
    struct geul_graph *large = geul_graph_new(ctx, (struct geul_tensor *[]){y, big}, 2);
    REQUIRE(small && large);
    for (int round = 0; round < 2; round++) {
        struct geul_graph *g = round ? large : small;
        float v[16], out[16];
        for (int i = 0; i < 16; i++)
            v[i] = (float)(i - round);
        REQUIRE(geul_runtime_plan(rt, g) == GEUL_OK);
        REQUIRE(geul_tensor_write(x, v, sizeof v) == GEUL_OK && geul_runtime_run(rt, g) == GEUL_OK);
        REQUIRE(geul_tensor_read(y, out, sizeof out) == GEUL_OK);
        for (int i = 0; i < 16; i++)
            CHECK_MSG(out[i] == 5 * v[i], "round %d, element %d: %g", round, i, (double)out[i]);
    }
    geul_runtime_free(rt);
    geul_context_free(ctx);
}

TEST(graph_refuses_outputs_of_another_context)
{
    struct geul_context *ctx = geul_context_new(NULL), *other = geul_context_new(NULL);
    struct geul_tensor *x = geul_input(other, GEUL_TYPE_F32, 1, (int64_t[]){8}, "x");
    struct geul_tensor *y = geul_add(other, x, x);
    CHECK(geul_graph_new(ctx, &y, 1) == NULL);
    CHECK_MSG(strstr(geul_error(ctx), "another context") != NULL, "%s", geul_error(ctx));
    geul_context_free(other);
    geul_context_free(ctx);
}

/* b (K, N) as it is written in a paper, and as the transpose of a weight; K of 0 is a sum of nothing. */
TEST(matmul_takes_a_plain_right_side)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_runtime *rt = geul_runtime_new(ctx, &(struct geul_runtime_options){.n_threads = 2});
    REQUIRE(rt);
    static const int shapes[][3] = {{1, 5, 3}, {2, 1, 7}, {19, 33, 21}, {8, 0, 4}, {1, 0, 4}, {3, 4, 1}, {40, 0, 40}};
    for (size_t c = 0; c < sizeof shapes / sizeof *shapes; c++) {
        int m = shapes[c][0], k = shapes[c][1], n = shapes[c][2];
        struct geul_tensor *a = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){m, k}, "a");
        struct geul_tensor *b = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){k, n}, "b");
        struct geul_tensor *w = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){n, k}, "w");
        struct geul_tensor *y = geul_matmul(ctx, a, b), *z = geul_linear(ctx, a, w, NULL, false);
        if (!CHECK_MSG(y && z, "%s", geul_error(ctx)))
            break;
        struct geul_graph *g = geul_graph_new(ctx, (struct geul_tensor *[]){y, z}, 2);
        REQUIRE(g && geul_runtime_plan(rt, g) == GEUL_OK);
        float va[19 * 33 + 8], vb[33 * 21 + 8], vw[33 * 21 + 8], out[2][1600];
        for (int i = 0; i < m * k; i++)
            va[i] = (float)(i % 7) - 3;
        for (int i = 0; i < k * n; i++) {
            vb[i] = (float)(i % 5) - 2;
            vw[i % n * k + i / n] = vb[i];
        }
        memset(out, 0x7f, sizeof out);
        size_t bytes = (size_t)(m * n) * sizeof(float);
        REQUIRE(geul_tensor_write(a, va, (size_t)(m * k) * sizeof(float)) == GEUL_OK);
        REQUIRE(geul_tensor_write(b, vb, (size_t)(k * n) * sizeof(float)) == GEUL_OK);
        REQUIRE(geul_tensor_write(w, vw, (size_t)(k * n) * sizeof(float)) == GEUL_OK);
        for (int i = 0; i < 2; i++) { /* what the memory of the results held before */
            struct geul_tensor *t = i ? z : y;
            REQUIRE(geul_tensor_write(t, out[i], bytes) == GEUL_OK);
        }
        REQUIRE(geul_runtime_run(rt, g) == GEUL_OK);
        REQUIRE(geul_tensor_read(y, out[0], bytes) == GEUL_OK && geul_tensor_read(z, out[1], bytes) == GEUL_OK);
        for (int i = 0; i < m * n; i++) {
            float expected = 0; /* whole numbers: exact */
            for (int j = 0; j < k; j++)
                expected += va[i / n * k + j] * vb[j * n + i % n];
            CHECK_MSG(out[0][i] == expected && out[1][i] == expected, "(%d, %d) x (%d, %d), element %d: %g, %g, not %g",
                      m, k, k, n, i, (double)out[0][i], (double)out[1][i], (double)expected);
        }
    }
    geul_runtime_free(rt);
    geul_context_free(ctx);
}
