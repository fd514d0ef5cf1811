/* test_command_speculation.c: --lookup and --model-draft of complete and chat. */
#include "tests/command/command_fixture.h"

/* Answered once before, so that the answer is there to be found. */
static const char *const repeated =
    "### 질문: 심심해\n\n### 답변: 친구들과 연락해보세요.\n\n### 질문: 심심해\n\n### 답변:";

/* The JSON of its completion; extra words end with NULL. */
static json_t *completion(const char *const *extra)
{
    const char *argv[32] = {"complete", "-m",  test_mini_model(), "-p",    repeated, "-n", "40", "-c", "256",
                            "-ctk",     "f32", "--ignore-eos",    "--json"};
    int n = 13;
    while (*extra)
        argv[n++] = *extra++;
    return fixture_json(test_geul(argv, NULL, 0));
}

static json_int_t timing(const json_t *json, const char *name)
{
    return json_integer_value(json_object_get(json_object_get(json, "timings"), name));
}

TEST(command_complete_speculates)
{
    const char *const plain[] = {"--temp", "0", NULL};
    const char *const lookup[] = {"--temp", "0", "--lookup", "--draft-always", NULL};
    const char *const draft[] = {"--temp", "0", "-md", test_mini_model(), "--draft-always", "--draft", "4", NULL};
    const char *const both[] = {"--temp", "0",           "-md", test_mini_model(), "--lookup", "--draft-max",
                                "8",      "--draft-min", "2",   "--draft-p-min",   "0.5",      NULL};
    const char *const *ways[] = {lookup, draft, both};
    json_t *expected = completion(plain);
    REQUIRE(expected);
    CHECK_INT(timing(expected, "draft_n"), 0);
    for (int i = 0; i < 3; i++) {
        json_t *json = completion(ways[i]);
        REQUIRE(json);
        CHECK(json_equal(json_object_get(json, "tokens"), json_object_get(expected, "tokens")));
        CHECK_STR(json_string_value(json_object_get(json, "text")),
                  json_string_value(json_object_get(expected, "text")));
        CHECK_MSG(i == 2 || timing(json, "draft_n_accepted") > 5, "%d: %lld of %lld accepted", i,
                  timing(json, "draft_n_accepted"), timing(json, "draft_n"));
        CHECK(timing(json, "draft_n") >= timing(json, "draft_n_accepted"));
        json_decref(json);
    }
    json_decref(expected);
    struct test_run r = GEUL("complete", "-m", test_mini_model(), "-p", repeated, "-n", "20", "--temp", "0", "-v",
                             "--ignore-eos", "--lookup", "--draft-always");
    CHECK_MSG(r.status == 0 && strstr(r.err, "guesses accepted"), "%s", r.err);
    test_run_free(&r);
}

TEST(command_chat_speculates)
{
    const char *const plain[] = {"chat", "-m", test_mini_model(), "--seed", "3", NULL};
    const char *const drafted[] = {"chat",     "-m", test_mini_model(), "--seed", "3", "-md", test_mini_model(),
                                   "--lookup", NULL};
    const char *questions = "안녕\n심심해\n고마워\n";
    struct test_run a = test_geul(plain, questions, strlen(questions));
    struct test_run b = test_geul(drafted, questions, strlen(questions));
    CHECK_INT(b.status, 0);
    CHECK_STR(b.out, a.out);
    CHECK_STR(b.err, a.err);
    test_run_free(&a);
    test_run_free(&b);
}

TEST(command_speculation_names_what_is_wrong)
{
    const char *model = fixture_model();
    REQUIRE(model);
    static const char *const commands[] = {"complete", "chat"};
    for (int i = 0; i < 2; i++) {
        char begins[32];
        snprintf(begins, sizeof begins, "geul %s: ", commands[i]);
        const char *prompt = i ? "-n" : "-p", *value = i ? "4" : "가";
        fixture_fails(GEUL(commands[i], "-m", model, prompt, value, "-md", "/no/such.gguf"), 1, begins,
                      "/no/such.gguf");
        fixture_fails(GEUL(commands[i], "-m", model, prompt, value, "-md", test_mini_model()), 1, begins,
                      "same tokenizer");
        fixture_fails(GEUL(commands[i], "-m", model, prompt, value, "--lookup", "--draft", "65"), 2, begins,
                      "outside 1 to 64");
        fixture_fails(GEUL(commands[i], "-m", model, prompt, value, "--lookup", "--draft", "4", "--draft-min", "5"), 1,
                      begins, "drafts of 5 to 4");
    }
}
