/* bytes.h: bytes and how many they are: slices of somebody else's memory, and buffers that grow by appending. */
#ifndef GEUL_BYTES_H
#define GEUL_BYTES_H

#include "core/context.h"

/* Bytes that belong to somebody else. */
struct geul_slice {
    const char *s; /* NULL: absent */
    size_t n;
};

/* Zero it to start; free data with geul_free(). */
struct geul_bytes {
    char *data; /* NULL before the first byte */
    size_t length, capacity;
};
/* Makes room for n more bytes; it grows by half at least, so that appending is cheap. false (recorded) when memory is
 * short; the bytes are then as they were. */
bool geul_bytes_room(struct geul_context *ctx, struct geul_bytes *b, size_t n);
/* Appends n bytes; false as above. */
bool geul_bytes_add(struct geul_context *ctx, struct geul_bytes *b, const void *data, size_t n);

/* How many bytes that is, for people: "384 MiB", "7.3 GiB". Writes into text and returns it. */
const char *geul_bytes_text(uint64_t bytes, char *text, size_t size);

/* FNV-1a of 64 bits, which files keep (shard.h, base_logits.h): the hash of what was before, GEUL_HASH_START for
 * nothing, and of n bytes more. */
#define GEUL_HASH_START UINT64_C(0xcbf29ce484222325)
uint64_t geul_hash_bytes(uint64_t hash, const void *data, size_t n);

#endif
