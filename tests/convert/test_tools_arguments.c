/* test_tools_arguments.c: NULL and numbers out of range in the arguments and options of geul_tools.h: an error that
 * names the argument, and no crash. */
#include "tests/harness.h"

#include <geul_tools.h>

#include <math.h>

/* Checks that the last call failed for the argument whose name is in its message, and clears the error. */
static void check_refused(struct geul_context *ctx, const char *name)
{
    CHECK_MSG(geul_error_status(ctx) == GEUL_ERROR_ARGUMENT && strstr(geul_error(ctx), name), "%s: %d \"%s\"", name,
              (int)geul_error_status(ctx), geul_error(ctx));
    geul_error_clear(ctx);
}

TEST(tools_arguments_of_quantizing)
{
    struct geul_context *ctx = geul_context_new(NULL);
    const struct geul_mix *mix = geul_mix_find("q4_0");
    static const struct geul_quantize_rule no_pattern[] = {{"ffn", GEUL_TYPE_F16}, {NULL, GEUL_TYPE_F16}};
    const struct {
        const char *name;
        struct geul_quantize_options o;
    } cases[] = {
        {"rules is NULL", {.mix = mix, .n_rules = 3}},
        {"rules[1].pattern", {.mix = mix, .rules = no_pattern, .n_rules = 2}},
        {"n_rules", {.mix = mix, .rules = no_pattern, .n_rules = -1}},
        {"n_threads", {.mix = mix, .n_threads = -1}},
        {"n_threads", {.mix = mix, .n_threads = 1025}},
        {"split_tensors", {.mix = mix, .split_tensors = -1}},
        {"target_bpw", {.target_bpw = 1e300}},
        {"target_bpw", {.target_bpw = 32.5}},
        {"target_bpw", {.target_bpw = -1}},
        {"target_bpw", {.target_bpw = (double)INFINITY}},
        {"target_bpw", {.target_bpw = (double)NAN}},
        {"target_bpw", {.mix = mix, .target_bpw = (double)NAN}},
        {"keep_types", {.n_threads = 1}},
        {"keep_types", {.mix = mix, .keep_types = true}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct geul_quantize_options o = cases[i].o;
        o.size = sizeof o;
        CHECK(!geul_quantize_new(ctx, test_mini_model(), &o));
        check_refused(ctx, cases[i].name);
    }
    CHECK(!geul_mix_find(NULL) && mix);
    geul_context_free(ctx);
}

TEST(tools_arguments_of_a_quantized_tensor)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_quantize_options o = {.size = sizeof o, .keep_types = true};
    struct geul_quantize_summary sum = {.size = sizeof sum};
    struct geul_quantize *q = geul_quantize_new(ctx, test_mini_model(), &o);
    REQUIRE(CHECK_MSG(q, "%s", geul_error(ctx)));
    geul_quantize_get_summary(q, &sum);
    const int64_t numbers[] = {-1, sum.n_tensors, INT64_MIN, INT64_MAX};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        struct geul_quantize_tensor t = {.size = sizeof t, .name = "old", .n_dims = 2, .from_bytes = 1, .lost = 1};
        geul_quantize_get_tensor(q, numbers[i], &t);
        CHECK(t.size == sizeof t && !t.name && t.n_dims == 0 && t.from_bytes == 0 && t.lost == 0);
    }
    struct geul_quantize_tensor last = {.size = sizeof last};
    geul_quantize_get_tensor(q, sum.n_tensors - 1, &last);
    CHECK(last.name && last.from_bytes > 0);
    geul_quantize_free(q);
    geul_context_free(ctx);
}

TEST(tools_arguments_of_converting)
{
    struct geul_context *ctx = geul_context_new(NULL);
    char dir[1024], out[1024];
    snprintf(dir, sizeof dir, "%s", test_path("golden/full"));
    snprintf(out, sizeof out, "%s", test_scratch("out"));
    static const int odd[] = {-1, 1025};
    for (int i = 0; i < 2; i++) {
        struct geul_convert_options convert = {.size = sizeof convert, .n_threads = odd[i]};
        struct geul_export_options export = {.size = sizeof export, .n_threads = odd[i]};
        CHECK(geul_convert_hf(ctx, dir, out, &convert) == GEUL_ERROR_ARGUMENT);
        check_refused(ctx, "n_threads");
        CHECK(geul_export_hf(ctx, test_mini_model(), out, &export) == GEUL_ERROR_ARGUMENT);
        check_refused(ctx, "n_threads");
        export = (struct geul_export_options){.size = sizeof export, .dtype = (enum geul_export_dtype)(odd[i])};
        CHECK(geul_export_hf(ctx, test_mini_model(), out, &export) == GEUL_ERROR_ARGUMENT);
        check_refused(ctx, "dtype");
    }
    geul_context_free(ctx);
}

TEST(tools_arguments_of_models)
{
    struct geul_context *ctx = geul_context_new(NULL);
    static const int odd[] = {-1, 1025};
    for (int i = 0; i < 2; i++) {
        CHECK(!geul_model_load(ctx, test_mini_model(), &(struct geul_model_options){.n_threads = odd[i]}));
        check_refused(ctx, "n_threads");
    }
    geul_context_free(ctx);
}

TEST(tools_arguments_of_merging)
{
    struct geul_context *ctx = geul_context_new(NULL);
    const struct geul_merge_input no_path = {NULL, 1};
    CHECK(!geul_merge_new(ctx, test_mini_model(), &no_path, -1));
    check_refused(ctx, "n is -1");
    CHECK(!geul_merge_new(ctx, test_mini_model(), NULL, 2));
    check_refused(ctx, "inputs is NULL");
    CHECK(!geul_merge_new(ctx, test_mini_model(), &no_path, 1));
    check_refused(ctx, "inputs[0].path");
    geul_context_free(ctx);
}

TEST(tools_arguments_of_importance)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_model *model = geul_model_load(ctx, test_mini_model(), NULL);
    struct geul_importance *m = geul_importance_new(ctx);
    REQUIRE(CHECK_MSG(model && m, "%s", geul_error(ctx)));
    struct geul_importance_options o = {.size = sizeof o, .n_batch = -1};
    CHECK(geul_importance_collect_text(m, model, NULL, 5, NULL) == GEUL_ERROR_ARGUMENT);
    check_refused(ctx, "text");
    CHECK(geul_importance_collect_text(m, model, "a", 1, &o) == GEUL_ERROR_ARGUMENT);
    check_refused(ctx, "n_batch");
    o = (struct geul_importance_options){.size = sizeof o, .chunk_size = -1};
    CHECK(geul_importance_collect_text(m, model, "a", 1, &o) == GEUL_ERROR_ARGUMENT);
    check_refused(ctx, "chunk_size");
    o = (struct geul_importance_options){.size = sizeof o, .chunk_size = 16};
    CHECK(geul_importance_collect_text(m, model, NULL, 0, &o) == GEUL_OK); /* the empty text */
    geul_importance_free(m);
    geul_model_free(model);
    geul_context_free(ctx);
}

TEST(tools_arguments_of_rows)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_tokenizer *tok = geul_tokenizer_load(ctx, test_mini_model(), NULL);
    struct geul_dataset *train = geul_dataset_new(ctx);
    const char *prefix = test_scratch("shards"), *no_path[] = {NULL};
    const struct {
        const char *name, *const *paths;
        int n;
    } cases[] = {
        {"n_paths", no_path, 0}, {"n_paths", no_path, -1}, {"paths is NULL", NULL, 1}, {"paths[0]", no_path, 1}};
    REQUIRE(CHECK_MSG(tok && train, "%s", geul_error(ctx)));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK(geul_samples_read(ctx, tok, cases[i].paths, cases[i].n, NULL, train, NULL, NULL) == GEUL_ERROR_ARGUMENT);
        check_refused(ctx, cases[i].name);
        CHECK(geul_shards_write(ctx, tok, cases[i].paths, cases[i].n, prefix, NULL, NULL) == GEUL_ERROR_ARGUMENT);
        check_refused(ctx, cases[i].name);
    }
    geul_dataset_free(train);
    geul_tokenizer_free(tok);
    geul_context_free(ctx);
}

TEST(tools_arguments_of_the_journal)
{
    struct geul_context *ctx = geul_context_new(NULL);
    char dir[1024];
    snprintf(dir, sizeof dir, "%s", test_scratch(""));
    static const struct geul_journal_setting no_name = {NULL, "1"}, no_value = {"a", NULL};
    const struct {
        const char *name;
        const struct geul_journal_setting *settings;
        int n;
    } cases[] = {{"n_settings", NULL, -1},
                 {"settings is NULL", NULL, 2},
                 {"settings[0].name", &no_name, 1},
                 {"settings[0].value", &no_value, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct geul_journal_options o = {.size = sizeof o, .settings = cases[i].settings, .n_settings = cases[i].n};
        CHECK(!geul_journal_open(ctx, dir, &o, 0));
        check_refused(ctx, cases[i].name);
    }
    struct geul_journal_options o = {.size = sizeof o, .jsonl = true, .report = true};
    struct geul_journal *log = geul_journal_open(ctx, dir, &o, 0);
    REQUIRE(CHECK_MSG(log, "%s", geul_error(ctx)));
    CHECK(geul_journal_sample(log, 1, NULL, "text") == GEUL_ERROR_ARGUMENT);
    check_refused(ctx, "prompt");
    CHECK(geul_journal_sample(log, 1, "prompt", NULL) == GEUL_ERROR_ARGUMENT);
    check_refused(ctx, "text");
    CHECK(geul_journal_event(log, 1, NULL, "text") == GEUL_ERROR_ARGUMENT);
    check_refused(ctx, "kind");
    CHECK(geul_journal_event(log, 1, "kind", NULL) == GEUL_ERROR_ARGUMENT);
    check_refused(ctx, "text");
    CHECK(geul_journal_event(log, 1, "kind", "text") == GEUL_OK);
    geul_journal_close(log);
    geul_context_free(ctx);
}
