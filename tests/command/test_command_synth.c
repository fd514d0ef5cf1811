/* test_command_synth.c: random models, and measuring with them. */
#include "tests/command/command_fixture.h"

static const char *const types[] = {"f32", "f16", "bf16", "q8_0", "q4_0"};

/* Writes golden `quantizable`'s shape with random weights; returns the path in static storage. */
static const char *synth(const char *type, const char *seed, const char *name)
{
    static char path[1024], what[1024];
    snprintf(what, sizeof what, "%s:%s", test_path("golden/quantizable/config.json"), type);
    snprintf(path, sizeof path, "%s", test_scratch(name));
    struct test_run r = GEUL("synth", what, "-o", path, "--seed", seed);
    CHECK_MSG(r.status == 0, "%s", r.err);
    test_run_free(&r);
    return path;
}

TEST(command_synth_is_finite_in_every_type)
{
    for (int i = 0; i < 5; i++) {
        const char *model = synth(types[i], "1", "random.gguf");
        char out[1024];
        snprintf(out, sizeof out, "%s", test_scratch("logits.npy"));
        struct test_run r = GEUL("logits", "-m", model, "--ids", "1 2 3 4 5 6 7 8", "-o", out);
        struct test_npy logits;
        REQUIRE(CHECK_MSG(r.status == 0, "%s", r.err) && test_npy_read(out, &logits));
        double sum = 0, squares = 0;
        for (int64_t k = 0; k < logits.count; k++) {
            sum += (double)logits.f32[k];
            squares += (double)logits.f32[k] * (double)logits.f32[k];
        }
        /* 64 products of a normalized value and a weight with deviation 0.02 */
        double deviation = sqrt(squares / (double)logits.count);
        CHECK_MSG(deviation > 0.1 && deviation < 0.3, "%s: deviation %g", types[i], deviation);
        CHECK_MSG(fabs(sum / (double)logits.count) < 0.05, "%s: mean %g", types[i], sum / (double)logits.count);
        test_npy_free(&logits);
        test_run_free(&r);
    }
}

TEST(command_synth_depends_on_its_seed_alone)
{
    size_t na, nb, nc;
    char *a = test_slurp(synth("q4_0", "5", "a.gguf"), &na);
    setenv("OMP_NUM_THREADS", "1", 1);
    char *b = test_slurp(synth("q4_0", "5", "b.gguf"), &nb);
    char *c = test_slurp(synth("q4_0", "6", "c.gguf"), &nc);
    REQUIRE(a && b && c);
    CHECK(na == nb && memcmp(a, b, na) == 0);
    CHECK(na == nc && memcmp(a, c, na) != 0);
    free(a);
    free(b);
    free(c);
}

TEST(command_synth_refuses_rows_that_do_not_fit)
{
    char what[1024];
    snprintf(what, sizeof what, "%s:q8_0", test_path("golden/odd_sizes/config.json"));
    fixture_fails(GEUL("synth", what, "-o", test_scratch("x.gguf")), 1, "geul synth: ", "blocks of 32");
}

TEST(command_complete_needs_a_tokenizer)
{
    const char *model = synth("f16", "1", "random.gguf");
    fixture_fails(GEUL("complete", "-m", model, "-p", "x"), 1, "geul complete: ", "no tokenizer");
}

TEST(command_bench_figures)
{
    setenv("GEUL_CACHE", test_scratch("cache/"), 1);
    char what[1024];
    snprintf(what, sizeof what, "%s:q8_0", test_path("golden/quantizable/config.json"));
    json_t *json = fixture_json(GEUL("bench", "--synthetic", what, "-p", "40", "-n", "8", "-r", "2", "--json"));
    REQUIRE(json);
    static const char *const positive[] = {"prompt_tps",       "generation_tps",           "prompt_share",
                                           "generation_share", "ceiling_read_bytes_per_s", "ceiling_int8_macs_per_s",
                                           "load_seconds"};
    for (size_t i = 0; i < sizeof positive / sizeof *positive; i++)
        CHECK_MSG(json_number_value(json_object_get(json, positive[i])) > 0, "%s is not positive", positive[i]);
    CHECK_STR(json_string_value(json_object_get(json, "prompt_ceiling")), "int8");
    CHECK(json_integer_value(json_object_get(json, "peak_rss_bytes")) > 1 << 20);
    /* one layer, 64 wide, 48 positions, f16: the cache may round up, not down */
    CHECK(json_integer_value(json_object_get(json, "kv_cache_bytes")) >= 2 * 64 * 48 * 2);
    /* 64 x (3 x 64 + 64 + 2 x 128) and the logits of the last of 40 tokens */
    double macs = 64.0 * 512 + 96.0 * 64 / 40;
    CHECK(fabs(json_number_value(json_object_get(json, "prompt_macs_per_token")) - macs) < 1);
    json_decref(json);

    struct test_run r = GEUL("bench", "--synthetic", what, "-p", "8", "-n", "0", "-r", "1", "--csv");
    CHECK_INT(r.status, 0);
    CHECK_MSG(strncmp(r.out, "model,type,n_prompt,", 20) == 0, "%s", r.out);
    CHECK_STR(r.err, ""); /* the file is there already */
    test_run_free(&r);
    r = GEUL("bench", "-m", synth("f32", "1", "random.gguf"), "-p", "0", "-n", "4", "-r", "1");
    CHECK_INT(r.status, 0);
    CHECK(strstr(r.out, "of memory") && strstr(r.out, "ceilings"));
    test_run_free(&r);
}
