/* The tokenizer on anything: random bytes, broken UTF-8 in pieces, hostile files, short memory, endless words. */
#include "geul_tools.h"
#include "convert/tokenizer_json.h"
#include "tests/harness.h"
#include "tokenizer/bpe.h"
#include "tokenizer/normalize.h"
#include "tokenizer/unicode.h"

static struct geul_tokenizer *golden(struct geul_context *ctx, const char *name)
{
    struct geul_tokenizer *tok = geul_tokenizer_from_json(ctx, test_path(name));
    CHECK_MSG(tok != NULL, "%s: %s", name, geul_error(ctx));
    return tok;
}

/* --------------------------------------------------------------------------------- any bytes -- */

/* Bytes of several kinds in turn: all, ASCII, pieces of Korean, white space. */
static size_t random_text(uint64_t *state, char *out, size_t room)
{
    static const char *const pieces[] = {"안녕",          " ",        "\n",   "  ", "'s",       "12",
                                         "<|endoftext|>", "\xEA\xB0", "\xFF", "",   "가\u0301", "!?"};
    size_t n = 0, wanted = (size_t)(test_random(state) % room);
    int kind = (int)(test_random(state) % 3);
    while (n < wanted) {
        const char *piece = pieces[test_random(state) % 12];
        size_t length = strlen(piece);
        if (kind == 0 || length == 0 || n + length > wanted) {
            out[n++] = (char)test_random(state);
            continue;
        }
        memcpy(out + n, piece, length);
        n += length;
    }
    return n;
}

static void round_trip(const char *name)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_tokenizer *tok = golden(ctx, name);
    uint64_t state = 20240607;
    char text[300];
    for (int i = 0; tok && i < 2000; i++) {
        size_t n = random_text(&state, text, sizeof text), count, length;
        int32_t *ids;
        REQUIRE(geul_tokenize(ctx, tok, text, n, i % 2 == 0, &ids, &count) == GEUL_OK);
        char *back = geul_detokenize(ctx, tok, ids, count, false, &length);
        CHECK_MSG(back && length == n && memcmp(back, text, n) == 0, "%s: text %d of %zu bytes came back as %zu", name,
                  i, n, length);
        geul_text_free(ctx, back);
        geul_tokens_free(ctx, ids);
    }
    geul_tokenizer_free(tok);
    geul_context_free(ctx);
}

TEST(tokenizer_round_trip)
{
    round_trip("golden/tok/bl_regex.json");
    round_trip("golden/tok/bl_noregex.json");
    round_trip("golden/tok/bl_ignore_merges.json");
    round_trip("golden/tok/split_qwen2.json");
    round_trip("golden/tok/split_contiguous.json"); /* through PCRE2 */
    round_trip("golden/tok/split_previous.json");
    round_trip("golden/tok/split_string_next.json");
    round_trip("golden/tok/digits_runs.json");
}

/* Others lose something by design; they must only survive. */
TEST(tokenizer_survives_random_bytes)
{
    static const char *const names[] = {"added_nfkc",        "nfd",           "nfkd", "split_removed", "byte_fallback",
                                        "whitespace_digits", "nfc_split_gpt4"};
    struct geul_context *ctx = geul_context_new(NULL);
    uint64_t state = 7;
    char text[300], path[64];
    for (int t = 0; t < 7; t++) {
        snprintf(path, sizeof path, "golden/tok/%s.json", names[t]);
        struct geul_tokenizer *tok = golden(ctx, path);
        for (int i = 0; tok && i < 1000; i++) {
            size_t n = random_text(&state, text, sizeof text), count;
            int32_t *ids;
            REQUIRE(geul_tokenize(ctx, tok, text, n, true, &ids, &count) == GEUL_OK);
            geul_tokens_free(ctx, ids);
        }
        geul_tokenizer_free(tok);
    }
    geul_context_free(ctx);
}

TEST(tokenizer_special_tokens_as_text)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_tokenizer *tok = golden(ctx, "golden/tok/bl_regex.json");
    REQUIRE(tok != NULL);
    static const char text[] = "a<|endoftext|>b";
    int32_t *ids;
    size_t count, length;
    REQUIRE(geul_tokenize(ctx, tok, text, sizeof text - 1, true, &ids, &count) == GEUL_OK);
    CHECK_INT(count, 3);
    CHECK_INT(ids[1], 2);
    char *back = geul_detokenize(ctx, tok, ids, count, true, &length);
    CHECK_STR(back, "ab");
    geul_text_free(ctx, back);
    geul_tokens_free(ctx, ids);
    REQUIRE(geul_tokenize(ctx, tok, text, sizeof text - 1, false, &ids, &count) == GEUL_OK);
    CHECK(count > 3);
    for (size_t i = 0; i < count; i++)
        CHECK(!geul_token_is_special(tok, ids[i]));
    geul_tokens_free(ctx, ids);
    REQUIRE(geul_tokenize(ctx, tok, NULL, 0, true, &ids, &count) == GEUL_OK);
    CHECK_INT(count, 0);
    geul_tokens_free(ctx, ids);
    geul_tokenizer_free(tok);
    geul_context_free(ctx);
}

TEST(regex_engine_takes_any_bytes)
{
    const struct geul_regex_engine *engine = geul_regex_pcre2();
    char error[100], text[200];
    CHECK(engine->compile("(", 1, error, sizeof error) == NULL);
    CHECK(strlen(error) > 0);
    void *regex = engine->compile("\\s+|[^\\s\\w-]+|(?=x)", 20, error, sizeof error);
    REQUIRE(regex != NULL);
    uint64_t state = 3;
    for (int i = 0; i < 5000; i++) {
        size_t n = random_text(&state, text, sizeof text), from, to, start = n ? (size_t)(test_random(&state) % n) : 0;
        if (engine->match(regex, text, n, start, &from, &to))
            CHECK(from >= start && from <= to && to <= n);
    }
    engine->free(regex);
}

/* ----------------------------------------------------------------------------------- unicode -- */

TEST(utf8_stream_every_split)
{
    static const struct {
        const char *bytes, *want;
    } cases[] = {
        {"가나 abc 👍!", "가나 abc 👍!"},
        {"\xEA\xB0", "\uFFFD"},
        {"a\xFFz", "a\uFFFDz"},
        {"\xEA\xB0가", "\uFFFD가"},
        {"\xED\xA0\x80", "\uFFFD\uFFFD\uFFFD"},
        {"\xF0\x9F\x91"
         "b\xC3",
         "\uFFFD"
         "b\uFFFD"},
        {"\xC0\x80\xF5\xE0\x80", "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n = strlen(cases[i].bytes);
        for (size_t a = 0; a <= n; a++)
            for (size_t b = a; b <= n; b++) {
                struct geul_utf8_stream s = {0};
                char out[256];
                size_t made = geul_utf8_push(&s, cases[i].bytes, a, out);
                CHECK(geul_utf8_valid_end(out, out + made) == out + made);
                made += geul_utf8_push(&s, cases[i].bytes + a, b - a, out + made);
                made += geul_utf8_push(&s, cases[i].bytes + b, n - b, out + made);
                made += geul_utf8_finish(&s, out + made);
                out[made] = '\0';
                CHECK_STR(out, cases[i].want);
            }
    }
}

/* The fast path of normalization copies inert characters: each must be its own normal form and join nothing. */
TEST(normalization_fast_path_is_safe)
{
    struct geul_context *ctx = geul_context_new(NULL);
    for (int kind = GEUL_TOK_STEP_NFC; kind <= GEUL_TOK_STEP_NFKD; kind++) {
        struct geul_normal_step step = {.kind = (enum geul_tok_step_kind)kind};
        struct geul_bytes out = {0};
        char text[16];
        for (int32_t c = 0; c <= 0x1FFFF; c++) {
            if ((c >= 0xD800 && c < 0xE000) || !geul_normal_inert(step.kind, c))
                continue;
            /* behind an unassigned character, which goes the slow way */
            int n = geul_utf8_encode(0x378, text);
            n += geul_utf8_encode(c, text + n);
            out.length = 0;
            REQUIRE(geul_normalize(ctx, &step, text, (size_t)n, &out, NULL));
            CHECK_MSG(out.length == (size_t)n && memcmp(out.data, text, (size_t)n) == 0, "U+%04X", (unsigned)c);
        }
        geul_free(ctx, out.data);
    }
    geul_context_free(ctx);
}

TEST(normalization_of_many_marks)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_normal_step step = {.kind = GEUL_TOK_STEP_NFC};
    struct geul_bytes in = {0}, out = {0};
    for (int i = 0; i < 200000; i++) /* classes 230 and 220 in turn: sorting by exchange would take 10^10 steps */
        geul_bytes_add(ctx, &in, i % 2 ? "\u0316" : "\u0301", 2);
    REQUIRE(geul_normalize(ctx, &step, in.data, in.length, &out, NULL));
    CHECK_INT(out.length, in.length);
    CHECK(memcmp(out.data, "\u0316\u0316", 4) == 0 && memcmp(out.data + out.length - 4, "\u0301\u0301", 4) == 0);
    geul_free(ctx, in.data);
    geul_free(ctx, out.data);
    geul_context_free(ctx);
}

/* ----------------------------------------------------------------------------- hostile files -- */

#define MODEL(vocab, merges) "{\"model\":{\"type\":\"BPE\",\"vocab\":{" vocab "},\"merges\":[" merges "]}}"
#define STEP_OF(stage, step) "{\"" stage "\":" step ",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}"

static const struct {
    const char *json, *message;
} hostile[] = {
    {"", "tokenizer.json"},
    {"{", "tokenizer.json"},
    {"[]", "model"},
    {"{}", "no vocab"},
    {"{\"model\":{\"type\":\"Unigram\"}}", "Unigram"},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":[],\"merges\":[]}}", "no vocab"},
    {MODEL("", ""), "empty"},
    {MODEL("\"a\":0,\"a\":1", ""), NULL}, /* the last counts, as with HF */
    {MODEL("\"a\":0,\"b\":0", ""), "id 0"},
    {MODEL("\"a\":-1", ""), "id -1"},
    {MODEL("\"a\":1000000000", ""), "1000000000"},
    {MODEL("\"a\":\"x\"", ""), "id"},
    {MODEL("\"a\":0", "\"a b\""), "merge 0"},
    {MODEL("\"a\":0,\"b\":1", "\"a b\""), "result"},
    {MODEL("\"a\":0,\"b\":1,\"ab\":2", "\"a b\",\"ab c\""), "merge 1"},
    {MODEL("\"a\":0", "\"ab\""), "merge 0"},
    {MODEL("\"a\":0", "\"a b c\""), "merge 0"},
    {MODEL("\"a\":0", "[\"a\"]"), "merge 0"},
    {MODEL("\"a\":0", "7"), "merge 0"},
    {"{\"added_tokens\":[{\"id\":0,\"content\":\"x\"}],\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}", "two tokens"},
    {"{\"added_tokens\":[{\"id\":1,\"content\":\"a\"}],\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}", "same token"},
    {"{\"added_tokens\":[{\"id\":1}],\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}", "content"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"unk_token\":\"?\"}}", "unknown token"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"end_of_word_suffix\":\"</w>\"}}", "end_of_word_suffix"},
    {STEP_OF("normalizer", "{\"type\":\"BertNormalizer\"}"), "BertNormalizer"},
    {STEP_OF("pre_tokenizer", "{\"type\":\"Metaspace\"}"), "Metaspace"},
    {STEP_OF("decoder", "{\"type\":\"WordPiece\"}"), "WordPiece"},
    {STEP_OF("pre_tokenizer", "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"}}"), "compile"},
    {STEP_OF("pre_tokenizer", "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\"}}"), "empty pattern"},
    {STEP_OF("pre_tokenizer", "{\"type\":\"Split\",\"pattern\":{\"String\":\"x\"},\"behavior\":\"Eaten\"}"), "Eaten"},
    {STEP_OF("pre_tokenizer",
             "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":\"Digits\"}]}"),
     "after ByteLevel"},
    {STEP_OF("pre_tokenizer", "{\"type\":\"ByteLevel\"}"), NULL}, /* warned about, but as HF reads it */
    {"{\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"model\":{\"vocab\":{\"\xEA\xB0\x80\":0},\"merges\":[]}}",
     "byte-level"},
};

/* The lists of tables above: each is an error that names its reason (NULL: no error), with memory of the file's scale.
 */
TEST(tokenizer_hostile_json)
{
    for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
        struct geul_context *ctx = geul_context_new(NULL);
        const char *path = test_scratch("hostile.json");
        REQUIRE(test_spill(path, hostile[i].json, strlen(hostile[i].json)));
        struct geul_tokenizer *tok = geul_tokenizer_from_json(ctx, path);
        if (hostile[i].message)
            CHECK_MSG(!tok && strstr(geul_error(ctx), hostile[i].message), "case %zu: \"%s\" lacks \"%s\"", i,
                      geul_error(ctx), hostile[i].message);
        else
            CHECK_MSG(tok != NULL, "case %zu: %s", i, geul_error(ctx));
        geul_tokenizer_free(tok);
        geul_context_free(ctx);
    }
}

/* Steps that each turn one byte into 64: the text of one letter would become 64^6 bytes. Decoding steps likewise. */
TEST(tokenizer_steps_cannot_blow_a_text_up)
{
    char many[65], step[200], json[2048];
    memset(many, 'a', 64);
    many[64] = '\0';
    snprintf(step, sizeof step, "{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"%s\"}", many);
    for (int decoder = 0; decoder < 2; decoder++) {
        struct test_allocator a = {0};
        struct geul_context_options o = {.allocate = test_allocate, .allocate_user = &a};
        struct geul_context *ctx = geul_context_new(&o);
        struct geul_tokenizer_spec spec;
        geul_tokenizer_spec_init(&spec);
        int n = snprintf(json, sizeof json,
                         "{\"%s\":{\"type\":\"Sequence\",\"%s\":[%s,%s,%s,%s,%s,%s]},"
                         "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}",
                         decoder ? "decoder" : "normalizer", decoder ? "decoders" : "normalizers", step, step, step,
                         step, step, step);
        REQUIRE(n < (int)sizeof json);
        CHECK(geul_tokenizer_spec_from_json(ctx, json, (size_t)n, &spec) == GEUL_OK);
        struct geul_tokenizer *tok = geul_tokenizer_new(ctx, &spec, NULL);
        int32_t *ids = NULL;
        size_t count;
        if (CHECK_MSG((tok != NULL) == !decoder, "%s", geul_error(ctx)) && tok)
            CHECK_INT(geul_tokenize(ctx, tok, "a", 1, false, &ids, &count), GEUL_ERROR_FORMAT);
        CHECK_MSG(strstr(geul_error(ctx), "grow") != NULL, "%s", geul_error(ctx));
        geul_tokens_free(ctx, ids);
        geul_tokenizer_free(tok);
        geul_tokenizer_spec_free(ctx, &spec);
        geul_context_free(ctx);
    }
}

/* A decoding step that leaves a token as it is: the next one must not write over what it reads. */
TEST(tokenizer_decoder_step_that_does_nothing)
{
    static const char json[] = "{\"decoder\":{\"type\":\"Sequence\",\"decoders\":["
                               "{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"bb\"},"
                               "{\"type\":\"ByteLevel\"}," /* U+AC00 is not of its alphabet */
                               "{\"type\":\"Replace\",\"pattern\":{\"String\":\"b\"},\"content\":\"cc\"}]},"
                               "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\\uac00\":0},\"merges\":[]}}";
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_tokenizer_spec spec;
    geul_tokenizer_spec_init(&spec);
    REQUIRE(geul_tokenizer_spec_from_json(ctx, json, sizeof json - 1, &spec) == GEUL_OK);
    struct geul_tokenizer *tok = geul_tokenizer_new(ctx, &spec, NULL);
    REQUIRE(tok != NULL);
    size_t n;
    const char *text = geul_token_text(tok, 0, &n);
    CHECK_MSG(n == 7 && memcmp(text, "cccc가", 7) == 0, "\"%.*s\"", (int)n, text);
    geul_tokenizer_free(tok);
    geul_context_free(ctx);
}

TEST(tokenizer_json_truncated)
{
    struct geul_context *ctx = geul_context_new(NULL);
    size_t size;
    char *json = test_slurp(test_path("golden/tok/bl_regex.json"), &size);
    REQUIRE(json != NULL);
    for (size_t n = 0; n < size - 2; n += 97) {
        struct geul_tokenizer_spec spec;
        geul_error_clear(ctx);
        geul_tokenizer_spec_init(&spec);
        CHECK(geul_tokenizer_spec_from_json(ctx, json, n, &spec) != GEUL_OK);
        CHECK(strlen(geul_error(ctx)) > 0);
        geul_tokenizer_spec_free(ctx, &spec);
    }
    free(json);
    geul_context_free(ctx);
}

/* A GGUF file made by the calls of set; what loading it says. */
static void check_gguf(void (*set)(struct geul_gguf_writer *w), const char *message)
{
    struct geul_context *ctx = geul_context_new(NULL);
    const char *path = test_scratch("hostile.gguf");
    struct geul_gguf_writer *w = geul_gguf_writer_new(ctx, path);
    REQUIRE(w != NULL);
    geul_gguf_set_string(w, "general.architecture", "gptneox", 7);
    set(w);
    REQUIRE(geul_gguf_writer_commit(w) == GEUL_OK);
    struct geul_tokenizer *tok = geul_tokenizer_load(ctx, path, NULL);
    CHECK_MSG(!tok && strstr(geul_error(ctx), message), "\"%s\" lacks \"%s\"", geul_error(ctx), message);
    geul_tokenizer_free(tok);
    geul_context_free(ctx);
}

static void set_nothing(struct geul_gguf_writer *w)
{
    geul_gguf_set_u32(w, "x", 1);
}

static void set_json_only(struct geul_gguf_writer *w)
{
    geul_gguf_set_string(w, "tokenizer.huggingface.json", "{}", 2);
}

static void set_tokens(struct geul_gguf_writer *w, const char *pre, const char *merge)
{
    static const char *const tokens[] = {"a", "b", "ab"};
    static const size_t lengths[] = {1, 1, 2};
    size_t n = strlen(merge);
    geul_gguf_set_string(w, "tokenizer.ggml.pre", pre, strlen(pre));
    geul_gguf_set_strings(w, "tokenizer.ggml.tokens", tokens, lengths, 3);
    geul_gguf_set_strings(w, "tokenizer.ggml.merges", &merge, &n, 1);
}

static void set_unknown_pre(struct geul_gguf_writer *w)
{
    set_tokens(w, "klingon", "a b");
}

static void set_bad_merge(struct geul_gguf_writer *w)
{
    set_tokens(w, "gpt-2", "a c");
}

static void set_bad_types(struct geul_gguf_writer *w)
{
    set_tokens(w, "gpt-2", "a b");
    geul_gguf_set_i32s(w, "tokenizer.ggml.token_type", (const int32_t[]){1, 1}, 2);
}

static void set_other_model(struct geul_gguf_writer *w)
{
    set_tokens(w, "gpt-2", "a b");
    geul_gguf_set_string(w, "tokenizer.ggml.model", "llama", 5);
}

static void set_bad_added(struct geul_gguf_writer *w)
{
    set_tokens(w, "gpt-2", "a b");
    geul_gguf_set_strings(w, "geul.tokenizer.pre_tokenizer", (const char *const[]){"ByteLevel", "0", "1"},
                          (const size_t[]){9, 1, 1}, 3);
    geul_gguf_set_i32s(w, "geul.tokenizer.added_ids", (const int32_t[]){77}, 1);
    geul_gguf_set_i32s(w, "geul.tokenizer.added_flags", (const int32_t[]){1}, 1);
}

static void set_half_step(struct geul_gguf_writer *w)
{
    set_tokens(w, "gpt-2", "a b");
    geul_gguf_set_strings(w, "geul.tokenizer.pre_tokenizer", (const char *const[]){"Split", "regex"},
                          (const size_t[]){5, 5}, 2);
}

static void set_unknown_pattern(struct geul_gguf_writer *w)
{
    set_tokens(w, "gpt-2", "a b");
    geul_gguf_set_strings(w, "geul.tokenizer.pre_tokenizer",
                          (const char *const[]){"Split", "regex", "[ab]", "Isolated", "0"},
                          (const size_t[]){5, 5, 4, 8, 1}, 5);
}

TEST(tokenizer_hostile_gguf)
{
    check_gguf(set_nothing, "no tokenizer");
    check_gguf(set_json_only, "geul convert");
    check_gguf(set_unknown_pre, "klingon");
    check_gguf(set_bad_merge, "merge 0");
    check_gguf(set_bad_types, "differ in length");
    check_gguf(set_other_model, "llama");
    check_gguf(set_bad_added, "id 77");
    check_gguf(set_half_step, "incomplete");
    check_gguf(set_unknown_pattern, "regular expression engine");
}

/* A standard file as other programs write it: types say which tokens are special, .pre how to split. */
static void set_six_tokens(struct geul_gguf_writer *w)
{
    static const char *const tokens[] = {"a", "b", "ab", "\u0120", "<x>", "[PAD5]"};
    static const size_t lengths[] = {1, 1, 2, 2, 3, 6};
    static const char *const merges[] = {"a b"};
    geul_gguf_set_strings(w, "tokenizer.ggml.tokens", tokens, lengths, 6);
    geul_gguf_set_strings(w, "tokenizer.ggml.merges", merges, (const size_t[]){3}, 1);
    geul_gguf_set_i32s(w, "tokenizer.ggml.token_type", (const int32_t[]){1, 1, 1, 1, 3, 5}, 6);
}

static void set_standard(struct geul_gguf_writer *w)
{
    set_six_tokens(w);
    geul_gguf_set_u32(w, "tokenizer.ggml.eos_token_id", 4);
}

TEST(tokenizer_standard_gguf)
{
    struct geul_context *ctx = geul_context_new(NULL);
    const char *path = test_scratch("standard.gguf");
    struct geul_gguf_writer *w = geul_gguf_writer_new(ctx, path);
    REQUIRE(w != NULL);
    set_standard(w);
    REQUIRE(geul_gguf_writer_commit(w) == GEUL_OK);
    struct geul_tokenizer *tok = geul_tokenizer_load(ctx, path, NULL);
    REQUIRE(tok != NULL);
    int32_t *ids;
    size_t count;
    CHECK_INT(geul_tokenizer_size(tok), 5);
    CHECK_INT(geul_token_end(tok), 4);
    REQUIRE(geul_tokenize(ctx, tok, "ab ba<x>", 8, true, &ids, &count) == GEUL_OK);
    static const int32_t want[] = {2, 3, 1, 0, 4};
    CHECK(count == 5 && memcmp(ids, want, sizeof want) == 0);
    geul_tokens_free(ctx, ids);
    geul_tokenizer_free(tok);
    geul_context_free(ctx);
}

/* What begins and ends a text in a file of another program: the keys that it sets to an id, and the lists expected. */
static const struct borders {
    struct {
        const char *key;
        int id;
    } ids[4];
    int add_bos, add_eos; /* -1: no such key */
    const char *pre;
    int n_ends, ends[3], n_before, before, n_after, after;
} border_cases[] = {
    {{{"eos", 4}}, -1, -1, "gpt-2", 1, {4}, 0, 0, 0, 0},
    {{{"eos", 4}, {"eot", 2}, {"eom", 1}}, -1, -1, "gpt-2", 3, {4, 2, 1}, 0, 0, 0, 0},
    {{{"eos", 4}, {"eot", 4}}, 1, 1, "gpt-2", 1, {4}, 0, 0, 1, 4}, /* no start token to put */
    {{{"eom", 2}, {"bos", 3}}, 1, -1, "gpt-2", 1, {2}, 1, 3, 0, 0},
    {{{"eos", 4}, {"bos", 3}}, -1, -1, "llama-bpe", 1, {4}, 1, 3, 0, 0}, /* as llama.cpp without the key */
    {{{"eos", 4}, {"bos", 3}}, 0, 1, "llama-bpe", 1, {4}, 0, 0, 1, 4},
    {{{"eos", 77}, {"eot", 2}}, -1, 1, "gpt-2", 1, {2}, 0, 0, 1, 2},
    {{{"eos", 0}}, -1, -1, "gpt-2", 1, {0}, 0, 0, 0, 0},
    {{{"bos", 3}}, 0, 1, "gpt-2", 0, {0}, 0, 0, 0, 0},
};

static void check_borders(struct geul_context *ctx, const struct borders *b)
{
    const char *path = test_scratch("standard.gguf");
    struct geul_gguf_writer *w = geul_gguf_writer_new(ctx, path);
    REQUIRE(w != NULL);
    set_six_tokens(w);
    geul_gguf_set_string(w, "tokenizer.ggml.pre", b->pre, strlen(b->pre));
    for (size_t i = 0; i < 4 && b->ids[i].key; i++) {
        char key[64];
        snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", b->ids[i].key);
        geul_gguf_set_u32(w, key, (uint32_t)b->ids[i].id);
    }
    if (b->add_bos >= 0)
        geul_gguf_set_bool(w, "tokenizer.ggml.add_bos_token", b->add_bos);
    if (b->add_eos >= 0)
        geul_gguf_set_bool(w, "tokenizer.ggml.add_eos_token", b->add_eos);
    REQUIRE(geul_gguf_writer_commit(w) == GEUL_OK);
    struct geul_tokenizer *tok = geul_tokenizer_load(ctx, path, NULL);
    REQUIRE(tok != NULL);
    const int32_t *ends;
    int32_t *ids;
    size_t count;
    CHECK_INT(geul_token_ends(tok, &ends), b->n_ends);
    for (int i = 0; i < b->n_ends; i++)
        CHECK_INT(ends[i], b->ends[i]);
    CHECK_INT(geul_token_end(tok), b->n_ends ? b->ends[0] : -1);
    REQUIRE(geul_tokenize_whole(ctx, tok, "a", 1, true, false, &ids, &count) == GEUL_OK);
    CHECK_INT(count, 1 + b->n_before + b->n_after);
    CHECK(!b->n_before || ids[0] == b->before);
    CHECK(!b->n_after || ids[count - 1] == b->after);
    geul_tokens_free(ctx, ids);
    REQUIRE(geul_tokenize_whole(ctx, tok, "", 0, true, true, &ids, &count) == GEUL_OK);
    CHECK_INT(count, b->n_before);
    geul_tokens_free(ctx, ids);
    geul_tokenizer_free(tok);
}

TEST(tokenizer_gguf_begins_and_ends_texts)
{
    struct geul_context *ctx = geul_context_new(NULL);
    for (size_t i = 0; i < sizeof border_cases / sizeof *border_cases; i++)
        check_borders(ctx, &border_cases[i]);
    geul_context_free(ctx);
}

/* --------------------------------------------------------------------------- hostile patterns -- */

/* Patterns that stay under a limit per match but cost far too much in all, with texts of 20 KB of one character. The
 * first took 10 s, the fourth minutes. */
static const struct {
    const char *pattern;
    char of;
    bool fails;
} slow[] = {
    {"(?:a|a){17}b", 'a', true},
    {"(?:a?){14}a{14}b", 'a', true},
    {"(a|aa)+b", 'a', true},
    {"\\\\s*\\\\S*\\\\s*x", ' ', true},
    {"(?:a+)+x|\\\\s+", 'a', true},
    {"(?:a|a){17}b", 'b', false},
    {"\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+", ' ', false},
    {"\\\\p{L}+|\\\\s+", 'a', false},
};

TEST(tokenizer_patterns_have_a_budget)
{
    struct geul_context *ctx = geul_context_new(NULL);
    static char text[20001];
    for (size_t i = 0; i < sizeof slow / sizeof *slow; i++) {
        const char *path = test_scratch("slow.json");
        char json[900];
        int32_t *ids;
        size_t count;
        int n = snprintf(json, sizeof json,
                         "{\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", "
                         "\"pattern\": {\"Regex\": \"%s\"}, \"behavior\": \"Isolated\"}, {\"type\": \"ByteLevel\", "
                         "\"add_prefix_space\": false, \"use_regex\": false}]}, \"model\": {\"type\": \"BPE\", "
                         "\"vocab\": {\"a\": 0, \"b\": 1, \"x\": 2, \"\u0120\": 3}, \"merges\": []}}",
                         slow[i].pattern);
        REQUIRE(test_spill(path, json, (size_t)n));
        struct geul_tokenizer *tok = geul_tokenizer_from_json(ctx, path);
        REQUIRE(CHECK_MSG(tok != NULL, "%s: %s", slow[i].pattern, geul_error(ctx)));
        memset(text, slow[i].of, sizeof text - 1);
        for (int pass = 0; pass < 2; pass++) { /* the same answer every time */
            enum geul_status status = geul_tokenize(ctx, tok, text, sizeof text - 1, true, &ids, &count);
            CHECK_MSG((status != GEUL_OK) == slow[i].fails, "%s: %s", slow[i].pattern, geul_error(ctx));
            CHECK(!slow[i].fails || strstr(geul_error(ctx), "takes too long"));
            geul_tokens_free(ctx, ids);
        }
        geul_tokenizer_free(tok);
    }
    geul_context_free(ctx);
}

/* match_within finds what match finds, also where a word is longer than the stretch that it looks at first. */
TEST(tokenizer_patterns_within_a_budget_match_alike)
{
    static const char *const patterns[] = {
        "\\p{Hangul}+| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
        "(?<=a)b+|^\\s|x$|\\bab",
        "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
        "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}",
        "a*",
        "\\z|zz",
    };
    static const char *const pieces[] = {"a", "b", " ", "ab", "\n", "가", "나다", "1", "23", "é", "x", "!", "  ", "z"};
    const struct geul_regex_engine *engine = geul_regex_pcre2();
    uint64_t seed = 7;
    for (size_t p = 0; p < sizeof patterns / sizeof *patterns; p++) {
        char why[200];
        void *compiled = engine->compile(patterns[p], strlen(patterns[p]), why, sizeof why);
        REQUIRE(CHECK_MSG(compiled != NULL, "%s", why));
        for (int round = 0; round < 60; round++) {
            char text[6000];
            size_t n = 0, start = 0, a = 0, b = 0, c = 0, d = 0;
            while (n < sizeof text - 900 && test_random(&seed) % 100) {
                const char *piece = pieces[test_random(&seed) % (sizeof pieces / sizeof *pieces)];
                for (uint64_t k = test_random(&seed) % 20 ? 1 : test_random(&seed) % 250; k > 0;
                     k--, n += strlen(piece))
                    memcpy(text + n, piece, strlen(piece));
            }
            for (bool more = true; more && start <= n;) {
                uint64_t budget = 100000000, again = budget;
                more = engine->match(compiled, text, n, start, &a, &b);
                CHECK(engine->match_within(compiled, text, n, start, &c, &d, &budget) == more);
                CHECK(budget > 0);
                CHECK(engine->match_within(compiled, text, n, start, &c, &d, &again) == more && again == budget);
                CHECK_MSG(!more || (a == c && b == d), "%s from %zu: %zu..%zu, not %zu..%zu", patterns[p], start, c, d,
                          a, b);
                start = b > start ? b : start + 1;
                while (start < n && ((unsigned char)text[start] & 0xC0) == 0x80)
                    start++;
            }
        }
        engine->free(compiled);
    }
}

/* ------------------------------------------------------------------------------ short memory -- */

/* Loads, tokenizes and decodes; whether all of it worked. */
static bool whole_use(struct geul_context *ctx, const char *json)
{
    struct geul_tokenizer *tok = geul_tokenizer_from_json(ctx, json);
    char text[5000];
    memset(text, 'a', sizeof text);
    memcpy(text + 4000, "\u1112\u1161\u11ab <|endoftext|> ﬁx Norm 2024", 33);
    int32_t *ids = NULL;
    size_t count = 0, length;
    bool ok = tok && geul_tokenize(ctx, tok, text, sizeof text, true, &ids, &count) == GEUL_OK;
    char *back = ok ? geul_detokenize(ctx, tok, ids, count, false, &length) : NULL;
    geul_text_free(ctx, back);
    geul_tokens_free(ctx, ids);
    geul_tokenizer_free(tok);
    return back != NULL;
}

TEST(tokenizer_every_allocation_fails)
{
    char json[400];
    snprintf(json, sizeof json, "%s", test_path("golden/tok/added_nfkc.json"));
    struct test_shortage s = {.most = 100000};
    while (test_shortage_next(&s))
        s.ok = whole_use(s.ctx, json);
    CHECK_MSG(s.n > 30, "%ld allocations", s.n);
}

/* The same for the way through GGUF, writing included. */
TEST(tokenizer_gguf_every_allocation_fails)
{
    char json[400], path[400];
    snprintf(json, sizeof json, "%s", test_path("golden/tok/nfc_split_gpt4.json"));
    snprintf(path, sizeof path, "%s", test_scratch("out.gguf"));
    struct geul_context *plain = geul_context_new(NULL);
    struct geul_tokenizer *tok = geul_tokenizer_from_json(plain, json);
    struct test_shortage s = {.most = 100000};
    while (test_shortage_next(&s)) {
        struct geul_tokenizer *again = NULL;
        struct geul_gguf_writer *w = geul_gguf_writer_new(s.ctx, path);
        if (w && geul_tokenizer_write_gguf(s.ctx, w, geul_tokenizer_get_spec(tok), 500) != GEUL_OK)
            geul_gguf_writer_abandon(w);
        else if (w && geul_gguf_writer_commit(w) == GEUL_OK)
            again = geul_tokenizer_load(s.ctx, path, NULL);
        s.ok = again != NULL;
        geul_tokenizer_free(again);
    }
    CHECK_MSG(s.n > 30, "%ld allocations", s.n);
    geul_tokenizer_free(tok);
    geul_context_free(plain);
}

/* ----------------------------------------------------------------------------- endless words -- */

/* Merging n random symbols: the steps taken must grow like n log n. */
TEST(bpe_long_words_are_not_quadratic)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_pair_table merges;
    REQUIRE(geul_pair_table_init(ctx, &merges, 64));
    for (uint32_t i = 0; i < 20; i++) /* symbol 0 doubles: 00 -> 1, 11 -> 2 ... */
        geul_pair_table_set(&merges, (struct geul_pair){i, i, i, i + 1});
    uint64_t work[2] = {0, 0};
    static const size_t sizes[2] = {1 << 14, 1 << 20};
    for (int i = 0; i < 2; i++) {
        uint32_t *ids = geul_alloc(ctx, sizes[i], sizeof *ids);
        REQUIRE(ids != NULL);
        ptrdiff_t n = geul_bpe_merge(ctx, &merges, ids, sizes[i], &work[i]);
        CHECK_INT(n, 1);
        CHECK_INT(ids[0], i ? 20 : 14);
        geul_free(ctx, ids);
    }
    CHECK_MSG(work[1] < 64 * 2 * work[0], "%llu steps for 2^20 symbols, %llu for 2^14", (unsigned long long)work[1],
              (unsigned long long)work[0]);
    geul_free(ctx, merges.slots);
    geul_context_free(ctx);
}

/* Short and long words are merged by different code: both must find the same. */
TEST(bpe_heap_equals_scan)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_pair_table merges;
    REQUIRE(geul_pair_table_init(ctx, &merges, 400));
    uint64_t state = 99;
    for (uint32_t i = 0; i < 60; i++)
        geul_pair_table_set(&merges, (struct geul_pair){(uint32_t)(test_random(&state) % (4 + i / 4)),
                                                        (uint32_t)(test_random(&state) % (4 + i / 4)), i, 4 + i});
    for (int t = 0; t < 300; t++) {
        uint32_t a[2 * GEUL_BPE_SHORT], b[GEUL_BPE_SHORT];
        size_t n = (size_t)(test_random(&state) % GEUL_BPE_SHORT) + 1;
        for (size_t i = 0; i < n; i++)
            a[i] = b[i] = (uint32_t)(test_random(&state) % 4);
        for (size_t i = n; i < 2 * GEUL_BPE_SHORT; i++)
            a[i] = 1000; /* joins nothing; makes the word long */
        ptrdiff_t m = geul_bpe_merge(ctx, &merges, b, n, NULL);
        geul_bpe_merge(ctx, &merges, a, 2 * GEUL_BPE_SHORT, NULL);
        CHECK(m > 0 && memcmp(a, b, (size_t)m * sizeof *a) == 0 && a[m] == 1000);
    }
    geul_free(ctx, merges.slots);
    geul_context_free(ctx);
}

TEST(tokenizer_one_word_of_a_megabyte)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_tokenizer *tok = golden(ctx, "golden/tok/bl_regex.json");
    size_t n = 3 * 350000, count, length;
    char *text = malloc(n);
    REQUIRE(tok != NULL && text != NULL);
    for (size_t i = 0; i < n; i += 3)
        memcpy(text + i, i % 2 ? "안" : "다", 3);
    int32_t *ids;
    REQUIRE(geul_tokenize(ctx, tok, text, n, true, &ids, &count) == GEUL_OK);
    char *back = geul_detokenize(ctx, tok, ids, count, false, &length);
    CHECK(back && length == n && memcmp(back, text, n) == 0);
    geul_text_free(ctx, back);
    geul_tokens_free(ctx, ids);
    free(text);
    geul_tokenizer_free(tok);
    geul_context_free(ctx);
}
