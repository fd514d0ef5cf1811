/* step.c: see step.h. */
#include "models/step.h"

#include "core/check.h"

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

/* Whether keys and values of d_head elements can be kept as type. */
static bool check_cache_type(struct geul_context *ctx, enum geul_type type, int d_head)
{
    static const enum geul_type possible[] = {GEUL_TYPE_F16, GEUL_TYPE_Q8_0, GEUL_TYPE_BF16, GEUL_TYPE_F32};
    bool known = false;
    for (size_t i = 0; i < sizeof possible / sizeof *possible; i++)
        known |= possible[i] == type;
    if (!known)
        geul_fail(ctx, GEUL_ERROR_UNSUPPORTED, "a cache of type %s is not possible; f16, q8_0, bf16 and f32 are",
                  geul_type_name(type));
    else if (d_head % geul_type_block(type))
        geul_fail(ctx, GEUL_ERROR_UNSUPPORTED,
                  "a %s cache needs heads of a multiple of %d values, and this model's have %d; use f16",
                  geul_type_name(type), (int)geul_type_block(type), d_head);
    return known && d_head % geul_type_block(type) == 0;
}

enum geul_status geul_session_sizes(struct geul_context *ctx, const struct geul_session_options *options,
                                    const struct geul_model_shape *shape, struct geul_session_options *out)
{
    static const struct geul_session_options defaults = {.cache_type = GEUL_TYPE_F16};
    struct geul_session_options o = options ? *options : defaults;
    if (o.n_context < 0 || o.n_sequences < 0 || o.n_batch < 0 || o.n_context > 1 << 24 || o.n_sequences > 1 << 16 ||
        o.n_batch > 1 << 20)
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT,
                         "a session of %d positions, %d sequences, batches of %d is out of range", o.n_context,
                         o.n_sequences, o.n_batch);
    if (geul_check_threads(ctx, o.n_threads) != GEUL_OK || !check_cache_type(ctx, o.cache_type, shape->d_head))
        return geul_error_status(ctx);
    o.n_context = o.n_context ? o.n_context : shape->n_context;
    o.n_sequences = o.n_sequences ? o.n_sequences : 1;
    o.n_batch = o.n_batch ? o.n_batch : 512;
    *out = o;
    return GEUL_OK;
}
