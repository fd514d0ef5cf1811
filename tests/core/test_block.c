/* Blocks apart from their bytes: limits, packing both ways, and what the reference encoding does with hard values. */
#include "core/block.h"
#include "tests/harness.h"

#define EACH_BLOCK_TYPE(type)                                                                                          \
    for (enum geul_type type = 0; type < GEUL_TYPE_COUNT; type++)                                                      \
        if (geul_block_format(type))

static void random_bytes(uint64_t *seed, uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(test_random(seed) >> 32);
}

TEST(block_every_block_type_has_a_format)
{
    for (enum geul_type t = 0; t < GEUL_TYPE_COUNT; t++) {
        const struct geul_block_format *f = geul_block_format(t);
        CHECK_MSG((f != NULL) == (geul_type_block(t) > 1), "%s", geul_type_name(t));
        if (!f)
            continue;
        CHECK_INT(f->block, geul_type_block(t));
        CHECK_MSG(f->block <= GEUL_BLOCK_MAX && f->block % f->group == 0 && f->block / f->group <= GEUL_GROUPS_MAX &&
                      f->group % 16 == 0,
                  "%s: groups of %d in %d", geul_type_name(t), f->group, f->block);
        CHECK_MSG(f->q_low < f->q_high && f->scale_low <= f->scale_high && f->scale_high >= 1, "%s", geul_type_name(t));
        for (int i = f->q_low; f->codebook && i < f->q_high; i++)
            CHECK_MSG(f->codebook[i] < f->codebook[i + 1], "%s: level %d", geul_type_name(t), i);
    }
    CHECK(geul_block_format(GEUL_TYPE_COUNT) == NULL);
}

/* Whether every integer of b keeps the limits of f. */
static bool within_limits(const struct geul_block_format *f, const struct geul_block *b)
{
    bool ok = true;
    for (int i = 0; i < f->block; i++)
        ok &= b->q[i] >= f->q_low && b->q[i] <= f->q_high;
    for (int g = 0; g < f->block / f->group; g++)
        ok &= b->scale[g] >= f->scale_low && b->scale[g] <= f->scale_high && b->min[g] >= 0 && b->min[g] <= f->min_high;
    return ok;
}

TEST(block_packing_gives_back_every_byte)
{
    uint64_t seed = 31;
    EACH_BLOCK_TYPE(t)
    {
        size_t n = geul_type_bytes(t);
        for (int round = 0; round < 500; round++) {
            uint8_t bytes[256 + 1], back[256 + 1];
            struct geul_block b;
            random_bytes(&seed, bytes, n);
            memset(&b, 0xee, sizeof b);
            back[n] = 0xa5;
            geul_block_unpack(t, bytes, &b);
            CHECK_MSG(within_limits(geul_block_format(t), &b), "%s: random bytes leave the limits", geul_type_name(t));
            geul_block_pack(t, &b, back);
            CHECK_INT(back[n], 0xa5);
            if (!isnan(b.d) && !isnan(b.m)) /* which of its NaNs a float16 is need not survive */
                CHECK_MSG(memcmp(bytes, back, n) == 0, "%s: round %d", geul_type_name(t), round);
        }
    }
}

TEST(block_integers_at_their_limits_survive)
{
    EACH_BLOCK_TYPE(t)
    {
        const struct geul_block_format *f = geul_block_format(t);
        for (int high = 0; high < 2; high++) {
            struct geul_block b = {.d = 0.5f, .m = f->min_high ? 0.25f : 0}, c;
            uint8_t bytes[256];
            for (int i = 0; i < f->block; i++)
                b.q[i] = (int16_t)((i % 2 == high) ? f->q_high : f->q_low);
            for (int g = 0; g < f->block / f->group; g++) {
                b.scale[g] = (int16_t)((g % 2 == high) ? f->scale_high : f->scale_low);
                b.min[g] = (int16_t)(f->min_high == 1 || g % 2 != high ? f->min_high : 0);
            }
            geul_block_pack(t, &b, bytes);
            geul_block_unpack(t, bytes, &c);
            bool same = b.d == c.d && b.m == c.m && memcmp(b.q, c.q, (size_t)f->block * sizeof *b.q) == 0;
            for (int g = 0; g < f->block / f->group; g++)
                same &= b.scale[g] == c.scale[g] && b.min[g] == c.min[g];
            CHECK_MSG(same, "%s", geul_type_name(t));
        }
    }
}

/* Exactly sized memory between canaries; the sanitizers watch what is read. */
TEST(block_codecs_stay_inside_their_memory)
{
    uint64_t seed = 7;
    for (enum geul_type t = 0; t < GEUL_TYPE_COUNT; t++) {
        size_t n = 3 * (size_t)geul_type_block(t), size = 3 * geul_type_bytes(t), x_size = n * sizeof(float);
        uint8_t *bytes = malloc(size + 16);
        float *x = malloc(x_size + 16), *exact = malloc(x_size);
        uint8_t *exact_bytes = malloc(size);
        memset(bytes + size, 0xa5, 16);
        memset((uint8_t *)x + x_size, 0xa5, 16);
        for (int round = 0; round < 20; round++) {
            random_bytes(&seed, exact_bytes, size);
            geul_decode(t, exact_bytes, x, (int64_t)n);
            random_bytes(&seed, (uint8_t *)exact, x_size); /* floats of every kind */
            geul_encode(t, exact, bytes, (int64_t)n);
        }
        for (size_t i = 0; i < 16; i++)
            CHECK_MSG(bytes[size + i] == 0xa5 && ((uint8_t *)x)[x_size + i] == 0xa5, "%s wrote outside",
                      geul_type_name(t));
        free(exact_bytes);
        free(exact);
        free(x);
        free(bytes);
    }
}

/* Root of the mean square error of encoding and decoding n values, relative to that of the values. */
static double relative_error(enum geul_type type, const float *x, int n)
{
    float *y = malloc((size_t)n * sizeof *y);
    uint8_t *bytes = malloc((size_t)n * 4);
    double error = 0, size = 0;
    geul_encode(type, x, bytes, n);
    geul_decode(type, bytes, y, n);
    for (int i = 0; i < n; i++) {
        error += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
        size += (double)x[i] * (double)x[i];
    }
    free(bytes);
    free(y);
    return sqrt(error / size);
}

/* Bounds are what the reference encoding gives for Gaussian values, and a tenth. */
static const double error_bounds[GEUL_TYPE_COUNT] = {
    [GEUL_TYPE_Q8_0] = 0.0059, [GEUL_TYPE_Q4_0] = 0.095,  [GEUL_TYPE_Q4_1] = 0.086,   [GEUL_TYPE_Q5_0] = 0.047,
    [GEUL_TYPE_Q5_1] = 0.042,  [GEUL_TYPE_Q2_K] = 0.36,   [GEUL_TYPE_Q3_K] = 0.17,    [GEUL_TYPE_Q4_K] = 0.086,
    [GEUL_TYPE_Q5_K] = 0.042,  [GEUL_TYPE_Q6_K] = 0.0207, [GEUL_TYPE_IQ4_NL] = 0.088, [GEUL_TYPE_IQ4_XS] = 0.088};

TEST(block_error_of_gaussian_values_is_bounded)
{
    enum { N = 256 * 64 };
    static float x[N];
    uint64_t seed = 3;
    static const double sizes[] = {1e-3, 1, 1e4}; /* the first has super-scales among float16's subnormals */
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        EACH_BLOCK_TYPE(t)
        {
            for (int i = 0; i < N; i++)
                x[i] = (float)(sizes[s] * (double)test_normal(&seed));
            double error = relative_error(t, x, N);
            CHECK_MSG(error <= error_bounds[t], "%s: relative error %.4f of values of size %g", geul_type_name(t),
                      error, sizes[s]);
        }
}

TEST(block_encoding_copes_with_odd_groups)
{
    EACH_BLOCK_TYPE(t)
    {
        float x[256], y[256];
        uint8_t bytes[256];
        const struct geul_block_format *f = geul_block_format(t);
        for (int kind = 0; kind < 4; kind++) { /* zeros; all positive; all negative; one value alone */
            for (int i = 0; i < f->block; i++)
                x[i] = kind == 1             ? 1 + (float)(i % 3)
                       : kind == 2           ? -1 - (float)(i % 3)
                       : kind == 3 && i == 5 ? -3.0f
                                             : 0;
            geul_encode(t, x, bytes, f->block);
            geul_decode(t, bytes, y, f->block);
            double step = 3.0 / (f->codebook ? 8 : f->q_high - f->q_low > 8 ? f->q_high / 2 : 1.5);
            for (int i = 0; i < f->block; i++)
                CHECK_MSG(kind == 0 ? y[i] == 0 : fabs((double)y[i] - (double)x[i]) <= step,
                          "%s, kind %d: %g became %g", geul_type_name(t), kind, (double)x[i], (double)y[i]);
        }
    }
}

/* Whether value i of a block that is otherwise ones is not finite after the way through the type. */
static bool shows_damage(enum geul_type t, int i, float value)
{
    float x[256], y[256];
    uint8_t bytes[1024];
    for (int k = 0; k < 256; k++)
        x[k] = 1;
    x[i] = value;
    geul_encode(t, x, bytes, 256);
    geul_decode(t, bytes, y, 256);
    return !isfinite(y[i]);
}

TEST(block_damage_stays_visible)
{
    for (enum geul_type t = 0; t < GEUL_TYPE_COUNT; t++)
        for (int i = 0; i < 256 && geul_type_is_weight(t); i += 37) {
            CHECK_MSG(shows_damage(t, i, NAN), "%s hides a NaN at %d", geul_type_name(t), i);
            CHECK_MSG(shows_damage(t, i, INFINITY) && shows_damage(t, i, -INFINITY), "%s hides an infinity at %d",
                      geul_type_name(t), i);
        }
}

/* The largest magnitude of a block of values of that size, decoded; NaN when any is not finite. */
static double after(enum geul_type t, double size)
{
    float x[256], y[256];
    uint8_t bytes[1024];
    double most = 0;
    for (int i = 0; i < 256; i++)
        x[i] = (float)(i % 3 == 0 ? -size : size / 4);
    geul_encode(t, x, bytes, 256);
    geul_decode(t, bytes, y, 256);
    for (int i = 0; i < 256; i++)
        most = isfinite(y[i]) ? fmax(most, fabs((double)y[i])) : NAN;
    return most;
}

TEST(block_float16_scales_set_the_range)
{
    EACH_BLOCK_TYPE(t)
    {
        const struct geul_block_format *f = geul_block_format(t);
        bool stored = f->scale_high > 1;
        /* The largest magnitude that the format has, or for one minimum per block float16's own. */
        double level = f->codebook ? 127 : f->q_low < 0 ? -f->q_low : f->min_high > 1 ? f->min_high : 1;
        double most = 65504 * level * (stored && !f->min_high ? -f->scale_low : 1);
        CHECK_MSG(isfinite(after(t, 0.97 * most)), "%s: %g is in range and was lost", geul_type_name(t), 0.97 * most);
        CHECK_MSG(isnan(after(t, 1.1 * most)), "%s: %g cannot be written and must show", geul_type_name(t), 1.1 * most);
        CHECK_MSG(after(t, 1e-30) == 0, "%s: what float16 cannot reach becomes 0", geul_type_name(t));
        if (stored) { /* a super-scale never rounds to nothing while its smallest step is of use */
            double small = after(t, 8 * 0x1p-24);
            CHECK_MSG(small >= 6 * 0x1p-24 && small <= 10 * 0x1p-24, "%s: 2^-21 became %a", geul_type_name(t), small);
        }
    }
}
