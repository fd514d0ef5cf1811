/* What Hugging Face's tokenizers make of the hard strings (tests/golden/tok), from tokenizer.json and through GGUF. */
#include "geul_tools.h"
#include "convert/tokenizer_json.h"
#include "tests/harness.h"

static const char *const names[] = {
    "tok/added",
    "tok/added_nfkc",
    "tok/bl_ignore_merges",
    "tok/bl_noregex",
    "tok/bl_old_merges",
    "tok/bl_prefix",
    "tok/bl_regex",
    "tok/byte_fallback",
    "tok/digits_prefix",
    "tok/digits_runs",
    "tok/nfc_split_gpt4",
    "tok/nfd",
    "tok/nfkc",
    "tok/nfkd",
    "tok/norm_sequence",
    "tok/split_contiguous",
    "tok/split_gpt2",
    "tok/split_inverted",
    "tok/split_previous",
    "tok/split_qwen2",
    "tok/split_removed",
    "tok/split_string_next",
    "tok/whitespace_digits",
};

static int hex_value(char c)
{
    return c >= 'a' ? c - 'a' + 10 : c - '0';
}

/* Bytes of lower-case hexadecimal up to the next tab or end of line; *p moves behind it. */
static size_t from_hex(const char **p, char *out)
{
    size_t n = 0;
    for (; **p && **p != '\t' && **p != '\n'; *p += 2)
        out[n++] = (char)(hex_value((*p)[0]) * 16 + hex_value((*p)[1]));
    if (**p)
        ++*p;
    return n;
}

/* What HF's decode makes of broken UTF-8. out holds 3 bytes per byte. */
static size_t lossy(const char *s, size_t n, char *out)
{
    struct geul_utf8_stream stream = {0};
    size_t made = geul_utf8_push(&stream, s, n, out);
    return made + geul_utf8_finish(&stream, out + made);
}

/* One line of a .tsv: text, ids, decoded text. */
static void check_line(struct geul_context *ctx, const struct geul_tokenizer *tok, const char *name, int line,
                       const char **p)
{
    static char text[8192], back[8192], got[32768];
    static int32_t want[8192];
    size_t n = from_hex(p, text), n_want = 0, n_got, n_text;
    for (char *end; **p != '\t'; *p = **p == ' ' ? end + 1 : end) {
        want[n_want++] = (int32_t)strtol(*p, &end, 10);
        *p = end;
    }
    ++*p;
    size_t n_back = from_hex(p, back);
    int32_t *ids;
    if (!CHECK_MSG(geul_tokenize(ctx, tok, text, n, true, &ids, &n_got) == GEUL_OK, "%s: %s", name, geul_error(ctx)))
        return;
    CHECK_MSG(n_got == n_want && memcmp(ids, want, n_want * sizeof *ids) == 0, "%s line %d: ids differ for \"%.*s\"",
              name, line, (int)n, text);
    char *decoded = geul_detokenize(ctx, tok, ids, n_got, false, &n_text);
    CHECK(decoded != NULL);
    n_got = lossy(decoded, n_text, got);
    CHECK_MSG(n_got == n_back && memcmp(got, back, n_back) == 0, "%s line %d: decoded \"%.*s\", expected \"%.*s\"",
              name, line, (int)n_got, got, (int)n_back, back);
    geul_text_free(ctx, decoded);
    geul_tokens_free(ctx, ids);
}

static void check_all(struct geul_context *ctx, const struct geul_tokenizer *tok, const char *name, const char *tsv)
{
    size_t size;
    char *lines = test_slurp(test_path(tsv), &size);
    if (!lines)
        return;
    int line = 0;
    for (const char *p = lines; *p;)
        check_line(ctx, tok, name, ++line, &p);
    CHECK_MSG(line > 100, "%s: only %d lines", name, line);
    free(lines);
}

/* tok as a GGUF file and back; padded to some rows more. */
static struct geul_tokenizer *through_gguf(struct geul_context *ctx, const struct geul_tokenizer *tok)
{
    const char *path = test_scratch("tokenizer.gguf");
    struct geul_gguf_writer *w = geul_gguf_writer_new(ctx, path);
    if (!CHECK(w != NULL))
        return NULL;
    geul_gguf_set_string(w, "general.architecture", "gptneox", 7);
    CHECK(geul_tokenizer_write_gguf(ctx, w, geul_tokenizer_get_spec(tok), geul_tokenizer_size(tok) + 45) == GEUL_OK);
    CHECK_MSG(geul_gguf_writer_commit(w) == GEUL_OK, "%s", geul_error(ctx));
    return geul_tokenizer_load(ctx, path, geul_regex_pcre2());
}

static void check_golden(const char *name, const char *json, const char *tsv)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_tokenizer *tok = geul_tokenizer_from_json(ctx, test_path(json));
    if (CHECK_MSG(tok != NULL, "%s: %s", json, geul_error(ctx))) {
        check_all(ctx, tok, name, tsv);
        struct geul_tokenizer *again = through_gguf(ctx, tok);
        if (CHECK_MSG(again != NULL, "%s: %s", json, geul_error(ctx))) {
            CHECK_INT(geul_tokenizer_size(again), geul_tokenizer_size(tok));
            CHECK_INT(geul_token_end(again), geul_token_end(tok));
            check_all(ctx, again, "through GGUF", tsv);
        }
        geul_tokenizer_free(again);
    }
    geul_tokenizer_free(tok);
    geul_context_free(ctx);
}

TEST(tokenizer_equals_hugging_face)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char json[64], tsv[64];
        snprintf(json, sizeof json, "golden/%s.json", names[i]);
        snprintf(tsv, sizeof tsv, "golden/%s.tsv", names[i]);
        check_golden(names[i], json, tsv);
    }
}

TEST(tokenizer_of_a_model_directory)
{
    check_golden("full", "golden/full/tokenizer.json", "golden/full/hard.tsv");
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_tokenizer *tok = geul_tokenizer_from_json(ctx, test_path("golden/full"));
    REQUIRE(tok != NULL);
    CHECK_INT(geul_token_end(tok), 2);
    CHECK_INT(geul_tokenizer_size(tok), 403);
    CHECK_INT(geul_token_find(tok, "<|acc|>", 7), 400);
    CHECK_INT(geul_token_find(tok, "nowhere to be found", 19), -1);
    CHECK(geul_token_is_special(tok, 2) && !geul_token_is_special(tok, 10) && !geul_token_is_special(tok, 403));
    size_t n;
    geul_token_text(tok, 403, &n);
    CHECK_INT(n, 0);
    geul_tokenizer_free(tok);
    geul_context_free(ctx);
}
