/* The block types beside the PyPI package gguf: tests/golden/blocks.tsv, written by make_blocks.py. */
#include "core/tensor.h"
#include "tests/harness.h"

enum { MOST_BLOCKS = 16, MOST_BYTES = MOST_BLOCKS * 256, MOST_VALUES = MOST_BLOCKS * 256 };

/* Turns hex into bytes; returns how many, 0 when it is not hex or does not fit. */
static size_t from_hex(const char *hex, void *out, size_t room)
{
    size_t n = strlen(hex) / 2;
    for (size_t i = 0; i < n && n <= room; i++) {
        unsigned byte;
        if (sscanf(hex + 2 * i, "%2x", &byte) != 1)
            return 0;
        ((uint8_t *)out)[i] = (uint8_t)byte;
    }
    return n <= room ? n : 0;
}

static void check_decode(enum geul_type type, const uint8_t *blocks, const float *x, int64_t n)
{
    float y[MOST_VALUES];
    geul_decode(type, blocks, y, n);
    for (int64_t i = 0; i < n; i++)
        CHECK_MSG(isnan(x[i]) ? isnan(y[i]) : memcmp(&x[i], &y[i], sizeof *x) == 0, "%s: value %d is %a, not %a",
                  geul_type_name(type), (int)i, (double)y[i], (double)x[i]);
}

static void check_encode(enum geul_type type, const uint8_t *blocks, const float *x, int64_t n)
{
    uint8_t bytes[MOST_BYTES];
    size_t each = geul_type_bytes(type);
    geul_encode(type, x, bytes, n);
    for (size_t b = 0; b < (size_t)(n / geul_type_block(type)); b++)
        for (size_t i = 0; i < each; i++)
            CHECK_MSG(bytes[b * each + i] == blocks[b * each + i], "%s: byte %zu of block %zu is %02x, not %02x",
                      geul_type_name(type), i, b, bytes[b * each + i], blocks[b * each + i]);
}

TEST(codec_blocks_equal_the_gguf_package)
{
    static float x[MOST_VALUES];
    static uint8_t blocks[MOST_BYTES];
    int seen[2][GEUL_TYPE_COUNT] = {{0}};
    char *text = test_slurp(test_path("golden/blocks.tsv"), NULL);
    REQUIRE(text != NULL);
    char *line_end = NULL;
    for (char *line = strtok_r(text, "\n", &line_end); line; line = strtok_r(NULL, "\n", &line_end)) {
        char *at = NULL, *what = strtok_r(line, "\t", &at), *name = strtok_r(NULL, "\t", &at);
        char *bytes = strtok_r(NULL, "\t", &at), *values = strtok_r(NULL, "\t", &at);
        REQUIRE(what && name && bytes && values);
        enum geul_type type = geul_type_from_name(name);
        REQUIRE(type < GEUL_TYPE_COUNT && geul_type_block(type) > 1);
        size_t n_bytes = from_hex(bytes, blocks, sizeof blocks);
        int64_t n = (int64_t)(from_hex(values, x, sizeof x) / sizeof *x);
        REQUIRE(n > 0 && n_bytes == (size_t)(n / geul_type_block(type)) * geul_type_bytes(type));
        bool encode = strcmp(what, "encode") == 0;
        (encode ? check_encode : check_decode)(type, blocks, x, n);
        seen[encode][type]++;
    }
    free(text);
    for (int t = 0; t < GEUL_TYPE_COUNT; t++)
        CHECK_MSG(seen[0][t] == (geul_type_block((enum geul_type)t) > 1), "%s has no vectors",
                  geul_type_name((enum geul_type)t));
    for (int t = 0; t < 5; t++)
        CHECK_INT(seen[1][((const enum geul_type[]){GEUL_TYPE_Q8_0, GEUL_TYPE_Q4_0, GEUL_TYPE_Q4_1, GEUL_TYPE_Q5_0,
                                                    GEUL_TYPE_Q5_1})[t]],
                  1);
}
