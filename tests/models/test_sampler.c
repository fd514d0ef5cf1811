/* The sampler: filters against hand-made distributions, frequencies, penalties, reproducibility. */
#include "geul.h"
#include "tests/harness.h"

#include <math.h>

enum { V = 6 };
/* Probabilities 0.4, 0.3, 0.15, 0.1, 0.04, 0.01 as logits. */
static void six(float *logits)
{
    const double p[V] = {0.4, 0.3, 0.15, 0.1, 0.04, 0.01};
    for (int i = 0; i < V; i++)
        logits[i] = (float)log(p[i]);
}

static struct geul_sampling pure(void)
{
    struct geul_sampling how = geul_sampling_default();
    how.temperature = 1;
    how.top_k = 0;
    how.top_p = 1;
    how.min_p = 0;
    return how;
}

/* Share of each of n_vocab ids over n draws. */
static void shares(const struct geul_sampling *how, const float *logits, int n_vocab, int n, double *share)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_sampler *s = geul_sampler_new(ctx, how, n_vocab, n_vocab);
    REQUIRE(s);
    memset(share, 0, (size_t)n_vocab * sizeof *share);
    for (int i = 0; i < n; i++) {
        int32_t id = geul_sampler_next(s, logits);
        REQUIRE(id >= 0 && id < n_vocab);
        share[id] += 1.0 / n;
    }
    geul_sampler_free(s);
    geul_context_free(ctx);
}

TEST(sampler_filters_keep_the_right_tokens)
{
    float logits[V];
    six(logits);
    struct geul_sampling top_k = pure(), top_p = pure(), min_p = pure(), typical = pure(), cold = pure(), all = pure();
    top_k.top_k = 2;
    top_p.top_p = 0.8f;
    min_p.min_p = 0.3f;
    typical.typical_p = 0.5f;
    cold.temperature = 0.5f;
    /* Entropy is 1.436: surprises are 0.92 1.20 1.90 2.30 3.22 4.61, so 1, 2, 0 are the most typical in this order;
     * 1 and 2 hold 0.45, with 0 0.85 >= 0.5. */
    const struct {
        const char *name;
        const struct geul_sampling *how;
        double expected[V];
    } cases[] = {
        {"all", &all, {0.4, 0.3, 0.15, 0.1, 0.04, 0.01}},
        {"top-k 2", &top_k, {4 / 7.0, 3 / 7.0}},
        {"top-p 0.8", &top_p, {0.4 / 0.85, 0.3 / 0.85, 0.15 / 0.85}},
        {"min-p 0.3", &min_p, {0.4 / 0.85, 0.3 / 0.85, 0.15 / 0.85}},
        {"typical 0.5", &typical, {0.4 / 0.85, 0.3 / 0.85, 0.15 / 0.85}},
        {"temperature 0.5",
         &cold,
         {0.16 / 0.2842, 0.09 / 0.2842, 0.0225 / 0.2842, 0.01 / 0.2842, 0.0016 / 0.2842, 0.0001 / 0.2842}},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        double share[V];
        shares(cases[c].how, logits, V, 20000, share);
        for (int i = 0; i < V; i++) /* 20,000 draws: four standard deviations are below 0.015 */
            CHECK_MSG(fabs(share[i] - cases[c].expected[i]) < 0.015 && (cases[c].expected[i] > 0 || share[i] == 0),
                      "%s: id %d came %.3f of the time, expected %.3f", cases[c].name, i, share[i],
                      cases[c].expected[i]);
    }
}

TEST(sampler_is_reproducible_and_greedy_at_zero)
{
    float logits[V];
    six(logits);
    struct geul_sampling how = pure();
    how.seed = 1234;
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_sampler *a = geul_sampler_new(ctx, &how, V, V);
    REQUIRE(a);
    /* From splitmix64 and the race of exponential times written in Python; any platform must draw the same. */
    static const char expected[] = "100213022002023103010010";
    char drawn[sizeof expected] = "";
    for (size_t i = 0; i < sizeof expected - 1; i++)
        drawn[i] = (char)('0' + geul_sampler_next(a, logits));
    CHECK_STR(drawn, expected);
    geul_sampler_reset(a, 1234);
    CHECK(geul_sampler_next(a, logits) == drawn[0] - '0');
    geul_sampler_free(a);
    how.temperature = 0;
    a = geul_sampler_new(ctx, &how, V, V);
    logits[4] = 3;
    logits[5] = 3; /* a tie goes to the lower id */
    CHECK(geul_sampler_next(a, logits) == 4);
    geul_sampler_free(a);
    geul_context_free(ctx);
}

TEST(sampler_penalties_count_the_last_tokens)
{
    float logits[V] = {2, 1.9f, -1, -2, -3, -4};
    struct geul_sampling how = pure();
    how.temperature = 0;
    how.repeat_penalty = 2;
    how.penalty_last_n = 2;
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_sampler *s = geul_sampler_new(ctx, &how, V, V);
    REQUIRE(s);
    /* 0, then 1 (0 is halved to 1), then 0 again (1 against 0.95), and so on. */
    CHECK(geul_sampler_next(s, logits) == 0);
    CHECK(geul_sampler_next(s, logits) == 1);
    CHECK(geul_sampler_next(s, logits) == 0);
    geul_sampler_accept(s, 5);
    geul_sampler_accept(s, 5); /* pushes 0 and 1 out of the window */
    CHECK(geul_sampler_next(s, logits) == 0);
    geul_sampler_free(s);
    how.repeat_penalty = 1;
    how.penalty_last_n = -1;
    how.frequency_penalty = 0.06f;
    how.presence_penalty = 0.03f;
    s = geul_sampler_new(ctx, &how, V, V);
    REQUIRE(s);
    CHECK(geul_sampler_next(s, logits) == 0); /* then 2 - 0.09 = 1.91 */
    CHECK(geul_sampler_next(s, logits) == 0); /* then 2 - 0.15 = 1.85 */
    CHECK(geul_sampler_next(s, logits) == 1);
    geul_sampler_free(s);
    geul_context_free(ctx);
}

TEST(sampler_never_chooses_padding_or_what_is_not_finite)
{
    float logits[V] = {NAN, 1, 2, INFINITY, 100, 100};
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_sampling how = pure();
    struct geul_sampler *s = geul_sampler_new(ctx, &how, V, 4);
    REQUIRE(s);
    for (int i = 0; i < 200; i++) {
        int32_t id = geul_sampler_next(s, logits);
        CHECK(id == 1 || id == 2);
    }
    logits[1] = logits[2] = -INFINITY;
    CHECK(geul_sampler_next(s, logits) == -1);
    geul_sampler_free(s);
    how.repeat_penalty = 0;
    CHECK(geul_sampler_new(ctx, &how, V, V) == NULL);
    CHECK(geul_error(ctx)[0] != '\0');
    geul_context_free(ctx);
}

TEST(sampler_survives_penalties_without_bounds)
{
    float logits[V] = {0, 3e38f, -3e38f, 1, 2, 3};
    struct geul_context *ctx = geul_context_new(NULL);
    const float odd[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++)
        for (int which = 0; which < 3; which++) {
            struct geul_sampling how = pure();
            float *const fields[] = {&how.repeat_penalty, &how.presence_penalty, &how.frequency_penalty};
            *fields[which] = odd[i];
            struct geul_sampler *s = geul_sampler_new(ctx, &how, V, V);
            CHECK_MSG(!s && geul_error(ctx)[0], "field %d takes %g", which, (double)odd[i]);
            geul_sampler_free(s);
            geul_error_clear(ctx);
        }
    /* Penalties that leave the range of a float put a token out of the question. */
    struct geul_sampling how = pure();
    how.typical_p = 0.9f;
    how.repeat_penalty = 3e38f;
    how.frequency_penalty = 3e38f;
    how.penalty_last_n = -1;
    struct geul_sampler *s = geul_sampler_new(ctx, &how, V, V);
    REQUIRE(s);
    for (int i = 0; i < 200; i++) {
        int32_t id = geul_sampler_next(s, logits);
        CHECK(id >= -1 && id < V);
        geul_sampler_accept(s, 2);
    }
    geul_sampler_free(s);
    geul_context_free(ctx);
}

/* ------------------------------------------------------------------------------------- order -- */

enum { WIDE = 12 };
/* What tests/golden/make_sampling.py prints: temperature, top-k, top-p, min-p, typical-p, and the distribution that
 * transformers draws from. */
static const struct {
    struct {
        float temperature;
        int top_k;
        float top_p, min_p, typical_p;
    } how;
    double p[WIDE];
} transformers[] = {
    {{1, 0, 1, 0, 1},
     {0.007339, 0.095176, 0.013711, 0.177813, 0.025616, 0.332198, 0.047858, 0.006895, 0.08941, 0.012881, 0.167039,
      0.024064}},
    {{0.5f, 0, 0.8f, 0, 1}, {0, 0, 0, 0.186121, 0, 0.649627, 0, 0, 0, 0, 0.164251, 0}},
    {{1.5f, 0, 0.8f, 0, 1}, {0, 0.127155, 0, 0.192882, 0, 0.292582, 0.080405, 0, 0.121966, 0, 0.18501, 0}},
    {{2, 6, 0.7f, 0, 1}, {0, 0.17986, 0, 0.24584, 0, 0.336023, 0, 0, 0, 0, 0.238276, 0}},
    {{0.7f, 0, 1, 0.1f, 1}, {0, 0.079656, 0, 0.194527, 0, 0.475054, 0, 0, 0.072852, 0, 0.177911, 0}},
    {{1.8f, 0, 1, 0.25f, 1}, {0, 0.134536, 0, 0.190386, 0, 0.269421, 0.091825, 0, 0.129944, 0, 0.183888, 0}},
    {{1.6f, 0, 1, 0, 0.4f}, {0, 0.205724, 0, 0.30404, 0, 0, 0, 0, 0.197843, 0, 0.292393, 0}},
    {{0.6f, 0, 1, 0, 0.5f}, {0, 0, 0, 0.211193, 0, 0.598507, 0, 0, 0, 0, 0.1903, 0}},
    {{1.3f, 8, 0.9f, 0.2f, 0.6f}, {0, 0.195627, 0, 0.31639, 0, 0, 0, 0, 0.186444, 0, 0.301539, 0}},
    {{0.8f, 40, 0.95f, 0.05f, 1}, {0, 0.088314, 0, 0.192895, 0, 0.421321, 0.037394, 0, 0.081677, 0, 0.178399, 0}},
};

TEST(sampler_order_of_transformers_has_its_distributions)
{
    struct geul_context *ctx = geul_context_new(NULL);
    float logits[WIDE];
    int differ = 0; /* distributions that the usual order does not have */
    for (int i = 0; i < WIDE; i++)
        logits[i] = (float)(i * 7 % 12) * 3 / 8 - (float)i / 16;
    for (size_t c = 0; c < sizeof transformers / sizeof *transformers; c++) {
        double share[WIDE], usual[WIDE], farthest = 0;
        struct geul_sampling how = geul_sampling_default();
        how.temperature = transformers[c].how.temperature;
        how.top_k = transformers[c].how.top_k;
        how.top_p = transformers[c].how.top_p;
        how.min_p = transformers[c].how.min_p;
        how.typical_p = transformers[c].how.typical_p;
        shares(&how, logits, WIDE, 40000, usual);
        REQUIRE(geul_sampling_set_order(ctx, &how, "hf") == GEUL_OK);
        shares(&how, logits, WIDE, 40000, share);
        for (int i = 0; i < WIDE; i++) { /* 40,000 draws: four standard deviations are below 0.01 */
            double p = transformers[c].p[i];
            CHECK_MSG(fabs(share[i] - p) < 0.01 && (p > 0) == (share[i] > 0),
                      "case %zu: id %d came %.4f of the time, transformers has %.4f", c, i, share[i], p);
            farthest = fmax(farthest, fabs(usual[i] - p));
        }
        differ += farthest > 0.02;
    }
    CHECK_MSG(differ >= 5, "only %d distributions depend on the order: the cases show nothing", differ);
    geul_context_free(ctx);
}

TEST(sampler_order_is_read_from_words)
{
    static const struct {
        const char *text;
        enum geul_sampling_step order[GEUL_SAMPLING_STEPS];
    } good[] = {
        {"hf",
         {GEUL_SAMPLING_TEMPERATURE, GEUL_SAMPLING_TOP_K, GEUL_SAMPLING_TOP_P, GEUL_SAMPLING_MIN_P,
          GEUL_SAMPLING_TYPICAL}},
        {"llama.cpp",
         {GEUL_SAMPLING_TOP_K, GEUL_SAMPLING_TYPICAL, GEUL_SAMPLING_TOP_P, GEUL_SAMPLING_MIN_P,
          GEUL_SAMPLING_TEMPERATURE}},
        {"penalties;top_k;typ_p;top_p;min_p;temperature",
         {GEUL_SAMPLING_TOP_K, GEUL_SAMPLING_TYPICAL, GEUL_SAMPLING_TOP_P, GEUL_SAMPLING_MIN_P,
          GEUL_SAMPLING_TEMPERATURE}},
        {"penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature",
         {GEUL_SAMPLING_TOP_K, GEUL_SAMPLING_TYPICAL, GEUL_SAMPLING_TOP_P, GEUL_SAMPLING_MIN_P,
          GEUL_SAMPLING_TEMPERATURE}},
        {"temp,top-p", {GEUL_SAMPLING_TEMPERATURE, GEUL_SAMPLING_TOP_P}},
        {"min_p", {GEUL_SAMPLING_MIN_P}},
    };
    static const struct {
        const char *text, *says;
    } bad[] = {{"", "names no step"},
               {"penalties", "names no step"},
               {"top_k;mirostat", "\"mirostat\""},
               {"top_k;top_k", "top_k twice"},
               {"top_k;penalties", "\"penalties\""},
               {"top", "\"top\""},
               {"top_k;;top_p", "\"\""},
               {"temp;top_k;top_p;min_p;typical;temperature", "temperature twice"}};
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_sampling how = geul_sampling_default();
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        CHECK_MSG(geul_sampling_set_order(ctx, &how, good[i].text) == GEUL_OK, "%s: %s", good[i].text, geul_error(ctx));
        CHECK_MSG(memcmp(how.order, good[i].order, sizeof how.order) == 0, "%s has another order", good[i].text);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct geul_sampling before = how;
        CHECK(geul_sampling_set_order(ctx, &how, bad[i].text) == GEUL_ERROR_ARGUMENT);
        CHECK_MSG(strstr(geul_error(ctx), bad[i].says), "\"%s\": %s", bad[i].text, geul_error(ctx));
        CHECK(memcmp(&before, &how, sizeof how) == 0);
        geul_error_clear(ctx);
    }
    how.order[1] = how.order[0]; /* set by hand */
    CHECK(geul_sampler_new(ctx, &how, WIDE, WIDE) == NULL && strstr(geul_error(ctx), "twice"));
    geul_context_free(ctx);
}

/* A step that an order leaves out is not taken. */
TEST(sampler_order_without_a_step)
{
    struct geul_context *ctx = geul_context_new(NULL);
    float logits[V];
    double share[V];
    six(logits);
    struct geul_sampling how = pure();
    how.top_k = 1;
    how.temperature = 0.5f;
    how.top_p = 0.8f;
    REQUIRE(geul_sampling_set_order(ctx, &how, "top_p") == GEUL_OK);
    shares(&how, logits, V, 20000, share);
    for (int i = 0; i < V; i++) {
        const double expected[V] = {0.4 / 0.85, 0.3 / 0.85, 0.15 / 0.85};
        CHECK_MSG(fabs(share[i] - expected[i]) < 0.015, "id %d came %.3f of the time", i, share[i]);
    }
    geul_context_free(ctx);
}
