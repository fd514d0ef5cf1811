/* test_threads.c: sessions of one model in several threads, and cancelling. */
#include "core/os.h"
#include "tests/models/rig.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>

#define PROMPT "### 질문: 심심해\n\n### 답변:"

enum { LONG = 400, REST = 8 };

/* A model that threads share, with a context for it alone. */
struct shared {
    struct geul_context *ctx;
    struct geul_model *model;
};

static bool shared_open(struct shared *s)
{
    s->ctx = geul_context_new(NULL);
    s->model = geul_model_load(s->ctx, test_mini_model(), &(struct geul_model_options){.n_threads = 1});
    return CHECK_MSG(s->model != NULL, "%s", geul_error(s->ctx));
}

static void shared_close(struct shared *s)
{
    geul_model_free(s->model);
    geul_context_free(s->ctx);
}

/* One thread's session, and what it is to do. */
struct user {
    const struct geul_model *model;
    int n_threads, rounds;
    pthread_t thread;
    struct geul_context *ctx;
    struct geul_session *session;
    char text[4096]; /* of all rounds */
    atomic_bool done;
};

static bool user_open(struct user *u)
{
    struct geul_session_options o = {.n_context = LONG + REST + 8, .n_batch = 64, .n_threads = u->n_threads};
    u->ctx = geul_context_new(NULL);
    u->session = geul_session_new(u->ctx, u->model, &o);
    return u->session != NULL;
}

static void user_close(struct user *u)
{
    geul_session_free(u->session);
    geul_context_free(u->ctx);
}

/* Appends to u->text what the model says. */
static void *generate(void *user)
{
    struct user *u = user;
    for (int i = 0; i < u->rounds; i++) {
        struct geul_sampling sampling = geul_sampling_default();
        sampling.seed = (uint64_t)i;
        struct geul_generation how = {.sampling = &sampling, .max_tokens = 24, .ignore_end_token = true};
        struct geul_generation_result r;
        if (geul_generate(u->session, PROMPT, &how, &r) != GEUL_OK) {
            snprintf(u->text, sizeof u->text, "%s", geul_error(u->ctx));
            return NULL;
        }
        strncat(u->text, r.text, sizeof u->text - strlen(u->text) - 1);
        geul_tokens_free(u->ctx, r.tokens);
        geul_text_free(u->ctx, r.text);
        geul_session_truncate(u->session, 0, 0);
    }
    u->done = true;
    return NULL;
}

static void fill(int32_t *ids, int n, uint64_t seed)
{
    for (int i = 0; i < n; i++)
        ids[i] = (int32_t)(10 + test_random(&seed) % 1000);
}

/* Cancels a context again and again, at times that differ. */
struct nuisance {
    struct geul_context *ctx;
    atomic_bool stop;
};

static void *cancel_often(void *user)
{
    struct nuisance *n = user;
    uint64_t seed = 3;
    while (!n->stop) {
        double until = geul_os_seconds() + test_uniform(&seed, 0, 0.03);
        while (geul_os_seconds() < until)
            sched_yield();
        geul_context_cancel(n->ctx);
    }
    return NULL;
}

/* Sessions with 1 to 4 threads each, all at once: the same text from all of them. */
TEST(threads_of_sessions_that_share_a_model)
{
    struct shared s;
    REQUIRE(shared_open(&s));
    static struct user users[6];
    for (int i = 0; i < 6; i++) {
        users[i] = (struct user){.model = s.model, .n_threads = i % 5, .rounds = 3};
        REQUIRE(user_open(&users[i]));
    }
    generate(&users[0]);
    CHECK(users[0].done && strlen(users[0].text) > 100);
    for (int i = 1; i < 6; i++)
        REQUIRE(pthread_create(&users[i].thread, NULL, generate, &users[i]) == 0);
    for (int i = 1; i < 6; i++) {
        pthread_join(users[i].thread, NULL);
        CHECK_STR(users[i].text, users[0].text);
    }
    for (int i = 0; i < 6; i++)
        user_close(&users[i]);
    shared_close(&s);
}

/* Four sessions in four threads, one of which a fifth thread cancels again and again: the others do not notice. */
TEST(threads_of_four_sessions_and_a_cancel)
{
    struct shared s;
    REQUIRE(shared_open(&s));
    static struct user alone, users[4];
    alone = (struct user){.model = s.model, .rounds = 2};
    REQUIRE(user_open(&alone));
    generate(&alone);
    for (int i = 0; i < 4; i++) {
        users[i] = (struct user){.model = s.model, .n_threads = 1 + i % 2, .rounds = 2};
        REQUIRE(user_open(&users[i]));
    }
    struct nuisance n = {.ctx = users[3].ctx};
    pthread_t fifth;
    REQUIRE(pthread_create(&fifth, NULL, cancel_often, &n) == 0);
    for (int i = 0; i < 4; i++)
        REQUIRE(pthread_create(&users[i].thread, NULL, generate, &users[i]) == 0);
    for (int i = 0; i < 4; i++)
        pthread_join(users[i].thread, NULL);
    n.stop = true;
    pthread_join(fifth, NULL);
    for (int i = 0; i < 3; i++)
        CHECK_STR(users[i].text, alone.text);
    for (int i = 0; i < 4; i++)
        user_close(&users[i]);
    user_close(&alone);
    shared_close(&s);
}

/* One thread's trainer. */
struct learner {
    pthread_t thread;
    double loss; /* after the last step; NaN: it failed */
};

static void *learn(void *user)
{
    enum { TOKENS = 48 };
    struct learner *l = user;
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_dataset *data = geul_dataset_new(ctx);
    struct geul_train_options o = geul_train_options_default();
    struct geul_train_report r = {.loss = NAN};
    int32_t ids[TOKENS];
    fill(ids, TOKENS, 5);
    o.model_path = test_mini_model();
    o.n_threads = 2;
    o.n_context = TOKENS;
    o.n_batch = 1;
    o.steps = 3;
    o.lora = (struct geul_lora_options){.rank = 4, .alpha = 8, .targets = GEUL_LORA_ALL};
    struct geul_trainer *t =
        geul_dataset_add(data, ids, NULL, TOKENS) == GEUL_OK ? geul_trainer_new(ctx, &o, data) : NULL;
    while (t && geul_trainer_steps_done(t) < 3 && geul_trainer_step(t, &r) == GEUL_OK)
        continue;
    l->loss = t && geul_trainer_steps_done(t) == 3 ? r.loss : NAN;
    geul_trainer_free(t);
    geul_dataset_free(data);
    geul_context_free(ctx);
    return NULL;
}

TEST(threads_of_two_trainers)
{
    struct learner l[2];
    for (int i = 0; i < 2; i++)
        REQUIRE(pthread_create(&l[i].thread, NULL, learn, &l[i]) == 0);
    for (int i = 0; i < 2; i++)
        pthread_join(l[i].thread, NULL);
    CHECK_MSG(l[0].loss == l[1].loss && isfinite(l[0].loss), "losses %.17g and %.17g", l[0].loss, l[1].loss);
}

TEST(threads_of_a_session_are_checked)
{
    struct shared s;
    REQUIRE(shared_open(&s));
    CHECK(geul_session_new(s.ctx, s.model, &(struct geul_session_options){.n_threads = -1}) == NULL);
    CHECK_STR(geul_error(s.ctx), "n_threads is -1, not 0 to 1024");
    CHECK(geul_session_new(s.ctx, s.model, &(struct geul_session_options){.n_threads = 1025}) == NULL);
    shared_close(&s);
}

/* -------------------------------------------------------------------------------- cancelling -- */

/* The logits after LONG + REST tokens, computed without any cancel. */
static float *undisturbed(struct user *u, const int32_t *ids, int n_vocab)
{
    const float *logits;
    float *copy = malloc((size_t)n_vocab * sizeof *copy);
    if (!CHECK(geul_session_append(u->session, 0, ids, LONG + REST, &logits) == GEUL_OK))
        memset(copy, 0, (size_t)n_vocab * sizeof *copy);
    else
        memcpy(copy, logits, (size_t)n_vocab * sizeof *copy);
    geul_session_truncate(u->session, 0, 0);
    return copy;
}

TEST(cancel_counts_once_and_keeps_lengths)
{
    struct shared s;
    REQUIRE(shared_open(&s));
    struct user u = {.model = s.model, .n_threads = 2};
    REQUIRE(user_open(&u));
    int n_vocab = geul_model_get_shape(s.model)->n_vocab;
    int32_t ids[LONG + REST];
    const float *logits;
    fill(ids, LONG + REST, 7);
    float *want = undisturbed(&u, ids, n_vocab);
    CHECK(geul_session_append(u.session, 0, ids, LONG, NULL) == GEUL_OK);
    geul_context_cancel(u.ctx); /* nothing is computed: it counts for the next call */
    CHECK(geul_session_append(u.session, 0, ids + LONG, REST, &logits) == GEUL_ERROR_CANCELLED);
    CHECK_STR(geul_error(u.ctx), "cancelled");
    CHECK_INT(geul_session_length(u.session, 0), LONG);
    geul_context_cancel(u.ctx);
    geul_context_uncancel(u.ctx);
    CHECK(geul_session_append(u.session, 0, ids + LONG, REST, &logits) == GEUL_OK);
    CHECK_INT(geul_session_length(u.session, 0), LONG + REST);
    CHECK(memcmp(logits, want, (size_t)n_vocab * sizeof *want) == 0);
    free(want);
    user_close(&u);
    shared_close(&s);
}

/* Cancelled anywhere, with 1 to 3 threads: every call either succeeds or leaves the session as it was, and in the end
 * the logits have the bits of a session that nobody disturbed. */
TEST(cancel_at_any_time_leaves_no_trace)
{
    struct shared s;
    REQUIRE(shared_open(&s));
    int n_vocab = geul_model_get_shape(s.model)->n_vocab, cancelled = 0;
    int32_t ids[LONG + REST];
    const float *logits;
    fill(ids, LONG + REST, 8);
    for (int n_threads = 1; n_threads <= 3; n_threads++) {
        struct user u = {.model = s.model, .n_threads = n_threads}, other = u;
        REQUIRE(user_open(&u) && user_open(&other));
        float *want = undisturbed(&u, ids, n_vocab);
        struct nuisance n = {.ctx = u.ctx};
        pthread_t thread;
        REQUIRE(pthread_create(&thread, NULL, cancel_often, &n) == 0);
        for (int i = 0; i < 30; i++) {
            geul_session_truncate(u.session, 0, 0);
            enum geul_status status = geul_session_append(u.session, 0, ids, LONG, NULL);
            cancelled += status == GEUL_ERROR_CANCELLED;
            CHECK(status == GEUL_OK || status == GEUL_ERROR_CANCELLED);
            CHECK_INT(geul_session_length(u.session, 0), status == GEUL_OK ? LONG : 0);
        }
        CHECK(geul_session_append(other.session, 0, ids, LONG, NULL) == GEUL_OK); /* the same model, not cancelled */
        n.stop = true;
        pthread_join(thread, NULL);
        geul_context_uncancel(u.ctx);
        geul_session_truncate(u.session, 0, 0);
        CHECK(geul_session_append(u.session, 0, ids, LONG + REST, &logits) == GEUL_OK);
        CHECK(memcmp(logits, want, (size_t)n_vocab * sizeof *want) == 0);
        free(want);
        user_close(&u);
        user_close(&other);
    }
    printf("%d of 90 cancelled\n", cancelled);
    CHECK(cancelled > 0);
    shared_close(&s);
}

/* A callback that cancels its context when the text is long enough. */
struct listener {
    struct geul_context *ctx;
    size_t heard;
};

static bool listen(void *user, const char *text, size_t length)
{
    struct listener *l = user;
    (void)text;
    l->heard += length;
    if (l->heard > 20)
        geul_context_cancel(l->ctx);
    return true;
}

/* While the prompt is read it is a failure; then the text so far is the result, and the session continues it. */
TEST(cancel_ends_a_text)
{
    struct shared s;
    REQUIRE(shared_open(&s));
    struct user u = {.model = s.model, .rounds = 1}, whole = u;
    REQUIRE(user_open(&u) && user_open(&whole));
    generate(&whole);
    struct geul_sampling sampling = geul_sampling_default();
    struct listener l = {.ctx = u.ctx};
    struct geul_generation how = {
        .sampling = &sampling, .max_tokens = 24, .ignore_end_token = true, .on_text = listen, .user = &l};
    struct geul_generation_result r;
    geul_context_cancel(u.ctx);
    CHECK(geul_generate(u.session, PROMPT, &how, &r) == GEUL_ERROR_CANCELLED && !r.text && l.heard == 0);
    CHECK_INT(geul_session_length(u.session, 0), 0);
    REQUIRE(geul_generate(u.session, PROMPT, &how, &r) == GEUL_OK);
    CHECK_STR(geul_error(u.ctx), "");
    CHECK_INT(r.reason, GEUL_STOP_CALLER);
    CHECK(r.text_length > 20 && r.text_length < strlen(whole.text));
    CHECK(strncmp(r.text, whole.text, r.text_length) == 0);
    CHECK_INT(geul_session_length(u.session, 0), r.n_prompt + r.n_generated - 1);
    geul_tokens_free(u.ctx, r.tokens);
    geul_text_free(u.ctx, r.text);
    how.on_text = NULL; /* the cancel has had its effect: the same prompt goes through, from what the session holds */
    REQUIRE(geul_generate(u.session, PROMPT, &how, &r) == GEUL_OK);
    CHECK_STR(r.text, whole.text);
    CHECK_INT(r.n_reused, r.n_prompt - 1);
    geul_tokens_free(u.ctx, r.tokens);
    geul_text_free(u.ctx, r.text);
    user_close(&u);
    user_close(&whole);
    shared_close(&s);
}

static struct geul_context *signalled;

static void on_alarm(int signal_number)
{
    (void)signal_number;
    geul_context_cancel(signalled);
}

TEST(cancel_from_a_signal_handler)
{
    struct shared s;
    REQUIRE(shared_open(&s));
    struct user u = {.model = s.model, .n_threads = 2};
    REQUIRE(user_open(&u));
    int32_t ids[LONG];
    fill(ids, LONG, 9);
    signalled = u.ctx;
    signal(SIGALRM, on_alarm);
    enum geul_status status = GEUL_OK;
    for (int i = 0; i < 200 && status == GEUL_OK; i++) {
        struct itimerval soon = {.it_value = {.tv_usec = 2000}};
        setitimer(ITIMER_REAL, &soon, NULL);
        status = geul_session_append(u.session, 0, ids, LONG, NULL);
        geul_session_truncate(u.session, 0, 0);
    }
    CHECK_INT(status, GEUL_ERROR_CANCELLED);
    user_close(&u);
    shared_close(&s);
}
