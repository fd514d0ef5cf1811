/* end_ids.c: see end_ids.h. */
#include "convert/end_ids.h"

/* What one file says: a number or a list of numbers. */
static struct geul_tok_ids said_by(const json_t *file, int32_t n_tokens)
{
    struct geul_tok_ids ids = {.n = 0};
    const json_t *value = json_object_get(file, "eos_token_id");
    size_t n = json_is_array(value) ? json_array_size(value) : json_is_integer(value);
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_is_array(value) ? json_array_get(value, i) : value;
        if (json_is_integer(id) && json_integer_value(id) >= 0 && json_integer_value(id) < n_tokens)
            geul_tok_ids_add(&ids, (int32_t)json_integer_value(id));
    }
    return ids;
}

struct geul_tok_ids geul_end_ids_choose(const json_t *config, const json_t *generation, int32_t own, bool own_usual,
                                        int32_t n_tokens, bool *wrong)
{
    struct geul_tok_ids ids = said_by(generation, n_tokens), ends = {.n = 0};
    if (ids.n == 0)
        ids = said_by(config, n_tokens);
    *wrong = ids.n == 1 && ids.id[0] == 0 && own_usual && own > 0;
    if (*wrong)
        ids.n = 0;
    if (own >= 0 && (ids.n == 0 || geul_tok_ids_have(&ids, own)))
        geul_tok_ids_add(&ends, own);
    for (int i = 0; i < ids.n; i++)
        geul_tok_ids_add(&ends, ids.id[i]);
    return ends;
}

json_t *geul_end_ids_json(const struct geul_tok_ids *ends)
{
    if (ends->n < 2)
        return ends->n ? json_integer(ends->id[0]) : NULL;
    json_t *list = json_array();
    for (int i = 0; list && i < ends->n; i++)
        if (json_array_append_new(list, json_integer(ends->id[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}

bool geul_end_ids_equal(const struct geul_tok_ids *a, const struct geul_tok_ids *b)
{
    bool equal = a->n == b->n;
    for (int i = 0; equal && i < a->n; i++)
        equal = geul_tok_ids_have(b, a->id[i]);
    return equal;
}
