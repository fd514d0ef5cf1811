/* unicode.c: see unicode.h; and the public UTF-8 stream of geul.h. */
#include "tokenizer/unicode.h"

#include "geul.h"

#include <string.h>
#include <utf8proc.h>

#define BIT(category) (1u << UTF8PROC_CATEGORY_##category)

static const uint32_t letters = BIT(LU) | BIT(LL) | BIT(LT) | BIT(LM) | BIT(LO);
static const uint32_t numbers = BIT(ND) | BIT(NL) | BIT(NO);
static const uint32_t marks = BIT(MN) | BIT(MC) | BIT(ME);
static const uint32_t punctuation = BIT(PC) | BIT(PD) | BIT(PS) | BIT(PE) | BIT(PI) | BIT(PF) | BIT(PO);
static const uint32_t separators = BIT(ZS) | BIT(ZL) | BIT(ZP);

static bool in(int32_t c, uint32_t categories)
{
    return (categories >> utf8proc_category(c)) & 1;
}

bool geul_is_space(int32_t c)
{
    if (c < 0x80)
        return c == ' ' || (c >= '\t' && c <= '\r');
    return c == 0x85 || in(c, separators);
}

enum geul_class geul_class_of(int32_t c)
{
    uint32_t bit = 1u << utf8proc_category(c);
    if (bit & letters)
        return GEUL_CLASS_LETTER;
    if (bit & numbers)
        return GEUL_CLASS_NUMBER;
    return geul_is_space(c) ? GEUL_CLASS_SPACE : GEUL_CLASS_OTHER;
}

bool geul_is_word(int32_t c)
{
    if (in(c, letters | marks | BIT(ND) | BIT(NL) | BIT(PC)))
        return true;
    /* Join_Control, and the symbols that are Other_Alphabetic: circled and squared Latin letters */
    return c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
           (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
}

bool geul_is_number(int32_t c)
{
    return in(c, numbers);
}

bool geul_is_punctuation(int32_t c)
{
    if (c < 0x80)
        return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
    return in(c, punctuation);
}

bool geul_is_mark(int32_t c)
{
    return in(c, marks);
}

int geul_lower_case(int32_t c, int32_t out[2])
{
    if (c == 0x130) { /* the only character whose lower case is two: i and a dot above */
        out[0] = 'i';
        out[1] = 0x307;
        return 2;
    }
    out[0] = utf8proc_tolower(c);
    return 1;
}

int geul_utf8_decode_back(const char *begin, const char *p, int32_t *c)
{
    for (int n = 1; n <= 4 && n <= p - begin; n++)
        if (((unsigned char)p[-n] & 0xC0) != 0x80)
            return geul_utf8_decode(p - n, p, c) == n ? n : 0;
    return 0;
}

int geul_utf8_encode(int32_t c, char *out)
{
    uint32_t u = (uint32_t)c;
    if (u < 0x80) {
        out[0] = (char)u;
        return 1;
    }
    if (u < 0x800) {
        out[0] = (char)(0xC0 | u >> 6);
        out[1] = (char)(0x80 | (u & 0x3F));
        return 2;
    }
    if (u < 0x10000) {
        out[0] = (char)(0xE0 | u >> 12);
        out[1] = (char)(0x80 | (u >> 6 & 0x3F));
        out[2] = (char)(0x80 | (u & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | u >> 18);
    out[1] = (char)(0x80 | (u >> 12 & 0x3F));
    out[2] = (char)(0x80 | (u >> 6 & 0x3F));
    out[3] = (char)(0x80 | (u & 0x3F));
    return 4;
}

const char *geul_utf8_valid_end(const char *p, const char *end)
{
    int32_t c;
    int n;
    while (p < end && (n = geul_utf8_decode(p, end, &c)) > 0)
        p += n;
    return p;
}

/* ------------------------------------------------------------------------------------ stream -- */

static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD */

/* Length of the character that lead byte s[0] begins, when the n bytes at s can still become (or are) valid UTF-8;
 * 0 otherwise. The second byte decides about overlong forms, surrogates and the upper limit. */
static int utf8_promise(const unsigned char *s, int n)
{
    int length = s[0] < 0x80 ? 1 : s[0] < 0xC2 ? 0 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : s[0] < 0xF5 ? 4 : 0;
    if (n > length)
        return 0;
    if (n > 1) {
        unsigned char low = s[0] == 0xE0 ? 0xA0 : s[0] == 0xF0 ? 0x90 : 0x80;
        unsigned char high = s[0] == 0xED ? 0x9F : s[0] == 0xF4 ? 0x8F : 0xBF;
        if (s[1] < low || s[1] > high)
            return 0;
    }
    for (int i = 2; i < n; i++)
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    return length;
}

size_t geul_utf8_push(struct geul_utf8_stream *s, const char *bytes, size_t length, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < length; i++) {
        /* held is empty or the beginning of a valid character, never a whole one; so one more byte always fits */
        s->held[s->n_held++] = (unsigned char)bytes[i];
        int promise = utf8_promise(s->held, s->n_held);
        if (promise == 0 && s->n_held > 1) { /* what was held is broken; the new byte may begin a character */
            memcpy(out + n, replacement, 3);
            n += 3;
            s->held[0] = (unsigned char)bytes[i];
            s->n_held = 1;
            promise = utf8_promise(s->held, 1);
        }
        if (promise == 0) {
            memcpy(out + n, replacement, 3);
            n += 3;
            s->n_held = 0;
        } else if (promise == s->n_held) {
            memcpy(out + n, s->held, (size_t)s->n_held);
            n += (size_t)s->n_held;
            s->n_held = 0;
        }
    }
    return n;
}

size_t geul_utf8_finish(struct geul_utf8_stream *s, char *out)
{
    bool some = s->n_held > 0;
    s->n_held = 0;
    if (some)
        memcpy(out, replacement, 3);
    return some ? 3 : 0;
}
