/* paths.c: where the command keeps its own files. */
#include "command/paths.h"

#include "core/os.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

/* a/b in malloc()ed memory; NULL when there is none. */
static char *join(const char *a, const char *b)
{
    size_t size = strlen(a) + strlen(b) + 2;
    char *path = malloc(size);
    if (path)
        snprintf(path, size, "%s/%s", a, b);
    return path;
}

char *geul_path_expand(const char *path)
{
    if (strncmp(path, "~/", 2) == 0 && set("HOME"))
        return join(set("HOME"), path + 2);
    return strdup(path);
}

const char *geul_path_small_model(void)
{
    static char found[PATH_MAX];
    char program[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    program[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(program, '/');
    if (slash)
        *slash = '\0';
    static const char name[] = "geul-mini.gguf";
    const char *const places[][2] = {
        {program, "../share/geul"}, /* bin/geul: installed, perhaps moved since */
        {program, "../share"},      /* build/geul */
        {GEUL_DATA_DIR, "."},       /* bin elsewhere than share */
    };
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        char *dir = *places[i][0] ? join(places[i][0], places[i][1]) : NULL, *path = dir ? join(dir, name) : NULL;
        bool exists = path && realpath(path, found);
        free(dir);
        free(path);
        if (exists)
            return found;
    }
    return NULL;
}
