/* unicode.h: UTF-8 and the character classes that splitting a text needs. No locale; properties from utf8proc. */
#ifndef GEUL_UNICODE_H
#define GEUL_UNICODE_H

#include "core/context.h"

/* \p{L}, \p{N}, \s (White_Space) and the rest, to which the bytes of broken UTF-8 belong too. */
enum geul_class { GEUL_CLASS_OTHER, GEUL_CLASS_LETTER, GEUL_CLASS_NUMBER, GEUL_CLASS_SPACE };

enum geul_class geul_class_of(int32_t c);
bool geul_is_space(int32_t c);       /* White_Space */
bool geul_is_word(int32_t c);        /* \w: alphabetic, mark, decimal digit, connector, joiner */
bool geul_is_number(int32_t c);      /* \p{N} */
bool geul_is_punctuation(int32_t c); /* ASCII punctuation and symbols, \p{P} */
bool geul_is_mark(int32_t c);        /* \p{M} */
/* The lower case of c, at most two characters; returns how many. */
int geul_lower_case(int32_t c, int32_t out[2]);

/* Decodes the character at p (p < end) into *c; returns its length, 0 when the bytes there are not valid UTF-8
 * (overlong forms, surrogates and numbers past U+10FFFF are not). */
static inline int geul_utf8_decode(const char *p, const char *end, int32_t *c)
{
    const unsigned char *s = (const unsigned char *)p;
    ptrdiff_t room = end - p;
    if (s[0] < 0x80) {
        *c = s[0];
        return 1;
    }
    if (s[0] >= 0xE0 && s[0] < 0xF0) {
        if (room < 3 || (s[1] & 0xC0) != 0x80 || (s[2] & 0xC0) != 0x80)
            return 0;
        *c = (s[0] & 0x0F) << 12 | (s[1] & 0x3F) << 6 | (s[2] & 0x3F);
        return *c >= 0x800 && (*c < 0xD800 || *c > 0xDFFF) ? 3 : 0;
    }
    if (s[0] >= 0xC2 && s[0] < 0xE0) {
        if (room < 2 || (s[1] & 0xC0) != 0x80)
            return 0;
        *c = (s[0] & 0x1F) << 6 | (s[1] & 0x3F);
        return 2;
    }
    if (s[0] >= 0xF0 && s[0] < 0xF5) {
        if (room < 4 || (s[1] & 0xC0) != 0x80 || (s[2] & 0xC0) != 0x80 || (s[3] & 0xC0) != 0x80)
            return 0;
        *c = (s[0] & 0x07) << 18 | (s[1] & 0x3F) << 12 | (s[2] & 0x3F) << 6 | (s[3] & 0x3F);
        return *c >= 0x10000 && *c <= 0x10FFFF ? 4 : 0;
    }
    return 0;
}
/* The same for the character that ends at p (begin < p). */
int geul_utf8_decode_back(const char *begin, const char *p, int32_t *c);
/* Writes c (a valid code point) to out; returns its length, at most 4. */
int geul_utf8_encode(int32_t c, char *out);
/* End of the valid UTF-8 that starts at p; p itself when the first byte is broken. */
const char *geul_utf8_valid_end(const char *p, const char *end);

#endif
