/* test_row_forms.c: the forms of files: objects over several lines, one array, tables, and what is no text at all. The
 * records expected of tables are those of Python's csv, the objects those of its json. */
#include "tests/harness.h"

#include "corpus/rows.h"

#define BYTES(s) s, sizeof s - 1

/* The rows of a text as "line:question|answer|input;" or "line:text;"; returns how reading ended. */
static enum geul_status list_rows(struct geul_context *ctx, const char *name, const char *data, size_t size,
                                  const char *encoding, char out[1024], struct geul_row_problems *problems)
{
    char *exact = malloc(size ? size : 1); /* so that the sanitizer sees a read too far */
    memcpy(exact, data, size);
    struct geul_rows *rows = geul_rows_open_memory(ctx, exact, size, name, encoding, problems);
    const struct geul_row *row;
    size_t used = 0;
    out[0] = '\0';
    while (rows && geul_rows_next(rows, &row) == GEUL_OK && row) {
        used += (size_t)snprintf(out + used, 1024 - used, "%lld:", (long long)row->line);
        for (int i = 0; i < row->n_turns; i++)
            used += (size_t)snprintf(out + used, 1024 - used, "%s|%s|%s;", row->turns[i].question, row->turns[i].answer,
                                     row->input ? row->input : "");
        if (row->kind == GEUL_ROW_TEXT)
            used += (size_t)snprintf(out + used, 1024 - used, "%.*s;", (int)row->length, row->text);
    }
    enum geul_status status = geul_error_status(ctx);
    geul_rows_close(rows);
    free(exact);
    return status;
}

#define QA "{\n  \"question\": \"q\",\n  \"answer\": \"a\"\n}"
static const struct {
    const char *name, *text, *rows, *problem; /* problem: of the first and only one; NULL: none */
} forms[] = {
    {"p.jsonl", QA "\n" QA "\n{\"text\":\"t\"}\n", "1:q|a|;5:q|a|;9:t;", NULL},
    {"p.jsonl", QA QA " " QA, "1:q|a|;4:q|a|;7:q|a|;", NULL},
    {"p.jsonl", "\xef\xbb\xbf" QA "\r\n\r\n\t" QA "\n", "1:q|a|;6:q|a|;", NULL},
    {"p.jsonl",
     "{\"messages\": [\n{\"role\": \"user\", \"content\": \"q [{\"},\n{\"role\": \"assistant\", \"content\": \"a \\\" "
     "}\"}\n]}\n"
     "{\"text\":\"t\"}",
     "1:q [{|a \" }|;5:t;", NULL},
    /* a broken object takes no row behind it along */
    {"p.jsonl", "{\n\"question\": \"q\"\n\"answer\": \"a\"\n}\n" QA, "5:q|a|;",
     "p.jsonl:1: not valid JSON: '}' expected near '\"answer\"' (line 3"},
    {"p.jsonl", "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"},\n" QA "\n{\"text\":\"t\"}\n", "2:q|a|;6:t;",
     "p.jsonl:1: not valid JSON"},
    {"p.jsonl", "{\"text\":\"a\n" QA "\n{\"text\":\"t\"}\n", "2:q|a|;6:t;", "p.jsonl:1: not valid JSON"},
    {"p.jsonl", "{\"text\":\n{\"text\":\"t\"}\n{\"text\":\"u\"}", "2:t;3:u;", "p.jsonl:1: not valid JSON"},
    {"p.jsonl", QA "\n{\n  \"text\": \"cut", "1:q|a|;", "p.jsonl:5: not valid JSON"},
    {"p.jsonl", "{\n  \"text\": [1}\n}\n{\"text\":\"t\"}", "4:t;", "p.jsonl:1: not valid JSON"},
    {"p.jsonl", "{\n  \"text\": 1\n}\n{\"text\":\"t\"}", "4:t;", "p.jsonl:1: text is a number, not a string"},
    {"a.json", "[\n  " QA ",\n  {\"text\":\"t\"}\n]\n", "2:q|a|;6:t;", NULL},
    {"a.json", " \n[{\"text\":\"t\"},{\"text\":\"u\"},]", "2:t;2:u;", NULL},
    {"a.jsonl", "[{\"text\":\"t\"}, \"[\", {\"text\":\"u\"}]", "1:t;1:u;",
     "a.jsonl:1: element 2: is a string, not an object"},
    {"a.json", "[{\"text\":\"t\"},\n{\"a\":1},\n{\"text\":\"u\"}]", "1:t;3:u;", "a.json:2: element 2: its keys are a;"},
    {"a.json", "[{\"text\":\"t\"},\n{\"text\":},\n{\"text\":\"u\"}]", "1:t;3:u;",
     "a.json:2: element 2: not valid JSON"},
    {"a.json", "[null, 17, {\"text\":\"u\"}]", "1:u;", NULL},
    {"t.csv", "question,answer\nq,a\n\"q,1\",\"a \"\"b\"\"\"\n", "2:q|a|;3:q,1|a \"b\"|;", NULL},
    {"t.CSV", "\xef\xbb\xbfQ,A,label\r\n\"줄\r\n둘\",답,0\r\n\r\nq,a,1", "2:줄\n둘|답|;5:q|a|;", NULL},
    {"t.csv", "instruction;output;input\nq;a,b;\nq;a;i", "2:q|a,b|;3:q|a|i;", NULL},
    {"t.csv", "question\tanswer\nq, 1\ta", "2:q, 1|a|;", NULL},
    {"t.tsv", "id\ttext\n1\t가, \"나\"\n2\t\"다\n라\"\n", "2:가, \"나\";3:다\n라;", NULL},
    {"t.csv", "질문,답변\nq,a\n", "2:q|a|;", NULL},
    {"t.csv", "question,answer\nq\nq,a\n", "3:q|a|;", "t.csv:2: the record has 1 field, the header has 2"},
    {"t.csv", "question,answer\nq,a,b\nq,a\n", "3:q|a|;",
     "t.csv:2: the record has 3 fields, the header has 2: a field"},
    {"t.csv", "question,answer\nq,\nq,a\n", "3:q|a|;", "t.csv:2: answer is empty"},
    {"t.csv", "question,answer\nq,\xff\nq,a\n", "3:q|a|;", "t.csv:2: byte 1 of answer is not UTF-8"},
    {"t.csv",
     "messages\n\"[{\"\"role\"\":\"\"user\"\",\"\"content\"\":\"\"q\"\"},{\"\"role\"\":\"\"assistant\"\","
     "\"\"content\"\":"
     "\"\"a\"\"}]\"\n",
     "2:q|a|;", NULL},
    {"p.txt", "첫 줄\r\n둘\r\n", "1:첫 줄\n둘;", NULL},
    {"p.txt", "<html> is a tag, GGUF a format", "1:<html> is a tag, GGUF a format;", NULL},
    {"p.txt", "GGUF", "1:GGUF;", NULL},
};

TEST(row_forms_of_files)
{
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct geul_context *ctx = geul_context_new(NULL);
        struct geul_row_problems problems = {.ctx = ctx};
        char out[1024];
        int64_t expected = forms[i].problem != NULL;
        if (strstr(forms[i].text, "[null, 17"))
            expected = 2;
        CHECK(list_rows(ctx, forms[i].name, forms[i].text, strlen(forms[i].text), NULL, out, &problems) == GEUL_OK);
        CHECK_MSG(strcmp(out, forms[i].rows) == 0, "case %zu: rows %s", i, out);
        CHECK_MSG(problems.n == expected, "case %zu: %lld problems, %s", i, (long long)problems.n,
                  problems.n ? problems.texts[0] : "");
        if (forms[i].problem && problems.n)
            CHECK_MSG(strncmp(problems.texts[0], forms[i].problem, strlen(forms[i].problem)) == 0, "case %zu: %s", i,
                      problems.texts[0]);
        geul_row_problems_clear(&problems);
        geul_context_free(ctx);
    }
}

#define POINTER                                                                                                        \
    "version https://git-lfs.github.com/spec/v1\noid sha256:"                                                          \
    "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 2662345678\n"
static const struct {
    const char *name, *text;
    size_t size;
    const char *rows, *message;
} failing[] = {
    {"a.json", BYTES("[{\"text\":\"t\"},\n{\"text\":\"u\""), "1:t;",
     "a.json:2: not valid JSON: an element that begins here"},
    {"a.json", BYTES("[{\"text\":\"t\"}\n{\"text\":\"u\"}]"), "1:t;",
     "a.json:2: not valid JSON: a comma or ] is missing"},
    {"a.json", BYTES("[{\"text\":\"t\"}]\n{\"text\":\"u\"}"), "1:t;", "a.json:2: not valid JSON: something follows"},
    {"a.json", BYTES("[{\"text\":\"t\"},"), "1:t;", "a.json:1: not valid JSON: the file ends within its array"},
    {"t.csv", BYTES("question,answer\nq,\"a\nq,a\n"), "", "t.csv:2: a quoted field of this record has no end"},
    {"t.csv", BYTES("name,score\na,1\n"), "", "t.csv: its columns are name, score; expected are instruction"},
    {"t.csv", BYTES("question,answer\n"), "", "t.csv holds no rows"},
    {"t.csv", BYTES(""), "", "t.csv holds no rows"},
    {"t.csv", BYTES("question,answer\n\xbe\xc8\xb3\xe7,\xbe\xc8\xb3\xe7\n"), "",
     "t.csv is CP949 (EUC-KR) text, not UTF-8"},
    {"p.jsonl", BYTES("{\0\"\0t\0e\0x\0t\0\"\0:\0\"\0t\0\"\0}\0"), "", "p.jsonl is UTF-16 (little-endian) text"},
    {"p.txt", BYTES("\xff\xfe\x48\xc5\x0a\0"), "", "p.txt is UTF-16 (little-endian) text, not UTF-8: say so"},
    {"r.parquet", BYTES("PAR1\x15\0"), "", "r.parquet is a Parquet file; make JSON Lines of it: python3 -c"},
    {"r.jsonl", BYTES("PAR1\x15\0"), "", "to_pylist()]' r.jsonl > rows.jsonl"},
    {"r.arrow", BYTES("\xff\xff\xff\xff\x10\0"), "", "r.arrow is an Arrow stream"},
    {"r.jsonl.gz", BYTES("\x1f\x8b\x08\0"), "",
     "r.jsonl.gz is compressed by gzip; unpack it first: gunzip -k r.jsonl.gz"},
    {"r.csv", BYTES("PK\3\4\x14\0"), "", "(.xlsx, .ods, .docx); unpack it first"},
    {"r.jsonl", BYTES(POINTER), "", "r.jsonl is not a file of rows: it is a git-lfs pointer"},
    {"r.csv", BYTES(POINTER), "", "r.csv is not a file of rows: it is a git-lfs pointer"},
    {"r.txt", BYTES(POINTER), "", "r.txt is not a file of rows: it is a git-lfs pointer"},
    {"r.jsonl", BYTES("<!DOCTYPE html>\n<html></html>\n"), "", "it is a web page; a download went wrong"},
    {"r.jsonl", BYTES("GGUF\3\0\0\0"), "", "it is a GGUF file"},
};

TEST(row_forms_that_end_the_reading)
{
    for (size_t i = 0; i < sizeof failing / sizeof *failing; i++) {
        struct geul_context *ctx = geul_context_new(NULL);
        struct geul_row_problems problems = {.ctx = ctx};
        char out[1024];
        CHECK(list_rows(ctx, failing[i].name, failing[i].text, failing[i].size, NULL, out, &problems) ==
              GEUL_ERROR_FORMAT);
        CHECK_MSG(strcmp(out, failing[i].rows) == 0, "case %zu: rows %s", i, out);
        CHECK_MSG(strstr(geul_error(ctx), failing[i].message), "case %zu: %s", i, geul_error(ctx));
        geul_row_problems_clear(&problems);
        geul_context_free(ctx);
    }
}

TEST(row_forms_in_other_encodings)
{
    static const struct {
        const char *name, *text;
        size_t size;
        const char *encoding;
    } cases[] = {
        {"t.csv", BYTES("Q,A\r\n\xbe\xc8\xb3\xe7,\xb3\xd7\r\n"), "cp949"},
        {"t.tsv", BYTES("\xff\xfeQ\0\t\0A\0\r\0\n\0\x48\xc5\x55\xb1\t\0\x24\xb1\r\0\n\0"), "utf-16"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct geul_context *ctx = geul_context_new(NULL);
        struct geul_row_problems problems = {.ctx = ctx};
        char out[1024];
        list_rows(ctx, cases[i].name, cases[i].text, cases[i].size, cases[i].encoding, out, &problems);
        if (strstr(geul_error(ctx), "there is no encoding"))
            test_skip("this system's iconv lacks %s", cases[i].encoding);
        else
            CHECK_STR(out, "2:안녕|네|;");
        geul_row_problems_clear(&problems);
        geul_context_free(ctx);
    }
}

/* What is searched for in vain is bounded: lines that all begin an object and never end one. */
TEST(row_forms_of_hostile_files)
{
    static const char *const lines[] = {"{\"a\":[{},\n", "{\"a\":\n", "{\n",
                                        "{\"a\":[1,\n1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,\n"};
    enum { SIZE = 1 << 20 };
    char *data = malloc(SIZE + 64), out[1024];
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct geul_context *ctx = geul_context_new(NULL);
        struct geul_row_problems problems = {.ctx = ctx};
        size_t n = 0;
        for (; n < SIZE; n += strlen(lines[i]))
            memcpy(data + n, lines[i], strlen(lines[i]) + 1);
        CHECK(list_rows(ctx, "h.jsonl", data, n, NULL, out, &problems) == GEUL_OK && problems.n > 1000);
        geul_row_problems_clear(&problems);
        geul_context_free(ctx);
    }
    free(data);
}

TEST(row_forms_survive_every_failing_allocation)
{
    static const char *const names[] = {"f.csv", "f.json"};
    static const char *const texts[] = {"question,answer,x\n\"q\",a,1\n", "[" QA ",\n{\"a\":1}]"};
    for (int k = 0; k < 2; k++) {
        struct test_shortage s = {.most = 100};
        while (test_shortage_next(&s)) {
            struct geul_row_problems problems = {.ctx = s.ctx};
            char out[1024];
            s.ok = list_rows(s.ctx, names[k], texts[k], strlen(texts[k]), NULL, out, &problems) == GEUL_OK;
            s.ok = s.ok && geul_error_status(s.ctx) == GEUL_OK;
            CHECK(!s.ok || strcmp(out, k ? "1:q|a|;" : "2:q|a|;") == 0);
            geul_row_problems_clear(&problems);
        }
    }
}
