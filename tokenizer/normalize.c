/* normalize.c: see normalize.h. Decompositions and compositions are utf8proc's. */
#include "tokenizer/normalize.h"
#include "tokenizer/unicode.h"

#include <string.h>
#include <utf8proc.h>

enum { NFC = 1, NFKC = 2, NFD = 4, NFKD = 8, ALL = 15 };

/* Ranges of characters that are inert under the forms named, in ascending order: what nearly all text consists of. */
static const struct {
    int32_t first, last;
    unsigned forms;
} inert[] = {
    {0x0000, 0x007F, ALL}, {0x0080, 0x02FF, NFC},        {0x2010, 0x2010, ALL}, {0x2012, 0x2016, ALL},
    {0x2018, 0x2023, ALL}, {0x3001, 0x3029, ALL},        {0x3131, 0x318E, NFC}, {0x3400, 0x4DBF, ALL},
    {0x4E00, 0x9FFF, ALL}, {0xAC00, 0xD7A3, NFC | NFKC}, {0xFF01, 0xFFEF, NFC}, {0x1F300, 0x1FAFF, ALL},
};

/* Characters whose decompositions are younger than the tables of Hugging Face's normalizer (Unicode 9 or so). Models
 * were trained on what it makes of them, which is nothing. */
static const struct {
    int32_t first, last;
} young[] = {
    {0x32FF, 0x32FF},   {0xA7F2, 0xA7F4},   {0xAB69, 0xAB69},   {0x10781, 0x107BA},
    {0x11938, 0x11938}, {0x1E030, 0x1E06D}, {0x1F16C, 0x1F16C}, {0x1FBF0, 0x1FBF9},
};

static bool is_young(int32_t c)
{
    for (size_t i = 0; i < sizeof young / sizeof *young && c >= young[i].first; i++)
        if (c <= young[i].last)
            return true;
    return false;
}

static unsigned form_bit(enum geul_tok_step_kind kind)
{
    return kind == GEUL_TOK_STEP_NFC ? NFC : kind == GEUL_TOK_STEP_NFKC ? NFKC : kind == GEUL_TOK_STEP_NFD ? NFD : NFKD;
}

static bool inert_under(unsigned form, int32_t c)
{
    for (size_t i = 0; i < sizeof inert / sizeof *inert && c >= inert[i].first; i++)
        if (c <= inert[i].last)
            return (inert[i].forms & form) != 0;
    return false;
}

bool geul_normal_inert(enum geul_tok_step_kind form, int32_t c)
{
    return inert_under(form_bit(form), c);
}

/* A growing array of code points. */
struct points {
    int32_t *c;
    size_t n, capacity;
};

static bool points_room(struct geul_context *ctx, struct points *p, size_t n)
{
    if (p->capacity - p->n >= n)
        return true;
    size_t capacity = p->capacity + p->capacity / 2 + n + 64;
    int32_t *more = geul_realloc(ctx, p->c, capacity, sizeof *p->c);
    if (!more)
        return false;
    p->c = more;
    p->capacity = capacity;
    return true;
}

static int combining_class(int32_t c)
{
    return utf8proc_get_property(c)->combining_class;
}

/* Sorts n marks by combining class, stably. Short runs by insertion; long ones, which only hostile texts have, by
 * counting, in linear time. */
static bool sort_marks(struct geul_context *ctx, int32_t *c, size_t n)
{
    if (n <= 32) {
        for (size_t i = 1; i < n; i++) {
            int32_t mark = c[i];
            size_t j = i;
            for (; j > 0 && combining_class(c[j - 1]) > combining_class(mark); j--)
                c[j] = c[j - 1];
            c[j] = mark;
        }
        return true;
    }
    size_t start[257] = {0};
    int32_t *sorted = geul_alloc(ctx, n, sizeof *sorted);
    if (!sorted)
        return false;
    for (size_t i = 0; i < n; i++)
        start[combining_class(c[i]) + 1]++;
    for (int i = 0; i < 256; i++)
        start[i + 1] += start[i];
    for (size_t i = 0; i < n; i++)
        sorted[start[combining_class(c[i])]++] = c[i];
    memcpy(c, sorted, n * sizeof *c);
    geul_free(ctx, sorted);
    return true;
}

/* Puts every run of marks into canonical order. */
static bool order_marks(struct geul_context *ctx, struct points *p)
{
    for (size_t i = 0; i < p->n;) {
        size_t j = i;
        while (j < p->n && combining_class(p->c[j]) != 0)
            j++;
        if (j > i + 1 && !sort_marks(ctx, p->c + i, j - i))
            return false;
        i = j + 1;
    }
    return true;
}

/* Appends the normalized form of valid UTF-8: decomposes every character, puts marks into canonical order, composes. */
static bool normalize_valid(struct geul_context *ctx, unsigned form, const char *s, const char *end,
                            struct geul_bytes *out)
{
    struct points p = {0};
    bool compose = (form & (NFC | NFKC)) != 0, ok = true;
    int options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | ((form & (NFKC | NFKD)) ? UTF8PROC_COMPAT : 0);
    while (ok && s < end) {
        int32_t c = 0;
        s += geul_utf8_decode(s, end, &c);
        ok = points_room(ctx, &p, 32); /* the longest decomposition has 18 */
        if (!ok)
            break;
        utf8proc_ssize_t n = utf8proc_decompose_char(c, p.c + p.n, 32, (utf8proc_option_t)options, NULL);
        if (n <= 0 || n > 32 || is_young(c)) { /* stays as it is */
            p.c[p.n] = c;
            n = 1;
        }
        p.n += (size_t)n;
    }
    ok = ok && order_marks(ctx, &p);
    if (ok && compose && p.n) {
        utf8proc_ssize_t n = utf8proc_normalize_utf32(p.c, (utf8proc_ssize_t)p.n,
                                                      (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
        p.n = n > 0 ? (size_t)n : p.n;
    }
    ok = ok && geul_bytes_room(ctx, out, 4 * p.n); /* 4 bytes of UTF-8 per code point at most */
    for (size_t i = 0; ok && i < p.n; i++)
        out->length += (size_t)geul_utf8_encode(p.c[i], out->data + out->length);
    geul_free(ctx, p.c);
    return ok;
}

/* Length of an inert character at p; 0 when it is not inert; -1 for a broken byte, across which nothing joins. */
static int inert_at(unsigned form, const char *p, const char *end)
{
    if ((unsigned char)*p < 0x80)
        return 1;
    int32_t c;
    int n = geul_utf8_decode(p, end, &c);
    return n == 0 ? -1 : inert_under(form, c) ? n : 0;
}

/* NFC and its relatives. Inert characters are copied. A run of others is normalized together with the inert character
 * before it, which it may compose with; the one behind it joins nothing, by definition, and ends the run. [done, p) has
 * been looked at and not been appended yet. */
static bool normalize_form(struct geul_context *ctx, unsigned form, const char *s, size_t size, struct geul_bytes *out)
{
    const char *p = s, *end = s + size, *done = s, *previous = NULL;
    while (p < end) {
        int n = inert_at(form, p, end);
        if (n != 0) {
            previous = n > 0 ? p : NULL;
            p += n > 0 ? n : 1;
            continue;
        }
        const char *from = previous ? previous : p;
        int32_t c;
        while (p < end && inert_at(form, p, end) == 0)
            p += geul_utf8_decode(p, end, &c);
        if (!geul_bytes_add(ctx, out, done, (size_t)(from - done)) || !normalize_valid(ctx, form, from, p, out))
            return false;
        done = p;
        previous = NULL;
    }
    return geul_bytes_add(ctx, out, done, (size_t)(end - done));
}

static bool lower_case(struct geul_context *ctx, const char *s, size_t size, struct geul_bytes *out)
{
    for (const char *end = s + size; s < end;) {
        int32_t c, low[2];
        int n = geul_utf8_decode(s, end, &c);
        if (!geul_bytes_room(ctx, out, 8))
            return false;
        if (n == 0)
            out->data[out->length++] = *s;
        else
            for (int i = 0, count = geul_lower_case(c, low); i < count; i++)
                out->length += (size_t)geul_utf8_encode(low[i], out->data + out->length);
        s += n ? n : 1;
    }
    return true;
}

static bool strip_accents(struct geul_context *ctx, const char *s, size_t size, struct geul_bytes *out)
{
    for (const char *end = s + size; s < end;) {
        int32_t c;
        int n = geul_utf8_decode(s, end, &c);
        if ((n == 0 || !geul_is_mark(c)) && !geul_bytes_add(ctx, out, s, (size_t)(n ? n : 1)))
            return false;
        s += n ? n : 1;
    }
    return true;
}

static bool strip(struct geul_context *ctx, const struct geul_normal_step *step, const char *s, size_t size,
                  struct geul_bytes *out)
{
    const char *end = s + size;
    int32_t c;
    int n;
    while (step->left && s < end && (n = geul_utf8_decode(s, end, &c)) > 0 && geul_is_space(c))
        s += n;
    while (step->right && end > s && (n = geul_utf8_decode_back(s, end, &c)) > 0 && geul_is_space(c))
        end -= n;
    return geul_bytes_add(ctx, out, s, (size_t)(end - s));
}

size_t geul_find_text(const char *text, size_t text_n, size_t start, struct geul_slice needle)
{
    while (text_n - start >= needle.n && needle.n) {
        const char *p = memchr(text + start, needle.s[0], text_n - start - needle.n + 1);
        if (!p)
            break;
        if (memcmp(p, needle.s, needle.n) == 0)
            return (size_t)(p - text);
        start = (size_t)(p - text) + 1;
    }
    return text_n;
}

/* The next match of a Replace in [s, s + n) at or after start. */
static bool next_match(struct geul_context *ctx, const struct geul_normal_step *step, const char *s, size_t n,
                       size_t start, size_t *from, size_t *to, uint64_t *budget)
{
    if (step->search.compiled)
        return geul_search_next(ctx, &step->search, s, n, start, from, to, budget);
    *from = geul_find_text(s, n, start, step->text);
    *to = *from + step->text.n;
    return *from < n;
}

/* Replaces in a text that the engine may be given: valid UTF-8 where there is one. */
static bool replace_valid(struct geul_context *ctx, const struct geul_normal_step *step, const char *s, size_t n,
                          struct geul_bytes *out, uint64_t *budget)
{
    size_t done = 0, start = 0, from, to;
    while (start <= n && next_match(ctx, step, s, n, start, &from, &to, budget)) {
        if (!geul_bytes_add(ctx, out, s + done, from - done) ||
            !geul_bytes_add(ctx, out, step->content.s, step->content.n))
            return false;
        done = start = to;
        if (to == from) { /* an empty match: continue after the next character */
            int32_t c;
            start += to < n ? (size_t)geul_utf8_decode(s + to, s + n, &c) : 1;
        }
    }
    return geul_error_status(ctx) == GEUL_OK && geul_bytes_add(ctx, out, s + done, n - done);
}

bool geul_replace(struct geul_context *ctx, const struct geul_normal_step *step, const char *s, size_t n,
                  struct geul_bytes *out, uint64_t *budget)
{
    if (!step->search.compiled)
        return replace_valid(ctx, step, s, n, out, budget);
    const char *end = s + n;
    while (s < end) { /* an engine gets the stretches of valid UTF-8; broken bytes between them are copied */
        const char *valid = geul_utf8_valid_end(s, end);
        if (valid > s && !replace_valid(ctx, step, s, (size_t)(valid - s), out, budget))
            return false;
        if (valid < end && !geul_bytes_add(ctx, out, valid, 1))
            return false;
        s = valid < end ? valid + 1 : end;
    }
    return true;
}

bool geul_normalize(struct geul_context *ctx, const struct geul_normal_step *step, const char *s, size_t n,
                    struct geul_bytes *out, uint64_t *budget)
{
    switch (step->kind) {
    case GEUL_TOK_STEP_NFC:
    case GEUL_TOK_STEP_NFD:
    case GEUL_TOK_STEP_NFKC:
    case GEUL_TOK_STEP_NFKD:
        return normalize_form(ctx, form_bit(step->kind), s, n, out);
    case GEUL_TOK_STEP_LOWERCASE:
        return lower_case(ctx, s, n, out);
    case GEUL_TOK_STEP_STRIP_ACCENTS:
        return strip_accents(ctx, s, n, out);
    case GEUL_TOK_STEP_STRIP:
        return strip(ctx, step, s, n, out);
    case GEUL_TOK_STEP_PREPEND:
        return (n == 0 || geul_bytes_add(ctx, out, step->text.s, step->text.n)) && geul_bytes_add(ctx, out, s, n);
    default:
        return geul_replace(ctx, step, s, n, out, budget);
    }
}

char *geul_text_nfc(struct geul_context *ctx, const char *text, size_t length, size_t *nfc_length)
{
    struct geul_bytes out = {0};
    *nfc_length = 0;
    geul_error_clear(ctx);
    if (!normalize_form(ctx, form_bit(GEUL_TOK_STEP_NFC), text, length, &out) || !geul_bytes_add(ctx, &out, "", 1)) {
        geul_free(ctx, out.data);
        return NULL;
    }
    *nfc_length = out.length - 1;
    return out.data;
}
