/* tokenizer_json.c: see tokenizer_json.h. */
#include "convert/tokenizer_json.h"
#include "formats/json_file.h"

#include <string.h>

#define MAX_NESTING 8    /* Sequences within Sequences */
#define SPARE_IDS   1024 /* gaps that are allowed between ids, beyond as many as there are tokens */

static const char file[] = "tokenizer.json";

struct reader {
    struct geul_context *ctx;
    struct geul_tokenizer_spec *spec;
};

static bool unsupported(struct reader *r, const char *what, const char *name)
{
    char text[64];
    geul_fail(r->ctx, GEUL_ERROR_UNSUPPORTED, "%s: %s \"%s\" is not supported", file, what,
              geul_printable(name, text, sizeof text));
    return false;
}

static bool malformed(struct reader *r, const char *what)
{
    geul_fail(r->ctx, GEUL_ERROR_FORMAT, "%s: %s", file, what);
    return false;
}

/* The member of an object if it is a string, NULL otherwise. */
static const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

/* A member that may be missing. */
static bool flag_of(const json_t *object, const char *key, bool otherwise)
{
    const json_t *v = json_object_get(object, key);
    return json_is_boolean(v) ? json_is_true(v) : otherwise;
}

static bool intern(struct reader *r, const json_t *string, struct geul_tok_text *out)
{
    return geul_tokenizer_spec_intern(r->ctx, r->spec, json_string_value(string), json_string_length(string), out);
}

/* ------------------------------------------------------------------------------------- steps -- */

/* {"String": "x"} or {"Regex": "x"}; old files have the text alone. */
static bool read_pattern(struct reader *r, const json_t *pattern, struct geul_tok_step *step)
{
    const json_t *regex = json_object_get(pattern, "Regex"), *text = json_object_get(pattern, "String");
    step->regex = json_is_string(regex);
    const json_t *chosen = step->regex ? regex : json_is_string(pattern) ? pattern : text;
    return json_is_string(chosen) ? intern(r, chosen, &step->text) : malformed(r, "a step's pattern is not a string");
}

static bool read_count(struct reader *r, const json_t *node, const char *key, int32_t *out)
{
    int64_t v = 0;
    bool set = geul_json_int(r->ctx, file, node, key, 0, 1000000, &v);
    *out = set ? (int32_t)v : 0;
    return geul_error_status(r->ctx) == GEUL_OK;
}

/* The fields of a step, by kind. */
static bool read_fields(struct reader *r, const json_t *node, struct geul_tok_step *step)
{
    const json_t *content = json_object_get(node, "content");
    const char *behavior = text_of(node, "behavior");
    switch (step->kind) {
    case GEUL_TOK_STEP_STRIP:
        step->left = flag_of(node, "strip_left", true);
        step->right = flag_of(node, "strip_right", true);
        return true;
    case GEUL_TOK_STEP_PREPEND:
        content = json_object_get(node, "prepend");
        return json_is_string(content) ? intern(r, content, &step->text) : malformed(r, "Prepend without a text");
    case GEUL_TOK_STEP_REPLACE:
    case GEUL_TOK_STEP_REPLACE_BACK:
        if (!json_is_string(content))
            return malformed(r, "Replace without a content");
        return intern(r, content, &step->content) && read_pattern(r, json_object_get(node, "pattern"), step);
    case GEUL_TOK_STEP_SPLIT:
    case GEUL_TOK_STEP_PUNCTUATION:
        step->invert = flag_of(node, "invert", false);
        step->behavior = behavior ? geul_tok_behavior_find(behavior, strlen(behavior)) : GEUL_TOK_BEHAVIOR_ISOLATED;
        if (step->behavior == GEUL_TOK_BEHAVIOR_COUNT)
            return unsupported(r, "behavior", behavior);
        return step->kind == GEUL_TOK_STEP_PUNCTUATION || read_pattern(r, json_object_get(node, "pattern"), step);
    case GEUL_TOK_STEP_BYTE_LEVEL:
        step->left = flag_of(node, "add_prefix_space", true);
        step->right = flag_of(node, "use_regex", true);
        return true;
    case GEUL_TOK_STEP_DIGITS:
        step->left = flag_of(node, "individual_digits", false);
        return true;
    case GEUL_TOK_STEP_STRIP_BACK:
        if (!json_is_string(content))
            return malformed(r, "Strip without a content");
        return intern(r, content, &step->text) && read_count(r, node, "start", &step->left) &&
               read_count(r, node, "stop", &step->right);
    default:
        return true;
    }
}

/* A step or a Sequence of steps; null is none. */
static bool read_stage(struct reader *r, enum geul_tok_stage stage, const json_t *node, int nesting)
{
    static const char *const names[] = {"normalizer", "pre-tokenizer", "decoder"};
    static const char *const lists[] = {"normalizers", "pretokenizers", "decoders"};
    if (!node || json_is_null(node))
        return true;
    const char *type = text_of(node, "type");
    if (!type)
        return malformed(r, "a step has no type");
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(node, lists[stage]), *item;
        size_t i;
        if (!json_is_array(list) || nesting >= MAX_NESTING)
            return malformed(r, "a Sequence has no list of steps, or is nested too deeply");
        json_array_foreach(list, i, item) if (!read_stage(r, stage, item, nesting + 1)) return false;
        return true;
    }
    struct geul_tok_step step = {.kind = geul_tok_step_find(stage, type, strlen(type))};
    step.text.at = step.content.at = GEUL_TOK_ABSENT;
    if (step.kind == GEUL_TOK_STEP_COUNT)
        return unsupported(r, names[stage], type);
    return read_fields(r, node, &step) && geul_tokenizer_spec_step(r->ctx, r->spec, &step);
}

/* -------------------------------------------------------------------------------- vocabulary -- */

/* The id of a token, below the limit. */
static bool read_id(struct reader *r, const json_t *v, size_t limit, int32_t *id)
{
    json_int_t n = json_is_integer(v) ? json_integer_value(v) : -1;
    if (n < 0 || (uint64_t)n >= limit || n >= INT32_MAX) {
        geul_fail(r->ctx, GEUL_ERROR_FORMAT,
                  "%s: a token has the id %" JSON_INTEGER_FORMAT ", which a vocabulary of this size cannot have", file,
                  n);
        return false;
    }
    *id = (int32_t)n;
    return true;
}

/* Reserves ids up to the highest, then sets the texts of the model's tokens and of the added ones. */
static bool read_vocabulary(struct reader *r, json_t *vocab, const json_t *added)
{
    const char *key;
    json_t *v;
    /* ids below twice the number of tokens, about: a small file cannot reserve a large table */
    size_t i, length, n = json_object_size(vocab) + json_array_size(added), limit = 2 * n + SPARE_IDS;
    int32_t id, top = -1;
    json_object_foreach(vocab, key, v)
    {
        if (!read_id(r, v, limit, &id))
            return false;
        top = id > top ? id : top;
    }
    json_array_foreach(added, i, v)
    {
        if (!read_id(r, json_object_get(v, "id"), limit, &id))
            return false;
        top = id > top ? id : top;
    }
    if (!geul_tokenizer_spec_reserve(r->ctx, r->spec, top + 1))
        return false;
    json_object_keylen_foreach(vocab, key, length, v)
    {
        if (!geul_tokenizer_spec_token(r->ctx, r->spec, (int32_t)json_integer_value(v), key, length))
            return false;
    }
    return true;
}

/* The added tokens, whose ids read_vocabulary() has checked. One may repeat a token of the vocabulary under its id. */
static bool read_added(struct reader *r, const json_t *list)
{
    size_t i;
    const json_t *v;
    json_array_foreach(list, i, v)
    {
        const json_t *content = json_object_get(v, "content");
        struct geul_tok_added a = {.id = (int32_t)json_integer_value(json_object_get(v, "id")),
                                   .special = flag_of(v, "special", false),
                                   .lstrip = flag_of(v, "lstrip", false),
                                   .rstrip = flag_of(v, "rstrip", false),
                                   .single_word = flag_of(v, "single_word", false)};
        a.normalized = flag_of(v, "normalized", !a.special);
        if (!json_is_string(content))
            return malformed(r, "an added token has no content");
        if (!geul_tokenizer_spec_token(r->ctx, r->spec, a.id, json_string_value(content),
                                       json_string_length(content)) ||
            !geul_tokenizer_spec_added(r->ctx, r->spec, &a))
            return false;
    }
    return true;
}

/* The merges, "left right" or, in newer files, ["left", "right"]; earlier ones have precedence. */
static bool read_merges(struct reader *r, const json_t *list)
{
    size_t i;
    const json_t *v;
    json_array_foreach(list, i, v)
    {
        if (json_is_string(v)) {
            if (!geul_tokenizer_spec_merge_line(r->ctx, r->spec, json_string_value(v), json_string_length(v), i))
                return false;
            continue;
        }
        const json_t *a = json_array_get(v, 0), *b = json_array_get(v, 1);
        if (json_array_size(v) != 2 || !json_is_string(a) || !json_is_string(b)) {
            geul_fail(r->ctx, GEUL_ERROR_FORMAT, "%s: merge %zu is neither a string nor a pair of strings", file, i);
            return false;
        }
        if (!geul_tokenizer_spec_merge(r->ctx, r->spec, json_string_value(a), json_string_length(a),
                                       json_string_value(b), json_string_length(b)))
            return false;
    }
    return true;
}

/* ----------------------------------------------------------------------------- post-processor -- */

/* Appends an id that a post-processor puts before or after a text. */
static bool add_border(struct reader *r, struct geul_tok_ids *list, const json_t *id)
{
    json_int_t v = json_is_integer(id) ? json_integer_value(id) : -1;
    if (v < 0 || v >= r->spec->n_tokens || r->spec->tokens[v].at == GEUL_TOK_ABSENT)
        return malformed(r, "the post-processor adds an id that is no token");
    if (list->n == GEUL_TOK_MAX_IDS)
        return malformed(r, "the post-processor adds too many tokens");
    list->id[list->n++] = (int32_t)v; /* not geul_tok_ids_add(): one may come twice */
    return true;
}

/* TemplateProcessing: a list of special tokens, each with its ids, around the text itself, sequence A. */
static bool read_template(struct reader *r, const json_t *node)
{
    const json_t *pieces = json_object_get(node, "single"), *known = json_object_get(node, "special_tokens"), *piece;
    size_t i, k;
    bool text = false;
    json_array_foreach(pieces, i, piece)
    {
        const json_t *special = json_object_get(piece, "SpecialToken"), *id;
        const char *name = text_of(special, "id"), *sequence = text_of(json_object_get(piece, "Sequence"), "id");
        if (sequence && strcmp(sequence, "A") == 0 && !text) {
            text = true;
            continue;
        }
        const json_t *ids = name ? json_object_get(json_object_get(known, name), "ids") : NULL;
        if (!json_is_array(ids))
            return malformed(r, "the post-processor's template is not special tokens around one text");
        json_array_foreach(ids, k, id) if (!add_border(r, text ? &r->spec->after : &r->spec->before, id)) return false;
    }
    return text || malformed(r, "the post-processor's template leaves the text out");
}

/* A post-processor, or a Sequence of them of which one adds tokens; null is none. */
static bool read_post_processor(struct reader *r, const json_t *node, int nesting)
{
    const char *type = text_of(node, "type");
    if (!node || json_is_null(node))
        return true;
    if (!type)
        return malformed(r, "the post-processor has no type");
    if (strcmp(type, "ByteLevel") == 0) /* concerns offsets only */
        return true;
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(node, "processors"), *item;
        size_t i;
        if (!json_is_array(list) || nesting >= MAX_NESTING)
            return malformed(r, "a Sequence has no list of steps, or is nested too deeply");
        json_array_foreach(list, i, item) if (!read_post_processor(r, item, nesting + 1)) return false;
        return true;
    }
    bool pair = strcmp(type, "BertProcessing") == 0 || strcmp(type, "RobertaProcessing") == 0;
    bool second = r->spec->before.n || r->spec->after.n;
    if ((!pair && strcmp(type, "TemplateProcessing") != 0) || second)
        return unsupported(r, second ? "a second post-processor" : "post-processor", type);
    if (!pair)
        return read_template(r, node);
    return add_border(r, &r->spec->before, json_array_get(json_object_get(node, "cls"), 1)) &&
           add_border(r, &r->spec->after, json_array_get(json_object_get(node, "sep"), 1));
}

/* The model's vocabulary, merges and flags. */
static bool read_model(struct reader *r, const json_t *root)
{
    const json_t *model = json_object_get(root, "model"), *added = json_object_get(root, "added_tokens");
    json_t *vocab = json_object_get(model, "vocab");
    const json_t *merges = json_object_get(model, "merges"), *unk = json_object_get(model, "unk_token");
    const char *type = text_of(model, "type");
    if (type && strcmp(type, "BPE") != 0)
        return unsupported(r, "model", type);
    if (!json_is_object(vocab) || !json_is_array(merges))
        return malformed(r, "the model has no vocab or no merges; geul reads BPE models");
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < 2; i++)
        if (json_string_length(json_object_get(model, affixes[i])) > 0)
            return unsupported(r, "the model's field", affixes[i]);
    /* tokens first: merges and added tokens refer to them */
    if (!read_vocabulary(r, vocab, added) || !read_added(r, added) || !read_merges(r, merges))
        return false;
    r->spec->ignore_merges = flag_of(model, "ignore_merges", false);
    r->spec->byte_fallback = flag_of(model, "byte_fallback", false);
    r->spec->fuse_unk = flag_of(model, "fuse_unk", false);
    return !json_is_string(unk) || intern(r, unk, &r->spec->unk);
}

enum geul_status geul_tokenizer_spec_from_json(struct geul_context *ctx, const char *json, size_t size,
                                               struct geul_tokenizer_spec *spec)
{
    json_t *root = geul_json_parse(ctx, file, json, size);
    enum geul_status status = root ? geul_tokenizer_spec_from_object(ctx, root, spec) : geul_error_status(ctx);
    json_decref(root);
    return status;
}

enum geul_status geul_tokenizer_spec_from_object(struct geul_context *ctx, const json_t *root,
                                                 struct geul_tokenizer_spec *spec)
{
    static const char *const keys[] = {"normalizer", "pre_tokenizer", "decoder"};
    struct reader r = {ctx, spec};
    bool ok = read_model(&r, root);
    for (int stage = 0; ok && stage < GEUL_TOK_STAGE_COUNT; stage++)
        ok = read_stage(&r, (enum geul_tok_stage)stage, json_object_get(root, keys[stage]), 0);
    ok = ok && read_post_processor(&r, json_object_get(root, "post_processor"), 0);
    return ok ? GEUL_OK : geul_error_status(ctx);
}
