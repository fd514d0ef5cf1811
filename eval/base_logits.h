/* base_logits.h: a file with all logits of a base model over a text, to compare other models with.
 *
 * Little-endian, in this order:
 *   bytes[8]  "geulbase"
 *   u32       version, 1
 *   u32       ids per row: the vocabulary without padding rows
 *   u32       method of the windows, 0 stride, 1 llama; u32 n_context, u32 stride
 *   u32       0
 *   u64       tokens of the text, u64 windows
 *   u64       FNV-1a hash of everything before it and of the ids
 *   i32[]     ids of the text, one more (0) when their number is odd
 *   rows, one per scored token: f64 nats of the token, f32[] logits of the ids, one more (0) when their number is odd
 *
 * Logits are stored as float32, as the model computes them, so that a model differs from itself by exactly 0: Q8_0 is
 * often as close as 1e-5 nats, which 16-bit logarithms could not resolve. */
#ifndef GEUL_BASE_LOGITS_H
#define GEUL_BASE_LOGITS_H

#include "eval/windows.h"

/* Bytes of the file for that text and vocabulary; UINT64_MAX when they are too many to count. */
uint64_t geul_base_logits_bytes(const struct geul_windows *w, int n_vocab);

/* Writing: rows in the order of geul_windows_run(). Nothing appears under path before commit. NULL on failure. */
struct geul_base_writer;
struct geul_base_writer *geul_base_writer_new(struct geul_context *ctx, const char *path, const struct geul_windows *w,
                                              const int32_t *ids, int n_vocab);
/* nats of the scored token; at least n_vocab logits. */
enum geul_status geul_base_writer_add(struct geul_base_writer *w, double nats, const float *logits);
/* Checks that all rows were added, syncs, renames; frees w whatever happens. */
enum geul_status geul_base_writer_commit(struct geul_base_writer *w);
void geul_base_writer_abandon(struct geul_base_writer *w);

/* A file opened for reading; it is mapped. */
struct geul_base_logits {
    struct geul_windows windows;
    int n_vocab;
    const int32_t *ids; /* of the text */
    const unsigned char *rows;
    struct geul_base_map *map;
};
/* NULL when the file is missing, broken or not of this format. Close with geul_base_logits_close(). */
struct geul_base_logits *geul_base_logits_open(struct geul_context *ctx, const char *path);
/* The same over bytes in memory, aligned to 8 and kept until close; name is for messages. */
struct geul_base_logits *geul_base_logits_open_memory(struct geul_context *ctx, const void *data, size_t size,
                                                      const char *name);
void geul_base_logits_close(struct geul_context *ctx, struct geul_base_logits *b);
/* Row i < windows.n_scored: its logits, and the nats of its token. Rows before it may be discarded from memory. */
const float *geul_base_logits_row(const struct geul_base_logits *b, size_t i, double *nats);

#endif
