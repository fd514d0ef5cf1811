/* test_lost_values.c: weights that are finite and that a type cannot hold. Each is a block, or with float16 a value,
 * that is not a number any more: counted, named, and refused where that is asked for. */
#include "core/context.h"
#include "core/gguf.h"
#include "tests/command/command_fixture.h"

#include <math.h>
#include <unistd.h>

#define TENSOR "blk.0.ffn_up.weight"

/* A copy of the float32 model whose first weight in a row of a tensor is v; NULL after a failed check. */
static const char *model_with_at(const char *tensor, size_t row, float v, const char *name)
{
    static char path[1024];
    const char *in = fixture_model();
    snprintf(path, sizeof path, "%s", test_scratch(name));
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_gguf *g = in ? geul_gguf_open(ctx, in) : NULL;
    struct geul_gguf_writer *w = g ? geul_gguf_writer_new(ctx, path) : NULL;
    for (int64_t i = 0; w && i < geul_gguf_key_count(g); i++)
        geul_gguf_copy_key(w, g, i);
    for (int64_t i = 0; w && i < geul_gguf_tensor_count(g); i++) {
        const struct geul_gguf_tensor *t = geul_gguf_tensor_at(g, i);
        geul_gguf_declare_tensor(w, t->name, t->type, t->n_dims, t->shape);
    }
    for (int64_t i = 0; w && i < geul_gguf_tensor_count(g); i++) {
        const struct geul_gguf_tensor *t = geul_gguf_tensor_at(g, i);
        bool changed = strcmp(t->name, tensor) == 0;
        size_t before = changed ? t->bytes / (size_t)t->shape[0] * row : 0, skipped = before + (changed ? sizeof v : 0);
        geul_gguf_write_data(w, t->data, before);
        if (changed)
            geul_gguf_write_data(w, &v, sizeof v);
        geul_gguf_write_data(w, (const char *)t->data + skipped, t->bytes - skipped);
    }
    bool ok = w && geul_gguf_writer_commit(w) == GEUL_OK;
    CHECK_MSG(ok, "%s", geul_error(ctx));
    geul_gguf_close(g);
    geul_context_free(ctx);
    return ok ? path : NULL;
}

static const char *model_with(float v, const char *name)
{
    return model_with_at(TENSOR, 0, v, name);
}

/* Checks that the command warns of `lost` values, and that with --strict it fails and writes nothing. argv ends with
 * NULL and has room for one more word. */
static void tells(const char **argv, const char *out, const char *lost)
{
    char wanted[200];
    int n = 0;
    snprintf(wanted, sizeof wanted, "%s values are NaN, infinite or too large for ", lost);
    struct test_run r = test_geul(argv, NULL, 0);
    CHECK_MSG(r.status == 0 && strstr(r.err, "warning: ") && strstr(r.err, wanted), "%s %s: %d, %s", argv[0], argv[3],
              r.status, r.err);
    test_run_free(&r);
    unlink(out);
    while (argv[n])
        n++;
    argv[n] = "--strict";
    argv[n + 1] = NULL;
    r = test_geul(argv, NULL, 0);
    CHECK_MSG(r.status == 1 && strstr(r.err, wanted) && strstr(r.err, "nothing was written"), "%s --strict: %d, %s",
              argv[0], r.status, r.err);
    CHECK_MSG(access(out, F_OK) != 0, "%s --strict: %s was written", argv[0], out);
    test_run_free(&r);
}
#define TELLS(out, lost, ...) tells((const char *[24]){__VA_ARGS__, NULL}, out, lost)

TEST(lost_values_of_every_type)
{
    static const struct {
        const char *type;
        float v;
        const char *lost; /* NULL: the type holds it */
    } cases[] = {
        {"q8_0", 1e7f, "32"}, {"q8_0", 8e6f, NULL}, {"q4_0", 1e6f, "32"},     {"q4_0", 5e5f, NULL},
        {"q4_1", 1e6f, "32"}, {"q5_0", 2e6f, "32"}, {"q5_1", 3e6f, "32"},     {"iq4_nl", 1e8f, "32"},
        {"f16", 7e4f, "1"},   {"f16", 65504, NULL}, {"bf16", 3.38e38f, NULL}, {"bf16", 3.4028e38f, "1"},
    };
    struct test_kept out = test_keep(test_scratch("o.gguf"));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *model = model_with(cases[i].v, "big.gguf");
        REQUIRE(model != NULL);
        if (cases[i].lost) {
            TELLS(out.text, cases[i].lost, "quantize", model, out.text, cases[i].type);
            continue;
        }
        struct test_run r = GEUL("quantize", model, out.text, cases[i].type, "--strict");
        CHECK_MSG(r.status == 0, "%s of %g: %s", cases[i].type, (double)cases[i].v, r.err);
        test_run_free(&r);
    }
}

TEST(lost_values_in_every_writer)
{
    struct test_kept out = test_keep(test_scratch("o.gguf")), hf = test_keep(test_scratch("hf"));
    struct test_kept dir = test_keep(test_scratch("dir")), index = test_keep(test_scratch("dir/model.safetensors"));
    struct test_kept adapter = test_keep(test_scratch("a.gguf"));
    struct test_kept model = test_keep(model_with(1e6f, "big.gguf"));
    struct test_run r = GEUL("export", model.text, hf.text);
    CHECK_MSG(r.status == 0 && !strstr(r.err, "too large"), "%s", r.err); /* float32 holds it */
    test_run_free(&r);
    r = GEUL("convert", test_path("golden/peft_plain"), "-o", adapter.text, "--base", model.text);
    CHECK_MSG(r.status == 0, "%s", r.err);
    test_run_free(&r);
    TELLS(out.text, "1", "convert", hf.text, "-o", out.text);
    TELLS(out.text, "32", "convert", hf.text, "-o", out.text, "--type", "q4_0");
    TELLS(out.text, "1", "merge", "-m", model.text, "--lora", adapter.text, "-o", out.text, "--type", "f16");
    TELLS(index.text, "1", "export", model.text, dir.text, "--type", "f16");
}

TEST(lost_values_are_named_by_what_runs_the_model)
{
    struct test_kept out = test_keep(test_scratch("o.gguf")), npy = test_keep(test_scratch("o.npy"));
    struct test_kept model = test_keep(model_with(1e7f, "big.gguf"));
    struct test_run r = GEUL("quantize", model.text, out.text, "q8_0");
    CHECK_INT(r.status, 0);
    test_run_free(&r);
    r = GEUL("logits", "-m", out.text, "--ids", "1 2 3", "-o", npy.text);
    CHECK_MSG(r.status == 1 && strstr(r.err, "3 of 3 positions") && strstr(r.err, "not finite"), "%d, %s", r.status,
              r.err);
    CHECK(access(npy.text, R_OK) == 0); /* for whoever wants to see which */
    test_run_free(&r);
    r = GEUL("complete", "-m", out.text, "-p", "가나다", "-n", "4");
    CHECK_MSG(r.status == 1 && strstr(r.err, "not finite"), "complete: %d, %s", r.status, r.err);
    test_run_free(&r);
    r = GEUL("perplexity", "-m", out.text, "-p", "가나다 라마바 사아자 차카타 파하");
    CHECK_MSG(r.status == 1 && strstr(r.err, "not finite"), "perplexity: %d, %s", r.status, r.err);
    test_run_free(&r);
}

/* What stands in the rows of padding behind the tokens (403 of 448) is never chosen, so it stops nothing. */
TEST(lost_values_of_padding_do_not_matter)
{
    struct test_kept model = test_keep(model_with_at("output.weight", 440, NAN, "padding.gguf"));
    struct test_kept other = test_keep(model_with_at("output.weight", 399, NAN, "token.gguf"));
    struct test_run r = GEUL("complete", "-m", model.text, "-p", "가나다", "-n", "4");
    CHECK_MSG(r.status == 0, "%d, %s", r.status, r.err);
    test_run_free(&r);
    r = GEUL("complete", "-m", other.text, "-p", "가나다", "-n", "4");
    CHECK_MSG(r.status == 1 && strstr(r.err, "not finite"), "%d, %s", r.status, r.err);
    test_run_free(&r);
}

/* Removes the entries of blk.0, or all but of the embedding's peers, from an importance matrix of the model. */
TEST(lost_importance_is_always_said)
{
    struct test_kept out = test_keep(test_scratch("o.gguf")), im = test_keep(test_scratch("im.gguf"));
    struct test_kept gaps = test_keep(test_scratch("gaps.gguf"));
    struct test_kept model = test_keep(fixture_model());
    struct test_run r = GEUL("imatrix", "-m", model.text, "-p", "가나다 라마바 사아자 차카타 파하", "-o", im.text);
    CHECK_MSG(r.status == 0, "%s", r.err);
    test_run_free(&r);
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_gguf *g = geul_gguf_open(ctx, im.text);
    struct geul_gguf_writer *w = g ? geul_gguf_writer_new(ctx, gaps.text) : NULL;
    REQUIRE(w != NULL);
    for (int64_t i = 0; i < geul_gguf_key_count(g); i++)
        geul_gguf_copy_key(w, g, i);
    for (int pass = 0; pass < 2; pass++)
        for (int64_t i = 0; i < geul_gguf_tensor_count(g); i++) {
            const struct geul_gguf_tensor *t = geul_gguf_tensor_at(g, i);
            if (strncmp(t->name, "blk.0.", 6) == 0)
                continue;
            if (pass == 0)
                geul_gguf_declare_tensor(w, t->name, t->type, t->n_dims, t->shape);
            else
                geul_gguf_write_data(w, t->data, t->bytes);
        }
    CHECK(geul_gguf_writer_commit(w) == GEUL_OK);
    geul_gguf_close(g);
    geul_context_free(ctx);
    r = GEUL("quantize", model.text, out.text, "q4_0", "--imatrix", gaps.text);
    CHECK_MSG(r.status == 0 && strstr(r.err, "no entry for 4 of the matrices") &&
                  strstr(r.err, "blk.0.attn_qkv.weight"),
              "%s", r.err);
    test_run_free(&r);
    r = GEUL("quantize", model.text, out.text, "q4_0", "--imatrix", im.text);
    CHECK_MSG(r.status == 0 && !strstr(r.err, "no entry"), "%s", r.err); /* the embedding is never in one */
    test_run_free(&r);
    /* what is decoded to float16 is not rounded a second time, so nothing is said of it */
    r = GEUL("quantize", out.text, im.text, "f16");
    CHECK_MSG(r.status == 0 && !strstr(r.err, "a second time"), "%s", r.err);
    test_run_free(&r);
    r = GEUL("quantize", out.text, im.text, "q5_0");
    CHECK_MSG(r.status == 0 && strstr(r.err, "a second time"), "%s", r.err);
    test_run_free(&r);
}
