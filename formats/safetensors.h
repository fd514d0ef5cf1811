/* safetensors.h: reading and writing the safetensors format: u64 header length, a JSON header, the data. */
#ifndef GEUL_SAFETENSORS_H
#define GEUL_SAFETENSORS_H

#include "formats/source_tensor.h"

/* Appends the tensors of the file in [data, data + size) to list; they point into data. name is for messages. Every
 * range is checked to lie in the file, to fit its shape, and to share no byte with another. */
enum geul_status geul_safetensors_read(struct geul_context *ctx, const char *name, const uint8_t *data, size_t size,
                                       struct geul_source_list *list);

/* Writing: the list (names, types, shapes; data is not looked at) goes into the header, then the data comes in that
 * order, in pieces of any size. Failures are sticky. Nothing appears under path before commit. */
struct geul_safetensors_writer;
struct geul_safetensors_writer *geul_safetensors_writer_new(struct geul_context *ctx, const char *path,
                                                            const struct geul_source_tensor *tensors, size_t count);
void geul_safetensors_write(struct geul_safetensors_writer *w, const void *data, size_t bytes);
/* Checks that all data was written, syncs, renames; frees w whatever happens. */
enum geul_status geul_safetensors_commit(struct geul_safetensors_writer *w);
void geul_safetensors_abandon(struct geul_safetensors_writer *w);

#endif
