/* test_trained_files.c: a model with tied embeddings and without attention biases goes through training, GGUF, Hugging
 * Face's form and back, and loses nothing on the way. */
#include "core/gguf.h"
#include "core/os.h"
#include "formats/checkpoint.h"
#include "formats/json_file.h"
#include "tests/train/trainer_bed.h"

static char said[4096];

static void collect(void *user, enum geul_log_level level, const char *line)
{
    (void)user, (void)level;
    snprintf(said + strlen(said), sizeof said - strlen(said), "%s\n", line);
}

static struct geul_context *listening(void)
{
    said[0] = '\0';
    return geul_context_new(&(struct geul_context_options){.log = collect});
}

/* The loss of a model's file on the golden's tokens, of weights as they are mapped (an adapter that changes nothing is
 * beside them) or as they would be trained. */
static double loss_of(struct geul_context *ctx, const char *path, const struct geul_dataset *data, bool mapped)
{
    double loss = -1;
    struct geul_train_options o = bed_options(path, mapped ? 1 : 0);
    struct geul_trainer *t = geul_trainer_new(ctx, &o, data);
    CHECK_MSG(t && geul_trainer_evaluate(t, data, &loss) == GEUL_OK, "%s: %s", path, geul_error(ctx));
    geul_trainer_free(t);
    return loss;
}

/* Checks what a directory has: its config and whether it holds an output matrix and attention biases. */
static void check_directory(struct geul_context *ctx, const char *dir, bool tied, bool bias)
{
    char path[1200];
    bool v;
    snprintf(path, sizeof path, "%s/config.json", dir);
    json_t *json = geul_json_load(ctx, path);
    CHECK(geul_json_bool(ctx, path, json, "tie_word_embeddings", &v) && v == tied);
    CHECK(geul_json_bool(ctx, path, json, "attention_bias", &v) && v == bias);
    json_decref(json);
    struct geul_checkpoint *c = geul_checkpoint_open(ctx, dir, NULL);
    REQUIRE(c != NULL);
    CHECK((geul_checkpoint_find(c, "embed_out.weight") == NULL) == tied);
    CHECK((geul_checkpoint_find(c, "gpt_neox.layers.0.attention.dense.bias") != NULL) == bias);
    CHECK((geul_checkpoint_find(c, "gpt_neox.layers.1.attention.query_key_value.bias") != NULL) == bias);
    geul_checkpoint_close(c);
}

/* Ten steps on all weights, written as `type`. */
static void check_journey(enum geul_type type, double tolerance)
{
    struct golden g;
    struct test_npy want;
    const struct test_kept path = test_keep(test_scratch("trained.gguf")), dir = test_keep(test_scratch("hf")),
                           back = test_keep(test_scratch("back.gguf"));
    struct geul_context *ctx = listening();
    REQUIRE(golden_open("tied", &g) && test_npy_read(test_path("golden/tied/adamw.npy"), &want));
    struct geul_dataset *data = geul_dataset_new(ctx);
    REQUIRE(geul_dataset_add(data, g.tokens.i32, NULL, (int)g.tokens.count) == GEUL_OK);
    struct geul_train_options o = bed_options(bed_model("tied"), 0);
    o.n_batch = 1, o.n_accumulate = 1, o.packing = false, o.warmup = 0, o.clip = 0, o.steps = 10;
    o.rate = 1e-3f, o.schedule = GEUL_RATE_CONSTANT;
    struct geul_trainer *t = geul_trainer_new(ctx, &o, data);
    REQUIRE(t && bed_steps(t, 10));
    CHECK(geul_trainer_export(t, path.text, type) == GEUL_OK);
    geul_trainer_free(t);
    double loss = loss_of(ctx, path.text, data, false);
    CHECK_MSG(loss - (double)want.f32[10] < tolerance && (double)want.f32[10] - loss < tolerance,
              "loss %.6f after training, PyTorch's %.6f", loss, (double)want.f32[10]);
    double mapped = loss_of(ctx, path.text, data, true);
    CHECK_MSG(mapped - loss < 1e-4 && loss - mapped < 1e-4, "loss %.6f as it is mapped, %.6f otherwise", mapped, loss);
    struct geul_convert_options how = {.size = sizeof how, .type = type, .n_threads = 1};
    CHECK_MSG(geul_export_hf(ctx, path.text, dir.text, NULL) == GEUL_OK, "%s", geul_error(ctx));
    check_directory(ctx, dir.text, true, false);
    CHECK_MSG(geul_convert_hf(ctx, dir.text, back.text, &how) == GEUL_OK, "%s", geul_error(ctx));
    CHECK(loss_of(ctx, back.text, data, false) == loss && loss_of(ctx, back.text, data, true) == mapped);
    geul_dataset_free(data);
    test_npy_free(&want);
    golden_close(&g);
    geul_context_free(ctx);
}

TEST(trained_tied_model_comes_back_from_hugging_face)
{
    check_journey(GEUL_TYPE_F32, 1e-4);
    check_journey(GEUL_TYPE_F16, 5e-3);
    check_journey(GEUL_TYPE_BF16, 5e-2);
}

enum lack { WHOLE, NO_OUTPUT, NO_BIASES, SOME_BIASES };

static bool lacks(enum lack lack, const char *name)
{
    bool bias = strstr(name, "attn_qkv.bias") || strstr(name, "attn_output.bias");
    return lack == NO_OUTPUT     ? strcmp(name, "output.weight") == 0
           : lack == NO_BIASES   ? bias
           : lack == SOME_BIASES ? bias && strcmp(name, "blk.1.attn_output.bias") != 0
                                 : false;
}

/* Copies the file without some tensors and, unless kept, without geul's own keys; bias: one attention bias gets a
 * value.
 */
static void copy_file(struct geul_context *ctx, const char *from, const char *to, enum lack lack, bool keys, bool bias)
{
    struct geul_gguf *g = geul_gguf_open(ctx, from);
    struct geul_gguf_writer *w = g ? geul_gguf_writer_new(ctx, to) : NULL;
    REQUIRE(w != NULL);
    for (int64_t i = 0; i < geul_gguf_key_count(g); i++)
        if (keys || strncmp(geul_gguf_key_name(g, i), "geul.", 5) != 0)
            geul_gguf_copy_key(w, g, i);
    for (int write = 0; write < 2; write++)
        for (int64_t i = 0; i < geul_gguf_tensor_count(g); i++) {
            const struct geul_gguf_tensor *t = geul_gguf_tensor_at(g, i);
            if (lacks(lack, t->name))
                continue;
            if (!write) {
                geul_gguf_declare_tensor(w, t->name, t->type, t->n_dims, t->shape);
                continue;
            }
            float first = bias && strcmp(t->name, "blk.1.attn_output.bias") == 0 ? 0.5f : *(const float *)t->data;
            geul_gguf_write_data(w, &first, sizeof first);
            geul_gguf_write_data(w, (const char *)t->data + sizeof first, t->bytes - sizeof first);
        }
    CHECK(geul_gguf_writer_commit(w) == GEUL_OK);
    geul_gguf_close(g);
}

/* Files of other programs: without an output the model is tied, without attention biases it has none; what one layer
 * has the others get as zeros. What a file holds beyond its config is written, and that is said. */
TEST(export_goes_by_what_the_file_holds)
{
    static const struct {
        enum lack lack;
        bool keys, change_bias, tied, bias;
        const char *note;
    } cases[] = {
        {NO_OUTPUT, false, false, true, true, ""},
        {NO_BIASES, false, false, false, false, ""},
        {SOME_BIASES, false, true, false, true, ""},
        {WHOLE, true, false, true, false, ""},
        {WHOLE, true, true, true, true, "attention biases are not zero"},
    };
    const struct test_kept model = test_keep(bed_model("tied")), path = test_keep(test_scratch("copy.gguf")),
                           dir = test_keep(test_scratch("hf")), back = test_keep(test_scratch("back.gguf"));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct geul_context *ctx = listening();
        struct geul_dataset *data = bed_data(ctx, 3);
        struct geul_convert_options how = {.size = sizeof how, .type = GEUL_TYPE_F32, .n_threads = 1};
        copy_file(ctx, model.text, path.text, cases[i].lack, cases[i].keys, cases[i].change_bias);
        CHECK_MSG(geul_export_hf(ctx, path.text, dir.text, NULL) == GEUL_OK, "%zu: %s", i, geul_error(ctx));
        CHECK_MSG(strstr(said, cases[i].note), "%zu: \"%s\" lacks \"%s\"", i, said, cases[i].note);
        check_directory(ctx, dir.text, cases[i].tied, cases[i].bias);
        CHECK_MSG(geul_convert_hf(ctx, dir.text, back.text, &how) == GEUL_OK, "%zu: %s", i, geul_error(ctx));
        CHECK(loss_of(ctx, path.text, data, true) == loss_of(ctx, back.text, data, true));
        geul_dataset_free(data);
        geul_context_free(ctx);
    }
}

/* In blocks of 4 bits the output has another type than the embedding, and is not its copy any more. */
TEST(export_of_a_quantized_tied_model_writes_both_matrices)
{
    struct golden g;
    const struct test_kept dir = test_keep(test_scratch("hf"));
    struct geul_context *ctx = listening();
    REQUIRE(golden_open("tied", &g));
    CHECK_MSG(geul_export_hf(ctx, golden_convert(&g, GEUL_TYPE_Q4_0), dir.text, NULL) == GEUL_OK, "%s",
              geul_error(ctx));
    CHECK(strstr(said, "the output matrix is not the embedding any more"));
    check_directory(ctx, dir.text, false, false);
    golden_close(&g);
    geul_context_free(ctx);
}

/* Trained as one tensor, they begin with the finer of the two: 8 bits rather than 4. */
TEST(training_a_quantized_tied_model_begins_with_the_finer_matrix)
{
    struct golden g;
    struct geul_context *ctx = geul_context_new(NULL);
    REQUIRE(golden_open("tied", &g));
    const struct test_kept path = test_keep(golden_convert(&g, GEUL_TYPE_Q4_0));
    struct geul_dataset *data = bed_data(ctx, 3);
    struct geul_train_options o = bed_options(path.text, 0);
    struct geul_trainer *t = geul_trainer_new(ctx, &o, data);
    struct geul_gguf *file = geul_gguf_open(ctx, path.text);
    REQUIRE(t && file);
    const struct geul_tensor *embed = t->model->neox.embed;
    const struct geul_gguf_tensor *out = geul_gguf_find_tensor(file, "output.weight");
    CHECK(t->model->neox.output == embed && out->type == GEUL_TYPE_Q8_0);
    CHECK_STR(embed->name, "token_embd.weight");
    float *got = malloc(geul_tensor_bytes(embed)), *want = malloc(geul_tensor_bytes(embed));
    geul_decode(out->type, out->data, want, geul_tensor_elements(embed));
    CHECK(geul_tensor_read(embed, got, geul_tensor_bytes(embed)) == GEUL_OK);
    CHECK(memcmp(got, want, geul_tensor_bytes(embed)) == 0);
    free(got);
    free(want);
    geul_gguf_close(file);
    geul_trainer_free(t);
    geul_dataset_free(data);
    golden_close(&g);
    geul_context_free(ctx);
}
