/* check.c: see check.h. */
#include "core/check.h"

#include <limits.h>

enum { THREADS_MAX = 1024 };

enum geul_status geul_check_range(struct geul_context *ctx, const char *name, int64_t value, int64_t least,
                                  int64_t most)
{
    if (value >= least && value <= most)
        return GEUL_OK;
    return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "%s is %lld, not %lld to %lld", name, (long long)value, (long long)least,
                     (long long)most);
}

enum geul_status geul_check_threads(struct geul_context *ctx, int n_threads)
{
    return geul_check_range(ctx, "n_threads", n_threads, 0, THREADS_MAX);
}

enum geul_status geul_check_given(struct geul_context *ctx, const char *name, const void *p)
{
    return p ? GEUL_OK : geul_fail(ctx, GEUL_ERROR_ARGUMENT, "%s is NULL", name);
}

enum geul_status geul_check_array(struct geul_context *ctx, const char *name, const void *items, const char *count,
                                  int n, int least)
{
    if (geul_check_range(ctx, count, n, least, INT_MAX) != GEUL_OK)
        return GEUL_ERROR_ARGUMENT;
    if (n > 0 && !items)
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "%s is NULL, but %s is %d", name, count, n);
    return GEUL_OK;
}

enum geul_status geul_check_element(struct geul_context *ctx, const char *items, int i, const char *field,
                                    const void *p)
{
    return p ? GEUL_OK : geul_fail(ctx, GEUL_ERROR_ARGUMENT, "%s[%d]%s is NULL", items, i, field);
}
