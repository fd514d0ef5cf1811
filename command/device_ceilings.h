/* device_ceilings.h: what the devices of a model can do at most, measured now. */
#ifndef GEUL_DEVICE_CEILINGS_H
#define GEUL_DEVICE_CEILINGS_H

#include "backends/host.h"
#include "core/device_list.h"

struct geul_ceilings {
    struct geul_context *ctx;
    struct geul_devices devices; /* the caller's, open as long as this is in use */
    struct geul_host_probe *probe;
};

/* false (recorded in ctx) when memory is short. Close with geul_ceilings_close(). */
bool geul_ceilings_open(struct geul_context *ctx, const struct geul_devices *devices, struct geul_ceilings *out);
void geul_ceilings_close(struct geul_ceilings *c);
/* Those of device d; zeros where it cannot say. false (recorded) when measuring failed. */
bool geul_ceilings_measure(const struct geul_ceilings *c, int d, struct geul_device_ceilings *out);

#endif
