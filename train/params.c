/* params.c: see params.h. */
#include "train/params.h"

#include "core/os.h"
#include "core/random.h"
#include "models/lora.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ----------------------------------------------------------------------------------- tensors -- */

/* Sets t to zeros, which are zero bytes in every type. */
static enum geul_status clear(struct geul_context *ctx, struct geul_tensor *t)
{
    static const char zeros[1 << 16];
    size_t bytes = geul_tensor_bytes(t);
    enum geul_status status = GEUL_OK;
    for (size_t at = 0; status == GEUL_OK && at < bytes; at += sizeof zeros)
        status = t->buffer->device->backend->upload(ctx, t->buffer, (char *)t->data + at, zeros,
                                                    bytes - at < sizeof zeros ? bytes - at : sizeof zeros);
    return status;
}

/* A tensor of zeros on device, owned by p, its bytes added to *sum; dry: without memory. NULL on failure. */
static struct geul_tensor *new_leaf(struct geul_params *p, struct geul_device *device, enum geul_type type, int n_dims,
                                    const int64_t *shape, const char *name, bool dry, size_t *sum)
{
    size_t bytes;
    struct geul_buffer *b = &p->buffers[p->n_buffers];
    if (!geul_shape_bytes(type, n_dims, shape, &bytes)) {
        geul_fail(p->ctx, GEUL_ERROR_MEMORY, "%s is impossibly large", name);
        return NULL;
    }
    if (dry)
        *b = (struct geul_buffer){.device = device};
    else if (geul_device_buffer(p->ctx, device, bytes, name, b) != GEUL_OK)
        return NULL;
    p->n_buffers++;
    if (b->host)
        geul_os_prefer_large_pages(b->base, bytes);
    *sum += bytes;
    struct geul_tensor *t = geul_leaf(p->leaves, type, n_dims, shape, name, b, b->base);
    if (!t)
        geul_fail_from(p->ctx, p->leaves);
    else if (!dry && clear(p->ctx, t) != GEUL_OK)
        return NULL;
    return t;
}

/* Makes weight, which exists, the next parameter: gives it states and, where batches add up, a gradient. */
static bool add_param(struct geul_params *p, struct geul_tensor *weight, const struct geul_train_options *o, bool dry)
{
    struct geul_param *item = &p->items[p->n];
    struct geul_device *device = weight->buffer->device;
    *item = (struct geul_param){.weight = weight, .decay = weight->n_dims == 2};
    if (p->adds && !(item->gradient = new_leaf(p, device, GEUL_TYPE_F32, weight->n_dims, weight->shape, weight->name,
                                               dry, &p->gradient_bytes)))
        return false;
    enum geul_op op = geul_optimizer_info(o->optimizer)->op;
    enum geul_type type;
    int64_t shape[2];
    for (int i = 0, n_dims; (n_dims = geul_update_state(op, weight, i, &type, shape)) > 0; i++) {
        item->states[i] = new_leaf(p, device, type, n_dims, shape, weight->name, dry, &p->state_bytes);
        if (!item->states[i])
            return false;
    }
    p->elements += geul_tensor_elements(weight);
    p->n++;
    return true;
}

/* ----------------------------------------------------------------------------------- adapter -- */

/* Fills t (r, K) as PEFT initializes A: uniform within 1 / sqrt(K), its kaiming_uniform(sqrt 5). */
static bool fill_random(struct geul_params *p, struct geul_tensor *t, uint64_t seed)
{
    size_t cols = (size_t)geul_cols(t), row_bytes = cols * sizeof(float);
    float *row = geul_alloc(p->ctx, cols, sizeof *row);
    double bound = 1 / sqrt((double)cols);
    bool ok = row != NULL;
    for (int64_t r = 0; ok && r < geul_rows(t); r++) {
        for (size_t i = 0; i < cols; i++)
            row[i] = (float)(bound * (2 * geul_random_unit(seed, (uint64_t)r * cols + i) - 1));
        char *to = (char *)t->data + (size_t)r * row_bytes;
        ok = t->buffer->device->backend->upload(p->ctx, t->buffer, to, row, row_bytes) == GEUL_OK;
    }
    geul_free(p->ctx, row);
    return ok;
}

/* One half of a pair, (rows, cols). */
static struct geul_tensor *new_half(struct geul_params *p, struct geul_device *device, const struct geul_tensor *w,
                                    char half, int64_t rows, int64_t cols, const struct geul_train_options *o, bool dry)
{
    char name[GEUL_MAX_NAME + 8];
    snprintf(name, sizeof name, "%s.lora_%c", w->name, half);
    struct geul_tensor *t = new_leaf(p, device, GEUL_TYPE_F32, 2, (int64_t[]){rows, cols}, name, dry, &p->weight_bytes);
    return t && add_param(p, t, o, dry) ? t : NULL;
}

/* The pair for one target of one layer. */
static bool add_pair(struct geul_params *p, struct geul_model *model, const struct geul_train_options *o, int layer,
                     enum geul_neox_target target, bool dry)
{
    struct geul_device *device = geul_model_layer_device(model, layer);
    const struct geul_tensor *w = geul_neox_weight(&model->neox, geul_neox_target_info(target), layer);
    int at = layer * GEUL_NEOX_TARGETS + (int)target;
    struct geul_neox_pair *pair = &p->adapter.pairs[at];
    /* B stays zero, so the adapter changes nothing until the first update. */
    pair->a = new_half(p, device, w, 'a', o->lora.rank, w->shape[1], o, dry);
    pair->b = pair->a ? new_half(p, device, w, 'b', w->shape[0], o->lora.rank, o, dry) : NULL;
    return pair->b && (dry || fill_random(p, pair->a, geul_random_bits(o->seed ^ 0x6c6f7261, (uint64_t)at)));
}

static bool add_adapter(struct geul_params *p, struct geul_model *model, const struct geul_train_options *o, bool dry)
{
    p->adapter.scale = geul_lora_scale(o->lora.alpha, o->lora.rank, o->lora.rslora);
    for (int layer = 0; layer < model->neox.shape.n_layers; layer++)
        for (int target = 0; target < GEUL_NEOX_TARGETS; target++)
            if ((o->lora.targets >> target & 1) && !add_pair(p, model, o, layer, (enum geul_neox_target)target, dry))
                return false;
    p->adapters[0] = &p->adapter;
    model->neox.adapters = p->adapters;
    model->neox.n_adapters = 1;
    return true;
}

/* All weights of the model. */
static bool add_weights(struct geul_params *p, struct geul_model *model, const struct geul_train_options *o, bool dry)
{
    int n = geul_neox_weights(&model->neox, NULL);
    struct geul_tensor **weights = geul_alloc(p->ctx, (size_t)n, sizeof(struct geul_tensor *));
    bool ok = weights != NULL;
    if (ok)
        geul_neox_weights(&model->neox, weights);
    for (int i = 0; ok && i < n; i++) {
        ok = add_param(p, weights[i], o, dry);
        p->weight_bytes += geul_tensor_bytes(weights[i]); /* in the model's own buffers */
    }
    geul_free(p->ctx, weights);
    return ok;
}

bool geul_params_make(struct geul_params *p, struct geul_context *ctx, struct geul_model *model,
                      const struct geul_train_options *o, bool dry)
{
    int layers = model->neox.shape.n_layers;
    int most = o->lora.rank ? layers * GEUL_NEOX_TARGETS * 2 : geul_neox_weights(&model->neox, NULL);
    *p = (struct geul_params){
        .ctx = ctx, .model = model, .adds = o->n_accumulate > 1, .leaves = geul_context_new_like(ctx)};
    if (!p->leaves) {
        geul_fail_memory(ctx, sizeof *p);
        return false;
    }
    p->items = geul_alloc(ctx, (size_t)most, sizeof *p->items);
    p->buffers = geul_alloc(ctx, (size_t)most * 4, sizeof *p->buffers); /* weight, gradient, two states */
    p->adapter.pairs = geul_alloc(ctx, (size_t)layers * GEUL_NEOX_TARGETS, sizeof *p->adapter.pairs);
    if (!p->items || !p->buffers || !p->adapter.pairs)
        return false;
    return o->lora.rank ? add_adapter(p, model, o, dry) : add_weights(p, model, o, dry);
}

void geul_params_free(struct geul_params *p)
{
    if (p->adapters[0]) { /* the model's graphs must not be built with it any more */
        p->model->neox.adapters = NULL;
        p->model->neox.n_adapters = 0;
    }
    for (int i = 0; i < p->n_buffers; i++)
        p->buffers[i].device->backend->buffer_free(p->ctx, &p->buffers[i]);
    geul_free(p->ctx, p->items);
    geul_free(p->ctx, p->buffers);
    geul_free(p->ctx, p->adapter.pairs);
    geul_context_free(p->leaves);
    *p = (struct geul_params){0};
}

enum geul_status geul_params_clear(struct geul_params *p)
{
    enum geul_status status = GEUL_OK;
    for (int i = 0; status == GEUL_OK && p->adds && i < p->n; i++)
        status = clear(p->ctx, p->items[i].gradient);
    return status;
}

struct geul_tensor *geul_params_saved(const struct geul_params *p, int i, char *name)
{
    static const char *const prefix[] = {"", "state0.", "state1."};
    for (int k = 0; k < p->n; k++)
        for (int part = 0; part < 3; part++) {
            const struct geul_param *item = &p->items[k];
            struct geul_tensor *t = part ? item->states[part - 1] : item->weight;
            if (!t || i-- > 0)
                continue;
            snprintf(name, GEUL_MAX_NAME, "%s%.56s", prefix[part], item->weight->name);
            return t;
        }
    return NULL;
}
