/* training_files.c: what a run leaves in its directory besides logs:
 *
 *     checkpoint-00000120.gguf   trainable weights, optimizer states, position in the data, and struct note
 *     best.gguf                  the weights with the lowest held-out loss, as a result
 *     adapter.gguf, adapter/     the result of a LoRA run, as GGUF and for PEFT
 *     model.gguf                 the result of any other run
 *
 * Every file is written under a temporary name and renamed, so each is complete or absent. */
#include "command/learn/training_run.h"

#include "command/report.h"

#include "geul_tools.h"
#include "core/os.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATHS = 4, PATH_SIZE = 4096, MOST_CHECKPOINTS = 4096 };

static const char stem[] = "checkpoint-";

/* dir/name in one of PATHS buffers. */
static const char *path_in(const char *dir, const char *name)
{
    static char paths[PATHS][PATH_SIZE];
    static int next;
    char *path = paths[next++ % PATHS];
    snprintf(path, PATH_SIZE, "%s/%s", dir, name);
    return path;
}

const char *geul_run_path(const struct geul_run *run, const char *format, ...)
{
    char name[256];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    return path_in(run->job->args->output, name);
}

/* ------------------------------------------------------------------------------- checkpoints -- */

/* The steps of the checkpoints found, the newest first. */
struct found {
    int64_t steps[MOST_CHECKPOINTS];
    int n;
};

static void take_name(void *user, const char *name)
{
    struct found *f = user;
    char *end;
    if (strncmp(name, stem, sizeof stem - 1) != 0 || f->n == MOST_CHECKPOINTS)
        return;
    long long step = strtoll(name + sizeof stem - 1, &end, 10);
    if (end > name + sizeof stem - 1 && strcmp(end, ".gguf") == 0 && step >= 0)
        f->steps[f->n++] = step;
}

static int newest_first(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

static enum geul_status find_checkpoints(struct geul_context *ctx, const char *dir, struct found *f)
{
    f->n = 0;
    enum geul_status status = geul_os_list(ctx, dir, take_name, f);
    qsort(f->steps, (size_t)f->n, sizeof *f->steps, newest_first);
    return status;
}

static const char *checkpoint_in(const char *dir, int64_t step)
{
    char name[64];
    snprintf(name, sizeof name, "%s%08lld.gguf", stem, (long long)step);
    return path_in(dir, name);
}

const char *geul_run_checkpoint(const struct geul_run *run, int64_t step)
{
    return checkpoint_in(run->job->args->output, step);
}

/* What the command adds to the trainer's checkpoint, as raw bytes: the state of the run, and its settings, name and
 * value in turn, as consecutive NUL-terminated strings, an empty name at the end. A checkpoint with a note of another
 * size (another version's) loads without it. */
struct note {
    struct geul_run_state state;
    char settings[GEUL_SETTINGS_TEXT];
};

static void fill_note(const struct geul_run *run, struct note *note)
{
    memset(note, 0, sizeof *note); /* padding too: equal runs write equal files */
    note->state = run->state;
    geul_watch_get_state(run->watch, note->state.watch);
    size_t used = 0;
    for (int i = 0; i < run->settings.n; i++) {
        const char *name = run->settings.rows[i].name, *value = run->settings.rows[i].value;
        size_t n = strlen(name) + 1, m = strlen(value) + 1;
        if (used + n + m >= sizeof note->settings)
            break;
        memcpy(note->settings + used, name, n);
        memcpy(note->settings + used + n, value, m);
        used += n + m;
    }
}

/* Removes the oldest checkpoints beyond --keep, but never the sound one, which a rewind needs. Checkpoints of later
 * steps than the one just written do not count. */
static enum geul_status remove_old(struct geul_run *run)
{
    static struct found f;
    enum geul_status status = find_checkpoints(run->ctx, run->job->args->output, &f);
    for (int i = 0, kept = 0; status == GEUL_OK && i < f.n; i++)
        if (f.steps[i] <= run->saved_at && ++kept > run->job->args->keep_newest && f.steps[i] != run->state.sound_step)
            status = geul_os_remove(run->ctx, geul_run_checkpoint(run, f.steps[i]));
    return status;
}

enum geul_status geul_run_save(struct geul_run *run, bool due)
{
    struct note note;
    int64_t step = geul_trainer_steps_done(run->trainer);
    /* Only checkpoints that are due become sound (an interrupted run and one that ran through then rewind alike), and
     * only when the step before them was applied and the loss is not climbing. It is set before writing: the checkpoint
     * names itself. */
    if (due && run->state.refused == 0 && geul_watch_is_calm(run->watch))
        run->state.sound_step = step;
    fill_note(run, &note);
    enum geul_status status = geul_trainer_save(run->trainer, geul_run_checkpoint(run, step), &note, sizeof note);
    if (status != GEUL_OK)
        return status;
    run->saved_at = step;
    return remove_old(run);
}

/* Appends a line "NAME: was OLD, is NEW" to run->changes; old or new NULL: the run had, has no such setting. */
static bool add_change(struct geul_run *run, const char *name, const char *then, const char *now)
{
    char line[1024];
    size_t used = run->changes ? strlen(run->changes) : 0;
    int n = snprintf(line, sizeof line, "%s: was %s, is %s\n", name, then ? then : "not set", now ? now : "not set");
    size_t length = n < (int)sizeof line ? (size_t)n : sizeof line - 1;
    char *grown = geul_alloc(run->ctx, used + length + 1, 1);
    if (!grown)
        return false;
    if (used)
        memcpy(grown, run->changes, used);
    memcpy(grown + used, line, length);
    grown[used + length - 1] = '\n';
    geul_free(run->ctx, run->changes);
    run->changes = grown;
    return true;
}

/* The value of a setting in a note; NULL: there is none. */
static const char *held_value(const struct note *note, const char *name)
{
    for (const char *at = note->settings; *at;) {
        const char *value = at + strlen(at) + 1;
        if (strcmp(at, name) == 0)
            return value;
        at = value + strlen(value) + 1;
    }
    return NULL;
}

static const char *present_value(const struct geul_run *run, const char *name)
{
    for (int i = 0; i < run->settings.n; i++)
        if (strcmp(run->settings.rows[i].name, name) == 0)
            return run->settings.rows[i].value;
    return NULL;
}

/* Lists the settings that differ from those the checkpoint was written with. false when memory is short. */
static bool compare_settings(struct geul_run *run, const struct note *note)
{
    for (const char *at = note->settings; *at;) {
        const char *then = at + strlen(at) + 1, *now = present_value(run, at);
        if ((!now || strcmp(then, now) != 0) && !add_change(run, at, then, now))
            return false;
        at = then + strlen(then) + 1;
    }
    for (int i = 0; i < run->settings.n; i++)
        if (!held_value(note, run->settings.rows[i].name) &&
            !add_change(run, run->settings.rows[i].name, NULL, run->settings.rows[i].value))
            return false;
    return true;
}

enum geul_status geul_run_advise(struct geul_run *run, const char *format, ...)
{
    char reason[512], advice[256];
    va_list args;
    enum geul_status status = geul_error_status(run->ctx);
    va_start(args, format);
    vsnprintf(advice, sizeof advice, format, args);
    va_end(args);
    snprintf(reason, sizeof reason, "%s", geul_error(run->ctx));
    geul_error_clear(run->ctx); /* the context keeps its first failure otherwise */
    return geul_fail(run->ctx, status, "%s; %s", reason, advice);
}

enum geul_status geul_run_load(struct geul_run *run, bool *found)
{
    static struct found f;
    struct note note = {.settings = ""};
    size_t bytes = 0;
    char held[4000];
    *found = false;
    enum geul_status status = find_checkpoints(run->ctx, run->job->args->output, &f);
    if (status != GEUL_OK || f.n == 0)
        return status;
    /* The newest one or an error: whether to lose the steps since an older one is for the user to decide. */
    status = geul_trainer_load(run->trainer, geul_run_checkpoint(run, f.steps[0]), false, held, &bytes);
    if (status == GEUL_ERROR_FORMAT && f.n > 1)
        return geul_run_advise(run, "without this file --resume continues from step %lld", (long long)f.steps[1]);
    if (status != GEUL_OK)
        return status;
    *found = true;
    run->saved_at = run->state.evaluated_step = f.steps[0];
    if (bytes != sizeof note) {
        geul_report_note("warning: %s is of another version: its settings and best loss are not known",
                         geul_run_checkpoint(run, f.steps[0]));
        return GEUL_OK;
    }
    memcpy(&note, held, sizeof note);
    /* two, so that a name without an end has an empty value behind it */
    note.settings[sizeof note.settings - 1] = note.settings[sizeof note.settings - 2] = '\0';
    run->state = note.state;
    geul_watch_set_state(run->watch, note.state.watch);
    geul_trainer_scale_rate(run->trainer, run->state.rate_scale);
    return compare_settings(run, &note) ? GEUL_OK : GEUL_ERROR_MEMORY;
}

enum geul_status geul_run_rewind(struct geul_run *run, bool *found)
{
    *found = run->state.sound_step >= 0;
    return *found ? geul_trainer_load(run->trainer, geul_run_checkpoint(run, run->state.sound_step), true, NULL, NULL)
                  : GEUL_OK;
}

/* --------------------------------------------------------------------------------- directory -- */

/* A checkpoint or result that an earlier run left in the directory; NULL: none. Logs alone, of a run that never saved
 * anything, do no harm. */
static const char *older_run(struct geul_context *ctx, const char *dir)
{
    static const char *const results[] = {"best.gguf", "adapter.gguf", "model.gguf"};
    static struct found f;
    if (find_checkpoints(ctx, dir, &f) != GEUL_OK) /* writing there will fail and report it */
        geul_error_clear(ctx);
    if (f.n > 0)
        return checkpoint_in(dir, f.steps[0]);
    for (size_t i = 0; i < sizeof results / sizeof *results; i++)
        if (geul_os_exists(path_in(dir, results[i])))
            return path_in(dir, results[i]);
    return NULL;
}

int geul_run_dir_take(struct geul_context *ctx, const struct geul_train_args *args, struct geul_run_dir *dir)
{
    *dir = (struct geul_run_dir){.path = args->output, .made = !geul_os_exists(args->output)};
    if (args->plan || args->preview > 0)
        return 0;
    if (geul_os_make_directory(ctx, args->output) != GEUL_OK)
        return geul_report_failure(ctx);
    dir->lock = geul_dirlock_take(ctx, args->output);
    if (!dir->lock && geul_error_status(ctx) == GEUL_ERROR_ARGUMENT)
        return geul_report_error("%s; wait until it ends, or choose another -o", geul_error(ctx));
    if (!dir->lock)
        return geul_report_failure(ctx);
    /* Without --resume an older run's checkpoints would be taken for this one's, and its result would be overwritten.
     */
    const char *older = args->resume ? NULL : older_run(ctx, args->output);
    return older ? geul_report_error(
                       "%s exists already, from an earlier run: continue it with --resume, or choose another -o", older)
                 : 0;
}

void geul_run_dir_leave(struct geul_run_dir *dir)
{
    if (!dir->lock)
        return;
    geul_dirlock_free(dir->lock);
    if (dir->made)
        geul_os_remove_empty_directory(dir->path);
}

/* ----------------------------------------------------------------------------------- results -- */

enum geul_status geul_run_save_best(struct geul_run *run)
{
    return geul_trainer_export(run->trainer, geul_run_path(run, "best.gguf"), run->job->type);
}

enum geul_status geul_run_judge_end(struct geul_run *run)
{
    const struct geul_run_state *state = &run->state;
    double rate = (double)geul_trainer_get_options(run->trainer)->rate, rise = state->level - state->began;
    char what[160], text[400], best[160] = "";
    if (isfinite(state->first_loss) && !(state->last_loss <= state->first_loss + 1e-4)) /* NaN is worse too */
        snprintf(what, sizeof what, "held-out loss %.4f before the first step, %.4f after the last", state->first_loss,
                 state->last_loss);
    else if (!isfinite(state->first_loss) && rise > fmax(0.5, 0.3 * fabs(state->began)))
        snprintf(what, sizeof what, "training loss %.4f at the first step, about %.4f at the last", state->began,
                 state->level);
    else
        return GEUL_OK;
    if (isfinite(state->best_loss) && state->best_step == 0)
        snprintf(best, sizeof best, " No step was better than the model as it was, which best.gguf holds.");
    else if (isfinite(state->best_loss))
        snprintf(best, sizeof best, " best.gguf holds the best state, %.4f after step %lld.", state->best_loss,
                 (long long)state->best_step);
    snprintf(text, sizeof text, "%s.%s A lower --lr (it was %g) or fewer --epochs may help", what, best, rate);
    geul_run_hide();
    geul_report_note("WARNING: the run ended worse than it began: %s", text);
    return geul_journal_event(run->log, geul_trainer_steps_done(run->trainer), "ended worse than it began", text);
}

enum geul_status geul_run_export(struct geul_run *run)
{
    bool adapter = run->job->options.lora.rank > 0;
    const char *path = geul_run_path(run, adapter ? "adapter.gguf" : "model.gguf");
    enum geul_status status = geul_trainer_export(run->trainer, path, run->job->type);
    if (status != GEUL_OK)
        return status;
    if (!adapter) {
        geul_report_line("result     %s (`geul export` makes a Hugging Face directory of it)", path);
    } else {
        const char *dir = geul_run_path(run, "adapter");
        status = geul_export_peft(run->ctx, path, dir, NULL);
        if (status != GEUL_OK)
            return status;
        geul_report_line("result     %s, and for PEFT %s/", path, dir);
    }
    const struct geul_run_state *state = &run->state;
    if (isfinite(state->best_loss) && state->best_step == 0)
        geul_report_line("best       %s, the model as it was before the first step: held-out loss %.4f",
                         geul_run_path(run, "best.gguf"), state->best_loss);
    else if (isfinite(state->best_loss))
        geul_report_line("best       %s, held-out loss %.4f after step %lld", geul_run_path(run, "best.gguf"),
                         state->best_loss, (long long)state->best_step);
    geul_report_line("report     %s", geul_run_path(run, "report.html"));
    return GEUL_OK;
}
