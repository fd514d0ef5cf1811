/* test_command_perplexity.c: `geul perplexity` on the golden `full`. */
#include "tests/command/command_fixture.h"

static const char *const text = "한글은 소리를 적는 글자다. 글자는 스물넷이다. The end.";

static double figure(const json_t *json, const char *name, const char *part)
{
    return json_number_value(json_object_get(json_object_get(json, name), part));
}

TEST(command_perplexity_equals_the_logits)
{
    const char *model = fixture_model();
    REQUIRE(model);
    char npy[1024];
    snprintf(npy, sizeof npy, "%s", test_scratch("logits.npy"));
    json_t *said = fixture_json(GEUL("logits", "-m", model, "-p", text, "-o", npy, "--json"));
    json_t *json = fixture_json(GEUL("perplexity", "-m", model, "-p", text, "--json"));
    struct test_npy logits;
    REQUIRE(said && json && test_npy_read(npy, &logits));
    const json_t *ids = json_object_get(said, "tokens");
    size_t n = json_array_size(ids), n_vocab = (size_t)logits.shape[1];
    double sum = 0;
    for (size_t i = 1; i < n; i++) {
        const float *row = logits.f32 + (i - 1) * n_vocab;
        long double all = 0;
        for (size_t k = 0; k < n_vocab; k++)
            all += expl((long double)row[k] - (long double)row[json_integer_value(json_array_get(ids, i))]);
        sum += (double)logl(all);
    }
    double nats = figure(json, "nats_per_token", "value");
    CHECK_MSG(fabs(nats - sum / (double)(n - 1)) < 1e-5, "%.8f, expected %.8f", nats, sum / (double)(n - 1));
    CHECK_INT(json_integer_value(json_object_get(json, "tokens_scored")), n - 1);
    CHECK_STR(json_string_value(json_object_get(json, "method")), "stride");
    json_decref(said);
    json_decref(json);
    test_npy_free(&logits);
}

TEST(command_perplexity_counts_characters)
{
    const char *model = fixture_model();
    REQUIRE(model);
    /* Counted by hand: 한글은 3, 소리를 3, 적는 2, 글자다 3, 글자는 3, 스물넷이다 5 = 19;
     * "The end." 8, two full stops, six spaces = 16. */
    json_t *json = fixture_json(GEUL("perplexity", "-m", model, "-p", text, "--start", "--json"));
    REQUIRE(json);
    CHECK_INT(json_number_value(json_object_get(json, "characters_scored")), 19 + 16);
    CHECK_INT(json_number_value(json_object_get(json, "bytes_scored")), 3 * 19 + 16);
    double n = json_number_value(json_object_get(json, "tokens_scored"));
    double bits = figure(json, "bits_per_token", "value") * n;
    CHECK(fabs(figure(json, "bits_per_character", "value") * 35 - bits) < 1e-4);
    CHECK(fabs(figure(json, "bits_per_byte", "value") * 73 - bits) < 1e-4);
    CHECK(fabs(figure(json, "perplexity", "value") / exp(figure(json, "nats_per_token", "value")) - 1) < 1e-6);
    CHECK(figure(json, "bits_per_character", "error") > 0);
    json_decref(json);
}

TEST(command_perplexity_saves_and_compares)
{
    const char *model = fixture_model();
    REQUIRE(model);
    char base[1024], other[1024];
    snprintf(base, sizeof base, "%s", test_scratch("a.base"));
    snprintf(other, sizeof other, "%s", test_scratch("bf16.gguf"));
    struct test_run r = GEUL("convert", test_path("golden/full"), "-o", other, "--type", "bf16");
    CHECK_INT(r.status, 0);
    test_run_free(&r);
    r = GEUL("perplexity", "-m", model, "-p", text, "-c", "16", "--kl-base", base);
    CHECK_INT(r.status, 0);
    CHECK_MSG(strstr(r.err, "becomes the base") && strstr(r.out, "bits per character"), "%s%s", r.err, r.out);
    test_run_free(&r);
    json_t *json = fixture_json(GEUL("perplexity", "-m", model, "--kl-base", base, "--json"));
    const json_t *same = json_object_get(json, "divergence");
    REQUIRE(same);
    CHECK(figure(same, "mean", "value") == 0 && json_number_value(json_object_get(same, "max")) == 0);
    CHECK(figure(same, "same_top", "value") == 1);
    json_decref(json);
    /* With the text given again, under other batches and threads. */
    json =
        fixture_json(GEUL("perplexity", "-m", other, "-p", text, "-c", "16", "-b", "5", "--kl-base", base, "--json"));
    const json_t *far = json_object_get(json, "divergence");
    REQUIRE(far);
    double kl = figure(far, "mean", "value");
    CHECK_MSG(kl > 1e-9 && kl < 1e-1, "bf16 is %g nats away", kl);
    CHECK(figure(far, "perplexity_ratio", "value") != 1);
    json_decref(json);
    r = GEUL("perplexity", "-m", other, "--kl-base", base);
    CHECK_MSG(r.status == 0 && strstr(r.out, "KL divergence"), "%s%s", r.err, r.out);
    test_run_free(&r);
    fixture_fails(GEUL("perplexity", "-m", other, "-p", "다른 글", "--kl-base", base), 1,
                  "geul perplexity: ", "another text");
    fixture_fails(GEUL("perplexity", "-m", other, "-c", "32", "--kl-base", base), 1,
                  "geul perplexity: ", "windows of 16 tokens");
    fixture_fails(GEUL("perplexity", "-m", other, "-c", "8", "--kl-base", base), 1,
                  "geul perplexity: ", "windows of 16 tokens"); /* not: that the file's stride does not fit 8 */
    fixture_fails(GEUL("perplexity", "-m", other, "--start", "--kl-base", base), 2, "geul perplexity: ", "--start");
    fixture_fails(
        GEUL("perplexity", "-m", model, "--kl-base", other), 1, "geul perplexity: ",
        "is not a file of logits of a base model, which an evaluation of that model writes: it is a GGUF file");
}

TEST(command_perplexity_refuses)
{
    const char *model = fixture_model();
    REQUIRE(model);
    fixture_fails(GEUL("perplexity", "-m", model), 2, "geul perplexity: ", "-p TEXT or -f FILE");
    fixture_fails(GEUL("perplexity", "-m", model, "-p", ""), 1, "geul perplexity: ", "0 tokens");
    fixture_fails(GEUL("perplexity", "-m", model, "-p", text, "--method", "llama"), 1,
                  "geul perplexity: ", "one context");
    fixture_fails(GEUL("perplexity", "-m", model, "-p", text, "-c", "8", "--stride", "8"), 1,
                  "geul perplexity: ", "stride of 8");
    fixture_fails(GEUL("perplexity", "-m", model, "-p", text, "--method", "sliding"), 2, "geul perplexity: --method",
                  "stride, llama");
    fixture_fails(GEUL("perplexity", "-m", "/no/such/file.gguf", "-p", text), 1,
                  "geul perplexity: ", "/no/such/file.gguf");
    fixture_fails(GEUL("perplexity", "-m", model, "-f", "/no/such/text"), 1, "geul perplexity: ", "/no/such/text");
    fixture_fails(GEUL("perplexity", "-m", model, "-p", text, "--kl-base", "/no/such/directory/x"), 1,
                  "geul perplexity: ", "/no/such/directory");
    const char *const piped[] = {"perplexity", "-m", model, "-f", "-", "--method", "llama", "-c", "8", NULL};
    struct test_run r = test_geul(piped, text, strlen(text));
    CHECK_MSG(r.status == 0 && strstr(r.out, "method llama"), "%s%s", r.err, r.out);
    test_run_free(&r);
}

/* From one token no error is known: it is left out and never "nan". */
TEST(command_perplexity_of_one_token)
{
    const char *model = test_mini_model();
    static const char *const texts[] = {"가나", "ab", "."};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const bool start = i == 2; /* a single token is scored after <|endoftext|> */
        struct test_run r = start ? GEUL("perplexity", "-m", model, "-p", texts[i], "--start")
                                  : GEUL("perplexity", "-m", model, "-p", texts[i]);
        CHECK_MSG(r.status == 0, "%s", r.err);
        if (strstr(r.out, "1 of 2 tokens scored"))
            CHECK_MSG(!strstr(r.out, "+-") && !strstr(r.out, "nan") && strstr(r.out, "no error is known"), "%s", r.out);
        else
            CHECK_MSG(i == 1, "\"%s\" is more than two tokens: %s", texts[i], r.out);
        test_run_free(&r);
    }
    json_t *json = fixture_json(GEUL("perplexity", "-m", model, "-p", texts[0], "--json"));
    REQUIRE(json);
    CHECK(json_is_null(json_object_get(json_object_get(json, "perplexity"), "error")));
    CHECK(figure(json, "perplexity", "value") > 1);
    json_decref(json);
}
