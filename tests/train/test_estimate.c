/* test_estimate.c: the memory that a run takes at its peak is what its estimate said. */
#include "core/os.h"
#include "tests/train/trainer_bed.h"

/* Two steps and all that follows; within 5 % and 2 MB, which is what code that is paged in and the allocator's pages
 * take. Every sample fills the context, so that the first batch is as large as any. */
static void check_estimate(const char *what, const struct geul_train_options *o)
{
    struct geul_train_estimate estimate;
    struct geul_train_report r;
    double loss;
    char path[600];
    if (test_sanitized() || !geul_os_peak_rss_reset()) {
        test_skip("peaks of memory are not reported here, or mean little");
        return;
    }
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_dataset *data = geul_dataset_new(ctx);
    uint64_t seed = 5;
    int32_t ids[513];
    for (int i = 0; i < 4; i++) {
        for (int k = 0; k < o->n_context + 1; k++)
            ids[k] = (int32_t)(test_random(&seed) % 4000);
        CHECK(geul_dataset_add(data, ids, NULL, o->n_context + 1) == GEUL_OK);
    }
    snprintf(path, sizeof path, "%s", test_scratch("saved.gguf"));
    REQUIRE(CHECK_MSG(geul_train_estimate(ctx, o, data, false, &estimate) == GEUL_OK, "%s", geul_error(ctx)));
    CHECK(geul_os_peak_rss_reset());
    struct geul_trainer *t = geul_trainer_new(ctx, o, data);
    REQUIRE(t && geul_trainer_step(t, &r) == GEUL_OK && geul_trainer_step(t, &r) == GEUL_OK);
    CHECK(geul_trainer_evaluate(t, data, &loss) == GEUL_OK && geul_trainer_save(t, path, NULL, 0) == GEUL_OK);
    CHECK(geul_trainer_export(t, path, GEUL_TYPE_F16) == GEUL_OK);
    double took = (double)geul_os_peak_rss() / 1e6, said = (double)estimate.total / 1e6;
    printf("  %s: %.1f MB estimated, %.1f MB taken, %+.1f %%\n", what, said, took, 100 * (said / took - 1));
    CHECK_MSG(fabs(said - took) < 0.05 * took + 2, "%s: %.1f MB estimated, %.1f MB taken", what, said, took);
    geul_trainer_free(t);
    geul_dataset_free(data);
    geul_context_free(ctx);
}

/* Of geul-mini with 2 * 128 tokens. */
static struct geul_train_options options(int rank, enum geul_recompute recompute)
{
    struct geul_train_options o = bed_options(test_mini_model(), rank);
    o.n_context = 128;
    o.n_threads = 2;
    o.recompute = recompute;
    return o;
}

TEST(estimate_of_an_adapter)
{
    struct geul_train_options o = options(8, GEUL_RECOMPUTE_NONE);
    o.n_accumulate = 1;
    check_estimate("rank 8, everything kept", &o);
}

TEST(estimate_of_an_adapter_with_recomputation)
{
    struct geul_train_options o = options(64, GEUL_RECOMPUTE_FULL);
    check_estimate("rank 64, recomputed", &o);
}

TEST(estimate_of_all_weights)
{
    struct geul_train_options o = options(0, GEUL_RECOMPUTE_LIGHT);
    check_estimate("all weights", &o);
}

TEST(estimate_of_all_weights_with_small_states)
{
    struct geul_train_options o = options(0, GEUL_RECOMPUTE_FULL);
    o.optimizer = GEUL_OPTIMIZER_ADAMW8;
    o.n_accumulate = 1;
    o.precision = GEUL_PRECISION_BF16;
    check_estimate("all weights, adamw8", &o);
}
