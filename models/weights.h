/* weights.h: weights on their way to devices that cannot read the mapped file: packed into few buffers, and streamed
 * through a little host memory. */
#ifndef GEUL_WEIGHTS_H
#define GEUL_WEIGHTS_H

#include "core/gguf.h"
#include "core/runtime.h"

struct geul_weights_upload;

/* For at most n tensors, whose buffers become items of buffers[], which has room for n; *n_buffers counts them. ctx,
 * for memory and failures, outlives the buffers. NULL (recorded) on failure. Free with geul_weights_upload_free(). */
struct geul_weights_upload *geul_weights_upload_new(struct geul_context *ctx, int64_t n, struct geul_buffer *buffers,
                                                    int64_t *n_buffers);
/* First of all, for every tensor in the order in which they will be put: how large it is. */
void geul_weights_upload_expect(struct geul_weights_upload *u, struct geul_device *device, size_t bytes);
/* Puts the next of them on its device, to *address of *buffer. The tensor's pages of the file are not resident behind
 * this. The values are there when geul_weights_upload_finish() has succeeded. */
enum geul_status geul_weights_upload_put(struct geul_weights_upload *u, const struct geul_gguf_tensor *t,
                                         struct geul_buffer **buffer, void **address);
enum geul_status geul_weights_upload_finish(struct geul_weights_upload *u);
/* Waits for what is under way. NULL is fine. */
void geul_weights_upload_free(struct geul_weights_upload *u);

#endif
