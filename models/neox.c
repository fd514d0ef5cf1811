/* neox.c: GPT-NeoX: hyper-parameters, tensors and graph. (Black et al. 2022; transformers' GPTNeoXForCausalLM) */
#include "models/neox.h"

#include "core/gguf_kind.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* -------------------------------------------------------------------------- hyper-parameters -- */

/* A required integer key within 1..most. */
static bool read_size(struct geul_context *ctx, const struct geul_gguf *g, const char *key, int most, int *out)
{
    uint64_t v;
    if (!geul_gguf_u64(g, key, &v)) {
        geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: key %s is missing or not an integer", geul_gguf_path(g), key);
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
    if (geul_gguf_check_model(ctx, g) != GEUL_OK)
        return GEUL_ERROR_FORMAT;
    if (!geul_gguf_string(g, "general.architecture", &s, &n))
        return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: key general.architecture is missing", geul_gguf_path(g));
    if (n != 7 || memcmp(s, "gptneox", 7) != 0)
        return geul_fail(ctx, GEUL_ERROR_UNSUPPORTED, "%s holds a model of architecture \"%.*s\"; geul runs gptneox",
                         geul_gguf_path(g), (int)(n < 64 ? n : 64), s);
    return GEUL_OK;
}

/* Rotary scaling other than none changes every angle: refusing is better than wrong answers. */
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
    if (!read_size(ctx, g, "gptneox.block_count", GEUL_NEOX_MOST_LAYERS, &s.n_layers) ||
        !read_size(ctx, g, "gptneox.embedding_length", GEUL_NEOX_MOST_WIDTH, &s.d_model) ||
        !read_size(ctx, g, "gptneox.feed_forward_length", GEUL_NEOX_MOST_WIDTH, &s.d_ff) ||
        !read_size(ctx, g, "gptneox.attention.head_count", GEUL_NEOX_MOST_WIDTH, &s.n_heads) ||
        !read_size(ctx, g, "gptneox.context_length", GEUL_NEOX_MOST_POSITIONS, &s.n_context))
        return GEUL_ERROR_FORMAT;
    if (s.d_model % s.n_heads != 0)
        return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: %d heads do not divide the width %d", geul_gguf_path(g),
                         s.n_heads, s.d_model);
    s.d_head = s.d_model / s.n_heads;
    uint64_t n_rot = (uint64_t)s.d_head; /* where the key is missing all dimensions rotate */
    geul_gguf_u64(g, "gptneox.rope.dimension_count", &n_rot);
    if (n_rot > (uint64_t)s.d_head || n_rot % 2)
        return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: %llu rotary dimensions; an even number up to %d is possible",
                         geul_gguf_path(g), (unsigned long long)n_rot, s.d_head);
    s.n_rot = (int)n_rot;
    double eps = 1e-5, base = 10000;
    geul_gguf_f64(g, "gptneox.attention.layer_norm_epsilon", &eps);
    geul_gguf_f64(g, "gptneox.rope.freq_base", &base);
    if (!(eps >= 0 && eps <= 1) || !(base > 0 && base <= 1e12)) /* as convert takes them */
        return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: layer_norm_epsilon %g or rope.freq_base %g is out of range",
                         geul_gguf_path(g), eps, base);
    s.norm_eps = (float)eps;
    s.rope_base = (float)base;
    s.parallel_residual = true; /* GPT-NeoX's default, where the key is missing */
    geul_gguf_bool(g, "gptneox.use_parallel_residual", &s.parallel_residual);
    char name[GEUL_MAX_NAME];
    geul_neox_tensor_name(name, geul_neox_role_info(GEUL_NEOX_ROLE_EMBEDDING), -1);
    const struct geul_gguf_tensor *embed = geul_gguf_find_tensor(g, name);
    if (!embed || embed->n_dims != 2 || embed->shape[0] < 1 || embed->shape[0] > GEUL_NEOX_MOST_VOCAB)
        return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: %s (vocabulary, %d) is missing or misshapen", geul_gguf_path(g),
                         name, s.d_model);
    s.n_vocab = (int)embed->shape[0];
    *shape = s;
    return GEUL_OK;
}

/* --------------------------------------------------------------------------------- the table -- */

/* clang-format off */
enum { ORDER_SAME, ORDER_HEADS };
#define NONE                GEUL_NEOX_TARGETS, NULL
#define ADAPT(id, word)     GEUL_NEOX_##id, #word
#define ROW(in_layer, gguf, hf, part, order, role, when, start, ...)                                                   \
    {in_layer, gguf, hf, #part, ORDER_##order, GEUL_NEOX_ROLE_##role, GEUL_NEOX_WHEN_##when, GEUL_NEOX_START_##start,  \
     __VA_ARGS__},
#define MODEL(field, gguf, hf, part, rows, cols, order, role, target, when, start)                                     \
    ROW(false, gguf, hf, part, order, role, when, start, target)
#define LAYER(field, gguf, hf, part, rows, cols, order, role, target, when, start)                                     \
    ROW(true, gguf, hf, part, order, role, when, start, target)
static const struct geul_neox_tensor_info infos[] = {
#include "models/neox.def"
};
#undef NONE
#undef ADAPT
#undef ROW

enum {
    N_INFOS = sizeof infos / sizeof *infos,
    PER_LAYER = 0
#define LAYER(...) + 1
#include "models/neox.def"
};

/* The public bits of training's options are the targets' numbers. */
#define ADAPT(id, word) _Static_assert((unsigned)GEUL_LORA_##id == 1u << GEUL_NEOX_##id, "GEUL_LORA_" #id " in geul.h");
#define NONE
#define LAYER(field, gguf, hf, part, rows, cols, order, role, target, when, start) target
#include "models/neox.def"
#undef NONE
#undef ADAPT
_Static_assert(GEUL_LORA_ALL == (1 << GEUL_NEOX_TARGETS) - 1, "GEUL_LORA_ALL in geul.h");
/* clang-format on */

int geul_neox_tensor_dims(const struct geul_neox_tensor_info *t, const struct geul_model_shape *s, int64_t dims[2])
{
    const int64_t C = s->d_model, H = s->n_heads, D = s->d_head, F = s->d_ff, V = s->n_vocab;
    const int64_t all[N_INFOS][2] = {
#define MODEL(field, gguf, hf, part, rows, cols, ...) {rows, cols},
#define LAYER(field, gguf, hf, part, rows, cols, ...) {rows, cols},
#include "models/neox.def"
    };
    memcpy(dims, all[t - infos], sizeof all[0]);
    return dims[1] ? 2 : 1;
}

/* The field of m that holds t. */
static struct geul_tensor **weight_field(struct geul_neox *m, const struct geul_neox_tensor_info *t, int layer)
{
    struct geul_neox_layer *l = &m->layers[t->in_layer ? layer : 0];
    struct geul_tensor **const fields[N_INFOS] = {
#define MODEL(field, ...) &m->field,
#define LAYER(field, ...) &l->field,
#include "models/neox.def"
    };
    return fields[t - infos];
}

struct geul_tensor *geul_neox_weight(const struct geul_neox *m, const struct geul_neox_tensor_info *t, int layer)
{
    struct geul_neox copy = *m; /* its fields may be pointed to */
    return *weight_field(&copy, t, layer);
}

int64_t geul_neox_tensor_count(int n_layers)
{
    return N_INFOS - PER_LAYER + (int64_t)n_layers * PER_LAYER;
}

const struct geul_neox_tensor_info *geul_neox_tensor_at(int n_layers, int64_t i, int *layer)
{
    int first = 0; /* row of the layers */
    while (!infos[first].in_layer)
        first++;
    int64_t behind = first + (int64_t)n_layers * PER_LAYER;
    *layer = -1;
    if (i < first)
        return &infos[i];
    if (i >= behind)
        return &infos[first + PER_LAYER + (i - behind)];
    *layer = (int)((i - first) / PER_LAYER);
    return &infos[first + (i - first) % PER_LAYER];
}

const struct geul_neox_tensor_info *geul_neox_role_info(enum geul_neox_role role)
{
    const struct geul_neox_tensor_info *t = infos;
    while (t->role != role)
        t++;
    return t;
}

const struct geul_neox_tensor_info *geul_neox_target_info(enum geul_neox_target target)
{
    const struct geul_neox_tensor_info *t = infos;
    while (t->target != target)
        t++;
    return t;
}

/* ------------------------------------------------------------------------------------- names -- */

void geul_neox_tensor_name(char out[GEUL_MAX_NAME], const struct geul_neox_tensor_info *t, int layer)
{
    if (t->in_layer)
        snprintf(out, GEUL_MAX_NAME, "blk.%d.%s.%s", layer, t->gguf, t->part);
    else
        snprintf(out, GEUL_MAX_NAME, "%s.%s", t->gguf, t->part);
}

/* Splits "blk.N." from name: returns N, and *rest is what follows; -1, and *rest the whole name, when it does not begin
 * like that. */
static int split_layer(const char *name, const char **rest)
{
    *rest = name;
    if (strncmp(name, "blk.", 4) != 0 || name[4] < '0' || name[4] > '9')
        return -1;
    char *end;
    long n = strtol(name + 4, &end, 10);
    if (*end != '.' || n >= INT32_MAX)
        return -1;
    *rest = end + 1;
    return (int)n;
}

int geul_neox_layer_of(const char *name)
{
    const char *rest;
    return split_layer(name, &rest);
}

enum geul_neox_role geul_neox_role_of(const char *name, int n_dims)
{
    if (n_dims < 2)
        return GEUL_NEOX_ROLE_PLAIN;
    split_layer(name, &name);
    for (int i = 0; i < N_INFOS; i++) {
        size_t n = strlen(infos[i].gguf);
        if (infos[i].role != GEUL_NEOX_ROLE_PLAIN && strncmp(name, infos[i].gguf, n) == 0 && name[n] == '.' &&
            strcmp(name + n + 1, infos[i].part) == 0)
            return infos[i].role;
    }
    return GEUL_NEOX_ROLE_OTHER;
}

const char *geul_neox_target_name(enum geul_neox_target target)
{
    return geul_neox_target_info(target)->gguf;
}

const char *geul_neox_target_word(enum geul_neox_target target)
{
    return geul_neox_target_info(target)->word;
}

const char *geul_neox_list_targets(char *out, size_t size, const char *(*name)(enum geul_neox_target),
                                   const char *between, const char *last)
{
    size_t n = 0;
    for (int t = 0; t < GEUL_NEOX_TARGETS && n < size; t++) {
        const char *before = t == 0 ? "" : t == GEUL_NEOX_TARGETS - 1 ? last : between;
        n += (size_t)snprintf(out + n, size - n, "%s%s", before, name((enum geul_neox_target)t));
    }
    return out;
}

/* ----------------------------------------------------------------------------------- binding -- */

/* Everything that binding weights needs. */
struct binder {
    struct geul_context *ctx;
    const struct geul_gguf *g;
    struct geul_neox *m;
    geul_neox_make_weight make_weight;
    void *user;
    bool no_bias, tied; /* tensors that the file has only for programs that need them, and that are not to be bound */
};

/* Checks that the file's tensor t has n_dims dimensions `want` and a type that can be computed with. */
static enum geul_status check_weight(const struct binder *b, const struct geul_gguf_tensor *t, int n_dims,
                                     const int64_t *want)
{
    if (t->n_dims != n_dims || t->shape[0] != want[0] || (n_dims == 2 && t->shape[1] != want[1]))
        return geul_fail(b->ctx, GEUL_ERROR_FORMAT,
                         "%s: tensor %s has %d dimensions (%lld, %lld); the keys call for %d (%lld, %lld)",
                         geul_gguf_path(b->g), t->name, t->n_dims, (long long)t->shape[0], (long long)t->shape[1],
                         n_dims, (long long)want[0], (long long)want[1]);
    if (t->type == GEUL_TYPE_I32 || (n_dims == 1 && t->type != GEUL_TYPE_F32))
        return geul_fail(b->ctx, GEUL_ERROR_UNSUPPORTED, "%s: tensor %s is %s; %s is needed", geul_gguf_path(b->g),
                         t->name, geul_type_name(t->type), n_dims == 1 ? "f32" : "a float or block type");
    return GEUL_OK;
}

/* The tensor that the one weight of tied embeddings is read from: of the two that the file has, which quantizing may
 * have given different types, the finer. *copy holds it under the embedding's name. */
static const struct geul_gguf_tensor *finer(const struct binder *b, const struct geul_gguf_tensor *embed,
                                            struct geul_gguf_tensor *copy)
{
    char name[GEUL_MAX_NAME];
    geul_neox_tensor_name(name, geul_neox_role_info(GEUL_NEOX_ROLE_OUTPUT), -1);
    const struct geul_gguf_tensor *out = geul_gguf_find_tensor(b->g, name);
    if (!out || out->bytes <= embed->bytes)
        return embed;
    *copy = *out;
    copy->name = embed->name;
    return copy;
}

/* Finds and checks one weight and makes its leaf. One that may be absent becomes NULL, or the embedding where the
 * output is tied to it; so does one that counts as absent. */
static bool bind_weight(const struct binder *b, const struct geul_neox_tensor_info *info, int layer)
{
    char name[GEUL_MAX_NAME];
    int64_t want[2];
    geul_neox_tensor_name(name, info, layer);
    const struct geul_gguf_tensor *t = geul_gguf_find_tensor(b->g, name);
    struct geul_tensor **field = weight_field(b->m, info, layer);
    if ((b->no_bias && info->when == GEUL_NEOX_WHEN_BIAS) || (b->tied && info->when == GEUL_NEOX_WHEN_UNTIED))
        t = NULL;
    if (!t && info->when != GEUL_NEOX_WHEN_ALWAYS) {
        *field = info->when == GEUL_NEOX_WHEN_UNTIED ? b->m->embed : NULL;
        return true;
    }
    if (!t) {
        geul_fail(b->ctx, GEUL_ERROR_FORMAT, "%s: tensor %s is missing", geul_gguf_path(b->g), name);
        return false;
    }
    struct geul_gguf_tensor copy;
    if (b->tied && info->role == GEUL_NEOX_ROLE_EMBEDDING)
        t = finer(b, t, &copy);
    int n_dims = geul_neox_tensor_dims(info, &b->m->shape, want);
    if (check_weight(b, t, n_dims, want) != GEUL_OK)
        return false;
    *field = b->make_weight(b->user, t, layer);
    b->m->shape.n_params += want[0] * (n_dims == 2 ? want[1] : 1);
    return *field != NULL;
}

enum geul_status geul_neox_bind(struct geul_context *ctx, const struct geul_gguf *g, struct geul_neox *m,
                                geul_neox_make_weight make_weight, void *user, bool trained)
{
    enum geul_status status = geul_neox_read_shape(ctx, g, &m->shape);
    if (status != GEUL_OK)
        return status;
    /* A layer has 10 tensors at least. A number of layers that the file cannot hold must not size an allocation. */
    if (m->shape.n_layers > geul_gguf_tensor_count(g) / 8)
        return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s claims %d layers but holds only %lld tensors", geul_gguf_path(g),
                         m->shape.n_layers, (long long)geul_gguf_tensor_count(g));
    m->layers = geul_arena(ctx, (size_t)m->shape.n_layers, sizeof *m->layers);
    if (!m->layers)
        return GEUL_ERROR_MEMORY;
    bool bias = true, tied = false;
    geul_gguf_bool(g, GEUL_NEOX_KEY_BIAS, &bias);
    geul_gguf_bool(g, GEUL_NEOX_KEY_TIED, &tied);
    struct binder b = {ctx, g, m, make_weight, user, trained && !bias, trained && tied};
    bool ok = true;
    for (int64_t i = 0; ok && i < geul_neox_tensor_count(m->shape.n_layers); i++) {
        int layer;
        const struct geul_neox_tensor_info *info = geul_neox_tensor_at(m->shape.n_layers, i, &layer);
        ok = bind_weight(&b, info, layer);
    }
    return ok ? GEUL_OK : geul_error_status(ctx);
}

int geul_neox_weights(const struct geul_neox *m, struct geul_tensor **out)
{
    int n = 0;
    for (int64_t i = 0; i < geul_neox_tensor_count(m->shape.n_layers); i++) {
        int layer;
        const struct geul_neox_tensor_info *info = geul_neox_tensor_at(m->shape.n_layers, i, &layer);
        struct geul_tensor *w = geul_neox_weight(m, info, layer);
        if (!w || (info->when == GEUL_NEOX_WHEN_UNTIED && w == m->embed))
            continue;
        if (out)
            out[n] = w;
        n++;
    }
    return n;
}

/* ------------------------------------------------------------------------------------- graph -- */

/* Heads number `which` (0 Q, 1 K, 2 V) of qkv (T, 3HD): a view (T, H, D). */
static struct geul_tensor *heads(struct geul_context *ctx, const struct geul_model_shape *s, struct geul_tensor *qkv,
                                 int which)
{
    return geul_split_last(ctx, geul_narrow(ctx, qkv, 1, (int64_t)which * s->d_model, s->d_model), s->n_heads);
}

/* What building a layer needs everywhere. */
struct build {
    struct geul_context *ctx;
    const struct geul_neox *m;
    const struct geul_neox_pass *pass;
    int layer;
};

/* y (T, N) = x (T, K) times a target's weight, plus what every adapter adds: scale * B (A x). */
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
        /* its own for every product of every adapter, so that their dropout masks differ */
        uint32_t salt = (uint32_t)(i * b->m->shape.n_layers * GEUL_NEOX_TARGETS + at);
        struct geul_tensor *in = drop ? geul_dropout(ctx, x, p->seed, p->dropout, salt) : x;   /* (T, K) */
        struct geul_tensor *low = geul_linear_at(ctx, p->precision, in, pair->a, NULL, false); /* (T, r) */
        low = geul_scale(ctx, low, adapter->scale); /* here, where the rows are short: r, not N */
        y = geul_add(ctx, y, geul_linear_at(ctx, p->precision, low, pair->b, NULL, false)); /* (T, N) */
    }
    return y;
}

/* x (T, K) times w (N, K), a target's weight, with bias (NULL: none) and adapters: (T, N). */
static struct geul_tensor *linear(const struct build *b, struct geul_tensor *x, struct geul_tensor *w,
                                  struct geul_tensor *bias, enum geul_neox_target target)
{
    return adapt(b, geul_linear_at(b->ctx, b->pass->precision, x, w, bias, bias != NULL), x, target);
}

/* Records t as number i of its layer's tensors that are costly to recompute; returns t. */
static struct geul_tensor *costly(const struct build *b, int i, struct geul_tensor *t)
{
    if (b->pass->costly)
        b->pass->costly[b->layer * GEUL_NEOX_COSTLY + i] = t;
    return t;
}

/* The heads' results of self-attention over normalized rows x (T, C), before the output product: (T, C). */
static struct geul_tensor *attention(const struct build *b, struct geul_tensor *x)
{
    struct geul_context *ctx = b->ctx;
    const struct geul_model_shape *s = &b->m->shape;
    const struct geul_neox_layer *l = &b->m->layers[b->layer];
    struct geul_tensor *seq_pos = b->pass->in.seq_pos;
    struct geul_tensor *qkv = costly(b, 0, linear(b, x, l->qkv_w, l->qkv_b, GEUL_NEOX_QKV));        /* (T, 3HD) */
    struct geul_tensor *q = geul_rope(ctx, heads(ctx, s, qkv, 0), seq_pos, s->n_rot, s->rope_base); /* (T, H, D) */
    struct geul_tensor *k = geul_rope(ctx, heads(ctx, s, qkv, 1), seq_pos, s->n_rot, s->rope_base); /* (T, H, D) */
    struct geul_tensor *v = heads(ctx, s, qkv, 2);                                                  /* (T, H, D) */
    /* Keys enter the cache rotated. Attention reads the cache through the store's result, which orders it behind the
     * write: tokens of one batch attend to each other. */
    if (b->pass->k) {
        k = geul_store(ctx, b->pass->k[b->layer], k, seq_pos); /* (S, H, P, D) */
        v = geul_store(ctx, b->pass->v[b->layer], v, seq_pos);
    }
    struct geul_tensor *a = geul_attention(ctx, q, k, v, seq_pos, 1.0f / sqrtf((float)s->d_head)); /* (T, H, D) */
    a = costly(b, 1, a);
    return geul_reshape(ctx, a, 2, (int64_t[]){a ? a->shape[0] : 0, s->d_model}); /* (T, C); NULL stays NULL */
}

/* The output product of what attention() gave: (T, C). */
static struct geul_tensor *attention_out(const struct build *b, struct geul_tensor *heads_out)
{
    const struct geul_neox_layer *l = &b->m->layers[b->layer];
    return geul_named(linear(b, heads_out, l->out_w, l->out_b, GEUL_NEOX_OUT), "blk.%d.attention", b->layer);
}

/* gelu(up(x)): (T, F). */
static struct geul_tensor *mlp_up(const struct build *b, struct geul_tensor *x)
{
    const struct geul_neox_layer *l = &b->m->layers[b->layer];
    struct geul_tensor *h = costly(b, 2, linear(b, x, l->up_w, l->up_b, GEUL_NEOX_UP));
    return geul_gelu(b->ctx, h, b->m->shape.gelu);
}

/* down(f): (T, C). */
static struct geul_tensor *mlp_down(const struct build *b, struct geul_tensor *f)
{
    const struct geul_neox_layer *l = &b->m->layers[b->layer];
    return geul_named(linear(b, f, l->down_w, l->down_b, GEUL_NEOX_DOWN), "blk.%d.mlp", b->layer);
}

/* x + mlp(norm2(x)) + attention(norm1(x)), added in transformers' order. Nodes run in the order in which they are
 * built: the norms are neighbours, and so are the last two products and the additions, so that a backend can compute
 * each of the two groups in one go. */
static struct geul_tensor *parallel_layer(const struct build *b, struct geul_tensor *x)
{
    const struct geul_neox_layer *l = &b->m->layers[b->layer];
    float eps = b->m->shape.norm_eps;
    struct geul_tensor *norm1 = geul_layernorm(b->ctx, x, l->norm1_w, l->norm1_b, eps);
    struct geul_tensor *norm2 = geul_layernorm(b->ctx, x, l->norm2_w, l->norm2_b, eps);
    struct geul_tensor *a = attention(b, norm1), *f = mlp_up(b, norm2);
    a = attention_out(b, a);
    f = mlp_down(b, f);
    return geul_add(b->ctx, geul_add(b->ctx, f, a), x);
}

/* h + mlp(norm2(h)), where h = x + attention(norm1(x)). */
static struct geul_tensor *sequential_layer(const struct build *b, struct geul_tensor *x)
{
    const struct geul_neox_layer *l = &b->m->layers[b->layer];
    float eps = b->m->shape.norm_eps;
    struct geul_tensor *a = attention(b, geul_layernorm(b->ctx, x, l->norm1_w, l->norm1_b, eps));
    struct geul_tensor *h = geul_add(b->ctx, x, attention_out(b, a));
    struct geul_tensor *f = mlp_up(b, geul_layernorm(b->ctx, h, l->norm2_w, l->norm2_b, eps));
    return geul_add(b->ctx, mlp_down(b, f), h);
}

struct geul_tensor *geul_neox_hidden(struct geul_context *ctx, const struct geul_neox *m,
                                     const struct geul_neox_pass *pass)
{
    const struct geul_model_shape *s = &m->shape;
    struct geul_tensor *x = geul_embed(ctx, m->embed, pass->in.ids); /* (T, C), as after every layer */
    for (int i = 0; i < s->n_layers; i++) {
        const struct build b = {ctx, m, pass, i};
        x = s->parallel_residual ? parallel_layer(&b, x) : sequential_layer(&b, x);
        geul_named(x, "blk.%d.out", i);
        if (pass->layer_out)
            pass->layer_out[i] = x;
    }
    if (pass->in.rows)
        x = geul_embed(ctx, x, pass->in.rows); /* (R, C): gathers the rows whose logits are wanted */
    return geul_layernorm(ctx, x, m->norm_w, m->norm_b, s->norm_eps);
}

struct geul_tensor *geul_neox_logits(struct geul_context *ctx, const struct geul_neox *m, struct geul_tensor *hidden,
                                     enum geul_precision precision)
{
    return geul_named(geul_linear_at(ctx, precision, hidden, m->output, NULL, false), "logits");
}
