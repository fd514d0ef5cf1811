/* model_adapters.c: adding adapters to a loaded model; see geul_model_add_adapter() in geul.h. */
#include "models/adapter.h"
#include "models/model.h"

#include <math.h>
#include <string.h>

/* Makes room for one more adapter in both lists of m. When the second fails, the first is merely larger than needed. */
static bool make_room(struct geul_model *m)
{
    size_t n = (size_t)m->neox.n_adapters + 1;
    struct geul_adapter **adapters = geul_realloc(m->ctx, m->adapters, n, sizeof *adapters);
    if (!adapters)
        return false;
    m->adapters = adapters;
    const struct geul_neox_adapter **views = geul_realloc(m->ctx, m->neox_adapters, n, sizeof *views);
    if (!views)
        return false;
    m->neox_adapters = views;
    m->neox.adapters = views;
    return true;
}

/* The template that an adapter was trained with (text, NULL: none) replaces that of the model. */
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

/* Whether a trainer owns the model's adapter list. */
static bool is_trained(const struct geul_model *model)
{
    return model->neox.n_adapters > 0 && model->neox.adapters != model->neox_adapters;
}

enum geul_status geul_model_add_lora(struct geul_context *ctx, struct geul_model *m, const struct geul_lora *d,
                                     float scale, const char *where)
{
    if (!isfinite(scale))
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "%s: the scale %g is not a finite number", where, (double)scale);
    if (is_trained(m))
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "%s: the model is being trained and takes no other adapter", where);
    enum geul_status status = geul_lora_check_shape(ctx, d, &m->neox.shape, where);
    if (status != GEUL_OK)
        return status;
    struct geul_adapter *adapter = geul_adapter_new(ctx, m->neox.shape.n_layers);
    if (!adapter)
        return GEUL_ERROR_MEMORY;
    for (int i = 0; status == GEUL_OK && i < d->n_pairs; i++)
        status = geul_adapter_add_pair(ctx, adapter, geul_model_layer_device(m, d->pairs[i].layer), &d->pairs[i],
                                       scale * geul_lora_pair_scale(d, d->pairs[i].rank));
    if (status == GEUL_OK && (!make_room(m) || take_template(m, d->template_text) != GEUL_OK))
        status = m->ctx == ctx ? GEUL_ERROR_MEMORY : geul_fail_from(ctx, m->ctx);
    if (status != GEUL_OK) {
        geul_adapter_free(adapter);
        return status;
    }
    /* The template changes last, when nothing else can fail: a failure leaves the model as it was. */
    m->adapters[m->neox.n_adapters] = adapter;
    m->neox_adapters[m->neox.n_adapters++] = geul_adapter_view(adapter);
    return GEUL_OK;
}

enum geul_status geul_model_add_adapter(struct geul_context *ctx, struct geul_model *model, const char *path,
                                        float scale)
{
    geul_error_clear(ctx);
    struct geul_lora *d = geul_lora_read(ctx, path);
    if (!d)
        return geul_error_status(ctx);
    enum geul_status status = geul_model_add_lora(ctx, model, d, scale, path);
    geul_lora_free(d);
    return status;
}

int geul_model_adapter_count(const struct geul_model *model)
{
    return model->neox.n_adapters;
}
