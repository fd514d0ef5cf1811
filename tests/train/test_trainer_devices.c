/* test_trainer_devices.c: a device that is lost anywhere in a training run is an ordinary error. */
#include "tests/poison.h"
#include "tests/train/trainer_bed.h"

/* A short run on one device with everything that a run does there; returns its status. */
static enum geul_status whole_run(struct geul_context *ctx, const struct geul_train_options *o, const char *path,
                                  struct geul_device *device)
{
    struct geul_trainer_devices on = {&device, 1, 0};
    struct geul_dataset *data = bed_data(ctx, 6);
    struct geul_trainer *t = data ? geul_trainer_new_on(ctx, o, data, &on) : NULL;
    enum geul_status status = t ? bed_use(t, data, path) : geul_error_status(ctx);
    geul_trainer_free(t);
    geul_dataset_free(data);
    return status;
}

/* Of many calls every stride-th. */
static void lose_everywhere(const char *what, const struct geul_train_options *o, long most)
{
    struct test_allocator count = {.fail_at = 0};
    struct geul_context_options options = {.allocate = test_allocate, .allocate_user = &count};
    char path[600];
    snprintf(path, sizeof path, "%s", test_scratch("run.gguf"));
    struct geul_context *ctx = geul_context_new(&options);
    long stride = 1, calls = 0, tried = 0;
    for (long n = 0; n <= calls; n += stride, tried++) { /* 0: never lost, to count them */
        struct geul_device *device = poison_open(ctx, &(struct poison_options){.lost_at = n});
        REQUIRE(device);
        geul_error_clear(ctx);
        enum geul_status status = whole_run(ctx, o, path, device);
        CHECK_MSG(status == (n ? GEUL_ERROR_DEVICE : GEUL_OK), "%s: call %ld of %ld: status %d, %s", what, n, calls,
                  (int)status, geul_error(ctx));
        CHECK_MSG(!n || strstr(geul_error(ctx), device->name), "%s: call %ld: %s", what, n, geul_error(ctx));
        if (n == 0) {
            calls = poison_counts(device).calls;
            stride = 1 + calls / most;
        }
        geul_device_close(ctx, device);
    }
    printf("  %s: %ld calls, lost at %ld of them\n", what, calls, tried - 1);
    geul_context_free(ctx);
    CHECK_INT(count.outstanding, 0);
}

TEST(trainer_loses_its_device_anywhere)
{
    long most = test_sanitized() ? 60 : 150;
    struct geul_train_options o = bed_options(bed_model("full"), 2);
    o.steps = 2;
    lose_everywhere("adapter", &o, most);
    o = bed_options(o.model_path, 0);
    o.steps = 2;
    o.n_accumulate = 1;
    lose_everywhere("all weights", &o, most);
}
