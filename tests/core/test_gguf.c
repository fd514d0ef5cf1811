/* test_gguf.c: the GGUF reader on honest, broken and hostile files, and the writer. */
#include "core/gguf.h"
#include "core/os.h"
#include "tests/harness.h"
#include "tests/hostile.h"

#include <sys/stat.h>
#include <unistd.h>

/* --------------------------------------------------------------------------- hand-made files -- */

static void head(struct bytes *b, uint32_t version, uint64_t n_tensors, uint64_t n_keys)
{
    bytes_text(b, "GGUF");
    bytes_number(b, version, 4);
    bytes_number(b, n_tensors, 8);
    bytes_number(b, n_keys, 8);
}

static void name(struct bytes *b, const char *text)
{
    bytes_number(b, strlen(text), 8);
    bytes_text(b, text);
}

static void key_u32(struct bytes *b, const char *key, uint32_t v)
{
    name(b, key);
    bytes_number(b, GEUL_GGUF_U32, 4);
    bytes_number(b, v, 4);
}

/* A 2-D tensor; dims in the file's order. */
static void tensor(struct bytes *b, const char *text, uint64_t inner, uint64_t outer, uint32_t type, uint64_t offset)
{
    name(b, text);
    bytes_number(b, 2, 4);
    bytes_number(b, inner, 8);
    bytes_number(b, outer, 8);
    bytes_number(b, type, 4);
    bytes_number(b, offset, 8);
}

static void data(struct bytes *b, size_t size)
{
    bytes_zeros(b, (32 - b->size % 32) % 32 + size);
}

static void f_empty(struct bytes *b)
{
    (void)b;
}
static void f_magic(struct bytes *b)
{
    bytes_text(b, "GGML");
    bytes_zeros(b, 60);
}
static void f_version0(struct bytes *b)
{
    head(b, 0, 0, 0);
}
static void f_version1(struct bytes *b)
{
    head(b, 1, 0, 0);
}
static void f_version4(struct bytes *b)
{
    head(b, 4, 0, 0);
}
static void f_big_endian(struct bytes *b)
{
    head(b, 3u << 24, 0, 0);
}
static void f_many_keys(struct bytes *b)
{
    head(b, 3, 0, INT64_MAX);
    bytes_zeros(b, 100);
}
static void f_many_tensors(struct bytes *b)
{
    head(b, 3, (uint64_t)INT64_MAX - 1, 0);
    bytes_zeros(b, 100);
}
static void f_most_tensors(struct bytes *b)
{
    head(b, 3, UINT64_MAX, UINT64_MAX);
    bytes_zeros(b, 100);
}
static void f_key_length(struct bytes *b)
{
    head(b, 3, 0, 1);
    bytes_number(b, UINT64_MAX - 7, 8);
    bytes_zeros(b, 40);
}
static void f_key_control(struct bytes *b)
{
    head(b, 3, 0, 1);
    key_u32(b, "a\nb", 1);
}
static void f_key_empty(struct bytes *b)
{
    head(b, 3, 0, 1);
    key_u32(b, "", 1);
}
static void f_key_type(struct bytes *b)
{
    head(b, 3, 0, 1);
    name(b, "a");
    bytes_number(b, 13, 4);
    bytes_zeros(b, 40);
}
static void f_key_twice(struct bytes *b)
{
    head(b, 3, 0, 3);
    key_u32(b, "b", 1);
    key_u32(b, "a", 1);
    key_u32(b, "b", 2);
}
static void f_string_length(struct bytes *b)
{
    head(b, 3, 0, 1);
    name(b, "a");
    bytes_number(b, GEUL_GGUF_STRING, 4);
    bytes_number(b, 41, 8);
    bytes_zeros(b, 40);
}
static void array(struct bytes *b, uint32_t type, uint64_t count)
{
    head(b, 3, 0, 1);
    name(b, "a");
    bytes_number(b, GEUL_GGUF_ARRAY, 4);
    bytes_number(b, type, 4);
    bytes_number(b, count, 8);
    bytes_zeros(b, 64);
}
static void f_array_nested(struct bytes *b)
{
    array(b, GEUL_GGUF_ARRAY, 1);
}
static void f_array_type(struct bytes *b)
{
    array(b, 99, 1);
}
static void f_array_count(struct bytes *b)
{
    array(b, GEUL_GGUF_U64, UINT64_C(1) << 61); /* times 8 is 0 in 64 bits */
}
static void f_array_strings(struct bytes *b)
{
    array(b, GEUL_GGUF_STRING, 9);
}
static void alignment(struct bytes *b, uint32_t v)
{
    head(b, 3, 0, 1);
    key_u32(b, "general.alignment", v);
}
static void f_alignment0(struct bytes *b)
{
    alignment(b, 0);
}
static void f_alignment3(struct bytes *b)
{
    alignment(b, 3);
}
static void f_alignment_huge(struct bytes *b)
{
    alignment(b, UINT32_C(1) << 31);
}
static void f_alignment_text(struct bytes *b)
{
    head(b, 3, 0, 1);
    name(b, "general.alignment");
    bytes_number(b, GEUL_GGUF_STRING, 4);
    name(b, "32");
}
static void f_tensor_name(struct bytes *b)
{
    head(b, 3, 1, 0);
    tensor(b, "a name of a tensor that is longer than sixty-three bytes, which none is", 4, 1, 0, 0);
    data(b, 16);
}
static void f_tensor_twice(struct bytes *b)
{
    head(b, 3, 2, 0);
    tensor(b, "a", 4, 1, 0, 0);
    tensor(b, "a", 4, 1, 0, 32);
    data(b, 64);
}
static void dims(struct bytes *b, uint32_t n)
{
    head(b, 3, 1, 0);
    name(b, "a");
    bytes_number(b, n, 4);
    bytes_zeros(b, 200);
}
static void f_dims0(struct bytes *b)
{
    dims(b, 0);
}
static void f_dims5(struct bytes *b)
{
    dims(b, 5);
}
static void f_dims_huge(struct bytes *b)
{
    dims(b, UINT32_MAX);
}
static void one(struct bytes *b, uint64_t inner, uint64_t outer, uint32_t type, uint64_t offset)
{
    head(b, 3, 1, 0);
    tensor(b, "a", inner, outer, type, offset);
    data(b, 256);
}
static void f_dim_zero(struct bytes *b)
{
    one(b, 0, 4, 0, 0);
}
static void f_dim_negative(struct bytes *b)
{
    one(b, UINT64_MAX, 4, 0, 0);
}
static void f_overflow(struct bytes *b)
{
    one(b, UINT64_C(1) << 31, UINT64_C(1) << 31, 0, 0); /* times 4 is 0 in 64 bits */
}
static void f_type_known(struct bytes *b)
{
    one(b, 256, 1, 21, 0);
}
static void f_type_unknown(struct bytes *b)
{
    one(b, 4, 1, 4711, 0);
}
static void f_block(struct bytes *b)
{
    one(b, 33, 1, 8, 0);
}
static void f_unaligned(struct bytes *b)
{
    one(b, 4, 1, 0, 4);
}
static void f_beyond(struct bytes *b)
{
    one(b, 4, 17, 0, 0);
}
static void f_offset(struct bytes *b)
{
    one(b, 4, 1, 0, UINT64_MAX - 31);
}
static void f_overlap(struct bytes *b)
{
    head(b, 3, 2, 0);
    tensor(b, "a", 4, 4, 0, 0);
    tensor(b, "b", 4, 1, 0, 32);
    data(b, 64);
}
static void f_same_place(struct bytes *b)
{
    head(b, 3, 2, 0);
    tensor(b, "a", 4, 1, 0, 0);
    tensor(b, "b", 4, 1, 0, 0);
    data(b, 64);
}

static const struct {
    const char *what, *message;
    void (*build)(struct bytes *b);
} broken[] = {
    {"empty", "empty", f_empty},
    {"wrong magic", "not a GGUF file", f_magic},
    {"version 0", "version 0", f_version0},
    {"version 1", "version 1", f_version1},
    {"version 4", "version 4", f_version4},
    {"big-endian", "big-endian", f_big_endian},
    {"2^63 keys", "9223372036854775807 keys", f_many_keys},
    {"2^63 tensors", "9223372036854775806 tensors", f_many_tensors},
    {"2^64 of both", "18446744073709551615 keys", f_most_tensors},
    {"length of a key name", "claims a length", f_key_length},
    {"control character in a key", "printable", f_key_control},
    {"key without name", "printable", f_key_empty},
    {"unknown key type", "unknown type 13", f_key_type},
    {"key twice", "key b occurs twice", f_key_twice},
    {"length of a string", "claims a length of 41", f_string_length},
    {"array of arrays", "array of arrays", f_array_nested},
    {"array of an unknown type", "unknown type", f_array_type},
    {"array count", "claims 2305843009213693952 elements", f_array_count},
    {"array of strings", "claims 9 elements", f_array_strings},
    {"alignment 0", "general.alignment is 0", f_alignment0},
    {"alignment 3", "general.alignment is 3", f_alignment3},
    {"alignment 2^31", "general.alignment is 2147483648", f_alignment_huge},
    {"alignment as text", "general.alignment", f_alignment_text},
    {"long tensor name", "63 printable bytes", f_tensor_name},
    {"tensor twice", "tensor a occurs twice", f_tensor_twice},
    {"no dimensions", "0 dimensions", f_dims0},
    {"5 dimensions", "5 dimensions", f_dims5},
    {"2^32 dimensions", "4294967295 dimensions", f_dims_huge},
    {"dimension 0", "dimension of 0", f_dim_zero},
    {"dimension 2^64", "dimension of 18446744073709551615", f_dim_negative},
    {"overflowing shape", "impossible shape", f_overflow},
    {"type geul lacks", "type iq3_s (number 21)", f_type_known},
    {"unknown type", "type unknown (number 4711)", f_type_unknown},
    {"row that is no multiple of the block", "impossible shape", f_block},
    {"unaligned offset", "not a multiple of 32", f_unaligned},
    {"beyond the end", "needs 272 bytes at byte", f_beyond},
    {"offset beyond the end", "the file ends at byte", f_offset},
    {"overlap", "tensors a and b overlap", f_overlap},
    {"two tensors in one place", "overlap", f_same_place},
};

TEST(gguf_refuses_broken_files)
{
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        struct bytes b = {0};
        struct meter m;
        struct geul_context *ctx = meter_context(&m);
        size_t held = m.now;
        broken[i].build(&b);
        CHECK_MSG(geul_gguf_open_memory(ctx, b.data, b.size, "hostile") == NULL, "%s was opened", broken[i].what);
        check_failure(ctx, &m, held, broken[i].what, broken[i].message);
        geul_context_free(ctx);
        bytes_free(&b);
    }
}

TEST(gguf_missing_file_and_directory)
{
    struct meter m;
    struct geul_context *ctx = meter_context(&m);
    size_t held = m.now;
    CHECK(geul_gguf_open(ctx, "/nonexistent/model.gguf") == NULL);
    check_failure(ctx, &m, held, "missing", "/nonexistent/model.gguf");
    geul_error_clear(ctx);
    CHECK(geul_gguf_open(ctx, "/tmp") == NULL);
    check_failure(ctx, &m, held, "directory", "directory");
    geul_error_clear(ctx);
    const char *pipe = test_scratch("pipe.gguf"); /* nobody writes to it: opening it must not wait */
    REQUIRE(mkfifo(pipe, 0600) == 0);
    alarm(20);
    CHECK(geul_gguf_open(ctx, pipe) == NULL);
    check_failure(ctx, &m, held, "pipe", "pipe");
    geul_context_free(ctx);
}

/* ----------------------------------------------------------------------------------- writing -- */

static const char *const words[] = {"하나", "", "three\0x"};
static const size_t word_lengths[] = {6, 0, 7};

/* Keys of every kind and three tensors: "a" (2, 3) f32, "b" (64) q8_0, "c" (2, 3, 4) f16. */
static enum geul_status write_sample(struct geul_context *ctx, const char *path)
{
    static const float a[6] = {1, 2, 3, 4, 5, 6};
    uint8_t b[68], c[48];
    struct geul_gguf_writer *w = geul_gguf_writer_new(ctx, path);
    if (!w)
        return geul_error_status(ctx);
    memset(b, 0x5a, sizeof b);
    memset(c, 0x3c, sizeof c);
    geul_gguf_set_u32(w, "u32", UINT32_MAX);
    geul_gguf_set_i32(w, "i32", -5);
    geul_gguf_set_u64(w, "u64", UINT64_MAX);
    geul_gguf_set_f32(w, "f32", 0.5f);
    geul_gguf_set_bool(w, "bool", true);
    geul_gguf_set_string(w, "string", "a\0b", 3);
    geul_gguf_set_i32s(w, "i32s", (const int32_t[]){-1, 7}, 2);
    geul_gguf_set_f32s(w, "f32s", (const float[]){1.5f, -2}, 2);
    geul_gguf_set_strings(w, "strings", words, word_lengths, 3);
    geul_gguf_declare_tensor(w, "a", GEUL_TYPE_F32, 2, (const int64_t[]){2, 3});
    geul_gguf_declare_tensor(w, "b", GEUL_TYPE_Q8_0, 1, (const int64_t[]){64});
    geul_gguf_declare_tensor(w, "c", GEUL_TYPE_F16, 3, (const int64_t[]){2, 3, 4});
    geul_gguf_write_data(w, a, 10); /* pieces need not end where tensors do */
    geul_gguf_write_data(w, (const uint8_t *)a + 10, sizeof a - 10);
    geul_gguf_write_data(w, b, sizeof b);
    geul_gguf_write_data(w, c, sizeof c);
    return geul_gguf_writer_commit(w);
}

static void check_sample(const struct geul_gguf *g)
{
    uint64_t u = 0;
    int64_t i = 0;
    double d = 0;
    bool flag = false;
    const char *s = NULL;
    size_t n = 0;
    struct geul_gguf_array array_of;
    CHECK_INT(geul_gguf_version(g), 3);
    CHECK(geul_gguf_u64(g, "u32", &u) && u == UINT32_MAX);
    CHECK(geul_gguf_u64(g, "u64", &u) && u == UINT64_MAX && !geul_gguf_i64(g, "u64", &i));
    CHECK(geul_gguf_i64(g, "i32", &i) && i == -5 && !geul_gguf_u64(g, "i32", &u));
    CHECK(geul_gguf_f64(g, "f32", &d) && d == 0.5 && geul_gguf_f64(g, "i32", &d) && d == -5);
    CHECK(geul_gguf_f64(g, "u64", &d) && d == 0x1p64);
    CHECK(geul_gguf_bool(g, "bool", &flag) && flag && !geul_gguf_u64(g, "bool", &u));
    CHECK(geul_gguf_string(g, "string", &s, &n) && n == 3 && memcmp(s, "a\0b", 3) == 0);
    CHECK(!geul_gguf_string(g, "u32", &s, &n) && !geul_gguf_has(g, "none") && geul_gguf_has(g, "i32s"));
    CHECK(geul_gguf_get_array(g, "i32s", &array_of) && array_of.count == 2 && geul_gguf_array_i64(&array_of, 0) == -1 &&
          geul_gguf_array_f64(&array_of, 1) == 7);
    CHECK(geul_gguf_get_array(g, "f32s", &array_of) && geul_gguf_array_f64(&array_of, 1) == -2);
    REQUIRE(geul_gguf_get_array(g, "strings", &array_of) && array_of.count == 3);
    for (int k = 0; k < 3; k++)
        CHECK(geul_gguf_array_next(&array_of, &s, &n) && n == word_lengths[k] && memcmp(s, words[k], n) == 0);
    CHECK(!geul_gguf_array_next(&array_of, &s, &n));
    CHECK_INT(geul_gguf_tensor_count(g), 3);
    const struct geul_gguf_tensor *a = geul_gguf_find_tensor(g, "a"), *c = geul_gguf_find_tensor(g, "c");
    REQUIRE(a && c && geul_gguf_find_tensor(g, "b") && !geul_gguf_find_tensor(g, "d"));
    CHECK(a->n_dims == 2 && a->shape[0] == 2 && a->shape[1] == 3 && a->bytes == 24);
    CHECK(memcmp(a->data, (const float[]){1, 2, 3, 4, 5, 6}, 24) == 0);
    CHECK(c->type == GEUL_TYPE_F16 && c->shape[0] == 2 && c->shape[2] == 4 && ((const uint8_t *)c->data)[47] == 0x3c);
    CHECK((uintptr_t)c->data % 32 == 0);
}

TEST(gguf_round_trip_and_every_truncation)
{
    struct meter m;
    struct geul_context *ctx = meter_context(&m);
    const char *path = test_scratch("sample.gguf");
    REQUIRE(write_sample(ctx, path) == GEUL_OK);
    struct geul_gguf *g = geul_gguf_open(ctx, path);
    REQUIRE(CHECK_STR(geul_error(ctx), "") && g);
    check_sample(g);
    geul_gguf_close(g);
    size_t size, held = m.now;
    char *whole = test_slurp(path, &size);
    REQUIRE(whole != NULL);
    for (size_t n = 0; n < size - 16; n++) { /* the last tensor is followed by 16 bytes of padding */
        m.peak = 0;
        char *part = malloc(n + 1); /* its own block, so that ASan catches a read beyond it */
        memcpy(part, whole, n);
        geul_error_clear(ctx);
        CHECK_MSG(!geul_gguf_open_memory(ctx, part, n, "part"), "%zu of %zu bytes were opened", n, size);
        check_failure(ctx, &m, held, "truncated", "part");
        free(part);
    }
    free(whole);
    geul_context_free(ctx);
}

TEST(gguf_version_2_and_key_copies)
{
    struct meter m;
    struct geul_context *ctx = meter_context(&m);
    const char *path = test_scratch("sample.gguf"), *copy = test_scratch("copy.gguf");
    REQUIRE(write_sample(ctx, path) == GEUL_OK);
    size_t size;
    char *whole = test_slurp(path, &size);
    REQUIRE(whole != NULL);
    whole[4] = 2;
    test_spill(path, whole, size);
    free(whole);
    struct geul_gguf *g = geul_gguf_open(ctx, path);
    REQUIRE(g != NULL);
    CHECK_INT(geul_gguf_version(g), 2);
    struct geul_gguf_writer *w = geul_gguf_writer_new(ctx, copy);
    REQUIRE(w != NULL);
    for (int64_t i = 0; i < geul_gguf_key_count(g); i++)
        geul_gguf_copy_key(w, g, i);
    for (int64_t i = 0; i < geul_gguf_tensor_count(g); i++) {
        const struct geul_gguf_tensor *t = geul_gguf_tensor_at(g, i);
        geul_gguf_declare_tensor(w, t->name, t->type, t->n_dims, t->shape);
    }
    for (int64_t i = 0; i < geul_gguf_tensor_count(g); i++)
        geul_gguf_write_data(w, geul_gguf_tensor_at(g, i)->data, geul_gguf_tensor_at(g, i)->bytes);
    geul_gguf_close(g);
    REQUIRE(geul_gguf_writer_commit(w) == GEUL_OK);
    g = geul_gguf_open(ctx, copy);
    REQUIRE(g != NULL);
    check_sample(g);
    geul_gguf_close(g);
    geul_context_free(ctx);
}

TEST(gguf_writer_keeps_the_old_file_until_commit)
{
    struct geul_context *ctx = geul_context_new(NULL);
    const char *path = test_scratch("out.gguf");
    const int64_t shape[1] = {4};
    const float x[8] = {0};
    test_spill(path, "old", 3);
    struct geul_gguf_writer *w = geul_gguf_writer_new(ctx, path);
    REQUIRE(w != NULL);
    geul_gguf_declare_tensor(w, "a", GEUL_TYPE_F32, 1, shape);
    geul_gguf_write_data(w, x, 12);
    CHECK(geul_gguf_writer_commit(w) != GEUL_OK && strstr(geul_error(ctx), "tensor a"));
    geul_error_clear(ctx);
    w = geul_gguf_writer_new(ctx, path);
    REQUIRE(w != NULL);
    geul_gguf_declare_tensor(w, "a", GEUL_TYPE_F32, 1, shape);
    geul_gguf_write_data(w, x, 20); /* too much */
    CHECK(geul_gguf_writer_status(w) == GEUL_ERROR_ARGUMENT);
    CHECK(geul_gguf_writer_commit(w) != GEUL_OK);
    size_t size;
    char *old = test_slurp(path, &size);
    CHECK(old && size == 3 && memcmp(old, "old", 3) == 0);
    free(old);
    geul_context_free(ctx);
}

/* ------------------------------------------------------------------------------- split files -- */

static bool write_part(struct geul_context *ctx, const char *path, uint32_t no, uint32_t count, const char *tensor_name)
{
    const float x[4] = {(float)no, 0, 0, 0};
    struct geul_gguf_writer *w = geul_gguf_writer_new(ctx, path);
    if (!w)
        return false;
    geul_gguf_set_u32(w, "split.no", no);
    geul_gguf_set_u32(w, "split.count", count);
    geul_gguf_set_i32(w, "split.tensors.count", 3);
    geul_gguf_declare_tensor(w, tensor_name, GEUL_TYPE_F32, 1, (const int64_t[]){4});
    geul_gguf_write_data(w, x, sizeof x);
    return geul_gguf_writer_commit(w) == GEUL_OK;
}

TEST(gguf_split_files)
{
    struct meter m;
    struct geul_context *ctx = meter_context(&m);
    const char *dir = test_scratch("split");
    size_t held = m.now;
    char paths[3][512], lone[512];
    REQUIRE(geul_os_make_directory(ctx, dir) == GEUL_OK);
    for (int i = 0; i < 3; i++) {
        snprintf(paths[i], sizeof paths[i], "%s/m-%05d-of-00003.gguf", dir, i + 1);
        REQUIRE(write_part(ctx, paths[i], (uint32_t)i, 3, (const char *[]){"a", "b", "c"}[i]));
    }
    struct geul_gguf *g = geul_gguf_open(ctx, paths[0]);
    REQUIRE(CHECK_STR(geul_error(ctx), "") && g);
    CHECK_INT(geul_gguf_tensor_count(g), 3);
    const struct geul_gguf_tensor *c = geul_gguf_find_tensor(g, "c");
    CHECK(c && *(const float *)c->data == 2);
    geul_gguf_close(g);
    snprintf(lone, sizeof lone, "%s/lone.gguf", dir);
    const struct {
        const char *open, *message;
        uint32_t no, count;
        const char *replace, *tensor_name;
    } cases[] = {
        {paths[1], "part 2 of 3", 1, 3, paths[1], "b"},
        {lone, "keep the parts' names", 0, 3, lone, "a"},
        {paths[0], "do not belong together", 2, 3, paths[1], "b"},
        {paths[0], "do not belong together", 1, 4, paths[1], "b"},
        {paths[0], "tensor a occurs twice", 1, 3, paths[1], "a"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        REQUIRE(write_part(ctx, cases[i].replace, cases[i].no, cases[i].count, cases[i].tensor_name));
        CHECK(geul_gguf_open(ctx, cases[i].open) == NULL);
        check_failure(ctx, &m, held, "split", cases[i].message);
        geul_error_clear(ctx);
    }
    remove(paths[2]);
    REQUIRE(write_part(ctx, paths[1], 1, 3, "b"));
    CHECK(geul_gguf_open(ctx, paths[0]) == NULL);
    check_failure(ctx, &m, held, "missing part", "m-00003-of-00003.gguf");
    geul_context_free(ctx);
}

/* ------------------------------------------------------------------------------------ memory -- */

TEST(gguf_survives_every_failing_allocation)
{
    const char *path = test_scratch("sample.gguf");
    struct test_shortage s = {.most = 10000};
    while (test_shortage_next(&s)) {
        struct geul_gguf *g = write_sample(s.ctx, path) == GEUL_OK ? geul_gguf_open(s.ctx, path) : NULL;
        s.ok = g != NULL;
        if (g)
            check_sample(g);
        geul_gguf_close(g);
    }
}
