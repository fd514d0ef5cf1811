/* registry.c: the backends of backends.def, and the machine's devices, numbered through all of them in that order.
 * Modules are looked for once, when somebody first asks for backends or devices:
 *
 *   GEUL_BACKENDS names a folder    there alone ("" or "none": nowhere)
 *   else                            in the folder of this library, or of the program that it is linked into;
 *                                   then in ../lib of that, as libraries are installed beside programs
 *
 * The first file of the name is the one; when it is refused, the reason is kept, and everything else goes on. */
#include "backends/module.h"

#include "core/os.h"

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#ifndef GEUL_LIBDIR
#define GEUL_LIBDIR "lib"
#endif

#define BACKEND(name) extern const struct geul_backend geul_backend_##name;
#include "backends/backends.def"

static const struct geul_backend *const built_in[] = {
#define BACKEND(name) &geul_backend_##name,
#include "backends/backends.def"
};

static struct module {
    const char *name;
    const struct geul_backend *backend; /* NULL: not there */
    bool refused;                       /* there is a file, but of no use */
    atomic_bool told;
    char reason[700]; /* why it is not there */
} modules[] = {
#define MODULE(id) {.name = #id},
#include "backends/backends.def"
};
enum { N_BUILT_IN = sizeof built_in / sizeof *built_in, N_MODULES = sizeof modules / sizeof *modules };

/* ----------------------------------------------------------------------------------- modules -- */

/* Opens module m if it lies in folder. Whether there is a file of its name. */
static bool try_folder(struct module *m, const char *folder)
{
    char path[PATH_MAX], why[400] = "";
    int n = snprintf(path, sizeof path, "%s/libgeul-%s.so", folder, m->name);
    if (n < 0 || n >= (int)sizeof path || !geul_os_exists(path))
        return false;
    m->backend = geul_module_open(path, why, sizeof why);
    m->refused = !m->backend;
    if (m->refused)
        snprintf(m->reason, sizeof m->reason, "%.250s is not used: %s", path, why);
    return true;
}

static void look_for_modules(void)
{
    char beside[PATH_MAX] = "", installed[PATH_MAX] = "";
    const char *named = geul_os_env("GEUL_BACKENDS");
    bool none = named && (named[0] == '\0' || strcmp(named, "none") == 0);
    if (!named && geul_os_folder_of(built_in, beside, sizeof beside) &&
        snprintf(installed, sizeof installed, "%s/../%s", beside, GEUL_LIBDIR) >= (int)sizeof installed)
        installed[0] = '\0';
    for (int i = 0; i < N_MODULES; i++) {
        struct module *m = &modules[i];
        if (none)
            snprintf(m->reason, sizeof m->reason, "%s: GEUL_BACKENDS leaves it out", m->name);
        else if (named && !try_folder(m, named))
            snprintf(m->reason, sizeof m->reason, "%s: there is no libgeul-%s.so in %.250s", m->name, m->name, named);
        else if (!named && !(beside[0] && try_folder(m, beside)) && !(installed[0] && try_folder(m, installed)))
            snprintf(m->reason, sizeof m->reason, "%s: there is no libgeul-%s.so beside the library, in %.250s",
                     m->name, m->name, beside);
    }
}

static atomic_bool looked;

static void find_modules(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, look_for_modules);
    atomic_store(&looked, true);
}

/* Tells the log of ctx of modules that have been refused, once. */
static void tell_refused(const struct geul_context *ctx)
{
    for (int i = 0; i < N_MODULES && atomic_load(&looked); i++)
        if (modules[i].refused && !atomic_exchange(&modules[i].told, true))
            geul_log(ctx, GEUL_LOG_WARN, "%s", modules[i].reason);
}

/* ---------------------------------------------------------------------------------- backends -- */

const struct geul_backend *geul_backend_at(int i)
{
    if (i < 0)
        return NULL;
    if (i < N_BUILT_IN)
        return built_in[i];
    find_modules();
    i -= N_BUILT_IN;
    for (int m = 0; m < N_MODULES; m++)
        if (modules[m].backend && i-- == 0)
            return modules[m].backend;
    return NULL;
}

bool geul_backend_missing(int i, char *text, size_t size)
{
    find_modules();
    for (int m = 0; m < N_MODULES; m++)
        if (!modules[m].backend && i-- == 0) {
            snprintf(text, size, "%s", modules[m].reason);
            return true;
        }
    const struct geul_backend *b;
    for (int k = 0; (b = geul_backend_at(k)) != NULL; k++) {
        char why[400] = "";
        if (b->missing)
            b->missing(why, sizeof why);
        if (why[0] && i-- == 0) {
            snprintf(text, size, "%s: %s", b->name, why);
            return true;
        }
    }
    return false;
}

/* ----------------------------------------------------------------------------------- devices -- */

int geul_device_count(void)
{
    int n = 0;
    const struct geul_backend *b;
    for (int k = 0; (b = geul_backend_at(k)) != NULL; k++)
        n += b->count();
    return n;
}

struct geul_device *geul_device_open(struct geul_context *ctx, int i, int n_threads)
{
    int n = 0;
    const struct geul_backend *b;
    tell_refused(ctx);
    for (int k = 0; (b = geul_backend_at(k)) != NULL; k++) {
        int more = b->count();
        if (i >= n && i < n + more)
            return b->open(ctx, i - n, n_threads);
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
