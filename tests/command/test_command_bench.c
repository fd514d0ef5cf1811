/* test_command_bench.c: measuring, on a model so small that only the shape of the figures means something. */
#include "tests/command/command_fixture.h"

static const char *const tests[] = {"pp40",      "pp8",       "tg6",    "pp40 @ d20",
                                    "pp8 @ d20", "tg6 @ d20", "tg6 x3", "tg6 x3 @ d20"};
enum { N_TESTS = sizeof tests / sizeof *tests };

/* "SIZE:TYPE" of a model of one layer, 64 wide, in static storage; files go to this test's own folder. */
static const char *tiny(const char *type)
{
    static char what[2][1024];
    static int turn;
    char *out = what[turn++ % 2];
    setenv("GEUL_CACHE", test_scratch("cache/"), 1);
    snprintf(out, sizeof what[0], "%s:%s", test_path("golden/quantizable/config.json"), type);
    return out;
}

static double number(const json_t *cell, const char *name)
{
    const json_t *value = json_object_get(cell, name);
    CHECK_MSG(json_is_number(value), "%s is no number", name);
    return json_number_value(value);
}

/* What holds for every cell. */
static void check_cell(const json_t *cell)
{
    static const char *const positive[] = {"tokens_per_s",
                                           "tokens_per_s_low",
                                           "tokens_per_s_high",
                                           "share",
                                           "ceiling_tokens_per_s",
                                           "ceiling_read_bytes_per_s",
                                           "ceiling_int8_macs_per_s",
                                           "ceiling_bf16_macs_per_s",
                                           "ceiling_f32_macs_per_s",
                                           "macs",
                                           "bytes_read",
                                           "load_seconds",
                                           "file_bytes",
                                           "kv_cache_bytes",
                                           "n_threads"};
    for (size_t i = 0; i < sizeof positive / sizeof *positive; i++) {
        double v = number(cell, positive[i]);
        CHECK_MSG(v > 0 && isfinite(v), "%s is %g", positive[i], v);
    }
    CHECK(number(cell, "tokens_per_s_low") <= number(cell, "tokens_per_s"));
    CHECK(number(cell, "tokens_per_s") <= number(cell, "tokens_per_s_high"));
    CHECK(number(cell, "peak_rss_bytes") > 1 << 20);
    CHECK_INT(number(cell, "peak_over_bytes"),
              number(cell, "peak_rss_bytes") - number(cell, "file_bytes") - number(cell, "kv_cache_bytes"));
    if (!test_sanitized())
        CHECK_MSG(number(cell, "peak_rss_bytes") < 256 << 20, "the memory of the ceilings was counted");
}

TEST(command_bench_covers_every_combination)
{
    json_t *json = fixture_json(GEUL("bench", "--synthetic", tiny("q8_0"), "-p", "40,8", "-n", "6", "-d", "0,20",
                                     "--parallel", "1,3", "-r", "1", "-t", "1", "-b", "16", "--json"));
    REQUIRE(json);
    json_t *cells = json_object_get(json, "cells"), *cell;
    CHECK_INT(json_array_size(cells), N_TESTS);
    size_t i;
    json_array_foreach(cells, i, cell)
    {
        check_cell(cell);
        CHECK_STR(json_string_value(json_object_get(cell, "test")), tests[i]);
        CHECK_STR(json_string_value(json_object_get(cell, "types")), "q8_0");
        CHECK_INT(number(cell, "n_threads"), 1);
        CHECK_INT(number(cell, "repetitions"), 1);
    }
    /* one layer, 64 x (3 x 64 + 64 + 2 x 128) per token, and the logits of the last one */
    CHECK_INT(number(json_array_get(cells, 0), "macs"), 40 * 64 * 512 + 96 * 64);
    CHECK_INT(number(json_array_get(cells, 6), "macs"), 3 * 6 * (64 * 512 + 96 * 64));
    /* weights: 34 bytes per 32 of the matrices, and 4 of each norm and bias; 6 steps over 1 to 6, or 21 to 26,
     * positions of 2 x 64 x 2 bytes */
    double weights = (64 * 512 + 96 * 64) / 32 * 34 + 4 * (6 * 64 + 3 * 64 + 64 + 128 + 64);
    CHECK_INT(number(json_array_get(cells, 2), "bytes_read"), 6 * weights + 21 * 256);
    CHECK_INT(number(json_array_get(cells, 5), "bytes_read"), 6 * weights + (6 * 20 + 21) * 256);
    CHECK_INT(number(json_array_get(cells, 7), "bytes_read"), 6 * weights + 3 * (6 * 20 + 21) * 256);
    json_decref(json);
}

/* Fields of a CSV line, which is cut up; quotation marks are taken off. */
static int split(char *line, char **fields, int most)
{
    int n = 0;
    for (char *at = line; at && n < most; n++) {
        bool quoted = *at == '"';
        fields[n] = quoted ? at + 1 : at;
        at = strchr(fields[n], quoted ? '"' : ',');
        if (at && quoted)
            *at++ = '\0';
        if (at && *at)
            *at++ = '\0';
        else
            at = NULL;
    }
    return n;
}

TEST(command_bench_csv_has_a_line_per_cell)
{
    struct test_run r = GEUL("bench", "--synthetic", tiny("f32"), "--synthetic", tiny("bf16"), "-p", "8", "-n", "0",
                             "-r", "2", "-t", "1,2", "--csv");
    CHECK_MSG(r.status == 0, "%s", r.err);
    char *line[16], *field[16][64];
    int n_lines = 0, n_fields = 0;
    for (char *at = strtok(r.out, "\n"); at && n_lines < 16; at = strtok(NULL, "\n"))
        line[n_lines++] = at;
    CHECK_INT(n_lines, 1 + 2 * 2);
    for (int i = 0; i < n_lines; i++) {
        int n = split(line[i], field[i], 64);
        CHECK_MSG(i == 0 || n == n_fields, "line %d has %d fields, the header %d", i, n, n_fields);
        n_fields = n;
    }
    for (int k = 0; k < n_fields && n_lines == 5; k++)
        for (int i = 1; i < n_lines; i++) {
            if (strcmp(field[0][k], "test") == 0)
                CHECK_STR(field[i][k], "pp8");
            if (strcmp(field[0][k], "repetitions") == 0)
                CHECK_STR(field[i][k], "2");
            if (strcmp(field[0][k], "types") == 0)
                CHECK_STR(field[i][k], i < 3 ? "f32" : "bf16");
            if (strcmp(field[0][k], "n_threads") == 0)
                CHECK_STR(field[i][k], (i - 1) % 2 ? "2" : "1");
            if (strcmp(field[0][k], "share") == 0 || strcmp(field[0][k], "tokens_per_s") == 0)
                CHECK_MSG(atof(field[i][k]) > 0, "%s", field[i][k]);
        }
    test_run_free(&r);
}

TEST(command_bench_prints_in_one_form)
{
    fixture_fails(GEUL("bench", "-m", "x.gguf", "--csv", "--json"), 2, "geul bench: --csv", "--json");
    fixture_fails(GEUL("bench", "-m", "x.gguf", "--csv", "--step"), 2, "geul bench: --csv", "--step");
}

TEST(command_bench_table_is_aligned)
{
    struct test_run r = GEUL("bench", "--synthetic", tiny("q4_0"), "-p", "8", "-n", "2", "-r", "1", "-ctk", "f32");
    CHECK_MSG(r.status == 0, "%s", r.err);
    const char *row = strchr(r.out, '\n'), *next = row ? strchr(row + 1, '\n') : NULL;
    REQUIRE(row && next);
    const char *test = strstr(r.out, "test"), *prompt = strstr(row, "pp8"), *text = strstr(next, "tg2");
    REQUIRE(test && prompt && text);
    CHECK_INT(prompt - row - 1, test - r.out);
    CHECK_INT(text - next - 1, test - r.out);
    CHECK(strstr(r.out, "ceilings: memory"));
    test_run_free(&r);
}

TEST(command_bench_steps_when_told)
{
    const char *argv[] = {"bench", "--synthetic", tiny("q8_0"), "-p", "8", "-n", "2", "-r", "2", "--step", NULL};
    struct test_run r = test_geul(argv, "\n\n\n", 3); /* the fourth repetition never comes */
    CHECK_MSG(r.status == 0, "%s", r.err);
    int n = 0;
    for (char *at = strtok(r.out, "\n"); at; at = strtok(NULL, "\n"), n++) {
        json_t *cell = json_loads(at, 0, NULL);
        REQUIRE(CHECK_MSG(cell, "no JSON: %s", at));
        check_cell(cell);
        CHECK_STR(json_string_value(json_object_get(cell, "test")), n < 2 ? "pp8" : "tg2");
        json_decref(cell);
    }
    CHECK_INT(n, 3);
    test_run_free(&r);
}

TEST(command_bench_keeps_synthetic_files)
{
    char path[1024];
    struct test_run r = GEUL("bench", "--synthetic", tiny("q8_0"), "-p", "4", "-n", "0", "-r", "1");
    CHECK_MSG(r.status == 0 && strstr(r.err, "making "), "%s", r.err);
    test_run_free(&r);
    r = GEUL("bench", "--synthetic", tiny("q8_0"), "-p", "4", "-n", "0", "-r", "1");
    CHECK_INT(r.status, 0);
    CHECK_STR(r.err, "");
    test_run_free(&r);
    /* one that has other types than the name says is made again */
    snprintf(path, sizeof path, "%s/synthetic-config.json-q8_0.gguf", getenv("GEUL_CACHE"));
    r = GEUL("synth", tiny("f32"), "-o", path);
    CHECK_MSG(r.status == 0, "%s", r.err);
    test_run_free(&r);
    r = GEUL("bench", "--synthetic", tiny("q8_0"), "-p", "4", "-n", "0", "-r", "1");
    CHECK_MSG(r.status == 0 && strstr(r.err, "making "), "%s", r.err);
    CHECK(strstr(r.out, " q8_0 "));
    test_run_free(&r);
}

/* The column of "test" starts where its header does, also under names of Hangul and beside speeds of five digits. */
TEST(command_bench_aligns_hangul_and_depths)
{
    char path[1024];
    snprintf(path, sizeof path, "%s", test_scratch("한글 모형.gguf"));
    struct test_run r = GEUL("synth", tiny("q8_0"), "-o", path);
    CHECK_MSG(r.status == 0, "%s", r.err);
    test_run_free(&r);
    r = GEUL("bench", "-m", path, "--synthetic", tiny("q8_0"), "-p", "40", "-n", "2", "-d", "100", "-r", "1", "-t",
             "1");
    CHECK_MSG(r.status == 0, "%s", r.err);
    const char *test = strstr(r.out, "test "), *end = strchr(r.out, '\n');
    REQUIRE(test && end);
    size_t width = (size_t)(end - r.out);
    int n = 0;
    for (const char *line = end + 1; *line && *line != '\n'; line = strchr(line, '\n') + 1, n++) {
        size_t bytes = (size_t)(strchr(line, '\n') - line), shift = 0; /* bytes beyond columns: a syllable has 3 in 2 */
        for (size_t i = 0; i < bytes; i++)
            shift += (unsigned char)line[i] >= 0xea && (unsigned char)line[i] <= 0xed;
        CHECK_INT(bytes - shift, width);
        const char *at = line + (test - r.out) + shift;
        CHECK_MSG(strncmp(at, "pp40", 4) == 0 || strncmp(at, "tg2", 3) == 0, "%.*s", (int)bytes, line);
    }
    CHECK_INT(n, 2 * 2);
    test_run_free(&r);
}

TEST(command_bench_forms_of_output)
{
    struct test_run r = GEUL("bench", "--synthetic", tiny("q8_0"), "-p", "8", "-n", "2", "-r", "1", "-o", "md");
    CHECK_MSG(r.status == 0 && strncmp(r.out, "| model |", 9) == 0 && strstr(r.out, "\n| --- |"), "%s%s", r.err, r.out);
    int bars = -1;
    char *text = r.out, *end = strstr(r.out, "\n\n");
    REQUIRE(end);
    end[1] = '\0';
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        int n = 0;
        for (const char *s = line; *s; s++)
            n += *s == '|' && (s == line || s[-1] != '\\');
        CHECK(bars < 0 || n == bars);
        bars = n;
    }
    test_run_free(&r);
    r = GEUL("bench", "--synthetic", tiny("q8_0"), "-p", "8", "-n", "2", "-r", "1", "-o", "jsonl");
    CHECK_MSG(r.status == 0, "%s", r.err);
    int n = 0;
    for (char *line = strtok(r.out, "\n"); line; line = strtok(NULL, "\n"), n++) {
        json_t *cell = json_loads(line, 0, NULL);
        REQUIRE(cell);
        check_cell(cell);
        json_decref(cell);
    }
    CHECK_INT(n, 2);
    test_run_free(&r);
    fixture_fails(GEUL("bench", "-m", "x.gguf", "-o", "sql"), 2, "geul bench: -o", "jsonl");
    fixture_fails(GEUL("bench", "-m", "x.gguf", "-o", "md", "--csv"), 2, "geul bench: -o", "--csv");
}
