/* test_command_tokenize.c: `geul tokenize` there and back, from every kind of source. */
#include "tests/command/command_fixture.h"

TEST(command_tokenize_round_trip)
{
    static const char input[] =
        "안녕하세요 world\n\n\0NUL \xff\xfe broken\n  spaces  \xed\xa0\x80\nno newline at the end";
    const char *model = fixture_model();
    REQUIRE(model);
    const char *const sources[] = {model, test_path("golden/full"), test_path("golden/full/tokenizer.json")};
    char *first = NULL;
    for (int i = 0; i < 3; i++) {
        const char *const encode[] = {"tokenize", "-m", sources[i], NULL};
        const char *const decode[] = {"tokenize", "-m", sources[i], "--decode", NULL};
        struct test_run ids = test_geul(encode, input, sizeof input - 1);
        REQUIRE(CHECK_MSG(ids.status == 0, "%s", ids.err));
        struct test_run text = test_geul(decode, ids.out, ids.out_length);
        CHECK_INT(text.status, 0);
        /* The same bytes; every line ends with a newline. */
        if (CHECK_INT(text.out_length, sizeof input))
            CHECK(memcmp(text.out, input, sizeof input - 1) == 0);
        if (first)
            CHECK_STR(ids.out, first);
        else
            first = strdup(ids.out);
        test_run_free(&ids);
        test_run_free(&text);
    }
    free(first);
}

TEST(command_tokenize_forms)
{
    const char *model = fixture_model();
    REQUIRE(model);
    struct test_run r = GEUL("tokenize", "-m", model, "-p", "h<|endoftext|>i");
    CHECK_STR(r.out, "75 2 76\n");
    test_run_free(&r);
    r = GEUL("tokenize", "-m", model, "-p", "h<|endoftext|>i", "--plain");
    CHECK(r.status == 0 && strcmp(r.out, "75 2 76\n") != 0);
    test_run_free(&r);
    r = GEUL("tokenize", "-m", model, "-p", "h<|endoftext|>\n", "--pieces");
    CHECK_STR(r.out, "75\th\n2\t<|endoftext|>\n202\t\\n\n");
    test_run_free(&r);
    json_t *json = fixture_json(GEUL("tokenize", "-m", model, "-p", "안", "--pieces", "--json"));
    CHECK_INT(json_array_size(json_object_get(json, "ids")), json_array_size(json_object_get(json, "pieces")));
    json_decref(json);
    json = fixture_json(GEUL("tokenize", "-m", model, "-p", "75, 2 76", "--decode", "--json"));
    CHECK_STR(json_string_value(json_object_get(json, "text")), "h<|endoftext|>i");
    json_decref(json);
    fixture_fails(GEUL("tokenize", "-m", model, "-p", "75 hello", "--decode"), 1, "geul tokenize: ", "hello");
    fixture_fails(GEUL("tokenize", "-m", model, "-p", "100000", "--decode"), 1, "geul tokenize: ", "vocabulary");
    const char *const from_stdin[] = {"tokenize", "-m", model, "--decode", NULL};
    fixture_fails(test_geul(from_stdin, "75\0 76\n", 7), 1, "geul tokenize: ", "NUL byte");
}
