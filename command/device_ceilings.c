/* device_ceilings.c: see device_ceilings.h. */
#include "command/device_ceilings.h"

bool geul_ceilings_open(struct geul_context *ctx, const struct geul_devices *devices, struct geul_ceilings *out)
{
    *out = (struct geul_ceilings){.ctx = ctx, .devices = *devices};
    out->probe = geul_host_probe_new(ctx, devices->at[GEUL_DEVICE_HOST]);
    return out->probe != NULL;
}

void geul_ceilings_close(struct geul_ceilings *c)
{
    geul_host_probe_free(c->probe);
    c->probe = NULL;
}

bool geul_ceilings_measure(const struct geul_ceilings *c, int d, struct geul_device_ceilings *out)
{
    struct geul_device *device = c->devices.at[d];
    *out = (struct geul_device_ceilings){.read_bytes_per_s = 0};
    if (d == GEUL_DEVICE_HOST)
        *out = geul_host_probe_measure(c->probe);
    else if (device->backend->measure)
        return device->backend->measure(c->ctx, device, out) == GEUL_OK;
    return true;
}
