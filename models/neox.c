/* neox.c: GPT-NeoX: hyper-parameters, tensor list and graph. (Black et al. 2022; transformers' GPTNeoXForCausalLM) */
#include "models/neox.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* -------------------------------------------------------------------------------------------- hyper-parameters -- */

/* Limits far above any model, so that products of sizes stay small numbers. */
enum { MOST_LAYERS = 4096, MOST_WIDTH = 1 << 20, MOST_POSITIONS = 1 << 24, MOST_VOCAB = 1 << 24 };

/* A required integer key within 1..most. */
static bool read_size(struct geul_context *ctx, const struct geul_gguf *g, const char *key, int most, int *out)
{
    uint64_t v;
    if (!geul_gguf_u64(g, key, &v)) {
        geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: key %s is missing or no integer", geul_gguf_path(g), key);
        return false;
    }
    if (v < 1 || v > (uint64_t)most) {
        geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: %s is %llu; 1 to %d is possible", geul_gguf_path(g), key,
                  (unsigned long long)v, most);
        return false;
    }
    *out = (int)v;
    return true;
}

static enum geul_status check_architecture(struct geul_context *ctx, const struct geul_gguf *g)
{
    const char *s;
    size_t n;
    if (!geul_gguf_string(g, "general.architecture", &s, &n))
        return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: key general.architecture is missing", geul_gguf_path(g));
    if (n != 7 || memcmp(s, "gptneox", 7) != 0)
        return geul_fail(ctx, GEUL_ERROR_UNSUPPORTED, "%s holds a model of architecture \"%.*s\"; geul runs gptneox",
                         geul_gguf_path(g), (int)(n < 64 ? n : 64), s);
    return GEUL_OK;
}

/* Rotary scaling other than none changes every angle; saying so beats wrong answers. */
static enum geul_status check_rope_scaling(struct geul_context *ctx, const struct geul_gguf *g)
{
    const char *s;
    size_t n;
    if (geul_gguf_string(g, "gptneox.rope.scaling.type", &s, &n) && !(n == 4 && memcmp(s, "none", 4) == 0))
        return geul_fail(ctx, GEUL_ERROR_UNSUPPORTED, "%s uses rotary scaling \"%.*s\", which geul does not know",
                         geul_gguf_path(g), (int)(n < 64 ? n : 64), s);
    return GEUL_OK;
}

static enum geul_status read_gelu(struct geul_context *ctx, const struct geul_gguf *g, enum geul_gelu *gelu)
{
    const char *s;
    size_t n;
    *gelu = GEUL_GELU_ERF; /* the files have no standard key; what transformers computes for "gelu" */
    if (!geul_gguf_string(g, "geul.gelu", &s, &n) || (n == 3 && memcmp(s, "erf", 3) == 0))
        return GEUL_OK;
    if (n != 4 || memcmp(s, "tanh", 4) != 0)
        return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: geul.gelu is \"%.*s\"; erf and tanh are possible",
                         geul_gguf_path(g), (int)(n < 64 ? n : 64), s);
    *gelu = GEUL_GELU_TANH;
    return GEUL_OK;
}

enum geul_status geul_neox_read_shape(struct geul_context *ctx, const struct geul_gguf *g,
                                      struct geul_model_shape *shape)
{
    struct geul_model_shape s = {0};
    enum geul_status status = check_architecture(ctx, g);
    if (status == GEUL_OK)
        status = check_rope_scaling(ctx, g);
    if (status == GEUL_OK)
        status = read_gelu(ctx, g, &s.gelu);
    if (status != GEUL_OK)
        return status;
    if (!read_size(ctx, g, "gptneox.block_count", MOST_LAYERS, &s.n_layers) ||
        !read_size(ctx, g, "gptneox.embedding_length", MOST_WIDTH, &s.d_model) ||
        !read_size(ctx, g, "gptneox.feed_forward_length", MOST_WIDTH, &s.d_ff) ||
        !read_size(ctx, g, "gptneox.attention.head_count", MOST_WIDTH, &s.n_heads) ||
        !read_size(ctx, g, "gptneox.context_length", MOST_POSITIONS, &s.n_context))
        return GEUL_ERROR_FORMAT;
    if (s.d_model % s.n_heads != 0)
        return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: %d heads do not divide the width %d", geul_gguf_path(g),
                         s.n_heads, s.d_model);
    s.d_head = s.d_model / s.n_heads;
    uint64_t n_rot = (uint64_t)s.d_head;
    geul_gguf_u64(g, "gptneox.rope.dimension_count", &n_rot);
    if (n_rot > (uint64_t)s.d_head || n_rot % 2)
        return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: %llu rotary dimensions; an even number up to %d is possible",
                         geul_gguf_path(g), (unsigned long long)n_rot, s.d_head);
    s.n_rot = (int)n_rot;
    double eps = 1e-5, base = 10000;
    geul_gguf_f64(g, "gptneox.attention.layer_norm_epsilon", &eps);
    geul_gguf_f64(g, "gptneox.rope.freq_base", &base);
    if (!(eps >= 0 && eps < 1) || !(base > 0 && base < 1e12))
        return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: layer_norm_epsilon %g or rope.freq_base %g is out of range",
                         geul_gguf_path(g), eps, base);
    s.norm_eps = (float)eps;
    s.rope_base = (float)base;
    s.parallel_residual = true;
    geul_gguf_bool(g, "gptneox.use_parallel_residual", &s.parallel_residual);
    const struct geul_gguf_tensor *embed = geul_gguf_find_tensor(g, "token_embd.weight");
    if (!embed || embed->n_dims != 2 || embed->shape[0] < 1 || embed->shape[0] > MOST_VOCAB)
        return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: token_embd.weight (vocabulary, %d) is missing or misshapen",
                         geul_gguf_path(g), s.d_model);
    s.n_vocab = (int)embed->shape[0];
    *shape = s;
    return GEUL_OK;
}

/* ------------------------------------------------------------------------------------------------- tensor list -- */

enum size { NONE, C, QKV, F, V };

/* One weight: its name in GGUF, where it goes, its dimensions. */
struct weight {
    const char *name;
    size_t field;
    enum size rows, cols; /* cols alone for vectors */
    bool optional;
};

#define MODEL(name, field, rows, cols)                                                                                 \
    {                                                                                                                  \
        name, offsetof(struct geul_neox, field), rows, cols, false                                                     \
    }
#define LAYER(name, field, rows, cols)                                                                                 \
    {                                                                                                                  \
        name, offsetof(struct geul_neox_layer, field), rows, cols, false                                               \
    }
#define MAYBE(name, field, rows, cols)                                                                                 \
    {                                                                                                                  \
        name, offsetof(struct geul_neox_layer, field), rows, cols, true                                                \
    }

static const struct weight before_layers[] = {
    MODEL("token_embd.weight", embed, V, C),
};
static const struct weight layer_weights[] = {
    LAYER("attn_norm.weight", norm1_w, NONE, C), LAYER("attn_norm.bias", norm1_b, NONE, C),
    LAYER("attn_qkv.weight", qkv_w, QKV, C),     MAYBE("attn_qkv.bias", qkv_b, NONE, QKV),
    LAYER("attn_output.weight", out_w, C, C),    MAYBE("attn_output.bias", out_b, NONE, C),
    LAYER("ffn_norm.weight", norm2_w, NONE, C),  LAYER("ffn_norm.bias", norm2_b, NONE, C),
    LAYER("ffn_up.weight", up_w, F, C),          LAYER("ffn_up.bias", up_b, NONE, F),
    LAYER("ffn_down.weight", down_w, C, F),      LAYER("ffn_down.bias", down_b, NONE, C),
};
static const struct weight after_layers[] = {
    MODEL("output_norm.weight", norm_w, NONE, C),
    MODEL("output_norm.bias", norm_b, NONE, C),
    MODEL("output.weight", output, V, C),
};

#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))

static int64_t size_of(const struct geul_model_shape *s, enum size size)
{
    const int64_t sizes[] = {
        [NONE] = 1, [C] = s->d_model, [QKV] = 3 * (int64_t)s->d_model, [F] = s->d_ff, [V] = s->n_vocab};
    return sizes[size];
}

/* The dimensions of w; returns their number. */
static int dims_of(const struct geul_model_shape *s, const struct weight *w, int64_t *shape)
{
    int n = 0;
    if (w->rows != NONE)
        shape[n++] = size_of(s, w->rows);
    shape[n++] = size_of(s, w->cols);
    return n;
}

/* Everything that binding weights needs. */
struct binder {
    struct geul_context *ctx;
    const struct geul_gguf *g;
    struct geul_model_shape *shape;
    geul_neox_place_weight place;
    void *user;
};

/* Finds, checks and places the weights of one list into the struct at base. */
static bool bind_list(const struct binder *b, const struct weight *list, int n, int layer, void *base)
{
    for (int i = 0; i < n; i++) {
        const struct weight *w = &list[i];
        char name[GEUL_MAX_NAME];
        if (layer >= 0)
            snprintf(name, sizeof name, "blk.%d.%s", layer, w->name);
        else
            snprintf(name, sizeof name, "%s", w->name);
        const struct geul_gguf_tensor *t = geul_gguf_find_tensor(b->g, name);
        struct geul_tensor **field = (struct geul_tensor **)(void *)((char *)base + w->field);
        if (!t && layer < 0 && w->field == offsetof(struct geul_neox, output)) { /* tied embeddings */
            *field = ((struct geul_neox *)base)->embed;
            continue;
        }
        if (!t && w->optional)
            continue;
        if (!t) {
            geul_fail(b->ctx, GEUL_ERROR_FORMAT, "%s: tensor %s is missing", geul_gguf_path(b->g), name);
            return false;
        }
        int64_t want[2] = {0, 0};
        int n_dims = dims_of(b->shape, w, want);
        if (t->n_dims != n_dims || t->shape[0] != want[0] || (n_dims == 2 && t->shape[1] != want[1])) {
            geul_fail(b->ctx, GEUL_ERROR_FORMAT,
                      "%s: tensor %s has %d dimensions (%lld, %lld); the keys call for %d (%lld, %lld)",
                      geul_gguf_path(b->g), name, t->n_dims, (long long)t->shape[0], (long long)t->shape[1], n_dims,
                      (long long)want[0], (long long)want[1]);
            return false;
        }
        if (t->type == GEUL_TYPE_I32 || (n_dims == 1 && t->type != GEUL_TYPE_F32)) {
            geul_fail(b->ctx, GEUL_ERROR_UNSUPPORTED, "%s: tensor %s is %s; %s is needed", geul_gguf_path(b->g), name,
                      geul_type_name(t->type), n_dims == 1 ? "f32" : "a float or block type");
            return false;
        }
        struct geul_tensor *leaf = b->place(b->user, t, layer);
        if (!leaf)
            return false;
        *field = leaf;
        b->shape->n_params += want[0] * (n_dims == 2 ? want[1] : 1);
    }
    return true;
}

enum geul_status geul_neox_bind(struct geul_context *ctx, const struct geul_gguf *g, struct geul_neox *m,
                                geul_neox_place_weight place, void *user)
{
    enum geul_status status = geul_neox_read_shape(ctx, g, &m->shape);
    if (status != GEUL_OK)
        return status;
    if (m->shape.n_layers > geul_gguf_tensor_count(g) / 8)
        return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s claims %d layers but holds only %lld tensors", geul_gguf_path(g),
                         m->shape.n_layers, (long long)geul_gguf_tensor_count(g));
    m->layers = geul_arena(ctx, (size_t)m->shape.n_layers, sizeof *m->layers);
    if (!m->layers)
        return GEUL_ERROR_MEMORY;
    struct binder b = {ctx, g, &m->shape, place, user};
    bool ok = bind_list(&b, before_layers, COUNT(before_layers), -1, m);
    for (int i = 0; i < m->shape.n_layers && ok; i++)
        ok = bind_list(&b, layer_weights, COUNT(layer_weights), i, &m->layers[i]);
    ok = ok && bind_list(&b, after_layers, COUNT(after_layers), -1, m);
    return ok ? GEUL_OK : geul_error_status(ctx);
}

/* Appends the weights of one list, found in the struct at base. */
static int list_weights(const struct weight *list, int n, const void *base, struct geul_tensor **out, int at)
{
    for (int i = 0; i < n; i++) {
        struct geul_tensor *w = *(struct geul_tensor *const *)(const void *)((const char *)base + list[i].field);
        if (!w)
            continue;
        if (out)
            out[at] = w;
        at++;
    }
    return at;
}

int geul_neox_weights(const struct geul_neox *m, struct geul_tensor **out)
{
    bool tied = m->output == m->embed;
    int n = list_weights(before_layers, COUNT(before_layers), m, out, 0);
    for (int i = 0; i < m->shape.n_layers; i++)
        n = list_weights(layer_weights, COUNT(layer_weights), &m->layers[i], out, n);
    return list_weights(after_layers, COUNT(after_layers) - tied, m, out, n); /* the output is the last one */
}

const char *geul_neox_target_name(enum geul_neox_target target)
{
    static const char *const names[GEUL_NEOX_TARGETS] = {"attn_qkv", "attn_output", "ffn_up", "ffn_down"};
    return names[target];
}

struct geul_tensor *geul_neox_target_weight(const struct geul_neox_layer *l, enum geul_neox_target target)
{
    struct geul_tensor *const weights[GEUL_NEOX_TARGETS] = {l->qkv_w, l->out_w, l->up_w, l->down_w};
    return weights[target];
}

/* ------------------------------------------------------------------------------------------------------- graph -- */

/* Heads number `which` (0 Q, 1 K, 2 V) of qkv (T, 3HD): a view (T, H, D). */
static struct geul_tensor *heads(struct geul_context *ctx, const struct geul_model_shape *s, struct geul_tensor *qkv,
                                 int which)
{
    return geul_split_last(ctx, geul_narrow(ctx, qkv, 1, (int64_t)which * s->d_model, s->d_model), s->n_heads);
}

/* Everything that a layer's products need. */
struct build {
    struct geul_context *ctx;
    const struct geul_neox *m;
    const struct geul_neox_pass *pass;
    int layer;
};

/* What the adapters add to y = x times a target's weight. */
static struct geul_tensor *adapt(const struct build *b, struct geul_tensor *y, struct geul_tensor *x,
                                 enum geul_neox_target target)
{
    struct geul_context *ctx = b->ctx;
    const struct geul_neox_pass *p = b->pass;
    int at = b->layer * GEUL_NEOX_TARGETS + (int)target;
    for (int i = 0; i < b->m->n_adapters; i++) {
        const struct geul_neox_adapter *adapter = b->m->adapters[i];
        const struct geul_neox_pair *pair = &adapter->pairs[at];
        if (!pair->a)
            continue;
        bool drop = p->dropout > 0;
        uint32_t salt = (uint32_t)(i * b->m->shape.n_layers * GEUL_NEOX_TARGETS + at);
        struct geul_tensor *in = drop ? geul_dropout(ctx, x, p->seed, p->dropout, salt) : x;   /* (T, K) */
        struct geul_tensor *low = geul_linear_at(ctx, p->precision, in, pair->a, NULL, false); /* (T, r) */
        low = geul_scale(ctx, low, adapter->scale);
        y = geul_add(ctx, y, geul_linear_at(ctx, p->precision, low, pair->b, NULL, false)); /* (T, N) */
    }
    return y;
}

/* x (T, K) times a target's weight, with bias and adapters: (T, N). */
static struct geul_tensor *linear(const struct build *b, struct geul_tensor *x, enum geul_neox_target target)
{
    const struct geul_neox_layer *l = &b->m->layers[b->layer];
    struct geul_tensor *const bias[] = {l->qkv_b, l->out_b, l->up_b, l->down_b};
    struct geul_tensor *w = geul_neox_target_weight(l, target);
    return adapt(b, geul_linear_at(b->ctx, b->pass->precision, x, w, bias[target], bias[target] != NULL), x, target);
}

/* Hands t out as number i of what is costly in its layer; returns t. */
static struct geul_tensor *costly(const struct build *b, int i, struct geul_tensor *t)
{
    if (b->pass->costly)
        b->pass->costly[b->layer * GEUL_NEOX_COSTLY + i] = t;
    return t;
}

/* Self-attention of normalized rows x (T, C): (T, C). */
static struct geul_tensor *attention(const struct build *b, struct geul_tensor *x)
{
    struct geul_context *ctx = b->ctx;
    const struct geul_model_shape *s = &b->m->shape;
    struct geul_tensor *place = b->pass->in.place;
    struct geul_tensor *qkv = costly(b, 0, linear(b, x, GEUL_NEOX_QKV));                          /* (T, 3HD) */
    struct geul_tensor *q = geul_rope(ctx, heads(ctx, s, qkv, 0), place, s->n_rot, s->rope_base); /* (T, H, D) */
    struct geul_tensor *k = geul_rope(ctx, heads(ctx, s, qkv, 1), place, s->n_rot, s->rope_base);
    struct geul_tensor *v = heads(ctx, s, qkv, 2);
    if (b->pass->k) {
        k = geul_store(ctx, b->pass->k[b->layer], k, place); /* (S, H, P, D) */
        v = geul_store(ctx, b->pass->v[b->layer], v, place);
    }
    struct geul_tensor *a = geul_attention(ctx, q, k, v, place, 1.0f / sqrtf((float)s->d_head)); /* (T, H, D) */
    a = costly(b, 1, a);
    a = geul_reshape(ctx, a, 2, (int64_t[]){a ? a->shape[0] : 0, s->d_model});
    return linear(b, a, GEUL_NEOX_OUT);
}

/* down(gelu(up(x))): (T, C). */
static struct geul_tensor *mlp(const struct build *b, struct geul_tensor *x)
{
    struct geul_tensor *h = costly(b, 2, linear(b, x, GEUL_NEOX_UP)); /* (T, F) */
    return linear(b, geul_gelu(b->ctx, h, b->m->shape.gelu), GEUL_NEOX_DOWN);
}

struct geul_tensor *geul_neox_hidden(struct geul_context *ctx, const struct geul_neox *m,
                                     const struct geul_neox_pass *pass)
{
    const struct geul_model_shape *s = &m->shape;
    struct geul_tensor *x = geul_embed(ctx, m->embed, pass->in.ids); /* (T, C) */
    for (int i = 0; i < s->n_layers; i++) {
        const struct geul_neox_layer *l = &m->layers[i];
        const struct build b = {ctx, m, pass, i};
        struct geul_tensor *a = geul_layernorm(ctx, x, l->norm1_w, l->norm1_b, s->norm_eps);
        a = geul_named(attention(&b, a), "blk.%d.attention", i);
        struct geul_tensor *h = s->parallel_residual ? x : geul_add(ctx, x, a);
        struct geul_tensor *f = geul_layernorm(ctx, h, l->norm2_w, l->norm2_b, s->norm_eps);
        f = geul_named(mlp(&b, f), "blk.%d.mlp", i);
        x = geul_add(ctx, s->parallel_residual ? geul_add(ctx, f, a) : f, h);
        geul_named(x, "blk.%d.out", i);
        if (pass->layer_out)
            pass->layer_out[i] = x;
    }
    if (pass->in.rows)
        x = geul_embed(ctx, x, pass->in.rows); /* (R, C): only rows whose logits are wanted */
    return geul_layernorm(ctx, x, m->norm_w, m->norm_b, s->norm_eps);
}

struct geul_tensor *geul_neox_logits(struct geul_context *ctx, const struct geul_neox *m, struct geul_tensor *hidden,
                                     enum geul_precision precision)
{
    return geul_named(geul_linear_at(ctx, precision, hidden, m->output, NULL, false), "logits");
}
