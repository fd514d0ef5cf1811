/* test_peft.c: directories of PEFT: what is read, written and refused, and the order of query_key_value's rows. */
#include "formats/checkpoint.h"
#include "convert/neox_tensors.h"
#include "convert/peft.h"
#include "geul_tools.h"
#include "convert/peft_config.h"
#include "formats/safetensors.h"
#include "core/os.h"
#include "tests/harness.h"
#include "tests/hostile.h"

static const struct geul_lora_shape two = {.n_layers = 2, .n_heads = 2}, unknown = {0};

static struct test_kept in(const struct test_kept *dir, const char *file)
{
    struct test_kept p;
    snprintf(p.text, sizeof p.text, "%.900s/%s", dir->text, file);
    return p;
}

TEST(peft_rows_of_query_key_value_are_parted)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct test_kept dir = test_keep(test_path("golden/peft_plain"));
    struct geul_lora *d = geul_peft_read(ctx, dir.text, two);
    struct geul_checkpoint *c = geul_checkpoint_open_peft(ctx, dir.text, NULL);
    REQUIRE(CHECK_MSG(d && c, "%s", geul_error(ctx)));
    const struct geul_lora_pair *s = geul_lora_find(d, 1, GEUL_NEOX_QKV);
    const struct geul_source_tensor *b =
        geul_checkpoint_find(c, "base_model.model.gpt_neox.layers.1.attention.query_key_value.lora_B.weight");
    REQUIRE(s && b && s->rank == 4 && s->n == 96 && s->k == 32 && b->shape[0] == 96);
    for (int part = 0; part < 3; part++) /* there: head, part, dim; here: part, head, dim */
        for (int head = 0; head < 2; head++)
            for (int i = 0; i < 16; i++)
                CHECK(memcmp(s->b + ((part * 2 + head) * 16 + i) * 4, b->data + ((head * 3 + part) * 16 + i) * 16,
                             16) == 0);
    CHECK(d->alpha == 8 && !d->rslora && d->n_pairs == 8 && d->made_for.n_layers == 2 && d->made_for.n_heads == 2);
    CHECK_STR(d->name, "peft_plain");
    CHECK_STR(d->base, "golden/parallel");
    geul_checkpoint_close(c);
    geul_lora_free(d);
    geul_context_free(ctx);
}

TEST(peft_patterns_give_ranks_and_scales)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_lora *d = geul_peft_read(ctx, test_path("golden/peft_patterns"), two);
    REQUIRE(CHECK_MSG(d, "%s", geul_error(ctx)));
    static const int ranks[2][GEUL_NEOX_TARGETS] = {{4, 2, 4, 4}, {4, 2, 6, 4}};
    for (int layer = 0; layer < 2; layer++)
        for (int t = 0; t < GEUL_NEOX_TARGETS; t++)
            CHECK_INT(geul_lora_find(d, layer, (enum geul_neox_target)t)->rank, ranks[layer][t]);
    CHECK(d->rslora && d->alpha == 8);
    geul_lora_free(d);
    geul_context_free(ctx);
}

static void check_equal(const struct geul_lora *x, const struct geul_lora *y)
{
    REQUIRE(x->n_pairs == y->n_pairs);
    CHECK(x->alpha == y->alpha && x->rslora == y->rslora);
    for (int i = 0; i < x->n_pairs; i++) {
        const struct geul_lora_pair *a = &x->pairs[i], *b = geul_lora_find(y, a->layer, a->target);
        REQUIRE(b && a->rank == b->rank && a->n == b->n && a->k == b->k);
        CHECK(memcmp(a->a, b->a, (size_t)(a->rank * a->k) * sizeof *a->a) == 0);
        CHECK(memcmp(a->b, b->b, (size_t)(a->n * a->rank) * sizeof *a->b) == 0);
    }
}

TEST(peft_round_trip)
{
    static const char *const names[] = {"golden/peft_plain", "golden/peft_patterns"};
    struct geul_context *ctx = geul_context_new(NULL);
    for (int i = 0; i < 2; i++) {
        struct test_kept out = test_keep(test_scratch(i ? "two" : "one"));
        struct geul_lora *d = geul_peft_read(ctx, test_path(names[i]), two);
        REQUIRE(CHECK_MSG(d && geul_peft_write(ctx, d, unknown, out.text) == GEUL_OK, "%s", geul_error(ctx)));
        CHECK(geul_peft_is(out.text));
        struct geul_lora *e = geul_peft_read(ctx, out.text, two);
        REQUIRE(CHECK_MSG(e, "%s", geul_error(ctx)));
        check_equal(d, e);
        geul_lora_free(d);
        geul_lora_free(e);
    }
    geul_context_free(ctx);
}

/* The names in target_modules of what is written. */
static size_t written_targets(struct geul_context *ctx, const struct geul_lora *d, const char *dir)
{
    char file[1100];
    CHECK_MSG(geul_peft_write(ctx, d, unknown, dir) == GEUL_OK, "%s", geul_error(ctx));
    snprintf(file, sizeof file, "%s/adapter_config.json", dir);
    json_t *json = json_load_file(file, 0, NULL);
    size_t n = json_array_size(json_object_get(json, "target_modules"));
    json_decref(json);
    return n;
}

TEST(peft_names_single_modules_where_layers_are_missing)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct test_kept out = test_keep(test_scratch("out"));
    struct geul_lora *d = geul_peft_read(ctx, test_path("golden/peft_plain"), two);
    REQUIRE(d);
    CHECK_INT(written_targets(ctx, d, out.text), 4);
    d->made_for.n_layers = 3;
    CHECK_INT(written_targets(ctx, d, out.text), 8);
    d->made_for.n_layers = 2;
    d->n_pairs = 7;
    CHECK_INT(written_targets(ctx, d, out.text), 7);
    geul_lora_free(d);
    geul_context_free(ctx);
}

TEST(peft_finds_or_asks_for_the_heads)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct test_kept dir = test_keep(test_path("golden/peft_plain")), gguf = test_keep(test_scratch("base.gguf"));
    struct geul_lora_shape base = {0};
    CHECK(!geul_peft_read(ctx, dir.text, unknown));
    CHECK_MSG(strstr(geul_error(ctx), "name its base, a GGUF file"), "%s", geul_error(ctx));
    geul_error_clear(ctx);
    REQUIRE(geul_peft_read_base(ctx, test_path("golden/odd_sizes"), &base) == GEUL_OK);
    CHECK(base.n_layers == 1 && base.n_heads == 3);
    CHECK(geul_peft_read_base(ctx, gguf.text, &base) != GEUL_OK);
    geul_error_clear(ctx);
    CHECK(!geul_peft_read(ctx, dir.text, (struct geul_lora_shape){.n_layers = 2, .n_heads = 5}));
    CHECK_MSG(strstr(geul_error(ctx), "do not fit 5 heads"), "%s", geul_error(ctx));
    geul_error_clear(ctx);
    struct geul_lora *d = geul_peft_read(ctx, dir.text, two);
    REQUIRE(d);
    d->made_for.n_heads = 0;
    CHECK(geul_peft_write(ctx, d, unknown, test_scratch("out")) != GEUL_OK && strstr(geul_error(ctx), "name its base"));
    geul_lora_free(d);
    geul_context_free(ctx);
    CHECK(!geul_peft_is(test_path("golden/parallel")) && !geul_peft_is("/no/such/directory"));
}

/* ----------------------------------------------------------------------------- hostile input -- */

#define CONFIG(more) "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":4" more "}"
#define DENSE        "base_model.model.gpt_neox.layers.0.attention.dense.lora_"

/* A directory with that configuration and one pair, whose tensors have these names and ranks. */
static struct test_kept make_directory(const char *config, const char *a, const char *b, int64_t rank_a, int64_t rank_b)
{
    static int number;
    char name[32];
    snprintf(name, sizeof name, "peft%d", number++);
    struct test_kept dir = test_keep(test_scratch(name)), file;
    struct geul_context *ctx = geul_context_new(NULL);
    char names[2][160];
    float zeros[1024] = {0};
    snprintf(names[0], sizeof names[0], "%s", a);
    snprintf(names[1], sizeof names[1], "%s", b ? b : "");
    struct geul_source_tensor tensors[2] = {
        {.name = names[0], .dtype = GEUL_DTYPE_F32, .n_dims = 2, .shape = {rank_a, 8}, .bytes = (size_t)rank_a * 32},
        {.name = names[1], .dtype = GEUL_DTYPE_F32, .n_dims = 2, .shape = {8, rank_b}, .bytes = (size_t)rank_b * 32}};
    CHECK(geul_os_make_directory(ctx, dir.text) == GEUL_OK);
    file = in(&dir, "adapter_config.json");
    CHECK(test_spill(file.text, config, strlen(config)));
    file = in(&dir, "adapter_model.safetensors");
    struct geul_safetensors_writer *w = geul_safetensors_writer_new(ctx, file.text, tensors, b ? 2 : 1);
    geul_safetensors_write(w, zeros, tensors[0].bytes);
    if (b)
        geul_safetensors_write(w, zeros, tensors[1].bytes);
    CHECK(geul_safetensors_commit(w) == GEUL_OK);
    geul_context_free(ctx);
    return dir;
}

static void refuse(const struct test_kept *dir, const char *message)
{
    struct meter m;
    struct geul_context *ctx = meter_context(&m);
    size_t held = m.now;
    CHECK_MSG(!geul_peft_read(ctx, dir->text, two), "%s: was read", message);
    check_failure(ctx, &m, held, dir->text, message);
    CHECK_MSG(strstr(geul_error(ctx), dir->text), "the message does not name the directory: %s", geul_error(ctx));
    geul_context_free(ctx);
}

TEST(peft_refuses_what_geul_cannot_compute)
{
    static const struct {
        const char *config, *message;
    } configs[] = {
        {"[]", "not an object"},
        {"{", "not valid JSON"},
        {"{}", "peft_type"},
        {"{\"peft_type\":\"IA3\"}", "peft_type is \"IA3\""},
        {CONFIG(",\"use_dora\":true"), "DoRA"},
        {CONFIG(",\"fan_in_fan_out\":true"), "transposed"},
        {CONFIG(",\"bias\":\"lora_only\""), "biases"},
        {CONFIG(",\"bias\":5"), "biases"},
        {CONFIG(",\"lora_bias\":true"), "biases"},
        {CONFIG(",\"modules_to_save\":[\"embed_out\"]"), "modules_to_save"},
        {CONFIG(",\"trainable_token_indices\":[1]"), "token embeddings"},
        {CONFIG(",\"layer_replication\":[[0,4]]"), "repeated layers"},
        {CONFIG(",\"alora_invocation_tokens\":[5]"), "aLoRA"},
        {CONFIG(",\"init_lora_weights\":\"pissa\""), "changes the base model"},
        {CONFIG(",\"use_rslora\":1"), "use_rslora"},
        {CONFIG(",\"rank_pattern\":[4]"), "rank_pattern"},
        {CONFIG(",\"rank_pattern\":{\"(\":4}"), "pattern"},
        {CONFIG(",\"rank_pattern\":{\"dense\":4}"), "says 4"},
        {CONFIG(",\"rank_pattern\":{\"dense\":\"x\"}"), "\"dense\""},
        {CONFIG(",\"alpha_pattern\":{\"dense\":-1}"), "\"dense\""},
        {"{\"peft_type\":\"LORA\",\"r\":0}", "\"r\""},
        {"{\"peft_type\":\"LORA\",\"r\":3}", "says 3"},
        {"{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":0}", "lora_alpha"},
        {"{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":\"4\"}", "lora_alpha"},
    };
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        struct test_kept dir = make_directory(configs[i].config, DENSE "A.weight", DENSE "B.weight", 2, 2);
        refuse(&dir, configs[i].message);
    }
}

TEST(peft_refuses_other_tensors)
{
    static const struct {
        const char *a, *b, *message;
        int64_t rank_a, rank_b;
    } tensors[] = {
        {DENSE "A.weight", NULL, "B.weight is missing", 2, 0},
        {DENSE "B.weight", NULL, "A.weight is missing", 2, 0},
        {DENSE "A.weight", DENSE "B.weight", "ranks 2 and 3", 2, 3},
        {DENSE "A.weight", DENSE "B.weight", "not a matrix", 0, 0},
        {DENSE "A.weight", DENSE "magnitude_vector", "lora_magnitude_vector", 2, 2},
        {"base_model.model.embed_out.lora_A.weight", "base_model.model.embed_out.lora_B.weight", "adapts base_model", 2,
         2},
        {"base_model.model.gpt_neox.layers.00.attention.dense.lora_A.weight", DENSE "B.weight", "layers.00", 2, 2},
        {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", DENSE "B.weight", "q_proj", 2, 2},
    };
    struct test_kept dir = make_directory(CONFIG(""), DENSE "A.weight", DENSE "B.weight", 2, 2), file;
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_lora *d = geul_peft_read(ctx, dir.text, unknown); /* without attention no heads are needed */
    CHECK_MSG(d && d->n_pairs == 1 && d->pairs[0].rank == 2 && d->alpha == 4, "%s", geul_error(ctx));
    geul_lora_free(d);
    geul_context_free(ctx);
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        struct test_kept other =
            make_directory(CONFIG(""), tensors[i].a, tensors[i].b, tensors[i].rank_a, tensors[i].rank_b);
        refuse(&other, tensors[i].message);
    }
    file = in(&dir, "adapter_model.safetensors");
    remove(file.text);
    refuse(&dir, "neither adapter_model.safetensors nor adapter_model.bin");
    file = in(&dir, "adapter_config.json");
    remove(file.text);
    refuse(&dir, "adapter_config.json");
}

TEST(peft_survives_every_failing_allocation)
{
    struct test_kept dir =
        make_directory(CONFIG(",\"alpha_pattern\":{\"dense\":8}"), DENSE "A.weight", DENSE "B.weight", 2, 2);
    struct test_kept out = test_keep(test_scratch("out"));
    struct test_shortage s = {.most = 2000};
    while (test_shortage_next(&s)) {
        struct geul_lora *d = geul_peft_read(s.ctx, dir.text, unknown);
        s.ok = d && geul_peft_write(s.ctx, d, unknown, out.text) == GEUL_OK;
        geul_lora_free(d);
    }
    CHECK_MSG(s.n > 10, "%ld calls", s.n);
}

/* ------------------------------------------------------------------------------------- forms -- */

/* The golden adapter peft_plain with other names of its tensors: `before` in front, and .lora_X. becomes .lora_X.NAME.
 */
static struct test_kept rename_adapter(const char *before, const char *prefix, const char *adapter)
{
    static int number;
    char name[32], names[32][200];
    snprintf(name, sizeof name, "named%d", number++);
    struct test_kept dir = test_keep(test_scratch(name)), golden = test_keep(test_path("golden/peft_plain")), file;
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_checkpoint *c = geul_checkpoint_open_peft(ctx, golden.text, NULL);
    struct geul_source_tensor tensors[32];
    size_t n = geul_checkpoint_count(c), size, skip = strlen("base_model.model.");
    CHECK(geul_os_make_directory(ctx, dir.text) == GEUL_OK);
    for (size_t i = 0; i < n && i < 32; i++) {
        tensors[i] = *geul_checkpoint_at(c, i);
        const char *rest = tensors[i].name + skip + (prefix ? strlen(prefix) : 0), *half = strstr(rest, ".lora_");
        snprintf(names[i], sizeof names[i], "%s%.*s%s%s.weight", before, (int)(half - rest) + 7, rest,
                 *adapter ? "." : "", adapter);
        tensors[i].name = names[i];
    }
    file = in(&dir, "adapter_model.safetensors");
    struct geul_safetensors_writer *w = geul_safetensors_writer_new(ctx, file.text, tensors, n);
    for (size_t i = 0; i < n; i++)
        geul_safetensors_write(w, tensors[i].data, tensors[i].bytes);
    CHECK(geul_safetensors_commit(w) == GEUL_OK);
    file = in(&golden, "adapter_config.json");
    char *config = test_slurp(file.text, &size);
    file = in(&dir, "adapter_config.json");
    CHECK(config && test_spill(file.text, config, size));
    free(config);
    geul_checkpoint_close(c);
    geul_context_free(ctx);
    return dir;
}

TEST(peft_names_with_an_adapter_s_name_and_wrappers_are_known)
{
    static const struct {
        const char *before, *prefix, *adapter;
    } forms[] = {
        {"base_model.model.", NULL, ""},
        {"base_model.model.", NULL, "default"},
        {"base_model.model.", NULL, "my_adapter-2"},
        {"module.base_model.model.", NULL, "default"},
        {"_fsdp_wrapped_module.base_model.model.", NULL, ""},
        {"base_model.model.base_model.model.", NULL, "default"},
        {"base_model.model.", "gpt_neox.", "default"}, /* of a GPTNeoXModel */
        {"", NULL, "default"},
    };
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_lora *want = geul_peft_read(ctx, test_path("golden/peft_plain"), two);
    REQUIRE(want);
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct test_kept dir = rename_adapter(forms[i].before, forms[i].prefix, forms[i].adapter);
        struct geul_lora *d = geul_peft_read(ctx, dir.text, two);
        if (CHECK_MSG(d, "%s: %s", forms[i].before, geul_error(ctx)))
            check_equal(want, d);
        geul_lora_free(d);
        geul_error_clear(ctx);
    }
    geul_lora_free(want);
    geul_context_free(ctx);
}

/* Two adapters in one file: which is meant is not known. */
TEST(peft_two_adapters_in_one_file_are_refused)
{
    struct test_kept dir = make_directory(CONFIG(""), DENSE "A.one.weight", DENSE "A.two.weight", 2, 8);
    refuse(&dir, "occurs twice");
}

static void put_text(const struct test_kept *dir, const char *file, const char *text)
{
    struct test_kept path = in(dir, file);
    CHECK(test_spill(path.text, text, strlen(text)));
}

#define NEOX(layers, heads)                                                                                            \
    "{\"model_type\":\"gpt_neox\",\"num_hidden_layers\":" layers ",\"hidden_size\":32,\"intermediate_size\":64,"       \
    "\"num_attention_heads\":" heads ",\"max_position_embeddings\":64,\"vocab_size\":64}"

TEST(peft_heads_come_from_the_config_beside_the_adapter)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct test_kept dir = rename_adapter("base_model.model.", NULL, "");
    put_text(&dir, "config.json", NEOX("2", "2"));
    struct geul_lora *d = geul_peft_read(ctx, dir.text, unknown),
                     *want = geul_peft_read(ctx, test_path("golden/peft_plain"), two);
    REQUIRE(CHECK_MSG(d && want, "%s", geul_error(ctx)));
    check_equal(want, d);
    CHECK(d->made_for.n_layers == 2 && d->made_for.n_heads == 2 && d->made_for.d_model == 32 && d->made_for.d_ff == 64);
    geul_lora_free(d);
    geul_lora_free(want);
    CHECK(geul_peft_is(dir.text) && !geul_peft_has_model(dir.text));
    /* for another model than that config.json's */
    CHECK(!geul_peft_read(ctx, dir.text, (struct geul_lora_shape){.n_layers = 2, .n_heads = 4, .d_model = 32}));
    CHECK_MSG(strstr(geul_error(ctx), "one of 2 layers, 2 heads, width 32, 64 inside of the MLP, where this one has 2 "
                                      "layers, 4 heads, width 32"),
              "%s", geul_error(ctx));
    geul_context_free(ctx);
}

/* In GGUF too an adapter knows the model that it was made for: heads and layers cannot be told from its matrices. */
TEST(peft_shape_is_kept_in_gguf_and_other_models_refused)
{
    static const struct {
        const char *what;
        struct geul_model_shape shape;
    } others[] = {
        {"heads", {.n_layers = 2, .n_heads = 4, .d_head = 8, .d_model = 32, .d_ff = 64}},
        {"layers", {.n_layers = 3, .n_heads = 2, .d_head = 16, .d_model = 32, .d_ff = 64}},
        {"width", {.n_layers = 2, .n_heads = 2, .d_head = 32, .d_model = 64, .d_ff = 64}},
        {"inner", {.n_layers = 2, .n_heads = 2, .d_head = 16, .d_model = 32, .d_ff = 128}},
    };
    const struct geul_model_shape own = {.n_layers = 2, .n_heads = 2, .d_head = 16, .d_model = 32, .d_ff = 64};
    struct geul_context *ctx = geul_context_new(NULL);
    struct test_kept gguf = test_keep(test_scratch("adapter.gguf")), dir = test_keep(test_path("golden/peft_plain"));
    struct test_kept base = test_keep(test_path("golden/parallel")), back = test_keep(test_scratch("back"));
    struct geul_peft_options o = {.size = sizeof o, .base = base.text};
    REQUIRE(CHECK_MSG(geul_convert_peft(ctx, dir.text, gguf.text, &o) == GEUL_OK, "%s", geul_error(ctx)));
    struct geul_lora *d = geul_lora_read(ctx, gguf.text);
    REQUIRE(d);
    CHECK(d->made_for.n_layers == 2 && d->made_for.n_heads == 2 && d->made_for.d_model == 32 && d->made_for.d_ff == 64);
    CHECK_MSG(geul_lora_check_shape(ctx, d, &own, "x") == GEUL_OK, "%s", geul_error(ctx));
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        geul_error_clear(ctx);
        CHECK(geul_lora_check_shape(ctx, d, &others[i].shape, "a.gguf") != GEUL_OK);
        CHECK_MSG(
            strstr(geul_error(ctx), "a.gguf: was made for another model: one of 2 layers, 2 heads, width 32, 64 "),
            "%s: %s", others[i].what, geul_error(ctx));
    }
    geul_error_clear(ctx);
    CHECK(geul_peft_write(ctx, d, (struct geul_lora_shape){.n_heads = 4}, back.text) != GEUL_OK);
    CHECK_MSG(strstr(geul_error(ctx), "another model"), "%s", geul_error(ctx));
    geul_lora_free(d);
    geul_context_free(ctx);
}
