/* The files of a training log: what they hold, resuming, what goes wrong. */
#include "core/os.h"
#include "tests/harness.h"
#include "journal/log_chart.h"
#include "journal/log_entry.h"
#include "journal/tfrecord.h"
#include "geul_tools.h"

#include <jansson.h>
#include <locale.h>
#include <unistd.h>

static const struct geul_journal_setting settings[] = {{"learning rate", "2e-4"}, {"data", "<a & b>.jsonl"}};
static const struct geul_journal_options all = {.size = sizeof all,
                                                .title = "finetune <geul>.gguf",
                                                .settings = settings,
                                                .n_settings = 2,
                                                .total_steps = 20,
                                                .csv = true,
                                                .jsonl = true,
                                                .tensorboard = true,
                                                .report = true};

static struct geul_journal_record record(int64_t step)
{
    double s = (double)step;
    return (struct geul_journal_record){.size = sizeof(struct geul_journal_record),
                                        .step = step,
                                        .loss = 3 - s / 16,
                                        .learning_rate = 1e-4 * s,
                                        .grad_norm = 0.5 + 1 / s,
                                        .tokens_per_second = 1000 + s,
                                        .seconds = s / 4,
                                        .tokens = 512,
                                        .targets = 500,
                                        .epoch = s / 100,
                                        .skipped = step == 4};
}

/* Logs the steps from..to, with an evaluation at each even one, an event at 4 and 8, a sample at 6 and 8. */
static enum geul_status log_steps(struct geul_journal *log, int64_t from, int64_t to)
{
    enum geul_status status = GEUL_OK;
    for (int64_t step = from; step <= to && status == GEUL_OK; step++) {
        struct geul_journal_record r = record(step);
        status = geul_journal_step(log, &r);
        if (status == GEUL_OK && step % 4 == 0)
            status = geul_journal_event(log, step, "loss spike", "a \"quoted\"\\\nline <b>");
        if (status == GEUL_OK && step % 2 == 0)
            status = geul_journal_evaluation(log, step, 2.9 - (double)step / 20, true);
        if (status == GEUL_OK && (step == 6 || step == 8))
            status = geul_journal_sample(log, step, "### 질문: 안녕?", "네, <안녕>하세요.\n반갑\xEB\x8B");
    }
    return status;
}

/* A folder in which the log was opened for each pair of resume step and last step. Static storage as test_scratch(). */
static const char *run(const char *name, const struct geul_journal_options *o, const int64_t (*parts)[2], int n_parts)
{
    const char *dir = test_scratch(name);
    struct geul_context *ctx = geul_context_new(NULL);
    for (int i = 0; i < n_parts; i++) {
        struct geul_journal *log = geul_journal_open(ctx, dir, o, parts[i][0]);
        bool ok = CHECK_MSG(log != NULL, "%s", geul_error(ctx)) &&
                  CHECK(log_steps(log, parts[i][0] + 1, parts[i][1]) == GEUL_OK) &&
                  CHECK_MSG(geul_journal_flush(log) == GEUL_OK, "%s", geul_error(ctx));
        geul_journal_close(log);
        if (!ok)
            break;
    }
    geul_context_free(ctx);
    return dir;
}

static char *read_file(const char *dir, const char *name, size_t *size)
{
    char path[1200];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return test_slurp(path, size);
}

static void check_same(const char *a, const char *b, const char *name)
{
    size_t na, nb, i = 0;
    char *x = read_file(a, name, &na), *y = read_file(b, name, &nb);
    while (x && y && i < na && i < nb && x[i] == y[i])
        i++;
    CHECK_MSG(x && y && na == nb && i == na, "%s differs at byte %zu:\n%.200s\n---\n%.200s", name, i,
              x && i < na ? x + i : "", y && i < nb ? y + i : "");
    free(x);
    free(y);
}

/* How often part is in text. */
static int count(const char *text, const char *part)
{
    int n = 0;
    for (const char *p = text; (p = strstr(p, part)) != NULL; p++)
        n++;
    return n;
}

/* Whether text has the line; a failed check when not. */
static bool has_line(const char *text, const char *line)
{
    size_t n = strlen(line);
    for (const char *p = text; (p = strstr(p, line)) != NULL; p++)
        if ((p == text || p[-1] == '\n') && p[n] == '\n')
            return true;
    return CHECK_MSG(false, "no line \"%s\" in\n%s", line, text);
}

/* ------------------------------------------------------------------------------------- files -- */

TEST(train_log_writes_csv)
{
    size_t size;
    char *text = read_file(run("a/", &all, (const int64_t[][2]){{0, 4}}, 1), "log.csv", &size);
    REQUIRE(text);
    CHECK_STR(text,
              "step,loss,learning_rate,grad_norm,tokens_per_second,tokens,targets,epoch,seconds,skipped,eval_loss\n"
              "1,2.9375,0.0001,1.5,1001,512,500,0.01,0.25,0,\n"
              "2,2.875,0.0002,1,1002,512,500,0.02,0.5,0,\n"
              "2,,,,,,,,,,2.8\n"
              "3,2.8125,0.0003,0.833333333,1003,512,500,0.03,0.75,0,\n"
              "4,2.75,0.0004,0.75,1004,512,500,0.04,1,1,\n"
              "4,,,,,,,,,,2.7\n");
    free(text);
}

/* Every line read by another JSON parser. */
TEST(train_log_writes_json_lines)
{
    static const char *const types[] = {"step",       "step", "evaluation", "step",       "step",  "event",
                                        "evaluation", "step", "step",       "evaluation", "sample"};
    size_t size, n = 0;
    char *text = read_file(run("a/", &all, (const int64_t[][2]){{0, 6}}, 1), "log.jsonl", &size);
    REQUIRE(text);
    for (char *p = text; *p; n++) {
        char *stop = strchr(p, '\n');
        REQUIRE(stop);
        json_t *j = json_loadb(p, (size_t)(stop - p), JSON_REJECT_DUPLICATES, NULL);
        REQUIRE(CHECK_MSG(j && n < 11, "line %zu is no JSON: %.*s", n, (int)(stop - p), p));
        CHECK_STR(json_string_value(json_object_get(j, "type")), types[n]);
        if (n == 3) {
            CHECK_INT(json_integer_value(json_object_get(j, "step")), 3);
            CHECK(json_real_value(json_object_get(j, "loss")) == 2.8125);
            CHECK(json_is_false(json_object_get(j, "skipped")));
        }
        if (n == 5)
            CHECK_STR(json_string_value(json_object_get(j, "text")), "a \"quoted\"\\\nline <b>");
        if (n == 10) {
            CHECK_STR(json_string_value(json_object_get(j, "prompt")), "### 질문: 안녕?");
            CHECK_STR(json_string_value(json_object_get(j, "text")), "네, <안녕>하세요.\n반갑\xEF\xBF\xBD\xEF\xBF\xBD");
        }
        json_decref(j);
        p = stop + 1;
    }
    CHECK_INT(n, 11);
    free(text);
}

TEST(train_log_writes_what_is_no_number)
{
    const char *dir = test_scratch("a/");
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_journal *log = geul_journal_open(ctx, dir, &all, 0);
    REQUIRE(log);
    struct geul_journal_record r = record(1);
    r.loss = (double)NAN;
    r.grad_norm = -(double)INFINITY;
    CHECK(geul_journal_step(log, &r) == GEUL_OK);
    CHECK(geul_journal_evaluation(log, 1, (double)INFINITY, false) == GEUL_OK);
    CHECK(geul_journal_flush(log) == GEUL_OK);
    geul_journal_close(log);
    geul_context_free(ctx);
    size_t size;
    char *csv = read_file(dir, "log.csv", &size), *jsonl = read_file(dir, "log.jsonl", &size);
    REQUIRE(csv && jsonl);
    has_line(csv, "1,nan,0.0001,-inf,1001,512,500,0.01,0.25,0,");
    has_line(csv, "1,,,,,,,,,,inf");
    has_line(jsonl, "{\"type\":\"step\",\"step\":1,\"loss\":null,\"learning_rate\":0.0001,\"grad_norm\":null,"
                    "\"tokens_per_second\":1001,\"tokens\":512,\"targets\":500,\"epoch\":0.01,\"seconds\":0.25,"
                    "\"skipped\":false,\"nonfinite\":\"loss nan, grad_norm -inf\"}");
    has_line(jsonl, "{\"type\":\"evaluation\",\"step\":1,\"loss\":null,\"best\":false,\"nonfinite\":\"loss inf\"}");
    free(csv);
    free(jsonl);
}

/* Rows are there at once, for those who follow the file. */
TEST(train_log_can_be_followed)
{
    const char *dir = test_scratch("a/");
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_journal *log = geul_journal_open(ctx, dir, &all, 0);
    struct geul_journal_record r = record(1);
    REQUIRE(log);
    for (int i = 0; i < 3; i++) {
        size_t size;
        char *text = read_file(dir, "log.csv", &size);
        int lines = 0;
        for (size_t k = 0; text && k < size; k++)
            lines += text[k] == '\n';
        CHECK_INT(lines, 1 + i);
        free(text);
        r.step = i + 1;
        CHECK(geul_journal_step(log, &r) == GEUL_OK);
    }
    geul_journal_close(log);
    geul_journal_close(NULL);
    geul_context_free(ctx);
}

/* With a locale that writes 1,5: one that is installed, or one made for the test. */
TEST(train_log_ignores_the_locale)
{
    char command[2048], plain[64];
    const char *locale = test_scratch("locale/");
    if (!setlocale(LC_ALL, "de_DE.UTF-8")) {
        snprintf(command, sizeof command, "localedef -c -i de_DE -f UTF-8 '%s/de_DE.UTF-8' >'%s/log' 2>&1", locale,
                 locale);
        if (system(command) != 0 || setenv("LOCPATH", locale, 1) != 0 || !setlocale(LC_ALL, "de_DE.UTF-8")) {
            test_skip("needs the locale de_DE.UTF-8 or localedef with its sources (Debian: locales)");
            return;
        }
    }
    snprintf(plain, sizeof plain, "%g", 1.5);
    CHECK_STR(plain, "1,5");
    geul_log_format_double(plain, sizeof plain, -1234.5, 9);
    CHECK_STR(plain, "-1234.5");
    double v = 0;
    CHECK(geul_log_parse_double("1.5", 3, &v) && v == 1.5);
    size_t size;
    char *text = read_file(run("a/", &all, (const int64_t[][2]){{0, 3}, {2, 3}}, 2), "log.csv", &size);
    REQUIRE(text);
    has_line(text, "3,2.8125,0.0003,0.833333333,1003,512,500,0.03,0.75,0,");
    free(text);
    text = read_file(run("b/", &all, (const int64_t[][2]){{0, 3}}, 1), "report.html", &size);
    CHECK(text && strstr(text, "<b>2.800</b>")); /* the best evaluation */
    free(text);
}

TEST(train_log_reads_numbers)
{
    static const struct {
        const char *text;
        double value;
    } good[] = {{"0", 0},
                {"-2.5", -2.5},
                {"1e-05", 1e-05},
                {"3.07692308", 3.07692308},
                {"1e+20", 1e20},
                {".5", 0.5},
                {"5.", 5},
                {"1e999", (double)INFINITY},
                {"1e-999", 0},
                {"2.5e-310", 2.5e-310},
                {"123456789012345678901234567890", 1.2345678901234568e29},
                {"0.000000000000000000000000000000000001", 1e-36}};
    static const char *const bad[] = {"", "-", ".", "e5", "1e", "1e99999", "1.2.3", "1,5", "0x10", "1 ", "nanx", "--1"};
    double v;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        CHECK_MSG(geul_log_parse_double(good[i].text, strlen(good[i].text), &v) &&
                      (v == good[i].value || fabs(v - good[i].value) <= 1e-14 * fabs(good[i].value)),
                  "%s is read as %.17g", good[i].text, v);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_MSG(!geul_log_parse_double(bad[i], strlen(bad[i]), &v), "\"%s\" is read as %g", bad[i], v);
    CHECK(geul_log_parse_double("nan", 3, &v) && isnan(v));
    CHECK(geul_log_parse_double("-inf", 4, &v) && v == -(double)INFINITY);
    uint64_t seed = 1;
    for (int i = 0; i < 1000; i++) {
        char text[64];
        double x = (double)test_normal(&seed) * pow(10, test_uniform(&seed, -30, 30));
        geul_log_format_double(text, sizeof text, x, 17);
        CHECK_MSG(geul_log_parse_double(text, strlen(text), &v) && fabs(v - x) <= 1e-14 * fabs(x), "%s: %.17g", text,
                  v);
    }
    int64_t n = 0;
    CHECK(geul_log_parse_int("-9223372036854775808", 20, &n) && n == INT64_MIN);
    CHECK(geul_log_parse_int("9223372036854775807", 19, &n) && n == INT64_MAX);
    CHECK(!geul_log_parse_int("9223372036854775808", 19, &n) && !geul_log_parse_int("-9223372036854775809", 20, &n));
    CHECK(!geul_log_parse_int("", 0, &n) && !geul_log_parse_int("-", 1, &n) && !geul_log_parse_int("1.0", 3, &n));
}

/* ---------------------------------------------------------------------------------- resuming -- */

TEST(train_log_resumes_as_if_uninterrupted)
{
    char whole[1024], resumed[1024], twice[1024];
    snprintf(whole, sizeof whole, "%s", run("whole/", &all, (const int64_t[][2]){{0, 10}}, 1));
    snprintf(resumed, sizeof resumed, "%s", run("resumed/", &all, (const int64_t[][2]){{0, 10}, {6, 10}}, 2));
    snprintf(twice, sizeof twice, "%s", run("twice/", &all, (const int64_t[][2]){{0, 7}, {5, 9}, {9, 10}}, 3));
    const char *const names[] = {"log.csv", "log.jsonl", "report.html"};
    for (int i = 0; i < 3; i++) {
        check_same(whole, resumed, names[i]);
        check_same(whole, twice, names[i]);
    }
    snprintf(twice, sizeof twice, "%s", run("anew/", &all, (const int64_t[][2]){{0, 8}, {0, 10}}, 2));
    for (int i = 0; i < 3; i++)
        check_same(whole, twice, names[i]);
}

/* A step that begins again after a rewind: the log keeps both, the report shows the second. */
/* A second log in the same folder, of this process or another, is refused before it empties or cuts what is there. */
TEST(train_log_has_one_writer)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_journal_options o = all;
    char dir[1024];
    snprintf(dir, sizeof dir, "%s", test_scratch("log/"));
    struct geul_journal *log = geul_journal_open(ctx, dir, &o, 0);
    REQUIRE(log && log_steps(log, 1, 6) == GEUL_OK);
    for (int64_t from = 0; from <= 3; from += 3) {
        CHECK(geul_journal_open(ctx, dir, &o, from) == NULL);
        CHECK_MSG(strstr(geul_error(ctx), "log.csv: another process, or another log, is writing it"), "%s",
                  geul_error(ctx));
    }
    CHECK(log_steps(log, 7, 8) == GEUL_OK);
    geul_journal_close(log);
    log = geul_journal_open(ctx, dir, &o, 8); /* all is there, and free again */
    REQUIRE(log != NULL);
    CHECK(geul_journal_seconds(log) == 2);
    geul_journal_close(log);
    geul_context_free(ctx);
}

TEST(train_log_keeps_rewinds)
{
    static const char *const csv = "1,1,1,1,1,1,1,1,1,0,\n2,1,1,1,1,1,1,1,1,0,\n3,9,1,1,1,1,1,1,1,0,\n"
                                   "2,2,1,1,1,1,1,1,1,0,\n2,,,,,,,,,,5\nbroken\n3,3,1,1,1,1,1,1,1,0,\n3,torn";
    struct geul_context *ctx = geul_context_new(NULL);
    size_t n = strlen(csv), resume_size;
    CHECK(geul_log_lines_resume_size(ctx, geul_log_csv.parse, csv, n, 2, &resume_size) == GEUL_OK);
    CHECK_INT(resume_size, strstr(csv, "broken") - csv);
    CHECK(geul_log_lines_resume_size(ctx, geul_log_csv.parse, csv, n, 1, &resume_size) == GEUL_OK);
    CHECK_INT(resume_size, strstr(csv, "2,1,") - csv);
    CHECK(geul_log_lines_resume_size(ctx, geul_log_csv.parse, csv, n, 99, &resume_size) == GEUL_OK);
    CHECK_INT(resume_size, strstr(csv, "3,torn") - csv);
    struct geul_log_history h = {.ctx = ctx};
    CHECK(geul_log_lines_read(&h, geul_log_csv.parse, csv, n) == GEUL_OK);
    REQUIRE(h.n_points == 3 && h.n_evaluations == 1);
    CHECK(h.points[1].loss == 2 && h.points[2].loss == 3 && h.evaluations[0].loss == 5);
    geul_log_history_free(&h);
    geul_context_free(ctx);
}

/* Outputs that an earlier part of the run did not have. */
TEST(train_log_resumes_without_files)
{
    struct geul_journal_options o = all;
    size_t size;
    o.csv = o.jsonl = false;
    char *html = read_file(run("a/", &o, (const int64_t[][2]){{6, 8}}, 1), "report.html", &size);
    CHECK(html && strstr(html, "Step 8 of 20 (40 %)") && count(html, "<title>step 5\n") == 0);
    free(html);
    o.csv = true;
    char *csv = read_file(run("b/", &o, (const int64_t[][2]){{0, 6}, {6, 8}}, 2), "log.csv", &size);
    CHECK(csv && strncmp(csv, geul_log_csv.header, strlen(geul_log_csv.header)) == 0 && strstr(csv, "\n7,"));
    free(csv);
    o.jsonl = true; /* the report's past is in the CSV alone */
    html = read_file(run("b/", &o, (const int64_t[][2]){{8, 9}}, 1), "report.html", &size);
    CHECK(html && count(html, "<title>step 5\n") == 4 && count(html, "<title>step 9\n") == 4);
    free(html);
}

/* ------------------------------------------------------------------------------- TensorBoard -- */

TEST(train_log_checksums)
{
    static const unsigned char zeros[32] = {0};
    CHECK_INT(geul_crc32c("123456789", 9), 0xE3069283u);
    CHECK_INT(geul_crc32c(zeros, 32), 0x8A9136AAu); /* RFC 3720, B.4 */
    CHECK_INT(geul_crc32c("", 0), 0);
    CHECK_INT(geul_tfrecord_mask(0), 0xA282EAD8u);
    CHECK_INT(geul_tfrecord_mask(0x00018000u), 0xA282EADBu);
}

/* The name of the only events file in dir; NULL when there is none. */
static char *find_events(const char *dir, char name[1200])
{
    char command[1300];
    snprintf(command, sizeof command, "ls %s/events.out.tfevents.*", dir);
    FILE *p = popen(command, "r");
    bool ok = p && fgets(name, 1200, p);
    if (p)
        pclose(p);
    name[ok ? strcspn(name, "\n") : 0] = '\0';
    return ok ? name : NULL;
}

/* Walks the records and checks lengths and checksums. */
TEST(train_log_frames_events)
{
    char name[1200];
    size_t size, at = 0;
    int records = 0;
    REQUIRE(find_events(run("a/", &all, (const int64_t[][2]){{0, 3}}, 1), name));
    char *data = test_slurp(name, &size);
    REQUIRE(data);
    while (at < size) {
        uint64_t length;
        uint32_t length_crc, crc;
        REQUIRE(size - at >= 16);
        memcpy(&length, data + at, 8); /* the tests run on little-endian machines */
        memcpy(&length_crc, data + at + 8, 4);
        REQUIRE(length <= size - at - 16);
        memcpy(&crc, data + at + 12 + length, 4);
        CHECK_INT(length_crc, geul_tfrecord_mask(geul_crc32c(data + at, 8)));
        CHECK_INT(crc, geul_tfrecord_mask(geul_crc32c(data + at + 12, length)));
        CHECK_INT(data[at + 12], 0x09); /* wall_time */
        if (records == 0)
            CHECK(length == 9 + 15 && memcmp(data + at + 21,
                                             "\x1a\x0d"
                                             "brain.Event:2",
                                             15) == 0);
        at += 16 + length;
        records++;
    }
    CHECK_INT(records, 2 + 3 + 1); /* version and start, steps, an evaluation */
    free(data);
}

/* What read_events.py prints of dir; NULL (and the test is skipped) without Python and tensorboard. */
static char *tensorboard(const char *dir)
{
    static const char *const pythons[] = {"python3", "/opt/geul-py/bin/python"};
    char command[4096];
    for (int i = 0; i < 2; i++) {
        snprintf(command, sizeof command, "%s -c 'import tensorboard' 2>/dev/null", pythons[i]);
        if (system(command) != 0)
            continue;
        char out[1200];
        size_t size;
        snprintf(out, sizeof out, "%s/read.txt", dir);
        snprintf(command, sizeof command, "%s '%s' '%s' >'%s' 2>'%s.err'", pythons[i],
                 test_path("journal/read_events.py"), dir, out, out);
        char *text = system(command) == 0 ? test_slurp(out, &size) : NULL;
        if (!CHECK_MSG(text != NULL, "%s failed, see its message:", command)) {
            snprintf(command, sizeof command, "cat '%s.err'", out);
            if (system(command) != 0)
                return NULL;
        }
        return text;
    }
    test_skip("needs python3 with the package tensorboard");
    return NULL;
}

TEST(train_log_is_read_by_tensorboard)
{
    char *text = tensorboard(run("a/", &all, (const int64_t[][2]){{0, 9}, {6, 8}}, 2));
    if (!text)
        return;
    has_line(text, "train/loss 1 2.9375");
    has_line(text, "train/loss 8 2.5");
    has_line(text, "train/learning_rate 2 0.0002");
    has_line(text, "train/grad_norm 4 0.75");
    has_line(text, "train/tokens_per_second 7 1007");
    has_line(text, "eval/loss 6 2.6");
    has_line(text, "event 4 text **loss spike**||    a \"quoted\"\\|    line <b>|");
    has_line(
        text,
        "sample 6 text     ### 질문: 안녕?||was continued as||    네, <안녕>하세요.|    반갑\xEF\xBF\xBD\xEF\xBF\xBD|");
    CHECK(strstr(text, "train/loss 9 ") == NULL); /* undone by the resume */
    int lines = 0;
    for (const char *p = text; *p; p++)
        lines += *p == '\n';
    CHECK_INT(lines, 4 * 8 + 4 + 2 + 2);
    free(text);
}

/* A run that goes back by itself. */
TEST(train_log_tells_tensorboard_of_rewinds)
{
    const char *dir = test_scratch("a/");
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_journal *log = geul_journal_open(ctx, dir, &all, 0);
    REQUIRE(log && log_steps(log, 1, 9) == GEUL_OK && log_steps(log, 5, 6) == GEUL_OK);
    geul_journal_close(log);
    geul_context_free(ctx);
    char *text = tensorboard(dir);
    if (!text)
        return;
    has_line(text, "train/loss 6 2.625");
    CHECK(strstr(text, "train/loss 7 ") == NULL && strstr(text, "eval/loss 8 ") == NULL);
    free(text);
}

TEST(train_log_hides_earlier_runs_from_tensorboard)
{
    char *text = tensorboard(run("a/", &all, (const int64_t[][2]){{0, 9}, {0, 2}}, 2));
    if (!text)
        return;
    has_line(text, "train/loss 2 2.875");
    CHECK(strstr(text, "train/loss 3") == NULL);
    free(text);
}

/* ------------------------------------------------------------------------------------ report -- */

TEST(train_log_report_shows_the_run)
{
    size_t size;
    char *html = read_file(run("a/", &all, (const int64_t[][2]){{0, 10}}, 1), "report.html", &size);
    REQUIRE(html);
    CHECK(strstr(html, "<title>finetune &lt;geul&gt;.gguf</title>") != NULL);
    CHECK(strstr(html, "&lt;a &amp; b&gt;.jsonl") != NULL);
    CHECK(strstr(html, "Step 10 of 20 (50 %), about 2 s left") != NULL);
    CHECK(strstr(html, "step 10, ppl") != NULL); /* the best evaluation */
    CHECK(strstr(html, "네, &lt;안녕&gt;하세요.\n반갑\xEF\xBF\xBD") != NULL);
    CHECK_INT(count(html, "### 질문: 안녕?"), 1); /* each prompt once, with what was made of it at steps 6 and 8 */
    CHECK_INT(count(html, "네, &lt;안녕&gt;하세요."), 2);
    CHECK(strstr(html, "a &quot;quoted&quot;\\\nline &lt;b&gt;") != NULL);
    CHECK_INT(count(html, "<svg "), 4);
    CHECK_INT(count(html, "</svg>"), 4);
    CHECK_INT(count(html, "<circle class=\"eval\""), 4);
    CHECK_INT(count(html, "<circle class=\"best\""), 1);
    CHECK_INT(count(html, "<g class=\"mark\">"), 8); /* two events on four charts */
    CHECK_INT(count(html, "<line class=\"skipped\""), 4);
    CHECK_INT(count(html, "<td class=\"kind\">"), 2); /* the skipped step has an event */
    CHECK_INT(count(html, "http"), 0);                /* nothing from elsewhere */
    free(html);
}

/* A million steps would not make the page larger than ten thousand. */
TEST(train_log_report_stays_small)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_log_history h = {.ctx = ctx};
    struct geul_log_text t[2] = {{.ctx = ctx}, {.ctx = ctx}};
    uint64_t seed = 1;
    for (int64_t step = 1; step <= 100000; step++) {
        struct geul_log_entry e = {.record = record(step), .label = "", .text = ""};
        e.record.loss = 2 + 0.1 * (double)test_normal(&seed);
        e.record.skipped = false;
        if (step == 51234)
            e.record.loss = 2.9;
        REQUIRE(geul_log_history_add(&h, &e) == GEUL_OK);
        if (step == 10000)
            geul_log_report_page(&t[0], &h, &all);
    }
    geul_log_report_page(&t[1], &h, &all);
    CHECK(!t[0].failed && !t[1].failed);
    CHECK(t[1].bytes.length < 400000 && t[1].bytes.length < t[0].bytes.length + t[0].bytes.length / 4);
    geul_log_text_free(&t[0]);
    geul_log_text_free(&t[1]);
    geul_log_history_free(&h);
    geul_context_free(ctx);
}

TEST(train_log_report_takes_any_numbers)
{
    static const double odd[] = {0, -1, 1e308, -1e308, 1e-320, (double)NAN, (double)INFINITY, -(double)INFINITY, 3e38};
    struct geul_context *ctx = geul_context_new(NULL);
    uint64_t seed = 9;
    for (int round = 0; round < 40; round++) {
        struct geul_log_history h = {.ctx = ctx};
        struct geul_log_text t = {.ctx = ctx};
        int64_t step = round % 5 ? round - 3 : INT64_MIN;
        for (int i = 0; i < round; i++) {
            struct geul_log_entry e = {
                .kind = i % 7 == 3 ? GEUL_LOG_EVALUATION : GEUL_LOG_STEP, .label = "", .text = ""};
            double *fields[] = {&e.record.loss,      &e.record.learning_rate,
                                &e.record.grad_norm, &e.record.tokens_per_second,
                                &e.record.seconds,   &e.record.epoch};
            for (int k = 0; k < 6; k++)
                *fields[k] = odd[test_random(&seed) % (round < 20 ? 9 : 3)];
            e.record.tokens = INT64_MAX / (round + 1);
            e.record.step = step;
            step += round % 5 ? 1 : INT64_MAX / 30;
            REQUIRE(geul_log_history_add(&h, &e) == GEUL_OK);
        }
        geul_log_report_page(&t, &h, &all);
        geul_log_text_add_bytes(&t, "", 1);
        REQUIRE(!t.failed);
        CHECK(strstr(t.bytes.data, "\"nan\"") == NULL && strstr(t.bytes.data, "\"inf\"") == NULL);
        CHECK(strstr(t.bytes.data, "Mnan") == NULL && strstr(t.bytes.data, " nan\"") == NULL);
        geul_log_text_free(&t);
        geul_log_history_free(&h);
    }
    geul_context_free(ctx);
}

TEST(train_log_ticks_are_round)
{
    double ticks[12];
    int decimals;
    REQUIRE(geul_log_ticks(1.93, 3.07, false, 6, ticks, &decimals) == 6);
    CHECK(fabs(ticks[0] - 2.0) < 1e-12 && fabs(ticks[5] - 3.0) < 1e-12 && decimals == 1);
    REQUIRE(geul_log_ticks(0, 1000, false, 10, ticks, &decimals) == 11);
    CHECK(ticks[10] == 1000 && decimals == 0);
    REQUIRE(geul_log_ticks(-2.1, 1.2, true, 4, ticks, &decimals) == 4);
    CHECK(fabs(ticks[0] - 0.01) < 1e-12 && fabs(ticks[3] - 10) < 1e-9);
    REQUIRE(geul_log_ticks(-0.5, 0.5, true, 4, ticks, &decimals) == 3);
    CHECK(fabs(ticks[0] - 0.5) < 1e-12 && fabs(ticks[2] - 2) < 1e-9);
    CHECK_INT(geul_log_ticks(1, 1, false, 5, ticks, &decimals), 0);
}

/* --------------------------------------------------------------------------- what goes wrong -- */

TEST(train_log_reports_a_full_disk)
{
    char dir[1024], path[1100];
    struct geul_journal_options o = all;
    if (access("/dev/full", W_OK) != 0) {
        test_skip("needs /dev/full");
        return;
    }
    snprintf(dir, sizeof dir, "%s", test_scratch("a/"));
    snprintf(path, sizeof path, "%s/log.jsonl", dir);
    REQUIRE(symlink("/dev/full", path) == 0);
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_journal *log = geul_journal_open(ctx, dir, &o, 0);
    REQUIRE(CHECK_MSG(log != NULL, "%s", geul_error(ctx))); /* nothing was written yet */
    struct geul_journal_record r = record(1);
    CHECK(geul_journal_step(log, &r) == GEUL_ERROR_IO);
    CHECK_MSG(strstr(geul_error(ctx), "log.jsonl") != NULL, "%s", geul_error(ctx));
    CHECK(geul_journal_event(log, 1, "stopped", geul_error(ctx)) == GEUL_ERROR_IO); /* survives the clearing */
    geul_error_clear(ctx);
    geul_fail(ctx, GEUL_ERROR_MEMORY, "of something else, earlier");
    CHECK(geul_journal_sample(log, 1, "a", "b") == GEUL_ERROR_IO);
    CHECK_MSG(strstr(geul_error(ctx), "log.jsonl") != NULL, "%s", geul_error(ctx));
    CHECK(geul_journal_flush(log) == GEUL_OK && geul_error_status(ctx) == GEUL_OK);
    geul_journal_close(log);
    size_t size;
    char *csv = read_file(dir, "log.csv", &size);
    CHECK(csv && strstr(csv, "\n1,2.9375,")); /* the others were served */
    free(csv);
    char *html = read_file(dir, "report.html", &size);
    CHECK(html && strstr(html, "log.jsonl: ")); /* in the event */
    free(html);
    unlink(path);
    snprintf(path, sizeof path, "%s/log.csv", dir);
    unlink(path);
    REQUIRE(symlink("/dev/full", path) == 0); /* its header does not fit */
    CHECK(geul_journal_open(ctx, dir, &o, 0) == NULL && geul_error_status(ctx) == GEUL_ERROR_IO);
    CHECK(geul_journal_open(ctx, dir, &o, 3) == NULL && geul_error_status(ctx) == GEUL_ERROR_IO);
    CHECK(geul_journal_open(ctx, "/nowhere/at/all", &o, 0) == NULL && geul_error_status(ctx) == GEUL_ERROR_IO);
    geul_context_free(ctx);
}

TEST(train_log_refuses_steps_that_no_run_has)
{
    static const int64_t none[] = {-1, INT64_MIN, INT64_MAX, INT64_MAX - 1};
    struct geul_context *ctx = geul_context_new(NULL);
    char dir[1024];
    snprintf(dir, sizeof dir, "%s", test_scratch("a/"));
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        CHECK(geul_journal_open(ctx, dir, &all, none[i]) == NULL);
        CHECK_MSG(geul_error_status(ctx) == GEUL_ERROR_ARGUMENT && strstr(geul_error(ctx), "at step"), "%s",
                  geul_error(ctx));
    }
    geul_context_free(ctx);
}

/* Everything a run does, with an allocator that fails on call n. Whether it went through. */
static bool run_with(struct test_allocator *a, const char *dir, const struct geul_journal_options *o)
{
    struct geul_context_options options = {.allocate = test_allocate, .allocate_user = a};
    struct geul_context *ctx = geul_context_new(&options);
    if (!ctx)
        return false;
    struct geul_journal *log = geul_journal_open(ctx, dir, o, 4);
    bool ok = log && log_steps(log, 5, 8) == GEUL_OK && geul_journal_flush(log) == GEUL_OK;
    CHECK_MSG(ok || geul_error_status(ctx) == GEUL_ERROR_MEMORY, "%s", geul_error(ctx));
    geul_journal_close(log);
    geul_context_free(ctx);
    return ok;
}

/* The folder of the files of events, for take_away(). */
static const char *events_in;

static void take_away(void *user, const char *name)
{
    char path[1400];
    (void)user;
    snprintf(path, sizeof path, "%s/%s", events_in, name);
    if (strstr(name, ".tfevents."))
        unlink(path);
}

static void fail_each_allocation(const char *dir, const struct geul_journal_options *o, long least)
{
    bool ok = false;
    long n = 0;
    while (!ok && n < 3000) {
        struct test_allocator a = {.fail_at = ++n};
        ok = run_with(&a, dir, o);
        events_in = dir; /* a folder takes 1,000 files of one second */
        CHECK(geul_os_list(NULL, dir, take_away, NULL) == GEUL_OK);
        if (!CHECK_MSG(a.outstanding == 0, "%ld allocations are left after call %ld failed", a.outstanding, n))
            return;
    }
    CHECK_MSG(ok && n > least, "went through after %ld", n);
}

TEST(train_log_survives_failing_allocations)
{
    char dir[1024];
    struct geul_journal_options events = {.size = sizeof events, .tensorboard = true}, others = all;
    others.tensorboard = false;
    snprintf(dir, sizeof dir, "%s", run("a/", &all, (const int64_t[][2]){{0, 6}}, 1));
    fail_each_allocation(dir, &others, 40);
    fail_each_allocation(dir, &events, 40);
}
