/* imatrix.h: what is in an importance matrix (geul_tools.h), and reading and writing its files.
 *
 * Two formats are read: llama.cpp's GGUF form (general.type "imatrix", tensors NAME.in_sum2 and NAME.counts) and its
 * older .dat form. Files are not trusted: every count and length is held against the bytes that remain. */
#ifndef GEUL_IMATRIX_H
#define GEUL_IMATRIX_H

#include "core/os.h"
#include "geul_tools.h"

/* One matrix. */
struct geul_imatrix_entry {
    const char *name;  /* of the tensor: "blk.0.attn_qkv.weight" */
    int64_t columns;   /* inputs of the matrix */
    const float *sums; /* per column the sum of squares over all rows of input that were seen */
    double rows;       /* number of those rows */
};

struct geul_imatrix {
    struct geul_imatrix_entry *entries; /* in the order of the file */
    int64_t n_entries;
    char *dataset;               /* the text it was made from; "" when the file does not say */
    uint64_t chunks, chunk_size; /* pieces of text, and tokens in each; 0 when the file does not say */
    struct geul_context *ctx;    /* whose memory it is */
    struct geul_map map;         /* the file; of none when it was made or parsed */
};

/* geul_imatrix_load() from bytes, which may be freed afterwards; name is for messages. */
struct geul_imatrix *geul_imatrix_parse(struct geul_context *ctx, const void *data, size_t size, const char *name);
/* The entry of a tensor, NULL when there is none. */
const struct geul_imatrix_entry *geul_imatrix_find(const struct geul_imatrix *m, const char *tensor);
/* Writes m to path in the GGUF form, which llama.cpp reads too, in one atomic step. */
enum geul_status geul_imatrix_save(struct geul_context *ctx, const struct geul_imatrix *m, const char *path);

#endif
