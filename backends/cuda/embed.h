/* embed.h: rows of a table of any type, as float32: those that ids name, or all. */
#ifndef GEUL_CUDA_EMBED_H
#define GEUL_CUDA_EMBED_H

#include "backends/cuda/cuda_types.h"
#include "backends/cuda/cuda_rows.h"
#include "backends/cuda/stream.h"

#ifdef __cplusplus
extern "C" {
#endif

struct cuda_embed {
    enum cuda_type type;
    const void *table;
    /* Rows of the table: row ids[i] of n_table for row i of the result, NaN where there is none, row_bytes from one to
     * the next; or where ids is NULL row i of the leading dimensions, whose strides are in bytes. */
    const int32_t *ids;
    int64_t n_table, row_bytes;
    struct cuda_leading leading;
    int64_t stride[CUDA_LEADING];
    int64_t n_rows, n_cols;
    float *out;  /* packed */
    int aligned; /* the launch's own */
};
int geul_cuda_launch_embed(struct cuda_stream *stream, const void *args);

#ifdef __cplusplus
}
#endif
#endif
