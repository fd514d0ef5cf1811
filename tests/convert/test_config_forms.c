/* test_config_forms.c: every form of config.json in golden/configs.tsv: refused by name, or the logits of transformers;
 * and what is exported and converted again has the same bits. */
#include "formats/checkpoint.h"
#include "formats/safetensors.h"
#include "geul_tools.h"
#include "core/os.h"
#include "tests/models/golden.h"

enum { SHOWN = 8, MOST_TOKENS = 128 };

/* One line of the table; texts point into it. */
struct form {
    char *name, *out, *message, *logits, *config;
};

/* Cuts the next field off *at: NULL at the end of the line. */
static char *next_field(char **at)
{
    char *field = *at;
    size_t n = strcspn(field, "\t\n");
    *at = field + n + (field[n] != '\0');
    field[n] = '\0';
    return field;
}

static bool next_form(char **at, struct form *f)
{
    char **const fields[] = {&f->name, &f->out, &f->message, &f->logits, &f->config};
    if (!**at)
        return false;
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        *fields[i] = next_field(at);
    return true;
}

static char *join(const char *dir, const char *name)
{
    static char paths[4][1200];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

/* Whether the table leaves the tensor out. */
static bool left_out(const char *out, const char *name)
{
    static const struct {
        const char *out, *part;
    } parts[] = {{"embed_out", "lm_head."},
                 {"embed_in", "embed_in."},
                 {"attention biases", "query_key_value.bias"},
                 {"attention biases", "attention.dense.bias"}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strcmp(parts[i].out, out) == 0 && strstr(name, parts[i].part))
            return true;
    return false;
}

/* Writes the golden's weights without those into dir. */
static void write_weights(struct geul_context *ctx, const char *dir, const char *out)
{
    struct geul_source_tensor kept[64];
    size_t n = 0;
    struct geul_checkpoint *c = geul_checkpoint_open(ctx, test_path("golden/parallel"), NULL);
    REQUIRE(c != NULL);
    for (size_t i = 0; i < geul_checkpoint_count(c); i++)
        if (!left_out(out, geul_checkpoint_at(c, i)->name))
            kept[n++] = *geul_checkpoint_at(c, i);
    struct geul_safetensors_writer *w = geul_safetensors_writer_new(ctx, join(dir, "model.safetensors"), kept, n);
    REQUIRE(w != NULL);
    for (size_t i = 0; i < n; i++)
        geul_safetensors_write(w, kept[i].data, kept[i].bytes);
    CHECK(geul_safetensors_commit(w) == GEUL_OK);
    geul_checkpoint_close(c);
}

static bool take_last(void *user, int item, const float *logits, int n_vocab)
{
    (void)item;
    memcpy(user, logits, (size_t)n_vocab * sizeof *logits);
    return true;
}

/* Puts the last logits of the golden's tokens into rows (64). */
static void compute(struct geul_context *ctx, const char *path, float *rows)
{
    struct geul_batch_item items[MOST_TOKENS];
    struct golden g;
    REQUIRE(golden_open("parallel", &g));
    const struct geul_session_options exact = {.n_context = MOST_TOKENS, .cache_type = GEUL_TYPE_F32};
    int n = (int)g.tokens.count;
    for (int i = 0; i < n; i++)
        items[i] = (struct geul_batch_item){g.tokens.i32[i], 0, i == n - 1};
    struct geul_model *model = geul_model_load(ctx, path, &(struct geul_model_options){.n_threads = 1});
    struct geul_session *s = model ? geul_session_new(ctx, model, &exact) : NULL;
    CHECK_MSG(s && geul_session_eval(s, items, n, take_last, rows) == GEUL_OK, "%s", geul_error(ctx));
    geul_session_free(s);
    geul_model_free(model);
    golden_close(&g);
}

/* Checks the converted file against transformers' logits, and what comes back from an export of it. */
static void check_logits(struct geul_context *ctx, const struct form *f, const char *path)
{
    const struct test_kept back = test_keep(test_scratch("back")), again = test_keep(test_scratch("again.gguf"));
    float first[64] = {0}, second[64] = {0};
    char *at = f->logits;
    compute(ctx, path, first);
    for (int i = 0; i < SHOWN && *f->logits != '-'; i++) {
        double right = strtod(at, &at), off = (double)first[i] - right;
        CHECK_MSG(off < 2e-4 && off > -2e-4, "%s: logit %d is %g, transformers' %g", f->name, i, (double)first[i],
                  right);
    }
    enum geul_status status = geul_export_hf(ctx, path, back.text, NULL);
    if (status == GEUL_OK)
        status = geul_convert_hf(
            ctx, back.text, again.text,
            &(struct geul_convert_options){.size = sizeof(struct geul_convert_options), .type = GEUL_TYPE_F32});
    if (CHECK_MSG(status == GEUL_OK, "%s: %s", f->name, geul_error(ctx)))
        compute(ctx, again.text, second);
    CHECK_MSG(memcmp(first, second, sizeof first) == 0, "%s: exported and converted again it gives other logits",
              f->name);
    remove(join(back.text, "model.safetensors"));
}

static void collect(void *user, enum geul_log_level level, const char *line)
{
    char *text = user;
    (void)level;
    snprintf(text + strlen(text), 4096 - strlen(text), "%s\n", line);
}

/* What is not taken as the config says it is said. */
static const struct {
    const char *form, *said;
} notes[] = {
    {"tied_both_stored", "config.json says tie_word_embeddings, but lm_head.weight has other values"},
    {"top_rope_theta", "\"rope_theta\" outside of \"rope_parameters\" is not used"},
    {"top_rope_theta_alone", "it is 10000 (\"rotary_emb_base\")"},
    {"top_partial_rotary_factor_alone", "\"partial_rotary_factor\" outside of \"rope_parameters\" is not used"},
};

TEST(convert_takes_each_form_of_config_as_transformers_or_refuses_it)
{
    size_t size;
    const struct test_kept kept_dir = test_keep(test_scratch("dir")), kept_path = test_keep(test_scratch("model.gguf"));
    const char *dir = kept_dir.text, *path = kept_path.text;
    char *table = test_slurp(test_path("golden/configs.tsv"), &size), *at = table, log[4096];
    const char *out = "";
    struct form f;
    int n = 0, noted = 0;
    REQUIRE(table != NULL);
    for (; next_form(&at, &f); n++) {
        log[0] = '\0';
        struct geul_context *ctx = geul_context_new(&(struct geul_context_options){.log = collect, .log_user = log});
        REQUIRE(geul_os_make_directory(ctx, dir) == GEUL_OK);
        if (strcmp(out, f.out) != 0) /* mostly the same */
            write_weights(ctx, dir, out = f.out);
        CHECK(test_spill(join(dir, "config.json"), f.config, strlen(f.config)));
        struct geul_convert_options o = {.size = sizeof o, .type = GEUL_TYPE_F32};
        enum geul_status status = geul_convert_hf(ctx, dir, path, &o);
        if (*f.message)
            CHECK_MSG(status != GEUL_OK && strstr(geul_error(ctx), f.message), "%s: \"%s\" lacks \"%s\"", f.name,
                      geul_error(ctx), f.message);
        else if (CHECK_MSG(status == GEUL_OK, "%s: %s", f.name, geul_error(ctx)))
            check_logits(ctx, &f, path);
        for (size_t i = 0; i < sizeof notes / sizeof *notes; i++)
            if (strcmp(notes[i].form, f.name) == 0) {
                CHECK_MSG(strstr(log, notes[i].said), "%s: \"%s\" is not said in: %s", f.name, notes[i].said, log);
                noted++;
            }
        geul_context_free(ctx);
    }
    CHECK(n > 150);
    CHECK_INT(noted, sizeof notes / sizeof *notes);
    free(table);
}
