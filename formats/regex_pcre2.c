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

/* Not a context's memory: PCRE2 allocates what this holds. */
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

/* The compiled pattern, or NULL with PCRE2's error number (0: no memory) and the offset of the error. */
static pcre2_code *compile_translated(const char *pattern, size_t length, bool scripts, int *error, PCRE2_SIZE *at)
{
    /* invalid UTF-8 in a text then matches nothing, instead of being undefined */
    const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF | PCRE2_NEVER_BACKSLASH_C;
    size_t n;
    char *translated = translate(pattern, length, scripts, &n);
    pcre2_code *code = translated ? pcre2_compile((PCRE2_SPTR)translated, n, options, error, at, NULL) : NULL;
    free(translated);
    return code;
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
    r->code = compile_translated(pattern, length, true, &code, &at);
    if (!r->code)
        r->code = compile_translated(pattern, length, false, &code, &at);
    r->limits = r->code ? pcre2_match_context_create(NULL) : NULL;
    if (!r->limits) {
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

static bool regex_match(void *compiled, const char *text, size_t length, size_t start, size_t *from, size_t *to)
{
    struct regex *r = compiled;
    if (start > length)
        return false;
    /* A block is one thread's while it matches: who takes the spare one leaves NULL, and who finds NULL makes another.
     * One comes back as the spare; what is there by then, another thread's, is freed. */
    pcre2_match_data *data = atomic_exchange(&r->spare, NULL);
    if (!data)
        data = pcre2_match_data_create(1, NULL);
    if (!data)
        return false;
    /* 0: more groups than the one pair of offsets, which is that of the whole match */
    bool found = pcre2_match(r->code, (PCRE2_SPTR)text, length, start, 0, data, r->limits) >= 0;
    if (found) {
        const PCRE2_SIZE *span = pcre2_get_ovector_pointer(data);
        *from = span[0];
        *to = span[1];
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
