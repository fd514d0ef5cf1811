/* rows.c: see geul_tools.h and rows.h. */
#include "corpus/rows.h"

#include "core/check.h"
#include "core/os.h"
#include "formats/json_text.h"
#include "tokenizer/unicode.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

/* A parsed line takes about ten times its text. */
#define LONGEST_LINE ((size_t)64 << 20)
#define LONGEST_TEXT ((size_t)1 << 30)
#define DROP_BYTES   ((size_t)64 << 20)

static const char expected[] = "instruction and output (and input), messages, question and answer, prompt and "
                               "completion, or text";

struct geul_rows {
    struct geul_context *ctx;
    char *name;
    struct geul_map map; /* data is NULL over a caller's memory */
    const char *data;
    size_t size, pos, dropped;
    int64_t line; /* number of the last one that was read, from 1 */
    bool plain;   /* a .txt: the whole file is one text */
    bool found;   /* a row or a problem so far: the file is not empty */
    json_t *json; /* of the current row, whose texts are in it */
    struct geul_turn *turns;
    size_t turn_capacity;
    struct geul_row_problems *problems, unread; /* unread: used when the caller wants none */
    struct geul_row row;                        /* the current one */
};

/* ---------------------------------------------------------------------------------- problems -- */

struct geul_row_problems *geul_row_problems_new(struct geul_context *ctx)
{
    struct geul_row_problems *p = geul_alloc(ctx, 1, sizeof *p);
    if (p)
        p->ctx = ctx;
    return p;
}

void geul_row_problems_free(struct geul_row_problems *p)
{
    if (!p)
        return;
    geul_row_problems_clear(p);
    geul_free(p->ctx, p);
}

int64_t geul_row_problems_count(const struct geul_row_problems *p)
{
    return p->n;
}

const char *geul_row_problems_text(const struct geul_row_problems *p, int i)
{
    return i >= 0 && i < p->n_texts ? p->texts[i] : NULL;
}

void geul_row_problem(struct geul_row_problems *p, const char *path, int64_t line, const char *format, ...)
{
    char text[512];
    p->n++;
    if (p->n_texts == GEUL_ROW_PROBLEMS_KEPT)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    size_t cut = strlen(text);
    if (cut == sizeof text - 1) /* cut off: at the end of a character */
        cut = (size_t)(geul_utf8_valid_end(text, text + cut) - text);
    size_t size = strlen(path) + cut + 32;
    char *whole = geul_alloc(p->ctx, size, 1);
    if (!whole)
        return;
    snprintf(whole, size, "%s:%lld: %.*s", path, (long long)line, (int)cut, text);
    for (char *c = whole; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    p->texts[p->n_texts++] = whole;
}

void geul_row_problems_clear(struct geul_row_problems *p)
{
    for (int i = 0; i < p->n_texts; i++)
        geul_free(p->ctx, p->texts[i]);
    *p = (struct geul_row_problems){.ctx = p->ctx};
}

void geul_row_problems_move(struct geul_row_problems *from, struct geul_row_problems *to)
{
    int n = 0;
    for (; to && n < from->n_texts && to->n_texts < GEUL_ROW_PROBLEMS_KEPT; n++) {
        to->texts[to->n_texts++] = from->texts[n];
        from->texts[n] = NULL;
    }
    if (to)
        to->n += from->n;
    geul_row_problems_clear(from);
}

/* Records what is wrong with the current line; its value is false, for "no row". */
#define PROBLEM(r, ...) (geul_row_problem((r)->problems, (r)->name, (r)->line, __VA_ARGS__), false)

/* ------------------------------------------------------------------------------------ fields -- */

/* The kind of a value for messages: "a number". */
static const char *kind_name(const json_t *v)
{
    static const char *const names[] = {
        [JSON_OBJECT] = "an object",    [JSON_ARRAY] = "an array", [JSON_STRING] = "a string",
        [JSON_INTEGER] = "a number",    [JSON_REAL] = "a number",  [JSON_TRUE] = "true or false",
        [JSON_FALSE] = "true or false", [JSON_NULL] = "null",
    };
    const char *odd = geul_json_oddity(v);
    return odd ? odd : v ? names[json_typeof(v)] : "missing";
}

/* The text of a value, which where and key together name in messages ("output", "messages[2].content"). Texts are C
 * strings from here on, so they must not hold NULs. */
static bool get_text(struct geul_rows *r, const json_t *v, const char *where, const char *key, const char **out)
{
    if (!json_is_string(v))
        return PROBLEM(r, "%s%s is %s, not a string", where, key, kind_name(v));
    *out = json_string_value(v);
    if (strlen(*out) != json_string_length(v))
        return PROBLEM(r, "%s%s holds a NUL character", where, key);
    return true;
}

static bool is_blank(const char *s)
{
    return s[strspn(s, " \t\r\n")] == '\0';
}

/* The same for a text that must not be blank. */
static bool get_filled(struct geul_rows *r, const json_t *v, const char *where, const char *key, const char **out)
{
    if (!get_text(r, v, where, key, out))
        return false;
    return is_blank(*out) ? PROBLEM(r, "%s%s is empty", where, key) : true;
}

/* ------------------------------------------------------------------------------------ shapes -- */

/* A question, its answer and perhaps an input, by their keys. */
static bool read_pair(struct geul_rows *r, const char *question, const char *input, const char *answer,
                      struct geul_row *row)
{
    const json_t *extra = input ? json_object_get(r->json, input) : NULL;
    struct geul_turn *turn = &r->turns[0];
    if (!get_filled(r, json_object_get(r->json, question), "", question, &turn->question) ||
        !get_filled(r, json_object_get(r->json, answer), "", answer, &turn->answer))
        return false;
    if (extra && !json_is_null(extra)) {
        if (!get_text(r, extra, "", input, &row->input))
            return false;
        row->input = is_blank(row->input) ? NULL : row->input;
    }
    row->turns = r->turns;
    row->n_turns = 1;
    return true;
}

static bool read_alpaca(struct geul_rows *r, struct geul_row *row)
{
    return read_pair(r, "instruction", "input", "output", row);
}

static bool read_question(struct geul_rows *r, struct geul_row *row)
{
    return read_pair(r, "question", NULL, "answer", row);
}

static bool read_completion(struct geul_rows *r, struct geul_row *row)
{
    return read_pair(r, "prompt", NULL, "completion", row);
}

static bool read_text(struct geul_rows *r, struct geul_row *row)
{
    row->kind = GEUL_ROW_TEXT;
    if (!get_filled(r, json_object_get(r->json, "text"), "", "text", &row->text))
        return false;
    row->length = strlen(row->text);
    return true;
}

/* Message i of a conversation: perhaps a system text, then user and assistant in turns. *waiting: the last question, in
 * turns[n_turns], has no answer yet; n_turns counts those that have. */
static bool read_message(struct geul_rows *r, const json_t *message, size_t i, struct geul_row *row, bool *waiting)
{
    char where[48];
    const char *role, *content;
    snprintf(where, sizeof where, "messages[%zu]", i);
    if (!json_is_object(message))
        return PROBLEM(r, "%s is %s, not an object with role and content", where, kind_name(message));
    strcat(where, ".");
    if (!get_text(r, json_object_get(message, "role"), where, "role", &role))
        return false;
    bool user = strcmp(role, "user") == 0, assistant = strcmp(role, "assistant") == 0;
    bool system = strcmp(role, "system") == 0;
    if (!user && !assistant && !system)
        return PROBLEM(r, "%srole is \"%.40s\"; system, user and assistant are known", where, role);
    if (!get_filled(r, json_object_get(message, "content"), where, "content", &content))
        return false;
    if (system && i > 0)
        return PROBLEM(r, "%srole is system; only the first message can be the system's", where);
    if ((user && *waiting) || (assistant && !*waiting))
        return PROBLEM(r, "%srole is %s, but it is the %s's turn", where, role, user ? "assistant" : "user");
    if (system)
        row->system = content;
    else if (user)
        r->turns[row->n_turns] = (struct geul_turn){.question = content};
    else
        r->turns[row->n_turns++].answer = content;
    *waiting = user;
    return true;
}

static bool read_messages(struct geul_rows *r, struct geul_row *row)
{
    const json_t *messages = json_object_get(r->json, "messages");
    bool waiting = false;
    if (!json_is_array(messages))
        return PROBLEM(r, "messages is %s, not an array", kind_name(messages));
    size_t n = json_array_size(messages);
    /* a turn takes two messages, and one more may be without its answer */
    if (!geul_reserve(r->ctx, &r->turns, &r->turn_capacity, n / 2 + 1, sizeof *r->turns))
        return false;
    for (size_t i = 0; i < n; i++)
        if (!read_message(r, json_array_get(messages, i), i, row, &waiting))
            return false;
    if (waiting)
        return PROBLEM(r, "the last message is the user's: an answer is missing");
    if (row->n_turns == 0)
        return PROBLEM(r, "messages holds no question with an answer");
    row->turns = r->turns;
    return true;
}

/* The first whose keys the object has is its shape; other keys are ignored. */
static const struct {
    const char *keys[2]; /* the second may be NULL */
    bool (*read)(struct geul_rows *r, struct geul_row *row);
} shapes[] = {
    {{"messages", NULL}, read_messages},
    {{"instruction", "output"}, read_alpaca},
    {{"question", "answer"}, read_question},
    {{"prompt", "completion"}, read_completion},
    {{"text", NULL}, read_text},
};

/* Records that the object's keys are those of no known shape. */
static bool unknown_shape(struct geul_rows *r)
{
    char keys[200] = "";
    size_t used = 0, n = 0;
    void *at;
    for (at = json_object_iter(r->json); at && used < sizeof keys - 1; at = json_object_iter_next(r->json, at)) {
        int more = snprintf(keys + used, sizeof keys - used, "%s%s", n++ ? ", " : "", json_object_iter_key(at));
        used += more > 0 ? (size_t)more : 0;
    }
    if (n == 0)
        return PROBLEM(r, "the object is empty; expected are %s", expected);
    size_t whole = (size_t)(geul_utf8_valid_end(keys, keys + strlen(keys)) - keys);
    return PROBLEM(r, "its keys are %.*s%s; expected are %s", (int)whole, keys, used >= sizeof keys ? "..." : "",
                   expected);
}

/* ------------------------------------------------------------------------------------- lines -- */

/* Offset of the first byte that is not UTF-8, n when there is none. */
static size_t first_broken(const char *s, size_t n)
{
    return (size_t)(geul_utf8_valid_end(s, s + n) - s);
}

/* Parses a line; NULL with a problem recorded. jansson refuses broken UTF-8 and NUL bytes too, but says less about
 * them. */
static json_t *parse(struct geul_rows *r, const char *s, size_t n)
{
    json_error_t error;
    json_t *json = geul_json_decode(r->ctx, s, n, JSON_DECODE_ANY, &error);
    size_t broken = json ? n : first_broken(s, n);
    if (broken < n)
        (void)PROBLEM(r, "byte %zu of the line is not UTF-8", broken + 1);
    else if (!json && memchr(s, 0, n))
        (void)PROBLEM(r, "the line holds a NUL byte");
    else if (!json)
        (void)PROBLEM(r, "not valid JSON: %s (column %d)", error.text, error.column);
    if (json && !json_is_object(json)) {
        (void)PROBLEM(r, "is %s, not an object", kind_name(json));
        json_decref(json);
        return NULL;
    }
    return json;
}

/* Fills row from a line; false with a problem or a failure recorded. The texts of the row before are freed. */
static bool read_line(struct geul_rows *r, const char *s, size_t n, struct geul_row *row)
{
    if (n > LONGEST_LINE)
        return PROBLEM(r, "the line has %zu MiB; at most 64 are possible", n >> 20);
    json_decref(r->json);
    r->json = parse(r, s, n);
    if (!r->json)
        return false;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (json_object_get(r->json, shapes[i].keys[0]) &&
            (!shapes[i].keys[1] || json_object_get(r->json, shapes[i].keys[1])))
            return shapes[i].read(r, row);
    return unknown_shape(r);
}

static size_t count_newlines(const char *s, size_t n)
{
    size_t lines = 0;
    for (const char *at = s; (at = memchr(at, '\n', n - (size_t)(at - s))); at++)
        lines++;
    return lines;
}

/* Fills row from a whole text; the newline at its end, which editors add, is left out. What is wrong with it is
 * reported with the number of its line. */
static bool read_plain(struct geul_rows *r, const char *s, size_t n, struct geul_row *row)
{
    n -= n && s[n - 1] == '\n';
    n -= n && s[n - 1] == '\r';
    size_t broken = first_broken(s, n);
    const char *nul = memchr(s, 0, broken);
    if (nul) /* looked for in the valid part only: what comes first in the file is reported */
        broken = (size_t)(nul - s);
    r->line = (int64_t)count_newlines(s, broken) + 1;
    if (nul)
        return PROBLEM(r, "the text holds a NUL byte");
    if (broken < n)
        return PROBLEM(r, "byte %zu of the file is not UTF-8; recode the text (iconv -f cp949 -t utf-8)",
                       (size_t)(s - r->data) + broken + 1);
    if (n > LONGEST_TEXT)
        return PROBLEM(r, "the text has %zu MiB; at most 1024 are possible: split it", n >> 20);
    r->line = 1;
    row->kind = GEUL_ROW_TEXT;
    row->text = s;
    row->length = n;
    return true;
}

/* ------------------------------------------------------------------------------------- files -- */

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* The first byte from `at` on that is not white space; n when there is none. */
static size_t skip_space(const char *s, size_t at, size_t n)
{
    while (at < n && is_space(s[at]))
        at++;
    return at;
}

struct geul_rows *geul_rows_open_memory(struct geul_context *ctx, const void *data, size_t size, const char *name,
                                        struct geul_row_problems *problems)
{
    size_t n = strlen(name);
    struct geul_rows *r = geul_alloc(ctx, 1, sizeof *r);
    if (!r)
        return NULL;
    *r = (struct geul_rows){.ctx = ctx, .data = data, .size = size, .unread.ctx = ctx};
    r->problems = problems ? problems : &r->unread;
    r->plain = n > 4 && strcmp(name + n - 4, ".txt") == 0;
    r->name = geul_strndup(ctx, name, n);
    if (!r->name || !geul_reserve(ctx, &r->turns, &r->turn_capacity, 1, sizeof *r->turns)) {
        geul_rows_close(r);
        return NULL;
    }
    if (size >= 3 && memcmp(data, "\xef\xbb\xbf", 3) == 0) /* the byte order mark that editors on Windows write */
        r->pos = 3;
    size_t first = skip_space(r->data, r->pos, size);
    if (!r->plain && first < size && r->data[first] == '[') {
        geul_fail(ctx, GEUL_ERROR_FORMAT,
                  "%s holds a JSON array; JSON Lines, one object per line, are expected (jq -c '.[]' %s > rows.jsonl)",
                  name, name);
        geul_rows_close(r);
        return NULL;
    }
    return r;
}

struct geul_rows *geul_rows_open(struct geul_context *ctx, const char *path, struct geul_row_problems *problems)
{
    struct geul_map map;
    geul_error_clear(ctx);
    if (geul_os_map(ctx, path, &map) != GEUL_OK)
        return NULL;
    struct geul_rows *r = geul_rows_open_memory(ctx, map.data, map.size, path, problems);
    if (r)
        r->map = map;
    else
        geul_os_unmap(&map);
    return r;
}

void geul_rows_close(struct geul_rows *r)
{
    if (!r)
        return;
    geul_os_unmap(&r->map);
    json_decref(r->json);
    geul_row_problems_clear(&r->unread);
    geul_free(r->ctx, r->turns);
    geul_free(r->ctx, r->name);
    geul_free(r->ctx, r);
}

/* Moves past the next line that is not blank; false at the end. r->line becomes its number. */
static bool next_line(struct geul_rows *r, const char **s, size_t *n)
{
    while (r->pos < r->size) {
        *s = r->data + r->pos;
        const char *newline = r->plain ? NULL : memchr(*s, '\n', r->size - r->pos);
        size_t length = newline ? (size_t)(newline - *s) : r->size - r->pos;
        r->pos += length + (newline != NULL);
        r->line++;
        if (skip_space(*s, 0, length) < length) {
            *n = length;
            return true;
        }
    }
    return false;
}

enum geul_status geul_rows_next(struct geul_rows *r, const struct geul_row **row)
{
    const char *s;
    size_t n;
    *row = NULL;
    geul_error_clear(r->ctx);
    if (r->map.data && r->pos - r->dropped >= DROP_BYTES) { /* what was read need not stay in memory */
        geul_os_map_discard(r->data + r->dropped, r->pos - r->dropped);
        r->dropped = r->pos;
    }
    while (next_line(r, &s, &n)) { /* until a row: a line with a problem is skipped, a failure ends the reading */
        r->row = (struct geul_row){.kind = GEUL_ROW_TURNS};
        r->found = true;
        bool ok = r->plain ? read_plain(r, s, n, &r->row) : read_line(r, s, n, &r->row);
        r->row.line = r->line;
        if (ok)
            *row = &r->row;
        if (ok || geul_error_status(r->ctx) != GEUL_OK)
            return geul_error_status(r->ctx);
    }
    return r->found ? GEUL_OK : geul_fail(r->ctx, GEUL_ERROR_FORMAT, "%s holds no rows: it is empty", r->name);
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
    geul_row_problem(walk->problems, path, row->line, "%s", why);
    return geul_error_status(r->ctx);
}

enum geul_status geul_rows_walk(struct geul_context *ctx, const char *const *paths, int n_paths,
                                const struct geul_rows_walk *walk)
{
    uint64_t before = 0, total = 0; /* bytes of the files that were read before, and of all */
    enum geul_status status = check_paths(ctx, paths, n_paths);
    if (status == GEUL_OK)
        status = count_bytes(ctx, paths, n_paths, &total);
    for (int i = 0; i < n_paths && status == GEUL_OK; i++) {
        struct geul_rows *r = geul_rows_open(ctx, paths[i], walk->problems);
        const struct geul_row *row;
        status = r ? geul_rows_next(r, &row) : geul_error_status(ctx);
        while (status == GEUL_OK && row) {
            status = walk_row(r, paths[i], row, walk);
            if (status == GEUL_OK && walk->on_progress &&
                !walk->on_progress(walk->progress_user, before + r->pos, total))
                status = geul_fail(ctx, GEUL_ERROR_CANCELLED, "reading %s was stopped", r->name);
            if (status == GEUL_OK)
                status = geul_rows_next(r, &row);
        }
        before += r ? r->size : 0;
        geul_rows_close(r);
    }
    return status;
}
