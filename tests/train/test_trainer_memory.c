/* test_trainer_memory.c: memory that runs out anywhere in a run is an ordinary error. */
#include "tests/train/trainer_bed.h"

/* A short run with everything a run does; returns its status. */
static enum geul_status whole_run(struct geul_context *ctx, const struct geul_train_options *o, const char *path)
{
    struct geul_train_estimate estimate;
    struct geul_dataset *data = bed_data(ctx, 6);
    enum geul_status status = data ? geul_train_estimate(ctx, o, data, false, &estimate) : GEUL_ERROR_MEMORY;
    struct geul_trainer *t = status == GEUL_OK ? geul_trainer_new(ctx, o, data) : NULL;
    if (!t)
        status = GEUL_ERROR_MEMORY;
    if (status == GEUL_OK)
        status = bed_use(t, data, path);
    geul_trainer_free(t);
    geul_dataset_free(data);
    return status;
}

/* Every call for memory fails once; of many, every stride-th. */
static void check_every_failure(const char *what, const struct geul_train_options *o, long most)
{
    struct test_allocator count = {.fail_at = 0};
    struct geul_context_options options = {.allocate = test_allocate, .allocate_user = &count};
    char path[600];
    snprintf(path, sizeof path, "%s", test_scratch("run.gguf"));
    struct geul_context *ctx = geul_context_new(&options);
    CHECK_MSG(whole_run(ctx, o, path) == GEUL_OK, "%s", geul_error(ctx));
    geul_context_free(ctx);
    CHECK_INT(count.outstanding, 0);
    long stride = 1 + count.calls / most, tried = 0;
    for (long n = 1; n <= count.calls; n += stride, tried++) {
        struct test_allocator a = {.fail_at = n};
        options.allocate_user = &a;
        ctx = geul_context_new(&options);
        if (ctx) {
            enum geul_status status = whole_run(ctx, o, path);
            CHECK_MSG(status == GEUL_ERROR_MEMORY, "%s: call %ld of %ld: status %d", what, n, count.calls, (int)status);
            CHECK_MSG(strstr(geul_error(ctx), "memory"), "%s: call %ld of %ld: \"%s\"", what, n, count.calls,
                      geul_error(ctx));
        }
        geul_context_free(ctx);
        CHECK_MSG(a.outstanding == 0, "%s: call %ld of %ld: %ld pieces are left", what, n, count.calls, a.outstanding);
    }
    printf("  %s: %ld calls, %ld of them failed\n", what, count.calls, tried);
}

TEST(trainer_memory_runs_out_anywhere)
{
    long most = test_sanitized() ? 150 : 400;
    struct geul_train_options o = bed_options(bed_model("full"), 2);
    o.steps = 2;
    check_every_failure("adapter", &o, most);
    o = bed_options(o.model_path, 0);
    o.steps = 2;
    o.n_accumulate = 1;
    o.optimizer = GEUL_OPTIMIZER_ADAMW8;
    o.recompute = GEUL_RECOMPUTE_FULL;
    o.smoothing = 0.1f;
    check_every_failure("all weights", &o, most);
}
