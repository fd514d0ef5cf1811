/* test_command_shards.c: `geul tokenize --shards`. */
#include "tests/command/command_fixture.h"

/* A scratch file with that text; three at a time. */
static const char *input(const char *name, const char *text)
{
    static char path[3][1024];
    static int turn;
    char *p = path[turn++ % 3];
    snprintf(p, sizeof path[0], "%s", test_scratch(name));
    test_spill(p, text, strlen(text));
    return p;
}

TEST(command_shards_writes_and_sums_up)
{
    const char *rows =
        input("a.jsonl", "{\"text\":\"안녕하세요\"}\n{\"foo\":1}\n{\"question\":\"q\",\"answer\":\"답\"}\n");
    const char *text = input("b.txt", "한 글\n두 줄\n");
    char prefix[1024];
    snprintf(prefix, sizeof prefix, "%s", test_scratch("out"));
    struct test_run r =
        GEUL("tokenize", "-m", test_mini_model(), "--shards", prefix, rows, text, "--template", "koalpaca");
    CHECK_MSG(r.status == 0, "%s", r.err);
    CHECK_MSG(strncmp(r.out, "3 documents, ", 13) == 0 && strstr(r.out, "1 file: ") &&
                  strstr(r.out, "out-00000.geulshard"),
              "%s", r.out);
    CHECK_MSG(strstr(r.err, "a.jsonl:2: its keys are foo") && strstr(r.err, "1 row was left out"), "%s", r.err);
    test_run_free(&r);
    json_t *one = fixture_json(GEUL("tokenize", "-m", test_mini_model(), "--shards", prefix, rows, text, "--json"));
    CHECK_INT(json_integer_value(json_object_get(one, "documents")), 3);
    CHECK_INT(json_integer_value(json_object_get(one, "left_out")), 1);
    CHECK_INT(json_integer_value(json_object_get(one, "files")), 1);
    json_int_t tokens = json_integer_value(json_object_get(one, "tokens"));
    size_t size;
    char *shard = test_slurp(test_scratch("out-00000.geulshard"), &size);
    CHECK_INT(size, 40 + 2 * tokens);
    free(shard);
    json_t *many = fixture_json(
        GEUL("tokenize", "-m", test_mini_model(), "--shards", prefix, rows, text, "--json", "--shard-tokens", "4"));
    CHECK_INT(json_integer_value(json_object_get(many, "files")), (tokens + 3) / 4);
    json_decref(one);
    json_decref(many);
}

TEST(command_shards_refusals)
{
    const char *bad = input("bad.jsonl", "{\"a\":1}\n"), *empty = input("empty.jsonl", "");
    char prefix[1024];
    snprintf(prefix, sizeof prefix, "%s", test_scratch("none"));
    fixture_fails(GEUL("tokenize", "-m", test_mini_model(), "--shards", prefix, bad), 1,
                  "geul tokenize: ", "bad.jsonl:1: its keys");
    fixture_fails(GEUL("tokenize", "-m", test_mini_model(), "--shards", prefix, empty), 1,
                  "geul tokenize: ", "holds no rows");
    fixture_fails(GEUL("tokenize", "-m", test_mini_model(), "--shards", prefix, "absent.jsonl"), 1,
                  "geul tokenize: ", "absent");
    fixture_fails(GEUL("tokenize", "-m", test_mini_model(), "--shards", prefix), 2,
                  "geul tokenize: ", "at least one FILE");
    fixture_fails(GEUL("tokenize", "-m", test_mini_model(), bad), 2, "geul tokenize: ", "one argument too many");
    fixture_fails(GEUL("tokenize", "-m", test_mini_model(), "--shard-tokens", "5"), 2, "geul tokenize: ", "--shards");
    fixture_fails(GEUL("tokenize", "-m", test_mini_model(), "--shards", prefix, bad, "--decode"), 2,
                  "geul tokenize: ", "--decode");
    fixture_fails(GEUL("tokenize", "-m", test_mini_model(), "--shards", prefix, bad, "--shard-tokens", "1"), 2,
                  "geul tokenize: ", "at least 2 are needed");
    fixture_fails(GEUL("tokenize", "-m", test_mini_model(), "--shards", prefix, bad, "--template", "auto"), 2,
                  "geul tokenize: ", "auto is not possible");
    fixture_fails(GEUL("tokenize", "-m", test_mini_model(), "--shards", prefix, bad, "--template", "nosuch"), 1,
                  "geul tokenize: ", "nosuch");
    fixture_fails(GEUL("tokenize", "-m", test_mini_model(), "--shards", "/no/such/folder/x", input("c.txt", "a")), 1,
                  "geul tokenize: ", "/no/such/folder");
}
