/* The reference codecs: exact conversions and error bounds. Blocks: test_block.c, test_codec_vectors.c. */
#include "core/half.h"
#include "core/tensor.h"
#include "tests/harness.h"

TEST(codec_f16_round_trips_every_value)
{
    int wrong = 0;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = geul_f16_to_f32((uint16_t)h);
        wrong += isnan(f) ? !isnan(geul_f16_to_f32(geul_f32_to_f16(f))) : geul_f32_to_f16(f) != h;
    }
    CHECK_INT(wrong, 0);
}

/* The float16 nearest to x, by searching neighbours; ties to even. */
static uint16_t nearest_f16(double x)
{
    uint16_t best = 0;
    double distance = INFINITY;
    for (uint32_t h = 0; h < 0x7c00; h++) {
        double d = fabs((double)geul_f16_to_f32((uint16_t)h) - x);
        if (d < distance || (d == distance && h % 2 == 0))
            best = (uint16_t)h, distance = d;
    }
    return best;
}

TEST(codec_f16_rounds_to_nearest_even)
{
    uint64_t seed = 11;
    for (int i = 0; i < 300; i++) {
        float x = (float)exp(test_uniform(&seed, -20, 11));
        if (x < 65504)
            CHECK_MSG(geul_f32_to_f16(x) == nearest_f16((double)x), "%a becomes %04x", (double)x, geul_f32_to_f16(x));
    }
    const struct {
        float x;
        uint16_t h;
    } cases[] = {{65504, 0x7bff}, {65519.996f, 0x7bff}, {65520, 0x7c00},  {INFINITY, 0x7c00}, {-INFINITY, 0xfc00},
                 {-0.0f, 0x8000}, {0x1p-24f, 1},        {0x1p-25f, 0},    {0x1.8p-25f, 1},    {1.00048828125f, 0x3c00},
                 {1e-30f, 0},     {-1e-30f, 0x8000},    {0x1p-14f, 0x400}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECK_MSG(geul_f32_to_f16(cases[i].x) == cases[i].h, "%a becomes %04x", (double)cases[i].x,
                  geul_f32_to_f16(cases[i].x));
    CHECK(isnan(geul_f16_to_f32(geul_f32_to_f16(NAN))));
}

TEST(codec_bf16_rounds_to_nearest_even)
{
    CHECK_INT(geul_f32_to_bf16(1.0f), 0x3f80);
    CHECK_INT(geul_f32_to_bf16(1.00390625f), 0x3f80); /* halfway, down to even */
    CHECK_INT(geul_f32_to_bf16(1.01171875f), 0x3f82); /* halfway, up to even */
    CHECK_INT(geul_f32_to_bf16(INFINITY), 0x7f80);
    CHECK_INT(geul_f32_to_bf16(3.4e38f), 0x7f80);
    CHECK(isnan(geul_bf16_to_f32(geul_f32_to_bf16(NAN))));
    for (uint32_t h = 0; h < 0x7f80; h += 7)
        CHECK_INT(geul_f32_to_bf16(geul_bf16_to_f32((uint16_t)h)), h);
}

TEST(codec_blocks_stay_within_half_a_step)
{
    const struct {
        enum geul_type type;
        float step; /* of the largest magnitude; Q4_0's far side is clipped by up to one step */
    } cases[] = {{GEUL_TYPE_Q8_0, 0.5f / 127 * 1.01f}, {GEUL_TYPE_Q4_0, 1.0f / 8 * 1.01f}};
    uint64_t seed = 5;
    for (size_t c = 0; c < 2; c++) {
        float x[32 * 8], y[32 * 8];
        uint8_t blocks[8 * 34];
        for (int i = 0; i < 256; i++)
            x[i] = test_normal(&seed);
        geul_encode(cases[c].type, x, blocks, 256);
        geul_decode(cases[c].type, blocks, y, 256);
        for (int b = 0; b < 8; b++) {
            float most = 0;
            for (int i = 0; i < 32; i++)
                most = fmaxf(most, fabsf(x[32 * b + i]));
            for (int i = 0; i < 32; i++)
                CHECK_MSG(fabsf(x[32 * b + i] - y[32 * b + i]) <= most * cases[c].step, "%s: %g became %g",
                          geul_type_name(cases[c].type), (double)x[32 * b + i], (double)y[32 * b + i]);
        }
    }
}
