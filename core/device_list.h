/* device_list.h: devices by their names. */
#ifndef GEUL_DEVICE_LIST_H
#define GEUL_DEVICE_LIST_H

#include "backends/backend.h"

struct geul_devices {
    struct geul_device *at[GEUL_MAX_DEVICES];
    int n;
};

/* Opens the devices that names lists, as geul_runtime_options.devices says: the CPU's, with n_threads, at 0, behind it
 * the others in the order of the list. On failure nothing is open. Close with geul_devices_close(). */
enum geul_status geul_devices_open(struct geul_context *ctx, const char *names, int n_threads,
                                   struct geul_devices *out);
/* ctx as when they were opened. */
void geul_devices_close(struct geul_context *ctx, struct geul_devices *devices);

#endif
