/* peft.c: see peft.h. */
#include "convert/peft.h"
#include "geul_tools.h"

#include "formats/checkpoint.h"
#include "formats/json_file.h"
#include "convert/neox_tensors.h"
#include "convert/peft_config.h"
#include "formats/safetensors.h"
#include "quantize/transcode.h"
#include "core/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_FILE "adapter_config.json"
#define PREFIX      "base_model.model."

enum { MOST_LAYERS = 4096, TENSOR_NAME = 160 };

/* "gpt_neox.layers.3.attention.dense" */
static void module_name(char out[GEUL_NEOX_HF_NAME], int layer, enum geul_neox_target target)
{
    geul_neox_hf_module(out, geul_neox_target_info(target), layer);
}

/* Whether the rows of a target's lora_B are in order of the heads. */
static bool is_by_head(enum geul_neox_target target)
{
    return geul_neox_target_info(target)->by_head;
}

/* "base_model.model.gpt_neox.layers.3.attention.dense.lora_A.weight" */
static void tensor_name(char out[TENSOR_NAME], int layer, enum geul_neox_target target, char half)
{
    char module[GEUL_NEOX_HF_NAME];
    module_name(module, layer, target);
    snprintf(out, TENSOR_NAME, PREFIX "%s.lora_%c.weight", module, half);
}

/* What geul_neox_qkv_row() needs, for n rows in n_heads heads: n = 3 * n_heads * d_head. false when there is no such
 * d_head. */
static bool rows_config(int64_t n, int n_heads, struct geul_neox_config *c)
{
    *c = (struct geul_neox_config){.d_model = n / 3, .n_heads = n_heads};
    c->d_head = n_heads > 0 ? c->d_model / n_heads : 0;
    return n_heads > 0 && n == 3 * c->d_head * n_heads && c->d_head > 0;
}

/* -------------------------------------------------------------------------------------- base -- */

bool geul_peft_is(const char *path)
{
    return geul_os_has(path, CONFIG_FILE);
}

bool geul_peft_has_model(const char *path)
{
    return geul_os_has(path, "config.json") && geul_checkpoint_has_model(path);
}

enum geul_status geul_peft_read_base(struct geul_context *ctx, const char *path, struct geul_lora_shape *base)
{
    struct geul_neox_config c = {0};
    enum geul_status status;
    if (geul_os_has(path, "config.json")) {
        char *file = geul_os_join_path(ctx, path, "config.json");
        json_t *json = file ? geul_json_load(ctx, file) : NULL;
        status = json ? geul_neox_config_read(ctx, file, json, &c) : geul_error_status(ctx);
        json_decref(json);
        geul_free(ctx, file);
    } else {
        struct geul_gguf *g = geul_gguf_open(ctx, path);
        status = g ? geul_neox_config_from_gguf(ctx, g, &c) : geul_error_status(ctx);
        geul_gguf_close(g);
    }
    if (status == GEUL_OK)
        *base = (struct geul_lora_shape){(int)c.n_layers, (int)c.n_heads, (int)c.d_model, (int)c.d_ff};
    return status;
}

/* ----------------------------------------------------------------------------------- reading -- */

struct reader {
    struct geul_context *ctx;
    const char *dir;
    char *config_path;
    struct geul_peft_config config;
    struct geul_lora_shape base;
    struct geul_checkpoint *checkpoint;
    struct geul_lora *data;
};

/* Splits a tensor's name. false: it is not a name that tensor_name() writes, to the letter ("layers.03" is not). */
static bool parse_name(const char *name, int *layer, enum geul_neox_target *target, char *half)
{
    const size_t before = sizeof PREFIX GEUL_NEOX_HF_LAYERS - 1;
    if (strncmp(name, PREFIX GEUL_NEOX_HF_LAYERS, before) != 0 || name[before] < '0' || name[before] > '9')
        return false;
    long number = strtol(name + before, NULL, 10);
    for (int t = 0; number < MOST_LAYERS && t < GEUL_NEOX_TARGETS; t++)
        for (int h = 'A'; h <= 'B'; h++) {
            char canonical[TENSOR_NAME];
            tensor_name(canonical, (int)number, (enum geul_neox_target)t, (char)h);
            if (strcmp(canonical, name) == 0) {
                *layer = (int)number;
                *target = (enum geul_neox_target)t;
                *half = (char)h;
                return true;
            }
        }
    return false;
}

/* Decodes t into out; by_head: its rows are put from PEFT's order, by head, into GGUF's. */
static enum geul_status decode(struct reader *r, const struct geul_source_tensor *t, bool by_head, float *out)
{
    struct geul_neox_config rows;
    if (by_head && r->base.n_heads == 0)
        return geul_fail(r->ctx, GEUL_ERROR_ARGUMENT,
                         "%s: the rows of %s are ordered by head, and how many heads the model has is not known: "
                         "name its base, a GGUF file or a Hugging Face directory",
                         r->dir, geul_neox_hf_target(GEUL_NEOX_QKV));
    if (by_head && !rows_config(t->shape[0], r->base.n_heads, &rows))
        return geul_fail(r->ctx, GEUL_ERROR_FORMAT, "%s: %s has %lld rows, which do not fit %d heads", r->dir, t->name,
                         (long long)t->shape[0], r->base.n_heads);
    for (int64_t i = 0; i < t->shape[0]; i++, out += t->shape[1])
        geul_source_read(t, (by_head ? geul_neox_qkv_row(&rows, i) : i) * t->shape[1], t->shape[1], out);
    return GEUL_OK;
}

/* Checks the shapes of a pair against the configuration. *factor: what B is multiplied by where the pair has an alpha
 * of its own (alpha_pattern), since GGUF has one alpha for all pairs. */
static enum geul_status check_pair(struct reader *r, const struct geul_source_tensor *a,
                                   const struct geul_source_tensor *b, struct geul_lora_pair *shape, float *factor)
{
    int64_t rank;
    double alpha;
    char module[GEUL_NEOX_HF_NAME];
    for (int i = 0; i < 2; i++) {
        const struct geul_source_tensor *t = i ? b : a;
        if (t->n_dims != 2 || t->shape[0] < 1 || t->shape[1] < 1 || !geul_source_is_float(t))
            return geul_fail(r->ctx, GEUL_ERROR_FORMAT, "%s: %s is not a matrix of floats", r->dir, t->name);
    }
    module_name(module, shape->layer, shape->target);
    enum geul_status status = geul_peft_config_module(r->ctx, r->config_path, &r->config, module, &rank, &alpha);
    if (status != GEUL_OK)
        return status;
    if (a->shape[0] != rank || b->shape[1] != rank)
        return geul_fail(r->ctx, GEUL_ERROR_FORMAT,
                         "%s: lora_A and lora_B of %s have ranks %lld and %lld where " CONFIG_FILE " says %lld", r->dir,
                         module, (long long)a->shape[0], (long long)b->shape[1], (long long)rank);
    shape->rank = (int)rank;
    shape->n = b->shape[0];
    shape->k = a->shape[1];
    *factor = (float)(alpha / r->config.alpha);
    return GEUL_OK;
}

/* Reads A and its B into a new pair. */
static enum geul_status read_pair(struct reader *r, const struct geul_source_tensor *a, int layer,
                                  enum geul_neox_target target)
{
    char name[TENSOR_NAME];
    float factor = 1, *to_a, *to_b;
    struct geul_lora_pair shape = {.layer = layer, .target = target};
    tensor_name(name, layer, target, 'B');
    const struct geul_source_tensor *b = geul_checkpoint_find(r->checkpoint, name);
    if (!b)
        return geul_fail(r->ctx, GEUL_ERROR_FORMAT, "%s: tensor %s is missing", r->dir, name);
    enum geul_status status = check_pair(r, a, b, &shape, &factor);
    if (status == GEUL_OK)
        status = geul_lora_add_pair(r->ctx, r->data, &shape, &to_a, &to_b);
    if (status == GEUL_OK)
        status = decode(r, a, false, to_a);
    if (status == GEUL_OK)
        status = decode(r, b, is_by_head(target), to_b);
    for (int64_t i = 0; status == GEUL_OK && factor != 1 && i < shape.n * shape.rank; i++)
        to_b[i] *= factor;
    return status;
}

/* Refuses tensors that are not an A or a B: their effect would be missing silently. */
static enum geul_status check_names(const struct reader *r)
{
    for (size_t i = 0; i < geul_checkpoint_count(r->checkpoint); i++) {
        const char *name = geul_checkpoint_at(r->checkpoint, i)->name;
        enum geul_neox_target target;
        char half;
        int layer;
        char known[200];
        if (!parse_name(name, &layer, &target, &half))
            return geul_fail(r->ctx, GEUL_ERROR_UNSUPPORTED,
                             "%s: adapts %.120s, which geul cannot do; lora_A and lora_B of %s are possible", r->dir,
                             name, geul_neox_list_targets(known, sizeof known, geul_neox_hf_target, ", ", " and "));
    }
    return GEUL_OK;
}

/* Reads all pairs, each when its A comes; a B must have an A. */
static enum geul_status read_tensors(struct reader *r)
{
    enum geul_status status = check_names(r);
    for (size_t i = 0; status == GEUL_OK && i < geul_checkpoint_count(r->checkpoint); i++) {
        const struct geul_source_tensor *t = geul_checkpoint_at(r->checkpoint, i);
        enum geul_neox_target target;
        char half, a[TENSOR_NAME];
        int layer;
        if (!parse_name(t->name, &layer, &target, &half))
            continue;
        tensor_name(a, layer, target, 'A');
        if (half == 'A')
            status = read_pair(r, t, layer, target);
        else if (!geul_checkpoint_find(r->checkpoint, a))
            status = geul_fail(r->ctx, GEUL_ERROR_FORMAT, "%s: tensor %s is missing", r->dir, a);
    }
    return status;
}

/* The adapter's own fields: from the configuration, the base model and the directory's name. */
static enum geul_status read_general(struct reader *r)
{
    struct geul_lora *d = r->data;
    /* its name: the last part of the path */
    const char *end = r->dir + strlen(r->dir);
    while (end > r->dir && end[-1] == '/')
        end--;
    const char *name = end;
    while (name > r->dir && name[-1] != '/')
        name--;
    d->alpha = (float)r->config.alpha;
    d->rslora = r->config.rslora;
    d->made_for = r->base;
    d->name = geul_lora_copy_text(r->ctx, d, name, (size_t)(end - name));
    const char *base = r->config.base;
    d->base = base ? geul_lora_copy_text(r->ctx, d, base, strlen(base)) : NULL;
    return d->name && (d->base || !base) ? GEUL_OK : GEUL_ERROR_MEMORY;
}

/* Completes r->base with the sizes of the adapter's own model: by the config.json beside it, which a trainer leaves
 * there, otherwise of the model that the configuration names, if it is a directory on this machine. */
static enum geul_status find_base(struct reader *r)
{
    struct geul_lora_shape own = {0}, *base = &r->base;
    const char *dir = geul_os_has(r->dir, "config.json") ? r->dir : r->config.base;
    /* if it cannot be read, decode() says what is missing */
    struct geul_context *quiet = dir && geul_os_has(dir, "config.json") ? geul_context_new_like(r->ctx) : NULL;
    if (quiet)
        geul_peft_read_base(quiet, dir, &own);
    geul_context_free(quiet);
    enum geul_status status = geul_lora_check_made_for(r->ctx, &own, base, r->dir);
    if (status == GEUL_OK && base->n_heads == 0) /* a caller that knows a model knows all of it */
        *base = own;
    return status;
}

/* PEFT's name for a tensor: without what wrappers put around it, and without the name of the adapter
 * ("lora_A.default.weight"), which PEFT itself leaves out of files, but not FSDP, DeepSpeed and trainers. */
static char *plain_name(struct geul_context *ctx, const char *name)
{
    char *inner = geul_neox_hf_names.plain(ctx, name);
    char *out = inner ? geul_alloc(ctx, strlen(inner) + sizeof PREFIX, 1) : NULL;
    if (out) {
        snprintf(out, strlen(inner) + sizeof PREFIX, PREFIX "%s", inner);
        char *half = strstr(out, ".lora_A."), *adapter = half ? half : strstr(out, ".lora_B.");
        adapter = adapter ? adapter + sizeof ".lora_A." - 1 : NULL;
        char *dot = adapter ? strchr(adapter, '.') : NULL;
        if (dot && strcmp(dot, ".weight") == 0)
            memmove(adapter, dot + 1, strlen(dot));
    }
    geul_free(ctx, inner);
    return out;
}

static bool no_buffer(const char *plain)
{
    (void)plain;
    return false;
}

static const struct geul_checkpoint_names peft_names = {plain_name, no_buffer};

/* Reads the adapter: config, base model, then tensors. json has to outlive r->config, whose texts are in it. */
static enum geul_status read_directory(struct reader *r, const json_t *json)
{
    enum geul_status status = geul_peft_config_read(r->ctx, r->config_path, json, &r->config);
    if (status != GEUL_OK)
        return status;
    status = find_base(r);
    if (status != GEUL_OK)
        return status;
    r->checkpoint = geul_checkpoint_open_peft(r->ctx, r->dir, &peft_names);
    if (!r->checkpoint)
        return geul_error_status(r->ctx);
    size_t count = geul_checkpoint_count(r->checkpoint);
    if (count > 2 * MOST_LAYERS * GEUL_NEOX_TARGETS)
        return geul_fail(r->ctx, GEUL_ERROR_FORMAT, "%s: %zu tensors are too many for an adapter", r->dir, count);
    r->data = geul_lora_new(r->ctx, (int)count);
    status = r->data ? read_tensors(r) : GEUL_ERROR_MEMORY;
    if (status == GEUL_OK)
        status = read_general(r);
    return status == GEUL_OK ? geul_lora_check(r->ctx, r->data, r->dir) : status;
}

struct geul_lora *geul_peft_read(struct geul_context *ctx, const char *dir, struct geul_lora_shape base)
{
    struct reader r = {.ctx = ctx, .dir = dir, .base = base, .config_path = geul_os_join_path(ctx, dir, CONFIG_FILE)};
    geul_os_input_directory(ctx, dir);
    json_t *json = r.config_path ? geul_json_load(ctx, r.config_path) : NULL;
    bool ok = json && read_directory(&r, json) == GEUL_OK;
    json_decref(json);
    geul_checkpoint_close(r.checkpoint);
    geul_free(ctx, r.config_path);
    if (ok)
        return r.data;
    geul_lora_free(r.data);
    return NULL;
}

/* ----------------------------------------------------------------------------------- writing -- */

struct peft_writer {
    struct geul_context *ctx;
    const struct geul_lora *data;
    const char *dir;
    int n_layers, n_heads;
    struct geul_source_tensor *tensors; /* A and B of pair i at 2i and 2i + 1 */
    struct geul_safetensors_writer *file;
};

static enum geul_status take_piece(void *user, const void *data, size_t bytes)
{
    struct peft_writer *w = user;
    geul_safetensors_write(w->file, data, bytes);
    return GEUL_OK;
}

static bool adapts_attention(const struct geul_lora *d)
{
    for (int i = 0; i < d->n_pairs; i++)
        if (is_by_head(d->pairs[i].target))
            return true;
    return false;
}

/* Lists the tensors to be written. Their names are one block, which is freed by the first. */
static enum geul_status list_tensors(struct peft_writer *w)
{
    size_t n = (size_t)w->data->n_pairs;
    w->tensors = geul_alloc(w->ctx, 2 * n, sizeof *w->tensors);
    char(*names)[TENSOR_NAME] = w->tensors ? geul_alloc(w->ctx, 2 * n, TENSOR_NAME) : NULL;
    if (!names) {
        geul_free(w->ctx, w->tensors);
        w->tensors = NULL;
        return GEUL_ERROR_MEMORY;
    }
    for (size_t i = 0; i < 2 * n; i++) {
        const struct geul_lora_pair *s = &w->data->pairs[i / 2];
        struct geul_source_tensor *t = &w->tensors[i];
        bool b = i % 2;
        tensor_name(names[i], s->layer, s->target, b ? 'B' : 'A');
        *t = (struct geul_source_tensor){.name = names[i], .dtype = GEUL_DTYPE_F32, .n_dims = 2};
        t->shape[0] = b ? s->n : s->rank;
        t->shape[1] = b ? s->rank : s->k;
        t->bytes = (size_t)(t->shape[0] * t->shape[1]) * sizeof(float);
        t->data = (const uint8_t *)(b ? s->b : s->a);
    }
    return GEUL_OK;
}

/* Writes a tensor; by_head: its rows go from GGUF's order to PEFT's. */
static enum geul_status write_tensor(struct peft_writer *w, const struct geul_source_tensor *t, bool by_head)
{
    struct geul_neox_config rows;
    struct geul_transcode_result result;
    if (by_head && !rows_config(t->shape[0], w->n_heads, &rows))
        return geul_fail(w->ctx, GEUL_ERROR_ARGUMENT, "%s has %lld rows, which are not those of %d heads", t->name,
                         (long long)t->shape[0], w->n_heads);
    const struct geul_transcode how = {
        .data = t->data,
        .from = GEUL_TYPE_F32,
        .to = GEUL_TYPE_F32,
        .rows = t->shape[0],
        .cols = t->shape[1],
        .row_of = by_head ? geul_neox_qkv_row_back : NULL,
        .row_order = &rows,
        .n_threads = 1,
        .sink = take_piece,
        .user = w,
    };
    return geul_transcode_rows(w->ctx, &how, &result);
}

static enum geul_status write_weights(struct peft_writer *w)
{
    char *path = geul_os_join_path(w->ctx, w->dir, "adapter_model.safetensors");
    size_t n = 2 * (size_t)w->data->n_pairs;
    w->file = path ? geul_safetensors_writer_new(w->ctx, path, w->tensors, n) : NULL;
    geul_free(w->ctx, path);
    if (!w->file)
        return geul_error_status(w->ctx);
    enum geul_status status = GEUL_OK;
    for (size_t i = 0; status == GEUL_OK && i < n; i++)
        status = write_tensor(w, &w->tensors[i], i % 2 && is_by_head(w->data->pairs[i / 2].target));
    if (status == GEUL_OK)
        return geul_safetensors_commit(w->file);
    geul_safetensors_abandon(w->file);
    return status;
}

/* The modules that are adapted: by their last names where that means all layers, otherwise one by one. */
static json_t *target_modules(const struct peft_writer *w)
{
    const struct geul_lora *d = w->data;
    int count[GEUL_NEOX_TARGETS] = {0};
    bool whole = w->n_layers > 0;
    json_t *list = json_array();
    for (int i = 0; i < d->n_pairs; i++)
        count[d->pairs[i].target]++;
    /* names are unique in a file, so a pair is in layer and target, and counting tells whether all layers are there */
    for (int t = 0; t < GEUL_NEOX_TARGETS; t++)
        whole = whole && (count[t] == 0 || count[t] == w->n_layers);
    for (int t = 0; whole && t < GEUL_NEOX_TARGETS; t++)
        if (count[t])
            json_array_append_new(list, json_string(geul_neox_hf_target((enum geul_neox_target)t)));
    for (int i = 0; !whole && i < d->n_pairs; i++) {
        char name[GEUL_NEOX_HF_NAME];
        module_name(name, d->pairs[i].layer, d->pairs[i].target);
        json_array_append_new(list, json_string(name));
    }
    return list;
}

/* The ranks that differ from the first pair's, which is "r". */
static json_t *rank_pattern(const struct geul_lora *d)
{
    json_t *patterns = json_object();
    for (int i = 1; i < d->n_pairs; i++) {
        char name[GEUL_NEOX_HF_NAME];
        module_name(name, d->pairs[i].layer, d->pairs[i].target);
        if (d->pairs[i].rank != d->pairs[0].rank)
            json_object_set_new(patterns, name, json_integer(d->pairs[i].rank));
    }
    return patterns;
}

static enum geul_status write_config(struct peft_writer *w)
{
    const struct geul_lora *d = w->data;
    double alpha = (double)d->alpha;
    json_t *number = alpha == (double)(json_int_t)alpha ? json_integer((json_int_t)alpha) : json_real(alpha);
    json_t *json =
        json_pack("{s:s, s:s, s:s?, s:b, s:i, s:o, s:f, s:b, s:s, s:b, s:b, s:o, s:o, s:{}, s:n}", "peft_type", "LORA",
                  "task_type", "CAUSAL_LM", "base_model_name_or_path", d->base, "inference_mode", 1, "r",
                  d->pairs[0].rank, "lora_alpha", number, "lora_dropout", 0.0, "fan_in_fan_out", 0, "bias", "none",
                  "use_rslora", d->rslora, "init_lora_weights", 1, "target_modules", target_modules(w), "rank_pattern",
                  rank_pattern(d), "alpha_pattern", "modules_to_save");
    char *path = json ? geul_os_join_path(w->ctx, w->dir, CONFIG_FILE) : geul_fail_memory(w->ctx, 1024);
    enum geul_status status = path ? geul_json_save(w->ctx, path, json, true) : geul_error_status(w->ctx);
    geul_free(w->ctx, path);
    json_decref(json);
    return status;
}

enum geul_status geul_peft_write(struct geul_context *ctx, const struct geul_lora *d, struct geul_lora_shape base,
                                 const char *dir)
{
    struct peft_writer w = {.ctx = ctx,
                            .data = d,
                            .dir = dir,
                            .n_layers = base.n_layers ? base.n_layers : d->made_for.n_layers,
                            .n_heads = base.n_heads ? base.n_heads : d->made_for.n_heads};
    enum geul_status status = geul_lora_check(ctx, d, dir);
    if (status == GEUL_OK)
        status = geul_lora_check_made_for(ctx, &d->made_for, &base, d->name ? d->name : dir);
    if (status == GEUL_OK && adapts_attention(d) && w.n_heads == 0)
        status = geul_fail(ctx, GEUL_ERROR_ARGUMENT,
                           "PEFT orders the rows of %s by head, and how many heads the model has is not "
                           "known: name its base, a GGUF file or a Hugging Face directory",
                           geul_neox_hf_target(GEUL_NEOX_QKV));
    if (status == GEUL_OK)
        status = list_tensors(&w);
    if (status == GEUL_OK)
        status = geul_os_make_directory(ctx, dir);
    if (status == GEUL_OK)
        status = geul_outfile_tidy(ctx, dir, "");
    geul_outset_begin(ctx);
    if (status == GEUL_OK)
        status = write_weights(&w);
    if (status == GEUL_OK) /* last: a directory with it is an adapter (geul_peft_is()), and a complete one */
        status = write_config(&w);
    if (status == GEUL_OK)
        status = geul_outset_commit(ctx, NULL);
    geul_outset_abandon(ctx);
    if (w.tensors)
        geul_free(ctx, w.tensors[0].name);
    geul_free(ctx, w.tensors);
    return status;
}
