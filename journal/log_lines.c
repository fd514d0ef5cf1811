/* log_lines.c: what the logs that are lines of text share: cutting at a resume, reading back; see log_entry.h. */
#include "journal/log_entry.h"

#include <string.h>

/* The lines of a text, one after the other. */
struct lines {
    const char *next, *end;
    const char *line;
    size_t n;
    bool whole; /* it has its line end */
};

static bool next_line(struct lines *l)
{
    if (l->next == l->end)
        return false;
    const char *stop = memchr(l->next, '\n', (size_t)(l->end - l->next));
    l->whole = stop != NULL;
    l->line = l->next;
    l->n = (size_t)((stop ? stop : l->end) - l->next);
    l->next = stop ? stop + 1 : l->end;
    return true;
}

/* In a run without rewinds this drops what has a later step than the resumed one. After a rewind step numbers come
 * twice; the run continues from the last time the step was reached, and what led there stays. Resuming at step 4:
 *
 *   step            1  2  3  4  eval 4  5  6  |rewound to 3|  4  eval 4  5
 *   open            y  y  y  y  y       n  n                  y  y       n
 *   resume_size                                                       ^ the last time that open was true
 *
 * A later step closes; only a step, not an evaluation or an event, opens again. Lines that do not parse, and the end of
 * a line that a crash cut short, change nothing. */
enum geul_status geul_log_lines_resume_size(struct geul_context *ctx, geul_log_parse parse, const char *data,
                                            size_t size, int64_t resume_step, size_t *resume_size)
{
    struct geul_log_text scratch = {.ctx = ctx};
    struct lines l = {.next = data, .end = data + size};
    bool open = true;
    enum geul_status status = GEUL_OK;
    *resume_size = 0;
    while (status == GEUL_OK && next_line(&l)) {
        struct geul_log_entry e;
        enum geul_status parsed = l.whole ? parse(&scratch, l.line, l.n, &e) : GEUL_ERROR_FORMAT;
        if (parsed == GEUL_ERROR_MEMORY)
            status = parsed;
        if (parsed != GEUL_OK)
            continue;
        if (e.record.step > resume_step)
            open = false;
        else if (e.kind == GEUL_LOG_STEP)
            open = true;
        if (open)
            *resume_size = (size_t)(l.next - data);
    }
    geul_log_text_free(&scratch);
    return status;
}

enum geul_status geul_log_lines_read(struct geul_log_history *h, geul_log_parse parse, const char *data, size_t size)
{
    struct geul_log_text scratch = {.ctx = h->ctx};
    struct lines l = {.next = data, .end = data + size};
    enum geul_status status = GEUL_OK;
    while (status == GEUL_OK && next_line(&l)) {
        struct geul_log_entry e;
        status = parse(&scratch, l.line, l.n, &e);
        if (status == GEUL_OK)
            status = geul_log_history_add(h, &e);
        else if (status == GEUL_ERROR_FORMAT)
            status = GEUL_OK;
    }
    geul_log_text_free(&scratch);
    return status;
}

/* Replaces path, atomically, by a file with the header and the lines of data that parse. data ends with a line end. */
static enum geul_status rewrite(struct geul_log_output *o, const char *path, const char *data, size_t size)
{
    struct geul_outfile *f = geul_outfile_open(o->ctx, path);
    if (!f)
        return geul_error_status(o->ctx);
    struct lines l = {.next = data, .end = data + size};
    enum geul_status status = GEUL_OK;
    if (o->format->header)
        status = geul_outfile_write(f, o->format->header, strlen(o->format->header));
    while (status == GEUL_OK && next_line(&l)) {
        struct geul_log_entry e;
        enum geul_status parsed = o->format->parse(&o->text, l.line, l.n, &e);
        if (parsed == GEUL_OK)
            status = geul_outfile_write(f, l.line, l.n + 1);
        else if (parsed == GEUL_ERROR_MEMORY)
            status = parsed;
    }
    geul_log_text_clear(&o->text);
    if (status == GEUL_OK)
        return geul_outfile_commit(f);
    geul_outfile_abandon(f);
    return status;
}

/* Leaves in path what leads to the resume step. The mapping is of the old file, whatever path names afterwards. */
static enum geul_status cut(struct geul_log_output *o, const char *path)
{
    struct geul_map map;
    size_t resume_size;
    enum geul_status status = geul_os_map(o->ctx, path, &map);
    if (status != GEUL_OK)
        return status;
    geul_os_disown(&map);
    const char *data = map.size ? (const char *)map.data : "";
    status = geul_log_lines_resume_size(o->ctx, o->format->parse, data, map.size, o->resume_step, &resume_size);
    if (status == GEUL_OK)
        status = rewrite(o, path, data, resume_size);
    geul_os_unmap(&map);
    return status;
}

enum geul_status geul_log_lines_open(struct geul_log_output *o)
{
    char *path = geul_os_join_path(o->ctx, o->dir, o->format->name);
    if (!path)
        return GEUL_ERROR_MEMORY;
    bool fresh = o->resume_step <= 0 || !geul_os_exists(path);
    o->file = geul_appendfile_open(o->ctx, path, fresh); /* also before cutting: nobody else may be writing it */
    if (o->file && !fresh) {
        enum geul_status status = cut(o, path);
        geul_appendfile_close(o->file);
        o->file = status == GEUL_OK ? geul_appendfile_open(o->ctx, path, false) : NULL;
    }
    geul_free(o->ctx, path);
    if (!o->file)
        return geul_error_status(o->ctx);
    const char *header = fresh ? o->format->header : NULL;
    return header ? geul_appendfile_write(o->file, header, strlen(header)) : GEUL_OK;
}

enum geul_status geul_log_file_flush(struct geul_log_output *o)
{
    return geul_appendfile_sync(o->file);
}

enum geul_status geul_log_append(struct geul_log_output *o)
{
    enum geul_status status = o->text.failed ? GEUL_ERROR_MEMORY : GEUL_OK;
    if (status == GEUL_OK && o->file && o->text.bytes.length)
        status = geul_appendfile_write(o->file, o->text.bytes.data, o->text.bytes.length);
    geul_log_text_clear(&o->text);
    return status;
}
