/* synth.c: models of random numbers, made block by block in the encoding of the file, so that 7 GB take only as long as
 * the disk needs. Blocks are drawn from a pool of random blocks, a separate one for each tensor. */
#include "command/bench/synth.h"

#include "command/progress.h"
#include "command/report.h"
#include "command/terminal.h"

#include "formats/json_file.h"
#include "convert/neox_tensors.h"
#include "core/block.h"
#include "core/half.h"
#include "core/random.h"
#include "core/team.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    PIECE = 1 << 16,  /* elements that one thread makes at a time; a multiple of every block */
    PIECES = 256,     /* made together before they are written: at most 64 MiB */
    POOL = 1 << 12,   /* different blocks of a tensor; at most 860 KiB */
    LEVELS = 1 << 16, /* values that the plain types take */
    N_VOCAB = 30080,  /* as Polyglot-Ko */
    N_CONTEXT = 2048, /* as Polyglot-Ko */
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
        geul_report_usage("\"%s\" is not a size; use 1.3b, 3.8b, 5.8b, 12.8b or a config.json", size);
        return false;
    }
    json_t *json = geul_json_load(ctx, size);
    bool ok = json && geul_neox_config_read(ctx, size, json, &out->config) == GEUL_OK;
    json_decref(json);
    if (!ok)
        geul_report_failure(ctx);
    return ok;
}

/* The names of all mixes, "f32, bf16, ..." */
static const char *mix_names(char *text, size_t size)
{
    size_t n = 0;
    text[0] = '\0';
    for (size_t i = 0; geul_mix_at(i) && n < size; i++)
        n += (size_t)snprintf(text + n, size - n, "%s%s", i ? ", " : "", geul_mix_name(geul_mix_at(i)));
    return text;
}

bool geul_synth_parse(struct geul_context *ctx, const char *text, struct geul_synth *out)
{
    const char *colon = strrchr(text, ':');
    char size[1024], names[512];
    if (!colon || (size_t)(colon - text) >= sizeof size) {
        geul_report_usage("\"%s\" is not SIZE:TYPE, for instance 1.3b:q8_0", text);
        return false;
    }
    snprintf(size, sizeof size, "%.*s", (int)(colon - text), text);
    out->mix = geul_mix_find(colon + 1);
    if (!out->mix) {
        geul_report_usage("\"%s\" is not a type; use one of %s", colon + 1, mix_names(names, sizeof names));
        return false;
    }
    if (!parse_shape(ctx, size, out))
        return false;
    const char *slash = strrchr(size, '/');
    snprintf(out->label, sizeof out->label, "%.40s-%s", slash ? slash + 1 : size, geul_mix_name(out->mix));
    return true;
}

static enum geul_type type_of(const struct geul_synth *synth, const struct geul_neox_tensor *t, bool *fell_back)
{
    return geul_mix_type(synth->mix, t->gguf, (int)synth->config.n_layers, t->n_dims, t->shape, fell_back);
}

bool geul_synth_fits(struct geul_context *ctx, const struct geul_synth *synth, const struct geul_gguf *g)
{
    struct geul_neox_config held;
    size_t n;
    if (geul_neox_config_from_gguf(ctx, g, &held) != GEUL_OK || !geul_neox_config_equal(&held, &synth->config))
        return false;
    struct geul_neox_tensor *tensors = geul_neox_tensor_list(ctx, &synth->config, &n);
    bool fits = tensors != NULL, fell_back;
    for (size_t i = 0; fits && i < n; i++) {
        const struct geul_gguf_tensor *t = geul_gguf_find_tensor(g, tensors[i].gguf);
        fits = t && t->type == type_of(synth, &tensors[i], &fell_back);
    }
    geul_free(ctx, tensors);
    return fits;
}

/* ----------------------------------------------------------------------------- random blocks -- */

/* What the elements of one tensor are drawn from. */
struct source {
    enum geul_type type;
    uint64_t seed;
    union {
        float f32[LEVELS];    /* the values of the plain types: uniform */
        uint16_t u16[LEVELS]; /* the same in f16 or bf16 */
        uint8_t pool[POOL * 256];
    } values;
};

/* A whole number from low to high out of a stream of random words; *at is the index of its next word. */
static int random_int(uint64_t seed, uint64_t *at, int low, int high)
{
    uint64_t range = (uint64_t)(high - low + 1);
    return low + (int)((geul_random_splitmix(seed, (*at)++) >> 32) * range >> 32);
}

/* Mean and deviation of v(q) when every q from low to the highest is as likely. */
static void value_moments(const struct geul_block_format *f, int low, double *mean, double *deviation)
{
    double sum = 0, squares = 0, n = f->q_high - low + 1;
    for (int q = low; q <= f->q_high; q++) {
        double v = f->codebook ? f->codebook[q] : q;
        sum += v;
        squares += v * v;
    }
    *mean = sum / n;
    *deviation = sqrt(squares / n - *mean * *mean);
}

/* Random blocks whose values have mean 0 and deviation std. Scales lie in the upper half of what the type stores and
 * differ between blocks; minima cancel the mean of q; types without them get scales of both signs. */
static void prepare_pool(struct source *s, const struct geul_block_format *f, double std)
{
    struct geul_block block;
    double mean, deviation, half = f->scale_high > 1 ? f->scale_high / 2.0 : 1;
    int low = f->q_low < -f->q_high ? -f->q_high : f->q_low, groups = f->block / f->group;
    uint64_t at = 0;
    value_moments(f, low, &mean, &deviation);
    /* the mean square of a number evenly between half and 2 * half is 7/3 of the square of half */
    double d = std / deviation / (f->scale_high > 1 ? half * sqrt(7.0 / 3) : 1);
    for (int i = 0; i < POOL; i++) {
        double dose = d * random_int(s->seed, &at, 192, 320) / 256;
        int sign = f->min_high == 0 && random_int(s->seed, &at, 0, 1) ? -1 : 1;
        block.d = (float)(f->scale_high > 1 ? dose : dose * sign);
        block.m = (float)(dose * mean * f->scale_high / (f->min_high ? f->min_high : 1));
        for (int g = 0; g < groups; g++) {
            int scale = f->scale_high > 1 ? random_int(s->seed, &at, (int)half, f->scale_high) : 1;
            block.scale[g] = (int16_t)(f->scale_low < 0 ? scale * sign : scale);
            block.min[g] = (int16_t)(f->min_high > 1 ? scale * f->min_high / f->scale_high : f->min_high);
        }
        for (int k = 0; k < f->block; k++)
            block.q[k] = (int16_t)random_int(s->seed, &at, low, f->q_high);
        geul_block_pack(s->type, &block, s->values.pool + (size_t)i * geul_type_bytes(s->type));
    }
}

static void prepare(struct source *s, enum geul_type type, double mean, double std, uint64_t seed)
{
    const struct geul_block_format *format = geul_block_format(type);
    s->type = type;
    s->seed = seed;
    if (format) {
        prepare_pool(s, format, std);
        return;
    }
    for (int i = 0; i < LEVELS; i++) {
        double uniform = 2.0 * (i + 0.5) / LEVELS - 1.0;
        float v = (float)(mean + sqrt(3.0) * std * uniform);
        if (type == GEUL_TYPE_F32)
            s->values.f32[i] = v;
        else
            s->values.u16[i] = type == GEUL_TYPE_BF16 ? geul_f32_to_bf16(v) : geul_f32_to_f16(v);
    }
}

/* n values from word number `at` on, four per word. */
static void fill_f32(const struct source *s, uint64_t at, float *out, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = s->values.f32[geul_random_splitmix(s->seed, at + (uint64_t)i / 4) >> (16 * (i & 3)) & 0xffff];
}

static void fill_u16(const struct source *s, uint64_t at, uint16_t *out, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = s->values.u16[geul_random_splitmix(s->seed, at + (uint64_t)i / 4) >> (16 * (i & 3)) & 0xffff];
}

/* n blocks of the pool, the first of them number `from` of the tensor; four per word. */
static void fill_blocks(const struct source *s, uint64_t from, uint8_t *out, int64_t n)
{
    size_t bytes = geul_type_bytes(s->type);
    for (int64_t i = 0; i < n; i++, out += bytes) {
        uint64_t block = from + (uint64_t)i;
        size_t row = geul_random_splitmix(s->seed ^ UINT64_MAX, block / 4) >> (16 * (block & 3)) & (POOL - 1);
        memcpy(out, s->values.pool + row * bytes, bytes);
    }
}

/* n elements (a multiple of the block) from element number `from` of the tensor on. */
static void fill(const struct source *s, int64_t from, uint8_t *out, int64_t n)
{
    int64_t block = geul_type_block(s->type);
    if (block > 1)
        fill_blocks(s, (uint64_t)(from / block), out, n / block);
    else if (s->type == GEUL_TYPE_F32)
        fill_f32(s, (uint64_t)from / 4, (float *)(void *)out, n);
    else
        fill_u16(s, (uint64_t)from / 4, (uint16_t *)(void *)out, n);
}

/* ----------------------------------------------------------------------------------- writing -- */

/* Mean and deviation as in trained models: what is added to the residual stream is small enough for any depth. */
static void distribution(const struct geul_synth *synth, const struct geul_neox_tensor *t, double *mean, double *std)
{
    const double deviations[GEUL_NEOX_STARTS] = {
        [GEUL_NEOX_START_ZEROS] = std_weight / 10,
        [GEUL_NEOX_START_ONES] = std_weight,
        [GEUL_NEOX_START_SMALL] = std_weight,
        [GEUL_NEOX_START_RESIDUAL] = std_weight / sqrt(2.0 * (double)synth->config.n_layers),
    };
    *mean = t->info->start == GEUL_NEOX_START_ONES ? 1 : 0;
    *std = deviations[t->info->start];
}

/* State of one file that is being written. */
struct work {
    struct geul_context *ctx;
    struct geul_gguf_writer *w;
    struct source *source;
    uint8_t *buffer;
    uint64_t done, total; /* bytes */
};

/* Elements [from, from + n) of a tensor, PIECE in each piece but the last. */
struct pieces {
    const struct source *source;
    uint8_t *buffer;
    size_t piece_bytes;
    int64_t from, n;
};

static void fill_piece(void *user, int64_t i, int thread)
{
    const struct pieces *p = user;
    int64_t start = i * PIECE, rest = p->n - start;
    (void)thread;
    fill(p->source, p->from + start, p->buffer + (size_t)i * p->piece_bytes, rest < PIECE ? rest : PIECE);
}

/* Fills and writes one tensor. */
static enum geul_status write_tensor(struct work *k, int64_t elements)
{
    const struct source *s = k->source;
    size_t piece_bytes = (size_t)PIECE / (size_t)geul_type_block(s->type) * geul_type_bytes(s->type);
    /* Every element follows from its number in the tensor alone, so pieces may be made in any order and by any number
     * of threads. Elements are a multiple of the block, so the last, shorter piece ends at a block too. */
    for (int64_t from = 0; from < elements; from += (int64_t)PIECE * PIECES) {
        int64_t n = elements - from < (int64_t)PIECE * PIECES ? elements - from : (int64_t)PIECE * PIECES;
        int pieces = (int)((n + PIECE - 1) / PIECE);
        geul_team_loop(0, pieces, fill_piece, &(struct pieces){s, k->buffer, piece_bytes, from, n});
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
    geul_gguf_set_string(k->w, "tokenizer.ggml.model", "no_vocab",
                         strlen("no_vocab")); /* llama.cpp requires this key */
    geul_gguf_set_u32(k->w, "general.file_type", geul_mix_file_type(synth->mix));
    geul_neox_config_to_gguf(&synth->config, k->w);
    int n_fell_back = 0;
    for (size_t i = 0; i < n; i++) {
        bool fell_back;
        size_t bytes;
        enum geul_type type = type_of(synth, &tensors[i], &fell_back);
        if (!geul_shape_bytes(type, tensors[i].n_dims, tensors[i].shape, &bytes))
            return geul_fail(k->ctx, GEUL_ERROR_ARGUMENT, "tensor %s of %s is too large", tensors[i].gguf,
                             synth->label);
        geul_gguf_declare_tensor(k->w, tensors[i].gguf, type, tensors[i].n_dims, tensors[i].shape);
        n_fell_back += fell_back;
        k->total += bytes;
    }
    if (n_fell_back > 0)
        geul_report_note("%d of %zu tensors got another type, since their rows do not fit the blocks of %s",
                         n_fell_back, n, geul_mix_name(synth->mix));
    return geul_gguf_writer_status(k->w);
}

/* Everything between opening and committing the file. */
static enum geul_status write_all(struct work *k, const struct geul_synth *synth, uint64_t seed)
{
    size_t n;
    struct geul_neox_tensor *tensors = geul_neox_tensor_list(k->ctx, &synth->config, &n);
    enum geul_status status = tensors ? declare(k, synth, tensors, n) : GEUL_ERROR_MEMORY;
    geul_progress_start("writing", NULL);
    for (size_t i = 0; status == GEUL_OK && i < n; i++) {
        double mean, std;
        bool fell_back;
        distribution(synth, &tensors[i], &mean, &std);
        prepare(k->source, type_of(synth, &tensors[i], &fell_back), mean, std, geul_random_splitmix(seed, i));
        int64_t elements = tensors[i].shape[0] * (tensors[i].n_dims == 2 ? tensors[i].shape[1] : 1);
        status = write_tensor(k, elements);
    }
    geul_free(k->ctx, tensors);
    return status;
}

enum geul_status geul_synth_write(struct geul_context *ctx, const struct geul_synth *synth, uint64_t seed,
                                  const char *path)
{
    struct work k = {.ctx = ctx, .w = geul_gguf_writer_new(ctx, path)};
    if (!k.w)
        return geul_error_status(ctx);
    k.source = geul_alloc(ctx, 1, sizeof *k.source);
    k.buffer = geul_alloc(ctx, (size_t)PIECE * PIECES, sizeof(float));
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
