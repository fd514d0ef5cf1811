/* test_trainer.c: gradients and steps against what transformers and PyTorch computed (tests/golden), and against each
 * other where one way must equal another. */
#include "geul_tools.h"
#include "core/gguf.h"
#include "core/os.h"
#include "quantize/quantize_tensors.h"
#include "tests/models/golden.h"
#include "tests/poison.h"
#include "train/trainer.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

static const char *const trained[] = {"parallel", "sequential", "odd_sizes", "tied"};
enum { N_TRAINED = sizeof trained / sizeof *trained };

/* A golden under training. */
struct bed {
    struct geul_context *ctx;
    struct golden g;
    struct geul_dataset *data;
    struct geul_trainer *t;
};

/* The options of tests/golden's ten AdamW steps. */
static struct geul_train_options golden_options(const char *path)
{
    struct geul_train_options o = geul_train_options_default();
    o.model_path = path;
    o.n_threads = 2;
    o.n_batch = 1;
    o.packing = false;
    o.rate = 1e-3f;
    o.schedule = GEUL_RATE_CONSTANT;
    o.warmup = 0;
    o.clip = 0;
    o.steps = 10;
    return o;
}

/* data: two copies of the golden's tokens when twice. */
static bool bed_open(struct bed *b, const char *name)
{
    *b = (struct bed){.ctx = geul_context_new(NULL)};
    if (!golden_open(name, &b->g))
        return false;
    b->data = geul_dataset_new(b->ctx);
    return CHECK(geul_dataset_add(b->data, b->g.tokens.i32, NULL, (int)b->g.tokens.count) == GEUL_OK);
}

static bool bed_train(struct bed *b, const struct geul_train_options *o)
{
    b->t = geul_trainer_new(b->ctx, o, b->data);
    return CHECK_MSG(b->t != NULL, "%s", geul_error(b->ctx));
}

static void bed_close(struct bed *b)
{
    geul_trainer_free(b->t);
    geul_dataset_free(b->data);
    golden_close(&b->g);
    geul_context_free(b->ctx);
}

/* The reference's gradients as a GGUF file: a checkpoint whose weights they are, converted like any other. */
static const char *reference_gradients(const char *name)
{
    char relative[64];
    static const char *const files[][2] = {{"config.json", "config.json"}, {"grads.safetensors", "model.safetensors"}};
    const char *dir = test_scratch("grads-hf");
    struct geul_context *ctx = geul_context_new(NULL);
    for (int i = 0; i < 2; i++) {
        size_t size;
        char path[512];
        snprintf(relative, sizeof relative, "golden/%s/%s", name, files[i][0]);
        char *data = test_slurp(test_path(relative), &size);
        snprintf(path, sizeof path, "%s/%s", dir, files[i][1]);
        CHECK(geul_os_make_directory(ctx, dir) == GEUL_OK && data && test_spill(path, data, size));
        free(data);
    }
    const char *path = test_scratch("grads.gguf");
    struct geul_convert_options options = {.size = sizeof options, .type = GEUL_TYPE_F32, .n_threads = 1};
    CHECK_MSG(geul_convert_hf(ctx, dir, path, &options) == GEUL_OK, "%s", geul_error(ctx));
    geul_context_free(ctx);
    return path;
}

/* Gradients of the golden's loss into the trainer's parameters; returns the mean loss. */
static double run_gradients(struct bed *b)
{
    double sum = NAN;
    struct geul_batch *batch = &b->t->batches[0];
    b->t->batcher.position = 0;
    geul_batcher_next(&b->t->batcher, batch, INT64_MAX);
    float weight = (float)(1.0 / (double)batch->n_targets);
    CHECK_MSG(geul_batch_graph_run(b->t, &b->t->train, batch, weight, 7, &sum) == GEUL_OK, "%s", geul_error(b->ctx));
    return sum / (double)batch->n_targets;
}

/* Largest difference of two tensors relative to the largest value, and to the norm. */
static double distance(const float *a, const float *b, size_t n)
{
    double d2 = 0, b2 = 0, most = 0, largest = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)a[i] - (double)b[i];
        d2 += d * d;
        b2 += (double)b[i] * (double)b[i];
        most = fmax(most, fabs(d));
        largest = fmax(largest, fabs((double)b[i]));
    }
    return fmax(sqrt(d2 / (b2 + 1e-30)), most / (largest + 1e-30));
}

/* The values of a tensor; malloc()ed. */
static float *values_of(const struct geul_tensor *t)
{
    float *v = malloc(geul_tensor_bytes(t) + 1);
    CHECK(geul_tensor_read(t, v, geul_tensor_bytes(t)) == GEUL_OK);
    return v;
}

static void check_gradients(const char *name, enum geul_recompute recompute)
{
    struct bed b;
    REQUIRE(bed_open(&b, name));
    struct geul_train_options o = golden_options(golden_convert(&b.g, GEUL_TYPE_F32));
    o.recompute = recompute;
    REQUIRE(bed_train(&b, &o));
    char relative[64];
    struct test_npy want;
    snprintf(relative, sizeof relative, "golden/%s/loss.npy", name);
    REQUIRE(test_npy_read(test_path(relative), &want));
    double loss = run_gradients(&b);
    CHECK_MSG(fabs(loss - (double)want.f32[0]) < 1e-5, "%s: loss %.7f, not %.7f", name, loss, (double)want.f32[0]);
    test_npy_free(&want);
    struct geul_gguf *ref = geul_gguf_open(b.ctx, reference_gradients(name));
    REQUIRE(ref);
    for (int i = 0; i < b.t->params.n; i++) {
        const struct geul_param *p = &b.t->params.items[i];
        const struct geul_gguf_tensor *r = geul_gguf_find_tensor(ref, p->weight->name);
        float *got = values_of(p->gradient);
        if (CHECK_MSG(r != NULL, "%s has no reference", p->weight->name)) {
            double d = distance(got, (const float *)r->data, (size_t)geul_tensor_elements(p->gradient));
            printf("  %s %s: %.1e\n", name, p->weight->name, d);
            CHECK_MSG(d < 1e-4, "%s %s: relative error %.2e", name, p->weight->name, d);
        }
        free(got);
    }
    geul_gguf_close(ref);
    bed_close(&b);
}

TEST(train_gradients_equal_pytorch)
{
    for (int i = 0; i < N_TRAINED; i++)
        check_gradients(trained[i], GEUL_RECOMPUTE_NONE);
}

TEST(train_recomputed_gradients_equal_pytorch)
{
    for (int i = 0; i < N_TRAINED; i++)
        for (int how = GEUL_RECOMPUTE_LIGHT; how <= GEUL_RECOMPUTE_FULL; how++)
            check_gradients(trained[i], (enum geul_recompute)how);
}

/* The loss before each of ten steps and after the last. */
static void check_curve(const char *name, enum geul_precision precision, double tolerance)
{
    struct bed b;
    char relative[64];
    struct test_npy want;
    REQUIRE(bed_open(&b, name));
    struct geul_train_options o = golden_options(golden_convert(&b.g, GEUL_TYPE_F32));
    o.precision = precision;
    snprintf(relative, sizeof relative, "golden/%s/adamw.npy", name);
    REQUIRE(bed_train(&b, &o) && test_npy_read(test_path(relative), &want));
    for (int i = 0; i < 10; i++) {
        struct geul_train_report r;
        REQUIRE(CHECK_MSG(geul_trainer_step(b.t, &r) == GEUL_OK, "%s", geul_error(b.ctx)));
        double d = fabs(r.loss - (double)want.f32[i]);
        printf("  %s step %d: %.6f, PyTorch %.6f\n", name, i + 1, r.loss, (double)want.f32[i]);
        CHECK_MSG(d < tolerance, "%s step %d: loss %.6f, not %.6f", name, i + 1, r.loss, (double)want.f32[i]);
    }
    double last;
    CHECK(geul_trainer_evaluate(b.t, b.data, &last) == GEUL_OK);
    CHECK_MSG(fabs(last - (double)want.f32[10]) < tolerance, "%s at last: %.6f, not %.6f", name, last,
              (double)want.f32[10]);
    test_npy_free(&want);
    bed_close(&b);
}

TEST(train_adamw_follows_pytorch)
{
    for (int i = 0; i < N_TRAINED; i++)
        check_curve(trained[i], GEUL_PRECISION_F32, 1e-4);
}

TEST(train_adamw_in_bf16_stays_near_pytorch)
{
    for (int i = 0; i < N_TRAINED; i++)
        check_curve(trained[i], GEUL_PRECISION_BF16, 1e-2);
}

/* ----------------------------------------------------------------------------------- batches -- */

/* Weights after two steps over four samples of different lengths; malloc()ed. */
static float *two_steps(struct bed *b, struct geul_train_options o, double *loss, size_t *n)
{
    struct geul_train_report r = {.loss = NAN};
    struct geul_trainer *t = geul_trainer_new(b->ctx, &o, b->data);
    float *all = NULL;
    *n = 0;
    if (!CHECK_MSG(t != NULL, "%s", geul_error(b->ctx)))
        return NULL;
    for (int i = 0; i < 2; i++)
        CHECK(geul_trainer_step(t, &r) == GEUL_OK && r.samples == 4);
    *loss = r.loss;
    for (int i = 0; i < t->params.n; i++) {
        float *v = values_of(t->params.items[i].weight);
        size_t count = (size_t)geul_tensor_elements(t->params.items[i].weight);
        all = realloc(all, (*n + count) * sizeof *all);
        memcpy(all + *n, v, count * sizeof *all);
        *n += count;
        free(v);
    }
    geul_trainer_free(t);
    return all;
}

/* However four samples are dealt to batches, a step learns the mean over all their targets. */
TEST(train_does_not_depend_on_how_a_step_is_cut)
{
    static const struct {
        int n_batch, n_accumulate, n_context;
        bool packing; /* four samples of 94 tokens fit, the next ones do not */
    } cuts[] = {{4, 1, 40, false}, {2, 2, 40, false}, {1, 4, 40, false}, {1, 1, 100, true}};
    struct bed b;
    float *want = NULL;
    size_t n_want = 0;
    double loss_want = NAN;
    REQUIRE(bed_open(&b, "parallel"));
    for (int i = 0; i < 3; i++) {
        bool target[32];
        for (int k = 0; k < 32; k++)
            target[k] = k > 5 * i;
        CHECK(geul_dataset_add(b.data, b.g.tokens.i32 + 2 * i, target, 28 - 6 * i) == GEUL_OK);
    }
    struct geul_train_options o = golden_options(golden_convert(&b.g, GEUL_TYPE_F32));
    o.optimizer = GEUL_OPTIMIZER_SGD; /* AdamW makes much of the smallest differences */
    o.rate = 0.01f;
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        size_t n;
        double loss = NAN;
        o.n_batch = cuts[i].n_batch;
        o.n_accumulate = cuts[i].n_accumulate;
        o.packing = cuts[i].packing;
        o.n_context = cuts[i].n_context;
        float *got = two_steps(&b, o, &loss, &n);
        REQUIRE(got);
        if (i == 0) {
            want = got;
            n_want = n;
            loss_want = loss;
            continue;
        }
        double d = n == n_want ? distance(got, want, n) : INFINITY;
        CHECK_MSG(d < 1e-6 && fabs(loss - loss_want) < 2e-6, "cut %d: weights differ by %.1e, loss %.7f and %.7f",
                  (int)i, d, loss, loss_want);
        free(got);
    }
    free(want);
    bed_close(&b);
}

/* ------------------------------------------------------------------------- quantized weights -- */

/* share/geul-mini.gguf with its matrices in another type; the path is static storage. */
static const char *mini_as(struct geul_context *ctx, const char *from, const char *mix, const char *name)
{
    static char paths[2][512];
    static int next;
    char *path = paths[next++ % 2];
    struct geul_quantize_options o = {.size = sizeof o, .mix = geul_mix_find(mix), .n_threads = 1};
    snprintf(path, sizeof paths[0], "%s", test_scratch(name));
    struct geul_quantize *q = geul_quantize_new(ctx, from, &o);
    bool ok = q && geul_quantize_write(q, path) == GEUL_OK;
    geul_quantize_free(q);
    return CHECK_MSG(ok, "%s: %s", mix, geul_error(ctx)) ? path : NULL;
}

/* An adapter's gradients on the weights of a file, one after the other; malloc()ed. B is not zero, so that A has a
 * gradient too. */
static float *adapter_gradients(struct geul_context *ctx, const char *path, const struct geul_dataset *data, size_t *n)
{
    struct geul_train_options o = golden_options(path);
    o.lora.rank = 2;
    o.n_context = 64;
    struct geul_trainer *t = geul_trainer_new(ctx, &o, data);
    uint64_t seed = 5;
    double sum;
    *n = 0;
    if (!CHECK_MSG(t != NULL, "%s", geul_error(ctx)))
        return NULL;
    for (int i = 1; i < t->params.n; i += 2) {
        struct geul_tensor *b = t->params.items[i].weight;
        float *values = values_of(b);
        for (int64_t k = 0; k < geul_tensor_elements(b); k++)
            values[k] = 0.02f * test_normal(&seed);
        CHECK(geul_tensor_write(b, values, geul_tensor_bytes(b)) == GEUL_OK);
        free(values);
    }
    geul_batcher_next(&t->batcher, &t->batches[0], INT64_MAX);
    CHECK(geul_batch_graph_run(t, &t->train, &t->batches[0], 1.0f / 64, 7, &sum) == GEUL_OK);
    float *all = malloc((size_t)t->params.elements * sizeof *all);
    for (int i = 0; i < t->params.n; i++) {
        float *g = values_of(t->params.items[i].gradient);
        size_t count = (size_t)geul_tensor_elements(t->params.items[i].gradient);
        memcpy(all + *n, g, count * sizeof *g);
        *n += count;
        free(g);
    }
    geul_trainer_free(t);
    return all;
}

TEST(train_gradients_beside_quantized_weights)
{
    char mini[512];
    int32_t ids[65];
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_dataset *data = geul_dataset_new(ctx);
    snprintf(mini, sizeof mini, "%s", test_mini_model());
    for (int i = 0; i < 65; i++)
        ids[i] = 4 + i * 37 % 3000;
    CHECK(geul_dataset_add(data, ids, NULL, 65) == GEUL_OK);
    const struct geul_mix *mix;
    for (int i = 0; (mix = geul_mix_at((size_t)i)) != NULL; i++) {
        const char *type = geul_mix_name(mix);
        if (mix == geul_mix_find("f32"))
            continue; /* what the others are compared with */
        size_t n, m;
        const char *small = mini_as(ctx, mini, type, "small.gguf");
        const char *plain = small ? mini_as(ctx, small, "f32", "plain.gguf") : NULL;
        REQUIRE(plain);
        float *a = adapter_gradients(ctx, small, data, &n), *b = adapter_gradients(ctx, plain, data, &m);
        REQUIRE(a && b && n == m && n > 0);
        double d = distance(a, b, n), size = 0;
        for (size_t k = 0; k < n; k++)
            size = fmax(size, fabs((double)a[k]));
        printf("  %s: %.1e of %.3f\n", type, d, size);
        CHECK_MSG(d < 1e-3 && size > 1e-3, "%s: relative error %.2e", type, d);
        free(a);
        free(b);
    }
    geul_dataset_free(data);
    geul_context_free(ctx);
}

/* ---------------------------------------------------------------- devices, threads, adapters -- */

/* Three steps; all weights and states, one after the other; malloc()ed. */
static float *three_steps(struct bed *b, const struct geul_train_options *o, const struct geul_trainer_devices *where,
                          size_t *n)
{
    struct geul_trainer *t = geul_trainer_new_on(b->ctx, o, b->data, where);
    float *all = NULL;
    char name[GEUL_MAX_NAME];
    struct geul_tensor *x;
    *n = 0;
    if (!CHECK_MSG(t != NULL, "%s", geul_error(b->ctx)))
        return NULL;
    for (int i = 0; i < 3; i++)
        CHECK_MSG(geul_trainer_step(t, NULL) == GEUL_OK, "%s", geul_error(b->ctx));
    for (int i = 0; (x = geul_params_saved(&t->params, i, name)); i++) {
        float *v = values_of(x);
        size_t count = geul_tensor_bytes(x) / sizeof *v;
        all = realloc(all, (*n + count) * sizeof *all);
        memcpy(all + *n, v, count * sizeof *all);
        *n += count;
        free(v);
    }
    geul_trainer_free(t);
    return all;
}

/* The same bits as `want` on devices whose memory the host cannot read: layers from `first` on are on the second one.
 */
static void check_devices(struct bed *b, const struct geul_train_options *o, const float *want, size_t n, bool both,
                          int first)
{
    const struct poison_options two_threads = {.n_threads = 2};
    struct geul_device *devices[2] = {both ? poison_open(b->ctx, &two_threads)
                                           : geul_device_open(b->ctx, GEUL_DEVICE_HOST, 2),
                                      poison_open(b->ctx, NULL)};
    struct geul_trainer_devices where = {devices, 2, first};
    size_t m;
    float *got = three_steps(b, o, &where, &m);
    CHECK_MSG(got && m == n && memcmp(got, want, n * sizeof *got) == 0, "other bits on devices (%d, %d)", both, first);
    free(got);
    for (int d = 0; d < 2; d++)
        geul_device_close(b->ctx, devices[d]);
}

static void check_places(const char *name, struct geul_train_options o)
{
    struct bed b;
    size_t n, m;
    REQUIRE(bed_open(&b, name));
    o.model_path = golden_convert(&b.g, GEUL_TYPE_F32);
    o.n_threads = 1;
    float *want = three_steps(&b, &o, NULL, &n);
    REQUIRE(want);
    for (int threads = 2; threads < 6; threads += 3) {
        o.n_threads = threads;
        float *got = three_steps(&b, &o, NULL, &m);
        CHECK_MSG(got && m == n && memcmp(got, want, n * sizeof *got) == 0, "other bits with %d threads", threads);
        free(got);
    }
    check_devices(&b, &o, want, n, true, 100);
    check_devices(&b, &o, want, n, false, 1);
    check_devices(&b, &o, want, n, true, 1);
    free(want);
    bed_close(&b);
}

TEST(train_is_bit_equal_for_threads_and_devices)
{
    struct geul_train_options o = golden_options(NULL);
    o.clip = 1;
    check_places("parallel", o);
    o.recompute = GEUL_RECOMPUTE_FULL;
    o.smoothing = 0.1f;
    o.z_loss = 1e-3f;
    check_places("sequential", o);
    o.lora.rank = 3;
    o.lora.dropout = 0.2f;
    for (int i = 1; geul_optimizer_info((enum geul_optimizer)i); i++) { /* AdamW was above */
        geul_train_options_set_optimizer(&o, (enum geul_optimizer)i);
        check_places("parallel", o);
    }
}

/* Every optimizer takes a step with the values that come with it, and its row has as many states as its operation. */
TEST(train_optimizers_come_with_usual_values)
{
    struct bed b;
    REQUIRE(bed_open(&b, "parallel"));
    struct geul_train_options o = golden_options(golden_convert(&b.g, GEUL_TYPE_F32));
    const struct geul_optimizer_info *info;
    int n = 0;
    for (; (info = geul_optimizer_info((enum geul_optimizer)n)); n++) {
        o.beta1 = o.beta2 = o.epsilon = o.weight_decay = NAN;
        geul_train_options_set_optimizer(&o, (enum geul_optimizer)n);
        REQUIRE(bed_train(&b, &o));
        CHECK_MSG(geul_trainer_step(b.t, NULL) == GEUL_OK, "%s: %s", info->name, geul_error(b.ctx));
        enum geul_type type;
        int64_t shape[2];
        int states = 0;
        while (geul_update_state(info->op, b.t->params.items[0].weight, states, &type, shape) > 0)
            states++;
        CHECK_INT(states, geul_op_info(info->op)->n_src - 3);
        geul_trainer_free(b.t);
        b.t = NULL;
    }
    geul_train_options_set_optimizer(&o, (enum geul_optimizer)n);
    CHECK(geul_trainer_new(b.ctx, &o, b.data) == NULL && strstr(geul_error(b.ctx), "optimizer"));
    bed_close(&b);
}

/* A scale multiplies the schedule's rate from the next step on. */
TEST(train_rate_can_be_scaled)
{
    struct bed b;
    REQUIRE(bed_open(&b, "parallel"));
    struct geul_train_options o = golden_options(golden_convert(&b.g, GEUL_TYPE_F32));
    o.schedule = GEUL_RATE_CONSTANT;
    o.warmup = 0;
    o.rate = 0.25f;
    REQUIRE(bed_train(&b, &o));
    static const double scales[] = {1, 0.5, 0, 2};
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++) {
        struct geul_train_report r;
        geul_trainer_scale_rate(b.t, scales[i]);
        CHECK(geul_trainer_step(b.t, &r) == GEUL_OK);
        CHECK_MSG(r.rate == 0.25 * scales[i], "the rate is %g", r.rate);
    }
    bed_close(&b);
}

/* What a caller may get wrong has a message and does no harm. */
TEST(train_refuses_what_makes_no_sense)
{
    struct bed b;
    REQUIRE(bed_open(&b, "parallel"));
    struct geul_train_options o = golden_options(golden_convert(&b.g, GEUL_TYPE_F32));
    o.optimizer = GEUL_OPTIMIZER_ADAFACTOR; /* beta2 is still AdamW's */
    CHECK(geul_trainer_new(b.ctx, &o, b.data) == NULL && strstr(geul_error(b.ctx), "-0.8"));
    o.optimizer = GEUL_OPTIMIZER_ADAMW;
    o.lora.rank = 2;
    REQUIRE(bed_train(&b, &o));
    const char *path = test_scratch("adapter.gguf");
    CHECK(geul_trainer_step(b.t, NULL) == GEUL_OK && geul_trainer_export(b.t, path, GEUL_TYPE_F32) == GEUL_OK);
    CHECK(geul_model_add_adapter(b.ctx, geul_trainer_model(b.t), path, 1) == GEUL_ERROR_ARGUMENT);
    CHECK_MSG(strstr(geul_error(b.ctx), "is being trained"), "%s", geul_error(b.ctx));
    CHECK(geul_trainer_step(b.t, NULL) == GEUL_OK);
    geul_trainer_cancel(b.t);
    CHECK(geul_trainer_step(b.t, NULL) == GEUL_ERROR_CANCELLED && geul_trainer_steps_done(b.t) == 2);
    CHECK(geul_trainer_step(b.t, NULL) == GEUL_OK && geul_trainer_steps_done(b.t) == 3);
    bed_close(&b);
}

/* Cancels the trainer again and again, at times that differ. */
struct nuisance {
    struct geul_trainer *t;
    atomic_bool stop;
};

static void *cancel_often(void *user)
{
    struct nuisance *n = user;
    uint64_t seed = 3;
    /* Less and less often, so that steps get done however slow the machine is. */
    for (double most = 4000; !n->stop; most *= 1.01) {
        usleep((useconds_t)(test_uniform(&seed, 0, most < 200000 ? most : 200000)));
        geul_trainer_cancel(n->t);
    }
    return NULL;
}

/* Steps that are cancelled in the middle and tried again train the same bits as steps that nobody cancelled. */
TEST(trainer_cancelled_at_any_time_trains_the_same)
{
    double losses[2] = {0, 0};
    int cancelled = 0;
    for (int disturbed = 0; disturbed < 2; disturbed++) {
        struct bed b;
        REQUIRE(bed_open(&b, "parallel"));
        struct test_kept path = test_keep(golden_convert(&b.g, GEUL_TYPE_F32));
        struct geul_train_options o = golden_options(path.text);
        o.n_threads = 3;
        o.n_accumulate = 3;
        REQUIRE(bed_train(&b, &o));
        struct nuisance n = {.t = b.t};
        pthread_t thread;
        if (disturbed)
            REQUIRE(pthread_create(&thread, NULL, cancel_often, &n) == 0);
        for (int tries = 0; tries < 2000 && geul_trainer_steps_done(b.t) < 10; tries++) {
            int64_t done = geul_trainer_steps_done(b.t);
            enum geul_status status = geul_trainer_step(b.t, NULL);
            cancelled += status == GEUL_ERROR_CANCELLED;
            CHECK(status == GEUL_OK || status == GEUL_ERROR_CANCELLED);
            CHECK_INT(geul_trainer_steps_done(b.t), done + (status == GEUL_OK));
        }
        n.stop = true;
        if (disturbed)
            pthread_join(thread, NULL);
        geul_context_uncancel(b.ctx);
        CHECK_INT(geul_trainer_steps_done(b.t), 10);
        CHECK(geul_trainer_evaluate(b.t, b.data, &losses[disturbed]) == GEUL_OK);
        geul_context_cancel(b.ctx);
        CHECK(geul_trainer_evaluate(b.t, b.data, &(double){0}) == GEUL_ERROR_CANCELLED);
        bed_close(&b);
    }
    printf("%d cancelled\n", cancelled);
    CHECK(cancelled > 0);
    CHECK_MSG(losses[0] == losses[1], "%.17g undisturbed, %.17g", losses[0], losses[1]);
}
