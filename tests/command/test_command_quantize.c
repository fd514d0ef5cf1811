/* test_command_quantize.c: `geul quantize`. */
#include "tests/command/command_fixture.h"

#include <dirent.h>

/* A copy of the model that ships with geul, in the scratch directory, so that no test can harm the real one. */
static const char *mini(void)
{
    static struct test_kept copy;
    size_t size;
    if (copy.text[0])
        return copy.text;
    char *bytes = test_slurp(test_mini_model(), &size);
    copy = test_keep(test_scratch("mini.gguf"));
    CHECK(bytes && test_spill(copy.text, bytes, size));
    free(bytes);
    return copy.text;
}

/* Files in the scratch directory. */
static int count_scratch(void)
{
    struct test_kept p = test_keep(test_scratch("x"));
    int n = 0;
    *strrchr(p.text, '/') = '\0';
    DIR *d = opendir(p.text);
    for (struct dirent *e; d && (e = readdir(d)) != NULL;)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static size_t file_size(const char *path)
{
    size_t size = 0;
    free(test_slurp(path, &size));
    return size;
}

TEST(command_quantize_usage)
{
    struct test_kept o = test_keep(test_scratch("o.gguf"));
    const char *in = mini(), *out = o.text;
    fixture_fails(GEUL("quantize", in), 2, "geul quantize: ", "--target-bpw");
    fixture_fails(GEUL("quantize", in, "q4_k_m"), 2, "geul quantize: ", "output");
    fixture_fails(GEUL("quantize", in, out, "q4_k_x"), 2, "geul quantize: ", "did you mean q4_k_");
    fixture_fails(GEUL("quantize", in, out, "q4_k_m", "--target-bpw", "4"), 2, "geul quantize: ", "one of the two");
    fixture_fails(GEUL("quantize", in, out, "--max-size", "8X"), 2, "geul quantize: --max-size", "7.5GiB");
    fixture_fails(GEUL("quantize", in, out, "--max-size", "-8G"), 2, "geul quantize: --max-size", "7.5GiB");
    fixture_fails(GEUL("quantize", in, out, "q2_k", "--tensor-type", "ffn"), 2, "geul quantize: ", "REGEX=TYPE");
    fixture_fails(GEUL("quantize", in, out, "q2_k", "--tensor-type", "ffn=q9"), 2, "geul quantize: ", "q9");
    fixture_fails(GEUL("quantize", in, out, "q2_k", "--tensor-type", "ffn=q4_k_m"), 2, "geul quantize: ", "q4_k");
    fixture_fails(GEUL("quantize", in, out, "q2_k", "--tensor-type", "(=q4_0"), 1, "geul quantize: ", "pattern");
    fixture_fails(GEUL("quantize", in, out, "q2_k", "--output-tensor-type", "i32"), 2, "geul quantize: ", "i32");
    fixture_fails(GEUL("quantize", "absent.gguf", out, "q2_k"), 1, "geul quantize: ", "absent.gguf");
    fixture_fails(GEUL("quantize", in, "no/such/dir/o.gguf", "q8_0"), 1, "geul quantize: ", "no/such/dir");
    CHECK_INT(count_scratch(), 1); /* the input */
}

TEST(command_quantize_refuses_its_own_input)
{
    const char *in = fixture_model();
    size_t before = file_size(in);
    fixture_fails(GEUL("quantize", in, in, "q8_0"), 1, "geul quantize: ", "is the input itself");
    CHECK_INT(file_size(in), before);
}

/* Runs with --json; NULL after a failed check. */
#define QUANTIZE(...) fixture_json(GEUL("quantize", __VA_ARGS__, "--json"))

static long long number(const json_t *json, const char *key)
{
    return json_integer_value(json_object_get(json, key));
}

TEST(command_quantize_dry_run_tells_the_size)
{
    static const char *const types[] = {"f16", "q8_0", "q4_k_m", "q2_k", "iq4_xs"};
    struct test_kept o = test_keep(test_scratch("o.gguf"));
    const char *in = fixture_model(), *out = o.text;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        int before = count_scratch();
        json_t *dry = QUANTIZE(in, out, types[i], "--dry-run");
        REQUIRE(dry);
        CHECK_INT(count_scratch(), before);
        json_t *real = QUANTIZE(in, out, types[i]);
        REQUIRE(real);
        CHECK_INT(number(dry, "file_bytes"), number(real, "file_bytes"));
        CHECK_INT(file_size(out), number(dry, "file_bytes"));
        CHECK(json_is_true(json_object_get(dry, "dry_run")) && json_is_false(json_object_get(real, "dry_run")));
        CHECK_INT(json_array_size(json_object_get(dry, "files")), 0);
        CHECK_INT(json_array_size(json_object_get(real, "files")), 1);
        const json_t *a = json_object_get(dry, "tensors"), *b = json_object_get(real, "tensors");
        REQUIRE(json_array_size(a) > 0 && json_array_size(a) == json_array_size(b));
        for (size_t k = 0; k < json_array_size(a); k++) {
            const json_t *x = json_array_get(a, k), *y = json_array_get(b, k);
            CHECK(json_equal(json_object_get(x, "to"), json_object_get(y, "to")));
            CHECK_INT(number(x, "bytes"), number(y, "bytes"));
            CHECK(json_is_null(json_object_get(x, "error")) && json_is_number(json_object_get(y, "error")));
        }
        json_decref(dry);
        json_decref(real);
        remove(out);
    }
    struct test_run r = GEUL("quantize", in, "q8_0", "--dry-run");
    CHECK(r.status == 0 && strstr(r.out, "token_embd.weight") && strstr(r.out, "nothing was written"));
    test_run_free(&r);
}

TEST(command_quantize_bounds_and_rules)
{
    struct test_kept o = test_keep(test_scratch("o.gguf"));
    const char *out = o.text;
    json_t *json = QUANTIZE(mini(), out, "--target-bpw", "4.5", "--output-tensor-type", "q6_k",
                            "--token-embedding-type", "Q5_K", "--tensor-type", "blk\\.0\\.=q8_0");
    REQUIRE(json);
    double bpw = json_real_value(json_object_get(json, "bits_per_weight"));
    CHECK_MSG(bpw <= 4.5 && bpw > 4.4, "%g bits per weight", bpw);
    const json_t *t;
    size_t i;
    json_array_foreach(json_object_get(json, "tensors"), i, t)
    {
        const char *name = json_string_value(json_object_get(t, "name"));
        const char *to = json_string_value(json_object_get(t, "to"));
        if (strcmp(name, "output.weight") == 0)
            CHECK_STR(to, "q6_k");
        if (strcmp(name, "token_embd.weight") == 0)
            CHECK_STR(to, "q5_k");
        if (strcmp(name, "blk.0.ffn_up.weight") == 0)
            CHECK_STR(to, "q8_0");
    }
    json_decref(json);
    json = QUANTIZE(mini(), out, "--max-size", "4.25M");
    REQUIRE(json);
    CHECK(file_size(out) <= 4250000 && file_size(out) > 4150000);
    json_decref(json);
}

/* The answer of a model, malloc()ed. */
static char *answer(const char *model)
{
    struct test_run r =
        GEUL("complete", "-m", model, "-p", "### 질문: 안녕\n\n### 답변:", "--temp", "0", "-n", "12", "-t", "1");
    CHECK_MSG(r.status == 0, "%s", r.err);
    char *text = r.out;
    r.out = NULL;
    test_run_free(&r);
    return text;
}

TEST(command_quantize_splits)
{
    struct test_kept o = test_keep(test_scratch("parts.gguf"));
    const char *out = o.text;
    char first[1100];
    json_t *json = QUANTIZE(mini(), out, "q8_0", "--split-max-size", "3M");
    REQUIRE(json);
    CHECK_INT(number(json, "parts"), 3);
    const json_t *files = json_object_get(json, "files");
    REQUIRE(json_array_size(files) == 3);
    long long total = 0;
    for (size_t i = 0; i < 3; i++) {
        size_t size = file_size(json_string_value(json_array_get(files, i)));
        CHECK_MSG(size > 0 && size <= 3000000, "part %zu has %zu bytes", i, size);
        total += (long long)size;
    }
    CHECK_INT(total, number(json, "file_bytes"));
    snprintf(first, sizeof first, "%s", json_string_value(json_array_get(files, 0)));
    CHECK(strstr(first, "parts-00001-of-00003.gguf"));
    char *a = answer(mini()), *b = answer(first);
    CHECK_STR(b, a);
    free(a);
    free(b);
    json_decref(json);
}

TEST(command_quantize_takes_an_imatrix)
{
    struct test_kept o = test_keep(test_scratch("o.gguf")), m = test_keep(test_scratch("m.gguf"));
    const char *out = o.text, *matrix = m.text;
    struct test_run r = GEUL("imatrix", "-m", mini(), "-p", "안녕하세요. 오늘은 날씨가 좋네요.", "-o", matrix);
    CHECK_MSG(r.status == 0, "%s", r.err);
    test_run_free(&r);
    r = GEUL("quantize", mini(), out, "q4_k_m", "--imatrix", matrix, "-v");
    CHECK_MSG(r.status == 0 && strstr(r.out, "error "), "%s%s", r.out, r.err);
    CHECK_MSG(strstr(r.err, "quantized already"), "%s", r.err);
    test_run_free(&r);
    REQUIRE(test_spill(matrix, "\x05\0\0\0garbage", 11));
    fixture_fails(GEUL("quantize", mini(), out, "q4_k_m", "--imatrix", matrix), 1, "geul quantize: ", "m.gguf");
}

/* Runs a shell command with $1 the program, $2 the input and $3 the output; its exit code. */
static int shell(const char *script, const char *in, const char *out)
{
    char line[4096];
    snprintf(line, sizeof line, "sh -c '%s' sh '%s' '%s' '%s' 2>/dev/null >/dev/null", script, GEUL_BINARY, in, out);
    int status = system(line);
    return status < 0 ? status : status >> 8;
}

TEST(command_quantize_leaves_the_old_file_on_a_full_disk)
{
    struct test_kept o = test_keep(test_scratch("o.gguf"));
    const char *out = o.text;
    REQUIRE(test_spill(out, "old", 3));
    CHECK_INT(shell("trap \"\" XFSZ; ulimit -f 1000; exec \"$1\" quantize \"$2\" \"$3\" q8_0", mini(), out), 1);
    CHECK_INT(file_size(out), 3);
    CHECK_INT(count_scratch(), 2);
}

TEST(command_quantize_leaves_the_old_file_when_killed)
{
    struct test_kept o = test_keep(test_scratch("o.gguf"));
    const char *out = o.text;
    size_t whole = 0;
    shell("exec \"$1\" quantize \"$2\" \"$3\" q3_k_m", mini(), out);
    whole = file_size(out);
    REQUIRE(whole > 1000000);
    for (int i = 0; i < 6; i++) {
        char script[200];
        REQUIRE(test_spill(out, "old", 3));
        snprintf(script, sizeof script, "\"$1\" quantize \"$2\" \"$3\" q3_k_m & sleep 0.0%d; kill -9 $!; wait", i + 1);
        shell(script, mini(), out);
        size_t size = file_size(out);
        CHECK_MSG(size == 3 || size == whole, "killed after 0.0%d s: %zu bytes", i + 1, size);
    }
}

/* llama-quantize's word for "as it is": every weight keeps its bytes, also through parts and back. */
TEST(command_quantize_copies)
{
    const char *model = test_mini_model();
    char whole[1024], parts[1024], first[1100], again[1024];
    snprintf(whole, sizeof whole, "%s", test_scratch("whole.gguf"));
    snprintf(parts, sizeof parts, "%s", test_scratch("parts.gguf"));
    snprintf(again, sizeof again, "%s", test_scratch("again.gguf"));
    json_t *json = fixture_json(GEUL("quantize", model, whole, "COPY", "--json"));
    REQUIRE(json);
    CHECK_STR(json_string_value(json_object_get(json, "type")), "copy");
    json_decref(json);
    json = fixture_json(GEUL("quantize", model, parts, "copy", "--split-max-tensors", "30", "--json"));
    REQUIRE(json);
    snprintf(first, sizeof first, "%s", json_string_value(json_array_get(json_object_get(json, "files"), 0)));
    CHECK(json_array_size(json_object_get(json, "files")) > 1);
    json_decref(json);
    struct test_run r = GEUL("quantize", first, again, "copy");
    CHECK_MSG(r.status == 0 && r.err_length == 0, "%s", r.err);
    test_run_free(&r);
    size_t a = 0, b = 0;
    char *x = test_slurp(whole, &a), *y = test_slurp(again, &b);
    CHECK(x && y && a == b && memcmp(x, y, a) == 0);
    free(x);
    free(y);
}
