/* test_command_devices.c: --device, -ngl, -ts, --exact and --fit, on the CUDA backend with the CPU's stand-in for
 * cards. */
#include "tests/command/command_fixture.h"

#include <unistd.h>

/* Runs the command on a machine with these cards. */
static struct test_run on_cards(const char *cards, const char *const *argv)
{
    setenv("GEUL_HOST_GPU", cards, 1);
    return test_geul(argv, NULL, 0);
}
#define ON(cards, ...) on_cards(cards, (const char *const[]){__VA_ARGS__, NULL})

/* Whether build/cuda-host has the module; otherwise the test is skipped. */
static bool have_cards(void)
{
    static char path[1100];
    snprintf(path, sizeof path, "%s", GEUL_BINARY);
    *strrchr(path, '/') = '\0';
    strcat(path, "/cuda-host");
    setenv("GEUL_BACKENDS", path, 1);
    strcat(path, "/libgeul-cuda.so");
    bool have = access(path, R_OK) == 0;
    if (!have)
        test_skip("there is no %s (it needs a C++ compiler)", path);
    return have;
}

static json_int_t integer(const json_t *json, const char *name)
{
    CHECK_MSG(json_is_integer(json_object_get(json, name)), "no number %s", name);
    return json_integer_value(json_object_get(json, name));
}

/* Ids that the model writes with these words; NULL after a failed check. */
static json_t *written(const char *cards, const char *const *words)
{
    const char *argv[24] = {"complete",    "-m", test_mini_model(), "-p", "오늘은", "-n", "5",
                            "--temp",      "0",  "--json",          "-c", "64",     "-b", "8",
                            "--ignore-eos"};
    int n = 15;
    while (*words && n < 23)
        argv[n++] = *words++;
    json_t *json = fixture_json(on_cards(cards, argv));
    json_t *tokens = json ? json_incref(json_object_get(json, "tokens")) : NULL;
    json_decref(json);
    return tokens;
}

TEST(devices_write_the_same_text)
{
    static const char *const words[][8] = {
        {"--device", "auto"},
        {"--device", "cuda:0", "-ngl", "1"},
        {"--device", "cuda", "-ngl", "4", "-ts", "3,1"},
        {"-dev", "cuda:1,cuda:0,cpu", "-ngl", "all", "--exact"},
        {"--device", "auto", "-ngl", "0"},
    };
    if (!have_cards())
        return;
    json_t *cpu = written("sm_90", (const char *const[]){"--device", "none", NULL});
    CHECK(json_array_size(cpu) == 5);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        json_t *there = written("sm_90,sm_75", words[i]);
        CHECK_MSG(json_equal(cpu, there), "%s %s", words[i][1], words[i][2] ? words[i][2] : "");
        json_decref(there);
    }
    setenv("GEUL_DEVICE", "cuda:0", 1);
    json_t *there = written("sm_90", (const char *const[]){"-ngl", "2", NULL});
    CHECK(json_equal(cpu, there));
    json_decref(there);
    json_decref(cpu);
}

TEST(devices_that_are_not_there_are_named)
{
    const char *model = test_mini_model();
    if (!have_cards())
        return;
    fixture_fails(ON("sm_90", "complete", "-m", model, "-p", "x", "--device", "cuda:1"), 1,
                  "geul complete: ", "there is no device \"cuda:1\", only cpu, cuda:0");
    fixture_fails(ON("sm_90", "bench", "-m", model, "--device", "gpu"), 1,
                  "geul bench: ", "there is no device \"gpu\"");
    fixture_fails(ON("sm_90", "complete", "-m", model, "-p", "x", "-ngl", "some"), 2, "geul complete: -ngl",
                  "neither a whole number nor all nor auto");
    fixture_fails(ON("sm_90", "complete", "-m", model, "-p", "x", "-ngl", "-2"), 2, "geul complete: -ngl", "outside");
    fixture_fails(ON("sm_90", "complete", "-m", model, "-p", "x", "-ts", "3;1"), 2, "geul complete: --tensor-split",
                  "\"3;1\"");
    fixture_fails(ON("sm_90", "complete", "-m", model, "-p", "x", "-ts", "0,0"), 2, "geul complete: --tensor-split",
                  "nothing");
    fixture_fails(ON("sm_90", "finetune", "-m", model, "--device", "cuda:0"), 2, "geul finetune: --device",
                  "training computes on the CPU");
    struct test_run r;
    setenv("GEUL_DEVICE", "cuda:5", 1);
    r = ON("sm_90", "complete", "-m", model, "-p", "x");
    CHECK_INT(r.status, 1);
    CHECK_MSG(strstr(r.err, "\"cuda:5\"") && strstr(r.err, "GEUL_DEVICE=cuda:5"), "%s", r.err);
    test_run_free(&r);
    unsetenv("GEUL_DEVICE");
    /* No card is no reason to say anything, unless layers were meant for one. */
    setenv("GEUL_BACKENDS", "none", 1);
    r = ON("", "complete", "-m", model, "-p", "x", "-n", "1", "--device", "auto");
    CHECK_MSG(r.status == 0 && r.err_length == 0, "%s", r.err);
    test_run_free(&r);
    r = ON("", "complete", "-m", model, "-p", "x", "-n", "1", "--device", "auto", "-v");
    CHECK_MSG(r.status == 0 && strstr(r.err, "GEUL_BACKENDS leaves it out; using the CPU"), "%s", r.err);
    test_run_free(&r);
    r = ON("", "complete", "-m", model, "-p", "x", "-n", "1", "--device", "auto", "-ngl", "9");
    CHECK_MSG(r.status == 0 && strstr(r.err, "there is no GPU to use (") && strchr(r.err, '\n')[1] == '\0', "%s",
              r.err);
    test_run_free(&r);
}

TEST(devices_too_small_say_what_would_fit)
{
    const char *model = test_mini_model();
    if (!have_cards())
        return;
    fixture_fails(ON("small", "complete", "-m", model, "-p", "x", "--device", "cuda:0", "-ngl", "all"), 1,
                  "geul complete: ", "is too small: 6 layers and the output need ");
    struct test_run r = ON("small", "complete", "-m", model, "-p", "x", "-n", "1", "--device", "auto");
    CHECK_MSG(r.status == 0 && strstr(r.err, "nothing of the model fits on ") && strstr(r.err, "using the CPU"), "%s",
              r.err);
    test_run_free(&r);
    json_t *json;
    r = ON("small", "complete", "-m", model, "--fit", "--json", "--device", "auto", "-ngl", "2", "-c", "64", "-b", "8");
    CHECK_INT(r.status, 1);
    json = json_loads(r.out, 0, NULL);
    CHECK_MSG(json && json_is_false(json_object_get(json, "fits")), "%s", r.out);
    CHECK_INT(integer(json, "n_gpu_layers"), 2);
    CHECK(json_is_object(json_object_get(json, "would_fit")));
    json_decref(json);
    test_run_free(&r);
    r = ON("small", "complete", "-m", model, "--fit", "--device", "auto", "-ngl", "2");
    CHECK_INT(r.status, 1);
    CHECK_MSG(strstr(r.out, "That does not fit. Any one of these would:\n  -ngl 0"), "%s", r.out);
    test_run_free(&r);
}

TEST(devices_fit_adds_up)
{
    static const char *const kinds[] = {"complete", "chat"};
    const char *model = test_mini_model();
    if (!have_cards())
        return;
    for (int i = 0; i < 2; i++) {
        json_t *json = fixture_json(ON("sm_90,sm_75", kinds[i], "-m", model, "--fit", "--json", "--device", "auto",
                                       "-ngl", "5", "-c", "100", "-ctk", "q8_0"));
        const json_t *devices = json_object_get(json, "devices"), *speed = json_object_get(json, "speed");
        json_int_t weights = 0, cache = 0, layers = 0;
        for (size_t d = 0; d < json_array_size(devices); d++) {
            const json_t *device = json_array_get(devices, d);
            weights += integer(device, "weight_bytes");
            cache += integer(device, "cache_bytes");
            layers += integer(device, "layers");
            CHECK(integer(device, "free_bytes") > 0 && integer(device, "working_bytes") > 0);
            CHECK(json_real_value(json_object_get(device, "read_bytes_per_s")) > 0);
        }
        CHECK_INT(json_array_size(devices), 3);
        CHECK_INT(layers, 6);
        CHECK_INT(integer(json, "n_gpu_layers"), 5);
        CHECK_INT(integer(json, "n_context"), 100);
        CHECK_INT(cache, integer(json, "cache_bytes"));
        CHECK_INT(cache, 2 * 6 * 256 / 32 * 34 * 100);
        json_int_t more =
            weights - integer(json, "weight_bytes"); /* what alignment takes: 256 for each tensor at most */
        CHECK_MSG(more >= 0 && more < 5 * 12 * 256, "%lld bytes", (long long)more);
        CHECK_INT(json_array_size(speed), 2);
        for (size_t k = 0; k < json_array_size(speed); k++)
            CHECK(json_real_value(json_object_get(json_array_get(speed, k), "tokens_per_s_at_most")) > 0);
        json_decref(json);
    }
    struct test_run r = ON("sm_90", "bench", "-m", model, "--fit", "-d", "0,7", "-np", "1,3", "--device", "cuda:0");
    CHECK_INT(r.status, 0);
    CHECK_MSG(strstr(r.out, "cuda:0") && strstr(r.out, "cache of 3 x ") && strstr(r.out, "behind 7 tokens"), "%s",
              r.out);
    test_run_free(&r);
    /* Without a card too. */
    setenv("GEUL_BACKENDS", "none", 1);
    json_t *json = fixture_json(ON("", "complete", "-m", model, "--fit", "--json"));
    CHECK_INT(json_array_size(json_object_get(json, "devices")), 1);
    CHECK(json_is_true(json_object_get(json, "fits")) && !json_object_get(json, "would_fit"));
    json_decref(json);
}

TEST(devices_are_listed)
{
    if (!have_cards())
        return;
    json_t *json = fixture_json(ON("sm_90,sm_61", "info", "--devices", "--json"));
    const json_t *devices = json_object_get(json, "devices"), *missing = json_object_get(json, "missing");
    CHECK_INT(json_array_size(devices), 2);
    CHECK_STR(json_string_value(json_object_get(json_array_get(devices, 0), "id")), "cpu");
    CHECK_STR(json_string_value(json_object_get(json_array_get(devices, 1), "id")), "cuda:0");
    CHECK_INT(json_array_size(missing), 1);
    CHECK_MSG(strstr(json_string_value(json_array_get(missing, 0)), "too old"), "%s",
              json_string_value(json_array_get(missing, 0)));
    json_decref(json);
    struct test_run r = ON("sm_90,sm_61", "info", "--devices");
    CHECK_MSG(r.status == 0 && strstr(r.out, "cuda:0 ") && strstr(r.out, "not there:\n  cuda: "), "%s", r.out);
    test_run_free(&r);
}

TEST(devices_are_measured)
{
    if (!have_cards())
        return;
    json_t *json = fixture_json(ON("sm_90", "bench", "-m", test_mini_model(), "-p", "4", "-n", "2", "-r", "1", "--json",
                                   "--device", "cuda:0", "-ngl", "3"));
    const json_t *cells = json_object_get(json, "cells");
    CHECK_INT(json_array_size(cells), 2);
    for (size_t i = 0; i < json_array_size(cells); i++) {
        const json_t *cell = json_array_get(cells, i);
        CHECK_STR(json_string_value(json_object_get(cell, "devices")), "cuda:0+cpu");
        CHECK_INT(integer(cell, "n_gpu_layers"), 3);
        double share = json_real_value(json_object_get(cell, "share"));
        CHECK_MSG(share > 0 && share < 1, "share %g", share);
        CHECK(json_real_value(json_object_get(cell, "ceiling_read_bytes_per_s")) > 0);
    }
    json_decref(json);
}
