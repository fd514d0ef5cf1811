/* test_search.c: the search for scales, against exhaustive searches in double precision and against geul_encode(). */
#include "tests/harness.h"

#include "core/half.h"
#include "quantize/search.h"

#include <float.h>

#define SEED UINT64_C(0x5ca1e)
enum { ROWS = 24, COLUMNS = 512, BYTES_MAX = ROWS * COLUMNS * 4 };

enum source { NORMAL, LAPLACE, ONE_SIDED, SOURCES };

static uint64_t seed = SEED;

static float draw(enum source source)
{
    float a = test_normal(&seed);
    if (source == NORMAL)
        return 0.02f * a;
    if (source == LAPLACE)
        return (float)(0.02 * log(test_uniform(&seed, 1e-6, 1)) * (a < 0 ? -1 : 1));
    return 0.05f + 0.02f * a;
}

static void fill(float *x, size_t n, enum source source)
{
    for (size_t i = 0; i < n; i++)
        x[i] = draw(source);
}

static void fill_importance(float *importance, size_t n)
{
    for (size_t i = 0; i < n; i++)
        importance[i] = expf(test_normal(&seed));
}

/* The sum of weight * (x - decoded)^2 over n elements; columns repeat. */
static double error_of(enum geul_type type, const void *bytes, const float *x, int64_t n, int64_t k,
                       const float *importance)
{
    static float y[ROWS * COLUMNS];
    double sum = 0;
    geul_decode(type, bytes, y, n);
    for (int64_t i = 0; i < n; i++) {
        double r = (double)x[i] - (double)y[i];
        sum += (importance ? (double)importance[i % k] : 1) * r * r;
    }
    return sum;
}

/* v(q) of every integer of the format; how many. */
static int levels_of(const struct geul_block_format *f, double *levels)
{
    for (int q = f->q_low; q <= f->q_high; q++)
        levels[q - f->q_low] = f->codebook ? f->codebook[q] : q;
    return f->q_high - f->q_low + 1;
}

/* The error of a group rounded to scale * level - min. */
static double grid_error(const float *x, int n, const double *levels, int n_levels, double scale, double min)
{
    double sum = 0;
    int j = 0;
    for (int i = 0; i < n; i++) {
        while (j > 0 &&
               fabs((double)x[i] - (scale * levels[j - 1] - min)) <= fabs((double)x[i] - (scale * levels[j] - min)))
            j--;
        while (j + 1 < n_levels &&
               fabs((double)x[i] - (scale * levels[j + 1] - min)) < fabs((double)x[i] - (scale * levels[j] - min)))
            j++;
        double r = (double)x[i] - (scale * levels[j] - min);
        sum += r * r;
    }
    return sum;
}

/* The smallest error that any scale and minimum leave in a group: a dense grid of both. */
static double least_error(const struct geul_block_format *f, const float *x)
{
    double levels[256], low = 0, high = 0, least = DBL_MAX;
    const int n_levels = levels_of(f, levels);
    const double span = levels[n_levels - 1] - levels[0], fine = f->min_high ? 0.004 : 0.0005;
    if (f->min_high == 1)
        low = high = (double)x[0];
    for (int i = 0; i < f->group; i++) {
        low = fmin(low, (double)x[i]);
        high = fmax(high, (double)x[i]);
    }
    const double reach = f->min_high ? high - low : 2 * fmax(high, -low);
    for (double share = 0.5; share < 1.3; share += fine) {
        double scale = reach * share / span;
        if (!f->min_high) {
            least = fmin(least, grid_error(x, f->group, levels, n_levels, scale, 0));
            least = fmin(least, grid_error(x, f->group, levels, n_levels, -scale, 0));
            continue;
        }
        for (double start = -0.1; start < 0.3; start += 0.01)
            least = fmin(least, grid_error(x, f->group, levels, n_levels, scale, -(low + start * reach)));
    }
    return least;
}

/* How much more error than the exhaustive search may remain, over many blocks. That one stores its scales exactly;
 * types whose scales are integers of few bits are allowed what those cost. For Q8_0 the error has hundreds of small
 * valleys, and the search visits few of them: what it leaves is 1/100,000 of the weights' squares. */
static const double allowances[GEUL_TYPE_COUNT] = {
    [GEUL_TYPE_Q4_0] = 1.01, [GEUL_TYPE_Q4_1] = 1.02, [GEUL_TYPE_Q5_0] = 1.01,   [GEUL_TYPE_Q5_1] = 1.02,
    [GEUL_TYPE_Q8_0] = 1.15, [GEUL_TYPE_Q2_K] = 1.05, [GEUL_TYPE_Q3_K] = 1.03,   [GEUL_TYPE_Q4_K] = 1.04,
    [GEUL_TYPE_Q5_K] = 1.10, [GEUL_TYPE_Q6_K] = 1.08, [GEUL_TYPE_IQ4_NL] = 1.01, [GEUL_TYPE_IQ4_XS] = 1.02,
};

#define EACH_BLOCK_TYPE(type)                                                                                          \
    for (enum geul_type type = 0; type < GEUL_TYPE_COUNT; type++)                                                      \
        if (geul_block_format(type))

TEST(search_is_near_the_best_there_is)
{
    static float x[8 * 256];
    static uint8_t bytes[sizeof x];
    EACH_BLOCK_TYPE(type)
    {
        const struct geul_block_format *f = geul_block_format(type);
        CHECK_MSG(allowances[type] > 1, "%s has no allowance", geul_type_name(type));
        for (int source = NORMAL; source <= LAPLACE; source++) {
            const int64_t k = 256, rows = f->min_high ? 2 : 4, n = rows * k;
            double least = 0;
            fill(x, (size_t)n, (enum source)source);
            for (int64_t i = 0; i < n; i += f->group)
                least += least_error(f, x + i);
            double ratio = geul_search_rows(type, x, bytes, rows, k, NULL) / least;
            printf("  %s: %.4f of the least error\n", geul_type_name(type), ratio);
            CHECK_MSG(ratio < allowances[type] && ratio > 0.98, "%s leaves %.4f of the least error",
                      geul_type_name(type), ratio);
        }
    }
}

TEST(search_is_never_worse_than_encode)
{
    static float x[ROWS * COLUMNS], importance[COLUMNS];
    static uint8_t found[BYTES_MAX], plain[BYTES_MAX];
    fill_importance(importance, COLUMNS);
    EACH_BLOCK_TYPE(type)
    for (int source = 0; source < SOURCES; source++)
        for (int weighted = 0; weighted < 2; weighted++) {
            const float *w = weighted ? importance : NULL;
            const size_t bytes = geul_type_bytes(type);
            const int block = (int)geul_type_block(type);
            fill(x, ROWS * COLUMNS, (enum source)source);
            double told = geul_search_rows(type, x, found, ROWS, COLUMNS, w);
            geul_encode(type, x, plain, ROWS * COLUMNS);
            double ours = error_of(type, found, x, ROWS * COLUMNS, COLUMNS, w);
            double theirs = error_of(type, plain, x, ROWS * COLUMNS, COLUMNS, w);
            CHECK_MSG(ours < 0.97 * theirs, "%s, source %d, importance %d: error %.6g, geul_encode() %.6g",
                      geul_type_name(type), source, weighted, ours, theirs);
            CHECK_MSG(fabs(told - ours) <= 1e-9 * ours, "%s says its error is %.9g, it is %.9g", geul_type_name(type),
                      told, ours);
            /* With importance the search minimizes a softened one, so only the even case holds block by block. */
            for (int i = 0; !weighted && i < ROWS * COLUMNS / block; i++) {
                double a = error_of(type, found + (size_t)i * bytes, x + i * block, block, COLUMNS, NULL);
                double b = error_of(type, plain + (size_t)i * bytes, x + i * block, block, COLUMNS, NULL);
                if (!CHECK_MSG(a <= b * 1.0001, "%s, source %d: block %d has error %.6g, geul_encode() %.6g",
                               geul_type_name(type), source, i, a, b))
                    break;
            }
        }
}

TEST(search_spends_error_where_it_matters_least)
{
    static float x[ROWS * COLUMNS], importance[COLUMNS];
    static uint8_t with[BYTES_MAX], without[BYTES_MAX];
    for (int i = 0; i < COLUMNS; i++)
        importance[i] = i % 4 == 0 ? 100.0f : 0.01f;
    EACH_BLOCK_TYPE(type)
    {
        fill(x, ROWS * COLUMNS, NORMAL);
        geul_search_rows(type, x, with, ROWS, COLUMNS, importance);
        geul_search_rows(type, x, without, ROWS, COLUMNS, NULL);
        double a = error_of(type, with, x, ROWS * COLUMNS, COLUMNS, importance);
        double b = error_of(type, without, x, ROWS * COLUMNS, COLUMNS, importance);
        CHECK_MSG(a < 0.9 * b, "%s: weighted error %.6g with importance, %.6g without", geul_type_name(type), a, b);
        for (int i = 0; i < COLUMNS; i++) /* importance counts relative to its neighbours only */
            importance[i] *= 0x1p40f;
        geul_search_rows(type, x, without, ROWS, COLUMNS, importance);
        CHECK(memcmp(with, without, (size_t)(ROWS * COLUMNS / geul_type_block(type)) * geul_type_bytes(type)) == 0);
        for (int i = 0; i < COLUMNS; i++)
            importance[i] *= 0x1p-40f;
    }
}

TEST(search_does_not_depend_on_how_rows_are_split)
{
    static float x[ROWS * COLUMNS], importance[COLUMNS];
    static uint8_t whole[BYTES_MAX], parts[BYTES_MAX];
    fill(x, ROWS * COLUMNS, LAPLACE);
    fill_importance(importance, COLUMNS);
    EACH_BLOCK_TYPE(type)
    {
        const int64_t k = geul_type_block(type) == 256 ? 256 : 96, rows = ROWS;
        const size_t row = (size_t)(k / geul_type_block(type)) * geul_type_bytes(type);
        double all = geul_search_rows(type, x, whole, rows, k, importance), sum = 0;
        memset(parts, 0xee, sizeof parts);
        for (int64_t r = 0, n; r < rows; r += n) {
            n = r % 5 + 1 < rows - r ? r % 5 + 1 : rows - r;
            sum += geul_search_rows(type, x + r * k, parts + (size_t)r * row, n, k, importance);
        }
        CHECK_MSG(memcmp(whole, parts, (size_t)rows * row) == 0, "%s", geul_type_name(type));
        CHECK_MSG(parts[(size_t)rows * row] == 0xee, "%s writes behind its rows", geul_type_name(type));
        CHECK(fabs(all - sum) <= 1e-12 * all);
    }
}

TEST(search_takes_any_numbers)
{
    static const float special[] = {0,      1e-45f, -1e-38f, 1e-20f, 3e-8f,   -6e-5f, 1,        -7,
                                    -65504, 65504,  70000,   1e30f,  FLT_MAX, NAN,    INFINITY, -INFINITY};
    enum { SPECIAL = sizeof special / sizeof special[0], K = 256 };
    static float x[SPECIAL * K], y[K], odd[K];
    static uint8_t bytes[sizeof x], plain[sizeof x];
    EACH_BLOCK_TYPE(type)
    {
        const size_t row = (size_t)(K / geul_type_block(type)) * geul_type_bytes(type);
        for (int mixed = 0; mixed < 3; mixed++) {
            for (int i = 0; i < SPECIAL * K; i++)
                x[i] = mixed == 0 ? special[i / K] : special[i / K] * (mixed == 1 ? test_normal(&seed) : i % K == 77);
            for (int i = 0; i < K; i++)
                odd[i] = mixed == 0 ? 0 : mixed == 1 ? special[i % SPECIAL] : i % 3 == 0;
            for (int i = 0; i < SPECIAL; i++) {
                double error = geul_search_rows(type, x + i * K, bytes, 1, K, mixed ? odd : NULL);
                bool usable = true;
                double largest = 0, worst = 0;
                for (int j = 0; j < K; j++) {
                    usable &= fabsf(x[i * K + j]) <= 65504;
                    largest = fmax(largest, fabs((double)x[i * K + j]));
                }
                geul_decode(type, bytes, y, K);
                geul_encode(type, x + i * K, plain, K);
                if (!usable) {
                    if (mixed == 0)
                        CHECK_MSG(memcmp(bytes, plain, row) == 0, "%s of %g", geul_type_name(type), special[i]);
                    continue;
                }
                for (int j = 0; j < K; j++)
                    worst = fmax(worst, fabs((double)y[j] - (double)x[i * K + j]));
                /* The smallest steps of float16 are 6e-8. */
                CHECK_MSG(worst <= largest * 1.001 + 2e-7, "%s turns values up to %g into an error of %g",
                          geul_type_name(type), largest, worst);
                CHECK_MSG(error >= 0 || mixed == 1, "%s: error %g", geul_type_name(type), error);
            }
        }
    }
}

TEST(search_leaves_plain_types_to_encode)
{
    float x[64];
    uint16_t found[64], plain[64];
    fill(x, 64, NORMAL);
    double said = geul_search_rows(GEUL_TYPE_BF16, x, found, 1, 64, NULL), error = 0;
    geul_encode(GEUL_TYPE_BF16, x, plain, 64);
    CHECK(memcmp(found, plain, sizeof found) == 0);
    for (int i = 0; i < 64; i++)
        error += pow((double)x[i] - (double)geul_bf16_to_f32(plain[i]), 2);
    CHECK_MSG(error > 0 && fabs(said - error) < 1e-9 * error, "error %g, said to be %g", error, said);
}
