/* test_rows.c: rows of every shape, and every kind of broken row with its line. */
#include "tests/harness.h"
#include "tests/hostile.h"

#include "corpus/rows.h"

#define BYTES(s) s, sizeof s - 1

/* The rows of a text as "line:question|answer|input|system;" or "line:text;", at most 1,023 bytes. */
static void list_rows(struct geul_context *ctx, const char *name, const char *data, size_t size, char out[1024],
                      struct geul_row_problems *problems)
{
    char *exact = malloc(size ? size : 1); /* so that the sanitizer sees a read too far */
    memcpy(exact, data, size);
    struct geul_rows *rows = geul_rows_open_memory(ctx, exact, size, name, NULL, problems);
    const struct geul_row *row;
    size_t used = 0;
    out[0] = '\0';
    while (rows && geul_rows_next(rows, &row) == GEUL_OK && row) {
        used += (size_t)snprintf(out + used, 1024 - used, "%lld:", (long long)row->line);
        for (int i = 0; i < row->n_turns; i++)
            used +=
                (size_t)snprintf(out + used, 1024 - used, "%s|%s|%s|%s;", row->turns[i].question, row->turns[i].answer,
                                 row->input ? row->input : "", row->system ? row->system : "");
        if (row->kind == GEUL_ROW_TEXT)
            used += (size_t)snprintf(out + used, 1024 - used, "%.*s;", (int)row->length, row->text);
    }
    geul_rows_close(rows);
    free(exact);
}

TEST(rows_of_every_shape)
{
    static const char text[] =
        "\xef\xbb\xbf{\"instruction\":\"가\",\"input\":\"나\",\"output\":\"다\",\"text\":\"무시\"}\r\n"
        "\n  \t\r\n"
        "{\"instruction\":\"i\",\"input\":\" \",\"output\":\"o\"}\n"
        "{\"instruction\":\"i\",\"input\":null,\"output\":\"o\",\"id\":7}\n"
        "{\"question\":\"q\",\"answer\":\"\\n a\"}\n"
        "{\"completion\":\"c\",\"prompt\":\"p\"}\n"
        "{\"text\":\"t\\u000a\\\"x\\\"\"}\n"
        "{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"u1\"},"
        "{\"role\":\"assistant\",\"content\":\"a1\"},{\"role\":\"user\",\"content\":\"u2\",\"name\":\"n\"},"
        "{\"role\":\"assistant\",\"content\":\"a2\"}]}\n"
        "{\"messages\":[{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\",\"content\":\"a\"}]}";
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_row_problems problems = {.ctx = ctx};
    char out[1024];
    list_rows(ctx, "a.jsonl", BYTES(text), out, &problems);
    CHECK_STR(out, "1:가|다|나|;4:i|o||;5:i|o||;6:q|\n a||;7:p|c||;8:t\n\"x\";9:u1|a1||s;u2|a2||s;10:u|a||;");
    CHECK_INT(problems.n, 0);
    CHECK(geul_error_status(ctx) == GEUL_OK);
    geul_row_problems_clear(&problems);
    geul_context_free(ctx);
}

/* What Python's json module writes and reads, under keys that rows do not use and under those that they do. */
TEST(rows_are_read_as_python_reads_them)
{
    static const char text[] =
        "\xef\xbb\xbf{\"text\":\"a\",\"id\":1000000000000000019884624838656}\n"
        "{\"score\":NaN,\"text\":\"b\",\"range\":[-Infinity,Infinity,1e999,-123456789012345678901234567890]}\n"
        "{\"text\":\"not this\",\"text\":\"c\"}\n"
        "{\"title\":\"cut \\ud83d\",\"a\\u0000\":1,\"text\":\"NaN \\ud83d\\ude00 1e999\"}\n";
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_row_problems problems = {.ctx = ctx};
    char out[1024];
    list_rows(ctx, "a.jsonl", BYTES(text), out, &problems);
    CHECK_STR(out, "1:a;2:b;3:c;4:NaN \xf0\x9f\x98\x80 1e999;");
    CHECK_INT(problems.n, 0);
    geul_row_problems_clear(&problems);
    geul_context_free(ctx);
}

static const struct {
    const char *line;
    size_t size;
    const char *message;
} broken[] = {
    {BYTES("{"), "not valid JSON"},
    {BYTES("instruction,output"), "not valid JSON"},
    {BYTES("{\"text\":\"a\"} {\"text\":\"b\"}"), "not valid JSON"},
    {BYTES("{\"text\":\"a\xff\"}"), "byte 11 of the line is not UTF-8"},
    {BYTES("{\"text\":\"\xed\xa0\x80\"}"), "byte 10 of the line is not UTF-8"},
    {BYTES("\xbe\xc8\xb3\xe7"), "byte 1 of the line is not UTF-8"}, /* CP949 */
    {BYTES("{\"text\":\"a\0b\"}"), "NUL byte"},
    {BYTES("{\"text\":\"a\\u0000b\"}"), "text holds a NUL"},
    {BYTES("{\"text\":\"\\ud800\"}"), "text is broken Unicode (half a surrogate pair), not a string"},
    {BYTES("{\"text\":NaN}"), "text is NaN, not a string"},
    {BYTES("{\"instruction\":\"a\",\"input\":-Infinity,\"output\":\"b\"}"), "input is -Infinity, not a string"},
    {BYTES("{\"id\":NaN,\"text\":\"a\" \"b\"}"), "(column 24)"},
    {BYTES("7"), "is a number, not an object"},
    {BYTES("\"text\""), "is a string, not an object"},
    {BYTES("[{\"text\":\"a\"}]"), "is an array, not an object"},
    {BYTES("{}"), "the object is empty; expected are instruction"},
    {BYTES("{\"title\":\"a\",\"body\":\"b\"}"), "its keys are title, body; expected are instruction"},
    {BYTES("{\"instruction\":\"a\",\"answer\":\"b\"}"), "its keys are instruction, answer"},
    {BYTES("{\"instruction\":\"a\",\"output\":5}"), "output is a number, not a string"},
    {BYTES("{\"instruction\":\"a\",\"output\":\"\"}"), "output is empty"},
    {BYTES("{\"instruction\":\" \\n\",\"output\":\"b\"}"), "instruction is empty"},
    {BYTES("{\"instruction\":\"a\",\"input\":[5],\"output\":\"b\"}"), "input[0] is a number, not a part"},
    {BYTES("{\"instruction\":\"a\",\"input\":{},\"output\":\"b\"}"), "input is an object"},
    {BYTES("{\"question\":null,\"answer\":\"b\"}"), "question is null"},
    {BYTES("{\"prompt\":\"a\",\"completion\":\" \"}"), "completion is empty"},
    {BYTES("{\"text\":\"\"}"), "text is empty"},
    {BYTES("{\"messages\":\"a\"}"), "messages is a string, not an array"},
    {BYTES("{\"messages\":[]}"), "no question with an answer"},
    {BYTES("{\"messages\":[1]}"), "messages[0] is a number, not an object"},
    {BYTES("{\"messages\":[{\"content\":\"a\"}]}"), "messages[0].role is missing"},
    {BYTES("{\"messages\":[{\"role\":\"tool\",\"content\":\"a\"}]}"), "messages[0].role is \"tool\""},
    {BYTES("{\"messages\":[{\"role\":\"user\",\"content\":null}]}"), "messages[0].content is null"},
    {BYTES("{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}"), "an answer is missing"},
    {BYTES("{\"messages\":[{\"role\":\"system\",\"content\":\"a\"}]}"), "no question with an answer"},
    {BYTES("{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\"}]}"), "messages holds no question with an answer"},
    {BYTES("{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"a\"}]}"),
     "messages[1].role is assistant, but it is"},
    {BYTES("{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"user\",\"content\":\"a\"}]}"),
     "messages[1].role is user, but it is"},
    {BYTES("{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"system\",\"content\":\"a\"}]}"),
     "only the first"},
    {BYTES("{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"\"}]}"),
     "messages[1].content is empty"},
};

TEST(rows_name_every_problem_with_its_line)
{
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        struct bytes b = {0};
        struct meter meter;
        struct geul_context *ctx = meter_context(&meter);
        struct geul_row_problems problems = {.ctx = ctx};
        char out[1024];
        bytes_text(&b, "{\"text\":\"first\"}\n\n");
        bytes_put(&b, broken[i].line, broken[i].size);
        bytes_text(&b, "\n{\"text\":\"last\"}\n");
        list_rows(ctx, "data/b.jsonl", (char *)b.data, b.size, out, &problems);
        CHECK_MSG(strcmp(out, "1:first;4:last;") == 0, "case %zu: rows %s", i, out);
        CHECK_INT(problems.n, 1);
        if (CHECK_INT(problems.n_texts, 1)) {
            CHECK_MSG(strncmp(problems.texts[0], "data/b.jsonl:3: ", 16) == 0, "%s", problems.texts[0]);
            CHECK_MSG(strstr(problems.texts[0], broken[i].message), "case %zu: %s", i, problems.texts[0]);
        }
        geul_row_problems_clear(&problems);
        bytes_free(&b);
        geul_context_free(ctx);
    }
}

TEST(rows_count_problems_and_keep_the_first)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_row_problems problems = {.ctx = ctx};
    struct bytes b = {0};
    char out[1024];
    for (int i = 0; i < 50; i++)
        bytes_text(&b, "{\"a\\u001bb\":1}\n");
    list_rows(ctx, "c.jsonl", (char *)b.data, b.size, out, &problems);
    CHECK_INT(problems.n, 50);
    REQUIRE(problems.n_texts == GEUL_ROW_PROBLEMS_KEPT);
    CHECK(strncmp(problems.texts[19], "c.jsonl:20: ", 12) == 0);
    CHECK(!strchr(problems.texts[0], '\033')); /* nothing that a terminal obeys */
    CHECK(geul_error_status(ctx) == GEUL_OK);
    geul_row_problems_clear(&problems);
    bytes_free(&b);
    geul_context_free(ctx);
}

/* Keys in Korean without end do not leave half a character in a message. */
TEST(rows_messages_are_utf8)
{
    struct geul_context *ctx = geul_context_new(NULL);
    for (int pad = 0; pad < 3; pad++) {
        struct geul_row_problems problems = {.ctx = ctx};
        struct bytes b = {0};
        char out[1024];
        bytes_text(&b, "{\"");
        for (int i = 0; i < pad; i++)
            bytes_text(&b, "x");
        for (int i = 0; i < 300; i++)
            bytes_text(&b, "가");
        bytes_text(&b, "\":1}");
        list_rows(ctx, "d.jsonl", (char *)b.data, b.size, out, &problems);
        REQUIRE(problems.n_texts == 1);
        const char *from = strstr(problems.texts[0], "가"), *to = strstr(problems.texts[0], "...");
        CHECK(from && to && (to - from) % 3 == 0);
        geul_row_problems_clear(&problems);
        bytes_free(&b);
    }
    geul_context_free(ctx);
}

/* A terminal may take U+009B for ESC [, and U+202E turns the line around. */
TEST(rows_messages_are_printable)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_row_problems problems = {.ctx = ctx};
    static const char row[] = "{\"\302\2332J\342\200\256 \\u009b \\u001b[2J\":1}";
    char out[1024];
    list_rows(ctx, "d\302\2331m.jsonl", row, sizeof row - 1, out, &problems);
    REQUIRE(problems.n_texts == 1);
    CHECK_MSG(!strstr(problems.texts[0], "\302\233") && !strstr(problems.texts[0], "\342\200\256") &&
                  !strchr(problems.texts[0], '\33') && strstr(problems.texts[0], "?2J? ? ?[2J"),
              "%s", problems.texts[0]);
    geul_row_problems_clear(&problems);
    geul_context_free(ctx);
}

TEST(rows_of_empty_files_and_arrays)
{
    static const struct {
        const char *name, *text, *message;
    } cases[] = {{"e.jsonl", "", "holds no rows"},       {"e.jsonl", "\n \r\n\t\n", "holds no rows"},
                 {"e.txt", "", "holds no rows"},         {"e.txt", " \n\n", "holds no rows"},
                 {"e.jsonl", "\xef\xbb\xbf", "no rows"}, {"e.json", " [\n]\n", "its JSON array is empty"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct geul_context *ctx = geul_context_new(NULL);
        struct geul_row_problems problems = {.ctx = ctx};
        char out[1024];
        list_rows(ctx, cases[i].name, cases[i].text, strlen(cases[i].text), out, &problems);
        CHECK(geul_error_status(ctx) == GEUL_ERROR_FORMAT && problems.n == 0);
        CHECK_MSG(strstr(geul_error(ctx), cases[i].name) && strstr(geul_error(ctx), cases[i].message), "%s",
                  geul_error(ctx));
        geul_context_free(ctx);
    }
}

TEST(rows_of_plain_texts)
{
    static const struct {
        const char *text;
        size_t size;
        const char *rows, *problem;
    } cases[] = {
        {BYTES("\xef\xbb\xbf첫 줄\n둘째\r\n"), "1:첫 줄\n둘째;", NULL},
        {BYTES("{\"text\":1}\n\n"), "1:{\"text\":1}\n;", NULL},
        {BYTES("가\n나\n\xb0\xa1"), "", "p.txt:3: byte 9 of the file is not UTF-8"},
        {BYTES("가\nb\0"), "", "p.txt:2: the text holds a NUL byte"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct geul_context *ctx = geul_context_new(NULL);
        struct geul_row_problems problems = {.ctx = ctx};
        char out[1024];
        list_rows(ctx, "p.txt", cases[i].text, cases[i].size, out, &problems);
        CHECK_STR(out, cases[i].rows);
        CHECK_INT(problems.n, cases[i].problem != NULL);
        if (cases[i].problem && problems.n_texts)
            CHECK_MSG(strstr(problems.texts[0], cases[i].problem), "%s", problems.texts[0]);
        geul_row_problems_clear(&problems);
        geul_context_free(ctx);
    }
}

TEST(rows_bound_the_length_of_lines)
{
    size_t size = ((size_t)64 << 20) + 100;
    char *data = malloc(size + 32), out[1024];
    memset(data, 'x', size);
    strcpy(data + size, "\n{\"text\":\"short\"}");
    struct meter meter;
    struct geul_context *ctx = meter_context(&meter);
    struct geul_row_problems problems = {.ctx = ctx};
    list_rows(ctx, "long.jsonl", data, size + 17, out, &problems);
    CHECK_STR(out, "2:short;");
    CHECK(problems.n_texts == 1 && strstr(problems.texts[0], "long.jsonl:1: the line has 64 MiB"));
    CHECK(meter.peak < 1 << 20);
    geul_row_problems_clear(&problems);
    geul_context_free(ctx);
    free(data);
}

TEST(rows_survive_every_failing_allocation)
{
    static const char text[] =
        "{\"foo\":1}\n{\"messages\":[{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\","
        "\"content\":\"a\"}]}\n{\"text\":\"t\"}";
    struct test_shortage s = {.most = 100};
    while (test_shortage_next(&s)) {
        struct geul_row_problems problems = {.ctx = s.ctx};
        char out[1024];
        list_rows(s.ctx, "f.jsonl", BYTES(text), out, &problems);
        s.ok = geul_error_status(s.ctx) == GEUL_OK;
        CHECK(!s.ok || strcmp(out, "2:u|a||;3:t;") == 0);
        geul_row_problems_clear(&problems);
    }
}
