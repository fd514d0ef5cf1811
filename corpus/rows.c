/* rows.c: see geul_tools.h and rows.h. */
#include "corpus/rows.h"

#include "core/check.h"
#include "core/file_kind.h"
#include "corpus/row_reader.h"
#include "corpus/text_decode.h"

#include <stdio.h>
#include <string.h>

#define LONGEST_TEXT ((size_t)1 << 30)
#define DROP_BYTES   ((size_t)64 << 20)

bool geul_rows_problem(struct geul_rows *r, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (r->form == GEUL_ROW_ARRAY) /* all may be on one line */
        geul_row_problem(r->problems, r->name, r->line, "element %lld: %s", (long long)r->element, text);
    else
        geul_row_problem(r->problems, r->name, r->line, "%s", text);
    return false;
}

/* ------------------------------------------------------------------------------------ opening -- */

/* Files that are no rows yet, by how they begin, and what makes rows of them. What else people give by mistake is named
 * by core/file_kind.h. */
static const struct {
    const char *bytes;
    size_t n;
    const char *what, *advice;
} foreign[] = {
    {"PAR1", 4, "a Parquet file",
     "make JSON Lines of it: python3 -c 'import pyarrow.parquet as p, json, sys; [print(json.dumps(r, "
     "ensure_ascii=False, default=str)) for b in p.ParquetFile(sys.argv[1]).iter_batches() for r in b.to_pylist()]' "
     "FILE > rows.jsonl"},
    {"ARROW1", 6, "an Arrow file",
     "make JSON Lines of it: python3 -c 'import pyarrow as p, json, sys; [print(json.dumps(r, ensure_ascii=False, "
     "default=str)) for r in p.ipc.open_file(sys.argv[1]).read_all().to_pylist()]' FILE > rows.jsonl"},
    {"\xff\xff\xff\xff", 4, "an Arrow stream, as datasets keeps them",
     "make JSON Lines of it: python3 -c 'import pyarrow as p, json, sys; [print(json.dumps(r, ensure_ascii=False, "
     "default=str)) for r in p.ipc.open_stream(sys.argv[1]).read_all().to_pylist()]' FILE > rows.jsonl"},
    {"\x1f\x8b", 2, "compressed by gzip", "unpack it first: gunzip -k FILE"},
    {"\x28\xb5\x2f\xfd", 4, "compressed by zstd", "unpack it first: unzstd FILE"},
    {"\xfd"
     "7zXZ",
     5, "compressed by xz", "unpack it first: unxz -k FILE"},
    {"BZh", 3, "compressed by bzip2", "unpack it first: bunzip2 -k FILE"},
    {"PK\3\4", 4, "a zip archive, or a table or document of an office program (.xlsx, .ods, .docx)",
     "unpack it first: unzip FILE; or save the table as CSV in UTF-8"},
    {"\xd0\xcf\x11\xe0", 4, "a document or table of an office program (.xls, .doc, .hwp)",
     "save it as CSV or as a text, in UTF-8"},
    {"%PDF-", 5, "a PDF", "make a text of it first: pdftotext FILE"},
    {"geulshrd", 8, "a token shard", "shards are read as such where their names end in .geulshard"},
};

/* Whether the name ends in the extension, in upper or lower case. */
static bool has_extension(const char *name, const char *extension)
{
    size_t n = strlen(name), m = strlen(extension);
    if (n <= m)
        return false;
    for (size_t i = 0; i < m; i++) {
        char c = name[n - m + i];
        if ((c >= 'A' && c <= 'Z' ? c + 32 : c) != extension[i])
            return false;
    }
    return true;
}

static bool is_table(const char *name)
{
    return has_extension(name, ".csv") || has_extension(name, ".tsv");
}

/* Fails when the bytes are no text in UTF-8 as a whole. CP949 is told by a few rows of a table; other files may have
 * good ones among those in CP949, which are named row by row. */
static enum geul_status check_bytes(struct geul_context *ctx, const char *data, size_t size, const char *path)
{
    enum { HEAD = 4096 };
    char name[256];
    geul_printable(path, name, sizeof name);
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        const char *advice = foreign[i].advice, *file = strstr(advice, "FILE");
        if (size >= foreign[i].n && memcmp(data, foreign[i].bytes, foreign[i].n) == 0)
            return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s is %s; %.*s%s%s", name, foreign[i].what,
                             (int)(file ? (size_t)(file - advice) : strlen(advice)), advice, file ? name : "",
                             file ? file + 4 : "");
    }
    const struct geul_file_kind *kind = geul_file_kind_foreign(data, size, GEUL_FILE_JSON);
    /* a plain text may begin in any way, as "GGUF is a format", but for what git-lfs writes */
    if (kind && (kind->file == GEUL_FILE_POINTER || !has_extension(path, ".txt")))
        return geul_fail_kind(ctx, name, "a file of rows", kind);
    const char *guess = geul_text_guess_encoding(data, size < HEAD ? size : HEAD);
    if (guess && (strncmp(guess, "utf-", 4) == 0 || is_table(path)))
        return geul_fail(ctx, GEUL_ERROR_FORMAT,
                         "%s is %s text, not UTF-8: say so (--encoding %s), or recode it (iconv -f %s -t utf-8)", name,
                         geul_text_encoding_title(guess), guess, guess);
    return GEUL_OK;
}

/* The form of the file, by its name and where it begins. */
static enum geul_row_form find_form(const struct geul_rows *r)
{
    size_t at = r->pos;
    if (has_extension(r->name, ".txt"))
        return GEUL_ROW_PLAIN;
    if (is_table(r->name))
        return GEUL_ROW_TABLE;
    while (at < r->size && (r->data[at] == ' ' || r->data[at] == '\t' || r->data[at] == '\r' || r->data[at] == '\n'))
        at++;
    return at < r->size && r->data[at] == '[' ? GEUL_ROW_ARRAY : GEUL_ROW_LINES;
}

/* The bytes as rows; decoded, or NULL, belongs to them from now on. */
static struct geul_rows *open_text(struct geul_context *ctx, const char *data, size_t size, const char *name,
                                   struct geul_row_problems *problems, char *decoded)
{
    struct geul_rows *r = geul_alloc(ctx, 1, sizeof *r);
    if (!r) {
        geul_free(ctx, decoded);
        return NULL;
    }
    *r = (struct geul_rows){.ctx = ctx, .data = data, .size = size, .decoded = decoded, .next_line = 1};
    r->unread.ctx = ctx;
    r->problems = problems ? problems : &r->unread;
    r->name = geul_strndup(ctx, name, strlen(name));
    bool ok = r->name != NULL;
    if (size >= 3 && memcmp(data, "\xef\xbb\xbf", 3) == 0) /* the byte order mark that editors on Windows write */
        r->pos = 3;
    if (ok) {
        r->form = find_form(r);
        ok = r->form != GEUL_ROW_TABLE || geul_row_table_open(r);
    }
    if (r->form == GEUL_ROW_ARRAY)
        while (r->data[r->pos] != '[')
            r->next_line += r->data[r->pos++] == '\n';
    if (ok)
        return r;
    geul_rows_close(r);
    return NULL;
}

struct geul_rows *geul_rows_open_memory(struct geul_context *ctx, const void *data, size_t size, const char *name,
                                        const char *encoding, struct geul_row_problems *problems)
{
    size_t length;
    if (!geul_text_is_utf8_name(encoding)) {
        char *decoded = geul_text_decode(ctx, data, size, name, encoding, &length);
        return decoded ? open_text(ctx, decoded, length, name, problems, decoded) : NULL;
    }
    if (check_bytes(ctx, data, size, name) != GEUL_OK)
        return NULL;
    return open_text(ctx, data, size, name, problems, NULL);
}

struct geul_rows *geul_rows_open_encoded(struct geul_context *ctx, const char *path, const char *encoding,
                                         struct geul_row_problems *problems)
{
    struct geul_map map;
    geul_error_clear(ctx);
    if (geul_os_map(ctx, path, &map) != GEUL_OK)
        return NULL;
    struct geul_rows *r =
        geul_rows_open_memory(ctx, map.data ? (const void *)map.data : "", map.size, path, encoding, problems);
    if (r)
        r->file_size = map.size;
    if (r && !r->decoded)
        r->map = map;
    else
        geul_os_unmap(&map);
    return r;
}

struct geul_rows *geul_rows_open(struct geul_context *ctx, const char *path, struct geul_row_problems *problems)
{
    return geul_rows_open_encoded(ctx, path, NULL, problems);
}

void geul_rows_close(struct geul_rows *r)
{
    if (!r)
        return;
    if (r->name)
        geul_row_tally_finish(r);
    geul_os_unmap(&r->map);
    json_decref(r->json);
    json_decref(r->made);
    geul_row_table_free(r);
    geul_row_problems_clear(&r->unread);
    geul_free(r->ctx, r->turns);
    geul_free(r->ctx, r->learned);
    geul_text_free(r->ctx, r->text);
    geul_text_free(r->ctx, r->decoded);
    geul_free(r->ctx, r->name);
    geul_free(r->ctx, r);
}

/* ------------------------------------------------------------------------------------ reading -- */

static size_t count_newlines(const char *s, size_t n)
{
    size_t lines = 0;
    for (const char *at = s; (at = memchr(at, '\n', n - (size_t)(at - s))); at++)
        lines++;
    return lines;
}

/* Whether a CR LF is in the text. */
static bool has_returns(const char *s, size_t n)
{
    for (const char *at = s, *end = s + n; (at = memchr(at, '\r', (size_t)(end - at))); at++)
        if (at + 1 < end && at[1] == '\n')
            return true;
    return false;
}

/* Fills row from a whole text; the newline at its end, which editors add, is left out. What is wrong with it is
 * reported with the number of its line. */
static bool read_plain(struct geul_rows *r, const char *s, size_t n, struct geul_row *row)
{
    n -= n && s[n - 1] == '\n';
    n -= n && s[n - 1] == '\r';
    size_t broken = geul_rows_first_broken(s, n);
    const char *nul = memchr(s, 0, broken);
    if (nul) /* looked for in the valid part only: what comes first in the file is reported */
        broken = (size_t)(nul - s);
    r->line = (int64_t)count_newlines(s, broken) + 1;
    if (nul)
        return geul_rows_problem(r, "the text holds a NUL byte");
    if (broken < n)
        return geul_rows_not_utf8(r, s, n, (size_t)(s - r->data) + broken + 1, "the file");
    if (n > LONGEST_TEXT)
        return geul_rows_problem(r, "the text has %zu MiB; at most 1024 are possible: split it", n >> 20);
    if (has_returns(s, n)) {
        r->text = geul_text_decode(r->ctx, s, n, r->name, "utf-8", &n);
        if (!r->text)
            return false;
        s = r->text;
    }
    r->line = 1;
    row->kind = GEUL_ROW_TEXT;
    row->text = s;
    row->length = n;
    return true;
}

/* Takes the whole rest of a .txt; END where it is white space. */
static enum geul_row_next next_plain(struct geul_rows *r, struct geul_row *row)
{
    const char *s = r->data + r->pos;
    size_t n = r->size - r->pos, blank = 0;
    while (blank < n && (s[blank] == ' ' || s[blank] == '\t' || s[blank] == '\r' || s[blank] == '\n'))
        blank++;
    r->pos = r->size;
    if (blank == n)
        return GEUL_ROW_END;
    return read_plain(r, s, n, row) ? GEUL_ROW_OBJECT : GEUL_ROW_BROKEN;
}

/* Moves to the next row; OBJECT: *row is filled. */
static enum geul_row_next next_row(struct geul_rows *r, struct geul_row *row)
{
    if (r->form == GEUL_ROW_PLAIN)
        return next_plain(r, row);
    enum geul_row_next next = r->form == GEUL_ROW_TABLE ? geul_row_table_next(r) : geul_row_source_next(r);
    return next != GEUL_ROW_OBJECT || geul_row_shape_read(r, row) ? next : GEUL_ROW_BROKEN;
}

enum geul_status geul_rows_next(struct geul_rows *r, const struct geul_row **row)
{
    *row = NULL;
    geul_error_clear(r->ctx);
    if (r->map.data && r->pos - r->dropped >= DROP_BYTES) { /* what was read need not stay in memory */
        geul_os_map_discard(r->data + r->dropped, r->pos - r->dropped);
        r->dropped = r->pos;
    }
    for (;;) { /* until a row: one with a problem is skipped, a failure ends the reading */
        r->row = (struct geul_row){.kind = GEUL_ROW_TURNS};
        enum geul_row_next next = next_row(r, &r->row);
        if (next == GEUL_ROW_END)
            break;
        r->found = true;
        r->row.line = r->line;
        if (next == GEUL_ROW_OBJECT)
            *row = &r->row;
        if (next == GEUL_ROW_OBJECT || geul_error_status(r->ctx) != GEUL_OK)
            return geul_error_status(r->ctx);
    }
    if (r->found || geul_error_status(r->ctx) != GEUL_OK)
        return geul_error_status(r->ctx);
    return geul_fail(r->ctx, GEUL_ERROR_FORMAT, "%s holds no rows: %s is empty", r->name,
                     r->form == GEUL_ROW_ARRAY ? "its JSON array" : "it");
}

/* -------------------------------------------------------------------------------- many files -- */

static enum geul_status check_paths(struct geul_context *ctx, const char *const *paths, int n_paths)
{
    enum geul_status status = geul_check_array(ctx, "paths", paths, "n_paths", n_paths, 1);
    for (int i = 0; status == GEUL_OK && i < n_paths; i++)
        status = geul_check_element(ctx, "paths", i, "", paths[i]);
    return status;
}

/* Bytes of all files together. */
static enum geul_status count_bytes(struct geul_context *ctx, const char *const *paths, int n_paths, uint64_t *bytes)
{
    *bytes = 0;
    for (int i = 0; i < n_paths; i++) {
        struct geul_map map;
        if (geul_os_map(ctx, paths[i], &map) != GEUL_OK)
            return geul_error_status(ctx);
        *bytes += map.size;
        geul_os_unmap(&map);
    }
    return GEUL_OK;
}

/* Calls on_row. An invalid argument is the row's own fault: it becomes a problem, and the walk continues. */
static enum geul_status walk_row(struct geul_rows *r, const char *path, const struct geul_row *row,
                                 const struct geul_rows_walk *walk)
{
    enum geul_status status = walk->on_row(walk->user, path, row);
    if (status != GEUL_ERROR_ARGUMENT)
        return status;
    char why[512];
    snprintf(why, sizeof why, "%s", geul_error(r->ctx));
    geul_error_clear(r->ctx);
    (void)geul_rows_problem(r, "%s", why);
    return geul_error_status(r->ctx);
}

/* Bytes of the file that have been read, about as many where it was decoded. */
static uint64_t bytes_read(const struct geul_rows *r)
{
    return r->decoded ? (uint64_t)((double)r->pos / (double)r->size * (double)r->file_size) : r->pos;
}

enum geul_status geul_rows_walk(struct geul_context *ctx, const char *const *paths, int n_paths,
                                const struct geul_rows_walk *walk)
{
    uint64_t before = 0, total = 0; /* bytes of the files that were read before, and of all */
    enum geul_status status = check_paths(ctx, paths, n_paths);
    if (status == GEUL_OK)
        status = count_bytes(ctx, paths, n_paths, &total);
    for (int i = 0; i < n_paths && status == GEUL_OK; i++) {
        struct geul_rows *r = geul_rows_open_encoded(ctx, paths[i], walk->encoding, walk->problems);
        const struct geul_row *row;
        status = r ? geul_rows_next(r, &row) : geul_error_status(ctx);
        while (status == GEUL_OK && row) {
            status = walk_row(r, paths[i], row, walk);
            if (status == GEUL_OK && walk->on_progress &&
                !walk->on_progress(walk->progress_user, before + bytes_read(r), total))
                status = geul_fail(ctx, GEUL_ERROR_CANCELLED, "reading %s was stopped", r->name);
            if (status == GEUL_OK)
                status = geul_rows_next(r, &row);
        }
        before += r ? r->file_size : 0;
        geul_rows_close(r);
        if (status == GEUL_OK) /* closing notes what was not used, which takes memory */
            status = geul_error_status(ctx);
    }
    return status;
}
