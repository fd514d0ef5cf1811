/* test_cuda_elementwise.c: what the cases of operations (test_cuda_ops.c) do not show of the small kernels: results
 * that are left rounded, two norms in one launch, rows far from 0 and of every length, losses that are not finite, and
 * operands that do not lie on 16 bytes. */
#include "backends/cuda/elementwise.h"
#include "backends/cuda/embed.h"
#include "backends/cuda/loss.h"
#include "backends/cuda/norm.h"
#include "core/random.h"
#include "core/tensor.h"
#include "tests/backends/cpu_cases.h"
#include "tests/cuda_host/cuda_rig.h"

/* ---------------------------------------------------------------------------- rounded results -- */

struct rounded {
    struct cpu_guard q, scale, sum;
    struct cuda_int8_rows rows;
};

static struct rounded rounded_new(int64_t n)
{
    struct rounded r = {
        cpu_guard((size_t)n, 0), cpu_guard((size_t)n / 32 * 4, 0), cpu_guard((size_t)n / 32 * 4, 0), {0}};
    r.rows = (struct cuda_int8_rows){(int8_t *)r.q.data, (float *)(void *)r.scale.data, (int32_t *)(void *)r.sum.data};
    return r;
}

/* They are what the CPU makes of y; then frees. */
static void check_rounded(struct rounded *r, const float *y, int64_t n, const char *what)
{
    for (int64_t g = 0; g < n / 32; g++) {
        const float *x = y + 32 * g;
        float amax = 0, scale = r->rows.scale[g];
        bool finite = true, same = true;
        int32_t sum = 0;
        for (int i = 0; i < 32; i++) {
            amax = fmaxf(amax, fabsf(x[i]));
            finite = finite && isfinite(x[i]);
        }
        bool zero = amax < 0x1p-100f;
        for (int i = 0; i < 32; i++) {
            int want = !finite || zero ? 0 : (int)lrintf(x[i] * (127.0f / amax));
            same = same && r->rows.q[32 * g + i] == want;
            sum += want;
        }
        same = same && r->rows.sum[g] == sum && (finite ? scale == (zero ? 0 : amax / 127.0f) : isnan(scale));
        if (!CHECK_MSG(same, "%s: group %d is not rounded as the CPU does", what, (int)g))
            break;
    }
    cpu_guard_free(&r->q, what);
    cpu_guard_free(&r->scale, what);
    cpu_guard_free(&r->sum, what);
}

/* -------------------------------------------------------------------------------------- norms -- */

enum { ROWS = 3 };

/* Rows of n columns, `gap` apart, about `middle`; one has NaN where that is asked for. */
struct norm_problem {
    int64_t n, gap;
    struct cpu_guard x, weight[2], bias[2], y[2];
    double *want[2];
};

static float *floats(const struct cpu_guard *g)
{
    return (float *)(void *)g->data;
}

static struct cpu_guard random_floats(uint64_t *seed, int64_t n, float middle, size_t shift)
{
    struct cpu_guard g = cpu_guard((size_t)n * sizeof(float), shift);
    for (int64_t i = 0; i < n; i++)
        floats(&g)[i] = middle + test_normal(seed);
    return g;
}

static struct norm_problem norm_problem(uint64_t *seed, int64_t n, int64_t gap, float middle, size_t shift)
{
    struct norm_problem p = {.n = n, .gap = gap, .x = random_floats(seed, ROWS * gap, middle, shift)};
    for (int r = 0; r < 2; r++) {
        p.weight[r] = random_floats(seed, n, 0, shift);
        p.bias[r] = random_floats(seed, n, 0, 0);
        p.y[r] = cpu_guard((size_t)(ROWS * n) * sizeof(float), 0);
        p.want[r] = malloc((size_t)(ROWS * n) * sizeof(double));
    }
    for (int64_t row = 0; row < ROWS; row++) {
        const float *x = floats(&p.x) + row * gap;
        double mean = 0, var = 0;
        for (int64_t i = 0; i < n; i++)
            mean += (double)x[i] / (double)n;
        for (int64_t i = 0; i < n; i++)
            var += pow((double)x[i] - mean, 2) / (double)n;
        for (int r = 0; r < 2; r++)
            for (int64_t i = 0; i < n; i++)
                p.want[r][row * n + i] =
                    ((double)x[i] - mean) / sqrt(var + (double)1e-5f) * (double)floats(&p.weight[r])[i] +
                    (double)floats(&p.bias[r])[i];
    }
    return p;
}

static void norm_free(struct norm_problem *p)
{
    cpu_guard_free(&p->x, "norm");
    for (int r = 0; r < 2; r++) {
        cpu_guard_free(&p->weight[r], "norm");
        cpu_guard_free(&p->bias[r], "norm");
        cpu_guard_free(&p->y[r], "norm");
        free(p->want[r]);
    }
}

static struct cuda_norm norm_args(const struct norm_problem *p, int n_results)
{
    struct cuda_norm a = {.x = floats(&p->x),
                          .leading = {{1, 1, ROWS}},
                          .stride = {0, 0, p->gap},
                          .n_rows = ROWS,
                          .n_cols = p->n,
                          .eps = 1e-5f,
                          .n_results = n_results};
    for (int r = 0; r < n_results; r++)
        a.result[r] = (struct cuda_norm_result){
            .weight = floats(&p->weight[r]), .bias = floats(&p->bias[r]), .y = floats(&p->y[r])};
    return a;
}

/* d / deviation is good to a few units, whatever the mean: x itself is not rounded, nor is the mean's remainder. What
 * is left are the roundings of d (2^-24 of the difference from 0, relative to a deviation of 1, for numbers about the
 * mean), of the factors, and of sums of up to 8 + 10 terms. */
static void check_norm(const struct norm_problem *p, float middle)
{
    struct cuda_stream stream = {0};
    char what[80];
    snprintf(what, sizeof what, "norm of %d columns about %g", (int)p->n, (double)middle);
    for (EACH_SCHEDULE(s)) {
        struct cuda_norm a = norm_args(p, 2);
        struct rounded left[2];
        for (int r = 0; r < 2 && p->n % 32 == 0; r++) {
            left[r] = rounded_new(ROWS * p->n);
            a.result[r].rounded = left[r].rows;
        }
        CHECK_LAUNCH(geul_cuda_launch_norm(&stream, &a));
        for (int r = 0; r < 2; r++) {
            cpu_close(what, floats(&p->y[r]), p->want[r], ROWS * p->n, 4e-6, 4e-6);
            if (p->n % 32 == 0)
                check_rounded(&left[r], floats(&p->y[r]), ROWS * p->n, what);
        }
    }
    /* one by itself has the same bits; and without y, only the rounded rows are written */
    size_t bytes = (size_t)(ROWS * p->n) * sizeof(float);
    float *pair = malloc(bytes);
    memcpy(pair, p->y[0].data, bytes);
    memset(p->y[0].data, 0xff, bytes);
    struct cuda_norm a = norm_args(p, 1);
    CHECK_LAUNCH(geul_cuda_launch_norm(&stream, &a));
    CHECK_MSG(memcmp(pair, p->y[0].data, bytes) == 0, "%s: other bits as one of a pair", what);
    if (p->n % 32 == 0) {
        struct rounded left = rounded_new(ROWS * p->n);
        a.result[0].y = NULL;
        a.result[0].rounded = left.rows;
        CHECK_LAUNCH(geul_cuda_launch_norm(&stream, &a));
        check_rounded(&left, pair, ROWS * p->n, what);
    }
    free(pair);
}

TEST(cuda_norm_pairs_of_every_length)
{
    static const int64_t lengths[] = {1, 2, 31, 32, 96, 130, 255, 256, 257, 288, 1000, 1024, 2048, 5120, 8192, 9216};
    uint64_t seed = CPU_SEED;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct norm_problem p = norm_problem(&seed, lengths[i], lengths[i] + (int64_t)(i % 3) * 2, 0, i % 2 ? 0 : 4);
        check_norm(&p, 0);
        norm_free(&p);
    }
}

/* Differences from the mean are exact there, but the numbers themselves have only so many digits: the reference sees
 * the same ones. */
TEST(cuda_norm_of_rows_far_from_zero)
{
    static const int64_t lengths[] = {64, 640, 4096};
    uint64_t seed = CPU_SEED;
    for (int i = 0; i < 3; i++) {
        struct norm_problem p = norm_problem(&seed, lengths[i], lengths[i], 3000, 0);
        check_norm(&p, 3000);
        norm_free(&p);
    }
}

/* NaN and infinity fill their own row, rounded or not, and no other. */
TEST(cuda_norm_of_what_is_not_finite)
{
    static const int64_t lengths[] = {64, 1024};
    uint64_t seed = CPU_SEED;
    for (int i = 0; i < 4; i++) {
        int64_t n = lengths[i % 2];
        struct norm_problem p = norm_problem(&seed, n, n, 0, 0);
        floats(&p.x)[n + 7] = i < 2 ? NAN : INFINITY;
        struct cuda_stream stream = {0};
        struct cuda_norm a = norm_args(&p, 1);
        struct rounded left = rounded_new(ROWS * n);
        a.result[0].rounded = left.rows;
        CHECK_LAUNCH(geul_cuda_launch_norm(&stream, &a));
        for (int64_t k = 0; k < ROWS * n; k++)
            if (!CHECK_MSG(isnan(floats(&p.y[0])[k]) == (k / n == 1), "element %d", (int)k))
                break;
        check_rounded(&left, floats(&p.y[0]), ROWS * n, "norm");
        norm_free(&p);
    }
}

/* ------------------------------------------------------------------------------- elementwise -- */

TEST(cuda_gelu_leaves_its_result_rounded)
{
    enum { N = 5 * 96 };
    uint64_t seed = CPU_SEED;
    struct cpu_guard x = random_floats(&seed, N, 0, 4), y = cpu_guard(N * sizeof(float), 4);
    struct cuda_stream stream = {0};
    floats(&x)[40] = NAN;
    for (int i = 64; i < 96; i++)
        floats(&x)[i] = 0;
    struct cuda_elementwise a = {.kind = CUDA_GELU,
                                 .leading = {{1, 1, 5}},
                                 .n_rows = 5,
                                 .n_cols = 96,
                                 .out = {y.data, {0, 0, 96}, 1},
                                 .a = {x.data, {0, 0, 96}, 1},
                                 .activation = CUDA_GELU_ERF};
    struct rounded both = rounded_new(N), only = rounded_new(N);
    a.rounded = both.rows;
    CHECK_LAUNCH(geul_cuda_launch_elementwise(&stream, &a));
    float want[N];
    memcpy(want, y.data, sizeof want);
    for (int i = 0; i < N; i++) {
        float v = floats(&x)[i];
        CHECK(isnan(v) ? isnan(want[i]) : fabsf(want[i] - 0.5f * v * erfcf(-v * 0.70710678f)) < 1e-6f);
    }
    memset(y.data, 0, y.bytes);
    a.rounded = only.rows;
    a.no_out = true;
    CHECK_LAUNCH(geul_cuda_launch_elementwise(&stream, &a));
    CHECK_MSG(floats(&y)[0] == 0 && floats(&y)[N - 1] == 0, "a result that nobody wants was stored");
    check_rounded(&both, want, N, "gelu");
    check_rounded(&only, want, N, "gelu, only rounded");
    cpu_guard_free(&x, "gelu");
    cpu_guard_free(&y, "gelu");
}

/* The mask is core/random.h's: the same on every backend, wherever rows begin. */
TEST(cuda_dropout_draws_as_the_cpu_does)
{
    enum { N = 2500 };
    static const uint32_t seed_words[] = {17, 0x80000003u};
    const float p = 0.4f;
    uint64_t random = CPU_SEED;
    struct cpu_guard x = random_floats(&random, N, 3, 0), y = cpu_guard(N * sizeof(float), 4);
    struct cuda_stream stream = {0};
    struct cuda_elementwise a = {.kind = CUDA_DROPOUT,
                                 .leading = {{1, 1, 1}},
                                 .n_rows = 1,
                                 .n_cols = N,
                                 .out = {y.data, {0}, 1},
                                 .a = {x.data, {0}, 1},
                                 .factor = 1 / (1 - p),
                                 .seed = seed_words,
                                 .salt = 9,
                                 .limit = (uint32_t)((double)p * 0x1p32)};
    CHECK_LAUNCH(geul_cuda_launch_elementwise(&stream, &a));
    uint64_t key = geul_random_key((uint64_t)seed_words[1] << 32 | seed_words[0], 9);
    for (int i = 0; i < N; i++) {
        bool kept = geul_random_element(geul_random_key(key, (uint64_t)i / 1024), (uint32_t)i % 1024) >= a.limit;
        float want = kept ? floats(&x)[i] * a.factor : 0;
        if (!CHECK_MSG(floats(&y)[i] == want, "element %d is %g, expected %g", i, (double)floats(&y)[i], (double)want))
            break;
    }
    cpu_guard_free(&x, "dropout");
    cpu_guard_free(&y, "dropout");
}

/* Terms go into a sum in their order. */
TEST(cuda_accumulate_adds_in_order)
{
    enum { TIMES = 9, N = 37 };
    uint64_t seed = CPU_SEED;
    struct cpu_guard x = random_floats(&seed, TIMES * N, 1e4f, 0), c = random_floats(&seed, N, 0, 4);
    float want[N];
    for (int i = 0; i < N; i++) {
        want[i] = floats(&c)[i];
        for (int t = 0; t < TIMES; t++)
            want[i] += floats(&x)[t * N + i];
    }
    struct cuda_stream stream = {0};
    struct cuda_accumulate a = {.leading = {{1, 1, 1}},
                                .over = {{1, 3, 3}},
                                .n_rows = 1,
                                .n_cols = N,
                                .times = TIMES,
                                .out = {c.data, {0}, 1},
                                .x = {x.data, {0}, 1},
                                .over_stride = {0, 3 * N, N}};
    CHECK_LAUNCH(geul_cuda_launch_accumulate(&stream, &a));
    CHECK(memcmp(c.data, want, sizeof want) == 0);
    cpu_guard_free(&x, "accumulate");
    cpu_guard_free(&c, "accumulate");
}

/* ------------------------------------------------------------------------------- rows, losses -- */

/* A result and a table that lie anywhere. */
TEST(cuda_embed_from_odd_places)
{
    enum { N = 5, COLS = 256 };
    static const int32_t ids[] = {4, -1, 0, 5, 3};
    uint64_t seed = CPU_SEED;
    struct cuda_stream stream = {0};
    for (enum geul_type type = 0; type < GEUL_TYPE_COUNT; type++) {
        size_t bytes;
        const int64_t shape[] = {N, COLS};
        if (!geul_type_is_weight(type) || !geul_shape_bytes(type, 2, shape, &bytes))
            continue;
        for (int odd = 0; odd < 2; odd++) {
            struct cpu_guard values = random_floats(&seed, N * COLS, 0, 0);
            struct cpu_guard table = cpu_guard(bytes, odd && geul_type_block(type) == 1 ? 4 : 0);
            struct cpu_guard out = cpu_guard(N * COLS * sizeof(float), odd ? 4 : 0);
            float want[COLS];
            geul_encode(type, floats(&values), table.data, N * COLS);
            struct cuda_embed a = {.type = (enum cuda_type)type,
                                   .table = table.data,
                                   .ids = ids,
                                   .n_table = N,
                                   .row_bytes = (int64_t)bytes / N,
                                   .n_rows = N,
                                   .n_cols = COLS,
                                   .out = floats(&out)};
            CHECK_LAUNCH(geul_cuda_launch_embed(&stream, &a));
            for (int r = 0; r < N; r++) {
                const float *got = floats(&out) + r * COLS;
                bool there = ids[r] >= 0 && ids[r] < N, same = true;
                if (there)
                    geul_decode(type, table.data + (size_t)ids[r] * bytes / N, want, COLS);
                for (int i = 0; i < COLS; i++)
                    same = same && (there ? got[i] == want[i] : isnan(got[i]));
                CHECK_MSG(same, "%s, row %d", geul_type_name(type), r);
            }
            cpu_guard_free(&values, "embed");
            cpu_guard_free(&table, "embed");
            cpu_guard_free(&out, "embed");
        }
    }
}

/* As cpu_loss_of_what_is_not_finite. */
TEST(cuda_loss_of_what_is_not_finite)
{
    enum { R = 7, N = 40 };
    uint64_t seed = CPU_SEED;
    struct cpu_guard x = random_floats(&seed, R * N, 0, 0), d = cpu_guard(R * N * sizeof(float), 0);
    float loss[R], dy[R] = {1, 1, 1, 0, 1, 1, 1}, *row = floats(&x);
    int32_t targets[R] = {3, 3, 3, 3, 3, 3, N};
    row[39] = NAN;
    row[N + 20] = INFINITY;
    row[2 * N + 3] = -INFINITY;
    row[3 * N + 5] = NAN;
    for (int i = 0; i < N; i++) /* a thread whose first logits are impossible */
        row[4 * N + i] = i < 8 && i != 3 ? -INFINITY : row[4 * N + i];
    row[6 * N] = NAN; /* not read */
    struct cuda_stream stream = {0};
    struct cuda_loss a = {.x = row, .stride = N, .n_rows = R, .n = N, .targets = targets, .loss = loss};
    struct cuda_loss_back b = {.of = a, .dy = dy, .dx = floats(&d)};
    for (EACH_SCHEDULE(s)) {
        CHECK_LAUNCH(geul_cuda_launch_loss(&stream, &a));
        CHECK_LAUNCH(geul_cuda_launch_loss_back(&stream, &b));
        const float *dx = floats(&d);
        CHECK(isnan(loss[0]) && isnan(dx[7]) && isnan(loss[1]) && isnan(dx[N + 7]));
        CHECK_MSG(loss[2] == INFINITY, "a target of probability 0 costs %g", (double)loss[2]);
        CHECK_MSG(isfinite(loss[4]) && dx[4 * N] == 0, "classes that cannot be: %g, %g", (double)loss[4],
                  (double)dx[4 * N]);
        CHECK(loss[6] == 0);
        bool zero = true, finite = isfinite(loss[5]);
        for (int i = 0; i < N; i++) {
            zero = zero && dx[3 * N + i] == 0 && dx[6 * N + i] == 0;
            finite = finite && isfinite(dx[5 * N + i]);
        }
        CHECK_MSG(zero && finite, "NaN reaches other rows");
    }
    cpu_guard_free(&x, "loss");
    cpu_guard_free(&d, "loss");
}
