/* bench_threads.c: sessions of one model that compute at the same time, and how soon a cancelled call returns.
 *
 *     bench_threads MODEL.gguf together     one session alone, then two in two threads, all with one thread each
 *     bench_threads MODEL.gguf cancel       a prompt, a token, a training step: cancelled at random moments
 *
 * Together: the median of alternating repetitions of what two sessions compute in the time of one. Cancel: median and
 * longest time from geul_context_cancel() in another thread to the call's return, with all cores. */
#include "geul.h"

#include "core/os.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { REPEATS = 9, PROMPT = 512, TRIES = 15, ATTEMPTS = 1000 };

static struct geul_context *ctx; /* of the model */
static struct geul_model *model;
static int32_t ids[PROMPT];

static _Noreturn void fail(const struct geul_context *c)
{
    fprintf(stderr, "bench_threads: %s\n", geul_error(c));
    exit(1);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_size);
    return v[n / 2];
}

/* ---------------------------------------------------------------------------------- together -- */

/* One thread's session, and what it computes, so many rounds: n_prompt tokens at once, then n_tokens one by one. */
struct user {
    struct geul_context *ctx;
    struct geul_session *session;
    int n_prompt, n_tokens, rounds;
};

static void open_user(struct user *u, int n_threads)
{
    struct geul_session_options o = {
        .n_context = PROMPT + 64, .n_batch = PROMPT, .cache_type = GEUL_TYPE_F16, .n_threads = n_threads};
    u->ctx = geul_context_new(NULL);
    u->session = geul_session_new(u->ctx, model, &o);
    if (!u->session)
        fail(u->ctx);
}

static void close_user(struct user *u)
{
    geul_session_free(u->session);
    geul_context_free(u->ctx);
}

static void *compute(void *user)
{
    struct user *u = user;
    for (int r = 0; r < u->rounds; r++) {
        geul_session_truncate(u->session, 0, 0);
        for (int i = 0; i <= u->n_tokens; i++)
            if (geul_session_append(u->session, 0, ids + i, i == 0 ? u->n_prompt : 1, NULL) != GEUL_OK)
                fail(u->ctx);
    }
    return NULL;
}

static double seconds_alone(struct user *u)
{
    double start = geul_os_seconds();
    compute(u);
    return geul_os_seconds() - start;
}

static double seconds_together(struct user *u)
{
    pthread_t other;
    double start = geul_os_seconds();
    if (pthread_create(&other, NULL, compute, &u[1]) != 0)
        exit(1);
    compute(&u[0]);
    pthread_join(other, NULL);
    return geul_os_seconds() - start;
}

static void measure_together(const char *what, int n_prompt, int n_tokens)
{
    const double least = 0.4; /* seconds of one measurement */
    struct user u[2] = {{.n_prompt = n_prompt, .n_tokens = n_tokens, .rounds = 1}};
    u[1] = u[0];
    double alone[REPEATS], together[REPEATS], ratio[REPEATS];
    open_user(&u[0], 1);
    open_user(&u[1], 1);
    seconds_together(u); /* the file's pages and all memory are there afterwards */
    u[0].rounds = u[1].rounds = 1 + (int)(least / seconds_alone(&u[0]));
    for (int i = 0; i < REPEATS; i++) {
        double before = seconds_alone(&u[0]);
        together[i] = seconds_together(u);
        alone[i] = (before + seconds_alone(&u[1])) / 2;
        ratio[i] = 2 * alone[i] / together[i];
    }
    double middle = median(ratio, REPEATS);
    printf("%-10s one alone %.4f s, two together %.4f s: %.2f times one alone (%.2f to %.2f)\n", what,
           median(alone, REPEATS), median(together, REPEATS), middle, ratio[0], ratio[REPEATS - 1]);
    close_user(&u[0]);
    close_user(&u[1]);
}

/* ------------------------------------------------------------------------------------ cancel -- */

/* A thread that cancels `target` after `delay` seconds. */
struct canceller {
    struct geul_context *target;
    double delay;
    double at; /* when it did */
};

static void *cancel_later(void *user)
{
    struct canceller *c = user;
    struct timespec wait = {(time_t)c->delay, (long)((c->delay - (double)(time_t)c->delay) * 1e9)};
    nanosleep(&wait, NULL);
    c->at = geul_os_seconds();
    geul_context_cancel(c->target);
    return NULL;
}

/* Runs work and cancels it at a random moment, until TRIES calls were cancelled. */
static void measure_cancel(const char *what, struct geul_context *target, enum geul_status (*work)(void *user),
                           void *user)
{
    double latency[TRIES], start = geul_os_seconds();
    int n = 0;
    uint32_t state = 1;
    if (work(user) != GEUL_OK)
        fail(target);
    double lasts = geul_os_seconds() - start;
    for (int i = 0; i < ATTEMPTS && n < TRIES; i++) {
        state = state * 1664525 + 1013904223;
        struct canceller c = {.target = target, .delay = lasts * (double)(state >> 8) / (1 << 24)};
        pthread_t thread;
        if (pthread_create(&thread, NULL, cancel_later, &c) != 0)
            exit(1);
        enum geul_status status = work(user);
        double end = geul_os_seconds();
        pthread_join(thread, NULL);
        geul_context_uncancel(target);
        if (status == GEUL_ERROR_CANCELLED)
            latency[n++] = 1000 * (end - c.at);
        else if (status != GEUL_OK)
            fail(target);
    }
    if (n == 0)
        return;
    double middle = median(latency, n);
    printf("%-28s lasts %8.1f ms; cancelled %d times: median %.2f ms, longest %.2f ms\n", what, 1000 * lasts, n, middle,
           latency[n - 1]);
}

static enum geul_status append(void *user)
{
    struct user *u = user;
    geul_session_truncate(u->session, 0, 0);
    return geul_session_append(u->session, 0, ids, u->n_prompt, NULL);
}

static enum geul_status train(void *user)
{
    return geul_trainer_step(user, NULL);
}

static void measure_training(const char *path)
{
    struct geul_context *c = geul_context_new(NULL);
    struct geul_dataset *data = geul_dataset_new(c);
    struct geul_train_options o = geul_train_options_default();
    o.model_path = path;
    o.lora.rank = 8;
    o.lora.alpha = 16;
    o.lora.targets = GEUL_LORA_QKV;
    o.n_context = PROMPT - 1;
    o.n_batch = 1;
    o.steps = 1000;
    struct geul_trainer *t =
        data && geul_dataset_add(data, ids, NULL, PROMPT) == GEUL_OK ? geul_trainer_new(c, &o, data) : NULL;
    if (!t)
        fail(c);
    measure_cancel("training step, 511 tokens", c, train, t);
    geul_trainer_free(t);
    geul_dataset_free(data);
    geul_context_free(c);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: bench_threads MODEL.gguf together|cancel\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    ctx = geul_context_new(NULL);
    model = geul_model_load(ctx, argv[1], NULL);
    if (!model)
        fail(ctx);
    for (int i = 0; i < PROMPT; i++)
        ids[i] = 3 + i * 7919 % (geul_model_get_shape(model)->n_vocab - 3);
    if (strcmp(argv[2], "together") == 0) {
        measure_together("prompt", 256, 0);
        measure_together("generation", 8, 48);
    } else {
        struct user u = {.n_prompt = PROMPT};
        open_user(&u, 0);
        measure_cancel("prompt of 512 tokens", u.ctx, append, &u);
        u.n_prompt = 1;
        measure_cancel("one token", u.ctx, append, &u);
        close_user(&u);
        measure_training(argv[1]);
    }
    geul_model_free(model);
    geul_context_free(ctx);
    return 0;
}
