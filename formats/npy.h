/* npy.h: writing float32 arrays in NumPy's file format. */
#ifndef GEUL_NPY_H
#define GEUL_NPY_H

#include "core/context.h"

/* Row by row: shape first, then the values in C order in pieces of any size. Failures are sticky; nothing appears under
 * path before commit. NULL on failure. */
struct geul_npy_writer;
struct geul_npy_writer *geul_npy_writer_new(struct geul_context *ctx, const char *path, int n_dims,
                                            const int64_t *shape);
void geul_npy_write_rows(struct geul_npy_writer *w, const float *data, size_t count);
/* Checks that all values were written, syncs, renames; frees w whatever happens. */
enum geul_status geul_npy_commit(struct geul_npy_writer *w);
void geul_npy_abandon(struct geul_npy_writer *w);

#endif
