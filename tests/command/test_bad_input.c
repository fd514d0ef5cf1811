/* test_bad_input.c: damaged and hostile files given to the command: each is refused with one line on stderr, nothing on
 * stdout, exit code 1, no output file, and for a small file little memory. */
#include "core/gguf.h"
#include "tests/command/command_fixture.h"
#include "tests/hostile.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SMALL_FILE = 1024, SPARE_KB = 16 << 10 };

/* --------------------------------------------------------------------------------- the check -- */

/* Peak memory of a command that opens nothing. */
static long idle_kb(void)
{
    static long kb;
    if (!kb) {
        struct test_run r = GEUL("--version");
        kb = r.peak_rss_kb;
        test_run_free(&r);
    }
    return kb;
}

/* Runs the command and checks how it fails; holds is part of its message. small: the input is under 1 KB, and so must
 * be what it costs. */
static void refuses(const char *what, const char *const *argv, const char *holds, bool small)
{
    struct test_run r = test_geul(argv, NULL, 0);
    char begins[32];
    snprintf(begins, sizeof begins, "geul %s: ", argv[0]);
    const char *newline = strchr(r.err, '\n');
    CHECK_MSG(r.status == 1, "%s, %s: exit code %d", argv[0], what, r.status);
    CHECK_MSG(r.out_length == 0, "%s, %s: stdout holds %s", argv[0], what, r.out);
    CHECK_MSG(newline && newline[1] == '\0', "%s, %s: stderr is not one line: %s", argv[0], what, r.err);
    CHECK_MSG(strncmp(r.err, begins, strlen(begins)) == 0, "%s, %s: stderr is %s", argv[0], what, r.err);
    CHECK_MSG(strlen(r.err) < 700, "%s, %s: %zu bytes of message", argv[0], what, strlen(r.err));
    CHECK_MSG(fixture_is_utf8(r.err, r.err_length), "%s, %s: the message is not UTF-8", argv[0], what);
    CHECK_MSG(strstr(r.err, holds), "%s, %s: \"%s\" is not in: %s", argv[0], what, holds, r.err);
    if (small && !test_sanitized())
        CHECK_MSG(r.peak_rss_kb < idle_kb() + SPARE_KB, "%s, %s: %ld KB, %ld KB without a file", argv[0], what,
                  r.peak_rss_kb, idle_kb());
    test_run_free(&r);
}
#define REFUSES(what, holds, small, ...) refuses(what, (const char *const[]){__VA_ARGS__, NULL}, holds, small)

/* Checks that the directory is empty. */
static void check_empty(const char *dir, const char *what)
{
    DIR *d = opendir(dir);
    REQUIRE(d != NULL);
    for (struct dirent *e; (e = readdir(d));)
        CHECK_MSG(e->d_name[0] == '.' && strlen(e->d_name) <= 2, "%s: %s was left behind", what, e->d_name);
    closedir(d);
}

/* Makes a directory in the scratch directory; returns path. */
static const char *make_directory(char *path, size_t size, const char *name)
{
    snprintf(path, size, "%s", test_scratch(name));
    CHECK_MSG(mkdir(path, 0700) == 0, "cannot make %s", path);
    return path;
}

/* -------------------------------------------------------------------------------- GGUF files -- */

/* Every subcommand that opens a model refuses the file. info shows files that are intact but not a model. */
static void all_refuse(const char *what, const char *path, const char *holds, bool small, bool broken_file)
{
    char out[1024], file[1100], dir[1100];
    char name[64];
    static int count;
    snprintf(name, sizeof name, "out%d", count++);
    make_directory(out, sizeof out, name);
    snprintf(file, sizeof file, "%s/logits.npy", out);
    snprintf(dir, sizeof dir, "%s/hf", out);
    REFUSES(what, holds, small, "complete", "-m", path, "-p", "x", "-n", "1");
    REFUSES(what, holds, small, "chat", "-m", path);
    REFUSES(what, holds, small, "bench", "-m", path, "-p", "1", "-n", "1", "-r", "1");
    REFUSES(what, holds, small, "logits", "-m", path, "--ids", "1", "-o", file);
    REFUSES(what, holds, small, "export", path, dir);
    if (broken_file) {
        REFUSES(what, holds, small, "info", path);
        REFUSES(what, holds, small, "tokenize", "-m", path, "-p", "x");
    }
    check_empty(out, what);
}

static void put_head(struct bytes *b, uint64_t n_tensors, uint64_t n_keys)
{
    bytes_text(b, "GGUF");
    bytes_number(b, 3, 4);
    bytes_number(b, n_tensors, 8);
    bytes_number(b, n_keys, 8);
}

static void put_name(struct bytes *b, const char *name)
{
    bytes_number(b, strlen(name), 8);
    bytes_text(b, name);
}

/* A tensor of inner x 1 elements. */
static void put_tensor(struct bytes *b, const char *name, uint64_t inner, uint32_t type, uint64_t offset)
{
    put_name(b, name);
    bytes_number(b, 1, 4);
    bytes_number(b, inner, 8);
    bytes_number(b, type, 4);
    bytes_number(b, offset, 8);
}

/* The header of a file in which value is n_tensors, n_keys, the alignment, a type, a length, ... as kind says. */
static void build_small(struct bytes *b, char kind, uint64_t value)
{
    if (kind == 't' || kind == 'k') {
        put_head(b, kind == 't' ? value : 0, kind == 'k' ? value : 0);
    } else if (kind == 'a' || kind == 'v') {
        put_head(b, 0, 1);
        put_name(b, kind == 'a' ? "general.alignment" : "key");
        bytes_number(b, kind == 'a' ? GEUL_GGUF_U32 : value, 4);
        bytes_number(b, kind == 'a' ? value : 0, 4);
    } else if (kind == 's' || kind == 'n') {
        put_head(b, 0, 1);
        put_name(b, "key");
        bytes_number(b, kind == 's' ? GEUL_GGUF_STRING : GEUL_GGUF_ARRAY, 4);
        if (kind == 'n')
            bytes_number(b, GEUL_GGUF_STRING, 4);
        bytes_number(b, value, 8);
    } else { /* one tensor or two */
        put_head(b, kind == 'o' ? 2 : 1, 0);
        put_tensor(b, "one", kind == 'd' ? value : 32, kind == 'y' ? (uint32_t)value : 0, kind == 'p' ? value : 0);
        if (kind == 'o')
            put_tensor(b, "two", 32, 0, value);
    }
    bytes_zeros(b, 256);
}

static const struct {
    const char *what, *holds;
    char kind;
    uint64_t value;
} small_files[] = {
    {"2^63 tensors", "9223372036854775808 tensors", 't', UINT64_C(1) << 63},
    {"2^63 - 1 tensors", "9223372036854775807 tensors", 't', INT64_MAX},
    {"2^63 keys", "9223372036854775808 keys", 'k', UINT64_C(1) << 63},
    {"2^63 - 1 keys", "9223372036854775807 keys", 'k', INT64_MAX},
    {"alignment 0", "alignment is 0", 'a', 0},
    {"alignment 2^31", "alignment is 2147483648", 'a', UINT32_C(1) << 31},
    {"unknown key type", "unknown type 13", 'v', 13},
    {"string of 2^63 bytes", "9223372036854775808 bytes", 's', UINT64_C(1) << 63},
    {"array of 2^61 strings", "2305843009213693952 elements", 'n', UINT64_C(1) << 61},
    {"dimension 2^62", "one", 'd', UINT64_C(1) << 62},
    {"dimension 0", "one", 'd', 0},
    {"tensor type 4711", "number 4711", 'y', 4711},
    {"tensor type iq3_s", "iq3_s", 'y', 21},
    {"tensor type q6_k for short rows", "q6_k: rows of 32, blocks of 256", 'y', 14},
    {"tensor beyond the end", "one", 'p', UINT64_C(1) << 40},
    {"overlapping tensors", "overlap", 'o', 64},
    {"no model", "general.architecture", 'p', 0},
};

TEST(bad_input_small_gguf)
{
    for (size_t i = 0; i < sizeof small_files / sizeof *small_files; i++) {
        struct bytes b = {0};
        build_small(&b, small_files[i].kind, small_files[i].value);
        const char *path = test_scratch("small.gguf");
        CHECK(b.size < SMALL_FILE && test_spill(path, b.data, b.size));
        bool whole = strcmp(small_files[i].what, "no model") == 0;
        char copy[1024];
        snprintf(copy, sizeof copy, "%s", path);
        all_refuse(small_files[i].what, copy, small_files[i].holds, true, !whole);
        bytes_free(&b);
    }
}

TEST(bad_input_truncated_gguf)
{
    enum { PLACES = 20 };
    const char *model = fixture_model();
    REQUIRE(model);
    size_t size;
    char *whole = test_slurp(model, &size), path[1024], out[1024];
    REQUIRE(whole);
    snprintf(path, sizeof path, "%s", test_scratch("cut.gguf"));
    snprintf(out, sizeof out, "%s", test_scratch("hf"));
    for (size_t i = 0; i < PLACES; i++) {
        size_t n = i < 8 ? (size_t)3 << i : size / PLACES * i; /* half of them within the first few hundred bytes */
        char what[32];
        snprintf(what, sizeof what, "%zu bytes", n);
        test_spill(path, whole, n);
        REFUSES(what, path, n < SMALL_FILE, "complete", "-m", path, "-p", "x", "-n", "1");
        REFUSES(what, path, n < SMALL_FILE, i % 2 ? "info" : "bench", "-m", path);
        REFUSES(what, path, n < SMALL_FILE, "tokenize", "-m", path, "-p", "x");
        REFUSES(what, path, n < SMALL_FILE, "export", path, out);
    }
    free(whole);
}

/* ----------------------------------------------------------------- whole files, wrong models -- */

/* A change of a model: the key is left out, or gets a number or two strings; or the tensor gets another shape. */
struct change {
    const char *what, *holds;
    const char *key;
    int64_t number;               /* when there is no text */
    const char *text, *more_text; /* a string; with more_text an array of both */
    const char *tensor;           /* gets one dimension of 32, or is left out when number is < 0 */
};

/* Writes key's new value. */
static void put_change(struct geul_gguf_writer *w, const struct change *c)
{
    const char *both[2] = {c->text, c->more_text};
    size_t lengths[2] = {c->text ? strlen(c->text) : 0, c->more_text ? strlen(c->more_text) : 0};
    if (c->more_text)
        geul_gguf_set_strings(w, c->key, both, lengths, 2);
    else if (c->text)
        geul_gguf_set_string(w, c->key, c->text, lengths[0]);
    else if (c->number >= 0)
        geul_gguf_set_u64(w, c->key, (uint64_t)c->number);
}

/* Writes the model again with the change. */
static bool write_changed(const char *from, const char *to, const struct change *c)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_gguf *g = geul_gguf_open(ctx, from);
    struct geul_gguf_writer *w = g ? geul_gguf_writer_new(ctx, to) : NULL;
    for (int64_t i = 0; w && i < geul_gguf_key_count(g); i++)
        if (strcmp(geul_gguf_key_name(g, i), c->key ? c->key : "") != 0)
            geul_gguf_copy_key(w, g, i);
    if (w && c->key)
        put_change(w, c);
    for (int pass = 0; w && pass < 2; pass++)
        for (int64_t i = 0; i < geul_gguf_tensor_count(g); i++) {
            const struct geul_gguf_tensor *t = geul_gguf_tensor_at(g, i);
            bool changed = c->tensor && strcmp(t->name, c->tensor) == 0;
            if (changed && c->number < 0)
                continue;
            if (pass == 0)
                geul_gguf_declare_tensor(w, t->name, t->type, changed ? 1 : t->n_dims,
                                         changed ? (const int64_t[]){31} : t->shape);
            else
                geul_gguf_write_data(w, t->data, changed ? 31 * sizeof(float) : t->bytes);
        }
    bool ok = w && geul_gguf_writer_commit(w) == GEUL_OK;
    CHECK_MSG(ok, "cannot write %s: %s", to, geul_error(ctx));
    geul_gguf_close(g);
    geul_context_free(ctx);
    return ok;
}

static const struct change changes[] = {
    {"another architecture", "gptneox", "general.architecture", 0, "llama", NULL, NULL},
    {"no width", "gptneox.embedding_length", "gptneox.embedding_length", -1, NULL, NULL, NULL},
    {"width 0", "embedding_length", "gptneox.embedding_length", 0, NULL, NULL, NULL},
    {"width 64", "token_embd.weight", "gptneox.embedding_length", 64, NULL, NULL, NULL},
    {"width 2^40", "embedding_length", "gptneox.embedding_length", INT64_C(1) << 40, NULL, NULL, NULL},
    {"width as text", "embedding_length", "gptneox.embedding_length", 0, "32", NULL, NULL},
    {"2^32 layers", "block_count", "gptneox.block_count", INT64_C(1) << 32, NULL, NULL, NULL},
    {"a million layers", "1000000", "gptneox.block_count", 1000000, NULL, NULL, NULL},
    {"3 layers of 2", "blk.2", "gptneox.block_count", 3, NULL, NULL, NULL},
    {"no heads", "head_count", "gptneox.attention.head_count", 0, NULL, NULL, NULL},
    {"7 heads", "7 heads", "gptneox.attention.head_count", 7, NULL, NULL, NULL},
    {"context 2^62", "context_length", "gptneox.context_length", INT64_C(1) << 62, NULL, NULL, NULL},
    {"rotary dims", "1000 rotary dimensions", "gptneox.rope.dimension_count", 1000, NULL, NULL, NULL},
    {"embedding of one dimension", "token_embd.weight", NULL, 0, NULL, NULL, "token_embd.weight"},
    {"norm of 31", "blk.1.attn_norm.weight", NULL, 0, NULL, NULL, "blk.1.attn_norm.weight"},
    {"missing tensor", "output_norm.bias", NULL, -1, NULL, NULL, "output_norm.bias"},
};

TEST(bad_input_wrong_models)
{
    const char *model = fixture_model();
    REQUIRE(model);
    char path[1024];
    snprintf(path, sizeof path, "%s", test_scratch("changed.gguf"));
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++)
        if (write_changed(model, path, &changes[i]))
            all_refuse(changes[i].what, path, changes[i].holds, false, false);
}

TEST(bad_input_tokenizer_in_gguf)
{
    static const struct change wrong[] = {
        {"merge that names no token", "merge", "tokenizer.ggml.merges", 0, "no-such token", "at all", NULL},
        {"merge of one word", "merge", "tokenizer.ggml.merges", 0, "one", "two", NULL},
        {"merges as a number", "merges", "tokenizer.ggml.merges", 7, NULL, NULL, NULL},
        {"tokens as a number", "tokens", "tokenizer.ggml.tokens", 7, NULL, NULL, NULL},
        {"two tokens", "token", "tokenizer.ggml.tokens", 0, "a", "b", NULL},
        {"unknown tokenizer", "tokenizer.ggml.model", "tokenizer.ggml.model", 0, "rwkv", NULL, NULL},
    };
    const char *model = fixture_model();
    REQUIRE(model);
    char path[1024];
    snprintf(path, sizeof path, "%s", test_scratch("changed.gguf"));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        if (!write_changed(model, path, &wrong[i]))
            continue;
        REFUSES(wrong[i].what, wrong[i].holds, false, "tokenize", "-m", path, "-p", "x");
        REFUSES(wrong[i].what, wrong[i].holds, false, "complete", "-m", path, "-p", "x", "-n", "1");
        REFUSES(wrong[i].what, wrong[i].holds, false, "chat", "-m", path);
    }
}

TEST(bad_input_split_gguf)
{
    static const struct change first = {.key = "split.count", .number = 2};
    const char *model = fixture_model();
    REQUIRE(model);
    char path[1024], other[1024];
    snprintf(path, sizeof path, "%s", test_scratch("m-00001-of-00002.gguf"));
    snprintf(other, sizeof other, "%s", test_scratch("renamed.gguf"));
    REQUIRE(write_changed(model, path, &first) && write_changed(model, other, &first));
    all_refuse("missing part", path, "m-00002-of-00002.gguf", false, true);
    all_refuse("renamed part", other, "keep the parts' names", false, true);
    static const struct change many = {.key = "split.count", .number = INT64_MAX};
    REQUIRE(write_changed(model, other, &many));
    all_refuse("2^63 - 1 parts", other, "part 1 of 9223372036854775807", false, true);
}

/* ------------------------------------------------------------------ Hugging Face directories -- */

/* A scratch directory with the files of a golden; returns path. */
static const char *copy_golden(const char *golden, char *path, size_t size)
{
    static const char *const files[] = {"config.json", "tokenizer.json", "model.safetensors"};
    char from[1200], to[1200];
    make_directory(path, size, golden);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char relative[128];
        size_t n;
        snprintf(relative, sizeof relative, "golden/%s/%s", golden, files[i]);
        snprintf(from, sizeof from, "%s", test_path(relative));
        snprintf(to, sizeof to, "%s/%s", path, files[i]);
        if (access(from, R_OK) != 0)
            continue;
        char *data = test_slurp(from, &n);
        test_spill(to, data, n);
        free(data);
    }
    return path;
}

/* Puts the text into dir/file and checks that convert refuses the directory and leaves nothing. */
static void convert_refuses(const char *what, const char *dir, const char *file, const void *data, size_t size,
                            const char *holds, bool small)
{
    char path[1200], out[1024], gguf[1100], name[32];
    static int count;
    snprintf(path, sizeof path, "%s/%s", dir, file);
    snprintf(name, sizeof name, "convert%d", count++);
    make_directory(out, sizeof out, name);
    snprintf(gguf, sizeof gguf, "%s/out.gguf", out);
    test_spill(path, data, size);
    REFUSES(what, holds, small, "convert", dir, "-o", gguf);
    check_empty(out, what);
}

TEST(bad_input_config_json)
{
    static const struct {
        const char *what, *text, *holds;
    } configs[] = {
        {"empty", "", "config.json"},
        {"not JSON", "hidden_size: 32\n", "not valid JSON"},
        {"half of it", "{\"hidden_size\": 32, ", "not valid JSON"},
        {"a list", "[1, 2]", "not an object"},
        {"broken UTF-8", "{\"model_type\": \"\xff\xfe\"}", "not valid JSON"},
        {"another model", "{\"model_type\": \"llama\", \"hidden_size\": 32}", "llama"},
        {"nothing in it", "{}", "config.json"},
        {"NaN", "{\"model_type\": \"gpt_neox\", \"num_hidden_layers\": NaN}", "\"num_hidden_layers\" is NaN"},
        {"number beyond double", "{\"model_type\": \"gpt_neox\", \"num_hidden_layers\": 1e999}",
         "\"num_hidden_layers\" is a number beyond double"},
        {"number beyond 64 bits", "{\"model_type\": \"gpt_neox\", \"num_hidden_layers\": 99999999999999999999}",
         "\"num_hidden_layers\" must be a whole number"},
        {"width 2^62", "{\"model_type\": \"gpt_neox\", \"num_hidden_layers\": 2, \"hidden_size\": 4611686018427387904}",
         "hidden_size"},
        {"negative width", "{\"model_type\": \"gpt_neox\", \"num_hidden_layers\": 2, \"hidden_size\": -1}",
         "hidden_size"},
        {"width as text", "{\"model_type\": \"gpt_neox\", \"num_hidden_layers\": 2, \"hidden_size\": \"32\"}",
         "hidden_size"},
        {"no heads",
         "{\"model_type\": \"gpt_neox\", \"hidden_size\": 32, \"num_hidden_layers\": 2, \"intermediate_size\": 64, "
         "\"vocab_size\": 96, \"max_position_embeddings\": 64, \"num_attention_heads\": 0}",
         "num_attention_heads"},
    };
    char dir[1024], config[1100], synth[1200], out[1024];
    copy_golden("parallel", dir, sizeof dir);
    snprintf(config, sizeof config, "%s/config.json", dir);
    snprintf(synth, sizeof synth, "%s:f32", config);
    snprintf(out, sizeof out, "%s", test_scratch("random.gguf"));
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        convert_refuses(configs[i].what, dir, "config.json", configs[i].text, strlen(configs[i].text), configs[i].holds,
                        true);
        REFUSES(configs[i].what, "config.json", true, "synth", synth, "-o", out);
    }
    enum { DEEP = 1000000 };
    char *deep = malloc(DEEP);
    memset(deep, '[', DEEP);
    convert_refuses("1000 brackets", dir, "config.json", deep, 1000, "not valid JSON", true);
    convert_refuses("a million brackets", dir, "config.json", deep, DEEP, "not valid JSON", true);
    free(deep);
    CHECK(access(out, F_OK) != 0);
}

TEST(bad_input_tokenizer_json)
{
    static const struct {
        const char *what, *text, *holds;
    } tokenizers[] = {
        {"empty", "", "tokenizer.json"},
        {"not JSON", "tokens", "tokenizer.json"},
        {"no model", "{}", "tokenizer.json"},
        {"another kind", "{\"model\": {\"type\": \"WordPiece\", \"vocab\": {\"a\": 0}}}", "WordPiece"},
        {"merge that names no token",
         "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"<|endoftext|>\": 2, \"a\": 3, \"b\": 1, \"ab\": 0}, "
         "\"merges\": [\"a c\"]}}",
         "merge"},
        {"merge whose result is no token",
         "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"<|endoftext|>\": 2, \"a\": 3, \"b\": 1}, \"merges\": [[\"a\", "
         "\"b\"]]}}",
         "merge"},
        {"merge as a number", "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [7]}}", "merge"},
        {"id 2^40", "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 1099511627776}, \"merges\": []}}", "id"},
        {"negative id", "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": -1}, \"merges\": []}}", "id"},
        {"pattern that does not compile",
         "{\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"((((((((\"}, \"behavior\": "
         "\"Isolated\"}, \"model\": {\"type\": \"BPE\", \"vocab\": {\"<|endoftext|>\": 0}, \"merges\": []}}",
         "((("},
    };
    char dir[1024];
    copy_golden("parallel", dir, sizeof dir);
    char settings[1100]; /* GPTNeoXTokenizer, the class without them, would replace the steps */
    snprintf(settings, sizeof settings, "%s/tokenizer_config.json", dir);
    test_spill(settings, "{\"tokenizer_class\": \"PreTrainedTokenizerFast\"}", 46);
    for (size_t i = 0; i < sizeof tokenizers / sizeof *tokenizers; i++) {
        convert_refuses(tokenizers[i].what, dir, "tokenizer.json", tokenizers[i].text, strlen(tokenizers[i].text),
                        tokenizers[i].holds, false);
        REFUSES(tokenizers[i].what, tokenizers[i].holds, true, "tokenize", "-m", dir, "-p", "x");
    }
}

/* ----------------------------------------------------------------------------------- weights -- */

TEST(bad_input_safetensors)
{
    static const struct {
        const char *what;
        uint64_t length; /* of the header; 0: true */
        const char *header, *holds;
    } files[] = {
        {"2^63 bytes of header", UINT64_C(1) << 63, "{}", "claims a header"},
        {"2^64 - 1 bytes of header", UINT64_MAX, "{}", "claims a header"},
        {"header longer than the file", 600, "{}", "claims a header"},
        {"header is not JSON", 0, "tensor: 3", "not valid JSON"},
        {"header is a list", 0, "[]", "not a JSON object"},
        {"shape larger than its bytes", 0, "{\"a\": {\"dtype\": \"F32\", \"shape\": [9], \"data_offsets\": [0, 32]}}",
         "does not fit"},
        {"shape that overflows", 0,
         "{\"a\": {\"dtype\": \"F32\", \"shape\": [4294967296, 4294967296], \"data_offsets\": [0, 0]}}",
         "does not fit"},
        {"bytes beyond the file", 0, "{\"a\": {\"dtype\": \"F32\", \"shape\": [1000], \"data_offsets\": [0, 4000]}}",
         "does not fit"},
        {"bytes before the data", 0, "{\"a\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [-8, 0]}}",
         "does not fit"},
        {"end before the beginning", 0, "{\"a\": {\"dtype\": \"F32\", \"shape\": [0], \"data_offsets\": [8, 0]}}",
         "does not fit"},
        {"unknown type", 0, "{\"a\": {\"dtype\": \"F31\", \"shape\": [8], \"data_offsets\": [0, 32]}}", "F31"},
        {"overlap", 0,
         "{\"a\": {\"dtype\": \"F32\", \"shape\": [8], \"data_offsets\": [0, 32]}, \"b\": {\"dtype\": \"F32\", "
         "\"shape\": [8], \"data_offsets\": [16, 48]}}",
         "overlap"},
        {"no tensor of the model", 0, "{\"a\": {\"dtype\": \"F32\", \"shape\": [8], \"data_offsets\": [0, 32]}}",
         "layers"},
    };
    char dir[1024];
    copy_golden("parallel", dir, sizeof dir);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct bytes b = {0};
        bytes_number(&b, files[i].length ? files[i].length : strlen(files[i].header), 8);
        bytes_text(&b, files[i].header);
        bytes_zeros(&b, 256);
        convert_refuses(files[i].what, dir, "model.safetensors", b.data, b.size, files[i].holds, b.size < SMALL_FILE);
        bytes_free(&b);
    }
    convert_refuses("empty", dir, "model.safetensors", "", 0, "empty", true);
    convert_refuses("7 bytes", dir, "model.safetensors", "1234567", 7, "too few", true);
}

/* The shape that config.json asks for against the one that the file has, and a file that was cut. */
TEST(bad_input_wrong_shapes_and_cut_weights)
{
    char dir[1024], path[1100];
    size_t size, config_size;
    copy_golden("parallel", dir, sizeof dir);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    char *whole = test_slurp(path, &size);
    snprintf(path, sizeof path, "%s/config.json", dir);
    char *config = test_slurp(path, &config_size);
    REQUIRE(whole && config);
    for (size_t i = 1; i < 20; i++)
        convert_refuses("cut", dir, "model.safetensors", whole, size / 20 * i, "model.safetensors", false);
    test_spill(path, config, config_size);
    convert_refuses("grown", dir, "model.safetensors", whole, size - 1, "model.safetensors", false);
    char *at = strstr(config, "\"vocab_size\": ");
    REQUIRE(at);
    at[strlen("\"vocab_size\": ")]++; /* 96 becomes, say, 106 rows: another number of the same length */
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    test_spill(path, whole, size);
    convert_refuses("other shape", dir, "config.json", config, config_size, "where config.json asks for", false);
    free(whole);
    free(config);
}

/* ----------------------------------------------------------------------------------- pickles -- */

static uint32_t crc32_of(const uint8_t *p, size_t n)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    return ~crc;
}

/* The fields that a local header and a central one share. */
static void put_zip_fields(struct bytes *b, const char *name, const struct bytes *content)
{
    bytes_number(b, 20, 2); /* version */
    bytes_number(b, 0, 8);  /* flags, stored, time and date */
    bytes_number(b, crc32_of(content->data, content->size), 4);
    bytes_number(b, content->size, 4);
    bytes_number(b, content->size, 4);
    bytes_number(b, strlen(name), 2);
    bytes_number(b, 0, 2); /* extra */
}

/* A ZIP archive that holds archive/data.pkl. */
static void put_zip(struct bytes *b, const struct bytes *program)
{
    static const char name[] = "archive/data.pkl";
    bytes_text(b, "PK\x03\x04");
    put_zip_fields(b, name, program);
    bytes_text(b, name);
    bytes_put(b, program->data, program->size);
    size_t directory = b->size;
    bytes_text(b, "PK\x01\x02");
    bytes_number(b, 20, 2); /* made by */
    put_zip_fields(b, name, program);
    bytes_zeros(b, 2 + 2 + 2 + 4 + 4); /* comment, disk, attributes, place of the local header */
    bytes_text(b, name);
    size_t end = b->size;
    bytes_text(b, "PK\x05\x06");
    bytes_number(b, 0, 4); /* disks */
    bytes_number(b, 1, 2);
    bytes_number(b, 1, 2);
    bytes_number(b, end - directory, 4);
    bytes_number(b, directory, 4);
    bytes_number(b, 0, 2);
}

/* A pickled text. */
static void put_text(struct bytes *b, const char *text)
{
    bytes_text(b, "X");
    bytes_number(b, strlen(text), 4);
    bytes_text(b, text);
}

/* module.name(argument), in one of the ways in which a pickle calls. */
static void put_call(struct bytes *b, char how, const char *module, const char *name, const char *argument)
{
    bytes_text(b, "\x80\x02");
    if (how == 'c') { /* GLOBAL, REDUCE */
        bytes_text(b, "c");
        bytes_text(b, module);
        bytes_text(b, "\n");
        bytes_text(b, name);
        bytes_text(b, "\n");
    } else if (how == 's') { /* STACK_GLOBAL, REDUCE */
        put_text(b, module);
        put_text(b, name);
        bytes_text(b, "\x93");
    } else { /* INST */
        bytes_text(b, "(");
        put_text(b, argument);
        bytes_text(b, "i");
        bytes_text(b, module);
        bytes_text(b, "\n");
        bytes_text(b, name);
        bytes_text(b, "\n.");
        return;
    }
    put_text(b, argument);
    bytes_text(b, "\x85R."); /* TUPLE1, REDUCE, STOP */
}

TEST(bad_input_pickles_execute_nothing)
{
    static const struct {
        const char *what, *module, *name;
        char how;
        const char *holds;
    } programs[] = {
        {"os.system", "os", "system", 'c', "os.system"},
        {"os.system from the stack", "os", "system", 's', "instruction 0x93"},
        {"posix.system", "posix", "system", 'c', "posix.system"},
        {"os.system as an instance", "os", "system", 'i', "instruction"},
        {"builtins.eval", "builtins", "eval", 'c', "builtins.eval"},
        {"subprocess", "subprocess", "getoutput", 'c', "subprocess.getoutput"},
        {"os.system through torch", "torch", "os.system", 'c', "torch.os.system"},
    };
    char dir[1024], marker[1024], shell[1100];
    make_directory(dir, sizeof dir, "hf");
    char *config = test_slurp(test_path("golden/head80_f16/config.json"), NULL);
    REQUIRE(config);
    snprintf(shell, sizeof shell, "%s/config.json", dir);
    test_spill(shell, config, strlen(config));
    free(config);
    static const uint8_t legacy[] = {0x80, 2,   0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50,
                                     0x19, '.', 0x80, 2,  'M',  0xe9, 3,    '.',  0x80, 2,    '}',  '.'};
    snprintf(marker, sizeof marker, "%s", test_scratch("executed"));
    snprintf(shell, sizeof shell, "touch %s", marker);
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++) {
        struct bytes program = {0}, zip = {0};
        put_call(&program, programs[i].how, programs[i].module, programs[i].name, shell);
        put_zip(&zip, &program);
        convert_refuses(programs[i].what, dir, "pytorch_model.bin", zip.data, zip.size, programs[i].holds,
                        zip.size < SMALL_FILE);
        /* The same without the archive, and as PyTorch before 1.6 wrote: behind a magic number, a version and facts. */
        struct bytes old = {0};
        bytes_put(&old, legacy, sizeof legacy);
        bytes_put(&old, program.data, program.size);
        convert_refuses(programs[i].what, dir, "pytorch_model.bin", program.data, program.size, "did not write", true);
        convert_refuses(programs[i].what, dir, "pytorch_model.bin", old.data, old.size, programs[i].holds, true);
        bytes_free(&old);
        bytes_free(&program);
        bytes_free(&zip);
        CHECK_MSG(access(marker, F_OK) != 0, "%s was executed", programs[i].what);
    }
    convert_refuses("empty", dir, "pytorch_model.bin", "", 0, "pytorch_model.bin", true);
    convert_refuses("an end without an archive", dir, "pytorch_model.bin", "PK\x05\x06", 4, "pytorch_model.bin", true);
}
