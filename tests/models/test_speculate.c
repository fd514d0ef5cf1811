/* Speculation: whatever is guessed, tokens, text and session are those of generation without it. */
#include "tests/models/golden.h"

#include "core/gguf.h"

#include <math.h>

/* A model, its session, and perhaps a draft model with its own. */
struct pair {
    struct geul_context *ctx;
    struct geul_model *model, *draft_model;
    struct geul_session *plain, *session, *draft;
};

static bool pair_open(struct pair *p, const char *path, const char *draft_path, int n_context, int n_sequences)
{
    struct geul_model_options m = {.n_threads = 1};
    struct geul_session_options s = {
        .n_context = n_context, .n_sequences = n_sequences, .n_batch = 24, .cache_type = GEUL_TYPE_F32};
    *p = (struct pair){.ctx = geul_context_new(NULL)};
    p->model = geul_model_load(p->ctx, path, &m);
    p->plain = p->model ? geul_session_new(p->ctx, p->model, &s) : NULL;
    p->session = p->plain ? geul_session_new(p->ctx, p->model, &s) : NULL;
    p->draft_model = p->session && draft_path ? geul_model_load(p->ctx, draft_path, &m) : NULL;
    p->draft = p->draft_model ? geul_session_new(p->ctx, p->draft_model, &s) : NULL;
    return CHECK_MSG(p->session && (p->draft || !draft_path), "%s", geul_error(p->ctx));
}

static void pair_close(struct pair *p)
{
    geul_session_free(p->plain);
    geul_session_free(p->session);
    geul_session_free(p->draft);
    geul_model_free(p->model);
    geul_model_free(p->draft_model);
    geul_context_free(p->ctx);
}

static struct geul_sampling greedy(void)
{
    struct geul_sampling how = geul_sampling_default();
    how.temperature = 0;
    return how;
}

static void result_free(struct pair *p, struct geul_generation_result *r)
{
    geul_tokens_free(p->ctx, r->tokens);
    geul_text_free(p->ctx, r->text);
    *r = (struct geul_generation_result){0};
}

/* Whether two sessions hold the same in seq. */
static bool same_session(const struct geul_session *a, const struct geul_session *b, int seq)
{
    int n = geul_session_length(a, seq);
    return n == geul_session_length(b, seq) &&
           memcmp(geul_session_tokens(a, seq), geul_session_tokens(b, seq), (size_t)n * sizeof(int32_t)) == 0;
}

/* Generates with and without speculation and compares everything. Returns what speculation gave; free it. */
static struct geul_generation_result compare(struct pair *p, struct geul_speculator *speculator, const int32_t *ids,
                                             int n, struct geul_generation how, const char *what)
{
    struct geul_generation_result a, b = {0};
    how.speculator = NULL;
    if (!CHECK_MSG(geul_generate_ids(p->plain, ids, n, &how, &a) == GEUL_OK, "%s: %s", what, geul_error(p->ctx)))
        return b;
    how.speculator = speculator;
    if (!CHECK_MSG(geul_generate_ids(p->session, ids, n, &how, &b) == GEUL_OK, "%s: %s", what, geul_error(p->ctx)))
        return b;
    int same = 0;
    while (same < a.n_generated && same < b.n_generated && a.tokens[same] == b.tokens[same])
        same++;
    CHECK_MSG(same == a.n_generated && same == b.n_generated, "%s: token %d differs (%d and %d tokens)", what, same,
              a.n_generated, b.n_generated);
    CHECK_MSG(a.text_length == b.text_length && (!a.text || memcmp(a.text, b.text, a.text_length) == 0),
              "%s: the texts differ", what);
    CHECK_MSG(a.reason == b.reason && a.n_reused == b.n_reused, "%s: ended for %d not %d, reused %d not %d", what,
              b.reason, a.reason, b.n_reused, a.n_reused);
    CHECK_MSG(same_session(p->plain, p->session, how.seq), "%s: the sessions differ", what);
    CHECK_MSG(b.n_accepted <= b.n_drafted && a.n_drafted == 0, "%s: %d of %d accepted", what, b.n_accepted,
              b.n_drafted);
    result_free(p, &a);
    return b;
}

/* Speculation of several lengths over one prompt. Returns how many guesses were accepted in all. */
static int compare_lengths(struct pair *p, const int32_t *ids, int n, struct geul_generation how, bool lookup,
                           const char *what)
{
    static const int lengths[] = {1, 2, 3, 5, 8, 16, 64, 0};
    int accepted = 0, fewer = how.sampling->temperature > 0 ? 3 : 1; /* sampling tries more texts instead */
    for (int i = fewer / 2; i < 8; i += fewer) {
        struct geul_speculation speculation = geul_speculation_default();
        speculation.draft = p->draft;
        speculation.lookup = lookup;
        speculation.always = lengths[i] > 0; /* 0: when speculating pays off */
        speculation.n_max = lengths[i] > 0 ? lengths[i] : 16;
        speculation.p_min = i % 2 ? 0.6f : 0;
        struct geul_speculator *s = geul_speculator_new(p->session, &speculation);
        if (!CHECK_MSG(s, "%s", geul_error(p->ctx)))
            return 0;
        char label[256];
        snprintf(label, sizeof label, "%s, lookup %d, drafts of %d", what, lookup, lengths[i]);
        geul_session_truncate(p->plain, how.seq, 0);
        geul_session_truncate(p->session, how.seq, 0);
        struct geul_generation_result r = compare(p, s, ids, n, how, label);
        accepted += r.n_accepted;
        result_free(p, &r);
        geul_speculator_free(s);
    }
    return accepted;
}

TEST(speculate_greedy_equals_plain_on_goldens)
{
    struct geul_sampling sampling = greedy();
    for (int i = 0; i < n_goldens; i++) {
        struct golden g;
        struct pair p;
        REQUIRE(golden_open(golden_names[i], &g));
        const char *path = golden_convert(&g, golden_type(&g));
        REQUIRE(pair_open(&p, path, path, (int)g.tokens.count + 70, 1));
        struct geul_generation how = {.sampling = &sampling, .max_tokens = 64, .ignore_end_token = true};
        int right = compare_lengths(&p, g.tokens.i32, (int)g.tokens.count, how, false, g.name);
        CHECK_MSG(right > 100, "%s as its own draft: %d accepted", g.name, right);
        compare_lengths(&p, g.tokens.i32, (int)g.tokens.count, how, true, g.name);
        pair_close(&p);
        golden_close(&g);
    }
}

/* Two different models with one vocabulary: guesses are mostly wrong. */
TEST(speculate_greedy_equals_plain_with_a_bad_draft)
{
    struct golden a, b;
    struct pair p;
    struct geul_sampling sampling = greedy();
    REQUIRE(golden_open("parallel", &a) && golden_open("sequential", &b));
    REQUIRE(pair_open(&p, golden_convert(&a, GEUL_TYPE_F32), golden_convert(&b, GEUL_TYPE_F32), 128, 1));
    struct geul_generation how = {.sampling = &sampling, .max_tokens = 90};
    for (int n = 1; n <= (int)a.tokens.count; n += 10)
        compare_lengths(&p, a.tokens.i32, n, how, n % 20 == 1, "parallel drafted by sequential");
    how.max_tokens = 0; /* until the context is full */
    compare_lengths(&p, a.tokens.i32, 20, how, true, "to the end of the context");
    pair_close(&p);
    golden_close(&a);
    golden_close(&b);
}

static const char *const questions[] = {
    "### 질문: 안녕\n\n### 답변:",
    "### 질문: 심심해\n\n### 답변: 심심하면 산책을 하세요. 심심하면 산책을 하세요. 심심하면",
    "안녕하세요. 안녕하세요. 안녕하세요.", "하나 둘 셋 넷 하나 둘"};

/* Questions to the small Korean model, with and without guesses, under given settings; the accepted guesses. */
static int compare_questions(struct pair *p, const struct geul_sampling *sampling, int seq)
{
    int accepted = 0;
    for (int q = 0; q < 4; q++) {
        int32_t *ids;
        size_t n;
        const struct geul_tokenizer *tok = geul_model_get_tokenizer(p->model);
        if (geul_tokenize(p->ctx, tok, questions[q], strlen(questions[q]), true, &ids, &n) != GEUL_OK)
            return CHECK(false), 0;
        struct geul_generation how = {
            .sampling = sampling, .max_tokens = 32, .ignore_end_token = q % 2 == 1, .seq = seq};
        accepted += compare_lengths(p, ids, (int)n, how, q < 2 || !p->draft, questions[q]);
        geul_tokens_free(p->ctx, ids);
    }
    return accepted;
}

TEST(speculate_greedy_equals_plain_on_mini)
{
    struct pair p;
    struct geul_sampling sampling = greedy();
    for (int with_draft = 0; with_draft < 2; with_draft++) {
        REQUIRE(pair_open(&p, test_mini_model(), with_draft ? test_mini_model() : NULL, 160, 2));
        CHECK(compare_questions(&p, &sampling, with_draft) > 40);
        pair_close(&p);
    }
}

/* One seed, one text: the choices are the sampler's own, with the random numbers of their position. */
TEST(speculate_sampling_equals_plain_for_every_seed)
{
    struct pair p;
    int accepted = 0;
    REQUIRE(pair_open(&p, test_mini_model(), test_mini_model(), 160, 2));
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct geul_sampling s = geul_sampling_default();
        s.seed = seed;
        s.temperature = seed % 3 == 0 ? 1.5f : 0.7f;
        s.top_k = seed % 2 ? 40 : 0;
        s.top_p = seed == 4 ? 1 : 0.95f;
        s.typical_p = seed == 5 ? 0.9f : 1;
        if (seed > 2) {
            s.repeat_penalty = 1.3f;
            s.frequency_penalty = 0.2f;
            s.presence_penalty = 0.1f;
            s.penalty_last_n = seed == 3 ? -1 : 7;
        }
        accepted += compare_questions(&p, &s, 1);
    }
    CHECK_MSG(accepted > 400, "%d accepted", accepted);
    pair_close(&p);
}

/* ------------------------------------------------------------------------------- frequencies -- */

enum { KEPT = 4, CELLS = KEPT * KEPT * KEPT };

/* The KEPT likeliest ids of logits (n) and their probabilities at the given temperature, computed apart from the
 * sampler. */
static void exact_top(const float *logits, int n, double temperature, int32_t *ids, double *p)
{
    double sum = 0;
    for (int k = 0; k < KEPT; k++) {
        ids[k] = -1;
        for (int i = 0; i < n; i++) {
            bool taken = false;
            for (int j = 0; j < k; j++)
                taken = taken || ids[j] == i;
            if (!taken && (ids[k] < 0 || logits[i] > logits[ids[k]]))
                ids[k] = i;
        }
        p[k] = exp(((double)logits[ids[k]] - (double)logits[ids[0]]) / temperature);
        sum += p[k];
    }
    for (int k = 0; k < KEPT; k++)
        p[k] /= sum;
}

/* Three tokens of a text and how likely they are together. */
struct cell {
    int32_t ids[3];
    double p;
    int seen;
};

/* All texts of three tokens that top-k KEPT allows after the prompt. */
static void exact_cells(struct geul_session *s, const int32_t *prompt, int n, int n_vocab, double temperature,
                        struct cell *cells)
{
    int32_t ids[3][KEPT];
    double p[3][KEPT];
    for (int c = 0; c < CELLS; c++) {
        int at[3] = {c / (KEPT * KEPT), c / KEPT % KEPT, c % KEPT};
        cells[c] = (struct cell){.p = 1};
        geul_session_truncate(s, 0, 0);
        for (int d = 0; d < 3; d++) {
            const float *logits;
            if (!CHECK(geul_session_append(s, 0, d ? &cells[c].ids[d - 1] : prompt, d ? 1 : n, &logits) == GEUL_OK))
                return;
            exact_top(logits, n_vocab, temperature, ids[d], p[d]);
            cells[c].ids[d] = ids[d][at[d]];
            cells[c].p *= p[d][at[d]];
        }
    }
}

/* Pearson's statistic over the first `tokens` tokens of the texts; cells that expect less than 5 are put together.
 * *freedom is its degrees of freedom. */
static double chi_square(const struct cell *cells, int n, int tokens, int *freedom)
{
    double statistic = 0, rest_expected = 0, rest_seen = 0;
    int span = tokens == 1 ? KEPT * KEPT : tokens == 2 ? KEPT : 1;
    *freedom = -1;
    for (int c = 0; c < CELLS; c += span) {
        double expected = 0, seen = 0;
        for (int i = 0; i < span; i++) {
            expected += n * cells[c + i].p;
            seen += cells[c + i].seen;
        }
        if (expected < 5) {
            rest_expected += expected;
            rest_seen += seen;
            continue;
        }
        statistic += (seen - expected) * (seen - expected) / expected;
        ++*freedom;
    }
    if (rest_expected > 0) {
        statistic += (rest_seen - rest_expected) * (rest_seen - rest_expected) / rest_expected;
        ++*freedom;
    }
    return statistic;
}

/* The frequencies of the first, the first two and the first three tokens over many seeds against their exact
 * probabilities, with a draft model that guesses differently. Accepting guesses by another rule than the right one
 * moves the second and third token. */
TEST(speculate_keeps_the_distribution)
{
    enum { SEEDS = 4000 };
    struct golden g;
    struct pair p;
    struct cell cells[CELLS];
    REQUIRE(golden_open("quantizable", &g));
    char path[1024];
    snprintf(path, sizeof path, "%s", golden_convert(&g, GEUL_TYPE_F32));
    rename(path, test_scratch("large.gguf"));
    REQUIRE(pair_open(&p, test_scratch("large.gguf"), golden_convert(&g, GEUL_TYPE_Q4_0), 64, 1));
    struct geul_sampling sampling = geul_sampling_default();
    sampling.temperature = 1.5f;
    sampling.top_k = KEPT;
    sampling.top_p = 1;
    sampling.min_p = 0;
    exact_cells(p.plain, g.tokens.i32, 12, g.usable, 1.5, cells);
    struct geul_speculation speculation = geul_speculation_default();
    speculation.draft = p.draft;
    speculation.always = true;
    speculation.n_max = 2;
    speculation.p_min = 0;
    struct geul_speculator *s = geul_speculator_new(p.session, &speculation);
    REQUIRE(s);
    int drafted = 0, accepted = 0, strangers = 0;
    for (int seed = 0; seed < SEEDS; seed++) {
        sampling.seed = (uint64_t)seed;
        struct geul_generation how = {.sampling = &sampling, .max_tokens = 4, .speculator = s};
        struct geul_generation_result r;
        REQUIRE(geul_generate_ids(p.session, g.tokens.i32, 12, &how, &r) == GEUL_OK);
        int found = 0;
        while (found < CELLS && memcmp(cells[found].ids, r.tokens, sizeof cells[found].ids) != 0)
            found++;
        strangers += found == CELLS;
        if (found < CELLS)
            cells[found].seen++;
        drafted += r.n_drafted;
        accepted += r.n_accepted;
        result_free(&p, &r);
    }
    printf("%d drafted, %d accepted\n", drafted, accepted);
    CHECK_INT(strangers, 0);
    CHECK(accepted > drafted / 4 && accepted < drafted * 9 / 10);
    for (int tokens = 1; tokens <= 3; tokens++) {
        int freedom;
        double statistic = chi_square(cells, SEEDS, tokens, &freedom);
        double limit = freedom + 4 * sqrt(2.0 * freedom); /* mean and four standard deviations */
        printf("%d tokens: chi-square %.1f, %d degrees of freedom, limit %.1f\n", tokens, statistic, freedom, limit);
        CHECK_MSG(statistic < limit, "%d tokens: chi-square %.1f is over %.1f", tokens, statistic, limit);
    }
    geul_speculator_free(s);
    pair_close(&p);
    golden_close(&g);
}

/* -------------------------------------------------------------------------------------- ends -- */

static struct geul_speculator *own_draft(struct pair *p, int n_max)
{
    struct geul_speculation speculation = geul_speculation_default();
    speculation.draft = p->draft;
    speculation.always = true;
    speculation.n_max = n_max;
    speculation.p_min = 0;
    return geul_speculator_new(p->session, &speculation);
}

/* The model guesses for itself, so that whole runs are accepted; stop strings and the end token occur inside them. */
TEST(speculate_leaks_nothing_behind_the_end)
{
    struct pair p;
    struct geul_sampling sampling = greedy();
    REQUIRE(pair_open(&p, test_mini_model(), test_mini_model(), 160, 1));
    struct geul_speculator *s = own_draft(&p, 8);
    REQUIRE(s);
    int32_t *ids;
    size_t n;
    const struct geul_tokenizer *tok = geul_model_get_tokenizer(p.model);
    REQUIRE(geul_tokenize(p.ctx, tok, questions[0], strlen(questions[0]), true, &ids, &n) == GEUL_OK);
    struct geul_generation how = {.sampling = &sampling, .max_tokens = 60};
    struct geul_generation_result whole = compare(&p, s, ids, (int)n, how, "to the end token");
    CHECK_INT(whole.reason, GEUL_STOP_END_TOKEN);
    CHECK(whole.n_accepted > 4);
    for (size_t from = 0; from < whole.text_length; from += 3) {
        char stop[16] = "";
        memcpy(stop, whole.text + from, whole.text_length - from < 5 ? whole.text_length - from : 5);
        const char *stops[] = {stop};
        how.stop = stops;
        how.n_stop = 1;
        struct geul_generation_result r = compare(&p, s, ids, (int)n, how, "to a stop string");
        CHECK_INT(r.reason, GEUL_STOP_STRING);
        result_free(&p, &r);
    }
    how.n_stop = 0;
    how.ignore_end_token = true;
    for (int most = 1; most <= 20; most++) {
        how.max_tokens = most;
        struct geul_generation_result r = compare(&p, s, ids, (int)n, how, "to a length");
        CHECK_INT(r.n_generated, most);
        result_free(&p, &r);
    }
    result_free(&p, &whole);
    geul_tokens_free(p.ctx, ids);
    geul_speculator_free(s);
    pair_close(&p);
}

/* Stops after a number of pieces of text. */
struct patience {
    int left;
};

static bool lose_patience(void *user, const char *text, size_t length)
{
    struct patience *p = user;
    (void)text, (void)length;
    return --p->left > 0;
}

TEST(speculate_stops_when_the_caller_says_so)
{
    struct pair p;
    struct geul_sampling sampling = greedy();
    REQUIRE(pair_open(&p, test_mini_model(), test_mini_model(), 160, 1));
    struct geul_speculator *s = own_draft(&p, 8);
    REQUIRE(s);
    for (int pieces = 1; pieces <= 12; pieces++) {
        struct patience a = {pieces}, b = {pieces};
        struct geul_generation how = {
            .sampling = &sampling, .max_tokens = 40, .ignore_end_token = true, .on_text = lose_patience, .user = &a};
        struct geul_generation_result plain, r;
        REQUIRE(geul_generate(p.plain, questions[0], &how, &plain) == GEUL_OK);
        how.user = &b;
        how.speculator = s;
        REQUIRE(geul_generate(p.session, questions[0], &how, &r) == GEUL_OK);
        CHECK_INT(r.reason, GEUL_STOP_CALLER);
        CHECK_INT(r.n_generated, plain.n_generated);
        CHECK_STR(r.text, plain.text);
        CHECK(same_session(p.plain, p.session, 0));
        result_free(&p, &plain);
        result_free(&p, &r);
    }
    geul_speculator_free(s);
    pair_close(&p);
}

static bool cancel_late(void *user, int done, int total)
{
    struct patience *p = user;
    return done < total || --p->left > 0;
}

/* The caller may stop while the draft model reads the prompt; what comes next works. */
TEST(speculate_cancelled_while_the_draft_reads)
{
    struct pair p;
    REQUIRE(pair_open(&p, test_mini_model(), test_mini_model(), 160, 1));
    struct geul_speculator *s = own_draft(&p, 4);
    REQUIRE(s);
    struct patience patience = {2};
    struct geul_sampling sampling = greedy();
    struct geul_generation how = {
        .sampling = &sampling, .max_tokens = 12, .on_prompt = cancel_late, .user = &patience, .speculator = s};
    struct geul_generation_result r;
    enum geul_status status = geul_generate(p.session, questions[1], &how, &r);
    CHECK_INT(status, GEUL_ERROR_CANCELLED);
    CHECK(r.text == NULL && r.tokens == NULL);
    patience.left = 1000;
    status = geul_generate(p.session, questions[1], &how, &r);
    REQUIRE(status == GEUL_OK);
    CHECK(r.n_generated > 1);
    result_free(&p, &r);
    geul_speculator_free(s);
    pair_close(&p);
}

/* One speculator over the turns of a conversation, and over different texts. */
TEST(speculate_over_turns)
{
    struct pair p;
    struct geul_sampling sampling = greedy();
    REQUIRE(pair_open(&p, test_mini_model(), test_mini_model(), 160, 2));
    struct geul_speculation speculation = geul_speculation_default();
    speculation.draft = p.draft;
    speculation.lookup = true;
    struct geul_speculator *s = geul_speculator_new(p.session, &speculation);
    REQUIRE(s);
    const char *const turns[] = {"### 질문: 안녕\n\n### 답변:",
                                 "### 질문: 안녕\n\n### 답변: 안녕하세요.<|endoftext|>\n### 질문: 심심해\n\n### 답변:",
                                 "전혀 다른 글", "### 질문: 안녕\n\n### 답변:"};
    for (int t = 0; t < 8; t++) {
        int32_t *ids;
        size_t n;
        const char *text = turns[t % 4];
        const struct geul_tokenizer *tok = geul_model_get_tokenizer(p.model);
        REQUIRE(geul_tokenize(p.ctx, tok, text, strlen(text), true, &ids, &n) == GEUL_OK);
        struct geul_generation how = {.sampling = &sampling, .max_tokens = 24, .seq = t / 2 % 2};
        struct geul_generation_result r = compare(&p, s, ids, (int)n, how, text);
        result_free(&p, &r);
        geul_tokens_free(p.ctx, ids);
    }
    geul_speculator_free(s);
    pair_close(&p);
}

/* ------------------------------------------------------------------------------------ errors -- */

/* A copy of a file whose tokens 5 and 6 have changed places. */
static const char *swap_tokens(const char *path)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_gguf *in = geul_gguf_open(ctx, path);
    struct geul_gguf_array array;
    static const char *texts[1024];
    static size_t lengths[1024];
    const char *out = test_scratch("swapped.gguf"), *text;
    size_t n = 0, length;
    if (!CHECK(in && geul_gguf_get_array(in, "tokenizer.ggml.tokens", &array) && array.count <= 1024))
        return NULL;
    for (; geul_gguf_array_next(&array, &text, &length); n++) {
        size_t to = n == 5 ? 6 : n == 6 ? 5 : n;
        texts[to] = text;
        lengths[to] = length;
    }
    struct geul_gguf_writer *w = geul_gguf_writer_new(ctx, out);
    for (int64_t i = 0; i < geul_gguf_key_count(in); i++)
        if (strcmp(geul_gguf_key_name(in, i), "tokenizer.ggml.tokens") != 0 &&
            strcmp(geul_gguf_key_name(in, i), "tokenizer.huggingface.json") != 0)
            geul_gguf_copy_key(w, in, i);
    geul_gguf_set_strings(w, "tokenizer.ggml.tokens", texts, lengths, n);
    for (int pass = 0; pass < 2; pass++)
        for (int64_t i = 0; i < geul_gguf_tensor_count(in); i++) {
            const struct geul_gguf_tensor *t = geul_gguf_tensor_at(in, i);
            if (pass == 0)
                geul_gguf_declare_tensor(w, t->name, t->type, t->n_dims, t->shape);
            else
                geul_gguf_write_data(w, t->data, t->bytes);
        }
    CHECK_MSG(geul_gguf_writer_commit(w) == GEUL_OK, "%s", geul_error(ctx));
    geul_gguf_close(in);
    geul_context_free(ctx);
    return out;
}

static void refused(struct pair *p, struct geul_speculation how, const char *expected)
{
    struct geul_speculator *s = geul_speculator_new(p->session, &how);
    CHECK_MSG(!s && strstr(geul_error(p->ctx), expected), "\"%s\" does not say \"%s\"", geul_error(p->ctx), expected);
    geul_speculator_free(s);
}

TEST(speculate_names_what_does_not_fit)
{
    struct golden g;
    struct pair p;
    REQUIRE(golden_open("full", &g));
    const char *path = golden_convert(&g, GEUL_TYPE_F32);
    REQUIRE(pair_open(&p, path, swap_tokens(path), 64, 2));
    struct geul_speculation how = geul_speculation_default();
    refused(&p, how, "needs lookup");
    how.draft = p.draft;
    refused(&p, how, "token 5 stands for another text in the draft model");
    how.draft = p.session;
    refused(&p, how, "cannot draft for itself");
    struct geul_session_options small[] = {{.n_context = 63, .n_sequences = 2}, {.n_context = 64, .n_sequences = 1}};
    for (int i = 0; i < 2; i++) {
        how.draft = geul_session_new(p.ctx, p.model, &small[i]);
        REQUIRE(how.draft);
        refused(&p, how, "make it at least as large");
        geul_session_free(how.draft);
    }
    struct geul_model *other = geul_model_load(p.ctx, test_mini_model(), &(struct geul_model_options){.n_threads = 1});
    how.draft = geul_session_new(p.ctx, other, &(struct geul_session_options){.n_context = 64, .n_sequences = 2});
    REQUIRE(how.draft);
    refused(&p, how, "token ids, the model 403");
    geul_session_free(how.draft);
    how.draft = NULL;
    how.lookup = true;
    static const struct {
        int n_max, n_min;
        float p_min;
    } bad[] = {{0, 0, 0}, {65, 0, 0}, {4, 5, 0}, {4, -1, 0}, {4, 0, -0.1f}, {4, 0, 1.1f}, {4, 0, NAN}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        how.n_max = bad[i].n_max;
        how.n_min = bad[i].n_min;
        how.p_min = bad[i].p_min;
        refused(&p, how, "are not possible");
    }
    how = geul_speculation_default();
    how.lookup = true;
    struct geul_speculator *s = geul_speculator_new(p.session, &how);
    struct geul_generation stranger = {.max_tokens = 2, .speculator = s};
    REQUIRE(s);
    CHECK_INT(geul_generate(p.plain, "가", &stranger, NULL), GEUL_ERROR_ARGUMENT);
    CHECK(strstr(geul_error(p.ctx), "another session"));
    geul_speculator_free(s);
    geul_model_free(other);
    pair_close(&p);
    golden_close(&g);
}

/* Everything with an allocator that fails at one call. The draft session has a separate context, whose failures must
 * be reported too. */
static bool whole_use(struct test_allocator *a, const char *path, char *message, size_t size)
{
    struct geul_context_options o = {.allocate = test_allocate, .allocate_user = a};
    struct geul_context *ctx = geul_context_new(&o), *own = ctx ? geul_context_new(&o) : NULL;
    if (!own) {
        geul_context_free(ctx);
        return snprintf(message, size, "no context"), false;
    }
    struct geul_session_options so = {.n_context = 40, .n_batch = 9};
    struct geul_model *m = geul_model_load(ctx, path, &(struct geul_model_options){.n_threads = 1});
    struct geul_session *s = m ? geul_session_new(ctx, m, &so) : NULL, *d = s ? geul_session_new(own, m, &so) : NULL;
    snprintf(message, size, "%s%s", geul_error(ctx), s ? geul_error(own) : "");
    struct geul_speculation how = geul_speculation_default();
    how.draft = d;
    how.lookup = how.always = true;
    how.n_max = 3;
    how.p_min = 0;
    struct geul_speculator *p = d ? geul_speculator_new(s, &how) : NULL;
    struct geul_generation g = {.max_tokens = 8, .ignore_end_token = true, .speculator = p};
    struct geul_generation_result r;
    bool ok = p && geul_generate(s, "오늘 날씨는 참 오늘", &g, &r) == GEUL_OK;
    if (ok) {
        geul_tokens_free(ctx, r.tokens);
        geul_text_free(ctx, r.text);
    }
    if (d)
        snprintf(message, size, "%s", geul_error(ctx));
    geul_speculator_free(p);
    geul_session_free(d);
    geul_session_free(s);
    geul_model_free(m);
    geul_context_free(own);
    geul_context_free(ctx);
    return ok;
}

TEST(speculate_survives_every_failing_allocation)
{
    struct golden g;
    REQUIRE(golden_open("full", &g));
    const char *path = golden_convert(&g, GEUL_TYPE_F32);
    char message[1024];
    struct test_allocator count = {0};
    REQUIRE(CHECK_MSG(whole_use(&count, path, message, sizeof message), "%s", message));
    CHECK_INT(count.outstanding, 0);
    long failed = 0;
    for (long n = 1; n <= count.calls; n++) {
        struct test_allocator a = {.fail_at = n};
        bool ok = whole_use(&a, path, message, sizeof message);
        failed += !ok;
        CHECK_MSG(ok || message[0], "allocation %ld: failed without a message", n);
        CHECK_MSG(a.outstanding == 0, "allocation %ld: %ld blocks leaked", n, a.outstanding);
    }
    printf("%ld allocations, %ld of the failures were fatal to the call\n", count.calls, failed);
    CHECK(failed > count.calls / 2);
    golden_close(&g);
}
