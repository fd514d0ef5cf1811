/* test_cpu_gradients.c: the operations that compute gradients: cases for test_cpu_ops.c, finite differences, and
 * what dropout's masks look like. */
#include "tests/backends/op_frame.h"

/* Gives y memory between canaries. */
static struct cpu_guard guarded(struct geul_tensor *y)
{
    struct cpu_guard g = cpu_guard(geul_tensor_bytes(y), 4);
    y->data = g.data;
    return g;
}

/* Computes y between canaries and checks it. */
static void compute(struct run *r, struct geul_tensor *y, const double *want, double absolute, double relative)
{
    if (!CHECK_MSG(y != NULL, "%s", geul_error(r->ctx)))
        return;
    struct cpu_guard g = guarded(y);
    if (op_compute(r, y))
        verify(r, y, want, absolute, relative);
    cpu_guard_free(&g, y->name);
}

/* The same over operand 0, which has to be contiguous. */
static void compute_in_place(struct run *r, struct geul_tensor *y, const double *want, double absolute, double relative)
{
    y->data = y->src[0]->data;
    if (op_compute(r, y))
        verify(r, y, want, absolute, relative);
}

void case_ZERO(struct run *r)
{
    for (int s = 0; s < N_SIZES; s++)
        compute(r, geul_zero(r->ctx, 2, (int64_t[]){3, sizes[s]}), doubles(r, 3 * sizes[s]), 0, 0);
    compute(r, geul_zero(r->ctx, 2, (int64_t[]){3, 0}), doubles(r, 1), 0, 0);
}

void case_SCALE(struct run *r)
{
    for (int s = 0; s < N_SIZES; s++) {
        int64_t n = sizes[s];
        struct geul_tensor *x = strided(r, 4, n), *packed = LEAF(F32, 2, 4, n);
        double *want = doubles(r, 4 * n);
        ((float *)x->data)[0] = s % 2 ? NAN : INFINITY;
        for (int64_t i = 0; i < 4 * n; i++)
            want[i] = -0.3f * cpu_value(x, i);
        compute(r, geul_scale(r->ctx, x, -0.3f), want, 0, 1e-7);
        for (int64_t i = 0; i < 4 * n; i++)
            want[i] = -0.3f * cpu_value(packed, i);
        compute_in_place(r, geul_scale(r->ctx, packed, -0.3f), want, 0, 1e-7);
    }
}

static struct geul_tensor *seed_leaf(struct geul_context *ctx, int32_t a, int32_t b)
{
    uint64_t none = 0;
    struct geul_tensor *seed = cpu_leaf(ctx, &none, GEUL_TYPE_I32, 1, (int64_t[]){2}, 0);
    memcpy(seed->data, (int32_t[]){a, b}, 8);
    return seed;
}

/* Elements are kept, times 1 / (1 - p), or 0; another tensor of the shape, whatever its strides, loses the same ones.
 */
void case_DROPOUT(struct run *r)
{
    const float p = 0.3f;
    for (int s = 0; s < N_SIZES; s++) {
        int64_t n = sizes[s];
        struct geul_tensor *seed = seed_leaf(r->ctx, 7, -s), *x = strided(r, 5, n), *dy = LEAF(F32, 1, 5, n);
        struct geul_tensor *y = geul_dropout(r->ctx, x, seed, p, 3);
        double *want = doubles(r, 5 * n);
        ((float *)x->data)[0] = NAN;
        if (!op_compute(r, y))
            return;
        for (int64_t i = 0; i < 5 * n; i++)
            want[i] = cpu_value(y, i) == 0 ? 0 : cpu_value(x, i) / (1 - (double)p);
        verify(r, y, want, 0, 2e-7);
        for (int64_t i = 0; i < 5 * n; i++)
            want[i] = cpu_value(y, i) == 0 ? 0 : cpu_value(dy, i) / (1 - (double)p);
        compute_in_place(r, geul_dropout(r->ctx, dy, seed, p, 3), want, 0, 2e-7);
    }
    struct geul_tensor *x = LEAF(F32, 1, 3000);
    double *want = doubles(r, 3000);
    for (int i = 0; i < 3000; i++)
        want[i] = cpu_value(x, i);
    compute(r, geul_dropout(r->ctx, x, seed_leaf(r->ctx, 1, 2), 0, 3), want, 0, 0);
}

/* The slope of GELU at x. */
static double slope_of(double x, bool tanh_form)
{
    if (!tanh_form)
        return 0.5 * erfc(-x * 0.7071067811865476) + x * 0.3989422804014327 * exp(-0.5 * x * x);
    double u = 0.7978845608028654 * (x + 0.044715 * x * x * x), t = tanh(u);
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * 0.7978845608028654 * (1 + 3 * 0.044715 * x * x);
}

void case_GELU_BACK(struct run *r)
{
    for (int s = 0; s < 2 * N_SIZES; s++) {
        int64_t n = sizes[s / 2];
        enum geul_gelu kind = s % 2 ? GEUL_GELU_TANH : GEUL_GELU_ERF;
        struct geul_tensor *x = strided(r, 3, n), *dy = strided(r, 3, n), *packed = LEAF(F32, 1, 3, n);
        double *want = doubles(r, 3 * n);
        ((float *)x->data)[0] = NAN;
        for (int64_t i = 0; i < 3 * n; i++)
            want[i] = cpu_value(dy, i) * slope_of(cpu_value(x, i), s % 2);
        compute(r, geul_gelu_back(r->ctx, dy, x, kind), want, 2e-6, 1e-6);
        for (int64_t i = 0; i < 3 * n; i++)
            want[i] = cpu_value(packed, i) * slope_of(cpu_value(x, i), s % 2);
        compute_in_place(r, geul_gelu_back(r->ctx, packed, x, kind), want, 2e-6, 1e-6);
    }
}

/* Row row of x at mean 0 and variance 1 into h; returns 1 / deviation. */
static double normalized(const struct geul_tensor *x, int64_t row, double *h)
{
    int64_t n = geul_cols(x);
    double mean = 0, var = 0;
    for (int64_t i = 0; i < n; i++)
        mean += cpu_value(x, row * n + i) / (double)n;
    for (int64_t i = 0; i < n; i++)
        var += pow(cpu_value(x, row * n + i) - mean, 2) / (double)n;
    for (int64_t i = 0; i < n; i++)
        h[i] = (cpu_value(x, row * n + i) - mean) / sqrt(var + (double)1e-5f);
    return 1 / sqrt(var + (double)1e-5f);
}

static void norm_back_of(const struct geul_tensor *dy, const struct geul_tensor *x, const struct geul_tensor *w,
                         double *want)
{
    int64_t n = geul_cols(x);
    double *h = malloc((size_t)n * sizeof *h);
    for (int64_t row = 0; row < geul_rows(x); row++) {
        double inverse = normalized(x, row, h), sum = 0, products = 0;
        for (int64_t i = 0; i < n; i++) {
            double g = cpu_value(dy, row * n + i) * cpu_value(w, i);
            sum += g / (double)n;
            products += g * h[i] / (double)n;
        }
        for (int64_t i = 0; i < n; i++)
            want[row * n + i] = inverse * (cpu_value(dy, row * n + i) * cpu_value(w, i) - sum - h[i] * products);
    }
    free(h);
}

void case_NORM_BACK(struct run *r)
{
    for (int s = 1; s < N_SIZES; s++) { /* of one column the result is rounding, times 1 / sqrt(eps) */
        int64_t n = sizes[s];
        struct geul_tensor *x = strided(r, 5, n), *dy = strided(r, 5, n), *w = LEAF(F32, 1, n);
        struct geul_tensor *packed = LEAF(F32, 1, 5, n);
        double *want = doubles(r, 5 * n);
        norm_back_of(dy, x, w, want);
        compute(r, geul_norm_back(r->ctx, dy, x, w, 1e-5f), want, 1e-5, 1e-5);
        norm_back_of(packed, x, w, want);
        compute_in_place(r, geul_norm_back(r->ctx, packed, x, w, 1e-5f), want, 1e-5, 1e-5);
    }
}

void case_NORM_SUMS(struct run *r)
{
    static const int64_t rows[] = {1, 5, 127, 300};
    for (int s = 0; s < N_SIZES; s++) {
        int64_t n = sizes[s], m = rows[s % 4];
        struct geul_tensor *x = strided(r, m, n), *dy = strided(r, m, n);
        double *want = doubles(r, 2 * n), *h = doubles(r, n);
        for (int64_t row = 0; row < m; row++) {
            normalized(x, row, h);
            for (int64_t i = 0; i < n; i++) {
                want[i] += cpu_value(dy, row * n + i) * h[i];
                want[n + i] += cpu_value(dy, row * n + i);
            }
        }
        compute(r, geul_norm_sums(r->ctx, dy, x, 1e-5f), want, 1e-5 * sqrt((double)m), 1e-5);
    }
    struct geul_tensor *none = LEAF(F32, 1, 0, 9);
    compute(r, geul_norm_sums(r->ctx, none, none, 1e-5f), doubles(r, 18), 0, 0);
}

void case_ACCUMULATE(struct run *r)
{
    for (int s = 0; s < N_SIZES; s++) {
        int64_t n = sizes[s], m = s % 3 ? 40 : 5;
        struct geul_tensor *x = strided(r, m, n), *c = s % 3 ? LEAF(F32, 2, n) : LEAF(F32, 2, m, n);
        int64_t elements = geul_tensor_elements(c);
        double *want = doubles(r, elements);
        for (int64_t i = 0; i < elements; i++)
            want[i] = cpu_value(c, i);
        for (int64_t i = 0; i < m * n; i++)
            want[i % elements] += cpu_value(x, i);
        struct geul_tensor *y = geul_accumulate(r->ctx, c, x);
        if (op_compute(r, y))
            verify(r, y, want, 2e-5, 1e-6);
    }
    /* two dimensions each */
    struct geul_tensor *x = cpu_view(geul_transpose(r->ctx, LEAF(F32, 1, 3, 2, 4, 700), 0, 1)),
                       *c = LEAF(F32, 1, 4, 700);
    double *want = doubles(r, 2800);
    for (int64_t i = 0; i < 2800; i++)
        want[i] = cpu_value(c, i);
    for (int64_t i = 0; i < 6 * 2800; i++)
        want[i % 2800] += cpu_value(x, i);
    struct geul_tensor *y = geul_accumulate(r->ctx, c, x);
    if (op_compute(r, y))
        verify(r, y, want, 5e-6, 1e-6);
}

/* The part of c that view shows grows by x. */
static void one_patch(struct run *r, struct geul_tensor *c, struct geul_tensor *view, struct geul_tensor *x)
{
    struct geul_params_region region = {.offset = (size_t)((uint8_t *)view->data - (uint8_t *)c->data)};
    memcpy(region.stride, view->stride, sizeof region.stride);
    int64_t n = geul_tensor_elements(c);
    float *before = geul_arena(r->ctx, (size_t)n, sizeof *before);
    double *want = doubles(r, n);
    memcpy(before, c->data, (size_t)n * sizeof *before);
    for (int64_t i = 0; i < geul_tensor_elements(x); i++) {
        int64_t left = i;
        float *p = view->data;
        for (int d = view->n_dims - 1; d >= 0; d--) {
            p += (size_t)(left % view->shape[d]) * view->stride[d] / sizeof *p;
            left /= view->shape[d];
        }
        *p += (float)cpu_value(x, i);
    }
    for (int64_t i = 0; i < n; i++)
        want[i] = ((float *)c->data)[i];
    memcpy(c->data, before, (size_t)n * sizeof *before);
    struct geul_tensor *y = geul_patch(r->ctx, c, x, region);
    if (op_compute(r, y))
        verify(r, y, want, 0, 0);
}

void case_PATCH(struct run *r)
{
    for (int s = 0; s < N_SIZES; s++) {
        int64_t n = sizes[s];
        struct geul_tensor *c = LEAF(F32, 1, 4, n + 5);
        one_patch(r, c, cpu_view(geul_narrow(r->ctx, c, 1, 2, n)), strided(r, 4, n));
        c = LEAF(F32, 1, n, 7);
        one_patch(r, c, cpu_view(geul_transpose(r->ctx, c, 0, 1)), strided(r, 7, n));
    }
    /* the heads of the queries in a fused projection */
    struct geul_tensor *c = LEAF(F32, 1, 6, 3 * 4 * 20);
    struct geul_tensor *heads = geul_split_last(r->ctx, geul_narrow(r->ctx, c, 1, 80, 80), 4);
    one_patch(r, c, cpu_view(heads), LEAF(F32, 1, 6, 4, 20));
}

void case_SCATTER(struct run *r)
{
    enum { ROWS = 9, TOKENS = 12 };
    for (int s = 0; s < N_SIZES; s++) {
        int64_t n = sizes[s];
        struct geul_tensor *c = LEAF(F32, 1, ROWS, n), *x = strided(r, TOKENS, n), *ids = LEAF(I32, 0, TOKENS);
        int32_t *id = ids->data;
        memcpy(id, (int32_t[]){8, 0, -1, 9, INT32_MIN, 3, 3, 8, 3, INT32_MAX, 3, 0}, TOKENS * sizeof *id);
        double *want = doubles(r, ROWS * n);
        for (int64_t i = 0; i < ROWS * n; i++)
            want[i] = cpu_value(c, i);
        for (int64_t i = 0; i < TOKENS * n; i++)
            if (id[i / n] >= 0 && id[i / n] < ROWS)
                want[id[i / n] * n + i % n] += cpu_value(x, i);
        struct geul_tensor *y = geul_scatter(r->ctx, c, x, ids);
        if (op_compute(r, y))
            verify(r, y, want, 2e-6, 1e-6);
    }
}

void case_NORM2(struct run *r)
{
    for (int s = 0; s < N_SIZES + 2; s++) {
        int64_t n = s < N_SIZES ? sizes[s] : 9000;
        struct geul_tensor *x = s == N_SIZES ? LEAF(F32, 1, 131, n) : strided(r, 3, n);
        double sum = 0, others = 0;
        if (s > 2) {
            ((float *)x->data)[0] = 1e30f; /* its square overflows */
            ((float *)x->data)[2] = NAN;
            ((float *)x->data)[n - 1] = -INFINITY;
        }
        for (int64_t i = 0; i < geul_tensor_elements(x); i++) {
            double v = cpu_value(x, i);
            sum += isfinite(v) ? v * v : 0;
            others += !isfinite(v);
        }
        compute(r, geul_norm2(r->ctx, x), (double[]){sqrt(sum), others}, 0, 1e-7);
    }
    compute(r, geul_norm2(r->ctx, LEAF(F32, 1, 3, 0)), (double[]){0, 0}, 0, 0);
}

/* ------------------------------------------------------------------------ finite differences -- */

typedef struct geul_tensor *builder(struct geul_context *ctx, struct geul_tensor *const *leaf);

/* The sum of y's elements times those of dy. */
static double product(const struct geul_tensor *y, const struct geul_tensor *dy)
{
    double sum = 0;
    for (int64_t i = 0; i < geul_tensor_elements(y); i++)
        sum += cpu_value(y, i) * cpu_value(dy, i);
    return sum;
}

/* What build makes of the leaves times dy. */
static double value_of(struct geul_device *device, builder *build, struct geul_tensor *const *leaf,
                       const struct geul_tensor *dy)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_tensor *y = build(ctx, leaf);
    double value = cpu_compute(ctx, device, y) ? product(y, dy) : NAN;
    geul_context_free(ctx);
    return value;
}

/* Notes which operations y is made of. */
static void note_operations(const struct geul_tensor *y, bool *seen)
{
    seen[y->op] = true;
    for (int i = 0; i < y->n_src; i++)
        if (y->src[i])
            note_operations(y->src[i], seen);
}

/* The gradient of every leaf, as core/autodiff.c builds it, against central differences of the float32 result. seen:
 * see note_operations(). */
static void check_differences(bool *seen, const char *what, builder *build, struct geul_tensor *const *leaf,
                              int n_leaves, struct geul_tensor *dy)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_device *device = cpu_device(ctx, NULL, 2);
    struct geul_gradients *g = geul_gradients_new(ctx);
    for (int j = 0; j < n_leaves; j++)
        geul_gradients_want(g, leaf[j], NULL);
    struct geul_tensor *y = build(ctx, leaf);
    note_operations(y, seen);
    CHECK_MSG(geul_gradients_flow(g, y, dy, NULL) == GEUL_OK, "%s: %s", what, geul_error(ctx));
    for (int j = 0; j < n_leaves; j++) {
        struct geul_tensor *gradient = geul_gradients_of(g, leaf[j]);
        if (!cpu_compute(ctx, device, gradient))
            continue;
        for (int64_t i = 0; i < geul_tensor_elements(leaf[j]); i++) {
            const float h = 0x1p-7f;
            float *x = (float *)leaf[j]->data + i, old = *x;
            *x = old + h;
            double above = value_of(device, build, leaf, dy);
            *x = old - h;
            double below = value_of(device, build, leaf, dy), want = (above - below) / (2 * (double)h);
            *x = old;
            double got = cpu_value(gradient, i);
            CHECK_MSG(fabs(got - want) < 3e-4 * (1 + fabs(want)), "%s: leaf %d element %lld is %.7g, difference %.7g",
                      what, j, (long long)i, got, want);
        }
    }
    geul_device_close(ctx, device);
    geul_context_free(ctx);
}

static struct geul_tensor *build_gelu_erf(struct geul_context *ctx, struct geul_tensor *const *leaf)
{
    return geul_gelu(ctx, leaf[0], GEUL_GELU_ERF);
}

static struct geul_tensor *build_gelu_tanh(struct geul_context *ctx, struct geul_tensor *const *leaf)
{
    return geul_gelu(ctx, leaf[0], GEUL_GELU_TANH);
}

static struct geul_tensor *build_layernorm(struct geul_context *ctx, struct geul_tensor *const *leaf)
{
    return geul_layernorm(ctx, leaf[0], leaf[1], leaf[2], 1e-5f);
}

static struct geul_tensor *build_scale_and_drop(struct geul_context *ctx, struct geul_tensor *const *leaf)
{
    return geul_dropout(ctx, geul_scale(ctx, leaf[0], 1.7f), seed_leaf(ctx, 3, 4), 0.4f, 1);
}

/* Two uses of one leaf, one through a view: the gradients meet. */
static struct geul_tensor *build_parts(struct geul_context *ctx, struct geul_tensor *const *leaf)
{
    struct geul_tensor *half = geul_narrow(ctx, leaf[0], 1, 3, 9);
    return geul_add(ctx, geul_gelu(ctx, half, GEUL_GELU_ERF), geul_narrow(ctx, leaf[0], 1, 0, 9));
}

static struct geul_tensor *build_embed(struct geul_context *ctx, struct geul_tensor *const *leaf)
{
    uint64_t none = 0;
    struct geul_tensor *ids = cpu_leaf(ctx, &none, GEUL_TYPE_I32, 1, (int64_t[]){6}, 0);
    memcpy(ids->data, (int32_t[]){2, 0, 2, 1, 2, 0}, 24);
    return geul_embed(ctx, leaf[0], ids);
}

/* Tokens at positions that are far apart. */
static struct geul_tensor *seq_pos_leaf(struct geul_context *ctx, int64_t tokens)
{
    uint64_t none = 0;
    struct geul_tensor *seq_pos = cpu_leaf(ctx, &none, GEUL_TYPE_I32, 2, (int64_t[]){tokens, 2}, 0);
    for (int64_t t = 0; t < tokens; t++)
        set_seq_pos(seq_pos, t, 0, (int32_t)(t * 311 % 2048));
    return seq_pos;
}

static struct geul_tensor *build_rope(struct geul_context *ctx, struct geul_tensor *const *leaf)
{
    return geul_rope(ctx, leaf[0], seq_pos_leaf(ctx, 3), 8, 10000);
}

static struct geul_tensor *build_contiguous(struct geul_context *ctx, struct geul_tensor *const *leaf)
{
    return geul_contiguous(ctx, geul_transpose(ctx, leaf[0], 0, 1));
}

static struct geul_tensor *build_linear(struct geul_context *ctx, struct geul_tensor *const *leaf)
{
    return geul_linear(ctx, leaf[0], leaf[1], leaf[2], true);
}

/* A sequence of two tokens and one of three. */
static struct geul_tensor *build_attention(struct geul_context *ctx, struct geul_tensor *const *leaf)
{
    struct geul_tensor *seq_pos = seq_pos_leaf(ctx, 5);
    for (int t = 0; t < 5; t++)
        set_seq_pos(seq_pos, t, t / 2 > 0, t < 2 ? t : t - 2);
    return geul_attention(ctx, leaf[0], leaf[1], leaf[2], seq_pos, 0.4f);
}

static struct geul_tensor *build_loss(struct geul_context *ctx, struct geul_tensor *const *leaf)
{
    uint64_t none = 0;
    struct geul_tensor *targets = cpu_leaf(ctx, &none, GEUL_TYPE_I32, 1, (int64_t[]){4}, 0);
    memcpy(targets->data, (int32_t[]){2, 0, -1, 18}, 16);
    return geul_cross_entropy(ctx, leaf[0], targets, 0.1f, 0.01f);
}

TEST(cpu_gradients_agree_with_finite_differences)
{
    struct geul_context *ctx = geul_context_new(NULL);
    uint64_t seed = CPU_SEED;
#define RANDOM(...)                                                                                                    \
    cpu_leaf(ctx, &seed, GEUL_TYPE_F32, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),                     \
             (int64_t[]){__VA_ARGS__}, 1)
    struct geul_tensor *x = RANDOM(4, 19), *norm[] = {x, RANDOM(19), RANDOM(19)}, *dy = RANDOM(4, 19);
    struct geul_tensor *heads = RANDOM(3, 2, 11), *table = RANDOM(4, 5), *part = RANDOM(4, 12);
    struct geul_tensor *product[] = {x, RANDOM(6, 19), RANDOM(6)},
                       *qkv[] = {RANDOM(5, 2, 8), RANDOM(5, 2, 8), RANDOM(5, 2, 8)};
    bool seen[GEUL_OP_COUNT] = {false};
    check_differences(seen, "gelu", build_gelu_erf, &x, 1, dy);
    check_differences(seen, "gelu, tanh form", build_gelu_tanh, &x, 1, dy);
    check_differences(seen, "layernorm", build_layernorm, norm, 3, dy);
    check_differences(seen, "scale and dropout", build_scale_and_drop, &x, 1, dy);
    check_differences(seen, "parts of a leaf", build_parts, &part, 1, RANDOM(4, 9));
    check_differences(seen, "embed", build_embed, &table, 1, RANDOM(6, 5));
    check_differences(seen, "rope", build_rope, &heads, 1, RANDOM(3, 2, 11));
    check_differences(seen, "contiguous", build_contiguous, &x, 1, RANDOM(19, 4));
    check_differences(seen, "linear", build_linear, product, 3, RANDOM(4, 6));
    check_differences(seen, "attention", build_attention, qkv, 3, RANDOM(5, 2, 8));
    check_differences(seen, "cross entropy", build_loss, &x, 1, RANDOM(4));
    for (int op = GEUL_OP_LEAF + 1; op < GEUL_OP_COUNT; op++)
        CHECK_MSG(seen[op] || geul_op_info((enum geul_op)op)->backward == geul_backward_nondiff,
                  "%s has a gradient that no case here checks", geul_op_info((enum geul_op)op)->name);
    geul_context_free(ctx);
}

TEST(cpu_rope_turns_back)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_device *device = cpu_device(ctx, NULL, 2);
    uint64_t seed = CPU_SEED;
    struct geul_tensor *x = RANDOM(5, 3, 80), *seq_pos = seq_pos_leaf(ctx, 5),
                       *y = geul_rope(ctx, x, seq_pos, 64, 10000);
    union geul_op_params back = {.rope = {.n_rot = 64, .base = 10000, .back = true}};
    struct geul_tensor *again = geul_node(ctx, GEUL_OP_ROPE, (struct geul_tensor *const[]){y, seq_pos}, 2, &back);
    double want[5 * 3 * 80];
    for (int i = 0; i < 5 * 3 * 80; i++)
        want[i] = cpu_value(x, i);
    if (cpu_compute(ctx, device, again))
        cpu_close("rope there and back", again->data, want, 5 * 3 * 80, 1e-6, 0);
    CHECK_MSG(fabs(cpu_value(y, 240) - want[240]) > 1e-3, "rope turned nothing");
    geul_device_close(ctx, device);
    geul_context_free(ctx);
}

/* --------------------------------------------------------------------------- dropout's masks -- */

enum { MASK = 1 << 18 };

/* 1 where an element falls out. */
static void mask_of(struct geul_device *device, int32_t a, int32_t b, uint32_t salt, float p, uint8_t *mask)
{
    struct geul_context *ctx = geul_context_new(NULL);
    uint64_t none = 0;
    struct geul_tensor *x = cpu_leaf(ctx, &none, GEUL_TYPE_F32, 1, (int64_t[]){MASK}, 0);
    for (int i = 0; i < MASK; i++)
        ((float *)x->data)[i] = 1;
    struct geul_tensor *y = geul_dropout(ctx, x, seed_leaf(ctx, a, b), p, salt);
    if (cpu_compute(ctx, device, y))
        for (int i = 0; i < MASK; i++)
            mask[i] = ((float *)y->data)[i] == 0;
    geul_context_free(ctx);
}

/* Whether a share of n drawn with probability p is within five standard deviations. */
static void check_share(const char *what, double share, double p, double n)
{
    CHECK_MSG(fabs(share - p) < 5 * sqrt(p * (1 - p) / n), "%s: %.5f of %.0f, expected %.5f", what, share, n, p);
}

TEST(cpu_dropout_looks_random)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_device *device = cpu_device(ctx, NULL, 1);
    uint8_t *masks = malloc((size_t)MASK * 6);
    static const float shares[] = {0.001f, 0.1f, 0.5f, 0.9f};
    for (int k = 0; k < 4; k++) {
        double p = shares[k];
        static const int32_t which[6][3] = {{0, 0, 0}, {1, 0, 0}, {0, 1, 0}, {0, 0, 1}, {-1, 0, 0}, {0, 0, 2}};
        for (int j = 0; j < 6; j++) {
            uint8_t *mask = masks + (size_t)j * MASK;
            double n = 0;
            mask_of(device, which[j][0], which[j][1], (uint32_t)which[j][2], shares[k], mask);
            for (int i = 0; i < MASK; i++)
                n += mask[i];
            check_share("dropped", n / MASK, p, MASK);
            for (int lag = 1; lag <= 4096; lag *= 2) { /* pairs of elements */
                double both = 0;
                for (int i = 0; i + lag < MASK; i++)
                    both += mask[i] & mask[i + lag];
                check_share("dropped with a neighbour", both / (MASK - lag), p * p, MASK - lag);
            }
            for (int i = 0; i < j; i++) { /* pairs of masks, also shifted by one */
                double both[3] = {0};
                for (int e = 1; e + 1 < MASK; e++)
                    for (int shift = 0; shift < 3; shift++)
                        both[shift] += mask[e] & masks[(size_t)i * MASK + (size_t)(e + shift - 1)];
                for (int shift = 0; shift < 3; shift++)
                    check_share("dropped under two seeds", both[shift] / (MASK - 2), p * p, MASK - 2);
            }
        }
    }
    free(masks);
    geul_device_close(ctx, device);
    geul_context_free(ctx);
}

TEST(cpu_dropout_is_the_same_everywhere)
{
    struct geul_context *ctx = geul_context_new(NULL);
    uint8_t *want = malloc(MASK), *got = malloc(MASK);
    const char *variant;
    bool supported;
    for (int i = 0; geul_cpu_variant(i, &variant, &supported); i++) {
        struct geul_device *device = supported ? cpu_device(ctx, variant, 3) : NULL;
        if (!device)
            continue;
        mask_of(device, 5, 6, 7, 0.25f, i ? got : want);
        CHECK_MSG(i == 0 || memcmp(want, got, MASK) == 0, "%s drops others than scalar", variant);
        geul_device_close(ctx, device);
    }
    free(want);
    free(got);
    geul_context_free(ctx);
}
