/* test_command_synth.c: random models, and measuring with them. */
#include "tests/command/command_fixture.h"

#include "core/gguf.h"
#include "core/tensor.h"
#include "quantize/mix.h"

/* Writes a model with random weights of the shape that config describes; returns the path in static storage. */
static const char *synth(const char *config, const char *type, const char *seed, const char *name)
{
    static char path[1024], what[1024];
    snprintf(what, sizeof what, "%s:%s", config, type);
    snprintf(path, sizeof path, "%s", test_scratch(name));
    struct test_run r = GEUL("synth", what, "-o", path, "--seed", seed);
    CHECK_MSG(r.status == 0, "%s", r.err);
    CHECK_STR(r.err, "");
    test_run_free(&r);
    return path;
}

/* Two layers, as wide as the largest block. */
static const char *wide_config(void)
{
    static const char json[] = "{\"model_type\": \"gpt_neox\", \"hidden_size\": 256, \"intermediate_size\": 512,"
                               " \"num_attention_heads\": 4, \"num_hidden_layers\": 2, \"vocab_size\": 320,"
                               " \"max_position_embeddings\": 128, \"rotary_pct\": 0.5, \"layer_norm_eps\": 1e-5}";
    const char *path = test_scratch("wide.json");
    return test_spill(path, json, strlen(json)) ? path : NULL;
}

/* Checks that the logits of a few tokens look like products of normalized values and weights of deviation 0.02. */
static void check_logits(const char *model, const char *type)
{
    char out[1024];
    struct test_npy logits;
    snprintf(out, sizeof out, "%s", test_scratch("logits.npy"));
    struct test_run r = GEUL("logits", "-m", model, "--ids", "1 2 3 4 5 6 7 8", "-o", out);
    REQUIRE(CHECK_MSG(r.status == 0, "%s: %s", type, r.err) && test_npy_read(out, &logits));
    double sum = 0, squares = 0;
    for (int64_t k = 0; k < logits.count; k++) {
        sum += (double)logits.f32[k];
        squares += (double)logits.f32[k] * (double)logits.f32[k];
    }
    double deviation = sqrt(squares / (double)logits.count); /* about 0.02 * sqrt(256) */
    CHECK_MSG(deviation > 0.22 && deviation < 0.42, "%s: deviation %g", type, deviation);
    CHECK_MSG(fabs(sum / (double)logits.count) < 0.05, "%s: mean %g", type, sum / (double)logits.count);
    test_npy_free(&logits);
    test_run_free(&r);
}

/* Checks every tensor's type against the mix, and mean and deviation of the matrices' values. */
static void check_tensors(const struct geul_mix *mix, const char *path)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_gguf *g = geul_gguf_open(ctx, path);
    uint64_t file_type;
    REQUIRE(CHECK_MSG(g, "%s", geul_error(ctx)));
    CHECK(geul_gguf_u64(g, "general.file_type", &file_type) && file_type == geul_mix_file_type(mix));
    for (int64_t i = 0; i < geul_gguf_tensor_count(g); i++) {
        const struct geul_gguf_tensor *t = geul_gguf_tensor_at(g, i);
        bool fell_back;
        CHECK_MSG(t->type == geul_mix_type(mix, t->name, 2, t->n_dims, t->shape, &fell_back) && !fell_back,
                  "%s: %s is %s", geul_mix_name(mix), t->name, geul_type_name(t->type));
        if (t->n_dims != 2)
            continue;
        int64_t n = t->shape[0] * t->shape[1];
        float *x = malloc((size_t)n * sizeof *x);
        double sum = 0, squares = 0, want = strstr(t->name, "attn_output") || strstr(t->name, "ffn_down") ? 0.01 : 0.02;
        geul_decode(t->type, t->data, x, n);
        for (int64_t k = 0; k < n; k++) {
            sum += (double)x[k];
            squares += (double)x[k] * (double)x[k];
        }
        double mean = sum / (double)n, deviation = sqrt(squares / (double)n);
        CHECK_MSG(fabs(mean) < 0.04 * want && fabs(deviation / want - 1) < 0.05, "%s %s: mean %g, deviation %g",
                  geul_mix_name(mix), t->name, mean, deviation);
        free(x);
    }
    geul_gguf_close(g);
    geul_context_free(ctx);
}

TEST(command_synth_makes_every_mix)
{
    const char *config = wide_config();
    REQUIRE(config);
    char copy[1024];
    snprintf(copy, sizeof copy, "%s", config);
    for (size_t i = 0; geul_mix_at(i); i++) {
        const struct geul_mix *mix = geul_mix_at(i);
        const char *model = synth(copy, geul_mix_name(mix), "1", "random.gguf");
        check_tensors(mix, model);
        check_logits(model, geul_mix_name(mix));
    }
}

TEST(command_synth_depends_on_its_seed_alone)
{
    size_t na, nb, nc;
    const char *config = wide_config();
    char copy[1024];
    REQUIRE(config);
    snprintf(copy, sizeof copy, "%s", config);
    char *a = test_slurp(synth(copy, "q4_0", "5", "a.gguf"), &na);
    setenv("OMP_NUM_THREADS", "1", 1);
    char *b = test_slurp(synth(copy, "q4_0", "5", "b.gguf"), &nb);
    char *c = test_slurp(synth(copy, "q4_0", "6", "c.gguf"), &nc);
    REQUIRE(a && b && c);
    CHECK(na == nb && memcmp(a, b, na) == 0);
    CHECK(na == nc && memcmp(a, c, na) != 0);
    free(a);
    free(b);
    free(c);
}

TEST(command_synth_says_when_blocks_do_not_fit)
{
    char what[1024];
    snprintf(what, sizeof what, "%s:q4_k_m", test_path("golden/quantizable/config.json")); /* rows of 64 and 128 */
    struct test_run r = GEUL("synth", what, "-o", test_scratch("x.gguf"));
    CHECK_INT(r.status, 0);
    CHECK_MSG(strstr(r.err, "6 of 16 tensors got another type"), "%s", r.err);
    test_run_free(&r);
}

TEST(command_complete_needs_a_tokenizer)
{
    const char *model = synth(test_path("golden/quantizable/config.json"), "f16", "1", "random.gguf");
    fixture_fails(GEUL("complete", "-m", model, "-p", "x"), 1, "geul complete: ", "no tokenizer");
}
