/* adapter.c: see adapter.h. */
#include "models/adapter.h"

#include <math.h>
#include <string.h>

struct geul_adapter {
    struct geul_context *own; /* holds the leaves, their buffers and this */
    const struct geul_model *model;
    struct geul_neox_adapter view;
    struct geul_buffer *buffers; /* of every A and B that was set */
    int n_buffers;
};

struct geul_adapter *geul_adapter_new(struct geul_context *ctx, const struct geul_model *model)
{
    size_t n = (size_t)model->neox.shape.n_layers * GEUL_NEOX_TARGETS;
    struct geul_context *own = geul_context_new_like(ctx);
    struct geul_adapter *adapter = own ? geul_arena(own, 1, sizeof *adapter) : NULL;
    if (adapter) {
        adapter->own = own;
        adapter->model = model;
        adapter->view.scale = 1;
        adapter->view.pairs = geul_arena(own, n, sizeof *adapter->view.pairs);
        adapter->buffers = adapter->view.pairs ? geul_arena(own, 2 * n, sizeof *adapter->buffers) : NULL;
    }
    if (adapter && adapter->buffers)
        return adapter;
    geul_context_free(own);
    return geul_fail_memory(ctx, n * sizeof *adapter->view.pairs);
}

void geul_adapter_free(struct geul_adapter *adapter)
{
    if (!adapter)
        return;
    for (int i = 0; i < adapter->n_buffers; i++)
        adapter->buffers[i].device->backend->buffer_free(adapter->own, &adapter->buffers[i]);
    geul_context_free(adapter->own);
}

/* A leaf (rows, cols) with these values on the layer's device; NULL with the reason in adapter's own context. */
static struct geul_tensor *place(struct geul_adapter *adapter, const struct geul_adapter_source *s, char half,
                                 const float *values, int64_t rows, int64_t cols)
{
    struct geul_device *device = geul_model_layer_device(adapter->model, s->layer);
    struct geul_buffer *b = &adapter->buffers[adapter->n_buffers];
    size_t bytes = (size_t)(rows * cols) * sizeof *values;
    if (device->backend->buffer_new(adapter->own, device, bytes, b) != GEUL_OK)
        return NULL;
    adapter->n_buffers++;
    device->backend->upload(b, b->base, values, bytes);
    char name[GEUL_MAX_NAME];
    geul_adapter_tensor_name(name, s->layer, s->target, half);
    return geul_leaf(adapter->own, GEUL_TYPE_F32, 2, (int64_t[]){rows, cols}, name, b, b->base);
}

enum geul_status geul_adapter_set(struct geul_context *ctx, struct geul_adapter *adapter,
                                  const struct geul_adapter_source *s, float scale)
{
    struct geul_neox_pair *pair = &adapter->view.pairs[s->layer * GEUL_NEOX_TARGETS + (int)s->target];
    if (pair->a)
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "%s of layer %d is adapted twice", geul_neox_target_name(s->target),
                         s->layer);
    int64_t n = s->n * s->rank;
    float *b = geul_alloc(ctx, (size_t)n, sizeof *b); /* pairs have scales of their own, the view has only one */
    if (!b)
        return GEUL_ERROR_MEMORY;
    for (int64_t i = 0; i < n; i++)
        b[i] = s->b[i] * scale;
    struct geul_tensor *at = place(adapter, s, 'a', s->a, s->rank, s->k);
    struct geul_tensor *bt = at ? place(adapter, s, 'b', b, s->n, s->rank) : NULL;
    geul_free(ctx, b);
    if (!bt)
        return geul_fail_from(ctx, adapter->own);
    pair->a = at;
    pair->b = bt;
    return GEUL_OK;
}

/* ------------------------------------------------------------------------------------------------------- models -- */

/* Makes room for one adapter more in the lists of model. */
static bool make_room(struct geul_model *m)
{
    size_t n = (size_t)m->neox.n_adapters + 1;
    struct geul_adapter **adapters = geul_realloc(m->ctx, m->adapters, n, sizeof *adapters);
    if (!adapters)
        return false;
    m->adapters = adapters;
    const struct geul_neox_adapter **views = geul_realloc(m->ctx, m->adapter_views, n, sizeof *views);
    if (!views)
        return false;
    m->adapter_views = views;
    m->neox.adapters = views;
    return true;
}

/* The template that an adapter was trained with goes before that of the model. */
static enum geul_status take_template(struct geul_model *m, const char *text)
{
    char *copy = text ? geul_strndup(m->ctx, text, strlen(text)) : NULL;
    if (!text)
        return GEUL_OK;
    if (!copy)
        return GEUL_ERROR_MEMORY;
    geul_free(m->ctx, m->template_text);
    m->template_text = copy;
    return GEUL_OK;
}

/* Whether somebody trains the model's adapter, whose list is then not the model's own. */
static bool is_trained(const struct geul_model *model)
{
    return model->neox.n_adapters > 0 && model->neox.adapters != model->adapter_views;
}

enum geul_status geul_model_attach_adapter(struct geul_context *ctx, struct geul_model *m,
                                           const struct geul_adapter_data *d, float scale, const char *where)
{
    if (!isfinite(scale))
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "%s: a scale of %g is no number", where, (double)scale);
    if (is_trained(m))
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "%s: the model is under training and takes no other adapter", where);
    enum geul_status status = geul_adapter_data_fits(ctx, d, &m->neox.shape, where);
    if (status != GEUL_OK)
        return status;
    struct geul_adapter *adapter = geul_adapter_new(ctx, m);
    if (!adapter)
        return GEUL_ERROR_MEMORY;
    for (int i = 0; status == GEUL_OK && i < d->n_sources; i++)
        status = geul_adapter_set(ctx, adapter, &d->sources[i], scale * geul_adapter_scale(d, d->sources[i].rank));
    if (status == GEUL_OK && (!make_room(m) || take_template(m, d->template_text) != GEUL_OK))
        status = m->ctx == ctx ? GEUL_ERROR_MEMORY : geul_fail_from(ctx, m->ctx);
    if (status != GEUL_OK) {
        geul_adapter_free(adapter);
        return status;
    }
    m->adapters[m->neox.n_adapters] = adapter;
    m->adapter_views[m->neox.n_adapters++] = &adapter->view;
    return GEUL_OK;
}

enum geul_status geul_model_add_adapter(struct geul_context *ctx, struct geul_model *model, const char *path,
                                        float scale)
{
    geul_error_clear(ctx);
    struct geul_adapter_data *d = geul_adapter_read(ctx, path);
    if (!d)
        return geul_error_status(ctx);
    enum geul_status status = geul_model_attach_adapter(ctx, model, d, scale, path);
    geul_adapter_data_free(d);
    return status;
}

int geul_model_adapters(const struct geul_model *model)
{
    return model->neox.n_adapters;
}
