/* check.h: checks of arguments and options that several public functions share. Each returns GEUL_OK, or records
 * GEUL_ERROR_ARGUMENT with a message that names the argument. */
#ifndef GEUL_CHECK_H
#define GEUL_CHECK_H

#include "core/context.h"

/* least <= value <= most. */
enum geul_status geul_check_range(struct geul_context *ctx, const char *name, int64_t value, int64_t least,
                                  int64_t most);
/* Every n_threads: 0 to 1024. */
enum geul_status geul_check_threads(struct geul_context *ctx, int n_threads);
/* p is not NULL. */
enum geul_status geul_check_given(struct geul_context *ctx, const char *name, const void *p);
/* There are n elements, at least least, and then items is not NULL. count: the name of n. */
enum geul_status geul_check_array(struct geul_context *ctx, const char *name, const void *items, const char *count,
                                  int n, int least);
/* p, which is items[i] or, with a field like ".pattern", in it, is not NULL. */
enum geul_status geul_check_element(struct geul_context *ctx, const char *items, int i, const char *field,
                                    const void *p);

#endif
