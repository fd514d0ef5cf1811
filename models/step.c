/* step.c: see step.h. */
#include "models/step.h"

bool geul_step_build(struct geul_context *ctx, const struct geul_neox *m, struct geul_tensor *const *k,
                     struct geul_tensor *const *v, int n_tokens, int n_rows, struct geul_step *out)
{
    *out = (struct geul_step){.graph = NULL};
    out->in.ids = geul_input(ctx, GEUL_TYPE_I32, 1, (int64_t[]){n_tokens}, "ids");            /* (T) */
    out->in.seq_pos = geul_input(ctx, GEUL_TYPE_I32, 2, (int64_t[]){n_tokens, 2}, "seq_pos"); /* (T, 2) */
    out->in.rows = geul_input(ctx, GEUL_TYPE_I32, 1, (int64_t[]){n_rows}, "rows");            /* (R) */
    struct geul_neox_pass pass = {.in = out->in, .k = k, .v = v};
    struct geul_tensor *hidden = geul_neox_hidden(ctx, m, &pass); /* (R, C) */
    out->out = geul_neox_logits(ctx, m, hidden, pass.precision);  /* (R, V) */
    out->graph = geul_graph_new(ctx, &out->out, 1);
    return out->graph != NULL;
}

bool geul_step_cache_bytes(const struct geul_model_shape *shape, enum geul_type type, int n_sequences, int n_context,
                           size_t *bytes)
{
    return geul_shape_bytes(type, 4, (int64_t[]){n_sequences, shape->n_heads, n_context, shape->d_head}, bytes);
}

struct geul_tensor *geul_step_cache(struct geul_context *ctx, const struct geul_model_shape *shape, enum geul_type type,
                                    int n_sequences, int n_context, const char *name, struct geul_buffer *buffer,
                                    void *data)
{
    return geul_leaf(ctx, type, 4, (int64_t[]){n_sequences, shape->n_heads, n_context, shape->d_head}, name, buffer,
                     data);
}
