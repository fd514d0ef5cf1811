/* The parts of speculation: the index of a text, the choice of a length, and taking choices back. */
#include "models/lookup.h"
#include "models/pace.h"
#include "models/sampler.h"
#include "tests/harness.h"

/* ------------------------------------------------------------------------------------ lookup -- */

/* The same as geul_lookup_find() in the plainest way, over at most the 32 latest places of the last pair. */
static int find_plainly(const int32_t *text, int n, int *next)
{
    int longest = 0, places = 0;
    for (int at = n - 2; at > 0; at--) {
        int same = 0;
        while (same < GEUL_LOOKUP_LONGEST && same <= at && text[at - same] == text[n - 1 - same])
            same++;
        if (same >= 2 && ++places <= 32 && same > longest) {
            longest = same;
            *next = at + 1;
        }
    }
    return longest;
}

TEST(lookup_finds_the_longest_match)
{
    struct geul_context *ctx = geul_context_new(NULL);
    uint64_t seed = 7;
    enum { SIZE = 300 };
    int32_t text[SIZE], all[SIZE];
    struct geul_lookup *l = geul_lookup_new(ctx, SIZE);
    REQUIRE(l);
    int found = 0;
    for (int round = 0; round < 60; round++) {
        int same = (int)(test_random(&seed) % SIZE), n_ids = 3 + round % 9, next = 0, expected_next = 0;
        for (int i = round ? same : 0; i < SIZE; i++)
            text[i] = (int32_t)(test_random(&seed) % (uint64_t)n_ids);
        geul_lookup_set(l, text, same); /* also shortens what the round before left */
        CHECK_INT(geul_lookup_length(l), same);
        for (int i = same; i < SIZE; i++) {
            geul_lookup_push(l, text[i]);
            int match = geul_lookup_find(l, &next), expected = find_plainly(text, i + 1, &expected_next);
            /* Other pairs in the same chain may use up places: a match is then shorter, never wrong. */
            CHECK_MSG(match == expected ? match == 0 || next == expected_next : match < expected,
                      "round %d, %d tokens: match of %d at %d, expected %d at %d", round, i + 1, match, next, expected,
                      expected_next);
            found += match > 0;
            memcpy(all, text, sizeof all);
            for (int k = 0; k < 5 && match > 0 && i + 5 < SIZE; k++)
                all[i + 1 + k] = all[next + k];
            int32_t draft[5];
            geul_lookup_copy(l, next, match > 0 ? 5 : 0, draft);
            CHECK(match == 0 || i + 5 >= SIZE || memcmp(draft, all + i + 1, sizeof draft) == 0);
        }
    }
    CHECK_MSG(found > 5000, "%d matches", found);
    geul_lookup_push(l, 1); /* full: left out */
    CHECK_INT(geul_lookup_length(l), SIZE);
    geul_lookup_free(l);
    geul_context_free(ctx);
}

TEST(lookup_goes_on_behind_its_end)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_lookup *l = geul_lookup_new(ctx, 16);
    const int32_t text[] = {9, 1, 2, 3, 1, 2, 3}, expected[] = {1, 2, 3, 1, 2, 3, 1};
    int32_t draft[7];
    int next = 0;
    REQUIRE(l);
    CHECK_INT(geul_lookup_find(l, &next), 0);
    geul_lookup_set(l, text, 7);
    CHECK_INT(geul_lookup_find(l, &next), 3);
    CHECK_INT(next, 4);
    geul_lookup_copy(l, next, 7, draft);
    CHECK(memcmp(draft, expected, sizeof draft) == 0);
    geul_lookup_free(l);
    geul_context_free(ctx);
}

/* -------------------------------------------------------------------------------------- pace -- */

/* Steps of a machine where a batch of n takes 1 + slope * (n - 1) seconds and a drafted token drafting seconds; each
 * guess is right with probability rate. Returns the tokens per second of the last half. */
static double simulate(struct geul_pace *p, enum geul_draft_source source, double slope, double drafting, double rate,
                       uint64_t *seed, double *share)
{
    double seconds = 0, tokens = 0, drafts = 0;
    enum { STEPS = 400 };
    for (int step = 0; step < STEPS; step++) {
        int k = geul_pace_choose(p, source, 16), right = 0;
        if (k > 0)
            geul_pace_drafted(p, source, k, k * drafting);
        while (right < k && test_uniform(seed, 0, 1) < rate)
            right++;
        double cost = 1 + slope * k;
        geul_pace_evaluated(p, source, k, right, cost);
        if (step >= STEPS / 2) {
            seconds += cost + k * drafting;
            tokens += right + 1;
            drafts += k > 0;
        }
    }
    *share = drafts / (STEPS / 2);
    return tokens / seconds;
}

TEST(pace_drafts_when_it_pays)
{
    static const struct {
        double slope, drafting, rate, least, most_share, least_share;
    } cases[] = {
        /* One token per second without drafts. Free batches, good guesses: nearly 1 / (1 - rate). */
        {0.01, 0, 0.9, 5, 1, 0.9},
        {0.1, 0, 0.8, 2, 1, 0.9},
        {0.3, 0.1, 0.9, 1.4, 1, 0.9},
        /* Guesses that are never right, or batches that cost what single tokens cost: no more than a trial now and
         * then. */
        {0.1, 0.1, 0, 0.95, 0.1, 0},
        {1, 0, 0.9, 0.95, 0.1, 0},
        {0.1, 2, 0.9, 0.9, 0.1, 0},
    };
    uint64_t seed = 3;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (int source = 0; source < GEUL_DRAFT_SOURCES; source++) {
            struct geul_pace p;
            double share;
            geul_pace_init(&p);
            double speed = simulate(&p, (enum geul_draft_source)source, cases[c].slope, cases[c].drafting,
                                    cases[c].rate, &seed, &share);
            CHECK_MSG(speed >= cases[c].least, "case %zu: %.2f tokens per second, expected %.2f", c, speed,
                      cases[c].least);
            CHECK_MSG(share <= cases[c].most_share && share >= cases[c].least_share,
                      "case %zu: drafts in %.2f of the steps", c, share);
        }
}

/* What did not pay comes back when the text changes, and the reverse. */
TEST(pace_follows_changes)
{
    struct geul_pace p;
    uint64_t seed = 11;
    double share;
    geul_pace_init(&p);
    CHECK(geul_pace_pays(&p, GEUL_DRAFT_MODEL, 16)); /* hoped for before anything was measured */
    CHECK_INT(geul_pace_choose(&p, GEUL_DRAFT_MODEL, 16), 0);
    simulate(&p, GEUL_DRAFT_LOOKUP_LONG, 0.1, 0.1, 0, &seed, &share);
    CHECK(!geul_pace_pays(&p, GEUL_DRAFT_LOOKUP_LONG, 16));
    simulate(&p, GEUL_DRAFT_LOOKUP_LONG, 0.1, 0.1, 0.9, &seed, &share); /* by its end a trial has shown it */
    double speed = simulate(&p, GEUL_DRAFT_LOOKUP_LONG, 0.1, 0.1, 0.9, &seed, &share);
    CHECK_MSG(speed > 1.8, "%.2f tokens per second", speed);
    speed = simulate(&p, GEUL_DRAFT_LOOKUP_LONG, 0.1, 0.1, 0, &seed, &share);
    CHECK_MSG(speed > 0.95 && share < 0.1, "%.2f tokens per second, %.2f of the steps", speed, share);
    CHECK_INT(geul_pace_choose(&p, GEUL_DRAFT_MODEL, 0), 0);
}

/* ----------------------------------------------------------------------------------- sampler -- */

/* Choices that were taken back come again, and leave nothing in the penalties. */
TEST(sampler_takes_choices_back)
{
    enum { V = 12 };
    struct geul_context *ctx = geul_context_new(NULL);
    static const int windows[] = {0, 1, 3, 64, -1};
    for (int w = 0; w < 5; w++) {
        struct geul_sampling how = geul_sampling_default();
        how.temperature = 2;
        how.repeat_penalty = 1.5f;
        how.frequency_penalty = 0.5f;
        how.penalty_last_n = windows[w];
        struct geul_sampler *a = geul_sampler_new(ctx, &how, V, V), *b = geul_sampler_new(ctx, &how, V, V);
        REQUIRE(a && b);
        uint64_t seed = 5;
        int32_t last[V] = {0};
        for (int i = 0; i < 200; i++) {
            float logits[V], other[V];
            for (int k = 0; k < V; k++) {
                logits[k] = test_normal(&seed);
                other[k] = test_normal(&seed);
            }
            int ahead = (int)(test_random(&seed) % (GEUL_SAMPLER_UNDO_MAX + 1));
            for (int k = 0; k < ahead; k++)
                geul_sampler_next(a, k % 2 ? logits : other);
            geul_sampler_undo(a, ahead);
            int32_t x = geul_sampler_next(a, logits), y = geul_sampler_next(b, logits);
            CHECK_MSG(x == y, "window %d, token %d: %d, expected %d", windows[w], i, x, y);
            double confidence = geul_sampler_confidence(a);
            CHECK(confidence >= 0.5 && confidence <= 1);
            last[x]++;
        }
        CHECK(last[0] < 200);
        geul_sampler_free(a);
        geul_sampler_free(b);
    }
    geul_context_free(ctx);
}

/* Two similar distributions mostly draw the same token: at least (1 - d) / (1 + d) of the time for a distance d in
 * total variation. */
TEST(sampler_draws_alike_from_alike)
{
    enum { V = 5, DRAWS = 20000 };
    const float p[V] = {0.4f, 0.3f, 0.15f, 0.1f, 0.05f}, q[V] = {0.3f, 0.4f, 0.1f, 0.05f, 0.15f};
    float log_p[V], log_q[V];
    double distance = 0;
    for (int i = 0; i < V; i++) {
        log_p[i] = logf(p[i]);
        log_q[i] = logf(q[i]);
        distance += fabs((double)p[i] - (double)q[i]) / 2;
    }
    struct geul_sampling how = geul_sampling_default();
    how.temperature = 1;
    how.top_k = 0;
    how.top_p = 1;
    how.min_p = 0;
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_sampler *a = geul_sampler_new(ctx, &how, V, V), *b = geul_sampler_new(ctx, &how, V, V);
    REQUIRE(a && b);
    int alike = 0;
    for (int i = 0; i < DRAWS; i++)
        alike += geul_sampler_next(a, log_p) == geul_sampler_next(b, log_q);
    double share = (double)alike / DRAWS, least = (1 - distance) / (1 + distance);
    CHECK_MSG(share > least - 0.015 && share < 1 - distance + 0.015, "alike in %.3f, expected %.3f to %.3f", share,
              least, 1 - distance);
    geul_sampler_free(a);
    geul_sampler_free(b);
    geul_context_free(ctx);
}
