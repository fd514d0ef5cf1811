/* npy.c: see npy.h. The format: "\x93NUMPY", version, header length, a Python dictionary padded to 64 bytes, data. */
#include "formats/npy.h"

#include "core/os.h"

#include <stdio.h>
#include <string.h>

enum { MOST_DIMS = 8, HEADER_BYTES = 256 };

struct geul_npy_writer {
    struct geul_context *ctx;
    struct geul_outfile *file;
    enum geul_status status;
    size_t expected, written; /* values */
};

/* The header into out; returns its length, a multiple of 64. MOST_DIMS sizes of 19 digits fit into HEADER_BYTES. */
static size_t make_header(char out[HEADER_BYTES], int n_dims, const int64_t *shape)
{
    enum { FIXED = 10 };
    size_t n = FIXED;
    n += (size_t)snprintf(out + n, HEADER_BYTES - n, "{'descr': '<f4', 'fortran_order': False, 'shape': (");
    for (int i = 0; i < n_dims; i++)
        n += (size_t)snprintf(out + n, HEADER_BYTES - n, "%lld,%s", (long long)shape[i], i + 1 < n_dims ? " " : "");
    n += (size_t)snprintf(out + n, HEADER_BYTES - n, "), }");
    /* spaces, then a newline as the last byte; the length that is written counts what follows it */
    size_t total = (n + 1 + 63) / 64 * 64;
    memset(out + n, ' ', total - n);
    out[total - 1] = '\n';
    memcpy(out, "\x93NUMPY\x01\x00", 8);
    out[8] = (char)((total - FIXED) & 0xff);
    out[9] = (char)((total - FIXED) >> 8);
    return total;
}

struct geul_npy_writer *geul_npy_writer_new(struct geul_context *ctx, const char *path, int n_dims,
                                            const int64_t *shape)
{
    size_t values = 1;
    bool ok = n_dims >= 0 && n_dims <= MOST_DIMS;
    for (int i = 0; ok && i < n_dims; i++)
        ok = shape[i] >= 0 && geul_mul_size(values, (size_t)shape[i], &values);
    if (!ok) {
        geul_fail(ctx, GEUL_ERROR_ARGUMENT, "%s: an array of %d dimensions and this shape cannot be written", path,
                  n_dims);
        return NULL;
    }
    struct geul_npy_writer *w = geul_alloc(ctx, 1, sizeof *w);
    if (!w)
        return NULL;
    *w = (struct geul_npy_writer){.ctx = ctx, .file = geul_outfile_open(ctx, path), .expected = values};
    if (!w->file) {
        geul_free(ctx, w);
        return NULL;
    }
    char header[HEADER_BYTES];
    size_t size = make_header(header, n_dims, shape);
    w->status = geul_os_check_space(ctx, path, size + values * sizeof(float));
    if (w->status == GEUL_OK)
        w->status = geul_outfile_write(w->file, header, size);
    if (w->status == GEUL_OK)
        return w;
    geul_npy_abandon(w);
    return NULL;
}

void geul_npy_write_rows(struct geul_npy_writer *w, const float *data, size_t count)
{
    w->written += count;
    if (w->status == GEUL_OK && count > 0)
        w->status = geul_outfile_write(w->file, data, count * sizeof *data);
}

enum geul_status geul_npy_commit(struct geul_npy_writer *w)
{
    enum geul_status status = w->status;
    if (status == GEUL_OK && w->written != w->expected)
        status = geul_fail(w->ctx, GEUL_ERROR_ARGUMENT, "%zu values were written to an array of %zu", w->written,
                           w->expected);
    if (status == GEUL_OK)
        status = geul_outfile_commit(w->file);
    else
        geul_outfile_abandon(w->file);
    geul_free(w->ctx, w);
    return status;
}

void geul_npy_abandon(struct geul_npy_writer *w)
{
    if (!w)
        return;
    geul_outfile_abandon(w->file);
    geul_free(w->ctx, w);
}
