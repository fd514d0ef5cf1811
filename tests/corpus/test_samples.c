/* test_samples.c: files of rows to datasets. */
#include "tests/train/training_rig.h"

#include "core/context.h"
#include "geul_tools.h"
#include "data/dataset.h"

/* Writes text to a scratch file of that name; the path lives as long as four others. */
static const char *put_file(const char *name, const char *text)
{
    const char *path = test_scratch(name);
    test_spill(path, text, strlen(text));
    return path;
}

/* What was read. */
struct samples {
    struct geul_dataset *train, *held_out;
    struct geul_row_problems *problems;
    struct geul_samples_report report;
};

/* Reads files; free s with samples_free(), also after a failure. */
static enum geul_status read_files(const struct training_rig *r, const char *const *paths, int n,
                                   const struct geul_samples_options *options, struct samples *s)
{
    struct geul_samples_options o = *options;
    *s = (struct samples){
        geul_dataset_new(r->ctx), geul_dataset_new(r->ctx), geul_row_problems_new(r->ctx), {.size = sizeof s->report}};
    if (!s->train || !s->held_out || !s->problems)
        return GEUL_ERROR_MEMORY;
    o.size = sizeof o;
    o.problems = s->problems;
    return geul_samples_read(r->ctx, r->tok, paths, n, &o, s->train, s->held_out, &s->report);
}

static enum geul_status read_one(const struct training_rig *r, const char *path, const struct geul_samples_options *o,
                                 struct samples *s)
{
    return read_files(r, &path, 1, o, s);
}

static void samples_free(struct samples *s)
{
    geul_dataset_free(s->train);
    geul_dataset_free(s->held_out);
    geul_row_problems_free(s->problems);
}

TEST(samples_of_every_shape_and_template)
{
    static const char rows[] =
        "{\"instruction\":\"가\",\"input\":\"나\",\"output\":\"다 <|endoftext|>\"}\n"
        "{\"messages\":[{\"role\":\"system\",\"content\":\"바\"},{\"role\":\"user\",\"content\":\"사\"},{\"role\":"
        "\"assistant\",\"content\":\"아\"},{\"role\":\"user\",\"content\":\"자\"},{\"role\":\"assistant\",\"content\":"
        "\"차\"}]}\n"
        "{\"question\":\"카 ### 답변:\",\"answer\":\"타\"}\n{\"prompt\":\"파라미터\",\"completion\":\"하\"}\n"
        "{\"text\":\"글 <|endoftext|>\"}\n";
    static const char *const learned[4][5] = {
        {" 다 <|endoftext|><|endoftext|>", " 아<|endoftext|> 차<|endoftext|>", " 타<|endoftext|>", " 하<|endoftext|>",
         "글 <|endoftext|><|endoftext|>"},
        {"다 <|endoftext|><|endoftext|>", "아<|endoftext|>차<|endoftext|>", "타<|endoftext|>", "하<|endoftext|>",
         "글 <|endoftext|><|endoftext|>"},
        {" 다 <|endoftext|><|endoftext|>", " 아<|endoftext|> 차<|endoftext|>", " 타<|endoftext|>", " 하<|endoftext|>",
         "글 <|endoftext|><|endoftext|>"},
        {"다 <|endoftext|><|endoftext|>", "아<|endoftext|>차<|endoftext|>", "타<|endoftext|>", "하<|endoftext|>",
         "글 <|endoftext|><|endoftext|>"},
    };
    static const char *const conversations[4] = {"### 질문: 사\n\n### 맥락: 바\n\n### 답변:### 질문: 자\n\n### 답변:",
                                                 NULL, "바\n\n사\n\n정답:자\n\n정답:", "바\n\n사자"};
    static const char *const names[4] = {"koalpaca", "kullm", "kgoat", NULL};
    struct training_rig r = training_rig_open();
    REQUIRE(r.tok);
    const char *path = put_file("rows.jsonl", rows);
    for (int k = 0; k < 8; k++) {
        bool whole = k / 4;
        struct geul_samples_options o = {.whole = whole};
        struct geul_template *t = names[k % 4] ? geul_template_new(r.ctx, names[k % 4]) : NULL;
        struct samples s;
        o.prompt_template = t;
        REQUIRE(CHECK_MSG(read_one(&r, path, &o, &s) == GEUL_OK, "%s", geul_error(r.ctx)));
        CHECK(geul_dataset_sample_count(s.train) == 5 && geul_dataset_sample_count(s.held_out) == 0 &&
              geul_row_problems_count(s.problems) == 0);
        CHECK(s.report.rows == 5 && s.report.held_out == 0 && s.report.too_long == 0);
        CHECK_INT(s.report.joined_input, k % 4 < 2 ? 0 : 2);
        CHECK_INT(s.report.longest, geul_dataset_longest(s.train));
        for (int i = 0; i < 5; i++) {
            struct sample_view v = sample_view(&r, s.train, i);
            char *text = sample_text(&r, &v, true), *masked = sample_text(&r, &v, false);
            CHECK_INT(v.ends, i == 1 ? 2 : 1);
            CHECK_INT(v.learned_ends, v.ends);
            if (whole)
                CHECK_INT(v.n_targets, v.n - 1);
            else
                CHECK_STR(text, learned[k % 4][i]);
            if (!whole && i == 1 && conversations[k % 4])
                CHECK_STR(masked, conversations[k % 4]);
            free(text);
            free(masked);
            sample_view_free(&v);
        }
        samples_free(&s);
        geul_template_free(t);
    }
    training_rig_close(&r);
}

/* A short row, one whose answer is long, one whose question is. */
static const char *long_rows(void)
{
    static char text[8192];
    strcpy(text, "{\"question\":\"q\",\"answer\":\"a\"}\n\n{\"question\":\"q\",\"answer\":\"");
    for (int i = 0; i < 60; i++)
        strcat(text, "긴 답 ");
    strcat(text, "\"}\n{\"question\":\"");
    for (int i = 0; i < 80; i++)
        strcat(text, "긴 질문 ");
    strcat(text, "\",\"answer\":\"a\"}\n");
    return put_file("long.jsonl", text);
}

TEST(samples_too_long)
{
    struct training_rig r = training_rig_open();
    REQUIRE(r.tok);
    const char *path = long_rows();
    struct geul_template *t = geul_template_new(r.ctx, "koalpaca");
    struct geul_samples_options o = {.prompt_template = t, .n_context = 40};
    struct samples s;
    REQUIRE(read_one(&r, path, &o, &s) == GEUL_OK);
    CHECK(s.report.rows == 2 && s.report.too_long == 2);
    CHECK(s.report.long_line == 3 && strcmp(s.report.long_path, path) == 0);
    CHECK(geul_row_problems_count(s.problems) == 1 &&
          strstr(geul_row_problems_text(s.problems, 0), "long.jsonl:4: the question alone fills"));
    CHECK(s.report.longest > 60 && geul_dataset_longest(s.train) == 41);
    struct sample_view v = sample_view(&r, s.train, 1);
    CHECK(v.n == 41 && v.ends == 0 && v.n_targets > 0 && v.target[40]);
    sample_view_free(&v);
    samples_free(&s);

    o.too_long = GEUL_SAMPLES_SKIP;
    REQUIRE(read_one(&r, path, &o, &s) == GEUL_OK);
    CHECK(s.report.rows == 1 && s.report.too_long == 2 && geul_row_problems_count(s.problems) == 0 &&
          geul_dataset_sample_count(s.train) == 1);
    samples_free(&s);

    o.too_long = GEUL_SAMPLES_REFUSE;
    CHECK(read_one(&r, path, &o, &s) == GEUL_ERROR_FORMAT);
    CHECK_MSG(strstr(geul_error(r.ctx), "long.jsonl:3: the sample has"), "%s", geul_error(r.ctx));
    samples_free(&s);

    /* The bound itself: a sample of n_context + 1 tokens fits. */
    o.n_context = 0;
    REQUIRE(read_one(&r, path, &o, &s) == GEUL_OK);
    CHECK(s.report.too_long == 0 && geul_dataset_sample_count(s.train) == 3);
    int longest = geul_dataset_longest(s.train);
    samples_free(&s);
    for (int less = 0; less < 2; less++) {
        o.n_context = longest - 1 - less;
        o.too_long = GEUL_SAMPLES_SKIP;
        REQUIRE(read_one(&r, path, &o, &s) == GEUL_OK);
        CHECK_INT(s.report.too_long, less);
        samples_free(&s);
    }
    geul_template_free(t);
    training_rig_close(&r);
}

/* A long text is not cut short: its windows hold every token, and each but the first is a target once. */
TEST(samples_cut_texts_into_windows)
{
    struct training_rig r = training_rig_open();
    REQUIRE(r.tok);
    char text[2048] = "";
    for (int i = 0; i < 100; i++)
        strcat(text, "글을 씁니다. ");
    int32_t *ids;
    size_t n, at = 0;
    REQUIRE(geul_tokenize(r.ctx, r.tok, text, strlen(text), false, &ids, &n) == GEUL_OK);
    const char *path = put_file("text.txt", text);
    struct geul_samples_options o = {.n_context = 16, .too_long = GEUL_SAMPLES_REFUSE};
    struct samples s;
    REQUIRE(read_one(&r, path, &o, &s) == GEUL_OK);
    CHECK_INT(s.report.rows, 1);
    CHECK_INT(geul_dataset_sample_count(s.train), (n + 15) / 16);
    CHECK_INT(geul_dataset_target_count(s.train), n);
    for (int64_t i = 0; i < geul_dataset_sample_count(s.train); i++, at += 16) {
        struct sample_view v = sample_view(&r, s.train, i);
        bool last = i + 1 == geul_dataset_sample_count(s.train);
        CHECK(last ? v.ids[v.n - 1] == geul_token_end(r.tok) && v.learned_ends == 1 : v.n == 17 && v.ends == 0);
        CHECK(memcmp(v.ids, ids + at, (size_t)(v.n - last) * sizeof *ids) == 0);
        sample_view_free(&v);
    }
    geul_tokens_free(r.ctx, ids);
    samples_free(&s);
    training_rig_close(&r);
}

/* Rows are dealt by seed and number alone; every one goes to one side. */
TEST(samples_hold_rows_out)
{
    static char text[64 * 400];
    static const double shares[] = {0, 0.1, 0.5};
    struct training_rig r = training_rig_open();
    REQUIRE(r.tok);
    char *at = text;
    for (int i = 0; i < 400; i++)
        at += sprintf(at, "{\"question\":\"%d\",\"answer\":\"a\"}\n", i);
    const char *path = put_file("many.jsonl", text);
    int64_t first[2] = {0};
    for (int k = 0; k < 3; k++)
        for (int seed = 0; seed < 2; seed++) {
            struct geul_samples_options o = {.held_out = shares[k], .seed = (uint64_t)seed};
            struct samples s, again;
            REQUIRE(read_one(&r, path, &o, &s) == GEUL_OK && read_one(&r, path, &o, &again) == GEUL_OK);
            int64_t held = geul_dataset_sample_count(s.held_out);
            CHECK(held == s.report.held_out && held + geul_dataset_sample_count(s.train) == 400);
            CHECK_MSG(fabs((double)held - 400 * shares[k]) < 40, "%lld of 400 for %g", (long long)held, shares[k]);
            CHECK(held == geul_dataset_sample_count(again.held_out));
            if (held) {
                struct sample_view v = sample_view(&r, s.held_out, held / 2),
                                   w = sample_view(&r, again.held_out, held / 2);
                CHECK(v.n == w.n && memcmp(v.ids, w.ids, (size_t)v.n * sizeof *v.ids) == 0);
                first[seed] = first[seed] * 1000 + held;
                sample_view_free(&v);
                sample_view_free(&w);
            }
            samples_free(&s);
            samples_free(&again);
        }
    CHECK(first[0] != first[1]); /* another seed, other rows */
    struct geul_samples_options bad = {.held_out = 0.6};
    struct samples s;
    CHECK(read_one(&r, path, &bad, &s) == GEUL_ERROR_ARGUMENT);
    samples_free(&s);
    training_rig_close(&r);
}

TEST(samples_report_what_is_wrong)
{
    static const struct {
        const char *text, *message;
    } cases[] = {{"", "holds no rows"},
                 {"{\"a\":1}\n{", "no row can be used (2 are broken, 0 too long); the first: "},
                 {"[]", "JSON array"}};
    struct training_rig r = training_rig_open();
    REQUIRE(r.tok);
    struct geul_samples_options o = {.n_context = 0};
    struct samples s;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK(read_one(&r, put_file("bad.jsonl", cases[i].text), &o, &s) == GEUL_ERROR_FORMAT);
        CHECK_MSG(strstr(geul_error(r.ctx), cases[i].message) && strstr(geul_error(r.ctx), "bad.jsonl"), "%s",
                  geul_error(r.ctx));
        samples_free(&s);
    }
    struct geul_samples_options odd = {.too_long = (enum geul_samples_long)3};
    CHECK(read_one(&r, put_file("good.jsonl", "{\"text\":\"a\"}"), &odd, &s) == GEUL_ERROR_ARGUMENT);
    samples_free(&s);
    CHECK(read_one(&r, test_scratch("absent.jsonl"), &o, &s) == GEUL_ERROR_IO);
    samples_free(&s);
    const char *paths[] = {put_file("one.jsonl", "{\"text\":\"a\"}\n{\"b\":1}\n"), put_file("two.txt", "둘")};
    CHECK(read_files(&r, paths, 2, &o, &s) == GEUL_OK);
    CHECK(s.report.rows == 2 && geul_row_problems_count(s.problems) == 1 &&
          strstr(geul_row_problems_text(s.problems, 0), "one.jsonl:2: its keys are b"));
    samples_free(&s);
    training_rig_close(&r);
}

static bool stop_at_once(void *user, uint64_t done, uint64_t total)
{
    CHECK(done > 0 && done <= total);
    (*(int *)user)++;
    return false;
}

TEST(samples_stop_and_survive_failing_allocations)
{
    struct training_rig r = training_rig_open();
    REQUIRE(r.tok);
    const char *path = put_file("s.jsonl", "{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\","
                                           "\"content\":\"u\"},{\"role\":\"assistant\",\"content\":\"a\"}]}\n{}\n"
                                           "{\"text\":\"t\"}");
    int calls = 0;
    struct geul_samples_options o = {.progress = stop_at_once, .user = &calls, .n_context = 8};
    struct samples s;
    CHECK(read_one(&r, path, &o, &s) == GEUL_ERROR_CANCELLED);
    CHECK_INT(calls, 1);
    samples_free(&s);
    o.progress = NULL;
    struct test_shortage shortage = {.most = 200};
    while (test_shortage_next(&shortage)) {
        struct training_rig x = {shortage.ctx, r.tok};
        shortage.ok = read_one(&x, path, &o, &s) == GEUL_OK;
        CHECK(!shortage.ok || (s.report.rows == 2 && geul_row_problems_count(s.problems) == 1));
        samples_free(&s);
    }
    training_rig_close(&r);
}
