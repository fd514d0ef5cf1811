/* card.c: see card.h. */
#include "tests/card.h"

bool card_is_named(void)
{
    if (getenv("GEUL_TEST_DEVICE"))
        return true;
    test_skip("GEUL_TEST_DEVICE names no device: this is for a machine with a card (tools/gpu_check)");
    return false;
}

struct geul_device *card_open(struct geul_context *ctx)
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
