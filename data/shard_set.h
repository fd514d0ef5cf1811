/* shard_set.h: the list of a set of token shards, PREFIX.geulset beside PREFIX-00000.geulshard and so on. It says how
 * many there are and how large each is, so that a set that was not written to its end, or not copied whole, is noticed.
 *
 *     geul token shards, format 1
 *     files 2
 *     134217728 tokens, 268435496 bytes
 *     1729 tokens, 3498 bytes
 *     complete
 *
 * While the files of a set get their names, the list has only its first line. Sets of an older geul have no list. */
#ifndef GEUL_SHARD_SET_H
#define GEUL_SHARD_SET_H

#include "core/bytes.h"

#define GEUL_SHARD_EXTENSION     ".geulshard"
#define GEUL_SHARD_SET_EXTENSION ".geulset"
#define GEUL_SHARD_SET_HEAD      "geul token shards, format 1\n"

/* A file of a set. */
struct geul_shard_set_file {
    uint64_t tokens, bytes;
};

/* The text of a complete list, without a NUL; false when memory is short. The caller frees to->data. */
bool geul_shard_set_write(struct geul_context *ctx, const struct geul_shard_set_file *files, size_t n,
                          struct geul_bytes *to);
/* Fails when the list beside the shard at path says that the set is not complete, or that this file, of `bytes` bytes,
 * is not the one that was written, or when the file after it is missing: of all files of a set, read one by one, none
 * is missed. A shard without a list is fine. */
enum geul_status geul_shard_set_check(struct geul_context *ctx, const char *path, uint64_t bytes);
/* The same for the bytes of a list, which is only looked at; number: of the shard. *n becomes the number of files,
 * *next the size of the one after this, which follows the last as the first. For tests. */
enum geul_status geul_shard_set_find(struct geul_context *ctx, const char *name, const void *data, size_t size,
                                     uint64_t number, uint64_t bytes, uint64_t *n, uint64_t *next);

#endif
