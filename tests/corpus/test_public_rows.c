/* test_public_rows.c: rows, samples and shards as an application has them: through geul_tools.h alone. */
#include "tests/harness.h"

#include <geul_tools.h>

struct rig {
    struct geul_context *ctx;
    struct geul_tokenizer *tok;
    struct geul_row_problems *problems;
    struct geul_dataset *train, *held_out;
};

/* Everything that the tests need; what could not be made is NULL after a failed check. */
static struct rig rig_open(void)
{
    struct rig r = {.ctx = geul_context_new(NULL)};
    r.tok = geul_tokenizer_load(r.ctx, test_mini_model(), NULL);
    r.problems = geul_row_problems_new(r.ctx);
    r.train = geul_dataset_new(r.ctx);
    r.held_out = geul_dataset_new(r.ctx);
    CHECK_MSG(r.tok && r.problems && r.train && r.held_out, "%s", geul_error(r.ctx));
    return r;
}

static void rig_close(struct rig *r)
{
    geul_dataset_free(r->train);
    geul_dataset_free(r->held_out);
    geul_row_problems_free(r->problems);
    geul_tokenizer_free(r->tok);
    geul_context_free(r->ctx);
}

/* Writes text to a scratch file of that name; the path lives as long as four others. */
static const char *put_file(const char *name, const char *text)
{
    const char *path = test_scratch(name);
    test_spill(path, text, strlen(text));
    return path;
}

static const char two_rows[] = "{\"question\":\"q\",\"answer\":\"a\"}\n{\"bad\":1}\n{\"text\":\"글\"}\n";

TEST(public_rows_of_a_file)
{
    struct rig r = rig_open();
    const char *path = put_file("rows.jsonl", two_rows);
    for (int asked = 0; asked < 2; asked++) {
        const struct geul_row *row;
        struct geul_rows *rows = geul_rows_open(r.ctx, path, asked ? r.problems : NULL);
        REQUIRE(CHECK_MSG(rows, "%s", geul_error(r.ctx)));
        REQUIRE(geul_rows_next(rows, &row) == GEUL_OK && row);
        CHECK(row->kind == GEUL_ROW_TURNS && row->line == 1 && row->n_turns == 1);
        CHECK_STR(row->turns[0].question, "q");
        CHECK_STR(row->turns[0].answer, "a");
        REQUIRE(geul_rows_next(rows, &row) == GEUL_OK && row);
        CHECK(row->kind == GEUL_ROW_TEXT && row->line == 3 && row->length == strlen("글"));
        CHECK(memcmp(row->text, "글", row->length) == 0);
        CHECK(geul_rows_next(rows, &row) == GEUL_OK && !row);
        CHECK(geul_rows_next(rows, &row) == GEUL_OK && !row);
        geul_rows_close(rows);
        CHECK_INT(geul_row_problems_count(r.problems), asked);
    }
    CHECK(strstr(geul_row_problems_text(r.problems, 0), "rows.jsonl:2: its keys are bad"));
    CHECK(!geul_row_problems_text(r.problems, 1) && !geul_row_problems_text(r.problems, -1));
    geul_rows_close(NULL);
    geul_row_problems_free(NULL);
    rig_close(&r);
}

TEST(public_rows_tell_the_end_from_a_failure)
{
    struct rig r = rig_open();
    const struct geul_row *row;
    CHECK(!geul_rows_open(r.ctx, test_scratch("absent.jsonl"), NULL) && geul_error_status(r.ctx) == GEUL_ERROR_IO);
    CHECK(!geul_rows_open(r.ctx, put_file("rows.parquet", "PAR1"), NULL) &&
          geul_error_status(r.ctx) == GEUL_ERROR_FORMAT);
    struct geul_rows *rows = geul_rows_open(r.ctx, put_file("empty.jsonl", "\n\n"), NULL);
    REQUIRE(rows && geul_error_status(r.ctx) == GEUL_OK);
    CHECK(geul_rows_next(rows, &row) == GEUL_ERROR_FORMAT && !row);
    geul_rows_close(rows);
    rows = geul_rows_open(r.ctx, put_file("broken.jsonl", "{\n"), NULL); /* a problem is not a failure */
    REQUIRE(rows);
    CHECK(geul_rows_next(rows, &row) == GEUL_OK && !row);
    geul_rows_close(rows);
    rig_close(&r);
}

/* A list serves several files; beyond 20 texts it only counts. */
TEST(public_row_problems_add_up)
{
    struct rig r = rig_open();
    REQUIRE(r.tok);
    const char *three = put_file("three.jsonl", "{\n{\n{\n{\"text\":\"t\"}\n");
    struct geul_samples_options o = {.size = sizeof o, .problems = r.problems};
    for (int i = 1; i <= 8; i++) {
        REQUIRE(geul_samples_read(r.ctx, r.tok, &three, 1, &o, r.train, NULL, NULL) == GEUL_OK);
        CHECK_INT(geul_row_problems_count(r.problems), 3 * i);
        CHECK(!geul_row_problems_text(r.problems, i < 7 ? 3 * i : 20));
        CHECK(geul_row_problems_text(r.problems, i < 7 ? 3 * i - 1 : 19));
    }
    CHECK_INT(geul_dataset_sample_count(r.train), 8);
    const char *bad = put_file("bad.jsonl", "{\n");
    CHECK(geul_samples_read(r.ctx, r.tok, &bad, 1, &o, r.train, NULL, NULL) == GEUL_ERROR_FORMAT);
    CHECK_MSG(strstr(geul_error(r.ctx), "1 are broken") && strstr(geul_error(r.ctx), "bad.jsonl:1: "), "%s",
              geul_error(r.ctx)); /* of this call, not of those before */
    CHECK_INT(geul_row_problems_count(r.problems), 25);
    rig_close(&r);
}

TEST(public_samples_with_a_share_held_out)
{
    struct rig r = rig_open();
    REQUIRE(r.tok);
    char text[64 * 100] = "";
    for (int i = 0; i < 100; i++)
        snprintf(text + strlen(text), 64, "{\"prompt\":\"%d\",\"completion\":\"a\"}\n", i);
    const char *paths[] = {put_file("many.jsonl", text), put_file("one.txt", "글을 씁니다.")};
    struct geul_template *t = geul_template_new(r.ctx, "koalpaca");
    struct geul_samples_options o = {
        .size = sizeof o, .prompt_template = t, .n_context = 64, .held_out = 0.3, .seed = 5, .problems = r.problems};
    struct geul_samples_report report = {.size = sizeof report};
    CHECK(geul_samples_read(r.ctx, r.tok, paths, 2, &o, r.train, NULL, &report) == GEUL_ERROR_ARGUMENT);
    REQUIRE(geul_samples_read(r.ctx, r.tok, paths, 2, &o, r.train, r.held_out, &report) == GEUL_OK);
    CHECK(report.rows == 101 && report.held_out > 15 && report.held_out < 45 && !report.long_path);
    CHECK_INT(geul_dataset_sample_count(r.held_out), report.held_out);
    CHECK_INT(geul_dataset_sample_count(r.train), report.rows - report.held_out);
    CHECK_INT(geul_row_problems_count(r.problems), 0);
    /* What follows is appended. */
    int64_t before = geul_dataset_sample_count(r.train);
    o.held_out = 0;
    REQUIRE(geul_samples_read(r.ctx, r.tok, paths + 1, 1, &o, r.train, NULL, NULL) == GEUL_OK);
    CHECK_INT(geul_dataset_sample_count(r.train), before + 1);
    geul_template_free(t);
    rig_close(&r);
}

TEST(public_row_structs_need_their_size)
{
    struct rig r = rig_open();
    REQUIRE(r.tok);
    const char *path = put_file("rows.jsonl", two_rows), *prefix = test_scratch("shards");
    struct geul_samples_options samples = {.n_context = 8}, sized = {.size = sizeof sized};
    struct geul_samples_report report = {.rows = 7};
    CHECK(geul_samples_read(r.ctx, r.tok, &path, 1, &samples, r.train, NULL, NULL) == GEUL_ERROR_ARGUMENT);
    CHECK_MSG(strstr(geul_error(r.ctx), "geul_samples_options: its size is not set"), "%s", geul_error(r.ctx));
    CHECK(geul_samples_read(r.ctx, r.tok, &path, 1, &sized, r.train, NULL, &report) == GEUL_ERROR_ARGUMENT);
    CHECK_MSG(strstr(geul_error(r.ctx), "geul_samples_report"), "%s", geul_error(r.ctx));
    CHECK(report.rows == 7 && geul_dataset_sample_count(r.train) == 0);
    struct geul_shards_options shards = {.shard_tokens = 8};
    struct geul_shards_report written = {.files = 7};
    CHECK(geul_shards_write(r.ctx, r.tok, &path, 1, prefix, &shards, NULL) == GEUL_ERROR_ARGUMENT);
    CHECK(geul_shards_write(r.ctx, r.tok, &path, 1, prefix, NULL, &written) == GEUL_ERROR_ARGUMENT);
    CHECK(written.files == 7);
    rig_close(&r);
}

/* A program of an older version knows fewer fields: what follows them is not part of its struct. One of a newer
 * version may leave alone what this version does not know. */
TEST(public_row_structs_of_other_versions)
{
    struct rig r = rig_open();
    REQUIRE(r.tok);
    const char *path = put_file("rows.jsonl", two_rows);
    struct geul_samples_options o = {.n_context = 8};
    struct geul_samples_report report;
    memset((char *)&o + offsetof(struct geul_samples_options, problems), 0xAA,
           sizeof o - offsetof(struct geul_samples_options, problems));
    memset(&report, 0xAA, sizeof report);
    o.size = offsetof(struct geul_samples_options, problems);
    report.size = offsetof(struct geul_samples_report, too_long);
    REQUIRE(geul_samples_read(r.ctx, r.tok, &path, 1, &o, r.train, NULL, &report) == GEUL_OK);
    CHECK(report.rows == 2 && report.size == offsetof(struct geul_samples_report, too_long));
    for (size_t i = report.size; i < sizeof report; i++)
        CHECK_INT(((unsigned char *)&report)[i], 0xAA);

    struct {
        struct geul_shards_options o;
        uint64_t newer;
    } wide = {.o = {.size = sizeof wide}, .newer = 0};
    struct geul_shards_report written = {.size = sizeof written};
    REQUIRE(geul_shards_write(r.ctx, r.tok, &path, 1, test_scratch("new"), &wide.o, &written) == GEUL_OK);
    CHECK(written.documents == 2 && written.files == 1);
    wide.newer = 1;
    CHECK(geul_shards_write(r.ctx, r.tok, &path, 1, test_scratch("newer"), &wide.o, &written) == GEUL_ERROR_ARGUMENT);
    rig_close(&r);
}

/* Shards without options, read back as a dataset together with samples. */
TEST(public_shards_of_rows)
{
    struct rig r = rig_open();
    REQUIRE(r.tok);
    const char *path = put_file("rows.jsonl", two_rows);
    char prefix[1024], shard[1100];
    snprintf(prefix, sizeof prefix, "%s", test_scratch("corpus"));
    snprintf(shard, sizeof shard, "%s-00000.geulshard", prefix);
    struct geul_shards_report written = {.size = sizeof written};
    REQUIRE(geul_shards_write(r.ctx, r.tok, &path, 1, prefix, NULL, &written) == GEUL_OK);
    CHECK(written.documents == 2 && written.files == 1);
    struct geul_samples_options o = {.size = sizeof o};
    REQUIRE(geul_samples_read(r.ctx, r.tok, &path, 1, &o, r.train, NULL, NULL) == GEUL_OK);
    REQUIRE(geul_dataset_add_shard(r.train, shard, 64) == GEUL_OK);
    CHECK_INT(geul_dataset_token_count(r.train), 2 * written.tokens);
    rig_close(&r);
}
