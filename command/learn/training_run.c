/* training_run.c: a run from its first step to its result; see training.h. */
#include "command/learn/training_run.h"

#include "command/progress.h"
#include "command/report.h"
#include "command/terminal.h"

#include "core/os.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* What happens to a step, from the trainer's judge to the journal:
 *
 *     fine                        applied, written to the log
 *     spike of loss or gradient   left out (--on-trouble ignore: applied) and told as an event
 *     not finite                  left out and told; when a weight itself is NaN, the run ends
 *     loss that has climbed       back to the weights of state.sound_step, with half the learning rate; without such a
 *                                 checkpoint the run ends (--on-trouble skip, ignore: told, no more)
 *     PATIENCE left out in a row  back to the weights of state.sound_step; after REWINDS of these, or without such a
 *                                 checkpoint, the run ends
 *
 * A step that is left out counts as a step and uses up its data: rewinding restores the weights and the optimizer's
 * states, never the position in the data, so that the same samples do not cause the same trouble again. */
enum { PATIENCE = 5, REWINDS = 3 };

/* ----------------------------------------------------------------------------------- trouble -- */

/* Whether trouble that lasts takes the run back to a checkpoint. */
static bool rewinds(const struct geul_run *run)
{
    return strcmp(run->job->args->on_trouble, "rewind") == 0;
}

/* Called by the trainer before an update; false leaves the step out. A loss that drops suddenly is reported but
 * applied. */
static bool judge(void *user, double loss, double grad_norm)
{
    struct geul_run *run = user;
    run->verdict = geul_watch_step(run->watch, loss, grad_norm, run->why, sizeof run->why);
    bool odd = run->verdict == GEUL_WATCH_LOSS_SPIKE || run->verdict == GEUL_WATCH_GRADIENT_SPIKE;
    if (run->verdict == GEUL_WATCH_LOSS_CLIMB)
        return !rewinds(run); /* a step that is about to be undone need not be taken */
    return !odd || strcmp(run->job->args->on_trouble, "ignore") == 0;
}

/* Logs an event and prints it. */
static enum geul_status tell(struct geul_run *run, int64_t step, const char *kind, const char *text)
{
    geul_run_hide();
    geul_report_note("step %lld: %s: %s", (long long)step, kind, text);
    return geul_journal_event(run->log, step, kind, text);
}

/* Returns to the weights of the newest sound checkpoint; the position in the data stays. what: the trouble. An error
 * when there is none or the run has rewound too often. climbed: with half the learning rate, as the same one would
 * climb again. */
static enum geul_status rewind_run(struct geul_run *run, int64_t step, const char *what, bool climbed)
{
    bool found = false;
    char text[256];
    if (rewinds(run) && run->state.rewinds < REWINDS) {
        enum geul_status status = geul_run_rewind(run, &found);
        if (status != GEUL_OK)
            return status;
    }
    if (!found)
        return geul_fail(
            run->ctx, GEUL_ERROR_ARGUMENT,
            "%s, after %lld rewinds%s. A lower --lr (it was %g), --precision f32 or a look at the data may help", what,
            (long long)run->state.rewinds,
            run->state.sound_step >= 0 ? "; the checkpoints are intact" : ", and no checkpoint is usable",
            (double)geul_trainer_get_options(run->trainer)->rate);
    /* Loading a checkpoint restores the trainer, not run->state: the count of rewinds must survive them. */
    run->state.rewinds++;
    run->state.refused = 0;
    if (climbed) {
        run->state.rate_scale /= 2;
        geul_trainer_scale_rate(run->trainer, run->state.rate_scale);
    }
    snprintf(text, sizeof text, "%s; rewound to the weights of step %lld%s", what, (long long)run->state.sound_step,
             climbed ? ", and the learning rate is halved" : "");
    return tell(run, step, "rewind", text);
}

/* Reports a step that was not applied or that was odd, and rewinds when it is the last of too many. */
static enum geul_status handle(struct geul_run *run, const struct geul_train_report *r)
{
    enum geul_status status = GEUL_OK;
    if (r->outcome == GEUL_STEP_NOT_FINITE) /* the trainer does not ask judge() about such a step */
        status = tell(run, r->step, geul_watch_name(GEUL_WATCH_NOT_FINITE), r->where);
    else if (run->verdict != GEUL_WATCH_FINE)
        status = tell(run, r->step, geul_watch_name(run->verdict), run->why);
    if (status == GEUL_OK && run->verdict == GEUL_WATCH_LOSS_CLIMB && rewinds(run)) {
        char what[96];
        snprintf(what, sizeof what, "the loss climbed up to step %lld", (long long)r->step);
        return rewind_run(run, r->step, what, true);
    }
    if (r->outcome == GEUL_STEP_APPLIED) {
        run->state.refused = 0;
        return status;
    }
    /* A weight that is not finite makes every later loss NaN; no patience helps. (train/diagnosis.c words it) */
    if (status == GEUL_OK && r->outcome == GEUL_STEP_NOT_FINITE && strstr(r->where, "the weight "))
        return geul_fail(run->ctx, GEUL_ERROR_ARGUMENT, "step %lld: %s; no step can be used any more%s",
                         (long long)r->step, r->where, run->saved_at >= 0 ? ", but the last checkpoint is intact" : "");
    if (status == GEUL_OK && ++run->state.refused >= PATIENCE) {
        char what[96];
        snprintf(what, sizeof what, "%d steps in a row up to step %lld could not be used", PATIENCE,
                 (long long)r->step);
        status = rewind_run(run, r->step, what, false);
    }
    return status;
}

/* ------------------------------------------------------------------------------------- steps -- */

static enum geul_status evaluate(struct geul_run *run)
{
    double loss;
    int64_t step = geul_trainer_steps_done(run->trainer);
    const struct geul_dataset *d = run->job->held_out;
    if (!d || geul_dataset_sample_count(d) == 0)
        return GEUL_OK;
    enum geul_status status = geul_trainer_evaluate(run->trainer, d, &loss);
    if (status != GEUL_OK)
        return status;
    run->state.evaluated_step = step;
    /* What the run began with counts: training may make a model worse, and then that is the best. */
    bool best = loss < run->state.best_loss;
    run->state.last_loss = loss;
    if (step == 0)
        run->state.first_loss = loss;
    if (best) {
        run->state.best_loss = loss;
        run->state.best_step = step;
        status = geul_run_save_best(run);
    }
    geul_run_hide();
    fprintf(stderr, "step %lld: held-out loss %.4f (perplexity %.2f)%s\n", (long long)step, loss, exp(loss),
            best && step > 0 ? ", the best so far" : "");
    return status == GEUL_OK ? geul_journal_evaluation(run->log, step, loss, best) : status;
}

static bool due(int64_t step, int64_t every)
{
    return every > 0 && step % every == 0;
}

static enum geul_status log_step(struct geul_run *run, const struct geul_train_report *r)
{
    struct geul_journal_record record = {
        .size = sizeof record,
        .step = r->step,
        .loss = r->loss,
        .learning_rate = r->rate,
        .grad_norm = r->grad_norm,
        .tokens_per_second = (double)r->tokens / r->seconds,
        .seconds = geul_os_seconds() - run->started_at,
        .tokens = r->tokens,
        .targets = r->targets,
        .epoch = r->epoch,
        .skipped = r->outcome != GEUL_STEP_APPLIED,
    };
    return geul_journal_step(run->log, &record);
}

/* Keeps the training loss that the run began with and about where it is now. */
static void note_level(struct geul_run_state *state, int64_t step, double loss)
{
    const double part = 0.1;
    if (step == 1)
        state->began = loss;
    state->level = step == 1 || !isfinite(state->level) ? loss : state->level + part * (loss - state->level);
}

/* One step and what is due after it. The order matters: trouble is handled first, so that a rewind comes before a
 * checkpoint and a checkpoint holds the best loss of its own step; the journal is flushed after the checkpoint, whose
 * resumption cuts the logs back to its step. */
static enum geul_status one_step(struct geul_run *run, int64_t steps)
{
    struct geul_train_report r;
    run->verdict = GEUL_WATCH_FINE;
    enum geul_status status = geul_trainer_step(run->trainer, &r);
    if (status != GEUL_OK)
        return status;
    run->state.tokens += r.tokens;
    if (r.outcome != GEUL_STEP_NOT_FINITE)
        note_level(&run->state, r.step, r.loss);
    geul_run_show(run, &r);
    status = log_step(run, &r);
    if (status == GEUL_OK)
        status = handle(run, &r);
    if (status == GEUL_OK && (due(r.step, run->evaluate_every) || r.step == steps))
        status = evaluate(run);
    if (status == GEUL_OK && (due(r.step, run->sample_every) || (run->sample_every > 0 && r.step == steps)))
        status = geul_run_write_samples(run);
    /* The last step's checkpoint is the one to continue from with more --steps. */
    if (status == GEUL_OK && (due(r.step, run->save_every) || r.step == steps)) {
        status = geul_run_save(run, true);
        if (status == GEUL_OK)
            status = geul_journal_flush(run->log);
    }
    return status;
}

/* After Ctrl-C, which has cancelled what was being computed: saves what is done. */
static enum geul_status stop(struct geul_run *run)
{
    int64_t done = geul_trainer_steps_done(run->trainer);
    geul_error_clear(run->ctx);
    geul_run_hide();
    if (done == 0) { /* what the model is like is no result of a run */
        geul_report_note("stopped before the first step was done; nothing is saved");
        geul_os_remove(run->ctx, geul_run_path(run, "best.gguf"));
        return geul_fail(run->ctx, GEUL_ERROR_CANCELLED, "stopped before the first step was done");
    }
    /* This checkpoint is not due, so it does not become one to rewind to; otherwise an interrupted run could rewind to
     * another step than one that ran through. */
    enum geul_status status = geul_run_save(run, false);
    geul_run_hide();
    if (status != GEUL_OK)
        return status;
    geul_report_note("stopped after step %lld of %lld; everything is saved in %s", (long long)done,
                     (long long)geul_trainer_total_steps(run->trainer), geul_run_checkpoint(run, run->saved_at));
    geul_train_args_print_resume(run->job->args);
    return geul_fail(run->ctx, GEUL_ERROR_CANCELLED, "stopped after step %lld", (long long)done);
}

/* Whether the evaluation that belongs to the steps done is missing: the first one, or one that Ctrl-C cancelled in the
 * run before. */
static bool owes_evaluation(const struct geul_run *run, int64_t steps)
{
    int64_t done = geul_trainer_steps_done(run->trainer);
    return done == 0 || (run->state.evaluated_step < done && (due(done, run->evaluate_every) || done == steps));
}

/* All steps that are left. */
static enum geul_status all_steps(struct geul_run *run)
{
    int64_t steps = geul_trainer_total_steps(run->trainer);
    enum geul_status status = owes_evaluation(run, steps) ? evaluate(run) : GEUL_OK;
    while (status == GEUL_OK && geul_trainer_steps_done(run->trainer) < steps && !geul_interrupted())
        status = one_step(run, steps);
    if (geul_interrupted() && (status == GEUL_OK || status == GEUL_ERROR_CANCELLED))
        status = stop(run);
    geul_run_hide();
    return status;
}

/* --------------------------------------------------------------------------------------- run -- */

/* Steps between two of something; -1 means `times` times in the whole run. */
static int64_t every(int asked, int64_t steps, int64_t times)
{
    return asked >= 0 ? asked : steps > times ? steps / times : 1;
}

/* Says where a resumed run continues from, and logs it with the settings that have changed. */
static enum geul_status tell_resume(struct geul_run *run)
{
    char date[64] = "", text[160];
    const char *path = geul_run_checkpoint(run, run->saved_at), *name = strrchr(path, '/') + 1;
    time_t written = (time_t)geul_os_modified(path);
    struct tm local;
    if (written > 0 && localtime_r(&written, &local))
        strftime(date, sizeof date, ", written %Y-%m-%d %H:%M:%S", &local);
    geul_report_note("continues after step %lld, from %s%s", (long long)run->saved_at, path, date);
    snprintf(text, sizeof text, "from %s%s", name, date);
    enum geul_status status = geul_journal_event(run->log, run->saved_at, "resumed", text);
    for (char *line = run->changes, *end; status == GEUL_OK && line && (end = strchr(line, '\n')); line = end + 1) {
        *end = '\0';
        geul_report_note("warning: a setting has changed since: %s", line);
        status = geul_journal_event(run->log, run->saved_at, "setting changed", line);
    }
    return status;
}

static enum geul_status open_run(struct geul_run *run)
{
    struct geul_training *job = run->job;
    const struct geul_train_args *a = job->args;
    enum geul_status status = geul_outfile_tidy(run->ctx, a->output, "");
    if (status != GEUL_OK)
        return status;
    /* Order: the trainer knows the number of steps, from which the intervals and settings follow; a checkpoint is
     * compared with these settings; and the journal opens at the checkpoint's step, discarding later rows. */
    run->watch = geul_watch_new(run->ctx);
    run->trainer = run->watch ? geul_trainer_new(run->ctx, &job->options, job->train) : NULL;
    if (!run->trainer)
        return geul_error_status(run->ctx);
    int64_t steps = geul_trainer_total_steps(run->trainer);
    run->evaluate_every = every(a->evaluate_every, steps, 20);
    run->save_every = every(a->save_every, steps, 10);
    run->sample_every = every(a->sample_every, steps, 5);
    geul_settings_of(&run->settings, geul_trainer_get_options(run->trainer), steps);
    geul_settings_add(&run->settings, "data", "%s", job->data_name);
    bool found = false;
    if (a->resume)
        status = geul_run_load(run, &found);
    if (status == GEUL_OK && a->resume && !found)
        geul_report_note("%s holds no checkpoint; the run starts from the beginning", a->output);
    if (status != GEUL_OK)
        return status;
    struct geul_journal_options o = {.size = sizeof o,
                                     .title = job->title,
                                     .settings = run->settings.rows,
                                     .n_settings = run->settings.n,
                                     .total_steps = steps,
                                     .csv = true,
                                     .jsonl = true,
                                     .tensorboard = true,
                                     .report = true};
    run->log = geul_journal_open(run->ctx, a->output, &o, geul_trainer_steps_done(run->trainer));
    if (!run->log)
        return geul_error_status(run->ctx);
    if (found && (status = tell_resume(run)) != GEUL_OK)
        return status;
    /* The log's clock continues where the earlier part stopped. */
    run->started_at = geul_os_seconds() - geul_journal_seconds(run->log);
    return GEUL_OK;
}

/* Adds to a failed write what was saved before it and how to continue. */
static void advise(struct geul_run *run)
{
    if (run->saved_at >= 0)
        geul_run_advise(run, "everything up to step %lld is safe: make room there, and --resume continues from it",
                        (long long)run->saved_at);
    else
        geul_run_advise(run, "no checkpoint was written yet: make room there and start again");
}

/* Logs why the run stopped. The context then holds that failure again, which the journal's calls clear. */
static void log_stop(struct geul_run *run, enum geul_status status)
{
    struct geul_context *ctx = run->ctx;
    char why[1024];
    snprintf(why, sizeof why, "%s", geul_error(ctx));
    if (status != GEUL_ERROR_CANCELLED)
        geul_journal_event(run->log, geul_trainer_steps_done(run->trainer), "stopped", why);
    geul_journal_flush(run->log);
    geul_error_clear(ctx);
    geul_fail(ctx, status, "%s", why);
}

static int carry_out(struct geul_run *run)
{
    enum geul_status status = open_run(run);
    if (status == GEUL_OK)
        status = all_steps(run);
    if (run->log && status == GEUL_ERROR_IO)
        advise(run);
    if (run->log && status == GEUL_ERROR_ARGUMENT && isfinite(run->state.best_loss))
        geul_run_advise(run, "best.gguf holds the best state, held-out loss %.4f after step %lld", run->state.best_loss,
                        (long long)run->state.best_step);
    if (run->log && status != GEUL_OK)
        log_stop(run, status);
    else if (run->log && (status = geul_run_judge_end(run)) == GEUL_OK)
        status = geul_journal_flush(run->log);
    if (status == GEUL_OK && (status = geul_run_export(run)) == GEUL_ERROR_IO)
        advise(run);
    return status == GEUL_OK ? 0 : geul_report_failure(run->ctx);
}

/* Chooses recomputation where it was left open, and prints the estimate with --plan or when the run does not fit.
 * Returns the exit code, or -1 to start the run. */
static int estimate_run(struct geul_training *job)
{
    struct geul_train_estimate estimate;
    bool open = strcmp(job->args->recompute, "auto") == 0;
    enum geul_status status = geul_run_estimate(job, &job->options, job->args->plan, &estimate);
    /* Recomputing costs time, so only when less than 30 % of the free memory would be left. */
    if (status == GEUL_OK && open && estimate.available && estimate.total > estimate.available / 10 * 7) {
        job->options.recompute = GEUL_RECOMPUTE_FULL;
        status = geul_run_estimate(job, &job->options, job->args->plan, &estimate);
    }
    if (status != GEUL_OK)
        return geul_report_failure(job->ctx);
    bool fits = !estimate.available || estimate.total <= estimate.available;
    if (!job->args->plan && fits) { /* a checkpoint has all that is trained, and the result its weights again */
        uint64_t bytes = estimate.weights + estimate.states + estimate.weights;
        return geul_os_check_space(job->ctx, job->args->output, bytes) == GEUL_OK ? -1 : geul_report_failure(job->ctx);
    }
    geul_run_print_estimate(job, &estimate);
    if (fits || job->args->plan)
        return fits ? 0 : 1;
    return geul_report_error("the run does not fit into memory; nothing was started");
}

int geul_training_run(struct geul_training *job)
{
    struct geul_run run = {.job = job,
                           .ctx = job->ctx,
                           .saved_at = -1,
                           .state = {.best_loss = INFINITY,
                                     .first_loss = NAN,
                                     .last_loss = NAN,
                                     .began = NAN,
                                     .level = NAN,
                                     .rate_scale = 1,
                                     .sound_step = -1,
                                     .evaluated_step = -1}};
    int code = estimate_run(job);
    if (code >= 0)
        return code;
    job->options.judge = judge;
    job->options.user = &run;
    code = carry_out(&run);
    geul_journal_close(run.log);
    geul_trainer_free(run.trainer);
    geul_watch_free(run.watch);
    geul_free(run.ctx, run.changes);
    return code;
}
