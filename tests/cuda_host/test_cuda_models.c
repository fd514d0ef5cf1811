/* test_cuda_models.c: whole models on "CUDA on the host": the goldens of transformers, alone on a card and divided
 * between it and the CPU; logits of every type of weights; the promise of exact sessions; launches for a token. */
#include "tests/cuda_host/host_card.h"
#include "tests/cuda_host/host_gpu.h"
#include "tests/models/device_models.h"
#include "tests/models/wide_logits.h"

static const struct rig_options on_card = {.poisoned_from = -1, .all_poisoned = true, .other = host_card_open},
                                divided = {.poisoned_from = 1, .other = host_card_open};

TEST(cuda_models_equal_transformers)
{
    struct rig_options exact = on_card;
    exact.exact = true;
    check_golden_logits(
        (const struct device_division[]){{"on a card", on_card}, {"exact", exact}, {"divided", divided}}, 3);
    host_card_check();
}

/* Single tokens replay a captured graph from the third on. */
TEST(cuda_models_continue_as_transformers)
{
    check_golden_texts((const struct device_division[]){{"on a card", on_card}, {"divided", divided}}, 2);
    CHECK(host_gpu_calls(HOST_GPU_graph_launch) > 0);
    host_card_check();
}

/* On a card of 7.5, and with every type of cache, as the CPU with that cache. Exact: keys at the middle between two
 * numbers of the cache's type may go to either, which is a step of it in one of them. Otherwise attention comes in
 * tiles, which round queries and probabilities to float16: 2^-11 of scores and values in each of two layers. */
TEST(cuda_models_with_every_cache)
{
    static const enum geul_type caches[] = {GEUL_TYPE_F32, GEUL_TYPE_F16, GEUL_TYPE_BF16, GEUL_TYPE_Q8_0};
    static float want[WIDE_TOKENS * WIDE_VOCAB], got[WIDE_TOKENS * WIDE_VOCAB];
    int32_t tokens[WIDE_TOKENS];
    wide_tokens(tokens);
    const char *path = wide_model(GEUL_TYPE_F32);
    REQUIRE(path);
    for (int c = 0; c < 16; c++) {
        struct rig_options o = on_card;
        o.cache = caches[c / 4];
        o.exact = c / 2 % 2;
        host_card_name = c % 2 ? "sm_75" : "sm_90";
        REQUIRE(wide_run(path, (struct rig_options){.poisoned_from = -1, .cache = o.cache}, tokens, want));
        REQUIRE(wide_run(path, o, tokens, got));
        double worst = test_difference(got, want, WIDE_TOKENS * WIDE_VOCAB);
        double bound = o.exact && o.cache == GEUL_TYPE_F32 ? 1e-4 : 2e-2;
        CHECK_MSG(worst <= bound, "%s cache on %s%s: logits differ by %g", geul_type_name(o.cache), host_card_name,
                  o.exact ? ", exact" : "", worst);
    }
    host_card_name = "sm_90";
    host_card_check();
}

/* The sum of squares of a - b. */
static double distance(const float *a, const double *b)
{
    double sum = 0;
    for (int i = 0; i < WIDE_TOKENS * WIDE_VOCAB; i++)
        sum += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    return sum;
}

/* Exact: to float32's digits those of the weights, as on the CPU, with activations rounded to int8 for blocks.
 * Otherwise what is rounded besides (for this graph: attention in tiles; activations of float16 and bfloat16 weights)
 * is less than what int8 activations do: 2^-8 of each group's largest value. */
TEST(cuda_models_of_every_type)
{
    static float got[WIDE_TOKENS * WIDE_VOCAB];
    int32_t tokens[WIDE_TOKENS];
    wide_tokens(tokens);
    for (enum geul_type type = 0; type < GEUL_TYPE_COUNT; type++) {
        if (!geul_type_is_weight(type))
            continue;
        const char *path = wide_model(type);
        REQUIRE(path);
        struct wide_weights *w = wide_weights_read(path);
        double *rounded = wide_reference(w, tokens, geul_type_block(type) > 1 ? WIDE_INT8 : WIDE_EXACT);
        double *exact = wide_reference(w, tokens, WIDE_EXACT), *int8 = wide_reference(w, tokens, WIDE_INT8), effect = 0;
        for (int i = 0; i < WIDE_TOKENS * WIDE_VOCAB; i++)
            effect += (int8[i] - exact[i]) * (int8[i] - exact[i]);
        struct rig_options o = on_card;
        o.exact = true;
        REQUIRE(wide_run(path, o, tokens, got));
        CHECK_MSG(wide_agrees(got, rounded, exact), "%s: exact logits are not those of its weights",
                  geul_type_name(type));
        o.exact = false;
        REQUIRE(wide_run(path, o, tokens, got));
        CHECK_MSG(distance(got, rounded) <= effect, "%s: logits are %g off, where int8 makes them %g",
                  geul_type_name(type), sqrt(distance(got, rounded)), sqrt(effect));
        printf("%-7s off %.4f, int8 %.4f\n", geul_type_name(type), sqrt(distance(got, rounded)), sqrt(effect));
        free(rounded);
        free(exact);
        free(int8);
        wide_weights_free(w);
    }
    host_card_check();
}

/* However the tokens are divided into batches, whatever sequences are beside them, and in every run. */
TEST(cuda_models_exact_are_bit_equal)
{
    static const enum geul_type types[] = {GEUL_TYPE_F32,  GEUL_TYPE_F16,  GEUL_TYPE_BF16,
                                           GEUL_TYPE_Q4_K, GEUL_TYPE_Q6_K, GEUL_TYPE_Q8_0};
    static const int batches[] = {1, 2, 5, 7, 0};
    static float want[WIDE_TOKENS * WIDE_VOCAB], got[WIDE_TOKENS * WIDE_VOCAB];
    int32_t tokens[WIDE_TOKENS];
    wide_tokens(tokens);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const char *path = wide_model(types[i]);
        REQUIRE(path);
        struct rig_options o = on_card;
        o.exact = true;
        o.cache = i % 2 ? GEUL_TYPE_F16 : GEUL_TYPE_Q8_0;
        REQUIRE(wide_run(path, o, tokens, want));
        for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
            o.n_batch = batches[b];
            REQUIRE(wide_run(path, o, tokens, got));
            CHECK_MSG(memcmp(want, got, sizeof want) == 0, "%s: other bits in batches of %d", geul_type_name(types[i]),
                      batches[b]);
        }
    }
    host_card_check();
}

/* Without exact the same division gives the same bits. */
TEST(cuda_models_repeat)
{
    static float want[WIDE_TOKENS * WIDE_VOCAB], got[WIDE_TOKENS * WIDE_VOCAB];
    int32_t tokens[WIDE_TOKENS];
    wide_tokens(tokens);
    const char *path = wide_model(GEUL_TYPE_Q5_K);
    REQUIRE(path);
    REQUIRE(wide_run(path, on_card, tokens, want) && wide_run(path, on_card, tokens, got));
    CHECK(memcmp(want, got, sizeof want) == 0);
    host_card_check();
}

/* At most 7 launches a layer and 6 around them, from the plan: two norms and their rounding; Q, K and V; rotary and
 * stores; attention; up, GELU and rounding; output; down. */
TEST(cuda_models_launch_seven_times_a_layer)
{
    static const enum geul_type types[] = {GEUL_TYPE_Q4_K, GEUL_TYPE_Q6_K, GEUL_TYPE_Q8_0, GEUL_TYPE_F16};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct rig r;
        struct rig_options o = on_card;
        o.cache = GEUL_TYPE_F16;
        const char *path = wide_model(types[i]);
        REQUIRE(path && rig_open(&r, path, o));
        for (int32_t token = 1; token < 5; token++) {
            const float *logits;
            long launches = host_gpu_calls(HOST_GPU_launch), graphs = host_gpu_calls(HOST_GPU_graph_launch);
            CHECK(geul_session_append(r.session, 0, &token, 1, &logits) == GEUL_OK);
            launches = host_gpu_calls(HOST_GPU_launch) - launches;
            graphs = host_gpu_calls(HOST_GPU_graph_launch) - graphs;
            if (token > 2) /* replayed */
                CHECK_MSG(launches == 0 && graphs == 1, "%s: token %d took %ld launches, %ld graphs",
                          geul_type_name(types[i]), token, launches, graphs);
            else
                CHECK_MSG(launches > 0 && launches <= 7 * WIDE_LAYERS + 6, "%s: %ld launches for token %d",
                          geul_type_name(types[i]), launches, token);
        }
        rig_close(&r);
    }
    host_card_check();
}
