/* test_quantize.c: files of random matrices through every mix, rule, bound and split, and what must not happen. */
#include "tests/harness.h"

#include "core/gguf.h"
#include "core/os.h"
#include "core/tensor.h"
#include "quantize/quantize_tensors.h"

#include <dirent.h>

enum { D = 256, FF = 512, VOCAB = 96, LAYERS = 2 };

static const struct {
    const char *name;
    int64_t rows, cols; /* cols 0: one dimension */
} layer_tensors[] = {{"attn_norm.weight", D, 0},   {"attn_qkv.weight", 3 * D, D}, {"attn_qkv.bias", 3 * D, 0},
                     {"attn_output.weight", D, D}, {"ffn_up.weight", FF, D},      {"ffn_down.weight", D, FF}};
enum { LAYER_TENSORS = sizeof layer_tensors / sizeof *layer_tensors, TENSORS = LAYERS * LAYER_TENSORS + 2 };

static void write_values(struct geul_gguf_writer *w, int64_t n, uint64_t *seed)
{
    for (int64_t i = 0; i < n; i++) {
        float x = 0.02f * test_normal(seed);
        geul_gguf_write_data(w, &x, sizeof x);
    }
}

/* A model of two layers in float32; path is static, one per test. */
static const char *make_model(struct geul_context *ctx)
{
    static char path[1024];
    uint64_t seed = 7;
    snprintf(path, sizeof path, "%s", test_scratch("in.gguf"));
    struct geul_gguf_writer *w = geul_gguf_writer_new(ctx, path);
    geul_gguf_set_string(w, "general.architecture", "gptneox", 7);
    geul_gguf_set_string(w, "geul.kept", "as it is", 8);
    geul_gguf_set_u32(w, "general.file_type", 0);
    geul_gguf_declare_tensor(w, "token_embd.weight", GEUL_TYPE_F32, 2, (int64_t[]){VOCAB, D});
    for (int l = 0; l < LAYERS; l++)
        for (int i = 0; i < LAYER_TENSORS; i++) {
            char name[64];
            bool flat = layer_tensors[i].cols == 0;
            snprintf(name, sizeof name, "blk.%d.%s", l, layer_tensors[i].name);
            geul_gguf_declare_tensor(w, name, GEUL_TYPE_F32, flat ? 1 : 2,
                                     (int64_t[]){layer_tensors[i].rows, layer_tensors[i].cols});
        }
    geul_gguf_declare_tensor(w, "output.weight", GEUL_TYPE_F32, 2, (int64_t[]){VOCAB, D});
    write_values(w, VOCAB * D, &seed);
    for (int i = 0; i < LAYERS * LAYER_TENSORS; i++)
        write_values(w,
                     layer_tensors[i % LAYER_TENSORS].rows *
                         (layer_tensors[i % LAYER_TENSORS].cols ? layer_tensors[i % LAYER_TENSORS].cols : 1),
                     &seed);
    write_values(w, VOCAB * D, &seed);
    CHECK(geul_gguf_writer_commit(w) == GEUL_OK);
    return path;
}

/* Plans and writes; the status. The plan's sizes go to *bytes when it is not NULL. */
static enum geul_status quantize(struct geul_context *ctx, const char *in, const char *out,
                                 const struct geul_quantize_options *o, uint64_t *bytes)
{
    struct geul_quantize *q = geul_quantize_new(ctx, in, o);
    enum geul_status status = q ? geul_quantize_write(q, out) : geul_error_status(ctx);
    if (q && bytes)
        *bytes = q->to_bytes;
    geul_quantize_free(q);
    return status;
}

static bool same_files(const char *a, const char *b)
{
    size_t n = 0, m = 1;
    char *x = test_slurp(a, &n), *y = test_slurp(b, &m);
    bool same = x && y && n == m && memcmp(x, y, n) == 0;
    free(x);
    free(y);
    return same;
}

/* Sum of squares of the difference between two tensors, relative to the first. */
static double relative_error(const struct geul_gguf_tensor *a, const struct geul_gguf_tensor *b)
{
    int64_t n = (int64_t)(a->bytes / sizeof(float));
    float *x = malloc(a->bytes), *y = malloc(a->bytes);
    double error = 0, norm = 0;
    geul_decode(a->type, a->data, x, n);
    geul_decode(b->type, b->data, y, n);
    for (int64_t i = 0; i < n; i++) {
        error += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
        norm += (double)x[i] * (double)x[i];
    }
    free(x);
    free(y);
    return error / norm;
}

/* Compares a file with the plan that made it and with its source. */
static void check_file(struct geul_context *ctx, const char *in, const char *out, const struct geul_quantize *q)
{
    struct geul_gguf *a = geul_gguf_open(ctx, in), *b = geul_gguf_open(ctx, out);
    const char *kept;
    size_t length;
    uint64_t number = 99;
    REQUIRE(a && b);
    CHECK_INT(geul_gguf_tensor_count(b), TENSORS);
    CHECK(geul_gguf_string(b, "geul.kept", &kept, &length) && length == 8 && memcmp(kept, "as it is", 8) == 0);
    CHECK(geul_gguf_u64(b, "general.file_type", &number) && number == q->file_type);
    CHECK(geul_gguf_u64(b, "general.quantization_version", &number) && number == 2);
    for (int64_t i = 0; i < q->n_tensors; i++) {
        const struct geul_quantize_choice *t = &q->tensors[i];
        const struct geul_gguf_tensor *x = geul_gguf_find_tensor(a, t->name), *y = geul_gguf_find_tensor(b, t->name);
        REQUIRE(x && y);
        CHECK_MSG(y->type == t->to && y->bytes == t->to_bytes, "%s is %s", t->name, geul_type_name(y->type));
        double error = relative_error(x, y);
        CHECK_MSG(t->written && fabs(error - t->error) <= 1e-4 * error + 1e-12, "%s as %s: error %g, said to be %g",
                  t->name, geul_type_name(t->to), error, t->error);
        /* every bit more leaves a quarter of the error; float types spend bits on the exponent */
        double bits = 8 * (double)geul_type_bytes(t->to) / (double)geul_type_block(t->to);
        CHECK_MSG(error <= pow(4, 1.5 - bits) + (bits == 16 ? 5e-6 : 0), "%s as %s: error %g", t->name,
                  geul_type_name(t->to), error);
    }
    geul_gguf_close(a);
    geul_gguf_close(b);
}

TEST(quantize_to_every_mix)
{
    struct geul_context *ctx = geul_context_new(NULL);
    const char *in = make_model(ctx);
    for (size_t i = 0; geul_mix_at(i); i++) {
        const char *out = test_scratch("out.gguf");
        struct geul_quantize_options o = {.size = sizeof o, .mix = geul_mix_at(i), .n_threads = 2};
        struct geul_quantize *q = geul_quantize_new(ctx, in, &o);
        size_t size = 0;
        REQUIRE(q && geul_quantize_write(q, out) == GEUL_OK);
        free(test_slurp(out, &size));
        CHECK_INT(size, q->to_bytes);
        CHECK_INT(q->n_fallbacks, 0);
        CHECK_INT(q->file_type, geul_mix_file_type(geul_mix_at(i)));
        check_file(ctx, in, out, q);
        geul_quantize_free(q);
    }
    geul_context_free(ctx);
}

/* An importance matrix for every matrix of layer 0. */
static struct geul_imatrix layer_importance(struct geul_imatrix_entry entries[4], float *values)
{
    static const char *const names[] = {"blk.0.attn_qkv.weight", "blk.0.attn_output.weight", "blk.0.ffn_up.weight",
                                        "blk.0.ffn_down.weight"};
    uint64_t seed = 3;
    for (int i = 0; i < FF; i++)
        values[i] = (float)exp(3 * (double)test_normal(&seed));
    for (int i = 0; i < 4; i++)
        entries[i] = (struct geul_imatrix_entry){names[i], i == 3 ? FF : D, values, 10};
    return (struct geul_imatrix){
        .entries = entries, .n_entries = 4, .dataset = (char *)(uintptr_t) "text", .chunks = 3, .chunk_size = 9};
}

TEST(quantize_gives_the_same_bytes_for_every_number_of_threads)
{
    static float values[FF];
    struct geul_imatrix_entry entries[4];
    struct geul_imatrix m = layer_importance(entries, values);
    struct geul_context *ctx = geul_context_new(NULL);
    const char *in = make_model(ctx), *one = test_scratch("one.gguf"), *more = test_scratch("more.gguf");
    for (int kind = 0; kind < 3; kind++) {
        struct geul_quantize_options o = {.size = sizeof o,
                                          .mix = kind < 2 ? geul_mix_find("q3_k_m") : NULL,
                                          .target_bpw = kind < 2 ? 0 : 6,
                                          .imatrix = kind ? &m : NULL,
                                          .n_threads = 1};
        REQUIRE(quantize(ctx, in, one, &o, NULL) == GEUL_OK);
        for (o.n_threads = 2; o.n_threads <= 5; o.n_threads += 3) {
            REQUIRE(quantize(ctx, in, more, &o, NULL) == GEUL_OK);
            CHECK_MSG(same_files(one, more), "%d threads make another file (kind %d)", o.n_threads, kind);
        }
    }
    geul_context_free(ctx);
}

TEST(quantize_uses_importance)
{
    static float values[FF];
    struct geul_imatrix_entry entries[4];
    struct geul_imatrix m = layer_importance(entries, values);
    struct geul_context *ctx = geul_context_new(NULL);
    const char *in = make_model(ctx), *plain = test_scratch("plain.gguf"), *out = test_scratch("out.gguf");
    struct geul_quantize_options o = {.size = sizeof o, .mix = geul_mix_find("q4_k_s")};
    REQUIRE(quantize(ctx, in, plain, &o, NULL) == GEUL_OK);
    o.imatrix = &m;
    o.imatrix_name = "some.imatrix";
    REQUIRE(quantize(ctx, in, out, &o, NULL) == GEUL_OK);
    struct geul_gguf *f = geul_gguf_open(ctx, in), *a = geul_gguf_open(ctx, plain), *b = geul_gguf_open(ctx, out);
    const char *s = "";
    size_t length = 0;
    uint64_t number = 0;
    REQUIRE(f && a && b);
    CHECK(geul_gguf_string(b, "quantize.imatrix.file", &s, &length) && length == 12 &&
          memcmp(s, "some.imatrix", 12) == 0);
    CHECK(geul_gguf_string(b, "quantize.imatrix.dataset", &s, &length) && length == 4 && memcmp(s, "text", 4) == 0);
    CHECK(geul_gguf_u64(b, "quantize.imatrix.entries_count", &number) && number == 4);
    CHECK(geul_gguf_u64(b, "quantize.imatrix.chunks_count", &number) && number == 3);
    CHECK(!geul_gguf_has(a, "quantize.imatrix.file"));
    for (int i = 0; i < 4; i++) {
        float x[FF], y[FF], z[FF];
        double without = 0, with = 0;
        const struct geul_gguf_tensor *t = geul_gguf_find_tensor(f, entries[i].name);
        int64_t cols = entries[i].columns;
        for (int64_t r = 0; r < t->shape[0]; r++) {
            size_t row = (size_t)(cols / 256) * geul_type_bytes(geul_gguf_find_tensor(a, t->name)->type);
            memcpy(x, (const float *)t->data + r * cols, (size_t)cols * sizeof *x);
            geul_decode(geul_gguf_find_tensor(a, t->name)->type,
                        (const uint8_t *)geul_gguf_find_tensor(a, t->name)->data + (size_t)r * row, y, cols);
            geul_decode(geul_gguf_find_tensor(b, t->name)->type,
                        (const uint8_t *)geul_gguf_find_tensor(b, t->name)->data + (size_t)r * row, z, cols);
            for (int64_t c = 0; c < cols; c++) {
                without += (double)values[c] * (double)((x[c] - y[c]) * (x[c] - y[c]));
                with += (double)values[c] * (double)((x[c] - z[c]) * (x[c] - z[c]));
            }
        }
        CHECK_MSG(with < 0.9 * without, "%s: weighted error %g with importance, %g without", t->name, with, without);
    }
    geul_gguf_close(f);
    geul_gguf_close(a);
    geul_gguf_close(b);
    entries[2].columns = D + 1;
    CHECK(quantize(ctx, in, out, &o, NULL) != GEUL_OK && strstr(geul_error(ctx), "another model"));
    geul_context_free(ctx);
}

static enum geul_type type_of(struct geul_context *ctx, const char *path, const char *tensor)
{
    struct geul_gguf *g = geul_gguf_open(ctx, path);
    const struct geul_gguf_tensor *t = g ? geul_gguf_find_tensor(g, tensor) : NULL;
    enum geul_type type = t ? t->type : GEUL_TYPE_COUNT;
    geul_gguf_close(g);
    return type;
}

TEST(quantize_follows_rules)
{
    struct geul_context *ctx = geul_context_new(NULL);
    const char *in = make_model(ctx), *out = test_scratch("out.gguf");
    struct geul_quantize_rule rules[] = {
        {"blk\\.0\\.ffn_(up|down)", GEUL_TYPE_Q8_0}, {"ffn_", GEUL_TYPE_Q2_K}, {"^output\\.weight$", GEUL_TYPE_F16}};
    struct geul_quantize_options o = {.size = sizeof o, .mix = geul_mix_find("q4_0"), .rules = rules, .n_rules = 3};
    REQUIRE(quantize(ctx, in, out, &o, NULL) == GEUL_OK);
    CHECK_INT(type_of(ctx, out, "blk.0.ffn_down.weight"), GEUL_TYPE_Q8_0);
    CHECK_INT(type_of(ctx, out, "blk.1.ffn_down.weight"), GEUL_TYPE_Q2_K);
    CHECK_INT(type_of(ctx, out, "output.weight"), GEUL_TYPE_F16);
    CHECK_INT(type_of(ctx, out, "token_embd.weight"), GEUL_TYPE_Q4_0);
    CHECK_INT(type_of(ctx, out, "blk.1.attn_qkv.bias"), GEUL_TYPE_F32);
    rules[1].pattern = "attn_norm"; /* no matrix */
    CHECK(quantize(ctx, in, out, &o, NULL) == GEUL_ERROR_ARGUMENT && strstr(geul_error(ctx), "matches no matrix"));
    rules[1].pattern = "ffn_(";
    CHECK(quantize(ctx, in, out, &o, NULL) == GEUL_ERROR_ARGUMENT && strstr(geul_error(ctx), "ffn_("));
    rules[1] = (struct geul_quantize_rule){"ffn_", GEUL_TYPE_I32};
    CHECK(quantize(ctx, in, out, &o, NULL) == GEUL_ERROR_ARGUMENT && strstr(geul_error(ctx), "i32"));
    o.mix = NULL;
    CHECK(quantize(ctx, in, out, &o, NULL) == GEUL_ERROR_ARGUMENT);
    geul_context_free(ctx);
}

/* Counts warnings that hold "second time". */
static void count_warnings(void *user, enum geul_log_level level, const char *text)
{
    *(int *)user += level == GEUL_LOG_WARN && strstr(text, "second time");
}

TEST(quantize_again_warns_and_copies_what_stays)
{
    int warnings = 0;
    struct geul_context *ctx =
        geul_context_new(&(struct geul_context_options){.log = count_warnings, .log_user = &warnings});
    const char *in = make_model(ctx), *once = test_scratch("once.gguf"), *twice = test_scratch("twice.gguf");
    struct geul_quantize_options o = {.size = sizeof o, .mix = geul_mix_find("q4_k_m")};
    REQUIRE(quantize(ctx, in, once, &o, NULL) == GEUL_OK);
    CHECK_INT(warnings, 0);
    REQUIRE(quantize(ctx, once, twice, &o, NULL) == GEUL_OK);
    CHECK_INT(warnings, 0);
    CHECK_MSG(same_files(once, twice), "the same types give another file");
    o.mix = geul_mix_find("q2_k");
    REQUIRE(quantize(ctx, once, twice, &o, NULL) == GEUL_OK);
    CHECK_INT(warnings, 1);
    CHECK_INT(type_of(ctx, twice, "blk.1.ffn_up.weight"), GEUL_TYPE_Q2_K);
    geul_context_free(ctx);
}

/* ------------------------------------------------------------------------------------ bounds -- */

TEST(quantize_keeps_within_bounds)
{
    static const double targets[] = {2.8, 4, 4.5, 6, 8.4, 16};
    struct geul_context *ctx = geul_context_new(NULL);
    const char *in = make_model(ctx), *out = test_scratch("out.gguf");
    double last = INFINITY;
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        struct geul_quantize_options o = {.size = sizeof o, .target_bpw = targets[i]};
        struct geul_quantize *q = geul_quantize_new(ctx, in, &o);
        double error = 0;
        REQUIRE(q && geul_quantize_write(q, out) == GEUL_OK);
        CHECK_MSG(q->to_bpw <= targets[i] && (q->to_bpw > 0.85 * targets[i] || targets[i] > 12), "%g bits for %g",
                  q->to_bpw, targets[i]);
        for (int64_t k = 0; k < q->n_tensors; k++)
            error += q->tensors[k].error;
        CHECK_MSG(error < last, "%g bits: error %g, with fewer bits %g", targets[i], error, last);
        last = error;
        geul_quantize_free(q);
    }
    for (uint64_t bytes = 800000; bytes > 500000; bytes -= 60123) {
        struct geul_quantize_options o = {.size = sizeof o, .max_bytes = bytes, .split_bytes = 200000};
        uint64_t planned = 0;
        REQUIRE(quantize(ctx, in, out, &o, &planned) == GEUL_OK);
        CHECK_MSG(planned <= bytes && planned > bytes - 60000, "%llu bytes for at most %llu",
                  (unsigned long long)planned, (unsigned long long)bytes);
    }
    struct geul_quantize_options o = {.size = sizeof o, .target_bpw = 1.5};
    CHECK(quantize(ctx, in, out, &o, NULL) == GEUL_ERROR_ARGUMENT && strstr(geul_error(ctx), "smallest types"));
    o = (struct geul_quantize_options){.size = sizeof(struct geul_quantize_options), .max_bytes = 1000};
    CHECK(quantize(ctx, in, out, &o, NULL) == GEUL_ERROR_ARGUMENT &&
          strstr(geul_error(ctx), "leaves at most 1000 for"));
    geul_context_free(ctx);
}

/* ------------------------------------------------------------------------------------- files -- */

TEST(quantize_splits_and_joins)
{
    struct geul_context *ctx = geul_context_new(NULL);
    const char *in = make_model(ctx), *whole = test_scratch("whole.gguf"), *parts = test_scratch("p.gguf");
    char first[1100], joined[1100];
    struct geul_quantize_options o = {.size = sizeof o, .mix = geul_mix_find("q4_k_m"), .split_tensors = 4};
    struct geul_quantize_options plain = {.size = sizeof plain, .mix = o.mix},
                                 keep = {.size = sizeof keep, .mix = o.mix, .keep_split = true};
    REQUIRE(quantize(ctx, in, whole, &plain, NULL) == GEUL_OK && quantize(ctx, in, parts, &o, NULL) == GEUL_OK);
    snprintf(first, sizeof first, "%.*s-00001-of-00004.gguf", (int)strlen(parts) - 5, parts);
    snprintf(joined, sizeof joined, "%.*s-00003-of-00004.gguf", (int)strlen(parts) - 5, parts);
    struct geul_gguf *g = geul_gguf_open(ctx, first);
    REQUIRE(g);
    CHECK_INT(geul_gguf_tensor_count(g), TENSORS);
    CHECK_INT(geul_gguf_tensor_at(g, 13)->part, 3);
    geul_gguf_close(g);
    /* no part of the input may be the output */
    CHECK(quantize(ctx, first, joined, &plain, NULL) == GEUL_ERROR_ARGUMENT &&
          strstr(geul_error(ctx), "the input itself"));
    CHECK(quantize(ctx, first, parts, &keep, NULL) == GEUL_ERROR_ARGUMENT);
    snprintf(joined, sizeof joined, "%s", test_scratch("joined.gguf"));
    REQUIRE(quantize(ctx, first, joined, &plain, NULL) == GEUL_OK);
    CHECK_MSG(same_files(whole, joined), "splitting and joining changes the file");
    struct geul_quantize *q = geul_quantize_new(ctx, first, &keep);
    REQUIRE(q);
    CHECK_INT(q->n_parts, 4);
    geul_quantize_free(q);
    o.split_tensors = 0;
    o.split_bytes = 100000;
    q = geul_quantize_new(ctx, in, &o);
    REQUIRE(q && q->n_parts > 3 && geul_quantize_write(q, parts) == GEUL_OK);
    for (int64_t p = 0; p < q->n_parts; p++) {
        size_t size = 0;
        char *name = geul_quantize_part_name(q, parts, p);
        free(test_slurp(name, &size));
        CHECK_MSG(size > 0 && size <= 140000, "%s has %zu bytes", name, size); /* attn_qkv alone has more */
        geul_free(ctx, name);
    }
    geul_quantize_free(q);
    geul_context_free(ctx);
}

/* Files in the directory of path. */
static int count_files(const char *path)
{
    char dir[1100];
    int n = 0;
    snprintf(dir, sizeof dir, "%.*s", (int)(strrchr(path, '/') - path), path);
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d)) != NULL;)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

/* Stops after a third of the work. */
static bool stop_early(void *user, uint64_t done, uint64_t total)
{
    (void)user;
    return done < total / 3;
}

TEST(quantize_leaves_nothing_when_stopped)
{
    struct geul_context *ctx = geul_context_new(NULL);
    const char *in = make_model(ctx), *out = test_scratch("out.gguf");
    struct geul_quantize_options o = {.size = sizeof o, .mix = geul_mix_find("q5_0"), .progress = stop_early};
    REQUIRE(test_spill(out, "old", 3));
    int before = count_files(out);
    CHECK_INT(quantize(ctx, in, out, &o, NULL), GEUL_ERROR_CANCELLED);
    o.split_tensors = 2;
    CHECK_INT(quantize(ctx, in, out, &o, NULL), GEUL_ERROR_CANCELLED);
    o = (struct geul_quantize_options){
        .size = sizeof(struct geul_quantize_options), .target_bpw = 5, .measuring = stop_early};
    CHECK_INT(quantize(ctx, in, out, &o, NULL), GEUL_ERROR_CANCELLED);
    CHECK_INT(count_files(out), before);
    size_t size;
    char *old = test_slurp(out, &size);
    CHECK(size == 3 && memcmp(old, "old", 3) == 0);
    free(old);
    o = (struct geul_quantize_options){.size = sizeof(struct geul_quantize_options), .mix = geul_mix_find("q5_0")};
    CHECK(quantize(ctx, in, in, &o, NULL) == GEUL_ERROR_ARGUMENT && strstr(geul_error(ctx), "the input itself"));
    geul_context_free(ctx);
}

TEST(quantize_says_what_does_not_fit)
{
    struct geul_context *ctx = geul_context_new(NULL);
    const char *in = test_scratch("odd.gguf"), *out = test_scratch("out.gguf");
    struct geul_gguf_writer *w = geul_gguf_writer_new(ctx, in);
    float values[2 * 96] = {1, NAN, INFINITY, 1e6f};
    int32_t ids[4] = {1, 2, 3, 4};
    geul_gguf_declare_tensor(w, "blk.0.ffn_up.weight", GEUL_TYPE_F32, 2, (int64_t[]){2, 96});
    geul_gguf_declare_tensor(w, "ids", GEUL_TYPE_I32, 2, (int64_t[]){2, 2});
    geul_gguf_write_data(w, values, sizeof values);
    geul_gguf_write_data(w, ids, sizeof ids);
    REQUIRE(geul_gguf_writer_commit(w) == GEUL_OK);
    struct geul_quantize_options o = {.size = sizeof o, .mix = geul_mix_find("q6_k")};
    struct geul_quantize *q = geul_quantize_new(ctx, in, &o);
    REQUIRE(q && geul_quantize_write(q, out) == GEUL_OK);
    CHECK_INT(q->n_fallbacks, 1);
    CHECK(q->tensors[0].fell_back && q->tensors[0].to == GEUL_TYPE_Q8_0 && q->tensors[1].to == GEUL_TYPE_I32);
    CHECK_INT(q->tensors[0].lost, 32); /* counted after encoding: infinity is in the scale of the whole block */
    geul_quantize_free(q);
    CHECK(geul_quantize_new(ctx, test_scratch("absent"), &o) == NULL && strstr(geul_error(ctx), "absent"));
    geul_context_free(ctx);
}

/* A file without tensors has nothing to make smaller: a bound below its keys is an error, and is found. */
TEST(quantize_bounds_a_file_without_tensors)
{
    struct geul_context *ctx = geul_context_new(NULL);
    const char *in = test_scratch("empty.gguf");
    struct geul_gguf_writer *w = geul_gguf_writer_new(ctx, in);
    REQUIRE(w);
    geul_gguf_set_string(w, "general.architecture", "gptneox", 7);
    REQUIRE(geul_gguf_writer_commit(w) == GEUL_OK);
    struct geul_quantize_options o = {.size = sizeof o, .max_bytes = 1};
    CHECK(!geul_quantize_new(ctx, in, &o) && geul_error_status(ctx) == GEUL_ERROR_ARGUMENT);
    CHECK_MSG(strstr(geul_error(ctx), "needs at least"), "%s", geul_error(ctx));
    geul_context_free(ctx);
}

TEST(quantize_survives_every_failing_allocation)
{
    struct geul_context *ctx = geul_context_new(NULL);
    const char *in = make_model(ctx), *out = test_scratch("out.gguf");
    struct geul_quantize_rule rule = {"blk", GEUL_TYPE_Q4_0};
    struct geul_quantize_options cases[] = {
        {.size = sizeof cases[0], .mix = geul_mix_find("q4_0"), .rules = &rule, .n_rules = 1, .n_threads = 1},
        {.size = sizeof cases[0], .target_bpw = 8, .rules = &rule, .n_rules = 1, .n_threads = 1}};
    for (int i = 0; i < 2; i++) {
        struct test_shortage s = {.most = 2000};
        while (test_shortage_next(&s)) {
            enum geul_status status = quantize(s.ctx, in, out, &cases[i], NULL);
            CHECK_MSG(status == geul_error_status(s.ctx), "allocation %ld: status %d", s.n, (int)status);
            s.ok = status == GEUL_OK;
            CHECK_MSG(s.ok || !geul_os_exists(out), "allocation %ld left a file", s.n);
            remove(out);
        }
    }
    geul_context_free(ctx);
}
