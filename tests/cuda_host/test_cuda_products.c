/* test_cuda_products.c: MATMUL and ADDMM as nodes on the CUDA backend: every layout, type and precision in every way
 * that the table of cuda_matmul.c has, with a cuBLAS and without, against double precision. What a way rounds is
 * rounded here as well, so that only the order of float32 sums is left: every addition is off by at most 2^-24 of a
 * partial sum, whose size is about sqrt(k). */
#include "backends/cuda/blas.h"
#include "backends/cuda/cuda_matmul.h"
#include "backends/cuda/device.h"
#include "core/half.h"
#include "tests/backends/device_ops.h"
#include "tests/cuda_host/cuda_rig.h"
#include "tests/cuda_host/driver/host_cublas.h"
#include "tests/cuda_host/host_card.h"
#include "tests/cuda_host/host_gpu.h"

#include "core/os.h"

static struct host_cublas *cublas; /* NULL: there is no cuBLAS */

static void check_on(const char *name, const char *what, void (*run_case)(struct run *), bool exact)
{
    host_card_name = name;
    const struct device_kind kind = host_card_kind();
    int unsupported = check_device_case(&kind, what, run_case, exact);
    CHECK_INT(unsupported, 0);
    host_card_check();
    CHECK_MSG(!cublas || !cublas->misuse, "cuBLAS: %s", cublas ? cublas->misuse : "");
    CHECK(!cublas || cublas->open == 0);
}

/* ------------------------------------------------------------------------------------- cuBLAS -- */

/* What it gives to a stream, as a launch: one thread of it works. */
struct boxed {
    void (*work)(const void *args);
    _Alignas(16) uint8_t args[128];
};

static void work_once(const void *p)
{
    const struct boxed *b = p;
    if (cuda_host_now.thread == 0)
        b->work(b->args);
}

static void launch_boxed(void *handle, void (*work)(const void *), const void *args, size_t bytes)
{
    struct boxed b = {.work = work};
    struct cuda_stream stream = {.handle = handle};
    struct cuda_host_launch launch = {"cuBLAS", __FILE__, __LINE__, {1, 1, 1}, 32, 0, work_once, &b, sizeof b};
    if (!CHECK(bytes <= sizeof b.args))
        exit(2);
    memcpy(b.args, args, bytes);
    int error = cuda_host_submit(&stream, &launch);
    CHECK_INT(error, 0);
}

/* A file of the build folder. */
static const char *in_build(const char *name)
{
    static char path[1024];
    snprintf(path, sizeof path, "%s", GEUL_BINARY);
    char *slash = strrchr(path, '/');
    snprintf(slash, sizeof path - (size_t)(slash - path), "/%s", name);
    return path;
}

static void have_blas(void)
{
    char why[200];
    const char *path = in_build("host-cublas/libcublas.so.13");
    void *library = geul_os_library_open(path, why, sizeof why);
    REQUIRE(library);
    void *symbol = geul_os_library_symbol(library, "host_cublas");
    struct host_cublas *(*get)(void);
    memcpy(&get, &symbol, sizeof get);
    cublas = get();
    cublas->launch = launch_boxed;
    host_gpu_blas(path);
}

/* ----------------------------------------------------------------------------------- products -- */

struct product {
    enum geul_type type;
    enum geul_precision precision;
    int64_t m, n, k;
    bool a_turned, b_turned, grows, bias;
    enum { NOTHING, GELU, SUM, TWO_SUMS } end; /* what follows, and is computed with it (fuse.c) */
};

/* As the kernels round a factor. */
enum rounding { AS_IT_IS, INT8, HALF, BFLOAT };

static bool of_blocks(const struct product *p)
{
    return geul_type_block(p->type) > 1;
}

/* Whether weights of blocks are decoded to bfloat16 for that many tokens (cuda_matmul.c: ways). */
static bool is_decoded(const struct run *r, const struct product *p)
{
    bool sixteen = p->type == GEUL_TYPE_Q2_K || p->type == GEUL_TYPE_Q3_K || p->type == GEUL_TYPE_Q6_K;
    return cublas && geul_cuda_device(r->device)->card.bfloat_products && !r->exact && p->m > (sixteen ? 512 : 1024);
}

static enum rounding rounding_of(const struct run *r, const struct product *p, bool of_b)
{
    const bool bfloat = geul_cuda_device(r->device)->card.bfloat_products;
    const bool dots = r->exact || (p->m <= 4 && p->b_turned);
    if (p->precision == GEUL_PRECISION_BF16)
        return bfloat ? BFLOAT : AS_IT_IS;
    if (p->precision == GEUL_PRECISION_F32 || p->type == GEUL_TYPE_F32)
        return AS_IT_IS;
    if (of_blocks(p))
        return is_decoded(r, p) ? BFLOAT : of_b ? AS_IT_IS : INT8;
    if (of_b || dots)
        return AS_IT_IS;
    return p->type == GEUL_TYPE_F16 ? HALF : bfloat ? BFLOAT : AS_IT_IS;
}

static double as_bfloat(double v)
{
    return (double)geul_bf16_to_f32(geul_f32_to_bf16((float)v));
}

/* A row of n values in place. */
static void round_row(double *x, int64_t n, enum rounding how)
{
    double most = 0;
    int exponent;
    for (int64_t i = 0; i < n; i++)
        most = fmax(most, fabs(x[i]));
    frexp(most, &exponent);
    for (int64_t i = 0; i < n; i++) {
        if (how == BFLOAT)
            x[i] = as_bfloat(x[i]);
        if (how == HALF) /* the largest between 2^8 and 2^9 */
            x[i] = ldexp((double)geul_f16_to_f32(geul_f32_to_f16((float)ldexp(x[i], 9 - exponent))), exponent - 9);
    }
    for (int64_t i = 0; how == INT8 && i < n; i += 32) {
        float amax = 0;
        for (int64_t j = i; j < i + 32; j++)
            amax = fmaxf(amax, fabsf((float)x[j]));
        for (int64_t j = i; amax > 0 && j < i + 32; j++)
            x[j] = (double)lrintf((float)x[j] * (127.0f / amax)) * (double)(amax / 127.0f);
    }
}

/* a (m, k), whose memory may be (k, m), with gaps between rows. */
static struct geul_tensor *left(struct run *r, const struct product *p)
{
    struct geul_tensor *a = p->a_turned ? LEAF(F32, 1, p->k, p->m + 5) : LEAF(F32, 1, p->m, p->k + 5);
    a = cpu_view(geul_narrow(r->ctx, a, 1, 3, p->a_turned ? p->m : p->k));
    return p->a_turned ? cpu_view(geul_transpose(r->ctx, a, 0, 1)) : a;
}

/* b (k, n), whose memory is (n, k) when turned. Plain ones have gaps between rows. */
static struct geul_tensor *right(struct run *r, const struct product *p, const struct geul_tensor **memory)
{
    int64_t rows = p->b_turned ? p->n : p->k, columns = p->b_turned ? p->k : p->n;
    int64_t gap = of_blocks(p) ? 0 : p->n % 3 ? 3 : 8;
    struct geul_tensor *w = cpu_leaf(r->ctx, &r->seed, p->type, 2, (int64_t[]){rows, columns + gap}, 1);
    if (gap)
        w = cpu_view(geul_narrow(r->ctx, w, 1, 0, columns));
    *memory = w;
    return p->b_turned ? cpu_view(geul_transpose(r->ctx, w, 0, 1)) : w;
}

/* want (m, n) += what a and b give when rounded as the card does. */
static void multiply(const struct run *r, const struct product *p, const struct geul_tensor *a,
                     const struct geul_tensor *w, double *want)
{
    double *x = doubles(r, p->m * p->k), *y = doubles(r, p->n * p->k);
    for (int64_t i = 0; i < p->m * p->k; i++)
        x[i] = cpu_value(a, i);
    for (int64_t i = 0; i < p->n * p->k; i++)
        y[i] = p->b_turned ? cpu_value(w, i) : cpu_value(w, i % p->k * p->n + i / p->k);
    for (int64_t i = 0; i < p->m && p->k; i++)
        round_row(x + i * p->k, p->k, rounding_of(r, p, false));
    for (int64_t i = 0; i < p->n && p->k; i++)
        round_row(y + i * p->k, p->k, rounding_of(r, p, true));
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->n; j++)
            for (int64_t k = 0; k < p->k; k++)
                want[i * p->n + j] += x[i * p->k + k] * y[j * p->k + k];
}

static const char *describe(const struct product *p)
{
    static char text[160];
    static const char *const precisions[] = {"as it is", "f32", "bf16"};
    static const char *const ends[] = {"", " gelu", " sum", " two sums"};
    snprintf(text, sizeof text, "%s %s (%d, %d, %d)%s%s%s%s%s", geul_type_name(p->type), precisions[p->precision],
             (int)p->m, (int)p->n, (int)p->k, p->a_turned ? " a turned" : "", p->b_turned ? " b turned" : "",
             p->grows ? " grows" : "", p->bias ? " bias" : "", ends[p->end]);
    return text;
}

/* y and what follows it; want too. */
static struct geul_tensor *end_product(struct run *r, const struct product *p, struct geul_tensor *y, double *want)
{
    const int64_t n = p->m * p->n;
    for (int64_t i = 0; p->end == GELU && i < n; i++)
        want[i] = 0.5 * want[i] * erfc(-want[i] * 0.7071067811865476);
    if (p->end == GELU)
        return geul_gelu(r->ctx, y, GEUL_GELU_ERF);
    for (int k = SUM; k <= (int)p->end; k++) {
        struct geul_tensor *add = LEAF(F32, 1, p->m, p->n);
        for (int64_t i = 0; i < n; i++)
            want[i] += cpu_value(add, i);
        y = geul_add(r->ctx, y, add);
    }
    return y;
}

static void one_product(struct run *r, const struct product *p)
{
    const struct geul_tensor *w;
    struct geul_tensor *a = left(r, p), *b = right(r, p, &w), *c = LEAF(F32, 1, p->m, p->n), *bias = LEAF(F32, 1, p->n);
    double *want = doubles(r, p->m * p->n);
    for (int64_t i = 0; i < p->m * p->n; i++)
        want[i] = p->grows ? cpu_value(c, i) : p->bias ? cpu_value(bias, i % p->n) : 0;
    multiply(r, p, a, w, want);
    struct geul_tensor *y;
    if (p->grows) {
        y = geul_addmm(r->ctx, c, a, b, p->precision);
    } else {
        union geul_op_params params = {.matmul = {p->precision}};
        y = geul_node(r->ctx, GEUL_OP_MATMUL, (struct geul_tensor *[]){a, b, bias}, p->bias ? 3 : 2, &params);
    }
    y = geul_named(end_product(r, p, y, want), "%s", describe(p));
    if (op_compute(r, y))
        verify(r, y, want, 3e-6 * sqrt((double)p->k + 1), 2e-6);
}

/* ------------------------------------------------------------------------------------- cases -- */

/* Every block type times numbers of tokens round the edges of dots and tiles. */
static void case_blocks(struct run *r)
{
    static const int64_t tokens[] = {5, 8, 9, 16, 17, 33, 64, 65};
    static const int64_t rows[] = {33, 20, 129, 8, 1};
    int n = 0;
    for (enum geul_type type = 0; type < GEUL_TYPE_COUNT; type++)
        for (size_t i = 0; geul_type_block(type) > 1 && i < sizeof tokens / sizeof *tokens; i++, n++) {
            int64_t k = geul_type_block(type) == 32 ? 32 * (1 + n % 9) : 256 * (1 + n % 2);
            struct product p = {
                type, GEUL_PRECISION_WEIGHTS, tokens[i], rows[n % 5], k, n % 7 == 3, true, n % 5 == 2, false, NOTHING};
            p.bias = !p.grows && n % 2;
            if (!r->exact || n % 8 == 0)
                one_product(r, &p);
        }
}

/* How many of the layouts are taken: every one, or every third, or for cuBLAS those with many tokens. */
static enum { EVERY, THIRDS, MANY_TOKENS } taken;

/* Every layout and precision. */
static void case_layouts(struct run *r)
{
    static const enum geul_type types[] = {GEUL_TYPE_F32,  GEUL_TYPE_F16,  GEUL_TYPE_BF16,
                                           GEUL_TYPE_Q8_0, GEUL_TYPE_Q6_K, GEUL_TYPE_IQ4_XS};
    static const enum geul_precision precisions[] = {GEUL_PRECISION_F32, GEUL_PRECISION_BF16, GEUL_PRECISION_WEIGHTS};
    static const struct {
        int64_t m, n, k;
    } shapes[] = {{3, 40, 64}, {9, 34, 33}, {66, 20, 40}, {1, 1, 1}, {17, 130, 7}};
    int n = 0;
    for (size_t t = 0; t < sizeof types / sizeof *types; t++)
        for (int form = 0; form < 24; form++, n++) {
            const int64_t block = geul_type_block(types[t]);
            const size_t shape = taken == MANY_TOKENS ? 2 : (size_t)n % 5;
            struct product p = {types[t],        precisions[form / 8],
                                shapes[shape].m, shapes[shape].n,
                                shapes[shape].k, form & 1,
                                form & 2,        form & 4,
                                false,           NOTHING};
            p.bias = !p.grows && n % 3 == 0;
            p.k = p.b_turned ? (p.k + block - 1) / block * block : p.k;
            p.n = p.b_turned ? p.n : (p.n + block - 1) / block * block;
            bool few = block > 1 || taken != EVERY;
            if ((block == 1 || p.precision != GEUL_PRECISION_WEIGHTS) && (!few || n % 3 == (int)t % 3))
                one_product(r, &p);
        }
    one_product(r, &(struct product){GEUL_TYPE_F32, GEUL_PRECISION_F32, 3, 5, 0, false, true, false, true, NOTHING});
}

/* What follows a product, in every way. */
static void case_ends(struct run *r)
{
    static const enum geul_type types[] = {GEUL_TYPE_F32, GEUL_TYPE_F16, GEUL_TYPE_BF16, GEUL_TYPE_Q8_0};
    static const int64_t tokens[] = {3, 9, 66};
    for (int n = 0; n < 4 * 3 * 3; n++) {
        struct product p = {
            types[n % 4], GEUL_PRECISION_WEIGHTS, tokens[n / 4 % 3], 34, 64, false, true, false, n % 5 > 0, GELU};
        p.end = n < 12 ? GELU : n < 24 ? SUM : TWO_SUMS;
        one_product(r, &p);
    }
}

/* Weights that are decoded in several slabs: of 256 rows here. */
static void case_slabs(struct run *r)
{
    geul_cuda_slab_bytes = 1;
    static const struct product products[] = {
        {GEUL_TYPE_F16, GEUL_PRECISION_BF16, 6, 300, 24, false, true, true, false, NOTHING},
        {GEUL_TYPE_F32, GEUL_PRECISION_BF16, 66, 300, 24, true, false, false, true, NOTHING},
        {GEUL_TYPE_Q8_0, GEUL_PRECISION_F32, 5, 544, 32, false, false, false, true, NOTHING},
        {GEUL_TYPE_Q4_K, GEUL_PRECISION_F32, 65, 260, 256, false, true, true, false, NOTHING},
        {GEUL_TYPE_Q8_0, GEUL_PRECISION_BF16, 5, 288, 9, false, false, false, true, NOTHING}};
    for (size_t i = 0; i < sizeof products / sizeof *products; i++)
        one_product(r, &products[i]);
}

/* So many tokens that weights of blocks are decoded for cuBLAS. */
static void case_prompts(struct run *r)
{
    one_product(
        r, &(struct product){GEUL_TYPE_Q4_0, GEUL_PRECISION_WEIGHTS, 1030, 9, 32, false, true, false, true, NOTHING});
    one_product(
        r, &(struct product){GEUL_TYPE_Q3_K, GEUL_PRECISION_WEIGHTS, 520, 5, 256, false, true, false, false, NOTHING});
}

/* NaN and infinity come out, in their own row only. */
static void case_nan(struct run *r)
{
    enum { N = 34, K = 256 };
    static const int64_t tokens[] = {3, 6, 66};
    for (enum geul_type type = 0; type < GEUL_TYPE_COUNT; type++)
        for (size_t i = r->exact ? 2 : 0; geul_type_is_weight(type) && i < sizeof tokens / sizeof *tokens; i++) {
            struct product p = {
                type, GEUL_PRECISION_WEIGHTS, r->exact ? 5 : tokens[i], N, K, type % 2, true, false, false, NOTHING};
            const struct geul_tensor *w;
            struct geul_tensor *a = left(r, &p), *b = right(r, &p, &w);
            const int64_t row = p.m - 2;
            uint8_t *at = (uint8_t *)a->data + (size_t)row * a->stride[0] + 77 * a->stride[1];
            *(float *)(void *)at = i % 2 ? NAN : -INFINITY;
            struct geul_tensor *y = geul_matmul(r->ctx, a, b);
            bool done = op_compute(r, y);
            for (int64_t j = 0; done && j < p.m * N; j++)
                CHECK_MSG(isfinite(cpu_value(y, j)) == (j / N != row), "%s, %s: row %d", r->what, describe(&p),
                          (int)(j / N));
        }
}

/* With exact the bits of a row are the same whatever rows come with it. */
static void case_cuts(struct run *r)
{
    static const struct product products[] = {
        {GEUL_TYPE_Q4_K, GEUL_PRECISION_WEIGHTS, 11, 34, 512, false, true, false, true, NOTHING},
        {GEUL_TYPE_Q8_0, GEUL_PRECISION_F32, 11, 64, 40, false, false, false, false, NOTHING},
        {GEUL_TYPE_F16, GEUL_PRECISION_WEIGHTS, 11, 20, 100, false, true, false, true, NOTHING},
        {GEUL_TYPE_F32, GEUL_PRECISION_BF16, 11, 33, 72, false, true, false, false, NOTHING},
        {GEUL_TYPE_BF16, GEUL_PRECISION_F32, 70, 16, 33, false, false, false, false, NOTHING}};
    for (size_t i = 0; i < sizeof products / sizeof *products; i++) {
        const struct product *p = &products[i];
        const struct geul_tensor *w;
        struct geul_tensor *a = left(r, p), *b = right(r, p, &w);
        union geul_op_params params = {.matmul = {p->precision}};
        struct geul_tensor *whole = geul_node(r->ctx, GEUL_OP_MATMUL, (struct geul_tensor *[]){a, b}, 2, &params);
        if (!op_compute(r, whole))
            continue;
        for (int64_t at = 0, step = 1; at < p->m; at += step, step = step % 5 + 1) {
            step = p->m - at < step ? p->m - at : step;
            struct geul_tensor *some = cpu_view(geul_narrow(r->ctx, a, 0, at, step));
            struct geul_tensor *part = geul_node(r->ctx, GEUL_OP_MATMUL, (struct geul_tensor *[]){some, b}, 2, &params);
            if (op_compute(r, part))
                CHECK_MSG(memcmp(part->data, (float *)whole->data + at * p->n, (size_t)(step * p->n) * 4) == 0,
                          "%s: %d rows from %d on have other bits", describe(p), (int)step, (int)at);
        }
    }
}

/* ------------------------------------------------------------------------------------- tests -- */

TEST(cuda_products_of_blocks)
{
    check_on("sm_90", "products of blocks", case_blocks, false);
    check_on("sm_75", "products of blocks", case_blocks, true);
}

TEST(cuda_products_of_every_layout)
{
    check_on("sm_90", "layouts", case_layouts, false);
    taken = THIRDS;
    check_on("sm_75", "layouts", case_layouts, false);
    check_on("sm_90", "layouts", case_layouts, true);
    check_on("sm_90", "slabs", case_slabs, true);
}

TEST(cuda_products_with_what_follows)
{
    check_on("sm_90", "ends", case_ends, false);
    check_on("sm_75", "ends", case_ends, true);
}

TEST(cuda_products_by_cublas)
{
    have_blas();
    taken = MANY_TOKENS;
    check_on("sm_90", "layouts", case_layouts, false);
    check_on("sm_75", "layouts", case_layouts, false);
    check_on("sm_90", "ends", case_ends, false);
    long before = cublas->calls[HOST_CUBLAS_GEMM];
    CHECK(before > 20);
    check_on("sm_90", "prompts", case_prompts, false);
    CHECK(cublas->calls[HOST_CUBLAS_GEMM] > before);
    before = cublas->calls[HOST_CUBLAS_GEMM];
    check_on("sm_90", "prompts", case_prompts, true);
    CHECK_INT(cublas->calls[HOST_CUBLAS_GEMM], before);
}

TEST(cuda_products_keep_nan_in_its_row)
{
    check_on("sm_90", "NaN", case_nan, false);
    check_on("sm_75", "NaN", case_nan, true);
}

TEST(cuda_products_are_exact_however_they_are_cut)
{
    have_blas();
    check_on("sm_90", "cuts", case_cuts, true);
    check_on("sm_75", "cuts", case_cuts, true);
    CHECK_INT(cublas->calls[HOST_CUBLAS_GEMM], 0);
}

/* Each call in turn: our own kernels compute then, and a stream on which one has failed does not ask again. */
TEST(cuda_products_where_cublas_fails)
{
    have_blas();
    for (int call = 0; call < HOST_CUBLAS_CALLS; call++) {
        cublas->fails = call == HOST_CUBLAS_DESTROY ? HOST_CUBLAS_CALLS : call;
        memset(cublas->calls, 0, sizeof cublas->calls);
        check_on("sm_90", "slabs", case_slabs, false);
        /* Two products have enough tokens. Each has a queue of its own in either schedule. */
        CHECK_MSG(call == HOST_CUBLAS_DESTROY || cublas->calls[call] == 4, "call %d: %ld times", call,
                  cublas->calls[call]);
    }
}

TEST(cuda_products_without_cublas_say_why)
{
    const char *reason;
    host_gpu_blas(in_build("failing-driver/libcuda.so.1"));
    CHECK(!geul_cuda_blas_there(&reason));
    CHECK_MSG(strstr(reason, "has no cublasCreate_v2") != NULL, "%s", reason);
    check_on("sm_90", "slabs", case_slabs, false);
}
