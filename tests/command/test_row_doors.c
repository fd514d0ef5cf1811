/* test_row_doors.c: files of rows as people bring them, through finetune and tokenize; and decomposed Hangul. */
#include "tests/command/command_fixture.h"

#include <stdio.h>

static struct test_kept put(const char *name, const char *text)
{
    struct test_kept path = test_keep(test_scratch(name));
    test_spill(path.text, text, strlen(text));
    return path;
}

/* What a preview of the file prints. */
static struct test_run preview(const char *path, const char *option, const char *value)
{
    return GEUL("finetune", "-m", test_mini_model(), "--train-file", path, "--template", "koalpaca", "--preview", "3",
                "-o", test_scratch("x"), "--held-out", "0", "-c", "128", option, value);
}

#define ASKED "⟦### 질문: 안녕\n\n### 답변:⟧ 반가워요.<|endoftext|>\n"
static const struct {
    const char *name, *text, *out, *err; /* parts of what is printed */
} cases[] = {
    {"m.jsonl",
     "{\"messages\":[{\"role\":\"user\",\"content\":\"안녕\"},{\"role\":\"assistant\",\"content\":\"반가워요.\"}]}",
     ASKED, "m.jsonl: JSON Lines; messages (1 row)"},
    {"sharegpt.jsonl",
     "{\"id\": \"x\", \"conversations\": [{\"from\": \"human\", \"value\": \"안녕\"}, {\"from\": \"gpt\", \"value\": "
     "\"반가워요.\"}]}",
     ASKED, "sharegpt.jsonl: not used: id (1 row)"},
    {"array.json", "[\n  {\n    \"question\": \"안녕\",\n    \"answer\": \"반가워요.\"\n  }\n]\n", ASKED,
     "array.json: a JSON array; question and answer (1 row)"},
    {"table.csv", "\xef\xbb\xbfQ,A,label\r\n안녕,반가워요.,0\r\n", ASKED, "table.csv: not used: label (1 row)"},
    {"history.jsonl",
     "{\"instruction\":\"둘째\",\"input\":\"맥\",\"output\":\"답\",\"history\":[[\"첫째\",\"첫 답\"]]}",
     "⟦### 질문: 첫째\n\n### 답변:⟧ 첫 답<|endoftext|>⟦### 질문: 둘째\n\n### 맥락: 맥\n\n### 답변:⟧ 답<|endoftext|>",
     "JSON Lines"},
    {"system.jsonl", "{\"system\":\"너는 친절해\",\"instruction\":\"안녕\",\"input\":\"\",\"output\":\"반가워요.\"}",
     "⟦### 질문: 안녕\n\n### 맥락: 너는 친절해\n\n### 답변:⟧ 반가워요.<|endoftext|>", "JSON Lines"},
    {"both.jsonl", "{\"system\":\"너는 친절해\",\"instruction\":\"안녕\",\"input\":\"맥\",\"output\":\"반가워요.\"}",
     "⟦### 질문: 너는 친절해\n\n안녕\n\n### 맥락: 맥\n\n### 답변:⟧ 반가워요.<|endoftext|>", "1 inputs were joined"},
    {"weight.jsonl",
     "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"틀린 "
     "답\",\"weight\":0},"
     "{\"role\":\"user\",\"content\":\"b\"},{\"role\":\"assistant\",\"content\":\"d\",\"weight\":1}]}",
     "⟦### 질문: a\n\n### 답변: 틀린 답<|endoftext|>### 질문: b\n\n### 답변:⟧ d<|endoftext|>",
     "weight.jsonl: read, not learned: answers in a prompt, with weight 0 or train false (1)"},
};

TEST(command_row_doors_show_what_is_learned)
{
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct test_kept path = put(cases[i].name, cases[i].text);
        struct test_run run = preview(path.text, "--mask-prompt", "on");
        CHECK_INT(run.status, 0);
        CHECK_MSG(strstr(run.out, cases[i].out), "case %zu: %s", i, run.out);
        CHECK_MSG(strstr(run.err, cases[i].err), "case %zu: %s", i, run.err);
        test_run_free(&run);
    }
}

/* With the prompts learned too, an answer that is marked is still only read. */
TEST(command_row_doors_keep_marks_without_a_mask)
{
    struct test_kept path = put(cases[7].name, cases[7].text);
    struct test_run run = preview(path.text, "--mask-prompt", "off");
    CHECK_MSG(strstr(run.out, "⟦ 틀린 답<|endoftext|>⟧### 질문: b"), "%s", run.out);
    test_run_free(&run);
    const char *const prefix = test_scratch("sh");
    run = GEUL("tokenize", "-m", test_mini_model(), "--shards", prefix, path.text);
    CHECK_INT(run.status, 0);
    CHECK_MSG(strstr(run.err, "1 answers that are marked as not to be learned are in the shards"), "%s", run.err);
    test_run_free(&run);
}

TEST(command_row_doors_read_other_encodings)
{
    static const char cp949[] = "Q,A\n\xbe\xc8\xb3\xe7,\xb9\xdd\xb0\xa1\xbf\xf6\xbf\xe4.\n";
    struct test_kept path = put("k.csv", cp949);
    struct test_run run = preview(path.text, "--encoding", "cp949");
    if (strstr(run.err, "there is no encoding"))
        test_skip("this system's iconv lacks cp949");
    else
        CHECK_MSG(strstr(run.out, ASKED), "%s%s", run.out, run.err);
    test_run_free(&run);
    fixture_fails(preview(path.text, "--mask-prompt", "on"), 1, "geul finetune: ", "k.csv is CP949 (EUC-KR) text");
}

/* ------------------------------------------------------------------------------ decomposed text -- */

#define NFD_HELLO "\xe1\x84\x8b\xe1\x85\xa1\xe1\x86\xab\xe1\x84\x82\xe1\x85\xa7\xe1\x86\xbc" /* 안녕 in six jamo */

/* The text that JSON has under that key of the first line of a run that is given input. */
static char *answer(const char *const *argv, const char *input, const char *key)
{
    struct test_run run = test_geul(argv, input, strlen(input));
    json_t *json = json_loads(run.out, JSON_DISABLE_EOF_CHECK, NULL);
    char *text = json_dumps(json_object_get(json, key), JSON_ENCODE_ANY | JSON_COMPACT);
    CHECK_MSG(text, "%s%s", run.out, run.err);
    json_decref(json);
    test_run_free(&run);
    return text ? text : strdup("");
}

TEST(command_answers_decomposed_hangul_as_composed)
{
    const char *model = test_mini_model();
    static const char *const keys[] = {"prompt_tokens", "tokens", "question"};
    const char *const automatic[] = {"chat", "-m", model, "--temp", "0", "--json", "-n", "8", NULL};
    const char *const off[] = {"chat", "-m", model, "--temp", "0", "--json", "-n", "8", "--nfc", "off", NULL};
    for (int i = 0; i < 3; i++) {
        char *nfc = answer(automatic, "안녕\n", keys[i]), *nfd = answer(automatic, NFD_HELLO "\n", keys[i]);
        char *kept = answer(off, NFD_HELLO "\n", keys[i]);
        CHECK_STR(nfd, nfc);
        CHECK(strcmp(kept, nfc) != 0);
        free(nfc);
        free(nfd);
        free(kept);
    }
    const char *const complete[] = {"complete", "-m", model, "-p", "-", "-n", "1", "--json", NULL};
    const char *const plain[] = {"complete", "-m", model, "-p", "-", "-n", "1", "--json", "--nfc", "off", NULL};
    char *ids = answer(complete, NFD_HELLO, "prompt_tokens"), *others = answer(plain, NFD_HELLO, "prompt_tokens");
    CHECK_STR(ids, "[3879,1486]");
    CHECK(strlen(others) > 3 * strlen(ids)); /* the bytes of the jamo */
    free(ids);
    free(others);
    const char *const system[] = {"chat", "-m", model, "--json", "-n", "1", "-sys", NFD_HELLO, NULL};
    const char *const same[] = {"chat", "-m", model, "--json", "-n", "1", "-sys", "안녕", NULL};
    ids = answer(system, "응\n", "prompt_tokens");
    others = answer(same, "응\n", "prompt_tokens");
    CHECK_STR(ids, others);
    free(ids);
    free(others);
}

TEST(command_rows_of_decomposed_hangul)
{
    struct test_kept path = put("nfd.jsonl", "{\"question\":\"" NFD_HELLO "\",\"answer\":\"반가워요.\"}\n");
    struct test_run run = preview(path.text, "--nfc", "auto");
    CHECK_MSG(strstr(run.out, ASKED) && strstr(run.out, "13 tokens, 4 of them learned"), "%s", run.out);
    CHECK_MSG(strstr(run.err, "1 row has decomposed characters (NFD), which were composed"), "%s", run.err);
    test_run_free(&run);
    run = preview(path.text, "--nfc", "off");
    CHECK_MSG(!strstr(run.out, ASKED), "%s", run.out);
    CHECK_MSG(strstr(run.err, "1 row has decomposed characters (NFD); --nfc on composes them"), "%s", run.err);
    test_run_free(&run);
}
