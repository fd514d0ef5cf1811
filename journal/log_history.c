/* log_history.c: a run so far, in memory; see log_entry.h. */
#include "journal/log_entry.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#define COLUMN(field, kind)                                                                                            \
    {                                                                                                                  \
#field, GEUL_LOG_##kind, offsetof(struct geul_journal_record, field)                                           \
    }
const struct geul_log_column geul_log_columns[GEUL_LOG_COLUMNS] = {
    COLUMN(step, INT),
    COLUMN(loss, DOUBLE),
    COLUMN(learning_rate, DOUBLE),
    COLUMN(grad_norm, DOUBLE),
    COLUMN(tokens_per_second, DOUBLE),
    COLUMN(tokens, INT),
    COLUMN(targets, INT),
    COLUMN(epoch, DOUBLE),
    COLUMN(seconds, DOUBLE),
    COLUMN(skipped, BOOL),
};
#undef COLUMN

double geul_log_column_double(const struct geul_journal_record *r, const struct geul_log_column *c)
{
    double v;
    memcpy(&v, (const char *)r + c->offset, sizeof v);
    return v;
}

/* A conversion that is defined for every double. */
static float narrow(double v)
{
    const double most = 3.4028234663852886e38;
    return v > most ? INFINITY : v < -most ? -INFINITY : (float)v;
}

/* A step at or before the last one means that the run was rewound: points from it on are undone. So are evaluations
 * from its step on: a step is logged before its evaluation. Tokens stay counted, as they were computed. */
static bool add_point(struct geul_log_history *h, const struct geul_journal_record *r)
{
    while (h->n_points && h->points[h->n_points - 1].step >= r->step)
        h->n_points--;
    while (h->n_evaluations && h->evaluations[h->n_evaluations - 1].step >= r->step)
        h->n_evaluations--;
    if (!geul_reserve(h->ctx, &h->points, &h->points_capacity, h->n_points + 1, sizeof *h->points))
        return false;
    h->points[h->n_points++] = (struct geul_log_point){
        r->step,   narrow(r->loss), narrow(r->learning_rate), narrow(r->grad_norm), narrow(r->tokens_per_second),
        r->skipped};
    if (r->tokens > 0 && __builtin_add_overflow(h->tokens, r->tokens, &h->tokens))
        h->tokens = INT64_MAX;
    h->seconds = r->seconds;
    h->epoch = r->epoch;
    return true;
}

/* An evaluation replaces one of the same step, and those of later steps. */
static bool add_evaluation(struct geul_log_history *h, int64_t step, double loss)
{
    while (h->n_evaluations && h->evaluations[h->n_evaluations - 1].step >= step)
        h->n_evaluations--;
    if (!geul_reserve(h->ctx, &h->evaluations, &h->evaluations_capacity, h->n_evaluations + 1, sizeof *h->evaluations))
        return false;
    h->evaluations[h->n_evaluations++] = (struct geul_log_evaluation){step, loss};
    return true;
}

/* A copy with broken UTF-8 replaced as in the files, so that a resumed run shows the same; NULL on failure. */
static char *copy_text(struct geul_context *ctx, const char *s)
{
    struct geul_log_text t = {.ctx = ctx};
    geul_log_text_add_utf8(&t, s);
    geul_log_text_add_bytes(&t, "", 1);
    if (!t.failed)
        return t.bytes.data;
    geul_log_text_free(&t);
    return NULL;
}

static bool add_note(struct geul_context *ctx, struct geul_log_notes *notes, const struct geul_log_entry *e)
{
    if (!geul_reserve(ctx, &notes->items, &notes->capacity, notes->n + 1, sizeof *notes->items))
        return false;
    char *label = copy_text(ctx, e->label);
    char *text = label ? copy_text(ctx, e->text) : NULL;
    if (!text) {
        geul_free(ctx, label);
        return false;
    }
    notes->items[notes->n++] = (struct geul_log_note){e->record.step, label, text};
    return true;
}

enum geul_status geul_log_history_add(struct geul_log_history *h, const struct geul_log_entry *e)
{
    bool ok = e->kind == GEUL_LOG_STEP ? add_point(h, &e->record)
              : e->kind == GEUL_LOG_EVALUATION
                  ? add_evaluation(h, e->record.step, e->record.loss)
                  : add_note(h->ctx, e->kind == GEUL_LOG_SAMPLE ? &h->samples : &h->events, e);
    return ok ? GEUL_OK : GEUL_ERROR_MEMORY;
}

static void free_notes(struct geul_context *ctx, struct geul_log_notes *notes)
{
    for (size_t i = 0; i < notes->n; i++) {
        geul_free(ctx, notes->items[i].label);
        geul_free(ctx, notes->items[i].text);
    }
    geul_free(ctx, notes->items);
}

void geul_log_history_free(struct geul_log_history *h)
{
    free_notes(h->ctx, &h->samples);
    free_notes(h->ctx, &h->events);
    geul_free(h->ctx, h->points);
    geul_free(h->ctx, h->evaluations);
    *h = (struct geul_log_history){.ctx = h->ctx};
}
