/* test_finetune_trouble.c: `geul finetune` on a full disk, with bad data, bad weights and bad options: one clear line,
 * and nothing that was computed is lost. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* unshare */
#endif
#include "core/gguf.h"
#include "models/neox.h"
#include "tests/command/finetune_fixture.h"

#include <dirent.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

/* A run of all weights, whose checkpoints are 580 KB. */
static struct words disk_words(const char *dir)
{
    static char model[1024];
    snprintf(model, sizeof model, "%s", fixture_model());
    struct words w = finetune_words(model, finetune_rows("rows.jsonl", 50, 3));
    WORDS(&w, "--full", "--schedule", "constant", "--warmup", "0", "--steps", "20", "--save-every", "4", "--eval-every",
          "0", "-o", dir);
    return w;
}

static void check_ends_well(const struct words *w)
{
    struct test_run r = finetune(w);
    CHECK_MSG(r.status == 0, "exit code %d: %s", r.status, r.err);
    test_run_free(&r);
}

/* Checks that no temporary file is left. */
static void check_tidy(const char *dir)
{
    DIR *d = opendir(dir);
    REQUIRE(d != NULL);
    for (struct dirent *e; (e = readdir(d));)
        CHECK_MSG(!strstr(e->d_name, ".tmp"), "%s was left behind", e->d_name);
    closedir(d);
}

/* --------------------------------------------------------------------------------- full disk -- */

/* Files that this process and the command write may not grow beyond it. */
static void limit_files(rlim_t bytes)
{
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_FSIZE, &limit) == 0);
    limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

/* Runs with the limit and checks that it stops, names the file and says what to do. */
static void check_limited(const struct words *w, rlim_t bytes, const char *file, const char *advice)
{
    limit_files(bytes);
    struct test_run r = finetune(w);
    limit_files(RLIM_INFINITY);
    CHECK_MSG(strstr(r.err, file), "%s is not in %s", file, r.err);
    CHECK_MSG(strstr(r.err, "File too large"), "%s", r.err);
    check_stops("limited", r, 1, advice);
}

static long file_bytes(const char *path)
{
    size_t size = 0;
    free(test_slurp(path, &size));
    return (long)size;
}

TEST(finetune_disk_full_while_saving)
{
    char whole[600], dir[600], kept[600];
    size_t size;
    snprintf(whole, sizeof whole, "%s", test_scratch("whole"));
    snprintf(dir, sizeof dir, "%s", test_scratch("run"));
    snprintf(kept, sizeof kept, "%s", test_scratch("kept/"));
    struct words w = disk_words(whole);
    check_ends_well(&w);
    w.items[w.n - 1] = dir;
    check_limited(&w, 100000, "checkpoint-00000004.gguf", "no checkpoint was written yet: make room there");
    CHECK(finetune_last_step(dir) == 4);
    check_tidy(dir);
    /* What is left of the run that came to nothing does not block the next one. */
    printf("  killed after step %ld\n", finetune_killed(&w, dir, 9, 0));
    WORDS(&w, "--resume");
    char *before = test_slurp(in(dir, "checkpoint-00000008.gguf"), &size);
    REQUIRE(before && test_spill(in(kept, "checkpoint-00000008.gguf"), before, size));
    free(before);
    check_limited(&w, 300000, "checkpoint-00000012.gguf",
                  "everything up to step 8 is safe: make room there, and --resume continues");
    check_same_file(dir, kept, "checkpoint-00000008.gguf");
    check_tidy(dir);
    check_ends_well(&w);
    check_same_file(dir, whole, "model.gguf");
    check_same_file(dir, whole, "checkpoint-00000020.gguf");
    check_same_logs(dir, whole);
}

TEST(finetune_disk_full_while_logging)
{
    char whole[600], dir[600];
    snprintf(whole, sizeof whole, "%s", test_scratch("whole"));
    snprintf(dir, sizeof dir, "%s", test_scratch("run"));
    struct words w = disk_words(whole);
    check_ends_well(&w);
    w.items[w.n - 1] = dir;
    struct words begun = w;
    WORDS(&begun, "--steps", "8");
    check_ends_well(&begun);
    WORDS(&w, "--resume");
    /* The log is rewritten up to step 8; what tells of resuming and of more steps fits, the next row does not. */
    long csv = file_bytes(in(dir, "log.csv")), jsonl = file_bytes(in(dir, "log.jsonl"));
    check_limited(&w, (rlim_t)jsonl + 260, "log.jsonl", "everything up to step 8 is safe");
    CHECK(finetune_last_step(dir) > 8);
    check_limited(&w, (rlim_t)csv / 2, "cannot write", "log.csv"); /* not even the rows that exist already fit */
    check_tidy(dir);
    check_ends_well(&w);
    check_same_file(dir, whole, "model.gguf");
    check_same_logs(dir, whole);
}

TEST(finetune_disk_full_of_a_small_disk)
{
    char whole[600], disk[600], dir[700];
    snprintf(whole, sizeof whole, "%s", test_scratch("whole"));
    snprintf(disk, sizeof disk, "%s", test_scratch("disk/"));
    snprintf(dir, sizeof dir, "%s/run", disk);
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("geul", disk, "tmpfs", 0, "size=1400k") != 0) {
        test_skip("only root may mount a small disk");
        return;
    }
    struct words w = disk_words(whole);
    check_ends_well(&w);
    w.items[w.n - 1] = dir;
    struct test_run r = finetune(&w); /* two checkpoints fit, the third does not */
    CHECK_MSG(strstr(r.err, "checkpoint-00000012.gguf: No space left on device"), "%s", r.err);
    check_stops("small disk", r, 1, "everything up to step 8 is safe: make room there, and --resume continues");
    check_tidy(dir);
    CHECK(unlink(in(dir, "checkpoint-00000004.gguf")) == 0);
    WORDS(&w, "--resume", "--keep", "1");
    check_ends_well(&w);
    check_same_file(dir, whole, "model.gguf");
    check_same_file(dir, whole, "checkpoint-00000020.gguf");
    check_same_logs(dir, whole);
}

/* ---------------------------------------------------------------------------------- bad data -- */

#define GOOD "{\"question\": \"가\", \"answer\": \"나다\"}\n"

/* A file, the words added to the command, and the outcome: exit code, a part of the last line on stderr, and a part
 * of any line; NULL: nothing is looked for. */
static const struct bad {
    const char *what, *data;
    const char *words[8];
    int status;
    const char *last, *any;
} bads[] = {
    {"empty file", "", {NULL}, 1, "bad.jsonl holds no rows: it is empty", NULL},
    {"blank lines", "\n\n  \n", {NULL}, 1, "bad.jsonl holds no rows", NULL},
    {"wrong keys",
     "{\"frage\": \"a\", \"antwort\": \"b\"}\n",
     {NULL},
     1,
     "bad.jsonl:1: its keys are frage, antwort",
     NULL},
    {"one wrong row", GOOD "{\"question\": \"a\"}\n" GOOD, {NULL}, 0, NULL, "bad.jsonl:2: "},
    {"invalid UTF-8", GOOD GOOD "{\"question\": \"a\", \"answer\": \"b\xff\"}\n", {NULL}, 0, NULL, "bad.jsonl:3: "},
    {"only invalid UTF-8", "{\"question\": \"a\", \"answer\": \"b\xff\"}\n", {NULL}, 1, "bad.jsonl:1: ", NULL},
    {"no JSON", GOOD "hello\n", {NULL}, 0, NULL, "bad.jsonl:2: "},
    {"a cut array", "[{\"question\": \"a\", \"answer\": \"b\"},\n", {NULL}, 1, "bad.jsonl:2: not valid JSON", NULL},
    {"numbers", GOOD "{\"question\": 1, \"answer\": \"b\"}\n", {NULL}, 0, NULL, "bad.jsonl:2: "},
    {"empty answer", GOOD "{\"question\": \"a\", \"answer\": \"\"}\n", {NULL}, 0, NULL, "bad.jsonl:2: "},
    {"too long, cut",
     GOOD "{\"question\": \"a\", \"answer\": \"가나다라마바사아자차카타파하\"}\n",
     {"-c", "12", "--template", "none"},
     0,
     NULL,
     "1 rows are longer than the context (the first is"},
    {"too long, skipped",
     GOOD "{\"question\": \"a\", \"answer\": \"가나다라마바사아자차카타파하\"}\n",
     {"-c", "12", "--template", "none", "--too-long", "skip"},
     0,
     NULL,
     "1 samples"},
    {"too long, refused",
     GOOD "{\"question\": \"a\", \"answer\": \"가나다라마바사아자차카타파하\"}\n",
     {"-c", "12", "--template", "none", "--too-long", "refuse"},
     1,
     "bad.jsonl:2: the sample has ",
     NULL},
    {"all too long",
     "{\"question\": \"a\", \"answer\": \"가나다라마바사아자차카타파하\"}\n",
     {"-c", "8", "--template", "none", "--too-long", "skip"},
     1,
     "no row can be used",
     NULL},
    {"question too long",
     GOOD "{\"question\": \"가나다라마바사아자차카타파하\", \"answer\": \"a\"}\n",
     {"-c", "10", "--template", "none"},
     0,
     NULL,
     "bad.jsonl:2: the question alone fills the context"},
    {"evaluation file missing", GOOD, {"--eval-file", "/no/such/file"}, 1, "/no/such/file", NULL},
    {"evaluation file without rows", GOOD, {"--eval-file", "/dev/null"}, 1, "/dev/null", NULL},
    {"no such target", GOOD, {"--lora-targets", "qkv,fun"}, 2, "\"fun\" is not one of qkv, out, up, down", NULL},
    {"no target", GOOD, {"--lora-targets", ","}, 2, "--lora-targets", NULL},
    {"rank below 0", GOOD, {"--rank", "-1"}, 2, "--rank", NULL},
    {"rank too large", GOOD, {"--rank", "5000"}, 2, "--rank", NULL},
    {"rank larger than the matrices", GOOD, {"--rank", "33"}, 0, NULL, "rank is at most 32"},
    {"context larger than the model's", GOOD, {"-c", "129"}, 0, NULL, "the model has only seen 128 positions"},
    {"batch below 0", GOOD, {"-b", "-1"}, 2, "-b", NULL},
    {"far too large a batch", GOOD, {"-b", "65536", "-c", "1000"}, 1, "too many for one batch", NULL},
    {"rate not a number", GOOD, {"--lr", "nan"}, 2, "--lr", NULL},
    {"negative rate", GOOD, {"--lr", "-1"}, 2, "--lr", NULL},
    {"beta 1", GOOD, {"--beta1", "1"}, 1, "beta1 is 1", NULL},
    {"epsilon 0", GOOD, {"--epsilon", "0"}, 1, "epsilon is 0", NULL},
    {"no such optimizer", GOOD, {"--optimizer", "sgdm"}, 2, "--optimizer", NULL},
    {"no such template", GOOD, {"--template", "vicuna"}, 1, "vicuna", NULL},
};

static const char *spill(const char *name, const char *data)
{
    static char path[1024];
    snprintf(path, sizeof path, "%s", test_scratch(name));
    CHECK(test_spill(path, data, strlen(data)));
    return path;
}

TEST(finetune_bad_data_and_options)
{
    char dir[600], name[32], good[1024];
    const char *model = fixture_model();
    REQUIRE(model);
    snprintf(good, sizeof good, "%s", spill("good.jsonl", GOOD));
    for (size_t i = 0; i < sizeof bads / sizeof *bads; i++) {
        const struct bad *b = &bads[i];
        snprintf(name, sizeof name, "run%zu", i);
        snprintf(dir, sizeof dir, "%s", test_scratch(name));
        struct words w = finetune_words(model, spill("bad.jsonl", b->data));
        WORDS(&w, "--steps", "2", "-o", dir);
        words_add(&w, b->words);
        struct test_run r = finetune(&w);
        if (b->any)
            CHECK_MSG(strstr(r.err, b->any), "%s: \"%s\" is not in %s", b->what, b->any, r.err);
        if (b->last) {
            check_stops(b->what, r, b->status, b->last);
        } else {
            CHECK_MSG(r.status == b->status, "%s: exit code %d; %s", b->what, r.status, r.err);
            test_run_free(&r);
        }
        if (b->status == 0)
            continue;
        w = finetune_words(model, good); /* a second try is not blocked */
        WORDS(&w, "--steps", "1", "-o", dir);
        check_ends_well(&w);
    }
}

/* ------------------------------------------------------------------------------- bad outputs -- */

TEST(finetune_does_not_overwrite_a_run)
{
    char dir[600];
    snprintf(dir, sizeof dir, "%s", test_scratch("run"));
    const char *model = fixture_model();
    REQUIRE(model);
    struct words w = finetune_words(model, spill("good.jsonl", GOOD));
    WORDS(&w, "--steps", "2", "-o", dir);
    check_ends_well(&w);
    check_stops("an older run", finetune(&w), 1, "checkpoint-00000002.gguf exists already");
    CHECK(unlink(in(dir, "checkpoint-00000001.gguf")) == 0 && unlink(in(dir, "checkpoint-00000002.gguf")) == 0);
    check_stops("an older result", finetune(&w), 1, "adapter.gguf exists already");
    WORDS(&w, "--resume");
    struct test_run r = finetune(&w);
    CHECK_MSG(r.status == 0 && strstr(r.err, "holds no checkpoint; the run starts from the beginning"), "%s", r.err);
    test_run_free(&r);
}

TEST(finetune_output_that_cannot_be_written)
{
    char file[600], below[700];
    const char *model = fixture_model();
    REQUIRE(model);
    snprintf(file, sizeof file, "%s", spill("file", "x"));
    snprintf(below, sizeof below, "%s/run", file);
    struct words w = finetune_words(model, spill("good.jsonl", GOOD));
    WORDS(&w, "--steps", "2", "-o", file);
    check_stops("a file", finetune(&w), 1, "cannot make the directory");
    w.items[w.n - 1] = below;
    check_stops("below a file", finetune(&w), 1, "cannot make the directory");
    w.items[w.n - 1] = "/no/such/place";
    check_stops("nowhere", finetune(&w), 1, "cannot make the directory /no/such/place");
}

/* A damaged checkpoint is named, and without it the run continues from the one before. */
TEST(finetune_damaged_checkpoint)
{
    char dir[600];
    size_t size;
    snprintf(dir, sizeof dir, "%s", test_scratch("run"));
    const char *model = fixture_model();
    REQUIRE(model);
    struct words w = finetune_words(model, finetune_rows("rows.jsonl", 20, 3));
    WORDS(&w, "--steps", "6", "--save-every", "2", "-o", dir, "--resume");
    check_ends_well(&w);
    char *whole = test_slurp(in(dir, "checkpoint-00000006.gguf"), &size);
    REQUIRE(whole && test_spill(in(dir, "checkpoint-00000006.gguf"), whole, size / 2));
    check_stops("half a checkpoint", finetune(&w), 1, "without this file --resume continues from step 4");
    CHECK(unlink(in(dir, "checkpoint-00000006.gguf")) == 0);
    check_ends_well(&w);
    size_t again;
    char *same = test_slurp(in(dir, "checkpoint-00000006.gguf"), &again);
    CHECK(same && again == size && memcmp(same, whole, size) == 0);
    free(same);
    free(whole);
    w.items[w.n++] = "--rank";
    w.items[w.n++] = "3";
    w.items[w.n] = NULL;
    check_stops("another rank", finetune(&w), 1, "belongs to another model or other options");
}

TEST(finetune_model_without_a_tokenizer_and_foreign_shards)
{
    char dir[600], model[600], shard[600];
    snprintf(dir, sizeof dir, "%s", test_scratch("run"));
    snprintf(model, sizeof model, "%s", test_scratch("parallel.gguf"));
    struct test_run r = GEUL("convert", test_path("golden/parallel"), "-o", model, "--type", "f32");
    CHECK_MSG(r.status == 0, "%s", r.err);
    test_run_free(&r);
    struct words w = finetune_words(model, spill("good.jsonl", GOOD));
    WORDS(&w, "--steps", "2", "-o", dir);
    check_stops("no tokenizer", finetune(&w), 1, "has no tokenizer");
    snprintf(shard, sizeof shard, "%s", test_scratch("mini"));
    r = GEUL("tokenize", "-m", test_mini_model(), "--shards", shard, spill("text.txt", "가나다 라마바"));
    CHECK_MSG(r.status == 0, "%s", r.err);
    test_run_free(&r);
    snprintf(shard, sizeof shard, "%s", test_scratch("mini-00000.geulshard"));
    snprintf(model, sizeof model, "%s", fixture_model());
    w = finetune_words(model, shard);
    WORDS(&w, "--steps", "2", "-o", dir);
    check_stops("foreign shards", finetune(&w), 1, "tokenizer");
    CHECK(!exists(in(dir, "log.csv")));
}

/* ------------------------------------------------------------------------------- bad weights -- */

/* Writes NaN into the first value of a tensor of a model file; a q8_0 block begins with its scale as f16. */
static void poison_file(const char *path, const char *tensor)
{
    static const uint8_t nan32[4] = {0, 0, 0xc0, 0x7f}, nan16[2] = {0, 0x7e}, nanb[2] = {0xc0, 0x7f};
    size_t size;
    char *data = test_slurp(path, &size);
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_gguf *g = data ? geul_gguf_open_memory(ctx, data, size, path) : NULL;
    const struct geul_gguf_tensor *t = g ? geul_gguf_find_tensor(g, tensor) : NULL;
    if (CHECK_MSG(t != NULL, "%s: %s", tensor, geul_error(ctx))) {
        size_t at = (size_t)((const char *)t->data - data);
        const uint8_t *nan = t->type == GEUL_TYPE_F32 ? nan32 : t->type == GEUL_TYPE_BF16 ? nanb : nan16;
        memcpy(data + at, nan, t->type == GEUL_TYPE_F32 ? 4 : 2);
        test_spill(path, data, size);
    }
    geul_gguf_close(g);
    geul_context_free(ctx);
    free(data);
}

/* A run to step 4, whose model is then poisoned: --resume and a fresh run name the tensor, and the checkpoint stays. */
static void check_poisoned(const char *type, const char *tensor, bool full)
{
    char model[600], dir[640], fresh[640], name[96], what[160];
    size_t size, after;
    snprintf(name, sizeof name, "%s-%s-%d.gguf", type, tensor, full);
    snprintf(model, sizeof model, "%s", test_scratch(name));
    snprintf(dir, sizeof dir, "%s.run", model);
    snprintf(fresh, sizeof fresh, "%s.fresh", model);
    struct test_run r = GEUL("convert", test_path("golden/full"), "-o", model, "--type", type);
    CHECK_MSG(r.status == 0, "%s", r.err);
    test_run_free(&r);
    struct words w = finetune_words(model, finetune_rows("rows.jsonl", 40, 8));
    WORDS(&w, "--eval-every", "0", "-o", dir, full ? "--full" : "--rslora", "--steps", "4");
    check_ends_well(&w);
    poison_file(model, tensor);
    snprintf(what, sizeof what, "%s, %s%s", type, tensor, full ? ", all weights" : "");
    snprintf(name, sizeof name, "the weight %s holds NaN", tensor);
    char *before = test_slurp(in(dir, "checkpoint-00000004.gguf"), &size);
    w.items[w.n - 1] = "8";
    WORDS(&w, "--resume", "--save-every", "5");
    if (full) { /* the weights are the checkpoint's */
        check_ends_well(&w);
    } else {
        r = finetune(&w);
        CHECK_MSG(strstr(r.err, name), "%s: %s", what, r.err);
        check_stops(what, r, 1, "but the last checkpoint is intact");
        char *still = test_slurp(in(dir, "checkpoint-00000004.gguf"), &after);
        CHECK(before && still && after == size && memcmp(before, still, size) == 0);
        free(still);
    }
    free(before);
    w = finetune_words(model, finetune_rows("rows.jsonl", 40, 8));
    WORDS(&w, "--eval-every", "0", "-o", fresh, full ? "--full" : "--rslora", "--steps", "4");
    for (int i = 0; i < 2; i++) /* what the first try leaves does not block the second */
        check_stops(what, finetune(&w), 1, name);
    CHECK(exists(in(fresh, "log.csv")) && !exists(in(fresh, "checkpoint-00000004.gguf")));
}

TEST(finetune_nan_in_the_model)
{
    static const char *const types[] = {"f32", "f16", "bf16", "q8_0"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        check_poisoned(types[i], "blk.1.ffn_up.weight", false);
        check_poisoned(types[i], "blk.0.attn_qkv.weight", true);
    }
    check_poisoned("f32", "blk.0.attn_norm.bias", false);
    check_poisoned("q8_0", "output_norm.weight", false);
}

/* The one place where words of models/neox.def are written out a second time. */
TEST(finetune_help_names_every_target)
{
    struct test_run r = GEUL("finetune", "--help");
    const char *row = strstr(r.out, "--lora-targets"), *end = row ? strstr(row, "(default") : NULL;
    REQUIRE(end);
    for (int t = 0; t < GEUL_NEOX_TARGETS; t++) {
        const char *word = geul_neox_target_word((enum geul_neox_target)t), *found = strstr(row, word);
        CHECK_MSG(found && found < end, "--lora-targets does not name %s", word);
    }
    test_run_free(&r);
}
