/* hf_to_gguf.c: see geul_tools.h. In this order, so that what is wrong shows before the long part:
 *
 *   read_config()    config.json: the shape of the model
 *   pair_tensors()   each tensor of that shape has one in the checkpoint, of its shape; none is left over
 *   write_file()     keys; the tokenizer is checked by making one. Then the tensors stream through a
 *                    few MB, one after the other
 *   verify()         the written file is opened, and its table compared
 *
 * Then the file appears under its name, in one atomic step. */
#include "geul_tools.h"

#include "formats/checkpoint.h"
#include "formats/json_file.h"
#include "convert/hf_foreign.h"
#include "convert/kept_files.h"
#include "convert/tokenizer_files.h"
#include "convert/neox_tensors.h"
#include "quantize/mix.h"
#include "quantize/transcode.h"
#include "core/check.h"
#include "core/file_kind.h"
#include "core/os.h"
#include "core/tensor.h"
#include "tokenizer/tokenizer.h"

#include <stdio.h>
#include <string.h>

enum { ALIGNMENT = 32 };

/* One tensor: from where, and as what. */
struct move {
    const struct geul_source_tensor *from; /* NULL: zeros */
    enum geul_type type;
};

struct job {
    struct geul_context *ctx;
    const char *dir;
    const struct geul_convert_options *options;
    struct geul_neox_config config;
    struct geul_checkpoint *checkpoint;
    struct geul_neox_tensor *tensors;
    struct move *moves; /* one per tensor */
    size_t count;
    struct geul_gguf_writer *writer;
    uint64_t done, total; /* bytes of the tensors in the output */
};

/* -------------------------------------------------------------------------------- inspection -- */

/* What dir is that has no config.json: an adapter, a single file, weights alone; NULL: not known. */
static const struct geul_file_kind *other_kind(struct geul_context *ctx, const char *dir)
{
    const struct geul_file_kind *kind = geul_file_kind_of_directory(dir);
    struct geul_context *quiet = kind ? NULL : geul_context_new_like(ctx);
    struct geul_map map;
    if (quiet && geul_os_map(quiet, dir, &map) == GEUL_OK) {
        kind = geul_file_kind_of(map.data, map.size);
        geul_os_unmap(&map);
    }
    geul_context_free(quiet);
    return kind;
}

static enum geul_status read_config(struct job *j)
{
    char *path = geul_os_join_path(j->ctx, j->dir, "config.json");
    if (!path)
        return GEUL_ERROR_MEMORY;
    const struct geul_file_kind *kind = geul_os_exists(path) ? NULL : other_kind(j->ctx, j->dir);
    if (kind) {
        geul_free(j->ctx, path);
        return geul_fail_kind(j->ctx, j->dir, "a model's directory", kind);
    }
    json_t *json = geul_json_load(j->ctx, path);
    enum geul_status status = json ? geul_hf_check_config(j->ctx, path, json) : geul_error_status(j->ctx);
    if (status == GEUL_OK)
        status = geul_neox_config_read(j->ctx, path, json, &j->config);
    json_decref(json);
    geul_free(j->ctx, path);
    if (j->options->gelu != GEUL_CONVERT_GELU_CONFIG)
        j->config.gelu = j->options->gelu == GEUL_CONVERT_GELU_TANH ? GEUL_GELU_TANH : GEUL_GELU_ERF;
    return status;
}

/* The type a tensor gets in the file: vectors F32; the output Q8_0 at least, as its errors matter most; F16 where rows
 * do not fit the blocks. */
static enum geul_type choose_type(const struct job *j, const struct geul_neox_tensor *t)
{
    if (t->n_dims == 1)
        return GEUL_TYPE_F32;
    bool block = geul_type_block(j->options->type) > 1;
    enum geul_type type = t->info->role == GEUL_NEOX_ROLE_OUTPUT && block ? GEUL_TYPE_Q8_0 : j->options->type;
    if (t->shape[1] % geul_type_block(type) == 0)
        return type;
    geul_log(j->ctx, GEUL_LOG_INFO, "%s becomes f16: its rows of %lld are not a multiple of %s's block of %lld",
             t->gguf, (long long)t->shape[1], geul_type_name(type), (long long)geul_type_block(type));
    return GEUL_TYPE_F16;
}

/* The checkpoint's tensor under any of the names of t. */
static const struct geul_source_tensor *find_named(const struct job *j, const struct geul_neox_tensor *t)
{
    const struct geul_source_tensor *s = geul_checkpoint_find(j->checkpoint, t->hf);
    return !s && t->alias[0] ? geul_checkpoint_find(j->checkpoint, t->alias) : s;
}

/* The tensor that t shares its values with where embeddings are tied: the embedding's is the output and the other way
 * round; NULL: none. */
static const struct geul_neox_tensor *tied_to(const struct job *j, const struct geul_neox_tensor *t)
{
    enum geul_neox_role other = t->info->role == GEUL_NEOX_ROLE_EMBEDDING ? GEUL_NEOX_ROLE_OUTPUT
                                : t->info->role == GEUL_NEOX_ROLE_OUTPUT  ? GEUL_NEOX_ROLE_EMBEDDING
                                                                          : GEUL_NEOX_ROLE_PLAIN;
    for (size_t i = 0; i < j->count && other != GEUL_NEOX_ROLE_PLAIN; i++)
        if (j->tensors[i].info->role == other)
            return &j->tensors[i];
    return NULL;
}

/* The checkpoint's tensor for t; where embeddings are tied either of the two may be stored. */
static const struct geul_source_tensor *find_source(const struct job *j, const struct geul_neox_tensor *t)
{
    const struct geul_source_tensor *s = find_named(j, t);
    const struct geul_neox_tensor *other = !s && j->config.tied_embeddings ? tied_to(j, t) : NULL;
    return other ? find_named(j, other) : s;
}

/* Whether both have the same values, whatever their types and layouts; true where one is no matrix of floats, about
 * which check_source() has something to say. */
static bool same_values(const struct geul_source_tensor *a, const struct geul_source_tensor *b)
{
    enum { PIECE = 1024 };
    float x[PIECE], y[PIECE];
    bool matrices = a->n_dims == 2 && b->n_dims == 2 && geul_source_is_float(a) && geul_source_is_float(b);
    if (!matrices || a->shape[0] != b->shape[0] || a->shape[1] != b->shape[1])
        return !matrices;
    const int64_t all = a->shape[0] * a->shape[1];
    for (int64_t at = 0; at < all; at += PIECE) {
        int64_t n = all - at < PIECE ? all - at : PIECE;
        geul_source_read(a, at, n, x);
        geul_source_read(b, at, n, y);
        if (memcmp(x, y, (size_t)n * sizeof *x) != 0)
            return false;
    }
    return true;
}

/* Tied embeddings of which both are stored, with other values, are not tied: what is stored is used, as in transformers
 * 5. */
static void untie(struct job *j)
{
    for (size_t i = 0; i < j->count && j->config.tied_embeddings; i++) {
        if (j->tensors[i].info->when != GEUL_NEOX_WHEN_UNTIED)
            continue;
        const struct geul_source_tensor *out = find_named(j, &j->tensors[i]),
                                        *in = find_named(j, tied_to(j, &j->tensors[i]));
        if (!out || !in || same_values(in, out))
            continue;
        char text[100];
        j->config.tied_embeddings = false;
        geul_log(
            j->ctx, GEUL_LOG_WARN,
            "config.json says tie_word_embeddings, but %s has other values than the embedding; it is used as stored",
            geul_printable(out->name, text, sizeof text));
    }
}

/* Checks that s is what t must be. */
static enum geul_status check_source(const struct job *j, const struct geul_neox_tensor *t,
                                     const struct geul_source_tensor *s)
{
    char a[100], b[60];
    if (!s)
        return geul_fail(j->ctx, GEUL_ERROR_FORMAT, "%s: tensor %s of shape %s is missing%s", j->dir, t->hf,
                         geul_dims_text(t->n_dims, t->shape, a, sizeof a),
                         t->info->when == GEUL_NEOX_WHEN_UNTIED ? ", and config.json does not say tie_word_embeddings"
                                                                : "");
    bool same = s->n_dims == t->n_dims;
    for (int i = 0; same && i < t->n_dims; i++)
        same = s->shape[i] == t->shape[i];
    if (!same)
        return geul_fail(j->ctx, GEUL_ERROR_FORMAT, "%s: tensor %s has shape %s where config.json asks for %s", j->dir,
                         s->name, geul_dims_text(s->n_dims, s->shape, a, sizeof a),
                         geul_dims_text(t->n_dims, t->shape, b, sizeof b));
    if (!geul_source_is_float(s))
        return geul_fail(j->ctx, GEUL_ERROR_UNSUPPORTED,
                         "%s: tensor %s is %s; weights must be floats (F32, F16, BF16, F64 or one of 8 bits)", j->dir,
                         s->name, geul_dtype_info(s->dtype)->name);
    return GEUL_OK;
}

/* Fails on a tensor that no GPT-NeoX model has: something of the model would be lost. used has a flag per tensor. */
static enum geul_status check_extra(const struct job *j, const bool *used)
{
    for (size_t i = 0; i < geul_checkpoint_count(j->checkpoint); i++) {
        const struct geul_source_tensor *s = geul_checkpoint_at(j->checkpoint, i);
        char text[100];
        if (!used[i] && !geul_neox_is_buffer(s->name))
            return geul_fail(
                j->ctx, GEUL_ERROR_UNSUPPORTED,
                "%s: holds tensor %s of shape %s, which is not part of the GPT-NeoX model that config.json "
                "describes",
                j->dir, s->name, geul_dims_text(s->n_dims, s->shape, text, sizeof text));
    }
    return GEUL_OK;
}

/* Pairs every tensor of the model with one of the checkpoint. */
static enum geul_status pair_tensors(struct job *j)
{
    size_t have = geul_checkpoint_count(j->checkpoint);
    /* the lists to come are as long as the layers that config.json claims */
    if ((uint64_t)j->config.n_layers > have)
        return geul_fail(j->ctx, GEUL_ERROR_FORMAT,
                         "%s: config.json says %lld layers, but there are %zu tensors in all", j->dir,
                         (long long)j->config.n_layers, have);
    j->tensors = geul_neox_tensor_list(j->ctx, &j->config, &j->count);
    j->moves = j->tensors ? geul_alloc(j->ctx, j->count, sizeof *j->moves) : NULL;
    bool *used = j->moves ? geul_alloc(j->ctx, have, sizeof *used) : NULL;
    enum geul_status status = used ? GEUL_OK : GEUL_ERROR_MEMORY;
    if (status == GEUL_OK)
        untie(j);
    for (size_t i = 0; status == GEUL_OK && i < j->count; i++) {
        const struct geul_neox_tensor *t = &j->tensors[i];
        j->moves[i].type = choose_type(j, t);
        size_t bytes = 0;
        /* a model without attention biases gets zeros (from stays NULL): the GGUF form always has them */
        if (t->info->when != GEUL_NEOX_WHEN_BIAS || j->config.attention_bias) {
            const struct geul_source_tensor *s = find_source(j, t);
            status = check_source(j, t, s);
            j->moves[i].from = s;
            if (status == GEUL_OK)
                used[s - geul_checkpoint_at(j->checkpoint, 0)] = true;
        }
        if (status == GEUL_OK && !geul_shape_bytes(j->moves[i].type, t->n_dims, t->shape, &bytes))
            status = geul_fail(j->ctx, GEUL_ERROR_FORMAT, "%s: tensor %s is impossibly large", j->dir, t->hf);
        j->total += bytes;
    }
    if (status == GEUL_OK)
        status = check_extra(j, used);
    geul_free(j->ctx, used);
    return status;
}

/* -------------------------------------------------------------------------------------- keys -- */

/* The last part of a path, "model" where there is none. */
static const char *base_name(const char *path, size_t *length)
{
    size_t end = strlen(path), start;
    while (end > 0 && path[end - 1] == '/')
        end--;
    for (start = end; start > 0 && path[start - 1] != '/';)
        start--;
    *length = end - start;
    if (*length == 0 || path[start] == '.') {
        *length = 5;
        return "model";
    }
    return path + start;
}

static void set_text(struct job *j, const char *key, const char *text)
{
    geul_gguf_set_string(j->writer, key, text, strlen(text));
}

/* The others deserve a mix or an importance matrix: `geul quantize`. */
enum geul_type geul_convert_type_at(size_t i)
{
    static const enum geul_type types[] = {GEUL_TYPE_F32,  GEUL_TYPE_F16,  GEUL_TYPE_BF16, GEUL_TYPE_Q8_0,
                                           GEUL_TYPE_Q5_1, GEUL_TYPE_Q5_0, GEUL_TYPE_Q4_1, GEUL_TYPE_Q4_0};
    return i < sizeof types / sizeof *types ? types[i] : GEUL_TYPE_COUNT;
}

/* Fails when matrices are not converted to type. */
static enum geul_status check_type(struct geul_context *ctx, enum geul_type type)
{
    char names[128] = "";
    size_t n = 0;
    enum geul_type other;
    for (size_t i = 0; (other = geul_convert_type_at(i)) != GEUL_TYPE_COUNT; i++) {
        if (other == type)
            return GEUL_OK;
        bool last = geul_convert_type_at(i + 1) == GEUL_TYPE_COUNT;
        if (n < sizeof names)
            n += (size_t)snprintf(names + n, sizeof names - n, "%s%s",
                                  i == 0 ? ""
                                  : last ? " or "
                                         : ", ",
                                  geul_type_name(other));
    }
    return geul_fail(ctx, GEUL_ERROR_ARGUMENT,
                     "a model cannot be converted to %s; use %s, or quantize the converted file", geul_type_name(type),
                     names);
}

static void set_general_keys(struct job *j)
{
    size_t length;
    const char *name = base_name(j->dir, &length);
    set_text(j, "general.architecture", "gptneox");
    set_text(j, "general.type", "model");
    geul_gguf_set_string(j->writer, "general.name", j->options->name ? j->options->name : name,
                         j->options->name ? strlen(j->options->name) : length);
    geul_gguf_set_u32(j->writer, "general.file_type", geul_mix_file_type(geul_mix_of_type(j->options->type)));
    geul_gguf_set_u32(j->writer, "general.quantization_version", GEUL_GGUF_QUANTIZATION_VERSION);
    geul_gguf_set_u32(j->writer, "general.alignment", ALIGNMENT);
    geul_neox_config_to_gguf(&j->config, j->writer);
}

/* Reads the directory's tokenizer, checks it by making one of it, and writes its keys. */
static enum geul_status set_tokenizer_keys(struct job *j)
{
    struct geul_tokenizer_spec spec;
    struct geul_tokenizer_notes notes;
    if (j->options->no_tokenizer)
        return GEUL_OK;
    if (!geul_tokenizer_files_exist(j->dir)) {
        geul_log(
            j->ctx, GEUL_LOG_WARN,
            "%s has no tokenizer.json: the file will hold ids only, no texts; for texts copy the model's there and "
            "convert again",
            j->dir);
        return geul_error_status(j->ctx);
    }
    geul_tokenizer_spec_init(&spec);
    enum geul_status status = geul_tokenizer_spec_from_directory(j->ctx, j->dir, &spec, &notes);
    if (status == GEUL_OK && spec.n_tokens > j->config.n_vocab)
        status = geul_fail(j->ctx, GEUL_ERROR_FORMAT, "%s: the tokenizer has %d tokens, but the model has %lld rows",
                           j->dir, spec.n_tokens, (long long)j->config.n_vocab);
    if (status == GEUL_OK)
        status = geul_tokenizer_write_gguf(j->ctx, j->writer, &spec, (int32_t)j->config.n_vocab);
    if (status == GEUL_OK) { /* what does not work is found now, not when the file is loaded */
        struct geul_tokenizer *tok = geul_tokenizer_new(j->ctx, &spec, geul_regex_pcre2());
        status = tok ? GEUL_OK : geul_error_status(j->ctx);
        geul_tokenizer_free(tok);
    }
    if (status == GEUL_OK)
        geul_tokenizer_notes_log(j->ctx, &notes);
    geul_tokenizer_spec_free(j->ctx, &spec);
    return status;
}

/* tokenizer.chat_template: from chat_template.jinja, otherwise from tokenizer_config.json (a text, or the one named
 * "default" in a list). */
static enum geul_status set_template_key(struct job *j)
{
    size_t length;
    char *text = geul_kept_read(j->ctx, j->dir, "chat_template.jinja", &length);
    if (text)
        geul_gguf_set_string(j->writer, "tokenizer.chat_template", text, length);
    geul_free(j->ctx, text);
    char *path = text ? NULL : geul_os_join_path(j->ctx, j->dir, "tokenizer_config.json");
    if (path && geul_os_exists(path)) {
        json_t *json = geul_json_load(j->ctx, path);
        const json_t *t = json_object_get(json, "chat_template"), *entry;
        size_t i;
        /* of a list t becomes the default's text; a list without one gives no template */
        json_array_foreach((json_t *)(uintptr_t)(json_is_array(t) ? t : NULL), i, entry)
        {
            const char *name = json_string_value(json_object_get(entry, "name"));
            if (name && strcmp(name, "default") == 0)
                t = json_object_get(entry, "template");
        }
        if (json_is_string(t))
            geul_gguf_set_string(j->writer, "tokenizer.chat_template", json_string_value(t), json_string_length(t));
        json_decref(json);
    }
    geul_free(j->ctx, path);
    return geul_error_status(j->ctx);
}

/* ----------------------------------------------------------------------------------- tensors -- */

/* Takes a piece of output: writes it and reports progress. */
static enum geul_status take_piece(void *user, const void *data, size_t bytes)
{
    struct job *j = user;
    geul_gguf_write_data(j->writer, data, bytes);
    j->done += bytes;
    if (geul_gguf_writer_status(j->writer) != GEUL_OK)
        return geul_gguf_writer_status(j->writer);
    if (j->options->progress && !j->options->progress(j->options->user, j->done, j->total))
        return geul_fail(j->ctx, GEUL_ERROR_CANCELLED, "stopped; nothing was written");
    return GEUL_OK;
}

/* Row r of a tensor of the checkpoint that is not as geul would hold it. */
static void fetch_row(const void *tensor, int64_t r, float *x, int64_t cols)
{
    geul_source_read(tensor, r * cols, cols, x);
}

/* Streams tensor i into the writer. The rows of QKV go from their order by head to all of Q, K and V. */
static enum geul_status move_tensor(struct job *j, size_t i)
{
    const struct geul_neox_tensor *t = &j->tensors[i];
    const struct move *m = &j->moves[i];
    bool rows = t->n_dims == 2 || t->info->by_head; /* a QKV bias: rows of one value, to be reordered */
    bool plain = m->from && geul_source_is_plain(m->from);
    struct geul_transcode how = {
        .data = plain ? m->from->data : NULL,
        .from = plain ? geul_dtype_info(m->from->dtype)->type : GEUL_TYPE_F32,
        .fetch = m->from && !plain ? fetch_row : NULL,
        .source = m->from,
        .to = m->type,
        .rows = rows ? t->shape[0] : 1,
        .cols = rows ? t->shape[1] : t->shape[0],
        .row_of = t->info->by_head ? geul_neox_qkv_row : NULL,
        .row_order = &j->config,
        .n_threads = j->options->n_threads,
        .sink = take_piece,
        .user = j,
    };
    struct geul_transcode_result result;
    enum geul_status status = geul_transcode_rows(j->ctx, &how, &result);
    if (m->from && !m->from->strided)
        geul_os_map_discard(m->from->data, m->from->bytes);
    if (status == GEUL_OK)
        status = geul_transcode_tell_lost(j->ctx, &result, t->hf, geul_type_name(m->type), j->options->strict);
    return status;
}

/* Whether the table of g is what was to be written. */
static bool is_as_written(const struct job *j, const struct geul_gguf *g)
{
    bool same = g && geul_gguf_tensor_count(g) == (int64_t)j->count;
    for (size_t i = 0; same && i < j->count; i++) {
        const struct geul_gguf_tensor *t = geul_gguf_find_tensor(g, j->tensors[i].gguf);
        same = t && t->type == j->moves[i].type && t->n_dims == j->tensors[i].n_dims &&
               t->shape[0] == j->tensors[i].shape[0] && t->shape[1] == j->tensors[i].shape[1];
    }
    return same;
}

/* Opens the finished file, which still has its temporary name, and looks at it. An older file at path stays if it does
 * not read back. Messages have the name that the user gave. */
static enum geul_status verify(const struct job *j, const char *path)
{
    struct geul_map map;
    struct geul_context *quiet = geul_context_new_like(j->ctx);
    if (!quiet)
        return geul_fail(j->ctx, GEUL_ERROR_MEMORY, "out of memory");
    bool mapped = geul_os_map(quiet, geul_gguf_writer_temporary(j->writer), &map) == GEUL_OK;
    struct geul_gguf *g = mapped ? geul_gguf_open_memory(quiet, map.data, map.size, path) : NULL;
    enum geul_status status = GEUL_OK;
    if (geul_error_status(quiet) == GEUL_ERROR_MEMORY)
        status = geul_fail_from(j->ctx, quiet);
    else if (!is_as_written(j, g))
        status = geul_fail(j->ctx, GEUL_ERROR_IO,
                           "%s: the written file does not read back as it should%s%s; check the disk and convert again",
                           path, mapped && !g ? ": " : "", mapped && !g ? geul_error(quiet) : "");
    geul_gguf_close(g);
    if (mapped)
        geul_os_unmap(&map);
    geul_context_free(quiet);
    return status;
}

/* Writes the whole file; GGUF has keys, then the table of tensors, then their data in the same order. */
static enum geul_status write_file(struct job *j, const char *out_path)
{
    j->writer = geul_gguf_writer_new(j->ctx, out_path);
    if (!j->writer)
        return geul_error_status(j->ctx);
    set_general_keys(j);
    enum geul_status status = set_tokenizer_keys(j);
    if (status == GEUL_OK)
        status = set_template_key(j);
    if (status == GEUL_OK)
        status = geul_kept_to_gguf(j->ctx, j->dir, j->writer);
    for (size_t i = 0; i < j->count; i++) /* all before the first byte of data, which fixes the table */
        geul_gguf_declare_tensor(j->writer, j->tensors[i].gguf, j->moves[i].type, j->tensors[i].n_dims,
                                 j->tensors[i].shape);
    for (size_t i = 0; status == GEUL_OK && i < j->count; i++)
        status = move_tensor(j, i);
    if (status == GEUL_OK)
        status = geul_gguf_writer_finish(j->writer);
    if (status == GEUL_OK)
        status = verify(j, out_path);
    if (status == GEUL_OK)
        return geul_gguf_writer_commit(j->writer);
    geul_gguf_writer_abandon(j->writer);
    return status;
}

enum geul_status geul_convert_hf(struct geul_context *ctx, const char *dir, const char *out_path,
                                 const struct geul_convert_options *options)
{
    struct geul_convert_options o;
    struct job j = {.ctx = ctx, .dir = dir, .options = &o};
    geul_error_clear(ctx);
    if (geul_take_struct(ctx, &o, sizeof o, options, "geul_convert_options") != GEUL_OK ||
        geul_check_threads(ctx, o.n_threads) != GEUL_OK)
        return GEUL_ERROR_ARGUMENT;
    enum geul_status status = check_type(ctx, o.type);
    if (status == GEUL_OK && (unsigned)o.gelu > GEUL_CONVERT_GELU_TANH)
        status = geul_fail(ctx, GEUL_ERROR_ARGUMENT, "there is no form %d of GELU", (int)o.gelu);
    geul_inputs_begin(ctx);
    if (status == GEUL_OK)
        status = read_config(&j);
    if (status == GEUL_OK) { /* dir is a directory */
        geul_os_input_directory(ctx, dir);
        j.checkpoint = geul_checkpoint_open(ctx, dir, &geul_neox_hf_names);
        status = j.checkpoint ? geul_hf_check_tensors(ctx, dir, j.checkpoint) : geul_error_status(ctx);
        if (status == GEUL_OK)
            status = pair_tensors(&j);
    }
    if (status == GEUL_OK)
        status = write_file(&j, out_path);
    geul_free(ctx, j.moves);
    geul_free(ctx, j.tensors);
    geul_checkpoint_close(j.checkpoint);
    geul_inputs_end(ctx);
    return status;
}
