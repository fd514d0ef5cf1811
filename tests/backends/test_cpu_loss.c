/* test_cpu_loss.c: CROSS_ENTROPY and LOSS_BACK against their meaning in double, under every instruction set, with the
 * same bits for every number of threads; and their cases for devices. */
#include "tests/backends/op_frame.h"

/* The loss of a row of n logits; and with d, dy times its gradient. */
static double loss_of(const double *x, int64_t n, int64_t target, struct geul_params_loss p, double dy, double *d)
{
    double high = -INFINITY, sum = 0, mean = 0, smoothing = (double)p.smoothing, z = (double)p.z;
    for (int64_t i = 0; i < n; i++) {
        high = fmax(high, x[i]);
        mean += x[i] / (double)n;
    }
    for (int64_t i = 0; i < n; i++)
        sum += exp(x[i] - high);
    double lse = high + log(sum);
    for (int64_t i = 0; d && i < n; i++)
        d[i] = dy * ((1 + 2 * z * lse) * exp(x[i] - lse) - (i == target ? 1 - smoothing : 0) - smoothing / (double)n);
    return (1 - smoothing) * (lse - x[target]) + (smoothing > 0 ? smoothing * (lse - mean) : 0) + z * lse * lse;
}

static const struct geul_params_loss params[] = {{0, 0}, {0.1f, 0}, {0, 1e-3f}, {0.25f, 1e-2f}};
enum { N_PARAMS = sizeof params / sizeof params[0] };

/* The formula of the gradient holds: central differences. */
TEST(cpu_loss_reference_agrees_with_differences)
{
    enum { N = 9 };
    uint64_t seed = CPU_SEED;
    for (int s = 0; s < N_PARAMS; s++) {
        double x[N], d[N], want[N];
        float got[N];
        for (int i = 0; i < N; i++)
            x[i] = 3 * test_normal(&seed);
        loss_of(x, N, 4, params[s], 1.5, d);
        for (int i = 0; i < N; i++) {
            const double step = 1e-5, before = x[i];
            x[i] = before + step;
            double above = loss_of(x, N, 4, params[s], 1, NULL);
            x[i] = before - step;
            want[i] = 1.5 * (above - loss_of(x, N, 4, params[s], 1, NULL)) / (2 * step);
            x[i] = before;
            got[i] = (float)d[i];
        }
        CHECK(cpu_close("differences", got, want, N, 1e-8, 1e-6));
    }
}

/* One case: rows of logits, of which some have no target or no gradient. */
struct problem {
    struct geul_context *ctx;
    int64_t rows, n;
    struct geul_params_loss params;
    struct geul_tensor *x, *targets, *dy;
    double *loss, *d;
};

static struct problem make_problem(int64_t rows, int64_t n, struct geul_params_loss p, double spread)
{
    struct problem q = {.ctx = geul_context_new(NULL), .rows = rows, .n = n, .params = p};
    uint64_t seed = CPU_SEED;
    struct geul_tensor *wide = cpu_leaf(q.ctx, &seed, GEUL_TYPE_F32, 2, (int64_t[]){rows, n + 3}, spread);
    q.x = cpu_view(geul_narrow(q.ctx, wide, 1, 1, n));
    q.targets = cpu_leaf(q.ctx, &seed, GEUL_TYPE_I32, 1, &rows, 0);
    q.dy = cpu_leaf(q.ctx, &seed, GEUL_TYPE_F32, 1, &rows, 1);
    q.loss = geul_arena(q.ctx, (size_t)rows + 1, sizeof *q.loss);
    q.d = geul_arena(q.ctx, (size_t)(rows * n) + 1, sizeof *q.d);
    double *row = geul_arena(q.ctx, (size_t)n, sizeof *row);
    for (int64_t r = 0; r < rows; r++) {
        float *values = (float *)(void *)((uint8_t *)q.x->data + (size_t)r * q.x->stride[0]), *dy = q.dy->data;
        int64_t target = r % 5 == 3 ? (r % 2 ? -1 : n) : (int64_t)(test_random(&seed) % (uint64_t)n);
        bool outside = target < 0 || target >= n;
        ((int32_t *)q.targets->data)[r] = (int32_t)target;
        dy[r] = r % 4 == 2 ? 0 : dy[r];
        for (int64_t i = 0; i < n; i++)
            row[i] = values[i] += 20;
        q.loss[r] = outside ? 0 : loss_of(row, n, target, p, (double)dy[r], q.d + r * n);
        for (int64_t i = 0; (outside || dy[r] == 0) && i < n; i++)
            q.d[r * n + i] = 0;
        if (outside)
            values[0] = NAN; /* not read */
    }
    return q;
}

/* Loss (R) and gradient (R, V); with in_place the gradient is written over a copy of the logits. */
static void compute(const struct problem *p, const char *variant, int n_threads, bool in_place, float *loss, float *d)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_device *device = cpu_device(ctx, variant, n_threads);
    size_t bytes = (size_t)(p->rows * p->n) * sizeof(float), row = (size_t)p->n * sizeof(float);
    struct cpu_guard out = cpu_guard(bytes, 4), losses = cpu_guard((size_t)p->rows * sizeof(float), 4);
    const int64_t shape[] = {p->rows, p->n};
    struct geul_tensor *x = geul_leaf(ctx, GEUL_TYPE_F32, 2, shape, "x", NULL, in_place ? out.data : p->x->data);
    for (int64_t r = 0; in_place && r < p->rows; r++)
        memcpy(out.data + (size_t)r * row, (uint8_t *)p->x->data + (size_t)r * p->x->stride[0], row);
    if (!in_place)
        memcpy(x->stride, p->x->stride, sizeof x->stride);
    struct geul_tensor *targets = geul_leaf(ctx, GEUL_TYPE_I32, 1, shape, "targets", NULL, p->targets->data);
    struct geul_tensor *dy = geul_leaf(ctx, GEUL_TYPE_F32, 1, shape, "dy", NULL, p->dy->data);
    struct geul_tensor *y = geul_cross_entropy(ctx, x, targets, p->params.smoothing, p->params.z);
    struct geul_tensor *back = geul_loss_back(ctx, x, dy, targets, p->params);
    if (device && CHECK_MSG(y && back, "%s", geul_error(ctx))) {
        y->data = losses.data;
        back->data = out.data;
        cpu_compute(ctx, device, y);
        cpu_compute(ctx, device, back);
        memcpy(loss, losses.data, losses.bytes);
        memcpy(d, out.data, bytes);
    }
    cpu_guard_free(&out, "loss_back");
    cpu_guard_free(&losses, "cross_entropy");
    geul_device_close(ctx, device);
    geul_context_free(ctx);
}

static void check_problem(const struct problem *p, const char *variant)
{
    static const int threads[] = {1, 2, 3, 7};
    size_t n = (size_t)(p->rows * p->n), rows = (size_t)p->rows;
    float *loss = calloc(2 * rows + 1, sizeof *loss), *d = calloc(2 * n + 1, sizeof *d);
    char what[120];
    snprintf(what, sizeof what, "%s V=%lld smoothing %g z %g", variant, (long long)p->n, (double)p->params.smoothing,
             (double)p->params.z);
    compute(p, variant, 1, false, loss, d);
    CHECK(cpu_close(what, loss, p->loss, p->rows, 2e-7, 1.2e-7));
    CHECK(cpu_close(what, d, p->d, p->rows * p->n, 3e-7, 1e-6));
    for (int i = 0; i < 4; i++) {
        compute(p, variant, threads[i], i % 2, loss + rows, d + n);
        CHECK_MSG(memcmp(loss, loss + rows, rows * sizeof *loss) == 0 && memcmp(d, d + n, n * sizeof *d) == 0,
                  "%s: other bits with %d threads", what, threads[i]);
    }
    free(loss);
    free(d);
}

static void each_variant(const struct problem *p, void (*check)(const struct problem *p, const char *variant))
{
    const char *variant;
    bool supported;
    for (int i = 0; geul_cpu_variant(i, &variant, &supported); i++)
        if (supported)
            check(p, variant);
}

TEST(cpu_loss_and_its_gradient)
{
    static const int64_t lengths[] = {1, 2, 7, 16, 33, 64, 65, 257, 1000};
    for (size_t s = 0; s < sizeof lengths / sizeof lengths[0]; s++)
        for (int i = 0; i < N_PARAMS; i++) {
            struct problem p = make_problem(13, lengths[s], params[i], s % 2 ? 1 : 6);
            each_variant(&p, check_problem);
            geul_context_free(p.ctx);
        }
    struct problem none = make_problem(0, 5, params[0], 1);
    each_variant(&none, check_problem);
    geul_context_free(none.ctx);
}

/* As many classes as a vocabulary has: sums of that many powers keep their precision. */
TEST(cpu_loss_over_a_vocabulary)
{
    for (int i = 0; i < N_PARAMS; i++) {
        struct problem p = make_problem(5, 30080, params[i], i % 2 ? 1 : 4);
        each_variant(&p, check_problem);
        geul_context_free(p.ctx);
    }
}

/* The same problem in the context and on the device of a case; in_place: the gradient over the logits. */
static void loss_case(struct run *r, const struct problem *p, bool back)
{
    const int64_t shape[] = {p->rows, p->n};
    struct geul_tensor *x = geul_leaf(r->ctx, GEUL_TYPE_F32, 2, shape, "x", NULL, p->x->data);
    memcpy(x->stride, p->x->stride, sizeof x->stride);
    struct geul_tensor *targets = geul_leaf(r->ctx, GEUL_TYPE_I32, 1, shape, "targets", NULL, p->targets->data);
    struct geul_tensor *dy = geul_leaf(r->ctx, GEUL_TYPE_F32, 1, shape, "dy", NULL, p->dy->data);
    struct geul_tensor *y = back ? geul_loss_back(r->ctx, x, dy, targets, p->params)
                                 : geul_cross_entropy(r->ctx, x, targets, p->params.smoothing, p->params.z);
    if (op_compute(r, y))
        verify(r, y, back ? p->d : p->loss, back ? 3e-7 : 2e-7, back ? 1e-6 : 1.2e-7);
    if (!back || p->n % 4 == 0)
        return;
    struct geul_tensor *packed = LEAF(F32, 1, p->rows, p->n);
    for (int64_t i = 0; i < p->rows * p->n; i++)
        ((float *)packed->data)[i] = (float)cpu_value(x, i);
    y = geul_loss_back(r->ctx, packed, dy, targets, p->params);
    y->data = packed->data;
    if (op_compute(r, y))
        verify(r, y, p->d, 3e-7, 1e-6);
}

static void loss_cases(struct run *r, bool back)
{
    static const int64_t rows[] = {1, 13, 6, 5, 2}, sizes_of[] = {1, 33, 64, 1001, 30080};
    for (int s = 0; s < 5; s++)
        for (int i = 0; i < N_PARAMS; i++) {
            struct problem p = make_problem(rows[s], sizes_of[s], params[i], s % 2 ? 1 : 6);
            loss_case(r, &p, back);
            geul_context_free(p.ctx);
        }
}

void case_CROSS_ENTROPY(struct run *r)
{
    loss_cases(r, false);
}

void case_LOSS_BACK(struct run *r)
{
    loss_cases(r, true);
}

/* What is not finite comes out in its own row's loss and gradient, and nowhere else. */
static void check_special(const struct problem *p, const char *variant)
{
    float loss[6], d[6 * 40];
    compute(p, variant, 2, false, loss, d);
    const float *good = d + 5 * 40, *masked = d + 3 * 40;
    for (int r = 0; r < 2; r++)
        CHECK_MSG(isnan(loss[r]) && isnan(d[r * 40 + 7]), "%s: row %d hides NaN or infinity", variant, r);
    CHECK_MSG(loss[2] == INFINITY, "%s: a target of probability 0 costs %g", variant, (double)loss[2]);
    CHECK_MSG(isfinite(loss[4]) && d[4 * 40 + 39] == 0, "%s: a class that cannot be", variant);
    bool zero = true, finite = isfinite(loss[5]);
    for (int i = 0; i < 40; i++) {
        zero &= masked[i] == 0;
        finite &= isfinite(good[i]);
    }
    CHECK_MSG(zero && finite, "%s: NaN reaches other rows", variant);
}

TEST(cpu_loss_of_what_is_not_finite)
{
    struct problem p = make_problem(6, 40, params[0], 1);
    float *dy = p.dy->data, *rows[6];
    for (int r = 0; r < 6; r++) {
        rows[r] = (float *)(void *)((uint8_t *)p.x->data + (size_t)r * p.x->stride[0]);
        ((int32_t *)p.targets->data)[r] = 3;
        dy[r] = r == 3 ? 0 : 1;
        rows[r][0] = 0;
    }
    rows[0][39] = NAN;
    rows[1][20] = INFINITY;
    rows[2][3] = -INFINITY;
    rows[3][5] = NAN;
    rows[4][39] = -INFINITY;
    each_variant(&p, check_special);
    geul_context_free(p.ctx);
}
