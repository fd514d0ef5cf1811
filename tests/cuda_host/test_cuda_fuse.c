/* test_cuda_fuse.c: what fuse.c computes together has the bits of the same nodes one by one, in fewer launches, and
 * what may not be taken together is not: results that somebody else reads, memory that is still read. */
#include "backends/cuda/device.h"
#include "convert/peft.h"
#include "core/graph.h"
#include "tests/cuda_host/cuda_rig.h"
#include "tests/cuda_host/host_gpu.h"
#include "tests/models/golden.h"
#include "tests/models/wide_logits.h"

/* Whether cards that are opened from now on have patterns. */
static bool together;

static struct geul_device *open_card(struct geul_context *ctx)
{
    static cuda_pattern *const none[] = {NULL};
    static struct cuda_kernels apart;
    host_gpu_machine("sm_90");
    struct geul_device *device = geul_backend_cuda.open(ctx, 0, 0);
    apart = *geul_cuda_kernels;
    apart.patterns = none;
    if (device && !together)
        geul_cuda_device(device)->kernels = &apart;
    return device;
}

/* ---------------------------------------------------------------------------- patterns one by one -- */

enum { TOKENS = 5, C = 64, F = 96, MOST = TOKENS * F, LEAVES = 8, OUTPUTS = 3 };

/* What a case is built from. Inputs are written with random numbers in the order in which they are made. */
struct graph {
    struct geul_context *ctx;
    struct geul_tensor *input[LEAVES], *output[OUTPUTS];
    int n_inputs, n_outputs;
};

static struct geul_tensor *input(struct graph *g, int64_t rows, int64_t cols)
{
    const int64_t shape[] = {rows, cols};
    return g->input[g->n_inputs++] = geul_input(g->ctx, GEUL_TYPE_F32, rows ? 2 : 1, rows ? shape : shape + 1, "input");
}

/* A result of the graph itself, whose memory it may give to another. */
static struct geul_tensor *computed(struct graph *g, int64_t cols)
{
    return geul_scale(g->ctx, input(g, TOKENS, cols), 1.5f);
}

static struct geul_tensor *product(struct graph *g, struct geul_tensor *x, int64_t n)
{
    struct geul_tensor *w = input(g, n, geul_cols(x));
    return geul_linear(g->ctx, x, w, input(g, 0, n), true);
}

static void output(struct graph *g, struct geul_tensor *t)
{
    g->output[g->n_outputs++] = t;
}

static struct geul_tensor *norm(struct graph *g, struct geul_tensor *x, float eps)
{
    struct geul_tensor *w = input(g, 0, geul_cols(x));
    return geul_layernorm(g->ctx, x, w, input(g, 0, geul_cols(x)), eps);
}

static void norms(struct graph *g)
{
    struct geul_tensor *x = computed(g, C);
    output(g, norm(g, x, 1e-5f));
    output(g, norm(g, x, 1e-5f)); /* over x */
}

static void norms_of_two(struct graph *g)
{
    struct geul_tensor *x = computed(g, C);
    output(g, norm(g, x, 1e-5f));
    output(g, norm(g, x, 1e-3f));
}

static void gelu(struct graph *g)
{
    output(g, geul_gelu(g->ctx, product(g, computed(g, C), F), GEUL_GELU_ERF));
    g->output[0] = geul_gelu(g->ctx, product(g, g->output[0], C), GEUL_GELU_TANH);
}

/* Inputs are there during the whole run: no memory stands against taking these together. */
static void gelu_of_an_output(struct graph *g)
{
    struct geul_tensor *h = product(g, input(g, TOKENS, C), F);
    output(g, geul_gelu(g->ctx, h, GEUL_GELU_ERF));
    output(g, h);
}

static void gelu_of_what_is_read(struct graph *g)
{
    struct geul_tensor *h = product(g, input(g, TOKENS, C), F), *y = geul_gelu(g->ctx, h, GEUL_GELU_ERF);
    output(g, geul_add(g->ctx, y, h));
}

static void sum(struct graph *g)
{
    struct geul_tensor *x = computed(g, F), *f = product(g, computed(g, C), F);
    output(g, geul_add(g->ctx, x, f)); /* over x */
}

static void sum_the_other_way(struct graph *g)
{
    struct geul_tensor *x = input(g, TOKENS, F), *f = product(g, computed(g, C), F);
    output(g, geul_add(g->ctx, f, x));
}

static void sum_of_an_output(struct graph *g)
{
    struct geul_tensor *x = input(g, TOKENS, F), *f = product(g, input(g, TOKENS, C), F);
    output(g, geul_add(g->ctx, f, x));
    output(g, f);
}

/* The sum lies where the product's operand lies. */
static void sum_over_the_operand(struct graph *g)
{
    struct geul_tensor *x = computed(g, C), *f = product(g, x, C);
    output(g, geul_add(g->ctx, x, f));
}

static void sum_with_a_vector(struct graph *g)
{
    struct geul_tensor *v = input(g, 0, F), *f = product(g, computed(g, C), F);
    output(g, geul_add(g->ctx, f, v));
}

static void sum_with_itself(struct graph *g)
{
    struct geul_tensor *f = product(g, input(g, TOKENS, C), F);
    output(g, geul_add(g->ctx, f, f));
}

static void residual(struct graph *g)
{
    struct geul_tensor *x = input(g, TOKENS, C), *h = input(g, TOKENS, F), *k = input(g, TOKENS, C);
    struct geul_tensor *a = product(g, k, C), *f = product(g, h, C);
    output(g, geul_add(g->ctx, geul_add(g->ctx, f, a), x));
}

/* Its parts are wanted: a is stored in any case, the sum of both is not. */
static void residual_with_a(struct graph *g)
{
    residual(g);
    output(g, g->output[0]->src[0]->src[1]);
}

static void residual_with_the_sum(struct graph *g)
{
    residual(g);
    output(g, g->output[0]->src[0]);
}

/* The result lies where the operand of the second product lies. */
static void residual_over_the_operand(struct graph *g)
{
    struct geul_tensor *x = computed(g, C), *k = computed(g, C);
    struct geul_tensor *a = product(g, k, C), *f = product(g, x, C);
    output(g, geul_add(g->ctx, x, geul_add(g->ctx, f, a)));
}

/* Launches but those of computed(). */
static const struct {
    const char *what;
    void (*build)(struct graph *g);
    int together, apart;
} cases[] = {{"two norms", norms, 1, 2},
             {"two norms of other eps", norms_of_two, 2, 2},
             {"GELU, twice", gelu, 2, 4},
             {"GELU of an output", gelu_of_an_output, 2, 2},
             {"GELU of what is read again", gelu_of_what_is_read, 3, 3},
             {"a sum", sum, 1, 2},
             {"a sum the other way round", sum_the_other_way, 1, 2},
             {"a sum with an output", sum_of_an_output, 2, 2},
             {"a sum over the product's operand", sum_over_the_operand, 2, 2},
             {"a sum with a vector", sum_with_a_vector, 2, 2},
             {"a sum with itself", sum_with_itself, 2, 2},
             {"two products on the residual", residual, 2, 4},
             {"two products, one an output", residual_with_a, 2, 4},
             {"two products whose sum is an output", residual_with_the_sum, 3, 4},
             {"two products over an operand", residual_over_the_operand, 3, 4}};

/* Runs a case; results one after the other into out. Returns launches, -1 on failure. */
static int run_case(void (*build)(struct graph *g), float *out)
{
    uint64_t seed = 20261201;
    int launches = -1, scales = 0;
    static float values[F * F];
    struct graph g = {.ctx = geul_context_new(NULL)};
    struct geul_device *device = open_card(g.ctx);
    struct geul_runtime *rt = device ? geul_runtime_new_on(g.ctx, &device, 1, NULL) : NULL;
    build(&g);
    struct geul_graph *graph = rt ? geul_graph_new(g.ctx, g.output, g.n_outputs) : NULL;
    bool ok = graph && geul_runtime_plan(rt, graph) == GEUL_OK;
    for (int i = 0; i < g.n_inputs && ok; i++) {
        int64_t n = geul_tensor_elements(g.input[i]);
        for (int64_t k = 0; k < n; k++)
            values[k] = test_normal(&seed);
        ok = geul_tensor_write(g.input[i], values, (size_t)n * sizeof(float)) == GEUL_OK;
    }
    for (int i = 0; ok && i < graph->n_nodes; i++)
        scales += graph->nodes[i]->op == GEUL_OP_SCALE;
    long before = host_gpu_calls(HOST_GPU_launch);
    ok = ok && geul_runtime_run(rt, graph) == GEUL_OK;
    launches = ok ? (int)(host_gpu_calls(HOST_GPU_launch) - before) - scales : -1;
    for (int i = 0; i < g.n_outputs && ok; i++) {
        ok = geul_tensor_read(g.output[i], out, geul_tensor_bytes(g.output[i])) == GEUL_OK;
        out += geul_tensor_elements(g.output[i]);
    }
    CHECK_MSG(ok, "%s", geul_error(g.ctx));
    geul_runtime_free(rt);
    geul_device_close(g.ctx, device);
    geul_context_free(g.ctx);
    return launches;
}

TEST(cuda_patterns_have_the_bits_of_their_nodes)
{
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float apart[OUTPUTS * MOST] = {0}, fused[OUTPUTS * MOST] = {0};
        together = false;
        int n = run_case(cases[i].build, apart);
        CHECK_MSG(n == cases[i].apart, "%s: %d launches one by one, expected %d", cases[i].what, n, cases[i].apart);
        together = true;
        n = run_case(cases[i].build, fused);
        CHECK_MSG(n == cases[i].together, "%s: %d launches together, expected %d", cases[i].what, n, cases[i].together);
        CHECK_MSG(memcmp(apart, fused, sizeof apart) == 0, "%s: other bits", cases[i].what);
        bool any = false;
        for (int k = 0; k < MOST; k++)
            any = any || fused[k] != 0;
        CHECK_MSG(any, "%s: no result", cases[i].what);
    }
    CHECK_STR(host_gpu_misuse(), "");
    CHECK_STR(cuda_host_failure(), "");
}

/* ------------------------------------------------------------------------------------- models -- */

static const struct rig_options on_card = {.poisoned_from = -1, .all_poisoned = true, .other = open_card};

/* Logits of the wide model both ways; launches of the two. */
static void check_model(const char *path, struct rig_options o, const char *what)
{
    static float logits[2][WIDE_TOKENS * WIDE_VOCAB];
    int32_t tokens[WIDE_TOKENS];
    long launches[2];
    wide_tokens(tokens);
    for (int way = 0; way < 2; way++) {
        together = way;
        REQUIRE(wide_run(path, o, tokens, logits[way]));
        launches[way] = host_gpu_calls(HOST_GPU_launch);
    }
    CHECK_MSG(memcmp(logits[0], logits[1], sizeof logits[0]) == 0, "%s, %d tokens at once%s: other bits", what,
              o.n_batch, o.exact ? ", exact" : "");
    CHECK_MSG(launches[1] < launches[0], "%s: %ld launches together, %ld one by one", what, launches[1], launches[0]);
}

/* One token, few and many at once, on weights that are rounded for and such that are not. */
TEST(cuda_patterns_leave_the_logits_as_they_are)
{
    static const enum geul_type types[] = {GEUL_TYPE_F32, GEUL_TYPE_F16, GEUL_TYPE_Q4_K, GEUL_TYPE_Q8_0};
    static const int batches[] = {1, 4, 0};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        const char *path = wide_model(types[t]);
        REQUIRE(path);
        for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
            if ((t + b) % 3 == 0) /* time; every type and every number has its turn */
                continue;
            struct rig_options o = on_card;
            o.n_batch = batches[b];
            o.cache = GEUL_TYPE_F16;
            o.exact = (t + b) % 2;
            check_model(path, o, geul_type_name(types[t]));
        }
    }
}

/* What else a graph of the model may be. */
struct variant {
    const char *golden;
    const char *adapter; /* NULL: none */
    bool observed;       /* by the collecting of importance */
};

static bool keep(void *user, int item, const float *logits, int n_vocab)
{
    memcpy((float *)user + (size_t)item * (size_t)n_vocab, logits, (size_t)n_vocab * sizeof *logits);
    return true;
}

/* Sums of what is observed. */
static bool observe(void *user, const char *weight, const float *x, int rows, int cols)
{
    double *sum_of = user;
    for (int64_t i = 0; i < (int64_t)rows * cols; i++)
        *sum_of += (double)x[i] * (double)(weight[4] + i % 7);
    return true;
}

/* Logits (T, V) into out, and the sum of what was observed. */
static bool run_variant(const struct golden *g, const struct variant *v, float *out, double *seen)
{
    struct rig r;
    struct geul_batch_item items[128];
    int n = (int)g->tokens.count;
    bool ok = rig_open(&r, golden_convert(g, GEUL_TYPE_F32), on_card);
    for (int i = 0; i < n; i++)
        items[i] = (struct geul_batch_item){g->tokens.i32[i], 0, true};
    if (ok && v->adapter) {
        char relative[64];
        snprintf(relative, sizeof relative, "golden/%s", v->adapter);
        struct geul_lora *d =
            geul_peft_read(r.ctx, test_path(relative), (struct geul_lora_shape){.n_layers = 2, .n_heads = 2});
        geul_session_free(r.session);
        ok = CHECK_MSG(d && geul_model_add_lora(r.ctx, r.model, d, 1, "test") == GEUL_OK, "%s", geul_error(r.ctx));
        r.session = geul_session_new(r.ctx, r.model, NULL);
        geul_lora_free(d);
    }
    *seen = 0;
    if (ok && v->observed)
        geul_session_observe(r.session, observe, seen);
    ok = ok && CHECK_MSG(geul_session_eval(r.session, items, n, keep, out) == GEUL_OK, "%s", geul_error(r.ctx));
    rig_close(&r);
    return ok;
}

TEST(cuda_patterns_in_other_graphs)
{
    static const struct variant variants[] = {{"sequential", NULL, false},       {"parallel", NULL, false},
                                              {"parallel", "peft_plain", false}, {"parallel", "peft_patterns", false},
                                              {"parallel", NULL, true},          {"parallel", "peft_plain", true}};
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        const struct variant *v = &variants[i];
        struct golden g;
        double seen[2];
        REQUIRE(golden_open(v->golden, &g));
        size_t bytes = (size_t)g.logits.count * sizeof(float);
        float *logits[2] = {malloc(bytes), malloc(bytes)};
        bool ok = true;
        for (int way = 0; way < 2 && ok; way++) {
            together = way;
            ok = run_variant(&g, v, logits[way], &seen[way]);
        }
        CHECK_MSG(ok && memcmp(logits[0], logits[1], bytes) == 0, "%s %s%s: other bits", v->golden,
                  v->adapter ? v->adapter : "", v->observed ? ", observed" : "");
        CHECK_MSG(ok && memcmp(&seen[0], &seen[1], sizeof seen[0]) == 0 && (seen[0] != 0) == v->observed,
                  "observed: %g one by one, %g together", seen[0], seen[1]);
        free(logits[0]);
        free(logits[1]);
        golden_close(&g);
    }
    CHECK_STR(host_gpu_misuse(), "");
}
