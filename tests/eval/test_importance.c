/* The importance matrix against sums computed from the weights in double precision. */
#include "eval/importance.h"
#include "quantize/imatrix.h"
#include "tests/models/golden.h"
#include "tests/poison.h"

#include "core/gguf.h"

static double value(const struct geul_gguf *g, const char *name, int64_t i)
{
    const struct geul_gguf_tensor *t = geul_gguf_find_tensor(g, name);
    float v;
    memcpy(&v, (const char *)t->data + (size_t)i * sizeof v, sizeof v);
    return (double)v;
}

/* Adds the squares of layernorm(embedding of id) to sums (C). */
static void add_normed(const struct geul_gguf *g, const char *weight, const char *bias, int32_t id, int c, double eps,
                       double *sums)
{
    double mean = 0, squares = 0;
    for (int i = 0; i < c; i++)
        mean += value(g, "token_embd.weight", (int64_t)id * c + i) / c;
    for (int i = 0; i < c; i++) {
        double d = value(g, "token_embd.weight", (int64_t)id * c + i) - mean;
        squares += d * d / c;
    }
    for (int i = 0; i < c; i++) {
        double x = (value(g, "token_embd.weight", (int64_t)id * c + i) - mean) / sqrt(squares + eps);
        x = x * value(g, weight, i) + value(g, bias, i);
        sums[i] += x * x;
    }
}

/* Collects from a golden with the given chunk and batch into path. */
static enum geul_status collect(struct geul_context *ctx, const char *model, const struct golden *g, int chunk,
                                int batch, const char *path)
{
    struct geul_session_options o = {.n_context = 32, .n_batch = batch, .cache_type = GEUL_TYPE_F32};
    struct geul_model *m = geul_model_load(ctx, model, &(struct geul_model_options){.n_threads = 1});
    struct geul_session *s = m ? geul_session_new(ctx, m, &o) : NULL;
    struct geul_importance *importance = s ? geul_importance_new(ctx) : NULL;
    struct geul_importance_run run = {.ids = g->tokens.i32, .n = (size_t)g->tokens.count, .chunk = chunk};
    enum geul_status status = importance ? geul_importance_collect(importance, s, &run) : geul_error_status(ctx);
    if (status == GEUL_OK)
        status = geul_importance_add_dataset(importance, "golden");
    if (status == GEUL_OK)
        status = geul_importance_save(importance, path);
    geul_importance_free(importance);
    geul_session_free(s);
    geul_model_free(m);
    return status;
}

static void check_sums(const struct geul_imatrix *m, const char *name, const double *sums, int64_t c, double rows)
{
    const struct geul_imatrix_entry *e = geul_imatrix_find(m, name);
    if (!CHECK_MSG(e && e->columns == c && e->rows == rows, "%s is missing or misshapen", name))
        return;
    for (int64_t i = 0; i < c; i++)
        if (!CHECK_MSG(fabs((double)e->sums[i] - sums[i]) <= 1e-5 * sums[i] + 1e-9, "%s column %lld: %g, expected %g",
                       name, (long long)i, (double)e->sums[i], sums[i]))
            break;
}

TEST(importance_equals_sums_from_the_weights)
{
    struct golden g;
    char model[1024], path[1024], other[1024];
    REQUIRE(golden_open("odd_sizes", &g)); /* one layer, parallel residual: both norms see the embedding */
    snprintf(model, sizeof model, "%s", golden_convert(&g, GEUL_TYPE_F32));
    snprintf(path, sizeof path, "%s", test_scratch("a.imatrix"));
    snprintf(other, sizeof other, "%s", test_scratch("b.imatrix"));
    struct geul_context *ctx = geul_context_new(NULL);
    REQUIRE(CHECK_MSG(collect(ctx, model, &g, 10, 4, path) == GEUL_OK, "%s", geul_error(ctx)));
    REQUIRE(collect(ctx, model, &g, 10, 32, other) == GEUL_OK);
    struct geul_imatrix *m = geul_imatrix_load(ctx, path), *n = geul_imatrix_load(ctx, other);
    struct geul_gguf *file = geul_gguf_open(ctx, model);
    REQUIRE(CHECK_MSG(m && n && file, "%s", geul_error(ctx)));
    const struct geul_gguf_tensor *embed = geul_gguf_find_tensor(file, "token_embd.weight");
    double sums[2][256] = {{0}};
    double eps = 0;
    int c = (int)embed->shape[1], tokens = (int)g.tokens.count;
    geul_gguf_f64(file, "gptneox.attention.layer_norm_epsilon", &eps);
    for (int t = 0; t < tokens; t++) {
        add_normed(file, "blk.0.attn_norm.weight", "blk.0.attn_norm.bias", g.tokens.i32[t], c, eps, sums[0]);
        add_normed(file, "blk.0.ffn_norm.weight", "blk.0.ffn_norm.bias", g.tokens.i32[t], c, eps, sums[1]);
    }
    check_sums(m, "blk.0.attn_qkv.weight", sums[0], c, tokens);
    check_sums(m, "blk.0.ffn_up.weight", sums[1], c, tokens);
    CHECK_INT(m->n_entries, 5);
    CHECK_INT(m->chunks, (tokens + 9) / 10);
    CHECK_INT(m->chunk_size, 10);
    CHECK_STR(m->dataset, "golden");
    for (int64_t i = 0; i < m->n_entries; i++) { /* the size of the batch does not matter */
        const struct geul_imatrix_entry *a = &m->entries[i], *b = geul_imatrix_find(n, a->name);
        CHECK_INT(a->rows, tokens);
        for (int64_t k = 0; k < a->columns && b; k++)
            CHECK(a->sums[k] > 0 && fabsf(a->sums[k] - b->sums[k]) <= 1e-4f * a->sums[k]);
    }
    CHECK(geul_imatrix_find(m, "output.weight") != NULL);
    geul_gguf_close(file);
    geul_imatrix_free(m);
    geul_imatrix_free(n);
    geul_context_free(ctx);
    golden_close(&g);
}

/* What is shown on a device whose memory nobody may touch is what the CPU shows. */
TEST(importance_reads_through_the_backend)
{
    struct golden g;
    char model[1024], path[2][1024];
    REQUIRE(golden_open("sequential", &g));
    snprintf(model, sizeof model, "%s", golden_convert(&g, GEUL_TYPE_F32));
    struct geul_context *ctx = geul_context_new(NULL);
    for (int poisoned = 0; poisoned < 2; poisoned++) {
        struct geul_device *device = poisoned ? poison_open(ctx, NULL) : geul_device_open(ctx, GEUL_DEVICE_HOST, 1);
        struct geul_model *m = geul_model_load_on(ctx, model, NULL, &device, 1, -1);
        struct geul_session_options o = {.n_batch = 8, .cache_type = GEUL_TYPE_F32};
        struct geul_session *s = m ? geul_session_new(ctx, m, &o) : NULL;
        struct geul_importance *importance = geul_importance_new(ctx);
        struct geul_importance_run run = {.ids = g.tokens.i32, .n = (size_t)g.tokens.count, .chunk = 16};
        snprintf(path[poisoned], sizeof path[0], "%s", test_scratch(poisoned ? "p.imatrix" : "c.imatrix"));
        REQUIRE(s && importance && geul_importance_collect(importance, s, &run) == GEUL_OK);
        REQUIRE(geul_importance_save(importance, path[poisoned]) == GEUL_OK);
        geul_importance_free(importance);
        geul_session_free(s);
        geul_model_free(m);
        geul_device_close(ctx, device);
    }
    size_t a_size, b_size;
    char *a = test_slurp(path[0], &a_size), *b = test_slurp(path[1], &b_size);
    CHECK(a && b && a_size == b_size && memcmp(a, b, a_size) == 0);
    free(a);
    free(b);
    geul_context_free(ctx);
    golden_close(&g);
}

TEST(importance_merges_files)
{
    struct golden g, wide;
    char model[1024], a[1024], b[1024];
    REQUIRE(golden_open("odd_sizes", &g) && golden_open("parallel", &wide));
    snprintf(model, sizeof model, "%s", golden_convert(&g, GEUL_TYPE_F32));
    snprintf(a, sizeof a, "%s", test_scratch("a.imatrix"));
    snprintf(b, sizeof b, "%s", test_scratch("b.imatrix"));
    struct geul_context *ctx = geul_context_new(NULL);
    REQUIRE(collect(ctx, model, &g, 32, 32, a) == GEUL_OK);
    struct geul_importance *m = geul_importance_new(ctx);
    REQUIRE(m && geul_importance_add_file(m, a) == GEUL_OK && geul_importance_add_file(m, a) == GEUL_OK);
    CHECK_INT(geul_importance_chunk_count(m), 2);
    CHECK_INT(geul_importance_matrix_count(m), 5);
    REQUIRE(geul_importance_save(m, b) == GEUL_OK);
    struct geul_imatrix *one = geul_imatrix_load(ctx, a), *two = geul_imatrix_load(ctx, b);
    REQUIRE(one && two);
    for (int64_t i = 0; i < one->n_entries; i++) {
        CHECK(two->entries[i].rows == 2 * one->entries[i].rows);
        for (int64_t k = 0; k < one->entries[i].columns; k++)
            CHECK(two->entries[i].sums[k] == 2 * one->entries[i].sums[k]);
    }
    geul_imatrix_free(one);
    geul_imatrix_free(two);
    /* Another model's sums do not fit. */
    REQUIRE(collect(ctx, golden_convert(&wide, GEUL_TYPE_F32), &wide, 32, 32, b) == GEUL_OK);
    CHECK_INT(geul_importance_add_file(m, b), GEUL_ERROR_FORMAT);
    CHECK(strstr(geul_error(ctx), "different models"));
    geul_importance_free(m);
    geul_context_free(ctx);
    golden_close(&g);
    golden_close(&wide);
}

TEST(importance_survives_short_memory)
{
    struct golden g;
    char model[1024], path[1024];
    REQUIRE(golden_open("odd_sizes", &g));
    snprintf(model, sizeof model, "%s", golden_convert(&g, GEUL_TYPE_F32));
    snprintf(path, sizeof path, "%s", test_scratch("c.imatrix"));
    struct test_shortage s = {.most = 2000};
    while (test_shortage_next(&s))
        s.ok = collect(s.ctx, model, &g, 16, 8, path) == GEUL_OK;
    golden_close(&g);
}
