/* kept_files.c: see kept_files.h. */
#include "convert/kept_files.h"

#include "core/os.h"

#include <string.h>

#define LARGEST ((size_t)64 << 20)

/* other: kept only where the directory lacks that file, which says the same */
static const struct {
    const char *file, *key, *other;
} kept[] = {
    {"config.json", "geul.hf.config", NULL},
    {"generation_config.json", "geul.hf.generation_config", NULL},
    {"tokenizer_config.json", "geul.hf.tokenizer_config", NULL},
    {"special_tokens_map.json", "geul.hf.special_tokens_map", NULL},
    {"added_tokens.json", "geul.hf.added_tokens", NULL},
    {"tokenizer.json", "tokenizer.huggingface.json", NULL},
    {"vocab.json", "geul.hf.vocab", "tokenizer.json"},
    {"merges.txt", "geul.hf.merges", "tokenizer.json"},
};
#define N_KEPT             (sizeof kept / sizeof *kept)
#define FIRST_OF_TOKENIZER 2

char *geul_kept_read(struct geul_context *ctx, const char *dir, const char *file, size_t *length)
{
    char *path = geul_os_join_path(ctx, dir, file), *text = NULL;
    struct geul_map map = {0};
    if (path && geul_os_exists(path) && geul_os_map(ctx, path, &map) == GEUL_OK) {
        if (map.size > LARGEST)
            geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: %zu bytes are too many for such a file (at most %zu)", path,
                      map.size, LARGEST);
        else
            text = geul_strndup(ctx, (const char *)map.data, map.size);
        *length = map.size;
    }
    geul_os_unmap(&map);
    geul_free(ctx, path);
    return text;
}

enum geul_status geul_kept_write(struct geul_context *ctx, const char *dir, const char *file, const char *text,
                                 size_t length)
{
    char *path = geul_os_join_path(ctx, dir, file);
    struct geul_outfile *out = path ? geul_outfile_open(ctx, path) : NULL;
    geul_free(ctx, path);
    if (!out)
        return geul_error_status(ctx);
    enum geul_status status = geul_outfile_write(out, text, length);
    if (status == GEUL_OK)
        return geul_outfile_commit(out);
    geul_outfile_abandon(out);
    return status;
}

/* Keeps the files from number first on. */
static enum geul_status keep(struct geul_context *ctx, const char *dir, size_t first, struct geul_gguf_writer *w)
{
    for (size_t i = first; i < N_KEPT; i++) {
        size_t length;
        if (kept[i].other && geul_os_has(dir, kept[i].other))
            continue;
        char *text = geul_kept_read(ctx, dir, kept[i].file, &length);
        if (text)
            geul_gguf_set_string(w, kept[i].key, text, length);
        else if (geul_error_status(ctx) != GEUL_OK)
            return geul_error_status(ctx);
        geul_free(ctx, text);
    }
    return geul_gguf_writer_status(w);
}

enum geul_status geul_kept_to_gguf(struct geul_context *ctx, const char *dir, struct geul_gguf_writer *w)
{
    return keep(ctx, dir, 0, w);
}

enum geul_status geul_kept_tokenizer_to_gguf(struct geul_context *ctx, const char *dir, struct geul_gguf_writer *w)
{
    return keep(ctx, dir, FIRST_OF_TOKENIZER, w);
}

enum geul_status geul_kept_from_gguf(struct geul_context *ctx, const struct geul_gguf *g, const char *dir)
{
    enum geul_status status = GEUL_OK;
    const char *text;
    size_t length;
    for (size_t i = 0; status == GEUL_OK && i < N_KEPT; i++)
        if (strcmp(kept[i].file, "config.json") != 0 && geul_gguf_string(g, kept[i].key, &text, &length))
            status = geul_kept_write(ctx, dir, kept[i].file, text, length);
    return status;
}

const char *geul_kept_key(const char *file)
{
    for (size_t i = 0; i < N_KEPT; i++)
        if (strcmp(kept[i].file, file) == 0)
            return kept[i].key;
    return NULL;
}
