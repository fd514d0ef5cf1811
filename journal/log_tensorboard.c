/* log_tensorboard.c: events.out.tfevents.*, as TensorBoard reads them.
 *
 * Records (tfrecord.h) of the protocol buffer Event {1 double wall_time, 2 int64 step, 3 string file_version,
 * 5 Summary summary, 7 SessionLog session_log}; Summary {1 repeated Value {1 string tag, 2 float simple_value,
 * 8 TensorProto tensor, 9 SummaryMetadata metadata}}; SessionLog {1 status, START = 1}. TensorBoard reads the files of
 * a folder in the order of their names as one, and a START discards everything earlier from its step on. So a
 * resume, a fresh start in an old folder and a rewind need no change of what is written: each adds a START.
 */
#include "journal/log_entry.h"
#include "journal/tfrecord.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* ----------------------------------------------------------------------------------- records -- */

uint32_t geul_crc32c(const void *data, size_t n)
{
    const unsigned char *p = data;
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0); /* the polynomial, bit-reversed */
    }
    return ~crc;
}

uint32_t geul_tfrecord_mask(uint32_t crc)
{
    return (crc >> 15 | crc << 17) + 0xA282EAD8u;
}

/* Adds the n low bytes of v, the lowest first. */
static void add_little(struct geul_log_text *t, uint64_t v, int n)
{
    unsigned char bytes[8];
    for (int i = 0; i < n; i++)
        bytes[i] = (unsigned char)(v >> 8 * i);
    geul_log_text_add_bytes(t, bytes, (size_t)n);
}

void geul_tfrecord_add(struct geul_log_text *t, const void *data, size_t n)
{
    unsigned char length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)((uint64_t)n >> 8 * i);
    geul_log_text_add_bytes(t, length, sizeof length);
    add_little(t, geul_tfrecord_mask(geul_crc32c(length, sizeof length)), 4);
    geul_log_text_add_bytes(t, data, n);
    add_little(t, geul_tfrecord_mask(geul_crc32c(data, n)), 4);
}

/* -------------------------------------------------------------------------- protocol buffers -- */

enum wire { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

static void add_varint(struct geul_log_text *t, uint64_t v)
{
    unsigned char byte;
    for (; v >= 0x80; v >>= 7) {
        byte = (unsigned char)(v | 0x80);
        geul_log_text_add_bytes(t, &byte, 1);
    }
    byte = (unsigned char)v;
    geul_log_text_add_bytes(t, &byte, 1);
}

static void add_key(struct geul_log_text *t, unsigned field, enum wire wire)
{
    add_varint(t, field << 3 | (unsigned)wire);
}

static void add_bytes(struct geul_log_text *t, unsigned field, const void *data, size_t n)
{
    add_key(t, field, BYTES);
    add_varint(t, n);
    geul_log_text_add_bytes(t, data, n);
}

static void add_string(struct geul_log_text *t, unsigned field, const char *s)
{
    add_bytes(t, field, s, strlen(s));
}

/* Adds message as a field of t and frees it: messages are built from the inside out, since their length comes first. */
static void add_message(struct geul_log_text *t, unsigned field, struct geul_log_text *message)
{
    t->failed |= message->failed;
    add_bytes(t, field, message->bytes.data ? message->bytes.data : "", message->bytes.length);
    geul_log_text_free(message);
}

/* ------------------------------------------------------------------------------------ events -- */

/* The start of an event: when and at which step. */
static struct geul_log_text new_event(struct geul_log_output *o, int64_t step)
{
    struct geul_log_text event = {.ctx = o->ctx};
    double now = geul_os_wall_seconds();
    uint64_t bits;
    memcpy(&bits, &now, sizeof bits);
    add_key(&event, 1, FIXED64);
    add_little(&event, bits, 8);
    if (step) {
        add_key(&event, 2, VARINT);
        add_varint(&event, (uint64_t)step);
    }
    return event;
}

/* Puts the event into o->text as a record. */
static void write_event(struct geul_log_output *o, struct geul_log_text *event)
{
    o->text.failed |= event->failed;
    if (!o->text.failed)
        geul_tfrecord_add(&o->text, event->bytes.data, event->bytes.length);
    geul_log_text_free(event);
}

/* Tells TensorBoard to discard what it has from this step on. */
static void add_start(struct geul_log_output *o, int64_t step)
{
    struct geul_log_text event = new_event(o, step), session = {.ctx = o->ctx};
    add_key(&session, 1, VARINT);
    add_varint(&session, 1);
    add_message(&event, 7, &session);
    write_event(o, &event);
}

static void add_scalar(struct geul_log_text *summary, const char *tag, double v)
{
    const double most = 3.4028234663852886e38;
    float narrow = v > most ? INFINITY : v < -most ? -INFINITY : (float)v;
    uint32_t bits;
    struct geul_log_text value = {.ctx = summary->ctx};
    memcpy(&bits, &narrow, sizeof bits);
    add_string(&value, 1, tag);
    add_key(&value, 2, FIXED32);
    add_little(&value, bits, 4);
    add_message(summary, 1, &value);
}

static void write_step(struct geul_log_output *o, const struct geul_log_entry *e)
{
    const struct geul_journal_record *r = &e->record;
    if (r->step <= o->last_step)
        add_start(o, r->step);
    o->last_step = r->step;
    struct geul_log_text event = new_event(o, r->step), summary = {.ctx = o->ctx};
    add_scalar(&summary, "train/loss", r->loss);
    add_scalar(&summary, "train/learning_rate", r->learning_rate);
    add_scalar(&summary, "train/grad_norm", r->grad_norm);
    add_scalar(&summary, "train/tokens_per_second", r->tokens_per_second);
    add_message(&event, 5, &summary);
    write_event(o, &event);
}

static void write_evaluation(struct geul_log_output *o, const struct geul_log_entry *e)
{
    struct geul_log_text event = new_event(o, e->record.step), summary = {.ctx = o->ctx};
    add_scalar(&summary, "eval/loss", e->record.loss);
    add_message(&event, 5, &summary);
    write_event(o, &event);
}

/* Adds s to a Markdown text as it is: lines that are indented by four are shown literally. */
static void add_literal(struct geul_log_text *markdown, const char *s)
{
    for (const char *line = s;;) {
        const char *stop = strchr(line, '\n');
        geul_log_text_add(markdown, "    ");
        geul_log_text_add_bytes(markdown, line, stop ? (size_t)(stop - line) : strlen(line));
        geul_log_text_add(markdown, "\n");
        if (!stop)
            return;
        line = stop + 1;
    }
}

/* A text is a tensor of one string whose metadata names the text plugin; TensorBoard shows it as Markdown. */
static void add_text(struct geul_log_text *summary, const char *tag, const struct geul_log_text *markdown)
{
    struct geul_context *ctx = summary->ctx;
    struct geul_log_text value = {.ctx = ctx}, tensor = {.ctx = ctx}, shape = {.ctx = ctx}, metadata = {.ctx = ctx},
                         plugin = {.ctx = ctx};
    add_string(&value, 1, tag);
    add_key(&tensor, 1, VARINT);
    add_varint(&tensor, 7);                                              /* dtype: DT_STRING */
    add_message(&tensor, 2, &shape);                                     /* tensor_shape: no dimension, one value */
    add_bytes(&tensor, 8, markdown->bytes.data, markdown->bytes.length); /* string_val */
    add_message(&value, 8, &tensor);
    add_string(&plugin, 1, "text");
    add_message(&metadata, 1, &plugin);
    add_message(&value, 9, &metadata);
    add_message(summary, 1, &value);
}

/* A sample or an event as text. Broken UTF-8 is replaced at the end, in the whole text. */
static void write_note(struct geul_log_output *o, const struct geul_log_entry *e)
{
    struct geul_log_text event = new_event(o, e->record.step), summary = {.ctx = o->ctx};
    struct geul_log_text raw = {.ctx = o->ctx}, markdown = {.ctx = o->ctx};
    bool sample = e->kind == GEUL_LOG_SAMPLE;
    if (sample)
        add_literal(&raw, e->label);
    else
        geul_log_text_add_format(&raw, "**%s**\n", e->label);
    geul_log_text_add(&raw, sample ? "\nwas continued as\n\n" : "\n");
    add_literal(&raw, e->text);
    geul_log_text_add_bytes(&raw, "", 1);
    if (!raw.failed)
        geul_log_text_add_utf8(&markdown, raw.bytes.data);
    markdown.failed |= raw.failed;
    summary.failed |= markdown.failed;
    if (!summary.failed)
        add_text(&summary, sample ? "sample" : "event", &markdown);
    add_message(&event, 5, &summary);
    write_event(o, &event);
    geul_log_text_free(&raw);
    geul_log_text_free(&markdown);
}

/* A name that no file has and that sorts after those of earlier runs: by the time, and by a number within a second. */
static char *choose_path(struct geul_log_output *o)
{
    char name[96];
    long long now = (long long)geul_os_wall_seconds();
    for (int attempt = 0; attempt < 1000; attempt++) {
        snprintf(name, sizeof name, attempt ? "%s%010lld.geul.%03d" : "%s%010lld.geul", o->format->name, now, attempt);
        char *path = geul_os_join_path(o->ctx, o->dir, name);
        if (!path || !geul_os_exists(path))
            return path;
        geul_free(o->ctx, path);
    }
    geul_fail(o->ctx, GEUL_ERROR_IO, "%s holds too many files like %s; name another folder", o->dir, name);
    return NULL;
}

static enum geul_status open_events(struct geul_log_output *o)
{
    char *path = choose_path(o);
    o->file = path ? geul_appendfile_open(o->ctx, path, false) : NULL;
    geul_free(o->ctx, path);
    if (!o->file)
        return geul_error_status(o->ctx);
    struct geul_log_text event = new_event(o, 0);
    add_string(&event, 3, "brain.Event:2");
    write_event(o, &event);
    add_start(o, o->resume_step > 0 ? o->resume_step + 1 : 0);
    return geul_log_append(o);
}

const struct geul_log_format geul_log_tensorboard = {
    .name = "events.out.tfevents.",
    .wanted = offsetof(struct geul_journal_options, tensorboard),
    .open = open_events,
    .write = {write_step, write_evaluation, write_note, write_note},
    .flush = geul_log_file_flush,
};
