/* paths.c: where the command keeps its own files. */
#include "command/paths.h"

#include "core/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The value of an environment variable; NULL when it is unset or empty. */
static const char *set(const char *name)
{
    const char *v = geul_os_env(name);
    return v && *v ? v : NULL;
}

/* Makes the directories in path, up to its last "/". */
static enum geul_status make_parents(struct geul_context *ctx, char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        enum geul_status status = geul_os_exists(path) ? GEUL_OK : geul_os_make_directory(ctx, path);
        *slash = '/';
        if (status != GEUL_OK)
            return status;
    }
    return GEUL_OK;
}

/* own/name, or xdg/geul/name, or ~/below/geul/name; the first whose variable is set. */
static char *user_path(struct geul_context *ctx, const char *own, const char *xdg, const char *below, const char *name)
{
    const char *base = own && set(own) ? set(own) : set(xdg) ? set(xdg) : set("HOME");
    const char *middle = own && set(own) ? "" : set(xdg) ? "/geul" : below;
    if (!base) {
        geul_fail(ctx, GEUL_ERROR_IO, "neither HOME nor %s is set, so there is no place for %s", own ? own : xdg, name);
        return NULL;
    }
    size_t size = strlen(base) + strlen(middle) + strlen(name) + 2;
    char *path = malloc(size);
    if (!path)
        return geul_fail_memory(ctx, size);
    snprintf(path, size, "%s%s/%s", base, middle, name);
    if (make_parents(ctx, path) == GEUL_OK)
        return path;
    free(path);
    return NULL;
}

char *geul_path_cache(struct geul_context *ctx, const char *name)
{
    return user_path(ctx, "GEUL_CACHE", "XDG_CACHE_HOME", "/.cache/geul", name);
}

char *geul_path_state(struct geul_context *ctx, const char *name)
{
    return user_path(ctx, NULL, "XDG_STATE_HOME", "/.local/state/geul", name);
}
