/* tokenizer_spec.c: filling and freeing a spec (tokenizer.h). */
#include "tokenizer/tokenizer_spec.h"

#include <string.h>

static const struct geul_tok_step_info step_infos[] = {
#define REGEX                         GEUL_TOK_HAS_REGEX
#define TEXT                          GEUL_TOK_HAS_TEXT
#define CONTENT                       GEUL_TOK_HAS_CONTENT
#define BEHAVIOR                      GEUL_TOK_HAS_BEHAVIOR
#define INVERT                        GEUL_TOK_HAS_INVERT
#define LEFT                          GEUL_TOK_HAS_LEFT
#define RIGHT                         GEUL_TOK_HAS_RIGHT
#define STEP(id, name, stage, fields) {name, GEUL_TOK_STAGE_##stage, fields},
#include "tokenizer/steps.def"
#undef STEP
};

static const char *const behavior_names[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext",
                                             "Contiguous"};

const struct geul_tok_step_info *geul_tok_step_info(enum geul_tok_step_kind kind)
{
    return &step_infos[kind];
}

static bool equals(const char *name, const char *s, size_t n)
{
    return strlen(name) == n && memcmp(name, s, n) == 0;
}

enum geul_tok_step_kind geul_tok_step_find(enum geul_tok_stage stage, const char *name, size_t length)
{
    for (int i = 0; i < GEUL_TOK_STEP_COUNT; i++)
        if (step_infos[i].stage == stage && equals(step_infos[i].name, name, length))
            return (enum geul_tok_step_kind)i;
    return GEUL_TOK_STEP_COUNT;
}

const char *geul_tok_behavior_name(enum geul_tok_behavior behavior)
{
    return behavior_names[behavior];
}

enum geul_tok_behavior geul_tok_behavior_find(const char *name, size_t length)
{
    for (int i = 0; i < GEUL_TOK_BEHAVIOR_COUNT; i++)
        if (equals(behavior_names[i], name, length))
            return (enum geul_tok_behavior)i;
    return GEUL_TOK_BEHAVIOR_COUNT;
}

void geul_tokenizer_spec_init(struct geul_tokenizer_spec *spec)
{
    memset(spec, 0, sizeof *spec);
    spec->unk.at = GEUL_TOK_ABSENT;
    spec->bos = -1;
}

void geul_tokenizer_spec_free(struct geul_context *ctx, struct geul_tokenizer_spec *spec)
{
    geul_free(ctx, spec->pool);
    geul_free(ctx, spec->tokens);
    geul_free(ctx, spec->merges);
    geul_free(ctx, spec->added);
    for (int i = 0; i < GEUL_TOK_STAGE_COUNT; i++)
        geul_free(ctx, spec->stages[i].items);
    geul_tokenizer_spec_init(spec);
}

const char *geul_tokenizer_spec_text(const struct geul_tokenizer_spec *spec, struct geul_tok_text text)
{
    return text.at == GEUL_TOK_ABSENT || !spec->pool ? "" : spec->pool + text.at;
}

/* Room for one more item of size bytes in *items; grows by half. */
static bool grow(struct geul_context *ctx, void **items, size_t count, size_t *capacity, size_t size)
{
    if (count < *capacity)
        return true;
    size_t wanted = count < 16 ? 16 : count + count / 2;
    void *more = geul_realloc(ctx, *items, wanted, size);
    if (!more)
        return false;
    *items = more;
    *capacity = wanted;
    return true;
}

bool geul_tokenizer_spec_intern(struct geul_context *ctx, struct geul_tokenizer_spec *spec, const char *s, size_t n,
                                struct geul_tok_text *out)
{
    size_t need;
    if (!geul_add_size(spec->pool_length, n, &need)) {
        geul_fail_memory(ctx, SIZE_MAX);
        return false;
    }
    if (need > spec->pool_capacity || !spec->pool) { /* also for an empty text: texts that exist have a pool */
        size_t wanted = need < 256 ? 256 : need + need / 2;
        char *pool = geul_realloc(ctx, spec->pool, wanted, 1);
        if (!pool)
            return false;
        spec->pool = pool;
        spec->pool_capacity = wanted;
    }
    if (n)
        memcpy(spec->pool + spec->pool_length, s, n);
    *out = (struct geul_tok_text){spec->pool_length, n};
    spec->pool_length = need;
    return true;
}

bool geul_tokenizer_spec_reserve(struct geul_context *ctx, struct geul_tokenizer_spec *spec, int32_t n)
{
    spec->tokens = geul_alloc(ctx, (size_t)n, sizeof *spec->tokens);
    if (!spec->tokens)
        return false;
    spec->n_tokens = n;
    for (int32_t i = 0; i < n; i++)
        spec->tokens[i].at = GEUL_TOK_ABSENT;
    return true;
}

bool geul_tokenizer_spec_token(struct geul_context *ctx, struct geul_tokenizer_spec *spec, int32_t id, const char *s,
                               size_t n)
{
    if (id < 0 || id >= spec->n_tokens) {
        geul_fail(ctx, GEUL_ERROR_FORMAT, "tokenizer: token id %d is outside 0..%d", id, spec->n_tokens - 1);
        return false;
    }
    struct geul_tok_text *token = &spec->tokens[id];
    if (token->at != GEUL_TOK_ABSENT) {
        if (token->length == n && memcmp(spec->pool + token->at, s, n) == 0)
            return true;
        geul_fail(ctx, GEUL_ERROR_FORMAT, "tokenizer: id %d is given to two tokens, \"%.*s\" and \"%.*s\"", id,
                  (int)(token->length < 60 ? token->length : 60), spec->pool + token->at, (int)(n < 60 ? n : 60), s);
        return false;
    }
    return geul_tokenizer_spec_intern(ctx, spec, s, n, token);
}

bool geul_tokenizer_spec_merge(struct geul_context *ctx, struct geul_tokenizer_spec *spec, const char *left,
                               size_t n_left, const char *right, size_t n_right)
{
    struct geul_tok_merge merge;
    void *items = spec->merges;
    bool ok = grow(ctx, &items, spec->n_merges, &spec->merge_capacity, sizeof merge);
    spec->merges = items;
    if (!ok || !geul_tokenizer_spec_intern(ctx, spec, left, n_left, &merge.left) ||
        !geul_tokenizer_spec_intern(ctx, spec, right, n_right, &merge.right))
        return false;
    spec->merges[spec->n_merges++] = merge;
    return true;
}

bool geul_tokenizer_spec_merge_line(struct geul_context *ctx, struct geul_tokenizer_spec *spec, const char *s, size_t n,
                                    size_t number)
{
    const char *space = n ? memchr(s, ' ', n) : NULL;
    size_t left = space ? (size_t)(space - s) : 0, right = space ? n - left - 1 : 0;
    if (!left || !right || memchr(space + 1, ' ', right)) {
        geul_fail(ctx, GEUL_ERROR_FORMAT,
                  "tokenizer: merge %zu is \"%.*s\", not two tokens with one space between them", number,
                  (int)(n < 60 ? n : 60), s);
        return false;
    }
    return geul_tokenizer_spec_merge(ctx, spec, s, left, space + 1, right);
}

bool geul_tokenizer_spec_added(struct geul_context *ctx, struct geul_tokenizer_spec *spec,
                               const struct geul_tok_added *added)
{
    void *items = spec->added;
    bool ok = grow(ctx, &items, spec->n_added, &spec->added_capacity, sizeof *added);
    spec->added = items;
    if (ok)
        spec->added[spec->n_added++] = *added;
    return ok;
}

bool geul_tokenizer_spec_step(struct geul_context *ctx, struct geul_tokenizer_spec *spec,
                              const struct geul_tok_step *step)
{
    struct geul_tok_steps *steps = &spec->stages[step_infos[step->kind].stage];
    void *items = steps->items;
    bool ok = grow(ctx, &items, steps->count, &steps->capacity, sizeof *step);
    steps->items = items;
    if (ok)
        steps->items[steps->count++] = *step;
    return ok;
}

bool geul_tok_ids_have(const struct geul_tok_ids *list, int32_t id)
{
    for (int i = 0; i < list->n; i++)
        if (list->id[i] == id)
            return true;
    return false;
}

bool geul_tok_ids_add(struct geul_tok_ids *list, int32_t id)
{
    if (geul_tok_ids_have(list, id))
        return true;
    if (list->n == GEUL_TOK_MAX_IDS)
        return false;
    list->id[list->n++] = id;
    return true;
}

bool geul_tokenizer_spec_is_unused(const struct geul_tokenizer_spec *spec, int32_t id)
{
    static const char begins[] = "<|unused";
    const struct geul_tok_text *t = &spec->tokens[id];
    return id < spec->n_tokens && t->at != GEUL_TOK_ABSENT && t->length >= sizeof begins - 1 &&
           memcmp(spec->pool + t->at, begins, sizeof begins - 1) == 0;
}

int32_t geul_tokenizer_spec_find(const struct geul_tokenizer_spec *spec, const char *s, size_t n)
{
    for (int32_t i = 0; i < spec->n_tokens; i++)
        if (spec->tokens[i].at != GEUL_TOK_ABSENT && spec->tokens[i].length == n &&
            memcmp(spec->pool + spec->tokens[i].at, s, n) == 0)
            return i;
    return -1;
}
