/* test_shards.c: documents to shards and back. */
#include "tests/train/training_rig.h"

#include "convert/tokenizer_json.h"
#include "geul_tools.h"
#include "core/context.h"
#include "corpus/shards.h"
#include "data/dataset.h"
#include "data/shard.h"

#include <unistd.h>

static const char *shard_path(const char *prefix, int number)
{
    static char path[4][1200];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s-%05d.geulshard", prefix, number);
    return path[turn];
}

/* All tokens of the shards of a prefix, in order; malloc()ed. */
static int32_t *read_all(struct geul_context *ctx, const char *prefix, int files, uint64_t shard_tokens, size_t *n)
{
    int32_t *ids = malloc((1 << 20) * sizeof *ids);
    *n = 0;
    for (int i = 0; i < files; i++) {
        struct geul_shard *s = geul_shard_open(ctx, shard_path(prefix, i));
        if (!CHECK_MSG(s, "%s", geul_error(ctx)))
            break;
        CHECK(i == files - 1 ? geul_shard_count(s) <= shard_tokens : geul_shard_count(s) == shard_tokens);
        geul_shard_read(s, 0, geul_shard_count(s), ids + *n);
        *n += geul_shard_count(s);
        geul_shard_close(s);
    }
    return ids;
}

TEST(shards_hold_what_was_written)
{
    struct training_rig r = training_rig_open();
    REQUIRE(r.tok);
    int32_t *ids = malloc(10000 * sizeof *ids);
    uint64_t seed = 5;
    for (int i = 0; i < 10000; i++)
        ids[i] = (int32_t)(test_random(&seed) % (uint64_t)geul_tokenizer_size(r.tok));
    static const uint64_t sizes[] = {2, 7, 1000, 4096, 9999, 10000, 10001};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        size_t total = sizes[k] < 100 ? 301 : 10000, n;
        char prefix[1024];
        snprintf(prefix, sizeof prefix, "%s%zu", test_scratch("s"), k);
        struct geul_shards_writer *w = geul_shards_writer_new(r.ctx, r.tok, prefix, sizes[k]);
        REQUIRE(w);
        for (size_t at = 0; at < total;) {
            size_t piece = 1 + (size_t)(test_random(&seed) % 6000);
            piece = piece < total - at ? piece : total - at;
            REQUIRE(geul_shards_writer_add(w, ids + at, piece) == GEUL_OK);
            CHECK(access(shard_path(prefix, 0), F_OK) != 0); /* nothing appears before all are complete */
            at += piece;
        }
        int files;
        REQUIRE(geul_shards_writer_commit(w, &files) == GEUL_OK);
        CHECK_INT(files, (total + sizes[k] - 1) / sizes[k]);
        int32_t *back = read_all(r.ctx, prefix, files, sizes[k], &n);
        CHECK(n == total && memcmp(back, ids, n * sizeof *ids) == 0);
        free(back);
    }
    free(ids);
    training_rig_close(&r);
}

TEST(shards_leave_nothing_behind)
{
    struct training_rig r = training_rig_open();
    REQUIRE(r.tok);
    char prefix[1024];
    int files;
    static const int32_t ids[10] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
    snprintf(prefix, sizeof prefix, "%s", test_scratch("left"));
    CHECK(!geul_shards_writer_new(r.ctx, r.tok, prefix, 1));
    geul_error_clear(r.ctx);
    struct geul_shards_writer *w = geul_shards_writer_new(r.ctx, r.tok, prefix, 4);
    CHECK(geul_shards_writer_add(w, ids, 10) == GEUL_OK);
    geul_shards_writer_abandon(w);
    CHECK(access(shard_path(prefix, 0), F_OK) != 0);
    w = geul_shards_writer_new(r.ctx, r.tok, prefix, 4);
    CHECK(geul_shards_writer_commit(w, &files) == GEUL_ERROR_ARGUMENT); /* no tokens */
    geul_error_clear(r.ctx);
    /* Three files, then fewer: the third would be read along. */
    w = geul_shards_writer_new(r.ctx, r.tok, prefix, 4);
    CHECK(geul_shards_writer_add(w, ids, 10) == GEUL_OK && geul_shards_writer_commit(w, &files) == GEUL_OK);
    CHECK_INT(files, 3);
    w = geul_shards_writer_new(r.ctx, r.tok, prefix, 4);
    CHECK(geul_shards_writer_add(w, ids + 5, 5) == GEUL_OK && geul_shards_writer_commit(w, &files) == GEUL_ERROR_IO);
    CHECK_MSG(strstr(geul_error(r.ctx), "00002.geulshard exists"), "%s", geul_error(r.ctx));
    geul_error_clear(r.ctx);
    struct geul_shard *s = geul_shard_open(r.ctx, shard_path(prefix, 0));
    int32_t first = 0;
    if (CHECK(s))
        geul_shard_read(s, 0, 1, &first);
    CHECK_INT(first, 1); /* the old ones are intact */
    geul_shard_close(s);
    training_rig_close(&r);
}

/* The hash depends on the tokenizer, not on where it was read from. */
TEST(shards_know_their_tokenizer)
{
    struct training_rig r = training_rig_open();
    REQUIRE(r.tok);
    struct geul_tokenizer *json = geul_tokenizer_from_json(r.ctx, test_path("golden/full"));
    REQUIRE(json);
    char gguf[1024];
    snprintf(gguf, sizeof gguf, "%s", test_scratch("full.gguf"));
    struct test_run run = GEUL("convert", test_path("golden/full"), "-o", gguf, "--type", "f32");
    CHECK_INT(run.status, 0);
    test_run_free(&run);
    struct geul_tokenizer *again = geul_tokenizer_load(r.ctx, gguf, NULL);
    REQUIRE(again);
    struct geul_shard_kind a = geul_shard_kind_of(json), b = geul_shard_kind_of(again), c = geul_shard_kind_of(r.tok);
    CHECK(geul_shard_kinds_equal(&a, &b) && a.hash != c.hash);
    geul_tokenizer_free(json);
    geul_tokenizer_free(again);
    training_rig_close(&r);
}

TEST(shards_of_files)
{
    struct training_rig r = training_rig_open();
    REQUIRE(r.tok);
    char prefix[1024], jsonl[1024], text[1024];
    static const char rows[] =
        "{\"text\":\"첫째 <|endoftext|>\"}\n{\"bad\":1}\n{\"question\":\"q\",\"answer\":\"a\"}\n";
    snprintf(prefix, sizeof prefix, "%s", test_scratch("files"));
    snprintf(jsonl, sizeof jsonl, "%s", test_scratch("a.jsonl"));
    snprintf(text, sizeof text, "%s", test_scratch("b.txt"));
    test_spill(jsonl, rows, sizeof rows - 1);
    test_spill(text, "둘째\n", sizeof "둘째\n" - 1);
    struct geul_template *t = geul_template_new(r.ctx, "kgoat");
    struct geul_row_problems *problems = geul_row_problems_new(r.ctx);
    struct geul_shards_options o = {.size = sizeof o, .prompt_template = t, .shard_tokens = 10, .problems = problems};
    struct geul_shards_report report = {.size = sizeof report};
    const char *paths[] = {jsonl, text};
    REQUIRE(geul_shards_write(r.ctx, r.tok, paths, 2, prefix, &o, &report) == GEUL_OK);
    CHECK(report.documents == 3 && geul_row_problems_count(problems) == 1);
    CHECK(strstr(geul_row_problems_text(problems, 0), "a.jsonl:2: "));
    size_t n, length;
    int32_t *ids = read_all(r.ctx, prefix, report.files, 10, &n);
    CHECK_INT(n, report.tokens);
    int ends = 0;
    for (size_t i = 0; i < n; i++)
        ends += ids[i] == geul_token_end(r.tok);
    CHECK_INT(ends, 3);
    char *back = geul_detokenize(r.ctx, r.tok, ids, n, false, &length);
    CHECK_STR(back, "첫째 <|endoftext|><|endoftext|>q\n\n정답: a<|endoftext|>둘째<|endoftext|>");
    struct geul_dataset *d = geul_dataset_new(r.ctx);
    for (int i = 0; i < report.files; i++)
        CHECK(geul_dataset_add_shard(d, shard_path(prefix, i), 6) == GEUL_OK);
    CHECK(geul_dataset_check_tokenizer(r.ctx, d, r.tok) == GEUL_OK);
    CHECK_INT(geul_dataset_target_count(d), report.tokens - report.files);
    geul_dataset_free(d);
    geul_text_free(r.ctx, back);
    free(ids);
    geul_row_problems_free(problems);
    geul_template_free(t);
    training_rig_close(&r);
}

TEST(shards_survive_every_failing_allocation)
{
    struct training_rig r = training_rig_open();
    REQUIRE(r.tok);
    char prefix[1024], jsonl[1024];
    snprintf(prefix, sizeof prefix, "%s", test_scratch("f"));
    snprintf(jsonl, sizeof jsonl, "%s", test_scratch("f.jsonl"));
    static const char rows[] = "{\"text\":\"abc\"}\n{}\n{\"text\":\"d\"}\n";
    test_spill(jsonl, rows, sizeof rows - 1);
    const char *paths[] = {jsonl};
    struct test_shortage s = {.most = 200};
    while (test_shortage_next(&s)) {
        struct geul_row_problems *problems = geul_row_problems_new(s.ctx);
        struct geul_shards_options o = {.size = sizeof o, .shard_tokens = 3, .problems = problems};
        struct geul_shards_report report = {.size = sizeof report};
        s.ok = problems && geul_shards_write(s.ctx, r.tok, paths, 1, prefix, &o, &report) == GEUL_OK;
        CHECK(s.ok || access(shard_path(prefix, 0), F_OK) != 0);
        geul_row_problems_free(problems);
    }
    training_rig_close(&r);
}
