/* test_safetensors.c: the safetensors reader on lying headers, and the writer. */
#include "formats/safetensors.h"
#include "tests/harness.h"
#include "tests/hostile.h"

/* A file with that header and n bytes of data behind it. */
static struct bytes make_file(const char *header, size_t data)
{
    struct bytes b = {0};
    bytes_number(&b, strlen(header), 8);
    bytes_text(&b, header);
    bytes_zeros(&b, data);
    return b;
}

#define T(dtype, shape, offsets) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static const struct {
    const char *what, *message, *header;
} broken[] = {
    {"not JSON", "not valid JSON", "{\"a\":"},
    {"not an object", "not a JSON object", "[1,2]"},
    {"two documents", "not valid JSON", "{}{}"},
    {"entry is no object", "needs a dtype", "{\"a\":5}"},
    {"no dtype", "needs a dtype", "{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}"},
    {"unknown dtype", "unknown dtype Q9", "{\"a\":" T("Q9", "[1]", "[0,4]") "}"},
    {"line break in a dtype", "unknown dtype F?32", "{\"a\":" T("F\\n32", "[1]", "[0,4]") "}"},
    {"control character in a name", "control character", "{\"a\\nb\":" T("F32", "[1]", "[0,4]") "}"},
    {"negative dimension", "does not fit", "{\"a\":" T("F32", "[-1]", "[0,4]") "}"},
    {"real dimension", "does not fit", "{\"a\":" T("F32", "[1.0]", "[0,4]") "}"},
    {"too many dimensions", "at most 8", "{\"a\":" T("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}"},
    {"overflowing shape", "does not fit", "{\"a\":" T("F32", "[4294967296,4294967296,4]", "[0,0]") "}"},
    {"reversed offsets", "does not fit", "{\"a\":" T("F32", "[1]", "[8,4]") "}"},
    {"negative offset", "does not fit", "{\"a\":" T("F32", "[1]", "[-4,0]") "}"},
    {"offsets beyond the end", "does not fit", "{\"a\":" T("F32", "[20]", "[0,80]") "}"},
    {"offsets near 2^63", "does not fit", "{\"a\":" T("F32", "[1]", "[9223372036854775803,9223372036854775807]") "}"},
    {"one offset", "two data_offsets", "{\"a\":" T("F32", "[1]", "[0]") "}"},
    {"range and shape differ", "does not fit", "{\"a\":" T("F32", "[3]", "[0,8]") "}"},
    {"overlap", "tensors a and b overlap",
     "{\"a\":" T("F32", "[4]", "[0,16]") ",\"b\":" T("F16", "[2]", "[12,16]") "}"},
    {"one place", "overlap", "{\"a\":" T("F32", "[4]", "[0,16]") ",\"b\":" T("F32", "[4]", "[0,16]") "}"},
    {"name twice", "not valid JSON", "{\"a\":" T("F32", "[1]", "[0,4]") ",\"a\":" T("F32", "[1]", "[4,8]") "}"},
};

static void refuse(const char *what, const char *message, const struct bytes *b)
{
    struct meter m;
    struct geul_context *ctx = meter_context(&m);
    struct geul_source_list list = {0};
    size_t held = m.now;
    CHECK_MSG(geul_safetensors_read(ctx, "hostile", b->data, b->size, &list) != GEUL_OK, "%s was read", what);
    geul_source_free(ctx, &list);
    check_failure(ctx, &m, held, what, message);
    geul_context_free(ctx);
}

TEST(safetensors_refuses_lying_headers)
{
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        struct bytes b = make_file(broken[i].header, 64);
        refuse(broken[i].what, broken[i].message, &b);
        bytes_free(&b);
    }
    struct bytes b = {0};
    refuse("empty", "empty", &b);
    bytes_number(&b, UINT64_MAX, 8);
    refuse("header of 2^64 bytes", "claims a header", &b);
    bytes_free(&b);
    bytes_number(&b, 3, 8);
    bytes_text(&b, "{}");
    refuse("header longer than the file", "claims a header", &b);
    bytes_free(&b);
    char deep[6001];
    memset(deep, '[', 6000);
    deep[6000] = '\0';
    b = make_file(deep, 0);
    refuse("nested 6000 deep", "not valid JSON", &b);
    bytes_free(&b);
}

TEST(safetensors_reads_holes_scalars_and_empty_tensors)
{
    struct bytes b = make_file("{\"__metadata__\":{\"format\":\"pt\"},\"s\":" T("F32", "[]", "[60,64]") ",\"e\":" T(
                                   "F16", "[0,3]", "[8,8]") ",\"x\":" T("BF16", "[2,2]", "[0,8]") "}",
                               64);
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_source_list list = {0};
    CHECK(geul_safetensors_read(ctx, "file", b.data, b.size, &list) == GEUL_OK);
    CHECK_STR(geul_error(ctx), "");
    CHECK(geul_source_sort(ctx, &list, "file") == GEUL_OK && list.count == 3);
    const struct geul_source_tensor *x = geul_source_find(&list, "x"), *s = geul_source_find(&list, "s");
    REQUIRE(x && s && !geul_source_find(&list, "y"));
    CHECK(x->dtype == GEUL_DTYPE_BF16 && x->n_dims == 2 && x->bytes == 8 && x->data == b.data + b.size - 64);
    CHECK(s->n_dims == 0 && s->bytes == 4);
    geul_source_free(ctx, &list);
    geul_context_free(ctx);
    bytes_free(&b);
}

TEST(safetensors_without_tensors)
{
    struct bytes b = make_file("{\"__metadata__\":{}}", 0);
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_source_list list = {0};
    CHECK(geul_safetensors_read(ctx, "file", b.data, b.size, &list) == GEUL_OK && list.count == 0);
    geul_source_free(ctx, &list);
    geul_context_free(ctx);
    bytes_free(&b);
}

TEST(safetensors_writer_round_trip)
{
    struct geul_context *ctx = geul_context_new(NULL);
    const char *path = test_scratch("x.safetensors");
    const float a[6] = {1, -2, 3, 4, 5, 6};
    const uint8_t c[4] = {9, 8, 7, 6};
    char name_a[] = "a \"quoted\" \xea\xb8\x80", name_c[] = "c";
    const struct geul_source_tensor tensors[] = {
        {.name = name_a, .dtype = GEUL_DTYPE_F32, .n_dims = 2, .shape = {2, 3}, .bytes = 24},
        {.name = name_c, .dtype = GEUL_DTYPE_F16, .n_dims = 1, .shape = {2}, .bytes = 4},
    };
    struct geul_safetensors_writer *w = geul_safetensors_writer_new(ctx, path, tensors, 2);
    REQUIRE(w != NULL);
    geul_safetensors_write(w, a, sizeof a);
    geul_safetensors_write(w, c, 1);
    geul_safetensors_write(w, c + 1, 3);
    CHECK(geul_safetensors_commit(w) == GEUL_OK);
    size_t size;
    char *file = test_slurp(path, &size);
    struct geul_source_list list = {0};
    REQUIRE(file && geul_safetensors_read(ctx, path, (uint8_t *)file, size, &list) == GEUL_OK);
    geul_source_sort(ctx, &list, path);
    const struct geul_source_tensor *x = geul_source_find(&list, name_a), *y = geul_source_find(&list, "c");
    REQUIRE(x && y);
    CHECK(memcmp(x->data, a, sizeof a) == 0 && x->shape[1] == 3 && memcmp(y->data, c, 4) == 0);
    CHECK_INT((x->data - (uint8_t *)file) % 8, 0);
    geul_source_free(ctx, &list);
    free(file);
    w = geul_safetensors_writer_new(ctx, path, tensors, 2);
    REQUIRE(w != NULL);
    geul_safetensors_write(w, a, sizeof a);
    CHECK(geul_safetensors_commit(w) != GEUL_OK); /* the second tensor did not come */
    geul_context_free(ctx);
}
