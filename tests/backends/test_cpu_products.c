/* test_cpu_products.c: the products of training: either side transposed, weights of any type taken as float32 or with
 * both sides rounded to bfloat16, and sums that grow in place; under every instruction set and bit-equal for threads.
 */
#include "tests/backends/cpu_cases.h"

#include "core/half.h"

struct shape {
    int64_t m, n, k;
};

/* One product in one form. */
struct form {
    enum geul_type type;
    enum geul_precision precision;
    bool a_turned, b_turned, grows;
};

static double rounded(double v, bool bf16)
{
    return bf16 ? geul_bf16_to_f32(geul_f32_to_bf16((float)v)) : v;
}

/* a (m, k), whose memory may be (k, m). */
static struct geul_tensor *left(struct geul_context *ctx, uint64_t *seed, struct shape s, bool turned)
{
    struct geul_tensor *a =
        cpu_leaf(ctx, seed, GEUL_TYPE_F32, 2, turned ? (int64_t[]){s.k, s.m + 5} : (int64_t[]){s.m, s.k + 5}, 1);
    a = cpu_view(geul_narrow(ctx, a, 1, 3, turned ? s.m : s.k));
    return turned ? cpu_view(geul_transpose(ctx, a, 0, 1)) : a;
}

/* b (k, n), whose memory is (n, k) when turned. */
static struct geul_tensor *right(struct geul_context *ctx, uint64_t *seed, struct shape s, const struct form *f)
{
    struct geul_tensor *b =
        cpu_leaf(ctx, seed, f->type, 2, f->b_turned ? (int64_t[]){s.n, s.k} : (int64_t[]){s.k, s.n}, 1);
    return f->b_turned ? cpu_view(geul_transpose(ctx, b, 0, 1)) : b;
}

/* Element (i, j) of a matrix of any type whose blocks may run along either dimension. */
static double element(const struct geul_tensor *t, int64_t i, int64_t j)
{
    const struct geul_tensor *w =
        t->block_dim == 0 && t->op == GEUL_OP_VIEW && geul_type_block(t->type) > 1 ? t->src[0] : t;
    return w == t ? cpu_value(t, i * t->shape[1] + j) : cpu_value(w, j * w->shape[1] + i);
}

/* One product, and what it gives in double: of the values as they are, and rounded to bfloat16. */
struct product {
    struct geul_context *ctx;
    struct geul_tensor *a, *b, *c;
    double *want[2];
    size_t n;
};

static struct product make_product(struct shape s, const struct form *f)
{
    uint64_t seed = CPU_SEED;
    struct product p = {.ctx = geul_context_new(NULL), .n = (size_t)(s.m * s.n)};
    p.a = left(p.ctx, &seed, s, f->a_turned);
    p.b = right(p.ctx, &seed, s, f);
    p.c = cpu_leaf(p.ctx, &seed, GEUL_TYPE_F32, 2, (int64_t[]){s.m, s.n}, 1);
    double *a = malloc((size_t)(s.m * s.k + 1) * sizeof *a), *b = malloc((size_t)(s.k * s.n + 1) * sizeof *b);
    for (int bf16 = 0; bf16 < 2; bf16++) {
        double *want = p.want[bf16] = geul_arena(p.ctx, p.n, sizeof *want);
        for (int64_t i = 0; i < s.m * s.k; i++)
            a[i] = rounded(cpu_value(p.a, i), bf16);
        for (int64_t i = 0; i < s.k * s.n; i++)
            b[i] = rounded(element(p.b, i / s.n, i % s.n), bf16);
        for (int64_t i = 0; i < s.m * s.n; i++) {
            want[i] = f->grows ? cpu_value(p.c, i) : 0;
            for (int64_t j = 0; j < s.k; j++)
                want[i] += a[i / s.n * s.k + j] * b[j * s.n + i % s.n];
        }
    }
    free(a);
    free(b);
    return p;
}

/* Computes it under an instruction set into out. */
static bool compute(const struct product *p, const struct form *f, const char *variant, int threads, float *out)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_device *device = cpu_device(ctx, variant, threads);
    struct geul_tensor *y;
    if (f->grows) {
        memcpy(out, p->c->data, p->n * sizeof *out);
        y = geul_addmm(ctx, geul_leaf(ctx, GEUL_TYPE_F32, 2, p->c->shape, "sum", NULL, out), p->a, p->b, f->precision);
    } else {
        y = geul_matmul_at(ctx, f->precision, p->a, p->b);
    }
    bool ok = device && CHECK_MSG(y != NULL, "%s", geul_error(ctx)) && cpu_compute(ctx, device, y);
    if (ok && !f->grows)
        memcpy(out, y->data, p->n * sizeof *out);
    geul_device_close(ctx, device);
    geul_context_free(ctx);
    return ok;
}

/* Under every instruction set against the reference, and the same bits with more threads. */
static void check_product(struct shape s, const struct form *f)
{
    const char *variant;
    bool supported;
    int64_t block = geul_type_block(f->type);
    s.k = f->b_turned ? (s.k + block - 1) / block * block : s.k;
    s.n = f->b_turned ? s.n : (s.n + block - 1) / block * block;
    struct product p = make_product(s, f);
    float *first = malloc(p.n * sizeof *first), *other = malloc(p.n * sizeof *other);
    for (int i = 0; geul_cpu_variant(i, &variant, &supported); i++) {
        bool bf16 = f->precision == GEUL_PRECISION_BF16 && strcmp(variant, "avx512bf16") == 0;
        char what[160];
        snprintf(what, sizeof what, "%s %s %s (%d, %d, %d)%s%s%s", variant, geul_type_name(f->type),
                 bf16 ? "bf16" : "f32", (int)s.m, (int)s.n, (int)s.k, f->a_turned ? " a turned" : "",
                 f->b_turned ? " b turned" : "", f->grows ? " grows" : "");
        if (!supported || !compute(&p, f, variant, 1, first) || !compute(&p, f, variant, 3, other))
            continue;
        cpu_close(what, first, p.want[bf16], (int64_t)p.n, 4e-6 * sqrt((double)s.k), 2e-6);
        CHECK_MSG(memcmp(first, other, p.n * sizeof *first) == 0, "%s: other bits with 3 threads", what);
    }
    free(first);
    free(other);
    geul_context_free(p.ctx);
}

TEST(cpu_products_of_training_on_every_instruction_set)
{
    static const enum geul_type types[] = {GEUL_TYPE_F32,  GEUL_TYPE_F16,    GEUL_TYPE_BF16,  GEUL_TYPE_Q8_0,
                                           GEUL_TYPE_Q4_0, GEUL_TYPE_Q2_K,   GEUL_TYPE_Q4_K,  GEUL_TYPE_Q6_K,
                                           GEUL_TYPE_Q5_1, GEUL_TYPE_IQ4_NL, GEUL_TYPE_IQ4_XS};
    static const struct shape shapes[] = {{1, 1, 1}, {3, 40, 7}, {13, 33, 65}, {17, 8, 515}, {5, 270, 260}};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            for (size_t form = 0; form < 16; form++) {
                struct form f = {types[t], form & 8 ? GEUL_PRECISION_BF16 : GEUL_PRECISION_F32, form & 1, form & 2,
                                 form & 4};
                if (geul_type_block(types[t]) == 1 || (form + t + i) % 4 == 0) /* a quarter of what costs time */
                    check_product(shapes[i], &f);
            }
}

/* More rows than stay near while panels come and go. */
TEST(cpu_products_with_tall_sides)
{
    struct form tall = {GEUL_TYPE_F32, GEUL_PRECISION_F32, true, false, true};
    check_product((struct shape){1100, 37, 300}, &tall);
    tall.precision = GEUL_PRECISION_BF16;
    check_product((struct shape){1100, 35, 600}, &tall);
}

/* Sums that are added to have their own memory: two sums into one leaf give both products, in order. */
TEST(cpu_addmm_adds_twice)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_runtime *rt = geul_runtime_new(ctx, NULL);
    REQUIRE(rt);
    struct geul_tensor *a = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){2, 3}, "a");
    struct geul_tensor *b = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){3, 2}, "b");
    struct geul_tensor *c = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){2, 2}, "c");
    struct geul_tensor *y = geul_addmm(ctx, c, a, b, GEUL_PRECISION_F32);
    y = geul_addmm(ctx, y, a, b, GEUL_PRECISION_F32);
    struct geul_graph *g = geul_graph_new(ctx, &y, 1);
    const float av[] = {1, 2, 3, 4, 5, 6}, bv[] = {1, 0, 0, 1, 1, 1}, cv[] = {10, 20, 30, 40};
    float out[4];
    REQUIRE(g && geul_runtime_plan(rt, g) == GEUL_OK);
    REQUIRE(geul_tensor_write(a, av, sizeof av) == GEUL_OK && geul_tensor_write(b, bv, sizeof bv) == GEUL_OK);
    REQUIRE(geul_tensor_write(c, cv, sizeof cv) == GEUL_OK && geul_runtime_run(rt, g) == GEUL_OK);
    REQUIRE(geul_tensor_read(y, out, sizeof out) == GEUL_OK);
    CHECK(out[0] == 18 && out[1] == 30 && out[2] == 50 && out[3] == 62);
    geul_runtime_free(rt);
    geul_context_free(ctx);
}
