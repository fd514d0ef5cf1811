/* test_command_imatrix.c: `geul imatrix` on the golden `full`. */
#include "tests/command/command_fixture.h"

static const char *const text = "한글은 소리를 적는 글자다. 글자는 스물넷이다. The end.";

TEST(command_imatrix_collects_and_merges)
{
    const char *model = fixture_model();
    REQUIRE(model);
    char one[1024], two[1024], prompt[1024];
    snprintf(one, sizeof one, "%s", test_scratch("one.imatrix"));
    snprintf(two, sizeof two, "%s", test_scratch("two.imatrix"));
    snprintf(prompt, sizeof prompt, "%s", test_scratch("text.txt"));
    REQUIRE(test_spill(prompt, text, strlen(text)));
    json_t *json = fixture_json(GEUL("imatrix", "-m", model, "-f", prompt, "-o", one, "-c", "16", "--json"));
    REQUIRE(json);
    json_int_t tokens = json_integer_value(json_object_get(json, "tokens"));
    CHECK_INT(json_integer_value(json_object_get(json, "matrices")), 2 * 4 + 1);
    CHECK_INT(json_integer_value(json_object_get(json, "chunks")), (tokens + 15) / 16);
    CHECK(json_number_value(json_object_get(json, "perplexity")) > 1);
    json_decref(json);
    json = fixture_json(GEUL("info", one, "--json"));
    REQUIRE(json);
    CHECK_INT(json_array_size(json_object_get(json, "tensors")), 2 * 9);
    const json_t *keys = json_object_get(json, "keys");
    CHECK_STR(json_string_value(json_object_get(keys, "general.type")), "imatrix");
    CHECK_INT(json_integer_value(json_object_get(keys, "imatrix.chunk_size")), 16);
    json_decref(json);
    json = fixture_json(GEUL("imatrix", "-m", model, "-p", text, "-c", "16", "--chunks", "1", "-ofreq", "1",
                             "--in-file", one, "-o", two, "--json"));
    REQUIRE(json);
    CHECK_INT(json_integer_value(json_object_get(json, "tokens")), 16);
    CHECK_INT(json_integer_value(json_object_get(json, "chunks")), (tokens + 15) / 16 + 1);
    json_decref(json);
    json = fixture_json(GEUL("imatrix", "--in-file", one, "-o", two, "--json"));
    REQUIRE(json);
    CHECK_INT(json_integer_value(json_object_get(json, "chunk_size")), 16); /* the file's, not that of -c */
    json_decref(json);
    struct test_run r = GEUL("imatrix", "--in-file", one, "--in-file", two, "-o", two);
    CHECK_MSG(r.status == 0 && strstr(r.out, "9 matrices"), "%s%s", r.err, r.out);
    test_run_free(&r);
}

TEST(command_imatrix_refuses)
{
    char output[1024];
    snprintf(output, sizeof output, "%s", test_scratch("out.imatrix"));
    const char *model = fixture_model();
    REQUIRE(model);
    fixture_fails(GEUL("imatrix", "-m", model), 2, "geul imatrix: ", "-f TEXT");
    fixture_fails(GEUL("imatrix", "-f", "x"), 2, "geul imatrix: ", "-m FILE");
    fixture_fails(GEUL("imatrix", "--in-file", "/no/such/file", "-o", output), 1, "geul imatrix: ", "/no/such/file");
    fixture_fails(GEUL("imatrix", "--in-file", model, "-o", output), 1, "geul imatrix: ", model);
    fixture_fails(GEUL("imatrix", "-m", model, "-p", text, "-c", "16", "-o", "/no/such/directory/x"), 1,
                  "geul imatrix: ", "/no/such/directory");
    struct test_run r = GEUL("info", output);
    CHECK_INT(r.status, 1); /* nothing appeared */
    test_run_free(&r);
}
