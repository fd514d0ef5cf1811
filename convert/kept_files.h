/* kept_files.h: the small files of a Hugging Face directory that are kept unchanged in keys of the GGUF file. */
#ifndef GEUL_KEPT_FILES_H
#define GEUL_KEPT_FILES_H

#include "core/gguf.h"

/* The whole of dir/file, NUL-terminated, of at most 64 MB; NULL without an error when there is none. Free with
 * geul_free(). */
char *geul_kept_read(struct geul_context *ctx, const char *dir, const char *file, size_t *length);
/* Writes a text as dir/file in one atomic step. */
enum geul_status geul_kept_write(struct geul_context *ctx, const char *dir, const char *file, const char *text,
                                 size_t length);
/* Sets a key for each of the files that dir has: config.json, generation_config.json, and those of the tokenizer
 * (vocab.json and merges.txt only without a tokenizer.json). */
enum geul_status geul_kept_to_gguf(struct geul_context *ctx, const char *dir, struct geul_gguf_writer *w);
/* The same for those of the tokenizer alone. */
enum geul_status geul_kept_tokenizer_to_gguf(struct geul_context *ctx, const char *dir, struct geul_gguf_writer *w);
/* Writes those that g has into dir, all but config.json, which depends on what is exported. */
enum geul_status geul_kept_from_gguf(struct geul_context *ctx, const struct geul_gguf *g, const char *dir);
/* The key under which a file is kept; NULL when it is not one of them. */
const char *geul_kept_key(const char *file);

#endif
