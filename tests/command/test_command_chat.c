/* test_command_chat.c: `geul chat` with its lines from a pipe. check_chat_tmux.sh tries it in a terminal. */
#include "tests/command/command_fixture.h"

/* Chats with the golden model; extra words end with NULL. */
static struct test_run chat(const char *model, const char *input, const char *extra, const char *value)
{
    const char *const argv[] = {"chat", "-m", model, "-n", "6", "--seed", "1", extra, value, NULL};
    return test_geul(argv, input, strlen(input));
}

TEST(command_chat_answers_each_line)
{
    const char *model = fixture_model();
    REQUIRE(model);
    struct test_run r = chat(model, "안녕\n\n이름이 뭐야?\n", NULL, NULL);
    CHECK_INT(r.status, 0);
    CHECK_STR(r.err, "template: koalpaca (from the file)\n");
    CHECK(fixture_is_utf8(r.out, r.out_length) && r.out_length > 2);
    CHECK(r.out_length > 0 && r.out[r.out_length - 1] == '\n');
    struct test_run again = chat(model, "안녕\n\n이름이 뭐야?\n", NULL, NULL);
    CHECK_STR(again.out, r.out); /* one seed, one conversation */
    test_run_free(&again);
    test_run_free(&r);
    r = chat(model, "옛날 옛적에\n", "--template", "none");
    CHECK_INT(r.status, 0);
    CHECK_MSG(strstr(r.err, "template: none"), "%s", r.err);
    test_run_free(&r);
}

TEST(command_chat_json)
{
    const char *const argv[] = {"chat", "-m", test_mini_model(), "--json", "--temp", "0", NULL};
    const char *questions = "안녕\n고마워\n";
    struct test_run r = test_geul(argv, questions, strlen(questions));
    CHECK_INT(r.status, 0);
    char *rest = NULL;
    int lines = 0;
    for (char *line = strtok_r(r.out, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest), lines++) {
        json_t *json = json_loads(line, 0, NULL);
        const char *answer = json_string_value(json_object_get(json, "answer"));
        CHECK_MSG(answer && *answer && *answer != ' ', "%s", line);
        CHECK_STR(json_string_value(json_object_get(json, "question")), lines ? "고마워" : "안녕");
        CHECK_STR(json_string_value(json_object_get(json, "stop_reason")), "end_token");
        CHECK(json_array_size(json_object_get(json, "tokens")) > 2);
        json_decref(json);
    }
    CHECK_INT(lines, 2);
    test_run_free(&r);
}

TEST(command_chat_commands)
{
    const char *model = fixture_model();
    REQUIRE(model);
    char saved[1024], input[4096];
    snprintf(saved, sizeof saved, "%s", test_scratch("saved.json"));
    snprintf(input, sizeof input,
             "/help\n/system 친절하게\n/system\n하나\n둘\n/undo\n/save %s\n/reset\n/undo\n/load %s\n/set temp 0.25\n"
             "/set\n/set temp 1000\n/set nothing 1\n/retry\n/retyr\n/exit\n이 줄은 읽지 않는다\n",
             saved, saved);
    struct test_run r = chat(model, input, NULL, NULL);
    CHECK_INT(r.status, 0);
    static const char *const printed[] = {
        "/retry",        "친절하게\n",       "The last turn has been dropped; 1 turn remains.",
        "1 turn saved",  "is empty",         "1 turn loaded",
        "temp is 0.25.", "frequency-penalty"};
    for (size_t i = 0; i < sizeof printed / sizeof *printed; i++)
        CHECK_MSG(strstr(r.out, printed[i]), "\"%s\" is missing from: %s", printed[i], r.out);
    static const char *const complained[] = {"nothing to undo", "outside 0 to 100", "no setting \"nothing\"",
                                             "did you mean /retry"};
    for (size_t i = 0; i < sizeof complained / sizeof *complained; i++)
        CHECK_MSG(strstr(r.err, complained[i]), "\"%s\" is missing from: %s", complained[i], r.err);
    test_run_free(&r);

    json_error_t error;
    json_t *json = json_load_file(saved, 0, &error);
    REQUIRE(CHECK_MSG(json, "%s", error.text));
    CHECK_STR(json_string_value(json_object_get(json, "system")), "친절하게");
    const json_t *turns = json_object_get(json, "turns");
    CHECK_INT(json_array_size(turns), 1);
    CHECK_STR(json_string_value(json_object_get(json_array_get(turns, 0), "question")), "하나");
    json_decref(json);
}

TEST(command_chat_bad_files)
{
    const char *model = fixture_model();
    REQUIRE(model);
    char input[4096];
    test_spill(test_scratch("list.json"), "{\"turns\": [{\"question\": 3}]}", 28);
    snprintf(input, sizeof input, "/load /no/such.json\n/load %s\n/save /no/such/place.json\n/save\n/load\n",
             test_scratch("list.json"));
    struct test_run r = chat(model, input, NULL, NULL);
    CHECK_INT(r.status, 0);
    CHECK_MSG(strstr(r.err, "/no/such.json") && strstr(r.err, "not a conversation") && strstr(r.err, "/no/such/place"),
              "%s", r.err);
    test_run_free(&r);
}

/* 128 positions are soon full: whole turns are dropped, and the chat continues. */
TEST(command_chat_full_context)
{
    const char *model = fixture_model();
    REQUIRE(model);
    struct test_run r = chat(model, "첫째 질문입니다\n둘째 질문입니다\n셋째 질문입니다\n넷째 질문입니다\n", NULL, NULL);
    CHECK_INT(r.status, 0);
    CHECK_MSG(strstr(r.err, "is full; dropped the oldest"), "%s", r.err);
    test_run_free(&r);
    r = chat(model, "이 질문은 혼자서도 너무 길다\n짧다\n", "-c", "8");
    CHECK_INT(r.status, 1);
    CHECK_MSG(strstr(r.err, "and 7 fit: the context holds 8"), "%s", r.err);
    test_run_free(&r);
}

/* A question that would not fit an empty conversation is refused, and the turns before it stay. */
TEST(command_chat_refuses_a_question_too_long)
{
    char input[8192] = "안녕\n고마워\n";
    for (int i = 0; i < 200; i++)
        strcat(input, "길고 긴 질문 ");
    snprintf(input + strlen(input), sizeof input - strlen(input), "\n/retry\n/save %s\n", test_scratch("kept.json"));
    const char *const argv[] = {"chat", "-m", test_mini_model(), "-c", "128", "--temp", "0", NULL};
    struct test_run r = test_geul(argv, input, strlen(input));
    CHECK_INT(r.status, 1);
    CHECK_MSG(strstr(r.err, " tokens with its template, and 127 fit: the context holds 128"), "%s", r.err);
    CHECK_MSG(!strstr(r.err, "dropped"), "%s", r.err);
    CHECK_MSG(strstr(r.out, "2 turns saved"), "%s", r.out);
    test_run_free(&r);
    /* Neither does /retry lose its answer, when a system text leaves it no room. */
    input[0] = '\0';
    strcat(input, "안녕\n/system ");
    for (int i = 0; i < 200; i++)
        strcat(input, "길고 긴 말 ");
    snprintf(input + strlen(input), sizeof input - strlen(input), "\n/retry\n/save %s\n", test_scratch("kept.json"));
    const char *const with_system[] = {"chat", "-m",         test_mini_model(),        "-c", "128", "--temp",
                                       "0",    "--template", test_scratch("form.txt"), NULL};
    const char *form = "{input}\n### 질문: {instruction}\n\n### 답변: {output}\n";
    test_spill(test_scratch("form.txt"), form, strlen(form));
    r = test_geul(with_system, input, strlen(input));
    CHECK_MSG(strstr(r.err, "and 127 fit"), "%s", r.err);
    CHECK_MSG(strstr(r.out, "1 turn saved"), "%s", r.out);
    test_run_free(&r);
}

TEST(command_chat_settings)
{
    const char *input = "/set n 5\r\n/set top-q 3\n/set zzzzz 3\n/set s 7\n/help\r\n";
    const char *const argv[] = {"chat", "-m", test_mini_model(), NULL};
    struct test_run r = test_geul(argv, input, strlen(input));
    CHECK_INT(r.status, 0);
    CHECK_MSG(strstr(r.out, "n is 5.\n") && strstr(r.out, "s is 7.\n") && strstr(r.out, "shows this list"), "%s",
              r.out);
    CHECK_MSG(strstr(r.err, "did you mean \"top-k\"?") && strstr(r.err, "no setting \"zzzzz\"") &&
                  !strstr(r.err, "\"\""),
              "%s", r.err);
    test_run_free(&r);
}

/* Three quotes and "\\" at the end make one question of several lines. */
TEST(command_chat_questions_of_several_lines)
{
    const char *input =
        "\"\"\"\n하나\n둘 \\\n/셋\n\"\"\"\n넷\\\n다섯\nC:\\\\\n\"\"\"/여섯\"\"\"\n//일곱\n\"\"\"끝\n없음";
    static const char *const questions[] = {"하나\n둘 \\\n/셋", "넷\n다섯", "C:\\\\", "/여섯", "/일곱", "끝\n없음"};
    const char *const argv[] = {"chat", "-m", test_mini_model(), "--json", "-n", "2", NULL};
    struct test_run r = test_geul(argv, input, strlen(input));
    CHECK_INT(r.status, 0);
    char *rest = NULL;
    size_t n = 0;
    for (char *line = strtok_r(r.out, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest), n++) {
        json_t *json = json_loads(line, 0, NULL);
        if (CHECK_MSG(n < sizeof questions / sizeof *questions, "%s", line))
            CHECK_STR(json_string_value(json_object_get(json, "question")), questions[n]);
        json_decref(json);
    }
    CHECK_INT(n, sizeof questions / sizeof *questions);
    test_run_free(&r);
}

TEST(command_chat_verbose_shows_timings)
{
    const char *const argv[] = {"chat", "-v", "-n", "4", NULL}; /* the small model, which is in the source tree */
    struct test_run r = test_geul(argv, "안녕\n고마워\n", strlen("안녕\n고마워\n"));
    CHECK_INT(r.status, 0);
    CHECK_MSG(strstr(r.err, "geul-mini.gguf (comes with geul"), "%s", r.err);
    const char *first = strstr(r.err, "tokens/s; text ");
    CHECK_MSG(first && strstr(first + 1, "tokens/s; text "), "%s", r.err);
    test_run_free(&r);
}
