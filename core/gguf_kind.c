/* gguf_kind.c: see gguf_kind.h. */
#include "core/gguf_kind.h"

#include <string.h>

/* general.type of GGUF files; the first is what a file without it is. */
static const struct {
    const char *type;
    struct geul_file_kind kind;
} types[] = {
    {"model", {GEUL_FILE_MODEL, "a model", "it can be used as one (-m)"}},
    {"adapter",
     {GEUL_FILE_OTHER, "an adapter (LoRA)",
      "load the model that it was made for and add it to that (-m MODEL --lora FILE)"}},
    {"imatrix", {GEUL_FILE_OTHER, "an importance matrix", GEUL_FILE_QUANTIZE}},
    {"checkpoint",
     {GEUL_FILE_OTHER, "a checkpoint of a training run",
      "training goes on from it (--resume); the run's adapter.gguf is its result"}},
    {"mmproj", {GEUL_FILE_OTHER, "the vision part of a model", "geul runs the language model alone"}},
    {"vocab", {GEUL_FILE_OTHER, "a vocabulary without a model", "take the file with the weights"}},
};

const struct geul_file_kind *geul_gguf_kind(const struct geul_gguf *g)
{
    const char *s;
    size_t n;
    if (!geul_gguf_string(g, "general.type", &s, &n))
        return &types[0].kind;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strlen(types[i].type) == n && memcmp(s, types[i].type, n) == 0)
            return &types[i].kind;
    return NULL;
}

enum geul_status geul_gguf_check_model(struct geul_context *ctx, const struct geul_gguf *g)
{
    const struct geul_file_kind *kind = geul_gguf_kind(g);
    return kind && kind->file != GEUL_FILE_MODEL ? geul_fail_kind(ctx, geul_gguf_path(g), "a model", kind) : GEUL_OK;
}
