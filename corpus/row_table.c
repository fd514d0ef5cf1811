/* row_table.c: the records of CSV (RFC 4180) and TSV files as objects: each field under its name in the first record.
 *
 * As in Python's csv, which pandas and most exports follow: a field may be quoted, "" in it is a quote, and it may then
 * hold the delimiter and line ends; a quote elsewhere is an ordinary character.
 */
#include "corpus/row_reader.h"

#include <string.h>

enum { MOST_COLUMNS = 1024 };

/* Appends a byte to the record. */
static bool put(struct geul_rows *r, char c)
{
    return geul_bytes_add(r->ctx, &r->record, &c, 1);
}

/* Reads a quoted part, whose opening quote is behind pos already. */
static bool read_quoted(struct geul_rows *r)
{
    const char *s = r->data;
    char name[256];
    for (; r->pos < r->size; r->pos++) {
        char c = s[r->pos];
        r->next_line += c == '\n';
        if (c == '"' && !(r->pos + 1 < r->size && s[r->pos + 1] == '"')) {
            r->pos++;
            return true;
        }
        r->pos += c == '"';
        bool dropped = c == '\r' && r->pos + 1 < r->size && s[r->pos + 1] == '\n';
        if (!dropped && !put(r, c))
            return false;
        if (r->record.length > GEUL_ROW_BYTES)
            break;
    }
    geul_fail(r->ctx, GEUL_ERROR_FORMAT,
              "%s:%lld: a quoted field of this record has no end%s; a quote within quotes has to be doubled",
              geul_printable(r->name, name, sizeof name), (long long)r->line, r->pos < r->size ? " within 64 MiB" : "");
    return false;
}

/* Appends the next field and a NUL to the record; *last: the record ends behind it. */
static bool read_field(struct geul_rows *r, bool *last)
{
    const char *s = r->data;
    *last = false;
    if (r->pos < r->size && s[r->pos] == '"') {
        r->pos++;
        if (!read_quoted(r))
            return false;
    }
    for (; r->pos < r->size && s[r->pos] != r->delimiter && s[r->pos] != '\n'; r->pos++) {
        bool dropped = s[r->pos] == '\r' && (r->pos + 1 == r->size || s[r->pos + 1] == '\n');
        if (!dropped && !put(r, s[r->pos]))
            return false;
        if (r->record.length > GEUL_ROW_BYTES) {
            geul_fail(r->ctx, GEUL_ERROR_FORMAT, "%s:%lld: the record has more than 64 MiB", r->name,
                      (long long)r->line);
            return false;
        }
    }
    *last = r->pos >= r->size || s[r->pos] == '\n';
    r->next_line += r->pos < r->size && *last;
    r->pos += r->pos < r->size;
    return put(r, '\0');
}

/* Moves pos over empty lines. */
static void skip_empty(struct geul_rows *r)
{
    while (r->pos < r->size) {
        size_t at = r->pos;
        while (at < r->size && (r->data[at] == ' ' || r->data[at] == '\r'))
            at++;
        if (at < r->size && r->data[at] != '\n')
            return;
        r->next_line += at < r->size;
        r->pos = at + (at < r->size);
    }
}

/* -------------------------------------------------------------------------------------- header -- */

/* The character that separates most fields of the first line: a tab in .tsv, otherwise a comma, or a semicolon or tab
 * where there are more of these, as in what spreadsheets write in some countries. */
static char find_delimiter(const struct geul_rows *r)
{
    static const char candidates[] = ",;\t";
    size_t counts[3] = {0}, n = strlen(r->name);
    bool quoted = false;
    if (n > 4 && (r->name[n - 3] == 't' || r->name[n - 3] == 'T'))
        return '\t';
    for (size_t at = r->pos; at < r->size && (quoted || r->data[at] != '\n'); at++) {
        const char *found = r->data[at] ? strchr(candidates, r->data[at]) : NULL;
        quoted ^= r->data[at] == '"';
        if (found && !quoted)
            counts[found - candidates]++;
    }
    return counts[1] > counts[0] && counts[1] >= counts[2] ? ';' : counts[2] > counts[0] ? '\t' : ',';
}

/* Adds a name of the header, without white space around it. */
static bool add_column(struct geul_rows *r, const char *name)
{
    name += strspn(name, " \t");
    size_t n = strlen(name);
    while (n && (name[n - 1] == ' ' || name[n - 1] == '\t'))
        n--;
    if (!geul_reserve(r->ctx, &r->columns, &r->column_capacity, r->n_columns + 1, sizeof *r->columns))
        return false;
    char *copy = geul_strndup(r->ctx, name, n);
    if (copy)
        r->columns[r->n_columns++] = copy;
    return copy != NULL;
}

/* Fails unless the header names a shape of rows. */
static bool check_columns(struct geul_rows *r)
{
    char name[256], text[640];
    json_t *object = json_object();
    bool ok = object != NULL;
    for (size_t i = 0; ok && i < r->n_columns; i++)
        ok = json_object_set_new(object, r->columns[i], json_true()) == 0;
    if (!ok) {
        geul_fail_memory(r->ctx, r->n_columns);
    } else if (!geul_row_shape_known(object)) {
        geul_row_shape_describe(object, "column", text, sizeof text);
        geul_fail(r->ctx, GEUL_ERROR_FORMAT, "%s: %s", geul_printable(r->name, name, sizeof name), text);
        ok = false;
    }
    json_decref(object);
    return ok;
}

bool geul_row_table_open(struct geul_rows *r)
{
    char name[256];
    bool last = false;
    skip_empty(r);
    if (r->pos >= r->size)
        return true; /* empty: reading says so */
    r->delimiter = find_delimiter(r);
    r->line = r->next_line;
    while (!last) {
        r->record.length = 0;
        if (!read_field(r, &last))
            return false;
        size_t n = r->record.length - 1;
        if (geul_rows_first_broken(r->record.data, n) < n || strlen(r->record.data) != n) {
            geul_fail(r->ctx, GEUL_ERROR_FORMAT,
                      "%s: the name of column %zu is not UTF-8; name the encoding (--encoding)",
                      geul_printable(r->name, name, sizeof name), r->n_columns + 1);
            return false;
        }
        if (r->n_columns == MOST_COLUMNS) {
            geul_fail(r->ctx, GEUL_ERROR_FORMAT, "%s: more than %d columns", geul_printable(r->name, name, sizeof name),
                      MOST_COLUMNS);
            return false;
        }
        if (!add_column(r, r->record.data))
            return false;
    }
    return check_columns(r);
}

/* ------------------------------------------------------------------------------------- records -- */

/* Reads all fields of a record, of which *n. */
static bool read_record(struct geul_rows *r, size_t *n)
{
    bool last = false;
    r->record.length = *n = 0;
    for (; !last; ++*n)
        if (!read_field(r, &last))
            return false;
    return true;
}

/* Makes an object of the record's fields. */
static bool make_object(struct geul_rows *r)
{
    const char *at = r->record.data, *end = at + r->record.length;
    r->json = json_object();
    bool ok = r->json != NULL;
    for (size_t i = 0; ok && i < r->n_columns && at < end; i++) {
        size_t n = strlen(at); /* a field with a NUL would shift the others: it was refused before */
        size_t broken = geul_rows_first_broken(at, n);
        if (broken < n)
            return geul_rows_not_utf8(r, at, n, broken + 1, r->columns[i]);
        if (*r->columns[i] && !json_object_get(r->json, r->columns[i]))
            ok = json_object_set_new(r->json, r->columns[i], json_stringn_nocheck(at, n)) == 0;
        at += n + 1;
    }
    if (!ok)
        geul_fail_memory(r->ctx, r->record.length);
    return ok;
}

enum geul_row_next geul_row_table_next(struct geul_rows *r)
{
    size_t n = 0, nuls = 0;
    json_decref(r->json);
    r->json = NULL;
    skip_empty(r);
    if (r->pos >= r->size)
        return GEUL_ROW_END;
    r->line = r->next_line;
    if (!read_record(r, &n))
        return GEUL_ROW_BROKEN;
    for (const char *at = r->record.data, *end = at + r->record.length; (at = memchr(at, 0, (size_t)(end - at))); at++)
        nuls++;
    bool ok = nuls == n || geul_rows_problem(r, "the record holds a NUL byte");
    if (ok && n != r->n_columns)
        ok = geul_rows_problem(r, "the record has %zu field%s, the header has %zu%s", n, n == 1 ? "" : "s",
                               r->n_columns, n > r->n_columns ? ": a field with the delimiter in it needs quotes" : "");
    return ok && make_object(r) ? GEUL_ROW_OBJECT : GEUL_ROW_BROKEN;
}

void geul_row_table_free(struct geul_rows *r)
{
    for (size_t i = 0; i < r->n_columns; i++)
        geul_free(r->ctx, r->columns[i]);
    geul_free(r->ctx, r->columns);
    geul_free(r->ctx, r->record.data);
}
