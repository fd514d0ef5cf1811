/* test_file_kind.c: telling files by their first bytes. What each door says is in tests/command/test_wrong_files.c. */
#include "core/file_kind.h"
#include "tests/harness.h"

static const char *what(const void *data, size_t size)
{
    /* a copy of its own size: a sanitizer sees any byte that is read behind it */
    void *copy = calloc(size + !size, 1);
    memcpy(copy, data, size);
    const struct geul_file_kind *kind = geul_file_kind_of(copy, size);
    free(copy);
    return kind ? kind->what : "?";
}

TEST(file_kind_by_the_first_bytes)
{
    CHECK_STR(what("", 0), "empty");
    CHECK_STR(what("GGUF\3\0\0\0", 8), "a GGUF file");
    CHECK_STR(what("GGU", 3), "a text");
    CHECK_STR(what("{\"a\": 1}", 8), "JSON");
    CHECK_STR(what("\n [1]", 5), "JSON");
    CHECK_STR(what("{\0\0\0", 4), "?"); /* an importance matrix of 123 entries */
    CHECK_STR(what("\x10\0\0\0\0\0\0\0{\"a\":1}       ", 22), "a safetensors file");
    CHECK_STR(what("\x10\0\0\0\0\0\0\0{\0", 10), "?");
    CHECK_STR(what("\1\2\3", 3), "?");
    char tar[512] = "weights/a.bin";
    memcpy(tar + 257, "ustar", 5);
    CHECK_STR(what(tar, sizeof tar), "a tar archive");
    CHECK_STR(what("안녕", 6), "a text");
}

TEST(file_kind_reads_no_byte_too_far)
{
#define BEGIN(text)                                                                                                    \
    {                                                                                                                  \
        text, sizeof text - 1                                                                                          \
    }
    static const struct {
        const char *text;
        size_t size;
    } begins[] = {
        BEGIN("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n"),
        BEGIN("\x10\0\0\0\0\0\0\0{\"a\":1}"),
        BEGIN("\1\0\0\0\23\0\0\0blk.0.attn_qkv.weight"),
        BEGIN("<!DOCTYPE html><html>"),
    };
#undef BEGIN
    for (size_t i = 0; i < sizeof begins / sizeof *begins; i++)
        for (size_t n = 0; n <= begins[i].size; n++)
            CHECK(what(begins[i].text, n)[0] != '\0');
    uint64_t seed = 1;
    for (int i = 0; i < 2000; i++) {
        uint8_t data[300];
        size_t n = (size_t)(test_random(&seed) % sizeof data);
        for (size_t k = 0; k < n; k++)
            data[k] = (uint8_t)test_random(&seed);
        CHECK(what(data, n)[0] != '\0');
    }
}
