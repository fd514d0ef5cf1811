/* regex_pcre2.c: see geul_tools.h. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "geul_tools.h"

#include <pcre2.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MATCH_LIMIT 1000000 /* steps of backtracking within one match */
#define DEPTH_LIMIT 10000   /* nested backtracking points, without JIT */
#define HEAP_LIMIT  20000   /* KiB for them */

/* Limits for one position of a text, in steps, of regex_match_within(): the first is tried everywhere, the others one
 * after the other where it did not suffice. */
static const uint32_t tiers[] = {128, 512, 2048, 8192, 32768, 131072, 524288, 2097152};
#define N_TIERS     (sizeof tiers / sizeof *tiers)
#define WITHIN_HEAP 65536 /* KiB */
#define WINDOW      128   /* bytes of text that are looked at first */
#define WINDOW_STEP 64    /* bytes that cost as much as a step */

/* Not a context's memory: PCRE2 allocates what this holds. */
struct regex {
    pcre2_code *code;
    pcre2_match_context *limits;
    pcre2_code *counted; /* for regex_match_within(): interpreted, since only the interpreter counts every step */
    pcre2_match_context *tiers[N_TIERS];
    _Atomic(pcre2_match_data *) spare; /* result block for the next match; another thread makes its own */
};

static void regex_free(void *compiled)
{
    struct regex *r = compiled;
    if (!r)
        return;
    pcre2_match_data_free(atomic_load(&r->spare));
    pcre2_match_context_free(r->limits);
    for (size_t i = 0; i < N_TIERS; i++)
        pcre2_match_context_free(r->tiers[i]);
    pcre2_code_free(r->code);
    pcre2_code_free(r->counted);
    free(r);
}

/* What \s and \w mean to Oniguruma, which Hugging Face's tokenizers use; PCRE2 adds U+180E to the first and lacks marks
 * in the second. A property comes last, so that a hyphen after it in a class means itself. */
static const struct {
    char lower, upper;
    const char *members;
} classes[] = {
    {'s', 'S', "\\x{9}-\\x{D}\\x{85}\\p{Z}"},
    {'w', 'W',
     "\\x{24B6}-\\x{24E9}\\x{1F130}-\\x{1F149}\\x{1F150}-\\x{1F169}\\x{1F170}-\\x{1F189}"
     "\\p{Pc}\\p{N}\\p{M}\\p{L}"},
};

/* Writes the translation of the escape \letter into out (room for 128); returns its length. */
static size_t translate_escape(char letter, bool in_class, char *out)
{
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        if (letter == classes[i].lower)
            return (size_t)snprintf(out, 128, in_class ? "%s" : "[%s]", classes[i].members);
        if (letter == classes[i].upper && !in_class)
            return (size_t)snprintf(out, 128, "[^%s]", classes[i].members);
    }
    out[0] = '\\';
    out[1] = letter;
    return 2;
}

/* Whether p (after a backslash) begins the property of a script by its name, such as p{Hangul}. Names of categories
 * have at most two letters; PCRE2's own begin with X. */
static bool is_script(const char *p, const char *end)
{
    if (end - p < 6 || (*p != 'p' && *p != 'P') || p[1] != '{' || p[2] == 'X')
        return false;
    const char *name = p + 2, *q = name;
    while (q < end && ((*q >= 'A' && *q <= 'Z') || (*q >= 'a' && *q <= 'z') || *q == '_'))
        q++;
    return q < end && *q == '}' && q - name > 2 && memcmp(name, "Any", 3) != 0;
}

/* The pattern in PCRE2's terms: \s and \w spelled out and, if scripts, \p{Hangul} as \p{sc:Hangul}. (PCRE2 would
 * otherwise count characters that several scripts share, such as brackets, as Hangul.) malloc()ed, *n gets its length.
 * NULL when memory is short. */
static char *translate(const char *p, size_t length, bool scripts, size_t *n)
{
    const char *end = p + length;
    /* the longest translation turns the 2 bytes of an escape into 128; \p{ becomes \p{sc: */
    char *out = length < SIZE_MAX / 128 ? malloc(length * 72 + 128) : NULL;
    bool in_class = false;
    *n = 0;
    while (out && p < end) {
        if (*p == '\\' && end - p > 1) {
            bool script = scripts && is_script(p + 1, end);
            *n += script ? (size_t)snprintf(out + *n, 8, "\\%c{sc:", p[1]) : translate_escape(p[1], in_class, out + *n);
            p += script ? 3 : 2;
            continue;
        }
        char c = out[(*n)++] = *p++;
        if (in_class) {
            in_class = c != ']';
        } else if (c == '[') {
            in_class = true;
            if (p < end && *p == '^')
                out[(*n)++] = *p++;
            if (p < end && *p == ']') /* means itself here */
                out[(*n)++] = *p++;
        }
    }
    return out;
}

/* The compiled pattern, or NULL with PCRE2's error number (0: no memory) and the offset of the error. more: options. */
static pcre2_code *compile_translated(const char *pattern, size_t length, bool scripts, uint32_t more, int *error,
                                      PCRE2_SIZE *at)
{
    const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | more;
    size_t n;
    char *translated = translate(pattern, length, scripts, &n);
    pcre2_code *code = translated ? pcre2_compile((PCRE2_SPTR)translated, n, options, error, at, NULL) : NULL;
    free(translated);
    return code;
}

/* Makes the limits of regex_match_within(). */
static bool make_tiers(struct regex *r)
{
    for (size_t i = 0; i < N_TIERS; i++) {
        r->tiers[i] = pcre2_match_context_create(NULL);
        if (!r->tiers[i])
            return false;
        pcre2_set_match_limit(r->tiers[i], tiers[i]);
        pcre2_set_depth_limit(r->tiers[i], tiers[i]);
        pcre2_set_heap_limit(r->tiers[i], WITHIN_HEAP);
    }
    return true;
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
    /* \p{sc:...} fails where PCRE2 is older than 10.40 or the name is not a script: then as it was written */
    for (int scripts = 1; scripts >= 0 && !r->code; scripts--) {
        /* invalid UTF-8 in a text then matches nothing, instead of being undefined */
        r->code = compile_translated(pattern, length, scripts, PCRE2_MATCH_INVALID_UTF, &code, &at);
        /* every position counts: none is passed over by a search for the first character, over and over again */
        if (r->code)
            r->counted = compile_translated(pattern, length, scripts, PCRE2_NO_START_OPTIMIZE, &code, &at);
    }
    r->limits = r->counted ? pcre2_match_context_create(NULL) : NULL;
    if (!r->limits || !make_tiers(r)) {
        PCRE2_UCHAR text[120] = "out of memory";
        if (code)
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

/* A block for the results of a match; NULL when memory is short. It is one thread's while it matches: who takes the
 * spare one leaves NULL, and who finds NULL makes another. */
static pcre2_match_data *take_block(struct regex *r)
{
    pcre2_match_data *data = atomic_exchange(&r->spare, NULL);
    return data ? data : pcre2_match_data_create(1, NULL);
}

/* It comes back as the spare; what is there by then, another thread's, is freed. */
static void give_block(struct regex *r, pcre2_match_data *data)
{
    pcre2_match_data_free(atomic_exchange(&r->spare, data));
}

/* The span of the match in data. false where it is none. */
static bool get_span(pcre2_match_data *data, size_t *from, size_t *to)
{
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(data);
    *from = span[0];
    *to = span[1];
    return *from <= *to;
}

static bool regex_match(void *compiled, const char *text, size_t length, size_t start, size_t *from, size_t *to)
{
    struct regex *r = compiled;
    if (start > length)
        return false;
    pcre2_match_data *data = take_block(r);
    if (!data)
        return false;
    /* 0: more groups than the one pair of offsets, which is that of the whole match */
    bool found = pcre2_match(r->code, (PCRE2_SPTR)text, length, start, 0, data, r->limits) >= 0;
    found = found && get_span(data, from, to);
    give_block(r, data);
    return found;
}

/* Takes steps from *budget; false when they are not there: it is then 0. */
static bool spend(uint64_t *budget, uint64_t steps)
{
    bool enough = *budget > steps;
    *budget = enough ? *budget - steps : 0;
    return enough;
}

/* Whether PCRE2 stopped at a limit of the tier rather than at the end of its search. */
static bool at_limit(int result)
{
    return result == PCRE2_ERROR_MATCHLIMIT || result == PCRE2_ERROR_DEPTHLIMIT;
}

/* PCRE2's result for the text up to `window` bytes after at; PCRE2_ERROR_PARTIAL where more of it may matter. *end gets
 * the end of what was looked at. */
static int match_window(const struct regex *r, PCRE2_SPTR text, size_t length, size_t at, size_t window, size_t tier,
                        uint32_t options, pcre2_match_data *data, size_t *end)
{
    *end = length - at > window ? at + window : length;
    while (*end < length && (text[*end] & 0xC0) == 0x80)
        ++*end;
    options |= PCRE2_NO_UTF_CHECK | (*end < length ? PCRE2_PARTIAL_HARD : 0);
    return pcre2_match(r->counted, text, *end, at, options, data, r->tiers[tier]);
}

/* PCRE2's result for a match that begins at `at`, with as many steps and as much of the text as it needs and *budget
 * pays for: a step may run over the whole window. */
static int match_here(const struct regex *r, PCRE2_SPTR text, size_t length, size_t at, pcre2_match_data *data,
                      uint64_t *budget)
{
    size_t tier = 0, window = WINDOW, end;
    int result = PCRE2_ERROR_MATCHLIMIT;
    while (tier < N_TIERS) {
        size_t seen = length - at < window ? length - at : window;
        if (!spend(budget, tiers[tier] * (uint64_t)(1 + seen / WINDOW_STEP)))
            break;
        result = match_window(r, text, length, at, window, tier, PCRE2_ANCHORED, data, &end);
        if (result == PCRE2_ERROR_PARTIAL)
            window *= 8;
        else if (at_limit(result))
            tier++;
        else
            return result;
    }
    return PCRE2_ERROR_MATCHLIMIT;
}

/* PCRE2 counts steps for each position of the text anew, does not tell how many there were, and takes a run of one
 * character class for one step. So a search gets a short stretch of the text and few steps, which suffice for nearly
 * all matches of usual patterns. Where they do not, positions are gone through one by one, and what each is allowed is
 * what it costs. */
static int search_within(const struct regex *r, PCRE2_SPTR text, size_t length, size_t at, pcre2_match_data *data,
                         uint64_t *budget)
{
    size_t careful = 0, end; /* up to there a search has run out of steps */
    while (at <= length) {
        int result = PCRE2_ERROR_MATCHLIMIT;
        if (at >= careful) {
            result = match_window(r, text, length, at, WINDOW, 0, 0, data, &end);
            if (result == PCRE2_ERROR_NOMATCH && end < length) {
                at = end;
                continue;
            }
            if (at_limit(result))
                careful = end;
            if (result == PCRE2_ERROR_PARTIAL && pcre2_get_ovector_pointer(data)[0] > at)
                at = pcre2_get_ovector_pointer(data)[0];
            else if (result >= 0 || result == PCRE2_ERROR_NOMATCH)
                return result;
        }
        if (at_limit(result) || result == PCRE2_ERROR_PARTIAL)
            result = match_here(r, text, length, at, data, budget);
        if (result != PCRE2_ERROR_NOMATCH)
            return result;
        do
            at++;
        while (at < length && (text[at] & 0xC0) == 0x80);
    }
    return PCRE2_ERROR_NOMATCH;
}

static bool regex_match_within(void *compiled, const char *text, size_t length, size_t start, size_t *from, size_t *to,
                               uint64_t *budget)
{
    struct regex *r = compiled;
    pcre2_match_data *data = start <= length ? take_block(r) : NULL;
    if (start > length)
        return false;
    int result = data ? search_within(r, (PCRE2_SPTR)text, length, start, data, budget) : PCRE2_ERROR_NOMEMORY;
    bool found = result >= 0 && get_span(data, from, to);
    if (result < 0 && result != PCRE2_ERROR_NOMATCH)
        *budget = 0;
    if (data)
        give_block(r, data);
    return found;
}

const struct geul_regex_engine *geul_regex_pcre2(void)
{
    static const struct geul_regex_engine engine = {regex_compile, regex_match, regex_free, regex_match_within};
    return &engine;
}
