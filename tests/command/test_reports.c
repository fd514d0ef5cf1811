/* test_reports.c: what people reported, as they typed it. Each report stands for a kind, of which more is tested at its
 * place:
 *
 *   what was brought                          at the command                        the kind
 *   an end token in generation_config.json    report_end_tokens_count               tokenizer_files_*end*
 *   a list of end tokens                      report_end_tokens_count tokenizer_gguf_begins_and_ends_texts tokens in
 * tokenizer_config.json only      report_tokens_of_the_settings         tokenizer_files_equal_autotokenizer another
 * output in a tied model            report_tied_with_another_output       each_form, trained_tied_*
 *   lora_A.default.weight                     report_adapter_s_name_in_its_keys     peft_names_with_an_adapter_s_name_*
 *   CR LF and byte order marks in texts       command_text_doors_*                  text_decode_*
 *   history, system, weight lost              command_row_doors_*                   row_shapes_*
 *   bitsandbytes' 4 bits                      report_quantized_checkpoint           forms_quantized_by_config_are_named
 *   a model and an adapter in one directory   command_convert_a_model_and_an_adapter_in_one_directory
 *   NaN in config.json                        report_config_with_nan                json_*, each_form
 *   vocab.json and merges.txt                 report_vocab_and_merges               tokenizer_files_equal_autotokenizer
 *   a gap in an importance matrix             lost_importance_is_always_said
 *   the perplexity of one token               command_perplexity_of_one_token       measuring_refuses
 *   rows in other tools' shapes               command_row_doors_show_what_is_learned, row_shapes_of_other_tools
 */
#include "tests/command/command_fixture.h"

#include <math.h>

/* A copy of a golden in this test's scratch directory; storage until the next call. */
static const char *copy_golden(const char *golden, const char *name)
{
    static char dir[1024];
    char command[2200];
    snprintf(dir, sizeof dir, "%s", test_scratch(name));
    snprintf(command, sizeof command, "cp -r '%s' '%s' && chmod -R u+w '%s'", test_path(golden), dir, dir);
    CHECK_INT(system(command), 0);
    return dir;
}

/* Sets a member of a JSON file; value is JSON. */
static void set_member(const char *dir, const char *file, const char *key, const char *value)
{
    char path[1100];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    json_t *json = json_load_file(path, 0, NULL), *v = json_loads(value, JSON_DECODE_ANY, NULL);
    CHECK(json && v && json_object_set_new(json, key, v) == 0 && json_dump_file(json, path, 0) == 0);
    json_decref(json);
}

/* Converts dir to f32; path in storage until the next call. NULL after a failed check. */
static const char *convert(const char *dir)
{
    static char path[1100];
    snprintf(path, sizeof path, "%s.gguf", dir);
    struct test_run r = GEUL("convert", dir, "-o", path, "--type", "f32");
    bool ok = CHECK_MSG(r.status == 0, "%s", r.err);
    test_run_free(&r);
    return ok ? path : NULL;
}

static json_t *greedy(const char *model)
{
    return model ? fixture_json(GEUL("complete", "-m", model, "-p", "가", "-n", "5", "--temp", "0", "--json")) : NULL;
}

/* transformers' generate() stops at any id of eos_token_id, generation_config.json's before config.json's. */
TEST(report_end_tokens_count)
{
    json_t *plain = greedy(convert(copy_golden("golden/full", "plain")));
    REQUIRE(plain);
    const json_t *ids = json_object_get(plain, "tokens");
    REQUIRE(json_array_size(ids) == 5);
    int first = (int)json_integer_value(json_array_get(ids, 0));
    char one[32], list[64];
    snprintf(one, sizeof one, "%d", first);
    snprintf(list, sizeof list, "[7, %d]", first);
    const struct {
        const char *file, *value;
    } cases[] = {{"generation_config.json", one}, {"generation_config.json", list}, {"config.json", list}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[32];
        snprintf(name, sizeof name, "case%zu", i);
        const char *dir = copy_golden("golden/full", name);
        if (strcmp(cases[i].file, "config.json") == 0)
            set_member(dir, "generation_config.json", "eos_token_id", "null");
        set_member(dir, cases[i].file, "eos_token_id", cases[i].value);
        json_t *json = greedy(convert(dir));
        REQUIRE(json);
        CHECK_INT(json_array_size(json_object_get(json, "tokens")), 1);
        CHECK_INT(json_integer_value(json_array_get(json_object_get(json, "tokens"), 0)), first);
        CHECK_STR(json_string_value(json_object_get(json, "stop_reason")), "end_token");
        json_decref(json);
    }
    json_decref(plain);
}

/* AutoTokenizer gives a token of added_tokens_decoder or extra_special_tokens that tokenizer.json lacks the next free
 * id: 403, after the 403 of this golden. */
TEST(report_tokens_of_the_settings)
{
    static const struct {
        const char *key, *value;
    } cases[] = {{"extra_special_tokens", "[\"<|im_start|>\", \"<|im_end|>\"]"},
                 {"additional_special_tokens", "[\"<|im_start|>\", \"<|im_end|>\"]"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[32];
        snprintf(name, sizeof name, "added%zu", i);
        const char *dir = copy_golden("golden/full", name);
        set_member(dir, "tokenizer_config.json", cases[i].key, cases[i].value);
        const char *model = convert(dir);
        REQUIRE(model);
        json_t *json = fixture_json(GEUL("tokenize", "-m", model, "-p", "<|im_start|>가<|im_end|>", "--json"));
        REQUIRE(json);
        const json_t *ids = json_object_get(json, "ids");
        size_t n = json_array_size(ids);
        CHECK_INT(json_integer_value(json_array_get(ids, 0)), 403);
        CHECK_INT(json_integer_value(json_array_get(ids, n - 1)), 404);
        json_decref(json);
    }
}

/* transformers 5.24 uses the stored embed_out, so the logits are those of the model that is not said to be tied. */
TEST(report_tied_with_another_output)
{
    const char *dir = copy_golden("golden/parallel", "tied");
    set_member(dir, "config.json", "tie_word_embeddings", "true");
    char path[1100], npy[1024];
    snprintf(path, sizeof path, "%s.gguf", dir);
    struct test_run r = GEUL("convert", dir, "-o", path, "--type", "f32");
    CHECK_MSG(r.status == 0 && strstr(r.err, "tie_word_embeddings"), "%s", r.err);
    test_run_free(&r);
    const char *plain = convert(copy_golden("golden/parallel", "untied"));
    REQUIRE(plain);
    struct test_npy a, b;
    snprintf(npy, sizeof npy, "%s", test_scratch("a.npy"));
    json_decref(fixture_json(GEUL("logits", "-m", path, "--ids", "1 2 3 4", "-o", npy, "--json")));
    REQUIRE(test_npy_read(npy, &a));
    json_decref(fixture_json(GEUL("logits", "-m", plain, "--ids", "1 2 3 4", "-o", npy, "--json")));
    REQUIRE(test_npy_read(npy, &b));
    CHECK(test_difference(a.f32, b.f32, 4 * a.shape[1]) == 0);
    test_npy_free(&a);
    test_npy_free(&b);
}

/* PEFT 0.21 loads both names alike: golden peft_plain has the logits. The longer name takes the place of the header's
 * padding and bytes before the data, so the file is written anew. */
TEST(report_adapter_s_name_in_its_keys)
{
    const char *dir = copy_golden("golden/peft_plain", "adapter");
    char path[1100], npy[1024];
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", dir);
    size_t size, n = 0;
    char *old = test_slurp(path, &size), *out = malloc(2 * size);
    REQUIRE(old && size > 8);
    size_t header = 0;
    for (int i = 0; i < 8; i++)
        header |= (size_t)(unsigned char)old[i] << 8 * i;
    n = 8;
    for (size_t i = 8; i < 8 + header; i++) {
        out[n++] = old[i];
        if ((i >= 14 && memcmp(old + i - 5, "lora_A", 6) == 0) || (i >= 14 && memcmp(old + i - 5, "lora_B", 6) == 0)) {
            memcpy(out + n, ".default", 8);
            n += 8;
        }
    }
    for (int i = 0; i < 8; i++)
        out[i] = (char)((n - 8) >> 8 * i);
    memcpy(out + n, old + 8 + header, size - 8 - header);
    CHECK(n > 8 + header && test_spill(path, out, n + size - 8 - header));
    char adapter[1024], base[1100];
    snprintf(adapter, sizeof adapter, "%s", dir);
    snprintf(base, sizeof base, "%s", convert(copy_golden("golden/parallel", "base")));
    struct test_npy a, b;
    snprintf(npy, sizeof npy, "%s", test_scratch("a.npy"));
    json_decref(fixture_json(GEUL("logits", "-m", base, "--lora", adapter, "--ids", "1 2 3", "-o", npy, "--json")));
    REQUIRE(test_npy_read(npy, &a));
    json_decref(fixture_json(
        GEUL("logits", "-m", base, "--lora", test_path("golden/peft_plain"), "--ids", "1 2 3", "-o", npy, "--json")));
    REQUIRE(test_npy_read(npy, &b));
    CHECK(test_difference(a.f32, b.f32, 3 * a.shape[1]) == 0);
    test_npy_free(&a);
    test_npy_free(&b);
    free(old);
    free(out);
}

TEST(report_quantized_checkpoint)
{
    static const struct {
        const char *config, *named;
    } cases[] = {
        {"{\"quant_method\": \"bitsandbytes\", \"load_in_4bit\": true}", "bitsandbytes, 4 bit"},
        {"{\"quant_method\": \"gptq\", \"bits\": 4}", "GPTQ, 4 bit"},
        {"{\"quant_method\": \"awq\", \"bits\": 4}", "AWQ, 4 bit"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[32], path[1100];
        snprintf(name, sizeof name, "quantized%zu", i);
        const char *dir = copy_golden("golden/parallel", name);
        set_member(dir, "config.json", "quantization_config", cases[i].config);
        snprintf(path, sizeof path, "%s.gguf", dir);
        fixture_fails(GEUL("convert", dir, "-o", path), 1, "geul convert: ", cases[i].named);
    }
}

/* Python's json writes and reads these; transformers loads the directory. */
TEST(report_config_with_nan)
{
    static const char *const values[] = {"NaN", "-Infinity", "1000000000000000019884624838656", "1e999"};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        char name[32], path[1100], more[200];
        snprintf(name, sizeof name, "nan%zu", i);
        const char *dir = copy_golden("golden/parallel", name);
        snprintf(path, sizeof path, "%s/config.json", dir);
        size_t size;
        char *text = test_slurp(path, &size), *all = malloc(size + sizeof more);
        int n = snprintf(more, sizeof more, "{\"best_metric\": %s,", values[i]);
        memcpy(all, more, (size_t)n);
        memcpy(all + n, strchr(text, '{') + 1, size - (size_t)(strchr(text, '{') + 1 - text));
        CHECK(test_spill(path, all, (size_t)n + size - (size_t)(strchr(text, '{') + 1 - text)));
        CHECK_MSG(convert(dir), "%s", values[i]);
        free(text);
        free(all);
    }
}

/* The ids of GPTNeoXTokenizer (transformers 5.24) for these two files: by hand, since there are no merges but "a b". */
TEST(report_vocab_and_merges)
{
    const char *dir = copy_golden("golden/parallel", "pair");
    char path[1100];
    snprintf(path, sizeof path, "%s/vocab.json", dir);
    json_t *vocab = json_pack("{s:i, s:i, s:i, s:i, s:i}", "<|endoftext|>", 0, "a", 1, "b", 2, "ab", 3, "\u0120", 4);
    CHECK(vocab && json_dump_file(vocab, path, 0) == 0);
    json_decref(vocab);
    snprintf(path, sizeof path, "%s/merges.txt", dir);
    CHECK(test_spill(path, "#version: 0.2\r\na b\r\n", 20));
    const char *model = convert(dir);
    REQUIRE(model);
    json_t *json = fixture_json(GEUL("tokenize", "-m", model, "-p", "aab b", "--json"));
    REQUIRE(json);
    static const int want[] = {1, 3, 4, 2};
    const json_t *ids = json_object_get(json, "ids");
    CHECK_INT(json_array_size(ids), 4);
    for (size_t i = 0; i < 4; i++)
        CHECK_INT(json_integer_value(json_array_get(ids, i)), want[i]);
    json_decref(json);
}
