/* paths.h: where the command keeps its own files. */
#ifndef GEUL_PATHS_H
#define GEUL_PATHS_H

#include "core/context.h"

/* name in $GEUL_CACHE, $XDG_CACHE_HOME/geul or ~/.cache/geul; name in $XDG_STATE_HOME/geul or ~/.local/state/geul. The
 * directories are made. Free with free(); NULL with the reason in ctx. */
char *geul_path_cache(struct geul_context *ctx, const char *name);
char *geul_path_state(struct geul_context *ctx, const char *name);

/* A path that was typed where no shell sees it, with $HOME for "~" before "/". Free with free(); NULL when memory is
 * short. */
char *geul_path_expand(const char *path);
/* The small model that comes with geul: in the tree that the program is installed or was built in, or where geul was to
 * be installed. NULL when it is nowhere. */
const char *geul_path_small_model(void);

#endif
