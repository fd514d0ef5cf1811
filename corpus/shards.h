/* shards.h: writes ids as token shards (data/shard.h): PREFIX-00000.geulshard and so on. */
#ifndef GEUL_SHARDS_H
#define GEUL_SHARDS_H

#include "core/context.h"
#include "geul_tools.h"

/* Files of at most shard_tokens tokens, together one stream of documents, which may continue in the next file. All of
 * them appear at commit, or none does. */
struct geul_shards_writer;
/* tok must have an end token. NULL on failure. */
struct geul_shards_writer *geul_shards_writer_new(struct geul_context *ctx, const struct geul_tokenizer *tok,
                                                  const char *prefix, uint64_t shard_tokens);
/* Appends ids of tok's vocabulary. Failures are sticky. */
enum geul_status geul_shards_writer_add(struct geul_shards_writer *w, const int32_t *ids, size_t n);
/* Finishes and renames all files; *files of them. Fails when nothing was added, or when the file after the last one
 * exists, left from a longer run: a reader of PREFIX-* would read it too. Frees w whatever happens. */
enum geul_status geul_shards_writer_commit(struct geul_shards_writer *w, int *files);
void geul_shards_writer_abandon(struct geul_shards_writer *w);

#endif
