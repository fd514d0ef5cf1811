/* The model against Hugging Face transformers, on every golden, on every device and instruction set. */
#include "tests/models/golden.h"
#include "tests/models/rig.h"

/* Collects the logits of every position. */
struct collected {
    float *rows; /* (T, V) */
    int n;
};

static bool collect(void *user, int item, const float *logits, int n_vocab)
{
    struct collected *c = user;
    memcpy(c->rows + (size_t)item * (size_t)n_vocab, logits, (size_t)n_vocab * sizeof *logits);
    c->n++;
    return true;
}

/* Logits (T, V) of the golden's tokens; malloc()ed; NULL (and a failed check) on failure. */
static float *all_logits(struct geul_session *s, const struct golden *g, int seq)
{
    int n = (int)g->tokens.count;
    struct geul_batch_item items[128];
    for (int i = 0; i < n; i++)
        items[i] = (struct geul_batch_item){g->tokens.i32[i], seq, true};
    struct collected c = {malloc((size_t)g->logits.count * sizeof(float)), 0};
    enum geul_status status = geul_session_eval(s, items, n, collect, &c);
    CHECK_MSG(status == GEUL_OK && c.n == n, "%s: %d rows, %s", g->name, c.n, geul_error(geul_session_context(s)));
    return c.rows;
}

static const struct rig_options plain = {.poisoned_from = -1};

/* The bound of the issue: 1e-4 for float32 weights, 2e-2 of the logits' range for 16-bit ones. */
static double bound(const struct golden *g)
{
    return g->f32 ? 1e-4 : 2e-2 * golden_range(g);
}

TEST(neox_logits_equal_transformers)
{
    for (int i = 0; i < n_goldens; i++) {
        struct golden g;
        struct rig r;
        REQUIRE(golden_open(golden_names[i], &g));
        REQUIRE(rig_open(&r, golden_convert(&g, golden_type(&g)), plain));
        CHECK_INT(geul_model_get_shape(r.model)->n_vocab, g.logits.shape[1]);
        float *rows = all_logits(r.session, &g, 0);
        double worst = test_difference(rows, g.logits.f32, g.logits.count);
        CHECK_MSG(worst <= bound(&g), "%s: logits differ by %g of %g", g.name, worst, bound(&g));
        printf("%-14s worst %.2e, bound %.2e\n", g.name, worst, bound(&g));
        free(rows);
        rig_close(&r);
        golden_close(&g);
    }
}

TEST(neox_greedy_continuation_equals_transformers)
{
    for (int i = 0; i < n_goldens; i++) {
        struct golden g;
        struct rig r;
        REQUIRE(golden_open(golden_names[i], &g));
        if (!g.f32) {
            golden_close(&g);
            continue;
        }
        REQUIRE(rig_open(&r, golden_convert(&g, GEUL_TYPE_F32), plain));
        struct geul_sampling greedy = geul_sampling_default();
        greedy.temperature = 0;
        struct geul_generation how = {.sampling = &greedy, .max_tokens = 64, .ignore_end_token = true};
        struct geul_generation_result result;
        enum geul_status status = geul_generate_ids(r.session, g.tokens.i32, (int)g.tokens.count, &how, &result);
        REQUIRE(CHECK_MSG(status == GEUL_OK, "%s", geul_error(r.ctx)));
        CHECK_INT(result.n_generated, 64);
        for (int k = 0; k < result.n_generated && k < 64; k++)
            if (!CHECK_MSG(result.tokens[k] == g.greedy.i32[k], "%s: token %d is %d, expected %d", g.name, k,
                           result.tokens[k], g.greedy.i32[k]))
                break;
        geul_tokens_free(r.ctx, result.tokens);
        geul_text_free(r.ctx, result.text);
        rig_close(&r);
        golden_close(&g);
    }
}

TEST(neox_parity_on_every_instruction_set)
{
    for (int v = 0; rig_variant(v); v++) {
        struct rig_options o = plain;
        o.cpu = rig_variant(v);
        for (int i = 0; i < n_goldens; i++) {
            struct golden g;
            struct rig r;
            REQUIRE(golden_open(golden_names[i], &g));
            REQUIRE(rig_open(&r, golden_convert(&g, golden_type(&g)), o));
            float *rows = all_logits(r.session, &g, 0);
            double worst = test_difference(rows, g.logits.f32, g.logits.count);
            CHECK_MSG(worst <= bound(&g), "%s on %s: logits differ by %g", g.name, o.cpu, worst);
            free(rows);
            rig_close(&r);
            golden_close(&g);
        }
    }
}

/* Runs the golden under both options and asks for bit-equal logits. */
static void same_logits(const struct golden *g, const char *path, struct rig_options a, struct rig_options b,
                        const char *what)
{
    struct rig ra, rb;
    REQUIRE(rig_open(&ra, path, a));
    REQUIRE(rig_open(&rb, path, b));
    float *x = all_logits(ra.session, g, 0), *y = all_logits(rb.session, g, 0);
    CHECK_MSG(memcmp(x, y, (size_t)g->logits.count * sizeof *x) == 0, "%s: %s: logits differ by %g", g->name, what,
              test_difference(x, y, g->logits.count));
    free(x);
    free(y);
    rig_close(&rb);
    rig_close(&ra);
}

TEST(neox_runs_on_the_poisoned_backend)
{
    for (int i = 0; i < n_goldens; i++) {
        struct golden g;
        REQUIRE(golden_open(golden_names[i], &g));
        const char *path = golden_convert(&g, golden_type(&g));
        same_logits(&g, path, plain, (struct rig_options){.poisoned_from = -1, .all_poisoned = true}, "all poisoned");
        same_logits(&g, path, plain, (struct rig_options){.poisoned_from = 1}, "second layer poisoned");
        same_logits(&g, path, plain, (struct rig_options){.poisoned_from = 0}, "all layers poisoned");
        same_logits(&g, path, plain, (struct rig_options){.poisoned_from = 1, .all_poisoned = true}, "two of them");
        golden_close(&g);
    }
}

TEST(neox_is_bit_equal_for_every_thread_count)
{
    const enum geul_type types[] = {GEUL_TYPE_F32, GEUL_TYPE_F16, GEUL_TYPE_BF16, GEUL_TYPE_Q8_0, GEUL_TYPE_Q4_0};
    struct golden g;
    REQUIRE(golden_open("quantizable", &g));
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        const char *path = golden_convert(&g, types[t]);
        for (int n = 2; n <= 5; n++)
            for (int batch = 1; batch <= 64; batch *= 8) /* decoding, small batches, one prompt */
                same_logits(&g, path, (struct rig_options){.poisoned_from = -1, .n_threads = 1, .n_batch = batch},
                            (struct rig_options){.poisoned_from = -1, .n_threads = n, .n_batch = batch},
                            geul_type_name(types[t]));
    }
    golden_close(&g);
}

TEST(neox_quantized_logits_stay_near)
{
    const struct {
        enum geul_type type;
        double share; /* of the logits' range: what 8 and 4 bits leave of a random model */
    } cases[] = {{GEUL_TYPE_F16, 2e-3}, {GEUL_TYPE_BF16, 1e-2}, {GEUL_TYPE_Q8_0, 2e-2}, {GEUL_TYPE_Q4_0, 2.5e-1}};
    struct golden g;
    REQUIRE(golden_open("quantizable", &g));
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (int batch = 1; batch <= 64; batch *= 64) {
            struct rig r;
            REQUIRE(rig_open(&r, golden_convert(&g, cases[c].type),
                             (struct rig_options){.poisoned_from = -1, .n_batch = batch}));
            float *rows = all_logits(r.session, &g, 0);
            double worst = test_difference(rows, g.logits.f32, g.logits.count) / golden_range(&g);
            CHECK_MSG(worst <= cases[c].share && (cases[c].type != GEUL_TYPE_Q4_0 || worst > 1e-4),
                      "%s: logits are off by %g of their range", geul_type_name(cases[c].type), worst);
            printf("%s, batch %d: %.2e of the range\n", geul_type_name(cases[c].type), batch, worst);
            free(rows);
            rig_close(&r);
        }
    golden_close(&g);
}

TEST(session_sequences_do_not_mix)
{
    struct golden g;
    struct rig r;
    REQUIRE(golden_open("parallel", &g));
    REQUIRE(rig_open(&r, golden_convert(&g, GEUL_TYPE_F32),
                     (struct rig_options){.poisoned_from = -1, .n_sequences = 3, .n_batch = 7}));
    int n = (int)g.tokens.count, n_vocab = (int)g.logits.shape[1];
    /* Sequences 0 and 2 interleaved: the golden, and the golden backwards. */
    struct geul_batch_item items[256];
    for (int i = 0; i < n; i++) {
        items[2 * i] = (struct geul_batch_item){g.tokens.i32[i], 0, true};
        items[2 * i + 1] = (struct geul_batch_item){g.tokens.i32[n - 1 - i], 2, true};
    }
    struct collected c = {malloc(2 * (size_t)g.logits.count * sizeof(float)), 0};
    REQUIRE(geul_session_eval(r.session, items, 2 * n, collect, &c) == GEUL_OK);
    for (int i = 0; i < n; i++)
        CHECK(test_difference(c.rows + (size_t)(2 * i) * (size_t)n_vocab, g.logits.f32 + (size_t)i * (size_t)n_vocab,
                              n_vocab) <= 1e-4);
    CHECK_INT(geul_session_length(r.session, 0), n);
    CHECK_INT(geul_session_length(r.session, 1), 0);
    /* A copy continues like its origin; so does a sequence that was truncated. */
    REQUIRE(geul_session_copy(r.session, 0, 1) == GEUL_OK);
    int half = n / 2;
    for (int seq = 0; seq < 2; seq++) {
        geul_session_truncate(r.session, seq, half);
        const float *logits;
        REQUIRE(geul_session_append(r.session, seq, g.tokens.i32 + half, n - half, &logits) == GEUL_OK);
        CHECK(test_difference(logits, g.logits.f32 + (size_t)(n - 1) * (size_t)n_vocab, n_vocab) <= 1e-4);
    }
    free(c.rows);
    rig_close(&r);
    golden_close(&g);
}

/* The cache's rounding is all that differs: 11, 8 and about 7 bits of keys and values. */
TEST(session_cache_types_stay_near)
{
    const struct {
        enum geul_type type;
        double share; /* of the logits' range */
    } cases[] = {{GEUL_TYPE_F16, 1e-3}, {GEUL_TYPE_BF16, 4e-3}, {GEUL_TYPE_Q8_0, 1e-2}};
    struct golden g;
    struct rig r;
    REQUIRE(golden_open("head64_bf16", &g));
    const char *path = golden_convert(&g, GEUL_TYPE_F32);
    REQUIRE(rig_open(&r, path, plain));
    float *exact = all_logits(r.session, &g, 0);
    size_t bytes = geul_session_cache_bytes(r.session);
    rig_close(&r);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        REQUIRE(rig_open(&r, path, (struct rig_options){.poisoned_from = -1, .cache = cases[c].type}));
        CHECK_INT(geul_session_cache_bytes(r.session),
                  bytes / 4 / (size_t)geul_type_block(cases[c].type) * geul_type_bytes(cases[c].type));
        float *rows = all_logits(r.session, &g, 0);
        double worst = test_difference(rows, exact, g.logits.count) / golden_range(&g);
        CHECK_MSG(worst <= cases[c].share && worst > 0, "%s cache: logits are off by %g of their range",
                  geul_type_name(cases[c].type), worst);
        printf("%s cache: %.2e of the range\n", geul_type_name(cases[c].type), worst);
        free(rows);
        rig_close(&r);
    }
    free(exact);
    golden_close(&g);
}

/* A copied and a truncated sequence hold the same blocks: both continue with the same bits. */
TEST(session_copies_and_cuts_rows_of_blocks)
{
    struct golden g;
    struct rig r;
    REQUIRE(golden_open("head64_bf16", &g));
    REQUIRE(rig_open(&r, golden_convert(&g, GEUL_TYPE_F32),
                     (struct rig_options){.poisoned_from = -1, .n_sequences = 3, .cache = GEUL_TYPE_Q8_0}));
    int n = (int)g.tokens.count, half = n / 2, n_vocab = (int)g.logits.shape[1];
    size_t row = (size_t)n_vocab * sizeof(float);
    const float *logits;
    float *want = malloc(row);
    REQUIRE(geul_session_append(r.session, 0, g.tokens.i32, half, NULL) == GEUL_OK);
    REQUIRE(geul_session_copy(r.session, 0, 2) == GEUL_OK);
    REQUIRE(geul_session_append(r.session, 0, g.tokens.i32 + half, n - half, &logits) == GEUL_OK);
    memcpy(want, logits, row);
    REQUIRE(geul_session_append(r.session, 2, g.tokens.i32 + half, n - half, &logits) == GEUL_OK);
    CHECK(memcmp(want, logits, row) == 0);
    geul_session_truncate(r.session, 0, half);
    REQUIRE(geul_session_append(r.session, 0, g.tokens.i32, 3, NULL) == GEUL_OK); /* other tokens, cut off again */
    geul_session_truncate(r.session, 0, half);
    REQUIRE(geul_session_append(r.session, 0, g.tokens.i32 + half, n - half, &logits) == GEUL_OK);
    CHECK(memcmp(want, logits, row) == 0);
    free(want);
    rig_close(&r);
    golden_close(&g);
}

TEST(session_refuses_caches_that_cannot_be)
{
    const struct {
        const char *golden, *says;
        enum geul_type type;
    } cases[] = {{"head64_bf16", "q4_0", GEUL_TYPE_Q4_0},
                 {"head64_bf16", "i32", GEUL_TYPE_I32},
                 {"head80_f16", "multiple of 32", GEUL_TYPE_Q8_0}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct golden g;
        struct rig r;
        REQUIRE(golden_open(cases[c].golden, &g));
        REQUIRE(rig_open(&r, golden_convert(&g, golden_type(&g)), plain));
        struct geul_session_options o = {.cache_type = cases[c].type};
        CHECK(geul_session_new(r.ctx, r.model, &o) == NULL);
        CHECK_MSG(strstr(geul_error(r.ctx), cases[c].says) != NULL, "%s", geul_error(r.ctx));
        CHECK(geul_error_status(r.ctx) == GEUL_ERROR_UNSUPPORTED);
        rig_close(&r);
        golden_close(&g);
    }
}

TEST(session_refuses_what_does_not_fit)
{
    struct golden g;
    struct rig r;
    REQUIRE(golden_open("parallel", &g));
    REQUIRE(rig_open(&r, golden_convert(&g, GEUL_TYPE_F32), plain));
    int capacity = geul_session_capacity(r.session), n_vocab = (int)g.logits.shape[1];
    const struct geul_batch_item bad[] = {{n_vocab, 0, false}, {-1, 0, false}, {0, 1, false}, {0, -1, false}};
    for (size_t i = 0; i < 4; i++) {
        enum geul_status status = geul_session_eval(r.session, &bad[i], 1, NULL, NULL);
        CHECK_INT(status, GEUL_ERROR_ARGUMENT);
        CHECK(geul_error(r.ctx)[0] != '\0');
    }
    int32_t token = 5;
    for (int i = 0; i < capacity; i++)
        if (geul_session_append(r.session, 0, &token, 1, NULL) != GEUL_OK)
            CHECK_MSG(false, "token %d of %d: %s", i, capacity, geul_error(r.ctx));
    enum geul_status status = geul_session_append(r.session, 0, &token, 1, NULL);
    CHECK_INT(status, GEUL_ERROR_ARGUMENT);
    CHECK_INT(geul_session_length(r.session, 0), capacity);
    rig_close(&r);
    golden_close(&g);
}
