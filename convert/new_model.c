/* new_model.c: see geul_tools.h. */
#include "geul_tools.h"

#include "convert/kept_files.h"
#include "convert/neox_tensors.h"
#include "convert/tokenizer_files.h"
#include "convert/tokenizer_json.h"
#include "core/check.h"
#include "core/os.h"
#include "core/random.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { VOCAB_STEP = 64, PIECE = 1 << 14 };

struct job {
    struct geul_context *ctx;
    const struct geul_new_model_options *o;
    struct geul_neox_config config;
    struct geul_gguf_writer *w;
    uint64_t done, total; /* bytes */
};

/* --------------------------------------------------------------------------------- tokenizer -- */

static void set_vocab(struct job *j, int64_t rows)
{
    if (j->config.n_vocab == 0)
        j->config.n_vocab = (rows + VOCAB_STEP - 1) / VOCAB_STEP * VOCAB_STEP;
}

/* Writes the tokenizer that spec describes, which path holds. */
static enum geul_status write_tokenizer(struct job *j, const char *path, struct geul_tokenizer_spec *spec)
{
    static const char end[] = "<|endoftext|>";
    int32_t usual = geul_tokenizer_spec_find(spec, end, sizeof end - 1);
    set_vocab(j, spec->n_tokens);
    if (spec->ends.n == 0 && usual >= 0)
        geul_tok_ids_add(&spec->ends, usual);
    if (spec->ends.n == 0)
        return geul_fail(j->ctx, GEUL_ERROR_ARGUMENT, "%s names no token that ends a text, and has no %s", path, end);
    if (spec->n_tokens > j->config.n_vocab)
        return geul_fail(j->ctx, GEUL_ERROR_ARGUMENT,
                         "%s has %d tokens; %lld rows are too few: give none, or at least as many", path,
                         spec->n_tokens, (long long)j->config.n_vocab);
    if (spec->bos < 0)
        spec->bos = spec->ends.id[0];
    return geul_tokenizer_write_gguf(j->ctx, j->w, spec, (int32_t)j->config.n_vocab);
}

/* The tokenizer of another model's file, whose rows may be more or fewer, with the texts that it keeps for exporting.
 */
static enum geul_status write_gguf_tokenizer(struct job *j, const char *path)
{
    static const char *const also[] = {"tokenizer.huggingface.json",
                                       "tokenizer.chat_template",
                                       "tokenizer.ggml.padding_token_id",
                                       "tokenizer.ggml.unknown_token_id",
                                       "geul.hf.tokenizer_config",
                                       "geul.hf.special_tokens_map",
                                       "geul.hf.added_tokens",
                                       "geul.hf.vocab",
                                       "geul.hf.merges"};
    struct geul_tokenizer_spec spec;
    struct geul_gguf *g = geul_gguf_open(j->ctx, path);
    geul_tokenizer_spec_init(&spec);
    enum geul_status status = g ? geul_tokenizer_spec_from_gguf(j->ctx, g, &spec) : geul_error_status(j->ctx);
    if (status == GEUL_OK) {
        while (spec.n_tokens > 0 && spec.tokens[spec.n_tokens - 1].at == GEUL_TOK_ABSENT)
            spec.n_tokens--; /* rows of padding */
        status = write_tokenizer(j, path, &spec);
    }
    for (int64_t i = 0; status == GEUL_OK && i < geul_gguf_key_count(g); i++)
        for (size_t k = 0; k < sizeof also / sizeof *also; k++)
            if (strcmp(geul_gguf_key_name(g, i), also[k]) == 0)
                geul_gguf_copy_key(j->w, g, i);
    geul_tokenizer_spec_free(j->ctx, &spec);
    geul_gguf_close(g);
    return status;
}

/* The tokenizer of a tokenizer.json, whose text is kept for exporting. */
static enum geul_status write_file_tokenizer(struct job *j, const char *path)
{
    struct geul_map map;
    struct geul_tokenizer_spec spec;
    if (geul_os_map(j->ctx, path, &map) != GEUL_OK)
        return geul_error_status(j->ctx);
    geul_tokenizer_spec_init(&spec);
    enum geul_status status = geul_tokenizer_spec_from_json(j->ctx, (const char *)map.data, map.size, &spec);
    if (status == GEUL_OK)
        status = write_tokenizer(j, path, &spec);
    if (status == GEUL_OK)
        geul_gguf_set_string(j->w, geul_kept_key("tokenizer.json"), (const char *)map.data, map.size);
    geul_tokenizer_spec_free(j->ctx, &spec);
    geul_os_unmap(&map);
    return status;
}

/* The tokenizer of a Hugging Face directory, whose files are kept for exporting. */
static enum geul_status write_directory_tokenizer(struct job *j, const char *path)
{
    struct geul_tokenizer_spec spec;
    struct geul_tokenizer_notes notes;
    geul_tokenizer_spec_init(&spec);
    enum geul_status status = geul_tokenizer_spec_from_directory(j->ctx, path, &spec, &notes);
    if (status == GEUL_OK)
        status = write_tokenizer(j, path, &spec);
    if (status == GEUL_OK)
        status = geul_kept_tokenizer_to_gguf(j->ctx, path, j->w);
    if (status == GEUL_OK)
        geul_tokenizer_notes_log(j->ctx, &notes);
    geul_tokenizer_spec_free(j->ctx, &spec);
    return status;
}

/* The tokenizer's keys, from the GGUF file, the tokenizer.json or the directory that o->tokenizer names. */
static enum geul_status set_tokenizer(struct job *j)
{
    const char *path = j->o->tokenizer, *dot = strrchr(path, '.');
    if (dot && strcmp(dot, ".gguf") == 0)
        return write_gguf_tokenizer(j, path);
    return dot && strcmp(dot, ".json") == 0 ? write_file_tokenizer(j, path) : write_directory_tokenizer(j, path);
}

/* ----------------------------------------------------------------------------------- weights -- */

/* Mean and deviation of a tensor's values. */
static void distribution(const struct job *j, const struct geul_neox_tensor *t, double *mean, double *deviation)
{
    double C = (double)j->config.d_model, L = (double)j->config.n_layers;
    bool normal = j->o->init == GEUL_INIT_NORMAL;
    const double deviations[GEUL_NEOX_STARTS] = {
        [GEUL_NEOX_START_SMALL] = normal ? 0.02 : sqrt(2 / (5 * C)),
        [GEUL_NEOX_START_RESIDUAL] = normal ? 0.02 : 2 / (L * sqrt(C)),
    };
    *mean = t->info->start == GEUL_NEOX_START_ONES ? 1 : 0;
    *deviation = deviations[t->info->start];
}

/* Normal numbers by Box and Muller: elements 2p and 2p + 1 are the cosine and the sine of pair p. Each is a function of
 * seed and index alone, however the tensor is cut into pieces. */
static void fill(float *out, size_t n, uint64_t seed, uint64_t from, double mean, double deviation)
{
    const double pi = 3.14159265358979323846;
    for (size_t i = 0; i < n; i++) {
        uint64_t pair = (from + i) / 2;
        double radius = sqrt(-2 * log(1 - geul_random_unit(seed, 2 * pair)));
        double angle = 2 * pi * geul_random_unit(seed, 2 * pair + 1);
        out[i] = (float)(mean + deviation * radius * ((from + i) % 2 ? sin(angle) : cos(angle)));
    }
}

/* Fills and writes tensor i of the model, a piece at a time. */
static enum geul_status write_tensor(struct job *j, const struct geul_neox_tensor *t, size_t i, float *piece)
{
    uint64_t elements = (uint64_t)t->shape[0] * (uint64_t)(t->n_dims == 2 ? t->shape[1] : 1);
    double mean, deviation;
    distribution(j, t, &mean, &deviation);
    for (uint64_t from = 0; from < elements && geul_gguf_writer_status(j->w) == GEUL_OK; from += PIECE) {
        size_t count = elements - from < PIECE ? (size_t)(elements - from) : PIECE;
        fill(piece, count, geul_random_bits(j->o->seed, i), from, mean, deviation);
        geul_gguf_write_data(j->w, piece, count * sizeof *piece);
        j->done += count * sizeof *piece;
        if (j->o->progress && !j->o->progress(j->o->user, j->done, j->total))
            return geul_fail(j->ctx, GEUL_ERROR_CANCELLED, "stopped; nothing was written");
    }
    return geul_gguf_writer_status(j->w);
}

/* Writes all tensors, each from its own seed: a hash of the model's seed and its number. */
static enum geul_status write_weights(struct job *j, const struct geul_neox_tensor *tensors, size_t n)
{
    float *piece = geul_alloc(j->ctx, PIECE, sizeof *piece);
    enum geul_status status = piece ? GEUL_OK : GEUL_ERROR_MEMORY;
    for (size_t i = 0; i < n && status == GEUL_OK; i++)
        status = write_tensor(j, &tensors[i], i, piece);
    geul_free(j->ctx, piece);
    return status;
}

/* Keys and declarations: everything that the size of the file follows from. The caller frees *tensors. */
static enum geul_status declare(struct job *j, struct geul_neox_tensor **tensors, size_t *n)
{
    *tensors = NULL;
    enum geul_status status = set_tokenizer(j);
    if (status != GEUL_OK)
        return status;
    geul_gguf_set_string(j->w, "general.architecture", "gptneox", 7);
    geul_gguf_set_string(j->w, "general.type", "model", 5);
    const char *name = j->o->name ? j->o->name : "geul";
    geul_gguf_set_string(j->w, "general.name", name, strlen(name));
    geul_gguf_set_u32(j->w, "general.file_type", 0); /* float32 */
    geul_neox_config_to_gguf(&j->config, j->w);
    *tensors = geul_neox_tensor_list(j->ctx, &j->config, n);
    if (!*tensors)
        return geul_error_status(j->ctx);
    for (size_t i = 0; i < *n; i++)
        geul_gguf_declare_tensor(j->w, (*tensors)[i].gguf, GEUL_TYPE_F32, (*tensors)[i].n_dims, (*tensors)[i].shape);
    j->total = geul_gguf_writer_bytes(j->w);
    return geul_gguf_writer_status(j->w);
}

/* Everything between opening and committing. */
static enum geul_status write_all(struct job *j)
{
    struct geul_neox_tensor *tensors;
    size_t n = 0;
    enum geul_status status = declare(j, &tensors, &n);
    if (status == GEUL_OK)
        status = write_weights(j, tensors, n);
    geul_free(j->ctx, tensors);
    return status;
}

/* Checks what the caller chose and fills in the rest. */
static enum geul_status choose_shape(struct job *j)
{
    enum { HEADS_MAX = 1 << 16 };
    const struct geul_new_model_options *o = j->o;
    const struct {
        const char *name;
        int value, least, most;
    } ranges[] = {
        {"n_layers", o->n_layers, 1, GEUL_NEOX_MOST_LAYERS},
        {"d_model", o->d_model, 1, GEUL_NEOX_MOST_WIDTH},
        {"n_heads", o->n_heads, 1, HEADS_MAX},
        {"d_ff", o->d_ff, 0, GEUL_NEOX_MOST_WIDTH},
        {"n_context", o->n_context, 0, GEUL_NEOX_MOST_POSITIONS},
        {"n_vocab", o->n_vocab, 0, GEUL_NEOX_MOST_VOCAB},
        {"gelu", (int)o->gelu, 0, GEUL_GELU_TANH},
        {"init", (int)o->init, 0, GEUL_INIT_NORMAL},
    };
    if (!o->tokenizer)
        return geul_fail(j->ctx, GEUL_ERROR_ARGUMENT, "a new model needs a tokenizer");
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (geul_check_range(j->ctx, ranges[i].name, ranges[i].value, ranges[i].least, ranges[i].most) != GEUL_OK)
            return GEUL_ERROR_ARGUMENT;
    const int head = o->d_model / o->n_heads, n_rot = o->n_rot < 0 ? 0 : o->n_rot ? o->n_rot : head / 4 * 2;
    if (o->d_model % o->n_heads != 0 || n_rot > head || n_rot % 2 != 0)
        return geul_fail(j->ctx, GEUL_ERROR_ARGUMENT,
                         "a new model of width %d cannot have %d heads, %d dimensions of each rotary", o->d_model,
                         o->n_heads, n_rot);
    j->config = (struct geul_neox_config){.n_layers = o->n_layers,
                                          .d_model = o->d_model,
                                          .d_ff = o->d_ff ? o->d_ff : 4 * (int64_t)o->d_model,
                                          .n_heads = o->n_heads,
                                          .d_head = head,
                                          .n_rot = n_rot,
                                          .n_context = o->n_context ? o->n_context : 2048,
                                          .n_vocab = o->n_vocab,
                                          .norm_eps = 1e-5,
                                          .rope_base = 10000,
                                          .parallel_residual = !o->sequential_residual,
                                          .attention_bias = true,
                                          .gelu = o->gelu,
                                          .bos = -1,
                                          .eos = -1};
    return GEUL_OK;
}

enum geul_status geul_new_model_write(struct geul_context *ctx, const char *path,
                                      const struct geul_new_model_options *options)
{
    struct geul_new_model_options o;
    struct job j = {.ctx = ctx, .o = &o};
    geul_error_clear(ctx);
    if (geul_take_struct(ctx, &o, sizeof o, options, "geul_new_model_options") != GEUL_OK ||
        choose_shape(&j) != GEUL_OK)
        return GEUL_ERROR_ARGUMENT;
    geul_inputs_begin(ctx);
    enum geul_status status = GEUL_OK;
    j.w = geul_gguf_writer_new(ctx, path);
    if (j.w && write_all(&j) == GEUL_OK) {
        status = geul_gguf_writer_commit(j.w);
    } else {
        geul_gguf_writer_abandon(j.w);
        status = geul_error_status(ctx);
    }
    geul_inputs_end(ctx);
    return status;
}

uint64_t geul_new_model_bytes(struct geul_context *ctx, const struct geul_new_model_options *options)
{
    struct geul_new_model_options o;
    struct geul_neox_tensor *tensors = NULL;
    struct job j = {.ctx = ctx, .o = &o};
    size_t n = 0;
    geul_error_clear(ctx);
    if (geul_take_struct(ctx, &o, sizeof o, options, "geul_new_model_options") != GEUL_OK ||
        choose_shape(&j) != GEUL_OK || !(j.w = geul_gguf_writer_new(ctx, NULL)))
        return 0;
    enum geul_status status = declare(&j, &tensors, &n);
    geul_free(ctx, tensors);
    geul_gguf_writer_abandon(j.w);
    return status == GEUL_OK ? j.total : 0;
}
