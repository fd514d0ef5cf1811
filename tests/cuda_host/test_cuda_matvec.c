/* test_cuda_matvec.c: rounding, unpacking of every type, and products of few tokens, against double precision. */
#include "backends/cuda/matvec.h"
#include "core/half.h"
#include "core/tensor.h"
#include "tests/backends/cpu_cases.h"
#include "tests/cuda_host/cuda_rig.h"

#include <float.h>

#define TYPE(id, ...) _Static_assert((int)CUDA_##id == (int)GEUL_TYPE_##id, "cuda_types.h");
#include "geul_types.def"
#undef TYPE

/* Rows of blocks of the type: encoded normal values. */
static struct cpu_guard random_weights(uint64_t *seed, enum geul_type type, int64_t rows, int64_t cols, size_t shift)
{
    size_t bytes;
    if (!geul_shape_bytes(type, 2, (int64_t[]){rows, cols}, &bytes))
        exit(2);
    struct cpu_guard g = cpu_guard(bytes, shift);
    float *x = malloc((size_t)(rows * cols) * sizeof *x);
    for (int64_t i = 0; i < rows * cols; i++)
        x[i] = test_normal(seed);
    geul_encode(type, x, g.data, rows * cols);
    free(x);
    return g;
}

static double *decoded(enum geul_type type, const void *data, int64_t n)
{
    float *x = malloc((size_t)n * sizeof *x);
    double *d = malloc((size_t)n * sizeof *d);
    geul_decode(type, data, x, n);
    for (int64_t i = 0; i < n; i++)
        d[i] = (double)x[i];
    free(x);
    return d;
}

/* What the bytes of a block are: as encoded; random, so that every code, scale and float16 comes, NaN among them; or
 * all the same. */
enum filling { ENCODED, RANDOM, ZEROS, ONES, FILLINGS };

static void fill_blocks(uint64_t *seed, struct cpu_guard *w, enum filling filling)
{
    for (size_t i = 0; i < w->bytes && filling != ENCODED; i++)
        w->data[i] = filling == ZEROS ? 0 : filling == ONES ? 0xff : (uint8_t)(test_random(seed) >> 24);
}

TEST(cuda_dequantize_equals_the_codec)
{
    uint64_t seed = CPU_SEED;
    for (int round = 0; round < GEUL_TYPE_COUNT * FILLINGS; round++) {
        enum geul_type type = (enum geul_type)(round / FILLINGS);
        if (!geul_type_is_weight(type))
            continue;
        enum { ROWS = 3, COLS = 512, N = ROWS * COLS };
        struct cpu_guard w = random_weights(&seed, type, ROWS, COLS, 0);
        fill_blocks(&seed, &w, (enum filling)(round % FILLINGS));
        struct cpu_guard out = cpu_guard(N * sizeof(float), 0);
        float want[N];
        geul_decode(type, w.data, want, N);
        struct cuda_dequantize a = {
            (enum cuda_type)type, w.data, (int64_t)w.bytes / ROWS, ROWS, COLS, CUDA_F32, out.data};
        struct cuda_stream stream = {0};
        for (EACH_SCHEDULE(s)) {
            memset(out.data, 0xff, out.bytes);
            CHECK_LAUNCH(geul_cuda_launch_dequantize(&stream, &a));
            const float *got = (const float *)(void *)out.data;
            for (int i = 0; i < N; i++)
                if (!CHECK_MSG(memcmp(&got[i], &want[i], sizeof(float)) == 0 || (isnan(got[i]) && isnan(want[i])),
                               "%s: value %d is %.9g, expected %.9g", geul_type_name(type), i, (double)got[i],
                               (double)want[i]))
                    break;
        }
        static const enum geul_type narrow[] = {GEUL_TYPE_F16, GEUL_TYPE_BF16};
        for (int k = 0; k < 2; k++) {
            uint16_t coded[N], *got = (uint16_t *)(void *)out.data;
            geul_encode(narrow[k], want, coded, N);
            a.to = (enum cuda_type)narrow[k];
            CHECK_LAUNCH(geul_cuda_launch_dequantize(&stream, &a));
            for (int i = 0; i < N; i++)
                if (!CHECK_MSG(got[i] == coded[i] || isnan(want[i]), "%s as %s: value %d is %04x, expected %04x",
                               geul_type_name(type), geul_type_name(narrow[k]), i, got[i], coded[i]))
                    break;
        }
        cpu_guard_free(&w, "dequantize");
        cpu_guard_free(&out, "dequantize");
    }
}

/* Activations, rounded by the kernel. */
struct rounded {
    struct cpu_guard q, scale, sum;
    struct cuda_int8_rows rows;
};

static struct rounded rounded_new(int64_t rows, int64_t cols)
{
    struct rounded r = {cpu_guard((size_t)(rows * cols), 0),
                        cpu_guard((size_t)(rows * cols / 32) * 4, 0),
                        cpu_guard((size_t)(rows * cols / 32) * 4, 0),
                        {0}};
    r.rows = (struct cuda_int8_rows){(int8_t *)r.q.data, (float *)(void *)r.scale.data, (int32_t *)(void *)r.sum.data};
    return r;
}

static void rounded_free(struct rounded *r)
{
    cpu_guard_free(&r->q, "rounded q");
    cpu_guard_free(&r->scale, "rounded scale");
    cpu_guard_free(&r->sum, "rounded sum");
}

/* Checks a group of 32 that was rounded from x. */
static void check_group(const struct cuda_int8_rows *rows, int64_t group, const float *x)
{
    float amax = 0;
    bool finite = true;
    int32_t sum = 0;
    for (int i = 0; i < 32; i++) {
        amax = fmaxf(amax, fabsf(x[i]));
        finite = finite && isfinite(x[i]);
    }
    if (!finite) {
        CHECK(isnan(rows->scale[group]));
        return;
    }
    if (amax < 0x1p-100f) /* nothing is left of it (kernels_scalar.c: quantize) */
        amax = 0;
    CHECK_MSG(rows->scale[group] == amax / 127.0f, "group %d: scale %g of %g", (int)group, (double)rows->scale[group],
              (double)amax);
    for (int i = 0; i < 32; i++) {
        int want = amax > 0 ? (int)lrintf(x[i] * (127.0f / amax)) : 0;
        CHECK_INT(rows->q[group * 32 + i], want);
        sum += want;
    }
    CHECK_INT(rows->sum[group], sum);
}

TEST(cuda_round_rounds_as_the_cpu)
{
    enum { ROWS = 5, COLS = 96, STRIDE = 101 };
    uint64_t seed = CPU_SEED;
    float x[ROWS * STRIDE];
    for (int i = 0; i < ROWS * STRIDE; i++)
        x[i] = test_normal(&seed);
    x[3] = NAN;
    x[STRIDE + 40] = -INFINITY;
    memset(x + 2 * STRIDE, 0, 32 * sizeof *x);
    x[3 * STRIDE] = 127; /* whole and half steps */
    for (int i = 1; i < 32; i++)
        x[3 * STRIDE + i] = (float)i - 15.5f;
    for (int i = 0; i < 32; i++) { /* the smallest and largest groups, and one that is too small */
        x[4 * STRIDE + i] = ldexpf((float)i - 16, -104);
        x[4 * STRIDE + 32 + i] = ldexpf((float)i - 16, -105);
        x[4 * STRIDE + 64 + i] = i % 2 ? FLT_MAX : -FLT_MAX / (float)(i + 1);
    }
    struct cuda_stream stream = {0};
    for (EACH_SCHEDULE(s)) {
        struct rounded r = rounded_new(ROWS, COLS);
        struct cuda_round a = {x, STRIDE, ROWS, COLS, r.rows};
        CHECK_LAUNCH(geul_cuda_launch_round(&stream, &a));
        for (int64_t g = 0; g < ROWS * COLS / 32; g++)
            check_group(&r.rows, g, x + g / 3 * STRIDE + g % 3 * 32);
        rounded_free(&r);
    }
}

static double gelu(double x, enum cuda_activation activation)
{
    if (activation == CUDA_GELU_ERF)
        return 0.5 * x * erfc(-x * 0.7071067811865476);
    return activation == CUDA_GELU_TANH ? 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))) : x;
}

struct shape {
    int64_t tokens, n, k;
};

/* One product with everything that its epilogue can do, by `which`: 0 nothing, 1 bias and GELU, 2 bias and two rows
 * added, 3 rounded and stored, 4 rounded alone. */
static void one_product(uint64_t *seed, enum geul_type type, struct shape s, int which, bool bfloat)
{
    bool blocks = geul_type_block(type) > 1;
    int64_t stride = s.k + (blocks || s.k % 8 ? 3 : 8), add_stride = s.n + 5, total = s.tokens * s.n;
    struct cpu_guard w = random_weights(seed, type, s.n, s.k, 0), y = cpu_guard((size_t)total * sizeof(float), 0);
    float *x = aligned_alloc(64, (size_t)(s.tokens * stride * 4 + 63) / 64 * 64), *bias = malloc((size_t)s.n * 4),
          *add = malloc((size_t)(s.tokens * add_stride) * 4);
    for (int64_t i = 0; i < s.tokens * stride; i++)
        x[i] = test_normal(seed);
    for (int64_t i = 0; i < s.n; i++)
        bias[i] = test_normal(seed);
    for (int64_t i = 0; i < s.tokens * add_stride; i++)
        add[i] = test_normal(seed);
    struct rounded in = rounded_new(s.tokens, blocks ? s.k : 32), out = rounded_new(s.tokens, which >= 3 ? s.n : 32);
    struct cuda_stream stream = {0};
    struct cuda_round round = {x, stride, s.tokens, s.k, in.rows};
    if (blocks)
        CHECK_LAUNCH(geul_cuda_launch_round(&stream, &round));
    struct cuda_matvec a = {.type = (enum cuda_type)type,
                            .weights = w.data,
                            .row_bytes = (int64_t)w.bytes / s.n,
                            .n_tokens = s.tokens,
                            .n = s.n,
                            .k = s.k,
                            .rounded = in.rows,
                            .x = blocks ? NULL : x,
                            .x_stride = stride,
                            .bfloat = bfloat,
                            .out = {.y = which == 4 ? NULL : (float *)(void *)y.data, .y_stride = s.n}};
    a.out.bias = which == 1 || which == 2 ? bias : NULL;
    a.out.activation = which == 1 ? (s.n % 2 ? CUDA_GELU_ERF : CUDA_GELU_TANH) : CUDA_NO_ACTIVATION;
    a.out.add = which == 2 ? add : NULL;
    a.out.then_add = which == 2 ? add + 3 : NULL;
    a.out.add_stride = a.out.then_add_stride = add_stride;
    if (which >= 3)
        a.out.rounded = out.rows;
    double *weights = decoded(type, w.data, s.n * s.k), *want = malloc((size_t)total * sizeof *want);
    for (int64_t t = 0; t < s.tokens; t++)
        for (int64_t j = 0; j < s.n; j++) {
            double sum = a.out.bias ? (double)bias[j] : 0;
            for (int64_t i = 0; i < s.k; i++) {
                double v = blocks ? (double)in.rows.q[t * s.k + i] * (double)in.rows.scale[(t * s.k + i) / 32]
                                  : (double)(bfloat ? geul_bf16_to_f32(geul_f32_to_bf16(x[t * stride + i]))
                                                    : x[t * stride + i]);
                sum += weights[j * s.k + i] * v;
            }
            sum = gelu(sum, a.out.activation);
            for (int i = 0; i < 2 && a.out.add; i++)
                sum += (double)(i ? a.out.then_add : add)[t * add_stride + j];
            want[t * s.n + j] = sum;
        }
    /* Sums of float32 products of normal numbers: every addition rounds by at most 2^-24 of a partial sum, whose size
     * is about sqrt(k). */
    double size = sqrt((double)s.k);
    char what[128];
    snprintf(what, sizeof what, "%s (%d, %d) times (%d), form %d", geul_type_name(type), (int)s.n, (int)s.k,
             (int)s.tokens, which);
    void *first = NULL; /* the bits of the first run */
    for (EACH_SCHEDULE(schedule)) {
        memset(y.data, 0xff, y.bytes);
        CHECK_LAUNCH(geul_cuda_launch_matvec(&stream, &a));
        if (!first)
            first = memcpy(malloc(y.bytes), y.data, y.bytes);
        CHECK_MSG(memcmp(first, y.data, y.bytes) == 0, "%s: other bits in another run", what);
        if (a.out.y)
            cpu_close(what, a.out.y, want, total, 3e-6 * size, 2e-6);
        if (which == 3)
            for (int64_t g = 0; g < total / 32; g++)
                check_group(&out.rows, g, a.out.y + g * 32);
        for (int64_t i = 0; which == 4 && i < total; i++) {
            double got = (double)out.rows.q[i] * (double)out.rows.scale[i / 32];
            CHECK_MSG(fabs(got - want[i]) <= 0.51 * (double)out.rows.scale[i / 32], "%s: rounded %d", what, (int)i);
        }
    }
    free(first), free(weights), free(want), free(x), free(bias), free(add);
    rounded_free(&in), rounded_free(&out);
    cpu_guard_free(&w, what), cpu_guard_free(&y, what);
}

TEST(cuda_matvec_of_every_type)
{
    static const struct shape shapes[] = {{1, 1, 32},   {1, 64, 96},  {2, 17, 256},
                                          {3, 32, 512}, {4, 33, 288}, {6, 32, 2304}};
    uint64_t seed = CPU_SEED;
    for (enum geul_type type = 0; type < GEUL_TYPE_COUNT; type++) {
        int64_t block = geul_type_block(type);
        for (size_t i = 0; geul_type_is_weight(type) && i < sizeof shapes / sizeof *shapes; i++) {
            struct shape s = shapes[i];
            s.k = (s.k + block - 1) / block * block;
            one_product(&seed, type, s, s.n % 32 ? (int)(i + type) % 3 : 3 + (int)(i + type) % 2, false);
        }
    }
    one_product(&seed, GEUL_TYPE_Q4_K, (struct shape){1, 3, 65536}, 0, false);
    one_product(&seed, GEUL_TYPE_Q8_0, (struct shape){2, 1, 65536}, 0, false);
    for (int64_t k = 1; k < 40; k += 7) { /* rows that lie anywhere */
        one_product(&seed, GEUL_TYPE_F32, (struct shape){2, 5, k}, 1, false);
        one_product(&seed, GEUL_TYPE_F16, (struct shape){1, 5, k}, 2, false);
        one_product(&seed, GEUL_TYPE_BF16, (struct shape){3, 5, k}, 0, true);
    }
}

/* The bits of a token's results are the same whatever tokens come with it. */
TEST(cuda_matvec_sums_in_one_order)
{
    enum { TOKENS = 11, N = 40, K = 1024 };
    static const enum geul_type types[] = {GEUL_TYPE_Q4_K, GEUL_TYPE_Q6_K, GEUL_TYPE_Q8_0, GEUL_TYPE_Q2_K,
                                           GEUL_TYPE_F16};
    uint64_t seed = CPU_SEED;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct cpu_guard w = random_weights(&seed, types[i], N, K, 0);
        static _Alignas(16) float x[TOKENS * K], whole[TOKENS * N], parts[TOKENS * N];
        for (int k = 0; k < TOKENS * K; k++)
            x[k] = test_normal(&seed);
        struct rounded in = rounded_new(TOKENS, K);
        struct cuda_stream stream = {0};
        struct cuda_round round = {x, K, TOKENS, K, in.rows};
        CHECK_LAUNCH(geul_cuda_launch_round(&stream, &round));
        struct cuda_matvec a = {.type = (enum cuda_type)types[i],
                                .weights = w.data,
                                .row_bytes = (int64_t)w.bytes / N,
                                .n_tokens = TOKENS,
                                .n = N,
                                .k = K,
                                .rounded = in.rows,
                                .x = x,
                                .x_stride = K,
                                .out = {.y = whole, .y_stride = N}};
        CHECK_LAUNCH(geul_cuda_launch_matvec(&stream, &a));
        for (int at = 0, step = 1; at < TOKENS; at += step, step = step % 5 + 1) {
            int n = TOKENS - at < step ? TOKENS - at : step;
            a.n_tokens = n;
            a.rounded =
                (struct cuda_int8_rows){in.rows.q + at * K, in.rows.scale + at * K / 32, in.rows.sum + at * K / 32};
            a.x = x + at * K;
            a.out.y = parts + at * N;
            CHECK_LAUNCH(geul_cuda_launch_matvec(&stream, &a));
        }
        CHECK_MSG(memcmp(whole, parts, sizeof whole) == 0, "%s: other bits", geul_type_name(types[i]));
        rounded_free(&in);
        cpu_guard_free(&w, "matvec");
    }
}

/* And they are the same wherever weights and activations lie: a card reads 16 bytes at once where it can. */
TEST(cuda_matvec_sums_in_one_order_wherever_rows_lie)
{
    enum { TOKENS = 2, N = 3, K = 845, STRIDE = 848, PLACES = 4 };
    static const enum geul_type types[] = {GEUL_TYPE_F32, GEUL_TYPE_F16, GEUL_TYPE_BF16};
    static _Alignas(16) uint8_t weights[N * STRIDE * 4 + 16];
    static _Alignas(16) float x[TOKENS * STRIDE + PLACES];
    uint64_t seed = CPU_SEED;
    struct cuda_stream stream = {0};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const size_t bytes = geul_type_bytes(types[i]);
        static float w[N * K], values[TOKENS * K];
        for (int k = 0; k < N * K; k++)
            w[k] = test_normal(&seed);
        for (int k = 0; k < TOKENS * K; k++)
            values[k] = test_normal(&seed);
        float first[TOKENS * N];
        for (int place = 0; place < PLACES * PLACES; place++) {
            uint8_t *weights_at = weights + (size_t)(place / PLACES) * bytes;
            float *x_at = x + place % PLACES, y[TOKENS * N];
            for (int n = 0; n < N; n++)
                geul_encode(types[i], w + n * K, weights_at + (size_t)n * STRIDE * bytes, K);
            for (int t = 0; t < TOKENS; t++)
                memcpy(x_at + t * STRIDE, values + t * K, K * sizeof *x);
            struct cuda_matvec a = {.type = (enum cuda_type)types[i],
                                    .weights = weights_at,
                                    .row_bytes = STRIDE * (int64_t)bytes,
                                    .n_tokens = TOKENS,
                                    .n = N,
                                    .k = K,
                                    .x = x_at,
                                    .x_stride = STRIDE,
                                    .out = {.y = y, .y_stride = N}};
            CHECK_LAUNCH(geul_cuda_launch_matvec(&stream, &a));
            if (place == 0)
                memcpy(first, y, sizeof y);
            CHECK_MSG(memcmp(first, y, sizeof y) == 0, "%s: other bits with weights %d and x %d elements on",
                      geul_type_name(types[i]), place / PLACES, place % PLACES);
        }
    }
}

/* NaN and infinity come out, in their own row only. */
TEST(cuda_matvec_keeps_nan_in_its_row)
{
    enum { TOKENS = 3, N = 33, K = 256 };
    uint64_t seed = CPU_SEED;
    for (enum geul_type type = 0; type < GEUL_TYPE_COUNT; type++) {
        if (!geul_type_is_weight(type))
            continue;
        struct cpu_guard w = random_weights(&seed, type, N, K, 0);
        _Alignas(16) float x[TOKENS * K], y[TOKENS * N];
        for (int k = 0; k < TOKENS * K; k++)
            x[k] = test_normal(&seed);
        x[K + 77] = type % 2 ? NAN : INFINITY;
        struct rounded in = rounded_new(TOKENS, K);
        struct cuda_stream stream = {0};
        struct cuda_round round = {x, K, TOKENS, K, in.rows};
        CHECK_LAUNCH(geul_cuda_launch_round(&stream, &round));
        struct cuda_matvec a = {.type = (enum cuda_type)type,
                                .weights = w.data,
                                .row_bytes = (int64_t)w.bytes / N,
                                .n_tokens = TOKENS,
                                .n = N,
                                .k = K,
                                .rounded = in.rows,
                                .x = x,
                                .x_stride = K,
                                .out = {.y = y, .y_stride = N}};
        CHECK_LAUNCH(geul_cuda_launch_matvec(&stream, &a));
        for (int i = 0; i < TOKENS * N; i++)
            CHECK_MSG(isfinite(y[i]) == (i / N != 1), "%s: row %d", geul_type_name(type), i / N);
        rounded_free(&in);
        cpu_guard_free(&w, "matvec");
    }
}
