/* log_jsonl.c: log.jsonl, an object per line. JSON has no NaN and no infinity: they become null, and "nonfinite" says
 * in words what they were. */
#include "journal/log_entry.h"

#include "tokenizer/unicode.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

static const char *const kinds[GEUL_LOG_KINDS] = {"step", "evaluation", "sample", "event"};
/* What label and text are called, per kind. */
static const char *const text_names[GEUL_LOG_KINDS][2] = {
    [GEUL_LOG_SAMPLE] = {"prompt", "text"}, [GEUL_LOG_EVENT] = {"kind", "text"}};

/* ----------------------------------------------------------------------------------- writing -- */

/* The start of every object, which the other members follow. */
static void add_head(struct geul_log_text *t, const struct geul_log_entry *e)
{
    geul_log_text_add_format(t, "{\"type\":\"%s\",\"step\":%lld", kinds[e->kind], (long long)e->record.step);
}

static void add_double(struct geul_log_text *t, const char *name, double v)
{
    geul_log_text_add_format(t, ",\"%s\":", name);
    if (isfinite(v))
        geul_log_text_add_double(t, v, 9);
    else
        geul_log_text_add(t, "null");
}

/* ,"nonfinite":"loss nan, grad_norm inf" when a double is not finite. */
static void add_nonfinite(struct geul_log_text *t, const struct geul_journal_record *r)
{
    bool any = false;
    for (int i = 0; i < GEUL_LOG_COLUMNS; i++) {
        const struct geul_log_column *c = &geul_log_columns[i];
        if (c->value != GEUL_LOG_DOUBLE || isfinite(geul_log_column_double(r, c)))
            continue;
        geul_log_text_add_format(t, "%s%s ", any ? ", " : ",\"nonfinite\":\"", c->name);
        geul_log_text_add_double(t, geul_log_column_double(r, c), 9);
        any = true;
    }
    if (any)
        geul_log_text_add(t, "\"");
}

static void write_step(struct geul_log_output *o, const struct geul_log_entry *e)
{
    struct geul_log_text *t = &o->text;
    add_head(t, e);
    for (int i = 1; i < GEUL_LOG_COLUMNS; i++) {
        const struct geul_log_column *c = &geul_log_columns[i];
        const char *at = (const char *)&e->record + c->offset;
        int64_t whole = 0;
        if (c->value == GEUL_LOG_DOUBLE) {
            add_double(t, c->name, geul_log_column_double(&e->record, c));
        } else if (c->value == GEUL_LOG_INT) {
            memcpy(&whole, at, sizeof whole);
            geul_log_text_add_format(t, ",\"%s\":%lld", c->name, (long long)whole);
        } else {
            bool flag;
            memcpy(&flag, at, sizeof flag);
            geul_log_text_add_format(t, ",\"%s\":%s", c->name, flag ? "true" : "false");
        }
    }
    add_nonfinite(t, &e->record);
    geul_log_text_add(t, "}\n");
}

static void write_evaluation(struct geul_log_output *o, const struct geul_log_entry *e)
{
    add_head(&o->text, e);
    add_double(&o->text, "loss", e->record.loss);
    geul_log_text_add_format(&o->text, ",\"best\":%s", e->best ? "true" : "false");
    add_nonfinite(&o->text, &e->record);
    geul_log_text_add(&o->text, "}\n");
}

static void write_note(struct geul_log_output *o, const struct geul_log_entry *e)
{
    const char *texts[2] = {e->label, e->text};
    add_head(&o->text, e);
    for (int i = 0; i < 2; i++) {
        geul_log_text_add_format(&o->text, ",\"%s\":", text_names[e->kind][i]);
        geul_log_text_add_json(&o->text, texts[i]);
    }
    geul_log_text_add(&o->text, "}\n");
}

/* ----------------------------------------------------------------------------------- reading -- */

/* What is left of a line. Texts are decoded into scratch, which may move as it grows: until the line is read they are
 * known by their offsets in it. */
struct reader {
    const char *p, *end;
    struct geul_log_text *scratch;
};

/* A value of an object: text (offset of a NUL-terminated text in scratch), number, true, false or null. */
struct value {
    char type; /* s n t f z */
    size_t text;
    struct geul_slice number;
};

static void skip_space(struct reader *r)
{
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\t' || *r->p == '\r'))
        r->p++;
}

static bool take(struct reader *r, const char *word)
{
    size_t n = strlen(word);
    skip_space(r);
    if ((size_t)(r->end - r->p) < n || memcmp(r->p, word, n) != 0)
        return false;
    r->p += n;
    return true;
}

/* The four hexadecimal digits after \u; -1 when they are not. */
static int32_t parse_hex(struct reader *r)
{
    int32_t v = 0;
    if (r->end - r->p < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        char c = *r->p++;
        int digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
        if (digit < 0)
            return -1;
        v = v * 16 + digit;
    }
    return v;
}

/* A \u escape, with the second one of a surrogate pair. Single surrogates and U+0000 become U+FFFD. */
static bool add_escaped_point(struct reader *r)
{
    int32_t c = parse_hex(r);
    char out[4];
    if (c < 0)
        return false;
    if (c >= 0xD800 && c < 0xDC00 && r->end - r->p >= 6 && r->p[0] == '\\' && r->p[1] == 'u') {
        r->p += 2;
        int32_t low = parse_hex(r);
        if (low < 0)
            return false;
        c = low >= 0xDC00 && low < 0xE000 ? 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00) : 0xFFFD;
    }
    if ((c >= 0xD800 && c < 0xE000) || c == 0)
        c = 0xFFFD;
    geul_log_text_add_bytes(r->scratch, out, (size_t)geul_utf8_encode(c, out));
    return true;
}

/* A string after its first quote, decoded into scratch. */
static bool parse_string(struct reader *r)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    while (r->p < r->end && *r->p != '"') {
        const char *plain = r->p;
        while (r->p < r->end && *r->p != '"' && *r->p != '\\' && *r->p != '\0')
            r->p++;
        geul_log_text_add_bytes(r->scratch, plain, (size_t)(r->p - plain));
        if (r->p == r->end || *r->p == '\0')
            return false;
        if (*r->p == '"')
            break;
        r->p++;
        const char *known = r->p < r->end && *r->p ? strchr(from, *r->p) : NULL;
        if (known) {
            geul_log_text_add_bytes(r->scratch, &to[known - from], 1);
            r->p++;
        } else if (r->p == r->end || *r->p++ != 'u' || !add_escaped_point(r)) {
            return false;
        }
    }
    if (r->p == r->end)
        return false;
    r->p++;
    geul_log_text_add_bytes(r->scratch, "", 1);
    return true;
}

/* A value; not an object or an array, which no line has. */
static bool parse_value(struct reader *r, struct value *v)
{
    *v = (struct value){.type = 'n', .text = r->scratch->bytes.length};
    if (take(r, "\"")) {
        v->type = 's';
        return parse_string(r);
    }
    if (take(r, "true") || take(r, "false")) {
        v->type = r->p[-2] == 'u' ? 't' : 'f';
        return true;
    }
    if (take(r, "null")) {
        v->type = 'z';
        return true;
    }
    v->number.s = r->p;
    while (r->p < r->end && strchr("+-.0123456789eE", *r->p) && *r->p)
        r->p++;
    v->number.n = (size_t)(r->p - v->number.s);
    return v->number.n > 0;
}

/* What was read of a line; offsets of texts in scratch, SIZE_MAX: not there. */
struct line {
    struct geul_log_entry *e;
    bool has_step;
    size_t type, texts[GEUL_LOG_KINDS][2];
};

/* Stores the value of a column. false: it does not fit there. */
static bool store(struct geul_journal_record *record, const struct geul_log_column *c, const struct value *v)
{
    char *at = (char *)record + c->offset;
    double real = (double)NAN;
    int64_t whole;
    if (c->value == GEUL_LOG_BOOL) {
        memcpy(at, &(bool){v->type == 't'}, sizeof(bool));
        return v->type == 't' || v->type == 'f';
    }
    if (c->value == GEUL_LOG_INT) {
        if (v->type != 'n' || !geul_log_parse_int(v->number.s, v->number.n, &whole))
            return false;
        memcpy(at, &whole, sizeof whole);
        return true;
    }
    if (v->type != 'z' && (v->type != 'n' || !geul_log_parse_double(v->number.s, v->number.n, &real)))
        return false;
    memcpy(at, &real, sizeof real);
    return true;
}

/* Stores one pair of name and value; unknown names are ignored. */
static bool take_pair(struct line *l, const char *name, const struct value *v)
{
    for (int i = 0; i < GEUL_LOG_COLUMNS; i++)
        if (strcmp(name, geul_log_columns[i].name) == 0) {
            l->has_step |= i == 0;
            return store(&l->e->record, &geul_log_columns[i], v);
        }
    if (strcmp(name, "best") == 0)
        l->e->best = v->type == 't';
    if (strcmp(name, "type") == 0 && v->type == 's')
        l->type = v->text;
    for (int k = 0; k < GEUL_LOG_KINDS; k++)
        for (int i = 0; i < 2; i++)
            if (text_names[k][i] && strcmp(name, text_names[k][i]) == 0 && v->type == 's')
                l->texts[k][i] = v->text;
    return true;
}

/* All pairs of the object of a line, which must end with it. */
static bool parse_pairs(struct reader *r, struct line *l)
{
    if (!take(r, "{"))
        return false;
    do {
        struct value v;
        size_t name = r->scratch->bytes.length;
        if (!take(r, "\"") || !parse_string(r) || !take(r, ":") || !parse_value(r, &v))
            return false;
        if (r->scratch->failed || !take_pair(l, r->scratch->bytes.data + name, &v))
            return false;
    } while (take(r, ","));
    if (!take(r, "}"))
        return false;
    skip_space(r);
    return r->p == r->end;
}

static enum geul_status parse(struct geul_log_text *scratch, const char *line, size_t n, struct geul_log_entry *e)
{
    struct reader r = {line, line + n, scratch};
    struct line l = {.e = e, .type = SIZE_MAX};
    memset(l.texts, 0xFF, sizeof l.texts); /* SIZE_MAX */
    *e = (struct geul_log_entry){.kind = GEUL_LOG_KINDS, .label = "", .text = ""};
    geul_log_text_clear(scratch);
    bool ok = parse_pairs(&r, &l);
    if (scratch->failed)
        return GEUL_ERROR_MEMORY;
    if (!ok || !l.has_step || l.type == SIZE_MAX)
        return GEUL_ERROR_FORMAT;
    for (unsigned k = 0; k < GEUL_LOG_KINDS; k++)
        if (strcmp(scratch->bytes.data + l.type, kinds[k]) == 0)
            e->kind = (enum geul_log_kind)k;
    if (e->kind == GEUL_LOG_KINDS)
        return GEUL_ERROR_FORMAT;
    /* scratch is complete and moves no more: offsets become pointers */
    const size_t *texts = l.texts[e->kind];
    if (text_names[e->kind][0] && (texts[0] == SIZE_MAX || texts[1] == SIZE_MAX))
        return GEUL_ERROR_FORMAT;
    if (text_names[e->kind][0]) {
        e->label = scratch->bytes.data + texts[0];
        e->text = scratch->bytes.data + texts[1];
    }
    return GEUL_OK;
}

const struct geul_log_format geul_log_jsonl = {
    .name = "log.jsonl",
    .wanted = offsetof(struct geul_journal_options, jsonl),
    .parse = parse,
    .open = geul_log_lines_open,
    .write = {write_step, write_evaluation, write_note, write_note},
    .flush = geul_log_file_flush,
};
