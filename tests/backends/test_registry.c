/* test_registry.c: the list of backends and the devices behind it. */
#include "tests/harness.h"

#include "backends/backend.h"

TEST(registry_opens_every_device_and_the_host_first)
{
    struct geul_context *ctx = geul_context_new(NULL);
    int n = geul_device_count(), in_all = 0;
    const struct geul_backend *b;
    for (int i = 0; (b = geul_backend_at(i)) != NULL; i++)
        in_all += b->count();
    CHECK_INT(n, in_all);
    CHECK(geul_backend_at(-1) == NULL);
    for (int i = 0; i < n; i++) {
        struct geul_device *d = geul_device_open(ctx, i, 3);
        REQUIRE(d);
        CHECK(i != GEUL_DEVICE_HOST || (d->backend == geul_backend_at(0) && d->n_threads == 3));
        geul_device_close(ctx, d);
    }
    geul_device_close(ctx, NULL);
    geul_context_free(ctx);
}

TEST(registry_host_has_every_op)
{
    for (int op = GEUL_OP_LEAF + 1; op < GEUL_OP_COUNT; op++)
        CHECK_MSG(geul_backend_at(0)->has_op((enum geul_op)op), "%s", geul_op_info((enum geul_op)op)->name);
}

TEST(registry_says_which_devices_there_are)
{
    struct geul_context *ctx = geul_context_new(NULL);
    const int missing[] = {-1, geul_device_count()};
    for (int i = 0; i < 2; i++) {
        geul_error_clear(ctx);
        CHECK(geul_device_open(ctx, missing[i], 1) == NULL);
        CHECK(geul_error_status(ctx) == GEUL_ERROR_ARGUMENT);
        CHECK_MSG(strstr(geul_error(ctx), "there is no device "), "%s", geul_error(ctx));
    }
    geul_context_free(ctx);
}
