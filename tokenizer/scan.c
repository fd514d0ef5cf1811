/* scan.c: see scan.h. The regular expression is above its scanner, which tries the alternatives in its order. */
#include "tokenizer/scan.h"
#include "tokenizer/unicode.h"

#include <string.h>

/* GEUL_CLASS_OF for ASCII: controls 0x09..0x0D and the space are white space. */
static const unsigned char ascii_class[128] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 3, 3, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, /* 0x00 */
    3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0, 0, 0, /* 0x20 */
    0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, /* 0x40 */
    0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, /* 0x60 */
};

/* Class of the character at p (p < end), and its length in *n; a broken byte is OTHER and one byte long. */
static inline enum geul_class class_at(const char *p, const char *end, int *n)
{
    unsigned char lead = (unsigned char)*p;
    if (lead < 0x80) {
        *n = 1;
        return (enum geul_class)ascii_class[lead];
    }
    int32_t c;
    *n = geul_utf8_decode(p, end, &c);
    if (*n == 0) {
        *n = 1;
        return GEUL_CLASS_OTHER;
    }
    if (c >= 0xAC00 && c <= 0xD7A3) /* Hangul syllables */
        return GEUL_CLASS_LETTER;
    return geul_class_of(c);
}

/* End of the run of that class that starts at p; at most max characters when max > 0. */
static inline const char *run_of(enum geul_class class, const char *p, const char *end, int max)
{
    int n;
    for (int i = 0; p < end && (max == 0 || i < max) && class_at(p, end, &n) == class; i++)
        p += n;
    return p;
}

/* \s+(?!\S)|\s+ on the run [p, e): white space before a word leaves its last character to the word. */
static const char *before_word(const char *p, const char *e, const char *end)
{
    int32_t c;
    if (e == end)
        return e;
    const char *last = e - geul_utf8_decode_back(p, e, &c);
    return last > p ? last : e;
}

/* Length of 's 't 're 've 'm 'll 'd after an apostrophe at p, 0 when none follows. fold: capitals too, and the long s
 * (U+017F), whose capital is S. */
static int contraction(const char *p, const char *end, bool fold)
{
    if (end - p < 2)
        return 0;
    char a = p[1], b = end - p > 2 ? p[2] : 0;
    if (fold) {
        if (a == '\xC5' && b == '\xBF')
            return 3;
        a = (char)(a >= 'A' && a <= 'Z' ? a + 32 : a);
        b = (char)(b >= 'A' && b <= 'Z' ? b + 32 : b);
    }
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return 2;
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
const char *geul_scan_gpt2(const char *p, const char *end)
{
    int n;
    if (*p == '\'' && (n = contraction(p, end, false)) > 0)
        return p + n;
    /* The three alternatives with " ?" differ in the class of what follows; a lone space at the end is \s+. */
    const char *q = *p == ' ' && end - p > 1 ? p + 1 : p;
    enum geul_class class = class_at(q, end, &n);
    if (class != GEUL_CLASS_SPACE)
        return run_of(class, q + n, end, 0);
    return before_word(p, run_of(GEUL_CLASS_SPACE, p, end, 0), end);
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+
 * |\s+(?!\S)|\s+ */
static const char *scan_gpt4(const char *p, const char *end, int digits)
{
    int n, m;
    if (*p == '\'' && (n = contraction(p, end, true)) > 0)
        return p + n;
    enum geul_class class = class_at(p, end, &n);
    if (class == GEUL_CLASS_LETTER)
        return run_of(GEUL_CLASS_LETTER, p + n, end, 0);
    if (class == GEUL_CLASS_NUMBER)
        return run_of(GEUL_CLASS_NUMBER, p, end, digits);
    if (*p != '\r' && *p != '\n' && end - p > n && class_at(p + n, end, &m) == GEUL_CLASS_LETTER)
        return run_of(GEUL_CLASS_LETTER, p + n + m, end, 0);
    const char *q = *p == ' ' && end - p > 1 ? p + 1 : p;
    if (class_at(q, end, &m) == GEUL_CLASS_OTHER) {
        q = run_of(GEUL_CLASS_OTHER, q, end, 0);
        while (q < end && (*q == '\r' || *q == '\n'))
            q++;
        return q;
    }
    const char *e = run_of(GEUL_CLASS_SPACE, p, end, 0);
    for (q = e; q > p; q--) /* \s* takes all it can, then gives back to the last end of line */
        if (q[-1] == '\r' || q[-1] == '\n')
            return q;
    return before_word(p, e, end);
}

/* 0: white space, 1: \w, 2: neither. */
static int word_class(const char *p, const char *end, int *n)
{
    int32_t c;
    *n = geul_utf8_decode(p, end, &c);
    if (*n == 0) {
        *n = 1;
        return 2;
    }
    return geul_is_word(c) ? 1 : geul_is_space(c) ? 0 : 2;
}

/* \w+|[^\w\s]+ */
static bool scan_words(const char *p, const char *end, const char **from, const char **to)
{
    int n, class = 0;
    while (p < end && (class = word_class(p, end, &n)) == 0)
        p += n;
    *from = p;
    while (p < end && word_class(p, end, &n) == class)
        p += n;
    *to = p;
    return *to > *from;
}

bool geul_scan(enum geul_scanner scanner, const char *p, const char *end, const char **from, const char **to)
{
    if (scanner == GEUL_SCANNER_WORDS)
        return scan_words(p, end, from, to);
    *from = p;
    *to =
        scanner == GEUL_SCANNER_GPT2 ? geul_scan_gpt2(p, end) : scan_gpt4(p, end, scanner == GEUL_SCANNER_GPT4 ? 3 : 1);
    return true;
}

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES       "\\s+(?!\\S)|\\s+"
#define GPT4(digits)                                                                                                   \
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|" SPACES

/* Spellings of the patterns, the usual one first. */
static const struct {
    enum geul_scanner scanner;
    const char *pattern;
} patterns[] = {
    {GEUL_SCANNER_GPT2, "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|" SPACES},
    {GEUL_SCANNER_GPT2, "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|" SPACES},
    {GEUL_SCANNER_GPT4, GPT4("\\p{N}{1,3}")},
    {GEUL_SCANNER_GPT4,
     "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|"
     "\\s*[\\r\\n]|" SPACES},
    {GEUL_SCANNER_QWEN2, GPT4("\\p{N}")},
};

enum geul_scanner geul_scanner_find(const char *pattern, size_t length)
{
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++)
        if (strlen(patterns[i].pattern) == length && memcmp(patterns[i].pattern, pattern, length) == 0)
            return patterns[i].scanner;
    return GEUL_SCANNER_COUNT;
}

const char *geul_scanner_pattern(enum geul_scanner scanner)
{
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++)
        if (patterns[i].scanner == scanner)
            return patterns[i].pattern;
    return "";
}
