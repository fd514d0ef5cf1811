/* lora.c: see lora.h. */
#include "models/lora.h"

#include "core/gguf_kind.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Limits far above any adapter, so that products of sizes cannot overflow. */
enum { MOST_RANK = 1 << 20, MOST_LAYERS = 4096, MOST_SIZE = 1 << 20, CHUNK = 1024 };

/* -------------------------------------------------------------------------------------- data -- */

struct geul_lora *geul_lora_new(struct geul_context *ctx, int most)
{
    struct geul_context *own = geul_context_new_like(ctx);
    struct geul_lora *d = own ? geul_arena(own, 1, sizeof *d) : NULL;
    struct geul_lora_pair *pairs = d ? geul_arena(own, (size_t)most + 1, sizeof *pairs) : NULL;
    if (!pairs) {
        geul_context_free(own);
        return geul_fail_memory(ctx, ((size_t)most + 1) * sizeof *pairs);
    }
    d->own = own;
    d->pairs = pairs;
    return d;
}

void geul_lora_free(struct geul_lora *d)
{
    if (d)
        geul_context_free(d->own);
}

enum geul_status geul_lora_add_pair(struct geul_context *ctx, struct geul_lora *d, const struct geul_lora_pair *shape,
                                    float **a, float **b)
{
    size_t rank = (size_t)shape->rank, of_a, of_b; /* elements */
    *a = *b = NULL;
    if (geul_mul_size(rank, (size_t)shape->k, &of_a) && geul_mul_size((size_t)shape->n, rank, &of_b)) {
        *a = geul_arena(d->own, of_a, sizeof(float));
        *b = *a ? geul_arena(d->own, of_b, sizeof(float)) : NULL;
    }
    if (!*b)
        return geul_fail(ctx, GEUL_ERROR_MEMORY, "no memory for the %s matrices of layer %d of an adapter",
                         geul_neox_target_name(shape->target), shape->layer);
    struct geul_lora_pair *s = &d->pairs[d->n_pairs++];
    *s = *shape;
    s->a = *a;
    s->b = *b;
    return GEUL_OK;
}

const char *geul_lora_copy_text(struct geul_context *ctx, struct geul_lora *d, const char *s, size_t n)
{
    char *copy = n < SIZE_MAX ? geul_arena(d->own, n + 1, 1) : NULL;
    if (!copy)
        return geul_fail_memory(ctx, n);
    memcpy(copy, s, n);
    return copy;
}

void geul_adapter_tensor_name(char out[GEUL_MAX_NAME], int layer, enum geul_neox_target target, char half)
{
    geul_neox_tensor_name(out, geul_neox_target_info(target), layer);
    size_t n = strlen(out);
    snprintf(out + n, GEUL_MAX_NAME - n, ".lora_%c", half);
}

float geul_lora_scale(float alpha, int rank, bool rslora)
{
    return alpha / (rslora ? sqrtf((float)rank) : (float)rank);
}

float geul_lora_pair_scale(const struct geul_lora *d, int rank)
{
    return geul_lora_scale(d->alpha, rank, d->rslora);
}

const struct geul_lora_pair *geul_lora_find(const struct geul_lora *d, int layer, enum geul_neox_target target)
{
    for (int i = 0; i < d->n_pairs; i++)
        if (d->pairs[i].layer == layer && d->pairs[i].target == target)
            return &d->pairs[i];
    return NULL;
}

static bool all_finite(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

enum geul_status geul_lora_check(struct geul_context *ctx, const struct geul_lora *d, const char *where)
{
    if (d->n_pairs < 1)
        return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: the adapter holds no matrices", where);
    if (!(d->alpha > 0 && d->alpha < 1e9f))
        return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: alpha is %g; a number above 0 is needed", where,
                         (double)d->alpha);
    for (int i = 0; i < d->n_pairs; i++) {
        const struct geul_lora_pair *s = &d->pairs[i];
        bool a = all_finite(s->a, s->rank * s->k);
        if (!a || !all_finite(s->b, s->n * s->rank))
            return geul_fail(ctx, GEUL_ERROR_FORMAT,
                             "%s: matrix %c for %s of layer %d holds values that are not finite", where, a ? 'B' : 'A',
                             geul_neox_target_name(s->target), s->layer);
    }
    return GEUL_OK;
}

struct geul_lora_shape geul_lora_shape_of(const struct geul_model_shape *shape)
{
    return (struct geul_lora_shape){shape->n_layers, shape->n_heads, shape->d_model, shape->d_ff};
}

/* The sizes that are known, in words: key of GGUF, name, and place in the struct. */
static const struct {
    const char *key, *before, *after;
    size_t field;
    int most;
} sizes[] = {
    {"gptneox.block_count", "", " layers", offsetof(struct geul_lora_shape, n_layers), MOST_LAYERS},
    {"gptneox.attention.head_count", "", " heads", offsetof(struct geul_lora_shape, n_heads), MOST_SIZE},
    {"gptneox.embedding_length", "width ", "", offsetof(struct geul_lora_shape, d_model), MOST_SIZE},
    {"gptneox.feed_forward_length", "", " inside of the MLP", offsetof(struct geul_lora_shape, d_ff), MOST_SIZE},
};
enum { N_SIZES = sizeof sizes / sizeof *sizes };

static int *size_of(const struct geul_lora_shape *s, int i)
{
    return (int *)(void *)((char *)(uintptr_t)s + sizes[i].field);
}

/* "2 layers, 2 heads, width 32, 64 inside of the MLP" into text; returns text. */
static const char *sizes_text(const struct geul_lora_shape *s, char *text, size_t size)
{
    size_t n = 0;
    text[0] = '\0';
    for (int i = 0; i < N_SIZES; i++)
        if (*size_of(s, i) && n < size)
            n += (size_t)snprintf(text + n, size - n, "%s%s%d%s", n ? ", " : "", sizes[i].before, *size_of(s, i),
                                  sizes[i].after);
    return text;
}

enum geul_status geul_lora_check_made_for(struct geul_context *ctx, const struct geul_lora_shape *made_for,
                                          const struct geul_lora_shape *model, const char *where)
{
    char a[160], b[160];
    for (int i = 0; i < N_SIZES; i++)
        if (*size_of(made_for, i) && *size_of(model, i) && *size_of(made_for, i) != *size_of(model, i))
            return geul_fail(ctx, GEUL_ERROR_ARGUMENT,
                             "%s: was made for another model: one of %s, where this one has %s; use it with the model "
                             "that it was trained on",
                             where, sizes_text(made_for, a, sizeof a), sizes_text(model, b, sizeof b));
    return GEUL_OK;
}

enum geul_status geul_lora_check_shape(struct geul_context *ctx, const struct geul_lora *d,
                                       const struct geul_model_shape *shape, const char *where)
{
    const struct geul_lora_shape model = geul_lora_shape_of(shape);
    enum geul_status status = geul_lora_check_made_for(ctx, &d->made_for, &model, where);
    if (status != GEUL_OK)
        return status;
    for (int i = 0; i < d->n_pairs; i++) {
        const struct geul_lora_pair *s = &d->pairs[i];
        int64_t want[2];
        geul_neox_tensor_dims(geul_neox_target_info(s->target), shape, want);
        if (s->layer >= shape->n_layers)
            return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "%s: adapts layer %d, but the model has %d layers", where,
                             s->layer, shape->n_layers);
        if (s->n != want[0] || s->k != want[1])
            return geul_fail(ctx, GEUL_ERROR_ARGUMENT,
                             "%s: adapts blk.%d.%s as a matrix (%lld, %lld), but the model's is (%lld, %lld); it is "
                             "for another model",
                             where, s->layer, geul_neox_target_name(s->target), (long long)s->n, (long long)s->k,
                             (long long)want[0], (long long)want[1]);
    }
    return GEUL_OK;
}

/* ----------------------------------------------------------------------------------- reading -- */

static bool key_is(const struct geul_gguf *g, const char *key, const char *value)
{
    const char *s;
    size_t n;
    return geul_gguf_string(g, key, &s, &n) && n == strlen(value) && memcmp(s, value, n) == 0;
}

/* Fails unless g is an adapter of the only kind that is supported, LoRA of GPT-NeoX. */
static enum geul_status check_kind(struct geul_context *ctx, const struct geul_gguf *g)
{
    const char *path = geul_gguf_path(g);
    if (!key_is(g, "general.type", "adapter"))
        return geul_fail_kind(ctx, path, "an adapter", geul_gguf_kind(g));
    if (!key_is(g, "adapter.type", "lora"))
        return geul_fail(ctx, GEUL_ERROR_UNSUPPORTED, "%s: adapter.type is not \"lora\", the only one geul knows",
                         path);
    if (!key_is(g, "general.architecture", "gptneox"))
        return geul_fail(ctx, GEUL_ERROR_UNSUPPORTED, "%s: is an adapter for another architecture than gptneox", path);
    if (geul_gguf_has(g, "adapter.alora.invocation_tokens"))
        return geul_fail(ctx, GEUL_ERROR_UNSUPPORTED,
                         "%s: applies only from its invocation tokens on (aLoRA), which geul cannot do", path);
    return GEUL_OK;
}

/* Splits "blk.3.ffn_up.weight.lora_a". false: no name of half a pair that geul can use. */
static bool parse_name(const char *name, int *layer, enum geul_neox_target *target, char *half)
{
    *layer = geul_neox_layer_of(name);
    if (*layer < 0 || *layer >= MOST_LAYERS)
        return false;
    *half = name[strlen(name) - 1];
    for (int t = 0; (*half == 'a' || *half == 'b') && t < GEUL_NEOX_TARGETS; t++) {
        char canonical[GEUL_MAX_NAME];
        *target = (enum geul_neox_target)t;
        geul_adapter_tensor_name(canonical, *layer, *target, *half);
        if (strcmp(canonical, name) == 0)
            return true;
    }
    return false;
}

static enum geul_status refuse_name(struct geul_context *ctx, const struct geul_gguf *g, const char *name)
{
    const char *tail = strstr(name, ".lora_");
    char known[200];
    if (!tail)
        return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: tensor %.100s is not part of a low-rank adapter",
                         geul_gguf_path(g), name);
    return geul_fail(ctx, GEUL_ERROR_UNSUPPORTED, "%s: adapts %.*s, which geul cannot do; %s are possible",
                     geul_gguf_path(g), (int)(tail - name < 100 ? tail - name : 100), name,
                     geul_neox_list_targets(known, sizeof known, geul_neox_target_name, ", ", " and "));
}

/* The other half of the pair that t belongs to; NULL when it is missing. */
static const struct geul_gguf_tensor *other_half(const struct geul_gguf *g, const struct geul_gguf_tensor *t)
{
    char name[GEUL_MAX_NAME];
    size_t n = strlen(t->name);
    snprintf(name, sizeof name, "%s", t->name);
    name[n - 1] = name[n - 1] == 'a' ? 'b' : 'a';
    return geul_gguf_find_tensor(g, name);
}

/* Decodes a matrix into x. Rows are copied first: in the file they may lie at any address, and geul_decode() needs
 * aligned ones. */
static enum geul_status decode(struct geul_context *ctx, const struct geul_gguf_tensor *t, float *x)
{
    size_t row = t->bytes / (size_t)t->shape[0];
    uint8_t *aligned = geul_alloc(ctx, row, 1);
    if (!aligned)
        return GEUL_ERROR_MEMORY;
    for (int64_t r = 0; r < t->shape[0]; r++) {
        memcpy(aligned, (const uint8_t *)t->data + (size_t)r * row, row);
        geul_decode(t->type, aligned, x + r * t->shape[1], t->shape[1]);
    }
    geul_free(ctx, aligned);
    return GEUL_OK;
}

/* Reads the pair whose first half is a. */
static enum geul_status read_pair(struct geul_context *ctx, struct geul_lora *d, const struct geul_gguf *g,
                                  const struct geul_gguf_tensor *a, int layer, enum geul_neox_target target)
{
    const struct geul_gguf_tensor *b = other_half(g, a);
    float *to_a, *to_b;
    if (a->n_dims != 2 || b->n_dims != 2 || a->shape[0] != b->shape[1])
        return geul_fail(ctx, GEUL_ERROR_FORMAT,
                         "%s: %s is (%lld, %lld) and its other half (%lld, %lld); (r, K) and (N, r) are needed",
                         geul_gguf_path(g), a->name, (long long)a->shape[0], (long long)a->shape[1],
                         (long long)b->shape[0], (long long)b->shape[1]);
    if (a->shape[0] < 1 || a->shape[0] > MOST_RANK || a->shape[1] < 1 || b->shape[0] < 1)
        return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: %s has rank %lld; 1 to %d is possible", geul_gguf_path(g),
                         a->name, (long long)a->shape[0], MOST_RANK);
    if (a->type == GEUL_TYPE_I32 || b->type == GEUL_TYPE_I32)
        return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: %s or its other half is i32; a float type is needed",
                         geul_gguf_path(g), a->name);
    const struct geul_lora_pair shape = {
        .layer = layer, .target = target, .rank = (int)a->shape[0], .n = b->shape[0], .k = a->shape[1]};
    enum geul_status status = geul_lora_add_pair(ctx, d, &shape, &to_a, &to_b);
    if (status == GEUL_OK)
        status = decode(ctx, a, to_a);
    return status == GEUL_OK ? decode(ctx, b, to_b) : status;
}

/* Reads every pair once, at its A; a B only has to have one. */
static enum geul_status read_tensors(struct geul_context *ctx, struct geul_lora *d, const struct geul_gguf *g)
{
    enum geul_status status = GEUL_OK;
    for (int64_t i = 0; status == GEUL_OK && i < geul_gguf_tensor_count(g); i++) {
        const struct geul_gguf_tensor *t = geul_gguf_tensor_at(g, i);
        enum geul_neox_target target;
        int layer;
        char half;
        if (!parse_name(t->name, &layer, &target, &half))
            return refuse_name(ctx, g, t->name);
        if (!other_half(g, t))
            return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: tensor %s has no other half, lora_%c", geul_gguf_path(g),
                             t->name, half == 'a' ? 'b' : 'a');
        if (half == 'a')
            status = read_pair(ctx, d, g, t, layer, target);
    }
    return status;
}

/* The text of a key, NULL when it is missing; *ok becomes false when memory is short. */
static const char *read_text(struct geul_context *ctx, struct geul_lora *d, const struct geul_gguf *g, const char *key,
                             bool *ok)
{
    const char *s, *copy;
    size_t n;
    if (!geul_gguf_string(g, key, &s, &n))
        return NULL;
    copy = geul_lora_copy_text(ctx, d, s, n);
    *ok = *ok && copy;
    return copy;
}

static int read_count(const struct geul_gguf *g, const char *key, int most)
{
    uint64_t v;
    return geul_gguf_u64(g, key, &v) && v <= (uint64_t)most ? (int)v : 0;
}

static bool same_ranks(const struct geul_lora *d)
{
    for (int i = 1; i < d->n_pairs; i++)
        if (d->pairs[i].rank != d->pairs[0].rank)
            return false;
    return true;
}

/* Multiplies the B of a pair whose matrices a geul_lora owns. */
static void scale_b(const struct geul_lora_pair *s, float factor)
{
    float *b = (float *)(uintptr_t)s->b;
    for (int64_t i = 0; factor != 1 && i < s->n * s->rank; i++)
        b[i] *= factor;
}

/* Reads alpha. geul's own keys give back the alpha and rsLoRA that the trainer was given, but only while they agree
 * with the standard key: another program may have changed that one. */
static void read_alpha(struct geul_lora *d, const struct geul_gguf *g)
{
    double alpha = 0, told = 0;
    bool rslora = false;
    geul_gguf_f64(g, "adapter.lora.alpha", &alpha);
    d->alpha = (float)alpha;
    if (d->n_pairs < 1)
        return;
    int rank = d->pairs[0].rank;
    if (alpha == 0) { /* llama.cpp: no alpha, no division by the rank. alpha / rank has to be 1 for every pair */
        d->alpha = (float)rank;
        for (int i = 1; i < d->n_pairs; i++)
            scale_b(&d->pairs[i], (float)d->pairs[i].rank / (float)rank);
    } else if (geul_gguf_bool(g, "geul.lora.rslora", &rslora) && rslora && same_ranks(d) &&
               geul_gguf_f64(g, "geul.lora.alpha", &told) && fabs(told * sqrt(rank) - alpha) <= 1e-5 * fabs(alpha)) {
        d->alpha = (float)told;
        d->rslora = true;
    }
}

static enum geul_status read_all(struct geul_context *ctx, struct geul_lora *d, const struct geul_gguf *g)
{
    bool ok = true;
    enum geul_status status = read_tensors(ctx, d, g);
    if (status != GEUL_OK)
        return status;
    read_alpha(d, g);
    for (int i = 0; i < N_SIZES; i++)
        *size_of(&d->made_for, i) = read_count(g, sizes[i].key, sizes[i].most);
    d->name = read_text(ctx, d, g, "general.name", &ok);
    d->base = read_text(ctx, d, g, "general.base_model.0.name", &ok);
    d->template_text = read_text(ctx, d, g, "geul.template", &ok);
    return ok ? geul_lora_check(ctx, d, geul_gguf_path(g)) : GEUL_ERROR_MEMORY;
}

struct geul_lora *geul_lora_parse(struct geul_context *ctx, const struct geul_gguf *g)
{
    int64_t tensors = geul_gguf_tensor_count(g);
    if (check_kind(ctx, g) != GEUL_OK)
        return NULL;
    if (tensors > 2 * MOST_LAYERS * GEUL_NEOX_TARGETS) {
        geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: %lld tensors are too many for an adapter", geul_gguf_path(g),
                  (long long)tensors);
        return NULL;
    }
    struct geul_lora *d = geul_lora_new(ctx, (int)(tensors / 2));
    if (!d || read_all(ctx, d, g) == GEUL_OK)
        return d;
    geul_lora_free(d);
    return NULL;
}

struct geul_lora *geul_lora_read(struct geul_context *ctx, const char *path)
{
    struct geul_gguf *g = geul_gguf_open(ctx, path);
    struct geul_lora *d = g ? geul_lora_parse(ctx, g) : NULL;
    geul_gguf_close(g);
    return d;
}

/* ----------------------------------------------------------------------------------- writing -- */

static void set_text(struct geul_gguf_writer *w, const char *key, const char *s)
{
    if (s)
        geul_gguf_set_string(w, key, s, strlen(s));
}

static void set_keys(struct geul_gguf_writer *w, const struct geul_lora *d)
{
    float rank = (float)d->pairs[0].rank;
    set_text(w, "general.architecture", "gptneox");
    set_text(w, "general.type", "adapter");
    set_text(w, "general.name", d->name);
    if (d->base) {
        geul_gguf_set_u32(w, "general.base_model.count", 1);
        set_text(w, "general.base_model.0.name", d->base);
    }
    set_text(w, "adapter.type", "lora");
    /* Readers compute alpha / rank; rsLoRA's alpha / sqrt(rank) is (alpha sqrt(rank)) / rank. */
    geul_gguf_set_f32(w, "adapter.lora.alpha", d->rslora ? d->alpha * sqrtf(rank) : d->alpha);
    if (d->rslora && same_ranks(d)) {
        geul_gguf_set_bool(w, "geul.lora.rslora", true);
        geul_gguf_set_f32(w, "geul.lora.alpha", d->alpha);
    }
    set_text(w, "geul.template", d->template_text);
    for (int i = 0; i < N_SIZES; i++)
        if (*size_of(&d->made_for, i))
            geul_gguf_set_u32(w, sizes[i].key, (uint32_t)*size_of(&d->made_for, i));
}

static void declare(struct geul_gguf_writer *w, const struct geul_lora_pair *s, char half)
{
    char name[GEUL_MAX_NAME];
    const int64_t a[2] = {s->rank, s->k}, b[2] = {s->n, s->rank};
    geul_adapter_tensor_name(name, s->layer, s->target, half);
    geul_gguf_declare_tensor(w, name, GEUL_TYPE_F32, 2, half == 'a' ? a : b);
}

/* Writes n values times factor. */
static void write_scaled(struct geul_gguf_writer *w, const float *x, int64_t n, float factor)
{
    float chunk[CHUNK];
    for (int64_t at = 0; at < n; at += CHUNK) {
        int64_t here = n - at < CHUNK ? n - at : CHUNK;
        for (int64_t i = 0; i < here; i++)
            chunk[i] = x[at + i] * factor;
        geul_gguf_write_data(w, chunk, (size_t)here * sizeof *chunk);
    }
}

enum geul_status geul_lora_save(struct geul_context *ctx, const struct geul_lora *d, const char *path)
{
    enum geul_status status = geul_lora_check(ctx, d, path);
    struct geul_gguf_writer *w = status == GEUL_OK ? geul_gguf_writer_new(ctx, path) : NULL;
    if (!w)
        return geul_error_status(ctx);
    set_keys(w, d);
    /* Data has to follow in the order of the declarations: A and B of each pair. The writer's failures are sticky. */
    for (int i = 0; i < d->n_pairs; i++) {
        declare(w, &d->pairs[i], 'a');
        declare(w, &d->pairs[i], 'b');
    }
    for (int i = 0; i < d->n_pairs; i++) {
        const struct geul_lora_pair *s = &d->pairs[i];
        /* alpha / sqrt(r) as alpha' / r times a factor, where alpha' = alpha * sqrt(r of the first) */
        float factor = d->rslora ? sqrtf((float)s->rank / (float)d->pairs[0].rank) : 1;
        write_scaled(w, s->a, s->rank * s->k, 1);
        write_scaled(w, s->b, s->n * s->rank, factor);
    }
    return geul_gguf_writer_commit(w);
}
