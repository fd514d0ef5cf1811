/* rig.c: see rig.h. */
#include "tests/models/rig.h"

#include "backends/host.h"

static struct geul_device *open_other(struct rig *r, const struct rig_options *o)
{
    return o->other ? o->other(r->ctx) : poison_open(r->ctx, &o->poison);
}

bool rig_open(struct rig *r, const char *path, struct rig_options o)
{
    *r = (struct rig){.ctx = geul_context_new(NULL)};
    int n_threads = o.n_threads ? o.n_threads : 1, n_devices = o.poisoned_from >= 0 ? 2 : 1;
    if (o.cpu)
        setenv("GEUL_CPU", o.cpu, 1);
    o.poison.n_threads = n_threads;
    r->devices[0] = o.all_poisoned ? open_other(r, &o) : geul_device_open(r->ctx, GEUL_DEVICE_HOST, n_threads);
    if (n_devices == 2)
        r->devices[1] = open_other(r, &o);
    if (o.cpu)
        unsetenv("GEUL_CPU");
    r->model = geul_model_load_on(r->ctx, path, NULL, r->devices, n_devices, o.poisoned_from);
    struct geul_session_options so = {
        .cache_type = o.cache, .n_batch = o.n_batch, .n_sequences = o.n_sequences, .exact = o.exact};
    r->session = r->model ? geul_session_new(r->ctx, r->model, &so) : NULL;
    return CHECK_MSG(r->session != NULL, "%s: %s", path, geul_error(r->ctx));
}

void rig_close(struct rig *r)
{
    geul_session_free(r->session);
    geul_model_free(r->model);
    for (int i = 0; i < 2; i++)
        geul_device_close(r->ctx, r->devices[i]);
    geul_context_free(r->ctx);
}

const char *rig_variant(int i)
{
    const char *name;
    bool supported;
    for (int v = 0; geul_host_instruction_set(v, &name, &supported); v++)
        if (supported && i-- == 0)
            return name;
    return NULL;
}
