/* The measuring sections of geul_tools.h as an application uses them: nothing but public headers. */
#include "geul_tools.h"
#include "tests/command/command_fixture.h"

static const char *const text = "한글은 소리를 적는 글자다. 글자는 스물넷이다. The end.";

/* The golden `full` in float32 and in a coarser type, and the ids of the text. */
struct bed {
    struct geul_context *ctx;
    struct geul_model *model, *coarse;
    int32_t *ids;
    size_t n;
};

static bool bed_open(struct bed *b)
{
    const char *path = fixture_model();
    const char *coarse = test_scratch("bf16.gguf");
    struct test_run r = GEUL("convert", test_path("golden/full"), "-o", coarse, "--type", "bf16");
    bool ok = path && CHECK_INT(r.status, 0);
    test_run_free(&r);
    *b = (struct bed){.ctx = geul_context_new(NULL)};
    b->model = ok ? geul_model_load(b->ctx, path, NULL) : NULL;
    b->coarse = ok ? geul_model_load(b->ctx, coarse, NULL) : NULL;
    return b->model && b->coarse &&
           geul_tokenize(b->ctx, geul_model_get_tokenizer(b->model), text, strlen(text), true, &b->ids, &b->n) ==
               GEUL_OK;
}

static void bed_close(struct bed *b)
{
    geul_tokens_free(b->ctx, b->ids);
    geul_model_free(b->model);
    geul_model_free(b->coarse);
    geul_context_free(b->ctx);
}

/* log softmax of n logits into out. */
static void log_softmax(const float *logits, int n, double *out)
{
    long double sum = 0;
    for (int i = 0; i < n; i++)
        sum += expl((long double)logits[i]);
    for (int i = 0; i < n; i++)
        out[i] = (double)((long double)logits[i] - logl(sum));
}

/* Adds up what the textbook says about the text in one window, token by token: nats over all rows, and the divergence
 * of the coarse model over those that have a text. */
static bool reference(const struct bed *b, double *nats, double *kl, double *max)
{
    struct geul_session_options o = {.cache_type = GEUL_TYPE_F32};
    struct geul_session *s[2] = {geul_session_new(b->ctx, b->model, &o), geul_session_new(b->ctx, b->coarse, &o)};
    int usable = geul_tokenizer_size(geul_model_get_tokenizer(b->model));
    int n_vocab = geul_model_get_shape(b->model)->n_vocab;
    double *p = malloc((size_t)n_vocab * sizeof *p), *q = malloc((size_t)n_vocab * sizeof *q);
    bool ok = s[0] && s[1] && p && q;
    for (size_t t = 1; t < b->n && ok; t++) {
        const float *logits[2];
        for (int i = 0; i < 2; i++)
            ok = ok && geul_session_append(s[i], 0, b->ids + t - 1, 1, &logits[i]) == GEUL_OK;
        if (!ok)
            break;
        log_softmax(logits[0], n_vocab, p);
        *nats -= p[b->ids[t]] / (double)(b->n - 1);
        log_softmax(logits[0], usable, p);
        log_softmax(logits[1], usable, q);
        double one = 0;
        for (int i = 0; i < usable; i++)
            one += exp(p[i]) * (p[i] - q[i]);
        *kl += one / (double)(b->n - 1);
        *max = one > *max ? one : *max;
    }
    free(p);
    free(q);
    geul_session_free(s[0]);
    geul_session_free(s[1]);
    return ok;
}

/* Follows a report while it is made. */
struct follower {
    struct geul_evaluation_report r;
    uint64_t done, total;
    int calls, most_calls; /* 0: any number */
};

static bool follow(void *user, uint64_t done, uint64_t total)
{
    struct follower *f = user;
    CHECK((f->calls == 0) == (done == 0) && done <= total && (f->calls == 0 || done > f->done));
    CHECK(f->r.scored.n_tokens <= done && f->r.windows.n_tokens > 0);
    f->done = done;
    f->total = total;
    return ++f->calls != f->most_calls;
}

TEST(measuring_equals_the_textbook)
{
    struct bed b;
    double nats = 0, kl = 0, max = 0;
    REQUIRE(bed_open(&b) && reference(&b, &nats, &kl, &max));
    const struct test_kept base = test_keep(test_scratch("a.base"));
    struct follower f = {.r = {.size = sizeof f.r}};
    struct geul_evaluation_options o = {
        .size = sizeof o, .n_batch = 5, .save_base = base.text, .progress = follow, .user = &f};
    REQUIRE(CHECK_MSG(geul_evaluate_text(b.ctx, b.model, text, strlen(text), &o, &f.r) == GEUL_OK, "%s",
                      geul_error(b.ctx)));
    CHECK_INT(f.r.scored.n_tokens, b.n - 1);
    CHECK_INT(f.r.windows.method, GEUL_WINDOWS_STRIDE);
    CHECK_INT(f.r.windows.n_windows, 1);
    CHECK_INT(f.r.windows.n_scored, b.n - 1);
    CHECK(f.calls > 2 && f.done == f.total && f.total == b.n - 1 && !f.r.compared && f.r.misfit == 0);
    CHECK_MSG(fabs(f.r.scored.nats_per_token.value - nats) < 1e-5, "%.8f, expected %.8f",
              f.r.scored.nats_per_token.value, nats);
    CHECK(fabs(f.r.scored.perplexity.value / exp(nats) - 1) < 1e-4 && f.r.scored.perplexity.error > 0);
    CHECK(fabs(f.r.scored.bits_per_byte.value * f.r.scored.n_bytes - nats / log(2) * (double)(b.n - 1)) < 1e-3);
    size_t size;
    free(test_slurp(base.text, &size));
    CHECK_INT(size, f.r.base_bytes);
    /* The text of the file, its windows. */
    struct geul_evaluation_report r = {.size = sizeof r};
    o = (struct geul_evaluation_options){.size = sizeof o, .compare_base = base.text};
    REQUIRE(geul_evaluate_text(b.ctx, b.model, NULL, 0, &o, &r) == GEUL_OK);
    CHECK(r.compared && r.divergence.mean.value == 0 && r.divergence.max == 0 && r.divergence.same_top.value == 1);
    CHECK(r.scored.nats_per_token.value == f.r.scored.nats_per_token.value && r.base_bytes == 0);
    REQUIRE(geul_evaluate_text(b.ctx, b.coarse, text, strlen(text), &o, &r) == GEUL_OK);
    CHECK_MSG(fabs(r.divergence.mean.value - kl) < 1e-7 + 1e-3 * kl, "%g, expected %g", r.divergence.mean.value, kl);
    CHECK_MSG(fabs(r.divergence.max - max) < 1e-7 + 1e-3 * max, "%g, expected %g", r.divergence.max, max);
    CHECK(r.divergence.quantiles[0] <= r.divergence.quantiles[4] && r.divergence.quantiles[4] <= r.divergence.max);
    CHECK(fabs(r.divergence.base_perplexity.value / exp(nats) - 1) < 1e-4);
    CHECK(fabs(r.divergence.perplexity_ratio.value * r.divergence.base_perplexity.value / r.scored.perplexity.value -
               1) < 1e-9);
    bed_close(&b);
}

TEST(measuring_takes_structs_of_other_ages)
{
    struct bed b;
    REQUIRE(bed_open(&b));
    const size_t length = strlen(text);
    struct geul_evaluation_report whole = {.size = sizeof whole}, r = {.size = sizeof r};
    struct geul_evaluation_options o = {.size = sizeof o, .n_context = 8}, none = {.n_context = 8};
    REQUIRE(geul_evaluate_text(b.ctx, b.model, text, length, &o, &whole) == GEUL_OK);
    /* Neither has a size. */
    CHECK(geul_evaluate_text(b.ctx, b.model, text, length, &none, &r) == GEUL_ERROR_ARGUMENT);
    CHECK_MSG(strstr(geul_error(b.ctx), "geul_evaluation_options"), "%s", geul_error(b.ctx));
    r.size = 0;
    CHECK(geul_evaluate_text(b.ctx, b.model, text, length, &o, &r) == GEUL_ERROR_ARGUMENT);
    CHECK_MSG(strstr(geul_error(b.ctx), "geul_evaluation_report"), "%s", geul_error(b.ctx));
    CHECK(r.scored.n_tokens == 0);
    /* A program that knows fewer fields: what follows them is neither read nor written. */
    o.size = offsetof(struct geul_evaluation_options, stride);
    o.stride = -1;
    o.compare_base = "/no/such/file";
    r = (struct geul_evaluation_report){.size = offsetof(struct geul_evaluation_report, seconds), .seconds = -1};
    REQUIRE(CHECK_MSG(geul_evaluate_text(b.ctx, b.model, text, length, &o, &r) == GEUL_OK, "%s", geul_error(b.ctx)));
    CHECK(r.size == offsetof(struct geul_evaluation_report, seconds) && r.seconds < 0);
    CHECK(r.scored.perplexity.value == whole.scored.perplexity.value && r.windows.stride == 4);
    /* One that knows more: fine as long as it does not use it. */
    struct {
        struct geul_evaluation_options o;
        double more;
    } newer = {.o = {.size = sizeof newer, .n_context = 8}};
    CHECK(geul_evaluate_text(b.ctx, b.model, text, length, &newer.o, NULL) == GEUL_OK);
    newer.more = 1;
    CHECK(geul_evaluate_text(b.ctx, b.model, text, length, &newer.o, NULL) == GEUL_ERROR_ARGUMENT);
    /* Importance: the same. */
    struct geul_importance *m = geul_importance_new(b.ctx);
    struct geul_importance_options i = {.chunk_size = 8};
    REQUIRE(m);
    CHECK(geul_importance_collect_text(m, b.model, text, length, &i) == GEUL_ERROR_ARGUMENT);
    CHECK_INT(geul_importance_chunk_count(m), 0);
    i.size = offsetof(struct geul_importance_options, n_chunks);
    i.n_chunks = 1;
    REQUIRE(geul_importance_collect_text(m, b.model, text, length, &i) == GEUL_OK);
    CHECK_INT(geul_importance_chunk_count(m), (b.n + 7) / 8);
    geul_importance_free(m);
    bed_close(&b);
}

/* Checks that evaluating fails with a message that holds a word, and what it says about the options. */
static void fails(const struct bed *b, const char *what, const struct geul_evaluation_options *o,
                  enum geul_evaluation_misfit misfit, const char *holds)
{
    struct geul_evaluation_report r = {.size = sizeof r};
    CHECK(geul_evaluate_text(b->ctx, b->model, what, what ? strlen(what) : 0, o, &r) == GEUL_ERROR_ARGUMENT);
    CHECK_MSG(strstr(geul_error(b->ctx), holds), "%s", geul_error(b->ctx));
    CHECK_INT(r.misfit, misfit);
}

TEST(measuring_refuses)
{
    struct bed b;
    REQUIRE(bed_open(&b));
    const struct test_kept base = test_keep(test_scratch("a.base")), other = test_keep(test_scratch("b.base"));
    struct geul_evaluation_options o = {.size = sizeof o, .n_context = 16, .save_base = base.text};
    REQUIRE(geul_evaluate_text(b.ctx, b.model, text, strlen(text), &o, NULL) == GEUL_OK);
    fails(&b, NULL, NULL, GEUL_EVALUATION_FITS, "no text");
    fails(&b, "", NULL, GEUL_EVALUATION_FITS, "0 tokens");
    o = (struct geul_evaluation_options){.size = sizeof o, .method = (enum geul_windows_method)9};
    fails(&b, text, &o, GEUL_EVALUATION_FITS, "method 9");
    o = (struct geul_evaluation_options){.size = sizeof o, .start = true, .compare_base = base.text};
    fails(&b, NULL, &o, GEUL_EVALUATION_MISFIT_START, base.text);
    fails(&b, text, &o, GEUL_EVALUATION_MISFIT_TEXT, base.text);
    o = (struct geul_evaluation_options){.size = sizeof o, .n_context = 15, .compare_base = base.text};
    fails(&b, NULL, &o, GEUL_EVALUATION_MISFIT_WINDOWS, "16 tokens");
    o = (struct geul_evaluation_options){.size = sizeof o, .method = GEUL_WINDOWS_LLAMA, .compare_base = base.text};
    fails(&b, NULL, &o, GEUL_EVALUATION_MISFIT_WINDOWS, "16 tokens");
    /* Comparing and saving at once; stopped, and nothing is saved. */
    struct follower f = {.r = {.size = sizeof f.r}, .most_calls = 2};
    o = (struct geul_evaluation_options){.size = sizeof o,
                                         .n_batch = 4,
                                         .save_base = other.text,
                                         .compare_base = base.text,
                                         .progress = follow,
                                         .user = &f};
    CHECK(geul_evaluate_text(b.ctx, b.coarse, NULL, 0, &o, &f.r) == GEUL_ERROR_CANCELLED);
    CHECK(f.calls == 2 && f.r.scored.n_tokens > 0 && !f.r.compared);
    CHECK(fopen(other.text, "rb") == NULL);
    f = (struct follower){.r = {.size = sizeof f.r}};
    REQUIRE(geul_evaluate_text(b.ctx, b.coarse, NULL, 0, &o, &f.r) == GEUL_OK);
    CHECK(f.r.compared && f.r.divergence.mean.value > 0 && f.r.base_bytes > 0);
    o = (struct geul_evaluation_options){.size = sizeof o, .compare_base = other.text};
    REQUIRE(geul_evaluate_text(b.ctx, b.coarse, NULL, 0, &o, &f.r) == GEUL_OK);
    CHECK(f.r.divergence.mean.value == 0);
    bed_close(&b);
}

/* What following a collection needs. */
struct collector {
    struct geul_importance *m;
    int calls, most_calls;
};

static bool collecting(void *user, uint64_t done, uint64_t total)
{
    struct collector *c = user;
    CHECK((c->calls == 0) == (done == 0) && done <= total && total == geul_importance_tokens(c->m));
    return ++c->calls != c->most_calls;
}

TEST(measuring_collects_importance)
{
    struct bed b;
    REQUIRE(bed_open(&b));
    const struct test_kept one = test_keep(test_scratch("one.imatrix")), two = test_keep(test_scratch("two.imatrix"));
    struct geul_evaluation_report r = {.size = sizeof r};
    REQUIRE(geul_evaluate_text(b.ctx, b.model, text, strlen(text), NULL, &r) == GEUL_OK);
    struct collector c = {.m = geul_importance_new(b.ctx)};
    struct geul_importance_options o = {
        .size = sizeof o, .n_batch = 3, .dataset = "text", .progress = collecting, .user = &c};
    REQUIRE(c.m && CHECK_MSG(geul_importance_collect_text(c.m, b.model, text, strlen(text), &o) == GEUL_OK, "%s",
                             geul_error(b.ctx)));
    CHECK_INT(c.calls, 1 + (b.n + 2) / 3);
    CHECK_INT(geul_importance_chunk_count(c.m), 1);
    CHECK_INT(geul_importance_chunk_size(c.m), 512);
    CHECK_INT(geul_importance_matrix_count(c.m), 4 * geul_model_get_shape(b.model)->n_layers + 1);
    CHECK_INT(geul_importance_tokens(c.m), b.n);
    CHECK(fabs(geul_importance_nats(c.m) - r.scored.nats_per_token.value) < 1e-9); /* one chunk, one window */
    REQUIRE(geul_importance_save(c.m, one.text) == GEUL_OK);
    /* The same from the file. */
    struct geul_importance *again = geul_importance_new(b.ctx);
    REQUIRE(again && geul_importance_add_file(again, one.text) == GEUL_OK);
    CHECK(geul_importance_chunk_count(again) == 1 && geul_importance_chunk_size(again) == 512);
    CHECK(geul_importance_tokens(again) == 0 && geul_importance_nats(again) == 0);
    REQUIRE(geul_importance_save(again, two.text) == GEUL_OK);
    size_t size[2];
    char *bytes[2] = {test_slurp(one.text, &size[0]), test_slurp(two.text, &size[1])};
    CHECK(bytes[0] && bytes[1] && size[0] == size[1] && memcmp(bytes[0], bytes[1], size[0]) == 0);
    free(bytes[0]);
    free(bytes[1]);
    /* Some chunks of a text, and a caller who has seen enough. */
    o.chunk_size = 4;
    o.n_chunks = 2;
    c.calls = 0;
    REQUIRE(geul_importance_collect_text(c.m, b.model, text, strlen(text), &o) == GEUL_OK);
    CHECK(geul_importance_chunk_count(c.m) == 3 && geul_importance_tokens(c.m) == 8);
    c = (struct collector){.m = c.m, .most_calls = 1};
    CHECK(geul_importance_collect_text(c.m, b.model, text, strlen(text), &o) == GEUL_ERROR_CANCELLED);
    CHECK(c.calls == 1 && geul_importance_chunk_count(c.m) == 3);
    o.chunk_size = -1;
    CHECK(geul_importance_collect_text(c.m, b.model, text, strlen(text), &o) == GEUL_ERROR_ARGUMENT);
    geul_importance_free(again);
    geul_importance_free(c.m);
    bed_close(&b);
}

TEST(measuring_survives_short_memory)
{
    struct bed b;
    REQUIRE(bed_open(&b));
    const struct test_kept base = test_keep(test_scratch("a.base")), other = test_keep(test_scratch("b.base"));
    struct geul_evaluation_options o = {.size = sizeof o, .n_context = 8, .save_base = base.text};
    REQUIRE(geul_evaluate_text(b.ctx, b.model, text, strlen(text), &o, NULL) == GEUL_OK);
    o.save_base = other.text;
    o.compare_base = base.text;
    struct test_shortage s = {.most = 2000};
    while (test_shortage_next(&s)) {
        struct geul_importance *m = geul_importance_new(s.ctx);
        s.ok = m && geul_evaluate_text(s.ctx, b.coarse, text, strlen(text), &o, NULL) == GEUL_OK &&
               geul_importance_collect_text(m, b.coarse, text, strlen(text), NULL) == GEUL_OK;
        geul_importance_free(m);
    }
    bed_close(&b);
}
