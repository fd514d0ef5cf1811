/* export.c: the result of a run: a model as a GGUF file with its matrices in a plain type, or an adapter. */
#include "train/trainer.h"

#include "core/gguf.h"
#include "models/lora.h"

#include <string.h>

/* ------------------------------------------------------------------------------------ models -- */

void geul_trainer_copy_keys(const struct geul_trainer *t, struct geul_gguf_writer *w, enum geul_type type)
{
    static const char *const left_out[] = {"geul.train.", "quantize.", "split.", "general.file_type",
                                           "general.quantization_version"};
    const struct geul_gguf *g = t->model->file;
    for (int64_t i = 0; i < geul_gguf_key_count(g); i++) {
        const char *name = geul_gguf_key_name(g, i);
        bool copied = true;
        for (size_t k = 0; k < sizeof left_out / sizeof *left_out; k++)
            copied &= strncmp(name, left_out[k], strlen(left_out[k])) != 0;
        if (copied)
            geul_gguf_copy_key(w, g, i);
    }
    /* llama.cpp's numbers */
    geul_gguf_set_u32(w, "general.file_type", type == GEUL_TYPE_F16 ? 1 : type == GEUL_TYPE_BF16 ? 32 : 0);
}

/* Writes a weight row by row in the type it was declared with. */
static enum geul_status write_weight(struct geul_trainer *t, struct geul_gguf_writer *w, const struct geul_tensor *x,
                                     enum geul_type type)
{
    size_t cols = (size_t)geul_cols(x), row_bytes = cols * sizeof(float), out_bytes = cols * geul_type_bytes(type);
    float *row = geul_alloc(t->ctx, cols, sizeof *row);
    void *out = geul_alloc(t->ctx, out_bytes, 1);
    for (int64_t r = 0; row && out && r < geul_rows(x) && geul_gguf_writer_status(w) == GEUL_OK; r++) {
        x->buffer->device->backend->download(x->buffer, (const char *)x->data + (size_t)r * row_bytes, row, row_bytes);
        geul_encode(type, row, out, (int64_t)cols);
        geul_gguf_write_data(w, out, out_bytes);
    }
    geul_free(t->ctx, row);
    geul_free(t->ctx, out);
    return row && out ? geul_gguf_writer_status(w) : GEUL_ERROR_MEMORY;
}

static enum geul_status export_model(struct geul_trainer *t, const char *path, enum geul_type type)
{
    if (type != GEUL_TYPE_F32 && type != GEUL_TYPE_F16 && type != GEUL_TYPE_BF16)
        return geul_fail(t->ctx, GEUL_ERROR_ARGUMENT,
                         "a trained model is written as f32, f16 or bf16, not as %s; "
                         "quantize the result to make it smaller",
                         geul_type_name(type));
    struct geul_gguf_writer *w = geul_gguf_writer_new(t->ctx, path);
    if (!w)
        return geul_error_status(t->ctx);
    geul_trainer_copy_keys(t, w, type);
    /* All weights are trained here, so the parameters are the model, in neox.def's order. Vectors stay float32. */
    for (int i = 0; i < t->params.n; i++) {
        const struct geul_tensor *x = t->params.items[i].weight;
        geul_gguf_declare_tensor(w, x->name, x->n_dims == 1 ? GEUL_TYPE_F32 : type, x->n_dims, x->shape);
    }
    enum geul_status status = GEUL_OK;
    for (int i = 0; i < t->params.n && status == GEUL_OK; i++) {
        const struct geul_tensor *x = t->params.items[i].weight;
        status = write_weight(t, w, x, x->n_dims == 1 ? GEUL_TYPE_F32 : type);
    }
    if (status == GEUL_OK)
        return geul_gguf_writer_commit(w);
    geul_gguf_writer_abandon(w);
    return status;
}

/* ---------------------------------------------------------------------------------- adapters -- */

/* x's values on the host; NULL when memory is short. Free with geul_free(). */
static float *fetch(struct geul_trainer *t, const struct geul_tensor *x)
{
    size_t bytes = geul_tensor_bytes(x);
    float *values = geul_alloc(t->ctx, bytes, 1);
    if (values)
        x->buffer->device->backend->download(x->buffer, x->data, values, bytes);
    return values;
}

struct geul_lora *geul_trainer_lora(struct geul_trainer *t)
{
    const struct geul_lora_options *lora = &t->options.lora;
    const struct geul_model_shape *shape = &t->model->neox.shape;
    struct geul_lora *d = geul_lora_new(t->ctx, shape->n_layers * GEUL_NEOX_TARGETS);
    if (!d)
        return NULL;
    d->alpha = lora->alpha;
    d->rslora = lora->rslora;
    d->made_for = geul_lora_shape_of(shape);
    const char *name = t->model->name, *text = t->model->template_text;
    bool ok = true;
    if (name && *name)
        ok = (d->base = geul_lora_copy_text(t->ctx, d, name, strlen(name))) != NULL;
    if (ok && text)
        ok = (d->template_text = geul_lora_copy_text(t->ctx, d, text, strlen(text))) != NULL;
    /* Rows of B are in GGUF's order already (all of Q, then K, then V), as the model's are. */
    for (int i = 0; ok && i < shape->n_layers * GEUL_NEOX_TARGETS; i++) {
        const struct geul_neox_pair *pair = &t->params.adapter.pairs[i];
        if (!pair->a)
            continue;
        struct geul_lora_pair s = {.layer = i / GEUL_NEOX_TARGETS,
                                   .target = (enum geul_neox_target)(i % GEUL_NEOX_TARGETS),
                                   .rank = lora->rank,
                                   .n = pair->b->shape[0],
                                   .k = pair->a->shape[1]};
        float *to_a, *to_b, *a = fetch(t, pair->a), *b = fetch(t, pair->b);
        ok = a && b && geul_lora_add_pair(t->ctx, d, &s, &to_a, &to_b) == GEUL_OK;
        if (ok) {
            memcpy(to_a, a, geul_tensor_bytes(pair->a));
            memcpy(to_b, b, geul_tensor_bytes(pair->b));
        }
        geul_free(t->ctx, a);
        geul_free(t->ctx, b);
    }
    if (ok)
        return d;
    geul_lora_free(d);
    return NULL;
}

static enum geul_status export_lora(struct geul_trainer *t, const char *path)
{
    struct geul_lora *d = geul_trainer_lora(t);
    enum geul_status status = d ? geul_lora_save(t->ctx, d, path) : geul_error_status(t->ctx);
    geul_lora_free(d);
    return status;
}

enum geul_status geul_trainer_export(struct geul_trainer *t, const char *path, enum geul_type type)
{
    geul_error_clear(t->ctx);
    return t->options.lora.rank ? export_lora(t, path) : export_model(t, path, type);
}
