/* test_dataset.c: what is learned is what is asked, and what goes into a dataset comes out of it. */
#include "tests/hostile.h"
#include "tests/train/training_rig.h"

#include "core/context.h"
#include "data/dataset.h"
#include "data/shard.h"

static const char file_template[] = "질문 {instruction} 참고 {input}\n답 {output}\n[끝]\n";

static const struct {
    const char *name, *gap, *end;
    bool takes_input;
} forms[] = {{"koalpaca", " ", "", true},
             {"kullm", "", "", true},
             {"kgoat", " ", "", false},
             {file_template, " ", "\n[끝]\n", true}};

/* Checks the one sample of d, made from question, input and answer: its prompt has the ids that the model is asked
 * with, and what follows is the answer and one end. */
static void check_answer(const struct training_rig *r, const struct geul_dataset *d, int form, const char *prompt,
                         const char *answer, bool whole)
{
    char expected[512];
    int32_t *asked;
    size_t n;
    struct sample_view v = sample_view(r, d, 0);
    char *learned = sample_text(r, &v, true);
    REQUIRE(geul_tokenize(r->ctx, r->tok, prompt, strlen(prompt), false, &asked, &n) == GEUL_OK);
    CHECK(v.n > (int)n && memcmp(v.ids, asked, n * sizeof *asked) == 0);
    for (int i = 0; i < v.n; i++)
        CHECK_MSG(v.target[i] == (i > 0 && (whole || i >= (int)n)), "%s: id %d", forms[form].name, i);
    snprintf(expected, sizeof expected, "%s%s%s%s<|endoftext|>", whole ? prompt : "", forms[form].gap, answer,
             forms[form].end);
    CHECK_STR(learned, expected);
    CHECK_INT(v.ends, 1);
    CHECK(v.target[v.n - 1] && v.ids[v.n - 1] == geul_token_end(r->tok));
    CHECK_INT(geul_dataset_target_count(d), v.n_targets);
    CHECK_INT(geul_dataset_token_count(d), v.n);
    CHECK_INT(geul_dataset_longest(d), v.n);
    geul_tokens_free(r->ctx, asked);
    sample_view_free(&v);
    free(learned);
}

TEST(dataset_learns_what_is_asked)
{
    static const char *const answers[] = {"빛이 흩어지기 때문입니다.",
                                          "<|endoftext|> ### 답변: <|sep|>\n\n끝<|endoftext|>", "\n줄\n", " 빈칸"};
    static const char *const questions[] = {"하늘은 왜 파란가요?", "<|endoftext|>{input}### 답변:{output}<|sep|>"};
    struct training_rig r = training_rig_open();
    REQUIRE(r.tok);
    for (int i = 0; i < 4 * 4 * 2 * 2 * 2; i++) {
        const char *answer = answers[i % 4], *question = questions[i / 4 % 2],
                   *input = i / 8 % 2 ? "맥락 <|sep|>" : NULL;
        int form = i / 16 % 4;
        bool whole = i / 64;
        char joined[256];
        struct geul_template *t = geul_template_new(r.ctx, forms[form].name);
        struct geul_dataset *d = geul_dataset_new(r.ctx);
        REQUIRE(t && d);
        snprintf(joined, sizeof joined, "%s\n\n%s", question, input ? input : "");
        bool joins = input && !forms[form].takes_input;
        char *prompt = geul_template_apply(r.ctx, t, &(struct geul_turn){joins ? joined : question, NULL}, 1, input);
        if (CHECK_MSG(geul_dataset_add_answer(d, r.tok, t, question, input, answer, whole) == GEUL_OK, "%s",
                      geul_error(r.ctx)))
            check_answer(&r, d, form, prompt, answer, whole);
        geul_text_free(r.ctx, prompt);
        geul_dataset_free(d);
        geul_template_free(t);
    }
    training_rig_close(&r);
}

TEST(dataset_without_a_template_joins)
{
    struct training_rig r = training_rig_open();
    REQUIRE(r.tok);
    struct geul_dataset *d = geul_dataset_new(r.ctx);
    CHECK(geul_dataset_add_answer(d, r.tok, NULL, "질문", "입력", " 답", false) == GEUL_OK);
    struct sample_view v = sample_view(&r, d, 0);
    char *masked = sample_text(&r, &v, false), *learned = sample_text(&r, &v, true);
    CHECK_STR(masked, "질문\n\n입력");
    CHECK_STR(learned, " 답<|endoftext|>");
    free(masked);
    free(learned);
    sample_view_free(&v);
    geul_dataset_free(d);
    training_rig_close(&r);
}

/* A template's special tokens are tokens; the same text in a question is not. */
TEST(dataset_special_tokens_of_a_template)
{
    static const struct {
        const char *form, *question;
        int seps, ends, learned_ends;
    } cases[] = {
        {"{instruction}<|sep|>{output}", "<|sep|>", 1, 1, 1},
        {"{instruction}<|sep|>{output}", "<|s", 1, 1, 1}, /* no token grows over the border */
        {"{instruction}ep|>{output}", "<|s", 0, 1, 1},
        {"<|endoftext|>{instruction}:{output}<|sep|><|endoftext|>", "<|endoftext|>", 1, 2, 1},
        {"<|sep|>{instruction}<|sep|><|sep|>{output}\n<|endoftext|>\n<|endoftext|>", "a <|sep|> b", 3, 1, 1},
    };
    struct training_rig r = training_rig_open();
    REQUIRE(r.tok);
    int32_t sep = geul_token_find(r.tok, "<|sep|>", 7);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct geul_template *t = geul_template_new(r.ctx, cases[i].form);
        struct geul_dataset *d = geul_dataset_new(r.ctx);
        CHECK(geul_dataset_add_answer(d, r.tok, t, cases[i].question, NULL, "<|sep|>답", false) == GEUL_OK);
        struct sample_view v = sample_view(&r, d, 0);
        int seps = 0;
        for (int k = 0; k < v.n; k++)
            seps += v.ids[k] == sep;
        CHECK_MSG(seps == cases[i].seps && v.ends == cases[i].ends && v.learned_ends == cases[i].learned_ends,
                  "case %zu: %d separators, %d ends, %d of them learned", i, seps, v.ends, v.learned_ends);
        sample_view_free(&v);
        geul_dataset_free(d);
        geul_template_free(t);
    }
    training_rig_close(&r);
}

TEST(dataset_conversations_end_every_answer)
{
    static const struct geul_turn turns[] = {
        {"하나", "첫 답 <|endoftext|>"}, {"둘 <|endoftext|>", "둘째"}, {"### 답변: 셋", "셋째"}};
    struct training_rig r = training_rig_open();
    REQUIRE(r.tok);
    for (int form = 0; form < 3; form++) {
        struct geul_template *t = geul_template_new(r.ctx, forms[form].name);
        struct geul_dataset *d = geul_dataset_new(r.ctx);
        char *text = geul_template_apply(r.ctx, t, turns, 3, NULL), all[1024] = "", *learned;
        REQUIRE(geul_dataset_add_turns(d, r.tok, t, turns, 3, NULL, false) == GEUL_OK);
        struct sample_view v = sample_view(&r, d, 0);
        CHECK_INT(v.ends, 3);
        CHECK_INT(v.learned_ends, 3);
        char *whole = geul_detokenize(r.ctx, r.tok, v.ids, (size_t)v.n, false, &(size_t){0});
        CHECK_STR(whole, text);
        for (int i = 0; i < 3; i++) {
            strcat(all, forms[form].gap);
            strcat(all, turns[i].answer);
            strcat(all, "<|endoftext|>");
        }
        CHECK_STR(learned = sample_text(&r, &v, true), all);
        free(learned);
        geul_text_free(r.ctx, whole);
        geul_text_free(r.ctx, text);
        sample_view_free(&v);
        geul_dataset_free(d);
        geul_template_free(t);
    }
    training_rig_close(&r);
}

TEST(dataset_texts_end_once)
{
    static const char text[] = "첫 글 <|endoftext|> 끝\0다";
    struct training_rig r = training_rig_open();
    REQUIRE(r.tok);
    struct geul_dataset *d = geul_dataset_new(r.ctx);
    CHECK(geul_dataset_add_text(d, r.tok, text, sizeof text - 1) == GEUL_OK);
    struct sample_view v = sample_view(&r, d, 0);
    CHECK(v.ends == 1 && v.learned_ends == 1 && v.n_targets == v.n - 1 && !v.target[0]);
    size_t n;
    char *back = geul_detokenize(r.ctx, r.tok, v.ids, (size_t)v.n - 1, false, &n);
    CHECK(n == sizeof text - 1 && memcmp(back, text, n) == 0);
    geul_text_free(r.ctx, back);
    sample_view_free(&v);
    CHECK(geul_dataset_add_text(d, r.tok, "", 0) == GEUL_ERROR_ARGUMENT); /* an end alone teaches nothing */
    CHECK_INT(geul_dataset_sample_count(d), 1);
    geul_dataset_free(d);
    training_rig_close(&r);
}

TEST(dataset_refusals)
{
    struct training_rig r = training_rig_open();
    REQUIRE(r.tok);
    struct geul_dataset *d = geul_dataset_new(r.ctx);
    static const char *const blank[] = {"", " ", "\n\t \r\n"};
    for (int i = 0; i < 3; i++) {
        CHECK(geul_dataset_add_answer(d, r.tok, NULL, "q", NULL, blank[i], true) == GEUL_ERROR_ARGUMENT);
        CHECK(strstr(geul_error(r.ctx), "answer is empty"));
    }
    CHECK(geul_dataset_add(d, (int32_t[]){5}, NULL, 1) == GEUL_ERROR_ARGUMENT);
    CHECK(geul_dataset_add(d, (int32_t[]){5, -1}, NULL, 2) == GEUL_ERROR_ARGUMENT);
    CHECK(geul_dataset_add(d, (int32_t[]){5, 6}, (bool[]){true, false}, 2) == GEUL_ERROR_ARGUMENT);
    CHECK(strstr(geul_error(r.ctx), "no target"));
    CHECK(geul_dataset_sample_count(d) == 0 && geul_dataset_token_count(d) == 0 && geul_dataset_target_count(d) == 0);
    CHECK(geul_dataset_highest_id(d) == -1 && geul_dataset_length(d, 0) == 0 && geul_dataset_length(d, -1) == 0);
    geul_dataset_free(d);
    geul_dataset_free(NULL);
    training_rig_close(&r);
}

/* ------------------------------------------------------------------------------------ shards -- */

/* A shard of n tokens 0, 1, 2, ... modulo n_vocab. */
static struct bytes shard_bytes(int32_t n_vocab, int n)
{
    struct bytes b = {0};
    struct geul_shard_kind kind = {n_vocab, 2, 77};
    unsigned char header[GEUL_SHARD_HEADER_BYTES], token[4];
    int width = geul_shard_token_bytes(n_vocab);
    geul_shard_write_header(&kind, (uint64_t)n, header);
    bytes_put(&b, header, sizeof header);
    for (int32_t i = 0; i < n; i++) {
        geul_shard_write_tokens(&(int32_t){i % n_vocab}, 1, width, token);
        bytes_put(&b, token, (size_t)width);
    }
    return b;
}

TEST(dataset_shard_windows)
{
    struct geul_context *ctx = geul_context_new(NULL);
    for (int n = 2; n < 12; n++)
        for (int context = 1; context < 14; context++) {
            struct bytes b = shard_bytes(n % 2 ? 50 : 70000, n);
            const char *path = test_scratch("a.geulshard");
            test_spill(path, b.data, b.size);
            bytes_free(&b);
            struct geul_dataset *d = geul_dataset_new(ctx);
            REQUIRE(CHECK_MSG(geul_dataset_add_shard(d, path, context) == GEUL_OK, "%s", geul_error(ctx)));
            int next = 1; /* the token whose turn it is to be a target */
            int64_t tokens = 0;
            for (int64_t i = 0; i < geul_dataset_sample_count(d); i++) {
                int32_t ids[16];
                bool target[16];
                int length = geul_dataset_length(d, i);
                REQUIRE(length >= 2 && length <= context + 1);
                CHECK(length == context + 1 || i == geul_dataset_sample_count(d) - 1);
                geul_dataset_read(d, i, length, ids, target);
                CHECK(ids[0] == next - 1 && !target[0]);
                for (int k = 1; k < length; k++)
                    CHECK(target[k] && ids[k] == next++);
                tokens += length;
            }
            CHECK_INT(next, n);
            CHECK_INT(geul_dataset_target_count(d), n - 1);
            CHECK_INT(geul_dataset_token_count(d), tokens);
            CHECK_INT(geul_dataset_longest(d), n - 1 < context ? n : context + 1);
            geul_dataset_free(d);
        }
    geul_context_free(ctx);
}

/* Samples in memory and shards in turn, against copies. */
TEST(dataset_mixed_samples_come_back)
{
    enum { SAMPLES = 300, LONGEST = 40 };
    static int32_t ids[SAMPLES][LONGEST], got[LONGEST];
    static bool target[SAMPLES][LONGEST], seen[LONGEST];
    static int lengths[SAMPLES];
    int64_t where[SAMPLES], tokens = 0, targets = 0, samples = 0;
    uint64_t seed = 3;
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_dataset *d = geul_dataset_new(ctx);
    struct bytes b = shard_bytes(50, 11);
    const char *path = test_scratch("m.geulshard");
    test_spill(path, b.data, b.size);
    for (int i = 0; i < SAMPLES; i++) {
        if (test_random(&seed) % 8 == 0) {
            REQUIRE(geul_dataset_add_shard(d, path, 4) == GEUL_OK);
            samples += 3, tokens += 13, targets += 10;
        }
        int n = lengths[i] = 2 + (int)(test_random(&seed) % (LONGEST - 1));
        for (int k = 0; k < n; k++) {
            ids[i][k] = (int32_t)(test_random(&seed) % 70000);
            target[i][k] = test_random(&seed) % 2 || k == 1;
        }
        bool all = i % 5 == 0;
        REQUIRE(geul_dataset_add(d, ids[i], all ? NULL : target[i], n) == GEUL_OK);
        for (int k = 0; k < n; k++)
            target[i][k] = k > 0 && (all || target[i][k]);
        where[i] = samples++;
        tokens += n;
        for (int k = 0; k < n; k++)
            targets += target[i][k];
    }
    CHECK_INT(geul_dataset_sample_count(d), samples);
    CHECK_INT(geul_dataset_token_count(d), tokens);
    CHECK_INT(geul_dataset_target_count(d), targets);
    for (int i = 0; i < SAMPLES; i++) {
        int n = lengths[i], part = 1 + i % n;
        CHECK_INT(geul_dataset_length(d, where[i]), n);
        geul_dataset_read(d, where[i], part, got, seen);
        CHECK(memcmp(got, ids[i], (size_t)part * sizeof *got) == 0 && memcmp(seen, target[i], (size_t)part) == 0);
        geul_dataset_read(d, where[i], n, NULL, NULL);
    }
    bytes_free(&b);
    geul_dataset_free(d);
    geul_context_free(ctx);
}

TEST(dataset_refuses_broken_shards)
{
    static const struct {
        size_t at; /* a number is put there, or the file cut there when bytes is 0 */
        int bytes;
        uint64_t value;
        const char *message;
    } cases[] = {
        {0, 0, 0, "not a token shard"},
        {7, 0, 0, "not a token shard"},
        {39, 0, 0, "ends within its header"},
        {0, 1, 'x', "not a token shard"},
        {8, 4, 2, "version 2"},
        {12, 4, 0, "vocabulary of 0"},
        {12, 4, 0xffffffff, "vocabulary"},
        {12, 4, 70000, "2 bytes per"},
        {16, 4, 50, "end token 50"},
        {16, 4, 0xffffffff, "end token"},
        {20, 4, 4, "4 bytes per token"},
        {20, 4, 0, "0 bytes per token"},
        {24, 8, 0, "names 0 tokens"},
        {24, 8, 12, "names 12 tokens"},
        {24, 8, 10, "names 10 tokens"},
        {24, 8, UINT64_MAX, "names 1844"},
        {24, 8, 1ull << 63, "names 9223"},
        {61, 0, 0, "but 21 bytes follow"},
        {60, 0, 0, "but 20 bytes follow"},
        {40, 2, 50, "token 0 is 50"},
        {60, 2, 0xffff, "token 10 is 65535"},
        {40, 0, 0, "but 0 bytes follow"},
    };
    struct meter meter;
    struct geul_context *ctx = meter_context(&meter);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct bytes b = shard_bytes(50, 11);
        size_t held = meter.now;
        geul_error_clear(ctx);
        for (int k = 0; k < cases[i].bytes; k++)
            b.data[cases[i].at + (size_t)k] = (uint8_t)(cases[i].value >> 8 * k);
        size_t size = cases[i].bytes ? b.size : cases[i].at;
        uint8_t *exact = malloc(size ? size : 1); /* so that the sanitizer sees a read too far */
        memcpy(exact, b.data, size);
        CHECK_MSG(!geul_shard_open_memory(ctx, exact, size, "bad.geulshard"), "case %zu is accepted", i);
        check_failure(ctx, &meter, held, cases[i].message, cases[i].message);
        CHECK(strstr(geul_error(ctx), "bad.geulshard"));
        free(exact);
        bytes_free(&b);
    }
    geul_context_free(ctx);
}

TEST(dataset_refuses_shards_of_other_tokenizers)
{
    struct training_rig r = training_rig_open();
    REQUIRE(r.tok);
    char one[1024], two[1024];
    snprintf(one, sizeof one, "%s", test_scratch("one.geulshard"));
    snprintf(two, sizeof two, "%s", test_scratch("two.geulshard"));
    struct bytes a = shard_bytes(50, 11), b = shard_bytes(51, 11), single = shard_bytes(50, 1);
    test_spill(one, a.data, a.size);
    test_spill(two, b.data, b.size);
    struct geul_dataset *d = geul_dataset_new(r.ctx);
    CHECK(geul_dataset_check_tokenizer(r.ctx, d, r.tok) == GEUL_OK);
    CHECK(geul_dataset_add_shard(d, one, 4) == GEUL_OK);
    CHECK(geul_dataset_add_shard(d, two, 4) == GEUL_ERROR_ARGUMENT && strstr(geul_error(r.ctx), "two.geulshard"));
    CHECK(geul_dataset_add_shard(d, one, 0) == GEUL_ERROR_ARGUMENT);
    CHECK(geul_dataset_add_shard(d, test_scratch("absent"), 4) == GEUL_ERROR_IO);
    test_spill(two, single.data, single.size);
    CHECK(geul_dataset_add_shard(d, two, 4) == GEUL_OK); /* one token: no window */
    CHECK_INT(geul_dataset_sample_count(d), 3);
    CHECK_INT(geul_dataset_highest_id(d), 49);
    CHECK(geul_dataset_check_tokenizer(r.ctx, d, r.tok) == GEUL_ERROR_ARGUMENT &&
          strstr(geul_error(r.ctx), "one.geulshard"));
    geul_dataset_free(d);
    bytes_free(&a);
    bytes_free(&b);
    bytes_free(&single);
    training_rig_close(&r);
}

TEST(dataset_survives_every_failing_allocation)
{
    static const struct geul_turn turns[] = {{"하나", "첫 답"}, {"둘", "둘째"}};
    struct training_rig r = training_rig_open();
    REQUIRE(r.tok);
    struct bytes b = shard_bytes(50, 11);
    const char *path = test_scratch("n.geulshard");
    test_spill(path, b.data, b.size);
    bytes_free(&b);
    struct test_shortage s = {.most = 500};
    while (test_shortage_next(&s)) {
        struct geul_template *t = geul_template_new(s.ctx, file_template);
        struct geul_dataset *d = t ? geul_dataset_new(s.ctx) : NULL;
        bool ok = d && geul_dataset_add_turns(d, r.tok, t, turns, 2, "입력", false) == GEUL_OK;
        ok = ok && geul_dataset_add_text(d, r.tok, "글", 3) == GEUL_OK;
        ok = ok && geul_dataset_add_answer(d, r.tok, NULL, "q", "i", "a", true) == GEUL_OK;
        ok = ok && geul_dataset_add_shard(d, path, 4) == GEUL_OK;
        CHECK(!ok || geul_dataset_sample_count(d) == 6);
        s.ok = ok;
        geul_dataset_free(d);
        geul_template_free(t);
    }
    training_rig_close(&r);
}
