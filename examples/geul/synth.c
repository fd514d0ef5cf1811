/* synth.c: models of random numbers, made block by block in the form in which the file holds them, so that 7 GB take as
 * long as the disk needs. */
#include "examples/geul/synth.h"

#include "examples/geul/progress.h"
#include "examples/geul/report.h"
#include "examples/geul/terminal.h"

#include "convert/json_file.h"
#include "convert/neox_tensors.h"
#include "core/tensor.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    PIECE = 1 << 16,  /* elements that one thread makes at a time; a multiple of every block */
    PIECES = 256,     /* made together before they are written: at most 64 MiB */
    LEVELS = 1 << 16, /* values that the plain types take */
    N_VOCAB = 30080,  /* as Polyglot-Ko */
    N_CONTEXT = 2048, /* as Polyglot-Ko */
    Q4_SCALES = 256,  /* scales of blocks differ a little, as real ones do */
};
static const double std_weight = 0.02;

static const struct {
    const char *name;
    int64_t n_layers, d_model, n_heads, n_rot;
} sizes[] = {
    {"1.3b", 24, 2048, 16, 64},
    {"3.8b", 32, 3072, 24, 64},
    {"5.8b", 28, 4096, 16, 64},
    {"12.8b", 40, 5120, 40, 64},
};

static struct geul_neox_config polyglot(size_t row)
{
    return (struct geul_neox_config){.n_layers = sizes[row].n_layers,
                                     .d_model = sizes[row].d_model,
                                     .d_ff = 4 * sizes[row].d_model,
                                     .n_heads = sizes[row].n_heads,
                                     .d_head = sizes[row].d_model / sizes[row].n_heads,
                                     .n_rot = sizes[row].n_rot,
                                     .n_context = N_CONTEXT,
                                     .n_vocab = N_VOCAB,
                                     .norm_eps = 1e-5,
                                     .rope_base = 10000,
                                     .parallel_residual = true,
                                     .attention_bias = true,
                                     .gelu = GEUL_GELU_ERF,
                                     .bos = -1,
                                     .eos = -1};
}

/* The shape that a name or a config.json gives. false after a message. */
static bool parse_shape(struct geul_context *ctx, const char *size, struct geul_synth *out)
{
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (strcmp(size, sizes[i].name) == 0) {
            out->config = polyglot(i);
            return true;
        }
    size_t n = strlen(size);
    if (n < 5 || strcmp(size + n - 5, ".json") != 0) {
        geul_report_usage("\"%s\" is no size; 1.3b, 3.8b, 5.8b, 12.8b and a config.json are possible", size);
        return false;
    }
    json_t *json = geul_json_load(ctx, size);
    bool ok = json && geul_neox_config_read(ctx, size, json, &out->config) == GEUL_OK;
    json_decref(json);
    if (!ok)
        geul_report_failure(ctx);
    return ok;
}

bool geul_synth_parse(struct geul_context *ctx, const char *text, struct geul_synth *out)
{
    const char *colon = strrchr(text, ':');
    char size[1024];
    if (!colon || (size_t)(colon - text) >= sizeof size) {
        geul_report_usage("\"%s\" is not SIZE:TYPE, for instance 1.3b:q8_0", text);
        return false;
    }
    snprintf(size, sizeof size, "%.*s", (int)(colon - text), text);
    out->type = geul_type_from_name(colon + 1);
    if (out->type == GEUL_TYPE_COUNT || out->type == GEUL_TYPE_I32) {
        geul_report_usage("\"%s\" is no type; f32, f16, bf16, q8_0 and q4_0 are possible", colon + 1);
        return false;
    }
    if (!parse_shape(ctx, size, out))
        return false;
    const char *slash = strrchr(size, '/');
    snprintf(out->label, sizeof out->label, "%.40s-%s", slash ? slash + 1 : size, geul_type_name(out->type));
    return true;
}

/* ------------------------------------------------------------------------------------------------ random blocks -- */

/* What the elements of one tensor are drawn from. */
struct source {
    enum geul_type type;
    double mean, std;
    uint64_t seed;
    float f32[LEVELS];    /* the values of the plain types: uniform, mean and std as above */
    uint16_t u16[LEVELS]; /* the same in f16 or bf16 */
    uint16_t scales[Q4_SCALES];
};

/* Word number i of a stream (splitmix64 as a hash of a counter, so that threads can begin anywhere). */
static inline uint64_t random_word(uint64_t seed, uint64_t i)
{
    uint64_t z = seed + (i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void prepare(struct source *s, enum geul_type type, double mean, double std, uint64_t seed)
{
    /* standard deviation of the whole numbers in a block: uniform in -127..127, and in -7..7 with 0 twice */
    double spread = type == GEUL_TYPE_Q8_0 ? sqrt(127.0 * 128.0 / 3.0) : sqrt(2.0 * 140.0 / 16.0);
    s->type = type;
    s->mean = mean;
    s->std = std;
    s->seed = seed;
    for (int i = 0; i < LEVELS; i++) {
        double uniform = 2.0 * (i + 0.5) / LEVELS - 1.0;
        s->f32[i] = (float)(mean + sqrt(3.0) * std * uniform);
        s->u16[i] = type == GEUL_TYPE_BF16 ? geul_f32_to_bf16(s->f32[i]) : geul_f32_to_f16(s->f32[i]);
    }
    for (int i = 0; i < Q4_SCALES; i++)
        s->scales[i] = geul_f32_to_f16((float)(std / spread * (0.75 + 0.5 * i / Q4_SCALES)));
}

/* n values from word number `at` on, four per word. */
static void fill_f32(const struct source *s, uint64_t at, float *out, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = s->f32[random_word(s->seed, at + (uint64_t)i / 4) >> (16 * (i & 3)) & 0xffff];
}

static void fill_u16(const struct source *s, uint64_t at, uint16_t *out, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = s->u16[random_word(s->seed, at + (uint64_t)i / 4) >> (16 * (i & 3)) & 0xffff];
}

/* Blocks of 32: a float16 scale, then 32 int8 between -127 and 127. Five words per block. */
static void fill_q8_0(const struct source *s, uint64_t at, uint8_t *out, int64_t n)
{
    for (int64_t b = 0; b < n / 32; b++, at += 5, out += 34) {
        memcpy(out, &s->scales[random_word(s->seed, at) & 0xff], 2);
        for (int w = 0; w < 4; w++) {
            uint64_t bytes = random_word(s->seed, at + 1 + (uint64_t)w);
            for (int i = 0; i < 8; i++) {
                uint8_t v = (uint8_t)(bytes >> (8 * i));
                out[2 + 8 * w + i] = v == 0x80 ? 0 : v;
            }
        }
    }
}

/* Blocks of 32: a float16 scale, then 32 nibbles, which mean nibble - 8. 0 becomes 8, so that the mean is 0. Three
 * words per block. */
static void fill_q4_0(const struct source *s, uint64_t at, uint8_t *out, int64_t n)
{
    for (int64_t b = 0; b < n / 32; b++, at += 3, out += 18) {
        memcpy(out, &s->scales[random_word(s->seed, at) & 0xff], 2);
        for (int w = 0; w < 2; w++) {
            uint64_t x = random_word(s->seed, at + 1 + (uint64_t)w);
            uint64_t zero = ~(x | x >> 1 | x >> 2 | x >> 3) & 0x1111111111111111u;
            x |= zero << 3;
            memcpy(out + 2 + 8 * w, &x, 8);
        }
    }
}

/* n elements (a multiple of the block) from element number `from` of the tensor on. */
static void fill(const struct source *s, int64_t from, uint8_t *out, int64_t n)
{
    uint64_t block = (uint64_t)(from / 32);
    if (s->type == GEUL_TYPE_Q4_0)
        fill_q4_0(s, 3 * block, out, n);
    else if (s->type == GEUL_TYPE_Q8_0)
        fill_q8_0(s, 5 * block, out, n);
    else if (s->type == GEUL_TYPE_F32)
        fill_f32(s, (uint64_t)from / 4, (float *)(void *)out, n);
    else
        fill_u16(s, (uint64_t)from / 4, (uint16_t *)(void *)out, n);
}

/* ------------------------------------------------------------------------------------------------------ writing -- */

static enum geul_type type_of(const struct geul_synth *synth, const struct geul_neox_tensor *t)
{
    return t->n_dims == 2 ? synth->type : GEUL_TYPE_F32;
}

/* Mean and deviation as training leaves them: what is added to the residual is small enough for any depth. */
static void distribution(const struct geul_synth *synth, const struct geul_neox_tensor *t, double *mean, double *std)
{
    bool residual = strstr(t->gguf, "attn_output.weight") || strstr(t->gguf, "ffn_down.weight");
    bool norm = strstr(t->gguf, "norm.weight");
    *mean = norm ? 1.0 : 0.0;
    *std = std_weight;
    if (residual)
        *std /= sqrt(2.0 * (double)synth->config.n_layers);
    else if (t->n_dims == 1 && !norm)
        *std /= 10;
}

/* State of one file that is being written. */
struct work {
    struct geul_context *ctx;
    struct geul_gguf_writer *w;
    struct source *source;
    uint8_t *buffer;
    uint64_t done, total; /* bytes */
};

/* Fills and writes one tensor. */
static enum geul_status write_tensor(struct work *k, int64_t elements)
{
    const struct source *s = k->source;
    size_t piece_bytes = (size_t)PIECE / (size_t)geul_type_block(s->type) * geul_type_bytes(s->type);
    for (int64_t from = 0; from < elements; from += (int64_t)PIECE * PIECES) {
        int64_t n = elements - from < (int64_t)PIECE * PIECES ? elements - from : (int64_t)PIECE * PIECES;
        int pieces = (int)((n + PIECE - 1) / PIECE);
#pragma omp parallel for schedule(static)
        for (int p = 0; p < pieces; p++) {
            int64_t rest = n - (int64_t)p * PIECE;
            fill(s, from + (int64_t)p * PIECE, k->buffer + (size_t)p * piece_bytes, rest < PIECE ? rest : PIECE);
        }
        size_t bytes = (size_t)(n / geul_type_block(s->type)) * geul_type_bytes(s->type);
        geul_gguf_write_data(k->w, k->buffer, bytes);
        k->done += bytes;
        geul_progress_update(k->done, k->total);
        if (geul_gguf_writer_status(k->w) != GEUL_OK)
            return geul_gguf_writer_status(k->w);
        if (geul_interrupted())
            return geul_fail(k->ctx, GEUL_ERROR_CANCELLED, "interrupted");
    }
    return GEUL_OK;
}

/* Keys and tensor declarations; adds up the bytes. */
static enum geul_status declare(struct work *k, const struct geul_synth *synth, const struct geul_neox_tensor *tensors,
                                size_t n)
{
    char name[96];
    snprintf(name, sizeof name, "synthetic %s", synth->label);
    geul_gguf_set_string(k->w, "general.architecture", "gptneox", strlen("gptneox"));
    geul_gguf_set_string(k->w, "general.name", name, strlen(name));
    geul_gguf_set_string(k->w, "tokenizer.ggml.model", "no_vocab", strlen("no_vocab")); /* llama.cpp wants to be told */
    geul_neox_config_to_gguf(&synth->config, k->w);
    for (size_t i = 0; i < n; i++) {
        size_t bytes;
        if (!geul_shape_bytes(type_of(synth, &tensors[i]), tensors[i].n_dims, tensors[i].shape, &bytes))
            return geul_fail(k->ctx, GEUL_ERROR_ARGUMENT,
                             "tensor %s has rows of %lld, which %s blocks of %lld do not fit", tensors[i].gguf,
                             (long long)tensors[i].shape[tensors[i].n_dims - 1], geul_type_name(synth->type),
                             (long long)geul_type_block(synth->type));
        geul_gguf_declare_tensor(k->w, tensors[i].gguf, type_of(synth, &tensors[i]), tensors[i].n_dims,
                                 tensors[i].shape);
        k->total += bytes;
    }
    return geul_gguf_writer_status(k->w);
}

/* Everything between opening and committing the file. */
static enum geul_status write_all(struct work *k, const struct geul_synth *synth, uint64_t seed)
{
    size_t n;
    struct geul_neox_tensor *tensors = geul_neox_tensor_list(k->ctx, &synth->config, &n);
    enum geul_status status = tensors ? declare(k, synth, tensors, n) : GEUL_ERROR_MEMORY;
    geul_progress_begin("writing", NULL);
    for (size_t i = 0; status == GEUL_OK && i < n; i++) {
        double mean, std;
        distribution(synth, &tensors[i], &mean, &std);
        prepare(k->source, type_of(synth, &tensors[i]), mean, std, random_word(seed, i));
        int64_t elements = tensors[i].shape[0] * (tensors[i].n_dims == 2 ? tensors[i].shape[1] : 1);
        status = write_tensor(k, elements);
    }
    geul_free(k->ctx, tensors);
    return status;
}

enum geul_status geul_synth_write(struct geul_context *ctx, const struct geul_synth *synth, uint64_t seed,
                                  const char *path)
{
    size_t widest = synth->type == GEUL_TYPE_F16 || synth->type == GEUL_TYPE_BF16 ? 2 : 4;
    struct work k = {.ctx = ctx, .w = geul_gguf_writer_new(ctx, path)};
    if (!k.w)
        return geul_error_status(ctx);
    k.source = geul_alloc(ctx, 1, sizeof *k.source);
    k.buffer = geul_alloc(ctx, (size_t)PIECE * PIECES, widest);
    enum geul_status status = k.source && k.buffer ? write_all(&k, synth, seed) : GEUL_ERROR_MEMORY;
    geul_progress_hide();
    if (status == GEUL_OK)
        status = geul_gguf_writer_commit(k.w);
    else
        geul_gguf_writer_abandon(k.w);
    geul_free(ctx, k.buffer);
    geul_free(ctx, k.source);
    return status;
}
