/* test_cpu_optimizers.c: the optimizers: cases for test_cpu_ops.c, what torch makes of the same weights, and whether
 * AdamW with 8-bit states trains as AdamW does. */
#include "tests/backends/op_frame.h"

#include <float.h>

/* A hyper leaf: rate 0.05, betas 0.9 and 0.999, epsilon 1e-8, decay 0.1, before the first step. */
static struct geul_tensor *hyper_leaf(struct geul_context *ctx)
{
    static const float values[GEUL_HYPER_COUNT] = {0.05f, 0.9f, 0.999f, 1e-8f, 0.1f, 0, 1};
    uint64_t none = 0;
    struct geul_tensor *hyper = cpu_leaf(ctx, &none, GEUL_TYPE_F32, 1, (int64_t[]){GEUL_HYPER_COUNT}, 0);
    memcpy(hyper->data, values, sizeof values);
    return hyper;
}

static float *hyper_at(struct geul_tensor *hyper, enum geul_hyper i)
{
    return (float *)hyper->data + i;
}

/* Leaves of an optimizer over a weight (m, n), or (n) when m is 0. */
struct update {
    struct geul_tensor *w, *g, *state[2], *hyper;
    int64_t n; /* elements */
};

static struct update make_update(struct geul_context *ctx, uint64_t *seed, enum geul_op op, int64_t m, int64_t n)
{
    const int64_t shape[2] = {m ? m : n, n}, elements = m ? m * n : n, rows = m ? m : 1;
    const int64_t blocks[2] = {(elements + GEUL_STATE8_BLOCK - 1) / GEUL_STATE8_BLOCK, GEUL_STATE8_WORDS};
    int dims = m ? 2 : 1;
    struct update u = {.n = elements, .hyper = hyper_leaf(ctx)};
    u.w = cpu_leaf(ctx, seed, GEUL_TYPE_F32, dims, shape, 1);
    u.g = cpu_leaf(ctx, seed, GEUL_TYPE_F32, dims, shape, 1);
    for (int i = 0; i < geul_op_info(op)->n_src - 3; i++) {
        if (op == GEUL_OP_ADAMW8)
            u.state[i] = cpu_leaf(ctx, seed, GEUL_TYPE_I32, 2, blocks, 0);
        else if (op == GEUL_OP_ADAFACTOR)
            u.state[i] = cpu_leaf(ctx, seed, GEUL_TYPE_F32, 1, i ? &n : &rows, 0);
        else
            u.state[i] = cpu_leaf(ctx, seed, GEUL_TYPE_F32, dims, shape, 0);
        memset(u.state[i]->data, 0, geul_tensor_bytes(u.state[i]));
    }
    if (op == GEUL_OP_ADAFACTOR) {
        *hyper_at(u.hyper, GEUL_HYPER_BETA2) = -0.8f;
        *hyper_at(u.hyper, GEUL_HYPER_EPSILON) = 1e-3f;
    }
    return u;
}

/* One step; the gradients have to be 0 afterwards. Returns the weights after it, NULL on failure. */
static struct geul_tensor *take_step(struct run *r, enum geul_op op, struct update *u, bool decay)
{
    *hyper_at(u->hyper, GEUL_HYPER_STEP) += 1;
    struct geul_tensor *y = geul_update(r->ctx, op, u->w, u->g, u->state, u->hyper, decay);
    if (!op_compute(r, y))
        return NULL;
    bool zero = true;
    for (int64_t i = 0; i < u->n; i++)
        zero &= ((float *)u->g->data)[i] == 0;
    CHECK_MSG(zero, "%s leaves gradients", y->name);
    return y;
}

static void new_gradients(struct run *r, struct update *u, int step)
{
    for (int64_t i = 0; i < u->n; i++)
        ((float *)u->g->data)[i] = test_normal(&r->seed) * (float)(1 + i % 7) / (float)step;
}

static double hyper_value(const struct update *u, enum geul_hyper i)
{
    return (double)*hyper_at(u->hyper, i);
}

/* ----------------------------------------------------------------------------- SGD and AdamW -- */

static const int64_t lengths[] = {1, 15, 17, 255, 256, 257, 1000, 5003};
enum { N_LENGTHS = sizeof lengths / sizeof lengths[0], STEPS = 3 };

void case_SGD(struct run *r)
{
    for (int s = 0; s < N_LENGTHS; s++) {
        int64_t n = lengths[s];
        struct update u = make_update(r->ctx, &r->seed, GEUL_OP_SGD, 0, n);
        double *w = doubles(r, n), *m = doubles(r, n);
        *hyper_at(u.hyper, GEUL_HYPER_GRADIENT_SCALE) = 0.5f;
        for (int64_t i = 0; i < n; i++)
            w[i] = cpu_value(u.w, i);
        for (int step = 1; step <= STEPS; step++) {
            new_gradients(r, &u, step);
            for (int64_t i = 0; i < n; i++) {
                m[i] = 0.9 * m[i] + 0.5 * cpu_value(u.g, i) + (s % 2 ? 0.1 * w[i] : 0);
                w[i] -= 0.05 * m[i];
            }
            struct geul_tensor *y = take_step(r, GEUL_OP_SGD, &u, s % 2);
            if (!y)
                return;
            verify(r, y, w, 5e-7, 2e-7);
            verify(r, u.state[0], m, 1e-6, 5e-7);
        }
    }
}

/* AdamW's step number `step` on doubles. */
static void adamw_of(double *w, double *m, double *v, double g, int step, bool decay)
{
    *m = 0.9 * *m + 0.1 * g;
    *v = 0.999 * *v + 0.001 * g * g;
    double root = sqrt(*v / (1 - pow(0.999, step))) + 1e-8;
    *w = *w * (decay ? 1 - 0.05 * 0.1 : 1) - 0.05 * *m / (1 - pow(0.9, step)) / root;
}

void case_ADAMW(struct run *r)
{
    for (int s = 0; s < N_LENGTHS; s++) {
        int64_t n = lengths[s];
        struct update u = make_update(r->ctx, &r->seed, GEUL_OP_ADAMW, 0, n);
        double *w = doubles(r, n), *m = doubles(r, n), *v = doubles(r, n);
        *hyper_at(u.hyper, GEUL_HYPER_GRADIENT_SCALE) = 0.5f;
        for (int64_t i = 0; i < n; i++)
            w[i] = cpu_value(u.w, i);
        for (int step = 1; step <= STEPS; step++) {
            new_gradients(r, &u, step);
            for (int64_t i = 0; i < n; i++)
                adamw_of(&w[i], &m[i], &v[i], 0.5 * cpu_value(u.g, i), step, s % 2);
            struct geul_tensor *y = take_step(r, GEUL_OP_ADAMW, &u, s % 2);
            if (!y)
                return;
            verify(r, y, w, 5e-7, 2e-7);
            verify(r, u.state[0], m, 2e-7, 5e-7);
            verify(r, u.state[1], v, 0, 1e-6);
        }
    }
}

/* ------------------------------------------------------------------------------ 8-bit states -- */

/* Value i of an 8-bit state: a code is three bits under an exponent, and its highest value stands for the scale. */
static double coded(const struct geul_tensor *state, bool negative, int64_t i)
{
    const uint8_t *block = (const uint8_t *)state->data + (size_t)(i / GEUL_STATE8_BLOCK) * state->stride[0];
    float scale;
    memcpy(&scale, block + GEUL_STATE8_BLOCK, sizeof scale);
    int code = block[i % GEUL_STATE8_BLOCK], top = negative ? 127 : 255, from_top = (code & top) - top;
    int octave = (int)floor(from_top / 8.0), eighths = from_top - 8 * octave;
    double value = code & top ? ldexp(1 + eighths / 8.0, octave) * (double)scale : 0;
    return negative && code > 127 ? -value : value;
}

/* The words of a state as float values, so that verify() can compare their bits between thread counts. */
static void verify_words(struct run *r, const struct geul_tensor *state)
{
    int64_t bytes = (int64_t)geul_tensor_bytes(state);
    struct geul_tensor *values = LEAF(F32, 0, bytes);
    double *want = doubles(r, bytes);
    for (int64_t i = 0; i < bytes; i++)
        want[i] = ((float *)values->data)[i] = ((uint8_t *)state->data)[i];
    verify(r, values, want, 0, 0);
}

/* The codes' values go through AdamW exactly, and are stored with an error of less than one step of the code. */
void case_ADAMW8(struct run *r)
{
    for (int s = 0; s < N_LENGTHS; s++) {
        int64_t n = lengths[s];
        struct update u = make_update(r->ctx, &r->seed, GEUL_OP_ADAMW8, 0, n);
        double *w = doubles(r, n), *m = doubles(r, n), *v = doubles(r, n);
        for (int step = 1; step <= STEPS; step++) {
            new_gradients(r, &u, step);
            for (int64_t i = 0; i < n; i++) {
                w[i] = cpu_value(u.w, i);
                m[i] = coded(u.state[0], true, i);
                v[i] = coded(u.state[1], false, i);
                adamw_of(&w[i], &m[i], &v[i], cpu_value(u.g, i), step, s % 2);
            }
            struct geul_tensor *y = take_step(r, GEUL_OP_ADAMW8, &u, s % 2);
            if (!y)
                return;
            verify(r, y, w, 5e-7, 2e-7);
            for (int64_t i = 0; i < n; i++) {
                double block_m = 0, block_v = 0;
                for (int64_t j = i / 256 * 256; j < n && j < i / 256 * 256 + 256; j++) {
                    block_m = fmax(block_m, fabs(m[j]));
                    block_v = fmax(block_v, v[j]);
                }
                double got_m = coded(u.state[0], true, i), got_v = coded(u.state[1], false, i);
                CHECK_MSG(fabs(got_m - m[i]) < 0.126 * fabs(m[i]) + 1.9e-5 * block_m &&
                              fabs(got_v - v[i]) < 0.126 * v[i] + 3e-10 * block_v && (got_v > 0) == (v[i] > 0),
                          "%s: element %lld of %lld: moments %g %g became %g %g", r->what, (long long)i, (long long)n,
                          m[i], v[i], got_m, got_v);
            }
            verify_words(r, u.state[0]);
            verify_words(r, u.state[1]);
        }
    }
}

/* --------------------------------------------------------------------------------- Adafactor -- */

/* A step on doubles; rows and cols are the states, rows NULL for a vector. */
static void adafactor_of(const struct update *u, double *w, double *rows, double *cols, bool decay)
{
    int64_t n = u->w->shape[u->w->n_dims - 1], m = u->n / n;
    double step = hyper_value(u, GEUL_HYPER_STEP) + 1, mix = pow(step, -0.8), mean = 0, squares = 0, changes = 0;
    double scale = hyper_value(u, GEUL_HYPER_GRADIENT_SCALE), *change = malloc((size_t)u->n * sizeof *change);
    for (int64_t i = 0; i < u->n; i++)
        squares += w[i] * w[i];
    for (int64_t k = 0; rows && k < m; k++) {
        double sum = 0;
        for (int64_t i = 0; i < n; i++)
            sum += pow(scale * cpu_value(u->g, k * n + i), 2) / (double)n;
        rows[k] += mix * (sum - rows[k]);
        mean += rows[k] / (double)m;
    }
    for (int64_t i = 0; i < n; i++) {
        double sum = 0;
        for (int64_t k = 0; k < m; k++)
            sum += pow(scale * cpu_value(u->g, k * n + i), 2) / (double)m;
        cols[i] += mix * (sum - cols[i]);
    }
    for (int64_t i = 0; i < u->n; i++) {
        double moment = rows ? rows[i / n] * cols[i % n] / fmax(mean, (double)FLT_EPSILON) : cols[i];
        moment = fmax(moment, (double)FLT_EPSILON * (double)FLT_EPSILON);
        change[i] = scale * cpu_value(u->g, i) / sqrt(moment);
        changes += change[i] * change[i];
    }
    double rho = fmin(0.05, 1 / sqrt(step)), alpha = fmax(1e-3, sqrt(squares / (double)u->n)) * rho;
    double clip = fmax(1, sqrt(changes / (double)u->n));
    for (int64_t i = 0; i < u->n; i++)
        w[i] = w[i] * (decay ? 1 - 0.05 * 0.1 : 1) - alpha / clip * change[i];
    free(change);
}

void case_ADAFACTOR(struct run *r)
{
    static const int64_t shapes[][2] = {{1, 1},    {1, 5}, {3, 7},  {70, 33}, {200, 65},
                                        {64, 256}, {0, 1}, {0, 17}, {0, 300}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        int64_t m = shapes[s][0], n = shapes[s][1];
        struct update u = make_update(r->ctx, &r->seed, GEUL_OP_ADAFACTOR, m, n);
        double *w = doubles(r, u.n), *rows = m ? doubles(r, m) : NULL, *cols = doubles(r, n);
        *hyper_at(u.hyper, GEUL_HYPER_GRADIENT_SCALE) = 0.25f;
        for (int64_t i = 0; i < u.n; i++)
            w[i] = ((float *)u.w->data)[i] *= s % 2 ? 1e-4f : 1; /* below the least size of a step, too */
        for (int step = 1; step <= STEPS; step++) {
            new_gradients(r, &u, step);
            if (n > 2)
                for (int64_t k = 0; k < (m ? m : 1); k++)
                    ((float *)u.g->data)[k * n + 1] = 0; /* a column without gradients */
            adafactor_of(&u, w, rows, cols, s % 3);
            struct geul_tensor *y = take_step(r, GEUL_OP_ADAFACTOR, &u, s % 3);
            if (!y)
                return;
            verify(r, y, w, 2e-7, 1e-6);
            verify(r, u.state[1], cols, 0, 2e-6);
            if (m)
                verify(r, u.state[0], rows, 0, 2e-6);
        }
    }
}

/* ------------------------------------------------------------------------------------- torch -- */

/* What tests/golden/make_optimizers.py prints. */
static const struct {
    enum geul_op op;
    int64_t rows;
    float after[12];
} torch[] = {
    {GEUL_OP_ADAMW,
     3,
     {-1.20453262f, 1.18928492f, 1.12010348f, 0.826700747f, 0.839868307f, 0.731852829f, 0.428027213f, 0.446887761f,
      0.288523763f, 0.0326352119f, 0.050808154f, -0.159156159f}},
    {GEUL_OP_SGD,
     3,
     {-1.13470268f, 1.12687457f, 1.03519738f, 0.848106384f, 0.793774426f, 0.648972392f, 0.461881429f, 0.407549441f,
      0.262747318f, 0.0756563917f, 0.0213244129f, -0.123477697f}},
    {GEUL_OP_ADAFACTOR,
     3,
     {-1.16634774f, 1.09374011f, 1.05139101f, 0.871440768f, 0.824493408f, 0.64740485f, 0.482526362f, 0.429759055f,
      0.265857279f, 0.0859543532f, 0.0553613938f, -0.132333159f}},
    {GEUL_OP_ADAFACTOR,
     0,
     {-1.16637731f, 1.09304059f, 1.06225753f, 0.874452591f, 0.808575809f, 0.680651128f, 0.484019905f, 0.425016195f,
      0.26324445f, 0.0951441675f, 0.0402296223f, -0.154414684f}},
};

TEST(cpu_optimizers_agree_with_torch)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_device *device = cpu_device(ctx, NULL, 2);
    uint64_t seed = CPU_SEED;
    for (size_t s = 0; s < sizeof torch / sizeof torch[0]; s++) {
        struct update u = make_update(ctx, &seed, torch[s].op, torch[s].rows, torch[s].rows ? 4 : 12);
        double want[12];
        for (int i = 0; i < 12; i++) {
            ((float *)u.w->data)[i] = (float)(i * 37 % 19 - 9) / 8;
            want[i] = torch[s].after[i];
        }
        for (int step = 1; step <= 4; step++) {
            for (int i = 0; i < 12; i++)
                ((float *)u.g->data)[i] = (float)((i * 23 + step * 11) % 17) / 16 - 0.5f;
            take_step(&(struct run){.ctx = ctx, .device = device}, torch[s].op, &u, true);
        }
        cpu_close(geul_op_info(torch[s].op)->name, u.w->data, want, 12, 6e-8, 2e-7);
    }
    geul_device_close(ctx, device);
    geul_context_free(ctx);
}

/* ---------------------------------------------------------------- training with 8-bit states -- */

/* One of the problems below: fills gradients at w, with noise from seed, and returns the loss there. */
struct problem {
    int64_t n, samples;
    double *target, *curve; /* quadratic */
    float *x, *label;       /* logistic: (samples, n), 0 or 1 */
};
typedef double loss_function(const struct problem *p, const float *w, float *g, uint64_t *seed);

/* Half of the sum of curve * (w - target)^2, with noise on the gradients. */
static double quadratic(const struct problem *p, const float *w, float *g, uint64_t *seed)
{
    double loss = 0;
    for (int64_t i = 0; i < p->n; i++) {
        double d = (double)w[i] - p->target[i];
        loss += 0.5 * p->curve[i] * d * d;
        g[i] = (float)(p->curve[i] * (d + 0.3 * (double)test_normal(seed)));
    }
    return loss;
}

/* Mean cross-entropy plus a little of the weights' squares, so that there is one minimum. */
static double logistic(const struct problem *p, const float *w, float *g, uint64_t *seed)
{
    (void)seed;
    double loss = 0;
    for (int64_t i = 0; i < p->n; i++) {
        loss += 5e-4 * (double)w[i] * (double)w[i];
        g[i] = 1e-3f * w[i];
    }
    for (int64_t k = 0; k < p->samples; k++) {
        double z = 0;
        for (int64_t i = 0; i < p->n; i++)
            z += (double)w[i] * (double)p->x[k * p->n + i];
        double share = 1 / (1 + exp(-z)), error = share - (double)p->label[k];
        loss -= log(p->label[k] > 0 ? share : 1 - share) / (double)p->samples;
        for (int64_t i = 0; i < p->n; i++)
            g[i] += (float)(error * (double)p->x[k * p->n + i] / (double)p->samples);
    }
    return loss;
}

/* The loss after training, its mean over the last tenth of the steps. */
static double trained(enum geul_op op, const struct problem *p, loss_function *loss, int steps, float rate)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_device *device = cpu_device(ctx, NULL, 1);
    uint64_t seed = CPU_SEED;
    struct update u = make_update(ctx, &seed, op, 0, p->n);
    double late = 0;
    memset(u.w->data, 0, (size_t)p->n * sizeof(float));
    for (int step = 0; step < steps; step++) {
        *hyper_at(u.hyper, GEUL_HYPER_RATE) = rate * (1 - (float)step / (float)steps);
        double now = loss(p, u.w->data, u.g->data, &seed);
        if (step >= steps - steps / 10)
            late += now / (steps / 10);
        if (!take_step(&(struct run){.ctx = ctx, .device = device}, op, &u, false))
            break;
    }
    geul_device_close(ctx, device);
    geul_context_free(ctx);
    return late;
}

TEST(cpu_adamw8_trains_as_adamw)
{
    enum { N = 600, SAMPLES = 120, FEATURES = 40 };
    uint64_t seed = CPU_SEED;
    struct problem p = {.n = N};
    p.target = malloc(N * sizeof *p.target);
    p.curve = malloc(N * sizeof *p.curve);
    for (int i = 0; i < N; i++) { /* curvatures over four magnitudes within a block */
        p.target[i] = (double)test_normal(&seed);
        p.curve[i] = pow(10, test_uniform(&seed, -3, 1));
    }
    double plain = trained(GEUL_OP_ADAMW, &p, quadratic, 1500, 0.02f);
    double eight = trained(GEUL_OP_ADAMW8, &p, quadratic, 1500, 0.02f);
    printf("  quadratic: AdamW %.6g, with 8-bit states %.6g\n", plain, eight);
    CHECK_MSG(eight < 1.1 * plain && plain < 20, "quadratic: %g, AdamW %g", eight, plain);
    free(p.target);
    free(p.curve);
    p = (struct problem){.n = FEATURES, .samples = SAMPLES};
    p.x = malloc(SAMPLES * FEATURES * sizeof *p.x);
    p.label = malloc(SAMPLES * sizeof *p.label);
    for (int k = 0; k < SAMPLES; k++) {
        float z = 0;
        for (int i = 0; i < FEATURES; i++) { /* features of sizes from 0.1 to 10 */
            p.x[k * FEATURES + i] = test_normal(&seed) * (float)pow(10, i % 5 / 2.0 - 1);
            z += p.x[k * FEATURES + i] * (float)(i % 3 - 1);
        }
        p.label[k] = z + 3 * test_normal(&seed) > 0;
    }
    plain = trained(GEUL_OP_ADAMW, &p, logistic, 800, 0.05f);
    eight = trained(GEUL_OP_ADAMW8, &p, logistic, 800, 0.05f);
    printf("  logistic: AdamW %.6g, with 8-bit states %.6g\n", plain, eight);
    CHECK_MSG(eight < 1.02 * plain + 1e-4 && plain < 0.3, "logistic: %g, AdamW %g", eight, plain);
    free(p.x);
    free(p.label);
}

/* Steps of one 300-element weight from 0 at rate 0.01 with the gradients that fill gives. */
static struct update run_steps(struct geul_context *ctx, struct geul_device *device, enum geul_op op, int steps,
                               void (*fill)(float *g, int64_t n, int step))
{
    uint64_t seed = CPU_SEED;
    struct update u = make_update(ctx, &seed, op, 0, 300);
    memset(u.w->data, 0, 300 * sizeof(float));
    *hyper_at(u.hyper, GEUL_HYPER_RATE) = 0.01f;
    for (int step = 1; step <= steps; step++) {
        fill(u.g->data, 300, step);
        take_step(&(struct run){.ctx = ctx, .device = device}, op, &u, false);
    }
    return u;
}

static void fill_zero(float *g, int64_t n, int step)
{
    (void)step;
    memset(g, 0, (size_t)n * sizeof *g);
}

/* Every element its own size, over four magnitudes. */
static void fill_sizes(float *g, int64_t n, int step)
{
    (void)step;
    for (int64_t i = 0; i < n; i++)
        g[i] = (float)pow(10, -(double)(i % 9) / 2) * (i % 2 ? -1.0f : 1.0f);
}

static void fill_tiny(float *g, int64_t n, int step)
{
    (void)step;
    for (int64_t i = 0; i < n; i++)
        g[i] = 1e-30f * (float)(i % 9);
}

static void fill_huge(float *g, int64_t n, int step)
{
    (void)step;
    for (int64_t i = 0; i < n; i++)
        g[i] = 1e18f * (float)(1 + i % 9);
}

/* Squares that overflow, and one element that is not finite itself. */
static void fill_broken(float *g, int64_t n, int step)
{
    fill_sizes(g, n, step);
    if (step == 2) {
        g[5] = NAN;
        g[7] = 1e30f;
        g[290] = -INFINITY;
    }
}

/* A large first step, then small ones, next to one element that stays large and keeps the block's scale. */
static void fill_quieter(float *g, int64_t n, int step)
{
    for (int64_t i = 0; i < n; i++)
        g[i] = step == 1 || i == 255 ? 10.0f : 1.0f;
}

TEST(cpu_adamw8_keeps_all_magnitudes)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_device *device = cpu_device(ctx, NULL, 1);
    struct update u = run_steps(ctx, device, GEUL_OP_ADAMW8, 3, fill_zero);
    for (int i = 0; i < 300; i++)
        CHECK_MSG(cpu_value(u.w, i) == 0 && coded(u.state[0], true, i) == 0 && coded(u.state[1], false, i) == 0,
                  "without gradients element %d moves", i);
    void (*const fills[])(float *, int64_t, int) = {fill_sizes, fill_tiny, fill_huge};
    for (int k = 0; k < 3; k++) {
        struct update a = run_steps(ctx, device, GEUL_OP_ADAMW, 100, fills[k]);
        u = run_steps(ctx, device, GEUL_OP_ADAMW8, 100, fills[k]);
        for (int i = 0; i < 300; i++) {
            double want = cpu_value(a.w, i), got = cpu_value(u.w, i);
            CHECK_MSG(fabs(got - want) <= 0.15 * fabs(want), "sizes %d: element %d moves to %g, with AdamW to %g", k, i,
                      got, want);
        }
    }
    geul_device_close(ctx, device);
    geul_context_free(ctx);
}

/* What is not finite shows in its own weight and in no other. */
TEST(cpu_adamw8_survives_what_is_no_number)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_device *device = cpu_device(ctx, NULL, 1);
    struct update u = run_steps(ctx, device, GEUL_OP_ADAMW8, 20, fill_broken);
    for (int i = 0; i < 300; i++) {
        double w = cpu_value(u.w, i);
        CHECK_MSG(isfinite(w) == (i != 5 && i != 290) && isfinite(coded(u.state[0], true, i)) &&
                      isfinite(coded(u.state[1], false, i)),
                  "element %d: weight %g, moments %g %g", i, w, coded(u.state[0], true, i),
                  coded(u.state[1], false, i));
    }
    geul_device_close(ctx, device);
    geul_context_free(ctx);
}

/* With a decay of 0.999 the second moment moves by less than a code per step; rounding must not hold it back. */
TEST(cpu_adamw8_averages_over_many_steps)
{
    enum { STEPS_LONG = 3000 };
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_device *device = cpu_device(ctx, NULL, 1);
    struct update u = run_steps(ctx, device, GEUL_OP_ADAMW8, STEPS_LONG, fill_quieter);
    double kept = pow(0.999, STEPS_LONG - 1), want = 1 - kept + 100 * 0.001 * kept, sum = 0, spread = 0, first = 0;
    for (int i = 0; i < 255; i++)
        sum += coded(u.state[1], false, i) / 255;
    for (int i = 0; i < 255; i++) {
        spread += pow(coded(u.state[1], false, i) - sum, 2) / 255;
        first += coded(u.state[0], true, i) / 255;
    }
    printf("  second moments %.4f +- %.4f, expected %.4f; first %.4f\n", sum, sqrt(spread), want, first);
    CHECK_MSG(fabs(sum - want) < 0.05, "second moments average to %g, expected %g", sum, want);
    CHECK_MSG(sqrt(spread) < 0.3, "second moments spread by %g", sqrt(spread));
    CHECK_MSG(fabs(first - 1) < 0.03, "first moments average to %g", first);
    geul_device_close(ctx, device);
    geul_context_free(ctx);
}
