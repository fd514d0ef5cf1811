/* test_tools_api.c: converting, merging and making models as an application does. */
#include "tests/harness.h"

#include "geul_tools.h"

#include <dirent.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

TEST(tools_refuse_options_without_a_size)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_convert_options convert = {.type = GEUL_TYPE_F16};
    struct geul_export_options export = {.n_threads = 1};
    struct geul_quantize_options quantize = {.mix = geul_mix_find("q4_0")};
    struct geul_peft_options peft = {.name = "x"};
    const char *dir = test_path("golden/quantizable"), *out = test_scratch("out");
    CHECK(geul_convert_hf(ctx, dir, out, &convert) == GEUL_ERROR_ARGUMENT && strstr(geul_error(ctx), "size"));
    CHECK(geul_export_hf(ctx, test_path("../share/geul-mini.gguf"), out, &export) == GEUL_ERROR_ARGUMENT);
    CHECK(!geul_quantize_new(ctx, test_path("../share/geul-mini.gguf"), &quantize) &&
          strstr(geul_error(ctx), "geul_quantize_options"));
    CHECK(geul_convert_peft(ctx, test_path("golden/peft_plain"), out, &peft) == GEUL_ERROR_ARGUMENT);
    geul_context_free(ctx);
}

/* Numbers outside an enum, which a program may pass on from somebody else. */
TEST(tools_refuse_choices_that_are_none)
{
    static const int none[] = {-1, 4, INT_MAX, INT_MIN};
    struct geul_context *ctx = geul_context_new(NULL);
    const char *dir = test_path("golden/quantizable"), *out = test_scratch("out"), *mini = test_mini_model();
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        struct geul_convert_options gelu = {
            .size = sizeof gelu, .type = GEUL_TYPE_F16, .gelu = (enum geul_convert_gelu)none[i]};
        struct geul_export_options dtype = {.size = sizeof dtype, .dtype = (enum geul_export_dtype)none[i]};
        CHECK(geul_convert_hf(ctx, dir, out, &gelu) == GEUL_ERROR_ARGUMENT && strstr(geul_error(ctx), "GELU"));
        CHECK(geul_export_hf(ctx, mini, out, &dtype) == GEUL_ERROR_ARGUMENT && strstr(geul_error(ctx), "dtype"));
        struct geul_new_model_options o = {
            .size = sizeof o, .tokenizer = mini, .n_layers = 1, .d_model = 8, .n_heads = 1};
        o.gelu = (enum geul_gelu)none[i];
        CHECK(geul_new_model_write(ctx, out, &o) == GEUL_ERROR_ARGUMENT && strstr(geul_error(ctx), "gelu"));
        o.gelu = GEUL_GELU_ERF;
        o.init = (enum geul_init)none[i];
        CHECK(geul_new_model_write(ctx, out, &o) == GEUL_ERROR_ARGUMENT && strstr(geul_error(ctx), "init"));
    }
    CHECK(access(out, F_OK) != 0);
    geul_context_free(ctx);
}

/* Every call begins without the failure of the one before it. */
TEST(tools_report_each_failure_alone)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_importance *m = geul_importance_new(ctx);
    REQUIRE(m);
    CHECK(!geul_imatrix_load(ctx, "/absent/first") && strstr(geul_error(ctx), "/absent/first"));
    CHECK(!geul_imatrix_load(ctx, "/absent/second") && strstr(geul_error(ctx), "/absent/second"));
    CHECK(geul_importance_add_file(m, "/absent/third") == GEUL_ERROR_IO && strstr(geul_error(ctx), "/absent/third"));
    CHECK(geul_importance_save(m, "/absent/fourth") == GEUL_ERROR_IO && strstr(geul_error(ctx), "/absent/fourth"));
    CHECK(geul_importance_save(m, test_scratch("empty")) == GEUL_OK && geul_error_status(ctx) == GEUL_OK);
    geul_importance_free(m);
    geul_context_free(ctx);
}

/* A merge by the public calls gives the bytes that the internal way through data gives (tests/models/test_adapter.c).
 */
TEST(tools_merge_a_peft_directory_and_its_gguf_alike)
{
    struct geul_context *ctx = geul_context_new(NULL);
    char model[1024], adapter[1024], out[2][1024];
    snprintf(model, sizeof model, "%s", test_scratch("model.gguf"));
    snprintf(adapter, sizeof adapter, "%s", test_scratch("adapter.gguf"));
    REQUIRE(geul_convert_hf(ctx, test_path("golden/full"), model, NULL) == GEUL_OK);
    struct geul_peft_options peft = {.size = sizeof peft, .base = model};
    REQUIRE(CHECK_MSG(geul_convert_peft(ctx, test_path("golden/peft_plain"), adapter, &peft) == GEUL_OK, "%s",
                      geul_error(ctx)));
    for (int i = 0; i < 2; i++) {
        struct geul_merge_input in = {i ? adapter : test_path("golden/peft_plain"), 0.5f};
        struct geul_quantize_options how = {.size = sizeof how, .keep_types = true};
        struct geul_quantize_summary sum = {.size = sizeof sum};
        struct geul_merge *m = geul_merge_new(ctx, model, &in, 1);
        REQUIRE(CHECK_MSG(m != NULL, "%s", geul_error(ctx)));
        CHECK(geul_merge_matrix_count(m) > 0 && !geul_merge_is_quantized(m));
        how.hooks = geul_merge_hooks(m);
        struct geul_quantize *q = geul_quantize_new(ctx, model, &how);
        snprintf(out[i], sizeof out[i], "%s%d", test_scratch("merged"), i);
        REQUIRE(q && geul_quantize_write(q, out[i]) == GEUL_OK);
        geul_quantize_get_summary(q, &sum);
        CHECK(sum.n_parts == 1 && sum.n_tensors > 0 && sum.to_bpw > 0);
        geul_quantize_free(q);
        geul_merge_free(m);
    }
    size_t n[2];
    char *bytes[2] = {test_slurp(out[0], &n[0]), test_slurp(out[1], &n[1])};
    CHECK(bytes[0] && bytes[1] && n[0] == n[1] && memcmp(bytes[0], bytes[1], n[0]) == 0);
    free(bytes[0]);
    free(bytes[1]);
    geul_context_free(ctx);
}

/* Called while a file is written: replaces the temporary files of user, the path of the output, by broken ones. */
static bool spoil_temporary(void *user, uint64_t done, uint64_t total)
{
    const char *path = user, *slash = strrchr(path, '/');
    char dir[1024], name[2048];
    if (done < total)
        return true;
    snprintf(dir, sizeof dir, "%.*s", (int)(slash - path), path);
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));)
        if (strncmp(e->d_name, slash + 1, strlen(slash + 1)) == 0 && strstr(e->d_name, ".tmp")) {
            snprintf(name, sizeof name, "%s/%s", dir, e->d_name);
            CHECK(unlink(name) == 0 && test_spill(name, "broken", 6));
        }
    if (d)
        closedir(d);
    return true;
}

/* As on a disk that loses what is written. */
TEST(tools_keep_the_older_file_when_a_converted_one_does_not_read_back)
{
    struct geul_context *ctx = geul_context_new(NULL);
    char out[1024];
    snprintf(out, sizeof out, "%s", test_scratch("older.gguf"));
    REQUIRE(test_spill(out, "older", 5));
    struct geul_convert_options o = {.size = sizeof o, .progress = spoil_temporary, .user = out};
    CHECK(geul_convert_hf(ctx, test_path("golden/full"), out, &o) != GEUL_OK);
    size_t n;
    char *held = test_slurp(out, &n);
    CHECK(held && n == 5 && memcmp(held, "older", 5) == 0);
    free(held);
    geul_context_free(ctx);
}

/* The new model that a small set of options makes; false after a failure, which has to be of the argument. */
static bool new_model(struct geul_context *ctx, const char *path, struct geul_new_model_options o)
{
    o.size = sizeof o;
    bool ok = geul_new_model_write(ctx, path, &o) == GEUL_OK;
    CHECK(ok || (geul_error_status(ctx) == GEUL_ERROR_ARGUMENT && access(path, F_OK) != 0));
    return ok;
}

TEST(tools_make_new_models)
{
    struct geul_context *ctx = geul_context_new(NULL);
    const char *path = test_scratch("new.gguf"), *tokenizer = test_mini_model();
    const struct geul_new_model_options least = {
        .tokenizer = tokenizer, .n_layers = 2, .d_model = 24, .n_heads = 3, .seed = 5};
    REQUIRE(CHECK_MSG(new_model(ctx, path, least), "%s", geul_error(ctx)));
    struct geul_model *m = geul_model_load(ctx, path, NULL);
    REQUIRE(CHECK_MSG(m != NULL, "%s", geul_error(ctx)));
    const struct geul_model_shape *shape = geul_model_get_shape(m);
    CHECK(shape->n_layers == 2 && shape->d_head == 8 && shape->n_rot == 4 && shape->d_ff == 96);
    CHECK(shape->n_context == 2048 && shape->parallel_residual && shape->n_vocab % 64 == 0);
    CHECK(strcmp(geul_model_get_name(m), "geul") == 0 && geul_model_get_tokenizer(m));
    geul_model_free(m);

    const char *bad = test_scratch("bad.gguf");
    struct geul_new_model_options o = least;
    o.tokenizer = NULL;
    CHECK(!new_model(ctx, bad, o));
    o = least;
    o.n_heads = 5; /* does not divide 24 */
    CHECK(!new_model(ctx, bad, o));
    o = least;
    o.n_layers = 0;
    CHECK(!new_model(ctx, bad, o));
    o = least;
    o.n_rot = 3;
    CHECK(!new_model(ctx, bad, o));
    o = least;
    o.n_rot = 10; /* a head has 8 */
    CHECK(!new_model(ctx, bad, o));
    geul_context_free(ctx);
}

TEST(tools_new_models_do_not_replace_their_tokenizer)
{
    struct geul_context *ctx = geul_context_new(NULL);
    char path[1024];
    snprintf(path, sizeof path, "%s", test_scratch("own.gguf"));
    struct geul_new_model_options o = {
        .size = sizeof o, .tokenizer = test_mini_model(), .n_layers = 1, .d_model = 24, .n_heads = 3};
    REQUIRE(CHECK_MSG(geul_new_model_write(ctx, path, &o) == GEUL_OK, "%s", geul_error(ctx)));
    size_t n[2];
    char *before = test_slurp(path, &n[0]);
    o.tokenizer = path;
    o.seed = 1;
    CHECK(geul_new_model_write(ctx, path, &o) == GEUL_ERROR_ARGUMENT && strstr(geul_error(ctx), "input itself"));
    char *after = test_slurp(path, &n[1]);
    CHECK(before && after && n[0] == n[1] && memcmp(before, after, n[0]) == 0);
    free(before);
    free(after);
    geul_context_free(ctx);
}
