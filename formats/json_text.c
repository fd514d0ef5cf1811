/* json_text.c: see json_text.h. The text is walked once, token by token as far as that matters; where it holds
 * something that jansson stops at, a second walk writes the text that jansson is given. */
#include "formats/json_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ODD_KEY "\177geul"

/* ------------------------------------------------------------------------------------ output -- */

/* The text that jansson is given. */
struct output {
    char *text; /* NULL: only its length is wanted */
    size_t length;
    bool changed; /* it is not the input */
};

static void put(struct output *o, const char *s, size_t n)
{
    if (o->text)
        memcpy(o->text + o->length, s, n);
    o->length += n;
}

/* Writes a value that jansson cannot hold, [s, end), as an object with one member, its text: of all kinds of values,
 * the one that no setting or text is. NaN becomes {"\u007fgeul":"NaN"}. */
static void put_oddity(struct output *o, const char *s, const char *end)
{
    static const char before[] = "{\"\\u007fgeul\":\"", after[] = "\"}";
    put(o, before, sizeof before - 1);
    for (; s < end; s++) {
        if (*s == '"' || *s == '\\')
            put(o, "\\", 1);
        put(o, s, 1);
    }
    put(o, after, sizeof after - 1);
    o->changed = true;
}

/* ----------------------------------------------------------------------------------- numbers -- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static const char *skip_digits(const char *s, const char *end)
{
    while (s < end && is_digit(*s))
        s++;
    return s;
}

/* Whether the digits [s, end) are more than a json_int_t of that sign holds. */
static bool beyond_integer(const char *s, const char *end, bool negative)
{
    const char *most = negative ? "9223372036854775808" : "9223372036854775807";
    size_t n = (size_t)(end - s);
    return n > 19 || (n == 19 && memcmp(s, most, 19) > 0);
}

/* Whether 0.ddd... times 10^exponent is more than double holds, for the digits of [s, end), which may hold a point. */
static bool beyond_double(const char *s, const char *end, int64_t exponent)
{
    enum { TELLING = 40 }; /* more digits than decide between the largest double and infinity */
    char text[TELLING + 32];
    int n = 0;
    for (; s < end && n < TELLING; s++)
        if (is_digit(*s) && (n > 0 || *s != '0'))
            text[n++] = *s;
    /* without a point, which strtod() would look for in the language of the process */
    snprintf(text + n, sizeof text - (size_t)n, "e%lld", (long long)(exponent - n));
    return n > 0 && strtod(text, NULL) > 1.7976931348623157e308;
}

/* The parts of a number that JSON allows. */
struct number {
    const char *whole, *point, *fraction_end, *end; /* without a fraction point and fraction_end are equal */
    int64_t exponent;
};

/* Reads the number at s, which begins with a digit or a minus; false when it is none. n->end is set in any case. */
static bool read_number(const char *s, const char *end, struct number *n)
{
    enum { FAR = 1000000000 };
    n->whole = s + (*s == '-');
    n->point = n->fraction_end = n->end = skip_digits(n->whole, end);
    n->exponent = 0;
    bool ok = n->point == n->whole + 1 || (n->point > n->whole && *n->whole != '0');
    if (ok && n->end < end && *n->end == '.') {
        n->fraction_end = n->end = skip_digits(n->point + 1, end);
        ok = n->end > n->point + 1;
    }
    if (!ok || n->end == end || (*n->end != 'e' && *n->end != 'E'))
        return ok;
    const char *at = n->end + 1;
    bool below = at < end && *at == '-';
    at += at < end && (*at == '-' || *at == '+');
    n->end = skip_digits(at, end);
    ok = n->end > at;
    for (; at < n->end; at++)
        n->exponent = n->exponent > FAR ? n->exponent : n->exponent * 10 + (*at - '0');
    n->exponent = below ? -n->exponent : n->exponent;
    return ok;
}

/* Copies the number at s, which begins with a digit or a minus, and returns its end. */
static const char *take_number(struct output *o, const char *s, const char *end)
{
    struct number n;
    bool ok = read_number(s, end, &n);
    const char *first = n.whole;        /* digit that is not 0 */
    int64_t places = n.point - n.whole; /* of the first before the point: 10 has 2, 1 has 1, 0.1 has 0 */
    while (ok && first < n.fraction_end && (*first == '0' || *first == '.'))
        places -= *first++ == '0';
    if (ok && n.exponent + places > 308 && beyond_double(first, n.fraction_end, n.exponent + places)) {
        put_oddity(o, s, n.end);
        return n.end;
    }
    put(o, s, (size_t)(n.end - s));
    if (ok && n.end == n.point && beyond_integer(n.whole, n.point, *s == '-')) {
        put(o, "e0", 2); /* makes it a real */
        o->changed = true;
    }
    return n.end;
}

/* ----------------------------------------------------------------------------------- strings -- */

/* The code unit of the escape \\uXXXX at s; -1 when there is none. */
static int escaped_unit(const char *s, const char *end)
{
    int unit = 0;
    if (end - s < 6 || s[0] != '\\' || s[1] != 'u')
        return -1;
    for (int i = 2; i < 6; i++) {
        const char *digits = "0123456789abcdefABCDEF", *found = s[i] ? strchr(digits, s[i]) : NULL;
        if (!found)
            return -1;
        int value = (int)(found - digits);
        unit = unit * 16 + (value < 16 ? value : value - 6);
    }
    return unit;
}

/* Length of the escape at s, which begins with a backslash. *bad: jansson refuses it, in a key or everywhere. */
static size_t escape_length(const char *s, const char *end, bool key, bool *bad)
{
    int unit = escaped_unit(s, end);
    *bad = unit == 0 && key;
    if (unit < 0)
        return end - s < 2 ? 1 : 2;
    if (unit < 0xd800 || unit > 0xdfff)
        return 6;
    int low = unit < 0xdc00 ? escaped_unit(s + 6, end) : -1;
    *bad = low < 0xdc00 || low > 0xdfff;
    return *bad ? 6 : 12;
}

/* The end of the string at s, behind its closing quote; end when it has none. */
static const char *string_end(const char *s, const char *end)
{
    for (s++; s < end && *s != '"'; s++)
        s += *s == '\\' && s + 1 < end;
    return s < end ? s + 1 : end;
}

/* Copies the string at s and returns its end. */
static const char *take_string(struct output *o, const char *s, const char *end)
{
    const char *text = s, *behind = string_end(s, end), *next = behind;
    if (!memchr(s, '\\', (size_t)(behind - s))) {
        put(o, s, (size_t)(behind - s));
        return behind;
    }
    while (next < end && (*next == ' ' || *next == '\t' || *next == '\r' || *next == '\n'))
        next++;
    bool key = next < end && *next == ':';
    struct output start = *o;
    while (s < behind) {
        bool bad = false;
        size_t n = *s == '\\' ? escape_length(s, behind, key, &bad) : 1;
        if (bad && !key) { /* the whole text */
            *o = start;
            put_oddity(o, text, behind);
            return behind;
        }
        put(o, bad ? "\\ufffd" : s, n);
        o->changed |= bad;
        s += n;
    }
    return behind;
}

/* ---------------------------------------------------------------------------------- oddities -- */

static const char *const words[] = {"NaN", "Infinity", "-Infinity"};
enum { N_WORDS = sizeof words / sizeof *words };

/* The word that s begins with; N_WORDS when there is none. */
static int find_word(const char *s, const char *end)
{
    int i = 0;
    while (i < N_WORDS && ((size_t)(end - s) < strlen(words[i]) || memcmp(s, words[i], strlen(words[i])) != 0))
        i++;
    return i;
}

/* What the text [s, end) of a value is; NULL when it is not one that jansson cannot hold. */
static const char *odd_kind(const char *s, const char *end)
{
    int word = find_word(s, end);
    struct number n;
    if (word < N_WORDS)
        return s + strlen(words[word]) == end ? words[word] : NULL;
    if (s < end && *s == '"')
        return string_end(s, end) == end ? "broken Unicode (half a surrogate pair)" : NULL;
    if (s < end && (is_digit(*s) || *s == '-'))
        return read_number(s, end, &n) && n.end == end ? "a number beyond double" : NULL;
    return NULL;
}

const char *geul_json_oddity(const json_t *v)
{
    const json_t *text = json_is_object(v) && json_object_size(v) == 1 ? json_object_get(v, ODD_KEY) : NULL;
    const char *s = json_string_value(text);
    return s ? odd_kind(s, s + json_string_length(text)) : NULL;
}

/* ---------------------------------------------------------------------------------- document -- */

/* Writes what jansson is given for [s, end) until the output has `most` bytes or more; returns how far s was read. */
static const char *rewrite(const char *s, const char *end, size_t most, struct output *o)
{
    while (s < end && o->length < most) {
        int word = find_word(s, end);
        if (word < N_WORDS) {
            put_oddity(o, s, s + strlen(words[word]));
            s += strlen(words[word]);
        } else if (*s == '"') {
            s = take_string(o, s, end);
        } else if (is_digit(*s) || *s == '-') {
            s = take_number(o, s, end);
        } else {
            put(o, s++, 1);
        }
    }
    return s;
}

/* Moves the place of an error from the rewritten text to data. */
static void place_error(const char *data, size_t size, json_error_t *error)
{
    struct output o = {0};
    size_t read = error->position > 0 ? (size_t)(rewrite(data, data + size, (size_t)error->position, &o) - data) : 0;
    error->position = (int)read;
    error->column = 0;
    for (; read > 0 && data[read - 1] != '\n'; read--) /* characters: the bytes that do not continue one */
        error->column += ((unsigned char)data[read - 1] & 0xc0) != 0x80;
}

json_t *geul_json_decode(struct geul_context *ctx, const char *data, size_t size, size_t flags, json_error_t *error)
{
    if (size >= 3 && memcmp(data, "\xef\xbb\xbf", 3) == 0) {
        data += 3;
        size -= 3;
    }
    struct output o = {0};
    rewrite(data, data + size, SIZE_MAX, &o);
    if (!o.changed)
        return json_loadb(data, size, flags | JSON_ALLOW_NUL, error);
    o = (struct output){.text = geul_alloc(ctx, o.length, 1)};
    if (!o.text) {
        memset(error, 0, sizeof *error);
        snprintf(error->text, sizeof error->text, "out of memory");
        return NULL;
    }
    rewrite(data, data + size, SIZE_MAX, &o);
    json_t *json = json_loadb(o.text, o.length, flags | JSON_ALLOW_NUL, error);
    geul_free(ctx, o.text);
    if (!json)
        place_error(data, size, error);
    return json;
}

/* ----------------------------------------------------------------------------------- writing -- */

static const char *skip_blanks(const char *s)
{
    return s + strspn(s, " \n");
}

/* Writes to `to`, which may be s, the value whose object begins at s, and moves `to` behind it. Returns the end of the
 * object; NULL when it is another. */
static const char *restore_oddity(const char *s, const char *end, char **to)
{
    static const char key[] = "\"" ODD_KEY "\":";
    const char *at = skip_blanks(s + 1);
    if (strncmp(at, key, sizeof key - 1) != 0 || *(at = skip_blanks(at + sizeof key - 1)) != '"')
        return NULL;
    const char *close = string_end(at, end), *behind = skip_blanks(close);
    if (*behind != '}')
        return NULL;
    char *out = *to;
    for (at++; at < close - 1; at++) {
        at += *at == '\\';
        *out++ = *at;
    }
    *to = out;
    return behind + 1;
}

char *geul_json_encode(const json_t *json, size_t flags)
{
    char *text = json_dumps(json, flags), *to = text;
    if (!text)
        return NULL;
    const char *s = text, *end = text + strlen(text);
    while (s < end) {
        const char *behind = *s == '{' ? restore_oddity(s, end, &to) : NULL;
        if (!behind) {
            behind = *s == '"' ? string_end(s, end) : s + 1;
            memmove(to, s, (size_t)(behind - s));
            to += behind - s;
        }
        s = behind;
    }
    *to = '\0';
    return text;
}
