/* pattern_search.h: searching for a pattern of a tokenizer's steps. Patterns come from files and may be hostile: what
 * all searches within one text cost together is bounded. */
#ifndef GEUL_PATTERN_SEARCH_H
#define GEUL_PATTERN_SEARCH_H

#include "core/bytes.h"
#include "geul.h"

/* A compiled pattern. */
struct geul_search {
    const struct geul_regex_engine *engine;
    void *compiled;
    struct geul_slice pattern; /* for the message */
};

/* The steps that searching a text of n bytes may take in all. Usual patterns take a few per byte. */
uint64_t geul_search_budget(size_t n);
/* The next match in [s, s + n), valid UTF-8, at or after start. *budget is what is left for the text; when it does not
 * suffice, false and an error that names the pattern. What an engine answers is not trusted. */
bool geul_search_next(struct geul_context *ctx, const struct geul_search *search, const char *s, size_t n, size_t start,
                      size_t *from, size_t *to, uint64_t *budget);

#endif
