/* test_command_model.c: the subcommands that work with a model, end to end on the golden `full`. */
#include "tests/command/command_fixture.h"

#include <sys/wait.h>
#include <unistd.h>

/* The ids of a JSON array against an int32 file. */
static void check_ids(const json_t *array, const struct test_npy *expected, size_t n)
{
    if (!CHECK_INT(json_array_size(array), n))
        return;
    for (size_t i = 0; i < n; i++)
        CHECK_MSG(json_integer_value(json_array_get(array, i)) == expected->i32[i], "id %zu is %lld, expected %d", i,
                  json_integer_value(json_array_get(array, i)), expected->i32[i]);
}

TEST(command_info_of_a_file)
{
    const char *model = fixture_model();
    REQUIRE(model);
    struct test_run r = GEUL("info", model);
    CHECK_INT(r.status, 0);
    CHECK(strstr(r.out, "general.architecture") && strstr(r.out, "\"gptneox\""));
    CHECK(strstr(r.out, "blk.1.attn_qkv.weight") && strstr(r.out, "96 x 32"));
    test_run_free(&r);
    json_t *json = fixture_json(GEUL("info", "-m", model, "--json"));
    REQUIRE(json);
    CHECK_INT(json_array_size(json_object_get(json, "tensors")), 28);
    /* 2 layers x (K and V) x 32 x 128 positions x 2 bytes */
    CHECK_INT(json_integer_value(json_object_get(json, "kv_cache_bytes")), 2 * 2 * 32 * 128 * 2);
    const json_t *keys = json_object_get(json, "keys");
    CHECK_INT(json_integer_value(json_object_get(keys, "tokenizer.ggml.eos_token_id")), 2);
    CHECK_STR(json_string_value(json_object_get(keys, "geul.gelu")), "erf");
    json_decref(json);
}

TEST(command_info_of_the_machine)
{
    static const char *const options[] = {"--cpu", "--ops", "--devices"};
    static const char *const holds[] = {"layernorm", "attention", "cpu"};
    for (int i = 0; i < 3; i++) {
        struct test_run r = GEUL("info", options[i]);
        CHECK_INT(r.status, 0);
        CHECK_MSG(strstr(r.out, holds[i]), "%s", r.out);
        test_run_free(&r);
        json_t *json = fixture_json(GEUL("info", options[i], "--json"));
        CHECK(json_object_size(json) + json_array_size(json) > 0);
        json_decref(json);
    }
}

TEST(command_info_devices_tells_their_memory)
{
    json_t *json = fixture_json(GEUL("info", "--devices", "--json"));
    const json_t *cpu = json_array_get(json_object_get(json, "devices"), 0);
    json_int_t available = json_integer_value(json_object_get(cpu, "free_bytes"));
    json_int_t total = json_integer_value(json_object_get(cpu, "total_bytes"));
    CHECK_MSG(total > 1 << 20 && available > 0 && available <= total, "%lld of %lld bytes", available, total);
    json_decref(json);
}

TEST(command_complete_matches_golden)
{
    const char *model = fixture_model();
    struct test_npy greedy, tokens;
    REQUIRE(model && test_npy_read(test_path("golden/full/greedy.npy"), &greedy));
    REQUIRE(test_npy_read(test_path("golden/full/tokens.npy"), &tokens));
    const char *prompt = test_path("golden/full/prompt.txt");
    json_t *json = fixture_json(GEUL("complete", "-m", model, "-f", prompt, "-n", "64", "--temp", "0", "--ignore-eos",
                                     "--json", "-ctk", "f32"));
    REQUIRE(json);
    check_ids(json_object_get(json, "tokens"), &greedy, 64);
    check_ids(json_object_get(json, "prompt_tokens"), &tokens, (size_t)tokens.count);
    CHECK_STR(json_string_value(json_object_get(json, "stop_reason")), "length");
    CHECK(json_real_value(json_object_get(json_object_get(json, "timings"), "generation_tps")) > 0);

    /* The same on stdout: the text alone, with --echo behind the prompt. */
    const char *text = json_string_value(json_object_get(json, "text"));
    struct test_run plain =
        GEUL("complete", "-m", model, "-f", prompt, "-n", "64", "--temp", "0", "--ignore-eos", "-ctk", "f32");
    CHECK_INT(plain.status, 0);
    CHECK_STR(plain.out, text);
    CHECK_STR(plain.err, "");
    struct test_run echo = GEUL("complete", "-m", model, "-f", prompt, "-n", "64", "--temp", "0", "--ignore-eos",
                                "-ctk", "f32", "--echo", "-v");
    char *given = test_slurp(prompt, NULL);
    CHECK(given && strncmp(echo.out, given, strlen(given)) == 0);
    CHECK_STR(echo.out + strlen(given), plain.out);
    CHECK(strstr(echo.err, "tokens/s"));
    free(given);
    test_run_free(&plain);
    test_run_free(&echo);
    json_decref(json);
    test_npy_free(&greedy);
    test_npy_free(&tokens);
}

/* More threads than cores must not wait for each other at the cores' expense: that took a minute. */
TEST(command_complete_with_too_many_threads)
{
    const char *model = fixture_model();
    REQUIRE(model);
    json_t *json = fixture_json(
        GEUL("complete", "-m", model, "-p", "가", "-n", "64", "--ignore-eos", "-t", "64", "--temp", "0", "--json"));
    double tps = json_real_value(json_object_get(json_object_get(json, "timings"), "generation_tps"));
    if (!test_sanitized())
        CHECK_MSG(tps > 10, "%.2f tokens/s with 64 threads", tps);
    json_decref(json);
}

TEST(command_complete_from_stdin)
{
    const char *model = fixture_model();
    REQUIRE(model);
    const char *const given[] = {"complete", "-m", model, "-p", "오늘은", "--temp", "0", "-n", "20", NULL};
    const char *const piped[] = {"complete", "-m", model, "-p", "-", "--temp", "0", "-n", "20", NULL};
    struct test_run a = test_geul(given, NULL, 0), b = test_geul(piped, "오늘은\n", strlen("오늘은\n"));
    CHECK_INT(b.status, 0);
    CHECK_STR(a.out, b.out);
    struct test_run nul = test_geul(piped, "\0\xff\0", 3), nothing = test_geul(piped, "", 0);
    CHECK_INT(nul.status, 0);
    CHECK_INT(nothing.status, 0);
    test_run_free(&a);
    test_run_free(&b);
    test_run_free(&nul);
    test_run_free(&nothing);
}

TEST(command_complete_seeds)
{
    const char *model = fixture_model();
    REQUIRE(model);
    struct test_run a = GEUL("complete", "-m", model, "-p", "가", "-n", "30", "--temp", "5", "--seed", "7");
    struct test_run b = GEUL("complete", "-m", model, "-p", "가", "-n", "30", "--temp", "5", "--seed", "7", "-t", "1");
    struct test_run c = GEUL("complete", "-m", model, "-p", "가", "-n", "30", "--temp", "5", "--seed", "8");
    CHECK_STR(a.out, b.out);
    CHECK(strcmp(a.out, c.out) != 0);
    test_run_free(&a);
    test_run_free(&b);
    test_run_free(&c);
}

/* With any piece of the text as stop string, the output ends right before it. */
TEST(command_stop_strings_are_never_printed)
{
    const char *model = fixture_model();
    REQUIRE(model);
    struct test_run all = GEUL("complete", "-m", model, "-p", "하늘", "-n", "40", "--temp", "0", "--ignore-eos");
    REQUIRE(all.status == 0 && all.out_length > 30);
    int tried = 0;
    for (size_t at = 0; at + 8 < all.out_length; at += 5) {
        char stop[16];
        size_t from = at, to;
        while (((unsigned char)all.out[from] & 0xc0) == 0x80)
            from++;
        for (to = from + 4; to < all.out_length && ((unsigned char)all.out[to] & 0xc0) == 0x80; to++)
            ;
        snprintf(stop, sizeof stop, "%.*s", (int)(to - from), all.out + from);
        const char *first = strstr(all.out, stop);
        struct test_run r = GEUL("complete", "-m", model, "-p", "하늘", "-n", "40", "--temp", "0", "--ignore-eos",
                                 "--stop", "never occurs", "--stop", stop);
        CHECK_INT(r.status, 0);
        CHECK_INT(r.out_length, first - all.out);
        CHECK_MSG(r.out_length <= all.out_length && memcmp(r.out, all.out, r.out_length) == 0, "stop \"%s\": %s", stop,
                  r.out);
        test_run_free(&r);
        tried++;
    }
    CHECK(tried > 3);
    test_run_free(&all);
}

/* Reads the command's stdout piece by piece. Each write is smaller than a pipe's atomic size, so that a read never ends
 * inside of one: every piece must be whole characters. */
TEST(command_streams_whole_characters)
{
    const char *model = fixture_model();
    REQUIRE(model);
    char line[2048], piece[65536];
    snprintf(line, sizeof line, "'%s' complete -m '%s' -p 안녕 -n 100 --temp 3 --top-k 0 --seed 3 --ignore-eos",
             GEUL_BINARY, model);
    FILE *f = popen(line, "r");
    REQUIRE(f);
    int pieces = 0, wide = 0;
    for (ssize_t n; (n = read(fileno(f), piece, sizeof piece)) > 0; pieces++) {
        CHECK_MSG(fixture_is_utf8(piece, (size_t)n), "piece %d is not whole: %.*s", pieces, (int)n, piece);
        for (ssize_t i = 0; i < n; i++)
            wide += (unsigned char)piece[i] >= 0xe0;
    }
    int status = pclose(f);
    CHECK_INT(status, 0);
    CHECK_MSG(pieces > 1, "%d pieces: it does not stream", pieces);
    CHECK(wide > 5);
}

TEST(command_closed_pipe_is_quiet)
{
    const char *model = fixture_model();
    REQUIRE(model);
    char line[2048];
    snprintf(line, sizeof line, "'%s' complete -m '%s' -p 안녕 -n 100 --ignore-eos 2>'%s' | head -c 5 >/dev/null",
             GEUL_BINARY, model, test_scratch("err"));
    int status = system(line);
    CHECK_INT(status, 0);
    char *err = test_slurp(test_scratch("err"), NULL);
    CHECK_STR(err, "");
    free(err);
}

TEST(command_interrupt_ends_cleanly)
{
    const char *model = fixture_model();
    REQUIRE(model);
    char line[2048];
    if (system("timeout --preserve-status 5 true 2>/dev/null") != 0) {
        test_skip("needs timeout");
        return;
    }
    snprintf(line, sizeof line,
             "timeout --preserve-status -s INT -k 60 1 '%s' complete -m '%s' -p 안녕 -n -1 -c 300000 --ignore-eos"
             " >'%s' 2>'%s'",
             GEUL_BINARY, model, test_scratch("out"), test_scratch("err"));
    int status = system(line);
    CHECK_MSG(WIFEXITED(status) && WEXITSTATUS(status) == 130, "exit status %d", status);
    size_t n;
    char *out = test_slurp(test_scratch("out"), &n), *err = test_slurp(test_scratch("err"), NULL);
    CHECK(out && n > 0 && fixture_is_utf8(out, n));
    CHECK_MSG(err && strchr(err, '\n') == strrchr(err, '\n'), "%s", err); /* the warning about -c alone */
    free(out);
    free(err);
}

TEST(command_complete_refusals)
{
    const char *model = fixture_model();
    REQUIRE(model);
    fixture_fails(GEUL("complete", "-m", model, "-p", "a b c d e f g h i j k l m n o p", "-c", "8"), 1,
                  "geul complete: ", "the context holds 8");
    fixture_fails(GEUL("complete", "-m", model, "-p", "x", "--template", "nosuch"), 1, "geul complete: ", "koalpaca");
    fixture_fails(GEUL("complete", "-m", model, "-p", "x", "--template", "/no/such.txt"), 1,
                  "geul complete: ", "/no/such.txt");
    struct test_run r = GEUL("complete", "-m", model, "-p", "x", "-n", "2", "-ngl", "99");
    CHECK_INT(r.status, 0);
    CHECK(strstr(r.err, "no GPU"));
    test_run_free(&r);
    r = GEUL("complete", "-m", model, "-p", "x", "-n", "-1", "-c", "16", "--ignore-eos");
    CHECK_INT(r.status, 0);
    CHECK_MSG(strstr(r.err, "context of 16 tokens is full"), "%s", r.err);
    test_run_free(&r);
}

TEST(command_templates)
{
    const char *model = fixture_model();
    REQUIRE(model);
    const char *form = test_scratch("form.txt");
    test_spill(form, "Q {instruction}\nA\n", 18);
    const char *const names[] = {"koalpaca", "auto", form};
    const char *const echoed[] = {
        "### 질문: 넌 누구?\n\n### 답변:", "### 질문: 넌 누구?\n\n### 답변:", "Q 넌 누구?\nA"};
    for (int i = 0; i < 3; i++) {
        struct test_run r =
            GEUL("complete", "-m", model, "-p", "넌 누구?", "--template", names[i], "--echo", "-n", "4");
        CHECK_INT(r.status, 0);
        CHECK_MSG(strncmp(r.out, echoed[i], strlen(echoed[i])) == 0, "%s: %s", names[i], r.out);
        test_run_free(&r);
    }
}

TEST(command_logits_match_golden)
{
    const char *model = fixture_model();
    struct test_npy expected, got;
    REQUIRE(model && test_npy_read(test_path("golden/full/logits.npy"), &expected));
    char out[1024];
    snprintf(out, sizeof out, "%s", test_scratch("logits.npy"));
    json_t *json = fixture_json(
        GEUL("logits", "-m", model, "-f", test_path("golden/full/prompt.txt"), "-o", out, "-b", "7", "--json"));
    CHECK_INT(json_array_size(json_object_get(json, "tokens")), expected.shape[0]);
    json_decref(json);
    REQUIRE(test_npy_read(out, &got));
    REQUIRE(got.n_dims == 2 && got.shape[0] == expected.shape[0] && got.shape[1] == expected.shape[1]);
    double worst = test_difference(got.f32, expected.f32, got.count);
    CHECK_MSG(worst < 1e-4, "logits differ by up to %g", worst);
    test_npy_free(&got);

    struct test_run r = GEUL("logits", "-m", model, "--ids", "305, 6\n262", "-o", out);
    CHECK_INT(r.status, 0);
    REQUIRE(test_npy_read(out, &got));
    CHECK_INT(got.shape[0], 3);
    CHECK(test_difference(got.f32, expected.f32, got.count) < 1e-4);
    test_run_free(&r);
    test_npy_free(&got);
    test_npy_free(&expected);
    fixture_fails(GEUL("logits", "-m", model, "--ids", "1 448", "-o", out), 1, "geul logits: ", "0 to 447");
    fixture_fails(GEUL("logits", "-m", model, "--ids", "1 x", "-o", out), 1, "geul logits: ", "\"x\"");
}

/* Whatever type the file has, it goes back to a directory that converts to the same file again. */
TEST(command_export_goes_back)
{
    const char *model = fixture_model();
    REQUIRE(model);
    char dir[1024], again[1024], a[1024], b[1024];
    snprintf(dir, sizeof dir, "%s", test_scratch("exported"));
    snprintf(again, sizeof again, "%s", test_scratch("again.gguf"));
    snprintf(a, sizeof a, "%s", test_scratch("a.npy"));
    snprintf(b, sizeof b, "%s", test_scratch("b.npy"));
    json_t *json = fixture_json(GEUL("export", model, dir, "--json"));
    CHECK_STR(json_string_value(json_object_get(json, "directory")), dir);
    json_decref(json);
    json = fixture_json(GEUL("convert", dir, "-o", again, "--type", "f32", "--json"));
    CHECK_INT(json_integer_value(json_object_get(json, "tensors")), 28);
    json_decref(json);
    const char *const files[2] = {model, again};
    const char *const outputs[2] = {a, b};
    for (int i = 0; i < 2; i++) {
        struct test_run r = GEUL("logits", "-m", files[i], "-p", "안녕 world", "-o", outputs[i]);
        CHECK_MSG(r.status == 0, "%s", r.err);
        test_run_free(&r);
    }
    size_t na, nb;
    char *da = test_slurp(a, &na), *db = test_slurp(b, &nb);
    CHECK(da && db && na == nb && memcmp(da, db, na) == 0);
    free(da);
    free(db);
}
