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

/* A tensor of the result. */
struct output {
    char name[GEUL_MAX_NAME];
    const struct geul_tensor *x; /* NULL: zeros, a bias that the model lacks and llama.cpp asks for */
    int n_dims;
    int64_t shape[2];
    enum geul_type type;
};

/* Fills in number i of neox.def's order; false: it is not written, because the model's file neither has it nor says
 * that it should. Matrices are written as `type`, vectors as float32. Where embeddings are tied the output is the
 * embedding.
 */
static bool find_output(const struct geul_trainer *t, int64_t i, enum geul_type type, struct output *o)
{
    const struct geul_neox *m = &t->model->neox;
    int layer;
    const struct geul_neox_tensor_info *info = geul_neox_tensor_at(m->shape.n_layers, i, &layer);
    geul_neox_tensor_name(o->name, info, layer);
    o->x = geul_neox_weight(m, info, layer);
    o->n_dims = geul_neox_tensor_dims(info, &m->shape, o->shape);
    o->type = o->n_dims == 1 ? GEUL_TYPE_F32 : type;
    const char *key = info->when == GEUL_NEOX_WHEN_UNTIED ? GEUL_NEOX_KEY_TIED : GEUL_NEOX_KEY_BIAS;
    return geul_gguf_find_tensor(t->model->file, o->name) ||
           (info->when != GEUL_NEOX_WHEN_ALWAYS && geul_gguf_has(t->model->file, key));
}

/* Writes a tensor row by row. */
static enum geul_status write_output(struct geul_trainer *t, struct geul_gguf_writer *w, const struct output *o)
{
    const struct geul_tensor *x = o->x;
    const enum geul_type type = o->type;
    int64_t rows = o->n_dims == 1 ? 1 : o->shape[0];
    size_t cols = (size_t)o->shape[o->n_dims - 1], row_bytes = cols * sizeof(float);
    size_t out_bytes = cols * geul_type_bytes(type);
    float *row = geul_alloc(t->ctx, cols, sizeof *row); /* zeros */
    void *out = geul_alloc(t->ctx, out_bytes, 1);
    int64_t lost = 0;
    enum geul_status status = row && out ? GEUL_OK : GEUL_ERROR_MEMORY;
    for (int64_t r = 0; status == GEUL_OK && r < rows; r++) {
        const char *from = x ? (const char *)x->data + (size_t)r * row_bytes : NULL;
        if (x && (status = x->buffer->device->backend->download(t->ctx, x->buffer, from, row, row_bytes)) != GEUL_OK)
            break;
        geul_encode(type, row, out, (int64_t)cols);
        lost += geul_count_lost(type, row, out, (int64_t)cols);
        geul_gguf_write_data(w, out, out_bytes);
        status = geul_gguf_writer_status(w);
    }
    if (lost > 0)
        geul_log(t->ctx, GEUL_LOG_WARN, "%s: %lld trained values are NaN, infinite or too large for %s", o->name,
                 (long long)lost, geul_type_name(type));
    geul_free(t->ctx, row);
    geul_free(t->ctx, out);
    return status;
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
    /* All weights are trained here, so what is written is the model. */
    struct output o;
    const int64_t n = geul_neox_tensor_count(t->model->neox.shape.n_layers);
    for (int64_t i = 0; i < n; i++)
        if (find_output(t, i, type, &o))
            geul_gguf_declare_tensor(w, o.name, o.type, o.n_dims, o.shape);
    enum geul_status status = GEUL_OK;
    for (int64_t i = 0; i < n && status == GEUL_OK; i++)
        if (find_output(t, i, type, &o))
            status = write_output(t, w, &o);
    if (status == GEUL_OK)
        return geul_gguf_writer_commit(w);
    geul_gguf_writer_abandon(w);
    return status;
}

/* ---------------------------------------------------------------------------------- adapters -- */

/* x's values on the host; NULL (recorded) on failure. Free with geul_free(). */
static float *fetch(struct geul_trainer *t, const struct geul_tensor *x)
{
    size_t bytes = geul_tensor_bytes(x);
    float *values = geul_alloc(t->ctx, bytes, 1);
    if (!values || x->buffer->device->backend->download(t->ctx, x->buffer, x->data, values, bytes) == GEUL_OK)
        return values;
    geul_free(t->ctx, values);
    return NULL;
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
