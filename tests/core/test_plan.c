/* The memory planner: values alive together never overlap, dead memory is used again. */
#include "core/plan.h"
#include "tests/harness.h"

TEST(plan_never_overlaps_living_values)
{
    struct geul_context *ctx = geul_context_new(NULL);
    REQUIRE(ctx);
    uint64_t seed = 42;
    for (int round = 0; round < 200; round++) {
        struct geul_plan_value v[60];
        int n = 1 + (int)(test_random(&seed) % 60), step = 0;
        for (int i = 0; i < n; i++) {
            step += (int)(test_random(&seed) % 2);
            v[i] = (struct geul_plan_value){.bytes = test_random(&seed) % 5000,
                                            .first = step,
                                            .last = step + (int)(test_random(&seed) % 8),
                                            .reuses = -1};
            if (i > 0 && v[i - 1].last == step && v[i - 1].first < step) {
                v[i].reuses = i - 1;
                v[i].bytes = v[i - 1].bytes;
            }
        }
        size_t total;
        REQUIRE(geul_plan(ctx, v, n, &total) == GEUL_OK);
        for (int i = 0; i < n; i++) {
            CHECK(v[i].offset % 64 == 0 && v[i].offset + v[i].bytes <= total);
            for (int k = 0; k < i; k++) {
                bool together = v[k].last >= v[i].first && v[i].reuses != k;
                bool overlap = v[i].offset < v[k].offset + v[k].bytes && v[k].offset < v[i].offset + v[i].bytes;
                CHECK_MSG(!together || !overlap, "round %d: values %d and %d overlap", round, k, i);
            }
            if (v[i].reuses >= 0)
                CHECK_INT(v[i].offset, v[v[i].reuses].offset);
        }
    }
    geul_context_free(ctx);
}

TEST(plan_uses_dead_memory_again)
{
    struct geul_context *ctx = geul_context_new(NULL);
    REQUIRE(ctx);
    struct geul_plan_value chain[100];
    for (int i = 0; i < 100; i++)
        chain[i] = (struct geul_plan_value){.bytes = 1000, .first = i, .last = i + 1, .reuses = -1};
    size_t total;
    CHECK_INT(geul_plan(ctx, chain, 100, &total), GEUL_OK);
    CHECK_INT(total, 2 * 1024);
    const size_t sizes[] = {SIZE_MAX, SIZE_MAX / 2, SIZE_MAX / 2 - 64, SIZE_MAX / 4};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct geul_plan_value huge[3];
        for (int k = 0; k < 3; k++)
            huge[k] = (struct geul_plan_value){.bytes = sizes[i], .first = k, .last = 2, .reuses = -1};
        enum geul_status status = geul_plan(ctx, huge, 3, &total);
        CHECK_INT(status, GEUL_ERROR_MEMORY);
        geul_error_clear(ctx);
    }
    geul_context_free(ctx);
}
