/* pattern_search.c: see pattern_search.h. */
#include "tokenizer/pattern_search.h"

#define STEPS_PER_TEXT 40000000 /* about a second of PCRE2's time at most */
#define STEPS_PER_BYTE 1000

uint64_t geul_search_budget(size_t n)
{
    return STEPS_PER_TEXT + (uint64_t)n * STEPS_PER_BYTE;
}

bool geul_search_next(struct geul_context *ctx, const struct geul_search *search, const char *s, size_t n, size_t start,
                      size_t *from, size_t *to, uint64_t *budget)
{
    const struct geul_regex_engine *engine = search->engine;
    bool found = engine->match_within ? engine->match_within(search->compiled, s, n, start, from, to, budget)
                                      : engine->match(search->compiled, s, n, start, from, to);
    if (!found && engine->match_within && *budget == 0)
        geul_fail(ctx, GEUL_ERROR_FORMAT,
                  "tokenizer: the pattern \"%.*s\" takes too long in a text: it is not one that a tokenizer can use",
                  (int)(search->pattern.n < 60 ? search->pattern.n : 60), search->pattern.s);
    return found && *from >= start && *to >= *from && *to <= n;
}
