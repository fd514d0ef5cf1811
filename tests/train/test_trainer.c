/* test_trainer.c: gradients and steps against what transformers and PyTorch computed (tests/golden), and against each
 * other where one way must equal another. */
#include "convert/hf_to_gguf.h"
#include "core/gguf.h"
#include "core/os.h"
#include "tests/models/golden.h"
#include "train/trainer.h"

static const char *const trained[] = {"parallel", "sequential", "odd_sizes"};
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
    struct geul_convert_options options = {.type = GEUL_TYPE_F32, .n_threads = 1};
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

static void check_gradients(const char *name, bool recompute)
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
        check_gradients(trained[i], false);
}

TEST(train_recomputed_gradients_equal_pytorch)
{
    for (int i = 0; i < N_TRAINED; i++)
        check_gradients(trained[i], true);
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
