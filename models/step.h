/* step.h: what a session computes with: its sizes, its cache, and the graph of a batch. */
#ifndef GEUL_STEP_H
#define GEUL_STEP_H

#include "models/neox.h"

#include "core/graph.h"

/* Checks the options of a session, NULL for the defaults, and replaces what is 0 in them by what that means for models
 * of that shape; n_threads remains. */
enum geul_status geul_session_sizes(struct geul_context *ctx, const struct geul_session_options *options,
                                    const struct geul_model_shape *shape, struct geul_session_options *out);

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
