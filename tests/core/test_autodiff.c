/* test_autodiff.c: gradients of whole graphs: against finite differences, whether values are kept or recomputed, flows
 * that meet, sums in place, and what must fail. */
#include "core/autodiff.h"
#include "core/graph.h"
#include "core/runtime.h"
#include "tests/harness.h"

enum { T = 7, C = 12, F = 20, V = 15, H = 3, SEED = 20261125 };

/* A small network with every differentiable operation in it: its leaves in order, and the losses (T). */
struct net {
    struct geul_tensor *leaf[12];
    int n_leaves;
    struct geul_tensor *ids, *seq_pos, *targets, *seed;
    struct geul_tensor *middle; /* between its two layers */
    struct geul_tensor *loss;
};

static struct geul_tensor *leaf(struct geul_context *ctx, struct net *n, int dims, int64_t a, int64_t b)
{
    char name[16];
    snprintf(name, sizeof name, "leaf%d", n->n_leaves);
    return n->leaf[n->n_leaves++] = geul_input(ctx, GEUL_TYPE_F32, dims, (int64_t[]){a, b}, name);
}

/* Attention between linear layers, with views of views. */
static struct geul_tensor *mixed(struct geul_context *ctx, struct net *n, struct geul_tensor *x)
{
    struct geul_tensor *qkv = geul_linear(ctx, x, leaf(ctx, n, 2, 3 * C, C), leaf(ctx, n, 1, 3 * C, 0), true);
    struct geul_tensor *part[3];
    for (int i = 0; i < 3; i++)
        part[i] = geul_split_last(ctx, geul_narrow(ctx, qkv, 1, i * C, C), H);
    part[0] = geul_rope(ctx, part[0], n->seq_pos, 4, 100);
    part[1] = geul_rope(ctx, part[1], n->seq_pos, 2, 100);
    struct geul_tensor *a = geul_attention(ctx, part[0], part[1], part[2], n->seq_pos, 0.6f);
    return geul_reshape(ctx, a, 2, (int64_t[]){T, C});
}

static void build(struct geul_context *ctx, struct net *n)
{
    *n = (struct net){.n_leaves = 0};
    n->ids = geul_input(ctx, GEUL_TYPE_I32, 1, (int64_t[]){T}, "ids");
    n->seq_pos = geul_input(ctx, GEUL_TYPE_I32, 2, (int64_t[]){T, 2}, "seq_pos");
    n->targets = geul_input(ctx, GEUL_TYPE_I32, 1, (int64_t[]){T}, "targets");
    n->seed = geul_input(ctx, GEUL_TYPE_I32, 1, (int64_t[]){2}, "seed");
    struct geul_tensor *x = geul_embed(ctx, leaf(ctx, n, 2, V, C), n->ids); /* (T, C) */
    struct geul_tensor *y = geul_layernorm(ctx, x, leaf(ctx, n, 1, C, 0), leaf(ctx, n, 1, C, 0), 1e-3f);
    x = geul_add(ctx, x, mixed(ctx, n, y));
    n->middle = x;
    struct geul_tensor *h = geul_linear(ctx, x, leaf(ctx, n, 2, F, C), leaf(ctx, n, 1, F, 0), true); /* (T, F) */
    h = geul_dropout(ctx, geul_gelu(ctx, h, GEUL_GELU_ERF), n->seed, 0.25f, 3);
    h = geul_scale(ctx, geul_matmul(ctx, h, leaf(ctx, n, 2, F, C)), 0.7f); /* a right side that is not transposed */
    h = geul_gelu(ctx, geul_add(ctx, h, leaf(ctx, n, 1, C, 0)), GEUL_GELU_TANH); /* broadcast */
    x = geul_contiguous(ctx, geul_transpose(ctx, geul_transpose(ctx, geul_add(ctx, x, h), 0, 1), 0, 1));
    n->loss = geul_cross_entropy(ctx, geul_linear(ctx, x, leaf(ctx, n, 2, V, C), NULL, false), n->targets, 0.1f, 0.01f);
}

/* Values of the leaves; bump is added to element `at` of leaf number `which`. */
static bool write_leaves(const struct net *n, int which, int64_t at, float bump)
{
    const int32_t ids[T] = {3, 1, 4, 1, 5, 9, 2}, targets[T] = {1, 4, 1, 5, 9, 2, 6}, seed[2] = {11, 12};
    int32_t seq_pos[2 * T];
    uint64_t state = SEED;
    for (int i = 0; i < T; i++) { /* two sequences */
        seq_pos[2 * i] = i >= 4;
        seq_pos[2 * i + 1] = i >= 4 ? i - 4 : i;
    }
    bool ok = geul_tensor_write(n->ids, ids, sizeof ids) == GEUL_OK &&
              geul_tensor_write(n->seq_pos, seq_pos, sizeof seq_pos) == GEUL_OK &&
              geul_tensor_write(n->targets, targets, sizeof targets) == GEUL_OK &&
              geul_tensor_write(n->seed, seed, sizeof seed) == GEUL_OK;
    for (int i = 0; ok && i < n->n_leaves; i++) {
        int64_t count = geul_tensor_elements(n->leaf[i]);
        float *v = malloc((size_t)count * sizeof *v);
        for (int64_t k = 0; k < count; k++)
            v[k] = 0.5f * test_normal(&state) + (i == which && k == at ? bump : 0);
        ok = geul_tensor_write(n->leaf[i], v, (size_t)count * sizeof *v) == GEUL_OK;
        free(v);
    }
    return ok;
}

/* How the gradients are requested. */
struct way {
    bool keep_middle, keep_all, two_flows, want_middle;
};

/* All gradients of the weighted losses, leaf by leaf, into out; *n_out of them. */
static bool gradients(struct way way, float *out, size_t *n_out)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_runtime *rt = geul_runtime_new(ctx, NULL);
    struct net n;
    struct geul_tensor *outputs[16], *middle = NULL;
    int n_outputs = 0;
    build(ctx, &n);
    struct geul_gradients *g = geul_gradients_new(ctx);
    struct geul_tensor *weights = geul_input(ctx, GEUL_TYPE_F32, 1, (int64_t[]){T}, "weights");
    for (int i = 0; i < n.n_leaves; i++)
        geul_gradients_want(g, n.leaf[i], NULL);
    if (way.want_middle)
        geul_gradients_want(g, n.middle, NULL);
    if (way.keep_middle)
        geul_gradients_keep(g, n.middle);
    if (way.keep_all)
        geul_gradients_keep(g, n.loss);
    CHECK(geul_gradients_flow(g, n.loss, weights, way.two_flows ? n.middle : NULL) == GEUL_OK);
    if (way.two_flows)
        CHECK(geul_gradients_flow(g, n.middle, NULL, NULL) == GEUL_OK);
    for (int i = 0; i < n.n_leaves; i++)
        outputs[n_outputs++] = geul_gradients_of(g, n.leaf[i]);
    if (way.want_middle)
        outputs[n_outputs++] = middle = geul_gradients_of(g, n.middle);
    struct geul_graph *graph = geul_graph_new(ctx, outputs, n_outputs);
    const float w[T] = {0.3f, -0.2f, 0.5f, 0, 0.1f, 1, 0.7f};
    bool ok = graph && geul_runtime_plan(rt, graph) == GEUL_OK && write_leaves(&n, -1, 0, 0) &&
              geul_tensor_write(weights, w, sizeof w) == GEUL_OK && geul_runtime_run(rt, graph) == GEUL_OK;
    *n_out = 0;
    for (int i = 0; ok && i < n.n_leaves; i++) {
        ok = geul_tensor_read(outputs[i], out + *n_out, geul_tensor_bytes(outputs[i])) == GEUL_OK;
        *n_out += (size_t)geul_tensor_elements(outputs[i]);
    }
    CHECK_MSG(ok, "%s", geul_error(ctx));
    CHECK(!way.want_middle || (middle && geul_tensor_elements(middle) == T * C));
    geul_runtime_free(rt);
    geul_context_free(ctx);
    return ok;
}

/* The weighted loss with one element bumped. */
static double loss_at(struct geul_context *ctx, struct geul_runtime *rt, struct geul_graph *graph, const struct net *n,
                      int which, int64_t at, float bump)
{
    const double w[T] = {0.3f, -0.2f, 0.5f, 0, 0.1f, 1, 0.7f};
    float loss[T];
    double sum = 0;
    CHECK_MSG(write_leaves(n, which, at, bump) && geul_runtime_run(rt, graph) == GEUL_OK &&
                  geul_tensor_read(n->loss, loss, sizeof loss) == GEUL_OK,
              "%s", geul_error(ctx));
    for (int i = 0; i < T; i++)
        sum += w[i] * (double)loss[i];
    return sum;
}

TEST(autodiff_equals_finite_differences)
{
    enum { MOST = 4096 };
    static float got[MOST];
    size_t n_got, at = 0;
    REQUIRE(gradients((struct way){.keep_all = true}, got, &n_got) && n_got < MOST);
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_runtime *rt = geul_runtime_new(ctx, NULL);
    struct net n;
    build(ctx, &n);
    struct geul_graph *graph = geul_graph_new(ctx, &n.loss, 1);
    REQUIRE(graph && geul_runtime_plan(rt, graph) == GEUL_OK);
    for (int i = 0; i < n.n_leaves; i++)
        for (int64_t k = 0; k < geul_tensor_elements(n.leaf[i]); k++, at++) {
            const float h = 4e-3f;
            double up = loss_at(ctx, rt, graph, &n, i, k, h), down = loss_at(ctx, rt, graph, &n, i, k, -h);
            double want = (up - down) / (2 * (double)h);
            CHECK_MSG(fabs((double)got[at] - want) < 6e-4 + 4e-3 * fabs(want), "leaf %d element %d: %g, not %g", i,
                      (int)k, (double)got[at], want);
        }
    CHECK_INT(at, n_got);
    geul_runtime_free(rt);
    geul_context_free(ctx);
}

TEST(autodiff_does_not_depend_on_what_is_kept)
{
    enum { MOST = 4096 };
    static float want[MOST], got[MOST];
    static const struct way ways[] = {{.keep_middle = true},
                                      {.two_flows = true},
                                      {.want_middle = true},
                                      {.keep_middle = true, .two_flows = true, .want_middle = true}};
    size_t n, m;
    REQUIRE(gradients((struct way){.keep_all = false}, want, &n));
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        REQUIRE(gradients(ways[i], got, &m) && m == n);
        CHECK_MSG(memcmp(got, want, n * sizeof *got) == 0, "way %d gives other bits", (int)i);
    }
}

/* What is not kept takes no memory: activations of a deep chain grow with the pieces, not with the depth. */
TEST(autodiff_recomputes_instead_of_keeping)
{
    enum { DEPTH = 32, WIDE = 4096 };
    size_t bytes[2] = {0, 0};
    struct geul_runtime_needs needs[GEUL_MAX_DEVICES];
    for (int keep = 0; keep < 2; keep++) {
        struct geul_context *ctx = geul_context_new(NULL);
        struct geul_runtime *rt = geul_runtime_new(ctx, NULL);
        struct geul_gradients *g = geul_gradients_new(ctx);
        struct geul_tensor *x = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){16, WIDE}, "x"), *y = x;
        geul_gradients_want(g, x, NULL);
        for (int i = 0; i < DEPTH; i++) {
            y = geul_gelu(ctx, y, GEUL_GELU_ERF);
            if (keep && i % 6 == 5)
                geul_gradients_keep(g, y);
        }
        CHECK(geul_gradients_flow(g, y, geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){16, WIDE}, "dy"), NULL) ==
              GEUL_OK);
        struct geul_tensor *dx = geul_gradients_of(g, x);
        struct geul_graph *graph = geul_graph_new(ctx, &dx, 1);
        REQUIRE(graph && geul_runtime_measure(rt, graph, needs) == GEUL_OK);
        bytes[keep] = needs[0].values;
        geul_runtime_free(rt);
        geul_context_free(ctx);
    }
    CHECK_MSG(bytes[1] * 2 < bytes[0], "%zu bytes with recomputation, %zu without", bytes[1], bytes[0]);
}

/* Sums go into leaves, are added to what these hold, and add up over runs and over two users of one weight. */
TEST(autodiff_adds_into_leaves)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_runtime *rt = geul_runtime_new(ctx, NULL);
    struct geul_gradients *g = geul_gradients_new(ctx);
    struct geul_tensor *w = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){2, 3}, "w");
    struct geul_tensor *dw = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){2, 3}, "dw");
    struct geul_tensor *x = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){1, 3}, "x");
    struct geul_tensor *dy = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){1, 2}, "dy");
    geul_gradients_want(g, w, dw);
    struct geul_tensor *y = geul_add(ctx, geul_linear(ctx, x, w, NULL, false), geul_linear(ctx, x, w, NULL, false));
    CHECK(geul_gradients_flow(g, y, dy, NULL) == GEUL_OK);
    struct geul_tensor *sum = geul_gradients_of(g, w);
    struct geul_graph *graph = geul_graph_new(ctx, &sum, 1);
    const float wv[6] = {0}, dwv[6] = {1, 1, 1, 1, 1, 1}, xv[3] = {1, 2, 3}, dyv[2] = {10, 20};
    float out[6];
    REQUIRE(graph && geul_runtime_plan(rt, graph) == GEUL_OK);
    (void)wv; /* nothing reads w's value: its place is not in the plan */
    REQUIRE(geul_tensor_write(dw, dwv, sizeof dwv) == GEUL_OK && geul_tensor_write(x, xv, sizeof xv) == GEUL_OK &&
            geul_tensor_write(dy, dyv, sizeof dyv) == GEUL_OK);
    for (int run = 1; run <= 2; run++) {
        REQUIRE(geul_runtime_run(rt, graph) == GEUL_OK && geul_tensor_read(sum, out, sizeof out) == GEUL_OK);
        for (int i = 0; i < 6; i++) {
            float want = 1 + (float)(2 * run) * dyv[i / 3] * xv[i % 3];
            CHECK_MSG(out[i] == want, "run %d element %d: %g, not %g", run, i, (double)out[i], (double)want);
        }
    }
    geul_runtime_free(rt);
    geul_context_free(ctx);
}

TEST(autodiff_names_what_has_no_gradient)
{
    struct geul_context *ctx = geul_context_new(NULL), *other = geul_context_new(NULL);
    struct geul_gradients *g = geul_gradients_new(ctx);
    struct geul_tensor *q = geul_input(ctx, GEUL_TYPE_F32, 3, (int64_t[]){2, 1, 4}, "q");
    struct geul_tensor *cache = geul_input(ctx, GEUL_TYPE_F32, 4, (int64_t[]){1, 1, 8, 4}, "cache");
    struct geul_tensor *seq_pos = geul_input(ctx, GEUL_TYPE_I32, 2, (int64_t[]){2, 2}, "seq_pos");
    struct geul_tensor *y = geul_attention(ctx, q, cache, cache, seq_pos, 1);
    geul_gradients_want(g, q, NULL);
    CHECK(geul_gradients_flow(g, y, y, NULL) == GEUL_ERROR_UNSUPPORTED);
    CHECK_MSG(strstr(geul_error(ctx), "attention") != NULL, "%s", geul_error(ctx));
    geul_error_clear(ctx);
    struct geul_tensor *foreign = geul_input(other, GEUL_TYPE_F32, 1, (int64_t[]){2}, "foreign");
    CHECK(geul_gradients_flow(g, foreign, foreign, NULL) == GEUL_ERROR_ARGUMENT);
    CHECK(geul_gradients_flow(g, NULL, NULL, NULL) != GEUL_OK);
    /* Nothing that needs a gradient is below it: nothing flows, and that is not a failure. */
    geul_error_clear(ctx);
    struct geul_tensor *alone =
        geul_gelu(ctx, geul_input(ctx, GEUL_TYPE_F32, 1, (int64_t[]){4}, "alone"), GEUL_GELU_ERF);
    CHECK(geul_gradients_flow(g, alone, alone, NULL) == GEUL_OK && geul_gradients_of(g, alone) == NULL);
    geul_context_free(ctx);
    geul_context_free(other);
}

/* Building gradients with every n-th allocation failing: always a message. */
TEST(autodiff_survives_short_memory)
{
    struct test_shortage s = {.most = 1000};
    while (test_shortage_next(&s)) {
        struct net n;
        build(s.ctx, &n);
        struct geul_gradients *g = geul_gradients_new(s.ctx);
        struct geul_tensor *dy = geul_input(s.ctx, GEUL_TYPE_F32, 1, (int64_t[]){T}, "dy");
        for (int i = 0; i < n.n_leaves; i++)
            geul_gradients_want(g, n.leaf[i], NULL);
        geul_gradients_keep(g, n.middle);
        bool flows = geul_gradients_flow(g, n.loss, dy, NULL) == GEUL_OK;
        struct geul_tensor *dw = flows ? geul_gradients_of(g, n.leaf[0]) : NULL;
        s.ok = flows && geul_graph_new(s.ctx, &dw, 1);
    }
}

/* What autodiff_names_what_has_no_gradient is for leaves that sums cannot go to. */
TEST(autodiff_refuses_sums_into_what_does_not_fit)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_tensor *x = geul_input(ctx, GEUL_TYPE_F32, 1, (int64_t[]){2}, "x");
    struct geul_tensor *dm = geul_input(ctx, GEUL_TYPE_F32, 1, (int64_t[]){2}, "dm");
    struct geul_tensor *wide = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){3, 2}, "wide");
    struct geul_tensor *middle = geul_scale(ctx, x, 2), *y = geul_scale(ctx, middle, 3);
    struct geul_gradients *g = geul_gradients_new(ctx);
    geul_gradients_want(g, middle, dm); /* a node's gradient flows on, a leaf's stays */
    CHECK(geul_gradients_flow(g, y, dm, NULL) == GEUL_ERROR_ARGUMENT && strstr(geul_error(ctx), "dm"));
    geul_error_clear(ctx);
    g = geul_gradients_new(ctx);
    geul_gradients_want(g, x, wide);
    CHECK(geul_gradients_flow(g, y, dm, NULL) == GEUL_ERROR_ARGUMENT && strstr(geul_error(ctx), "wide"));
    geul_error_clear(ctx);
    g = geul_gradients_new(ctx);
    geul_gradients_want(g, x, NULL);
    CHECK(geul_gradients_flow(g, y, wide, NULL) == GEUL_ERROR_ARGUMENT && strstr(geul_error(ctx), "wide"));
    geul_context_free(ctx);
}

/* A transposed view that is wanted itself, and a part of a leaf whose elements are shorter than its gradient's. */
TEST(autodiff_of_views_of_leaves)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_runtime *rt = geul_runtime_new(ctx, NULL);
    struct geul_gradients *g = geul_gradients_new(ctx);
    struct geul_tensor *x = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){2, 3}, "x");
    struct geul_tensor *w = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){4, 3}, "w");
    struct geul_tensor *dy = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){2, 4}, "dy");
    struct geul_tensor *columns = geul_transpose(ctx, w, 0, 1);
    geul_gradients_want(g, columns, NULL);
    CHECK(geul_gradients_flow(g, geul_matmul(ctx, x, columns), dy, NULL) == GEUL_OK);
    struct geul_tensor *dcolumns = geul_gradients_of(g, columns);
    CHECK(dcolumns && dcolumns->shape[0] == 3 && dcolumns->shape[1] == 4);

    struct geul_tensor *half = geul_input(ctx, GEUL_TYPE_BF16, 2, (int64_t[]){4, 2}, "half");
    struct geul_tensor *dpart = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){2, 2}, "dpart");
    g = geul_gradients_new(ctx);
    geul_gradients_want(g, half, NULL);
    CHECK(geul_gradients_flow(g, geul_contiguous(ctx, geul_narrow(ctx, half, 0, 2, 2)), dpart, NULL) == GEUL_OK);
    struct geul_tensor *dhalf = geul_gradients_of(g, half);
    struct geul_graph *graph = geul_graph_new(ctx, &dhalf, 1);
    const float d[4] = {1, 2, 3, 4};
    float v[8];
    REQUIRE(graph && geul_runtime_plan(rt, graph) == GEUL_OK && geul_tensor_write(dpart, d, sizeof d) == GEUL_OK);
    REQUIRE(geul_runtime_run(rt, graph) == GEUL_OK && geul_tensor_read(dhalf, v, sizeof v) == GEUL_OK);
    for (int i = 0; i < 8; i++)
        CHECK_MSG(v[i] == (i < 4 ? 0 : d[i - 4]), "element %d: %g", i, (double)v[i]);
    geul_runtime_free(rt);
    geul_context_free(ctx);
}

/* A view of a wanted view: dy goes to the wanted one, where it lies in it; through it to a leaf that is wanted too. */
TEST(autodiff_of_views_of_wanted_views)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_runtime *rt = geul_runtime_new(ctx, NULL);
    struct geul_tensor *x = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){4, 2}, "x");
    struct geul_tensor *dy = geul_input(ctx, GEUL_TYPE_F32, 1, (int64_t[]){2}, "dy");
    struct geul_tensor *rows = geul_narrow(ctx, x, 0, 1, 3); /* rows 1 to 3 of x */
    struct geul_tensor *row = geul_reshape(ctx, geul_narrow(ctx, rows, 0, 1, 1), 1, (int64_t[]){2}); /* row 2 of x */
    for (int both = 0; both < 2; both++) {
        struct geul_gradients *g = geul_gradients_new(ctx);
        geul_gradients_want(g, rows, NULL);
        if (both)
            geul_gradients_want(g, x, NULL);
        REQUIRE(geul_gradients_flow(g, geul_contiguous(ctx, row), dy, NULL) == GEUL_OK);
        struct geul_tensor *out[2] = {geul_gradients_of(g, rows), both ? geul_gradients_of(g, x) : NULL};
        REQUIRE(CHECK_MSG(out[0] && (!both || out[1]), "a wanted view has no gradient"));
        const float d[2] = {5, 7};
        float drows[6], dx[8];
        struct geul_graph *graph = geul_graph_new(ctx, out, 1 + both);
        REQUIRE(graph && geul_runtime_plan(rt, graph) == GEUL_OK && geul_tensor_write(dy, d, sizeof d) == GEUL_OK);
        REQUIRE(geul_runtime_run(rt, graph) == GEUL_OK && geul_tensor_read(out[0], drows, sizeof drows) == GEUL_OK);
        for (int i = 0; i < 6; i++)
            CHECK_MSG(drows[i] == (i / 2 == 1 ? d[i % 2] : 0), "element %d: %g", i, (double)drows[i]);
        REQUIRE(!both || geul_tensor_read(out[1], dx, sizeof dx) == GEUL_OK);
        for (int i = 0; both && i < 8; i++)
            CHECK_MSG(dx[i] == (i / 2 == 2 ? d[i % 2] : 0), "element %d of x: %g", i, (double)dx[i]);
    }
    /* Where strides cannot say which part it is, that is an error and not silence. */
    struct geul_tensor *columns = geul_transpose(ctx, x, 0, 1);
    struct geul_gradients *g = geul_gradients_new(ctx);
    geul_gradients_want(g, columns, NULL);
    CHECK(geul_gradients_flow(g, geul_contiguous(ctx, geul_narrow(ctx, columns, 0, 1, 1)),
                              geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){1, 4}, "dy"),
                              NULL) == GEUL_ERROR_UNSUPPORTED);
    geul_runtime_free(rt);
    geul_context_free(ctx);
}

/* A wish that memory was too short for is not forgotten. */
TEST(autodiff_loses_no_wish)
{
    enum { N = 700 };
    static struct geul_tensor *w[N];
    for (long fail_at = 2; fail_at < 60; fail_at++) {
        struct test_allocator a = {.fail_at = fail_at};
        struct geul_context_options o = {.allocate = test_allocate, .allocate_user = &a};
        struct geul_context *ctx = geul_context_new(&o);
        struct geul_tensor *x = geul_input(ctx, GEUL_TYPE_F32, 1, (int64_t[]){2}, "x");
        for (int i = 0; i < N; i++)
            x = geul_add(ctx, x, w[i] = geul_input(ctx, GEUL_TYPE_F32, 1, (int64_t[]){2}, "w"));
        struct geul_tensor *dy = geul_input(ctx, GEUL_TYPE_F32, 1, (int64_t[]){2}, "dy");
        struct geul_gradients *g = x && dy ? geul_gradients_new(ctx) : NULL;
        for (int i = 0; g && i < N; i++)
            geul_gradients_want(g, w[i], NULL);
        bool ok = g && geul_gradients_flow(g, x, dy, NULL) == GEUL_OK;
        for (int i = 0; ok && i < N; i++)
            if (!CHECK_MSG(geul_gradients_of(g, w[i]), "allocation %ld: gradient %d is lost without a word", fail_at,
                           i))
                break;
        CHECK_MSG(ok || geul_error(ctx)[0], "allocation %ld failed without a message", fail_at);
        geul_context_free(ctx);
    }
}
