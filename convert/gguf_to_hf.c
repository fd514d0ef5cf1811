/* gguf_to_hf.c: see geul_tools.h. Config and tensors are checked before the directory is made. Then the small files are
 * written, the weights after them and the index of several weight files last, all under temporary names. They get their
 * own as a set (geul_outset_begin()) whose last file is the one that transformers finds the weights by.
 */
#include "geul_tools.h"

#include "formats/json_file.h"
#include "formats/json_text.h"
#include "convert/end_ids.h"
#include "convert/kept_files.h"
#include "formats/safetensors.h"
#include "convert/neox_tensors.h"
#include "quantize/transcode.h"
#include "core/check.h"
#include "core/os.h"
#include "tokenizer/tokenizer.h"

#include <stdio.h>
#include <string.h>

#define DEFAULT_SHARD ((uint64_t)5000000000)

struct job {
    struct geul_context *ctx;
    const struct geul_export_options *options;
    struct geul_gguf *gguf;
    const char *dir;
    struct geul_neox_config config;
    json_t *config_json;
    bool config_replaced;                 /* the kept one described another model */
    json_t *generation;                   /* generation_config.json where it is not written as it was kept */
    enum geul_dtype dtype;                /* of the matrices */
    bool exact;                           /* some vectors are written as float32, because dtype would change them */
    struct geul_neox_tensor *tensors;     /* of the model; after list_output() those that are written, in order */
    struct geul_source_tensor *out;       /* the same as they are written; names point into tensors */
    const struct geul_gguf_tensor **from; /* NULL: zeros */
    int *shard;                           /* number of the file of each, from 0 */
    size_t count;
    int n_shards;
    struct geul_safetensors_writer *writer;
    uint64_t done, total;
};

/* Names of the dtypes in config.json. */
static const char *dtype_word(enum geul_dtype dtype)
{
    return dtype == GEUL_DTYPE_F32 ? "float32" : dtype == GEUL_DTYPE_BF16 ? "bfloat16" : "float16";
}

/* ------------------------------------------------------------------------------------ config -- */

/* The config.json that the file kept, when it still describes the same model; else NULL. */
static json_t *kept_config(struct job *j)
{
    const char *text;
    size_t length;
    struct geul_neox_config c;
    if (!geul_gguf_string(j->gguf, geul_kept_key("config.json"), &text, &length))
        return NULL;
    struct geul_context *quiet = geul_context_new_like(j->ctx); /* a text that does not fit is not an error here */
    json_t *json = quiet ? geul_json_parse(quiet, "geul.hf.config", text, length) : NULL;
    bool fits = json && geul_neox_config_read(quiet, "geul.hf.config", json, &c) == GEUL_OK &&
                geul_neox_config_equal(&c, &j->config);
    geul_context_free(quiet);
    if (!fits) {
        j->config_replaced = true;
        json_decref(json);
        return NULL;
    }
    j->config.tied_embeddings |= c.tied_embeddings;
    j->config.attention_bias &= c.attention_bias;
    if (c.gelu != j->config.gelu)
        json_object_set_new(json, "hidden_act", json_string(j->config.gelu == GEUL_GELU_TANH ? "gelu_new" : "gelu"));
    return json;
}

/* Whether the file has tensors of that kind, and in *as_said whether they add nothing to what the config says without
 * them: an output that is the embedding, attention biases that are zero. */
static bool has_tensors(const struct job *j, enum geul_neox_when when, bool *as_said)
{
    char name[GEUL_MAX_NAME];
    bool found = false;
    int n_layers = (int)j->config.n_layers;
    geul_neox_tensor_name(name, geul_neox_role_info(GEUL_NEOX_ROLE_EMBEDDING), -1);
    const struct geul_gguf_tensor *embed = geul_gguf_find_tensor(j->gguf, name);
    *as_said = true;
    for (int64_t i = 0; i < geul_neox_tensor_count(n_layers); i++) {
        int layer;
        const struct geul_neox_tensor_info *info = geul_neox_tensor_at(n_layers, i, &layer);
        geul_neox_tensor_name(name, info, layer);
        const struct geul_gguf_tensor *g = info->when == when ? geul_gguf_find_tensor(j->gguf, name) : NULL;
        if (!g)
            continue;
        found = true;
        if (when == GEUL_NEOX_WHEN_UNTIED)
            *as_said &= embed && g->type == embed->type && g->bytes == embed->bytes &&
                        memcmp(g->data, embed->data, g->bytes) == 0;
        for (size_t k = 0; when == GEUL_NEOX_WHEN_BIAS && g->type == GEUL_TYPE_F32 && k < g->bytes / sizeof(float); k++)
            *as_said &= !(((const float *)g->data)[k] < 0 || ((const float *)g->data)[k] > 0);
    }
    return found;
}

/* Decides whether the model is written with tied embeddings and without attention biases: as the config says, unless
 * the tensors have become others since, by training or by the types they were quantized to. A file without these
 * tensors says so by itself. */
static void settle_tensors(struct job *j)
{
    bool same, zero;
    if (!has_tensors(j, GEUL_NEOX_WHEN_UNTIED, &same)) {
        j->config.tied_embeddings = true;
    } else if (j->config.tied_embeddings && !same) {
        j->config.tied_embeddings = false;
        geul_log(j->ctx, GEUL_LOG_WARN,
                 "the output matrix is not the embedding any more: both are written, with tie_word_embeddings false");
    }
    if (!has_tensors(j, GEUL_NEOX_WHEN_BIAS, &zero)) {
        j->config.attention_bias = false;
    } else if (!j->config.attention_bias && !zero) {
        j->config.attention_bias = true;
        geul_log(j->ctx, GEUL_LOG_WARN,
                 "the attention biases are not zero: they are written, with attention_bias true");
    }
}

/* Reads the model's shape, chooses the dtype of matrices and makes config.json's content. */
static enum geul_status prepare_config(struct job *j)
{
    static const enum geul_dtype asked[] = {GEUL_DTYPE_COUNT, GEUL_DTYPE_F32, GEUL_DTYPE_F16, GEUL_DTYPE_BF16};
    if ((size_t)j->options->dtype >= sizeof asked / sizeof *asked)
        return geul_fail(j->ctx, GEUL_ERROR_ARGUMENT, "there is no dtype %d of exported tensors",
                         (int)j->options->dtype);
    enum geul_status status = geul_neox_config_from_gguf(j->ctx, j->gguf, &j->config);
    if (status != GEUL_OK)
        return status;
    /* the list of tensors to come is as long as the layers that the file claims */
    if (j->config.n_layers > geul_gguf_tensor_count(j->gguf))
        return geul_fail(j->ctx, GEUL_ERROR_FORMAT, "%s: says %lld layers, but holds %lld tensors in all",
                         geul_gguf_path(j->gguf), (long long)j->config.n_layers,
                         (long long)geul_gguf_tensor_count(j->gguf));
    char name[GEUL_MAX_NAME];
    geul_neox_tensor_name(name, geul_neox_role_info(GEUL_NEOX_ROLE_QKV), 0);
    const struct geul_gguf_tensor *sample = geul_gguf_find_tensor(j->gguf, name);
    j->dtype = asked[j->options->dtype];
    if (j->dtype == GEUL_DTYPE_COUNT)
        j->dtype = geul_dtype_of_type(sample ? sample->type : GEUL_TYPE_F16);
    j->config_json = kept_config(j);
    settle_tensors(j);
    if (!j->config_json)
        j->config_json = geul_neox_config_to_json(&j->config, dtype_word(j->dtype));
    return j->config_json ? GEUL_OK : geul_fail(j->ctx, GEUL_ERROR_MEMORY, "out of memory");
}

/* Writes into config.json what has been decided. transformers loads everything in the dtype that it names, which has to
 * hold the values that are written as float32. */
static enum geul_status finish_config(struct job *j)
{
    static const char *const keys[] = {"dtype", "torch_dtype"};
    json_t *json = j->config_json;
    bool ok = json_object_set_new(json, "tie_word_embeddings", json_boolean(j->config.tied_embeddings)) == 0 &&
              json_object_set_new(json, "attention_bias", json_boolean(j->config.attention_bias)) == 0;
    const char *word = dtype_word(j->exact ? GEUL_DTYPE_F32 : j->dtype);
    bool named = json_object_get(json, keys[0]) != NULL;
    for (size_t i = 0; ok && i < sizeof keys / sizeof *keys; i++)
        if (json_object_get(json, keys[i]) || (i == 1 && !named))
            ok = json_object_set_new(json, keys[i], json_string(word)) == 0;
    if (j->exact)
        geul_log(j->ctx, GEUL_LOG_INFO,
                 "norms and biases that %s cannot hold are written as float32, and config.json says float32; to "
                 "have them rounded, ask for %s",
                 dtype_word(j->dtype), dtype_word(j->dtype));
    return ok ? GEUL_OK : geul_fail(j->ctx, GEUL_ERROR_MEMORY, "out of memory");
}

/* Sets what begins and ends a text in the content of a config.json or generation_config.json. began: the id that the
 * files wrongly said to begin and end one, -1: none. */
static bool set_ends(json_t *json, const struct geul_tokenizer_spec *spec, json_int_t began)
{
    const json_t *bos = json_object_get(json, "bos_token_id");
    bool set_bos = spec->bos >= 0 && (!bos || (json_is_integer(bos) && json_integer_value(bos) == began));
    json_t *ends = json ? geul_end_ids_json(&spec->ends) : NULL;
    return ends && json_object_set_new(json, "eos_token_id", ends) == 0 &&
           (!set_bos || json_object_set_new(json, "bos_token_id", json_integer(spec->bos)) == 0);
}

/* Makes config.json and generation_config.json say the end tokens that the GGUF file has, unless they do so already:
 * Polyglot-Ko's published files name an unused token. Without a tokenizer both stay as they are. */
static enum geul_status prepare_ends(struct job *j)
{
    static const char file[] = "generation_config.json";
    struct geul_tokenizer_spec spec;
    const char *text;
    size_t n;
    bool wrong, ok = true;
    struct geul_context *quiet = geul_context_new_like(j->ctx); /* what cannot be read is no hindrance here */
    if (!quiet) /* but the wrong end token must not come back for lack of memory */
        return geul_fail(j->ctx, GEUL_ERROR_MEMORY, "out of memory");
    geul_tokenizer_spec_init(&spec);
    if (geul_gguf_has_tokenizer(j->gguf) && geul_tokenizer_spec_from_gguf(quiet, j->gguf, &spec) == GEUL_OK &&
        spec.ends.n > 0) {
        bool kept = geul_gguf_string(j->gguf, geul_kept_key(file), &text, &n);
        json_t *generation = kept ? geul_json_parse(quiet, file, text, n) : json_object();
        struct geul_tok_ids said = geul_end_ids_choose(j->config_json, generation, -1, false, spec.n_tokens, &wrong);
        bool same = geul_end_ids_equal(&said, &spec.ends);
        json_int_t began = said.n == 1 ? said.id[0] : -1;
        ok = same || set_ends(j->config_json, &spec, began);
        if (ok && (!same || !kept)) {
            json_decref(j->generation);
            j->generation = json_is_object(generation) ? json_incref(generation) : json_object();
            ok = set_ends(j->generation, &spec, began);
        }
        json_decref(generation);
    }
    geul_tokenizer_spec_free(quiet, &spec);
    geul_context_free(quiet);
    return ok ? GEUL_OK : geul_fail(j->ctx, GEUL_ERROR_MEMORY, "out of memory");
}

/* ----------------------------------------------------------------------------------- tensors -- */

/* Whether every value of a vector keeps its bits in the dtype that matrices are written in. */
static bool fits(const struct job *j, const struct geul_gguf_tensor *g)
{
    enum geul_type type = geul_dtype_info(j->dtype)->type;
    const float *x = g->data;
    for (size_t i = 0; type != GEUL_TYPE_F32 && i < g->bytes / sizeof *x; i++) {
        float back;
        uint8_t code[sizeof(float)];
        geul_encode(type, x + i, code, 1);
        geul_decode(type, code, &back, 1);
        if (memcmp(&back, x + i, sizeof back) != 0)
            return false;
    }
    return true;
}

/* Checks tensor t of the file and adds it to what is written. t is an element of j->tensors, which this compacts: count
 * is never beyond t, so nothing is overwritten before it was looked at. */
static enum geul_status list_tensor(struct job *j, const struct geul_neox_tensor *t)
{
    const struct geul_gguf_tensor *g = geul_gguf_find_tensor(j->gguf, t->gguf);
    char a[80], b[80];
    bool bias = t->info->when == GEUL_NEOX_WHEN_BIAS;
    if ((bias && !j->config.attention_bias) || (t->info->when == GEUL_NEOX_WHEN_UNTIED && j->config.tied_embeddings))
        return GEUL_OK;
    if (!g && !bias) /* a bias that only some layers have is zero in the others */
        return geul_fail(j->ctx, GEUL_ERROR_FORMAT, "%s: tensor %s of shape %s is missing", geul_gguf_path(j->gguf),
                         t->gguf, geul_dims_text(t->n_dims, t->shape, a, sizeof a));
    bool same =
        !g || (g->n_dims == t->n_dims && g->shape[0] == t->shape[0] && (t->n_dims == 1 || g->shape[1] == t->shape[1]));
    if (!same || (g && g->type == GEUL_TYPE_I32))
        return geul_fail(
            j->ctx, GEUL_ERROR_FORMAT, "%s: tensor %s is %s of shape %s where the keys ask for weights of %s",
            geul_gguf_path(j->gguf), t->gguf, geul_type_name(g->type), geul_dims_text(g->n_dims, g->shape, a, sizeof a),
            geul_dims_text(t->n_dims, t->shape, b, sizeof b));
    bool exact =
        j->options->dtype == GEUL_EXPORT_KEEP && g && g->n_dims == 1 && g->type == GEUL_TYPE_F32 && !fits(j, g);
    j->exact |= exact;
    struct geul_neox_tensor *kept = &j->tensors[j->count]; /* t itself or before it */
    struct geul_source_tensor *o = &j->out[j->count];
    *kept = *t;
    *o = (struct geul_source_tensor){.name = kept->hf,
                                     .dtype = exact ? GEUL_DTYPE_F32 : j->dtype,
                                     .n_dims = t->n_dims,
                                     .shape = {t->shape[0], t->shape[1]}};
    if (!geul_source_bytes(o->dtype, o->n_dims, o->shape, &o->bytes))
        return geul_fail(j->ctx, GEUL_ERROR_FORMAT, "tensor %s is impossibly large", t->gguf);
    j->from[j->count++] = g;
    j->total += o->bytes;
    return GEUL_OK;
}

/* Lists what is written and distributes it over files of at most max_shard_bytes each, unless a single tensor is
 * larger. */
static enum geul_status list_output(struct job *j)
{
    size_t n = 0;
    j->tensors = geul_neox_tensor_list(j->ctx, &j->config, &n);
    j->out = geul_alloc(j->ctx, n, sizeof *j->out);
    j->from = geul_alloc(j->ctx, n, sizeof *j->from);
    j->shard = geul_alloc(j->ctx, n, sizeof *j->shard);
    if (!j->tensors || !j->out || !j->from || !j->shard)
        return GEUL_ERROR_MEMORY;
    for (size_t i = 0; i < n; i++)
        if (list_tensor(j, &j->tensors[i]) != GEUL_OK)
            return geul_error_status(j->ctx);
    uint64_t most = j->options->max_shard_bytes ? j->options->max_shard_bytes : DEFAULT_SHARD, held = 0;
    for (size_t i = 0; i < j->count; i++) {
        if (held > 0 && held + j->out[i].bytes > most) { /* no file is empty */
            j->n_shards++;
            held = 0;
        }
        held += j->out[i].bytes;
        j->shard[i] = j->n_shards;
    }
    j->n_shards++;
    return GEUL_OK;
}

/* Takes a piece of output: writes it and reports progress. */
static enum geul_status take_piece(void *user, const void *data, size_t bytes)
{
    struct job *j = user;
    geul_safetensors_write(j->writer, data, bytes);
    j->done += bytes;
    if (j->options->progress && !j->options->progress(j->options->user, j->done, j->total))
        return geul_fail(j->ctx, GEUL_ERROR_CANCELLED, "stopped; nothing was written");
    return GEUL_OK;
}

/* Streams tensor i into the writer. The rows of QKV go back to their order by head, of its bias value by value. */
static enum geul_status move_tensor(struct job *j, size_t i)
{
    const struct geul_gguf_tensor *g = j->from[i];
    bool by_head = j->tensors[i].info->by_head, rows = j->tensors[i].n_dims == 2 || by_head;
    struct geul_transcode how = {
        .data = g ? g->data : NULL,
        .from = g ? g->type : GEUL_TYPE_F32,
        .to = geul_dtype_info(j->out[i].dtype)->type,
        .rows = rows ? j->out[i].shape[0] : 1,
        .cols = rows ? j->out[i].shape[1] : j->out[i].shape[0],
        .row_of = by_head ? geul_neox_qkv_row_back : NULL,
        .row_order = &j->config,
        .n_threads = j->options->n_threads,
        .sink = take_piece,
        .user = j,
    };
    struct geul_transcode_result result;
    enum geul_status status = geul_transcode_rows(j->ctx, &how, &result);
    if (g)
        geul_os_map_discard(g->data, g->bytes);
    if (status == GEUL_OK)
        status = geul_transcode_tell_lost(j->ctx, &result, j->tensors[i].gguf, dtype_word(j->out[i].dtype),
                                          j->options->strict);
    return status;
}

/* ------------------------------------------------------------------------------------- files -- */

/* The name of weight file number i. */
static void shard_name(const struct job *j, int i, char out[64])
{
    if (j->n_shards == 1)
        snprintf(out, 64, "model.safetensors");
    else
        snprintf(out, 64, "model-%05d-of-%05d.safetensors", i + 1, j->n_shards);
}

/* Writes tensors [first, last) as one file. */
static enum geul_status write_shard(struct job *j, int number, size_t first, size_t last)
{
    char name[64];
    shard_name(j, number, name);
    char *path = geul_os_join_path(j->ctx, j->dir, name);
    j->writer = path ? geul_safetensors_writer_new(j->ctx, path, j->out + first, last - first) : NULL;
    geul_free(j->ctx, path);
    if (!j->writer)
        return geul_error_status(j->ctx);
    enum geul_status status = GEUL_OK;
    for (size_t i = first; status == GEUL_OK && i < last; i++)
        status = move_tensor(j, i);
    if (status == GEUL_OK)
        return geul_safetensors_commit(j->writer);
    geul_safetensors_abandon(j->writer);
    return status;
}

static enum geul_status write_index(struct job *j)
{
    json_t *map = json_object();
    bool ok = map != NULL;
    for (size_t i = 0; ok && i < j->count; i++) {
        char name[64];
        shard_name(j, j->shard[i], name);
        ok = json_object_set_new(map, j->out[i].name, json_string(name)) == 0;
    }
    json_t *index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)j->total, "weight_map", map);
    char *path = geul_os_join_path(j->ctx, j->dir, "model.safetensors.index.json");
    enum geul_status status = GEUL_ERROR_MEMORY;
    if (ok && index && path)
        status = geul_json_save(j->ctx, path, index, true);
    else
        geul_fail(j->ctx, status, "out of memory");
    json_decref(index);
    geul_free(j->ctx, path);
    return status;
}

/* Writes the weight files and, where there are several, their index. */
static enum geul_status write_weights(struct job *j)
{
    /* readers prefer a single file over an index (formats/checkpoint.c): one left there would hide the shards */
    if (j->n_shards > 1 && geul_os_has(j->dir, "model.safetensors"))
        return geul_fail(j->ctx, GEUL_ERROR_ARGUMENT,
                         "%s holds a model.safetensors, which would be loaded instead of the shards to be written; "
                         "remove it or give another directory",
                         j->dir);
    enum geul_status status = GEUL_OK;
    for (size_t first = 0, last; status == GEUL_OK && first < j->count; first = last) {
        for (last = first; last < j->count && j->shard[last] == j->shard[first];)
            last++;
        status = write_shard(j, j->shard[first], first, last);
    }
    return status == GEUL_OK && j->n_shards > 1 ? write_index(j) : status;
}

/* Writes json as dir/file. */
static enum geul_status save(struct job *j, const char *file, const json_t *json)
{
    char *path = geul_os_join_path(j->ctx, j->dir, file);
    enum geul_status status = path ? geul_json_save(j->ctx, path, json, true) : GEUL_ERROR_MEMORY;
    geul_free(j->ctx, path);
    return status;
}

/* Files that were not kept but that transformers looks for. */
static enum geul_status write_defaults(struct job *j)
{
    enum geul_status status = GEUL_OK;
    if (!geul_gguf_has(j->gguf, geul_kept_key("tokenizer.json")) &&
        !geul_gguf_has(j->gguf, geul_kept_key("vocab.json")))
        geul_log(j->ctx, GEUL_LOG_WARN, "the file keeps no tokenizer.json; copy the model's own into %s", j->dir);
    if (j->generation)
        status = save(j, "generation_config.json", j->generation);
    /* a directory that had no tokenizer_config.json does well without one: config.json says the class then */
    if (status == GEUL_OK && geul_gguf_has(j->gguf, geul_kept_key("tokenizer.json")) &&
        !geul_gguf_has(j->gguf, geul_kept_key("config.json")) &&
        !geul_gguf_has(j->gguf, geul_kept_key("tokenizer_config.json"))) {
        json_t *json = json_pack("{s:s, s:I}", "tokenizer_class", "PreTrainedTokenizerFast", "model_max_length",
                                 (json_int_t)j->config.n_context);
        status = save(j, "tokenizer_config.json", json);
        json_decref(json);
    }
    return status;
}

/* chat_template.jinja, unless tokenizer_config.json carries the template already. */
static enum geul_status write_template(struct job *j)
{
    const char *text, *config;
    size_t length, config_length;
    if (!geul_gguf_string(j->gguf, "tokenizer.chat_template", &text, &length))
        return GEUL_OK;
    bool there = false;
    if (geul_gguf_string(j->gguf, geul_kept_key("tokenizer_config.json"), &config, &config_length)) {
        json_error_t unused;
        json_t *json = geul_json_decode(j->ctx, config, config_length, 0, &unused);
        there = json_object_get(json, "chat_template") != NULL;
        json_decref(json);
    }
    return there ? GEUL_OK : geul_kept_write(j->ctx, j->dir, "chat_template.jinja", text, length);
}

/* Fails when the weights would not find room. */
static enum geul_status check_space(const struct job *j)
{
    char *path = geul_os_join_path(j->ctx, j->dir, "model.safetensors");
    enum geul_status status = path ? geul_os_check_space(j->ctx, path, j->total) : GEUL_ERROR_MEMORY;
    geul_free(j->ctx, path);
    return status;
}

static enum geul_status write_directory(struct job *j)
{
    enum geul_status status = geul_os_make_directory(j->ctx, j->dir);
    if (status == GEUL_OK)
        status = geul_outfile_tidy(j->ctx, j->dir, "");
    if (status == GEUL_OK)
        status = check_space(j);
    if (status != GEUL_OK)
        return status;
    geul_outset_begin(j->ctx);
    status = save(j, "config.json", j->config_json);
    if (status == GEUL_OK)
        status = geul_kept_from_gguf(j->ctx, j->gguf, j->dir);
    if (status == GEUL_OK)
        status = write_template(j);
    if (status == GEUL_OK)
        status = write_defaults(j);
    if (status == GEUL_OK)
        status = write_weights(j);
    if (status == GEUL_OK)
        return geul_outset_commit(j->ctx, NULL);
    geul_outset_abandon(j->ctx);
    return status;
}

enum geul_status geul_export_hf(struct geul_context *ctx, const char *gguf_path, const char *dir,
                                const struct geul_export_options *options)
{
    struct geul_export_options o;
    struct job j = {.ctx = ctx, .options = &o, .dir = dir};
    geul_error_clear(ctx);
    if (geul_take_struct(ctx, &o, sizeof o, options, "geul_export_options") != GEUL_OK ||
        geul_check_threads(ctx, o.n_threads) != GEUL_OK ||
        geul_check_range(ctx, "dtype", o.dtype, GEUL_EXPORT_KEEP, GEUL_EXPORT_BF16) != GEUL_OK)
        return GEUL_ERROR_ARGUMENT;
    j.gguf = geul_gguf_open(ctx, gguf_path);
    enum geul_status status = j.gguf ? prepare_config(&j) : geul_error_status(ctx);
    if (status == GEUL_OK)
        status = prepare_ends(&j);
    if (status == GEUL_OK)
        status = list_output(&j);
    if (status == GEUL_OK)
        status = finish_config(&j);
    if (status == GEUL_OK && j.config_replaced)
        geul_log(ctx, GEUL_LOG_WARN,
                 "the config.json kept in the file does not describe its tensors; a new one is made from the keys");
    if (status == GEUL_OK)
        status = write_directory(&j);
    json_decref(j.config_json);
    json_decref(j.generation);
    geul_free(ctx, j.tensors);
    geul_free(ctx, j.out);
    geul_free(ctx, j.from);
    geul_free(ctx, j.shard);
    geul_gguf_close(j.gguf);
    return status;
}
