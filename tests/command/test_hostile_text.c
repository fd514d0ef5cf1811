/* test_hostile_text.c: text out of files on its way to a terminal. Whatever a file holds, what the command prints about
 * it has no control character but newlines, and Hangul beside them stays whole. */
#include "core/context.h"
#include "core/gguf.h"
#include "tests/command/command_fixture.h"

#include <sys/stat.h>

/* What terminals act on: titles, colours, erased screens and lines, an 8-bit CSI, marks that turn the direction. */
static const char *const hostile[] = {
    "\033]0;title\007글", "\033[2J글",         "글\r\033[K",     "글\b\b\b",        "\177글",     "\xc2\x9b\x33\x31m글",
    "글\xc2\x85 line",    "\xe2\x80\xae글gpj", "\xe2\x81\xa6글", "\x9b\x33\x31m글", "글\xff\xfe", "글\v\f\a",
};
enum { N_HOSTILE = sizeof hostile / sizeof *hostile };

/* Checks that a terminal would only show the text, and that it was not left out. */
static void check_clean(const char *what, int i, const char *text, size_t n, bool shown)
{
    CHECK_MSG(fixture_is_utf8(text, n), "%s, text %d: not UTF-8", what, i);
    for (size_t at = 0, length; at < n; at += length) {
        length = text[at] == '\n' ? 1 : geul_printable_length(text + at, n - at);
        if (!CHECK_MSG(length > 0, "%s, text %d: byte %02x at %zu", what, i, (unsigned char)text[at], at))
            return;
    }
    CHECK_MSG(!shown || strstr(text, "글"), "%s, text %d: the Hangul is lost in: %s", what, i, text);
}

static void check_run(const char *what, int i, struct test_run r, int status)
{
    CHECK_MSG(r.status == status, "%s, text %d: exit code %d: %s", what, i, r.status, r.err);
    check_clean(what, i, r.out, r.out_length, status == 0);
    check_clean(what, i, r.err, r.err_length, status != 0);
    test_run_free(&r);
}

/* A copy of the model at in whose string key has another value; NULL after a failed check. */
static const char *with_key(const char *in, const char *key, const char *value)
{
    static char path[1024];
    snprintf(path, sizeof path, "%s", test_scratch("hostile.gguf"));
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_gguf *g = geul_gguf_open(ctx, in);
    struct geul_gguf_writer *w = g ? geul_gguf_writer_new(ctx, path) : NULL;
    for (int64_t i = 0; w && i < geul_gguf_key_count(g); i++)
        if (strcmp(geul_gguf_key_name(g, i), key) != 0)
            geul_gguf_copy_key(w, g, i);
    if (w)
        geul_gguf_set_string(w, key, value, strlen(value));
    for (int64_t i = 0; w && i < geul_gguf_tensor_count(g); i++) {
        const struct geul_gguf_tensor *t = geul_gguf_tensor_at(g, i);
        geul_gguf_declare_tensor(w, t->name, t->type, t->n_dims, t->shape);
    }
    for (int64_t i = 0; w && i < geul_gguf_tensor_count(g); i++)
        geul_gguf_write_data(w, geul_gguf_tensor_at(g, i)->data, geul_gguf_tensor_at(g, i)->bytes);
    bool ok = w && geul_gguf_writer_commit(w) == GEUL_OK;
    CHECK_MSG(ok, "no copy with key %s: %s", key, geul_error(ctx));
    geul_gguf_close(g);
    geul_context_free(ctx);
    return ok ? path : NULL;
}

TEST(hostile_text_in_keys_of_a_model)
{
    static const char *const keys[] = {"general.architecture", "geul.gelu", "gptneox.rope.scaling.type",
                                       "tokenizer.ggml.model"};
    const char *model = fixture_model();
    struct test_kept in = test_keep(model);
    for (int k = 0; k < (int)(sizeof keys / sizeof *keys); k++)
        for (int i = 0; i < N_HOSTILE; i++) {
            const char *path = with_key(in.text, keys[k], hostile[i]);
            REQUIRE(path != NULL);
            check_run(keys[k], i, GEUL("complete", "-m", path, "-p", "x", "-n", "1"), 1);
        }
}

TEST(hostile_text_shown_by_info)
{
    const char *model = fixture_model();
    struct test_kept in = test_keep(model);
    for (int i = 0; i < N_HOSTILE; i++) {
        const char *path = with_key(in.text, "general.name", hostile[i]);
        REQUIRE(path != NULL);
        check_run("info", i, GEUL("info", path), 0);
        check_run("info --json", i, GEUL("info", path, "--json"), 0);
        json_t *json = fixture_json(GEUL("info", path, "--json"));
        const char *name = json_string_value(json_object_get(json_object_get(json, "keys"), "general.name"));
        /* escaped, so a program still gets what the file holds; what is not UTF-8 becomes U+FFFD */
        if (fixture_is_utf8(hostile[i], strlen(hostile[i])))
            CHECK_STR(name ? name : "", hostile[i]);
        json_decref(json);
    }
}

TEST(hostile_text_in_names_and_configs)
{
    struct test_kept dir = test_keep(test_scratch("hf")), out = test_keep(test_scratch("o.gguf"));
    REQUIRE(mkdir(dir.text, 0700) == 0);
    for (int i = 0; i < N_HOSTILE; i++) {
        char config[2048], json[256], name[1200];
        size_t n = 0;
        for (const unsigned char *c = (const unsigned char *)hostile[i]; *c; c++)
            n += (size_t)snprintf(json + n, sizeof json - n, *c < 0x20 ? "\\u%04x" : "%c", *c);
        snprintf(config, sizeof config, "{\"architectures\": [\"GPTNeoXForCausalLM\"], \"model_type\": \"%s\"}", json);
        snprintf(name, sizeof name, "%s/config.json", dir.text);
        REQUIRE(test_spill(name, config, strlen(config)));
        if (fixture_is_utf8(hostile[i], strlen(hostile[i]))) /* JSON is; what is wrong otherwise is not the value */
            check_run("model_type", i, GEUL("convert", dir.text, "-o", out.text), 1);
        check_run("a missing file", i, GEUL("complete", "-m", hostile[i], "-p", "x"), 1);
        check_run("a wrong option", i, GEUL("quantize", "a", "b", hostile[i]), 2);
        check_run("a missing text", i, GEUL("complete", "-m", test_mini_model(), "-f", hostile[i]), 1);
    }
}

TEST(hostile_text_in_tokens)
{
    for (int i = 0; i < N_HOSTILE; i++)
        check_run("pieces", i, GEUL("tokenize", "-m", test_mini_model(), "-p", hostile[i], "--pieces", "--json"), 0);
}
