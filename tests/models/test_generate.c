/* Loading and generating through the public API, with the shipped model and the full golden. */
#include "core/gguf.h"
#include "tests/models/golden.h"

#include <pthread.h>

/* Pieces of streamed text. */
struct heard {
    char text[4096];
    size_t length;
    int pieces, broken;
};

/* Whether bytes are whole code points. */
static bool whole_utf8(const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        unsigned char c = (unsigned char)s[i];
        size_t length = c < 0x80 ? 1 : c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc2 ? 2 : 0;
        if (length == 0 || i + length > n)
            return false;
        for (size_t k = 1; k < length; k++)
            if (((unsigned char)s[i + k] & 0xc0) != 0x80)
                return false;
        i += length;
    }
    return true;
}

static bool hear(void *user, const char *text, size_t length)
{
    struct heard *h = user;
    h->pieces++;
    h->broken += !whole_utf8(text, length);
    if (length < sizeof h->text - h->length) {
        memcpy(h->text + h->length, text, length);
        h->length += length;
    }
    return true;
}

/* A loaded model and a session on it. */
struct engine {
    struct geul_context *ctx;
    struct geul_model *model;
    struct geul_session *session;
};

static bool engine_open(struct engine *e, const char *path, int n_context)
{
    e->ctx = geul_context_new(NULL);
    e->model = geul_model_load(e->ctx, path, &(struct geul_model_options){.n_threads = 1});
    struct geul_session_options o = {.n_context = n_context, .cache_type = GEUL_TYPE_F16, .n_batch = 16};
    e->session = e->model ? geul_session_new(e->ctx, e->model, &o) : NULL;
    return CHECK_MSG(e->session != NULL, "%s", geul_error(e->ctx));
}

static void engine_close(struct engine *e)
{
    geul_session_free(e->session);
    geul_model_free(e->model);
    geul_context_free(e->ctx);
}

static void result_free(struct engine *e, struct geul_generation_result *r)
{
    geul_tokens_free(e->ctx, r->tokens);
    geul_text_free(e->ctx, r->text);
}

TEST(generate_streams_exactly_its_text)
{
    struct engine e;
    REQUIRE(engine_open(&e, test_mini_model(), 256));
    struct geul_sampling wild = geul_sampling_default();
    wild.temperature = 3;
    wild.top_k = 0;
    wild.top_p = 1;
    wild.min_p = 0;
    for (uint64_t seed = 1; seed <= 10; seed++) { /* nonsense, with many syllables cut between tokens */
        wild.seed = seed;
        struct heard h = {.length = 0};
        struct geul_generation how = {
            .sampling = &wild, .max_tokens = 60, .ignore_end_token = true, .on_text = hear, .user = &h};
        struct geul_generation_result r;
        geul_session_truncate(e.session, 0, 0);
        enum geul_status status = geul_generate(e.session, "### 질문: 안녕\n\n### 답변:", &how, &r);
        REQUIRE(CHECK_MSG(status == GEUL_OK, "%s", geul_error(e.ctx)));
        CHECK_INT(h.broken, 0);
        CHECK(h.length == r.text_length && memcmp(h.text, r.text, h.length) == 0);
        CHECK_INT(r.n_generated, 60);
        CHECK_INT(r.reason, GEUL_STOP_LENGTH);
        int usable = geul_tokenizer_size(geul_model_get_tokenizer(e.model));
        for (int i = 0; i < r.n_generated; i++)
            CHECK(r.tokens[i] < usable);
        result_free(&e, &r);
    }
    engine_close(&e);
}

TEST(generate_stop_strings_are_never_printed)
{
    struct engine e;
    REQUIRE(engine_open(&e, test_mini_model(), 256));
    struct geul_sampling greedy = geul_sampling_default();
    greedy.temperature = 0;
    const char *prompt = "### 질문: 안녕\n\n### 답변:";
    struct geul_generation how = {.sampling = &greedy, .max_tokens = 40};
    struct geul_generation_result whole;
    REQUIRE(geul_generate(e.session, prompt, &how, &whole) == GEUL_OK);
    CHECK_INT(whole.reason, GEUL_STOP_END_TOKEN);
    /* Every substring of the answer as a stop string: the text ends right before its first occurrence. */
    for (size_t from = 0; from < whole.text_length; from += 2)
        for (size_t n = 1; n <= 9 && from + n <= whole.text_length; n += 4) {
            char stop[16] = "";
            memcpy(stop, whole.text + from, n);
            const char *stops[] = {"없는 말", stop};
            struct heard h = {.length = 0};
            struct geul_generation_result r;
            how.stop = stops;
            how.n_stop = 2;
            how.on_text = hear;
            how.user = &h;
            REQUIRE(geul_generate(e.session, prompt, &how, &r) == GEUL_OK);
            size_t expected = (size_t)(strstr(whole.text, stop) - whole.text);
            CHECK_INT(r.reason, GEUL_STOP_STRING);
            CHECK_MSG(r.text_length == expected && h.length == expected && memcmp(h.text, whole.text, expected) == 0,
                      "stop after %zu bytes: printed %zu, expected %zu", from, h.length, expected);
            result_free(&e, &r);
        }
    result_free(&e, &whole);
    engine_close(&e);
}

/* Answers given back as they were generated: every prompt after the first reuses the whole former conversation but for
 * the end token, which a session never reads. */
TEST(generate_conversation_reuses_all_of_it)
{
    static const char *const questions[] = {"안녕", "심심해", "너 이름이 뭐야?", "배고파"};
    enum { TURNS = sizeof questions / sizeof *questions };
    struct engine e;
    REQUIRE(engine_open(&e, test_mini_model(), 512));
    struct geul_template *t = geul_template_new(e.ctx, "koalpaca");
    REQUIRE(t);
    struct geul_sampling greedy = geul_sampling_default();
    greedy.temperature = 0;
    struct geul_generation how = {.sampling = &greedy, .max_tokens = 64};
    struct geul_generation_result r[TURNS];
    struct geul_turn turns[TURNS];
    how.stop = geul_template_stops(t, &how.n_stop);
    for (int i = 0; i < TURNS; i++) {
        turns[i] = (struct geul_turn){questions[i], NULL};
        char *prompt = geul_template_apply(e.ctx, t, turns, i + 1, NULL);
        REQUIRE(prompt && geul_generate(e.session, prompt, &how, &r[i]) == GEUL_OK);
        geul_text_free(e.ctx, prompt);
        CHECK_INT(r[i].reason, GEUL_STOP_END_TOKEN);
        CHECK_INT(r[i].n_reused, i == 0 ? 0 : r[i - 1].n_prompt + r[i - 1].n_generated - 1);
        turns[i].answer = r[i].text;
    }
    for (int i = 0; i < TURNS; i++)
        result_free(&e, &r[i]);
    geul_template_free(t);
    engine_close(&e);
}

TEST(generate_reuses_the_prefix_and_fills_the_context)
{
    struct engine e;
    REQUIRE(engine_open(&e, test_mini_model(), 48));
    struct geul_sampling greedy = geul_sampling_default();
    greedy.temperature = 0;
    struct geul_generation how = {.sampling = &greedy, .max_tokens = 8, .ignore_end_token = true};
    struct geul_generation_result a, b;
    REQUIRE(geul_generate(e.session, "### 질문: 안녕\n\n### 답변:", &how, &a) == GEUL_OK);
    CHECK_INT(a.n_reused, 0);
    REQUIRE(geul_generate(e.session, "### 질문: 안녕\n\n### 답변:", &how, &b) == GEUL_OK);
    CHECK_INT(b.n_reused, b.n_prompt - 1);
    CHECK_STR(b.text, a.text);
    result_free(&e, &a);
    result_free(&e, &b);
    how.max_tokens = 0;
    REQUIRE(geul_generate(e.session, "안녕", &how, &a) == GEUL_OK);
    CHECK_INT(a.reason, GEUL_STOP_CONTEXT);
    CHECK_INT(geul_session_length(e.session, 0), 48);
    result_free(&e, &a);
    char text[512] = "";
    while (strlen(text) < 480)
        strcat(text, "하늘은 왜 ");
    memset(&a, 0x7f, sizeof a);
    enum geul_status status = geul_generate(e.session, text, &how, &a);
    CHECK_INT(status, GEUL_ERROR_ARGUMENT);
    CHECK(a.text == NULL && a.tokens == NULL); /* so that freeing a result is always right */
    CHECK(strstr(geul_error(e.ctx), "holds 48") != NULL);
    how.max_tokens = 4;
    REQUIRE(geul_generate(e.session, "", &how, &a) == GEUL_OK); /* begins after an end token */
    CHECK_INT(a.n_prompt, 1);
    result_free(&e, &a);
    engine_close(&e);
}

static bool stop_at_once(void *user, const char *text, size_t length)
{
    (void)user;
    (void)text;
    (void)length;
    return false;
}

TEST(generate_stops_when_the_caller_says_so)
{
    struct engine e;
    REQUIRE(engine_open(&e, test_mini_model(), 64));
    struct geul_generation how = {.max_tokens = 30, .on_text = stop_at_once};
    struct geul_generation_result r;
    REQUIRE(geul_generate(e.session, "### 질문: 안녕\n\n### 답변:", &how, &r) == GEUL_OK);
    CHECK_INT(r.reason, GEUL_STOP_CALLER);
    CHECK(r.n_generated < 5);
    result_free(&e, &r);
    engine_close(&e);
}

/* What on_prompt was told; stop_at: the number of tokens at which it says no, 0: never. */
struct reading {
    int calls, last, total, stop_at;
    bool falling;
};

static bool follow_reading(void *user, int done, int total)
{
    struct reading *r = user;
    r->falling = r->falling || done <= r->last || done > total;
    r->calls++;
    r->last = done;
    r->total = total;
    return r->stop_at == 0 || done < r->stop_at;
}

/* Within a piece too: the prompt is one piece here. Telling changes no token. */
TEST(generate_tells_how_far_reading_is)
{
    struct engine e;
    REQUIRE(engine_open(&e, test_mini_model(), 256));
    geul_session_free(e.session);
    for (int n_threads = 1; n_threads <= 3; n_threads += 2) {
        struct geul_session_options o = {.n_context = 256, .n_threads = n_threads};
        e.session = geul_session_new(e.ctx, e.model, &o);
        REQUIRE(e.session);
        int32_t ids[200];
        for (int i = 0; i < 200; i++)
            ids[i] = 300 + (i * 37) % 1000;
        struct geul_sampling greedy = {.temperature = 0, .top_p = 1, .typical_p = 1, .repeat_penalty = 1};
        struct geul_generation how = {.sampling = &greedy, .max_tokens = 8, .ignore_end_token = true};
        struct geul_generation_result plain, told;
        REQUIRE(geul_generate_ids(e.session, ids, 200, &how, &plain) == GEUL_OK);
        geul_session_truncate(e.session, 0, 0);
        struct reading r = {.calls = 0};
        how.on_prompt = follow_reading;
        how.user = &r;
        REQUIRE(geul_generate_ids(e.session, ids, 200, &how, &told) == GEUL_OK);
        CHECK_MSG(r.calls >= 10, "%d calls", r.calls);
        CHECK(!r.falling && r.last == 200 && r.total == 200);
        CHECK(plain.n_generated == 8 && memcmp(plain.tokens, told.tokens, 8 * sizeof *plain.tokens) == 0);
        result_free(&e, &told);
        /* no in the middle of the piece, and at its very end */
        for (int stop_at = 90; stop_at <= 200; stop_at += 110) {
            geul_session_truncate(e.session, 0, 0);
            r = (struct reading){.stop_at = stop_at};
            CHECK_INT(geul_generate_ids(e.session, ids, 200, &how, &told), GEUL_ERROR_CANCELLED);
            CHECK_INT(geul_error_status(e.ctx), GEUL_ERROR_CANCELLED);
            CHECK_MSG(r.last >= stop_at && (stop_at == 200 || r.last < 150), "%d", r.last);
            CHECK(stop_at == 200 || geul_session_length(e.session, 0) == 0);
        }
        r = (struct reading){.calls = 0};
        geul_session_truncate(e.session, 0, 0);
        REQUIRE(geul_generate_ids(e.session, ids, 200, &how, &told) == GEUL_OK);
        CHECK(memcmp(plain.tokens, told.tokens, 8 * sizeof *plain.tokens) == 0);
        result_free(&e, &told);
        result_free(&e, &plain);
        geul_session_free(e.session);
    }
    e.session = NULL;
    engine_close(&e);
}

/* Smoke, not a measure: ten everyday questions get an answer with one of the expected words. */
TEST(generate_mini_answers_everyday_questions)
{
    struct engine e;
    REQUIRE(engine_open(&e, test_mini_model(), 256));
    CHECK_STR(geul_model_get_template(e.model), "koalpaca");
    size_t size;
    char *table = test_slurp(test_path("golden/mini_questions.tsv"), &size), *rest = NULL;
    REQUIRE(table);
    struct geul_template *t = geul_template_new(e.ctx, geul_model_get_template(e.model));
    struct geul_sampling greedy = geul_sampling_default();
    greedy.temperature = 0;
    int asked = 0;
    for (char *line = strtok_r(table, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *words = strchr(line, '\t');
        if (line[0] == '#' || !words)
            continue;
        *words++ = '\0';
        struct geul_turn turn = {line, NULL};
        char *prompt = geul_template_apply(e.ctx, t, &turn, 1, NULL);
        struct geul_generation how = {.sampling = &greedy, .max_tokens = 64};
        how.stop = geul_template_stops(t, &how.n_stop);
        struct geul_generation_result r;
        REQUIRE(prompt && geul_generate(e.session, prompt, &how, &r) == GEUL_OK);
        bool found = false;
        char *more = NULL;
        for (char *w = strtok_r(words, "|", &more); w; w = strtok_r(NULL, "|", &more))
            found = found || strstr(r.text, w);
        CHECK_MSG(found && r.reason == GEUL_STOP_END_TOKEN, "%s ->%s", line, r.text);
        printf("%s ->%s\n", line, r.text);
        asked++;
        result_free(&e, &r);
        geul_text_free(e.ctx, prompt);
    }
    CHECK_INT(asked, 10);
    geul_template_free(t);
    free(table);
    engine_close(&e);
}

/* One thread's session on a shared model. */
static void *generate_in_thread(void *shared)
{
    const struct geul_model *model = shared;
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_session *s = geul_session_new(ctx, model, &(struct geul_session_options){.n_context = 64});
    struct geul_sampling greedy = geul_sampling_default();
    greedy.temperature = 0;
    struct geul_generation how = {.sampling = &greedy, .max_tokens = 12, .ignore_end_token = true};
    struct geul_generation_result r = {0};
    char *text = NULL;
    if (s && geul_generate(s, "### 질문: 심심해\n\n### 답변:", &how, &r) == GEUL_OK) {
        text = malloc(r.text_length + 1);
        memcpy(text, r.text, r.text_length + 1);
        geul_tokens_free(ctx, r.tokens);
        geul_text_free(ctx, r.text);
    }
    geul_session_free(s);
    geul_context_free(ctx);
    return text;
}

TEST(generate_in_threads_on_one_model)
{
    struct engine e;
    REQUIRE(engine_open(&e, test_mini_model(), 64));
    char *alone = generate_in_thread(e.model);
    REQUIRE(alone);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        REQUIRE(pthread_create(&threads[i], NULL, generate_in_thread, e.model) == 0);
    for (int i = 0; i < 4; i++) {
        void *text = NULL;
        pthread_join(threads[i], &text);
        CHECK_STR(text ? text : "(nothing)", alone);
        free(text);
    }
    free(alone);
    engine_close(&e);
}

/* Hands out memory with its own mark in front, and counts what comes back with another's. */
struct marking {
    uint64_t mark;
    long outstanding, strangers;
};

static void *allocate_marked(void *user, void *ptr, size_t old_size, size_t size)
{
    struct marking *m = user;
    uint64_t *old = ptr ? (uint64_t *)ptr - 2 : NULL;
    uint64_t *raw = size ? malloc(size + 16) : NULL;
    if (old)
        m->strangers += *old != m->mark;
    if (raw) {
        *raw = m->mark;
        if (old)
            memcpy(raw + 2, ptr, old_size < size ? old_size : size);
    }
    m->outstanding += (raw != NULL) - (old != NULL && (raw || size == 0));
    if (raw || size == 0)
        free(old);
    return raw ? raw + 2 : NULL;
}

/* A model and two sessions, each on a context with its own allocator: memory returns to where it came from. */
TEST(generate_returns_memory_to_its_own_allocator)
{
    struct marking marks[3] = {{.mark = 1}, {.mark = 2}, {.mark = 3}};
    struct geul_context *ctx[3];
    for (int i = 0; i < 3; i++)
        REQUIRE((ctx[i] = geul_context_new(
                     &(struct geul_context_options){.allocate = allocate_marked, .allocate_user = &marks[i]})));
    struct geul_model *model = geul_model_load(ctx[0], test_mini_model(), &(struct geul_model_options){.n_threads = 1});
    REQUIRE(model);
    struct geul_session *s[2];
    for (int i = 0; i < 2; i++)
        REQUIRE((s[i] = geul_session_new(ctx[i + 1], model, &(struct geul_session_options){.n_context = 64})));
    struct geul_generation how = {.max_tokens = 2};
    CHECK_INT(geul_generate(s[0], "안녕", &how, NULL), GEUL_OK);
    CHECK_INT(geul_generate(s[1], "안녕하세요 오늘은 날씨가 참 좋습니다", &how, NULL), GEUL_OK);
    for (int i = 0; i < 2; i++) {
        geul_session_free(s[i]);
        geul_context_free(ctx[i + 1]);
        CHECK_INT(marks[i + 1].outstanding, 0);
    }
    geul_model_free(model);
    geul_context_free(ctx[0]);
    CHECK_INT(marks[0].outstanding, 0);
    for (int i = 0; i < 3; i++)
        CHECK_INT(marks[i].strangers, 0);
}

/* Load, tokenize, generate 4 tokens with an allocator that fails at call fail_at. */
static bool whole_use(struct test_allocator *a, const char *path, char *message, size_t size)
{
    struct geul_context_options o = {.allocate = test_allocate, .allocate_user = a};
    struct geul_context *ctx = geul_context_new(&o);
    if (!ctx)
        return snprintf(message, size, "no context"), false;
    struct geul_model *m = geul_model_load(ctx, path, &(struct geul_model_options){.n_threads = 1});
    struct geul_session *s = m ? geul_session_new(ctx, m, NULL) : NULL;
    struct geul_generation how = {.max_tokens = 4, .ignore_end_token = true};
    struct geul_generation_result r;
    bool ok = s && geul_generate(s, "안녕하세요, 오늘 날씨는", &how, &r) == GEUL_OK;
    if (ok) {
        geul_tokens_free(ctx, r.tokens);
        geul_text_free(ctx, r.text);
    }
    snprintf(message, size, "%s", geul_error(ctx));
    geul_session_free(s);
    geul_model_free(m);
    geul_context_free(ctx);
    return ok;
}

TEST(generate_survives_every_failing_allocation)
{
    struct golden g;
    REQUIRE(golden_open("full", &g));
    const char *path = golden_convert(&g, GEUL_TYPE_F32);
    char message[1024];
    struct test_allocator count = {0};
    REQUIRE(whole_use(&count, path, message, sizeof message));
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

/* Rewrites golden `parallel` with one thing changed and returns the message that loading gives. */
static void load_damaged(const char *drop, const char *rename_key, uint32_t value, const char *expected)
{
    struct golden g;
    struct geul_context *ctx = geul_context_new(NULL);
    REQUIRE(golden_open("parallel", &g));
    struct geul_gguf *in = geul_gguf_open(ctx, golden_convert(&g, GEUL_TYPE_F32));
    const char *path = test_scratch("damaged.gguf");
    struct geul_gguf_writer *w = geul_gguf_writer_new(ctx, path);
    REQUIRE(in && w);
    for (int64_t i = 0; i < geul_gguf_key_count(in); i++)
        if (!rename_key || strcmp(geul_gguf_key_name(in, i), rename_key) != 0)
            geul_gguf_copy_key(w, in, i);
    if (rename_key)
        geul_gguf_set_u32(w, rename_key, value);
    for (int pass = 0; pass < 2; pass++)
        for (int64_t i = 0; i < geul_gguf_tensor_count(in); i++) {
            const struct geul_gguf_tensor *t = geul_gguf_tensor_at(in, i);
            if (drop && strcmp(t->name, drop) == 0)
                continue;
            if (pass == 0)
                geul_gguf_declare_tensor(w, t->name, t->type, t->n_dims, t->shape);
            else
                geul_gguf_write_data(w, t->data, t->bytes);
        }
    REQUIRE(CHECK_MSG(geul_gguf_writer_commit(w) == GEUL_OK, "%s", geul_error(ctx)));
    geul_gguf_close(in);
    CHECK(geul_model_load(ctx, path, NULL) == NULL);
    CHECK_MSG(strstr(geul_error(ctx), expected) != NULL, "\"%s\" does not say \"%s\"", geul_error(ctx), expected);
    geul_context_free(ctx);
    golden_close(&g);
}

TEST(model_load_names_what_is_wrong)
{
    load_damaged("blk.1.ffn_up.weight", NULL, 0, "blk.1.ffn_up.weight is missing");
    load_damaged("token_embd.weight", NULL, 0, "token_embd.weight");
    load_damaged(NULL, "gptneox.embedding_length", 48, "token_embd.weight");
    load_damaged(NULL, "gptneox.feed_forward_length", 31, "ffn_up.weight");
    load_damaged(NULL, "gptneox.block_count", 4096, "layers");
    load_damaged(NULL, "gptneox.block_count", 0xffffffff, "block_count");
    load_damaged(NULL, "gptneox.attention.head_count", 7, "heads");
    load_damaged(NULL, "gptneox.attention.head_count", 0, "head_count");
    load_damaged(NULL, "gptneox.rope.dimension_count", 9999, "rotary");
    load_damaged(NULL, "general.architecture", 3, "general.architecture");
}
