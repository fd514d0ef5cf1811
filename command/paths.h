/* paths.h: where the command keeps its own files. */
#ifndef GEUL_PATHS_H
#define GEUL_PATHS_H

#include "core/context.h"

/* name in $GEUL_CACHE, $XDG_CACHE_HOME/geul or ~/.cache/geul; name in $XDG_STATE_HOME/geul or ~/.local/state/geul. The
 * directories are made. Free with free(); NULL with the reason in ctx. */
char *geul_path_cache(struct geul_context *ctx, const char *name);
char *geul_path_state(struct geul_context *ctx, const char *name);

#endif
