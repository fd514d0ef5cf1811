/* golden.c: see golden.h. */
#include "tests/models/golden.h"

const char *const golden_names[] = {"parallel",   "sequential",  "odd_sizes",    "quantizable", "head64_bf16",
                                    "head80_f16", "head128_f16", "head256_bf16", "tied",        "full"};
const int n_goldens = (int)(sizeof golden_names / sizeof *golden_names);

static const char *path_in(const struct golden *g, const char *file)
{
    char relative[128];
    snprintf(relative, sizeof relative, "golden/%s/%s", g->name, file);
    return test_path(relative);
}

bool golden_open(const char *name, struct golden *g)
{
    *g = (struct golden){.name = name};
    size_t size;
    char *table = test_slurp(test_path("golden/cases.tsv"), &size), key[64];
    snprintf(key, sizeof key, "\n%s\t", name);
    const char *row = table ? strstr(table, key) : NULL;
    char dtype[16] = "";
    bool ok = row && sscanf(row + strlen(key), "%15s %*d %*d %d", dtype, &g->usable) == 2;
    free(table);
    g->f32 = strcmp(dtype, "float32") == 0;
    ok = ok && test_npy_read(path_in(g, "tokens.npy"), &g->tokens) && g->tokens.i32 &&
         test_npy_read(path_in(g, "logits.npy"), &g->logits) && g->logits.f32 &&
         test_npy_read(path_in(g, "greedy.npy"), &g->greedy) && g->greedy.i32;
    return CHECK_MSG(ok, "golden %s is damaged", name);
}

void golden_close(struct golden *g)
{
    test_npy_free(&g->tokens);
    test_npy_free(&g->logits);
    test_npy_free(&g->greedy);
}

enum geul_type golden_type(const struct golden *g)
{
    return g->f32 ? GEUL_TYPE_F32 : strstr(g->name, "bf16") ? GEUL_TYPE_BF16 : GEUL_TYPE_F16;
}

const char *golden_convert(const struct golden *g, enum geul_type type)
{
    struct geul_context *ctx = geul_context_new(NULL);
    char relative[128], name[64];
    snprintf(relative, sizeof relative, "golden/%s", g->name);
    snprintf(name, sizeof name, "%s.gguf", g->name);
    const char *path = test_scratch(name);
    struct geul_convert_options options = {.size = sizeof options, .type = type, .n_threads = 1};
    CHECK_MSG(geul_convert_hf(ctx, test_path(relative), path, &options) == GEUL_OK, "convert %s: %s", g->name,
              geul_error(ctx));
    geul_context_free(ctx);
    return path;
}

double golden_range(const struct golden *g)
{
    float low = g->logits.f32[0], high = low;
    for (int64_t i = 0; i < g->logits.count; i++) {
        low = fminf(low, g->logits.f32[i]);
        high = fmaxf(high, g->logits.f32[i]);
    }
    return (double)high - (double)low;
}
