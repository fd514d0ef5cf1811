/* importance.h: collecting an importance matrix: for every weight matrix of a model the sum of squares of each of its
 * inputs over the tokens of a text. quantize/imatrix.h has the files. */
#ifndef GEUL_IMPORTANCE_H
#define GEUL_IMPORTANCE_H

#include "geul.h"

struct geul_importance;
/* Empty sums; ctx is that of the sessions to come. NULL on failure. Free with geul_importance_free(). */
struct geul_importance *geul_importance_new(struct geul_context *ctx);
void geul_importance_free(struct geul_importance *m);

/* Adds the sums of a file. */
enum geul_status geul_importance_add_file(struct geul_importance *m, const char *path);
/* Names the text that the next tokens come from, for the file; copied. */
enum geul_status geul_importance_add_dataset(struct geul_importance *m, const char *name);

/* Tokens of a batch that keep a session's memory for observed values near 256 MiB: 46 for 12.8B, 195 for 1.3B. */
int geul_importance_batch(const struct geul_model_shape *shape);

struct geul_importance_run {
    const int32_t *ids;
    size_t n;
    int chunk; /* tokens that are seen together; what remains at the end is a shorter one */
    /* After every batch: tokens done and in all; nats per token of the text so far. false stops. May be NULL. */
    bool (*on_batch)(void *user, uint64_t done, uint64_t total, double nats);
    void *user;
};
/* Adds what the session's model sees in a text. */
enum geul_status geul_importance_collect(struct geul_importance *m, struct geul_session *s,
                                         const struct geul_importance_run *run);

/* Chunks so far, those of files included. */
uint64_t geul_importance_chunks(const struct geul_importance *m);
/* Tokens of a chunk: of the text collected last, or else of the first file that says; 0 when none does. */
uint64_t geul_importance_chunk_size(const struct geul_importance *m);
/* Matrices that have been seen. */
int64_t geul_importance_matrices(const struct geul_importance *m);
/* Writes the sums in llama.cpp's GGUF form; the file appears when it is whole. */
enum geul_status geul_importance_save(struct geul_importance *m, const char *path);

#endif
