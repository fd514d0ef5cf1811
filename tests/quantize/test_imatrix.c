/* test_imatrix.c: importance matrices in both forms, sound and hostile. */
#include "tests/harness.h"
#include "tests/hostile.h"

#include "core/gguf.h"
#include "quantize/imatrix.h"

static float sums[2][3] = {{1, 2, 3}, {0, 0.5f, 7}};

static struct geul_imatrix example(struct geul_imatrix_entry entries[2])
{
    entries[0] = (struct geul_imatrix_entry){"blk.0.attn_qkv.weight", 3, sums[0], 10};
    entries[1] = (struct geul_imatrix_entry){"blk.0.ffn_up.weight", 2, sums[1], 20};
    return (struct geul_imatrix){
        .entries = entries, .n_entries = 2, .dataset = (char *)(uintptr_t) "text.txt", .chunks = 5, .chunk_size = 512};
}

/* Checks that m is the example. */
static void check_example(const struct geul_imatrix *m, uint64_t chunk_size)
{
    REQUIRE(m && m->n_entries == 2);
    const struct geul_imatrix_entry *a = geul_imatrix_find(m, "blk.0.attn_qkv.weight");
    const struct geul_imatrix_entry *b = geul_imatrix_find(m, "blk.0.ffn_up.weight");
    REQUIRE(a && b);
    CHECK(a->columns == 3 && a->rows == 10 && memcmp(a->sums, sums[0], sizeof sums[0]) == 0);
    CHECK(b->columns == 2 && b->rows == 20 && memcmp(b->sums, sums[1], 2 * sizeof(float)) == 0);
    CHECK(geul_imatrix_find(m, "blk.0.ffn_up") == NULL);
    CHECK_STR(m->dataset, "text.txt");
    CHECK_INT(m->chunks, 5);
    CHECK_INT(m->chunk_size, chunk_size);
}

TEST(imatrix_gguf_round_trip)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_imatrix_entry entries[2];
    struct geul_imatrix m = example(entries);
    const char *path = test_scratch("m.gguf");
    REQUIRE(geul_imatrix_save(ctx, &m, path) == GEUL_OK);
    struct geul_imatrix *back = geul_imatrix_load(ctx, path);
    check_example(back, 512);
    geul_imatrix_free(back);
    CHECK(geul_imatrix_load(ctx, test_scratch("absent")) == NULL && strstr(geul_error(ctx), "absent"));
    geul_context_free(ctx);
}

static void put_dat_entry(struct bytes *b, const char *name, int rows, const float *values, int columns)
{
    bytes_number(b, strlen(name), 4);
    bytes_text(b, name);
    bytes_number(b, (uint64_t)rows, 4);
    bytes_number(b, (uint64_t)columns, 4);
    bytes_put(b, values, (size_t)columns * sizeof *values);
}

/* The example in llama.cpp's older form. */
static struct bytes dat_example(void)
{
    struct bytes b = {0};
    bytes_number(&b, 2, 4);
    put_dat_entry(&b, "blk.0.attn_qkv.weight", 10, sums[0], 3);
    put_dat_entry(&b, "blk.0.ffn_up.weight", 20, sums[1], 2);
    bytes_number(&b, 5, 4);
    bytes_number(&b, 8, 4);
    bytes_text(&b, "text.txt");
    return b;
}

TEST(imatrix_dat_form_and_every_truncation)
{
    struct meter meter;
    struct geul_context *ctx = meter_context(&meter);
    struct bytes b = dat_example();
    struct geul_imatrix *m = geul_imatrix_parse(ctx, b.data, b.size, "m.dat");
    check_example(m, 0);
    geul_imatrix_free(m);
    size_t entries_end = b.size - 16, held = meter.now;
    for (size_t n = 0; n < b.size; n++) {
        geul_error_clear(ctx);
        uint8_t *part = malloc(n ? n : 1); /* of exactly that size, so that the sanitizer sees a read too far */
        memcpy(part, b.data, n);
        m = geul_imatrix_parse(ctx, part, n, "m.dat");
        free(part);
        if (n == entries_end) {
            CHECK(m && m->n_entries == 2 && m->chunks == 0);
            geul_imatrix_free(m);
        } else if (CHECK_MSG(!m, "%zu bytes are taken for a whole file", n)) {
            check_failure(ctx, &meter, held, "truncated", "m.dat");
        }
    }
    bytes_free(&b);
    geul_context_free(ctx);
}

/* A .dat file with one thing wrong. */
static struct bytes broken(int what)
{
    static const float bad[][1] = {{-1}, {NAN}, {INFINITY}};
    struct bytes b = {0};
    bytes_number(&b, what == 0 ? 0x7fffffff : what == 1 ? 0xffffffff : what == 2 ? 0 : 1, 4);
    if (what == 3) { /* a name longer than the file */
        bytes_number(&b, 0x7fffffff, 4);
        bytes_text(&b, "name and no more than that");
    } else if (what == 4) { /* more columns than bytes */
        put_dat_entry(&b, "n", 1, sums[0], 0);
        b.size -= 4;
        bytes_number(&b, 0x7fffffff, 4);
        bytes_zeros(&b, 16);
    } else if (what == 5) { /* negative columns */
        put_dat_entry(&b, "n", 1, sums[0], 0);
        b.size -= 4;
        bytes_number(&b, 0x80000000, 4);
        bytes_zeros(&b, 16);
    } else if (what == 6) { /* negative rows */
        put_dat_entry(&b, "n", -5, sums[0], 3);
    } else if (what == 7) { /* a NUL in a name */
        bytes_number(&b, 3, 4);
        bytes_put(&b, "a\0b", 3);
        bytes_zeros(&b, 32);
    } else if (what >= 8) {
        put_dat_entry(&b, "n", 1, bad[what - 8], 1);
    }
    return b;
}

TEST(imatrix_refuses_hostile_dat_files)
{
    static const char *const messages[] = {"claims", "is -1", "is 0",  "ends", "ends", "is -2147483648",
                                           "is -5",  "NUL",   "is -1", "nan",  "inf"};
    struct meter meter;
    struct geul_context *ctx = meter_context(&meter);
    for (int what = 0; what < (int)(sizeof messages / sizeof *messages); what++) {
        struct bytes b = broken(what);
        size_t held = meter.now;
        geul_error_clear(ctx);
        CHECK_MSG(!geul_imatrix_parse(ctx, b.data, b.size, "m.dat"), "fault %d is accepted", what);
        check_failure(ctx, &meter, held, messages[what], messages[what]);
        bytes_free(&b);
    }
    geul_context_free(ctx);
}

/* Writes a GGUF file that is an importance matrix but for one thing. */
static void save_odd(struct geul_context *ctx, const char *path, int what)
{
    struct geul_gguf_writer *w = geul_gguf_writer_new(ctx, path);
    float values[6] = {1, 2, what == 4 ? -3.0f : what == 5 ? NAN : 3, 4, 5, 6}, count[2] = {what == 6 ? -1.0f : 4, 4};
    geul_gguf_set_string(w, "general.type", what == 0 ? "model" : "imatrix", what == 0 ? 5 : 7);
    int64_t matrices = what == 3 ? 2 : 1;
    enum geul_type type = what == 2 ? GEUL_TYPE_I32 : GEUL_TYPE_F32;
    geul_gguf_declare_tensor(w, what == 7 ? ".in_sum2" : "n.in_sum2", type, 2, (int64_t[]){matrices, 3});
    if (what != 1)
        geul_gguf_declare_tensor(w, "n.counts", GEUL_TYPE_F32, 2, (int64_t[]){matrices, 1});
    geul_gguf_write_data(w, values, (size_t)matrices * 3 * sizeof *values);
    if (what != 1)
        geul_gguf_write_data(w, count, (size_t)matrices * sizeof *count);
    CHECK(geul_gguf_writer_commit(w) == GEUL_OK);
}

TEST(imatrix_refuses_odd_gguf_files)
{
    static const char *const messages[] = {
        "not an importance matrix", "n.counts", "float32", "experts", "is -3", "nan", "-1 rows", "no importance"};
    struct geul_context *ctx = geul_context_new(NULL);
    for (int what = 0; what < (int)(sizeof messages / sizeof *messages); what++) {
        const char *path = test_scratch("odd.gguf");
        save_odd(ctx, path, what);
        CHECK_MSG(!geul_imatrix_load(ctx, path), "fault %d is accepted", what);
        CHECK_MSG(strstr(geul_error(ctx), messages[what]), "fault %d: %s", what, geul_error(ctx));
        geul_error_clear(ctx);
    }
    geul_context_free(ctx);
}

TEST(imatrix_survives_every_failing_allocation)
{
    struct geul_imatrix_entry entries[2];
    struct geul_imatrix m = example(entries);
    struct bytes b = dat_example();
    const char *path = test_scratch("m.gguf");
    struct test_shortage s = {.most = 200};
    while (test_shortage_next(&s)) {
        struct geul_imatrix *x = geul_imatrix_parse(s.ctx, b.data, b.size, "m.dat");
        enum geul_status status = x ? geul_imatrix_save(s.ctx, &m, path) : geul_error_status(s.ctx);
        struct geul_imatrix *y = status == GEUL_OK ? geul_imatrix_load(s.ctx, path) : NULL;
        s.ok = y != NULL;
        geul_imatrix_free(x);
        geul_imatrix_free(y);
    }
    bytes_free(&b);
}
