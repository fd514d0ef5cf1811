/* test_cuda_matmul.c: products of many tokens by tiles of int8, float16 and bfloat16, plain ones, and what lies around
 * them, against double precision. */
#include "backends/cuda/matmul.h"
#include "backends/cuda/narrow.h"
#include "core/half.h"
#include "core/tensor.h"
#include "tests/backends/cpu_cases.h"
#include "tests/cuda_host/cuda_rig.h"

struct shape {
    int64_t tokens, n, k;
    int tile, split;
};

static float *randoms(uint64_t *seed, int64_t n)
{
    float *x = aligned_alloc(64, ((size_t)n * sizeof *x + 127) / 64 * 64);
    for (int64_t i = 0; i < n; i++)
        x[i] = test_normal(seed);
    return x;
}

/* Partial sums and counters for a cut. */
struct cut_memory {
    struct cpu_guard partial, counters;
    int64_t tiles;
};

static struct cut_memory cut_new(const struct shape *s, struct cuda_cut *cut)
{
    int64_t tiles = (s->n + CUDA_TILE_ROWS - 1) / CUDA_TILE_ROWS * ((s->tokens + s->tile - 1) / s->tile);
    struct cut_memory m = {cpu_guard((size_t)(s->split * s->tokens * s->n) * sizeof(float), 0),
                           cpu_guard((size_t)tiles * sizeof(uint32_t), 0), tiles};
    memset(m.counters.data, 0, m.counters.bytes);
    *cut = (struct cuda_cut){s->tile, s->split, (float *)(void *)m.partial.data, (uint32_t *)(void *)m.counters.data};
    return m;
}

static void cut_free(struct cut_memory *m, const char *what)
{
    const uint32_t *counters = (const uint32_t *)(const void *)m->counters.data;
    for (int64_t i = 0; i < m->tiles; i++)
        CHECK_INT(counters[i], 0);
    cpu_guard_free(&m->partial, what);
    cpu_guard_free(&m->counters, what);
}

/* want (T, N) += x (T, K) times w (N, K) transposed. */
static void multiply(double *want, const double *x, const double *w, const struct shape *s)
{
    for (int64_t t = 0; t < s->tokens; t++)
        for (int64_t j = 0; j < s->n; j++)
            for (int64_t i = 0; i < s->k; i++)
                want[t * s->n + j] += x[t * s->k + i] * w[j * s->k + i];
}

static void int8_product(uint64_t *seed, enum geul_type type, struct shape s)
{
    int64_t total = s.tokens * s.n, groups = s.tokens * s.k / 32;
    size_t bytes;
    CHECK(geul_shape_bytes(type, 2, (int64_t[]){s.n, s.k}, &bytes));
    struct cpu_guard w = cpu_guard(bytes, 0), y = cpu_guard((size_t)total * sizeof(float), 0);
    float *values = randoms(seed, s.n * s.k), *x = randoms(seed, s.tokens * s.k), *bias = randoms(seed, s.n),
          *add = randoms(seed, total);
    geul_encode(type, values, w.data, s.n * s.k);
    geul_decode(type, w.data, values, s.n * s.k);
    struct cuda_int8_rows rows = {aligned_alloc(64, (size_t)(s.tokens * s.k + 63) / 64 * 64),
                                  malloc((size_t)groups * 4), malloc((size_t)groups * 4)};
    struct cuda_stream stream = {0};
    struct cuda_round round = {x, s.k, s.tokens, s.k, rows};
    CHECK_LAUNCH(geul_cuda_launch_round(&stream, &round));
    struct cuda_matmul a = {
        .type = (enum cuda_type)type,
        .weights = w.data,
        .row_bytes = (int64_t)bytes / s.n,
        .n_tokens = s.tokens,
        .n = s.n,
        .k = s.k,
        .rounded = rows,
        .out = {.bias = bias, .add = add, .add_stride = s.n, .y = (float *)(void *)y.data, .y_stride = s.n}};
    double *want = calloc((size_t)total, sizeof *want), *dx = malloc((size_t)(s.tokens * s.k) * sizeof *dx),
           *dw = malloc((size_t)(s.n * s.k) * sizeof *dw);
    for (int64_t i = 0; i < s.tokens * s.k; i++)
        dx[i] = (double)rows.q[i] * (double)rows.scale[i / 32];
    for (int64_t i = 0; i < s.n * s.k; i++)
        dw[i] = (double)values[i];
    for (int64_t i = 0; i < total; i++)
        want[i] = (double)bias[i % s.n] + (double)add[i];
    multiply(want, dx, dw, &s);
    char what[128];
    snprintf(what, sizeof what, "%s (%d, %d) times (%d) in tiles of %d, split %d", geul_type_name(type), (int)s.n,
             (int)s.k, (int)s.tokens, s.tile, s.split);
    struct cut_memory cut = cut_new(&s, &a.cut);
    cuda_host_shared_most(227 << 10);
    for (EACH_SCHEDULE(schedule)) {
        memset(y.data, 0xff, y.bytes);
        CHECK_LAUNCH(geul_cuda_launch_matmul_int8(&stream, &a));
        cpu_close(what, a.out.y, want, total, 3e-6 * sqrt((double)s.k), 2e-6); /* as test_cuda_matvec.c */
    }
    cut_free(&cut, what);
    free(rows.q), free(rows.scale), free(rows.sum), free(values), free(x), free(bias), free(add);
    free(want), free(dx), free(dw);
    cpu_guard_free(&w, what), cpu_guard_free(&y, what);
}

TEST(cuda_matmul_int8_of_every_type)
{
    static const struct shape shapes[] = {
        {5, 33, 256, 16, 1}, {17, 130, 512, 32, 3}, {65, 20, 256, 64, 1}, {70, 129, 768, 128, 2}};
    uint64_t seed = CPU_SEED;
    for (enum geul_type type = 0; type < GEUL_TYPE_COUNT; type++)
        for (size_t i = 0; geul_type_block(type) > 1 && i < sizeof shapes / sizeof *shapes; i++) {
            struct shape s = shapes[i];
            if (geul_type_block(type) == 32 && i % 2 == 0) /* a last step that is not whole */
                s.k -= 96;
            int8_product(&seed, type, s);
        }
}

/* NaN in a token stays in its row, also where tiles are cut along K. */
TEST(cuda_matmul_int8_keeps_nan_in_its_row)
{
    enum { TOKENS = 9, N = 40, K = 512 };
    uint64_t seed = CPU_SEED;
    float *values = randoms(&seed, N * K), *x = randoms(&seed, TOKENS * K);
    static _Alignas(16) int8_t q[TOKENS * K];
    static uint8_t w[N * K];
    static float scale[TOKENS * K / 32], y[TOKENS * N];
    static int32_t sum[TOKENS * K / 32];
    geul_encode(GEUL_TYPE_Q5_K, values, w, N * K);
    x[3 * K + 300] = NAN;
    x[5 * K] = INFINITY;
    struct cuda_stream stream = {0};
    struct cuda_round round = {x, K, TOKENS, K, {q, scale, sum}};
    CHECK_LAUNCH(geul_cuda_launch_round(&stream, &round));
    for (int split = 1; split < 4; split++) {
        struct shape s = {TOKENS, N, K, 16, split};
        struct cuda_matmul a = {.type = CUDA_Q5_K,
                                .weights = w,
                                .row_bytes = 2 * 176,
                                .n_tokens = TOKENS,
                                .n = N,
                                .k = K,
                                .rounded = {q, scale, sum},
                                .out = {.y = y, .y_stride = N}};
        struct cut_memory cut = cut_new(&s, &a.cut);
        CHECK_LAUNCH(geul_cuda_launch_matmul_int8(&stream, &a));
        for (int i = 0; i < TOKENS * N; i++)
            CHECK_MSG(isfinite(y[i]) == (i / N != 3 && i / N != 5), "row %d", i / N);
        cut_free(&cut, "NaN");
    }
    free(values), free(x);
}

/* Both formats through narrow, the tiles, and the scales of rows; large values that float16 does not hold, too. */
static void half_product(uint64_t *seed, struct shape s, bool bfloat, float size)
{
    int64_t total = s.tokens * s.n, stride = (s.k + 7) / 8 * 8;
    float *x = randoms(seed, s.tokens * (s.k + 3)), *values = randoms(seed, s.n * s.k);
    struct cpu_guard narrow = cpu_guard((size_t)(s.tokens * stride) * 2, 0), y = cpu_guard((size_t)total * 4, 0);
    uint16_t *w = aligned_alloc(64, ((size_t)(s.n * stride) * 2 + 63) / 64 * 64);
    float *scale = malloc((size_t)s.tokens * sizeof *scale);
    for (int64_t i = 0; i < s.tokens * (s.k + 3); i++)
        x[i] *= size;
    memset(w, 0, (size_t)(s.n * stride) * 2);
    double *want = calloc((size_t)total, sizeof *want), *dx = malloc((size_t)(s.tokens * s.k) * sizeof *dx),
           *dw = malloc((size_t)(s.n * s.k) * sizeof *dw);
    for (int64_t j = 0; j < s.n; j++)
        for (int64_t i = 0; i < s.k; i++) {
            float v = values[j * s.k + i];
            uint16_t h = w[j * stride + i] = bfloat ? geul_f32_to_bf16(v) : geul_f32_to_f16(v);
            dw[j * s.k + i] = (double)(bfloat ? geul_bf16_to_f32(h) : geul_f16_to_f32(h));
        }
    for (int64_t i = 0; i < s.tokens * s.k; i++) {
        float v = x[i / s.k * (s.k + 3) + i % s.k];
        dx[i] = (double)(bfloat ? geul_bf16_to_f32(geul_f32_to_bf16(v)) : v);
    }
    multiply(want, dx, dw, &s);
    struct cuda_stream stream = {0};
    struct cuda_narrow n = {x, s.k + 3, s.tokens, s.k, bfloat, (uint16_t *)(void *)narrow.data, stride, scale};
    struct cuda_matmul_half a = {.bfloat = bfloat,
                                 .weights = w,
                                 .x = n.out,
                                 .weight_stride = stride,
                                 .x_stride = stride,
                                 .n_tokens = s.tokens,
                                 .n = s.n,
                                 .k = stride,
                                 .row_scale = bfloat ? NULL : scale,
                                 .out = {.y = (float *)(void *)y.data, .y_stride = s.n}};
    struct cut_memory cut = cut_new(&s, &a.cut);
    char what[96];
    snprintf(what, sizeof what, "%s (%d, %d) times (%d) in tiles of %d, split %d", bfloat ? "bf16" : "f16", (int)s.n,
             (int)s.k, (int)s.tokens, s.tile, s.split);
    cuda_host_shared_most(227 << 10);
    for (EACH_SCHEDULE(schedule)) {
        memset(y.data, 0xff, y.bytes);
        CHECK_LAUNCH(geul_cuda_launch_narrow(&stream, &n));
        CHECK_LAUNCH(geul_cuda_launch_matmul_half(&stream, &a));
        /* float16 rounds each of k activations by 2^-12 of itself on average; the sums of float32 as elsewhere */
        double each = bfloat ? 3e-6 : 1e-3;
        cpu_close(what, a.out.y, want, total, each * (double)size * sqrt((double)s.k), 2e-6);
    }
    cut_free(&cut, what);
    free(x), free(values), free(w), free(scale), free(want), free(dx), free(dw);
    cpu_guard_free(&narrow, what), cpu_guard_free(&y, what);
}

TEST(cuda_matmul_of_halves)
{
    static const struct shape shapes[] = {
        {5, 33, 100, 16, 1}, {20, 130, 264, 32, 3}, {65, 20, 64, 64, 1}, {70, 129, 333, 128, 2}, {1, 1, 1, 16, 1}};
    uint64_t seed = CPU_SEED;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        half_product(&seed, shapes[i], true, 1);
        half_product(&seed, shapes[i], false, i % 2 ? 1e6f : 1e-7f);
    }
}

TEST(cuda_narrow_keeps_nan_in_its_row)
{
    enum { ROWS = 4, COLS = 40 };
    float x[ROWS * COLS], scale[ROWS];
    uint16_t out[ROWS * COLS];
    for (int i = 0; i < ROWS * COLS; i++)
        x[i] = i / COLS == 3 ? 0 : (float)(i + 1);
    x[COLS + 3] = NAN;
    x[2 * COLS + 30] = -INFINITY;
    struct cuda_stream stream = {0};
    struct cuda_narrow n = {x, COLS, ROWS, COLS, false, out, COLS, scale};
    CHECK_LAUNCH(geul_cuda_launch_narrow(&stream, &n));
    CHECK(isfinite(scale[0]) && isnan(scale[1]) && isnan(scale[2]) && scale[3] == 1);
    for (int i = 0; i < COLS; i++)
        CHECK(geul_f16_to_f32(out[i]) * scale[0] == x[i]);
}

TEST(cuda_matmul_plain_with_any_strides)
{
    static const struct shape shapes[] = {{1, 1, 1, 0, 0}, {5, 70, 33, 0, 0}, {66, 65, 20, 0, 0}};
    static const enum geul_type types[] = {GEUL_TYPE_F32, GEUL_TYPE_F16, GEUL_TYPE_BF16};
    uint64_t seed = CPU_SEED;
    for (int form = 0; form < 24; form++) {
        struct shape s = shapes[form % 3];
        enum geul_type type = types[form / 3 % 3];
        bool a_turned = form & 1, b_turned = form & 2, adds = form % 4 == 3;
        int64_t total = s.tokens * s.n;
        float *a = randoms(&seed, s.tokens * s.k), *values = randoms(&seed, s.n * s.k), *bias = randoms(&seed, s.n);
        void *b = malloc((size_t)(s.n * s.k) * 4 + 8);
        geul_encode(type, values, b, s.n * s.k);
        geul_decode(type, b, values, s.n * s.k);
        struct cpu_guard y = cpu_guard((size_t)total * 4, 0);
        struct cuda_matmul_plain p = {
            .a = a,
            .a_stride = {a_turned ? 1 : s.k, a_turned ? s.tokens : 1},
            .type = (enum cuda_type)type,
            .b = b,
            .b_stride = {b_turned ? 1 : s.n, b_turned ? s.k : 1},
            .m = s.tokens,
            .n = s.n,
            .k = s.k,
            .out = {.bias = adds ? NULL : bias, .y = (float *)(void *)y.data, .y_stride = s.n}};
        p.out.add = adds ? p.out.y : NULL;
        p.out.add_stride = s.n;
        double *want = malloc((size_t)total * sizeof *want);
        for (int64_t i = 0; i < s.tokens; i++)
            for (int64_t j = 0; j < s.n; j++) {
                double sum = adds ? 0.5 : (double)bias[j];
                for (int64_t k = 0; k < s.k; k++) {
                    float l = a[i * p.a_stride[0] + k * p.a_stride[1]],
                          r = values[k * p.b_stride[0] + j * p.b_stride[1]];
                    sum += (double)l * (double)r;
                }
                want[i * s.n + j] = sum;
            }
        struct cuda_stream stream = {0};
        for (EACH_SCHEDULE(schedule)) {
            for (int64_t i = 0; i < total; i++)
                p.out.y[i] = adds ? 0.5f : NAN;
            CHECK_LAUNCH(geul_cuda_launch_matmul_plain(&stream, &p));
            cpu_close("plain product", p.out.y, want, total, 1e-5, 2e-6);
        }
        free(a), free(values), free(bias), free(b), free(want);
        cpu_guard_free(&y, "plain product");
    }
}

/* So many results that tiles are the large ones. */
TEST(cuda_matmul_plain_of_many_results)
{
    enum { M = 1030, N = 1025, K = 17 };
    uint64_t seed = CPU_SEED;
    float *a = randoms(&seed, M * K), *b = randoms(&seed, N * K), *bias = randoms(&seed, N);
    struct cpu_guard y = cpu_guard((size_t)M * N * sizeof(float), 0);
    double *want = malloc((size_t)M * N * sizeof *want);
    for (int64_t i = 0; i < (int64_t)M * N; i++) {
        want[i] = (double)bias[i % N];
        for (int64_t k = 0; k < K; k++)
            want[i] += (double)a[i / N * K + k] * (double)b[k * N + i % N];
    }
    struct cuda_matmul_plain p = {.a = a,
                                  .a_stride = {K, 1},
                                  .type = CUDA_F32,
                                  .b = b,
                                  .b_stride = {N, 1},
                                  .m = M,
                                  .n = N,
                                  .k = K,
                                  .out = {.bias = bias, .y = (float *)(void *)y.data, .y_stride = N}};
    struct cuda_stream stream = {0};
    for (EACH_SCHEDULE(schedule)) {
        memset(y.data, 0xff, y.bytes);
        CHECK_LAUNCH(geul_cuda_launch_matmul_plain(&stream, &p));
        cpu_close("plain product", p.out.y, want, (int64_t)M * N, 1e-5, 2e-6);
    }
    free(a), free(b), free(bias), free(want);
    cpu_guard_free(&y, "plain product");
}

TEST(cuda_finish_does_what_is_left)
{
    enum { ROWS = 3, COLS = 37, STRIDE = 40 };
    uint64_t seed = CPU_SEED;
    float *x = randoms(&seed, ROWS * STRIDE), *bias = randoms(&seed, COLS), *add = randoms(&seed, ROWS * COLS);
    float scale[ROWS] = {0.5f, 2, NAN}, y[ROWS * COLS];
    double want[ROWS * COLS];
    for (int i = 0; i < ROWS * COLS; i++) {
        double v = (double)x[i / COLS * STRIDE + i % COLS] * (double)scale[i / COLS] + (double)bias[i % COLS];
        want[i] = 0.5 * v * erfc(-v * 0.7071067811865476) + (double)add[i];
    }
    struct cuda_stream stream = {0};
    struct cuda_finish a = {
        x,     STRIDE,
        ROWS,  COLS,
        scale, {.bias = bias, .activation = CUDA_GELU_ERF, .add = add, .add_stride = COLS, .y = y, .y_stride = COLS}};
    CHECK_LAUNCH(geul_cuda_launch_finish(&stream, &a));
    cpu_close("finish", y, want, ROWS * COLS, 1e-6, 1e-6);
    free(x), free(bias), free(add);
}
