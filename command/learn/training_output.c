/* training_output.c: what a run prints: the estimate before it, the progress line during it, and texts by the model. */
#include "command/learn/training_run.h"

#include "command/progress.h"
#include "command/report.h"
#include "command/terminal.h"

#include "core/bytes.h"
#include "core/os.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SAMPLES = 3, LONGEST_PROMPT = 200, LONGEST_TEXT = 96, BEGINNING = 12 };

/* ---------------------------------------------------------------------------------- estimate -- */

enum geul_status geul_run_estimate(const struct geul_training *job, const struct geul_train_options *o, bool measure,
                                   struct geul_train_estimate *estimate)
{
    const size_t positions = LONGEST_PROMPT + LONGEST_TEXT, half = 2, whole = 4; /* bytes */
    size_t layers = (size_t)job->shape->n_layers, width = (size_t)job->shape->d_model, ff = (size_t)job->shape->d_ff;
    enum geul_status status = geul_train_estimate(job->ctx, o, job->train, measure, estimate);
    if (status != GEUL_OK || job->args->sample_every == 0)
        return status;
    /* The session that writes samples exists beside the trainer: a KV cache in f16, and the activations of one batch in
     * float32 (about 6 rows of width and one of ff per position). The trainer's estimate knows nothing of it. */
    size_t cache = 2 * layers * width * positions * half, values = LONGEST_PROMPT * (6 * width + ff) * whole;
    estimate->other += cache + values;
    estimate->total += cache + values;
    return GEUL_OK;
}

static void print_bytes(const char *name, size_t bytes, const char *what)
{
    char text[32];
    if (bytes)
        printf("%-14s %10s   %s\n", name, geul_bytes_text(bytes, text, sizeof text), what);
}

/* A change of the options that takes less memory, and how to ask for it on the command line. */
struct remedy {
    const char *words;
    void (*change)(struct geul_train_options *o);
};

static void recompute(struct geul_train_options *o)
{
    o->recompute = GEUL_RECOMPUTE_FULL;
}
static void small_batch(struct geul_train_options *o)
{
    recompute(o);
    o->n_accumulate *= o->n_batch;
    o->n_batch = 1;
}
static void half_context(struct geul_train_options *o)
{
    small_batch(o);
    o->n_context = o->n_context > 1 ? o->n_context / 2 : 512;
}
static void small_states(struct geul_train_options *o)
{
    small_batch(o);
    o->optimizer = GEUL_OPTIMIZER_ADAMW8;
}
static void adapter(struct geul_train_options *o)
{
    small_batch(o);
    o->lora.rank = o->lora.rank ? 4 : 8;
}

/* Tries remedies from the mildest on and names the first that fits. */
static void print_remedy(struct geul_training *job, size_t available)
{
    static const struct remedy remedies[] = {
        {"--recompute full", recompute},
        {"-b 1 with more --accumulate and --recompute full", small_batch},
        {"half of -c, with -b 1 and --recompute full", half_context},
        {"--optimizer adamw8 with -b 1 and --recompute full", small_states},
        {"an adapter of low rank on a quantized model (geul finetune, --rank 8)", adapter},
    };
    char text[32];
    for (size_t i = 0; i < sizeof remedies / sizeof *remedies; i++) {
        struct geul_train_options o = job->options;
        struct geul_train_estimate estimate;
        remedies[i].change(&o);
        if (geul_run_estimate(job, &o, false, &estimate) != GEUL_OK) {
            geul_error_clear(job->ctx);
            continue;
        }
        if (estimate.total <= available) {
            printf("%-14s %s: %s\n", "would fit", remedies[i].words,
                   geul_bytes_text(estimate.total, text, sizeof text));
            return;
        }
    }
    printf("%-14s nothing tried here fits; use a smaller model or one with fewer bits per weight\n", "would fit");
}

bool geul_run_print_estimate(struct geul_training *job, const struct geul_train_estimate *estimate)
{
    char a[32], b[32];
    bool fits = !estimate->available || estimate->total <= estimate->available;
    printf("%-14s %10lld   of %lld steps with about %lld tokens each\n", "parameters", (long long)estimate->trained,
           (long long)estimate->steps, (long long)estimate->tokens_per_step);
    print_bytes("mapped", estimate->mapped, "the model's file, memory-mapped");
    print_bytes("weights", estimate->weights, "that are trained, float32");
    print_bytes("gradients", estimate->gradients, "");
    print_bytes("states", estimate->states, "of the optimizer");
    print_bytes("activations", estimate->activations,
                job->options.recompute == GEUL_RECOMPUTE_FULL ? "the layers' outputs; the rest is recomputed" : "");
    print_bytes("scratch", estimate->scratch, "of the products");
    print_bytes("other", estimate->other, "the program, its data, the tokenizer");
    printf("%-14s %10s   resident at the peak", "memory", geul_bytes_text(estimate->total, a, sizeof a));
    if (estimate->available)
        printf("; %s are free", geul_bytes_text(estimate->available, b, sizeof b));
    printf("\n");
    if (estimate->seconds_per_step > 0)
        printf("%-14s %8.2f s   per step, %s in all\n", "time", estimate->seconds_per_step,
               geul_progress_time(estimate->seconds_per_step * (double)estimate->steps, a, sizeof a));
    if (!fits)
        print_remedy(job, estimate->available);
    fflush(stdout);
    return fits;
}

/* ---------------------------------------------------------------------------------- progress -- */

static bool line_shown;

void geul_run_hide(void)
{
    if (line_shown)
        fprintf(stderr, "\r%*s\r", geul_terminal_width(STDERR_FILENO) - 1, "");
    line_shown = false;
}

void geul_run_show(struct geul_run *run, const struct geul_train_report *r)
{
    enum { EVERY = 10 /* seconds between lines where there is no terminal */ };
    bool terminal = geul_terminal_on_stderr();
    double now = geul_os_seconds(), speed = (double)r->tokens / r->seconds;
    int64_t steps = geul_trainer_total_steps(run->trainer), left = steps - r->step;
    char line[256], time[32];
    run->speed = run->speed > 0 ? 0.9 * run->speed + 0.1 * speed : speed;
    if (now - run->shown < (terminal ? 0.2 : EVERY) && r->step != steps)
        return;
    run->shown = now;
    double seconds = (double)left * (double)r->tokens / run->speed;
    int n = snprintf(line, sizeof line, "step %lld/%lld  loss %.4f  |g| %.3g  rate %.2e  %.0f tokens/s  %s left",
                     (long long)r->step, (long long)steps, r->loss, r->grad_norm, r->rate, run->speed,
                     geul_progress_time(seconds, time, sizeof time));
    if (!terminal) {
        fprintf(stderr, "%s\n", line);
        return;
    }
    int width = geul_terminal_width(STDERR_FILENO) - 1;
    fprintf(stderr, "\r%-*.*s", width, n < width ? n : width, line);
    line_shown = true;
}

/* ----------------------------------------------------------------------------------- samples -- */

/* The ids of sample i before its first target; for a text whose every token is a target, its first BEGINNING ids. */
static int prompt_of(const struct geul_dataset *d, int64_t i, int32_t *ids)
{
    bool target[LONGEST_PROMPT];
    int n = geul_dataset_length(d, i), first = 1;
    n = n < LONGEST_PROMPT ? n : LONGEST_PROMPT;
    geul_dataset_read(d, i, n, ids, target);
    while (first < n && !target[first])
        first++;
    return first > 1 ? first : n < BEGINNING ? n : BEGINNING;
}

/* Continues ids greedily and logs the text; *why says what is wrong with it, NULL: nothing. */
static enum geul_status write_one(struct geul_run *run, struct geul_session *session, const int32_t *ids, int n,
                                  const char **why)
{
    const struct geul_tokenizer *tok = geul_model_get_tokenizer(geul_trainer_model(run->trainer));
    struct geul_sampling greedy = {.temperature = 0, .top_p = 1, .typical_p = 1, .repeat_penalty = 1};
    struct geul_generation how = {.sampling = &greedy, .max_tokens = LONGEST_TEXT};
    struct geul_generation_result r;
    int64_t step = geul_trainer_steps_done(run->trainer);
    *why = NULL;
    enum geul_status status = geul_generate_ids(session, ids, n, &how, &r);
    if (status == GEUL_ERROR_FORMAT) { /* no logit is a finite number: the next steps will tell */
        *why = "no logits";
        geul_error_clear(run->ctx);
        return GEUL_OK;
    }
    if (status != GEUL_OK)
        return status;
    size_t length;
    char *prompt = geul_detokenize(run->ctx, tok, ids, (size_t)n, false, &length);
    if (r.reason == GEUL_STOP_CALLER) /* Ctrl-C: a part of a text is not a sample */
        status = geul_fail(run->ctx, GEUL_ERROR_CANCELLED, "stopped");
    else
        status = prompt ? geul_journal_sample(run->log, step, prompt, r.text) : geul_error_status(run->ctx);
    *why = geul_watch_text(r.text, r.text_length);
    geul_text_free(run->ctx, prompt);
    geul_text_free(run->ctx, r.text);
    geul_tokens_free(run->ctx, r.tokens);
    return status;
}

enum geul_status geul_run_write_samples(struct geul_run *run)
{
    struct geul_model *model = geul_trainer_model(run->trainer);
    const struct geul_dataset *d =
        run->job->held_out && geul_dataset_sample_count(run->job->held_out) > 0 ? run->job->held_out : run->job->train;
    int32_t ids[LONGEST_PROMPT];
    if (!geul_model_get_tokenizer(model))
        return GEUL_OK;
    struct geul_session_options o = {.n_context = LONGEST_PROMPT + LONGEST_TEXT, .n_batch = LONGEST_PROMPT};
    struct geul_session *session = geul_session_new(run->ctx, model, &o);
    enum geul_status status = session ? GEUL_OK : geul_error_status(run->ctx);
    const char *why = NULL, *last = NULL;
    char text[96];
    int n = 0, broken = 0;
    for (; status == GEUL_OK && n < SAMPLES && n < geul_dataset_sample_count(d); n++) {
        status = write_one(run, session, ids, prompt_of(d, n, ids), &why);
        broken += why != NULL;
        last = why ? why : last;
    }
    geul_session_free(session);
    if (status != GEUL_OK || !broken)
        return status;
    snprintf(text, sizeof text, "%d of %d texts: %s", broken, n, last);
    return geul_journal_event(run->log, geul_trainer_steps_done(run->trainer), "broken generation", text);
}
