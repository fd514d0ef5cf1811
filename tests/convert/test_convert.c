/* test_convert.c: directories to GGUF and back, on the goldens and on small directories with one thing wrong. */
#include "formats/checkpoint.h"
#include "geul_tools.h"
#include "convert/neox_tensors.h"
#include "formats/npy.h"
#include "formats/safetensors.h"
#include "core/os.h"
#include "core/tensor.h"
#include "tests/harness.h"
#include "tests/hostile.h"

#include <jansson.h>

static const char *const goldens[] = {"parallel",   "sequential",  "odd_sizes",    "quantizable", "head64_bf16",
                                      "head80_f16", "head128_f16", "head256_bf16", "tied",        "full"};
#define N_GOLDENS (sizeof goldens / sizeof *goldens)

/* Static storage, apart from the harness's few places for paths. */
static const char *golden_dir(const char *name)
{
    static char root[512], dir[600];
    if (!root[0])
        snprintf(root, sizeof root, "%s", test_path("golden"));
    snprintf(dir, sizeof dir, "%s/%s", root, name);
    return dir;
}

static void remove_directory(const char *dir)
{
    char command[700];
    snprintf(command, sizeof command, "rm -r '%s'", dir);
    int status = system(command);
    CHECK_INT(status, 0);
}

/* The config of a directory. */
static bool read_config(struct geul_context *ctx, const char *dir, struct geul_neox_config *c)
{
    char path[600];
    snprintf(path, sizeof path, "%s/config.json", dir);
    json_t *json = json_load_file(path, 0, NULL);
    bool ok = CHECK(json != NULL) && CHECK(geul_neox_config_read(ctx, path, json, c) == GEUL_OK);
    json_decref(json);
    return ok;
}

/* A tensor of a checkpoint under either of its names. */
static const struct geul_source_tensor *find(const struct geul_checkpoint *c, const struct geul_neox_tensor *t)
{
    const struct geul_source_tensor *s = geul_checkpoint_find(c, t->hf);
    return s || !t->alias[0] ? s : geul_checkpoint_find(c, t->alias);
}

/* Values of a source tensor as floats; malloc()ed. */
static float *source_values(const struct geul_source_tensor *s)
{
    size_t n = s->bytes / geul_dtype_info(s->dtype)->bytes;
    void *aligned = malloc(s->bytes);
    float *x = malloc(n * sizeof *x);
    memcpy(aligned, s->data, s->bytes);
    geul_decode(geul_dtype_info(s->dtype)->type, aligned, x, (int64_t)n);
    free(aligned);
    return x;
}

/* The row of a GGUF tensor for row i of the checkpoint's. The order of Q, K and V is written out here a second time,
 * from the description in docs: HF has [head][q|k|v][d_head], GGUF [q|k|v][head][d_head]. */
static int64_t row_of(const struct geul_neox_config *c, const struct geul_neox_tensor *t, int64_t i)
{
    int64_t head = i / (3 * c->d_head), part = i / c->d_head % 3;
    return t->info->by_head ? part * c->n_heads * c->d_head + head * c->d_head + i % c->d_head : i;
}

static double square_error(const float *x, const float *y, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
    return sum;
}

/* Whether tensor g of a GGUF file holds s of the checkpoint. Plain types are the encoder's own values. The scale of a
 * block is searched for: of its values some may be off by more than half a step, but all together by no more than in
 * the block that the reference encoder makes (which test_block.c bounds). */
static bool holds(const struct geul_neox_config *c, const struct geul_neox_tensor *t, const struct geul_gguf_tensor *g,
                  const struct geul_source_tensor *s)
{
    int64_t rows = t->shape[0], cols = t->n_dims == 2 ? t->shape[1] : 1, n = rows * cols;
    float *x = source_values(s), *y = malloc((size_t)n * sizeof *y), *z = malloc((size_t)n * sizeof *z);
    int64_t block = geul_type_block(g->type);
    void *encoded = malloc(g->bytes);
    bool good = true;
    geul_decode(g->type, g->data, y, n);
    geul_encode(g->type, x, encoded, n);
    geul_decode(g->type, encoded, z, n);
    for (int64_t i = 0; i < n; i += block) {
        const float *got = y + row_of(c, t, i / cols) * cols + i % cols;
        double error = square_error(x + i, got, block), reference = square_error(x + i, z + i, block);
        good = good && (block == 1 ? *got == z[i] : error <= reference * (1 + 1e-6));
    }
    free(encoded);
    free(x);
    free(y);
    free(z);
    return good;
}

/* The type that matrix t must have when `asked` was requested. */
static enum geul_type expected_type(const struct geul_neox_tensor *t, enum geul_type asked)
{
    if (t->n_dims == 1)
        return GEUL_TYPE_F32;
    if (geul_type_block(asked) > 1 && t->info->role == GEUL_NEOX_ROLE_OUTPUT)
        asked = GEUL_TYPE_Q8_0;
    return t->shape[1] % geul_type_block(asked) == 0 ? asked : GEUL_TYPE_F16;
}

static bool is_zero(const struct geul_gguf_tensor *t)
{
    for (size_t i = 0; i < t->bytes; i++)
        if (((const uint8_t *)t->data)[i])
            return false;
    return true;
}

static void check_file(struct geul_context *ctx, const char *dir, const char *path, enum geul_type type)
{
    static const uint64_t numbers[GEUL_TYPE_COUNT] = {
        [GEUL_TYPE_F16] = 1,  [GEUL_TYPE_BF16] = 32, [GEUL_TYPE_Q8_0] = 7, [GEUL_TYPE_Q5_1] = 9,
        [GEUL_TYPE_Q5_0] = 8, [GEUL_TYPE_Q4_1] = 3,  [GEUL_TYPE_Q4_0] = 2};
    struct geul_neox_config c, back;
    size_t count = 0;
    uint64_t number = 99;
    struct geul_gguf *g = geul_gguf_open(ctx, path);
    struct geul_checkpoint *source = geul_checkpoint_open(ctx, dir, NULL);
    REQUIRE(g && source && read_config(ctx, dir, &c));
    struct geul_neox_tensor *list = geul_neox_tensor_list(ctx, &c, &count);
    CHECK(geul_neox_config_from_gguf(ctx, g, &back) == GEUL_OK && geul_neox_config_equal(&c, &back));
    CHECK_INT(back.gelu, c.gelu);
    CHECK(geul_gguf_u64(g, "general.file_type", &number) && number == numbers[type]);
    CHECK_INT(geul_gguf_tensor_count(g), (int64_t)count);
    CHECK(back.tied_embeddings == c.tied_embeddings && back.attention_bias == c.attention_bias);
    for (size_t i = 0; i < count; i++) {
        const struct geul_gguf_tensor *t = geul_gguf_find_tensor(g, list[i].gguf);
        const struct geul_source_tensor *s = find(source, &list[i]);
        if (list[i].info->when == GEUL_NEOX_WHEN_UNTIED && c.tied_embeddings)
            s = find(source, &list[0]);
        if (list[i].info->when == GEUL_NEOX_WHEN_BIAS && !c.attention_bias) {
            CHECK(!s && t && is_zero(t));
            continue;
        }
        REQUIRE(t && s);
        CHECK_INT(t->type, expected_type(&list[i], type));
        CHECK(t->n_dims == list[i].n_dims && t->shape[0] == list[i].shape[0] && t->shape[1] == list[i].shape[1]);
        CHECK_MSG(holds(&c, &list[i], t, s), "%s %s as %s has other values", dir, t->name, geul_type_name(t->type));
    }
    geul_free(ctx, list);
    geul_checkpoint_close(source);
    geul_gguf_close(g);
}

TEST(convert_every_golden_to_every_type)
{
    struct geul_context *ctx = geul_context_new(NULL);
    for (size_t i = 0; i < N_GOLDENS; i++)
        for (size_t k = 0; geul_convert_type_at(k) != GEUL_TYPE_COUNT; k++) {
            const char *path = test_scratch("model.gguf"), *dir = golden_dir(goldens[i]);
            struct geul_convert_options o = {.size = sizeof o, .type = geul_convert_type_at(k), .n_threads = 2};
            CHECK_MSG(geul_convert_hf(ctx, dir, path, &o) == GEUL_OK, "%s: %s", dir, geul_error(ctx));
            check_file(ctx, dir, path, geul_convert_type_at(k));
        }
    geul_context_free(ctx);
}

/* Checks that two directories hold the same tensors, bit by bit. */
static void check_same(struct geul_context *ctx, const char *a, const char *b)
{
    struct geul_neox_config c, d;
    size_t count = 0, held = 0;
    struct geul_checkpoint *x = geul_checkpoint_open(ctx, a, NULL), *y = geul_checkpoint_open(ctx, b, NULL);
    CHECK_STR(geul_error(ctx), "");
    REQUIRE(x && y && read_config(ctx, a, &c) && read_config(ctx, b, &d));
    CHECK(geul_neox_config_equal(&c, &d) && c.gelu == d.gelu);
    struct geul_neox_tensor *list = geul_neox_tensor_list(ctx, &c, &count);
    for (size_t i = 0; i < count; i++) {
        const struct geul_source_tensor *s = find(x, &list[i]), *t = find(y, &list[i]);
        held += t != NULL;
        if (!s && !t && list[i].info->when != GEUL_NEOX_WHEN_ALWAYS)
            continue;
        REQUIRE(s && t);
        CHECK_MSG(s->dtype == t->dtype && s->bytes == t->bytes && memcmp(s->data, t->data, s->bytes) == 0,
                  "%s and %s differ in %s", a, b, list[i].hf);
    }
    CHECK_INT(geul_checkpoint_count(y), held);
    geul_free(ctx, list);
    geul_checkpoint_close(x);
    geul_checkpoint_close(y);
}

TEST(convert_and_export_give_back_every_bit)
{
    static const enum geul_type own[] = {GEUL_TYPE_F32, GEUL_TYPE_F32, GEUL_TYPE_F32,  GEUL_TYPE_F32, GEUL_TYPE_BF16,
                                         GEUL_TYPE_F16, GEUL_TYPE_F16, GEUL_TYPE_BF16, GEUL_TYPE_F32, GEUL_TYPE_F32};
    struct geul_context *ctx = geul_context_new(NULL);
    for (size_t i = 0; i < N_GOLDENS; i++) {
        const char *path = test_scratch("model.gguf"), *dir = golden_dir(goldens[i]), *back = test_scratch("back");
        struct geul_convert_options o = {.size = sizeof o, .type = own[i], .n_threads = 1};
        struct geul_export_options e = {.size = sizeof e, .n_threads = 1, .max_shard_bytes = i % 2 ? 10000 : 0};
        char out[600], index[700];
        snprintf(out, sizeof out, "%s-%s", back, goldens[i]);
        REQUIRE(geul_convert_hf(ctx, dir, path, &o) == GEUL_OK);
        CHECK_MSG(geul_export_hf(ctx, path, out, &e) == GEUL_OK, "%s: %s", dir, geul_error(ctx));
        snprintf(index, sizeof index, "%s/model.safetensors.index.json", out);
        CHECK(geul_os_exists(index) == (i % 2 == 1));
        check_same(ctx, dir, out);
        remove_directory(out);
    }
    geul_context_free(ctx);
}

static const char *const companions[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"};

TEST(export_gives_back_the_companions)
{
    struct geul_context *ctx = geul_context_new(NULL);
    const char *path = test_scratch("model.gguf"), *back = test_scratch("back");
    struct geul_convert_options o = {.size = sizeof o, .type = GEUL_TYPE_Q8_0};
    REQUIRE(geul_convert_hf(ctx, golden_dir("full"), path, &o) == GEUL_OK);
    REQUIRE(geul_export_hf(ctx, path, back, NULL) == GEUL_OK);
    for (size_t i = 0; i < sizeof companions / sizeof *companions; i++) {
        char a[700], b[700];
        size_t n = 0, m = 1;
        snprintf(a, sizeof a, "%s/%s", golden_dir("full"), companions[i]);
        snprintf(b, sizeof b, "%s/%s", back, companions[i]);
        char *x = test_slurp(a, &n), *y = test_slurp(b, &m);
        CHECK_MSG(x && y && n == m && memcmp(x, y, n) == 0, "%s changed", companions[i]);
        free(x);
        free(y);
    }
    struct geul_gguf *g = geul_gguf_open(ctx, path);
    uint64_t end = 0;
    CHECK(g && geul_gguf_u64(g, "tokenizer.ggml.eos_token_id", &end) && end == 2);
    geul_gguf_close(g);
    geul_context_free(ctx);
}

/* ----------------------------------------------------------------------- made-up directories -- */

/* What is wrong or unusual about a directory. */
enum fault { SOUND, MISSING, MISSHAPEN, EXTRA, INTEGERS, TIED, NO_BIAS, OVERFLOWS, BUFFERS, N_FAULTS };

static const char config_text[] =
    "{\"model_type\": \"gpt_neox\", \"num_hidden_layers\": 1, \"hidden_size\": 8, \"intermediate_size\": 16,"
    " \"num_attention_heads\": 2, \"max_position_embeddings\": 32, \"vocab_size\": 10, \"rotary_pct\": 0.5,"
    " \"tie_word_embeddings\": %s, \"attention_bias\": %s}";

static void spill_text(const char *dir, const char *file, const char *text)
{
    char path[700];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    CHECK(test_spill(path, text, strlen(text)));
}

/* Writes config.json and model.safetensors into dir. */
static void make_directory(struct geul_context *ctx, const char *dir, enum fault fault)
{
    char config[sizeof config_text + 20], path[700];
    struct geul_neox_config c;
    struct geul_source_tensor out[32];
    size_t count = 0, n = 0;
    snprintf(config, sizeof config, config_text, fault == TIED ? "true" : "false", fault == NO_BIAS ? "false" : "true");
    REQUIRE(geul_os_make_directory(ctx, dir) == GEUL_OK);
    spill_text(dir, "config.json", config);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    REQUIRE(read_config(ctx, dir, &c));
    struct geul_neox_tensor *list = geul_neox_tensor_list(ctx, &c, &count);
    for (size_t i = 0; i < count; i++) {
        bool ffn = strstr(list[i].hf, "h_to_4h.weight") != NULL;
        if ((fault == MISSING && ffn) || (fault == TIED && list[i].info->when == GEUL_NEOX_WHEN_UNTIED) ||
            (fault == NO_BIAS && list[i].info->when == GEUL_NEOX_WHEN_BIAS))
            continue;
        out[n] = (struct geul_source_tensor){.name = list[i].hf,
                                             .dtype = fault == INTEGERS && ffn ? GEUL_DTYPE_I32 : GEUL_DTYPE_F32,
                                             .n_dims = list[i].n_dims,
                                             .shape = {list[i].shape[0], list[i].shape[1]}};
        if (fault == MISSHAPEN && ffn)
            out[n].shape[0]--;
        geul_source_bytes(out[n].dtype, out[n].n_dims, out[n].shape, &out[n].bytes);
        n++;
    }
    char extra[] = "lm_head.bias", buffer[] = "gpt_neox.layers.0.attention.masked_bias";
    if (fault == EXTRA || fault == BUFFERS)
        out[n++] = (struct geul_source_tensor){
            .name = fault == EXTRA ? extra : buffer, .dtype = GEUL_DTYPE_F32, .n_dims = 1, .shape = {1}, .bytes = 4};
    struct geul_safetensors_writer *w = geul_safetensors_writer_new(ctx, path, out, n);
    REQUIRE(w != NULL);
    float value = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < out[i].bytes / 4; k++) {
            value += fault == OVERFLOWS ? 1000.0f : 0.25f;
            geul_safetensors_write(w, &value, sizeof value);
        }
    CHECK(geul_safetensors_commit(w) == GEUL_OK);
    geul_free(ctx, list);
}

static const struct {
    enum fault fault;
    const char *message; /* NULL: converts */
} faults[] = {
    {SOUND, NULL},
    {MISSING, "tensor gpt_neox.layers.0.mlp.dense_h_to_4h.weight of shape (16, 8) is missing"},
    {MISSHAPEN, "has shape (15, 8) where config.json asks for (16, 8)"},
    {EXTRA, "holds tensor lm_head.bias of shape (1)"},
    {INTEGERS, "is I32"},
    {TIED, NULL},
    {NO_BIAS, NULL},
    {OVERFLOWS, NULL},
    {BUFFERS, NULL},
};
_Static_assert(sizeof faults / sizeof *faults == N_FAULTS, "a fault without a case");

TEST(convert_says_what_is_wrong_with_a_directory)
{
    for (size_t i = 0; i < N_FAULTS; i++) {
        struct meter m;
        struct geul_context *ctx = meter_context(&m);
        const char *dir = test_scratch("dir"), *path = test_scratch("out.gguf");
        size_t held = m.now;
        make_directory(ctx, dir, faults[i].fault);
        struct geul_convert_options o = {.size = sizeof o, .type = GEUL_TYPE_F16, .n_threads = 1};
        enum geul_status status = geul_convert_hf(ctx, dir, path, &o);
        CHECK_MSG((status == GEUL_OK) == (faults[i].message == NULL), "fault %zu: %s", i, geul_error(ctx));
        CHECK(geul_os_exists(path) == (faults[i].message == NULL));
        if (faults[i].message)
            check_failure(ctx, &m, held, "directory", faults[i].message);
        geul_context_free(ctx);
        remove(path);
    }
}

TEST(convert_tied_embeddings_and_absent_biases)
{
    struct geul_context *ctx = geul_context_new(NULL);
    const char *dir = test_scratch("dir"), *path = test_scratch("out.gguf"), *back = test_scratch("back");
    make_directory(ctx, dir, TIED);
    REQUIRE(geul_convert_hf(ctx, dir, path, NULL) == GEUL_OK);
    struct geul_gguf *g = geul_gguf_open(ctx, path);
    REQUIRE(g != NULL);
    const struct geul_gguf_tensor *in = geul_gguf_find_tensor(g, "token_embd.weight"),
                                  *out = geul_gguf_find_tensor(g, "output.weight");
    CHECK(in && out && in->bytes == out->bytes && memcmp(in->data, out->data, in->bytes) == 0);
    geul_gguf_close(g);
    CHECK(geul_export_hf(ctx, path, back, NULL) == GEUL_OK);
    struct geul_checkpoint *c = geul_checkpoint_open(ctx, back, NULL);
    CHECK(c && geul_checkpoint_count(c) == 15 && !geul_checkpoint_find(c, "embed_out.weight"));
    geul_checkpoint_close(c);

    make_directory(ctx, dir, NO_BIAS);
    REQUIRE(geul_convert_hf(ctx, dir, path, NULL) == GEUL_OK);
    g = geul_gguf_open(ctx, path);
    REQUIRE(g != NULL);
    const struct geul_gguf_tensor *bias = geul_gguf_find_tensor(g, "blk.0.attn_qkv.bias");
    REQUIRE(bias && bias->shape[0] == 24);
    for (int i = 0; i < 24; i++)
        CHECK(((const float *)bias->data)[i] == 0);
    geul_gguf_close(g);
    CHECK(geul_export_hf(ctx, path, back, NULL) == GEUL_OK);
    c = geul_checkpoint_open(ctx, back, NULL);
    CHECK(c && !geul_checkpoint_find(c, "gpt_neox.layers.0.attention.dense.bias"));
    CHECK(c && geul_checkpoint_find(c, "gpt_neox.layers.0.mlp.dense_h_to_4h.bias"));
    geul_checkpoint_close(c);
    geul_context_free(ctx);
}

/* What the log said. */
static void collect(void *user, enum geul_log_level level, const char *line)
{
    char *text = user;
    size_t n = strlen(text);
    (void)level;
    snprintf(text + n, 4096 - n, "%s\n", line);
}

TEST(convert_leaves_searched_types_to_quantize)
{
    static const enum geul_type refused[] = {GEUL_TYPE_Q4_K, GEUL_TYPE_IQ4_NL, GEUL_TYPE_I32, GEUL_TYPE_COUNT};
    const char *path = test_scratch("model.gguf");
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct geul_context *ctx = geul_context_new(NULL);
        struct geul_convert_options o = {.size = sizeof o, .type = refused[i]};
        CHECK_INT(geul_convert_hf(ctx, golden_dir("full"), path, &o), GEUL_ERROR_ARGUMENT);
        CHECK_MSG(strstr(geul_error(ctx), "quantize the converted file") != NULL, "%s", geul_error(ctx));
        CHECK(!geul_os_exists(path));
        geul_context_free(ctx);
    }
}

TEST(convert_says_what_it_decided)
{
    char text[4096] = "";
    struct geul_context *ctx = geul_context_new(&(struct geul_context_options){.log = collect, .log_user = text});
    const char *dir = test_scratch("dir"), *path = test_scratch("out.gguf");
    struct geul_convert_options o = {.size = sizeof o, .type = GEUL_TYPE_F16};
    make_directory(ctx, dir, OVERFLOWS);
    REQUIRE(geul_convert_hf(ctx, dir, path, &o) == GEUL_OK);
    CHECK(strstr(text, "no tokenizer.json: the file will hold ids only"));
    CHECK(strstr(text, "too large for f16"));
    text[0] = '\0';
    o.type = GEUL_TYPE_Q4_0;
    REQUIRE(geul_convert_hf(ctx, golden_dir("odd_sizes"), path, &o) == GEUL_OK);
    CHECK(strstr(text, "blk.0.ffn_down.weight becomes f16"));
    text[0] = '\0';
    REQUIRE(geul_convert_hf(ctx, golden_dir("full"), path, &o) == GEUL_OK);
    CHECK(strstr(text, "config.json says that id 0 ends a text; the tokenizer's <|endoftext|> is 2"));
    geul_context_free(ctx);
}

/* Files as Python's json module writes them: what geul does not use is passed over, and comes back from an export. */
TEST(convert_reads_what_python_writes)
{
    struct geul_context *ctx = geul_context_new(NULL);
    const struct test_kept dir = test_keep(test_scratch("dir")), path = test_keep(test_scratch("out.gguf")),
                           back = test_keep(test_scratch("back"));
    static const char tokenizer_config[] =
        "{\"model_max_length\": 1000000000000000019884624838656, \"model_max_length\": -1e400, \"x\": [NaN]}";
    char config[900], file[1200];
    make_directory(ctx, dir.text, SOUND);
    snprintf(config, sizeof config, config_text, "false", "true");
    config[strlen(config) - 1] = '\0';
    strcat(config, ", \"classifier_dropout\": NaN, \"n\": [Infinity, {\"m\": -Infinity}], \"t\": \"half \\ud83d\"}");
    spill_text(dir.text, "config.json", config);
    spill_text(dir.text, "tokenizer_config.json", tokenizer_config);
    spill_text(dir.text, "generation_config.json", "\xef\xbb\xbf{\"temperature\": NaN, \"max_length\": 1e999}");
    struct geul_convert_options o = {.size = sizeof o, .no_tokenizer = true};
    CHECK_MSG(geul_convert_hf(ctx, dir.text, path.text, &o) == GEUL_OK, "%s", geul_error(ctx));
    CHECK_MSG(geul_export_hf(ctx, path.text, back.text, NULL) == GEUL_OK, "%s", geul_error(ctx));
    size_t size;
    snprintf(file, sizeof file, "%s/config.json", back.text);
    char *text = test_slurp(file, &size);
    CHECK(text && strstr(text, "\"classifier_dropout\": NaN") && strstr(text, "Infinity,") &&
          strstr(text, "\"m\": -Infinity") && strstr(text, "\"t\": \"half \\ud83d\""));
    free(text);
    snprintf(file, sizeof file, "%s/tokenizer_config.json", back.text);
    text = test_slurp(file, &size);
    CHECK_STR(text, tokenizer_config);
    free(text);
    geul_context_free(ctx);
}

TEST(convert_overrides_gelu_and_name_and_keeps_templates)
{
    struct geul_context *ctx = geul_context_new(NULL);
    const char *dir = test_scratch("dir"), *path = test_scratch("out.gguf"), *back = test_scratch("back"), *s = "";
    size_t n = 0;
    struct geul_convert_options o = {
        .size = sizeof o, .gelu = GEUL_CONVERT_GELU_TANH, .name = "이름", .no_tokenizer = true};
    make_directory(ctx, dir, SOUND);
    spill_text(dir, "tokenizer_config.json",
               "{\"chat_template\": [{\"name\": \"tool\", \"template\": \"x\"}, {\"name\": \"default\", \"template\": "
               "\"### 질문\"}]}");
    REQUIRE(geul_convert_hf(ctx, dir, path, &o) == GEUL_OK);
    struct geul_gguf *g = geul_gguf_open(ctx, path);
    REQUIRE(g != NULL);
    CHECK(geul_gguf_string(g, "general.name", &s, &n) && n == 6 && memcmp(s, "이름", 6) == 0);
    CHECK(geul_gguf_string(g, "geul.gelu", &s, &n) && n == 4);
    CHECK(geul_gguf_string(g, "tokenizer.chat_template", &s, &n) && n == 10 && memcmp(s, "### 질문", 10) == 0);
    geul_gguf_close(g);
    CHECK(geul_export_hf(ctx, path, back, NULL) == GEUL_OK);
    struct geul_neox_config c;
    CHECK(read_config(ctx, back, &c) && c.gelu == GEUL_GELU_TANH);
    spill_text(dir, "chat_template.jinja", "{{ jinja }}");
    spill_text(dir, "tokenizer_config.json", "{}");
    REQUIRE(geul_convert_hf(ctx, dir, path, &o) == GEUL_OK);
    REQUIRE(geul_export_hf(ctx, path, back, NULL) == GEUL_OK);
    char file[700];
    snprintf(file, sizeof file, "%s/chat_template.jinja", back);
    char *jinja = test_slurp(file, &n);
    CHECK(jinja && strcmp(jinja, "{{ jinja }}") == 0);
    free(jinja);
    geul_context_free(ctx);
}

static bool stop_halfway(void *user, uint64_t done, uint64_t total)
{
    uint64_t *seen = user;
    CHECK(done >= *seen && done <= total);
    *seen = done;
    return 2 * done < total;
}

TEST(convert_and_export_can_be_stopped)
{
    struct geul_context *ctx = geul_context_new(NULL);
    const char *dir = test_scratch("dir"), *path = test_scratch("out.gguf"), *back = test_scratch("back");
    uint64_t seen = 0;
    make_directory(ctx, dir, SOUND);
    struct geul_convert_options o = {.size = sizeof o, .progress = stop_halfway, .user = &seen};
    CHECK(geul_convert_hf(ctx, dir, path, &o) == GEUL_ERROR_CANCELLED);
    CHECK(seen > 0 && !geul_os_exists(path));
    REQUIRE(geul_convert_hf(ctx, dir, path, NULL) == GEUL_OK);
    seen = 0;
    struct geul_export_options e = {.size = sizeof e, .progress = stop_halfway, .user = &seen};
    CHECK(geul_export_hf(ctx, path, back, &e) == GEUL_ERROR_CANCELLED);
    char weights[700];
    snprintf(weights, sizeof weights, "%s/model.safetensors", back);
    CHECK(seen > 0 && !geul_os_exists(weights));
    geul_context_free(ctx);
}

/* ----------------------------------------------------------------------- configs and indices -- */

#define SIZES                                                                                                          \
    "\"num_hidden_layers\": 2, \"hidden_size\": 64, \"intermediate_size\": 256, \"num_attention_heads\": 4,"           \
    "\"max_position_embeddings\": 128, \"vocab_size\": 100"
#define NEOX "{\"model_type\": \"gpt_neox\", " SIZES

static const struct {
    const char *json, *message; /* NULL: is read */
    int64_t n_rot;
    double base;
    enum geul_gelu gelu;
    bool parallel;
} configs[] = {
    {NEOX "}", NULL, 4, 10000, GEUL_GELU_ERF, true},
    {NEOX ", \"rotary_pct\": 0.5, \"rotary_emb_base\": 5000, \"use_parallel_residual\": false}", NULL, 8, 5000,
     GEUL_GELU_ERF, false},
    {NEOX ", \"rotary_pct\": 1.0, \"rope_theta\": 20000.0, \"hidden_act\": \"gelu_new\"}", NULL, 16, 10000,
     GEUL_GELU_TANH, true},
    {NEOX ", \"rope_parameters\": {\"partial_rotary_factor\": 0.5, \"rope_theta\": 500000, \"rope_type\": "
          "\"default\"}, \"hidden_act\": \"gelu_fast\"}",
     NULL, 8, 500000, GEUL_GELU_TANH, true},
    {NEOX ", \"rotary_pct\": 0.25, \"rope_parameters\": {\"partial_rotary_factor\": 1}, \"hidden_act\": "
          "\"gelu_pytorch_tanh\", \"rope_scaling\": null}",
     NULL, 16, 10000, GEUL_GELU_TANH, true},
    {NEOX ", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.0}}", "type \"linear\"", 0, 0, 0, 0},
    {NEOX ", \"rope_parameters\": {\"rope_type\": \"yarn\"}}", "type \"yarn\"", 0, 0, 0, 0},
    {NEOX ", \"hidden_act\": \"relu\"}", "hidden_act \"relu\"", 0, 0, 0, 0},
    {NEOX ", \"rotary_pct\": 1.5}", "\"rotary_pct\" must be a number from 0 to 1", 0, 0, 0, 0},
    {NEOX ", \"layer_norm_eps\": \"small\"}", "\"layer_norm_eps\" must be a number", 0, 0, 0, 0},
    {NEOX ", \"use_parallel_residual\": 1}", "must be true or false", 0, 0, 0, 0},
    {NEOX ", \"rotary_pct\": 0.1}", "1 rotary dimensions", 0, 0, 0, 0},
    {"{\"model_type\": \"llama\"}", "\"model_type\" is \"llama\"", 0, 0, 0, 0},
    {"{" SIZES "}", "model_type", 0, 0, 0, 0},
    {"{\"model_type\": \"gpt_neox\"}", "\"num_hidden_layers\" is missing", 0, 0, 0, 0},
    {"{\"model_type\": \"gpt_neox\", \"num_hidden_layers\": -1}", "must be a whole number from 1", 0, 0, 0, 0},
    {"{\"model_type\": \"gpt_neox\", \"num_hidden_layers\": 1, \"hidden_size\": 65, \"intermediate_size\": 1, "
     "\"num_attention_heads\": 4, \"max_position_embeddings\": 1, \"vocab_size\": 1}",
     "not a multiple of the 4 heads", 0, 0, 0, 0},
    {"[]", "model_type", 0, 0, 0, 0},
};

TEST(convert_reads_configs_of_transformers_4_and_5)
{
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        struct geul_context *ctx = geul_context_new(NULL);
        struct geul_neox_config c;
        json_t *json = json_loads(configs[i].json, 0, NULL);
        REQUIRE(json != NULL);
        bool ok = geul_neox_config_read(ctx, "config.json", json, &c) == GEUL_OK;
        CHECK_MSG(ok == !configs[i].message, "%s: %s", configs[i].json, geul_error(ctx));
        if (configs[i].message)
            CHECK_MSG(strstr(geul_error(ctx), configs[i].message), "\"%s\" lacks \"%s\"", geul_error(ctx),
                      configs[i].message);
        else
            CHECK_MSG(c.n_rot == configs[i].n_rot && c.rope_base == configs[i].base && c.gelu == configs[i].gelu &&
                          c.parallel_residual == configs[i].parallel && c.d_head == 16,
                      "%s was misread", configs[i].json);
        json_decref(json);
        geul_context_free(ctx);
    }
}

/* transformers takes int(head size * rotary_pct), in double: 44 * (30 / 44) would give 29. */
TEST(export_writes_a_share_that_gives_every_number_of_rotary_dimensions)
{
    struct geul_context *ctx = geul_context_new(NULL);
    for (int64_t head = 2; head <= 256; head++)
        for (int64_t n_rot = 0; n_rot <= head; n_rot += 2) {
            struct geul_neox_config back, c = {.n_layers = 1,
                                               .d_model = head,
                                               .d_ff = 1,
                                               .n_heads = 1,
                                               .d_head = head,
                                               .n_rot = n_rot,
                                               .n_context = 8,
                                               .n_vocab = 1,
                                               .norm_eps = 1e-5,
                                               .rope_base = 12345.678,
                                               .bos = -1,
                                               .eos = -1};
            json_t *json = geul_neox_config_to_json(&c, "float32");
            char *text = json_dumps(json, 0); /* as it is written and read: 17 digits */
            json_decref(json);
            json = json_loads(text, 0, NULL);
            double share = json_real_value(json_object_get(json, "rotary_pct"));
            CHECK_MSG((int64_t)((double)head * share) == n_rot && share <= 1, "%d of %d: %.17g", (int)n_rot, (int)head,
                      share);
            CHECK(geul_neox_config_read(ctx, "config.json", json, &back) == GEUL_OK && back.n_rot == n_rot &&
                  (float)back.rope_base == 12345.678f);
            json_decref(json);
            free(text);
        }
    geul_context_free(ctx);
}

/* float32 weights in a file of 16-bit matrices: what is exported by default has every bit of the vectors, and a config
 * under which transformers keeps them; vectors that were 16-bit stay 16-bit, and so does what is asked for. */
static void check_vectors(struct geul_context *ctx, const char *golden, enum geul_type type,
                          enum geul_export_dtype dtype, enum geul_dtype matrices, enum geul_dtype vectors)
{
    const char *path = test_scratch("model.gguf"), *back = test_scratch("back"), *word = "";
    struct geul_convert_options o = {.size = sizeof o, .type = type, .n_threads = 1};
    struct geul_export_options e = {.size = sizeof e, .dtype = dtype, .n_threads = 1};
    REQUIRE(geul_convert_hf(ctx, golden_dir(golden), path, &o) == GEUL_OK);
    CHECK_MSG(geul_export_hf(ctx, path, back, &e) == GEUL_OK, "%s", geul_error(ctx));
    struct geul_checkpoint *from = geul_checkpoint_open(ctx, golden_dir(golden), NULL),
                           *to = geul_checkpoint_open(ctx, back, NULL);
    REQUIRE(from && to);
    for (size_t i = 0; i < geul_checkpoint_count(to); i++) {
        const struct geul_source_tensor *t = geul_checkpoint_at(to, i), *s = geul_checkpoint_find(from, t->name);
        CHECK_MSG(t->dtype == (t->n_dims == 2 ? matrices : vectors), "%s %s: %s", golden, t->name,
                  geul_dtype_info(t->dtype)->name);
        if (t->n_dims == 1 && s && vectors == s->dtype)
            CHECK_MSG(t->bytes == s->bytes && memcmp(t->data, s->data, t->bytes) == 0, "%s changed", t->name);
    }
    char file[1200];
    snprintf(file, sizeof file, "%s/config.json", back);
    json_t *json = json_load_file(file, 0, NULL);
    for (int i = 0; i < 2; i++)
        if (json_object_get(json, i ? "dtype" : "torch_dtype"))
            word = json_string_value(json_object_get(json, i ? "dtype" : "torch_dtype"));
    CHECK_STR(word, vectors == GEUL_DTYPE_F32 ? "float32" : vectors == GEUL_DTYPE_F16 ? "float16" : "bfloat16");
    json_decref(json);
    geul_checkpoint_close(from);
    geul_checkpoint_close(to);
    remove_directory(back);
}

TEST(export_keeps_the_norms_and_biases_of_16_bit_files)
{
    struct geul_context *ctx = geul_context_new(NULL);
    check_vectors(ctx, "parallel", GEUL_TYPE_F16, GEUL_EXPORT_KEEP, GEUL_DTYPE_F16, GEUL_DTYPE_F32);
    check_vectors(ctx, "odd_sizes", GEUL_TYPE_BF16, GEUL_EXPORT_KEEP, GEUL_DTYPE_BF16, GEUL_DTYPE_F32);
    check_vectors(ctx, "quantizable", GEUL_TYPE_Q8_0, GEUL_EXPORT_KEEP, GEUL_DTYPE_F16, GEUL_DTYPE_F32);
    check_vectors(ctx, "parallel", GEUL_TYPE_F16, GEUL_EXPORT_F16, GEUL_DTYPE_F16, GEUL_DTYPE_F16);
    check_vectors(ctx, "head80_f16", GEUL_TYPE_F16, GEUL_EXPORT_KEEP, GEUL_DTYPE_F16, GEUL_DTYPE_F16);
    check_vectors(ctx, "head64_bf16", GEUL_TYPE_BF16, GEUL_EXPORT_KEEP, GEUL_DTYPE_BF16, GEUL_DTYPE_BF16);
    geul_context_free(ctx);
}

static const struct {
    const char *config, *index, *message;
} directories[] = {
    {NULL, NULL, "config.json"},
    {"{", NULL, "not valid JSON"},
    {"[]", NULL, "not an object"},
    {"", NULL, "0 bytes of JSON"},
    {NEOX "}", NULL, "has no weights"},
    {NEOX "}", "{}", "no \"weight_map\""},
    {NEOX "}", "{\"weight_map\": {\"a\": \"../secret.safetensors\"}}", "not a plain file name"},
    {NEOX "}", "{\"weight_map\": {\"a\": \"/etc/passwd\"}}", "not a plain file name"},
    {NEOX "}", "{\"weight_map\": {\"a\": 7}}", "not a plain file name"},
    {NEOX "}", "{\"weight_map\": {\"a\": \"model-1.safetensors\"}}", "model-1.safetensors"},
    {NEOX "}", "{\"weight_map\": {\"a\": \"part.safetensors\"}}", "tensor a, which no shard holds"},
    {"{\"model_type\": \"gpt_neox\", \"num_hidden_layers\": 4000, \"hidden_size\": 4, \"intermediate_size\": 4, "
     "\"num_attention_heads\": 1, \"max_position_embeddings\": 4, \"vocab_size\": 4, \"rotary_pct\": 0.5}",
     "{\"weight_map\": {\"b\": \"part.safetensors\"}}", "says 4000 layers, but there are 1 tensors"},
};

TEST(convert_refuses_broken_directories)
{
    for (size_t i = 0; i < sizeof directories / sizeof *directories; i++) {
        struct meter m;
        struct geul_context *ctx = meter_context(&m);
        size_t held = m.now;
        char dir[600];
        snprintf(dir, sizeof dir, "%s-%zu", test_scratch("broken"), i);
        REQUIRE(geul_os_make_directory(ctx, dir) == GEUL_OK);
        if (directories[i].config)
            spill_text(dir, "config.json", directories[i].config);
        if (directories[i].index)
            spill_text(dir, "model.safetensors.index.json", directories[i].index);
        struct bytes b = {0};
        static const char header[] = "{\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}";
        bytes_number(&b, sizeof header - 1, 8);
        bytes_text(&b, header);
        bytes_zeros(&b, 4);
        char part[700];
        snprintf(part, sizeof part, "%s/part.safetensors", dir);
        CHECK(test_spill(part, b.data, b.size));
        bytes_free(&b);
        CHECK(geul_convert_hf(ctx, dir, test_scratch("out.gguf"), NULL) != GEUL_OK);
        check_failure(ctx, &m, held, directories[i].message, directories[i].message);
        geul_context_free(ctx);
        remove_directory(dir);
    }
}

/* ------------------------------------------------------------------------------------ memory -- */

/* Converts and exports with each of the first 60 allocations failing, and from there every stride-th. */
static void check_short_memory(const char *dir, long stride, long most)
{
    const char *path = test_scratch("out.gguf"), *back = test_scratch("back");
    struct geul_convert_options o = {.size = sizeof o, .type = GEUL_TYPE_Q8_0, .n_threads = 1};
    struct geul_export_options e = {.size = sizeof e, .n_threads = 1};
    struct test_shortage s = {.most = most};
    while (test_shortage_next(&s)) {
        s.ok = geul_convert_hf(s.ctx, dir, path, &o) == GEUL_OK && geul_export_hf(s.ctx, path, back, &e) == GEUL_OK;
        s.n += s.n < 60 ? 0 : stride - 1;
    }
}

TEST(convert_survives_every_failing_allocation)
{
    check_short_memory(golden_dir("quantizable"), 1, 20000);
}

/* The tokenizer's thousands of allocations are failed one by one in its own tests; here only some of them. */
TEST(convert_survives_failing_allocations_with_a_tokenizer)
{
    check_short_memory(golden_dir("full"), 37, 2000000);
}

TEST(npy_is_read_back)
{
    struct geul_context *ctx = geul_context_new(NULL);
    const char *path = test_scratch("x.npy");
    const float x[6] = {1, 2, 3, 4, 5, -6};
    const int64_t shape[2] = {2, 3};
    struct test_npy npy;
    struct geul_npy_writer *w = geul_npy_writer_new(ctx, path, 2, shape);
    REQUIRE(w != NULL);
    geul_npy_write_rows(w, x, 2);
    geul_npy_write_rows(w, x + 2, 4);
    REQUIRE(geul_npy_commit(w) == GEUL_OK);
    REQUIRE(test_npy_read(path, &npy));
    CHECK(npy.n_dims == 2 && npy.shape[0] == 2 && npy.shape[1] == 3 && npy.f32 && memcmp(npy.f32, x, sizeof x) == 0);
    test_npy_free(&npy);
    w = geul_npy_writer_new(ctx, path, 1, (const int64_t[]){4});
    REQUIRE(w != NULL);
    geul_npy_write_rows(w, x, 3);
    CHECK(geul_npy_commit(w) == GEUL_ERROR_ARGUMENT);
    geul_context_free(ctx);
}
