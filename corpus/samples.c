/* samples.c: see geul_tools.h and samples.h. */
#include "corpus/samples.h"

#include "core/random.h"
#include "models/template.h"
#include "data/dataset.h"

#include <limits.h>
#include <string.h>

/* -------------------------------------------------------------------------------------- rows -- */

enum geul_status geul_samples_encode(struct geul_context *ctx, const struct geul_tokenizer *tok,
                                     const struct geul_row *row, const struct geul_template *t, bool whole, bool nfc,
                                     struct geul_sample *out)
{
    if (row->kind == GEUL_ROW_TEXT)
        return geul_sample_of_text(ctx, tok, row->text, row->length, nfc, out);
    const struct geul_conversation c = {.turns = row->turns,
                                        .n = row->n_turns,
                                        .system = row->system,
                                        .input = row->input,
                                        .input_turn = row->input_turn,
                                        .learned = row->learned,
                                        .whole = whole,
                                        .nfc = nfc};
    return geul_sample_of_turns(ctx, tok, t, &c, out);
}

/* ------------------------------------------------------------------------------------- files -- */

/* One call of geul_samples_read(). */
struct reading {
    struct geul_context *ctx;
    const struct geul_tokenizer *tok;
    struct geul_samples_options o;
    struct geul_dataset *train, *held_out; /* the caller's; held_out may be NULL when the share is 0 */
    struct geul_row_problems problems;
    struct geul_samples_report report;
    const char *path;
    int64_t number; /* of the row, over all files */
};

/* Whether the row of that number is held out: a hash of seed and number, as a number in [0, 1), is below the share. It
 * does not depend on other rows, so a larger share holds out the same rows and more. */
static bool is_held_out(const struct geul_samples_options *o, int64_t number)
{
    uint64_t bits = geul_random_splitmix(o->seed * GEUL_RANDOM_STEP + (uint64_t)number, 0);
    return geul_random_real(geul_random_mix(bits)) < o->held_out;
}

/* Counts a row that is too long, or fails if that is to end the reading. */
static enum geul_status note_long(struct reading *r, const struct geul_row *row, size_t n)
{
    struct geul_samples_report *report = &r->report;
    if (r->o.too_long == GEUL_SAMPLES_REFUSE)
        return geul_fail(r->ctx, GEUL_ERROR_FORMAT,
                         "%s:%lld: the sample has %zu tokens, a context of %d has room for %d: shorten it, or let "
                         "samples be cut or skipped",
                         r->path, (long long)row->line, n, r->o.n_context, r->o.n_context + 1);
    if (report->too_long++ == 0) {
        report->long_path = r->path;
        report->long_line = row->line;
    }
    return GEUL_OK;
}

/* *kept: number of ids of a conversation that are kept, 0: the row is skipped. A context of n holds n + 1 ids: inputs
 * and targets are the same ids, shifted by one. */
static enum geul_status fit(struct reading *r, const struct geul_row *row, const struct geul_sample *s, size_t *kept)
{
    size_t room = r->o.n_context ? (size_t)r->o.n_context + 1 : INT_MAX, targets = 0;
    *kept = s->n;
    if (s->n <= room)
        return GEUL_OK;
    *kept = r->o.too_long == GEUL_SAMPLES_TRUNCATE ? room : 0;
    for (size_t i = 1; i < *kept; i++)
        targets += s->target[i];
    if (note_long(r, row, s->n) != GEUL_OK)
        return geul_error_status(r->ctx);
    if (*kept && targets == 0)
        return geul_fail(r->ctx, GEUL_ERROR_ARGUMENT,
                         "the question alone fills the context of %d tokens: no room is left for the answer",
                         r->o.n_context);
    return GEUL_OK;
}

/* Adds a text as windows that overlap by one token, as those of a shard do. With n_context 4:
 *
 *   ids         0 1 2 3 4 5 6 7 8 9
 *   window 0    0 1 2 3 4                 inputs 0 to 3, targets 1 to 4
 *   window 1            4 5 6 7 8         so each id but the first is a target once
 *   window 2                    8 9
 */
static enum geul_status add_windows(const struct reading *r, const struct geul_sample *s, struct geul_dataset *to)
{
    size_t step = r->o.n_context ? (size_t)r->o.n_context : INT_MAX - 1;
    enum geul_status status = GEUL_OK;
    for (size_t from = 0; status == GEUL_OK && from + 1 < s->n; from += step) {
        size_t rest = s->n - from, n = rest < step + 1 ? rest : step + 1;
        status = geul_dataset_add(to, s->ids + from, s->target + from, (int)n);
    }
    return status;
}

/* Adds the sample of a row to its dataset. */
static enum geul_status add(struct reading *r, const struct geul_row *row, const struct geul_sample *s)
{
    struct geul_samples_report *report = &r->report;
    bool held_out = is_held_out(&r->o, r->number);
    struct geul_dataset *to = held_out ? r->held_out : r->train;
    size_t kept = s->n;
    enum geul_status status = row->kind == GEUL_ROW_TEXT ? GEUL_OK : fit(r, row, s, &kept);
    report->longest = (int64_t)s->n > report->longest ? (int64_t)s->n : report->longest;
    if (status != GEUL_OK || kept == 0)
        return status;
    report->rows++;
    report->held_out += held_out;
    return row->kind == GEUL_ROW_TEXT ? add_windows(r, s, to) : geul_dataset_add(to, s->ids, s->target, (int)kept);
}

/* Encodes a row and adds it; see struct geul_rows_walk. */
static enum geul_status add_row(void *user, const char *path, const struct geul_row *row)
{
    struct reading *r = user;
    struct geul_sample s;
    r->path = path;
    enum geul_status status =
        geul_samples_encode(r->ctx, r->tok, row, r->o.prompt_template, r->o.whole, r->report.nfc_applied, &s);
    if (status == GEUL_OK)
        status = add(r, row, &s);
    if (status == GEUL_OK) {
        r->report.joined_input += s.joined;
        r->report.not_nfc += s.not_nfc;
    }
    geul_sample_free(r->ctx, &s);
    r->number++;
    return status;
}

/* Fails unless a row is left to train on. */
static enum geul_status check_rest(struct reading *r)
{
    const char *first = geul_row_problems_text(&r->problems, 0);
    if (r->report.rows > r->report.held_out)
        return GEUL_OK;
    if (r->report.rows)
        return geul_fail(r->ctx, GEUL_ERROR_ARGUMENT, "all %lld rows are held out: none is left to train on",
                         (long long)r->report.rows);
    return geul_fail(r->ctx, GEUL_ERROR_FORMAT, "no row can be used (%lld are broken, %lld too long)%s%s",
                     (long long)r->problems.n, (long long)r->report.too_long, first ? "; the first: " : "",
                     first ? first : "");
}

/* Checks the options and the other arguments. */
static enum geul_status check_given(const struct reading *r)
{
    const struct geul_samples_options *o = &r->o;
    if (!(o->held_out >= 0 && o->held_out <= 0.5))
        return geul_fail(r->ctx, GEUL_ERROR_ARGUMENT, "the share to hold out is %g; 0 to 0.5 is possible", o->held_out);
    if (o->held_out > 0 && !r->held_out)
        return geul_fail(r->ctx, GEUL_ERROR_ARGUMENT, "a share of %g is held out, but there is no dataset for it",
                         o->held_out);
    if (o->n_context < 0 || o->n_context > INT_MAX - 2)
        return geul_fail(r->ctx, GEUL_ERROR_ARGUMENT, "a context of %d tokens is out of range", o->n_context);
    if ((unsigned)o->too_long > GEUL_SAMPLES_REFUSE)
        return geul_fail(r->ctx, GEUL_ERROR_ARGUMENT, "there is no way %d to treat samples that are too long",
                         (int)o->too_long);
    if ((unsigned)o->nfc > GEUL_NFC_OFF)
        return geul_fail(r->ctx, GEUL_ERROR_ARGUMENT, "nfc is %d; there is no such value", (int)o->nfc);
    if (geul_token_end(r->tok) < 0)
        return geul_fail(
            r->ctx, GEUL_ERROR_ARGUMENT,
            "the tokenizer names no end token and has no <|endoftext|>, which every sample has to end with");
    return GEUL_OK;
}

enum geul_status geul_samples_read(struct geul_context *ctx, const struct geul_tokenizer *tok, const char *const *paths,
                                   int n_paths, const struct geul_samples_options *options, struct geul_dataset *train,
                                   struct geul_dataset *held_out, struct geul_samples_report *report)
{
    struct reading r = {.ctx = ctx, .tok = tok, .train = train, .held_out = held_out};
    geul_error_clear(ctx);
    enum geul_status status = geul_take_struct(ctx, &r.o, sizeof r.o, options, "geul_samples_options");
    if (status == GEUL_OK)
        status = geul_check_struct(ctx, report, "geul_samples_report");
    r.report = (struct geul_samples_report){.size = sizeof r.report};
    if (status == GEUL_OK)
        status = check_given(&r);
    if (status == GEUL_OK) {
        r.problems.ctx = r.o.problems ? r.o.problems->ctx : ctx;
        struct geul_rows_walk walk = {&r.problems, r.o.encoding, add_row, &r, r.o.progress, r.o.user};
        r.report.nfc_applied = geul_nfc_applies(tok, r.o.nfc);
        status = geul_rows_walk(ctx, paths, n_paths, &walk);
    }
    if (status == GEUL_OK)
        status = check_rest(&r);
    /* also after a failure: the caller wants to see which rows were broken */
    geul_row_problems_move(&r.problems, r.o.problems);
    if (report && geul_check_struct(NULL, report, "") == GEUL_OK)
        geul_give_struct(report, &r.report, sizeof r.report);
    return status;
}
