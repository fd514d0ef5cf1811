/* test_outputs.c: what outputs must not do: replace an input of the run under any of its names, start where there is no
 * room, leave temporary files, or take those of living processes. */
#include "core/os.h"
#include "tests/command/command_fixture.h"

#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* The test's own directory, with a model, a Hugging Face directory, an adapter in both forms, texts and rows. */
struct bench {
    char dir[512], model[600], hf[600], peft[600], adapter[600], text[600], rows[600], imatrix[600];
};

/* "dir/name"; storage for as long as a test needs it. */
static const char *in(const char *dir, const char *name)
{
    static char paths[64][1200];
    static int next;
    char *path = paths[next++ % 64];
    size_t n = strlen(dir), m = strlen(name);
    if (CHECK(n + m + 2 <= sizeof paths[0])) {
        memcpy(path, dir, n);
        path[n] = '/';
        memcpy(path + n + 1, name, m + 1);
    }
    return path;
}

static void copy_directory(const char *from, const char *to)
{
    DIR *d = opendir(from);
    CHECK(d && mkdir(to, 0700) == 0);
    for (struct dirent *e; d && (e = readdir(d));) {
        size_t size;
        char *bytes = e->d_name[0] == '.' ? NULL : test_slurp(in(from, e->d_name), &size);
        CHECK(e->d_name[0] == '.' || (bytes && test_spill(in(to, e->d_name), bytes, size)));
        free(bytes);
    }
    if (d)
        closedir(d);
}

static bool runs(struct test_run r)
{
    bool ok = CHECK_MSG(r.status == 0, "exit code %d: %s", r.status, r.err);
    test_run_free(&r);
    return ok;
}

static bool bench_open(struct bench *b)
{
    snprintf(b->dir, sizeof b->dir, "%s", test_scratch("bench"));
    if (!CHECK(mkdir(b->dir, 0700) == 0))
        return false;
    char *const paths[] = {b->model, b->hf, b->peft, b->adapter, b->text, b->rows, b->imatrix};
    static const char *const names[] = {"m.gguf", "hf", "peft", "a.gguf", "t.txt", "rows.jsonl", "im.gguf"};
    static const char text[] = "가나다 라마바 사아자 차카타 파하 한국의 수도는 서울이다. 안녕하세요.\n";
    static const char rows[] = "{\"text\": \"안녕하세요. 반갑습니다.\"}\n{\"text\": \"한국의 수도는 서울이다.\"}\n";
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        snprintf(paths[i], 600, "%s/%s", b->dir, names[i]);
    copy_directory(test_path("golden/full"), b->hf);
    copy_directory(test_path("golden/peft_plain"), b->peft);
    return CHECK(test_spill(b->text, text, sizeof text - 1)) && CHECK(test_spill(b->rows, rows, sizeof rows - 1)) &&
           runs(GEUL("convert", b->hf, "-o", b->model, "--type", "f32")) &&
           runs(GEUL("convert", b->peft, "-o", b->adapter, "--base", b->model)) &&
           runs(GEUL("imatrix", "-m", b->model, "-f", b->text, "-c", "16", "-o", b->imatrix));
}

/* Names in the directory that hold `part`. */
static int count_names(const char *dir, const char *part)
{
    int n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));)
        n += strstr(e->d_name, part) != NULL;
    if (d)
        closedir(d);
    return n;
}

/* Checks that the command refuses to replace the file, leaves its bytes alone and nothing beside it. */
static void spares(const struct bench *b, const char *victim, const char *const *argv)
{
    size_t n[2] = {0, 0};
    char *before = test_slurp(victim, &n[0]);
    struct test_run r = test_geul(argv, NULL, 0);
    char *after = test_slurp(victim, &n[1]);
    CHECK_MSG(before && after && n[0] == n[1] && memcmp(before, after, n[0]) == 0, "%s %s: %s was changed", argv[0],
              argv[1], victim);
    CHECK_MSG(r.status == 1, "%s %s onto %s: exit code %d: %s", argv[0], argv[1], victim, r.status, r.err);
    CHECK_MSG(strstr(r.err, "it is the input itself"), "%s %s onto %s: %s", argv[0], argv[1], victim, r.err);
    CHECK_MSG(!strstr(r.err, ".tmp"), "a temporary name in: %s", r.err);
    CHECK_INT(count_names(b->dir, ".tmp") + count_names(b->hf, ".tmp") + count_names(b->peft, ".tmp"), 0);
    free(before);
    free(after);
    test_run_free(&r);
}
#define SPARES(victim, ...) spares(&b, victim, (const char *const[]){__VA_ARGS__, NULL})

TEST(outputs_spare_models_texts_and_matrices)
{
    struct bench b;
    REQUIRE(bench_open(&b));
    SPARES(b.model, "imatrix", "-m", b.model, "-f", b.text, "-c", "16", "-o", b.model);
    SPARES(b.text, "imatrix", "-m", b.model, "-f", b.text, "-c", "16", "-o", b.text);
    SPARES(b.model, "logits", "-m", b.model, "--ids", "1 2", "-o", b.model);
    SPARES(b.text, "logits", "-m", b.model, "-f", b.text, "-o", b.text);
    SPARES(b.adapter, "logits", "-m", b.model, "--lora", b.adapter, "--ids", "1", "-o", b.adapter);
    SPARES(b.model, "quantize", b.model, b.model, "q8_0");
    SPARES(b.imatrix, "quantize", b.model, b.imatrix, "q4_0", "--imatrix", b.imatrix);
    SPARES(b.model, "merge", "-m", b.model, "--lora", b.adapter, "-o", b.model);
    SPARES(b.adapter, "merge", "-m", b.model, "--lora", b.adapter, "-o", b.adapter);
    const char *config = in(b.hf, "config.json"), *weights = in(b.peft, "adapter_model.safetensors");
    char synth[1300];
    snprintf(synth, sizeof synth, "%s:f32", config);
    SPARES(config, "synth", synth, "-o", config);
    SPARES(weights, "merge", "-m", b.model, "--lora", b.peft, "-o", weights);
}

TEST(outputs_spare_directories)
{
    static const char *const files[] = {"config.json",           "model-00001-of-00002.safetensors",
                                        "tokenizer.json",        "model.safetensors.index.json",
                                        "tokenizer_config.json", "vocab.json"};
    struct bench b;
    REQUIRE(bench_open(&b));
    REQUIRE(test_spill(in(b.hf, "vocab.json"), "{}", 2)); /* nothing reads it beside tokenizer.json */
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        const char *victim = in(b.hf, files[i]);
        SPARES(victim, "convert", b.hf, "-o", victim);
    }
    const char *config = in(b.peft, "adapter_config.json"), *base = in(b.hf, "config.json");
    SPARES(config, "convert", b.peft, "-o", config, "--base", b.model);
    SPARES(base, "convert", b.peft, "-o", base, "--base", b.hf);
    /* an adapter is exported into a directory whose weights are a link to it */
    const char *linked = in(b.dir, "linked");
    REQUIRE(mkdir(linked, 0700) == 0 && link(b.adapter, in(linked, "adapter_model.safetensors")) == 0);
    SPARES(b.adapter, "export", b.adapter, linked, "--base", b.model);
    SPARES(b.model, "export", b.model, (link(b.model, in(linked, "model.safetensors")), linked));
    CHECK_INT(count_names(linked, "config.json"), 0); /* nothing of the set appeared */
}

TEST(outputs_spare_data)
{
    struct bench b;
    REQUIRE(bench_open(&b));
    const char *rows = in(b.dir, "s-00000.geulshard"), *prefix = in(b.dir, "s");
    REQUIRE(rename(b.rows, rows) == 0);
    char *text = test_slurp(rows, &(size_t){0});
    /* rows by that name are JSON Lines all the same: the name of a shard is what the output takes */
    REQUIRE(text && test_spill(b.rows, text, strlen(text)) && unlink(rows) == 0 && link(b.rows, rows) == 0);
    free(text);
    SPARES(b.rows, "tokenize", "-m", b.model, "--shards", prefix, b.rows);
    const char *run = in(b.dir, "run"), *log = in(run, "log.jsonl");
    REQUIRE(mkdir(run, 0700) == 0 && link(b.rows, log) == 0);
    SPARES(b.rows, "finetune", "-m", b.model, "--train-file", b.rows, "-o", run, "--steps", "1", "-c", "32",
           "--template", "none");
    const char *base = in(b.dir, "korean.base");
    REQUIRE(symlink(b.model, base) == 0);
    struct test_run r = GEUL("perplexity", "-m", b.model, "-f", b.text, "--kl-base", base);
    CHECK_INT(r.status, 1); /* what exists is read, and is no base */
    test_run_free(&r);
}

TEST(outputs_spare_links_and_parts)
{
    struct bench b;
    REQUIRE(bench_open(&b));
    const char *soft = in(b.dir, "soft.gguf"), *hard = in(b.dir, "hard.gguf");
    REQUIRE(symlink(b.model, soft) == 0 && link(b.model, hard) == 0);
    SPARES(b.model, "quantize", b.model, soft, "q8_0");
    SPARES(b.model, "quantize", soft, b.model, "q8_0");
    SPARES(b.model, "quantize", b.model, hard, "q8_0");
    struct test_kept first = test_keep(in(b.dir, "p-00001-of-00003.gguf"));
    struct test_kept last = test_keep(in(b.dir, "p-00003-of-00003.gguf"));
    const char *part = in(b.dir, "p.gguf");
    runs(GEUL("quantize", b.model, part, "f32", "--split-max-tensors", "13"));
    REQUIRE(access(first.text, R_OK) == 0 && access(last.text, R_OK) == 0);
    SPARES(last.text, "quantize", first.text, last.text, "q8_0");
    SPARES(last.text, "quantize", first.text, in(b.dir, "p.gguf"), "q8_0", "--keep-split");
    SPARES(last.text, "imatrix", "-m", first.text, "-f", b.text, "-c", "16", "-o", last.text);
}

TEST(outputs_that_may_replace_files)
{
    struct bench b;
    REQUIRE(bench_open(&b));
    const char *other = in(b.dir, "m2.gguf"), *copy = in(b.hf, "m.gguf");
    for (int i = 0; i < 2; i++) { /* an older result is no input, not even in the directory that is converted */
        runs(GEUL("quantize", b.model, other, "q8_0"));
        runs(GEUL("convert", b.hf, "-o", copy));
        runs(GEUL("export", b.model, in(b.dir, "out")));
        runs(GEUL("imatrix", "--in-file", b.imatrix, "-o", b.imatrix));
    }
    struct geul_context *ctx = geul_context_new(NULL);
    REQUIRE(ctx);
    struct geul_map map;
    REQUIRE(geul_os_map(ctx, other, &map) == GEUL_OK);
    CHECK(geul_outfile_check(ctx, other) == GEUL_ERROR_ARGUMENT);
    CHECK(strstr(geul_error(ctx), "it is the input itself"));
    geul_error_clear(ctx);
    geul_os_unmap(&map);
    CHECK(geul_outfile_check(ctx, other) == GEUL_OK); /* a host that closed it may replace it */
    geul_inputs_begin(ctx);
    REQUIRE(geul_os_map(ctx, other, &map) == GEUL_OK);
    geul_os_unmap(&map);
    CHECK(geul_outfile_check(ctx, other) == GEUL_ERROR_ARGUMENT); /* but not within the run that read it */
    geul_error_clear(ctx);
    geul_os_forget_input(ctx, other);
    CHECK(geul_outfile_check(ctx, other) == GEUL_OK);
    geul_inputs_end(ctx);
    geul_context_free(ctx);
}
