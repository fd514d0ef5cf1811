/* module.c: opens backends that are shared objects, and refuses what does not fit. */
#include "backends/module.h"

#include "core/os.h"

#include <stdio.h>
#include <string.h>

static const struct geul_module ours = GEUL_MODULE(NULL);

/* Whether m is what this library expects. */
static bool fits(const struct geul_module *m, char *why, size_t size)
{
    if (memcmp(m->mark, ours.mark, sizeof ours.mark) != 0)
        snprintf(why, size, "it is not a backend of geul");
    else if (m->contract != ours.contract)
        snprintf(why, size, "it speaks version %u of the contract, this library %u: install both from one package",
                 m->contract, ours.contract);
    else if (m->bytes != ours.bytes || memcmp(m->version, ours.version, sizeof ours.version) != 0)
        snprintf(why, size, "it belongs to geul %.*s, this library is %s: install both from one package",
                 m->bytes == ours.bytes ? (int)sizeof m->version : 0, m->version, ours.version);
    else if (memcmp(m->sizes, ours.sizes, sizeof ours.sizes) != 0 || *m->context_bytes != *ours.context_bytes)
        snprintf(why, size, "it was built from other sources than this library: build both anew");
    else
        return true;
    return false;
}

const struct geul_backend *geul_module_open(const char *path, char *why, size_t size)
{
    void *library = geul_os_library_open(path, why, size);
    if (!library)
        return NULL;
    const struct geul_module *m = geul_os_library_symbol(library, "geul_backend_module");
    if (!m)
        snprintf(why, size, "it is not a backend of geul");
    if (m && fits(m, why, size))
        return m->backend;
    geul_os_library_close(library);
    return NULL;
}
