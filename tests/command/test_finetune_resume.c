/* test_finetune_resume.c: runs of `geul finetune` that are killed and resumed: the same bits as without. */
#include "tests/command/finetune_fixture.h"

#include "core/random.h"
#include "data/order.h"

/* Ways to train whose state is not the same. */
static const struct kind {
    const char *name, *result;
    const char *words[12];
} kinds[] = {
    {"lora", "adapter.gguf", {"-r", "4", "--lora-dropout", "0.1"}},
    {"lora8", "adapter.gguf", {"-r", "4", "--optimizer", "adamw8", "--precision", "f32", "--packing", "off"}},
    {"full", "model.gguf", {"--full", "--optimizer", "adamw"}},
    {"full8", "model.gguf", {"--full", "--optimizer", "adamw8", "--recompute", "full"}},
};

/* Checks that nothing a run leaves, except times, shows that it was killed. */
static void check_same_run(const char *dir, const char *other, const char *result, const char *const *checkpoints)
{
    check_same_file(dir, other, result);
    for (; *checkpoints; checkpoints++)
        check_same_file(dir, other, *checkpoints);
    check_same_logs(dir, other);
}

/* Kills a run five times at moments of chance, and lets it end. */
static void kill_five_times(struct words *w, const char *dir, long stride, uint64_t *seed)
{
    struct words more = *w;
    WORDS(&more, "--resume");
    for (int i = 0; i < 5; i++) {
        long step = stride * i + 1 + (long)(test_random(seed) % (uint64_t)stride);
        unsigned wait = (unsigned)(test_random(seed) % 4000);
        more.items[6] = i % 2 ? "2" : "1"; /* threads */
        long last = finetune_killed(i ? &more : w, dir, step, wait);
        printf("  %s: killed %u us after step %ld was seen; the log ends with step %ld\n", dir, wait, step, last);
        CHECK_MSG(last >= 0, "the run ended before it could be killed");
    }
    more.items[6] = "1";
    struct test_run r = finetune(&more);
    CHECK_MSG(r.status == 0, "%s", r.err);
    CHECK_MSG(!strstr(r.err, "warning"), "%s", r.err);
    test_run_free(&r);
}

static void check_kind(const struct kind *k)
{
    static const char *const checkpoints[] = {"checkpoint-00000030.gguf", "checkpoint-00000028.gguf", "best.gguf",
                                              NULL};
    char whole[600], killed[600];
    const char *model = fixture_model();
    REQUIRE(model);
    struct words w = finetune_words(model, finetune_rows("rows.jsonl", 70, 5));
    snprintf(whole, sizeof whole, "%s", test_scratch("whole"));
    snprintf(killed, sizeof killed, "%s", test_scratch("killed"));
    WORDS(&w, "--accumulate", "2", "--steps", "30", "--save-every", "4", "--eval-every", "7", "--held-out", "0.1",
          "--sample-every", "15");
    words_add(&w, k->words);
    struct words other = w;
    WORDS(&w, "-o", whole);
    WORDS(&other, "-o", killed);
    struct test_run r = finetune(&w);
    CHECK_MSG(r.status == 0, "%s", r.err);
    test_run_free(&r);
    uint64_t seed = 20240229;
    REQUIRE(strcmp(other.items[5], "-t") == 0);
    kill_five_times(&other, killed, 5, &seed);
    check_same_run(whole, killed, k->result, checkpoints);
}

TEST(finetune_killed_lora_resumes_the_same)
{
    check_kind(&kinds[0]);
}

TEST(finetune_killed_lora_with_adamw8_resumes_the_same)
{
    check_kind(&kinds[1]);
}

TEST(finetune_killed_full_resumes_the_same)
{
    check_kind(&kinds[2]);
}

TEST(finetune_killed_full_with_adamw8_resumes_the_same)
{
    check_kind(&kinds[3]);
}

/* ----------------------------------------------------------------------------------- trouble -- */

enum { N_ROWS = 100, SEED = 7 };

/* Rows that are all the same but those that come at steps from..from + n - 1, and `every` later, so many times in all,
 * of a run with one row a step. */
static const char *rows_with_garbage(int from, int n, int every, int times)
{
    static char path[1024];
    bool bad[N_ROWS] = {false};
    for (int i = 0; i < times; i++)
        for (int k = 0; k < n; k++)
            bad[geul_permute(geul_random_bits(SEED, 0), N_ROWS, from - 1 + i * every + k)] = true;
    snprintf(path, sizeof path, "%s", test_scratch("garbage.jsonl"));
    FILE *f = fopen(path, "w");
    for (int i = 0; f && i < N_ROWS; i++)
        if (bad[i])
            fprintf(f, "{\"question\": \"가\", \"answer\": \"zQ%dxW}~Kj@qX^vZ%d\"}\n", i, i * 7);
        else
            fprintf(f, "{\"question\": \"가\", \"answer\": \"나나나나나나나나\"}\n");
    CHECK(f && fclose(f) == 0);
    return path;
}

static struct words trouble_words(const char *rows)
{
    struct words w = finetune_words(fixture_model(), rows);
    WORDS(&w, "--template", "none", "-b", "1", "--packing", "off", "-s", "7", "--full", "--lr", "1e-2", "--schedule",
          "constant", "--warmup", "0", "--save-every", "4", "--eval-every", "0", "--steps", "96");
    return w;
}

/* Checks that a line of the log holds both texts. */
static void check_event(const char *log, const char *a, const char *b, int times)
{
    int n = 0;
    for (const char *line = log; *line;) {
        size_t length = strcspn(line, "\n");
        char text[4096];
        snprintf(text, sizeof text, "%.*s", (int)(length < sizeof text ? length : sizeof text - 1), line);
        n += strstr(text, a) && strstr(text, b);
        line += length + (line[length] == '\n');
    }
    CHECK_MSG(n == times, "%s, %s: %d times in the log, expected %d", a, b, n, times);
}

TEST(finetune_leaves_spikes_out_and_rewinds)
{
    static const char *const checkpoints[] = {"checkpoint-00000096.gguf", "checkpoint-00000092.gguf", NULL};
    char whole[600], killed[600];
    snprintf(whole, sizeof whole, "%s", test_scratch("whole"));
    snprintf(killed, sizeof killed, "%s", test_scratch("killed"));
    struct words w = trouble_words(rows_with_garbage(61, 6, 0, 1)), other = w;
    WORDS(&w, "-o", whole);
    WORDS(&other, "-o", killed);
    struct test_run r = finetune(&w);
    CHECK_MSG(r.status == 0, "%s", r.err);
    test_run_free(&r);
    char *log = test_slurp(in(whole, "log.jsonl"), NULL);
    REQUIRE(log);
    check_event(log, "\"kind\":\"loss spike\"", "\"step\":61", 1);
    check_event(log, "\"kind\":\"loss spike\"", "\"event\"", 6);
    check_event(log, "\"skipped\":true", "\"step\"", 6);
    /* Step 64's checkpoint was written while steps were left out; it is not the one to rewind to. */
    check_event(log, "\"kind\":\"rewind\"", "rewound to the weights of step 60", 1);
    check_event(log, "\"kind\":\"rewind\"", "\"step\":65", 1);
    free(log);
    struct words more = other;
    WORDS(&more, "--resume");
    static const long steps[] = {59, 62, 64, 65, 67};
    for (int i = 0; i < 5; i++)
        printf("  killed after step %ld\n", finetune_killed(i ? &more : &other, killed, steps[i], 300));
    r = finetune(&more);
    CHECK_MSG(r.status == 0, "%s", r.err);
    test_run_free(&r);
    check_same_run(whole, killed, "model.gguf", checkpoints);
}

TEST(finetune_gives_up_after_three_rewinds)
{
    char dir[600];
    snprintf(dir, sizeof dir, "%s", test_scratch("run"));
    struct words w = trouble_words(rows_with_garbage(61, 5, 8, 4));
    WORDS(&w, "-o", dir);
    check_stops("four times garbage", finetune(&w), 1,
                "5 steps in a row up to step 89 could not be used, after 3 rewinds");
    char *log = test_slurp(in(dir, "log.jsonl"), NULL);
    REQUIRE(log);
    check_event(log, "\"kind\":\"rewind\"", "\"event\"", 3);
    check_event(log, "\"kind\":\"stopped\"", "\"event\"", 1);
    free(log);
    WORDS(&w, "--resume");
    check_stops("the same again", finetune(&w), 1, "5 steps in a row up to step 89 could not be used, after 3 rewinds");
}
