/* The memory planner: values alive together never overlap, dead memory is used again. */
#include "core/plan.h"
#include "tests/harness.h"

enum { MOST_VALUES = 60 };

/* n values of random sizes below `most` and random lifetimes, some of which take over the memory of the one before. */
static void make_values(uint64_t *seed, struct geul_plan_value *v, int n, size_t most)
{
    int step = 0;
    for (int i = 0; i < n; i++) {
        step += (int)(test_random(seed) % 2);
        v[i] = (struct geul_plan_value){.bytes = test_random(seed) % most,
                                        .first = step,
                                        .last = step + (int)(test_random(seed) % 8),
                                        .reuses = -1};
        if (i > 0 && v[i - 1].last == step && v[i - 1].first < step) {
            v[i].reuses = i - 1;
            v[i].bytes = v[i - 1].bytes;
        }
    }
}

/* Plans values and checks all that geul_plan() promises. */
static void check_plan(struct geul_context *ctx, int round, struct geul_plan_value *v, int n,
                       const struct geul_plan_limits *limits)
{
    int n_blocks;
    REQUIRE(geul_plan(ctx, v, n, limits, &n_blocks) == GEUL_OK);
    for (int b = 0; b < n_blocks; b++) {
        size_t bytes = geul_plan_block_bytes(v, n, b);
        CHECK(bytes <= limits->block && (bytes > 0 || n_blocks == 1));
    }
    for (int i = 0; i < n; i++) {
        CHECK(v[i].offset % limits->alignment == 0 && v[i].bytes % limits->alignment == 0);
        CHECK(v[i].block >= 0 && v[i].block < n_blocks && v[i].offset + v[i].bytes <= limits->block);
        for (int k = 0; k < i; k++) {
            bool together = v[k].last >= v[i].first && v[i].reuses != k && v[i].block == v[k].block;
            bool overlap = v[i].offset < v[k].offset + v[k].bytes && v[k].offset < v[i].offset + v[i].bytes;
            CHECK_MSG(!together || !overlap, "round %d: values %d and %d overlap", round, k, i);
        }
        if (v[i].reuses >= 0)
            CHECK(v[i].offset == v[v[i].reuses].offset && v[i].block == v[v[i].reuses].block);
    }
}

TEST(plan_never_overlaps_living_values)
{
    static const struct geul_plan_limits limits[] = {{64, SIZE_MAX}, {256, SIZE_MAX}, {64, 5056}, {256, 8192}};
    struct geul_context *ctx = geul_context_new(NULL);
    REQUIRE(ctx);
    uint64_t seed = 42;
    for (int round = 0; round < 400; round++) {
        struct geul_plan_value v[MOST_VALUES];
        int n = 1 + (int)(test_random(&seed) % MOST_VALUES);
        make_values(&seed, v, n, 5000);
        check_plan(ctx, round, v, n, &limits[round % 4]);
    }
    geul_context_free(ctx);
}

/* Values that do not fit into one block, with what has to lie in front. */
TEST(plan_spreads_over_blocks)
{
    struct geul_context *ctx = geul_context_new(NULL);
    REQUIRE(ctx);
    const struct geul_plan_limits limits = {256, 4096};
    struct geul_plan_value v[] = {{.bytes = 4000, .last = 9, .reuses = -1},
                                  {.bytes = 700, .last = 9, .reuses = -1, .front = true},
                                  {.bytes = 3000, .first = 1, .last = 1, .reuses = -1},
                                  {.bytes = 600, .first = 1, .last = 2, .reuses = -1},
                                  {.bytes = 3000, .first = 2, .last = 2, .reuses = -1}};
    int n_blocks;
    REQUIRE(geul_plan(ctx, v, 5, &limits, &n_blocks) == GEUL_OK);
    CHECK_INT(n_blocks, 3);
    CHECK(v[1].block == 0 && v[1].offset == 0); /* a piece of 4096 before it would have been placed first */
    CHECK(v[0].block == 1 && v[0].offset == 0);
    CHECK(v[2].block == 0 && v[2].offset == 768 && v[4].block == 0 && v[4].offset == 768);
    CHECK(v[3].block == 2 && v[3].offset == 0); /* 768 + 3072 + 768 is more than a block */
    CHECK_INT(geul_plan_block_bytes(v, 5, 0), 768 + 3072);
    CHECK_INT(geul_plan_block_bytes(v, 5, 2), 768);
    v[0].bytes = 4097;
    enum geul_status status = geul_plan(ctx, v, 5, &limits, &n_blocks);
    CHECK_INT(status, GEUL_ERROR_MEMORY);
    CHECK_MSG(strstr(geul_error(ctx), "4352 bytes") && strstr(geul_error(ctx), "4096"), "%s", geul_error(ctx));
    geul_context_free(ctx);
}

TEST(plan_uses_dead_memory_again)
{
    struct geul_context *ctx = geul_context_new(NULL);
    REQUIRE(ctx);
    struct geul_plan_value chain[100];
    for (int i = 0; i < 100; i++)
        chain[i] = (struct geul_plan_value){.bytes = 1000, .first = i, .last = i + 1, .reuses = -1};
    const struct geul_plan_limits limits = {64, SIZE_MAX};
    int n_blocks;
    CHECK_INT(geul_plan(ctx, chain, 100, &limits, &n_blocks), GEUL_OK);
    CHECK_INT(geul_plan_block_bytes(chain, 100, 0), 2 * 1024);
    const size_t sizes[] = {SIZE_MAX, SIZE_MAX / 2, SIZE_MAX / 2 - 64, SIZE_MAX / 4};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct geul_plan_value huge[3];
        for (int k = 0; k < 3; k++)
            huge[k] = (struct geul_plan_value){.bytes = sizes[i], .first = k, .last = 2, .reuses = -1};
        enum geul_status status = geul_plan(ctx, huge, 3, &limits, &n_blocks);
        CHECK_INT(status, GEUL_ERROR_MEMORY);
        geul_error_clear(ctx);
    }
    geul_context_free(ctx);
}
