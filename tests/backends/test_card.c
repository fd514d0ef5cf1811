/* test_card.c: the cases of all operations on a device of this machine, named by GEUL_TEST_DEVICE ("cuda:0"): what
 * tools/gpu_check runs where there is a card. Skipped without that name. */
#include "tests/backends/device_ops.h"

/* The device that the environment names; NULL (recorded) when there is none of that name. */
static struct geul_device *open_named(struct geul_context *ctx)
{
    const char *wanted = getenv("GEUL_TEST_DEVICE");
    for (int i = 1; i < geul_device_count(); i++) {
        struct geul_device *device = geul_device_open(ctx, i, 0);
        if (device && strcmp(device->id, wanted) == 0)
            return device;
        geul_device_close(ctx, device);
    }
    geul_fail(ctx, GEUL_ERROR_ARGUMENT, "there is no device %s", wanted);
    return NULL;
}

static const char *only_way(int i)
{
    (void)i;
    return "again";
}

static const struct device_kind card = {"card", open_named, 2, only_way};

static bool is_named(void)
{
    if (getenv("GEUL_TEST_DEVICE"))
        return true;
    test_skip("GEUL_TEST_DEVICE names no device: this is for a machine with a card (tools/gpu_check)");
    return false;
}

TEST(card_op_cases)
{
    for (int op = GEUL_OP_LEAF + 1; is_named() && op < GEUL_OP_COUNT; op++)
        check_device_op(&card, (enum geul_op)op, false);
}

TEST(card_op_cases_exact)
{
    for (int op = GEUL_OP_LEAF + 1; is_named() && op < GEUL_OP_COUNT; op++)
        check_device_op(&card, (enum geul_op)op, true);
}
