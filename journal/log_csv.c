/* log_csv.c: log.csv. A step fills all columns but the last, an evaluation the step and the last, so that each row can
 * be written at once. No field needs quotes. */
#include "journal/log_entry.h"

#include <stddef.h>
#include <string.h>

#define FIELDS (GEUL_LOG_COLUMNS + 1) /* the last: eval_loss */

/* Adds one field of a step. */
static void add_field(struct geul_log_text *t, const struct geul_journal_record *r, const struct geul_log_column *c)
{
    const char *at = (const char *)r + c->offset;
    int64_t whole;
    bool flag;
    switch (c->value) {
    case GEUL_LOG_INT:
        memcpy(&whole, at, sizeof whole);
        geul_log_text_add_format(t, "%lld", (long long)whole);
        break;
    case GEUL_LOG_BOOL:
        memcpy(&flag, at, sizeof flag);
        geul_log_text_add(t, flag ? "1" : "0");
        break;
    case GEUL_LOG_DOUBLE:
        geul_log_text_add_double(t, geul_log_column_double(r, c), 9);
        break;
    }
}

static void write_step(struct geul_log_output *o, const struct geul_log_entry *e)
{
    for (int i = 0; i < GEUL_LOG_COLUMNS; i++) {
        add_field(&o->text, &e->record, &geul_log_columns[i]);
        geul_log_text_add(&o->text, ",");
    }
    geul_log_text_add(&o->text, "\n");
}

static void write_evaluation(struct geul_log_output *o, const struct geul_log_entry *e)
{
    /* the empty columns between step and eval_loss */
    geul_log_text_add_format(&o->text, "%lld,,,,,,,,,,", (long long)e->record.step);
    geul_log_text_add_double(&o->text, e->record.loss, 9);
    geul_log_text_add(&o->text, "\n");
}

/* Splits a line into exactly FIELDS fields. */
static bool split(const char *line, size_t n, struct geul_slice *fields)
{
    const char *end = line + n, *p = line;
    if (n && end[-1] == '\r')
        end--;
    for (int i = 0; i < FIELDS; i++) {
        const char *stop = memchr(p, ',', (size_t)(end - p));
        if (i < FIELDS - 1 ? !stop : stop != NULL)
            return false;
        fields[i] = (struct geul_slice){p, (size_t)((stop ? stop : end) - p)};
        p = stop ? stop + 1 : end;
    }
    return true;
}

static bool parse_field(struct geul_slice s, const struct geul_log_column *c, struct geul_journal_record *r)
{
    char *at = (char *)r + c->offset;
    int64_t whole;
    double real;
    if (c->value == GEUL_LOG_DOUBLE) {
        if (!geul_log_parse_double(s.s, s.n, &real))
            return false;
        memcpy(at, &real, sizeof real);
        return true;
    }
    if (!geul_log_parse_int(s.s, s.n, &whole))
        return false;
    if (c->value == GEUL_LOG_INT)
        memcpy(at, &whole, sizeof whole);
    else /* a flag is written as 0 or 1 */
        memcpy(at, &(bool){whole != 0}, sizeof(bool));
    return true;
}

/* An evaluation is told by an empty second and a filled last field. The header does not parse: its step is a word. */
static enum geul_status parse(struct geul_log_text *scratch, const char *line, size_t n, struct geul_log_entry *e)
{
    struct geul_slice fields[FIELDS];
    *e = (struct geul_log_entry){.kind = GEUL_LOG_STEP, .label = "", .text = ""};
    (void)scratch;
    if (!split(line, n, fields) || !parse_field(fields[0], &geul_log_columns[0], &e->record))
        return GEUL_ERROR_FORMAT;
    if (fields[1].n == 0 && fields[FIELDS - 1].n) {
        e->kind = GEUL_LOG_EVALUATION;
        return geul_log_parse_double(fields[FIELDS - 1].s, fields[FIELDS - 1].n, &e->record.loss) ? GEUL_OK
                                                                                                  : GEUL_ERROR_FORMAT;
    }
    for (int i = 1; i < GEUL_LOG_COLUMNS; i++)
        if (!parse_field(fields[i], &geul_log_columns[i], &e->record))
            return GEUL_ERROR_FORMAT;
    return GEUL_OK;
}

const struct geul_log_format geul_log_csv = {
    .name = "log.csv",
    .wanted = offsetof(struct geul_journal_options, csv),
    .header = "step,loss,learning_rate,grad_norm,tokens_per_second,tokens,targets,epoch,seconds,skipped,eval_loss\n",
    .parse = parse,
    .open = geul_log_lines_open,
    .write = {[GEUL_LOG_STEP] = write_step, [GEUL_LOG_EVALUATION] = write_evaluation},
    .flush = geul_log_file_flush,
};
