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

/* ------------------------------------------------------------------------------------- names -- */

/* The golden's tensors with other names, as `file` of dir: `before` in front of every name, in which `cut` (NULL:
 * nothing) becomes `put`. extra: the name of one more tensor, an F32 of two; NULL: none. */
static void write_renamed(const struct test_kept *dir, const char *file, const char *before, const char *cut,
                          const char *put, const char *extra)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_checkpoint *c = geul_checkpoint_open(ctx, test_path("golden/torch_forms"), NULL);
    struct geul_source_tensor tensors[64];
    char names[64][160];
    static const float two[2] = {1, 2};
    REQUIRE(c && geul_checkpoint_count(c) < 63);
    size_t n = geul_checkpoint_count(c);
    for (size_t i = 0; i < n; i++) {
        tensors[i] = *geul_checkpoint_at(c, i);
        const char *name = tensors[i].name, *at = cut ? strstr(name, cut) : NULL;
        snprintf(names[i], sizeof names[i], "%s%.*s%s%s", before, at ? (int)(at - name) : (int)strlen(name), name,
                 at ? put : "", at ? at + strlen(cut) : "");
        tensors[i].name = names[i];
    }
    if (extra) {
        snprintf(names[n], sizeof names[n], "%s", extra);
        tensors[n] = (struct geul_source_tensor){
            .name = names[n], .n_dims = 1, .shape = {2}, .data = (const uint8_t *)two, .bytes = sizeof two};
        n++;
    }
    struct test_kept path = in(dir, file);
    struct geul_safetensors_writer *w = geul_safetensors_writer_new(ctx, path.text, tensors, n);
    REQUIRE(w);
    for (size_t i = 0; i < n; i++)
        geul_safetensors_write(w, tensors[i].data, tensors[i].bytes);
    CHECK(geul_safetensors_commit(w) == GEUL_OK);
    geul_checkpoint_close(c);
    geul_context_free(ctx);
}

TEST(forms_names_of_wrappers_are_known)
{
    static const struct {
        const char *before, *cut, *put;
    } forms[] = {
        {"module.", NULL, NULL},           /* DistributedDataParallel, DeepSpeed */
        {"_orig_mod.", NULL, NULL},        /* torch.compile */
        {"base_model.model.", NULL, NULL}, /* PEFT, merged */
        {"model.", NULL, NULL},            /* Lightning */
        {"module._orig_mod.base_model.model.", NULL, NULL},
        {"_orig_mod.module.model.", NULL, NULL},
        {"", "gpt_neox.", ""}, /* GPTNeoXModel */
        {"model.", "gpt_neox.", ""},
        {"", ".attention.", "._checkpoint_wrapped_module._fsdp_wrapped_module.attention."},
        {"", "embed_out", "lm_head"},
        {"_fsdp_wrapped_module.", "layers.0.", "layers.0._orig_mod."},
    };
    struct test_kept plain = convert_plain(), out;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct test_kept dir = make_directory();
        write_renamed(&dir, "model.safetensors", forms[i].before, forms[i].cut, forms[i].put, NULL);
        CHECK_STR(convert(&dir, &out), "");
        CHECK_MSG(same_tensors(plain.text, out.text), "%s%s has other weights", forms[i].before,
                  forms[i].put ? forms[i].put : "");
    }
}

/* A failure's message has to hold `part`. */
static void check_refused(const struct test_kept *dir, const char *part)
{
    struct test_kept out;
    const char *message = convert(dir, &out);
    CHECK_MSG(strstr(message, part), "\"%s\" lacks \"%s\"", message, part);
}

TEST(forms_names_that_collide_or_are_foreign_are_refused)
{
    static const struct {
        const char *extra, *message;
    } extras[] = {
        {"module.gpt_neox.final_layer_norm.bias", "gpt_neox.final_layer_norm.bias occurs twice"},
        {"gpt_neox.layers.0.attention.dense.lora_A.default.weight", "not merged"},
        {"base_model.model.gpt_neox.layers.0.mlp.dense_h_to_4h.base_layer.weight", "not merged"},
        {"gpt_neox.layers.0.attention.dense.qweight", "GPTQ or AWQ"},
        {"gpt_neox.layers.0.attention.dense.SCB", "bitsandbytes (8 bit)"},
        {"gpt_neox.layers.0.attention.dense.weight.quant_state.bitsandbytes__nf4", "bitsandbytes (4 bit)"},
        {"gpt_neox.layers.0.attention.dense.weight_scale_inv", "FP8"},
        {"score.weight", "not part of the GPT-NeoX model"},
        {"gpt_neox.layers.0.attention.rotary_emb.cos_cached", ""},
    };
    for (size_t i = 0; i < sizeof extras / sizeof *extras; i++) {
        struct test_kept dir = make_directory();
        write_renamed(&dir, "model.safetensors", "", NULL, NULL, extras[i].extra);
        check_refused(&dir, extras[i].message);
    }
}

/* An index over one shard that lists one tensor more. */
static void write_index(const struct test_kept *dir, const char *more)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_checkpoint *c = geul_checkpoint_open(ctx, test_path("golden/torch_forms"), NULL);
    struct test_kept path = in(dir, "model.safetensors.index.json");
    FILE *f = fopen(path.text, "w");
    REQUIRE(c && f);
    fprintf(f, "{\"weight_map\":{\"%s\":\"a.safetensors\"", more);
    for (size_t i = 0; i < geul_checkpoint_count(c); i++)
        fprintf(f, ",\"%s\":\"a.safetensors\"", geul_checkpoint_at(c, i)->name);
    fprintf(f, "}}");
    fclose(f);
    geul_checkpoint_close(c);
    geul_context_free(ctx);
}

TEST(forms_an_index_may_list_old_buffers)
{
    static const struct {
        const char *name, *message;
    } listed[] = {
        {"gpt_neox.layers.0.attention.bias", ""},
        {"gpt_neox.layers.0.attention.masked_bias", ""},
        {"gpt_neox.layers.0.attention.rotary_emb.inv_freq", ""},
        {"module.gpt_neox.layers.0.attention.bias", ""},
        {"gpt_neox.layers.0.attention.dense.extra", "gpt_neox.layers.0.attention.dense.extra, which no shard holds"},
        {"gpt_neox.layers.1.mlp.dense_h_to_4h.weight", "which no shard holds"},
    };
    struct test_kept plain = convert_plain();
    for (size_t i = 0; i < sizeof listed / sizeof *listed; i++) {
        struct test_kept dir = make_directory(), out = in(&dir, "m.gguf");
        write_renamed(&dir, "a.safetensors", "", NULL, NULL, NULL);
        write_index(&dir, listed[i].name);
        check_refused(&dir, listed[i].message);
        CHECK(listed[i].message[0] || same_tensors(plain.text, out.text));
    }
}

TEST(forms_quantized_by_config_are_named)
{
    static const struct {
        const char *value, *message;
    } configs[] = {
        {"{\"quant_method\":\"bitsandbytes\",\"load_in_4bit\":true}", "(bitsandbytes, 4 bit)"},
        {"{\"load_in_8bit\":true}", "(bitsandbytes, 8 bit)"},
        {"{\"quant_method\":\"gptq\",\"bits\":4}", "(GPTQ, 4 bit)"},
        {"{\"quant_method\":\"awq\",\"bits\":4}", "(AWQ, 4 bit)"},
        {"{\"quant_method\":\"hqq\"}", "(hqq)"},
        {"{\"quant_method\":\"a\\u001b[2J\",\"bits\":99}", "(a?[2J)"},
        {"{\"x\":1}", "a method that it does not name"},
        {"{}", ""},
        {"null", ""},
    };
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        struct test_kept dir = make_directory(), path = in(&dir, "config.json");
        size_t size = 0;
        char *config = test_slurp(path.text, &size), text[200];
        REQUIRE(config && strrchr(config, '}'));
        FILE *f = fopen(path.text, "w");
        REQUIRE(f);
        snprintf(text, sizeof text, ",\"quantization_config\":%s}", configs[i].value);
        fwrite(config, 1, (size_t)(strrchr(config, '}') - config), f);
        fputs(text, f);
        fclose(f);
        free(config);
        write_renamed(&dir, "model.safetensors", "", NULL, NULL, NULL);
        check_refused(&dir, configs[i].message);
        if (configs[i].message[0])
            check_refused(&dir, "dequantize");
    }
}

/* Types that no weight has are refused by name. */
TEST(forms_integers_as_weights_are_named)
{
    static const enum geul_dtype types[] = {GEUL_DTYPE_I32, GEUL_DTYPE_U32, GEUL_DTYPE_F32};
    for (size_t i = 0; i < 3; i++) {
        struct test_kept dir = make_directory(), path = in(&dir, "model.safetensors");
        write_renamed(&dir, "model.safetensors", "", NULL, NULL, NULL);
        size_t size = 0;
        char *data = test_slurp(path.text, &size);
        REQUIRE(data);
        char *at = strstr(data + 8, "\"F32\"");
        REQUIRE(at);
        memcpy(at + 1, geul_dtype_info(types[i])->name, 3);
        CHECK(test_spill(path.text, data, size));
        free(data);
        check_refused(&dir, i == 2 ? "" : geul_dtype_info(types[i])->name);
        check_refused(&dir, i == 2 ? "" : "weights must be floats");
    }
}
