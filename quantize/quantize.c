/* quantize.c: see quantize_tensors.h.
 *
 * Everything is decided before the first byte is written, each from what stands above it:
 *
 *   list_tensors()   what the input has; vectors become F32
 *   choose_types()   types: first the rules, the first that matches a name; the rest by the mix or by the bound
 *   set_bytes()      bytes of each tensor
 *   assign_parts()   the part of the output that each tensor is in
 *   count_bytes()    bytes of the files, exactly: by writers that write nothing
 *
 * geul_quantize_write() then streams the tensors in the order of the input. Parts appear under their names only when
 * all of them are written.
 */
#include "quantize/quantize_tensors.h"

#include "geul_tools.h"
#include "quantize/transcode.h"
#include "core/check.h"
#include "core/gguf.h"
#include "core/gguf_kind.h"
#include "core/os.h"
#include "core/tensor.h"
#include "models/neox.h"
#include "quantize/budget.h"

#include <stdio.h>
#include <string.h>

enum { PARTS_MAX = 65535, BITS_MAX = 32 };

static bool is_block_type(enum geul_type type)
{
    return geul_type_block(type) > 1;
}

/* Whether the types of t may be chosen at all. */
static bool is_matrix(const struct geul_quantize_choice *t)
{
    return t->n_dims >= 2 && t->from != GEUL_TYPE_I32;
}

/* ------------------------------------------------------------------------------------- types -- */

/* Applies a rule to every matrix that it matches, unless an earlier rule did. ruled: a flag per tensor. A rule may
 * match only what earlier ones have settled; one that matches nothing is an error. */
static enum geul_status apply_rule(struct geul_quantize *q, const struct geul_quantize_rule *rule, bool *ruled)
{
    const struct geul_regex_engine *engine = geul_regex_pcre2();
    char why[160];
    int64_t matches = 0;
    void *regex = engine->compile(rule->pattern, strlen(rule->pattern), why, sizeof why);
    if (!regex)
        return geul_fail(q->ctx, GEUL_ERROR_ARGUMENT, "the pattern \"%.200s\" for tensor names is wrong: %s",
                         rule->pattern, why);
    for (int64_t i = 0; i < q->n_tensors; i++) {
        struct geul_quantize_choice *t = &q->tensors[i];
        size_t from, to;
        if (!is_matrix(t) || !engine->match(regex, t->name, strlen(t->name), 0, &from, &to))
            continue;
        matches++;
        if (ruled[i])
            continue;
        ruled[i] = true;
        t->to = geul_mix_fitting(rule->type, t->shape[t->n_dims - 1]);
        t->fell_back = t->to != rule->type;
    }
    engine->free(regex);
    if (matches == 0)
        return geul_fail(q->ctx, GEUL_ERROR_ARGUMENT,
                         "the pattern \"%.200s\" matches no matrix of %s; names look like blk.0.ffn_down.weight",
                         rule->pattern, geul_gguf_path(q->gguf));
    return GEUL_OK;
}

/* Bytes of all tensors in the output. */
static uint64_t tensor_bytes(const struct geul_quantize *q)
{
    uint64_t bytes = 0;
    for (int64_t i = 0; i < q->n_tensors; i++)
        bytes += q->tensors[i].to_bytes;
    return bytes;
}

/* Fills to_bytes from to. */
static enum geul_status set_bytes(struct geul_quantize *q)
{
    q->n_fallbacks = 0;
    for (int64_t i = 0; i < q->n_tensors; i++) {
        struct geul_quantize_choice *t = &q->tensors[i];
        size_t bytes;
        if (!geul_shape_bytes(t->to, t->n_dims, t->shape, &bytes))
            return geul_fail(q->ctx, GEUL_ERROR_FORMAT, "%s: tensor %s cannot be %s", geul_gguf_path(q->gguf), t->name,
                             geul_type_name(t->to));
        t->to_bytes = bytes;
        q->n_fallbacks += t->fell_back;
    }
    return GEUL_OK;
}

/* The number for general.file_type where no mix gives it: that of the type which most weights have. */
static uint32_t common_file_type(const struct geul_quantize *q)
{
    int64_t weights[GEUL_TYPE_COUNT] = {0};
    enum geul_type most = GEUL_TYPE_F32;
    for (int64_t i = 0; i < q->n_tensors; i++)
        if (is_matrix(&q->tensors[i]))
            weights[q->tensors[i].to] += q->tensors[i].elements;
    for (int i = 0; i < GEUL_TYPE_COUNT; i++)
        if (weights[i] > weights[most])
            most = (enum geul_type)i;
    return geul_mix_file_type(geul_mix_of_type(most));
}

/* Names the matrices that the importance matrix should know and does not. The embedding is looked up, not multiplied:
 * nobody collects its inputs. */
static void warn_of_gaps(const struct geul_quantize *q)
{
    enum { SHOWN = 4 };
    char names[SHOWN * (GEUL_MAX_NAME + 2) + 32] = "", embedding[GEUL_MAX_NAME];
    size_t length = 0;
    int64_t gaps = 0;
    geul_neox_tensor_name(embedding, geul_neox_role_info(GEUL_NEOX_ROLE_EMBEDDING), 0);
    for (int64_t i = 0; i < q->n_tensors; i++) {
        const struct geul_quantize_choice *t = &q->tensors[i];
        if (!is_matrix(t) || t->sums || !is_block_type(t->to) || strcmp(t->name, embedding) == 0)
            continue;
        if (gaps++ < SHOWN)
            length += (size_t)snprintf(names + length, sizeof names - length, "%s%s", gaps > 1 ? ", " : "", t->name);
    }
    if (gaps > SHOWN)
        snprintf(names + length, sizeof names - length, " and %lld more", (long long)(gaps - SHOWN));
    if (gaps > 0)
        geul_log(
            q->ctx, GEUL_LOG_WARN,
            "the importance matrix has no entry for %lld of the matrices to be quantized, whose columns count alike: "
            "%s",
            (long long)gaps, names);
}

/* Warnings before the work begins. */
static void warn(const struct geul_quantize *q)
{
    int64_t again = 0, matrices = 0;
    enum geul_type from = GEUL_TYPE_F32;
    for (int64_t i = 0; i < q->n_tensors; i++) {
        const struct geul_quantize_choice *t = &q->tensors[i];
        if (!is_matrix(t))
            continue;
        matrices++;
        if (t->to != t->from && is_block_type(t->from) && is_block_type(t->to)) {
            again++;
            from = t->from;
        }
    }
    if (again)
        geul_log(q->ctx, GEUL_LOG_WARN,
                 "%lld of %lld matrices are quantized already (such as %s) and lose precision a second time; start "
                 "from the f16 "
                 "or f32 file where there is one",
                 (long long)again, (long long)matrices, geul_type_name(from));
    if (q->options.imatrix)
        warn_of_gaps(q);
    if (q->n_fallbacks)
        geul_log(q->ctx, GEUL_LOG_WARN,
                 "%lld matrices have rows that do not fit their intended type and get the nearest one that fits",
                 (long long)q->n_fallbacks);
}

/* ----------------------------------------------------------------------------------- reading -- */

/* Looks up the importance of t's columns. */
static enum geul_status find_importance(const struct geul_quantize *q, struct geul_quantize_choice *t)
{
    const struct geul_imatrix_entry *e = q->options.imatrix ? geul_imatrix_find(q->options.imatrix, t->name) : NULL;
    if (!e || e->rows <= 0 || !is_matrix(t))
        return GEUL_OK;
    if (e->columns != t->shape[t->n_dims - 1])
        return geul_fail(q->ctx, GEUL_ERROR_ARGUMENT,
                         "the importance matrix has %lld columns for %s, which has rows of %lld; it belongs to another "
                         "model",
                         (long long)e->columns, t->name, (long long)t->shape[t->n_dims - 1]);
    t->sums = e->sums;
    return GEUL_OK;
}

/* Lists the tensors of the input, each with the type that it has; vectors are to be F32. Counts layers and weights. */
static enum geul_status list_tensors(struct geul_quantize *q)
{
    q->n_tensors = geul_gguf_tensor_count(q->gguf);
    q->tensors = geul_alloc(q->ctx, (size_t)q->n_tensors, sizeof *q->tensors);
    enum geul_status status = q->tensors ? GEUL_OK : GEUL_ERROR_MEMORY;
    uint64_t bytes = 0;
    for (int64_t i = 0; status == GEUL_OK && i < q->n_tensors; i++) {
        const struct geul_gguf_tensor *s = geul_gguf_tensor_at(q->gguf, i);
        struct geul_quantize_choice *t = &q->tensors[i];
        *t = (struct geul_quantize_choice){.name = s->name,
                                           .n_dims = s->n_dims,
                                           .from = s->type,
                                           .to = s->type,
                                           .from_bytes = s->bytes,
                                           .elements = 1,
                                           .source = s};
        for (int d = 0; d < s->n_dims; d++) {
            t->shape[d] = s->shape[d];
            t->elements *= s->shape[d];
        }
        int layer = geul_neox_layer_of(s->name);
        if (layer >= q->n_layers)
            q->n_layers = layer + 1;
        if (s->n_dims < 2 && s->type != GEUL_TYPE_I32)
            t->to = GEUL_TYPE_F32;
        bytes += s->bytes;
        q->elements += t->elements;
        status = find_importance(q, t);
    }
    q->from_bytes = geul_gguf_file_bytes(q->gguf);
    q->from_bpw = q->elements ? 8 * (double)bytes / (double)q->elements : 0;
    return status;
}

/* ------------------------------------------------------------------------------------- parts -- */

char *geul_quantize_part_name(const struct geul_quantize *q, const char *path, int64_t i)
{
    size_t length = strlen(path), size = length + 32;
    char *name = geul_alloc(q->ctx, size, 1);
    if (!name)
        return NULL;
    if (q->n_parts == 1) {
        memcpy(name, path, length);
        return name;
    }
    if (length > 5 && strcmp(path + length - 5, ".gguf") == 0)
        length -= 5;
    snprintf(name, size, "%.*s-%05lld-of-%05lld.gguf", (int)length, path, (long long)i + 1, (long long)q->n_parts);
    return name;
}

/* -------------------------------------------------------------------------------------- keys -- */

static bool starts_with(const char *s, const char *begin)
{
    return strncmp(s, begin, strlen(begin)) == 0;
}

/* Whether the output has its own value for a key. */
static bool is_own_key(const struct geul_quantize *q, const char *name)
{
    if (q->hooks.template_text && strcmp(name, "geul.template") == 0)
        return true;
    return strcmp(name, "general.file_type") == 0 || strcmp(name, "general.quantization_version") == 0 ||
           starts_with(name, "quantize.imatrix.") || starts_with(name, "split.");
}

/* The source of the importance, in llama.cpp's keys. */
static void set_imatrix_keys(const struct geul_quantize *q, struct geul_gguf_writer *w)
{
    const struct geul_imatrix *m = q->options.imatrix;
    const char *name = q->options.imatrix_name ? q->options.imatrix_name : "";
    geul_gguf_set_string(w, "quantize.imatrix.file", name, strlen(name));
    geul_gguf_set_string(w, "quantize.imatrix.dataset", m->dataset, strlen(m->dataset));
    geul_gguf_set_u32(w, "quantize.imatrix.entries_count", (uint32_t)m->n_entries);
    if (m->chunks)
        geul_gguf_set_u32(w, "quantize.imatrix.chunks_count", (uint32_t)m->chunks);
}

/* Sets the keys of a part: the model's are in the first only, as llama.cpp splits files. */
static void set_keys(const struct geul_quantize *q, struct geul_gguf_writer *w, int64_t part)
{
    for (int64_t i = 0; part == 0 && i < geul_gguf_key_count(q->gguf); i++)
        if (!is_own_key(q, geul_gguf_key_name(q->gguf, i)))
            geul_gguf_copy_key(w, q->gguf, i);
    if (part == 0) {
        geul_gguf_set_u32(w, "general.file_type", q->file_type);
        geul_gguf_set_u32(w, "general.quantization_version", GEUL_GGUF_QUANTIZATION_VERSION);
        if (q->hooks.template_text)
            geul_gguf_set_string(w, "geul.template", q->hooks.template_text, strlen(q->hooks.template_text));
        if (q->options.imatrix)
            set_imatrix_keys(q, w);
    }
    if (q->n_parts > 1) {
        geul_gguf_set_u16(w, "split.no", (uint16_t)part);
        geul_gguf_set_u16(w, "split.count", (uint16_t)q->n_parts);
        geul_gguf_set_i32(w, "split.tensors.count", (int32_t)q->n_tensors);
    }
}

/* A writer for part `part` with keys and declarations; path NULL: one that counts. NULL on failure. */
static struct geul_gguf_writer *open_part(const struct geul_quantize *q, const char *path, int64_t part)
{
    struct geul_gguf_writer *w = geul_gguf_writer_new(q->ctx, path);
    if (!w)
        return NULL;
    set_keys(q, w, part);
    for (int64_t i = 0; i < q->n_tensors; i++) {
        const struct geul_quantize_choice *t = &q->tensors[i];
        if (t->part == part)
            geul_gguf_declare_tensor(w, t->name, t->to, t->n_dims, t->shape);
    }
    if (geul_gguf_writer_status(w) == GEUL_OK)
        return w;
    geul_gguf_writer_abandon(w);
    return NULL;
}

/* An upper bound for the bytes of a part without its tensors: the table of tensors will need other padding, at most 31.
 * 0 after a failure. */
static uint64_t empty_part_bytes(const struct geul_quantize *q, int64_t part)
{
    struct geul_gguf_writer *w = geul_gguf_writer_new(q->ctx, NULL);
    if (!w)
        return 0;
    set_keys(q, w, part);
    uint64_t bytes = geul_gguf_writer_bytes(w) + 31;
    if (geul_gguf_writer_status(w) != GEUL_OK)
        bytes = 0;
    geul_gguf_writer_abandon(w);
    return bytes;
}

/* An upper bound for what a tensor adds to a file: its data with padding, and its row in the table. */
static uint64_t part_growth(const struct geul_quantize_choice *t)
{
    return t->to_bytes + strlen(t->name) + 24 + 8 * (uint64_t)t->n_dims + 31;
}

/* Gives every tensor its part of the output, in order. By the upper bounds above no part exceeds split_bytes, except
 * one of a single tensor. */
static enum geul_status assign_parts(struct geul_quantize *q)
{
    const struct geul_quantize_options *o = &q->options;
    q->n_parts = o->split_bytes ? PARTS_MAX : 1; /* more than 1, so that the keys of a split file are counted */
    uint64_t first = o->split_bytes ? empty_part_bytes(q, 0) : 1, other = o->split_bytes ? empty_part_bytes(q, 1) : 1;
    if (!first || !other)
        return geul_error_status(q->ctx);
    uint64_t bytes = first;
    int64_t part = 0, held = 0;
    for (int64_t i = 0; i < q->n_tensors; i++) {
        struct geul_quantize_choice *t = &q->tensors[i];
        bool full = (o->split_bytes && bytes + part_growth(t) > o->split_bytes) ||
                    (o->split_tensors && held == o->split_tensors) ||
                    (o->keep_split && i > 0 && t->source->part != t[-1].source->part);
        if (full && held > 0) {
            part++;
            bytes = other;
            held = 0;
        }
        bytes += part_growth(t);
        held++;
        t->part = part;
    }
    q->n_parts = part + 1;
    if (q->n_parts > PARTS_MAX)
        return geul_fail(q->ctx, GEUL_ERROR_ARGUMENT, "the output would have %lld parts; make them larger",
                         (long long)q->n_parts);
    return GEUL_OK;
}

/* Adds up the bytes of all parts. */
static enum geul_status count_bytes(struct geul_quantize *q)
{
    q->to_bpw = q->elements ? 8 * (double)tensor_bytes(q) / (double)q->elements : 0;
    q->to_bytes = 0;
    for (int64_t p = 0; p < q->n_parts; p++) {
        struct geul_gguf_writer *w = open_part(q, NULL, p);
        if (!w)
            return geul_error_status(q->ctx);
        q->to_bytes += geul_gguf_writer_bytes(w);
        enum geul_status status = geul_gguf_writer_status(w);
        geul_gguf_writer_abandon(w);
        if (status != GEUL_OK)
            return status;
    }
    return GEUL_OK;
}

/* ---------------------------------------------------------------------------------- deciding -- */

/* Parts and sizes, which follow from the types. */
static enum geul_status lay_out(struct geul_quantize *q)
{
    enum geul_status status = set_bytes(q);
    if (status == GEUL_OK)
        status = assign_parts(q);
    return status == GEUL_OK ? count_bytes(q) : status;
}

/* Chooses types under the bound. ruled: a flag per tensor whose type is settled. */
static enum geul_status choose_by_budget(struct geul_quantize *q, const bool *ruled)
{
    const struct geul_quantize_options *o = &q->options;
    bool by_bits = o->target_bpw > 0;
    uint64_t bits_limit = by_bits ? (uint64_t)(o->target_bpw * (double)q->elements / 8) : UINT64_MAX;
    uint64_t limit = o->max_bytes && o->max_bytes < bits_limit ? o->max_bytes : bits_limit;
    enum geul_status status = set_bytes(q);
    struct geul_budget *b = status == GEUL_OK ? geul_budget_measure(q, ruled) : NULL;
    bool fits = false;
    if (!b)
        return geul_error_status(q->ctx);
    /* The bound is for the file, the solver's limit for its tensors alone. How much the file adds to them (keys, table,
     * padding) is known when they have types, so the limit is lowered by what the file exceeds the bound, until it does
     * not. */
    while (status == GEUL_OK && !fits) {
        status = geul_budget_solve(b, q, limit);
        q->file_type = common_file_type(q);
        if (status == GEUL_OK)
            status = lay_out(q);
        fits = !o->max_bytes || q->to_bytes <= o->max_bytes;
        if (status == GEUL_OK && !fits && limit == 0) /* tensors of no bytes fit even into nothing; the keys do not */
            status = geul_fail(q->ctx, GEUL_ERROR_ARGUMENT, "%s needs at least %llu bytes, whatever its types",
                               geul_gguf_path(q->gguf), (unsigned long long)q->to_bytes);
        if (!fits)
            limit = limit > q->to_bytes - o->max_bytes ? limit - (q->to_bytes - o->max_bytes) : 0;
    }
    geul_budget_free(b);
    return status;
}

/* Decides the type of every tensor, and lays the output out. settled: rules come before the mix and the bound, and what
 * is not a matrix has no choice. */
static enum geul_status choose_types(struct geul_quantize *q)
{
    const struct geul_mix *mix = q->options.mix;
    bool *settled = geul_alloc(q->ctx, (size_t)q->n_tensors, sizeof *settled);
    enum geul_status status = settled ? GEUL_OK : GEUL_ERROR_MEMORY;
    for (int r = 0; status == GEUL_OK && r < q->options.n_rules; r++)
        status = apply_rule(q, &q->options.rules[r], settled);
    for (int64_t i = 0; status == GEUL_OK && i < q->n_tensors; i++) {
        struct geul_quantize_choice *t = &q->tensors[i];
        settled[i] |= !is_matrix(t);
        if (mix && !settled[i])
            t->to = geul_mix_type(mix, t->name, q->n_layers, t->n_dims, t->shape, &t->fell_back);
    }
    if (mix)
        q->file_type = geul_mix_file_type(mix);
    uint64_t kept; /* with keep_types all types stay as list_tensors() and the rules set them */
    if (q->options.keep_types)
        q->file_type = geul_gguf_u64(q->gguf, "general.file_type", &kept) ? (uint32_t)kept : common_file_type(q);
    if (status == GEUL_OK)
        status = mix || q->options.keep_types ? lay_out(q) : choose_by_budget(q, settled);
    geul_free(q->ctx, settled);
    return status;
}

static enum geul_status check_options(struct geul_context *ctx, const struct geul_quantize_options *o)
{
    if (!(o->target_bpw >= 0 && o->target_bpw <= BITS_MAX)) /* nor may it be NaN */
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "target_bpw is %g, not 0 to %d", o->target_bpw, BITS_MAX);
    bool bound = o->target_bpw > 0 || o->max_bytes > 0;
    if ((o->mix != NULL) + bound + o->keep_types != 1)
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT,
                         "set one of mix, keep_types and a size limit (target_bpw, max_bytes)");
    enum geul_status status = geul_check_threads(ctx, o->n_threads);
    if (status == GEUL_OK)
        status = geul_check_range(ctx, "split_tensors", o->split_tensors, 0, INT64_MAX);
    if (status == GEUL_OK)
        status = geul_check_array(ctx, "rules", o->rules, "n_rules", o->n_rules, 0);
    for (int i = 0; status == GEUL_OK && i < o->n_rules; i++) {
        status = geul_check_element(ctx, "rules", i, ".pattern", o->rules[i].pattern);
        if (status == GEUL_OK && !geul_type_is_weight(o->rules[i].type))
            status = geul_fail(ctx, GEUL_ERROR_ARGUMENT, "matrices cannot be %s", geul_type_name(o->rules[i].type));
    }
    return status;
}

struct geul_quantize *geul_quantize_new(struct geul_context *ctx, const char *path,
                                        const struct geul_quantize_options *options)
{
    struct geul_quantize_options o;
    geul_error_clear(ctx);
    struct geul_quantize_hooks hooks;
    if (geul_take_struct(ctx, &o, sizeof o, options, "geul_quantize_options") != GEUL_OK ||
        geul_take_struct(ctx, &hooks, sizeof hooks, o.hooks, "geul_quantize_hooks") != GEUL_OK ||
        check_options(ctx, &o) != GEUL_OK)
        return NULL;
    struct geul_quantize *q = geul_alloc(ctx, 1, sizeof *q);
    if (!q)
        return NULL;
    q->ctx = ctx;
    q->options = o;
    q->hooks = hooks;
    q->gguf = geul_gguf_open(ctx, path);
    enum geul_status status = q->gguf ? geul_gguf_check_model(ctx, q->gguf) : geul_error_status(ctx);
    if (status == GEUL_OK)
        status = list_tensors(q);
    if (status == GEUL_OK)
        status = choose_types(q);
    if (status == GEUL_OK) {
        warn(q);
        return q;
    }
    geul_quantize_free(q);
    return NULL;
}

void geul_quantize_free(struct geul_quantize *q)
{
    if (!q)
        return;
    geul_gguf_close(q->gguf);
    geul_free(q->ctx, q->tensors);
    geul_free(q->ctx, q);
}

void geul_quantize_get_summary(const struct geul_quantize *q, struct geul_quantize_summary *out)
{
    struct geul_quantize_summary s = {.n_tensors = q->n_tensors,
                                      .n_parts = q->n_parts,
                                      .n_fallbacks = q->n_fallbacks,
                                      .elements = q->elements,
                                      .from_bytes = q->from_bytes,
                                      .to_bytes = q->to_bytes,
                                      .from_bpw = q->from_bpw,
                                      .to_bpw = q->to_bpw};
    geul_give_struct(out, &s, sizeof s);
}

void geul_quantize_get_tensor(const struct geul_quantize *q, int64_t i, struct geul_quantize_tensor *out)
{
    const struct geul_quantize_choice none = {0}, *t = i >= 0 && i < q->n_tensors ? &q->tensors[i] : &none;
    struct geul_quantize_tensor s = {.name = t->name,
                                     .n_dims = t->n_dims,
                                     .shape = {t->shape[0], t->shape[1], t->shape[2], t->shape[3]},
                                     .from = t->from,
                                     .to = t->to,
                                     .from_bytes = t->from_bytes,
                                     .to_bytes = t->to_bytes,
                                     .fell_back = t->fell_back,
                                     .written = t->written,
                                     .error = t->error,
                                     .lost = t->lost};
    geul_give_struct(out, &s, sizeof s);
}

/* ----------------------------------------------------------------------------------- writing -- */

struct job {
    struct geul_quantize *q;
    const char *path;
    struct geul_gguf_writer **writers; /* one per part; NULL before it is opened and after its commit */
    int64_t part;                      /* that is being written */
    uint64_t done, total;              /* bytes of tensors */
};

/* Takes a piece of output: writes it and reports progress. */
static enum geul_status take_piece(void *user, const void *data, size_t bytes)
{
    struct job *j = user;
    const struct geul_quantize_options *o = &j->q->options;
    struct geul_gguf_writer *w = j->writers[j->part];
    geul_gguf_write_data(w, data, bytes);
    j->done += bytes;
    if (geul_gguf_writer_status(w) != GEUL_OK)
        return geul_gguf_writer_status(w);
    if (o->progress && !o->progress(o->user, j->done, j->total))
        return geul_fail(j->q->ctx, GEUL_ERROR_CANCELLED, "stopped; nothing was written");
    return GEUL_OK;
}

static enum geul_status write_tensor(struct job *j, struct geul_quantize_choice *t)
{
    const struct geul_quantize_options *o = &j->q->options;
    const struct geul_quantize_hooks *hooks = &j->q->hooks;
    /* any number of dimensions as rows of the last one: blocks and importance run along it */
    int64_t cols = t->n_dims ? t->shape[t->n_dims - 1] : 1;
    struct geul_transcode how = {
        .data = t->source->data,
        .from = t->from,
        .to = t->to,
        .rows = cols ? t->elements / cols : 0,
        .cols = cols,
        .change_how = hooks->changing ? hooks->changing(hooks->user, t->name) : NULL,
        .importance = t->sums,
        .n_threads = o->n_threads,
        .sink = take_piece,
        .user = j,
    };
    how.change = how.change_how ? hooks->change : NULL;
    struct geul_transcode_result result;
    enum geul_status status = geul_transcode_rows(j->q->ctx, &how, &result);
    t->error = result.norm > 0 ? result.error / result.norm : 0;
    t->lost = result.lost;
    t->written = status == GEUL_OK;
    if (status == GEUL_OK)
        status = geul_transcode_tell_lost(j->q->ctx, &result, t->name, geul_type_name(t->to), o->strict);
    return status;
}

/* Fails when an output would be refused, or all would not find room. */
static enum geul_status check_outputs(const struct job *j)
{
    enum geul_status status = geul_os_check_space(j->q->ctx, j->path, j->q->to_bytes);
    for (int64_t p = 0; status == GEUL_OK && p < j->q->n_parts; p++) {
        char *name = geul_quantize_part_name(j->q, j->path, p);
        status = name ? geul_outfile_check(j->q->ctx, name) : GEUL_ERROR_MEMORY;
        geul_free(j->q->ctx, name);
    }
    return status;
}

/* Removes what killed processes left of parts, also of another number of them. */
static void tidy_parts(const struct job *j)
{
    char *name = geul_quantize_part_name(j->q, j->path, 0);
    if (name) {
        name[strlen(name) - (sizeof "00001-of-00001.gguf" - 1)] = '\0';
        geul_outfile_tidy_set(j->q->ctx, name);
    }
    geul_free(j->q->ctx, name);
}

/* Finishes the part that is being written, if there is one, and opens the next. Finished parts are synced temporary
 * files: an error in a later part removes them. */
static enum geul_status next_part(struct job *j, int64_t part)
{
    if (j->writers[j->part] && geul_gguf_writer_finish(j->writers[j->part]) != GEUL_OK)
        return geul_error_status(j->q->ctx);
    char *name = geul_quantize_part_name(j->q, j->path, part);
    j->writers[part] = name ? open_part(j->q, name, part) : NULL;
    j->part = part;
    geul_free(j->q->ctx, name);
    return j->writers[part] ? GEUL_OK : geul_error_status(j->q->ctx);
}

/* Commits all parts, the first one last: it is the one that readers open, and it names the number of the others. */
static enum geul_status commit_parts(struct job *j)
{
    enum geul_status status = GEUL_OK;
    geul_outset_begin(j->q->ctx);
    for (int64_t p = j->q->n_parts - 1; status == GEUL_OK && p >= 0; p--) {
        status = geul_gguf_writer_commit(j->writers[p]);
        j->writers[p] = NULL;
    }
    if (status == GEUL_OK)
        return geul_outset_commit(j->q->ctx, NULL);
    geul_outset_abandon(j->q->ctx);
    return status;
}

enum geul_status geul_quantize_write(struct geul_quantize *q, const char *path)
{
    struct job j = {.q = q, .path = path, .total = tensor_bytes(q)};
    geul_error_clear(q->ctx);
    j.writers = geul_alloc(q->ctx, (size_t)q->n_parts, sizeof *j.writers);
    enum geul_status status = j.writers ? check_outputs(&j) : GEUL_ERROR_MEMORY;
    if (status == GEUL_OK && q->n_parts > 1)
        tidy_parts(&j);
    if (status == GEUL_OK)
        status = next_part(&j, 0);
    for (int64_t i = 0; status == GEUL_OK && i < q->n_tensors; i++) {
        if (q->tensors[i].part != j.part)
            status = next_part(&j, q->tensors[i].part);
        if (status == GEUL_OK)
            status = write_tensor(&j, &q->tensors[i]);
    }
    if (status == GEUL_OK)
        status = commit_parts(&j);
    for (int64_t p = 0; j.writers && p < q->n_parts; p++) /* after a failure; committed ones are NULL */
        geul_gguf_writer_abandon(j.writers[p]);
    geul_free(q->ctx, j.writers);
    return status;
}
