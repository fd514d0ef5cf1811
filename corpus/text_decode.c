/* text_decode.c: texts as people have them, to UTF-8 without byte order mark and CR (geul_tools.h). */
#include "corpus/text_decode.h"

#include "core/bytes.h"
#include "tokenizer/unicode.h"

#include <errno.h>
#include <iconv.h>
#include <stdio.h>
#include <string.h>

/* Bytes of the beginning that tell UTF-16 from other things, and of a text that is looked through for CP949. */
enum { HEAD_BYTES = 4096 };
#define CP949_BYTES ((size_t)1 << 20)

/* --------------------------------------------------------------------------------- guessing -- */

/* Whether c is of the kind that Korean texts, JSON and tables consist of: printable ASCII and line ends, Hangul, the
 * punctuation of East Asia. */
static bool is_usual(unsigned c)
{
    return (c >= 0x20 && c < 0x7f) || c == '\t' || c == '\n' || c == '\r' || (c >= 0xac00 && c <= 0xd7a3) ||
           (c >= 0x1100 && c <= 0x11ff) || (c >= 0x3000 && c <= 0x303f) || (c >= 0x3131 && c <= 0x318e);
}

/* Whether nine tenths of the 16-bit units in [s, s + n) are usual characters; high: where in a unit its high byte is.
 */
static bool is_utf16(const unsigned char *s, size_t n, int high)
{
    size_t usual = 0, units = n / 2;
    for (size_t i = 0; i < units; i++)
        usual += is_usual((unsigned)s[2 * i + (size_t)high] << 8 | s[2 * i + 1 - (size_t)high]);
    return units > 1 && usual * 10 >= units * 9;
}

/* Whether most of the bytes past ASCII make characters of three bytes and more in UTF-8: it is that, cut somewhere. */
static bool is_cut_utf8(const char *s, size_t n)
{
    size_t whole = 0, high = 0;
    for (size_t i = 0, step; i < n; i += step) {
        int32_t c;
        int length = geul_utf8_decode(s + i, s + n, &c);
        step = length > 0 ? (size_t)length : 1;
        high += (unsigned char)s[i] >= 0x80 ? step : 0;
        whole += step > 2 ? step : 0;
    }
    return whole * 2 > high;
}

/* Whether [s, s + n) is CP949 (EUC-KR and its extension) as far as bytes can say: pairs throughout, half of which are
 * syllables of EUC-KR. The last byte may be half a pair. */
static bool is_cp949(const unsigned char *s, size_t n)
{
    size_t pairs = 0, hangul = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < 0x80)
            continue;
        if (s[i] == 0x80 || s[i] == 0xff)
            return false;
        if (++i == n)
            break;
        bool euc = s[i] >= 0xa1 && s[i] < 0xff;
        if (!euc && !(s[i] >= 0x81 && s[i] <= 0xa0) && !(s[i] >= 'A' && s[i] <= 'Z') && !(s[i] >= 'a' && s[i] <= 'z'))
            return false;
        pairs++;
        hangul += euc && s[i - 1] >= 0xb0 && s[i - 1] <= 0xc8;
    }
    return pairs > 0 && hangul * 2 >= pairs && !is_cut_utf8((const char *)s, n);
}

const char *geul_text_guess_encoding(const void *data, size_t size)
{
    static const struct {
        const char *name;
        size_t n;
        const char *bytes;
    } marks[] = {
        {"utf-32le", 4, "\xff\xfe\0"}, /* and the NUL that ends it; before utf-16le, which begins as it does */
        {"utf-32be", 4, "\0\0\xfe\xff"},
        {"utf-16le", 2, "\xff\xfe"},
        {"utf-16be", 2, "\xfe\xff"},
    };
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (size >= marks[i].n && memcmp(data, marks[i].bytes, marks[i].n) == 0)
            return marks[i].name;
    const char *s = data;
    if (size == 0)
        return NULL;
    size_t head = size < HEAD_BYTES ? size : HEAD_BYTES;
    bool broken = (size_t)(geul_utf8_valid_end(s, s + size) - s) < size, nul = memchr(s, 0, head) != NULL;
    /* Text in UTF-16 without a mark holds NULs, from its ASCII, or is not UTF-8. Syllables of CP949 look like others in
     * big-endian UTF-16, which makes sense as CP949 only by accident: without NULs CP949 comes first. */
    if (broken && !nul && is_cp949(data, size < CP949_BYTES ? size : CP949_BYTES))
        return "cp949";
    if ((broken || nul) && is_utf16(data, head, 1))
        return "utf-16le";
    return (broken || nul) && is_utf16(data, head, 0) ? "utf-16be" : NULL;
}

/* --------------------------------------------------------------------------------- decoding -- */

/* Appends [s, s + n), which is in another encoding, to out as UTF-8. */
static bool recode(struct geul_context *ctx, const char *s, size_t n, const char *name, const char *encoding,
                   struct geul_bytes *out)
{
    char shown[64];
    iconv_t converter = iconv_open("UTF-8", encoding);
    if (converter == (iconv_t)-1) {
        geul_fail(ctx, GEUL_ERROR_ARGUMENT, "%s: there is no encoding \"%s\" on this system; iconv -l lists them", name,
                  geul_printable(encoding, shown, sizeof shown));
        return false;
    }
    char *in = (char *)(uintptr_t)s;
    size_t left = n;
    bool ok = true;
    while (ok && left > 0) {
        ok = geul_bytes_room(ctx, out, left + 16); /* at least one character: every turn moves on */
        if (!ok)
            break;
        char *to = out->data + out->length;
        size_t room = out->capacity - out->length;
        size_t status = iconv(converter, &in, &left, &to, &room);
        out->length = (size_t)(to - out->data);
        ok = status != (size_t)-1 || errno == E2BIG;
        if (!ok)
            geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: byte %zu is not %s", name, n - left + 1,
                      geul_printable(encoding, shown, sizeof shown));
    }
    iconv_close(converter);
    return ok;
}

/* CR LF to LF, in place; the new length. */
static size_t drop_returns(char *s, size_t n)
{
    size_t used = 0;
    for (size_t i = 0; i < n; i++)
        if (s[i] != '\r' || i + 1 == n || s[i + 1] != '\n')
            s[used++] = s[i];
    return used;
}

bool geul_text_is_utf8_name(const char *encoding)
{
    return !encoding || strcmp(encoding, "utf-8") == 0 || strcmp(encoding, "UTF-8") == 0 ||
           strcmp(encoding, "utf8") == 0 || strcmp(encoding, "UTF8") == 0;
}

char *geul_text_decode(struct geul_context *ctx, const void *data, size_t size, const char *name, const char *encoding,
                       size_t *length)
{
    struct geul_bytes out = {0};
    const char *guess = encoding ? NULL : geul_text_guess_encoding(data, size);
    bool ok = !guess;
    *length = 0;
    geul_error_clear(ctx);
    if (guess)
        geul_fail(ctx, GEUL_ERROR_FORMAT,
                  "%s is %s text, not UTF-8: say so (--encoding %s), or recode it (iconv -f %s "
                  "-t utf-8)",
                  name, geul_text_encoding_title(guess), guess, guess);
    else if (geul_text_is_utf8_name(encoding))
        ok = geul_bytes_room(ctx, &out, size + 1) && geul_bytes_add(ctx, &out, data, size);
    else
        ok = recode(ctx, data, size, name, encoding, &out);
    if (ok && out.length >= 3 && memcmp(out.data, "\xef\xbb\xbf", 3) == 0) {
        out.length -= 3;
        memmove(out.data, out.data + 3, out.length);
    }
    if (ok)
        out.length = drop_returns(out.data, out.length);
    if (!ok || !geul_bytes_add(ctx, &out, "", 1)) {
        geul_free(ctx, out.data);
        return NULL;
    }
    *length = out.length - 1;
    return out.data;
}

const char *geul_text_encoding_title(const char *guess)
{
    static const struct {
        const char *name, *title;
    } titles[] = {{"utf-16le", "UTF-16 (little-endian)"},
                  {"utf-16be", "UTF-16 (big-endian)"},
                  {"utf-32le", "UTF-32 (little-endian)"},
                  {"utf-32be", "UTF-32 (big-endian)"},
                  {"cp949", "CP949 (EUC-KR)"}};
    size_t i = 0;
    while (i + 1 < sizeof titles / sizeof *titles && strcmp(titles[i].name, guess) != 0)
        i++;
    return titles[i].title;
}
