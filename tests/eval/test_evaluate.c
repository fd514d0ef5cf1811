/* Perplexity, divergence and the base model's file against independent computations. */
#include "core/bytes.h"
#include "eval/evaluate.h"
#include "tests/hostile.h"
#include "tests/models/golden.h"

#include <signal.h>
#include <sys/resource.h>

/* A golden as a model with a session. */
struct engine {
    struct geul_context *ctx;
    struct geul_model *model;
    struct geul_session *session;
};

static bool engine_open(struct engine *e, struct geul_context *ctx, const char *path, int n_context, int n_sequences,
                        int n_batch)
{
    struct geul_session_options o = {
        .n_context = n_context, .n_sequences = n_sequences, .n_batch = n_batch, .cache_type = GEUL_TYPE_F32};
    e->ctx = ctx;
    e->model = geul_model_load(e->ctx, path, &(struct geul_model_options){.n_threads = 1});
    e->session = e->model ? geul_session_new(e->ctx, e->model, &o) : NULL;
    return e->session != NULL;
}

static void engine_close(struct engine *e)
{
    geul_session_free(e->session);
    geul_model_free(e->model);
    geul_context_free(e->ctx);
}

/* Lengths of n tokens of one character and three bytes each. */
static const struct geul_text_length *three_bytes(void)
{
    static struct geul_text_length lengths[256];
    for (int i = 0; i < 256; i++)
        lengths[i] = (struct geul_text_length){3, 12};
    return lengths;
}

/* -log softmax(logits)[target], as the textbook has it. */
static double reference_nats(const float *logits, int n, int target)
{
    long double sum = 0;
    for (int i = 0; i < n; i++)
        sum += expl((long double)logits[i] - (long double)logits[target]);
    return (double)logl(sum);
}

TEST(windows_score_every_token_once)
{
    struct geul_context *ctx = geul_context_new(NULL);
    for (int c = 4; c <= 13; c += 3)
        for (int stride = 1; stride < c; stride++)
            for (size_t n = 2; n < 60; n++) {
                struct geul_windows w;
                size_t next = 1;
                REQUIRE(geul_windows_make(ctx, GEUL_WINDOWS_STRIDE, n, c, stride, 0, &w) == GEUL_OK);
                for (size_t i = 0; i < w.n_windows; i++) {
                    struct geul_window at = geul_windows_at(&w, i);
                    CHECK(at.first == next && at.first < at.end && at.end <= n && at.end - at.begin <= (size_t)c);
                    CHECK(at.first > at.begin && (i == 0 || at.first - at.begin >= (size_t)(c - stride)));
                    next = at.end;
                }
                CHECK(next == n && w.n_scored == n - 1);
            }
    struct geul_windows w;
    REQUIRE(geul_windows_make(ctx, GEUL_WINDOWS_LLAMA, 1030, 256, 0, 3, &w) == GEUL_OK);
    CHECK_INT(w.n_windows, 3);
    CHECK_INT(w.n_scored, 3 * 127); /* llama.cpp counts n_ctx - n_ctx/2 - 1 tokens of a chunk */
    CHECK_INT(geul_windows_at(&w, 2).first, 2 * 256 + 129);
    CHECK_INT(geul_windows_make(ctx, GEUL_WINDOWS_LLAMA, 255, 256, 0, 0, &w), GEUL_ERROR_ARGUMENT);
    CHECK_INT(geul_windows_make(ctx, GEUL_WINDOWS_STRIDE, 100, 16, 16, 0, &w), GEUL_ERROR_ARGUMENT);
    CHECK_INT(geul_windows_make(ctx, GEUL_WINDOWS_STRIDE, 1, 16, 0, 0, &w), GEUL_ERROR_ARGUMENT);
    CHECK_INT(geul_windows_make(ctx, GEUL_WINDOWS_STRIDE, 100, 3, 0, 0, &w), GEUL_ERROR_ARGUMENT);
    geul_context_free(ctx);
}

TEST(perplexity_equals_the_loss_of_transformers)
{
    static const char *const names[] = {"parallel", "sequential", "odd_sizes"};
    for (int i = 0; i < 3; i++)
        for (int batch = 5; batch <= 64; batch += 59) {
            struct golden g;
            struct test_npy loss;
            struct engine e;
            char relative[64];
            snprintf(relative, sizeof relative, "golden/%s/loss.npy", names[i]);
            REQUIRE(golden_open(names[i], &g) && test_npy_read(test_path(relative), &loss));
            REQUIRE(engine_open(&e, geul_context_new(NULL), golden_convert(&g, GEUL_TYPE_F32), 0, 1, batch));
            struct geul_evaluation run = {.ids = g.tokens.i32, .lengths = three_bytes()};
            size_t n = (size_t)g.tokens.count;
            REQUIRE(geul_windows_make(e.ctx, GEUL_WINDOWS_STRIDE, n, (int)n, 0, 0, &run.windows) == GEUL_OK);
            REQUIRE(CHECK_MSG(geul_evaluate(e.session, &run) == GEUL_OK, "%s", geul_error(e.ctx)));
            struct geul_perplexity_report r = geul_perplexity_get(&run.perplexity);
            double expected = loss.f32[0];
            CHECK_INT(r.n_tokens, n - 1);
            CHECK_MSG(fabs(r.nats_per_token.value - expected) < 1e-5, "%s: %.8f, transformers' loss is %.8f", names[i],
                      r.nats_per_token.value, expected);
            CHECK(fabs(r.perplexity.value / exp(expected) - 1) < 2e-5);
            CHECK(fabs(r.bits_per_char.value - r.bits_per_token.value) < 1e-12);
            CHECK(fabs(r.bits_per_byte.value * 3 - r.bits_per_token.value) < 1e-12);
            test_npy_free(&loss);
            engine_close(&e);
            golden_close(&g);
        }
}

TEST(perplexity_of_windows_equals_one_by_one)
{
    struct golden g;
    struct engine e;
    REQUIRE(golden_open("quantizable", &g));
    const char *path = golden_convert(&g, GEUL_TYPE_F32);
    for (int method = GEUL_WINDOWS_STRIDE; method <= GEUL_WINDOWS_LLAMA; method++)
        for (int batch = 3; batch <= 30; batch += 9) {
            struct geul_evaluation run = {.ids = g.tokens.i32, .lengths = three_bytes()};
            struct geul_context *ctx = geul_context_new(NULL);
            REQUIRE(geul_windows_make(ctx, (enum geul_windows_method)method, (size_t)g.tokens.count, 9, 0, 0,
                                      &run.windows) == GEUL_OK);
            REQUIRE(engine_open(&e, ctx, path, 9, geul_windows_sequences(&run.windows, batch), batch));
            CHECK_INT(geul_session_sequences(e.session), batch < 16 ? 1 : batch / 8);
            REQUIRE(geul_evaluate(e.session, &run) == GEUL_OK);
            double sum = 0, squares = 0, n = 0;
            for (size_t i = 0; i < run.windows.n_windows; i++) {
                struct geul_window w = geul_windows_at(&run.windows, i);
                for (size_t t = w.first; t < w.end; t++, n++) {
                    const float *logits;
                    geul_session_truncate(e.session, 0, 0);
                    REQUIRE(geul_session_append(e.session, 0, g.tokens.i32 + w.begin, (int)(t - w.begin), &logits) ==
                            GEUL_OK);
                    double nats = reference_nats(logits, (int)g.logits.shape[1], g.tokens.i32[t]);
                    sum += nats;
                    squares += nats * nats;
                }
            }
            struct geul_perplexity_report r = geul_perplexity_get(&run.perplexity);
            double mean = sum / n, error = sqrt((squares / n - mean * mean) / (n - 1));
            CHECK_INT(r.n_tokens, n);
            CHECK_MSG(fabs(r.nats_per_token.value - mean) < 1e-5, "%.8f, expected %.8f", r.nats_per_token.value, mean);
            CHECK(fabs(r.nats_per_token.error - error) < 1e-5);
            CHECK(fabs(r.perplexity.error - exp(mean) * error) < 1e-3 * exp(mean) * error);
            engine_close(&e);
        }
    golden_close(&g);
}

TEST(text_lengths_of_hangul)
{
    struct golden g;
    struct engine e;
    REQUIRE(golden_open("full", &g));
    REQUIRE(engine_open(&e, geul_context_new(NULL), golden_convert(&g, GEUL_TYPE_F32), 0, 1, 8));
    const struct geul_tokenizer *tok = geul_model_get_tokenizer(e.model);
    /* 한글 is 2 characters of 3 bytes, é 1 of 2, 😀 1 of 4, the rest ASCII; 0xff is not UTF-8 and counts as one. */
    const char *text = "한글 é ab 😀\xff";
    int32_t *ids;
    size_t n;
    REQUIRE(geul_tokenize(e.ctx, tok, text, strlen(text), false, &ids, &n) == GEUL_OK);
    struct geul_text_length *lengths = geul_text_lengths(e.ctx, tok, ids, n);
    REQUIRE(lengths);
    uint32_t bytes = 0, twelfths = 0;
    for (size_t i = 0; i < n; i++) {
        bytes += lengths[i].bytes;
        twelfths += lengths[i].twelfths;
        if (lengths[i].bytes == 1 && i == 0)
            CHECK_INT(lengths[i].twelfths, 4); /* the first byte of three */
    }
    CHECK_INT(bytes, strlen(text));
    CHECK_INT(twelfths, 12 * 10);
    geul_free(e.ctx, lengths);
    geul_tokens_free(e.ctx, ids);
    engine_close(&e);
    golden_close(&g);
}

TEST(divergence_of_known_distributions)
{
    /* p = (1/2, 1/2, 0), q = (1/4, 3/4, 0); a constant in all logits changes nothing. */
    const float low = -1e4f;
    const float p[] = {7, 7, low}, q[] = {-3, -3 + logf(3), low};
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_divergence d = {.values = NULL};
    struct geul_divergence_pair pair = {p, q, 3, 0, log(2), log(4), {3, 12}},
                                same = {p, p, 3, 0, log(2), log(2), {3, 12}};
    double kl = 0.5 * log(2) + 0.5 * log(2.0 / 3);
    REQUIRE(geul_divergence_add(ctx, &d, &pair) == GEUL_OK);
    for (int i = 0; i < 3; i++)
        REQUIRE(geul_divergence_add(ctx, &d, &same) == GEUL_OK);
    struct geul_divergence_report r = geul_divergence_get(&d);
    CHECK_MSG(fabs(r.mean.value - kl / 4) < 1e-7, "%.9f, expected %.9f", r.mean.value, kl / 4);
    /* values kl 0 0 0: squared distances 3/4 kl^2, over 4 * 3 */
    CHECK(fabs(r.mean.error - kl / 4) < 1e-7);
    CHECK(fabs(r.max - kl) < 1e-7 && r.quantiles[0] == 0);
    CHECK(fabs(r.quantiles[1] - 0.7 * kl) < 1e-7); /* rank 2.7 of 0 0 0 kl */
    CHECK(fabs(r.same_top.value - 0.75) < 1e-12 && fabs(r.same_top.error - sqrt(0.75 * 0.25 / 3)) < 1e-12);
    CHECK(fabs(r.probability_mean.value + 0.25 / 4) < 1e-7);
    CHECK(fabs(r.probability_rms.value - 0.125) < 1e-7);
    CHECK(fabs(r.base_perplexity.value - 2) < 1e-12);
    CHECK(fabs(r.perplexity_ratio.value - pow(2, 0.25)) < 1e-12);
    const float broken[] = {NAN, 0, 0};
    struct geul_divergence_pair bad = {p, broken, 3, 0, 1, 1, {3, 12}};
    CHECK_INT(geul_divergence_add(ctx, &d, &bad), GEUL_ERROR_FORMAT);
    geul_divergence_free(ctx, &d);
    geul_context_free(ctx);
}

/* ------------------------------------------------------------------------------------- files -- */

/* Evaluates the golden quantizable and saves its logits under path, or with path NULL compares with base. */
static enum geul_status evaluate_file(struct geul_context *ctx, const char *model, const struct golden *g,
                                      const char *path, const struct geul_base_logits *base,
                                      struct geul_divergence_report *report)
{
    struct engine e = {.ctx = ctx};
    struct geul_evaluation run = {.ids = g->tokens.i32, .lengths = three_bytes(), .base = base};
    if (geul_windows_make(ctx, GEUL_WINDOWS_STRIDE, (size_t)g->tokens.count, 16, 0, 0, &run.windows) != GEUL_OK)
        return geul_error_status(ctx);
    enum geul_status status = GEUL_ERROR_MEMORY;
    if (engine_open(&e, ctx, model, 16, 2, 30)) {
        run.save = path ? geul_base_writer_new(ctx, path, &run.windows, run.ids, g->usable - 1) : NULL;
        status = path && !run.save ? geul_error_status(ctx) : geul_evaluate(e.session, &run);
        if (run.save && status == GEUL_OK)
            status = geul_base_writer_commit(run.save);
        else
            geul_base_writer_abandon(run.save);
    }
    if (status == GEUL_OK && report)
        *report = geul_divergence_get(&run.divergence);
    geul_divergence_free(ctx, &run.divergence);
    geul_session_free(e.session);
    geul_model_free(e.model);
    return status;
}

/* Whether the directory of path holds nothing that begins with its name. */
static bool nothing_at(const char *path)
{
    char line[2048];
    snprintf(line, sizeof line, "ls '%s'* >/dev/null 2>&1", path);
    return system(line) != 0;
}

TEST(base_logits_of_the_same_model_are_no_distance_away)
{
    struct golden g;
    char model[1024], small[1024], path[1024];
    REQUIRE(golden_open("quantizable", &g));
    snprintf(small, sizeof small, "%s.q8", golden_convert(&g, GEUL_TYPE_Q8_0));
    REQUIRE(rename(test_scratch("quantizable.gguf"), small) == 0);
    snprintf(model, sizeof model, "%s", golden_convert(&g, GEUL_TYPE_F32));
    snprintf(path, sizeof path, "%s", test_scratch("a.base"));
    struct geul_context *ctx = geul_context_new(NULL);
    REQUIRE(CHECK_MSG(evaluate_file(ctx, model, &g, path, NULL, NULL) == GEUL_OK, "%s", geul_error(ctx)));
    struct geul_base_logits *base = geul_base_logits_open(ctx, path);
    REQUIRE(CHECK_MSG(base != NULL, "%s", geul_error(ctx)));
    CHECK_INT(base->n_vocab, g.usable - 1);
    CHECK(memcmp(base->ids, g.tokens.i32, (size_t)g.tokens.count * sizeof(int32_t)) == 0);
    size_t size;
    free(test_slurp(path, &size));
    CHECK_INT(size, geul_base_logits_bytes(&base->windows, base->n_vocab));
    struct geul_divergence_report r;
    REQUIRE(evaluate_file(ctx, model, &g, NULL, base, &r) == GEUL_OK);
    CHECK(r.mean.value == 0 && r.max == 0 && r.same_top.value == 1 && r.probability_rms.value == 0);
    CHECK(r.perplexity_ratio.value == 1);
    REQUIRE(evaluate_file(ctx, small, &g, NULL, base, &r) == GEUL_OK);
    CHECK_MSG(r.mean.value > 1e-7 && r.mean.value < 1e-2, "Q8_0 is %g nats away", r.mean.value);
    CHECK(r.quantiles[0] <= r.quantiles[3] && r.quantiles[4] <= r.max && r.perplexity_ratio.value != 1);
    geul_base_logits_close(ctx, base);
    geul_context_free(ctx);
    golden_close(&g);
}

TEST(base_logits_refuses_broken_files)
{
    /* A file made by hand: 3 tokens, 2 ids, context 4, one window, 2 rows. */
    struct bytes b = {0};
    bytes_text(&b, "geulbase");
    const uint32_t numbers[] = {1, 2, 0, 4, 2, 0};
    for (int i = 0; i < 6; i++)
        bytes_number(&b, numbers[i], 4);
    bytes_number(&b, 3, 8);
    bytes_number(&b, 1, 8);
    const unsigned char ids[12] = {1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0};
    bytes_number(&b, geul_hash_bytes(geul_hash_bytes(GEUL_HASH_START, b.data, 48), ids, 12), 8);
    bytes_put(&b, ids, 12);
    bytes_zeros(&b, 4 + 2 * 16);
    struct meter m;
    struct geul_context *ctx = meter_context(&m);
    size_t held = m.now;
    uint64_t copy[16]; /* aligned */
    REQUIRE(b.size <= sizeof copy);
    memcpy(copy, b.data, b.size);
    struct geul_base_logits *base = geul_base_logits_open_memory(ctx, copy, b.size, "whole");
    REQUIRE(CHECK_MSG(base != NULL, "%s", geul_error(ctx)));
    CHECK_INT(base->windows.n_scored, 2);
    geul_base_logits_close(ctx, base);
    for (size_t size = 0; size < b.size; size++) { /* every truncation */
        geul_error_clear(ctx);
        CHECK(geul_base_logits_open_memory(ctx, copy, size, "cut") == NULL);
        check_failure(ctx, &m, held, "cut", "cut");
    }
    for (size_t i = 0; i < 68; i++) /* every changed byte in front of the rows */
        for (int bit = 0; bit < 8; bit++) {
            memcpy(copy, b.data, b.size);
            ((unsigned char *)copy)[i] ^= (unsigned char)(1 << bit);
            geul_error_clear(ctx);
            CHECK_MSG(geul_base_logits_open_memory(ctx, copy, b.size, "bent") == NULL, "byte %zu bit %d", i, bit);
            check_failure(ctx, &m, held, "bent", "bent");
        }
    geul_error_clear(ctx);
    CHECK(geul_base_logits_open(ctx, "/no/such/file") == NULL);
    CHECK(strstr(geul_error(ctx), "/no/such/file"));
    geul_context_free(ctx);
    bytes_free(&b);
}

TEST(base_logits_survives_short_memory_and_full_disks)
{
    struct golden g;
    char model[1024], path[1024];
    REQUIRE(golden_open("quantizable", &g));
    snprintf(model, sizeof model, "%s", golden_convert(&g, GEUL_TYPE_F32));
    snprintf(path, sizeof path, "%s", test_scratch("b.base"));
    struct test_shortage s = {.most = 2000};
    while (test_shortage_next(&s)) {
        remove(path);
        s.ok = evaluate_file(s.ctx, model, &g, path, NULL, NULL) == GEUL_OK;
        CHECK_MSG(s.ok || nothing_at(path), "allocation %ld left a file", s.n);
    }
    remove(path);
    /* A limit on the size of files simulates a full disk. */
    struct geul_context *ctx = geul_context_new(NULL);
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit few = {.rlim_cur = 4096, .rlim_max = RLIM_INFINITY};
    REQUIRE(setrlimit(RLIMIT_FSIZE, &few) == 0);
    enum geul_status status = evaluate_file(ctx, model, &g, path, NULL, NULL);
    few.rlim_cur = RLIM_INFINITY;
    setrlimit(RLIMIT_FSIZE, &few);
    CHECK_INT(status, GEUL_ERROR_IO);
    CHECK_MSG(strstr(geul_error(ctx), "b.base") && nothing_at(path), "%s", geul_error(ctx));
    geul_context_free(ctx);
    golden_close(&g);
}

static bool stop_at_once(void *user, uint64_t done, uint64_t total)
{
    CHECK(done > 0 && done < total);
    ++*(int *)user;
    return false;
}

TEST(evaluate_stops_when_asked)
{
    struct golden g;
    struct engine e;
    int calls = 0;
    REQUIRE(golden_open("quantizable", &g));
    REQUIRE(engine_open(&e, geul_context_new(NULL), golden_convert(&g, GEUL_TYPE_F32), 16, 1, 8));
    struct geul_evaluation run = {
        .ids = g.tokens.i32, .lengths = three_bytes(), .on_batch = stop_at_once, .user = &calls};
    REQUIRE(geul_windows_make(e.ctx, GEUL_WINDOWS_STRIDE, (size_t)g.tokens.count, 16, 0, 0, &run.windows) == GEUL_OK);
    run.save = geul_base_writer_new(e.ctx, test_scratch("c.base"), &run.windows, run.ids, g.usable);
    REQUIRE(run.save);
    enum geul_status status = geul_evaluate(e.session, &run);
    CHECK_INT(status, GEUL_ERROR_CANCELLED);
    CHECK_INT(calls, 1);
    geul_error_clear(e.ctx);
    status = geul_base_writer_commit(run.save);
    CHECK_INT(status, GEUL_ERROR_ARGUMENT); /* rows are missing */
    CHECK(nothing_at(test_scratch("c.base")));
    engine_close(&e);
    golden_close(&g);
}
