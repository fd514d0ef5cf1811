/* shard.h: token shards: a corpus as token ids, written once by `geul tokenize --shards` and mapped for training.
 *
 * A file, all numbers little-endian: 8 bytes "geulshrd"; uint32 version (1), vocabulary, end token, bytes per token (2
 * where the vocabulary is at most 65,536, else 4); uint64 number of tokens, hash of the tokenizer's tokens; the tokens.
 * Documents end with the end token and may continue in the next file. Files are not trusted: one that opens has every
 * token within its vocabulary. */
#ifndef GEUL_SHARD_H
#define GEUL_SHARD_H

#include "core/context.h"
#include "geul.h"

enum { GEUL_SHARD_HEADER_BYTES = 40 };

/* Identifies the tokenizer that a shard's tokens are of. */
struct geul_shard_kind {
    int32_t n_vocab, end;
    uint64_t hash;
};
/* The kind of a tokenizer's shards. Hashes every token's text. */
struct geul_shard_kind geul_shard_kind_of(const struct geul_tokenizer *tok);
/* Whether the tokens mean the same. */
bool geul_shard_kinds_equal(const struct geul_shard_kind *a, const struct geul_shard_kind *b);

/* Bytes of a token in a vocabulary of n_vocab ids. */
int geul_shard_token_bytes(int32_t n_vocab);
/* Writes the header of a shard of count tokens to out. */
void geul_shard_write_header(const struct geul_shard_kind *kind, uint64_t count,
                             unsigned char out[GEUL_SHARD_HEADER_BYTES]);
/* Writes n tokens, each of `bytes` bytes, to out. */
void geul_shard_write_tokens(const int32_t *ids, size_t n, int bytes, unsigned char *out);

struct geul_shard;
/* Maps the shard at path and looks at every token once, so that none can point outside the vocabulary. NULL when it is
 * missing, of a set that is not complete (data/shard_set.h), not a shard, truncated, or has a token outside; the
 * message names path. Free with geul_shard_close(). */
struct geul_shard *geul_shard_open(struct geul_context *ctx, const char *path);
/* The same over bytes, which must stay until close; name is for messages. */
struct geul_shard *geul_shard_open_memory(struct geul_context *ctx, const void *data, size_t size, const char *name);
void geul_shard_close(struct geul_shard *s);
const char *geul_shard_name(const struct geul_shard *s);
const struct geul_shard_kind *geul_shard_get_kind(const struct geul_shard *s);
/* Tokens, at least one. */
uint64_t geul_shard_count(const struct geul_shard *s);
/* Copies n tokens from number `first` on; they must exist. An id that is not in the vocabulary any more, because the
 * file was changed under the mapping, is read as 0. */
void geul_shard_read(const struct geul_shard *s, uint64_t first, size_t n, int32_t *ids);

#endif
