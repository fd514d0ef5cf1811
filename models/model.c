/* model.c: loading: maps the file, puts every weight on its device, reads tokenizer and template. */
#include "models/model.h"

#include "core/bytes.h"
#include "core/os.h"
#include "models/adapter.h"
#include "models/weights.h"
#include "tokenizer/tokenizer.h"

#include <string.h>

const char *geul_version(void)
{
    return GEUL_VERSION;
}

struct geul_device *geul_model_layer_device(const struct geul_model *m, int layer)
{
    return m->devices[m->placement.layers[layer]];
}

static struct geul_device *device_of(const struct geul_model *m, const struct geul_gguf_tensor *t, int layer)
{
    return m->devices[geul_fit_device(&m->placement, m->tied, t, layer)];
}

/* Allocates b on device and fills it with t's values as float32. */
static enum geul_status decode_weight(struct geul_model *m, struct geul_device *device,
                                      const struct geul_gguf_tensor *t, struct geul_buffer *b)
{
    size_t bytes, cols = (size_t)t->shape[t->n_dims - 1], row_bytes = cols * sizeof(float);
    if (!geul_shape_bytes(GEUL_TYPE_F32, t->n_dims, t->shape, &bytes))
        return geul_fail(m->own, GEUL_ERROR_MEMORY, "%s is too large as float32", t->name);
    enum geul_status status = geul_device_buffer(m->own, device, bytes, t->name, b);
    if (status != GEUL_OK)
        return status;
    if (b->host)
        geul_os_prefer_large_pages(b->base, bytes);
    float *row = geul_alloc(m->own, cols, sizeof *row);
    if (!row) {
        device->backend->buffer_free(m->own, b);
        return GEUL_ERROR_MEMORY;
    }
    size_t from = cols / (size_t)geul_type_block(t->type) * geul_type_bytes(t->type);
    for (size_t r = 0; status == GEUL_OK && row_bytes && r < bytes / row_bytes; r++) {
        geul_decode(t->type, (const uint8_t *)t->data + r * from, row, (int64_t)cols);
        status = device->backend->upload(m->own, b, (uint8_t *)b->base + r * row_bytes, row, row_bytes);
    }
    geul_free(m->own, row);
    if (status != GEUL_OK) {
        device->backend->buffer_free(m->own, b);
        return status;
    }
    geul_os_map_discard(t->data, t->bytes); /* not read again: memory need not hold the weight twice */
    return GEUL_OK;
}

/* Where a weight's values are. */
struct held {
    struct geul_buffer *buffer;
    void *data;
};

/* Finds or makes the memory of t's values as m->weights says. Mapped weights are used in place where the device can
 * read host memory, otherwise copied to it in the file's type. */
static enum geul_status hold_weight(struct geul_model *m, struct geul_device *device, const struct geul_gguf_tensor *t,
                                    struct held *held)
{
    if (m->weights == GEUL_WEIGHTS_MAPPED && !device->backend->buffer_wrap)
        return geul_weights_upload_put(m->upload, t, &held->buffer, &held->data);
    struct geul_buffer *b = held->buffer = &m->buffers[m->n_buffers];
    enum geul_status status = GEUL_OK;
    if (m->weights == GEUL_WEIGHTS_NONE)
        *b = (struct geul_buffer){.device = device};
    else if (m->weights == GEUL_WEIGHTS_OWN)
        status = decode_weight(m, device, t, b);
    else /* read-only; no operation writes to a mapped weight */
        status = device->backend->buffer_wrap(m->own, device, (void *)(uintptr_t)t->data, t->bytes, b);
    if (status != GEUL_OK)
        return status;
    m->n_buffers++; /* from here on geul_model_free() frees it */
    held->data = b->base;
    return GEUL_OK;
}

/* A leaf for a tensor of the file. */
static struct geul_tensor *make_weight(void *user, const struct geul_gguf_tensor *t, int layer)
{
    struct geul_model *m = user;
    struct held held;
    if (hold_weight(m, device_of(m, t, layer), t, &held) != GEUL_OK)
        return NULL;
    enum geul_type type = m->weights == GEUL_WEIGHTS_MAPPED ? t->type : GEUL_TYPE_F32;
    return geul_leaf(m->own, type, t->n_dims, t->shape, t->name, held.buffer, held.data);
}

/* A rehearsal of make_weight(), which tells m->upload what will come; dry is its context. */
struct rehearsal {
    struct geul_model *m;
    struct geul_context *dry;
};

static struct geul_tensor *expect_weight(void *user, const struct geul_gguf_tensor *t, int layer)
{
    struct rehearsal *r = user;
    struct geul_device *device = device_of(r->m, t, layer);
    if (!device->backend->buffer_wrap)
        geul_weights_upload_expect(r->m->upload, device, t->bytes);
    return geul_leaf(r->dry, t->type, t->n_dims, t->shape, t->name, NULL, NULL);
}

/* Makes m->upload where a device needs it. */
static enum geul_status rehearse(struct geul_model *m)
{
    bool needed = false;
    for (int d = 0; d < m->n_devices; d++)
        needed |= !m->devices[d]->backend->buffer_wrap;
    if (!needed || m->weights != GEUL_WEIGHTS_MAPPED)
        return GEUL_OK;
    m->upload = geul_weights_upload_new(m->own, geul_gguf_tensor_count(m->file), m->buffers, &m->n_buffers);
    struct rehearsal r = {m, m->upload ? geul_context_new_like(m->own) : NULL};
    if (!r.dry) {
        geul_fail_memory(m->own, sizeof *m);
        return GEUL_ERROR_MEMORY;
    }
    struct geul_neox neox = {0};
    enum geul_status status = geul_neox_bind(r.dry, m->file, &neox, expect_weight, &r, false);
    if (status != GEUL_OK)
        geul_fail_from(m->own, r.dry);
    geul_context_free(r.dry);
    return status;
}

/* Every weight on its device. */
static enum geul_status load_weights(struct geul_model *m)
{
    enum geul_status status = rehearse(m);
    if (status == GEUL_OK)
        status = geul_neox_bind(m->own, m->file, &m->neox, make_weight, m, m->weights != GEUL_WEIGHTS_MAPPED);
    if (status == GEUL_OK && m->upload)
        status = geul_weights_upload_finish(m->upload);
    geul_weights_upload_free(m->upload);
    m->upload = NULL;
    return status;
}

/* Chat templates in files are Jinja programs; the three families are recognized by words that only they use. */
static const char *known_template(const char *text, size_t n)
{
    static const struct {
        const char *mark, *name;
    } marks[] = {{"### 질문:", "koalpaca"}, {"### 명령어:", "kullm"}, {"정답:", "kgoat"}};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        size_t length = strlen(marks[i].mark);
        for (size_t at = 0; at + length <= n; at++)
            if (memcmp(text + at, marks[i].mark, length) == 0)
                return marks[i].name;
    }
    return NULL;
}

/* Fills name and template_text from the file's keys. */
static enum geul_status read_labels(struct geul_context *ctx, struct geul_model *m)
{
    const char *s;
    size_t n;
    bool named = geul_gguf_string(m->file, "general.name", &s, &n);
    m->name = geul_strndup(ctx, named ? s : "", named ? n : 0);
    if (!m->name)
        return GEUL_ERROR_MEMORY;
    if (geul_gguf_string(m->file, "geul.template", &s, &n)) {
        m->template_text = geul_strndup(ctx, s, n);
        return m->template_text ? GEUL_OK : GEUL_ERROR_MEMORY;
    }
    if (!geul_gguf_string(m->file, "tokenizer.chat_template", &s, &n))
        return GEUL_OK;
    const char *known = known_template(s, n);
    if (!known) {
        geul_log(ctx, GEUL_LOG_WARN,
                 "%s: its chat template is a program, which geul does not run; name one of the built-in "
                 "templates or write one with {instruction} and {output}",
                 geul_gguf_path(m->file));
        return GEUL_OK;
    }
    m->template_text = geul_strndup(ctx, known, strlen(known));
    return m->template_text ? GEUL_OK : GEUL_ERROR_MEMORY;
}

/* ----------------------------------------------------------------------------------- devices -- */

/* Everything on the first device, but layers from first_layers on, on the last. */
static enum geul_status place_by_layer(struct geul_context *ctx, struct geul_model *m, int first_layers)
{
    struct geul_model_shape shape;
    enum geul_status status = geul_neox_read_shape(ctx, m->file, &shape);
    if (status != GEUL_OK)
        return status;
    m->placement.layers = geul_alloc(ctx, (size_t)shape.n_layers, sizeof *m->placement.layers);
    for (int i = first_layers < 0 ? 0 : first_layers; m->placement.layers && i < shape.n_layers; i++)
        m->placement.layers[i] = m->n_devices - 1;
    return m->placement.layers ? GEUL_OK : GEUL_ERROR_MEMORY;
}

/* Where what lies, for those who want notes. */
static void tell_placement(struct geul_context *ctx, const struct geul_fit *fit)
{
    char b[3][32];
    for (int d = 1; d < fit->n && fit->placement.n > 0; d++) {
        const struct geul_fit_device *f = &fit->at[d];
        geul_log(ctx, GEUL_LOG_INFO, "%s (%s): %d of %d layers%s; weights %s, cache %s, working memory %s",
                 f->device->name, f->device->id, f->n_layers, fit->shape.n_layers, f->output ? " and the output" : "",
                 geul_bytes_text(f->weights, b[0], sizeof b[0]), geul_bytes_text(f->cache, b[1], sizeof b[1]),
                 geul_bytes_text(f->working, b[2], sizeof b[2]));
    }
    if (fit->placement.n == 0)
        geul_log(ctx, GEUL_LOG_WARN, "nothing of the model fits on %s, with a cache of %d positions; using the CPU",
                 fit->at[1].device->name, fit->n_context);
}

/* Chooses what goes where on m's devices. */
static enum geul_status place_by_plan(struct geul_context *ctx, struct geul_model *m,
                                      const struct geul_model_options *o)
{
    struct geul_devices devices = {.n = m->n_devices};
    struct geul_fit fit;
    memcpy(devices.at, m->devices, sizeof devices.at);
    enum geul_status status = geul_fit_plan(ctx, m->file, &devices, o, &fit);
    if (status == GEUL_OK && !fit.fits)
        status = geul_fit_fail(ctx, &fit);
    if (status == GEUL_OK) {
        tell_placement(ctx, &fit);
        m->placement = fit.placement;
    } else {
        geul_fit_free(ctx, &fit);
    }
    return status;
}

/* The devices that m has opened become m's, all of them or the CPU alone: the memory of the others others may need. */
static void take_devices(struct geul_context *ctx, struct geul_model *m, bool all)
{
    while (!all && m->own_devices.n > 1)
        geul_device_close(ctx, m->own_devices.at[--m->own_devices.n]);
    m->n_devices = m->own_devices.n;
    memcpy(m->devices, m->own_devices.at, sizeof m->devices);
}

/* Opens the devices of the options, and chooses what goes where. Where devices and layers were left to the library, a
 * device that cannot be used is not a failure. */
static enum geul_status place_by_options(struct geul_context *ctx, struct geul_model *m,
                                         const struct geul_model_options *o)
{
    bool none = o->n_gpu_layers == GEUL_LAYERS_NONE;
    bool chooses = o->devices && strcmp(o->devices, "auto") == 0 && geul_fit_chooses(o);
    enum geul_status status = geul_devices_open(ctx, none ? NULL : o->devices, o->n_threads, &m->own_devices);
    take_devices(ctx, m, true);
    if (status != GEUL_OK || m->n_devices == 1)
        return status == GEUL_OK ? place_by_layer(ctx, m, 0) : status;
    status = place_by_plan(ctx, m, o);
    if (status != GEUL_OK && (!chooses || status == GEUL_ERROR_FORMAT))
        return status;
    if (status != GEUL_OK) {
        geul_log(ctx, GEUL_LOG_WARN, "using the CPU: %s", geul_error(ctx));
        geul_error_clear(ctx);
    }
    if (status != GEUL_OK || m->placement.n == 0)
        take_devices(ctx, m, false);
    return status == GEUL_OK ? GEUL_OK : place_by_layer(ctx, m, 0);
}

/* ----------------------------------------------------------------------------------- loading -- */

/* Binds everything of the open file into m; on failure m is partly filled and ctx has the reason. */
static enum geul_status load(struct geul_context *ctx, struct geul_model *m, const char *path,
                             const struct geul_model_options *options)
{
    m->tied = geul_fit_tied(m->file);
    /* Every tensor of the file is bound at most once. Tensors keep pointers into this array: it never moves. */
    m->buffers = geul_alloc(ctx, (size_t)geul_gguf_tensor_count(m->file), sizeof *m->buffers);
    m->own = geul_context_new_like(ctx);
    if (!m->buffers || !m->own) {
        geul_fail_memory(ctx, sizeof *m);
        return GEUL_ERROR_MEMORY;
    }
    enum geul_status status = load_weights(m);
    if (status != GEUL_OK)
        return geul_fail_from(ctx, m->own);
    status = read_labels(ctx, m);
    if (status != GEUL_OK || options->no_tokenizer || !geul_gguf_has_tokenizer(m->file))
        return status;
    m->tokenizer = geul_tokenizer_from_gguf(ctx, m->file, options->regex);
    if (!m->tokenizer)
        return geul_error_status(ctx);
    if (geul_tokenizer_size(m->tokenizer) > m->neox.shape.n_vocab)
        return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: the tokenizer has %d ids but the embedding only %d rows", path,
                         geul_tokenizer_size(m->tokenizer), m->neox.shape.n_vocab);
    return GEUL_OK;
}

struct geul_model *geul_model_load_as(struct geul_context *ctx, const char *path,
                                      const struct geul_model_options *options, struct geul_device *const *devices,
                                      int n_devices, int first_layers, enum geul_weights weights)
{
    static const struct geul_model_options defaults = {0};
    options = options ? options : &defaults;
    geul_error_clear(ctx);
    struct geul_model *m = geul_alloc(ctx, 1, sizeof *m);
    if (!m)
        return NULL;
    m->ctx = ctx;
    m->weights = weights;
    m->n_devices = n_devices;
    for (int d = 0; d < n_devices && d < GEUL_MAX_DEVICES; d++)
        m->devices[d] = devices[d];
    m->file = geul_gguf_open(ctx, path);
    bool ok = m->file != NULL;
    if (ok && n_devices == 0)
        ok = place_by_options(ctx, m, options) == GEUL_OK;
    else if (ok && first_layers == GEUL_LAYERS_BY_OPTIONS)
        ok = place_by_plan(ctx, m, options) == GEUL_OK;
    else if (ok)
        ok = place_by_layer(ctx, m, first_layers) == GEUL_OK;
    if (!ok || load(ctx, m, path, options) != GEUL_OK) {
        geul_model_free(m);
        return NULL;
    }
    return m;
}

struct geul_model *geul_model_load_on(struct geul_context *ctx, const char *path,
                                      const struct geul_model_options *options, struct geul_device *const *devices,
                                      int n_devices, int first_layers)
{
    return geul_model_load_as(ctx, path, options, devices, n_devices, first_layers, GEUL_WEIGHTS_MAPPED);
}

struct geul_model *geul_model_load(struct geul_context *ctx, const char *path, const struct geul_model_options *options)
{
    return geul_model_load_on(ctx, path, options, NULL, 0, 0);
}

void geul_model_free(struct geul_model *m)
{
    if (!m)
        return;
    struct geul_context *ctx = m->ctx;
    /* Buffers before the device that they are on, and before the file that they may be mapped from. */
    for (int i = 0; i < m->neox.n_adapters; i++)
        geul_adapter_free(m->adapters[i]);
    geul_free(ctx, m->adapters);
    geul_free(ctx, m->neox_adapters);
    for (int64_t i = 0; i < m->n_buffers; i++)
        m->buffers[i].device->backend->buffer_free(m->own, &m->buffers[i]);
    geul_devices_close(ctx, &m->own_devices);
    geul_free(ctx, m->placement.layers);
    geul_tokenizer_free(m->tokenizer);
    geul_context_free(m->own);
    geul_gguf_close(m->file);
    geul_free(ctx, m->buffers);
    geul_free(ctx, m->name);
    geul_free(ctx, m->template_text);
    geul_free(ctx, m);
}

const struct geul_model_shape *geul_model_get_shape(const struct geul_model *m)
{
    return &m->neox.shape;
}

const struct geul_tokenizer *geul_model_get_tokenizer(const struct geul_model *m)
{
    return m->tokenizer;
}

const char *geul_model_get_template(const struct geul_model *m)
{
    return m->template_text;
}

const char *geul_model_get_name(const struct geul_model *m)
{
    return m->name;
}

int geul_model_usable_vocab(const struct geul_model *m)
{
    return m->tokenizer ? geul_tokenizer_size(m->tokenizer) : m->neox.shape.n_vocab;
}
