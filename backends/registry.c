/* registry.c: the backends of backends.def, and the machine's devices, numbered through all of them in that order. */
#include "backends/backend.h"

#define BACKEND(name) extern const struct geul_backend geul_backend_##name;
#include "backends/backends.def"
#undef BACKEND

static const struct geul_backend *const backends[] = {
#define BACKEND(name) &geul_backend_##name,
#include "backends/backends.def"
#undef BACKEND
};
enum { N_BACKENDS = sizeof backends / sizeof backends[0] };

const struct geul_backend *geul_backend_at(int i)
{
    return i >= 0 && i < N_BACKENDS ? backends[i] : NULL;
}

int geul_device_count(void)
{
    int n = 0;
    for (int b = 0; b < N_BACKENDS; b++)
        n += backends[b]->count();
    return n;
}

struct geul_device *geul_device_open(struct geul_context *ctx, int i, int n_threads)
{
    int n = 0;
    for (int b = 0; b < N_BACKENDS; b++) {
        int more = backends[b]->count();
        if (i >= n && i < n + more)
            return backends[b]->open(ctx, i - n, n_threads);
        n += more;
    }
    geul_fail(ctx, GEUL_ERROR_ARGUMENT, "there is no device %d, only 0 to %d", i, n - 1);
    return NULL;
}

void geul_device_close(struct geul_context *ctx, struct geul_device *device)
{
    if (device)
        device->backend->close(ctx, device);
}
