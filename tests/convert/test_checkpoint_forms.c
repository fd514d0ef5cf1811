/* test_checkpoint_forms.c: one model in the forms in which people have it: what PyTorch has saved over the years,
 * tensors of any layout and float type, and names with what wrappers put around them. */
#include "formats/checkpoint.h"
#include "formats/pickle.h"
#include "formats/safetensors.h"
#include "geul_tools.h"
#include "core/gguf.h"
#include "core/os.h"
#include "tests/harness.h"
#include "tests/hostile.h"

#include <geul.h>

static struct test_kept in(const struct test_kept *dir, const char *file)
{
    struct test_kept p;
    snprintf(p.text, sizeof p.text, "%.900s/%s", dir->text, file);
    return p;
}

static struct test_kept golden(const char *file)
{
    struct test_kept dir = test_keep(test_path("golden/torch_forms"));
    return in(&dir, file);
}

static void copy(const struct test_kept *from, const struct test_kept *to)
{
    size_t size = 0;
    char *data = test_slurp(from->text, &size);
    CHECK(data && test_spill(to->text, data, size));
    free(data);
}

/* A fresh directory with the golden's config.json and no weights. */
static struct test_kept make_directory(void)
{
    static int number;
    char name[32];
    snprintf(name, sizeof name, "form%d", number++);
    struct test_kept dir = test_keep(test_scratch(name)), from = golden("config.json"), to = in(&dir, "config.json");
    struct geul_context *ctx = geul_context_new(NULL);
    CHECK(geul_os_make_directory(ctx, dir.text) == GEUL_OK);
    copy(&from, &to);
    geul_context_free(ctx);
    return dir;
}

/* Converts dir to float32; the failure's message, "" when there is none. */
static const char *convert(const struct test_kept *dir, struct test_kept *out)
{
    static char message[1000];
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_convert_options o = {.size = sizeof o, .type = GEUL_TYPE_F32, .n_threads = 1};
    *out = in(dir, "m.gguf");
    geul_convert_hf(ctx, dir->text, out->text, &o);
    snprintf(message, sizeof message, "%s", geul_error(ctx));
    geul_context_free(ctx);
    return message;
}

/* Whether two files hold the same tensors, byte by byte. */
static bool same_tensors(const char *a, const char *b)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_gguf *x = geul_gguf_open(ctx, a), *y = geul_gguf_open(ctx, b);
    bool same = x && y && geul_gguf_tensor_count(x) == geul_gguf_tensor_count(y);
    for (int64_t i = 0; same && i < geul_gguf_tensor_count(x); i++) {
        const struct geul_gguf_tensor *s = geul_gguf_tensor_at(x, i), *t = geul_gguf_find_tensor(y, s->name);
        same = t && s->type == t->type && s->bytes == t->bytes && memcmp(s->data, t->data, s->bytes) == 0;
    }
    geul_gguf_close(x);
    geul_gguf_close(y);
    geul_context_free(ctx);
    return same;
}

/* The golden converted from its model.safetensors. */
static struct test_kept convert_plain(void)
{
    struct test_kept dir = make_directory(), from = golden("model.safetensors"), to = in(&dir, "model.safetensors"),
                     out;
    copy(&from, &to);
    CHECK_STR(convert(&dir, &out), "");
    return out;
}

TEST(forms_plain_has_the_logits_of_transformers)
{
    static const int32_t ids[] = {1, 5, 9, 2, 23, 7};
    const struct geul_session_options f32 = {.cache_type = GEUL_TYPE_F32};
    struct test_kept path = convert_plain(), want = golden("logits.npy");
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_model *model = geul_model_load(ctx, path.text, NULL);
    struct geul_session *session = model ? geul_session_new(ctx, model, &f32) : NULL;
    struct test_npy npy;
    REQUIRE(CHECK_MSG(session, "%s", geul_error(ctx)) && test_npy_read(want.text, &npy));
    REQUIRE(npy.count == 6 * 24);
    for (int i = 0; i < 6; i++) {
        const float *row;
        REQUIRE(geul_session_append(session, 0, &ids[i], 1, &row) == GEUL_OK);
        CHECK(test_difference(row, npy.f32 + i * 24, 24) < 1e-5);
    }
    test_npy_free(&npy);
    geul_session_free(session);
    geul_model_free(model);
    geul_context_free(ctx);
}

TEST(forms_of_pytorch_convert_alike)
{
    static const char *const files[] = {"legacy.bin",  "legacy_strided.bin", "strided.bin",   "float64.bin",
                                        "python2.bin", "views.bin",          "attributes.bin"};
    struct test_kept plain = convert_plain(), out;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct test_kept dir = make_directory(), from = golden(files[i]), to = in(&dir, "pytorch_model.bin");
        copy(&from, &to);
        CHECK_STR(convert(&dir, &out), "");
        CHECK_MSG(same_tensors(plain.text, out.text), "%s has other weights", files[i]);
    }
}

/* Two floats are the same, NaN included. */
static bool same_float(float a, float b)
{
    return a == b || (a != a && b != b);
}

TEST(forms_every_code_of_small_floats_is_torch_s)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct test_kept paths[2] = {golden("dtypes.safetensors"), golden("dtypes.bin")};
    struct geul_source_list lists[2] = {{0}, {0}};
    struct geul_map maps[2];
    for (int i = 0; i < 2; i++) {
        REQUIRE(geul_os_map(ctx, paths[i].text, &maps[i]) == GEUL_OK);
        enum geul_status status = i ? geul_pickle_read(ctx, "bin", maps[i].data, maps[i].size, &lists[i])
                                    : geul_safetensors_read(ctx, "st", maps[i].data, maps[i].size, &lists[i]);
        REQUIRE(CHECK_MSG(status == GEUL_OK && geul_source_sort(ctx, &lists[i], "") == GEUL_OK, "%s", geul_error(ctx)));
    }
    CHECK_INT(lists[1].count, 6);
    for (size_t i = 0; i < lists[1].count; i++) {
        const struct geul_source_tensor *b = &lists[1].items[i], *a = geul_source_find(&lists[0], b->name);
        char name[64];
        snprintf(name, sizeof name, "%s.f32", b->name);
        const struct geul_source_tensor *want = geul_source_find(&lists[0], name);
        REQUIRE(a && want && a->dtype == b->dtype && geul_source_is_float(a) && want->shape[0] == a->shape[0]);
        float x[256], y[256], z[256];
        geul_source_read(a, 0, a->shape[0], x);
        geul_source_read(b, 0, a->shape[0], y);
        geul_source_read(want, 0, a->shape[0], z);
        for (int64_t k = 0; k < a->shape[0]; k++)
            CHECK_MSG(same_float(x[k], z[k]) && same_float(y[k], z[k]), "%s: code %d is %g and %g, torch says %g",
                      a->name, (int)k, (double)x[k], (double)y[k], (double)z[k]);
    }
    for (int i = 0; i < 2; i++) {
        geul_source_free(ctx, &lists[i]);
        geul_os_unmap(&maps[i]);
    }
    geul_context_free(ctx);
}

/* Legacy files cut anywhere are refused, as are those with one byte changed or accepted without harm. */
TEST(forms_legacy_files_survive_damage)
{
    static const char *const files[] = {"legacy_strided.bin", "views.bin"};
    for (size_t f = 0; f < 2; f++) {
        struct test_kept path = golden(files[f]);
        size_t size = 0;
        char *data = test_slurp(path.text, &size);
        REQUIRE(data);
        uint64_t seed = 1;
        for (size_t i = 0; i < 3000; i++) {
            bool cut = i % 2;
            size_t n = cut ? (size_t)(test_random(&seed) % size) : size, at = (size_t)(test_random(&seed) % size);
            uint8_t *part = malloc(n + 1); /* of its own size, for the sanitizer */
            memcpy(part, data, n);
            if (!cut)
                part[at] = (uint8_t)test_random(&seed);
            struct geul_context *ctx = geul_context_new(NULL);
            struct geul_source_list list = {0};
            enum geul_status status = geul_pickle_read(ctx, "damaged.bin", part, n, &list);
            CHECK((status == GEUL_OK) == (geul_error(ctx)[0] == '\0'));
            CHECK_MSG(!cut || status != GEUL_OK, "%s cut at %zu was read", files[f], n);
            for (size_t k = 0; k < list.count; k++) {
                float x[8];
                int64_t elements = (int64_t)(list.items[k].bytes / geul_dtype_info(list.items[k].dtype)->bytes);
                if (geul_source_is_float(&list.items[k]) && elements > 0) {
                    geul_source_read(&list.items[k], 0, 1, x);
                    geul_source_read(&list.items[k], elements - 1, 1, x);
                }
            }
            geul_source_free(ctx, &list);
            geul_context_free(ctx);
            free(part);
        }
        free(data);
    }
}
