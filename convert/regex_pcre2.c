/* regex_pcre2.c: see regex_pcre2.h. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "convert/regex_pcre2.h"

#include <pcre2.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define MATCH_LIMIT 1000000 /* steps of backtracking within one match */
#define DEPTH_LIMIT 10000   /* nested backtracking points, without JIT */
#define HEAP_LIMIT  20000   /* KiB for them */

/* PCRE2 allocates what this holds by itself. */
struct regex {
    pcre2_code *code;
    pcre2_match_context *limits;
    _Atomic(pcre2_match_data *) spare; /* result block for the next match; another thread makes its own */
};

static void regex_free(void *compiled)
{
    struct regex *r = compiled;
    if (!r)
        return;
    pcre2_match_data_free(atomic_load(&r->spare));
    pcre2_match_context_free(r->limits);
    pcre2_code_free(r->code);
    free(r);
}

static void *regex_compile(const char *pattern, size_t length, char *error, size_t size)
{
    struct regex *r = calloc(1, sizeof *r);
    int code = 0;
    PCRE2_SIZE at = 0;
    if (!r) {
        snprintf(error, size, "out of memory");
        return NULL;
    }
    atomic_init(&r->spare, NULL);
    /* invalid UTF-8 in a text then matches nothing, instead of being undefined */
    r->code =
        pcre2_compile((PCRE2_SPTR)pattern, length,
                      PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF | PCRE2_NEVER_BACKSLASH_C, &code, &at, NULL);
    r->limits = r->code ? pcre2_match_context_create(NULL) : NULL;
    if (!r->limits) {
        PCRE2_UCHAR text[120] = "out of memory";
        if (!r->code)
            pcre2_get_error_message(code, text, sizeof text);
        snprintf(error, size, "%s (at byte %zu)", (const char *)text, (size_t)at);
        regex_free(r);
        return NULL;
    }
    pcre2_set_match_limit(r->limits, MATCH_LIMIT);
    pcre2_set_depth_limit(r->limits, DEPTH_LIMIT);
    pcre2_set_heap_limit(r->limits, HEAP_LIMIT);
    pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE); /* without JIT matching is only slower */
    return r;
}

static bool regex_match(void *compiled, const char *text, size_t length, size_t start, size_t *from, size_t *to)
{
    struct regex *r = compiled;
    if (start > length)
        return false;
    pcre2_match_data *data = atomic_exchange(&r->spare, NULL);
    if (!data)
        data = pcre2_match_data_create(1, NULL);
    if (!data)
        return false;
    /* 0: more groups than places; the whole match is in the first place all the same */
    bool found = pcre2_match(r->code, (PCRE2_SPTR)text, length, start, 0, data, r->limits) >= 0;
    if (found) {
        const PCRE2_SIZE *place = pcre2_get_ovector_pointer(data);
        *from = place[0];
        *to = place[1];
        found = *from <= *to;
    }
    pcre2_match_data_free(atomic_exchange(&r->spare, data));
    return found;
}

const struct geul_regex_engine *geul_regex_pcre2(void)
{
    static const struct geul_regex_engine engine = {regex_compile, regex_match, regex_free};
    return &engine;
}
