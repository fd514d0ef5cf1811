/* adapter.c: see adapter.h. */
#include "models/adapter.h"

#include "backends/backend.h"

struct geul_adapter {
    struct geul_context *own; /* holds the leaves, their buffers and this */
    struct geul_neox_adapter view;
    struct geul_buffer *buffers; /* of every A and B that was set */
    int n_buffers;
};

struct geul_adapter *geul_adapter_new(struct geul_context *ctx, int n_layers)
{
    size_t n = (size_t)n_layers * GEUL_NEOX_TARGETS;
    struct geul_context *own = geul_context_new_like(ctx);
    struct geul_adapter *adapter = own ? geul_arena(own, 1, sizeof *adapter) : NULL;
    if (adapter) {
        adapter->own = own;
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

/* A leaf (rows, cols) with these values on device; NULL with the reason in adapter->own. */
static struct geul_tensor *upload(struct geul_adapter *adapter, struct geul_device *device,
                                  const struct geul_lora_pair *s, char half, const float *values, int64_t rows,
                                  int64_t cols)
{
    struct geul_buffer *b = &adapter->buffers[adapter->n_buffers];
    size_t bytes = (size_t)(rows * cols) * sizeof *values;
    if (geul_device_buffer(adapter->own, device, bytes, "half of an adapter's pair", b) != GEUL_OK)
        return NULL;
    adapter->n_buffers++;
    if (device->backend->upload(adapter->own, b, b->base, values, bytes) != GEUL_OK)
        return NULL;
    char name[GEUL_MAX_NAME];
    geul_adapter_tensor_name(name, s->layer, s->target, half);
    return geul_leaf(adapter->own, GEUL_TYPE_F32, 2, (int64_t[]){rows, cols}, name, b, b->base);
}

enum geul_status geul_adapter_add_pair(struct geul_context *ctx, struct geul_adapter *adapter,
                                       struct geul_device *device, const struct geul_lora_pair *s, float scale)
{
    struct geul_neox_pair *pair = &adapter->view.pairs[s->layer * GEUL_NEOX_TARGETS + (int)s->target];
    if (pair->a)
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "%s of layer %d is adapted twice", geul_neox_target_name(s->target),
                         s->layer);
    int64_t n = s->n * s->rank;
    /* Pairs may differ in scale (alpha / rank), the view has one for all, which is 1: the scale goes into B. */
    float *b = geul_alloc(ctx, (size_t)n, sizeof *b);
    if (!b)
        return GEUL_ERROR_MEMORY;
    for (int64_t i = 0; i < n; i++)
        b[i] = s->b[i] * scale;
    struct geul_tensor *at = upload(adapter, device, s, 'a', s->a, s->rank, s->k);
    struct geul_tensor *bt = at ? upload(adapter, device, s, 'b', b, s->n, s->rank) : NULL;
    geul_free(ctx, b);
    if (!bt)
        return geul_fail_from(ctx, adapter->own);
    pair->a = at; /* both or none: the graph looks at a alone */
    pair->b = bt;
    return GEUL_OK;
}

const struct geul_neox_adapter *geul_adapter_view(const struct geul_adapter *adapter)
{
    return &adapter->view;
}
