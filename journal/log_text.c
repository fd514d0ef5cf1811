/* log_text.c: see log_text.h. */
#include "journal/log_text.h"

#include "tokenizer/unicode.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void geul_log_text_free(struct geul_log_text *t)
{
    geul_free(t->ctx, t->bytes.data);
    *t = (struct geul_log_text){.ctx = t->ctx};
}

void geul_log_text_clear(struct geul_log_text *t)
{
    t->bytes.length = 0;
    t->failed = false;
}

void geul_log_text_add_bytes(struct geul_log_text *t, const void *data, size_t n)
{
    if (!t->failed && !geul_bytes_add(t->ctx, &t->bytes, data, n))
        t->failed = true;
}

void geul_log_text_add(struct geul_log_text *t, const char *s)
{
    geul_log_text_add_bytes(t, s, strlen(s));
}

void geul_log_text_add_format(struct geul_log_text *t, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (n < 0 || t->failed || !geul_bytes_room(t->ctx, &t->bytes, (size_t)n + 1)) {
        t->failed = true;
        return;
    }
    va_start(arguments, format);
    vsnprintf(t->bytes.data + t->bytes.length, (size_t)n + 1, format, arguments);
    va_end(arguments);
    t->bytes.length += (size_t)n;
}

/* ----------------------------------------------------------------------------------- numbers -- */

/* Replaces the decimal sign of the locale, which may be several bytes, by a point. */
static void mend_point(char *s)
{
    char *to = s;
    bool inside = false;
    for (const char *p = s; *p; p++) {
        bool plain = (*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'z') || *p == '-' || *p == '+';
        if (plain || !inside)
            *to++ = plain ? *p : '.';
        inside = !plain;
    }
    *to = '\0';
}

void geul_log_format_double(char *out, size_t size, double v, int digits)
{
    if (isfinite(v))
        snprintf(out, size, "%.*g", digits, v);
    else
        snprintf(out, size, "%s", isnan(v) ? "nan" : v < 0 ? "-inf" : "inf");
    mend_point(out);
}

void geul_log_text_add_double(struct geul_log_text *t, double v, int digits)
{
    char s[64];
    geul_log_format_double(s, sizeof s, v, digits);
    geul_log_text_add(t, s);
}

void geul_log_text_add_fixed(struct geul_log_text *t, double v, int decimals)
{
    char s[64];
    if (!(fabs(v) < 1e15)) {
        geul_log_text_add_double(t, v, 6);
        return;
    }
    snprintf(s, sizeof s, "%.*f", decimals, v);
    mend_point(s);
    geul_log_text_add(t, s);
}

void geul_log_text_add_grouped(struct geul_log_text *t, int64_t n)
{
    char s[32];
    int length = snprintf(s, sizeof s, "%lld", (long long)n);
    for (int i = 0; i < length; i++) {
        if (i > (s[0] == '-') && (length - i) % 3 == 0)
            geul_log_text_add(t, ",");
        geul_log_text_add_bytes(t, s + i, 1);
    }
}

bool geul_log_parse_int(const char *s, size_t n, int64_t *out)
{
    bool negative = n > 0 && s[0] == '-';
    int64_t v = 0;
    if (n == (size_t)negative)
        return false;
    for (size_t i = negative; i < n; i++) {
        if (s[i] < '0' || s[i] > '9' || __builtin_mul_overflow(v, 10, &v) ||
            __builtin_sub_overflow(v, (int64_t)(s[i] - '0'),
                                   &v)) /* summed as a negative number, whose range is larger by one */
            return false;
    }
    if (!negative && v == INT64_MIN)
        return false;
    *out = negative ? v : -v;
    return true;
}

/* The digits and the point at the start of s, as *v times ten to the *exponent. Returns how many bytes. */
static size_t parse_digits(const char *s, size_t n, double *v, int64_t *exponent, bool *any)
{
    bool point = false;
    size_t i = 0;
    for (; i < n; i++) {
        if (s[i] == '.' && !point) {
            point = true;
            continue;
        }
        if (s[i] < '0' || s[i] > '9')
            break;
        *any = true;
        if (*v < 1e18) /* further digits are below the precision of a double */
            *v = *v * 10 + (s[i] - '0');
        else
            ++*exponent;
        *exponent -= point;
    }
    return i;
}

bool geul_log_parse_double(const char *s, size_t n, double *out)
{
    bool negative = n > 0 && s[0] == '-', any = false;
    double v = 0;
    int64_t exponent = 0, written = 0;
    s += negative;
    n -= negative;
    if (n == 3 && (memcmp(s, "nan", 3) == 0 || memcmp(s, "inf", 3) == 0)) {
        *out = s[0] == 'n' ? (double)NAN : negative ? -(double)INFINITY : (double)INFINITY;
        return true;
    }
    size_t i = parse_digits(s, n, &v, &exponent, &any);
    if (!any)
        return false;
    if (i < n) {
        if (s[i] != 'e' && s[i] != 'E')
            return false;
        i += i + 1 < n && s[i + 1] == '+' ? 2 : 1;
        if (!geul_log_parse_int(s + i, n - i, &written) || written > 9999 || written < -9999)
            return false;
    }
    exponent += written;
    if (v != 0 && exponent < -300) { /* the power alone would be 0 */
        v /= 1e300;
        exponent += 300;
    }
    if (v != 0 && exponent != 0)
        v = exponent < 0 ? v / pow(10, -(double)exponent) : v * pow(10, (double)exponent);
    *out = negative ? -v : v;
    return true;
}

/* ------------------------------------------------------------------------------------- texts -- */

/* The escape of an ASCII character, perhaps in room; NULL: the character itself. */
typedef const char *(*escape)(char c, char room[8]);

/* Adds s with every broken byte as U+FFFD and every ASCII character escaped by how (NULL: as it is). */
static void add_escaped(struct geul_log_text *t, const char *s, escape how)
{
    const char *end = s + strlen(s), *p = s;
    char room[8];
    while (p < end) {
        int32_t c;
        int n = geul_utf8_decode(p, end, &c);
        const char *instead = n == 0 ? "\xEF\xBF\xBD" : n == 1 && how ? how(*p, room) : NULL;
        if (instead)
            geul_log_text_add(t, instead);
        else
            geul_log_text_add_bytes(t, p, (size_t)n);
        p += n ? n : 1;
    }
}

static const char *json_escape(char c, char room[8])
{
    if (c == '"' || c == '\\')
        snprintf(room, 8, "\\%c", c);
    else if (c == '\n')
        return "\\n";
    else if (c >= 0 && c < 0x20)
        snprintf(room, 8, "\\u%04x", (unsigned)c);
    else
        return NULL;
    return room;
}

/* Control characters other than tab and line end are not allowed in HTML. */
static const char *html_escape(char c, char room[8])
{
    static const char *const names[] = {
        ['&'] = "&amp;", ['<'] = "&lt;", ['>'] = "&gt;", ['"'] = "&quot;", ['\''] = "&#39;"};
    (void)room;
    if ((c >= 0 && c < 0x20 && c != '\n' && c != '\t') || c == 0x7f)
        return "\xEF\xBF\xBD";
    return c > 0 && (size_t)c < sizeof names / sizeof names[0] ? names[(size_t)c] : NULL;
}

void geul_log_text_add_utf8(struct geul_log_text *t, const char *s)
{
    add_escaped(t, s, NULL);
}

void geul_log_text_add_json(struct geul_log_text *t, const char *s)
{
    geul_log_text_add(t, "\"");
    add_escaped(t, s, json_escape);
    geul_log_text_add(t, "\"");
}

void geul_log_text_add_html(struct geul_log_text *t, const char *s)
{
    add_escaped(t, s, html_escape);
}
