/* test_tokenizer_files.c: tokenizers that are spread over several files, and which tokens end a text. The ids are
 * AutoTokenizer's (golden/tokenizer_files.json). */
#include "geul_tools.h"
#include "core/gguf.h"
#include "core/os.h"
#include "tests/harness.h"

#include <jansson.h>

/* Static storage, apart from the harness's few places for paths. */
static const char *full(const char *file)
{
    static char root[512], path[2][600];
    static int turn;
    if (!root[0])
        snprintf(root, sizeof root, "%s", test_path("golden/full"));
    turn ^= 1;
    snprintf(path[turn], sizeof path[turn], "%s/%s", root, file);
    return path[turn];
}

static void spill(const char *dir, const char *file, const char *data, size_t n)
{
    char path[1200];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    FILE *f = fopen(path, "wb");
    if (CHECK(f != NULL)) {
        CHECK(fwrite(data, 1, n, f) == n);
        fclose(f);
    }
}

static void spill_json(const char *dir, const char *file, const json_t *json)
{
    char *text = json_dumps(json, JSON_ENCODE_ANY);
    spill(dir, file, text, strlen(text));
    free(text);
}

/* A directory with full/'s weights alone; storage as test_scratch()'s. */
static struct test_kept make_directory(struct geul_context *ctx, const char *name)
{
    static const char *const weights[] = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
                                          "model.safetensors.index.json"};
    struct test_kept dir = test_keep(test_scratch(name));
    CHECK_INT(geul_os_make_directory(ctx, dir.text), GEUL_OK);
    for (size_t i = 0; i < 3; i++) {
        size_t n;
        char *data = test_slurp(full(weights[i]), &n);
        spill(dir.text, weights[i], data, n);
        free(data);
    }
    return dir;
}

static json_t *load(const char *file)
{
    return json_load_file(full(file), 0, NULL);
}

/* Writes the merges of full/, with the lines' ends that `lines` has, after its "#version". */
static void spill_merges(const char *dir, const json_t *merges, const char *lines)
{
    char path[1200];
    const json_t *m;
    size_t i;
    snprintf(path, sizeof path, "%s/merges.txt", dir);
    FILE *f = fopen(path, "wb");
    REQUIRE(f != NULL);
    fputs(lines[0] == '#' ? lines : "", f);
    json_array_foreach((json_t *)(uintptr_t)merges, i, m)
    {
        if (json_is_string(m))
            fputs(json_string_value(m), f);
        else
            fprintf(f, "%s %s", json_string_value(json_array_get(m, 0)), json_string_value(json_array_get(m, 1)));
        fputs(strchr(lines, '\r') ? "\r\n" : "\n", f);
    }
    fclose(f);
}

/* Writes the files of a case (make_tokenizer_files.py says what they mean). */
static void spill_case(const char *dir, json_t *files)
{
    const char *name;
    json_t *value, *config = load("config.json"), *tokenizer = load("tokenizer.json");
    const json_t *model = json_object_get(tokenizer, "model");
    json_object_update(config, json_object_get(files, "config.json"));
    spill_json(dir, "config.json", config);
    json_object_foreach(files, name, value)
    {
        if (strcmp(name, "tokenizer.json") == 0) {
            json_t *changed = json_copy(tokenizer);
            json_object_update(changed, value);
            spill_json(dir, name, changed);
            json_decref(changed);
        } else if (strcmp(name, "vocab.json") == 0) {
            spill_json(dir, name, json_object_get(model, "vocab"));
        } else if (strcmp(name, "merges.txt") == 0) {
            spill_merges(dir, json_object_get(model, "merges"), json_string_value(value));
        } else if (strcmp(name, "config.json") != 0) {
            spill_json(dir, name, value);
        }
    }
    json_decref(config);
    json_decref(tokenizer);
}

/* Checks ids, which it frees, against a list. */
static void check_ids(struct geul_context *ctx, const char *what, enum geul_status status, int32_t *ids, size_t n,
                      const json_t *expected)
{
    bool same = CHECK_MSG(status == GEUL_OK, "%s: %s", what, geul_error(ctx)) && n == json_array_size(expected);
    for (size_t i = 0; same && i < n; i++)
        same = ids[i] == json_integer_value(json_array_get(expected, i));
    char *text = json_dumps(expected, 0);
    CHECK_MSG(same, "%s: %zu ids, the first %d; expected %s", what, n, n ? ids[0] : -1, text);
    free(text);
    geul_tokens_free(ctx, ids);
}

/* Checks what tok makes of every text of a case, and takes it. */
static void check_tokenizer(struct geul_context *ctx, const char *how, struct geul_tokenizer *tok, const json_t *c,
                            json_t *texts)
{
    size_t i;
    json_t *text;
    char what[120];
    const char *name = json_string_value(json_object_get(c, "name"));
    if (!CHECK_MSG(tok != NULL, "%s, %s: %s", name, how, geul_error(ctx)))
        return;
    json_array_foreach(texts, i, text)
    {
        int32_t *ids;
        size_t n;
        snprintf(what, sizeof what, "%s, %s, text %zu", name, how, i);
        enum geul_status status =
            geul_tokenize_whole(ctx, tok, json_string_value(text), json_string_length(text), true, false, &ids, &n);
        check_ids(ctx, what, status, ids, n, json_array_get(json_object_get(c, "ids"), i));
        status = geul_tokenize(ctx, tok, json_string_value(text), json_string_length(text), true, &ids, &n);
        check_ids(ctx, what, status, ids, n, json_array_get(json_object_get(c, "plain"), i));
    }
    geul_tokenizer_free(tok);
}

/* Every case: read from the directory, from the GGUF file made of it, and from the directory that export makes. */
TEST(tokenizer_files_equal_autotokenizer)
{
    struct geul_context *ctx = geul_context_new(NULL);
    json_t *golden = json_load_file(test_path("golden/tokenizer_files.json"), 0, NULL), *c;
    json_t *texts = json_object_get(golden, "texts");
    size_t i;
    REQUIRE(json_array_size(json_object_get(golden, "cases")) > 40);
    json_array_foreach(json_object_get(golden, "cases"), i, c)
    {
        char name[32];
        snprintf(name, sizeof name, "dir%zu", i);
        struct test_kept dir = make_directory(ctx, name), gguf = test_keep(test_scratch("model.gguf"));
        snprintf(name, sizeof name, "back%zu", i);
        struct test_kept back = test_keep(test_scratch(name));
        spill_case(dir.text, json_object_get(c, "files"));
        check_tokenizer(ctx, "directory", geul_tokenizer_from_json(ctx, dir.text), c, texts);
        bool made = geul_convert_hf(ctx, dir.text, gguf.text, NULL) == GEUL_OK &&
                    geul_export_hf(ctx, gguf.text, back.text, NULL) == GEUL_OK;
        if (CHECK_MSG(made, "%s: %s", dir.text, geul_error(ctx))) {
            check_tokenizer(ctx, "GGUF", geul_tokenizer_load(ctx, gguf.text, geul_regex_pcre2()), c, texts);
            check_tokenizer(ctx, "export", geul_tokenizer_from_json(ctx, back.text), c, texts);
        }
    }
    json_decref(golden);
    geul_context_free(ctx);
}

/* -------------------------------------------------------------------------------- end tokens -- */

/* The files of a directory as JSON, and the ids that end a text: what transformers' generate() stops at, but where
 * generation_config.json says nothing config.json is asked, and where the files say none the tokenizer. */
static const struct ends {
    const char *config, *generation, *tokenizer; /* values of eos_token_id, twice, and eos_token; NULL: not there */
    int n, id[4];
} end_cases[] = {
    {"3", "3", "\"<|sep|>\"", 1, {3}},
    {"3", NULL, "\"<|sep|>\"", 1, {3}},
    {"3", "2", "\"<|endoftext|>\"", 1, {2}},
    {"2", "3", "\"<|endoftext|>\"", 1, {3}},
    {"[2, 3]", "[2, 3]", "\"<|endoftext|>\"", 2, {2, 3}},
    {"2", "[3, 2]", "\"<|endoftext|>\"", 2, {2, 3}}, /* the tokenizer's own comes first */
    {"2", "[3, 400, 401, 402]", NULL, 4, {3, 400, 401, 402}},
    {"[3]", NULL, NULL, 1, {3}},
    {"3", "null", NULL, 1, {3}},
    {"0", "0", "\"<|endoftext|>\"", 1, {2}}, /* Polyglot-Ko's contradiction */
    {"0", NULL, "\"<|endoftext|>\"", 1, {2}},
    {"0", "0", "\"<|sep|>\"", 1, {0}}, /* deliberate, as far as one can see */
    {"0", "0", NULL, 1, {2}},          /* the same, <|unused0|>, without the settings */
    {"0", "[0, 3]", "\"<|endoftext|>\"", 2, {0, 3}},
    {"0", "3", "\"<|endoftext|>\"", 1, {3}},
    {NULL, NULL, "\"<|sep|>\"", 1, {3}},
    {NULL, NULL, NULL, 1, {2}},
    {"50256", "50256", "\"<|sep|>\"", 1, {3}}, /* no token: never chosen */
    {"-1", NULL, "\"<|sep|>\"", 1, {3}},
    {"\"x\"", "true", "\"<|sep|>\"", 1, {3}},
};

static void set(json_t *json, const char *key, const char *value)
{
    json_object_del(json, key);
    if (value)
        json_object_set_new(json, key, json_loads(value, JSON_DECODE_ANY, NULL));
}

static void spill_ends(const char *dir, const struct ends *e)
{
    json_t *config = load("config.json"), *tokenizer = load("tokenizer_config.json"), *generation = json_object();
    set(config, "eos_token_id", e->config);
    set(tokenizer, "eos_token", e->tokenizer);
    set(generation, "eos_token_id", e->generation);
    spill_json(dir, "config.json", config);
    spill_json(dir, "tokenizer_config.json", tokenizer);
    if (e->generation)
        spill_json(dir, "generation_config.json", generation);
    json_decref(config);
    json_decref(tokenizer);
    json_decref(generation);
}

/* Checks which tokens end a text for tok, and takes it. */
static void check_ends(struct geul_context *ctx, const char *how, size_t number, struct geul_tokenizer *tok,
                       const struct ends *e)
{
    const int32_t *ids;
    if (!CHECK_MSG(tok != NULL, "%s: %s", how, geul_error(ctx)))
        return;
    int n = geul_token_ends(tok, &ids);
    CHECK_MSG(n == e->n, "case %zu, %s: %d end tokens", number, how, n);
    for (int i = 0; i < n && i < e->n; i++) {
        CHECK_MSG(ids[i] == e->id[i], "case %zu, %s: end token %d is %d", number, how, i, ids[i]);
        CHECK(geul_token_is_end(tok, ids[i]));
    }
    CHECK(!geul_token_is_end(tok, 10) && !geul_token_is_end(tok, -1) && !geul_token_is_end(tok, 1 << 20));
    CHECK_INT(geul_token_end(tok), e->id[0]);
    geul_tokenizer_free(tok);
}

TEST(tokenizer_files_say_what_ends_a_text)
{
    struct geul_context *ctx = geul_context_new(NULL);
    for (size_t i = 0; i < sizeof end_cases / sizeof *end_cases; i++) {
        const struct ends *e = &end_cases[i];
        char name[32];
        size_t n;
        snprintf(name, sizeof name, "dir%zu", i);
        struct test_kept dir = make_directory(ctx, name), gguf = test_keep(test_scratch("model.gguf"));
        snprintf(name, sizeof name, "back%zu", i);
        struct test_kept back = test_keep(test_scratch(name));
        char *tokenizer = test_slurp(full("tokenizer.json"), &n);
        spill(dir.text, "tokenizer.json", tokenizer, n);
        free(tokenizer);
        spill_ends(dir.text, e);
        check_ends(ctx, "directory", i, geul_tokenizer_from_json(ctx, dir.text), e);
        bool made = geul_convert_hf(ctx, dir.text, gguf.text, NULL) == GEUL_OK &&
                    geul_export_hf(ctx, gguf.text, back.text, NULL) == GEUL_OK;
        if (CHECK_MSG(made, "%s", geul_error(ctx))) {
            check_ends(ctx, "GGUF", i, geul_tokenizer_load(ctx, gguf.text, NULL), e);
            check_ends(ctx, "export", i, geul_tokenizer_from_json(ctx, back.text), e);
        }
    }
    geul_context_free(ctx);
}

/* The value of a key in dir/file, as JSON; free() it. */
static char *value_in(const char *dir, const char *file, const char *key)
{
    char path[1200];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    json_t *json = json_load_file(path, 0, NULL);
    char *text = json_dumps(json_object_get(json, key), JSON_ENCODE_ANY | JSON_COMPACT);
    json_decref(json);
    return text;
}

/* What transformers will read after an export: the right ids, and never the 0 that the original said by mistake. */
TEST(tokenizer_files_export_their_end_tokens)
{
    static const struct {
        struct ends given;
        const char *config, *generation, *bos;
    } cases[] = {
        {{"0", "0", "\"<|endoftext|>\"", 1, {2}}, "2", "2", "2"},
        {{"2", "[2, 3]", "\"<|endoftext|>\"", 2, {2, 3}}, "2", "[2,3]", "0"},
        {{"[3, 2]", NULL, NULL, 2, {3, 2}}, "[3,2]", "[3,2]", "0"},
        {{"3", "3", "\"<|sep|>\"", 1, {3}}, "3", "3", "0"},
    };
    struct geul_context *ctx = geul_context_new(NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[32];
        size_t n;
        snprintf(name, sizeof name, "dir%zu", i);
        struct test_kept dir = make_directory(ctx, name), gguf = test_keep(test_scratch("model.gguf"));
        snprintf(name, sizeof name, "back%zu", i);
        struct test_kept back = test_keep(test_scratch(name));
        char *tokenizer = test_slurp(full("tokenizer.json"), &n);
        spill(dir.text, "tokenizer.json", tokenizer, n);
        free(tokenizer);
        spill_ends(dir.text, &cases[i].given);
        REQUIRE(geul_convert_hf(ctx, dir.text, gguf.text, NULL) == GEUL_OK);
        REQUIRE(geul_export_hf(ctx, gguf.text, back.text, NULL) == GEUL_OK);
        char *config = value_in(back.text, "config.json", "eos_token_id");
        char *bos = value_in(back.text, "config.json", "bos_token_id");
        char *generation = value_in(back.text, "generation_config.json", "eos_token_id");
        CHECK_STR(config, cases[i].config);
        CHECK_STR(bos, cases[i].bos);
        CHECK_STR(generation, cases[i].generation);
        free(config);
        free(bos);
        free(generation);
    }
    geul_context_free(ctx);
}

/* -------------------------------------------------------------------------------- generating -- */

/* One greedy continuation of full/tokens.npy, checked against full/greedy.npy and where it has to end. */
static void check_stop(struct geul_session *session, struct geul_generation how, int n, enum geul_stop_reason reason)
{
    struct test_npy prompt, greedy;
    struct geul_generation_result r;
    struct geul_sampling sampling = geul_sampling_default();
    sampling.temperature = 0;
    how.sampling = &sampling;
    how.max_tokens = 40;
    REQUIRE(test_npy_read(full("tokens.npy"), &prompt) && test_npy_read(full("greedy.npy"), &greedy));
    REQUIRE(geul_generate_ids(session, prompt.i32, (int)prompt.count, &how, &r) == GEUL_OK);
    CHECK_INT(r.n_generated, n);
    CHECK_INT(r.reason, reason);
    for (int i = 0; i < r.n_generated; i++)
        CHECK_INT(r.tokens[i], greedy.i32[i]);
    geul_tokens_free(geul_session_context(session), r.tokens);
    geul_text_free(geul_session_context(session), r.text);
    test_npy_free(&prompt);
    test_npy_free(&greedy);
}

/* In the golden's continuation token 9 is <|acc|>, id 400, and token 27 <|unused1|>, id 1; both are special. */
TEST(tokenizer_files_end_what_is_generated)
{
    static const struct ends given = {"2", "[2, 400]", "\"<|endoftext|>\"", 2, {2, 400}};
    static const char *const acc[] = {"<|acc|>"}, *const unused[] = {"x y z", "<|unused1|>"}, *const part[] = {"<|acc"};
    struct geul_context *ctx = geul_context_new(NULL);
    struct test_kept dir = make_directory(ctx, "dir"), gguf = test_keep(test_scratch("model.gguf"));
    struct geul_convert_options o = {.size = sizeof o, .type = GEUL_TYPE_F32};
    size_t n;
    char *tokenizer = test_slurp(full("tokenizer.json"), &n);
    spill(dir.text, "tokenizer.json", tokenizer, n);
    free(tokenizer);
    spill_ends(dir.text, &given);
    REQUIRE(geul_convert_hf(ctx, dir.text, gguf.text, &o) == GEUL_OK);
    struct geul_model *model = geul_model_load(ctx, gguf.text, NULL);
    struct geul_session *s =
        model ? geul_session_new(ctx, model, &(struct geul_session_options){.n_context = 0}) : NULL;
    REQUIRE(s != NULL);
    check_stop(s, (struct geul_generation){.max_tokens = 0}, 10, GEUL_STOP_END_TOKEN);
    check_stop(s, (struct geul_generation){.stop = acc, .n_stop = 1}, 10, GEUL_STOP_END_TOKEN);
    check_stop(s, (struct geul_generation){.ignore_end_token = true}, 40, GEUL_STOP_LENGTH);
    check_stop(s, (struct geul_generation){.ignore_end_token = true, .stop = part, .n_stop = 1}, 40, GEUL_STOP_LENGTH);
    check_stop(s, (struct geul_generation){.ignore_end_token = true, .stop = acc, .n_stop = 1}, 10, GEUL_STOP_STRING);
    check_stop(s, (struct geul_generation){.ignore_end_token = true, .stop = unused, .n_stop = 2}, 28,
               GEUL_STOP_STRING);
    struct geul_speculation lookup = geul_speculation_default();
    lookup.lookup = true;
    struct geul_speculator *speculator = geul_speculator_new(s, &lookup);
    check_stop(s, (struct geul_generation){.speculator = speculator}, 10, GEUL_STOP_END_TOKEN);
    geul_speculator_free(speculator);
    geul_session_free(s);
    geul_model_free(model);
    geul_context_free(ctx);
}

/* A new model takes the tokenizer of a directory, of its GGUF form and of that with other rows. */
TEST(tokenizer_files_serve_new_models)
{
    static const int rows[] = {0, 403, 448, 500};
    static const struct ends given = {"2", "[2, 400]", "\"<|endoftext|>\"", 2, {2, 400}};
    struct geul_context *ctx = geul_context_new(NULL);
    struct test_kept dir = make_directory(ctx, "dir"), first = test_keep(test_scratch("first.gguf"));
    struct test_kept second = test_keep(test_scratch("second.gguf"));
    size_t n;
    char *tokenizer = test_slurp(full("tokenizer.json"), &n);
    spill(dir.text, "tokenizer.json", tokenizer, n);
    free(tokenizer);
    spill_ends(dir.text, &given);
    struct geul_new_model_options o = {
        .size = sizeof o, .tokenizer = dir.text, .n_layers = 1, .d_model = 32, .n_heads = 2, .n_vocab = 403};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        REQUIRE(geul_new_model_write(ctx, first.text, &o) == GEUL_OK);
        struct geul_new_model_options again = o;
        again.tokenizer = first.text;
        again.n_vocab = rows[i];
        REQUIRE(CHECK_MSG(geul_new_model_write(ctx, second.text, &again) == GEUL_OK, "%s", geul_error(ctx)));
        struct geul_model *model = geul_model_load(ctx, second.text, NULL);
        REQUIRE(model != NULL);
        CHECK_INT(geul_model_get_shape(model)->n_vocab, rows[i] ? rows[i] : 448);
        const struct geul_tokenizer *tok = geul_model_get_tokenizer(model);
        const int32_t *ends;
        CHECK(geul_tokenizer_size(tok) == 403 && geul_token_ends(tok, &ends) == 2 && ends[1] == 400);
        geul_model_free(model);
        o.n_vocab = rows[i] ? rows[i] : 448; /* the next time with as many rows in the first */
    }
    o.n_vocab = 402;
    CHECK_INT(geul_new_model_write(ctx, first.text, &o), GEUL_ERROR_ARGUMENT);
    o.tokenizer = second.text;
    CHECK_INT(geul_new_model_write(ctx, first.text, &o), GEUL_ERROR_ARGUMENT);
    CHECK_MSG(strstr(geul_error(ctx), "403 tokens; 402 rows are too few"), "%s", geul_error(ctx));
    geul_context_free(ctx);
}

/* ------------------------------------------------------------------------------- what is wrong -- */

/* Appends messages to a text. */
static void collect(void *user, enum geul_log_level level, const char *message)
{
    char *text = user;
    (void)level;
    snprintf(text + strlen(text), 4096 - strlen(text), "%s\n", message);
}

TEST(tokenizer_files_that_make_none_are_refused)
{
    static const struct {
        const char *file, *text, *message;
    } cases[] = {
        {"tokenizer.model", "\n\016", "but tokenizer.model, a SentencePiece model, which geul cannot read"},
        {"vocab.txt", "[PAD]\n", "but vocab.txt, a WordPiece vocabulary"},
        {"vocab.json", "{\"a\": 0}", "merges.txt is missing"},
        {"merges.txt", "a b\n", "vocab.json is missing"},
        {"tokenizer_config.json", "{\"tokenizer_class\": \"T5Tokenizer\"}", "(tokenizer_class T5Tokenizer)"},
        {"tokenizer.json", "{\"model\": {\"type\": \"Unigram\", \"vocab\": []}}", "model \"Unigram\" is not supported"},
    };
    struct geul_context *ctx = geul_context_new(NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[32];
        size_t n;
        snprintf(name, sizeof name, "dir%zu", i);
        struct test_kept dir = make_directory(ctx, name), gguf = test_keep(test_scratch("model.gguf"));
        char *config = test_slurp(full("config.json"), &n);
        spill(dir.text, "config.json", config, n);
        free(config);
        spill(dir.text, cases[i].file, cases[i].text, strlen(cases[i].text));
        CHECK_INT(geul_convert_hf(ctx, dir.text, gguf.text, NULL), GEUL_ERROR_UNSUPPORTED);
        CHECK_MSG(strstr(geul_error(ctx), cases[i].message), "%s: %s", cases[i].file, geul_error(ctx));
        CHECK(!geul_os_exists(gguf.text));
        struct geul_convert_options o = {.size = sizeof o, .no_tokenizer = true};
        CHECK_MSG(geul_convert_hf(ctx, dir.text, gguf.text, &o) == GEUL_OK, "%s", geul_error(ctx));
        remove(gguf.text);
    }
    geul_context_free(ctx);
}

/* tokenizers' add_tokens() passes over a token without a text, whichever file it stands in. */
TEST(tokenizer_files_pass_over_empty_tokens)
{
    static const struct {
        const char *file, *text;
    } cases[] = {
        {"tokenizer_config.json", "{\"added_tokens_decoder\": {\"400\": {\"content\": \"\"}}}"},
        {"added_tokens.json", "{\"\": 400}"},
        {"special_tokens_map.json", "{\"pad_token\": \"\", \"additional_special_tokens\": [\"\"]}"},
    };
    struct geul_context *ctx = geul_context_new(NULL);
    size_t n;
    char *tokenizer = test_slurp(full("tokenizer.json"), &n);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[32];
        snprintf(name, sizeof name, "dir%zu", i);
        struct test_kept dir = test_keep(test_scratch(name));
        REQUIRE(geul_os_make_directory(ctx, dir.text) == GEUL_OK);
        spill(dir.text, "tokenizer.json", tokenizer, n);
        struct geul_tokenizer *plain = geul_tokenizer_from_json(ctx, dir.text);
        spill(dir.text, cases[i].file, cases[i].text, strlen(cases[i].text));
        struct geul_tokenizer *tok = geul_tokenizer_from_json(ctx, dir.text);
        if (CHECK_MSG(plain && tok, "%s: %s", cases[i].file, geul_error(ctx)))
            CHECK_INT(geul_tokenizer_size(tok), geul_tokenizer_size(plain));
        geul_tokenizer_free(plain);
        geul_tokenizer_free(tok);
    }
    free(tokenizer);
    geul_context_free(ctx);
}

/* Added tokens without a row in the model are left out and named; a vocabulary beyond it is refused. */
TEST(tokenizer_files_know_the_rows_of_the_model)
{
    static const char more[] = "{\"tokenizer_class\": \"PreTrainedTokenizerFast\", \"pad_token\": \"<|pad|>\"}";
    char text[4096] = "";
    struct geul_context *ctx = geul_context_new(&(struct geul_context_options){.log = collect, .log_user = text});
    struct test_kept dir = test_keep(test_scratch("dir"));
    json_t *config = load("config.json");
    size_t n, count;
    int32_t *ids;
    char *tokenizer = test_slurp(full("tokenizer.json"), &n);
    REQUIRE(geul_os_make_directory(ctx, dir.text) == GEUL_OK);
    spill(dir.text, "tokenizer.json", tokenizer, n);
    spill(dir.text, "tokenizer_config.json", more, sizeof more - 1);
    json_object_set_new(config, "vocab_size", json_integer(403));
    spill_json(dir.text, "config.json", config);
    struct geul_tokenizer *tok = geul_tokenizer_from_json(ctx, dir.text);
    REQUIRE(tok != NULL);
    CHECK_INT(geul_tokenizer_size(tok), 403);
    CHECK(geul_tokenize(ctx, tok, "<|pad|>", 7, true, &ids, &count) == GEUL_OK && count > 1);
    CHECK_MSG(strstr(text, "beyond the 403 rows") && strstr(text, "<|pad|>"), "%s", text);
    geul_tokens_free(ctx, ids);
    geul_tokenizer_free(tok);
    free(tokenizer);
    json_decref(config);
    geul_context_free(ctx);
}
