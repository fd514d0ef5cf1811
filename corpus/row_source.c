/* row_source.c: the objects of a file of JSON text: one per line, over several lines each, or in one array.
 *
 * A line that begins with "{" and is no object by itself may be the beginning of one over several lines. Its end is
 * looked for by brackets alone, so that one broken line cannot take the good ones behind it along: the search gives up
 * at the first thing that no JSON has there, such as the "{" of the next row where a comma would have to be.
 */
#include "corpus/row_reader.h"

#include "corpus/text_decode.h"
#include "formats/json_text.h"
#include "tokenizer/unicode.h"

#include <stdio.h>
#include <string.h>

enum { DEEPEST = 2048 }; /* as jansson reads them */

/* ----------------------------------------------------------------------------------- parsing -- */

size_t geul_rows_first_broken(const char *s, size_t n)
{
    return (size_t)(geul_utf8_valid_end(s, s + n) - s);
}

bool geul_rows_not_utf8(struct geul_rows *r, const char *s, size_t n, size_t byte, const char *what)
{
    const char *guess = geul_text_guess_encoding(s, n);
    if (!guess)
        return geul_rows_problem(r, "byte %zu of %s is not UTF-8", byte, what);
    return geul_rows_problem(r,
                             "byte %zu of %s is not UTF-8; it reads as %s: say so (--encoding %s), or recode the file "
                             "(iconv -f %s -t utf-8)",
                             byte, what, geul_text_encoding_title(guess), guess, guess);
}

const char *geul_rows_kind(const json_t *v)
{
    static const char *const names[] = {
        [JSON_OBJECT] = "an object",    [JSON_ARRAY] = "an array", [JSON_STRING] = "a string",
        [JSON_INTEGER] = "a number",    [JSON_REAL] = "a number",  [JSON_TRUE] = "true or false",
        [JSON_FALSE] = "true or false", [JSON_NULL] = "null",
    };
    const char *odd = geul_json_oddity(v);
    return odd ? odd : v ? names[json_typeof(v)] : "missing";
}

/* The object in [s, s + n), which what names in messages ("the line"); NULL with a problem recorded. jansson refuses
 * broken UTF-8 and NUL bytes too, but says less about them. */
static json_t *parse(struct geul_rows *r, const char *s, size_t n, const char *what)
{
    json_error_t error;
    char text[JSON_ERROR_TEXT_LENGTH], place[48] = "";
    if (n > GEUL_ROW_BYTES) {
        geul_rows_problem(r, "%s has %zu MiB; at most 64 are possible", what, n >> 20);
        return NULL;
    }
    json_t *json = geul_json_decode(r->ctx, s, n, JSON_DECODE_ANY, &error);
    size_t broken = json ? n : geul_rows_first_broken(s, n);
    if (!json && error.line > 1)
        snprintf(place, sizeof place, "line %lld, ", (long long)r->line + error.line - 1);
    if (broken < n)
        geul_rows_not_utf8(r, s, n, broken + 1, what);
    else if (!json && memchr(s, 0, n))
        geul_rows_problem(r, "%s holds a NUL byte", what);
    else if (!json)
        geul_rows_problem(r, "not valid JSON: %s (%scolumn %d)", geul_printable(error.text, text, sizeof text), place,
                          error.column);
    if (json && !json_is_object(json)) {
        geul_rows_problem(r, "is %s, not an object", geul_rows_kind(json));
        json_decref(json);
        return NULL;
    }
    return json;
}

/* -------------------------------------------------------------------------------------- ends -- */

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Moves pos over white space, counting lines. */
static void skip_space(struct geul_rows *r)
{
    for (; r->pos < r->size && is_space(r->data[r->pos]); r->pos++)
        r->next_line += r->data[r->pos] == '\n';
}

/* Moves pos to `to`, counting lines. */
static void move_to(struct geul_rows *r, size_t to)
{
    for (const char *at = r->data + r->pos, *end = r->data + to; (at = memchr(at, '\n', (size_t)(end - at))); at++)
        r->next_line++;
    r->pos = to;
}

/* The offset behind the string that begins at s[at]; 0 when it does not end before the line. */
static size_t string_end(const char *s, size_t at, size_t n)
{
    for (at++; at < n && s[at] != '"' && s[at] != '\n'; at++)
        at += s[at] == '\\' && at + 1 < n;
    return at < n && s[at] == '"' ? at + 1 : 0;
}

/* The offset behind the object or array that begins at s[0], 0 when it does not end within n bytes; *stop is then where
 * the search gave up. */
static size_t value_end(const char *s, size_t n, size_t *stop)
{
    unsigned char open[DEEPEST]; /* the bracket that closes each level */
    size_t depth = 0, at = 0;
    bool after_value = false; /* what begins a value is wrong here: a comma is missing */
    while (at < n) {
        char c = s[at];
        bool opens = c == '{' || c == '[', string = c == '"';
        if (after_value && (opens || string))
            break;
        if (string) {
            size_t end = string_end(s, at, n);
            if (!end)
                break;
            at = end;
            after_value = true;
            continue;
        }
        if (opens) {
            if (depth == DEEPEST)
                break;
            open[depth++] = c == '{' ? '}' : ']';
        } else if (c == '}' || c == ']') {
            if (open[depth - 1] != (unsigned char)c)
                break;
            if (--depth == 0)
                return at + 1;
            after_value = true;
        }
        if (!is_space(c) && c != '}' && c != ']')
            after_value = !opens && c != ',' && c != ':';
        at++;
    }
    *stop = at;
    return 0;
}

/* ------------------------------------------------------------------------------------- lines -- */

/* Whether [s, s + n) may be a whole object: what is not cannot be parsed. */
static bool closes(const char *s, size_t n)
{
    while (n && is_space(s[n - 1]))
        n--;
    return n && s[n - 1] == '}';
}

/* Passes over what still belongs to a broken object of several lines: up to the next line that begins with "{" and is
 * indented no more than it. */
static void skip_broken(struct geul_rows *r, size_t indent)
{
    while (r->pos < r->size) {
        const char *s = r->data + r->pos, *newline = memchr(s, '\n', r->size - r->pos);
        size_t n = newline ? (size_t)(newline - s) : r->size - r->pos, in = 0;
        while (in < n && is_space(s[in]))
            in++;
        if (in < n && s[in] == '{' && in <= indent)
            return;
        r->pos += n + (newline != NULL);
        r->next_line++;
    }
}

/* The object at pos, whose line has n bytes and is no object by itself. */
static json_t *next_spread(struct geul_rows *r, size_t indent, size_t n)
{
    const char *s = r->data + r->pos;
    size_t rest = r->size - r->pos, most = rest < GEUL_ROW_BYTES ? rest : GEUL_ROW_BYTES, end = 0, stop = 0;
    /* Each search costs at most what is searched; all of those in vain together no more than the file some times. */
    bool may = s[0] == '{' && r->wasted <= 4 * r->size;
    if (may)
        end = value_end(s, most, &stop);
    if (end > n) {
        move_to(r, r->pos + end);
        r->tally.spread = true;
        return parse(r, s, end, "the row");
    }
    r->wasted += end ? 0 : stop;
    bool open = may && !end && stop >= n; /* nothing is wrong with the line itself: it is what follows */
    size_t shown = n;                     /* what the parser is given, to say what is wrong */
    if (open) {                           /* as far as the end of the line where it stops, or of the text */
        for (shown = stop; shown < most && s[shown] != '\n';)
            shown++;
        while (shown > n && is_space(s[shown - 1]))
            shown--;
    }
    json_t *json = parse(r, s, shown, "the line");
    move_to(r, r->pos + n);
    r->pos += r->pos < r->size;
    r->next_line++;
    if (!json && open)
        skip_broken(r, indent);
    return json;
}

static enum geul_row_next next_line(struct geul_rows *r)
{
    skip_space(r);
    if (r->pos >= r->size)
        return GEUL_ROW_END;
    json_error_t error;
    const char *s = r->data + r->pos, *newline = memchr(s, '\n', r->size - r->pos);
    size_t n = newline ? (size_t)(newline - s) : r->size - r->pos, indent = 0;
    while (indent < r->pos && (s[-1 - (ptrdiff_t)indent] == ' ' || s[-1 - (ptrdiff_t)indent] == '\t'))
        indent++;
    r->line = r->next_line;
    if (closes(s, n) && n <= GEUL_ROW_BYTES)
        r->json = geul_json_decode(r->ctx, s, n, 0, &error);
    if (r->json && json_is_object(r->json)) {
        r->pos += n + (newline != NULL);
        r->next_line++;
        return GEUL_ROW_OBJECT;
    }
    json_decref(r->json);
    r->json = next_spread(r, indent, n);
    return r->json ? GEUL_ROW_OBJECT : GEUL_ROW_BROKEN;
}

/* ------------------------------------------------------------------------------------- array -- */

static enum geul_row_next fail_array(struct geul_rows *r, const char *what)
{
    char name[256];
    geul_fail(r->ctx, GEUL_ERROR_FORMAT, "%s:%lld: not valid JSON: %s", geul_printable(r->name, name, sizeof name),
              (long long)r->next_line, what);
    return GEUL_ROW_BROKEN;
}

/* Length of a string, number or word at s; 0 when a string has no end. */
static size_t scalar_length(const char *s, size_t n)
{
    size_t at = 0;
    if (s[0] == '"')
        return string_end(s, 0, n);
    while (at < n && !is_space(s[at]) && !strchr(",]}[{\"", s[at]))
        at++;
    return at ? at : 1; /* a stray bracket is for the parser to name */
}

/* The next element. What is no JSON between elements ends the reading: nothing says where the next one begins. */
static enum geul_row_next next_element(struct geul_rows *r)
{
    if (r->element < 0) /* past the end */
        return GEUL_ROW_END;
    r->pos += r->element == 0; /* the bracket */
    skip_space(r);
    bool comma = r->pos < r->size && r->data[r->pos] == ',' && r->element > 0;
    if (comma) {
        r->pos++;
        skip_space(r);
    }
    if (r->pos >= r->size)
        return fail_array(r, "the file ends within its array; is it complete?");
    if (r->data[r->pos] == ']') {
        r->pos++;
        skip_space(r);
        if (r->pos < r->size)
            return fail_array(r, "something follows the array");
        r->found |= r->element > 0;
        r->element = -1;
        return GEUL_ROW_END;
    }
    if (r->element > 0 && !comma)
        return fail_array(r, "a comma or ] is missing between the elements of the array");
    const char *s = r->data + r->pos;
    size_t rest = r->size - r->pos, most = rest < GEUL_ROW_BYTES ? rest : GEUL_ROW_BYTES, stop;
    size_t n = *s == '{' || *s == '[' ? value_end(s, most, &stop) : scalar_length(s, most);
    r->element++;
    r->line = r->next_line;
    if (n == 0)
        return fail_array(r, "an element that begins here has no end, or has more than 64 MiB");
    move_to(r, r->pos + n);
    r->json = parse(r, s, n, "the element");
    return r->json ? GEUL_ROW_OBJECT : GEUL_ROW_BROKEN;
}

enum geul_row_next geul_row_source_next(struct geul_rows *r)
{
    json_decref(r->json);
    r->json = NULL;
    return r->form == GEUL_ROW_ARRAY ? next_element(r) : next_line(r);
}
