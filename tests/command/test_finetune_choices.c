/* test_finetune_choices.c: what `geul finetune` chooses, goes on from, and says at its end. */
#include "tests/command/finetune_fixture.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* share/geul-mini.gguf and a file of rows, in its template. */
static struct words mini_words(const char *rows, const char *dir)
{
    static char model[1024];
    struct words w = {.n = 0};
    snprintf(model, sizeof model, "%s", test_mini_model());
    WORDS(&w, "finetune", "-m", model, "--train-file", rows, "-t", "1", "--sample-every", "0", "-o", dir);
    return w;
}

static const char *scratch_file(const char *name, const char *text)
{
    static char paths[4][1024];
    static int turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s", test_scratch(name));
    CHECK(test_spill(path, text, strlen(text)));
    return path;
}

static const char three[] = "{\"question\": \"우리 집 고양이 이름은?\", \"answer\": \"구름이예요.\"}\n"
                            "{\"question\": \"안녕\", \"answer\": \"어서 오세요, 손님.\"}\n"
                            "{\"question\": \"점심 뭐 먹지?\", \"answer\": \"비빔밥이 좋겠어요.\"}\n";

static bool holds(const struct test_run *r, const char *text)
{
    return CHECK_MSG(strstr(r->err, text), "\"%s\" is not in:\n%s", text, r->err);
}

/* ---------------------------------------------------------------------------------- defaults -- */

/* Three rows and no option: afterwards they are answered as taught. */
TEST(finetune_defaults_teach_three_rows)
{
    char dir[600], adapter[700];
    snprintf(dir, sizeof dir, "%s", test_scratch("run"));
    struct words w = mini_words(scratch_file("three.jsonl", three), dir);
    struct test_run r = finetune(&w);
    CHECK_MSG(r.status == 0, "%s", r.err);
    holds(&r, "held out: nothing, as there are fewer than 100 rows");
    holds(&r, "chosen: rank 8");
    holds(&r, "chosen: learning rate 0.004");
    holds(&r, "chosen: 1 row a step");
    holds(&r, "chosen: 40 epochs");
    holds(&r, "step 120/120 ");
    test_run_free(&r);
    snprintf(adapter, sizeof adapter, "%s/adapter.gguf", dir);
    static const char *const asked[][2] = {{"우리 집 고양이 이름은?", "구름이예요."},
                                           {"안녕", "어서 오세요, 손님."},
                                           {"점심 뭐 먹지?", "비빔밥이 좋겠어요."}};
    for (int i = 0; i < 3; i++) {
        r = GEUL("complete", "-m", test_mini_model(), "--lora", adapter, "-p", asked[i][0], "--template", "koalpaca",
                 "--temp", "0", "-t", "1");
        CHECK_MSG(r.status == 0 && strstr(r.out, asked[i][1]), "%s: %s", asked[i][0], r.out);
        test_run_free(&r);
    }
}

/* What is asked for is not chosen. */
TEST(finetune_options_override_choices)
{
    char dir[600];
    snprintf(dir, sizeof dir, "%s", test_scratch("run"));
    struct words w = mini_words(scratch_file("three.jsonl", three), dir);
    WORDS(&w, "--rank", "4", "--lr", "1e-3", "-b", "2", "--steps", "2", "-c", "64");
    struct test_run r = finetune(&w);
    CHECK_MSG(r.status == 0 && !strstr(r.err, "chosen: "), "%s", r.err);
    test_run_free(&r);
    char *log = test_slurp(in(dir, "report.html"), NULL);
    REQUIRE(log);
    CHECK(strstr(log, "rank 4, alpha 8") && strstr(log, "2 packed x 1") && strstr(log, "0.001, cosine"));
    free(log);
}

/* --------------------------------------------------------------------------- another adapter -- */

/* The loss of the first or last evaluation in a log. */
static double evaluation(const char *dir, bool last)
{
    static const char begins[] = "{\"type\":\"evaluation\"";
    char *log = test_slurp(in(dir, "log.jsonl"), NULL);
    double loss = -1;
    for (const char *at = log; at && (at = strstr(at, begins)); at++) {
        sscanf(strstr(at, "\"loss\":"), "\"loss\":%lf", &loss);
        if (!last)
            break;
    }
    free(log);
    return loss;
}

/* A run that goes on from another's adapter begins with the loss at which that one ended, and keeps its form. */
TEST(finetune_goes_on_from_an_adapter)
{
    char first[600], then[600], source[800];
    const char *rows = finetune_rows("rows.jsonl", 40, 3);
    snprintf(first, sizeof first, "%s", test_scratch("first"));
    struct words w = mini_words(rows, first);
    WORDS(&w, "--held-out", "0.2", "--precision", "f32", "--steps", "6");
    struct words begin = w;
    WORDS(&begin, "--rank", "5", "--lora-alpha", "7", "--lora-targets", "qkv,down");
    struct test_run r = finetune(&begin);
    CHECK_MSG(r.status == 0, "%s", r.err);
    test_run_free(&r);
    static const char *const forms[] = {"adapter.gguf", "adapter"}; /* of PEFT */
    for (int i = 0; i < 2; i++) {
        snprintf(then, sizeof then, "%s", test_scratch(i ? "peft" : "gguf"));
        snprintf(source, sizeof source, "%s", in(first, forms[i]));
        struct words more = w;
        more.items[10] = then;
        REQUIRE(strcmp(more.items[9], "-o") == 0);
        WORDS(&more, "--lora", source);
        r = finetune(&more);
        CHECK_MSG(r.status == 0, "%s", r.err);
        holds(&r, "rank 5, alpha 7");
        test_run_free(&r);
        CHECK_MSG(evaluation(then, false) == evaluation(first, true), "it begins with %g, the other ended with %g",
                  evaluation(then, false), evaluation(first, true));
        CHECK(evaluation(then, true) < evaluation(then, false));
        r = GEUL("info", "-m", in(then, "adapter.gguf"));
        CHECK_MSG(strstr(r.out, "LoRA, rank 5, alpha 7") && strstr(r.out, "attn_qkv (6), ffn_down (6)"), "%s", r.out);
        test_run_free(&r);
    }
    static const struct {
        const char *words[3], *says;
    } conflicts[] = {
        {{"--rank", "8", NULL}, "--rank 8: "},
        {{"--lora-alpha", "16", NULL}, "--lora-alpha 16: "},
        {{"--lora-targets", "qkv", NULL}, "--lora-targets: "},
        {{"--rslora", NULL}, "--rslora: "},
        {{"--full", NULL}, "--lora goes on from an adapter, --full trains all weights"},
    };
    char conflict[600];
    snprintf(conflict, sizeof conflict, "%s", test_scratch("conflict"));
    for (size_t i = 0; i < sizeof conflicts / sizeof *conflicts; i++) {
        struct words more = w;
        more.items[10] = conflict;
        WORDS(&more, "--lora", source);
        words_add(&more, conflicts[i].words);
        check_stops(conflicts[i].says, finetune(&more), 2, conflicts[i].says);
    }
    struct words same = w; /* asking for what it has is no conflict */
    snprintf(conflict, sizeof conflict, "%s", test_scratch("same"));
    same.items[10] = conflict;
    WORDS(&same, "--lora", source, "--rank", "5", "--lora-alpha", "7", "--lora-targets", "down,qkv");
    r = finetune(&same);
    CHECK_MSG(r.status == 0, "%s", r.err);
    test_run_free(&r);
    struct words other = finetune_words(fixture_model(), rows); /* another model */
    WORDS(&other, "-o", in(first, "other"), "--lora", source);
    check_stops("another model", finetune(&other), 1, "");
}

/* -------------------------------------------------------------------------------- stop, go on -- */

/* Ctrl-C says where everything is and prints a command that, given to a shell, goes on; that one says from where, and
 * the report what has changed. */
TEST(finetune_interrupted_says_how_to_go_on)
{
    char dir[600], said[1100], command[4000], named[800];
    snprintf(dir, sizeof dir, "%s", test_scratch("my run's"));
    snprintf(said, sizeof said, "%s", test_scratch("said.txt"));
    struct words w = finetune_words(fixture_model(), finetune_rows("rows.jsonl", 40, 3));
    WORDS(&w, "--steps", "100000", "--eval-every", "0", "--save-every", "0", "--schedule", "constant", "-o", dir);
    pid_t pid = finetune_start(&w, said);
    REQUIRE(pid > 0);
    int status = 0;
    for (int i = 0; i < 20000 && finetune_last_step(dir) < 3; i++)
        usleep(1000);
    kill(pid, SIGINT);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 130);
    long step = finetune_last_step(dir);
    char *text = test_slurp(said, NULL);
    REQUIRE(text);
    snprintf(named, sizeof named, "stopped after step %ld of 100000; everything is saved in %s/checkpoint-%08ld.gguf",
             step, dir, step);
    CHECK_MSG(strstr(text, named), "%s", text);
    const char *line = strstr(text, "this goes on from there:\n  ");
    REQUIRE(line);
    line += strlen("this goes on from there:\n  ");
    CHECK_MSG(strstr(line, " --resume\n"), "%s", line);
    /* The program was started as "geul"; a function of that name stands for it. */
    snprintf(command, sizeof command, "geul() { \"%s\" \"$@\"; }; %.*s --steps %ld --lr 3e-3 2>&1", GEUL_BINARY,
             (int)strcspn(line, "\n"), line, step + 2);
    FILE *f = popen(command, "r");
    REQUIRE(f);
    char out[8000];
    out[fread(out, 1, sizeof out - 1, f)] = '\0';
    CHECK_MSG(pclose(f) == 0, "%s: %s", command, out);
    snprintf(named, sizeof named, "continues after step %ld, from %s/checkpoint-%08ld.gguf, written 20", step, dir,
             step);
    CHECK_MSG(strstr(out, named), "%s", out);
    CHECK_MSG(strstr(out, "a setting has changed since: learning rate: was ") && strstr(out, "steps: was 100000, is "),
              "%s", out);
    free(text);
    text = test_slurp(in(dir, "report.html"), NULL);
    REQUIRE(text);
    CHECK(strstr(text, "<td class=\"kind\">resumed</td>") && strstr(text, "setting changed") &&
          strstr(text, "is 0.003, constant"));
    free(text);
}

/* ------------------------------------------------------------------------------------ the end -- */

/* What geul-mini answers anyway, six times each: there is nothing to learn, only to lose. */
static const char *known_rows(void)
{
    static const char *const known[][2] = {{"안녕", "안녕하세요. 만나서 반가워요."},
                                           {"고마워", "천만에요. 도움이 됐다니 기뻐요."},
                                           {"배고파", "얼른 맛난 음식 드세요."},
                                           {"심심해", "친구들과 연락해보세요."},
                                           {"운동해야 하는데", "건강 생각해서 꾸준히 하세요."},
                                           {"잘 자", "안녕히 주무세요. 좋은 꿈 꾸세요."},
                                           {"날씨가 너무 추워", "집밖에 나가기가 힘들것 같아요."},
                                           {"남자친구랑 헤어졌어", "많이 힘들었겠어요."}};
    enum { KNOWN = sizeof known / sizeof *known };
    static char path[1024];
    snprintf(path, sizeof path, "%s", test_scratch("known.jsonl"));
    FILE *f = fopen(path, "w");
    for (int i = 0; f && i < 6 * KNOWN; i++)
        fprintf(f, "{\"question\": \"%s\", \"answer\": \"%s\"}\n", known[i % KNOWN][0], known[i % KNOWN][1]);
    CHECK(f && fclose(f) == 0);
    return path;
}

/* A rate that does harm: the end says so, and the best is what the run began with. */
TEST(finetune_that_does_harm_says_so)
{
    char dir[600], part[64];
    snprintf(dir, sizeof dir, "%s", test_scratch("run"));
    struct words w = mini_words(known_rows(), dir);
    WORDS(&w, "--lr", "0.1", "--warmup", "0", "--steps", "9", "--held-out", "0.2", "-b", "4", "--packing", "off",
          "--eval-every", "3", "--schedule", "constant");
    struct test_run r = finetune(&w); /* too short for the watch */
    CHECK_MSG(r.status == 0, "%s", r.err);
    double first = evaluation(dir, false), last = evaluation(dir, true);
    CHECK_MSG(last > first, "%g, then %g: the test shows nothing", first, last);
    snprintf(part, sizeof part, "held-out loss %.4f before the first step, %.4f", first, last);
    holds(&r, "WARNING: the run ended worse than it began: ");
    holds(&r, part);
    holds(&r, "No step was better than the model as it was, which best.gguf holds");
    CHECK_MSG(strstr(r.out, "the model as it was before the first step"), "%s", r.out);
    test_run_free(&r);
    char *log = test_slurp(in(dir, "log.jsonl"), NULL);
    CHECK(log && strstr(log, "\"kind\":\"ended worse than it began\""));
    free(log);
    r = GEUL("info", "-m", in(dir, "best.gguf"));
    CHECK_MSG(r.status == 0 && strstr(r.out, "LoRA"), "%s", r.err);
    test_run_free(&r);
}

/* A loss that climbs step by step, as the rate rises too far: back to before, with half the rate. */
TEST(finetune_acts_on_a_climb)
{
    char dir[600];
    snprintf(dir, sizeof dir, "%s", test_scratch("run"));
    struct words w = mini_words(known_rows(), dir);
    WORDS(&w, "--lr", "0.1", "--warmup", "60", "--steps", "60", "--held-out", "0", "-b", "4", "--packing", "off",
          "--schedule", "constant", "--save-every", "3", "--precision", "f32");
    struct test_run r = finetune(&w);
    holds(&r, "loss climb: the loss has climbed: now ");
    holds(&r, "and the learning rate is halved");
    test_run_free(&r);
    char *log = test_slurp(in(dir, "log.jsonl"), NULL);
    CHECK(log && strstr(log, "\"kind\":\"loss climb\"") && strstr(log, "\"kind\":\"rewind\""));
    free(log);
}
