/* test_text_doors.c: every door by which a text comes in, with the marks, line ends and encodings that people's editors
 * write. The ids are those that tokenizers gives for the text as Python's open() reads it. */
#include "tests/command/command_fixture.h"

#include <stdio.h>

/* The list under that key of a run's JSON, as jansson writes it. */
static void check_list(struct test_run run, const char *key, const char *expected)
{
    json_t *json = fixture_json(run);
    char *text = json ? json_dumps(json_object_get(json, key), JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    CHECK_STR(text ? text : "", expected);
    free(text);
    json_decref(json);
}

static struct test_kept put(const char *name, const char *text, size_t size)
{
    struct test_kept path = test_keep(test_scratch(name));
    test_spill(path.text, text, size);
    return path;
}
#define PUT(name, text) put(name, text, sizeof text - 1)

TEST(command_text_doors_drop_marks_and_returns)
{
    struct test_kept model = test_keep(test_mini_model());
    const struct test_kept prompts[] = {PUT("lf.txt", "안녕\n"), PUT("crlf.txt", "안녕\r\n"),
                                        PUT("bom.txt", "\xef\xbb\xbf안녕"), PUT("both.txt", "\xef\xbb\xbf안녕\r\n")};
    for (size_t i = 0; i < sizeof prompts / sizeof *prompts; i++) {
        check_list(GEUL("complete", "-m", model.text, "-f", prompts[i].text, "-n", "1", "--temp", "0", "--json"),
                   "prompt_tokens", "[3879,1486]");
        check_list(GEUL("logits", "-m", model.text, "-f", prompts[i].text, "-o", test_scratch("l.npy"), "--json"),
                   "tokens", "[3879,1486]");
        check_list(GEUL("perplexity", "-m", model.text, "-f", prompts[i].text, "--json"), "tokens", "2");
    }
    const struct test_kept forms[] = {
        PUT("t_lf.txt", "### 질문: {instruction}\n\n### 답변: {output}\n"),
        PUT("t_crlf.txt", "### 질문: {instruction}\r\n\r\n### 답변: {output}\r\n"),
        PUT("t_bom.txt", "\xef\xbb\xbf### 질문: {instruction}\r\n\r\n### 답변: {output}")};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        check_list(GEUL("complete", "-m", model.text, "--template", forms[i].text, "-p", "안녕", "-n", "1", "--temp",
                        "0", "--json"),
                   "prompt_tokens", "[263,276,29,1554,202,202,263,277,29]");
}

TEST(command_text_doors_of_lines)
{
    static const char lines[] = "\xef\xbb\xbf안녕\r\n안녕\n\xef\xbb\xbf안녕\r\n안녕";
    const char *model = test_mini_model();
    const char *const ids[] = {"tokenize", "-m", model, NULL};
    struct test_run run = test_geul(ids, lines, sizeof lines - 1);
    CHECK_STR(run.out, "3879 1486\n3879 1486\n3879 1486\n3879 1486\n");
    test_run_free(&run);
    const char *const chat[] = {"chat", "-m", model, "--temp", "0", "-n", "1", "--json", NULL};
    run = test_geul(chat, lines, sizeof lines - 1);
    int n = 0;
    for (const char *at = run.out; (at = strstr(at, "{\"question\":\"안녕\",")); at++)
        n++;
    CHECK_INT(n, 4);
    test_run_free(&run);
}

TEST(command_text_doors_name_encodings)
{
    static const char cp949[] = "\xbe\xc8\xb3\xe7\n", utf16[] = "\xff\xfe\x48\xc5\x55\xb1\x0a\0";
    const char *model = test_mini_model();
    struct test_kept korean = put("k.txt", cp949, sizeof cp949 - 1), wide = put("w.txt", utf16, sizeof utf16 - 1);
    fixture_fails(GEUL("complete", "-m", model, "-f", korean.text, "-n", "1"), 1,
                  "geul complete: ", "--encoding cp949");
    fixture_fails(GEUL("imatrix", "-m", model, "-f", wide.text, "-o", test_scratch("i")), 1,
                  "geul imatrix: ", "UTF-16 (little-endian)");
    fixture_fails(GEUL("complete", "-m", model, "-p", "a", "--template", wide.text), 1, "geul complete: ", "UTF-16");
    fixture_fails(GEUL("complete", "-m", model, "-f", korean.text, "--encoding", "x"), 1,
                  "geul complete: ", "no encoding \"x\"");
    check_list(GEUL("complete", "-m", model, "-f", wide.text, "--encoding", "utf-16", "-n", "1", "--json"),
               "prompt_tokens", "[3879,1486]");
    static const char *const lines[] = {"tokenize", "chat"};
    for (int i = 0; i < 4; i++) {
        const char *const argv[] = {lines[i / 2], "-m", model, NULL};
        struct test_run run =
            i % 2 ? test_geul(argv, cp949, sizeof cp949 - 1) : test_geul(argv, utf16, sizeof utf16 - 1);
        CHECK_INT(run.status, 1);
        CHECK_MSG(strstr(run.err, i % 2 ? "standard input is cp949, not UTF-8" : "standard input is utf-16le"), "%s",
                  run.err);
        test_run_free(&run);
    }
}
