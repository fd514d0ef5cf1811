/* tokenizer_gguf.c: a tokenizer's spec in the keys of a GGUF file.
 *
 * Standard keys (tokenizer.ggml.*) are written for llama.cpp and read when there is nothing better. What they cannot
 * say is in geul's own:
 *
 *     geul.tokenizer.normalizer      strings: each step's name, then its fields (steps.def)
 *     geul.tokenizer.pre_tokenizer   likewise
 *     geul.tokenizer.decoder         likewise
 *     geul.tokenizer.added_ids       int32s
 *     geul.tokenizer.added_flags     int32s: 1 special, 2 lstrip, 4 rstrip, 8 single_word, 16 normalized
 *     geul.tokenizer.flags           uint32: 1 ignore_merges, 2 byte_fallback, 4 fuse_unk
 *     geul.tokenizer.unk             string
 *     geul.tokenizer.end_ids         int32s, where there are more than eos, eot and eom can name
 *     geul.tokenizer.before_ids      int32s put before every text, where they are not the start token alone
 *     geul.tokenizer.after_ids       int32s put after it, where they are not the end token alone
 */
#include "core/bytes.h"
#include "tokenizer/scan.h"
#include "tokenizer/text_table.h"
#include "tokenizer/tokenizer.h"

#include <stdio.h>
#include <string.h>

enum { TYPE_NORMAL = 1, TYPE_CONTROL = 3, TYPE_USER_DEFINED = 4, TYPE_UNUSED = 5 };
enum { ADDED_SPECIAL = 1, ADDED_LSTRIP = 2, ADDED_RSTRIP = 4, ADDED_SINGLE_WORD = 8, ADDED_NORMALIZED = 16 };
enum { FLAG_IGNORE_MERGES = 1, FLAG_BYTE_FALLBACK = 2, FLAG_FUSE_UNK = 4 };

static const char *const stage_keys[GEUL_TOK_STAGE_COUNT] = {"geul.tokenizer.normalizer",
                                                             "geul.tokenizer.pre_tokenizer", "geul.tokenizer.decoder"};

/* Each of them ends a text, as in llama.cpp; the first is the one put after a text that is learned. */
static const char *const end_keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
#define N_END_KEYS ((int)(sizeof end_keys / sizeof *end_keys))

/* llama.cpp's names for ways of splitting, and what they are. digits: every digit is first split off as a word;
 * ignore_merges: also, the start token is put before every text unless a key says otherwise. Of several names for one
 * way the first is written. */
static const struct {
    const char *name;
    enum geul_scanner scanner;
    bool digits, ignore_merges;
} pre_names[] = {
    {"gpt-2", GEUL_SCANNER_GPT2, false, false},
    {"gpt2", GEUL_SCANNER_GPT2, false, false},
    {"default", GEUL_SCANNER_GPT2, false, false},
    {"mpt", GEUL_SCANNER_GPT2, false, false},
    {"olmo", GEUL_SCANNER_GPT2, false, false},
    {"jais", GEUL_SCANNER_GPT2, false, false},
    {"phi-2", GEUL_SCANNER_GPT2, false, false},
    {"roberta-bpe", GEUL_SCANNER_GPT2, false, false},
    {"exaone", GEUL_SCANNER_GPT2, true, false},
    {"starcoder", GEUL_SCANNER_GPT2, true, false},
    {"refact", GEUL_SCANNER_GPT2, true, false},
    {"command-r", GEUL_SCANNER_GPT2, true, false},
    {"smollm", GEUL_SCANNER_GPT2, true, false},
    {"codeshell", GEUL_SCANNER_GPT2, true, false},
    {"llama-bpe", GEUL_SCANNER_GPT4, false, true},
    {"llama3", GEUL_SCANNER_GPT4, false, true},
    {"llama-v3", GEUL_SCANNER_GPT4, false, true},
    {"falcon3", GEUL_SCANNER_GPT4, false, true},
    {"dbrx", GEUL_SCANNER_GPT4, false, false},
    {"smaug-bpe", GEUL_SCANNER_GPT4, false, false},
    {"qwen2", GEUL_SCANNER_QWEN2, false, false},
    {"stablelm2", GEUL_SCANNER_QWEN2, false, false},
    {"deepseek-r1-qwen", GEUL_SCANNER_QWEN2, false, false},
};

#define N_PRE (sizeof pre_names / sizeof *pre_names)

/* Records a failure about the tokenizer of g. Always false. */
static bool bad(struct geul_context *ctx, const struct geul_gguf *g, const char *what)
{
    geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: tokenizer: %s", geul_gguf_path(g), what);
    return false;
}

/* ----------------------------------------------------------------------------------- reading -- */

/* Whether token id is one of the padding rows that geul_tokenizer_write_gguf() adds. */
static bool is_padding(int64_t type, int32_t id, const char *s, size_t n)
{
    char name[24];
    int length = snprintf(name, sizeof name, "[PAD%d]", id);
    return type == TYPE_UNUSED && n == (size_t)length && memcmp(s, name, n) == 0;
}

/* Fills spec->tokens; without geul's own keys also the added tokens, from the token types. */
static bool read_tokens(struct geul_context *ctx, const struct geul_gguf *g, bool own, struct geul_tokenizer_spec *spec)
{
    struct geul_gguf_array tokens, types;
    if (!geul_gguf_get_array(g, "tokenizer.ggml.tokens", &tokens) || tokens.type != GEUL_GGUF_STRING)
        return bad(ctx, g, "the key tokenizer.ggml.tokens is missing or not an array of strings");
    bool typed = geul_gguf_get_array(g, "tokenizer.ggml.token_type", &types) && types.type != GEUL_GGUF_STRING;
    if (typed && types.count != tokens.count)
        return bad(ctx, g, "tokenizer.ggml.token_type and .tokens differ in length");
    if (tokens.count > INT32_MAX)
        return bad(ctx, g, "too many tokens");
    if (!geul_tokenizer_spec_reserve(ctx, spec, (int32_t)tokens.count))
        return false;
    for (int32_t id = 0; id < spec->n_tokens; id++) {
        const char *s;
        size_t n;
        if (!geul_gguf_array_next(&tokens, &s, &n))
            return bad(ctx, g, "the list of tokens ends early");
        int64_t type = typed ? geul_gguf_array_i64(&types, (uint64_t)id) : TYPE_NORMAL;
        if (is_padding(type, id, s, n))
            continue; /* a hole, as in the spec that was written */
        if (!geul_tokenizer_spec_token(ctx, spec, id, s, n))
            return false;
        struct geul_tok_added added = {.id = id, .special = type == TYPE_CONTROL};
        if (!own && (type == TYPE_CONTROL || type == TYPE_USER_DEFINED) &&
            !geul_tokenizer_spec_added(ctx, spec, &added))
            return false;
    }
    return true;
}

/* Merges are "left right"; the left side may begin with a space. */
static bool read_merges(struct geul_context *ctx, const struct geul_gguf *g, struct geul_tokenizer_spec *spec)
{
    struct geul_gguf_array merges;
    const char *s;
    size_t n;
    if (!geul_gguf_get_array(g, "tokenizer.ggml.merges", &merges) || merges.type != GEUL_GGUF_STRING)
        return bad(ctx, g, "the key tokenizer.ggml.merges is missing or not an array of strings");
    for (size_t i = 0; geul_gguf_array_next(&merges, &s, &n); i++)
        if (!geul_tokenizer_spec_merge_line(ctx, spec, s, n, i))
            return false;
    return true;
}

/* A small number in decimal, at most 9 digits. */
static bool to_number(const char *s, size_t n, int32_t *out)
{
    *out = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        *out = *out * 10 + (s[i] - '0');
    }
    return n > 0 && n < 10;
}

/* Reads one field of a step from its text. false: not a value of that field, or memory is short. */
static bool read_field(struct geul_context *ctx, struct geul_tokenizer_spec *spec, unsigned field, const char *s,
                       size_t n, struct geul_tok_step *step)
{
    int32_t number = 0;
    switch (field) {
    case GEUL_TOK_HAS_REGEX:
        step->regex = n == 5 && memcmp(s, "regex", 5) == 0;
        return step->regex || (n == 4 && memcmp(s, "text", 4) == 0);
    case GEUL_TOK_HAS_TEXT:
        return geul_tokenizer_spec_intern(ctx, spec, s, n, &step->text);
    case GEUL_TOK_HAS_CONTENT:
        return geul_tokenizer_spec_intern(ctx, spec, s, n, &step->content);
    case GEUL_TOK_HAS_BEHAVIOR:
        step->behavior = geul_tok_behavior_find(s, n);
        return step->behavior != GEUL_TOK_BEHAVIOR_COUNT;
    default:
        if (!to_number(s, n, &number))
            return false;
        *(field == GEUL_TOK_HAS_RIGHT ? &step->right : &step->left) = number;
        step->invert = field == GEUL_TOK_HAS_INVERT && number != 0;
        return true;
    }
}

static bool read_stage(struct geul_context *ctx, const struct geul_gguf *g, enum geul_tok_stage stage,
                       struct geul_tokenizer_spec *spec)
{
    struct geul_gguf_array array;
    const char *s;
    size_t n;
    if (!geul_gguf_has(g, stage_keys[stage]))
        return true;
    if (!geul_gguf_get_array(g, stage_keys[stage], &array) || array.type != GEUL_GGUF_STRING)
        return bad(ctx, g, "a list of steps is not an array of strings");
    while (geul_gguf_array_next(&array, &s, &n)) {
        struct geul_tok_step step = {.kind = geul_tok_step_find(stage, s, n)};
        step.text.at = step.content.at = GEUL_TOK_ABSENT;
        if (step.kind == GEUL_TOK_STEP_COUNT) {
            geul_fail(ctx, GEUL_ERROR_UNSUPPORTED,
                      "%s: tokenizer: %s has a step \"%.*s\" that this version does not know", geul_gguf_path(g),
                      stage_keys[stage], (int)(n < 40 ? n : 40), s);
            return false;
        }
        /* a string for every field of the kind, in the order of the bits: an array cannot be read out of step */
        for (unsigned field = 1; field <= GEUL_TOK_HAS_RIGHT; field *= 2)
            if ((geul_tok_step_info(step.kind)->fields & field) &&
                (!geul_gguf_array_next(&array, &s, &n) || !read_field(ctx, spec, field, s, n, &step)))
                return bad(ctx, g, "a step's fields are incomplete");
        if (!geul_tokenizer_spec_step(ctx, spec, &step))
            return false;
    }
    return true;
}

/* Reads what geul writes next to the standard keys. */
static bool read_own(struct geul_context *ctx, const struct geul_gguf *g, struct geul_tokenizer_spec *spec)
{
    for (int stage = 0; stage < GEUL_TOK_STAGE_COUNT; stage++)
        if (!read_stage(ctx, g, (enum geul_tok_stage)stage, spec))
            return false;
    struct geul_gguf_array ids, flags;
    if (geul_gguf_get_array(g, "geul.tokenizer.added_ids", &ids)) {
        if (!geul_gguf_get_array(g, "geul.tokenizer.added_flags", &flags) || ids.type == GEUL_GGUF_STRING ||
            flags.type == GEUL_GGUF_STRING || flags.count != ids.count)
            return bad(ctx, g, "geul.tokenizer.added_ids and .added_flags do not match");
        for (uint64_t i = 0; i < ids.count; i++) {
            int64_t id = geul_gguf_array_i64(&ids, i), f = geul_gguf_array_i64(&flags, i);
            struct geul_tok_added added = {.id = id < 0 || id > INT32_MAX ? -1 : (int32_t)id,
                                           .special = (f & ADDED_SPECIAL) != 0,
                                           .lstrip = (f & ADDED_LSTRIP) != 0,
                                           .rstrip = (f & ADDED_RSTRIP) != 0,
                                           .single_word = (f & ADDED_SINGLE_WORD) != 0,
                                           .normalized = (f & ADDED_NORMALIZED) != 0};
            if (!geul_tokenizer_spec_added(ctx, spec, &added))
                return false;
        }
    }
    uint64_t bits = 0;
    geul_gguf_u64(g, "geul.tokenizer.flags", &bits);
    spec->ignore_merges = (bits & FLAG_IGNORE_MERGES) != 0;
    spec->byte_fallback = (bits & FLAG_BYTE_FALLBACK) != 0;
    spec->fuse_unk = (bits & FLAG_FUSE_UNK) != 0;
    const char *s;
    size_t n;
    return !geul_gguf_string(g, "geul.tokenizer.unk", &s, &n) ||
           geul_tokenizer_spec_intern(ctx, spec, s, n, &spec->unk);
}

/* The steps that tokenizer.ggml.pre stands for. *adds_start: whether the start token is put before every text. */
static bool read_pre(struct geul_context *ctx, const struct geul_gguf *g, struct geul_tokenizer_spec *spec,
                     bool *adds_start)
{
    const char *name = "gpt-2"; /* where the key is missing */
    size_t n = 5, i = 0;
    geul_gguf_string(g, "tokenizer.ggml.pre", &name, &n);
    while (i < N_PRE && (strlen(pre_names[i].name) != n || memcmp(pre_names[i].name, name, n) != 0))
        i++;
    if (i == N_PRE) {
        geul_fail(ctx, GEUL_ERROR_UNSUPPORTED,
                  "%s: tokenizer.ggml.pre is \"%.*s\", which geul does not know; convert the model with geul convert",
                  geul_gguf_path(g), (int)(n < 40 ? n : 40), name);
        return false;
    }
    spec->ignore_merges = *adds_start = pre_names[i].ignore_merges;
    struct geul_tok_step digits = {.kind = GEUL_TOK_STEP_DIGITS, .left = 1};
    struct geul_tok_step bytes = {.kind = GEUL_TOK_STEP_BYTE_LEVEL, .right = pre_names[i].scanner == GEUL_SCANNER_GPT2};
    struct geul_tok_step split = {.kind = GEUL_TOK_STEP_SPLIT, .regex = true, .behavior = GEUL_TOK_BEHAVIOR_ISOLATED};
    const char *pattern = geul_scanner_pattern(pre_names[i].scanner);
    if (pre_names[i].digits && !geul_tokenizer_spec_step(ctx, spec, &digits))
        return false;
    if (!bytes.right && (!geul_tokenizer_spec_intern(ctx, spec, pattern, strlen(pattern), &split.text) ||
                         !geul_tokenizer_spec_step(ctx, spec, &split)))
        return false;
    return geul_tokenizer_spec_step(ctx, spec, &bytes);
}

static int32_t read_id(const struct geul_gguf *g, const char *key, int32_t n_tokens)
{
    uint64_t id;
    return geul_gguf_u64(g, key, &id) && id < (uint64_t)n_tokens ? (int32_t)id : -1;
}

/* Appends the ids of an array key to the list, those that are no tokens as well. false: there is no such key. */
static bool read_list(const struct geul_gguf *g, const char *key, struct geul_tok_ids *list)
{
    struct geul_gguf_array ids;
    if (!geul_gguf_get_array(g, key, &ids) || ids.type == GEUL_GGUF_STRING)
        return false;
    for (uint64_t i = 0; i < ids.count && list->n < GEUL_TOK_MAX_IDS; i++) {
        int64_t id = geul_gguf_array_i64(&ids, i);
        list->id[list->n++] = id < 0 || id > INT32_MAX ? -1 : (int32_t)id;
    }
    return true;
}

/* Polyglot-Ko's config.json, which converters copy, says that texts end with id 0, an unused token. */
static void right_unused_end(struct geul_context *ctx, const struct geul_gguf *g, struct geul_tokenizer_spec *spec)
{
    static const char end[] = "<|endoftext|>";
    int32_t right = geul_tokenizer_spec_find(spec, end, sizeof end - 1);
    if (spec->ends.n != 1 || spec->ends.id[0] != 0 || right <= 0 || !geul_tokenizer_spec_is_unused(spec, 0))
        return;
    geul_log(ctx, GEUL_LOG_WARN, "%s says that an unused token, id 0, ends a text; %s, id %d, is used instead",
             geul_gguf_path(g), end, right);
    spec->ends.id[0] = right;
    if (spec->bos == 0) /* by the same mistake */
        spec->bos = right;
}

/* Reads what begins and ends a text. own: geul wrote the file; adds_start: where no key says whether the start token is
 * put before it. */
static void read_borders(struct geul_context *ctx, const struct geul_gguf *g, bool own, bool adds_start,
                         struct geul_tokenizer_spec *spec)
{
    bool adds_end = false;
    spec->bos = read_id(g, "tokenizer.ggml.bos_token_id", spec->n_tokens);
    if (!read_list(g, "geul.tokenizer.end_ids", &spec->ends))
        for (int i = 0; i < N_END_KEYS; i++) {
            int32_t id = read_id(g, end_keys[i], spec->n_tokens);
            if (id >= 0)
                geul_tok_ids_add(&spec->ends, id);
        }
    if (!own)
        right_unused_end(ctx, g, spec);
    geul_gguf_bool(g, "tokenizer.ggml.add_bos_token", &adds_start);
    geul_gguf_bool(g, "tokenizer.ggml.add_eos_token", &adds_end);
    if (!read_list(g, "geul.tokenizer.before_ids", &spec->before) && adds_start && spec->bos >= 0)
        geul_tok_ids_add(&spec->before, spec->bos);
    if (!read_list(g, "geul.tokenizer.after_ids", &spec->after) && adds_end && spec->ends.n > 0)
        geul_tok_ids_add(&spec->after, spec->ends.id[0]);
}

bool geul_gguf_has_tokenizer(const struct geul_gguf *g)
{
    const char *model;
    size_t n;
    if (geul_gguf_string(g, "tokenizer.ggml.model", &model, &n) && n == 8 && memcmp(model, "no_vocab", 8) == 0)
        return false; /* how llama.cpp says that a file holds ids only */
    return geul_gguf_has(g, "tokenizer.ggml.model") || geul_gguf_has(g, "tokenizer.ggml.tokens") ||
           geul_gguf_has(g, "tokenizer.huggingface.json");
}

enum geul_status geul_tokenizer_spec_from_gguf(struct geul_context *ctx, const struct geul_gguf *g,
                                               struct geul_tokenizer_spec *spec)
{
    const char *model = "gpt2";
    size_t n = 4;
    if (!geul_gguf_has(g, "tokenizer.ggml.tokens"))
        return geul_fail(ctx, geul_gguf_has_tokenizer(g) ? GEUL_ERROR_UNSUPPORTED : GEUL_ERROR_FORMAT,
                         geul_gguf_has(g, "tokenizer.huggingface.json")
                             ? "%s: the tokenizer is present only as Hugging Face's JSON (tokenizer.huggingface.json), "
                               "which the library does not read; convert the model with geul convert"
                             : "%s: the file has no tokenizer (no key tokenizer.ggml.tokens)",
                         geul_gguf_path(g));
    geul_gguf_string(g, "tokenizer.ggml.model", &model, &n);
    if (n != 4 || memcmp(model, "gpt2", 4) != 0)
        return geul_fail(ctx, GEUL_ERROR_UNSUPPORTED, "%s: tokenizer.ggml.model is \"%.*s\"; geul reads \"gpt2\" only",
                         geul_gguf_path(g), (int)(n < 40 ? n : 40), model);
    /* Geul's own keys say everything; without them, tokenizer.ggml.pre and the token types have to do. */
    bool own = geul_gguf_has(g, stage_keys[GEUL_TOK_STAGE_SPLIT]), adds_start = false;
    if (!read_tokens(ctx, g, own, spec) || !read_merges(ctx, g, spec) ||
        !(own ? read_own(ctx, g, spec) : read_pre(ctx, g, spec, &adds_start)))
        return geul_error_status(ctx);
    read_borders(ctx, g, own, adds_start, spec);
    return GEUL_OK;
}

struct geul_tokenizer *geul_tokenizer_from_gguf(struct geul_context *ctx, const struct geul_gguf *g,
                                                const struct geul_regex_engine *engine)
{
    struct geul_tokenizer_spec spec;
    geul_tokenizer_spec_init(&spec);
    struct geul_tokenizer *tok = NULL;
    if (geul_tokenizer_spec_from_gguf(ctx, g, &spec) == GEUL_OK)
        tok = geul_tokenizer_new(ctx, &spec, engine);
    geul_tokenizer_spec_free(ctx, &spec);
    return tok;
}

struct geul_tokenizer *geul_tokenizer_load(struct geul_context *ctx, const char *gguf_path,
                                           const struct geul_regex_engine *engine)
{
    geul_error_clear(ctx);
    struct geul_gguf *g = geul_gguf_open(ctx, gguf_path);
    struct geul_tokenizer *tok = g ? geul_tokenizer_from_gguf(ctx, g, engine) : NULL;
    geul_gguf_close(g);
    return tok;
}

/* ----------------------------------------------------------------------------------- writing -- */

/* Strings being collected for an array, as offsets until all are there, because bytes moves as it grows. */
struct list {
    struct geul_bytes bytes;
    size_t *end;
    size_t n, capacity;
};

static bool list_add(struct geul_context *ctx, struct list *l, const char *s, size_t n)
{
    if (l->n == l->capacity) {
        size_t capacity = l->capacity + l->capacity / 2 + 64;
        size_t *end = geul_realloc(ctx, l->end, capacity, sizeof *end);
        if (!end)
            return false;
        l->end = end;
        l->capacity = capacity;
    }
    if (!geul_bytes_add(ctx, &l->bytes, s, n))
        return false;
    l->end[l->n++] = l->bytes.length;
    return true;
}

/* Sets the key to the list (unless ok is false) and frees the list. */
static bool list_write(struct geul_context *ctx, struct geul_gguf_writer *w, const char *key, struct list *l, bool ok)
{
    const char **s = ok ? geul_alloc(ctx, l->n, sizeof *s) : NULL;
    size_t *lengths = s ? geul_alloc(ctx, l->n, sizeof *lengths) : NULL;
    for (size_t i = 0; lengths && i < l->n; i++) {
        size_t from = i ? l->end[i - 1] : 0;
        s[i] = l->bytes.data ? l->bytes.data + from : "";
        lengths[i] = l->end[i] - from;
    }
    if (lengths)
        geul_gguf_set_strings(w, key, s, lengths, l->n);
    ok = lengths != NULL;
    geul_free(ctx, lengths);
    geul_free(ctx, s);
    geul_free(ctx, l->end);
    geul_free(ctx, l->bytes.data);
    return ok;
}

static bool add_text(struct geul_context *ctx, struct list *l, const struct geul_tokenizer_spec *spec,
                     struct geul_tok_text text)
{
    return list_add(ctx, l, geul_tokenizer_spec_text(spec, text), text.at == GEUL_TOK_ABSENT ? 0 : text.length);
}

static bool add_field(struct geul_context *ctx, struct list *l, const struct geul_tokenizer_spec *spec,
                      const struct geul_tok_step *step, unsigned field)
{
    char number[16];
    int32_t value = field == GEUL_TOK_HAS_RIGHT ? step->right : field == GEUL_TOK_HAS_LEFT ? step->left : step->invert;
    const char *name;
    switch (field) {
    case GEUL_TOK_HAS_REGEX:
        return list_add(ctx, l, step->regex ? "regex" : "text", step->regex ? 5 : 4);
    case GEUL_TOK_HAS_TEXT:
        return add_text(ctx, l, spec, step->text);
    case GEUL_TOK_HAS_CONTENT:
        return add_text(ctx, l, spec, step->content);
    case GEUL_TOK_HAS_BEHAVIOR:
        name = geul_tok_behavior_name(step->behavior);
        return list_add(ctx, l, name, strlen(name));
    default:
        return list_add(ctx, l, number, (size_t)snprintf(number, sizeof number, "%d", value));
    }
}

static bool write_stages(struct geul_context *ctx, struct geul_gguf_writer *w, const struct geul_tokenizer_spec *spec)
{
    bool ok = true;
    for (int stage = 0; ok && stage < GEUL_TOK_STAGE_COUNT; stage++) {
        const struct geul_tok_steps *steps = &spec->stages[stage];
        struct list l = {0};
        for (size_t i = 0; ok && i < steps->count; i++) {
            const struct geul_tok_step_info *info = geul_tok_step_info(steps->items[i].kind);
            ok = list_add(ctx, &l, info->name, strlen(info->name));
            for (unsigned field = 1; ok && field <= GEUL_TOK_HAS_RIGHT; field *= 2)
                if (info->fields & field)
                    ok = add_field(ctx, &l, spec, &steps->items[i], field);
        }
        ok = list_write(ctx, w, stage_keys[stage], &l, ok);
    }
    return ok;
}

/* Tokens and their types, padding rows included. */
static bool write_tokens(struct geul_context *ctx, struct geul_gguf_writer *w, const struct geul_tokenizer_spec *spec,
                         int32_t n_vocab)
{
    struct list l = {0};
    int32_t *types = geul_alloc(ctx, (size_t)n_vocab, sizeof *types);
    bool ok = types != NULL;
    for (int32_t id = 0; ok && id < n_vocab; id++) {
        char pad[24];
        bool real = id < spec->n_tokens && spec->tokens[id].at != GEUL_TOK_ABSENT;
        types[id] = real ? TYPE_NORMAL : TYPE_UNUSED;
        ok = real ? add_text(ctx, &l, spec, spec->tokens[id])
                  : list_add(ctx, &l, pad, (size_t)snprintf(pad, sizeof pad, "[PAD%d]", id));
    }
    for (size_t i = 0; ok && i < spec->n_added; i++)
        if (spec->added[i].id >= 0 && spec->added[i].id < n_vocab)
            types[spec->added[i].id] = spec->added[i].special ? TYPE_CONTROL : TYPE_USER_DEFINED;
    ok = list_write(ctx, w, "tokenizer.ggml.tokens", &l, ok);
    if (ok)
        geul_gguf_set_i32s(w, "tokenizer.ggml.token_type", types, (size_t)n_vocab);
    geul_free(ctx, types);
    return ok;
}

static bool write_merges(struct geul_context *ctx, struct geul_gguf_writer *w, const struct geul_tokenizer_spec *spec)
{
    struct list l = {0};
    struct geul_bytes line = {0};
    bool ok = true;
    for (size_t i = 0; ok && i < spec->n_merges; i++) {
        const struct geul_tok_merge *m = &spec->merges[i];
        const char *left = geul_tokenizer_spec_text(spec, m->left), *right = geul_tokenizer_spec_text(spec, m->right);
        if (memchr(left, ' ', m->left.length) || memchr(right, ' ', m->right.length)) {
            geul_fail(ctx, GEUL_ERROR_UNSUPPORTED, "tokenizer: merge %zu holds a space, which GGUF cannot express", i);
            ok = false;
            break;
        }
        line.length = 0;
        ok = geul_bytes_add(ctx, &line, left, m->left.length) && geul_bytes_add(ctx, &line, " ", 1) &&
             geul_bytes_add(ctx, &line, right, m->right.length) && list_add(ctx, &l, line.data, line.length);
    }
    geul_free(ctx, line.data);
    return list_write(ctx, w, "tokenizer.ggml.merges", &l, ok);
}

static bool write_added(struct geul_context *ctx, struct geul_gguf_writer *w, const struct geul_tokenizer_spec *spec)
{
    int32_t *ids = geul_alloc(ctx, 2 * spec->n_added + 1, sizeof *ids), *flags = ids + spec->n_added;
    if (!ids)
        return false;
    for (size_t i = 0; i < spec->n_added; i++) {
        const struct geul_tok_added *a = &spec->added[i];
        ids[i] = a->id;
        flags[i] = (a->special ? ADDED_SPECIAL : 0) | (a->lstrip ? ADDED_LSTRIP : 0) | (a->rstrip ? ADDED_RSTRIP : 0) |
                   (a->single_word ? ADDED_SINGLE_WORD : 0) | (a->normalized ? ADDED_NORMALIZED : 0);
    }
    geul_gguf_set_i32s(w, "geul.tokenizer.added_ids", ids, spec->n_added);
    geul_gguf_set_i32s(w, "geul.tokenizer.added_flags", flags, spec->n_added);
    geul_free(ctx, ids);
    return true;
}

/* llama.cpp's name for the way the spec splits; "default" where it has none. */
static const char *pre_name(const struct geul_tokenizer_spec *spec)
{
    const struct geul_tok_steps *steps = &spec->stages[GEUL_TOK_STAGE_SPLIT];
    const struct geul_tok_step *last = steps->count ? &steps->items[steps->count - 1] : NULL;
    if (!last || last->kind != GEUL_TOK_STEP_BYTE_LEVEL || steps->count > 2)
        return "default";
    const struct geul_tok_step *first = &steps->items[0];
    bool digits = steps->count == 2 && first->kind == GEUL_TOK_STEP_DIGITS && first->left;
    enum geul_scanner scanner = GEUL_SCANNER_COUNT;
    if (last->right && (steps->count == 1 || digits))
        scanner = GEUL_SCANNER_GPT2;
    else if (!last->right && steps->count == 2 && first->kind == GEUL_TOK_STEP_SPLIT && first->regex)
        scanner = geul_scanner_find(geul_tokenizer_spec_text(spec, first->text), first->text.length);
    for (size_t i = 0; i < N_PRE; i++)
        if (pre_names[i].scanner == scanner && pre_names[i].digits == digits)
            return pre_names[i].name;
    return "default";
}

/* What begins and ends a text: llama.cpp's keys say as much as they can, geul's own the rest. */
static void write_borders(struct geul_gguf_writer *w, const struct geul_tokenizer_spec *spec)
{
    const struct geul_tok_ids *ends = &spec->ends, *before = &spec->before, *after = &spec->after;
    int32_t bos = before->n == 1 ? before->id[0] : spec->bos;
    if (bos >= 0)
        geul_gguf_set_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)bos);
    for (int i = 0; i < ends->n && i < N_END_KEYS; i++)
        geul_gguf_set_u32(w, end_keys[i], (uint32_t)ends->id[i]);
    if (ends->n > N_END_KEYS)
        geul_gguf_set_i32s(w, "geul.tokenizer.end_ids", ends->id, (size_t)ends->n);
    bool ends_with_end = after->n == 1 && ends->n > 0 && after->id[0] == ends->id[0];
    geul_gguf_set_bool(w, "tokenizer.ggml.add_bos_token", before->n == 1);
    geul_gguf_set_bool(w, "tokenizer.ggml.add_eos_token", ends_with_end);
    if (before->n > 1)
        geul_gguf_set_i32s(w, "geul.tokenizer.before_ids", before->id, (size_t)before->n);
    if (after->n > 0 && !ends_with_end)
        geul_gguf_set_i32s(w, "geul.tokenizer.after_ids", after->id, (size_t)after->n);
}

enum geul_status geul_tokenizer_write_gguf(struct geul_context *ctx, struct geul_gguf_writer *w,
                                           const struct geul_tokenizer_spec *spec, int32_t n_vocab)
{
    if (n_vocab < spec->n_tokens)
        n_vocab = spec->n_tokens;
    const char *pre = pre_name(spec);
    geul_gguf_set_string(w, "tokenizer.ggml.model", "gpt2", 4);
    geul_gguf_set_string(w, "tokenizer.ggml.pre", pre, strlen(pre));
    if (!write_tokens(ctx, w, spec, n_vocab) || !write_merges(ctx, w, spec) || !write_stages(ctx, w, spec) ||
        !write_added(ctx, w, spec))
        return geul_error_status(ctx);
    write_borders(w, spec);
    geul_gguf_set_u32(w, "geul.tokenizer.flags",
                      (spec->ignore_merges ? FLAG_IGNORE_MERGES : 0u) |
                          (spec->byte_fallback ? FLAG_BYTE_FALLBACK : 0u) | (spec->fuse_unk ? FLAG_FUSE_UNK : 0u));
    if (spec->unk.at != GEUL_TOK_ABSENT)
        geul_gguf_set_string(w, "geul.tokenizer.unk", geul_tokenizer_spec_text(spec, spec->unk), spec->unk.length);
    return geul_gguf_writer_status(w);
}
