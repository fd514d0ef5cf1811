/* test_command_merge.c: adapters on the command line: `geul merge`, --lora, and both directions of conversion. */
#include "tests/command/command_fixture.h"

#include <sys/stat.h>

static void succeed(struct test_run r, const char *holds)
{
    CHECK_MSG(r.status == 0 && strstr(r.out, holds), "exit code %d, \"%s\" is not in: %s%s", r.status, holds, r.out,
              r.err);
    test_run_free(&r);
}

/* The golden `full` in float32, and the adapter of `parallel`, which has the same layers and width. */
struct files {
    struct test_kept model, adapter, peft, out;
};

static bool prepare(struct files *f)
{
    const char *model = fixture_model();
    if (!model)
        return false;
    f->model = test_keep(model);
    f->peft = test_keep(test_path("golden/peft_plain"));
    f->adapter = test_keep(test_scratch("adapter.gguf"));
    f->out = test_keep(test_scratch("merged.gguf"));
    succeed(GEUL("convert", f->peft.text, "-o", f->adapter.text, "--base", f->model.text), "f32, 16 tensors");
    return true;
}

/* Logits of a few ids, as the file's bytes; free(). */
static char *logits(const char *const *options, size_t *size)
{
    struct test_kept out = test_keep(test_scratch("logits.npy"));
    const char *argv[24] = {"logits", "--ids", "5 6 7 8 9", "-o", out.text};
    int n = 5;
    while (*options)
        argv[n++] = *options++;
    succeed(test_geul(argv, NULL, 0), "");
    return test_slurp(out.text, size);
}

#define LOGITS(size, ...) logits((const char *const[]){__VA_ARGS__, NULL}, size)

/* The largest difference of the float32 values of two files of one size, behind the NumPy header. */
static double difference(const char *a, const char *b, size_t size)
{
    const float *x = (const float *)(const void *)(a + 128), *y = (const float *)(const void *)(b + 128);
    return test_difference(x, y, (int64_t)(size - 128) / 4);
}

TEST(command_lora_from_either_form_and_merged)
{
    struct files f;
    size_t size, n;
    REQUIRE(prepare(&f));
    char scaled[1100];
    snprintf(scaled, sizeof scaled, "%s:0.5", f.adapter.text);
    char *without = LOGITS(&size, "-m", f.model.text);
    char *gguf = LOGITS(&n, "-m", f.model.text, "--lora", f.adapter.text);
    char *peft = LOGITS(&n, "-m", f.model.text, "--lora", f.peft.text);
    char *halves = LOGITS(&n, "-m", f.model.text, "--lora-scaled", scaled, "--lora-scaled", scaled);
    succeed(GEUL("merge", "-m", f.model.text, "--lora", f.adapter.text, "-o", f.out.text), "8 matrices changed");
    char *merged = LOGITS(&n, "-m", f.out.text);
    REQUIRE(without && gguf && peft && halves && merged && n == size);
    CHECK(difference(without, gguf, size) > 0.5);
    CHECK(memcmp(gguf, peft, size) == 0);
    CHECK(difference(gguf, halves, size) < 1e-4);
    CHECK(difference(gguf, merged, size) < 1e-4);
    char *files[] = {without, gguf, peft, halves, merged};
    for (int i = 0; i < 5; i++)
        free(files[i]);
}

TEST(command_lora_in_every_subcommand)
{
    struct files f;
    REQUIRE(prepare(&f));
    const char *m = f.model.text, *a = f.adapter.text, *text = "한글은 소리를 적는 글자다. The end of it.";
    succeed(GEUL("complete", "-m", m, "--lora", a, "-p", "한글", "-n", "4", "--temp", "0"), "");
    succeed(test_geul((const char *const[]){"chat", "-m", m, "--lora", a, "-n", "4", NULL}, "x\n", 2), "");
    succeed(GEUL("perplexity", "-m", m, "--lora", a, "-p", text, "-c", "16"), "perplexity");
    succeed(GEUL("bench", "-m", m, "--lora", a, "-p", "8", "-n", "2", "-r", "1"), "pp8");
    succeed(GEUL("imatrix", "-m", m, "--lora", a, "-p", text, "-o", f.out.text), "9 matrices");
}

TEST(command_merge_types_and_keys)
{
    struct files f;
    REQUIRE(prepare(&f));
    json_t *before = fixture_json(GEUL("info", f.model.text, "--json"));
    json_t *report = fixture_json(
        GEUL("merge", "-m", f.model.text, "--lora", f.peft.text, "-o", f.out.text, "--type", "q8_0", "--json"));
    json_t *after = fixture_json(GEUL("info", f.out.text, "--json"));
    REQUIRE(before && report && after);
    CHECK_STR(json_string_value(json_object_get(report, "type")), "q8_0");
    CHECK_INT(json_integer_value(json_object_get(report, "matrices")), 8);
    CHECK_INT(json_integer_value(json_object_get(report, "file_bytes")),
              json_integer_value(json_object_get(after, "file_bytes")));
    const char *key;
    json_t *value, *keys = json_object_get(after, "keys");
    json_object_foreach(json_object_get(before, "keys"), key, value) CHECK_MSG(
        strcmp(key, "general.file_type") == 0 || json_equal(value, json_object_get(keys, key)), "key %s", key);
    CHECK_INT(json_integer_value(json_object_get(keys, "general.file_type")), 7);
    json_decref(report);
    json_decref(after);
    struct test_kept again = test_keep(test_scratch("again.gguf")); /* of a quantized model: f16, with a note */
    struct test_run r = GEUL("merge", "-m", f.out.text, "--lora", f.adapter.text, "-o", again.text);
    CHECK_MSG(r.status == 0 && strstr(r.out, "type f16") && strstr(r.err, "is quantized"), "%s%s", r.out, r.err);
    test_run_free(&r);
    json_decref(before);
}

TEST(command_merge_refuses)
{
    struct files f;
    size_t before = 0, after = 0;
    REQUIRE(prepare(&f));
    const char *m = f.model.text, *a = f.adapter.text, *o = f.out.text;
    fixture_fails(GEUL("merge", "-m", m, "-o", o), 2, "geul merge: ", "--lora FILE is missing");
    fixture_fails(GEUL("merge", "--lora", a, "-o", o), 2, "geul merge: ", "--model");
    fixture_fails(GEUL("merge", "-m", m, "--lora", a), 2, "geul merge: ", "--output");
    fixture_fails(GEUL("merge", "-m", m, "--lora", a, "-o", o, "--type", "q9"), 2, "geul merge: ", "q9");
    fixture_fails(GEUL("merge", "-m", m, "--lora-scaled", a, "-o", o), 1, "geul merge: ", "FILE:X");
    fixture_fails(GEUL("merge", "-m", m, "--lora-scaled", "x:inf", "-o", o), 1, "geul merge: ", "FILE:X");
    fixture_fails(GEUL("merge", "-m", m, "--lora", m, "-o", o), 1, "geul merge: ", "is not an adapter");
    fixture_fails(GEUL("merge", "-m", a, "--lora", a, "-o", o), 1, "geul merge: ", a);
    fixture_fails(GEUL("merge", "-m", "/no/model", "--lora", a, "-o", o), 1, "geul merge: ", "/no/model");
    free(test_slurp(m, &before));
    fixture_fails(GEUL("merge", "-m", m, "--lora", a, "-o", m), 1, "geul merge: ", "is the input itself");
    fixture_fails(GEUL("merge", "-m", m, "--lora", a, "-o", a), 1, "geul merge: ", "name another output file");
    free(test_slurp(m, &after));
    CHECK(before == after);
    fixture_fails(GEUL("merge", "-m", m, "--lora", a, "-o", "/no/such/directory/x"), 1,
                  "geul merge: ", "/no/such/directory");
    fixture_fails(GEUL("complete", "-m", m, "--lora", "/no/such/adapter", "-p", "x"), 1,
                  "geul complete: ", "/no/such/adapter");
    fixture_fails(GEUL("complete", "-m", a, "-p", "x"), 1, "geul complete: ", a);
}

TEST(command_converts_adapters_both_ways)
{
    struct files f;
    REQUIRE(prepare(&f));
    struct test_kept dir = test_keep(test_scratch("peft")), again = test_keep(test_scratch("again.gguf"));
    succeed(GEUL("export", f.adapter.text, dir.text), "written");
    succeed(GEUL("convert", dir.text, "-o", again.text, "--base", test_path("golden/parallel"), "--name", "peft_plain"),
            "16 tensors");
    json_t *a = fixture_json(GEUL("info", f.adapter.text, "--json")),
           *b = fixture_json(GEUL("info", again.text, "--json"));
    REQUIRE(a && b);
    CHECK(json_equal(json_object_get(a, "keys"), json_object_get(b, "keys")));
    const json_t *adapter = json_object_get(b, "adapter");
    CHECK_INT(json_integer_value(json_object_get(adapter, "rank")), 4);
    CHECK(json_number_value(json_object_get(adapter, "alpha")) == 8);
    CHECK_INT(json_integer_value(json_object_get(json_object_get(adapter, "targets"), "attn_qkv")), 2);
    json_decref(a);
    json_decref(b);
    succeed(GEUL("info", f.adapter.text), "LoRA, rank 4, alpha 8, scale 2");
    fixture_fails(GEUL("convert", f.peft.text, "-o", again.text), 1, "geul convert: ", "name its base, a GGUF");
    fixture_fails(GEUL("convert", f.peft.text, "-o", again.text, "--base", "/no/base"), 1,
                  "geul convert: ", "/no/base");
}

/* Copies a file of a golden into dir. */
static void copy_into(const struct test_kept *dir, const char *golden, const char *file)
{
    char from[200], to[1100];
    size_t size = 0;
    snprintf(from, sizeof from, "golden/%s/%s", golden, file);
    snprintf(to, sizeof to, "%s/%s", dir->text, file);
    char *data = test_slurp(test_path(from), &size);
    CHECK(data && test_spill(to, data, size));
    free(data);
}

/* Trainers leave both in one directory. The model is meant, unless a model is named; with --lora the adapter. */
TEST(command_convert_a_model_and_an_adapter_in_one_directory)
{
    struct files f;
    REQUIRE(prepare(&f));
    struct test_kept dir = test_keep(test_scratch("both")), base = test_keep(test_scratch("base.gguf"));
    struct test_kept model = test_keep(test_scratch("both.gguf")), adapter = test_keep(test_scratch("other.gguf"));
    REQUIRE(mkdir(dir.text, 0700) == 0);
    copy_into(&dir, "peft_plain", "adapter_config.json");
    copy_into(&dir, "peft_plain", "adapter_model.safetensors");
    copy_into(&dir, "parallel", "config.json");
    succeed(GEUL("convert", dir.text, "-o", adapter.text), "f32, 16 tensors"); /* heads from config.json */
    copy_into(&dir, "parallel", "model.safetensors");
    struct test_run r = GEUL("convert", dir.text, "-o", model.text, "--type", "f32");
    CHECK_MSG(strstr(r.err, "holds a whole model beside adapter_config.json; the model is converted"), "%s", r.err);
    succeed(r, "f32, 28 tensors");
    succeed(GEUL("convert", dir.text, "-o", adapter.text, "--base", dir.text), "f32, 16 tensors");
    succeed(GEUL("convert", test_path("golden/parallel"), "-o", base.text, "--type", "f32"), "28 tensors");
    size_t n, size;
    char *of_model = LOGITS(&size, "-m", model.text), *of_base = LOGITS(&n, "-m", base.text);
    char *by_dir = LOGITS(&n, "-m", base.text, "--lora", dir.text);
    char *by_file = LOGITS(&n, "-m", base.text, "--lora", f.peft.text);
    REQUIRE(of_model && of_base && by_dir && by_file && n == size);
    CHECK(memcmp(of_model, of_base, size) == 0 && memcmp(by_dir, by_file, size) == 0);
    CHECK(difference(of_base, by_dir, size) > 0.5);
    char *all[] = {of_model, of_base, by_dir, by_file};
    for (int i = 0; i < 4; i++)
        free(all[i]);
    /* a merged model that kept its adapter_config.json */
    char path[1100];
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", dir.text);
    remove(path);
    r = GEUL("convert", dir.text, "-o", model.text, "--type", "f32");
    succeed(r, "f32, 28 tensors");
    fixture_fails(GEUL("logits", "-m", base.text, "--lora", dir.text, "--ids", "1", "-o", adapter.text), 1,
                  "geul logits: ", "it holds those of a whole model");
}
