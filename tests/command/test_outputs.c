/* test_outputs.c: what outputs must not do: replace an input of the run under any of its names, start where there is no
 * room, leave temporary files, or take those of living processes. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* unshare */
#endif
#include "core/os.h"
#include "tests/command/command_fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mount.h>
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

/* ----------------------------------------------------------------------- signals and the dead -- */

/* Starts the command with its output discarded. */
static pid_t start(const char *const *argv)
{
    const char *words[24] = {"geul"};
    for (int i = 0; argv[i] && i < 22; i++)
        words[i + 1] = argv[i];
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        freopen("/dev/null", "w", stdout);
        freopen("/dev/null", "w", stderr);
        signal(SIGHUP, SIG_DFL); /* nohup has it ignored, and geul leaves it so */
        execv(GEUL_BINARY, (char *const *)(uintptr_t)words);
        _exit(127);
    }
    return pid;
}

/* Sends the signal as soon as the command has a temporary file in dir, `times` times. Returns the exit code. */
static int interrupt(const char *const *argv, const char *dir, int number, int times)
{
    int status = 0;
    pid_t pid = start(argv);
    while (count_names(dir, ".tmp") == 0 && waitpid(pid, &status, WNOHANG) == 0)
        usleep(200);
    for (int i = 0; i < times; i++)
        kill(pid, number);
    if (waitpid(pid, &status, 0) < 0)
        CHECK_MSG(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s ended before it could be stopped", argv[0]);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* Checks that a writer stops and leaves nothing. It may be faster than the signal: then it is tried again. */
static void stops(const char *const *argv, const char *dir)
{
    static const struct {
        int number, times;
    } cases[] = {{SIGINT, 1}, {SIGTERM, 1}, {SIGHUP, 1}, {SIGINT, 3}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int code = 0;
        for (int attempt = 0; code == 0 && attempt < 10; attempt++)
            code = interrupt(argv, dir, cases[i].number, cases[i].times);
        CHECK_MSG(code == 128 + cases[i].number, "%s, signal %d, %d times: exit code %d", argv[0], cases[i].number,
                  cases[i].times, code);
        CHECK_MSG(count_names(dir, ".tmp") == 0, "%s, signal %d, %d times: a temporary file is left", argv[0],
                  cases[i].number, cases[i].times);
    }
}
#define STOPS(...) stops((const char *const[]){__VA_ARGS__, NULL}, dir)

/* A model large enough to be stopped at. */
static const char config[] =
    "{\"model_type\": \"gpt_neox\", \"architectures\": [\"GPTNeoXForCausalLM\"], \"vocab_size\": 1024, "
    "\"hidden_size\": "
    "768, \"num_hidden_layers\": 2, \"num_attention_heads\": 12, \"intermediate_size\": 3072, "
    "\"max_position_embeddings\": 128, \"hidden_act\": \"gelu\", \"rotary_pct\": 0.25, \"layer_norm_eps\": 1e-05, "
    "\"use_parallel_residual\": true, \"tie_word_embeddings\": false}";

TEST(outputs_stop_at_signals)
{
    struct test_kept kept = test_keep(test_scratch("bed"));
    const char *bed = kept.text, *dir = in(bed, "out"), *hf = in(bed, "hf");
    REQUIRE(mkdir(bed, 0700) == 0 && mkdir(dir, 0700) == 0);
    const char *json = in(bed, "c.json"), *model = in(bed, "m.gguf"), *out = in(dir, "o.gguf"),
               *rows = in(bed, "r.jsonl");
    char shape[1300];
    snprintf(shape, sizeof shape, "%s:f32", json);
    REQUIRE(test_spill(json, config, sizeof config - 1));
    REQUIRE(runs(GEUL("synth", shape, "-o", model)) && runs(GEUL("export", model, hf)));
    FILE *f = fopen(rows, "w");
    for (int i = 0; f && i < 200000; i++)
        fprintf(f, "{\"text\": \"%d 안녕하세요. 반갑습니다. 오늘은 날씨가 좋습니다.\"}\n", i);
    REQUIRE(f && fclose(f) == 0);
    STOPS("synth", shape, "-o", out);
    STOPS("quantize", model, out, "q2_k");
    STOPS("quantize", model, out, "f32", "--split-max-tensors", "5");
    STOPS("convert", hf, "-o", out, "--type", "f32");
    STOPS("export", model, dir);
    STOPS("export", model, dir, "--max-shard-mb", "20");
    STOPS("train", "--tokenizer", test_mini_model(), "--layers", "4", "--width", "512", "--heads", "8", "-o", dir,
          "--train-file", rows);
    STOPS("tokenize", "-m", test_mini_model(), "--shards", in(dir, "s"), rows);
}

/* When process pid started, as Linux counts. */
static unsigned long long started(pid_t pid)
{
    char name[64], *at;
    unsigned long long ticks = 0;
    snprintf(name, sizeof name, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(name, "r");
    char text[1024] = "";
    if (f) {
        text[fread(text, 1, sizeof text - 1, f)] = '\0';
        fclose(f);
    }
    at = strrchr(text, ')');
    for (int field = 0; at && field < 20; field++)
        at = strchr(at + 1, ' ');
    CHECK(at && sscanf(at, "%llu", &ticks) == 1);
    return ticks;
}

TEST(outputs_tidy_after_the_dead_only)
{
    struct test_kept kept = test_keep(test_scratch("bed"));
    const char *dir = kept.text;
    char dead[3][80], alive[3][80], link[80];
    REQUIRE(mkdir(dir, 0700) == 0);
    pid_t living = fork();
    if (living == 0) {
        pause();
        _exit(0);
    }
    pid_t gone = fork();
    if (gone == 0)
        _exit(0);
    REQUIRE(living > 0 && gone > 0 && waitpid(gone, NULL, 0) == gone);
    snprintf(dead[0], sizeof dead[0], "o.gguf.tmp%d-12345-0", (int)gone);
    snprintf(dead[1], sizeof dead[1], "o.gguf.tmp%d-0", (int)gone); /* as an older geul named them */
    snprintf(dead[2], sizeof dead[2], "o.gguf.tmp%d-%llu-3", (int)living, started(living) + 1); /* the number again */
    snprintf(alive[0], sizeof alive[0], "o.gguf.tmp%d-%llu-0", (int)living, started(living));
    snprintf(alive[1], sizeof alive[1], "o.gguf.tmp%d-777-1", (int)gone);   /* locked: alive in another container */
    snprintf(alive[2], sizeof alive[2], "p.gguf.tmp%d-12345-0", (int)gone); /* of another output */
    for (int i = 0; i < 3; i++)
        REQUIRE(test_spill(in(dir, dead[i]), "dead", 4) && test_spill(in(dir, alive[i]), "alive", 5));
    int fd = open(in(dir, alive[1]), O_RDWR);
    REQUIRE(fd >= 0 && flock(fd, LOCK_EX) == 0);
    snprintf(link, sizeof link, "o.gguf.tmp%d-12345-1",
             (int)gone); /* no file of geul's: it cannot be asked for a lock */
    REQUIRE(symlink(alive[2], in(dir, link)) == 0);
    runs(GEUL("quantize", test_mini_model(), in(dir, "o.gguf"), "f16"));
    for (int i = 0; i < 3; i++) {
        CHECK_MSG(access(in(dir, dead[i]), F_OK) != 0, "%s is left", dead[i]);
        CHECK_MSG(access(in(dir, alive[i]), F_OK) == 0, "%s is gone", alive[i]);
    }
    CHECK_MSG(access(in(dir, link), F_OK) == 0, "%s is gone", link);
    close(fd);
    kill(living, SIGKILL);
    waitpid(living, NULL, 0);
}

TEST(outputs_need_room)
{
    struct bench b;
    REQUIRE(bench_open(&b));
    const char *disk = in(b.dir, "disk"), *out = in(disk, "o");
    char shape[1300];
    snprintf(shape, sizeof shape, "%s/config.json:f32", b.hf);
    REQUIRE(mkdir(disk, 0700) == 0);
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("geul", disk, "tmpfs", 0, "size=40k") != 0) {
        test_skip("only root may mount a small disk");
        return;
    }
    const char *const commands[][12] = {
        {"synth", shape, "-o", out},
        {"quantize", b.model, out, "q8_0"},
        {"quantize", b.model, out, "q8_0", "--split-max-tensors", "10"},
        {"convert", b.hf, "-o", out},
        {"merge", "-m", b.model, "--lora", b.adapter, "-o", out},
        {"logits", "-m", b.model, "-f", b.text, "-o", out},
        {"export", b.model, out},
        {"export", b.model, out, "--max-shard-mb", "1"},
        {"train", "--tokenizer", b.model, "--layers", "1", "--width", "48", "--heads", "4", "-o", out, "--train-file"},
    };
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        const char *argv[16] = {NULL};
        int n = 0;
        for (; n < 12 && commands[i][n]; n++)
            argv[n] = commands[i][n];
        if (n == 12)
            argv[n] = b.rows;
        struct test_run r = test_geul(argv, NULL, 0);
        CHECK_MSG(r.status == 1 && strstr(r.err, "No space left on device for its"), "%s: %d, %s", argv[0], r.status,
                  r.err);
        CHECK_INT(count_names(disk, ".tmp") + count_names(out, ".tmp") + count_names(out, "model.safe"), 0);
        test_run_free(&r);
    }
}
