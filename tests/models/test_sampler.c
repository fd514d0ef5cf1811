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

/* Share of each id over n draws. */
static void shares(const struct geul_sampling *how, const float *logits, int n, double *share)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_sampler *s = geul_sampler_new(ctx, how, V, V);
    REQUIRE(s);
    memset(share, 0, V * sizeof *share);
    for (int i = 0; i < n; i++) {
        int32_t id = geul_sampler_next(s, logits);
        REQUIRE(id >= 0 && id < V);
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
        shares(cases[c].how, logits, 20000, share);
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
