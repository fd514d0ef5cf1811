/* merge.c: see merge.h. Opening a merge only checks and lists; the sums are taken when the base is quantized or copied,
 * as a hook that changes each decoded row: W[row] += scale B[row] A, for one share after the other, in each rank by
 * rank. A row is one thread's and the order is fixed, so the sums do not depend on the number of threads.
 */
#include "convert/merge.h"

#include "convert/peft.h"
#include "core/check.h"
#include "core/gguf.h"
#include "core/inputs.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PIECE = 16 };

/* One adapter's part in one matrix. */
struct share {
    const struct geul_lora_pair *pair;
    float scale;
    struct share *next; /* of the next adapter */
};

struct geul_merge {
    struct geul_context *ctx;
    struct share *shares;
    struct share **matrices; /* layer * GEUL_NEOX_TARGETS + target: the first share; NULL: the matrix stays */
    int n_layers, n_shares, n_matrices;
    bool quantized;
    const char *template_text;
    struct geul_lora **own; /* the n_own adapters, if geul_merge_new() read them */
    int n_own;
    struct geul_quantize_hooks hooks;
};

/* Appends a share to its matrix, after those of adapters named before: sums are taken in the order of the adapters. */
static void add_share(struct geul_merge *m, const struct geul_lora_pair *pair, float scale)
{
    struct share *s = &m->shares[m->n_shares++];
    struct share **link = &m->matrices[pair->layer * GEUL_NEOX_TARGETS + (int)pair->target];
    m->n_matrices += !*link;
    while (*link)
        link = &(*link)->next;
    *s = (struct share){pair, scale, NULL};
    *link = s;
}

/* Looks the pair's matrix up in the file. */
static enum geul_status check_matrix(struct geul_merge *m, const struct geul_gguf *g, const struct geul_lora_pair *s)
{
    char name[GEUL_MAX_NAME];
    geul_neox_tensor_name(name, geul_neox_target_info(s->target), s->layer);
    const struct geul_gguf_tensor *t = geul_gguf_find_tensor(g, name);
    if (!t || t->n_dims != 2 || t->shape[0] != s->n || t->shape[1] != s->k || t->type == GEUL_TYPE_I32)
        return geul_fail(m->ctx, GEUL_ERROR_FORMAT, "%s: tensor %s (%lld, %lld) is missing or misshapen",
                         geul_gguf_path(g), name, (long long)s->n, (long long)s->k);
    m->quantized |= geul_type_block(t->type) > 1;
    return GEUL_OK;
}

/* Checks one adapter and adds its shares. */
static enum geul_status add_input(struct geul_merge *m, const struct geul_gguf *g, const struct geul_model_shape *shape,
                                  const struct geul_merge_lora *in)
{
    const struct geul_lora *d = in->data;
    enum geul_status status = geul_lora_check_shape(m->ctx, d, shape, in->path);
    if (status == GEUL_OK && !isfinite(in->scale))
        status = geul_fail(m->ctx, GEUL_ERROR_ARGUMENT, "%s: the scale %g is not a finite number", in->path,
                           (double)in->scale);
    for (int i = 0; status == GEUL_OK && i < d->n_pairs; i++) {
        status = check_matrix(m, g, &d->pairs[i]);
        if (status == GEUL_OK)
            add_share(m, &d->pairs[i], in->scale * geul_lora_pair_scale(d, d->pairs[i].rank));
    }
    m->template_text = d->template_text ? d->template_text : m->template_text; /* the last adapter's that has one */
    return status;
}

/* Checks every adapter against the base and lists what it changes. shares is allocated once: lists link into it. */
static enum geul_status fill(struct geul_merge *m, const char *base_path, const struct geul_merge_lora *inputs, int n)
{
    struct geul_model_shape shape;
    size_t pairs = 0;
    struct geul_gguf *g = geul_gguf_open(m->ctx, base_path);
    enum geul_status status = g ? geul_neox_read_shape(m->ctx, g, &shape) : geul_error_status(m->ctx);
    for (int i = 0; i < n; i++)
        pairs += (size_t)inputs[i].data->n_pairs;
    if (status == GEUL_OK) {
        m->n_layers = shape.n_layers;
        m->shares = geul_alloc(m->ctx, pairs, sizeof *m->shares);
        m->matrices = geul_alloc(m->ctx, (size_t)shape.n_layers * GEUL_NEOX_TARGETS, sizeof(struct share *));
        status = m->shares && m->matrices ? GEUL_OK : GEUL_ERROR_MEMORY;
    }
    for (int i = 0; status == GEUL_OK && i < n; i++)
        status = add_input(m, g, &shape, &inputs[i]);
    geul_gguf_close(g);
    return status;
}

/* The first share of the tensor's matrix. Only the exact name will do: the shapes of others were not checked. */
static const void *shares_of(void *user, const char *tensor)
{
    const struct geul_merge *m = user;
    int layer = geul_neox_layer_of(tensor);
    for (int t = 0; layer >= 0 && layer < m->n_layers && t < GEUL_NEOX_TARGETS; t++) {
        char name[GEUL_MAX_NAME];
        geul_neox_tensor_name(name, geul_neox_target_info((enum geul_neox_target)t), layer);
        if (strcmp(name, tensor) == 0)
            return m->matrices[layer * GEUL_NEOX_TARGETS + t];
    }
    return NULL;
}

/* x += factor * a. In pieces of a fixed length, which compilers vectorize even at -O2. */
static void add_scaled(float *restrict x, const float *restrict a, float factor, int64_t n)
{
    int64_t i = 0;
    for (; i + PIECE <= n; i += PIECE)
        for (int k = 0; k < PIECE; k++)
            x[i + k] += factor * a[i + k];
    for (; i < n; i++)
        x[i] += factor * a[i];
}

/* x (cols) += scale * row of B times A, for every share. */
static void add_shares(const void *first, int64_t row, float *x, int64_t cols)
{
    for (const struct share *s = first; s; s = s->next) {
        int rank = s->pair->rank;
        const float *a = s->pair->a, *b = s->pair->b + row * rank;
        for (int i = 0; i < rank; i++, a += cols)
            add_scaled(x, a, s->scale * b[i], cols);
    }
}

struct geul_merge *geul_merge_data(struct geul_context *ctx, const char *base_path,
                                   const struct geul_merge_lora *sources, int n)
{
    struct geul_merge *m = geul_alloc(ctx, 1, sizeof *m);
    if (!m)
        return NULL;
    m->ctx = ctx;
    if (fill(m, base_path, sources, n) == GEUL_OK) {
        m->hooks = (struct geul_quantize_hooks){.size = sizeof m->hooks,
                                                .changing = shares_of,
                                                .change = add_shares,
                                                .user = m,
                                                .template_text = m->template_text};
        return m;
    }
    geul_merge_free(m);
    return NULL;
}

static void free_adapters(struct geul_context *ctx, struct geul_lora **data, int n)
{
    for (int i = 0; i < n; i++)
        geul_lora_free(data[i]);
    geul_free(ctx, data);
}

/* Checks what geul_merge_new() gets. */
static enum geul_status check_inputs(struct geul_context *ctx, const struct geul_merge_input *inputs, int n)
{
    enum geul_status status = geul_check_array(ctx, "inputs", inputs, "n", n, 0);
    for (int i = 0; status == GEUL_OK && i < n; i++)
        status = geul_check_element(ctx, "inputs", i, ".path", inputs[i].path);
    return status;
}

struct geul_merge *geul_merge_new(struct geul_context *ctx, const char *base_path,
                                  const struct geul_merge_input *inputs, int n)
{
    struct geul_lora_shape base;
    struct geul_merge *m = NULL;
    int read = 0;
    geul_error_clear(ctx);
    if (check_inputs(ctx, inputs, n) != GEUL_OK)
        return NULL;
    geul_inputs_begin(ctx); /* until the merge ends: its adapters are read and closed before the output is written */
    struct geul_lora **data = geul_alloc(ctx, (size_t)n, sizeof(struct geul_lora *));
    struct geul_merge_lora *sources = data ? geul_alloc(ctx, (size_t)n, sizeof *sources) : NULL;
    bool ok = sources && geul_peft_read_base(ctx, base_path, &base) == GEUL_OK;
    for (; ok && read < n; read++) {
        data[read] = geul_lora_read_any(ctx, inputs[read].path, base);
        sources[read] = (struct geul_merge_lora){data[read], inputs[read].scale, inputs[read].path};
        ok = data[read] != NULL;
    }
    if (ok)
        m = geul_merge_data(ctx, base_path, sources, n);
    geul_free(ctx, sources);
    if (m) { /* the shares point into the adapters, which therefore live as long */
        m->own = data;
        m->n_own = n;
        return m;
    }
    if (data)
        free_adapters(ctx, data, read);
    geul_inputs_end(ctx);
    return NULL;
}

void geul_merge_free(struct geul_merge *m)
{
    if (!m)
        return;
    if (m->own)
        geul_inputs_end(m->ctx);
    free_adapters(m->ctx, m->own, m->n_own);
    geul_free(m->ctx, m->shares);
    geul_free(m->ctx, m->matrices);
    geul_free(m->ctx, m);
}

int geul_merge_matrix_count(const struct geul_merge *m)
{
    return m->n_matrices;
}

bool geul_merge_is_quantized(const struct geul_merge *m)
{
    return m->quantized;
}

const struct geul_quantize_hooks *geul_merge_hooks(const struct geul_merge *m)
{
    return m ? &m->hooks : NULL;
}
