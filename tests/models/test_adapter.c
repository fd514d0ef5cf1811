/* test_adapter.c: adapters against what PEFT computes with them, against merged weights, and broken files of them. */
#include "convert/peft.h"
#include "core/gguf.h"
#include "eval/importance.h"
#include "models/model.h"
#include "quantize/imatrix.h"
#include "convert/merge.h"
#include "tests/hostile.h"
#include "tests/models/golden.h"
#include "tests/models/rig.h"

static const char *const peft_cases[] = {"peft_plain", "peft_patterns"};

static struct test_kept golden_folder(const char *name)
{
    char relative[128];
    snprintf(relative, sizeof relative, "golden/%s", name);
    return test_keep(test_path(relative));
}

/* The adapter of that golden; NULL after a failed check. */
static struct geul_lora *read_peft(struct geul_context *ctx, const char *name)
{
    struct test_kept dir = golden_folder(name);
    struct geul_lora *d = geul_peft_read(ctx, dir.text, (struct geul_lora_shape){.n_layers = 2, .n_heads = 2});
    CHECK_MSG(d, "%s", geul_error(ctx));
    return d;
}

struct collected {
    float *rows;
    int n;
};

static bool collect(void *user, int item, const float *logits, int n_vocab)
{
    struct collected *c = user;
    memcpy(c->rows + (size_t)item * (size_t)n_vocab, logits, (size_t)n_vocab * sizeof *logits);
    c->n++;
    return true;
}

/* An adapter with the strength it is to have. */
struct use {
    const struct geul_lora *data;
    float scale;
};

/* Logits (T, V) of the golden's tokens with n adapters; malloc()ed, NULL (and a failed check) on failure. */
static float *logits_with(const struct golden *g, const char *model, struct rig_options o, const struct use *uses,
                          int n)
{
    struct rig r;
    if (!rig_open(&r, model, o))
        return NULL;
    geul_session_free(r.session);
    for (int i = 0; i < n; i++)
        CHECK_MSG(geul_model_add_lora(r.ctx, r.model, uses[i].data, uses[i].scale, "test") == GEUL_OK, "%s",
                  geul_error(r.ctx));
    CHECK_INT(geul_model_adapter_count(r.model), n);
    r.session = geul_session_new(r.ctx, r.model, &(struct geul_session_options){.n_batch = o.n_batch});
    struct geul_batch_item items[128];
    for (int64_t i = 0; i < g->tokens.count; i++)
        items[i] = (struct geul_batch_item){g->tokens.i32[i], 0, true};
    struct collected c = {malloc((size_t)g->logits.count * sizeof(float)), 0};
    enum geul_status status = geul_session_eval(r.session, items, (int)g->tokens.count, collect, &c);
    CHECK_MSG(status == GEUL_OK && c.n == g->tokens.count, "%s", geul_error(r.ctx));
    rig_close(&r);
    return c.rows;
}

static const struct rig_options plain = {.poisoned_from = -1};

TEST(adapter_logits_equal_peft)
{
    struct golden g;
    REQUIRE(golden_open("parallel", &g));
    struct test_kept model = test_keep(golden_convert(&g, GEUL_TYPE_F32));
    struct geul_context *ctx = geul_context_new(NULL);
    float *without = logits_with(&g, model.text, plain, NULL, 0);
    for (size_t i = 0; i < sizeof peft_cases / sizeof *peft_cases; i++) {
        struct test_npy expected;
        struct test_kept file = golden_folder(peft_cases[i]);
        strcat(file.text, "/logits.npy");
        REQUIRE(test_npy_read(file.text, &expected) && expected.f32 && expected.count == g.logits.count);
        struct geul_lora *d = read_peft(ctx, peft_cases[i]);
        REQUIRE(d);
        float *rows = logits_with(&g, model.text, plain, &(struct use){d, 1}, 1);
        double worst = test_difference(rows, expected.f32, g.logits.count);
        printf("%s: worst %.2e\n", peft_cases[i], worst);
        CHECK_MSG(worst <= 1e-4, "%s: logits differ by %g", peft_cases[i], worst);
        CHECK(test_difference(rows, without, g.logits.count) > 1);
        for (int v = 0; rig_variant(v); v++) {
            struct rig_options o = {.poisoned_from = -1, .cpu = rig_variant(v)};
            float *other = logits_with(&g, model.text, o, &(struct use){d, 1}, 1);
            worst = test_difference(other, expected.f32, g.logits.count);
            CHECK_MSG(worst <= 1e-4, "%s on %s: logits differ by %g", peft_cases[i], o.cpu, worst);
            free(other);
        }
        free(rows);
        geul_lora_free(d);
        test_npy_free(&expected);
    }
    free(without);
    geul_context_free(ctx);
    golden_close(&g);
}

TEST(adapter_lives_on_the_device_of_its_layer)
{
    struct golden g;
    REQUIRE(golden_open("parallel", &g));
    struct test_kept model = test_keep(golden_convert(&g, GEUL_TYPE_F32));
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_lora *d = read_peft(ctx, "peft_plain");
    REQUIRE(d);
    const struct rig_options others[] = {{.poisoned_from = 1},
                                         {.poisoned_from = -1, .all_poisoned = true},
                                         {.poisoned_from = -1, .n_batch = 1},
                                         {.poisoned_from = -1, .n_batch = 5, .n_threads = 2}};
    float *rows = logits_with(&g, model.text, plain, &(struct use){d, 1}, 1);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        float *other = logits_with(&g, model.text, others[i], &(struct use){d, 1}, 1);
        CHECK_MSG(memcmp(rows, other, (size_t)g.logits.count * sizeof *rows) == 0, "way %zu differs by %g", i,
                  test_difference(rows, other, g.logits.count));
        free(other);
    }
    free(rows);
    geul_lora_free(d);
    geul_context_free(ctx);
    golden_close(&g);
}

/* Merges into a scratch file and returns its path. */
static struct test_kept merged(struct geul_context *ctx, const char *base, const struct use *uses, int n,
                               const struct geul_mix *mix, int n_threads)
{
    struct geul_merge_lora inputs[4];
    for (int i = 0; i < n; i++)
        inputs[i] = (struct geul_merge_lora){uses[i].data, uses[i].scale, "test"};
    struct test_kept out = test_keep(test_scratch("merged.gguf"));
    struct geul_merge *m = geul_merge_data(ctx, base, inputs, n);
    struct geul_quantize_options o = {.size = sizeof o, .mix = mix, .keep_types = !mix, .n_threads = n_threads};
    o.hooks = geul_merge_hooks(m);
    struct geul_quantize *q = m ? geul_quantize_new(ctx, base, &o) : NULL;
    CHECK_MSG(q && geul_quantize_write(q, out.text) == GEUL_OK, "%s", geul_error(ctx));
    geul_quantize_free(q);
    geul_merge_free(m);
    return out;
}

TEST(adapter_equals_merged_weights)
{
    struct golden g;
    REQUIRE(golden_open("parallel", &g));
    struct test_kept base = test_keep(golden_convert(&g, GEUL_TYPE_F32));
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_lora *a = read_peft(ctx, "peft_plain"), *b = read_peft(ctx, "peft_patterns");
    REQUIRE(a && b);
    const struct use both[] = {{a, 0.75f}, {b, -0.5f}};
    for (int n = 1; n <= 2; n++) {
        struct test_kept model = merged(ctx, base.text, both, n, NULL, 2);
        float *beside = logits_with(&g, base.text, plain, both, n);
        float *inside = logits_with(&g, model.text, plain, NULL, 0);
        double worst = test_difference(beside, inside, g.logits.count);
        CHECK_MSG(worst <= 1e-4 * golden_range(&g), "%d adapters: logits differ by %g", n, worst);
        free(beside);
        free(inside);
    }
    geul_lora_free(a);
    geul_lora_free(b);
    geul_context_free(ctx);
    golden_close(&g);
}

TEST(adapter_merging_does_not_depend_on_threads)
{
    struct golden g;
    size_t sizes[2];
    char *files[2];
    REQUIRE(golden_open("parallel", &g));
    struct test_kept base = test_keep(golden_convert(&g, GEUL_TYPE_F32));
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_lora *d = read_peft(ctx, "peft_plain");
    REQUIRE(d);
    for (int i = 0; i < 2; i++)
        files[i] = test_slurp(merged(ctx, base.text, &(struct use){d, 1}, 1, geul_mix_find("q8_0"), 1 + 2 * i).text,
                              &sizes[i]);
    CHECK(files[0] && files[1] && sizes[0] == sizes[1] && memcmp(files[0], files[1], sizes[0]) == 0);
    free(files[0]);
    free(files[1]);
    geul_lora_free(d);
    geul_context_free(ctx);
    golden_close(&g);
}

TEST(adapter_scales_and_sums)
{
    struct golden g;
    REQUIRE(golden_open("parallel", &g));
    struct test_kept model = test_keep(golden_convert(&g, GEUL_TYPE_F32));
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_lora *d = read_peft(ctx, "peft_plain");
    REQUIRE(d);
    const struct use halves[] = {{d, 0.5f}, {d, 0.5f}}, none[] = {{d, 0}};
    float *whole = logits_with(&g, model.text, plain, &(struct use){d, 1}, 1);
    float *sum = logits_with(&g, model.text, plain, halves, 2), *zero = logits_with(&g, model.text, plain, none, 1);
    CHECK(test_difference(whole, sum, g.logits.count) <= 1e-4);
    CHECK(test_difference(zero, g.logits.f32, g.logits.count) <= 1e-4);
    free(whole);
    free(sum);
    free(zero);
    geul_lora_free(d);
    geul_context_free(ctx);
    golden_close(&g);
}

/* ------------------------------------------------------------------------------------- files -- */

/* Whether both hold the same sources in the same order; B may differ by a factor close to 1. */
static void check_same(const struct geul_lora *a, const struct geul_lora *b, double tolerance)
{
    REQUIRE(a->n_pairs == b->n_pairs);
    for (int i = 0; i < a->n_pairs; i++) {
        const struct geul_lora_pair *x = &a->pairs[i], *y = &b->pairs[i];
        CHECK(x->layer == y->layer && x->target == y->target && x->rank == y->rank && x->n == y->n && x->k == y->k);
        CHECK(memcmp(x->a, y->a, (size_t)(x->rank * x->k) * sizeof *x->a) == 0);
        float sx = geul_lora_pair_scale(a, x->rank), sy = geul_lora_pair_scale(b, y->rank);
        for (int64_t k = 0; k < x->n * x->rank; k++) {
            double p = (double)sx * (double)x->b[k], q = (double)sy * (double)y->b[k];
            if (!CHECK_MSG(fabs(p - q) <= tolerance * fabs(p), "source %d, B[%lld]: %g, %g", i, (long long)k, p, q))
                break;
        }
    }
}

TEST(adapter_file_round_trip)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct test_kept path = test_keep(test_scratch("adapter.gguf"));
    struct geul_lora *plain_data = read_peft(ctx, "peft_plain"), *mixed = read_peft(ctx, "peft_patterns");
    REQUIRE(plain_data && mixed);
    plain_data->template_text = "koalpaca";
    plain_data->name = "a name";
    for (int rslora = 0; rslora < 2; rslora++) {
        plain_data->rslora = rslora;
        REQUIRE(CHECK_MSG(geul_lora_save(ctx, plain_data, path.text) == GEUL_OK, "%s", geul_error(ctx)));
        struct geul_lora *d = geul_lora_read(ctx, path.text);
        REQUIRE(CHECK_MSG(d, "%s", geul_error(ctx)));
        check_same(plain_data, d, 0);
        CHECK(d->alpha == 8 && d->rslora == rslora && d->made_for.n_layers == 2 && d->made_for.n_heads == 2);
        CHECK_STR(d->name, "a name");
        CHECK_STR(d->base, "golden/parallel");
        CHECK_STR(d->template_text, "koalpaca");
        geul_lora_free(d);
    }
    REQUIRE(mixed->rslora && geul_lora_save(ctx, mixed, path.text) == GEUL_OK);
    struct geul_lora *d = geul_lora_read(ctx, path.text);
    REQUIRE(d);
    CHECK(!d->rslora && !d->template_text); /* one alpha cannot say it: B does */
    check_same(mixed, d, 1e-6);
    geul_lora_free(d);
    geul_lora_free(mixed);
    geul_lora_free(plain_data);
    geul_context_free(ctx);
}

/* A file of one pair, with the given defect. */
struct shape {
    const char *a, *b; /* names; NULL: not there */
    int64_t a_shape[2], b_shape[2];
    enum geul_type type;
    float value;
};
static const struct shape good = {
    "blk.1.ffn_up.weight.lora_a", "blk.1.ffn_up.weight.lora_b", {2, 32}, {64, 2}, GEUL_TYPE_F32, 0.5f};

struct keys {
    const char *general_type, *adapter_type, *architecture;
    float alpha;
    bool invocation;
};
static const struct keys good_keys = {"adapter", "lora", "gptneox", 4, false};

static void put_half(struct geul_gguf_writer *w, const struct shape *s, const int64_t *shape)
{
    size_t bytes;
    float x[64 * 64];
    uint8_t encoded[sizeof x];
    int64_t n = shape[0] * shape[1];
    for (int64_t i = 0; i < n; i++)
        x[i] = s->value * (float)(i % 7);
    if (s->type == GEUL_TYPE_I32)
        memcpy(encoded, x, sizeof x);
    else
        geul_encode(s->type, x, encoded, n);
    if (geul_shape_bytes(s->type, 2, shape, &bytes))
        geul_gguf_write_data(w, encoded, bytes);
}

static void write_file(struct geul_context *ctx, const char *path, const struct keys *k, const struct shape *s)
{
    struct geul_gguf_writer *w = geul_gguf_writer_new(ctx, path);
    if (k->general_type)
        geul_gguf_set_string(w, "general.type", k->general_type, strlen(k->general_type));
    geul_gguf_set_string(w, "adapter.type", k->adapter_type, strlen(k->adapter_type));
    geul_gguf_set_string(w, "general.architecture", k->architecture, strlen(k->architecture));
    if (k->alpha != 0)
        geul_gguf_set_f32(w, "adapter.lora.alpha", k->alpha);
    if (k->invocation)
        geul_gguf_set_i32s(w, "adapter.alora.invocation_tokens", (int32_t[]){1, 2}, 2);
    if (s->a)
        geul_gguf_declare_tensor(w, s->a, s->type, 2, s->a_shape);
    if (s->b)
        geul_gguf_declare_tensor(w, s->b, s->type, 2, s->b_shape);
    if (s->a)
        put_half(w, s, s->a_shape);
    if (s->b)
        put_half(w, s, s->b_shape);
    CHECK_MSG(geul_gguf_writer_commit(w) == GEUL_OK, "%s", geul_error(ctx));
}

TEST(adapter_reads_every_type)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct test_kept path = test_keep(test_scratch("typed.gguf"));
    const enum geul_type types[] = {GEUL_TYPE_F32, GEUL_TYPE_F16, GEUL_TYPE_BF16, GEUL_TYPE_Q8_0};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct shape s = good;
        s.type = types[i];
        s.a_shape[0] = s.b_shape[1] = 32; /* rows of whole blocks */
        write_file(ctx, path.text, &good_keys, &s);
        struct geul_lora *d = geul_lora_read(ctx, path.text);
        REQUIRE(CHECK_MSG(d, "%s: %s", geul_type_name(types[i]), geul_error(ctx)));
        REQUIRE(d->n_pairs == 1);
        const struct geul_lora_pair *x = geul_lora_find(d, 1, GEUL_NEOX_UP);
        REQUIRE(x && !geul_lora_find(d, 0, GEUL_NEOX_UP));
        CHECK(x->rank == 32 && x->n == 64 && x->k == 32 && geul_lora_pair_scale(d, 32) == 0.125f);
        for (int k = 0; k < 32 * 32; k++)
            CHECK(fabsf(x->a[k] - 0.5f * (float)(k % 7)) < 0.02f && fabsf(x->b[k] - 0.5f * (float)(k % 7)) < 0.02f);
        geul_lora_free(d);
    }
    struct keys no_alpha = good_keys;
    no_alpha.alpha = 0;
    write_file(ctx, path.text, &no_alpha, &good);
    struct geul_lora *d = geul_lora_read(ctx, path.text);
    REQUIRE(d);
    CHECK(geul_lora_pair_scale(d, 2) == 1); /* as llama.cpp has it */
    geul_lora_free(d);
    geul_context_free(ctx);
}

static void refuse(const struct keys *k, const struct shape *s, const char *message)
{
    struct meter m;
    struct test_kept path = test_keep(test_scratch("hostile.gguf"));
    struct geul_context *quiet = geul_context_new(NULL), *ctx = meter_context(&m);
    size_t held = m.now;
    write_file(quiet, path.text, k, s);
    CHECK_MSG(!geul_lora_read(ctx, path.text), "%s: was read", message);
    check_failure(ctx, &m, held, path.text, message);
    CHECK_MSG(strstr(geul_error(ctx), path.text), "the message does not name the file: %s", geul_error(ctx));
    geul_context_free(quiet);
    geul_context_free(ctx);
}

TEST(adapter_refuses_broken_files)
{
    static const struct {
        struct keys keys;
        const char *message;
    } kinds[] = {
        {{NULL, "lora", "gptneox", 4, false}, "is not an adapter"},
        {{"model", "lora", "gptneox", 4, false}, "is not an adapter"},
        {{"adapter", "control_vector", "gptneox", 4, false}, "adapter.type"},
        {{"adapter", "lora", "llama", 4, false}, "another architecture"},
        {{"adapter", "lora", "gptneox", -1, false}, "alpha is -1"},
        {{"adapter", "lora", "gptneox", NAN, false}, "alpha is"},
        {{"adapter", "lora", "gptneox", INFINITY, false}, "alpha is"},
        {{"adapter", "lora", "gptneox", 4, true}, "invocation tokens"},
    };
    static const struct {
        struct shape shape;
        const char *message;
    } shapes[] = {
#define UP "blk.1.ffn_up.weight.lora_"
        {{UP "a", NULL, {2, 32}, {0, 0}, GEUL_TYPE_F32, 1}, "no other half, lora_b"},
        {{NULL, UP "b", {0, 0}, {64, 2}, GEUL_TYPE_F32, 1}, "no other half, lora_a"},
        {{NULL, NULL, {0, 0}, {0, 0}, GEUL_TYPE_F32, 1}, "holds no matrices"},
        {{UP "a", UP "b", {2, 32}, {64, 3}, GEUL_TYPE_F32, 1}, "(r, K) and (N, r)"},
        {{UP "a", UP "b", {32, 2}, {2, 64}, GEUL_TYPE_F32, 1}, "(r, K) and (N, r)"},
        {{UP "a", UP "b", {2, 32}, {64, 2}, GEUL_TYPE_I32, 1}, "i32"},
        {{UP "a", UP "b", {2, 32}, {64, 2}, GEUL_TYPE_F32, NAN}, "matrix A for ffn_up of layer 1"},
        {{"token_embd.weight.lora_a", "token_embd.weight.lora_b", {2, 32}, {64, 2}, GEUL_TYPE_F32, 1},
         "adapts token_embd.weight"},
        {{"output.weight.lora_a", "output.weight.lora_b", {2, 32}, {64, 2}, GEUL_TYPE_F32, 1}, "adapts output.weight"},
        {{"blk.0.attn_q.weight.lora_a", "blk.0.attn_q.weight.lora_b", {2, 32}, {64, 2}, GEUL_TYPE_F32, 1},
         "adapts blk.0.attn_q.weight"},
        {{"blk.01.ffn_up.weight.lora_a", "blk.01.ffn_up.weight.lora_b", {2, 32}, {64, 2}, GEUL_TYPE_F32, 1},
         "adapts blk.01.ffn_up"},
        {{"blk.99999999999999999999.ffn_up.weight.lora_a", UP "b", {2, 32}, {64, 2}, GEUL_TYPE_F32, 1},
         "adapts blk.999"},
        {{"blk.1.ffn_up.weight", UP "b", {2, 32}, {64, 2}, GEUL_TYPE_F32, 1}, "not part of a low-rank adapter"},
        {{UP "m", UP "b", {2, 32}, {64, 2}, GEUL_TYPE_F32, 1}, "adapts blk.1.ffn_up.weight"},
#undef UP
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        refuse(&kinds[i].keys, &good, kinds[i].message);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        refuse(&good_keys, &shapes[i].shape, shapes[i].message);
}

TEST(adapter_refuses_rank_zero)
{
    struct meter m;
    size_t size;
    struct test_kept path = test_keep(test_scratch("zero.gguf"));
    struct geul_context *quiet = geul_context_new(NULL), *ctx = meter_context(&m);
    size_t held = m.now;
    write_file(quiet, path.text, &good_keys, &good);
    char *bytes = test_slurp(path.text, &size);
    REQUIRE(bytes);
    for (size_t i = 0; i + 48 < size; i++) /* behind a name: u32 dimensions, then u64 each, innermost first */
        if (memcmp(bytes + i, "lora_a", 6) == 0)
            bytes[i + 6 + 4 + 8] = 0;
        else if (memcmp(bytes + i, "lora_b", 6) == 0)
            bytes[i + 6 + 4] = 0;
    REQUIRE(test_spill(path.text, bytes, size));
    CHECK(!geul_lora_read(ctx, path.text));
    check_failure(ctx, &m, held, "rank 0", "blk.1.ffn_up.weight.lora_a");
    free(bytes);
    geul_context_free(quiet);
    geul_context_free(ctx);
}

TEST(adapter_of_another_model_is_refused)
{
    struct golden g;
    struct rig r;
    REQUIRE(golden_open("parallel", &g));
    struct test_kept model = test_keep(golden_convert(&g, GEUL_TYPE_F32)), path = test_keep(test_scratch("other.gguf"));
    REQUIRE(rig_open(&r, model.text, plain));
    struct shape layer = good, wide = good;
    layer.a = "blk.2.ffn_up.weight.lora_a";
    layer.b = "blk.2.ffn_up.weight.lora_b";
    wide.b_shape[0] = 32;
    const struct shape *const shapes[] = {&layer, &wide};
    const char *const messages[] = {"adapts layer 2, but the model has 2 layers", "the model's is (64, 32)"};
    for (int i = 0; i < 2; i++) {
        write_file(r.ctx, path.text, &good_keys, shapes[i]);
        CHECK(geul_model_add_adapter(r.ctx, r.model, path.text, 1) == GEUL_ERROR_ARGUMENT);
        CHECK_MSG(strstr(geul_error(r.ctx), messages[i]) && strstr(geul_error(r.ctx), path.text), "%s",
                  geul_error(r.ctx));
    }
    write_file(r.ctx, path.text, &good_keys, &good);
    CHECK(geul_model_add_adapter(r.ctx, r.model, path.text, NAN) == GEUL_ERROR_ARGUMENT);
    CHECK(geul_model_add_adapter(r.ctx, r.model, "/no/such/adapter.gguf", 1) != GEUL_OK);
    CHECK_INT(geul_model_adapter_count(r.model), 0);
    CHECK(geul_model_add_adapter(r.ctx, r.model, path.text, 1) == GEUL_OK);
    CHECK_INT(geul_model_adapter_count(r.model), 1);
    rig_close(&r);
    golden_close(&g);
}

TEST(adapter_brings_its_template)
{
    struct golden g;
    struct rig r;
    REQUIRE(golden_open("parallel", &g));
    struct test_kept model = test_keep(golden_convert(&g, GEUL_TYPE_F32)), path = test_keep(test_scratch("with.gguf"));
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_lora *d = read_peft(ctx, "peft_plain");
    REQUIRE(d && rig_open(&r, model.text, plain));
    CHECK(!geul_model_get_template(r.model));
    d->template_text = "kullm";
    REQUIRE(geul_lora_save(ctx, d, path.text) == GEUL_OK);
    REQUIRE(geul_model_add_adapter(r.ctx, r.model, path.text, 1) == GEUL_OK);
    CHECK_STR(geul_model_get_template(r.model), "kullm");
    d->template_text = NULL;
    REQUIRE(geul_model_add_lora(r.ctx, r.model, d, 1, "test") == GEUL_OK);
    CHECK_STR(geul_model_get_template(r.model), "kullm");
    geul_lora_free(d);
    geul_context_free(ctx);
    rig_close(&r);
    golden_close(&g);
}

TEST(adapter_leaves_the_importance_matrix_its_names)
{
    struct golden g;
    REQUIRE(golden_open("parallel", &g));
    struct test_kept model = test_keep(golden_convert(&g, GEUL_TYPE_F32)), path = test_keep(test_scratch("a.imatrix"));
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_lora *d = read_peft(ctx, "peft_plain");
    struct geul_model *m = geul_model_load(ctx, model.text, NULL);
    REQUIRE(d && m && geul_model_add_lora(ctx, m, d, 1, "test") == GEUL_OK);
    struct geul_session *s = geul_session_new(ctx, m, NULL);
    struct geul_importance *importance = geul_importance_new(ctx);
    struct geul_importance_run run = {.ids = g.tokens.i32, .n = (size_t)g.tokens.count, .chunk = 16};
    REQUIRE(s && importance && geul_importance_collect(importance, s, &run) == GEUL_OK);
    REQUIRE(geul_importance_save(importance, path.text) == GEUL_OK);
    struct geul_imatrix *i = geul_imatrix_load(ctx, path.text);
    REQUIRE(i);
    CHECK_INT(i->n_entries, 2 * 4 + 1);
    for (int64_t k = 0; k < i->n_entries; k++)
        CHECK_MSG(!strstr(i->entries[k].name, "lora"), "%s", i->entries[k].name);
    geul_imatrix_free(i);
    geul_importance_free(importance);
    geul_session_free(s);
    geul_model_free(m);
    geul_lora_free(d);
    geul_context_free(ctx);
    golden_close(&g);
}

/* Reads, attaches, saves and merges; whether all of it worked. */
static bool whole_use(struct geul_context *ctx, const char *model, const char *adapter, const char *out)
{
    struct geul_model *m = geul_model_load(ctx, model, &(struct geul_model_options){.n_threads = 1});
    bool ok = m && geul_model_add_adapter(ctx, m, adapter, 1) == GEUL_OK;
    struct geul_lora *d = ok ? geul_lora_read(ctx, adapter) : NULL;
    ok = ok && d && geul_lora_save(ctx, d, out) == GEUL_OK;
    struct geul_merge_input in = {adapter, 1};
    struct geul_merge *merge = ok ? geul_merge_new(ctx, model, &in, 1) : NULL;
    ok = ok && merge;
    geul_merge_free(merge);
    geul_lora_free(d);
    geul_model_free(m);
    return ok;
}

TEST(adapter_survives_every_failing_allocation)
{
    struct golden g;
    REQUIRE(golden_open("parallel", &g));
    struct test_kept model = test_keep(golden_convert(&g, GEUL_TYPE_F32)), path = test_keep(test_scratch("small.gguf")),
                     out = test_keep(test_scratch("out.gguf"));
    struct geul_context *ctx = geul_context_new(NULL);
    write_file(ctx, path.text, &good_keys, &good);
    geul_context_free(ctx);
    struct test_shortage s = {.most = 5000};
    while (test_shortage_next(&s))
        s.ok = whole_use(s.ctx, model.text, path.text, out.text);
    CHECK_MSG(s.n > 50, "%ld calls", s.n);
    golden_close(&g);
}
