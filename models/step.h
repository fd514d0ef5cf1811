/* step.h: the graph that a session computes a batch with. */
#ifndef GEUL_STEP_H
#define GEUL_STEP_H

#include "models/neox.h"

#include "core/graph.h"

struct geul_step {
    struct geul_neox_inputs in;
    struct geul_tensor *out; /* logits (R, V) */
    struct geul_graph *graph;
};

/* Builds in ctx the graph of n_tokens tokens and n_rows rows of logits over a cache, k and v per layer (S, H, P, D).
 * false (recorded in ctx) on failure. */
bool geul_step_build(struct geul_context *ctx, const struct geul_neox *m, struct geul_tensor *const *k,
                     struct geul_tensor *const *v, int n_tokens, int n_rows, struct geul_step *out);
/* The leaf of a layer's cache, for keys or values. NULL (recorded in ctx) on failure. */
struct geul_tensor *geul_step_cache(struct geul_context *ctx, const struct geul_model_shape *shape, enum geul_type type,
                                    int n_sequences, int n_context, const char *name, struct geul_buffer *buffer,
                                    void *data);
/* Its bytes; false when they cannot be counted. */
bool geul_step_cache_bytes(const struct geul_model_shape *shape, enum geul_type type, int n_sequences, int n_context,
                           size_t *bytes);

#endif
